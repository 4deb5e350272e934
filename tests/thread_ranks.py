"""Ranks that are threads of this process: what mpiexec would run, to be tried without it."""
from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from revode.ranks import Comm


class Thread:
    """The communicator of a rank that is a thread."""

    def __init__(self, rank: int, boxes: list[list[queue.Queue]], lost: threading.Event) -> None:
        self.rank, self.boxes, self.lost, self.sent = rank, boxes, lost, 0

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self.boxes)

    def send(self, obj: Any, dest: int) -> None:
        self.sent += 1
        self.boxes[dest][self.rank].put(obj)

    def recv(self, *, source: int) -> Any:
        while True:
            try:
                return self.boxes[self.rank][source].get(timeout=0.2)
            except queue.Empty:
                if self.lost.is_set():
                    raise RuntimeError("another rank ended with an error") from None


def threads(ranks: int, fn: Callable[[Comm], Any], kind: type = Thread) -> list:
    """What fn(comm) returned on each of some ranks that are threads; what the first of them raised is raised, and the others end.

    kind : of their communicators.
    """
    boxes: list[list[queue.Queue]] = [[queue.Queue() for _ in range(ranks)] for _ in range(ranks)]
    lost, found, errors = threading.Event(), [None] * ranks, []

    def run(rank: int) -> None:
        try:
            found[rank] = fn(kind(rank, boxes, lost))
        except BaseException as error:
            errors.append(error)
            lost.set()

    workers = [threading.Thread(target=run, args=(rank,), name=f"revode-rank-{rank}") for rank in range(ranks)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return found

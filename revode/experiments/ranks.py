"""`mpiexec -n 4 revode train ou`: the ranks share the paths out; rank 0 prints, saves and plots.

What ends one rank ends all of them: an exception travels in the next tree of messages, with the rank's number. Ctrl-C is heeded
there too, by all ranks in the same iteration, so that what was reached is kept; a second one ends at once. Of a rank that is
killed mpiexec tells the others. A checkpoint is written by rank 0, and nothing in it depends on how many there are.
"""
from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from typing import Any

from ..compiled.native import cores
from ..ranks import Alone, together, world
from .backends import UserError
from .runner import FILES, said_of

AGAIN = 2.0                                                  # seconds after which a signal is a second one


class Ranks:
    """The communicator of mpiexec, and whether somebody has asked to end."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.told = comm, False
        here = comm.Split_type(1).Get_size() if hasattr(comm, "Split_type") else 1          # COMM_TYPE_SHARED: this machine
        self.threads = max(1, cores() // here)
        self.at = 0.0

    def __getattr__(self, name: str) -> Any:
        """Get_rank, Get_size, send and recv are the communicator's."""
        return getattr(self.comm, name)

    @property
    def interrupted(self) -> bool:
        """Whether a signal has come since this was asked last."""
        found, self.told = self.told, False
        return found

    def heed(self, number: int, frame: Any) -> None:
        """The handler of signals."""
        if self.at and time.monotonic() - self.at > AGAIN:
            self.comm.Abort(128 + number)
        if not self.at:
            print("\nending after this iteration; Ctrl-C again ends at once", file=sys.stderr)
        self.told, self.at = True, self.at or time.monotonic()


@cache
def joined() -> Ranks | None:
    """The ranks that mpiexec started, if it did. All but rank 0 are silent from here on."""
    try:
        comm = world()
    except ImportError as error:
        raise UserError(str(error)) from None
    if isinstance(comm, Alone):
        return None
    ranks = Ranks(comm)
    if comm.Get_rank():
        sys.stdout = sys.stderr = open(os.devnull, "w")
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ranks.heed)
    return ranks


def as_one(args: Namespace, work: Callable[[], int]) -> int:
    """work() on every rank; what one raises all raise, and where it is no news for the user it is shown whole."""
    ranks = joined()
    if ranks is None:
        return work()
    if "checkpoint" not in args and ranks.Get_size() > 1:                     # all but `train`
        raise UserError("this command runs in one process; start it without mpiexec")
    if ranks.Get_rank():
        vars(args).update({name: None for name in FILES if name in args})
    try:
        return together(ranks, work, max)
    except Exception as reason:
        if ranks.Get_rank() == 0:
            raise
        if not said_of(reason).startswith("rank "):                            # it was here
            print(f"rank {ranks.Get_rank()}:\n{traceback.format_exc()}", file=sys.__stderr__)
        return 0                                                               # rank 0 has the status

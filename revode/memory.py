"""What a tape through all steps will hold, predicted from its third and fourth, and whether there is room for it."""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .engine.tensor import Tensor, value_of
from .methods.shears import Parts
from .stepping import Problem

ENTRY = 250            # bytes of one entry of a tape besides its arrays: a tuple, a tensor, the heads of arrays


def within_memory(problem: Problem) -> Callable[[int, Parts], None]:
    """visit(n, parts) for `march`: MemoryError after four steps if all of them, N of one kind, will not fit into what is free."""
    mark = 0

    def visit(n: int, parts: Parts) -> None:
        nonlocal mark
        if n not in (2, 4) or problem.adaptive is not None or not problem.plain:
            return                                         # how many steps there will be, or what is free, is not known
        nodes: list = next((x.tape.nodes for x in parts.values() if type(x) is Tensor), [])
        if n == 4:
            check_room(problem.N, held(nodes, mark) / 2)
        mark = len(nodes)

    return visit


def check_room(N: int, of_a_step: float) -> None:
    """MemoryError where N times so many bytes are more than is free."""
    needed = N * of_a_step
    if needed > 2**26 and needed > free():                 # looking it up costs as much as a step
        raise MemoryError(f"solve: Direct() would hold {N} steps, about {needed / 1e9:.3g} GB, but {free() / 1e9:.3g} GB of "
                          f"memory are free; Reversible() holds one state, and Checkpointed({round(N ** 0.5)}) as many as it says")


def held(nodes: list, mark: int) -> int:
    """Bytes that the entries from `mark` on keep alive, which those before do not."""
    known = set(map(id, owners(nodes[:mark])))
    new = {id(x): x.nbytes for x in owners(nodes[mark:]) if id(x) not in known}
    return sum(new.values()) + ENTRY * (len(nodes) - mark)


def owners(nodes: list) -> list:
    """The arrays that entries of a tape refer to: those that own their memory, not the views."""
    found, pending = [], list(nodes)
    while pending:
        x: Any = value_of(pending.pop())
        if type(x) in (tuple, list):
            pending.extend(x)
        elif isinstance(x, np.ndarray):
            while isinstance(x.base, np.ndarray):
                x = x.base
            found.append(x)
    return found


def free() -> float:
    """Bytes of memory that can still be had; inf where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:
            return next(1024.0 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return float("inf")

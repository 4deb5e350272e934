"""The stretches of a solve with checkpoints, in a few calls: the moves of gradients/checkpointed.py, planned once and walked in C.

    ahead from a state that is kept, seeing some or all on the way       |       back, at states that were seen

States lie in rows, as they do in the memory of the tiles: those that are kept, in order, and behind them those of a stretch. The
moves of a plan are within one block of the grid's values, and make about as many steps as one call does elsewhere.
"""
from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Collection, Iterator
from functools import cache, lru_cache
from operator import is_
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..gradients.checkpointed import TOGETHER, forget, moves
from .calls import address, run_tiles
from .generate import arguments
from .native import CompileError, NoCompiler, build

TEXT = Path(__file__).with_name("stretches.hpp").read_text(encoding="utf-8")
LATER = 8                  # sweeps of a runner that go the long way
SHORT = 1 << 14            # steps of a solve whose plans are kept
# what `run` is given of what stretches.hpp has at hand, by the names of generate.ARGUMENTS; of the rest nothing
AHEAD = {"P": "P_ahead", "M": "M_ahead", "saved": "n[11]"} | {x: x for x in "first last begins GB GS rows save look L".split()}
BACK = {"P": "P_back", "M": "M_back", "look": "nowhere"} | {x: x for x in "first last GS rows save saved K".split()}

logger = logging.getLogger("revode")


class Plan(NamedTuple):
    """Moves as stretches.hpp takes them, and the looks of those that do not look at every step."""
    moves: np.ndarray
    looks: np.ndarray
    begins: list[int]                  # where those ahead start from a state that is kept
    steps: list[int]                   # how many there are, ahead and back
    peak: int                          # states that there are at most


def plans(N: int, n: int, kept: Collection[int], chunk: int) -> Iterator[Plan]:
    """The sweep from N to the start with n places, where these states are kept; a block is `chunk` steps."""
    found, looks, steps, peak = list[tuple](), list[int](), [0, 0], 0
    for move, some, states in pieces(N, n, kept, chunk):
        if found and (move[1] // chunk != found[0][1] // chunk or sum(steps) > chunk):
            yield planned(found, looks, steps, peak)
            found, looks, steps = [], [], [0, 0]
        found.append((*move, len(looks) if some else -1))
        looks += some
        steps[move[0]] += move[2] - move[1]
        peak = max(peak, states)
    yield planned(found, looks, steps, peak)


@lru_cache(16)
def plans_again(N: int, n: int, kept: tuple[int, ...], chunk: int) -> tuple[Plan, ...]:
    """plans(), kept."""
    return tuple(plans(N, n, kept, chunk))


def planned(found: list[tuple], looks: list[int], steps: list[int], peak: int) -> Plan:
    return Plan(np.asarray(found, np.int64), np.asarray([*looks, -1], np.int64),
                [first for back, first, _, row, *_ in found if row >= 0 and not back], steps, peak)


def pieces(N: int, n: int, kept: Collection[int], chunk: int) -> Iterator[tuple[tuple, list[int], int]]:
    """Moves that end where a block does: (whether back, first, last, row, that of the next look), looks but for all, and states."""
    for left, row, looks, right, first in moves(N, n, kept, sys.maxsize):
        every, peak, at = first is not None and len(looks) == right - left - 1, row + 1 + len(looks) if looks else 0, left
        while looks and at < looks[-1]:
            last = min(looks[-1], (at // chunk + 1) * chunk)
            passed = at - left if every else sum(look <= at for look in looks)
            yield (0, at, last, row if at == left else -1, row + 1 + passed), [] if every else [*looks[passed:]], peak
            at = last
        while first is not None and right > first:
            at = max(first, (right - 1) // chunk * chunk)
            yield (1, at, right, row + (at - left if every else 1), 0), [], peak
            right = at


@cache
def library(dtype: Any, outputs: int) -> Any:
    """The walk, for methods with so many outputs. Raises NoCompiler, CompileError."""
    types, names = zip(*arguments(outputs), strict=True)
    ys = [f"Y{j}" for j in range(outputs)]
    given = {"AHEAD ahead": AHEAD, "BACK back": {**BACK, **{y: y for y in ys}}}
    function = build("\n".join([
        f"typedef {'double' if dtype == np.float64 else 'float'} real;", "typedef long long INDEX;",
        f"typedef void (*Run)(int, {', '.join(types)});", f"#define OUTPUTS {', '.join(f'real* {y}' for y in ys)}",
        *(f"#define {call}(tile, {', '.join(known.get(x, '0') for x in names)})" for call, known in given.items()), TEXT]),
        True).rv_stretches
    function.restype, function.argtypes = None, [
        ctypes.c_longlong, *[ctypes.c_void_p] * 11, ctypes.c_longlong, *[ctypes.c_void_p] * (1 + outputs)]
    return function


class Stretches:
    """Two runners of one thread, and room for so many states."""

    def __init__(self, ahead: Any, back: Any, rows: int) -> None:
        self.ahead, self.back, self.function = ahead, back, library(ahead.dtype, len(back.outputs))
        tiles, places = ahead.tiles, ahead.source.places
        self.place = np.concatenate([places["part", role[1]][0] + np.arange(F * ahead.T, dtype=np.int64)       # of K in a row
                                     for role, (_, F, _) in back.source.places.items() if role[0] == "state"])
        self.states = np.zeros((rows, tiles, ahead.source.seen), ahead.dtype)
        self.rooms = np.empty((rows, tiles, self.place.size), ahead.dtype), self.place, np.empty((tiles, rows), np.int64)
        self.at = np.array([*(ctypes.cast(x.function, ctypes.c_void_p).value for x in (ahead, back)),
                            *map(address, (self.states, *self.rooms))], np.uintp)
        self.begun: tuple = ((None,) * 4, None)              # values of the grid where stretches begin; and of which plan and grid
        self.memory = [address(x) for x in (ahead.P, back.P, ahead.memory, back.memory)]

    def put(self, kept: dict) -> None:
        """The states that are kept, in order."""
        states = [kept[n] for n in sorted(kept)]
        for name in kept[0]:
            x = np.array([parts[name] for parts in states])
            self.ahead.within(self.states[:len(x)], ("part", name))[...] = self.ahead.tiled(x, len(x))

    def make(self, plan: Plan, a_ys: tuple, chunk: int) -> None:
        """These moves."""
        ahead, back, (rows, tiles, seen) = self.ahead, self.back, self.states.shape
        stats, save, block = ahead.stats, ahead.save, int(plan.moves[0, 1]) // chunk * chunk
        GS, G = (x.columns("step", block, min(block + chunk, ahead.problem.N)) for x in (ahead, back))
        of = plan, ahead.problem.ts, ahead.problem.hs, ahead.problem.h_before
        if not all(map(is_, of, self.begun[0])):
            self.begun = of, np.concatenate([np.empty((0, ahead.source.widths("begin")[0])), *(     # as `call` has them, one by one
                ahead.columns("begin", n, n + 1) for n in plan.begins if "begin" in ahead.lowered)])
        GB = self.begun[1]
        n = np.array([len(plan.moves), tiles, seen, self.place.size, rows, block, len(save) - 2, ahead.stride, GS.shape[1],
                      G.shape[1], GB.shape[1], len(save) - 1], np.int64)
        run_tiles(self.function, tiles, ahead.threads, (
            *map(address, (n, self.at, plan.moves, plan.looks)), *self.memory, *map(address, (GB, GS, G)), ahead.rows,
            *map(address, (save, *a_ys))))
        ahead.tally({"begin": len(plan.begins), "step": plan.steps[0]})
        back.tally({"step": plan.steps[1]})
        stats.advances += plan.steps[0]
        stats.peak_states = max(stats.peak_states, plan.peak)


def walk(ahead: Any, back: Any, kept: Any, n: int, a_ys: tuple) -> bool:
    """The sweep from the end to the start, at these cotangents; False where it has to go the long way."""
    N, rows = ahead.problem.N, min(n, ahead.problem.N) + 2
    if not (ahead.stays and getattr(back, "stays", False)):
        return False
    chunk = min(ahead.chunk, back.chunk)
    if (ahead.T, ahead.tiles) != (back.T, back.tiles) or (N > chunk and ahead.chunk != back.chunk) or (
            rows * ahead.tiles * ahead.source.seen * ahead.dtype.itemsize > TOGETHER):
        return False
    ahead.walks += 1
    if ahead.walks <= LATER:                       # compiling the walk would make the first wait
        return False
    if ahead.walker is None or ahead.walker.back is not back or len(ahead.walker.states) != rows:
        try:
            ahead.walker = Stretches(ahead, back, rows)
        except (CompileError, NoCompiler) as error:
            logger.info("the stretches between checkpoints are called one by one, because: %s", error)
            ahead.walks = -sys.maxsize
            return False
    ahead.walker.put(kept)
    a_ys = back.laid_out(a_ys)
    for plan in (plans_again if N <= SHORT else plans)(N, n, tuple(sorted(kept)), chunk):
        ahead.walker.make(plan, a_ys, chunk)
    forget(kept, 1)
    ahead.drop()
    return True

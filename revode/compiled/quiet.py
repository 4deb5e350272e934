"""The numbers that tell whether a sweep was quiet (watch/quiet.py), in one pass of C++: one library for each dtype, for all solves."""
from __future__ import annotations

import ctypes
import logging
import sys
from functools import lru_cache
from math import prod
from operator import is_
from pathlib import Path
from typing import Any

import numpy as np

from ..watch.quiet import Measured, Shown, measured
from .calls import address
from .native import CompileError, NoCompiler, build

TEXT = Path(__file__).with_name("quiet.hpp").read_text()
LATER = 20                             # sweeps that NumPy measures

logger = logging.getLogger("revode")

Laid = tuple[np.ndarray, int]          # where in a row the entries of each part lie, part by part, and how many numbers it has


class Measure:
    """Shown -> Measured, after LATER sweeps by a library: compiling it would make the first wait. Of one thread, as its runner."""

    def __init__(self, dtype: Any, later: int = LATER) -> None:
        self.dtype, self.later = dtype, later
        self.function: Any = None
        self.whole, self.scalars, self.out = np.zeros(14, np.int64), np.zeros(5), np.zeros(13)
        self.fixed = [pointer(x) for x in (self.whole, self.scalars, self.out)]
        self.numbers: tuple = ()                                     # of the last sweep: what stands in the first two,
        self.constants: tuple = (None,) * 8                          # and the arrays that are mostly those of the next one, too:
        self.kept: list = []                                         # the same, in the order of their axes;
        self.at: list[int | None] = []                               # where these lie, and A

    def build(self) -> None:
        """Compile, or load what has been compiled; where that cannot be done NumPy goes on, with the same numbers."""
        self.later = sys.maxsize
        try:
            self.function = build(f"typedef {'double' if self.dtype == np.float64 else 'float'} real;\n{TEXT}", True).rv_quiet
            self.function.restype, self.function.argtypes = None, [ctypes.c_void_p] * 17
        except (CompileError, NoCompiler) as error:
            logger.info("what tells a quiet sweep is measured by NumPy, because: %s", error)

    def __call__(self, s: Shown) -> Measured:
        self.later -= 1
        if self.later == 0:
            self.build()
        arrays = s.X, s.ahead, s.Z, s.weighed, s.flowed and s.flowed[0]
        fit = [type(x) is np.ndarray and x.flags.c_contiguous and x.dtype == self.dtype for x in arrays if x is not None]
        if self.function is None or not all(fit):
            return measured(s)
        (p, looks), shape = s.X.shape[:2], s.X.shape[2:]
        most, entries = s.ahead.shape[1], prod(shape)
        rows = shape, side_by_side(p, looks, entries), side_by_side(p // 2, most, entries), most
        return self.of_rows(s, rows, s.X, s.ahead, s.Z, s.weighed, s.flowed)

    def of_rows(self, s: Shown, rows: tuple[tuple, Laid, Laid, int], X: Any, ahead: Any, Z: Any, weighed: Any,
                flowed: tuple | None) -> Measured:
        """The same, where X and ahead have the parts at a look in a row; of s what stays the same from solve to solve.

        rows : the shape of y, how X and ahead are laid out, and the looks on the way ahead.
        """
        shape, (place, width), (ahead_place, ahead_width), looks = rows
        flow, begins = flowed or (None, None)
        many = (0, 0, 0) if flow is None else (*flow.shape, len(begins))
        numbers = shape, width, ahead_width, looks, *many, s.output, s.eps, s.tiny, s.allowed, s.N, s.apart
        constants = s.at, s.L, s.ahead_at, s.ahead_L, s.h, place, ahead_place, begins
        if not (numbers == self.numbers and all(map(is_, constants, self.constants))):
            self.numbers, self.constants, self.A = numbers, constants, np.empty(shape, self.dtype)
            self.whole[:] = (len(ahead_place) // prod(shape), prod(shape[:-1]), prod(shape[-1:]), width, *s.at.shape[::-1], looks,
                             *s.ahead_at.shape[::-1], *many, s.output, ahead_width)
            self.scalars[:] = s.eps, s.tiny, s.allowed, s.N, s.apart
            self.kept = [None if x is None else np.ascontiguousarray(x) for x in constants]
            self.at = [pointer(x) for x in (*self.kept, self.A)]
        whole, scalars, out = self.fixed
        at, L, ahead_at, ahead_L, h, back, there, of_leaves, A = self.at
        self.function(whole, scalars, pointer(X), back, at, L, pointer(ahead), there, ahead_at, ahead_L, h, pointer(Z),
                      pointer(weighed), pointer(flow), of_leaves, out, A)
        S_p, S_y, S_d, together, *found = self.out.tolist()
        W_p, off, size, most, a_y, least, smallest, E, C = found
        return Measured((S_p, S_y, S_d), bool(together), W_p, off, size, most, a_y, least, smallest, E, C, self.A)


@lru_cache(64)
def side_by_side(parts: int, looks: int, entries: int) -> Laid:
    """Of an array of (parts, looks, entries), which has the same part at the next look in the next row."""
    return (np.arange(parts)[:, None] * looks * entries + np.arange(entries)).ravel(), entries


def pointer(x: Any) -> int | None:
    """Where an array lies."""
    return None if x is None else address(x)

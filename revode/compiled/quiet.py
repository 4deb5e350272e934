"""The numbers that tell whether a sweep was quiet (watch/quiet.py), in one pass of C++: one library for each dtype, for all solves."""
from __future__ import annotations

import ctypes
import logging
import sys
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..watch.quiet import Measured, Shown, measured
from .calls import address
from .native import CompileError, NoCompiler, build

TEXT = Path(__file__).with_name("quiet.hpp").read_text()
LATER = 20                             # sweeps that NumPy measures
SIDE = 8                               # members at a time, as in the text

logger = logging.getLogger("revode")


class Laid(NamedTuple):
    """How what is measured lies in memory; places are those of the entries, part by part."""
    shape: tuple                       # of y
    rows: tuple[np.ndarray, int]       # places in a row of X, which is a look on the way back, and how many numbers it has
    ahead: tuple[np.ndarray, int]      # the same of the way ahead
    looks: int                         # on that
    ends: np.ndarray                   # at the start: places in S of what came back, in truth, and in S of the cotangents
    flow: tuple[int, int, int]         # sums for the parameters: rows, entries, numbers from one row to the next
    begins: Any                        # where each leaf begins there


class Measure:
    """Shown -> Measured, after LATER sweeps by a library: compiling it would make the first wait. Of one thread, as its runner."""

    def __init__(self, dtype: Any, later: int = LATER) -> None:
        self.dtype, self.later = dtype, later
        self.function: Any = None
        self.numbers, self.scalars, self.out = np.zeros(37, np.int64), np.zeros(5), np.zeros(13)
        self.at = address(self.numbers)
        self.given: tuple = (None, None)                             # of which solves, laid out how, what stays the same stands there

    def build(self) -> None:
        """Compile, or load what has been compiled; where that cannot be done NumPy goes on, with the same numbers."""
        self.later = sys.maxsize
        try:
            self.function = build(f"typedef {'double' if self.dtype == np.float64 else 'float'} real;\n{TEXT}", True).rv_quiet
            self.function.restype, self.function.argtypes = None, [ctypes.c_void_p]
        except (CompileError, NoCompiler) as error:
            logger.info("what tells a quiet sweep is measured by NumPy, because: %s", error)

    def __call__(self, s: Shown) -> Measured:
        self.later -= 1
        if self.later == 0:
            self.build()
        rows, begins = s.flowed or (None, None)
        arrays = s.X, s.ahead, s.Z, s.weighed, rows
        fit = [type(x) is np.ndarray and x.flags.c_contiguous and x.dtype == self.dtype for x in arrays if x is not None]
        if self.function is None or not all(fit):
            return measured(s)
        (p, looks), shape, most = s.X.shape[:2], s.X.shape[2:], s.ahead.shape[1]
        entries, many = prod(shape), (0, 0) if rows is None else rows.shape
        laid = Laid(shape, side_by_side(p, looks, entries), side_by_side(p // 2, most, entries), most, np.arange(s.Z.size),
                    (*many, many[1]), begins)
        X, ahead, Z, weighed, flowed = map(pointer, arrays)
        return self.of_rows(s, laid, X, ahead, Z, Z, weighed, flowed)

    def of_rows(self, s: Shown, laid: Laid, *where: int) -> Measured:
        """The same, of arrays that are told by where they lie: X and ahead, with a look in a row; S, in which the sweep has come to
        the start, and truth; weighed; the sums. Of s what stays the same from solve to solve."""
        if self.given[0] is not s or self.given[1] is not laid:
            self.take(s, laid)
        self.numbers[25:31] = where
        self.function(self.at)
        S_p, S_y, S_d, together, *found = self.out.tolist()
        W_p, off, size, most, a_y, least, W_0, E, C = found
        return Measured((S_p, S_y, S_d), bool(together), W_p, off, size, most, a_y, least, W_0, E, C, self.A)

    def take(self, s: Shown, laid: Laid) -> None:
        """What stays the same from solve to solve."""
        shape, (place, width), (there, ahead_width), looks, ends, (rows, entries, apart), begins = laid
        self.A = np.empty(shape, self.dtype)
        starts = np.cumsum((0, *(s.widths or shape[-1:] or (1,))))
        self.scalars[:] = s.eps, s.tiny, s.allowed, s.N, s.apart
        kept = [None if x is None else np.ascontiguousarray(x) for x in (
            place, s.at, there, s.ahead_at, ends, begins, self.scalars, s.L, s.ahead_L, s.h, starts, s.rise)]
        self.numbers[:25] = (len(there) // prod(shape), prod(shape[:-1]), prod(shape[-1:]), width, *s.at.shape[::-1], looks,
                             *s.ahead_at.shape[::-1], rows, entries, apart, 0 if begins is None else len(begins), s.output,
                             ahead_width, *map(pointer, kept[:-2]))
        at = map(pointer, kept[-2:])
        self.numbers[31:] = pointer(self.out), pointer(self.A), side(shape, place, there, ends), len(starts) - 1, *at
        self.given = s, laid, kept


def side(shape: tuple, *places: np.ndarray) -> bool:
    """Whether of eight members at a time the same entry lies side by side."""
    members = prod(shape[:-1])
    return members % SIDE == 0 and all([(np.diff(x.reshape(-1, SIDE, *shape[-1:]), axis=1) == 1).all() for x in places])


@lru_cache(64)
def side_by_side(parts: int, looks: int, entries: int) -> tuple[np.ndarray, int]:
    """Of an array of (parts, looks, entries), which has the same part at the next look in the next row."""
    return (np.arange(parts)[:, None] * looks * entries + np.arange(entries)).ravel(), entries


def pointer(x: Any) -> int:
    """Where an array lies."""
    return 0 if x is None else address(x)

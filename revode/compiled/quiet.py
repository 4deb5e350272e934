"""The numbers that tell whether a sweep was quiet (watch/quiet.py), in one pass of C++: one library for each dtype, for all solves."""
from __future__ import annotations

import ctypes
import logging
import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..watch.quiet import Measured, Shown, measured
from .calls import address
from .native import CompileError, NoCompiler, build

TEXT = Path(__file__).with_name("quiet.hpp").read_text()
LATER = 20                             # sweeps that NumPy measures
ARRAYS = 13                            # pointers besides the sizes and the scalars

logger = logging.getLogger("revode")


class Measure:
    """Shown -> Measured, after LATER sweeps by a library: compiling it would make the first wait. Of one thread, as its runner."""

    def __init__(self, dtype: Any, later: int = LATER) -> None:
        self.dtype, self.later = dtype, later
        self.function: Any = None
        self.whole, self.scalars, self.out = np.zeros(13, np.int64), np.zeros(5), np.zeros(13)
        self.numbers: tuple = ()                                     # what stands in the first two
        self.fixed = [pointer(x) for x in (self.whole, self.scalars, self.out)]
        self.known: dict[int, tuple[Any, Any, int | None]] = {}      # constants, in the order of their axes

    def build(self) -> None:
        """Compile, or load what has been compiled; where that cannot be done NumPy goes on, with the same numbers."""
        self.later = sys.maxsize
        try:
            self.function = build(f"typedef {'double' if self.dtype == np.float64 else 'float'} real;\n{TEXT}", True).rv_quiet
            self.function.restype, self.function.argtypes = None, [ctypes.c_void_p] * (ARRAYS + 2)
        except (CompileError, NoCompiler) as error:
            logger.info("what tells a quiet sweep is measured by NumPy, because: %s", error)

    def at(self, x: Any) -> int | None:
        """Where a constant lies, which is the same array from solve to solve."""
        found = self.known.get(id(x))
        if found is None or found[0] is not x:
            if len(self.known) > 64:
                self.known.clear()
            whole = np.ascontiguousarray(x)
            found = self.known[id(x)] = x, whole, pointer(whole)
        return found[2]

    def __call__(self, s: Shown) -> Measured:
        shape, (flowed, begins) = s.X.shape[2:], s.flowed or (None, None)
        self.later -= 1
        if self.later == 0:
            self.build()
        if self.function is None:
            return measured(s)
        arrays = s.X, s.ahead, s.Z, s.weighed, flowed
        if any(x is not None and not (type(x) is np.ndarray and x.flags.c_contiguous and x.dtype == self.dtype) for x in arrays):
            return measured(s)
        rows, entries = (0, 0) if flowed is None else flowed.shape
        numbers = (len(s.ahead), prod(shape[:-1]), prod(shape[-1:]), s.X.shape[1], *s.at.shape[::-1], s.ahead.shape[1],
                   *s.ahead_at.shape[::-1], rows, entries, 0 if begins is None else len(begins), s.output), (
                   s.eps, s.tiny, s.allowed, s.N, s.apart)
        if numbers != self.numbers:                                  # mostly those of the last solve
            self.whole[:], self.scalars[:] = self.numbers = numbers
        A, (whole, scalars, out) = np.empty(shape, s.X.dtype), self.fixed
        at, L, ahead_at, ahead_L = map(self.at, (s.at, s.L, s.ahead_at, s.ahead_L))
        self.function(whole, scalars, pointer(s.X), at, L, pointer(s.ahead), ahead_at, ahead_L, pointer(s.h), pointer(s.Z),
                      pointer(s.weighed), pointer(flowed), self.at(begins), out, pointer(A))
        S_p, S_y, S_d, together, *found = self.out.tolist()
        W_p, off, size, ahead, a_y, least, smallest, E, C = found
        return Measured((S_p, S_y, S_d), bool(together), W_p, off, size, ahead, a_y, least, smallest, E, C, A)


def pointer(x: Any) -> int | None:
    """Where an array lies."""
    return None if x is None else address(x)

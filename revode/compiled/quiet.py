"""The numbers that tell whether a sweep was quiet (watch/quiet.py), in one pass of C++ that stands behind the generated loops."""
from __future__ import annotations

import ctypes
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..watch.quiet import Measured, Shown, measured

TEXT = Path(__file__).with_name("quiet.hpp").read_text()
ARRAYS = 13                            # pointers besides the sizes and the scalars


class Measure:
    """Shown -> Measured, by a library. It belongs to one thread, as the runner does that has it."""

    def __init__(self, library: Any, dtype: Any) -> None:
        self.dtype = dtype
        self.function = library.rv_quiet
        self.function.restype, self.function.argtypes = None, [ctypes.c_void_p] * (ARRAYS + 2)
        self.whole, self.scalars, self.out = np.zeros(13, np.int64), np.zeros(5), np.zeros(13)
        self.fixed = [pointer(x) for x in (self.whole, self.scalars, self.out)]
        self.known: dict[int, tuple[Any, Any, int | None]] = {}      # constants, in the order of their axes

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
        arrays = s.X, s.ahead, s.Z, s.weighed, flowed
        if any(x is not None and not (type(x) is np.ndarray and x.flags.c_contiguous and x.dtype == self.dtype) for x in arrays):
            return measured(s)
        rows, entries = (0, 0) if flowed is None else flowed.shape
        self.whole[:] = (len(s.ahead), prod(shape[:-1]), prod(shape[-1:]), s.X.shape[1], *s.at.shape[::-1], s.ahead.shape[1],
                         *s.ahead_at.shape[::-1], rows, entries, 0 if begins is None else len(begins), s.output)
        self.scalars[:] = s.eps, s.tiny, s.allowed, s.N, s.apart
        A, (whole, scalars, out) = np.empty(shape, s.X.dtype), self.fixed
        at, L, ahead_at, ahead_L = map(self.at, (s.at, s.L, s.ahead_at, s.ahead_L))
        self.function(whole, scalars, pointer(s.X), at, L, pointer(s.ahead), ahead_at, ahead_L, pointer(s.h), pointer(s.Z),
                      pointer(s.weighed), pointer(flowed), self.at(begins), out, pointer(A))
        S_p, S_y, S_d, together, *found = self.out.tolist()
        W_p, off, size, ahead, a_y, least, smallest, E, C = found
        return Measured((S_p, S_y, S_d), bool(together), W_p, off, size, ahead, a_y, least, smallest, E, C, A)


def pointer(x: Any) -> int | None:
    """Where an array lies."""
    return None if x is None else x.ctypes.data

"""What can be written by hand in C, c_by_hand.c: no engine, no generator; compiled here for the sizes of the work.

The compiler and its flags are those of `backend="native"`, without strictness; a tile is at most 32 rows of the batch.
"""
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from revode.compiled import native

from ..works import LAM, Work, problem

TILE = 32


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    case = problem(work, dtype)
    d, h1, h2, _ = work.sizes
    sizes = {"D": d, "H1": h1, "H2": h2, "T": math.gcd(work.batch, TILE), "SINGLE": int(dtype == "float32")}
    source = "".join(f"#define {name} {size}\n" for name, size in sizes.items()) + Path(__file__).with_suffix(".c").read_text()
    gradient = native.build(source, strict=False).gradient
    gradient.restype = ctypes.c_double
    leaves = [case.y0, *case.params]
    found = [np.empty_like(leaf) for leaf in leaves]
    coupled = {"coupled-midpoint": 1, "reversible-heun": 0}[method]
    given = native.arguments(*leaves, *found, work.batch, work.N, work.h, LAM, coupled)

    def run() -> tuple:
        return gradient(*given), [a.copy() for a in found]

    return run

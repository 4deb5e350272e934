"""The hand-written kernels and how each is launched: on CuPy arrays on the GPU, on NumPy arrays on the CPU (host/), same bits.

    kernels.shear_forward(x, k, scale=0.999, c=h, about=z)         # x changes in place
    kernels.total(x)                                               # a fixed order, for any block and on any machine

Every function takes `block` (threads in a block; it decides nothing but the time) and hands what else it is given to the
launch: mode="fast"; and on the host order= and shuffle=, or launch=host.ptx.launch. Arrays are float64 or float32, contiguous,
and of one kind in a call. The formulas stand in the .cu files.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import compile, host
from ..compile import kernel_source

TILE = 4096                  # elements of a tile of total and max_abs
ROWS = 16                    # rows of a tile of sum_rows
REALS = {"float64": "double", "float32": "float"}


# x the target, k what the field gave, c its factor, `about` the part that x moves towards -------------------------------
def shear_forward(x: Any, k: Any, scale: float, c: float, about: Any = None, **how: Any) -> None:
    """x <- scale x + ((1 - scale) about + c k), in place."""
    _each("shears", "shear_forward", x, (x, about, k), (scale, 1.0 - scale, c), how)


def shear_inverse(x: Any, k: Any, scale: float, c: float, about: Any = None, **how: Any) -> None:
    """x <- (x - ((1 - scale) about + c k)) / scale, in place."""
    _each("shears", "shear_inverse", x, (x, about, k), (scale, 1.0 - scale, c), how)


def shear_pullback(x: Any, k: Any, ax: Any, scale: float, c: float, about: Any = None, a_about: Any = None, **how: Any) -> Any:
    """The inverse, and of the cotangents ax and a_about, in place; returns ak, which the field's vjp is to be called with."""
    if (about is None) != (a_about is None):
        raise ValueError("shear_pullback: about and a_about go together")
    ak = np.empty_like(k)
    _each("shears", "shear_pullback", x, (x, about, k, ax, a_about, ak), (scale, 1.0 - scale, c), how)
    return ak


# Reductions -------------------------------------------------------------------------------------------------------------
def total(x: Any, **how: Any) -> Any:
    """The sum of all elements, (1,): tiles of TILE, then tiles of the tiles' sums, until one is left."""
    return _reduced("sum", x, how)


def max_abs(x: Any, **how: Any) -> Any:
    """The largest |x|, (1,); NaN where there is one."""
    return _reduced("max_abs", x, how)


def _reduced(name: str, x: Any, how: dict) -> Any:
    while True:
        tiles = max(1, -(-x.size // TILE))
        partial = np.empty_like(x, shape=(tiles,))
        _run("reductions", name, x, tiles, (x.size, TILE, x, partial), how)
        if tiles == 1:
            return partial
        x = partial


def sum_rows(x: Any, **how: Any) -> Any:
    """Down the columns of x (rows, width), (width,): tiles of ROWS rows, then tiles of these, until one row is left."""
    while x.shape[0] > 1:
        tiles = -(-x.shape[0] // ROWS)
        out = np.empty_like(x, shape=(tiles, x.shape[1]))
        _run("reductions", "sum_rows", x, (_blocks(x.shape[1], how), tiles), (*x.shape, ROWS, x, out), how)
        x = out
    return x[0]


# What a solve brings from one place of a buffer to another ----------------------------------------------------------------
def collect(table: tuple, x: Any, out: Any, **how: Any) -> None:
    """out[i] = the sum of count[i] entries of x: start[i], start[i] + step[i], ... in the fixed tree; of none: zero.

    table : (start, count, step), int32, as long as out. x, out : of one dtype; in one buffer, or apart.
    """
    _run("collect", "collect", out, _blocks(out.size, how), (out.size, *table, x, out), how)


# Optimiser --------------------------------------------------------------------------------------------------------------
def adamw(p: Any, g: Any, m: Any, v: Any, n: int, lr: float, weight_decay: float = 0.0, b1: float = 0.9, b2: float = 0.999,
          eps: float = 1e-8, **how: Any) -> None:
    """Step number n = 1, 2, ... of revode.optim.adamw: p, m and v change in place."""
    numbers = (b1, 1 - b1, b2, 1 - b2, 1 - b1 ** n, 1 - b2 ** n, lr, eps, weight_decay)
    _each("adamw", "adamw", p, (p, g, m, v), numbers, how)


# Launches ---------------------------------------------------------------------------------------------------------------
def _each(subject: str, name: str, like: Any, arrays: tuple, numbers: tuple, how: dict) -> None:
    """An elementwise kernel: (n, arrays, numbers rounded to real)."""
    for x in arrays:
        if x is not None and (x.shape != like.shape or x.dtype != like.dtype):
            raise ValueError(f"{name}: arrays of {like.shape} {like.dtype} and {x.shape} {x.dtype}; one shape and one dtype")
    real = like.dtype.type
    _run(subject, name, like, _blocks(like.size, how), (like.size, *arrays, *(real(x) for x in numbers)), how)


def _run(subject: str, name: str, like: Any, grid: int | tuple, args: tuple, how: dict) -> None:
    for x in args:
        if hasattr(x, "flags") and hasattr(x, "strides") and not isinstance(x, np.generic) and not x.flags.c_contiguous:
            raise ValueError(f"{name}: an array of strides {x.strides}; kernels take contiguous arrays")
    how = {"block": 128, "real": REALS.get(str(like.dtype), "float"), **how}
    run = how.pop("launch", None) or (host.launch if isinstance(like, np.ndarray) else compile.launch)
    run(kernel_source(subject), name, grid, args=[np.int64(x) if isinstance(x, int) else x for x in args], **how)


def _blocks(n: int, how: dict) -> int:
    """Enough blocks for n elements; past 4096 a thread takes several."""
    return max(1, min(4096, -(-n // how.get("block", 128))))

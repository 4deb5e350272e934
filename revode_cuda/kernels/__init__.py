"""The hand-written kernels and how each is launched: on CuPy arrays on the GPU, on NumPy arrays on the CPU (host/), same bits.

    kernels.shear_forward(x, k, scale=0.999, c=h, about=z)         # x changes in place
    kernels.adamw(p, g, m, v, 1, 1e-3)                             # a step: p, m and v change in place

Every function takes `block` (threads in a block; it decides nothing but the time) and hands what else it is given to the
launch: mode="fast"; and on the host order= and shuffle=, or launch=host.ptx.launch. Arrays are float64 or float32, contiguous,
and of one kind in a call. The formulas stand in the .cu files.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import compile, host
from ..compile import kernel_source

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


# What a solve brings from one place of a buffer to another ----------------------------------------------------------------
def collect(table: tuple, x: Any, out: Any, **how: Any) -> None:
    """out[i] = the sum of count[i] entries of x: start[i], start[i] + step[i], ... in the fixed tree; of none: zero.

    table : (start, count, step), int32, as long as out. x, out : of one dtype; in one buffer, or apart.
    """
    _run("collect", "collect", out, _blocks(out.size, how), (out.size, *table, x, out), how)


def scores(tables: tuple, x: Any, out: Any, eps: float, tiny: float, **how: Any) -> None:
    """What the watch wants to know of a solve that lies in x: out (count, tiles), a row for each number. scores.py has the tables."""
    real = x.dtype.type
    _run("scores", "scores", x, out.shape[1], (*tables, x, real(eps), real(tiny), out), how)


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

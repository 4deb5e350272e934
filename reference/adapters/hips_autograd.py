"""HIPS autograd through a plain loop: every operation of every step on its tape.

    run = gradient(problem, "coupled-midpoint", "loop")
"""
from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import autograd
import autograd.numpy as anp

from . import Problem, refuse

LAM = 0.999


def coupled_midpoint(f: Callable, y: Any, ts: Any) -> Any:
    """McCallum & Foster 2024 over the explicit midpoint method, lam = .999."""
    z = y
    for t, t1 in pairwise(ts):
        h = t1 - t
        middle = t + h / 2
        y = LAM * y + (1 - LAM) * z + h * f(middle, z + h / 2 * f(t, z))
        z = z + h * f(middle, y - h / 2 * f(t1, y))
    return y


def reversible_heun(f: Callable, y: Any, ts: Any) -> Any:
    """Kidger, Foster, Li & Lyons 2021, in their own form."""
    z, v = y, f(ts[0], y)
    for t, t1 in pairwise(ts):
        h = t1 - t
        z = 2 * y - z + h * v
        v, before = f(t1, z), v
        y = y + h / 2 * (before + v)
    return y


def midpoint(f: Callable, y: Any, ts: Any) -> Any:
    """The explicit midpoint method."""
    for t, t1 in pairwise(ts):
        h = t1 - t
        y = y + h * f(t + h / 2, y + h / 2 * f(t, y))
    return y


def heun(f: Callable, y: Any, ts: Any) -> Any:
    """Heun's method of order two."""
    for t, t1 in pairwise(ts):
        h = t1 - t
        k = f(t, y)
        y = y + h / 2 * (k + f(t1, y + h * k))
    return y


SCHEMES = {"coupled-midpoint": coupled_midpoint, "reversible-heun": reversible_heun, "midpoint": midpoint, "heun": heun}


def gradient(problem: Problem, scheme: str, mode: str = "loop") -> Callable:
    """Loss and gradient by reverse mode through the loop."""
    if scheme not in SCHEMES:
        raise refuse("scheme", scheme, SCHEMES)
    if mode != "loop":
        raise refuse("mode", mode, ["loop"])
    # Python floats and scalars of y's dtype: float32 stays float32.
    ts = [problem.y0.dtype.type(t) for t in problem.ts]

    def loss(leaves: tuple) -> Any:
        y0, *params = leaves
        return problem.loss(anp, SCHEMES[scheme](lambda t, y: problem.field(anp, t, y, params), y0, ts))

    both = autograd.value_and_grad(loss)
    return lambda: both((problem.y0, *problem.params))

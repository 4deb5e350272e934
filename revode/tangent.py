"""The tangent of a solve: the state and its change, side by side along the steps, in constant memory. Forward mode.

    (parts, d parts) <- step and its derivative at parts, along d parts and d params

The rules are those of engine/tangents.py; neither a pullback nor a program that ran the solve has a part in it, so that what comes out
can be held against a gradient (certify.py).
"""
from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from copy import copy
from typing import Any

import numpy as np

from .engine import tree
from .engine.tangents import jvp_of
from .engine.tensor import is_float
from .methods.increment import Increment
from .stepping import Problem, Stats, one_step


def tangent(problem: Problem, args: tuple, directions: tuple) -> tuple[tuple, dict]:
    """How the saved outputs and the final parts of a solve change, with (initial, params) and, where it is asked for, the grid.

    Cost: one solve on the tape, each step with its tangent; memory of two states and one step.
    """
    (initial, params, *_), (d_initial, d_params, *d_grid) = args, directions
    method, system = problem.method.inner, copy(problem.system)      # of exact mode: what it rounds
    system.stats = Stats()
    own: Any = copy(problem)
    own.system, own.method = system, method

    dts = d_grid[0] if d_grid and d_grid[0] is not None and problem.N else None

    def clocks(n: int) -> tuple[tuple, tuple]:
        """The clock of step n as an argument, and how it changes; nothing where the grid does not move."""
        if dts is None:
            return (), ()
        t0, t1, h, h_before = own.clock(n)
        dh = (dts[n + 1] - dts[n]).astype(h.dtype)
        dh_before = (dts[n] - dts[n - 1]).astype(h.dtype) if n else None if own.n_before else dh
        return ((t0, t1, h, h_before),), ((dts[n], dts[n + 1], dh, dh_before),)

    def start(initial: Any, params: Any, *clock: Any) -> Any:
        return own.start(Increment(system, params), initial, *clock)

    clock, d_clock = clocks(0)
    parts, moved = jvp_of(start, (initial, params, *clock), (d_initial, d_params, *d_clock))
    saved: list[tuple] = []
    at = set(problem.save)
    with np.errstate(over="ignore", invalid="ignore"):
        for n in range(problem.N + 1):
            if n in at:
                saved.append(tuple(moved[name] for name in method.outputs))
            if n == problem.N:
                break
            def advance(parts: Any, params: Any, *clock: Any, n: int = n) -> Any:
                return one_step(method, own.step(n, *clock), parts, Increment(system, params))

            clock, d_clock = clocks(n)
            parts, moved = jvp_of(advance, (parts, params, *clock), (moved, d_params, *d_clock))
    moved |= {name: None for name in problem.method.parts if name not in moved}
    if not saved:
        return tuple(moved[name][None][:0] for name in method.outputs), moved
    return tuple(np.stack(column) for column in zip(*saved, strict=True)), moved


by_programs: ContextVar[bool] = ContextVar("by_programs", default=False)       # whether tangents may run on the solve's own backend


def joined(x: Any, v: Any) -> Any:
    """A value and its change, as more features; None is no change."""
    return np.concatenate([x, np.zeros_like(x) if v is None else v], axis=-1)


def halves(x: Any) -> tuple[Any, Any]:
    d = x.shape[-1] // 2
    return x[..., :d], x[..., d:]


def augmented(system: Any) -> Callable:
    """The field of (y, dy), with parameters {"at": params, "along": d params}: what a method makes of it is its own tangent, if its
    step is linear in the state and in the field's values, as in all methods of the library."""
    system = copy(system)
    system.stats = Stats()

    def field(t: Any, y: Any, both: Any) -> Any:
        y, moved = halves(y)
        value, change = jvp_of(lambda y, p: system.coefficients(t, y, p)[0], (y, both["at"]), (moved, both["along"]))
        return np.concatenate([value, change], axis=-1)

    return field


def moving(params: Any, d_params: Any) -> Any:
    """A direction for every float leaf: zeros where nothing moves."""
    leaves, structure = tree.flatten(params)
    vs = tree.align(structure, d_params)
    return tree.unflatten(structure, [np.zeros_like(x) if v is None and is_float(x) else v for x, v in zip(leaves, vs, strict=True)])

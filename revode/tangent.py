"""The tangent of a solve: the state and its change, side by side along the steps, in constant memory. Forward mode.

    (parts, d parts) <- step and its derivative at parts, along d parts and d params

The rules are those of engine/tangents.py; no pullback has a part in it. On the tape neither has a program that ran the solve, so that
what comes out can be held against a gradient (certify.py).
"""
from __future__ import annotations

from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from .driving import NoisySystem
from .engine import tree
from .engine.tangents import jvp_of
from .engine.tensor import is_float
from .march import Kept, onward
from .methods.custom import UserMethod
from .methods.increment import Evaluator, System
from .stepping import Problem, Stats, one_step

by_programs: ContextVar[bool] = ContextVar("by_programs", default=True)       # whether tangents may run on the solve's own backend


def tangent(problem: Problem, args: tuple, directions: tuple) -> tuple[tuple, dict]:
    """How the saved outputs and the final parts of a solve change, with (initial, params) and, where it is asked for, the grid.

    Cost: one solve with its tangent, on the backend of the solve where that has a program for it; memory of two states and one step.
    """
    runs = by_programs.get() and problem.backend is not None and all(d is None for d in directions[2:])
    found = compiled(problem, *args[:2], *directions[:2]) if runs else None
    return on_tape(problem, args, directions) if found is None else found


def on_tape(problem: Problem, args: tuple, directions: tuple) -> tuple[tuple, dict]:
    """tangent(), each step with its derivative, apart from all programs."""
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
        return own.start(Evaluator(system, params), initial, *clock)

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
                return one_step(method, own.step(n, *clock), parts, Evaluator(system, params))

            clock, d_clock = clocks(n)
            parts, moved = jvp_of(advance, (parts, params, *clock), (moved, d_params, *d_clock))
    moved |= {name: None for name in problem.method.parts if name not in moved}
    if not saved:
        return tuple(moved[name][None][:0] for name in method.outputs), moved
    return tuple(np.stack(column) for column in zip(*saved, strict=True)), moved


def compiled(problem: Problem, initial: Any, params: Any, d_initial: Any, d_params: Any) -> tuple[tuple, dict] | None:
    """tangent(), by a program of the solve's own backend: the same method on the equation of (y, dy). None where there is no program.

    What a method makes of (y, dy) is its own tangent, if its step is linear in the state and in the field's values: as in all methods
    of the library, and not in everybody's.
    """
    method, both = problem.method.inner, {"at": params, "along": moving(params, d_params)}
    made = type(method.composed)
    if made is UserMethod or not made.__module__.startswith("revode.") or method.velocity is not None:
        return None
    own = replace(problem, method=method, system=augmented(problem.system), stats=Stats(), adaptive=None, flushed=None, progress=False,
                  scales={}, widths=(), asked={}, swept=False, parted=True, unstable=True, later=None, marched=None, seen=None,
                  compared=set(), promoted={})
    parts = own.start(Evaluator(own.system, both), beside(initial, d_initial))
    parts = {name: parts[name] for name in method.parts}             # of a state that goes on: without the bits of exact mode
    engine = own.backend.engine("forward", own, parts, both)
    if engine is None:
        return None
    ys, parts = onward(own, both, parts, engine, Kept())
    return tuple(halves(y)[1] for y in ys), {name: halves(parts[name])[1] if name in parts else None for name in problem.method.parts}


def joined(x: Any, v: Any) -> Any:
    """A value and its change, as more features; None is no change."""
    return np.concatenate([x, np.zeros_like(x) if v is None else v], axis=-1)


def beside(initial: Any, d_initial: Any) -> Any:
    """joined(), of all arrays of a tree."""
    leaves, structure = tree.flatten(initial)
    return tree.unflatten(structure, [joined(*pair) for pair in zip(leaves, tree.align(structure, d_initial), strict=True)])


def halves(x: Any) -> tuple[Any, Any]:
    d = x.shape[-1] // 2
    return x[..., :d], x[..., d:]


def augmented(system: System) -> System:
    """The system of (y, dy), with parameters {"at": params, "along": d params}."""
    own: Any = copy(system)
    own.stats, coefficients, times = Stats(), own.coefficients, own.times

    def both_of(t: Any, y: Any, both: Any) -> tuple:
        """Each coefficient and its change, (..., 2 d), or (..., 2 d, m) with channels."""
        y, moved = halves(y)
        pair = jvp_of(lambda y, p: coefficients(t, y, p), (y, both["at"]), (moved, both["along"]))
        return tuple(np.concatenate(x, axis=y.ndim - 1) for x in zip(*pair, strict=True))

    own.coefficients = both_of
    if isinstance(system, NoisySystem) and not system.general:       # g dW, entry by entry: the same dW for both
        own.times = lambda value, dx: times(value, type(dx)(dx.h, joined(dx.dW, dx.dW)))
    return own


def moving(params: Any, d_params: Any) -> Any:
    """A direction for every float leaf: zeros where nothing moves."""
    leaves, structure = tree.flatten(params)
    vs = tree.align(structure, d_params)
    return tree.unflatten(structure, [np.zeros_like(x) if v is None and is_float(x) else v for x, v in zip(leaves, vs, strict=True)])

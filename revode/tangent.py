"""The tangent of a solve: the state and its change, side by side along the steps, in constant memory. Forward mode.

    (parts, d parts) <- step and its derivative at parts, along d parts and d params

The rules are those of engine/tangents.py; neither a pullback nor a program that ran the solve has a part in it, so that what comes out
can be held against a gradient (certify.py).
"""
from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from .engine.tangents import jvp_of
from .methods.increment import Increment
from .stepping import Problem, Stats, one_step


def tangent(problem: Problem, initial: Any, params: Any, d_initial: Any, d_params: Any) -> tuple[tuple, dict]:
    """How the saved outputs and the final parts of a solve change; on the grid that it had, which does not move.

    Cost: one solve on the tape, each step with its tangent; memory of two states and one step.
    """
    method, system = getattr(problem.method, "inner", problem.method), copy(problem.system)      # of exact mode: what it rounds
    system.stats = Stats()
    own: Any = copy(problem)
    own.system, own.method = system, method

    def start(initial: Any, params: Any) -> Any:
        return own.start(Increment(system, params), initial)

    parts, moved = jvp_of(start, (initial, params), (d_initial, d_params))
    saved: list[tuple] = []
    at = set(problem.save)
    with np.errstate(over="ignore", invalid="ignore"):
        for n in range(problem.N + 1):
            if n in at:
                saved.append(tuple(moved[name] for name in method.outputs))
            if n == problem.N:
                break
            step = own.step(n)

            def advance(parts: Any, params: Any, step: Any = step) -> Any:
                return one_step(method, step, parts, Increment(system, params))

            parts, moved = jvp_of(advance, (parts, params), (moved, d_params))
    moved |= {name: None for name in problem.method.parts if name not in moved}
    if not saved:
        return tuple(moved[name][None][:0] for name in method.outputs), moved
    return tuple(np.stack(column) for column in zip(*saved, strict=True)), moved

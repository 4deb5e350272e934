"""HIPS autograd through the plain loops of reference/oracles, on the conformance cases: another differentiation than the oracle's.

The oracle of the cases runs the same loops on 50-digit numbers with a tape of its own; this is float64, with autograd's.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np

from revode.conformance import Problem

from ..oracles import ees, loops
from ..oracles.tableaux import TABLEAUX, numbers


def step_of(method: dict) -> Callable:
    """step(f, params, t, t1, h, state) of a literal loop in floats."""
    name = method["name"]
    if name == "Coupled":
        return lambda f, p, *at: loops.coupled_step(f, p, numbers(TABLEAUX[method["base"]], float), method["lam"], *at)
    if name == "AsynchronousLeapfrog":
        return lambda f, p, *at: loops.alf_step(f, p, method["eta"], *at)
    if name == "ReversibleHeun":
        return loops.reversible_heun_step
    if name == "RungeKutta":
        return lambda f, p, t, t1, h, y: y + loops.Psi(f, t, h, y, p, numbers(TABLEAUX[method["base"]], float))
    if name == "EES25":
        return lambda f, p, t, t1, h, y: y + loops.Psi(f, t, h, y, p, ees.ees25_butcher(method["x"]))
    if name == "SemiImplicitEuler":
        return loops.semi_implicit_euler_step
    if name == "VelocityVerlet":
        return loops.velocity_verlet_step
    raise NotImplementedError(f"no loop for {name} here")


def loop(problem: Problem) -> dict:
    step, f, ts = step_of(problem.method), problem.field(anp), problem.ts.tolist()
    if problem.gradient != "exact" or problem.dWs is not None:
        raise NotImplementedError("ordinary equations, and gradients at the solve's own states")
    two, split = problem.method["name"] in ("Coupled", "ReversibleHeun"), problem.kind == "split"

    def states(y0: Any, params: Any) -> list:
        start = (y0[0], y0[1]) if split else (y0, y0) if two else (y0, f(ts[0], y0, params)) \
            if problem.method["name"] == "AsynchronousLeapfrog" else y0
        return loops.forward(lambda *at: step(f, params, *at), start, ts)

    def solution(state: Any) -> Any:
        return anp.stack(state) if split else state[0] if isinstance(state, tuple) else state

    def loss(y0: Any, params: Any) -> Any:
        return sum(anp.sum(solution(state) * w) for state, w in zip(states(y0, params), problem.weights, strict=True))

    ys = np.stack([solution(state) for state in states(problem.y0, problem.params)])
    ay0, aparams = autograd.grad(lambda both: loss(*both))((problem.y0, problem.params))
    return {"ys": ys, "ay0": ay0, "aparams": aparams}

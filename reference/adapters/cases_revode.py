"""This package on the conformance cases, one function for each way of running a solve.

    revode check --impl reference.adapters.cases_revode:tape          the tape, every step stored
    ...:swept  :replay  :native  :strict  :shim                       the reverse sweep: on the tape, and by each engine
    ...:by_hand                                                       steps and steps_back: every state, every cotangent
"""
from __future__ import annotations

from typing import Any

import numpy as np

import revode as rv
from revode.conformance import Problem


class Recorded:
    """Noise whose increments are given, as a path of one's own."""

    def __init__(self, dWs: np.ndarray) -> None:
        self.dWs = dWs

    def along(self, hs: Any, shape: Any, dtype: Any, first: int) -> Any:
        return lambda n: self.dWs[first + n]


def method_of(problem: Problem) -> Any:
    options = dict(problem.method)
    name = options.pop("name")
    if name == "Composition":
        return rv.Composition(getattr(rv, options["method"])(), options["order"])
    return getattr(rv, name)(**options)


def driven_by(problem: Problem) -> dict:
    """The keywords of solve for noise or a control."""
    if problem.kind == "controlled":
        return {"control": rv.LinearPath(problem.ts, np.concatenate([0 * problem.dWs[:1], np.cumsum(problem.dWs, 0)]))}
    if problem.dWs is None:
        return {}
    return {"diffusion": problem.diffusion(), "noise": Recorded(problem.dWs)}


def iterated(problem: Problem, gradient: Any, backend: str) -> dict:
    """A fixed-point iteration, of which fixed_point() hands over the end: each length by a call of its own."""
    f, N = problem.field(), len(problem.ts) - 1

    def z(n: int, z0: Any, params: Any) -> Any:
        return rv.fixed_point(lambda z, p, x: f(1.0, z, p), z0, params, method=method_of(problem), tol=None, max_steps=n,
                              gradient=gradient, backend=backend).z

    loss = lambda z0, params: np.sum(z(N, z0, params) * problem.weights[-1])
    ay0, aparams = rv.grad(loss, argnums=(0, 1))(problem.y0, problem.params)
    return {"ys": [problem.y0, *(z(n, problem.y0, problem.params) for n in range(1, N + 1))], "ay0": ay0, "aparams": aparams}


def solved(problem: Problem, gradient: Any, **more: Any) -> dict:
    if problem.kind == "fixed-point":
        if not isinstance(more["backend"], str) or "arithmetic" in more:
            raise NotImplementedError("fixed_point() has the backends eager, replay and native")
        return iterated(problem, gradient, more["backend"])
    method, field = method_of(problem), problem.field()
    split = problem.kind == "split"
    y0 = tuple(problem.y0) if split else problem.y0
    last = problem.gradient == "reconstructed"              # or saved states would take the place of reconstructed ones

    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(field, y0, problem.ts, params, method=method, gradient=gradient, save=[-1] if last else None,
                       **driven_by(problem), **more)
        weights = problem.weights[-1:] if last else problem.weights
        value = sum(np.sum(y * weights[:, i]) for i, y in enumerate(sol.ys)) if split else np.sum(sol.ys * weights)
        return value, sol

    _, (ay0, aparams), sol = value_grad_and(loss, y0, problem.params)
    ys = sol.ys if not last else rv.solve(field, y0, problem.ts, problem.params, method=method, **driven_by(problem), **more).ys
    return {"ys": np.stack(ys, 1) if split else ys, "ay0": np.stack(ay0) if split else ay0, "aparams": aparams}


def value_grad_and(loss: Any, y0: Any, params: Any) -> tuple:
    (value, sol), grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    return value, grads, sol


def tape(problem: Problem) -> dict:
    """Every operation of every step on the tape. A reconstructed gradient is the sweep's."""
    return solved(problem, rv.Reversible() if problem.gradient == "reconstructed" else rv.Direct(), backend="eager")


def sweep_of(problem: Problem) -> Any:
    if problem.method["name"] in ("RungeKutta", "Picard"):
        raise NotImplementedError("a plain method has no reverse sweep")
    if problem.method["name"].startswith("EES") and problem.gradient == "exact":
        raise NotImplementedError("the reverse sweep of a nearly reversible method reconstructs")
    return rv.Reversible()


def swept(problem: Problem) -> dict:
    return solved(problem, sweep_of(problem), backend="eager")


def replay(problem: Problem) -> dict:
    return solved(problem, sweep_of(problem), backend="replay")


def native(problem: Problem) -> dict:
    return solved(problem, sweep_of(problem), backend="native")


def strict(problem: Problem) -> dict:
    return solved(problem, sweep_of(problem), backend="native", arithmetic="strict")


def shim(problem: Problem) -> dict:
    """The text of the CUDA kernels, run by threads of the host."""
    from revode_cuda import fused
    return solved(problem, sweep_of(problem), backend=fused.Fusing("fused", False, True, True, None, fused.shim(), ()))


def by_hand(problem: Problem) -> dict:
    """steps() and steps_back(), which take the cotangent of the end alone: the outputs before it enter by a sweep each."""
    if problem.dWs is not None or problem.kind == "fixed-point":
        raise NotImplementedError("steps() is for ordinary equations")
    sweep_of(problem)
    method, field, split = method_of(problem), problem.field(), problem.kind == "split"
    y0 = tuple(problem.y0) if split else problem.y0
    states = [state for _, state in rv.steps(field, y0, problem.ts, problem.params, method=method)]
    parts = [dict(state.parts) for state in states]
    found: dict = {"ys": np.stack([np.stack([p["q"], p["v"]]) if split else p["y"] for p in parts]), "states": parts,
                   "ay0": problem.weights[0], "aparams": {name: 0 * w for name, w in problem.params.items()},
                   "cotangents": [{part: 0 * x for part, x in p.items()} for p in parts]}
    for part, w in zip(("q", "v"), problem.weights[0], strict=True) if split else [("y", problem.weights[0])]:
        found["cotangents"][0][part] = w
    for n in range(len(states) - 1, 0, -1):
        if problem.weights[n].any():
            a = tuple(problem.weights[n]) if split else problem.weights[n]
            add_sweep(found, list(rv.steps_back(field, states[n], problem.ts[:n + 1], problem.params, ay1=a, y0=y0, method=method)))
    return found


def add_sweep(found: dict, items: list) -> None:
    """Add what one sweep gives; its last item is at the beginning of the grid."""
    for m, item in enumerate(reversed(items)):
        for part, x in item.cotangent.items():
            found["cotangents"][m][part] = found["cotangents"][m][part] + x
    found["aparams"] = {name: w + items[-1].aparams[name] for name, w in found["aparams"].items()}
    found["ay0"] = found["ay0"] + np.stack(items[-1].ay0) if isinstance(items[-1].ay0, tuple) else found["ay0"] + items[-1].ay0

"""diffrax on the conformance cases: fixed steps, SaveAt on the ends of the steps.

    revode check --impl reference.adapters.cases_diffrax:checkpointed     the default adjoint
    ...:direct   ...:backsolve                                           DirectAdjoint; BacksolveAdjoint, which is no discrete gradient
"""
from __future__ import annotations

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from revode.conformance import Problem

jax.config.update("jax_enable_x64", True)
BASES = {"euler": diffrax.Euler, "midpoint": diffrax.Midpoint, "heun2": diffrax.Heun, "bosh3": diffrax.Bosh3, "dopri5": diffrax.Dopri5,
         "tsit5": diffrax.Tsit5}
SOLVERS = {"ReversibleHeun": diffrax.ReversibleHeun, "LeapfrogMidpoint": diffrax.LeapfrogMidpoint,
           "SemiImplicitEuler": diffrax.SemiImplicitEuler}


class Given(diffrax.AbstractPath):
    """A path of which the increments over the steps of a grid are known."""
    ts: Any
    values: Any

    @property
    def t0(self) -> Any:
        return self.ts[0]

    @property
    def t1(self) -> Any:
        return self.ts[-1]

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> Any:
        at = lambda t: self.values[jnp.argmin(jnp.abs(self.ts - t))]
        return at(t0) if t1 is None else at(t1) - at(t0)


def solver_of(problem: Problem) -> Any:
    method = problem.method
    if method["name"] == "RungeKutta" and method["base"] in BASES and problem.gradient == "exact":
        return BASES[method["base"]]()
    if method["name"] in SOLVERS:
        return SOLVERS[method["name"]]()
    raise NotImplementedError(f"no {method['name']} in diffrax")


def terms_of(problem: Problem) -> Any:
    f, g = problem.field(jnp), problem.diffusion(jnp)
    if problem.kind == "split":                  # diffrax moves its first component first: v, by the field at q
        return (diffrax.ODETerm(lambda t, q, p: f(t, q, p)), diffrax.ODETerm(lambda t, v, p: v))
    if problem.dWs is None:
        return diffrax.ODETerm(f)
    path = Given(jnp.asarray(problem.ts), jnp.asarray(np.concatenate([0 * problem.dWs[:1], np.cumsum(problem.dWs, 0)])))
    if problem.kind == "controlled":
        return diffrax.ControlTerm(f, path)
    square = (lambda t, y, p: jnp.diag(g(t, y, p))) if problem.kind == "diagonal" else g
    return diffrax.MultiTerm(diffrax.ODETerm(f), diffrax.ControlTerm(square, path))


def solved(problem: Problem, adjoint: Any) -> dict:
    solver, terms, ts = solver_of(problem), terms_of(problem), jnp.asarray(problem.ts)
    split, steps = problem.kind == "split", np.diff(problem.ts)
    back = isinstance(adjoint, diffrax.BacksolveAdjoint)            # which cannot go back along StepTo
    if back and np.any(steps != steps[0]):
        raise NotImplementedError("BacksolveAdjoint needs constant steps here")
    controller, h = (diffrax.ConstantStepSize(), steps[0]) if back else (diffrax.StepTo(ts), None)

    @jax.jit
    def loss(y0: Any, params: Any) -> Any:
        start = (y0[1], y0[0]) if split else y0
        ys = diffrax.diffeqsolve(terms, solver, ts[0], ts[-1], h, start, args=params, adjoint=adjoint, saveat=diffrax.SaveAt(ts=ts),
                                 stepsize_controller=controller, max_steps=len(problem.ts)).ys
        ys = jnp.stack([ys[1], ys[0]], 1) if split else ys
        return jnp.sum(ys * problem.weights), ys

    (_, ys), (ay0, aparams) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(jnp.asarray(problem.y0), problem.params)
    return {"ys": ys, "ay0": ay0, "aparams": {name: aparams[name] for name in problem.params}}


def checkpointed(problem: Problem) -> dict:
    return solved(problem, diffrax.RecursiveCheckpointAdjoint())


def direct(problem: Problem) -> dict:
    return solved(problem, diffrax.DirectAdjoint())


def backsolve(problem: Problem) -> dict:
    return solved(problem, diffrax.BacksolveAdjoint())

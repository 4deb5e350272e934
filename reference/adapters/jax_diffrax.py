"""diffrax on the problem's own grid, compiled: three of its adjoints, three of its solvers.

    run = gradient(problem, "midpoint", "checkpointed")    # or "direct"; "backsolve" is not exact for the discrete solve
    run.temporary_bytes()                                  # what the compiled program allocates besides input and output

float64 needs jax.config.update("jax_enable_x64", True) before; `gradient` refuses otherwise.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np

from . import Problem, refuse

SCHEMES = {"midpoint": diffrax.Midpoint, "heun": diffrax.Heun, "reversible-heun": diffrax.ReversibleHeun}
MODES = {"direct": diffrax.DirectAdjoint, "checkpointed": diffrax.RecursiveCheckpointAdjoint,
         "backsolve": diffrax.BacksolveAdjoint}


class Compiled:
    """A compiled function of (y0, params) with its arguments."""

    def __init__(self, loss: Callable, problem: Problem) -> None:
        if problem.y0.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
            raise ValueError('a float64 problem needs jax.config.update("jax_enable_x64", True) before anything else')
        self.leaves = (jnp.asarray(problem.y0), tuple(jnp.asarray(p) for p in problem.params))
        self.call = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*self.leaves).compile()

    def temporary_bytes(self) -> int:
        return self.call.memory_analysis().temp_size_in_bytes

    def __call__(self) -> tuple:
        loss, (a_y0, a_params) = jax.block_until_ready(self.call(*self.leaves))
        return loss, [a_y0, *a_params]


def gradient(problem: Problem, scheme: str, mode: str = "checkpointed", diffusion: tuple | None = None) -> Compiled:
    """Loss and gradient through diffeqsolve. The step is constant: ValueError for a grid whose steps differ.

    diffusion: g(xp, t, y, params) of diagonal noise, and its path.
    """
    if scheme not in SCHEMES:
        raise refuse("scheme", scheme, SCHEMES)
    if mode not in MODES:
        raise refuse("mode", mode, MODES)
    ts, N = problem.ts, len(problem.ts) - 1
    h = (ts[-1] - ts[0]) / N
    if not np.allclose(np.diff(ts), h, rtol=1e-9, atol=0):
        raise ValueError("the steps of this grid differ; diffrax is run with ConstantStepSize here")

    t0, t1, h = (jnp.asarray(x, problem.y0.dtype) for x in (ts[0], ts[-1], h))

    def loss(y0: Any, params: Any) -> Any:
        term: Any = diffrax.ODETerm(lambda t, y, p: problem.field(jnp, t, y, p))
        if diffusion is not None:
            g, path = diffusion
            noise = diffrax.ControlTerm(lambda t, y, p: lineax.DiagonalLinearOperator(g(jnp, t, y, p)), path)
            term = diffrax.MultiTerm(term, noise)
        sol = diffrax.diffeqsolve(term, SCHEMES[scheme](), t0, t1, h, y0, args=params, adjoint=MODES[mode](),
                                  stepsize_controller=diffrax.ConstantStepSize(), max_steps=N)
        return problem.loss(jnp, sol.ys[-1])

    return Compiled(loss, problem)

"""diffrax, compiled: RecursiveCheckpointAdjoint (its default), DirectAdjoint, BacksolveAdjoint; and its own ReversibleHeun, also for
the SDE, with its VirtualBrownianTree."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from ...adapters import jax_diffrax
from ..works import SEED, Work, diffusion, increments, problem


class Given(diffrax.AbstractPath):
    """A path by its increments over the steps of a grid."""
    dW: Any
    h: float
    t0: float
    t1: float

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        return self.dW[jnp.round(t0 / self.h).astype(int)]


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    """run; for an SDE also run.agree: the same on the noise that all contenders share."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    case = problem(work, dtype)
    if not work.sde:
        return jax_diffrax.gradient(case, method, mode)
    end = float(case.ts[-1])

    def on(path: Any) -> Callable:
        return jax_diffrax.gradient(case, method, mode, diffusion=(diffusion, path))

    run = on(diffrax.VirtualBrownianTree(0.0, end, work.h / 2, jax.ShapeDtypeStruct(case.y0.shape, case.y0.dtype),
                                         jax.random.key(SEED)))
    run.agree = lambda: on(Given(jnp.asarray(increments(work, dtype)), work.h, 0.0, end))()
    return run

"""diffrax, compiled: RecursiveCheckpointAdjoint (its default), DirectAdjoint, BacksolveAdjoint."""
from __future__ import annotations

from collections.abc import Callable

import jax

from ...adapters import jax_diffrax
from ..works import Work, problem


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    jax.config.update("jax_enable_x64", dtype == "float64")
    return jax_diffrax.gradient(problem(work, dtype), method, mode)

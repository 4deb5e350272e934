"""diffrax, compiled: RecursiveCheckpointAdjoint (its default), DirectAdjoint, BacksolveAdjoint."""
from __future__ import annotations

from collections.abc import Callable

import jax

jax.config.update("jax_enable_x64", True)       # float32 arrays stay float32

from ...adapters import jax_diffrax  # noqa: E402
from ..works import Work, problem  # noqa: E402


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    return jax_diffrax.gradient(problem(work, dtype), method, mode)

"""Other libraries on a problem stated once, in NumPy terms, for cross-checks and benchmarks. `revode` is imported by
cases_*.py alone.

    hips_autograd.py    HIPS autograd through a plain loop
    torch_diffeq.py     torchdiffeq, whole solve on the tape or its adjoint
    torch_sde.py        torchsde's reversible Heun method, with noise of zero or of torchsde's own
    torchsde_adapter.py reversible Heun on given increments, state by state, and the stored vectors in reference/vectors
    cases_*.py          the same libraries, and this package, on the conformance cases (`revode check`); c/ in C
    jax_diffrax.py      diffrax: DirectAdjoint, RecursiveCheckpointAdjoint, BacksolveAdjoint
    torch_deq.py        torchdeq: the implicit gradient of a fixed point (a signature of its own)

Each file of a differential equation has

    gradient(problem, scheme, mode) -> run;      run() -> (loss, [dL/dy0, dL/dparams[0], ...])

`gradient` converts the problem once; `run` computes and waits for the result. `to_numpy` makes plain arrays of it.
Importing a file here imports its library.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Problem(NamedTuple):
    """y' = field(xp, t, y, params) on the grid ts, and a loss of the last state.

    xp is the array namespace at hand (numpy, autograd.numpy, torch, jax.numpy): write xp.tanh, y @ W, and arithmetic.
    """
    field: Callable                  # field(xp, t, y, params) -> (..., d)
    loss: Callable                   # loss(xp, y1) -> a number
    y0: np.ndarray                   # (..., d)
    ts: np.ndarray                   # (N + 1,)
    params: tuple[np.ndarray, ...]


def to_numpy(result: tuple) -> tuple[float, list[np.ndarray]]:
    """The loss as a float and the gradients as NumPy arrays, from whatever an adapter returned."""
    loss, grads = result
    return float(loss), [np.asarray(g) for g in grads]


def refuse(what: str, name: Any, known: Any) -> ValueError:
    """The error for a scheme or a mode that an adapter does not have."""
    return ValueError(f"there is no {what} {name!r} here; there is {', '.join(sorted(known))}")

"""Who takes part. Each file of this folder has

    make(work, method, dtype, mode) -> run;      run() -> (loss, [dL/dy0, dL/dW1, dL/db1, ...])

`run` computes once and has waited for the result when it returns. A contender that lacks the reversible method
(plain=True) takes as many steps of the scheme that it is built on; PLAIN in works.py names it.
"""
from __future__ import annotations

from typing import NamedTuple


class Contender(NamedTuple):
    """One line of the tables."""
    key: str
    title: str
    module: str            # file in this folder
    mode: str
    needs: tuple[str, ...]           # packages, by import name
    memory: str            # how its memory is taken: tracemalloc (Python and NumPy), rss (high-water mark) or xla (its own analysis)
    plain: bool = False
    exact: bool = True     # False: the gradient of the continuous problem, discretised; it differs from that of the solve
    ours: bool = False


NUMPY, TORCH, JAX, DIFFRAX = ("numpy",), ("torch", "torchdiffeq"), ("jax",), ("jax", "diffrax")

CONTENDERS = {c.key: c for c in (
    Contender("revode-reversible", "revode Reversible", "revode_modes", "reversible", ("revode",), "tracemalloc", ours=True),
    Contender("revode-direct", "revode Direct", "revode_modes", "direct", ("revode",), "tracemalloc", ours=True),
    Contender("revode-checkpointed", "revode Checkpointed(44)", "revode_modes", "checkpointed", ("revode",), "tracemalloc", ours=True),
    Contender("revode-direct-plain", "revode Direct, RungeKutta", "revode_modes", "direct", ("revode",), "tracemalloc", plain=True, ours=True),
    Contender("revode-checkpointed-plain", "revode Checkpointed(44), RungeKutta", "revode_modes", "checkpointed", ("revode",), "tracemalloc",
              plain=True, ours=True),
    Contender("numpy", "NumPy by hand", "numpy_by_hand", "reversible", NUMPY, "tracemalloc"),
    Contender("jax", "JAX by hand: scan, custom_vjp, jitted", "jax_by_hand", "reversible", JAX, "xla"),
    Contender("autograd", "HIPS autograd through a loop", "autograd_loop", "loop", ("autograd",), "tracemalloc"),
    Contender("torchdiffeq", "torchdiffeq, whole solve on the tape", "torchdiffeq_modes", "full", TORCH, "rss", plain=True),
    Contender("torchdiffeq-adjoint", "torchdiffeq, odeint_adjoint", "torchdiffeq_modes", "adjoint", TORCH, "rss", plain=True, exact=False),
    Contender("diffrax", "diffrax RecursiveCheckpointAdjoint", "diffrax_modes", "checkpointed", DIFFRAX, "xla", plain=True),
    Contender("diffrax-direct", "diffrax DirectAdjoint", "diffrax_modes", "direct", DIFFRAX, "xla", plain=True),
    Contender("diffrax-backsolve", "diffrax BacksolveAdjoint", "diffrax_modes", "backsolve", DIFFRAX, "xla", plain=True, exact=False),
)}

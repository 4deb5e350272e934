"""Who takes part. Each file of this folder has

    make(work, method, dtype, mode) -> run;      run() -> (loss, [dL/dy0, dL/dW1, dL/db1, ...])

`run` computes once and has waited for the result when it returns. For an SDE a library that makes its own noise has
run.agree besides, which computes the same on noise that all share, so that values can be compared.
A contender that lacks the reversible method (plain=True) takes as many steps of the scheme that it is built on; PLAIN in
works.py names it.
"""
from __future__ import annotations

from typing import NamedTuple

from ..works import Work


class Contender(NamedTuple):
    """One line of the tables."""
    key: str
    title: str
    module: str                      # file in this folder
    mode: str
    needs: tuple[str, ...]           # packages, by import name
    memory: str                      # how it is taken: tracemalloc, rss (of the process) or xla (its own analysis)
    plain: bool = False
    exact: bool = True               # False: the gradient of the continuous problem, discretised; not that of the solve
    ours: bool = False
    kind: str = "ode"                # or "sde", or "both": which works it takes part in
    alone: bool = False              # written for one trajectory
    compiled: bool = False           # needs a C++ compiler

    def takes(self, work: Work) -> bool:
        return self.kind in ("both", "sde" if work.sde else "ode") and (work.batch == 1 or not self.alone)


def revode(key: str, title: str, mode: str, plain: bool = False, compiled: bool = False) -> Contender:
    return Contender(f"revode-{key}", f"revode {title}", "revode_modes", mode, ("revode",), "tracemalloc", plain, ours=True,
                     kind="ode" if plain else "both", compiled=compiled)


def torchdiffeq(key: str, title: str, mode: str, exact: bool) -> Contender:
    return Contender(key, f"torchdiffeq, {title}", "torchdiffeq_modes", mode, ("torch", "torchdiffeq"), "rss", True, exact)


def diffrax(key: str, title: str, mode: str, exact: bool = True) -> Contender:
    return Contender(key, f"diffrax {title}", "diffrax_modes", mode, ("jax", "diffrax"), "xla", True, exact)


CONTENDERS = {c.key: c for c in (
    revode("reversible", "Reversible", "reversible"),
    revode("replay", "Reversible, NumPy replay", "replay"),
    revode("native", "Reversible, native", "native", compiled=True),
    revode("direct", "Direct", "direct"),
    revode("checkpointed", "Checkpointed(44)", "checkpointed"),
    revode("direct-plain", "Direct, RungeKutta", "direct", plain=True),
    revode("checkpointed-plain", "Checkpointed(44), RungeKutta", "checkpointed", plain=True),
    Contender("numpy", "NumPy by hand", "numpy_by_hand", "reversible", ("numpy",), "tracemalloc"),
    Contender("numpy-folded", "NumPy by hand, folded", "numpy_folded", "reversible", ("numpy",), "tracemalloc", alone=True),
    Contender("c", "C by hand", "c_by_hand", "reversible", ("numpy", "revode"), "rss", compiled=True),
    Contender("jax", "JAX by hand: scan, custom_vjp, jitted", "jax_by_hand", "reversible", ("jax",), "xla", kind="both"),
    Contender("autograd", "HIPS autograd through a loop", "autograd_loop", "loop", ("autograd",), "tracemalloc"),
    torchdiffeq("torchdiffeq", "whole solve on the tape", "full", exact=True),
    torchdiffeq("torchdiffeq-adjoint", "odeint_adjoint", "adjoint", exact=False),
    Contender("torchsde", "torchsde, whole solve on the tape", "torchsde_modes", "full", ("torch", "torchsde"), "rss", kind="sde"),
    Contender("torchsde-reversible", "torchsde, adjoint_reversible_heun", "torchsde_modes", "reversible", ("torch", "torchsde"),
              "rss", kind="sde"),
    diffrax("diffrax", "RecursiveCheckpointAdjoint", "checkpointed"),
    diffrax("diffrax-direct", "DirectAdjoint", "direct"),
    diffrax("diffrax-backsolve", "BacksolveAdjoint", "backsolve", exact=False),
)}

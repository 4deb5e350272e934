"""Who takes part. Each file of this folder has

    make(work, method, dtype, mode) -> run;      run() -> (loss, [dL/dy0, dL/dW1, dL/db1, ...])

`run` computes once and has waited for the result when it returns. For an SDE a library that makes its own noise has
run.agree besides, which computes the same on noise that all share, so that values can be compared. run.warm() gives the run that
is timed, where that is another one: tuned, or after what a user's first gradients would have been.
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
    slow: bool = False               # takes part in W1 in float64, and in the SDE, and not where a turn would take seconds
    only: str = ""                   # the method for which it takes part; default: every one

    def takes(self, work: Work, method: str = "", dtype: str = "float64") -> bool:
        if self.slow and not work.sde and (work.name, dtype) != ("w1", "float64"):
            return False
        return (self.kind in ("both", "sde" if work.sde else "ode") and (work.batch == 1 or not self.alone)
                and (not self.only or not method or self.only == method))


def revode(key: str, title: str, mode: str, plain: bool = False, compiled: bool = False, slow: bool = False) -> Contender:
    return Contender(f"revode-{key}", f"revode {title}", "revode_modes", mode, ("revode",), "tracemalloc", plain, ours=True,
                     kind="ode" if plain else "both", compiled=compiled, slow=slow)


def torchdiffeq(key: str, title: str, mode: str, exact: bool, slow: bool) -> Contender:
    return Contender(key, f"torchdiffeq, {title}", "torchdiffeq_modes", mode, ("torch", "torchdiffeq"), "rss", True, exact, slow=slow)


def diffrax(key: str, title: str, mode: str, exact: bool = True, slow: bool = False) -> Contender:
    return Contender(key, f"diffrax {title}", "diffrax_modes", mode, ("jax", "diffrax"), "xla", True, exact, slow=slow)


CONTENDERS = {c.key: c for c in (
    revode("reversible", "Reversible, tape", "reversible", slow=True),
    revode("replay", "Reversible, replay", "replay"),
    revode("native", "Reversible, native", "native", compiled=True),
    revode("auto", "Reversible, auto", "auto"),
    revode("direct", "Direct, tape", "direct", slow=True),
    revode("checkpointed", "Checkpointed(44), tape", "checkpointed", slow=True),
    revode("checkpointed-native", "Checkpointed(44), native", "checkpointed-native", compiled=True),
    revode("direct-plain", "Direct, RungeKutta, tape", "direct", plain=True, slow=True),
    revode("direct-plain-native", "Direct, RungeKutta, native", "direct-native", plain=True, compiled=True),
    revode("checkpointed-plain", "Checkpointed(44), RungeKutta, tape", "checkpointed", plain=True, slow=True),
    Contender("numpy", "NumPy by hand", "numpy_by_hand", "reversible", ("numpy",), "tracemalloc"),
    Contender("numpy-folded", "NumPy by hand, folded", "numpy_folded", "reversible", ("numpy",), "tracemalloc", alone=True),
    Contender("c", "C by hand", "c_by_hand", "reversible", ("numpy", "revode"), "rss", compiled=True),
    Contender("jax", "JAX by hand: reversible scan", "jax_by_hand", "reversible", ("jax",), "xla", kind="both"),
    Contender("jax-scan", "JAX by hand: plain scan, jax.grad", "jax_by_hand", "scan", ("jax",), "xla", True),
    Contender("autograd", "HIPS autograd through a loop", "autograd_loop", "loop", ("autograd",), "tracemalloc", slow=True),
    torchdiffeq("torchdiffeq", "whole solve on the tape", "full", exact=True, slow=False),
    torchdiffeq("torchdiffeq-adjoint", "odeint_adjoint", "adjoint", exact=False, slow=True),
    Contender("torchsde", "torchsde, whole solve on the tape", "torchsde_modes", "full", ("torch", "torchsde"), "rss", kind="sde"),
    Contender("torchsde-reversible", "torchsde, adjoint_reversible_heun", "torchsde_modes", "reversible", ("torch", "torchsde"),
              "rss", kind="sde"),
    diffrax("diffrax", "RecursiveCheckpointAdjoint", "checkpointed"),
    Contender("diffrax-heun", "diffrax ReversibleHeun", "diffrax_modes", "checkpointed", ("jax", "diffrax"), "xla", kind="both",
              only="reversible-heun"),
    diffrax("diffrax-direct", "DirectAdjoint", "direct", slow=True),
    diffrax("diffrax-backsolve", "BacksolveAdjoint", "backsolve", exact=False, slow=True),
)}

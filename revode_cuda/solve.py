"""solve() for arrays on the GPU: one launch for a whole solve where that can be done, operation by operation elsewhere.

    backend    "auto"    fused where the plan says that it pays and the field can be fused, else op by op
               "fused"   the generated kernel, or an error that says what stands in its way
               "eager"   op by op: every NumPy call of the field is one kernel of CuPy's

NumPy arrays stay on the host, where revode.solve has the backends "auto", "eager", "replay" and "native".

The method, the gradient mode and every number are those of revode.solve, which does the op-by-op work.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import revode
from revode import PID, Solution, State

from .arrays import check_one_home

BACKENDS = ("auto", "eager", "fused", "replay", "native")


class CannotBeFused(NotImplementedError):
    """This solve has to go op by op; the message says why."""


def solve(field: Callable, y0: Any, ts: Any, params: Any = None, *, method: Any = None, gradient: Any = None,
          save: Any = None, state0: State | None = None, progress: bool = False, controller: PID | None = None,
          dt0: float | None = None, save_at: Any = None, diffusion: Callable | None = None, noise: Any = None,
          interpretation: str = "stratonovich", control: Any = None, backend: str = "auto", threads: int | None = None,
          arithmetic: str = "fast") -> Solution:
    """revode.solve for CuPy arrays (and for NumPy arrays, which stay on the host).

    Parameters
    ----------
    field, y0, ts, params, method, gradient, save, state0, progress, controller, dt0, save_at, diffusion, noise,
    interpretation, control : as for revode.solve. y0 and the arrays in params live on one device; ts, the noise and the
        control are given on the host, and what a step needs of them is copied in the order of the current stream.
    backend : "auto", "fused" or "eager" for device arrays, as above; for host arrays those of revode.solve.
    threads : for host arrays, as for revode.solve.
    arithmetic : of the fused kernel: "strict" (the bits of NumPy's mirror) or "fast" (products and sums may be fused).
        Op by op, CuPy's own kernels decide.

    Returns a Solution whose arrays are on the device, but for its ts.

    Raises
    ------
    TypeError where arrays live on two devices, with the name of the leaf, and for backend="fused" with host arrays;
    CannotBeFused (a NotImplementedError) for backend="fused" where this solve cannot be fused; otherwise what revode.solve raises.

    Cost: op by op, one kernel launch for each array operation, and one wait for the device every 16 steps (is the state
    finite?), besides a few before the first step and at the end.

    Example
    -------
    >>> import numpy as np
    >>> sol = solve(lambda t, y, params: -y, np.ones(1), np.linspace(0.0, 1.0, 101))      # on the host: no GPU is needed
    >>> print(f"{sol.y1[0]:.3f}")
    0.368
    """
    if backend not in BACKENDS:
        raise ValueError(f"solve: backend={backend!r}; one of {', '.join(map(repr, BACKENDS))}")
    if arithmetic not in ("fast", "strict"):
        raise ValueError(f"solve: arithmetic={arithmetic!r}; 'fast' or 'strict'")
    home = check_one_home("solve", y0=y0, params=params, state0=state0.parts if isinstance(state0, State) else None)
    options = {"method": method, "gradient": gradient, "save": save, "state0": state0, "progress": progress,
               "controller": controller, "dt0": dt0, "save_at": save_at, "diffusion": diffusion, "noise": noise,
               "interpretation": interpretation, "control": control}
    if home in (None, "host"):
        if backend == "fused":
            raise TypeError("solve: backend='fused' runs on the GPU, but y0 is on the host; move y0 and params there with to_device, "
                            "or use backend='native', which runs the same program on the host")
        return revode.solve(field, y0, ts, params, **options, backend=backend, threads=threads, arithmetic=arithmetic)
    if backend in ("replay", "native"):
        raise TypeError(f"solve: backend={backend!r} runs on the host, but y0 is on {home}; use 'fused' or 'eager', or move y0 and "
                        "params back with to_host")
    if backend != "eager":
        try:
            return fused(field, y0, ts, params, arithmetic=arithmetic, **options)
        except CannotBeFused:
            if backend == "fused":
                raise
    return revode.solve(field, y0, ts, params, **options, backend="eager")


def fused(field: Callable, y0: Any, ts: Any, params: Any, *, arithmetic: str, **options: Any) -> Solution:
    """The whole solve in one launch. CannotBeFused says why this solve has to go op by op."""
    raise CannotBeFused("solve: fused solves are not part of this version yet; use backend='eager', or 'auto', which takes "
                        "the way that there is")

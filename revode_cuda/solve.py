"""solve() for arrays on the GPU: one launch for a whole solve where that can be done, operation by operation elsewhere.

    backend    "auto"    fused where the plan says that it pays and the field can be fused, else op by op
               "fused"   the generated kernel, or an error that says what stands in its way ("cuda" is another name for it)
               "eager"   op by op: every NumPy call of the field is one kernel of CuPy's

NumPy arrays stay on the host, where revode.solve has the backends "auto", "eager", "replay" and "native"; with "fused" they are
moved to the GPU, and what comes out is moved back.

The method, the gradient mode and every number are those of revode.solve, which does the op-by-op work.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import revode
from revode import PID, Solution, State, tree
from revode.checks import hinted
from revode.engine.tensor import value_of

from .arrays import check_one_home, on_device
from .plan import CannotBeFused, chosen

BACKENDS = ("auto", "eager", "fused", "cuda", "replay", "native")
CROSSING = 1 << 16           # bytes of y0 up to which what is done beside a launch is quicker on the host than as device operations
__all__ = ["BACKENDS", "CannotBeFused", "solve"]


@hinted
def solve(field: Callable, y0: Any, ts: Any, params: Any = None, *, method: Any = None, gradient: Any = None,
          save: Any = None, state0: State | None = None, progress: bool = False, controller: PID | None = None,
          dt0: float | None = None, save_at: Any = None, diffusion: Callable | None = None, noise: Any = None,
          interpretation: Literal["stratonovich", "ito"] = "stratonovich", control: Any = None, backend: Any = "auto",
          threads: int | None = None, arithmetic: Literal["fast", "strict"] = "fast", exact: Any = None, plan: Any = None,
          stops: Any = None, interpolate: bool = False) -> Solution:
    """revode.solve for CuPy arrays (and for NumPy arrays, which stay on the host unless backend="fused").

    Parameters
    ----------
    field, y0, ts, params, method, gradient, save, state0, progress, controller, dt0, save_at, diffusion, noise,
    interpretation, control, stops, interpolate : as for revode.solve. y0 and the arrays in params live on one device; ts, the
        noise and the control are given on the host, and what a step needs of them is copied in the order of the current stream.
    backend : "auto", "fused" or "eager" for device arrays, as above; for host arrays those of revode.solve.
    threads : for host arrays, as for revode.solve.
    arithmetic : of the fused kernel: "strict" (the bits of NumPy's mirror) or "fast" (products and sums may be fused).
        Op by op, CuPy's own kernels decide.
    exact : True or a Lattice, as for revode.solve.
    plan : of the fused kernel, a plan.Plan or a dict with some of regime, T, threads, state, params, padded, graph,
        prefetch; see plan.plan_of, which prints the default.

    Returns a Solution whose arrays are where y0 is, but for its ts.

    Raises
    ------
    TypeError where arrays live on two devices, with the name of the leaf; ImportError or RuntimeError for backend="fused" without
    a GPU; CannotBeFused (a NotImplementedError) for backend="fused" where this solve cannot be fused; otherwise what revode.solve
    raises.

    Cost: fused, a launch for the solve and one for its reverse sweep (more for more than 65536 steps), besides some seconds of
    compilation the first time on this machine. A solve like an earlier one (same shapes and method; from y0, by Automatic() or
    Reversible(), on a grid that is given or found on the device) is queued with its gradient as a dozen operations of the device,
    and one wait at the end: then the watch says what it has to say, so that an error or a warning of the solve comes where its
    gradient is taken (a vjp that is never pulled is not judged). Above 64 kB of y0 a kernel measures on the device what the watch
    judges by, and where its numbers leave a doubt the solve is done once more. The first of a kind, and what is not queued (a line
    of the log says why), takes some twenty operations and four waits: y0, params, saved states and gradients go to the host and
    back once; above 64 kB, where the watch itself looks on the device, some 320 operations and 55 waits, whatever the number of
    steps. Adaptive steps of up to 64 kB of y0 are found on the host, of more by two launches for each attempt, and one wait for 32
    attempts (search.py); with noise, a control or exact=True op by op. From the second of a kind on the solve is then queued along
    the grid that was found: each accepted step is taken once more, and a gradient takes two waits and some fifty operations
    besides the search. Op by op, one kernel launch for each array operation, and one wait for the device every 16 steps (is the
    state finite?).

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
               "interpretation": interpretation, "control": control, "exact": exact, "stops": stops, "interpolate": interpolate}
    decided = tuple(chosen(plan).items())
    if backend in ("fused", "cuda"):
        return fused(field, y0, ts, params, arithmetic=arithmetic, auto=False, decided=decided, **options)
    if home in (None, "host"):
        return revode.solve(field, y0, ts, params, **options, backend=backend, threads=threads, arithmetic=arithmetic)
    if backend in ("replay", "native"):
        raise TypeError(f"solve: backend={backend!r} runs on the host, but y0 is on {home}; use 'fused' or 'eager', or move y0 and "
                        "params back with to_host")
    if backend == "auto":
        try:
            return fused(field, y0, ts, params, arithmetic=arithmetic, auto=True, decided=decided, **options)
        except NoDevice:
            pass
    return revode.solve(field, y0, ts, params, **options, backend="eager")


class NoDevice(Exception):
    """There is no GPU to fuse for; only backend="auto" sees this."""


def fused(field: Callable, y0: Any, ts: Any, params: Any, *, arithmetic: str, auto: bool, decided: tuple, **options: Any) -> Solution:
    """revode.solve with the backend of fused.py. auto: what cannot be fused goes op by op; else CannotBeFused says why."""
    from . import ahead
    from .crossing import across
    from .fused import Fusing, OpByOp, arrays_held, gpu
    try:
        device = gpu()
    except (ImportError, RuntimeError) as error:
        if auto:
            raise NoDevice from error
        raise
    state0 = options["state0"]
    rest = {name: x for name, x in options.items() if name != "state0"}
    arrays, structure = tree.flatten((y0, params, None if state0 is None else state0.parts))
    size = sum(value_of(x).nbytes for x in tree.flatten((y0, None if state0 is None else state0.parts))[0] if x is not None)
    there = any(on_device(value_of(x)) for x in arrays)
    held, of_host = arrays_held(field, options["diffusion"])
    # (host arrays that a field holds go into its program by a trace on the host; op by op they do not mix with those of the device)
    # A controller's steps are found on the host, too; those of an exact solve where it goes back with the same bits: where they are.
    may_cross = not options["interpolate"] and (options["controller"] is None or not options["exact"])
    crosses = may_cross and (size <= CROSSING or bool(of_host)) and there
    plain = ahead.plain(options, searched=not crosses)
    backend: Any = Fusing("fused", auto, True, arithmetic == "strict", None, device, decided, crosses, crosses and bool(of_host))

    def solved(y0: Any, params: Any, state0: Any, backend: Any = backend) -> Solution:
        try:
            return revode.solve(field, y0, ts, params, state0=state0, **rest, backend=backend)
        except TypeError as error:
            if not (of_host and there and "Unsupported type" in str(error)):
                raise
            raise TypeError(f"solve: the field holds the host array {', '.join(of_host)}, and goes op by op, where arrays of the host "
                            "do not mix with those of the device; pass it in params, or hold it as to_device gives it") from error

    def at_once(y0: Any, params: Any) -> Solution:
        if not crosses:
            return solved(y0, params, state0)
        try:
            return across(solved, device.xp, y0, params, state0)
        except OpByOp:
            return solved(y0, params, state0, "eager")

    if backend.tape_alone(field, held, arrays):
        return solved(y0, params, state0, "eager")
    if not (plain and there):
        return at_once(y0, params)
    key = ahead.key_of(device, field, arrays, structure, {**options, "decided": decided, "strict": arithmetic == "strict"})
    sol = ahead.solve(key, backend, field, y0, ts, params, rest, at_once, size > CROSSING)
    if sol is None:
        sol = at_once(y0, params)
        ahead.remember(key, y0, params)
    return sol

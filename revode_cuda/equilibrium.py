"""fixed_point() for arrays on the GPU: its iterations, and the way back through them, as one launch each where that can be done.

    z0, params, x  --down-->  host  --fixed_point, fused-->  z  --up-->  device         as crossing.py does it for a solve
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import revode
from revode import Anderson, Automatic, Checkpointed, Direct, FixedPoint, Picard, Reversible, tree
from revode.checks import hinted
from revode.engine.tensor import value_of

from .arrays import check_one_home, on_device
from .plan import CannotBeFused, chosen
from .solve import BACKENDS, CROSSING

logger = logging.getLogger("revode")
OF_ITERATIONS = (Automatic, Reversible, Direct, Checkpointed)           # modes that go back through the iterations
_told: set[str] = set()


@hinted
def fixed_point(f: Callable, z0: Any, params: Any = None, x: Any = None, *, method: Any = None, tol: float | None = 1e-3,
                atol: float = 1e-8, max_steps: int = 100, gradient: Any = None, compute: Any = None, backend: Any = "auto",
                exact: Any = None, arithmetic: Literal["fast", "strict"] = "fast", plan: Any = None) -> FixedPoint:
    """revode.fixed_point for CuPy arrays (and for NumPy arrays, which stay on the host unless backend="fused").

    Parameters
    ----------
    f, z0, params, x, method, tol, atol, max_steps, gradient, compute, exact : as for revode.fixed_point; z0 and the arrays in params
        and x live on one device.
    backend : for device arrays "auto", "fused" or "eager", as for solve.
    arithmetic, plan : of the fused kernel, as for solve.

    Returns a FixedPoint whose z is where z0 is.

    Raises CannotBeFused for backend="fused" where nothing of it can be fused; otherwise what revode.fixed_point and solve raise.

    Cost: with tol=None all iterations are one launch, and their gradient is another; four waits. With a stop rule each iteration asks
    for its residual, so that only the gradient is a launch: z0 of up to 64 kB is iterated on the host, a larger one op by op on the
    device. Anderson, Implicit and Phantom have no launches: they go op by op, which a line of the log says once.

    Example
    -------
    >>> import numpy as np
    >>> found = fixed_point(lambda z, params, x: np.cos(z), np.ones(1), tol=1e-10)      # on the host: no GPU is needed
    >>> f"{found.z[0]:.6f}"
    '0.739085'
    """
    if backend not in BACKENDS:
        raise ValueError(f"fixed_point: backend={backend!r}; one of {', '.join(map(repr, BACKENDS))}")
    if arithmetic not in ("fast", "strict"):
        raise ValueError(f"fixed_point: arithmetic={arithmetic!r}; 'fast' or 'strict'")
    home = check_one_home("fixed_point", z0=z0, params=params, x=x)
    run = partial(revode.fixed_point, f, method=method, tol=tol, atol=atol, max_steps=max_steps, gradient=gradient, compute=compute,
                  exact=exact)
    named, decided = backend in ("fused", "cuda"), tuple(chosen(plan).items())
    if not named and home in (None, "host"):
        return run(z0, params, x, backend=backend)
    if backend in ("replay", "native"):
        raise TypeError(f"fixed_point: backend={backend!r} runs on the host, but z0 is on {home}; use 'fused' or 'eager', or move z0, "
                        "params and x back with to_host")
    if backend == "eager":
        return run(z0, params, x, backend="eager")
    why = without_launches(method, gradient)
    if why is not None and named:
        raise CannotBeFused(f"fixed_point: {why}; use backend='eager', or 'auto'")
    if why is not None:
        if why not in _told:
            _told.add(why)
            logger.info("fixed_point: it runs op by op on the device, because %s", why)
        return run(z0, params, x, backend="eager")
    return fused(run, f, (z0, params, x), not named, arithmetic == "strict", decided)


def without_launches(method: Any, gradient: Any) -> str | None:
    """Why nothing of it is a launch; None where something is."""
    if isinstance(method, Anderson):
        return "Anderson mixes earlier iterates on the host"
    if isinstance(method, Picard) and gradient is None:
        return "the gradient of Picard() is that of Implicit(), which goes back without the iterations; Direct() has launches"
    if gradient is not None and not isinstance(gradient, OF_ITERATIONS):
        return f"{type(gradient).__name__}() goes back without the iterations"
    return None


def fused(run: Callable, f: Callable, given: tuple, auto: bool, strict: bool, decided: tuple) -> FixedPoint:
    from .crossing import ways
    from .fused import Fusing, OpByOp, arrays_held, gpu
    try:
        device = gpu()
    except (ImportError, RuntimeError):
        if auto:
            return run(*given, backend="eager")
        raise
    arrays = tree.flatten(given)[0]
    there = any(on_device(value_of(x)) for x in arrays)
    held, of_host = arrays_held(f)
    crosses = there and (bool(of_host) or sum(value_of(z).nbytes for z in tree.flatten(given[0])[0]) <= CROSSING)
    backend: Any = Fusing("fused", auto, True, strict, None, device, decided, crosses, crosses and bool(of_host))
    if backend.tape_alone(f, held, arrays):
        return run(*given, backend="eager")
    if not crosses:
        return run(*given, backend=backend)
    below, up = ways(device.xp, given)
    try:
        found = run(*below, backend=backend)
    except OpByOp:
        return run(*given, backend="eager")
    return found._replace(z=up(found.z))

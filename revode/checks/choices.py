"""What is chosen by name or by an object: the method, its exact form, the backend, the gradient mode."""
from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from ..compiled import Backend
from ..exact import Exact, Lattice, bits_for
from ..gradients import Automatic, Direct, Reversible
from ..methods import EES, TABLEAUX, Coupled, NearReversible
from ..methods.protocol import as_method
from ..problem import Asked
from ..stepping import State

logger = logging.getLogger("revode")


def check_method(asked: Asked) -> Any:
    method = method_of(asked.state0, asked.method)
    if method is None:
        return default_method(asked)
    if isinstance(method, (str, type)) or not hasattr(method, "start"):
        name = {"rk45": "dopri5", "rk23": "bosh3"}.get(str(method).lower(), str(method).lower())
        hint = f" (by that name there are RungeKutta({name!r}), NearReversible and Coupled)" if name in TABLEAUX else ""
        raise TypeError(f"solve: method={method!r}; pass a method such as Coupled('midpoint'), RungeKutta('rk4') or "
                        f"ReversibleHeun(){hint}")
    method = method if isinstance(method, Exact) else as_method(method)
    if isinstance(method.lam, str):
        raise ValueError(f"solve: {method!r} has a lam that only solve() asks the advisor for, on a fixed grid from y0; choose lam "
                         "yourself (rv.advise helps)")
    return method


def method_of(state: Any, method: Any) -> Any:
    """A state goes on with the method that made it, if no other is named."""
    return state.method if method is None and isinstance(state, State) else method


def default_method(asked: Asked) -> Any:
    """What method=None means. A grid that a control or a plain field drives: RK4 run backwards, or Tsit5 where an error has to be
    estimated. With noise no order above one can be had, and the symmetry of EES serves the way back."""
    if asked.exact:
        return Coupled("rk4" if asked.controller is None else "tsit5", lam=0.9)
    if asked.diffusion is not None or asked.noise is not None:
        return EES(stages=4)
    return NearReversible("rk4" if asked.controller is None else "tsit5")


def check_exact(asked: Asked, method: Any) -> tuple[Lattice | None, Any]:
    """The lattice of an exact solve, or None; and the method without it."""
    exact, made = asked.exact, isinstance(method, Exact)
    if exact is None and made:
        exact = Lattice(method.bits, method.digits)                         # a state of an exact solve goes on as it was
    method = method.inner if made else method
    if exact is None or exact is False:
        return None, method
    if exact is not True and not isinstance(exact, Lattice):
        raise TypeError(f"solve: exact={exact!r}; it is True, or Lattice(bits)")
    if not method.reversible:
        raise TypeError(f"solve: exact=True is a way to run backwards, and {method!r} cannot be; use Coupled(base, lam), "
                        "ReversibleHeun(), AsynchronousLeapfrog(), LeapfrogMidpoint(), VelocityVerlet(), EES27(), "
                        "NearReversible(base) or shears(...)")
    return (Lattice() if exact is True else exact), method


def on_lattice(lattice: Lattice, method: Any, initial: Any) -> tuple[Exact, Any]:
    """The exact form of a method, and what it begins with: parts that go on get buffers of their own."""
    exact = Exact(method, bits_for(initial, lattice.bits), lattice.digits)
    _ = exact.contractions                                   # scales that are no ratio are refused here
    if isinstance(initial, dict):
        initial = exact.with_buffers({name: exact.round(initial[name]) for name in method.parts})
    return exact, initial


def of_one_arithmetic(backend: Any) -> Any:
    """The backend with the same operations ahead and back: nothing merged, nothing contracted."""
    return None if backend is None else replace(backend, merge=False, strict=backend.strict or backend.name != "replay")


def check_backend(asked: Asked) -> Backend | None:
    backend, threads, arithmetic = asked.backend, asked.threads, asked.arithmetic
    if isinstance(backend, Backend):                 # that of another device (revode_cuda)
        return backend
    if backend not in ("auto", "eager", "replay", "native"):
        raise ValueError(f"solve: backend={backend!r}; it is 'auto', 'eager', 'replay' or 'native' (a GPU's are those of revode_cuda)")
    if arithmetic not in ("fast", "strict"):
        raise ValueError(f"solve: arithmetic={arithmetic!r}; it is 'fast' or 'strict'")
    if threads is not None and (not isinstance(threads, int) or threads is True or threads < 1):
        raise ValueError(f"solve: threads={threads!r}; a whole number, 1 or more, or None for one per core")
    if backend == "eager":
        return None
    # What is chosen by itself gives the bits of the tape, until native code takes over at a solve that is known (promote.py).
    auto = backend == "auto"
    return Backend("replay" if auto else backend, auto, not auto, arithmetic == "strict", threads)


def checked_gradient(gradient: Any, method: Any) -> Any:
    """The gradient mode, or the default for this method; TypeError where the two do not go together."""
    reversible = method.reversible
    if isinstance(method, Exact):
        if gradient is not None and not isinstance(gradient, Reversible):
            raise TypeError(f"solve: exact=True is a way to run backwards, and {gradient!r} does not; use gradient=Reversible(), the "
                            "default there, or leave exact out")
        return gradient or Reversible()
    if gradient is None:
        return Automatic() if reversible else Direct()
    if isinstance(gradient, type) or not hasattr(gradient, "solve"):
        raise TypeError(f"solve: gradient={gradient!r}; pass one of Automatic(), Direct(), Checkpointed(n), Reversible(), "
                        "Backsolve(), with the parentheses")
    if isinstance(gradient, (Automatic, Reversible)) and not reversible:
        raise TypeError(f"solve: {method!r} cannot be run backwards, so it has no {type(gradient).__name__}() gradient; use "
                        "Coupled(base), which is reversible, NearReversible(base), which nearly is, or Checkpointed(n)")
    return gradient

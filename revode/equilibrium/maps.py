"""The map f of a fixed point as the field of a solve, and every refusal: of its values, of the numbers and modes given with it."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import Tensor, to_host, value_of
from ..gradients import Automatic, Checkpointed, Direct, Reversible
from ..methods.custom import UserMethod
from ..methods.increment import System, nested
from ..problem import Packing
from ..watch import size
from .implicit import Implicit, Phantom
from .relaxation import Anderson, Picard, RevDEQ

ITERATED = "RevDEQ(beta), Picard(damping) or Anderson(m)"
MODES = "Automatic(), Reversible(), Direct(), Checkpointed(n), Implicit() or Phantom()"


class Map:
    """f as field(t, z, {"params": .., "x": ..}).

    compute: the dtype in which f is evaluated. The first value of the march has to be that of the check before it.
    """

    def __init__(self, f: Callable, compute: Any, layout: Packing) -> None:
        self.f, self.compute, self.layout = f, compute, layout
        self.first: Any = None

    def __call__(self, t: Any, z: Any, both: Any) -> Any:
        value = self.of(z, both)
        if self.first is not None and not (type(z) is Tensor and z.tape.tracing):
            (at, first), self.first = self.first, None
            if not np.array_equal(to_host(value_of(z)), to_host(at)):            # a program took the first iterations
                return value
            # off the tape and on it a value may differ by rounding (np.mean does), drawn numbers by more
            allowed = float(np.finfo(first.dtype).eps) ** 0.5 * size(first)
            if not size(to_host(value_of(value)) - to_host(first)) <= allowed:
                raise ValueError("fixed_point: f gave two different values for the same z; it is a pure function, so draw random "
                                 "numbers (a dropout mask, say) outside it, once for all iterations, and pass them in x")
        return value

    def of(self, z: Any, both: Any) -> Any:
        """f as one array of z's dtype, from one array."""
        layout, dtype = self.layout, z.dtype
        z = z if self.compute is None else z.astype(self.compute)
        value = self.f(layout.open(z), both["params"], both["x"])
        if not layout.alone:
            leaves, structure = tree.flatten(value)
            if structure != layout.structure or [np.shape(leaf) for leaf in leaves] != layout.shapes:
                raise ValueError(f"fixed_point: f returned {tree.describe(value)}; it returns a tree like z0, with the shapes "
                                 f"{layout.shapes}")
            value = tree.ravel(leaves)[0]
        if self.compute is not None and getattr(value, "dtype", None) == self.compute:
            value = value.astype(dtype)
        return value

    def look(self, system: System, z: Any, both: Any) -> None:
        """One evaluation before the first iteration: does f return what an iteration can go on with?"""
        check_arguments(self.f)
        z = z.view() if isinstance(z, np.ndarray) else z
        value = system.coefficients(0.0, z, both)[0]
        system.stats.nfe, system.stats.checks = system.stats.nfe - 1, system.stats.checks + 1
        if not bool(np.isfinite(value).all()):
            raise ValueError("fixed_point: f's first value, at z0, has entries that are not finite (NaN or Inf)")
        if isinstance(value, np.ndarray) and np.may_share_memory(value, z):
            value = value.copy()
        self.first = z, value

    def refuse(self, value: Any, t: Any, z: Any, both: Any, tail: tuple, what: str) -> None:
        """What is to be said of a value that does not fit."""
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            remedy = "is a return missing?" if value is None else "np.stack makes one of a list or tuple"
            raise TypeError(f"fixed_point: f returned {type(value).__name__}; it returns an array shaped like z, {z.shape}; {remedy}")
        if value.shape != z.shape:
            raise ValueError(f"fixed_point: f returned shape {value.shape} for z of shape {z.shape}; a fixed point needs f(z) shaped "
                             "like z. Did you forget the batch axis, or project to another width?")
        if value.dtype != z.dtype:
            raise TypeError(f"fixed_point: f returned {value.dtype} for z of {z.dtype}; give params, x and constants z's dtype (or "
                            "plain Python numbers, which take it); for a float32 f on a float64 z pass compute=np.float32")
        if nested(value) > max(map(nested, [z, *tree.flatten(both)[0]])):
            raise TypeError("fixed_point: f uses a tensor that it was not given (a variable from outside), so its gradient would be "
                            "lost; pass everything that is to be differentiated through params or x")


def check_arguments(f: Any) -> None:
    try:
        signature = inspect.signature(f)
        signature.bind(0, 0, 0)
    except ValueError:                                                           # something built in: the call will tell
        return
    except TypeError:
        raise TypeError(f"fixed_point: f takes the arguments ({', '.join(signature.parameters)}), but it is called as f(z, params, "
                        "x); give it these three, also where it does not use one of them") from None


def check_numbers(tol: Any, atol: Any, max_steps: Any, compute: Any) -> None:
    """The stop rule, and the dtype of f."""
    for name, value in (("tol", 0.0 if tol is None else tol), ("atol", atol)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < inf:
            raise ValueError(f"fixed_point: {name}={value!r}; a number that is not negative"
                             + (", or None for exactly max_steps iterations" if name == "tol" else ""))
    if isinstance(max_steps, bool) or not isinstance(max_steps, (int, np.integer)) or max_steps < 1:
        raise ValueError(f"fixed_point: max_steps={max_steps!r}; the number of iterations at most, 1 or more")
    if compute is not None and np.dtype(compute) not in (np.float32, np.float64):
        raise TypeError(f"fixed_point: compute={compute!r}; np.float32, np.float64, or None for z's own dtype")


def check_double(z: Any) -> None:
    """The lattice of exact mode is one of float64 numbers."""
    if z.dtype != np.float64:
        raise TypeError(f"fixed_point: exact=True takes a z0 of float64, and this is {z.dtype}; pass z0.astype(np.float64), with "
                        "compute=np.float32 if f is to stay in float32")


def checked(method: Any, gradient: Any) -> Any:
    """The gradient mode, or the default for this method; TypeError where they do not go together."""
    if not isinstance(method, (RevDEQ, Picard, Anderson, UserMethod)):
        raise TypeError(f"fixed_point: method={method!r}; pass {ITERATED}, with the parentheses, or a word of your "
                        "own made by rv.shears")
    reversible = isinstance(method, (RevDEQ, UserMethod))
    if gradient is None:
        return Automatic() if reversible else Implicit()
    if not isinstance(gradient, (Automatic, Reversible, Direct, Checkpointed, Implicit, Phantom)):
        raise TypeError(f"fixed_point: gradient={gradient!r}; pass one of {MODES}, with the parentheses")
    if isinstance(method, Anderson) and not isinstance(gradient, (Implicit, Phantom)):
        raise TypeError(f"fixed_point: {method!r} mixes earlier iterates, so no iteration can be repeated or run backwards alone, "
                        f"and it has no {type(gradient).__name__} gradient; use Implicit() or Phantom(), or RevDEQ(beta)")
    if isinstance(gradient, (Automatic, Reversible)) and not reversible:
        raise TypeError(f"fixed_point: {method!r} cannot be run backwards, so it has no {type(gradient).__name__}() gradient; use "
                        "RevDEQ(beta), which can, or Direct(), Checkpointed(n), Implicit() or Phantom()")
    return gradient

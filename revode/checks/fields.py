"""What a field returns: its shape, its dtype, finite values, and the same from call to call."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import value_of
from ..methods.increment import nested
from ..stepping import Problem
from .leaves import check_kind, read_only


def check_field(problem: Problem, y: Any, params: Any) -> None:
    """Evaluate the field twice at the start: right shape and dtype, finite, and the same both times."""
    system, stats, t = problem.system, problem.stats, problem.ts[0]
    params = tree.map(read_only, params)
    from ..compiled.plans import look_again, raw_of  # what makes programs is imported where it is used: import revode stays quick
    f = raw_of(system).coefficients(t, y, params)[0]
    again = look_again(problem, system, t, y, params, f)
    stats.checks, stats.nfe = stats.checks + 2, stats.nfe - 2
    check_pure("field", f, again, t)


def misfit(f: Any, t: Any, y: Any, params: Any, tail: tuple[int, ...], what: str) -> None:
    """Refuse a value of the field or the diffusion that does not fit, with the time at which it came."""
    at, shape = f"at t={float(value_of(t)):.6g}", (*y.shape, *tail)
    if not hasattr(f, "shape") or not hasattr(f, "dtype"):
        remedy = ("Is a return missing?" if f is None else
                  "np.stack makes one of a list or tuple." if isinstance(f, (list, tuple)) else
                  "A constant is made one by np.full_like(y, ...), or by + 0 * y.")
        kind = TypeError if what == "field" else ValueError
        raise kind(f"solve: the {what} returned {type(f).__name__} {at}; it returns an array of shape {shape}, at every time: an "
                   f"array shaped like y{', with one more axis' if tail else ''}. {remedy}")
    if f.shape != shape:
        raise ValueError(f"solve: the {what} returned shape {f.shape} for y of shape {y.shape} {at}; " + (
            "a vector field returns an array shaped like y. Did you forget the batch axis?" if (what, tail) == ("field", ()) else
            f"with a control of {tail[0]} channels it returns shape {shape}" if what == "field" else
            f"it returned shape {shape} at the start, and does so at every time; nothing is broadcast"))
    if f.dtype != y.dtype:
        raise TypeError(f"solve: the {what} returned {f.dtype} for y of {y.dtype} {at}; give params and constants y's dtype (or "
                        "plain Python numbers, which take it)")
    if nested(f) > max(map(nested, [y, t, *tree.flatten(params)[0]])):
        raise TypeError(f"solve: the {what} uses a tensor that it was not given (a variable from outside) {at}, so its gradient would "
                        "be lost; pass everything that is to be differentiated through params")


def check_not_split(y0: Any, method: Any, error: Exception) -> None:
    """A field that fails on a pair of arrays of one shape may mean position and velocity."""
    if isinstance(y0, (tuple, list)) and len(y0) == 2 and len(method.outputs) == 1:
        q, v = y0
        if hasattr(q, "shape") and hasattr(v, "shape") and q.shape == v.shape:
            raise TypeError(f"solve: y0 is a pair of arrays, which {method!r} takes as one tree, so that the field gets a pair and "
                            f"returns one ({error}); if it is position and velocity, and the field returns the acceleration, pass "
                            "method=VelocityVerlet()") from error


def check_pure(what: str, f: Any, again: Any, t: Any) -> None:
    """Two values of a function for one input: finite, equal, and not the same buffer."""
    at = f"at t={t:.6g}"
    check_kind(f, f"solve: the {what} returned")
    if not bool(np.isfinite(f).all()):
        raise ValueError(f"solve: the {what}'s first value, {at}, has entries that are not finite (NaN or Inf)")
    if isinstance(f, np.ndarray) and np.may_share_memory(f, again) and f.flags.writeable:
        raise ValueError(f"solve: the {what} returned the same array twice {at}, so that a later value would overwrite an earlier "
                         "one; return a new array each time")
    if not bool((f == again).all()):
        raise ValueError(f"solve: the {what} differs from call to call: it gave two different values for the same input {at}; it is a "
                         "pure function, so draw random numbers outside it and pass them in params")

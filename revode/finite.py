"""A gradient that is not finite: which leaf, and the first step of the sweep at which a cotangent stopped being finite.

While all is finite this costs a sum of each leaf. The step is found afterwards, on the tape, by a sweep from checkpoints.
"""
from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from itertools import islice
from math import isfinite, isqrt
from typing import Any

import numpy as np

from .engine import tree
from .engine.tensor import Tensor, number
from .engines.eager import record
from .gradients.checkpointed import Checkpointed
from .stepping import Problem, Stats, states
from .watch import Complaint, NonFiniteWarning, complain

FEW = 1 << 12        # entries of all leaves, below which calls cost more than numbers
KINK = ("the derivative of a root, a norm, a logarithm or a division at zero, which is infinite",
        "guard it twice, as in np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 0.0): np.where alone still differentiates "
        "what it does not choose")
LARGE = ("cotangents that grow past the largest number on their way back",
         "smaller steps, a shorter solve, or a look at the field there")
LOSS = ("the loss: what came in for the solution was not finite to begin with",
        "a look at what follows the solve; a root, a norm, a logarithm or a division at zero is guarded twice, as in "
        "np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 0.0)")


def guarded(problem: Problem, initial: Any, params: Any, solved: tuple[Any, Callable]) -> tuple[Any, Callable]:
    """What a gradient mode's solve returns, with a pull that says so where a gradient is not finite."""
    result, pull = solved

    def checked(cotangent: Any) -> tuple:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):        # it is said better here
            gradients = pull(cotangent)
        wanted = {name: part for name, part in zip(("y0", "params", "ts"), gradients, strict=False) if problem.asked[name]}
        if not finite(wanted) and not problem.lost:
            complain(problem, explained(problem, initial, params, cotangent, wanted))
        return gradients

    return result, checked


def finite(gradients: Any) -> bool:
    """Whether all leaves are finite; those of a derivative that is itself being differentiated are not looked at."""
    leaves = tree.flatten(gradients)[0]
    if {*map(type, leaves)} == {np.ndarray} and isfinite(squared(leaves)):
        return True
    total: Any = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for x in leaves:
            if x is not None and type(x) is not Tensor:
                total = total + (x.sum() if hasattr(x, "sum") else x)
    return type(total) is Tensor or isfinite(number(total)) or all(map(whole, leaves))


def squared(leaves: list) -> float:
    """The sum of the squares of all entries of NumPy arrays: where it is finite all of them are. (vdot does not warn.)"""
    if len(leaves) > 1 and sum([x.size for x in leaves]) <= FEW:             # a copy, and one call
        leaves = [np.concatenate([x.ravel() for x in leaves])]
    return sum([float(np.vdot(x, x)) for x in leaves])


def whole(x: Any) -> bool:
    return x is None or type(x) is Tensor or bool(np.isfinite(x).all())


def explained(problem: Problem, initial: Any, params: Any, cotangent: Any, gradients: dict) -> Complaint:
    """Which leaves, from which step on, and why."""
    names = [f"{what}{path}" for what, part in gradients.items()
             for path, x in zip(tree.paths(part), tree.flatten(part)[0], strict=True) if not whole(x)]
    details: dict[str, Any] = {"leaves": names}
    if not all(map(whole, tree.flatten(cotangent)[0])):
        cause, remedy = LOSS
    else:
        with np.errstate(all="ignore"):
            at, kink = first_step(problem, initial, params, cotangent)
        if at is not None:
            details |= {"step": at, "t": float(problem.ts[at])}
        cause, remedy = KINK if kink else LARGE
    return Complaint(NonFiniteWarning, f"solve: the gradient with respect to {', '.join(names)} is not finite. Likely cause: {cause}. "
                     f"Remedy: {remedy}.", details)


class Found(Exception):
    """The step at which a cotangent stopped being finite, and the cotangents behind it."""


def first_step(problem: Problem, initial: Any, params: Any, cotangent: Any) -> tuple[int | None, bool]:
    """The first step of the sweep whose pullback makes finite cotangents infinite, and whether a state beside it would not."""
    own = replace(problem, stats=Stats(), system=copy(problem.system), backend=None, adaptive=None, scales={}, parted=True,
                  unstable=True, later=None, marched=None, progress=False)
    own.system.stats = own.stats

    def look(n: int, before: dict, after: dict, a_params: Any) -> None:
        if all(map(whole, before.values())) and not all(map(whole, [*after.values(), *tree.flatten(a_params)[0]])):
            raise Found(n, before)

    mode = Checkpointed(max(2, isqrt(own.N)))
    _, pull = mode.solve(own, initial, params, look)
    try:
        pull(cotangent)
    except Found as found:
        n, before = found.args
        _, parts = next(islice(states(own, initial, params), n, None))
        return n, any(smooth_at({name: x + sign * 1e-3 * (1 + abs(x)) for name, x in parts.items()}, own, n, params, before)
                      for sign in (1.0, -1.0))
    return 0 if own.N else None, True              # the initial map


def smooth_at(parts: dict, problem: Problem, n: int, params: Any, before: dict) -> bool:
    """Whether step n, from these parts, has finite derivatives."""
    parts = {name: x.astype(before[name].dtype) for name, x in parts.items()}
    try:
        return all(map(whole, tree.flatten(record(problem, n, parts, params)[1].pull(before))[0]))
    except ArithmeticError:
        return False

"""What is said: the warnings, each with the error that strict=True makes of it, and how they are raised."""
from __future__ import annotations

import sys
import warnings
from typing import Any, NamedTuple


class RevodeWarning(UserWarning):
    """The base of this library's warnings.

    The text stays the same from call to call, so that Python shows it once for each place; what differs is in `details`.

    Parameters
    ----------
    message : the cause and the remedies.
    details : the numbers: step, t, sizes, what was allowed.

    Raises: warnings.simplefilter("error", rv.RevodeWarning) makes errors of them, and so does strict=True of a gradient mode.
    """
    error: type[ArithmeticError]

    def __init__(self, message: str = "", details: dict | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class ReconstructionError(ArithmeticError):
    """What a ReconstructionWarning says, as an error: raised with strict=True."""


class ParasiteError(ReconstructionError):
    """What a ParasiteWarning says, as an error: raised with strict=True. It is a ReconstructionError, too."""


class NonFiniteError(ArithmeticError):
    """What a NonFiniteWarning says, as an error: raised with strict=True."""


class AdjointError(ArithmeticError):
    """What an AdjointWarning says, as an error: raised by Backsolve(strict=True)."""


class StabilityError(ArithmeticError):
    """What a StabilityWarning says, as an error: strict=True."""


class ReconstructionWarning(RevodeWarning):
    """The reverse sweep did not find the way back: the gradient is not that of the discrete solve.

    Given by Reversible(), where the estimated error of its gradient passes `tol`. The default, Automatic(), computes the gradient
    again by checkpoints instead.
    """
    error = ReconstructionError


class ParasiteWarning(RevodeWarning):
    """The two copies of the solution part: the solution, or its gradient, is far from that of the equation.

    Given by solve for methods with a second part that should agree with the first: Coupled, ReversibleHeun,
    AsynchronousLeapfrog, LeapfrogMidpoint, and `shears` with a `twin`.
    """
    error = ParasiteError


class NonFiniteWarning(RevodeWarning):
    """A gradient holds NaN or Inf.

    Given by every gradient mode; the details name the leaf, and the step at which it was first seen where that is known.
    """
    error = NonFiniteError


class AdjointWarning(RevodeWarning):
    """Backsolve's solution left the one that had been saved: its gradient is that of another path."""
    error = AdjointError


class StabilityWarning(RevodeWarning):
    """The steps are beyond what the method bears: its solution grows, or swings, where that of the equation does not."""
    error = StabilityError


class Complaint(NamedTuple):
    """Something to say: text that does not change from call to call, and the numbers beside it."""
    category: type[RevodeWarning]
    text: str
    details: dict


class Verdict(NamedTuple):
    """What a reverse sweep says about its gradient; nothing of it has been said yet (`report` does)."""
    estimate: dict[str, float]           # of the relative error by reconstruction: "y0" of dL/dy0, "params" of dL/dparams
    complaints: list[Complaint]
    numbers: dict[str, float]            # everything that was measured, by its name in `Back`


def report(problem: Any, verdict: Verdict) -> None:
    """Say it: a warning for each complaint, or an error where the solve is strict."""
    for complaint in verdict.complaints:
        complain(problem, complaint)


def complain(problem: Any, complaint: Complaint) -> None:
    """Warn at the first caller outside of this package; raise, with the numbers, if strict."""
    complaint = problem.worded(complaint)
    category, text, details = complaint
    problem.parted |= category is ParasiteWarning
    problem.lost |= category is ReconstructionWarning
    if problem.strict:
        numbers = ", ".join(f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
                            for name, value in details.items())
        raise category.error(f"{text} ({numbers})")
    warnings.warn(category(text, details), stacklevel=outside())


def outside() -> int:
    """The stacklevel of the first caller outside this package, whose line a warning should name."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("revode", "revode_cuda"):
        level, frame = level + 1, frame.f_back
    return level

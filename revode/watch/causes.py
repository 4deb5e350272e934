"""From where on it is said, and what: the limits, the causes and the remedies."""
from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..methods.shears import Parts
from .alarms import Complaint, ParasiteWarning, ReconstructionWarning, StabilityWarning
from .gaps import weighted


class Limits(NamedTuple):
    """From where on two copies part: of what a sweep has added up, and of a gap in units of what is allowed in a march."""
    S_p: float
    S_y: float
    S_d: float
    G: float


TOL = 1e-3            # estimated relative error of the gradient from which a sweep is not trusted
# From where on two copies part: for k > 0, and for k < 0, where a gap swings. Chosen on the 1685 solves of python -m
# reference.detection with the seeds 0 and 1; docs/warnings.md shows them.
LIMITS = {"grid": (Limits(0.005, 0.07, 0.15, 3.0), Limits(0.01, 0.2, 0.25, 20.0)),
          "adaptive": (Limits(0.0025, 0.1, 0.3, 3.0), Limits(0.01, 0.2, 0.25, 3.0)),
          "driven": (Limits(0.025, 0.2, 1.0, 5.0), Limits(0.025, 0.2, 1.0, 20.0))}
FADE = 40.0           # how much less, in powers of e, what is at the end says about the sizes at the start
CLOSE = {8: 1e-5, 4: 1e-3}          # what the default accepts, by the bytes of a number: float64, float32
CAUTION = 3.0         # times W_0: dL/dy0 has collected the errors of all states (y' = y - p y^3 from small y0: three times)
OF_LEAF = 3.0         # times tol, from which on a gradient that is named speaks of a leaf of which little is left
MANY = 4096           # parameters up to which it is looked at what has flowed to them
NEARLY = 3.0          # times tol, from which on W_y alone speaks against dL/dy0 of a nearly reversible method: it overestimates
OFF = 0.1             # of that: a smaller estimate is no reason to look at the steps, nor at leaves
OF_TOLERANCE = 30.0   # times what the tolerances of a controller allow an error to be, for the gap of an adaptive solve
SMALLER, OTHER = "smaller steps", "the default method (method=None), which has no second copy"
STORED = "Reversible(resync=K), which stores a state every K steps; Checkpointed(n) or Direct()"


class Pairs:
    """The companion of a problem: how its gap is to be looked at."""

    def __init__(self, problem: Any) -> None:
        self.problem = problem
        self.data: Any = problem.method.companion

    @property
    def k(self) -> float:
        return self.problem.neutral

    @cached_property
    def smooth(self) -> bool:
        """Whether a smooth gap is as it should be, and is taken off."""
        return self.data is not None and self.k < 0 and self.problem.driver is None

    @property
    def allowed(self) -> float:
        """Of a gap in a march."""
        if self.problem.adaptive is not None:
            return OF_TOLERANCE
        return self.data.allowed if self.problem.driver is None else self.data.driven

    @property
    def limits(self) -> Limits:
        """From where on a sweep says that the copies part."""
        kind = "adaptive" if self.problem.adaptive is not None else "driven" if self.problem.driver is not None else "grid"
        return LIMITS[kind][self.k < 0]

    def gap(self, parts: Parts) -> Any:
        return weighted(self.data.D, parts)


def followed(problem: Any) -> tuple[str, list[str]]:
    """Cause and remedies where the copies part. (A gap falls by lam / R a step where the solution falls by R: from lam = R^2 on it
    keeps up.)"""
    method = problem.method
    if method.lam is not None:
        return (f"the solution contracts faster than {method!r} follows at this step size",
                ["lam = exp(-c h) with c above twice the contraction rate", SMALLER, OTHER])
    follows = "little" if abs(problem.neutral) < 1 else "no"
    return (f"the solution contracts, and {method!r} follows {follows} contraction",
            ["a method that bears contraction: Coupled with lam = exp(-c h), c above twice the contraction rate", SMALLER, OTHER])


def parted_copies(problem: Any, pairs: Pairs, details: dict) -> Complaint:
    cause, remedies = followed(problem)
    return Complaint(ParasiteWarning, f"solve: {pairs.data.what} part, so neither the solution nor its gradient can be trusted. "
                     f"Likely cause: {cause}. Remedies: {'; '.join(remedies)}.", details)


def too_large(problem: Any, details: dict) -> Complaint:
    return Complaint(StabilityWarning, f"solve: the steps are too large for {problem.method!r}: from step to step the solution "
                     "grows, or swings, where that of the equation does not, so neither it nor its gradient can be trusted. Likely "
                     "cause: h times the fastest rate of the field is beyond the method's stability limit (the problem is stiff). "
                     "Remedies: smaller steps; controller=PID(rtol, atol), which finds them; a field without the fast rate.", details)


def lost(problem: Any, wrong: list[str], details: dict) -> Complaint:
    """The reverse sweep did not find the way back."""
    method = problem.method
    growth = abs(1.0 / problem.neutral) if method.exactly_reversible else 1.0
    stretch = problem.resync or problem.N
    details = {**details, "growth": growth, "steps": stretch}
    eps = float(np.finfo(next(iter(problem.scales.values())).dtype).eps)
    grown = eps * growth ** min(stretch, 700 / max(math.log(growth), 1e-9)) if growth > 1 else 0.0
    remedies = [SMALLER]
    if grown > 0.1 * details["allowed"]:
        cause = f"each step back of {method!r} divides by its scales, so that rounding grows until nothing is left"
        remedies = ["scales closer to 1 (lam, eta)"]
    elif method.exactly_reversible:
        cause, remedies = followed(problem)
    else:
        cause = "the solution contracts, or the steps are too large for their reversal, so that an error grows on the way back"
    what = " and ".join("dL/d" + name for name in wrong) + (" are" if len(wrong) > 1 else " is")
    return Complaint(ReconstructionWarning, f"Reversible: the reverse sweep did not find its way back, so {what} wrong. "
                     f"Likely cause: {cause}. Remedies: {'; '.join([*remedies, STORED])}.", details)

"""The default: the reverse sweep as long as it can be trusted, recursive checkpointing where it cannot.

    reverse sweep under the monitor;      estimated error of the gradient > tol:  once more, by Checkpointed(sqrt(N))

So the gradient is what full backpropagation of the same solve gives, in constant memory wherever that can be had.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

from ..engine import tree
from ..engine.tensor import value_of
from ..march import Kept
from ..stepping import Problem
from ..watch import CLOSE, ReconstructionWarning, report
from .checkpointed import Checkpointed
from .direct import Direct
from .reversible import Reversible

logger = logging.getLogger("revode")


@dataclass(frozen=True)
class Automatic:
    """What gradient=None stands for: Reversible(), and Checkpointed(n) where its estimated error is too large.

    The reverse sweep estimates the error of its gradient from its round trip and its defects, each weighted with the
    cotangent that meets it (watch). Past `tol` the gradient is computed again from the start, with about sqrt(N) states
    held, and exactly; `stats.fallback` and one log line (logger "revode") say so, and there is no warning.

    A derivative of a derivative is taken by Direct(), which is said likewise.

    Parameters
    ----------
    tol : the largest estimated error of the gradient, relative to the gradient, that is accepted from the reverse sweep;
        default 1e-5 in float64, 1e-3 in float32.

    Raises ValueError for a tol that is not positive.

    Cost: that of Reversible(); where it falls back, that of Checkpointed(n) besides, with n about sqrt(N): each step is taken
    about twice more. Two states, or about sqrt(N).
    Source: the estimate is this library's own; Griewank & Walther 2000 for the fallback.

    Example
    -------
    >>> import numpy as np
    >>> from revode import solve, value_and_grad
    >>> loss = lambda p: solve(lambda t, y, p: -p * y, np.ones(1), np.linspace(0.0, 1.0, 101), p, gradient=Automatic()).y1[0]
    >>> [round(float(x), 6) for x in value_and_grad(loss)(1.0)]
    [0.367879, -0.367879]
    """
    tol: float | None = None

    def __post_init__(self) -> None:
        if self.tol is not None and not (isinstance(self.tol, (int, float)) and self.tol > 0):
            raise ValueError(f"Automatic: tol={self.tol!r}; a positive number, or None for 1e-5 (1e-3 in float32)")

    def higher(self, problem: Problem) -> Direct:
        """The mode for a derivative of a derivative: the tape through all steps."""
        problem.stats.fallback = repr(Direct())
        logger.info("solve: a derivative of a derivative was asked, so all steps are kept on the tape, as by gradient=Direct()")
        return Direct()

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        tol = self.tol or CLOSE[value_of(tree.flatten(initial)[0][0]).dtype.itemsize]
        result, judged, kept = Reversible().begin(problem, initial, params, tol)
        start = kept[0]

        def pull(cotangent: Any) -> tuple:
            gradients, verdict = judged(cotangent)
            report(problem, verdict._replace(complaints=[c for c in verdict.complaints if c.category is not ReconstructionWarning]))
            off = max(error for name, error in verdict.estimate.items() if problem.asked[name])
            if off <= tol:
                return gradients
            again = Checkpointed(max(1, isqrt(problem.N)))
            problem.stats.fallback = repr(again)
            logger.info("solve: the reverse sweep of %r estimates that its gradient is off by %.2g of its size (allowed: %.2g), so it "
                        "was computed again by %r; gradient=%r saves the sweep", problem.method, off, tol, again, again)
            return again.sweep(problem, initial, params, Kept.of({0: start}), cotangent)

        return result, pull

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

import numpy as np

from ..stepping import Problem
from .checkpointed import Checkpointed
from .reversible import Reversible

logger = logging.getLogger("revode")
TOL = {8: 1e-5, 4: 1e-3}          # by the bytes of a number: float64, float32


@dataclass(frozen=True)
class Automatic:
    """What gradient=None stands for: Reversible(), and Checkpointed(n) where its estimated error is too large.

    The reverse sweep estimates the error of its gradient from its round trip and its defects, each weighted with the
    cotangent that meets it (watch.py). Past `tol` the gradient is computed again from the start, with about sqrt(N) states
    held, and exactly; `stats.fallback` and one log line (logger "revode") say so, and there is no warning.

    Parameters
    ----------
    tol : the largest estimated error of the gradient, relative to the gradient, that is accepted from the reverse sweep;
        default 1e-5 in float64, 1e-3 in float32.

    Cost: that of Reversible(); where it falls back, that of Checkpointed(n) besides, with n about sqrt(N): each step is taken
    about twice more.
    """
    tol: float | None = None

    def __post_init__(self) -> None:
        if self.tol is not None and not (isinstance(self.tol, (int, float)) and self.tol > 0):
            raise ValueError(f"Automatic: tol={self.tol!r}; a positive number, or None for 1e-5 (1e-3 in float32)")

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        result, sweep, start = Reversible().begin(problem, initial, params)

        def pull(cotangent: Any) -> tuple:
            gradients, verdict = sweep(cotangent)
            tol = self.tol or TOL[np.dtype(verdict.dtype).itemsize]
            if verdict.estimate <= tol:
                return gradients
            again = Checkpointed(max(1, isqrt(problem.N)))
            problem.stats.fallback = repr(again)
            logger.info("solve: the reverse sweep of %r estimates its gradient to be off by %.2g of its size (allowed: %.2g), so it "
                        "was computed again by %r; name that mode to save the first sweep", problem.method, verdict.estimate, tol, again)
            return again.sweep(problem, initial, params, {0: start}, {}, cotangent)

        return result, pull

"""The iteration as a problem of marching: its times are counts, and the stop rule stands in the controller's place.

    stop    |z - f(z)| <= tol |f(z)| + atol, or n = max_steps         norms over all entries

Source of the rule: McCallum, Arora & Foster 2025 (arXiv 2509.12917), section 4.
"""
from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from ..engine.tensor import value_of
from ..methods.increment import Evaluator, System
from ..methods.shears import Parts
from ..stepping import Problem, one_step
from ..watch import Complaint, ReconstructionWarning, size
from .implicit import norm
from .mixing import Mixing
from .relaxation import Anderson
from .words import in_words, lost, overflow

TINY = 1e-300
POOLED = 10.0           # seen in 500 sweeps (tests/unit/test_equilibrium.py has a sample): 9.5 at worst, 3 in the median


class Iterations(Problem):
    """A Problem whose times are the counts 0, 1, 2 .. of its iterations, and whose warnings speak of iterations."""

    def relative(self, off: Any, there: Any, tiny: float) -> Any:
        """What is off beside what is there, over the features of one place together (one entry alone has a cotangent near zero
        somewhere), and times POOLED, which the sums lie below the true error by at most.
        """
        off, there = (x.sum(axis=-1) if getattr(x, "ndim", 0) else x for x in (off, there))
        return POOLED * off / (there + tiny)

    def worded(self, complaint: Complaint) -> Complaint:
        """A complaint of the monitor, in the words of an iteration."""
        if complaint.category is not ReconstructionWarning:
            return complaint._replace(text=in_words(complaint.text))
        return lost(self, complaint)


class Until:
    """The stop rule: it extends the grid by one iteration at a time."""
    tolerances, dtype = (), None         # that programs would take

    def __init__(self, tol: float | None, atol: float, max_steps: int) -> None:
        self.tol = None if tol is None or tol == atol == 0 else float(tol)
        self.atol, self.max_steps, self.met = atol, max_steps, False

    def arrived(self, problem: Problem) -> bool:
        return self.met or problem.N >= self.max_steps

    def saves(self, problem: Problem, n: int) -> bool:
        return problem.done(n)

    def advance(self, problem: Problem, parts: Parts, F: Evaluator) -> Parts:
        """One more iteration, and whether it was the last."""
        n = problem.N
        problem.ts.append(n + 1.0)
        problem.hs.append(problem.h_before)
        after = self.next(problem, n, parts, F)
        z = after[problem.method.outputs[0]]
        if not isfinite(size(value_of(z))):
            raise overflow(n + 1, self.max_steps)
        if self.tol is not None:
            z, = F.read(problem.method.outputs, after)
            value = value_of(F.field(problem.ts[n + 1], z))
            residual, of_f = norm(value_of(z) - value), norm(value)
            if not isfinite(residual + of_f):
                raise overflow(n + 1, self.max_steps)
            stats: Any = problem.stats
            stats.residuals.append(residual / max(of_f, TINY))
            self.met = residual <= self.tol * of_f + self.atol
        return after

    def next(self, problem: Problem, n: int, parts: Parts, F: Evaluator) -> Parts:
        return one_step(problem.method, problem.step(n), parts, F)


class Mixed(Until):
    """The stop rule of Anderson's iteration, with its memory: a march that is run once, and forward."""

    def __init__(self, method: Anderson, tol: float | None, atol: float, max_steps: int) -> None:
        super().__init__(tol, atol, max_steps)
        self.mixing = Mixing(method)

    def next(self, problem: Problem, n: int, parts: Parts, F: Evaluator) -> Parts:
        z, = F.read(("y",), parts)
        f = F.field(problem.ts[n], z)
        F.memo.clear()
        return {"y": self.mixing.next(z, f)}


def counted(method: Any, system: System, until: Until, first: Any) -> Iterations:
    """The problem: on a grid that grows until the rule is met, or on the whole of it."""
    one = np.asarray(1.0, first.dtype)
    if until.tol is not None or isinstance(until, Mixed):
        return Iterations(method, system, [0.0], [], (), one, adaptive=until, stats=system.stats)
    N = until.max_steps
    problem = Iterations(method, system, np.arange(N + 1.0), np.ones(N, first.dtype), (N,), one, adaptive=None, stats=system.stats)
    problem.hs.flags.writeable = False
    return problem

"""Reversible backpropagation: the reverse sweep rebuilds each state from the next one, and stores nothing.

    for n = N-1 .. 0:   (parts_n, cotangent_n) <- pullback of the word of step n at (parts_{n+1}, cotangent_{n+1})

Memory O(1) states. The gradient is that of the discrete solve, up to the error of the reconstruction; that error is
always measured against some of the saved states and the initial one, and a warning says when it is too large (watch).
"""
from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ..certify import Certificate, of_solve
from ..engine.tensor import value_of
from ..engines import engine_of
from ..march import Kept, march
from ..stepping import Problem
from ..watch import STORED, TOL, Complaint, Quiet, ReconstructionWarning, Verdict, compared, complain, report
from .cotangents import at_the_end, at_the_start


@dataclass(frozen=True)
class Reversible:
    """Constant-memory gradients: the reverse sweep rebuilds each state from the next one.

        for n = N-1 .. 0:   (parts_n, cotangent_n) <- pullback of the word of step n at (parts_{n+1}, cotangent_{n+1})

    Exact for the discrete solve up to the error of the reconstruction, which is always measured.

    Parameters
    ----------
    resync : store the state every `resync` steps and restart the reconstruction from it (memory N / resync); None: never.
    strict : raise ReconstructionError (ParasiteError, NonFiniteError) instead of warning.
    tol : the estimated relative error of the gradient from which a ReconstructionWarning says so, default 1e-3. dL/dy0 and
        dL/dparams are judged apart, and only where they are asked for. The estimate (watch) weighs what came back wrong with
        the cotangent that is there, entry by entry: mostly above the true error, for exact words by a factor of ten and more;
        from thirty times below it to above it for nearly reversible methods.
    certify : measure the error of each gradient along so many random directions, by forward mode (certify.py): stats.certificate.
        Each costs about one solve on the tape, with its tangent. A ReconstructionWarning says where it is past tol.

    Raises ValueError or TypeError for settings that make no sense; in a solve TypeError for a method that cannot be run backwards.

    Cost: the way back evaluates the field as often as the way there (nearly reversible methods: almost twice as often) and pulls
    back as often; two states.
    Source: Zhuang and others 2021 (MALI); Kidger and others 2021, arXiv 2105.13493; McCallum & Foster 2024, arXiv 2410.11648.

    Example
    -------
    >>> import numpy as np
    >>> from revode import ReversibleHeun, solve, value_and_grad
    >>> how = {"method": ReversibleHeun(), "gradient": Reversible()}
    >>> loss = lambda p: solve(lambda t, y, p: -p * y, np.ones(1), np.linspace(0.0, 1.0, 101), p, **how).y1[0]
    >>> [round(float(x), 4) for x in value_and_grad(loss)(1.0)]
    [0.3679, -0.3679]
    """
    resync: int | None = None
    strict: bool = False
    tol: float | None = None
    certify: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.certify, int) or self.certify < 0:
            raise ValueError(f"Reversible: certify={self.certify!r}; the number of random directions, or 0 for none")
        if self.resync is not None and (not isinstance(self.resync, int) or self.resync < 1):
            raise ValueError(f"Reversible: resync={self.resync!r}; a number of steps, 1 or more, or None")
        if self.tol is not None and not (isinstance(self.tol, Real) and self.tol > 0):
            kind = ValueError if isinstance(self.tol, Real) else TypeError
            raise kind(f"Reversible: tol={self.tol!r}; a positive number, or None for 1e-3")

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        result, judged, _ = self.begin(problem, initial, params)

        def pull(cotangent: Any) -> tuple:
            gradients, verdict = judged(cotangent)
            report(problem, verdict)
            if self.certify:
                self.measure(problem, of_solve(problem, initial, params, cotangent, gradients, self.certify))
            return gradients

        return result, pull

    def measure(self, problem: Problem, found: Certificate) -> None:
        """Keep a certificate, and say so where the error is too large."""
        problem.stats.certificate = found
        if found.error > (TOL if self.tol is None else self.tol) * found.size and not problem.lost:
            complain(problem, Complaint(
                ReconstructionWarning, "Reversible: the gradient was measured along random directions, and is wrong. If the sweep "
                "found its way back (see stats.roundtrip), look at the pullbacks of custom operations in the field. Remedies: "
                f"{STORED}.", {"error": found.error, "below": found.below, "size": found.size}))
            problem.lost = True

    def begin(self, problem: Problem, initial: Any, params: Any, acts: float = math.inf) -> tuple[tuple, Callable, dict]:
        """The march, the sweep as a function from the cotangent to (gradients, verdict), and the states kept, that at 0 among them.

        acts: the estimated error from which the caller does something; below it an estimate may be a bound.
        """
        kept = Kept(range(0, sys.maxsize if problem.adaptive else problem.N + 1, self.resync or sys.maxsize))
        problem.resync, problem.swept, problem.ways = self.resync, True, ("forward", "backward")
        called = None if self.resync or problem.backend is None else problem.backend.called(problem, initial, params)
        ys, final = march(problem, initial, params, kept) if called is None else called.result(kept)
        problem.stats.peak_states = len(kept) + 1

        def judged(cotangent: Any) -> tuple[tuple, Verdict]:
            found = called and called.back(initial, cotangent, self.tol, acts)
            return found or self.sweep(problem, initial, params, ys, final, kept, cotangent, acts)

        return (ys, final), judged, kept

    def sweep(self, problem: Problem, initial: Any, params: Any, ys: tuple, final: dict, kept: dict,
              cotangent: Any, acts: float = math.inf) -> tuple[tuple, Verdict]:
        """From the end to the start, from one stop to the next: where a state is kept, compared or looked at.

        Returns the gradients and what there is to say about them; nothing has been said yet.
        """
        N = problem.N
        a_ys, a = at_the_end(problem, cotangent)
        back = engine_of(problem, "backward", final, params)
        if problem.flushed is not None:
            problem.flushed.turn()
        back.load(problem, params, final, a)
        plain_ys, plain = tuple(map(value_of, a_ys)), {name: value_of(x) for name, x in cotangent[1].items()}
        beside = compared(problem.save, N) - set(kept)
        watch = Quiet(problem, self.tol, beside, ys, plain_ys, plain, acts, getattr(back, "measure", None))
        n = N
        for stop in sorted(set(kept) - {N}, reverse=True):
            *groups, looks = watch.groups(n, stop, final, back.shows, back.holds)
            for group in groups:
                watch.show("see", group, *back.back(n, group[-1], a_ys, looks=group))
                watch.show("flow", back.read("flowed"))
                n = group[-1]
            # at a state that is kept the sweep starts anew, so what is pending has to come in (nearly reversible methods
            # have landed on the state itself, and the field values at hand are those there)
            flushes = problem.method.exactly_reversible or stop == 0
            watch.show("see", looks, *back.back(n, stop, a_ys, kept[stop], flushes, looks))
            watch.show("flow", back.read("flowed"))
            n = stop
            a = back.read("cotangent")
            came, truth, a = ({name: value_of(x)[None] for name, x in parts.items()} for parts in (back.read("part"), kept[n], a))
            watch.show("compare", [n], came, truth, a)
            if n:
                back.restart(kept[n])
        if problem.flushed is not None:
            problem.flushed.certify(back.read("part"), kept[0])
            problem.stats.exact = True
        return at_the_start(problem, initial, params, back), watch.verdict(**back.read("missed"))

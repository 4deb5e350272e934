"""Reversible backpropagation: the reverse sweep rebuilds each state from the next one, and stores nothing.

    for n = N-1 .. 0:   (parts_n, cotangent_n) <- pullback of the word of step n at (parts_{n+1}, cotangent_{n+1})

Memory O(1) states. The gradient is that of the discrete solve, up to the error of the reconstruction; that error is
always measured against the saved states and the initial one, and a warning says when it is too large.
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import is_float, number
from ..methods.increment import Increment, Recorder, accumulate
from ..methods.shears import near_pullback, pullback
from ..stepping import Problem, RoundTrip, complain, march, size

COMPARED = 64      # at most so many saved states are compared on the way back
TOGETHER = 8       # of them are judged at a time
NEAR = 1e-3        # tolerance for methods that are nearly reversible: three digits of the gradient


@dataclass(frozen=True)
class Reversible:
    """Constant-memory gradients for methods made of shears.

    Parameters
    ----------
    resync : store the state every `resync` steps and restart the reconstruction from it (memory N / resync); None: never.
    strict : raise ReconstructionError instead of warning.
        An entry more than eps^(-1/4) (8000 in float64) times smaller than the largest one of the state is judged less
        strictly: scale the equations where such entries matter.
    tol : largest error of the reconstruction that is not reported, relative to the largest entry of the solution;
        default sqrt(eps), half of the digits; 1e-3 for methods that are nearly reversible.
    """
    resync: int | None = None
    strict: bool = False
    tol: float | None = None

    def __post_init__(self) -> None:
        if self.resync is not None and (not isinstance(self.resync, int) or self.resync < 1):
            raise ValueError(f"Reversible: resync={self.resync!r}; a number of steps, 1 or more, or None")
        if self.tol is not None and not self.tol > 0:
            raise ValueError(f"Reversible: tol={self.tol!r}; a positive number, or None for sqrt(eps)")

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        kept: dict[int, dict] = {}
        problem.resync = self.resync

        (ys, final) = march(problem, initial, params, visit=kept.__setitem__, every=self.resync or sys.maxsize)
        problem.stats.peak_states = len(kept) + 1

        def pull(cotangent: Any) -> tuple:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):        # the round trip says it better
                return self.sweep(problem, initial, params, ys, final, kept, cotangent)

        return (ys, final), pull

    def sweep(self, problem: Problem, initial: Any, params: Any, ys: tuple, final: dict, kept: dict,
              cotangent: Any) -> tuple:
        """From the end to the start, from one stop to the next: where a state is kept, or is compared."""
        a_ys, a_parts = cotangent
        at = {n: k for k, n in enumerate(problem.save)}
        back = problem.backward(final, params) or Sweep(problem)
        compared = set(problem.save[::-(-len(problem.save) // getattr(back, "compared", COMPARED)) or 1])
        back.start(problem, params, final, enter(a_parts, problem.method.outputs, a_ys, at[problem.N]) if problem.N in at
                   else a_parts)
        trip = Trip(problem, self.tol)
        n = problem.N
        for stop in sorted({*kept, *compared} - {n}, reverse=True):
            # at a state that is kept the sweep starts anew, so what is pending has to come in (nearly reversible methods
            # have landed on the state itself, and the field values at hand are those there)
            settles = stop in kept and (hasattr(problem.method, "word") or stop == 0)
            back.back(n, stop, a_ys, kept.get(stop), settles)
            n = stop
            trip.compare(n, back.get("part"), kept[n] if n in kept else {
                name: y[at[n]] for name, y in zip(problem.method.outputs, ys, strict=True)})
            if n in kept:
                back.restart(kept[n])
        problem.stats.defect = max(problem.stats.defect, back.defect)
        trip.report()
        a_initial, a_params = pull_start(problem, initial, params, back.get("cotangent"))
        sums = list(back.get("aparam").values())
        accumulate(sums, [g for g in tree.flatten(a_params)[0] if g is not None])
        return a_initial, spread(params, sums)


class Sweep:
    """The reverse sweep on the tape, step by step; compiled backends offer the same few functions."""

    def __init__(self, problem: Problem) -> None:
        self.at = {n: k for k, n in enumerate(problem.save)}

    def start(self, problem: Problem, params: Any, parts: dict, cotangents: dict) -> None:
        """Begin at the end: the final parts and their cotangents."""
        self.problem, self.parts, self.cotangents = problem, parts, cotangents
        self.R = Recorder(problem.system, params, zeros(params))

    def back(self, last: int, first: int, a_ys: tuple, known: dict | None, settles: bool) -> None:
        """Undo steps last - 1 .. first; the cotangents of the saved states at first .. last - 1 enter on the way.

        known: the state at `first`, if it is known; settles: pull back there the field values whose cotangents are pending.
        """
        for n in range(last - 1, first - 1, -1):
            self.parts, self.cotangents = step_back(self.problem, n, self.parts, self.cotangents, self.R,
                                                    known if n == first else None)
            if n in self.at:
                self.cotangents = enter(self.cotangents, self.problem.method.outputs, a_ys, self.at[n])
        if settles:
            self.R.flush_all(self.cotangents)

    def restart(self, parts: dict) -> None:
        """Go on from these parts."""
        self.parts = parts

    def get(self, kind: str) -> dict:
        """The parts, the cotangents, or the sums for the parameters."""
        return {"part": self.parts, "cotangent": self.cotangents, "aparam": dict(enumerate(self.R.aparams))}[kind]

    @property
    def defect(self) -> float:
        return self.problem.stats.defect


def step_back(problem: Problem, n: int, parts: dict, cotangent: dict, R: Recorder,
              known: dict | None = None) -> tuple[dict, dict]:
    """Undo step n: the parts and cotangents at ts[n] from those at ts[n + 1]; `known`: the stored parts at ts[n]."""
    method, step = problem.method, problem.step(n)
    if hasattr(method, "word"):
        cotangent = dict(cotangent)
        R.expire((step.t0, step.t1), cotangent)
        return pullback(method.word(step), parts, cotangent, R)
    parts, cotangent, defect = near_pullback(method, step, parts, cotangent, R, known)
    if known is None:
        problem.stats.defect = max(problem.stats.defect, size(defect))
    return parts, cotangent


def zeros(params: Any) -> list:
    """A zero array for each float leaf, to add cotangents to in place."""
    return [np.zeros_like(x) for x in tree.flatten(params)[0] if is_float(x)]


def spread(params: Any, cotangents: list) -> Any:
    """The cotangents of the float leaves as a tree like params; None for the other leaves."""
    leaves, structure = tree.flatten(params)
    found = iter(cotangents)
    return tree.unflatten(structure, [next(found) if is_float(x) else None for x in leaves])


def enter(cotangent: dict, outputs: tuple[str, ...], a_ys: tuple, k: int) -> dict:
    """Add the cotangents of the k-th saved output."""
    return {**cotangent, **{name: cotangent[name] + a[k] for name, a in zip(outputs, a_ys, strict=True)}}


def pull_start(problem: Problem, initial: Any, params: Any, cotangent: dict) -> tuple:
    """Pull the cotangents of the initial parts back to y0 and params."""
    if problem.resumed:
        return cotangent, None
    before = problem.stats.nfe
    _, pull = vjp(lambda y, p: problem.method.start(Increment(problem.system, p), problem.step(0), y), initial, params)
    problem.stats.nvjp += problem.stats.nfe - before
    return pull(cotangent)


class Trip:
    """The round trip: the largest error of the reconstruction, and the first step at which it passed the tolerance.

    Errors are judged entry by entry, against the largest value that the entry took in the forward solve, so that a large
    entry (or a large member of a batch) does not hide a small one. An entry far below the largest of all is judged as if
    it were eps^(1/4) of that: what rounding of the others puts into it is no error.
    """

    def __init__(self, problem: Problem, tol: float | None) -> None:
        self.problem, self.tol = problem, tol
        self.seen: list[tuple[int, dict, dict]] = []
        self.errors: list[tuple[int, float, float, float]] = []

    def compare(self, n: int, parts: dict, truth: dict) -> None:
        """Remember what came back at step n beside what had been there; the judgement comes at the end."""
        self.seen.append((n, {name: parts[name] for name in truth}, truth))
        if len(self.seen) == TOGETHER:
            self.judge()

    def judge(self) -> None:
        """(step, error, relative error, ulps) for every state compared, several at a time."""
        found: list[tuple[int, float, float, float]] = []
        for names in {tuple(truth) for _, _, truth in self.seen}:              # saved states have fewer parts than kept ones
            rows = [(n, parts, truth) for n, parts, truth in self.seen if tuple(truth) == names]
            error: Any = 0.0
            relative: Any = 0.0
            ulps: Any = 0.0
            for name in names:
                back, x = (np.stack([entry[name] for entry in column]) for column in list(zip(*rows, strict=True))[1:])     # type: ignore[index]
                axes, scale = tuple(range(1, x.ndim)), self.problem.scales[name]
                info = np.finfo(x.dtype)
                self.eps = float(info.eps)
                off = abs(back - x)
                floor = self.eps ** 0.25 * size(scale) + float(info.tiny)
                largest = np.maximum(np.max(abs(x), axis=axes), info.tiny)
                error = np.maximum(error, np.max(off, axis=axes))
                relative = np.maximum(relative, np.max(off / np.maximum(scale, floor), axis=axes))
                ulps = np.maximum(ulps, np.max(off, axis=axes) / (self.eps * 2.0 ** np.floor(np.log2(largest))))
            found += [(n, unless_nan(number(error[k])), unless_nan(number(relative[k])), unless_nan(number(ulps[k])))
                      for k, (n, _, _) in enumerate(rows)]
        self.errors += sorted(found, reverse=True)             # in the order of the sweep
        self.seen.clear()

    def report(self) -> None:
        self.judge()
        if not self.errors:
            return
        near = not hasattr(self.problem.method, "word")         # off by design, and so are its gradients
        tol = self.tol if self.tol is not None else NEAR if near else self.eps ** 0.5
        worst = max(self.errors, key=lambda entry: entry[1])
        self.problem.stats.roundtrip = RoundTrip(worst[1], max(ulps for *_, ulps in self.errors), worst[0])
        for n, error, relative, _ in self.errors:          # in the order of the sweep: the first one is where it went wrong
            if relative > tol:
                complain(self.problem, f"Reversible: the reverse sweep came to step {n} of {self.problem.N} (t = "
                         f"{self.problem.ts[n]:.6g}) with an error of {error:.3g}, {relative:.2g} of the largest value of the "
                         f"entry (allowed: {tol:.2g}), and at its worst the error was {worst[1]:.3g}, so the gradient is wrong.",
                         backward=True)
                return


def unless_nan(x: float) -> float:
    """x, or Inf for what is not a number."""
    return x if x == x else float("inf")

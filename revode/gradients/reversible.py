"""Reversible backpropagation: the reverse sweep rebuilds each state from the next one, and stores nothing.

    for n = N-1 .. 0:   (parts_n, cotangent_n) <- pullback of the word of step n at (parts_{n+1}, cotangent_{n+1})

Memory O(1) states. The gradient is that of the discrete solve, up to the error of the reconstruction; that error is
always measured against the saved states and the initial one, and a warning says when it is too large.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp
from ..engine.tensor import is_float, value_of
from ..methods.increment import Increment, Recorder
from ..methods.shears import Step, pullback
from ..stepping import Problem, RoundTrip, Stats, complain, march, size

COMPARED = 64      # at most so many saved states are compared on the way back
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

        def keep(n: int, parts: dict) -> None:
            if n == 0 or (self.resync and n % self.resync == 0):
                kept[n] = parts

        (ys, final) = march(problem, initial, params, visit=keep)
        problem.stats.peak_states = len(kept) + 1

        def pull(cotangent: Any) -> tuple:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):        # the round trip says it better
                return self.sweep(problem, initial, params, ys, final, kept, cotangent)

        return (ys, final), pull

    def sweep(self, problem: Problem, initial: Any, params: Any, ys: tuple, final: dict, kept: dict,
              cotangent: Any) -> tuple:
        a_ys, a_parts = cotangent
        R = Recorder(problem.system, params, zeros(params))
        trip = Trip(problem, self.tol)
        at = {n: k for k, n in enumerate(problem.save)}
        compared = set(problem.save[::-(-len(problem.save) // COMPARED) or 1])
        parts, cotangent = final, a_parts
        for n in range(problem.N, -1, -1):
            if n in at:
                cotangent = enter(cotangent, problem.method.outputs, a_ys, at[n])
            if n in kept and n < problem.N:
                trip.compare(n, parts, kept[n])
                if hasattr(problem.method, "word") or n == 0:       # else the field values in R are those at kept[n]
                    R.flush_all(cotangent)
                parts = kept[n]
            elif n in compared:
                trip.compare(n, parts, {name: y[at[n]] for name, y in zip(problem.method.outputs, ys, strict=True)})
            if n:
                parts, cotangent = step_back(problem, n - 1, parts, cotangent, R, kept.get(n - 1))
        trip.report()
        a_initial, a_params = pull_start(problem, initial, params, cotangent)
        R.collect([g for g in tree.flatten(a_params)[0] if g is not None])
        return a_initial, spread(params, R.aparams)


def step_back(problem: Problem, n: int, parts: dict, cotangent: dict, R: Recorder,
              known: dict | None = None) -> tuple[dict, dict]:
    """Undo step n: the parts and cotangents at ts[n] from those at ts[n + 1]; `known`: the stored parts at ts[n]."""
    method, step = problem.method, problem.step(n)
    if hasattr(method, "word"):
        cotangent = dict(cotangent)
        R.expire((step.t0, step.t1), cotangent)
        return pullback(method.word(step), parts, cotangent, R)
    return near_pullback(method, step, parts, cotangent, R, problem.stats, known)


def near_pullback(method: Any, step: Step, parts: dict, cotangent: dict, R: Recorder, stats: Stats,
                  known: dict | None = None) -> tuple[dict, dict]:
    """Undo one step of a method that is nearly reversible: y ~ Phi_{-h}(y1), then pull back Phi_h at y.

    The field at y1 is known already: it is the first stage of the step that was undone before.
    """
    y1 = parts["y"]
    F = Increment(R.system, R.plain)
    F.memo = {"y": {t: tuple(value_of(f) for f in value.outputs) for t, value in R.memo.get("y", {}).items()}}
    y, = F.read(("y",), parts)
    before = method.flow(F, step.t1, step.t0, y, -step.dx)
    for _ in range(method.correct):
        before = before + (y1 - method.flow(Increment(R.system, R.plain), step.t0, step.t1, before, step.dx))
    cotangent = dict(cotangent)
    R.flush("y", cotangent)
    parts = {"y": before}
    y, = R.read(("y",), known or parts)
    after = method.flow(R, step.t0, step.t1, y, step.dx)
    if known is None:
        stats.defect = max(stats.defect, size(y1 - after.value))
    g, = R.pull(after, cotangent["y"], [y])
    return parts, {"y": g}


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
        self.errors: list[tuple[int, float, float, float]] = []      # (step, error, relative error, ulps)

    def compare(self, n: int, parts: dict, truth: dict) -> None:
        scales = self.problem.scales
        error = relative = ulps = 0.0
        for name, x in truth.items():
            self.eps = eps = float(np.finfo(x.dtype).eps)
            off = abs(parts[name] - x)
            error = max(error, size(off), key=unless_nan)
            floor = eps ** 0.25 * size(scales[name]) + float(np.finfo(x.dtype).tiny)
            relative = max(relative, size(off / np.maximum(scales[name], floor)), key=unless_nan)
            ulp = eps * 2.0 ** np.floor(np.log2(max(size(x), float(np.finfo(np.float64).tiny))))
            ulps = max(ulps, size(off) / ulp, key=unless_nan)
        self.errors.append((n, unless_nan(error), unless_nan(relative), unless_nan(ulps)))

    def report(self) -> None:
        if not self.errors:
            return
        near = not hasattr(self.problem.method, "word")         # off by design, and so are its gradients
        tol = self.tol if self.tol is not None else NEAR if near else self.eps ** 0.5
        worst = max(self.errors, key=lambda entry: entry[1])
        self.problem.stats.roundtrip = RoundTrip(worst[1], float(max(ulps for *_, ulps in self.errors)), worst[0])
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

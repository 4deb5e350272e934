"""Reversible backpropagation: the reverse sweep rebuilds each state from the next one, and stores nothing.

    for n = N-1 .. 0:   (parts_n, cotangent_n) <- pullback of the word of step n at (parts_{n+1}, cotangent_{n+1})

Memory O(1) states. The gradient is that of the discrete solve, up to the error of the reconstruction; that error is
always measured against some of the saved states and the initial one, and a warning says when it is too large (watch.py).
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import Tensor, is_float, value_of
from ..methods.increment import Recorder, accumulate
from ..methods.shears import near_pullback, pullback
from ..stepping import Problem, march
from ..watch import MANY, Back, Verdict, begins, flat, report, stacked

COMPARED = 16      # at most so many saved states are compared on the way back


@dataclass(frozen=True)
class Reversible:
    """Constant-memory gradients for methods made of shears.

    Parameters
    ----------
    resync : store the state every `resync` steps and restart the reconstruction from it (memory N / resync); None: never.
    strict : raise ReconstructionError (ParasiteError, NonFiniteError) instead of warning.
    tol : the estimated relative error of the gradient from which a ReconstructionWarning says so, default 1e-3. dL/dy0 and
        dL/dparams are judged apart, and only where they are asked for. The estimate (watch.py) weighs what came back wrong with
        the cotangent that is there, entry by entry: mostly above the true error, for exact words by a factor of ten and more;
        from thirty times below it to above it for nearly reversible methods.
    """
    resync: int | None = None
    strict: bool = False
    tol: float | None = None

    def __post_init__(self) -> None:
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
            return gradients

        return result, pull

    def begin(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable, dict]:
        """The march, the sweep as a function from the cotangent to (gradients, verdict), and the states kept, that at 0 among them."""
        kept: dict[int, dict] = {}
        problem.resync, problem.swept = self.resync, True
        (ys, final) = march(problem, initial, params, visit=kept.__setitem__, every=self.resync or sys.maxsize)
        problem.stats.peak_states = len(kept) + 1

        def judged(cotangent: Any) -> tuple[tuple, Verdict]:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):        # the round trip says it better
                return self.sweep(problem, initial, params, ys, final, kept, cotangent)

        return (ys, final), judged, kept

    def sweep(self, problem: Problem, initial: Any, params: Any, ys: tuple, final: dict, kept: dict,
              cotangent: Any) -> tuple[tuple, Verdict]:
        """From the end to the start, from one stop to the next: where a state is kept, compared or looked at.

        Returns the gradients and what there is to say about them; nothing has been said yet.
        """
        a_ys, a_parts = cotangent
        outputs, N = problem.method.outputs, problem.N
        at = {n: k for k, n in enumerate(problem.save)}
        back = problem.backward(final, params) or Sweep(problem)
        compared = set(problem.save[::-(-len(problem.save) // COMPARED) or 1]) - {N}
        a = enter(a_parts, outputs, a_ys, at[N]) if N in at else a_parts
        back.start(problem, params, final, a)
        watch = Back(problem, self.tol, compared - set(kept), ys, *tree.map(value_of, (a_ys, a_parts)))
        n = N
        for stop in sorted(set(kept) - {N}, reverse=True):
            *groups, looks = watch.groups(n, stop, final)
            for group in groups:
                watch.see(group, *back.back(n, group[-1], a_ys, None, False, group))
                watch.flow(back.get("flowed"))
                n = group[-1]
            # at a state that is kept the sweep starts anew, so what is pending has to come in (nearly reversible methods
            # have landed on the state itself, and the field values at hand are those there)
            settles = hasattr(problem.method, "word") or stop == 0
            watch.see(looks, *back.back(n, stop, a_ys, kept[stop], settles, looks))
            watch.flow(back.get("flowed"))
            n = stop
            a = back.get("cotangent")
            watch.compare([n], *({name: value_of(x)[None] for name, x in parts.items()} for parts in (back.get("part"), kept[n], a)))
            if n:
                back.restart(kept[n])
        a_initial, a_params = pull_start(problem, initial, params, a)
        sums = list(back.get("aparam").values())
        accumulate(sums, a_params)
        return (a_initial, spread(params, sums)), watch.verdict(**back.get("missed"))


class Sweep:
    """The reverse sweep on the tape, step by step; compiled backends offer the same few functions."""

    def __init__(self, problem: Problem) -> None:
        self.at = {n: k for k, n in enumerate(problem.save)}

    def start(self, problem: Problem, params: Any, parts: dict, cotangents: dict) -> None:
        """Begin at the end: the final parts and their cotangents."""
        self.problem, self.parts, self.cotangents = problem, parts, cotangents
        self.R = Recorder(problem.system, params, zeros(params))
        self.missed: dict[str, Any] = {}
        self.few = 0 < sum(x.size for x in self.R.aparams) <= MANY
        self.flowed = [flat(self.R.aparams)] if self.few else []

    def back(self, last: int, first: int, a_ys: tuple, known: dict | None, settles: bool,
             looks: Sequence[int] = ()) -> tuple[dict, dict]:
        """Undo steps last - 1 .. first; the cotangents of the saved states at first .. last - 1 enter on the way.

        known: the state at `first`, if it is known; settles: pull back there the field values whose cotangents are pending.
        Returns the parts and cotangents at `looks`, last first, in arrays with an axis of grid points first.
        """
        seen: list[tuple[dict, dict]] = []
        for n in range(last - 1, first - 1, -1):
            self.parts, self.cotangents = step_back(self.problem, n, self.parts, self.cotangents, self.R,
                                                    known if n == first else None, self.missed)
            if n in self.at:
                self.cotangents = enter(self.cotangents, self.problem.method.outputs, a_ys, self.at[n])
            if n in looks:
                seen.append(tree.map(value_of, (self.parts, self.cotangents)))
                if self.few:
                    self.flowed.append(flat(self.R.aparams))
        if settles:
            self.R.flush_all(self.cotangents)
        if not seen:
            return {}, {}
        return stacked([parts for parts, _ in seen]), stacked([cotangents for _, cotangents in seen])

    def restart(self, parts: dict) -> None:
        """Go on from these parts."""
        self.parts = parts

    def get(self, kind: str) -> Any:
        """The parts, the cotangents, the sums for the parameters, what these were at the last looks, or what nearly reversible
        methods missed."""
        if kind == "flowed":
            rows = [*self.flowed, flat(self.R.aparams)] if self.few else []
            self.flowed = rows[-1:]
            return (np.stack(rows), begins(self.R.aparams)) if rows else None
        return {"part": self.parts, "cotangent": self.cotangents, "aparam": dict(enumerate(self.R.aparams)),
                "missed": self.missed}[kind]



def step_back(problem: Problem, n: int, parts: dict, cotangent: dict, R: Recorder,
              known: dict | None = None, missed: dict | None = None) -> tuple[dict, dict]:
    """Undo step n: the parts and cotangents at ts[n] from those at ts[n + 1]; `known`: the stored parts at ts[n].

    missed: where what is not undone adds up, for methods that are nearly reversible: the largest |y1 - Phi_h(y0)|, and the
    sum of the same times the cotangent that was there, entry by entry.
    """
    method, step = problem.method, problem.step(n)
    if hasattr(method, "word"):
        cotangent = dict(cotangent)
        R.expire((step.t0, step.t1), cotangent)
        return pullback(method.word(step), parts, cotangent, R)
    a = cotangent["y"]
    parts, cotangent, defect = near_pullback(method, step, parts, cotangent, R, known)
    if known is None and missed is not None:
        off = abs(defect)
        missed["largest"] = np.maximum(missed.get("largest", 0.0), off)
        missed["weighed"] = missed.get("weighed", 0.0) + abs(value_of(a)) * off
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
    """Pull the cotangents of the initial parts back to y0, and to the float leaves of params: None where nothing flows."""
    R = Recorder(problem.system, params, [])
    if problem.resumed:
        return cotangent, [None] * len(R.floats)
    leaves, structure = tree.flatten(initial)
    inputs, before = [R.tape.input(x) for x in leaves], problem.stats.nfe
    parts = problem.method.start(R, problem.step(0), tree.unflatten(structure, inputs))
    problem.stats.nvjp += problem.stats.nfe - before
    seeds = [(part.slot, 1 * cotangent[name]) for name, part in parts.items() if type(part) is Tensor and part.tape is R.tape]
    found = R.tape.pull(seeds, [*(x.slot for x in inputs), *R.slots])
    a_initial = [np.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=False)]
    return tree.unflatten(structure, a_initial), found[len(leaves):] or [None] * len(R.floats)

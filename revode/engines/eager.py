"""The tape: step by step, each operation by itself. Slow, and right for every solve; compiled engines are compared with it."""
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import Tensor, is_float, number, value_of
from ..memory import within_memory
from ..methods.increment import Evaluator, Recorder, accumulate
from ..methods.shears import Parts, near_pullback, pullback, undone
from ..stepping import CLOCK, Problem, one_step
from ..watch import MANY, ROOM, begins, flat, stacked
from .protocol import Rows


class Eager:
    """All verbs, on arrays of any library; `ahead` also on tensors, which keeps all steps on their tape.

    keeps : steps whose pullback is recorded on the way ahead, in `tapes`, so that `pull` does not take them again.
    look(n, before, after, a_params) : sees the cotangents before and after each step that is pulled back.
    """
    name, looks_often, shows, holds = "eager", True, ROOM, ROOM

    def __init__(self, look: Callable | None = None, tapes: dict[int, Taped] | None = None) -> None:
        self.look = look
        self.keeps: Collection[int] = ()
        self.tapes = {} if tapes is None else tapes

    def load(self, problem: Problem, params: Any, parts: Parts, cotangents: Parts | None = None) -> None:
        self.problem, self.params, self.parts = problem, params, parts
        problem.stats.backend = self.name
        self.F = Evaluator(problem.system, params, None if problem.flushed is None else {})
        if cotangents is None:
            on_tape = any(type(x) is Tensor for x in parts.values())
            self.room = within_memory(problem) if on_tape else None
            return
        self.cotangents = cotangents
        self.R = Recorder(problem.system, params, zeros(params))
        self.missed: dict[str, Any] = {}
        self.atimes = {name: np.zeros(problem.N) for name in CLOCK if problem.timed}
        self.few = 0 < sum(x.size for x in self.R.aparams) <= MANY
        self.flowed = [flat(self.R.aparams)] if self.few else []
        self.at = {n: k for k, n in enumerate(problem.save)}

    def ahead(self, first: int, last: int, ys: Sequence[Any] | None = None, looks: Sequence[int] = ()) -> dict:
        problem, seen = self.problem, []
        wanted = iter(looks)
        look = next(wanted, None)
        for n in range(first, last):
            if n in self.keeps:
                self.parts, self.tapes[n] = record(problem, n, self.parts, self.params)
            else:
                self.parts = problem.advance(n, self.parts, self.F)
            if ys is not None and problem.saves(n + 1):
                shelve(ys, problem, n + 1, self.parts)
            if n + 1 == look:
                seen.append({name: value_of(x) for name, x in self.parts.items()})
                look = next(wanted, None)
            if self.room is not None:
                self.room(n + 1, self.parts)
        return {name: [row[name] for row in seen] for name in self.parts} if seen else {}

    def extend(self, most: int = 1) -> dict:
        self.parts = self.problem.advance(self.problem.N, self.parts, self.F)
        return {name: [x] for name, x in self.parts.items()}

    def back(self, last: int, first: int, a_ys: tuple, known: Parts | None = None, flushes: bool = False,
             looks: Sequence[int] = ()) -> tuple[dict, dict]:
        seen: list[tuple[dict, dict]] = []
        for n in range(last - 1, first - 1, -1):
            if self.problem.timed:
                self.undo(n, known if n == first else None)
            else:
                self.parts, self.cotangents = step_back(self.problem, n, self.parts, self.cotangents, self.R,
                                                        known if n == first else None, self.missed)
            self.enter(n, a_ys)
            if n in looks:
                seen.append(tree.map(value_of, (self.parts, self.cotangents)))
                if self.few:
                    self.flowed.append(flat(self.R.aparams))
        if flushes:
            self.R.flush_all(self.cotangents)
        if not seen:
            return {}, {}
        return stacked([parts for parts, _ in seen]), stacked([cotangents for _, cotangents in seen])

    def undo(self, n: int, known: Parts | None) -> None:
        """Undo step n, and pull it back by itself, its times among what it is made of; at `known`, where a step lands on that."""
        problem, method, parts = self.problem, self.problem.method, self.parts
        self.parts = undone(method, problem.step(n), parts, Evaluator(problem.system, self.params))
        at = self.parts if known is None or method.exactly_reversible else known
        after, taped = record(problem, n, at, self.params)
        if at is self.parts and not method.exactly_reversible:
            note_missed(self.missed, parts["y"] - after["y"], self.cotangents["y"])
        self.through(n, taped)

    def pull(self, last: int, first: int, a_ys: tuple, states: Rows) -> None:
        for n in range(last - 1, first - 1, -1):
            taped = self.tapes.pop(n, None)
            if taped is None:
                taped = record(self.problem, n, {name: x[n - first] for name, x in states.items()}, self.params)[1]
            self.through(n, taped)
            self.enter(n, a_ys)

    def through(self, n: int, taped: Taped) -> None:
        """The cotangents before step n, which has been taken on a tape, from those after it."""
        after, a_params, *a_clock = taped.pull(self.cotangents)
        self.problem.stats.nvjp += taped.nfe
        if self.look is not None:
            self.look(n, self.cotangents, after, a_params)
        accumulate(self.R.aparams, [g for g in tree.flatten(a_params)[0] if g is not None])
        self.clocked(n, *a_clock)
        self.cotangents = after

    def clocked(self, n: int, a_clock: Any = ()) -> None:
        """Keep the cotangents of the clock of step n."""
        if self.problem.timed:
            for name, a in zip(CLOCK, a_clock, strict=True):
                self.atimes[name][n] = 0.0 if a is None else number(a)

    def enter(self, n: int, a_ys: tuple) -> None:
        if n in self.at:
            self.cotangents = enter(self.cotangents, self.problem.method.outputs, a_ys, self.at[n])

    def restart(self, parts: Parts) -> None:
        self.parts, self.F = parts, Evaluator(self.problem.system, self.params)

    def replace(self, parts: Parts) -> None:
        self.parts = {**self.parts, **parts}

    def read(self, kind: str) -> Any:
        if kind == "flowed":
            rows = [*self.flowed, flat(self.R.aparams)] if self.few else []
            self.flowed = rows[-1:]
            return (np.stack(rows), begins(self.R.aparams)) if rows else None
        if kind == "aparam":
            return dict(enumerate(self.R.aparams))
        if kind == "atime":
            return self.atimes
        if kind == "most":
            return self.F.most or {}
        return self.parts if kind == "part" else self.cotangents if kind == "cotangent" else self.missed


class Taped(NamedTuple):
    """The pullback of one step, and the number of field evaluations on its tape."""
    pull: Callable
    nfe: int


def record(problem: Problem, n: int, parts: Parts, params: Any) -> tuple[Parts, Taped]:
    """Step n on a tape: the parts after it, and its pullback."""
    before = problem.stats.nfe

    def step(parts: Parts, p: Any, *clock: Any) -> Parts:
        F = Evaluator(problem.system, p)
        return one_step(problem.method, problem.step(n, *clock), parts, F) if clock else problem.advance(n, parts, F)

    after, pull = vjp(step, parts, params, *((problem.clock(n),) if problem.timed else ()))
    return after, Taped(pull, problem.stats.nfe - before)


def shelve(ys: Sequence[Any], problem: Problem, n: int, parts: Parts) -> None:
    """Put the outputs at grid point n where they belong: at the end of lists, or in their row of arrays."""
    for y, x in zip(ys, problem.output(parts), strict=True):
        if type(y) is list:
            y.append(x)
        else:
            y[problem.rows[n]] = x


def step_back(problem: Problem, n: int, parts: Parts, cotangent: Parts, R: Recorder,
              known: Parts | None = None, missed: dict | None = None) -> tuple[Parts, Parts]:
    """Undo step n: the parts and cotangents at ts[n] from those at ts[n + 1]; `known`: the stored parts at ts[n].

    missed: where what is not undone adds up, for methods that are nearly reversible: the largest |y1 - Phi_h(y0)|, and the
    sum of the same times the cotangent that was there, entry by entry.
    """
    method, step = problem.method, problem.step(n)
    if method.exactly_reversible:
        cotangent = dict(cotangent)
        R.expire((step.t0, step.t1), cotangent)
        return pullback(method.word(step), parts, cotangent, R)
    a = cotangent["y"]
    parts, cotangent, defect = near_pullback(method, step, parts, cotangent, R, known)
    if known is None and missed is not None:
        note_missed(missed, defect, a)
    return parts, cotangent


def note_missed(missed: dict, defect: Any, a: Any) -> None:
    """What a step back did not undo, and the cotangent that was there."""
    off = abs(defect)
    missed["largest"] = np.maximum(missed.get("largest", 0.0), off)
    missed["weighed"] = missed.get("weighed", 0.0) + abs(value_of(a)) * off


def zeros(params: Any) -> list:
    """A zero array for each float leaf, to add cotangents to in place."""
    return [np.zeros_like(x) for x in tree.flatten(params)[0] if is_float(x)]


def enter(cotangent: Parts, outputs: tuple[str, ...], a_ys: tuple, k: int) -> Parts:
    """Add the cotangents of the k-th saved output."""
    return {**cotangent, **{name: cotangent[name] + a[k] for name, a in zip(outputs, a_ys, strict=True)}}

"""Replay: the programs of a solve at work, as lines of NumPy (lines.py) that move a state step by step."""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

import numpy as np

from ..engine import tree
from ..engines.protocol import Rows
from ..stepping import CLOCK, Problem
from ..watch import MANY, ROOM, begins, flat
from .fields import DERIVATIVE, LOOK_UP
from .lines import Code, aligned
from .program import Program, Role, V, evaluate
from .steps import StepPrograms

CHUNK = 128           # steps for which values of the grid are computed at a time
KEPT = 1024           # steps for which they are kept for the next solve, but for parts as long as this
ROWS_OF = -1          # where a dictionary of such values says how many rows they have


class Grid:
    """The values of a program that depend on the grid alone, computed for CHUNK steps at a time."""

    def __init__(self, program: Program, found: list[str]) -> None:
        self.program, self.kinds = program, found
        self.order = [i for i, kind in enumerate(found) if kind == "step"]
        names = [program.values[i].op.name for i in self.order if program.values[i].op is not None]      # type: ignore[union-attr]
        self.controlled, self.looked_up = DERIVATIVE in names, LOOK_UP.name in names
        self.kept: dict[tuple, dict] = {}             # what was computed last, for at most KEPT steps
        self.rows = 0                                 # of all of them
        self.last: tuple = (None, {})                 # the one that was asked for last: to compare is quicker than to look up
        self.same: tuple = (None, None, None)         # its times and steps, told by being the same arrays, and its control
        self.part: tuple = ()                         # and which of them

    def tables(self, problem: Problem, first: int, last: int) -> dict[int, Any]:
        """By value: an array with one row for every step first .. last - 1."""
        control = problem.system.control if self.controlled else None
        at, part = (problem.ts, problem.hs, control), (first, last, problem.h_before if first == 0 else None)
        if all(map(is_, at, self.same)) and part == self.part and type(problem.ts) is not list and not self.looked_up:
            return self.last[1]
        ts = np.asarray(problem.ts[first:last + 1], np.float64)
        hs = np.asarray(problem.hs[max(first - 1, 0):last])
        if self.looked_up or KEPT <= last - first < problem.N:               # a part of a long grid is not kept
            return self.computed(problem, first, ts, hs, control)
        key = first, ts.tobytes(), hs.tobytes(), float(problem.h_before) if first == 0 else None, control
        if key != self.last[0]:                       # else the same grid again, as in training
            found = self.kept.pop(key, None)
            self.rows -= found[ROWS_OF] if found else 0
            self.last, self.same = (None, {}), (None, None, None)
            while self.kept and self.rows + last - first > KEPT:           # what has not been used for the longest time goes first
                self.rows -= self.kept.pop(next(iter(self.kept)))[ROWS_OF]
            found = found or self.computed(problem, first, ts, hs, control)
            self.kept[key] = found
            self.rows += last - first
            self.last = key, found
        self.same, self.part = at, part
        return self.last[1]

    def computed(self, problem: Problem, first: int, ts: np.ndarray, hs: np.ndarray, control: Any) -> dict[int, Any]:
        """The same, made; beside them, how many rows they have."""
        h = hs if first == 0 else hs[1:]
        before = np.concatenate([[problem.h_before], hs[:-1]]).astype(hs.dtype) if first == 0 else hs[:-1]
        return self.at({"t0": ts[:-1], "t1": ts[1:], "h": h, "h_before": before}, problem, control)

    def at(self, given: dict[str, np.ndarray], problem: Problem, control: Any) -> dict[int, Any]:
        """The same for steps of which the times and sizes are given."""
        rows = len(given["h"])
        at: dict[int, Any] = {ROWS_OF: rows}
        for i in self.order:
            x = self.program.values[i]
            if x.op is None:
                at[i] = given[x.role[1]]                                                           # type: ignore[index]
            elif isinstance(x.op.forward, np.ufunc) and x.op.name != "matmul":
                at[i] = x.op.forward(*(with_axes(at[a], len(x.shape)) if isinstance(a, V) else a for a in x.args))
            elif x.op.name == "astype":
                at[i] = at[x.args[0]].astype(x.dtype)
            elif x.op is LOOK_UP:
                at[i] = problem.seen.table(x.options, *(at[a] for a in x.args))
            elif x.op.name == DERIVATIVE:
                at[i] = control.derivative(at[x.args[0]])
            else:
                at[i] = np.stack([x.op.forward(*(at[a][k] if isinstance(a, V) else a for a in x.args), **x.options)
                                  for k in range(rows)])
        return at


class Replay:
    """The programs of one direction at work: the state lies in `store`, by role, and moves step by step."""
    name, looks_often, shows, holds = "replay", False, ROOM, ROOM
    pays = 500                 # so many steps take some fifty times as long as comparing one with the tape

    of_steps: Sequence[str] = ("step",)        # the inputs of which values for many steps are made at a time

    def __init__(self, steps: StepPrograms, parts: dict, merge: bool) -> None:
        self.steps, self.merge = steps, merge
        self.store: dict[Role, np.ndarray] = {}
        rows = int(np.prod(next(iter(parts.values())).shape[:-1]))
        self.codes = {name: Code(program, self.store, rows, merge and name == "step", self.of_steps)
                      for name, program in steps.programs.items()}
        self.grids = {name: Grid(code.program, code.kinds) for name, code in self.codes.items()}

    def load(self, problem: Problem, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        """Begin a sweep from these parts (going back: and their cotangents)."""
        self.problem, self.stats = problem, problem.stats
        problem.stats.backend = self.name
        leaves = given(problem, params)
        self.bound = {name: prelude(code, leaves, self.merge) for name, code in self.codes.items()}
        self.collected, self.begins, self.landed = 0, True, False
        sums = [self.store[role] for role in in_order(self.store, "aparam", problem)]
        self.atimes = {name: np.zeros(problem.N) for name in CLOCK if problem.timed}
        self.sums = sums if 0 < sum(x.size for x in sums) <= MANY else []
        self.held: dict[str, tuple[int, list]] = {}
        for x in self.store.values():
            x[...] = 0
        self.flowed = [flat(self.sums)] if self.sums else []
        self.put("part", parts)
        self.put("cotangent", cotangents or {})

    def put(self, kind: str, arrays: dict) -> None:
        for name, x in arrays.items():
            if (kind, name) in self.store:
                self.store[kind, name][...] = x

    def read(self, kind: str) -> Any:
        """Copies of the parts, or of the cotangents, or of the sums for the parameters (by their number); or rows of what these were
        at the last looks.

        After landing on a known state the parts are those that were reconstructed.
        """
        if kind == "flowed":
            rows = [*self.flowed, flat(self.sums)] if self.sums else []
            self.flowed = rows[-1:]
            return (np.stack(rows), begins(self.sums)) if rows else None
        if kind == "atime":
            return self.atimes
        kind = "landed" if self.landed and kind == "part" else kind
        return {role[1]: self.store[role].copy() for role in in_order(self.store, kind, self.problem)}

    def ahead(self, first: int, last: int, ys: Sequence[Any] | None = None, looks: Sequence[int] = ()) -> dict:
        problem, seen = self.problem, self.room("part", looks)
        at = {n: k for k, n in enumerate(looks)}
        if self.begins:
            self.run("begin", range(first, first + 1))
            self.begins = False
        save = problem.save if ys is not None else ()
        saved = {save[k]: k for k in range(bisect_right(save, first), bisect_right(save, last))}
        for stop in sorted({*saved, *at}):
            self.run("step", range(first, stop))
            first = stop
            if stop in saved:
                for y, name in zip(ys or (), problem.method.outputs, strict=True):
                    y[saved[stop]] = self.store["part", name]
            if stop in at:
                self.note(seen, "part", at[stop])
        self.run("step", range(first, last))
        return seen

    def room(self, kind: str, looks: Sequence[int]) -> dict:
        """Arrays for what is seen at `looks`."""
        return {role[1]: np.empty((len(looks), *self.store[role].shape), self.store[role].dtype)
                for role in in_order(self.store, kind, self.problem)} if looks else {}

    def note(self, seen: dict, kind: str, k: int) -> None:
        for name, x in seen.items():
            x[k] = self.store[kind, name]

    def back(self, last: int, first: int, a_ys: tuple, known: dict | None = None, flushes: bool = False,
             looks: Sequence[int] = ()) -> tuple[dict, dict]:
        """Undo steps last - 1 .. first; the cotangents of the saved states at first .. last - 1 enter on the way.

        Returns the parts and cotangents at `looks`, last first, in arrays with an axis of grid points first.
        """
        problem, parts, cotangents = self.problem, self.room("part", looks), self.room("cotangent", looks)
        at = {n: k for k, n in enumerate(looks)}
        if self.begins:
            self.run("begin", range(last - 1, last))
            self.begins = False
        if known is None or "land" not in self.codes:
            known = None
        saved = {problem.save[k]: k for k in range(bisect_left(problem.save, first), bisect_left(problem.save, last))}
        for stop in sorted({*saved, *at}, reverse=True):
            last = self.undo(last, stop, first, known)
            if stop in saved:
                for a, name in zip(a_ys, problem.method.outputs, strict=True):
                    self.store["cotangent", name] += a[saved[stop]]
            if stop in at:
                self.note(parts, "part", at[stop])
                self.note(cotangents, "cotangent", at[stop])
                if self.sums:
                    self.flowed.append(flat(self.sums))        # without the rows that have not been multiplied yet
        self.undo(last, first, first, known)
        if flushes:
            self.flush()
            self.run("end", range(first, first + 1))
        return parts, cotangents

    def pull(self, last: int, first: int, a_ys: tuple, states: Rows) -> None:
        problem = self.problem
        self.held.clear()
        self.states = first, states
        for stop in problem.save[bisect_left(problem.save, first):bisect_left(problem.save, last)][::-1]:
            self.run("step", range(last - 1, stop - 1, -1))
            for a, name in zip(a_ys, problem.method.outputs, strict=True):
                self.store["cotangent", name] += a[problem.rows[stop]]
            last = stop
        self.run("step", range(last - 1, first - 1, -1))
        self.flush()

    def undo(self, last: int, stop: int, first: int, known: dict | None) -> int:
        """Undo steps last - 1 .. stop; the one that comes to `first` lands on what is known there."""
        lands = known is not None and stop == first < last
        self.run("step", range(last - 1, stop - 1 + lands, -1))
        if lands:
            self.put("known", known)                                                               # type: ignore[arg-type]
            self.run("land", range(first, first + 1))
            self.landed = True
        return stop

    def replace(self, parts: dict) -> None:
        self.put("part", parts)

    def restart(self, parts: dict) -> None:
        """Go on from these parts. Where the last step landed on them, the field values at hand are theirs already."""
        self.put("part", parts)
        self.begins, self.landed = "land" not in self.codes, False

    def run(self, name: str, ns: range) -> None:
        """Run a program for these steps, one after another."""
        if name not in self.codes or not ns:
            return
        code, step = self.codes[name], ns.step
        counts = self.steps.counts.get(name)
        if counts is not None:
            self.stats.nfe += counts.nfe * len(ns)
            self.stats.nvjp += counts.nvjp * len(ns)
        while ns:
            first = ns[0] // CHUNK * CHUNK
            k = ns[0] - first                                     # the place in its chunk
            left = min(len(ns), CHUNK - k if step > 0 else k + 1)
            ns = ns[left:]
            arguments = [*self.bound[name], *self.tables(name, first), *(self.atimes[x][first:] for x, _ in code.clocks)]
            while left:
                some = min(left, code.count - self.collected) if code.collected else left
                code.function(range(k, k + step * some, step), self.collected, *arguments)
                if code.collected:
                    self.collected += some
                    if self.collected == code.count:
                        self.flush()
                k, left = k + step * some, left - some

    def tables(self, name: str, first: int) -> list:
        """For each value that depends on the grid: its arrays for the steps of this chunk."""
        at = self.held.get(name)
        if at is None or at[0] != first:
            code, problem = self.codes[name], self.problem
            found = self.grids[name].tables(problem, first, min(first + CHUNK, problem.N)) if code.per_step else {}
            drives = [self.driven(code.program.values[i].role, first) for i in code.drives]
            at = self.held[name] = first, [*(list_of(found[i]) for i in code.per_step), *drives]
        return at[1]

    def driven(self, role: Any, first: int) -> Any:
        """What a step finds besides: an increment, or a known state, by its position in this chunk."""
        kind, name = role
        if kind == "drive":
            return Drive(self.problem, name, first)
        begin, states = self.states
        x = states[name]
        return [np.asarray(x[n - begin]) if 0 <= n - begin < len(x) else None for n in range(first, first + CHUNK)]

    def flush(self) -> None:
        """Multiply the rows that have been collected."""
        if self.collected:
            self.codes["step"].flush(self.collected)
            self.collected = 0


def given(problem: Problem, params: Any) -> list:
    """What the inputs of programs are numbered by: the leaves of params, and what the field brings along."""
    before, seen, found = problem.given
    if before is not params or seen is not problem.seen:
        found = [*tree.flatten(params)[0], *problem.seen.extras, *problem.tolerances]
        problem.given = params, problem.seen, found
    return found


def in_order(roles: Iterable[Role], kind: str, problem: Problem) -> list[Role]:
    """The roles of a kind: parameters by their number, parts in the order of the method."""
    names = [*problem.method.parts, "largest", "weighed"]
    return sorted((role for role in roles if role[0] == kind),
                  key=lambda role: (names.index(role[1]), 0) if role[1] in names else (len(names), role[1]))


def prelude(code: Code, leaves: list, contiguous: bool = False) -> list:
    """The values that depend on the parameters alone, stretched where the code wants that; contiguous: transposed matrices are
    copied, which products like."""
    at = evaluate(code.program, lambda role: np.asarray(leaves[role[1]]), [i for i, kind in enumerate(code.kinds) if kind == "param"])
    for i, shape in code.wide.items():
        wide = aligned(shape, at[i].dtype)
        wide[...], at[i] = at[i], wide
    return [at[i].copy() if contiguous and not at[i].flags.c_contiguous else at[i] for i in code.per_solve]


def with_axes(table: np.ndarray, ndim: int) -> np.ndarray:
    """A table of arrays, with axes of length one where its arrays lack them, so that steps meet steps."""
    return table.reshape(len(table), *(1,) * (ndim + 1 - table.ndim), *table.shape[1:])


def list_of(table: np.ndarray) -> list:
    """The rows of a table, each an array (without axes where it is one number)."""
    if table.ndim == 1 and len(table) and np.all(table == table[0]):
        return [np.asarray(table[0])] * len(table)
    return [table[k, ...] for k in range(len(table))]


class Drive:
    """The increments of noise or a control, by position."""

    def __init__(self, problem: Problem, name: str, first: int) -> None:
        self.problem, self.name, self.first = problem, name, first

    def __getitem__(self, k: int) -> Any:
        n = self.first + k
        problem = self.problem
        return problem.driver.given(n, problem.ts[n], problem.ts[n + 1], problem.hs[n], problem)[self.name]

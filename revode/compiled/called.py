"""A solve of a kind that has been here before, called: two sweeps of native code, and one pass over what they leave behind.

    ahead    N steps, and the states at the looks, as they lie in a tile          back    N steps back, likewise:  is all quiet?

Where it is not, or a number is not finite, the sweep is made again the long way, by the march and the watch (march.py, watch/),
which see all there is to see and say what there is to say. The numbers are the same on both ways.
"""
from __future__ import annotations

from math import isfinite
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from ..engines.eager import shelve
from ..gradients.cotangents import at_the_end, at_the_start
from ..methods.increment import Evaluator
from ..stepping import Problem, in_rows
from ..watch import Ahead, Verdict, compared
from ..watch.quiet import Marched, Measured, saved, told
from .calls import address
from .fields import Seen
from .plans import Family, due, programs
from .quiet import Laid, pointer
from .replay import given


class Called:
    """One solve, that has been taken ahead."""

    def __init__(self, problem: Problem, params: Any, parts: dict, engine: Any, looks: tuple, ys: tuple, seen: np.ndarray) -> None:
        self.problem, self.params, self.parts, self.engine, self.looks, self.seen = problem, params, parts, engine, looks, seen
        self.ys, self.final = ys, engine.read("part")
        problem.stats.steps, problem.stats.nfe_forward = problem.N, problem.stats.nfe

    def result(self, kept: dict) -> tuple[tuple, dict]:
        """What a march returns; the state at the start goes to those that are kept."""
        kept[0] = self.parts
        return self.ys, self.final

    def back(self, initial: Any, cotangent: Any, tol: float | None, acts: float) -> tuple[tuple, Verdict] | None:
        """The gradients, and the verdict that all was quiet; None where the long way is to be gone."""
        problem, stats, output = self.problem, self.problem.stats, self.problem.method.outputs[0]
        a_ys, a = at_the_end(problem, cotangent)
        engine, y = runner(problem, "backward", problem.seen.family), self.parts[output]
        before, (ns, ahead_ns, constants) = (stats.nfe, stats.nvjp), self.looks
        aside = [np.count_nonzero(x) for name, x in cotangent[1].items() if name != output]
        if engine is None or engine.measure.function is None or any(aside):
            return self.long(*before)
        engine.load(problem, self.params, self.final, a)
        engine.landed = "land" in engine.lowered
        trip = trip_of(engine, self.engine, ns, ahead_ns)
        seen = engine.swept_back(problem.N, 0, a_ys, self.parts, True, ns, trip.rows[1:-1])
        trip.rows[-1], missed, there = engine.front, engine.read("missed"), address(self.seen)
        flow = None if trip.tiles is None else trip.tiles.sum(axis=1)
        found = engine.measure.of_rows(constants, trip.laid, trip.X, there, trip.S, there, pointer(missed.get("weighed")),
                                       trip.flow if flow is None else address(flow))
        verdict = told(problem, tol, acts, found, self.others(engine, ns, seen, found), y, **missed)
        if verdict is None:
            return self.long(*before)
        return at_the_start(problem, initial, self.params, engine, engine.read("cotangent")), verdict

    def others(self, engine: Any, ns: list[int], seen: np.ndarray, found: Measured) -> tuple:
        """Trips to saved states, and how much they weigh."""
        save = self.problem.save
        beside = compared(save, self.problem.N) - {0} if len(save) > 1 or save != (self.problem.N,) else None
        if not beside:
            return [], 0.0
        parts, cotangents = engine.seen("part", ns, seen), engine.seen("cotangent", ns, seen)
        return saved(self.problem, beside, self.ys[0], ns, parts, cotangents, found)

    def long(self, nfe: int, nvjp: int) -> tuple | None:
        """None, and everything as a march leaves it whose watch has been deferred (watch/quiet.py)."""
        problem, ahead_ns = self.problem, self.looks[1]
        problem.kin["quiet"] = False                # the next one goes the long way at once
        problem.stats.nfe, problem.stats.nvjp = nfe, nvjp
        watch = Ahead(problem, self.params)
        watch.begin(self.parts)
        problem.marched = Marched(watch, ahead_ns, self.engine.seen("part", ahead_ns, self.seen[:-1]))
        return None


def called(problem: Problem, initial: Any, params: Any) -> Called | None:
    """A solve, taken ahead; None where it has to go the long way: where a state is not finite, say.

    problem.kin["looks"]: of the last sweep of this kind, which was quiet; [options]: the name of its programs (plans.py).
    """
    looks, before, seen = problem.kin["looks"], problem.kin.get(problem.backend.options), problem.seen
    if before is None or type(seen) is not Seen or seen.unseen or before[2] != seen.key:
        return None
    family, copies, nfe = programs.get(before[3]), before[4], problem.stats.nfe
    if family is None or family.for_numbers(seen.fixed) is not family:
        return None
    seen.lifted = family.lifted                # which decides what is given
    if {*map(type, given(problem, params))} != {np.ndarray}:
        return None
    seen.family, engine = family, runner(problem, "forward", family)
    if engine is None:
        return None
    if copies:
        problem.copies, parts = True, dict.fromkeys(problem.method.parts, in_rows(initial))
    else:
        parts = problem.start(Evaluator(problem.system, params), initial)
    engine.load(problem, params, parts)
    ys = tuple([np.empty((len(problem.save), *y.shape), y.dtype) for y in problem.output(parts)])
    if problem.saves(0):
        shelve(ys, problem, 0, parts)
    states = engine.room(len(looks[1]) + 1)               # the last row: that at the start
    states[-1] = engine.front
    engine.swept(0, problem.N, ys, looks[1], states[:-1])
    if not isfinite(np.vdot(states, states)):
        problem.stats.nfe = nfe
        return None
    return Called(problem, params, parts, engine, looks, ys, states)


class Trip(NamedTuple):
    """What a sweep back leaves behind, in the same room from solve to solve, and how it is told by that whether all was quiet."""
    of: tuple                 # the runner ahead, and the looks back and ahead
    rows: np.ndarray          # (1 + looks + 1, tiles, numbers): zeros, what was seen, and the same at the start
    laid: Laid
    X: int                    # where they lie, of the looks, and the memory of the sweep
    S: int
    flow: int                 # the same of the sums for the parameters in the rows, where there is one tile, and
    tiles: np.ndarray | None  # (1 + looks + 1, tiles, sums) these, where there are more


def trip_of(engine: Any, *of: Any) -> Trip:
    """That of the last solve, where it is of the same."""
    if engine.trip is None or not all(map(is_, engine.trip.of, of)):
        ahead, ns, ahead_ns = of
        rows, sums, place, there = engine.room(len(ns) + 2), engine.source.sums, engine.laid("part", "cotangent"), ahead.laid("part")
        rows[0], alone, flow = 0, engine.tiles == 1, rows[:, :, sums or slice(0)]
        came, a = (engine.laid(kind, within=engine.stride)[0] for kind in ("landed" if engine.landed else "part", "cotangent"))
        ends = np.concatenate([came, there[0] + len(ahead_ns) * there[1], a])
        sizes = (len(rows), flow.shape[2], rows[0].size if alone else flow.shape[2])
        laid = Laid(engine.shape, place, there, len(ahead_ns), ends, sizes, None if sums is None else engine.source.begins)
        engine.trip = Trip(of, rows, laid, address(rows[1:]), address(engine.memory), flow.ctypes.data, None if alone else flow)
    return engine.trip


def runner(problem: Problem, direction: str, family: Family) -> Any:
    """The runner of this thread; None where there is none that could be called, or its step is to be compared with the tape."""
    made = family.native(problem.backend.name).get(direction)
    engine = getattr(made.here, "runner", None) if made is not None else None
    if made is None or engine is None or not engine.stays or due(made, engine, direction, problem):
        return None
    made.solves += 1
    engine.threads = problem.backend.threads
    return engine

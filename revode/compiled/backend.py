"""Backends: who runs the steps. The eager tape is the absence of one.

    "replay"    NumPy calls into planned buffers        "native"    C, compiled by the machine's own compiler

Programs are kept for the next solve under the name that the trace of the field gives them (plans.py): nothing is made anew where
only data have changed, and stale ones cannot be found.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ..adaptive import Adaptive
from ..engine import tree
from ..engine.tensor import NotTraceable, Tensor, is_float
from ..stepping import Problem

PAYS = 200                 # steps (over all solves of one kind) from which "auto" makes a program

logger = logging.getLogger("revode")
_told: set = set()


_steady: ContextVar[bool] = ContextVar("steady", default=False)


@contextmanager
def steady() -> Iterator[None]:
    """Solves of "auto" stay with what has the bits of the tape: who runs them must not follow from how many were made here."""
    token = _steady.set(True)
    try:
        yield
    finally:
        _steady.reset(token)


# What makes programs is imported when the first one is made: import revode stays quick.

@cache
def _of(name: str) -> Any:
    return import_module(f".{name}", __package__)


@dataclass(frozen=True)
class Backend:
    """name: 'replay' or 'native'; auto: fall back to the tape where a program does not pay, or cannot be made."""
    name: str = "replay"
    auto: bool = True
    merge: bool = True
    strict: bool = False
    threads: int | None = None
    device = None                 # whose arrays it takes, of one that is no host (revode_cuda)

    def engine(self, direction: str, problem: Problem, parts: dict, params: Any) -> Any:
        """The engine for the programs of a direction: "forward", "backward" or "pull"; None where the tape has to do it.

        Forward, where a controller has yet to find the grid, is "search".
        """
        if direction == "forward" and problem.adaptive is not None and not problem.adaptive.arrived(problem):
            direction = "search"
        elif not problem.N:                           # nothing to do
            return None
        made = self.runner(direction, _of("steps").DIRECTIONS[direction], problem, parts, params)
        if direction == "search" and problem.flushed is not None and not getattr(made, "source", None):
            problem.backend = self.of_the_tape(problem)
        return made

    def called(self, problem: Problem, initial: Any, params: Any) -> Any:
        """Both sweeps of a solve whose kind is known, called (called.py): taken ahead. None where it has to go the long way."""
        here = type(self) is Backend and (self.auto or self.name == "native") and problem.kin.get("quiet", False)
        return _of("called").called(problem, initial, params) if here else None

    def of_the_tape(self, problem: Problem) -> Backend:
        """What goes back where the steps of an exact solve were found with the bits of the tape, which generated code has not."""
        if self.name == "replay" and not self.strict:
            return self
        self.say(problem, "exact=True: the steps of %s were found with the tape's bits, so replay, which has them, goes back in the "
                 f"place of {'the strict replay' if self.name == 'replay' else self.name}", logging.INFO)
        return Backend("replay", self.auto, False, False, self.threads)

    @property
    def options(self) -> tuple:
        """What programs depend on; results do not depend on the number of threads."""
        return type(self), self.name, self.merge, self.strict

    def stands_back(self, direction: str, problem: Problem, parts: dict, params: Any) -> bool:
        """Whether this is a solve for the tape."""
        unusual = [x for x in (*parts.values(), *tree.flatten(params)[0]) if type(x) is not np.ndarray]
        return any(type(x) is Tensor or (is_float(x) and not isinstance(x, (np.ndarray, np.generic, float))) for x in unusual)

    def runner(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any) -> Any:
        """A runner for the steps of this problem; None where the tape has to do it."""
        known = getattr(problem.seen, "family", None) is not None              # the forward solve has been here already
        why = self.no_search(problem) if direction == "search" else None
        if why is None and not known and self.stands_back(direction, problem, parts, params):
            why = "it is part of a derivative that the tape records, or on another device"
        if why is None:
            return self.planned(direction, steps, problem, parts, params)
        if not self.auto:
            way = "forward" if direction == "search" else direction
            self.say(problem, f"backend={self.name!r}: the solve of %s goes {way} on the tape, because {why}", logging.INFO)
        return None

    def no_search(self, problem: Problem) -> str | None:
        """Why the tape has to find the grid, if it has to."""
        if not isinstance(problem.adaptive, Adaptive):
            return "whether it goes on depends on each of its iterations"
        return None

    def planned(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any) -> Any:
        """runner(), for a solve that programs can do."""
        plans = _of("plans")
        if self.auto and problem.N < PAYS and getattr(problem.seen, "unseen", False):
            return None                               # a custom_vjp, whose pull is called to see it: each solve stands for itself
        try:
            family = self.family(problem, parts, params)
        except Exception as error:
            return self.cannot(problem, error, self.pays(None, problem))
        if direction not in family.made and not self.pays(family, problem):
            return None
        try:
            if direction == "search":
                problem = plans.on_trial(problem)
            made = family.made[direction] if direction in family.made else self.make(direction, steps, problem, parts, params, family)
            if made is None:
                return None
            other = self.instead(family, direction, made, steps, problem, parts, params)
            if other is not None:
                return other
            runner = self.runner_of(made, problem, parts, direction)
            self.compare(made, runner, direction, problem, parts, params)
        except Exception as error:                    # whatever it is: the tape will say it in the user's own terms
            if isinstance(error, plans.Disagreement):
                plans.programs.forget(family.key)
                family.made[direction] = None
                if plans.programs.strict:
                    raise
            self.cannot(problem, error)
            family.made.setdefault(direction, None)       # what has been made may do for another solve
            return None
        return runner

    def family(self, problem: Problem, parts: dict, params: Any) -> Any:
        """The programs of this kind of solve. Raises NotTraceable."""
        return _of("plans").family_of(self.options, problem, parts, params)

    def instead(self, *of: Any) -> Any:
        """The runner of native code that has been compiled beside solves of "auto"; None before."""
        there = type(self) is Backend and self.auto and self.name == "replay" and not _steady.get()
        return _of("promote").instead(self, *of) if there else None

    def make(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any, family: Any) -> Any:
        """Trace, and build the first runner."""
        from .plans import Made, agree_elsewhere
        work = family.works.pop(direction, None)
        if work is None:
            problem.stats.traces += 1
            made = Made(steps(problem, parts, params, self.merge))
            self.make_beside(direction, problem, parts, params, family)
        else:
            made = work.taken(problem)
        runner = self.runner_of(made, problem, parts, direction)
        made.check_tables(problem)
        agree_elsewhere(runner, direction, problem, parts, params)
        family.made[direction] = made
        return made

    def make_beside(self, direction: str, problem: Problem, parts: dict, params: Any, family: Any) -> None:
        """Begin to compile the other directions that this solve will take, while this one is compiled."""
        if self.name != "native" or direction not in problem.ways:
            return
        for other in {*problem.ways} - {direction, *family.made, *family.works}:
            with suppress(Exception):                 # it will be said where it is asked for
                family.works[other] = _of("promote").begun(self, other, _of("steps").DIRECTIONS[other], problem, parts, params)
                problem.stats.traces += 1

    def runner_of(self, made: Any, problem: Problem, parts: dict, direction: str) -> Any:
        """The runner of this thread."""
        runner = getattr(made.here, "runner", None)
        if runner is None:
            problem.stats.compilations += 1
            runner = made.here.runner = self.build(made.steps, problem, parts, direction)
        runner.threads = self.threads
        return runner

    def compare(self, made: Any, runner: Any, direction: str, problem: Problem, parts: dict, params: Any) -> None:
        """Compare one step with the tape, at a place that moves from solve to solve."""
        made.check_tables(problem)
        if direction not in problem.compared:
            problem.compared.add(direction)
            _of("plans").compared(made, runner, direction, problem, parts, params)

    def build(self, steps: Any, problem: Problem, parts: dict, direction: str) -> Any:
        if self.name == "native" or (self.strict and not self.auto):        # strict: the same bits from NumPy
            try:
                return self.in_loops(steps, problem, parts, direction)
            except NotTraceable as error:
                if direction != "search":
                    raise
                self.say(problem, f"backend={self.name!r}: adaptive steps of %s are replayed, because they have no loop: %s",
                         logging.INFO, error)
        runner = _of("search").Search if direction == "search" else _of("replay").Replay
        return runner(steps, parts, self.merge and not self.strict)

    def in_loops(self, steps: Any, problem: Problem, parts: dict, direction: str) -> Any:
        """Generated loops, compiled or in NumPy. Raises NotTraceable for what has none."""
        make = None if self.name == "native" else _of("mirror").Mirror
        if make is None:
            _of("called")                             # imported before the solves that it is to make quick
        if direction == "search":
            return _of("search_tiles").searching(steps, parts, problem, self.strict, make)
        inside, outputs = _of("plans").inside(problem), problem.method.outputs
        return _of("tiles").Tiles(steps, parts, outputs, direction, inside, self.strict, self.threads, make=make)

    def pays(self, family: Any, problem: Problem) -> bool:
        """Whether enough steps of this kind have been asked for; without a family each solve stands for itself."""
        if family is None or not self.auto:
            return not self.auto or problem.N >= PAYS
        family.steps += problem.N or _of("plans").SEARCHED
        return family.steps >= PAYS

    def cannot(self, problem: Problem, error: Exception, tell: bool = True) -> None:
        """The tape does it; said once, unless this backend was asked for by name."""
        if not self.auto and (self.name == "native" or self.strict):
            raise error
        if tell:
            self.tell(problem, error)

    def tell(self, problem: Problem, error: Exception) -> None:
        """What stood in the way of a program."""
        text = "the field %s runs on the eager tape, because it cannot be traced into a program: %s"
        self.say(problem, text, logging.WARNING, error)

    def say(self, problem: Problem, text: str, level: int, *more: Any) -> None:
        """One message of a kind for each field."""
        name = getattr(problem.system.field, "__qualname__", repr(problem.system.field))
        if (name, text) not in _told:
            _told.add((name, text))
            logger.log(level, text, name, *more)


__all__ = ["PAYS", "Backend", "NotTraceable", "logger"]

"""backend="auto" goes native: the C++ of a kind of solve is compiled beside its first solves, which replay, and takes over at one that
is known beforehand.

    spent += N * (what a step costs on replay - what it costs natively), for each direction of each solve         by a model
    spent >= price / 3      the compiler begins: one thread a direction, and nobody waits
    spent >= price          the solve runs natively, and waits for the compiler if it must

So what runs a solve depends on the solves before it, never on the clock or on what is in the cache: two runs of a script give the same
bits on one machine, and the ranks of a job go native together. By then replay has cost what compiling costs, so that no more than
twice the time is spent that would have done (Karlin and others 1988, on when to stop renting skis).

Where there is no compiler nothing happens, and nothing is said; a compile that fails is said once, and replay goes on.
"""
from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any

from ..engine.tensor import NotTraceable
from .native import CompileError, NoCompiler, stop
from .plans import SEARCHED, Disagreement, Family, Made, agree_elsewhere, programs
from .program import V, kinds
from .tiles import WIDEST

# Seconds that native code saves: for a NumPy call, for an entry of an elementary function, and for any other entry; and what it loses
# to the BLAS for each multiplication of a product, with narrow matrices and with wide ones. (Fitted to W1, W2 and W4 of
# reference/benchmarks, where the sums are within a half of what was measured.)
CALL, ELEMENTARY, ENTRY, NARROW, WIDE = 0.35e-6, 6e-9, 0.6e-9, 0.06e-9, 0.1e-9
COMPILER, OPERATION = 0.3, 2e-3          # seconds: what compiling costs in any case, and for each operation of a step
BEGIN = 1 / 3                            # of the price: from then on it is compiled

logger = logging.getLogger("revode")


def saved(steps: Any) -> tuple[float, int]:
    """Seconds that native code saves in a step, about; and how many operations the step has."""
    program = steps.programs["step"]
    seconds, operations = 0.0, 0
    for x, kind in zip(program.values, kinds(program), strict=True):
        if x.op is None or kind != "state":
            continue
        operations += 1
        seconds += CALL + prod(x.shape) * (ELEMENTARY if (x.op.c or "").startswith("rv_") else ENTRY)
        if x.op.name == "matmul" and isinstance(x.args[0], V):
            inner = program.values[x.args[0]].shape[-1]
            wide = sorted((*(1, *x.shape)[-2:], inner))[1] >= WIDEST
            seconds -= (WIDE if wide else NARROW) * prod(x.shape) * inner
    return seconds, operations


class Work(threading.Thread):
    """One direction that is being compiled. It dies with the process, and a forked child has to begin anew."""

    def __init__(self, made: Made, build: Callable) -> None:
        super().__init__(name="revode-compile", daemon=True)
        self.made = made
        self.build: Callable | None = build          # until it is done
        self.runners: list[Any] = []                 # one, until a thread of the user's takes it
        self.error: Exception | None = None
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            self.runners.append(self.build())                                                      # type: ignore[misc]
        except Exception as error:
            self.error = error
        self.build = None                            # what it holds on to
        self.done.set()

    def wait(self) -> Work:
        """Until there is a runner, or an error: by whoever has one of the two."""
        while self.is_alive() and not self.done.wait(0.2):           # (join: Python takes a thread for ended where Ctrl-C ended that)
            pass                                     # without a timeout Windows would not see Ctrl-C
        return self if self.build is None else Work(self.made, self.build).wait()

    def taken(self, problem: Any) -> Made:
        """What has been compiled; the first thread to come has its runner. Raises what the compiler raised."""
        work = self.wait()
        if work.error is not None:
            raise work.error
        with suppress(IndexError):                   # another one was first: this one will make its own
            work.made.here.runner = work.runners.pop()
            problem.stats.compilations += 1
        return work.made


def begun(native: Any, direction: str, steps: Callable, problem: Any, parts: dict, params: Any) -> Work:
    """One direction: traced, and being compiled."""
    new = Made(steps(problem, parts, params, native.merge))
    shape = {name: x.copy() for name, x in parts.items()}
    return Work(new, lambda: native.in_loops(new.steps, problem, shape, direction))


class Promotion:
    """Of a family of programs: how much its solves have cost beyond native ones, and what is compiled."""

    def __init__(self) -> None:
        self.spent, self.price, self.off = 0.0, COMPILER, False
        self.gains: dict[str, float] = {}            # by direction: seconds that a step would save
        self.works: dict[str, Work] = {}
        self.last: Any = None                        # of the last solve whose steps were searched for: its stats
        self.replayed = False                        # whether such a search has no loop
        self.made: dict[str, Made] = {}              # what has been compiled, and compared

    def count(self, direction: str, made: Made, N: int) -> float:
        """A solve more. Returns what it would save."""
        if direction not in self.gains:
            self.gains[direction], operations = saved(made.steps)
            self.price += OPERATION * operations
        gain = N * self.gains[direction]
        self.spent += gain
        return gain

    def decide(self, direction: str, made: Made, problem: Any, begin: Callable) -> bool:
        """Whether this solve is for native code, in this direction."""
        N = problem.N
        if direction == "search":
            N, self.last = (SEARCHED if self.last is None else self.last.steps), problem.stats
        gain = self.count(direction, made, N)
        there = direction in self.works
        if not there and self.spent >= BEGIN * self.price and self.gains[direction] > 0:
            self.works[direction] = begin()
        before = next(iter(problem.promoted.values()), self.spent >= self.price)        # as its first direction
        return before and direction in self.works and (there or gain >= self.price)


def instead(backend: Any, family: Family, direction: str, made: Made, steps: Callable, problem: Any, parts: dict, params: Any) -> Any:
    """The runner of native code for a solve of backend="auto", where its time has come; else None."""
    if problem.flushed is not None or not problem.N:
        return None
    found = family.promotion = family.promotion or Promotion()
    native = replace(backend, name="native", merge=True)

    def begin() -> Work:
        problem.stats.traces += 1
        return begun(native, direction, steps, problem, parts, params)

    if found.off or (found.replayed and direction == "search"):
        return None
    try:
        if direction not in problem.promoted:
            problem.promoted[direction] = found.decide(direction, made, problem, begin)
        if not problem.promoted[direction]:
            return None
        return runner_of(found, native, direction, problem, parts, params)
    except Exception as error:
        if direction == "search" and isinstance(error, NotTraceable):
            found.replayed = True
            problem.promoted.pop(direction)                  # the way back goes by itself
            return None
        found.off = True
        if isinstance(error, Disagreement) and programs.strict:
            raise
        if not isinstance(error, NoCompiler):
            level = logging.WARNING if isinstance(error, (CompileError, Disagreement)) else logging.INFO
            backend.say(problem, "the solves of %s stay with NumPy, because there is no native code for them: %s", level, error)
        return None


def runner_of(found: Promotion, native: Any, direction: str, problem: Any, parts: dict, params: Any) -> Any:
    """The runner of this thread, whose step has been compared with the tape."""
    made = found.made.get(direction)
    taken = found.works[direction].taken(problem) if made is None else made
    runner = native.runner_of(taken, problem, parts, direction)
    if made is None:
        taken.check_tables(problem)
        agree_elsewhere(runner, direction, problem, parts, params)
        made = found.made[direction] = taken
        native.say(problem, "the solves of %s run natively from now on, as by backend=\"native\"", logging.INFO)
    native.compare(made, runner, direction, problem, parts, params)
    return runner


def end() -> None:
    """At exit: no compiler outlives this process, and what they were building is tidied."""
    stop()
    for thread in threading.enumerate():
        if isinstance(thread, Work):
            thread.join(1.0)


atexit.register(end)

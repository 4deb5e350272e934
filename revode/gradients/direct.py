"""Discretise, then differentiate: every state is kept, or the tape through all steps. Memory O(N). The oracle for the other modes.

    ahead, keeping parts_0 .. parts_{N-1};      pull back step N - 1 at parts_{N-1}, .., step 0 at parts_0
"""
from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import Tensor
from ..engines import Eager, engine_of
from ..march import Block, march, onward
from ..memory import check_room
from ..methods.increment import Increment
from ..methods.shears import Parts
from ..stepping import Problem, Stats
from .cotangents import at_the_end, at_the_start


@dataclass(frozen=True)
class Direct:
    """Full backpropagation. Exact for the discrete solve, any method, any order of derivative; memory grows with N.

    Where programs of the steps run, the states are kept, and each step is pulled back at its own: N states, and each step is
    evaluated once more. On the tape everything that a step computes is kept, and nothing is evaluated twice; so it is for
    derivatives of derivatives, and, with backend="auto", on adaptive grids.

    Raises MemoryError (on the tape after four steps of a fixed grid) where all of that will not fit into what is free.
    """

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        parts = self.parts(problem, initial, params)
        if parts is not None:
            return self.stored(problem, initial, params, parts)
        result, pull = vjp(lambda initial, params: march(problem, initial, params), initial, params)
        problem.stats.peak_states = problem.N + 1

        def counted(cotangent: Any) -> tuple:
            problem.stats.nvjp = problem.stats.nfe
            return pull(cotangent)

        return result, counted

    def parts(self, problem: Problem, initial: Any, params: Any) -> Parts | None:
        """The parts at the start, where there is a program that pulls steps back; None where the tape has to."""
        if problem.backend is None or problem.adaptive is not None or any(
                type(x) is Tensor for x in tree.flatten((initial, params))[0]):
            return None
        system, stats = copy(problem.system), Stats()
        system.stats = stats
        parts = problem.start(Increment(system, params), initial)
        found = not isinstance(engine_of(problem, "pull", parts, params), Eager)
        if found:
            problem.stats.nfe += stats.nfe
        else:
            problem.stats.checks += stats.nfe
        return parts if found else None

    def stored(self, problem: Problem, initial: Any, params: Any, parts: Parts) -> tuple[tuple, Callable]:
        """Ahead, keeping all, and pull."""
        check_room(problem.N, sum(x.nbytes for x in parts.values()))
        kept = Block(problem.N)
        result = onward(problem, params, parts, engine_of(problem, "forward", parts, params), kept)
        problem.stats.peak_states = problem.N + 1

        def pull(cotangent: Any) -> tuple:
            a_ys, a = at_the_end(problem, cotangent)
            engine = engine_of(problem, "pull", parts, params)
            engine.load(problem, params, parts, a)
            engine.pull(problem.N, 0, a_ys, kept.states)
            return at_the_start(problem, initial, params, engine)

        return result, pull

"""Discretise, then differentiate: every state is kept, or the tape through all steps. Memory O(N). The oracle for the other modes.

    ahead, keeping parts_0 .. parts_{N-1};      pull back step N - 1 at parts_{N-1}, .., step 0 at parts_0
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import Tensor, to_host
from ..engines import Eager, engine_of
from ..march import Block, Kept, begin, march, onward
from ..memory import check_room
from ..methods.increment import Evaluator
from ..stepping import Problem
from .cotangents import at_the_end, at_the_start


@dataclass(frozen=True)
class Direct:
    """Full backpropagation: the tape through all steps. Exact for the discrete solve, any method, any order of derivative.

    On the tape everything that a step computes is kept, and nothing is evaluated twice; so it is with backend="auto", whose bits do
    not depend on who runs the steps, and for derivatives of derivatives. Where programs of the steps were asked for (backend=
    "replay", "native"), the states are kept, and each step is pulled back at its own: N states, and each step is evaluated once more.

    Raises MemoryError (on the tape after four steps of a fixed grid) where all of that will not fit into what is free.

    Cost: one evaluation on a tape and one pullback for each evaluation of the solve; N + 1 states, and all that lies between.
    Source: Linnainmaa 1970.

    Example
    -------
    >>> import numpy as np
    >>> from revode import grad, solve
    >>> end = lambda y0: solve(lambda t, y, p: -y, y0, np.linspace(0.0, 1.0, 51), gradient=Direct()).y1[0] ** 2
    >>> float(round(grad(lambda y0: grad(end)(y0)[0])(np.ones(1))[0], 6))
    0.270671
    """

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        if self.by_programs(problem, initial, params):
            return stored(problem, initial, params)
        def whole(initial: Any, params: Any, *ts: Any) -> Any:
            problem.times = [ts[0][n] for n in range(problem.N + 1)] if ts else None
            return march(problem, initial, params)

        result, pull = vjp(whole, initial, params, *([problem.grid] if problem.timed else []))
        problem.times = None
        problem.stats.peak_states = problem.N + 1

        def counted(cotangent: Any) -> tuple:
            problem.stats.nvjp = problem.stats.nfe
            a_initial, a_params, *a_ts = pull(cotangent)
            return (a_initial, a_params, *(a if type(a) is Tensor else to_host(a) for a in a_ts))        # times are on the host

        return result, counted

    def by_programs(self, problem: Problem, initial: Any, params: Any) -> bool:
        """Whether there is a program that pulls steps back; while the grid is still to be found one is hoped for."""
        if problem.backend is None or problem.backend.auto or any(type(x) is Tensor for x in tree.flatten((initial, params))[0]):
            return False
        if problem.adaptive is not None:
            return True
        problem.ways, stats, nfe = ("forward", "pull"), problem.stats, problem.stats.nfe
        parts = problem.start(Evaluator(problem.system, params), initial)
        stats.nfe, stats.checks = nfe, stats.checks + stats.nfe - nfe
        return not isinstance(engine_of(problem, "pull", parts, params), Eager)


def stored(problem: Problem, initial: Any, params: Any, on_tape: Callable = Eager) -> tuple[tuple, Callable]:
    """Ahead, keeping all, and pull; on_tape() makes the engine that pulls where there is no program for it."""
    parts, engine = begin(problem, initial, params)
    kept = Kept(range(sys.maxsize)) if problem.adaptive is not None else Block(problem.N)
    check_room(problem.N, sum(x.nbytes for x in parts.values()))
    result = onward(problem, params, parts, engine, kept)
    problem.stats.peak_states = problem.N + 1
    states = kept.states if isinstance(kept, Block) else {
        name: [kept[n][name] for n in range(problem.N)] for name in parts}

    def pull(cotangent: Any) -> tuple:
        a_ys, a = at_the_end(problem, cotangent)
        engine = engine_of(problem, "pull", parts, params)
        engine = on_tape() if isinstance(engine, Eager) else engine
        engine.load(problem, params, parts, a)
        engine.pull(problem.N, 0, a_ys, states)
        return at_the_start(problem, initial, params, engine)

    return result, pull

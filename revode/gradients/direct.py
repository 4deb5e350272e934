"""Discretise, then differentiate: the tape through all steps. Memory O(N). The oracle for the other modes."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..engine.derivatives import vjp_of_own as vjp
from ..memory import within_memory
from ..stepping import Problem, march


@dataclass(frozen=True)
class Direct:
    """Full backpropagation. Exact for the discrete solve, any method, any order of derivative; memory grows with N.

    Raises MemoryError, after four steps of a fixed grid, where all of them will not fit into what is free.
    """

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        result, pull = vjp(lambda initial, params: march(problem, initial, params, within_memory(problem), every=2), initial, params)
        problem.stats.peak_states = problem.N + 1

        def counted(cotangent: Any) -> tuple:
            problem.stats.nvjp = problem.stats.nfe
            return pull(cotangent)

        return result, counted

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
    """Full backpropagation: the tape through all steps. Exact for the discrete solve, any method, any order of derivative.

    Raises MemoryError, after four steps of a fixed grid, where all of them will not fit into what is free.

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
        result, pull = vjp(lambda initial, params: march(problem, initial, params, within_memory(problem), every=2), initial, params)
        problem.stats.peak_states = problem.N + 1

        def counted(cotangent: Any) -> tuple:
            problem.stats.nvjp = problem.stats.nfe
            return pull(cotangent)

        return result, counted

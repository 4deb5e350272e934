"""Recursive checkpointing: keep n states, and run forward again from the nearest one to reach the others.

    reverse(l, r, n):   m = split(r - l, n);   advance l -> l + m, keep it;   reverse(l + m, r, n - 1);   reverse(l, l + m, n)

With n checkpoints (the initial state is one of them) and C(n+r-1, n) < N <= C(n+r, n), the number of steps that are
advanced without a tape, the first sweep included, is r N - C(n+r, n+1): the minimum. Every step is taped once besides.
Where the number of steps is not known beforehand (adaptive steps), the states are chosen online instead; the reverse
sweep is the same.
Sources: Griewank & Walther 2000 (revolve), proposition 1; Wang, Moin & Iaccarino 2009 (online).
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Any, NamedTuple

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..methods.increment import Increment, accumulate
from ..stepping import Problem, march
from .reversible import enter, pull_start, spread, zeros


def repetitions(N: int, n: int) -> int:
    """r with C(n+r-1, n) < N <= C(n+r, n): how often a step is advanced at most."""
    r = 0
    while comb(n + r, n) < N:
        r += 1
    return r


def minimal_advances(N: int, n: int) -> int:
    """The least number of untaped steps with which N steps can be reversed from n checkpoints."""
    r = repetitions(N, n)
    return r * N - comb(n + r, n + 1)


def split(N: int, n: int) -> int:
    """How far to advance before the next checkpoint, out of N > 1 steps with n > 1 checkpoints: the optimal m.

    Any m with  C(n+r-2, n) <= m <= C(n+r-1, n)  and  C(n+r-2, n-1) <= N - m <= C(n+r-1, n-1)  is optimal.
    """
    r = repetitions(N, n)
    return min(comb(n + r - 1, n), N - comb(n + r - 2, n - 1))


@dataclass(frozen=True)
class Checkpointed:
    """Gradients with n stored states, at the least possible number of recomputed steps.

        advances = r N - C(n+r, n+1),      C(n+r-1, n) < N <= C(n+r, n)

    Exact for the discrete solve, any method. With adaptive steps, whose number nobody knows, the states are chosen online.

    Parameters
    ----------
    n : the number of states held, 1 or more, the initial one included; about sqrt(N) is a good choice.

    Raises ValueError for an n below 1.

    Cost: `advances` steps without a tape, the forward solve included, and each step once on a tape; n + 1 states.
    Source: Griewank & Walther 2000 (revolve), proposition 1; Wang, Moin & Iaccarino 2009 (online).

    Example
    -------
    >>> import numpy as np
    >>> from revode import solve, value_and_grad
    >>> loss = lambda p: solve(lambda t, y, p: -p * y, np.ones(1), np.linspace(0.0, 1.0, 101), p, gradient=Checkpointed(10)).y1[0]
    >>> [round(float(x), 6) for x in value_and_grad(loss)(1.0)]
    [0.367879, -0.367879]
    """
    n: int

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"Checkpointed: n={self.n!r}; the number of states to keep, 1 or more")

    def solve(self, problem: Problem, initial: Any, params: Any, look: Callable | None = None) -> tuple[tuple, Callable]:
        """The first sweep keeps its checkpoints and tapes the last step, so that nothing is done twice.

        look(n, before, after, a_params) sees the cotangents before and after the pullback of each step.
        """
        if problem.adaptive is not None:
            return self.solve_online(problem, initial, params)
        N, stats = problem.N, problem.stats
        planned = schedule(N, self.n)
        kept: dict[int, dict] = {}
        tapes: dict[int, Taped] = {}

        def keep(n: int, parts: dict) -> None:
            if n in planned:
                kept[n] = parts

        def advance(n: int, parts: dict, F: Increment) -> dict:
            if n < N - 1:
                stats.advances += 1
                return problem.advance(n, parts, F)
            after, tapes[n] = record(problem, n, parts, params)
            return after

        result = march(problem, initial, params, visit=keep, advance=advance)
        stats.peak_states = len(kept) + 1

        def pull(cotangent: Any) -> tuple:
            return self.sweep(problem, initial, params, kept, tapes, cotangent, look)      # called again, it starts from y0

        return result, pull

    def solve_online(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        """The same while the number of steps is unknown: each state is offered to the store once the next one is there."""
        store = Online(self.n)
        before: dict = {}

        def offer(n: int, parts: dict) -> None:
            if n:
                store.offer(n - 1, before["parts"])
            before["parts"] = parts

        result = march(problem, initial, params, visit=offer)
        problem.stats.advances += problem.N
        problem.stats.peak_states = len(store.kept) + 1

        def pull(cotangent: Any) -> tuple:
            return self.sweep(problem, initial, params, store.kept, {}, cotangent)

        return result, pull

    def sweep(self, problem: Problem, initial: Any, params: Any, kept: dict, tapes: dict, cotangent: Any,
              look: Callable | None = None) -> tuple:
        """The reverse sweep: the last step that is left is taped from its state, which is reached from the nearest one kept."""
        a_ys, a = cotangent
        at = {n: k for k, n in enumerate(problem.save)}
        sums = zeros(params)
        if problem.N in at:
            a = enter(a, problem.method.outputs, a_ys, at[problem.N])
        for n in range(problem.N - 1, -1, -1):             # the cotangents at ts[n] from those at ts[n + 1]
            if n not in tapes:
                self.reach(problem, kept, n, params)
                tapes[n] = record(problem, n, kept[n], params)[1]
            taped = tapes.pop(n)
            nvjp = problem.stats.nvjp
            before, (a, a_params) = a, taped.pull(a)
            if look is not None:
                look(n, before, a, a_params)
            problem.stats.nvjp = nvjp + taped.nfe
            add(sums, a_params)
            kept.pop(n, None) if n else None
            if n in at:
                a = enter(a, problem.method.outputs, a_ys, at[n])
        a_initial, a_params = pull_start(problem, initial, params, a)
        accumulate(sums, a_params)
        return a_initial, spread(params, sums)

    def reach(self, problem: Problem, kept: dict, n: int, params: Any) -> None:
        """Run forward to the state n from the last one kept before it, keeping others on the way where that pays."""
        F = Increment(problem.system, params)
        left = max(i for i in kept if i <= n)
        parts = kept[left]
        while left < n:
            free = self.n - len(kept)                      # places for states right of `left`
            middle = left + split(n + 1 - left, free + 1) if free else n
            for i in range(left, middle):
                parts = problem.advance(i, parts, F)
            problem.stats.advances += middle - left
            left = middle
            kept[left] = parts
            problem.stats.peak_states = max(problem.stats.peak_states, len(kept))      # the current one is among them


def add(sums: list, a_params: Any) -> None:
    """Add the cotangents of the float leaves to their running sums."""
    accumulate(sums, [g for g in tree.flatten(a_params)[0] if g is not None])


class Online:
    """Which states to keep while their number is unknown, so that no step is repeated more often than it must be.

    Every kept state has a level. A state is dispensable if one of a higher level lies behind it. A new state takes a free
    place, or that of a dispensable one, at level 0; where there is neither, it replaces the newest state, one level up.
    Source: Wang, Moin & Iaccarino 2009, algorithm 1 (there for adjoints of unsteady flow).
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.kept: dict[int, dict] = {}
        self.levels: dict[int, float] = {}

    def offer(self, i: int, parts: dict) -> None:
        if i == 0:
            self.kept[i], self.levels[i] = parts, float("inf")
            return
        if self.n == 1:
            return
        level = 0.0
        if len(self.kept) == self.n:
            out = self.dispensable()
            if out is None:
                out = max(self.kept)
                level = self.levels[out] + 1
            del self.kept[out], self.levels[out]
        self.kept[i], self.levels[i] = parts, level

    def dispensable(self) -> int | None:
        """The newest kept state with one of a higher level behind it."""
        highest = -1.0
        for i in sorted(self.kept, reverse=True):
            if self.levels[i] < highest:
                return i
            highest = max(highest, self.levels[i])
        return None


def schedule(N: int, n: int) -> set[int]:
    """Where the first sweep over N steps keeps its checkpoints: 0 and the successive splits."""
    places, left = {0}, 0
    while N - left > 1 and n > 1:
        left += split(N - left, n)
        places.add(left)
        n -= 1
    return places


class Taped(NamedTuple):
    """The pullback of one step, and the number of field evaluations on its tape."""
    pull: Callable
    nfe: int


def record(problem: Problem, n: int, parts: dict, params: Any) -> tuple[dict, Taped]:
    """Step n on a tape: the parts after it, and its pullback."""
    before = problem.stats.nfe
    after, pull = vjp(lambda parts, p: problem.advance(n, parts, Increment(problem.system, p)), parts, params)
    return after, Taped(pull, problem.stats.nfe - before)

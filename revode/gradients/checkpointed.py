"""Recursive checkpointing: keep n states, and run forward again from the nearest one to reach the others.

    reverse(l, r, n):   m = split(r - l, n);   advance l -> l + m, keep it;   reverse(l + m, r, n - 1);   reverse(l, l + m, n)

With n checkpoints (the initial state is one of them) and C(n+r-1, n) < N <= C(n+r, n), the number of steps that are
advanced without a tape, the first sweep included, is r N - C(n+r, n+1): the minimum. Every step is taped once besides.
Source: Griewank & Walther 2000 (revolve), proposition 1.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Any

from ..engine import tree
from ..engine.derivatives import vjp
from ..methods.increment import Increment
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

    Parameters: n >= 1, the number of states held (the initial one included). Exact for the discrete solve, any method.
    """
    n: int

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"Checkpointed: n={self.n!r}; the number of states to keep, 1 or more")

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        """The first sweep keeps its checkpoints and tapes the last step, so that nothing is done twice."""
        N, stats = problem.N, problem.stats
        planned = schedule(N, self.n)
        kept: dict[int, dict] = {}
        tapes: dict[int, Callable] = {}

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
            return self.sweep(problem, initial, params, dict(kept), dict(tapes), cotangent)

        return result, pull

    def sweep(self, problem: Problem, initial: Any, params: Any, kept: dict, tapes: dict, cotangent: Any) -> tuple:
        a_ys, a_parts = cotangent
        at = {n: k for k, n in enumerate(problem.save)}
        sums = zeros(params)

        def pull_step(n: int, a: dict) -> dict:
            """From the cotangents at ts[n + 1] to those at ts[n]."""
            pull = tapes.pop(n) if n in tapes else record(problem, n, kept[n], params)[1]
            before = problem.stats.nvjp
            a, a_params = pull(a)
            problem.stats.nvjp = before + pull.nfe
            for i, g in enumerate(x for x in tree.flatten(a_params)[0] if x is not None):
                sums[i] += g
            return enter(a, problem.method.outputs, a_ys, at[n]) if n in at else a

        def reverse(left: int, right: int, a: dict) -> dict:
            """Pull back the steps left .. right - 1; the state at `left` is kept."""
            while right - left > 1:
                middle = max((i for i in kept if left < i < right), default=None)
                if middle is None:
                    middle = left + (split(right - left, free(left)) if free(left) > 1 else right - left - 1)
                    self.advance(problem, kept, left, middle, params)
                a = reverse(middle, right, a)
                del kept[middle]
                right = middle
            return pull_step(left, a)

        def free(left: int) -> int:
            """Checkpoints to place right of `left`, that one included."""
            return self.n - sum(i < left for i in kept)

        a = a_parts
        if problem.N in at:
            a = enter(a, problem.method.outputs, a_ys, at[problem.N])
        a = reverse(0, problem.N, a)
        a_initial, a_params = pull_start(problem, initial, params, a)
        for i, g in enumerate(x for x in tree.flatten(a_params)[0] if x is not None):
            sums[i] += g
        return a_initial, spread(params, sums)

    def advance(self, problem: Problem, kept: dict, left: int, right: int, params: Any) -> None:
        F = Increment(problem.system, params)
        parts = kept[left]
        for n in range(left, right):
            parts = problem.advance(n, parts, F)
            problem.stats.advances += 1
        kept[right] = parts
        problem.stats.peak_states = max(problem.stats.peak_states, len(kept) + 1)


def schedule(N: int, n: int) -> set[int]:
    """Where the first sweep over N steps keeps its checkpoints: 0 and the successive splits."""
    places, left = {0}, 0
    while N - left > 1 and n > 1:
        left += split(N - left, n)
        places.add(left)
        n -= 1
    return places


class Taped:
    """The pullback of one step, and the number of field evaluations on its tape."""
    __slots__ = ("nfe", "pull")

    def __init__(self, pull: Callable, nfe: int) -> None:
        self.pull, self.nfe = pull, nfe

    def __call__(self, a: dict) -> tuple:
        return self.pull(a)


def record(problem: Problem, n: int, parts: dict, params: Any) -> tuple[dict, Taped]:
    """Step n on a tape: the parts after it, and its pullback."""
    before = problem.stats.nfe
    after, pull = vjp(lambda parts, p: problem.advance(n, parts, Increment(problem.system, p)), parts, params)
    return after, Taped(pull, problem.stats.nfe - before)

"""Recursive checkpointing: keep n states, and run forward again from the nearest one to reach the others.

    reverse(l, r, n):   m = split(r - l, n);   advance l -> l + m, keep it;   reverse(l + m, r, n - 1);   reverse(l, l + m, n)

With n checkpoints (the initial state is one of them) and C(n+r-1, n) < N <= C(n+r, n), the number of steps that are
advanced without a tape, the first sweep included, is r N - C(n+r, n+1): the minimum. Every step is taped once besides.
Where the number of steps is not known beforehand (adaptive steps), the states are chosen online instead; the reverse
sweep is the same.
Sources: Griewank & Walther 2000 (revolve), proposition 1; Wang, Moin & Iaccarino 2009 (online).
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Any

import numpy as np

from ..engines import Eager, engine_of
from ..engines.protocol import Rows
from ..march import Kept, begin, onward
from ..methods.shears import Parts
from ..stepping import Problem
from .cotangents import at_the_end, at_the_start

TOGETHER = 1 << 20          # bytes of states that are copied so that they go back in one call


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
        """The first sweep keeps its checkpoints; the tape also the pullback of the last step, so that nothing is done twice.

        look(n, before, after, a_params) sees the cotangents before and after the pullback of each step, on the tape.
        """
        problem.ways = ("forward", "pull")
        parts, engine = begin(problem, initial, params)
        N, tapes = problem.N, None
        if problem.adaptive is not None:
            kept: Kept = Online(self.n)
        elif isinstance(engine, Eager) and (look or isinstance(engine_of(problem, "pull", parts, params), Eager)):
            kept = Kept(schedule(N, self.n))
            engine.keeps, tapes = range(N - 1, N), engine.tapes
        else:
            kept = Kept({*schedule(N, self.n), N - 1})
        ys, final = onward(problem, params, parts, engine, kept)
        kept = Kept.of(kept or {0: final})                     # of no steps the first state is the last
        problem.stats.advances += problem.N - (tapes is not None)
        problem.stats.peak_states = min(len(kept), self.n) + 1

        def pull(cotangent: Any) -> tuple:
            return self.sweep(problem, initial, params, kept, cotangent, tapes, look)        # called again, it starts from y0

        return (ys, final), pull

    def sweep(self, problem: Problem, initial: Any, params: Any, kept: Kept, cotangent: Any,
              tapes: dict | None = None, look: Callable | None = None) -> tuple:
        """From the end to the start, stretch by stretch: each reaches from the last state that is kept to where the sweep is."""
        a_ys, a = at_the_end(problem, cotangent)
        ahead = engine_of(problem, "forward", kept[0], params)
        back = Eager(look, tapes) if tapes is not None else engine_of(problem, "pull", kept[0], params)
        ahead.load(problem, params, kept[0])
        back.load(problem, params, kept[0], a)
        right = problem.N
        if tapes and right - 1 in tapes:                       # of no steps there is none
            right -= 1
            back.pull(right + 1, right, a_ys, {})
            forget(kept, right)
        if not (hasattr(ahead, "walk") and ahead.walk(back, kept, self.n, a_ys)):
            self.walk(problem, ahead, back, kept, right, a_ys)
        return at_the_start(problem, initial, params, back)

    def walk(self, problem: Problem, ahead: Any, back: Any, kept: Kept, right: int, a_ys: tuple) -> None:
        """Make the states of each stretch, and pull it back."""
        stats, together = problem.stats, TOGETHER // max(1, sum(x.nbytes for x in kept[0].values()))
        for left, row, looks, last, first in moves(right, self.n, kept, together):
            seen: Any = {name: [] for name in kept[0]}
            if looks:
                ahead.restart(kept[left])
                seen = ahead.ahead(left, looks[-1], looks=looks)
                stats.advances += looks[-1] - left
                stats.peak_states = max(stats.peak_states, row + 1 + len(looks))
            if first is None:
                kept.put([*looks], seen)
            else:
                if looks and ahead.looks_often:
                    ahead.restart(kept[left])                  # it would hold on to its last state
                if first <= left:
                    before = [kept[n] for n in range(first, left + 1)]
                    seen = {name: joined([parts[name] for parts in before], x) for name, x in seen.items()}
                    del before
                back.pull(last, first, a_ys, seen)
                forget(kept, first)
            del seen                                           # before others are made


def moves(right: int, n: int, kept: Collection[int], together: int) -> Iterator[tuple[int, int, Sequence[int], int, int | None]]:
    """The stretches from `right` to the start: each reaches from the last state that is kept to where the sweep is.

    Yields (left, row, looks, right, first): ahead from the state at left, in place `row` of those that are kept, to the last look;
    then back from right to first, or, where first is None, what was seen is kept.
    Where there are places for all of its states, they are made in one go; else others are kept on the way, where that pays.
    together: so many states may be copied, so that a stretch and the states kept right before it go back in one call.
    """
    at = sorted(kept)
    while right:
        left, row, free, length = at[-1], len(at) - 1, n - len(at), right - at[-1]
        if 0 < free < length - 2:                              # the last one is the state at hand, and needs no place
            places = [left + m for m in sorted(schedule(length, free + 1)) if m]
            yield left, row, places, right, None
            at += places
            continue
        looks, first = range(left + 1, right), left
        if free < length - 2:
            looks, first = looks[-1:], right - 1
        elif 1 < length > together:
            first = left + 1                                   # to join them would hold them twice
        else:
            while row and at[row - 1] == first - 1 and right - first < together:         # neighbours go in one go, too
                row, first = row - 1, first - 1
        yield left, len(at) - 1, looks, right, first
        right = first
        while len(at) > 1 and at[-1] >= right:
            at.pop()


def forget(kept: Kept, first: int) -> None:
    """Let go of the states from `first` on, but for that at the start, from which the sweep may be made again."""
    for n in [n for n in kept if n and n >= first]:
        del kept[n]


def joined(before: list, x: Any) -> Any:
    """Rows, and more of them behind."""
    return before + x if isinstance(x, list) else np.concatenate([*(row[None] for row in before), x])


class Online(Kept):
    """Which states to keep while their number is unknown, so that no step is repeated more often than it must be.

    Every kept state has a level. A state is dispensable if one of a higher level lies behind it. A new state takes a free
    place, or that of a dispensable one, at level 0; where there is neither, it replaces the newest state, one level up.
    Source: Wang, Moin & Iaccarino 2009, algorithm 1 (there for adjoints of unsteady flow).
    """

    def __init__(self, n: int) -> None:
        super().__init__(range(sys.maxsize))
        self.n = n
        self.levels: dict[int, float] = {}
        self.newest: tuple | None = None

    def put(self, ns: Sequence[int], states: Rows) -> None:
        """A state is offered once the next one is there: the last one of all needs no place, unless it is the first."""
        for k, n in enumerate(ns):
            if self.newest is not None:
                self.offer(*self.newest)
            self.newest = n, {name: x[k] if isinstance(x, list) else x[k].copy() for name, x in states.items()}
            if n == 0:
                self.offer(*self.newest)

    def offer(self, i: int, parts: Parts) -> None:
        if i == 0:
            self[i], self.levels[i] = parts, float("inf")
            return
        if self.n == 1:
            return
        level = 0.0
        if len(self) == self.n:
            out = self.dispensable()
            if out is None:
                out = max(self)
                level = self.levels[out] + 1
            del self[out], self.levels[out]
        self[i], self.levels[i] = parts, level

    def dispensable(self) -> int | None:
        """The newest kept state with one of a higher level behind it."""
        highest = -1.0
        for i in sorted(self, reverse=True):
            if self.levels[i] < highest:
                return i
            highest = max(highest, self.levels[i])
        return None


@lru_cache(64)
def schedule(N: int, n: int) -> frozenset[int]:
    """Where the first sweep over N steps keeps its checkpoints: 0 and the successive splits."""
    places, left = {0}, 0
    while N - left > 1 and n > 1:
        left += split(N - left, n)
        places.add(left)
        n -= 1
    return frozenset(places)

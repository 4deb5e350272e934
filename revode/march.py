"""The march along the grid: one loop over `ahead`, whoever takes the steps.

    parts_0 = start(y0);     parts_{n+1} = one step of the method over [ts[n], ts[n+1]]
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from .engine.tensor import Tensor, beside, value_of
from .engines import Engine, engine_of
from .engines.eager import shelve
from .engines.protocol import Rows
from .methods.increment import Evaluator
from .methods.shears import Parts
from .stepping import Problem
from .watch import Ahead, deferred, grouped, within

FEW = 1 << 14                  # bytes
chose: ContextVar[Callable] = ContextVar("chose", default=lambda N: None)     # hears of each march that chose its own N steps


class Kept(dict[int, Parts]):
    """States of a march by grid point; places: those that are to be kept."""

    def __init__(self, places: Collection[int] = ()) -> None:
        self.places = places

    @classmethod
    def of(cls, states: dict[int, Parts]) -> Kept:
        """These states."""
        found = cls(tuple(states))
        found.update(states)
        return found

    def put(self, ns: Sequence[int], states: Rows) -> None:
        """Take in the states at these grid points. (A row of an array keeps all of it, which is for few bytes alone.)"""
        rows = {name: x if isinstance(x, list) else list(x.copy()) if type(x) is np.ndarray and x.nbytes <= FEW else [
            x[k].copy() for k in range(len(ns))] for name, x in states.items()}
        for k, n in enumerate(ns):
            self[n] = {name: x[k] for name, x in rows.items()}


class Block(Kept):
    """All states of a given grid but the last, in one array for each part."""

    def __init__(self, N: int) -> None:
        super().__init__(range(N))
        self.states: dict[str, Any] = {}

    def put(self, ns: Sequence[int], states: Rows) -> None:
        for name, x in stacked_rows(states).items() if ns else ():
            if name not in self.states:
                self.states[name] = np.empty_like(x, shape=(len(self.places), *x.shape[1:]), order="C")
            self.states[name][ns[0]:ns[-1] + 1] = x


def begin(problem: Problem, initial: Any, params: Any) -> tuple[Parts, Engine]:
    """The parts at the start, and who takes them from there."""
    parts = problem.start(Evaluator(problem.system, params), initial)
    return parts, engine_of(problem, "forward", parts, params)


def march(problem: Problem, initial: Any, params: Any, keep: Kept | None = None) -> tuple[tuple, Parts]:
    """Solve forward: the saved outputs, stacked time first (one array for each output), and the final parts."""
    return onward(problem, params, *begin(problem, initial, params), Kept() if keep is None else keep)


def onward(problem: Problem, params: Any, parts: Parts, engine: Engine, keep: Kept) -> tuple[tuple, Parts]:
    """march(), once it has begun."""
    engine.load(problem, params, parts)
    lists = problem.adaptive is not None or any(type(x) is Tensor for x in parts.values())
    ys: tuple = tuple([] if lists else np.empty_like(y, shape=(len(problem.save), *y.shape), order="C") for y in problem.output(parts))
    if problem.saves(0):
        shelve(ys, problem, 0, parts)
    watch, loop = Ahead(problem, params), along_grid if problem.adaptive is None else step_by_step
    with np.errstate(over="ignore", invalid="ignore"), progress(problem) as bar:       # the watch says it better
        loop(problem, engine, watch, parts, ys, keep, bar)
    parts = engine.read("part")
    problem.stats.steps, problem.stats.nfe_forward = problem.N, problem.stats.nfe
    if problem.flushed is not None:
        problem.flushed.account(problem.N, parts, problem.stats)
    if problem.adaptive is not None:
        problem.save = tuple(n for n in range(problem.N + 1) if problem.saves(n))
        chose.get()(problem.N)
    if lists:                                                # save=[]: arrays without rows
        return tuple(np.stack(y) if y else np.stack([x])[:0] for x, y in zip(problem.output(parts), ys, strict=True)), parts
    return ys, parts


def along_grid(problem: Problem, engine: Engine, watch: Ahead, parts: Parts, ys: tuple, keep: Kept, bar: Callable) -> None:
    """From one group of grid points that somebody wants to see to the next."""
    plain = {name: value_of(x) for name, x in parts.items()}
    watch.begin(plain)
    if 0 in keep.places:
        keep.put([0], {name: [x] for name, x in plain.items()})
    first, N, stops = 0, problem.N, watch.stops
    whole = keep.places == range(N) and stops[-1:] == (N,)                      # the whole grid is to be kept
    seen_too = {*keep.places, *(range(0, N, max(1, N // 100)) if problem.progress else ())} - {0} if (
        not whole and (len(keep.places) > 1 or problem.progress)) else set()
    ns: Sequence[int] = range(1, N + 1) if whole else sorted({*stops, *seen_too}) if seen_too else stops
    size = sum(x.nbytes for x in plain.values())
    together = max(engine.shows, size * len(keep.places) // 16, engine.holds * (size * len(ns) <= engine.holds))   # bytes in one call
    most = 1 if engine.looks_often or problem.progress else max(1, together // max(1, size))
    before = Neighbours([], {})
    groups = grouped(ns, most, within(N, watch.width)) if ns else []
    for group in groups:
        seen = engine.ahead(first, group[-1], ys, group)
        bar(group[-1] - first)
        first = group[-1]
        if seen_too or whole:
            keep.put(*chosen(group, seen, keep.places))
            group, seen = chosen(group, seen, stops)
        rows = stacked_rows(seen)
        if len(groups) > 1 or not deferred(watch, group, rows, engine.holds):
            before = watched(watch, before, group, rows)
        del rows
        del seen                                             # before the engine sees more


class Neighbours(NamedTuple):
    """The last states that were seen, which the next ones are judged with."""
    ns: Sequence[int]
    states: Parts


def watched(watch: Ahead, before: Neighbours, ns: Sequence[int], states: Any) -> Neighbours:
    """Show many states, in arrays with an axis of grid points first."""
    ns, states = joined(*before, ns, states)
    watch.see(ns, states)
    if watch.width == 1:
        return before
    return Neighbours(ns[1 - watch.width:], {name: x[1 - watch.width:] for name, x in states.items()})


def joined(before: Sequence[int], rows: Parts, ns: Sequence[int], states: Parts) -> tuple[Sequence[int], Parts]:
    """States, behind those that were seen last if these are their neighbours."""
    if not before or not ns or ns[0] != before[-1] + 1:
        return ns, states
    return [*before, *ns], {name: np.concatenate([rows[name], x]) for name, x in states.items()}


def step_by_step(problem: Problem, engine: Engine, watch: Ahead, parts: Parts, ys: tuple, keep: Kept, bar: Callable) -> None:
    """While nobody knows where the grid will end."""
    n, before = 0, Neighbours([], {})
    plain = {name: value_of(x) for name, x in parts.items()}
    if 0 in keep.places:
        keep.put([0], {name: [x] for name, x in plain.items()})
    if engine.looks_often:
        watch.look(0, plain)
    else:
        watch.begin(plain)
    while not problem.done(n):
        found = engine.extend()
        ns = range(n + 1, problem.N + 1)
        bar(len(ns))
        n = problem.N
        states = {name: [value_of(row) for row in x] if isinstance(x, list) else x for name, x in found.items()}
        if any(at in keep.places for at in ns):
            keep.put(*chosen(ns, states, keep.places))
        if engine.looks_often:
            for k, at in enumerate(ns):
                watch.look(at, {name: x[k] for name, x in states.items()})
        else:
            before = watched(watch, before, list(ns), states)
        for k, at in enumerate(ns):
            if problem.saves(at):
                shelve(ys, problem, at, {name: x[k] if isinstance(x, list) else x[k].copy() for name, x in found.items()})


def chosen(ns: Sequence[int], states: Rows, places: Collection[int]) -> tuple[Sequence[int], Rows]:
    """Those of the states at ns that lie at these places."""
    if type(ns) is range is type(places) and places.step == 1:             # neighbours, up to the last place
        k = slice(max(0, places.stop - ns.start))
        return ns[k], {name: x[k] for name, x in states.items()}
    if type(ns) is range and type(places) is tuple:
        at = [n - ns.start for n in places if n in ns]
    else:
        among = places if type(places) is range else {*places}
        at = [k for k, n in enumerate(ns) if n in among]
    if len(at) == len(ns):
        return ns, states
    return [ns[k] for k in at], {name: [x[k] for k in at] if isinstance(x, list) else x[beside(x)(np.asarray(at, np.intp))]
                                 for name, x in states.items()}


def stacked_rows(states: Rows) -> Parts:
    return {name: (x[0][None] if len(x) == 1 else np.stack(x)) if isinstance(x, list) else x for name, x in states.items() if len(x)}


def progress(problem: Problem) -> AbstractContextManager:
    """A function of the steps taken, which shows, if that was asked for, how far the march is."""
    if not problem.progress:
        return nullcontext(lambda steps: None)
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError("solve: progress=True shows a bar with tqdm, which is not installed; pip install tqdm") from None
    return showing(tqdm(desc="solve", unit="step", leave=False, total=None if problem.adaptive else problem.N))


@contextmanager
def showing(bar: Any) -> Iterator[Callable]:
    with bar:
        yield bar.update

"""Most solves are sound, and some forty vector operations are enough to tell so. What is not told by these is looked at in full.

Everything here is what ahead.py and back.py measure, or larger:

    G                      |gap| / |y|                              s is at least |y|
    W_y                    |yhat_n - y_n| / (eps^1/4 max |y_n|)     what is allowed is at least that
    W_p, E, S_p, S_y, S_d  A, and the sizes of y, are those at the windows alone

What is weighed is linear in what the windows show, (parts and cotangents) x (neighbours), so that one product makes all of it.
"""
from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..methods.companion import injected, parted, weighted
from ..methods.shears import Parts
from .ahead import Ahead
from .alarms import Verdict
from .back import Back, cancelled, flowing, neighbours, of_pairs, roundtrip
from .causes import CAUTION, CLOSE, NEARLY, OF_LEAF, OFF, TOL, Pairs
from .places import ROOM, back_from, groups_between, windows
from .sizes import by_chance, column, precision, size


class Marched(NamedTuple):
    """All that a march has shown, kept until somebody has reason to look: the watch, and the states at ns."""
    watch: Ahead
    ns: list[int]
    states: Parts


def deferred(watch: Ahead, ns: list[int], states: Parts) -> bool:
    """Whether the sweep will see to what a march has shown: where that is all, small and finite."""
    problem, stops = watch.problem, watch.stops
    if not problem.swept or len(ns) < len(stops) - (stops[0] == 0) or sum(x.nbytes for x in states.values()) > ROOM:
        return False
    if not all(type(x) is np.ndarray and math.isfinite(np.vdot(x, x)) for x in states.values()):
        return False
    problem.marched = Marched(watch, ns, states)
    return True


class Quiet:
    """The watch over a reverse sweep: it holds what it is shown, if that is little, and shows it to Back if all is not quiet.

    acts: the estimated error of a gradient from which somebody does something.
    """

    def __init__(self, problem: Any, tol: float | None, compared: set[int], ys: tuple, a_ys: tuple, a_parts: Parts,
                 acts: float = math.inf) -> None:
        self.problem, self.given, self.acts = problem, (problem, tol, compared, ys, a_ys, a_parts), acts
        self.tol = TOL if tol is None else tol
        self.pairs = Pairs(problem)
        self.held: dict[str, tuple] = {}
        self.full: Back | None = None

    def groups(self, last: int, first: int, parts: Parts, room: int = ROOM) -> list[list[int]]:
        """The looks at last - 1 .. first, last first, as many together as there is room for, in bytes."""
        problem, width, exact = self.problem, neighbours(self.pairs), self.problem.method.exactly_reversible
        # where a state is kept nearly reversible methods land on it: there is nothing to look at
        looks = back_from(problem.N, width, problem.resync, not exact, frozenset(self.given[2]))
        return groups_between(looks, first, last, width, 2 * sum(x.nbytes for x in parts.values()), room)

    def show(self, what: str, *shown: Any) -> None:
        """What Back is to see, to compare, or to take for the flow."""
        if self.problem.marched is not None and self.full is None and what not in self.held:
            self.held[what] = shown
        else:
            getattr(self.back, what)(*shown)

    @property
    def back(self) -> Back:
        """The watch that has seen everything."""
        if self.full is None:
            marched, self.problem.marched = self.problem.marched, None
            if marched is not None:
                marched.watch.see(marched.ns, marched.states)
            self.full = Back(*self.given)
            for what, shown in self.held.items():
                getattr(self.full, what)(*shown)
        return self.full

    def verdict(self, largest: Any = None, weighed: Any = None) -> Verdict:
        """The judgement, as Back gives it; where all is quiet its numbers are bounds."""
        found = self.quickly(weighed) if self.full is None and len(self.held) == 3 else None
        if found is None:
            return self.back.verdict(largest, weighed)
        if largest is not None:
            self.problem.stats.defect = size(largest)
        return found

    def quickly(self, weighed: Any) -> Verdict | None:
        """The verdict where there is nothing to say; None where that cannot be told."""
        problem, _, _, (ys, *more), _, a_parts = self.given
        name, pairs = problem.method.outputs[0], self.pairs
        ns, parts, cotangents = self.held["see"]
        at, middle, _ = windows(tuple(ns), neighbours(pairs))
        if more or type(ys) is not np.ndarray or not middle or any(x.any() for part, x in a_parts.items() if part != name):
            return None
        eps, tiny = precision(ys.dtype)
        if pairs.data is None:
            found, a_y = {}, abs(cotangents[name].take(middle, 0))
            ay = abs(parts[name].take(middle, 0)) * a_y
        else:
            found, ay, a_y = self.parasite(pairs, at, parts, cotangents, eps, tiny)
            chance = by_chance(ay.shape[1:-1]) if problem.system.noisy else 1.0
            if not (self.together(pairs) and all(x <= chance * getattr(pairs.limits, key) for key, x in found.items())):
                return None
        A = ay.max(axis=0) + tiny
        trips, found["W_p"] = self.returned(name, A)
        found["W_y"] = max(off for _, off, _ in trips) / (eps ** 0.25 * size(problem.marched.states[name]) + tiny)
        if weighed is not None:
            found["E"] = size(weighed / A)
        estimate = self.estimate(found, trips[-1], a_y, eps)
        if estimate is None:
            return None
        problem.stats.roundtrip = roundtrip(trips, eps, tiny)
        return Verdict(estimate, [], found)

    def parasite(self, pairs: Pairs, at: np.ndarray, parts: Parts, cotangents: Parts, eps: float, tiny: float) -> tuple:
        """The S of the copies, |a y| and |a|, by window."""
        X = np.array([*parts.values(), *(cotangents[part] for part in parts)])             # (parts and cotangents, looks, *y.shape)
        apart = 2 if pairs.smooth else 1
        L = combinations(tuple(parts), items(pairs), self.problem.method.outputs[0], pairs.k, len(at), apart, X.dtype)
        Q = abs(L.dot(X.take(at, 1).reshape(L.shape[1], -1))).reshape(7, at.shape[1], *X.shape[2:])
        Q[:3] *= Q[3:6]                                                                    # |b e|, |a dy|, |a y|, ., ., |a|, |da|
        be, moved, ay, _, _, a, da = Q.sum(axis=-1) if X.ndim > 2 else Q
        return of_pairs(be, moved, ay, da / (apart * a + tiny), eps, tiny, self.problem.N), Q[2], Q[5]

    def together(self, pairs: Pairs) -> bool:
        """Whether the copies kept together on the way ahead."""
        problem, (watch, ns, states) = self.problem, self.problem.marched
        at, middle, _ = windows(tuple(ns), watch.width)
        X = np.array([states[part] for part in problem.method.parts])                      # (parts, looks, *y.shape)
        L = gaps(problem.method.parts, items(pairs)[0], problem.method.outputs[0], pairs.k, len(at), X.dtype)
        gap, y = abs(L.dot(X.take(at, 1).reshape(L.shape[1], -1))).reshape(2, at.shape[1], *X.shape[2:])
        if pairs.data.velocity:
            gap = gap * column([abs(float(problem.hs[ns[i]])) for i in middle], gap)
        allowed = pairs.data.allowed if problem.driver is None else pairs.data.driven
        return bool(middle) and bool((gap <= allowed * y).all())

    def returned(self, name: str, A: Any) -> tuple[list[tuple[int, float, float]], float]:
        """What came back, (grid point, largest difference, largest entry), and W_p."""
        problem, _, compared, (ys,), _, _ = self.given
        (ns, parts, cotangents), (_, came, truth, a) = self.held["see"], self.held["compare"]
        X = np.array([kind[part] for kind in (came, truth, a) for part in truth]).reshape(3, len(truth), *ys.shape[1:])
        off, size_of = abs(X[0] - X[1]), abs(X[1:])
        trip, W_p = (0, float(off.max()), float(size_of[0].max())), float((size_of[1] * off / A).max())
        chosen, trips = [i for i, n in enumerate(ns) if n in compared] if compared else [], []
        if chosen:
            saved = ys[[problem.rows[ns[i]] for i in chosen]]
            missed = abs(parts[name][chosen] - saved)
            W_p = max(W_p, float((abs(cotangents[name][chosen]) * missed / A).max()))
            trips = [(ns[i], float(x.max()), float(abs(y).max())) for i, x, y in zip(chosen, missed, saved, strict=True)]
        return [*trips, trip], W_p

    def estimate(self, found: dict[str, float], trip: tuple[int, float, float], a_y: Any, eps: float) -> dict[str, float] | None:
        """Of the errors of the gradient; None where somebody may have something to do about them."""
        problem, (_, _, truth, a) = self.problem, self.held["compare"]
        data, exact, close = problem.method.companion, problem.method.exactly_reversible, CLOSE[a_y.dtype.itemsize]
        of_params = max(found["W_p"], found.get("E", 0.0))
        over = max(0.0, of_params - eps * problem.N ** 0.5)
        of_leaf = over and over * cancelled(flowing(None, *self.held["flow"]), OFF * close / over)
        at_start = 0.0
        if problem.asked["y0"]:
            a = a[problem.method.outputs[0]] if data is None else weighted(data.a, a)
            smallest, least = float(abs(truth[problem.method.outputs[0]]).min()), float(abs(a).max())
            if not smallest * least > 0:
                return None
            at_start = CAUTION * max(trip[1] / smallest, of_params) * (1.0 + a.size * float(a_y.max()) / least)
        estimate = {"y0": max(found["W_y"], of_params, at_start), "params": max(of_params, of_leaf)}
        most = min(self.acts, math.inf if exact else OFF * close)
        fine = (of_params <= self.tol and found["W_y"] <= (1.0 if exact else NEARLY) * self.tol and of_leaf <= OF_LEAF * self.tol
                and estimate["y0"] <= most and estimate["params"] <= most)
        return estimate if fine else None


def items(pairs: Pairs) -> tuple:
    """The weights of a companion, as what can be looked up."""
    return tuple(tuple(weights.items()) for weights in (pairs.data.D, pairs.data.a, pairs.data.b))


def rows(parts: tuple[str, ...], of: list[tuple[dict, np.ndarray]]) -> np.ndarray:
    """(combinations, parts width): of weights by part, and along a window."""
    return np.array([np.outer([weights.get(part, 0.0) for part in parts], along).ravel() for weights, along in of])


@lru_cache(64)
def gaps(parts: tuple[str, ...], D: tuple, output: str, k: float, width: int, dtype: Any) -> np.ndarray:
    """(2, parts width): the gap without its smooth part, and y, in the middle of a window."""
    at = np.eye(width)
    return rows(parts, [(dict(D), parted(list(at), k)), ({output: 1.0}, at[width // 2])]).astype(dtype)


@lru_cache(64)
def combinations(parts: tuple[str, ...], weights: tuple, output: str, k: float, width: int, apart: int, dtype: Any) -> np.ndarray:
    """(7, 2 parts width): e, y_{n+1} - y_n, y, b, a, a, and the change of a, of the states and cotangents in a window."""
    D, a, b = map(dict, weights)
    at = np.eye(width)
    middle, before, far = at[width // 2], at[width // 2 - 1], at[width // 2 - apart]
    found = np.zeros((7, 2 * len(parts) * width), dtype)
    found[:3, :len(parts) * width] = rows(parts, [(D, injected(list(at), k)), ({output: 1.0}, middle - before), ({output: 1.0}, middle)])
    found[3:, len(parts) * width:] = rows(parts, [(b, middle), (a, middle), (a, middle), (a, middle - far)])
    return found

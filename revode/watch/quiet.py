"""Most solves are sound, and some forty vector operations are enough to tell so. What is not told by these is looked at in full.

Everything here is what ahead.py and back.py measure, or larger:

    G                      |gap| / s                                s without what is small beside the largest entry
    W_y                    |yhat_n - y_n| / (eps^1/4 max |y_n|)     what is allowed is at least that
    W_0                    |yhat_0 - y_0| / |y_0|                   s is at least |y_0|
    C_0                    1 + max |a_n| / rms a_0                  s' is at most |a_0| or max |a_n|, in each entry of the leaf
    W_p, E, S_p, S_y, S_d  A, and the sizes of y, are those at the windows alone

What is weighed is linear in what the windows show, (parts and cotangents) x (neighbours), so that one product makes all of it.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..methods.shears import Parts
from .ahead import Ahead
from .alarms import Verdict
from .back import Back, cancelled, flowing, leaves_of, mean_square, neighbours, of_pairs, roundtrip
from .causes import CAUTION, CLOSE, NEARLY, OF_LEAF, OFF, TOL, Pairs
from .gaps import injected, parted
from .places import ROOM, back_from, groups_back, windows, within
from .sizes import by_chance, precision, size

NOWHERE = (math.inf, math.inf, math.inf)         # copies that are none do not part


class Marched(NamedTuple):
    """All that a march has shown, kept until somebody has reason to look: the watch, and the states at ns."""
    watch: Ahead
    ns: Sequence[int]
    states: Parts


class Shown(NamedTuple):
    """What is measured of a march and its sweep."""
    X: np.ndarray                    # (2 parts, looks, *y.shape) states and cotangents on the way back
    at: np.ndarray                   # (width, windows) places in it
    L: np.ndarray                    # (7, 2 parts width) what is made of a window
    ahead: np.ndarray                # (parts, looks, *y.shape) states on the way there, and the same of these
    ahead_at: np.ndarray
    ahead_L: np.ndarray              # (2, parts width)
    h: np.ndarray                    # (windows,) what a gap is multiplied with: 0 where it does not count, a step where it is a
    rise: np.ndarray                 # velocity; and by how much what has been seen before counts for less there
    Z: np.ndarray                    # (3 parts, 1, *y.shape) what came back at the start, what had been there, and the cotangents
    weighed: np.ndarray | None
    flowed: tuple | None
    output: int                      # which of the parts is y
    allowed: float
    apart: int
    N: int
    eps: float
    tiny: float
    widths: tuple[int, ...]          # of the leaves of y, where it is a tree


class Measured(NamedTuple):
    """The numbers of Back, but that sizes are those at the windows alone."""
    S: tuple                         # S_p, S_y, S_d
    together: bool                   # whether the copies kept together on the way there
    W_p: float
    off: float                       # what came back: the largest difference, the largest entry
    size: float
    ahead: float                     # the largest |y| on the way there, and |a| on the way back
    a_y: float
    least: float                     # at the start: the root mean square of a in the leaf of y0 that has the smallest
    W_0: float
    E: float
    C: float
    A: np.ndarray


class Bounds(NamedTuple):
    """What tells whether all was quiet, of the whole: the numbers of Ahead and Back, or larger ones."""
    S: tuple                         # S_p, S_y, S_d
    together: bool                   # whether the copies kept together on the way there
    trips: list                      # (grid point, largest difference, largest entry) of what was compared
    W_p: float
    W_y: float
    W_0: float
    C_0: float
    E: float | None                  # None of methods that are exactly reversible
    C: float


def deferred(watch: Ahead, ns: Sequence[int], states: Parts, room: int) -> bool:
    """Whether the sweep will see to what a march has shown: where that is all, of no more bytes than this, and finite."""
    problem, stops = watch.problem, watch.stops
    if not problem.swept or len(ns) < len(stops) or sum(x.nbytes for x in states.values()) > room:
        return False
    if not all(type(x) is np.ndarray and math.isfinite(np.vdot(x, x)) for x in states.values()):
        return False
    problem.marched = Marched(watch, ns, states)
    return True


class Quiet:
    """The watch over a reverse sweep: it holds what it is shown, if that is little, and shows it to Back if all is not quiet.

    acts: the estimated error of a gradient from which somebody does something; measure: who measures, where not NumPy.
    """

    def __init__(self, problem: Any, tol: float | None, compared: set[int], ys: tuple, a_ys: tuple, a_parts: Parts,
                 acts: float = math.inf, measure: Callable[[Shown], Measured] | None = None) -> None:
        self.measure = measure or measured
        self.problem, self.given, self.acts = problem, (problem, tol, compared, ys, a_ys, a_parts), acts
        self.tol = TOL if tol is None else tol
        self.pairs = Pairs(problem)
        self.held: dict[str, tuple] = {}
        self.full: Back | None = None

    def groups(self, last: int, first: int, parts: Parts, room: int = ROOM, holds: int = 0) -> list[list[int]]:
        """The looks at last - 1 .. first, last first, as many together as there is room for, in bytes; all, if these are few bytes."""
        problem, width, exact = self.problem, neighbours(self.pairs), self.problem.method.exactly_reversible
        # where a state is kept nearly reversible methods land on it: there is nothing to look at
        looks = back_from(problem.N, width, problem.resync, not exact, frozenset(self.given[2]))
        size = 2 * sum(x.nbytes for x in parts.values())
        most = len(looks) if size * len(looks) <= holds else max(1, room // max(1, size))
        return groups_back(looks, first, last, most, within(problem.N - 1, width, problem.resync))

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
        found = self.quickly(largest, weighed) if self.full is None and len(self.held) == 3 else None
        self.problem.kin["quiet"] = found is not None
        if found is None:
            return self.back.verdict(largest, weighed)
        self.problem.marched = None                  # nobody has reason to look at it any more, and it holds the problem
        return found

    def quickly(self, largest: Any, weighed: Any) -> Verdict | None:
        """The verdict where there is nothing to say; None where that cannot be told."""
        problem, ys, a_parts, outputs = self.problem, self.given[3], self.given[5], self.problem.method.outputs
        if len(ys) > 1 or type(ys[0]) is not np.ndarray or any(map(
                np.count_nonzero, [x for part, x in a_parts.items() if part not in outputs])):
            return None
        if not self.held["see"][1]:                  # of so few steps none was looked at
            return None
        shown = self.shown(weighed)
        if not shown.at.size or not shown.ahead_at.size:
            return None
        found = self.measure(shown)
        ns, parts, cotangents = self.held["see"]
        others = saved(problem, self.given[2], ys[0], ns, parts, cotangents, found)
        return told(problem, self.tol, self.acts, found, others, parts[outputs[0]][0], largest, weighed)

    def shown(self, weighed: Any) -> Shown:
        """What there is to measure."""
        problem, names = self.problem, self.problem.method.parts
        watch, ahead_ns, states = problem.marched
        (ns, parts, cotangents), (_, came, truth, a) = self.held["see"], self.held["compare"]
        looks = problem.kin.get("looks", (None, None))
        if looks[0] is not ns or looks[1] is not ahead_ns:             # the same lists again, of solves of one kind
            looks = problem.kin["looks"] = ns, ahead_ns, self.looks(ns, ahead_ns, watch)
        X, ahead, Z = (joined(of, names) for of in ((parts, cotangents), (states,), (came, truth, a)))
        return looks[2]._replace(X=X, ahead=ahead, Z=Z, weighed=weighed, flowed=self.held["flow"][0])

    def looks(self, ns: Sequence[int], ahead_ns: Sequence[int], watch: Ahead) -> Shown:
        """What there is to measure, but for the states, cotangents and sums."""
        problem, method, data = self.problem, self.problem.method, self.pairs.data
        width, smooth = neighbours(self.pairs), self.pairs.smooth
        at, ahead_at = windows(tuple(ns), width)[0], windows(tuple(ahead_ns), watch.width)
        kind = method.parts, items(data, method.outputs[0]), method.outputs[0], 0.0 if data is None else self.pairs.k
        counts, rise, _ = watch.rising(ahead_at[2]) if ahead_at[2] else (np.empty(0), np.empty(0), 0.0)
        moving = data is not None and data.velocity
        h = counts * abs(np.asarray([problem.hs[ahead_ns[i]] if moving else 1.0 for i in ahead_at[1]], float))
        allowed = 0.0 if data is None else data.allowed if problem.driver is None else data.driven
        eps, tiny = precision(self.given[3][0].dtype)
        L, ahead_L, none = combinations(*kind, width, 2 if smooth else 1), gaps(*kind, watch.width), np.empty(0)
        return Shown(none, at, L, none, ahead_at[0], ahead_L, h, rise, none, None, None, method.parts.index(method.outputs[0]),
                     allowed, 2 if smooth else 1, problem.N, eps, tiny, problem.widths)


def saved(problem: Any, compared: set[int], ys: Any, ns: Sequence[int], parts: Parts, cotangents: Parts, found: Measured) -> tuple:
    """Trips to saved states, of which ys has a row for each, and W_p of these."""
    name, chosen = problem.method.outputs[0], [i for i, n in enumerate(ns) if n in compared] if compared else []
    if not chosen:
        return [], 0.0
    there = ys[[problem.rows[ns[i]] for i in chosen]]
    missed = abs(parts[name][chosen] - there)
    trips = [(ns[i], float(x.max()), float(abs(y).max())) for i, x, y in zip(chosen, missed, there, strict=True)]
    return trips, float((abs(cotangents[name][chosen]) * missed / found.A.reshape(missed.shape[1:])).max())


def told(problem: Any, tol: float | None, acts: float, found: Measured, others: tuple[list, float], y: np.ndarray,
         largest: Any = None, weighed: Any = None) -> Verdict | None:
    """The verdict from what was measured of a sweep, and on the way to other states; None where that cannot be told. y: a state."""
    trips, W_p = others
    C_0 = 1.0 + found.a_y / found.least if found.least > 0 else math.inf
    trips, (eps, tiny) = [*trips, (0, found.off, found.size)], precision(y.dtype)
    W_y = max([off for _, off, _ in trips]) / (eps ** 0.25 * found.ahead + tiny)
    E = None if weighed is None else found.E
    bounds = Bounds(found.S, found.together, trips, max(found.W_p, W_p), W_y, found.W_0, C_0, E, found.C)
    if not problem.method.exactly_reversible:                # past it the full watch looks at the steps (of small states: Ahead.flows)
        acts = min(acts, OFF * CLOSE[y.dtype.itemsize])
    verdict = sound(problem, TOL if tol is None else tol, acts, bounds, y.dtype, y.shape[:-1])
    if verdict is not None and largest is not None:
        problem.stats.defect = size(largest)
    return verdict


def sound(problem: Any, tol: float, acts: float, found: Bounds, dtype: Any, members: tuple[int, ...]) -> Verdict | None:
    """The verdict where there is nothing to say, and nobody has something to do about the estimates; None where that cannot be told.

    members : how many trajectories there are.
    """
    data, eps, tiny = problem.method.companion, *precision(dtype)
    chance = by_chance(members) if problem.system.noisy else 1.0
    limits = problem.kin.get("limits") or problem.kin.setdefault("limits", NOWHERE if data is None else Pairs(problem).limits)
    if not (found.together and all([x <= chance * limit for x, limit in zip(found.S, limits, strict=False)])):
        return None
    of_params = max(found.W_p, found.E or 0.0)
    over = max(0.0, of_params - eps * problem.N ** 0.5)
    of_leaf = over and over * found.C
    at_start = CAUTION * max(found.W_0, of_params) * found.C_0 if problem.asked["y0"] else 0.0
    estimate = {"y0": max(found.W_y, of_params, at_start), "params": max(of_params, of_leaf)}
    allowed = tol if problem.method.exactly_reversible else NEARLY * tol
    if not (of_params <= tol and found.W_y <= allowed and of_leaf <= OF_LEAF * tol and at_start < math.inf
            and estimate["y0"] <= acts and estimate["params"] <= acts):
        return None
    problem.stats.roundtrip = roundtrip(found.trips, eps, tiny)
    S = {} if data is None else dict(zip(("S_p", "S_y", "S_d"), found.S, strict=True))
    return Verdict(estimate, [], {**S, "W_y": found.W_y, "W_p": found.W_p, **({} if found.E is None else {"E": found.E})})


def joined(of: Sequence[Parts], names: tuple[str, ...]) -> np.ndarray:
    """(parts, looks, *y.shape) all parts of these states, in one array."""
    rows = [parts[name] for parts in of for name in names]
    return np.concatenate(rows).reshape(len(rows), *rows[0].shape)


def measured(s: Shown) -> Measured:
    """By NumPy. (compiled/quiet.hpp does the same in one pass.)"""
    L = s.L.astype(s.X.dtype, copy=False)
    Q = abs(L.dot(s.X.take(s.at, 1).reshape(L.shape[1], -1))).reshape(7, s.at.shape[1], *s.X.shape[2:])
    Q[:3] *= Q[3:6]                                                                        # |b e|, |a dy|, |a y|, ., ., |a|, |da|
    be, moved, ay, _, _, a, da = Q.sum(axis=-1) if s.X.ndim > 2 else Q
    S = of_pairs(be, moved, ay, da / (s.apart * a + s.tiny), s.eps, s.tiny, s.N)
    A = Q[2].max(axis=0) + s.tiny
    gap, y = abs(s.ahead_L.dot(s.ahead.take(s.ahead_at, 1).reshape(s.ahead_L.shape[1], -1))).reshape(2, s.ahead_at.shape[1], -1)
    Z = s.Z.reshape(3, len(s.ahead), *A.shape)
    off, truth, a = abs(Z[0] - Z[1]), abs(Z[1]), abs(Z[2])
    there, weights = truth[s.output], s.L[5].reshape(2, len(s.ahead), -1).sum(axis=2)[1]
    left = leaves_of(weights.dot(Z[2].reshape(len(weights), -1)).reshape(A.shape), s.widths)
    sizes = np.maximum.accumulate(y * s.rise[:, None]) / s.rise[:, None]
    return Measured(tuple(S.values()), bool((gap * s.h[:, None] <= s.allowed * sizes).all()),
                    float((a * off / A).max()), float(off.max()), float(truth.max()),
                    float(abs(s.ahead[s.output]).max()), float(Q[5].max()),
                    min(map(mean_square, left)) ** 0.5, float((off[s.output] / (there + s.eps ** 0.5 * there.max() + s.tiny)).max()),
                    0.0 if s.weighed is None else float((s.weighed / A).max()), cancelled(flowing(None, s.flowed), 0.0), A)


def items(data: Any, output: str) -> tuple:
    """The weights of a companion, as what can be looked up; without one that of the solution's cotangent."""
    return ((), ((output, 1.0),), ()) if data is None else tuple([tuple(x.items()) for x in (data.D, data.a, data.b)])


def rows(parts: tuple[str, ...], of: list[tuple[dict, np.ndarray]]) -> np.ndarray:
    """(combinations, parts width): of weights by part, and along a window."""
    return np.array([np.outer([weights.get(part, 0.0) for part in parts], along).ravel() for weights, along in of])


@lru_cache(64)
def gaps(parts: tuple[str, ...], weights: tuple, output: str, k: float, width: int) -> np.ndarray:
    """(2, parts width): the gap without its smooth part, and y, in the middle of a window."""
    at = np.eye(width)
    return rows(parts, [(dict(weights[0]), parted(list(at), k) if weights[0] else at[0]), ({output: 1.0}, at[width // 2])])


@lru_cache(64)
def combinations(parts: tuple[str, ...], weights: tuple, output: str, k: float, width: int, apart: int) -> np.ndarray:
    """(7, 2 parts width): e, y_{n+1} - y_n, y, b, a, a, and the change of a, of the states and cotangents in a window."""
    D, a, b = map(dict, weights)
    at = np.eye(width)
    middle, before, far = at[width // 2], at[width // 2 - 1], at[width // 2 - apart]
    found, e = np.zeros((7, 2 * len(parts) * width)), injected(list(at), k) if D else middle
    found[:3, :len(parts) * width] = rows(parts, [(D, e), ({output: 1.0}, middle - before), ({output: 1.0}, middle)])
    found[3:, len(parts) * width:] = rows(parts, [(b, middle), (a, middle), (a, middle), (a, middle - far)])
    return found

"""One monitor for every engine: what a solve and its reverse sweep say about how far they can be trusted.

    forward    gap          G    the companion's gap, entry by entry, against the size of y                 (two-copy methods)
               steps        h J  the field's eigenvalues, where steps leave the field (stiffness.py)       (explicit flows)
    back       parasite     S_p, S_y, S_d    what each step put into the gap, weighted with the cotangents       (two-copy methods)
               round trip   W_p, W_y    what came back beside what had been there, weighted likewise
               defects      E    what each undone step missed, weighted with the cotangent behind it        (nearly reversible)

All but the steps is made of states and cotangents that the march has at hand: no evaluation of the field, nothing stored. (Where
steps are large the field is asked, and at the end of a plain solve, once.) They are looked at in a few places (`places`), which
depend on the grid alone, so that the verdict does not depend on who ran the steps.
Weights are multiplied entry by entry and judged by batch member: norms over a batch let one large entry hide another.
"""
from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .engine import tree
from .engine.tensor import beside, number, to_host, value_of
from .methods.companion import injected, parted, weighted
from .methods.increment import Increment
from .methods.shears import Parts
from .stiffness import FOLLOWS, Unstable, astray, largest, rows, unstable


class RevodeWarning(UserWarning):
    """The base of this library's warnings.

    The text stays the same from call to call, so that Python shows it once for each place; what differs is in `details`.

    Parameters
    ----------
    message : the cause and the remedies.
    details : the numbers: step, t, sizes, what was allowed.

    Raises: warnings.simplefilter("error", rv.RevodeWarning) makes errors of them, and so does strict=True of a gradient mode.
    """
    error: type[ArithmeticError]

    def __init__(self, message: str = "", details: dict | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class ReconstructionError(ArithmeticError):
    """What a ReconstructionWarning says, as an error: raised with strict=True."""


class ParasiteError(ReconstructionError):
    """What a ParasiteWarning says, as an error: raised with strict=True. It is a ReconstructionError, too."""


class NonFiniteError(ArithmeticError):
    """What a NonFiniteWarning says, as an error: raised with strict=True."""


class AdjointError(ArithmeticError):
    """What an AdjointWarning says, as an error: raised by Backsolve(strict=True)."""


class StabilityError(ArithmeticError):
    """What a StabilityWarning says, as an error: strict=True."""


class ReconstructionWarning(RevodeWarning):
    """The reverse sweep did not find the way back: the gradient is not that of the discrete solve.

    Given by Reversible(), where the estimated error of its gradient passes `tol`. The default, Automatic(), computes the gradient
    again by checkpoints instead.
    """
    error = ReconstructionError


class ParasiteWarning(RevodeWarning):
    """The two copies of the solution part: the solution, or its gradient, is far from that of the equation.

    Given by solve for methods with a second part that should agree with the first: Coupled, ReversibleHeun,
    AsynchronousLeapfrog, LeapfrogMidpoint, and `shears` with a `twin`.
    """
    error = ParasiteError


class NonFiniteWarning(RevodeWarning):
    """A gradient holds NaN or Inf.

    Given by every gradient mode; the details name the leaf, and the step at which it was first seen where that is known.
    """
    error = NonFiniteError


class AdjointWarning(RevodeWarning):
    """Backsolve's solution left the one that had been saved: its gradient is that of another path."""
    error = AdjointError


class StabilityWarning(RevodeWarning):
    """The steps are beyond what the method bears: its solution grows, or swings, where that of the equation does not."""
    error = StabilityError


class RoundTrip(NamedTuple):
    """How far the reverse sweep was from the states of the forward solve, at its worst; `sol.stats.roundtrip`.

    Parameters
    ----------
    absolute : largest |reconstructed - forward| over the states compared, in the unit of y.
    ulps : the same in units of the last place of the largest entry of the state.
    step : where: the index into the grid.
    """
    absolute: float      # largest |reconstructed - forward| over the states compared
    ulps: float          # the same in units of the last place of the largest entry of the state
    step: int            # where: the index into the grid


class Complaint(NamedTuple):
    """Something to say: text that does not change from call to call, and the numbers beside it."""
    category: type[RevodeWarning]
    text: str
    details: dict


class Limits(NamedTuple):
    """From where on two copies part: of what a sweep has added up, and of a gap in units of what is allowed in a march."""
    S_p: float
    S_y: float
    S_d: float
    G: float


class Verdict(NamedTuple):
    """What a reverse sweep says about its gradient; nothing of it has been said yet (`report` does)."""
    estimate: dict[str, float]           # of the relative error by reconstruction: "y0" of dL/dy0, "params" of dL/dparams
    complaints: list[Complaint]
    numbers: dict[str, float]            # everything that was measured, by its name in `Back`


def report(problem: Any, verdict: Verdict) -> None:
    """Say it: a warning for each complaint, or an error where the solve is strict."""
    for complaint in verdict.complaints:
        complain(problem, complaint)


def complain(problem: Any, complaint: Complaint) -> None:
    """Warn at the first caller outside of this package; raise, with the numbers, if strict."""
    complaint = problem.worded(complaint)
    category, text, details = complaint
    problem.parted |= category is ParasiteWarning
    problem.lost |= category is ReconstructionWarning
    if problem.strict:
        numbers = ", ".join(f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
                            for name, value in details.items())
        raise category.error(f"{text} ({numbers})")
    warnings.warn(category(text, details), stacklevel=outside())


def outside() -> int:
    """The stacklevel of the first caller outside this package, whose line a warning should name."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("revode", "revode_cuda"):
        level, frame = level + 1, frame.f_back
    return level


def size(x: Any) -> float:
    """The largest absolute entry, as a float; NaN if there is one."""
    return number(abs(x).max())


@lru_cache(8)
def precision(dtype: Any) -> tuple[float, float]:
    """The spacing of numbers at 1, and the smallest one."""
    info = np.finfo(dtype)
    return float(info.eps), float(info.tiny)


def highest(x: Any) -> Any:
    """The largest |x| of each entry over the grid points of the first axis."""
    return abs(x).max(axis=0)


# where to look, and at what

LOOKS = 16            # places at which a march, forward or back, is looked at
ROOM = 1 << 15        # bytes of states that are held to be judged together


@lru_cache(64)
def places(N: int, width: int, stretch: int | None = None) -> tuple[int, ...]:
    """The first of `width` neighbouring grid points each: up to LOOKS windows spread over 0 .. N, which share no point.

    stretch: a sweep starts anew at its multiples, so that no window may reach across one.
    """
    last, count = N + 1 - width, min(LOOKS, (N + 1) // width)
    if count < 1 or (stretch is not None and stretch < width):
        return ()
    starts = [round(k * last / max(1, count - 1)) for k in range(count)]
    if stretch is not None:
        starts = [n - max(0, n % stretch - (stretch - width)) for n in starts]
    return tuple(n for k, n in enumerate(starts) if not k or n >= starts[k - 1] + width)


@lru_cache(64)
def looks(N: int, width: int, stretch: int | None = None) -> tuple[int, ...]:
    """Every point of those windows."""
    return tuple(n + i for n in places(N, width, stretch) for i in range(width))


@lru_cache(64)
def stops_of(N: int, width: int) -> tuple[int, ...]:
    """The grid points to look at on the way forward, the last among them."""
    return tuple(sorted({N, *looks(N, width)}))


@lru_cache(64)
def back_from(N: int, width: int, resync: int | None, inner: bool, compared: frozenset[int]) -> tuple[int, ...]:
    """The grid points to look at on the way back, last first; inner: not those that are landed on."""
    seen = looks(N - 1, width, resync)
    if inner:
        seen = tuple(n for n in seen if n and (resync is None or n % resync))
    return tuple(sorted({*compared, *seen}, reverse=True))


@lru_cache(64)
def runs(ns: tuple[int, ...], width: int) -> np.ndarray:
    """Where in ns `width` neighbouring grid points stand one after another: (width, windows) positions, earliest time first."""
    at = np.asarray([i for i in range(len(ns) + 1 - width) if abs(ns[i + width - 1] - ns[i]) == width - 1], np.intp)
    found = at + np.arange(width)[:, None]
    return found[::-1] if len(ns) > 1 and ns[1] < ns[0] else found


@lru_cache(64)
def windows(ns: tuple[int, ...], width: int) -> tuple[np.ndarray, list[int], tuple[int, ...]]:
    """runs(), where the middle of each stands, and the grid points there."""
    at = runs(ns, width)
    middle = at[width // 2].tolist()
    return at, middle, tuple(ns[i] for i in middle)


def grouped(ns: list[int], width: int, nbytes: int) -> list[list[int]]:
    """ns in lists as long as there is room for, one at least, none of which ends between neighbours; nbytes: of one look."""
    most = max(1, ROOM // max(1, nbytes))
    if len(ns) <= most:
        return [ns]
    found: list[list[int]] = [[]]
    for n in ns:
        if len(found[-1]) >= most and (width == 1 or abs(n - found[-1][-1]) > 1):
            found.append([])
        found[-1].append(n)
    return found


@lru_cache(64)
def groups_between(ns: tuple[int, ...], first: int, last: int, width: int, nbytes: int) -> list[list[int]]:
    """Those of ns in first .. last - 1, grouped."""
    return grouped([n for n in ns if first <= n < last], width, nbytes)


@lru_cache(64)
def threes(ns: tuple[int, ...]) -> np.ndarray:
    """runs(ns, 3), but for the start, which is not seen by every engine."""
    at = runs(ns, 3)
    return at[:, [ns[i] > 0 for i in at[0].tolist()]]


def floor(s: Any) -> float:
    """What is small beside the largest entry."""
    eps, tiny = precision(s.dtype)
    return eps ** 0.5 * number(s.max()) + tiny


def stacked(rows: list[Parts]) -> Parts:
    """Many states as one, with an axis of grid points first."""
    if len(rows) == 1:
        return {name: x[None] for name, x in rows[0].items()}
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def members(x: Any) -> Any:
    """The sum of |entries| of each member of a batch; x has an axis of grid points before those of the state."""
    x = abs(x)
    return x.sum(axis=-1) if x.ndim > 1 else x


class Pairs:
    """The companion of a problem: how its gap is to be looked at."""

    def __init__(self, problem: Any) -> None:
        self.problem = problem
        self.data: Any = problem.method.companion

    @property
    def k(self) -> float:
        return self.problem.neutral

    @cached_property
    def smooth(self) -> bool:
        """Whether a smooth gap is as it should be, and is taken off."""
        return self.data is not None and self.k < 0 and self.problem.driver is None

    @property
    def limits(self) -> Limits:
        """From where on a sweep says that the copies part."""
        kind = "adaptive" if self.problem.adaptive is not None else "driven" if self.problem.driver is not None else "grid"
        return LIMITS[kind][self.k < 0]

    def gap(self, parts: Parts) -> Any:
        return weighted(self.data.D, parts)


class Place(NamedTuple):
    """Three neighbouring states: the largest entry of the step from the second to the third in units of s; where; and they."""
    step: float
    n: int
    before: Any
    y: Any
    after: Any


def look_at(method: Any, moves: Callable, place: Place, s: Any, smooth: bool) -> Unstable | float | None:
    """The mode that grows at a place, or, in units of s, by how much the steps there miss those of the field; None if by little."""
    s, *states = (to_host(x) for x in (s, place.before, place.y, place.after))
    before, after = (rows(x / s) for x in np.diff(states, axis=0))
    y, v = states[1], states[2] - states[1]
    moved = rows(moves(y) / s)
    chosen = astray(before, after, moved) if smooth else largest(after) >= 0.5 * largest(before)
    if not chosen.any():
        return None
    found = unstable(moves, method, y, v, s, chosen) or unstable(moves, method, y, v, s, chosen, place.step)
    missed = float(largest(moved - (before + after) / 2)[chosen].max())
    return found or (missed if smooth and missed > STEEP else None)


class Ahead:
    """Watches a march: is the state finite, and does the companion keep beside the solution?

        G = max |D_i| / s_i,        s_n = max(|y_n|, s_{n-1} exp(-20 |t_n - t_{n-1}| / T))           entry by entry

    s fades slowly, so that a solution that crosses zero is not small, and one that has decayed is.
    """

    def __init__(self, problem: Any, params: Any) -> None:
        self.problem, self.params = problem, params
        self.pairs = Pairs(problem)
        self.before: tuple[int, Parts] = (0, {})
        self.ns: list[int] = []
        self.rows: list[Parts] = []                  # the states at ns that have not been judged
        self.s: Any = 0.0
        self.t = float(problem.ts[0])
        self.G = 0.0
        self.steep: list[Place] = []                 # where steps were large beside the size of y, and the last

    @cached_property
    def flows(self) -> bool:
        """Whether the steps are those of an explicit method that nobody controls, and are to be looked at."""
        y = self.problem.scales.get(self.problem.method.outputs[0])
        if y is None or 3 * y.nbytes > ROOM:                      # of large states three are too many to hold
            return False
        return self.problem.adaptive is None and not self.problem.method.exactly_reversible and not self.problem.unstable

    @property
    def width(self) -> int:
        """Neighbouring grid points of one look."""
        return 3 if self.problem.N and (self.pairs.smooth or self.flows) else 1

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """The grid points to look at, on a grid that is known."""
        return stops_of(self.problem.N, self.width)

    def groups(self, first: int, last: int, parts: Parts) -> list[list[int]]:
        """The looks at first + 1 .. last, as many together as there is room for."""
        return groups_between(self.stops, first + 1, last + 1, self.width, sum(x.nbytes for x in parts.values()))

    def begin(self, parts: Parts) -> None:
        """The state at the start, of which there is nothing to judge."""
        self.before = 0, parts
        self.problem.scales.update({name: abs(part) for name, part in parts.items()})
        if self.flows:
            self.s = self.problem.scales[self.problem.method.outputs[0]]

    def look(self, n: int, parts: Parts) -> None:
        """One state; judged with others, or when there is no room for more."""
        plain = {name: value_of(part) for name, part in parts.items()}
        if not all(np.isfinite(size(part)) for part in plain.values()):
            self.overflow(n)
        self.before = n, plain
        self.ns.append(n)
        self.rows.append(plain)
        held = len(self.rows) * sum(x.nbytes for x in plain.values())
        if self.pairs.data is None or len(self.rows) >= 64 or held > ROOM or self.problem.done(n):
            parts, kept = stacked(self.rows), len(self.ns) + 1 - self.width
            self.widen(parts)
            self.judge(self.ns, parts)
            self.ns, self.rows = self.ns[kept:], self.rows[kept:]

    def see(self, ns: list[int], parts: Parts) -> None:
        """Many states, in arrays with an axis of grid points first."""
        if not ns:
            return
        if not all(math.isfinite(number(x.max())) for x in self.widen(parts)):
            whole = np.all([np.isfinite(size_of_each(part)) for part in parts.values()], axis=0)
            k = int(np.argmin(whole))
            if k:
                self.judge(ns[:k], {name: x[:k] for name, x in parts.items()})
                self.before = ns[k - 1], {name: x[k - 1] for name, x in parts.items()}
            self.overflow(ns[k])
        self.before = ns[-1], {name: x[-1] for name, x in parts.items()}
        self.judge(ns, parts)

    def widen(self, parts: Parts) -> list:
        """The scales of the problem, with these states; returns those of these states alone."""
        found, scales = {name: highest(part) for name, part in parts.items()}, self.problem.scales
        scales.update({name: np.maximum(scales[name], x) if name in scales else x for name, x in found.items()})
        return list(found.values())

    def judge(self, ns: list[int], parts: Parts) -> None:
        """The largest G among these states; where a smooth part is taken off, among those with both neighbours."""
        problem, pairs = self.problem, self.pairs
        if self.flows and problem.N > 2:
            y = parts[problem.method.outputs[0]]
            if problem.swept and ns[-1] == problem.N and not self.steep:
                problem.later = partial(self.follow, ns, y)          # a sweep that comes back has not met such steps
            else:
                self.follow(ns, y)
        if pairs.data is None or problem.parted or not problem.N:
            return
        width = self.width
        at, middle, points = windows(tuple(ns), width)
        if not at.size:
            return
        gap, y = pairs.gap(parts), parts[problem.method.outputs[0]]
        if width > 1:
            at = beside(y)(at)
            gap, y = gap.take(at, 0), y.take(at[width // 2], 0)
        counts, scale = self.fading(points, abs(y))
        gap = abs(parted(gap if width > 1 else [gap], pairs.k))
        if pairs.data.velocity:
            gap = gap * column([abs(float(problem.hs[ns[i]])) for i in middle], gap)
        allowed = pairs.data.allowed if problem.driver is None else pairs.data.driven
        if problem.adaptive is not None:                                 # here the user has said how far it may be off
            allowed, wanted = OF_TOLERANCE, problem.adaptive.controller
            scale = wanted.atol + wanted.rtol * scale
        G = np.where(counts, size_of_each(gap / scale), 0.0)
        self.G = max(self.G, float(G.max()))
        if self.G > allowed:
            n = ns[middle[int(np.argmax(G > allowed))]]
            first = problem.suspicion.details if problem.suspicion else {"step": n, "t": float(problem.ts[n])}
            problem.suspicion = parted_copies(problem, pairs, {**first, "G": self.G, "allowed": allowed})
            if not problem.swept:
                complain(problem, problem.suspicion)

    def follow(self, ns: list[int], y: Any) -> None:
        """Remember where steps were large; at the end, look there, and at the last one, at whether they follow the field."""
        at = threes(tuple(ns))
        ends = ns[-1] == self.problem.N
        if ends and not self.steep and len(at[0]) and self.quiet(ns, y[beside(y)(at)]):
            return
        s = np.maximum(so_far(abs(y)), self.s)
        self.s = s[-1]
        if not len(at[0]):
            return
        middle = [ns[i] for i in at[1].tolist()]
        there = beside(y)(at)
        s = s[there[1]]
        found = largest_of_each(abs(y[there[2]] - y[there[1]]) / (s + floor(s)))
        places = [(max(step, 1e-3), n, k) for k, (step, n) in enumerate(zip(found, middle, strict=True))]
        for step, n, k in {*sorted(places)[-PLACES:], places[-1]}:
            self.steep.append(Place(step, n, *(y[there[j, k]] for j in range(3))))
        room = max(1, min(PLACES, ROOM // max(1, 3 * y[0].nbytes)))
        *rest, last = sorted(self.steep, key=lambda place: place.n)
        self.steep = [*sorted(rest)[-room:], last]
        if ends:
            self.at_end(self.s + floor(self.s))

    def quiet(self, ns: list[int], y: Any) -> bool:
        """Whether no step was large and the last one follows the field: quickly told, and mostly so."""
        s = self.problem.scales[self.problem.method.outputs[0]]
        steps = y[1:] - y[:-1]
        if self.problem.driver is not None or not bool(to_host((abs(steps).max(axis=(0, 1)) <= STEEP * s).all())):
            return False
        before, after = steps[0, -1], steps[1, -1]
        s, before, after = (to_host(x) for x in (s + floor(s), before, after))
        moved = self.looked(lambda: self.moves(self.problem.N - 1)(y[1, -1]))
        if moved is None:
            return False
        missed = abs(to_host(moved) - (before + after) / 2) / s
        return bool((missed <= 0.5 * FOLLOWS * (abs(before) / s + abs(after) / s).max(axis=-1, keepdims=y.ndim > 2)).all())

    def at_end(self, s: Any) -> None:
        """Look whether the steps follow the field: at the last one, and where they were large, and if not there, elsewhere."""
        problem, stray = self.problem, 0
        for place in self.steep[::-1]:
            if stray or place is self.steep[-1] or place.step > STEEP:
                found = self.looked(lambda: look_at(problem.method, self.moves(place.n), place, s, problem.driver is None))
                stray += found is not None
                if type(found) is Unstable or stray == 3:
                    details = {"step": place.n, "t": float(problem.ts[place.n]), "h": float(problem.hs[place.n])}
                    details |= {"z": abs(found.z), "growth": found.growth} if type(found) is Unstable else {"missed": found}
                    problem.unstable = True
                    complain(problem, too_large(problem, details))
                    return

    def looked(self, look: Callable) -> Any:
        """look(), which evaluates the field to check; None where it is not defined there."""
        stats = self.problem.stats
        nfe = stats.nfe
        try:
            with np.errstate(all="ignore"):
                return look()
        except Exception:
            return None
        finally:
            stats.nfe, stats.checks = nfe, stats.checks + stats.nfe - nfe

    def moves(self, n: int) -> Callable:
        """y -> h f(t, y) at the start of step n, on the host; of noise the drift alone."""
        system, step, params = self.problem.system, self.problem.step(n), self.params
        place = beside(self.problem.scales[self.problem.method.outputs[0]])
        if self.problem.differentiated:
            params = tree.map(value_of, params)

        def moves(y: Any) -> Any:
            found = system.coefficients(step.t0, place(y), params)
            return to_host(system.rate(found, step.t0) * step.dx.h if system.noisy else system.times(found, step.dx))

        return moves

    @property
    def span(self) -> float:
        end = self.problem.ts[-1] if self.problem.adaptive is None else self.problem.adaptive.t1
        return abs(float(end - self.problem.ts[0])) or 1.0

    def rising(self, ns: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float]:
        """At these grid points: whether what starts at zero has a size by then, how much s has faded since the last look, the time."""
        known, key = self.problem.known, ("rising", ns, self.t)
        if key not in known:
            ts, first = self.problem.ts, float(self.problem.ts[0])
            t = np.asarray([ts[n] for n in ns], float) if type(ts) is list else ts[list(ns)]
            rate = 20.0 if self.problem.adaptive is not None else min(20.0, 0.3 * self.problem.N)     # slow beside the steps, too
            known[key] = (abs(t - first) >= 0.05 * self.span, np.exp(np.minimum(rate * abs(t - self.t) / self.span, 60.0)),
                          float(t[-1]))
        return known[key]

    def fading(self, ns: tuple[int, ...], y: Any) -> tuple[np.ndarray, Any]:
        """Where gaps count, and s; never far below the largest entry of a member."""
        counts, rise, t = self.rising(ns)
        rise = column(rise, y)
        s = np.maximum(y * rise, self.s)
        s = so_far(s) / rise
        self.s, self.t = s[-1], t
        if self.problem.driver is not None and s.ndim > 2:       # a path that noise brings near zero is no small solution
            s = np.maximum(s, np.sqrt(np.mean(s * s, axis=tuple(range(1, s.ndim - 1)), keepdims=True)))
        eps, tiny = precision(y.dtype)
        return counts, np.maximum(s, eps ** 0.5 * s.max(axis=-1)[..., None] if s.ndim > 1 else 0.0) + tiny

    def overflow(self, n: int) -> None:
        """Find the step at which the state stopped being finite, and say so."""
        if self.rows:
            self.judge(self.ns, stacked(self.rows))
        at, parts = self.before
        F = Increment(self.problem.system, tree.map(value_of, self.params))
        norm = max((size(part) for part in parts.values()), default=float("nan"))
        while at < n and parts:
            after = self.problem.advance(at, parts, F)
            norms = [size(part) for part in after.values()]
            at += 1
            if not all(np.isfinite(x) for x in norms):
                break
            parts, norm = after, max(norms)
        if self.problem.suspicion and not self.problem.parted:
            complain(self.problem, self.problem.suspicion)
        raise FloatingPointError(
            f"solve: the state is no longer finite at step {at} of {self.problem.N} (t = {self.problem.ts[at]:.6g}); its "
            f"largest entry was {norm:.3g} one step before. Take smaller steps, or look at the field there." + (
                " Its two copies of the solution had parted before: see the warning about that, and its remedies."
                if self.problem.parted else ""))


class Back:
    """Watches a reverse sweep. It is shown states and cotangents at `looks`, and what had been there beside what came back.

        A   = max over saved and seen n of |a_n y_n|                                             what there is, entry by entry
        W_p = max over compared n of |a_n (yhat_n - y_n)| / A                                    for dL/dparams
        W_y = max over compared n of |yhat_n - y_n| / (largest |y|)                              for dL/dy0
        E   = sum over n of |a_{n+1} r_n| / A,      r_n = y_{n+1} - Phi_h(yhat_n)                nearly reversible methods
        S_p = sum |b e| / sum |a_{n+1} (y_{n+1} - y_n)|,      S_y = sum over n of sum |b e| / sum |a y|          the parasite
        S_d = sum over n of sum |b e| / sum |a (y_{n+1} - y_n)| * |a_{n+1} - a_n| / |a|             the same where y comes to rest

    An error that is small beside what flowed to a parameter on the way may be large beside what is left of it, so for each leaf of
    the parameters, and of y0,

        C   = |sum over n of |what flowed between two looks|| / |dL/dp|,       the error of dL/dp is at most about C max(W_p, E)
        W_0 = |yhat_0 - y_0| / s,     C_0 = s' / |a_0|        s, s' the sizes of y and of a near the start, as they fade from it
    """

    def __init__(self, problem: Any, tol: float | None, compared: set[int], ys: tuple, a_ys: tuple, a_parts: Parts) -> None:
        self.problem, self.tol = problem, TOL if tol is None else tol
        self.pairs, self.compared = Pairs(problem), compared
        outputs = problem.method.outputs
        self.width = 1 if self.pairs.data is None else 4 if self.pairs.smooth else 2
        # where a state is kept nearly reversible methods land on it: there is nothing to look at
        self.looks = back_from(problem.N, self.width, problem.resync, not problem.method.exactly_reversible, frozenset(compared))
        self.at = {n: k for k, n in enumerate(problem.save)}
        self.ys = dict(zip(outputs, ys, strict=True))
        self.trips: list[tuple[int, float, float]] = []
        self.eps, self.tiny = precision(ys[0].dtype)
        self.A = {name: largest_seen(a * y) for name, a, y in zip(outputs, a_ys, ys, strict=True)}
        self.scales = {name: np.maximum(problem.scales[name], largest_seen(y)) for name, y in self.ys.items()}
        self.at_least = {name: np.maximum(x, self.eps ** 0.25 * size(x) + self.tiny) for name, x in self.scales.items()}
        self.W_p: dict[str, Any] = {}
        self.W_y = 0.0
        self.broken = False                          # whether a cotangent is not finite though the state is
        self.sums: list[tuple] = []                  # |b e|, |a dy| and |a y|, by window and member
        self.flows: Any = None                       # what has flowed to the parameters, entry by entry, and as much as that in size
        self.recent: list[tuple] = []                # states and cotangents that have been seen
        self.near: dict[str, tuple] = {}             # of y and of a, by output: the size that these have near the start
        self.start: tuple[Parts, Parts, Parts] | None = None        # what came back at the start, what had been there, and a
        # a loss that looks at the companion itself has a cotangent there which is no parasite
        self.aside = any(bool(a.any()) for name, a in a_parts.items() if name not in outputs)

    def groups(self, last: int, first: int, parts: Parts) -> list[list[int]]:
        """The looks at last - 1 .. first, last first, as many together as there is room for."""
        return groups_between(self.looks, first, last, self.width, 2 * sum(x.nbytes for x in parts.values()))

    def see(self, ns: list[int], parts: Parts, cotangents: Parts) -> None:
        """States and cotangents on the way back, in arrays with an axis of grid points first."""
        chosen = [i for i, n in enumerate(ns) if n in self.compared]
        if chosen:
            saved = [self.at[ns[i]] for i in chosen]
            self.compare([ns[i] for i in chosen], {name: parts[name][chosen] for name in self.ys},
                         {name: y[saved] for name, y in self.ys.items()}, {name: a[chosen] for name, a in cotangents.items()})
        data, width = self.pairs.data, self.width
        at, _, points = windows(tuple(ns), width)
        if not at.size:
            return
        at = beside(parts[next(iter(self.ys))])(at)
        middle = at[width // 2]
        for name in self.ys:
            a = cotangents[name] if data is None else weighted(data.a, cotangents)
            y, a_y = parts[name].take(middle, 0), a.take(middle, 0)
            ay = abs(a_y * y)
            self.A[name] = np.maximum(self.A[name], ay.max(axis=0))
            self.recent.append((name, points, y, a_y))
        if len(self.recent) * ay.nbytes > ROOM:
            self.fade()
        if data is not None:
            D = self.pairs.gap(parts).take(at, 0)
            e = injected([D[j] for j in range(width)], self.pairs.k)
            moved = a_y * (y - parts[name].take(at[width // 2 - 1], 0))
            size = abs(a_y)
            ay = np.maximum(ay, 1e-2 * size * self.scales[name])                   # a state at zero has no size of its own
            apart = 2 if self.pairs.smooth else 1                                  # what swings from step to step is no change
            changes = members(a_y - a.take(at[width // 2 - apart], 0)) / (apart * members(size) + self.tiny)       # of what is small
            self.sums.append((members(weighted(data.b, cotangents).take(middle, 0) * e), members(moved), members(ay), changes))

    def compare(self, ns: list[int], parts: Parts, truth: Parts, cotangents: Parts) -> None:
        """What came back at these steps beside what had been there."""
        sizes = []
        for name, x in truth.items():
            off, a = abs(parts[name] - x), abs(cotangents[name])
            x = abs(x)
            sizes.append((largest_of_each(off), largest_of_each(x)))
            self.W_p[name] = np.maximum(self.W_p.get(name, 0.0), (a * off).max(axis=0))
            if name in self.ys:
                self.A[name] = np.maximum(self.A[name], (a * x).max(axis=0))
                self.W_y = max(self.W_y, finite(number((off / self.at_least[name]).max())))
        if ns[-1] == 0:
            self.start = tuple({name: x[-1] for name, x in kind.items()} for kind in (parts, truth, cotangents))  # type: ignore[assignment]
        absolute, size_of_x = sizes[0] if len(sizes) == 1 else (
            [max(x) for x in zip(*column, strict=True)] for column in zip(*sizes, strict=True))
        self.trips += [(n, finite(x), y) for n, x, y in zip(ns, absolute, size_of_x, strict=True)]
        if not self.broken and not all(math.isfinite(size(a)) for a in cotangents.values()):
            self.broken = all(finite(x) < math.inf for x in absolute)

    def flow(self, flowed: tuple | None) -> None:
        """What has flowed to the parameters so far, as rows: at the stop before, at looks, and now; and where in a row each leaf
        begins. None where that is too much to look at."""
        if flowed is not None:
            rows, begins = flowed
            steps = rows[1:] - rows[:-1]
            amount = np.abs(steps, out=steps).sum(axis=0) if type(steps) is np.ndarray else abs(steps).sum(axis=0)
            self.flows = rows[-1], amount if self.flows is None else self.flows[1] + amount, begins

    def cancelled(self, most: float) -> float:
        """C of the leaf of the parameters of which the least is left; 1 where it is below `most`."""
        if self.flows is None:
            return 1.0
        left, amount, begins = self.flows
        left, amount = sums_of(left * left, begins), sums_of(amount * amount, begins)
        if (amount <= most * most * left).all():
            return 1.0
        return max((a / b for a, b in zip(amount.tolist(), left.tolist(), strict=True) if b > 0), default=1.0) ** 0.5

    def fade(self) -> None:
        """The sizes near the start, from what has been seen."""
        ts = self.problem.ts
        span = abs(float(ts[-1] - ts[0])) or 1.0
        for name, ns, y, a in self.recent:
            less = column(np.exp([-FADE * abs(float(ts[n] - ts[0])) / span for n in ns]), y)
            before = self.near.get(name, (0.0, 0.0))
            self.near[name] = tuple(np.maximum(s, highest(x * less)) for s, x in zip(before, (y, a), strict=True))
        self.recent = []

    def at_start(self, E: float) -> float:
        """max(W_0, E) C_0 for the leaf of y0 of whose cotangent the least is left; or a larger number, if that is small enough."""
        if self.start is None or not self.problem.asked["y0"]:
            return 0.0
        data, (found, truth, a) = self.pairs.data, self.start
        a = a if data is None else {name: weighted(data.a, a) for name in self.ys}
        if len(self.recent) == 1 and not self.near:          # quickly told
            (name, _, _, seen), = self.recent
            smallest, least = number(abs(truth[name]).min()), number(abs(a[name]).max())
            if smallest * least > 0 and (bound := max(self.trips[-1][1] / smallest, E) * (1.0 + a[name].size * size(seen) / least)
                                         ) < 0.01 * CLOSE[seen.dtype.itemsize]:
                return bound
        self.fade()
        worst = 0.0
        for name in self.ys:
            y, (of_y, of_a) = abs(truth[name]), self.near.get(name, (0.0, 0.0))
            of_y, of_a = np.maximum(y, of_y), np.maximum(abs(a[name]), of_a)
            W_0 = finite(size(abs(found[name] - truth[name]) / (of_y + self.eps ** 0.5 * size(of_y) + self.tiny)))
            widths = self.problem.widths or (y.shape[-1] if y.ndim else 1,)
            C_0 = 1.0
            for first, width in zip(np.cumsum((0, *widths[:-1])).tolist(), widths, strict=True):
                x, near = (z.reshape(-1, sum(widths))[:, first:first + width] for z in (a[name], of_a))
                left, near = (number((z * z).sum()) ** 0.5 for z in (x, near))
                C_0 = max(C_0, near / left if left > 0 else 1.0)
            worst = max(worst, max(W_0, E) * C_0)
        return worst

    def numbers(self, weighed: Any) -> dict[str, float]:
        """Everything that was measured."""
        tiny, first = self.tiny, self.problem.method.outputs[0]
        W_p = [size(self.problem.relative(x, self.A.get(name, self.A[first]), tiny)) for name, x in self.W_p.items()]
        found = {"W_y": self.W_y, "W_p": max(map(finite, W_p), default=0.0)}
        if weighed is not None:
            found["E"] = finite(size(weighed / (self.A[first] + tiny)))
        if self.sums and not self.aside:
            whole = [np.concatenate(column) for column in zip(*self.sums, strict=True)] if len(self.sums) > 1 else self.sums[0]
            be, moved, ay, changes = whole
            moved = moved + 1024 * self.eps * ay     # what rounding does to a state at rest is no parasite
            found |= {"S_p": finite(size(be.sum(axis=0) / (moved.sum(axis=0) + tiny))),
                      "S_y": finite(size((be / (ay + tiny)).sum(axis=0))) * self.problem.N / len(be),
                      "S_d": finite(size((be * changes / (moved + tiny)).sum(axis=0))) * self.problem.N / len(be)}
        return found

    def verdict(self, largest: Any = None, weighed: Any = None) -> Verdict:
        """The judgement. Of methods that are nearly reversible also, entry by entry, max |r_n| and sum |a_{n+1} r_n|."""
        problem = self.problem
        if largest is not None:
            problem.stats.defect = size(largest)
        problem.stats.roundtrip = trip = self.roundtrip()
        found = self.numbers(weighed)
        of_params = max(found["W_p"], found.get("E", 0.0))
        # what rounding makes of the contributions of as many steps no mode does better
        over, close = max(0.0, of_params - self.eps * problem.N ** 0.5), CLOSE[next(iter(self.ys.values())).dtype.itemsize]
        of_leaf = over and over * self.cancelled(0.1 * close / over)
        estimate = {"y0": max(found["W_y"], of_params, CAUTION * self.at_start(of_params)), "params": max(of_params, of_leaf)}
        later, problem.later = problem.later, None           # (it holds the problem)
        if later is not None and max(estimate.values()) > 0.1 * close:
            later()
        telling = self.tol if problem.method.exactly_reversible else NEARLY * self.tol
        off = {"y0": of_params > self.tol or found["W_y"] > telling,
               "params": of_params > self.tol or of_leaf > OF_LEAF * self.tol}
        wrong = [name for name in off if off[name] and problem.asked[name]]
        found["leaf"] = of_leaf
        if self.broken:                              # then it is not the reconstruction
            return Verdict(estimate, [], found)
        details = {**found, "allowed": self.tol, "error": trip.absolute, "step": trip.step, "t": float(problem.ts[trip.step])}
        complaints = []
        if problem.suspicion and not problem.parted and (wrong or "S_p" not in found):
            complaints.append(problem.suspicion)                       # the sweep cannot tell
        if wrong:
            complaints.append(lost(problem, wrong, details))
        elif self.parts(found) and not problem.parted:
            complaints.append(parted_copies(problem, self.pairs, details))
        return Verdict(estimate, complaints, found)

    def parts(self, found: dict[str, float]) -> bool:
        """Whether the two copies part: by what the steps put between them, or by a gap that nothing explains any more."""
        if self.pairs.data is None:
            return False
        limits, seen = self.pairs.limits, self.problem.suspicion
        chance = by_chance(self.sums[0][0].shape[1:]) if self.sums and self.problem.system.noisy else 1.0
        return (any(found.get(name, 0.0) > chance * getattr(limits, name) for name in ("S_p", "S_y", "S_d"))
                or (seen is not None and seen.details["G"] > limits.G * seen.details["allowed"]))

    def roundtrip(self) -> RoundTrip:
        if not self.trips:
            return RoundTrip(0.0, 0.0, 0)
        ulps = [off / (self.eps * 2.0 ** math.floor(math.log2(max(largest, self.tiny))))
                for _, off, largest in self.trips]
        n, off, _ = max(self.trips, key=lambda trip: trip[1])
        return RoundTrip(off, max(ulps), n)


def flat(arrays: list) -> Any:
    """The entries of all arrays, one after another."""
    return np.concatenate([x.reshape(-1) for x in arrays])


def begins(arrays: list) -> np.ndarray:
    """Where in flat(arrays) each of them begins, but for those without entries."""
    sizes = [x.size for x in arrays]
    return np.cumsum([0, *sizes[:-1]])[np.asarray(sizes) > 0]


def sums_of(x: Any, begins: np.ndarray) -> np.ndarray:
    """The sum of each stretch of x, on the host."""
    if isinstance(x, np.ndarray):
        return np.add.reduceat(x, begins)
    return np.asarray([number(x[i:j].sum()) for i, j in pairwise([*begins.tolist(), len(x)])])


def by_chance(members: tuple[int, ...]) -> float:
    """How much larger the largest of so many sums along random paths is than one of them: their logarithms spread by .4 (measured at
    100 paths, N = 16 .. 256), and the largest of M normal numbers is about sqrt(2 ln M)."""
    return math.exp(0.4 * math.sqrt(2 * math.log(math.prod(members) or 1)))


def column(values: Any, like: Any) -> Any:
    """One number for each row of `like`, where that is and shaped to go with it."""
    return beside(like)(np.reshape(values, (-1, *[1] * (like.ndim - 1))).astype(like.dtype))


def so_far(x: Any) -> Any:
    """The largest of each entry up to each row."""
    if isinstance(x, np.ndarray):
        return np.maximum.accumulate(x)
    for k in (2 ** j for j in range((len(x) - 1).bit_length())):          # what devices offer: by doubling
        x = np.concatenate([x[:k], np.maximum(x[k:], x[:-k])])
    return x


def largest_seen(x: Any) -> Any:
    """The same as highest(), of rows that there may be none of."""
    return highest(x) if len(x) else 0.0


def size_of_each(x: Any) -> np.ndarray:
    """The largest absolute entry of each row, on the host."""
    return to_host(abs(x).reshape(len(x), -1).max(axis=1))


def largest_of_each(x: Any) -> list[float]:
    """The same of what is positive, as numbers."""
    return [number(x.max())] if len(x) == 1 else to_host(x.reshape(len(x), -1).max(axis=1)).tolist()


def finite(x: float) -> float:
    """x, or Inf for what is not a number."""
    return x if x == x else float("inf")


# causes and remedies

TOL = 1e-3            # estimated relative error of the gradient from which a sweep is not trusted
# From where on two copies part: for k > 0, and for k < 0, where a gap swings. Chosen on the 1685 solves of python -m
# reference.detection with the seeds 0 and 1; docs/warnings.md shows them.
LIMITS = {"grid": (Limits(0.005, 0.07, 0.15, 3.0), Limits(0.01, 0.2, 0.25, 20.0)),
          "adaptive": (Limits(0.0025, 0.1, 0.3, 3.0), Limits(0.01, 0.2, 0.25, 3.0)),
          "driven": (Limits(0.025, 0.2, 1.0, 5.0), Limits(0.025, 0.2, 1.0, 20.0))}
PLACES = 4             # at most so many of the largest steps are looked at
STEEP = 0.25           # a step beside the size of y, from which on it is looked at
FADE = 40.0           # how much less, in powers of e, what is at the end says about the sizes at the start
CLOSE = {8: 1e-5, 4: 1e-3}          # what the default accepts, by the bytes of a number: float64, float32
CAUTION = 3.0         # times W_0: dL/dy0 has collected the errors of all states (y' = y - p y^3 from small y0: three times)
OF_LEAF = 3.0         # times tol, from which on a gradient that is named speaks of a leaf of which little is left
MANY = 4096           # parameters up to which it is looked at what has flowed to them
NEARLY = 3.0          # times tol, from which on W_y alone speaks against dL/dy0 of a nearly reversible method: it overestimates
OF_TOLERANCE = 30.0   # times what the tolerances of a controller allow an error to be, for the gap of an adaptive solve

SMALLER, OTHER = "smaller steps", "the default method (method=None), which has no second copy"
STORED = "Reversible(resync=K), which stores a state every K steps; Checkpointed(n) or Direct()"


def followed(problem: Any) -> tuple[str, list[str]]:
    """Cause and remedies where the copies part. (A gap falls by lam / R a step where the solution falls by R: from lam = R^2 on it
    keeps up.)"""
    method = problem.method
    if method.lam is not None:
        return (f"the solution contracts faster than {method!r} follows at this step size",
                ["lam = exp(-c h) with c above twice the contraction rate", SMALLER, OTHER])
    follows = "little" if abs(problem.neutral) < 1 else "no"
    return (f"the solution contracts, and {method!r} follows {follows} contraction",
            ["a method that bears contraction: Coupled with lam = exp(-c h), c above twice the contraction rate", SMALLER, OTHER])


def parted_copies(problem: Any, pairs: Pairs, details: dict) -> Complaint:
    cause, remedies = followed(problem)
    return Complaint(ParasiteWarning, f"solve: {pairs.data.what} part, so neither the solution nor its gradient can be trusted. "
                     f"Likely cause: {cause}. Remedies: {'; '.join(remedies)}.", details)


def too_large(problem: Any, details: dict) -> Complaint:
    return Complaint(StabilityWarning, f"solve: the steps are too large for {problem.method!r}: from step to step the solution "
                     "grows, or swings, where that of the equation does not, so neither it nor its gradient can be trusted. Likely "
                     "cause: h times the fastest rate of the field is beyond the method's stability limit (the problem is stiff). "
                     "Remedies: smaller steps; controller=PID(rtol, atol), which finds them; a field without the fast rate.", details)


def lost(problem: Any, wrong: list[str], details: dict) -> Complaint:
    """The reverse sweep did not find the way back."""
    method = problem.method
    growth = abs(1.0 / problem.neutral) if method.exactly_reversible else 1.0
    stretch = problem.resync or problem.N
    details = {**details, "growth": growth, "steps": stretch}
    eps = float(np.finfo(next(iter(problem.scales.values())).dtype).eps)
    grown = eps * growth ** min(stretch, 700 / max(math.log(growth), 1e-9)) if growth > 1 else 0.0
    remedies = [SMALLER]
    if grown > 0.1 * details["allowed"]:
        cause = f"each step back of {method!r} divides by its scales, so that rounding grows until nothing is left"
        remedies = ["scales closer to 1 (lam, eta)"]
    elif method.exactly_reversible:
        cause, remedies = followed(problem)
    else:
        cause = "the solution contracts, or the steps are too large for their reversal, so that an error grows on the way back"
    what = " and ".join("dL/d" + name for name in wrong) + (" are" if len(wrong) > 1 else " is")
    return Complaint(ReconstructionWarning, f"Reversible: the reverse sweep did not find its way back, so {what} wrong. "
                     f"Likely cause: {cause}. Remedies: {'; '.join([*remedies, STORED])}.", details)

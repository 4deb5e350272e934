"""The watch over a march: is the state finite, does the companion keep beside it, do the steps follow the field?"""
from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from ..engine import tree
from ..engine.tensor import beside, innermost, number, to_host, value_of
from ..methods.increment import Evaluator
from ..methods.shears import Parts
from ..stiffness import FOLLOWS, Unstable, astray, largest, rows, unstable
from .alarms import complain
from .causes import Pairs, parted_copies, too_large
from .gaps import among, parted
from .places import ROOM, stops_of, threes, windows
from .sizes import column, floor, highest, largest_of_each, precision, size, size_of_each, so_far, stacked

logger = logging.getLogger("revode")

PLACES = 4             # at most so many of the largest steps are looked at
STEEP = 0.25           # a step beside the size of y, from which on it is looked at


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

    s fades slowly, so that a solution that crosses zero is not small, and one that has decayed is. In a crowd (gaps.py) what is near
    zero by chance is not small either.
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
        self.failed = False                          # whether the field failed at a look, and that was said

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
        """The grid points to look at behind the first, on a grid that is known."""
        return stops_of(self.problem.N, self.width)

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

    def see(self, ns: Sequence[int], parts: Parts) -> None:
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

    def judge(self, ns: Sequence[int], parts: Parts) -> None:
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
        allowed = pairs.allowed
        if problem.adaptive is not None:                                 # here the user has said how far it may be off
            rtol, atol = map(beside(scale), problem.tolerances)
            scale = atol + rtol * scale
        G = np.where(counts, size_of_each(gap / scale), 0.0)
        high = np.flatnonzero(G > allowed)
        if high.size:
            G[high] = size_of_each(among(*(to_host(x.take(beside(y)(high), 0)) for x in (gap, scale))))
        self.G = max(self.G, float(G.max()))
        if self.G > allowed:
            n = ns[middle[int(np.argmax(G > allowed))]]
            first = problem.suspicion.details if problem.suspicion else {"step": n, "t": float(problem.ts[n])}
            problem.suspicion = parted_copies(problem, pairs, {**first, "G": self.G, "allowed": allowed})
            if not problem.swept:
                complain(problem, problem.suspicion)

    def follow(self, ns: Sequence[int], y: Any) -> None:
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

    def quiet(self, ns: Sequence[int], y: Any) -> bool:
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
        """look(), which evaluates the field to check; None where the field fails there, which one log line says."""
        stats = self.problem.stats
        nfe = stats.nfe
        try:
            with np.errstate(all="ignore"):
                return look()
        except Exception as error:
            if not self.failed:
                logger.info("solve: whether the steps are too large was not looked at everywhere, because the field, evaluated to "
                            "check, raised %s: %s", type(error).__name__, error)
            self.failed = True
            return None
        finally:
            stats.nfe, stats.checks = nfe, stats.checks + stats.nfe - nfe

    def moves(self, n: int) -> Callable:
        """y -> h f(t, y) at the start of step n, on the host; of noise the drift alone."""
        system, step, params = self.problem.system, self.problem.step(n), self.params
        place = beside(self.problem.scales[self.problem.method.outputs[0]])
        if innermost(tree.flatten(params)[0]) is not None:
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
        if s.ndim > 1 and not (isinstance(s, np.ndarray) and s.min() >= eps ** 0.5 * s.max()):         # quickly told, of all members
            s = np.maximum(s, eps ** 0.5 * s.max(axis=-1)[..., None])
        return counts, s + tiny

    def overflow(self, n: int) -> None:
        """Find the step at which the state stopped being finite, and say so."""
        if self.rows:
            self.judge(self.ns, stacked(self.rows))
        at, parts = self.before
        F = Evaluator(self.problem.system, tree.map(value_of, self.params))
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

"""One monitor for every engine: what a solve and its reverse sweep say about how far they can be trusted.

    forward    gap          G    the companion's gap, entry by entry, against the size of y                 (two-copy methods)
    back       parasite     S_p, S_y    what each step put into the gap, weighted with the cotangents       (two-copy methods)
               round trip   W_p, W_y    what came back beside what had been there, weighted likewise
               defects      E    what each undone step missed, weighted with the cotangent behind it        (nearly reversible)

Everything is made of states and cotangents that the march has at hand: no evaluation of the field, nothing stored. They are
looked at in a few places (`places`), which depend on the grid alone, so that the verdict does not depend on who ran the steps.
Weights are multiplied entry by entry and judged by batch member: norms over a batch let one large entry hide another.
"""
from __future__ import annotations

import math
import sys
import warnings
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .engine import tree
from .engine.tensor import number, value_of
from .methods.companion import injected, neutral, parted, weighted
from .methods.increment import Increment
from .methods.shears import Parts


class RevodeWarning(UserWarning):
    """The base of this library's warnings. The text stays the same from call to call; the numbers are in `details`."""
    error: type[ArithmeticError]

    def __init__(self, message: str = "", details: dict | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class ReconstructionError(ArithmeticError):
    """What a ReconstructionWarning says, as an error: strict=True."""


class ParasiteError(ReconstructionError):
    """What a ParasiteWarning says, as an error: strict=True."""


class NonFiniteError(ArithmeticError):
    """What a NonFiniteWarning says, as an error: strict=True."""


class AdjointError(ArithmeticError):
    """What an AdjointWarning says, as an error: strict=True."""


class ReconstructionWarning(RevodeWarning):
    """The reverse sweep did not find the way back: the gradient is not that of the discrete solve."""
    error = ReconstructionError


class ParasiteWarning(RevodeWarning):
    """The two copies of the solution part: the solution, or its gradient, is far from that of the equation."""
    error = ParasiteError


class NonFiniteWarning(RevodeWarning):
    """A gradient holds NaN or Inf."""
    error = NonFiniteError


class AdjointWarning(RevodeWarning):
    """Backsolve's solution left the one that had been saved: its gradient is that of another path."""
    error = AdjointError


class RoundTrip(NamedTuple):
    """How far the reverse sweep was from the states of the forward solve, at its worst."""
    absolute: float      # largest |reconstructed - forward| over the states compared
    ulps: float          # the same in units of the last place of the largest entry of the state
    step: int            # where: the index into the grid


class Complaint(NamedTuple):
    """Something to say: text that does not change from call to call, and the numbers beside it."""
    category: type[RevodeWarning]
    text: str
    details: dict


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
    category, text, details = complaint
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


# where to look, and at what

LOOKS = 16            # places at which a march, forward or back, is looked at
TOGETHER = 1 << 16    # bytes of states that are kept to be judged at one time; more are judged one by one


def places(N: int, width: int, count: int = LOOKS) -> list[int]:
    """The first of `width` neighbouring grid points each, evenly over the points 0 .. N; the first and the last among them."""
    last = N + 1 - width
    return sorted({round(k * last / (count - 1)) for k in range(count)}) if last >= 0 else []


def members(x: Any) -> Any:
    """The sum of |entries| of each member of a batch."""
    x = abs(x)
    return np.sum(x, axis=-1) if x.ndim else x


def product(a: Any, x: Any) -> Any:
    """sum_i |a_i x_i| by member, where an entry with a dead cotangent counts for nothing, whatever x is."""
    return members(a * x)


class Pairs:
    """The companion of a problem: how its gap is to be looked at."""

    def __init__(self, problem: Any) -> None:
        self.problem = problem
        self.data: Any = getattr(problem.method, "companion", None)

    @cached_property
    def k(self) -> float:
        return neutral(self.problem.method.word(self.problem.step(0)))

    @cached_property
    def smooth(self) -> bool:
        """Whether a smooth gap is as it should be, and is taken off."""
        return self.k < 0 and self.problem.driver is None

    def gap(self, parts: Parts) -> Any:
        return weighted(self.data.D, parts)


class Ahead:
    """Watches a march: is the state finite, and does the companion keep beside the solution?

        G = max |D_i| / s_i,        s_n = max(|y_n|, s_{n-1} exp(-20 |t_n - t_{n-1}| / T))           entry by entry

    s fades slowly, so that a solution that crosses zero is not small, and one that has decayed is.
    """

    def __init__(self, problem: Any, params: Any) -> None:
        self.problem, self.params = problem, params
        self.pairs = Pairs(problem)
        self.before: tuple[int, Parts] = (0, {})
        self.s: Any = None
        self.t = problem.ts[0]
        self.window: list[tuple[int, Any]] = []
        self.told = False
        self.G = 0.0

    @cached_property
    def stops(self) -> list[int]:
        """The grid points to look at, on a grid that is known."""
        N = self.problem.N
        width = 3 if self.pairs.data is not None and N and self.pairs.smooth else 1
        return sorted({N, *(n + i for n in places(N, width) for i in range(width))})

    def look(self, n: int, parts: Parts) -> None:
        plain = {name: value_of(part) for name, part in parts.items()}
        problem = self.problem
        if not all(np.isfinite(size(part)) for part in plain.values()):
            self.overflow(n)
        self.before = n, plain
        for name, part in plain.items():
            before = problem.scales.get(name)
            problem.scales[name] = abs(part) if before is None else np.maximum(before, abs(part))
        if self.pairs.data is not None and not self.told:
            self.judge(n, plain)

    def judge(self, n: int, parts: Parts) -> None:
        """The gap at n, or where its smooth part is taken off, at n - 1."""
        problem, pairs = self.problem, self.pairs
        y = abs(parts[problem.method.outputs[0]])
        ends = problem.ts[0], problem.ts[-1] if problem.adaptive is None else problem.adaptive.t1
        fading = math.exp(-20.0 * abs(float(problem.ts[n] - self.t)) / abs(float(ends[1] - ends[0]) or 1.0))
        self.s, self.t = y if self.s is None else np.maximum(y, fading * self.s), problem.ts[n]
        if not n:
            self.window = [(0, pairs.gap(parts))]
            return
        width = 3 if pairs.smooth else 1
        self.window = [*self.window[1 - width:], (n, pairs.gap(parts))] if width > 1 else [(n, pairs.gap(parts))]
        if len(self.window) < width or self.window[0][0] != n + 1 - width:
            return
        gap = parted([D for _, D in self.window], pairs.k)
        if pairs.data.velocity:
            gap = gap * float(problem.hs[n - 1])
        floor = float(np.finfo(y.dtype).eps) ** 0.5 * np.max(self.s, axis=-1, keepdims=True) if y.ndim else 0.0
        if abs(float(problem.ts[n] - ends[0])) < 0.05 * abs(float(ends[1] - ends[0])):
            return                                   # what starts at zero has no size yet
        G = size(gap / (np.maximum(self.s, floor) + float(np.finfo(y.dtype).tiny)))
        allowed = pairs.data.allowed if problem.driver is None else pairs.data.driven
        self.G = max(self.G, G)
        if G > allowed:
            self.told = problem.parted = True
            complain(problem, parted_copies(problem, pairs, {"step": n, "t": float(problem.ts[n]), "gap": G, "allowed": allowed}))

    def saw(self, ys: tuple) -> None:
        """Take saved states into account for the largest entries seen."""
        for name, y in zip(self.problem.method.outputs, ys, strict=True):
            if len(y):
                self.problem.scales[name] = np.maximum(self.problem.scales[name], np.max(abs(y), axis=0))

    def overflow(self, n: int) -> None:
        """Find the step at which the state stopped being finite, and say so."""
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
        raise FloatingPointError(
            f"solve: the state is no longer finite at step {at} of {self.problem.N} (t = {self.problem.ts[at]:.6g}); its "
            f"largest entry was {norm:.3g} one step before. " + (
                "Its two copies of the solution had parted long before: see the warning about that, and its remedies."
                if self.told else "Take smaller steps, or look at the field there."))


class Back:
    """Watches a reverse sweep. It is shown states and cotangents at `stops`, and beside what was saved what came back.

        A   = max over saved and seen n of |a_n y_n|                                             what there is, entry by entry
        W_p = max over compared n of |a_n (yhat_n - y_n)| / A                                    for dL/dparams
        W_y = max over compared n of |yhat_n - y_n| / (largest |y|)                              for dL/dy0
        E   = sum over n of |a_{n+1} r_n| / A,      r_n = y_{n+1} - Phi_h(yhat_n)                nearly reversible methods
        S_p = sum |b e| / sum |a_{n+1} (y_{n+1} - y_n)|,      S_y = sum over n of sum |b e| / sum |a y|          the parasite
    """

    def __init__(self, problem: Any, tol: float | None, ys: tuple, a_ys: tuple, a_parts: Parts) -> None:
        self.problem, self.tol = problem, TOL if tol is None else tol
        self.pairs = Pairs(problem)
        N = problem.N
        self.width = 1 if self.pairs.data is None else 4 if N and self.pairs.smooth else 2
        self.starts = places(N, self.width)[::-1]
        self.stops = {n + i for n in self.starts for i in range(self.width)}
        self.held: dict[int, tuple[Parts, Parts]] = {}
        self.ready: list[int] = []                   # first points of windows that are complete
        self.seen: list[tuple[int, Parts, Parts, Parts]] = []
        self.trips: list[tuple[int, float, float]] = []
        self.info = np.finfo(ys[0].dtype)
        self.A = {name: np.max(abs(a * y), axis=0) if len(y) else 0.0 for name, a, y in zip(
            problem.method.outputs, a_ys, ys, strict=True)}
        self.W_p: dict[str, Any] = {}
        self.W_y = 0.0
        self.sums: list[tuple] = []                  # |b e|, |a dy| and |a y|, by window and member
        # a loss that looks at the companion itself has a cotangent there which is no parasite
        self.aside = any(bool(np.any(a)) for name, a in a_parts.items() if name not in problem.method.outputs)

    def look(self, n: int, parts: Parts, cotangents: Parts) -> None:
        """State and cotangents at n, on the way back."""
        self.held[n] = parts, cotangents
        if self.starts and n == self.starts[0]:
            self.ready.append(self.starts.pop(0))
            room = sum(x.nbytes for parts in self.held[n] for x in parts.values()) * self.width
            if room * len(self.ready) > TOGETHER or not self.starts:
                self.weigh()

    def weigh(self) -> None:
        """Add up what the windows at hand say, all of them in one array."""
        data, half = self.pairs.data, self.width // 2
        rows = [[self.held[n + i] for n in self.ready] for i in range(self.width)]
        at = [{name: np.stack([parts[name] for parts, _ in row]) for name in row[0][0]} for row in rows]
        cotangents = {name: np.stack([a[name] for _, a in rows[half]]) for name in rows[half][0][1]}
        for name in self.problem.method.outputs:
            a = cotangents[name] if data is None else weighted(data.a, cotangents)
            ay = abs(a * at[half][name])
            self.A[name] = np.maximum(self.A[name], np.max(ay, axis=0))
        if data is not None:
            e = injected([self.pairs.gap(parts) for parts in at], self.pairs.k)
            self.sums.append((members(weighted(data.b, cotangents) * e), members(a * (at[half][name] - at[half - 1][name])), members(ay)))
        self.ready.clear()
        top = self.starts[0] + self.width if self.starts else 0
        self.held = {n: x for n, x in self.held.items() if n < top}

    def compare(self, n: int, parts: Parts, truth: Parts, cotangents: Parts) -> None:
        """What came back at step n beside what had been there."""
        self.seen.append((n, {name: parts[name] for name in truth}, truth, cotangents))
        if len(self.seen) == 8 or sum(x.nbytes for x in truth.values()) > TOGETHER:
            self.judge()

    def judge(self) -> None:
        outputs = self.problem.method.outputs
        for names in {tuple(truth) for _, _, truth, _ in self.seen}:              # saved states have fewer parts than kept ones
            rows = [row for row in self.seen if tuple(row[2]) == names]
            absolute: Any = 0.0
            largest: Any = 0.0
            for name in names:
                back, x, a = (np.stack([row[j][name] for row in rows]) for j in (1, 2, 3))       # type: ignore[index]
                off, axes = abs(back - x), tuple(range(1, x.ndim))
                absolute = np.maximum(absolute, np.max(off, axis=axes))
                largest = np.maximum(largest, np.max(abs(x), axis=axes))
                self.W_p[name] = np.maximum(self.W_p.get(name, 0.0), np.max(abs(a) * off, axis=0))
                if name in outputs:
                    scale = self.problem.scales[name]
                    floor = float(self.info.eps) ** 0.25 * size(scale) + float(self.info.tiny)
                    self.W_y = max(self.W_y, finite(number(np.max(off / np.maximum(scale, floor)))))
            self.trips += [(n, finite(number(absolute[j])), number(largest[j])) for j, (n, *_) in enumerate(rows)]
        self.seen.clear()

    def numbers(self, weighed: Any) -> dict[str, float]:
        """Everything that was measured."""
        tiny = float(self.info.tiny)
        outputs = self.problem.method.outputs
        A = {name: self.A[name if name in outputs else outputs[0]] + tiny for name in self.W_p}
        found = {"W_y": self.W_y, "W_p": max((finite(size(x / A[name])) for name, x in self.W_p.items()), default=0.0)}
        if weighed is not None:
            found["E"] = finite(size(weighed / (self.A[outputs[0]] + tiny)))
        if self.sums and not self.aside:
            be, moved, ay = (np.concatenate(column) for column in zip(*self.sums, strict=True))
            # what rounding puts into the gap of a state at rest is no parasite, and a state at zero has no size
            moved = moved + 1024 * float(self.info.eps) * ay
            ay = np.maximum(ay, 1e-3 * np.max(ay, axis=0)) + tiny
            found |= {"S_p": finite(size(np.sum(be, axis=0) / (np.sum(moved, axis=0) + tiny))),
                      "S_y": finite(size(np.sum(be / ay, axis=0))) * self.problem.N / len(be)}
        return found

    def verdict(self, largest: Any = None, weighed: Any = None) -> Verdict:
        """The judgement. Of methods that are nearly reversible also, entry by entry, max |r_n| and sum |a_{n+1} r_n|."""
        problem = self.problem
        self.judge()
        if largest is not None:
            problem.stats.defect = size(largest)
        problem.stats.roundtrip = trip = self.roundtrip()
        found = self.numbers(weighed)
        of_params = max(found["W_p"], found.get("E", 0.0))
        estimate = {"y0": max(found["W_y"], of_params), "params": of_params}
        wrong = [name for name, value in estimate.items() if value > self.tol and problem.asked[name]]
        details = {**found, "allowed": self.tol, "error": trip.absolute, "step": trip.step, "t": float(problem.ts[trip.step])}
        complaints = []
        if wrong:
            complaints.append(lost(problem, wrong, details))
        elif (found.get("S_p", 0.0) > S_P or found.get("S_y", 0.0) > S_Y) and not problem.parted:
            complaints.append(parted_copies(problem, self.pairs, details))
        return Verdict(estimate, complaints, found)

    def roundtrip(self) -> RoundTrip:
        if not self.trips:
            return RoundTrip(0.0, 0.0, 0)
        ulps = [off / (float(self.info.eps) * 2.0 ** math.floor(math.log2(max(largest, float(self.info.tiny)))))
                for _, off, largest in self.trips]
        n, off, _ = max(self.trips, key=lambda trip: trip[1])
        return RoundTrip(off, max(ulps), n)


def finite(x: float) -> float:
    """x, or Inf for what is not a number."""
    return x if x == x else float("inf")


# causes and remedies

TOL = 1e-3            # estimated relative error of the gradient from which a sweep is not trusted
S_P, S_Y = 0.005, 0.1

SMALLER, OTHER = "smaller steps", "the default method (method=None), which has no second copy"
STORED = "Reversible(resync=K), which stores a state every K steps; Checkpointed(n) or Direct()"


def followed(problem: Any) -> tuple[str, list[str]]:
    """Cause and remedies where the copies part."""
    method = problem.method
    if hasattr(method, "lam"):
        return (f"the solution contracts faster than {method!r} follows at this step size",
                ["lam = exp(-c h) with c above the contraction rate", SMALLER, OTHER])
    return (f"the solution contracts, and {method!r} follows {'little' if getattr(method, 'eta', 1.0) < 1 else 'no'} contraction",
            ["a method that bears contraction: Coupled with lam = exp(-c h), c above the contraction rate", SMALLER, OTHER])


def parted_copies(problem: Any, pairs: Pairs, details: dict) -> Complaint:
    cause, remedies = followed(problem)
    return Complaint(ParasiteWarning, f"solve: {pairs.data.what} part, so neither the solution nor its gradient can be trusted. "
                     f"Likely cause: {cause}. Remedies: {'; '.join(remedies)}.", details)


def lost(problem: Any, wrong: list[str], details: dict) -> Complaint:
    """The reverse sweep did not find the way back."""
    method = problem.method
    growth = abs(1.0 / neutral(method.word(problem.step(0)))) if hasattr(method, "word") else 1.0
    stretch = problem.resync or problem.N
    details = {**details, "growth": growth, "steps": stretch}
    grown = float(np.finfo(problem.hs[0]).eps) * growth ** min(stretch, 700 / max(math.log(growth), 1e-9)) if growth > 1 else 0.0
    remedies = [SMALLER]
    if grown > 0.1 * details["allowed"]:
        cause = f"each step back of {method!r} divides by its scales, so that rounding grows until nothing is left"
        remedies = ["scales closer to 1 (lam, eta)"]
    elif hasattr(method, "word"):
        cause, remedies = followed(problem)
    else:
        cause = "the solution contracts, or the steps are too large for their reversal, so that an error grows on the way back"
    what = " and ".join("dL/d" + name for name in wrong)
    return Complaint(ReconstructionWarning, f"Reversible: the reverse sweep did not find its way back, so {what} is wrong. "
                     f"Likely cause: {cause}. Remedies: {'; '.join([*remedies, STORED])}.", details)

"""Adaptive steps: a controller proposes steps, and what remains is a grid, which is data.

    error norm   E = sqrt(mean((e / (atol + rtol max(|y|, |y'|)))^2))      over all entries, batch included
    accept       E <= 1
    next step    h <- h * clip(safety * E_n^(-k1) E_{n-1}^(-k2) E_{n-2}^(-k3))
                 k1 = (p + i + d) / q,  k2 = -(p + 2 d) / q,  k3 = d / q,         q the power of h in the error estimate

A batch shares its steps (one grid for all), so that the reverse sweep has one grid as well. The accepted times alone are
kept, and h is recomputed from them as t1 - t0, bit for bit. No gradient flows through step sizes: the gradient is that of
the discrete map on the accepted grid, which is how it differs from what finite differences of the whole program give.
Sources: Soderlind 2003 (digital filters); Hairer, Norsett & Wanner, Solving ODEs I, II.4 (the first step).
"""
from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any, Protocol

import numpy as np

from .engine import tree
from .engine.tensor import beside, number, value_of
from .methods.companion import neutral
from .methods.increment import Evaluator
from .methods.shears import Parts, Step
from .stepping import Problem
from .watch import size
from .watch.gaps import injected, weighted


@dataclass(frozen=True)
class PID:
    """A step size controller: steps as long as the estimated local error allows.

        E = sqrt(mean((e / (atol + rtol max(|y|, |y'|)))^2)),       accepted if E <= 1
        h <- h safety E_n^(-k1) E_{n-1}^(-k2) E_{n-2}^(-k3)

    over all entries, batch included. No gradient flows through the sizes of steps.

    Parameters
    ----------
    rtol, atol : the local error is kept below atol + rtol * |y|, in the root mean square over all entries. Numbers, or arrays
        (lists) that broadcast against y, one tolerance for each component, or for a y0 that is a tree of dicts, lists and tuples a
        tree like it; atol in the unit of y, rtol without.
    p, i, d : coefficients of the controller; (0, 1, 0) is the classical one, (0.4, 0.3, 0) is calmer on stiff problems.
    safety, shrink, grow : the next step is safety * (what the error allows), within [shrink, grow] times the last one.
    min_step : a smaller step than this is an error; default ten units in the last place of t, in y's dtype.
    max_step : largest step; default the whole interval.
    max_steps : more accepted and rejected steps than this is an error.

    Raises ValueError or TypeError for numbers that make no controller; in a solve FloatingPointError where steps get too
    small or too many.

    Cost: rejected steps are thrown away (`stats.rejected`); the embedded method of some pairs needs one more evaluation.
    Source: Soderlind 2003 (digital filters); Hairer, Norsett & Wanner, Solving ODEs I, II.4 (the first step).

    Example
    -------
    >>> from revode import solve
    >>> sol = solve(lambda t, y, p: -y, np.ones(1), (0.0, 10.0), controller=PID(rtol=1e-6, atol=1e-9))
    >>> bool(abs(sol.y1[0] - np.exp(-10.0)) < 1e-6), bool(np.diff(sol.ts)[0] < np.diff(sol.ts)[-2])
    (True, True)
    """
    rtol: Any = 1e-3
    atol: Any = 1e-6
    p: float = 0.0
    i: float = 1.0
    d: float = 0.0
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0
    min_step: float | None = None
    max_step: float | None = None
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            object.__setattr__(self, name, tolerance(name, getattr(self, name)))
        whole = not any(is_tree(x) for x in (self.rtol, self.atol))             # a tree of them meets y first
        if whole and not (broadcast(np.shape(self.rtol), np.shape(self.atol)) and np.all(np.add(self.rtol, self.atol) > 0)):
            raise ValueError(f"PID: rtol={self.rtol!r}, atol={self.atol!r}; both are >= 0 and one is > 0, for every component")
        for name in ("p", "i", "d", "safety", "shrink", "grow", "min_step", "max_step", "max_steps"):
            given = getattr(self, name)
            if not (isinstance(given, Real) or (given is None and name in ("min_step", "max_step"))):
                raise TypeError(f"PID: {name}={given!r}; give a number")
        if not (0 < self.shrink < 1 < self.grow and 0 < self.safety <= 1):
            raise ValueError(f"PID: safety={self.safety!r}, shrink={self.shrink!r}, grow={self.grow!r}; safety is in (0, 1], and "
                             "shrink < 1 < grow")
        if not all(np.isfinite(x) for x in (self.p, self.i, self.d)):
            raise ValueError(f"PID: p={self.p!r}, i={self.i!r}, d={self.d!r}; the coefficients are finite numbers")
        smallest, largest = self.min_step or 0.0, self.max_step if self.max_step is not None else np.inf
        if not (0 <= smallest <= largest and largest > 0 and self.max_steps >= 1):
            raise ValueError(f"PID: min_step={self.min_step!r}, max_step={self.max_step!r}, max_steps={self.max_steps!r}; "
                             "steps are positive sizes with min_step <= max_step, and max_steps is at least 1")


def tolerance(name: str, given: Any) -> Any:
    """A number, or for each component one, in nested tuples: data that can be compared and hashed."""
    if isinstance(given, Real) and float(given) >= 0:
        return float(given)
    if is_tree(given):
        return {key: tolerance(name, x) for key, x in given.items()} if isinstance(given, dict) else tuple(
            tolerance(name, x) for x in given)
    try:
        found = np.asarray(given)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype.kind not in "iuf":
        raise TypeError(f"PID: {name}={given!r}; give a number, or an array of numbers that broadcasts against y")
    if not (found.size and np.all(found >= 0)):
        raise ValueError(f"PID: {name}={given!r}; tolerances are >= 0, and rtol or atol is > 0")
    return nested_tuple(found.astype(np.float64).tolist())


def is_tree(given: Any) -> bool:
    """Whether a tolerance is one for each leaf of y: a dict, or a list or tuple that makes no array."""
    if isinstance(given, (list, tuple)):
        try:
            return np.asarray(given).dtype == object
        except ValueError:
            return True
    return isinstance(given, dict)


def by_leaf(name: str, given: Any, y: Any) -> Any:
    """A tolerance for each entry of a tree y, in its order, from one number, or from a tree of numbers and arrays like y."""
    if isinstance(y, (dict, list, tuple)) and not isinstance(given, float):
        keys: Any = y if isinstance(y, dict) else range(len(y))
        own: Any = given if isinstance(given, dict) else range(len(given))
        if isinstance(given, dict) is not isinstance(y, dict) or set(own) != set(keys):
            raise ValueError(f"solve: PID has {name}={given!r} for a y of {tree.describe(y)}; give one number, or a tree like y0, "
                             "with numbers or arrays")
        return np.concatenate([by_leaf(name, given[key], y[key]) for key in keys])
    leaves = [np.shape(value_of(x)) for x in tree.flatten(y)[0]]
    if np.shape(given) and (len(leaves) > 1 or broadcast(np.shape(given), leaves[0]) != leaves[0]):
        raise ValueError(f"solve: PID has {name} of shape {np.shape(given)} for y of shape {leaves[0]}; give one number, or an array "
                         "that broadcasts against it")
    return np.concatenate([np.broadcast_to(given, shape).ravel() for shape in leaves])


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | bool:
    """The shape that these make together, or False if they do not go together; () is True."""
    try:
        return np.broadcast_shapes(*shapes) or True
    except ValueError:
        return False


def nested_tuple(x: Any) -> Any:
    return tuple(nested_tuple(entry) for entry in x) if isinstance(x, list) else x


class Adaptive:
    """The controller at work: it extends the grid of its problem by one accepted step at a time."""

    def __init__(self, controller: PID, t1: float, direction: float, dt0: float | None, save_at: tuple[float, ...] | None,
                 last_only: bool, dtype: Any) -> None:
        self.controller, self.t1, self.direction, self.dtype = controller, t1, direction, np.dtype(dtype)
        self.h = self.bounded(dt0 or 0.0)          # the next step to try, positive; 0 until it is estimated
        self.stops = [*(save_at or ()), t1]        # times that the grid has to hit, the next one first
        self.save_at = None if save_at is None else set(save_at)
        self.last_only = last_only
        self.norms: list[float] = []               # of the accepted steps before, newest first
        self.tries = 0
        self.parting = False                       # whether it was the gap of two copies that limited the last step

    @property
    def tolerances(self) -> tuple[np.ndarray, np.ndarray]:
        """rtol and atol, as programs take them."""
        return np.asarray(self.controller.rtol, self.dtype), np.asarray(self.controller.atol, self.dtype)

    def stop_at(self, times: list[float]) -> None:
        """Make further times grid points, such as the corners of a control."""
        self.stops = sorted({*self.stops, *times}, reverse=self.direction < 0)

    def arrived(self, problem: Problem) -> bool:
        return problem.ts[-1] == self.t1

    def saves(self, problem: Problem, n: int) -> bool:
        if self.last_only:
            return problem.done(n)
        return self.save_at is None or float(problem.ts[n]) in self.save_at

    def advance(self, problem: Problem, parts: Parts, F: Evaluator) -> Parts:
        """The next accepted step, on the tape; its end is appended to the grid."""
        self.begin(problem, parts, F.params)
        trial = OnTape(problem, parts, F)
        self.search(problem, trial)
        return trial.kept()

    def begin(self, problem: Problem, parts: Parts, params: Any) -> None:
        """Choose the size of a first step, unless one was given."""
        if not self.h:
            self.h = first_step(problem, parts, params, self.t1 - problem.ts[-1], self.controller)

    def search(self, problem: Problem, trial: Trial) -> None:
        """Attempts from the end of the grid, until one is accepted."""
        t0, scalar = problem.ts[-1], trial.dtype.type
        limit = self.smallest(t0, scalar)
        while True:
            self.tries += 1
            if self.tries > self.controller.max_steps:
                self.fail(problem, trial.largest(), self.too_many)
            t1 = self.end_of_step(t0)
            h = as_step(scalar(t1 - t0), problem)
            norm, apart = trial.attempt(t0, t1, h, problem.hs[-1] if problem.hs else h)
            self.parting, norm = apart > norm, max(norm, apart)
            if self.judge(t0, t1, norm, problem.method.error_order):
                problem.ts.append(t1)
                problem.hs.append(h)
                return
            trial.reject()
            problem.stats.rejected += 1
            if self.h < limit:
                self.fail(problem, trial.largest(), self.too_small(t0, scalar))

    def judge(self, t0: Any, t1: Any, norm: float, q: int) -> bool:
        """Whether the step is accepted; the size of the next one follows."""
        factor, length = self.factor(norm, q), abs(t1 - t0)
        if norm > 1:
            self.h = self.bounded(length * factor)
            return False
        self.norms = [norm, *self.norms[:1]]
        if t1 == self.t1 or length >= 0.99 * self.h or factor < 1:
            self.h = self.bounded(length * factor)                     # a step cut short by a stop says little
        return True

    def smallest(self, t0: Any, scalar: Any) -> float:
        """The size below which a step is an error."""
        return self.controller.min_step or max(10 * np.spacing(max(abs(t0), abs(self.t1))), 10 * float(np.spacing(scalar(abs(t0)))))

    @property
    def too_many(self) -> str:
        return f"took max_steps={self.controller.max_steps} steps"

    def too_small(self, t0: Any, scalar: Any) -> str:
        coarse = 64 * float(np.spacing(scalar(abs(t0)))) > self.h > 0 and self.controller.min_step is None
        return f"would need a step of {self.h:.3g}" + (
            f", too small for t in {np.dtype(scalar)} (count time from the start, or use float64)," if coarse else "")

    def end_of_step(self, t0: Any) -> Any:
        """t0 + h, but never past the next stop, and not leaving a crumb before it."""
        while (self.stops[0] - t0) * self.direction <= 0:
            del self.stops[0]
        stop = self.stops[0]
        left = abs(stop - t0)
        if left <= self.h * 1.0001:
            return np.float64(stop)
        return np.float64(t0 + self.direction * (self.h if left >= 2 * self.h else left / 2))

    def powers(self, q: int) -> tuple[float, float, float]:
        """k1, k2, k3 of the error norms of this step and the two before it, with their signs."""
        c = self.controller
        return -(c.p + c.i + c.d) / q, (c.p + 2 * c.d) / q, -c.d / q

    def options(self, q: int) -> tuple[float, ...]:
        """What the controller is made of, as numbers: those of search.hpp."""
        c = self.controller
        return (self.direction, self.t1, c.safety, c.shrink, c.grow, np.inf if c.max_step is None else c.max_step, c.min_step or 0.0,
                *self.powers(q))

    def factor(self, norm: float, q: int) -> float:
        c, (k1, k2, k3) = self.controller, self.powers(q)
        if not isfinite(norm):
            return c.shrink
        e1, e2 = [*self.norms, 1.0, 1.0][:2]
        tiny = 1e-10                               # an error of exactly zero grows the step by the most that is allowed
        value = c.safety * max(norm, tiny) ** k1 * max(e1, tiny) ** k2 * max(e2, tiny) ** k3
        value = min(max(value, c.shrink), c.grow)
        return value if norm <= 1 else min(value, c.safety)

    def bounded(self, h: float) -> float:
        return h if self.controller.max_step is None else min(h, self.controller.max_step)

    def fail(self, problem: Problem, largest: float, what: str) -> None:
        raise FloatingPointError(
            f"solve: the controller {what} at t = {problem.ts[-1]:.6g} (h = {self.h:.3g}, largest entry of y {largest:.3g}, "
            f"{problem.N} steps accepted, {problem.stats.rejected} rejected). " + (
                f"Its steps have to keep {problem.method.companion.what.rstrip(',')} together, because the solution contracts faster "
                f"than {problem.method!r} follows; give it a smaller lam, or use the default method (method=None)."
                if self.parting and problem.parted else
                "The problem may be stiff or singular there; raise rtol and atol, or look at the field."))


def as_step(h: Any, problem: Problem) -> Any:
    return np.asarray(h) if problem.plain else float(h)


def as_steps(hs: np.ndarray, problem: Problem) -> list:
    """as_step() of many."""
    return [hs[k, ...] for k in range(len(hs))] if problem.plain else hs.tolist()


class Trial(Protocol):
    """Who attempts steps from where the grid ends."""
    dtype: Any

    def attempt(self, t0: Any, t1: Any, h: Any, h_before: Any) -> tuple[float, float]:
        """Try the step from t0 to t1: the norm of its error, and of what it puts between two copies of the solution (or 0)."""

    def reject(self) -> None:
        """Back to where the step began."""

    def largest(self) -> float:
        """The largest entry of the solution there."""


class OnTape:
    """Attempts on the tape, operation by operation, of arrays or tensors."""

    def __init__(self, problem: Problem, parts: Parts, F: Evaluator) -> None:
        self.problem, self.parts, self.F, self.after = problem, parts, F, parts
        self.dtype = value_of(problem.output(parts)[0]).dtype
        self.memo = {name: dict(values) for name, values in F.memo.items()}
        self.most = None if F.most is None else dict(F.most)

    def attempt(self, t0: Any, t1: Any, h: Any, h_before: Any) -> tuple[float, float]:
        problem = self.problem
        step = problem.between(problem.N, t0, t1, h, h_before)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):      # what overflows is rejected
            self.after, errors = estimated(problem.method, step, self.parts, self.F)
            before, after = (value_of(problem.output(parts)[0]) for parts in (self.parts, self.after))
            scales = scales_of(problem.adaptive.controller, before)
            norms = [norm_of(squares(value_of(e), before, after, *scales), after) for e in errors]
        return norms[0], norms[1] if len(norms) > 1 else 0.0

    def reject(self) -> None:
        self.F.most = None if self.most is None else dict(self.most)
        if self.problem.method.exactly_reversible:       # a flow left only the field value at (t0, y), which stays valid
            self.F.memo = {name: dict(values) for name, values in self.memo.items()}

    def largest(self) -> float:
        return max(size(value_of(y)) for y in self.problem.output(self.parts))

    def kept(self) -> Parts:
        """The parts after the step that was accepted."""
        if not self.problem.method.exactly_reversible:
            self.F.memo.clear()
        return self.after


def estimated(method: Any, step: Step, parts: Parts, F: Evaluator) -> tuple[Parts, list]:
    """The parts after a step, the estimate of its error, and what it put between the two copies of the solution, if there are two.

    (Not the gap between them itself, which no smaller step would make less; and of reversible Heun nothing: what a step puts into
    its gap is its error already.)
    """
    after, error = method.attempt(step, parts, F)
    companion, k = method.companion, 0.0 if method.companion is None else neutral(method.word(step))
    if companion is None or k < 0:
        return after, [error]
    return after, [error, injected([weighted(companion.D, parts), weighted(companion.D, after)], k)]


def squares(error: Any, y: Any, y1: Any, rtol: Any, atol: Any) -> Any:
    """The sum over all entries of the squares of error / (atol + rtol max(|y|, |y1|))."""
    ratio = error / weight(np.maximum(abs(y), abs(y1)), rtol, atol)
    return np.sum(ratio * ratio)


def norm_of(total: Any, y1: Any) -> float:
    """The root of the mean over the entries of y1, from the sum of squares; Inf where anything is not finite."""
    norm = number(np.sqrt(total / y1.size))
    return norm if isfinite(norm) and isfinite(size(y1)) else float("inf")


def scales_of(controller: PID, y: Any) -> tuple[Any, Any]:
    """rtol and atol, beside y."""
    place = beside(y)
    rtol, atol = (x if type(x) is float else place(np.asarray(x, y.dtype)) for x in (controller.rtol, controller.atol))
    return rtol, atol


def weight(y: Any, rtol: Any, atol: Any) -> Any:
    """atol + rtol |y|, never zero."""
    return np.maximum(atol + rtol * y, float(np.finfo(y.dtype).tiny))


def first_step(problem: Problem, parts: Parts, params: Any, span: float, controller: PID) -> float:
    """Hairer's guess: the step at which an explicit Euler step, and then the method, would make a small error."""
    y = value_of(problem.output(parts)[0])
    params = tree.map(value_of, params)
    t0, direction = problem.ts[0], np.sign(span)

    def rate(t: Any, y: Any) -> Any:
        return problem.system.rate(problem.system.coefficients(t, y, params), t)

    f0 = rate(t0, y)
    scale = weight(abs(y), *scales_of(controller, y))

    def norm(x: Any) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            return min(number(np.sqrt(np.mean((x / scale) ** 2))), 1e100)

    d0, d1 = norm(y), norm(f0)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h0 = min(h0, abs(span))
    f1 = rate(t0 + direction * h0, y + float(direction * h0) * f0)
    d2 = norm(f1 - f0) / h0
    h1 = max(1e-6, h0 * 1e-3) if max(d1, d2) <= 1e-15 else (0.01 / max(d1, d2)) ** (1 / problem.method.error_order)
    h = min(100 * h0, h1, abs(span))
    return h if controller.max_step is None else min(h, controller.max_step)



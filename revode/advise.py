"""Which lam, which resync: the round trip of a reversible solve, predicted before anything is trained.

Two things go wrong in a reversible method, both of them exponentially:

    forward    the copies y, z part: their difference follows  w <- lam Phi_{-h}(w),  the flow BACKWARDS, damped by lam.
               It dies out where lam < exp(h mu), mu < 0 the rate of the strongest contraction.
    backward   round-off grows: each step undone multiplies it by about G = max(|R| / lam, 1 / |R|).

Rates at single points say little (the strongest direction turns), so perturbations are carried along a trial trajectory:
w with the reversed flow and v with the flow, whose growth gives the contraction and the expansion; and the error of the
reverse sweep itself, linearised,

    e_n = [undo(x_{n+1} + s e_{n+1}) - undo(x_{n+1})] / s + [undo(x_{n+1}) - x_n] + u              s e_{n+1} = O(sqrt(eps))

with the defect of the step in the second bracket (large for methods that are only nearly reversible) and u half a unit in
the last place at random: on the trajectory itself a step and its inverse often round to where they started, next to it they
do not. That is the power iteration for the leading growth, in the order in which the sweep multiplies the steps. The rates
are those along a solve by the plain base, which stays on the solution even where the reversible method leaves it.
Source: the two roots R and lam / R of the coupled pair, McCallum & Foster 2024 (arXiv 2410.11648), section on stability.
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .checks import prepare
from .engine import tree
from .engine.tensor import beside, number, to_host, value_of
from .methods import Coupled, NearReversible, RungeKutta
from .methods.increment import Evaluator
from .methods.runge_kutta import increment_of
from .methods.shears import Parts, inverse
from .methods.tableaux import Tableau
from .problem import Asked
from .stepping import escaped, one_step
from .watch import TOL as NEAR
from .watch import Ahead, ParasiteWarning, size

PARTING = 100.0     # the copies may part this many times further than one step brings them before the method is unsuited
MARGIN = 1.1        # the recommended lam bears this many times the contraction rate that was found
SAMPLES = 2         # of the rounding, whose mean square is predicted: one alone can happen to miss the leading direction
RESERVE = 10.0      # what the recommendation stays below the tolerance by, as predictions are good to this factor


@dataclass(frozen=True, repr=False)
class Advice:
    """What `advise` found. Rates are per unit of time, averaged along the trial; sizes are absolute, as |y| is. Print it.

    Parameters
    ----------
    method : that was asked about.
    steps, h : of the grid; h is the mean step.
    scale : largest |y| along the trial.
    tol : largest relative error of the round trip that is accepted.
    contraction, peak, expansion : the rate of the strongest contraction, that of the fastest single step, and of the expansion.
    lam_below : lam suits in the long run if it is below this, exp(-contraction h).
    parting : times that a difference of the copies grows before it dies out.
    suits, diverges : whether the copies stay together over this grid, and whether the trial stopped being finite.
    amplification : times that the round-off of one step has grown when the reverse sweep ends.
    roundtrip, relative : predicted largest error of the reconstruction, and the same relative to each entry's largest value.
    recommended, resync, recommended_roundtrip : a method that suits, what to give Reversible, and the error expected with both.
    """
    method: Any              # that was asked about
    steps: int
    h: float                 # the mean step
    scale: float             # largest |y| along the trial
    tol: float               # largest relative error of the round trip that is accepted
    contraction: float       # rate at which undamped copies would part: the growth of w' = -A(t) w, A = df/dy along the
                             # trial (of the strongest contraction, where A hardly turns); NaN where the field is not y'
    peak: float              # the fastest that any single step contracts
    expansion: float         # rate of the strongest expansion
    lam_below: float         # lam suits in the long run if it is below this, exp(-contraction h)
    parting: float           # times that a difference of the copies grows before it dies out; inf: too large to tell
    suits: bool              # whether the copies stay together over this grid
    diverges: bool           # whether the trial solve with the method was no longer finite
    amplification: float     # times that the round-off of one step has grown when the reverse sweep ends
    roundtrip: float         # predicted largest error of the reconstruction, as sol.stats.roundtrip.absolute
    relative: float          # the same, each entry relative to its own largest value: what Reversible warns of past tol
    recommended: Any         # a method that suits
    resync: int | None       # for Reversible(resync=...); None: not needed
    recommended_roundtrip: float      # predicted, with both

    @property
    def follows(self) -> float:
        """The fastest contraction that the method follows at this step size; inf for one without copies."""
        return parasitic(self.method).contraction_limit(self.h) if parasitic(self.method) else math.inf

    @property
    def ok(self) -> bool:
        """Whether the method can be used as it is, with Reversible()."""
        return self.suits and self.relative <= self.tol

    def __repr__(self) -> str:
        return f"Advice({self.method!r}, {self.steps:,} steps: {'use it as it is' if self.ok else f'better {self.instead}'})"

    def _repr_html_(self) -> str:
        return f"<pre>{escaped(self)}</pre>"

    @property
    def instead(self) -> str:
        """What suits, as arguments of `solve`."""
        how = "Reversible()" if self.resync is None else f"Reversible(resync={self.resync})"
        return f"method={self.recommended!r}, gradient={how}"

    def __str__(self) -> str:
        many = f"{self.steps:,} steps of {self.h:.4g}, |y| up to {self.scale:.3g}"
        lines = [f"{self.method!r} on this problem ({many}):"]
        if math.isfinite(self.contraction):
            lines.append(f"  rates per unit of time  from {-self.contraction:.4g} to {self.expansion:.4g} on average, "
                         f"{-self.peak:.4g} in the most contracting step")
            verdict = f"{'suits' if self.suits else 'does not suit'} (their difference grows {self.parting:.2g} times at most)"
            if self.method.lam is not None:
                lines.append(f"  forward                 lam < {self.lam_below:.6g} keeps the copies together in the long run, "
                             f"lam is {self.method.lam:.6g}: {verdict}")
            elif parasitic(self.method):
                lines.append(f"  forward                 follows contraction up to {self.follows:.4g}: {verdict}")
        lost = ", all digits are lost" if self.relative > 1 else ""
        lines.append("  reverse sweep           nothing to go back to: the copies part until they overflow" if self.diverges else
                     f"  reverse sweep           round-off grows {self.amplification:.2g} times: error {self.roundtrip:.2g} "
                     f"expected{lost}; relative {self.relative:.2g}, allowed {self.tol:.2g}")
        lines.append("  use it as it is" if self.ok else
                     f"  better                  {self.instead}: error {self.recommended_roundtrip:.2g} expected")
        return "\n".join(lines)


def advise(field: Callable, y0: Any, ts: Any, params: Any = None, *, method: Any = None, tol: float | None = None) -> Advice:
    """Try a problem out: does the method suit it, how well will the reverse sweep find its way back, and what is better?

    Parameters
    ----------
    field, y0, ts, params : as for `solve`; after an adaptive solve, ts = sol.ts.
    method : a method that can be run backwards; by default that of `solve`, NearReversible("rk4").
    tol : largest acceptable error of the round trip, each entry relative to its largest value; by default
        sqrt(eps) for exactly reversible methods, and that of Reversible for nearly reversible ones.

    Returns an Advice; print it. Its predictions hold within a factor of about 10 while errors are small compared with y;
    larger ones mean that all digits are gone.
    Raises TypeError for a method without a reverse step, and what `solve` raises for bad input.

    Cost: one solve with the base and 8 evaluations a step for the rates; one solve with the method, and about four times
    that for a sweep: one sweep, and a few more where something else is recommended. One to three times that of a
    gradient with Reversible(); 2 sqrt(N) states.
    Source: the two roots R and lam / R of the coupled pair, McCallum & Foster 2024 (arXiv 2410.11648), section on stability.

    Example
    -------
    >>> decay = lambda t, y, params: -2.0 * y
    >>> advice = advise(decay, np.array([1.0]), np.linspace(0.0, 10.0, 1001), method=Coupled("midpoint", lam=0.999))
    >>> advice.suits, round(advice.contraction, 3), round(advice.lam_below, 3)
    (False, 2.0, 0.98)
    """
    if tol is not None and not tol > 0:
        raise ValueError(f"advise: tol={tol!r}; a positive number, or None for what Reversible allows")
    if isinstance(method, Coupled) and method.lam == "auto":
        method = Coupled(method.base, coupling(field, y0, ts, params, method.base))
    trial = Trial(field, y0, ts, params, NearReversible("rk4") if method is None else method)
    method = trial.method
    limit = tol if tol is not None else trial.eps ** 0.5 if method.exactly_reversible else NEAR
    kappa = parasite(method, trial)
    parting = 1.0 if kappa is None else partings(trial.contracting, kappa)
    path = trial.rehearse(method)
    diverges = path is None
    suits = parting <= PARTING and path is not None and not path.parted
    found = path.sweep() if path else Swept(math.inf, math.inf, None, 1.0)
    recommended, resync, better = method, None, found
    if not (suits and found.relative <= limit):
        if not suits or isinstance(method, Coupled):
            recommended, path = followed(trial, method, suits)
        if path:
            resync, better = often_enough(path, limit / RESERVE)
    span = abs(float(trial.problem.ts[-1] - trial.problem.ts[0]))
    h = span / trial.problem.N
    contraction = float(trial.contracting.sum()) / span
    return Advice(
        method=method, steps=trial.problem.N, h=h, scale=trial.scale, tol=limit, contraction=contraction,
        peak=float((trial.contracting / abs(np.asarray(trial.problem.hs, float))).max()),
        expansion=float(trial.expanding.sum()) / span, parting=parting, suits=suits, diverges=diverges,
        lam_below=math.exp(-max(contraction * h, 0.0)) if trial.rated else math.nan,
        amplification=found.error / found.local if found.local else 1.0, roundtrip=found.error, relative=found.relative,
        recommended=recommended, resync=resync, recommended_roundtrip=better.error)


def often_enough(path: Rehearsal, limit: float) -> tuple[int | None, Swept]:
    """After how many steps a sweep along this path should start anew (None: never), and how it does then."""
    better = path.sweep(restart=limit)
    resync = better.stretch
    while resync is not None:
        better = path.sweep(resync=resync)
        if better.relative <= limit or resync == 1:
            break
        resync = max(1, int(0.7 * resync))
    return resync, better


def followed(trial: Trial, method: Any, suits: bool) -> tuple[Any, Rehearsal | None]:
    """A method whose rehearsal stays on the solution: coupled, or else the default, which has no second copy.

    The copies' difference falls like (lam / R)^n beside R^n, so where the solution itself decays, lam has to be below R^2.
    """
    lam = gentlest(trial.contracting)
    base = method.base if isinstance(method, Coupled) else "midpoint"
    lams = [max(lam, method.lam) if suits else lam, round(lam * lam, 6)]
    for candidate in (*(Coupled(base, lam) for lam in lams if 0 < lam), NearReversible("rk4")):
        path = trial.rehearse(candidate)
        if path is not None and not path.parted:
            break
    return candidate, path


def coupling(field: Callable, y0: Any, ts: Any, params: Any = None, base: str | Tableau = "midpoint") -> float:
    """The lam for Coupled(base, lam) on this problem: the largest with which the copies stay together.

    Arguments as for `advise`. Cost: one solve with the base, and 8 evaluations a step.

    Example
    -------
    >>> lam = coupling(lambda t, y, params: -2.0 * y, np.array([1.0]), np.linspace(0.0, 10.0, 1001))
    >>> round(-float(np.log(lam)) / 0.01, 1)        # 1.1 times the contraction rate
    2.2
    """
    return gentlest(Trial(field, y0, ts, params, Coupled(base)).contracting)


def gentlest(contracting: np.ndarray) -> float:
    """The largest lam that suits these rates: parting at most tenfold, and MARGIN above the mean contraction.

    Without contraction, as near 1 as costs one digit of the reverse sweep (lam^-N = 10), but not below .999.
    """
    low, high = 0.0, max(float(contracting.max()), 0.0) + 1e-3
    for _ in range(50):
        kappa = 0.5 * (low + high)
        low, high = (low, kappa) if partings(contracting, kappa) <= 10 else (kappa, high)
    N = len(contracting)
    loss = -math.expm1(-max(high, MARGIN * float(contracting.mean()), min(1e-3, math.log(10) / N)))      # 1 - lam
    digits = 2 - math.floor(math.log10(loss))
    return round(1 - math.ceil(loss * 10**digits) / 10**digits, digits)       # three figures of 1 - lam, on the safe side


def partings(contracting: np.ndarray, kappa: float) -> float:
    """How many times a difference between the copies grows at most, from any step to any later one."""
    path = np.concatenate([[0.0], np.cumsum(contracting - kappa)])
    worst = float((path - np.minimum.accumulate(path)).max())
    return math.exp(worst) if worst < 700 else math.inf


def parasite(method: Any, trial: Trial) -> float | None:
    """-log of the factor by which a step damps the difference of the copies; None for a method that has no copies."""
    if not trial.rated or not parasitic(method):
        return None
    return float(parasitic(method).contraction_limit(1.0))


def parasitic(method: Any) -> Any:
    """The method (for a composition, the composed one) if it has copies that can part, else None."""
    method = method.composed
    return method if method.contraction_limit is not None else None


class Trial:
    """A problem with the rates along a solve by a plain base method, which follows the solution whatever the copies do."""

    def __init__(self, field: Callable, y0: Any, ts: Any, params: Any, method: Any) -> None:
        self.problem, initial, params, _ = prepare(Asked(field, y0, ts, params, method, save=[-1]))
        self.method = self.problem.method
        if not self.problem.N:
            raise ValueError(f"advise: ts={np.asarray(ts).tolist()} holds no step; give a grid of two times or more")
        if not self.method.reversible:
            raise TypeError(f"advise: {self.method!r} cannot be run backwards; ask about Coupled({self.method.base!r}), which is "
                            "that method made reversible")
        self.initial, self.params = tree.map(value_of, initial), tree.map(value_of, params)
        self.eps = float(np.finfo(tree.flatten(self.initial)[0][0].dtype).eps)
        self.scale = 0.0
        # Of a split method the field is not y', and of a user's word nobody knows.
        self.rated = len(self.method.outputs) == 1 and self.method.order is not None
        self.expanding, self.contracting = np.full((2, self.problem.N), math.nan)        # logarithms, a step
        if self.rated:
            self.rate(RungeKutta(self.method.base))

    def rate(self, guide: RungeKutta) -> None:
        """Carry a perturbation with the flow, and one against it."""
        psi, F = increment_of("midpoint"), self.increment()
        with_flow, against = (Perturbation(self.initial, self.eps) for _ in range(2))
        for n, before, after in self.walk(guide):
            t0, t1, dx, _ = self.problem.step(n)
            self.expanding[n] = with_flow.carry(lambda y: y + psi(F, t0, t1, y, dx), before["y"])
            self.contracting[n] = against.carry(lambda y: y + psi(F, t1, t0, y, -dx), after["y"])
            self.scale = max(self.scale, size(before["y"]), size(after["y"]))

    def increment(self) -> Evaluator:
        return Evaluator(self.problem.system, self.params)

    def walk(self, method: Any) -> Iterator[tuple[int, Parts, Parts]]:
        """(n, parts before, parts after) for every step."""
        parts = method.start(self.increment(), self.problem.step(0), self.initial)
        for n in range(self.problem.N):
            with np.errstate(over="ignore", invalid="ignore"):
                after = one_step(method, self.problem.step(n), parts, self.increment())
            if not all(math.isfinite(size(x)) for x in after.values()):
                raise FloatingPointError(
                    f"advise: the trial solve with {method!r} is no longer finite at step {n + 1} of {self.problem.N} (t = "
                    f"{self.problem.ts[n + 1]:.6g}). Take smaller steps, or look at the field there.")
            yield n, parts, after
            parts = after

    def rehearse(self, method: Any) -> Rehearsal | None:
        """The solve by this method, ready to be swept backwards; None where its copies part so far that it overflows."""
        try:
            path = Rehearsal(self, method)
        except FloatingPointError:
            if not self.rated:
                raise
            return None
        self.scale = self.scale if self.rated else path.scale
        return path


class Swept(NamedTuple):
    """What a reverse sweep would do."""
    error: float             # largest error of the reconstruction
    relative: float          # largest error of an entry, relative to the largest value that it takes
    stretch: int | None      # shortest number of steps between restarts, if there were any
    local: float             # largest error that a single step adds


class Rehearsal:
    """A solve of which every stride-th state is kept; each stretch between is computed again on the way back."""

    def __init__(self, trial: Trial, method: Any) -> None:
        self.trial, self.method, self.problem = trial, method, trial.problem
        self.stride = math.isqrt(self.problem.N) + 1
        self.kept: dict[int, Parts] = {}
        self.scales: Parts = {}
        rehearsal = replace(trial.problem, method=method, scales={}, parted=False, strict=False)
        ahead = Ahead(rehearsal, trial.params)
        stops = set(ahead.stops)
        for n, before, after in trial.walk(method):
            if n % self.stride == 0:
                self.kept[n] = before
            if n == 0:
                ahead.look(0, before)
            if n + 1 in stops:
                with warnings.catch_warnings():                            # the advice says it
                    warnings.simplefilter("ignore", ParasiteWarning)
                    ahead.look(n + 1, after)
            self.scales = {name: np.maximum(np.maximum(self.scales.get(name, 0.0), abs(before[name])), abs(x))
                           for name, x in after.items()}
        self.scale = max(size(self.scales[name]) for name in method.outputs)
        self.parted = rehearsal.parted                                     # a solve by this method would warn of its copies

    def backwards(self) -> Iterator[tuple[int, Parts, Parts]]:
        """(n, parts before, parts after) for every step, last first."""
        N = self.problem.N
        for first in reversed(range(0, N, self.stride)):
            stretch = [self.kept[first]]
            for n in range(first, min(first + self.stride, N)):
                stretch.append(one_step(self.method, self.problem.step(n), stretch[-1], self.trial.increment()))
            for k in reversed(range(len(stretch) - 1)):
                yield first + k, stretch[k], stretch[k + 1]

    def sweep(self, resync: int | None = None, restart: float | None = None) -> Swept:
        """Predict a reverse sweep.

        resync: the error returns to zero at every resync-th grid point. restart: it does where the relative error would
        pass this.
        """
        worst = relative = largest = 0.0
        shortest, length = None, 0
        errors: list[Parts] = [{}] * SAMPLES
        rng = np.random.default_rng(0)
        # An entry that stays tiny is judged by the others, as Reversible does.
        scales = {name: np.maximum(x, self.trial.eps ** 0.25 * size(x) + float(np.finfo(x.dtype).tiny))
                  for name, x in self.scales.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            for n, before, after in self.backwards():
                if resync and (n + 1) % resync == 0:
                    errors = [{}] * SAMPLES
                step = self.problem.step(n)
                undone = undo(self.method, step, after, self.trial.increment())
                errors = [self.moved(step, after, undone, error) for error in errors]
                for error in errors:
                    for name, x in undone.items():
                        ulp = np.spacing(abs(to_host(x)))                  # on the host: CuPy has no np.spacing
                        u = beside(x)(ulp * rng.uniform(-0.5, 0.5, x.shape).astype(x.dtype))
                        local = x - before[name] + u
                        error[name] = error[name] + local if name in error else local
                        largest = max(largest, size(local))
                length += 1
                stored = n == 0 or bool(resync and n % resync == 0)        # there Reversible compares the whole state
                names = self.method.parts if stored else self.method.outputs
                here = mean_square(max(size(e[name] / scales[name]) for name in names) for e in errors)
                if restart is not None and here > restart:
                    shortest = length if shortest is None else min(shortest, length)
                    errors, length = [{}] * SAMPLES, 0
                    continue
                now = mean_square(max(size(e[name]) for name in names) for e in errors)
                if not now < float(np.finfo(x.dtype).max) ** 0.5:
                    return Swept(math.inf, math.inf, shortest, largest)
                worst, relative = max(worst, now), max(relative, here)
        return Swept(worst, relative, shortest, largest)

    def moved(self, step: Any, after: Parts, undone: Parts, error: Parts) -> Parts:
        """The error after the step is undone: a finite difference, with a perturbation of sqrt(eps) of the state."""
        far = max((size(x) for x in error.values()), default=0.0)
        if far == 0.0:
            return {}
        s = self.trial.eps ** 0.5 * max(size(x) for x in after.values()) / far
        near = {name: x + (error[name] * s).astype(x.dtype) for name, x in after.items()}
        back = undo(self.method, step, near, self.trial.increment())
        return {name: (back[name] - x) / s for name, x in undone.items()}


def mean_square(sizes: Iterable[float]) -> float:
    return math.sqrt(sum(size * size for size in sizes) / SAMPLES)


def undo(method: Any, step: Any, parts: Parts, F: Evaluator) -> Parts:
    """The parts before the step, from those after it, as the reverse sweep finds them."""
    if method.exactly_reversible:
        return inverse(method.word(step), parts, F)
    t0, t1, dx, _ = step
    y = method.flow(F, t1, t0, parts["y"], -dx)
    for _ in range(method.correct):
        y = y + (parts["y"] - method.flow(F, t0, t1, y, dx))
    return {"y": y}


class Perturbation:
    """A small direction that is carried along by maps; `carry` returns the logarithm of how it grew."""

    def __init__(self, y: Any, eps: float) -> None:
        w = beside(y)(np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype))
        self.w, self.small = w / np.sqrt(np.sum(w * w)), eps ** 0.5

    def carry(self, map_: Callable, y: Any) -> float:
        # Relative to |y|, but no smaller than what a state at rest in 0 needs.
        s = self.small * max(size(y), self.small)
        with np.errstate(over="ignore", invalid="ignore"):
            w = (map_(y + (s * self.w).astype(y.dtype)) - map_(y)) / s
            norm = number(np.sqrt(np.sum(w * w)))
        if not (norm > 0 and math.isfinite(norm)):
            return 0.0
        self.w = (w / norm).astype(y.dtype)
        return math.log(norm)

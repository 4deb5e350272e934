"""Optimise, then discretise: the continuous adjoint, integrated backwards beside the solution.

    dy/dt = f(t, y, p),     da/dt = -a df/dy,     dg/dt = -a df/dp,        from t1 back to t0, a(t1) = dL/dy(t1)

Constant memory for any method, but NOT the gradient of the discrete solve: y is integrated backwards with an error of
its own, and so are a and g. For comparison; measure its error against Direct. The method's base is used (midpoint for
methods without one); saved times add their cotangents to a, and y is never reset.
Source: Pontryagin's adjoint; Chen, Rubanova, Bettencourt & Duvenaud 2018, section 2.
"""
from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import is_float, number, value_of
from ..engines import Eager, engine_of
from ..march import march
from ..methods.increment import Driver, System
from ..methods.runge_kutta import RungeKutta
from ..stepping import Problem
from ..watch import AdjointWarning, Complaint, complain, size
from .cotangents import at_the_end, at_the_start, spread


@dataclass(frozen=True)
class Backsolve:
    """The continuous adjoint. Constant memory, approximate gradient: its error falls with the step size only.

        dy/dt = f(t, y, p),     da/dt = -a df/dy,     dg/dt = -a df/dp,        from t1 back to t0, a(t1) = dL/dy(t1)

    Not the gradient of the discrete solve; for comparison. Saved times add their cotangents to a, and y is never reset.

    Parameters
    ----------
    tol : how far its y may be from what was saved (and from y0), relative to the largest value of the entry, before an
        AdjointWarning says so.
    strict : raise AdjointError instead.

    Raises, in a solve, TypeError for Euler-Maruyama, and for cotangents of a method's state (state0=, sol.state).

    Cost: s evaluations and s pullbacks a step for the s stages of the method's base; one state.
    Source: Pontryagin's adjoint; Chen, Rubanova, Bettencourt & Duvenaud 2018, section 2.

    Example
    -------
    >>> from revode import solve, value_and_grad
    >>> loss = lambda p: solve(lambda t, y, p: -p * y, np.ones(1), np.linspace(0.0, 1.0, 101), p, gradient=Backsolve()).y1[0]
    >>> [round(float(x), 4) for x in value_and_grad(loss)(1.0)]
    [0.3679, -0.3679]
    """
    tol: float = 1e-2
    strict: bool = False

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        if problem.system.euler_maruyama:
            raise TypeError("Backsolve: the adjoint equation is Stratonovich, and Euler-Maruyama does not converge to it; use Direct "
                            "or Checkpointed(n), or a method of order two with interpretation='ito'")
        if problem.method.velocity is not None:
            raise TypeError(f"Backsolve: {problem.method!r} has a velocity of its own, and the adjoint equation here is that of "
                            "q' = v; use Reversible(), Checkpointed(n) or Direct()")
        ys, parts = march(problem, initial, params)
        problem.stats.peak_states = 1

        def pull(cotangent: Any) -> tuple:
            with np.errstate(over="ignore", invalid="ignore"):        # the comparison says it better
                return self.sweep(problem, initial, params, ys, parts, cotangent)

        return (ys, parts), pull

    def sweep(self, problem: Problem, initial: Any, params: Any, ys: tuple, parts: dict, cotangent: Any) -> tuple:
        """From one saved state to the next: u = (y, a, g) goes ahead, and the cotangent of the saved state is added to a."""
        a_ys, a_parts = cotangent
        method, N, rows = problem.method, problem.N, problem.rows
        if problem.resumed or any(np.any(a) for name, a in a_parts.items() if name not in method.outputs):
            raise TypeError("Backsolve: the continuous adjoint knows y alone, so it cannot carry the gradient through the state "
                            "of a method (state0= or sol.state); use Reversible, Checkpointed(n) or Direct")
        if not N:                                          # the solution is y0
            start = Eager()
            start.load(problem, params, parts, at_the_end(problem, cotangent)[1])
            return at_the_start(problem, initial, params, start)
        y = problem.output(parts)
        g = [0 * x for x in tree.flatten(params)[0] if is_float(x)]
        u, unravel = tree.ravel([*y, *(a_parts[name] for name in method.outputs), *g])
        adjoint = backwards(problem, Adjoint(problem.system, unravel, len(y)))
        engine = engine_of(adjoint, "forward", {"y": u}, params)
        engine.load(adjoint, params, {"y": u})
        first = (initial,) if len(y) == 1 else initial
        last = N
        for n in sorted({*rows, 0, N}, reverse=True):
            engine.ahead(N - last, N - n)
            u, last = engine.read("part")["y"], n
            if n < N:
                self.compare(problem, n, unravel(u)[:len(y)], [y[rows[n]] for y in ys] if n in rows else first)
            if n in rows:
                bump = [a[rows[n]] for a in a_ys]
                u = u + tree.ravel([*(0 * x for x in bump), *bump, *g])[0]
                engine.restart({"y": u})
        result = unravel(u)
        ay = result[len(y):2 * len(y)]
        moved = [self.of_times(problem, params, first, y, a_ys, a_parts, ay, ys)] if problem.timed else []
        return (ay[0] if len(y) == 1 else tuple(ay), spread(params, result[2 * len(y):]), *moved)

    def of_times(self, problem: Problem, params: Any, first: tuple, last: tuple, a_ys: tuple, a_parts: dict, a_first: Any,
                 ys: tuple) -> Any:
        """dL/dts of the continuous solution: a . dy/dt where it is read, -a(t0) . dy/dt where it begins, and nothing between."""
        a_ts = np.zeros(problem.N + 1)

        def enter(n: int, y: tuple, a: Any, sign: float = 1.0) -> None:
            f = problem.system.rate(problem.system.coefficients(problem.ts[n], y[0], params), problem.ts[n])
            dy = (f,) if len(y) == 1 else (y[1], f)
            a_ts[n] += sign * sum(number(np.sum(x * b)) for x, b in zip(dy, a, strict=True))

        for n, k in problem.rows.items():
            enter(n, tuple(y[k] for y in ys), [a[k] for a in a_ys])
        enter(problem.N, last, [a_parts[name] for name in problem.method.outputs])
        enter(0, first, a_first, -1.0)
        return a_ts

    def compare(self, problem: Problem, n: int, back: Any, truth: Any) -> None:
        """The adjoint belongs to the path that y takes on the way back, which is to be the one that was saved."""
        for name, y, x in zip(problem.method.outputs, map(value_of, back), map(value_of, truth), strict=True):
            scale = np.maximum(problem.scales[name], abs(x))
            floor = float(np.finfo(y.dtype).eps) ** 0.25 * size(scale) + float(np.finfo(y.dtype).tiny)
            off = size((y - x) / np.maximum(scale, floor))
            if not off <= self.tol and not problem.lost:
                complain(problem, Complaint(
                    AdjointWarning, "Backsolve: integrated backwards, y left what had been saved, so the gradient is that of another "
                    "path. Likely cause: the solution contracts, and expands on the way back. Remedies: the default gradient "
                    "(gradient=None); Reversible(), with a method that can be run backwards; Checkpointed(n) or Direct().",
                    {"step": n, "t": float(problem.ts[n]), "error": off, "allowed": self.tol}))
                problem.lost = True


class Adjoint(System):
    """The augmented equation, for u = (y, a, g) in one array: a field value is that of y's equation, with its pullback.

        y += F(t, y, dx);     a -= a dF/dy;     g -= a dF/dp;        (q, v):  q += v dx, a_v -= a_q dx besides
    """

    def __init__(self, system: System, unravel: Callable, outputs: int) -> None:
        super().__init__(system.field, system.stats, scalar=system.scalar)
        self.of, self.unravel, self.outputs = copy(system), unravel, outputs
        self.control, self.derivative, self.smooth = system.control, system.derivative, system.smooth

    @property
    def signature(self) -> tuple:
        return *self.of.signature, self.outputs

    def coefficients(self, t: Any, u: Any, params: Any) -> tuple:
        self.of.stats = self.stats
        y = self.unravel(u)[0]
        values, pull = vjp(lambda y, p: self.of.coefficients(t, y, p), y, params)
        return *values, Pullback(pull, u)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        *values, back = coefficients
        parts, n = self.unravel(back.u), self.outputs
        _, a = parts[:n], parts[n:2 * n]
        dy, pull = vjp(lambda values: self.of.times(tuple(values), dx), values)
        ay, ap = back.pull(tuple(pull(a[-1])[0]))
        self.stats.nvjp += 1
        changes = [dy, -ay] if n == 1 else [parts[1] * dx, dy, -ay, -(a[0] * dx)]
        return tree.ravel([*changes, *(-x for x in tree.flatten(ap)[0] if x is not None)])[0]


class Pullback:
    """The pullback of a field value at u; to a program all are alike, because its operations are those of the field."""

    def __init__(self, pull: Callable, u: Any) -> None:
        self.pull, self.u = pull, u

    def __eq__(self, other: object) -> bool:
        return type(other) is Pullback

    def __hash__(self) -> int:
        return hash(Pullback)


class Returning(Driver):
    """The increments of the way back, step by step: those of the way ahead, negated. No generated code makes them itself."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.driver = problem, problem.driver
        self.shape, self.control, self.join = problem.driver.shape, problem.driver.control, problem.driver.join

    def given(self, n: int, t0: Any, t1: Any, h: Any, problem: Problem) -> dict[str, Any]:
        ahead, n = self.problem, self.problem.N - 1 - n
        found = self.driver.given(n, ahead.ts[n], ahead.ts[n + 1], ahead.hs[n], ahead)
        return {name: -x for name, x in found.items()}


def backwards(problem: Problem, system: System) -> Problem:
    """The equation of `system` on the same grid from its end to its start, by the method's base."""
    ts, hs = problem.ts[::-1], [-h for h in reversed(problem.hs)] if isinstance(problem.hs, list) else -problem.hs[::-1]
    return replace(problem, method=RungeKutta(problem.method.base), system=system, ts=ts, hs=hs, save=(),
                   h_before=hs[0], resumed=False, n_before=0, adaptive=None, progress=False, seen=None, compared=set(), promoted={},
                   driver=None if problem.driver is None else Returning(problem))

"""Optimise, then discretise: the continuous adjoint, integrated backwards beside the solution.

    dy/dt = f(t, y, p),     da/dt = -a df/dy,     dg/dt = -a df/dp,        from t1 back to t0, a(t1) = dL/dy(t1)

Constant memory for any method, but NOT the gradient of the discrete solve: y is integrated backwards with an error of
its own, and so are a and g. For comparison; measure its error against Direct. The method's base is used (midpoint for
methods without one); saved times add their cotangents to a, and y is never reset.
Source: Pontryagin's adjoint; Chen, Rubanova, Bettencourt & Duvenaud 2018, section 2.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import is_float, value_of
from ..march import march
from ..methods.runge_kutta import increment_of
from ..stepping import Problem
from ..watch import AdjointWarning, Complaint, complain, size
from .cotangents import spread


@dataclass(frozen=True)
class Backsolve:
    """The continuous adjoint. Constant memory, approximate gradient: its error falls with the step size only.

    Parameters
    ----------
    tol : how far its y may be from what was saved (and from y0), relative to the largest value of the entry, before an
        AdjointWarning says so.
    strict : raise AdjointError instead.
    """
    tol: float = 1e-2
    strict: bool = False

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        if getattr(problem.system, "euler_maruyama", False):
            raise TypeError("Backsolve: the adjoint equation is Stratonovich, and Euler-Maruyama does not converge to it; use Direct "
                            "or Checkpointed(n), or a method of order two with interpretation='ito'")
        ys, parts = march(problem, initial, params)
        problem.stats.peak_states = 1

        def pull(cotangent: Any) -> tuple:
            with np.errstate(over="ignore", invalid="ignore"):        # the comparison says it better
                return self.sweep(problem, initial, params, ys, parts, cotangent)

        return (ys, parts), pull

    def sweep(self, problem: Problem, initial: Any, params: Any, ys: tuple, parts: dict, cotangent: Any) -> tuple:
        a_ys, a_parts = cotangent
        method, system = problem.method, problem.system
        if problem.resumed or any(np.any(a) for name, a in a_parts.items() if name not in method.outputs):
            raise TypeError("Backsolve: the continuous adjoint knows y alone, so it cannot carry the gradient through the state "
                            "of a method (state0= or sol.state); use Reversible, Checkpointed(n) or Direct")
        leaves = tree.flatten(params)[0]
        floats = [i for i, x in enumerate(leaves) if is_float(x)]
        y = problem.output(parts)
        n_outputs = len(y)
        u, unravel = tree.ravel([*y, *y, *(leaves[i] for i in floats)])

        def increments(t: Any, ys: list, p: Any, dx: Any) -> list:
            dy = system.times(system.coefficients(t, ys[0], p), dx)
            return [dy] if n_outputs == 1 else [ys[1] * dx, dy]        # dq = v h, dv = a(t, q) h

        def F(t: Any, u: Any, dx: Any) -> Any:
            parts = unravel(u)
            values, pull = vjp(lambda ys, p: increments(t, ys, p, dx), parts[:n_outputs], params)
            ays, ap = pull(parts[n_outputs:2 * n_outputs])
            problem.stats.nvjp += 1
            aps = [tree.flatten(ap)[0][i] for i in floats]
            return tree.ravel([*values, *(-a for a in ays), *(-a for a in aps)])[0]

        psi = increment_of(getattr(method, "base", "midpoint"))
        at = {n: k for k, n in enumerate(problem.save)}
        u = tree.ravel([*y, *(a_parts[name] for name in method.outputs), *(0 * leaves[i] for i in floats)])[0]
        first = (initial,) if n_outputs == 1 else initial
        for n in range(problem.N, -1, -1):
            if n < problem.N and (n in at or n == 0):
                self.compare(problem, n, unravel(u)[:n_outputs], [y[at[n]] for y in ys] if n in at else first)
            if n in at:
                bump = [a[at[n]] for a in a_ys]
                u = u + tree.ravel([*(0 * x for x in bump), *bump, *(0 * leaves[i] for i in floats)])[0]
            if n:
                step = problem.step(n - 1)
                u = u + psi(F, step.t1, step.t0, u, -step.dx)
        result = unravel(u)
        ay = result[n_outputs:2 * n_outputs]
        return ay[0] if n_outputs == 1 else tuple(ay), spread(params, result[2 * n_outputs:])

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

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
from ..engine.tensor import is_float
from ..methods.runge_kutta import increment_of
from ..stepping import Problem, march
from .reversible import spread


@dataclass(frozen=True)
class Backsolve:
    """The continuous adjoint. Constant memory, approximate gradient: its error falls with the step size only."""

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        if getattr(problem.system, "euler_maruyama", False):
            raise TypeError("Backsolve: the adjoint equation is Stratonovich, and Euler-Maruyama does not converge to it; use Direct "
                            "or Checkpointed(n), or a method of order two with interpretation='ito'")
        ys, parts = march(problem, initial, params)
        problem.stats.peak_states = 1

        def pull(cotangent: Any) -> tuple:
            return self.sweep(problem, params, parts, cotangent)

        return (ys, parts), pull

    def sweep(self, problem: Problem, params: Any, parts: dict, cotangent: Any) -> tuple:
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
        for n in range(problem.N, -1, -1):
            if n in at:
                bump = [a[at[n]] for a in a_ys]
                u = u + tree.ravel([*(0 * x for x in bump), *bump, *(0 * leaves[i] for i in floats)])[0]
            if n:
                step = problem.step(n - 1)
                u = u + psi(F, step.t1, step.t0, u, -step.dx)
        result = unravel(u)
        ay = result[n_outputs:2 * n_outputs]
        return ay[0] if n_outputs == 1 else tuple(ay), spread(params, result[2 * n_outputs:])

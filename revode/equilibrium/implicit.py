"""Gradients of a fixed point z = f(z, p) that do not go back through the iterations that found it.

    Implicit    g = (df/dz)^T g + dL/dz,    dL/dp = (df/dp)^T g      the implicit function theorem
    Phantom     z <- (1 - damping) z + damping f(z, p)               a few times, and back through

Both take z as a constant: dL/dz0 is zero. They are exact, or in part exact, for the fixed point
itself; where the iteration stopped early, or where there is no fixed point, they belong to a point
that the forward pass has not reached. A mode has at_fixed_point(problem, initial, params) ->
((ys, parts), pull), as the modes of a solve have `solve`.
Sources: Bai, Kolter & Koltun 2019 (implicit);
Geng, Zhang, Bai, Wang & Lin 2021 (phantom).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import number
from ..march import march
from ..stepping import Problem
from .mixing import Mixing
from .relaxation import Anderson, number_in

SOLVERS = ("picard", "anderson", "gmres")


def norm(x: Any) -> float:
    """The Euclidean norm of all entries together; Inf or NaN where one is."""
    x = x.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return sqrt(number(x @ x))


def found(problem: Problem, initial: Any, params: Any) -> tuple[tuple, Any]:
    """The march to the fixed point: its result, and z."""
    ys, parts = march(problem, initial, params)
    problem.stats.peak_states = 1
    return (ys, parts), problem.output(parts)[0]


def incoming(problem: Problem, cotangent: Any) -> Any:
    """dL/dz, whether it comes in for what was saved or for the final parts."""
    a_ys, a_parts = cotangent
    return a_ys[0][-1] + a_parts[problem.method.outputs[0]]


@dataclass(frozen=True)
class Implicit:
    """The implicit function theorem: one linear equation for the gradient, and no iteration is kept or rebuilt.

        g = (df/dz)^T g + dL/dz;    dL/dparams = (df/dparams)^T g

    Parameters
    ----------
    solver : of that equation: "picard" (needs a contraction), "anderson" (eight vectors), or "gmres" (through SciPy; a
        Krylov space of up to 50 vectors; it needs no contraction).
    tol : its relative residual |J^T g + a - g| / |g|; never asked to be less than 16 units in the last place.
    max_steps : products with (df/dz)^T at most; a ConvergenceWarning says so where they are not enough.

    Raises ValueError for other settings; ImportError for "gmres" without SciPy.

    Cost: the forward solve, then 2 evaluations, one product for each iteration of the solver, and one pullback to the
    parameters. Exact at the fixed point; its error is of the order of the forward residual.
    Source: Bai, Kolter & Koltun 2019.

    Example
    -------
    >>> import numpy as np
    >>> from revode import fixed_point, grad
    >>> how = {"gradient": Implicit(), "tol": 1e-12}
    >>> z = lambda p: fixed_point(lambda z, p, x: p * np.cos(z), np.ones(1), p, **how).z[0]
    >>> round(float(grad(z)(0.5)), 6)
    0.739482
    """

    solver: str = "picard"
    tol: float = 1e-10
    max_steps: int = 200

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"Implicit: solver={self.solver!r}; one of {', '.join(map(repr, SOLVERS))}")
        number_in("Implicit: tol", self.tol, 0.0, inf, "a positive number, such as 1e-10")
        if isinstance(self.max_steps, bool) or not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"Implicit: max_steps={self.max_steps!r}; a whole number, 1 or more")

    def at_fixed_point(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        result, z = found(problem, initial, params)
        system, stats, t = problem.system, problem.stats, problem.ts[-1]

        def pull(cotangent: Any) -> tuple:
            a = incoming(problem, cotangent)
            _, pull_z = vjp(lambda z: system.coefficients(t, z, params)[0], z)
            _, pull_params = vjp(lambda p: system.coefficients(t, z, p)[0], params)

            def J(g: Any) -> Any:
                stats.nvjp += 1
                return pull_z(g)[0]

            g, residual = self.adjoint(J, a)
            stats.adjoint_residual = residual  # type: ignore[attr-defined]
            stats.nvjp += 1
            return tree.map(np.zeros_like, initial), pull_params(g)[0]

        return result, pull

    def adjoint(self, J: Callable, a: Any) -> tuple[Any, float]:
        """g = J g + a, and its relative residual."""
        tol = max(self.tol, 16 * float(np.finfo(a.dtype).eps))
        with np.errstate(over="ignore", invalid="ignore"):  # the residual says it
            if self.solver == "gmres":
                return krylov(J, a, tol, self.max_steps)
            mixing = Mixing(Anderson(8, ridge=1e-14)) if self.solver == "anderson" else None
            g, residual = a, 0.0
            for _ in range(self.max_steps):
                after = J(g) + a
                size = norm(after)
                residual = norm(after - g) / size if size else 0.0
                if residual <= tol or not np.isfinite(residual):
                    return after, residual
                g = after if mixing is None else mixing.next(g, after)
            return g, residual


def krylov(J: Callable, a: Any, tol: float, max_steps: int) -> tuple[Any, float]:
    """(1 - J) g = a by SciPy's gmres."""
    try:
        from scipy.sparse.linalg import LinearOperator, gmres
    except ImportError as error:
        raise ImportError(
            "Implicit: solver='gmres' is SciPy's; install it with `pip install scipy`, or use solver='anderson'"
        ) from error
    left = [max_steps]

    def product(v: Any) -> Any:
        left[0] -= 1
        v = v.reshape(a.shape).astype(a.dtype)
        return (v - J(v)).ravel()

    of = LinearOperator((a.size, a.size), matvec=product, dtype=a.dtype)
    restart = min(a.size, 50, max_steps)
    g, _ = gmres(of, a.ravel(), rtol=tol / 2, atol=0.0, restart=restart, maxiter=-(-max_steps // restart))
    g = g.reshape(a.shape).astype(a.dtype)
    after = J(g) + a
    size = norm(after)
    return after, norm(after - g) / size if size else 0.0


@dataclass(frozen=True)
class Phantom:
    """A few damped steps from the point that was found, and the gradient back through these alone.

        z <- (1 - damping) z + damping f(z, params)          steps times, on the tape

    The z that is returned has taken these steps, with or without a gradient. An approximation for training: on the
    map of chapter 11 (L = 0.7) the gradient of 5 steps is 4 % off, however exact the point.

    Parameters
    ----------
    steps : 1 or more. Each costs an evaluation and a pullback, and keeps one evaluation's values.
    damping : in (0, 1].

    Raises ValueError for other numbers.

    Cost: `steps` evaluations on a tape, and as many pullbacks.
    Source: Geng, Zhang, Bai, Wang & Lin 2021, section 3 (unrolled form).

    Example
    -------
    >>> import numpy as np
    >>> from revode import fixed_point, grad
    >>> z = lambda p: fixed_point(lambda z, p, x: p * np.cos(z), np.ones(1), p, gradient=Phantom(), tol=1e-12).z[0]
    >>> bool(abs(grad(z)(0.5) / 0.7395 - 1) < 0.2)
    True
    """

    steps: int = 5
    damping: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"Phantom: steps={self.steps!r}; a whole number, 1 or more")
        number_in("Phantom: damping", self.damping, 0.0, 1.0, "a number in (0, 1]")

    def relaxed(self, problem: Problem, z: Any, params: Any) -> Any:
        """The damped steps."""
        for _ in range(self.steps):
            f = problem.system.coefficients(problem.ts[-1], z, params)[0]
            z = (1.0 - self.damping) * z + self.damping * f
        return z

    def at_fixed_point(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        (_, parts), z = found(problem, initial, params)
        z, pull_relaxed = vjp(lambda p: self.relaxed(problem, z, p), params)
        problem.stats.peak_states = self.steps + 1

        def pull(cotangent: Any) -> tuple:
            problem.stats.nvjp += self.steps
            return tree.map(np.zeros_like, initial), pull_relaxed(incoming(problem, cotangent))[0]

        return ((z[None],), {**parts, problem.method.outputs[0]: z}), pull

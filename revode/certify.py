"""A measured error of a gradient: forward mode, along random directions, held against reverse mode.

    u standard normal:      E (<g, u> - jvp(u))^2 = |g - g_true|^2

because the two are linear in u, and jvp(u) = <g_true, u>. The tangent runs forward on the tape (tangent.py), by rules of its own: a
wrong reconstruction, a wrong custom_vjp, a stale program, anything that makes a gradient wrong without being seen, is seen here.
k differences d give the estimate sqrt(mean d^2). Each is normal with variance |g - g_true|^2, so the sum of their squares over that is
chi-square with k degrees of freedom, and the bound sqrt(sum d^2 / c), P(chi-square < c) = 5 %, holds in 95 of 100 cases.
(Signs in the place of normal numbers would not do: an error in two entries they miss half of the time.)
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from .engine import tree
from .engine.derivatives import value_and_grad
from .engine.tangents import linearised
from .engine.tensor import beside, is_float, number
from .stepping import Problem
from .tangent import by_programs, on_tape

calls = count()      # of of_solve: each one looks along other directions
FLOOR = 64.0         # times eps, of the size of the gradient: what rounding alone makes of both sides


class Certificate(NamedTuple):
    """What was measured of a gradient; all errors in the units of the gradient, over all leaves together.

    Parameters
    ----------
    error : estimate of |g - g_true|.
    below : it is below this with 95 % probability.
    size : |g|.
    floor : what rounding makes of an exact gradient.
    probes : random directions that were tried.
    leaves : the same, leaf by leaf, where asked for.
    refined : |g - g of half the steps|: about the error of the discrete solution.
    """
    error: float                 # estimate of |g - g_true|
    below: float                 # it is below this with 95 % probability
    size: float                  # |g|
    floor: float                 # what rounding makes of an exact gradient
    probes: int
    leaves: dict[str, Certificate] | None = None     # the same, leaf by leaf, where asked for
    refined: float | None = None                     # |g - g of half the steps|: the error of the discrete solution, about

    def __str__(self) -> str:
        lines = [self.sentence()]
        lines += [f"  {name or 'the gradient'}: {leaf.sentence()}" for name, leaf in (self.leaves or {}).items()]
        if self.refined is not None:
            lines.append(f"  steps half as long change it by {self.refined:.1e}{self.of(self.refined)}")
        return "\n".join(lines)

    def of(self, x: float) -> str:
        return f" ({x / self.size:.1e} of the gradient)" if self.size else ""

    def sentence(self) -> str:
        if self.below <= self.floor:
            return f"error below {self.floor:.1e}, what rounding makes{self.of(self.floor)}"
        return f"error about {self.error:.1e}{self.of(self.error)}, below {self.below:.1e} with 95 %"


def certify(loss: Callable, params: Any, probes: int = 1, seed: int = 0, *, leaves: bool = False, ts: Any = None,
            refine: bool = False, compiled: bool = False) -> tuple[Any, Any, Certificate]:
    """The value and gradient of loss(params), and a certificate of the gradient: its error, measured.

        E (<g, u> - jvp(u))^2 = |g - g_true|^2          for standard normal u

    Parameters
    ----------
    loss : a function of one tree, as for value_and_grad; with refine, loss(params, ts).
    params : a tree of arrays, where to look.
    probes : random directions, 1 or more. The bound is 16 times the estimate for one, 2.4 for four, 1.7 for eight.
    seed : of the directions.
    leaves : measure each leaf by itself as well, at `probes` directions a leaf.
    compiled : let the tangents of solves run on the backend of the solve, which costs less than a gradient there, but is no longer
        apart from the program under test: the trace of the field, and the compiler, are the same.
    ts, refine : the grid, and whether to compute the gradient once more with steps half as long: what the discretisation costs.

    Returns (value, gradient, Certificate). Raises ValueError for probes < 1, or refine without ts.

    Cost: the gradient, one evaluation of loss, and for each probe one solve on the tape with its tangent.
    Source: the estimate of a norm from random products, Hutchinson 1990.

    Example
    -------
    >>> value, grads, certificate = certify(lambda p: np.sum(np.sin(p)), np.array([0.3, 1.0]))
    >>> print(certificate)
    error below 1.6e-14, what rounding makes (1.4e-14 of the gradient)
    """
    if not isinstance(probes, int) or probes < 1:
        raise ValueError(f"certify: probes={probes!r}; a whole number, 1 or more")
    if refine and ts is None:
        raise ValueError("certify: refine=True halves the steps of a grid; pass ts=, and a loss(params, ts) that takes it")
    of = loss if ts is None else lambda params: loss(params, ts)
    value, grads = value_and_grad(of)(params)
    _, push = linearised(of, (params,))
    rng = np.random.default_rng(seed)
    structure, names = tree.flatten(params)[1], tree.paths(params)
    x, g = tree.flatten(params)[0], tree.flatten(grads)[0]
    floats = [i for i, a in enumerate(x) if is_float(a)]

    def measured(moving: list[int]) -> Certificate:
        differences = []
        for _ in range(probes):
            u: list[Any] = [drawn(rng, a) if i in moving else None for i, a in enumerate(x)]
            token = by_programs.set(compiled)
            try:
                along = number(push((tree.unflatten(structure, u),)))
            finally:
                by_programs.reset(token)
            differences.append(sum(number(np.sum(g[i] * u[i])) for i in moving) - along)
        eps = max(float(np.finfo(getattr(x[i], "dtype", np.float64)).eps) for i in moving)
        size = math.sqrt(sum(number(np.sum(g[i] * g[i])) for i in moving))
        return certificate(differences, size, FLOOR * eps * size)

    found = measured(floats)
    if leaves:
        found = found._replace(leaves={names[i]: measured([i]) for i in floats})
    if refine:
        other = tree.flatten(value_and_grad(lambda params: loss(params, halved(ts)))(params)[1])[0]
        found = found._replace(refined=math.sqrt(sum(number(np.sum((g[i] - other[i]) ** 2)) for i in floats)))
    return value, grads, found


def of_solve(problem: Problem, initial: Any, params: Any, cotangent: Any, gradients: tuple, probes: int) -> Certificate:
    """A certificate of what a gradient mode returns, for the cotangent that came in: <gradients, u> and <cotangent, tangent of u>."""
    rng = np.random.default_rng(next(calls))
    args = initial, params, *((problem.ts,) if problem.timed else ())
    x, structure = tree.flatten(args)
    g, a = tree.flatten(gradients)[0], tree.flatten(cotangent)[0]
    moving = [i for i, leaf in enumerate(x) if is_float(leaf) and g[i] is not None]
    differences = []
    for _ in range(probes):
        u: list[Any] = [drawn(rng, leaf) if i in moving else None for i, leaf in enumerate(x)]
        moved = tree.flatten(on_tape(problem, args, tree.unflatten(structure, u)))[0]
        along = sum(number(np.sum(b * c)) for b, c in zip(a, moved, strict=True) if c is not None)
        differences.append(sum(number(np.sum(g[i] * u[i])) for i in moving) - along)
    eps = max(float(np.finfo(x[i].dtype).eps) for i in moving)
    size = math.sqrt(sum(number(np.sum(g[i] * g[i])) for i in moving))
    return certificate(differences, size, FLOOR * eps * size)


def certificate(differences: list[float], size: float, floor: float) -> Certificate:
    """From the differences along k directions."""
    k, total = len(differences), sum(d * d for d in differences)
    return Certificate(math.sqrt(total / k), math.sqrt(total / chi_square(k)), size, floor, k)


def drawn(rng: np.random.Generator, like: Any) -> Any:
    """Standard normal numbers in the shape and dtype of a leaf, where that is."""
    return beside(like)(np.asarray(rng.standard_normal(np.shape(like)), getattr(like, "dtype", np.float64))[()])


def halved(ts: Any) -> np.ndarray:
    """The grid with the middle of every step."""
    ts = np.asarray(ts, float)
    return np.sort(np.concatenate([ts, (ts[:-1] + ts[1:]) / 2]))[::1 if ts[-1] > ts[0] else -1]


@cache
def chi_square(k: int, p: float = 0.05) -> float:
    """The number that a chi-square of k degrees of freedom stays below with probability p, by bisection."""
    def below(c: float) -> float:
        """The regularised incomplete gamma function at (k/2, c/2), by its series."""
        a, x = 0.5 * k, 0.5 * c
        term = total = 1.0
        n = 0
        while term > 1e-17 * total:
            n += 1
            term *= x / (a + n)
            total += term
        return total * math.exp(a * math.log(x) - x - math.lgamma(a + 1))

    low, high = 0.0, float(k)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if below(middle) < p else (low, middle)
    return high

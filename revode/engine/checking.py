"""A gradient compared with central differences, along random directions."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import tree
from .derivatives import vjp
from .tensor import beside, is_float, number


def check_vjp(fn: Callable, *args: Any, order: int = 2, rtol: float | None = None, seed: int = 0) -> float:
    """Compare the gradient of fn at args with central differences along random directions.

    Parameters
    ----------
    fn : a function of trees of arrays; it may return a tree.
    args : where to look; every float array in them is moved.
    order : 1 for the gradient, 2 for the gradient of the gradient as well. A solve with Reversible, Checkpointed or Backsolve
        has first derivatives only.
    rtol : the largest relative difference allowed; default the error that central differences have at their best step, about
        20 * eps**(2/3), times 10 per extra order.
    seed : of the directions.

    Returns the largest relative difference. Raises AssertionError past rtol.

    Cost: 2 evaluations and 1 pull for order 1; order 2 checks the pull itself in the same way.
    Source: the dot-product test, Griewank & Walther, Evaluating Derivatives, 2008.

    Example
    -------
    >>> check_vjp(lambda x: np.sum(np.tanh(x) ** 2), np.array([0.3, -0.7])) < 1e-8
    True
    """
    rng = np.random.default_rng(seed)
    leaves, structure = tree.flatten(args)
    floats = [i for i, x in enumerate(leaves) if is_float(x)]
    eps = max(float(np.finfo(getattr(leaves[i], "dtype", float)).eps) for i in floats)
    rtol = 20 * eps ** (2 / 3) * 10 ** (order - 1) if rtol is None else rtol
    # A step of eps^(1/3) balances the truncation h^2 of the central difference with its round-off eps / h.
    h = eps ** (1 / 3)

    def drawn(x: Any) -> Any:
        # [()] makes a scalar of what has no axes: it may meet arrays of any device.
        return beside(x)(np.asarray(rng.standard_normal(np.shape(x)), getattr(x, "dtype", float))[()])

    direction = [drawn(x) if i in floats else None for i, x in enumerate(leaves)]

    def moved(sign: int) -> list:
        at = [x if d is None else x + sign * h * d for x, d in zip(leaves, direction, strict=True)]
        return tree.flatten(fn(*tree.unflatten(structure, at)))[0]

    value, pull = vjp(fn, *args)
    outputs, out_structure = tree.flatten(value)
    seeds = [drawn(y) if is_float(y) else None for y in outputs]
    pulled = tree.flatten(pull(tree.unflatten(out_structure, seeds)))[0]
    forward = [number(np.sum(g * (b - a))) / (2 * h) for g, a, b in zip(seeds, moved(-1), moved(1), strict=True)
               if g is not None]
    backward = [number(np.sum(a * d)) for a, d in zip(pulled, direction, strict=True) if d is not None]
    scale = max(1.0, sum(abs(x) for x in forward), sum(abs(x) for x in backward))
    worst = abs(sum(forward) - sum(backward)) / scale
    if not worst <= rtol:
        raise AssertionError(f"check_vjp: the pulled-back cotangent gives {sum(backward):.12g} along a random direction, "
                             f"central differences give {sum(forward):.12g}; relative difference {worst:.2g}, "
                             f"allowed {rtol:.2g}")
    if order > 1:
        floats_only = [leaves[i] for i in floats]

        def pullback(*chosen: Any) -> list:
            full = list(leaves)
            for i, x in zip(floats, chosen, strict=True):
                full[i] = x
            _, pull = vjp(fn, *tree.unflatten(structure, full))
            found = tree.flatten(pull(tree.unflatten(out_structure, seeds)))[0]
            return [found[i] for i in floats]

        worst = max(worst, check_vjp(pullback, *floats_only, order=order - 1, rtol=rtol, seed=seed + 1))
    return worst

"""Round-off in units that mean something: scaled ulps, and how a reverse sweep amplifies them.

    scaled ulps of a against b      |a - b| / ulp(max(|a|, |b|, ||y||_inf))
    RULP    their maximum over the whole reconstruction        GULP    the same for a gradient, against Direct

A plain ulp misleads near zero: an entry that passes through 0 has tiny ulps, but its error comes from the others.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine.tensor import to_host


def scaled_ulps(a: Any, b: Any, scale: Any = None) -> np.ndarray:
    """|a - b| in units of the last place of max(|a|, |b|, scale), entry by entry.

    Parameters
    ----------
    a, b : (...) float arrays of one shape and dtype.
    scale : a number or array in the unit of a; by default the largest entry of b.

    Returns (...) float array. Equal entries count 0, an entry that is not finite on one side only counts inf.
    Raises TypeError for arrays of unlike shape or dtype.

    Cost: a few passes over the arrays.

    Example
    -------
    >>> float(scaled_ulps(np.array([1.0]), np.array([1.0 + 2.0**-52]))[0])
    1.0
    """
    a, b = to_host(a), to_host(b)
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind != "f":
        raise TypeError(f"scaled_ulps: arrays of {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}; give two float arrays of "
                        "one shape and dtype")
    scale = (abs(b).max() if b.size else 0.0) if scale is None else scale
    unit = np.spacing(np.maximum(np.maximum(abs(a), abs(b)), to_host(scale).astype(a.dtype)))
    with np.errstate(invalid="ignore", over="ignore"):
        ulps = abs(a - b) / unit
    return np.where(a == b, 0.0, np.where(np.isfinite(ulps), ulps, np.inf))


def rulp(reconstructed: Any, states: Any) -> float:
    """RULP, the largest scaled ulp over a trajectory, each step scaled by its own largest entry.

    Parameters
    ----------
    reconstructed, states : (steps, ...) float arrays of one dtype, or lists of such.

    Returns one number of ulps, 0 for equal bits. Raises ValueError for unlike lengths, TypeError as scaled_ulps.

    Cost: a few passes over the trajectory.

    Example
    -------
    >>> rulp(np.ones((3, 2)), np.ones((3, 2)))
    0.0
    """
    return max((float(scaled_ulps(a, b).max(initial=0.0)) for a, b in zip(reconstructed, states, strict=True)), default=0.0)


def gulp(gradient: Any, direct: Any) -> float:
    """GULP, the largest scaled ulp of a gradient against the Direct one, each leaf scaled by itself.

    Parameters
    ----------
    gradient, direct : trees of float arrays, of one structure.

    Returns one number of ulps, 0 for equal bits. Raises ValueError for unlike numbers of leaves, TypeError as scaled_ulps.

    Cost: a few passes over the arrays.

    Example
    -------
    >>> gulp({"W": np.ones(2)}, {"W": np.ones(2)})
    0.0
    """
    from ..engine import tree
    a, b = tree.flatten(gradient)[0], tree.flatten(direct)[0]
    return max((float(scaled_ulps(x, y).max(initial=0.0)) for x, y in zip(a, b, strict=True) if y is not None), default=0.0)


def accumulated(growth: float, steps: int) -> float:
    """1 + G + ... + G^(N-1): what one unit of round-off in every step of a sweep adds up to.

    Parameters
    ----------
    growth : G, what one reverse step makes of an error (1: nothing).
    steps : N.

    Returns the sum, in the unit of the round-off of one step; inf where it overflows. Raises ValueError for a growth <= 0.

    Cost: none.

    Example
    -------
    >>> round(accumulated(2.0, 3), 9)
    7.0
    """
    if growth == 1.0:
        return float(steps)
    try:
        return math.expm1(steps * math.log(growth)) / (growth - 1.0)
    except OverflowError:
        return math.inf


def reverse_growth(scales: Any, lipschitz: Any) -> float:
    """A bound for the growth of an error in one reverse step, in the largest entry.

    Undoing x <- scale x + add(others) moves L_add times the error of the others to x, and divides by scale:
    max(1, (1 + L_add) / |scale|), multiplied up over the shears.

    Parameters
    ----------
    scales : the scale of each shear of the word.
    lipschitz : a Lipschitz constant of the `add` of each.

    Returns a factor, 1 or more. Raises ValueError for unlike lengths, ZeroDivisionError for a scale of 0.

    Cost: none.

    Example
    -------
    >>> reverse_growth([0.5, 1.0], [0.0, 0.25])
    2.5
    """
    return math.prod(max(1.0, (1.0 + L) / abs(scale)) for scale, L in zip(scales, lipschitz, strict=True))


def modal_growth(R: Any, lam: float) -> np.ndarray:
    """Growth of a mode in one reverse step of Coupled: max(|R| / lam, 1 / |R|).

    Parameters
    ----------
    R : (...) values R(h a) of the base's stability function, real or complex.
    lam : the coupling.

    Returns a float array like R. Raises nothing; inf for R = 0, with a warning of NumPy.

    Cost: none.
    Source: the two roots R and lam / R, McCallum & Foster 2024, arXiv 2410.11648.

    Example
    -------
    >>> modal_growth(np.array([1.0, 0.5]), 0.8).tolist()
    [1.25, 2.0]
    """
    return np.maximum(abs(np.asarray(R)) / lam, 1.0 / abs(np.asarray(R)))

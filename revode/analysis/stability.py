"""Linear stability of any method, computed from its word: what one step does to y' = a y.

    state(t + h) = M(z) state(t),     z = h a;       stable where the spectral radius of M is below 1

M has one row and column for each part of the state: 1 by 1 for a Runge-Kutta method (its stability function R), 2 by 2 for
a pair. No formula of a method is written here: the word is run on basis vectors with the field y -> z y and h = 1, on
whole arrays of complex z at once. For the split methods (parts q, v) the test equation is q'' = a q, and z = h^2 a.

Pitfall: at z = 0 every consistent method has an eigenvalue 1, and on the imaginary axis whole segments are marginal
(rho = 1, up to rounding), so "stable" comes in two senses: `region` is strict, `intervals` and `limit` allow rho = 1.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..methods.increment import Evaluator, System
from ..methods.shears import Step
from ..stepping import Stats, one_step

# Eigenvalues of a small matrix with entries near 1 are rounded by about 1e-15 where they are simple; a hundred times that is
# still far below any growth worth the name.
MARGIN = 1e-13


def amplification(method: Any, z: Any) -> np.ndarray:
    """The matrix M of one step on y' = a y.

    Parameters
    ----------
    method : any method, of one part or several.
    z : h a, a complex number or array (...), without unit.

    Returns complex (..., k, k), k the number of parts, in the order of method.parts.
    Raises what the method's own step raises.

    Cost: k steps of the method on arrays shaped like z.
    Source: Dahlquist 1963 (the test equation); Hairer & Wanner, Solving ODEs II, IV.2.

    Example
    -------
    >>> from revode import RungeKutta
    >>> amplification(RungeKutta("midpoint"), -1.0).real.tolist()
    [[0.5]]
    """
    z = np.asarray(z, dtype=complex)
    system = System(lambda t, y, params: z * y, Stats())
    step = Step(0.0, 1.0, 1.0, 1.0)
    columns = []
    for at in method.parts:
        parts = {name: np.full(z.shape, 1.0 + 0j if name == at else 0j) for name in method.parts}
        after = one_step(method, step, parts, Evaluator(system, None))
        columns.append(np.stack([after[name] + 0 * z for name in method.parts], axis=-1))
    return np.stack(columns, axis=-1)


def spectral_radius(method: Any, z: Any) -> np.ndarray:
    """The largest absolute eigenvalue of M(z): what a step makes of the mode that grows most.

    Parameters
    ----------
    method : any method, of one part or several.
    z : h a, a complex number or array (...), without unit.

    Returns a float array like z. Raises what `amplification` raises.

    Cost: that of `amplification`, and eigenvalues of k by k matrices.
    Source: Hairer & Wanner, Solving ODEs II, IV.2.

    Example
    -------
    >>> from revode import ReversibleHeun
    >>> spectral_radius(ReversibleHeun(), np.array([0.5j, 1.0j])).round(6).tolist()
    [1.0, 1.0]
    """
    M = amplification(method, z)
    if M.shape[-1] == 1:
        return abs(M[..., 0, 0])
    return abs(np.linalg.eigvals(M)).max(axis=-1)


def determinant(method: Any, z: Any) -> np.ndarray:
    """det M(z): how a step scales volume. lam for Coupled, 1 - 2 eta for ALF, whatever z is.

    Parameters
    ----------
    method : any method, of one part or several.
    z : h a, a complex number or array (...), without unit.

    Returns a complex array like z. Raises what `amplification` raises.

    Cost: that of `amplification`.

    Example
    -------
    >>> from revode import Coupled
    >>> round(float(determinant(Coupled("rk4", 0.9), -0.3 + 0.2j).real), 12)
    0.9
    """
    return np.linalg.det(amplification(method, z))


def region(method: Any, x: Any, y: Any) -> np.ndarray:
    """Where the method is asymptotically stable, for a picture.

    Parameters
    ----------
    method : any method, of one part or several.
    x, y : (n,), (m,) the real and imaginary parts of z = h a, without unit.

    Returns a Boolean array (m, n): spectral radius below 1. Raises what `amplification` raises.

    Cost: that of `amplification` at n m points.
    Source: Hairer & Wanner, Solving ODEs II, IV.2.

    Example
    -------
    >>> from revode import RungeKutta
    >>> region(RungeKutta("euler"), [-3.0, -1.0, 0.5], [0.0]).tolist()
    [[False, True, False]]
    """
    z = np.asarray(x, dtype=float)[None, :] + 1j * np.asarray(y, dtype=float)[:, None]
    return spectral_radius(method, z) < 1 - MARGIN


def intervals(method: Any, direction: complex = -1.0, reach: float = 8.0, samples: int = 4000,
              margin: float = MARGIN) -> list[tuple[float, float]]:
    """The stretches of the ray z = s * direction, 0 < s <= reach, on which rho(M) <= 1 + margin.

    Parameters
    ----------
    method : any method, of one part or several.
    direction : -1 for the negative real axis, 1j for the imaginary one.
    reach : how far to look along the ray.
    samples : so many, evenly spaced, and again geometrically spaced towards 0, between which each edge is found by bisection to
        the last digits. Stretches (or gaps) narrower than reach / samples can be missed.
    margin : how much growth a step is taken for none.

    Returns (from, to) pairs, increasing; the first begins at 0 if it touches 0, the last ends at reach if it goes on.
    Raises what `amplification` raises.

    Cost: that of `amplification` at some 2 samples points, and 60 times at each edge.

    Example
    -------
    >>> from revode import RungeKutta
    >>> [(a, round(b, 6)) for a, b in intervals(RungeKutta("rk4"))]
    [(0.0, 2.785294)]
    """
    s = _samples(reach, samples)
    inside = spectral_radius(method, s * direction) <= 1 + margin
    flips = np.flatnonzero(inside[1:] != inside[:-1])
    cuts = _bisect(method, direction, s[flips], s[flips + 1], margin).tolist()
    edges = [*([0.0] if inside[0] else []), *cuts, *([reach] if inside[-1] else [])]
    return list(zip(edges[::2], edges[1::2], strict=True))


def limit(method: Any, direction: complex = -1.0, reach: float = 8.0) -> float:
    """How far the method is stable along a ray: the end of the interval that touches 0, or 0 if none does.

    A step that multiplies by 1 + g with |g| < MARGIN is taken for marginal: such a growth needs 1/MARGIN steps to show.
    Near 0 that is the case of every method, so the first samples outside the margin decide: if they are stable, the edge is
    the zero of rho - 1 after them. If they are unstable, the method is unstable from 0 on (|R(iy)|^2 = 1 + y^4/4 of the
    midpoint rule) or marginal up to there (leapfrog); a true edge is where it is, and the other moves with the margin.

    Parameters
    ----------
    method : any method, of one part or several.
    direction : -1 for the negative real axis, 1j for the imaginary one.
    reach : how far to look along the ray.

    Returns the largest stable h |a| along the ray; `reach` if it goes on. Raises what `amplification` raises.

    Cost: as `intervals`, at most three times.

    Example
    -------
    >>> from revode import RungeKutta
    >>> round(limit(RungeKutta("rk4"), 1j), 4)
    2.8284
    """
    s = _samples(reach, 4000)
    excess = spectral_radius(method, s * direction) - 1
    grows = np.flatnonzero(excess > MARGIN)
    first = int(grows[0]) if len(grows) else len(s)
    shrinks = np.flatnonzero(excess[:first] < -MARGIN)
    if first == len(s):
        return reach
    if first == 0:
        return 0.0
    if len(shrinks):
        last = shrinks[-1]
        return float(_bisect(method, direction, s[last:last + 1], s[first:first + 1], 0.0)[0])
    # Eigenvalues about to meet lose half of their digits, so the margins here are wider.
    edge, wider = (intervals(method, direction, reach, margin=m * MARGIN)[0][1] for m in (10, 1000))
    return edge if wider <= 1.01 * edge else 0.0


def _samples(reach: float, samples: int) -> np.ndarray:
    return np.union1d(np.geomspace(1e-7, reach, samples), np.linspace(0.0, reach, samples + 1)[1:])


def _bisect(method: Any, direction: complex, low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    """Where rho - 1 passes the margin between low and high, element by element."""
    inside = spectral_radius(method, low * direction) <= 1 + margin
    for _ in range(60):
        middle = 0.5 * (low + high)
        as_low = (spectral_radius(method, middle * direction) <= 1 + margin) == inside
        low, high = np.where(as_low, middle, low), np.where(as_low, high, middle)
    return low

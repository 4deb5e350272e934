"""Do the steps of an explicit method grow where the equation does not? Its stability function, and the field near one state, tell.

    R(z)        what a step makes of y' = a y, z = h a;       RK4: |R| <= 1 for -2.79 < z < 0, and on the imaginary axis to 2.83
    unstable    |R(z)| > 1 and |R(z)| > |exp(z)| for an eigenvalue z of h df/dy that the solution shows

A solve whose steps are too large shows it in its steps d_n = y_{n+1} - y_n: they do not follow the field, whose value has another
size or sign, and they do not get smaller. Then v = d_n is mostly made of what grows, which is one eigenvector or a pair, and

    w = h J v,    u = h J w,    u ~ a w + b v:      z^2 = a z + b

has its eigenvalues as roots, whatever the units of the entries of y. Three field values, and only where something looks wrong.
Source: Hairer & Wanner, Solving ODEs II, IV.2 (stiffness detection by h |f(y') - f(y)| / |y' - y|); here in a Krylov space.
"""
from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .methods.increment import Evaluator, System

FOLLOWS = 0.4          # times the size of the steps, by which the field may miss them: .3 for RK4 at the edge of what it resolves
GROWS = 1.02           # |R| from which a mode is said to grow that should not, and
FASTER = 1.5           # |R| / |exp(z)| from which one is that should
REST = 1e-6            # what is no step, in units of the size of y
ALIKE = 0.01           # squared sine of the angle below which two vectors are taken for one


class Unstable(NamedTuple):
    """An eigenvalue z of h df/dy whose mode the steps make grow by a factor of `growth` each, and the equation does not."""
    z: complex
    growth: float


def multiplier(method: Any, z: np.ndarray) -> np.ndarray:
    """R(z) of a Runge-Kutta method, for complex z of any shape."""
    F = Evaluator(System(lambda t, y, params: z * y, SimpleNamespace(nfe=0)), None)
    return method.flow(F, 0.0, 1.0, np.ones_like(z), 1.0)


def rows(x: Any) -> np.ndarray:
    """(members, entries) of a batch."""
    return x.reshape(-1, x.shape[-1] if x.ndim else 1)


def largest(x: np.ndarray) -> np.ndarray:
    """The largest |entry| of each row."""
    return abs(x).max(axis=1)


def astray(before: np.ndarray, after: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Whether the steps before and after a state do not follow the field there, h f = moved, and do not get smaller; by row."""
    size = largest(before) + largest(after)
    return (largest(moved - (before + after) / 2) > FOLLOWS * size) & (largest(after) + REST >= 0.5 * largest(before))


def unstable(moves: Callable, method: Any, y: Any, v: Any, s: Any, chosen: np.ndarray, reach: float | None = None) -> Unstable | None:
    """The mode that grows most in the direction v, in the chosen members of a batch; moves(y): h f(t, y); s: the size of y; reach:
    the size of the differences that J is made of, default small."""
    reach = reach or float(np.finfo(y.dtype).eps) ** (1 / 3)
    at_y = moves(y)

    def times_J(x: np.ndarray) -> np.ndarray:
        """h J x, in units of s."""
        size = largest(x)[:, None]
        small = x * (reach / np.where(size > 0, size, 1.0))
        there = (y + (small * rows(s)).reshape(y.shape)).astype(y.dtype)
        return rows(moves(there) - at_y) / rows(s) * np.where(size > 0, size, 0.0) / reach

    v = rows(v / s).astype(float)
    w = times_J(v)
    zs = roots(v, w, times_J(w))[chosen].ravel()
    growth = abs(multiplier(method, zs))
    beyond = np.nan_to_num(growth / np.where(zs.real > 0, FASTER * abs(np.exp(zs)), GROWS), posinf=0.0)
    worst = int(np.argmax(beyond))
    return Unstable(complex(zs[worst]), float(growth[worst])) if beyond[worst] > 1 else None


def roots(v: np.ndarray, w: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(members, 2): the eigenvalues of a map that takes v to w and w to u, in the plane of v and w; w / v where those are alike."""
    (vv, vw, ww, vu, wu) = ((x * y).sum(axis=1) for x, y in ((v, v), (v, w), (w, w), (v, u), (w, u)))
    det = ww * vv - vw * vw
    alike = det <= ALIKE * ww * vv
    det, vv = np.where(alike, 1.0, det), np.where(vv > 0, vv, 1.0)
    half, b = (wu * vv - vu * vw) / det / 2, (ww * vu - vw * wu) / det
    root = np.sqrt((half * half + b).astype(complex))
    return np.where(alike[:, None], (vw / vv)[:, None], np.stack([half + root, half - root], axis=1))

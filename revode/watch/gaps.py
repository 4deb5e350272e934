"""The gap between a solution and its companion (methods/companion.py): what a step puts into it, and what of it is merely smooth.

Where k < 0 a smooth gap is as it should be: v follows f, say. It is D_n = (g_{n-1} + g_n) / (2 (1 - k)), where g_n = D_{n+1} -
k D_n, and is taken off.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

CROWD = 16            # members of a batch that are alike,
ALIKE = 64            # or entries of one state, from so many on
USUAL = 100.0         # times the gap of a small one: more than that is a gap of its own


def weighted(weights: dict[str, float], parts: dict) -> Any:
    """The sum of weight * part."""
    total: Any = None
    for name, weight in weights.items():
        term = parts[name] if abs(weight) == 1.0 else abs(weight) * parts[name]
        total = (term if weight > 0 else -term) if total is None else total + term if weight > 0 else total - term
    return total


def injected(D: Sequence[Any], k: float) -> Any:
    """e of a step from the gaps beside it: two, D_n and D_{n+1}; or, to take the smooth part off, D_{n-1} .. D_{n+2}."""
    g = [after - k * before for before, after in pairwise(D)]
    if len(g) == 1:
        return g[0]
    return g[1] - (g[2] + g[1] - k * (g[1] + g[0])) / (2 * (1 - k))


def parted(D: Sequence[Any], k: float) -> Any:
    """The gap without its smooth part, from one D_n or from D_{n-1} .. D_{n+1}."""
    if len(D) == 1:
        return D[0]
    return D[1] - ((D[1] - k * D[0]) + (D[2] - k * D[1])) / (2 * (1 - k))


def among(gap: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The gaps beside their sizes, where many are alike. Some entry of many is near zero by chance, and its gap, which is that of the
    others, is large beside it. So what is no farther apart than they are is at least as large as a small one of them: the first
    quartile of either, so that three of four that stay together do not hide the fourth. (Measured: reference/detection/crowds.py.)"""
    axes = tuple(range(1, gap.ndim - 1))
    if np.prod(gap.shape[1:-1]) < CROWD:
        axes = (gap.ndim - 1,) if gap.ndim > 1 and gap.shape[-1] >= ALIKE else ()
    if not axes:
        return gap / s
    usual, small = (np.quantile(x, 0.25, axis=axes, keepdims=True) for x in (gap, s))
    return gap / np.where(gap <= USUAL * usual, np.maximum(s, small), s)

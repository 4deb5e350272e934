"""What a method carries besides the solution, and by how much it is off: data, for the monitor (watch).

A two-copy method moves the solution and a companion: a second copy (Coupled, reversible Heun), the velocity (ALF), the state
before (leapfrog). Without a field their gap D is multiplied by k in each step (`neutral`); with one, a step puts

    e = D_{n+1} - k D_n            into it,

which grows where the solution contracts, while the solution, the gradient and the round trip still look sound. D, the cotangent
a of the solution and the cotangent b of the gap are weighted sums of parts, or of their cotangents; nothing is evaluated.

Where k < 0 a smooth gap is as it should be: v follows f, say. It is D_n = (g_{n-1} + g_n) / (2 (1 - k)), where g_n = D_{n+1} -
k D_n, and is taken off.
Source: the linear part of each word: (1, 1) is its eigenvector for 1, and `b` reads along that for k.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

from .shears import Word


class Companion(NamedTuple):
    """The weights of D and of the cotangents a and b in the parts of a method; `what` names the two in a sentence."""
    what: str
    D: dict[str, float]
    a: dict[str, float]
    b: dict[str, float]
    velocity: bool = False          # D is one: times h it is as large as y
    allowed: float = 0.03           # the largest gap, relative to y, that is no parting
    driven: float = 0.3             # the same under noise or a rough control, where the gap is O(sqrt(h))


def weighted(weights: dict[str, float], parts: dict) -> Any:
    """The sum of weight * part."""
    total: Any = None
    for name, weight in weights.items():
        term = parts[name] if weight == 1.0 else -parts[name] if weight == -1.0 else weight * parts[name]
        total = term if total is None else total + term
    return total


def neutral(word: Word) -> float:
    """k: what a step makes of the gap where there is no field. 1/|k| is what a step back makes of rounding, at least."""
    return prod(shear.scale for shear in word)


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

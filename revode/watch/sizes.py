"""Sizes of states, of many of them at once, on the host or where they are."""
from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from ..engine.tensor import beside, number, to_host
from ..methods.shears import Parts


def size(x: Any) -> float:
    """The largest absolute entry, as a float; NaN if there is one."""
    return number(abs(x).max())


@lru_cache(8)
def precision(dtype: Any) -> tuple[float, float]:
    """The spacing of numbers at 1, and the smallest one."""
    info = np.finfo(dtype)
    return float(info.eps), float(info.tiny)


def highest(x: Any) -> Any:
    """The largest |x| of each entry over the grid points of the first axis."""
    return abs(x).max(axis=0)


def floor(s: Any) -> float:
    """What is small beside the largest entry."""
    eps, tiny = precision(s.dtype)
    return eps ** 0.5 * number(s.max()) + tiny


def stacked(rows: list[Parts]) -> Parts:
    """Many states as one, with an axis of grid points first."""
    if len(rows) == 1:
        return {name: x[None] for name, x in rows[0].items()}
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def taken(at: Any, parts: Parts) -> Parts:
    """The rows `at` of all."""
    return {name: x.take(at, 0) for name, x in parts.items()}


def members(x: Any) -> Any:
    """The sum of |entries| of each member of a batch; x has an axis of grid points before those of the state."""
    x = abs(x)
    return x.sum(axis=-1) if x.ndim > 1 else x


def flat(arrays: list) -> Any:
    """The entries of all arrays, one after another."""
    return np.concatenate([x.reshape(-1) for x in arrays])


def begins(arrays: list) -> np.ndarray:
    """Where in flat(arrays) each of them begins, but for those without entries."""
    sizes = [x.size for x in arrays]
    return np.cumsum([0, *sizes[:-1]])[np.asarray(sizes) > 0]


def sums_of(x: Any, begins: np.ndarray) -> np.ndarray:
    """The sum of each stretch of x, on the host."""
    if isinstance(x, np.ndarray):
        return np.add.reduceat(x, begins)
    return np.asarray([number(x[i:j].sum()) for i, j in pairwise([*begins.tolist(), len(x)])])


def by_chance(members: tuple[int, ...]) -> float:
    """How much larger the largest of so many sums along random paths is than one of them: their logarithms spread by .4 (measured at
    100 paths, N = 16 .. 256), and the largest of M normal numbers is about sqrt(2 ln M)."""
    return math.exp(0.4 * math.sqrt(2 * math.log(math.prod(members) or 1)))


def column(values: Any, like: Any) -> Any:
    """One number for each row of `like`, where that is and shaped to go with it."""
    return beside(like)(np.reshape(values, (-1, *[1] * (like.ndim - 1))).astype(like.dtype))


def so_far(x: Any) -> Any:
    """The largest of each entry up to each row."""
    if isinstance(x, np.ndarray):
        return np.maximum.accumulate(x) if len(x) > 1 else x
    for k in (2 ** j for j in range((len(x) - 1).bit_length())):          # what devices offer: by doubling
        x = np.concatenate([x[:k], np.maximum(x[k:], x[:-k])])
    return x


def largest_seen(x: Any) -> Any:
    """The same as highest(), of rows that there may be none of."""
    return highest(x) if len(x) else 0.0


def size_of_each(x: Any) -> np.ndarray:
    """The largest absolute entry of each row, on the host."""
    return to_host(abs(x).reshape(len(x), -1).max(axis=1))


def largest_of_each(x: Any) -> list[float]:
    """The same of what is positive, as numbers."""
    return [number(x.max())] if len(x) == 1 else to_host(x.reshape(len(x), -1).max(axis=1)).tolist()


def finite(x: float) -> float:
    """x, or Inf for what is not a number."""
    return x if x == x else float("inf")

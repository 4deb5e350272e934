"""Where a march is looked at, forward and back: a few grid points and their neighbours, which depend on the grid alone."""
from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np

LOOKS = 16            # places at which a march, forward or back, is looked at
COMPARED = 16      # at most so many saved states are compared on the way back
ROOM = 1 << 15        # bytes of states that are held to be judged together


@lru_cache(64)
def places(N: int, width: int, stretch: int | None = None) -> tuple[int, ...]:
    """The first of `width` neighbouring grid points each: up to LOOKS windows spread over 0 .. N, which share no point.

    stretch: a sweep starts anew at its multiples, so that no window may reach across one.
    """
    last, count = N + 1 - width, min(LOOKS, (N + 1) // width)
    if count < 1 or (stretch is not None and stretch < width):
        return ()
    starts = [round(k * last / max(1, count - 1)) for k in range(count)]
    if stretch is not None:
        starts = [n - max(0, n % stretch - (stretch - width)) for n in starts]
    return tuple(n for k, n in enumerate(starts) if not k or n >= starts[k - 1] + width)


@lru_cache(64)
def looks(N: int, width: int, stretch: int | None = None) -> tuple[int, ...]:
    """Every point of those windows."""
    return tuple(n + i for n in places(N, width, stretch) for i in range(width))


@lru_cache(64)
def stops_of(N: int, width: int) -> tuple[int, ...]:
    """The grid points behind the first to look at on the way forward, the last among them."""
    return tuple(sorted({N, *looks(N, width)} - {0}))


@lru_cache(64)
def back_from(N: int, width: int, resync: int | None, inner: bool, compared: frozenset[int]) -> tuple[int, ...]:
    """The grid points to look at on the way back, last first; inner: not those that are landed on."""
    seen = looks(N - 1, width, resync)
    if inner:
        seen = tuple(n for n in seen if n and (resync is None or n % resync))
    return tuple(sorted({*compared, *seen}, reverse=True))


def compared(save: tuple[int, ...], N: int) -> set[int]:
    """The saved grid points whose states are compared on the way back, at most COMPARED of them."""
    return set(save[::-(-len(save) // COMPARED) or 1]) - {N}


@lru_cache(64)
def runs(ns: tuple[int, ...], width: int) -> np.ndarray:
    """Where in ns `width` neighbouring grid points stand one after another: (width, windows) positions, earliest time first."""
    at = np.asarray([i for i in range(len(ns) + 1 - width) if abs(ns[i + width - 1] - ns[i]) == width - 1], np.intp)
    found = at + np.arange(width)[:, None]
    return found[::-1] if len(ns) > 1 and ns[1] < ns[0] else found


@lru_cache(64)
def windows(ns: tuple[int, ...], width: int) -> tuple[np.ndarray, list[int], tuple[int, ...]]:
    """runs(), where the middle of each stands, and the grid points there."""
    at = runs(ns, width)
    middle = at[width // 2].tolist()
    return at, middle, tuple(ns[i] for i in middle)


@lru_cache(64)
def within(N: int, width: int, stretch: int | None = None) -> frozenset[int]:
    """The points of those windows that come behind another one of theirs."""
    return frozenset(n + i for n in places(N, width, stretch) for i in range(1, width))


def grouped(ns: Sequence[int], most: int, inside: Collection[int]) -> list[Sequence[int]]:
    """Grid points, either way, in lists of so many, or a few more: none ends in a window; inside: what within() gives."""
    if len(ns) <= most:
        return [ns]
    found: list[list[int]] = [[]]
    for n in ns:
        if len(found[-1]) >= most and not (max(n, found[-1][-1]) in inside and abs(n - found[-1][-1]) == 1):
            found.append([])
        found[-1].append(n)
    return [*found]


@lru_cache(64)
def groups_back(looks: tuple[int, ...], first: int, last: int, most: int, inside: frozenset[int]) -> list[list[int]]:
    """Those of the looks in first .. last - 1, grouped."""
    return [[*group] for group in grouped([n for n in looks if first <= n < last], most, inside)]


@lru_cache(64)
def threes(ns: tuple[int, ...]) -> np.ndarray:
    """runs(ns, 3), but for the start, which is not seen by every engine."""
    at = runs(ns, 3)
    return at[:, [ns[i] > 0 for i in at[0].tolist()]]

"""What the watch wants to know of a queued solve whose states are large, measured on the device (kernels/scores.cu).

    L, M, y0, cotangents  --scores-->  a number for each of GAP, S_P, .., W_P, W_0, .. a tile of trajectories  --report-->  Bounds

They are the numbers of watch.Ahead and watch.Back, or larger ones. Where they are small there is nothing to say (watch/quiet.py);
where they are not, somebody has to look at the states themselves.
"""
from __future__ import annotations

import re
from math import inf, sqrt
from typing import Any

import numpy as np

from revode.watch.ahead import Ahead
from revode.watch.back import cancelled, flowing, neighbours
from revode.watch.causes import FADE, OF_TOLERANCE, Pairs
from revode.watch.places import windows
from revode.watch.quiet import Bounds, combinations, gaps, items
from revode.watch.sizes import precision

from . import kernels
from .compile import kernel_source

TEXT = kernel_source("scores")
LANES = int(re.search(r"#define LANES (\d+)", TEXT)[1])                                            # type: ignore[index]
WHERE = re.findall(r"\w+", re.search(r"struct Where \{ long long ([^;]*);", TEXT)[1])             # type: ignore[index]
NUMBERS = re.findall(r"\w+", re.search(r"enum \{([^}]*)\}", TEXT)[1])[:-1]                         # type: ignore[index]


class Tables:
    """Whole numbers in the order of the kernel's `Where`, lists of them behind, and lists of real numbers."""

    def __init__(self) -> None:
        self.where = dict.fromkeys(WHERE, 0)
        self.lists: list[int] = []
        self.reals: list[float] = []

    def put(self, **given: Any) -> None:
        """Whole numbers; of a list, where it begins."""
        for name, x in given.items():
            self.where[name] = int(x) if np.ndim(x) == 0 else len(WHERE) + len(self.lists)
            self.lists += [] if np.ndim(x) == 0 else np.ravel(x).tolist()

    def weigh(self, **given: Any) -> None:
        """Lists of real numbers."""
        for name, x in given.items():
            self.where[name] = len(self.reals)
            self.reals += np.ravel(x).tolist()

    def arrays(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray([*self.where.values(), *self.lists], np.int64), np.asarray(self.reals, dtype)


def scale_of(problem: Any, features: int, dtype: Any) -> np.ndarray:
    """By feature, what of a size a gap is measured in, and what beside it: all of it; or a controller's rtol and atol."""
    given, least = problem.tolerances or (np.ones(()), np.zeros(())), np.array([0.0, precision(dtype)[1]])
    each = [np.min(x, axis=tuple(range(max(0, x.ndim - 1)))) for x in given]              # of all trajectories the smallest
    return np.stack([np.broadcast_to(x, features) for x in each]) + least[:, None]


class Scores(Tables):
    """Where the kernel finds what it measures, and what its numbers mean.

    Parameters
    ----------
    ahead, back : the runners; back is None without a reverse sweep.
    looks : the grid points that are looked at, on the way there and back.
    places : by name, where things begin in the buffer: initial, L; and of a sweep M, L_back, scratch, saved states (by grid point),
        others (cotangents of parts that are no output).
    """

    def __init__(self, xp: Any, problem: Any, parts: dict, ahead: Any, back: Any, looks: tuple, places: dict) -> None:
        pairs = Pairs(problem)
        data, names, (output,), width = pairs.data, problem.method.parts, problem.method.outputs, neighbours(pairs)
        kind = names, items(data, output), output, 0.0 if data is None else pairs.k
        watch = Ahead(problem, None)
        watch.begin(parts)
        at, middle, points = windows(tuple(looks[0]), watch.width)
        counts, rise, _ = watch.rising(points) if points else (np.zeros(0), np.zeros(0), 0.0)
        steps = [abs(float(problem.hs[looks[0][i]])) if data is not None and data.velocity else 1.0 for i in middle]
        self.where = dict.fromkeys(WHERE, 0)
        self.lists: list[int] = []
        self.reals: list[float] = []
        look = ahead.tiles * ahead.source.seen
        self.put(rows=ahead.rows, features=ahead.shape[-1], parts=len(names), output=names.index(output),
                 pairs=int(data is not None), N=problem.N, initial=places["initial"], ahead=places["L"], ahead_T=ahead.T,
                 ahead_lane=ahead.source.stride,
                 ahead_stride=ahead.source.seen, ahead_parts=[ahead.source.places["part", name][0] for name in names],
                 looks=len(looks[0]), look=look, ahead_windows=at.shape[1], ahead_width=watch.width, ahead_at=look * at,
                 scratch=places["scratch"], back=-1, back_T=1, weighed=-1)
        self.weigh(ahead_weights=gaps(*kind, watch.width), rise=rise, steps=steps, counts=counts,
                   scale=scale_of(problem, ahead.shape[-1], ahead.dtype))
        self.trips: list[int] = []
        if back is not None:
            self.sweep(problem, kind, back, looks[1], places, width, 2 if pairs.smooth else 1)
        self.put(count=len(NUMBERS) + 2 * len(self.trips))
        self.shape = self.where["count"], -(-ahead.rows // LANES)
        self.size = self.shape[0] * self.shape[1]
        self.tables = tuple(map(xp.asarray, self.arrays(ahead.dtype)))
        self.eps, self.tiny = precision(ahead.dtype)

    def sweep(self, problem: Any, kind: tuple, back: Any, looks: list, places: dict, width: int, apart: int) -> None:
        """What there is of a reverse sweep."""
        names = kind[0]
        lies = {role: offset for role, (offset, _, _) in back.source.places.items()}
        look = back.tiles * back.source.seen
        at, _, points = windows(tuple(looks), width)
        ts, saved = problem.ts, places["saved"]
        span = abs(float(ts[-1] - ts[0])) or 1.0
        compared = [(look * k, saved[n]) for k, n in enumerate(looks) if n in saved]
        self.trips = [*(n for n in looks if n in saved), 0]
        came = "landed" if "land" in back.lowered else "part"
        self.put(back=places["L_back"], back_T=back.T, back_lane=back.source.stride, back_stride=back.source.seen,
                 back_windows=at.shape[1], back_width=width,
                 back_at=look * at, back_parts=[lies[what, name] for what in ("part", "cotangent") for name in names], apart=apart,
                 memory=places["M"], memory_stride=back.stride, compared=len(compared), compared_at=np.asarray(compared),
                 came=[lies[what, name] for what in (came, "cotangent") for name in names],
                 weighed=lies.get(("missed", "weighed"), -1), largest=lies.get(("missed", "largest"), -1),
                 others=len(places["others"]), others_at=places["others"])
        less = [np.exp(-FADE * abs(float(ts[n] - ts[0])) / span) for n in points]
        self.weigh(back_weights=combinations(*kind, width, apart), less=less)

    def launch(self, x: Any, out: Any) -> None:
        kernels.scores(self.tables, x, out, sqrt(self.eps), self.tiny, mode="strict")

    def bounds(self, problem: Any, numbers: np.ndarray, flowed: tuple | None) -> Bounds | None:
        """Of the numbers on the host; None where one of them is not finite, or tells nothing. Notes the defect in the stats."""
        numbers = numbers.reshape(self.shape).astype(np.float64)
        if not np.isfinite(numbers).all():
            return None
        worst = dict(zip(NUMBERS, numbers.max(axis=1).tolist(), strict=False))
        near, left = (float(numbers[NUMBERS.index(name)].sum()) for name in ("NEAR", "LEFT"))
        trips = numbers[len(NUMBERS):].max(axis=1).reshape(-1, 2).tolist()
        if worst["ASIDE"]:
            return None
        data, nearly = problem.method.companion, self.where["weighed"] >= 0
        allowed = inf if data is None else data.allowed if problem.driver is None else data.driven
        if problem.adaptive is not None:
            allowed = OF_TOLERANCE
        if data is not None and self.trips and self.where["back_windows"]:         # a sweep knows better, unless the gap is very large
            allowed *= Pairs(problem).limits.G
        if nearly:
            problem.stats.defect = worst["DEFECT"]
        # the kernel puts a trip to the start first, the watch compares that last
        return Bounds(tuple(worst[name] for name in ("S_P", "S_Y", "S_D")), worst["GAP"] <= allowed,
                      [(n, *trip) for n, trip in zip(self.trips, [*trips[1:], *trips[:1]], strict=True)], worst["W_P"], worst["W_Y"],
                      worst["W_0"], max(1.0, sqrt(near / left)) if left > 0 else 1.0, worst["E"] if nearly else None,
                      cancelled(flowing(None, flowed), 0.0))

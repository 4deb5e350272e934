"""Brownian motion that is recomputed, never stored.

    Brownian       dW_n = sqrt(|h_n|) Z(trajectory, n, channel)             one normal for each step, by its number
    BrownianTree   W(t) for every t of [t0, t1], by halving:                noise that does not depend on the grid
                   W(m) = (W(a) + W(b))/2 + sqrt(b - a)/2 Z(cell),  m the middle of the cell [a, b]

Z is the normal of a Philox counter (philox.py), so that the reverse sweep makes the same bits again. The trajectory is
the flat index into the batch, the channel the last axis: a batch solved in parts, with `offset` the number of the first
trajectory of a part, gets the same noise as the whole.

Counter of a step: (trajectory, n, channel, 0). Of a node of the tree, with the cells of level l numbered from 2^l on:
(trajectory, low word of the number, channel, 2^31 + high word); the end value W(t1) has the number 0.

Pitfall: `Brownian` knows steps, not times. The same ts give the same path; a finer grid, another start or a reversed
grid give another one. Use the tree for adaptive steps, for one path on several grids, and to solve a path backwards.

Sources: Salmon et al. 2011 (counters); Levy's construction of Brownian motion by midpoints; a tree that is recomputed
from keys: Li, Wong, Chen & Duvenaud 2020, arXiv 2001.01328, section 4.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite, log2, prod, sqrt
from numbers import Real
from typing import Any

import numpy as np

from .philox import WORD, normals

SLACK = 8          # units in the last place by which a time may be outside of a tree: what sums of steps are off by


@dataclass(frozen=True)
class Brownian:
    """The increments of a Brownian motion, one for each step of a grid, recomputed from a counter and never stored.

        dW_n = sqrt(|h_n|) Z(trajectory, n, channel)

    Pitfall: it knows steps, not times. The same ts give the same path; a finer grid, another start or a reversed grid give
    another one. Use BrownianTree for adaptive steps, for one path on several grids, and to solve a path backwards.

    Parameters
    ----------
    seed : 0 .. 2^64 - 1. Different seeds give independent noise.
    shape : (*batch, channels) of dW; None takes the shape that is asked for.
    offset : the number of the first trajectory of this batch; the batch may be solved in parts.
    first : the number of the first step. Two solves with first=0 and first=N, N the steps of the one, see two windows of one path,
        whose increments are independent; with the same first they see the same increments.

    Raises TypeError or ValueError for a seed, shape, offset or first that is none.

    Cost: about 40 ns a number in NumPy, forward and again back; some 3.5 ns in compiled programs. No state is held.
    Source: Salmon and others 2011 (Philox, counters).

    Example
    -------
    >>> noise = Brownian(seed=7)
    >>> whole, part = noise.increments(3, (4, 2)), Brownian(seed=7, offset=2).increments(3, (2, 2))
    >>> bool(np.all(whole[2:] == part))
    True
    """
    seed: int
    shape: tuple[int, ...] | None = None
    offset: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        check_record("Brownian", self, "first")

    def increments(self, step: Any, shape: tuple[int, ...] | None = None, h: Any = 1.0, dtype: Any = np.float64) -> Any:
        """dW = W(t_n + h) - W(t_n) for step number n: sqrt(|h|) times normals, shape (*batch, channels).

        step : 0 .. 2^32 - 1 - first; or an array (k,) of steps, with h one number or (k,): then (k, *batch, channels) comes
            back.
        h : the length of the step. A negative h is a step of a grid that runs backwards; dW is then the change of W
            from ts[n] to ts[n+1] < ts[n], of variance |h|. The sign of h does not enter: the reverse sweep of a solve
            asks with the h of the forward step, and negates dW itself.
        dtype : float64, or float32: the float64 number rounded once.

        Raises ValueError for a step or h that is no such number, and for a shape that is not the noise's own.
        Cost: about 40 ns a number in large shapes, never less than about 0.1 ms; see `along` for small ones.
        """
        shape = agreed_shape("Brownian", self, shape)
        dtype = float_dtype("Brownian", dtype)
        steps = np.asarray(step)
        counts = steps.ndim <= 1 and steps.dtype.kind in "iu"
        if not counts or (steps.size and not 0 <= steps.min() <= steps.max() <= WORD - self.first):
            raise ValueError(f"Brownian: step={step!r} with first={self.first}; the number of a step is an integer from 0 to "
                             "2^32 - 1 - first, or an array (k,) of them")
        width = np.sqrt(np.abs(np.asarray(h, np.float64)))
        if width.ndim > steps.ndim or (width.ndim and width.shape != steps.shape):
            raise ValueError(f"Brownian: h of shape {width.shape} for steps of shape {steps.shape}; give one h, or one "
                             "for each step")
        if not np.isfinite(width).all():
            raise ValueError(f"Brownian: h={h!r}; the length of a step is a finite number")
        z = counted_normals(self, np.atleast_1d(steps) + self.first, 0, shape)
        z *= width.reshape(width.shape + (1,) * (z.ndim - width.ndim))
        return (z if steps.ndim else z[0]).astype(dtype, copy=False)

    def along(self, hs: Any, shape: tuple[int, ...] | None = None, dtype: Any = np.float64, first: int = 0) -> Along:
        """The increments of a whole grid by position, n -> dW_n: the bits of `increments`, quicker for small shapes.

        hs : (N,) lengths of the steps.
        first : the number of the step at position 0 (for a solve that is resumed).
        """
        hs, shape = np.asarray(hs, np.float64), agreed_shape("Brownian", self, shape)
        return Along(len(hs), shape, lambda start, stop: self.increments(
            np.arange(first + start, first + stop), shape, hs[start:stop], dtype))


class Along:
    """Increments of consecutive steps, a block at a time: at most 8192 numbers (or one step) are held, for any N."""
    numbers = 8192

    def __init__(self, N: int, shape: tuple[int, ...], make: Callable) -> None:
        self.N, self.make = N, make                       # make(start, stop): (stop - start, *shape) increments
        self.length = max(1, self.numbers // max(1, prod(shape)))
        self.held, self.block = -1, np.empty(0)

    def __call__(self, n: int) -> Any:
        """dW of position n, read-only."""
        if not 0 <= n < self.N:
            raise IndexError(f"Brownian: step {n} of a grid of {self.N} steps")
        which, at = divmod(n, self.length)
        if which != self.held:
            start = which * self.length
            self.block = self.make(start, min(start + self.length, self.N))
            self.block.flags.writeable = False
            self.held = which
        return self.block[at]


@dataclass(frozen=True)
class BrownianTree:
    """One Brownian path on [t0, t1], W(t0) = 0, that can be asked at any time, in any order, at any resolution.

        W(m) = (W(a) + W(b))/2 + sqrt(b - a)/2 Z(cell),                      m the middle of the cell [a, b]
        W(t) = (1 - x) W(a) + x W(b) + sqrt((b - a) x (1 - x)) Z(cell),      x = (t - a)/(b - a), in a finest cell

    Times no two of which are in the same finest cell have exactly the law of Brownian motion, and so does each time alone.
    For two times in the same cell the bridge parts are multiples of one normal: their covariance is too large, by at most
    (b - a)/4, and the increment between them varies too little.

    Parameters
    ----------
    seed, shape, offset : as in Brownian.
    t0, t1 : the ends, t0 < t1, in the unit of ts; a solve may run either way between them. A time that rounding has put a few
        units in the last place outside is the end.
    tol : the width of the finest cells, at most; default (t1 - t0) / 2^20. Choose it below the smallest step. A smaller tol keeps
        the values at the multiples of (t1 - t0)/2^depth of the coarser tree, in bits.

    Consistency: W(t) depends on (seed, trajectory, channel, t) alone, and is rounded to a multiple of a power of two,
    finer than 2^-46 sqrt(t1 - t0), so that differences are exact: in float64 W(s, u) == W(s, t) + W(t, u), bit for bit,
    and W(t, s) == -W(s, t). In float32 each increment is the exact one rounded once: the sum is off by at most
    2^-24 (|W(s,t)| + |W(t,u)| + 2 |W(s,u)|), to first order.

    Raises ValueError for times outside [t0, t1], and for t0 >= t1.

    Cost: log2((t1 - t0)/tol) normals a time, twenty by default, forward and again back; a walk along a grid shares most of them.
    Source: Levy's construction of Brownian motion by midpoints; a tree that is recomputed from keys: Li, Wong, Chen & Duvenaud
    2020, arXiv 2001.01328, section 4.

    Example
    -------
    >>> tree = BrownianTree(seed=7, t0=0.0, t1=1.0)
    >>> first, second, both = (tree.increments(s, t, (5,)) for s, t in ((0.1, 0.3), (0.3, 0.7), (0.1, 0.7)))
    >>> bool(np.all(both == first + second))
    True
    """
    seed: int
    t0: float
    t1: float
    tol: float | None = None
    shape: tuple[int, ...] | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        check_record("BrownianTree", self)
        if not (isinstance(self.t0, Real) and isinstance(self.t1, Real)):
            raise TypeError(f"BrownianTree: t0={self.t0!r}, t1={self.t1!r}; two finite times with t0 < t1")
        object.__setattr__(self, "t0", float(self.t0))          # a float32 time would round the length of the interval
        object.__setattr__(self, "t1", float(self.t1))
        if not (isfinite(self.t0) and isfinite(self.t1) and self.t0 < self.t1 and isfinite(self.t1 - self.t0)):
            raise ValueError(f"BrownianTree: t0={self.t0!r}, t1={self.t1!r}; two finite times with t0 < t1 (the path "
                             "can be followed backwards all the same)")
        if self.tol is not None and not (self.t1 - self.t0) * 2.0 ** -50 <= self.tol < float("inf"):
            raise ValueError(f"BrownianTree: tol={self.tol!r}; the width of the finest cells, at least (t1 - t0)/2^50")

    @property
    def depth(self) -> int:
        """How often [t0, t1] is halved."""
        if self.tol is None:
            return 20
        return max(0, next(d for d in range(52) if (self.t1 - self.t0) * 2.0 ** -d <= self.tol))

    @property
    def unit(self) -> float:
        """The power of two of which every value is a multiple; 2^53 of them are more than any increment can be.

        |Z| < 8.3 bounds |W| by 8.3 sqrt(T) (1 + 1/2 sum_l 2^(-l/2)) < 22.5 sqrt(T), and an increment by twice that.
        """
        return 2.0 ** (ceil(log2(45.0 * sqrt(self.t1 - self.t0))) - 53)

    def walk(self, shape: tuple[int, ...] | None = None, dtype: Any = np.float64) -> Walk:
        """A reader that remembers the way to the last time: neighbouring times share most of it."""
        return Walk(self, agreed_shape("BrownianTree", self, shape), float_dtype("BrownianTree", dtype))

    def over(self, ts: Any, shape: tuple[int, ...] | None = None, dtype: Any = np.float64) -> Along:
        """The increments of a whole grid by position, n -> W(ts[n + 1]) - W(ts[n]): the bits of `increments`, many at a time.

        ts : (N + 1,) times inside [t0, t1]. Raises ValueError for others.
        Cost: for each number log2(h / tol) + 2 normals of some 150 ns, as for `walk`, and next to nothing for a step.
        """
        ts, shape, dtype = self.inside(ts), agreed_shape("BrownianTree", self, shape), float_dtype("BrownianTree", dtype)
        return Along(len(ts) - 1, shape, lambda start, stop: np.diff(descent(self, ts[start:stop + 1], shape), axis=0).astype(
            dtype, copy=False))

    def inside(self, ts: Any) -> np.ndarray:
        """Times as the tree takes them: those that rounding has put a few units in the last place outside are its ends."""
        ts, slack = np.asarray(ts, np.float64), SLACK * float(np.spacing(max(abs(self.t0), abs(self.t1))))
        outside = ~((ts >= self.t0 - slack) & (ts <= self.t1 + slack))
        if outside.any():
            raise ValueError(f"BrownianTree: t={float(ts[outside].flat[0])!r} is outside [t0, t1] = [{self.t0!r}, {self.t1!r}]; make "
                             "the tree over the whole time of the solve")
        return np.minimum(np.maximum(ts, self.t0), self.t1)

    def value(self, t: float, shape: tuple[int, ...] | None = None, dtype: Any = np.float64) -> Any:
        """W(t) - W(t0), shape (*batch, channels)."""
        return self.increments(self.t0, t, shape, dtype)

    def increments(self, s: float, t: float, shape: tuple[int, ...] | None = None, dtype: Any = np.float64) -> Any:
        """W(t) - W(s), shape (*batch, channels); s and t in any order inside [t0, t1].

        dtype : float64, or float32: the float64 increment rounded once.

        Raises ValueError for times outside [t0, t1].
        Cost: up to 2 depth normals for each number; `walk` shares them between neighbouring times.
        """
        return self.walk(shape, dtype).increments(s, t)


class Walk:
    """Reads a tree along neighbouring times, with the same bits whatever was read before.

    Holds the nodes above the last time, depth + 2 arrays at most, and the last two values: constant for any N.
    Cost: for steps of length h about log2(h / tol) + 2 normals for each number; no step below about 0.2 ms.
    """

    def __init__(self, tree: BrownianTree, shape: tuple[int, ...], dtype: Any) -> None:
        self.tree, self.shape, self.dtype, self.depth = tree, shape, dtype, tree.depth
        self.T = tree.t1 - tree.t0
        zero = np.zeros(shape)
        self.cell = 0                                   # of the finest level, where the last time was
        self.ends = [(zero, sqrt(self.T) * self.normals([0])[0])]          # W at both ends of its cell, level by level
        self.known: dict[float, Any] = {}

    def increments(self, s: float, t: float) -> Any:
        """W(t) - W(s)."""
        s, t = float(s), float(t)
        values = [self.value(s), self.value(t)]
        self.known = dict(zip((s, t), values, strict=True))
        return (values[1] - values[0]).astype(self.dtype, copy=False)

    def value(self, t: float) -> Any:
        """W(t) - W(t0), float64."""
        if t in self.known:
            return self.known[t].copy()
        tree = self.tree
        t = float(tree.inside(t)) if not tree.t0 <= t <= tree.t1 else t
        place = (t - tree.t0) / self.T * 2.0 ** self.depth               # in finest cells; the scaling is exact
        cell = min(int(place), 2 ** self.depth - 1)
        x = place - cell
        # A time at the left end of a cell is known from the first level on that has it as an end.
        levels = self.depth if x else self.depth - (cell & -cell if cell else 1 << self.depth).bit_length() + 1
        shared = min(self.depth - (cell ^ self.cell).bit_length(), len(self.ends) - 1, levels)
        del self.ends[shared + 1:]
        self.cell = cell
        inside = 0.0 < x < 1.0
        nodes = [(1 << level) + (cell >> self.depth - level) for level in range(shared, levels + inside)]
        z = self.normals(nodes)
        for level in range(shared, levels):
            left, right = self.ends[-1]
            middle = bridge(left, right, self.T * 2.0 ** -level, 0.5, z[level - shared])
            self.ends.append((middle, right) if cell >> self.depth - level - 1 & 1 else (left, middle))
        left, right = self.ends[-1]
        w = bridge(left, right, self.T * 2.0 ** -self.depth, x, z[-1]) if inside else right if x else left
        return np.rint(w / tree.unit) * tree.unit

    def normals(self, nodes: Any) -> Any:
        """The normals of some nodes, (k, *shape)."""
        return normals_of(self.tree, np.asarray(nodes, np.uint64), self.shape)


def normals_of(tree: BrownianTree, nodes: np.ndarray, shape: tuple[int, ...]) -> Any:
    """The normals of nodes of a tree, (k, *shape), by their numbers (k,)."""
    return counted_normals(tree, nodes & np.uint64(WORD), np.uint64(1 << 31) | nodes >> np.uint64(32), shape)


def descent(tree: BrownianTree, ts: np.ndarray, shape: tuple[int, ...]) -> Any:
    """W at many times, (k, *shape), all of them carried down the tree together: the bits of `Walk.value`.

    A node above several of the times is looked up once; a time is done where it is an end of its cell.
    """
    k, T, depth = len(ts), tree.t1 - tree.t0, tree.depth
    place = (ts - tree.t0) / T * 2.0 ** depth                            # in finest cells; the scaling is exact
    cell = np.minimum(place.astype(np.int64), 2 ** depth - 1)
    x = place - cell
    left = np.zeros((k, *shape))
    right = np.broadcast_to(sqrt(T) * normals_of(tree, np.zeros(1, np.uint64), shape), left.shape).copy()

    def drawn(level: int, of: np.ndarray) -> Any:
        nodes, back = np.unique((1 << level) + (cell[of] >> depth - level), return_inverse=True)
        return normals_of(tree, nodes.astype(np.uint64), shape)[back]

    for level in range(depth):
        below = cell & (1 << depth - level) - 1                          # 0: the time is the left end of its cell, up to x
        of = np.flatnonzero((below > 0) | ((x > 0) & (x < 1)))
        of = of[~((below[of] == (1 << depth - level) - 1) & (x[of] == 1))]
        if of.size:
            middle = bridge(left[of], right[of], T * 2.0 ** -level, 0.5, drawn(level, of))
            upper = (cell[of] >> depth - level - 1 & 1).astype(bool)
            left[of[upper]], right[of[~upper]] = middle[upper], middle[~upper]
    of = np.flatnonzero((x > 0) & (x < 1))
    w = np.where(np.reshape(x == 1, (k, *[1] * len(shape))), right, left)
    if of.size:
        share, width = np.reshape(x[of], (-1, *[1] * len(shape))), T * 2.0 ** -depth
        w[of] = ((1.0 - share) * left[of] + share * right[of]) + np.sqrt(width * (share * (1.0 - share))) * drawn(depth, of)
    return np.rint(w / tree.unit) * tree.unit


def bridge(left: Any, right: Any, width: float, x: float, z: Any) -> Any:
    """W at the share x of a cell, given W at its two ends and a normal; at x = 0 and 1 the end itself."""
    return ((1.0 - x) * left + x * right) + sqrt(width * (x * (1.0 - x))) * z


def counted_normals(noise: Any, steps: Any, last: Any, shape: tuple[int, ...]) -> Any:
    """(k, *shape) normals of the counters (noise.offset + flat batch index, step, channel, last).

    steps : (k,);   last : (k,) or one number.
    """
    batch, channels = (prod(shape[:-1]), shape[-1]) if shape else (1, 1)
    if noise.offset + batch > WORD + 1 or channels > WORD + 1:
        raise ValueError(f"{type(noise).__name__}: offset={noise.offset} and shape {shape} go past 2^32 trajectories "
                         "or channels; use another seed for the rest")
    trajectory = np.tile(np.arange(noise.offset, noise.offset + batch, dtype=np.uint64), len(steps))
    rows = normals(noise.seed, trajectory, np.repeat(steps, batch), channels, np.repeat(last, batch) if np.ndim(last) else last)
    return rows.reshape(len(steps), *shape)


def check_record(name: str, noise: Any, *more: str) -> None:
    """The fields that both kinds of noise have; numbers become Python's own, so that records compare."""
    for field, limit in (("seed", 2 ** 64), *((field, 2 ** 32) for field in ("offset", *more))):
        given = getattr(noise, field)
        if isinstance(given, (bool, np.bool_)) or not isinstance(given, (int, np.integer)) or not 0 <= given < limit:
            raise ValueError(f"{name}: {field}={given!r}; an integer from 0 to 2^{limit.bit_length() - 1} - 1")
        object.__setattr__(noise, field, int(given))
    if noise.shape is not None:
        object.__setattr__(noise, "shape", checked_shape(name, noise.shape))


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) if size == int(size) >= 0 else -1 for size in shape)
    except TypeError:
        sizes = (-1,)
    if -1 in sizes:
        raise ValueError(f"{name}: shape={shape!r}; the shape of dW, (*batch, channels), a tuple of sizes")
    return sizes


def agreed_shape(name: str, noise: Any, shape: Any) -> tuple[int, ...]:
    """The shape asked for, which must be the noise's own where it has one."""
    if shape is None and noise.shape is None:
        raise ValueError(f"{name}: no shape; give the shape of dW, (*batch, channels), here or to "
                         f"{name}(..., shape=...)")
    shape = noise.shape if shape is None else checked_shape(name, shape)
    if noise.shape is not None and shape != noise.shape:
        raise ValueError(f"{name}: noise of shape {shape} is needed, but this noise was made with shape={noise.shape}; "
                         "leave shape out, or make it what the diffusion takes")
    return shape


def float_dtype(name: str, dtype: Any) -> Any:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"{name}: dtype={np.dtype(dtype).name}; noise comes as float32 or float64")
    return np.dtype(dtype)

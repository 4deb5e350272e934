"""Paths through data, for dy = f(t, y) dX: what a controlled differential equation is driven by.

    LinearPath    X = (1 - x) X_i + x X_{i+1},                             x = (t - t_i)/(t_{i+1} - t_i) = (t - t_i)/d
    Rectilinear   X waits at X_i in the first half of an interval, goes to X_{i+1} in the second; time does the opposite
    HermiteCubic  X = (1 - x) X_i + x X_{i+1} - d (m_i - m_{i-1}) x (1 - x)^2,   m_i = (X_{i+1} - X_i)/d, m_{-1} = m_0

All pass through the data at the data's times. HermiteCubic has a continuous derivative, m_{i-1} at t_i: the slope of
the interval before, so that it looks one observation ahead and no further (for values without gaps).

Missing values are NaN, in each channel on its own. Between two observations a gap is filled on the line between them;
before the first observation with the first, after the last with the last. Rectilinear fills a gap with the observation
before it, and so does not look ahead but for values before the first observation.

How a solve uses them: `smooth` is False where the derivative jumps at the knots. Then the increments X(t_{n+1}) -
X(t_n) replace h, on a grid that contains the knots (`times`); a step across a knot sees only the chord. Where it is
True the field is f(t, y) X'(t) at each stage's own time.

Sources: Kidger, Morrill, Foster & Lyons 2020, arXiv 2005.08926 (neural CDEs); Morrill, Kidger, Yang & Lyons 2021, arXiv
2106.11028 (rectilinear, and Hermite cubics with backward differences).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, eq=False)
class LinearPath:
    """Straight lines through data, for a controlled equation dy = f(t, y, params) dX.

        X = (1 - x) X_i + x X_{i+1},       x = (t - t_i)/(t_{i+1} - t_i)

    A gap (NaN) is filled on the line between its neighbours; before the first observation with the first, after the last with
    the last. The derivative jumps at the knots, so put them on the grid: a step across one sees the chord alone.

    Parameters
    ----------
    times : (length,) strictly increasing, at least two, one grid for all series; or (..., length), each series its own, which
        stands still before its first time and behind its last.
    values : (..., length, channels) floats, NaN where nothing was observed. All is computed and returned in their
        dtype, but the share x of an interval, which is computed in float64.
    time : True puts the time in front of the channels, as channel 0.

    Attributes: times (knots,) or (..., knots) float64 and values (..., knots, channels), the knots, gaps filled, read-only.
    Raises ValueError for times that do not increase, shapes that do not fit, a channel never observed, infinities.

    Cost: 10 (cubic: 20) microseconds a call for small values; nothing but the knots is stored.
    Source: Kidger, Morrill, Foster & Lyons 2020, arXiv 2005.08926 (neural CDEs).

    Example
    -------
    >>> path = LinearPath([0.0, 1.0, 3.0], [[0.0], [np.nan], [6.0]])
    >>> path.evaluate(0.5).tolist(), path.derivative(2.0).tolist(), path.increment(1.0, 3.0).tolist()
    ([1.0], [2.0], [4.0])
    """
    times: Any
    values: Any
    time: bool = False
    smooth: ClassVar[bool] = False

    def __post_init__(self) -> None:
        times, values = checked(type(self).__name__, self.times, self.values)
        times, values = self.knots(times, values)
        times.flags.writeable = values.flags.writeable = False
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        *batch, length, channels = self.values.shape
        return (f"{type(self).__name__}({length} knots on [{self.times.min():.6g}, {self.times.max():.6g}], "
                f"{channels} channels, batch {tuple(batch)}, {self.values.dtype})")

    def knots(self, times: Any, values: Any) -> tuple[Any, Any]:
        """The knots of the path from the checked data."""
        before, after = neighbours(values)
        at, there = times[..., None], np.broadcast_to(times[..., None], values.shape)
        start, end = (np.take_along_axis(there, index, -2) for index in (before, after))
        span = end - start
        x = ((at - start) / np.where(span > 0, span, 1.0)).astype(values.dtype)
        low, high = (np.take_along_axis(values, index, -2) for index in (before, after))
        values = np.where(span > 0, (1 - x) * low + x * high, low)
        return times, with_time(times, values) if self.time else values

    def interval(self, t: Any) -> tuple[Any, Any, Any]:
        """For times t: the interval's number i, its length d, and the share x of it that has passed.

        d and x have axes of length 1 to meet values, and their dtype. At a knot it is the interval that begins there.
        """
        times, own = self.times, self.times.ndim > 1
        given = np.asarray(t)
        t = given.astype(np.float64)
        # A stage's time may be off by its rounding (float32 in a float32 solve); further out there is no path.
        eps = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
        begin, end = (times.min(), times.max()) if own else (times[0], times[-1])
        slack = 4 * eps * max(abs(begin), abs(end))
        if not ((t >= begin - slack) & (t <= end + slack)).all():
            raise ValueError(f"{type(self).__name__}: t={given} is outside the data's times, {begin:.9g} to "
                             f"{end:.9g}; solve within them, or give data that reach further")
        t = np.minimum(np.maximum(t, begin), end)                   # np.clip is slower for one number
        if own:
            return self.own_interval(t)
        i = np.minimum(times.searchsorted(t, side="right") - 1, len(times) - 2)
        d = times[i + 1] - times[i]
        x = (t - times[i]) / d
        axes = t.shape + (1,) * (self.values.ndim - 1)
        return i, d.reshape(axes).astype(self.values.dtype), x.reshape(axes).astype(self.values.dtype)

    def own_interval(self, t: Any) -> tuple[Any, Any, Any]:
        """interval(), of each series its own: i is (*t.shape, ...). Where a series stands still, x is 0 or 1."""
        times, dtype = self.times, self.values.dtype
        t = t.reshape(t.shape + (1,) * (times.ndim - 1))
        i = np.clip((times <= t[..., None]).sum(-1) - 1, 0, times.shape[-1] - 2)
        low, high = self.knot(i), self.knot(i + 1)
        x = np.clip((t - low) / (high - low), 0.0, 1.0)
        return i, (high - low)[..., None].astype(dtype), x[..., None].astype(dtype)

    def knot(self, i: Any) -> Any:
        """The times of knots number i."""
        if self.times.ndim == 1:
            return self.times[i]
        return np.take_along_axis(np.broadcast_to(self.times, (*i.shape[:i.ndim + 1 - self.times.ndim], *self.times.shape)),
                                  i[..., None], -1)[..., 0]

    def moves(self, t: Any) -> Any:
        """Whether each series moves at times t, for a derivative: 1 or 0, or True where all series have the same times."""
        if self.times.ndim == 1:
            return True
        t = np.asarray(t, np.float64).reshape(np.shape(t) + (1,) * (self.times.ndim - 1))
        return ((t >= self.times[..., 0]) & (t <= self.times[..., -1]))[..., None]

    def at(self, i: Any) -> Any:
        """Knots number i, time first: (*i.shape, ..., channels)."""
        if self.times.ndim > 1:
            whole = np.broadcast_to(self.values, (*i.shape[:i.ndim + 1 - self.times.ndim], *self.values.shape))
            return np.take_along_axis(whole, i[..., None, None], -2)[..., 0, :]
        if i.ndim == 0:
            return self.values[..., i, :]
        return np.moveaxis(self.values, -2, 0)[i]

    def evaluate(self, t: Any) -> Any:
        """X(t), shape (*t.shape, ..., channels): time first for an array of times. At a knot its value, in bits.

        Raises ValueError for a t outside the data's times.
        """
        i, _, x = self.interval(t)
        return (1 - x) * self.at(i) + x * self.at(i + 1)

    def derivative(self, t: Any) -> Any:
        """X'(t), shape (*t.shape, ..., channels). At a knot the slope to its right (to its left at the last one)."""
        i, d, _ = self.interval(t)
        return (self.at(i + 1) - self.at(i)) / d * self.moves(t)

    def increment(self, t0: Any, t1: Any) -> Any:
        """X(t1) - X(t0), shape (*t.shape, ..., channels); t1 may be before t0."""
        return self.evaluate(t1) - self.evaluate(t0)


class Rectilinear(LinearPath):
    """Axis by axis through data: first time passes, then the values move. It never looks ahead.

    The knots are the data's times and the middles between them: on the first half of an interval the time channel (time=True)
    goes from t_i to t_{i+1} while the others wait, on the second half the others move. A CDE does not see how fast its path is
    run through, so that the middles stand for no time of the data; its solution at t_i has seen the observations up to t_i.
    A missing value repeats the one before it.

    Parameters
    ----------
    times, values, time : as in LinearPath.

    Raises ValueError as LinearPath, and for two times with no room for a knot between them.

    Cost: as LinearPath, with twice the knots.
    Source: Morrill, Kidger, Yang & Lyons 2021, arXiv 2106.11028.

    Example
    -------
    >>> path = Rectilinear([0.0, 1.0], [[5.0], [7.0]], time=True)
    >>> path.times.tolist(), path.values.tolist()
    ([0.0, 0.5, 1.0], [[0.0, 5.0], [1.0, 5.0], [1.0, 7.0]])
    """

    def knots(self, times: Any, values: Any) -> tuple[Any, Any]:
        before, _ = neighbours(values)
        values = np.take_along_axis(values, before, -2)
        low, high = times[..., :-1], times[..., 1:]
        middles = low + 0.5 * (high - low)
        if not (np.all(low < middles) and np.all(middles < high)):
            raise ValueError("Rectilinear: two times are neighbouring floating-point numbers, with no room for a knot "
                             "between; merge those observations")
        stepped = np.repeat(values, 2, axis=-2)[..., :-1, :]
        if self.time:
            stepped = with_time(np.repeat(times, 2, axis=-1)[..., 1:], stepped)
        knots = np.empty((*times.shape[:-1], 2 * times.shape[-1] - 1))
        knots[..., ::2], knots[..., 1::2] = times, middles
        return knots, stepped


class HermiteCubic(LinearPath):
    """Cubics with a continuous derivative, by backward differences: the slope at t_i is that of the interval before.

        X = (1 - x) X_i + x X_{i+1} - d (m_i - m_{i-1}) x (1 - x)^2,     m_i = (X_{i+1} - X_i)/d,   m_{-1} = m_0

    It looks one observation ahead and no further (for values without gaps). Gaps are filled on straight lines first; in the
    first interval it is the straight line. The field is f(t, y) X'(t) at each stage's own time, so the grid need not have the knots.

    Parameters
    ----------
    times, values, time : as in LinearPath.

    Raises ValueError as LinearPath.

    Cost: as LinearPath, twice a call.
    Source: Morrill, Kidger, Yang & Lyons 2021, arXiv 2106.11028 (Hermite cubics with backward differences).

    Example
    -------
    >>> path = HermiteCubic([0.0, 1.0, 2.0], [[0.0], [1.0], [4.0]])
    >>> path.derivative(np.array([0.5, 1.0, 2.0])).ravel().tolist(), path.evaluate(1.5).tolist()
    ([1.0, 1.0, 3.0], [2.25])
    """
    smooth: ClassVar[bool] = True

    def bend(self, i: Any, d: Any) -> tuple[Any, Any, Any, Any]:
        """X_i, X_{i+1}, the slope m_{i-1} and its change m_i - m_{i-1}."""
        low, high = self.at(i), self.at(i + 1)
        j = np.maximum(i - 1, 0)
        length = (self.knot(j + 1) - self.knot(j)).reshape(d.shape).astype(d.dtype)
        slope = (self.at(j + 1) - self.at(j)) / length
        return low, high, slope, (high - low) / d - slope

    def evaluate(self, t: Any) -> Any:
        """X(t), shape (*t.shape, ..., channels): time first for an array of times. At a knot its value, in bits."""
        i, d, x = self.interval(t)
        low, high, _, change = self.bend(i, d)
        return ((1 - x) * low + x * high) - d * change * (x * (1 - x) ** 2)

    def derivative(self, t: Any) -> Any:
        """X'(t) = m_{i-1} + (m_i - m_{i-1}) x (4 - 3 x), shape (*t.shape, ..., channels)."""
        i, d, x = self.interval(t)
        _, _, slope, change = self.bend(i, d)
        return (slope + change * (x * (4 - 3 * x))) * self.moves(t)


def neighbours(values: Any) -> tuple[Any, Any]:
    """For each value the indices, along the length, of the observation at or before it and at or after it.

    Before the first observation both are the first; after the last both are the last.
    """
    length = values.shape[-2]
    index = np.arange(length)[:, None]
    seen = ~np.isnan(values)
    before = np.maximum.accumulate(np.where(seen, index, -1), axis=-2)
    after = np.flip(np.minimum.accumulate(np.flip(np.where(seen, index, length), -2), axis=-2), -2)
    return np.where(before < 0, after, before), np.where(after == length, before, after)


def with_time(times: Any, values: Any) -> Any:
    """values with the times in front as channel 0."""
    column = np.broadcast_to(times.astype(values.dtype)[..., None], (*values.shape[:-1], 1))
    return np.concatenate([column, values], axis=-1)


def checked(name: str, times: Any, values: Any) -> tuple[Any, Any]:
    """Copies of the data, or one sentence that says what is wrong with them."""
    for x, what in ((times, "times"), (values, "values")):
        if type(x) is not np.ndarray and isinstance(x, (np.ma.MaskedArray, np.matrix)):
            raise TypeError(f"{name}: {what} is a {type(x).__name__}; pass a plain array, with NaN where nothing was observed, as "
                            "in x.filled(np.nan) for a masked one and np.asarray(x) for a matrix")
    times, values = np.array(times), np.array(values)
    if times.dtype.kind not in "iuf":
        raise TypeError(f"{name}: times are {times.dtype}; give real numbers")
    times = times.astype(np.float64)
    if values.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: values are {values.dtype}; give float32 or float64, with NaN where nothing was "
                         "observed")
    if times.ndim < 1 or times.shape[-1] < 2:
        raise ValueError(f"{name}: times of shape {times.shape}; give (length,) times, at least two")
    if values.ndim < 2 or values.shape[:-1] != (times.shape if times.ndim > 1 else (*values.shape[:-2], len(times))):
        own = f", or {(*times.shape, 'channels')} where each series has its own times" if times.ndim > 1 else ""
        raise ValueError(f"{name}: values of shape {values.shape} for {times.shape[-1]} times; give (..., length, channels) "
                         f"with length {times.shape[-1]}{own}")
    checked_times(name, times)
    if np.isinf(values).any():
        raise ValueError(f"{name}: values has an infinite entry at {first(np.isinf(values))}; mark missing values as "
                         "NaN")
    if values.size and np.isnan(values).all(axis=-2).any():
        *series, channel = first(np.isnan(values).all(axis=-2))
        raise ValueError(f"{name}: channel {channel} of series {tuple(series)} was never observed; leave the channel "
                         "out, or give it one value")
    return times, values


def checked_times(name: str, times: Any) -> None:
    """Finite and increasing, in each series."""
    bad = ~np.isfinite(times).all(-1) | ~(np.diff(times, axis=-1) > 0).all(-1)
    if not bad.any():
        return
    times = times[first(bad)] if times.ndim > 1 else times
    if not np.isfinite(times).all():
        i = int(np.argmin(np.isfinite(times)))
        raise ValueError(f"{name}: times[{i}] = {times[i]}; give finite times (missing observations belong in "
                         "values, as NaN)")
    if not np.all(np.diff(times) > 0):
        i = int(np.argmin(np.diff(times) > 0))
        raise ValueError(f"{name}: times[{i}] = {times[i]} is followed by {times[i + 1]}; sort the observations by "
                         "time, and merge those of the same time")


def first(where: Any) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(i) for i in np.argwhere(where)[0])

"""The times of a solve: tensors among them, and places where the field jumps.

    stops s:  ... < s- < s+ < ...          grid points one unit in the last place to the left of s, and to the right

A step that ends at s- sees the field as it is on the left of a jump, one that begins at s+ as it is on the right, and the step
between the two is too short to do anything: so a jump costs no order, in any method and on any engine, forward and back. The grid
point moves with s, from which dL/ds = a . (f(s-) - f(s+)) comes by itself.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .engine.tensor import Tensor, beside, joined, value_of


def as_times(ts: Any) -> Any:
    """Times, of which some may be tensors, as one tensor of float64; without any as they are."""
    if isinstance(ts, (list, tuple)) and any(type(t) is Tensor for t in ts):
        made = np.empty(len(ts), object)
        made[:] = ts
        ts = made
    ts = joined(ts)
    return ts.astype(np.float64) if type(ts) is Tensor and ts.dtype != np.float64 else ts


def sides(stops: np.ndarray, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """(k,) the times next to each stop, in the dtype in which the field sees them: before it on the axis of time, and behind it."""
    at = stops.astype(dtype)
    left, right = (np.nextafter(at, at.dtype.type(end)).astype(np.float64) for end in (-np.inf, np.inf))
    return left, right


def with_stops(ts: np.ndarray, stops: np.ndarray, dtype: Any) -> np.ndarray:
    """The grid, with both sides of every stop between its ends, in its own direction."""
    left, right = sides(stops, dtype)
    inside = (left > min(ts[0], ts[-1])) & (right < max(ts[0], ts[-1]))
    whole = np.unique(np.concatenate([ts, left[inside], right[inside]]))
    return whole if ts[-1] >= ts[0] else whole[::-1]


def on_grid(ts: Any, stops: Any, grid: np.ndarray, dtype: Any) -> Any:
    """The grid as a tensor, made of ts and stops, one of which is one."""
    if stops is not None:
        stops = np.reshape(stops, (-1,))
        at = value_of(stops)
        ts = np.concatenate([ts, *(stops + (side - at) for side in sides(at, dtype))])
    values = value_of(ts)
    order = np.argsort(values, kind="stable")
    return ts[order[np.searchsorted(values[order], grid)]]


def of_grid(problem: Any, atimes: dict, a_clock: dict) -> np.ndarray:
    """(N + 1,) dL/dts, from the cotangents of the clocks of all steps, and of that of the initial map, which is step 0's."""
    N, a_ts = problem.N, np.zeros(problem.N + 1)
    if not N:
        a_ts[0] = a_clock["t0"] + a_clock["t1"]
        return a_ts
    a = {name: np.array(x, np.float64) for name, x in atimes.items()}
    for name, x in a_clock.items():
        a[name][0] += x
    if not problem.n_before:                     # the step before the first is taken to be as long as that
        a["h"][0] += a["h_before"][0]
    a["h"][:-1] += a["h_before"][1:]
    a_ts[:-1] += a["t0"] - a["h"]
    a_ts[1:] += a["t1"] + a["h"]
    return a_ts


class Dense(NamedTuple):
    """What lies between the saved times: cubic Hermite, from the states there and their slopes dy/dt = f(t, y).

        y(t) = (1 + 2 s) (1 - s)^2 y_k + s^2 (3 - 2 s) y_{k+1} + h s (1 - s) ((1 - s) f_k - s f_{k+1}),      s = (t - t_k) / h

    Parameters
    ----------
    ts : (saved,) times.
    ys, slopes : for each output of the method (saved, ...) states, and their derivatives.

    Order 4 in the distance of what was saved. Source: Hairer, Norsett & Wanner, Solving ODEs I, II.6.
    """
    ts: Any
    ys: tuple
    slopes: tuple

    def at(self, t: Any) -> tuple:
        """For each output its value at a time, or at times (k,), which come first then. Raises ValueError outside of these."""
        ts, t = value_of(self.ts), t if type(t) is Tensor else np.asarray(t, np.float64)
        if np.ndim(value_of(t)) > 1:
            raise ValueError(f"at: t has shape {np.shape(value_of(t))}; give one time, or times (k,)")
        x, first, last = np.atleast_1d(value_of(t)), min(ts[0], ts[-1]), max(ts[0], ts[-1])
        if not bool(((x >= first) & (x <= last)).all()):
            outside = float(x[~((x >= first) & (x <= last))][0])
            raise ValueError(f"at: t={outside:.9g} is not between the first and the last saved time, {first:.9g} and {last:.9g}; "
                             "solve for all times that are wanted")
        sign = 1.0 if ts[-1] >= ts[0] else -1.0
        k = np.clip(np.searchsorted(sign * ts, sign * x, side="right") - 1, 0, max(0, len(ts) - 2))
        k1 = np.minimum(k + 1, len(ts) - 1)
        h = self.ts[k1] - self.ts[k] + (k1 == k)                    # one time alone: a length of no matter
        s = (np.reshape(t, (-1,)) - self.ts[k]) / h
        found = []
        for y, f in zip(self.ys, self.slopes, strict=True):
            place = beside(value_of(y))
            u, d = (np.reshape(z, (-1, *(1,) * (y.ndim - 1))).astype(y.dtype) for z in (s, h))
            u, d = (z if type(z) is Tensor else place(z) for z in (u, d))
            at, at1 = place(k), place(k1)
            z = (1 + 2 * u) * (1 - u) ** 2 * y[at] + u ** 2 * (3 - 2 * u) * y[at1] + d * u * (1 - u) * (
                (1 - u) * f[at] - u * f[at1])
            found.append(z if np.ndim(value_of(t)) else z[0])
        return tuple(found)


def dense(problem: Any, params: Any, ts: Any, ys: tuple) -> Dense:
    """The states with their slopes: an evaluation of the field for each time."""
    system, velocity = problem.system, problem.method.inner.velocity
    rows = [tuple(y[k] for y in ys) for k in range(len(ts))]
    rates = [system.rate(system.coefficients(ts[k], row[0], params), ts[k]) for k, row in enumerate(rows)]
    problem.stats.nfe_forward += len(rows)
    if len(ys) == 1:
        return Dense(ts, ys, (np.stack(rates),))
    moves = ys[1] if velocity is None else np.stack([system.value(velocity, ts[k], row[1], params) for k, row in enumerate(rows)])
    return Dense(ts, ys, (moves, np.stack(rates)))

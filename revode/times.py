"""The times of a solve: tensors among them, and places where the field jumps.

    stops s:  ... < s- < s+ < ...          grid points one unit in the last place to the left of s, and to the right

A step that ends at s- sees the field as it is on the left of a jump, one that begins at s+ as it is on the right, and the step
between the two is too short to do anything: so a jump costs no order, in any method and on any engine, forward and back. The grid
point moves with s, from which dL/ds = a . (f(s-) - f(s+)) comes by itself.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .engine.tensor import Tensor, joined, value_of


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
        at = value_of(stops)
        ts = np.concatenate([ts, *(stops + (side - at) for side in sides(at, dtype))])
    values = value_of(ts)
    order = np.argsort(values, kind="stable")
    return ts[order[np.searchsorted(values[order], grid)]]

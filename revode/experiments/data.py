"""Where trajectories come from: the user's copy of a recorded file, or a simulation with stated
noise.

A recorded file is text: a first line "% x1 x2 v1 v2" that names the components, then rows of
numbers: trial, t, and the components (further columns are ignored). The two files that the
published experiments use belong to Schmidt & Lipson, Science 324 (2009), and are not part of this
package.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..methods import RungeKutta
from ..solve import solve


def recorded(path: str | Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The first trial of a recorded file: its times from 0, (n,), and its components in the order
    of names, (n, d).

    Raises ValueError, which says what is expected, for a file of another kind; OSError where it
    cannot be read.
    """
    expected = f"expected a text file with a first line '% {' '.join(names)}' and then rows of numbers: trial, t, {', '.join(names)}"
    try:
        lines = Path(path).read_text().splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; {expected}") from None
    head = lines[0].lstrip("% ").split() if lines and lines[0].startswith("%") else []
    if head != list(names):
        begins = f"begins with {lines[0][:60]!r}" if lines else "is empty"
        raise ValueError(f"{path} {begins}; {expected}")
    rows = []
    for n, line in enumerate(lines[1:], 2):
        if not line.strip() or line.startswith("%"):
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) < 2 + len(names) or not np.isfinite(row).all():
            raise ValueError(f"{path}, line {n}, is {line[:60]!r}; {expected}")
        rows.append(row[:2 + len(names)])
    if not rows:
        raise ValueError(f"{path} has no rows of numbers; {expected}")
    table = np.array(rows)
    table = table[table[:, 0] == table[0, 0]]
    t = table[:, 1] - table[0, 1]
    if (np.diff(t) <= 0).any():
        raise ValueError(f"{path} has times of its first trial that do not increase; {expected}")
    return t, table[:, 2:]


def simulated(field: Callable, y0: Sequence[float], ts: np.ndarray, noise: Any, seed: int = 0, fine: float = 0.002) -> np.ndarray:
    """The true trajectory with normal noise of these standard deviations on every value, the first included: (n, d)."""
    ys = trajectory(field, np.array(y0), ts, fine)
    return ys + noise * np.random.default_rng(seed).standard_normal(ys.shape)


def trajectory(field: Callable, y0: np.ndarray, ts: np.ndarray, fine: float = 0.002) -> np.ndarray:
    """field(t, y, None) from y0 at the times ts, time first: dopri5 in equal parts of the longest
    interval, of at most `fine`, and as many in each of the others."""
    parts = int(np.ceil(np.max(np.diff(ts)) / fine * (1 - 1e-9)))
    grid = np.interp(np.arange(parts * (len(ts) - 1) + 1) / parts, np.arange(len(ts)), ts)
    return solve(field, y0, grid, method=RungeKutta("dopri5"), save=slice(0, None, parts)).ys


def observed(path: str | None, names: Sequence[str], ts: np.ndarray, simulation: Callable, y0: Sequence[float], *, rate: float,
             noise: Sequence[float]) -> tuple[np.ndarray, str]:
    """The components at the times ts, by linear interpolation, and where they come from, in words.

    path: a recorded file; None samples the simulation, rate times per unit of time.
    Raises ValueError where the data end before ts does, and as `recorded` does.
    """
    if path is None:
        t = np.arange(round(ts[-1] * rate) + 1) / rate
        values = simulated(simulation, y0, t, np.array(noise))
        spread = ", ".join(f"{name} {sd:g}" for name, sd in zip(names, noise, strict=True))
        words = f"data: simulated at {rate:g} Hz with normal noise (standard deviations: {spread}; data seed 0)"
    else:
        t, values = recorded(path, names)
        words = f"data: recorded, {path}"
    # The clock of a recording is rounded, so its last time may be short of the end by a fraction of an interval.
    if t[-1] < ts[-1] * (1 - 1e-3):
        raise ValueError(f"{path} ends {t[-1]:.4g} after its start, but the experiment needs {ts[-1]:.4g}")
    return np.stack([np.interp(ts, t, column) for column in values.T], axis=-1), words


def grid_words(ts: np.ndarray, dtype: str) -> str:
    """A grid in words, for the head of a report."""
    h = np.diff(ts)
    lengths = f"{h[0]:.4g}" if np.ptp(h) <= 1e-9 * h[0] else f"{np.min(h):.2g} to {np.max(h):.2g}"
    return f"{len(h):,} steps of {lengths}, {dtype}"

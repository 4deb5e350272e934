"""Order of convergence as it is observed: the slope of log(error) against log(h)."""
from __future__ import annotations

from typing import Any

import numpy as np


def observed_order(hs: Any, errors: Any, floor: float = 0.0) -> float:
    """The exponent p of error ~ C h^p, by least squares on the logarithms.

    Parameters: hs, errors, of one length; floor, errors at or below it are left out (where round-off takes over).
    Returns NaN where fewer than two errors are left.
    Raises ValueError where the shapes differ or an h is not positive.

    Example
    -------
    >>> h = np.array([0.1, 0.05, 0.025])
    >>> round(observed_order(h, 3 * h**4), 10)
    4.0
    """
    h, e = np.asarray(hs, dtype=float), np.asarray(errors, dtype=float)
    if h.shape != e.shape or h.ndim != 1 or not (h > 0).all():
        raise ValueError(f"observed_order: steps of shape {h.shape} and errors of shape {e.shape}; give two vectors of one "
                         "length, steps positive")
    use = (e > floor) & np.isfinite(e)
    if use.sum() < 2:
        return float("nan")
    return float(np.polynomial.polynomial.polyfit(np.log(h[use]), np.log(e[use]), 1)[1])


def local_orders(hs: Any, errors: Any) -> np.ndarray:
    """The slopes between neighbours, (n - 1,): where they settle, and where they are erratic."""
    h, e = np.asarray(hs, dtype=float), np.asarray(errors, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.diff(np.log(e)) / np.diff(np.log(h))

"""Order of convergence as it is observed: the slope of log(error) against log(h)."""
from __future__ import annotations

from typing import Any

import numpy as np


def observed_order(hs: Any, errors: Any, floor: float = 0.0) -> float:
    """The exponent p of error ~ C h^p, by least squares on the logarithms.

    Parameters
    ----------
    hs : (n,) step sizes.
    errors : (n,) errors, of any unit.
    floor : errors at or below it are left out (where round-off takes over).

    Returns p; NaN where fewer than two errors are left.
    Raises ValueError where the shapes differ or an h is not positive.

    Cost: none worth a word.

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
    """The slopes between neighbours: where they settle, and where they are erratic.

    Parameters
    ----------
    hs : (n,) step sizes.
    errors : (n,) errors, of any unit.

    Returns (n - 1,) exponents; NaN or inf where an error is 0. Raises what NumPy raises for shapes that do not fit.

    Cost: none worth a word.

    Example
    -------
    >>> h = np.array([0.1, 0.05, 0.025])
    >>> local_orders(h, h**2).round(6).tolist()
    [2.0, 2.0]
    """
    h, e = np.asarray(hs, dtype=float), np.asarray(errors, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.diff(np.log(e)) / np.diff(np.log(h))

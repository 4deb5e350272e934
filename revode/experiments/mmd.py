"""A distance of two distributions, from samples:

    MMD^2(P, Q) = E k(x, x') - 2 E k(x, y) + E k(y, y'),   k(x, y) = mean_w exp(-|x - y|^2 / (2
    w^2))

over all pairs of two samples (the V-statistic: never negative, and about 1/n + 1/m where P = Q).
Source: Gretton, Borgwardt, Rasch, Schölkopf & Smola 2012, section 2.2.
"""
from __future__ import annotations

from typing import Any

import numpy as np


def kernel(x: Any, y: Any, widths: Any) -> Any:
    """The mean of k over all pairs; x (n, d), y (m, d)."""
    squares = np.sum(x * x, -1)[:, None] + np.sum(y * y, -1) - 2.0 * (x @ np.swapaxes(y, 0, 1))
    return sum(np.mean(np.exp(squares * (-0.5 / w ** 2))) for w in widths) / len(widths)


def mmd2(x: Any, y: Any, widths: Any) -> Any:
    """MMD^2 of two samples of features, (n, d) and (m, d)."""
    return kernel(x, x, widths) - 2.0 * kernel(x, y, widths) + kernel(y, y, widths)


def median_widths(x: np.ndarray) -> tuple[float, ...]:
    """Half, once and twice the median distance of two points of a sample."""
    distance = np.sqrt(np.sum(np.square(x[:, None] - x), -1))
    median = float(np.median(distance[np.triu_indices(len(x), 1)]))
    return 0.5 * median, median, 2.0 * median

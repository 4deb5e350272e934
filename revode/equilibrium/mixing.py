"""Anderson mixing, for fixed points and for the adjoint equations of their gradients.

    z_{n+1} = sum_i w_i ((1 - damping) z_i + damping f_i)
    w       = argmin |sum_i w_i (f_i - z_i)|^2,    sum_i w_i = 1

over the last m iterates, f_i = f(z_i). The constraint leaves a small system, G u = 1, w = u /
sum(u), with the Gram matrix G of the residuals and ridge * trace(G) added to its diagonal.
Source: Anderson 1965; Walker & Ni 2011, section 2 (type II).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.tensor import beside, to_host
from .relaxation import Anderson


class Mixing:
    """The last m iterates of one run, and the next one."""

    def __init__(self, method: Anderson) -> None:
        self.method = method
        self.zs: list[Any] = []  # flat iterates, oldest first
        self.residuals: list[Any] = []  # f(z) - z
        self.gram = np.zeros((0, 0))  # their inner products

    def next(self, z: Any, f: Any) -> Any:
        """The iterate after z, where f = f(z)."""
        flat = z.reshape(-1)
        m = self.method.m - 1
        keep = max(len(self.zs) - m, 0)
        self.zs = [*self.zs[keep:], flat]
        self.residuals = [*self.residuals[keep:], f.reshape(-1) - flat]
        row = to_host(np.stack(self.residuals) @ self.residuals[-1]).astype(np.float64)
        old, n = self.gram[keep:, keep:], len(row)
        self.gram = np.empty((n, n))
        self.gram[:-1, :-1] = old
        self.gram[-1] = self.gram[:, -1] = row
        place = beside(z)
        mixed = [
            place(w.astype(z.dtype)) @ np.stack(rows)
            for w, rows in ((self.weights(), self.zs), (self.weights(), self.residuals))
        ]
        return (mixed[0] + self.method.damping * mixed[1]).reshape(z.shape)

    def weights(self) -> np.ndarray:
        """w; the newest iterate alone where the residuals are zero, or not finite."""
        n, trace = len(self.gram), float(np.trace(self.gram))
        if not (np.isfinite(self.gram).all() and trace > 0):
            return np.eye(n)[-1]
        u = np.linalg.solve(self.gram / trace + self.method.ridge * np.eye(n), np.ones(n))
        return u / u.sum()

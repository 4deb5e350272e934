"""Fixed points z = f(z) by literal loops, and their gradients by dense linear algebra.

The loops take arrays of real or complex numbers, so that a complex step goes through them; f(z) is
the map with all else bound, and residuals are measured on real parts.

    revdeq, picard, anderson     the iterates, and how many: the published stop rule
                                     |z - f(z)| <= tol |f(z)| + atol        after each iteration
    newton                       the fixed point itself, by dense Newton steps
    implicit_gradient            g = (1 - df/dz)^-T dL/dz,    dL/dp = (df/dp)^T g

Sources: McCallum, Arora & Foster 2025 (arXiv 2509.12917), algorithm 1; Walker & Ni 2011; Bai,
Kolter & Koltun 2019.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def met(z: Any, f: Any, tol: float | None, atol: float) -> bool:
    """The stop rule, written out."""
    if tol is None:
        return False
    off = (
        sum(abs(a - b) ** 2 for a, b in zip(np.real(z).ravel(), np.real(f).ravel(), strict=True))
        ** 0.5
    )
    size = sum(abs(b) ** 2 for b in np.real(f).ravel()) ** 0.5
    return off <= tol * size + atol


def revdeq(
    f: Callable, z0: Any, beta: float, tol: float | None, atol: float, most: int
) -> tuple[Any, int]:
    """Two relaxed copies that take turns; returns (z, iterations)."""
    y = z = z0
    for n in range(1, most + 1):
        y = (1 - beta) * y + beta * f(z)
        z = (1 - beta) * z + beta * f(y)
        if met(z, f(z), tol, atol):
            return z, n
    return z, most


def revdeq_back(f: Callable, y: Any, z: Any, beta: float, n: int) -> tuple[Any, Any]:
    """n iterations undone, by the paper's formula."""
    for _ in range(n):
        z = (z - beta * f(y)) / (1 - beta)
        y = (y - beta * f(z)) / (1 - beta)
    return y, z


def picard(
    f: Callable, z0: Any, damping: float, tol: float | None, atol: float, most: int
) -> tuple[Any, int]:
    z = z0
    for n in range(1, most + 1):
        z = (1 - damping) * z + damping * f(z)
        if met(z, f(z), tol, atol):
            return z, n
    return z, most


def anderson(
    f: Callable, z0: Any, m: int, damping: float, tol: float | None, atol: float, most: int
) -> tuple[Any, int]:
    """In the unconstrained form: least squares over differences of residuals, without a ridge."""
    zs: list[Any] = []
    rs: list[Any] = []
    z = z0
    for n in range(1, most + 1):
        zs, rs = [*zs, z.ravel()][-m:], [*rs, (f(z) - z).ravel()][-m:]
        new = zs[-1] + damping * rs[-1]
        if len(zs) > 1:
            dz, dr = np.diff(np.array(zs), axis=0).T, np.diff(np.array(rs), axis=0).T
            gamma = np.linalg.lstsq(dr, rs[-1], rcond=None)[0]
            new = new - (dz + damping * dr) @ gamma
        z = new.reshape(z0.shape)
        if met(z, f(z), tol, atol):
            return z, n
    return z, most


def jacobian(f: Callable, z: Any, eps: float = 1e-30) -> Any:
    """(n, n): df_i / dz_j by complex step."""
    columns = []
    for j in range(z.size):
        moved = z.astype(complex).ravel()
        moved[j] += 1j * eps
        columns.append(np.imag(f(moved.reshape(z.shape))).ravel() / eps)
    return np.array(columns).T


def newton(f: Callable, z0: Any, steps: int = 50) -> Any:
    """The fixed point, by dense Newton steps."""
    z = z0
    for _ in range(steps):
        move = np.linalg.solve(np.eye(z.size) - jacobian(f, z), (f(z) - z).ravel()).reshape(z.shape)
        z = z + move
        if abs(move).max() <= 4e-16 * abs(z).max():
            break
    return z


def implicit_gradient(of: Callable, z: Any, p: Any, a: Any, eps: float = 1e-30) -> Any:
    """dL/dp for z = of(z, p) and a = dL/dz; p a flat vector."""
    J = jacobian(lambda z: of(z, p), z)
    g = np.linalg.solve(np.eye(z.size) - J.T, a.ravel())
    found = np.empty(p.size)
    for k in range(p.size):
        moved = p.astype(complex)
        moved[k] += 1j * eps
        found[k] = g @ np.imag(of(z, moved)).ravel() / eps
    return found

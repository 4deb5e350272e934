"""Rosenbrock's valley in ten dimensions by Newton's method, with the matrix of second derivatives and without it.

    x <- x - a H^-1 g,    a halved until the loss falls;  H from rv.hessian, or H v from rv.hvp in conjugate gradients
"""
import numpy as np

import revode as rv


def loss(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def by_matrix(x, g):
    """Newton's direction; the matrix is shifted where it is not positive."""
    H = rv.hessian(loss)(x)
    lowest = np.linalg.eigvalsh(H)[0]
    return np.linalg.solve(H + max(0.0, 1e-3 - lowest) * np.eye(len(x)), g)


def by_products(x, g):
    """The same system by conjugate gradients, which needs products alone; stops where the valley bends down."""
    p, r, d = np.zeros_like(x), g, g
    for _ in range(2 * len(x)):
        Hd = rv.hvp(loss)(x, d)
        if d @ Hd <= 0 or r @ r < 1e-24:
            break
        step = (r @ r) / (d @ Hd)
        p, after = p + step * d, r - step * Hd
        d, r = after + (after @ after) / (r @ r) * d, after
    return p if np.any(p) else g


def minimise(direction, x, tolerance=1e-9):
    """The minimum, and how many steps it took."""
    for n in range(200):
        value, g = rv.value_and_grad(loss)(x)
        if np.linalg.norm(g) < tolerance:
            return x, n
        p, a = direction(x, g), 1.0
        while loss(x - a * p) > value - 1e-4 * a * (g @ p) and a > 1e-10:
            a /= 2
        x = x - a * p
    return x, 200


def main():
    start, found = np.linspace(-1.2, 1.0, 10), {}
    for name, direction in (("matrix", by_matrix), ("products", by_products)):
        x, steps = minimise(direction, start)
        print(f"by {name}: {steps} steps to a loss of {loss(x):.0e}, off by {np.abs(x - 1).max():.0e}")
        found[name] = x
    return found


if __name__ == "__main__":
    main()

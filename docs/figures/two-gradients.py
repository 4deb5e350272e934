"""The tape's gradient of a solve, against that of the equation and that of the solve.   python docs/figures/two-gradients.py"""
import numpy as np
import style

import revode as rv


def field(t, y, w):
    return np.stack([y[1], -w**2 * y[0]])


def loss(w, N):
    return rv.solve(field, np.array([1.0, 0.0]), np.linspace(0.0, 2.0, N + 1), w, method=rv.RungeKutta("midpoint"),
                    gradient=rv.Direct(), backend="eager", save=[-1]).y1[0]


def by_complex_step(w: float, N: int) -> float:
    """dL_h/dw of the same N midpoint steps, by hand, to rounding."""
    w, h, (q, v) = w + 1e-30j, 2.0 / N, (1.0, 0.0)
    for _ in range(N):
        q, v = q + h * (v - h / 2 * w**2 * q), v - h * w**2 * (q + h / 2 * v)
    return float(np.imag(q)) / 1e-30


def main() -> None:
    w, steps = 1.3, np.array([10, 20, 40, 80, 160, 320, 640])
    slopes = np.array([rv.grad(loss)(w, N) for N in steps])
    figure, ax = style.subplots(1, 7.0, 3.8)
    ax.loglog(2.0 / steps, np.abs(slopes + 2 * np.sin(2 * w)), "C0o-", label="from the equation's, -2 sin(2 w)")
    own = np.abs(slopes - [by_complex_step(w, N) for N in steps])
    ax.loglog(2.0 / steps, np.maximum(own, 1e-17), "C2s-", label="from the solve's own, by the complex step")
    ax.loglog(2.0 / steps, 0.3 * (2.0 / steps)**2, "k:", label="slope 2")
    ax.set(xlabel="step h", ylabel="distance of dL/dw", ylim=(1e-18, 1.0))
    ax.legend(loc="center right")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

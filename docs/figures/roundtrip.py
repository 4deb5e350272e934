"""The error of the round trip against the number of steps, measured and predicted.   python docs/figures/roundtrip.py

Pendulum, Coupled midpoint, h = 0.01. Predicted: c eps lam^-N / (1 - lam) with c from 0.003 to 0.25.
"""
import warnings

import numpy as np
import style

import revode as rv


def field(t, y, p):
    q, v = y[..., :1], y[..., 1:]
    return np.concatenate([v, -p["k"] * np.sin(q)], axis=-1)


def round_trip(lam: float, N: int, h: float = 0.01) -> float:
    """The largest error of the reverse sweep over N steps."""
    def loss(p):
        sol = rv.solve(field, np.array([1.0, 0.3]), np.linspace(0.0, N * h, N + 1), p,
                       method=rv.Coupled("midpoint", lam), save=[-1])
        return np.sum(sol.y1**2), sol

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.ReconstructionWarning)      # that is what the figure is about
        (_, sol), _ = rv.value_and_grad(loss, has_aux=True)({"k": 2.0})
    return sol.stats.roundtrip.absolute


def predicted(lam: float, N: np.ndarray, c: float) -> np.ndarray:
    return c * 2.0**-52 * lam**-N / (1 - lam)


def main() -> None:
    figure, ax = style.subplots(1, 7.5, 4.2)
    for lam, most, color in ((0.99, 3000, "C3"), (0.999, 12000, "C0")):
        Ns = np.linspace(most / 8, most, 8).astype(int)
        ax.semilogy(Ns, [round_trip(lam, int(N)) for N in Ns], color + "o", label=f"lam = {lam}, measured")
        line = np.linspace(100, most, 200)
        ax.fill_between(line, predicted(lam, line, 0.003), predicted(lam, line, 0.25), color=color, alpha=0.25, lw=0,
                        label="predicted")
    ax.axhline(1.0, color="k", lw=0.8, ls=":")
    ax.text(12000, 1.6, "as large as the solution", ha="right", fontsize=11)
    ax.set(xlabel="steps N", ylabel="error of the round trip", ylim=(1e-16, 1e3))
    ax.legend(loc="center right", bbox_to_anchor=(1.0, 0.66))
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

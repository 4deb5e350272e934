"""Noise without storage: one seed on three grids, and strong errors.

    python docs/figures/noise.py
"""

import numpy as np
import style

import revode as rv

NS = (8, 16, 32, 64, 128)
MANY = 2048


def sums(noise, N: int) -> np.ndarray:
    """W on a grid of N steps over [0, 1], (N + 1,), as a solve sees it."""
    ts = np.linspace(0.0, 1.0, N + 1)
    return rv.solve(lambda t, y, p: 0 * y, np.zeros((1, 1)), ts, method=rv.ReversibleHeun(), noise=noise,
                    diffusion=lambda t, y, p: 1 + 0 * y).ys[:, 0, 0]


def area(t, y, p):
    """dy_0 = dW_0, dy_1 = y_0 o dW_1."""
    one = 1.0 + 0 * y[..., 0]
    return np.stack([np.stack([one, 0 * one], -1), np.stack([0 * one, y[..., 0]], -1)], -2)


def strong(f, g) -> list[float]:
    """Root mean square distance at t = 1 to a solve with MANY steps on the same 500 paths."""
    tree = rv.BrownianTree(seed=11, t0=0.0, t1=1.0, tol=1 / MANY)
    *ends, truth = (rv.solve(f, np.tile([1.0, 0.5], (500, 1)), np.linspace(0.0, 1.0, N + 1), diffusion=g, noise=tree,
                             save=[-1]).y1 for N in (*NS, MANY))
    return [float(np.sqrt(np.mean(np.sum((y - truth) ** 2, axis=-1)))) for y in ends]


def main() -> None:
    figure, (steps, times, order) = style.subplots(3, 11.0, 3.6)
    for axes, noise, title in ((steps, rv.Brownian(4), "Brownian(4)"),
                               (times, rv.BrownianTree(4, 0.0, 1.0), "BrownianTree(4, 0, 1)")):
        for N, line in ((512, "C7-"), (64, "C0-"), (16, "C3o-")):
            axes.plot(np.linspace(0, 1, N + 1), sums(noise, N), line, lw=0.6 if N > 100 else 1.2, ms=3, label=f"N = {N}")
        axes.set(xlabel="t", title=title)
        axes.legend(loc="lower left", ncols=1, handlelength=1.2)
    steps.set_ylabel("W(t)")
    low = min(steps.get_ylim()[0], times.get_ylim()[0]) - 1.1
    high = max(steps.get_ylim()[1], times.get_ylim()[1])
    steps.set_ylim(low, high)
    times.set_ylim(low, high)

    def pull(t, y, p):
        return -np.sin(y)

    cases = (("general (Levy's area)", "C3o-", lambda t, y, p: 0 * y, area),
             ("diagonal", "C0s-", pull, lambda t, y, p: 0.5 * np.cos(y)),
             ("additive", "C2^-", pull, lambda t, y, p: 0.5 + 0 * y))
    hs = 1 / np.array(NS)
    for label, line, f, g in cases:
        order.loglog(hs, strong(f, g), line, ms=4, lw=1.2, label=label)
    order.loglog(hs, np.sqrt(hs - 1 / MANY) / 2, "k:", lw=1, label="sqrt(h)/2")
    order.set(xlabel="h", title="strong error", ylim=(4e-4, 20.0))
    order.set_xticks(hs, [f"1/{N}" for N in NS])
    order.minorticks_off()
    order.legend(handlelength=1.5)
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

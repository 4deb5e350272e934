"""Checkpointing: advances against places, and time against memory.   python docs/figures/checkpoints.py

Left: the formula, and what was counted. Right: seconds for one gradient of 1000 pendulums over 1000 steps of the
midpoint rule (of the processor, least of three), against the number of states held; they depend on the machine.
"""
import time
from math import comb

import numpy as np
import style

import revode as rv


def field(t, y, p):
    q, v = y[..., :1], y[..., 1:]
    return np.concatenate([v, -p["k"] * np.sin(q)], axis=-1)


def formula(N: int, n: int) -> int:
    """The least number of advances for N steps with n places."""
    r = next(r for r in range(N) if comb(n + r, n) >= N)
    return r * N - comb(n + r, n + 1)


def gradient(mode, method, N: int, batch: int = 1) -> tuple[float, rv.Stats]:
    """Seconds and statistics of one gradient."""
    def loss(p):
        sol = rv.solve(field, np.tile([1.0, 0.3], (batch, 1)), np.linspace(0.0, 0.01 * N, N + 1), p, method=method,
                       gradient=mode, save=[-1], backend="eager")          # every mode on one engine
        return np.sum(sol.y1**2), sol

    began = time.process_time()
    (_, sol), _ = rv.value_and_grad(loss, has_aux=True)({"k": 2.0})
    return time.process_time() - began, sol.stats


def main() -> None:
    figure, (count, cost) = style.subplots(2, 10.0, 4.6)
    plain = rv.RungeKutta("midpoint")
    for N, color in ((10000, "C3"), (1000, "C1"), (100, "C0")):
        places = np.unique(np.geomspace(2, min(N, 300), 60).astype(int))
        count.loglog(places, [formula(N, int(n)) / N for n in places], color + "-", label=f"N = {N}")
        if N <= 1000:
            some = (2, 3, 5, 10, 20, 44, 90) if N == 100 else (5, 10, 20, 44, 100, 300)
            count.loglog(some, [gradient(rv.Checkpointed(n), plain, N)[1].advances / N for n in some], color + "o")
    count.set(xlabel="places n", ylabel="advances a step", ylim=(0.8, 150))
    count.legend()
    points = {}
    for label, modes, method, line in (
            ("Checkpointed(n), midpoint", [rv.Checkpointed(n) for n in (3, 4, 6, 10, 20, 44, 100, 300)], plain, "C1o-"),
            ("Direct, midpoint", [rv.Direct()], plain, "ks"),
            ("Reversible, Coupled midpoint", [rv.Reversible()], rv.Coupled("midpoint"), "C2D"),
            ("Reversible, reversible Heun", [rv.Reversible()], rv.ReversibleHeun(), "C0D")):
        points[label] = [min((gradient(mode, method, 1000, 1000) for _ in range(3)), key=lambda x: x[0])
                         for mode in modes]
        cost.semilogx([s.peak_states for _, s in points[label]], [t for t, _ in points[label]], line, label=label)
        print(label, [(s.peak_states, round(t, 3)) for t, s in points[label]])
    cost.set(xlabel="states held", ylabel="processor s a gradient", ylim=(0, None))
    cost.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1)
    for ax in (count, cost):
        ax.grid(alpha=0.3)
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

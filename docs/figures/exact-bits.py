"""Bits that exact mode keeps, a step and element, against lam.   python docs/figures/exact-bits.py"""
from fractions import Fraction
from pathlib import Path

import numpy as np

import revode as rv

RATIOS = [Fraction(n) for n in ("1/10", "1/4", "1/2", "7/10", "4/5", "9/10", "19/20", "49/50", "99/100", "199/200",
                                 "499/500", "999/1000")]


def kept(lam: Fraction, N: int = 4000) -> float:
    sol = rv.solve(lambda t, y, p: -y, np.ones(4), np.linspace(0.0, 4.0, N + 1), method=rv.Coupled("midpoint", lam=float(lam)),
                   exact=True, save=[-1])
    return sol.stats.bits_stored / (4 * N)


def main() -> None:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    gap = np.geomspace(8e-4, 0.93, 200)
    ax.loglog(gap, -np.log2(1 - gap), "k-", lw=1.2, label="what a contraction destroys: log2(1/lam)")
    ax.loglog([float(1 - lam) for lam in RATIOS], [kept(lam) for lam in RATIOS], "C0o", ms=6, label="kept, 4000 steps of y' = -y")
    ax.axhline(128, color="C3", lw=1.2, ls="--")
    ax.text(1e-3, 90, "storing both copies: 128 bits", color="C3", va="top", fontsize=11)
    ax.set(ylim=(8e-4, 300))
    ax.set_xlabel("1 - lam", fontsize=12)
    ax.set_ylabel("bits a step and element", fontsize=12)
    ax.tick_params(labelsize=11)
    ax.legend(frameon=False, fontsize=11, loc="lower right")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()

"""Bits that exact mode keeps, a step and element, against lam.   python docs/figures/exact-bits.py"""
from fractions import Fraction

import numpy as np
import style

import revode as rv

RATIOS = [Fraction(n) for n in ("1/10", "1/4", "1/2", "7/10", "4/5", "9/10", "19/20", "49/50", "99/100", "199/200",
                                 "499/500", "999/1000")]


def kept(lam: Fraction, N: int = 4000) -> float:
    sol = rv.solve(lambda t, y, p: -y, np.ones(4), np.linspace(0.0, 4.0, N + 1), method=rv.Coupled("midpoint", lam=float(lam)),
                   exact=True, save=[-1])
    return sol.stats.bits_stored / (4 * N)


def main() -> None:
    figure, ax = style.subplots(1, 7.0, 4.2)
    gap = np.geomspace(8e-4, 0.93, 200)
    ax.loglog(gap, -np.log2(1 - gap), "k-", lw=1.2, label="what a contraction destroys: log2(1/lam)")
    ax.loglog([float(1 - lam) for lam in RATIOS], [kept(lam) for lam in RATIOS], "C0o", ms=6, label="kept, 4000 steps of y' = -y")
    ax.axhline(128, color="C3", lw=1.2, ls="--")
    ax.text(1e-3, 90, "storing both copies: 128 bits", color="C3", va="top")
    ax.set(ylim=(8e-4, 300), xlabel="1 - lam", ylabel="bits a step and element")
    ax.legend(loc="lower right")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

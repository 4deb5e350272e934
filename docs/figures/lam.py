"""The dial of lam: what it buys forward, and what it costs on the way back.

    python docs/figures/lam.py

Left: the two copies of Coupled midpoint on y' = -y with steps of 0.1. Right: the contraction that a lam follows, and the
digits of float64 that are left after 1000 steps back, by the formulas of chapter 08 with c = 0.1.
"""
import warnings

import numpy as np
import style

import revode as rv


def copies(lam: float, T: float = 10.0, N: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, and both copies at each of them."""
    ts = np.linspace(0.0, T, N + 1)
    parts = [state.parts for _, state in rv.steps(lambda t, y, p: -y, np.ones(1), ts, method=rv.Coupled("midpoint", lam))]
    return ts, np.array([p["y"][0] for p in parts]), np.array([p["z"][0] for p in parts])


def main() -> None:
    figure, (paths, dial) = style.subplots(2, 10.0, 4.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.ParasiteWarning)          # it is what the picture shows
        for lam, colour in ((0.99, "C3"), (0.8, "C0")):
            ts, y, z = copies(lam)
            paths.plot(ts, y, color=colour, label=f"$\\lambda$ = {lam}: y")
            paths.plot(ts, z, "--", color=colour, label=f"$\\lambda$ = {lam}: z")
    paths.plot(ts, np.exp(-ts), "k:", label="exp(-t)")
    paths.set(xlabel="t", title="y' = -y, h = 0.1: two copies part, or not", ylim=(-1.2, 2.2))
    paths.legend(loc="upper right", ncols=1)
    lams = 1 - np.logspace(-4.5, -0.7, 200)
    follows = -np.log(lams)
    digits = np.clip(-np.log10(0.1 * 2.0**-52 * lams**-1000.0 / (1 - lams)), 0, None)
    dial.semilogx(1 - lams, digits, color="C3")
    dial.set(xlabel="$1 - \\lambda$", ylabel="digits left after 1000 steps back", ylim=(0, 16))
    dial.yaxis.label.set_color("C3")
    right = dial.twinx()
    right.spines["right"].set_visible(True)
    right.loglog(1 - lams, follows, "--", color="C0")
    right.set_ylabel("contraction a step that is followed")
    right.yaxis.label.set_color("C0")
    dial.axvline(1e-3, color="0.6", lw=1)
    dial.text(1.15e-3, 0.6, "default", color="0.4")
    dial.set_title("turn it one way, pay the other way")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

"""y' = -y with asynchronous leapfrog, without and with damping.   python docs/figures/parasite.py"""
import warnings
from pathlib import Path

import numpy as np

import revode as rv


def path(eta: float, T: float = 10.0, h: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Times and solution."""
    ts = np.linspace(0.0, T, round(T / h) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.ParasiteWarning)            # that is what the figure is about
        return ts, rv.solve(lambda t, y, p: -y, np.array([1.0]), ts, method=rv.AsynchronousLeapfrog(eta)).ys[:, 0]


def main() -> None:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(6.0, 3.2), layout="constrained")
    for eta, style in ((1.0, "C3-"), (0.95, "C0-")):
        ax.plot(*path(eta), style, lw=1.3, label=f"eta = {eta}")
    ts = np.linspace(0.0, 10.0, 200)
    ax.plot(ts, np.exp(-ts), "k:", label="exp(-t)")
    ax.set(xlabel="t", ylabel="y")
    ax.legend(frameon=False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()

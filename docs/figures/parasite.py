"""y' = -y with asynchronous leapfrog, without and with damping.   python docs/figures/parasite.py"""
import warnings

import numpy as np
import style

import revode as rv


def path(eta: float, T: float = 10.0, h: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Times and solution."""
    ts = np.linspace(0.0, T, round(T / h) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.ParasiteWarning)            # that is what the figure is about
        return ts, rv.solve(lambda t, y, p: -y, np.array([1.0]), ts, method=rv.AsynchronousLeapfrog(eta)).ys[:, 0]


def main() -> None:
    figure, ax = style.subplots(1, 7.0, 3.8)
    for eta, line in ((1.0, "C3-"), (0.95, "C0-")):
        ax.plot(*path(eta), line, lw=1.3, label=f"eta = {eta}")
    ts = np.linspace(0.0, 10.0, 200)
    ax.plot(ts, np.exp(-ts), "k:", label="exp(-t)")
    ax.set(xlabel="t", ylabel="y")
    ax.legend()
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

"""Van der Pol's oscillator in the phase plane, there and back by rk4.   python docs/figures/backsolve.py"""

import numpy as np
import style

import revode as rv


def field(t, y, p):
    q, v = y[..., :1], y[..., 1:]
    return np.concatenate([v, p["mu"] * (1 - q * q) * v - q], axis=-1)


def there_and_back(T: float, h: float) -> tuple[np.ndarray, np.ndarray]:
    """The states on the way there, and those of a backward solve that starts from the last of them."""
    ts, method = np.linspace(0.0, T, round(T / h) + 1), rv.RungeKutta("rk4")
    there = rv.solve(field, np.array([2.0, 0.0]), ts, {"mu": 1.0}, method=method)
    return there.ys, rv.solve(field, there.y1, ts[::-1], {"mu": 1.0}, method=method).ys


def main() -> None:
    T, h = 20.0, 0.05
    there, back = there_and_back(T, h)
    ts = np.linspace(0.0, T, len(there))
    figure, (plane, gap) = style.subplots(2, 10.0, 4.2)
    plane.plot(*there.T, "C0-", lw=4.5, alpha=0.4, label="forward")
    plane.plot(*back.T, "C3-", lw=1.2, label="backward")
    plane.plot(*there[0], "ko", ms=5)
    plane.annotate("y0", there[0], (6, 5), textcoords="offset points")
    plane.plot(*back[-1], "C3o", ms=5)
    plane.set(xlabel="q", ylabel="v", xlim=(-2.6, 2.9), ylim=(-3.0, 4.4))
    plane.legend(loc="upper left")
    for step, color in ((0.05, "C3"), (0.025, "C1"), (0.0125, "C2")):
        there, back = there_and_back(T, step)
        off = np.max(np.abs(there - back[::-1]), axis=1)[:-1]
        gap.semilogy(np.linspace(0.0, T, len(off) + 1)[:-1], off, color + "-", lw=1.2, label=f"h = {step}")
    gap.semilogy(ts, 1e-5 * np.exp(1.06 * (8 - ts)), "k:", lw=1.0, label="slope of exp(-1.06 t)")
    gap.set(xlabel="t", ylabel="distance of the two ways", ylim=(1e-12, 1e2))
    gap.legend(loc="lower left")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

"""EES: gradient error at equal work, and the way back along a contraction.

    python docs/figures/effectively-symmetric.py
"""

import numpy as np
import style

import revode as rv


def network(t, y, p):
    return np.tanh(y @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]


def van_der_pol(t, y, p):
    q, v = y[..., :1], y[..., 1:]
    return np.concatenate([v, p["mu"] * (1 - q * q) * v - q], axis=-1)


def gradient_error(method, stages: int, evaluations: int) -> float:
    """Relative distance to Direct of a gradient over T = 2, with about so many evaluations forward."""
    rng = np.random.default_rng(0)
    p = {"W1": rng.normal(size=(4, 16)) / 2, "b1": np.zeros(16), "W2": rng.normal(size=(16, 4)) / 4, "b2": np.zeros(4)}
    y0, ts = rng.normal(size=4), np.linspace(0.0, 2.0, evaluations // stages + 1)

    def loss(p, gradient):
        return 0.5 * np.sum(rv.solve(network, y0, ts, p, method=method, gradient=gradient, save=[-1]).y1 ** 2)

    near, direct = (np.concatenate([x.ravel() for x in rv.tree.flatten(rv.grad(loss)(p, gradient))[0]])
                    for gradient in (rv.Reversible(tol=1.0), rv.Direct()))
    return float(np.linalg.norm(near - direct) / np.linalg.norm(direct))


def way_back(method, T: float, N: int, resync: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the error of the reconstruction there, for van der Pol's oscillator."""
    ts, p = np.linspace(0.0, T, N + 1), {"mu": 1.0}
    states = [state for _, state in rv.steps(van_der_pol, np.array([2.0, 0.0]), ts, p, method=method)]
    off = np.zeros(N + 1)
    stretch = resync or N
    for first in range(0, N, stretch):
        part = slice(first, min(first + stretch, N) + 1)
        last = states[part.stop - 1]
        for n, back in zip(range(part.stop - 2, first - 1, -1), list(
                rv.steps_back(van_der_pol, last, ts[part], p, ay1=np.zeros(2), method=method))[1:], strict=True):
            off[n] = np.max(np.abs(back.state.parts["y"] - states[n].parts["y"]))
    return ts, off


def main() -> None:
    figure, (work, sweep) = style.subplots(2, 9.5, 4.2)
    cases = [(rv.NearReversible("rk4"), 4, "k^--", "rk4 backwards"),
             *((rv.EES(stages=s), s, f"C{s - 3}o-", f"EES, {s} stages") for s in (3, 4, 5, 6))]
    for method, stages, line, label in cases:
        evaluations = [stages * round(e / stages) for e in np.geomspace(18, 200, 7)]
        work.loglog(evaluations, [gradient_error(method, stages, e) for e in evaluations], line, ms=4, label=label)
    work.axvline(48, color="k", lw=0.6, ls=":")
    work.set(xlabel="evaluations forward", ylabel="error of the gradient", ylim=(1e-25, 1e-3))
    work.set_xticks([24, 48, 96, 192], ["24", "48", "96", "192"])
    work.minorticks_off()
    work.legend(loc="lower left")
    for method, resync, line, label in (
            (rv.NearReversible("rk4"), None, "k--", "rk4 backwards"), (rv.EES25(), None, "C0-", "EES25"),
            (rv.EES(stages=6), None, "C3-", "EES, 6 stages"), (rv.EES25(), 40, "C2-", "EES25, resync 40")):
        ts, off = way_back(method, 15.0, 600, resync)
        sweep.semilogy(ts, np.maximum(off, 1e-17), line, lw=1.1, label=label)
    sweep.set(xlabel="t  (swept from right to left)", ylabel="error of the way back", ylim=(1e-16, 1e6))
    sweep.legend(loc="upper right")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

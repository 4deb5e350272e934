"""Equilibrium models: residuals, where the two copies go, and the way back beside the cotangent.

python docs/figures/equilibrium-models.py
"""


import numpy as np
import style

import revode as rv


def layer(L: float, d: int):
    """(W, x) of f(z) = tanh(z W + x), a contraction by L."""
    rng = np.random.default_rng(0)
    W = rng.normal(size=(d, d))
    return L * W / np.linalg.norm(W, 2), rng.normal(size=d)


def f(z, p, x):
    return np.tanh(z @ p + x)


def turning(z, p, x):
    """In the plane: a turn by 110 degrees, shrunk by p, then moved by x."""
    c, s = np.cos(1.92), np.sin(1.92)
    return p * np.stack([c * z[0] - s * z[1], s * z[0] + c * z[1]]) + x


def residuals(method, N: int) -> np.ndarray:
    W, x = layer(0.7, 8)
    return np.array(
        rv.fixed_point(
            f, np.zeros(8), W, x, method=method, tol=1e-30, atol=0.0, max_steps=N
        ).stats.residuals
    )


def copies(beta: float, N: int) -> tuple[np.ndarray, np.ndarray]:
    """(y, z) of N iterations of the map that turns, each (N + 1, 2)."""
    x = np.array([0.4, 0.8])
    field = lambda t, z, p: turning(z, p, x)
    states = [
        state.parts
        for _, state in rv.steps(
            field,
            np.array([-1.0, -0.6]),
            np.arange(N + 1.0),
            np.array(0.95),
            method=rv.RevDEQ(beta),
        )
    ]
    return np.array([s["y"] for s in states]), np.array([s["z"] for s in states])


def way_back(beta: float, N: int) -> tuple[np.ndarray, np.ndarray]:
    """The error of the rebuilt z_n in float32, and the size of the cotangent there, n = 0 .. N."""
    W, x = (a.astype(np.float32) for a in layer(0.7, 8))
    field, ts, z0 = (lambda t, z, p: f(z, p, x)), np.arange(N + 1.0), np.zeros(8, np.float32)
    states = [state for _, state in rv.steps(field, z0, ts, W, method=rv.RevDEQ(beta))]
    off, size = np.zeros(N + 1), np.zeros(N + 1)
    for k, back in enumerate(
        rv.steps_back(field, states[-1], ts, W, ay1=states[-1].parts["z"], method=rv.RevDEQ(beta))
    ):
        n = N - k
        off[n] = np.linalg.norm(back.state.parts["z"] - states[n].parts["z"])
        size[n] = np.linalg.norm(back.cotangent["z"]) + np.linalg.norm(back.cotangent["y"])
    return off, size


def below(ax) -> None:
    """A legend where it covers nothing."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, columnspacing=1.0)


def main() -> None:
    import warnings

    warnings.simplefilter("ignore", rv.ConvergenceWarning)
    figure, (rates, plane, back) = style.subplots(3, 14.0, 5.2)
    for method, line, label, cost in (
        (rv.RevDEQ(0.5), "C0o-", "RevDEQ, beta 0.5", 2),
        (rv.RevDEQ(1.1), "C1s-", "RevDEQ, beta 1.1", 2),
        (rv.Picard(), "C2^-", "Picard", 1),
        (rv.Anderson(), "C3v-", "Anderson(5)", 1),
    ):
        r = residuals(method, 48 // cost)
        r = r[: 1 + np.argmax(r < 1e-13)] if (r < 1e-13).any() else r
        rates.semilogy(cost * (1 + np.arange(len(r))), r, line, ms=3, lw=1, label=label)
    n = np.arange(2, 49, 2)
    rates.semilogy(n, 2 * 0.85 ** (n / 2), "k:", lw=1, label="theorem, beta 0.5")
    rates.set(
        xlabel="evaluations",
        ylabel="residual |z - f(z)| / |f(z)|",
        title="to the fixed point",
        xlim=(0, 50),
        ylim=(1e-13, 3),
    )
    below(rates)

    y, z = copies(0.5, 10)
    path = np.stack([y, z], 1)  # y moves, then z, in turns
    for k in range(len(y) - 1):
        plane.plot(
            [z[k, 0], y[k + 1, 0], z[k + 1, 0]],
            [z[k, 1], y[k + 1, 1], z[k + 1, 1]],
            color="0.75",
            lw=0.7,
            zorder=1,
        )
    plane.plot(*y.T, "C0o-", ms=4, lw=1, label="y")
    plane.plot(*z.T, "C1s-", ms=4, lw=1, label="z")
    for k in (0, 1, 2):
        plane.annotate(
            str(k), path[k, 1], textcoords="offset points", xytext=(6, 5), color="C1"
        )
    star = rv.fixed_point(
        turning, np.zeros(2), np.array(0.95), np.array([0.4, 0.8]), method=rv.Anderson(), tol=1e-14
    ).z
    plane.plot(*star, "k*", ms=11, label="fixed point")
    plane.set(xlabel="first feature", ylabel="second feature", title="two copies that take turns")
    plane.set_aspect("equal", adjustable="datalim")
    below(plane)

    for beta, colour in ((0.5, "C0"), (0.8, "C1")):
        off, size = way_back(beta, 14)
        back.semilogy(
            range(14),
            off[:-1],
            colour + "o-",
            ms=3,
            lw=1,
            label=f"way back, beta {beta}",
        )
        back.semilogy(size, colour + "--", lw=1, label=f"cotangent, beta {beta}")
    back.set(
        xlabel="iteration n (swept from right to left)",
        title="float32: why dL/dparams survives",
        ylim=(1e-9, 1e6),
    )
    below(back)
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

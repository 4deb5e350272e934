"""Spirals seen at irregular times, rebuilt and continued: the picture that every newcomer knows.

    x' = -0.2 x - 2 y,    y' = 2 x - 0.2 y             (the network does not know that this is linear)

Each spiral is seen at times of its own. The grid is the union of them all, so one solve serves every spiral, and the
loss looks at each where it was seen. Beyond the last time the learnt field continues alone.
After the experiment of Chen, Rubanova, Bettencourt & Duvenaud 2018, section 5.1, without its encoder.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..methods import Coupled
from ..solve import solve
from .data import trajectory
from .training import Experiment

STEPS = 90                 # observations, of all spirals together: as many grid intervals
END, BEYOND = 3.0, 6.0
RADII = np.linspace(2.0, 0.8, 5)
ANGLES = 0.4 * np.pi * np.arange(5) - 10 * np.log(RADII)    # of the starts, such that the five arms are evenly spread
START = np.stack([RADII * np.cos(ANGLES), RADII * np.sin(ANGLES)], axis=-1)         # (5, 2)
NOISE = 0.03
MATRIX = np.array([[-0.2, -2.0], [2.0, -0.2]])


def rotation(t: Any, y: Any, params: Any = None) -> Any:
    """The true system; y (..., 2)."""
    return y @ MATRIX.T


def network(t: Any, y: Any, params: Any) -> Any:
    """The learnt field: y -> 32 -> 2."""
    return nn.mlp(params, y)


def experiment(steps: int = STEPS, dtype: str = "float64") -> Experiment:
    """The experiment with this many observations."""
    rng = np.random.default_rng(0)
    # The last observation is at END, the others anywhere between; which spiral each belongs to goes round.
    ts = np.concatenate([[0.0], np.sort(rng.uniform(0.0, END, steps - 1)), [END]])
    who, when = np.arange(steps) % len(START), np.arange(1, steps + 1)
    rng.shuffle(who)
    exact = trajectory(rotation, START, ts)                 # (N + 1, 5, 2)
    target = (exact[when, who] + NOISE * rng.standard_normal((steps, 2))).astype(dtype)
    later = np.linspace(END, BEYOND, 121)
    truth_later = trajectory(rotation, exact[-1], later)

    def learnt(params: Any, method: Any) -> tuple[np.ndarray, np.ndarray]:
        """The learnt spirals on the grid, and from END to BEYOND."""
        ys = made.objective(method, None)(params)[1].ys
        return ys, solve(network, ys[-1], later, params, method=method).ys

    def findings(params: Any, method: Any) -> dict:
        ys, after = learnt(params, method)
        rms = lambda error: float(np.sqrt(np.mean(np.square(error))))
        return {f"seen, t < {END:g}": {"rms error": rms(ys - exact)},
                f"beyond, t < {BEYOND:g}": {"rms error": rms(after - truth_later)}}

    def draw(ax: Any, params: Any, method: Any) -> None:
        ys, after = learnt(params, method)
        truth = trajectory(rotation, START, np.linspace(0.0, BEYOND, 601))
        for i in range(len(START)):
            colour, first = plotting.COLOURS[i], i == 0
            label = lambda text, first=first: text if first else None
            ax.plot(*truth[:, i].T, color=colour, lw=3, alpha=0.3, label=label("truth"))
            ax.plot(*target[who == i].T, "o", ms=3, color=colour, label=label("seen"))
            ax.plot(*ys[:, i].T, color=colour, lw=1.2, label=label(f"rebuilt, t < {END:g}"))
            ax.plot(*after[:, i].T, color=colour, lw=1.2, ls=(0, (1, 1.5)), label=label(f"continued, t < {BEYOND:g}"))
        ax.set(xlabel="x", ylabel="y", title="fit against truth", aspect="equal")
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    made = Experiment(
        name="spiral", title=f"{len(START)} spirals seen at irregular times in [0, {END:g}], continued to {BEYOND:g}",
        field=network, params=lambda seed: nn.mlp_init(np.random.default_rng(seed), (2, 32, 2), dtype=np.dtype(dtype)),
        y0=START.astype(dtype), ts=ts, target=target,
        # lam = exp(-c h) follows contraction slower than c: 0.2 in the truth, but more in networks on the way there.
        method=Coupled("midpoint", lam=round(float(np.exp(-2 * END / steps)), 6)),
        loss=lambda ys, target: nn.mse(ys[when, who], target),
        optimiser=optim.adam(2e-2), iterations=600, labels=("x", "y"),
        recipe="MLP 2-32-2 (tanh), Adam, learning rate 2e-2, MSE over the observations; starting points known",
        data=f"simulated: {steps} observations with normal noise (standard deviation {NOISE:g}; data seed 0)",
        findings=findings, draw=draw)
    return made

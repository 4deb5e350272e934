"""Spirals seen at irregular times, rebuilt and continued: the picture that every newcomer knows.

    x' = -0.2 x - 2 y,    y' = 2 x - 0.2 y         (the network does not know that this is linear)

Each spiral is seen at times of its own. The grid is the union of them all, so one solve serves
every spiral, and the loss looks at each where it was seen. Beyond the last time the learnt field
continues alone. After the experiment of Chen, Rubanova, Bettencourt & Duvenaud 2018, section 5.1,
without its encoder.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..engine import value_and_grad
from ..methods import Coupled
from .data import grid_words, trajectory
from .training import Experiment, Run

STEPS = 90                 # observations, of all spirals together: as many grid intervals
END, BEYOND = 3.0, 6.0
RADII = np.linspace(2.0, 0.8, 5)
# of the starts, such that the five arms are evenly spread
ANGLES = 0.4 * np.pi * np.arange(5) - 10 * np.log(RADII)
START = np.stack([RADII * np.cos(ANGLES), RADII * np.sin(ANGLES)], axis=-1)         # (5, 2)
NOISE = 0.03
MATRIX = np.array([[-0.2, -2.0], [2.0, -0.2]])


def rotation(t: Any, y: Any, params: Any = None) -> Any:
    """The true system; y (..., 2)."""
    return y @ MATRIX.T


def network(t: Any, y: Any, params: Any) -> Any:
    """The learnt field: y -> 32 -> 2."""
    return nn.mlp(params, y)


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adam(2e-2)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(steps: int = STEPS, dtype: str = "float64", method: Any = None) -> Experiment:
    """The experiment with this many observations."""
    rng = np.random.default_rng(0)
    # The last observation is at END, the others anywhere between; which spiral each belongs to goes round.
    ts = np.concatenate([[0.0], np.sort(rng.uniform(0.0, END, steps - 1)), [END]])
    who, when = np.arange(steps) % len(START), np.arange(1, steps + 1)
    rng.shuffle(who)
    exact = trajectory(rotation, START, ts)                 # (N + 1, 5, 2)
    target = (exact[when, who] + NOISE * rng.standard_normal((steps, 2))).astype(dtype)
    later = np.linspace(END, BEYOND, 121)

    def start(seed: int) -> Any:
        return nn.mlp_init(np.random.default_rng(seed), (2, 32, 2), dtype=np.dtype(dtype))

    def loss(params: Any, solve: Any) -> tuple:
        sol = solve(network, START.astype(dtype), ts, params)
        return nn.mse(sol.ys[when, who], target), sol

    def learnt(params: Any, solve: Any) -> tuple[np.ndarray, np.ndarray]:
        """The learnt spirals on the grid, and from END to BEYOND."""
        ys = loss(params, solve)[1].ys
        return ys, solve(network, ys[-1], later, params).ys

    def findings(params: Any, start: Any, solve: Any) -> dict:
        ys, after = learnt(params, solve)
        truth = trajectory(rotation, exact[-1], later)
        rms = lambda error: float(np.sqrt(np.mean(np.square(error))))
        return {f"seen, t < {END:g}": {"rms error": rms(ys - exact)}, f"beyond, t < {BEYOND:g}": {"rms error": rms(after - truth)}}

    def draw(axes: Any, params: Any, start: Any, solve: Any, n: int, label: str) -> None:
        (ys, after), ax = learnt(params, solve), axes[0]
        truth = trajectory(rotation, START, np.linspace(0.0, BEYOND, 601))
        for i, colour in enumerate(plotting.COLOURS[:len(START)]):
            once = lambda text, i=i: text if i == 0 else None
            ax.plot(*truth[:, i].T, color=colour, lw=4, alpha=0.3, label=once("truth"))
            ax.plot(*target[who == i].T, "o", ms=4, color=colour, label=once("seen"))
            ax.plot(*ys[:, i].T, color=colour, lw=1.5, label=once(f"rebuilt, t < {END:g}"))
            ax.plot(*after[:, i].T, color=colour, lw=1.5, ls=(0, (1, 1.5)), label=once(f"continued, t < {BEYOND:g}"))
        ax.set(xlabel="x", ylabel="y", title="five spirals", aspect="equal")
        plotting.legend(ax)

    return Experiment(
        name="spiral",
        title=f"{len(START)} spirals seen at irregular times in [0, {END:g}], continued to {BEYOND:g}",
        words=("MLP 2-32-2 (tanh), Adam, learning rate 2e-2, MSE over the observations; starting points known",
               f"data: simulated, {steps} observations with normal noise (standard deviation {NOISE:g}; data seed 0)",
               grid_words(ts, dtype)),
        # lam = exp(-c h) follows contraction slower than c: 0.2 in the truth, but more in networks on the way there.
        method=method or Coupled("rk4", lam=round(float(np.exp(-3 * END / steps)), 6)),
        loss=loss, train=train, start=start, iterations=600, findings=findings, draw=draw,
        shows="Five spirals in the plane: observations, the fit through them, and its continuation beside the truth.")

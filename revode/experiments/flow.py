"""revode train flow: a continuous normalising flow that learns the density of two moons.

    x' = f(t, x),   l' = -tr df/dx,   from data (t = 0) to normal numbers (t = 1):   log p(x(0)) =
    log N(x(1)) - l(1)

The state is a tree {"x": (..., 2), "l": (...)}. The trace is exact: the field pulls each unit
vector back through f and takes its own component, so that a gradient of the loss needs derivatives
of vjps. Memory is that of one gradient, for two numbers of steps. Sources: Chen et al. 2018,
section 4; Grathwohl et al. 2019 (FFJORD).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim
from ..engine.derivatives import value_and_grad, vjp
from ..methods import EES
from .training import Experiment, Run

LEARNING_RATE, WIDTH = 0.02, 32
BOX = (-2.2, 2.2)                        # of the picture, along both axes


def moons(rng: np.random.Generator, points: int) -> np.ndarray:
    """Two half circles of radius 1 that reach into each other, with noise of deviation 0.08, around 0; (points, 2)."""
    angle, side = np.pi * rng.uniform(size=points), np.where(np.arange(points) % 2, -1.0, 1.0)
    x = np.stack([side * np.cos(angle) - 0.5 * side, side * np.sin(angle) - 0.25 * side], -1)
    return x + 0.08 * rng.standard_normal((points, 2))


def velocity(t: Any, x: Any, params: Any) -> Any:
    return nn.mlp(params, nn.with_time(t, x))


def field(t: Any, state: Any, params: Any) -> Any:
    """(f, -trace of df/dx) at {"x", "l"}."""
    value, pull = vjp(lambda x: velocity(t, x, params), state["x"])
    trace = sum(pull(np.broadcast_to(unit, value.shape))[0][..., i] for i, unit in enumerate(np.eye(2)))
    return {"x": value, "l": -trace}


def log_density(x: np.ndarray, params: Any, ts: np.ndarray, solve: Any) -> tuple[Any, Any]:
    """log p of points (..., 2), and the Solution."""
    sol = solve(field, {"x": x, "l": np.zeros(x.shape[:-1])}, ts, params, save=[-1])
    return -0.5 * np.sum(sol.y1["x"] ** 2, -1) - np.log(2.0 * np.pi) - sol.y1["l"], sol


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adam(LEARNING_RATE)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(points: int = 256, steps: int = 10, method: Any = None, seed: int = 0) -> Experiment:
    """The experiment with this many points of the data, and equal steps from t = 0 to 1."""
    data, fresh = (moons(np.random.default_rng([seed, i]), points) for i in (1, 2))
    ts = np.linspace(0.0, 1.0, steps + 1)

    def start(seed: int) -> Any:
        return nn.mlp_init(np.random.default_rng(seed), (3, WIDTH, 2))

    def loss(params: Any, solve: Any, x: np.ndarray = data) -> tuple:
        logs, sol = log_density(x, params, ts, solve)
        return -np.mean(logs), sol                        # nats a point

    def density(params: Any, solve: Any, pixels: int) -> np.ndarray:
        """On the middles of pixels x pixels squares of BOX, rows from below."""
        middles = BOX[0] + (BOX[1] - BOX[0]) * (np.arange(pixels) + 0.5) / pixels
        grid = np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)
        return np.exp(log_density(grid, params, ts, solve)[0]).reshape(pixels, pixels)

    def findings(params: Any, start: Any, solve: Any) -> dict:
        area = (BOX[1] - BOX[0]) ** 2
        return {name: {"nats a point, training": float(loss(at, solve)[0]), "nats a point, fresh": float(loss(at, solve, fresh)[0]),
                       "sum of the density, over the box": area * float(density(at, solve, 64).mean())}
                for name, at in (("before", start), ("after", params))}

    def draw(axes: Any, params: Any, start: Any, solve: Any, n: int, label: str) -> None:
        axes[0].plot(*data.T, ".", ms=4, color="#333333")
        axes[0].set(title="data", xlabel="x", ylabel="y", xlim=BOX, ylim=BOX, aspect="equal")
        shown = axes[1].imshow(density(params, solve, 120), origin="lower", extent=(*BOX, *BOX), cmap="magma")
        axes[1].set(title="learnt density", xlabel="x")
        axes[1].get_figure().colorbar(shown, ax=axes[1], shrink=0.75, label="probability a unit of area")

    return Experiment(
        name="flow",
        title=f"two moons, {points} points; x' = f(t, x), MLP 3-{WIDTH}-2 (tanh), exact trace",
        words=(f"{steps} steps, float64; Adam, learning rate {LEARNING_RATE}, full batch",
               "loss: negative log-likelihood, nats a point; 'fresh': points that were not trained on"),
        loss=loss, train=train, start=start, method=method or EES(6), iterations=800,
        findings=findings, draw=draw, panels=2,
        shows="Points of two moons, and the learnt density over the same square.")

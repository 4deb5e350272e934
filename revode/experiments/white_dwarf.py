"""Chandrasekhar's white-dwarf equation, learnt by a neural ODE from one trajectory.

    x' = v,    v' = -2 v / (t + 1/2) - (x^2 - C)^(3/2),  C = 0.001, (x, v)(0) = (1, 0), t in [0, 5]

x is the density parameter along the radius t, both without units; the 1/2 keeps the centre regular.
The network sees (t, x, v) and has one tanh layer of width 10. It is fitted at all grid points.
Source: Chandrasekhar 1957, chapter XI; as a test of reversible solvers McCallum & Foster 2024,
arXiv 2410.11648.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..engine import value_and_grad
from ..methods import Coupled
from . import data
from .tables import Published
from .training import Experiment, Run

C, END = 0.001, 5.0
STEPS = 1000
FINE = 0.005       # steps of the target: dopri5 is then within 1e-12 of the solution

PUBLISHED = Published(
    "McCallum & Foster 2024; 1000 iterations, seeds 0 to 2",
    ("gradient mode", "loss", "time", "checkpoints"),
    (("reversible", "0.9e-4", "1.7 +- 0.4 minutes", "2"),
     ("checkpointing", "0.9e-4", "280.0 minutes", "2"),
     *(("checkpointing", "0.9e-4", f"{minutes} minutes", str(n))
       for n, minutes in ((4, 30.3), (8, 10.6), (16, 9.6), (32, 8.7), (44, 5.5)))))


def star(t: Any, y: Any, params: Any = None) -> Any:
    """The true system; y (..., 2) holds x and v."""
    x, v = y[..., 0], y[..., 1]
    return np.stack([v, -2 * v / (t + 0.5) - (x * x - C) ** 1.5], axis=-1)


def network(t: Any, y: Any, params: Any) -> Any:
    """The learnt field: (t, y) -> 10 -> 2."""
    return nn.mlp(params, nn.with_time(t, y))


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adamw(1e-2, weight_decay=1e-5)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(steps: int = STEPS, dtype: str = "float64", method: Any = None) -> Experiment:
    """The experiment on a grid of this many equal steps."""
    ts = np.linspace(0.0, END, steps + 1)
    target = data.trajectory(star, np.array([1.0, 0.0]), ts, FINE).astype(dtype)

    def start(seed: int) -> Any:
        return nn.mlp_init(np.random.default_rng(seed), (3, 10, 2), nn.uniform, random_biases=True, dtype=np.dtype(dtype))

    def loss(params: Any, solve: Any) -> tuple:
        sol = solve(network, target[0], ts, params)
        return nn.mse(sol.ys, target), sol

    return Experiment(
        name="white-dwarf",
        title="the white-dwarf equation from one trajectory, t in [0, 5]",
        words=("MLP 3-10-2 (tanh), AdamW, learning rate 1e-2, weight decay 1e-5, MSE over all grid points",
               "data: exact, a solution of the same equation by dopri5, without noise", data.grid_words(ts, dtype)),
        loss=loss, train=train, start=start, method=method or Coupled("midpoint", lam=0.999), iterations=1000,
        draw=plotting.components(ts, target, ("x", "v"), lambda *at: loss(*at)[1].ys, "radius t (no unit)", ylabel="x, v (no unit)"),
        shows="The density parameter x and its slope v against the radius t, data and fit.",
        published=PUBLISHED, published_iterations=1000)

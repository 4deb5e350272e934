"""Two masses on springs, learnt by a neural ODE from one recorded (or simulated) trajectory.

    m1 x1'' = -k (x1 - a) + q (x2 + a - x1 + a) - c x1'
    m2 x2'' = -k (x2 + a) - q (x2 + a - x1 + a) - c x2'

A mass at each end of the spring q, about +a and -a.

The simulation stands for the air track of Schmidt & Lipson: its constants are chosen so that it
looks like their recording, in the unit of length of which (1 / 100 of the state that is learnt).
The network does not see t.
Sources: Schmidt & Lipson 2009 (data); McCallum & Foster 2024, arXiv 2410.11648 (experiment).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..engine import value_and_grad
from ..methods import Coupled
from . import data as sources
from .tables import Published
from .training import Experiment, Run

NAMES = ("x1", "x2", "v1", "v2")
STEPS = 499                # 500 points
LAM = 0.98                 # exp(-c h) with c = 3.4 / s: with .999 the copies part while it is learnt
END = 3.0                  # s
SCALE = 100.0
M1, M2, K, Q, C, A = 1.0, 3.0, 9.0, 90.0, 0.05, 68.0
START = (0.0, -143.0, -141.0, 40.0)
RATE = 30.0                # samples a second, as in the recording
NOISE = (0.5, 0.5, 2.0, 2.0)

PUBLISHED = Published(
    "McCallum & Foster 2024, recorded data; 10000 iterations",
    ("gradient mode", "loss", "time", "checkpoints"),
    (("reversible", "1.0e-3", "14.3 minutes", "2"),
     *(("checkpointing", "-", f"{minutes} minutes", str(n))
       for n, minutes in ((2, "632"), (4, "99"), (8, "63.4"), (16, "53.8"), (31, "36.6")))))


def springs(t: Any, y: Any, params: Any = None, damping: float = C) -> Any:
    """The simulated system; y (..., 4) holds x1, x2, v1, v2."""
    x1, x2, v1, v2 = (y[..., i] for i in range(4))
    pull = Q * (x2 - x1 + 2 * A)
    return np.stack([v1, v2, (-K * (x1 - A) + pull - damping * v1) / M1, (-K * (x2 + A) - pull - damping * v2) / M2], axis=-1)


def network(t: Any, y: Any, params: Any) -> Any:
    """The learnt field: y -> 10 -> 4."""
    return nn.mlp(params, y)


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adamw(1e-2, weight_decay=1e-5)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(steps: int = STEPS, dtype: str = "float64", data: str | None = None, method: Any = None) -> Experiment:
    """The experiment on a grid of this many equal steps. data: the path of a recorded file; None simulates."""
    ts = np.linspace(0.0, END, steps + 1)
    values, words = sources.observed(data, NAMES, ts, springs, START, rate=RATE, noise=NOISE)
    target = (values / SCALE).astype(dtype)

    def start(seed: int) -> Any:
        return nn.mlp_init(np.random.default_rng(seed), (4, 10, 4), nn.uniform, random_biases=True, dtype=np.dtype(dtype))

    def loss(params: Any, solve: Any) -> tuple:
        sol = solve(network, target[0], ts, params)
        return nn.mse(sol.ys, target), sol

    return Experiment(
        name="oscillator",
        title=f"two masses on springs from one trajectory, t in [0, {END:g}] s",
        words=("MLP 4-10-4 (tanh), AdamW, learning rate 1e-2, weight decay 1e-5, MSE over all grid points",
               f"{words}, divided by {SCALE:g}", sources.grid_words(ts, dtype)),
        loss=loss, train=train, start=start, method=method or Coupled("midpoint", lam=LAM), iterations=10_000,
        draw=plotting.components(ts, target, NAMES, lambda *at: loss(*at)[1].ys, "t, s",
                                 ylabel="x; v a second (recorded units / 100)"),
        shows="Both positions and both velocities against time, data and fit.",
        published=PUBLISHED, published_iterations=10_000)

"""A double pendulum in its chaotic regime, learnt by a neural ODE with adaptive steps.

    (m1 + m2) l1 o1'' + m2 l2 (o2'' cos d + o2'^2 sin d) + (m1 + m2) g sin o1 = 0      d = o1 - o2
           l2 o2'' + l1 o1'' cos d - l1 o1'^2 sin d + g sin o2 = 0

o: angles from the vertical, rad; w = o'. Point masses on rods without mass. The simulation stands
for the recording of Schmidt & Lipson and starts where that does. The solution is saved at the times
of the data, which are grid points, so a step is no longer than the interval between them. The
network does not see t.
Sources: Schmidt & Lipson 2009 (data); McCallum & Foster 2024, arXiv 2410.11648 (experiment).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..adaptive import PID
from ..engine import value_and_grad
from ..methods import Coupled
from . import data as sources
from .tables import Published
from .training import Experiment, Run

NAMES = ("o1", "o2", "w1", "w2")
STEPS = 200                # intervals between data: the recording has 100 a second
END = 2.0                  # s
SIMULATED = 50, 1.0        # intervals and end of the simulation: shorter, so that a minute or two shows a fit
SCALE = 10.0
M1, M2, L1, L2, G = 0.1, 0.1, 0.15, 0.12, 9.81       # kg, m, m / s^2
START = (-1.13, -1.30, -0.54, -6.2)
RATE = 100.0
NOISE = (0.01, 0.01, 0.1, 0.1)
TOLERANCE = 1e-6

PUBLISHED = Published(
    "McCallum & Foster 2024, recorded data; 10000 iterations",
    ("gradient mode", "loss", "time", "checkpoints"),
    (("reversible", "(8.3 +- 3.2)e-3", "21.9 minutes", "2"),
     *(("checkpointing", "-", f"{minutes} minutes", str(n))
       for n, minutes in ((2, "818"), (4, "135"), (8, "82.8"), (16, "70.8"), (32, "62.4")))))


def double_pendulum(t: Any, y: Any, params: Any = None) -> Any:
    """The simulated system, without friction; y (..., 4) holds o1, o2, w1, w2. The two equations solved for o''."""
    o1, o2, w1, w2 = (y[..., i] for i in range(4))
    c, s = np.cos(o1 - o2), np.sin(o1 - o2)
    m = M2 / (M1 + M2)
    p = -m * L2 * w2 ** 2 * s - G * np.sin(o1)       # L1 o1'' + m L2 c o2'' = p
    q = L1 * w1 ** 2 * s - G * np.sin(o2)            # L1 c o1'' + L2 o2'' = q
    left = 1 - m * c ** 2
    return np.stack([w1, w2, (p - m * c * q) / (L1 * left), (q - c * p) / (L2 * left)], axis=-1)


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


def experiment(steps: int | None = None, dtype: str = "float64", data: str | None = None, method: Any = None) -> Experiment:
    """The experiment with this many equal intervals between data (None: as many as published).
    data: the path of a recorded file; None simulates."""
    usual, end = SIMULATED if data is None else (STEPS, END)
    ts = np.linspace(0.0, end, (steps or usual) + 1)
    values, words = sources.observed(data, NAMES, ts, double_pendulum, START, rate=RATE, noise=NOISE)
    target = (values / SCALE).astype(dtype)

    def start(seed: int) -> Any:
        return nn.mlp_init(np.random.default_rng(seed), (4, 10, 4), nn.uniform, random_biases=True, dtype=np.dtype(dtype))

    def loss(params: Any, solve: Any) -> tuple:
        sol = solve(network, target[0], ts[[0, -1]], params, controller=PID(TOLERANCE, TOLERANCE), save_at=ts)
        return nn.mse(sol.ys, target), sol

    return Experiment(
        name="pendulum",
        title=f"a chaotic double pendulum from one trajectory, t in [0, {end:g}] s",
        words=("MLP 4-10-4 (tanh), AdamW, learning rate 1e-2, weight decay 1e-5, MSE over the times of the data",
               f"{words}, divided by {SCALE:g}",
               f"adaptive steps (rtol {TOLERANCE:g}, atol {TOLERANCE:g}), {len(ts):,} saved times, {dtype}"),
        loss=loss, train=train, start=start, method=method or Coupled("bosh3", lam=0.999), iterations=5000, adaptive=True,
        draw=plotting.components(ts, target, NAMES, lambda *at: loss(*at)[1].ys, "t, s",
                                 ylabel="angles, rad / 10; velocities, rad/s / 10"),
        shows="Both angles and both angular velocities against time, data and fit.",
        published=PUBLISHED, published_iterations=10_000)

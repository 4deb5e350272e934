"""revode train cde: which way round? A neural CDE classifies spirals seen at irregular times.

    dz = f(z) dX,   z(0) = W (X(0), 1),   class by the sign of v . z(1) + c
    X: time and both coordinates, from the data

Spirals begin anywhere and grow or shrink at any rate; half of them turn clockwise, with noise on
every observation. The grid of times is uneven, and a share of the observations is dropped, each
coordinate on its own (NaN). The control passes through what is left. Held-out spirals are of the
same kind.
Source of the model: Kidger, Morrill, Foster & Lyons 2020.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..engine import value_and_grad
from ..methods import EES
from ..paths import HermiteCubic, LinearPath
from .training import Experiment, Run

LENGTH, INNER = 20, 2                  # times of the data, and steps of the solve from one to the next
HIDDEN, WIDTH, CHANNELS = 6, 24, 3
LEARNING_RATE, NOISE = 0.02, 0.15
CONTROLS = {"linear": LinearPath, "hermite": HermiteCubic}


def spirals(rng: np.random.Generator, count: int, dropped: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(times (LENGTH,), values (count, LENGTH, 2) with NaN where nothing was observed, labels (count,): 1 clockwise)."""
    # One grid for training and test; no two times fall together, where noise would make the slopes of a cubic enormous.
    shift = np.random.default_rng(0).uniform(-0.3, 0.3, LENGTH - 2)
    last = LENGTH - 1.0
    times = np.concatenate([[0.0], np.arange(1, LENGTH - 1) + shift, [last]]) / last
    labels = np.arange(count) % 2
    turn = rng.uniform(1.0, 4.0, (count, 1)) * np.where(labels, -1.0, 1.0)[:, None]
    angle = rng.uniform(0.0, 2.0 * np.pi, (count, 1)) + turn * times
    radius = rng.uniform(0.5, 1.0, (count, 1)) * np.exp(rng.uniform(-0.7, 0.7, (count, 1)) * times)
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1) + NOISE * rng.standard_normal((count, LENGTH, 2))
    missing = rng.uniform(size=values.shape) < dropped
    missing[:, rng.integers(LENGTH)] = False                   # one time that all of them keep
    return times, np.where(missing, np.nan, values), labels


def field(t: Any, z: Any, params: Any) -> Any:
    """(..., HIDDEN, CHANNELS)."""
    return np.reshape(np.tanh(nn.mlp(params["f"], z)), (*z.shape, CHANNELS))


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adam(LEARNING_RATE)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(series: int = 64, dropped: Any = (0.3, 0.8), control: Any = tuple(CONTROLS), method: Any = None,
               seed: int = 0) -> list[Experiment]:
    """One experiment for each kind of control and share of dropped observations; series: to train on."""
    return [of_control(kind, share, series, method or EES(6), seed) for share in dropped for kind in control]


def of_control(kind: str, dropped: float, series: int, method: Any, seed: int) -> Experiment:
    times, values, labels = spirals(np.random.default_rng([seed, 1]), series, dropped)
    _, others, truth = spirals(np.random.default_rng([seed, 2]), 2 * series, dropped)
    control, held_out = (CONTROLS[kind](times, seen, time=True) for seen in (values, others))
    ts = np.interp(np.arange(INNER * (LENGTH - 1) + 1) / INNER, np.arange(LENGTH), times)

    def start(seed: int) -> dict:
        rng = np.random.default_rng(seed)
        return {"f": nn.mlp_init(rng, (HIDDEN, WIDTH, HIDDEN * CHANNELS)), "start": nn.mlp_init(rng, (CHANNELS, HIDDEN)),
                "end": nn.mlp_init(rng, (HIDDEN, 1))}

    def scores(params: Any, solve: Any, control: Any) -> tuple:
        """One number for each series, positive for clockwise, and the Solution."""
        z0 = nn.mlp(params["start"], control.evaluate(0.0))
        sol = solve(field, z0, ts, params, control=control, save=[-1])
        return nn.mlp(params["end"], sol.y1)[..., 0], sol

    def loss(params: Any, solve: Any) -> tuple:
        found, sol = scores(params, solve, control)
        return np.mean(nn.softplus((1.0 - 2.0 * labels) * found)), sol        # cross-entropy

    def findings(params: Any, start: Any, solve: Any) -> dict:
        def right(at: Any, control: Any, labels: np.ndarray) -> float:
            return 100.0 * float(np.mean((scores(at, solve, control)[0] > 0) == labels))

        return {"": {"right before, held out, %": right(start, held_out, truth),
                     "right after, training, %": right(params, control, labels),
                     "right after, held out, %": right(params, held_out, truth)}}

    def draw(axes: Any, params: Any, start: Any, solve: Any, n: int, label: str) -> None:
        """One spiral of each class with its control; of the last row, where the most is missing."""
        fine = np.linspace(0.0, 1.0, 400)
        for i, (ax, name) in enumerate(zip(axes, ("anticlockwise", "clockwise"), strict=True)):
            ax.clear()
            for channel, what in enumerate("xy"):
                colour = plotting.COLOURS[channel]
                ax.plot(fine, held_out.evaluate(fine)[:, i, 1 + channel], color=colour, lw=1.5, label=f"{what}, control")
                ax.plot(times, others[i, :, channel], "o", ms=5, color=colour, label=f"{what}, seen")
            ax.set(title=f"{name}, {dropped:.0%} dropped", xlabel="t", ylabel="position")
            plotting.legend(ax)

    return Experiment(
        name=f"{kind}, {dropped:.0%} dropped",
        title=f"spirals that turn left or right, {series} to train on, {2 * series} held out",
        words=(f"{LENGTH} uneven times, {INNER} steps from one to the next; dz = f(z) dX, MLP {HIDDEN}-{WIDTH}-{HIDDEN * CHANNELS}",
               f"Adam, learning rate {LEARNING_RATE}; loss: cross-entropy, nats"),
        loss=loss, train=train, start=start, method=method, iterations=30, findings=findings, draw=draw, panels=2,
        shows="An anticlockwise and a clockwise spiral: observations of x and y against time, and the control through them.")

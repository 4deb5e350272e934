"""revode train ou: a neural SDE fitted to Ornstein-Uhlenbeck paths, by five methods with 120 field
evaluations a solve.

    dX = (mu t - theta X) dt + sigma dW,  X(0) = 0,  theta = 0.2, mu = 0.1, sigma = 2, T = 10, seen
    at t = 0, 1, ..., 10
    model   dX = f(t, X) dt + g o dW,     f and g networks with one hidden layer of 32 (LipSwish)

loss = mean squared error of the marginals' means and standard deviations, over sigma^2, + MMD^2 of
the ten observed values. Every method sees the same Brownian path (a tree). g reads t alone by
default (additive noise, as in the data), since Coupled Euler converges for no other; --diffusion
state lets g read (t, X) and leaves Coupled Euler out. The data are drawn from the exact transition
law. Source of the problem: Shmelev & Salvi 2025.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..engine import value_and_grad
from ..methods import EES25, EES27, Coupled, ReversibleHeun
from ..paths import BrownianTree
from .mmd import median_widths, mmd2
from .training import Experiment, Run

THETA, MU, SIGMA, T = 0.2, 0.1, 2.0, 10
METHODS = {"reversible Heun": (ReversibleHeun(), 12), "EES(2,5)": (EES25(), 4), "EES(2,7)": (EES27(), 3),
           "Coupled Euler": (Coupled("euler"), 6), "Coupled midpoint": (Coupled("midpoint"), 3)}     # and steps for each unit
LEARNING_RATE = 0.02


def sample(rng: np.random.Generator, paths: int) -> np.ndarray:
    """Exact paths at t = 0, 1, ..., T: (T + 1, paths, 1)."""
    decay = np.exp(-THETA)
    sd = SIGMA * np.sqrt((1.0 - decay ** 2) / (2.0 * THETA))
    particular = lambda t: MU * (t / THETA - 1.0 / THETA ** 2)        # solves m' = mu t - theta m
    x = [np.zeros((paths, 1))]
    for t in range(T):
        x.append(particular(t + 1) + decay * (x[-1] - particular(t)) + sd * rng.standard_normal((paths, 1)))
    return np.stack(x)


def drift(t: Any, x: Any, params: Any) -> Any:
    return nn.mlp(params["f"], nn.with_time(t / T, x), nn.lipswish)


def g(t: Any, x: Any, params: Any) -> Any:
    """Positive, so that its sign, which the law of the paths does not show, is settled. It reads X if it has the inputs."""
    seen = nn.with_time(t / T, x)[..., :params["g"][0]["W"].shape[0]]
    return nn.softplus(nn.mlp(params["g"], seen, nn.lipswish))


def distances(ys: Any, data: np.ndarray) -> tuple[Any, Any]:
    """The mean squared error of means and standard deviations over sigma^2, and MMD^2; ys and data (T + 1, paths, 1)."""
    ys, data = ys[1:, :, 0], data[1:, :, 0]
    error = np.square(np.mean(ys, 1) - data.mean(1)) + np.square(np.std(ys, 1) - data.std(1))
    features = lambda x: np.swapaxes((x - data.mean(1)[:, None]) / data.std(1)[:, None], 0, 1)
    scaled = features(data)
    return np.mean(error) / SIGMA ** 2, mmd2(features(ys), scaled, median_widths(scaled))


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adam(LEARNING_RATE)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(paths: int = 64, data_paths: int = 256, diffusion: str = "time", seed: int = 0) -> list[Experiment]:
    """One experiment for each method. paths: of the model in each loss; diffusion: what g reads,
    "time" or "state"."""
    data, fresh = (sample(np.random.default_rng([seed, i]), data_paths) for i in (1, 2))
    reads = 2 if diffusion == "state" else 1
    floor = distances(data, fresh)

    def start(seed: int) -> dict:
        rng = np.random.default_rng(seed)
        return {"f": nn.mlp_init(rng, (2, 32, 1)), "g": nn.mlp_init(rng, (reads, 32, 1))}

    def of_method(name: str, method: Any, per_unit: int) -> Experiment:
        ts, save = np.linspace(0.0, T, T * per_unit + 1), slice(None, None, per_unit)

        def simulate(params: Any, solve: Any, count: int, seed: int) -> Any:
            noise = BrownianTree(seed, 0.0, T, tol=1.0 / 24.0)
            return solve(drift, np.zeros((count, 1)), ts, params, diffusion=g, noise=noise, save=save)

        def loss(params: Any, solve: Any) -> tuple:
            sol = simulate(params, solve, paths, seed)
            return sum(distances(sol.ys, data)), sol

        def findings(params: Any, start: Any, solve: Any) -> dict:
            found = simulate(params, solve, data_paths, seed + 1)
            moments, mmd = distances(found.ys, fresh)
            return {f"dt = 1/{per_unit}": {"evaluations": found.stats.nfe_forward, "fresh, moments": float(moments),
                                           "fresh, MMD^2": float(mmd)}}

        def draw(axes: Any, params: Any, start: Any, solve: Any, n: int, label: str) -> None:
            picture(axes, simulate(params, solve, data_paths, seed + 1).ys, fresh, n, label)

        return Experiment(
            name=name,
            title=f"dX = ({MU} t - {THETA} X) dt + {SIGMA:g} dW on [0, {T}], {data_paths} paths seen at {T + 1} times",
            words=(f"networks 2-32-1 (f) and {reads}-32-1 (g), LipSwish; Adam, learning rate {LEARNING_RATE}",
                   f"{paths} model paths on one fixed noise; 'fresh': other noise and other data than in training"),
            loss=loss, train=train, start=start, method=method, iterations=120, shared=True, findings=findings, draw=draw, panels=2,
            shows="Mean and standard deviation of the paths against time, and their density at the end, for the data and each method.",
            notes=(f"Two samples of {data_paths} data paths differ by moments {floor[0]:.3f}, MMD^2 {floor[1]:.4f}: no fit can be "
                   "told from the truth below that.",
                   *(["g reads t alone (additive noise), for which Coupled Euler converges too."] * (reads == 1))))

    return [of_method(name, *pair) for name, pair in METHODS.items() if reads == 1 or name != "Coupled Euler"]


def picture(axes: Any, ys: np.ndarray, data: np.ndarray, n: int, label: str) -> None:
    """Marginals over those of the data: mean and standard deviation, and the law at T. Lines get
    thinner from one method to the next, because they lie on one another."""
    ts, style = np.arange(T + 1), {"color": plotting.COLOURS[n], "lw": 5.0 - 0.9 * n}
    x = np.linspace(float(data[-1].min()) - 2.0, float(data[-1].max()) + 2.0, 200)
    # A kernel estimate; its width by Silverman's rule for the data.
    width = 1.06 * data[-1].std() * len(data[-1]) ** -0.2
    density = lambda sample: mean_of_normals(x, sample, width)
    if n == 0:
        mean, sd = data.mean((1, 2)), data.std((1, 2))
        axes[0].fill_between(ts, mean - sd, mean + sd, color="#cccccc", label="data, mean ± sd")
        axes[0].plot(ts, mean, color=plotting.GREY, lw=4)
        axes[1].fill_between(x, density(data[-1]), color="#cccccc", label="data")
    mean, sd = np.mean(ys, (1, 2)), np.std(ys, (1, 2))
    axes[0].plot(ts, mean, label=label, **style)
    axes[0].plot(ts, np.stack([mean - sd, mean + sd], -1), ls="--", **style)
    axes[1].plot(x, density(ys[-1]), label=label, **style)
    axes[0].set(xlabel="t", ylabel="X", title="mean, and ± one sd (dashed)")
    axes[1].set(xlabel=f"X({T})", ylabel="density", title=f"marginal at t = {T}")
    for ax in axes:
        plotting.legend(ax)


def mean_of_normals(x: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """The density at x of the mean of normal laws about the centres (n, 1)."""
    return np.mean(np.exp(-0.5 * ((x - centres) / width) ** 2), 0) / (width * np.sqrt(2.0 * np.pi))

"""revode train stochastic-volatility: a neural SDE that learns to make series like those of a
stochastic-volatility model.

    data    dX = exp(V) dB,   dV = kappa (m - V) dt + xi dW,    B, W independent,   T = 1
    model   d(X, Z) = f(t, X, Z) dt + g(t, X, Z) o d(B, W)

V: logarithm of the volatility; f, g: networks with one hidden layer of 16 (LipSwish).

X is seen at 16 times, V and Z never. The loss is MMD^2 with Gaussian kernels on features of a path:
its values, the logarithms of its squared increments (how large, and how that goes on from one to
the next, which is what volatility is), and its quadratic variation, each scaled by the data.
'fresh' figures are on other noise and other data than those of the training.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..engine import value_and_grad
from ..methods import EES
from ..paths import BrownianTree
from .mmd import median_widths, mmd2
from .training import Experiment, Run

SEEN, INNER = 16, 2                      # observations, and steps of the model for each
KAPPA, MEAN, XI = 4.0, -0.3, 1.5
LEARNING_RATE = 0.01


def series(rng: np.random.Generator, paths: int, inner: int = 32) -> np.ndarray:
    """Data: X at 0 and the SEEN times, (SEEN + 1, paths); Euler-Maruyama with `inner` steps between two times."""
    h = 1.0 / (SEEN * inner)
    own = XI / np.sqrt(2.0 * KAPPA)                                 # V starts in its own law
    x, v = np.zeros(paths), MEAN + own * rng.standard_normal(paths)
    seen = [x]
    for n in range(1, SEEN * inner + 1):
        dB, dW = np.sqrt(h) * rng.standard_normal((2, paths))
        x, v = x + np.exp(v) * dB, v + KAPPA * (MEAN - v) * h + XI * dW
        if n % inner == 0:
            seen.append(x)
    return np.stack(seen)


def features(xs: Any, scale: tuple | None = None) -> tuple[Any, tuple]:
    """(paths, 2 SEEN + 1) features of paths (SEEN + 1, paths), and the mean and deviation that they were scaled with."""
    squares = np.square(xs[1:] - xs[:-1])
    raw = np.concatenate([xs[1:], np.log(squares + 1e-4), np.log(np.sum(squares, 0, keepdims=True))])
    raw = np.swapaxes(raw, 0, 1)
    scale = scale or (raw.mean(0), raw.std(0))
    return (raw - scale[0]) / scale[1], scale


def drift(t: Any, y: Any, params: Any) -> Any:
    return nn.mlp(params["f"], nn.with_time(t, y), nn.lipswish)


def diffusion(t: Any, y: Any, params: Any) -> Any:
    return nn.softplus(nn.mlp(params["g"], nn.with_time(t, y), nn.lipswish))


def traits(xs: np.ndarray) -> dict[str, float]:
    """What a table can say of paths (SEEN + 1, paths): spread, heavy tails, and volatility that lasts."""
    steps = np.diff(xs, axis=0)
    logs = np.log(steps ** 2 + 1e-4)
    logs = logs - logs.mean()
    return {"sd, of X(1)": float(np.std(xs[-1])), "kurtosis, of increments": float(np.mean(steps ** 4) / np.mean(steps ** 2) ** 2),
            "persistence, of volatility": float(np.mean(logs[1:] * logs[:-1]) / np.mean(logs ** 2))}


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adam(LEARNING_RATE)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(paths: int = 256, method: Any = None, seed: int = 0) -> Experiment:
    """The experiment with this many paths of the model, and of the data."""
    data, fresh = (series(np.random.default_rng([seed, i]), paths) for i in (1, 2))
    ts = np.linspace(0.0, 1.0, SEEN * INNER + 1)

    def start(seed: int) -> dict:
        rng = np.random.default_rng(seed)
        return {"f": nn.mlp_init(rng, (3, 16, 2)), "g": nn.mlp_init(rng, (3, 16, 2)), "z0": 0.5 * np.ones(1)}

    def simulate(params: Any, solve: Any, seed: int) -> tuple:
        # Where the hidden part begins differs from path to path: normal numbers times a learnt
        # deviation.
        hidden = np.random.default_rng([seed, 7]).standard_normal((paths, 1)) * params["z0"]
        y0, noise = np.concatenate([np.zeros((paths, 1)), hidden], -1), BrownianTree(seed, 0.0, 1.0, tol=0.5 / (SEEN * INNER))
        sol = solve(drift, y0, ts, params, diffusion=diffusion, noise=noise, save=slice(None, None, INNER))
        return sol.ys[..., 0], sol

    def distance(xs: Any, target: np.ndarray) -> Any:
        target, scale = features(target)
        return mmd2(features(xs, scale)[0], target, median_widths(target))

    def loss(params: Any, solve: Any) -> tuple:
        xs, sol = simulate(params, solve, seed)
        return distance(xs, data), sol

    def findings(params: Any, start: Any, solve: Any) -> dict:
        before, after = (np.asarray(simulate(at, solve, seed + 1)[0]) for at in (start, params))
        return {name: {"MMD^2, to fresh data": float(distance(xs, fresh)), **traits(shown)}
                for name, xs, shown in (("model, before", before, before), ("model, after", after, after), ("data", data, fresh))}

    def draw(axes: Any, params: Any, start: Any, solve: Any, n: int, label: str) -> None:
        far = 1.05 * float(np.max(np.abs(fresh[:, :20])))
        for ax, colour, name, xs in ((axes[0], plotting.GREY, "data", fresh),
                                     (axes[1], plotting.COLOURS[1], "model before", simulate(start, solve, seed + 1)[0]),
                                     (axes[2], plotting.COLOURS[0], "model after", simulate(params, solve, seed + 1)[0])):
            ax.plot(np.arange(SEEN + 1) / SEEN, np.asarray(xs)[:, :20], color=colour, lw=0.9)
            ax.set(title=f"{name}, 20 paths", xlabel="t", ylabel="X", ylim=(-far, far))

    return Experiment(
        name="stochastic-volatility",
        title=f"dX = e^V dB, dV = {KAPPA:g} ({MEAN} - V) dt + {XI:g} dW; X seen at {SEEN} times",
        words=(f"networks 3-16-2 (LipSwish), {SEEN * INNER} steps; Adam, learning rate {LEARNING_RATE}",
               f"{paths} model paths on one fixed noise, {paths} of the data; 'fresh': others than in training"),
        loss=loss, train=train, start=start, method=method or EES(6), iterations=300, shared=True,
        findings=findings, draw=draw, panels=3,
        shows="Twenty paths of the data, of the model before training, and after it.",
        notes=("Persistence: correlation of neighbouring log squared increments. Kurtosis 3 and persistence 0 are Brownian motion.",))

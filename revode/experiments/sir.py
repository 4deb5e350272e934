"""An epidemic: the two constants of a known equation, learnt from noisy counts of the infected
alone.

    s' = -b s i,    i' = b s i - k i,    r' = k i        fractions of the population; b, k per day

Nothing is a network here: the field has the form of the system, and params are the constants
themselves. The numbers are like those of an influenza in a boarding school: 3 ill of 763 on the
first day, all over after two weeks.
Source: Kermack & McKendrick 1927; Murray, Mathematical Biology I, section 10.2 (the school).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn, optim, plotting
from ..engine import value_and_grad
from ..methods import Coupled
from .data import grid_words, simulated, trajectory
from .training import Experiment, Run

STEPS = 56                 # of a quarter of a day
END = 14.0                 # days
COUNTS = 28                # the infected are counted so many times, equally spaced, with noise
NOISE = 0.02
FINE = 0.05                # days, the steps of the true solution: dopri5 is then within 1e-9 of it
TRUTH = {"b": 1.66, "k": 0.44}
START = (760 / 763, 3 / 763, 0.0)


def epidemic(t: Any, y: Any, params: Any) -> Any:
    """y (..., 3) holds s, i, r."""
    caught, healed = params["b"] * y[..., 0] * y[..., 1], params["k"] * y[..., 1]
    return np.stack([-caught, caught - healed, healed], axis=-1)


def train(run: Run) -> None:
    """The training loop."""
    optimiser = optim.adam(3e-2)
    for params, state in run.steps(optimiser.init):
        (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
        params, state = optimiser.update(params, grads, state)
        run.record(value, sol, params, state)


def experiment(steps: int = STEPS, dtype: str = "float64", method: Any = None) -> Experiment:
    """The experiment on a grid of this many equal steps."""
    ts = np.linspace(0.0, END, steps + 1)
    spread = np.linspace(0, steps, min(COUNTS, steps) + 1)
    seen = np.unique(np.round(spread).astype(int))[1:]               # grid points
    truth = lambda t, y, params: epidemic(t, y, TRUTH)
    target = simulated(truth, START, ts, NOISE, fine=FINE)[seen, 1].astype(dtype)

    def start(seed: int) -> dict:
        rng = np.random.default_rng(seed)
        return {"b": np.asarray(rng.uniform(0.8, 2.5), dtype), "k": np.asarray(rng.uniform(0.2, 0.7), dtype)}

    def loss(params: Any, solve: Any) -> tuple:
        sol = solve(epidemic, np.array(START, dtype), ts, params)
        return nn.mse(sol.ys[seen, 1], target), sol

    def findings(params: Any, start: Any, solve: Any) -> dict:
        """The constants, and their standard errors by Gauss & Newton: s^2 (J^T J)^-1, J by central differences."""
        infected = lambda at: np.asarray(loss(at, solve)[1].ys[seen, 1], np.float64)
        step = np.asarray(1e-2 if dtype == "float32" else 1e-4, dtype)       # about eps^(1/3)
        J = np.stack([infected({**params, n: params[n] + step}) - infected({**params, n: params[n] - step}) for n in TRUTH],
                     axis=-1) / (2 * float(step))
        variance = np.sum((infected(params) - target) ** 2) / max(len(seen) - len(TRUTH), 1)
        errors = np.sqrt(np.diag(variance * np.linalg.pinv(J.T @ J)))
        return {f"{n}, 1/day": {"found": float(params[n]), "standard error": float(e), "truth": TRUTH[n]}
                for n, e in zip(TRUTH, errors, strict=True)}

    def draw(axes: Any, params: Any, start: Any, solve: Any, n: int, label: str) -> None:
        ys, exact = loss(params, solve)[1].ys, trajectory(truth, np.array(START), ts, FINE)
        names = "susceptible", "infected", "recovered"
        plotting.components(ts, exact, names, lambda *at: ys, "t, days", "truth")(axes, params, start, solve, n, label)
        axes[0].plot(ts[seen], target, "o", ms=4, color="#000000", label="counts")
        axes[0].set(ylabel="fraction of the population", title="fit against truth")
        plotting.legend(axes[0])

    return Experiment(
        name="sir",
        title=f"the constants of an epidemic from counts of the infected, t in [0, {END:g}] days",
        words=("the true equations with unknown b and k, Adam, learning rate 3e-2, MSE of the infected",
               f"data: simulated, b = {TRUTH['b']}, k = {TRUTH['k']}; {len(seen)} counts with normal noise (standard deviation "
               f"{NOISE:g}; data seed 0)", grid_words(ts, dtype)),
        # lam = exp(-c h) with c just above k: the infected vanish at a rate of nearly k.
        loss=loss, train=train, start=start, method=method or Coupled("rk4", round(float(np.exp(-7 / steps)), 6)), iterations=120,
        findings=findings, draw=draw,
        shows="Susceptible, infected and recovered against days, fit and truth, with the noisy counts.")

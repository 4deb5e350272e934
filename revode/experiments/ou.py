"""revode train ou: a neural SDE fitted to Ornstein-Uhlenbeck paths, by five methods with 120 field evaluations a solve.

    dX = (mu t - theta X) dt + sigma dW,  X(0) = 0,  theta = 0.2, mu = 0.1, sigma = 2, T = 10, seen at t = 0, 1, ..., 10
    model   dX = f(t, X) dt + g o dW,     f and g networks with one hidden layer of 32 (LipSwish)

loss = mean squared error of the marginals' means and standard deviations, over sigma^2, + MMD^2 of the ten observed values.
Every method sees the same Brownian path (a tree). g reads t alone by default (additive noise, as in the data), since Coupled Euler
converges for no other; --diffusion state lets g read (t, X) and leaves Coupled Euler out.
The data are drawn from the exact transition law. Source of the problem: Shmelev & Salvi 2025.
"""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import nn, optim
from ..methods import EES25, EES27, Coupled, ReversibleHeun
from ..paths import BrownianTree
from . import fits, tables
from .commands import spoken_warnings
from .engines import AUTO, Engine

THETA, MU, SIGMA, T = 0.2, 0.1, 2.0, 10
METHODS = {"reversible Heun": (ReversibleHeun(), 12), "EES(2,5)": (EES25(), 4), "EES(2,7)": (EES27(), 3),
           "Coupled Euler": (Coupled("euler"), 6), "Coupled midpoint": (Coupled("midpoint"), 3)}     # and steps for each unit
LEARNING_RATE = 0.02


def add_options(parser: Any) -> None:
    fits.common_options(parser, iterations=120)
    parser.add_argument("--paths", type=fits.whole(2), default=64, metavar="B", help="of the model in each loss; default 64")
    parser.add_argument("--data-paths", type=fits.whole(2), default=256, metavar="B", help="of the data; default 256")
    parser.add_argument("--diffusion", choices=("time", "state"), default="time", help="what g reads: t, or t and X")


def sample(rng: np.random.Generator, paths: int) -> np.ndarray:
    """Exact paths at t = 0, 1, ..., T: (T + 1, paths, 1)."""
    decay = np.exp(-THETA)
    sd = SIGMA * np.sqrt((1.0 - decay ** 2) / (2.0 * THETA))
    particular = lambda t: MU * (t / THETA - 1.0 / THETA ** 2)           # solves m' = mu t - theta m
    x = [np.zeros((paths, 1))]
    for t in range(T):
        x.append(particular(t + 1) + decay * (x[-1] - particular(t)) + sd * rng.standard_normal((paths, 1)))
    return np.stack(x)


def drift(t: Any, x: Any, params: Any) -> Any:
    return nn.mlp(params["f"], nn.with_time(t / T, x), nn.lipswish)


def diffusion(t: Any, x: Any, params: Any) -> Any:
    """Positive, so that its sign, which the law of the paths does not show, is settled. It reads X if it has the inputs."""
    seen = nn.with_time(t / T, x)[..., :params["g"][0]["W"].shape[0]]
    return nn.softplus(nn.mlp(params["g"], seen, nn.lipswish))


def initial(seed: int, reads: str) -> dict:
    rng = np.random.default_rng(seed)
    return {"f": nn.mlp_init(rng, (2, 32, 1)), "g": nn.mlp_init(rng, (1 if reads == "time" else 2, 32, 1))}


def distances(ys: Any, data: np.ndarray) -> tuple[Any, Any]:
    """The mean squared error of means and standard deviations over sigma^2, and MMD^2; ys and data (T + 1, paths, 1)."""
    ys, data = ys[1:, :, 0], data[1:, :, 0]
    error = np.square(np.mean(ys, 1) - data.mean(1)) + np.square(np.std(ys, 1) - data.std(1))
    features = lambda x: np.swapaxes((x - data.mean(1)[:, None]) / data.std(1)[:, None], 0, 1)
    scaled = features(data)
    return np.mean(error) / SIGMA ** 2, fits.mmd2(features(ys), scaled, fits.median_widths(scaled))


def problem(method: Any, per_unit: int, paths: int, data: np.ndarray, seed: int, engine: Engine = AUTO) -> Callable:
    """gradient mode -> (params -> (loss, Solution)) with the Brownian path of this seed."""
    ts, noise = np.linspace(0.0, T, T * per_unit + 1), BrownianTree(seed, 0.0, T, tol=1.0 / 12.0)

    def modes(gradient: Any) -> Callable:
        def objective(params: Any) -> tuple:
            sol = engine.solve(drift, np.zeros((paths, 1)), ts, params, method=method, gradient=gradient, diffusion=diffusion,
                               noise=noise, save=slice(None, None, per_unit))
            return sum(distances(sol.ys, data)), sol

        return objective

    return modes


def main(args: Namespace) -> int:
    this, engine = fits.introduce(
        args, f"dX = ({MU} t - {THETA} X) dt + {SIGMA:g} dW on [0, {T}], {args.data_paths} paths seen at {T + 1} times",
        f"networks {'2' if args.diffusion == 'state' else '1'}-32-1 (g) and 2-32-1 (f), LipSwish; Adam, learning rate "
        f"{LEARNING_RATE}; {args.paths} model paths on one fixed noise",
        f"{args.iterations} iterations a method, seed {args.seed}; 'fresh': other noise and other data than in training")
    chosen = {name: pair for name, pair in METHODS.items() if args.diffusion == "time" or name != "Coupled Euler"}
    data, fresh = (sample(np.random.default_rng([args.seed, i]), args.data_paths) for i in (1, 2))
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    runs, found, problems = {}, {}, {}
    with spoken_warnings(notes):
        for name, (method, per_unit) in chosen.items():
            modes = problems[name] = problem(method, per_unit, args.paths, data, args.seed, engine)
            runs[name] = run = fits.fit(modes, initial(args.seed, args.diffusion), optim.adam(LEARNING_RATE), args.iterations, name)
            check = fits.against_direct(modes, run.params)
            found[name] = ys = problem(method, per_unit, args.data_paths, fresh, args.seed + 1, engine)(None)(run.params)[1].ys
            moments, mmd = distances(ys, fresh)
            rows.append({"method": name, "dt": 1.0 / per_unit, "evaluations": check.nfe, "loss_before": run.losses[0],
                         "loss_after": run.loss, "fresh_moments": float(moments), "fresh_mmd2": float(mmd),
                         "gradient_error": check.error, "roundtrip": check.roundtrip and check.roundtrip.absolute,
                         "warnings": check.warned, "losses": run.losses, "stopped": run.stopped, "backend": check.backend})
        times = fits.timed_in_turns(problems, {name: run.params for name, run in runs.items()})
        for row in rows:
            row["seconds_per_iteration"] = times[row["method"]]
    floor = [float(d) for d in distances(data, fresh)]
    table = tables.table(
        ("method", "dt", "field\nevaluations", "loss\nbefore", "loss\nafter", "fresh\nmoments", "fresh\nMMD^2",
         "gradient error\nagainst direct", "round trip\nabsolute", "warned\nat the end", "\nbackend", "time per\niteration"),
        [(r["method"], f"1/{METHODS[r['method']][1]}", str(r["evaluations"]), f"{r['loss_before']:.4f}", f"{r['loss_after']:.4f}",
          f"{r['fresh_moments']:.4f}", f"{r['fresh_mmd2']:.4f}", tables.small(r["gradient_error"]), tables.small(r["roundtrip"]),
          "yes" if r["warnings"] else "no", r["backend"], tables.seconds(r["seconds_per_iteration"])) for r in rows])
    notes.append(f"Two samples of {args.data_paths} data paths differ by moments {floor[0]:.4f}, MMD^2 {floor[1]:.4f}: no fit can be "
                 "told from the truth below that.")
    if args.diffusion == "time":
        notes.append("g reads t alone (additive noise), for which Coupled Euler converges too.")
    return fits.finish(args, this, table, rows, notes, lambda: plot(found, runs, fresh), floor=floor)


def plot(found: dict, runs: dict, data: np.ndarray) -> Any:
    """Marginals of the methods over those of fresh data: mean and standard deviation, the law at T, the losses."""
    from ..plotting import COLOURS, loss_curves
    figure, axes = fits.canvas(3)
    ts = np.arange(T + 1)
    mean, sd = data.mean((1, 2)), data.std((1, 2))
    axes[0].fill_between(ts, mean - sd, mean + sd, color="#cccccc", label="data, mean ± sd")
    axes[0].plot(ts, mean, color="#777777", lw=3)
    bins = np.linspace(float(data[-1].min()), float(data[-1].max()), 25)
    axes[1].hist(data[-1, :, 0], bins, density=True, color="#cccccc", label="data")
    for colour, (name, ys) in zip(COLOURS, found.items(), strict=False):
        mean, sd = np.mean(ys, (1, 2)), np.std(ys, (1, 2))
        axes[0].plot(ts, mean, color=colour, lw=1.2, label=name)
        axes[0].plot(ts, mean - sd, color=colour, lw=0.8, ls="--")
        axes[0].plot(ts, mean + sd, color=colour, lw=0.8, ls="--")
        axes[1].hist(ys[-1, :, 0], bins, density=True, histtype="step", color=colour, label=name)
    axes[0].set(xlabel="t", ylabel="X", title="marginals: mean, and ± one sd (dashed)")
    axes[1].set(xlabel=f"X({T})", ylabel="density", title=f"marginal at t = {T}")
    for ax in axes[:2]:
        ax.legend(frameon=False, fontsize=7)
    loss_curves(axes[2], {name: run.losses for name, run in runs.items()})
    axes[2].legend(frameon=False, fontsize=7)
    return figure

"""revode train stochastic-volatility: a neural SDE that learns to make series like those of a stochastic-volatility model.

    data    dX = exp(V) dB,   dV = kappa (m - V) dt + xi dW      V: logarithm of the volatility; B, W independent; T = 1
    model   d(X, Z) = f(t, X, Z) dt + g(t, X, Z) o d(B, W)        f, g networks with one hidden layer of 16 (LipSwish)

X is seen at 16 times, V and Z never. The loss is MMD^2 with Gaussian kernels on features of a path: its values, the logarithms
of its squared increments (how large, and how that goes on from one to the next, which is what volatility is), and its quadratic
variation, each scaled by the data. 'fresh' figures are on other noise and other data than those of the training.
"""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import nn, optim
from ..methods import EES
from ..paths import Brownian
from . import fits, tables
from .commands import spoken_warnings
from .engines import AUTO, Engine

SEEN, INNER = 16, 2                      # observations, and steps of the model for each
KAPPA, MEAN, XI = 4.0, -0.3, 1.5
LEARNING_RATE = 0.01
METHOD = EES(6)


def add_options(parser: Any) -> None:
    fits.common_options(parser, iterations=150)
    fits.method_option(parser, METHOD)
    parser.add_argument("--paths", type=fits.whole(2), default=256, metavar="B", help="of model and data each; default 256")


def series(rng: np.random.Generator, paths: int, inner: int = 32) -> np.ndarray:
    """Data: X at 0 and the SEEN times, (SEEN + 1, paths); Euler-Maruyama with `inner` steps between two times."""
    h = 1.0 / (SEEN * inner)
    x, v = np.zeros(paths), MEAN + XI / np.sqrt(2.0 * KAPPA) * rng.standard_normal(paths)       # V starts in its own law
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


def initial(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {"f": nn.mlp_init(rng, (3, 16, 2)), "g": nn.mlp_init(rng, (3, 16, 2)), "z0": 0.5 * np.ones(1)}


def problem(paths: int, data: np.ndarray, seed: int, method: Any = METHOD, engine: Engine = AUTO) -> Callable:
    """gradient mode -> (params -> (MMD^2, Solution)) with the noise of this seed; X is ys[..., 0]."""
    ts = np.linspace(0.0, 1.0, SEEN * INNER + 1)
    target, scale = features(data)
    widths = fits.median_widths(target)
    # Where the hidden part begins differs from path to path: normal numbers times a learnt deviation.
    start = np.random.default_rng([seed, 7]).standard_normal((paths, 1))

    def modes(gradient: Any) -> Callable:
        def objective(params: Any) -> tuple:
            y0 = np.concatenate([np.zeros((paths, 1)), start * params["z0"]], -1)
            sol = engine.solve(drift, y0, ts, params, method=method, gradient=gradient, diffusion=diffusion,
                               noise=Brownian(seed), save=slice(None, None, INNER))
            return fits.mmd2(features(sol.ys[..., 0], scale)[0], target, widths), sol

        return objective

    return modes


def traits(xs: np.ndarray) -> dict[str, float]:
    """What a table can say of paths (SEEN + 1, paths): spread, heavy tails, and volatility that lasts."""
    steps = np.diff(xs, axis=0)
    logs = np.log(steps ** 2 + 1e-4)
    logs = logs - logs.mean()
    return {"sd_at_end": float(np.std(xs[-1])), "kurtosis": float(np.mean(steps ** 4) / np.mean(steps ** 2) ** 2),
            "persistence": float(np.mean(logs[1:] * logs[:-1]) / np.mean(logs ** 2))}


def main(args: Namespace) -> int:
    this, engine = fits.introduce(
        args, f"dX = e^V dB, dV = {KAPPA:g} ({MEAN} - V) dt + {XI:g} dW; X seen at {SEEN} times of [0, 1]",
        f"networks 3-16-2 (LipSwish), {args.method!r}, {SEEN * INNER} steps; Adam, learning rate {LEARNING_RATE}",
        f"{args.paths} model paths on one fixed noise, {args.paths} of the data", f"{args.iterations} iterations, seed {args.seed}")
    data, fresh = (series(np.random.default_rng([args.seed, i]), args.paths) for i in (1, 2))
    modes, other = (problem(args.paths, xs, args.seed + i, args.method, engine) for i, xs in enumerate((data, fresh)))
    notes: list[str] = []
    with spoken_warnings(notes):
        run = fits.fit(modes, initial(args.seed), optim.adam(LEARNING_RATE), args.iterations, "stochastic-volatility")
        check = fits.against_direct(modes, run.params)
        rows: list[dict[str, Any]] = []
        paths = {}
        for name, params, loss in (("model before", initial(args.seed), run.losses[0]), ("model after", run.params, run.loss)):
            mmd, sol = other(None)(params)
            paths[name] = np.asarray(sol.ys[..., 0])
            rows.append({"paths": name, "loss": loss, "fresh_mmd2": float(mmd), **traits(paths[name])})
    target, scale = features(fresh)
    floor = float(fits.mmd2(features(data, scale)[0], target, fits.median_widths(target)))
    rows.append({"paths": "data against fresh data", "loss": None, "fresh_mmd2": floor, **traits(fresh)})
    table = tables.table(("", "MMD^2\nin training", "MMD^2\nfresh", "sd of\nX(1)", "kurtosis of\nincrements",
                          "persistence of\nvolatility"),
                         [(r["paths"], "-" if r["loss"] is None else f"{r['loss']:.4f}", f"{r['fresh_mmd2']:.4f}",
                           f"{r['sd_at_end']:.3f}", f"{r['kurtosis']:.2f}", f"{r['persistence']:.3f}") for r in rows])
    back = check.roundtrip.absolute if check.roundtrip else None
    notes += [f"Gradient error against Direct on the same noise {tables.small(check.error)}, round trip {tables.small(back)}, "
              f"{tables.seconds(run.median)} per iteration ({run.backend}).",
              "Persistence: correlation of neighbouring log squared increments. Kurtosis 3 and persistence 0 are Brownian motion."]
    return fits.finish(args, this, table, rows, notes, lambda: plot(paths, fresh, run.losses), gradient_error=check.error,
                       roundtrip=back, losses=run.losses, seconds_per_iteration=run.median, stopped=run.stopped)


def plot(paths: dict[str, np.ndarray], data: np.ndarray, losses: list[float]) -> Any:
    """Twenty paths of each, on one scale, and the loss."""
    from ..plotting import COLOURS, loss_curves
    figure, axes = fits.canvas(4, width=3.8)
    ts, far = np.arange(SEEN + 1) / SEEN, 1.05 * float(np.max(np.abs(data[:, :20])))
    shown = ("#666666", "data", data), *((COLOURS[1 - i], *item) for i, item in enumerate(paths.items()))
    for ax, (colour, name, xs) in zip(axes, shown, strict=False):
        ax.plot(ts, xs[:, :20], color=colour, lw=0.8)
        ax.set(title=name, xlabel="t", ylim=(-far, far))
    axes[0].set_ylabel("X")
    loss_curves(axes[3], {"MMD$^2$": losses})
    return figure

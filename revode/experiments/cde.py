"""revode train cde: which way round? A neural CDE classifies spirals seen at irregular times.

    dz = f(z) dX,   z(0) = W (X(0), 1),   class by the sign of v . z(1) + c;      X: time and both coordinates, from the data

Spirals begin anywhere and grow or shrink at any rate; half of them turn clockwise, with noise on every observation.
The grid of times is uneven, and a share of the observations is dropped, each coordinate on its own (NaN). The control
passes through what is left. Held-out spirals are of the same kind.
Source of the model: Kidger, Morrill, Foster & Lyons 2020.
"""
from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import nn, optim
from ..methods import EES
from ..paths import HermiteCubic, LinearPath
from . import fits, tables
from .commands import spoken_warnings
from .engines import AUTO, Engine

LENGTH, INNER = 20, 2                     # times of the data, and steps of the solve from one to the next
HIDDEN, WIDTH, CHANNELS = 6, 24, 3
LEARNING_RATE, NOISE = 0.02, 0.15
CONTROLS = {"linear": LinearPath, "hermite": HermiteCubic}
METHOD = EES(6)


def add_options(parser: Any) -> None:
    fits.common_options(parser, iterations=30)
    fits.method_option(parser, METHOD)
    parser.add_argument("--series", type=fits.whole(2), default=64, metavar="B", help="to train on; twice as many are held out; "
                        "default 64")
    parser.add_argument("--dropped", type=share, nargs="+", default=[0.3, 0.8], metavar="P",
                        help="shares of observations that are missing; default 0.3 0.8")
    parser.add_argument("--control", choices=sorted(CONTROLS), nargs="+", default=list(CONTROLS), help="default: both")


def share(text: str) -> float:
    try:
        p = float(text)
    except ValueError:
        p = -1.0
    if not 0.0 <= p < 1.0:
        raise ArgumentTypeError(f"{text!r} is not a share from 0 to below 1")
    return p


def spirals(rng: np.random.Generator, count: int, dropped: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(times (LENGTH,), values (count, LENGTH, 2) with NaN where nothing was observed, labels (count,): 1 clockwise)."""
    # One grid for training and test; no two times fall together, where noise would make the slopes of a cubic enormous.
    shift = np.random.default_rng(0).uniform(-0.3, 0.3, LENGTH - 2)
    times = np.concatenate([[0.0], np.arange(1, LENGTH - 1) + shift, [LENGTH - 1.0]]) / (LENGTH - 1.0)
    labels = np.arange(count) % 2
    turn = rng.uniform(1.0, 4.0, (count, 1)) * np.where(labels, -1.0, 1.0)[:, None]
    angle = rng.uniform(0.0, 2.0 * np.pi, (count, 1)) + turn * times
    radius = rng.uniform(0.5, 1.0, (count, 1)) * np.exp(rng.uniform(-0.7, 0.7, (count, 1)) * times)
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1) + NOISE * rng.standard_normal((count, LENGTH, 2))
    missing = rng.uniform(size=values.shape) < dropped
    missing[:, rng.integers(LENGTH)] = False                            # one time that all of them keep
    return times, np.where(missing, np.nan, values), labels


def field(t: Any, z: Any, params: Any) -> Any:
    """(..., HIDDEN, CHANNELS)."""
    return np.reshape(np.tanh(nn.mlp(params["f"], z)), (*z.shape, CHANNELS))


def initial(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {"f": nn.mlp_init(rng, (HIDDEN, WIDTH, HIDDEN * CHANNELS)), "start": nn.mlp_init(rng, (CHANNELS, HIDDEN)),
            "end": nn.mlp_init(rng, (HIDDEN, 1))}


def logits(control: Any, params: Any, gradient: Any = None, method: Any = METHOD, engine: Engine = AUTO) -> tuple[Any, Any]:
    """One number for each series, positive for clockwise, and the Solution."""
    z0 = nn.mlp(params["start"], control.evaluate(0.0))
    knots = np.arange(len(control.times))
    grid = np.interp(np.arange(INNER * knots[-1] + 1) / INNER, knots, control.times)
    sol = engine.solve(field, z0, grid, params, method=method, gradient=gradient, control=control, save=[-1])
    return nn.mlp(params["end"], sol.y1)[..., 0], sol


def problem(control: Any, labels: np.ndarray, method: Any = METHOD, engine: Engine = AUTO) -> Callable:
    """gradient mode -> (params -> (cross-entropy, Solution))."""
    signs = 1.0 - 2.0 * labels

    def modes(gradient: Any) -> Callable:
        def objective(params: Any) -> tuple:
            scores, sol = logits(control, params, gradient, method, engine)
            return np.mean(nn.softplus(signs * scores)), sol

        return objective

    return modes


def accuracy(control: Any, labels: np.ndarray, params: Any, method: Any) -> float:
    return float(np.mean((logits(control, params, method=method)[0] > 0) == labels))


def main(args: Namespace) -> int:
    this, engine = fits.introduce(
        args, f"spirals that turn left or right, {args.series} to train on, {2 * args.series} held out",
        f"{LENGTH} uneven times, {INNER} steps from one to the next; dz = f(z) dX, MLP {HIDDEN}-{WIDTH}-{HIDDEN * CHANNELS} "
        f"(tanh), {args.method!r}",
        f"{args.iterations} iterations a row, Adam, learning rate {LEARNING_RATE}, seed {args.seed}")
    rows, runs, problems = [], {}, {}
    notes: list[str] = []
    examples = None
    with spoken_warnings(notes):
        for dropped in args.dropped:
            times, values, labels = spirals(np.random.default_rng([args.seed, 1]), args.series, dropped)
            _, others, truth = spirals(np.random.default_rng([args.seed, 2]), 2 * args.series, dropped)
            for kind in args.control:
                make, name = CONTROLS[kind], f"{kind}, {dropped:.0%} dropped"
                control, held_out = make(times, values, time=True), make(times, others, time=True)
                modes = problems[name] = problem(control, labels, args.method, engine)
                runs[name] = run = fits.fit(modes, initial(args.seed), optim.adam(LEARNING_RATE), args.iterations, name)
                check = fits.against_direct(modes, run.params)
                rows.append({"control": kind, "dropped": dropped, "loss_before": run.losses[0], "loss_after": run.loss,
                             "accuracy_before": accuracy(held_out, truth, initial(args.seed), args.method),
                             "accuracy_training": accuracy(control, labels, run.params, args.method),
                             "accuracy": accuracy(held_out, truth, run.params, args.method), "gradient_error": check.error,
                             "roundtrip": check.roundtrip and check.roundtrip.absolute, "losses": run.losses, "stopped": run.stopped,
                             "backend": check.backend})
                examples = (times, others[:2], held_out)                # of the last, where the most is missing
        seconds = fits.timed_in_turns(problems, {name: run.params for name, run in runs.items()})
    for row, name in zip(rows, runs, strict=True):
        row["seconds_per_iteration"] = seconds[name]
    table = tables.table(
        ("control", "dropped", "loss\nbefore", "loss\nafter", "accuracy\nbefore", "accuracy\ntraining", "accuracy\nheld out",
         "gradient error\nagainst direct", "round trip\nabsolute", "\nbackend", "time per\niteration"),
        [(r["control"], f"{r['dropped']:.0%}", f"{r['loss_before']:.3f}", f"{r['loss_after']:.3f}", f"{r['accuracy_before']:.1%}",
          f"{r['accuracy_training']:.1%}", f"{r['accuracy']:.1%}", tables.small(r["gradient_error"]), tables.small(r["roundtrip"]),
          r["backend"], tables.seconds(r["seconds_per_iteration"])) for r in rows])
    return fits.finish(args, this, table, rows, notes, lambda: plot(examples, runs))


def plot(examples: Any, runs: dict) -> Any:
    """One spiral of each class with its control, and the losses."""
    from ..plotting import COLOURS, loss_curves
    figure, axes = fits.canvas(3)
    times, values, control = examples
    fine = np.linspace(0.0, 1.0, 400)
    for i, name in enumerate(("anticlockwise", "clockwise")):
        for channel, label in enumerate("xy"):
            axes[i].plot(fine, control.evaluate(fine)[:, i, 1 + channel], color=COLOURS[channel], lw=1.2, label=f"{label}, control")
            axes[i].plot(times, values[i, :, channel], "o", ms=4, color=COLOURS[channel], label=f"{label}, seen")
        axes[i].set(title=f"{name} ({type(control).__name__})", xlabel="t")
    axes[0].legend(frameon=False, fontsize=7)
    loss_curves(axes[2], {name: run.losses for name, run in runs.items()})
    axes[2].legend(frameon=False, fontsize=7)
    return figure

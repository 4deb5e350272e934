"""revode train flow: a continuous normalising flow that learns the density of two moons.

    x' = f(t, x),   l' = -tr df/dx,   from data (t = 0) to normal numbers (t = 1):   log p(x(0)) = log N(x(1)) - l(1)

The state is a tree {"x": (..., 2), "l": (...)}. The trace is exact: the field pulls each unit vector back through f and takes
its own component, so that a gradient of the loss needs derivatives of vjps. Memory is that of one gradient, for two numbers of
steps. Sources: Chen et al. 2018, section 4; Grathwohl et al. 2019 (FFJORD).
"""
from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import nn, optim
from ..engine.derivatives import value_and_grad, vjp
from ..gradients import Direct, Reversible
from ..methods import Coupled
from ..watch import RevodeWarning
from . import fits, tables
from .commands import spoken_warnings
from .engines import AUTO, EAGER, Engine
from .training import peak_memory

METHOD, LEARNING_RATE, WIDTH = Coupled("midpoint", lam=0.99), 0.02, 32
BOX = (-2.2, 2.2)                        # of the picture, along both axes
TIMES = 4                                # more steps, for the second figure of memory


def add_options(parser: Any) -> None:
    fits.common_options(parser, iterations=300)
    fits.method_option(parser, METHOD)
    parser.add_argument("--points", type=fits.whole(2), default=256, metavar="B", help="of the data; default 256")
    parser.add_argument("--steps", type=fits.whole(1), default=10, metavar="N", help="from t = 0 to 1; default 10")


def moons(rng: np.random.Generator, points: int) -> np.ndarray:
    """Two half circles of radius 1 that reach into each other, with noise of deviation 0.08, around 0; (points, 2)."""
    angle, side = np.pi * rng.uniform(size=points), np.where(np.arange(points) % 2, -1.0, 1.0)
    x = np.stack([side * np.cos(angle) - 0.5 * side, side * np.sin(angle) - 0.25 * side], -1)
    return x + 0.08 * rng.standard_normal((points, 2))


def velocity(t: Any, x: Any, params: Any) -> Any:
    return nn.mlp(params, nn.with_time(t, x))


def field(t: Any, state: Any, params: Any) -> Any:
    """(f, -trace of df/dx) at {"x", "l"}."""
    value, pull = vjp(lambda x: velocity(t, x, params), state["x"])
    trace = sum(pull(np.broadcast_to(unit, value.shape))[0][..., i] for i, unit in enumerate(np.eye(2)))
    return {"x": value, "l": -trace}


def log_density(x: np.ndarray, params: Any, steps: int, gradient: Any = None, method: Any = METHOD,
                engine: Engine = AUTO) -> tuple[Any, Any]:
    """log p of points (..., 2), and the Solution."""
    start = {"x": x, "l": np.zeros(x.shape[:-1])}
    sol = engine.solve(field, start, np.linspace(0.0, 1.0, steps + 1), params, method=method, gradient=gradient, save=[-1])
    return -0.5 * np.sum(sol.y1["x"] ** 2, -1) - np.log(2.0 * np.pi) - sol.y1["l"], sol


def problem(points: np.ndarray, steps: int, method: Any = METHOD, engine: Engine = AUTO) -> Callable:
    """gradient mode -> (params -> (negative log-likelihood a point, in nats, Solution))."""
    def modes(gradient: Any) -> Callable:
        def objective(params: Any) -> tuple:
            logs, sol = log_density(points, params, steps, gradient, method, engine)
            return -np.mean(logs), sol

        return objective

    return modes


def picture(params: Any, steps: int, method: Any, pixels: int) -> np.ndarray:
    """The density on the middles of pixels x pixels squares of BOX, rows from below."""
    middles = BOX[0] + (BOX[1] - BOX[0]) * (np.arange(pixels) + 0.5) / pixels
    grid = np.stack(np.meshgrid(middles, middles), -1)
    return np.exp(log_density(grid.reshape(-1, 2), params, steps, method=method)[0]).reshape(pixels, pixels)


def main(args: Namespace) -> int:
    this, engine = fits.introduce(args, f"two moons, {args.points} points; x' = f(t, x), MLP 3-{WIDTH}-2 (tanh), exact trace",
                          f"{args.steps} steps, {args.method!r}; Adam, learning rate {LEARNING_RATE}, full batch",
                          f"{args.iterations} iterations, seed {args.seed}; 'fresh': points that were not trained on")
    data, fresh = (moons(np.random.default_rng([args.seed, i]), args.points) for i in (1, 2))
    params = nn.mlp_init(np.random.default_rng(args.seed), (3, WIDTH, 2))
    modes, other = (problem(points, args.steps, args.method, engine) for points in (data, fresh))
    notes: list[str] = []
    with spoken_warnings(notes):
        run = fits.fit(modes, params, optim.adam(LEARNING_RATE), args.iterations, "flow")
        likelihood = {name: (loss, float(other(None)(p)[0])) for name, loss, p in (
            ("before", run.losses[0], params), ("after", run.loss, run.params))}
        check = fits.against_direct(modes, run.params)
        density = picture(run.params, args.steps, args.method, 64)
    mass = float(density.mean() * (BOX[1] - BOX[0]) ** 2)
    # On the tape, or the memory of a compiled reverse sweep would stand beside that of a tape.
    sizes = {steps: problem(data, steps, args.method, EAGER) for steps in (args.steps, TIMES * args.steps)}
    rows: list[dict] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RevodeWarning)            # those of the training have been told
        for name, mode in (("reversible", Reversible()), ("direct", Direct())):
            peaks = {n: peak_memory(lambda: value_and_grad(m(mode), has_aux=True)(run.params))[0] for n, m in sizes.items()}
            rows.append({"gradient": name, "gradient_error": check.error if name == "reversible" else 0.0,
                         "roundtrip": check.roundtrip.absolute if name == "reversible" and check.roundtrip else None,
                         "peak_bytes": peaks})
    table = tables.table(("negative log-likelihood, nats", "training", "fresh"),
                         [(name, f"{pair[0]:.3f}", f"{pair[1]:.3f}") for name, pair in likelihood.items()])
    table += "\n\n" + tables.table(
        ("gradient", "error against\ndirect", "round trip\nabsolute", *(f"peak memory\n{n} steps" for n in sizes)),
        [(r["gradient"], tables.small(r["gradient_error"]), tables.small(r["roundtrip"]), *map(tables.size, r["peak_bytes"].values()))
         for r in rows])
    notes.append(f"The density sums to {mass:.3f} over the square [{BOX[0]}, {BOX[1]}]^2; {tables.seconds(run.median)} per iteration "
                 f"({run.backend}). Memory: both modes on the tape.")
    draw = lambda: plot(data, picture(run.params, args.steps, args.method, 120), run.losses)
    return fits.finish(args, this, table, rows, notes, draw, likelihood=likelihood, mass=mass, losses=run.losses,
                       seconds_per_iteration=run.median, stopped=run.stopped)


def plot(data: np.ndarray, density: np.ndarray, losses: list[float]) -> Any:
    """The data, the learnt density, and the loss."""
    figure, axes = fits.canvas(3)
    axes[0].plot(*data.T, ".", ms=3, color="#333333")
    axes[0].set(title="data", xlim=BOX, ylim=BOX, aspect="equal")
    shown = axes[1].imshow(density, origin="lower", extent=(*BOX, *BOX), cmap="magma")
    axes[1].set(title="learnt density")
    figure.colorbar(shown, ax=axes[1], shrink=0.8)
    axes[2].plot(losses, color="#0072B2", lw=1.3)
    axes[2].set(xlabel="iteration", ylabel="nats a point", title="negative log-likelihood")
    return figure

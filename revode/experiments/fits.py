"""What the experiments with noise, flows and controls share: their options, a fit, a distance of distributions, a report.

    MMD^2(P, Q) = E k(x, x') - 2 E k(x, y) + E k(y, y'),     k(x, y) = mean_w exp(-|x - y|^2 / (2 w^2))

over all pairs of two samples (the V-statistic: never negative, and about 1/n + 1/m where P = Q). Source: Gretton, Borgwardt,
Rasch, Schölkopf & Smola 2012, section 2.2.

COMMANDS names the module behind (command, experiment); each offers add_options(parser) and main(args) -> exit status.
"""
from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ..engine.derivatives import value_and_grad
from ..gradients import Direct, Reversible
from ..optim import Optimiser
from ..watch import RevodeWarning, RoundTrip
from . import engines, names
from .commands import SCHEMA, UserError, engine_of, finite, machine
from .engines import Engine
from .stability import write
from .training import Trained, relative_error, train

COMMANDS = {("train", "ou"): "ou", ("compare", "gbm"): "gbm", ("train", "stochastic-volatility"): "volatility",
            ("train", "flow"): "flow", ("train", "cde"): "cde"}


# The command line ----------------------------------------------------------------------------------------------------
def parse(argv: Sequence[str] | None = None) -> argparse.Namespace | None:
    """The arguments of one of COMMANDS, args.run(args) being the command; None where argv names another one."""
    words = list(sys.argv[1:] if argv is None else argv)
    if tuple(words[:2]) not in COMMANDS:
        return None
    module = importlib.import_module(f".{COMMANDS[words[0], words[1]]}", __package__)
    parser = argparse.ArgumentParser(prog=f"revode {words[0]} {words[1]}", description=module.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_options(parser)
    return parser.parse_args(words[2:], argparse.Namespace(command=words[0], experiment=words[1], run=module.main))


def names_of(command: str) -> list[str]:
    """The experiments of this command that are in COMMANDS."""
    return [name for first, name in COMMANDS if first == command]


def common_options(parser: Any, iterations: int | None = None) -> None:
    """The options that all of COMMANDS have."""
    if iterations is not None:
        parser.add_argument("--iterations", type=whole(1), default=iterations, metavar="N",
                            help=f"updates of each fit; default {iterations}")
    parser.add_argument("--seed", type=whole(0), default=0, help="of parameters, data and noise; default 0")
    parser.add_argument("--plot", metavar="OUT.png", help="draw what was found (needs matplotlib)")
    parser.add_argument("--json", metavar="OUT.json", help="write every figure")
    engines.add_options(parser)


def method_option(parser: Any, default: Any) -> None:
    """--method, by the names that `revode train` uses."""
    def convert(text: str) -> Any:
        try:
            return names.method(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parser.add_argument("--method", type=convert, default=default, metavar="M", help=f"such as ees:6, coupled:midpoint:0.9 or "
                        f"reversible-heun; default {default!r}")


def whole(least: int) -> Callable[[str], int]:
    """A converter for whole numbers of at least `least`."""
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return convert


def introduce(args: argparse.Namespace, *lines: str) -> tuple[dict, Engine]:
    """Refuse what would fail at the end, say what is about to be done, and on which machine; the machine and the engine."""
    engine = engine_of(args)
    for path in (args.plot, args.json):
        if path is not None and not Path(path).resolve().parent.is_dir():
            raise UserError(f"{path} cannot be written, because its folder does not exist; create it first")
    if args.plot is not None:
        import matplotlib  # noqa: F401
    this = machine()
    load = "" if this["load"] is None else f", load average {this['load']:.1f}"
    print("\n  ".join([f"{args.experiment}: {lines[0]}", *lines[1:],
                       f"backend: {engine}, for Reversible gradients and plain solves; eager for Direct",
                       f"{this['cpus']} CPUs{load}, {this['system']}, Python {this['python']}, NumPy {this['numpy']}"]),
          flush=True)
    return this, engine


def finish(args: argparse.Namespace, this: dict, table: str, rows: Sequence[dict], notes: Sequence[str], figure: Callable,
           **more: Any) -> int:
    """Print the table and the notes; write the figures and the picture that were asked for. The exit status."""
    print("\n" + table)
    for note in notes:
        print(textwrap.fill(note, 118, subsequent_indent="  "))
    settings = {name: repr(value) if name == "method" else value for name, value in vars(args).items()
                if name not in ("run", "plot", "json")}
    write(args, finite({"schema": SCHEMA, "command": f"{args.command} {args.experiment}", "settings": settings, "machine": this,
                        "rows": list(rows), "notes": list(notes), **more}), figure)
    return 0


# Fits and what they are measured with --------------------------------------------------------------------------------
class Fit(NamedTuple):
    """What train() needs. modes(gradient) is a function params -> (loss, Solution)."""
    modes: Callable
    optimiser: Optimiser
    method: Any = None

    def objective(self, method: Any, gradient: Any) -> Callable:
        return self.modes(gradient)


def fit(modes: Callable, params: Any, optimiser: Optimiser, iterations: int, name: str | None) -> Trained:
    """Train with Reversible gradients from params, with a progress bar of this name."""
    return train(cast(Any, Fit(modes, optimiser)), Reversible(), iterations=iterations, params=params, progress=name)


class Check(NamedTuple):
    """One gradient beside the Direct one."""
    error: float                    # |g - g_direct| / |g_direct|
    roundtrip: RoundTrip | None
    nfe: int                        # evaluations of the forward solve
    backend: str                    # that ran it
    warned: int                     # ReconstructionWarnings


def against_direct(modes: Callable, params: Any, gradient: Any = None) -> Check:
    """The gradient of a mode (Reversible by default) beside Direct's, with the same parameters and the same noise."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RevodeWarning)
        (_, sol), grads = value_and_grad(modes(gradient or Reversible()), has_aux=True)(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RevodeWarning)
        truth = value_and_grad(modes(Direct()), has_aux=True)(params)[1]
    return Check(relative_error(grads, truth), sol.stats.roundtrip, sol.stats.nfe_forward, sol.stats.backend, len(caught))


def timed_in_turns(problems: dict[str, Callable], params: dict[str, Any], rounds: int = 3) -> dict[str, float]:
    """Median seconds of a Reversible iteration of each problem; they take turns, so that a busy machine is so for all."""
    seconds: dict[str, list[float]] = {name: [] for name in problems}
    for _ in range(rounds):
        for name, modes in problems.items():
            start = time.perf_counter()
            value_and_grad(modes(Reversible()), has_aux=True)(params[name])
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def kernel(x: Any, y: Any, widths: Any) -> Any:
    """The mean of exp(-|x_i - y_j|^2 / (2 w^2)) over the widths w and all pairs; x (n, d), y (m, d)."""
    squares = np.sum(x * x, -1)[:, None] + np.sum(y * y, -1) - 2.0 * (x @ np.swapaxes(y, 0, 1))
    return sum(np.mean(np.exp(squares * (-0.5 / w ** 2))) for w in widths) / len(widths)


def mmd2(x: Any, y: Any, widths: Any) -> Any:
    """MMD^2 of two samples of features, (n, d) and (m, d)."""
    return kernel(x, x, widths) - 2.0 * kernel(x, y, widths) + kernel(y, y, widths)


def median_widths(x: np.ndarray) -> tuple[float, ...]:
    """Half, once and twice the median distance of two points of a sample."""
    distance = np.sqrt(np.sum(np.square(x[:, None] - x), -1))
    median = float(np.median(distance[np.triu_indices(len(x), 1)]))
    return 0.5 * median, median, 2.0 * median


def canvas(columns: int, width: float = 4.6, height: float = 4.0) -> tuple[Any, Any]:
    """A figure and its row of axes."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width * columns, height), dpi=150, layout="constrained")
    return figure, np.atleast_1d(figure.subplots(1, columns))

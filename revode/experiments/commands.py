"""What `revode train` and `revode compare` do: train, measure, print, and write the files that were asked for."""
from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, engine
from ..gradients import Reversible
from ..problem import checked_gradient
from ..stepping import ReconstructionWarning
from . import EXPERIMENTS, names, tables
from .training import Experiment, Row, Trained, compare, direct_gradient, measure, modes_for, train

SCHEMA = 1
COMPARE_ITERATIONS = 300     # with the published 1000 steps, `compare` then takes about two minutes on two cores
SKIP_AFTER = 120.0       # seconds that one gradient mode may take in `compare` without --full


class UserError(Exception):
    """Something that the user can put right; its text is all that is shown."""


def run_train(args: Namespace) -> int:
    """Train with one gradient mode."""
    experiment, method, gradient = prepare(args, args.gradient)
    iterations = args.iterations or experiment.iterations
    name = names.spell(gradient)
    introduce(experiment, method, iterations, args)
    notes: list[str] = []
    with spoken_warnings(notes):
        run = train(experiment, gradient, iterations=iterations, method=method, seed=args.seed, progress="train")
        notes += stopped(run)
        truth = direct_gradient(experiment, run.params, method)
        rows = [measure(experiment, name, gradient, run, run.params, truth, method=method, iterations=iterations)]
    finish(args, experiment, method, rows, {name: run}, iterations, notes)
    return 0 if run.stopped is None else 130 if run.stopped == "interrupted" else 1


def run_compare(args: Namespace) -> int:
    """Train with Reversible, then measure every other mode."""
    experiment, method, gradient = prepare(args, Reversible())
    iterations = args.iterations or COMPARE_ITERATIONS
    introduce(experiment, method, iterations, args)
    modes = modes_for(experiment.steps)
    rows: list[Row] = []
    notes: list[str] = []
    with spoken_warnings(notes):
        run = train(experiment, gradient, iterations=iterations, method=method, seed=args.seed, progress="reversible")
        notes += stopped(run)
        runs = {"reversible": run}
        try:
            truth = direct_gradient(experiment, run.params, method)
            rows.append(measure(experiment, "reversible", gradient, run, run.params, truth, method=method,
                                iterations=iterations))
            for row, other in compare(experiment, modes, run, method=method, iterations=iterations, full=args.full,
                                      seed=args.seed, limit=math.inf if args.full else SKIP_AFTER, note=notes.append,
                                      truth=truth):
                print(f"measured {row.gradient}", file=sys.stderr)
                rows.append(row)
                if args.full:
                    runs[row.gradient] = other
        except KeyboardInterrupt:
            notes.append("Interrupted: the gradient modes that are missing were not measured.")
    if any(row.extrapolated for row in rows):
        notes.append(f"~ extrapolated: the median time per iteration, times {iterations:,}. Modes with few timed iterations "
                     "start from the parameters that reversible found, and show the loss of those; --full trains with each.")
    notes.append("Gradient errors are taken at the parameters that reversible found.")
    finish(args, experiment, method, rows, runs, iterations, notes)
    return 0 if run.stopped is None else 130 if run.stopped == "interrupted" else 1


def prepare(args: Namespace, gradient: Any) -> tuple[Experiment, Any, Any]:
    """The experiment, the method and the gradient mode; UserError for what can be known to fail before anything has run."""
    for path in (args.plot, args.json, args.save):
        if path is not None and not Path(path).resolve().parent.is_dir():
            raise UserError(f"{path} cannot be written, because there is no folder {Path(path).resolve().parent}; create it "
                            "first, or choose another place")
    if args.plot is not None:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise UserError("--plot needs matplotlib, which is not installed; it comes with pip install 'revode[plot]'") from None
    module = EXPERIMENTS[args.experiment]
    experiment = module.experiment(steps=args.steps or module.STEPS, dtype=args.dtype)
    method = args.method or experiment.method
    try:
        return experiment, method, checked_gradient(gradient, method)
    except TypeError as error:
        raise UserError(str(error).removeprefix("solve: ")) from None


def introduce(experiment: Experiment, method: Any, iterations: int, args: Namespace) -> None:
    h = abs(experiment.ts[1] - experiment.ts[0])
    print(f"{experiment.name}: {experiment.title}\n"
          f"  {experiment.recipe}\n"
          f"  {experiment.steps:,} steps of {h:.4g}, {method!r}, {args.dtype}, seed {args.seed}\n"
          f"  {iterations:,} iterations (published runs: {experiment.iterations:,}; --iterations changes it, Ctrl-C stops "
          f"early)\n  {machine_line()}", flush=True)


def machine() -> dict:
    """What the figures were measured on."""
    return {"cpus": os.cpu_count(), "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            "numpy": np.__version__}


def machine_line() -> str:
    this = machine()
    load = "" if this["load"] is None else f", load average {this['load']:.1f}"
    return f"{this['cpus']} CPUs{load}, {this['system']}, Python {this['python']}, NumPy {this['numpy']}"


def stopped(run: Trained) -> list[str]:
    if run.stopped is None:
        return []
    return [f"Training ended after {run.iterations} iterations ({run.stopped}); the figures are those of the best parameters "
            "so far."]


@contextmanager
def spoken_warnings(notes: list[str]) -> Iterator[None]:
    """Say the first ReconstructionWarning in one line when it comes, count the others, and note both at the end."""
    seen: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", ReconstructionWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if not issubclass(category, ReconstructionWarning):
                usual(message, category, *rest, **options)
                return
            seen.append(str(message))
            if len(seen) == 1:
                print(f"\nWarning: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield
    if seen:
        notes.append(f"{len(seen)} iterations gave a ReconstructionWarning; the first: {seen[0]}")


def finish(args: Namespace, experiment: Experiment, method: Any, rows: list[Row], runs: dict[str, Trained], iterations: int,
           notes: list[str]) -> None:
    """Print the tables, and write the figures, the plot and the parameters where that was asked for."""
    print("\n" + tables.costs(rows, iterations))
    for sentence in notes:
        print(sentence)
    print("\n" + tables.published(experiment.published))
    run = next(iter(runs.values()))
    written: list[tuple[str, Callable]] = []
    if args.json is not None:
        report = figures(args, experiment, method, rows, runs, iterations, notes)
        written.append((args.json, lambda: Path(args.json).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")))
    if args.save is not None:
        written.append((args.save, lambda: engine.save(args.save, run.params)))
    if args.plot is not None:
        written.append((args.plot, lambda: plot(args.plot, experiment, method, rows, runs)))
    for path, write in written:
        try:
            write()
        except OSError as error:
            raise UserError(f"{path} could not be written: {error.strerror or error}") from None
        print(f"wrote {path}")


def plot(path: str, experiment: Experiment, method: Any, rows: list[Row], runs: dict[str, Trained]) -> None:
    from .. import plotting
    run = next(iter(runs.values()))
    _, sol = experiment.objective(method, None)(run.params)
    plotting.save(plotting.training(experiment, sol.ys, {name: run.losses for name, run in runs.items()}, rows), path)


def figures(args: Namespace, experiment: Experiment, method: Any, rows: list[Row], runs: dict[str, Trained],
            iterations: int, notes: list[str]) -> dict:
    """Everything that was measured, for --json; bytes, seconds and plain numbers, None where there is none."""
    def row(r: Row) -> dict:
        return {**dataclasses.asdict(r), "roundtrip": r.roundtrip and r.roundtrip._asdict()}

    return finite({
        "schema": SCHEMA, "revode": __version__, "command": args.command, "experiment": experiment.name,
        "settings": {"method": repr(method), "steps": experiment.steps, "iterations": iterations, "seed": args.seed,
                     "dtype": args.dtype, "recipe": experiment.recipe},
        "machine": machine(), "rows": [row(r) for r in rows],
        "runs": {name: {"best_loss": run.loss, "losses": run.losses, "seconds": run.seconds, "stopped": run.stopped}
                 for name, run in runs.items()},
        "notes": notes, "published": experiment.published._asdict()})


def finite(x: Any) -> Any:
    """The same with None for numbers that JSON has no name for."""
    if isinstance(x, dict):
        return {key: finite(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [finite(value) for value in x]
    if isinstance(x, float):
        return float(x) if math.isfinite(x) else None
    return x

"""What `revode train` and `revode compare` do: train, measure, print, and write the files that were asked for."""
from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
import textwrap
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..archive import save
from ..checks import checked_gradient
from ..compiled import native
from ..gradients import Automatic, Reversible
from ..watch import RevodeWarning
from . import EXPERIMENTS, names, tables
from .engines import EAGER, Engine
from .training import (
    INTERRUPTED,
    Experiment,
    Row,
    Trained,
    affordable,
    compare,
    direct_gradient,
    measure,
    modes_for,
    train,
)

SCHEMA = 1
COMPARE_ITERATIONS = 250     # with the published 1000 steps, `compare` then takes about two minutes on two cores
SKIP_AFTER = 120.0       # seconds that one gradient mode may take in `compare` without --full


class UserError(Exception):
    """Something that the user can put right; its text is all that is shown."""


@dataclasses.dataclass
class Report:
    """What a command found out, for the tables, the plot and the JSON file."""
    experiment: Experiment
    method: Any
    iterations: int                                                    # asked for
    machine: dict
    rows: list[Row] = dataclasses.field(default_factory=list)
    runs: dict[str, Trained] = dataclasses.field(default_factory=dict)       # the first is the one to show
    notes: list[str] = dataclasses.field(default_factory=list)
    findings: dict[str, dict[str, float]] | None = None


def run_train(args: Namespace) -> int:
    """Train with one gradient mode."""
    experiment, method, gradient = prepare(args, args.gradient, engine_of(args))
    report = Report(experiment, method, args.iterations or experiment.iterations, machine())
    introduce(report, args)
    name = names.spell(gradient)
    with spoken_warnings(report.notes):
        run = first_run(report, name, gradient, args.seed)
        truth = direct_gradient(experiment, run, method)
        report.rows.append(measure(experiment, name, gradient, run, run.params, truth, method=method,
                                   iterations=report.iterations))
    return finish(report, args)


def run_compare(args: Namespace) -> int:
    """Train with Reversible, then measure every other mode, all on the tape; and Reversible on other backends."""
    chosen = engine_of(args)
    experiment, method, gradient = prepare(args, Reversible(), EAGER)
    report = Report(experiment, method, args.iterations or min(COMPARE_ITERATIONS, experiment.iterations), machine())
    introduce(report, args)
    rows, notes = report.rows, report.notes
    engines = engines_beside(chosen, notes)
    with spoken_warnings(notes):
        run = first_run(report, "reversible", gradient, args.seed)
        try:
            modes = modes_for(run.steps, engines)
            if not args.full:
                modes = affordable(experiment, modes, run, method, SKIP_AFTER, notes.append)
                print(f"timing {len(modes)} gradient modes in turns", file=sys.stderr)
            truth = direct_gradient(experiment, run, method)
            for row, other in compare(experiment, modes, run, method=method, iterations=report.iterations,
                                      full=args.full, seed=args.seed, truth=truth, engines=engines):
                print(f"measured {row.gradient}: {tables.seconds(row.seconds_per_iteration)} per iteration",
                      file=sys.stderr)
                rows.append(row)
                if args.full:
                    report.runs[row.gradient] = other
        except (KeyboardInterrupt, FloatingPointError) as reason:
            notes.append(f"Gradient modes that are missing were not measured: {str(reason) or INTERRUPTED}.")
    if not args.full:
        notes.append("Modes with few timed iterations start from the parameters that reversible found, and show the "
                     "loss of those; --full trains with every mode.")
        notes.append("The time per iteration is the median of iterations that the modes took in turns, so load on the "
                     "machine meets all alike; ~ is that ratio times the time that reversible needed.")
    notes.append("Gradient error and round trip are taken at the parameters that reversible found.")
    return finish(report, args)


def first_run(report: Report, name: str, gradient: Any, seed: int) -> Trained:
    """Train, and note it if that ended early."""
    run = report.runs[name] = train(report.experiment, gradient, iterations=report.iterations, method=report.method,
                                    seed=seed, progress=name)
    if run.stopped is not None:
        report.notes.append(f"Training ended after {run.iterations:,} iterations ({run.stopped}); the figures are "
                            "those of the best parameters so far.")
    return run


def engine_of(args: Namespace) -> Engine:
    """The engine that was asked for; UserError where this machine does not have it, or an option would do nothing."""
    if args.threads is not None and args.backend != "native":
        raise UserError(f"--threads goes with --backend native; {args.backend} runs on one thread of its own")
    if args.arithmetic is not None and args.backend in ("auto", "eager"):
        raise UserError(f"--arithmetic goes with --backend replay, native or cuda; {args.backend} has the bits of the tape")
    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads {args.threads}: at least 1, or leave it out for one thread a core")
    try:
        if args.backend == "native":
            native.compiler()
        if args.backend == "cuda":
            from revode_cuda.arrays import require_cupy
            require_cupy("--backend cuda")
    except (RuntimeError, ImportError) as error:
        raise UserError(str(error)) from None
    return Engine(args.backend, args.threads, args.arithmetic or "fast")


def engines_beside(chosen: Engine, notes: list[str]) -> dict[str, Engine]:
    """The further rows of Reversible in `compare`, by name; auto: replay, and native where there is a compiler."""
    engines = [] if chosen.backend == "eager" else [chosen]
    if chosen.backend == "auto":
        engines = [Engine("replay"), Engine("native", threads=1)]
        try:
            native.compiler()
        except native.NoCompiler as error:
            del engines[1]
            notes.append(f"There is no row for native code. {error}")
    return {f"reversible, {engine.backend}": engine for engine in engines}


def prepare(args: Namespace, gradient: Any, engine: Engine) -> tuple[Experiment, Any, Any]:
    """The experiment, the method and the gradient mode; UserError for what is known to fail before anything has run."""
    for path in (args.plot, args.json, args.save):
        if path is not None and not Path(path).resolve().parent.is_dir():
            raise UserError(f"{path} cannot be written, because there is no folder {Path(path).resolve().parent}; "
                            "create it first, or choose another place")
    if args.plot is not None:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise UserError("--plot needs matplotlib, which is not installed; it comes with pip install "
                            "'revode[plot]'") from None
    module = EXPERIMENTS[args.experiment]
    options = {} if args.data is None else {"data": args.data}
    if options and not hasattr(module, "NAMES"):
        raise UserError(f"--data goes with the experiments that have recorded data; {args.experiment} makes its own")
    try:
        experiment = module.experiment(steps=args.steps or module.STEPS, dtype=args.dtype, **options).on(engine)
    except (ValueError, OSError) as error:
        if not options:
            raise
        raise UserError(str(error)) from None
    method = args.method or experiment.method
    if experiment.adaptive and getattr(method, "error_order", None) is None:
        raise UserError(f"{args.experiment} takes adaptive steps, and {method!r} has no error estimate to choose them "
                        "by; take another, such as coupled:bosh3:0.999 or reversible-heun")
    try:
        mode = checked_gradient(gradient, method)
    except TypeError as error:
        raise UserError(str(error).removeprefix("solve: ")) from None
    # what is published is the sweep itself, not what the library falls back to
    return experiment, method, Reversible() if gradient is None and isinstance(mode, Automatic) else mode


def introduce(report: Report, args: Namespace) -> None:
    experiment, this = report.experiment, report.machine
    load = "" if this["load"] is None else f", load average {this['load']:.1f}"
    h = np.diff(experiment.ts)
    lengths = f"{h[0]:.4g}" if np.ptp(h) <= 1e-9 * h[0] else f"{np.min(h):.2g} to {np.max(h):.2g}"
    controller = experiment.options.get("controller")
    grid = (f"{experiment.steps:,} steps of {lengths}" if controller is None else
            f"adaptive steps (rtol {controller.rtol:g}, atol {controller.atol:g}), {experiment.steps + 1:,} saved times")
    published = f" (published: {experiment.published_iterations:,})" if experiment.published_iterations else ""
    print(f"{experiment.name}: {experiment.title}\n"
          f"  {experiment.recipe}\n"
          f"  {experiment.data}\n"
          f"  {grid}, {report.method!r}, {args.dtype}, seed {args.seed}\n"
          f"  backend: {spoken_engine(report, args)}\n"
          f"  {report.iterations:,} iterations{published}; --iterations changes it, Ctrl-C ends training early and "
          "keeps the best so far\n"
          f"  {this['cpus']} CPUs{load}, {this['system']}, Python {this['python']}, NumPy {this['numpy']}", flush=True)


def spoken_engine(report: Report, args: Namespace) -> str:
    if args.command == "compare":
        beside = "" if args.backend == "eager" else "; rows that name another backend: Reversible on that one"
        return f"eager (the tape) for every mode, so that only the modes differ{beside}"
    return f"{report.experiment.engine}, for Reversible gradients; eager for other modes; --backend changes it"


def machine() -> dict:
    """What the figures are measured on; load: processes at work before ours, averaged over a minute."""
    return {"cpus": os.cpu_count(), "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            "numpy": np.__version__}


@contextmanager
def spoken_warnings(notes: list[str]) -> Iterator[None]:
    """Say the first RevodeWarning of each kind in one line when it comes, count the others, and note both at the end."""
    seen: dict[str, list[str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("always", RevodeWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if not issubclass(category, RevodeWarning):
                usual(message, category, *rest, **options)
                return
            alike = seen.setdefault(category.__name__, [])
            alike.append(str(message))
            if len(alike) == 1:
                print(f"\nWarning: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield
    notes += [f"{len(alike)} solves gave a {kind}; the first: {alike[0]}" for kind, alike in seen.items()]


def finish(report: Report, args: Namespace) -> int:
    """Print the tables, and write the figures, the parameters and the plot that were asked for. The exit status."""
    print("\n" + tables.costs(report.rows, report.iterations))
    if any(row.extrapolated for row in report.rows):
        print(f"~ extrapolated from fewer than {report.iterations:,} iterations.")
    for sentence in report.notes:
        print(textwrap.fill(sentence, 118, subsequent_indent="  "))
    run = next(iter(report.runs.values()))
    if report.experiment.findings is not None:
        report.findings = report.experiment.findings(run.params, report.method)
        print("\n" + tables.findings(report.findings))
    if report.experiment.published is not None:
        print("\n" + tables.published(report.experiment.published))
    for path, write in ((args.json, lambda: write_json(report, args)),
                        (args.save, lambda: save(args.save, run.params)),
                        (args.plot, lambda: plot(report, args.plot))):
        if path is None:
            continue
        try:
            write()
        except (OSError, ValueError) as error:          # ValueError: matplotlib, for an ending that it does not know
            raise UserError(f"{path} could not be written: {error}") from None
        print(f"wrote {path}")
    return 0 if run.stopped is None else 130 if run.stopped == INTERRUPTED else 1


def plot(report: Report, path: str) -> None:
    from .. import plotting
    experiment, method, params = report.experiment, report.method, next(iter(report.runs.values())).params
    _, sol = experiment.objective(method, None)(params)
    own = experiment.draw
    draw = None if own is None else lambda ax: own(ax, params, method)
    losses = {name: run.losses for name, run in report.runs.items()}
    plotting.save(plotting.training(experiment, sol.ys, losses, report.rows, draw), path)


def write_json(report: Report, args: Namespace) -> None:
    """Everything that was measured: bytes, seconds and plain numbers; null where there is none."""
    experiment = report.experiment
    Path(args.json).write_text(json.dumps(finite({
        "schema": SCHEMA, "revode": __version__, "command": args.command, "experiment": experiment.name,
        "settings": {"method": repr(report.method), "steps": experiment.steps, "iterations": report.iterations,
                     "seed": args.seed, "dtype": args.dtype, "backend": args.backend, "threads": args.threads,
                     "arithmetic": args.arithmetic or "fast", "recipe": experiment.recipe, "data": experiment.data,
                     "published_iterations": experiment.published_iterations},
        "machine": report.machine,
        "rows": [{**dataclasses.asdict(row), "roundtrip": row.roundtrip and row.roundtrip._asdict()}
                 for row in report.rows],
        "runs": {name: {"best_loss": run.loss, "losses": run.losses, "seconds": run.seconds, "stopped": run.stopped}
                 for name, run in report.runs.items()},
        "findings": report.findings, "notes": report.notes,
        "published": experiment.published and experiment.published._asdict()}), indent=1, allow_nan=False) + "\n")


def finite(x: Any) -> Any:
    """The same with None for numbers that JSON has no name for."""
    if isinstance(x, dict):
        return {key: finite(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [finite(value) for value in x]
    if isinstance(x, float):
        return float(x) if math.isfinite(x) else None
    return x

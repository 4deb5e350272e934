"""Train a model with one gradient mode.

examples:
  revode train white-dwarf                                the published experiment, in seconds where
                                                          there is a C++ compiler
  revode train white-dwarf --seeds 0 1 2                  mean and spread of the loss
  revode train white-dwarf --gradient checkpointed:8      the same gradient from 8 stored states
  revode train white-dwarf --method reversible-heun --iterations 100 --backend replay
  revode train white-dwarf --certify                      the gradient's error, measured
  revode train white-dwarf --plot fit.png --json figures.json --save params.npz
  revode train pendulum --data recorded.txt               your copy of the recording, as published
  revode train spiral --plot spiral.png                   rebuilt and continued beyond the data
  revode train ou --plot ou.png                           a neural SDE by five methods
  mpiexec -n 4 revode train ou --checkpoint run.npz       the same on four processes; go on if it
                                                          was ended, on any number
  revode train language --checkpoint run.npz              a transformer, its depth a fixed point
  revode train digits                                     an image classifier of the same kind

gradient modes: reversible, reversible:100 (store a state every 100 steps), automatic, direct,
                checkpointed:8, backsolve
methods:        coupled:midpoint:0.999 (base and lam), reversible-heun, alf:1.0 (eta),
                leapfrog-midpoint, ees25:0.1 (x), ees27, ees:6 (stages), near-reversible:rk4,
                runge-kutta:rk4 (not reversible)
bases:          euler, midpoint, heun2, ralston3, bosh3, rk4, dopri5, tsit5
"""
from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..checks import checked_gradient
from ..gradients import Automatic, Reversible
from . import EXPERIMENTS, backends, checkpoints, measuring, names, options, reporting, tables, training
from .backends import REFUSALS, UserError, cannot_read
from .measuring import direct_gradient
from .ranks import joined
from .runner import Plan, Report
from .training import Run


def add_options(parser: Any) -> None:
    """The options of train."""
    add_common_options(parser)
    parser.add_argument("--gradient", type=options.named(names.gradient), metavar="G", help="default: reversible")
    checkpoints.add_option(parser)


def add_common_options(parser: Any) -> None:
    """Those that compare has too."""
    parser.add_argument("--seeds", type=options.whole(0), nargs="+", metavar="S", help="train once for each; mean and spread")
    parser.add_argument("--iterations", type=options.whole(1), metavar="N", help="default: enough for a minute or so")
    options.files(parser)
    parser.add_argument("--save", metavar="OUT.npz", help="write the best parameters of the first row; rv.load reads them")
    options.certify(parser)
    backends.add_options(parser)


def plan(args: Namespace) -> Plan:
    """Train every row, then measure it."""
    jobs = shared_out(args, jobs_of(args, args.gradient))
    given = {name: getattr(args, name) for name in ("experiment", *options.defaults(EXPERIMENTS[args.experiment]), "seed", "seeds")}
    kept, begun = checkpoints.begun(args.checkpoint, {**given, "gradient": names.spell(jobs[0].solve.gradient)}, jobs)

    def work(report: Report) -> None:
        ready = [rehearsed(job, args.backend == "auto", report.notes) for job in jobs]
        training.train_all(report, ready, lambda run: add_row(report, run), kept=kept)
        report.notes += [*training.spread(report.rows, "loss", "loss", ".1e"), *jobs[0].experiment.notes]

    return planned(args, jobs, work, begun)


def planned(args: Namespace, jobs: Sequence[Run], work: Callable[[Report], None], begun: Sequence[str] = ()) -> Plan:
    """What the plans of train and compare have in common."""
    return Plan([*reporting.head(args, jobs), *begun], work, lambda report: reporting.all_tables(report.rows, jobs[0].iterations),
                reporting.picture, reporting.settings_of(jobs), jobs[0].experiment.published)


# The rows before any work: experiments times seeds --------------------------------------------------------------------------------
def jobs_of(args: Namespace, gradient: Any) -> list[Run]:
    """UserError for what is known to fail before anything has run."""
    module, solver, jobs = EXPERIMENTS[args.experiment], backends.chosen(args), []
    given = {name: getattr(args, name) for name in options.defaults(module)}
    for seed in args.seeds or [args.seed]:
        try:
            made = module.experiment(**given | ({"seed": seed} if "seed" in given else {}))
        except (ValueError, OSError) as error:
            if given.get("data") is None:
                raise
            raise UserError(cannot_read("--data", args.data, error)) from None
        for e in made if isinstance(made, list) else [made]:
            if e.adaptive and e.method.error_order is None:
                raise UserError(f"{args.experiment} takes adaptive steps, and {e.method!r} has no error estimate to choose them by; "
                                "take another, such as coupled:bosh3:0.999 or reversible-heun")
            mode = checked_mode(gradient, e.method)
            name = e.name if isinstance(made, list) else names.spell(mode)
            jobs.append(Run(f"{name}, seed {seed}" if args.seeds else name, e, replace(solver, method=e.method, gradient=mode), seed,
                            args.certify, args.iterations or e.iterations))
    return jobs


def checked_mode(gradient: Any, method: Any) -> Any:
    """The gradient mode; Reversible where none is named and the method can be run backwards: what is measured is the sweep itself,
    not what the library falls back to."""
    try:
        mode = checked_gradient(gradient, method)
    except TypeError as error:
        raise UserError(str(error).removeprefix("solve: ")) from None
    return Reversible() if gradient is None and isinstance(mode, Automatic) else mode


def shared_out(args: Namespace, jobs: list[Run]) -> list[Run]:
    """The rows on all ranks of mpiexec, if there are any; UserError for what does not go there."""
    if (ranks := joined()) is None:
        return jobs
    if not jobs[0].experiment.shared:
        raise UserError(f"{args.experiment} has no batch of paths to share out over ranks; start it without mpiexec")
    for given, option in ((args.backend == "cuda", "--backend cuda"), (args.certify, "--certify")):
        if given:
            raise UserError(f"{option} does not go with mpiexec; start it without")
    return [replace(job, solve=replace(job.solve, ranks=ranks)) for job in jobs]


def rehearsed(job: Run, fall_back: bool, notes: list[str]) -> Run:
    """One gradient of a row before any work: its program is made, or it is refused, here.

    fall_back: a solver that revode.solve chooses takes over where the backend refuses.
    """
    if job.solve.backend in ("eager", "auto"):     # which make nothing beforehand, refuse nothing
        return job
    start = time.perf_counter()
    try:
        (_, sol), _ = job.gradient(job.start)
    except REFUSALS as reason:
        if fall_back:
            notes.append(f"{job.name} is not for {job.solve.backend}: {reason}")
            return replace(job, solve=job.solve.on("auto"))
        raise UserError(f"--backend {job.solve.backend} cannot run {job.name}: {str(reason).rstrip('.')}. "
                        "--backend replay and --backend eager can.") from None
    if not sol.stats.compilations:
        return job
    took = time.perf_counter() - start
    print(f"{job.name}: ready for {sol.stats.backend} after {tables.seconds(took)}", file=sys.stderr)
    return replace(job, made=took)


# The row of a training ------------------------------------------------------------------------------------------------------------
def row_of(run: Run, iterations: int) -> dict:
    """What a training says by itself; iterations: what it was to have. Times are wall-clock: loss, gradient and update."""
    whole = len(run.losses) == iterations
    return {"name": run.name, "seed": run.seed, "method": repr(run.solve.method), "gradient": names.spell(run.solve.gradient),
            "backend": run.stats.backend, "loss_before": run.losses[0], "loss": run.least, "iterations": len(run.losses),
            "seconds_per_iteration": run.median, "seconds_total": sum(run.seconds) if whole else run.median * iterations,
            "relative": None, "extrapolated": not whole, "stopped": run.stopped,
            "compile_seconds": None if run.made is None else max(run.made - run.median, 0.0),
            "warned": {name: n for name, (n, _) in run.warned.items()}}


def add_row(report: Report, run: Run) -> Any:
    """The row of a training, and what is measured at the parameters that were found; returns the true gradient there."""
    row = row_of(run, run.iterations)
    report.rows.append(row)
    row["loss_finer"] = measuring.finer_loss(run, run.best)
    truth = direct_gradient(run.loss, run.best, run.solve, run.stats.steps)
    row |= measuring.measured(run, run.best, truth, report.notes)
    if run.experiment.findings is not None:
        row["findings"] = run.experiment.findings(run.best, run.start, replace(run.solve, gradient=None))
    return truth

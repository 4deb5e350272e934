"""`revode train` and `revode compare`: train an experiment, then measure what its gradients cost and how right they are.

Times are wall-clock, of whole iterations: loss, gradient and update.
"""
from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..gradients import Backsolve, Checkpointed, Direct
from ..gradients.checkpointed import minimal_advances
from . import measuring, names, reporting, tables, training
from .backends import REFUSALS, UserError
from .checkpoints import Checkpoint
from .measuring import DIRECT_STEPS, direct_gradient
from .runner import INTERRUPTED, Plan, Report
from .training import Run

TRACING = 4              # an iteration with allocations traced takes so many times longer, about
ROUNDS = 3, 30           # timed iterations of each row in turns: least and most
TURNS = 5.0              # and seconds of all of them together, about
SKIP_AFTER = 60.0        # seconds that one gradient mode may take in `compare` without --full
SLOW_ITERATIONS = 250    # at most, in `compare` without a compiler


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


def row_of(run: Run, iterations: int) -> dict:
    """What a training says by itself; iterations: what it was to have."""
    whole = len(run.losses) == iterations
    return {"name": run.name, "seed": run.seed, "method": repr(run.solve.method), "gradient": names.spell(run.solve.gradient),
            "backend": run.stats.backend, "loss_before": run.losses[0], "loss": run.least, "iterations": len(run.losses),
            "seconds_per_iteration": run.median, "seconds_total": sum(run.seconds) if whole else run.median * iterations,
            "relative": None, "extrapolated": not whole, "stopped": run.stopped,
            "compile_seconds": None if run.made is None else max(run.made - run.median, 0.0),
            "warned": {name: n for name, (n, _) in run.warned.items()}}


def add_whole_row(report: Report, run: Run) -> Any:
    """The row of a training, and what is measured at the parameters that were found; returns the true gradient there."""
    row = row_of(run, run.iterations)
    report.rows.append(row)
    row["loss_finer"] = measuring.finer_loss(run, run.best)
    truth = direct_gradient(run.loss, run.best, run.solve, run.stats.steps)
    row |= measuring.measured(run, run.best, truth, report.notes)
    if run.experiment.findings is not None:
        row["findings"] = run.experiment.findings(run.best, run.start, replace(run.solve, gradient=None))
    return truth


def plan(args: Namespace, jobs: Sequence[Run], work: Any, begun: Sequence[str] = ()) -> Plan:
    """The plan of both commands."""
    return Plan([*reporting.head(args, jobs), *begun], work, lambda report: reporting.all_tables(report.rows, jobs[0].iterations),
                reporting.picture, reporting.settings_of(jobs), jobs[0].experiment.published)


# revode train ---------------------------------------------------------------------------------------------------------------------
def train_plan(args: Namespace, jobs: Sequence[Run], kept: Checkpoint | None = None) -> Plan:
    """Train every row, then measure it."""
    def work(report: Report) -> None:
        ready = [rehearsed(job, args.backend == "auto", report.notes) for job in jobs]
        training.train_all(report, ready, lambda run: add_whole_row(report, run), kept=kept)
        report.notes += [*training.spread(report.rows, "loss", "loss", ".1e"), *jobs[0].experiment.notes]

    return plan(args, jobs, work, [kept.begun(job.name) for job in jobs if kept is not None and job.name in kept.rows])


# revode compare -------------------------------------------------------------------------------------------------------------------
def compare_plan(args: Namespace, job: Run) -> Plan:
    """Train with Reversible, then measure every gradient mode on the same backend, and Reversible on others."""
    def work(report: Report) -> None:
        run = training.trained(report, rehearsed(job, args.backend == "auto", report.notes))
        truth = add_whole_row(report, run)
        if run.stopped is not None:
            raise KeyboardInterrupt if run.stopped == INTERRUPTED else FloatingPointError(run.stopped)
        others, begun = affordable(run, rows_beside(run, args.backend), args.full, report.notes)
        turns = in_turns([run, *others], run.best, [training.fit(run, 1, run.best), *begun])
        # as those of the other rows, not that of a while ago
        report.rows[0]["seconds_per_iteration"] = turns[0].median
        for other, mine in zip(others, turns[1:], strict=True):
            print(f"measuring {other.name}", file=sys.stderr)
            add_row_beside(report, training.trained(report, other) if args.full else mine, mine, truth, args.full)
        compare_like_with_like(report.rows, report.notes)

    return plan(args, [job], work)


def rows_beside(first: Run, asked: str) -> list[Run]:
    """Every other gradient mode on the backend of `first`; where that was left to us, Reversible on the others too."""
    modes = (Direct(), *(Checkpointed(n) for n in (44, 32, 16, 8, 4, 2) if n < first.stats.steps), Backsolve())
    alone = replace(first, made=None)
    return [*(replace(alone, name=names.spell(mode), solve=replace(first.solve, gradient=mode)) for mode in modes),
            *(replace(alone, name=f"{first.name}, {name}", solve=first.solve.on(name))
              for name in ("replay", "eager") if asked == "auto" and name != first.stats.backend)]


def in_turns(jobs: Sequence[Run], params: Any, begun: Sequence[Run]) -> list[Run]:
    """A few first iterations of each row from params, by turns, so that a busy machine is so for all of them; begun: the first of
    each."""
    runs = [[first] for first in begun]
    least, most = ROUNDS
    for _ in range(min(max(least, int(TURNS / sum(first.seconds[0] for first in begun))), most) - 1):
        for job, mine in zip(jobs, runs, strict=True):
            mine.append(training.fit(job, 1, params))
    for mine in runs:
        mine[0].losses, mine[0].seconds = [run.losses[0] for run in mine], [run.seconds[0] for run in mine]
    return [mine[0] for mine in runs]


def add_row_beside(report: Report, run: Run, turns: Run, truth: Any, full: bool) -> None:
    """The row of a mode: of a training of its own (full), or of iterations taken in turns from what Reversible found."""
    basis, row = report.rows[0], row_of(run, report.runs[0].iterations)
    if not full:
        over = turns.median / basis["seconds_per_iteration"]
        row |= {"loss_before": None, "extrapolated": True, "seconds_total": basis["seconds_total"] * over}
    if turns.stats.compilations:
        row["compile_seconds"] = max(0.0, turns.seconds[0] - turns.median)
    report.rows.append(row)
    row |= measuring.measured(run, report.runs[0].best, truth, report.notes)
    if row["stopped"] == INTERRUPTED:
        raise KeyboardInterrupt


def affordable(first: Run, jobs: Sequence[Run], full: bool, notes: list[str]) -> tuple[list[Run], list[Run]]:
    """The rows that can be measured within SKIP_AFTER seconds each, and an iteration of each; a note for the others."""
    start, steps = time.perf_counter(), first.stats.steps
    first.loss(first.best, replace(first.solve, gradient=None, backend="eager"))
    forward = time.perf_counter() - start              # on the tape; what a checkpointed row takes says better
    kept, begun = [], []
    for job in jobs:
        mode = job.solve.gradient
        estimate = estimated_seconds(mode, steps, forward)
        if isinstance(mode, Direct) and steps > DIRECT_STEPS:
            notes.append(f"{job.name} was left out: its tape of {steps:,} steps would fill the memory.")
        elif estimate * (ROUNDS[0] + TRACING) > SKIP_AFTER and not full:
            notes.append(f"{job.name} was left out: one iteration may take {tables.seconds(estimate)}, and some are needed; "
                         "--full runs it.")
        else:
            try:
                begun.append(training.fit(job, 1, first.best))
            except FloatingPointError as reason:
                notes.append(f"{job.name} was left out: {reason}.")
                continue
            kept.append(job)
            if isinstance(mode, Checkpointed):
                forward *= begun[-1].seconds[0] / estimate
    return kept, begun


def estimated_seconds(gradient: Any, steps: int, forward: float) -> float:
    """What one iteration takes on the tape, roughly, from the seconds of a plain solve."""
    again = minimal_advances(steps, gradient.n) / steps if isinstance(gradient, Checkpointed) else 0.0
    return (5.0 + again) * forward


def compare_like_with_like(rows: Sequence[dict], notes: list[str]) -> None:
    """Times over that of Reversible on the same backend, for rows that ran elsewhere than the first."""
    basis = {row["backend"]: row["seconds_per_iteration"] for row in reversed(rows) if row["gradient"] == "reversible"}
    for row in rows:
        mine = basis.get(row["backend"])
        row["relative"] = mine and row["seconds_per_iteration"] / mine
    if len({row["backend"] for row in rows}) > 1:
        notes.append("'over reversible' is the time over that of Reversible on the same backend.")

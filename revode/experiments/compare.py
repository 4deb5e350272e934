"""Train with reversible gradients, and measure the other modes beside it.

examples:
  revode compare white-dwarf                           train with reversible, measure every mode
  revode compare white-dwarf --plot compare.png --json figures.json
  revode compare white-dwarf --backend eager --full    train with every mode on the tape; hours
  revode compare gbm --plot gbm.png                    which method survives which step of a SDE
  revode compare language --minutes 15 --seeds 0 1 2   equilibrium models beside explicit ones
  revode compare digits --seeds 0 1 2                  the same on images

Without --full, the modes other than reversible take some iterations each, in turns, from the
parameters that reversible found; their total times are extrapolated.
"""
from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..gradients import Backsolve, Checkpointed, Direct, Reversible
from ..gradients.checkpointed import minimal_advances
from . import measuring, names, tables, train, training
from .backends import UserError
from .measuring import DIRECT_STEPS
from .runner import INTERRUPTED, Plan, Report
from .training import Run

TRACING = 4              # an iteration with allocations traced takes so many times longer, about
ROUNDS = 3, 30           # timed iterations of each row in turns: least and most
TURNS = 5.0              # and seconds of all of them together, about
SKIP_AFTER = 60.0        # seconds that one gradient mode may take without --full
SLOW_ITERATIONS = 250    # at most, without a compiler


def add_options(parser: Any) -> None:
    """The options of compare."""
    train.add_common_options(parser)
    parser.add_argument("--full", action="store_true", help="train with every gradient mode")


def plan(args: Namespace) -> Plan:
    """Train with Reversible, then measure every gradient mode on the same backend, and Reversible on others."""
    job = replace(train.jobs_of(args, Reversible())[0], name="reversible")
    if args.seeds:
        raise UserError("--seeds goes with `revode train`; compare measures one training")
    said = []
    if args.iterations is None and job.solve.backend != "native" and job.iterations > SLOW_ITERATIONS:
        said = [f"(of {job.iterations:,} by default: not compiled, all of them would take minutes; --iterations changes it)"]
        job = replace(job, iterations=SLOW_ITERATIONS)

    def work(report: Report) -> None:
        run = training.trained(report, train.rehearsed(job, args.backend == "auto", report.notes))
        truth = train.add_row(report, run)
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

    return train.planned(args, [job], work, said)


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
    basis, row = report.rows[0], train.row_of(run, report.runs[0].iterations)
    if not full:
        over = turns.median / basis["seconds_per_iteration"]
        row |= {"loss_before": None, "extrapolated": True, "seconds_total": basis["seconds_total"] * over}
    if turns.stats.compilations:
        row["compile_seconds"] = max(0.0, turns.seconds[0] - turns.median) or None
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
    """What one iteration takes on the tape, roughly, from the seconds of a plain solve: a step with its pullback is worth five."""
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

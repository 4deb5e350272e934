"""What an experiment is; `revode train` and `revode compare`, which train it and measure it.

    def loss(params, solve):                          of an experiment's file: problem and data
        sol = solve(field, y0, ts, params)            solve: revode.solve with method, gradient mode
        return mse(sol.ys, target), sol               and backend filled in (backends.Solver)

    optimiser                                         and what makes other parameters of the gradient

Time, memory and gradient error are taken in separate iterations, because tracing allocations makes
one three to five times slower. Times are wall-clock, of whole iterations: loss, gradient and
update.
"""
from __future__ import annotations

import gc
import statistics
import sys
import time
import tracemalloc
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .. import plotting
from ..certify import certify
from ..engine import tree
from ..engine.derivatives import value_and_grad
from ..gradients import Backsolve, Checkpointed, Direct
from ..gradients.checkpointed import minimal_advances
from ..optim import Optimiser
from ..stepping import Stats
from . import names, tables
from .backends import REFUSALS, Solver, UserError
from .checkpoints import EVERY, Checkpoint, Reached
from .runner import INTERRUPTED, Plan, Report, counting, progress_bar
from .tables import Published, small

TRACING = 4              # an iteration with allocations traced takes so many times longer, about
ROUNDS = 3, 30           # timed iterations of each row in turns: least and most
TURNS = 5.0              # and seconds of all of them together, about
DIRECT_STEPS = 50_000    # past this Direct is not run: 20 kB a step of a small network
SKIP_AFTER = 60.0        # seconds that one gradient mode may take in `compare` without --full
SLOW_ITERATIONS = 250    # at most, in `compare` without a compiler


@dataclass(frozen=True)
class Experiment:
    """A problem, its data, and how it is trained."""
    name: str                        # of its rows, where one command trains several
    title: str
    words: tuple[str, ...]           # network and optimiser, data, grid: the head of the report
    loss: Callable                   # loss(params, solve) -> (a number, Solution)
    optimiser: Optimiser
    start: Callable                  # seed -> params
    method: Any
    iterations: int                  # by default
    # draw(axes, params, start, solve, n): of the n-th run in a figure
    draw: Callable
    shows: str                       # what that shows, for those who do not see it
    panels: int = 1                  # how many axes it wants
    # (params, start, solve) -> {what: {column: number}}: what is learnt
    findings: Callable | None = None
    published: Published | None = None
    published_iterations: int | None = None
    adaptive: bool = False           # steps chosen by a controller
    shared: bool = False             # its solves are of a batch, which ranks may share out
    notes: tuple[str, ...] = ()


class Fit(NamedTuple):
    """A row of the table: an experiment, who solves it and how, and the seed of the parameters."""
    name: str
    experiment: Experiment
    solve: Solver
    seed: int = 0
    probes: int = 0          # random directions along which its gradient is certified

    @property
    def start(self) -> Any:
        return self.experiment.start(self.seed)

    def gradient(self, params: Any) -> tuple:
        """((loss, Solution), gradient) at params."""
        return value_and_grad(self.experiment.loss, has_aux=True)(params, self.solve)


class Trained(NamedTuple):
    """A training run, complete or stopped."""
    params: Any                # those with the least loss
    losses: list[float]        # before each update
    seconds: list[float]       # of each iteration
    stopped: str | None        # why it ended early
    stats: Stats               # of the last solve
    warned: dict[str, list]    # RevodeWarnings by class: how many, and the first

    @property
    def loss(self) -> float:
        return min(self.losses)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def fit(job: Fit, iterations: int, params: Any = None, progress: str | None = None,
        warned: dict | None = None, kept: Checkpoint | None = None) -> Trained:
    """Train from params (default: those of the seed), and keep the best parameters.

    progress: the name on the progress bar; None for no bar. warned: where warnings are added up.
    kept: a checkpoint to go on from, and to write.
    Ctrl-C, a loss that is not finite and a solve that breaks down end the run early; what was
    reached is returned. Raises KeyboardInterrupt or FloatingPointError where not even the first
    loss was reached.
    """
    optimiser, at = job.experiment.optimiser, job.start if params is None else params
    reached = Reached(at, optimiser.init(at), at, [], [])
    reached = reached if kept is None else kept.rows.get(job.name, reached)
    (at, state, best, losses, seconds), stopped, stats = reached, None, Stats()
    bar = progress_bar(max(0, iterations - len(losses)), progress)
    with counting({} if warned is None else warned) as mine:
        try:
            if iterations <= len(losses):                # done before: what it costs is seen again
                stats = job.gradient(best)[0][1].stats
            for _ in bar:
                start = time.perf_counter()
                with np.errstate(over="ignore", invalid="ignore",
                                 divide="ignore"):   # what follows says it better
                    (value, sol), grads = job.gradient(at)
                check_finite(float(value), grads)
                losses.append(float(value))
                if losses[-1] == min(losses):
                    best = at
                at, state = optimiser.update(at, grads, state)
                seconds.append(time.perf_counter() - start)
                stats = sol.stats
                if kept is not None:
                    reached = Reached(at, state, best, losses[:], seconds[:])
                    if len(losses) % EVERY == 0:
                        kept.keep(job.name, reached)
                if hasattr(bar, "set_postfix_str"):
                    bar.set_postfix_str(f"loss {losses[-1]:.3e}, best {min(losses):.3e}",
                                        refresh=False)
        except (KeyboardInterrupt, FloatingPointError) as reason:
            if not losses:
                raise
            stopped = INTERRUPTED if isinstance(reason, KeyboardInterrupt) else str(reason)
        finally:
            if hasattr(bar, "close"):
                bar.close()
            if kept is not None and reached.losses:
                kept.keep(job.name, reached)
    return Trained(best, losses, seconds[:len(losses)], stopped, stats, mine)


def check_finite(loss: float, grads: Any) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}")
    if not all(bool(np.isfinite(g).all()) for g in tree.flatten(grads)[0] if g is not None):
        raise FloatingPointError("the gradient has entries that are not finite")


# Measuring ----------------------------------------------------------------------------------------
def peak_memory(run: Callable) -> tuple[int, Any]:
    """Bytes allocated by run() at its peak, by Python and NumPy, above what there was before; and
    what it returned."""
    gc.collect()
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        result = run()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        if ours:
            tracemalloc.stop()


def relative_error(grads: Any, truth: Any) -> float:
    """|grads - truth| / |truth|, Euclidean norms over all float leaves."""
    pairs = [(np.asarray(g, np.float64), np.asarray(a, np.float64)) for g, a in zip(
        tree.flatten(grads)[0], tree.flatten(truth)[0], strict=True) if a is not None]
    difference = sum(float(np.sum((g - a) ** 2)) for g, a in pairs)
    norm = sum(float(np.sum(a ** 2)) for _, a in pairs)
    return (difference / norm) ** 0.5 if norm else difference ** 0.5


def direct_gradient(loss: Callable, params: Any, solve: Solver, steps: int = 0) -> Any:
    """The gradient by full backpropagation on the tape, the truth for the others; None where its
    tape would be too large."""
    if steps > DIRECT_STEPS:
        return None
    tape = replace(solve, gradient=Direct(), backend="eager")
    with counting({}):
        return value_and_grad(loss, has_aux=True)(params, tape)[1]


def against_direct(loss: Callable, params: Any, solve: Solver) -> dict:
    """Error of a gradient against Direct, its round trip, and how many warnings there were."""
    with counting({}) as mine:
        (_, sol), grads = value_and_grad(loss, has_aux=True)(params, solve)
    return {"gradient_error": relative_error(grads, direct_gradient(loss, params, solve)),
            "roundtrip": sol.stats.roundtrip,
            "backend": sol.stats.backend, "warned": sum(count for count, _ in mine.values())}


def measured(job: Fit, params: Any, truth: Any) -> dict:
    """What one more iteration at params costs, and how right its gradient is."""
    peak, ((_, sol), grads) = peak_memory(lambda: job.gradient(params))
    stats = sol.stats
    return {"steps": stats.steps, "rejected": stats.rejected if job.experiment.adaptive else None,
            "peak_bytes": peak,
            "states": stats.peak_states, "nfe": stats.nfe, "nvjp": stats.nvjp,
            "backend": stats.backend,
            "gradient_error": None if truth is None else relative_error(grads, truth),
            "certificate": certificate(job, params), "roundtrip": stats.roundtrip}


def certificate(job: Fit, params: Any) -> Any:
    """The measured error of its gradient, where that was asked for."""
    if not job.probes:
        return None
    with counting({}):
        return certify(lambda p: job.experiment.loss(p, job.solve)[0], params, job.probes)[2]


def in_turns(jobs: Sequence[Fit], params: Any, begun: Sequence[Trained]) -> list[Trained]:
    """A few first iterations of each row from params, by turns, so that a busy machine is so for
    all of them; begun: the first of each."""
    runs = [[first] for first in begun]
    least, most = ROUNDS
    rounds = min(max(least, int(TURNS / sum(first.seconds[0] for first in begun))), most)
    for _ in range(rounds - 1):
        for job, mine in zip(jobs, runs, strict=True):
            mine.append(fit(job, 1, params))
    return [mine[0]._replace(losses=[run.losses[0] for run in mine],
                             seconds=[run.seconds[0] for run in mine])
            for mine in runs]


def rehearsed(job: Fit, fall_back: bool, notes: list[str]) -> tuple[Fit, tuple[float, Stats]]:
    """One gradient of a row before any work: its program is made, or it is refused, here; and the
    seconds.

    fall_back: a solver that revode.solve chooses takes over where the backend refuses.
    """
    if job.solve.backend in ("eager", "auto"):     # which make nothing beforehand, refuse nothing
        return job, (0.0, Stats())
    start = time.perf_counter()
    try:
        (_, sol), _ = job.gradient(job.start)
    except REFUSALS as reason:
        if fall_back:
            notes.append(f"{job.name} is not for {job.solve.backend}: {reason}")
            return rehearsed(job._replace(solve=job.solve.on("auto")), False, notes)
        raise UserError(f"--backend {job.solve.backend} cannot run {job.name}: "
                        f"{str(reason).rstrip('.')}. "
                        "--backend replay and --backend eager can.") from None
    took = time.perf_counter() - start
    if sol.stats.compilations:
        print(f"{job.name}: ready for {sol.stats.backend} after {tables.seconds(took)}",
              file=sys.stderr)
    return job, (took, sol.stats)


def row_of(job: Fit, run: Trained, first: tuple[float, Stats] | None, iterations: int) -> dict:
    """What a training run says by itself."""
    stats = first[1] if first is not None else run.stats
    total = sum(run.seconds) if len(run.losses) == iterations else run.median * iterations
    made = max(first[0] - run.median, 0.0) if first and stats.compilations else None
    return {"name": job.name, "seed": job.seed, "method": repr(job.solve.method),
            "gradient": names.spell(job.solve.gradient), "backend": run.stats.backend,
            "loss_before": run.losses[0], "loss": run.loss, "iterations": len(run.losses),
            "seconds_per_iteration": run.median, "seconds_total": total, "relative": None,
            "extrapolated": len(run.losses) != iterations, "compile_seconds": made,
            "stopped": run.stopped, "warned": {name: n for name, (n, _) in run.warned.items()}}


def finer_loss(job: Fit, params: Any) -> float:
    """The loss of the same parameters when the equation is solved with half the steps."""
    return float(job.experiment.loss(params, replace(job.solve, gradient=None, finer=True))[0])


# revode train -------------------------------------------------------------------------------------
def train_plan(args: Namespace, jobs: Sequence[Fit], iterations: int,
               kept: Checkpoint | None = None) -> Plan:
    """Train every row, then measure it."""
    def work(report: Report) -> None:
        ready = [rehearsed(job, args.backend == "auto", report.notes) for job in jobs]
        for job, first in ready:
            run = fit(job, iterations, progress=job.name, warned=report.warned, kept=kept)
            report.losses[job.name] = run.losses
            report.best = run.params if report.best is None else report.best
            report.rows.append(row_of(job, run, first, iterations))
            found.append((job, run))
            examine(report.rows[-1], job, run.params,
                    direct_gradient(job.experiment.loss, run.params, job.solve, run.stats.steps))
            if job.probes:
                report.notes.append(f"{job.name}, gradient: {report.rows[-1]['certificate']}")
            if run.stopped == INTERRUPTED:
                raise KeyboardInterrupt
        if stopped := [row["stopped"] for row in report.rows if row["stopped"]]:
            raise FloatingPointError(stopped[0])
        report.notes += [*spread(report.rows), *jobs[0].experiment.notes]

    found: list[tuple[Fit, Trained]] = []
    begun = [kept.begun(job.name) for job in jobs if kept is not None and job.name in kept.rows]
    return Plan([*head(args, jobs, iterations), *begun], work,
                lambda report: all_tables(report.rows, iterations),
                lambda report: picture(report, found), settings_of(jobs, iterations),
                jobs[0].experiment.published)


def examine(row: dict, job: Fit, params: Any, truth: Any) -> None:
    """Add to a row what is measured at the parameters that were found."""
    row["loss_finer"] = finer_loss(job, params)
    row |= measured(job, params, truth)
    if job.experiment.findings is not None:
        row["findings"] = job.experiment.findings(params, job.start,
                                                  replace(job.solve, gradient=None))


def spread(rows: Sequence[dict]) -> list[str]:
    """Over seeds: the mean loss and its standard deviation."""
    if len({row["seed"] for row in rows}) < 2:
        return []
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["name"].removesuffix(f", seed {row['seed']}"), []).append(row["loss"])
    return [f"{name}: loss {np.mean(found):.1e} +- {np.std(found, ddof=1):.1e} (mean and standard "
            "deviation over "
            f"{len(found)} seeds)." for name, found in groups.items()]


# revode compare -----------------------------------------------------------------------------------
def compare_plan(args: Namespace, job: Fit, iterations: int) -> Plan:
    """Train with Reversible, then measure every gradient mode on the same backend, and Reversible
    on others."""
    def work(report: Report) -> None:
        first, ready = rehearsed(job, args.backend == "auto", report.notes)
        run = fit(first, iterations, progress=job.name, warned=report.warned)
        report.losses[job.name], report.best = run.losses, run.params
        row = row_of(first, run, ready, iterations)
        report.rows.append(row)
        found.append((first, run))
        truth = direct_gradient(first.experiment.loss, run.params, first.solve, run.stats.steps)
        examine(row, first, run.params, truth)
        if run.stopped is not None:
            raise KeyboardInterrupt if run.stopped == INTERRUPTED else FloatingPointError(
                run.stopped)
        others, begun = affordable(first, rows_beside(first, run.stats, args.backend), run,
                                   args.full, report.notes)
        turns = in_turns([first, *others], run.params, [fit(first, 1, run.params), *begun])
        # as those of the other rows, not that of a while ago
        row["seconds_per_iteration"] = turns[0].median
        for other, mine in zip(others, turns[1:], strict=True):
            print(f"measuring {other.name}", file=sys.stderr)
            add_row(report, other, run, mine, truth, iterations, found if args.full else None)
        compare_like_with_like(report.rows, report.notes)

    found: list[tuple[Fit, Trained]] = []
    return Plan(head(args, [job], iterations), work,
                lambda report: all_tables(report.rows, iterations),
                lambda report: picture(report, found), settings_of([job], iterations),
                job.experiment.published)


def rows_beside(first: Fit, stats: Stats, asked: str) -> list[Fit]:
    """Every other gradient mode on the backend of `first`; where that was left to us, Reversible on
    the others too."""
    counts = [n for n in (44, 32, 16, 8, 4, 2) if n < stats.steps]
    modes = (Direct(), *map(Checkpointed, counts), Backsolve())
    jobs = [first._replace(name=names.spell(mode), solve=replace(first.solve, gradient=mode))
            for mode in modes]
    others = [name for name in ("replay", "eager") if asked == "auto" and name != stats.backend]
    return jobs + [first._replace(name=f"{first.name}, {name}", solve=first.solve.on(name))
                   for name in others]


def add_row(report: Report, job: Fit, first: Trained, turns: Trained, truth: Any, iterations: int,
            found: list | None) -> None:
    """The row of a mode: iterations taken in turns from what Reversible found, or (found given) a
    training of its own."""
    basis = report.rows[0]
    if found is None:
        row = row_of(job, turns, None, iterations) | {"loss_before": None, "extrapolated": True}
        over = turns.median / basis["seconds_per_iteration"]
        row["seconds_total"] = basis["seconds_total"] * over
    else:
        mine = fit(job, iterations, progress=job.name, warned=report.warned)
        report.losses[job.name] = mine.losses
        found.append((job, mine))
        row = row_of(job, mine, None, iterations)
    if turns.stats.compilations:
        row["compile_seconds"] = max(0.0, turns.seconds[0] - turns.median)
    report.rows.append(row)
    row |= measured(job, first.params, truth)
    if row["stopped"] == INTERRUPTED:
        raise KeyboardInterrupt


def affordable(first: Fit, jobs: Sequence[Fit], run: Trained, full: bool, notes: list[str]
               ) -> tuple[list[Fit], list[Trained]]:
    """The rows that can be measured within SKIP_AFTER seconds each, and an iteration of each; a
    note for the others."""
    start, steps = time.perf_counter(), run.stats.steps
    first.experiment.loss(run.params, replace(first.solve, gradient=None, backend="eager"))
    # on the tape; what a checkpointed row takes says better
    forward = time.perf_counter() - start
    kept, begun = [], []
    for job in jobs:
        mode = job.solve.gradient
        estimate = estimated_seconds(mode, steps, forward)
        if isinstance(mode, Direct) and steps > DIRECT_STEPS:
            notes.append(f"{job.name} was left out: its tape of {steps:,} steps would fill the "
                         "memory.")
        elif estimate * (ROUNDS[0] + TRACING) > SKIP_AFTER and not full:
            notes.append(f"{job.name} was left out: one iteration may take "
                         f"{tables.seconds(estimate)}, and some are "
                         "needed; --full runs it.")
        else:
            try:
                begun.append(fit(job, 1, run.params))
            except FloatingPointError as reason:
                notes.append(f"{job.name} was left out: {reason}.")
                continue
            kept.append(job)
            if isinstance(mode, Checkpointed):
                forward *= begun[-1].seconds[0] / estimate
    return kept, begun


def estimated_seconds(gradient: Any, steps: int, forward: float) -> float:
    """What one iteration takes on the tape, roughly, from the seconds of a plain solve."""
    if not isinstance(gradient, Checkpointed):
        return 5.0 * forward
    return (5.0 + minimal_advances(steps, gradient.n) / steps) * forward


def compare_like_with_like(rows: Sequence[dict], notes: list[str]) -> None:
    """Times over that of Reversible on the same backend, for rows that ran elsewhere than the
    first."""
    basis = {row["backend"]: row["seconds_per_iteration"] for row in reversed(rows)
             if row["gradient"] == "reversible"}
    for row in rows:
        mine = basis.get(row["backend"])
        row["relative"] = mine and row["seconds_per_iteration"] / mine
    if len({row["backend"] for row in rows}) > 1:
        notes.append("'over reversible' is the time over that of Reversible on the same backend.")


# The report ---------------------------------------------------------------------------------------
def head(args: Namespace, jobs: Sequence[Fit], iterations: int) -> list[str]:
    """What is about to be done."""
    e, solve = jobs[0].experiment, jobs[0].solve
    methods = [f"method: {solve.method!r}"] if len({job.solve.method for job in jobs}) == 1 else []
    published = f" (published: {e.published_iterations:,})" if e.published_iterations else ""
    seeds = f"seeds {', '.join(map(str, args.seeds))}" if args.seeds else f"seed {args.seed}"
    return [f"{args.experiment}: {e.title}", *e.words, *methods,
            f"backend: {solve}; --backend changes it",
            f"{iterations:,} iterations{published}, {seeds}; Ctrl-C ends early and keeps what "
            "there is"]


def settings_of(jobs: Sequence[Fit], iterations: int) -> dict:
    first = jobs[0]
    return {"iterations": iterations, "method": repr(first.solve.method),
            "backend": first.solve.backend,
            "words": first.experiment.words,
            "published_iterations": first.experiment.published_iterations,
            "arithmetic": first.solve.arithmetic}


def total_of(row: dict) -> str:
    return ("~" if row["extrapolated"] else "") + tables.seconds(row["seconds_total"])


def all_tables(rows: Sequence[dict], iterations: int) -> list[str]:
    """What was found and how long it took; what it cost and how right it was; what was learnt."""
    found = tables.columns(rows, [*FOUND, (f"{iterations:,}\niterations", total_of)])
    if any(row["extrapolated"] for row in rows):
        found += "\n~ extrapolated, from fewer iterations; those of 'compare' were taken in turns."
    measured_rows = [row for row in rows if "nfe" in row]
    return [found, *([tables.columns(measured_rows, COST)] if measured_rows else []), *learnt(rows)]


def round_trip(field: str, say: Callable[[Any], str] = small) -> Callable[[dict], str]:
    return lambda row: "-" if row["roundtrip"] is None else say(getattr(row["roundtrip"], field))


FOUND: tuple[tables.Column, ...] = (
    ("", lambda row: row["name"]),
    ("\nbackend", lambda row: row["backend"]),
    ("loss\nbefore", lambda row: small(row["loss_before"], 2)),
    ("\nloss", lambda row: small(row["loss"], 2)),
    ("half the\nsteps", lambda row: small(row.get("loss_finer"), 2)),
    ("time per\niteration", lambda row: tables.seconds(row["seconds_per_iteration"])),
    ("over re-\nversible",
     lambda row: "-" if row["relative"] is None else f"{row['relative']:.2f}"))
COST: tuple[tables.Column, ...] = (
    ("", lambda row: row["name"]),
    ("steps,\nrejected", lambda row: "-" if row["rejected"] is None else f"{row['steps']:,}, {row['rejected']}"),
    ("peak\nmemory", lambda row: tables.size(row["peak_bytes"])),
    ("states\nheld", lambda row: f"{row['states']:,}"),
    ("evalua-\ntions", lambda row: f"{row['nfe']:,}"),
    ("\nvjps", lambda row: f"{row['nvjp']:,}"),
    ("error to\ndirect", lambda row: small(row["gradient_error"])),
    ("certi-\nfied", lambda row: small(tables.certified(row["certificate"]))),
    ("round\ntrip", round_trip("absolute")),
    ("\nulps", round_trip("ulps", lambda ulps: f"{ulps:.2g}")),
    ("com-\npiling", lambda row: tables.seconds(row["compile_seconds"])),
    ("warn-\nings", lambda row: f"{sum(row['warned'].values()):,}" if row["warned"] else "-"))


def learnt(rows: Sequence[dict]) -> list[str]:
    """The table of findings, if there are any: a line for each of what an experiment looks at."""
    lines = [{"name": row["name"], "what": what, **numbers}
             for row in rows for what, numbers in row.get("findings", {}).items()]
    if not lines:
        return []
    keys = [key for key in dict.fromkeys(key for line in lines for key in line)
            if key not in ("name", "what")]
    number = lambda key: lambda line: f"{line[key]:.4g}" if line.get(key) is not None else "-"
    alone = len({line["name"] for line in lines}) == 1
    named = lambda line: line["what"] if alone else f"{line['name']}, {line['what']}".strip(", ")
    return [tables.columns(lines, [("", named),
                                   *((key.replace(", ", "\n"), number(key)) for key in keys)])]


def picture(report: Report, found: Sequence[tuple[Fit, Trained]]) -> tuple[Any, str]:
    """Panels of the experiment, the losses, and with several gradient modes what each of them
    costs. Rank 0 draws it alone."""
    e = found[0][0].experiment
    measured_rows = [row for row in report.rows if "nfe" in row]
    modes = len({row["gradient"] for row in measured_rows}) > 1
    figure, axes = plotting.canvas(e.panels + 1 + 2 * modes, width=6.0 if modes else 5.0)
    drawn = found if len({job.experiment.name for job, _ in found}) > 1 else found[:1]
    for n, (job, run) in enumerate(drawn):
        job.experiment.draw(axes[:e.panels], run.params, job.start,
                            replace(job.solve, gradient=None, ranks=None), n, job.name)
    plotting.loss_curves(axes[e.panels], report.losses)
    row = report.rows[0]
    words = (f"{e.shows} Loss against iteration: {row['loss_before']:.2g} falls to "
             f"{row['loss']:.2g}.")
    if modes:
        plotting.costs(axes[-2:], measured_rows)
        words += " Time per iteration and peak memory of each gradient mode: " + "; ".join(
            f"{row['name']} {tables.seconds(row['seconds_per_iteration'])}, "
            f"{tables.size(row['peak_bytes'])}"
            for row in measured_rows) + "."
    return figure, words

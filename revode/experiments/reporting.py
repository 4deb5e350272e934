"""The report of `revode train` and `revode compare`: what is about to be done, tables, the picture."""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .. import plotting
from . import tables
from .runner import Report
from .tables import small
from .training import Run


def head(args: Namespace, jobs: Sequence[Run]) -> list[str]:
    """What is about to be done."""
    e, solve = jobs[0].experiment, jobs[0].solve
    methods = [f"method: {solve.method!r}"] if len({job.solve.method for job in jobs}) == 1 else []
    published = f" (published: {e.published_iterations:,})" if e.published_iterations else ""
    seeds = f"seeds {', '.join(map(str, args.seeds))}" if args.seeds else f"seed {args.seed}"
    return [f"{args.experiment}: {e.title}", *e.words, *methods, f"backend: {solve}; --backend changes it",
            f"{jobs[0].iterations:,} iterations{published}, {seeds}; Ctrl-C ends early and keeps what there is"]


def settings_of(jobs: Sequence[Run]) -> dict:
    e, solve = jobs[0].experiment, jobs[0].solve
    return {"iterations": jobs[0].iterations, "method": repr(solve.method), "backend": solve.backend, "words": e.words,
            "published_iterations": e.published_iterations, "arithmetic": solve.arithmetic}


def all_tables(rows: Sequence[dict], iterations: int) -> list[str]:
    """What was found and how long it took; what it cost and how right it was; what was learnt."""
    total = lambda row: ("~" if row["extrapolated"] else "") + tables.seconds(row["seconds_total"])
    found = tables.columns(rows, [*FOUND, (f"{iterations:,}\niterations", total)])
    if any(row["extrapolated"] for row in rows):
        found += "\n~ extrapolated, from fewer iterations; those of 'compare' were taken in turns."
    measured_rows = [row for row in rows if "nfe" in row]
    return [found, *([tables.columns(measured_rows, COST)] if measured_rows else []), *learnt(rows)]


def round_trip(field: str, say: Callable[[Any], str] = small) -> Callable[[dict], str]:
    return lambda row: "-" if row["roundtrip"] is None else say(getattr(row["roundtrip"], field))


FOUND: tuple[tables.Column, ...] = (
    ("what was\nfound", lambda row: row["name"]),
    ("\nbackend", lambda row: row["backend"]),
    ("loss\nbefore", lambda row: small(row["loss_before"], 2)),
    ("\nloss", lambda row: small(row["loss"], 2)),
    ("half the\nsteps", lambda row: small(row.get("loss_finer"), 2)),
    ("time per\niteration", lambda row: tables.seconds(row["seconds_per_iteration"])),
    ("over re-\nversible", lambda row: "-" if row["relative"] is None else f"{row['relative']:.2f}"))
COST: tuple[tables.Column, ...] = (
    ("what it\ncost", lambda row: row["name"]),
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
    keys = [key for key in dict.fromkeys(key for line in lines for key in line) if key not in ("name", "what")]
    number = lambda key: lambda line: f"{line[key]:.4g}" if line.get(key) is not None else "-"
    alone = len({line["name"] for line in lines}) == 1
    named = lambda line: line["what"] if alone else f"{line['name']}, {line['what']}".strip(", ")
    return [tables.columns(lines, [("what was\nlearnt", named), *((key.replace(", ", "\n"), number(key)) for key in keys)])]


def picture(report: Report) -> tuple[Any, str]:
    """Panels of the experiment, the losses, and with several gradient modes what each of them costs. Rank 0 draws it alone."""
    e = report.runs[0].experiment
    rows = [row for row in report.rows if "nfe" in row]
    modes = len({row["gradient"] for row in rows}) > 1
    figure, axes = plotting.canvas(e.panels + 1 + 2 * modes, width=6.0 if modes else 5.0)
    drawn = {run.experiment.name: run for run in reversed(report.runs)}        # one of each experiment, of the first seed
    for n, run in enumerate(reversed(drawn.values())):
        run.experiment.draw(axes[:e.panels], run.best, run.start, replace(run.solve, gradient=None, ranks=None), n, run.name)
    plotting.loss_curves(axes[e.panels], report.losses)
    first = report.rows[0]
    words = f"{e.shows} Loss against iteration: {first['loss_before']:.2g} falls to {first['loss']:.2g}."
    if modes:
        plotting.costs(axes[-2:], rows)
        words += " Time per iteration and peak memory of each gradient mode: " + "; ".join(
            f"{row['name']} {tables.seconds(row['seconds_per_iteration'])}, {tables.size(row['peak_bytes'])}" for row in rows) + "."
    return figure, words

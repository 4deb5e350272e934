"""What the experiments on equilibrium models share: what a model is, their options, their rows, tables and picture.

A model is named by how its hidden state is found; it stands in a Run where other experiments have who solves.
"""
from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import process_time
from typing import Any, NamedTuple

import numpy as np

from .. import plotting
from ..engine import tree
from . import checkpoints, options, tables
from .measuring import certificate
from .options import whole
from .runner import Plan, Report
from .train import shared_out
from .training import Experiment, Run, spread, train_all


class Model(NamedTuple):
    """hidden(params of the model, x) -> (z, what fixed_point found or None)."""
    name: str
    hidden: Callable
    layers: int = 1             # with weights of their own
    evaluations: int = 1        # of a layer or a cell, for each input, forward

    def run(self, e: Experiment) -> Run:
        """Its training, by the clock of the processor."""
        return Run(self.name, e, self, iterations=e.iterations, clock=process_time)


def rate(share: float, highest: float, warm: float = 0.05) -> float:
    """A learning rate that rises along a line, then falls along half a cosine."""
    return highest * (share / warm if share < warm else 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm))))


def size(params: Any) -> int:
    return sum(x.size for x in tree.flatten(params)[0])


# the command ----------------------------------------------------------------------------------------------------------------------
def add_options(parser: Any, names: Sequence[str], iterations: int) -> None:
    parser.add_argument("--models", nargs="+", choices=names, metavar="M", help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=whole(0), nargs="+", default=[0], metavar="S", help="train once for each; default 0")
    parser.add_argument("--iterations", type=whole(1), default=iterations, metavar="N", help=f"of each model; default {iterations}")
    parser.add_argument("--minutes", type=options.minutes, metavar="M", help="of processor time for each model, instead of iterations")
    checkpoints.add_option(parser)
    options.certify(parser)


NOT_THE_TRAINING = "command", "plan", "models", "certify", "plot", "json", "checkpoint"        # options that no iteration depends on


def plan(args: Namespace, runs: dict[str, Run], score: Callable[[Run], dict], shown: Sequence[tables.Column], mean: tuple[str, str],
         ylabel: str, after: Callable[[Report], None] = lambda report: None) -> Plan:
    """The plan of `train` (revdeq) and `compare` (all). score(run): the figures of its own; shown: their columns; mean: the key of
    the one that is averaged over seeds, and what it is called; after(report): what is said at the end."""
    chosen = args.models or (["revdeq"] if args.command == "train" else list(runs))
    named = lambda name, seed: f"{name}, seed {seed}" if len(args.seeds) > 1 else name
    jobs = shared_out(args, [replace(runs[name], name=named(name, seed), seed=seed, probes=args.certify, iterations=args.iterations,
                                     minutes=args.minutes) for seed in args.seeds for name in chosen])
    e = jobs[0].experiment
    budget = f"{args.minutes:g} minutes of processor time" if args.minutes else f"{args.iterations:,} iterations"
    kept, begun = checkpoints.begun(args.checkpoint, {k: x for k, x in vars(args).items() if k not in NOT_THE_TRAINING}, jobs)

    def work(report: Report) -> None:
        train_all(report, jobs, lambda run: report.rows.append(row_of(run, report.notes) | score(run)), kept=kept)
        after(report)
        report.notes += e.notes
        report.notes += spread(report.rows, *mean, ".3f")

    return Plan([e.title, *e.words, f"each model: {budget}, seed{'s' * (len(args.seeds) > 1)} {' '.join(map(str, args.seeds))}",
                 *begun], work, lambda report: all_tables(report.rows, shown), lambda report: curves(report, ylabel),
                published=e.published)


def row_of(run: Run, notes: list[str]) -> dict:
    model, trip = run.solve, run.stats.roundtrip
    return {"name": run.name, "model": model.name, "seed": run.seed, "parameters": size(run.params), "layers": model.layers,
            "evaluations": model.evaluations, "steps": run.done, "seconds": run.spent,
            "states": run.stats.peak_states or None, "roundtrip": trip and trip.absolute,
            "certificate": certificate(run, run.params, notes, "gradient of a batch")}


def all_tables(rows: Sequence[dict], scores: Sequence[tables.Column]) -> list[str]:
    """What was learnt; what it cost, and how right the gradients were."""
    number = lambda key, form: lambda row: "-" if row[key] is None or row[key] != row[key] else format(row[key], form)
    name = lambda row: row["name"]
    learnt = (("what was\nlearnt", name), ("param-\neters", number("parameters", ",")), ("steps", number("steps", ",")),
              ("time", lambda row: tables.seconds(row["seconds"])), *scores, ("resi-\ndual", number("residual", ".2f")))
    cost = (("what it\ncost", name), ("calls of\na layer", number("evaluations", "d")), ("states\nheld", number("states", "d")),
            ("round\ntrip", lambda row: tables.small(row["roundtrip"])),
            ("certi-\nfied", lambda row: tables.small(tables.certified(row["certificate"]))))
    return [tables.columns(rows, learnt), tables.columns(rows, cost)]


def curves(report: Report, ylabel: str) -> tuple[Any, str]:
    """The loss against steps and against time, smoothed."""
    figure, axes = plotting.canvas(2)
    for i, run in enumerate(report.runs):
        window = max(1, run.done // 50)
        smooth = np.convolve(run.losses, np.ones(window) / window, "valid")
        at = np.arange(len(smooth)) + window
        style = {"color": plotting.COLOURS[i % len(plotting.COLOURS)], "lw": 1.5, "ls": "-" if i < len(plotting.COLOURS) else "--"}
        axes[0].plot(at, smooth, label=run.name, **style)
        axes[1].plot(at * run.spent / run.done, smooth, **style)
    axes[0].set(xlabel="step", ylabel=ylabel, title="training", xscale="log")
    axes[1].set(xlabel="processor time, s", title="the same against time", xscale="log")
    for ax in axes:
        plotting.plain_ticks(ax.xaxis)
    plotting.legend(axes[0])
    return figure, f"The loss of {', '.join(report.losses)} against steps and time."

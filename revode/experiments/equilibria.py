"""What the experiments on equilibrium models share: the record of a training, its row, its tables
and its picture.

A model is named by how its hidden state is found; `train` is a generator that yields its Run after
each step.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import plotting
from ..certify import certify
from ..engine import tree
from . import tables
from .backends import add_certify, whole
from .runner import Plan, Report, counting, progress_bar


class Model(NamedTuple):
    """hidden(params of the model, x) -> (z, what fixed_point found or None)."""

    name: str
    hidden: Callable
    layers: int = 1  # with weights of their own
    evaluations: int = 1  # of a layer or a cell, for each input, forward


@dataclass
class Run:
    """One model at its training."""

    model: Model
    seed: int
    params: Any = None
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0  # of processor time, in steps of training
    found: Any = None  # what fixed_point said in the last step

    @property
    def steps(self) -> int:
        return len(self.losses)


def share_of(run: Run, iterations: int | None, minutes: float | None) -> float:
    """How much of a training is done: of its processor time where that is given, or of its
    iterations.
    """
    return run.seconds / (60.0 * minutes) if minutes else run.steps / (iterations or 1)


def rate(share: float, highest: float, warm: float = 0.05) -> float:
    """A learning rate that rises along a line, then falls along half a cosine."""
    return highest * (
        share / warm
        if share < warm
        else 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm)))
    )


def size(params: Any) -> int:
    return sum(x.size for x in tree.flatten(params)[0])


# the command --------------------------------------------------------------------------------------
def duration(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.0 < minutes < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number of minutes")
    return minutes


def add_options(parser: Any, names: Sequence[str], iterations: int) -> None:
    parser.add_argument(
        "--models",
        nargs="+",
        choices=names,
        default=None,
        metavar="M",
        help=f"of {', '.join(names)}",
    )
    parser.add_argument(
        "--seeds",
        type=whole(0),
        nargs="+",
        default=[0],
        metavar="S",
        help="train once for each; default 0",
    )
    parser.add_argument(
        "--iterations",
        type=whole(1),
        default=iterations,
        metavar="N",
        help=f"of each model; default {iterations}",
    )
    parser.add_argument(
        "--minutes",
        type=duration,
        metavar="M",
        help="of processor time for each model, instead of iterations",
    )
    add_certify(parser)


def certified(loss: Callable, run: Run, probes: int, notes: list[str]) -> Any:
    """The certificate of the gradient at the end; a note where it has no tangent to be held against."""
    if not probes:
        return None
    try:
        return certify(lambda params: loss(params, run.model), run.params, probes)[2]
    except FloatingPointError as reason:
        notes.append(f"{run.model.name} has no certificate: {reason}.")
        return None


def followed(
    training: Iterable[Run], label: str, run: Run, budget: tuple
) -> tuple[Run, BaseException | None]:
    """The run after all its steps, with a progress bar; or what it had reached, and what ended it.
    Raises that where there is nothing yet."""
    bar = progress_bar(1000, label)
    ticks = iter(bar)
    try:
        for run in training:
            while (
                getattr(bar, "n", 1000) < 1000 * min(1.0, share_of(run, *budget))
                and next(ticks, None) is not None
            ):
                pass
    except (KeyboardInterrupt, FloatingPointError) as reason:
        if not run.losses:
            raise
        return run, reason
    return run, None


def work(
    jobs: Sequence[tuple[Model, int]],
    train: Callable[[Model, int], Iterable[Run]],
    budget: tuple,
    score: Callable[[Run], dict],
    after: Callable[[Report], None],
    measure: Callable[[Run, list], Any],
) -> Callable[[Report], None]:
    """The work of a plan: train each model with each seed, one row for each."""

    def done(report: Report) -> None:
        for model, seed in jobs:
            label = model.name if len({s for _, s in jobs}) == 1 else f"{model.name}, seed {seed}"
            with counting(report.warned):
                run, stopped = followed(train(model, seed), label, Run(model, seed), budget)
                report.rows.append(
                    {
                        "name": label,
                        "model": model.name,
                        "seed": seed,
                        "parameters": size(run.params),
                        "layers": model.layers,
                        "evaluations": model.evaluations,
                        "steps": run.steps,
                        "seconds": run.seconds,
                        "states": getattr(getattr(run.found, "stats", None), "peak_states", None),
                        "certificate": measure(run, report.notes),
                        **score(run),
                    }
                )
            if (found := report.rows[-1]["certificate"]) is not None:
                report.notes.append(f"{label}, gradient of a batch: {found}")
            trip = getattr(getattr(run.found, "stats", None), "roundtrip", None)
            report.rows[-1]["roundtrip"] = None if trip is None else trip.absolute
            report.losses[label] = run.losses
            report.best = run.params if report.best is None else report.best
            if stopped is not None:
                raise stopped
        after(report)

    return done


def columns(*scores: tables.Column) -> list[tables.Column]:
    number = lambda key, form: (
        lambda row: "-" if row[key] is None or row[key] != row[key] else format(row[key], form)
    )
    return [
        ("model", lambda row: row["name"]),
        ("parameters", number("parameters", ",")),
        ("evaluations\nof a layer", number("evaluations", "d")),
        ("steps", number("steps", ",")),
        ("time", lambda row: tables.seconds(row["seconds"])),
        ("states\nheld", number("states", "d")),
        *scores,
        ("residual", number("residual", ".2f")),
        ("round\ntrip", lambda row: tables.small(row["roundtrip"])),
        ("certified\nbelow", lambda row: tables.small(tables.certified(row["certificate"]))),
    ]


def means(rows: Sequence[dict], keys: dict[str, str]) -> str:
    """Mean and spread over the seeds of each model; keys: what is averaged -> its heading."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    values = [
        [np.array([row[key] for row in rows if row["model"] == name]) for key in keys]
        for name in names
    ]
    return tables.table(
        ("mean +- standard deviation", "seeds", *keys.values()),
        [
            (
                name,
                str(len(mine[0])),
                *(
                    f"{x.mean():.3f} +- {x.std(ddof=1):.3f}" if len(x) > 1 else f"{x.mean():.3f}"
                    for x in mine
                ),
            )
            for name, mine in zip(names, values, strict=True)
        ],
    )


def curves(report: Report, ylabel: str, title: str) -> tuple[Any, Any]:
    """A figure with the loss against steps and against time; what is left of its axes."""
    figure, axes = plotting.canvas(2)
    for i, (label, losses) in enumerate(report.losses.items()):
        window = max(1, len(losses) // 50)
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        row = next(row for row in report.rows if row["name"] == label)
        at = np.arange(len(smooth)) + window
        style = {
            "color": plotting.COLOURS[i % len(plotting.COLOURS)],
            "lw": 1.5,
            "ls": "-" if i < len(plotting.COLOURS) else "--",
        }
        axes[0].plot(at, smooth, label=label, **style)
        axes[1].plot(at * row["seconds"] / len(losses), smooth, **style)
    axes[0].set(xlabel="step", ylabel=ylabel, title=title, xscale="log")
    axes[1].set(xlabel="processor time, s", title="the same against time", xscale="log")
    for ax in axes:
        plotting.plain_ticks(ax.xaxis)
    plotting.legend(axes[0])
    return figure, axes


def plan(
    args: Namespace,
    head: Sequence[str],
    models: dict[str, Model],
    default: Sequence[str],
    train: Callable,
    score: Callable[[Run], dict],
    shown: Sequence[tables.Column],
    keys: dict[str, str],
    ylabel: str,
    after: Callable[[Report], None],
    loss: Callable,
) -> Plan:
    """The plan of `train` (one model) and `compare` (several); loss(params, model) is of one batch, for its certificate."""
    jobs = [(models[name], seed) for seed in args.seeds for name in args.models or default]
    budget = (
        f"{args.minutes:g} minutes of processor time"
        if args.minutes
        else f"{args.iterations:,} iterations"
    )
    settings = (
        {"iterations": None, "minutes": args.minutes}
        if args.minutes
        else {"iterations": args.iterations, "minutes": None}
    )

    def made(report: Report) -> list[str]:
        found = [tables.columns(report.rows, columns(*shown))]
        return [*found, means(report.rows, keys)] if len(args.seeds) > 1 else found

    return Plan(
        [*head, f"each model: {budget}, seeds {' '.join(map(str, args.seeds))}"],
        work(
            jobs,
            lambda model, seed: train(model, seed, **settings),
            tuple(settings.values()),
            score,
            after,
            lambda run, notes: certified(loss, run, args.certify, notes),
        ),
        made,
        lambda report: (
            curves(report, ylabel, "training")[0],
            f"The loss of {', '.join(report.losses)} against steps and time.",
        ),
    )

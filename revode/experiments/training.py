"""What an experiment is, and how it is trained: one record and one runner, for every command that trains.

    def train(run):                                                   of an experiment's file: its training loop
        optimiser = optim.adam(1e-2)
        for params, state in run.steps(optimiser.init):               until it is done, from where a checkpoint ended
            (value, sol), grads = value_and_grad(run.loss, has_aux=True)(params, run.solve)
            params, state = optimiser.update(params, grads, state)
            run.record(value, sol, params, state)                     losses, seconds, the best parameters; a checkpoint
"""
from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.derivatives import value_and_grad
from ..stepping import Stats
from .checkpoints import EVERY, Checkpoint
from .runner import INTERRUPTED, Report, counting, progress_bar
from .tables import Published

LOOKS = 10                      # on the way of a training, the last of them at its end


@dataclass(frozen=True)
class Experiment:
    """A problem, its data, and how it is trained."""
    name: str                           # of its rows, where one command trains several
    title: str
    words: tuple[str, ...]              # network and optimiser, data, grid: the head of the report
    loss: Callable                      # loss(params, solve) -> (a number, Solution)
    train: Callable                     # train(run): the training loop
    start: Callable                     # seed, or a generator -> params
    iterations: int                     # by default
    method: Any = None
    draw: Callable | None = None        # draw(axes, params, start, solve, n): of the n-th run in a figure
    shows: str = ""                     # what that shows, for those who do not see it
    panels: int = 1                     # how many axes it wants
    findings: Callable | None = None    # (params, start, solve) -> {what: {column: number}}: what is learnt
    published: Published | None = None
    published_iterations: int | None = None
    look: Callable | None = None        # look(run), LOOKS times on its way and out of its time: numbers for run.along
    adaptive: bool = False              # steps chosen by a controller
    shared: bool = False                # its solves are of a batch, which ranks may share out
    notes: tuple[str, ...] = ()


@dataclass
class Run:
    """One training: a row of a table. What is to be done, and below that what it has reached.

    solve: who solves (backends.Solver), the second argument of the loss. probes: random directions along which its gradient is
    certified. minutes: of the clock, instead of iterations.
    """
    name: str
    experiment: Experiment
    solve: Any
    seed: int = 0
    probes: int = 0
    iterations: int = 1
    minutes: float | None = None
    clock: Callable[[], float] = time.perf_counter

    made: float | None = None                                 # seconds of a first gradient for which a program was compiled

    done: int = field(default=0, init=False)                  # iterations
    params: Any = field(default=None, init=False)
    state: Any = field(default=None, init=False)              # of the optimiser
    best: Any = field(default=None, init=False)               # the parameters with the least loss
    losses: list[float] = field(default_factory=list, init=False)         # before each update
    seconds: list[float] = field(default_factory=list, init=False)        # of each iteration
    least: float = field(default=math.inf, init=False)                    # of the losses
    spent: float = field(default=0.0, init=False)                         # all the seconds
    along: list[float] = field(default_factory=list, init=False)          # what the training loop looked at on its way
    stats: Stats = field(default_factory=Stats, init=False)               # of the last solve
    stopped: str | None = field(default=None, init=False)                 # why it ended early
    warned: dict[str, list] = field(default_factory=dict, init=False)     # RevodeWarnings by class: how many, and the first
    rng: np.random.Generator = field(init=False)              # of the seed: the parameters, then minibatches
    begun: float = field(default=0.0, init=False)             # when this iteration began
    heard: Callable[[], None] = field(default=lambda: None, init=False)   # called after each

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    @property
    def start(self) -> Any:
        return self.experiment.start(self.seed)

    @property
    def loss(self) -> Callable:
        return self.experiment.loss

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def share(self) -> float:
        """How much of the training is done, from 0 to 1."""
        return self.spent / (60.0 * self.minutes) if self.minutes else self.done / self.iterations

    def gradient(self, params: Any) -> tuple:
        """((loss, Solution), gradient) at params."""
        return value_and_grad(self.loss, has_aux=True)(params, self.solve)

    def steps(self, init: Callable) -> Iterator[tuple[Any, Any]]:
        """The parameters and the optimiser's state, init(params) at first, at the beginning of each iteration.

        Raises RuntimeError where one ends without `record`, as this would go on for ever.
        """
        drawn = self.experiment.start(self.rng)                # also where it is not needed: batches are what rng gives after it
        self.params = drawn if self.params is None else self.params
        self.state = init(self.params) if self.state is None else self.state
        while self.share < 1.0:
            if self.experiment.look is not None and len(self.along) + 1 <= self.share * LOOKS:
                self.along.append(self.experiment.look(self))
            self.begun, before = self.clock(), self.done
            yield self.params, self.state
            if self.done == before:
                raise RuntimeError(f"{self.name}: an iteration of train(run) ends with run.record(value, found, params, state)")

    def onward(self, batches: Iterator) -> Iterator:
        """The batches of a training, without those that a checkpoint has seen."""
        return islice(batches, self.done, None)

    def record(self, value: Any, found: Any, params: Any, state: Any) -> None:
        """The end of an iteration. value: the loss; found: what the loss returned beside it; params, state: what update made.

        Raises FloatingPointError where a number is not finite; the iteration is then none.
        """
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss is {float(value)}")
        if not all(bool(np.isfinite(x).all()) for x in tree.flatten(params)[0] if x is not None):
            raise FloatingPointError("the gradient has entries that are not finite")
        self.losses.append(float(value))
        self.seconds.append(self.clock() - self.begun)
        least = min(self.least, self.losses[-1])
        best = self.params if self.losses[-1] == least else self.best
        # in one call, so that Ctrl-C finds all of an iteration or nothing of it
        vars(self).update(params=params, state=state, best=best, done=len(self.losses), least=least,
                          spent=self.spent + self.seconds[-1], stats=getattr(found, "stats", self.stats))
        self.heard()


def fit(job: Run, iterations: int | None = None, params: Any = None, progress: str | None = None, warned: dict | None = None,
        kept: Checkpoint | None = None) -> Run:
    """Train from params (default: those of the seed); a Run of its own, with what was reached.

    progress: the name on the progress bar; None for no bar. warned: where warnings are added up. kept: a checkpoint to go on from,
    and to write. Ctrl-C, a number that is not finite and a solve that breaks down end the run early; what was reached is returned.
    Raises KeyboardInterrupt or FloatingPointError where not even the first iteration was.
    """
    run = replace(job, iterations=iterations or job.iterations)          # nothing of what the job may have reached
    run.params = params
    if kept is not None:
        kept.restore(run)

    def heard() -> None:
        tell(run.seconds[-1] if run.minutes else 1, f"loss {run.losses[-1]:.3e}, best {run.least:.3e}")
        if kept is not None and run.done % EVERY == 0:
            kept.keep(run)

    run.heard = heard
    left, unit = (60.0 * run.minutes, "s") if run.minutes else (max(0, run.iterations - run.done), "it")
    # what a record says of numbers that are not finite says it better than NumPy does
    with (counting({} if warned is None else warned) as run.warned, progress_bar(left, unit, progress) as tell,
          np.errstate(over="ignore", invalid="ignore", divide="ignore")):
        try:
            if run.share >= 1.0:                              # done before: what it costs is seen again
                run.stats = getattr(run.gradient(run.best)[0][1], "stats", run.stats)
            run.experiment.train(run)
        except (KeyboardInterrupt, FloatingPointError) as reason:
            if not run.done:
                raise
            run.stopped = INTERRUPTED if isinstance(reason, KeyboardInterrupt) else str(reason)
        finally:
            del run.losses[run.done:], run.seconds[run.done:]
            if kept is not None and run.done:
                kept.keep(run)
    return run


def trained(report: Report, job: Run, **options: Any) -> Run:
    """A training whose losses, warnings and best parameters are part of the report."""
    run = fit(job, progress=job.name, warned=report.warned, **options)
    report.losses[run.name] = run.losses
    report.runs.append(run)
    return run


def train_all(report: Report, jobs: Sequence[Run], add: Callable[[Run], None], **options: Any) -> None:
    """Train one after the other; add(run) makes a row of each. Ctrl-C ends all of it, what breaks down that row alone."""
    for job in jobs:
        run = trained(report, job, **options)
        add(run)
        if run.stopped == INTERRUPTED:
            raise KeyboardInterrupt
    if stopped := [run.stopped for run in report.runs if run.stopped]:
        raise FloatingPointError(stopped[0])


def spread(rows: Sequence[dict], key: str, what: str, form: str) -> list[str]:
    """Over seeds: the mean of row[key] and its standard deviation, in a sentence for each kind of row."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["name"].removesuffix(f", seed {row['seed']}"), []).append(row[key])
    return [f"{name}: {what} {np.mean(found):{form}} +- {np.std(found, ddof=1):{form}} (mean and standard deviation over {len(found)} "
            "seeds)." for name, found in groups.items() if len(found) > 1]

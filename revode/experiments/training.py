"""What an experiment is, how it is trained, and what one iteration of a gradient mode costs.

    loss(params) = experiment.loss(solve(field, y0, ts, params).ys, target);   params <- optimiser(params, gradient)

Time, memory and gradient error are taken in separate iterations, because tracing allocations makes one three to five
times slower. Times are wall-clock, whole iterations: loss, gradient and update.
"""
from __future__ import annotations

import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..engine import tree
from ..engine.derivatives import value_and_grad
from ..gradients import Backsolve, Checkpointed, Direct, Reversible
from ..gradients.checkpointed import minimal_advances
from ..optim import Optimiser
from ..watch import RoundTrip
from .engines import AUTO, Engine

TRACING = 4                # an iteration with allocations traced takes so many times longer, about
ROUNDS = 3                 # timed iterations of each mode in a comparison
INTERRUPTED = "interrupted"
DIRECT_STEPS = 50_000      # Direct holds some 20 kB a step of a small network: past this it is not run for comparison


class Published(NamedTuple):
    """Figures of a paper, to stand beside ours."""
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Experiment:
    """A problem, its data, and how it is trained. `params(seed)` builds the initial parameters."""
    name: str
    title: str
    field: Callable                  # field(t, y, params)
    params: Callable                 # seed -> params
    y0: Any
    ts: np.ndarray                   # (N + 1,) the grid; with a controller in options, the times that are saved
    target: Any                      # what the loss compares the saved states with
    loss: Callable                   # loss(ys, target) -> a number
    method: Any                      # the published one
    optimiser: Optimiser
    iterations: int                  # what `train` runs by default
    labels: tuple[str, ...]          # of the components of y, for plots
    recipe: str                      # the optimiser and the network in words
    data: str                        # where the target comes from: the file, or the noise and the seed
    published: Published | None = None
    published_iterations: int | None = None
    options: dict = field(default_factory=dict)      # further arguments of solve, such as controller
    findings: Callable | None = None                 # (params, method) -> {what: {column: number}}: what is learnt
    draw: Callable | None = None                     # draw(ax, params, method), in place of plotting.fit
    engine: Engine = AUTO                        # who runs the solves

    @property
    def steps(self) -> int:
        """Intervals of ts. An adaptive solve takes steps of its own, at least as many: Trained.steps."""
        return len(self.ts) - 1

    @property
    def adaptive(self) -> bool:
        return "controller" in self.options

    def on(self, engine: Engine | None) -> Experiment:
        """The same with its solves on another engine; None changes nothing."""
        return self if engine is None else replace(self, engine=engine)

    def objective(self, method: Any, gradient: Any) -> Callable:
        """The function params -> (loss, solution)."""
        grid, options = self.ts, dict(self.options)
        if self.adaptive:
            grid, options["save_at"] = self.ts[[0, -1]], self.ts

        def objective(params: Any) -> tuple:
            sol = self.engine.solve(self.field, self.y0, grid, params, method=method, gradient=gradient, **options)
            return self.loss(sol.ys, self.target), sol

        return objective


class Trained(NamedTuple):
    """A training run, complete or stopped."""
    params: Any                # those with the least loss
    loss: float                # that loss
    losses: list[float]        # before each update
    seconds: list[float]       # of each iteration
    stopped: str | None        # why it ended early
    steps: int                 # that the last solve took
    backend: str = "eager"     # that ran it

    @property
    def iterations(self) -> int:
        return len(self.losses)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def train(experiment: Experiment, gradient: Any, *, iterations: int, method: Any = None, seed: int = 0,
          params: Any = None, progress: str | None = None) -> Trained:
    """Train from params (default: those of the seed), and keep the parameters of the least loss.

    progress: the name on the progress bar; None for no bar.
    Ctrl-C, a loss that is not finite and a solve that breaks down end the run early; what was reached is returned.
    Raises KeyboardInterrupt or FloatingPointError where not even the first loss was reached.
    """
    params = experiment.params(seed) if params is None else params
    objective = value_and_grad(experiment.objective(method or experiment.method, gradient), has_aux=True)
    state = experiment.optimiser.init(params)
    best, best_loss = params, float("inf")
    losses: list[float] = []
    seconds: list[float] = []
    stopped = None
    bar = progress_bar(iterations, progress)
    try:
        for _ in bar:
            start = time.perf_counter()
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):        # what follows says it better
                (value, sol), grads = objective(params)
            loss = float(value)
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss}")
            if not all(bool(np.isfinite(g).all()) for g in tree.flatten(grads)[0] if g is not None):
                raise FloatingPointError("the gradient has entries that are not finite")
            losses.append(loss)
            if loss < best_loss:
                best, best_loss = params, loss
            params, state = experiment.optimiser.update(params, grads, state)
            seconds.append(time.perf_counter() - start)
            if hasattr(bar, "set_postfix_str"):
                bar.set_postfix_str(f"loss {loss:.3e}, best {best_loss:.3e}", refresh=False)
    except (KeyboardInterrupt, FloatingPointError) as reason:
        if not seconds:
            raise
        stopped = INTERRUPTED if isinstance(reason, KeyboardInterrupt) else str(reason)
    finally:
        if hasattr(bar, "close"):
            bar.close()
    return Trained(best, best_loss, losses[:len(seconds)], seconds, stopped, sol.stats.steps, sol.stats.backend)


def progress_bar(iterations: int, name: str | None) -> Any:
    """A range that draws itself with tqdm; a plain range without a name or without tqdm."""
    if name is None:
        return range(iterations)
    try:
        from tqdm import tqdm
    except ImportError:
        print("No progress bar, because tqdm is not installed; it comes with pip install 'revode[plot]'.",
              file=sys.stderr)
        return range(iterations)
    # In a log file every redraw is a new line, so they are kept few.
    return tqdm(range(iterations), desc=name, unit="it", mininterval=0.2 if sys.stderr.isatty() else 10.0)


@dataclass
class Row:
    """One line of the table: what a gradient mode costs, and how right it is."""
    gradient: str
    loss: float
    iterations: int                       # timed
    seconds_per_iteration: float          # median
    seconds_total: float
    extrapolated: bool                    # seconds_total is not measured but scaled from fewer iterations
    steps: int                            # of one solve
    rejected: int | None                  # steps tried in vain, by adaptive solves; None on a fixed grid
    peak_bytes: int                       # allocated in one iteration, at its peak
    states: int                           # states of the solve held at one time
    nfe: int                              # field evaluations in one iteration, forward and back
    nvjp: int                             # pullbacks through the field in one iteration
    gradient_error: float | None          # |g - g_direct| / |g_direct|, over the whole tree
    roundtrip: RoundTrip | None
    backend: str = "eager"                # that ran the steps
    relative: float | None = None         # time per iteration over that of reversible, timed in turns with it


def measure(experiment: Experiment, name: str, gradient: Any, run: Trained, params: Any, truth: Any, *, method: Any,
            iterations: int) -> Row:
    """The row of a gradient mode, from its training run and one more iteration, with allocations traced, at params.

    truth: the Direct gradient at params, or None. Where the run has fewer than `iterations`, its total is extrapolated.
    """
    once = value_and_grad(experiment.objective(method, gradient), has_aux=True)
    peak, ((_, sol), grads) = peak_memory(lambda: once(params))
    stats = sol.stats
    full = run.iterations == iterations
    total = sum(run.seconds) if full else run.median * iterations
    return Row(name, run.loss, run.iterations, run.median, total, not full,
               stats.steps, stats.rejected if experiment.adaptive else None, peak, stats.peak_states, stats.nfe,
               stats.nvjp,
               None if truth is None else relative_error(grads, truth), stats.roundtrip, stats.backend)


def peak_memory(run: Callable) -> tuple[int, Any]:
    """Bytes allocated by run() at its peak, by Python and NumPy, above what there was before; and what it returned."""
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


def direct_gradient(experiment: Experiment, run: Trained, method: Any) -> Any:
    """The gradient by full backpropagation at what the run found, the truth for the others; None where its tape would
    be too large."""
    if run.steps > DIRECT_STEPS:
        return None
    return value_and_grad(experiment.objective(method, Direct()), has_aux=True)(run.params)[1]


def estimated_seconds(gradient: Any, steps: int, forward: float, reversible: float) -> float:
    """What one iteration will take, roughly, from the times of a plain solve and of a Reversible iteration."""
    taped = 1.5 * reversible
    if isinstance(gradient, Checkpointed):
        return taped + forward * minimal_advances(steps, gradient.n) / steps
    return taped


def affordable(experiment: Experiment, modes: dict[str, Any], run: Trained, method: Any, limit: float,
               note: Callable) -> dict[str, Any]:
    """The modes that can be measured within `limit` seconds each; note(sentence) for each one that cannot."""
    start = time.perf_counter()
    experiment.objective(method, None)(run.params)
    forward = time.perf_counter() - start
    kept = {}
    for name, gradient in modes.items():
        estimate = estimated_seconds(gradient, run.steps, forward, run.median)
        if isinstance(gradient, Reversible):
            kept[name] = gradient
        elif isinstance(gradient, Direct) and run.steps > DIRECT_STEPS:
            note(f"{name} was left out: its tape of {run.steps:,} steps would fill the memory.")
        elif estimate * (ROUNDS + TRACING) > limit:
            note(f"{name} was left out: an iteration would take about {estimate:.2g} s, and some are needed; --full "
                 "runs it.")
        else:
            kept[name] = gradient
    return kept


def in_turns(experiment: Experiment, modes: dict[str, Any], params: Any, method: Any,
             engines: dict[str, Engine]) -> dict[str, Trained]:
    """ROUNDS first iterations of each mode from the same parameters. The modes take turns, so that a machine that is
    busy for a while is so for all of them."""
    runs: dict[str, list[Trained]] = {name: [] for name in modes}
    for name, engine in engines.items():                 # their programs are made before the clock starts
        train(experiment.on(engine), modes[name], iterations=1, method=method, params=params)
    for _ in range(ROUNDS):
        for name, gradient in modes.items():
            runs[name].append(train(experiment.on(engines.get(name)), gradient, iterations=1, method=method, params=params))
    return {name: first._replace(losses=[run.losses[0] for run in (first, *others)],
                                 seconds=[run.seconds[0] for run in (first, *others)])
            for name, (first, *others) in runs.items()}


def compare(experiment: Experiment, modes: dict[str, Any], run: Trained, *, method: Any, iterations: int, full: bool,
            seed: int, truth: Any, engines: dict[str, Engine]) -> Iterator[tuple[Row, Trained]]:
    """The rows of all gradient modes, one after the other; modes["reversible"] is what `run` was trained with.

    engines: for the rows that are to run on another engine than that of the experiment.

    With full, every mode is trained as `run` was. Without, all modes take ROUNDS iterations in turns, from the
    parameters that the run found; totals are those of the run times the ratio of the medians.
    """
    def row_of(name: str, trained: Trained) -> Row:
        return measure(experiment.on(engines.get(name)), name, modes[name], trained, run.params, truth, method=method,
                       iterations=iterations)

    first = row_of("reversible", run)
    first.relative = 1.0
    yield first, run
    turns = {} if full else in_turns(experiment, modes, run.params, method, engines)
    if not full:         # the time that is comparable with those of the other rows, rather than that of a while ago
        first.seconds_per_iteration = turns["reversible"].median
    for name, gradient in modes.items():
        if name == "reversible":
            continue
        trained = turns[name] if not full else train(
            experiment.on(engines.get(name)), gradient, iterations=iterations, method=method, seed=seed, progress=name)
        row = row_of(name, trained)
        row.relative = trained.median / first.seconds_per_iteration
        if row.extrapolated:
            row.seconds_total = first.seconds_total * row.relative
        yield row, trained
        if trained.stopped == INTERRUPTED:
            raise KeyboardInterrupt


def modes_for(steps: int, engines: Iterable[str] = ()) -> dict[str, Any]:
    """The gradient modes to compare: those of the published tables, Direct and Backsolve; engines: more rows of Reversible."""
    counts = [n for n in (2, 4, 8, 16, 32, 44) if n < steps]
    return {"reversible": Reversible(), **{name: Reversible() for name in engines}, "direct": Direct(),
            **{f"checkpointed:{n}": Checkpointed(n) for n in reversed(counts)}, "backsolve": Backsolve()}

"""What a gradient costs as the number of steps grows: `revode complexity`.

    y' = MLP(y), 1-10-1 tanh, y(0) = 1, n steps of 0.01;      loss = y(t_n)^2;      time of loss and gradient against n

Reversible: n steps and n steps back, so time ~ n with flat memory. Checkpointed(c): about r n steps again, where
C(c + r, c) >= n, so time ~ n^(1 + 1/c) for few checkpoints. The two are compared on the same method, and Checkpointed
also on the base alone, which evaluates half as often because it need not be reversible.
Source: McCallum & Foster 2024, arXiv 2410.11648 (figure and table of complexity).
"""
from __future__ import annotations

import argparse
import json
import statistics
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, nn
from ..engine.derivatives import value_and_grad
from ..gradients import Checkpointed, Direct, Reversible
from ..gradients.checkpointed import minimal_advances
from ..methods import Coupled, RungeKutta
from ..watch import RevodeWarning
from . import engines, tables
from .commands import UserError, engine_of, finite, machine
from .engines import EAGER, Engine
from .training import Published, peak_memory, progress_bar, relative_error

H = 0.01
NS = (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1500, 2000, 3000)
CHECKPOINTS = (2, 4, 8, 16, 31, 44)
MEMORY_NS = (100, 300, 1000, 3000)
SLOPE_FROM = 1000        # steps; below, what a solve costs once still shows
LIMIT = 20.0             # seconds of one gradient; what would take longer is left out, with a note
SLOPE = 0.05             # how far from 1 the slope of Reversible may be
FLAT = 0.05              # how much its memory may grow, beyond GRIDS numbers a step
GRIDS = 2                # arrays of n numbers that a solve makes at its peak: the steps, and one while they are checked
SCHEMA = 1

PUBLISHED = Published(
    "McCallum & Foster 2024, n = 1000; GPU, compiled JAX", ("gradient mode", "forward + backward"),
    (("reversible", "0.073 s"), ("checkpointed:2", "15.06 s"), ("checkpointed:4", "1.67 s"), ("checkpointed:8", "0.63 s"),
     ("checkpointed:44", "0.30 s")))


@dataclass
class Curve:
    """One gradient mode on one method, and what was measured for it."""
    name: str
    method: Any
    gradient: Any
    engine: Engine = EAGER                                             # one for all that are compared
    seconds: dict[int, list[float]] = field(default_factory=dict)      # n -> repetitions
    loss: dict[int, float] = field(default_factory=dict)
    gradient_error: dict[int, float] = field(default_factory=dict)     # against Direct on the same method
    peak_bytes: dict[int, int] = field(default_factory=dict)
    slope: float | None = None

    def median(self, n: int) -> float:
        return statistics.median(self.seconds[n])

    @property
    def coupled(self) -> bool:
        return isinstance(self.method, Coupled)

    @property
    def checkpoints(self) -> int | None:
        return self.gradient.n if isinstance(self.gradient, Checkpointed) else None


def curves(beside: Engine = EAGER) -> list[Curve]:
    """The first is Reversible; Direct comes before the Checkpointed curves of its method, as the truth for them.

    beside: an engine other than the tape gets a curve of Reversible, the last one, which no claim is about.
    """
    coupled, base = Coupled("midpoint", lam=0.999), RungeKutta("midpoint")
    return [Curve("reversible", coupled, Reversible()), Curve("direct", coupled, Direct()),
            *(Curve(f"checkpointed:{c}", coupled, Checkpointed(c)) for c in CHECKPOINTS),
            Curve("direct, plain base", base, Direct()),
            *(Curve(f"checkpointed:{c}, plain base", base, Checkpointed(c)) for c in CHECKPOINTS),
            *([] if beside == EAGER else [Curve(f"reversible, {beside.backend}", coupled, Reversible(), beside)])]


def objective(curve: Curve, n: int) -> Callable:
    """params -> loss of n steps."""
    ts = H * np.arange(n + 1)

    def loss(params: Any) -> Any:
        sol = curve.engine.solve(lambda t, y, params: nn.mlp(params, y), np.ones(1), ts, params, method=curve.method,
                                 gradient=curve.gradient, save=[-1])
        return np.sum(np.square(sol.y1))

    return loss


def parameters(seed: int) -> Any:
    return nn.mlp_init(np.random.default_rng(seed), (1, 10, 1), nn.uniform, random_biases=True)


# Measuring ------------------------------------------------------------------------------------------------------------
def measure(found: Sequence[Curve], ns: Sequence[int], params: Any, repeats: int, limit: float = LIMIT) -> list[str]:
    """Fill the curves; returns notes on what was left out. Repetitions are interleaved, so that a slow moment hits all."""
    notes: list[str] = []
    per_step = unit(found[0], params)
    jobs = []
    for curve in found:
        slow = [n for n in ns if estimate(curve, n, per_step) > limit]
        if slow:
            notes.append(f"{curve.name} was left out for n = {', '.join(map(str, slow))}: one gradient would take more than "
                         f"{limit:g} s.")
        jobs += [(curve, n) for n in ns if n not in slow]
    truths: dict[tuple[bool, int], Any] = {}
    for curve, n in shown(jobs, "agreement"):
        value, grads = value_and_grad(objective(curve, n))(params)
        curve.loss[n] = float(value)
        if isinstance(curve.gradient, Direct):
            truths[curve.coupled, n] = grads
        curve.seconds[n] = []
        if (curve.coupled, n) in truths:
            curve.gradient_error[n] = relative_error(grads, truths[curve.coupled, n])
    first = found[0]                                            # it came before its truth
    for n in ns:
        if (True, n) in truths and n in first.loss:
            first.gradient_error[n] = relative_error(value_and_grad(objective(first, n))(params)[1], truths[True, n])
    truths.clear()
    for curve, n in shown(jobs * repeats, "time"):
        run = value_and_grad(objective(curve, n))
        start = time.perf_counter()
        run(params)
        curve.seconds[n].append(time.perf_counter() - start)
    # With allocations traced everything takes about four times as long.
    wanted = [n for n in ns if n in MEMORY_NS] or [ns[0], ns[-1]]
    for curve, n in shown([(curve, n) for curve, n in jobs if n in wanted and 4 * curve.median(n) < limit], "memory"):
        run = value_and_grad(objective(curve, n))
        curve.peak_bytes[n] = peak_memory(lambda: run(params))[0]
    start_at = slope_start(ns)
    for curve in found:
        curve.slope = slope({n: curve.median(n) for n in curve.seconds if n >= start_at})
    return notes


def shown(jobs: list, name: str) -> Iterator[tuple[Curve, int]]:
    """The jobs, with a progress bar."""
    for i in progress_bar(len(jobs), name):
        yield jobs[i]


def unit(curve: Curve, params: Any) -> float:
    """Seconds of one step forward, roughly."""
    run = objective(curve, 100)
    run(params)
    start = time.perf_counter()
    run(params)
    return (time.perf_counter() - start) / 100


def estimate(curve: Curve, n: int, per_step: float) -> float:
    """Seconds of one gradient: a step on a tape and back is worth about five plain ones."""
    steps = 5.0 * n
    if curve.checkpoints is not None:
        steps += minimal_advances(n, curve.checkpoints)
    return steps * per_step * (1.0 if curve.coupled else 0.5)


def slope_start(ns: Iterable[int]) -> int:
    """From where on the slope is taken: SLOPE_FROM, or the upper half of a shorter list."""
    ns = sorted(ns)
    late = [n for n in ns if n >= SLOPE_FROM]
    return late[0] if len(late) > 1 else ns[len(ns) // 2]


def slope(seconds: dict[int, float]) -> float | None:
    """The exponent p of seconds ~ n^p by least squares in logarithms; None from fewer than two points."""
    if len(seconds) < 2:
        return None
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


# Judging --------------------------------------------------------------------------------------------------------------
def verdicts(found: Sequence[Curve]) -> list[tuple[str, bool, str]]:
    """(claim, does it hold, the figures) for each claim of the experiment."""
    reversible = found[0]
    rivals = [(curve, n) for curve in found[1:] if curve.coupled and curve.checkpoints is not None
              for n in curve.seconds if n in reversible.seconds and curve.checkpoints ** 2 <= n]
    lines = []
    if rivals:
        ratios = {(curve.name, n): curve.median(n) / reversible.median(n) for curve, n in rivals}
        lost = [f"{name} at n = {n} (x{x:.2f})" for (name, n), x in ratios.items() if x <= 1]
        (name, n), least = min(ratios.items(), key=lambda item: item[1])
        lines.append(("Reversible is faster than Checkpointed(c) on the same method, for every c up to sqrt(n)", not lost,
                      f"slower than {', '.join(lost)}" if lost else f"at least x{least:.2f} (against {name} at n = {n})"))
        off = max(abs(curve.loss[n] - reversible.loss[n]) / abs(reversible.loss[n]) for curve, n in rivals)
        # The forward solves are the same operations, so their losses are the same bits.
        lines.append(("at equal loss", off == 0, f"largest relative difference {off:.1e}"))
    if len(reversible.peak_bytes) > 1:
        few, many = min(reversible.peak_bytes), max(reversible.peak_bytes)
        beyond = reversible.peak_bytes[many] - reversible.peak_bytes[few] - 8 * GRIDS * (many - few)
        growth = beyond / reversible.peak_bytes[few]
        least, most = reversible.peak_bytes[few], reversible.peak_bytes[many]
        lines.append((f"with flat memory from n = {few} to {many}, beyond {GRIDS} numbers of 8 bytes a step", growth < FLAT,
                      f"{tables.size(least)} to {tables.size(most)}, {(most - least) / (many - few):.1f} bytes a step"))
    if reversible.slope is not None:
        lines.append((f"Reversible's time grows as n^p with p within {SLOPE} of 1 from n = {slope_start(reversible.seconds)} up",
                      abs(reversible.slope - 1) <= SLOPE, f"p = {reversible.slope:.3f}"))
    return lines


def against_base(found: Sequence[Curve]) -> str:
    """Where checkpointing the base method, which need not be reversible, is the faster way; a sentence."""
    reversible = found[0]
    n = 1000 if 1000 in reversible.seconds else max(reversible.seconds)
    rivals = [curve for curve in found if not curve.coupled and curve.checkpoints is not None and n in curve.seconds]
    faster = [f"c = {curve.checkpoints} (x{curve.median(n) / reversible.median(n):.2f} of the time)" for curve in rivals
              if curve.median(n) < reversible.median(n)]
    return (f"Not the same method: Checkpointed(c) on the plain midpoint base, with half the evaluations a step, at n = {n} is "
            + (f"faster than Reversible for {', '.join(faster)}." if faster else "slower than Reversible for every c."))


def summary(found: Sequence[Curve]) -> str:
    """The table for the terminal: one line a curve."""
    last = max(found[0].seconds)
    columns = [m for m in (100, 1000) if m in found[0].seconds and m != last] + [last]
    at = 1000 if 1000 in columns else last
    basis = found[0].median(at)
    memory_at = sorted(found[0].peak_bytes)[:1] + sorted(found[0].peak_bytes)[-1:]
    headers = ["gradient\nmode", *[f"time\nn = {m}" for m in columns], f"over reversible\nn = {at}", "slope\nof time",
               *[f"peak memory\nn = {m}" for m in memory_at], f"gradient error\nn = {at}"]
    rows = [[curve.name, *[tables.seconds(curve.median(m)) if m in curve.seconds else "-" for m in columns],
             f"x{curve.median(at) / basis:.2f}" if at in curve.seconds else "-",
             "-" if curve.slope is None else f"{curve.slope:.2f}",
             *[tables.size(curve.peak_bytes[m]) if m in curve.peak_bytes else "-" for m in memory_at],
             tables.small(curve.gradient_error.get(at))] for curve in found]
    return tables.table(headers, rows)


# The command ----------------------------------------------------------------------------------------------------------
def add_parser(subparsers: Any) -> None:
    """The arguments of `revode complexity`; main(args) runs it."""
    what = "time and memory of a gradient against the number of steps, for every gradient mode"
    sub = subparsers.add_parser("complexity", help=what, description=what)
    sub.add_argument("--most", type=int, default=NS[-1], metavar="N", help=f"leave out more steps than this; default {NS[-1]}")
    sub.add_argument("--repeats", type=int, default=3, metavar="R", help="of each timing, the median counts; default 3")
    sub.add_argument("--limit", type=float, default=LIMIT, metavar="S",
                     help=f"leave out what takes more seconds for one gradient; default {LIMIT:g}")
    sub.add_argument("--seed", type=int, default=0, help="of the parameters; default 0")
    sub.add_argument("--plot", metavar="OUT.png", help="draw time and memory, both axes logarithmic (needs matplotlib)")
    sub.add_argument("--json", metavar="OUT.json", help="write every figure")
    engines.add_options(sub, "eager", "; all curves are measured on eager, and any other backend gets one more of Reversible")


def main(args: argparse.Namespace) -> int:
    """Measure, print, write. The exit status is 0 whatever the verdict: it is a measurement."""
    ns = [n for n in NS if n <= args.most]
    if len(ns) < 2 or args.repeats < 1 or args.seed < 0 or not args.limit > 0:
        raise UserError(f"--most {args.most} --repeats {args.repeats} --seed {args.seed} --limit {args.limit:g}: at least 200 "
                        "steps, 1 repetition, a seed of 0 or more, and more than 0 seconds are needed")
    for path in (args.plot, args.json):
        if path is not None and not Path(path).resolve().parent.is_dir():
            raise UserError(f"{path} cannot be written, because its folder does not exist; create it first")
    this, beside = machine(), engine_of(args)
    busy = "" if this["load"] is None else f", load average {this['load']:.1f}"
    print(f"complexity: MLP 1-10-1 (tanh), midpoint and Coupled midpoint (lam = 0.999), steps of {H}, loss y(t_n)^2, float64\n"
          f"  n = {', '.join(map(str, ns))}; median of {args.repeats}, interleaved\n"
          f"  backend: eager (the tape){'' if beside == EAGER else f', and one more curve by {beside}'}\n"
          f"  {this['cpus']} CPUs{busy}, {this['system']}, Python {this['python']}, NumPy {this['numpy']}", flush=True)
    found = curves(beside)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RevodeWarning)
        notes = measure(found, ns, parameters(args.seed), args.repeats, args.limit)
    if caught:
        notes.append(f"{len(caught)} warnings; the first: {caught[0].message}")
    judged = verdicts(found)
    notes.append(against_base(found))
    print("\n" + summary(found))
    for claim, holds, figures in judged:
        print(textwrap.fill(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}: {figures}.", 118, subsequent_indent="  "))
    for note in notes:
        print(textwrap.fill(note, 118, subsequent_indent="  "))
    print("\n" + tables.published(PUBLISHED))
    if args.json is not None:
        write_json(args, this, found, judged, notes)
        print(f"wrote {args.json}")
    if args.plot is not None:
        plot(found, args.plot)
        print(f"wrote {args.plot}")
    return 0


def write_json(args: argparse.Namespace, this: dict, found: Sequence[Curve], judged: Sequence, notes: Sequence[str]) -> None:
    """Seconds, bytes and plain numbers."""
    rows = [{**asdict(curve), "method": repr(curve.method), "gradient": repr(curve.gradient)} for curve in found]
    Path(args.json).write_text(json.dumps(finite({
        "schema": SCHEMA, "revode": __version__, "command": "complexity", "settings": {
            "most": args.most, "repeats": args.repeats, "seed": args.seed, "limit": args.limit, "h": H},
        "machine": this, "curves": rows, "verdicts": [{"claim": c, "holds": h, "figures": f} for c, h, f in judged],
        "notes": list(notes), "published": PUBLISHED._asdict()}), indent=1, allow_nan=False) + "\n")


def plot(found: Sequence[Curve], path: str) -> None:
    """Time and memory against n, both axes logarithmic: Reversible thick, the Coupled method in full lines, the base dashed."""
    from matplotlib.figure import Figure

    from ..plotting import COLOURS, save
    figure = Figure(figsize=(11.0, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2)
    modes = {name: i for i, name in enumerate(dict.fromkeys(curve.name.split(",")[0] for curve in found))}
    for curve in found:
        i = modes[curve.name.split(",")[0]]
        style = {"color": COLOURS[(i + 1) % len(COLOURS)], "ls": "--" if not curve.coupled else "-" if curve.engine == EAGER else ":",
                 "lw": 3.0 if i == 0 else 1.2,
                 "marker": "o", "ms": 5 if i == 0 else 2.5, "zorder": 3 if i == 0 else 2}
        label = curve.name + ("" if curve.slope is None else f" (slope {curve.slope:.2f})")
        axes[0].loglog(list(curve.seconds), [curve.median(n) for n in curve.seconds], label=label, **style)
        if curve.peak_bytes:
            axes[1].loglog(list(curve.peak_bytes), [size / 1024 for size in curve.peak_bytes.values()], **style)
    late = max(found[0].seconds)
    start = slope_start(found[0].seconds)
    axes[0].set(xlabel="steps n", ylabel="s", title=f"time of loss and gradient (slopes from n = {start} to {late})")
    axes[1].set(xlabel="steps n", ylabel="KiB", title="peak memory of one gradient")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=7.5)
    save(figure, path)


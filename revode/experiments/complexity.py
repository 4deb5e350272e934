"""revode complexity: what a gradient costs as the number of steps grows.

    y' = MLP(y), 1-10-1 tanh, y(0) = 1, n steps of 0.01;    loss = y(t_n)^2;    time of loss and
    gradient against n

Reversible: n steps and n steps back, so time ~ n with flat memory. Checkpointed(c): about r n steps
again, where C(c + r, c) >= n, so time ~ n^(1 + 1/c) for few checkpoints. The two are compared on
the same method, and Checkpointed also on the base alone, which evaluates half as often because it
need not be reversible. All curves are measured on one backend, by default the tape; claims are
about curves that truly ran on that of Reversible.

A slope, and a time over another, is the mean of the repetitions, with an interval of 95 %; a claim whose
interval lies on both sides cannot be told. Source: McCallum & Foster 2024, arXiv 2410.11648
(figure and table of complexity).
"""
from __future__ import annotations

import math
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import nn, plotting
from ..analysis.order import observed_order
from ..engine.derivatives import value_and_grad
from ..gradients import Checkpointed, Direct, Reversible
from ..methods import Coupled, RungeKutta
from . import backends, names, tables
from .backends import Solver, UserError
from .measuring import half_width, peak_memory, relative_error
from .options import whole
from .runner import Plan, Report, shown
from .tables import Published

H = 0.01
NS = (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1500, 2000, 3000)
CHECKPOINTS = (2, 4, 8, 16, 31, 44)
MEMORY_NS = (100, 300, 1000, 3000)
SLOPE_FROM = 1000        # steps; below, what a solve costs once still shows
LIMIT = 20.0             # seconds of one gradient; what would take longer is left out, with a note
SLOPE = 0.05             # how far from 1 the slope of Reversible may be
FLAT = 0.05              # how much its memory may grow, beyond GRIDS numbers a step
GRIDS = 2                # arrays of n numbers that a solve makes at its peak: the steps, and one while they are checked
JUDGED = 3               # repetitions, at least, for a verdict about times

PUBLISHED = Published(
    "McCallum & Foster 2024, n = 1000; GPU, compiled JAX", ("gradient mode", "forward + backward"),
    (("reversible", "0.073 s"), ("checkpointed:2", "15.06 s"), ("checkpointed:4", "1.67 s"), ("checkpointed:8", "0.63 s"),
     ("checkpointed:44", "0.30 s")))


@dataclass
class Curve:
    """One gradient mode on one method, and what was measured for it: number of steps -> figure."""
    solve: Solver
    seconds: dict[int, list[float]] = field(default_factory=dict)      # of each repetition
    loss: dict[int, float] = field(default_factory=dict)
    gradient_error: dict[int, float] = field(default_factory=dict)     # against Direct on the same method
    peak_bytes: dict[int, int] = field(default_factory=dict)
    backend: str = ""                                                  # that truly ran it
    slope: float | None = None
    slope_width: float | None = None                                   # half of its interval

    @property
    def name(self) -> str:
        return names.spell(self.solve.gradient) + ("" if self.coupled else ", base")

    @property
    def coupled(self) -> bool:
        return isinstance(self.solve.method, Coupled)

    @property
    def checkpoints(self) -> int | None:
        return self.solve.gradient.n if isinstance(self.solve.gradient, Checkpointed) else None

    def median(self, n: int) -> float:
        return statistics.median(self.seconds[n])

    def gradient(self, n: int, params: Any) -> tuple:
        """((loss, Solution), gradient) of n steps."""
        return value_and_grad(objective(n), has_aux=True)(params, self.solve)

    def row(self) -> dict:
        return {"name": self.name, "method": repr(self.solve.method)} | {x: y for x, y in vars(self).items() if x != "solve"}


TAPE = Solver(backend="eager")


def curves(solver: Solver = TAPE) -> list[Curve]:
    """The first is Reversible; Direct comes before the Checkpointed curves of its method, as the truth for them."""
    coupled = Coupled("midpoint", lam=0.999)
    modes = (Direct(), *map(Checkpointed, CHECKPOINTS))
    return [Curve(replace(solver, method=coupled, gradient=Reversible())),
            *(Curve(replace(solver, method=method, gradient=mode)) for method in (coupled, RungeKutta("midpoint")) for mode in modes)]


def objective(n: int) -> Callable:
    """(params, solve) -> (loss of n steps, Solution)."""
    ts = H * np.arange(n + 1)

    def loss(params: Any, solve: Any) -> tuple:
        sol = solve(lambda t, y, params: nn.mlp(params, y), np.ones(1), ts, params, save=[-1])
        return np.sum(np.square(sol.y1)), sol

    return loss


def parameters(seed: int) -> Any:
    return nn.mlp_init(np.random.default_rng(seed), (1, 10, 1), nn.uniform, random_biases=True)


# Measuring ------------------------------------------------------------------------------------------------------------------------
def measure(found: Sequence[Curve], ns: Sequence[int], params: Any, repeats: int, limit: float = LIMIT) -> list[str]:
    """Fill the curves; returns notes on what was left out. Repetitions are interleaved, so that a slow moment hits all."""
    jobs, notes = agree(found, ns, params, limit)
    for curve, n in shown(jobs * repeats, "time"):
        start = time.perf_counter()
        curve.gradient(n, params)
        curve.seconds[n].append(time.perf_counter() - start)
    for curve in found:
        fit_slope(curve, ns)
    # With allocations traced everything takes about four times as long.
    wanted = [n for n in ns if n in MEMORY_NS] or [ns[0], ns[-1]]
    for curve, n in shown([(curve, n) for curve, n in jobs if n in wanted and 4 * curve.median(n) < limit], "memory"):
        curve.peak_bytes[n] = peak_memory(lambda curve=curve, n=n: curve.gradient(n, params))[0]
    return notes


def agree(found: Sequence[Curve], ns: Sequence[int], params: Any, limit: float) -> tuple[list[tuple[Curve, int]], list[str]]:
    """One gradient of each, those of Direct first: losses, errors against Direct, and who ran it. Returns the (curve, n) to time, and
    notes on what would take longer than `limit` seconds, by the steps before it and time ~ n^(3/2), that of two checkpoints."""
    truths: dict[tuple[bool, int], Any] = {}
    jobs, notes, is_direct = [], [], lambda curve: isinstance(curve.solve.gradient, Direct)
    for curve in shown(sorted(found, key=is_direct, reverse=True), "agreement"):
        took = 0.0
        for before, n in zip((ns[0], *ns), ns, strict=False):
            if took * (n / before) ** 1.5 > limit:
                notes.append(f"{curve.name} was left out for n = {', '.join(str(m) for m in ns if m >= n)}: one gradient would take "
                             f"more than {limit:g} s.")
                break
            start = time.perf_counter()
            (value, sol), grads = curve.gradient(n, params)
            took = time.perf_counter() - start
            curve.loss[n], curve.backend, curve.seconds[n] = float(value), sol.stats.backend, []
            truth = truths.setdefault((curve.coupled, n), grads) if is_direct(curve) else truths.get((curve.coupled, n))
            if truth is not None:
                curve.gradient_error[n] = relative_error(grads, truth)
            jobs.append((curve, n))
    return jobs, notes


def slope_start(ns: Iterable[int]) -> int:
    """From where on the slope is taken: SLOPE_FROM, or the upper half of a shorter list."""
    ns = sorted(ns)
    late = [n for n in ns if n >= SLOPE_FROM]
    return late[0] if len(late) > 1 else ns[len(ns) // 2]


def fit_slope(curve: Curve, ns: Sequence[int]) -> None:
    """The exponent p of seconds ~ n^p: the mean of those of the repetitions, and its interval. None from fewer than two points."""
    late = {n: seconds for n, seconds in curve.seconds.items() if n >= slope_start(ns)}
    if len(late) > 1:
        slopes = [observed_order(list(late), seconds) for seconds in zip(*late.values(), strict=True)]
        curve.slope, curve.slope_width = statistics.fmean(slopes), half_width(slopes)


# Judging --------------------------------------------------------------------------------------------------------------------------
Verdict = tuple[str, bool | None, str]       # a claim, does it hold (None: it cannot be told), the figures
SAID = {True: "holds", False: "DOES NOT HOLD", None: "cannot be told"}


def within(interval: tuple[float, float], least: float, most: float = math.inf) -> bool | None:
    """Whether a figure that is known by its interval lies there; None where part of the interval does."""
    low, high = interval
    return True if least < low and high < most else False if high <= least or most <= low else None


def verdicts(found: Sequence[Curve]) -> list[Verdict]:
    """The claims of the experiment. From fewer than JUDGED repetitions none about times."""
    first = found[0]
    timed = min((len(seconds) for seconds in first.seconds.values()), default=0) >= JUDGED
    rivals = [(curve, n) for curve in found[1:]
              if curve.coupled and curve.checkpoints is not None and curve.backend == first.backend
              for n in curve.seconds if n in first.seconds and curve.checkpoints ** 2 <= n]
    # Forward solves are the same operations, so their losses are the same bits.
    off = max((abs(curve.loss[n] - first.loss[n]) / abs(first.loss[n]) for curve, n in rivals), default=0.0)
    equal: Verdict = ("at equal loss", off == 0, f"largest relative difference {off:.1e}")
    return [*(faster(first, rivals) if timed and rivals else []), *([equal] if rivals else []), *flat(first),
            *(linear(first) if timed else [])]


def over(first: Curve, curve: Curve, n: int) -> tuple[float, float]:
    """The time of a curve over that of the first in the same repetition: the interval of its mean, by logarithms. What was ended
    early has fewer repetitions of some."""
    logs = np.log([y / x for x, y in zip(first.seconds[n], curve.seconds[n], strict=False)])
    low, high = np.exp(logs.mean() + np.array([-1, 1]) * half_width(logs.tolist()))
    return float(low), float(high)


def faster(first: Curve, rivals: Sequence[tuple[Curve, int]]) -> list[Verdict]:
    """Reversible against Checkpointed(c) for c up to sqrt(n), on the same method and backend."""
    told: dict[bool | None, list[str]] = {False: [], None: [], True: []}
    for (low, high), curve, n in sorted(((over(first, curve, n), curve, n) for curve, n in rivals), key=lambda rival: rival[0]):
        told[within((low, high), 1.0)].append(f"x{low:.2f} to x{high:.2f} against {curve.name} at n = {n}")
    holds = next(holds for holds, said in told.items() if said)
    return [("Reversible is faster than Checkpointed(c) on the same method, for every c up to sqrt(n)", holds,
             f"at least {told[holds][0]}" if holds else ", ".join(told[holds]))]


def flat(first: Curve) -> list[Verdict]:
    """The memory of Reversible, which repeats to the byte."""
    if len(first.peak_bytes) < 2:
        return []
    (few, least), *_, (many, most) = sorted(first.peak_bytes.items())
    return [(f"with flat memory from n = {few} to {many}, beyond {GRIDS} numbers of 8 bytes a step",
             (most - least - 8 * GRIDS * (many - few)) / least < FLAT,
             f"{tables.size(least)} to {tables.size(most)}, {(most - least) / (many - few):.1f} bytes a step")]


def linear(first: Curve) -> list[Verdict]:
    """The time of Reversible."""
    if (p := first.slope) is None or (half := first.slope_width) is None:
        return []
    return [(f"Reversible's time grows as n^p with p within {SLOPE} of 1 from n = {slope_start(first.seconds)} up",
             within((p - half, p + half), 1 - SLOPE, 1 + SLOPE), f"p = {p:.3f} +- {half:.3f}")]


def against_base(found: Sequence[Curve]) -> str:
    """Where checkpointing the base method, which need not be reversible, is the faster way; a sentence."""
    n = 1000 if 1000 in found[0].seconds else max(found[0].seconds)
    ratio = {curve.checkpoints: over(found[0], curve, n) for curve in found
              if not curve.coupled and curve.checkpoints is not None and n in curve.seconds}
    said = []
    for told, what in (True, "faster than Reversible for"), (None, "not to be told from it for"):
        mine = [f"c = {c} (x{x[0]:.2f} to x{x[1]:.2f} of the time)" for c, x in ratio.items() if within(x, 0.0, 1.0) is told]
        said += [f"{what} {', '.join(mine)}"] * bool(mine)
    return (f"Not the same method: Checkpointed(c) on the plain midpoint base, with half the evaluations a step, at n = {n} is "
            + ("; ".join(said) or "slower than Reversible for every c") + ".")


def judge(found: Sequence[Curve], repeats: int, report: Report) -> None:
    """Verdicts, as notes and for the JSON file."""
    if not found or found[0].solve.gradient != Reversible():
        return
    judged = verdicts(found)
    report.more["verdicts"] = [{"claim": claim, "holds": holds, "figures": figures} for claim, holds, figures in judged]
    report.notes += [f"{SAID[holds]}: {claim}: {figures}." for claim, holds, figures in judged]
    report.notes += [f"No verdict about times from fewer than {JUDGED} repetitions."] * (repeats < JUDGED)
    report.notes += ["What cannot be told lies within an interval of 95 %; more --repeats make those narrower."] * any(
        holds is None for _, holds, _ in judged)
    report.notes += [against_base(found)] * (repeats >= JUDGED)
    if elsewhere := [curve.name for curve in found if curve.backend != found[0].backend]:
        report.notes.append(f"Not on {found[0].backend}, and so no part of the claims: {', '.join(elsewhere)}.")


# The command ----------------------------------------------------------------------------------------------------------------------
def add_options(parser: Any) -> None:
    parser.add_argument("--most", type=whole(1), default=NS[-1], metavar="N", help=f"leave out more steps; default {NS[-1]}")
    parser.add_argument("--repeats", type=whole(1), default=JUDGED, metavar="R",
                        help=f"of each timing, the median counts; default {JUDGED}")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="S",
                        help=f"leave out what takes more seconds for one gradient; default {LIMIT:g}")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the parameters; default 0")
    backends.add_options(parser, auto="the tape")


def plan(args: Namespace) -> Plan:
    ns = [n for n in NS if n <= args.most]
    if len(ns) < 2 or not args.limit > 0:
        raise UserError(f"--most {args.most} --limit {args.limit:g}: at least 200 steps and more than 0 seconds are needed")
    solver = backends.chosen(args, "eager")
    found = curves(solver)

    def work(report: Report) -> None:
        try:
            report.notes += measure(found, ns, parameters(args.seed), args.repeats, args.limit)
        finally:
            for curve in found:
                curve.seconds = {n: seconds for n, seconds in curve.seconds.items() if seconds}
            found[:] = [curve for curve in found if curve.seconds]
            report.rows += [curve.row() for curve in found]
            judge(found, args.repeats, report)

    return Plan(["complexity: MLP 1-10-1 (tanh), midpoint and Coupled midpoint (lam = 0.999), float64",
                 f"steps of {H}, loss y(t_n)^2, n = {', '.join(map(str, ns))}",
                 f"median of {args.repeats}, interleaved; backend: {solver}"],
                work, lambda report: rendered(found), lambda report: picture(found), {"h": H}, PUBLISHED)


def rendered(rows: Sequence[Curve]) -> list[str]:
    """A line for each curve: its times, with the backend where it is not one for all; its memory and its error."""
    first = rows[0]
    last = max(first.seconds)
    at = 1000 if 1000 in first.seconds else last
    ns = [m for m in (100, 1000) if m in first.seconds and m != last] + [last]
    memory = sorted({*sorted(first.peak_bytes)[:1], *sorted(first.peak_bytes)[-1:]})
    alike = len({curve.backend for curve in rows}) == 1
    time_at = lambda m: lambda c: tables.seconds(c.median(m)) if m in c.seconds else "-"
    size_at = lambda m: lambda c: tables.size(c.peak_bytes[m]) if m in c.peak_bytes else "-"
    figure = lambda x: "-" if x is None or math.isinf(x) else f"{x:.2f}"
    return [tables.columns(rows, (
        ("time of\na gradient", lambda c: c.name),
        *((f"\nn = {m}", time_at(m)) for m in ns),
        ("over re-\nversible", lambda c: figure(c.median(at) / first.median(at) if at in c.seconds else None)),
        ("slope\nof time", lambda c: figure(c.slope)),
        ("95 %\n+-", lambda c: figure(c.slope_width)),
        ("\nbackend", lambda c: "-" if alike else c.backend))), tables.columns(rows, (
            ("memory of it,\nand its error", lambda c: c.name),
            *((f"\nn = {m}", size_at(m)) for m in memory),
            (f"error\nn = {at}", lambda c: tables.small(c.gradient_error.get(at)))))]


def picture(found: Sequence[Curve]) -> tuple[Any, str]:
    """Time of the coupled method and of the plain base, and memory, against n, all logarithmic."""
    figure, axes = plotting.canvas(3, width=5.2, height=5.0)
    first = found[0]
    for curve in found:
        draw(axes, curve, curve is first)
    for ax, title, label in zip(axes, ("time, same method", "time, plain base", "memory"),
                                ("time of a gradient, s", "", "peak memory, KiB"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="steps n", title=title, ylabel=label)
        ax.set_xticks(*([n for n in (100, 300, 1000, 3000) if n in first.seconds],) * 2)
        ax.xaxis.minorticks_off()
    limits = [limit for ax in axes[:2] for limit in ax.get_ylim()]
    for ax in axes[:2]:
        ax.set_ylim(min(limits), max(limits))
    for ax in axes:
        plotting.plain_ticks(ax.yaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    slopes = "; ".join(f"{curve.name} {curve.slope:.2f}" for curve in found if curve.slope is not None)
    return figure, ("Time of a gradient against the number of steps, for the same method and for its plain base, and peak memory: "
                    f"Reversible has flat memory and time in proportion to n. Slopes: {slopes}.")


def draw(axes: Any, curve: Curve, first: bool) -> None:
    """One curve: Reversible thick, in both panels of time; Direct black; Checkpointed the lighter the more states."""
    from matplotlib import colormaps
    c = curve.checkpoints
    label, colour = ("reversible", plotting.COLOURS[1]) if first else ("direct", plotting.COLOURS[6]) if c is None else (
        f"checkpointed, {c}", colormaps["viridis"](CHECKPOINTS.index(c) / len(CHECKPOINTS)))
    style: Any = {"color": colour, "lw": 4.0 if first else 1.6, "marker": "o", "ms": 6 if first else 4, "zorder": 2 + first}
    for ax in axes[:2] if first else axes[:1] if curve.coupled else axes[1:2]:
        ax.plot(list(curve.seconds), [curve.median(n) for n in curve.seconds], label=label, **style)
    if curve.peak_bytes and curve.coupled:
        axes[2].plot(list(curve.peak_bytes), [size / 1024 for size in curve.peak_bytes.values()], **style)

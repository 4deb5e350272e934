"""`revode convergence --sde`: strong and weak order of methods on stochastic equations, by
regression, with intervals.

    dy = sin(y A) dt + g(y) o dW on [0, 1]        two dimensions; Stratonovich
        additive    g a constant matrix
        diagonal    g_i a function of y_i (noise that commutes)
        general     a matrix whose columns do not commute

    strong error   sqrt(E |y_h(1) - y(1)|^2)       on the same path;
    weak error     |E[sum y_h(1)^2] - E[sum y(1)^2]|

The truth is a solve by RK4 on more steps (4 times those of the finest; weak: 8 times, after larger
steps and on more paths), on the same BrownianTree, which also makes the weak error a mean of small
differences instead of a small difference of means. Its own error bends slopes up, by BIAS at most.

Intervals are of 95 %. An interval of a slope is slope +- t s / sqrt(groups), from the slopes of
groups of paths (strong), or the same from leaving one group out at a time (jackknife; weak). A weak
error counts where it is larger than its own interval. A weak order is told from at least three that
count and have one sign, and where its interval is narrower than RESOLVED. Expected: strong 1 for
additive and diagonal noise, 1/2 for general noise (no method that sees increments alone does
better: Clark & Cameron 1980); weak 1, and more for additive noise.
"""
from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .. import plotting
from ..analysis.order import observed_order
from ..methods import EES25, EES27, Coupled, ReversibleHeun, RungeKutta
from ..paths import BrownianTree
from ..solve import solve
from ..watch import RevodeWarning
from . import tables
from .measuring import half_width
from .runner import Plan, Report, shown

A = np.array([[-0.5, 0.3], [-0.2, -0.4]])
C = np.array([[0.5, 0.2], [-0.1, 0.4]])
START = (0.6, -0.3)
STEPS, PATHS = (8, 16, 32, 64), 512
WEAK_STEPS, WEAK_PATHS = (2, 4, 8, 16), 8192
GROUPS, RESOLVED = 8, 0.5
NORMAL = 1.96                     # 97.5 % of the normal distribution
BIAS = 0.07                       # of a strong slope of 1/2: log2(1 / sqrt(1 - 1/4)) / 3, over three halvings
EXPECTED = {"additive": 1.0, "diagonal": 1.0, "general": 0.5}       # strong
METHODS = {"reversible Heun": ReversibleHeun(), "coupled midpoint": Coupled("midpoint"), "coupled RK4": Coupled("rk4"),
           "EES25": EES25(), "EES27": EES27(), "Heun": RungeKutta("heun2")}


def drift(t: Any, y: Any, params: Any) -> Any:
    return np.sin(y @ A)


def additive(t: Any, y: Any, params: Any) -> Any:
    return C + 0 * y[..., None]


def diagonal(t: Any, y: Any, params: Any) -> Any:
    return 0.2 + 0.5 * np.cos(y)


def general(t: Any, y: Any, params: Any) -> Any:
    a, b = y[..., 0], y[..., 1]
    rows = (0.5 * np.cos(b), 0.6 * a), (0.7 * b, 0.3 + 0.5 * np.sin(a))
    return np.stack([np.stack(row, -1) for row in rows], -2)


NOISES = {"additive": additive, "diagonal": diagonal, "general": general}


def end(diffusion: Any, method: Any, steps: int, paths: int, seed: int) -> Any:
    """y(1), shape (paths, 2), after so many steps on the paths of this seed."""
    noise = BrownianTree(seed, 0.0, 1.0, tol=1 / 256)
    with warnings.catch_warnings():
        # The largest steps are coarse on purpose, and the copies of some path out of hundreds then part for a while.
        warnings.simplefilter("ignore", RevodeWarning)
        return solve(drift, np.tile(START, (paths, 1)), np.linspace(0.0, 1.0, steps + 1), method=method, diffusion=diffusion,
                     noise=noise, save=[-1]).y1


def fitted(errors: Any, steps: Any) -> float:
    return observed_order([1 / n for n in steps], errors)


def strong(ends: list, truth: Any, steps: tuple[int, ...]) -> dict:
    """Errors and half widths of their intervals, (steps,); their slope and its half width, from the slopes of groups of paths."""
    squares = np.stack([np.sum((y - truth) ** 2, -1) for y in ends])             # (steps, paths)
    errors = np.sqrt(squares.mean(-1))
    bands = NORMAL * squares.std(-1) / np.sqrt(squares.shape[1]) / (2 * errors)
    slopes = [fitted(np.sqrt(part.mean(-1)), steps) for part in np.split(squares, GROUPS, 1)]
    return {"errors": errors, "bands": bands, "order": fitted(errors, steps),
            "width": half_width(slopes), "resolved": True}


def weak(ends: list, truth: Any, steps: tuple[int, ...]) -> dict:
    """The same for the error of E[sum y^2], from the steps whose error counts; the interval of the slope by leaving out one group
    at a time."""
    shifts = np.stack([np.sum(y ** 2, -1) - np.sum(truth ** 2, -1) for y in ends])
    errors, bands = abs(shifts.mean(-1)), NORMAL * shifts.std(-1) / np.sqrt(shifts.shape[1])
    counts = errors > bands
    signs = set(np.sign(shifts.mean(-1))[counts])
    if counts.sum() < 3 or len(signs) > 1:
        return {"errors": errors, "bands": bands, "order": None, "width": None, "resolved": False}
    used = np.array(steps)[counts]
    slopes = [fitted(abs(np.delete(shifts, group, 1).mean(-1))[counts], used) for group in np.split(np.arange(len(truth)), GROUPS)]
    width = half_width(slopes) * (GROUPS - 1)                # jackknife: each has left out so small a part
    return {"errors": errors, "bands": bands, "order": fitted(errors[counts], used), "width": width, "resolved": width < RESOLVED}


def rows_of(kind: str, names: Any = tuple(METHODS), seed: int = 0, weak_paths: int = WEAK_PATHS) -> Any:
    """A row for each method with this kind of noise; weak_paths=0 leaves the weak order out."""
    g, fine = NOISES[kind], RungeKutta("rk4")
    truth = end(g, fine, 4 * STEPS[-1], PATHS, seed)
    mean = end(g, fine, 8 * WEAK_STEPS[-1], weak_paths, seed) if weak_paths else None
    for name in names:
        method = METHODS[name]
        row = {"noise": kind, "method": name, "expected": EXPECTED[kind],
               "strong": strong([end(g, method, n, PATHS, seed) for n in STEPS], truth, STEPS)}
        if weak_paths:
            row["weak"] = weak([end(g, method, n, weak_paths, seed) for n in WEAK_STEPS], mean, WEAK_STEPS)
        yield row


def told(row: dict, kind: str) -> str:
    found = row.get(kind)
    if not found or not found["resolved"]:
        return "not resolved"
    return f"{found['order']:.2f} +- {found['width']:.2f}"


def as_expected(row: dict) -> str:
    """Whether the expected strong order is in the interval, the bias of the reference allowed for."""
    off, width = row["strong"]["order"] - row["expected"], row["strong"]["width"]
    return "yes" if -width <= off <= width + BIAS else "NO"


def rendered(rows: list[dict]) -> list[str]:
    at = lambda i: lambda row: f"{row['strong']['errors'][i]:.1e} +- {row['strong']['bands'][i]:.0e}"
    name = ("noise, method", lambda row: f"{row['noise']}, {row['method']}")
    orders = (("strong\norder", lambda row: told(row, "strong")), ("\nexpected", lambda row: f"{row['expected']:g}"),
              ("as ex-\npected", as_expected), ("weak\norder", lambda row: told(row, "weak")))
    errors = ((f"strong error\nh = 1/{STEPS[0]}", at(0)), (f"\nh = 1/{STEPS[-1]}", at(-1)))
    return [tables.columns(rows, (name, *said)) for said in (orders, errors)]


def plan() -> Plan:
    def work(report: Report) -> None:
        for kind in shown(list(NOISES), "kinds of noise"):
            report.rows += rows_of(kind)
        report.notes += [
            f"Intervals are of 95 %. 'as expected': the expected strong order is in the interval, a bias of the reference of {BIAS:g} "
            "allowed for.",
            "A weak order is told where at least three weak errors are larger than their own intervals and of one sign, and its "
            f"interval is narrower than +- {RESOLVED:g}."]

    return Plan(["convergence --sde: dy = sin(y A) dt + g(y) o dW on [0, 1]; "
                 f"{PATHS} paths for the strong order, {WEAK_PATHS:,} for the weak one"],
                work, lambda report: rendered(report.rows), lambda report: picture(report.rows),
                {"problem": __doc__, "steps": STEPS, "paths": PATHS, "weak steps": WEAK_STEPS, "weak paths": WEAK_PATHS})


def picture(rows: list[dict]) -> tuple[Any, str]:
    """Strong errors (above) and weak ones (below) against h with their intervals, a column for each kind of noise."""
    from matplotlib.lines import Line2D
    figure, axes = plotting.canvas(6, width=4.8, height=3.7)
    panels = [*(("strong", kind, STEPS, EXPECTED[kind], 8e-4) for kind in NOISES),
              *(("weak", kind, WEAK_STEPS, 1.0, 1e-5) for kind in NOISES)]
    for ax, (which, kind, steps, expected, least) in zip(axes, panels, strict=True):
        panel(ax, [row[which] for row in rows if row["noise"] == kind], steps, expected)
        ax.set(title=f"{which}, {kind} noise: slope {expected:g}", ylim=(least, 0.15))
    for ax in axes[[0, 3]]:
        ax.set_ylabel("error")
    names = dict.fromkeys(row["method"] for row in rows)
    handles = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in zip(names, plotting.COLOURS, strict=False)]
    handles += [Line2D([], [], color="#444444", ls=":", label="expected slope"),
                Line2D([], [], color="#444444", ls="", marker="o", mfc="white", label="within its 95 % band")]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure, ("Strong and weak errors against the step, with bands of 95 %, for three kinds of noise and six methods. Hollow "
                    "points: errors that are no larger than their band.")


def panel(ax: Any, found: list[dict], steps: tuple[int, ...], expected: float) -> None:
    h = np.array([1 / n for n in steps])
    for i, row in enumerate(found):
        # Shifted a little for each method, or the intervals of several would cover one another.
        errors, bands, colour = row["errors"], row["bands"], plotting.COLOURS[i]
        at = h * 1.035 ** (i - 2.5)
        ax.fill_between(at, np.maximum(errors - bands, 1e-9), errors + bands, color=colour, alpha=0.15, lw=0)
        ax.plot(at, errors, "-", color=colour, lw=1.2)
        for counts, fill in ((errors > bands, colour), (errors <= bands, "white")):
            ax.plot(at[counts], errors[counts], "o", ms=6, color=colour, mfc=fill)
    if found:
        ax.plot(h, 0.4 * min(row["errors"][0] for row in found) * (h / h[0]) ** expected, ":", color="#444444")
    ax.set(xscale="log", yscale="log", xlabel="step h")
    ax.set_xticks(h, [f"1/{n}" for n in steps])
    ax.xaxis.minorticks_off()
    ax.grid(True, which="major", lw=0.4, color="#cccccc")

"""Figures of a training run: the fit, the loss, and what each gradient mode costs. Needs matplotlib, imported inside.

Figures are made without pyplot, so no display, no window and no global state is involved.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Okabe & Ito's colours, which can be told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
NAME_SIZE = 8                              # of the names in the scatter, in points, with the room that they take
NAME_HEIGHT, NAME_WIDTH = 10.0, 85.0
STAR = 14.0                                # from the star of reversible down to its name


def training(experiment: Any, ys: Any, losses: dict[str, list[float]], rows: Sequence[Any] = (),
             draw: Callable | None = None) -> Any:
    """One figure: fit against truth, loss curves, and with two or more rows the time and memory of each gradient mode.

    Parameters
    ----------
    ys : the solution at the trained parameters, shaped like experiment.target.
    losses : gradient mode -> its losses.
    rows : training.Row, one for each gradient mode.
    draw : draw(axes), in place of the fit of every component against t.

    Returns a matplotlib Figure; `save` writes it. Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure
    panels = 3 if len(rows) > 1 else 2
    figure = Figure(figsize=(4.8 * panels, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots(1, panels)
    if draw is not None:
        draw(axes[0])
    else:
        fit(axes[0], experiment.ts, np.asarray(experiment.target), np.asarray(ys), experiment.labels)
    loss_curves(axes[1], losses)
    if panels == 3:
        time_against_memory(axes[2], rows)
    figure.suptitle(f"{experiment.name}, {experiment.steps:,} {'saved intervals' if experiment.adaptive else 'steps'}")
    return figure


def save(figure: Any, path: str) -> None:
    """Write a figure; the ending of the path says how (png, pdf, svg)."""
    figure.savefig(path)


def fit(ax: Any, ts: np.ndarray, target: np.ndarray, ys: np.ndarray, labels: Sequence[str]) -> None:
    """Data as wide pale lines, the fit as thin dark ones on top; every component of one trajectory."""
    for i, label in enumerate(labels):
        ax.plot(ts, target[..., i], color=COLOURS[i], lw=5, alpha=0.35, label=f"{label}, data")
        ax.plot(ts, ys[..., i], color=COLOURS[i], lw=1.3, ls="--", label=f"{label}, fit")
    low, high = ax.get_ylim()
    room = 0.08 * len(labels) * (high - low)           # for the legend, above the data
    ax.set(xlabel="t", title="fit against data", ylim=(low, high + room))
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")


def loss_curves(ax: Any, losses: dict[str, list[float]]) -> None:
    """Loss against iteration, logarithmic; a point where the loss is least."""
    for i, (name, values) in enumerate(losses.items()):
        best = int(np.argmin(values))
        colour = COLOURS[i % len(COLOURS)]
        ax.semilogy(values, color=colour, lw=1.3, ls="-" if i == 0 else "--", label=f"{name}: best {values[best]:.2e}")
        ax.plot(best, values[best], "o", color=colour, ms=4)
    ax.set(xlabel="iteration", ylabel="loss", title="training")
    ax.legend(frameon=False)


def time_against_memory(ax: Any, rows: Sequence[Any]) -> None:
    """Time per iteration (over that of reversible, if known) against peak memory, logarithmic, each mode by name."""
    relative = all(row.relative is not None for row in rows)
    points = [(row.peak_bytes / 2**20, row.relative if relative else row.seconds_per_iteration, row.gradient)
              for row in rows]
    chain = [(x, y) for x, y, name in points if name.startswith("checkpointed")]
    if chain:
        ax.plot(*zip(*chain, strict=True), color="#999999", lw=0.8, zorder=1)
    for x, y, name in points:
        first = name.startswith("reversible")
        ax.plot(x, y, "*" if first else "o", color=COLOURS[1 if first else 0], ms=13 if first else 6, zorder=2)
    ax.set(xscale="log", yscale="log", title="gradient modes", xlabel="peak memory of one iteration, MiB",
           ylabel="time per iteration (reversible: 1)" if relative else "time per iteration, s")
    ax.margins(0.3)
    plain_ticks(ax)
    label_points(ax, points)


def plain_ticks(ax: Any) -> None:
    """1, 2, 5, 10 ... instead of powers of ten: these axes span about one decade; more of them where it is less."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high > 8 * low else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def label_points(ax: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each name to the right of its point, moved down along a thin line where it would cover another; that of
    reversible goes below its star, because the others crowd to the right of it."""
    ax.get_figure().draw_without_rendering()          # fixes the limits, so that data can be turned into points
    pixels = ax.transData.transform([(x, y) for x, y, _ in points]) * 72 / ax.get_figure().dpi
    placed: list[tuple[float, float]] = []
    for (px, py), (x, y, name) in sorted(zip(pixels.tolist(), points, strict=True),
                                         key=lambda item: (not item[1][2].startswith("reversible"), -item[0][1])):
        if name.startswith("reversible"):
            placed.append((px - NAME_WIDTH / 2, py - STAR))
            ax.annotate(name, (x, y), (0, -STAR), textcoords="offset points", ha="center", va="center", size=NAME_SIZE)
            continue
        at = py
        while hits := [y for x, y in placed if abs(px - x) < NAME_WIDTH and abs(at - y) < NAME_HEIGHT]:
            at = min(hits) - 1.001 * NAME_HEIGHT      # a little more, so that rounding does not keep it there
        placed.append((px, at))
        ax.annotate(name, (x, y), (16, at - py), textcoords="offset points", va="center", fontsize=NAME_SIZE,
                    annotation_clip=False, arrowprops={"arrowstyle": "-", "color": "#999999", "lw": 0.6, "shrinkA": 0,
                                                       "shrinkB": 4})

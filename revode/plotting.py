"""Figures of the commands: fits, losses, and what each gradient mode costs. Needs matplotlib,
imported inside.

Figures are made without pyplot, so no display, no window and no global state is involved. Sizes are
such that a figure fills a slide and can be read there.
"""
from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Okabe & Ito's colours, which can be told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
GREY = "#777777"
STYLE: Any = {"font.size": 13, "axes.titlesize": 14, "legend.fontsize": 11.5, "legend.frameon": False,
              "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.8}


def style() -> Any:
    """A context in which figures are made."""
    from matplotlib import rc_context
    return rc_context(STYLE)


def canvas(panels: int, columns: int | None = None, width: float = 5.0,
           height: float = 4.4) -> tuple[Any, Any]:
    """A figure and its axes, a flat array: up to three in a row, four as two and two."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    columns = columns or (panels if panels < 4 else 2 if panels == 4 else 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), dpi=120, layout=engine)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[panels:]:
        ax.axis("off")
    return figure, axes[:panels]


def save(figure: Any, path: str, words: str) -> None:
    """Write a figure with what it shows in words, for those who cannot see it; the ending of the path says how."""
    key = {".png": "Description", ".svg": "Description",
           ".pdf": "Subject"}[Path(path).suffix.lower()]
    figure.savefig(path, metadata={key: words})


def legend(ax: Any, **options: Any) -> None:
    """Below the axes, where it covers nothing."""
    entries = len(ax.get_legend_handles_labels()[1])
    ax.legend(**{"loc": "upper center", "bbox_to_anchor": (0.5, -0.19), "ncols": min(entries, 2),
                 "handlelength": 1.6, "columnspacing": 1.2, **options})


def components(ts: np.ndarray, target: np.ndarray, names: Sequence[str], ys_of: Callable,
               xlabel: str,
               what: str = "data", ylabel: str = "") -> Callable:
    """A `draw` of an experiment: every component of one trajectory against t, data wide and pale, the fit thin and dark on top."""
    def draw(axes: Any, params: Any, start: Any, solve: Any, n: int, label: str) -> None:
        ys, ax = ys_of(params, solve), axes[0]
        for i, name in enumerate(names):
            ax.plot(ts, target[..., i], color=COLOURS[i], lw=6, alpha=0.35, label=f"{name}, {what}")
            ax.plot(ts, ys[..., i], color=COLOURS[i], lw=1.6, ls="--", label=f"{name}, fit")
        ax.set(xlabel=xlabel, ylabel=textwrap.fill(ylabel, 24), title=f"fit against {what}")
        legend(ax)

    return draw


def loss_curves(ax: Any, losses: dict[str, list[float]]) -> None:
    """Loss against iteration, logarithmic where it falls far; a point where the loss is least."""
    for i, (name, values) in enumerate(losses.items()):
        best = int(np.argmin(values))
        # Thinner from one to the next, because they often lie on one another.
        ax.plot(values, color=COLOURS[i % len(COLOURS)],
                lw=max(1.8 + 0.7 * (len(losses) - 1 - i), 1.0) if len(losses) < 7 else 1.2,
                label=f"{name}: {values[best]:.2g}")
        ax.plot(best, values[best], "o", color=COLOURS[i % len(COLOURS)], ms=5)
    least, most = min(map(min, losses.values())), max(map(max, losses.values()))
    ax.set(xlabel="iteration", ylabel="loss", title="training (best loss)",
           yscale="log" if 0 < 5 * least < most else "linear")
    if ax.get_yscale() == "log":
        plain_ticks(ax.yaxis)
    legend(ax)


def costs(axes: Any, rows: Sequence[dict]) -> None:
    """Time per iteration and peak memory of each row on two axes that share the names: a line for each name."""
    backends = {row["backend"]: i for i, row in reversed(list(enumerate(rows)))}
    colour = {name: COLOURS[i] for i,
              name in enumerate(sorted(backends, key=lambda name: backends[name]))}
    for ax, key, scale, label in ((axes[0], "seconds_per_iteration", 1e3, "time per iteration, ms"),
                                  (axes[1], "peak_bytes", 1 / 1024, "peak memory, KiB")):
        values = [row[key] * scale for row in rows]
        for y, (x, row) in enumerate(zip(values, rows, strict=True)):
            ax.plot(x, y, "*" if y == 0 else "o", ms=15 if y == 0 else 8,
                    color=colour[row["backend"]], zorder=2)
        ax.set(xscale="log", xlabel=label, ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticks(range(len(rows)),
                      [row["name"] for row in rows] if ax is axes[0] else [""] * len(rows))
        ax.margins(x=0.12)
        ax.grid(axis="y", lw=0.5, color="#dddddd")
        plain_ticks(ax.xaxis)
    for name, c in colour.items():
        axes[0].plot([], [], "o", color=c, label=f"on {name}")
    axes[0].set_title("time")
    axes[1].set_title("memory")
    legend(axes[0], ncols=3)


def plain_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis that do not collide: 1, 2, 5, 10 ... instead of powers of ten
    where it spans a decade or two, few of equal distance where it spans less than half a one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    axis.set_major_locator(
        MaxNLocator(4) if decades < 0.5 else
        LogLocator(subs=(1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(
        lambda x, _: f"{x:,.0f}" if x >= 1e4 else f"{x:g}" if decades <= 3 or x >= 1e-3
        else f"$10^{{{round(np.log10(x))}}}$"))
    axis.set_minor_formatter(NullFormatter())


def grid(ax: Any, values: np.ndarray, rows: Sequence[str], columns: Sequence[str],
         threshold: float) -> None:
    """Errors as coloured squares with their powers of ten: blue below the threshold, orange above,
    the darker the further; NaN is left empty, and infinity crossed out."""
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        good = value <= threshold
        digits = min(abs(np.log10(max(value, 1e-17) / threshold)) / (14.0 if good else 6.0),
                     1.0) if np.isfinite(value) else 1.0
        ax.add_patch(rectangle(j, i, COLOURS[0] if good else COLOURS[1], 0.25 + 0.7 * digits))
        text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if value < 1e6 else "✕"
        ax.text(j, i, text, ha="center", va="center", color="white" if digits > 0.45 else "black",
                fontsize=11)
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)


def rectangle(x: float, y: float, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle
    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, alpha=alpha, lw=0)

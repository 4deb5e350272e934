"""revode stability: regions and limits of linear stability, y' = a y, z = h a, of every method.

Every region is computed from the word of the method (analysis/stability.py); no formula of a method
is used.
"""
from __future__ import annotations

from argparse import Namespace
from typing import Any

import numpy as np

from .. import plotting
from ..analysis.stability import intervals, limit, region
from ..methods import EES, EES25, EES27, AsynchronousLeapfrog, Coupled, LeapfrogMidpoint, ReversibleHeun, RungeKutta
from . import tables
from .options import coupling, whole
from .runner import Plan, Report

NAMES = {"euler": "Euler", "midpoint": "midpoint", "bosh3": "Bogacki-Shampine 3", "rk4": "RK4", "dopri5": "Dopri5",
         "tsit5": "Tsit5"}
LAMS = (0.8, 0.99, 0.999)
OTHERS = {"ALF": AsynchronousLeapfrog(), "reversible Heun": ReversibleHeun(), "leapfrog-midpoint": LeapfrogMidpoint(),
          "EES(2,5)": EES25(), "EES(2,7)": EES27(), "EES(2,11), 6 stages": EES(6)}
NOTES = ("0: no interval touches the origin. Growth by less than 1e-13 a step counts as none.",
         "ALF, reversible Heun and leapfrog are marginal on the imaginary axis: nothing grows, nothing decays, and nowhere does "
         "anything decay.")


def add_options(parser: Any) -> None:
    parser.add_argument("--lam", type=coupling, default=0.8, help="coupling of the figure; default 0.8")
    parser.add_argument("--points", type=whole(2), default=400, help="points of the figure along each axis; default 400")


def plan(args: Namespace) -> Plan:
    def work(report: Report) -> None:
        report.notes += NOTES
        report.rows += [row(*given) for given in methods()]

    return Plan(["stability on y' = a y: |h a| along the negative real axis and along the imaginary axis"], work,
                lambda report: rendered(report.rows), lambda report: picture(args.lam, args.points))


def methods() -> list[tuple[str, float | None, Any]]:
    """(name, lam, method): the bases, the bases coupled, the others."""
    return [*((NAMES[base], None, RungeKutta(base)) for base in NAMES),
            *((f"Coupled({NAMES[base]})", lam, Coupled(base, lam)) for base in NAMES for lam in LAMS),
            *((name, None, method) for name, method in OTHERS.items())]


def row(name: str, lam: float | None, method: Any) -> dict:
    """The limits on the negative real and the imaginary axis, and the windows further out."""
    return {"method": name, "lam": lam, "real": limit(method), "imaginary": limit(method, 1j),
            "windows": [pair for pair in intervals(method) if pair[0] > 0]}


def rendered(rows: list[dict]) -> list[str]:
    return [tables.columns(rows, (
        ("method", lambda row: row["method"]),
        ("lam", lambda row: "" if row["lam"] is None else f"{row['lam']:g}"),
        ("real", lambda row: f"{row['real']:.10f}"),
        ("imaginary", lambda row: f"{row['imaginary']:.6f}"),
        ("further windows\non the real axis", lambda row: ", ".join(f"{a:.4f} to {b:.4f}" for a, b in row["windows"]))))]


def picture(lam: float = 0.8, points: int = 400) -> tuple[Any, str]:
    """Six bases coupled with lam (filled) over their own regions (outlined), then the methods without a parameter."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    figure, axes = plotting.canvas(12, columns=6, width=2.75, height=4.0)
    for ax, base in zip(axes, NAMES, strict=False):
        draw_region(ax, NAMES[base], Coupled(base, lam), points, RungeKutta(base))
    for ax, name in zip(axes[6:], [name for name in OTHERS if name != "leapfrog-midpoint"], strict=False):
        draw_region(ax, name, OTHERS[name], points)
    axes[-1].axis("off")
    axes[-1].legend(handles=[Patch(color=plotting.COLOURS[0], alpha=0.75, label=f"coupled,\nlam = {lam:g}"),
                             Line2D([], [], color=plotting.GREY, lw=1.2, label="the base alone"),
                             Patch(color=plotting.COLOURS[2], alpha=0.75, label="EES (axes to 6)"),
                             Line2D([], [], color=plotting.COLOURS[1], lw=4, label="neither grows\nnor decays")], loc="center")
    for ax in axes[[0, 6]]:
        ax.set_ylabel("Im h a")
    return figure, ("Regions of linear stability in the plane of h a: slivers along the imaginary axis for coupled methods, a segment "
                    "of the axis for ALF and reversible Heun, half discs to the left for the EES methods.")


def draw_region(ax: Any, title: str, method: Any, points: int, base: Any = None) -> None:
    """One panel; with base, its own region outlined."""
    reach, end = limit(method), limit(method, 1j)
    marginal = base is None and not reach
    far = 1.5 if base is None and reach else 1.0                 # the EES regions are larger
    x, y = np.linspace(-4.2 * far, 1.4 * far, points), np.linspace(-4.2 * far, 4.2 * far, points)
    for line in (ax.axhline, ax.axvline):
        line(0, color="#bbbbbb", lw=0.7, zorder=0)
    inside = region(method, x, y)
    if inside.any():
        ax.contourf(x, y, inside, levels=[0.5, 1.5], colors=[plotting.COLOURS[2 if base is None else 0]], alpha=0.75)
    if base is not None:
        ax.contour(x, y, region(base, x, y), levels=[0.5], colors=plotting.GREY, linewidths=1.2)
    if marginal:
        ax.plot([0, 0], [-end, end], color=plotting.COLOURS[1], lw=4, solid_capstyle="butt")
    note = f"real axis\nto {reach:.3g}" if reach else "marginal for\n|h a| ≤ 1"
    ax.text(0.04, 0.02, note, transform=ax.transAxes, fontsize=11.5)
    ax.set(title=title.removesuffix(", 6 stages").removesuffix(" 3"), aspect="equal", xlabel="Re h a", xlim=(x[0], x[-1]),
           ylim=(y[0], y[-1]))

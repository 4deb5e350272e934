"""`revode stability`: the regions of linear stability of the coupled methods in the complex plane, and of the others.

Every region is computed from the word of the method (analysis/stability.py); no formula of a method is used.
"""
from __future__ import annotations

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.stability import intervals, limit, region
from ..methods import EES, EES25, EES27, AsynchronousLeapfrog, Coupled, LeapfrogMidpoint, ReversibleHeun, RungeKutta

BASES = ("euler", "midpoint", "bosh3", "rk4", "dopri5", "tsit5")
NAMES = {"euler": "Euler", "midpoint": "midpoint", "bosh3": "Bogacki-Shampine 3", "rk4": "RK4", "dopri5": "Dopri5",
         "tsit5": "Tsit5"}
LAMS = (0.8, 0.99, 0.999)


def add_parser(subparsers: Any) -> None:
    sub = subparsers.add_parser("stability", help="stability regions and limits of every method",
                                description="Regions of linear stability (y' = a y, z = h a) and their limits on the axes.")
    sub.add_argument("--lam", type=coupling, default=0.8, help="coupling of the figure; default 0.8")
    sub.add_argument("--points", type=int, default=400, help="points of the figure along each axis; default 400")
    sub.add_argument("--plot", metavar="OUT.png", help="draw the regions (needs matplotlib)")
    sub.add_argument("--json", metavar="OUT.json", help="write every figure")


def main(args: Namespace) -> int:
    rows = table()
    print(render(rows))
    write(args, {"command": "stability", "limits": rows}, lambda: plot(args.lam, args.points))
    return 0


def coupling(text: str) -> float:
    """A lam from the command line."""
    try:
        return Coupled("midpoint", float(text)).lam
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a coupling; give a number in (0, 1], such as 0.999") from None


def write(args: Namespace, report: dict, figure: Callable) -> None:
    """The report to --json and the figure to --plot, where they were asked for."""
    from .commands import UserError
    for path, what in ((args.json, "json"), (args.plot, "plot")):
        if path is None:
            continue
        try:
            if what == "json":
                Path(path).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
            else:
                from ..plotting import save
                save(figure(), path)
        except OSError as error:
            raise UserError(f"{path} could not be written: {error.strerror or error}") from None
        print(f"wrote {path}")


def table() -> list[dict]:
    """The limits of each method on the negative real and the imaginary axis, and the windows further out."""
    coupled = [(f"Coupled({NAMES[base]})", lam, Coupled(base, lam)) for base in BASES for lam in LAMS]
    plain = [(NAMES[base], None, RungeKutta(base)) for base in BASES]
    others = [(name, None, method) for name, method in (
        ("ALF", AsynchronousLeapfrog()), ("reversible Heun", ReversibleHeun()), ("leapfrog-midpoint", LeapfrogMidpoint()),
        ("EES(2,5)", EES25()), ("EES(2,7)", EES27()), ("EES(2,11), 6 stages", EES(6)))]
    rows = []
    for name, lam, method in plain + coupled + others:
        windows = [pair for pair in intervals(method) if pair[0] > 0]
        rows.append({"method": name, "lam": lam, "real": limit(method), "imaginary": limit(method, 1j), "windows": windows})
    return rows


def render(rows: list[dict]) -> str:
    lines = ["Stability on y' = a y: |h a| along the negative real axis and along the imaginary axis",
             f"{'method':30s} {'lam':>6s} {'real':>14s} {'imaginary':>12s}  further windows on the real axis"]
    for row in rows:
        lam = "" if row["lam"] is None else f"{row['lam']:g}"
        windows = ", ".join(f"{a:.4f} to {b:.4f}" for a, b in row["windows"])
        lines.append(f"{row['method']:30s} {lam:>6s} {row['real']:14.10f} {row['imaginary']:12.6f}  {windows}")
    lines.append("0: no interval touches the origin. Growth by less than 1e-13 a step counts as none. ALF, reversible Heun and\n"
                 "leapfrog are marginal on the imaginary axis: nothing grows, nothing decays, and nowhere does anything decay.")
    return "\n".join(lines)


def plot(lam: float = 0.8, points: int = 400) -> Any:
    """Six bases coupled with lam (filled) over their own regions (outlined), then the methods without a parameter."""
    from matplotlib.figure import Figure

    from ..plotting import COLOURS
    figure = Figure(figsize=(10.5, 12.0), dpi=120, layout="constrained")
    axes = figure.subplots(3, 4)
    panels: list[tuple[str, Any, Any, bool]] = [
        *((NAMES[base], Coupled(base, lam), RungeKutta(base), False) for base in BASES),
        ("ALF: empty", AsynchronousLeapfrog(), None, True), ("reversible Heun: empty", ReversibleHeun(), None, True),
        ("EES(2,5)", EES25(), None, False), ("EES(2,7)", EES27(), None, False), ("EES(2,11), 6 stages", EES(6), None, False)]
    for ax, (title, method, base, marginal) in zip(axes.flat, panels, strict=False):
        far = 1.5 if base is None and not marginal else 1.0          # the EES regions are larger
        x, y = np.linspace(-4.2 * far, 1.4 * far, points), np.linspace(-4.2 * far, 4.2 * far, points)
        ax.axhline(0, color="#bbbbbb", lw=0.6, zorder=0)
        ax.axvline(0, color="#bbbbbb", lw=0.6, zorder=0)
        inside = region(method, x, y)
        if inside.any():
            colour = COLOURS[0] if base is not None else COLOURS[2]
            ax.contourf(x, y, inside, levels=[0.5, 1.5], colors=[colour], alpha=0.75)
        if base is not None:
            ax.contour(x, y, region(base, x, y), levels=[0.5], colors="#777777", linewidths=0.9)
        if marginal:
            end = limit(method, 1j)
            ax.plot([0, 0], [-end, end], color=COLOURS[1], lw=3, solid_capstyle="butt")
            ax.annotate("marginal:\n|h a| ≤ 1", (0, 0.5), (-3.6, 1.4), fontsize=9, arrowprops={"arrowstyle": "-", "lw": 0.6})
        reach = limit(method)
        note = f"real axis to {reach:.4g}" if reach else "nothing on the real axis"
        ax.text(0.03, 0.02, note, transform=ax.transAxes, fontsize=9, bbox={"color": "white", "pad": 1.5})
        ax.set_title(title, fontsize=11)
        ax.set(aspect="equal", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    key = axes.flat[len(panels)]
    key.axis("off")
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    key.legend(handles=[Patch(color=COLOURS[0], alpha=0.75, label=f"coupled, lam = {lam:g}"),
                        Line2D([], [], color="#777777", lw=0.9, label="the base alone"),
                        Patch(color=COLOURS[2], alpha=0.75, label="EES (wider axes)"),
                        Line2D([], [], color=COLOURS[1], lw=3, label="neither grows\nnor decays")],
               loc="center", frameon=False, fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel("Re h a")
    for ax in axes[:, 0]:
        ax.set_ylabel("Im h a")
    figure.suptitle("Linear stability of reversible methods on y' = a y")
    return figure

"""`revode convergence`: does coupling keep the order of the base? y' = y/2 on [0, 5], error at the end against h."""
from __future__ import annotations

import math
import warnings
from argparse import Namespace
from typing import Any

import numpy as np

from ..analysis.order import observed_order
from ..methods import Coupled, RungeKutta
from ..solve import solve
from ..watch import RevodeWarning
from . import sde_order
from .stability import coupling, write

BASES = ("euler", "midpoint", "ralston3", "rk4", "dopri5")
NAMES = {"euler": "Euler", "midpoint": "midpoint", "ralston3": "Ralston 3 / Bogacki-Shampine", "rk4": "RK4", "dopri5": "Dopri5"}
RATE, END = 0.5, 5.0
STEPS = (10, 20, 40, 80, 160, 320, 640)
EXACT = math.exp(RATE * END)
# Half an ulp of the solution in each of up to 640 steps, all of one sign; below it an error says nothing about the order.
FLOOR = 320 * np.finfo(float).eps * EXACT


def add_parser(subparsers: Any) -> None:
    sub = subparsers.add_parser("convergence", help="order of the coupled methods and of their bases",
                                description="y' = y/2, T = 5: error of each base and of its coupled form against h.")
    sub.add_argument("--lam", type=coupling, default=0.999, help="coupling; default 0.999")
    sub.add_argument("--plot", metavar="OUT.png", help="draw the errors (needs matplotlib)")
    sub.add_argument("--json", metavar="OUT.json", help="write every figure")
    sub.add_argument("--sde", action="store_true", help="strong and weak order on stochastic equations instead")


def main(args: Namespace) -> int:
    if args.sde:
        return sde_order.main(args)
    rows = table(args.lam)
    print(render(rows, args.lam))
    write(args, {"command": "convergence", "problem": "y' = y/2, y(0) = 1, T = 5", "lam": args.lam, "rows": rows},
          lambda: plot(rows, args.lam))
    return 0


def error(method: Any, steps: int) -> float:
    """|y(T) - exact| after so many steps."""
    with warnings.catch_warnings():
        # The copies differ by the error of a step, which for Euler's largest steps is a tenth of the solution.
        warnings.simplefilter("ignore", RevodeWarning)
        sol = solve(lambda t, y, params: RATE * y, np.array([1.0]), np.linspace(0.0, END, steps + 1), method=method, save=[-1])
    return abs(float(sol.y1[0]) - EXACT)


def table(lam: float = 0.999, steps: tuple[int, ...] = STEPS) -> list[dict]:
    """One row for each base: h, both errors, and both observed orders (None where round-off leaves too few points)."""
    rows = []
    for base in BASES:
        h = [END / n for n in steps]
        row: dict = {"base": base, "order": RungeKutta(base).order, "h": h}
        for name, method in (("plain", RungeKutta(base)), ("coupled", Coupled(base, lam))):
            errors = [error(method, n) for n in steps]
            slope = observed_order(h, errors, FLOOR)
            row[name] = {"errors": errors, "observed": None if math.isnan(slope) else slope}
        rows.append(row)
    return rows


def render(rows: list[dict], lam: float) -> str:
    lines = [f"y' = y/2, T = 5: error at the end, base alone / coupled with lam = {lam:g}"]
    width = 21
    lines.append(f"{'h':>9s} " + "".join(f"{NAMES[row['base']][:width - 2]:>{width}s}" for row in rows))
    for i, h in enumerate(rows[0]["h"]):
        cells = [f"{row['plain']['errors'][i]:.2e} / {row['coupled']['errors'][i]:.2e}" for row in rows]
        lines.append(f"{h:9.6f} " + "".join(f"{cell:>{width}s}" for cell in cells))
    slopes = [" / ".join(f"{row[kind]['observed']:.2f}" if row[kind]["observed"] is not None else "-"
                         for kind in ("plain", "coupled")) for row in rows]
    lines.append(f"{'order':>9s} " + "".join(f"{slope:>{width}s}" for slope in slopes))
    return "\n".join(lines)


def plot(rows: list[dict], lam: float) -> Any:
    """Errors against h, both logarithmic; lines: coupled, crosses: base."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from ..plotting import COLOURS
    figure = Figure(figsize=(6.4, 6.0), dpi=130, layout="constrained")
    ax = figure.subplots()
    names = []
    for row, colour in zip(rows, COLOURS, strict=False):
        h = row["h"]
        ax.loglog(h, row["coupled"]["errors"], "o-", color=colour, ms=4.5, lw=1.3)
        ax.loglog(h, row["plain"]["errors"], "x--", color=colour, ms=6, lw=0.9)
        names.append(Line2D([], [], color=colour, label=f"{NAMES[row['base']]}, order {row['order']}"))
    names += [Line2D([], [], color="#444444", marker="o", ms=4.5, lw=1.3, label="coupled"),
              Line2D([], [], color="#444444", marker="x", ms=6, lw=0.9, ls="--", label="base alone")]
    ax.axhline(FLOOR, color="#999999", lw=0.8, ls=":")
    ax.text(0.99, FLOOR * 1.3, "round-off below this line", ha="right", va="bottom", fontsize=8, color="#666666",
            transform=ax.get_yaxis_transform())
    ax.set(xlabel="h", ylabel="error at T = 5", title=f"y' = y/2, coupled with lam = {lam:g}", ylim=(1e-15, 1e2))
    ax.grid(True, which="major", lw=0.3, color="#cccccc")
    ax.legend(handles=names, fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    return figure

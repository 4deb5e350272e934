"""revode convergence: does coupling keep the order of the base?

    y' = y/2 on [0, 5],   error at the end against h, of each base alone and of its coupled form

--sde: strong and weak order on stochastic equations instead (sde_order.py).
"""
from __future__ import annotations

import math
import warnings
from argparse import Namespace
from typing import Any

import numpy as np

from .. import plotting
from ..analysis.order import observed_order
from ..methods import Coupled, RungeKutta
from ..solve import solve
from ..watch import RevodeWarning
from . import sde_order, tables
from .options import coupling
from .runner import Plan, Report

BASES = ("euler", "midpoint", "ralston3", "rk4", "dopri5")
NAMES = {"euler": "Euler", "midpoint": "midpoint", "ralston3": "Ralston 3", "rk4": "RK4", "dopri5": "Dopri5"}
RATE, END = 0.5, 5.0
STEPS = (10, 20, 40, 80, 160, 320, 640)
EXACT = math.exp(RATE * END)
# Half an ulp of the solution in each of up to 640 steps, all of one sign; below it an error says nothing about the order.
FLOOR = 320 * np.finfo(float).eps * EXACT


def add_options(parser: Any) -> None:
    parser.add_argument("--lam", type=coupling, default=0.999, help="coupling; default 0.999")
    parser.add_argument("--sde", action="store_true", help="strong and weak order on stochastic equations instead")


def plan(args: Namespace) -> Plan:
    if args.sde:
        return sde_order.plan()

    def work(report: Report) -> None:
        report.rows += [row(base, args.lam) for base in BASES]

    head = f"convergence: y' = y/2, y(0) = 1, T = {END:g}; error at the end of each base alone, and coupled with lam = {args.lam:g}"
    return Plan([head], work, lambda report: rendered(report.rows), lambda report: picture(report.rows, args.lam))


def error(method: Any, steps: int) -> float:
    """|y(T) - exact| after so many steps."""
    with warnings.catch_warnings():
        # The copies differ by the error of a step, which for Euler's largest steps is a tenth of the solution.
        warnings.simplefilter("ignore", RevodeWarning)
        sol = solve(lambda t, y, params: RATE * y, np.array([1.0]), np.linspace(0.0, END, steps + 1), method=method, save=[-1])
    return abs(float(sol.y1[0]) - EXACT)


def row(base: str, lam: float = 0.999, steps: tuple[int, ...] = STEPS) -> dict:
    """h, both errors, and both observed orders (None where round-off leaves too few points)."""
    h = [END / n for n in steps]
    found: dict = {"base": base, "order": RungeKutta(base).order, "h": h}
    for name, method in (("plain", RungeKutta(base)), ("coupled", Coupled(base, lam))):
        errors = [error(method, n) for n in steps]
        slope = observed_order(h, errors, FLOOR)
        found[name] = {"errors": errors, "observed": None if math.isnan(slope) else slope}
    return found


def rendered(rows: list[dict]) -> list[str]:
    """Errors, base / coupled, a column for each base; the observed orders below."""
    both = lambda row, say: " / ".join(say(row[kind]) for kind in ("plain", "coupled"))
    order = lambda found: "-" if found["observed"] is None else f"{found['observed']:.2f}"
    lines = [[f"5/{round(END / h)}", *(both(row, lambda found, i=i: f"{found['errors'][i]:.1e}") for row in rows)]
             for i, h in enumerate(rows[0]["h"])]
    lines.append(["order", *(both(row, order) for row in rows)])
    return [tables.table(("h", *(f"{NAMES[row['base']]} ({row['order']})\nalone / coupled" for row in rows)), lines)]


def picture(rows: list[dict], lam: float) -> tuple[Any, str]:
    """Errors against h, both logarithmic; lines: coupled, crosses: base."""
    from matplotlib.lines import Line2D
    figure, (ax,) = plotting.canvas(1, width=8.0, height=6.4)
    names = []
    for row, colour in zip(rows, plotting.COLOURS, strict=False):
        ax.loglog(row["h"], row["coupled"]["errors"], "o-", color=colour, ms=6)
        ax.loglog(row["h"], row["plain"]["errors"], "x--", color=colour, ms=8, lw=1.1)
        names.append(Line2D([], [], color=colour, label=f"{NAMES[row['base']]}, order {row['order']}"))
    names += [Line2D([], [], color="#444444", marker="o", label="coupled"),
              Line2D([], [], color="#444444", marker="x", ms=8, lw=1.1, ls="--", label="base alone")]
    ax.axhspan(1e-16, FLOOR, color="#eeeeee", zorder=0)
    ax.text(0.98, FLOOR * 0.6, "round-off", ha="right", va="top", color="#555555", transform=ax.get_yaxis_transform())
    ax.set(xlabel="step h", ylabel="error at T = 5", title=f"y' = y/2, coupled with lam = {lam:g}", ylim=(1e-15, 1e2))
    ax.set_xticks(rows[0]["h"], [f"5/{round(END / h)}" for h in rows[0]["h"]])
    ax.minorticks_off()
    ax.grid(True, which="major", lw=0.4, color="#cccccc")
    ax.legend(handles=names, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure, ("Error at T = 5 against the step, both logarithmic, for five Runge-Kutta methods alone and coupled: parallel "
                    "lines, whose slopes are the orders 1 to 5.")

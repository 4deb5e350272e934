"""`revode convergence --sde`: strong and weak order of methods on stochastic equations, by regression, with intervals.

    dy = sin(y A) dt + g(y) o dW on [0, 1]        two dimensions; Stratonovich
        additive    g a constant matrix
        diagonal    g_i a function of y_i (noise that commutes)
        general     a matrix whose columns do not commute

    strong error   sqrt(E |y_h(1) - y(1)|^2)       on the same path;      weak error   |E[sum y_h(1)^2] - E[sum y(1)^2]|

The truth is a solve by Heun on 4 times as many steps as the finest, on the same BrownianTree, which also makes the weak error
a mean of small differences instead of a small difference of means. Its own strong error bends slopes up by a few hundredths.
An interval is slope +- t s / sqrt(groups), from the slopes of groups of paths (strong), or the same from leaving one group
out at a time (jackknife; weak). Expected: strong 1 for additive and diagonal noise, 1/2 for general noise (no method that
sees increments alone does better: Clark & Cameron 1980); weak 1.
"""
from __future__ import annotations

import warnings
from argparse import Namespace
from typing import Any

import numpy as np

from ..analysis.order import observed_order
from ..methods import EES25, EES27, Coupled, ReversibleHeun, RungeKutta
from ..paths import BrownianTree
from ..solve import solve
from ..stepping import ReconstructionWarning
from .stability import write

A = np.array([[-0.5, 0.3], [-0.2, -0.4]])
C = np.array([[0.5, 0.2], [-0.1, 0.4]])
START = (0.6, -0.3)
STEPS = (8, 16, 32, 64)
GROUPS = 8
STUDENT = 2.365              # 97.5 % of the t distribution with 7 degrees of freedom
EXPECTED = {"additive": 1.0, "diagonal": 1.0, "general": 0.5}        # strong


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


def methods() -> dict[str, Any]:
    return {"reversible Heun": ReversibleHeun(), "coupled midpoint": Coupled("midpoint"), "coupled RK4": Coupled("rk4"),
            "EES25": EES25(), "EES27": EES27(), "Heun": RungeKutta("heun2")}


def end(diffusion: Any, method: Any, steps: int, paths: int, seed: int) -> Any:
    """y(1), shape (paths, 2), after so many steps on the paths of this seed."""
    noise = BrownianTree(seed, 0.0, 1.0, tol=1 / 1024)
    with warnings.catch_warnings():
        # The largest steps are coarse on purpose, and the copies of some path out of hundreds then part for a while.
        warnings.simplefilter("ignore", ReconstructionWarning)
        return solve(drift, np.tile(START, (paths, 1)), np.linspace(0.0, 1.0, steps + 1), method=method, diffusion=diffusion,
                     noise=noise, save=[-1]).y1


def fitted(errors: Any, steps: tuple[int, ...]) -> float:
    return observed_order([1 / n for n in steps], errors)


def orders(ends: list, truth: Any, steps: tuple[int, ...]) -> dict:
    """Errors, and both slopes as (slope, half width of its 95 % interval)."""
    squares = np.stack([np.sum((y - truth) ** 2, -1) for y in ends])                     # (steps, paths)
    shifts = np.stack([np.sum(y ** 2, -1) - np.sum(truth ** 2, -1) for y in ends])
    parts = np.split(np.arange(len(truth)), GROUPS)
    strong, weak = np.sqrt(squares.mean(-1)), abs(shifts.mean(-1))
    by_group = [fitted(np.sqrt(squares[:, part].mean(-1)), steps) for part in parts]
    left_out = [fitted(abs(np.delete(shifts, part, 1).mean(-1)), steps) for part in parts]
    return {"strong errors": strong.tolist(), "weak errors": weak.tolist(),
            "strong": (fitted(strong, steps), STUDENT * float(np.std(by_group, ddof=1)) / GROUPS ** 0.5),
            "weak": (fitted(weak, steps), STUDENT * float(np.std(left_out)) * (GROUPS - 1) ** 0.5)}


def table(paths: int = 512, steps: tuple[int, ...] = STEPS, seed: int = 0, names: Any = None) -> list[dict]:
    """One row for each kind of noise and method. paths: a multiple of 8."""
    rows = []
    for kind, diffusion in NOISES.items():
        truth = end(diffusion, RungeKutta("heun2"), 4 * max(steps), paths, seed)
        for name, method in methods().items():
            if names is None or name in names:
                ends = [end(diffusion, method, n, paths, seed) for n in steps]
                rows.append({"noise": kind, "method": name, "expected": EXPECTED[kind], **orders(ends, truth, steps)})
    return rows


def render(rows: list[dict]) -> str:
    lines = ["dy = sin(y A) dt + g(y) o dW on [0, 1]: order of convergence, with 95 % intervals",
             f"{'noise':10s}{'method':18s}{'strong (expected)':>24s}{'weak':>16s}{'strong error, largest h and smallest':>40s}"]
    for row in rows:
        (strong, s), (weak, w), errors = row["strong"], row["weak"], row["strong errors"]
        strong_text = f"{strong:.2f} +- {s:.2f} ({row['expected']:g})"
        weak_text = f"{weak:.2f} +- {w:.2f}" if w < 2 else "-"              # the mean changes sign among the steps
        lines.append(f"{row['noise']:10s}{row['method']:18s}{strong_text:>24s}{weak_text:>16s}{errors[0]:>29.2e}{errors[-1]:>11.2e}")
    return "\n".join(lines)


def main(args: Namespace) -> int:
    rows = table()
    print(render(rows))
    write(args, {"command": "convergence --sde", "problem": __doc__, "steps": list(STEPS), "rows": rows}, lambda: plot(rows))
    return 0


def plot(rows: list[dict]) -> Any:
    """Strong errors against h, one panel for each kind of noise."""
    from matplotlib.figure import Figure

    from ..plotting import COLOURS
    figure = Figure(figsize=(9.5, 3.8), dpi=130, layout="constrained")
    h = [1 / n for n in STEPS]
    for ax, kind in zip(figure.subplots(1, 3, sharey=True), NOISES, strict=True):
        for row, colour in zip([row for row in rows if row["noise"] == kind], COLOURS, strict=False):
            ax.loglog(h, row["strong errors"], "o-", ms=4, lw=1.1, color=colour, label=row["method"])
        ax.set(title=f"{kind} noise: expected {EXPECTED[kind]:g}", xlabel="h", **({"ylabel": "strong error"} if kind == "additive" else {}))
        ax.grid(True, which="major", lw=0.3, color="#cccccc")
    ax.legend(fontsize=8, frameon=False)
    return figure

"""`revode convergence --sde`: strong and weak order of methods on stochastic equations, by regression, with intervals.

    dy = sin(y A) dt + g(y) o dW on [0, 1]        two dimensions; Stratonovich
        additive    g a constant matrix
        diagonal    g_i a function of y_i (noise that commutes)
        general     a matrix whose columns do not commute

    strong error   sqrt(E |y_h(1) - y(1)|^2)       on the same path;      weak error   |E[sum y_h(1)^2] - E[sum y(1)^2]|

The truth is a solve by Heun on more steps (4 times those of the finest; weak: 8 times, after larger steps and on more
paths),
on the same BrownianTree, which also makes the weak error a mean of small differences instead of a small difference of
means.
Its own error bends slopes up by a few hundredths.
An interval is slope +- t s / sqrt(groups), from the slopes of groups of paths (strong), or the same from leaving one
group
out at a time (jackknife; weak). Expected: strong 1 for additive and diagonal noise, 1/2 for general noise (no method
that
sees increments alone does better: Clark & Cameron 1980); weak 1, and more for additive
noise, where the sampling error is all that is seen at these sizes.
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
from ..watch import RevodeWarning
from .stability import write

A = np.array([[-0.5, 0.3], [-0.2, -0.4]])
C = np.array([[0.5, 0.2], [-0.1, 0.4]])
START = (0.6, -0.3)
STEPS, PATHS = (8, 16, 32, 64), 512
WEAK_STEPS, WEAK_PATHS = (2, 4, 8, 16), 8192
GROUPS = 8
STUDENT = 2.365  # 97.5 % of the t distribution with 7 degrees of freedom
EXPECTED = {"additive": 1.0, "diagonal": 1.0, "general": 0.5}  # strong


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
    return {
        "reversible Heun": ReversibleHeun(),
        "coupled midpoint": Coupled("midpoint"),
        "coupled RK4": Coupled("rk4"),
        "EES25": EES25(),
        "EES27": EES27(),
        "Heun": RungeKutta("heun2"),
    }


def end(diffusion: Any, method: Any, steps: int, paths: int, seed: int) -> Any:
    """y(1), shape (paths, 2), after so many steps on the paths of this seed."""
    noise = BrownianTree(seed, 0.0, 1.0, tol=1 / 256)
    with warnings.catch_warnings():
        # The largest steps are coarse on purpose, and the copies of some path out of hundreds then part for a while.
        warnings.simplefilter("ignore", RevodeWarning)
        return solve(
            drift,
            np.tile(START, (paths, 1)),
            np.linspace(0.0, 1.0, steps + 1),
            method=method,
            diffusion=diffusion,
            noise=noise,
            save=[-1],
        ).y1


def fitted(errors: Any, steps: tuple[int, ...]) -> float:
    return observed_order([1 / n for n in steps], errors)


def strong(ends: list, truth: Any, steps: tuple[int, ...]) -> tuple:
    """Errors (steps,), their slope, and the half width of its interval, from the slopes of groups of paths."""
    squares = np.stack([np.sum((y - truth) ** 2, -1) for y in ends])  # (steps, paths)
    errors = np.sqrt(squares.mean(-1))
    slopes = [fitted(np.sqrt(part.mean(-1)), steps) for part in np.split(squares, GROUPS, 1)]
    return errors, fitted(errors, steps), STUDENT * float(np.std(slopes, ddof=1)) / GROUPS**0.5


def weak(ends: list, truth: Any, steps: tuple[int, ...]) -> tuple:
    """The same for the error of E[sum y^2]; the interval by leaving out one group at a time."""
    shifts = np.stack([np.sum(y**2, -1) - np.sum(truth**2, -1) for y in ends])
    groups = np.split(np.arange(len(truth)), GROUPS)
    errors = abs(shifts.mean(-1))
    slopes = [fitted(abs(np.delete(shifts, group, 1).mean(-1)), steps) for group in groups]
    return errors, fitted(errors, steps), STUDENT * float(np.std(slopes)) * (GROUPS - 1) ** 0.5


def table(kinds: Any = tuple(NOISES), names: Any = None, seed: int = 0, weak_paths: int = WEAK_PATHS) -> list[dict]:
    """One row for each kind of noise and method; weak_paths=0 leaves the weak order out."""
    rows = []
    chosen = {name: method for name, method in methods().items() if names is None or name in names}
    for kind in kinds:
        g, heun = NOISES[kind], RungeKutta("heun2")
        truth = end(g, heun, 4 * STEPS[-1], PATHS, seed)
        mean = end(g, heun, 8 * WEAK_STEPS[-1], weak_paths, seed) if weak_paths else None
        for name, method in chosen.items():
            errors, slope, width = strong([end(g, method, n, PATHS, seed) for n in STEPS], truth, STEPS)
            row = {
                "noise": kind,
                "method": name,
                "expected": EXPECTED[kind],
                "strong errors": errors.tolist(),
                "strong": (slope, width),
            }
            if weak_paths:
                errors, slope, width = weak([end(g, method, n, weak_paths, seed) for n in WEAK_STEPS], mean, WEAK_STEPS)
                row |= {"weak errors": errors.tolist(), "weak": (slope, width)}
            rows.append(row)
    return rows


def render(rows: list[dict]) -> str:
    lines = [
        "dy = sin(y A) dt + g(y) o dW on [0, 1]: order of convergence, with 95 % intervals",
        f"{'noise':10s}{'method':18s}{'strong (expected)':>24s}{'weak':>16s}{'strong error, h = 1/8 and 1/64':>34s}",
    ]
    for row in rows:
        (slope, width), errors = row["strong"], row["strong errors"]
        text = f"{slope:.2f} +- {width:.2f} ({row['expected']:g})"
        weak_text = "{:.2f} +- {:.2f}".format(*row["weak"]) if row.get("weak", (0, 9))[1] < 1 else "-"  # sampling error
        lines.append(
            f"{row['noise']:10s}{row['method']:18s}{text:>24s}{weak_text:>16s}{errors[0]:>23.2e}{errors[-1]:>11.2e}"
        )
    return "\n".join(lines)


def main(args: Namespace) -> int:
    rows = table()
    print(render(rows))
    write(
        args,
        {
            "command": "convergence --sde",
            "problem": __doc__,
            "steps": list(STEPS),
            "paths": PATHS,
            "weak steps": list(WEAK_STEPS),
            "weak paths": WEAK_PATHS,
            "rows": rows,
        },
        lambda: plot(rows),
    )
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
        ax.set(
            title=f"{kind} noise: expected {EXPECTED[kind]:g}",
            xlabel="h",
            **({"ylabel": "strong error"} if kind == "additive" else {}),
        )
        ax.set_xticks(h, [f"1/{n}" for n in STEPS])
        ax.minorticks_off()
        ax.grid(True, which="major", lw=0.3, color="#cccccc")
    ax.legend(fontsize=8, frameon=False)
    return figure

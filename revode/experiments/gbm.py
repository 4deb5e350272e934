"""revode compare gbm: stiff geometric Brownian motion in 25 dimensions. Which method survives which step?

    dY = A Y dt + sigma Y o dW (one W for each entry),    A = Q diag(-20 .. 0) Q^T,    sigma = 0.1,    T = 1

Every solve has the same Brownian path, a tree, and so has the reference (Heun's method, 960 steps).
A method survives a step if its solution stays finite and is within the threshold of the reference at T (root mean square over
the batch, relative). Each gradient, of mean(Y(T)^2) in Y(0), A and sigma, is a value of its own, with nothing left over from
the one before; it is compared with Direct at the same step, so that only the reconstruction counts. Going back, a contraction
is an expansion, by e^20 here: `resync` keeps a state every few steps and bounds that.
Source of the problem: Shmelev & Salvi 2025.
"""
from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable
from math import exp
from typing import Any

import numpy as np

from ..analysis.stability import limit
from ..gradients import Direct, Reversible
from ..methods import EES, EES25, EES27, Coupled, NearReversible, ReversibleHeun, RungeKutta
from ..paths import BrownianTree
from ..watch import RevodeWarning
from . import fits, tables
from .engines import AUTO, Engine
from .training import progress_bar

D, FASTEST, SIGMA, FINEST = 25, 20.0, 0.1, 960
STEPS = (4, 6, 8, 12, 24, 48, 96)            # to T = 1
THRESHOLD = 0.1
RESYNC = 2
# name -> (method for a step h, field evaluations a step)
METHODS: dict[str, tuple[Callable[[float], Any], int]] = {
    "Heun, not reversible": (lambda h: RungeKutta("heun2"), 2),
    "reversible Heun": (lambda h: ReversibleHeun(), 1),
    "Coupled midpoint, lam = .999": (lambda h: Coupled("midpoint", 0.999), 4),
    "Coupled midpoint, lam = exp(-25 h)": (lambda h: Coupled("midpoint", exp(-25.0 * h)), 4),
    "RK4 run backwards": (lambda h: NearReversible("rk4"), 4),
    "EES(2,5)": (lambda h: EES25(), 3),
    "EES(2,7)": (lambda h: EES27(), 4),
    "EES(2,11)": (lambda h: EES(6), 6),
}


def add_options(parser: Any) -> None:
    fits.common_options(parser)
    parser.add_argument("--batch", type=fits.whole(1), default=16, metavar="B", help="paths; default 16")
    parser.add_argument("--steps", type=fits.whole(1), nargs="+", default=list(STEPS), metavar="N",
                        help=f"numbers of steps to T = 1; default {' '.join(map(str, STEPS))}")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help=f"relative error of a survivor; default {THRESHOLD}")


def drift(t: Any, y: Any, params: Any) -> Any:
    return y @ params["A"]                   # A is symmetric at the start


def diffusion(t: Any, y: Any, params: Any) -> Any:
    return params["sigma"] * y


def problem(seed: int, batch: int) -> tuple[dict, np.ndarray]:
    """(params with Y(0), which is differentiated too; the reference at T)."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((D, D)))[0]
    params = {"A": Q @ np.diag(np.linspace(-FASTEST, 0.0, D)) @ Q.T, "sigma": np.asarray(SIGMA),
              "y0": 1.0 + 0.5 * rng.standard_normal((batch, D))}
    return params, at_end(RungeKutta("heun2"), FINEST, seed)(Direct())(params)[1].y1


def at_end(method: Any, n: int, seed: int, engine: Engine = AUTO) -> Callable:
    """gradient mode -> (params -> (mean(Y(T)^2), Solution)), with the Brownian path of this seed and n steps."""
    def modes(gradient: Any) -> Callable:
        def objective(params: Any) -> tuple:
            sol = engine.solve(drift, params["y0"], np.linspace(0.0, 1.0, n + 1), params, method=method, gradient=gradient,
                               diffusion=diffusion, noise=BrownianTree(seed, 0.0, 1.0, tol=1.0 / FINEST), save=[-1])
            return np.mean(sol.y1 ** 2), sol

        return objective

    return modes


def cell(name: str, n: int, params: dict, reference: np.ndarray, seed: int, threshold: float, engine: Engine = AUTO) -> dict:
    """What one method does with n steps."""
    make, evaluations = METHODS[name]
    modes = at_end(make(1.0 / n), n, seed, engine)
    row: dict[str, Any] = {"method": name, "steps": n, "evaluations": evaluations * n, "error": None, "gradient_error": None,
                           "gradient_error_resync": None, "flagged": None, "flagged_resync": None}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RevodeWarning)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                y1 = modes(None)(params)[1].y1
                row["error"] = float(np.sqrt(np.mean((y1 - reference) ** 2) / np.mean(reference ** 2)))
        except FloatingPointError:
            pass
    row["parted"] = bool(caught)                 # the two copies of the solution, a warning of the forward solve
    error = row["error"]
    row["survives"] = error is not None and error <= threshold
    row["verdict"] = "survives" if row["survives"] else "overflow" if error is None or not error < 1e6 else "wrong"
    if row["survives"] and not isinstance(make(1.0 / n), RungeKutta):
        for key, mode in (("", Reversible()), ("_resync", Reversible(resync=RESYNC))):
            check = fits.against_direct(modes, params, mode)
            row["gradient_error" + key], row["flagged" + key] = check.error, check.warned > row["parted"]
    return row


def main(args: Namespace) -> int:
    this, engine = fits.introduce(
        args, f"dY = A Y dt + {SIGMA} Y o dW in {D} dimensions, spectrum [-{FASTEST:g}, 0], T = 1",
        f"{args.batch} paths, seed {args.seed}; loss mean(Y(T)^2)",
        f"survivors: finite, and within {args.threshold:g} of the reference (Heun, {FINEST} steps, the same noise)")
    params, reference = problem(args.seed, args.batch)
    jobs = [(name, n) for name in METHODS for n in args.steps]
    rows = [cell(jobs[i][0], jobs[i][1], params, reference, args.seed, args.threshold, engine)
            for i in progress_bar(len(jobs), "gbm")]
    by_name = {name: [row for row in rows if row["method"] == name] for name in METHODS}

    def words(row: dict) -> str:
        if row["verdict"] == "overflow":
            return "overflow"
        if not row["survives"]:
            return "parted" if row["parted"] else "wrong"
        return tables.small(row["error"])

    survival = tables.table(("relative error at T", *(f"h = 1/{n}" for n in args.steps)),
                            [(name, *(words(row) for row in mine)) for name, mine in by_name.items()])
    def gradients(row: dict) -> str:
        if row["gradient_error"] is None:
            return "-"
        return " | ".join(tables.small(row["gradient_error" + key]) + ("!" if row["flagged" + key] else "")
                          for key in ("", "_resync"))

    gradient = tables.table((f"gradient error: plain | resync={RESYNC}", *(f"h = 1/{n}" for n in args.steps)),
                            [(name, *map(gradients, mine)) for name, mine in by_name.items()
                             if any(row["gradient_error"] is not None for row in mine)])
    lines = []
    for name, mine in by_name.items():
        alive = [row for row in mine if row["survives"]]
        best = min(alive, key=lambda row: row["steps"]) if alive else None
        h = 1.0 / (best or mine[-1])["steps"]
        lines.append((name, f"1/{best['steps']}" if best else "none", f"{limit(METHODS[name][0](h)) / FASTEST:.3g}",
                      str(best["evaluations"]) if best else "-",
                      *("-" if best is None or best["flagged" + key] is None else "lost: warned" if best["flagged" + key] else "found"
                        for key in ("", "_resync"))))
    summary = tables.table(("method", "largest h\nthat survives", "largest h by\nlinear theory", "evaluations\nto T", "way back",
                            f"way back\nresync={RESYNC}"), lines)
    notes = ["'wrong', 'parted', 'overflow': no survivor. overflow: not finite, or more than 1e6 times too large; parted: the solve "
             "warned that the two copies of the solution differ. --json has every error.",
             f"Gradient errors are of survivors, against Direct with the same steps and noise; resync={RESYNC} keeps every "
             f"{RESYNC}nd state. !: the reverse sweep warned that it did not find its way back.",
             "Linear theory: y' = -20 y without noise (at the step shown). Evaluations: of the forward solve at that step."]
    return fits.finish(args, this, "\n\n".join((survival, gradient, summary)), rows, notes, lambda: plot(by_name, args.threshold))


def plot(by_name: dict[str, list[dict]], threshold: float) -> Any:
    """Left: the error at T against h, and what overflows at the top. Right: the gradient error of survivors, resync dashed."""
    from ..plotting import COLOURS
    figure, axes = fits.canvas(2, width=6.0, height=4.6)
    top = 1e3
    for i, (name, mine) in enumerate(by_name.items()):
        h = np.array([1.0 / row["steps"] for row in mine])
        error = np.array([row["error"] if row["error"] is not None else np.inf for row in mine])
        out = ~(error < top)
        # Shifted a little for each method, or the crosses of several would cover one another.
        axes[0].plot(h[out], np.full(out.sum(), top * 1.7 ** i), "x", color=COLOURS[i], ms=6)
        axes[0].plot(h[~out], error[~out], "o-", color=COLOURS[i], ms=4, label=name)
        for key, style in (("gradient_error", "o-"), ("gradient_error_resync", "s--")):
            alive = [(1.0 / row["steps"], max(row[key], 1e-17)) for row in mine if row[key] is not None]
            if alive:
                axes[1].plot(*zip(*alive, strict=True), style, color=COLOURS[i], ms=4, lw=1.0 if "r" in style else 1.4)
    axes[0].axhline(threshold, color="#777777", lw=0.8, ls=":")
    axes[0].axhline(top, color="#777777", lw=0.8)
    axes[0].text(0.02, top * 0.7, "crosses, above the line: diverged", ha="left", va="top", fontsize=7,
                 transform=axes[0].get_yaxis_transform())
    axes[0].set(xscale="log", yscale="log", xlabel="h", ylabel="relative error at T",
                title=f"solution (survivors: below {threshold:g})")
    axes[1].axhline(1.0, color="#777777", lw=0.8)
    axes[1].set(xscale="log", yscale="log", xlabel="h", ylabel="relative error against Direct",
                title=f"gradients of survivors (dashed: resync={RESYNC})", xlim=axes[0].get_xlim())
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure

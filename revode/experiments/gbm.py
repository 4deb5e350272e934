"""revode compare gbm: stiff geometric Brownian motion in 25 dimensions: which method survives which
step?

    dY = A Y dt + sigma Y o dW (one W for each entry),   A = Q diag(-20 .. 0) Q^T,   sigma = 0.1,
    T = 1

Every solve has the same Brownian path, a tree, and so has the reference (Heun's method, 960 steps).
A method survives a step if its solution stays finite and is within the threshold of the reference
at T (root mean square over the batch, relative). Each gradient, of mean(Y(T)^2) in Y(0), A and
sigma, is a value of its own, with nothing left over from the one before; it is compared with Direct
at the same step, so that only the reconstruction counts. Going back, a contraction is an expansion,
by e^20 here: `resync` keeps a state every few steps and bounds that.
Source of the problem: Shmelev & Salvi 2025.
"""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from math import exp
from typing import Any

import numpy as np

from .. import plotting
from ..analysis.stability import limit
from ..gradients import Reversible
from ..methods import EES, EES25, EES27, Coupled, NearReversible, ReversibleHeun, RungeKutta
from ..paths import BrownianTree
from . import backends, tables
from .backends import Solver
from .measuring import against_direct
from .options import whole
from .runner import Plan, Report, counting, shown

D, FASTEST, SIGMA, FINEST = 25, 20.0, 0.1, 960
STEPS = (4, 6, 8, 12, 24, 48, 96)            # to T = 1
THRESHOLD = 0.1
RESYNC = 2
# name -> (method for a step h, field evaluations a step)
METHODS: dict[str, tuple[Callable[[float], Any], int]] = {
    "Heun, not reversible": (lambda h: RungeKutta("heun2"), 2),
    "reversible Heun": (lambda h: ReversibleHeun(), 1),
    "Coupled, lam = .999": (lambda h: Coupled("midpoint", 0.999), 4),
    "Coupled, lam = exp(-25 h)": (lambda h: Coupled("midpoint", exp(-25.0 * h)), 4),
    "RK4 run backwards": (lambda h: NearReversible("rk4"), 4),
    "EES(2,5)": (lambda h: EES25(), 3),
    "EES(2,7)": (lambda h: EES27(), 4),
    "EES(2,11)": (lambda h: EES(6), 6),
}


def add_options(parser: Any) -> None:
    parser.add_argument("--seed", type=whole(0), default=0, help="of the problem and of its noise; default 0")
    parser.add_argument("--batch", type=whole(1), default=16, metavar="B", help="paths; default 16")
    parser.add_argument("--steps", type=whole(1), nargs="+", default=list(STEPS), metavar="N",
                        help=f"numbers of steps to T = 1; default {' '.join(map(str, STEPS))}")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help=f"relative error of a survivor; default {THRESHOLD}")
    backends.add_options(parser)


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
    return params, at_end(FINEST, seed)(params, Solver(RungeKutta("heun2")))[1].y1


def at_end(n: int, seed: int) -> Callable:
    """(params, solve) -> (mean(Y(T)^2), Solution), with the Brownian path of this seed and n steps."""
    ts, noise = np.linspace(0.0, 1.0, n + 1), BrownianTree(seed, 0.0, 1.0, tol=1.0 / FINEST)

    def loss(params: Any, solve: Any) -> tuple:
        sol = solve(drift, params["y0"], ts, params, diffusion=diffusion, noise=noise, save=[-1])
        return np.mean(sol.y1 ** 2), sol

    return loss


def cell(name: str, n: int, params: dict, reference: np.ndarray, seed: int, threshold: float, solver: Solver) -> dict:
    """What one method does with n steps."""
    make, evaluations = METHODS[name]
    loss, solve = at_end(n, seed), replace(solver, method=make(1.0 / n))
    row: dict[str, Any] = {"method": name, "steps": n, "evaluations": evaluations * n, "error": None, "gradient_error": None,
                           "gradient_error_resync": None, "flagged": None, "flagged_resync": None}
    with counting({}) as warned:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                sol = loss(params, solve)[1]
                row["error"] = float(np.sqrt(np.mean((sol.y1 - reference) ** 2) / np.mean(reference ** 2)))
                row["backend"] = sol.stats.backend
        except FloatingPointError:
            pass
    error = np.inf if row["error"] is None else row["error"]
    # parted: the two copies of the solution, a warning of the forward solve
    row |= {"parted": bool(warned), "survives": error <= threshold,
            "verdict": "survives" if error <= threshold else "wrong" if error < 1e6 else "overflow"}
    if row["survives"] and type(solve.method) is not RungeKutta:
        for key, mode in (("", Reversible()), ("_resync", Reversible(resync=RESYNC))):
            check = against_direct(loss, params, replace(solve, gradient=mode))
            row |= {"gradient_error" + key: check["gradient_error"], "flagged" + key: check["warned"] > row["parted"],
                    "backend": check["backend"]}
    return row


def plan(args: Namespace) -> Plan:
    solver = backends.chosen(args, "auto")

    def work(report: Report) -> None:
        params, reference = problem(args.seed, args.batch)
        for name, n in shown([(name, n) for name in METHODS for n in args.steps], "gbm"):
            report.rows.append(cell(name, n, params, reference, args.seed, args.threshold, solver))
        ran = sorted({row["backend"] for row in report.rows if "backend" in row})
        report.notes += [
            "'wrong', 'parted', 'overflow': no survivor. overflow: not finite, or more than 1e6 times too large; parted: the solve "
            "warned that the two copies of the solution differ.",
            f"Gradient errors are of survivors, against Direct with the same steps and noise; resync={RESYNC} keeps every {RESYNC}nd "
            "state. !: the reverse sweep warned that it did not find its way back.",
            "Linear theory: y' = -20 y without noise (at the step shown). Evaluations: of the forward solve at that step.",
            f"Solves ran on {' and '.join(ran)}."]

    return Plan([f"gbm: dY = A Y dt + {SIGMA} Y o dW in {D} dimensions, spectrum [-{FASTEST:g}, 0], T = 1",
                 f"{args.batch} paths, seed {args.seed}; loss mean(Y(T)^2)",
                 f"survivors: finite, and within {args.threshold:g} of the reference (Heun, {FINEST} steps, the same noise)",
                 f"backend: {solver}; --backend changes it"],
                work, lambda report: rendered(by_name(report.rows), args.steps),
                lambda report: picture(by_name(report.rows), args.steps, args.threshold))


def by_name(rows: list[dict]) -> dict[str, list[dict]]:
    return {name: mine for name in METHODS if (mine := [row for row in rows if row["method"] == name])}


def verdict(row: dict) -> str:
    """A cell of the table of survival."""
    if row["verdict"] == "wrong":
        return "parted" if row["parted"] else "wrong"
    return tables.small(row["error"]) if row["survives"] else "overflow"


def gradient(row: dict, key: str) -> str:
    """A cell of the tables of gradients."""
    return tables.small(row["gradient_error" + key]) + ("!" if row["flagged" + key] else "")


def rendered(found: dict[str, list[dict]], steps: list[int]) -> list[str]:
    """Who survives, how good the gradients of the survivors are, and the largest steps."""
    heads = [f"h = 1/{n}" for n in steps]
    grid = lambda title, found, say: tables.table((title, *heads), [
        [name, *map(say, mine), *["-"] * (len(steps) - len(mine))] for name, mine in found.items()])
    checked = {name: mine for name, mine in found.items() if any(row["gradient_error"] is not None for row in mine)}
    gradients = [grid(title, checked, lambda row, key=key: gradient(row, key))
                 for key, title in (("", "gradient error"), ("_resync", f"gradient error, resync={RESYNC}"))]
    ends = ("method", "largest h\nthat survives", "largest h by\nlinear theory", "evaluations\nto T", "way back",
            f"way back\nresync={RESYNC}")
    return [grid("relative error at T", found, verdict), *(gradients if checked else []),
            tables.table(ends, [largest(*item) for item in found.items()])]


def largest(name: str, mine: list[dict]) -> list[str]:
    """A line on the largest step that a method survives."""
    best = min((row for row in mine if row["survives"]), key=lambda row: row["steps"], default=None)
    theory = f"{limit(METHODS[name][0](1.0 / (best or mine[-1])['steps'])) / FASTEST:.3g}"
    if best is None:
        return [name, "none", theory, "-", "-", "-"]
    say = {None: "-", True: "lost: warned", False: "found"}
    return [name, f"1/{best['steps']}", theory, str(best["evaluations"]), say[best["flagged"]], say[best["flagged_resync"]]]


def picture(found: dict[str, list[dict]], steps: list[int], threshold: float) -> tuple[Any, str]:
    """Three grids, methods by steps: the error at T, and the gradient error of survivors without and with resync."""
    figure, axes = plotting.canvas(3, width=6.2, height=5.2)
    for ax, key, title in ((axes[0], "error", f"error at T (survives: below {threshold:g})"),
                           (axes[1], "gradient_error", "gradient error of survivors"),
                           (axes[2], "gradient_error_resync", f"the same, resync={RESYNC}")):
        values = np.full((len(found), len(steps)), np.nan)
        for i, mine in enumerate(found.values()):
            for j, row in enumerate(mine):
                none = np.inf if key == "error" else np.nan          # overflow; no survivor
                values[i, j] = none if row[key] is None else row[key]
        plotting.grid(ax, values, list(found) if key == "error" else [""] * len(found), [f"1/{n}" for n in steps], threshold)
        ax.set(title=title, xlabel="step h")
    return figure, ("Grids of methods by steps. Left: which method survives which step; EES(2,11) alone survives h = 1/4. Right: "
                    "errors of the survivors' gradients against Direct, which resync brings down.")

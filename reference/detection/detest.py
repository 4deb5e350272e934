"""The non-stiff problems of DETEST with adaptive steps, PID(1e-6, 1e-8): the defaults, and Coupled("dopri5"), against SciPy's RK45.

Source: Hull, Enright, Fellen & Sedgwick, SIAM J. Numer. Anal. 9 (1972) 603. t from 0 to 20. The constants of an equation are its
params, so that there is a dL/dparams.

    python -m reference.detection.detest         prints the table alone
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import revode as rv

from .judge import REFUSALS, WARNING, apart

RTOL, ATOL, T1 = 1e-6, 1e-8, 20.0
CONTROLLER = rv.PID(RTOL, ATOL, max_steps=5000)             # RK45 takes 20 to 200
WORSE, FLOOR, DEARER, NEAR = 30.0, 1000.0, 1.5, 1e-5        # bars: times RK45's error, times the tolerance, evaluations, gradient


class Detest(NamedTuple):
    name: str
    about: str
    field: Callable
    y0: tuple
    params: tuple
    exact: Callable | None = None        # t -> y, where known


def orbit(t: Any, y: Any, p: Any) -> Any:
    cubed = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return np.stack([y[2], y[3], -p[0] * y[0] / cubed, -p[0] * y[1] / cubed])


def bessel(t: Any, y: Any, p: Any) -> Any:
    return np.stack([y[1], -(y[1] / (t + 1) + (1 - p[0] / (t + 1) ** 2) * y[0])])


def half_order(t: float) -> np.ndarray:
    """J_1/2(t + 1) and its derivative."""
    x = t + 1
    j = math.sqrt(2 / (math.pi * x)) * math.sin(x)
    return np.array([j, math.sqrt(2 / (math.pi * x)) * math.cos(x) - j / (2 * x)])


PROBLEMS = [
    Detest("A1", "decay", lambda t, y, p: -p[0] * y, (1.0,), (1.0,), lambda t: np.array([math.exp(-t)])),
    Detest("A2", "Riccati", lambda t, y, p: -p[0] * y ** 3, (1.0,), (0.5,), lambda t: np.array([(t + 1) ** -0.5])),
    Detest("A3", "oscillating rate", lambda t, y, p: p[0] * y * np.cos(t), (1.0,), (1.0,),
           lambda t: np.array([math.exp(math.sin(t))])),
    Detest("A4", "logistic", lambda t, y, p: p[0] * y * (1 - y / p[1]), (1.0,), (0.25, 20.0),
           lambda t: np.array([20 / (1 + 19 * math.exp(-t / 4))])),
    Detest("A5", "spiral", lambda t, y, p: (y - p[0] * t) / (y + t), (4.0,), (1.0,)),
    Detest("B1", "two populations", lambda t, y, p: np.stack([p[0] * (y[0] - y[0] * y[1]), -p[1] * (y[1] - y[0] * y[1])]),
           (1.0, 3.0), (2.0, 1.0)),
    Detest("B2", "linear reaction", lambda t, y, p: np.stack([-p[0] * y[0] + y[1], y[0] - p[1] * y[1] + y[2], y[1] - p[0] * y[2]]),
           (2.0, 0.0, 1.0), (1.0, 2.0)),
    Detest("B3", "chemical reaction", lambda t, y, p: np.stack([-p[0] * y[0], p[0] * y[0] - p[1] * y[1] ** 2, p[1] * y[1] ** 2]),
           (1.0, 0.0, 0.0), (1.0, 1.0)),
    Detest("B5", "rigid body", lambda t, y, p: np.stack([y[1] * y[2], -y[0] * y[2], -p[0] * y[0] * y[1]]), (0.0, 1.0, 1.0), (0.51,)),
    Detest("D1", "orbit, eccentricity .1", orbit, (0.9, 0.0, 0.0, math.sqrt(1.1 / 0.9)), (1.0,)),
    Detest("E1", "Bessel, order 1/2", bessel, (0.6713967071418030, 0.09540051444747446), (0.25,), half_order),
    Detest("E2", "van der Pol", lambda t, y, p: np.stack([y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]]), (2.0, 0.0), (1.0,)),
]


def by_scipy(problem: Detest, method: str, rtol: float, atol: float) -> Any:
    from scipy.integrate import solve_ivp

    p = np.array(problem.params)
    return solve_ivp(lambda t, y: np.asarray(problem.field(t, y, p)), (0.0, T1), problem.y0, method=method, rtol=rtol, atol=atol,
                     dense_output=True)


def error(ts: Any, ys: np.ndarray, true: Callable) -> float:
    """The largest error of any entry at any accepted step."""
    return float(max(np.max(abs(y - true(float(t)))) for t, y in zip(ts, ys, strict=True)))


def gradients(problem: Detest, mode: Any, method: Any, save: Any) -> tuple[list, Any]:
    """([dL/dy0, dL/dparams], the solution) of the mean of sum y^2 over the accepted steps, or of that at the end."""
    kept: list = []

    def loss(at: Any) -> Any:
        kept.append(rv.solve(problem.field, at[0], (0.0, T1), at[1], method=method, gradient=mode, controller=CONTROLLER, save=save))
        return np.sum(kept[-1].ys ** 2) / len(kept[-1].ys)

    grads = rv.grad(loss)((np.array(problem.y0), np.array(problem.params)))
    return [np.asarray(g) for g in grads], kept[-1]


def result(problem: Detest, method: Any, named: str, mode: Any) -> dict:
    """One row: errors, evaluations, the gradient against Direct, what was said, whether the bars are kept."""
    tight = by_scipy(problem, "DOP853", 1e-12, 1e-14)
    true = problem.exact or tight.sol
    theirs = by_scipy(problem, "RK45", RTOL, ATOL)
    row: dict = {"problem": problem.name, "about": problem.about, "method": named, "rk45_error": error(theirs.t, theirs.y.T, true),
                 "rk45_nfev": int(theirs.nfev), "error": None, "nfe_forward": None, "off": None, "said": ""}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            tried = [gradients(problem, mode, method, save) for save in (None, [-1])]
        except REFUSALS as refusal:
            return {**row, "said": f"{type(refusal).__name__}: {refusal}"[:200], "kept": method is not None}
    row["said"] = ", ".join(sorted({w.category.__name__ for w in heard if issubclass(w.category, WARNING)}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y0, params = np.array(problem.y0), np.array(problem.params)
        plain = rv.solve(problem.field, y0, (0.0, T1), params, method=method, controller=CONTROLLER)
        direct = [gradients(problem, rv.Direct(), method, save)[0] for save in (None, [-1])]
    row["error"] = error(plain.ts, plain.ys, true)
    row["nfe_forward"] = int(plain.stats.nfe_forward)
    row["off"] = max(max(apart(found[0], right)) for found, right in zip(tried, direct, strict=True))
    largest = max(float(np.max(abs(true(t)))) for t in theirs.t)
    accurate = row["error"] <= max(WORSE * row["rk45_error"], FLOOR * (ATOL + RTOL * largest)) and row["off"] <= NEAR
    if method is None:
        row["kept"] = accurate and row["nfe_forward"] <= DEARER * row["rk45_nfev"] and not row["said"]
    else:
        row["kept"] = accurate or bool(row["said"])
    return row


def results() -> list[dict]:
    return [result(problem, method, name, mode) for name, method, mode in (
        ("default", None, None), ("Coupled dopri5", rv.Coupled("dopri5"), rv.Reversible())) for problem in PROBLEMS]


def rows(found: list[dict]) -> list[list[str]]:
    """The table: a header, and one row for each problem and method."""
    def number(x: Any) -> str:
        return "-" if x is None else f"{x:.1e}" if isinstance(x, float) else str(x)

    head = ["problem", "method", "error", "RK45's", "nfe", "RK45's", "off", "said", "bars"]
    numbers = ("error", "rk45_error", "nfe_forward", "rk45_nfev", "off")
    return [head, *([r["problem"], r["method"], *(number(r[name]) for name in numbers),
                     r["said"].split(":")[0] or "-", "kept" if r["kept"] else "NOT KEPT"] for r in found)]


if __name__ == "__main__":
    from .tables import text

    print(text(rows(results())))

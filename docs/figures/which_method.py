"""The tables of docs/which-method.md, measured.

    python docs/figures/which_method.py               print them
    python docs/figures/which_method.py --write       put them into the page, and refresh the outputs of its code

Three problems, each with the same number of evaluations forward for every method: a pendulum (oscillates), van der
Pol's oscillator (contracts at a rate of 1.06) and the Lorenz system (chaotic, contracts at 14.6).
"""
from __future__ import annotations

import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from revode.analysis import limit

PAGE = Path(__file__).resolve().parents[1] / "which-method.md"


def pendulum(t, y, p):
    q, v = y[..., :1], y[..., 1:]
    return np.concatenate([v, -p["k"] * np.sin(q)], axis=-1)


def van_der_pol(t, y, p):
    q, v = y[..., :1], y[..., 1:]
    return np.concatenate([v, p["mu"] * (1 - q * q) * v - q], axis=-1)


def lorenz(t, y, p):
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    return np.stack([p["s"] * (b - a), a * (p["r"] - c) - b, a * b - p["b"] * c], axis=-1)


class Task(NamedTuple):
    """A problem, and the number of evaluations that a method may spend on it forward."""
    field: Any
    y0: Any
    params: dict
    T: float
    evaluations: int

    def grid(self, each: int) -> np.ndarray:
        return np.linspace(0.0, self.T, self.evaluations // each + 1)


TASKS = {
    "oscillates": Task(pendulum, (1.0, 0.3), {"k": 2.0}, 10.0, 960),
    "contracts": Task(van_der_pol, (2.0, 0.0), {"mu": 1.0}, 10.0, 960),
    "chaotic": Task(lorenz, (1.0, 1.0, 25.0), {"s": 10.0, "r": 28.0, "b": 8 / 3}, 1.0, 1920),
}

# The rows: what to type, and the method. The first three are the defaults: of a fixed grid, adaptive steps, and noise.
METHODS: dict[str, Any] = {
    'NearReversible("rk4")': rv.NearReversible("rk4"),
    'NearReversible("tsit5")': rv.NearReversible("tsit5"),
    "EES(stages=4)": rv.EES(stages=4),
    'Coupled("midpoint")': rv.Coupled("midpoint"),
    'Coupled("rk4")': rv.Coupled("rk4"),
    'Coupled("rk4", lam="auto")': rv.Coupled("rk4", lam="auto"),
    "AsynchronousLeapfrog()": rv.AsynchronousLeapfrog(),
    "ReversibleHeun()": rv.ReversibleHeun(),
    "Composition(ReversibleHeun(), order=4)": rv.Composition(rv.ReversibleHeun(), order=4),
    "LeapfrogMidpoint()": rv.LeapfrogMidpoint(),
    "VelocityVerlet()": rv.VelocityVerlet(),
    "EES25()": rv.EES25(),
    "EES27()": rv.EES27(),
    "EES(stages=6)": rv.EES(stages=6),
}

MODES: dict[str, Any] = {
    'none named: `Automatic()`, with `NearReversible("rk4")`': (rv.NearReversible("rk4"), None),
    '`Reversible()`, with the same': (rv.NearReversible("rk4"), rv.Reversible()),
    "`Direct()`": (rv.RungeKutta("rk4"), rv.Direct()),
    "`Checkpointed(20)`": (rv.RungeKutta("rk4"), rv.Checkpointed(20)),
    "`Backsolve()`": (rv.RungeKutta("rk4"), rv.Backsolve()),
    '`Reversible()`, with `Coupled("rk4", lam="auto")`': (rv.Coupled("rk4", lam="auto"), rv.Reversible()),
    "`Reversible(resync=20)`, with the same": (rv.Coupled("rk4", lam="auto"), rv.Reversible(resync=20)),
    "`Reversible()`, with `EES(stages=6)`": (rv.EES(stages=6), rv.Reversible()),
}


def gradient(task: Task, method: Any, mode: Any, each: int) -> tuple[rv.Solution, dict]:
    """The solution and the gradient of |y(T)|^2 / 2 by the parameters; FloatingPointError where the solve overflows."""
    split = len(method.outputs) > 1
    y0: Any = tuple(np.array([x]) for x in task.y0) if split else np.array(task.y0)
    field = (lambda t, q, p: -p["k"] * np.sin(q)) if split else task.field      # only the pendulum has an acceleration

    def loss(params: dict) -> tuple:
        sol = rv.solve(field, y0, task.grid(each), params, method=method, gradient=mode, save=[-1], backend="eager")
        return 0.5 * sum(np.sum(y**2) for y in (sol.y1 if split else (sol.y1,))), sol

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.RevodeWarning)                       # the table says it
        (_, sol), grads = rv.value_and_grad(loss, has_aux=True)(task.params)
    return sol, grads


@cache
def evaluations(method: Any) -> int:
    """Evaluations of the field a step, forward."""
    split = len(method.outputs) > 1
    y0: Any = (np.ones(1), np.zeros(1)) if split else np.ones(1)
    stats = rv.solve(lambda t, y, p: -0.01 * y, y0, np.linspace(0.0, 1.0, 101), method=method, backend="eager").stats
    return round(stats.nfe / stats.steps)


@cache
def truth(name: str) -> np.ndarray:
    task = TASKS[name]
    return rv.solve(task.field, np.array(task.y0), np.linspace(0.0, task.T, 1001), task.params,
                    method=rv.RungeKutta("dopri5"), save=[-1]).y1


def trip(name: str, method: Any) -> tuple[float, float, rv.Solution | None]:
    """Errors of the solution and of the way back (NaN: it has left the solution), relative to |y| at the end."""
    task, end = TASKS[name], truth(name)
    try:
        sol, _ = gradient(task, method, rv.Reversible(), evaluations(method))
    except FloatingPointError:
        return np.inf, np.nan, None
    scale = np.max(np.abs(end))
    error = float(np.max(np.abs(np.ravel(sol.y1) - end)) / scale)
    return error, (float(sol.stats.roundtrip.absolute / scale) if error < 0.1 else np.nan), sol


def power(x: float) -> str:
    """An error as a power of ten: all that is the same on every machine."""
    return "lost" if not x < 1 else "exact" if x == 0 else f"1e{int(np.ceil(np.log10(max(x, 1e-15)))):d}"


def method_row(label: str) -> list[str]:
    method = METHODS[label]
    error, oscillates, sol = trip("oscillates", method)
    stats = sol.stats
    back = (stats.nfe - stats.nfe_forward) / stats.steps
    row = [f"`{label}`", str(method.order), f"{evaluations(method)}", f"{back:.0f} + {stats.nvjp / stats.steps:.0f}",
           f"{len(method.parts)}", f"{error:.0e}", power(oscillates)]
    for name in ("contracts", "chaotic"):
        if len(method.outputs) > 1:
            row.append("-")
            continue
        away = trip(name, method)[1]
        row.append("left it" if np.isnan(away) else power(away))
    return row


def traits_row(label: str) -> list[str]:
    method = METHODS[label]
    if method.outputs != ("y",):
        limits = ["", f"{np.sqrt(limit(method)):.2f}"]                          # its test equation is q'' = -w^2 q
    elif getattr(method, "lam", None) == "auto":
        limits = ["-ln(lam)", "as above"]
    else:
        limits = [f"{limit(method, d):.3g}" for d in (-1.0, 1j)]
    exact = "yes" if hasattr(method, "word") else f"to h^{method.reversal_order}"
    return [f"`{label}`", *limits, "yes" if getattr(method, "error_order", None) else "",
            "yes" if getattr(method, "noise", False) else "", exact]


def mode_row(label: str) -> list[str]:
    method, mode = MODES[label]
    row = [label]
    for name, task in TASKS.items():
        sol, ours = gradient(task, method, mode, evaluations(method))
        # Checkpointed(20) has the gradient of Direct (chapter 05), and is not slower here.
        _, direct = gradient(task, method, rv.Checkpointed(20), evaluations(method))
        a, b = (np.array(list(g.values())) for g in (ours, direct))
        if name == "oscillates":
            row += [str(sol.stats.peak_states), f"{sol.stats.nfe / task.evaluations:.1f}"]
        alike = mode in (rv.Direct(), rv.Checkpointed(20))
        row.append("exact" if alike else power(np.linalg.norm(a - b) / np.linalg.norm(b)))
    return row


TABLES: dict[str, Any] = {
    "methods": (["method", "order", "evaluations a step", "back: evaluations + pulls", "vectors held",
                 "error, pendulum", "way back, oscillating", "contracting", "chaotic"], METHODS, method_row),
    "traits": (["method", "stable to, real", "imaginary", "adaptive", "noise", "undone exactly"], METHODS, traits_row),
    "modes": (["gradient", "states held", "evaluations / forward", "error, oscillating", "contracting", "chaotic"],
              MODES, mode_row),
}


def table(name: str) -> list[str]:
    """One table as lines of Markdown."""
    head, rows, make = TABLES[name]
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *(make(label) for label in rows))]


def with_tables(text: str) -> str:
    """The page with its tables measured again; a table stands between its two comments."""
    for name in TABLES:
        start, end = f"<!-- {name}: written by figures/which_method.py -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        text = before + start + "\n" + "\n".join(table(name)) + "\n\n" + end + rest.split(end)[1]
    return text


def main(arguments: list[str]) -> None:
    if "--write" not in arguments:
        print("\n\n".join("\n".join(table(name)) for name in TABLES))
        return
    sys.path.insert(0, str(PAGE.parents[1]))
    from tests.docs.run_chapters import run, written
    PAGE.write_text(with_tables(PAGE.read_text()))
    lines, results, _ = run(PAGE)
    PAGE.write_text("\n".join(written(lines, results)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

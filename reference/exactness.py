"""What exact mode costs and gives, measured: the page docs/measurements/exact.md.

    python -m reference.exactness                   all of it, 1e5 steps each (some minutes)
    python -m reference.exactness --steps 2000      quickly
    python -m reference.exactness --out FILE        writes the page

Three systems, run 1e5 steps forward and back: every state on the way back is compared with the one that had been there. Then the
gradient against full backpropagation for lattices of 40, 44 and 48 bits, and the times beside those of the float path.
"""
from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import revode as rv

from .benchmarks import works
from .detection.page import machine, paragraph
from .detection.tables import markdown as table


class System(NamedTuple):
    name: str
    field: Callable
    method: Any
    h: float
    y0: np.ndarray
    params: dict


def henon_heiles(t: Any, y: Any, p: Any) -> Any:
    q, r, u, v = y[..., 0], y[..., 1], y[..., 2], y[..., 3]
    return np.stack([u, v, -q - 2 * p["c"] * q * r, -r - p["c"] * (q * q - r * r)], -1)


def pendulum(t: Any, y: Any, p: Any) -> Any:
    """The double pendulum with equal masses and rods of length 1."""
    a, b, u, v = y[..., 0], y[..., 1], y[..., 2], y[..., 3]
    d, g = a - b, p["g"]
    below = 3 - np.cos(2 * d)
    du = (-3 * g * np.sin(a) - g * np.sin(a - 2 * b) - 2 * np.sin(d) * (v * v + u * u * np.cos(d))) / below
    dv = 2 * np.sin(d) * (2 * u * u + 2 * g * np.cos(a) + v * v * np.cos(d)) / below
    return np.stack([u, v, du, dv], -1)


def lorenz(t: Any, y: Any, p: Any) -> Any:
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    return np.stack([p["s"] * (b - a), a * (p["r"] - c) - b, a * b - p["b"] * c], -1)


def systems() -> list[System]:
    rng = np.random.default_rng(0)
    return [
        System("Henon-Heiles", henon_heiles, rv.AsynchronousLeapfrog(), 0.01, 0.15 * rng.standard_normal((16, 4)),
               {"c": np.array(1.0)}),
        System("double pendulum", pendulum, rv.Coupled("midpoint", lam=0.999), 0.001,
               np.array([1.3, 1.3, 0.0, 0.0]) + 0.05 * rng.standard_normal((16, 4)),
               {"g": np.array(9.81)}),
        System("Lorenz", lorenz, rv.Coupled("midpoint", lam=0.98), 0.001, rng.standard_normal((16, 3)) + np.array([0.0, 0.0, 20.0]),
               {"s": np.array(10.0), "r": np.array(28.0), "b": np.array(8 / 3)})]


def there_and_back(system: System, N: int, exact: Any) -> tuple[list, float]:
    """The states of a march, and the largest difference on the way back."""
    ts = system.h * np.arange(N + 1)
    states = [s for _, s in rv.steps(system.field, system.y0, ts, system.params, method=system.method, exact=exact)]
    worst = 0.0
    with np.errstate(all="ignore"):
        for back in rv.steps_back(system.field, states[-1], ts, system.params, ay1=np.ones_like(system.y0), method=states[-1].method):
            truth = states[back.state.n].parts
            worst = np.fmax(worst, max(np.nan_to_num(abs(back.state.parts[k] - truth[k]), nan=np.inf).max() for k in truth))
    return states, float(worst)


def gradient(system: System, N: int, **options: Any) -> tuple[Any, Any, float]:
    """(gradients, stats, seconds of this process) of a loss at the end."""
    ts, found = system.h * np.arange(N + 1), []

    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(system.field, y0, ts, params, method=system.method, save=[-1], **options)
        found.append(sol.stats)
        return np.mean(sol.y1 ** 2)

    began = time.process_time()
    _, gradients = rv.value_and_grad(loss, argnums=(0, 1))(system.y0, system.params)
    return rv.tree.flatten(gradients)[0], found[0], time.process_time() - began


def long_runs(N: int) -> list[list[str]]:
    rows = [["system", "method", "steps", "exact: largest error of any state", "float: the same", "bits a step and element",
             "destroyed", "bits, KiB", "all states, MiB"]]
    for system in systems():
        states, worst = there_and_back(system, N, True)
        _, of_float = there_and_back(system, N, None)
        _, stats, _ = gradient(system, N, exact=True)
        each = N * system.y0.size
        kept = sum(x.nbytes for name, x in states[0].parts.items() if not name.startswith("bits")) * N
        lost = "lost (inf)" if of_float == np.inf else f"{of_float:.1e}"
        rows.append([system.name, f"`{system.method!r}`", f"{N}", f"{worst:.0f}", lost, f"{stats.bits_stored / each:.4f}",
                     f"{stats.bits_bound / each:.4f}", f"{stats.bits_stored / 8 / 1024:.1f}", f"{kept / 2 ** 20:.1f}"])
    return rows


def lattices(N: int) -> list[list[str]]:
    rows = [["system", "steps", "s = 40", "s = 44", "s = 48", "float sweep"]]
    for system in systems():
        truth, _, _ = gradient(system, N, gradient=rv.Direct())
        cells = []
        for options in (*({"exact": rv.Lattice(bits)} for bits in (40, 44, 48)), {"gradient": rv.Reversible()}):
            try:
                found, _, _ = gradient(system, N, **options)
                cells.append(f"{max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, truth, strict=True)):.1e}")
            except OverflowError:
                cells.append("leaves it")
        rows.append([system.name, f"{N}", *cells])
    return rows


def medium() -> System:
    """W2 of the benchmarks: a network on a batch of 256, 200 steps."""
    work = works.WORKS["w2"]
    problem = works.problem(work, "float64")
    return System("W2", lambda t, y, p: works.field(np, t, y, p), rv.Coupled("midpoint", works.LAM), work.h, problem.y0,
                  problem.params)                                                                       # type: ignore[arg-type]


def times(N: int, repeats: int = 7) -> list[list[str]]:
    """Warm gradients, in turns: the least of some process times."""
    rows = [["system", "engine", "exact, ms", "float, ms", "ratio"]]
    for system in (*systems(), medium()):
        N = 200 if system.name == "W2" else N
        for backend in ("eager", "replay", "native"):
            best = {True: np.inf, None: np.inf}
            for _ in range(repeats):
                for exact in best:
                    strict = {"arithmetic": "strict"} if backend == "native" else {}
                    _, stats, seconds = gradient(system, N, exact=exact, backend=backend, gradient=rv.Reversible(), **strict)
                    if stats.backend == backend:
                        best[exact] = min(best[exact], seconds)
            if np.isfinite(best[True]):
                rows.append([system.name, backend, f"{1e3 * best[True]:.1f}", f"{1e3 * best[None]:.1f}",
                             f"{best[True] / best[None]:.2f}"])
    return rows


def page(N: int) -> str:
    about = machine()
    return "\n\n".join([
        "# Exact mode, measured", "    python -m reference.exactness --out docs/measurements/exact.md",
        paragraph(f"{about['machine']}; revode {about['version']}, {about['date']}. Batches of 16."), "## There and back", paragraph(
            "Every state of the way back beside the one that had been there. In floating point the same sweep loses its way; the "
            "bits kept are those that the contraction destroys, and a constant."), table(long_runs(N)),
        "## The gradient beside full backpropagation", paragraph(
            "Largest difference of a leaf, relative to its largest entry; s: states are multiples of 2^-s. The systems amplify "
            "what is done to them: the difference is the noise of the lattice, amplified. Lorenz leaves the lattice of 48 bits, "
            "which holds numbers below 32."), table(lattices(min(N, 500))),
        "## Time", paragraph("A warm gradient, 500 steps for the three systems, least process time of seven, in turns; native in "
                             "strict arithmetic both times. W2 is the medium work of [the benchmarks](benchmarks.md)."),
        table(times(min(N, 500)))]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reference.exactness", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=100_000, help="steps of the long runs")
    parser.add_argument("--out", type=Path, help="where to write the page; default: printed")
    chosen = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.RevodeWarning)           # the float sweeps lose their way, which is the point
        text = page(chosen.steps)
    if chosen.out is None:
        print(text)
    else:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()

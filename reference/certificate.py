"""Does the certificate tell the truth? Over random problems, and errors that are known: docs/measurements/certificate.md.

    python -m reference.certificate                    300 problems, 10 times 8 probes each (some minutes)
    python -m reference.certificate --problems 30      quickly
    python -m reference.certificate --out FILE         writes the page
    python -m reference.certificate --problems 0       what a probe costs alone

A third of the problems is smooth and right; a third contracts, and is run back by methods that lose their way, in float32 with lam
= .8 and as fixed points with beta = .8 among others; a third has a pullback with a planted error of its sign, or of some percent.
The true error is the distance to full backpropagation with the right rule.
"""
from __future__ import annotations

import argparse
import math
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from revode.certify import FLOOR, certificate, drawn
from revode.engine.tangents import linearised
from revode.tangent import by_programs

from .benchmarks import works
from .detection.page import machine, paragraph
from .detection.tables import markdown as table

KINDS = ("smooth", "contracting", "planted")
METHODS = (rv.Coupled("midpoint", lam=0.99), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(eta=0.9), rv.NearReversible("rk4"),
           rv.EES27())
REPEATS, MOST = 10, 8


class Measured(NamedTuple):
    kind: str
    error: float                   # the true one
    floor: float
    size: float
    differences: np.ndarray        # (REPEATS, MOST)


def planted(error: float) -> Any:
    """sin, whose pullback is wrong by this part of itself."""
    return rv.custom_vjp(lambda x: (np.sin(x), lambda g: ((1 + error) * g * np.cos(x),)))


def measure(seed: int) -> Measured:
    rng = np.random.default_rng((seed, 17))
    kind = KINDS[seed % 3]
    d, N = int(rng.integers(2, 5)), int(rng.integers(15, 40))
    dtype: Any = np.float64 if kind != "contracting" or seed % 2 else np.float32
    method = METHODS[int(rng.integers(len(METHODS)))]
    if kind == "contracting":
        method = rv.Coupled("midpoint", lam=0.8) if dtype == np.float32 else method
    rate = float(rng.uniform(4.0, 12.0)) if kind == "contracting" else 0.0
    N = 2 * N if kind == "contracting" else N
    params = {"W": rng.standard_normal((d, d)).astype(dtype) / math.sqrt(d), "b": rng.standard_normal(d).astype(dtype)}
    y0, ts = rng.standard_normal((3, d)).astype(dtype), np.linspace(0.0, float(rng.uniform(0.5, 2.0)) * (3 if rate else 1), N + 1)
    wrong = -2.0 if rng.random() < 0.5 else 10 ** rng.uniform(-5, -0.5)
    sine = planted(wrong) if kind == "planted" else np.sin

    def loss(p: Any, sine: Any = sine, **options: Any) -> Any:
        def field(t: Any, y: Any, p: Any) -> Any:
            return sine(y @ p["W"]) + p["b"] - rate * y
        if kind == "contracting" and seed % 4 == 0:
            return np.sum(rv.fixed_point(lambda z, p, x: sine(0.5 * z @ p["W"] + p["b"]) + x, np.zeros_like(y0), p, 0.3 * y0, tol=None,
                                         method=rv.RevDEQ(beta=0.8), max_steps=4 + N // 5, **options).z ** 2)
        return np.sum(rv.solve(field, y0, ts, p, method=method, save=[-1], **options).y1 ** 2)

    mode = rv.Direct() if kind == "planted" else rv.Reversible()
    g = rv.tree.flatten(rv.grad(lambda p: loss(p, gradient=mode))(params))[0]
    truth = rv.tree.flatten(rv.grad(lambda p: loss(p, sine=np.sin, gradient=rv.Direct()))(params))[0]
    _, push = linearised(loss, (params,))
    names, found = list(params), []
    for _ in range(REPEATS * MOST):
        u = [drawn(rng, x) for x in params.values()]
        found.append(sum(float(np.sum(a * b)) for a, b in zip(g, u, strict=True)) - float(push((dict(zip(names, u, strict=True)),))))

    def norm(x: list) -> float:
        return math.sqrt(sum(float(np.sum(np.asarray(a, float) ** 2)) for a in x))

    size = norm(g)
    return Measured(kind, norm([a - b for a, b in zip(g, truth, strict=True)]), FLOOR * float(np.finfo(dtype).eps) * size, size,
                    np.reshape(found, (REPEATS, MOST)))


def rows(measured: list[Measured]) -> list[list[str]]:
    found = [["probes", "errors above the floor", "covered", "median width", "planted above 1e-3: found"]]
    above = [m for m in measured if m.error > m.floor and math.isfinite(m.error)]
    for k in (1, 4, 8):
        covered, widths, seen, all_planted = [], [], 0, 0
        for m in above:
            for differences in m.differences[:, :k]:
                c = certificate(list(differences), m.size, m.floor)
                covered.append(c.below >= m.error)
                widths.append(c.below / m.error)
                if m.kind == "planted" and m.error > 1e-3 * m.size:
                    all_planted += 1
                    seen += c.below > m.floor
        found.append([f"{k}", f"{len(above)} x {REPEATS}", f"{np.mean(covered):.1%}", f"{np.median(widths):.2f}",
                      f"{seen} of {all_planted}"])
    return found


def kinds(measured: list[Measured]) -> list[list[str]]:
    found = [["kind", "problems", "relative error: least", "median", "largest", "at the floor"]]
    for kind in KINDS:
        of = [m for m in measured if m.kind == kind and math.isfinite(m.error)]
        errors = [m.error / m.size for m in of]
        found.append([kind, f"{len(of)}", *(f"{f(errors):.0e}" for f in (np.min, np.median, np.max)),
                      f"{sum(m.error <= m.floor for m in of)}"])
    return found


def costs(turns: int = 25) -> list[list[str]]:
    """Process time of a warm native gradient, and of a probe on the same backend and on the tape: the least of some turns."""
    found = [["work", "method", "gradient, ms", "probe by programs, ms", "of a gradient", "probe on the tape, ms"]]
    for work in (works.WORKS["w1"], works.WORKS["w2"]):
        p = works.problem(work, "float64")
        for method in (rv.Coupled("midpoint", works.LAM), rv.ReversibleHeun(), rv.NearReversible("rk4")):
            def of(x: tuple, p: Any = p, method: Any = method) -> Any:
                return works.loss(np, rv.solve(lambda t, y, q: works.field(np, t, y, q), x[0], p.ts, x[1], method=method,
                                               save=[-1], gradient=rv.Reversible(), backend="native", threads=1).y1)

            x, rng = (p.y0, p.params), np.random.default_rng(1)
            along, gradient = linearised(of, (x,))[1], rv.grad(of)
            u = rv.tree.map(lambda a, rng=rng: rng.standard_normal(a.shape), x)
            best = dict.fromkeys(("gradient", True, False), np.inf)
            for turn in range(turns):
                for what in best if turn < 3 else ("gradient", True):       # a tape takes its time
                    token = by_programs.set(bool(what))
                    began = time.process_time()
                    _ = gradient(x) if what == "gradient" else along((u,))
                    best[what] = min(best[what], time.process_time() - began)
                    by_programs.reset(token)
            found.append([f"{work.name}, {work.title}", f"`{method!r}`", f"{1e3 * best['gradient']:.2f}", f"{1e3 * best[True]:.2f}",
                          f"{best[True] / best['gradient']:.2f}", f"{1e3 * best[False]:.0f}"])
    return found


def page(problems: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                        # the methods say it themselves, which is another study
        measured, dear = [measure(seed) for seed in range(problems)], costs()
    about = machine()
    text = ["# Does the certificate tell the truth?", "    python -m reference.certificate --out docs/measurements/certificate.md",
            paragraph(f"{about['machine']}; revode {about['version']}, {about['date']}.")]
    if measured:
        text += [paragraph(
            f"{problems} random problems, {REPEATS} certificates each for every number of probes. Bars: 92 to 98 % covered; a median "
            "width of at most 3 for 8 probes; every planted error above 1e-3 found with 4 probes. Width: the bound over the true "
            "error."), table(rows(measured)),
            "## The problems", paragraph((__doc__ or "").rsplit("\n\n", 1)[1]), table(kinds(measured))]
    text += ["## What a probe costs", paragraph(
        "`certify(compiled=True)` runs the tangent on the backend of the solve; by default it runs on the tape, apart from all "
        "programs. Process time, the least of some turns; float64, one thread. Bar: at most one warm native gradient."), table(dear)]
    return "\n\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reference.certificate", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--out", type=Path, help="where to write the page; default: printed")
    chosen = parser.parse_args()
    text = page(chosen.problems)
    if chosen.out is None:
        print(text)
    else:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()

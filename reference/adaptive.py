"""python -m reference.adaptive [--training FILE]: adaptive solves on every engine; writes docs/measurements/adaptive.md.

Times are those of the processor, the least of several rounds, one thread. "The tape searches" is how adaptive solves ran before the
search was a program: forward on the tape, the way back by whatever was asked for. FILE is the JSON of the command that the page names;
without it that is run here, some five minutes of one core.
"""
from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import revode as rv
from reference.benchmarks.works import WORKS, field, problem
from revode.__main__ import main as command
from revode.compiled import native
from revode.compiled.backend import Backend
from revode.experiments import pendulum

OUT = Path(__file__).parents[1] / "docs" / "measurements" / "adaptive.md"
ENGINES = ("eager", "replay", "native")
ROUNDS = 10
TRAINING = ["train", "pendulum", "--backend", "native", "--threads", "1", "--iterations", "10000", "--seeds", "0", "1", "2"]


class Case(NamedTuple):
    """One kind of solve: solve(backend, gradient) -> the solution, forward alone or with its gradient."""
    name: str
    solve: Callable


def of_w1(name: str, method: Any, tol: float) -> Case:
    """The network of W1 on its interval, with steps of a controller."""
    work = WORKS["w1"]
    made = problem(work, "float64")
    y0, params = made.y0, made.params
    span = (0.0, work.N * work.h)

    def solve(backend: str, gradient: bool) -> Any:
        def loss(p: Any) -> Any:
            sol = rv.solve(lambda t, y, p: field(np, t, y, p), y0, span, p, method=method, controller=rv.PID(tol, tol),
                           save=[-1], gradient=rv.Reversible(tol=1e9), backend=backend, threads=1 if backend == "native" else None)
            return 0.5 * np.sum(sol.y1 * sol.y1), sol
        return rv.value_and_grad(loss, has_aux=True)(params)[0][1] if gradient else loss(params)[1]

    return Case(name, solve)


def of_pendulum() -> Case:
    """The loss of the double pendulum, at its initial parameters: 50 saved times."""
    made = pendulum.experiment()
    params = made.start(0)

    def solve(backend: str, gradient: bool) -> Any:
        def loss(p: Any) -> Any:
            return made.loss(p, lambda *args, **options: rv.solve(*args, method=made.method, gradient=rv.Reversible(), backend=backend,
                                                                  **options))
        return rv.value_and_grad(loss, has_aux=True)(params)[0][1] if gradient else loss(params)[1]

    return Case("double pendulum, Coupled bosh3, 1e-6", solve)


@contextmanager
def tape_searches() -> Iterator[None]:
    with mock.patch.object(Backend, "no_search", lambda self, problem: "this is how it was"):
        yield


def least(run: Callable) -> float:
    """Milliseconds of the processor."""
    times = []
    for _ in range(ROUNDS + 3):                      # the first ones make programs
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return 1e3 * min(times[3:])


def rows(case: Case) -> list[list[str]]:
    found = []
    for engine in ENGINES:
        sol = case.solve(engine, True)
        row = [case.name, engine, f"{sol.stats.steps}, {sol.stats.rejected}, {sol.stats.nfe_forward}"]
        for gradient in (False, True):
            with tape_searches():
                before = least(lambda gradient=gradient: case.solve(engine, gradient))
            after = least(lambda gradient=gradient: case.solve(engine, gradient))
            row.append(f"{before:.3g} -> {after:.3g} ms" if engine != "eager" else f"{after:.3g} ms")
        print(row, flush=True)
        found.append(row)
    return found


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def trained(path: str | None) -> dict:
    """What the training command measured."""
    if path is None:
        path = str(Path(tempfile.mkdtemp()) / "training.json")
        command([*TRAINING, "--json", path])
    return json.loads(Path(path).read_text())


def page(solves: list[list[str]], training: dict) -> str:
    each = [x for x in training["rows"] if "seed" in x]
    seeds = [[str(x["seed"]), f"{x['iterations']:,}", f"{x['loss_before']:.2g}", f"{x['loss']:.2e}", f"{x['loss_finer']:.2e}",
              f"{x['steps']:,}, {x['rejected']}", f"{x['gradient_error']:.1e}", f"{1e3 * x['seconds_per_iteration']:.1f} ms"]
             for x in each]
    losses = [x["loss"] for x in each if x["stopped"] is None]
    warned = sum(n for n, _ in training["warnings"].values())
    return f"""# Adaptive steps on every engine

`python -m reference.adaptive` writes this file.

Machine: {platform.machine()}, NumPy {np.__version__}, {native.compiler().version_text}. Processor time, one thread, the least
of {ROUNDS} rounds. Before the arrow: the tape searches for the grid, and only the way back is a program, as it was before the
attempts of a controller were programs themselves. Counts are accepted steps, rejected ones, and evaluations of the field
ahead; they are the same on every engine.

{table(["solve", "engine", "counts", "ahead", "with gradient"], solves)}

## The double pendulum, trained

    revode {" ".join(TRAINING[:8])}
           {" ".join(TRAINING[8:])} --json FILE

The data are simulated, with noise: the published loss is that of a recording, which is not part of this project
(`--data` takes your copy). "Half the steps" is the loss of the same parameters with steps half as long.
A seed with fewer iterations was ended before; it counts in no mean.

{table(["seed", "iterations", "loss before", "after", "half the steps", "steps, rejected", "gradient error", "an iteration"], seeds)}

Mean and spread of the {len(losses)} seeds that were not stopped before: {np.mean(losses):.1e} +- {np.std(losses, ddof=1):.1e}.
Published, of the recording: (8.3 +- 3.2)e-3, 21.9 minutes on other hardware. An iteration is the median, wall-clock time, of a
machine that others used as well; it grows as the network learns fast modes, from 51 steps on. {warned:,} of
{sum(x["iterations"] for x in each):,} solves warned that the two copies of the solution part, which the controller then holds
together by small steps; the error of the gradient, against `Direct`, is that of the last one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", help="JSON of the training, if it has been run")
    args = parser.parse_args()
    cases = (of_w1("W1, Coupled bosh3, 1e-8", rv.Coupled("bosh3"), 1e-8), of_w1("W1, NearReversible tsit5, 1e-8",
             rv.NearReversible("tsit5"), 1e-8), of_w1("W1, ReversibleHeun, 1e-5", rv.ReversibleHeun(), 1e-5), of_pendulum())
    solves = [row for case in cases for row in rows(case)]
    OUT.write_text(page(solves, trained(args.training)))


if __name__ == "__main__":
    main()

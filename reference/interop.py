"""The layer of revode.interop.torch beside torchdiffeq: time, memory, error of the gradient, and a classifier of digits.

    python -m reference.interop                      print the tables; some minutes
    python -m reference.interop --write              put them into docs/interop.md
    python -m reference.interop --rounds 3           fewer turns

Needs PyTorch and torchdiffeq (pip install 'revode[test-interop]') and a C++ compiler. One process, one thread, its processor time;
turns are taken, the best of --rounds stands. Both take the same number of steps on the same grid: torchdiffeq by the scheme that
the reversible method is built on (it has no reversible one), with the whole solve on PyTorch's tape, or by odeint_adjoint.
Memory is the high-water mark of a fresh process, above what it was before one gradient of many steps.
"""
from __future__ import annotations

import argparse
import os
import re
import resource
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
import torchdiffeq

import revode as rv
from revode.interop import torch as interop

from .adapters import torch_diffeq
from .benchmarks.works import LAM, PLAIN, WORKS, field, problem

PAGE = Path(__file__).resolve().parents[1] / "docs" / "interop.md"
DIGITS = PAGE.parent / "examples" / "torch" / "digits.py"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
METHODS = {"coupled-midpoint": rv.Coupled("midpoint", lam=LAM), "reversible-heun": rv.ReversibleHeun()}
BARS = {("w1", "coupled-midpoint"): 50.0, ("w2", "coupled-midpoint"): 1.3, ("w2", "reversible-heun"): 4.0}
OURS, TAPE, ADJOINT = "revode layer, native", "torchdiffeq, tape", "torchdiffeq, odeint_adjoint"


def layer(work: Any, method: str, **how: Any) -> Callable:
    """run() -> (loss, gradients) of a work by this package's operation."""
    given = problem(work, "float64")
    y0 = torch.tensor(given.y0, requires_grad=True)
    params = tuple(torch.tensor(p, requires_grad=True) for p in given.params)
    how = {"backend": "native", "threads": 1, "gradient": rv.Reversible(), **how}

    def run() -> tuple:
        sol = interop.solve(lambda t, y, p: field(np, t, y, p), y0, given.ts, params, method=METHODS[method], save=[-1], **how)
        loss = given.loss(torch, sol.y1)
        return loss.detach(), torch.autograd.grad(loss, [y0, *params])

    return run


def peer(work: Any, method: str, mode: str) -> Callable:
    return torch_diffeq.gradient(problem(work, "float64"), PLAIN[method], mode)


def contenders(work: Any, method: str) -> dict[str, Callable]:
    return {OURS: layer(work, method), TAPE: peer(work, method, "full"), ADJOINT: peer(work, method, "adjoint")}


def best(runs: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Seconds of the processor, of each run in turns."""
    found = dict.fromkeys(runs, np.inf)
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            before = process_time()
            run()
            found[name] = min(found[name], process_time() - before)
    return found


def apart(found: Any, truth: Any) -> float:
    """The largest difference of two gradients, relative to the largest entry of each array."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, truth, strict=True))


def errors(work: Any, method: str, runs: dict[str, Callable]) -> dict[str, float]:
    """Of each gradient against that of its own discrete solve, from a tape of all of its steps."""
    own = layer(work, method, gradient=rv.Direct(), backend="eager", threads=None)()[1]
    full = runs[TAPE]()[1]
    return {OURS: apart(runs[OURS]()[1], own), ADJOINT: apart(runs[ADJOINT]()[1], full)}


def high_water() -> int:
    """Bytes at the peak of this process: on Linux without what it inherits of its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])                     # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(name: str, work: str, method: str, steps: int) -> int:
    """In a fresh process: bytes of one gradient at its peak."""
    words = [sys.executable, "-m", "reference.interop", "--one", name, work, method, str(steps)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def one(name: str, work: str, method: str, steps: str) -> None:
    """What `memory` asks for."""
    contenders(WORKS[work]._replace(N=10), method)[name]()
    run = contenders(WORKS[work]._replace(N=int(steps)), method)[name]
    before = high_water()
    run()
    print(high_water() - before)


def works_table(rounds: int) -> list[str]:
    lines = ["| work, method | | time | against the tape | bar | error | memory, N and 8 N steps |", "|---|---|---|---|---|---|---|"]
    for key in ("w1", "w2"):
        work = WORKS[key]
        for method in METHODS:
            runs = contenders(work, method)
            times, off = best(runs, rounds), errors(work, method, runs)
            for name in runs:
                ratio, bar = times[TAPE] / times[name], BARS.get((key, method)) if name == OURS else None
                said = "" if bar is None else f"{bar:g}x: {'pass' if ratio >= bar else '**miss**'}"
                held = " / ".join(f"{memory(name, key, method, n * work.N) / 1e6:.1f}" for n in (1, 8)) + " MB"
                error = f"{off[name]:.0e}" if name in off else "rounding"
                scheme = method if name == OURS else PLAIN[method]
                lines.append(f"| {key.upper()}, {scheme} | {name} | {1e3 * times[name]:.1f} ms | "
                             f"{ratio:.1f}x | {said} | {error} | {held} |")
                print(lines[-1], flush=True)
    return lines


class Odeint(torch.nn.Module):
    """The block of the digits' program by torchdiffeq: the same network, the same start."""

    def __init__(self, block: Any, adjoint: bool) -> None:
        super().__init__()
        self.W, self.b, self.V, self.c = (torch.nn.Parameter(x.detach().clone()) for x in block.parameters())
        self.ts = torch.tensor(block.ts, dtype=torch.float32)
        self.odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def field(self, t: Any, y: Any) -> Any:
        return torch.tanh(torch.cat([t.expand(len(y), 1), y], 1) @ self.W + self.b) @ self.V + self.c

    def forward(self, y: Any) -> Any:
        more = {"adjoint_params": tuple(self.parameters())} if self.odeint is torchdiffeq.odeint_adjoint else {}
        return self.odeint(lambda t, y: self.field(t, y), y, self.ts, method="heun3", **more)[-1]


def digits_table(many: int) -> list[str]:
    program = runpy.run_path(str(DIGITS))
    made = {OURS: lambda: program["block"](backend="native", threads=1), TAPE: lambda: Odeint(program["block"](), False),
            ADJOINT: lambda: Odeint(program["block"](), True)}
    lines = ["| block | an epoch | held out, named right |", "|---|---|---|"]
    for name, middle in made.items():
        model, times, before, share = program["classifier"](middle()), [], process_time(), 0.0
        for share in program["epochs"](model, many):         # noqa: B007 (the last one is told)
            times.append(process_time() - before)
            before = process_time()
        lines.append(f"| {name} | {min(times):.2f} s | {100 * share:.1f} % |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/interop.md")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        return one(*args.one)
    versions = (f"Python {sys.version.split()[0]}, NumPy {np.__version__}, PyTorch {torch.__version__}, "
                f"torchdiffeq {torchdiffeq.__version__}")
    load = f" Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores." if hasattr(os, "getloadavg") else ""
    text = "\n".join([f"{versions}; one thread, processor time, best of {args.rounds} in turns.{load}", "",
                      *works_table(args.rounds), "",
                      f"The classifier above, {args.epochs} epochs; torchdiffeq by heun3 on the same grid (the block: EES25; "
                      "both three evaluations a step).", "", *digits_table(args.epochs)])
    if args.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()

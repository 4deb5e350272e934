"""python -m reference.scaling: how `rv.parallel.value_and_grad` scales on the cores at hand; writes docs/measurements/scaling.md.

The work is W2 of the benchmarks (d = 16, 16-64-64-16, 200 steps of Coupled midpoint, native, one thread a rank). It is run under
mpiexec (pip install mpi4py mpich) on 1, 2, 4, ... ranks, as many as there are cores; each figure is the least of several rounds. What
more ranks would do is a model, and is called one: `modelled`. A minute on two cores.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import revode as rv
from reference.benchmarks.works import LAM, WORKS, field, problem
from revode import parallel
from revode.compiled import native
from revode.parallel import TILE
from revode.ranks import exchanged, together

OUT = Path(__file__).parents[1] / "docs" / "measurements" / "scaling.md"
STRONG, WEAK, SMALL, ROUNDS = 512, 256, 32, 9                # trajectories: of all ranks, of each rank, of a small tile
MODELLED = 1024                                              # ranks, and tiles


class Counted:
    """A communicator that counts what it sends."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.sent = comm, 0
        self.Get_rank, self.Get_size, self.recv = comm.Get_rank, comm.Get_size, comm.recv

    def send(self, obj: Any, dest: int) -> None:
        self.sent += 1
        self.comm.send(obj, dest)


def losses(y0: np.ndarray, ts: np.ndarray, params: Any, rows: Any) -> Any:
    """Half the squared norm of the last state, (rows,)."""
    sol = rv.solve(lambda t, y, p: field(np, t, y, p), y0[rows], ts, params, method=rv.Coupled("midpoint", lam=LAM), save=[-1],
                   gradient=rv.Reversible(), backend="native", threads=1)
    return 0.5 * np.sum(sol.y1 * sol.y1, -1)


def least(runs: dict, rounds: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """(wall, processor) seconds of each run, in turns: the least of each."""
    found: dict[str, list] = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if n:                                            # the first makes the program
                found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: (min(w for w, _ in times), min(c for _, c in times)) for name, times in found.items()}


def on_rank() -> None:
    """What mpiexec runs: rank 0 prints what it has measured, as JSON."""
    comm = Counted(parallel.world())
    ranks = comm.Get_size()
    given = problem(WORKS["w2"], "float64")
    y0 = np.random.default_rng(1).standard_normal((max(STRONG, WEAK * ranks), 16))
    ts, params = given.ts, given.params
    loss = lambda p, rows: losses(y0, ts, p, rows)
    step, whole, small = (parallel.value_and_grad(loss, comm, tile=tile) for tile in (TILE, WEAK, SMALL))
    vector = np.zeros(1 + sum(p.size for p in params))
    runs = {"strong": lambda: step(params, STRONG), "weak": lambda: step(params, WEAK * ranks)}
    if ranks == 1:
        plain = rv.value_and_grad(lambda p: np.mean(loss(p, np.arange(WEAK))))
        runs |= {"plain": lambda: plain(params), "whole": lambda: whole(params, WEAK), "small": lambda: small(params, WEAK)}
    found = least(runs) | least({"tree": lambda: exchanged(comm, vector, lambda a, b: a + b)}, 200)
    comm.sent = 0
    step(params, STRONG)
    sent = together(comm, lambda: comm.sent, lambda a, b: a + b)
    if comm.Get_rank() == 0:
        print(json.dumps({"ranks": ranks, "sent": sent, "bytes": vector.nbytes, **found}))


def modelled(ranks: int, tiles: int, tile: float, message: float) -> float:
    """Seconds a step: the tiles of the busiest rank, and ceil(log2 P) times a message up and one down."""
    return -(-tiles // ranks) * tile + (ranks - 1).bit_length() * message


def table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])


def page(found: list[dict], ahead: bool = False) -> str:
    one, last = found[0], found[-1]
    strong, weak, ms = one["strong"][0], one["weak"][0], lambda s: f"{1e3 * s:,.0f} ms" if s > 0.1 else f"{1e3 * s:.3g} ms"
    tile, message = one["strong"][1] / (STRONG // TILE), last["tree"][0] / max(1, (last["ranks"] - 1).bit_length())
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    measured = [[str(r["ranks"]), ms(r["strong"][0]), f"{strong / r['strong'][0] / r['ranks']:.0%}", ms(r["strong"][1]),
                 ms(r["weak"][0]), f"{weak / r['weak'][0]:.0%}", str(r["sent"])] for r in found]
    model, version = [], native.compiler().version_text
    for ranks in [2 ** k for k in range(1, MODELLED.bit_length())]:
        strong, weak = modelled(ranks, MODELLED, tile, message), modelled(ranks, 4 * ranks, tile, message)
        model.append([str(ranks), ms(strong), f"{MODELLED * tile / ranks / strong:.1%}", ms(weak), f"{4 * tile / weak:.1%}"])
    over = [[name, ms(one[key][1]), f"{one[key][1] / one['plain'][1] - 1:+.1%}"] for name, key in (
        ("`rv.value_and_grad`, no ranks", "plain"), (f"one rank, one tile of {WEAK}", "whole"),
        (f"one rank, tiles of {TILE}, as by default", "weak"), (f"one rank, tiles of {SMALL}", "small"))]
    return f"""# Scaling over ranks

`python -m reference.scaling{" --ahead" * ahead}` writes this file.

Machine: {platform.machine()}, {native.cores()} cores{load} when this was measured{", before other processes" * ahead}; {version}.
The work: W2 of the [benchmarks](benchmarks.md), a gradient of Coupled midpoint (d = 16, 16-64-64-16, 200 steps, float64),
native, one thread a rank. The gradient has {one['bytes'] / 1024:.0f} KiB.

## Measured

Strong: {STRONG} trajectories in all. Weak: {WEAK} for each rank. Efficiency: the time of one rank over that of P, divided by
P where the work is shared out. Least of {ROUNDS} rounds. Where other processes use the cores the times are theirs too, and
the processor time of the strong column says more.

{table(["ranks", "strong", "efficiency", "processor, rank 0", "weak", "efficiency", "messages a step"], measured)}

2 (P - 1) messages a step: one up and one down for each rank but the first.

## What one rank costs

{WEAK} trajectories under `mpiexec -n 1`, in processor time, the least of {ROUNDS} in turns. What a rank adds is below what can be
measured; what smaller tiles add is Python's share of a solve, which is paid for each tile.

{table(["", "a gradient", "more"], over)}

## A model, not a measurement

    seconds(P) = ceil(tiles / P) tile + ceil(log2 P) message

with what was measured here: a tile of {TILE} takes {ms(tile)}, a message of the gradient up and one down, and their sum, {ms(message)}
between processes of one machine. A network has another `message`: some 2 us and the gradient's size over the bandwidth.

Strong: {MODELLED:,} tiles in all. Weak: 4 tiles for each rank.

{table(["ranks", "strong", "efficiency", "weak", "efficiency"], model)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ahead", action="store_true", help="before other processes: a busy machine disturbs less (Linux, as root)")
    args = parser.parse_args()
    if args.rank:
        if args.ahead:
            Path("/proc/self/autogroup").write_text("-10")
        return on_rank()
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        sys.exit("reference.scaling: there is no mpiexec; pip install mpi4py mpich")
    found, ranks = [], 1
    while ranks <= native.cores():
        command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "reference.scaling", "--rank", *["--ahead"] * args.ahead]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
        print(found[-1], file=sys.stderr)
        ranks *= 2
    OUT.write_text(page(found, args.ahead))


if __name__ == "__main__":
    main()

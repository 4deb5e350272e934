"""The desired values: loss and gradients by revode on NumPy in float64, a part of the batch in each process."""
from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import numpy as np

from .. import works
from .cases import GPU_WORKS, ROOT, Case, Setting, gradient
from .processes import Clock, command, environment

PART = 512               # trajectories that one host process takes on


def host_part(case: Case, setting: Setting, part: int, path: Path) -> None:
    """The desired loss and gradients of a part of the batch."""
    import revode as rv
    work = setting.size(case.work)
    problem = works.problem(work, "float64")
    rows = slice(part * PART, (part + 1) * PART)
    run = gradient(rv, work, case, problem.y0[rows], problem.params, {"gradient": rv.Reversible(), "backend": "eager"})
    write(path, *run())


def write(path: Path, loss: float, grads: list[np.ndarray]) -> None:
    """A file whole or not at all: it may be looked for while it is written."""
    there = path.with_name(f"writing-{path.name}")
    np.savez(there, loss=loss, **{f"g{i}": g for i, g in enumerate(grads)})
    there.replace(path)


def joined(parts: list[Path]) -> tuple[float, list[np.ndarray]]:
    """Loss and gradients of the whole batch from those of its parts, which all are means over their rows."""
    found = []
    for path in parts:
        with np.load(path) as file:
            found.append(dict(file))
    rows = [f["g0"].shape[0] for f in found]
    shares = [n / sum(rows) for n in rows]
    count = len(found[0]) - 1
    grads = [np.concatenate([f["g0"] * s for f, s in zip(found, shares, strict=True)]),
             *(sum(f[f"g{i}"] * s for f, s in zip(found, shares, strict=True)) for i in range(1, count))]
    return float(sum(f["loss"] * s for f, s in zip(found, shares, strict=True))), grads


def desired_values(cases: list[Case], setting: Setting, clock: Clock) -> list[str]:
    """Those that are not in the folder yet, by several processes at a time, until the clock has run out. Returns what went wrong."""
    folder = setting.folder
    pairs = [pair for pair in dict.fromkeys((case.work, case.method) for case in cases)
             if not (folder / f"desired-{'-'.join(pair)}.npz").exists()]
    places = {(work, method): [folder / f"part-{work}-{method}-{part}.npz" for part in range(-(-setting.size(work).batch // PART))]
              for work, method in pairs}
    todo = [(pair, part) for pair in sorted(pairs, key=lambda pair: -GPU_WORKS[pair[0]].batch)
            for part, path in enumerate(places[pair]) if not path.exists()]
    count, at_once = len(todo), max(1, (os.cpu_count() or 2) - 1)
    running: list[subprocess.Popen] = []
    problems: list[str] = []
    while todo or running:
        while todo and len(running) < at_once:
            (work, method), part = todo.pop(0)
            with open(folder / "host.log", "a") as log:
                running.append(subprocess.Popen(command("host", [Case(work, method, "float64")], setting, part), cwd=ROOT, stderr=log,
                                                stdout=subprocess.DEVNULL, env=environment(1)))
        time.sleep(0.05)
        running = [process for process in running if process.poll() is None]
        if clock.left < 0:
            for process in running:
                process.kill()
                process.wait()
            problems.append(f"the host was too slow for {len(running) + len(todo)} of {count} parts of the desired values")
            break
    for (work, method), parts in places.items():
        if not all(path.exists() for path in parts):
            problems.append(f"no desired values for {work}, {method}; see host.log")
            continue
        write(folder / f"desired-{work}-{method}.npz", *joined(parts))
        for path in parts:
            path.unlink()
    return problems

"""One contender in a process of its own. Started by run.py; by hand:

    python -m reference.benchmarks.worker revode-reversible w1 coupled-midpoint float64

It computes one gradient, says so and how long that took (with all that is traced and compiled for it, and without imports) in a
line of JSON, and then obeys one word a line (with --wait it waits for a first one, when everything has been imported):

    time     -> {"seconds": of one loss and gradient, "share": processor time / wall time}
    memory   -> {"bytes": what one more loss and gradient needs at its peak}
    (end of input) -> it ends
"""
from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

REPETITION = 0.1       # seconds that one repetition lasts at least: quick contenders are called several times in it


def main() -> int:
    args = arguments()
    stay_on(args.core, beside=args.wait)             # before a library counts the cores
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                    # what libraries print is not an answer

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    from .contenders import CONTENDERS
    from .works import WORKS
    contender = CONTENDERS[args.contender]
    work = WORKS[args.work]
    d, width = work.sizes[0], args.width
    work = work._replace(N=args.steps or work.N, batch=args.batch or work.batch, sizes=(d, width, width, d) if width else work.sizes)
    if args.cache:
        from revode.compiled import native
        native.cache_folder = lambda: Path(args.cache)
    make = importlib.import_module(f"{__package__}.contenders.{contender.module}").make
    if args.wait:
        sys.stdin.readline()
        stay_on(args.core)
    before = memory_mark(contender.memory, make, work, args, contender.mode)
    start = time.perf_counter()
    run = make(work, args.method, args.dtype, contender.mode)
    if args.memory:
        say(bytes=memory(contender.memory, run, before))
        return 0
    loss, grads = run()
    first = time.perf_counter() - start
    if hasattr(run, "agree"):
        loss, grads = run.agree()
    say(loss=float(loss), version=versions(contender.needs), first=first)
    if args.gradient:
        import numpy as np
        np.savez(args.gradient, *[np.asarray(g) for g in grads])
        say(saved=True)
    del grads
    calls = 0
    for line in sys.stdin:
        if line.strip() == "time":
            if not calls:
                run = run.warm() if hasattr(run, "warm") else run
                calls = calls_for(run)
            say(**timed(run, calls), calls=calls)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reference.benchmarks.worker")
    parser.add_argument("contender")
    parser.add_argument("work")
    parser.add_argument("method", help="the scheme that is to be run")
    parser.add_argument("dtype")
    parser.add_argument("--steps", type=int, help="instead of the work's own number")
    parser.add_argument("--batch", type=int, help="instead of the work's own size")
    parser.add_argument("--width", type=int, help="two hidden layers of this many features instead of the work's own")
    parser.add_argument("--cache", metavar="FOLDER", help="where revode keeps its libraries, instead of the user's cache")
    parser.add_argument("--core", type=int, help="processor to stay on")
    parser.add_argument("--wait", action="store_true", help="import everything on another processor, then wait for a line")
    parser.add_argument("--gradient", metavar="OUT.npz", help="write the gradient of the first run")
    parser.add_argument("--memory", action="store_true", help="say what one gradient needs, and end")
    return parser.parse_args()


def stay_on(core: int | None, beside: bool = False) -> None:
    """Keep this process on a processor, or, while another one is measured there, beside it."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        return
    others = [x for x in range(os.cpu_count() or 1) if x != core]
    for thread in Path("/proc/self/task").iterdir():             # those, too, that libraries have started
        os.sched_setaffinity(int(thread.name), {others[-1]} if beside and others else {core})


def calls_for(run: Callable) -> int:
    """How often to call in one repetition; the call that is timed here also warms up."""
    start = time.perf_counter()
    run()
    return max(1, int(REPETITION / (time.perf_counter() - start)))


def timed(run: Callable, calls: int) -> dict:
    """Seconds of one call, averaged over a repetition, and how much of the processor this process had meanwhile."""
    start, busy = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    wall = time.perf_counter() - start
    return {"seconds": wall / calls, "share": (time.process_time() - busy) / wall}


def memory_mark(how: str, make: Callable, work: Any, args: argparse.Namespace, mode: str) -> int:
    """The high-water mark of the process before the run to be measured, after a run of a few steps has loaded everything."""
    if args.memory and how == "rss":
        make(work._replace(N=10), args.method, args.dtype, mode)()
    return high_water()


def high_water() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(how: str, run: Callable, before: int) -> int:
    """Bytes at the peak of one run, above what is there when it starts."""
    if how == "xla":
        return run.temporary_bytes()
    if how == "rss":
        run()
        return high_water() - before
    run()                                            # what is traced and compiled for the first one is no part of the others
    gc.collect()
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    run()
    return tracemalloc.get_traced_memory()[1] - start


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    return {name: getattr(importlib.import_module(name), "__version__", None) or metadata.version(name) for name in packages}


if __name__ == "__main__":
    sys.exit(main())

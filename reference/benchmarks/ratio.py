"""Native code against replay on a few steps of one work: is the time in the products?

    python -m reference.benchmarks.ratio [--work w2] [--steps 6] [--flags=-march=x86-64-v3]

One process, one thread, its CPU time, turns taken, the best of 25; on a machine that has nothing else to do. The bar of W2 with 6
steps of Coupled midpoint is .6. --flags compiles as for another processor (and NumPy's own products should then be held to the same
one: OPENBLAS_CORETYPE=Haswell for AVX2).
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import revode as rv
from revode.compiled import native

from .works import LAM, WORKS, Work, field, loss, problem

BAR = 0.6


def gradient(work: Work, dtype: str, method: Any, backend: str) -> Callable:
    p = problem(work, dtype)
    run = rv.grad(lambda y0, params: loss(np, rv.solve(lambda t, y, q: field(np, t, y, q), y0, p.ts, params, method=method, save=[-1],
                                                       backend=backend, threads=1).y1), argnums=(0, 1))
    return lambda: run(p.y0, p.params)


def best(runs: dict[str, Callable], turns: int = 25) -> dict[str, float]:
    """Seconds of CPU time of each, after one turn that is not counted."""
    found = dict.fromkeys(runs, np.inf)
    for turn in range(turns + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                found[name] = min(found[name], time.process_time() - start)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="native code against replay")
    parser.add_argument("--work", default="w2", choices=[name for name, work in WORKS.items() if not work.sde])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--flags", help="target flags for the compiler instead of -march=native")
    args = parser.parse_args()
    if args.flags:
        here = native.compiler()
        native.compiler = lambda: here._replace(target=tuple(args.flags.split()))
    met = True
    for dtype in ("float64", "float32"):
        for name, method in (("coupled-midpoint", rv.Coupled("midpoint", LAM)), ("reversible-heun", rv.ReversibleHeun())):
            work = WORKS[args.work]._replace(N=args.steps)
            took = best({how: gradient(work, dtype, method, how) for how in ("replay", "native")})
            ratio = took["native"] / took["replay"]
            met &= ratio <= BAR or name != "coupled-midpoint"
            ms = ", ".join(f"{how} {seconds * 1e3:.2f} ms" for how, seconds in took.items())
            print(f"{args.work} N={args.steps} {dtype} {name:17} {ms}, ratio {ratio:.2f}", flush=True)
    print(f"bar {BAR} {'met' if met else 'missed'} (coupled-midpoint)")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())

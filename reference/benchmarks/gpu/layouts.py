"""Microseconds a step, by CUDA events: how threads and tiles of other sizes than the plan's do, and what a solve costs besides steps.

    us a step = (time of 2 N steps - time of N steps) / N          what a solve does once drops out
"""
from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from .. import works
from ..works import Work
from .cases import Case, Setting, asked, gradient, waited
from .libraries import needs_gpu

CASES = [Case(*x) for x in (("small", "coupled-midpoint", "float32"), ("w2", "coupled-midpoint", "float32"),
                            ("medium", "coupled-midpoint", "float32"), ("w4", "reversible-heun", "float32"))]
PLANS: list[dict] = [{}, {"threads": 32}, {"threads": 64}, {"threads": 256}, {"T": 2}, {"T": 4}, {"T": 8}, {"padded": True}]
WARM, RUNS = 4, 5         # a graph is made in the third run


def layouts(case: Case, setting: Setting) -> dict:
    """Of each plan, forward alone and with the gradient; what does not fit is listed with the reason."""
    needs_gpu("CUDA events")
    rows: list[dict] = []
    for plan in PLANS[:2] if setting.tiny else PLANS:
        try:
            rows.append({"plan": plan, **by_step(setting.size(case.work), case, plan)})
        except (NotImplementedError, ValueError) as error:
            rows.append({"plan": plan, "detail": str(error)[:300]})
    return {"status": "ok", "rows": rows}


def by_step(work: Work, case: Case, plan: dict) -> dict[str, float]:
    """Microseconds of a step forward, and of one forward and back."""
    found = {}
    for name, make in (("forward", alone), ("both", together)):
        once, twice = (elapsed(make(work._replace(N=n * work.N), case, plan)) for n in (1, 2))
        found[name] = 1e3 * (twice - once) / work.N
    return found


def alone(work: Work, case: Case, plan: dict) -> Callable:
    """The solve without its gradient."""
    import revode_cuda as rv
    (field, ts, chosen), (y0, params) = asked(rv, work, case), moved(work, case)
    return lambda: rv.solve(field, y0, ts, params, save=[-1], backend="fused", plan=plan, **chosen)


def together(work: Work, case: Case, plan: dict) -> Callable:
    """Loss and gradient."""
    import revode_cuda as rv
    return gradient(rv, work, case, *moved(work, case), {"backend": "fused", "plan": plan})


def moved(work: Work, case: Case) -> Any:
    import revode_cuda as rv
    problem = works.problem(work, case.dtype)
    return rv.to_device((problem.y0, problem.params))


def elapsed(run: Callable) -> float:
    """Milliseconds of a warm run, on the device's clock."""
    import cupy
    for _ in range(WARM):
        run()
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(RUNS):
        run()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / RUNS


def host_path(case: Case, setting: Setting) -> dict:
    """Seconds of a training step of ten steps, which is nearly all host path and launches."""
    needs_gpu("fused kernels")
    run = together(setting.size(case.work)._replace(N=10), case, {})
    times = []
    for _ in range(WARM + (3 if setting.tiny else 100)):
        start = time.perf_counter()
        run()
        waited()
        times.append(time.perf_counter() - start)
    return {"status": "ok", "seconds": median(times[WARM:]), "first": times[0]}


def peak(setting: Setting) -> dict:
    """FLOP/s of a large product of square matrices with random entries, by cuBLAS through CuPy: what this device can reach."""
    needs_gpu("cuBLAS")
    import cupy
    found = {}
    for dtype, n in (("float32", 8192), ("float64", 4096)):
        n = 64 if setting.tiny else n
        a = cupy.random.default_rng(0).standard_normal((n, n)).astype(dtype)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            a @ a
            waited()
            times.append(time.perf_counter() - start)
        found[dtype] = 2 * n ** 3 / median(times[1:])
    return {"status": "ok", "peak": found}

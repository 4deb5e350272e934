"""All that needs no GPU, made before: kernels compiled into a cache folder, and the desired values."""
from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from .. import works
from .cases import GPU_WORKS, Case, Setting, asked, for_bits
from .desired import desired_values
from .layouts import CASES, PLANS
from .processes import Clock


def prepare(cases: list[Case], setting: Setting, arch: str, seconds: float) -> int:
    """Fill a folder for --use. A second call goes on where the first was ended."""
    from revode_cuda import nvrtc
    from revode_cuda.compile import CompileError
    try:
        found = {"arch": arch, "nvrtc": ".".join(map(str, nvrtc.library().version)), **warm(cases, arch, str(setting.folder))}
    except (ImportError, CompileError) as error:            # no NVRTC, or one that does not know this architecture
        print(f"nothing was prepared: {error}".strip(), file=sys.stderr)
        return 2
    (setting.folder / "ready.json").write_text(json.dumps(found) + "\n")
    print("{kernels} kernels for {arch} by NVRTC {nvrtc}, the longest took {longest:.1f} s".format(**found), flush=True)
    problems = desired_values(cases, setting, Clock(seconds))
    for problem in problems:
        print(problem, file=sys.stderr)
    (setting.folder / "host.log").unlink(missing_ok=True)
    if not problems:
        print(f"ready: --use {setting.folder.name}")
    return min(1, len(problems))


def texts(cases: list[Case], arch: str) -> list[tuple[str, str, str, str]]:
    """The kernels of all steps, as compile takes them: those that are timed, by any plan, and those whose bits are compared."""
    import revode
    from revode_cuda import fused
    from revode_cuda.compile import kernel_source
    from revode_cuda.plan import CannotBeFused
    found: dict[tuple, None] = {}

    def function(text: str, shared: int, real: str, mode: str) -> None:
        found[text, real, arch, mode] = None

    device = fused.Device("none", np, arch, function, None)
    for case in cases:
        found |= {(kernel_source(name), {"float32": "float", "float64": "double"}[case.dtype], arch, "strict"): None
                  for name in ("collect", "scores")}
        plans = PLANS[1:] if case in CASES else []
        for work, modes, more in ((GPU_WORKS[case.work], ("strict", "fast"), plans), (for_bits(case), ("strict",), [])):
            problem, (field, ts, options) = works.problem(work, case.dtype), asked(revode, work, case)
            for mode, plan in [*((mode, None) for mode in modes), *(("fast", plan) for plan in more)]:
                try:
                    fused.planned(field, problem.y0, ts, problem.params, device, mode, plan, False, options)
                except (CannotBeFused, ValueError):
                    continue                                # the worker says so
    return [*found]


def compiled(asked: tuple[str, str, str, str]) -> float:
    """Seconds that a kernel took to compile, or to be found in the cache folder."""
    from revode_cuda.compile import compile
    start = time.perf_counter()
    compile(*asked)
    return time.perf_counter() - start


def warm(cases: list[Case], arch: str, cache: str) -> dict:
    """Compile all kernels into a folder, by as many processes as there are cores. None is compiled while anything is timed."""
    before, start = os.environ.get("XDG_CACHE_HOME"), time.perf_counter()
    os.environ["XDG_CACHE_HOME"] = cache                    # that of the processes of the pool
    try:
        with ProcessPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
            took = list(pool.map(compiled, texts(cases, arch)))
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        os.environ.update({"XDG_CACHE_HOME": before} if before else {})
    return {"kernels": len(took), "longest": max(took, default=0.0), "seconds": time.perf_counter() - start}

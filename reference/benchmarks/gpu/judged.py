"""One case: how far off it is, its bits, and only then how long it takes."""
from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .. import works
from .cases import ALLOWED, UNITS, Case, Setting, for_bits, gradient, no_gpu
from .libraries import CONTENDERS, OURS


def measured(key: str, case: Case, setting: Setting) -> dict:
    """Errors, repeatability, then times of one contender on one case."""
    start, work = time.perf_counter(), setting.size(case.work)
    run = CONTENDERS[key].make(work, case)
    agree = getattr(run, "agree", run)                     # on the noise that all share
    first = as_numpy(agree())
    result: dict = {"first": time.perf_counter() - start, "loss": float(np.reshape(first[0], ()))}
    desired = setting.folder / f"desired-{case.work}-{case.method}.npz"
    if not desired.exists():
        return {**result, "status": "unchecked", "detail": "there are no desired values from the host, so nothing is timed"}
    error = largest_error(first, read(desired))
    result |= {"error": error, "allowed": ALLOWED[case.dtype], "repeats": same_bits(first, as_numpy(agree()))}
    if not error <= ALLOWED[case.dtype]:
        return {**result, "status": "wrong", "detail": f"a gradient is off by {error:.2g}, allowed {ALLOWED[case.dtype]:.0e}"}
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < 50 and time.perf_counter() - begin < (0.05 if setting.tiny else 1.5)):
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
        if time.perf_counter() - begin > 4:                 # two runs came before, so even one time is a warm one
            break
    flops = UNITS[case.method] * work.N * 2 * work.batch * sum(n * m for n, m in pairwise(work.sizes)) * (2 if work.sde else 1)
    return {**result, "status": "ok", "seconds": median(times), "times": times, "flops": flops, "bytes": memory(key)}


def read(path: Path) -> tuple[float, list[np.ndarray]]:
    """Loss and gradients of a file of desired values."""
    with np.load(path) as file:
        return float(file["loss"]), [file[f"g{i}"] for i in range(len(file.files) - 1)]


def as_numpy(found: tuple) -> tuple[np.ndarray, list[np.ndarray]]:
    def host(x: Any) -> np.ndarray:
        if type(x).__module__.split(".")[0] == "torch":
            return x.cpu().numpy().copy()                  # a graph writes to the same place in its next run
        return np.array(x.get() if hasattr(x, "get") else x)
    value, grads = found
    return host(value), [host(g) for g in grads]


def largest_error(found: tuple, desired: tuple) -> float:
    """The largest difference of a gradient, each relative to its own largest entry, and of the loss."""
    errors = [abs(float(np.reshape(found[0], ())) - desired[0]) / abs(desired[0])]
    for a, b in zip(found[1], desired[1], strict=True):
        errors.append(float(abs(a - b).max() / abs(b).max()))
    return max(errors) if all(np.isfinite(errors)) else float("inf")


def same_bits(a: tuple, b: tuple) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip([a[0], *a[1]], [b[0], *b[1]], strict=True))


def memory(key: str) -> int | None:
    """Bytes of the device that the contender's library holds or held at its peak, where it can be asked."""
    if no_gpu():
        return None
    if key in OURS:
        return int(sys.modules["cupy"].get_default_memory_pool().total_bytes())
    if key.startswith("torch") and sys.modules["torch"].cuda.is_available():
        return int(sys.modules["torch"].cuda.max_memory_reserved())
    if key in ("jax", "diffrax"):
        stats = sys.modules["jax"].devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")
    return None


def strict_bits(case: Case) -> dict:
    """50 steps, a batch that no tile divides; loss and every gradient of the kernel and of the host build, in every bit.

    The host build is what the tests hold against NumPy; it is compared with NumPy's eager tape once more, up to rounding.
    """
    import revode
    import revode_cuda as rv
    work = for_bits(case)
    problem = works.problem(work, case.dtype)
    arrays = problem.y0, problem.params
    tape = as_numpy(gradient(revode, work, case, *arrays, {"backend": "eager"})())
    found: dict = {}
    for name, library, moved in (("native", revode, False), ("fused", rv, True)):
        try:
            given = rv.to_device(arrays) if moved else arrays
            found[name] = as_numpy(gradient(library, work, case, *given, {"backend": name, "arithmetic": "strict"})())
        except (ImportError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if moved and no_gpu() is None and not isinstance(error, NotImplementedError):
                raise
            found[name] = f"absent: {type(error).__name__}: {error}"[:300]
    bits = {"fused = native": compared(found["fused"], found["native"])}
    wrong = bits["fused = native"].startswith("differ")
    for name, x in found.items():
        error = None if isinstance(x, str) else largest_error(x, (float(np.reshape(tape[0], ())), tape[1]))
        bits[f"{name} against NumPy, up to rounding"] = x if error is None else f"{error:.1e}"
        wrong = wrong or (error is not None and not error <= ALLOWED[case.dtype])
    missing = any(isinstance(x, str) for x in found.values())
    return {"status": "wrong" if wrong else "absent" if missing else "ok", "bits": bits}


def compared(a: Any, b: Any) -> str:
    for x in (a, b):
        if isinstance(x, str):
            return x
    if same_bits(a, b):
        return "equal"
    names = ["loss", "dL/dy0", *(f"dL/dp{i}" for i in range(len(a[1]) - 1))]
    unequal = [f"{name} (largest difference {np.nanmax(abs(x.astype(float) - y)):.2g} in {int((x != y).sum())} of {x.size})"
               for name, x, y in zip(names, [a[0], *a[1]], [b[0], *b[1]], strict=True) if x.tobytes() != y.tobytes()]
    return "differ: " + "; ".join(unequal)

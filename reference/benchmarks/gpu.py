"""The GPU benchmark: bits, repeatability, errors, times, and the share of the peak. Checks before it times.

    python reference/benchmarks/gpu.py --prepare ready              # without a GPU: desired values, and kernels that are compiled
    python reference/benchmarks/gpu.py --use ready --out results    # writes results/gpu.json and gpu.tar.gz; needs a GPU and CuPy
    python reference/benchmarks/gpu.py --out results --rehearse     # tiny sizes on the host: does the script itself work?

Without --use both are made first, the kernels by many processes; none is compiled while something is timed.

    1  strict bits     the fused kernel in strict mode against the same source compiled for the host
    2  two runs        of everything that is timed: equal in every bit or not
    3  errors          loss and gradients of every contender against NumPy in float64
    4  times           loss and gradient, medians; only for contenders whose error is that of their precision
    5  FLOP/s          of the matrix products alone, over the peak that a large product reaches on this device

Contenders run in processes of their own with a time limit for each case, so that a crash or a hang costs one case; after an error
of CUDA's, which spoils all that follows, the rest goes to a new process. Every line is kept in gpu.json as it comes, and what
could not be run is listed with the reason; the archive holds the report (gpu.md) and the logs. Within --minutes (default 7.5).
The exit status is 0; 1 where one of revode's own results is wrong, or did not come; 2 where there is no GPU.
"""
from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
if __package__ in (None, ""):
    sys.path.insert(0, str(ROOT))          # run as a script: revode need not be installed

import numpy as np  # noqa: E402

from reference.benchmarks import works  # noqa: E402
from reference.benchmarks.works import LAM, SEED, WORKS, Work  # noqa: E402

GPU_WORKS = {"small": Work("small", "d 2, width 32, batch 256", (2, 32, 32, 2), 256, 1000, 1 / 256),
             "medium": Work("medium", "d 8, width 64, batch 4096", (8, 64, 64, 8), 4096, 1000, 1 / 256),
             **{name: WORKS[name] for name in ("w1", "w2", "w4")}}

# Multiplications of a batch with all weights in one step: an evaluation counts 1, a pullback 2.
UNITS = {"coupled-midpoint": 4 + 4 * (1 + 2), "reversible-heun": 1 + (1 + 2)}

# Largest error of a gradient against float64, relative to its largest entry. float64: sums in another order over 1000 steps of
# 4 evaluations, 1e3 * 4 * 100 eps = 1e-10, and the growth of the reverse sweep. float32: the same with its eps, 1e-2 or better.
ALLOWED = {"float64": 1e-8, "float32": 2e-2}
PART = 512               # trajectories that one host process takes on for the desired values
BAD = ("wrong", "failed", "timeout")
CONTEXT = ("CUDADriverError", "CUDARuntimeError", "CUDA_ERROR", "cudaError", "illegal memory access")      # of one that is dead


class Case(NamedTuple):
    """What is computed: a work by a method in a dtype."""
    work: str
    method: str
    dtype: str

    def __str__(self) -> str:
        return ":".join(self)


CASES = [Case(*x) for x in (
    ("small", "coupled-midpoint", "float32"), ("medium", "coupled-midpoint", "float32"), ("w2", "coupled-midpoint", "float32"),
    ("w4", "reversible-heun", "float32"), ("medium", "reversible-heun", "float32"), ("w2", "reversible-heun", "float32"),
    ("w1", "coupled-midpoint", "float32"), ("small", "reversible-heun", "float32"), ("w2", "coupled-midpoint", "float64"),
    ("w4", "reversible-heun", "float64"), ("small", "coupled-midpoint", "float64"), ("w1", "reversible-heun", "float64"))]


class Contender(NamedTuple):
    """One column of the tables."""
    key: str
    title: str
    make: Callable                   # make(work, case, rehearse) -> run;  run() -> (loss, [dL/dy0, *dL/dparams]), waited for
    needs: tuple[str, ...]
    share: float                     # of the time, of which what is not used goes to the next
    takes: Callable = lambda case: True


class Absent(Exception):
    """This cannot be run here, and why."""


# ------------------------------------------------------------------ the contenders

def revode_on(backend: str, arithmetic: str) -> Callable:
    def make(work: Work, case: Case, rehearse: bool) -> Callable:
        import revode_cuda as rv
        if rehearse and backend == "fused":
            raise Absent("fused kernels need a GPU")
        problem = works.problem(work, case.dtype)
        y0, params = (problem.y0, problem.params) if rehearse else rv.to_device((problem.y0, problem.params))
        run = revode_gradient(rv, work, case, y0, params, {"backend": backend, "arithmetic": arithmetic})

        def waited() -> tuple:
            try:
                found = run()
            except NotImplementedError as error:
                raise Absent(str(error)) from None
            wait(rehearse)
            return found

        return waited
    return make


def revode_gradient(rv: Any, work: Work, case: Case, y0: Any, params: Any, options: dict) -> Callable:
    """Loss and gradient through solve, as a user writes it."""
    field, ts, chosen = asked(rv, work, case)

    def loss(y0: Any, params: Any) -> Any:
        return works.loss(np, rv.solve(field, y0, ts, params, save=[-1], **chosen, **options).y1)

    both = rv.value_and_grad(loss, argnums=(0, 1))

    def run() -> tuple:
        value, (ay0, aparams) = both(y0, params)
        return value, [ay0, *aparams]

    return run


def asked(rv: Any, work: Work, case: Case) -> tuple[Callable, Any, dict]:
    """The field, the grid, and the options that say which solve it is."""
    chosen = {"method": rv.Coupled("midpoint", lam=LAM) if case.method == "coupled-midpoint" else rv.ReversibleHeun()}
    if work.sde:
        chosen |= {"diffusion": lambda t, y, p: works.diffusion(np, t, y, p), "noise": rv.Brownian(seed=SEED)}
    field = works.drift if work.sde else works.field
    return lambda t, y, p: field(np, t, y, p), work.h * np.arange(work.N + 1), chosen


def wait(rehearse: bool) -> None:
    if not rehearse:
        import cupy
        cupy.cuda.get_current_stream().synchronize()


def torch_by(mode: str) -> Callable:
    def make(work: Work, case: Case, rehearse: bool) -> Callable:
        if rehearse and mode == "graphs":
            raise Absent("CUDA graphs need a GPU")
        import torch

        from reference.benchmarks.contenders import torch_by_hand
        if not rehearse and not torch.cuda.is_available():
            raise Absent("torch sees no GPU")
        return torch_by_hand.make(work, case.method, case.dtype, mode, device="cpu" if rehearse else "cuda")
    return make


def jax_by_hand(work: Work, case: Case, rehearse: bool) -> Callable:
    on_jax_gpu(rehearse)
    from reference.benchmarks.contenders import jax_by_hand
    return jax_by_hand.make(work, case.method, case.dtype, "reversible")


def diffrax_heun(work: Work, case: Case, rehearse: bool) -> Callable:
    """diffrax's own reversible Heun, with its default adjoint."""
    on_jax_gpu(rehearse)
    import diffrax
    import jax

    from reference.adapters import jax_diffrax
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    jax_diffrax.SCHEMES["reversible-heun"] = diffrax.ReversibleHeun
    return jax_diffrax.gradient(works.problem(work, case.dtype), "reversible-heun", "checkpointed")


def on_jax_gpu(rehearse: bool) -> None:
    import jax
    jax.config.update("jax_default_matmul_precision", "highest")       # float32, not TF32, as everybody else here
    if not rehearse and jax.default_backend() != "gpu":
        raise Absent(f"JAX runs on {jax.default_backend()} here")


CONTENDERS = {c.key: c for c in (
    Contender("fused-strict", "revode fused, strict", revode_on("fused", "strict"), ("cupy",), 0.13),
    Contender("fused-fast", "revode fused, fast", revode_on("fused", "fast"), ("cupy",), 0.13),
    Contender("eager", "revode on CuPy, op by op", revode_on("eager", "fast"), ("cupy",), 0.18),
    Contender("torch-graphs", "torch by hand, CUDA graphs", torch_by("graphs"), ("torch",), 0.12),
    Contender("jax", "JAX by hand, jitted", jax_by_hand, ("jax",), 0.14),
    Contender("torch-eager", "torch by hand, eager", torch_by("eager"), ("torch",), 0.10),
    Contender("diffrax", "diffrax ReversibleHeun, jitted", diffrax_heun, ("jax", "diffrax"), 0.10,
              lambda case: case.method == "reversible-heun" and case.work != "w4"),
    Contender("torch-compiled", "torch by hand, compiled", torch_by("compiled"), ("torch",), 0.10,
              lambda case: case.dtype == "float32"),
)}
OURS = ("fused-strict", "fused-fast", "eager")


# ------------------------------------------------------------------ what a process of its own does

def host_part(case: Case, work: Work, part: int, path: Path) -> None:
    """The desired loss and gradients of a part of the batch: revode on NumPy in float64, one process."""
    import revode as rv
    problem = works.problem(work, "float64")
    rows = slice(part * PART, (part + 1) * PART)
    run = revode_gradient(rv, work, case, problem.y0[rows], problem.params,
                          {"gradient": rv.Reversible(), "backend": "eager"})
    value, grads = run()
    np.savez(path, loss=value, **{f"g{i}": g for i, g in enumerate(grads)})


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


def worker(args: argparse.Namespace) -> int:
    """Computes cases one after another; answers with a line of JSON when it begins one and when it is done with it."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)                                      # what libraries print is not an answer
        return answered(args, lambda **answer: print(json.dumps(answer), file=answers, flush=True))


def answered(args: argparse.Namespace, say: Callable) -> int:
    folder = Path(args.out)
    for text in args.cases.split(","):
        case = Case(*text.split(":"))
        work = size(case.work, args.rehearse)
        say(begin=text)
        try:
            if args.worker == "host":
                host_part(case, work, args.part, folder / f"part-{case.work}-{case.method}-{args.part}.npz")
                say(case=text, status="ok")
            elif args.worker == "bits":
                say(case=text, **strict_bits(case, args.rehearse))
            else:
                say(case=text, **measured(args.worker, case, work, folder, args.rehearse))
        except (Absent, ModuleNotFoundError) as error:
            say(case=text, status="absent", detail=str(error))
        except Exception as error:
            import traceback
            traceback.print_exc()
            detail = f"{type(error).__name__}: {error}"[:500]
            dead = any(word in detail for word in CONTEXT)
            say(case=text, status="failed", detail=detail, dead=dead)
            if dead:
                return 1
    if args.worker in CONTENDERS:
        say(versions={name: getattr(importlib.import_module(name), "__version__", "?") for name in CONTENDERS[args.worker].needs})
    return 0


def size(name: str, rehearse: bool) -> Work:
    work = GPU_WORKS[name]
    return work._replace(N=40, batch=min(work.batch, 12)) if rehearse else work


def measured(key: str, case: Case, work: Work, folder: Path, rehearse: bool) -> dict:
    """Errors, repeatability, then times of one contender on one case."""
    start = time.perf_counter()
    run = CONTENDERS[key].make(work, case, rehearse)
    agree = getattr(run, "agree", run)                     # on the noise that all share
    first = as_numpy(agree())
    result: dict = {"first": time.perf_counter() - start, "loss": float(np.reshape(first[0], ()))}
    desired = folder / f"desired-{case.work}-{case.method}.npz"
    if not desired.exists():
        return {**result, "status": "unchecked", "detail": "there are no desired values from the host, so nothing is timed"}
    with np.load(desired) as file:
        error = largest_error(first, (float(file["loss"]), [file[f"g{i}"] for i in range(len(file.files) - 1)]))
    result |= {"error": error, "allowed": ALLOWED[case.dtype],
               "repeats": same_bits(first, as_numpy(agree()))}
    if not error <= ALLOWED[case.dtype]:
        return {**result, "status": "wrong", "detail": f"a gradient is off by {error:.2g}, allowed {ALLOWED[case.dtype]:.0e}"}
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < 50 and time.perf_counter() - begin < (0.05 if rehearse else 1.5)):
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
        if time.perf_counter() - begin > 4:                 # two runs came before, so even one time is a warm one
            break
    flops = UNITS[case.method] * work.N * 2 * work.batch * sum(n * m for n, m in pairwise(work.sizes)) * (2 if work.sde else 1)
    return {**result, "status": "ok", "seconds": median(times), "times": times, "flops": flops,
            "bytes": None if rehearse else memory(key)}


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
    if key in OURS and "cupy" in sys.modules:
        return int(sys.modules["cupy"].get_default_memory_pool().total_bytes())
    if key.startswith("torch") and sys.modules["torch"].cuda.is_available():
        return int(sys.modules["torch"].cuda.max_memory_reserved())
    if key in ("jax", "diffrax"):
        stats = sys.modules["jax"].devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")
    return None


def strict_bits(case: Case, rehearse: bool) -> dict:
    """Step 1: 50 steps, a batch that no tile divides; loss and every gradient of the kernel and of the host build, in every bit.

    The host build is what the tests hold against NumPy; it is compared with NumPy's eager tape once more, up to rounding.
    """
    import revode
    import revode_cuda as rv
    work = for_bits(case)
    problem = works.problem(work, case.dtype)
    arrays = problem.y0, problem.params
    tape = as_numpy(revode_gradient(revode, work, case, *arrays, {"backend": "eager"})())
    found: dict = {}
    for name, library, moved in (("native", revode, False), ("fused", rv, True)):
        try:
            if moved and rehearse:
                raise NotImplementedError("fused kernels need a GPU")
            given = rv.to_device(arrays) if moved else arrays
            found[name] = as_numpy(revode_gradient(library, work, case, *given, {"backend": name, "arithmetic": "strict"})())
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
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


def peak() -> dict[str, float]:
    """FLOP/s of a large product of square matrices with random entries, by cuBLAS through CuPy: what this device can reach."""
    import cupy
    found = {}
    for dtype, n in (("float32", 8192), ("float64", 4096)):
        a = cupy.random.default_rng(0).standard_normal((n, n)).astype(dtype)
        a @ a
        times = []
        for _ in range(5):
            cupy.cuda.get_current_stream().synchronize()
            start = time.perf_counter()
            a @ a
            cupy.cuda.get_current_stream().synchronize()
            times.append(time.perf_counter() - start)
        found[dtype] = 2 * n ** 3 / median(times)
    return found


# ------------------------------------------------------------------ the process that starts the others

class Clock:
    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.total = 60 * minutes

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


def answers_of(process: subprocess.Popen) -> queue.Queue:
    """Lines of a process as they come; None at its end."""
    lines: queue.Queue = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def command(key: str, cases: list[Case], args: argparse.Namespace, part: int = 0) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--worker", key, "--cases", ",".join(map(str, cases)), "--out",
            str(args.out), "--part", str(part), *(["--rehearse"] if args.rehearse else [])]


def environment(threads: int | None) -> dict[str, str]:
    """threads: of the libraries; None for as many as they like."""
    more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
    if threads:
        more |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**os.environ, **more}


def run_cases(key: str, cases: list[Case], args: argparse.Namespace, seconds: float, limit: float) -> Iterator[dict]:
    """The answers of one contender. A case that takes longer than `limit`, or ends its process, costs that case alone."""
    end = time.monotonic() + seconds
    waiting = list(cases)
    while waiting:
        if end - time.monotonic() < 5:
            yield from ({"case": str(case), "status": "not run", "detail": "out of time"} for case in waiting)
            return
        with open(Path(args.out) / f"{key}.log", "a") as log:
            process = subprocess.Popen(command(key, waiting, args), stdout=subprocess.PIPE, stderr=log, text=True,
                                       cwd=ROOT, env=environment(None) | ({"XDG_CACHE_HOME": args.cache} if args.cache else {}))
        lines = answers_of(process)
        status = ""
        while True:
            try:
                line = lines.get(timeout=max(0.1, min(limit, end - time.monotonic())))
            except queue.Empty:
                process.kill()
                process.wait()
                status = "timeout"
                break
            if line is None:
                status = "failed" if process.wait() else ""
                break
            answer = json.loads(line)
            if "case" in answer:
                waiting = [case for case in waiting if str(case) != answer["case"]]
                yield answer
                if answer.get("dead"):
                    process.kill()
                    process.wait()
                    status = "dead"
                    break
                if answer["status"] == "absent" and "No module named" in answer.get("detail", ""):
                    process.kill()                          # it will not be there for the other cases either
                    process.wait()
                    yield from ({**answer, "case": str(case)} for case in waiting)
                    return
            elif "versions" in answer:
                yield answer
        if not waiting:
            return
        if status == "dead":
            continue                                        # the others get a context of their own
        if not status:
            status = "failed"
        detail = f"longer than {limit:.0f} s, or out of its share of the time" if status == "timeout" else \
            f"the process ended with status {process.returncode}; see {key}.log"
        yield {"case": str(waiting.pop(0)), "status": status, "detail": detail}


def desired_values(args: argparse.Namespace, clock: Clock) -> list[str]:
    """Step 0: the desired values, by NumPy in float64, several processes at a time. Returns what went wrong."""
    jobs: list[tuple[Case, int]] = []
    pairs = list(dict.fromkeys((case.work, case.method) for case in args.chosen))
    pairs = [pair for pair in pairs if not (Path(args.out) / f"desired-{'-'.join(pair)}.npz").exists()]
    for work, method in pairs:
        parts = -(-size(work, args.rehearse).batch // PART)
        jobs += [(Case(work, method, "float64"), part) for part in range(parts)]
    jobs.sort(key=lambda job: -GPU_WORKS[job[0].work].batch)
    at_once = max(1, (os.cpu_count() or 2) - 1)
    running: list[tuple[Case, subprocess.Popen]] = []
    problems: list[str] = []
    todo = list(jobs)
    while todo or running:
        while todo and len(running) < at_once:
            case, part = todo.pop(0)
            with open(Path(args.out) / "host.log", "a") as log:
                running.append((case, subprocess.Popen(command("host", [case], args, part), stdout=subprocess.DEVNULL, stderr=log,
                                                       cwd=ROOT, env=environment(1))))
        time.sleep(0.05)
        running = [(case, process) for case, process in running if process.poll() is None]
        if clock.left < 0.65 * clock.total:
            for _, process in running:
                process.kill()
            problems.append(f"the host was too slow for {len(running) + len(todo)} of {len(jobs)} parts of the desired values")
            break
    for work, method in pairs:
        count = sum(1 for case, _ in jobs if (case.work, case.method) == (work, method))
        parts = [Path(args.out) / f"part-{work}-{method}-{part}.npz" for part in range(count)]
        if not all(path.exists() for path in parts):
            problems.append(f"no desired values for {work}, {method}; see host.log")
            continue
        loss, grads = joined(parts)
        np.savez(Path(args.out) / f"desired-{work}-{method}.npz", loss=loss, **{f"g{i}": g for i, g in enumerate(grads)})
        for path in parts:
            path.unlink()
    return problems


def texts(cases: list[Case], arch: str) -> list[tuple[str, str, str, str]]:
    """The kernels of all cases, as compile takes them: those that are timed, and those whose bits are compared."""
    import revode
    from revode_cuda import fused
    from revode_cuda.plan import CannotBeFused
    found: dict[tuple, None] = {}

    def function(text: str, shared: int, real: str, mode: str) -> None:
        found[text, real, arch, mode] = None

    device = fused.Device("none", np, arch, function, None)
    for case in cases:
        for work, modes in ((GPU_WORKS[case.work], ("strict", "fast")), (for_bits(case), ("strict",))):
            problem, (field, ts, options) = works.problem(work, case.dtype), asked(revode, work, case)
            for mode in modes:
                try:
                    fused.planned(field, problem.y0, ts, problem.params, device, mode, None, False, options)
                except CannotBeFused:
                    continue                                # the worker says so
    return [*found]


def for_bits(case: Case) -> Work:
    """Its work in 50 steps, and a batch that no tile divides."""
    work = GPU_WORKS[case.work]
    return work._replace(N=50, batch=min(work.batch, 67))


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


def about_the_machine(rehearse: bool) -> dict:
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
             "numpy": np.__version__, "machine": platform.machine(), "cores": os.cpu_count()}
    if rehearse:
        return {**about, "device": "none: a rehearsal on the host, and no measurement"}
    import cupy
    found = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    about |= {"device": found["name"].decode(), "compute capability": f"{found['major']}.{found['minor']}",
              "multiprocessors": found["multiProcessorCount"], "memory": found["totalGlobalMem"], "cupy": cupy.__version__,
              "driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion()}
    try:
        asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,utilization.gpu"
        smi = subprocess.run(["nvidia-smi", f"--query-gpu={asked}", "--format=csv"], capture_output=True, text=True, timeout=20)
        about["nvidia-smi"] = smi.stdout.strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        about["nvidia-smi"] = [str(error)]
    return about


def no_gpu() -> str | None:
    """What is missing, or None."""
    from revode_cuda.arrays import require_cupy
    try:
        require_cupy("the GPU benchmark")
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


# ------------------------------------------------------------------ the report

def report(results: dict) -> str:
    about, found = results["about"], results["cases"]
    lines = ["# GPU benchmark", "", f"`{results['command']}`", "",
             f"{about['device']}, {about['date']}. " + ", ".join(f"{k} {v}" for k, v in {**about, **results["versions"]}.items()
                                                                  if k in ("driver", "runtime", "cupy", "numpy", "torch", "jax",
                                                                           "diffrax", "python")) + ".", ""]
    lines += [f"- {problem}" for problem in results["problems"]] + ([""] if results["problems"] else [])
    lines += ["Loss and gradient with respect to y0 and all weights, the same method and precision for everybody (float32 without "
              "TF32). Times are medians, the wait for the device included, compilation not.", "", "## 1. Strict bits", ""]
    lines += table(["case", *results["bits"][0]["bits"]] if results["bits"] and "bits" in results["bits"][0] else ["case", "what"], [
        [row["case"], *row.get("bits", {"what": row.get("detail", row["status"])}).values()] for row in results["bits"]])
    titles = [c for c in CONTENDERS.values() if c.key in found]
    for title, cell in (("## 2. Two runs, equal in every bit", lambda r: {True: "equal", False: "differ"}.get(r.get("repeats"), "")),
                        ("## 3. Largest error of a gradient, relative, against NumPy in float64",
                         lambda r: f"{r['error']:.1e}" if "error" in r else ""),
                        ("## 4. Milliseconds (first call with compilation, in seconds)",
                         lambda r: f"{1e3 * r['seconds']:.3g} ({r['first']:.1f})" if "seconds" in r else ""),
                        ("## 5. Share of the measured peak" + (
                            " (" + ", ".join(f"{k} {v / 1e12:.1f} TFLOP/s" for k, v in results["peak"].items()) + ")"
                            if results["peak"] else ""), lambda r: share(r, results["peak"])),
                        ("## Device memory, MB", lambda r: f"{r['bytes'] / 1e6:.0f}" if r.get("bytes") else "")):
        rows = [[str(case), *(cell(r) or r.get("status", "").replace("ok", "") for r in
                              (found[c.key].get(str(case), {}) for c in titles))] for case in (Case(*c) for c in results["chosen"])]
        lines += ["", title, "", *table(["case", *(c.title for c in titles)], rows)]
    missing: dict[str, list[str]] = {}
    for key, cases in found.items():
        for case, r in cases.items():
            if r["status"] != "ok":
                missing.setdefault(f"{CONTENDERS[key].title}: {r['status']}: {r.get('detail', '')}", []).append(case)
    lines += ["", "## What was not timed", "", *(f"- {why} ({', '.join(cases)})" for why, cases in missing.items())]
    return "\n".join(lines) + ("\n" if missing else "\nNothing.\n")


def share(r: dict, peaks: dict) -> str:
    if "seconds" not in r or not peaks:
        return ""
    rate = r["flops"] / r["seconds"]
    return f"{rate / peaks[r['dtype']]:.1%} ({rate / 1e12:.2g} TFLOP/s)"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(x.replace("|", "/") for x in row) + " |" for row in (head, ["---"] * len(head), *rows)]


def save(results: dict, args: argparse.Namespace) -> None:
    """gpu.json as far as it goes."""
    (Path(args.results) / "gpu.json").write_text(json.dumps(results, indent=1, allow_nan=True) + "\n")


def archive(results: dict, args: argparse.Namespace) -> None:
    """One file for the rest: the report, and the logs."""
    (Path(args.out) / "gpu.md").write_text(report(results))
    with tarfile.open(Path(args.results) / "gpu.tar.gz", "w:gz") as file:
        for path in sorted([*Path(args.out).glob("*.md"), *Path(args.out).glob("*.log")]):
            file.add(path, path.name)


def prepare(args: argparse.Namespace) -> int:
    """What needs no GPU, into a folder for --use."""
    folder = Path(args.prepare)
    folder.mkdir(parents=True, exist_ok=True)
    args.out = str(folder)
    found = warm(args.chosen, args.arch, str(folder))
    print(f"{found['kernels']} kernels for {args.arch}, the longest took {found['longest']:.1f} s", flush=True)
    problems = desired_values(args, Clock(args.minutes))
    for problem in problems:
        print(problem, file=sys.stderr)
    (folder / "host.log").unlink(missing_ok=True)
    print(f"ready: --use {folder.name}")
    return min(1, len(problems))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python reference/benchmarks/gpu.py", description="Benchmark on a GPU; see the file's head.")
    parser.add_argument("--out", metavar="FOLDER", help="where gpu.json and gpu.tar.gz go")
    parser.add_argument("--prepare", metavar="FOLDER", help="make there what needs no GPU: desired values, compiled kernels")
    parser.add_argument("--use", metavar="FOLDER", help="what --prepare has made")
    parser.add_argument("--arch", default="sm_90", help="for --prepare (sm_90)")
    parser.add_argument("--minutes", type=float, default=7.5, help="time for all of it (7.5)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one case of one contender (60)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--cases", help="such as small:coupled-midpoint:float32,w4:reversible-heun:float64")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the host, to try the script out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args)
    args.chosen, args.cache = [Case(*text.split(":")) for text in args.cases.split(",")] if args.cases else CASES, None
    if args.prepare:
        return prepare(args)
    if not args.out:
        parser.error("give --out FOLDER, or --prepare FOLDER")
    missing = None if args.rehearse else no_gpu()
    if missing:
        print(f"no GPU, so nothing was measured: {missing}\nTry the script out with --rehearse.", file=sys.stderr)
        return 2
    Path(args.out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="revode-gpu-") as scratch:
        args.results, args.out = args.out, scratch
        if args.use:
            shutil.copytree(args.use, scratch, dirs_exist_ok=True)
        return benchmark(args, Clock(args.minutes))


def benchmark(args: argparse.Namespace, clock: Clock) -> int:
    """All five steps, in a scratch folder, args.out."""
    results: dict = {"command": " ".join(["python", "reference/benchmarks/gpu.py", *sys.argv[1:]]).replace(args.results, "OUT"),
                     "about": about_the_machine(args.rehearse), "chosen": [list(case) for case in args.chosen], "problems": [],
                     "compiled": {}, "bits": [], "peak": {}, "cases": {}, "versions": {}}
    if not args.rehearse:
        from revode_cuda.compile import arch
        args.cache = args.out
        results["compiled"] = warm(args.chosen, arch(), args.cache)
        print("{kernels} kernels compiled or found in {seconds:.0f} s, the longest in {longest:.1f} s".format(**results["compiled"]))
    results["problems"] += desired_values(args, clock)
    print(f"desired values from the host; {clock.left:.0f} s left", flush=True)
    if not args.rehearse:
        try:
            results["peak"] = peak()
        except Exception as error:
            results["problems"].append(f"the peak could not be measured: {error}")
    contenders = [CONTENDERS[key] for key in args.only or CONTENDERS]
    if not args.only or any(c.key.startswith("fused") for c in contenders):
        results["bits"] = [row for row in run_cases("bits", args.chosen, args, min(90, 0.2 * clock.left), args.limit) if "case" in row]
        for row in results["bits"]:
            print(f"bits {row['case']:36} {row['status']}", flush=True)
    save(results, args)
    for i, contender in enumerate(contenders):
        seconds = clock.left * contender.share / sum(c.share for c in contenders[i:])
        rows: dict = results["cases"].setdefault(contender.key, {})
        for answer in run_cases(contender.key, [case for case in args.chosen if contender.takes(case)], args, seconds, args.limit):
            if "versions" in answer:
                results["versions"] |= answer["versions"]
                continue
            case = Case(*answer["case"].split(":"))
            rows[str(case)] = {**case._asdict(), **answer}
            shown = f"{1e3 * answer['seconds']:9.3f} ms" if "seconds" in answer else answer.get("detail", "")[:100]
            print(f"{contender.key:16} {case!s:36} {answer['status']:9} {shown}", flush=True)
            save(results, args)
    archive(results, args)
    print(f"written: gpu.json, gpu.tar.gz; {clock.left:.0f} s left")
    return verdict(results)


def verdict(results: dict) -> int:
    """1 where one of revode's own results is wrong, or its process did not come to it."""
    ours = [*results["bits"], *(row for key in OURS for row in results["cases"].get(key, {}).values())]
    return int(any(row["status"] in BAD for row in ours))


if __name__ == "__main__":
    sys.exit(main())

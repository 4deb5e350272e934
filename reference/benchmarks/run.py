"""Start the contenders, see that they agree, let them take turns, write the report.

    python -m reference.benchmarks.run --python PYTHON_OF_AN_ENVIRONMENT_WITH_PEERS --out docs/measurements/benchmarks.md \\
        --json docs/measurements/benchmarks.json --plot docs/measurements/benchmarks.png [--beside ANOTHER_MACHINE.json]

Under 15 minutes on two cores: W3 is run with one method in float64 by the fastest of each kind, and what needs seconds for a
gradient takes part in W1 alone; --work w3 --methods, --dtype and --contenders ask for more.

Every contender runs in a process of its own, on one core, with one BLAS thread. Repetitions are interleaved: each round
asks every contender once, so that what slows the machine for a while slows all of them. A contender whose packages no
interpreter has is listed as absent. Nothing is timed before all have given the same loss.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from . import report
from .contenders import CONTENDERS, Contender
from .works import LAM, PLAIN, WORKS, Work, problem

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu",
              "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
# Largest difference of two losses of the same scheme. float64: that of PERFORMANCE; float32: a rounding a step, adding up.
AGREE = {"float64": lambda N: 1e-8, "float32": lambda N: max(1e-5, N * 2.0 ** -23)}
ENOUGH = 30.0          # seconds after which a slow contender takes no further turn, if it has had three
MEMORY_STEPS = (100, 1000, 10000)
SLOW = 1.0             # seconds of a gradient of W1, above which a contender's memory is not asked for
# What is run of a work, where that was not chosen: the methods, the types and who takes part.
FIRST_OF = {"w3": (["reversible-heun"], ["float64"], [
    "revode-replay", "revode-native", "revode-auto", "numpy", "c", "jax", "torchdiffeq", "diffrax-heun"])}
# Who is asked how it grows, and along what: the work, what it is changed in, and its two sizes.
GROWING = ("revode-native", "revode-replay", "revode-reversible", "numpy", "c", "jax", "diffrax-heun")
AXES = {"steps": ("w1", {}, "steps", 1000, 4000), "batch": ("w2", {"N": 20}, "batch", 64, 256),
        "width": ("w2", {"N": 20, "batch": 64}, "width", 64, 256)}
FEATURES = {"AVX512F": "AVX-512", "AVX2": "AVX2", "AVX": "AVX", "SVE": "SVE", "ASIMD": "NEON", "SSE2": "SSE2"}
SCHEMA = 2
BEGUN = time.perf_counter()


class Disagreement(Exception):
    """Contenders of one scheme that do not compute the same loss: there is nothing to time."""


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        measured = args.again or measure(args)
    except Disagreement as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    text = report.markdown(measured, args.beside)
    print(text)
    for path, write in ((args.out, lambda path: path.write_text(text)),
                        (args.json, lambda path: path.write_text(json.dumps(measured, indent=1) + "\n")),
                        (args.plot, lambda path: report.plot(measured, path))):
        if path is not None:
            write(path)
            say(f"wrote {path}")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for. Raises Disagreement."""
    found, absent = interpreters([CONTENDERS[key] for key in args.contenders or CONTENDERS], [sys.executable, *args.python])
    for key, reason in absent.items():
        say(f"absent: {CONTENDERS[key].title} ({reason})")
    measured: dict[str, Any] = {
        "schema": SCHEMA, "date": time.strftime("%Y-%m-%d"), "command": command(args), "machine": machine(),
        "load_before": load(), "repeats": args.repeats, "absent": absent, "versions": {}, "times": [], "first": [],
        "memory": [], "errors": [], "warm": "as many, or 8 where these take two seconds", "growth": [], "short": {}}
    for name in args.work:
        work = WORKS[name]._replace(**{k: v for k, v in (("N", args.steps), ("batch", args.batch)) if v})
        methods, dtypes, keys = FIRST_OF.get(name, (list(PLAIN), list(AGREE), list(found)))
        chosen = {key: python for key, python in found.items() if args.contenders or key in keys}
        for dtype in args.dtype or dtypes:
            for method in (args.methods or methods) if not work.sde else ["reversible-heun"]:
                measured["times"].append(side_by_side(work, method, dtype, chosen, args, measured["versions"]))
        if not work.sde:
            measured["errors"].append({"work": name, **errors(work)})
    if "w1" in args.work and not args.quick:
        measured["first"] = first_gradients(found, args)
        measured["memory"] = memories(found, args, measured["times"])
    if not args.quick:
        measured["growth"] = growth(found, args)
        measured["short"] = alone("few_steps") if "revode-native" in found else {}
    measured["load_after"], measured["minutes"] = load(), minutes()
    return measured


def minutes() -> float:
    """How long this takes already."""
    return round((time.perf_counter() - BEGUN) / 60, 1)


def say(text: str, end: str = "\n") -> None:
    print(f"\r{minutes():5.1f} min  {text}", end=end, file=sys.stderr, flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reference.benchmarks.run",
                                     description="Loss and gradient of the same problems by revode and by others, side by side.")

    def one_of(known: Any) -> Any:
        def convert(text: str) -> list[str]:
            names = text.split(",")
            wrong = [name for name in names if name not in known]
            if wrong:
                raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(known)}")
            return names

        return convert

    def recorded(name: str) -> dict[str, Any]:
        try:
            found = json.loads(Path(name).read_text())
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{name} cannot be read: {error}") from None
        if not isinstance(found, dict) or found.get("schema") != SCHEMA or "times" not in found:
            raise argparse.ArgumentTypeError(f"{name} is not what --json of this command wrote")
        return found

    parser.add_argument("--work", type=one_of(WORKS), default=list(WORKS), metavar="w1,w2,w3,w4")
    parser.add_argument("--methods", type=one_of(PLAIN), metavar=",".join(PLAIN), help="default: both, and one for w3")
    parser.add_argument("--dtype", type=one_of(AGREE), metavar=",".join(AGREE), help="default: both, and float64 for w3")
    parser.add_argument("--contenders", type=one_of(CONTENDERS), metavar="A,B",
                        help=f"of {', '.join(CONTENDERS)}; default: all, and the fastest of each kind for w3")
    parser.add_argument("--repeats", type=int, default=5, metavar="R", help="turns of each contender; default 5")
    parser.add_argument("--python", action="append", default=[], metavar="PYTHON",
                        help="another interpreter to look for packages in; may be given several times")
    parser.add_argument("--steps", type=int, metavar="N", help="instead of each work's own number, for a trial")
    parser.add_argument("--batch", type=int, metavar="B", help="instead of each work's own size, for a trial")
    parser.add_argument("--quick", action="store_true", help="leave out memory, growth and first gradients")
    parser.add_argument("--again", type=recorded, metavar="MEASURED.json",
                        help="measure nothing: the page of what was measured before")
    parser.add_argument("--beside", type=recorded, action="append", default=[], metavar="OTHER.json",
                        help="what another machine has measured: it gets a column beside this one's, bar by bar")
    parser.add_argument("--core", type=int, default=last_core(), help="processor to run on; default: the last one")
    parser.add_argument("--out", type=Path, metavar="OUT.md")
    parser.add_argument("--json", type=Path, metavar="OUT.json")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="needs matplotlib")
    args = parser.parse_args(argv)
    for name in ("repeats", "steps", "batch"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name} {value}: at least 1")
    if args.core is not None and hasattr(os, "sched_getaffinity") and args.core not in os.sched_getaffinity(0):
        parser.error(f"--core {args.core}: this process may run on {sorted(os.sched_getaffinity(0))}")
    for name in ("out", "json", "plot"):
        if (path := getattr(args, name)) is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.open("a").close()
            except OSError as error:
                parser.error(f"--{name} {path} cannot be written: {error}")
    return args


def last_core() -> int | None:
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def command(args: argparse.Namespace) -> str:
    """What was run, without the places that only this machine has."""
    words = ["python -m reference.benchmarks.run", f"--work {','.join(args.work)}", f"--repeats {args.repeats}"]
    words += [f"--{name} {','.join(value)}" for name in ("methods", "dtype") if (value := getattr(args, name))]
    words += [f"--{name} {value}" for name in ("steps", "batch") if (value := getattr(args, name))]
    words += [f"--contenders {','.join(args.contenders)}"] if args.contenders else []
    words += ["--quick"] * args.quick + ["--python PYTHON"] * len(args.python) + ["--beside OTHER.json"] * len(args.beside)
    words += [f"--{name} {place(path)}" for name in ("out", "json", "plot") if (path := getattr(args, name)) is not None]
    return " ".join(words)


def place(path: Path) -> str:
    return path.name if path.is_absolute() else str(path)


def machine() -> dict:
    """The processor and the software; no names of hosts or places."""
    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {"cpu": model, "simd": simd(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(), "numpy": np.__version__}


def simd() -> str:
    """The widest vectors of the processor, as NumPy sees them."""
    core = getattr(np, "_core", None) or np.core
    has = getattr(core._multiarray_umath, "__cpu_features__", {})
    return next((name for feature, name in FEATURES.items() if has.get(feature)), "unknown")


def load() -> float | None:
    """Processes at work, averaged over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def interpreters(wanted: Sequence[Contender], pythons: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Contender -> the first interpreter that has its packages, and contender -> what is missing."""
    names = sorted({package for contender in wanted for package in contender.needs})
    question = f"import importlib.util as u; print(*[n for n in {names!r} if u.find_spec(n)])"
    has = {}
    for python in pythons:
        try:
            answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise SystemExit(f"benchmark: --python {python} does not run Python: {error}") from None
        has[python] = set(answer.stdout.split())
    found, absent = {}, {}
    for contender in wanted:
        if contender.compiled and (reason := no_compiler()):
            absent[contender.key] = reason
            continue
        python = next((p for p in pythons if has[p].issuperset(contender.needs)), None)
        if python is None:
            missing = set(contender.needs) - set().union(*has.values())
            absent[contender.key] = f"not installed: {', '.join(sorted(missing) or contender.needs)}"
        else:
            found[contender.key] = python
    return found, absent


def no_compiler() -> str | None:
    """Why what needs a C++ compiler cannot take part."""
    from revode.compiled import native
    try:
        native.compiler()
    except native.NoCompiler:
        return "no C++ compiler"
    return None


# The processes --------------------------------------------------------------------------------------------------------
class Worker:
    """A process that computes when it is told to."""

    def __init__(self, python: str, contender: Contender, work: Work, scheme: str, dtype: str, core: int | None,
                 options: Sequence[str] = (), bytecode: Path | None = None) -> None:
        self.title = contender.title
        self.errors = tempfile.TemporaryFile("w+")
        words = [python, "-m", f"{__package__}.worker", contender.key, work.name, scheme, dtype, "--steps", str(work.N),
                 "--batch", str(work.batch), *options, *(["--core", str(core)] if core is not None else [])]
        kept = {} if bytecode is None else {"PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONDONTWRITEBYTECODE": ""}
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        cwd=ROOT, env={**os.environ, **ONE_THREAD, **kept})

    def hear(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise SystemExit(f"benchmark: {self.title} ended early:\n{self.errors.read()[-2000:]}")
        return json.loads(line)

    def ask(self, word: str) -> dict:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@contextmanager
def working(*args: Any, **options: Any) -> Iterator[Worker]:
    worker = Worker(*args, **options)
    try:
        yield worker
    finally:
        worker.end()


def one_ahead(start: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """What start makes of each job, begun before the one before it is used: a process imports while another one is measured."""
    begun = []
    for job in jobs:
        begun.append(start(job))
        if len(begun) > 1:
            yield begun.pop(0)
    yield from begun


def scheme_of(contender: Contender, method: str) -> str:
    return PLAIN[method] if contender.plain else method


# What is measured -----------------------------------------------------------------------------------------------------
def side_by_side(work: Work, method: str, dtype: str, found: dict[str, str], args: argparse.Namespace,
                 versions: dict[str, str]) -> dict:
    """One table: every contender on one work; agreement first, then the times, in turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers, losses, firsts, grads = {}, {}, {}, {}

        def start(key: str) -> tuple[str, Path, Worker]:
            contender, path = CONTENDERS[key], folder / f"{key}.npz"
            return key, path, stack.enter_context(working(
                found[key], contender, work, scheme_of(contender, method), dtype, args.core,
                ["--wait", "--gradient", str(path), *cache_of(contender, folder / key)]))

        for key, path, worker in one_ahead(start, [key for key in found if CONTENDERS[key].takes(work, method, dtype)]):
            workers[key], said = worker, worker.ask("go")
            losses[key], firsts[key] = said["loss"], said["first"]
            versions.update(said["version"])
            worker.hear()
            with np.load(path) as file:
                grads[key] = np.concatenate([file[name].astype(np.float64).ravel() for name in file])
        differences = agreement(work, method, dtype, losses, grads)
        turns: dict[str, list[dict]] = {key: [] for key in workers}
        for r in range(args.repeats):
            for key, worker in workers.items():
                spent = sum(turn["seconds"] * turn["calls"] for turn in turns[key])
                if r < 3 or spent < ENOUGH:
                    turns[key].append(worker.ask("time"))
            say(f"{work.name} {method} {dtype}: round {r + 1} of {args.repeats}", end="")
        print(file=sys.stderr)
    return {"work": work._asdict(), "method": method, "dtype": dtype, "load": load(), "rows": [
        {"key": key, "scheme": scheme_of(CONTENDERS[key], method), "loss": losses[key], "first": firsts[key], **differences[key],
         "seconds": [turn["seconds"] for turn in turns[key]], "calls": turns[key][0]["calls"],
         "share": median(turn["share"] for turn in turns[key])} for key in workers]}


def agreement(work: Work, method: str, dtype: str, losses: dict[str, float], grads: dict[str, np.ndarray]) -> dict[str, dict]:
    """Relative differences of loss and gradient from the first contender of the same scheme (revode Direct where it is there).

    Raises Disagreement where two losses of one scheme differ by more than rounding explains, or where a gradient that
    should be exact is off by more than the root of that.
    """
    allowed = AGREE[dtype](work.N)
    found = {}
    for scheme in {scheme_of(CONTENDERS[key], method): None for key in losses}:
        group = [key for key in losses if scheme_of(CONTENDERS[key], method) == scheme]
        first = min(group, key=lambda key: (not key.startswith("revode-direct"), not CONTENDERS[key].exact))
        for key in group:
            off = abs(losses[key] - losses[first]) / abs(losses[first])
            gradient = float(np.linalg.norm(grads[key] - grads[first]) / np.linalg.norm(grads[first]))
            if not off <= allowed:
                raise Disagreement(f"{work.name}, {dtype}: {CONTENDERS[key].title} has the loss {losses[key]!r}, and "
                                   f"{CONTENDERS[first].title} {losses[first]!r} with the same scheme ({scheme})")
            if CONTENDERS[key].exact and not gradient <= allowed ** 0.5:
                raise Disagreement(f"{work.name}, {dtype}: the gradients of {CONTENDERS[key].title} and "
                                   f"{CONTENDERS[first].title} differ by {gradient:.1e} with the same scheme ({scheme})")
            found[key] = {"loss_difference": off, "gradient_difference": gradient}
    return found


def cache_of(contender: Contender, folder: Path) -> list[str]:
    """Libraries of a folder of their own, so that what compiles does so here."""
    return ["--cache", str(folder)] if contender.ours else []


def first_gradients(found: dict[str, str], args: argparse.Namespace) -> list[dict]:
    """Seconds from starting the interpreter to the first gradient of W1, in fresh processes, in turns, on all cores. A first turn,
    which is not counted, leaves the bytecode of every package behind, as an installation does."""
    work, method = WORKS["w1"], "coupled-midpoint"
    found = {key: python for key, python in found.items() if CONTENDERS[key].takes(work, method, "float32")}
    taken: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for r in range(4):
            for key, python in found.items():
                contender = CONTENDERS[key]
                for cached in (False, True) if contender.ours and contender.compiled else (False,):
                    start = time.perf_counter()
                    with working(python, contender, work, scheme_of(contender, method), "float64", None,
                                 cache_of(contender, Path(name, f"{key}-{r}")), Path(name, "bytecode")) as worker:
                        worker.hear()
                        taken.setdefault((key, cached), []).append(time.perf_counter() - start)
            say(f"first gradient: round {r} of 3", end="")
    print(file=sys.stderr)
    return [{"key": key, "cached": cached, "method": method, "seconds": seconds} for (key, cached), (_, *seconds) in taken.items()]


def memories(found: dict[str, str], args: argparse.Namespace, times: list[dict]) -> list[dict]:
    """Bytes of one gradient of W1 at its peak, for more and more steps, each in a fresh process; on all cores, nothing is timed."""
    method = "coupled-midpoint"
    slow = {row["key"] for table in times for row in table["rows"] if table["work"]["name"] == "w1" and min(row["seconds"]) > SLOW}

    def bytes_of(key: str) -> dict[str, int]:
        taken, contender = {}, CONTENDERS[key]
        for N in MEMORY_STEPS:
            with working(found[key], contender, WORKS["w1"]._replace(N=N), scheme_of(contender, method), "float64", None,
                         ["--memory"]) as worker:
                taken[str(N)] = worker.hear()["bytes"]
        say(f"memory: {contender.title}")
        return taken

    slow |= {key for key in found if CONTENDERS[key].slow and not CONTENDERS[key].ours}          # the first of each other library
    keys = [key for key in found if CONTENDERS[key].takes(WORKS["w1"], method) and key not in slow]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [{"key": key, "method": method, "how": CONTENDERS[key].memory, "bytes": taken}
                for key, taken in zip(keys, pool.map(bytes_of, keys), strict=True)]


def growth(found: dict[str, str], args: argparse.Namespace) -> list[dict]:
    """Seconds of a gradient of reversible Heun at two sizes, along each axis, and the exponent between them."""
    rows, jobs, method = [], [], "reversible-heun"
    for axis, (name, change, *_) in AXES.items():
        work = WORKS[name]._replace(**change)
        jobs += [(axis, work, key) for key in GROWING if key in found and CONTENDERS[key].takes(work, method, "float64")]
    with ExitStack() as stack:
        def start(job: tuple[str, Work, str]) -> tuple:
            axis, work, key = job
            _, _, option, *sizes = AXES[axis]
            return *job, sizes, [stack.enter_context(working(
                found[key], CONTENDERS[key], work, scheme_of(CONTENDERS[key], method), "float64", args.core,
                ["--wait", f"--{option}", str(size)])) for size in sizes]

        for axis, work, key, sizes, pair in one_ahead(start, jobs):
            for worker in pair:
                worker.ask("go")
            turns = [[worker.ask("time")["seconds"] for worker in pair] for _ in range(3)]
            for worker in pair:
                worker.end()
            low, high = (min(times) for times in zip(*turns, strict=True))
            rows.append({"key": key, "axis": axis, "work": work.name, "sizes": sizes, "seconds": [low, high],
                         "exponent": float(np.log(high / low) / np.log(sizes[1] / sizes[0]))})
            say(f"growth: {axis}, {CONTENDERS[key].title}")
    return rows


def alone(name: str) -> dict:
    """What a function of this file returns in a process with one BLAS thread."""
    code = f"import json, {__package__}.run as run; print(json.dumps(run.{name}()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={**os.environ, **ONE_THREAD})
    return json.loads(done.stdout)


def few_steps() -> dict:
    """Native code beside replay on six steps of W2, where nothing but the products is left (ratio.py)."""
    import revode as rv

    from .ratio import best, gradient
    work, method = WORKS["w2"]._replace(N=6), rv.Coupled("midpoint", LAM)
    return best({how: gradient(work, "float64", method, how) for how in ("replay", "native")})


def errors(work: Work) -> dict:
    """Relative error of y(T) by each scheme on the work's own grid, against Dormand-Prince 5 on the same grid."""
    import revode as rv
    case = problem(work, "float64")

    def last(method: Any) -> Any:
        return rv.solve(lambda t, y, params: case.field(np, t, y, params), case.y0, case.ts, case.params, method=method, save=[-1]).y1

    truth = last(rv.RungeKutta("dopri5"))
    schemes = {"midpoint": rv.RungeKutta("midpoint"), "heun": rv.RungeKutta("heun2"),
               "coupled-midpoint": rv.Coupled("midpoint", lam=0.999), "reversible-heun": rv.ReversibleHeun()}
    return {name: float(np.linalg.norm(last(method) - truth) / np.linalg.norm(truth)) for name, method in schemes.items()}


if __name__ == "__main__":
    sys.exit(main())

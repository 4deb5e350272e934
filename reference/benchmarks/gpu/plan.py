"""The steps of a first contact, in their order. Each has so many of 25 minutes, and what it does not use goes to those after it."""
from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from os import cpu_count
from typing import NamedTuple

import numpy as np

from . import layouts as by_step
from .cases import CASES, ROOT, Case, Setting, no_gpu
from .libraries import CONTENDERS
from .processes import Clock, command, environment, run_cases


class Chosen(NamedTuple):
    """What the user has chosen."""
    cases: list[Case]
    contenders: list[str]
    limit: float             # seconds for one case of one contender


class Step(NamedTuple):
    """run(chosen, setting, seconds) gives answers, as a worker does; some say which contender they are of."""
    minutes: float
    run: Callable


def cases_of(key: str, cases: list[Case] | None = None) -> Callable:
    """A worker over these cases, or all."""
    def run(chosen: Chosen, setting: Setting, seconds: float) -> Iterator[dict]:
        yield from run_cases(key, chosen.cases if cases is None else [case for case in cases if case in chosen.cases],
                             setting, seconds, chosen.limit)
    return run


def contenders(chosen: Chosen, setting: Setting, seconds: float) -> Iterator[dict]:
    """One after another, each with its share of what is left."""
    yield from run_cases("peak", chosen.cases[:1], setting, 60, 60)
    clock, todo = Clock(seconds), [CONTENDERS[key] for key in chosen.contenders]
    for i, contender in enumerate(todo):
        share = clock.left * contender.share / sum(c.share for c in todo[i:])
        for answer in run_cases(contender.key, [case for case in chosen.cases if contender.takes(case)], setting, share, chosen.limit):
            yield {**answer, "contender": contender.key}


def tool(name: str, *options: str) -> Callable:
    """A tool of NVIDIA's around one small solve and its gradient; its words go to a log."""
    def run(chosen: Chosen, setting: Setting, seconds: float) -> Iterator[dict]:
        if no_gpu() or shutil.which(name) is None:
            yield {"status": "absent", "detail": f"there is no {name} here" if no_gpu() is None else f"{name} needs a GPU"}
            return
        yield outside([name, *options, *command("one", CASES[:1], setting)], name, setting, seconds)
    return run


def tests(chosen: Chosen, setting: Setting, seconds: float) -> Iterator[dict]:
    """tests/gpu, slowest last; of a rehearsal only whether they are found."""
    if no_gpu():
        yield {"status": "absent", "detail": "tests/gpu need a GPU"}
        return
    more = ["--collect-only"] if setting.tiny else []
    yield outside([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu", *more], "tests", setting, seconds)


def outside(words: list[str], name: str, setting: Setting, seconds: float) -> dict:
    """A command, its output in a log."""
    path = setting.folder / f"{name}.log"
    with open(path, "a") as log:
        try:
            code = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, timeout=seconds,
                                  env=environment(None, setting)).returncode
        except subprocess.TimeoutExpired:
            return {"status": "timeout", "detail": f"longer than {seconds:.0f} s; see {path.name}"}
    last = path.read_text(errors="replace").strip().rpartition("\n")[2][:300]
    return {"status": "failed" if code else "ok", "detail": f"status {code}: {last}"}


STEPS = {
    "bits": Step(3, cases_of("bits")),
    "sanitizer": Step(1.5, tool("compute-sanitizer", "--error-exitcode", "7")),
    "layouts": Step(4, cases_of("layouts", by_step.CASES)),
    "host": Step(1, cases_of("host path", by_step.CASES)),
    "ncu": Step(2, tool("ncu", "--target-processes", "all", "--set", "full", "--page", "raw", "--csv", "--launch-count", "8")),
    "contenders": Step(7.5, contenders),
    "tests": Step(5, tests),
}


def about_the_machine(rehearsal: bool) -> dict:
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
             "numpy": np.__version__, "machine": platform.machine(), "cores": cpu_count()}
    if no_gpu():
        return {**about, "device": "none: a rehearsal on the host, and no measurement"}
    import cupy
    found = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    name = found["name"].decode() + (" (a rehearsal of tiny sizes, and no measurement)" if rehearsal else "")
    about |= {"device": name, "compute capability": f"{found['major']}.{found['minor']}",
              "multiprocessors": found["multiProcessorCount"], "memory": found["totalGlobalMem"], "cupy": cupy.__version__,
              "driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion()}
    try:
        asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,utilization.gpu"
        smi = subprocess.run(["nvidia-smi", f"--query-gpu={asked}", "--format=csv"], capture_output=True, text=True, timeout=20)
        about["nvidia-smi"] = smi.stdout.strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        about["nvidia-smi"] = [str(error)]
    return about

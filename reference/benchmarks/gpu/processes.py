"""Cases in processes of their own, with a time limit: a crash or a hang costs one of them."""
from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from .cases import ROOT, Case, Setting


class Clock:
    """Counts down."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


def command(key: str, cases: list[Case], setting: Setting, part: int = 0) -> list[str]:
    return [sys.executable, "-m", "reference.benchmarks.gpu", "--worker", key, "--cases", ",".join(map(str, cases)), "--folder",
            str(setting.folder), "--part", str(part), *(["--rehearse"] if setting.tiny else [])]


def environment(threads: int | None, setting: Setting | None = None) -> dict[str, str]:
    """threads: of the libraries; None for as many as they like."""
    more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
    if threads:
        more |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if setting is not None and setting.kernels:
        more["XDG_CACHE_HOME"] = str(setting.folder)
    return {**os.environ, **more}


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


def ended(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def run_cases(key: str, cases: list[Case], setting: Setting, seconds: float, limit: float) -> Iterator[dict]:
    """The answers of one worker. A case that takes longer than `limit`, or ends its process, costs that case alone."""
    end = time.monotonic() + seconds
    waiting = list(cases)
    while waiting:
        if end - time.monotonic() < 5:
            yield from ({"case": str(case), "status": "not run", "detail": "out of time"} for case in waiting)
            return
        with open(setting.folder / f"{key}.log", "a") as log:
            process = subprocess.Popen(command(key, waiting, setting), stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
                                       env=environment(None, setting))
        lines = answers_of(process)
        status = ""
        while True:
            try:
                line = lines.get(timeout=max(0.1, min(limit, end - time.monotonic())))
            except queue.Empty:
                ended(process)
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
                    ended(process)
                    status = "dead"
                    break
                if answer["status"] == "absent" and "No module named" in answer.get("detail", ""):
                    ended(process)                          # it will not be there for the other cases either
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

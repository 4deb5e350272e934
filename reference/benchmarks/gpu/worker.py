"""What a process of its own does: cases one after another, a line of JSON when it begins one and when it is done with it."""
from __future__ import annotations

import importlib
import json
import os
import traceback
from collections.abc import Callable

from .cases import Case, Setting
from .desired import host_part
from .judged import measured, strict_bits
from .layouts import host_path, layouts, peak
from .libraries import CONTENDERS, Absent

CONTEXT = ("CUDADriverError", "CUDARuntimeError", "CUDA_ERROR", "cudaError", "illegal memory access")      # of one that is dead


def one(case: Case, setting: Setting) -> dict:
    """One solve and its gradient, for those who look at it from outside."""
    CONTENDERS["fused-fast"].make(setting.size(case.work)._replace(N=10), case)()
    return {"status": "ok"}


WORKERS: dict[str, Callable] = {"bits": lambda case, setting: strict_bits(case), "layouts": layouts, "host path": host_path,
                                "one": one, "peak": lambda case, setting: peak(setting)}


def worker(key: str, cases: list[Case], setting: Setting, part: int) -> int:
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)                                      # what libraries print is not an answer
        return answered(key, cases, setting, part, lambda **answer: print(json.dumps(answer), file=answers, flush=True))


def answered(key: str, cases: list[Case], setting: Setting, part: int, say: Callable) -> int:
    for case in cases:
        say(begin=str(case))
        try:
            if key == "host":
                host_part(case, setting, part, setting.folder / f"part-{case.work}-{case.method}-{part}.npz")
                found = {"status": "ok"}
            else:
                found = WORKERS[key](case, setting) if key in WORKERS else measured(key, case, setting)
            say(case=str(case), **found)
        except (Absent, ModuleNotFoundError) as error:
            say(case=str(case), status="absent", detail=str(error))
        except Exception as error:
            traceback.print_exc()
            detail = f"{type(error).__name__}: {error}"[:500]
            dead = any(word in detail for word in CONTEXT)
            say(case=str(case), status="failed", detail=detail, dead=dead)
            if dead:
                return 1
    if key in CONTENDERS:
        say(versions={name: getattr(importlib.import_module(name), "__version__", "?") for name in CONTENDERS[key].needs})
    return 0

"""revode: reversible, direct, checkpointed with 44 states (about the root of 2 x 1000 steps) on the eager tape; reversible as
NumPy calls replayed; all as native code on one thread; and what a user gets who asks for nothing, after 25 gradients."""
from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import revode as rv
from revode.compiled.plans import ALWAYS

from ..works import LAM, SEED, Work, diffusion, problem

METHODS = {"coupled-midpoint": lambda: rv.Coupled("midpoint", lam=LAM), "reversible-heun": rv.ReversibleHeun,
           "midpoint": lambda: rv.RungeKutta("midpoint"), "heun": lambda: rv.RungeKutta("heun2")}
MODES = {"reversible": (rv.Reversible(), "eager"), "direct": (rv.Direct(), "eager"), "checkpointed": (rv.Checkpointed(44), "eager"),
         "replay": (rv.Reversible(), "replay"), "native": (rv.Reversible(), "native"), "auto": (rv.Reversible(), "auto"),
         "direct-native": (rv.Direct(), "native"), "checkpointed-native": (rv.Checkpointed(44), "native")}
FIRST = {"eager": 0}               # gradients before the one that is timed, else 25: the first ALWAYS are compared with the tape,
PATIENCE = 15.0, 2.0               # and in the 20th one more library is compiled; or so many seconds, and where these are behind


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    """Loss and gradient through rv.solve, as a user would write it; only the last state is saved."""
    case = problem(work, dtype)
    gradient, backend = MODES[mode]
    chosen: dict[str, Any] = {"method": METHODS[method](), "gradient": gradient, "backend": backend, "threads": 1, "save": [-1]}

    if work.sde:
        chosen |= {"diffusion": lambda t, y, params: diffusion(np, t, y, params), "noise": rv.Brownian(seed=SEED)}

    def field(t: Any, y: Any, params: Any) -> Any:
        return case.field(np, t, y, params)

    def loss(y0: Any, params: Any) -> Any:
        return case.loss(np, rv.solve(field, y0, case.ts, params, **chosen).y1)

    both = rv.value_and_grad(loss, argnums=(0, 1))

    def run() -> tuple:
        value, (a_y0, a_params) = both(case.y0, case.params)
        return value, [a_y0, *a_params]

    def warm() -> Callable:
        begun = perf_counter()
        for k in range(1, 1 + FIRST.get(backend, 25)):
            run()
            if perf_counter() > begun + PATIENCE[k >= ALWAYS and backend != "auto"]:
                break
        return run

    run.warm = warm                                                                                # type: ignore[attr-defined]
    return run

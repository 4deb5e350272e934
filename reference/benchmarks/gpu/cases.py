"""What is computed on a GPU, and how far off it may be."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import works
from ..works import LAM, SEED, WORKS, Work

ROOT = Path(__file__).resolve().parents[3]
GPU_WORKS = {"small": Work("small", "d 2, width 32, batch 256", (2, 32, 32, 2), 256, 1000, 1 / 256),
             "medium": Work("medium", "d 8, width 64, batch 4096", (8, 64, 64, 8), 4096, 1000, 1 / 256),
             **{name: WORKS[name] for name in ("w1", "w2", "w4")}}

# Multiplications of a batch with all weights in one step: an evaluation counts 1, a pullback 2.
UNITS = {"coupled-midpoint": 4 + 4 * (1 + 2), "reversible-heun": 1 + (1 + 2)}

# Largest error of a gradient against float64, relative to its largest entry. float64: sums in another order over 1000 steps of
# 4 evaluations, 1e3 * 4 * 100 eps = 1e-10, and the growth of the reverse sweep. float32: the same with its eps, 1e-2 or better.
ALLOWED = {"float64": 1e-8, "float32": 2e-2}


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


class Setting(NamedTuple):
    """Where a run works, and on what."""
    folder: Path             # for what is made on the way: desired values, kernels, logs
    tiny: bool = False       # a rehearsal: few steps and trajectories
    kernels: bool = False    # whether folder is also where kernels are kept

    def size(self, name: str) -> Work:
        work = GPU_WORKS[name]
        return work._replace(N=40, batch=min(work.batch, 12)) if self.tiny else work


def for_bits(case: Case) -> Work:
    """Its work in 50 steps, and a batch that no tile divides."""
    work = GPU_WORKS[case.work]
    return work._replace(N=50, batch=min(work.batch, 67))


def asked(rv: Any, work: Work, case: Case) -> tuple[Callable, Any, dict]:
    """The field, the grid, and the options that say which solve it is."""
    chosen = {"method": rv.Coupled("midpoint", lam=LAM) if case.method == "coupled-midpoint" else rv.ReversibleHeun()}
    if work.sde:
        chosen |= {"diffusion": lambda t, y, p: works.diffusion(np, t, y, p), "noise": rv.Brownian(seed=SEED)}
    field = works.drift if work.sde else works.field
    return lambda t, y, p: field(np, t, y, p), work.h * np.arange(work.N + 1), chosen


def gradient(rv: Any, work: Work, case: Case, y0: Any, params: Any, options: dict) -> Callable:
    """run() -> loss and gradients through rv.solve, as a user writes it."""
    field, ts, chosen = asked(rv, work, case)

    def loss(y0: Any, params: Any) -> Any:
        return works.loss(np, rv.solve(field, y0, ts, params, save=[-1], **chosen, **options).y1)

    both = rv.value_and_grad(loss, argnums=(0, 1))

    def run() -> tuple:
        value, (ay0, aparams) = both(y0, params)
        return value, [ay0, *aparams]

    return run


def no_gpu() -> str | None:
    """What is missing, or None."""
    from revode_cuda.arrays import require_cupy
    try:
        require_cupy("the GPU benchmark")
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


def waited() -> None:
    """Wait for the device, if there is one."""
    if no_gpu() is None:
        import cupy
        cupy.cuda.get_current_stream().synchronize()

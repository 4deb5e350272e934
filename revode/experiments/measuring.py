"""What a gradient costs, and how right it is.

Time, memory and gradient error are taken in separate iterations, because tracing allocations makes one three to five times slower.
"""
from __future__ import annotations

import gc
import math
import statistics
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..certify import certify
from ..engine import tree
from ..engine.derivatives import value_and_grad
from ..gradients import Direct
from .backends import Solver
from .runner import counting

if TYPE_CHECKING:
    from .training import Run

# 97.5 % of the t distribution with 1, 2, ... degrees of freedom; it falls, so that the last is more than what more of them have
STUDENT = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262
DIRECT_STEPS = 50_000    # past this Direct is not run: 20 kB a step of a small network


def half_width(found: Sequence[float]) -> float:
    """Half the interval of 95 % of the mean of independent, about normal values; one alone says nothing."""
    if len(found) < 2:
        return math.inf
    return STUDENT[min(len(found) - 1, len(STUDENT)) - 1] * statistics.stdev(found) / len(found) ** 0.5


def peak_memory(run: Callable) -> tuple[int, Any]:
    """Bytes allocated by run() at its peak, by Python and NumPy, above what there was before; and what it returned."""
    gc.collect()
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        result = run()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        if ours:
            tracemalloc.stop()


def relative_error(grads: Any, truth: Any) -> float:
    """|grads - truth| / |truth|, Euclidean norms over all float leaves."""
    pairs = [(np.asarray(g, np.float64), np.asarray(a, np.float64))
             for g, a in zip(tree.flatten(grads)[0], tree.flatten(truth)[0], strict=True) if a is not None]
    difference = sum(float(np.sum((g - a) ** 2)) for g, a in pairs)
    norm = sum(float(np.sum(a ** 2)) for _, a in pairs)
    return (difference / norm) ** 0.5 if norm else difference ** 0.5


def direct_gradient(loss: Callable, params: Any, solve: Solver, steps: int = 0) -> Any:
    """The gradient by full backpropagation on the tape, the truth for the others; None where its tape would be too large."""
    if steps > DIRECT_STEPS:
        return None
    with counting({}):
        return value_and_grad(loss, has_aux=True)(params, replace(solve, gradient=Direct(), backend="eager"))[1]


def against_direct(loss: Callable, params: Any, solve: Solver) -> dict:
    """Error of a gradient against Direct, its round trip, and how many warnings there were."""
    with counting({}) as mine:
        (_, sol), grads = value_and_grad(loss, has_aux=True)(params, solve)
    return {"gradient_error": relative_error(grads, direct_gradient(loss, params, solve)), "roundtrip": sol.stats.roundtrip,
            "backend": sol.stats.backend, "warned": sum(count for count, _ in mine.values())}


def measured(run: Run, params: Any, truth: Any, notes: list[str]) -> dict:
    """What one more iteration at params costs, and how right its gradient is."""
    peak, ((_, sol), grads) = peak_memory(lambda: run.gradient(params))
    stats = sol.stats
    return {"steps": stats.steps, "rejected": stats.rejected if run.experiment.adaptive else None, "peak_bytes": peak,
            "states": stats.peak_states, "nfe": stats.nfe, "nvjp": stats.nvjp, "backend": stats.backend,
            "gradient_error": None if truth is None else relative_error(grads, truth),
            "certificate": certificate(run, params, notes), "roundtrip": stats.roundtrip}


def certificate(run: Run, params: Any, notes: list[str], what: str = "gradient") -> Any:
    """The measured error of its gradient, where that was asked for, and a note of it."""
    if not run.probes:
        return None
    try:
        with counting({}):
            found = certify(lambda p: run.loss(p, run.solve)[0], params, run.probes)[2]
    except FloatingPointError as reason:                      # there is no tangent that it could be held against
        notes.append(f"{run.name} has no certificate: {reason}.")
        return None
    notes.append(f"{run.name}, {what}: {found}")
    return found


def finer_loss(run: Run, params: Any) -> float:
    """The loss of the same parameters when the equation is solved with half the steps."""
    return float(run.loss(params, replace(run.solve, gradient=None, finer=True))[0])

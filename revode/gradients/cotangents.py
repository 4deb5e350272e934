"""What the gradient modes have in common: where cotangents enter a sweep, and how they leave it."""
from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import Tensor, is_float, number
from ..engines import Engine
from ..engines.eager import enter
from ..methods.increment import Recorder, accumulate
from ..methods.shears import Parts
from ..stepping import CLOCK, Problem
from ..times import of_grid


def at_the_end(problem: Problem, cotangent: Any) -> tuple[tuple, Parts]:
    """The cotangents of the saved outputs, and those of the final parts, with what enters there."""
    a_ys, a = cotangent
    N = problem.N
    return a_ys, enter(a, problem.method.outputs, a_ys, problem.rows[N]) if N in problem.rows else a


def at_the_start(problem: Problem, initial: Any, params: Any, engine: Engine, a: Parts | None = None) -> tuple:
    """The gradients, from the cotangents of the initial parts (a, if they are at hand) and the sums that an engine comes back with."""
    a_initial, a_params, *a_clock = pull_start(problem, initial, params, a or engine.read("cotangent"))
    sums = list(engine.read("aparam").values())
    if a_params is not None:
        accumulate(sums, a_params)
    return (a_initial, spread(params, sums), *(of_grid(problem, engine.read("atime"), a) for a in a_clock))


def spread(params: Any, cotangents: list) -> Any:
    """The cotangents of the float leaves as a tree like params; None for the other leaves."""
    leaves, structure = tree.flatten(params)
    rest = iter(cotangents)
    return tree.unflatten(structure, cotangents if len(leaves) == len(cotangents) else [
        next(rest) if is_float(x) else None for x in leaves])


def pull_start(problem: Problem, initial: Any, params: Any, cotangent: Parts) -> tuple:
    """Pull the cotangents of the initial parts back to y0, and to the float leaves of params: None where nothing flows, or no list.

    Where the times are asked for, also to the clock of step 0, by name.
    """
    if problem.resumed:
        return cotangent, None, *([{}] if problem.timed else [])
    if problem.copies and not problem.timed:
        first, *others = cotangent.values()
        return reduce(operator.add, others, first) if others else 1 * first, None
    R = Recorder(problem.system, params, [])
    leaves, structure = tree.flatten(initial)
    inputs, before = [R.tape.input(x) for x in leaves], problem.stats.nfe
    clock = tuple(R.tape.input(x) for x in problem.clock(0)) if problem.timed else ()
    parts = problem.method.start(R, problem.step(0, clock), tree.unflatten(structure, inputs))
    problem.stats.nvjp += problem.stats.nfe - before
    seeds = [(part.slot, 1 * cotangent[name]) for name, part in parts.items() if type(part) is Tensor and part.tape is R.tape]
    found = R.tape.pull(seeds, [*(x.slot for x in (*inputs, *clock)), *R.slots])
    a_initial = [np.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=False)]
    a_clock, a_params = found[len(leaves):len(leaves) + len(clock)], found[len(leaves) + len(clock):] or [None] * len(R.floats)
    named = [dict(zip(CLOCK, (0.0 if a is None else number(a) for a in a_clock), strict=True))] if clock else []
    return tree.unflatten(structure, a_initial), a_params, *named

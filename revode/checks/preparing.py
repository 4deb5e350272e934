"""From what was asked for to a problem that can be marched: every look, once, in the order of the arguments."""
from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import innermost, joined_in, value_of
from ..exact import Flushed
from ..methods.increment import System
from ..problem import Asked, Packing
from ..stepping import Problem, Stats
from ..times import with_stops
from .arguments import check_callable, no_field
from .choices import check_backend, check_exact, check_method, of_one_arithmetic, on_lattice
from .controls import controlled
from .fields import check_field, check_not_split, misfit
from .grids import check_adaptive, check_far_times, check_steps, check_stops, check_times, saved_of, steps_of
from .kinds import known, remember
from .leaves import check_params
from .noise import noisy
from .states import begin, check_resumed, output_of


def prepare(asked: Asked) -> tuple[Problem, Any, Any, Packing]:
    """The problem, the initial value as the method takes it, the parameters, and how y is laid out."""
    found = known(asked)
    if found is not None:
        return found
    y0, params = joined_in((asked.y0, asked.params))
    asked = asked._replace(y0=y0, params=params)
    chosen = check_backend(asked)
    method = check_method(asked)
    lattice, method = check_exact(asked, method)
    field = check_callable(asked.field, method)
    initial, layout = begin(asked, method, lattice is not None)
    if lattice is not None:
        method, initial = on_lattice(lattice, method, initial)
        chosen = of_one_arithmetic(chosen)
    first = value_of(tree.flatten(initial)[0][0])
    seen = np.float32 if layout.promoted else first.dtype
    ts = check_times(asked)
    check_resumed(asked.state0, ts)
    params = check_params(asked.params, first.astype(seen) if layout.promoted else first)
    pack, open_ = (None, None) if layout.plain else (layout.pack, layout.open)
    system = System(field, Stats(), pack, open_, None if seen == np.float64 else np.dtype(seen).type, misfit)
    problem = gridded(asked, method, system, ts, first, seen)
    drive(problem, asked, ts, output_of(initial, method), tree.map(value_of, params))
    if problem.plain or (chosen is not None and chosen.device is not None):
        problem.backend = chosen
    problem.flushed = Flushed(method) if lattice is not None else None
    problem.widths = () if layout.alone else tuple(map(prod, layout.shapes))
    problem.asked = gradients_asked(asked, initial, params)
    remember(asked, problem, layout)
    return problem, initial, params, layout


def gradients_asked(asked: Asked, initial: Any, params: Any) -> dict[str, bool]:
    """Whether a tape or a tangent follows y0, params (and what is a time among them), and the times."""
    times = asked.ts, asked.stops
    return {name: innermost(tree.flatten(part)[0]) is not None
            for name, part in (("y0", initial), ("params", (params, *times)), ("ts", times))}


def gridded(asked: Asked, method: Any, system: System, ts: np.ndarray, first: Any, seen: Any) -> Problem:
    """The problem on a fixed grid, or on one that a controller is to make; seen: the dtype in which the field gets its times."""
    plain, state0, stops = isinstance(first, (np.ndarray, np.generic)), asked.state0, check_stops(asked.stops)
    if asked.controller is None:
        hs, save = check_steps(ts, first.dtype), saved_of(asked.save, ts)
        if len(stops):
            own, ts = ts, with_stops(ts, stops, seen)
            places = np.flatnonzero(np.isin(ts, own))
            hs, kept = steps_of(ts, first.dtype), places[list(save)]
            save = tuple((np.union1d(kept, np.flatnonzero(~np.isin(ts, own))) if asked.interpolate else kept).tolist())
        problem = Problem(method, system, ts, hs, save, None)
        before = hs[0] if len(hs) else 0.0
    else:
        adaptive = check_adaptive(asked, method, ts, first, system.unpack is None)
        adaptive.stop_at(with_stops(ts, stops, seen)[1:].tolist())
        problem = Problem(method, system, [ts[0]], [], (), None, adaptive=adaptive)
        before = asked.dt0 or 0.0
    problem.progress, problem.stats, problem.plain = asked.progress, system.stats, plain
    problem.resumed = state0 is not None
    if state0 is not None and state0.n:
        problem.n_before, before = state0.n, state0.h
    problem.h_before = np.asarray(before, first.dtype) if plain else float(before)
    return problem


def drive(problem: Problem, asked: Asked, ts: np.ndarray, y: Any, params: Any) -> None:
    """Look at the field, and at what drives the equation besides time."""
    adaptive = problem.adaptive
    if asked.control is not None:
        problem.system, problem.driver, knots = controlled(problem.system, asked.control, problem.method, y, ts, adaptive is None)
        if adaptive is not None:
            adaptive.stop_at(knots)
    if problem.system.field is not no_field:
        try:
            check_field(problem, y, params)
            check_far_times(problem, ts, y, params)
        except (TypeError, ValueError) as error:
            check_not_split(asked.y0, problem.method, error)
            raise
    if asked.interpretation not in ("stratonovich", "ito"):
        raise ValueError(f"solve: interpretation={asked.interpretation!r}; it is 'stratonovich' or 'ito'")
    if asked.diffusion is None and asked.noise is None:
        return
    if asked.control is not None or asked.diffusion is None:
        raise ValueError("solve: noise= goes with diffusion=, and neither with control=")
    times = (ts[0], ts[-1] if adaptive is not None else ts[len(ts) // 2])
    problem.system, problem.driver = noisy(problem.system, asked, problem.method, y, times, params)
    if adaptive is not None and problem.driver.by_step:
        raise TypeError("solve: adaptive steps ask for noise at times that are not known beforehand; pass "
                        "noise=BrownianTree(seed, t0, t1)")

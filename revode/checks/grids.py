"""Times: the grid and its steps, what is saved of it, stops, and what a controller needs to make one."""
from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from ..adaptive import PID, Adaptive, by_leaf
from ..engine.tensor import Tensor, value_of
from ..problem import Asked
from ..stepping import Problem, keep, known_of, passed
from .leaves import check_kind, numbers_of


def check_times(asked: Asked) -> np.ndarray:
    """(N + 1,) the grid, or its two ends; one time alone is a grid without steps."""
    ts, fixed = asked.ts, asked.controller is None
    if fixed and (asked.dt0 is not None or asked.save_at is not None):
        raise ValueError("solve: dt0 and save_at belong to adaptive solves; pass controller=PID(rtol, atol) as well, or use "
                         "save= with a fixed grid")
    if type(ts) is Tensor or type(asked.stops) is Tensor:
        check_differentiated(asked)
        ts = value_of(ts)
    if not fixed:
        return increasing(ts, fixed)
    check_single(ts)
    before = passed(ts)
    return keep(increasing(ts, fixed)) if before is None else before


def increasing(ts: Any, fixed: bool) -> np.ndarray:
    """Times that go one way."""
    ts = numbers_of(ts, "ts")
    if ts.ndim != 1 or len(ts) < (1 if fixed else 2):
        raise ValueError(f"solve: ts has shape {ts.shape}; the grid is a vector of times, such as np.linspace(0, 1, 101), and with a "
                         "controller ts=(t0, t1)")
    if len(ts) == 1 or (len(ts) == 2 and ts[0] == ts[1]):                  # nothing to do: y0 is the solution
        return ts[:1] if fixed else ts
    h = ts[1:] - ts[:-1]
    if not h.min() > 0 and not h.max() < 0:
        n = int(np.argmax((h > 0) != (h[0] > 0))) if h[0] else 0
        raise ValueError(f"solve: ts goes from {ts[n]:.6g} to {ts[n + 1]:.6g} at index {n}; a grid is strictly increasing, or "
                         "strictly decreasing to run backwards in time")
    return ts


def check_single(ts: Any) -> None:
    if isinstance(ts, (tuple, list)) and len(ts) == 2:
        raise ValueError(f"solve: ts={ts!r} without a controller would be a grid of one single step; pass controller=PID(rtol, atol) "
                         "to have steps chosen, or a grid such as np.linspace(t0, t1, 101) (an array of two times is one step)")


def check_stops(stops: Any) -> np.ndarray:
    """(k,) the stops, of which those that are not between the ends of the solve are of no matter."""
    return np.zeros(0) if stops is None else numbers_of(value_of(stops), "stops").ravel()


def check_differentiated(asked: Asked) -> None:
    """Whether the solution is a smooth function of the times, as far as it is told apart here."""
    stands = [what for what, given in (("controller=", asked.controller), ("noise=", asked.noise), ("control=", asked.control),
                                       ("exact=", asked.exact)) if given]
    if stands:
        name = "ts" if type(asked.ts) is Tensor else "stops"
        raise TypeError(f"solve: {name} is a tensor, and with {stands[0]} times get no gradient; pass plain times there, or solve an "
                        "ordinary differential equation on a fixed grid (such as the ts of an adaptive solve)")


def check_plain(problem: Problem) -> None:
    if problem.timed:
        raise TypeError("steps: ts is a tensor, and stepping by hand gives times no gradient; pass plain times, or use solve(...)")


def steps_of(ts: np.ndarray, dtype: Any) -> np.ndarray:
    hs = (ts[1:] - ts[:-1]).astype(dtype)
    hs.flags.writeable = False           # a step of it may then meet tensors as it is
    return hs


def check_steps(ts: np.ndarray, dtype: Any) -> np.ndarray:
    """(N,) the steps of a fixed grid, in y's dtype."""
    known = known_of(ts)
    if dtype in known:
        return known[dtype]
    hs = steps_of(ts, dtype)
    if not hs.all():
        n = int(np.argmin(hs != 0))
        raise ValueError(f"solve: the step from ts[{n}] to ts[{n + 1}], {ts[n + 1] - ts[n]:.3g}, is zero in {dtype}; take larger "
                         "steps, or float64")
    check_resolution(ts, dtype, steps=1.0)
    known[dtype] = hs
    return hs


# The fewest spacings, of the numbers of y's dtype at t, in a step: for a field that may not see t, which only tells the stages
# of a step apart, and for one that does, if its times are far from zero for no need.
RESOLVED, SEEN, FAR = 64.0, 1024.0, 16.0
FEW = 4                # indices of `save` that are told from those of the last solve at once


def check_resolution(ts: np.ndarray, dtype: Any, steps: float, spacings: float = RESOLVED) -> None:
    """Whether times so large are told apart in y's dtype, in which the field gets them; steps: that an interval will have."""
    h = abs(ts[1:] - ts[:-1])
    if not h.any():
        return
    if float(np.finfo(dtype).eps) * max(abs(ts[0]), abs(ts[-1])) * spacings * steps <= h.min():
        return                                           # as ever, and quickly told
    spacing = np.spacing(np.maximum(abs(ts[1:]), abs(ts[:-1])).astype(dtype)).astype(np.float64)
    worst = int(np.argmax(spacing / h))
    if spacing[worst] * spacings * steps > h[worst]:
        raise ValueError(f"solve: near t={ts[worst + 1]:.10g} the numbers of {dtype}, in which the field gets its times, are "
                         f"{spacing[worst]:.2g} apart, too coarse for {'a step' if steps == 1 else 'an interval'} of {h[worst]:.3g}; "
                         f"count time from the start, as in ts - ts[0]{', or use float64' if dtype == np.float32 else ''}")


def far(ts: np.ndarray) -> bool:
    """Whether times are so far from zero that a field which sees them may miss digits."""
    return bool(ts[0] != ts[-1] and max(abs(ts[0]), abs(ts[-1])) >= FAR * abs(ts[-1] - ts[0]))


def check_far_times(problem: Problem, ts: np.ndarray, y: Any, params: Any) -> None:
    """A field that depends on t should not get it from so far that the digits are spent on the distance."""
    if not far(ts) or (problem.adaptive is not None and y.dtype == np.float64):
        return
    stats, steps = problem.stats, 1.0 if problem.adaptive is None else RESOLVED
    times = [ts[0] + share * (ts[-1] - ts[0]) for share in (0.0, 0.31, 0.62, 0.87)]
    first, *others = (problem.system.coefficients(t, y, params)[0] for t in times)
    stats.checks, stats.nfe = stats.checks + len(times), stats.nfe - len(times)
    if not all(bool((f == first).all()) for f in others):
        check_resolution(ts, y.dtype, steps, SEEN)


def saved_of(save: Any, ts: np.ndarray) -> tuple[int, ...]:
    """check_save(), remembered for None and for a few indices."""
    if save is not None and not (type(save) is list and len(save) <= FEW and all(type(n) is int for n in save)):
        return check_save(save, len(ts) - 1)
    known, key = known_of(ts), ("save", None if save is None else tuple(save))
    if key not in known:
        known[key] = check_save(save, len(ts) - 1)
    return known[key]


def check_save(save: Any, N: int) -> tuple[int, ...]:
    check_kind(save, "solve: save is")
    if isinstance(save, (int, np.integer)):
        raise TypeError(f"solve: save={save}; give a list of indices into ts, as in save=[{save}], a slice, or None for all")
    index: Any = slice(None) if save is None else save
    if not isinstance(index, slice):
        index = np.asarray(save).ravel()
        if (index.dtype == bool and len(index) != N + 1) or (index.dtype.kind not in "bi" and index.size):
            raise TypeError(f"solve: save={save!r}; give indices into ts (whole numbers), a slice, or a mask as long as ts, {N + 1}; "
                            "times to return go into the grid itself")
        index = index if index.size else index.astype(int)
    try:
        found = np.arange(N + 1)[index]
    except IndexError:
        raise IndexError(f"solve: save={save!r} names a grid point outside 0 .. {N} (ts has {N + 1} points)") from None
    if (np.diff(found) <= 0).any():
        raise ValueError(f"solve: save={save!r} is not increasing; list the grid points in the order of ts, each once")
    return tuple(found.tolist())


def check_adaptive(asked: Asked, method: Any, ts: np.ndarray, y: Any, alone: bool) -> Adaptive:
    controller, dt0, save, save_at = asked.controller, asked.dt0, asked.save, asked.save_at
    if not isinstance(controller, PID):
        raise TypeError(f"solve: controller={controller!r}; pass PID(rtol, atol)")
    if method.error_order is None:
        raise TypeError(f"solve: {method!r} has no error estimate to control steps with; use Coupled or RungeKutta over "
                        "midpoint, heun2, bosh3, dopri5 or tsit5, ReversibleHeun(), EES25() or EES(stages=s), or give a fixed grid")
    if len(ts) != 2:
        raise ValueError(f"solve: with a controller, ts holds the two ends (t0, t1), but {len(ts)} times were given; times to "
                         "return go to save_at")
    if dt0 is not None and not (isinstance(dt0, Real) and 0 < dt0 < np.inf):
        kind = ValueError if isinstance(dt0, Real) else TypeError
        raise kind(f"solve: dt0={dt0!r}; the first step is a positive number, also when time runs backwards")
    last_only = save is not None and np.ndim(save) == 1 and list(save) == [-1]
    if (save is not None and not last_only) or (save is not None and save_at is not None):
        raise ValueError(f"solve: save={save!r} with a controller; the number of steps is not known beforehand, so pass times "
                         "as save_at=[...], or save=[-1] for the end alone")
    if y.dtype != np.float64:                        # in which times are not rounded
        check_resolution(ts, y.dtype, steps=RESOLVED)
    controller = fitted(controller, y if alone else asked.y0)
    direction = 1.0 if ts[1] > ts[0] else -1.0
    times = None if save_at is None else check_save_at(save_at, ts, direction)
    return Adaptive(controller, float(ts[1]), direction, dt0, None if asked.interpolate else times, last_only, y.dtype)


def fitted(controller: PID, y: Any) -> PID:
    """The controller with tolerances that fit y: a number, or an array that broadcasts against it; for a tree one for each entry."""
    found = {name: getattr(controller, name) for name in ("rtol", "atol") if type(getattr(controller, name)) is not float}
    flat = {name: by_leaf(name, given, y) for name, given in found.items()}
    return replace(controller, **flat) if isinstance(y, (dict, list, tuple)) and flat else controller


def check_smooth(problem: Problem) -> None:
    if problem.driver is not None:
        raise TypeError("solve: interpolate=True goes along dy/dt = f(t, y), and with noise or a piecewise linear control there is no "
                        "such slope; pass the times in ts (or save_at), or use HermiteCubic")
    if problem.adaptive is None and not problem.save:
        raise ValueError("solve: interpolate=True goes between the times that are saved, and save= keeps none")


def check_save_at(save_at: Any, ts: np.ndarray, direction: float) -> tuple[float, ...]:
    """Times to return, as numbers: distinct, in the order of integration, and within the ends."""
    save_at = numbers_of(save_at, "save_at").ravel()
    inside = (save_at - ts[0]) * direction >= 0, (ts[1] - save_at) * direction >= 0
    if not (np.all(inside) and (np.diff(save_at) * direction > 0).all()):
        raise ValueError(f"solve: save_at goes from {save_at.min():.6g} to {save_at.max():.6g}; the times are distinct, in "
                         f"the order of integration, and between t0={ts[0]:.6g} and t1={ts[1]:.6g}")
    return tuple(save_at.tolist())

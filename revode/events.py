"""The time at which something happens along a solution, and its gradient, by the implicit function theorem.

    g(t*, y(t*; theta), theta) = 0:     dt* = -(dg/dtheta) / (dg/dt),      dy* = dy + (dy/dt) dt*         d/dt: along the solution

The solution is stepped until g changes sign; the last step is then made to end where g is zero (Newton, kept within the step), and the
grid so found is solved once more, with any gradient mode and on any engine. dy/dt is that of the step with respect to its end, so that
the gradient is that of what was computed. Source: the implicit function theorem; Chen, Amos & Nickel 2021, arXiv 2011.03902.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from .adaptive import PID
from .checks import check_times
from .engine import tree
from .engine.tangents import jvp_of
from .engine.tensor import Tensor, joined_in, number, value_of
from .methods.increment import nested
from .problem import Asked
from .solve import Method, Mode, Solution, solve, steps
from .stepping import State
from .times import as_times, sides

NEAR = 256         # units in the last place: what happens so soon behind a grid point is found by the step before it, to first order
TRIES = 100        # of Newton and bisection
ALONE = {"diffusion", "noise", "interpretation", "control", "state0", "save_at"}          # what is not looked for events along


class Event(NamedTuple):
    """What `event` found; inside a gradient t and y are tensors.

    Parameters
    ----------
    t : the time of the crossing; the end of the grid where nothing happened.
    y : (*y.shape) the solution there, a tree like y0.
    happened : whether anything did.
    sol : the Solution up to there; its last time is a plain number.
    """
    t: Any
    y: Any
    happened: bool
    sol: Solution


def event(field: Callable, y0: Any, ts: Any, params: Any = None, *, when: Callable, direction: int = 0, method: Method | None = None,
          gradient: Mode | None = None, controller: PID | None = None, dt0: float | None = None, stops: Any = None,
          **how: Any) -> Event:
    """Solve to the first time at which when(t, y, params) crosses zero.

    Parameters
    ----------
    field, y0, ts, params, method, gradient, controller, dt0, stops : as for `solve`; the grid, or the ends, are as far as is looked.
    when : when(t, y, params) -> one number, smooth where it is zero.
    direction : -1 for a crossing from positive to negative, 1 for the other one, 0 for either. A zero at the start is none.
    how : further options of `solve` for the solution that is returned: backend, threads, arithmetic, save, interpolate.

    Returns Event(t, y, happened, sol), with first derivatives in y0, params, and tensors ts and stops.
    Raises ValueError where `when` is no number or not a number, or only touches zero, TypeError for a second derivative, noise or a
    control; and what solve raises.

    Pitfall: a pair of crossings within one step is not seen; take smaller steps there (max_step of PID). One crossing is found for the
    whole batch: solve for trajectories one by one where each has its own.

    Cost: the solve up to the crossing twice (the first time on the tape), and some three steps with their tangents.
    Source: Chen, Amos & Nickel 2021, arXiv 2011.03902, section 3.

    Example
    -------
    >>> fall = lambda t, y, p: np.stack([y[1], -p])
    >>> found = event(fall, np.array([1.0, 0.0]), np.linspace(0.0, 2.0, 21), np.array(9.81), when=lambda t, y, p: y[0])
    >>> print(f"{found.t:.6f} {np.sqrt(2 / 9.81):.6f}")
    0.451524 0.451524
    """
    if direction not in (-1, 0, 1):
        raise ValueError(f"event: direction={direction!r}; -1 for falling, 1 for rising, 0 for either")
    if given := [f"{name}=" for name in sorted(ALONE & how.keys()) if how[name] is not None]:
        raise TypeError(f"event: got {given[0]}; events are looked for along an ordinary differential equation, from y0")
    (y0, params), ts, stops = joined_in((y0, params)), as_times(ts), as_times(stops)
    check_times(Asked(field, y0, ts, controller=controller, dt0=dt0, stops=stops))
    own, at = tree.map(plain, (y0, ts, params)), value_of(stops)
    path = steps(field, *own, method=method, controller=controller, dt0=dt0, stops=at)
    times, state, beyond = crossing(path, when, own[2], direction)
    dtype = np.result_type(*tree.flatten(state.parts)[0])
    how |= {"method": state.method, "gradient": gradient, "stops": stops}
    jumps = () if at is None else np.concatenate(sides(np.ravel(at), dtype))         # solve puts them between the others once more
    grid = np.array([t for t in times if t not in jumps or t in own[1]])
    grid = ts[:len(grid)] if type(ts) is Tensor else grid
    if beyond is None:
        sol = solve(field, y0, grid, params, **how)
        return Event(grid[-1], sol.y1, False, sol)

    def end(t: Any) -> tuple:
        """The last step, to another end: the state there, and what `when` says of it."""
        to = np.concatenate([[state.t], np.reshape(t, (1,))])
        y = solve(field, None, to, own[2], state0=state, backend="eager").y1
        return y, one(when(t, y, own[2]), t)

    t, dy, dg = located(end, state.t, beyond, dtype)
    sol = solve(field, y0, np.concatenate([grid, [t]]), params, **how)
    late = -one(when(t, sol.y1, params), t) / dg               # what rounding has left; and all derivatives of t
    return Event(t + late, tree.map(lambda y, d: y + (d * late).astype(y.dtype), sol.y1, dy), True, sol)


def plain(x: Any) -> Any:
    """A leaf off its tape."""
    if nested(x) > 1:
        raise TypeError("event: a derivative of a derivative was asked; the time of an event has first derivatives only")
    return value_of(x)


def one(x: Any, t: Any) -> Any:
    """What `when` returned, as one number without axes."""
    value = np.asarray(value_of(x))
    if value.size != 1 or value.dtype.kind not in "fiu" or (value != value).all():
        raise ValueError(f"event: when returned {tree.describe(value_of(x)) if value.size != 1 else value} at "
                         f"t={float(value_of(t)):.6g}; it returns one number that goes through zero, such as y[0] - 0.5 (and not "
                         "y[0] < 0.5), or np.min(y[..., 0]) for a batch")
    return np.reshape(x, ())


def crossing(states: Iterable, when: Callable, params: Any, direction: int) -> tuple[list[float], State, float | None]:
    """The times of the steps before the first crossing, the state there, and the end of the step that crosses; None without one."""
    times: list[float] = []
    last: Any = None
    before = 0.0
    for t, state in states:
        y = state.layout.unpack(tuple(state.parts[name] for name in state.method.outputs))
        now = number(one(when(t, y, params), t))
        if before and np.sign(now) != np.sign(before) and (direction == 0 or (before < 0) == (direction > 0)):
            return times, last, t
        times.append(t)
        last, before = state, now or before
    return times, last, None


def located(end: Callable, t0: float, t1: float, dtype: Any) -> tuple[float, Any, float]:
    """Where the step from t0 that crosses before t1 ends at zero, and what changes there with its end: the state, and `when`.

    Newton; where that leaves what is known to contain the zero, half of it.
    """
    low, high, way = t0, t1, 1.0 if t1 > t0 else -1.0
    least = t0 + way * NEAR * float(np.spacing(dtype.type(max(abs(t0), abs(t1)))))             # a shorter step is none
    t, sign = t1, 0.0
    for _ in range(TRIES):
        (_, g), (dy, dg) = jvp_of(end, (t,), (1.0,))
        g, dg = number(g), 0.0 if dg is None else number(dg)                                    # None: made of no tensor
        sign = sign or float(np.sign(g)) or 1.0                                                 # behind the crossing
        low, high = (low, t) if g * sign >= 0 else (t, high)
        guess = t - g / dg if dg else low
        if not (low - guess) * way < 0 < (high - guess) * way:
            guess = 0.5 * (low + high)
        guess = guess if (guess - least) * way > 0 else least
        if not g or abs(guess - t) <= 2 * float(np.spacing(max(abs(t0), abs(t1)))):
            break
        t = guess
    if not dg or abs(g / dg) > 2 * abs(least - t0):
        raise ValueError(f"event: no last step that ends near t={t:.6g} meets a zero of `when` with a slope: it touches or jumps "
                         "there, or the method has two solutions that have parted (LeapfrogMidpoint); change condition or method")
    return t, dy, dg

"""Every refusal of what the user gave, before the first step; what passes is a Problem that can be marched.

Each message says what was given, what is expected, and what to do.
"""
from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from math import prod
from numbers import Real
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from .adaptive import PID, Adaptive, by_leaf
from .compiled import Backend
from .driving import ControlledSystem, Noise, NoisySystem, Path, SmoothlyControlledSystem
from .engine import tree
from .engine.derivatives import vjp_of_own as vjp
from .engine.tensor import Tensor, beside, innermost, is_float, number, value_of
from .exact import Exact, Flushed, Lattice, bits_for
from .gradients import Automatic, Direct, Reversible
from .methods import EES, TABLEAUX, Coupled, NearReversible
from .methods.custom import UserMethod
from .methods.increment import System, nested
from .methods.protocol import as_method
from .problem import Asked, Layout
from .stepping import Problem, State, Stats, keep, known_of, passed
from .times import with_stops

logger = logging.getLogger("revode")


def prepare(asked: Asked) -> tuple[Problem, Any, Any, Layout]:
    """The problem, the initial value as the method takes it, the parameters, and how y is laid out."""
    chosen = check_backend(asked)
    method = check_method(asked)
    lattice, method = check_exact(asked, method)
    field = check_callable(asked.field, method)
    initial, layout = begin(asked, method, lattice is not None)
    if lattice is not None:
        method, initial = on_lattice(lattice, method, initial)
        chosen = of_one_arithmetic(chosen, asked.controller is not None)
    first = value_of(tree.flatten(initial)[0][0])
    seen = np.float32 if layout.promoted else first.dtype
    ts = check_times(asked)
    check_resumed(asked.state0, ts)
    params = check_params(asked.params, first.astype(seen) if layout.promoted else first)
    system = System(field, Stats(), None if layout.plain else layout.pack, None if layout.plain else layout.open,
                    None if seen == np.float64 else np.dtype(seen).type, misfit)
    problem = gridded(asked, method, system, ts, first, seen)
    drive(problem, asked, ts, output_of(initial, method), tree.map(value_of, params))
    if problem.plain or getattr(chosen, "device", None) is not None:
        problem.backend = chosen
    problem.flushed = Flushed(method) if lattice is not None else None
    problem.widths = () if layout.alone else tuple(map(prod, layout.shapes))
    problem.asked = {name: innermost(tree.flatten(part)[0]) is not None
                     for name, part in (("y0", initial), ("params", (params, asked.ts, asked.stops)), ("ts", (asked.ts, asked.stops)))}
    return problem, initial, params, layout


OTHERWISE = {       # what other solvers call it: what to do here
    "args": "pass params=, any tree of arrays; the field is called as field(t, y, params)",
    "p": "pass params=",
    "fun": "the field comes first, field(t, y, params)", "func": "the field comes first, field(t, y, params)",
    "f": "the field comes first, field(t, y, params)", "terms": "the field comes first, and diffusion= and control= beside it",
    "t_span": "ts is the grid, np.linspace(t0, t1, 101), or with controller=PID(rtol, atol) the ends (t0, t1)",
    "t0": "ts is the grid, or with controller=PID(rtol, atol) the ends (t0, t1)",
    "t1": "ts is the grid, or with controller=PID(rtol, atol) the ends (t0, t1)", "t": "the grid is called ts",
    "t_eval": "with controller=PID(rtol, atol) pass save_at=times; on a fixed grid put them into ts, and save= chooses among them",
    "y_init": "the state at ts[0] is called y0", "x0": "the state at ts[0] is called y0", "u0": "the state at ts[0] is called y0",
    "solver": "pass method=", "adjoint": "pass gradient=Reversible(), Checkpointed(n), Direct() or Backsolve()",
    "rtol": "pass controller=PID(rtol, atol) and ts=(t0, t1)", "atol": "pass controller=PID(rtol, atol) and ts=(t0, t1)",
    "stepsize_controller": "pass controller=PID(rtol, atol)", "first_step": "pass dt0= with controller=PID(rtol, atol)",
    "max_step": "pass controller=PID(rtol, atol, max_step=...)", "max_steps": "pass controller=PID(rtol, atol, max_steps=...)",
    "dt": "the steps of a fixed grid are those of ts; with a controller the first one is dt0",
    **dict.fromkeys(("events", "event", "event_fn"), "event(field, y0, ts, params, when=...) solves to where that crosses zero"),
    "dense_output": "pass interpolate=True, and ask sol.at(t)", "jac": "all methods are explicit; leave it out",
    "vectorized": "batch axes lead in y and are always allowed; leave it out", "bm": "pass noise=Brownian(seed)",
    "sde": "pass the drift as the field, and diffusion= and noise=Brownian(seed)", "key": "pass noise=Brownian(seed)",
}
OTHERWISE |= dict.fromkeys(("teval", "saveat", "tsave"), OTHERWISE["t_eval"])

Given = ParamSpec("Given")
Found = TypeVar("Found")


def hinted(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """The function, whose unknown keywords are refused with what they are called here."""
    known = inspect.signature(function).parameters

    @wraps(function)
    def checked(*args: Given.args, **options: Given.kwargs) -> Found:
        for name in options:
            if name not in known:
                from difflib import get_close_matches
                near = get_close_matches(name, known, 1)
                remedy = OTHERWISE.get(name) or (f"did you mean {near[0]}=?" if near else f"it takes {', '.join(known)}")
                raise TypeError(f"{function.__name__}: {name}= is no argument of it; {remedy}")
        return function(*args, **options)

    return checked


def begin(asked: Asked, method: Any, exact: bool = False) -> tuple[Any, Layout]:
    """y0 as the method takes it (the parts of state0, if a solve goes on), and its layout."""
    y0, state0, split = asked.y0, asked.state0, len(method.outputs) > 1
    layout: Layout | None = None
    if state0 is not None:
        if isinstance(state0, State) and isinstance(state0.method, Exact):
            own = state0.method.inner
            state0 = state0._replace(parts={name: state0.parts[name] for name in own.parts}, method=own)
        check_state(state0, method, "state0")
        if y0 is not None:
            raise ValueError("solve: y0 and state0 were both given, and a solve begins at one of them; pass y0=None to go on from "
                             "the state, or leave state0 out")
        layout = state0.layout
        y0 = layout.unpack(tuple(state0.parts[name] for name in method.outputs))
    y0 = y0 if split else of_numbers(y0)
    if split:
        check_pair(y0, method)
    check_y0(y0)
    layout = layout or Layout(y0, split, exact and value_of(tree.flatten(y0)[0][0]).dtype == np.float32)
    if state0 is not None:
        return dict(state0.parts), layout
    y0 = tree.map(lambda x: x if type(x) is Tensor or not hasattr(x, "view") else x.view(), y0)   # not frozen for the user
    return tuple(layout.pack(x) for x in y0) if split else layout.pack(y0), layout


def plain_numbers(x: Any) -> bool:
    """Whether x is a number of Python's, or a (nested) list of them."""
    return all(map(plain_numbers, x)) and len(x) > 0 if type(x) is list else type(x) in (int, float)


def of_numbers(y0: Any) -> Any:
    """A number, or a (nested) list of numbers, as an array of float64; everything else as it is."""
    if not plain_numbers(y0):
        return y0
    try:
        return np.array(y0, dtype=np.float64)
    except ValueError:
        raise ValueError(f"solve: y0 is {y0!r}, a list whose rows differ in length; give an array, or a tree of arrays") from None


def gridded(asked: Asked, method: Any, system: System, ts: np.ndarray, first: Any, seen: Any) -> Problem:
    """The problem on a fixed grid, or on one that a controller is to make; seen: the dtype in which the field gets its times."""
    plain, state0, stops = isinstance(first, (np.ndarray, np.generic)), asked.state0, check_stops(asked.stops)
    if asked.controller is None:
        hs, save = check_steps(ts, first.dtype), saved_of(asked.save, ts)
        if len(stops):
            own, ts = ts, with_stops(ts, stops, seen)
            places = np.flatnonzero(np.isin(ts, own))
            hs, save = steps_of(ts, first.dtype), tuple(places[list(save)].tolist())
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


def output_of(initial: Any, method: Any) -> Any:
    """The (first) output at the start, off the tape, as the field gets it: read only."""
    y = initial[method.outputs[0]] if isinstance(initial, dict) else initial[0] if isinstance(initial, tuple) else initial
    return read_only(value_of(y))


def read_only(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        x = x.view()
        x.flags.writeable = False
    return x


def no_field(t: Any, y: Any, params: Any) -> Any:
    """Stands for field=None: a method made of shears may use F.params alone."""
    raise TypeError("solve: a shear called F, but field=None was given; pass the vector field")


def check_method(asked: Asked) -> Any:
    method = method_of(asked.state0, asked.method)
    if method is None:
        return default_method(asked)
    if isinstance(method, (str, type)) or not hasattr(method, "start"):
        name = {"rk45": "dopri5", "rk23": "bosh3"}.get(str(method).lower(), str(method).lower())
        hint = f" (by that name there are RungeKutta({name!r}), NearReversible and Coupled)" if name in TABLEAUX else ""
        raise TypeError(f"solve: method={method!r}; pass a method such as Coupled('midpoint'), RungeKutta('rk4') or "
                        f"ReversibleHeun(){hint}")
    method = method if isinstance(method, Exact) else as_method(method)
    if isinstance(method.lam, str):
        raise ValueError(f"solve: {method!r} has a lam that only solve() asks the advisor for, on a fixed grid from y0; choose lam "
                         "yourself (rv.advise helps)")
    return method


def check_exact(asked: Asked, method: Any) -> tuple[Lattice | None, Any]:
    """The lattice of an exact solve, or None; and the method without it."""
    exact, made = asked.exact, isinstance(method, Exact)
    if exact is None and made:
        exact = Lattice(method.bits, method.digits)                         # a state of an exact solve goes on as it was
    method = method.inner if made else method
    if exact is None or exact is False:
        return None, method
    if exact is not True and not isinstance(exact, Lattice):
        raise TypeError(f"solve: exact={exact!r}; it is True, or Lattice(bits)")
    if not method.reversible:
        raise TypeError(f"solve: exact=True is a way to run backwards, and {method!r} cannot be; use Coupled(base, lam), "
                        "ReversibleHeun(), AsynchronousLeapfrog(), LeapfrogMidpoint(), VelocityVerlet(), EES27(), "
                        "NearReversible(base) or shears(...)")
    return (Lattice() if exact is True else exact), method


def on_lattice(lattice: Lattice, method: Any, initial: Any) -> tuple[Exact, Any]:
    """The exact form of a method, and what it begins with: parts that go on get buffers of their own."""
    exact = Exact(method, bits_for(initial) if lattice.bits is None else lattice.bits, lattice.digits)
    _ = exact.contractions                                   # scales that are no ratio are refused here
    if isinstance(initial, dict):
        initial = exact.with_buffers({name: exact.round(initial[name]) for name in method.parts})
    return exact, initial


def of_one_arithmetic(backend: Any, by_tape: bool) -> Any:
    """The backend with the same operations ahead and back: nothing merged, nothing contracted. by_tape: ahead goes the tape, whose
    bits replay has, and the generated code has not."""
    if backend is None:
        return None
    strict = backend.strict or backend.name != "replay"
    if by_tape and strict:
        logger.info("exact=True: the steps are found on the tape, so replay, which has its bits, goes back in the place of %s",
                    "the strict replay" if backend.name == "replay" else backend.name)
        return replace(backend, name="replay", merge=False, strict=False)
    return replace(backend, merge=False, strict=strict)


def default_method(asked: Asked) -> Any:
    """What method=None means. A grid that a control or a plain field drives: RK4 run backwards, or Tsit5 where an error has to be
    estimated. With noise no order above one can be had, and the symmetry of EES serves the way back."""
    if asked.exact:
        return Coupled("rk4" if asked.controller is None else "tsit5", lam=0.9)
    if asked.diffusion is not None or asked.noise is not None:
        return EES(stages=4)
    return NearReversible("rk4" if asked.controller is None else "tsit5")


def method_of(state: Any, method: Any) -> Any:
    """A state goes on with the method that made it, if no other is named."""
    return state.method if method is None and isinstance(state, State) else method


def check_callable(field: Any, method: Any) -> Any:
    if field is None and isinstance(method, UserMethod):
        return no_field
    if not callable(field):
        raise TypeError(f"solve: the first argument is a {type(field).__name__}; it is the vector field, a function "
                        "field(t, y, params)")
    check_arguments(field, "field")
    return field


TIMES, STATES, PARAMETERS = ("t", "time"), ("y", "x", "u", "z", "q", "s", "state"), ("p", "params", "args", "parameters")


def check_arguments(of: Any, what: str) -> None:
    """Whether a function can be called with (t, y, params), and does not name them in another order; where that can be told."""
    names, fits = arguments(of)
    given, call = f"solve: the {what} takes the arguments ({', '.join(names)}), but", f"{what}(t, y, params)"
    if not fits:
        raise TypeError(f"{given} it is called as {call}; give it these three, also where it does not use one of them")
    first, second, third = (*names, "", "", "")[:3]
    if (first in STATES and second in TIMES) or (second in PARAMETERS and third in STATES[:3]):
        raise TypeError(f"{given} in the call {call} they come in another order; put the time first, then the state, then params")


def arguments(of: Any) -> tuple[tuple[str, ...], bool]:
    """The names of a function's arguments, as far as they can be told, and whether three can be given."""
    if isinstance(of, FunctionType):                     # inspect would cost as much as a step
        code = of.__code__
        least, most = code.co_argcount - len(of.__defaults__ or ()), code.co_argcount
        return code.co_varnames[:most], least <= 3 and (most >= 3 or bool(code.co_flags & inspect.CO_VARARGS))
    try:
        signature = inspect.signature(of)
        signature.bind(0, 0, 0)
    except ValueError:                                   # something built in: the call will tell
        return (), True
    except TypeError:
        return tuple(signature.parameters), False
    return tuple(signature.parameters), True


def check_state(state: Any, method: Any, name: str) -> None:
    """Whether this is a whole state of this method."""
    if not isinstance(state, State):
        raise TypeError(f"solve: {name} is a {type(state).__name__}; pass the state of an earlier solve, as in {name}=sol.state")
    remedy = "continue with the method that made the state, or anew from y0=sol.y1"
    if set(state.parts) != set(method.parts):
        raise ValueError(f"solve: {name} has the parts {list(state.parts)}, but {method!r} has {list(method.parts)}; {remedy}")
    both_own = isinstance(method, UserMethod) and isinstance(state.method, UserMethod)      # their functions may be made anew
    if state.method is not None and state.method != method and not both_own:
        raise ValueError(f"solve: {name} was made by {state.method!r}, but the method is {method!r}; {remedy}")
    kinds = {(value_of(x).dtype, value_of(x).shape) for x in state.parts.values()}
    if len(kinds) > 1:
        raise TypeError(f"solve: the parts of {name} differ, {tree.describe(state.parts)}; they have one shape and one dtype")


def check_reached(state: State, problem: Problem, initial: Any) -> None:
    """Whether a reverse sweep can begin at this state: of the method, the dtype and the shape of the problem, at its last time."""
    check_state(state, problem.method, "state")
    y, here = value_of(tree.flatten(initial)[0][0]), value_of(state.parts[problem.method.outputs[0]])
    if (y.dtype, y.shape) != (here.dtype, here.shape):
        raise TypeError(f"solve: state has parts of {here.dtype}{list(here.shape)}, but y0 and ay1 are {y.dtype}{list(y.shape)}; give "
                        "all of them one dtype and shape")
    if state.t != problem.ts[-1]:
        raise ValueError(f"solve: state is a state at t={state.t:.6g}, but ts ends at {problem.ts[-1]:.6g}; give the solve's own grid")


def check_resumed(state0: State | None, ts: np.ndarray) -> None:
    if state0 is not None and type(state0.h) is Tensor:
        raise TypeError("solve: state0 comes from LeapfrogMidpoint() on a grid that has a gradient, and its next step takes the "
                        "length of the last one, whose gradient would be lost; solve on one grid, or by another method")
    if state0 is not None and ts[0] != state0.t:
        raise ValueError(f"solve: state0 is a state at t={state0.t:.6g}, but ts begins at {ts[0]:.6g}; begin the grid there, or "
                         "move the state with state0._replace(t=...) where the field does not depend on time")


def check_pair(y0: Any, method: Any) -> None:
    if not (isinstance(y0, (tuple, list)) and len(y0) == 2):
        raise TypeError(f"solve: {method!r} takes y0 = (q, v) and a field that returns the acceleration; got y0 "
                        f"{tree.describe(y0)}")
    q, v = ([np.shape(value_of(x)) for x in tree.flatten(part)[0]] for part in y0)
    if q != v:
        raise ValueError(f"solve: y0 = (q, v) has q of shape {q} and v of shape {v}; position and velocity have the same shape")


def check_kind(x: Any, what: str) -> None:
    """Refuse the subclasses of arrays that mean something else by their operations: the mask, or the matrix, would be lost."""
    if type(x) is np.ndarray or not isinstance(x, np.ndarray):
        return
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{what} a masked array, whose mask would be ignored; pass x.filled(...) or x.compressed(), or "
                        "give the mask to the loss")
    if isinstance(x, np.matrix):
        raise TypeError(f"{what} an np.matrix, whose * is another product; pass np.asarray(x)")


def check_leaf(x: Any, what: str) -> None:
    """Refuse what a gradient would get lost in, or what is no number."""
    check_kind(x, what)
    dtype = getattr(x, "dtype", None)
    if dtype is not None and (dtype.kind in "cOVmM" or (dtype.kind == "f" and dtype not in (np.float32, np.float64))):
        raise TypeError(f"{what} an array of {dtype}, which carries no gradient here; give float64 or float32 (integers, bools and "
                        "strings pass through as they are)")
    if dtype is None and not (x is None or callable(x) or isinstance(x, (int, float, str, bytes))):
        raise TypeError(f"{what} a {type(x).__name__}, which no gradient would reach; params is a tree of dicts, lists, "
                        "tuples and named tuples, with arrays and numbers as leaves")


def numbers_of(x: Any, what: str) -> np.ndarray:
    """(n,) float64 times, of anything that is a list of real numbers."""
    check_kind(x, f"solve: {what} is")
    try:
        found = np.asarray(x)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype.kind not in "iuf" and found.size:
        seconds = ", as in (ts - ts[0]) / np.timedelta64(1, 's')" if found.dtype.kind == "M" else ""
        raise TypeError(f"solve: {what} is {tree.describe(x)}; it is a vector of times, which are plain real numbers{seconds}")
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"solve: {what} has entries that are not finite (NaN or Inf)")
    return found


def check_y0(y0: Any) -> None:
    leaves, names = tree.flatten(y0)[0], tree.paths(y0)
    if not leaves:
        raise ValueError("solve: y0 is empty; it is an array of floats, or a tree of such arrays")
    if len(leaves) == 2 and all(type(x) in (int, float) for x in leaves) and isinstance(y0, tuple):
        raise TypeError(f"solve: y0 is {y0!r}, two plain numbers; the state is an array, as in "
                        f"np.array({list(y0)!r}, dtype=float), and comes before the times: solve(field, y0, ts, params)")
    for x, name in zip(leaves, names, strict=True):
        x = value_of(x)
        check_kind(x, f"solve: y0{name} is")
        dtype = getattr(x, "dtype", None)
        if dtype not in (np.float32, np.float64) or not hasattr(x, "shape"):
            kind = f"an array of {dtype}" if dtype is not None else f"a {type(x).__name__}"
            remedy = (", which goes as a pair of reals, np.stack([y.real, y.imag], -1); docs/how-to/complex.md shows how"
                      if getattr(dtype, "kind", "") == "c" or type(x) is complex else
                      "; the state is an array of float64 or float32, so convert it, as in np.asarray(y0, dtype=float)")
            raise TypeError(f"solve: y0{name} is {kind}{remedy}")
        if x.size == 0:
            raise ValueError(f"solve: y0{name} has shape {x.shape}, so there is nothing to solve")
        if not bool(np.isfinite(x).all()):
            raise ValueError(f"solve: y0{name} has entries that are not finite (NaN or Inf)")
    if len({value_of(x).dtype for x in leaves}) > 1:
        raise TypeError(f"solve: the arrays of y0 have different dtypes, {tree.describe(y0)}; use one")
    homes = [type(value_of(x)).__module__.split(".")[0] for x in leaves]
    for home, name in zip(homes, names, strict=True):
        if home != homes[0]:
            raise TypeError(f"solve: y0{name} is a {home} array but y0{names[0]} is a {homes[0]} array; move all of them to one "
                            "device (revode_cuda.to_device, to_host)")


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
        raise TypeError(f"solve: ts is a tensor, and with {stands[0]} times get no gradient; pass plain times there, or solve an "
                        "ordinary differential equation on a fixed grid (such as the ts of an adaptive solve)")


def check_plain(problem: Problem) -> None:
    if problem.timed:
        raise TypeError("steps: ts is a tensor, and stepping by hand gives times no gradient; pass plain times, or use solve(...)")


def check_params(params: Any, y: Any) -> Any:
    """Params with Python floats in y's dtype; refuses what is not finite, or lives on another device than y."""
    leaves, structure = tree.flatten(params)
    checked = []
    for i, x in enumerate(leaves):
        plain = value_of(x)
        if type(plain) is np.ndarray is type(y) and plain.dtype == y.dtype and np.isfinite(plain).all():   # as ever
            checked.append(x)
            continue
        name = tree.paths(params)[i]
        check_leaf(plain, f"solve: params{name} is")
        if type(plain) is float:
            # A Python float, or a tensor of one, in y's dtype (np.ones_like of CuPy cannot make an array without axes).
            x = x * (y.dtype.type(1) if isinstance(y, (np.ndarray, np.generic)) else np.ones_like(y, shape=(1,))[0])
            plain = value_of(x)
        elif isinstance(plain, np.floating) and not isinstance(y, (np.ndarray, np.generic)):
            x = x * np.ones_like(y, shape=(1,))[0]        # NumPy's scalars have to be where their gradient will be
            plain = value_of(x)
        home, here = type(plain).__module__.split(".")[0], type(y).__module__.split(".")[0]
        if hasattr(plain, "dtype") and not isinstance(plain, np.generic) and home != here:
            raise TypeError(f"solve: params{name} is a {home} array but y0 is a {here} array; move all of them to one "
                            "device (revode_cuda.to_device, to_host)")
        if is_float(plain) and not bool(np.all(np.isfinite(plain))):
            raise ValueError(f"solve: params{name} has entries that are not finite (NaN or Inf)")
        checked.append(x)
    return tree.unflatten(structure, checked)


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


def check_far_times(problem: Problem, ts: np.ndarray, y: Any, params: Any) -> None:
    """A field that depends on t should not get it from so far that the digits are spent on the distance."""
    if ts[0] == ts[-1] or max(abs(ts[0]), abs(ts[-1])) < FAR * abs(ts[-1] - ts[0]) or (
            problem.adaptive is not None and y.dtype == np.float64):
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


def check_save_at(save_at: Any, ts: np.ndarray, direction: float) -> tuple[float, ...]:
    """Times to return, as numbers: distinct, in the order of integration, and within the ends."""
    save_at = numbers_of(save_at, "save_at").ravel()
    inside = (save_at - ts[0]) * direction >= 0, (ts[1] - save_at) * direction >= 0
    if not (np.all(inside) and (np.diff(save_at) * direction > 0).all()):
        raise ValueError(f"solve: save_at goes from {save_at.min():.6g} to {save_at.max():.6g}; the times are distinct, in "
                         f"the order of integration, and between t0={ts[0]:.6g} and t1={ts[1]:.6g}")
    return tuple(save_at.tolist())


def check_backend(asked: Asked) -> Backend | None:
    backend, threads, arithmetic = asked.backend, asked.threads, asked.arithmetic
    if isinstance(backend, Backend):                 # that of another device (revode_cuda)
        return backend
    if backend not in ("auto", "eager", "replay", "native"):
        raise ValueError(f"solve: backend={backend!r}; it is 'auto', 'eager', 'replay' or 'native'")
    if arithmetic not in ("fast", "strict"):
        raise ValueError(f"solve: arithmetic={arithmetic!r}; it is 'fast' or 'strict'")
    if threads is not None and (not isinstance(threads, int) or threads is True or threads < 1):
        raise ValueError(f"solve: threads={threads!r}; a whole number, 1 or more, or None for one per core")
    if backend == "eager":
        return None
    # What is chosen by itself gives the bits of the tape, until native code takes over at a solve that is known (promote.py).
    auto = backend == "auto"
    return Backend("replay" if auto else backend, auto, not auto, arithmetic == "strict", threads)


def checked_gradient(gradient: Any, method: Any) -> Any:
    """The gradient mode, or the default for this method; TypeError where the two do not go together."""
    reversible = method.reversible
    if isinstance(method, Exact):
        if gradient is not None and not isinstance(gradient, Reversible):
            raise TypeError(f"solve: exact=True is a way to run backwards, and {gradient!r} does not; use gradient=Reversible(), the "
                            "default there, or leave exact out")
        return gradient or Reversible()
    if gradient is None:
        return Automatic() if reversible else Direct()
    if isinstance(gradient, type) or not hasattr(gradient, "solve"):
        raise TypeError(f"solve: gradient={gradient!r}; pass one of Automatic(), Direct(), Checkpointed(n), Reversible(), "
                        "Backsolve(), with the parentheses")
    if isinstance(gradient, (Automatic, Reversible)) and not reversible:
        raise TypeError(f"solve: {method!r} cannot be run backwards, so it has no {type(gradient).__name__}() gradient; use "
                        "Coupled(base), which is reversible, NearReversible(base), which nearly is, or Checkpointed(n)")
    return gradient


def check_field(problem: Problem, y: Any, params: Any) -> None:
    """Evaluate the field twice at the start: right shape and dtype, finite, and the same both times."""
    system, stats, t = problem.system, problem.stats, problem.ts[0]
    params = tree.map(read_only, params)
    from .compiled.plans import look_again, raw_of  # what makes programs is imported where it is used: import revode stays quick
    f = raw_of(system).coefficients(t, y, params)[0]
    again = look_again(problem, system, t, y, params, f)
    stats.checks, stats.nfe = stats.checks + 2, stats.nfe - 2
    check_pure("field", f, again, t)


def misfit(f: Any, t: Any, y: Any, params: Any, tail: tuple[int, ...], what: str) -> None:
    """Refuse a value of the field or the diffusion that does not fit, with the time at which it came."""
    at, shape = f"at t={float(value_of(t)):.6g}", (*y.shape, *tail)
    if not hasattr(f, "shape") or not hasattr(f, "dtype"):
        remedy = ("Is a return missing?" if f is None else
                  "np.stack makes one of a list or tuple." if isinstance(f, (list, tuple)) else
                  "A constant is made one by np.full_like(y, ...), or by + 0 * y.")
        kind = TypeError if what == "field" else ValueError
        raise kind(f"solve: the {what} returned {type(f).__name__} {at}; it returns an array of shape {shape}, at every time: an "
                   f"array shaped like y{', with one more axis' if tail else ''}. {remedy}")
    if f.shape != shape:
        raise ValueError(f"solve: the {what} returned shape {f.shape} for y of shape {y.shape} {at}; " + (
            "a vector field returns an array shaped like y. Did you forget the batch axis?" if (what, tail) == ("field", ()) else
            f"with a control of {tail[0]} channels it returns shape {shape}" if what == "field" else
            f"it returned shape {shape} at the start, and does so at every time; nothing is broadcast"))
    if f.dtype != y.dtype:
        raise TypeError(f"solve: the {what} returned {f.dtype} for y of {y.dtype} {at}; give params and constants y's dtype (or "
                        "plain Python numbers, which take it)")
    if nested(f) > max(map(nested, [y, *tree.flatten(params)[0]])):
        raise TypeError(f"solve: the {what} uses a tensor that it was not given (a variable from outside) {at}, so its gradient would "
                        "be lost; pass everything that is to be differentiated through params")


def check_not_split(y0: Any, method: Any, error: Exception) -> None:
    """A field that fails on a pair of arrays of one shape may mean position and velocity."""
    if isinstance(y0, (tuple, list)) and len(y0) == 2 and len(method.outputs) == 1:
        q, v = y0
        if hasattr(q, "shape") and hasattr(v, "shape") and q.shape == v.shape:
            raise TypeError(f"solve: y0 is a pair of arrays, which {method!r} takes as one tree, so that the field gets a pair and "
                            f"returns one ({error}); if it is position and velocity, and the field returns the acceleration, pass "
                            "method=VelocityVerlet()") from error


def check_pure(what: str, f: Any, again: Any, t: Any) -> None:
    """Two values of a function for one input: finite, equal, and not the same buffer."""
    at = f"at t={t:.6g}"
    check_kind(f, f"solve: the {what} returned")
    if not bool(np.isfinite(f).all()):
        raise ValueError(f"solve: the {what}'s first value, {at}, has entries that are not finite (NaN or Inf)")
    if isinstance(f, np.ndarray) and np.may_share_memory(f, again) and f.flags.writeable:
        raise ValueError(f"solve: the {what} returned the same array twice {at}, so that a later value would overwrite an earlier "
                         "one; return a new array each time")
    if not bool((f == again).all()):
        raise ValueError(f"solve: the {what} differs from call to call: it gave two different values for the same input {at}; it is a "
                         "pure function, so draw random numbers outside it and pass them in params")


def noisy(system: System, asked: Asked, method: Any, y: Any, times: tuple, params: Any) -> tuple[System, Noise]:
    """The system and the noise of an SDE, after every check that a few evaluations of g can make.

    times: two times of the solve at which g is looked at, the start and a later one.
    """
    found = NoisySystem(system, check_noise(asked, method), False, False)
    g = check_diffusion(found, times[0], y, params)
    looks = [dependence(found, t, y, params) for t in times]
    system.stats.checks += 2 + len(looks)
    depends, ito = any(look[0] for look in looks), asked.interpretation == "ito"
    euler = method.order == 1
    plain = euler and type(method).__name__ == "RungeKutta"
    found.euler_maruyama = plain and depends and ito
    if depends and not found.euler_maruyama:
        check_interpretation(asked.interpretation, method, euler, found.general, any(look[1] for look in looks))
    # The correction of noise that does not depend on y is zero; it is kept, in case that two looks were not enough.
    found.ito = ito and not found.general and not plain
    shape = (*y.shape[:-1], g.shape[-1]) if found.general else y.shape
    return found, Noise(asked.noise, shape, y.dtype, beside(y))


def check_noise(asked: Asked, method: Any) -> Callable:
    """The diffusion, if there is one, a path, and a method that has a form for them."""
    if isinstance(asked.noise, type) or not (hasattr(asked.noise, "along") or hasattr(asked.noise, "walk")):
        raise TypeError(f"solve: diffusion= was given with noise={asked.noise!r}; pass noise=Brownian(seed), or "
                        "BrownianTree(seed, t0, t1) for adaptive steps")
    if not callable(asked.diffusion):
        raise TypeError(f"solve: diffusion={asked.diffusion!r}; it is a function g(t, y, params), as the drift is")
    check_arguments(asked.diffusion, "diffusion")
    if method.composed is not method.inner:
        raise TypeError(f"solve: {method!r} has no form for noise: one of its substeps goes backwards, and an increment of the "
                        "path cannot be split like that; use the method itself, uncomposed")
    if not method.noise:
        raise TypeError(f"solve: {method!r} has no form for noise (its step relies on dy = f dt); use ReversibleHeun(), "
                        "Coupled over heun2 or midpoint, an EES method, or RungeKutta('heun2')")
    return asked.diffusion


def check_diffusion(system: NoisySystem, t: Any, y: Any, params: Any) -> Any:
    """g at the start; the shape that it has there, diagonal or general, is that of all later times."""
    params = tree.map(read_only, params)
    opened = system.unpack is not None
    again = system.diffusion(system.time(t), system.unpack(y) if opened else y, params)
    again = system.pack(again, t) if opened else again
    shape = getattr(again, "shape", y.shape)
    if shape != y.shape:
        if shape[:-1] != y.shape:
            raise ValueError(f"solve: the diffusion returned {shape} for y of shape {y.shape} at t={t:.6g}; diagonal noise has its "
                             f"shape, general noise {(*y.shape, 'm')}; nothing is broadcast")
        system.tail, system.general = shape[-1:], True
    g = system.g(t, y, params)
    check_pure("diffusion", g, again, t)
    return g


def check_interpretation(interpretation: str, method: Any, euler: bool, general: bool, mixes: bool) -> None:
    """Whether the method converges to the integral that was asked for, with noise that depends on y."""
    if euler:
        raise ValueError(f"solve: with noise that depends on y, {method!r} does not converge to the {interpretation} solution; "
                         "use a base of order two or more (heun2, midpoint), or RungeKutta('euler') with interpretation='ito'")
    if interpretation == "ito" and general:
        raise ValueError("solve: the Ito correction is offered for diagonal noise; for general noise the methods here are "
                         "Stratonovich, so subtract (1/2) sum_jk g_jk dg_ik/dy_j from the drift yourself")
    if interpretation == "ito" and mixes:
        raise ValueError("solve: interpretation='ito' needs g_i to depend on y_i alone (then the correction is one vjp), but "
                         "here one entry of g depends on another of y; subtract (1/2) g_i dg_i/dy_i from the drift yourself")


def dependence(system: NoisySystem, t: Any, y: Any, params: Any) -> tuple[bool, bool]:
    """Whether g depends on y, and whether some g_i depends on another entry than y_i: two vjps at an irregular point near y.

    If g_i depends on y_i alone, the pullback of s is s_i dg_i/dy_i, which is s times the pullback of ones.
    """
    place = beside(y)
    steps = place(np.reshape(np.arange(y.size) * 0.6180339887498949 % 1, y.shape).astype(y.dtype))
    g, pull = vjp(lambda y: system.g(t, y, params), y + 0.01 * (1 + abs(y)) * (1 + steps))
    s = place(np.reshape(1 + np.arange(g.size) * 0.7548776662466927 % 1, g.shape).astype(g.dtype))
    of_s, of_ones = pull(s)[0], pull(np.ones_like(g))[0]
    if g.shape != y.shape:
        return bool(np.any(of_s)), True
    # s times the pullback of ones agrees up to rounding; sqrt(eps) is far above that, and far below a real cross term
    allowed = float(np.finfo(g.dtype).eps) ** 0.5 * (1e-30 + number(abs(of_s).max()))
    return bool(np.any(of_s)), bool((abs(of_s - s * of_ones) > allowed).any())


def controlled(system: System, control: Any, method: Any, y: Any, ts: Any,
               fixed: bool) -> tuple[System, Path | None, list[float]]:
    """The system of a controlled equation, its increments (None where the control is smooth: dx is h), and its knots."""
    check_control(system, control, method, y)
    inside = [float(t) for t in np.unique(control.times) if min(ts[0], ts[-1]) < t < max(ts[0], ts[-1])]
    if type(control).__name__ == "Rectilinear" and fixed and not set(inside) <= {float(t) for t in ts}:
        raise ValueError("solve: the grid steps over knots of a Rectilinear control, whose corners it would cut off; put all of "
                         "control.times into ts")
    smooth = getattr(control, "smooth", False)
    found = (SmoothlyControlledSystem if smooth else ControlledSystem)(system.field, system.stats, scalar=system.scalar,
                                                                                refuse=system.refuse)
    place = beside(y)
    found.control, found.derivative = control, getattr(control, "derivative", None)
    if not isinstance(y, (np.ndarray, np.generic)):
        found.derivative = lambda t: place(control.derivative(t))
    return found, None if smooth else Path(control, place), inside


def check_control(system: System, control: Any, method: Any, y: Any) -> None:
    """Whether the control is a path of y's dtype and batch, and the method can follow it."""
    if isinstance(control, type) or not hasattr(control, "increment"):
        raise TypeError(f"solve: control={control!r}; pass LinearPath, Rectilinear or HermiteCubic(times, values)")
    if system.unpack is not None or len(method.outputs) > 1:
        raise TypeError("solve: a controlled equation needs y as one array, and a method without split state")
    if not getattr(control, "smooth", False) and not method.noise:
        raise TypeError(f"solve: {method!r} relies on dy = f dt, so it cannot follow the increments of a piecewise linear "
                        "control; use HermiteCubic, or ReversibleHeun(), Coupled or an EES method")
    batch = control.values.shape[:-2]
    if batch not in ((), y.shape[:-1]):
        raise ValueError(f"solve: the control is a batch {batch} of series for y of shape {y.shape}; its batch is that of y, "
                         f"{y.shape[:-1]}, or one series serves all")
    if control.values.dtype != y.dtype:
        raise TypeError(f"solve: the control has values of {control.values.dtype} but y0 is {y.dtype}; give both one dtype")

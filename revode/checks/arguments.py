"""What solve is called with: its keywords, and the functions that it will call."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from ..methods.custom import UserMethod

OTHERWISE = {       # what other solvers call it: what to do here
    "args": "pass params=, any tree of arrays; the field is called as field(t, y, params)", "p": "pass params=",
    "f": "the field comes first, field(t, y, params)", "terms": "the field comes first, and diffusion= and control= beside it",
    "t_span": "ts is the grid, np.linspace(t0, t1, 101), or with controller=PID(rtol, atol) the ends (t0, t1)",
    "t0": "ts is the grid, or with controller=PID(rtol, atol) the ends (t0, t1)", "t": "the grid is called ts",
    "t_eval": "with controller=PID(rtol, atol) pass save_at=times; on a fixed grid put them into ts, and save= chooses among them",
    "x0": "the state at ts[0] is called y0",
    "solver": "pass method=", "adjoint": "pass gradient=Reversible(), Checkpointed(n), Direct() or Backsolve()",
    "rtol": "pass controller=PID(rtol, atol) and ts=(t0, t1)",
    "stepsize_controller": "pass controller=PID(rtol, atol)", "first_step": "pass dt0= with controller=PID(rtol, atol)",
    "max_step": "pass controller=PID(rtol, atol, max_step=...)", "max_steps": "pass controller=PID(rtol, atol, max_steps=...)",
    "dt": "the steps of a fixed grid are those of ts; with a controller the first one is dt0",
    "events": "event(field, y0, ts, params, when=...) solves to where that crosses zero",
    "dense_output": "pass interpolate=True, and ask sol.at(t)", "jac": "all methods are explicit; leave it out",
    "vectorized": "batch axes lead in y and are always allowed; leave it out", "dtype": "the solve has the dtype of y0",
    "sde": "pass the drift as the field, and diffusion= and noise=Brownian(seed)", "bm": "pass noise=Brownian(seed)",
    "noise_type": "the shape of diffusion's value says it: (..., d) is diagonal, (..., d, m) general",
    "sde_type": "pass interpretation='ito' or 'stratonovich'",
}
OTHERWISE |= {other: OTHERWISE[known] for known, others in {
    "f": ("fun", "func", "vector_field", "drift"), "t0": ("t1",), "x0": ("u0", "y_init"), "t_eval": ("teval", "saveat", "tsave"),
    "dt": ("h", "steps", "n_steps"), "rtol": ("atol", "tol", "adaptive"), "events": ("event", "event_fn"), "dense_output": ("dense",),
    "bm": ("key", "seed", "rng", "brownian"), "adjoint": ("checkpoints",),
}.items() for other in others}

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


def no_field(t: Any, y: Any, params: Any) -> Any:
    """Stands for field=None: a method made of shears may use F.params alone."""
    raise TypeError("solve: a shear called F, but field=None was given; pass the vector field")


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

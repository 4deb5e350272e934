"""Where a solve begins: y0, or the state of an earlier solve."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import Tensor, value_of
from ..exact import Exact
from ..methods.custom import UserMethod
from ..problem import Asked, Packing
from ..stepping import Problem, State
from .leaves import check_finite, check_home, check_kind, read_only


def begin(asked: Asked, method: Any, exact: bool = False) -> tuple[Any, Packing]:
    """y0 as the method takes it (the parts of state0, if a solve goes on), and its layout."""
    y0, state0, split = asked.y0, asked.state0, len(method.outputs) > 1
    layout: Packing | None = None
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
    layout = layout or Packing(y0, split, exact and value_of(tree.flatten(y0)[0][0]).dtype == np.float32)
    if state0 is not None:
        return dict(state0.parts), layout
    return laid(y0, layout), layout


def laid(y0: Any, layout: Packing) -> Any:
    """y0 as the method takes it."""
    if layout.plain and not layout.split:
        return y0 if type(y0) is Tensor or not hasattr(y0, "view") else y0.view()
    y0 = tree.map(lambda x: x if type(x) is Tensor or not hasattr(x, "view") else x.view(), y0)   # not frozen for the user
    return tuple(layout.pack(x) for x in y0) if layout.split else layout.pack(y0)


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
        check_finite(x, f"y0{name}")
    if len({value_of(x).dtype for x in leaves}) > 1:
        raise TypeError(f"solve: the arrays of y0 have different dtypes, {tree.describe(y0)}; use one")
    for x, name in zip(leaves, names, strict=True):
        check_home(value_of(x), f"y0{name}", value_of(leaves[0]), f"y0{names[0]}")


def check_pair(y0: Any, method: Any) -> None:
    if not (isinstance(y0, (tuple, list)) and len(y0) == 2):
        raise TypeError(f"solve: {method!r} takes y0 = (q, v) and a field that returns the acceleration; got y0 "
                        f"{tree.describe(y0)}")
    q, v = ([np.shape(value_of(x)) for x in tree.flatten(part)[0]] for part in y0)
    if q != v:
        raise ValueError(f"solve: y0 = (q, v) has q of shape {q} and v of shape {v}; position and velocity have the same shape")


def output_of(initial: Any, method: Any) -> Any:
    """The (first) output at the start, off the tape, as the field gets it: read only."""
    y = initial[method.outputs[0]] if isinstance(initial, dict) else initial[0] if isinstance(initial, tuple) else initial
    return read_only(value_of(y))


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

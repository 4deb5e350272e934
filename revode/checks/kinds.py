"""A kind of solve that has passed every check: of the next one like it that is looked at which may have changed, and nothing else.

    as they were    options, the trees of y0 and params with their shapes and dtype, the grid bit by bit
    looked at       whether all numbers are finite; the field's arguments, its value, its trace
"""
from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ..engine import tree
from ..engine.tensor import Tensor
from ..finite import squared
from ..methods.increment import System
from ..problem import Asked, Packing
from ..stepping import Problem, Stats, passed
from .arguments import check_callable
from .fields import misfit
from .grids import far
from .leaves import read_only
from .states import laid, output_of

KEPT = 8                 # kinds of solves that are remembered
SAVES = (list, type(None), slice)
OF_ONE_SOLVE = ("system", "stats", "scales", "compared", "promoted", "asked", "seen", "given")


class Kind(NamedTuple):
    """What was asked for but the field, y0 and params, and the problem without what is one solve's own."""
    options: tuple
    ts: np.ndarray
    structure: Any
    shapes: list[tuple[int, ...]]
    dtype: np.dtype
    code: Any                      # that of a field that is a plain function
    problem: dict[str, Any]
    layout: Packing


_kinds: list[Kind] = []


@cache
def plans() -> Any:
    """What makes programs is imported where it is used: import revode stays quick."""
    from ..compiled import plans
    return plans


def code_of(field: Any) -> Any:
    """What decides which arguments a plain function takes; of another callable nothing that could be compared."""
    return (field.__code__, len(field.__defaults__ or ())) if type(field) is FunctionType else None


def given(asked: Asked) -> tuple[list, list, Any]:
    """The leaves of y0 and params, the same without their tape, and the trees."""
    leaves, structure = tree.flatten((asked.y0, asked.params))
    return leaves, [x._value if type(x) is Tensor else x for x in leaves], structure


def known(asked: Asked) -> tuple[Problem, Any, Any, Packing] | None:
    """What `prepare` returns, of a solve of a kind that is known; None for any other, or if there is something to be said."""
    ts = passed(asked.ts)
    if ts is None or asked.stops is not None or type(asked.save) not in SAVES:
        return None
    leaves, plain, structure = given(asked)
    kind = find(asked, ts, structure, plain)
    if kind is None or not squared(plain) < np.inf:
        return None
    method, layout, code = kind.problem["method"], kind.layout, code_of(asked.field)
    if code is None or code != kind.code:
        check_callable(asked.field, method)
    problem: Problem = object.__new__(Problem)
    system = System(asked.field, Stats(), None if layout.plain else layout.pack, None if layout.plain else layout.open,
                    None if kind.dtype == np.float64 else kind.dtype.type, misfit)
    many = len(layout.shapes) * (2 if layout.split else 1)
    on_tape = [type(x) is Tensor for x in leaves]
    problem.__dict__.update(kind.problem)
    problem.__dict__.update(system=system, stats=system.stats, scales={}, compared=set(), promoted={},
                            asked={"y0": any(on_tape[:many]), "params": any(on_tape[many:]), "ts": False})
    initial = laid(asked.y0, layout)
    params = tree.unflatten(structure[2][1], [read_only(x) if x.flags.writeable else x for x in plain[many:]])
    return (problem, initial, asked.params, layout) if plans().glance(problem, output_of(initial, method), params) else None


def remember(asked: Asked, problem: Problem, layout: Packing) -> None:
    """Keep what has passed every check, if nothing but what `known` looks at can change."""
    _, plain, structure = given(asked)
    ts, method = np.asarray(problem.ts), problem.method
    dtype = getattr(plain[0], "dtype", None)
    special = (asked.state0, asked.controller, asked.diffusion, asked.noise, asked.control, asked.exact, asked.stops)
    if any(x is not None for x in special) or asked.progress or not isinstance(asked.backend, str) or type(asked.save) not in SAVES:
        return
    if passed(asked.ts) is not ts or far(ts) or not plans().own(method) or any(
            type(x) is not np.ndarray or x.dtype != dtype for x in plain) or find(asked, ts, structure, plain) is not None:
        return
    _ = problem.rows, problem.saved, method.companion and problem.neutral            # computed once
    fields = {name: x for name, x in problem.__dict__.items() if name not in OF_ONE_SOLVE}
    options = asked._replace(save=[*asked.save] if type(asked.save) is list else asked.save)[4:]         # yours may change
    _kinds[:] = [Kind(options, ts, structure, [x.shape for x in plain], plain[0].dtype, code_of(asked.field), fields, layout),
                 *_kinds[:KEPT - 1]]


def find(asked: Asked, ts: np.ndarray, structure: Any, plain: list) -> Kind | None:
    """The kind of what was asked for."""
    for kind in _kinds:
        if kind.ts is ts and kind.options == asked[4:] and kind.structure == structure and {*map(type, plain)} == {np.ndarray} and (
                [x.shape for x in plain] == kind.shapes and {x.dtype for x in plain} == {kind.dtype}):
            return kind
    return None

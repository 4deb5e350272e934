"""What a compiled backend runs, to be read: the program of one step, the NumPy calls made of it, the C text made of it."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..checks import prepare
from ..compiled.plans import inside
from ..compiled.program import Program
from ..compiled.replay import Replay
from ..compiled.steps import backward_steps, forward_steps
from ..compiled.tiles import Tiles
from ..methods.increment import Evaluator
from ..problem import Asked


class Printed(NamedTuple):
    """One step in three forms; what `printed` returns.

    Parameters
    ----------
    program : print(program) shows one line for each operation, with its dtype and shape.
    numpy : a Python function of NumPy calls into buffers that are there already: backend="replay".
    c : the whole source that backend="native" compiles.
    """
    program: Program     # print(program): one line for each operation, with its dtype and shape
    numpy: str           # a Python function of NumPy calls into buffers that are there already: backend="replay"
    c: str               # the whole source that backend="native" compiles


def printed(field: Callable, y0: Any, params: Any = None, *, method: Any = None, direction: str = "forward", ts: Any = (0.0, 0.1, 0.2),
            **driving: Any) -> Printed:
    """The program of one step of a solve.

    Parameters
    ----------
    field, y0, params, method, ts : as for solve.
    driving : diffusion, noise, interpretation, control, as for solve.
    direction : "forward", or "backward" for a step of the reverse sweep (reconstruct the state, and pull the cotangents back).

    Returns Printed(program, numpy, c).
    Raises NotTraceable, or NotFusable (for what has no form as a loop over trajectories, and stays with replay), by the name of
    the operation; ValueError for another direction.

    Cost: a few evaluations of the field; nothing is compiled.

    Example
    -------
    >>> import numpy as np
    >>> from revode import RungeKutta
    >>> print(printed(lambda t, y, p: -p * y, np.ones(2), np.array(3.0), method=RungeKutta("euler")).program)
    v0    float64 (2,)           part y
    v1    float64 ()             param 0
    v2    float64 ()             step h
    v3    float64 (2,)           multiply(v0, v1)
    v4    float64 ()             negative(v2)
    v5    float64 (2,)           multiply(v3, v4)
    v6    float64 (2,)           add(v0, v5)
    part y = v6
    """
    if direction not in ("forward", "backward"):
        raise ValueError(f"printed: direction={direction!r}; 'forward' or 'backward'")
    problem, initial, params, _ = prepare(Asked(field, y0, ts, params, method, **driving))
    parts = problem.start(Evaluator(problem.system, params), initial)
    steps = (forward_steps if direction == "forward" else backward_steps)(problem, parts, params, True)
    tiles = Tiles(steps, parts, problem.method.outputs, direction, inside(problem),
                  make=lambda source: None)
    return Printed(steps.step, Replay(steps, parts, True).codes["step"].source, tiles.source.text)

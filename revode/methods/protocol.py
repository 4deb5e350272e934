"""What a method says of itself: the attributes that the rest of the library asks for, each with its default.

A method gives parts, outputs, and either word (a list of shears: exactly reversible) or flow. All else may be left as it is.
"""
from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any


class Method:
    """The base of all methods. A class of your own may do without it: `as_method` adds what is missing.

    parts, outputs        the names of the state's parts, and of those that are the solution y
    start(F, step, y0)    the initial parts; differentiated like everything else
    word(step)            the shears of one step (shears.py), or
    flow(F, t0, t1, y, dx, errors=None) -> y(t1), of a method of the one part y; to `errors` goes an estimate of its error
    """
    parts: tuple[str, ...] = ("y",)
    outputs: tuple[str, ...] = ("y",)
    order: Any = None                    # of convergence; None: not known
    error_order: Any = None              # the power of h with which the error estimate falls; None: there is none
    exactly_reversible: bool = True      # has a word; else a flow
    reversible: bool = True              # can be run backwards: exactly, or nearly
    correct: int = 0                     # passes of correction in the reverse sweep of a flow
    noise: bool = False                  # a step needs F(t, y, dx) alone, so that dx may hold noise or a control
    symmetric: bool = False              # a step of -h undoes it: composition raises its order
    companion: Any = None                # what moves beside the solution and should not part from it (companion.py)
    contraction_limit: Any = None        # contraction_limit(h): the fastest contraction that the companion follows
    base: Any = "midpoint"               # the Runge-Kutta method nearest to it, for Backsolve and the advisor
    lam: Any = None                      # the coupling, if it has one
    velocity: Any = None                 # of a split method: what dq/dt is of v, if not v itself

    def start(self, F: Any, step: Any, y: Any) -> dict:
        """Every part begins as y0; those of a split method each as its own entry of it."""
        if len(self.outputs) > 1:
            return dict(zip(self.outputs, y, strict=True))
        return {name: y for name in self.parts}

    @property
    def inner(self) -> Any:
        """The method that this one rounds (exact.py): itself."""
        return self

    @property
    def composed(self) -> Any:
        """The method that this one is composed of: itself."""
        return self

    def attempt(self, step: Any, parts: dict, F: Any) -> tuple[dict, Any]:
        """The parts after a step, and the estimate of its error; of a flow, whose first evaluation is at a part that it shares."""
        errors: list = []
        y, = F.read(("y",), parts)
        flow: Any = self.flow                                                                       # type: ignore[attr-defined]
        return {"y": flow(F, step.t0, step.t1, y, step.dx, errors)}, errors[0]


def as_method(method: Any) -> Any:
    """The method itself, or a copy that has what it lacks."""
    if isinstance(method, Method):
        return method
    found = copy(method)
    kind: Any = type(method)
    object.__setattr__(found, "__class__", completed(kind))
    return found


@cache
def completed(kind: type) -> type:
    """The class, with the defaults behind its own attributes."""
    body: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    if not hasattr(kind, "word"):
        body |= {"exactly_reversible": False, "reversible": getattr(kind, "reversible", False)}
    return type(kind.__name__, (kind, Method), body)

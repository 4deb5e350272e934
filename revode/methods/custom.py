"""Methods of your own: a function that returns shears gets its inverse, its gradient and its bit-exact form."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from .companion import Companion
from .increment import Evaluator
from .protocol import Method
from .shears import Parts, Step, Swap, Word


@dataclass(frozen=True)
class UserMethod(Method):
    """What `shears` returns: a method made of a function from a step to its word."""
    step: Callable
    parts: tuple[str, ...] = ("y", "z")
    outputs: tuple[str, ...] = ("y",)
    initial: Callable | None = None
    twin: tuple[str, str] | None = None
    order: int | None = None
    noise = True             # the word gets dx, and F takes it

    def __repr__(self) -> str:
        return f"shears({getattr(self.step, '__qualname__', type(self.step).__name__)})"          # no address: warnings stay the same

    @property
    def companion(self) -> Companion | None:
        """The twins: half of their difference is put into each."""
        if self.twin is None:
            return None
        one, other = self.twin
        return Companion(f"the parts {one} and {other}", {one: 1.0, other: -1.0}, {one: 1.0, other: 1.0}, {one: 0.5, other: -0.5})

    def start(self, F: Evaluator, step: Step, y: Any) -> Parts:
        if self.initial is None:
            return super().start(F, step, y)
        parts = self.initial(F, step.t0, y)
        if not isinstance(parts, dict) or set(parts) != set(self.parts):
            got = sorted(parts) if isinstance(parts, dict) else type(parts).__name__
            raise ValueError(f"shears: initial returned {got}; it returns a dict with exactly the parts {list(self.parts)}")
        return parts

    def word(self, step: Step) -> Word:
        word = self.step(step.t0, step.t1, step.dx)
        for shear in word:
            swap = type(shear) is Swap
            named = set(shear) if swap else {shear.target, *shear.reads, shear.about or shear.target}
            if not named <= set(self.parts):
                raise ValueError(f"shears: {shear} names {sorted(named - set(self.parts))}; the parts of this method are "
                                 f"{self.parts}")
            if swap:
                continue
            fault = ("it reads its own target" if shear.target in shear.reads else
                     f"its scale is {shear.scale}" if not shear.scale or not isfinite(shear.scale) else
                     "it does not read what it is about" if shear.about and shear.about not in shear.reads else None)
            if fault:
                raise ValueError(f"shears: {shear} cannot be inverted, because {fault}; a shear reads other parts than its "
                                 "target, and scales the target by a number other than 0")
        return word


def shears(step: Callable, parts: tuple[str, ...] = ("y", "z"), outputs: tuple[str, ...] = ("y",),
           initial: Callable | None = None, twin: tuple[str, str] | None = None, order: int | None = None) -> UserMethod:
    """A reversible method of your own, from a function that returns the shears of a step.

    Parameters
    ----------
    step : step(t0, t1, dx) returns a list of Shear (and Swap); dx is the step size h as an array without axes (with noise, the pair
        h, dW). A shear calls F(t, part, dx) for the increment of the field, or F.field(t, part) for its value where a part of the
        state is itself a velocity (there is no such form for noise), and may use F.params directly.
    parts : the names of the state's parts.
    outputs : the part that is the solution y; several for a split y0 such as (q, v).
    initial : initial(F, t0, y0) -> dict of parts; by default every part starts as y0 (or, split, as its own entry).
    twin : two parts that should agree; their distance is monitored.
    order : the order of convergence, if known.

    Returns a method, for solve(method=...), with its inverse, its gradient and its compiled forms.
    Raises ValueError for names that do not fit, here; in a solve for a shear that cannot be inverted.

    Cost: forward the evaluations of its shears; back as many evaluations and pullbacks, values that are shared counted once.
    Source: the splitting of reversible maps into shears is classical; McCallum & Foster 2024, arXiv 2410.11648.

    Example
    -------
    >>> import numpy as np
    >>> half = lambda F, x, name: np.tanh(x @ F.params[name])           # a RevNet, whose halves use different parameters
    >>> revnet = shears(lambda t0, t1, h: [
    ...     Shear("y", ("z",), lambda F, z: half(F, z, "f") * h),
    ...     Shear("z", ("y",), lambda F, y: half(F, y, "g") * h)])
    """
    if len(set(parts)) != len(parts) or not set(outputs) <= set(parts):
        raise ValueError(f"shears: parts={parts}, outputs={outputs}; parts are distinct names and outputs are among them")
    return UserMethod(step, tuple(parts), tuple(outputs), initial, twin, order)

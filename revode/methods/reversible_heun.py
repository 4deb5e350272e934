"""Reversible Heun: Heun's method with a second copy of the solution instead of a predictor."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .companion import Companion, TwoCopies
from .increment import Evaluator
from .shears import Parts, Shear, Step, Word, forward


@dataclass(frozen=True)
class ReversibleHeun(TwoCopies):
    """Reversible Heun: Heun's method with a second copy of the solution instead of a predictor.

        y <- y + F(t, z, dx)/2;     z <- -z + 2 y;     y <- y + F(t + h, z, dx)/2          z0 = y0

    Order 2 (for noise: Stratonovich). Stability: nowhere asymptotically stable; oscillation |h a| <= 1 on the imaginary axis.
    Pitfall: on contracting problems z separates from y.

    State: y, z. Cost: 1 evaluation a step, 1 evaluation and 1 pullback back, because the field at the end of a step is the
    field at the start of the next; two states.
    Source: Kidger, Foster, Li & Lyons 2021, arXiv 2105.13493 (there in the form z' = 2y - z + F(z), y' = y + (F(z) + F(z'))/2,
    the same map).

    Example
    -------
    >>> ReversibleHeun().order
    2
    """
    parts = ("y", "z")
    noise = True
    companion = Companion("the two copies of the solution, y and z,", D={"y": 1.0, "z": -1.0}, a={"y": 1.0, "z": 1.0}, b={"z": -1.0},
                          allowed=0.2, driven=1.0)
    base = "heun2"          # what Backsolve integrates the adjoint equation with
    order = 2
    error_order = 2
    symmetric = True

    def word(self, step: Step) -> Word:
        t0, t1, dx, _ = step
        return (Shear("y", ("z",), lambda F, z: F(t0, z, dx) * 0.5),
                Shear("z", ("y",), lambda F, y: 2.0 * y, scale=-1.0),
                Shear("y", ("z",), lambda F, z: F(t1, z, dx) * 0.5))

    def attempt(self, step: Step, parts: Parts, F: Evaluator) -> tuple[Parts, Any]:
        """The parts after the step, and its distance to Euler's method, which needs no evaluation of its own."""
        z, = F.read(("z",), parts)
        first = F(step.t0, z, step.dx)
        after = forward(self.word(step), parts, F)
        z, = F.read(("z",), after)
        return after, (F(step.t1, z, step.dx) - first) * 0.5

"""Symmetric composition: a symmetric method of order p run at three step sizes has order p + 2."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .companion import Companion
from .increment import Evaluator
from .protocol import Method, as_method
from .shears import Parts, Step, Word


def weights(order: int) -> list[float]:
    """The fractions of a step, in order: 3 for order 4, 9 for order 6."""
    if order == 2:
        return [1.0]
    g1 = 1.0 / (2.0 - 2.0 ** (1.0 / (order - 1)))
    inner = weights(order - 2)
    return [g * w for g in (g1, 1.0 - 2.0 * g1, g1) for w in inner]


@dataclass(frozen=True)
class Composition(Method):
    """A symmetric method of order p run at three step sizes, which has order p + 2.

        Phi_{g1 h} Phi_{g2 h} Phi_{g1 h},      g1 = 1 / (2 - 2^(1/(p+1))),  g2 = 1 - 2 g1

    Stability: oscillation to about h |a| = 2.85 for reversible Heun at order 4. Pitfalls: g2 < 0, a substep backwards in time; ALF
    and reversible Heun keep the raised order only where the step size is constant or changes smoothly (on steps that alternate
    5:1 it falls back to 2; Verlet keeps it).

    Parameters
    ----------
    method : AsynchronousLeapfrog(), ReversibleHeun() or VelocityVerlet().
    order : 4; with VelocityVerlet 6 and 8 as well, as the companion part of the other two is only accurate enough for 4.

    Raises ValueError for a method that is not symmetric, or an order that is not reached.

    State: of the method. Cost: three times the base for each raise of the order, forward and back; two states.
    Source: Yoshida 1990; Suzuki 1990.

    Example
    -------
    >>> from .leapfrog import VelocityVerlet
    >>> Composition(VelocityVerlet(), order=6).order
    6
    """
    method: Any
    order: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.method, type) or not as_method(self.method).symmetric:
            raise ValueError(f"Composition: {self.method!r} is not a symmetric second-order word, and composing it does not "
                             "raise its order; use AsynchronousLeapfrog(), ReversibleHeun() or VelocityVerlet()")
        if self.order not in (4, 6, 8):
            raise ValueError(f"Composition: order={self.order!r}; orders 4, 6 and 8 are offered")
        if self.order > 4 and len(self.method.outputs) < 2:
            raise ValueError(f"Composition: order={self.order} is reached by VelocityVerlet() only; {self.method!r} composed stays "
                             "at order 4, so use order=4")

    @property
    def parts(self) -> tuple[str, ...]:                                 # type: ignore[override]
        return self.method.parts

    @property
    def outputs(self) -> tuple[str, ...]:                               # type: ignore[override]
        return self.method.outputs

    @property
    def companion(self) -> Companion | None:
        return self.method.companion

    @property
    def composed(self) -> Any:
        return self.method

    def start(self, F: Evaluator, step: Step, y: Any) -> Parts:
        return self.method.start(F, step, y)

    def word(self, step: Step) -> Word:
        gammas = weights(self.order)
        h = step.t1 - step.t0
        times = [step.t0]
        for g in gammas[:-1]:
            times.append(times[-1] + g * h)
        times.append(step.t1)
        return [shear for g, (a, b) in zip(gammas, pairwise(times), strict=True)
                for shear in self.method.word(Step(a, b, g * step.dx, g * step.dx))]

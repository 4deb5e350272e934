"""Iterations to a fixed point z = f(z): records with the equation of one iteration.

    RevDEQ     y <- (1 - beta) y + beta f(z);    z <- (1 - beta) z + beta f(y)        y_0 = z_0
    Picard     z <- (1 - damping) z + damping f(z)
    Anderson   z <- sum_i w_i ((1 - damping) z_i + damping f(z_i)),    sum_i w_i = 1,
               w = argmin |sum_i w_i (f(z_i) - z_i)|^2                      over the last m iterates

The time of such a solve is the count of iterations. RevDEQ is a word of shears, so its inverse, its
pullback and its bit-exact form are those of every word; the value f(z_n) of the residual is shared
with the first shear that follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from ..methods.increment import Evaluator
from ..methods.protocol import Method
from ..methods.shears import Parts, Shear, Step, Word


def number_in(name: str, value: Any, low: float, high: float, what: str) -> float:
    """The number, or a ValueError (TypeError) that says what it should be: in (low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r}; {what}")
    if not (isfinite(value) and low < value <= high):
        raise ValueError(f"{name}={value!r}; {what}")
    return float(value)


@dataclass(frozen=True)
class RevDEQ(Method):
    """The reversible fixed-point iteration: two relaxed copies that take turns.

        y <- (1 - beta) y + beta f(z);    z <- (1 - beta) z + beta f(y)              y_0 = z_0

    For a map with |f(a) - f(b)| <= L |a - b|, L < 1, and beta < 2 / (1 + L): after n iterations the error is at most
    alpha^n times that of the start, alpha = |1 - beta| + beta L. A step back multiplies an error by up to
    ((1 + beta L) / (1 - beta))^2: beta = 0.5 keeps the way back open for some 16 iterations of float64, beta = 0.8 for few.

    Parameters
    ----------
    beta : the relaxation, in (0, 2) and not 1, at which the step back would divide by zero.

    Raises ValueError for another beta.

    Cost: 2 evaluations an iteration, 2 evaluations and 2 pullbacks in reverse; two states.
    Source: McCallum, Arora & Foster 2025 (arXiv 2509.12917), sections 3 and 4.

    Example
    -------
    >>> import numpy as np
    >>> from revode import fixed_point
    >>> fixed_point(lambda z, p, x: np.cos(z), np.ones(1), method=RevDEQ(0.5), tol=1e-10).z.round(6).tolist()
    [0.739085]
    """

    beta: float = 0.5
    parts = ("y", "z")
    outputs = ("z",)

    def __post_init__(self) -> None:
        what = "the relaxation is a number in (0, 2) other than 1, such as 0.5"
        if number_in("RevDEQ: beta", self.beta, 0.0, 2.0, what) in (1.0, 2.0):
            raise ValueError(f"RevDEQ: beta={self.beta!r}; {what}")
        object.__setattr__(self, "beta", float(self.beta))

    def start(self, F: Evaluator, step: Step, z: Any) -> Parts:
        return {"y": z, "z": z}

    def word(self, step: Step) -> Word:
        beta = self.beta
        return (
            Shear("y", ("z",), lambda F, z: beta * F.field(step.t0, z), scale=1 - beta),
            Shear("z", ("y",), lambda F, y: beta * F.field(step.t1, y), scale=1 - beta),
        )

    @property
    def reverse_growth(self) -> float:
        """What one reverse step makes of rounding, at least."""
        return 1.0 / (1.0 - self.beta) ** 2


@dataclass(frozen=True)
class Picard(Method):
    """Damped Picard iteration, z <- (1 - damping) z + damping f(z).

    Parameters
    ----------
    damping : in (0, 2); 1 is the plain iteration, and smaller values are calmer where f turns.

    Raises ValueError for another damping.

    Cost: 1 evaluation an iteration. It cannot be run backwards: Implicit, Phantom, Direct or Checkpointed.
    Source: Picard 1890; Banach 1922.

    Example
    -------
    >>> import numpy as np
    >>> from revode import fixed_point
    >>> fixed_point(lambda z, p, x: np.cos(z), np.ones(1), method=Picard(), tol=1e-10).z.round(6).tolist()
    [0.739085]
    """

    damping: float = 1.0
    parts = ("y",)
    outputs = ("y",)
    exactly_reversible = False
    reversible = False

    def __post_init__(self) -> None:
        what = "a number in (0, 2), such as 1 or 0.5"
        if number_in("Picard: damping", self.damping, 0.0, 2.0, what) == 2.0:
            raise ValueError(f"Picard: damping={self.damping!r}; {what}")

    def start(self, F: Evaluator, step: Step, z: Any) -> Parts:
        return {"y": z}

    def flow(self, F: Evaluator, t0: Any, t1: Any, z: Any, dx: Any) -> Any:
        """The next iterate."""
        f = F.field(t0, z)
        return f if self.damping == 1.0 else (1.0 - self.damping) * z + self.damping * f


@dataclass(frozen=True)
class Anderson(Method):
    """Anderson mixing of the last m iterates, with one set of weights for all entries (mixing.py has the step).

    Parameters
    ----------
    m : iterates that are mixed, 1 or more; each costs two states.
    damping : in (0, 1]; how much of f(z_i), and not of z_i, goes into the mixture.
    ridge : added to the least squares, relative to its trace: more is calmer, less is quicker.

    Raises ValueError for other numbers.

    Cost: 1 evaluation an iteration. Its next iterate depends on m earlier ones, so that no step can be run backwards or
    repeated alone: Implicit or Phantom gradients only.
    Source: Anderson 1965; Walker & Ni 2011, section 2.

    Example
    -------
    >>> import numpy as np
    >>> from revode import fixed_point
    >>> fixed_point(lambda z, p, x: np.cos(z), np.ones(1), method=Anderson(m=3), tol=1e-10).z.round(6).tolist()
    [0.739085]
    """

    m: int = 5
    damping: float = 1.0
    ridge: float = 1e-8
    parts = ("y",)
    outputs = ("y",)
    exactly_reversible = False
    reversible = False

    def __post_init__(self) -> None:
        if isinstance(self.m, bool) or not isinstance(self.m, int) or self.m < 1:
            raise ValueError(f"Anderson: m={self.m!r}; the number of iterates to mix, 1 or more")
        number_in("Anderson: damping", self.damping, 0.0, 1.0, "a number in (0, 1], 1 for none")
        number_in("Anderson: ridge", self.ridge, 0.0, 1.0, "a small positive number, such as 1e-8")

    def start(self, F: Evaluator, step: Step, z: Any) -> Parts:
        return {"y": z}

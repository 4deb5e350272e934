"""What a method carries besides the solution, and by how much it is off: data, for the monitor (watch).

A two-copy method moves the solution and a companion: a second copy (Coupled, reversible Heun), the velocity (ALF), the state
before (leapfrog). Without a field their gap D is multiplied by k in each step (`neutral`); with one, a step puts

    e = D_{n+1} - k D_n            into it,

which grows where the solution contracts, while the solution, the gradient and the round trip still look sound. D, the cotangent
a of the solution and the cotangent b of the gap are weighted sums of parts, or of their cotangents; nothing is evaluated.
Source: the linear part of each word: (1, 1) is its eigenvector for 1, and `b` reads along that for k.
"""
from __future__ import annotations

from math import log, prod
from typing import NamedTuple

from .protocol import Method
from .shears import Step, Word


class Companion(NamedTuple):
    """The weights of D and of the cotangents a and b in the parts of a method; `what` names the two in a sentence."""
    what: str
    D: dict[str, float]
    a: dict[str, float]
    b: dict[str, float]
    velocity: bool = False          # D is one: times h it is as large as y
    allowed: float = 0.03           # the largest gap, relative to y, that is no parting
    driven: float = 0.3             # the same under noise or a rough control, where the gap is O(sqrt(h))


def neutral(word: Word) -> float:
    """k: what a step makes of the gap where there is no field. 1/|k| is what a step back makes of rounding, at least."""
    return prod(shear.scale for shear in word)


class TwoCopies(Method):
    """A method whose companion follows the solution up to a limit."""

    @property
    def damping(self) -> float:
        """What a step leaves of the gap where there is no field: |k|."""
        return abs(neutral(self.word(Step(0.0, 1.0, 1.0, 1.0))))                    # type: ignore[attr-defined]

    @property
    def reverse_growth(self) -> float:
        """What one reverse step makes of rounding, at least."""
        return 1.0 / self.damping

    def contraction_limit(self, h: float) -> float:
        """The fastest contraction rate (1/time) that the companion follows at this step size; 0 without damping."""
        return 0.0 - log(self.damping) / h

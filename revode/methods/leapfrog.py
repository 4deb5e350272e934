"""Leapfrog methods: asynchronous (ALF, the scheme of MALI), the two-step midpoint rule, and the splitting methods."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .companion import Companion, TwoCopies
from .increment import Evaluator
from .protocol import Method
from .shears import Parts, Shear, Step, Swap, Word


@dataclass(frozen=True)
class AsynchronousLeapfrog(TwoCopies):
    """Asynchronous leapfrog (ALF), the scheme behind MALI: a velocity of its own makes the step reversible.

        y <- y + h/2 v;   v <- (1 - 2 eta) v + 2 eta f(t + h/2, y);   y <- y + h/2 v            v0 = f(t0, y0)

    Order 2; with eta < 1 order 1, with an error of (1 - eta) h (v follows f with a lag of (1 - eta) / (2 eta) h f').
    Stability: oscillation |h a| <= 1, nowhere asymptotically stable; eta < 1 follows contraction up to -ln(2 eta - 1)/h, and
    costs digits on the way back. No form for noise.

    Parameters
    ----------
    eta : the damping in (1/2, 1]; 1 for none, which preserves volume.

    Raises ValueError for another eta.

    State: y, v. Cost: 1 evaluation a step, 1 evaluation and 1 pullback back; two states.
    Source: Zhuang and others 2021 (MALI); Mutze 2013 (asynchronous leapfrog).

    Example
    -------
    >>> AsynchronousLeapfrog().order, AsynchronousLeapfrog(0.9).order
    (2, 1)
    """
    eta: float = 1.0
    parts = ("y", "v")
    companion = Companion("the velocity v and the field f(t, y), which it should follow,", D={"v": 1.0}, a={"y": 1.0}, b={"v": 1.0},
                          velocity=True)

    @property
    def order(self) -> int:
        return 2 if self.eta == 1.0 else 1

    def __post_init__(self) -> None:
        if not (isinstance(self.eta, (int, float)) and 0.5 < self.eta <= 1):
            raise ValueError(f"AsynchronousLeapfrog: eta={self.eta!r}; the damping is a number in (1/2, 1], 1 for none")
        object.__setattr__(self, "eta", float(self.eta))

    @property
    def symmetric(self) -> bool:                                        # type: ignore[override]
        return self.eta == 1.0

    def start(self, F: Evaluator, step: Step, y: Any) -> Parts:
        return {"y": y, "v": F.field(step.t0, y)}

    def word(self, step: Step) -> Word:
        t0, t1, h, _ = step
        eta = self.eta
        half = Shear("y", ("v",), lambda F, v: v * (0.5 * h))
        kick = Shear("v", ("y",), lambda F, y: F.field(t0 + 0.5 * (t1 - t0), y) * (2 * eta), scale=1 - 2 * eta)
        return half, kick, half


@dataclass(frozen=True)
class LeapfrogMidpoint(TwoCopies):
    """The two-step midpoint rule.

        y_{n+1} = y_{n-1} + (h_{n-1} + h_n) f(t_n, y_n)                    y_{-1} = y0 - h0 f(t0, y0)

    Order 2 on grids that vary smoothly, 1 on others. Stability: oscillation |h a| <= 1, nowhere asymptotically stable. Pitfall:
    on contracting problems the two interleaved solutions part. No form for noise.

    State: y_prev, y. Cost: 1 evaluation a step, 1 evaluation and 1 pullback back; two states.
    Source: Nystrom 1925; Hairer, Norsett & Wanner, Solving ODEs I, III.1.

    Example
    -------
    >>> LeapfrogMidpoint().parts
    ('y_prev', 'y')
    """
    parts = ("y_prev", "y")
    companion = Companion("the two interleaved solutions, y_prev and y,", D={"y": 1.0, "y_prev": -1.0}, a={"y": 1.0, "y_prev": 1.0},
                          b={"y": 0.5, "y_prev": -0.5})
    order = 2

    def start(self, F: Evaluator, step: Step, y: Any) -> Parts:
        return {"y_prev": y - F(step.t0, y, step.dx), "y": y}

    def word(self, step: Step) -> Word:
        t0, _, dx, dx_before = step
        return (Shear("y_prev", ("y",), lambda F, y: F(t0, y, dx_before + dx)),
                Swap("y_prev", "y"))


@dataclass(frozen=True)
class SemiImplicitEuler(Method):
    """Semi-implicit (symplectic) Euler for q'' = a(t, q, params): y0 = (q, v), and the field returns the acceleration a.

        v <- v + h a(t, q);   q <- q + h v          for a separable pair, q' = f(t, v) and v' = a(t, q):   q <- q + h f(t + h, v)

    Order 1. Stability: oscillation h w <= 2; energy stays within O(h). No form for noise.

    Parameters
    ----------
    velocity : f(t, v, params), shaped like v, for a pair where v is a momentum, say; None for f = v.

    Raises TypeError for a velocity that cannot be called, and in a solve with Backsolve(), which takes v for the velocity.

    State: q, v. Cost: 1 evaluation a step (one of `velocity` is not counted), 1 evaluation and 1 pullback back; two states.
    Source: Hairer, Lubich & Wanner 2003.

    Example
    -------
    >>> SemiImplicitEuler().outputs
    ('q', 'v')
    """
    velocity: Callable | None = None
    parts = outputs = ("q", "v")
    order = 1

    def __post_init__(self) -> None:
        if self.velocity is not None and not callable(self.velocity):
            raise TypeError(f"SemiImplicitEuler: velocity={self.velocity!r}; a function f(t, v, params), or None for v itself")

    def __repr__(self) -> str:
        of = "" if self.velocity is None else f"velocity={getattr(self.velocity, '__qualname__', type(self.velocity).__name__)}"
        return f"SemiImplicitEuler({of})"                       # no address: warnings stay the same

    def word(self, step: Step) -> Word:
        t0, t1, h, _ = step
        return (Shear("v", ("q",), lambda F, q: F(t0, q, h)),
                Shear("q", ("v",), lambda F, v: (v if self.velocity is None else F.other(self.velocity, t1, v)) * h))


@dataclass(frozen=True)
class VelocityVerlet(Method):
    """Velocity Verlet (Stormer's method) for q'' = a(t, q, params): y0 = (q, v), and the field returns the acceleration a.

        v <- v + h/2 a;   q <- q + h v;   v <- v + h/2 a

    Order 2. Stability: oscillation h w <= 2; energy stays within O(h^2). The method for second-order systems without friction.

    State: q, v. Cost: 1 evaluation a step, 1 evaluation and 1 pullback back; two states.
    Source: Hairer, Lubich & Wanner 2003.

    Example
    -------
    >>> VelocityVerlet().order
    2
    """
    parts = outputs = ("q", "v")
    order = 2
    symmetric = True

    def word(self, step: Step) -> Word:
        t0, t1, h, _ = step
        return (Shear("v", ("q",), lambda F, q: F(t0, q, h) * 0.5),
                Shear("q", ("v",), lambda F, v: v * h),
                Shear("v", ("q",), lambda F, q: F(t1, q, h) * 0.5))

"""Explicit and effectively symmetric methods, EES(n, m): order n, and Phi_{-h}(Phi_h(y)) = y + O(h^(m+1)).

    d <- A_i d + F(t + c_i h, y, dx);     y <- y + B_i d          i = 1 .. s      (low storage: y, d and the field's value)

Not exactly reversible: the reverse sweep takes y_n ~ Phi_{-h}(y_{n+1}), with the same increments negated, and pulls the
cotangent back through the forward step at that point. The reconstruction is off by O(h^m) in the end, so a high m makes
gradients that are exact in practice. Running the forward step again shows the defect r = y_{n+1} - Phi_h(y_n) for free;
adding it to y_n gains an order for each pass (`correct`).
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from math import isfinite, pi, sin, sqrt
from numbers import Real
from operator import add
from typing import Any

from ..conditions import error_weights
from .increment import Evaluator
from .protocol import Method
from .runge_kutta import RungeKutta


@dataclass(frozen=True)
class LowStorage(Method):
    """An effectively symmetric method in Williamson's form; made by EES25, EES27 and EES."""
    name: str
    A: tuple[float, ...]
    B: tuple[float, ...]
    order: int = 2
    reversal_order: int = 5       # m: one round trip is off by O(h^(m+1))
    correct: int = 0
    error_weights: tuple[float, ...] | None = None      # of the stage increments K_i; and of one more, at (t + h, y + K_1)
    noise = True
    exactly_reversible = False

    def __post_init__(self) -> None:
        check_correct(self.name, self.correct)

    def __repr__(self) -> str:
        return self.name

    @property
    def error_order(self) -> int | None:
        return 3 if self.error_weights else None

    @cached_property
    def c(self) -> tuple[float, ...]:
        """The stage times, which are what the scheme itself makes of the field f = 1."""
        times, y, d = [], 0.0, 0.0
        for a, b in zip(self.A, self.B, strict=True):
            times.append(y)
            d = a * d + 1.0
            y += b * d
        return tuple(times)

    def flow(self, F: Evaluator, t0: Any, t1: Any, y: Any, dx: Any, errors: list | None = None) -> Any:
        """y(t1) from y(t0)."""
        d: Any = None
        weights, terms, start = self.error_weights if errors is not None else None, [], y
        for i, (a, b, c) in enumerate(zip(self.A, self.B, self.c, strict=True)):
            K = F(t0 if c == 0.0 else t0 + c * (t1 - t0), y, dx)
            if weights is not None:
                terms.append(weights[i] * K)
                if i == 0 and len(weights) > len(self.A):
                    terms.append(weights[-1] * F(t1, start + K, dx))
            d = K if d is None else a * d + K
            y = y + b * d
        if errors is not None:
            errors.append(reduce(add, terms) if terms else None)
        return y


def named(name: str, given: str, correct: int) -> str:
    """How a method was made."""
    return f"{name}({', '.join(filter(None, (given, f'correct={correct}' if correct else '')))})"


def check_correct(name: str, correct: Any) -> None:
    if not isinstance(correct, int) or correct < 0:
        raise ValueError(f"{name}: correct={correct!r}; the number of correction passes in the reverse sweep, 0 or more")


def EES25(x: float = 0.1, correct: int = 0) -> LowStorage:
    """EES(2,5;x), the effectively symmetric method of three stages.

        d <- A_i d + h f(y);     y <- y + B_i d          i = 1 .. 3

    Order 2, reversal order 5: Phi_{-h}(Phi_h(y)) = y + O(h^6). Stability: real axis to 3.09, imaginary {0}.

    Parameters
    ----------
    x : the free number of the family, not 1 or +-1/2; 1/10 removes the bushy error of order 3, 1/4 is the other one in use.
    correct : correction passes on the way back; each gains an order, for s evaluations a step.

    Returns a method. Raises TypeError or ValueError for an x that makes none.

    State: y. Cost: 3 evaluations a step; 5 evaluations and 3 pullbacks back; two states.
    Source: Shmelev & Salvi 2025, arXiv 2507.21006 and 2509.20599; low storage: Williamson 1980.

    Example
    -------
    >>> EES25().reversal_order
    5
    """
    if not isinstance(x, Real):
        raise TypeError(f"EES25: x={x!r}; give a number, such as 0.1")
    x = float(x)
    if x in (1.0, 0.5, -0.5) or not isfinite(x):
        raise ValueError(f"EES25: x={x!r} makes a coefficient infinite; take x = 0.1, or any number but 1, 1/2 and -1/2")
    b = (x, 0.5, 0.5 - x)
    a21 = (1 + 2 * x) / (4 * (1 - x))
    a32 = (1 - x) / (1 - 4 * x * x)
    # Williamson's form of the tableau: B_1 = a21, B_2 = a32, B_3 = b_3; A_2 and A_3 from b_2 and b_1.
    B = (a21, a32, b[2])
    A3 = (b[1] - B[1]) / b[2]
    A2 = (b[0] - B[0]) / b[1]
    error = (1 / 5, -1 / 3, 2 / 15) if abs(x - 0.1) < 1e-15 else None
    return LowStorage(named("EES25", f"x={x:g}", correct), (0.0, A2, A3), B, 2, 5, correct, error)


def EES27(correct: int = 0) -> LowStorage:
    """EES(2,7), the effectively symmetric method of four stages, x* = (5 - 3 sqrt 2) / 14, the branch that is more stable.

    Order 2, reversal order 7: Phi_{-h}(Phi_h(y)) = y + O(h^8). Stability: real axis to 3.92, imaginary {0}.

    Parameters
    ----------
    correct : correction passes on the way back; each gains an order, for s evaluations a step.

    Returns a method. Raises ValueError for a number of passes that is none.

    State: y. Cost: 4 evaluations a step; 7 evaluations and 4 pullbacks back; two states.
    Source: Shmelev & Salvi 2025, arXiv 2507.21006; low storage: Williamson 1980.

    Example
    -------
    >>> EES27().reversal_order
    7
    """
    r = sqrt(2.0)
    return LowStorage(named("EES27", "", correct), (0.0, (4 * r - 7) / 3, -(4 + 5 * r) / 12, 3 * (8 * r - 31) / 49),
                      ((2 - r) / 3, (4 + r) / 8, 3 * (3 - r) / 7, (9 - 4 * r) / 14), 2, 7, correct)


def EES(stages: int, correct: int = 0) -> LowStorage:
    """EES(2, 2s-1), the trigonometric family: s = 4 to 6 gives gradients exact in practice.

        A_{i+1} = -sin((2i-1) theta) / sin((2i+1) theta),   B_i = 2 sin(theta) sin((2i-1) theta),   B_s = sin(theta)^2

    with theta = pi / (2s), in the low-storage form of EES25: a restarted, smoothed leapfrog. Order 2, reversal order 2s - 1.
    Stability: real axis to 3.92 (s = 4), 5.81 (s = 6); imaginary {0}, with a growth that is small. With a controller, from s = 3 on,
    one more evaluation estimates the error to leading order.

    Parameters
    ----------
    stages : s, from 2 to 12.
    correct : correction passes on the way back; each gains an order, for s evaluations a step.

    Returns a method. Raises ValueError for another number of stages or passes.

    State: y. Cost: s evaluations a step; 2s - 1 evaluations and s pullbacks back; two states.
    Source: found for this library, after Shmelev & Salvi 2025, arXiv 2507.21006; chapter 09 of the book derives it.

    Example
    -------
    >>> EES(stages=4).reversal_order
    7
    """
    if not isinstance(stages, int) or not 2 <= stages <= 12:
        raise ValueError(f"EES: stages={stages!r}; a whole number from 2 to 12")

    def sine(k: int) -> float:
        return sin(min(k, 2 * stages - k) * pi / (2 * stages))        # sin(pi - x) = sin(x), without its loss of digits

    A = (0.0, *(-sine(2 * i - 1) / sine(2 * i + 1) for i in range(1, stages)))
    B = (*(2 * sine(1) * sine(2 * i - 1) for i in range(1, stages)), sine(1) ** 2)
    return LowStorage(named("EES", f"stages={stages}", correct), A, B, 2, 2 * stages - 1, correct, error_weights(A, B))


@dataclass(frozen=True)
class NearReversible(RungeKutta):
    """Any explicit Runge-Kutta method run backwards as if it were reversible; of rk4, the default.

        back:  y_n ~ Phi_{-h}(y_{n+1}),  and the cotangent is pulled back through Phi_h at that point

    Order: of the base. Reversal: one round trip is off by O(h^(m+1)), m = p + 1 for even p (rk4: 5), else p; the default
    gradient falls back to checkpoints where that is too much. Stability: of the base. Pitfall: the way back of a contracting
    problem expands whatever error it has.

    Parameters
    ----------
    base : euler, midpoint, heun2, ralston3, bosh3, rk4, dopri5, tsit5, or a Tableau.
    correct : correction passes on the way back; each gains an order, for s evaluations a step.

    Raises ValueError as RungeKutta, and for a number of passes that is none.

    State: y. Cost: s evaluations a step; 2s - 1 evaluations and s pullbacks back; two states.
    Source: the reversal of tableaux as a baseline, Shmelev & Salvi 2025, arXiv 2507.21006.

    Example
    -------
    >>> NearReversible("rk4").reversal_order
    5
    """
    correct: int = 0
    reversible = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_correct("NearReversible", self.correct)

    @property
    def reversal_order(self) -> int:
        """m >= p, and p + 1 for even p; the tableaux named here of order 1 and 3 have 1 and 3."""
        return self.order + (self.order % 2 == 0)

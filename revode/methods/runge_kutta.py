"""Explicit Runge-Kutta methods: tableaux as data, and the increment Psi that the coupled methods are built on.

Written in increments (F = f h), so that the same lines serve noise and controls.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as Q
from functools import cached_property
from typing import Any, NamedTuple

from ..conditions import check_order
from .increment import Increment
from .protocol import Method


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method as data.

        K_i = h f(t + c_i h, y + sum_j a_ij K_j),      y(t + h) ~ y + sum_i b_i K_i

    Parameters
    ----------
    name : in messages.
    order : of convergence; checked against the order conditions when a method is made of it.
    a : rows below the diagonal; numbers or fractions.
    b : weights.
    c : nodes, as fractions of a step.
    b_error : weights of the embedded method of lower order; None without an error estimate.

    Source: Butcher 1964.

    Example
    -------
    >>> euler = Tableau("my euler", 1, a=((),), b=(1.0,), c=(0.0,))
    >>> RungeKutta(euler).order
    1
    """
    name: str
    order: int
    a: tuple[tuple[Any, ...], ...]
    b: tuple[Any, ...]
    c: tuple[Any, ...]
    b_error: tuple[Any, ...] | None = None

    def __repr__(self) -> str:
        return repr(self.name)


def _tableau(name: str, order: int, a: tuple, b: tuple, b_error: tuple | None = None, c: tuple | None = None) -> Tableau:
    return Tableau(name, order, a, b, c or tuple(sum(row, Q(0)) for row in a), b_error)


TABLEAUX = {tableau.name: tableau for tableau in (
    _tableau("euler", 1, ((),), (Q(1),)),
    _tableau("midpoint", 2, ((), (Q(1, 2),)), (Q(0), Q(1)), (Q(1), Q(0))),
    _tableau("heun2", 2, ((), (Q(1),)), (Q(1, 2), Q(1, 2)), (Q(1), Q(0))),
    _tableau("ralston3", 3, ((), (Q(1, 2),), (Q(0), Q(3, 4))), (Q(2, 9), Q(1, 3), Q(4, 9))),
    _tableau("bosh3", 3, ((), (Q(1, 2),), (Q(0), Q(3, 4)), (Q(2, 9), Q(1, 3), Q(4, 9))),
             (Q(2, 9), Q(1, 3), Q(4, 9), Q(0)), (Q(7, 24), Q(1, 4), Q(1, 3), Q(1, 8))),
    _tableau("rk4", 4, ((), (Q(1, 2),), (Q(0), Q(1, 2)), (Q(0), Q(0), Q(1))), (Q(1, 6), Q(1, 3), Q(1, 3), Q(1, 6))),
    _tableau("dopri5", 5, (
        (), (Q(1, 5),), (Q(3, 40), Q(9, 40)), (Q(44, 45), Q(-56, 15), Q(32, 9)),
        (Q(19372, 6561), Q(-25360, 2187), Q(64448, 6561), Q(-212, 729)),
        (Q(9017, 3168), Q(-355, 33), Q(46732, 5247), Q(49, 176), Q(-5103, 18656)),
        (Q(35, 384), Q(0), Q(500, 1113), Q(125, 192), Q(-2187, 6784), Q(11, 84))),
        (Q(35, 384), Q(0), Q(500, 1113), Q(125, 192), Q(-2187, 6784), Q(11, 84), Q(0)),
        (Q(5179, 57600), Q(0), Q(7571, 16695), Q(393, 640), Q(-92097, 339200), Q(187, 2100), Q(1, 40))),
)}

_TSIT5_B = (.09646076681806523, .01, .4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.)
_TSIT5_DIFFERENCE = (-.00178001105222577714, -.0008164344596567469, .007880878010261995, -.1447110071732629,
                     .5823571654525552, -.45808210592918697, 1 / 66)
TABLEAUX["tsit5"] = _tableau("tsit5", 5, (
    (), (.161,), (-.008480655492356989, .335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -.071584973281401, -.028269050394068383),
    _TSIT5_B[:6]), _TSIT5_B, tuple(b + d for b, d in zip(_TSIT5_B, _TSIT5_DIFFERENCE, strict=True)),
    (0., .161, .327, .9, .9800255409045097, 1., 1.))


def tableau(base: str | Tableau) -> Tableau:
    """The tableau of this name, or the tableau itself."""
    if isinstance(base, Tableau):
        return base
    if not isinstance(base, str) or base not in TABLEAUX:
        raise ValueError(f"unknown Runge-Kutta method {base!r}; known are {', '.join(TABLEAUX)}, or pass a Tableau")
    return TABLEAUX[base]


def check_base(base: Any) -> None:
    """Refuse a name that is not known, and a tableau that is not explicit or has not the order that it states."""
    tab = tableau(base)
    if base is not tab:
        return
    stages, rows = len(tab.b), [len(row) for row in tab.a]
    if len(tab.c) != stages or any(n > i for i, n in enumerate(rows)) or len(rows) != stages:
        raise ValueError(f"tableau {tab.name!r}: an explicit method has {stages} rows for {stages} weights, row i with at "
                         f"most i entries; got rows of {rows} entries and {len(tab.c)} nodes")
    check_order(*tab)


def increment_of(base: str | Tableau) -> Callable:
    """Psi(F, t0, t1, y, dx): the increment of one step from (t0, y) to t1; dx belongs to the interval [t0, t1].

    With a list `errors`, the difference to the embedded method is appended to it (one more stage for some pairs).
    """
    tab = tableau(base)
    rows = [(float(c), [(float(a), j) for j, a in enumerate(row) if a]) for c, row in zip(tab.c, tab.a, strict=True)]
    weights = [(float(b), i) for i, b in enumerate(tab.b) if b]
    needed = rows[:weights[-1][1] + 1]           # the last stage of a pair may serve the error alone
    error = [(float(b - e), i) for i, (b, e) in enumerate(zip(tab.b, tab.b_error or tab.b, strict=True)) if b != e]

    def psi(F: Increment, t0: Any, t1: Any, y: Any, dx: Any, errors: list | None = None) -> Any:
        K: list = []
        for c, row in needed if errors is None else rows:
            t = t0 if c == 0.0 else t1 if c == 1.0 else t0 + c * (t1 - t0)
            K.append(F(t, combine(y, row, K), dx))
        if errors is not None:
            errors.append(combine(None, error, K))
        return combine(None, weights, K)

    return psi


def combine(y: Any, terms: list[tuple[float, int]], K: list) -> Any:
    """y + sum of weight * K[j], from left to right."""
    for weight, j in terms:
        term = K[j] if weight == 1.0 else weight * K[j]
        y = term if y is None else y + term
    return y


class OnTableau(Method):
    """A method that is made of the increments of a tableau, `base`."""
    base: Any

    def __post_init__(self) -> None:
        check_base(self.base)

    @property
    def order(self) -> int:                                             # type: ignore[override]
        return tableau(self.base).order

    @property
    def error_order(self) -> int | None:                                # type: ignore[override]
        return self.order if tableau(self.base).b_error else None

    @cached_property
    def psi(self) -> Callable:
        return increment_of(self.base)


@dataclass(frozen=True)
class RungeKutta(OnTableau):
    """A plain explicit Runge-Kutta method: the irreversible baseline, for Direct and Checkpointed gradients.

        K_i = F(t + c_i h, y + sum_j a_ij K_j),      y(t + h) ~ y + sum_i b_i K_i

    Order: of the tableau. Stability on y' = a y: up to h |a| = 2.79 on the real axis and 2.83 on the imaginary one for rk4.

    Parameters
    ----------
    base : euler, midpoint, heun2, ralston3, bosh3, rk4, dopri5, tsit5, or a Tableau.

    Raises ValueError for a name that is not known, and for a tableau that is not explicit or has not its order.

    State: y. Cost: s evaluations a step; back, by a tape, s pullbacks and as many states as there are steps.
    Source: Butcher's tables; Ralston 1962; Bogacki & Shampine 1989; Dormand & Prince 1980; Tsitouras 2011, table 1.

    Example
    -------
    >>> RungeKutta("rk4").order
    4
    """
    base: str | Tableau = "rk4"
    noise = True
    exactly_reversible = False
    reversible = False

    def flow(self, F: Increment, t0: Any, t1: Any, y: Any, dx: Any, errors: list | None = None) -> Any:
        """y(t1) from y(t0)."""
        return y + self.psi(F, t0, t1, y, dx, errors)

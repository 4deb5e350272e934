"""Explicit Runge-Kutta methods as data: the tables of Butcher and others, by name."""
from __future__ import annotations

from fractions import Fraction as Q
from typing import Any, NamedTuple


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
    >>> from .runge_kutta import RungeKutta
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

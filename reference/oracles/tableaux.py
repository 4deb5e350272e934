"""Explicit Butcher tableaux, exact.

    k_i = f(t + c_i h, y + h sum_{j<i} a_ij k_j)
    Psi_h(t, y) = h sum_i b_i k_i,   error = h sum_i (b_i - bhat_i) k_i

Every entry is a `fractions.Fraction`. Seven methods are rational and satisfy their order conditions exactly;
Tsit5 is published as decimals of 16 digits and satisfies them to 1.1e-15 (`exact` is False).

Sources
    euler, midpoint, heun2, rk4   Hairer, Norsett & Wanner (HNW), Solving ODEs I, 2nd ed., II.1
    ralston3   Ralston, Math. Comp. 16 (1962) 431
    bosh3      Bogacki & Shampine, Appl. Math. Lett. 2 (1989) 321
    dopri5     Dormand & Prince, J. Comput. Appl. Math. 6 (1980) 19; HNW I, table II.5.2
    tsit5      Tsitouras, Comput. Math. Appl. 62 (2011) 770, table 1: c, b and a_ij for j > 1; the first
               column follows from the row sums. What it calls bhat are error weights, and with the last of
               them printed as 1/66 they do not sum to zero; with -1/66 they do, to all digits, and satisfy
               every condition up to order 4. The conditions do not tell b - bhat from bhat - b.
"""
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple


class Tableau(NamedTuple):
    """A (s rows of s entries, strictly lower triangular), b and c (s entries), bhat (s entries or None)."""

    name: str
    A: tuple
    b: tuple
    c: tuple
    order: int
    bhat: tuple | None = None
    order_hat: int | None = None
    exact: bool = True


def _fractions(text: str) -> tuple:
    return tuple(Fraction(word) for word in text.split())


def _square(rows: list) -> tuple:
    return tuple(tuple(row) + (Fraction(0),) * (len(rows) - len(row)) for row in rows)


def _tableau(name: str, c: str, a: list, b: str, order: int, bhat: str | None = None,
             order_hat: int | None = None) -> Tableau:
    """`a` holds the rows from the second stage on, each without its zeros on and above the diagonal."""
    A = _square([()] + [_fractions(row) for row in a])
    return Tableau(name, A, _fractions(b), _fractions(c), order, bhat and _fractions(bhat), order_hat)


euler = _tableau("euler", "0", [], "1", 1)
midpoint = _tableau("midpoint", "0 1/2", ["1/2"], "0 1", 2)
heun2 = _tableau("heun2", "0 1", ["1"], "1/2 1/2", 2)
ralston3 = _tableau("ralston3", "0 1/2 3/4", ["1/2", "0 3/4"], "2/9 1/3 4/9", 3)
bosh3 = _tableau("bosh3", "0 1/2 3/4 1", ["1/2", "0 3/4", "2/9 1/3 4/9"], "2/9 1/3 4/9 0", 3,
                 "7/24 1/4 1/3 1/8", 2)
rk4 = _tableau("rk4", "0 1/2 1/2 1", ["1/2", "0 1/2", "0 0 1"], "1/6 1/3 1/3 1/6", 4)
dopri5 = _tableau(
    "dopri5", "0 1/5 3/10 4/5 8/9 1 1",
    ["1/5",
     "3/40 9/40",
     "44/45 -56/15 32/9",
     "19372/6561 -25360/2187 64448/6561 -212/729",
     "9017/3168 -355/33 46732/5247 49/176 -5103/18656",
     "35/384 0 500/1113 125/192 -2187/6784 11/84"],
    "35/384 0 500/1113 125/192 -2187/6784 11/84 0", 5,
    "5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40", 4)


def _tsit5() -> Tableau:
    c = _fractions("0 0.161 0.327 0.9 0.9800255409045097 1 1")
    b = _fractions("0.09646076681806523 0.01 0.4798896504144996 1.379008574103742 "
                   "-3.290069515436081 2.324710524099774 0")
    error = _fractions("0.001780011052225777 0.0008164344596567469 -0.007880878010261995 0.1447110071732629 "
                       "-0.5823571654525552 0.4580821059291870 -1/66")
    beyond_first_column = [_fractions(row) for row in (
        "",
        "0.3354806554923570",
        "-6.359448489975075 4.362295432869581",
        "-11.74888356406283 7.495539342889836 -0.09249506636175525",
        "-12.92096931784711 8.159367898576159 -0.07158497328140100 -0.02826905039406838")]
    rows = [(c_i - sum(row), *row) for c_i, row in zip(c[1:6], beyond_first_column, strict=True)]
    bhat = tuple(b_i - e_i for b_i, e_i in zip(b, error, strict=True))
    return Tableau("tsit5", _square([(), *rows, b[:6]]), b, c, 5, bhat, 4, exact=False)


tsit5 = _tsit5()

TABLEAUX = {t.name: t for t in (euler, midpoint, heun2, ralston3, bosh3, rk4, dopri5, tsit5)}


def numbers(tableau: Tableau, number: Callable) -> Tableau:
    """The tableau with `number` (float, mpmath.mpf, ...) applied to every coefficient."""
    def row(entries):
        return None if entries is None else tuple(
            number(x.numerator) / number(x.denominator) for x in entries)
    return tableau._replace(A=tuple(row(r) for r in tableau.A), b=row(tableau.b), c=row(tableau.c),
                            bhat=row(tableau.bhat))

"""Explicit Runge-Kutta methods (tableaux.py), and the increment Psi that the coupled methods are built on.

Written in increments (F = f h), so that the same lines serve noise and controls.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..conditions import check_order
from .increment import Evaluator
from .protocol import Method
from .tableaux import Tableau, tableau


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

    def psi(F: Evaluator, t0: Any, t1: Any, y: Any, dx: Any, errors: list | None = None) -> Any:
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

    def __getstate__(self) -> dict:
        return {name: x for name, x in vars(self).items() if name != "psi"}              # which no pickle takes; it is made anew


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

    def flow(self, F: Evaluator, t0: Any, t1: Any, y: Any, dx: Any, errors: list | None = None) -> Any:
        """y(t1) from y(t0)."""
        return y + self.psi(F, t0, t1, y, dx, errors)

"""Any explicit Runge-Kutta method made reversible by coupling two copies of the solution."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .companion import Companion, TwoCopies
from .increment import Evaluator
from .runge_kutta import OnTableau
from .shears import Parts, Shear, Step, Word, forward
from .tableaux import Tableau


@dataclass(frozen=True)
class Coupled(TwoCopies, OnTableau):
    """Any explicit Runge-Kutta method made reversible by coupling two copies of the solution.

        y' = lam y + (1 - lam) z + Psi_h(t, z)             Psi: the increment of the base method
        z' = z - Psi_{-h}(t + h, y')                       z0 = y0

    Order: that of the base, for every lam in (0, 1]. Stability: near 0 on the negative axis |h a| < about -ln(lam), so
    oscillation is fine and contraction is the problem; lam = 1 is never asymptotically stable. Pitfall: where the solution
    contracts faster than -ln(lam)/h, the pair y, z separates and the reverse sweep expands.

    Parameters
    ----------
    base : euler, midpoint, heun2, ralston3, bosh3, rk4, dopri5, tsit5, or a Tableau.
    lam : the coupling in (0, 1]: towards 1 the reverse sweep is stable, away from 1 the forward solve is. "auto" has solve()
        ask the advisor, which costs a solve by the base and 8 evaluations a step, each time; for training, ask it once.

    Raises ValueError for a base that is not known, or a lam outside (0, 1].

    State: y, z. Cost for s stages: 2s evaluations a step; 2s evaluations and 2s pullbacks back; two states.
    Source: McCallum & Foster 2024, arXiv 2410.11648.

    Example
    -------
    >>> Coupled("rk4", lam=0.99).order, round(Coupled("rk4", lam=0.99).contraction_limit(0.1), 4)
    (4, 0.1005)
    """
    base: str | Tableau = "midpoint"
    lam: Any = 0.999
    parts = ("y", "z")
    noise = True
    companion = Companion("the two copies of the solution, y and z,", D={"y": 1.0, "z": -1.0}, a={"y": 1.0, "z": 1.0}, b={"y": 1.0})

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.lam, str) and self.lam == "auto":
            return
        if not (isinstance(self.lam, (int, float)) and 0 < self.lam <= 1):
            raise ValueError(f"Coupled: lam={self.lam!r}; the coupling is a number in (0, 1], such as 0.999, or 'auto'")
        object.__setattr__(self, "lam", float(self.lam))

    def word(self, step: Step, errors: list | None = None) -> Word:
        t0, t1, dx, _ = step
        psi = self.psi
        return (Shear("y", ("z",), lambda F, z: psi(F, t0, t1, z, dx), scale=self.lam, about="z"),
                Shear("z", ("y",), lambda F, y: -psi(F, t1, t0, y, -dx, errors)))

    def attempt(self, step: Step, parts: Parts, F: Evaluator) -> tuple[Parts, Any]:
        """The parts after the step, and the embedded error of the second base call."""
        errors: list = []
        return forward(self.word(step, errors), parts, F), errors[0]

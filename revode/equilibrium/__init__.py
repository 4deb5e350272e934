"""Equilibrium models: z = f(z, params, x) by iteration, and its gradients.

relaxation.py   one iteration of each method: RevDEQ, Picard, Anderson
mixing.py       Anderson's next iterate
iterate.py      fixed_point: the stop rule, the checks, the gradient modes of a solve
implicit.py     Implicit and Phantom: gradients without the iterations
"""

from .implicit import Implicit, Phantom
from .iterate import ConvergenceError, ConvergenceWarning, FixedPoint, fixed_point
from .relaxation import Anderson, Picard, RevDEQ

__all__ = [
    "Anderson",
    "ConvergenceError",
    "ConvergenceWarning",
    "FixedPoint",
    "Implicit",
    "Phantom",
    "Picard",
    "RevDEQ",
    "fixed_point",
]

"""Equilibrium models: z = f(z, params, x) by iteration, and its gradients.

relaxation.py   one iteration of each method: RevDEQ, Picard, Anderson
mixing.py       Anderson's next iterate
iterate.py      fixed_point, with the gradient modes of a solve
iterations.py   the iteration as a problem of marching, and its stop rule
maps.py         the map as a field, and the checks
words.py        what goes wrong, in the words of an iteration
implicit.py     Implicit and Phantom: gradients without the iterations
"""

from .implicit import Implicit, Phantom
from .iterate import FixedPoint, fixed_point
from .relaxation import Anderson, Picard, RevDEQ
from .words import ConvergenceError, ConvergenceWarning

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

"""Methods. Each is a small frozen record; protocol.py says what the library asks of one, and what it takes for granted.

    parts, outputs        the names of the state's parts, and of those that are the solution y
    start(F, step, y0)    the initial parts; differentiated like everything else
    word(step)            the shears of one step (shears.py). A method without a word, such as RungeKutta, has
                          flow(F, t0, t1, y, dx) -> y(t1) instead, and can be run backwards nearly, or not at all.
"""
from .composition import Composition
from .coupled import Coupled
from .custom import shears
from .effectively_symmetric import EES, EES25, EES27, NearReversible
from .leapfrog import AsynchronousLeapfrog, LeapfrogMidpoint, SemiImplicitEuler, VelocityVerlet
from .reversible_heun import ReversibleHeun
from .runge_kutta import RungeKutta
from .shears import Shear, Swap
from .tableaux import TABLEAUX, Tableau

__all__ = ["EES", "EES25", "EES27", "TABLEAUX", "AsynchronousLeapfrog", "Composition", "Coupled", "LeapfrogMidpoint",
          "NearReversible", "ReversibleHeun",
           "RungeKutta", "SemiImplicitEuler", "Shear", "Swap", "Tableau", "VelocityVerlet", "shears"]

"""Gradient modes, side by side. Each is a frozen record with one method of one signature:

    solve(problem, initial, params) -> ((ys, parts), pull),    pull((a_ys, a_parts)) -> (a_initial, a_params)

ys: the saved outputs, time first, one array for each output of the method; parts: the final state.
"""
from .automatic import Automatic
from .backsolve import Backsolve
from .checkpointed import Checkpointed
from .direct import Direct
from .reversible import Reversible
from .symplectic import SymplecticAdjoint

__all__ = ["Automatic", "Backsolve", "Checkpointed", "Direct", "Reversible", "SymplecticAdjoint"]

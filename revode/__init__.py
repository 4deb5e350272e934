"""revode: reversible backpropagation through differential equations, on NumPy, from first principles.

    sol = rv.solve(field, y0, ts, params, method=rv.Coupled("midpoint"), gradient=rv.Reversible())
    value, grads = rv.value_and_grad(loss)(params)

This file is the table of contents; the engine is in engine/, the methods in methods/, the gradient modes in gradients/.
A public name is imported when it is asked for, so that `import revode` costs next to nothing.
"""
from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import nn, optim, parallel
    from .adaptive import PID
    from .advise import Advice, advise
    from .archive import load, save
    from .certify import Certificate, certify
    from .engine import Tensor, check_vjp, custom_vjp, grad, jvp, stop_gradient, tree, value_and_grad, vjp
    from .equilibrium import (
        Anderson,
        ConvergenceError,
        ConvergenceWarning,
        FixedPoint,
        Implicit,
        Phantom,
        Picard,
        RevDEQ,
        fixed_point,
    )
    from .events import Event, event
    from .exact import Lattice
    from .export import export_c
    from .gradients import Automatic, Backsolve, Checkpointed, Direct, Reversible, SymplecticAdjoint
    from .jacobians import hessian, hvp, jacobian
    from .methods import (
        EES,
        EES25,
        EES27,
        AsynchronousLeapfrog,
        Composition,
        Coupled,
        LeapfrogMidpoint,
        NearReversible,
        ReversibleHeun,
        RungeKutta,
        SemiImplicitEuler,
        Shear,
        Swap,
        Tableau,
        VelocityVerlet,
        shears,
    )
    from .paths import Brownian, BrownianTree, HermiteCubic, LinearPath, Rectilinear
    from .solve import Solution, solve, steps, steps_back
    from .stepping import State, Stats
    from .watch import (
        AdjointError,
        AdjointWarning,
        NonFiniteError,
        NonFiniteWarning,
        ParasiteError,
        ParasiteWarning,
        ReconstructionError,
        ReconstructionWarning,
        RevodeWarning,
        RoundTrip,
        StabilityError,
        StabilityWarning,
    )

__version__ = "0.1.0"

# Where each public name is made: the imports above, once more, for those who run this and check no types.
PLACES = {
    "adaptive": "PID",
    "advise": "Advice advise",
    "archive": "load save",
    "certify": "Certificate certify",
    "engine": "Tensor check_vjp custom_vjp grad jvp stop_gradient tree value_and_grad vjp",
    "equilibrium": (
        "Anderson ConvergenceError ConvergenceWarning FixedPoint Implicit "
        "Phantom Picard RevDEQ fixed_point"
    ),
    "events": "Event event",
    "exact": "Lattice",
    "export": "export_c",
    "gradients": "Automatic Backsolve Checkpointed Direct Reversible SymplecticAdjoint",
    "jacobians": "hessian hvp jacobian",
    "methods": (
        "EES EES25 EES27 AsynchronousLeapfrog Composition Coupled "
        "LeapfrogMidpoint NearReversible ReversibleHeun RungeKutta "
        "SemiImplicitEuler Shear Swap Tableau VelocityVerlet shears"
    ),
    "paths": "Brownian BrownianTree HermiteCubic LinearPath Rectilinear",
    "solve": "Solution solve steps steps_back",
    "stepping": "State Stats",
    "watch": (
        "AdjointError AdjointWarning NonFiniteError NonFiniteWarning ParasiteError "
        "ParasiteWarning ReconstructionError ReconstructionWarning RevodeWarning "
        "RoundTrip StabilityError StabilityWarning"
    ),
}
HOME = {name: place for place, names in PLACES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A public name, or a module of the package, when it is asked for the first time."""
    if name in HOME:
        found = getattr(import_module(f".{HOME[name]}", __name__), name)
        globals()[name] = found
        return found
    if not name.startswith("_"):
        try:
            return import_module(f".{name}", __name__)
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class Package(ModuleType):
    """Of names that are a function as well as the module that it is made in (solve, advise), the function is meant."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package

__all__ = [
    "EES",
    "EES25",
    "EES27",
    "PID",
    "AdjointError",
    "AdjointWarning",
    "Advice",
    "Anderson",
    "AsynchronousLeapfrog",
    "Automatic",
    "Backsolve",
    "Brownian",
    "BrownianTree",
    "Certificate",
    "Checkpointed",
    "Composition",
    "ConvergenceError",
    "ConvergenceWarning",
    "Coupled",
    "Direct",
    "Event",
    "FixedPoint",
    "HermiteCubic",
    "Implicit",
    "Lattice",
    "LeapfrogMidpoint",
    "LinearPath",
    "NearReversible",
    "NonFiniteError",
    "NonFiniteWarning",
    "ParasiteError",
    "ParasiteWarning",
    "Phantom",
    "Picard",
    "ReconstructionError",
    "ReconstructionWarning",
    "Rectilinear",
    "RevDEQ",
    "Reversible",
    "ReversibleHeun",
    "RevodeWarning",
    "RoundTrip",
    "RungeKutta",
    "SemiImplicitEuler",
    "Shear",
    "Solution",
    "StabilityError",
    "StabilityWarning",
    "State",
    "Stats",
    "Swap",
    "SymplecticAdjoint",
    "Tableau",
    "Tensor",
    "VelocityVerlet",
    "advise",
    "certify",
    "check_vjp",
    "custom_vjp",
    "event",
    "export_c",
    "fixed_point",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "load",
    "nn",
    "optim",
    "parallel",
    "save",
    "shears",
    "solve",
    "steps",
    "steps_back",
    "stop_gradient",
    "tree",
    "value_and_grad",
    "vjp",
]

"""revode: reversible backpropagation through differential equations, on NumPy, from first principles.

    sol = rv.solve(field, y0, ts, params, method=rv.Coupled("midpoint"), gradient=rv.Reversible())
    value, grads = rv.value_and_grad(loss)(params)

This file is the table of contents; the engine is in engine/, the methods in methods/, the gradient modes in gradients/.
"""
from . import nn, optim
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
from .exact import Lattice
from .gradients import Automatic, Backsolve, Checkpointed, Direct, Reversible
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
    "Tableau",
    "Tensor",
    "VelocityVerlet",
    "advise",
    "certify",
    "check_vjp",
    "custom_vjp",
    "fixed_point",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "load",
    "nn",
    "optim",
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

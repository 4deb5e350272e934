"""What goes wrong with a fixed point, in the words of an iteration: there are no times, steps or equations to speak of."""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..stepping import Problem
from ..watch import Complaint, RevodeWarning, complain
from .implicit import Implicit, Phantom
from .relaxation import RevDEQ

WORDS = (
    (r"^solve: ", "fixed_point: "), (r"\bparams\['params'\]", "params"), (r"\bparams\['x'\]", "x"),
    (r"^fixed_point: y0\b", "fixed_point: z0"), (r"\by0\b", "z0"), (r"nothing to solve", "nothing to iterate"),
    (r"and comes before the times: solve\(field, y0, ts, params\)", "and comes after f: fixed_point(f, z0, params, x)"),
    (r"smaller steps, a shorter solve, or a look at the field there", "fewer iterations, or a look at f there"),
    (r"what came in for the solution", "what came in for z"), (r"follows the solve", "follows it"),
    (r"use Coupled\(base, lam\).*shears\(\.\.\.\)", "use RevDEQ(beta), or a word of your own made by rv.shears"),
)


class ConvergenceError(ArithmeticError):
    """What a ConvergenceWarning says, as an error."""


class ConvergenceWarning(RevodeWarning):
    """An iteration ended before it reached its tolerance: the fixed point's own, or that of its adjoint equation."""
    error = ConvergenceError


def in_words(text: str) -> str:
    """What `solve` would say, of a fixed point."""
    for pattern, words in WORDS:
        text = re.sub(pattern, words, text)
    return text


@contextmanager
def of_iterations() -> Iterator[None]:
    """Refusals of `solve` in the words of an iteration; an overflow of the march as one of the iteration."""
    try:
        yield
    except FloatingPointError as error:
        at = re.search(r"no longer finite at step (\d+) of (\d+)", str(error))
        if at is None:
            raise
        raise overflow(int(at[1]), int(at[2])) from None
    except (TypeError, ValueError) as error:
        if not str(error).startswith("solve: "):
            raise
        raise type(error)(in_words(str(error))) from error


def overflow(n: int, most: int) -> FloatingPointError:
    return FloatingPointError(f"fixed_point: z is no longer finite at iteration {n} of {most}, so the iteration diverges; take a "
                              "smaller beta (damping), or make f a contraction: normalise its weights, or its output")


def reached(problem: Problem, until: Any, mode: Any) -> None:
    """Say it, once for each place, where max_steps came before the tolerance."""
    stats: Any = problem.stats
    if until.tol is None or not stats.residuals:
        return
    stats.converged = until.met
    if until.met:
        return
    means = ("the gradient belongs to a point near z, not to z itself" if isinstance(mode, (Implicit, Phantom)) else
             "z is not a fixed point, though its gradient is that of the iterations that were carried out")
    complain(problem, Complaint(
        ConvergenceWarning,
        f"fixed_point: max_steps iterations of {problem.method!r} did not reach the tolerance, so {means}. Remedies: more iterations, "
        "a larger tol, an f that contracts more; or tol=None, for a given number of iterations.",
        {"residual": stats.residuals[-1], "tol": until.tol, "max_steps": until.max_steps, "contraction": stats.contraction}))


def adjoint_reached(problem: Problem, mode: Any) -> None:
    """Say it where the adjoint equation was not solved."""
    if not isinstance(mode, Implicit):
        return
    residual = problem.stats.adjoint_residual                                                       # type: ignore[attr-defined]
    allowed = max(mode.tol, 16 * float(np.finfo(np.asarray(problem.h_before).dtype).eps))
    if not residual <= allowed:
        others = ", ".join(f"solver={name!r}" for name in ("anderson", "gmres") if name != mode.solver)
        complain(problem, Complaint(
            ConvergenceWarning,
            f"Implicit: the adjoint equation g = J^T g + dL/dz was not solved to its tolerance by {mode.solver!r}, so the gradient is "
            f"wrong by about as much. Likely cause: f is no contraction at z. Remedies: {others}; more max_steps; an f that contracts "
            "more; or RevDEQ(beta) with Reversible(), which needs no such equation.",
            {"adjoint_residual": residual, "allowed": allowed, "max_steps": mode.max_steps}))


def lost(problem: Problem, complaint: Complaint) -> Complaint:
    """The reverse sweep did not find its way back through the iterations: which gradients that spoils, and why."""
    details = {name: value for name, value in complaint.details.items() if name not in ("step", "steps", "t")}
    details |= {"iteration": complaint.details.get("step", 0), "steps back": complaint.details.get("steps", problem.N)}
    if "dL/dparams" in complaint.text:
        what = "dL/dparams and dL/dx" + (", and dL/dz0, are" if "dL/dy0" in complaint.text else " are") + " wrong"
    else:
        what = ("dL/dz0 is wrong; dL/dparams and dL/dx are not, because their cotangents have died out where the iterations could "
                "not be rebuilt")
    calmer = "beta=0.5, " if isinstance(problem.method, RevDEQ) and problem.method.beta != 0.5 else ""
    return complaint._replace(details=details, text=(
        f"Reversible: the reverse sweep did not find its way back through the iterations, so {what}. Likely cause: each iteration "
        f"back of {problem.method!r} divides by (1 - beta)^2 and multiplies rounding by at least as much. Remedies: {calmer}fewer "
        "iterations, a float64 z (with compute=np.float32, if f is to stay float32); Reversible(resync=K), which stores z every K "
        "iterations; Automatic(), Checkpointed(n) or Direct()."))

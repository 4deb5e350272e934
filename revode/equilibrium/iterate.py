"""Fixed points z = f(z, params, x), and their gradients. An iteration is a solve whose time is
the count of its steps:

    start   parts_0 = start(z0);      parts_{n+1} = one iteration (relaxation.py)
    stop    |z - f(z)| <= tol |f(z)| + atol, or n = max_steps         norms over all entries

So marching, words, gradient modes and programs are those of `solve`; the stop rule stands in the
controller's place.
Sources: Bai, Kolter & Koltun 2019; McCallum, Arora & Foster 2025 (arXiv
2509.12917), section 4 (the stop rule).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_backend, check_params, check_y0
from ..engine import tree
from ..engine.derivatives import custom_vjp
from ..engine.tangents import jvp_of
from ..engine.tensor import Tensor, innermost, value_of
from ..finite import guarded
from ..gradients import Automatic, Checkpointed, Direct, Reversible
from ..march import march
from ..methods.custom import UserMethod
from ..methods.increment import Increment, System, nested
from ..methods.protocol import as_method
from ..methods.shears import Parts
from ..problem import Asked, Layout
from ..stepping import Problem, one_step
from ..stepping import Stats as SolveStats
from ..tangent import tangent
from ..watch import Complaint, ReconstructionWarning, RevodeWarning, complain, size
from .implicit import Implicit, Phantom, norm
from .mixing import Mixing
from .relaxation import Anderson, Picard, RevDEQ

TANGENT_STEPS = 1000  # at most, to the change of a fixed point
TINY = 1e-300
# seen in 500 sweeps (tests/unit/test_equilibrium.py has a sample): 9.5 at worst, 3 in the median
POOLED = 10.0


class ConvergenceError(ArithmeticError):
    """What a ConvergenceWarning says, as an error."""


class ConvergenceWarning(RevodeWarning):
    """An iteration ended before it reached its tolerance: the fixed point's own, or that of its
    adjoint equation.
    """

    error = ConvergenceError


@dataclass
class Stats(SolveStats):
    """What a fixed point cost; complete once the gradient has been computed. `steps` counts
    iterations, `nfe` evaluations of f.
    """

    residuals: list[float] = field(
        default_factory=list
    )  # |z - f(z)| / |f(z)| after each iteration; none without a stop rule
    converged: bool | None = None  # whether the stop rule was met; None without one
    adjoint_residual: float | None = None  # |J^T g + a - g| / |g| of Implicit

    @property
    def contraction(self) -> float:
        """The factor by which an iteration made the residual smaller, over the second half of them;
        NaN where that is not known.
        """
        r = self.residuals
        half = len(r) // 2
        return (r[-1] / r[half]) ** (1 / (len(r) - 1 - half)) if len(r) > 2 and r[half] > 0 else nan


class FixedPoint(NamedTuple):
    """What fixed_point returns; inside a gradient its z is a tensor.

    Parameters
    ----------
    z : the point, a tree like z0.
    residual : |z - f(z)| / |f(z)|; NaN without a stop rule.
    steps : iterations.
    stats : what it cost, and how it converged.
    """

    z: Any  # a tree like z0
    residual: float  # |z - f(z)| / |f(z)|; NaN without a stop rule
    steps: int  # iterations
    stats: Stats


def fixed_point(
    f: Callable,
    z0: Any,
    params: Any = None,
    x: Any = None,
    *,
    method: Any = None,
    tol: float | None = 1e-3,
    atol: float = 1e-8,
    max_steps: int = 100,
    gradient: Any = None,
    compute: Any = None,
    backend: str = "auto",
) -> FixedPoint:
    """Find z = f(z, params, x) by iteration, differentiably.

    Parameters
    ----------
    f : f(z, params, x), shaped like z; a pure NumPy function. Dropout masks and the like come in
        through x.
    z0 : (..., d) float64 or float32 array where the iteration starts, or a tree of such arrays.
    params, x : trees of arrays that f uses; the float leaves of both are differentiated.
    method : RevDEQ(beta=0.5), the default; Picard(damping=1.0); Anderson(m=5, damping=1.0,
        ridge=1e-8).
    tol, atol : stop after the first iteration with |z - f(z)| <= tol |f(z)| + atol, norms over all
        entries, the batch included. tol=None, or both zero: exactly max_steps iterations, and no
        residual is computed.
    max_steps : iterations at most; where they are not enough, a ConvergenceWarning says so.
    gradient : for RevDEQ Automatic() (the default), Reversible(resync, strict, tol), Direct(),
        Checkpointed(n): the gradient of the iterations that were carried out; for Picard the last
        two. For all methods Implicit(solver, tol, max_steps), the default of Picard and Anderson,
        and Phantom(steps, damping): of the fixed point, without the iterations.
    compute : np.float32 evaluates f in float32 on a float64 z; params and x are then float32. With
        beta a multiple of 1/4 such a RevDEQ is rebuilt to the last bit for some iterations.
    backend : as for `solve`. With a stop rule the forward iterations run on the tape.

    Returns
    -------
    FixedPoint with z, residual, steps and stats (residuals, contraction, converged,
    adjoint_residual, roundtrip, nfe, nvjp). Gradients flow to z0, params and x; Implicit and
    Phantom give z0 none.

    Raises
    ------
    TypeError, ValueError for bad input, before any iteration; FloatingPointError where z stops
    being finite. Warns by ConvergenceWarning, and by ReconstructionWarning where Reversible does
    not find its way back.

    Cost, for N iterations of RevDEQ: 2 N + 1 evaluations (2 N without a stop rule), one more that
    checks f, and 2 N + 2 N pullbacks in reverse; Picard and Anderson N + 1. States held: two.
    Source: McCallum, Arora & Foster 2025; Bai, Kolter & Koltun 2019.

    Example
    -------
    >>> f = lambda z, params, x: np.cos(params * z) + x
    >>> found = fixed_point(f, np.zeros(1), np.array(0.5), np.array(0.1), tol=1e-12)
    >>> print(f"{found.z[0]:.6f} after {found.steps} iterations")
    0.981888 after 32 iterations
    """
    method = RevDEQ() if method is None else method
    check_numbers(tol, atol, max_steps, compute)
    mode = checked(method, gradient)
    with of_iterations():
        check_y0(z0)
        z0 = tree.map(
            lambda leaf: leaf.view() if isinstance(leaf, np.ndarray) else leaf, z0
        )  # yours stays writeable
        layout = Layout(z0, False)
        initial = layout.pack(z0)
        first = value_of(initial)
        like = first if compute is None else np.zeros(1, compute)
        both = check_params({"params": params, "x": x}, like)
        chosen = check_backend(Asked(f, z0, None, backend=backend))
    map_ = Map(f, compute, layout)
    stats = Stats()
    system = System(
        map_,
        stats,
        scalar=None if first.dtype == np.float64 else first.dtype.type,
        refuse=map_.refuse,
    )
    until = (
        Until(tol, atol, max_steps)
        if not isinstance(method, Anderson)
        else Mixed(method, tol, atol, max_steps)
    )
    problem = counted(as_method(method), system, until, first)
    problem.backend = chosen
    problem.unstable = (
        True  # no equation stands behind these steps, so nobody asks how well they follow it
    )
    problem.strict = getattr(mode, "strict", False)
    problem.asked = {
        "y0": innermost(tree.flatten(initial)[0]) is not None,
        "params": innermost(tree.flatten(both)[0]) is not None,
    }
    map_.look(system, first, tree.map(value_of, both))

    ends: list = []

    def operation(initial: Any, both: Any) -> Any:
        again = innermost(tree.flatten((initial, both))[0]) is not None
        if again and not isinstance(mode, (Automatic, Direct)):
            raise TypeError(
                f"fixed_point: a derivative of a derivative was asked through {mode!r}, which "
                f"gives first "
                "derivatives only; use gradient=Direct(), which gives every order"
            )
        use: Any = mode.higher(problem) if again and isinstance(mode, Automatic) else mode
        run = use.solve if hasattr(use, "solve") else use.at_fixed_point
        (ys, parts), pull = guarded(problem, initial, both, run(problem, initial, both))
        ends.append(ys[0][0])

        def pull_z(a: Any) -> tuple:
            with of_iterations():
                gradients = pull(
                    ((a[None],), {name: np.zeros_like(part) for name, part in parts.items()})
                )
            adjoint_reached(problem, mode)
            return gradients

        return ys[0][0], pull_z

    def along(args: tuple, moved: tuple) -> Any:
        if hasattr(mode, "solve"):
            return tangent(problem, args, moved)[0][0][0]
        return implicit_tangent(problem, ends[-1], args[1], moved[1])

    with of_iterations():
        if innermost(tree.flatten((initial, both))[0]) is not None:
            z = custom_vjp(operation, along)(initial, both)
        else:
            z = march(problem, initial, both)[0][0][0]
            stats.peak_states = 1
            if isinstance(mode, Phantom):
                z = mode.relaxed(problem, z, both)
    reached(problem, until, mode)
    return FixedPoint(
        layout.unpack((z,)), stats.residuals[-1] if stats.residuals else nan, stats.steps, stats
    )


def implicit_tangent(problem: Problem, z: Any, both: Any, d_both: Any) -> Any:
    """How the fixed point moves: dz = (df/dz) dz + (df/dboth) dboth, by its own iteration."""
    system = copy(problem.system)
    system.stats = SolveStats()
    moved = np.zeros_like(z)
    for _ in range(TANGENT_STEPS):
        _, after = jvp_of(
            lambda z, both: system.coefficients(problem.ts[-1], z, both)[0],
            (z, both),
            (moved, d_both),
        )
        change, moved = norm(after - moved), after
        if change <= 64 * float(np.finfo(z.dtype).eps) * norm(after):
            return moved
    raise FloatingPointError(
        f"jvp: the change of the fixed point did not settle in {TANGENT_STEPS} iterations, "
        f"because f is no contraction there; "
        "use an iteration's own gradient (RevDEQ with Automatic(), Direct()), whose tangent runs "
        "along its steps"
    )


# the iteration as a problem of marching -----------------------------------------------------------
class Iterations(Problem):
    """A Problem whose times are the counts 0, 1, 2 .. of its iterations, and whose warnings speak
    of iterations.
    """

    def relative(self, off: Any, there: Any, tiny: float) -> Any:
        """What is off beside what is there, over the features of one place together (one entry
        alone has a cotangent near zero somewhere), and times POOLED, which the sums lie below the
        true error by at most.
        """
        off, there = (x.sum(axis=-1) if getattr(x, "ndim", 0) else x for x in (off, there))
        return POOLED * off / (there + tiny)

    def worded(self, complaint: Complaint) -> Complaint:
        """A complaint of the monitor, in the words of an iteration."""
        if complaint.category is not ReconstructionWarning:
            return complaint._replace(text=in_words(complaint.text))
        return lost(self, complaint)


def counted(method: Any, system: System, until: Until, first: Any) -> Iterations:
    """The problem: on a grid that grows until the rule is met, or on the whole of it."""
    one = np.asarray(1.0, first.dtype)
    fixed = until.tol is None and not isinstance(until, Mixed)
    N = until.max_steps if fixed else 0
    problem = Iterations(
        method,
        system,
        np.arange(N + 1.0) if fixed else [0.0],
        np.ones(N, first.dtype) if fixed else [],
        (N,) if fixed else (),
        one,
        adaptive=None if fixed else until,
        stats=system.stats,
    )
    if fixed:
        problem.hs.flags.writeable = False
    return problem


class Until:
    """The stop rule, where an adaptive solve has its controller: it extends the grid by one
    iteration at a time.
    """

    def __init__(self, tol: float | None, atol: float, max_steps: int) -> None:
        self.tol = None if tol is None or tol == atol == 0 else float(tol)
        self.atol, self.max_steps, self.met = atol, max_steps, False

    def arrived(self, problem: Problem) -> bool:
        return self.met or problem.N >= self.max_steps

    def saves(self, problem: Problem, n: int) -> bool:
        return problem.done(n)

    def advance(self, problem: Problem, parts: Parts, F: Increment) -> Parts:
        """One more iteration, and whether it was the last."""
        n = problem.N
        problem.ts.append(n + 1.0)
        problem.hs.append(problem.h_before)
        after = self.next(problem, n, parts, F)
        z = after[problem.method.outputs[0]]
        if not isfinite(size(value_of(z))):
            raise overflow(n + 1, self.max_steps)
        if self.tol is not None:
            (z,) = F.read(problem.method.outputs, after)
            value = value_of(F.field(problem.ts[n + 1], z))
            residual, of_f = norm(value_of(z) - value), norm(value)
            if not isfinite(residual + of_f):
                raise overflow(n + 1, self.max_steps)
            stats: Any = problem.stats
            stats.residuals.append(residual / max(of_f, TINY))
            self.met = residual <= self.tol * of_f + self.atol
        return after

    def next(self, problem: Problem, n: int, parts: Parts, F: Increment) -> Parts:
        return one_step(problem.method, problem.step(n), parts, F)


class Mixed(Until):
    """The stop rule of Anderson's iteration, with its memory: a march that is run once, and
    forward.
    """

    def __init__(self, method: Anderson, tol: float | None, atol: float, max_steps: int) -> None:
        super().__init__(tol, atol, max_steps)
        self.mixing = Mixing(method)

    def next(self, problem: Problem, n: int, parts: Parts, F: Increment) -> Parts:
        (z,) = F.read(("y",), parts)
        f = F.field(problem.ts[n], z)
        F.memo.clear()
        return {"y": self.mixing.next(z, f)}


# the map, and what is said of it ------------------------------------------------------------------
class Map:
    """f as the field of a solve, field(t, z, {"params": .., "x": ..}), and every refusal of its
    values.

    compute: the dtype in which f is evaluated. The first value of the march has to be that of the
    check before it.
    """

    def __init__(self, f: Callable, compute: Any, layout: Layout) -> None:
        self.f, self.compute, self.layout = f, compute, layout
        self.first: Any = None

    def __call__(self, t: Any, z: Any, both: Any) -> Any:
        value = self.of(z, both)
        if self.first is not None and not (type(z) is Tensor and z.tape.tracing):
            (at, first), self.first = self.first, None
            if not bool((value_of(z) == at).all()):  # a program took the first iterations
                return value
            # off the tape and on it a value may differ by rounding (np.mean does), drawn numbers by
            # more
            allowed = float(np.finfo(first.dtype).eps) ** 0.5 * size(first)
            if not size(value_of(value) - first) <= allowed:
                raise ValueError(
                    "fixed_point: f gave two different values for the same z; it is a pure "
                    "function, so draw random "
                    "numbers (a dropout mask, say) outside it, once for all iterations, and pass "
                    "them in x"
                )
        return value

    def of(self, z: Any, both: Any) -> Any:
        """f as one array of z's dtype, from one array."""
        layout, dtype = self.layout, z.dtype
        z = z if self.compute is None else z.astype(self.compute)
        value = self.f(layout.open(z), both["params"], both["x"])
        if not layout.alone:
            leaves, structure = tree.flatten(value)
            shapes = [np.shape(leaf) for leaf in leaves]
            if structure != layout.structure or shapes != layout.shapes:
                raise ValueError(
                    f"fixed_point: f returned {tree.describe(value)}; it returns a tree like z0, "
                    f"with the shapes "
                    f"{layout.shapes}"
                )
            value = tree.ravel(leaves)[0]
        if self.compute is not None and getattr(value, "dtype", None) == self.compute:
            value = value.astype(dtype)
        return value

    def look(self, system: System, z: Any, both: Any) -> None:
        """One evaluation before the first iteration: does f return what an iteration can go on
        with?
        """
        check_arguments(self.f)
        z = z.view() if isinstance(z, np.ndarray) else z
        value = system.coefficients(0.0, z, both)[0]
        system.stats.nfe, system.stats.checks = system.stats.nfe - 1, system.stats.checks + 1
        if not bool(np.isfinite(value).all()):
            raise ValueError(
                "fixed_point: f's first value, at z0, has entries that are not finite (NaN or Inf)"
            )
        if isinstance(value, np.ndarray) and np.may_share_memory(value, z):
            value = value.copy()
        self.first = z, value

    def refuse(self, value: Any, t: Any, z: Any, both: Any, tail: tuple, what: str) -> None:
        """What is to be said of a value that does not fit."""
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            remedy = (
                "is a return missing?" if value is None else "np.stack makes one of a list or tuple"
            )
            raise TypeError(
                f"fixed_point: f returned {type(value).__name__}; it returns an array shaped like "
                f"z, {z.shape}; {remedy}"
            )
        if value.shape != z.shape:
            raise ValueError(
                f"fixed_point: f returned shape {value.shape} for z of shape {z.shape}; a fixed "
                f"point needs f(z) shaped "
                "like z. Did you forget the batch axis, or project to another width?"
            )
        if value.dtype != z.dtype:
            raise TypeError(
                f"fixed_point: f returned {value.dtype} for z of {z.dtype}; give params, x and "
                f"constants z's dtype (or plain "
                "Python numbers, which take it); for a float32 f on a float64 z pass "
                "compute=np.float32"
            )
        if nested(value) > max(map(nested, [z, *tree.flatten(both)[0]])):
            raise TypeError(
                "fixed_point: f uses a tensor that it was not given (a variable from outside), so "
                "its gradient would be "
                "lost; pass everything that is to be differentiated through params or x"
            )


def check_arguments(f: Any) -> None:
    try:
        signature = inspect.signature(f)
        signature.bind(0, 0, 0)
    except ValueError:  # something built in: the call will tell
        return
    except TypeError:
        names = ", ".join(signature.parameters)
        raise TypeError(
            f"fixed_point: f takes the arguments ({names}), but it is called as f(z, params, x); "
            f"give it these three, "
            "also where it does not use one of them"
        ) from None


ITERATED = "RevDEQ(beta), Picard(damping) or Anderson(m)"
MODES = "Automatic(), Reversible(), Direct(), Checkpointed(n), Implicit() or Phantom()"


def check_numbers(tol: Any, atol: Any, max_steps: Any, compute: Any) -> None:
    """The stop rule, and the dtype of f."""
    for name, value in (("tol", 0.0 if tol is None else tol), ("atol", atol)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < inf:
            raise ValueError(
                f"fixed_point: {name}={value!r}; a number that is not negative"
                + (", or None for exactly max_steps iterations" if name == "tol" else "")
            )
    if isinstance(max_steps, bool) or not isinstance(max_steps, (int, np.integer)) or max_steps < 1:
        raise ValueError(
            f"fixed_point: max_steps={max_steps!r}; the number of iterations at most, 1 or more"
        )
    if compute is not None and np.dtype(compute) not in (np.float32, np.float64):
        raise TypeError(
            f"fixed_point: compute={compute!r}; np.float32, np.float64, or None for z's own dtype"
        )


def checked(method: Any, gradient: Any) -> Any:
    """The gradient mode, or the default for this method; TypeError where they do not go
    together.
    """
    if not isinstance(method, (RevDEQ, Picard, Anderson, UserMethod)):
        raise TypeError(
            f"fixed_point: method={method!r}; pass {ITERATED}, with the parentheses, or a word of "
            "your own made by rv.shears"
        )
    reversible = hasattr(method, "word")
    if gradient is None:
        return Automatic() if reversible else Implicit()
    if not isinstance(gradient, (Automatic, Reversible, Direct, Checkpointed, Implicit, Phantom)):
        raise TypeError(
            f"fixed_point: gradient={gradient!r}; pass one of {MODES}, with the parentheses"
        )
    if isinstance(method, Anderson) and not isinstance(gradient, (Implicit, Phantom)):
        raise TypeError(
            f"fixed_point: {method!r} mixes earlier iterates, so no iteration can be repeated or "
            f"run backwards alone, "
            f"and it has no {type(gradient).__name__} gradient; use Implicit() or Phantom(), or "
            f"RevDEQ(beta)"
        )
    if isinstance(gradient, (Automatic, Reversible)) and not reversible:
        raise TypeError(
            f"fixed_point: {method!r} cannot be run backwards, so it has no "
            f"{type(gradient).__name__}() gradient; use "
            "RevDEQ(beta), which can, or Direct(), Checkpointed(n), Implicit() or Phantom()"
        )
    return gradient


# what goes wrong, in the words of an iteration ----------------------------------------------------
WORDS = (
    (r"^solve: ", "fixed_point: "),
    (r"\bparams\['params'\]", "params"),
    (r"\bparams\['x'\]", "x"),
    (r"^fixed_point: y0\b", "fixed_point: z0"),
    (r"\by0\b", "z0"),
    (r"nothing to solve", "nothing to iterate"),
    (
        r"and comes before the times: solve\(field, y0, ts, params\)",
        "and comes after f: fixed_point(f, z0, params, x)",
    ),
    (
        r"smaller steps, a shorter solve, or a look at the field there",
        "fewer iterations, or a look at f there",
    ),
    (r"what came in for the solution", "what came in for z"),
    (r"follows the solve", "follows it"),
)


def in_words(text: str) -> str:
    """What `solve` would say, of a fixed point."""
    for pattern, words in WORDS:
        text = re.sub(pattern, words, text)
    return text


@contextmanager
def of_iterations() -> Iterator[None]:
    """Refusals of `solve` in the words of an iteration; an overflow of the march as one of the
    iteration.
    """
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
    return FloatingPointError(
        f"fixed_point: z is no longer finite at iteration {n} of {most}, so the iteration "
        f"diverges; take a smaller "
        "beta (damping), or make f a contraction: normalise its weights, or its output"
    )


def reached(problem: Problem, until: Until, mode: Any) -> None:
    """Say it, once for each place, where max_steps came before the tolerance."""
    stats: Any = problem.stats
    if until.tol is None or not stats.residuals:
        return
    stats.converged = until.met
    if until.met:
        return
    implicit = isinstance(mode, (Implicit, Phantom))
    means = (
        "the gradient belongs to a point near z, not to z itself"
        if implicit
        else "z is not a fixed point, though its gradient is that of the iterations that were "
        "carried out"
    )
    complain(
        problem,
        Complaint(
            ConvergenceWarning,
            f"fixed_point: max_steps iterations of {problem.method!r} did not reach the "
            f"tolerance, so {means}. Remedies: "
            "more iterations, a larger tol, an f that contracts more; or tol=None, for a given "
            "number of iterations.",
            {
                "residual": stats.residuals[-1],
                "tol": until.tol,
                "max_steps": until.max_steps,
                "contraction": stats.contraction,
            },
        ),
    )


def adjoint_reached(problem: Problem, mode: Any) -> None:
    """Say it where the adjoint equation was not solved."""
    if not isinstance(mode, Implicit):
        return
    residual = problem.stats.adjoint_residual  # type: ignore[attr-defined]
    allowed = max(mode.tol, 16 * float(np.finfo(np.asarray(problem.h_before).dtype).eps))
    if not residual <= allowed:
        others = ", ".join(
            f"solver={name!r}" for name in ("anderson", "gmres") if name != mode.solver
        )
        complain(
            problem,
            Complaint(
                ConvergenceWarning,
                f"Implicit: the adjoint equation g = J^T g + dL/dz was not solved to its "
                f"tolerance by {mode.solver!r}, so the "
                f"gradient is wrong by about as much. Likely cause: f is no contraction at z. "
                f"Remedies: {others}; more max_steps; an f that "
                "contracts more; or RevDEQ(beta) with Reversible(), which needs no such equation.",
                {"adjoint_residual": residual, "allowed": allowed, "max_steps": mode.max_steps},
            ),
        )


def lost(problem: Problem, complaint: Complaint) -> Complaint:
    """The reverse sweep did not find its way back through the iterations: which gradients that
    spoils, and why.
    """
    text, details, method = complaint.text, dict(complaint.details), problem.method
    details["iteration"], details["steps back"] = (
        details.pop("step", 0),
        details.pop("steps", problem.N),
    )
    details.pop("t", None)
    if "dL/dparams" in text:
        what = (
            "dL/dparams and dL/dx"
            + (", and dL/dz0, are" if "dL/dy0" in text else " are")
            + " wrong"
        )
    else:
        what = (
            "dL/dz0 is wrong; dL/dparams and dL/dx are not, because their cotangents have died "
            "out where the iterations could "
            "not be rebuilt"
        )
    calmer = "" if getattr(method, "beta", 0.5) == 0.5 else "beta=0.5, "
    return Complaint(
        complaint.category,
        f"Reversible: the reverse sweep did not find its way back through the iterations, so "
        f"{what}. "
        f"Likely cause: each iteration back of {method!r} divides by (1 - beta)^2 and multiplies "
        f"rounding by at least as much. Remedies: {calmer}fewer iterations, a float64 z (with "
        "compute=np.float32, if f is to stay float32); Reversible(resync=K), which stores z every "
        "K iterations; Automatic(), Checkpointed(n) or Direct().",
        details,
    )

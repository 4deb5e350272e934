"""Fixed points z = f(z, params, x), and their gradients. An iteration is a solve whose time is the count of its steps:

    start   parts_0 = start(z0);      parts_{n+1} = one iteration (relaxation.py), until the stop rule is met (iterations.py)

So marching, words, gradient modes and programs are those of `solve`.
Sources: Bai, Kolter & Koltun 2019; McCallum, Arora & Foster 2025 (arXiv 2509.12917).
"""
from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from math import nan
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_backend, check_exact, check_params, check_y0, checked_gradient, of_one_arithmetic, on_lattice
from ..engine import tree
from ..engine.derivatives import custom_vjp
from ..engine.tangents import jvp_of
from ..engine.tensor import innermost, value_of
from ..exact import Flushed, Lattice
from ..finite import guarded
from ..gradients import Automatic, Direct
from ..march import march
from ..methods.increment import System
from ..methods.protocol import as_method
from ..problem import Asked, Packing
from ..stepping import Problem, as_table, brief, shape_of
from ..stepping import Stats as SolveStats
from ..tangent import tangent
from .implicit import Implicit, Phantom, norm
from .iterations import Mixed, Until, counted
from .maps import Map, check_double, check_numbers, checked
from .relaxation import Anderson, RevDEQ
from .words import adjoint_reached, of_iterations, reached

TANGENT_STEPS = 1000                 # at most, to the change of a fixed point


@dataclass(repr=False)
class Stats(SolveStats):
    """What a fixed point cost; complete once the gradient has been computed. `steps` counts iterations, `nfe` evaluations of f."""
    residuals: list[float] = field(default_factory=list)       # |z - f(z)| / |f(z)| after each iteration; none without a stop rule
    converged: bool | None = None                              # whether the stop rule was met; None without one
    adjoint_residual: float | None = None                      # |J^T g + a - g| / |g| of Implicit

    @property
    def contraction(self) -> float:
        """The factor by which an iteration made the residual smaller, over the second half of them; NaN where it is not known."""
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
    z: Any
    residual: float
    steps: int
    stats: Stats

    def shown(self) -> dict[str, str]:
        """What it says of itself, by name: the shape of z, how well and when it was found, what it cost."""
        return {"z": shape_of(self.z), "residual": brief(self.residual), "steps": str(self.steps), "stats": repr(self.stats)}

    def __repr__(self) -> str:
        return f"FixedPoint({', '.join(f'{name} {value}' for name, value in self.shown().items())})"

    def _repr_html_(self) -> str:
        return as_table(self.shown())


def fixed_point(f: Callable, z0: Any, params: Any = None, x: Any = None, *, method: Any = None, tol: float | None = 1e-3,
                atol: float = 1e-8, max_steps: int = 100, gradient: Any = None, compute: Any = None,
                backend: str = "auto", exact: bool | Lattice | None = None) -> FixedPoint:
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
    exact : True, or a Lattice(bits), as for `solve`: RevDEQ (or a word of your own) is run back without a wrong bit, after any
        number of iterations; what they destroy is kept, log2(1 / |1 - beta|) bits an update and entry. With Reversible() only.

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
    until = Mixed(method, tol, atol, max_steps) if isinstance(method, Anderson) else Until(tol, atol, max_steps)
    with of_iterations():
        check_y0(z0)
        z0 = tree.map(lambda leaf: leaf.view() if isinstance(leaf, np.ndarray) else leaf, z0)            # yours stays writeable
        layout = Packing(z0, False)
        initial = layout.pack(z0)
        first = value_of(initial)
        both = check_params({"params": params, "x": x}, first if compute is None else np.zeros(1, compute))
        asked = Asked(f, z0, None, backend=backend, exact=exact)
        chosen = check_backend(asked)
        lattice, made = check_exact(asked, as_method(method))
        if lattice is not None:
            check_double(first)
            made, _ = on_lattice(lattice, made, initial)
            mode, chosen = checked_gradient(gradient, made), of_one_arithmetic(chosen)
    map_, stats = Map(f, compute, layout), Stats()
    system = System(map_, stats, scalar=None if first.dtype == np.float64 else first.dtype.type, refuse=map_.refuse)
    problem = counted(made, system, until, first)
    problem.backend, problem.flushed = chosen, None if lattice is None else Flushed(made)
    problem.unstable = True              # no equation stands behind these steps, so nobody asks how well they follow it
    problem.strict = getattr(mode, "strict", False)
    problem.asked = {"y0": innermost(tree.flatten(initial)[0]) is not None, "params": innermost(tree.flatten(both)[0]) is not None}
    map_.look(system, first, tree.map(value_of, both))
    z = found(problem, mode, initial, both)
    reached(problem, until, mode)
    return FixedPoint(layout.unpack((z,)), stats.residuals[-1] if stats.residuals else nan, stats.steps, stats)


def found(problem: Problem, mode: Any, initial: Any, both: Any) -> Any:
    """z as one array; where a gradient or a tangent is asked for, by one operation with both."""
    unrolled = not isinstance(mode, (Implicit, Phantom))
    ends: list = []

    def operation(initial: Any, both: Any) -> Any:
        again = innermost(tree.flatten((initial, both))[0]) is not None
        if again and not isinstance(mode, (Automatic, Direct)):
            raise TypeError(f"fixed_point: a derivative of a derivative was asked through {mode!r}, which gives first derivatives "
                            "only; use gradient=Direct(), which gives every order")
        use: Any = mode.higher(problem) if again and isinstance(mode, Automatic) else mode
        run = use.solve if unrolled else use.at_fixed_point
        (ys, parts), pull = guarded(problem, initial, both, run(problem, initial, both))
        ends.append(ys[0][0])

        def pull_z(a: Any) -> tuple:
            with of_iterations():
                gradients = pull(((a[None],), {name: np.zeros_like(part) for name, part in parts.items()}))
            adjoint_reached(problem, mode)
            return gradients

        return ys[0][0], pull_z

    def along(args: tuple, moved: tuple) -> Any:
        return tangent(problem, args, moved)[0][0][0] if unrolled else implicit_tangent(problem, ends[-1], args[1], moved[1])

    with of_iterations():
        if innermost(tree.flatten((initial, both))[0]) is not None:
            return custom_vjp(operation, along)(initial, both)
        z = march(problem, initial, both)[0][0][0]
        problem.stats.peak_states = 1
        return mode.relaxed(problem, z, both) if isinstance(mode, Phantom) else z


def implicit_tangent(problem: Problem, z: Any, both: Any, d_both: Any) -> Any:
    """How the fixed point moves: dz = (df/dz) dz + (df/dboth) dboth, by its own iteration."""
    system = copy(problem.system)
    system.stats = SolveStats()
    moved = np.zeros_like(z)
    for _ in range(TANGENT_STEPS):
        _, after = jvp_of(lambda z, both: system.coefficients(problem.ts[-1], z, both)[0], (z, both), (moved, d_both))
        change, moved = norm(after - moved), after
        if change <= 64 * float(np.finfo(z.dtype).eps) * norm(after):
            return moved
    raise FloatingPointError(f"jvp: the change of the fixed point did not settle in {TANGENT_STEPS} iterations, because f is no "
                             "contraction there; use an iteration's own gradient (RevDEQ with Automatic(), Direct()), whose tangent "
                             "runs along its steps")

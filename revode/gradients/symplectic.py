"""The symplectic adjoint: the exact gradient of a Runge-Kutta solve from its steps and stages, one evaluation on a tape at a time.

    Y_i = y + sum_{j<i} a_ij K_j,     K_i = F(t_i, Y_i, dx)                        the stages, made again from the state y
    aK_i = b_i a + sum_{j>i} a_ji aY_j,     aY_i = aK_i dF/dY (t_i, Y_i)           i = s .. 1;   a: of y1
    dL/dy = a + sum_i aY_i,                 dL/dp += sum_i aK_i dF/dp (t_i, Y_i)

This is the partitioned Runge-Kutta method that keeps a . (change of y) for a linear change of y, as the equation does; so it is the
gradient of the discrete solve, to rounding. Memory: N states, s stages, and the tape of one evaluation, where Direct() holds the
tapes of all N s of them. (`b_i = 0`, which the paper treats apart, needs no care in this form.)
Source: Matsubara, Miyatake & Yaguchi 2021, arXiv 2102.09750, theorem 2; Sanz-Serna 2016.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engines import Eager
from ..engines.protocol import Rows
from ..methods.increment import Evaluator, accumulate
from ..methods.runge_kutta import RungeKutta, combine
from ..methods.tableaux import tableau
from ..stepping import Problem
from .direct import stored


@dataclass(frozen=True)
class SymplecticAdjoint:
    """Exact gradients of explicit Runge-Kutta methods with checkpoints at steps and stages only.

    For RungeKutta and NearReversible of any tableau; noise, controls and adaptive steps included. Where programs of the steps run,
    they pull a step back in one go, from the same checkpoints.

    Raises TypeError for other methods; MemoryError where N states will not fit into what is free.

    Cost: s N evaluations forward; on the tape 2 s N and s N pullbacks on the way back; N + s states.
    Source: Matsubara, Miyatake & Yaguchi 2021; Sanz-Serna 2016.

    Example
    -------
    >>> import numpy as np
    >>> from revode import RungeKutta, solve, value_and_grad
    >>> how = {"method": RungeKutta("rk4"), "gradient": SymplecticAdjoint()}
    >>> loss = lambda p: solve(lambda t, y, p: -p * y, np.ones(1), np.linspace(0.0, 1.0, 101), p, **how).y1[0]
    >>> [round(float(x), 6) for x in value_and_grad(loss)(1.0)]
    [0.367879, -0.367879]
    """

    def solve(self, problem: Problem, initial: Any, params: Any) -> tuple[tuple, Callable]:
        if not isinstance(problem.method, RungeKutta):
            raise TypeError(f"SymplecticAdjoint: {problem.method!r} is no Runge-Kutta method with a tableau; take RungeKutta(base), "
                            "or gradient=Direct() or Checkpointed(n), which serve every method")
        return stored(problem, initial, params, StageByStage)


class StageByStage(Eager):
    """The tape, of one evaluation at a time."""

    def pull(self, last: int, first: int, a_ys: tuple, states: Rows) -> None:
        tab = tableau(self.problem.method.base)
        used = [i for i, b in enumerate(tab.b) if b][-1] + 1                  # the last stage of a pair may serve the error alone
        A, b = np.zeros((used, used)), [float(x) for x in tab.b]
        for i, row in enumerate(tab.a[:used]):
            A[i, :len(row)] = [float(x) for x in row]
        F = Evaluator(self.problem.system, self.params)
        for n in range(last - 1, first - 1, -1):
            step, a = self.problem.step(n), self.cotangents["y"]
            times = [step.t0 if c == 0 else step.t1 if c == 1 else step.t0 + float(c) * (step.t1 - step.t0) for c in tab.c]
            Y: list[Any] = []
            K: list[Any] = []
            for i in range(used):
                Y.append(combine(states["y"][n - first], weights(A[i]), K))
                K.append(F(times[i], Y[i], step.dx) if i + 1 < used else None)                 # of the last one nobody asks
            aY: list[Any] = [None] * used
            a_clock = [0.0, 0.0, 0.0, 0.0]
            for i in range(used - 1, -1, -1):
                aY[i], *found = self.stage(times[i], Y[i], step.dx, combine(b[i] * a, weights(A[:, i]), aY))
                a_t, a_h = (0.0 if x is None else x for x in found or (None, None))
                c = float(tab.c[i])                                                # t = (1 - c) t0 + c t1
                a_clock = [x + y for x, y in zip(a_clock, ((1 - c) * a_t, c * a_t, a_h, 0.0), strict=True)]
            self.clocked(n, a_clock)
            self.cotangents = {"y": combine(a, [(1.0, i) for i in range(used)], aY)}
            self.enter(n, a_ys)

    def stage(self, t: Any, Y: Any, dx: Any, aK: Any) -> tuple:
        """One evaluation on a tape, and back: the cotangent of its stage (and of t and h, where the times are asked for); that of the
        parameters is added to the sums."""
        def one(Y: Any, p: Any, *clock: Any) -> Any:
            at, length = clock or (t, dx)
            return Evaluator(self.problem.system, p)(at, Y, length)

        _, back = vjp(one, Y, self.params, *((t, dx) if self.problem.timed else ()))
        aY, a_params, *a_clock = back(aK)
        self.problem.stats.nvjp += 1
        accumulate(self.R.aparams, [g for g in tree.flatten(a_params)[0] if g is not None])
        return aY, *a_clock


def weights(column: np.ndarray) -> list[tuple[float, int]]:
    """The entries of a column or a row of a tableau that are not zero, each with its stage."""
    return [(float(x), int(j)) for j, x in enumerate(column) if x]

"""Check anybody's implementation of a reversible method, step by step: `revode check`, or check() from Python.

    cases/*.json    what every step of every method gives, from 50 digits (made by reference/vectors)
    cases.py        reads them; Problem is what an implementation is given
    texts.py        every method as the lines of its equations; reference.py runs them; faults.py changes them, one at a time
    outside.py      the implementation: a Python function, or a program that speaks JSON
    judging.py      agrees, or where it differs first and which fault explains it
    command.py      `revode check`

Nothing here imports the rest of the package: it is checked like anybody else's.
"""
from __future__ import annotations

from collections.abc import Callable

from .cases import Case, Problem, chosen
from .judging import Verdict, judge

__all__ = ["Case", "Problem", "Verdict", "check", "chosen"]


def check(implementation: Callable, cases: str = "*", level: str = "gradients") -> list[Verdict]:
    """Run an implementation on the conformance cases whose names match.

    Parameters
    ----------
    implementation : function(problem) -> {"ys": (N + 1, d), "ay0": (d,), "aparams": {name: array}, ...}; see Problem, and outside.py
        for what else it can return. It raises NotImplementedError for methods that it does not offer.
    cases : a pattern of names, such as "coupled-*", or several with commas between.
    level : "y", "states" or "gradients": what is compared.

    Returns
    -------
    A Verdict for each case: .status, .lines(), .looks_like.

    Example
    -------
    >>> def euler(problem):
    ...     if problem.method != {"name": "RungeKutta", "base": "euler"}:
    ...         raise NotImplementedError
    ...     f, ts, ys = problem.field(), problem.ts, [problem.y0]
    ...     for n in range(len(ts) - 1):
    ...         ys.append(ys[n] + (ts[n + 1] - ts[n]) * f(ts[0], ys[n], problem.params))          # f belongs at ts[n]
    ...     return {"ys": ys}
    >>> for line in check(euler, "rk-euler", level="y")[0].lines():
    ...     print(line)
    DIFFERS  rk-euler
      y[0] differs first at step 2 of 6 (t = 0.40625): 1.6e-03 relative
      first evaluation that differs: no. 2, at t = 0.25; the reference's is at t = 0.3125, and y is the same
      looks like: every step starts at the time ts[0]; it starts at ts[n]
    """
    return [judge(case, implementation, level) for case in chosen(cases)]

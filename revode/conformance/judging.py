"""Does an answer agree with a case; if not, where does it leave it first, and which fault of the dictionary is it?

Distances are relative to the largest entry of what is compared with: a state at one grid point, one array of the gradient.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite, log2
from typing import Any

import numpy as np

from .cases import Case, Problem
from .faults import Fault, listed
from .outside import Answer, CannotRun, NotOffered, answer
from .reference import Reference
from .texts import family

# Rounding: the reference, which is float64, is within 3e-14 of the 50 digits in every case. An implementation that goes back by
# reconstructing loses up to lam^-N = 64 times that of its states; a factor of ten for other orders of summation. The smallest
# fault of the dictionary moves y by 4e-9 and a gradient by 6e-10 (tests/conformance/test_kit.py holds it to that).
Y_TOLERANCE, GRADIENT_TOLERANCE = 1e-12, 2e-11
# Two runs of the same wrong formula agree like two runs of the right one.
LEVELS = ("y", "states", "gradients")
TEXT = {"conforms": "conforms", "differs": "DIFFERS", "not offered": "not offered", "could not run": "COULD NOT RUN"}


@dataclass
class Verdict:
    """One case: status is 'conforms', 'differs', 'not offered' or 'could not run'; the rest says why."""
    name: str
    status: str
    measures: dict = field(default_factory=dict)        # {what: relative distance}
    where: list[str] = field(default_factory=list)      # where it differs first
    looks_like: list[str] = field(default_factory=list)  # faults that explain all of it; empty for unknown
    hint: str = ""                                       # what is known of an unknown one

    def lines(self) -> list[str]:
        """The report: one line, or two to four where something differs."""
        head = f"{TEXT[self.status]}  {self.name}"
        if self.status == "conforms":
            return [head + ": " + ", ".join(f"{what} {e:.1e}" for what, e in self.measures.items())]
        if self.status != "differs":
            return [f"{head}: {self.where[0]}"]
        known = " / ".join(self.looks_like) or ("unknown" + (f"; {self.hint}" if self.hint else ""))
        return [head, *(f"  {line}" for line in self.where), f"  looks like: {known}"]


def distance(a: Any, b: Any) -> float:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not np.all(np.isfinite(a)):
        return np.inf
    return float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(b))), 1e-300))


def component(a: Any, b: Any) -> str:
    """Which entry is furthest off, as in [2] or [0,1]; nothing for a single number."""
    off = np.abs(np.asarray(a) - np.asarray(b))
    index = np.unravel_index(int(np.argmax(np.where(np.isfinite(off), off, np.inf))), off.shape)
    return f"[{','.join(str(int(i)) for i in index)}]" if index else ""


def judge(case: Case, implementation: Callable, level: str = "gradients") -> Verdict:
    """Run the implementation on a case and compare."""
    name = case.problem.name
    try:
        found = answer(implementation, case)
        missing = lacking(found, level)
        if missing:
            return Verdict(name, "could not run", where=[missing])
    except NotOffered as error:
        return Verdict(name, "not offered", where=[str(error)])
    except CannotRun as error:
        return Verdict(name, "could not run", where=[str(error)])
    verdict = judge_trajectory(case, found)
    if verdict.status == "conforms" and level == "gradients":
        gradient = judge_gradient(case, found, implementation)
        gradient.measures = verdict.measures | gradient.measures
        return gradient
    return verdict


def lacking(found: Answer, level: str) -> str:
    if level == "states" and found.states is None:
        return "no 'states' were returned; --level y compares ys alone"
    if level == "gradients" and (found.ay0 is None or found.aparams is None):
        return "no gradient was returned ('ay0' and 'aparams'); --level y or --level states compares what goes forward"
    return ""


# ------------------------------------------------------------------------------------------------------ going forward
def judge_trajectory(case: Case, found: Answer) -> Verdict:
    pairs = {"y": list(zip(found.ys, case.ys, strict=True))}
    for part in case.states[0] if found.states else ():
        pairs[f"part {part}"] = [(s[part], r[part]) for s, r in zip(found.states or (), case.states, strict=True)]
    distances = {what: [distance(a, b) for a, b in rows] for what, rows in pairs.items()}
    measures = {what: max(row) for what, row in distances.items()}
    first = {what: n for what, row in distances.items() if (n := first_above(row)) is not None}
    if not first:
        return Verdict(case.problem.name, "conforms", measures)
    what, n = min(first.items(), key=lambda item: item[1])
    also = [f"{other} at step {m}" for other, m in first.items() if other != what]
    ts = case.problem.ts
    where = [f"{what}{component(*pairs[what][n])} differs first at step {n} of {len(ts) - 1} (t = {ts[n]:.6g}): "
             f"{distances[what][n]:.1e} relative" + (f"; {', '.join(also)}" if also else "")]
    evaluation, apart = first_evaluation(case, found.evaluations)
    where += [evaluation] if evaluation else []
    explained = [fault.says for fault in listed(case.problem.method, case.problem.kind) if goes_the_same_way(case, found, fault)]
    hint = "the numbers are float32 numbers, and the cases are float64" if found.single else small(max(measures["y"], apart))
    return Verdict(case.problem.name, "differs", measures, where, list(dict.fromkeys(explained)), hint)


def first_above(distances: list[float]) -> int | None:
    """Where the tolerance is passed first; not-a-number passes it."""
    return next((n for n, e in enumerate(distances) if not e <= Y_TOLERANCE), None)


def small(distance: float) -> str:
    """Of errors that no formula makes."""
    if not isfinite(distance):
        return "some numbers are not finite"
    return "as small as the rounding of float32" if distance < 1e-6 else ""


def goes_the_same_way(case: Case, found: Answer, fault: Fault) -> bool:
    """Planted in the reference, does the fault give this answer at every step?"""
    with np.errstate(all="ignore"):
        ys, states = Reference(case.problem, fault.edits, fault.options).trajectory()
    if any(not distance(a, b) <= Y_TOLERANCE for a, b in zip(found.ys, ys, strict=True)):
        return False
    return not found.states or all(distance(mine[part], theirs[part]) <= Y_TOLERANCE
                                   for mine, theirs in zip(found.states, states, strict=True) for part in theirs)


def first_evaluation(case: Case, log: Any) -> tuple[str, float]:
    """The first evaluation of the field at a point where the reference has none, and how far off that is."""
    wanted = case.evaluations
    points = [np.ravel(x) for x in log or () if np.size(x) == wanted.shape[1]]
    scale = np.concatenate([[1.0], np.full(wanted.shape[1] - 1, max(1.0, float(np.max(np.abs(wanted[:, 1:])))))])
    same = lambda a, b: bool(np.all(np.abs(a - b) <= 1e-11 * scale))
    distinct: list[np.ndarray] = []
    for point in points:
        if any(same(point, other) for other in distinct):
            continue
        if not any(same(point, row) for row in wanted):
            i = min(len(distinct), len(wanted) - 1)
            off = distance(point[1:], wanted[i][1:])
            text = (f"first evaluation that differs: no. {len(distinct) + 1}, at t = {point[0]:.6g}; the reference's is at t = "
                    f"{wanted[i][0]:.6g}, and y is " + (f"{off:.1e} off" if off > 1e-11 else "the same"))
            return text, max(off, abs(float(point[0] - wanted[i][0])))
        distinct.append(point)
    return "", 0.0


# --------------------------------------------------------------------------------------------------------- going back
def judge_gradient(case: Case, found: Answer, implementation: Callable) -> Verdict:
    name = case.problem.name
    wanted = {"dL/dy0": case.ay0, **{f"dL/d{k}": w for k, w in case.total.items()}}
    given = as_named(found)
    distances = {what: distance(given[what], w) for what, w in wanted.items()}
    measures = {"dL/dy0": distances["dL/dy0"], "dL/dparams": max(e for what, e in distances.items() if what != "dL/dy0")}
    off = {what: e for what, e in distances.items() if not e <= GRADIENT_TOLERANCE}
    step = first_cotangent(case, found)
    if not off and not step:
        return Verdict(name, "conforms", measures)
    where = [line for line in (which_arrays(off, given, wanted), step) if line]
    explained = [says for says, gradient in wrong_gradients(case) if same_gradient(given, *gradient)]
    hint = ""
    if not explained and case.problem.kind != "fixed-point":
        explained, hint = by_order(case, implementation)
    return Verdict(name, "differs", measures, where, explained, hint or small(max(off.values(), default=1.0)))


def which_arrays(off: dict, given: dict, wanted: dict) -> str:
    """The arrays of the gradient that are wrong, three at most, and those that are right if they are few."""
    if not off:
        return ""
    right = [what for what in wanted if what not in off]
    each = ", ".join(f"{what}{component(given[what], wanted[what])} {e:.1e}" for what, e in list(off.items())[:3])
    also = f"; {', '.join(right)} {'is' if len(right) == 1 else 'are'} right" if 0 < len(right) < 4 else ""
    return f"the trajectory agrees, the gradient does not: {each} relative{also}"


def as_named(found: Answer) -> dict:
    return {"dL/dy0": found.ay0, **{f"dL/d{k}": g for k, g in (found.aparams or {}).items()}}


def first_cotangent(case: Case, found: Answer) -> str:
    """Where the cotangents, if they were returned, are wrong first, going back."""
    for n in range(len(case.problem.ts) - 1, -1, -1) if found.cotangents else ():
        largest = max(float(np.max(np.abs(x))) for x in case.cotangents[n].values())
        for part, b in case.cotangents[n].items():
            a = (found.cotangents or [])[n][part]
            e = float(np.max(np.abs(a - b))) / max(largest, 1e-300)
            if not e <= GRADIENT_TOLERANCE:
                return f"going back, the cotangent of {part}{component(a, b)} differs first at step {n}: {e:.1e} of the largest"
    return ""


def wrong_gradients(case: Case) -> list[tuple[str, tuple]]:
    """(what is wrong, the gradient that comes of it) for every fault that can be planted."""
    problem, found = case.problem, []
    for fault in listed(problem.method, problem.kind, back=True):
        with np.errstate(all="ignore"):
            found.append((fault.says, Reference(problem, fault.edits, fault.options).gradient(case.states)[:2]))
    if family(problem.method) in ("RungeKutta", "EES"):
        other = "reconstructed" if problem.gradient == "exact" else "exact"
        says = {"reconstructed": "the states are reconstructed on the way back; the gradient at the solve's own states is asked for",
                "exact": "the gradient at the solve's own states; the one at reconstructed states is asked for"}[other]
        found.append((says, Reference(replace(problem, gradient=other)).gradient(case.states)[:2]))
    return found


def same_gradient(given: dict, ay0: Any, aparams: dict) -> bool:
    wanted = {"dL/dy0": ay0, **{f"dL/d{k}": g for k, g in aparams.items()}}
    return all(distance(given[what], w) <= GRADIENT_TOLERANCE for what, w in wanted.items())


def refined(problem: Problem, parts: int) -> Problem:
    """The problem with every step cut into `parts`, noise and control evenly; its outputs enter the loss where they did."""
    ts = np.concatenate([*(np.linspace(a, b, parts, endpoint=False) for a, b in zip(problem.ts, problem.ts[1:], strict=False)),
                         problem.ts[-1:]])
    weights = np.zeros((len(ts), *problem.weights.shape[1:]))
    weights[::parts] = problem.weights
    dWs = None if problem.dWs is None else np.repeat(problem.dWs / parts, parts, axis=0)
    return replace(problem, ts=ts, weights=weights, dWs=dWs, log=[])


def error_at(case: Case, implementation: Callable, parts: int) -> dict | None:
    """The error of every array of the gradient, of the largest entry of all, with every step cut into `parts`; None without one."""
    problem = refined(case.problem, parts)
    right = Reference(problem)
    ay0, aparams, _ = right.gradient(right.trajectory()[1])
    wanted = {"dL/dy0": ay0, **{f"dL/d{k}": aparams[k] for k in problem.params}}
    try:
        given = as_named(answer(implementation, case, problem))
    except (CannotRun, NotOffered):
        return None
    if set(given) != set(wanted) or given["dL/dy0"] is None:
        return None
    scale = max(float(np.max(np.abs(w))) for w in wanted.values())
    errors = {what: float(np.max(np.abs(given[what] - w))) / scale for what, w in wanted.items()}
    return errors if all(isfinite(e) for e in errors.values()) else None


def by_order(case: Case, implementation: Callable) -> tuple[list[str], str]:
    """Is it a continuous adjoint? Its error falls with the step, by the order of the method. (what it looks like, a hint)."""
    coarse, fine = (error_at(case, implementation, parts) for parts in (4, 8))
    if coarse is None or fine is None or max(fine.values()) < 1e-13:
        return [], ""
    order = log2(max(coarse.values()) / max(fine.values()))
    if order < 0.7:
        return [], ""
    falls = f"its error falls as h^{order:.1f} when the steps are halved"
    p = method_order(case.problem.method)
    # A continuous adjoint is off in every array, and in each by the order of the method or more.
    everywhere = all(e > 1e-12 and e > 2 ** (p - 0.5) * fine[what] for what, e in coarse.items())
    if p > 1 and p - 0.3 < order < p + 1.3 and everywhere:
        return [f"a continuous adjoint (optimise, then discretise): {falls}"], ""
    return [], f"{falls}, so it vanishes with the step" + (", as a continuous adjoint's does" if p == 1 else "")


def method_order(method: dict) -> int:
    """The order that the method is known by."""
    bases = {"euler": 1, "midpoint": 2, "heun2": 2, "ralston3": 3, "bosh3": 3, "rk4": 4, "dopri5": 5, "tsit5": 5}
    if method["name"] == "SemiImplicitEuler" or method.get("eta", 1.0) < 1.0:
        return 1
    return bases[method["base"]] if "base" in method else method.get("order", 2)

"""A fused solve that is known, and its gradient, queued on the device as a whole; the host looks at it behind, at one wait.

    y0, params --end to end--> x --collect--> P, M --run--> M, Y, L --collect--> ys, state
    cotangents --end to end--> x --collect--> P, M --run--> M, L    --collect--> gradients, report --copy, wait--> host

What is launched depends on the grid and on the trace of the field, and not on a number in y0 or params. So a solve like an earlier
one needs none of them on the host: the field is traced at the values of the last solve, and with the report the march and the
sweep run once more over what the device says (Told stands for the engine), so that the watch sees all that it sees elsewhere.
Where it does not trust a gradient, it is computed again from the host, as everywhere.

Where a controller chooses the steps of large states, the device finds the grid first (search.py), and the solve is queued along it.

Large states stay on the device: `scores` measures them there, and the host judges by its numbers (scores.py), which it reads with
the gradient. Where these do not tell that all is well, the solve is done once more, not queued, and looked at in full.
"""
from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from revode import Solution, Tensor, custom_vjp, tree, vjp
from revode.checks import checked_gradient, prepare
from revode.compiled.plans import look_elsewhere
from revode.compiled.steps import forward_steps
from revode.engine.tangents import jvp_of
from revode.engine.tensor import is_float, value_of
from revode.finite import finite, guarded
from revode.gradients import Automatic, Reversible
from revode.march import chose, march
from revode.methods.increment import Evaluator
from revode.problem import Asked
from revode.solve import state_after
from revode.stepping import Stats
from revode.watch import CLOSE, TOL, Verdict
from revode.watch.quiet import sound

from .arrays import on_device
from .course import Course, NotAhead
from .crossing import fetch, send
from .fused import AGAIN, Fusing
from .search import SearchFused

COURSES = 8                # grids, and choices of what is saved, of a kind of solve whose buffers are kept
KEPT = 64                  # kinds of solves whose last values are kept, for the trace of the next
DOUBTS = 2                 # so many of a kind in a row that had to be looked at in full, and none is queued any more

logger = logging.getLogger("revode")


class Doubt(Exception):
    """The host asks for what the device was not asked."""


# what the host makes of a report

class Told:
    """An engine that has taken its steps already, and says what came of them; others, of the backend, take what else is asked."""
    name, looks_often, shows, holds, auto = "fused", False, 1 << 62, 1 << 62, False

    def __init__(self, course: Course, told: dict, backend: Any) -> None:
        self.course, self.told, self.backend, self.ways, self.others = course, told, backend, 0, 0

    def engine(self, direction: str, problem: Any, parts: Any, params: Any) -> Any:
        """As a backend has it: itself, once in each direction."""
        if direction != ("forward", "backward", "")[self.ways] or self.ways == 1 + (self.course.back is not None):
            self.others += 1
            return self.backend.engine(direction, problem, parts, params)
        self.ways += 1
        return self

    def called(self, *of: Any) -> None:
        """As a backend has it: no solve of it is one of native code."""

    def load(self, problem: Any, params: Any, parts: Any, cotangents: Any = None) -> None:
        self.problem, self.parts = problem, parts
        problem.stats.backend = self.name

    def spend(self, spent: Stats) -> None:
        self.problem.stats.nfe += spent.nfe
        self.problem.stats.nvjp += spent.nvjp

    def ahead(self, first: int, last: int, ys: Any = None, looks: Sequence[int] = ()) -> dict:
        if (first, last, tuple(looks)) != (0, self.problem.N, tuple(self.course.looks)):
            raise Doubt
        for j, y in enumerate(ys or ()):
            y[...] = self.told["ys", j]
        self.spend(self.course.spent)
        return named(self.told, "look")

    def back(self, last: int, first: int, a_ys: tuple, known: Any = None, flushes: bool = False,
             looks: Sequence[int] = ()) -> tuple[dict, dict]:
        if (last, first, tuple(looks)) != (self.problem.N, 0, tuple(self.course.looks_back)):
            raise Doubt
        self.spend(self.course.spent_back)
        return named(self.told, "back", "part"), named(self.told, "back", "cotangent")

    def read(self, kind: str) -> Any:
        if kind == "part":
            return named(self.told, "part" if self.ways == 1 else "start")
        if kind == "aparam":
            n = self.course.n_y
            return {i - n: self.told["gradient", i] for i in self.course.floats[n:]}
        if kind == "flowed":
            return flowed(self.course, self.told)
        return named(self.told, kind)


def named(told: dict, *kind: Any) -> dict:
    """The arrays of a report under this key, by the rest of it."""
    return {key[-1]: x for key, x in told.items() if key[:-1] == kind}


def flowed(course: Course, told: dict) -> tuple | None:
    """What has flowed to the parameters, at the start, at the looks and at the end, and where each leaf begins."""
    rows = list(named(told, "flowed").values())
    return None if not rows else (np.concatenate([0 * rows[1], *rows]), course.back.source.begins)


# a solve

class Hint(NamedTuple):
    """What is kept of the last solve of a kind."""
    values: list               # its y0 and params, the leaves, on the host
    why: list                  # why solves of this kind are not queued, if they are not
    doubts: list               # of the last ones, those that were done once more

    def refused(self, why: str) -> None:
        self.why.append(why)
        logger.info("solve: fused solves like this one are not queued as a whole, because %s", why)


_here = threading.local()


def hints() -> OrderedDict:
    if not hasattr(_here, "hints"):
        _here.hints = OrderedDict()
    return _here.hints


def key_of(device: Any, field: Callable, leaves: list, structure: Any, options: dict) -> Any:
    """What solves have in common that may be queued one like the other. (Their programs are known by a trace.)"""
    like = tuple((x.shape, str(x.dtype)) if is_float(x) else repr(x) for x in map(value_of, leaves))
    chosen = (options[name] for name in ("method", "gradient", "save", "interpretation", "decided", "strict", "controller"))
    codes = (getattr(f, "__code__", type(f)) for f in (field, options["diffusion"]))
    kind = type(options["noise"]).__name__, type(options["control"]).__name__
    return device.arch, tuple(codes), like, repr(structure), *map(repr, chosen), kind, device.xp.cuda.Device().id


def plain(options: dict, searched: bool) -> bool:
    """Whether a solve is of a kind that may be queued: from y0, by the default gradients, on a grid that is given, or that the device
    finds."""
    gradient, of_search = options["gradient"], ("controller", "save_at", "dt0")
    return all(options[name] is None or options[name] is False for name in (
        "state0", "stops", "exact", "progress", "interpolate", *(() if searched else of_search))) and (
        gradient is None or type(gradient) is Automatic or (
            type(gradient) is Reversible and gradient.resync is None and not gradient.certify))


def remember(key: Any, y0: Any, params: Any) -> None:
    """Keep the values of a solve that has been done, for the trace of the next one."""
    known = hints()
    if key not in known:
        leaves = [value_of(x) for x in tree.flatten((y0, params))[0]]
        known[key] = Hint(fetch(leaves), [], [])
        while len(known) > KEPT:
            known.popitem(last=False)


def solve(key: Any, backend: Fusing, field: Callable, y0: Any, ts: Any, params: Any, options: dict,
          otherwise: Callable, large: bool) -> Solution | None:
    """The solve, queued; None where it is not known, or of another kind. otherwise(y0, params) solves it as if nothing were known.

    large : whether its states are, so that what the watch looks at stays on the device.
    """
    hint = hints().get(key)
    if hint is None or hint.why:
        return None
    hints().move_to_end(key)
    leaves, structure = tree.flatten((y0, params))
    if any(type(value_of(x)) is Tensor for x in leaves) or type(ts) is Tensor:
        return None
    try:
        found = known_course(hint, backend, field, leaves, structure, ts, options, large)
    except NotAhead as error:
        hint.refused(str(error))
        return None
    if found is None:
        return None
    problem, layout, gradient, course = found
    problem.strict = getattr(gradient, "strict", False)
    problem.asked = {name: any(type(x) is Tensor for x in tree.flatten(part)[0]) for name, part in (("y0", y0), ("params", params),
                                                                                                    ("ts", None))}
    outputs = problem.method.outputs
    operation = queued_solve(hint, problem, gradient, course, structure, otherwise)
    if problem.differentiated:
        ys, parts = custom_vjp(operation, lambda args, moved: pushed(otherwise, args, moved))(y0, params)
    else:
        (ys, parts), judge = operation(y0, params)
        try:
            judge()
        except Doubt:
            return otherwise(y0, params)
    save = problem.save
    y1 = tuple(y[-1] for y in ys) if save[-1:] == (problem.N,) else tuple(parts[name] for name in outputs)
    saved = np.asarray(problem.ts)[list(save)]
    return Solution(saved, layout.unpack(ys, 1), state_after(problem, layout, parts), problem.stats, layout.unpack(y1))


def pushed(otherwise: Callable, args: tuple, moved: tuple) -> Any:
    """In forward mode."""
    return jvp_of(lambda y0, params: outputs_of(otherwise(y0, params)), args, moved)[1]


def outputs_of(sol: Solution) -> tuple:
    return (sol.ys if len(sol.state.method.outputs) > 1 else (sol.ys,)), sol.state.parts


def known_course(hint: Hint, backend: Fusing, field: Callable, leaves: list, structure: Any, ts: Any, options: dict,
                 large: bool) -> Any:
    """The problem at the values of the last solve, and the course of its kind; None where its programs have not been made."""
    adaptive = options["controller"] is not None
    y0, params = tree.unflatten(structure, on_the_host(hint, [value_of(x) for x in leaves], adaptive))
    rest = {name: x for name, x in options.items() if name != "gradient"}
    begun = begin(backend, Asked(field, y0, ts, params, backend=backend, **rest))
    if begun is None:
        return None
    problem, initial, params, layout, parts, before, family = begun
    gradient, wanted = checked_gradient(options["gradient"], problem.method), Tensor in map(type, leaves)
    starts = initial if isinstance(initial, tuple) else (initial,)
    of_part = {name: k for name, x in parts.items() for k, y in enumerate(starts) if x is y}
    refuse((not problem.N and not adaptive, "it takes no step"), (not layout.alone or layout.promoted, "its state is a tree"),
           (wanted and not isinstance(gradient, (Automatic, Reversible)), "its gradient keeps states"),
           (large and not is_batch(problem, starts), "its large state is no batch of trajectories"),
           (bool(before) or len(of_part) < len(parts), "its method begins with more than copies of y0"))
    if adaptive and not searched(backend, problem, family, wanted, parts, params):
        return None
    course = course_of(problem, family, wanted, backend.device.xp, y0, params, parts, of_part, large,
                       dict(backend.given or ()).get("graph", True))
    return None if course is None else (problem, layout, gradient, course)


def begin(backend: Fusing, asked: Asked) -> tuple | None:
    """The problem, its initial state, params, layout, parts, evaluations and programs; None where something is wrong."""
    try:
        problem, initial, params, layout = prepare(asked)
        parts = problem.start(Evaluator(problem.system, params), initial)
        return problem, initial, params, layout, parts, problem.stats.nfe, backend.family(problem, parts, params)
    except Exception:                                     # whatever it is: it will be said by the solve that is not queued
        return None


def on_the_host(hint: Hint, leaves: list, adaptive: bool) -> list:
    """y0 and params for a trace, as they were the last time; for a search as they are now."""
    floats = list(filter(is_float, leaves))
    refuse((not all(map(on_device, floats)) or len({x.dtype for x in floats}) > 1, "not all of it is on the device, in one dtype"))
    return [old if is_float(x) else x for old, x in zip(fetch(leaves) if adaptive else hint.values, leaves, strict=True)]


def searched(backend: Fusing, problem: Any, family: Any, wanted: bool, parts: dict, params: Any) -> bool:
    """Let the device find the grid, along which the solve is then one like others; whether it has. The host sees no state."""
    if wanted and not family.made.get("backward"):
        return False
    controller, search = problem.adaptive, backend.engine("forward", problem, parts, params)
    refuse((not isinstance(search, SearchFused), "the device does not search for its steps"))
    search.load(problem, params, parts)
    try:
        while not controller.arrived(problem):
            search.find()
    except FloatingPointError:                            # it will be said by the solve that is not queued
        return False
    problem.ts, problem.hs = np.asarray(problem.ts), np.asarray(problem.hs, controller.dtype)
    problem.save = tuple(n for n in range(problem.N + 1) if problem.saves(n))
    chose.get()(problem.N)
    again = backend.runner(AGAIN, forward_steps, problem, parts, params)
    if again is not None:
        again.load(problem, params, parts)
    return again is not None


def is_batch(problem: Any, starts: tuple) -> bool:
    """Whether a state is one array of trajectories, which can be measured one by one."""
    return len(problem.method.outputs) == 1 and len(starts[0].shape) > 1


def refuse(*cases: tuple[bool, str]) -> None:
    for stands, why in cases:
        if stands:
            raise NotAhead(why)


def course_of(problem: Any, family: Any, wanted: bool, xp: Any, y0: Any, params: Any, parts: dict, of_part: dict,
              large: bool, graphs: bool) -> Course | None:
    """The course of this kind of solve; None where it has not been solved on this thread."""
    runners: list[Any] = [getattr(made.here, "runner", None) if (made := family.made.get(way)) else None
                          for way in ("forward" if problem.adaptive is None else AGAIN, "backward")[:1 + wanted]]
    if any(r is None for r in runners):
        return None
    kind, known = (problem.save, problem.ts.tobytes(), wanted), runners[0].courses
    if kind not in known:
        for r in runners:
            r.problem = problem
        known[kind] = Course(xp, problem, y0, params, parts, of_part, runners[0], runners[1] if wanted else None, large,
                             graphs)
        while len(known) > (COURSES if problem.adaptive is None else 1):             # no two found grids are the same
            known.pop(next(iter(known)))
    return known[kind]


def scored(problem: Any, gradient: Any, course: Course, told: dict) -> Verdict | None:
    """The verdict on a solve, and on its gradient if it has one, that was measured on the device, with its stats; None: look at it."""
    stats, swept = problem.stats, course.back is not None
    stats.nfe, stats.nvjp = stats.nfe + course.spent.nfe, stats.nvjp + course.spent.nvjp
    stats.nfe_forward = stats.nfe
    bounds = course.scores.bounds(problem, told["scores",], flowed(course, told))
    if bounds is None or not swept:
        return Verdict({}, [], {}) if bounds is not None and bounds.together else None
    stats.nfe, stats.nvjp, stats.peak_states = stats.nfe + course.spent_back.nfe, stats.nvjp + course.spent_back.nvjp, 2
    dtype, automatic = course.ahead.dtype, type(gradient) is Automatic
    tol, acts = (TOL, gradient.tol or CLOSE[dtype.itemsize]) if automatic else (gradient.tol or TOL, math.inf)
    found = list(named(told, "gradient").values())
    return sound(problem, tol, acts, bounds, dtype, course.ahead.shape[:-1]) if finite(found) else None


def doubted(hint: Hint, doubt: bool) -> None:
    """Raises Doubt, if there is one; where that is so time and again, solves like this are no longer queued."""
    if not doubt:
        hint.doubts.clear()
        return
    hint.doubts.append(doubt)
    if len(hint.doubts) == DOUBTS:
        hint.refused("the watch had to look at the states of the last ones, whose gradients it does not trust (see what it says of "
                     "them)")
    raise Doubt


def queued_solve(hint: Hint, problem: Any, gradient: Any, course: Course, structure: Any, otherwise: Callable) -> Callable:
    """The operation y0, params -> (saved outputs, final parts), and its pull, which looks at both ways behind them."""
    def operation(y0: Any, params: Any) -> tuple:
        leaves, xp = tree.flatten((y0, params))[0], course.xp
        B = course.buffer()
        out = course.go_ahead(B, problem, leaves)
        problem.stats.steps, problem.stats.backend = problem.N, "fused"
        outputs, names = problem.method.outputs, problem.method.parts
        ys = tuple(course.result.there(xp, out, ("ys", j)) for j in range(len(outputs)))
        parts = {name: course.result.there(xp, out, ("part", name)) for name in names}
        pulls: list = []                                  # what pulls on the host, once the device has been asked
        mine = [B]                                        # until then

        def heard(report: Any) -> tuple:
            """The report on the host, and y0 and params there."""
            flat = report.get()
            told = course.report.of(flat)
            course.free.append(mine.pop())
            for i in course.floats:
                hint.values[i] = told["given", i]
            values = tree.unflatten(structure, [hint.values[i] if i in course.floats else x for i, x in enumerate(leaves)])
            initial = values[0] if len(outputs) > 1 else tree.flatten(values[0])[0][0]
            if course.scores:
                told["scores",] = flat[course.report.size:]
            else:
                problem.backend = Told(course, told, problem.backend)
            return told, initial, values[1]

        def judged() -> None:
            """Of a solve without a gradient."""
            told, initial, params = heard(course.reported(B))
            if course.scores:
                doubted(hint, scored(problem, gradient, course, told) is None)
            else:
                march(problem, initial, params)
            problem.stats.peak_states = 1

        def pull(cotangent: Any) -> Any:
            if pulls:
                return send(xp)(pulls[0](fetch(cotangent)))
            if not mine:                                  # it has been asked, and there was an error
                raise Doubt
            a_ys, a_parts = cotangent
            report = course.go_back(B, problem, [*a_ys, *(a_parts[name] for name in names)])
            told, initial, params = heard(report)
            there = lambda: tree.unflatten(structure, [course.report.there(xp, report, ("gradient", i)) if i in course.floats else None
                                                       for i in range(len(leaves))])
            if course.scores:
                doubted(hint, scored(problem, gradient, course, told) is None)
                if problem.backend.auto:
                    look_elsewhere(problem, params, tuple(named(told, "ys").values()), named(told, "part"))
                return there()
            solved, back = gradient.solve(problem, initial, params)
            if problem.backend.backend.auto:
                look_elsewhere(problem, params, *solved)
            _, back = guarded(problem, initial, params, (solved, back))
            pulls.append(back)
            a = tuple(named(told, "a_ys").values()), {name: told["a_part", name] for name in names}
            found = back(a)
            if problem.backend.others:                    # it was computed again
                return send(xp)(found)
            return there()

        def surely(cotangent: Any) -> Any:
            try:
                return pull(cotangent)
            except Doubt:
                sols: list = []

                def again(y0: Any, params: Any) -> tuple:
                    sols.append(otherwise(y0, params))
                    return outputs_of(sols[0])

                found = vjp(again, y0, params)[1](cotangent)
                vars(problem.stats).update(vars(sols[0].stats))
                return found

        return (ys, parts), surely if problem.differentiated else judged

    return operation

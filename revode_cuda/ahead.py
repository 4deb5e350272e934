"""A fused solve that is known, and its gradient, queued on the device as a whole; the host looks at it behind, at one wait.

    y0, params --end to end--> x --collect--> P, M --run--> M, Y, L --collect--> ys, state
    cotangents --end to end--> x --collect--> P, M --run--> M, L    --collect--> gradients, report --copy, wait--> host

What is launched depends on the grid and on the trace of the field, and not on a number in y0 or params. So a solve like an earlier
one needs none of them on the host: the field is traced at the values of the last solve, and with the report the march and the
sweep run once more over what the device says (Told stands for the engine), so that the watch sees all that it sees elsewhere.
Where it does not trust a gradient, it is computed again from the host, as everywhere.

Everything lies in one buffer. Its arrays are known by the positions of their entries, arrays of integers that are packed, tiled
and untiled by the very code that does it with numbers.
"""
from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from revode import Solution, Tensor, custom_vjp, tree, vjp
from revode.checks import checked_gradient, prepare
from revode.compiled.generate import ALIGN
from revode.compiled.loops import LANES, MEMBER
from revode.compiled.plans import look_elsewhere
from revode.compiled.program import evaluate
from revode.compiled.tiles import ended
from revode.engine.tangents import jvp_of
from revode.engine.tensor import is_float, value_of
from revode.finite import guarded
from revode.gradients import Automatic, Reversible
from revode.march import march
from revode.methods.increment import Increment
from revode.problem import Asked
from revode.solve import state_after
from revode.stepping import Stats

from .arrays import on_device
from .crossing import fetch, part, send
from .fused import Fusing
from .kernels import collect

KEPT = 64                  # kinds of solves whose last values are kept, for the trace of the next
MOST = 1 << 24             # entries of the buffer
TOLD = 1 << 22             # bytes of a report: what the host looks at


class NotAhead(Exception):
    """Why a solve cannot be queued before the host has seen its numbers."""


class Doubt(Exception):
    """The host asks for what the device was not asked."""


# positions in the buffer

class Moves:
    """What one launch of `collect` writes: n neighbouring entries, each the sum of `count` others."""

    def __init__(self, first: int, n: int) -> None:
        self.first, self.n = first, n
        self.start, self.count, self.step = (np.zeros(n, np.int32) for _ in range(3))

    def put(self, to: np.ndarray, of: np.ndarray, count: int = 1, step: Any = 0) -> None:
        at = to.reshape(-1) - self.first
        self.start[at], self.count[at], self.step[at] = of.reshape(-1), count, np.broadcast_to(step, of.shape).reshape(-1)

    def there(self, xp: Any) -> Callable:
        """The launch, with its tables on the device."""
        table = tuple(map(xp.asarray, (self.start, self.count, self.step)))
        return lambda x, out: collect(table, x, out, mode="strict")


class Report:
    """Arrays one behind another, and the moves that fill them."""

    def __init__(self) -> None:
        self.places: dict[tuple, tuple[int, tuple[int, ...]]] = {}
        self.parts: list[tuple] = []
        self.size = 0

    def add(self, key: tuple, of: np.ndarray, count: int = 1, step: Any = 0) -> None:
        self.places[key] = self.size, of.shape
        self.parts.append((self.size, of, count, step))
        self.size += of.size

    def moves(self) -> Moves:
        moves = Moves(0, self.size)
        for at, of, count, step in self.parts:
            moves.put(np.arange(at, at + of.size), of, count, step)
        return moves

    def of(self, flat: np.ndarray) -> dict[tuple, np.ndarray]:
        """The arrays of a report on the host."""
        return {key: flat[at:at + prod(shape)].reshape(shape) for key, (at, shape) in self.places.items()}

    def there(self, xp: Any, flat: Any, key: tuple) -> Any:
        """One of the arrays of a report on the device."""
        at, shape = self.places[key]
        return part(xp)(flat, at, np.empty(shape, np.bool_))


def places_of(view: np.ndarray, base: np.ndarray, first: int) -> np.ndarray:
    """The positions of a view of `base`, which lies at `first`."""
    if not view.size:
        return np.zeros(view.shape, np.int64)
    skip = (view.ctypes.data - base.ctypes.data) // base.itemsize
    return np.lib.stride_tricks.as_strided(np.arange(first + skip, first + base.size), view.shape,
                                           [8 * s // base.itemsize for s in view.strides])


def rows_of(runner: Any, role: Any, first: int) -> np.ndarray:
    """The positions of a part, or of what is like one, as a user sees it."""
    x = places_of(runner.views[role], runner.memory, first)
    return (x if runner.rows == 1 else runner.untiled(x)).reshape(runner.shapes.get(role, runner.shape))


def computed(runner: Any, leaves: list) -> list:
    """What the programs of a runner compute from the parameters alone."""
    done = {name: evaluate(runner.lowered[name].program, lambda role: leaves[role[1]], which) for name, which in runner.before.items()}
    return [done[name][v] for _, name, v in runner.packed]


class Course:
    """Where all arrays of a kind of solve lie, and how they get there. Raises NotAhead."""

    def __init__(self, xp: Any, problem: Any, y0: Any, params: Any, parts: dict, of_part: dict, ahead: Any, back: Any) -> None:
        self.xp, self.ahead, self.back, self.size = xp, ahead, back, 0
        leaves = tree.flatten((y0, params))[0]
        floats = [i for i, x in enumerate(leaves) if is_float(x)]
        n_y = len(tree.flatten(y0)[0])
        extras = problem.seen.extras
        more = [np.shape(x) for r in (ahead, back) if r is not None for x in computed(r, [*leaves[n_y:], *extras])]
        *given, self.end = self.end_to_end([*(leaves[i].shape for i in floats), *map(np.shape, extras), *more])
        inputs = [*floats, *range(len(leaves), len(leaves) + len(extras))]
        at = dict(zip(inputs, given, strict=False))
        self.brought: tuple = (None, [])
        self.floats, self.n_y = floats, n_y
        self.report, self.result = Report(), Report()
        for i in floats:
            self.report.add(("given", i), at[i])
        initial = {name: at[k] for name, k in of_part.items()}
        outputs, save = problem.method.outputs, problem.save
        made = iter(given[len(inputs):])

        def packing(runner: Any) -> tuple[Moves, int, int]:
            """Moves that fill P and M of a runner; where these begin."""
            P, M = (self.room((n,))[0] for n in (runner.P.size, runner.memory.size))
            moves = Moves(P, M + runner.memory.size - P)
            for view, i in runner.copied:
                moves.put(places_of(view, runner.P, P), at[n_y + i])
            for view, _, _ in runner.packed:
                moves.put(places_of(view, runner.P, P), next(made))
            return moves, P, M

        moves, self.P, self.M = packing(ahead)
        self.looks = ahead.asked[0][2]
        for name, x in initial.items():
            moves.put(places_of(ahead.views["part", name], ahead.memory, self.M), ahead.tiled(x))
        self.pack = moves.there(xp), moves
        ys = [self.room((len(save), *parts[name].shape)) for name in outputs]
        self.Y = [slice(int(y.flat[0]), int(y.flat[0]) + y.size) if y.size else slice(0, 0) for y in ys]
        seen = self.room((len(self.looks), ahead.tiles, ahead.source.seen))
        self.L = slice(int(seen.flat[0]), int(seen.flat[0]) + seen.size) if seen.size else slice(0, 0)
        final = {name: rows_of(ahead, ("part", name), self.M) for name in initial}
        for j, (name, y) in enumerate(zip(outputs, ys, strict=True)):
            for k in (k for k, n in enumerate(save) if n == 0):
                y[k] = initial[name]
            self.add("ys", j, y)
        for name, x in final.items():
            self.add("part", name, x)
        for name, x in ahead.seen("part", self.looks, seen).items():
            self.report.add(("look", name), x)
        self.ends = self.result.moves().there(xp)
        if back is not None:
            self.way_back(problem, initial, final, [y.shape for y in ys], packing, of_part, leaves)
        if self.size > MOST or self.report.size * ahead.dtype.itemsize > TOLD:
            raise NotAhead("its states are large")
        self.reports = self.report.moves().there(xp)
        self.free: list = []

    def way_back(self, problem: Any, initial: dict, final: dict, shapes: list, packing: Callable, of_part: dict, leaves: list) -> None:
        """The same of the reverse sweep."""
        back, outputs, last = self.back, problem.method.outputs, problem.rows.get(problem.N)
        *cotangents, self.a_end = self.end_to_end([*shapes, *(x.shape for x in final.values())])
        a_ys, a_parts = cotangents[:len(shapes)], dict(zip(final, cotangents[len(shapes):], strict=True))
        self.A = [slice(int(a.flat[0]), int(a.flat[0]) + a.size) if a.size else slice(0, 0) for a in a_ys]
        self.a_at = slice(int(cotangents[0].flat[0]) if cotangents[0].size else self.a_end, self.a_end)
        moves, self.P_back, self.M_back = packing(back)
        for kind, arrays in (("part", final), ("known", initial), ("cotangent", a_parts)):
            for name, x in arrays.items():
                if (kind, name) not in back.views:
                    continue
                to = places_of(back.views[kind, name], back.memory, self.M_back)
                if kind == "cotangent" and last is not None and name in outputs:
                    moves.put(to, back.tiled(x), 2, back.tiled(a_ys[outputs.index(name)][last] - x))
                else:
                    moves.put(to, back.tiled(x))
        self.pack_back = moves.there(self.xp), moves
        self.looks_back = back.asked[0][2]
        seen = self.room((len(self.looks_back), back.tiles, back.source.seen))
        self.L_back = slice(int(seen.flat[0]), int(seen.flat[0]) + seen.size) if seen.size else slice(0, 0)
        lands = "land" in back.lowered
        for name in initial:
            self.report.add(("start", name), rows_of(back, ("landed" if lands else "part", name), self.M_back))
            self.report.add(("cotangent", name), rows_of(back, ("cotangent", name), self.M_back))
            self.report.add(("a_part", name), a_parts[name])
        for j, a in enumerate(a_ys):
            self.report.add(("a_ys", j), a)
        for kind in ("part", "cotangent"):
            for name, x in back.seen(kind, self.looks_back, seen).items():
                self.report.add(("back", kind, name), x)
        for role in back.roles_of("missed"):
            self.report.add(role, rows_of(back, role, self.M_back))
        if back.source.sums is not None:
            now = self.M_back + np.arange(back.source.sums.start, back.source.sums.stop)
            self.report.add(("flowed", 0), seen[:, 0, back.source.sums], back.tiles, back.source.seen)
            self.report.add(("flowed", 1), now[None], back.tiles, back.stride)
        for k in range(self.n_y):
            ends = [rows_of(back, ("cotangent", name), self.M_back) for name, of in of_part.items() if of == k]
            if len(ends) > 2:
                raise NotAhead("its method begins with more than two copies of y0")
            self.report.add(("gradient", k), ends[0], len(ends), ends[-1] - ends[0])
        for i in self.floats[self.n_y:]:
            role = "aparam", i - self.n_y
            x = places_of(back.views[role], back.memory, self.M_back).reshape(back.tiles, -1)[0] if role in back.views else np.zeros(
                leaves[i].size, np.int64)
            if role in back.views and back.sums[role] & {LANES, MEMBER}:
                raise NotAhead("parameters of their own for trajectories")
            self.report.add(("gradient", i), x.reshape(leaves[i].shape), back.tiles if role in back.views else 0, back.stride)

    # places

    def room(self, shape: tuple[int, ...]) -> np.ndarray:
        """The positions of an array of this shape, behind all others."""
        first = self.size
        self.size += -(-prod(shape) // ALIGN) * ALIGN
        return np.arange(first, first + prod(shape)).reshape(shape)

    def end_to_end(self, shapes: Sequence[tuple[int, ...]]) -> list:
        """The positions of arrays that are copied there in one, and where these end."""
        ends = np.cumsum([prod(shape) for shape in shapes])
        whole = self.room((int(ends[-1]),))
        return [*(x.reshape(shape) for x, shape in zip(np.split(whole, ends[:-1]), shapes, strict=True)), int(whole[-1]) + 1]

    def add(self, kind: str, name: Any, x: np.ndarray) -> None:
        self.report.add((kind, name), x)
        self.result.add((kind, name), x)

    # launches

    def bring(self, extras: list) -> list:
        """Numbers and arrays that the field brings along, on the device: copied where they are not those of the last solve."""
        if not extras:
            return []
        flat = np.concatenate([np.ravel(x).astype(self.ahead.dtype) for x in extras])
        if self.brought[0] is None or self.brought[0].tobytes() != flat.tobytes():
            there, ends = self.xp.asarray(flat), np.cumsum([0, *map(np.size, extras)]).tolist()
            self.brought = flat, [part(self.xp)(there, at, np.asarray(x)) for at, x in zip(ends, extras, strict=False)]
        return self.brought[1]

    def go_ahead(self, B: Any, problem: Any, leaves: list) -> Any:
        """The solve: its saved states and final parts, in one array."""
        xp, extras = self.xp, self.bring(problem.seen.extras)
        of_params = [*leaves[self.n_y:], *extras]
        more = [x for r in (self.ahead, self.back) if r is not None for x in computed(r, of_params)]
        end_to_end(xp, [*(leaves[i] for i in self.floats), *extras, *more], B[:self.end])
        launch, moves = self.pack
        launch(B[:moves.first], B[moves.first:moves.first + moves.n])
        runner, save, N, first = self.ahead, problem.save, problem.N, 0
        with queued(runner, problem, P=B[self.P:self.P + runner.P.size], M=B[self.M:self.M + runner.memory.size]):
            while first < N:
                until = min(N, (first // runner.chunk + 1) * runner.chunk)
                runner.call(first, until, begins=first == 0 and "begin" in runner.lowered, saved=bisect_right(save, first),
                            ys=[B[y] for y in self.Y], looks=ended(tuple(self.looks)), looked=bisect_right(self.looks, first),
                            seen=B[self.L])
                first = until
            self.spent = runner.stats
        out = xp.empty(self.result.size, runner.dtype)
        self.ends(B, out)
        return out

    def go_back(self, B: Any, problem: Any, cotangents: list) -> Any:
        """The reverse sweep: the report, gradients among it, on the device."""
        end_to_end(self.xp, cotangents, B[self.a_at])
        launch, moves = self.pack_back
        launch(B[:moves.first], B[moves.first:moves.first + moves.n])
        runner, save, last = self.back, problem.save, problem.N
        looks = self.looks_back
        with queued(runner, problem, P=B[self.P_back:self.P_back + runner.P.size],
                    M=B[self.M_back:self.M_back + runner.memory.size]):
            while last > 0:
                until = (last - 1) // runner.chunk * runner.chunk
                at = bisect_left(save, last) - 1
                runner.call(until, last, begins=last == problem.N and "begin" in runner.lowered, lands=until == 0 and "land" in
                            runner.lowered, settles=until == 0 and "end" in runner.lowered, saved=at if at >= 0 else len(save),
                            ys=[B[a] for a in self.A], looks=ended(tuple(looks)), looked=sum(n >= last for n in looks),
                            seen=B[self.L_back])
                last = until
            self.spent_back = runner.stats
        return self.reported(B)

    def reported(self, B: Any) -> Any:
        out = self.xp.empty(self.report.size, self.ahead.dtype)
        self.reports(B, out)
        return out


class queued:
    """A runner whose calls are launches into a buffer, and no more."""

    def __init__(self, runner: Any, problem: Any, **image: Any) -> None:
        self.runner, self.image = runner, image
        runner.problem, runner.stats, runner.save, runner.drive = problem, Stats(), ended(tuple(problem.save)), problem.driver
        runner.block = (-1, None)

    def __enter__(self) -> None:
        self.runner.image = self.image

    def __exit__(self, *error: Any) -> None:
        self.runner.image = None


def end_to_end(xp: Any, arrays: list, out: Any) -> None:
    xp.concatenate([x.reshape(-1) for x in arrays], out=out)


# what the host makes of a report

class Told:
    """An engine that has taken its steps already, and says what came of them; others, of the backend, take what else is asked."""
    name, looks_often, shows, auto = "fused", False, 1 << 62, False

    def __init__(self, course: Course, told: dict, backend: Any) -> None:
        self.course, self.told, self.backend, self.ways, self.others = course, told, backend, 0, 0

    def engine(self, direction: str, problem: Any, parts: Any, params: Any) -> Any:
        """As a backend has it: itself, once in each direction."""
        if direction != ("forward", "backward", "")[self.ways] or self.ways == 1 + (self.course.back is not None):
            self.others += 1
            return self.backend.engine(direction, problem, parts, params)
        self.ways += 1
        return self

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
            rows = list(named(self.told, "flowed").values())
            return None if not rows else (np.concatenate([0 * rows[1], *rows]), self.course.back.source.begins)
        return named(self.told, kind)


def named(told: dict, *kind: Any) -> dict:
    """The arrays of a report under this key, by the rest of it."""
    return {key[-1]: x for key, x in told.items() if key[:-1] == kind}


# a solve

class Hint(NamedTuple):
    """What is kept of the last solve of a kind."""
    values: list               # its y0 and params, the leaves, on the host
    why: list                  # why solves of this kind are not queued, if they are not


_here = threading.local()


def hints() -> OrderedDict:
    if not hasattr(_here, "hints"):
        _here.hints = OrderedDict()
    return _here.hints


def key_of(device: Any, field: Callable, leaves: list, structure: Any, options: dict) -> Any:
    """What solves have in common that may be queued one like the other. (Their programs are known by a trace.)"""
    like = tuple((x.shape, str(x.dtype)) if is_float(x) else repr(x) for x in map(value_of, leaves))
    chosen = (options[name] for name in ("method", "gradient", "save", "interpretation", "decided", "strict"))
    codes = (getattr(f, "__code__", type(f)) for f in (field, options["diffusion"]))
    kind = type(options["noise"]).__name__, type(options["control"]).__name__
    return device.arch, tuple(codes), like, repr(structure), *map(repr, chosen), kind, device.xp.cuda.Device().id


def plain(options: dict) -> bool:
    """Whether a solve is of a kind that may be queued: a given grid, from y0, by the default gradients."""
    gradient = options["gradient"]
    return all(options[name] in (None, False) for name in ("controller", "state0", "stops", "exact", "save_at", "progress",
                                                          "interpolate", "dt0")) and (
        gradient is None or type(gradient) is Automatic or (
            type(gradient) is Reversible and gradient.resync is None and not gradient.certify))


def remember(key: Any, y0: Any, params: Any) -> None:
    """Keep the values of a solve that has been done, for the trace of the next one."""
    known = hints()
    if key not in known:
        leaves = [value_of(x) for x in tree.flatten((y0, params))[0]]
        known[key] = Hint(fetch(leaves), [])
        while len(known) > KEPT:
            known.popitem(last=False)


def solve(key: Any, backend: Fusing, field: Callable, y0: Any, ts: Any, params: Any, options: dict,
          otherwise: Callable) -> Solution | None:
    """The solve, queued; None where it is not known, or of another kind. otherwise(y0, params) solves it as if nothing were known."""
    hint = hints().get(key)
    if hint is None or hint.why:
        return None
    hints().move_to_end(key)
    leaves, structure = tree.flatten((y0, params))
    if any(type(value_of(x)) is Tensor for x in leaves) or type(ts) is Tensor:
        return None
    try:
        found = known_course(hint, backend, field, leaves, structure, ts, options)
    except NotAhead as error:
        hint.why.append(str(error))
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


def known_course(hint: Hint, backend: Fusing, field: Callable, leaves: list, structure: Any, ts: Any, options: dict) -> Any:
    """The problem at the values of the last solve, and the course of its kind; None where its programs have not been made."""
    there = [value_of(x) for x in leaves]
    y0, params = tree.unflatten(structure, [old if is_float(x) else x for old, x in zip(hint.values, there, strict=True)])
    if not all(on_device(x) for x in there if is_float(x)) or len({x.dtype for x in there if is_float(x)}) > 1:
        raise NotAhead("not all of it is on the device, in one dtype")
    rest = {name: x for name, x in options.items() if name != "gradient"}
    try:
        problem, initial, params, layout = prepare(Asked(field, y0, ts, params, backend=backend, **rest))
        parts = problem.start(Increment(problem.system, params), initial)
        before, family = problem.stats.nfe, backend.family(problem, parts, params)
    except Exception:                                     # whatever it is: it will be said by the solve that is not queued
        return None
    gradient = checked_gradient(options["gradient"], problem.method)
    wanted = any(type(x) is Tensor for x in leaves)
    if not problem.N or not layout.alone or layout.promoted:
        raise NotAhead("its state is a tree")
    if wanted and not isinstance(gradient, (Automatic, Reversible)):
        raise NotAhead("its gradient keeps states")
    starts = initial if isinstance(initial, tuple) else (initial,)
    of_part = {name: k for name, x in parts.items() for k, y in enumerate(starts) if x is y}
    if before or len(of_part) < len(parts):
        raise NotAhead("its method begins with more than copies of y0")
    runners: list[Any] = [getattr(family.made[way].here, "runner", None) if family.made.get(way) else None
                          for way in ("forward", "backward")]
    if any(r is None for r in runners[:1 + wanted]):
        return None
    ahead: Any = runners[0]
    back = runners[1] if wanted else None
    kind = problem.save, problem.ts.tobytes(), wanted
    if kind not in ahead.courses:
        if any(len(r.asked) != 1 for r in (ahead, back) if r is not None):
            return None
        for r in (ahead, back):
            if r is not None:
                r.problem = problem
        ahead.courses[kind] = Course(backend.device.xp, problem, y0, params, parts, of_part, ahead, back)
    return problem, layout, gradient, ahead.courses[kind]


def queued_solve(hint: Hint, problem: Any, gradient: Any, course: Course, structure: Any, otherwise: Callable) -> Callable:
    """The operation y0, params -> (saved outputs, final parts), and its pull, which looks at both ways behind them."""
    def operation(y0: Any, params: Any) -> tuple:
        leaves, xp = tree.flatten((y0, params))[0], course.xp
        B = course.free.pop() if course.free else xp.empty(course.size, course.ahead.dtype)
        out = course.go_ahead(B, problem, leaves)
        problem.stats.steps, problem.stats.backend = problem.N, "fused"
        outputs, names = problem.method.outputs, problem.method.parts
        ys = tuple(course.result.there(xp, out, ("ys", j)) for j in range(len(outputs)))
        parts = {name: course.result.there(xp, out, ("part", name)) for name in names}
        pulls: list = []                                  # what pulls on the host, once the device has been asked

        def heard(report: Any) -> tuple:
            """The report on the host, and y0 and params there."""
            told = course.report.of(report.get())
            course.free.append(B)
            for i in course.floats:
                hint.values[i] = told["given", i]
            values = tree.unflatten(structure, [hint.values[i] if i in course.floats else x for i, x in enumerate(leaves)])
            problem.backend = Told(course, told, problem.backend)
            initial = values[0] if len(outputs) > 1 else tree.flatten(values[0])[0][0]
            return told, initial, values[1]

        def judged() -> None:
            """Of a solve without a gradient."""
            _, initial, params = heard(course.reported(B))
            march(problem, initial, params)
            problem.stats.peak_states = 1

        def pull(cotangent: Any) -> Any:
            if pulls:
                return send(xp)(pulls[0](fetch(cotangent)))
            a_ys, a_parts = cotangent
            report = course.go_back(B, problem, [*a_ys, *(a_parts[name] for name in names)])
            told, initial, params = heard(report)
            solved, back = gradient.solve(problem, initial, params)
            if problem.backend.backend.auto:
                look_elsewhere(problem, params, *solved)
            _, back = guarded(problem, initial, params, (solved, back))
            pulls.append(back)
            a = tuple(named(told, "a_ys").values()), {name: told["a_part", name] for name in names}
            found = back(a)
            if problem.backend.others:                    # it was computed again
                return send(xp)(found)
            return tree.unflatten(structure, [course.report.there(xp, report, ("gradient", i)) if i in course.floats else None
                                              for i in range(len(leaves))])

        def surely(cotangent: Any) -> Any:
            try:
                return pull(cotangent)
            except Doubt:
                return vjp(lambda y0, params: outputs_of(otherwise(y0, params)), y0, params)[1](cotangent)

        return (ys, parts), surely if problem.differentiated else judged

    return operation

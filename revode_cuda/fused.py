"""Fused solves: the generated loops on a GPU, a block for each tile, one launch for the whole solve.

    solve(..., backend="fused")        Fusing (a backend of revode's) -> Fused (a runner, as Tiles) -> run<<<tiles, threads>>>

Memory on the device: M, the states of all tiles, (tiles, PERSISTENT) numbers, which a block copies to shared memory and back;
P, what comes from the parameters; a table of grid values for each call; the saved states, and their cotangents. Everything else
(increments of noise, intermediate values, sums) never leaves the block.

The same runner serves arrays of the host, which it moves there and back, and it runs without a GPU on the threads of
revode_cuda.host: a Device says where.
"""
from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from revode.checks import prepare
from revode.compiled import plans
from revode.compiled.backend import Backend
from revode.compiled.generate import Source
from revode.compiled.program import evaluate
from revode.compiled.replay import Replay, given, in_order
from revode.compiled.steps import backward_steps, forward_steps
from revode.compiled.tiles import Tiles, tree_sum
from revode.engine import tree
from revode.engine.tensor import NotTraceable, Tensor, is_float
from revode.methods.increment import Increment
from revode.problem import Asked
from revode.stepping import CLOCK, Problem

from . import plan as planning
from .arrays import on_device, require_cupy
from .plan import CannotBeFused, Plan, Plans

STEPS = 1 << 16            # at most so many steps in one launch
WORK = 4e12                # about so many operations in one launch, some seconds
DRIVES = 1 << 28           # numbers of a control that are on the device at one time
# What a launch takes for the types of C; all others are pointers.
TYPES: dict[str, Any] = {"INDEX": np.int64, "int": np.int32, "unsigned": np.uint32, "unsigned long long": np.uint64}


class Device(NamedTuple):
    """Where fused solves run."""
    name: str
    xp: Any                      # the library of its arrays: cupy, or numpy
    arch: str                    # "sm_90", ...
    function: Callable           # function(text, shared, real, mode) -> a function (grid, block, args) that launches `run`
    null: Any                    # what stands for an array that is not there


@cache
def gpu() -> Device:
    """CuPy's current device. Raises ImportError or RuntimeError with what is missing."""
    cupy = require_cupy("solve")
    from .compile import arch
    from .compile import function as load

    def function(text: str, shared: int, real: str, mode: str) -> Callable:
        loaded = {cupy.cuda.Device().id: load(text, "run", real, mode, shared)}

        def call(grid: int, block: int, args: tuple) -> None:
            here = cupy.cuda.Device().id
            if here not in loaded:
                loaded[here] = load(text, "run", real, mode, shared)
            loaded[here]((grid, 1, 1), (block, 1, 1), args, shared_mem=shared)

        return call

    return Device("cuda", cupy, arch(), function, np.uint64(0))


def shim(arch: str = "sm_90", order: str = "ascending", shuffle: int = 0, races: bool = False,
         edit: Callable = str) -> Device:
    """The threads of revode_cuda.host in place of a GPU's; edit(text) may change the text before it is compiled."""
    from .host import launch

    def function(text: str, shared: int, real: str, mode: str) -> Callable:
        text = edit(text)
        return lambda grid, block, args: launch(text, "run", grid, block, args, order, shuffle, shared, real, mode, races)

    return Device("shim", np, arch, function, None)


class Fused(Tiles):
    """One direction of a solve on a device. plan: how it is laid out there."""

    def __init__(self, steps: Any, parts: dict, outputs: tuple[str, ...], direction: str, brownian: bool, strict: bool,
                 device: Device, given: Any = None) -> None:
        self.device, self.given = device, given
        super().__init__(steps, parts, outputs, direction, brownian, strict)

    def settle(self, T: int, make: Any) -> None:
        """Plan, and compile. Raises CannotBeFused where the plan says op by op."""
        def source(T: int) -> Source:
            return Source(self.lowered, T, self.dtype, self.direction, self.outputs, self.brownian)

        if any(x.own for x in self.lowered.values()):
            raise CannotBeFused("solve: parameters or a control with a value of their own for each trajectory, or for each member of "
                                "an ensemble, have no fused form yet; use backend='eager', or solve for the members one by one")
        plan, self.source = planning.make(self.lowered, source, self.rows, self.dtype, self.direction, self.device.arch, self.strict,
                                          self.given)
        if plan.regime == "op by op":
            raise CannotBeFused(f"solve: {plan.reason}; use backend='eager', or plan={{'regime': 'block per tile'}} to fuse it all "
                                "the same")
        self.plan: Plan = plan
        self.T, self.tiles = plan.T, plan.tiles
        self.stride = self.source.persistent if plan.state == "shared" else self.source.size
        work = 4.0 * sum(loop.out.F * (loop.shape[-2] if loop.kind == "linear" else self.T) for loop in self.lowered["step"].loops)
        drive = sum(F for role, (_, F, _) in self.source.places.items() if role[0] == "drive")
        self.chunk = int(min(STEPS, max(16.0, min(WORK / (work * self.rows), DRIVES / max(1, drive * self.rows)))))
        self.real, self.mode = "double" if self.dtype == np.float64 else "float", "strict" if self.strict else "fast"
        self.text = plan.defines + self.source.text
        self.function = self.device.function(self.text, plan.shared, self.real, self.mode)

    def compiled(self) -> Plan:
        """The plan with the registers and spills that NVRTC reports."""
        from .compile import compile
        took = compile(self.text, self.real, self.device.arch, self.mode).resources["run"]
        self.plan = self.plan._replace(registers=took.registers, spills=took.spills)
        return self.plan

    # memory

    def load(self, problem: Problem, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        xp = self.device.xp
        self.problem, self.stats = on_host(problem), problem.stats
        problem.stats.backend = "fused"
        self.moves = isinstance(next(iter(parts.values())), (np.ndarray, np.generic)) and xp is not np
        self.memory = xp.zeros(self.tiles * self.stride, self.dtype)
        self.pack_params(given(problem, params))
        self.begins, self.landed, self.block = True, False, (-1, None)
        self.glimpse, self.flowed_before = None, None
        self.put("part", parts)
        self.put("cotangent", cotangents or {})
        self.atimes = {name: np.zeros(problem.N) for name in CLOCK if problem.timed}
        self.save = xp.asarray(np.asarray([*problem.save, -1], np.int64))
        self.room: tuple | None = None
        self.a_given: Any = None

    def pack_params(self, leaves: list) -> None:
        """What depends on the parameters alone, in one array: joined on the device, where the leaves are there."""
        xp = self.device.xp
        pieces: dict[int, Any] = {}
        done: dict[str, dict[int, Any]] = {}
        for name, v, offset, _ in self.source.layout.params:
            if name not in done:
                which = [i for i, kind in enumerate(self.grids[name].kinds) if kind == "param"]
                done[name] = evaluate(self.lowered[name].program, lambda role: leaves[role[1]], which)   # type: ignore[arg-type]
            pieces.setdefault(offset, xp.asarray(done[name][v], self.dtype).reshape(-1))
        whole, end = [], 0
        for offset in sorted(pieces):
            whole += [xp.zeros(offset - end, self.dtype), pieces[offset]]
            end = offset + pieces[offset].size
        self.P = xp.concatenate([*whole, xp.zeros(max(1, self.source.param_size) - end, self.dtype)])

    def put(self, kind: str, arrays: dict) -> None:
        for name, x in arrays.items():
            if (kind, name) in self.source.places:
                rows = self.device.xp.asarray(self.tiled(x)).reshape(self.tiles, -1)
                offset = self.source.places[kind, name][0]
                self.memory.reshape(self.tiles, -1)[:, offset:offset + rows.shape[1]] = rows

    def tiled(self, x: Any, *steps: int) -> Any:
        """(rows, features) as (tiles, features, lanes), where x is."""
        if isinstance(x, (np.ndarray, np.generic)):
            return super().tiled(x, *steps)
        xp = self.device.xp
        rows = x.reshape(*steps, self.rows, -1)
        short = self.tiles * self.T - self.rows
        if short:
            rows = xp.concatenate([rows, xp.broadcast_to(rows[..., -1:, :], (*steps, short, rows.shape[-1]))], -2)
        return np.swapaxes(rows.reshape(*steps, self.tiles, self.T, -1), -1, -2)

    def read(self, kind: str) -> Any:
        xp, found = self.device.xp, {}
        if kind == "flowed":
            return None if self.source.sums is None else (self.back_home(self.flowed(self.memory)), self.source.begins)
        if kind == "atime":
            return self.atimes
        kind = "landed" if self.landed and kind == "part" else kind
        roles = in_order(self.source.places, kind, self.problem)
        if kind == "aparam" and roles:                    # one tree for all of them
            first = min(self.source.places[role][0] for role in roles)
            last = max(self.source.places[role][0] + self.source.room(*self.source.places[role][1:]) for role in roles)
            whole = tree_sum(self.memory.reshape(self.tiles, -1)[:, first:last])
        for role in roles:
            offset, F, where = self.source.places[role]
            if kind == "aparam":
                x = whole[offset - first:offset - first + F * (self.T if where == "lanes" else 1)]
                x = x.reshape(F, -1)[:, 0] if where == "lanes" else x
            else:
                x = np.transpose(self.place(role), (0, 2, 1)).reshape(self.tiles * self.T, -1)[:self.rows]
            found[role[1]] = self.back_home(xp.array(x, order="C").reshape(self.shapes.get(role, self.shape)))      # no view
        return found

    def back_home(self, x: Any) -> Any:
        return x.get() if self.moves else x

    # running

    def ahead(self, first: int, last: int, ys: Any = None, looks: Any = ()) -> dict:
        if not self.moves or ys is None:
            return super().ahead(first, last, ys, looks)
        self.room = self.room or tuple(self.device.xp.empty(y.shape, self.dtype) for y in ys)
        seen = super().ahead(first, last, self.room, looks)
        new = slice(bisect_right(self.problem.save, first), bisect_right(self.problem.save, last))
        for y, there in zip(ys, self.room, strict=True):
            y[new] = there[new].get()
        return seen

    def empty(self, *shape: int) -> Any:
        return self.device.xp.empty(shape, self.dtype)

    def seen(self, kind: str, looks: Any, seen: Any) -> dict:
        return {name: self.back_home(x) for name, x in super().seen(kind, looks, seen).items()}

    def laid_out(self, a_ys: tuple) -> tuple:
        """The cotangents of the saved states on the device; moved once a sweep."""
        if self.a_given is not a_ys:
            xp = self.device.xp
            self.a_given, self.a_there = a_ys, tuple(xp.ascontiguousarray(xp.asarray(a, self.dtype)) for a in a_ys)
        return self.a_there

    def run(self, *values: Any) -> None:
        types = (type for type, _ in self.arguments)
        self.function(self.tiles, self.plan.threads, tuple(map(self.argument, types, values)))

    def argument(self, type: str, value: Any) -> Any:
        if type in TYPES:
            return TYPES[type](value)
        return self.device.null if value is None or value.size == 0 else self.device.xp.asarray(value)



# the backend

@dataclass(frozen=True)
class Fusing(Backend):
    """The backend of fused solves. auto: go op by op where something stands in the way; else CannotBeFused says what."""
    device: Any = None
    given: Any = None              # what the user has decided of the plan, as pairs

    @property
    def options(self) -> tuple:
        return (*super().options, self.device.name, self.device.arch, self.device.function, self.given)

    def stands_back(self, direction: str, problem: Problem, parts: dict, params: Any) -> bool:
        if any(type(x) is Tensor for x in tree.flatten((parts, params))[0]):
            self.refuse("a derivative of a derivative records every operation on a tape; take first derivatives")
            return True
        found = device_arrays(problem.system.field, getattr(problem.system, "diffusion", None))
        if found:
            why = f"the field holds the device array {', '.join(found)}, and its trace runs on the host; pass it in params"
            self.refuse(why)
            self.tell(problem, NotTraceable(why))
        return bool(found)

    def no_search(self, problem: Problem) -> str | None:
        return "a controller looks at the error of each of its adaptive steps"

    def make(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any, family: Any) -> Any:
        problem.stats.traces += 1
        home = on_host(problem)
        there, values = tree.map(to_host, (parts, params))
        made = plans.Made(steps(home, there, values, self.merge))
        made.check_tables(home)
        replay = Replay(made.steps, there, False)                            # nothing was baked into the trace
        plans.agree_elsewhere(replay, direction, home, there, values)
        plans.agree(replay, direction, home, there, values, problem.N // 2)
        self.runner_of(made, problem, there, direction)
        family.made[direction] = made
        return made

    def compare(self, made: Any, runner: Any, direction: str, problem: Problem, parts: dict, params: Any) -> None:
        """A step op by op on the device costs many launches: the host has compared the programs when they were made."""
        made.check_tables(on_host(problem))

    def build(self, steps: Any, problem: Problem, parts: dict, direction: str) -> Fused:
        return Fused(steps, parts, problem.method.outputs, direction, plans.inside(problem), self.strict,
                     self.device, dict(self.given or ()))

    def cannot(self, problem: Problem, error: Exception, tell: bool = True) -> None:
        if self.auto and isinstance(error, CannotBeFused):
            return
        if isinstance(error, NotTraceable) and not self.auto:
            raise CannotBeFused(f"solve: this solve cannot be fused: {error}; use backend='eager', or 'auto'") from error
        if not self.auto or (self.given and not isinstance(error, NotTraceable)):
            raise error                          # what is wrong with the field the tape says in the user's own terms
        if tell:
            self.tell(problem, error)

    def refuse(self, why: str) -> None:
        if not self.auto:
            raise CannotBeFused(f"solve: this solve cannot be fused, because {why}, or backend='eager'")


def device_arrays(*functions: Any) -> list[str]:
    """The names of device arrays that functions reach besides their arguments: closed over, global, or of an object's own."""
    found, todo, seen = [], [f for f in functions if f is not None], set()
    while todo:
        f = todo.pop()
        if id(f) in seen:
            continue
        seen.add(id(f))
        function = f if isinstance(f, FunctionType) else getattr(f, "__func__", None) or vars(type(f)).get("__call__")
        if not isinstance(function, FunctionType) or function.__module__.partition(".")[0] in ("revode", "numpy"):
            continue
        names = inspect.getclosurevars(function)
        for name, x in {**names.globals, **names.nonlocals, **getattr(getattr(f, "__self__", f), "__dict__", {})}.items():
            if callable(x) and not isinstance(x, type):
                todo.append(x)
            elif any(on_device(leaf) for leaf in (tree.flatten(x)[0] if isinstance(x, (dict, list, tuple)) else [x])):
                found.append(name)
    return sorted(found)


def to_host(x: Any) -> Any:
    return x.get() if hasattr(x, "get") and is_float(x) else x


def on_host(problem: Problem) -> Problem:
    """The problem with increments that stay on the host."""
    if problem.driver is None:
        return problem
    driver = copy(problem.driver)
    driver.place, driver.reader = (lambda x: x), None
    return replace(problem, driver=driver)


def planned(field: Callable, y0: Any, ts: Any, params: Any, device: Device, arithmetic: str, plan: Any, compiled: bool,
            options: dict) -> Plans:
    """See plan.plan_of."""
    names = ("method", "diffusion", "noise", "interpretation", "control")
    unknown = set(options) - set(names)
    if unknown:
        raise TypeError(f"plan_of: {', '.join(sorted(unknown))} cannot be given; {', '.join(names)} can")
    rest = {name: options[name] for name in names[1:] if name in options}
    y0, ts, params = tree.map(to_host, (y0, ts, params))
    problem, initial, params, _ = prepare(Asked(field, y0, ts, params, options.get("method"), **rest))
    parts = problem.start(Increment(problem.system, params), initial)
    backend = Fusing("fused", False, True, arithmetic == "strict", None, device, tuple(planning.chosen(plan).items()))
    found: list[Plan | None] = []
    for direction, steps in (("forward", forward_steps), ("backward", backward_steps)):
        if direction == "backward" and not problem.method.reversible:
            found.append(None)
            continue
        try:
            backend.family(problem, parts, params)
            made = backend.build(steps(problem, parts, params, True), problem, parts, direction)
        except NotTraceable as error:
            raise CannotBeFused(f"plan_of: this solve cannot be fused: {error}") from error
        found.append(made.compiled() if compiled else made.plan)
    return Plans(*found)


def rehearse(arithmetic: str = "strict", threads: int | None = None, T: int | None = None, **how: Any) -> Fusing:
    """A backend for revode.solve that runs the GPU's text on the threads of the host, one after another, in any order.

    Parameters
    ----------
    arithmetic, threads, T : as in a plan.
    how : for `shim`: arch, order, shuffle, races, edit.

    Example
    -------
    >>> import revode as rv
    >>> sol = rv.solve(lambda t, y, p: -y, np.ones((5, 2)), np.linspace(0, 1, 11), backend=rehearse(threads=32, order="random"))
    >>> f"{sol.y1[0, 0]:.3f}"
    '0.369'
    """
    given = {name: value for name, value in (("threads", threads), ("T", T)) if value is not None}
    return Fusing("fused", False, True, arithmetic == "strict", None, shim(**how), tuple(given.items()))

"""Fused solves: the generated loops on a GPU, a block for each tile, one launch for the whole solve.

    solve(..., backend="fused")        Fusing (a backend of revode's) -> Fused (a runner, as Tiles) -> run<<<tiles, threads>>>

Memory: M, the states of all tiles, (tiles, PERSISTENT) numbers, which a block copies to shared memory and back; P, what comes from
the parameters; a table of grid values for each call; the saved states, and their cotangents. Everything else (increments of noise,
intermediate values, sums) never leaves the block. All of that is small, and what is done with it besides the launch (checks, the
watch) is done on the host: it goes to the device in one copy and comes back in one. crossing.py does that for device
arrays, but for large states, at which the watch looks on the device.

It runs without a GPU on the threads of revode_cuda.host: a Device says where.
"""
from __future__ import annotations

import inspect
import logging
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np

from revode.checks import prepare
from revode.compiled import plans
from revode.compiled.backend import Backend
from revode.compiled.generate import ALIGN, Source
from revode.compiled.lines import aligned
from revode.compiled.replay import Replay
from revode.compiled.search import Search
from revode.compiled.steps import backward_steps, forward_steps
from revode.compiled.tiles import Tiles
from revode.engine import tree
from revode.engine.tensor import NotTraceable, Tensor, is_float
from revode.methods.increment import Evaluator
from revode.problem import Asked
from revode.stepping import Problem

from . import estimate
from . import plan as planning
from .arrays import on_device, require_cupy
from .plan import CannotBeFused, Plan, Plans

STEPS = 1 << 16            # at most so many steps in one launch
WORK = 4e12                # about so many operations in one launch, some seconds
DRIVES = 1 << 28           # numbers of a control that are on the device at one time
AGAIN = "again"            # a direction: forward along a grid that the device has found (search.py)
# What a launch takes for the types of C; all others are pointers.
TYPES: dict[str, Any] = {"INDEX": np.int64, "int": np.int32, "unsigned": np.uint32, "unsigned long long": np.uint64}


class Device(NamedTuple):
    """Where fused solves run."""
    name: str
    xp: Any                      # the library of its arrays: cupy, or numpy
    arch: str                    # "sm_90", ...
    function: Callable           # function(text, shared, real, mode, name="run") -> a function (grid, block, args) that launches it
    null: Any                    # what stands for an array that is not there


@cache
def gpu() -> Device:
    """CuPy's current device. Raises ImportError or RuntimeError with what is missing."""
    cupy = require_cupy("solve")
    from .compile import arch
    from .compile import function as load

    def function(text: str, shared: int, real: str, mode: str, name: str = "run") -> Callable:
        loaded = {cupy.cuda.Device().id: load(text, name, real, mode, shared)}

        def call(grid: int, block: int, args: tuple) -> None:
            here = cupy.cuda.Device().id
            if here not in loaded:
                loaded[here] = load(text, name, real, mode, shared)
            loaded[here]((grid, 1, 1), (block, 1, 1), args, shared_mem=shared)

        return call

    return Device("cuda", cupy, arch(), function, np.uint64(0))


def shim(arch: str = "sm_90", order: str = "ascending", shuffle: int = 0, races: bool = False,
         edit: Callable = str) -> Device:
    """The threads of revode_cuda.host in place of a GPU's; edit(text) may change the text before it is compiled."""
    from .host import launch

    def function(text: str, shared: int, real: str, mode: str, name: str = "run") -> Callable:
        text = edit(text)
        return lambda grid, block, args: launch(text, name, grid, block, args, order, shuffle, shared, real, mode, races)

    return Device("shim", np, arch, function, None)


class Fused(Tiles):
    """One direction of a solve on a device. plan: how it is laid out there."""
    shows = 1 << 26            # a launch and its wait take as long as some megabytes

    def __init__(self, steps: Any, parts: dict, outputs: tuple[str, ...], direction: str, brownian: bool, strict: bool,
                 device: Device, given: Any = None) -> None:
        self.device, self.given = device, given
        self.beside, self.there = 0, cast(Any, None)
        self.image: dict | None = None                    # where P and M are, while calls are queued (ahead.py)
        self.courses: dict = {}                           # of ahead.py
        self.kept: list | None = None                     # while a graph is captured: the arguments that it will refer to
        self.tables: dict[str, tuple] = {}                # by argument: its place in memory, the array, and its image on the device
        super().__init__(steps, parts, outputs, direction, brownian, strict)

    def build(self, T: int, make: Any) -> None:
        """Plan, and compile. Raises CannotBeFused where the plan says op by op."""
        plan, self.source = planning.make(self.lowered, self.text_of, self.rows, self.dtype, self.direction, self.device.arch,
                                          self.strict, self.given)
        if plan.regime == "op by op":
            raise CannotBeFused(f"solve: {plan.reason}; use backend='eager', or plan={{'regime': 'block per tile'}} to fuse it all "
                                "the same")
        self.plan: Plan = plan
        self.T, self.tiles = plan.T, plan.tiles
        self.name = "fused"
        work = 4.0 * sum(loop.out.F * (loop.shape[-2] if loop.kind == "linear" else self.T) for loop in self.lowered["step"].loops)
        drive = sum(F for role, (_, F, _) in self.source.places.items() if role[0] == "drive")
        self.chunk = int(min(STEPS, max(16.0, min(WORK / (work * self.rows), DRIVES / max(1, drive * self.rows)))))
        self.real, self.mode = "double" if self.dtype == np.float64 else "float", "strict" if self.strict else "fast"
        self.text = plan.defines + self.source.text
        self.function = self.load_kernel()

    def load_kernel(self) -> Any:
        return self.device.function(self.text, self.plan.shared, self.real, self.mode)

    def text_of(self, *how: int) -> Source:
        return Source(self.lowered, how[0], self.dtype, self.direction, self.outputs, self.brownian, *how[1:])

    def compiled(self) -> Plan:
        """The plan with the registers and spills that NVRTC reports."""
        from .compile import compile
        took = compile(self.text, self.real, self.device.arch, self.mode).resources["run"]
        self.plan = self.plan._replace(registers=took.registers, spills=took.spills)
        return self.plan

    # memory: that of the host, as Tiles has it, and its image on the device, which one copy makes before a launch, and one after

    @property
    def stride(self) -> int:
        return self.source.size if self.plan.state == "global" else self.source.persistent

    def rooms(self, *sizes: int) -> list[np.ndarray]:
        """Memory and P, one after the other, and what a call leaves (and brings) besides."""
        nM, nP = (-(-n // ALIGN) * ALIGN for n in sizes)
        self.inside = nM + nP
        self.whole = aligned((self.inside + self.beside,), self.dtype)
        return [self.whole[nP:nP + sizes[0]], self.whole[:sizes[1]]]

    def load(self, problem: Problem, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        self.home = next(iter(parts.values()))            # results go where this is
        super().load(on_host(problem), *tree.map(to_host, (params, parts, cotangents)))

    def lift(self, x: Any) -> Any:
        return x if isinstance(self.home, (np.ndarray, np.generic)) else self.device.xp.asarray(x)

    def tiled(self, x: Any, *steps: int) -> np.ndarray:
        return super().tiled(to_host(x), *steps)

    def laid_out(self, a_ys: tuple) -> tuple:
        return super().laid_out(tuple(map(to_host, a_ys)))

    def read(self, kind: str) -> Any:
        if kind == "flowed":
            return None if self.source.sums is None else (self.flowed(self.lift(self.memory)), self.source.begins)
        found = super().read(kind)
        return found if kind == "atime" else {name: self.lift(x) for name, x in found.items()}

    def looking(self, looks: Any, last: int = -1, room: Any = None) -> tuple[Any, Any]:
        return super().looking(looks, room=room)

    def room(self, looks: int) -> Any:
        """What is seen stays where the arrays of the solve are, since of large states it is much."""
        if isinstance(self.home, (np.ndarray, np.generic)):
            return super().room(looks)
        return self.device.xp.empty((looks, self.tiles, self.source.seen), self.dtype)

    def ahead(self, first: int, last: int, ys: Any = None, looks: Any = ()) -> dict:
        if ys is None or all(isinstance(y, np.ndarray) for y in ys):
            return super().ahead(first, last, ys, looks)
        rows = [np.empty(y.shape, self.dtype) for y in ys]
        seen = super().ahead(first, last, rows, looks)
        new = slice(bisect_right(self.problem.save, first), bisect_right(self.problem.save, last))
        for y, x in zip(ys, rows, strict=True):
            y[new] = self.lift(x[new])
        return seen

    # running

    def run(self, *values: Any) -> None:
        """Launch, between two copies of all that changes: memory and P, what is looked at, states or their cotangents."""
        xp = self.device.xp
        given = dict(zip((name for _, name in self.arguments), values, strict=True))
        if xp is np or self.image is not None:
            self.launch({**given, **(self.image or {})})
            return
        moving = [name for name in given if name[0] in "YLW" and isinstance(given[name], np.ndarray) and given[name].size]
        ends = np.cumsum([0, *(-(-given[name].size // ALIGN) * ALIGN for name in moving)]).tolist()
        if ends[-1] > self.beside:
            before, self.beside = self.whole[:self.inside], ends[-1]
            self.allocate()
            self.whole[:self.inside] = before
            self.there = None
        if self.there is None:
            self.there = xp.empty(self.whole.size, self.dtype)
        end = self.inside + ends[-1]
        there, here = self.there[:end], self.whole[:end]
        places = {name: slice(self.inside + at, self.inside + at + given[name].size) for name, at in zip(moving, ends, strict=False)}
        for name, at in places.items():
            if self.direction != "forward" and name[0] == "Y":
                here[at] = given[name].reshape(-1)
        there.set(here)
        nP = self.inside - (-(-self.memory.size // ALIGN) * ALIGN)
        self.launch({**given, **{name: there[at] for name, at in places.items()}, "P": there[:self.P.size],
                     "M": there[nP:nP + self.memory.size]})
        there[nP:].get(out=here[nP:])
        first, last, save = given["first"], given["last"], self.problem.save
        for name, at in places.items():
            if name[0] != "Y":
                given[name][...] = here[at].reshape(given[name].shape)
            elif self.direction == "forward":
                new = slice(bisect_right(save, first), bisect_right(save, last))
                given[name][new] = here[at].reshape(given[name].shape)[new]

    def launch(self, given: dict) -> None:
        args = tuple(self.argument(type, name, given[name]) for type, name in self.arguments)
        if self.kept is not None:
            self.kept.append(args)
        self.function(self.plan.blocks, self.plan.threads, args)

    def argument(self, type: str, name: str, value: Any) -> Any:
        """As a launch takes it. Tables are mostly those of the last call, and are there already."""
        if type in TYPES:
            return TYPES[type](value)
        if value is None or value.size == 0:
            return self.device.null
        if not isinstance(value, np.ndarray) or self.device.xp is np:
            return value
        key = value.ctypes.data, value.shape
        if self.tables.get(name, (None,))[0] != key:
            self.tables[name] = key, value, self.device.xp.asarray(value)      # value is held, so that nothing else gets its address
        return self.tables[name][2]


# the backend

class OpByOp(Exception):
    """Not fused, nor asked to be by name: these arrays are for the device, op by op."""


@dataclass(frozen=True)
class Fusing(Backend):
    """The backend of fused solves. auto: go op by op where something stands in the way; else CannotBeFused says what."""
    device: Any = None
    given: Any = None              # what the user has decided of the plan, as pairs
    crossed: bool = False          # the arrays are those of the device, moved: what is not fused is no work for the host
    bound: bool = False            # the field holds arrays of the host, with which op by op is no way

    def runner(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any) -> Any:
        if direction == "search" and self.crossed:            # its launches would be small, and the state is on the host
            self.say(problem, "the adaptive steps of %s are found on the host, as those of all small states are", logging.INFO)
            return Backend().runner(direction, steps, problem, parts, params)
        found = super().runner(direction, steps, problem, parts, params)
        if found is None and self.crossed and direction == "forward":
            if problem.adaptive is not None:                  # whose steps were found on the host: along them, too
                return Backend().runner(direction, steps, problem, parts, params)
            raise OpByOp
        return found

    @property
    def options(self) -> tuple:
        return (*super().options, self.auto, self.device.name, self.device.arch, self.device.function, self.given)

    def stands_back(self, direction: str, problem: Problem, parts: dict, params: Any) -> bool:
        return self.taped(tree.flatten((parts, params))[0])

    def taped(self, arrays: list) -> bool:
        if any(type(x) is Tensor for x in arrays):
            self.refuse("a derivative of a derivative records every operation on a tape; take first derivatives")
            return True
        return False

    def pays(self, family: Any, problem: Problem) -> bool:
        return super().pays(family, problem) or self.bound

    def no_search(self, problem: Problem) -> str | None:
        if problem.driver is not None or problem.system.control is not None:
            why: str | None = "the host makes noise and controls for each attempt"
        elif problem.flushed is not None:
            why = "exact=True looks at the numbers of each step"
        else:
            why = super().no_search(problem)
        if why is not None and self.auto:
            self.say(problem, f"the adaptive steps of %s are found op by op on the device, because {why}", logging.INFO)
        return why

    def planned(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any) -> Any:
        """What cannot be searched for by a kernel goes op by op, also where fusing was asked for by name."""
        try:
            return super().planned(direction, steps, problem, parts, params)
        except (CannotBeFused, NotTraceable) as error:
            if direction != "search":
                raise
            self.say(problem, "the adaptive steps of %s are found op by op on the device, because %s", logging.INFO,
                     str(error).removeprefix("solve: "))
            with suppress(Exception):
                self.family(problem, parts, params).made.setdefault(direction, None)
            return None

    def make(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any, family: Any) -> Any:
        problem.stats.traces += 1
        home = on_host(problem)
        there, values = tree.map(to_host, (parts, params))
        made = plans.Made(steps(home, there, values, self.merge))
        made.check_tables(home)
        replay = (Search if direction == "search" else Replay)(made.steps, there, False)            # nothing was baked into the trace
        way = "forward" if direction == AGAIN else direction
        plans.agree_elsewhere(replay, way, home, there, values)
        plans.agree(replay, way, home, there, values, problem.N // 2)
        self.runner_of(made, problem, there, direction)
        family.made[direction] = made
        return made

    def compare(self, made: Any, runner: Any, direction: str, problem: Problem, parts: dict, params: Any) -> None:
        """A step op by op on the device costs many launches: the host has compared the programs when they were made."""
        made.check_tables(on_host(problem))

    def build(self, steps: Any, problem: Problem, parts: dict, direction: str) -> Fused:
        given, outputs = dict(self.given or ()), problem.method.outputs
        if direction == "search":
            from .search import SearchFused
            return SearchFused(steps, parts, outputs, not problem.method.exactly_reversible, self.strict, self.device, given)
        if direction == AGAIN:
            from .search import Again
            return Again(steps, parts, outputs, "forward", False, self.strict, self.device, given)
        return Fused(steps, parts, outputs, direction, plans.inside(problem), self.strict, self.device, given)

    def cannot(self, problem: Problem, error: Exception, tell: bool = True) -> None:
        if self.auto and isinstance(error, CannotBeFused):
            self.say(problem, "the field %s goes op by op: %s", logging.INFO, str(error).removeprefix("solve: "))
            return
        if isinstance(error, NotTraceable) and not self.auto:
            raise CannotBeFused(f"solve: this solve cannot be fused: {error}; use backend='eager', or 'auto'") from error
        if not self.auto or (self.given and not isinstance(error, NotTraceable)):
            raise error                          # what is wrong with the field the tape says in the user's own terms
        if tell:
            self.tell(problem, error)

    def tape_alone(self, field: Callable, found: list[str], arrays: list) -> bool:
        """Whether the functions of a solve hold arrays of the device, or tensors of tensors are given, which do not go to the host:
        then it goes op by op, or not at all."""
        if found:
            why = f"the field holds the device array {', '.join(found)}, and its trace runs on the host; pass it in params"
            self.refuse(why)
            self.tell(cast(Any, SimpleNamespace(system=SimpleNamespace(field=field))), NotTraceable(why))
        return bool(found) or self.taped([x.value for x in arrays if type(x) is Tensor])

    def refuse(self, why: str) -> None:
        if not self.auto:
            raise CannotBeFused(f"solve: this solve cannot be fused, because {why}, or backend='eager'")


def arrays_held(*functions: Any) -> tuple[list[str], list[str]]:
    """The names of arrays that functions reach besides their arguments, of the device and of the host: closed over, global, or of an
    object's own."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    todo, seen = [f for f in functions if f is not None], set()
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
                continue
            for leaf in tree.flatten(x)[0] if isinstance(x, (dict, list, tuple)) else [x]:
                if on_device(leaf) or isinstance(leaf, np.ndarray):
                    found[on_device(leaf)].add(name)
    return sorted(found[True]), sorted(found[False])


def to_host(x: Any) -> Any:
    return x.get() if hasattr(x, "get") and is_float(x) else x


def on_host(problem: Problem) -> Problem:
    """The problem with increments that stay on the host, and steps in y's dtype where a controller has found them, as there."""
    if problem.adaptive is not None and type(problem.hs) is list and problem.adaptive.arrived(problem):
        problem = replace(problem, hs=np.asarray(problem.hs, problem.adaptive.dtype))
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
    parts = problem.start(Evaluator(problem.system, params), initial)
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
        plan = made.compiled() if compiled else made.plan
        found.append(plan._replace(counts=estimate.estimated(plan, made.source.lowered["step"], made.source, made.dtype.itemsize,
                                                             planning.capacity(device.arch))))
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
    '0.368'
    """
    given = {name: value for name, value in (("threads", threads), ("T", T)) if value is not None}
    return Fusing("fused", False, True, arithmetic == "strict", None, shim(**how), tuple(given.items()))

"""The generated loops at work: the state of every tile in one array, and one call for many steps.

The verbs of engines/protocol.py. A tile holds T trajectories; the last one is
filled up with copies of its last trajectory, which count in no sum. Sums for the parameters are added over the tiles in a
fixed tree, so they do not depend on the number of threads.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from ctypes import c_longlong, c_void_p
from functools import cached_property, lru_cache
from math import prod
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from ..engines.protocol import Rows
from ..stepping import CLOCK, Problem
from . import quiet, stretches
from .calls import DTYPES, address
from .generate import ARGUMENTS, Source, arguments, packed
from .lines import aligned
from .loops import LANES, MEMBER, Lowered, Own
from .lower import lower_all
from .native import arguments as as_c
from .native import build, run_tiles
from .program import V, evaluate, kinds
from .replay import KEPT, Grid, given, in_order
from .rules import prepared
from .steps import StepPrograms

STEPS = 1024               # at most so many steps in one call for a tile; between calls Python is asked whether to stop
WORK = 2e8                 # about so many operations in one call: .2 s on a slow core, .02 s where vectors are at work
ELEMENTARY, NORMAL = 40, 60          # operations that an elementary function, and a normal number, count for
MANY, ROOM = 128, 1 << 19  # of a tile beside wide matrices: trajectories at most, and bytes of its widest value
FEW = 4                    # tiles at least, for as many threads, where that many trajectories are in one
PIECE = 1 << 20            # bytes of states that change their layout at a time
TABLES, HEAD = ([name for _, name in ARGUMENTS].index(name) for name in ("GB", "saved"))    # between: mostly those of the last call
LOOKS = [name for _, name in ARGUMENTS].index("look") - len(ARGUMENTS)             # so are the places where it looks: from the end
NOT_PASSED: tuple = ((None,) * (HEAD - TABLES), [None] * (HEAD - TABLES))
NOWHERE = np.asarray([-1], np.int64)
WIDEST = 256               # matrices from this size on are better left to the BLAS: see `worth`


def tile_of(rows: int, dtype: Any) -> int:
    """Trajectories in a tile: a few vectors of the processor, so that sums stay in registers and values in the cache."""
    largest = 16 if np.dtype(dtype) == np.float64 else 32
    T = 1
    while T < min(rows, largest):
        T *= 2
    return T


def operations(lowered: Lowered) -> int:
    """About how many operations a program takes for one trajectory."""
    return sum(loop.out.F * (loop.shape[1] if loop.kind == "linear" else loop.tables[0].shape[1] if loop.tables else
                             ELEMENTARY if loop.text.startswith("rv_") else 1) for loop in lowered.loops)


class Ready(NamedTuple):
    """A call as the generated code takes it, but for the arrays that differ from solve to solve."""
    part: tuple                        # which steps, and how
    same: tuple                        # arrays that are told by being the same
    numbers: np.ndarray                # arguments, and where they lie
    at: int
    nfe: int
    nvjp: int
    kept: tuple                        # what the arguments point to


class Tiles:
    """One direction of a solve in generated loops. host: builds the source and runs a call (native, or a GPU)."""
    looks_often = False
    as_given: Callable = staticmethod(lambda value: as_given(value))
    walks: int = 0             # of solves with checkpoints; and who makes them (stretches.py)
    walker: Any = None
    measure: Any = None        # of the way back: whether all was quiet (watch/quiet.py); and what of the last one it is told by
    trip: Any = None           # (called.py)
    kinds: Callable = staticmethod(kinds)
    shows = 1 << 20            # bytes of states in one call: each call begins with tiles that have left the cache
    holds = 1 << 23            # of all looks in one call
    pays = 40000               # so many steps take some fifty times as long as one on the tape

    def __init__(self, steps: StepPrograms, parts: dict, outputs: tuple[str, ...], direction: str, brownian: bool,
                 strict: bool = False, threads: int | None = None, T: int | None = None, make: Callable | None = None) -> None:
        self.steps, self.direction, self.strict, self.threads = steps, direction, strict, threads
        self.name = "native" if make is None else "replay"
        first = next(iter(parts.values()))
        self.shape, self.dtype = first.shape, first.dtype
        batch = self.shape[:-1]
        self.rows = int(np.prod(batch))
        self.nb = len(batch) if self.rows > 1 else 0
        ready = {name: prepared(program) for name, program in steps.programs.items()}
        self.lowered = lower_all(ready, batch, self.kinds)
        self.grids = {name: Grid(program, self.kinds(program)) for name, program in ready.items()}
        self.counts = [(name, counts.nfe, counts.nvjp) for name, counts in steps.counts.items() if name in self.lowered]
        self.outputs, self.brownian = outputs, brownian
        self.arguments = arguments(len(outputs))
        self.memory: Any = None                           # of all tiles; P: what depends on the parameters alone
        self.passed = NOT_PASSED                          # tables and memory of the last call, and these for C
        self.looked: tuple = (None, None)                 # where it looked, likewise
        self.ready: Ready | None = None
        self.block: tuple = (-1, None)                    # the first of so many steps as one call makes, and their grid values
        self.roles: dict[tuple, list] = {}
        self.layouts: dict[tuple, tuple] = {}             # by kinds: where they lie in a row of what was seen
        self.built: dict[str, tuple[dict, np.ndarray]] = {}       # by program: the grid's values, and the columns of them
        self.shapes = {role: x.shape for program in steps.programs.values() for x in program.values if (role := x.role) is not None}
        self.members = max(x.ensemble for x in self.lowered.values())
        self.build(T or self.tile(self.rows // self.members), make)
        self.driven = next((role for role in self.source.places if role[0] == "drive"), None)
        # whether a call differs from the last one in nothing but the arrays that it writes to, where the grid is the same
        self.stays = make is None and type(self).run is Tiles.run and self.driven is None and not self.source.clocks and not any(
            grid.controlled or grid.looked_up for grid in self.grids.values())

    def tile(self, rows: int) -> int:
        """Trajectories in a tile: more of them beside wide matrices, which are read once for all of a tile."""
        T, wide = tile_of(rows, self.dtype), max((side for x in self.lowered.values() for loop in x.loops
                                                  if loop.kind in ("linear", "outer") for side in loop.shape[-2:]), default=0)
        most = min(rows, MANY, ROOM // (max(1, wide) * self.dtype.itemsize), max(4 * T, rows // FEW)) if wide >= WIDEST else T
        while 2 * T <= most:
            T *= 2
        return T

    def build(self, T: int, make: Callable | None) -> None:
        """Choose the size of a tile, and build."""
        self.T, self.tiles = T, self.members * -(-self.rows // (self.members * T))
        self.source = Source(self.lowered, T, self.dtype, self.direction, self.outputs, self.brownian)
        self.chunk = int(min(STEPS, max(1, WORK / max(1.0, self.work()))))
        if make is None:
            self.as_given = as_number
            library = build(f"{self.source.host}\n{packed(self.arguments)}\n", self.strict)
            self.function, self.repeat, self.measure = library.run, library.packed, quiet.Measure(self.dtype)
            self.function.restype = self.repeat.restype = None
            self.repeat.argtypes = [c_longlong, c_void_p]
            self.function.argtypes = [c_longlong, *(c_void_p if "*" in kind else c_longlong for kind, _ in self.arguments)]
        else:
            self.function = make(self.source)

    def work(self) -> float:
        """About how many operations a step of a tile takes."""
        noise = sum(NORMAL * F for role, (_, F, _) in self.source.places.items() if role[0] == "drive") if self.brownian else 0
        return 2.0 * self.T * (operations(self.lowered["step"]) + noise)

    def load(self, problem: Problem, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        """Begin a sweep from these parts (going back: and their cotangents)."""
        self.problem, self.stats = problem, problem.stats
        problem.stats.backend = self.name
        if self.memory is None:
            self.allocate()
        self.persistent.fill(0)                                                             # the rest is written before it is read
        self.pack_params(given(problem, params))
        self.begins, self.landed = True, False
        self.glimpse: Any = None                          # what was seen at the last looks, and the sums for the parameters before
        self.flowed_before: Any = None
        self.block = -1, None
        self.drop()
        self.put("part", parts)
        self.put("cotangent", cotangents or {})
        self.atimes = {name: np.zeros(problem.N) for name in CLOCK} if problem.timed else {}
        self.save = ended(tuple(problem.save))
        self.drive = problem.driver

    @property
    def stride(self) -> int:
        """Numbers of a tile in the memory."""
        return self.source.size

    def allocate(self) -> None:
        """The memory, which all solves of this thread use one after another, and where things go in it."""
        self.memory, self.P = self.rooms(self.tiles * self.stride, self.source.param_size + 1 + self.tiles * self.source.own_size)
        whole = self.memory.reshape(self.tiles, -1)
        self.persistent, self.front = whole[:, :self.source.persistent], whole[:, :self.source.seen]         # front: what looks see
        Q = self.P[self.source.param_size:-1].reshape(self.tiles, -1)
        self.packed_own = [(Q[:, offset:offset + n], name, self.lowered[name].own[i]) for name, i, offset, n in self.source.layout.own]
        # by role where a value lies; by kind names, and where the numbers lie as they are read
        self.views, self.readers = {role: self.place(role) for role in self.source.places}, dict[str, list[tuple]]()
        vars(self).pop("flat", None)                               # which lay in what was there before
        self.packed: list[tuple[np.ndarray, str, int]] = []        # where in P, and which value of which program
        self.before: dict[str, list[int]] = {}                     # by program: the values that depend on the parameters
        self.copied: list[tuple[np.ndarray, int]] = []             # where in P, and which leaf lies there as it is, or transposed
        known = set()
        for name, v, offset, F in self.source.layout.params:
            if offset in known:                                    # what several programs read
                continue
            known.add(offset)
            values: Any = self.lowered[name].program.values                                        # type: ignore[union-attr]
            room = self.P[offset:offset + F].reshape(values[v].shape)
            x, of = values[v], values[v] if values[v].op is None else values[values[v].args[0]] if turned(values[v]) else None
            if x.op is None:
                self.copied.append((room, x.role[1]))
            elif of is not None and of.op is None:                     # a transposed leaf is copied as one
                axes = x.options["axes"]
                self.copied.append((room.transpose(None if axes is None else [int(i) for i in np.argsort(axes)]), of.role[1]))
            else:
                self.packed.append((room, name, int(v)))
        for name in dict.fromkeys(name for _, name, _ in (*self.packed, *self.packed_own)):
            self.before[name] = [i for i, kind in enumerate(self.grids[name].kinds) if kind == "param"]
        self.sums = {role: {kind for lowered in self.lowered.values() if (kind := lowered.sums.get(role)) is not None}
                     for role in self.source.places}

    @cached_property
    def flat(self) -> dict:
        """The views of what is shaped like y, where there is one trajectory: these lie as they are."""
        alone = self.rows == self.T == 1 and type(self.memory) is np.ndarray
        return {role: x.reshape(self.shape) for role, x in self.views.items() if alone and x.size == prod(self.shape)}

    def rooms(self, *sizes: int) -> list[np.ndarray]:
        """Arrays of so many numbers each."""
        return [aligned((n,), self.dtype) for n in sizes]

    def pack_params(self, leaves: list) -> None:
        """What depends on the parameters alone, in one array."""
        done = {name: evaluate(self.lowered[name].program, lambda role: leaves[role[1]], which)     # type: ignore[arg-type]
                for name, which in self.before.items()}
        for room, i in self.copied:
            room[...] = leaves[i]
        for room, name, v in self.packed:
            room[...] = done[name][v]
        for room, name, own in self.packed_own:
            x = self.of_tiles(own, np.reshape(done[name][own.v], -1))
            room[:, :x.shape[1]] = x

    def of_tiles(self, own: Own, x: np.ndarray, *steps: int) -> np.ndarray:
        """What each tile has of its own of a value, (tiles, numbers); of many steps as well."""
        found = x[..., own.at]
        if own.kind == LANES:
            found = self.tiled(found, *steps)
            found = np.pad(found, [(0, 0)] * (found.ndim - 1) + [(0, self.source.stride - self.T)])
        else:
            found = np.repeat(found, self.tiles // self.members, -2)
        return found.reshape(*steps, self.tiles, -1)

    def place(self, role: Any) -> np.ndarray:
        """Where a value lies: (tiles, F, T) or (tiles, F)."""
        return self.within(self.memory.reshape(self.tiles, -1), role)

    def within(self, x: np.ndarray, role: Any) -> np.ndarray:
        """A value in what tiles hold, (..., tiles, numbers): (..., tiles, F, T) or (..., tiles, F)."""
        offset, F, kind = self.source.places[role]
        stride = self.source.stride
        if kind != LANES:
            return x[..., offset:offset + F]
        return x[..., offset:offset + F * stride].reshape(*x.shape[:-1], F, stride)[..., :self.T]

    def put(self, kind: str, arrays: dict) -> None:
        for name, x in arrays.items():
            if (kind, name) in self.flat:
                self.flat[kind, name][...] = x
            elif (kind, name) in self.views:
                self.views[kind, name][...] = self.tiled(x)

    def tiled(self, x: Any, *steps: int) -> np.ndarray:
        """(rows, features) as (tiles, features, lanes); of many steps as well. A tile has trajectories of one member."""
        if self.rows == 1:
            return (x if type(x) is np.ndarray else np.asarray(x)).reshape(*steps, 1, -1, 1)
        rows = np.asarray(x).reshape(*steps, self.members, self.rows // self.members, -1)
        short = self.tiles * self.T // self.members - rows.shape[-2]
        if short:
            rows = np.concatenate([rows, np.repeat(rows[..., -1:, :], short, -2)], -2)
        return np.swapaxes(rows.reshape(*steps, self.tiles, self.T, -1), -1, -2)

    def untiled(self, x: Any, *steps: int) -> Any:
        """(tiles, features, lanes) as (rows, features)."""
        if self.rows == 1:
            return x.reshape(*steps, 1, -1)
        lanes = np.swapaxes(x, -1, -2).reshape(*steps, self.members, -1, x.shape[-2])
        return lanes[..., :self.rows // self.members, :].reshape(*steps, self.rows, -1)

    def read(self, kind: str) -> Any:
        """Copies of the parts, or of the cotangents, or of the sums for the parameters (by their number); or rows of what these were
        at the last looks."""
        if kind == "flowed":
            return None if self.source.sums is None else (self.flowed(self.memory), self.source.begins)
        if kind == "atime":
            return self.atimes
        kind = "landed" if self.landed and kind == "part" else kind
        if kind in self.readers:
            return {name: x.copy() for name, x in self.readers[kind]}
        found = {}
        for role in self.roles_of(kind):
            x = self.views[role]
            if kind == "aparam":
                found[role[1]] = self.summed(role, x)
            else:
                rows = x if self.rows == 1 else self.untiled(x)
                found[role[1]] = rows.reshape(self.shapes.get(role, self.shape)).copy()                  # for one trajectory a view
        if self.rows == 1 and not any(self.sums[role] & {LANES, MEMBER} for role in self.roles_of(kind) if kind == "aparam"):
            self.readers[kind] = [(role[1], self.views[role].reshape(found[role[1]].shape)) for role in self.roles_of(kind)]
        return found

    def flowed(self, memory: Any) -> Any:
        """The sums for the parameters when this was asked before, at the last looks, and now, as rows."""
        at = self.source.sums
        now, looks = memory.reshape(self.tiles, -1)[:, at], 0 if self.glimpse is None else len(self.glimpse)
        rows = np.empty_like(now, shape=(looks + 2, *now.shape))
        rows[0], rows[-1] = 0 if self.flowed_before is None else self.flowed_before, now
        if looks:
            rows[1:-1] = self.glimpse[:, :, at]
        self.flowed_before = rows[-1]
        return rows[:, 0] if self.tiles == 1 else rows.sum(axis=1)

    def summed(self, role: Any, x: np.ndarray) -> np.ndarray:
        """The gradient of a parameter: over the tiles; where there is one for each member, or each trajectory, over theirs."""
        kinds = self.sums[role]
        if LANES in kinds:
            found = self.untiled(x)
        elif MEMBER in kinds:
            found = tree_sum(np.swapaxes(x.reshape(self.members, -1, *x.shape[1:]), 0, 1))
        else:
            found = tree_sum(x)
        return found.reshape(self.shapes[role]).copy()

    def roles_of(self, kind: str) -> list:
        """in_order(), kept."""
        key = kind, tuple(self.problem.method.parts)
        if key not in self.roles:
            self.roles[key] = in_order(self.source.places, kind, self.problem)
        return self.roles[key]

    def columns(self, name: str, first: int, last: int) -> np.ndarray:
        """The grid values that a program reads, one row for each step; of the step itself a piece of a block's."""
        if name != "step":
            return self.table(name, first, last)
        begin = first // self.chunk * self.chunk
        if self.block[0] != begin:
            self.drop()                                   # the last one goes before the next one is made
            self.block = begin, self.table(name, begin, min(begin + self.chunk, self.problem.N))
        whole = self.block[1]                             # the same array again, where all of it is asked for
        return whole if last - first == len(whole) else whole[first - begin:last - begin]

    def drop(self) -> None:
        """Let go of the grid values of a block, where the grid has several."""
        if self.chunk < self.problem.N:
            self.block, self.passed, self.ready = (-1, None), NOT_PASSED, None

    def table(self, name: str, first: int, last: int) -> np.ndarray:
        columns, own = self.source.layout.columns.get(name, []), self.source.layout.own_columns.get(name, [])
        if not columns and not own:
            return nothing(last - first)
        at = self.grids[name].tables(self.problem, first, last)
        if KEPT <= last - first < self.problem.N:
            return self.filled(name, at, last - first)
        if name not in self.built or self.built[name][0] is not at:          # another grid
            self.built[name] = at, self.filled(name, at, last - first)
        return self.built[name][1]

    def filled(self, name: str, at: dict[int, Any], steps: int) -> np.ndarray:
        """The values of the grid that a program reads, by their numbers, as rows."""
        width, each = self.source.widths(name)
        table = np.zeros((steps, width + self.tiles * each))
        for v, offset, n in self.source.layout.columns.get(name, []):
            table[:, offset:offset + n] = np.asarray(at[int(v)], np.float64).reshape(steps, n)
        H = table[:, width:].reshape(steps, self.tiles, each)
        for i, offset, _ in self.source.layout.own_columns.get(name, []):
            mine = self.lowered[name].own[i]
            x = self.of_tiles(mine, np.asarray(at[int(mine.v)], np.float64).reshape(steps, -1), steps)
            H[..., offset:offset + x.shape[-1]] = x
        return table

    def call(self, first: int, last: int, begins: bool = False, lands: bool = False, flushes: bool = False, saved: int = 0,
             ys: Any = (), looks: Any = NOWHERE, looked: int = 0, seen: Any = None, known: Any = None) -> None:
        """Steps first .. last - 1, in the direction of this sweep."""
        problem = self.problem
        same = problem.ts, problem.hs, self.save, looks
        part = first, last, begins, lands, flushes, saved, looked, problem.h_before
        if self.ready is not None and self.ready.part == part and all(map(is_, same, self.ready.same)) and known is None:
            self.again(self.ready, ys, seen)
            return
        N, within = self.problem.N, self.lowered
        edge = min(first, N - 1) if self.direction == "forward" else last - 1
        times = {"begin": begins, "land": lands, "step": last - first - lands, "end": flushes}
        self.tally(times)
        W = np.empty((last - first, self.tiles, len(self.source.clocks)), self.dtype) if self.source.clocks else None
        self.run(first, last, int(begins), int(lands), int(flushes),                   # in the order of generate.ARGUMENTS
                 self.columns("begin", edge, edge + 1) if begins and "begin" in within else None, self.columns("step", first, last),
                 self.columns("land", first, first + 1) if lands and "land" in within else None,
                 self.columns("end", first, first + 1) if flushes and "end" in within else None,
                 self.P, self.memory, self.rows, self.save, saved, *(ys or [None] * len(self.outputs)), *self.drives(first, last),
                 *self.counters(), looks, looked, seen, known, W)
        if self.stays and known is None and type(problem.ts) is np.ndarray and last - first == N:
            self.ready = self.made_ready(part, same, times)
        for j, (name, _) in enumerate(self.source.clocks):
            self.atimes[name][first:last] = tree_sum(W[:, :, j].T)                                  # type: ignore[index]

    def tally(self, times: dict[str, int]) -> None:
        """So often each program has been run."""
        for name, nfe, nvjp in self.counts:
            self.stats.nfe += nfe * times.get(name, 0)
            self.stats.nvjp += nvjp * times.get(name, 0)

    def made_ready(self, part: tuple, same: tuple, times: dict) -> Ready:
        """The call that has just been made, to be made again."""
        first, last, begins, lands, flushes, saved, looked, _ = part
        nfe, nvjp = (sum(int(counts[i]) * times[counts[0]] for counts in self.counts) for i in (1, 2))
        before, between = (first, last, begins, lands, flushes, *self.passed[1], saved), [0] * (len(self.outputs) + 5)
        numbers = np.asarray([x or 0 for x in (*before, *between, self.looked[1], looked, None, None, None)], np.int64)
        return Ready(part, same, numbers, address(numbers), nfe, nvjp, self.passed[0])

    def again(self, ready: Ready, ys: Any, seen: Any) -> None:
        """The last call once more, but for the arrays that are written to."""
        self.stats.nfe += ready.nfe
        self.stats.nvjp += ready.nvjp
        for k in range(len(self.outputs)):
            ready.numbers[HEAD + 1 + k] = address(ys[k]) if ys else 0
        ready.numbers[-3] = 0 if seen is None else address(seen)
        run_tiles(self.repeat, self.tiles, self.threads, (ready.at,))

    def run(self, *values: Any) -> None:
        """Call the generated code for every tile. Tables, memory and parameters are mostly those of the last call."""
        given, tables = self.as_given, values[TABLES:HEAD]
        if not all(map(is_, tables, self.passed[0])):
            self.passed = tables, [c if x is before else given(x) for x, before, c in zip(tables, *self.passed, strict=True)]
        looks = values[LOOKS]
        if looks is not self.looked[0]:
            self.looked = looks, given(looks)
        between, behind = ([x if x is None or type(x) is int else given(x) for x in some] for some in (
            values[HEAD:LOOKS], values[LOOKS + 1:]))
        run_tiles(self.function, self.tiles, self.threads, (*values[:TABLES], *self.passed[1], *between, self.looked[1], *behind))

    def counters(self) -> tuple[int, int, int]:
        path = self.problem.driver.path if self.brownian else None
        return (0, 0, 0) if path is None else (path.seed, path.offset, path.first + self.problem.n_before)

    def drives(self, first: int, last: int) -> tuple[Any, Any]:
        """The increments of these steps, or the widths from which they are made."""
        role = self.driven
        if role is None or last <= first:
            return None, None
        problem = self.problem
        if self.brownian:
            return None, np.sqrt(np.abs(np.asarray(problem.hs[first:last], np.float64)))
        kind = self.source.places[role][2]
        given = [problem.driver.given(n, problem.ts[n], problem.ts[n + 1], problem.hs[n], problem)[role[1]]
                 for n in range(first, last)]
        if kind == LANES:
            return np.ascontiguousarray(np.stack([self.tiled(x) for x in given]).astype(self.dtype, copy=False)), None
        return np.ascontiguousarray(np.stack(given).astype(self.dtype, copy=False)), None

    @property
    def most_looks(self) -> int:
        """As many of them as there is room for at a time."""
        return max(1, PIECE // (self.tiles * self.source.seen * self.dtype.itemsize))

    def ahead(self, first: int, last: int, ys: Sequence[Any] | None = None, looks: Sequence[int] = ()) -> dict:
        most = self.most_looks
        if len(looks) <= most:
            return self.stretch(first, last, ys, looks)
        found: dict = {}
        for k in range(0, len(looks), most):
            some = looks[k:k + most]
            until = last if k + most >= len(looks) else some[-1]
            for name, x in self.stretch(first, until, ys, some).items():
                found.setdefault(name, np.empty_like(x, shape=(len(looks), *x.shape[1:])))[k:k + most] = x
            first = until
        return found

    def stretch(self, first: int, last: int, ys: Sequence[Any] | None, looks: Sequence[int]) -> dict:
        """ahead(), with room for all looks at once."""
        return self.seen("part", looks, self.swept(first, last, ys, looks))

    def swept(self, first: int, last: int, ys: Sequence[Any] | None, looks: Sequence[int], room: Any = None) -> Any:
        """The same; returns what was seen as it lies in the memory of the tiles, in rows that may be given."""
        places, seen = self.looking(looks, last, room)
        save = self.problem.save
        while first < last:
            until = min(last, (first // self.chunk + 1) * self.chunk)
            self.call(first, until, begins=self.begins and "begin" in self.lowered,
                      saved=len(save) if ys is None else bisect_right(save, first), ys=[] if ys is None else list(ys),
                      looks=places, looked=bisect_right(looks, first), seen=seen)
            self.begins = False
            first = until
        if last == self.problem.N:
            self.drop()
        return seen

    def laid(self, *kinds: str, within: int = 0) -> tuple[np.ndarray, int]:
        """Where in a row of what was seen these lie, entry by entry, and how many numbers it has; or in `within` of each tile."""
        if (kinds, within) not in self.layouts:
            row = np.arange(self.tiles * (within or self.source.seen)).reshape(1, self.tiles, -1)
            places = [x.ravel() for kind in kinds for x in self.seen(kind, (0,), row).values()]
            self.layouts[kinds, within] = np.concatenate(places), row.size
        return self.layouts[kinds, within]

    def looking(self, looks: Sequence[int], last: int = -1, room: Any = None) -> tuple[Any, Any]:
        """Where a call looks, and the room for what it sees there."""
        if not looks:
            return NOWHERE, None
        # where it looks at every step up to the last one no end is needed
        each = type(looks) is range and looks.step == 1 and looks[-1] == last
        places = neighbours(looks[0], last) if each else ended(tuple(looks))
        return places, self.room(len(looks)) if room is None else room

    def room(self, looks: int) -> Any:
        """For what is seen at so many looks."""
        return np.empty((looks, self.tiles, self.source.seen), self.dtype)

    def seen(self, kind: str, looks: Sequence[int], seen: Any) -> dict:
        """What was seen, in arrays with an axis of grid points first."""
        found = {}
        for role in self.roles_of(kind) if looks else ():
            rows = self.within(seen, role)
            if self.rows > 1:
                rows = self.untiled(rows, len(looks))
            found[role[1]] = rows.reshape(len(looks), *self.shapes.get(role, self.shape))
        return found

    def back(self, last: int, first: int, a_ys: tuple, known: dict | None = None, flushes: bool = False,
             looks: Sequence[int] = ()) -> tuple[dict, dict]:
        """Undo steps last - 1 .. first; the cotangents of the saved states at first .. last - 1 enter on the way.

        Returns the parts and cotangents at `looks`, last first, in arrays with an axis of grid points first.
        """
        seen = self.swept_back(last, first, a_ys, known, flushes, looks)
        return self.seen("part", looks, seen), self.seen("cotangent", looks, seen)

    def swept_back(self, last: int, first: int, a_ys: tuple, known: dict | None, flushes: bool, looks: Sequence[int],
                   room: Any = None) -> Any:
        """The same; returns what was seen as it lies in the memory of the tiles, in rows that may be given."""
        a_ys = self.laid_out(a_ys)
        places, seen = self.looking(looks, room=room)
        lands = known is not None and "land" in self.lowered
        if lands:
            self.put("known", known)                                                               # type: ignore[arg-type]
        while last > first:
            until = max(first, (last - 1) // self.chunk * self.chunk)
            at = bisect_left(self.problem.save, last) - 1
            self.call(until, last, begins=self.begins and "begin" in self.lowered, lands=lands and until == first,
                      flushes=flushes and until == first and "end" in self.lowered,
                      saved=at if at >= 0 else len(self.problem.save), ys=a_ys, looks=places,
                      looked=0 if not looks or looks[0] < last else sum(n >= last for n in looks), seen=seen)
            self.begins = False
            last = until
        self.landed, self.glimpse = lands, seen
        return seen

    def pull(self, last: int, first: int, a_ys: tuple, states: Rows) -> None:
        a_ys, save = self.laid_out(a_ys), self.problem.save
        (names, size), begin = self.pulled_at, first
        most = max(1, PIECE // max(1, size))
        while last > first:
            until = max(first, last - most, (last - 1) // self.chunk * self.chunk)
            given = [states[name][until - begin:last - begin] for name in names]
            laid = [self.tiled(np.stack(x) if isinstance(x, list) else x, last - until) for x in given]
            K = np.ascontiguousarray(laid[0] if len(laid) == 1 else np.concatenate(laid, 2)) if laid else None
            at = bisect_left(save, last) - 1
            self.call(until, last, saved=at if at >= 0 else len(save), ys=a_ys, known=K)
            last = until

    @cached_property
    def pulled_at(self) -> tuple[list[str], int]:
        """The parts of a known state, and their bytes."""
        found = {role[1]: F for role, (_, F, _) in self.source.places.items() if role[0] == "state"}
        return list(found), sum(found.values()) * self.tiles * self.T * self.dtype.itemsize

    def walk(self, back: Any, kept: Any, n: int, a_ys: tuple) -> bool:
        """Make all stretches of a solve with n checkpoints, and pull them back by another runner; False where that cannot be."""
        return stretches.walk(self, back, kept, n, a_ys)

    def laid_out(self, a_ys: tuple) -> tuple:
        return tuple([np.ascontiguousarray(a, self.dtype) for a in a_ys])

    def replace(self, parts: dict) -> None:
        self.put("part", parts)

    def restart(self, parts: dict) -> None:
        """Go on from these parts. Where the last step landed on them, the field values at hand are theirs already."""
        self.put("part", parts)
        self.begins, self.landed = "land" not in self.lowered, False


def as_number(value: Any) -> Any:
    """as_given(), where a pointer may be a number: for a call that begins while the arrays are there."""
    if value is None or type(value) is int:
        return value
    return address(value) if value.flags.c_contiguous and value.dtype in DTYPES else as_c(value)[0]


def as_given(value: Any) -> Any:
    """An argument as the call takes it: numbers and what is not there as they are, arrays as pointers."""
    return value if value is None or type(value) is int else as_c(value)[0]


@lru_cache(64)
def ended(ns: tuple[int, ...]) -> np.ndarray:
    """Grid points as the generated code looks them up, with an end."""
    found = np.asarray([*ns, -1], np.int64)
    found.flags.writeable = False
    return found


@lru_cache(8)
def neighbours(first: int, last: int) -> np.ndarray:
    """All grid points from first to last."""
    return np.arange(first, last + 1)


@lru_cache(64)
def nothing(rows: int) -> np.ndarray:
    """The grid values of a program that reads none."""
    return np.zeros((rows, 0))


def turned(x: Any) -> bool:
    """Whether a value of a program is another one, transposed."""
    return x.op.name == "transpose" and isinstance(x.args[0], V)


def tree_sum(x: np.ndarray) -> np.ndarray:
    """The sum over the first axis: neighbours first, then neighbours of those, whatever ran where."""
    while len(x) > 1:
        half = x[0:len(x) - len(x) % 2:2] + x[1::2]
        x = np.concatenate([half, x[-1:]]) if len(x) % 2 else half
    return x[0]




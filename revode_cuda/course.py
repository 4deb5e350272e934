"""Where everything lies that a fused solve and its gradient make, in one buffer of the device, and how it gets there.

    given | P, M -> Y, L | cotangents | P, M -> L | report            `collect` fills P and M, and the report, from what lies before

Arrays are known by the positions of their entries: arrays of integers that are packed, tiled and untiled by the very code that
does it with numbers (compiled/tiles.py).

Of large states (scored) what was looked at stays where it is, and the report has what `scores` makes of it.
"""
from __future__ import annotations

import logging
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from revode import tree
from revode.compiled.generate import ALIGN
from revode.compiled.loops import LANES, MEMBER
from revode.compiled.program import evaluate
from revode.compiled.tiles import ended
from revode.engine.tensor import is_float
from revode.stepping import Stats
from revode.watch.ahead import Ahead
from revode.watch.places import compared
from revode.watch.quiet import Quiet

from .crossing import part
from .kernels import collect
from .scores import Scores

logger = logging.getLogger("revode")

MOST = 1 << 24             # entries of the buffer
LEVELS = 20                # of collect.cu: it sums fewer than 2^LEVELS terms
SPLIT = 256                # of longer sums so many terms by a thread, then what these make; a power of two: it is the same tree
SCORED = 1 << 26           # of one whose looks the host does not read


class NotAhead(Exception):
    """Why a solve cannot be queued before the host has seen its numbers."""


class Moves:
    """What one launch of `collect` writes: n neighbouring entries, each the sum of `count` others."""

    def __init__(self, first: int, n: int) -> None:
        self.first, self.n = first, n
        self.start, self.count, self.step = (np.zeros(n, np.int32) for _ in range(3))

    def put(self, to: np.ndarray, of: np.ndarray, count: int = 1, step: Any = 0) -> None:
        if count >> LEVELS:
            raise NotAhead(f"a sum of {count} tiles, more than its kernel takes")
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


def span(places: np.ndarray) -> slice:
    """Where an array lies that has a room of its own."""
    return slice(int(places.flat[0]), int(places.flat[0]) + places.size) if places.size else slice(0, 0)


def rows_of(runner: Any, role: Any, first: int) -> np.ndarray:
    """The positions of a part, or of what is like one, as a user sees it."""
    x = places_of(runner.views[role], runner.memory, first)
    return (x if runner.rows == 1 else runner.untiled(x)).reshape(runner.shapes.get(role, runner.shape))


def computed(runner: Any, leaves: list) -> list:
    """What the programs of a runner compute from the parameters alone."""
    done = {name: evaluate(runner.lowered[name].program, lambda role: leaves[role[1]], which) for name, which in runner.before.items()}
    return [done[name][v] for _, name, v in runner.packed]


def looks_of(problem: Any, parts: dict) -> tuple[list[int], list[int], set[int]]:
    """The grid points at which the watch looks on the way there and back, and those of them that are compared with saved states."""
    watch, beside = Ahead(problem, None), compared(problem.save, problem.N) - {0}
    watch.begin(parts)
    back, = Quiet(problem, None, beside, (), (), {}).groups(problem.N, 0, parts, sys.maxsize)
    return [n for n in watch.stops if n], back, beside


class Course:
    """Where all arrays of a kind of solve lie, and how they get there. Raises NotAhead.

    scored : whether its states are large: what the watch looks at does not go to the host.
    graphs : whether what is launched is captured as a CUDA graph, where nothing but data changes from solve to solve.
    """

    def __init__(self, xp: Any, problem: Any, y0: Any, params: Any, parts: dict, of_part: dict, ahead: Any, back: Any,
                 scored: bool, graphs: bool) -> None:
        self.graphs = graphs and problem.driver is None   # (of noise and controls, arguments change as well)
        self.xp, self.ahead, self.back, self.size, self.scored = xp, ahead, back, 0, scored
        self.looks, self.looks_back, self.compared = looks_of(problem, parts)
        self.report, self.result = Report(), Report()
        self.long: list[tuple] = []                       # sums over many tiles: their key, the entries of the first tile, the step
        self.free: list[Buffer] = []                      # those that no solve is at work in
        self.brought: tuple = (None, [])                  # what fields brought along the last time: on the host, on the device
        leaves = tree.flatten((y0, params))[0]
        self.n_y = len(tree.flatten(y0)[0])
        self.scores: Any = None
        self.floats = [i for i, x in enumerate(leaves) if is_float(x)]
        at = self.given(leaves, problem.seen.extras)
        initial = {name: at[k] for name, k in of_part.items()}
        final, shapes = self.way_there(problem, initial, parts, at)
        if back is not None:
            self.way_back(problem, initial, final, shapes, at)
            self.gradients(of_part, leaves)
        self.halves = self.in_halves()
        self.told_size = self.report.size
        if scored:
            self.scores = self.judged_there(problem, parts, at)
            self.told_size += self.scores.size
        if self.size > (SCORED if scored else MOST):
            raise NotAhead("its states are large")
        self.reports = self.report.moves().there(xp)

    def given(self, leaves: list, extras: list) -> dict[int, np.ndarray]:
        """Where y0, params and what the field brings along lie, by their number; behind them what is computed from params alone."""
        runners = [r for r in (self.ahead, self.back) if r is not None]
        more = [np.shape(x) for r in runners for x in computed(r, [*leaves[self.n_y:], *extras])]
        *given, self.end = self.end_to_end([*(leaves[i].shape for i in self.floats), *map(np.shape, extras), *more])
        inputs = [*self.floats, *range(len(leaves), len(leaves) + len(extras))]
        at = dict(zip(inputs, given, strict=False))
        for i in self.floats:
            self.report.add(("given", i), at[i])
        self.made = iter(given[len(inputs):])
        return at

    def packing(self, runner: Any, at: dict) -> tuple[Moves, int, int]:
        """Moves that fill P and M of a runner, and where these begin."""
        if any(x.own for x in runner.lowered.values()):
            raise NotAhead("values of their own for trajectories, or for members of an ensemble")
        P, M = (self.room((n,))[0] for n in (runner.P.size, runner.memory.size))
        moves = Moves(P, M + runner.memory.size - P)
        for view, i in runner.copied:
            moves.put(places_of(view, runner.P, P), at[self.n_y + i])
        for view, _, _ in runner.packed:
            moves.put(places_of(view, runner.P, P), next(self.made))
        return moves, P, M

    def way_there(self, problem: Any, initial: dict, parts: dict, at: dict) -> tuple[dict, list]:
        """The places and moves of the solve. Returns where its final parts lie, and the shapes of its saved states."""
        ahead, outputs, save = self.ahead, problem.method.outputs, problem.save
        moves, self.P, self.M = self.packing(ahead, at)
        for name, x in initial.items():
            moves.put(places_of(ahead.views["part", name], ahead.memory, self.M), ahead.tiled(x))
        self.pack = moves.there(self.xp), moves
        ys = [self.room((len(save), *parts[name].shape)) for name in outputs]
        self.Y = [span(y) for y in ys]
        self.L = self.stretch(len(self.looks) * ahead.tiles * ahead.source.seen)
        final = {name: rows_of(ahead, ("part", name), self.M) for name in initial}
        for j, (name, y) in enumerate(zip(outputs, ys, strict=True)):
            y[[k for k, n in enumerate(save) if n == 0]] = initial[name]
            self.add("ys", j, y)
        for name, x in final.items():
            self.add("part", name, x)
        if not self.scored:
            for name, x in ahead.seen("part", self.looks, self.seen(ahead, self.looks, self.L)).items():
                self.report.add(("look", name), x)
        self.ends = self.result.moves().there(self.xp)
        return final, [y.shape for y in ys]

    def way_back(self, problem: Any, initial: dict, final: dict, shapes: list, at: dict) -> None:
        """The same of the reverse sweep."""
        back = self.back
        *cotangents, self.a_end = self.end_to_end([*shapes, *(x.shape for x in final.values())])
        a_ys, a_parts = cotangents[:len(shapes)], dict(zip(final, cotangents[len(shapes):], strict=True))
        self.A, self.a_at = [span(a) for a in a_ys], slice(self.a_end - sum(a.size for a in cotangents), self.a_end)
        moves, self.P_back, self.M_back = self.packing(back, at)
        last = dict(zip(problem.method.outputs, a_ys, strict=True)) if problem.N in problem.rows else {}
        for kind, arrays in (("part", final), ("known", initial), ("cotangent", a_parts)):
            for name, x in arrays.items():
                if (kind, name) in back.views:
                    to, enters = places_of(back.views[kind, name], back.memory, self.M_back), kind == "cotangent" and name in last
                    moves.put(to, back.tiled(x), 1 + enters, back.tiled(last[name][problem.rows[problem.N]] - x) if enters else 0)
        self.pack_back = moves.there(self.xp), moves
        self.L_back = self.stretch(len(self.looks_back) * back.tiles * back.source.seen)
        self.a_parts = a_parts
        if not self.scored:
            self.told(initial, a_ys, a_parts)
        sums, looked = back.source.sums, np.arange(len(self.looks_back))[:, None] * (back.tiles * back.source.seen)
        if sums is not None:
            self.over_tiles(("flowed", 0), self.L_back.start + looked + np.arange(sums.start, sums.stop), back.source.seen)
            self.over_tiles(("flowed", 1), self.M_back + np.arange(sums.start, sums.stop)[None], back.stride)

    def told(self, initial: dict, a_ys: list, a_parts: dict) -> None:
        """What the watch on the host is told of a sweep."""
        back = self.back
        for j, a in enumerate(a_ys):
            self.report.add(("a_ys", j), a)
        for name in initial:
            self.report.add(("start", name), rows_of(back, ("landed" if "land" in back.lowered else "part", name), self.M_back))
            self.report.add(("cotangent", name), rows_of(back, ("cotangent", name), self.M_back))
            self.report.add(("a_part", name), a_parts[name])
        for kind in ("part", "cotangent"):
            for name, x in back.seen(kind, self.looks_back, self.seen(back, self.looks_back, self.L_back)).items():
                self.report.add(("back", kind, name), x)
        for role in back.roles_of("missed"):
            self.report.add(role, rows_of(back, role, self.M_back))

    def judged_there(self, problem: Any, parts: dict, at: dict) -> Scores:
        """The watch of the device."""
        ahead, back, windows = self.ahead, self.back, len(self.looks)
        places: dict[str, Any] = {"initial": int(at[0].flat[0]), "L": self.L.start,
                                  "scratch": self.stretch(ahead.rows * (ahead.shape[-1] + windows)).start}
        if back is not None:
            outputs, Y = problem.method.outputs, self.Y[0].start
            places |= {"M": self.M_back, "L_back": self.L_back.start,
                       "saved": {n: Y + k * prod(ahead.shape) for k, n in enumerate(problem.save) if n in self.compared},
                       "others": [int(x.flat[0]) for name, x in self.a_parts.items() if name not in outputs]}
        return Scores(self.xp, problem, parts, ahead, back, (self.looks, self.looks_back), places)

    def gradients(self, of_part: dict, leaves: list) -> None:
        """The gradients: of y0 from its copies, of params over the tiles."""
        back = self.back
        for k in range(self.n_y):
            ends = [rows_of(back, ("cotangent", name), self.M_back) for name, of in of_part.items() if of == k]
            if len(ends) > 2:
                raise NotAhead("its method begins with more than two copies of y0")
            self.report.add(("gradient", k), ends[0], len(ends), ends[-1] - ends[0])
        for i in self.floats[self.n_y:]:
            role, shape = ("aparam", i - self.n_y), leaves[i].shape
            if role not in back.views:
                self.report.add(("gradient", i), np.zeros(shape, np.int64), 0)
                continue
            if back.sums[role] & {LANES, MEMBER}:
                raise NotAhead("parameters of their own for trajectories")
            x = places_of(back.views[role], back.memory, self.M_back).reshape(back.tiles, -1)
            self.over_tiles(("gradient", i), x[0].reshape(shape), back.stride)

    def over_tiles(self, key: tuple, of: np.ndarray, step: int) -> None:
        """A sum over the tiles of the sweep. (One thread would sum 100000 of them for as long as a solve takes.)"""
        tiles = self.back.tiles
        if tiles <= SPLIT or not of.size:
            self.report.add(key, of, tiles, step)
            return
        self.long.append((key, of, step))

    def in_halves(self) -> tuple[Callable, slice] | None:
        """The launch that makes the first part of all long sums, and where it puts them. The report sums what it makes."""
        if not self.long:
            return None
        tiles, parts = self.back.tiles, -(-self.back.tiles // SPLIT)
        room = self.room((sum(of.size for _, of, _ in self.long), parts))
        moves, at = Moves(int(room[0, 0]), room.size), 0
        for key, of, step in self.long:
            mine = room[at:at + of.size]
            for k in range(parts):
                moves.put(mine[:, k], of.reshape(-1) + k * SPLIT * step, min(SPLIT, tiles - k * SPLIT), step)
            self.report.add(key, mine[:, 0].reshape(of.shape), parts, 1)
            at += of.size
        return moves.there(self.xp), span(room)

    # places

    def room(self, shape: tuple[int, ...]) -> np.ndarray:
        """The positions of an array of this shape, behind all others."""
        at = self.stretch(prod(shape))
        return np.arange(at.start, at.stop).reshape(shape)

    def stretch(self, n: int) -> slice:
        """Where n numbers lie, behind all others."""
        first = self.size
        self.size += -(-n // ALIGN) * ALIGN
        return slice(first, first + n)

    def seen(self, runner: Any, looks: list, at: slice) -> np.ndarray:
        """The positions of what a runner has seen."""
        return np.arange(at.start, at.stop).reshape(len(looks), runner.tiles, runner.source.seen)

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

    def buffer(self) -> Buffer:
        return self.free.pop() if self.free else Buffer(self.xp.empty(self.size, self.ahead.dtype))

    def go_ahead(self, buffer: Buffer, problem: Any, leaves: list) -> Any:
        """The solve: its saved states and final parts, in one array."""
        B, xp, extras = buffer.array, self.xp, self.bring(problem.seen.extras)
        of_params = [*leaves[self.n_y:], *extras]
        more = [x for r in (self.ahead, self.back) if r is not None for x in computed(r, of_params)]
        end_to_end(xp, [*(leaves[i] for i in self.floats), *extras, *more], B[:self.end])
        return self.queue(buffer, self.ahead, self.result.size, lambda out: self.launches_ahead(B, problem, out))

    def launches_ahead(self, B: Any, problem: Any, out: Any) -> None:
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
        self.ends(B, out)

    def go_back(self, buffer: Buffer, problem: Any, cotangents: list) -> Any:
        """The reverse sweep: the report, gradients among it, on the device."""
        B = buffer.array
        end_to_end(self.xp, cotangents, B[self.a_at])
        return self.queue(buffer, self.back, self.told_size, lambda out: self.launches_back(B, problem, out))

    def launches_back(self, B: Any, problem: Any, out: Any) -> None:
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
                            runner.lowered, flushes=until == 0 and "end" in runner.lowered, saved=at if at >= 0 else len(save),
                            ys=[B[a] for a in self.A], looks=ended(tuple(looks)), looked=sum(n >= last for n in looks),
                            seen=B[self.L_back])
                last = until
            self.spent_back = runner.stats
        self.launch_report(B, out)

    def reported(self, buffer: Buffer) -> Any:
        """The report on a solve that has no sweep."""
        out = self.xp.empty(self.told_size, self.ahead.dtype)
        self.launch_report(buffer.array, out)
        return out

    def launch_report(self, B: Any, out: Any) -> None:
        n, scores = self.report.size, self.scores
        if self.halves:
            launch, at = self.halves
            launch(B[:at.start], B[at])
        self.reports(B, out[:n])
        if scores:
            scores.launch(B, out[n:].reshape(scores.shape))

    def queue(self, buffer: Buffer, runner: Any, size: int, launches: Callable) -> Any:
        """launches(out), into a new array; from the third time in a buffer on by a graph, into an array of its own that is copied."""
        way = runner.direction
        if way in buffer.graphs:
            graph, out, _ = buffer.graphs[way]
            graph.launch()
            return out.copy()
        out = self.xp.empty(size, runner.dtype)
        launches(out)
        if self.graphs and way in buffer.seen:            # the tables are on the device now: a capture takes no copies
            self.capture(buffer, runner, self.xp.empty(size, runner.dtype), launches)
        buffer.seen.add(way)
        return out

    def capture(self, buffer: Buffer, runner: Any, out: Any, launches: Callable) -> None:
        """Make a graph of these launches; where CUDA refuses, say so, once for this kind of solve."""
        runner.kept = []
        try:
            buffer.graphs[runner.direction] = captured(self.xp, lambda: launches(out)), out, runner.kept
        except Exception as error:
            self.graphs = False
            logger.info("solve: no CUDA graph is made of fused solves like this one, which are launched kernel by kernel, because: %s",
                        error)
        runner.kept = None


class Buffer:
    """The memory of a solve. seen, graphs: by direction, whether it has run here, and a graph with what it fills and refers to."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.seen: set[str] = set()
        self.graphs: dict[str, tuple] = {}


def captured(xp: Any, launches: Callable) -> Any:
    """A graph of what is launched; nothing runs. Raises what CUDA refuses."""
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            launches()
        finally:
            graph = stream.end_capture()
    return graph


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

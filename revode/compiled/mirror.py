"""The generated loops in NumPy: what strict arithmetic means, one rounding after the other, in the order of the C text.

    Tiles(..., make=Mirror)        the runner of native code, with `run` computed here;  backend="replay", arithmetic="strict"

Every value is an array (tiles, F, T), with an axis of length one where it is the same for all tiles, or for all lanes. Sums
go over c (over r: the first R lanes of a tile) one term at a time; elementary functions are those of elementary.py, the noise
that of paths/philox.py. Values have names here and no places, so that mistakes of the generator about places show as well.

Cost: a NumPy call for each operation and each term of a sum; about a hundred times the native loops.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from ..paths import philox
from . import elementary
from .generate import Source, arguments
from .lower import LANES, Loop, Lowered, Read, Slot
from .program import Role, evaluate, of_times

# Where NumPy leaves the sign of a zero open, or needs a condition that is no number.
OWN: dict[str, Callable] = {
    "maximum": lambda a, b: np.where((a >= b) | (a != a), a, b),
    "minimum": lambda a, b: np.where((a <= b) | (a != a), a, b),
    "sign": lambda a: np.where(a > 0, 1.0, np.where(a < 0, -1.0, a)),
    "where": lambda c, a, b: np.where(c != 0, a, b),
    "astype": lambda a: a,
}
COMBINE: dict[str, Callable] = {
    "sum": lambda total, x: total + x,
    "max": lambda total, x: np.where((x > total) | (x != x), x, total),
    "min": lambda total, x: np.where((x < total) | (x != x), x, total),
}


class Mirror:
    """The entry point `run` of a source, for all tiles at once: called for tile 0, the others have nothing left to do."""

    def __init__(self, source: Source) -> None:
        self.source, self.T, self.dtype = source, source.T, source.dtype
        self.arguments = arguments(len(source.outputs))

    def __call__(self, tile: int, *arguments: Any) -> None:
        if tile == 0:
            with np.errstate(all="ignore"):
                self.run(**{name: as_python(a) for (_, name), a in zip(self.arguments, arguments, strict=True)})

    def run(self, first: int, last: int, begins: int, lands: int, flushes: int, GB: Any, GS: Any, GL: Any, GE: Any, P: Any,
            M: Any, rows: int, save: Any, saved: int, D: Any, width: Any, seed: int, trajectory: int, step: int, look: Any,
            looked: int, L: Any, K: Any, W: Any, **Y: Any) -> None:
        back = self.source.direction != "forward"
        self.M, self.P, self.count = M.reshape(-1, self.source.size), P, rows
        self.first, R = self.source.tiling(rows)
        self.R = R[:, None, None]
        if begins:
            self.program("begin", GB)
        for n in range(last - 1, first - 1, -1) if back else range(first, last):
            self.driven(None if D is None else D[n - first], None if width is None else width[n - first], seed, trajectory, step + n)
            if K is not None:
                self.given(K[n - first])
            if lands and n == first and "land" in self.source.lowered:
                self.program("land", GL)
            else:
                self.program("step", GS[n - first:])
            for j, (_, offset) in enumerate(self.source.clocks):
                W[n - first, :, j] = self.M[:, offset]
            if save[saved] == (n if back else n + 1):
                for y, name in zip(Y.values(), self.source.outputs, strict=True):
                    self.exchange(self.place(("cotangent" if back else "part", name)), y.reshape(len(y), rows, -1)[saved], back)
                saved += -1 if back else 1
            if look[looked] == (n if back else n + 1):
                L.reshape(-1, len(self.M), self.source.seen)[looked] = self.M[:, :self.source.seen]
                looked += 1
        if flushes:
            self.program("end", GE)

    def attempt(self, begins: int, stays: int, t0: float, t1: float, h: float, h_before: float, *arrays: Any) -> None:
        """The entry point `attempt` of a search."""
        GB, GS, P, M, B, rows, norms = map(as_python, arrays)
        self.M, self.P, self.count = M.reshape(-1, self.source.size), P, rows
        self.first, R = self.source.tiling(rows)
        self.R = R[:, None, None]
        given = {"t0": np.float64(t0), "t1": np.float64(t1), "h": self.dtype.type(h), "h_before": self.dtype.type(h_before)}
        with np.errstate(all="ignore"):
            if begins:
                self.program("begin", self.grid("begin", given) if GS is None else GB)
            if stays:
                B[...] = self.M[:, :self.source.persistent]
            self.program("step", self.grid("step", given) if GS is None else GS)
            y = self.place(("part", self.source.outputs[0]))
            errors = [self.place(role)[:, 0, 0] for role in sorted(self.source.places) if role[0] == "error"]
            for j, each in enumerate(errors):
                total = each[0]
                for x in each[1:]:
                    total = total + x
                norm = np.sqrt(total / self.dtype.type(rows * y.shape[1]))
                norms[j] = norm if np.isfinite(norm) and np.isfinite(y).all() else np.inf

    def grid(self, name: str, given: dict[str, Any]) -> Any:
        """The values of the grid for one step, as one row."""
        if name not in self.source.lowered:
            return None
        program: Any = self.source.lowered[name].program
        at = evaluate(program, lambda role: given[role[1]], [i for i, kind in enumerate(of_times(program)) if kind == "step"])
        return np.asarray([[at[int(v)] for v, _, _ in self.source.layout.columns[name]]], np.float64)

    def place(self, role: Role) -> np.ndarray:
        """Where a value of the state lies, (tiles, F, T) or (tiles, F, 1)."""
        offset, F, kind = self.source.places[role]
        lanes = self.T if kind == LANES else 1
        return self.M[:, offset:offset + F * lanes].reshape(len(self.M), F, lanes)

    def driven(self, D: Any, width: Any, seed: int, trajectory: int, step: int) -> None:
        """The increments of a step: made here, or taken from D."""
        for role, (_, F, kind) in self.source.places.items():
            if role[0] == "drive":
                made = self.source.brownian and role[1] == "dW"
                new = self.noise(F, seed, trajectory, step, width) if made else D
                self.place(role)[...] = new.reshape(-1, F, self.T if kind == LANES else 1)

    def given(self, K: np.ndarray) -> None:
        """A known state, part by part."""
        before = 0
        for role, (_, F, _) in self.source.places.items():
            if role[0] == "state":
                self.place(role)[...] = K[:, before:before + F]
                before += F

    def noise(self, F: int, seed: int, trajectory: int, step: int, width: float) -> np.ndarray:
        """The increments of one step of revode.Brownian, for every lane."""
        trajectories = (trajectory + self.first[:, None] + np.arange(self.T)).reshape(-1) % 2 ** 32
        z = philox.normals(seed % 2 ** 64, trajectories, step % 2 ** 32, F) * width
        return np.ascontiguousarray(z.astype(self.dtype).reshape(-1, self.T, F).transpose(0, 2, 1))

    def exchange(self, x: np.ndarray, y: np.ndarray, back: bool) -> None:
        """Saved states out to y, (rows, F); or the cotangents of saved states in, the last one also for lanes without a row."""
        lane = np.minimum(np.arange(self.T), self.R[:, 0] - 1)
        if back:
            x += y[self.first[:, None] + lane].transpose(0, 2, 1)
        else:
            y[self.first[:, None] + lane] = np.take_along_axis(x, lane[:, None], 2).transpose(0, 2, 1)

    def program(self, name: str, G: Any) -> None:
        """One program: all of its loops, and only then its outputs."""
        lowered = self.source.lowered.get(name)
        if lowered is None:
            return
        self.at = self.known(name, lowered, G[0])
        for loop in lowered.loops:
            self.at[loop.out] = np.asarray(getattr(self, loop.kind)(loop, *map(self.read, loop.reads)), self.dtype)
        for role, new in [(role, self.read(read)) for role, read in lowered.outputs.items()]:
            self.place(role)[...] = new

    def known(self, name: str, lowered: Lowered, G: np.ndarray) -> dict[Slot, np.ndarray]:
        """What loops find: the state, and columns of the grid, parameters and constants where they are read."""
        layout = self.source.layout
        found = {slot: self.place(role).copy() for role, slot in lowered.inputs.items()}
        given = {("steps", int(v)): G[offset:offset + n] for v, offset, n in layout.columns[name]}
        given |= {("params", int(v)): self.P[offset:offset + n] for program, v, offset, n in layout.params if program == name}
        tiles, width = len(self.M), self.source.widths(name)[0]
        Q = self.P[self.source.param_size:][:tiles * self.source.own_size].reshape(tiles, -1)
        H = G[width:].reshape(tiles, -1)
        own = {("own params", i): Q[:, offset:offset + n] for program, i, offset, n in layout.own if program == name}
        own |= {("own steps", i): H[:, offset:offset + n] for i, offset, n in layout.own_columns[name]}
        for read in (*lowered.outputs.values(), *(read for loop in lowered.loops for read in loop.reads)):
            slot = read.slot
            if slot is not None and slot.role is not None and slot not in found:
                if slot.role in own:
                    lanes = self.T if slot.kind == LANES else 1
                    found[slot] = own[slot.role].astype(self.dtype)[:, :slot.F * lanes].reshape(tiles, slot.F, lanes)
                    continue
                values = np.frombuffer(slot.role[1]) if slot.role[0] == "constant" else given[slot.role]
                found[slot] = values.astype(self.dtype).reshape(1, -1, 1)
        return found

    def read(self, read: Read) -> np.ndarray:
        """What a loop reads, (tiles, F, T) or something that broadcasts; a map with -1 in it is left to its loop."""
        if read.slot is None:
            return np.full((1, 1, 1), read.number, self.dtype)
        x = self.at[read.slot]
        return x if read.map is None else x[:, read.map]

    # The kinds of loops

    def map(self, loop: Loop, *x: np.ndarray) -> Any:
        op = loop.op
        if op is None:
            y = x[0]
        elif op.name in OWN:
            y = OWN[op.name](*x)
        elif op.c is not None and op.c.startswith("rv_") and op.name in elementary.NAMES:
            y = elementary.evaluate(op.name, *x)
        else:
            y = op.forward(*x)
        return np.broadcast_to(y, (y.shape[0], loop.out.F, y.shape[2]))

    def gather(self, loop: Loop, *x: np.ndarray) -> Any:
        y: Any = np.zeros((1, loop.out.F, 1), self.dtype)
        for read, part in zip(reversed(loop.reads), reversed(x), strict=True):
            y = np.where(read.map[:, None] >= 0, part, y)                                          # type: ignore[index]
        return y

    def linear(self, loop: Loop, x: np.ndarray, w: np.ndarray) -> Any:
        p, n, m = loop.shape
        x, w = x[:, :p * n].reshape(len(x), p, 1, n, -1), w.reshape(len(w), 1, n, m, 1)
        total = x[:, :, :, 0] * w[:, :, 0]
        for c in range(1, n):
            total = total + x[:, :, :, c] * w[:, :, c]
        return total.reshape(len(total), p * m, -1)

    def contract(self, loop: Loop, a: np.ndarray, b: np.ndarray) -> Any:
        s, t = loop.tables
        total = a[:, s[:, 0]] * b[:, t[:, 0]]
        for c in range(1, s.shape[1]):
            total = total + a[:, s[:, c]] * b[:, t[:, c]]
        return total

    def reduce(self, loop: Loop, x: np.ndarray) -> Any:
        table, combine = loop.tables[0], COMBINE[loop.op.name if loop.op is not None else "sum"]
        some = bool((table < 0).any())                    # some features have fewer terms than others
        total: Any = np.zeros((1, loop.out.F, 1), self.dtype) if some else x[:, table[:, 0]]
        for index in table.T[0 if some else 1:]:
            total = np.where(index[:, None] >= 0, combine(total, x[:, index]), total)
        return total

    def rows_of(self, term: Callable, combine: Callable) -> Any:
        """A sum of term(r) over the first R lanes of each tile."""
        total = term(0)
        for r in range(1, self.T):
            total = np.where(r < self.R, combine(total, term(r)), total)
        return total

    def outer(self, loop: Loop, x: np.ndarray, g: np.ndarray, *before: np.ndarray) -> Any:
        x, g = self.lanes(x), self.lanes(g)
        made = self.rows_of(lambda r: (x[:, :, None, r] * g[:, None, :, r]).reshape(len(x), loop.out.F, 1), COMBINE["sum"])
        return before[0] + made if before else made

    def rows(self, loop: Loop, x: np.ndarray, *before: np.ndarray) -> Any:
        x = self.lanes(x)
        made = self.rows_of(lambda r: x[:, :, r, None], COMBINE["max" if loop.op is not None else "sum"])
        return before[0] + made if before else made

    def lanes(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, (len(self.M), x.shape[1], self.T))


def as_python(argument: Any) -> Any:
    """An argument of native code, as it was before it became C's."""
    return getattr(argument, "array", None) if isinstance(argument, ctypes.c_void_p) else argument

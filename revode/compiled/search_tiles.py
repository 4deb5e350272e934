"""Attempts of adaptive steps in generated loops, and the controller in one loop with them (search.hpp).

    attempt(t0, t1, h, ...)     one attempt by all tiles: the norm of its error
    search(most, ...)           attempts and the controller, until so many steps have been accepted: times, sizes and states

A batch shares its steps, so a step belongs to all tiles, and they run one after another, on one thread. Values of the grid, which
nobody knows beforehand, are computed in the loop: those that are made of times and sizes alone, in the precision that they have
there; all others belong to the programs. Noise and controls are made by the host: where there are such, it makes all values of the
grid, and asks for one attempt at a time, with the controller in Python.
"""
from __future__ import annotations

from collections.abc import Callable
from ctypes import c_double, c_longlong, c_void_p
from typing import Any

import numpy as np

from ..adaptive import as_steps
from ..watch import size
from .generate import ORDER, Source, number, text
from .loops import LANES
from .native import build
from .program import V, kinds, of_times
from .tiles import PIECE, WORK, Tiles, as_given

MOST = 256                 # accepted steps of one call at most
NUMBERS = ("at_t", "next_h", "norm_1", "norm_2", "last_h")               # C, the controller's, from call to call
COUNTS = ("found", "outcome", "tried", "rejected", "at_stop", "begun", "attempts", "parting", "fresh_begin", "stays", "steps",
          "most_tries")                                                   # I
OPTIONS = ("direction", "end", "safety", "shrink", "grow", "max_step", "min_step", "power_1", "power_2", "power_3")        # O
TOO_MANY, TOO_SMALL = 1, 2
ATTEMPT: list[Any] = [*[c_longlong] * 2, *[c_double] * 4, *[c_void_p] * 5, c_longlong, c_void_p]
SEARCH: list[Any] = [*[c_longlong] * 2, *[c_void_p] * 9, c_longlong, c_void_p]


class SearchSource(Source):
    """The C text of the programs of an attempt, with the search around them; fed: without it, and with the grid's values given."""

    def __init__(self, fed: bool, *of: Any) -> None:
        self.fed = fed
        super().__init__(*of)

    def entry(self) -> str:
        y = self.places["part", self.outputs[0]]
        errors = [offset for role, (offset, _, _) in sorted(self.places.items()) if role[0] == "error"]
        names = [name for name in ORDER if name in self.lowered]
        macros = {"BEGINS": int("begin" in names), "FLOWS": int(self.direction == "flow"), "ERRORS": len(errors),
                  "ERROR_AT": ", ".join(map(str, errors)), "SOLUTION": y[0], "FEATURES": y[1], "SEEN": self.seen, "TILES": self.tiles,
                  "FED": int(self.fed), "GRID": 1 + max(self.widths(name)[0] for name in names), "TOO_MANY": TOO_MANY,
                  "TOO_SMALL": TOO_SMALL}
        return "\n".join([*(f"#define {name} {value}" for name, value in macros.items()),
                          *(f"enum {{ {', '.join(names)} }};" for names in (NUMBERS, COUNTS, OPTIONS)),
                          *map(self.grid_of, () if self.fed else names), *map(self.of_tile, names), text("search.hpp")])

    def of_tile(self, name: str) -> str:
        """The function that runs a program for one tile."""
        return "\n".join([f"static void {name}_tile(INDEX tile, real* M, const real* P, const double* G, INDEX rows) {{",
                          *self.memory_of_tile(), f"  {self.call(name, 'G')}", "}"])

    def grid_of(self, name: str) -> str:
        """The function that makes the values of the grid for one step."""
        program: Any = self.lowered[name].program
        lines, given = [], {"t0": "t0", "t1": "t1", "h": "h", "h_before": "h_before"}
        for i, (x, kind) in enumerate(zip(program.values, of_times(program), strict=True)):
            if kind == "step":
                of = "double" if x.dtype == np.float64 else "real"
                args = [f"g{int(a)}" if isinstance(a, V) else f"({of}){number(float(a)).removeprefix('(real)')}" for a in x.args]
                made = given[x.role[1]] if x.op is None else f"({of})({x.op.c.format(*args)})"
                lines.append(f"  const {of} g{i} = {made}; (void)g{i};")
        stored = [f"  G[{offset}] = (double)g{int(v)};" for v, offset, _ in self.layout.columns[name]]
        return "\n".join([f"static void {name}_grid(double t0, double t1, real h, real h_before, double* G) {{",
                          "  (void)t0; (void)t1; (void)h; (void)h_before; (void)G;", *lines, *stored, "}"])


class SearchTiles(Tiles):
    """Attempts by all tiles: one at a time (adaptive.Trial) for a controller in Python, or many with the one in C.

    fed: the host makes noise, controls, and all that depends on the times.
    """

    def __init__(self, steps: Any, parts: dict, outputs: tuple[str, ...], flows: bool, strict: bool, make: Callable | None,
                 fed: bool = False) -> None:
        self.flows, self.fed, self.kinds = flows, fed, kinds if fed else of_times
        super().__init__(steps, parts, outputs, "flow" if flows else "search", False, strict, make=make)

    def build(self, T: int, make: Callable | None) -> None:
        self.T, self.tiles = T, self.members * -(-self.rows // (self.members * T))
        self.source = SearchSource(self.fed, self.lowered, T, self.dtype, self.direction, self.outputs, False)
        self.chunk = int(min(WORK, max(1, WORK / max(1.0, self.work() * self.tiles))))        # attempts of one call
        self.whole: Callable | None = None
        self.looks_often = self.fed or make is not None                                    # type: ignore[misc]
        if make is None:
            library = build(self.source.host, self.strict)
            self.one, self.whole = library.attempt, None if self.fed else library.search
            for function, types in ((self.one, ATTEMPT), (self.whole, SEARCH)):
                if function is not None:
                    function.restype, function.argtypes = None, types
        else:
            self.one = make(self.source).attempt

    def load(self, problem: Any, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        super().load(problem, params, parts, cotangents)
        self.params, self.norms = params, (0.0, 0.0)
        self.aside = np.zeros((self.tiles, self.source.persistent), self.dtype)
        self.stays, self.ends = True, 0

    # one attempt

    def attempt(self, t0: Any, t1: Any, h: Any, h_before: Any) -> tuple[float, float]:
        norms = np.zeros(2)
        grids = self.feed(t0, t1, h, h_before) if self.fed else (None, None)
        self.one(*map(as_given, (int(self.begins), int(self.stays))), float(t0), float(t1), float(h), float(h_before), *map(
            as_given, (*grids, self.P, self.memory, self.aside, self.rows, norms)))
        self.count(int(self.begins), 1)
        self.begins = self.stays = False
        self.norms = float(norms[0]), float(norms[1])
        return self.norms

    def feed(self, t0: Any, t1: Any, h: Any, h_before: Any) -> list:
        """What drives a step, to its place; returns the values of the grid for each program."""
        problem, given = self.problem, {"t0": t0, "t1": t1, "h": h, "h_before": h_before}
        if self.driven is not None:
            x = problem.driver.given(problem.N, t0, t1, h, problem)[self.driven[1]]
            self.views[self.driven][...] = self.tiled(x) if self.source.places[self.driven][2] == LANES else np.reshape(x, -1)
        at = {of: np.asarray([x]) for of, x in given.items()}
        return [self.filled(name, self.grids[name].at(at, problem, problem.system.control), 1) if name in self.lowered else None
                for name in ("begin", "step")]

    def count(self, begins: int, attempts: int) -> None:
        times = {"begin": begins, "step": attempts}
        self.stats.nfe += sum(nfe * times[name] for name, nfe, _ in self.counts)

    def reject(self) -> None:
        self.memory.reshape(self.tiles, -1)[:, :self.source.persistent] = self.aside
        self.begins = self.problem.N == 0 and not self.flows         # as on the tape, which knows no value yet

    def largest(self) -> float:
        return max(size(self.read("part")[name]) for name in self.problem.method.outputs)

    def read(self, kind: str) -> Any:
        return dict(enumerate(self.norms)) if kind == "norm" else super().read(kind)

    # many

    def extend(self, most: int = MOST) -> dict:
        problem, controller = self.problem, self.problem.adaptive
        if not controller.h:
            controller.begin(problem, self.read("part"), self.params)
        if self.whole is not None:
            return self.many(most)
        controller.search(problem, self)
        self.begins, self.stays = self.flows, True
        return {name: [x] for name, x in self.read("part").items()}

    def many(self, most: int) -> dict:
        """At most so many steps, as C finds them. Where it cannot go on, what it has found is looked at first."""
        problem, A = self.problem, self.problem.adaptive
        t0, scalar = problem.ts[-1], self.dtype.type
        if self.ends:
            A.fail(problem, self.largest(), A.too_many if self.ends == TOO_MANY else A.too_small(t0, scalar))
        most = max(1, min(most, MOST, PIECE // (self.tiles * self.source.seen * self.dtype.itemsize)))
        C = np.asarray([t0, A.h, *[*A.norms, 1.0, 1.0][:2], problem.hs[-1] if problem.hs else 0.0], np.float64)
        I = np.asarray([0, 0, A.tries, 0, 0, 0, 0, 0, self.begins, self.stays, problem.N, A.controller.max_steps], np.int64)
        ts, hs, stops = np.empty(most), np.empty(most), np.asarray(A.stops, np.float64)
        seen = np.empty((most, self.tiles, self.source.seen), self.dtype)
        given = [most, self.chunk, C, I, np.asarray(A.options(problem.method.error_order)), stops, ts, hs, self.P, self.memory,
                 self.aside, self.rows, seen]
        while not I[:2].any():                           # found, outcome; between calls Python is asked whether to stop
            self.whole(*map(as_given, given))                                                      # type: ignore[misc]
        at = dict(zip(COUNTS, I.tolist(), strict=True))
        n, self.ends = at["found"], at["outcome"]
        self.begins, self.stays = bool(at["fresh_begin"]), bool(at["stays"])
        self.count(at["begun"], at["attempts"])
        problem.stats.rejected += at["rejected"]
        A.tries, A.h, A.norms, A.parting = at["tried"], float(C[1]), C[2:4].tolist(), bool(at["parting"])
        del A.stops[:at["at_stop"]]
        problem.ts.extend(ts[:n])
        problem.hs.extend(as_steps(hs[:n].astype(self.dtype), problem))
        return self.seen("part", range(n), seen[:n]) if n else self.many(most)


def searching(steps: Any, parts: dict, problem: Any, strict: bool, make: Callable | None) -> SearchTiles:
    """The runner of an attempt's programs: native, or as `make` says. Raises NotFusable."""
    method, fed = problem.method, problem.driver is not None or problem.system.control is not None
    return SearchTiles(steps, parts, method.outputs, not method.exactly_reversible, strict, make, fed)



"""Adaptive steps of large states, found on the device: it runs ahead, and the host's controller judges.

    attempt<<<tiles>>>     L[row] -> L[row + 1], E       a step by all tiles, and the sums of squares of its errors
    control<<<1>>>         E, B -> B                     accept (row + 1), or not; the size of the next; a line of the log

are launched AHEAD times, one behind the other, before anybody waits. Where a solve has arrived the rest do nothing. The log then goes
to the host, where adaptive.py makes each decision once more: what it would have attempted it takes from the log. Where the device has
guessed another step (its power may differ from the C library's in the last bit) it is told, and runs ahead from there. So the accepted
grid is that of the host, bit for bit, and of strict arithmetic that of native code.

States stay on the device, and where the gradient is queued (ahead.py) nobody looks at them during the search: the solve is taken
once more along the grid, by Again, with the same bits. Noise and controls are made on the host for each attempt, so that such
solves go op by op.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from revode.compiled import elementary
from revode.compiled.generate import ORDER
from revode.compiled.program import of_times
from revode.compiled.search_tiles import OPTIONS, SearchSource, SearchTiles

from .fused import Fused, to_host
from .plan import REGIMES, CannotBeFused

AHEAD = 32                 # attempts that are launched before the log is read
ROOM = 1 << 28             # bytes of accepted states that wait on the device until they are looked at
CONTROL = Path(__file__).with_name("control.cu").read_text(encoding="utf-8")
LANES = int(re.search(r"#define LANES (\d+)", CONTROL)[1])                                         # type: ignore[index]
NAMES = re.findall(r"\w+", re.search(r"enum \{([^}]*)\}", CONTROL)[1])                             # type: ignore[index]
AT = {name: i for i, name in enumerate(NAMES)}


@cache
def controller(dtype: Any) -> str:
    """The text of the controller, for states of this type."""
    state = "double" if dtype == np.float64 else "float"
    return elementary.c_source(["power"], np.float64) + re.sub(r"\bSTATE\b", state, CONTROL)


class Source(SearchSource):
    """The text of an attempt, a block for each tile."""

    def entry(self) -> str:
        at, F, _ = self.places["part", self.outputs[0]]
        errors = [offset for role, (offset, _, _) in sorted(self.places.items()) if role[0] == "error"]
        names = [name for name in ORDER if name in self.lowered]
        put = [f"    e[{1 + j}] = S[{offset}];" for j, offset in enumerate(errors)]
        begin = [f"  if (B[{AT['FRESH']}] != 0) {{", f"    if (TID == 0) begin_grid({self.given});", "    SYNC;",
                 f"    {self.call('begin', 'G')}", "    TILE_RETURN(M);", "  }"] if "begin" in names else []
        return "\n".join([
            *(self.grid_of(name).replace("static void", "STEP void", 1) for name in names),
            'extern "C" KERNEL void attempt(const double* B, const real* P, real* L, real* E, INDEX rows) {',
            f"  __shared__ double G[{self.grid}];",
            "  __shared__ int flags[TILE_THREADS];",
            f"  if (B[{AT['DONE']}] != 0) return;",
            f"  const INDEX whole = (INDEX){self.tiles} * PERSISTENT;",
            f"  real* const M = L + (INDEX)B[{AT['AT_ROW']}] * whole;", *self.memory_of_tile(), *begin,
            f"  if (TID == 0) step_grid({self.given});", "  SYNC;", f"  {self.call('step', 'G')}", "  int finite = 1;",
            f"  EACH({F}) {{ const real y = S[{at} + k * {self.lane} + r]; finite = finite && y - y == 0; }}",
            "  flags[TID] = finite;", "  SYNC;", "  if (TID == 0) {",
            f"    real* const e = E + (INDEX)tile * {1 + len(errors)};",
            "    for (int i = 1; i < NT; i++) finite = finite && flags[i];", "    e[0] = (real)finite;", *put, "  }",
            "  TILE_RETURN(M + whole);", "}"])

    @property
    def grid(self) -> int:
        """The values of the grid for an attempt."""
        return 1 + max(self.widths(name)[0] for name in self.lowered)

    @property
    def given(self) -> str:
        """The times and sizes of an attempt, as the functions of the grid take them."""
        return f"B[{AT['T0']}], B[{AT['T1']}], (real)B[{AT['H']}], (real)B[{AT['H_BEFORE']}], G"


class Again(Fused):
    """Forward along a grid that has been found, with the bits of the search: what it makes of the times is made likewise."""
    kinds = staticmethod(of_times)


class SearchFused(Fused):
    """Attempts by all tiles, as SearchTiles, on a device."""
    kinds = staticmethod(of_times)
    count: Callable = SearchTiles.count
    largest: Callable = SearchTiles.largest
    source: Source

    def __init__(self, steps: Any, parts: dict, outputs: tuple[str, ...], flows: bool, strict: bool, device: Any, given: dict) -> None:
        self.flows = flows
        alone = given.get("regime") == REGIMES[0]         # then the sums of the tiles would be those of the trajectories, one by one
        super().__init__(steps, parts, outputs, "flow" if flows else "search", False, strict, device, {} if alone else given)

    def load_kernel(self) -> Any:
        return self.device.function(self.text, self.plan.shared, self.real, self.mode, "attempt")

    def text_of(self, *how: int) -> Source:
        return Source(False, self.lowered, how[0], self.dtype, self.direction, self.outputs, False, *how[1:])

    def build(self, T: int, make: Any) -> None:
        super().build(T, make)
        besides = 8 * self.source.grid + 4 * self.plan.threads
        if self.plan.state != "shared" or self.plan.shared + besides > self.plan.budget:
            raise CannotBeFused("solve: a tile does not fit into the shared memory of a block, which an attempt of a step needs")
        self.errors = sum(role[0] == "error" for role in self.source.places)
        self.entries = self.rows * self.source.places["part", self.outputs[0]][1]
        self.control = self.device.function(controller(self.dtype), 0, "double", "strict", "control")

    def load(self, problem: Any, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        super().load(problem, params, parts, cotangents)
        xp, state = self.device.xp, self.memory.reshape(self.tiles, -1)[:, :self.source.persistent]
        self.given_parts, self.params, self.norms = parts, params, (0.0, 0.0)
        self.most = max(1, min(AHEAD, ROOM // state.nbytes))
        self.L, self.row = xp.asarray(state[None]), 0     # accepted states, and which is that of now
        self.E, self.P_there = xp.empty((self.tiles, 1 + self.errors), self.dtype), xp.asarray(self.P)
        self.log: list[list[float]] = []                  # of attempts that nobody has asked for yet: t1, and two norms

    def extend(self, most: int = AHEAD) -> dict:
        """The next accepted steps, as far as the device has run ahead."""
        self.find()
        return self.states(1, 1 + self.row)

    def find(self) -> None:
        """extend(), whose states stay in the list."""
        problem, controller, now = self.problem, self.problem.adaptive, self.L[self.row]
        if not controller.h:
            controller.begin(problem, self.given_parts, self.params)
        self.L, self.row = self.device.xp.empty((1 + self.most, *now.shape), self.dtype), 0
        self.L[0] = now
        while self.row < self.most and not controller.arrived(problem) and (self.log or not self.row):
            before = controller.tries, controller.h, self.stats.rejected, self.stats.nfe
            try:
                controller.search(problem, self)
            except FloatingPointError:                    # what has been found is looked at first; then it is tried, and said, again
                if not self.row:
                    raise
                controller.tries, controller.h, self.stats.rejected, self.stats.nfe = before
                self.log, self.begins = [], self.flows
                break
            self.row, self.begins = self.row + 1, self.flows

    def attempt(self, t0: Any, t1: Any, h: Any, h_before: Any) -> tuple[float, float]:
        """What the log says of it; first the device runs ahead from here, unless this is what it has tried next."""
        if not self.log or self.log[0][0] != t1:
            self.log = self.run_ahead(t0, t1, h, h_before)
        self.count(int(self.begins), 1)
        self.begins = False
        _, *norms = self.log.pop(0)
        self.norms = norms[0], norms[1]
        return self.norms

    def run_ahead(self, t0: Any, t1: Any, h: Any, h_before: Any) -> list[list[float]]:
        """The log of this attempt and of those that follow it, so it seems: one wait."""
        problem, A = self.problem, self.problem.adaptive
        stops, norms = A.stops[:AHEAD + 1], [*A.norms, 1.0, 1.0]
        known = {"AT_ROW": self.row, "MOST": self.most, "FRESH": self.begins, "FLOWS": self.flows, "FIRST": problem.N == 0,
                 "T0": t0, "T1": t1, "H": h, "H_BEFORE": h_before, "NEXT_H": A.h, "NORM_1": norms[0], "NORM_2": norms[1],
                 **dict(zip(map(str.upper, OPTIONS), A.options(problem.method.error_order), strict=True))}
        head = [float(known.get(name, 0.0)) for name in NAMES[:-1]]
        B = self.device.xp.asarray(np.asarray([*head, *stops, *[0.0] * (3 * AHEAD)]))
        attempt = B, self.P_there, self.L, self.E, np.int64(self.rows)
        control = B, self.E, np.int64(self.tiles), np.int64(self.entries), np.int32(self.errors), np.int32(len(stops))
        for _ in range(AHEAD):
            self.function(self.plan.blocks, self.plan.threads, attempt)
            self.control(1, LANES, control)
        found = to_host(B)
        return found[len(head) + len(stops):].reshape(-1, 3)[:int(found[AT["ATTEMPTS"]])].tolist()

    def reject(self) -> None:
        self.begins = self.problem.N == 0 and not self.flows         # as on the tape, which knows no value yet

    def states(self, first: int, last: int) -> dict:
        """Rows of the list, with an axis of grid points first, where the solve is at home."""
        at_home = to_host if isinstance(self.home, (np.ndarray, np.generic)) else lambda x: x
        return {name: at_home(x) for name, x in self.seen("part", range(first, last), self.L[first:last]).items()}

    def read(self, kind: str) -> Any:
        if kind == "norm":
            return dict(enumerate(self.norms))
        if kind == "part":
            return {name: x[0] for name, x in self.states(self.row, self.row + 1).items()}
        return super().read(kind)

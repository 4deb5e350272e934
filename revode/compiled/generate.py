"""From loops to C: the whole solve of one direction as one function over a tile of trajectories.

    run(first, last, ...)     for each step n: increments of noise; the step's loops; saved states out, or cotangents in

The text is CUDA C as it stands: a host that defines TID 0, NT 1 and an empty SYNC compiles it as plain loops, a GPU with
TID threadIdx.x, NT blockDim.x and SYNC __syncthreads() runs it with a block of threads for each tile. No includes, no
atomics; every element and every sum belongs to one thread, in a fixed order. Values lie in `S`, the memory of the tile:
x[k T + r] for feature k of lane r; P holds what comes from the parameters, G a row of grid values for each step; of what
differs from tile to tile, Q and H.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..watch import MANY
from . import elementary, order
from .alike import alike
from .lower import LANES, Loop, Lowered, Read, Slot
from .order import ELEMENTWISE, before_total, late, phases
from .place import place
from .program import Role, V, frozen


def text(name: str) -> str:
    """The text of a file beside this one, with that of the files which it includes: what is generated includes nothing."""
    content = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return re.sub(r'^#include "([\w.]+)"$', lambda found: text(found[1]).rstrip("\n"), content, flags=re.MULTILINE)


TILE_FUNCTIONS = text("tiles.hpp")
ALIGN = 16                  # numbers to which the start of every stored value is aligned
PART = 100                  # loops in one function at most: what a compiler takes for a function grows faster than its length
ORDER = ("begin", "step", "land", "end")
# For one trajectory: what g++ does to short loops at its third level costs a sixth of their time. Bits are the same.
ALONE = """\
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#pragma GCC optimize ("O2", "tree-vectorize", "vect-cost-model=dynamic", "peel-loops", "predictive-commoning")
#endif"""
# What `run` is called with, in this order: the type in C, and the name. Y stands for an array for each output of the method.
ARGUMENTS = (
    ("INDEX", "first"), ("INDEX", "last"),                       # the steps of this call
    ("int", "begins"), ("int", "lands"), ("int", "flushes"),     # whether the programs of those names have a part in it
    ("const double*", "GB"), ("const double*", "GS"), ("const double*", "GL"), ("const double*", "GE"),      # their grid values
    ("const real*", "P"), ("real*", "M"), ("INDEX", "rows"),     # of the parameters; the memory of the tiles; trajectories
    ("const INDEX*", "save"), ("INDEX", "saved"), ("real*", "Y"),                # grid points; the next of them; states, cotangents
    ("const real*", "D"), ("const double*", "width"),            # increments; or the roots of the steps, to make them from
    ("unsigned long long", "seed"), ("unsigned", "trajectory"), ("unsigned", "step"),
    ("const INDEX*", "look"), ("INDEX", "looked"), ("real*", "L"),               # grid points; the next of them; what is seen there
    ("const real*", "K"),                                        # known states, at which a pull takes place
    ("real*", "W"))                                              # the cotangents of the clock of each step


def arguments(outputs: int) -> list[tuple[str, str]]:
    """ARGUMENTS for a method with so many outputs."""
    return [(type, f"{name}{j}" if name == "Y" else name) for type, name in ARGUMENTS
            for j in range(outputs if name == "Y" else 1)]


def packed(arguments: list[tuple[str, str]]) -> str:
    """`run`, given its arguments as whole numbers in one array."""
    given = ", ".join(f"({type})a[{i}]" for i, (type, _) in enumerate(arguments))
    return f'extern "C" void packed(INDEX tile, const INDEX* a) {{ run((int)tile, {given}); }}'


def meaning(program: Any, a: Any) -> Any:
    """What a value computed from the parameters is, the same in every program."""
    if not isinstance(a, V):
        return frozen(a)
    x = program.values[a]
    return x.role if x.op is None else (x.op.name, *(meaning(program, b) for b in x.args), frozen(x.options))


@dataclass
class Memory:
    """Where things lie in the memory of a tile: role -> (offset, features, kind), and its length in numbers."""
    places: dict[Role, tuple[int, int, str]]
    size: int
    columns: dict[str, list[tuple[Any, int, int]]] = field(default_factory=dict)       # program -> (value, offset in G, length)
    params: list[tuple[str, Any, int, int]] = field(default_factory=list)              # (program, value, offset in P, length)
    own_columns: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)   # program -> (number, offset in H, length)
    own: list[tuple[str, int, int, int]] = field(default_factory=list)                 # (program, number, offset in Q, length)


class Source:
    """The C text of the programs of one direction, for tiles of T trajectories.

    align : numbers to which values are aligned; pad : numbers that nobody reads behind the lanes of each feature, so that features lie
    in different banks of a GPU's memory.
    """

    def __init__(self, lowered: dict[str, Lowered], T: int, dtype: Any, direction: str, outputs: Sequence[str],
                 brownian: bool, align: int = ALIGN, pad: int = 0) -> None:
        self.T, self.dtype, self.direction, self.outputs, self.brownian = T, np.dtype(dtype), direction, outputs, brownian
        self.align, self.stride, self.lane = align, T + pad, "STRIDE" if pad else "T"
        self.lowered = {name: order.running(x) for name, x in lowered.items()}
        if sum(map(order.calls, self.lowered.values())) > order.CALLS:
            self.lowered = {name: order.set_apart(x) for name, x in self.lowered.items()}
        self.tables: dict[bytes, str] = {}
        self.table_lines: list[str] = []
        self.functions: set[str] = set()
        self.stretches: set[str] = set()            # functions that are called for a stretch of memory
        self.places: dict[Role, tuple[int, int, str]] = {}
        self.layout = Memory(self.places, 0)
        self.members = max(x.ensemble for x in self.lowered.values())
        self.tiles = "((rows + T - 1) / T)" if self.members == 1 else f"({self.members} * ((rows / {self.members} + T - 1) / T))"
        self.persistent = self.lay_out()
        self.param_size = self.pack()
        self.own_size = self.pack_own()
        bodies = [self.body(name) for name in ORDER if name in self.lowered]
        self.size = self.layout.size = max([self.persistent, *(body.top for body in bodies)])
        self.text = self.whole([body.text for body in bodies])

    @cached_property
    def host(self) -> str:
        """The text as the native host compiles it; of one trajectory loops are so short that calls would cost a tenth."""
        return alike(self.text) if self.T > 1 else self.text

    def body(self, name: str) -> Body:
        """The C function of a program."""
        return Body(self, name, self.lowered[name], self.persistent)

    def lay_out(self) -> int:
        """Places for what one step leaves for the next, first what a look takes. Returns how much they take."""
        inputs = [item for x in self.lowered.values() for item in x.inputs.items()]
        early = {"part": 0, "cotangent": 0, "aparam": 1}             # what a look takes comes first
        found = [(role, slot.F, slot.kind) for role, slot in sorted(inputs, key=lambda item: early.get(item[0][0], 2))]
        found += [(role, read.slot.F if read.map is None else len(read.map), read.slot.kind)
                  for x in self.lowered.values() for role, read in x.outputs.items() if read.slot is not None]
        size = 0
        for role, F, kind in found:
            if role not in self.places:
                self.places[role] = (size, F, kind)
                size += self.room(F, kind)
        self.look_at()
        return size

    def look_at(self) -> None:
        """What a look takes: parts and cotangents, and the sums for the parameters where these are few."""
        sums = sorted((offset, F) for role, (offset, F, _) in self.places.items() if role[0] == "aparam" and F)
        apart = any(x.sums for x in self.lowered.values())           # parameters of their own for members, or trajectories
        few = 0 < sum(F for _, F in sums) <= MANY and not apart
        # where the sums for the parameters lie, one beside another, and where each of them begins there
        self.sums = slice(sums[0][0], sums[-1][0] + sums[-1][1]) if few else None
        self.begins = np.asarray([offset - sums[0][0] for offset, _ in sums])
        seen = ("part", "cotangent", *(["aparam"] if few else []))
        self.seen = max((offset + self.room(F, kind) for role, (offset, F, kind) in self.places.items() if role[0] in seen), default=0)

    def pack(self) -> int:
        """Places in P for what comes from the parameters; what several programs read is there once. Returns its length."""
        offset, before = 0, {}
        for name, x in self.lowered.items():
            for v in x.params:
                F = int(np.prod(x.program.values[v].shape))                                        # type: ignore[union-attr]
                key = meaning(x.program, v)
                if key not in before:
                    before[key] = offset
                    offset += -(-F // self.align) * self.align
                self.layout.params.append((name, v, before[key], F))
        return offset

    def pack_own(self) -> int:
        """Places for what each tile has of its own: of the parameters, and in a row of the grid. Returns how much of P it takes."""
        size = 0
        for name, x in self.lowered.items():
            columns, offset = self.layout.own_columns.setdefault(name, []), 0
            for i, own in enumerate(x.own):
                n = self.room(own.at.shape[1], own.kind)
                if own.steps:
                    columns.append((i, offset, n))
                    offset += n
                else:
                    self.layout.own.append((name, i, size, n))
                    size += n
        return size

    def room(self, F: int, kind: str) -> int:
        """Numbers that a value takes, rounded up."""
        n = F * (self.stride if kind == LANES else 1)
        return -(-n // self.align) * self.align

    def tiling(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """For every tile its first trajectory, and how many it has."""
        each = rows // self.members
        before = self.T * np.arange(-(-each // self.T))
        first = each * np.arange(self.members)[:, None] + before
        return first.reshape(-1), np.tile(np.minimum(self.T, each - before), self.members)

    def table(self, index: np.ndarray) -> str:
        """The name of a table of indices."""
        key = index.astype(np.int32).tobytes()
        return self.named(key, "M", "int", map(str, index.reshape(-1).tolist()), index.size)

    def constants(self, values: np.ndarray) -> str:
        """The name of a table of numbers."""
        return self.named(b"real" + values.tobytes(), "C", "real", map(number, values.tolist()), values.size)

    def named(self, key: bytes, letter: str, type: str, entries: Any, size: int) -> str:
        if key not in self.tables:
            self.tables[key] = f"{letter}{len(self.tables)}"
            self.table_lines.append(f"TABLE {type} {self.tables[key]}[{size}] = {{{', '.join(entries)}}};")
        return self.tables[key]

    def whole(self, bodies: list[str]) -> str:
        sizes = {"T": self.T, **({"STRIDE": self.stride} if self.stride > self.T else {}), "MEMORY": self.size,
                 "PERSISTENT": self.persistent, "PARAMS": self.param_size}
        head = [f"#define {name} {n}" for name, n in sizes.items()]
        functions = elementary.c_source(sorted(self.functions & set(elementary.NAMES)), self.dtype)
        parts = [*([ALONE] if self.T == 1 else []), functions, *head, TILE_FUNCTIONS, *sorted(self.stretches)]
        if self.brownian:
            from . import noise
            parts.append(noise.SOURCE)
        return "\n".join([*parts, *self.table_lines, *bodies, self.entry()])

    # the function that is called: steps first .. last - 1, forward or back

    def entry(self) -> str:
        back = self.direction != "forward"
        at = "n" if back else "n + 1"                # where a step arrives
        begin, then = ("last - 1", "n > first ? n - 1 : n") if back else ("first", "n + 1 < last ? n + 1 : n")
        parameters = ", ".join(f"{type} {name}" for type, name in arguments(len(self.outputs)))
        lines = [f'extern "C" KERNEL void run(TILE_ARGUMENT {parameters}) {{', *self.memory_of_tile()]
        if "begin" in self.lowered:
            lines.append(f"  if (begins) {self.call('begin', 'GB')}")
        lines += [f"  {type} {name}({of.format(begin)}, first < last);" for name, (type, of) in self.carried.items()]
        lines += [f"  INDEX stop = {'saved < 0 ? -1 : ' if back else ''}save[saved], glance = look[looked];",
                  f"  for (INDEX n = {begin}; {'n >= first; n--' if back else 'n < last; n++'}) {{", f"    const INDEX then = {then};",
                  *self.driven(), *self.known(), self.stepped(), *self.clocked(), *self.exchanged(at), *self.looked_at(at), "  }"]
        if "end" in self.lowered:
            lines.append(f"  if (flushes) {self.call('end', 'GE')}")
        return "\n".join([*lines, "  TILE_RETURN(M);", "}"])

    @cached_property
    def carried(self) -> dict[str, tuple[str, str]]:
        """What a step reads by its number, which a GPU loads one step ahead: by name, its type, and where it lies for a step."""
        found, lengths = {}, [n for _, _, n in self.layout.columns.get("step", [])]
        if lengths and max(lengths) == 1 and not self.widths("step")[1]:
            found["grid"] = f"rv_row<{len(lengths)}>", f"GS + ({{}} - first) * {len(lengths)}"
        for role, (_, F, where) in self.places.items():
            if role[0] == "drive" and self.brownian and role[1] == "dW":
                found["root"] = "rv_row<1>", "width + ({} - first)"
            elif role[0] == "drive":
                n, of = (F * self.T, f"(({{}} - first) * {self.tiles} + tile)") if where == LANES else (F, "({} - first)")
                found["drive"] = f"rv_drive<{n}, {int(where == LANES)}>", f"D + {of} * {n}"
        return found

    def carry(self, name: str) -> str:
        """The arguments of what is carried: where it lies for this step, and for the next."""
        return ", ".join(self.carried[name][1].format(n) for n in ("n", "then"))

    def driven(self) -> list[str]:
        """The increments of a step: made here, or taken from D."""
        lines = []
        for role, (offset, F, _) in self.places.items():
            if role[0] == "drive" and self.brownian and role[1] == "dW":
                lines.append(f"    rv_brownian_tile(S + {offset}, {self.lane}, {F}, TID, NT, seed, trajectory + (unsigned)row, "
                             f"step + (unsigned)n, *root.of({self.carry('root')})); SYNC;")
            elif role[0] == "drive":
                lines.append(f"    drive.put(S + {offset}, {self.carry('drive')});\n    SYNC;")
        return lines

    def known(self) -> list[str]:
        """The parts at which a pull takes place, from a row of K for each step."""
        given = [place for role, place in self.places.items() if role[0] == "state"]
        whole, before, lines = sum(F for _, F, _ in given) * self.T, 0, []
        for offset, F, _ in given:
            lines.append(f"    EACH({F}) S[{offset} + k * {self.lane} + r] = K[((n - first) * {self.tiles} + tile) * {whole} + "
                         f"{before} + k * T + r];\n    SYNC;")
            before += F * self.T
        return lines

    def memory_of_tile(self) -> list[str]:
        """Where its values and its own parameters lie (P is what all share, and may be copied), its first trajectory, and how many it
        has: of one member, where there is an ensemble."""
        lines = ["  const real* const own = P + PARAMS;"] if self.own_size else []
        lines += ["  TILE_MEMORY(M);", *self.rows()]
        if self.own_size:
            lines.append(f"  const real* const Q = own + (INDEX)tile * {self.own_size};")
        return lines

    def rows(self) -> list[str]:
        lines = ["  const INDEX row = (INDEX)tile * T;", "  const int R = rows - row < T ? (int)(rows - row) : T;"]
        if self.members > 1:
            lines = [f"  const INDEX each = rows / {self.members}, of_each = (each + T - 1) / T, before = tile % of_each * T;",
                     "  const INDEX row = tile / of_each * each + before;",
                     "  const int R = each - before < T ? (int)(each - before) : T;"]
        return lines

    def widths(self, name: str) -> tuple[int, int]:
        """The length of a row of the grid: what all tiles read, and what each of them has of its own."""
        return (sum(n for _, _, n in self.layout.columns.get(name, [])),
                sum(n for _, _, n in self.layout.own_columns.get(name, [])))

    def parameters(self, name: str) -> dict[str, str]:
        """Of the function of a program: the types and names."""
        own = {"Q": "const real* RESTRICT"} if self.own_size else {}
        grid = {"H": "const double* RESTRICT"} if self.widths(name)[1] else {}
        return {"S": "real* RESTRICT", "P": "const real* RESTRICT", **own, "G": "const double* RESTRICT", **grid, "R": "int"}

    def call(self, name: str, grid: str, row: str = "") -> str:
        width, own = self.widths(name)
        whole = f"({width} + {self.tiles} * {own})" if own else f"{width}"
        at = f"{grid} + {row} * {whole}" if row else grid
        given = {"G": at, "H": f"{at} + {width} + (INDEX)tile * {own}"}
        return f"step_{name}({', '.join(given.get(x, x) for x in self.parameters(name))});"

    def stepped(self) -> str:
        at = (f"grid.of({self.carry('grid')})",) if "grid" in self.carried else ("GS", "(n - first)")
        step = self.call("step", *at)
        land = f"if (lands && n == first) {self.call('land', 'GL')} else " if "land" in self.lowered else ""
        return f"    {land}{step}"

    @cached_property
    def clocks(self) -> list[tuple[str, int]]:
        """The names of those of the clock's cotangents that a step has, and where they lie: one number each."""
        return [(role[1], offset) for role, (offset, _, _) in self.places.items() if role[0] == "atime"]

    def clocked(self) -> list[str]:
        """The cotangents of the clock of a step, to a row of W."""
        n = len(self.clocks)
        return [f"    ONCE(1) W[((n - first) * {self.tiles} + tile) * {n} + {j}] = S[{offset}];"
                for j, (_, offset) in enumerate(self.clocks)] + ["    SYNC;"] * (n > 0)

    def exchanged(self, at: str) -> list[str]:
        """Saved states out; or the cotangents of saved states in, the last one also for lanes without a trajectory."""
        back = self.direction != "forward"
        lines = [f"    if (stop == {at}) {{"]
        for j, name in enumerate(self.outputs):
            offset, F, _ = self.places["cotangent" if back else "part", name]
            mine = f"S[{offset} + k * {self.lane} + r]"
            where = f"Y{j}[(saved * rows + row + (r < R ? r : R - 1)) * {F} + k]"
            lines.append(f"      EACH({F}) {{ " + (f"{mine} = {mine} + {where};" if back else f"if (r < R) {where} = {mine};") + " }")
        following = "--saved < 0 ? -1 : save[saved]" if back else "save[++saved]"
        return [*lines, f"      stop = {following};", "      SYNC;", "    }"]

    def looked_at(self, at: str) -> list[str]:
        """The state where the monitor wants to look at it."""
        return [f"    if (glance == {at}) {{", f"      real* to = L + (looked * {self.tiles} + tile) * {self.seen};",
                f"      UNROLL for (int k = TID; k < {self.seen}; k += NT) to[k] = S[k];",
                "      glance = then == n ? -1 : look[++looked];", "      SYNC;", "    }"]


def clash(a: tuple, b: tuple) -> bool:
    """Whether two threads may meet in these two places, unless each element belongs to the same thread in both."""
    return a[0] < b[1] and b[0] < a[1] and not (a[0] == b[0] and a[2] is not None and a[2] == b[2])


def number(x: float) -> str:
    """A number in C, of the type real."""
    if x != x:
        return "rv_nan()"
    if x in (float("inf"), float("-inf")):
        return "rv_infinity()" if x > 0 else "-rv_infinity()"
    text = repr(float(x))
    return f"(real){text}" if x >= 0 and not text.startswith("-") else f"(real)({text})"


class Body:
    """The C function of one program."""
    pairs = True                                     # whether sums that read the same values may be one call

    def __init__(self, source: Source, name: str, lowered: Lowered, base: int) -> None:
        self.source, self.name, self.lowered, self.T, self.lane = source, name, lowered, source.T, source.lane
        self.params = {int(v): offset for program, v, offset, _ in source.layout.params if program == name}
        source.layout.columns[name] = columns = self.columns()
        self.grid = {int(v): (offset, n) for v, offset, n in columns}
        self.own = {i: offset for program, i, offset, _ in source.layout.own if program == name} | {
            i: offset for i, offset, _ in source.layout.own_columns[name]}
        groups = late(phases(lowered.loops), {read.slot for read in lowered.outputs.values() if read.slot is not None})
        places = place(groups, lowered, source.places, source.room, base)
        self.offsets, self.local, self.copies, self.top = places.offsets, places.local, places.copies, places.top
        self.lines: list[str] = []
        self.busy: tuple[list[tuple], list[tuple]] = ([], [])          # what was read and written since the last barrier
        starts = []
        for n, group in enumerate(groups):
            self.barrier(group)
            if n % PART == 0:
                starts.append(len(self.lines))
            elif self.pair(groups[n - 1], group):
                continue
            self.print(group)
        self.finish()
        self.text = self.functions(starts)

    def columns(self) -> list[tuple[V, int, int]]:
        """What is read of the grid: (value, where it lies in a row of G, its length)."""
        values = self.lowered.program.values                                                       # type: ignore[union-attr]
        lengths = [int(np.prod(values[v].shape)) for v in self.lowered.steps]
        return [(v, sum(lengths[:i]), n) for i, (v, n) in enumerate(zip(self.lowered.steps, lengths, strict=True))]

    def functions(self, starts: list[int]) -> str:
        """One function; of many loops several, and one that calls them."""
        name = f"step_{self.name}"
        if len(starts) < 2:
            return self.function(name, self.lines)
        parts = {f"{name}_{i}": self.lines[a:b] for i, (a, b) in enumerate(pairwise([*starts, None]))}
        parts[name] = [f"  {part}({', '.join(self.source.parameters(self.name))});" for part in parts]
        return "\n".join(map(self.function, parts, parts.values()))

    def function(self, name: str, lines: list[str]) -> str:
        used = self.source.layout.columns.get(self.name, [])
        scalars = [f"  const real s{int(v)} = (real)G[{offset}];" for v, offset, n in used if n == 1]
        given = self.source.parameters(self.name)
        once = ["SELDOM"] if self.name != "step" and self.source.direction in ("forward", "backward") else []
        return "\n".join([*once, f"STEP void {name}({', '.join(f'{type} {x}' for x, type in given.items())}) {{",
                          "  " + " ".join(f"(void){x};" for x in given if x != "S"), *scalars, *lines, "}"])

    # barriers

    def barrier(self, group: list[Loop]) -> None:
        """Take back the barrier in front of loops that touch nothing that other threads may still be at work on."""
        reads, writes = self.touched(group)
        busy_reads, busy_writes = self.busy
        if any(clash(a, b) for a in writes for b in busy_reads + busy_writes) or any(clash(a, b) for a in reads for b in busy_writes):
            self.busy = (reads, writes)
            return
        if self.lines:
            self.lines[-1] = self.lines[-1].removesuffix("\n  SYNC;")
        self.busy = (busy_reads + reads, busy_writes + writes)

    def pair(self, before: list[Loop], group: list[Loop]) -> bool:
        """Print the gradient of a matrix and that of the bias beside it as one call, where no barrier stands between them: the host
        turns what both of them sum over the lanes once."""
        a, b = sorted((before[0], group[0]), key=lambda loop: loop.kind)
        alike = (a.kind, b.kind, b.op) == ("outer", "rows", None) and a.reads[1].slot is b.reads[0].slot
        if not self.pairs or not alike or self.lines[-1].endswith("SYNC;"):
            return False
        self.lines[-2:] = [f"  // op: {a.source}, {b.source}", f"  {self.product(a, b)}\n  SYNC;"]
        return True

    def touched(self, group: list[Loop]) -> tuple[list[tuple], list[tuple]]:
        """What loops read and write of S: (start, end, how the elements are dealt out to the threads, or None)."""
        reads, writes = [], []
        inside = {loop.out for loop in group} if group[0].kind in ELEMENTWISE else set()
        for loop in group:
            lanes, F, apart = loop.out.kind == LANES, loop.out.F, loop.apart and self.source.stride > self.T  # over the padding, too
            own = (loop.kind, *loop.shape) if loop.shape else ("stretch" if apart else loop.kind if loop.kind == "rows" else lanes, F)
            if loop.out not in self.local:
                writes.append((*self.extent(loop.out), own))
            totals = before_total(loop)
            for n, read in enumerate(loop.reads):
                if read.slot is None or read.slot not in self.offsets or (read.slot in inside and read.map is None):
                    continue
                same = n >= totals or (loop.kind == "map" and read.map is None and (read.slot.kind == LANES) == lanes)
                reads.append((*self.extent(read.slot), own if same else None))
        return reads, writes

    def extent(self, slot: Slot) -> tuple[int, int]:
        start = self.offsets[slot]
        return start, start + slot.F * (self.source.stride if slot.kind == LANES else 1)

    # text

    def index(self, index: np.ndarray | None, k: str = "k") -> str:
        """An expression in k for a map of features."""
        if index is None:
            return k
        index = np.asarray(index)
        n = len(index)
        if n == 1 or np.all(index == index[0]):
            return str(int(index[0]))
        step = int(index[1] - index[0])
        if np.array_equal(index, index[0] + step * np.arange(n)):
            text = k if step == 1 else f"{k} * {step}" if step > 0 else f"({k}) * {step}"
            return text if index[0] == 0 else f"{text} + {int(index[0])}"
        block = int(np.argmax(index != index[0]))
        if index[0] == 0 and np.array_equal(index, np.arange(n) // block):
            return f"{k} / {block}"
        top = int(index.max()) + 1
        if index.min() == 0 and np.array_equal(index, np.arange(n) % top):
            return f"{k} % {top}"
        return f"{self.source.table(index)}[{k}]"

    def element(self, read: Read, k: str = "k") -> str:
        """The C expression of feature k (of lane r) of what is read."""
        slot = read.slot
        if slot is None:
            return number(read.number)
        if slot in self.local:
            return self.names[slot]
        feature = self.index(read.map, k)
        return self.address(slot, feature)

    def address(self, slot: Slot, feature: str) -> str:
        where, *what = slot.role or ("",)
        if where == "params":
            return f"P[{self.params[what[0]]} + {feature}]"
        if where == "steps":
            offset, n = self.grid[what[0]]
            return f"s{what[0]}" if n == 1 else f"(real)G[{offset} + {feature}]"
        if where == "constant":
            return f"{self.source.constants(np.frombuffer(what[0]))}[{feature}]"
        memory, offset = {"own params": "Q", "own steps": "(real)H"}.get(where, "S"), self.own[what[0]] if where.startswith(
            "own") else self.offsets[slot]
        return f"{memory}[{offset} + ({feature}) * {self.lane} + r]" if slot.kind == LANES else f"{memory}[{offset} + {feature}]"

    def pointer(self, slot: Slot) -> str:
        first = self.address(slot, "0").replace("[", " + ", 1).removesuffix("]")
        return first.removesuffix(f" * {self.lane} + r").replace("(0)", "0") if slot.kind == LANES else first

    def print(self, group: list[Loop]) -> None:
        says = dict.fromkeys(loop.source for loop in group if loop.source)
        self.lines.append(f"  // op: {', '.join(says) or 'copy'}")
        first = group[0]
        if first.apart:
            self.lines.append(f"  {self.stretch(first)}\n  SYNC;")
        elif first.kind in ELEMENTWISE:
            each = "EACH" if first.out.kind == LANES else "ONCE"
            counter = ["int c;"] if any(loop.tables for loop in group) else []
            body = "\n    ".join([*counter, *self.elements(group)])
            self.lines.append(f"  {each}({first.out.F}) {{\n    {body}\n  }}\n  SYNC;")
        else:
            self.lines.append(f"  {self.product(first)}\n  SYNC;")

    def stretch(self, loop: Loop) -> str:
        """The call of an elementary function for all features and lanes."""
        name = loop.text.split("(")[0]
        self.need(loop.text)
        self.source.stretches.add(f"STRETCH{len(loop.reads)}({name})")
        places = ", ".join(self.pointer(slot) for slot in (loop.out, *(read.slot for read in loop.reads)) if slot is not None)
        return f"{name}_stretch({places}, {loop.out.F}{f' * {self.lane}' if loop.out.kind == LANES else ''});"

    def elements(self, group: list[Loop]) -> list[str]:
        """What is done for element k (of lane r). All is read before any is written: outputs lie where inputs do."""
        self.names = {loop.out: f"v{j}" for j, loop in enumerate(group)}
        self.written: set[Slot] = set()              # what this group has made is in a register, whether or not it is stored as well
        lines = []
        for loop in group:
            lines.append(getattr(self, loop.kind)(loop, self.names[loop.out]))
            self.written.add(loop.out)
        return lines + [f"{self.address(loop.out, 'k')} = {self.names[loop.out]};" for loop in group if loop.out not in self.local]

    def map(self, loop: Loop, name: str) -> str:
        reads = [self.names[read.slot] if read.slot in self.written and read.map is None else self.element(read)
                 for read in loop.reads]
        self.need(loop.text)
        lines = []
        if "?" in loop.text:                         # nothing is read under a condition: see gather
            for j, read in enumerate(reads):
                if "[" in read:
                    lines.append(f"const real {name}_{j} = {read};")
                    reads[j] = f"{name}_{j}"
        return "\n    ".join([*lines, f"const real {name} = {loop.text.format(*reads)};"])

    def gather(self, loop: Loop, name: str) -> str:
        """Every part is read for every feature, at some place where the feature is not one of its own, and one is chosen: what a
        compiler makes of reads that stand under conditions is slow, and g++ 12 makes wrong code of them."""
        lines, text = [], number(0.0)
        for j, read in reversed(list(enumerate(loop.reads))):
            index = np.asarray(read.map)
            inside = np.flatnonzero(index >= 0)
            if not len(inside):
                continue
            a, b = int(inside[0]), int(inside[-1]) + 1
            if b - a == len(inside):
                condition, near = f"k >= {a} && k < {b}", index[np.clip(np.arange(loop.out.F), a, b - 1)]
            else:
                condition, near = f"{self.source.table(index)}[k] >= 0", np.maximum(index, 0)
            value = number(read.number) if read.slot is None else self.address(read.slot, self.index(near))
            lines.append(f"const real {name}_{j} = {value};")
            text = f"{condition} ? {name}_{j} : {text}"
        return "\n    ".join([*lines, f"const real {name} = {text};"])

    def contract(self, loop: Loop, name: str) -> str:
        left, right = (self.address(read.slot, self.entry(t))                                      # type: ignore[arg-type]
                       for read, t in zip(loop.reads, loop.tables, strict=True))
        return (f"c = 0;\n    real {name} = {left} * {right};\n    UNROLL for (c = 1; c < {loop.tables[0].shape[1]}; c++) "
                f"{name} = {name} + {left} * {right};")

    def reduce(self, loop: Loop, name: str) -> str:
        table, slot = loop.tables[0], loop.reads[0].slot
        op = loop.op.name if loop.op is not None else "sum"
        combine = {"sum": "{0} + x", "max": "x > {0} || x != x ? x : {0}", "min": "x < {0} || x != x ? x : {0}"}[op].format(name)
        assert slot is not None
        if (table < 0).any():                        # some features have fewer terms than others
            return (f"c = 0;\n    real {name} = {number(0.0)};\n    UNROLL for (c = 0; c < {table.shape[1]}; c++) {{ "
                    f"const int i = {self.source.table(table)}[k * {table.shape[1]} + c]; "
                    f"const real x = {self.address(slot, '(i < 0 ? 0 : i)')}; {name} = i < 0 ? {name} : ({combine}); }}")
        entry = self.address(slot, self.entry(table))
        return (f"c = 0;\n    real {name} = {entry};\n    UNROLL for (c = 1; c < {table.shape[1]}; c++) "
                f"{{ const real x = {entry}; {name} = {combine}; }}")

    def product(self, loop: Loop, rows: Loop | None = None) -> str:
        """A product with a shared matrix, or a sum over the lanes: linear, outer or rows; outer and rows (see pair)."""
        out, x, *more = (self.pointer(slot) for slot in (loop.out, *(read.slot for read in loop.reads)) if slot is not None)
        if loop.kind == "linear":
            return f"rv_linear<{', '.join(map(str, loop.shape))}>({out}, {x}, {more[0]});"
        g, total = (f"{more[0]}, ", more[1:]) if loop.kind == "outer" else ("", more)
        name = "rv_rows_max" if loop.op is not None else f"rv_{loop.kind}"
        sizes = ", ".join(map(str, loop.shape or (loop.out.F,)))
        total = total or ["(const real*)0"]
        if rows is not None:
            before = [self.pointer(read.slot) for read in rows.reads[1:] if read.slot is not None]
            name, total = "rv_outer_rows", [*total, self.pointer(rows.out), *(before or ["(const real*)0"])]
        return f"{name}<{sizes}>({out}, {x}, {g}{', '.join(total)}, R);"

    def entry(self, table: np.ndarray) -> str:
        """An expression in k and c for a table of features."""
        first = table[:, 0]
        steps = table - first[:, None]
        if np.all(steps == steps[:1]) and not (table < 0).any():
            row = steps[0]
            stride = int(row[1]) if len(row) > 1 else 0
            if np.array_equal(row, stride * np.arange(len(row))):
                return f"{self.index(first)} + c * {stride}"
        return f"{self.source.table(table)}[k * {table.shape[1]} + c]"

    def need(self, text: str) -> None:
        """Remember the elementary functions that an expression calls."""
        for word in text.replace("(", " ").split():
            if word.startswith("rv_"):
                self.source.functions.add(word.removeprefix("rv_").lstrip("-"))

    def finish(self) -> None:
        """Copy the outputs that lie elsewhere to where the next step looks for them: all are read before any is written."""
        first, second = [], []
        for role, read in self.copies:
            offset, F, kind = self.source.places[role]
            each = "EACH" if kind == LANES else "ONCE"
            own = f"S[{offset} + k * {self.lane} + r]" if kind == LANES else f"S[{offset} + k]"
            if kind != LANES and read.slot is not None and read.slot.kind == LANES:
                raise AssertionError(f"{role} is shared, but its new value is not")
            if read.slot is not None and read.slot in self.lowered.inputs.values():
                aside = self.top
                self.top += self.source.room(F, kind)
                between = own.replace(f"S[{offset} ", f"S[{aside} ")
                first.append(f"  {each}({F}) {between} = {self.element(read)};")
                second.append(f"  {each}({F}) {own} = {between};")
            else:
                first.append(f"  {each}({F}) {own} = {self.element(read)};") if not self.reads_target(role) else second.append(
                    f"  {each}({F}) {own} = {self.element(read)};")
        if first or second:
            self.lines.append("  // op: copy")
        self.lines += [*first, "  SYNC;", *second, "  SYNC;"] if first or second else []

    def reads_target(self, role: Role) -> bool:
        """Whether another copy reads what this one writes."""
        slot = self.lowered.inputs.get(role)
        return any(read.slot is slot and other != role for other, read in self.copies)

"""From loops to C: the whole solve of one direction as one function over a tile of trajectories.

    run(first, last, ...)     for each step n: increments of noise; the step's loops; saved states out, or cotangents in

The text is CUDA C as it stands: a host that defines TID 0, NT 1 and an empty SYNC compiles it as plain loops, a GPU with
TID threadIdx.x, NT blockDim.x and SYNC __syncthreads() runs it with a block of threads for each tile. No includes, no
atomics; every element and every sum belongs to one thread, in a fixed order. Values lie in `S`, the memory of the tile:
x[k T + r] for feature k of lane r; P holds what comes from the parameters, G a row of grid values for each step.
"""
from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..watch import MANY
from . import elementary
from .lower import LANES, TILE, Loop, Lowered, Read, Slot
from .program import ADD, Role, V, frozen

ALIGN = 16                  # numbers to which the start of every stored value is aligned
# An elementary function is dozens of operations, and a compiler takes about 20 ms for a loop with one. So there are
INLINE = 8                  # of them in one loop at most, and where a direction has more than
CALLS = 32                  # of them, each is a call of a function over a stretch of memory, which is compiled once
TOGETHER = 64               # operations in one loop at most, so that what one loop leaves for the next stays in the cache
SHORT = 8                   # terms of a sum that shares a loop with other operations
AHEAD = 512                 # operations among which those for one loop are looked for
PART = 100                  # loops in one function at most: what a compiler takes for a function grows faster than its length
ELEMENTWISE = ("map", "gather", "contract", "reduce")
ORDER = ("begin", "step", "land", "end")


def fused(lowered: Lowered) -> Lowered:
    """Sums over the lanes that are added to a running sum right away, as one loop."""
    uses: dict[Slot, int] = {}
    for loop in lowered.loops:
        for read in loop.reads:
            if read.slot is not None:
                uses[read.slot] = uses.get(read.slot, 0) + 1
    for read in lowered.outputs.values():
        if read.slot is not None:
            uses[read.slot] = uses.get(read.slot, 0) + 1
    made = {loop.out: loop for loop in lowered.loops}
    loops: list[Loop] = []

    def fresh(read: Read) -> bool:
        """Whether this is a sum over the lanes that has not been joined to a running sum yet."""
        inner = made.get(read.slot) if read.slot is not None else None
        return inner is not None and inner.op is None and len(inner.reads) == {"outer": 2, "rows": 1}.get(inner.kind, 0)

    for loop in lowered.loops:
        if loop.kind == "map" and loop.op is ADD:
            total, term = loop.reads if not fresh(loop.reads[0]) else loop.reads[::-1]
            inner = made.get(term.slot) if fresh(term) and term.slot is not None else None
            if (inner is not None and uses[inner.out] == 1 and term.map is None and total.slot is not None and total.map is None
                    and inner in loops):
                loops.remove(inner)
                joined = Loop(inner.kind, loop.out, [*inner.reads, total], shape=inner.shape, source=inner.source)
                made[loop.out] = joined
                loops.append(joined)
                continue
        loops.append(loop)
    return Lowered(loops, lowered.inputs, lowered.outputs, lowered.steps, lowered.params, lowered.program)


def elementary_call(loop: Loop) -> bool:
    return loop.kind == "map" and loop.text.startswith("rv_") and loop.op is not None and loop.op.name in elementary.NAMES


def set_apart(lowered: Lowered) -> Lowered:
    """Elementary functions as loops of their own, from one value in the memory of the tile to another."""
    stored = set(lowered.inputs.values())
    loops: list[Loop] = []
    for loop in lowered.loops:
        if elementary_call(loop):
            reads = []
            for slot, index, number in loop.reads:
                if slot is None or index is not None or (slot.kind == LANES) != (loop.out.kind == LANES) or slot not in stored:
                    copy = Slot(loop.out.kind, loop.out.F)
                    loops.append(Loop("map", copy, [Read(slot, index, number)], text="{0}"))
                    slot = copy
                reads.append(Read(slot))
            loop = replace(loop, reads=reads, apart=True)
        stored.add(loop.out)
        loops.append(loop)
    return replace(lowered, loops=loops)


def joins(loop: Loop, group: list[Loop]) -> bool:
    """Whether an operation may stand in one loop over elements with these."""
    first = group[0]
    return (sociable(loop) and sociable(first) and loop.out.F == first.out.F and (loop.out.kind == LANES) == (first.out.kind == LANES)
            and len(group) < TOGETHER and (not elementary_call(loop) or sum(map(elementary_call, group)) < INLINE))


def sociable(loop: Loop) -> bool:
    """Whether an operation may share a loop over elements: those that are not called apart, and of sums the short ones."""
    return loop.kind in ELEMENTWISE and not loop.apart and all(table.shape[1] <= SHORT for table in loop.tables)


def phases(lowered: Lowered) -> list[list[Loop]]:
    """The loops in an order that respects who reads what, elementwise ones over the same elements gathered into one."""
    made = {loop.out for loop in lowered.loops}
    done: set[Slot] = set()
    waiting = lowered.loops
    many = any(loop.apart for loop in waiting)
    groups: list[list[Loop]] = []

    def ready(loop: Loop, own: Container[Slot] = ()) -> bool:
        return all(slot not in made or slot in done or (slot in own and index is None and loop.kind == "map")
                   for slot, index, _ in loop.reads)

    while waiting:
        found = [loop for loop in waiting[:AHEAD] if ready(loop)]
        new = [[loop] for loop in found if many and not sociable(loop)]             # first: what they read can be forgotten
        if not new:
            new = [[found[0]]]
            own = {found[0].out}
            for loop in waiting[:AHEAD]:             # they stand in an order in which they could be done: one pass is enough
                if loop is not found[0] and joins(loop, new[0]) and ready(loop, own):
                    new[0].append(loop)
                    own.add(loop.out)
        groups += new
        taken = {loop.out for group in new for loop in group}
        done |= taken
        waiting = [loop for loop in waiting if loop.out not in taken]
    return groups


def meaning(program: Any, a: Any) -> Any:
    """What a value computed from the parameters is, the same in every program."""
    if not isinstance(a, V):
        return frozen(a)
    x = program.values[a]
    return x.role if x.op is None else (x.op.name, *(meaning(program, b) for b in x.args), frozen(x.options))


@dataclass
class Layout:
    """Where things lie in the memory of a tile: role -> (offset, features, kind), and its length in numbers."""
    places: dict[Role, tuple[int, int, str]]
    size: int
    columns: dict[str, list[tuple[Any, int, int]]] = field(default_factory=dict)       # program -> (value, offset in G, length)
    params: list[tuple[str, Any, int, int]] = field(default_factory=list)              # (program, value, offset in P, length)


class Source:
    """The C text of the programs of one direction, for tiles of T trajectories."""

    def __init__(self, lowered: dict[str, Lowered], T: int, dtype: Any, direction: str, outputs: Sequence[str],
                 brownian: bool, constants_from: int = 0) -> None:
        self.T, self.dtype, self.direction, self.outputs, self.brownian = T, np.dtype(dtype), direction, outputs, brownian
        self.lowered = {name: fused(x) for name, x in lowered.items()}
        if sum(elementary_call(loop) for x in self.lowered.values() for loop in x.loops) > CALLS:
            self.lowered = {name: set_apart(x) for name, x in self.lowered.items()}
        self.places: dict[Role, tuple[int, int, str]] = {}
        self.size = 0
        inputs = [item for x in self.lowered.values() for item in x.inputs.items()]
        early = {"part": 0, "cotangent": 0, "aparam": 1}             # what a look takes comes first
        for role, slot in sorted(inputs, key=lambda item: early.get(item[0][0], 2)):
            self.place(role, slot.F, slot.kind)
        for x in self.lowered.values():
            for role, read in x.outputs.items():
                known = self.places.get(role)
                if known is None and read.slot is not None:
                    self.place(role, read.slot.F if read.map is None else len(read.map), read.slot.kind)
        self.layout = Layout(self.places, 0)
        self.tables: dict[bytes, str] = {}
        self.table_lines: list[str] = []
        self.functions: set[str] = set()
        self.stretches: set[str] = set()            # functions that are called for a stretch of memory
        offset, before = 0, {}
        for name, x in self.lowered.items():
            for v in x.params:
                F = int(np.prod(x.program.values[v].shape))                                        # type: ignore[union-attr]
                key = meaning(x.program, v)                        # what several programs read is there once
                if key not in before:
                    before[key] = offset
                    offset += -(-F // ALIGN) * ALIGN
                self.layout.params.append((name, v, before[key], F))
        self.param_size = offset
        persistent = self.persistent = self.size
        sums = sorted((offset, F) for role, (offset, F, _) in self.places.items() if role[0] == "aparam" and F)
        few = 0 < sum(F for _, F in sums) <= MANY
        # where the sums for the parameters lie, one beside another, and where each of them begins there
        self.sums = slice(sums[0][0], sums[-1][0] + sums[-1][1]) if few else None
        self.begins = np.asarray([offset - sums[0][0] for offset, _ in sums])
        seen = ("part", "cotangent", *(["aparam"] if few else []))                 # what a look takes
        self.seen = max((offset + self.room(F, kind) for role, (offset, F, kind) in self.places.items() if role[0] in seen), default=0)
        bodies = []
        top = persistent
        for name in ORDER:
            if name in self.lowered:
                body = Body(self, name, self.lowered[name], persistent)
                bodies.append(body.text)
                top = max(top, body.top)
        self.size = self.layout.size = top
        self.text = self.whole(bodies)

    def place(self, role: Role, F: int, kind: str) -> None:
        if role in self.places:
            return
        self.places[role] = (self.size, F, kind)
        self.size += self.room(F, kind)

    def room(self, F: int, kind: str) -> int:
        """Numbers that a value takes, rounded up."""
        n = F * (self.T if kind == LANES else 1)
        return -(-n // ALIGN) * ALIGN

    def table(self, index: np.ndarray) -> str:
        """The name of a table of indices."""
        key = index.astype(np.int32).tobytes()
        if key not in self.tables:
            name = f"M{len(self.tables)}"
            self.tables[key] = name
            values = ", ".join(map(str, index.reshape(-1).tolist()))
            self.table_lines.append(f"TABLE int {name}[{index.size}] = {{{values}}};")
        return self.tables[key]

    def whole(self, bodies: list[str]) -> str:
        head = [f"#define T {self.T}", f"#define MEMORY {self.size}", f"#define PERSISTENT {self.persistent}",
                f"#define PARAMS {self.param_size}"]
        functions = elementary.c_source(sorted(self.functions & set(elementary.NAMES)), self.dtype)
        parts = [functions, *head, TILE_FUNCTIONS, *sorted(self.stretches)]
        if self.brownian:
            from . import noise
            parts.append(noise.SOURCE)
        return "\n".join([*parts, *self.table_lines, *bodies, self.entry()])

    def entry(self) -> str:
        """The function that is called: steps first .. last - 1, forward or back."""
        columns = {name: sum(n for _, _, n in self.layout.columns.get(name, [])) for name in ORDER}
        back = self.direction == "backward"
        kind = "cotangent" if back else "part"
        outputs = [self.places[kind, name] for name in self.outputs]
        drives = [(role, place) for role, place in self.places.items() if role[0] == "drive"]
        arguments = [
            "INDEX first", "INDEX last", "int begins", "int lands", "int settles", "const double* GB", "const double* GS",
            "const double* GL", "const double* GE", "const real* P", "real* M", "INDEX rows", "const INDEX* save", "INDEX saved",
            *(f"real* Y{j}" for j in range(len(outputs))), "const real* D", "const double* width", "unsigned long long seed",
            "unsigned trajectory", "unsigned step", "const INDEX* look", "INDEX looked", "real* L"]
        lines = [f"extern \"C\" KERNEL void run(TILE_ARGUMENT {', '.join(arguments)}) {{", "  TILE_MEMORY(M);",
                 "  const INDEX row = (INDEX)tile * T;", "  const int R = rows - row < T ? (int)(rows - row) : T;"]
        if "begin" in self.lowered:
            lines.append("  if (begins) step_begin(S, P, GB, R);")
        n = "for (INDEX n = last - 1; n >= first; n--)" if back else "for (INDEX n = first; n < last; n++)"
        lines.append(f"  {n} {{")
        for role, (offset, F, where) in drives:
            if self.brownian and role[1] == "dW":
                lines.append(f"    rv_brownian_tile(S + {offset}, T, {F}, TID, NT, seed, trajectory + (unsigned)row, "
                             "step + (unsigned)n, width[n - first]); SYNC;")
            elif where == LANES:
                lines.append(f"    EACH({F}) S[{offset} + k * T + r] = D[((n - first) * ((rows + T - 1) / T) + tile) * {F * self.T} "
                             "+ k * T + r];\n    SYNC;")
            else:
                lines.append(f"    ONCE({F}) S[{offset} + k] = D[(n - first) * {F} + k];\n    SYNC;")
        step = f"step_step(S, P, GS + (n - first) * {columns['step']}, R);"
        if "land" in self.lowered:
            step = f"if (lands && n == first) step_land(S, P, GL, R); else {step}"
        lines.append(f"    {step}")
        at = "n" if back else "n + 1"
        lines.append(f"    if ({'saved >= 0 && ' if back else ''}save[saved] == {at}) {{")
        for j, (offset, F, _) in enumerate(outputs):
            mine = f"S[{offset} + k * T + r]"
            where = f"Y{j}[(saved * rows + row + (r < R ? r : R - 1)) * {F} + k]"
            lines.append(f"      EACH({F}) {{ " + (f"{mine} = {mine} + {where};" if back else f"if (r < R) {where} = {mine};") + " }")
        lines += [f"      saved{'--' if back else '++'};", "      SYNC;", "    }"]
        # the state where the monitor wants to look at it
        lines += [f"    if (look[looked] == {at}) {{", f"      real* to = L + (looked * ((rows + T - 1) / T) + tile) * {self.seen};",
                  f"      for (int k = TID; k < {self.seen}; k += NT) to[k] = S[k];", "      looked++;", "      SYNC;", "    }", "  }"]
        if "end" in self.lowered:
            lines.append("  if (settles) step_end(S, P, GE, R);")
        lines += ["  TILE_RETURN(M);", "}"]
        return "\n".join(lines)


def clash(a: tuple, b: tuple) -> bool:
    """Whether two threads may meet in these two places, unless each element belongs to the same thread in both."""
    return a[0] < b[1] and b[0] < a[1] and not (a[0] == b[0] and a[2] is not None and a[2] == b[2])


class Body:
    """The C function of one program."""

    def __init__(self, source: Source, name: str, lowered: Lowered, base: int) -> None:
        self.source, self.name, self.lowered, self.T = source, name, lowered, source.T
        self.groups = phases(lowered)
        self.at: dict[Slot, str] = {}              # slot -> how to address it, with {k} for the feature
        self.offsets: dict[Slot, int] = {}
        self.bind()
        self.store(base)
        self.lines: list[str] = []
        self.busy: tuple[list[tuple], list[tuple]] = ([], [])          # what was read and written since the last barrier
        starts = []
        for n, group in enumerate(self.groups):
            self.barrier(group)
            if n % PART == 0:
                starts.append(len(self.lines))
            self.print(group)
        self.finish()
        parts = [self.lines[a:b] for a, b in pairwise([*starts, None])] if len(starts) > 1 else [self.lines]
        names = [f"step_{name}_{i}" for i in range(len(parts))] if len(parts) > 1 else [f"step_{name}"]
        if len(parts) > 1:
            parts.append([f"  {part}(S, P, G, R);" for part in names])
            names.append(f"step_{name}")
        self.text = "\n".join(map(self.function, names, parts))

    def function(self, name: str, lines: list[str]) -> str:
        used = self.source.layout.columns.get(self.name, [])
        scalars = [f"  const real s{int(v)} = (real)G[{offset}];" for v, offset, n in used if n == 1]
        return "\n".join([f"STEP void {name}(real* RESTRICT S, const real* RESTRICT P, const double* RESTRICT G, int R) {{",
                          "  (void)P; (void)G; (void)R;", *scalars, *lines, "}"])

    def bind(self) -> None:
        """Slots that exist before: inputs, values of the grid and of the parameters, constants."""
        source, lowered = self.source, self.lowered
        for role, slot in lowered.inputs.items():
            self.offsets[slot] = source.places[role][0]
        params = {int(v): offset for name, v, offset, _ in source.layout.params if name == self.name}
        columns, offset = [], 0
        program = lowered.program
        assert program is not None
        for v in lowered.steps:
            n = int(np.prod(program.values[v].shape))
            columns.append((v, offset, n))
            offset += n
        source.layout.columns[self.name] = columns
        self.grid = {int(v): (offset, n) for v, offset, n in columns}
        self.param_offsets = params

    def store(self, base: int) -> None:
        """Give every value a place: outputs where their input lies if nobody reads that any more, others by liveness."""
        last: dict[Slot, int] = {}
        where: dict[Slot, int] = {}
        strange: dict[Slot, set[int]] = {}           # groups in which a slot is read otherwise than element by element
        for n, group in enumerate(self.groups):
            for loop in group:
                where[loop.out] = n
                for read in loop.reads:
                    if read.slot is not None:
                        last[read.slot] = n
                        if read.map is not None or loop.kind != "map" or loop.apart:
                            strange.setdefault(read.slot, set()).add(n)
        end = len(self.groups)
        inside = {role: slot for role, slot in self.lowered.inputs.items()}
        for role, read in self.lowered.outputs.items():
            if read.slot is not None and read.slot in inside.values() and read.slot is not inside.get(role):
                last[read.slot] = end                                  # one part becomes another
        targets: dict[Slot, int] = {}
        self.copies: list[tuple[Role, Read]] = []
        for role, read in self.lowered.outputs.items():
            slot = read.slot
            before = inside.get(role)
            fits = slot is not None and read.map is None and slot in where and slot not in targets
            if fits:
                assert slot is not None
                n = where[slot]
                until = last.get(before, -1) if before is not None else -1
                accumulates = any(loop.out is slot and loop.kind in ("outer", "rows") and loop.reads[-1].slot is before
                                  for loop in self.groups[n])
                if until < n or (until == n and (n not in strange.get(before, ()) or accumulates)):   # type: ignore[arg-type]
                    targets[slot] = self.source.places[role][0]                                    # type: ignore[index]
                    continue
            if before is not None and slot is before and read.map is None:
                continue
            self.copies.append((role, read))
            if slot is not None:
                last[slot] = end
        free: list[tuple[int, int]] = []                 # (offset, length) of what has been given back
        self.top = base
        held: dict[Slot, tuple[int, int]] = {}
        self.local: set[Slot] = set()
        outputs = {read.slot for read in self.lowered.outputs.values()}
        for n, group in enumerate(self.groups):
            for loop in group:
                slot = loop.out
                if slot in targets:
                    self.offsets[slot] = targets[slot]
                    continue
                if last.get(slot, -1) == n and loop.kind in ELEMENTWISE and slot not in outputs:
                    self.local.add(slot)                 # read in its own loop alone: it never leaves a register
                    continue
                sums = {"outer": 2, "rows": 1}.get(loop.kind, 99)           # reads before the running sum
                total = loop.reads[-1].slot if len(loop.reads) > sums else None
                if total is not None and last.get(total) == n and total in self.offsets and slot.kind == TILE:
                    self.offsets[slot] = self.offsets[total]       # the next addition to the same sum
                    if total in held:
                        held[slot] = held.pop(total)
                    continue
                length = self.source.room(slot.F, slot.kind)
                fit = min((x for x in free if x[1] >= length), key=lambda x: x[1], default=None)
                if fit is not None:
                    free.remove(fit)
                    self.offsets[slot] = fit[0]
                    held[slot] = fit
                else:
                    self.offsets[slot] = self.top
                    held[slot] = (self.top, length)
                    self.top += length
            for slot in [slot for slot in held if last.get(slot, -1) <= n]:
                free.append(held.pop(slot))

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

    def touched(self, group: list[Loop]) -> tuple[list[tuple], list[tuple]]:
        """What loops read and write of S: (start, end, how the elements are dealt out to the threads, or None)."""
        reads, writes = [], []
        inside = {loop.out for loop in group} if group[0].kind in ELEMENTWISE else set()
        for loop in group:
            lanes, F = loop.out.kind == LANES, loop.out.F
            own = (loop.kind, *loop.shape) if loop.shape else (loop.kind if loop.kind == "rows" else lanes, F)
            if loop.out not in self.local:
                writes.append((*self.extent(loop.out), own))
            totals = {"outer": 2, "rows": 1}.get(loop.kind, 99)
            for n, read in enumerate(loop.reads):
                if read.slot is None or read.slot not in self.offsets or (read.slot in inside and read.map is None):
                    continue
                same = n >= totals or (loop.kind == "map" and read.map is None and (read.slot.kind == LANES) == lanes)
                reads.append((*self.extent(read.slot), own if same else None))
        return reads, writes

    def extent(self, slot: Slot) -> tuple[int, int]:
        start = self.offsets[slot]
        return start, start + slot.F * (self.T if slot.kind == LANES else 1)

    # text

    def number(self, x: float) -> str:
        if x != x:
            return "rv_nan()"
        if x in (float("inf"), float("-inf")):
            return "rv_infinity()" if x > 0 else "-rv_infinity()"
        text = repr(float(x))
        return f"(real){text}" if x >= 0 and not text.startswith("-") else f"(real)({text})"

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
            return self.number(read.number)
        if slot in self.local:
            return self.names[slot]
        feature = self.index(read.map, k)
        return self.address(slot, feature)

    def address(self, slot: Slot, feature: str) -> str:
        if slot.role is not None and slot.role[0] == "params":
            return f"P[{self.param_offsets[slot.role[1]]} + {feature}]"
        if slot.role is not None and slot.role[0] == "steps":
            offset, n = self.grid[slot.role[1]]
            return f"s{slot.role[1]}" if n == 1 else f"(real)G[{offset} + {feature}]"
        if slot.role is not None and slot.role[0] == "constant":
            values = np.frombuffer(slot.role[1])
            return f"{self.constants(values)}[{feature}]"
        offset = self.offsets[slot]
        return f"S[{offset} + ({feature}) * T + r]" if slot.kind == LANES else f"S[{offset} + {feature}]"

    def constants(self, values: np.ndarray) -> str:
        key = b"real" + values.tobytes()
        if key not in self.source.tables:
            name = f"C{len(self.source.tables)}"
            self.source.tables[key] = name
            text = ", ".join(self.number(x) for x in values.tolist())
            self.source.table_lines.append(f"TABLE real {name}[{values.size}] = {{{text}}};")
        return self.source.tables[key]

    def pointer(self, slot: Slot) -> str:
        return self.address(slot, "0").removesuffix(" * T + r]").replace("[", " + ", 1).replace("(0)", "0").removesuffix("]") \
            if slot.kind == LANES else self.address(slot, "0").replace("[", " + ", 1).removesuffix("]")

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
        return f"{name}_stretch({places}, {loop.out.F}{' * T' if loop.out.kind == LANES else ''});"

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
        return f"const real {name} = {loop.text.format(*reads)};"

    def gather(self, loop: Loop, name: str) -> str:
        text = self.number(0.0)
        for read in reversed(loop.reads):
            where = np.flatnonzero(read.map >= 0)                                                  # type: ignore[operator]
            if not len(where):
                continue
            a, b = int(where[0]), int(where[-1]) + 1
            if b - a == len(where):
                condition = f"k >= {a} && k < {b}"
                full = np.zeros(loop.out.F, int)
                full[a:b] = read.map[a:b]                                                          # type: ignore[index]
                line = full[a:b]
                if len(line) == 1 or np.array_equal(line, line[0] + (line[1] - line[0]) * np.arange(len(line))):
                    step = int(line[1] - line[0]) if len(line) > 1 else 0
                    feature = f"(k - {a}) * {step} + {int(line[0])}"
                else:
                    feature = f"{self.source.table(full)}[k]"
            else:
                table = self.source.table(read.map)                                                # type: ignore[arg-type]
                condition, feature = f"{table}[k] >= 0", f"{table}[k]"
            value = self.number(read.number) if read.slot is None else self.address(read.slot, feature)
            text = f"{condition} ? {value} : {text}"
        return f"const real {name} = {text};"

    def contract(self, loop: Loop, name: str) -> str:
        left, right = (self.address(read.slot, self.entry(t))                                      # type: ignore[arg-type]
                       for read, t in zip(loop.reads, loop.tables, strict=True))
        return (f"c = 0;\n    real {name} = {left} * {right};\n    for (c = 1; c < {loop.tables[0].shape[1]}; c++) "
                f"{name} = {name} + {left} * {right};")

    def reduce(self, loop: Loop, name: str) -> str:
        table = loop.tables[0]
        entry = self.address(loop.reads[0].slot, self.entry(table))                                # type: ignore[arg-type]
        op = loop.op.name if loop.op is not None else "sum"
        combine = {"sum": "{0} + x", "max": "x > {0} || x != x ? x : {0}", "min": "x < {0} || x != x ? x : {0}"}[op].format(name)
        if (table < 0).any():
            test = f"if ({self.source.table(table)}[k * {table.shape[1]} + c] >= 0) "
            start, begin = self.number(0.0), "0"
        else:
            test, start, begin = "", entry, "1"
        return (f"c = 0;\n    real {name} = {start};\n    for (c = {begin}; c < {table.shape[1]}; c++) "
                f"{test}{{ const real x = {entry}; {name} = {combine}; }}")

    def product(self, loop: Loop) -> str:
        """A product with a shared matrix, or a sum over the lanes: linear, outer or rows."""
        out, x, *more = (self.pointer(slot) for slot in (loop.out, *(read.slot for read in loop.reads)) if slot is not None)
        if loop.kind == "linear":
            return f"rv_linear<{', '.join(map(str, loop.shape))}>({out}, {x}, {more[0]});"
        g, total = (f"{more[0]}, ", more[1:]) if loop.kind == "outer" else ("", more)
        name = "rv_rows_max" if loop.op is not None else f"rv_{loop.kind}"
        sizes = ", ".join(map(str, loop.shape or (loop.out.F,)))
        return f"{name}<{sizes}>({out}, {x}, {g}{total[0] if total else '(const real*)0'}, R);"

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
            own = f"S[{offset} + k * T + r]" if kind == LANES else f"S[{offset} + k]"
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


TILE_FUNCTIONS = r"""
#define rv_abs RV_ABS
#define rv_sqrt RV_SQRT
#define rv_floor RV_FLOOR
#define rv_nan() RV_NAN
#define rv_infinity() RV_INFINITY
#ifdef __CUDACC__
#define INDEX long long
#define TILE_ARGUMENT
#define TABLE alignas(16) __device__ const
#define RESTRICT __restrict__
#define STEP static __device__ __forceinline__
#define APART static __device__ __noinline__
#define OUTLINE FUNCTION
#define WHOLE(n) (n)
#define EACH(F) for (int i_ = TID; i_ < (F) * T; i_ += NT) for (int k = i_ / T, r = i_ % T, once_ = 1; once_; once_ = 0)
#define ONCE(F) for (int k = TID; k < (F); k += NT)
#ifndef SYNC
#define TID ((int)threadIdx.x)
#define NT ((int)blockDim.x)
#define SYNC __syncthreads()
#define KERNEL __global__
#endif
// Of the plan: TILE_THREADS, the threads of a block; TILE_GLOBAL, the values of a tile stay in global memory; PARAMS_GLOBAL,
// what comes from the parameters stays there. Otherwise both are in shared memory while a block runs.
#ifdef TILE_THREADS
#undef NT
#define NT TILE_THREADS
#undef KERNEL
#define KERNEL __global__ __launch_bounds__(TILE_THREADS, 1)
#else
#define TILE_THREADS 128
#endif
#ifdef TILE_GLOBAL
#define SHARED_STATE 0
#define TILE_STATE(M) real* const S = (M) + (INDEX)tile * MEMORY
#define TILE_RETURN(M)
#else
#define SHARED_STATE MEMORY
#define TILE_STATE(M) real* const S = block_memory; \
  for (int i_ = TID; i_ < PERSISTENT; i_ += NT) S[i_] = (M)[(INDEX)tile * PERSISTENT + i_]
#define TILE_RETURN(M) for (int i_ = TID; i_ < PERSISTENT; i_ += NT) (M)[(INDEX)tile * PERSISTENT + i_] = S[i_]
#endif
#ifdef PARAMS_GLOBAL
#define TILE_PARAMS
#else
#define TILE_PARAMS for (int i_ = TID; i_ < PARAMS; i_ += NT) block_memory[SHARED_STATE + i_] = P[i_]; P = block_memory + SHARED_STATE;
#endif
#define TILE_MEMORY(M) const int tile = (int)blockIdx.x; extern __shared__ real block_memory[]; TILE_STATE(M); TILE_PARAMS SYNC
#else
#define TID 0
#define NT 1
#define SYNC
#define KERNEL
#define INDEX long long
#define TILE_ARGUMENT int tile,
#define TABLE static const
#define RESTRICT __restrict
#define STEP static __attribute__((noinline))
#define APART static __attribute__((noinline))
#define OUTLINE APART
#define WHOLE(n) (((n) + WIDE - 1) / WIDE * WIDE)
#define EACH(F) for (int k = 0; k < (F); k++) for (int r = 0; r < T; r++)
#define ONCE(F) for (int k = 0; k < (F); k++)
#define TILE_MEMORY(M) real* const S = (M) + (INDEX)tile * MEMORY
#define TILE_RETURN(M)
#endif

// out[p, j] = sum over c of x[p, c] w[c, j], in the order of c; w is the same for all lanes.
// out[i, j] = total[i, j] + sum over the first R lanes, in their order, of x[i] g[j].
#ifdef __CUDACC__
// A thread makes a block of outputs, so that what it loads serves several products. Blocks are smaller where there would not
// be one for each thread; sums do not depend on it. They begin with -0: -0 + x is x, whatever x is.
#define RV_BLOCK(n, most) ((n) % 4 == 0 && (most) >= 4 ? 4 : (n) % 2 == 0 && (most) >= 2 ? 2 : 1)
template <int n> struct alignas(n * sizeof(real) < 16 ? n * sizeof(real) : 16) rv_pack { real v[n]; };
template <int n> FUNCTION rv_pack<n> rv_load(const real* x) { return *(const rv_pack<n>*)x; }
template <int p, int n, int m> FUNCTION void rv_linear(real* out, const real* x, const real* w) {
  constexpr int most = p * m * T / TILE_THREADS, br = RV_BLOCK(T, most), bj = RV_BLOCK(m, most / br), across = T / br;
  for (int i = TID; i < p * m / bj * across; i += NT) {
    const int r = i % across * br, k = i / across * bj, q = k / m, j = k % m;
    real sum[bj][br];
    #pragma unroll
    for (int l = 0; l < bj * br; l++) sum[l / br][l % br] = -(real)0;
    #pragma unroll 4
    for (int c = 0; c < n; c++) {
      const rv_pack<br> a = rv_load<br>(x + (q * n + c) * T + r);
      const rv_pack<bj> b = rv_load<bj>(w + c * m + j);
      #pragma unroll
      for (int l = 0; l < bj * br; l++) sum[l / br][l % br] = sum[l / br][l % br] + a.v[l % br] * b.v[l / br];
    }
    #pragma unroll
    for (int jj = 0; jj < bj; jj++) {
      rv_pack<br> a;
      #pragma unroll
      for (int rr = 0; rr < br; rr++) a.v[rr] = sum[jj][rr];
      *(rv_pack<br>*)(out + (k + jj) * T + r) = a;
    }
  }
}
// Rows a, a + n/bi, ... and columns b, b + m/bj, ... are one thread's: neighbours write next to one another.
template <int n, int m> FUNCTION void rv_outer(real* out, const real* x, const real* g, const real* total, int R) {
  constexpr int most = n * m / TILE_THREADS, bj = RV_BLOCK(m, most), bi = RV_BLOCK(n, most / bj), I = n / bi, J = m / bj;
  constexpr int V = T % 4 ? T % 2 ? 1 : 2 : 4;
  for (int i = TID; i < I * J; i += NT) {
    const int a = i / J, b = i % J;
    real sum[bi][bj];
    #pragma unroll
    for (int l = 0; l < bi * bj; l++) sum[l / bj][l % bj] = -(real)0;
    for (int r = 0; r < R; r += V) {
      rv_pack<V> xs[bi], gs[bj];
      #pragma unroll
      for (int ii = 0; ii < bi; ii++) xs[ii] = rv_load<V>(x + (a + ii * I) * T + r);
      #pragma unroll
      for (int jj = 0; jj < bj; jj++) gs[jj] = rv_load<V>(g + (b + jj * J) * T + r);
      #pragma unroll
      for (int rr = 0; rr < V; rr++)
        if (r + rr < R)
          #pragma unroll
          for (int l = 0; l < bi * bj; l++) sum[l / bj][l % bj] = sum[l / bj][l % bj] + xs[l / bj].v[rr] * gs[l % bj].v[rr];
    }
    #pragma unroll
    for (int l = 0; l < bi * bj; l++) {
      const int k = (a + l / bj * I) * m + b + l % bj * J;
      out[k] = total ? total[k] + sum[l / bj][l % bj] : sum[l / bj][l % bj];
    }
  }
}
#else
// The same sums in vectors of the processor, of VECTOR bytes. Up to SUMS vectors of them are in the making at any time, half of
// the registers that there are: the other half is for what goes into them.
#if defined(__AVX512F__)
#define VECTOR 64
#elif defined(__AVX__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define SUMS 16
#else
#define SUMS 8
#endif
#define INSIDE static inline __attribute__((always_inline))
#define WIDE ((int)(VECTOR / sizeof(real)))
template <int w> struct rv_vec { typedef real type __attribute__((vector_size(w * sizeof(real)), aligned(sizeof(real)))); };
#if T > 1
#define LANES (T < WIDE ? T : WIDE)
typedef rv_vec<LANES>::type lanes;
template <int b, int u, int n, int m> INSIDE void rv_linear_block(lanes* out, const lanes* x, const real* w) {
  const int V = T / LANES;
  lanes sum[b][u];
  for (int j = 0; j < b; j++) for (int v = 0; v < u; v++) sum[j][v] = x[v] * w[j];
  for (int c = 1; c < n; c++)
    for (int j = 0; j < b; j++) for (int v = 0; v < u; v++) sum[j][v] = sum[j][v] + x[c * V + v] * w[c * m + j];
  for (int j = 0; j < b; j++) for (int v = 0; v < u; v++) out[j * V + v] = sum[j][v];
}
// Outputs j and up: as many as there are in blocks of b, the rest in blocks of half as many.
template <int b, int u, int n, int m> INSIDE void rv_linear_blocks(lanes* out, const lanes* x, const real* w, int j) {
  for (; j + b <= m; j += b) rv_linear_block<b, u, n, m>(out + j * (T / LANES), x, w + j);
  if constexpr (b > 1) rv_linear_blocks<b / 2, u, n, m>(out, x, w, j);
}
template <int p, int n, int m> static inline void rv_linear(real* out, const real* x, const real* w) {
  const int V = T / LANES, u = V > 1 ? 2 : 1;
  for (int q = 0; q < p; q++) for (int v = 0; v < V; v += u)
    rv_linear_blocks<SUMS / u, u, n, m>((lanes*)(out + q * m * T) + v, (const lanes*)(x + q * n * T) + v, w, 0);
}
template <int b, int u, int m, int full> INSIDE
void rv_outer_block(real* out, const real* x, const real* g, const real* total, int R, int columns) {
  typedef typename rv_vec<WIDE>::type vec;
  vec sum[b][u];
  for (int i = 0; i < b; i++) for (int v = 0; v < u; v++) sum[i][v] = x[i * T] * ((const vec*)g)[v];
  for (int r = 1; r < R; r++)
    for (int i = 0; i < b; i++) for (int v = 0; v < u; v++)
      sum[i][v] = sum[i][v] + x[i * T + r] * ((const vec*)(g + r * full))[v];
  for (int i = 0; i < b; i++) for (int v = 0; v < u; v++) {
    const int at = i * m + v * WIDE;
    if ((v + 1) * WIDE <= columns)
      *(vec*)(out + at) = total ? *(const vec*)(total + at) + sum[i][v] : sum[i][v];
    else
      for (int l = 0; v * WIDE + l < columns; l++) out[at + l] = total ? total[at + l] + sum[i][v][l] : sum[i][v][l];
  }
}
template <int b, int u, int m, int full> INSIDE
void rv_outer_columns(real* out, const real* x, const real* gt, const real* total, int R, int j) {
  for (; j + u * WIDE <= full; j += u * WIDE)
    rv_outer_block<b, u, m, full>(out + j, x, gt + j, total ? total + j : total, R, m - j);
  if constexpr (u > 1) rv_outer_columns<b, u / 2, m, full>(out, x, gt, total, R, j);
}
template <int b, int n, int m, int full> INSIDE
void rv_outer_rows(real* out, const real* x, const real* gt, const real* total, int R, int i) {
  for (; i + b <= n; i += b) rv_outer_columns<b, 2, m, full>(out + i * m, x + i * T, gt, total ? total + i * m : total, R, 0);
  if constexpr (b > 1) rv_outer_rows<b / 2, n, m, full>(out, x, gt, total, R, i);
}
template <int n, int m> static inline void rv_outer(real* out, const real* x, const real* g, const real* total, int R) {
  const int full = (m + WIDE - 1) / WIDE * WIDE;
  real gt[T * full] __attribute__((aligned(VECTOR)));
  for (int r = 0; r < T; r++) for (int j = 0; j < full; j++) gt[r * full + j] = j < m ? g[j * T + r] : 0;
  rv_outer_rows<SUMS / 2, n, m, full>(out, x, gt, total, R, 0);
}
#else
template <int u, int w, int n, int m> INSIDE void rv_linear_block(real* out, const real* x, const real* a) {
  typedef typename rv_vec<w>::type vec;
  vec sum[u];
  for (int v = 0; v < u; v++) sum[v] = x[0] * ((const vec*)a)[v];
  for (int c = 1; c < n; c++) for (int v = 0; v < u; v++) sum[v] = sum[v] + x[c] * ((const vec*)(a + c * m))[v];
  for (int v = 0; v < u; v++) ((vec*)out)[v] = sum[v];
}
template <int u, int w, int n, int m> INSIDE void rv_linear_blocks(real* out, const real* x, const real* a, int j) {
  for (; j + u * w <= m; j += u * w) rv_linear_block<u, w, n, m>(out + j, x, a + j);
  if constexpr (u > 1) rv_linear_blocks<u / 2, w, n, m>(out, x, a, j);
  else if constexpr (w > 1) rv_linear_blocks<1, w / 2, n, m>(out, x, a, j);
}
template <int p, int n, int m> static inline void rv_linear(real* out, const real* x, const real* w) {
  for (int q = 0; q < p; q++) rv_linear_blocks<SUMS, WIDE, n, m>(out + q * m, x + q * n, w, 0);
}
template <int n, int m> static inline void rv_outer(real* out, const real* x, const real* g, const real* total, int) {
  for (int i = 0; i < n; i++) for (int j = 0; j < m; j++)
    out[i * m + j] = total ? total[i * m + j] + x[i] * g[j] : x[i] * g[j];
}
#endif
#endif
// An elementary function of n numbers; on the host of whole vectors: every value has that much room.
#define STRETCH1(f) APART void f##_stretch(real* RESTRICT out, const real* RESTRICT x, int n) { \
  for (int i = TID; i < WHOLE(n); i += NT) out[i] = f(x[i]); }
#define STRETCH2(f) APART void f##_stretch(real* RESTRICT out, const real* RESTRICT x, const real* RESTRICT y, int n) { \
  for (int i = TID; i < WHOLE(n); i += NT) out[i] = f(x[i], y[i]); }
template <int n> OUTLINE void rv_rows(real* out, const real* x, const real* total, int R) {
#ifdef __CUDACC__
  constexpr int V = T % 4 ? T % 2 ? 1 : 2 : 4;          // several at a time: neighbours in x are in the same bank of the memory
  for (int k = TID; k < n; k += NT) {
    real sum = -(real)0;
    for (int r = 0; r < R; r += V) {
      const rv_pack<V> a = rv_load<V>(x + k * T + r);
      #pragma unroll
      for (int rr = 0; rr < V; rr++) if (r + rr < R) sum = sum + a.v[rr];
    }
#else
  for (int k = TID; k < n; k += NT) {
    real sum = x[k * T];
    for (int r = 1; r < R; r++) sum = sum + x[k * T + r];
#endif
    out[k] = total ? total[k] + sum : sum;
  }
}
template <int n> OUTLINE void rv_rows_max(real* out, const real* x, const real*, int R) {
  for (int k = TID; k < n; k += NT) {
    real sum = x[k * T];
    for (int r = 1; r < R; r++) { const real y = x[k * T + r]; sum = y > sum || y != y ? y : sum; }
    out[k] = sum;
  }
}
"""

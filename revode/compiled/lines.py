"""A program as lines of NumPy: straight-line calls into buffers that are planned beforehand.

    multiply(v9, v10, b0);  add(v0, b0, p0);  p1.dot(w2, b1);  add(b1, w5, b1);  tanh(b1, b1);  ...

Buffers are shared by liveness; views (reshape, transpose, slices) are made once; what depends on the parameters alone is
computed once a solve, what depends on the grid alone for many steps at a time. The gradient of a weight used in small
products is one product for many steps: the rows of both factors are collected, and multiplied when there are enough.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from .program import ARITHMETIC, Program, Role, V, Value, kinds

ROWS = 64             # rows that are collected for one product of a weight gradient
LINE = 64             # bytes of a line of the cache
SMALL = 1 << 18       # bytes of an array of the parameters that is stretched once a solve
VIEWS = {"reshape", "transpose", "broadcast_to", "flip", "getitem"}
REDUCTIONS = {"sum": "add", "max": "maximum", "min": "minimum"}
PERSISTENT = {"part", "cotangent", "carry", "aparam", "known", "landed", "missed", "most", "error", "step"}


class Code:
    """One program, planned and printed as a Python function; `source` is what runs."""

    def __init__(self, program: Program, store: dict[Role, np.ndarray], rows: int, merge: bool = False,
                 of_steps: Sequence[str] = ("step",)) -> None:
        self.program, self.store, self.merge = program, store, merge
        values = program.values
        self.kinds = kinds(program, of_steps=of_steps)
        self.names: dict[str, Any] = {"copyto": np.copyto, "add": np.add}         # what the function sees
        self.lines: list[str] = []
        self.flushes: list[str] = []
        self.uses = last_uses(program)
        self.outputs = {v for v in program.outputs.values() if isinstance(v, V)}
        self.array: dict[int, Any] = {}                            # value -> its array, where it stays the same
        self.free: dict[Any, list] = {}
        self.owned: dict[int, np.ndarray] = {}                     # value -> the buffer that is its own
        self.per_step = [V(i) for i, x in enumerate(values) if self.kinds[i] == "step" and self.leaves_grid(i)]
        self.per_solve = [V(i) for i, x in enumerate(values) if self.kinds[i] == "param" and self.leaves_grid(i)]
        self.wide = {v: shape for v in self.per_solve if (shape := self.stretched(v)) is not None}
        self.drives = [V(i) for i, x in enumerate(values) if x.role is not None and x.role[0] in ("drive", "state")]
        self.clocks = [(role[1], v) for role, v in program.outputs.items() if role[0] == "atime"]       # of each step, to O[k]
        self.count = max(1, ROWS // max(1, rows)) if merge and any(role[0] == "aparam" for role in program.outputs) else 1
        self.collected: dict[int, np.ndarray] = {}                 # value -> its rows of many steps
        self.sums: dict[int, np.ndarray] = {}                      # additions to a parameter's sum -> the sum, in place
        self.products = self.find_products() if self.count > 1 else {}
        self.plan()
        self.function = self.build()

    def leaves_grid(self, i: int) -> bool:
        """Whether a value of the grid, or of the parameters, is needed by the state, or is an output."""
        kind = self.kinds[i]
        return i in self.outputs or any(self.kinds[j] != kind for j, x in enumerate(self.program.values)
                                        if any(isinstance(a, V) and a == i for a in x.args))

    def stretched(self, i: V) -> tuple[int, ...] | None:
        """The shape to which all sums and products stretch an array of the parameters, where a copy of that shape is small.

        NumPy adds a bias row by row, and a whole array of such rows in less than half the time, one row with its axis too: to the
        same bits.
        """
        x, shapes = self.program.values[i], set()
        for j, y in enumerate(self.program.values):
            if self.kinds[j] == "state" and any(isinstance(a, V) and a == i for a in y.args):
                shapes.add(y.shape if y.op.name in ARITHMETIC else x.shape)                        # type: ignore[union-attr]
        shape, = shapes if len(shapes) == 1 and i not in self.outputs else {x.shape}
        return shape if x.shape not in ((), shape) and prod(shape) <= SMALL // x.dtype.itemsize else None

    def find_products(self) -> dict[int, list]:
        """Additions to a parameter's sum of nothing but x^T g and sums of rows: the factors, to be multiplied for many steps."""
        values, found = self.program.values, {}
        users = Counter(a for x in values for a in x.args if isinstance(a, V))

        def factors(term: V) -> list | None:
            """(x or None, g) for every product that a term is the sum of; None if it is anything else."""
            x = values[term]
            if users[term] != 1 or x.op is None:
                return None
            if x.op.name == "add" and all(isinstance(a, V) for a in x.args):
                parts = [factors(a) for a in x.args]
                return None if None in parts else [pair for part in parts for pair in part]       # type: ignore[union-attr]
            if x.op.name == "matmul" and self.is_transposed(x.args[0]) and self.rows_of(x.args[1]):
                return [(values[x.args[0]].args[0], x.args[1])]
            if x.op.name == "sum" and x.options == {"axis": (0,), "keepdims": False} and self.rows_of(x.args[0]):
                return [(None, x.args[0])]
            return None

        for role, v in self.program.outputs.items():
            if role[0] != "aparam":
                continue
            while isinstance(v, V) and values[v].op is not None and values[v].op.name == "add":    # type: ignore[union-attr]
                a, b = values[v].args
                if not (isinstance(a, V) and isinstance(b, V)) or not (self.leads_to(a, role) or self.leads_to(b, role)):
                    break
                self.sums[int(v)] = self.stored(role, values[v])
                before, term = (a, b) if self.leads_to(a, role) else (b, a)
                pairs = factors(term)
                if pairs is not None:
                    found[int(v)] = pairs
                v = before
        return found

    def leads_to(self, a: int, role: Role) -> bool:
        """Whether a is the running sum of this parameter."""
        x = self.program.values[a]
        if x.op is not None and x.op.name == "add":
            return any(isinstance(b, V) and self.leads_to(b, role) for b in x.args)
        return x.role == role

    def is_transposed(self, a: Any) -> bool:
        x = self.program.values[a] if isinstance(a, V) else None
        return (x is not None and x.op is not None and x.op.name == "transpose" and x.options["axes"] in (None, (1, 0))
                and isinstance(x.args[0], V) and self.rows_of(x.args[0]))

    def rows_of(self, a: Any) -> bool:
        return isinstance(a, V) and self.kinds[a] == "state" and len(self.program.values[a].shape) == 2

    # storage

    def plan(self) -> None:
        values, placed = self.program.values, self.outputs_in_place()
        factors = {int(a) for pairs in self.products.values() for pair in pairs for a in pair if a is not None}
        used = self.still_used(factors)
        self.collected = {a: aligned((self.count, *values[a].shape), values[a].dtype) for a in factors}
        for i, x in enumerate(values):
            if self.kinds[i] in ("step", "param"):
                if x.op is None or V(i) in self.per_step or V(i) in self.per_solve:
                    self.array[i] = None                    # bound when it runs
            elif x.op is None:
                self.enter(i, x)
            elif i in self.products:
                self.array[i] = self.names[f"v{i}"] = self.sums[i]
            elif i in used:
                self.emit(V(i), x, placed.get(i))
                self.release(i)
        for i, pairs in self.products.items():
            self.names[f"A{i}"] = self.sums[i]
            self.flushes += [self.product_line(i, left, right) for left, right in pairs]
        self.copies(placed)

    def still_used(self, factors: set[int]) -> set[int]:
        """The values that somebody reads, now that products of many steps are made of their factors."""
        values = self.program.values
        used = factors | set(map(int, self.outputs))
        for i in range(len(values) - 1, -1, -1):
            if i in self.products or i in used:
                used.update(int(a) for a in values[i].args if isinstance(a, V) and (i not in self.products or int(a) in self.sums))
        return used

    def enter(self, i: int, x: Value) -> None:
        """An input: its array, where it stays from step to step."""
        if x.role[0] in PERSISTENT:                                                                # type: ignore[index]
            self.array[i] = self.names[f"v{i}"] = self.stored(x.role, x)                           # type: ignore[arg-type]
        if i in self.collected:
            self.line(f"copyto(C{i}[r], v{i})")

    def product_line(self, i: int, left: V | None, right: V) -> str:
        g = f"C{int(right)}[:n].reshape(-1, {self.program.values[right].shape[-1]})"
        if left is None:
            return f"add(A{i}, {g}.sum(0), A{i})"
        return f"add(A{i}, C{int(left)}[:n].reshape(-1, {self.program.values[left].shape[-1]}).T.dot({g}), A{i})"

    def outputs_in_place(self) -> dict[int, np.ndarray]:
        """Outputs that can be written where their input lies, because nobody reads that any more."""
        program, values = self.program, self.program.values
        inputs, found = program.inputs, {}
        for role, v in program.outputs.items():
            if role[0] not in PERSISTENT or not isinstance(v, V) or values[v].op is None or v in found:
                continue
            if values[v].op.name in VIEWS or self.kinds[v] != "state" or v in self.products:       # type: ignore[union-attr]
                continue
            last = self.uses[inputs[role]] if role in inputs else -1
            same = values[v].shape == values[inputs[role]].shape if role in inputs else True
            alias = last == v and is_elementwise(values[v]) and same and not self.through_view(inputs.get(role), v)
            if v in self.sums:
                found[int(v)] = self.sums[v]
            elif last < v or alias:
                found[int(v)] = self.stored(role, values[v])
        return found | {i: x for i, x in self.sums.items() if i not in self.products}

    def through_view(self, i: Any, v: int) -> bool:
        """Whether v reads input i through a view of it."""
        return any(isinstance(a, V) and a != i and self.base(a) == i for a in self.program.values[v].args)

    def base(self, i: Any) -> Any:
        x = self.program.values[i]
        while x.op is not None and x.op.name in VIEWS and isinstance(x.args[0], V) and is_view(x):
            i = x.args[0]
            x = self.program.values[i]
        return i

    def stored(self, role: Role, x: Any) -> np.ndarray:
        """The array of the store that holds a value like x from step to step."""
        if role not in self.store:
            self.store[role] = aligned(x.shape, x.dtype)
        return self.store[role]

    def buffer(self, x: Value) -> np.ndarray:
        pool = self.free.setdefault((prod(x.shape), x.dtype), [])
        found = pool.pop() if pool else aligned(x.shape, x.dtype)
        return found if found.shape == x.shape else found.reshape(x.shape)     # NumPy sees where one array is written and read

    def release(self, i: int) -> None:
        """Give back the buffers of values whose last use this was."""
        for j, owner in list(self.owned.items()):
            if self.uses[j] <= i:
                self.free[owner.size, owner.dtype].append(owner)
                del self.owned[j]

    # lines

    def line(self, text: str) -> None:
        self.lines.append(text)

    def name(self, a: Any, dtype: Any = None) -> str:
        """The name of an argument; a constant becomes an array without axes, which NumPy takes fastest."""
        if not isinstance(a, V) and np.ndim(a) == 0:
            a = np.asarray(a, dtype if dtype is not None and dtype.kind == "f" else None)
        return self.as_given(a)

    def as_given(self, a: Any) -> str:
        """The name of an argument, a constant as it is: an axis, say, is a whole number."""
        if isinstance(a, V):
            return f"v{int(a)}"
        name = f"c{len(self.names)}"
        self.names[name] = a
        return name

    def emit(self, i: V, x: Value, place: np.ndarray | None) -> None:
        op = x.op
        assert op is not None
        if op.name in VIEWS and is_view(x) and place is None and isinstance(x.args[0], V) and i not in self.collected:
            source = self.array.get(int(x.args[0]))
            if source is None or int(x.args[0]) in self.collected:
                self.names[f"f{int(i)}"], self.names[f"o{int(i)}"] = op.forward, x.options
                self.line(f"v{int(i)} = f{int(i)}({self.name(x.args[0])}, **o{int(i)})")
                return
            view = view_of(x, source)
            if np.may_share_memory(view, source):               # reshape copies what it cannot see through strides
                self.array[i] = self.names[f"v{int(i)}"] = view
                return
        if i in self.collected:
            self.line(f"v{int(i)} = C{int(i)}[r]")
        else:
            if place is None and is_elementwise(x):
                self.release(i)                                 # NumPy's ufuncs may write where they read
            out = place if place is not None else self.buffer(x)
            if place is None:
                self.owned[i] = out
            self.array[i] = self.names[f"v{int(i)}"] = out
        self.line(self.call(i, x))
        if i in self.collected and place is not None:
            self.names[f"p{int(i)}"] = place
            self.line(f"copyto(p{int(i)}, v{int(i)})")

    def call(self, i: V, x: Value) -> str:
        """The line that computes a value, written for its operation, or as a call of its forward function and a copy."""
        op, out = x.op, f"v{int(i)}"
        assert op is not None
        line = ufunc(self, x, out) if is_elementwise(x) else WRITTEN[op.name](self, x, out) if op.name in WRITTEN else None
        if line is not None:
            return line
        self.names[f"f{int(i)}"], self.names[f"o{int(i)}"] = op.forward, x.options
        return f"copyto({out}, f{int(i)}({', '.join(map(self.as_given, x.args))}, **o{int(i)}))"

    def shape_of(self, a: Any) -> tuple[int, ...]:
        return self.program.values[a].shape if isinstance(a, V) else np.shape(a)

    def in_one_piece(self, a: Any) -> bool:
        """Whether an array is known to lie row by row, or column by column; merging, the prelude copies parameters that do not."""
        x = self.array.get(a) if isinstance(a, V) else a
        return x.flags.forc if isinstance(x, np.ndarray) else self.merge and a in self.per_solve

    def dtype_of(self, a: Any) -> np.dtype:
        return self.program.values[a].dtype if isinstance(a, V) else np.asarray(a).dtype

    def copies(self, placed: dict[int, np.ndarray]) -> None:
        """Write the outputs that lie elsewhere to where the next step looks for them: all at once, as it were."""
        pending = []
        for k, (role, v) in enumerate(self.program.outputs.items()):
            if role[0] not in PERSISTENT:
                continue
            target = self.stored(role, self.program.values[v] if isinstance(v, V) else v)
            if isinstance(v, V) and (placed.get(int(v)) is target or int(v) in self.products or self.array.get(int(v)) is target):
                continue
            self.names[f"out{k}"] = target
            pending.append((f"out{k}", target, self.array.get(v) if isinstance(v, V) else None, self.as_given(v)))
        while pending:
            ready = next((p for p in pending if not any(
                q is not p and q[2] is not None and np.may_share_memory(p[1], q[2]) for q in pending)), None)
            if ready is None:                                   # a cycle: keep one of its values aside
                name, target, source, text = pending.pop(0)
                assert source is not None
                self.names[f"aside{name}"] = np.empty_like(source)
                self.line(f"copyto(aside{name}, {text})")
                pending.append((name, target, None, f"aside{name}"))
                continue
            pending.remove(ready)
            self.line(f"copyto({ready[0]}, {ready[3]})")

    def build(self) -> Callable:
        loop = [f"v{int(i)} = T{int(i)}[k]" for i in (*self.per_step, *self.drives)]
        body = [*loop, *self.lines, *(f"O{name}[k] = v{int(v)}" for name, v in self.clocks)] or ["pass"]
        bound = [f"v{int(i)}" for i in self.per_solve] + [f"T{int(i)}" for i in (*self.per_step, *self.drives)] + [
            f"O{name}" for name, _ in self.clocks]
        self.names |= {f"C{i}": list(x) if self.count > 1 else x for i, x in self.collected.items()}
        text = [f"def steps(ks, r, {', '.join(bound)}):" if bound else "def steps(ks, r):", "    for k in ks:",
                *(f"        {line}" for line in body), *(["        r += 1"] if self.collected else [])]
        flush = ["def flush(n):", *(f"    {line}" for line in self.flushes or ["pass"])]
        self.source = "\n".join(text)
        names = dict(self.names)
        exec(self.source, names)
        whole = {**self.names, **{f"C{i}": x for i, x in self.collected.items()}}
        exec("\n".join(flush), whole)
        self.flush = whole["flush"]
        return names["steps"]


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that begin at the start of a cache line: NumPy's vectors, where they lie across two lines, take twice as long."""
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(nbytes + LINE, np.uint8)
    skip = -room.ctypes.data % LINE
    return room[skip:skip + nbytes].view(dtype).reshape(shape)


# how operations are written; None: as a call of their forward function

def ufunc(code: Code, x: Value, out: str) -> str:
    name, dtypes = x.op.name, [code.program.values[a].dtype for a in x.args if isinstance(a, V)]   # type: ignore[union-attr]
    code.names[name] = x.op.forward                                                                # type: ignore[union-attr]
    dtype = next((d for d in (x.dtype, *dtypes) if d.kind == "f"), None)
    last = f"out={out}" if name in ("maximum", "minimum") else out
    return f"{name}({', '.join(code.name(a, dtype) for a in x.args)}, {last})"


def matmul(code: Code, x: Value, out: str) -> str:
    a, b = (code.name(a) for a in x.args)
    axes = [len(code.shape_of(a)) for a in x.args]
    if axes == [2, 2] or (max(axes) <= 2 and all(map(code.in_one_piece, x.args))):          # dot: to the same bits, in half the time
        return f"{a}.dot({b}, {out})"
    code.names["matmul"] = np.matmul
    return f"matmul({a}, {b}, {out})"


def reduction(code: Code, x: Value, out: str) -> str:
    name, axis, keep = x.op.name, x.options.get("axis"), x.options.get("keepdims", False)          # type: ignore[union-attr]
    shape = code.shape_of(x.args[0])
    if code.merge and name == "sum" and len(shape) == 2 and axis in (0, (0,)) and not keep:
        return f"{code.name(np.ones(shape[0], x.dtype))}.dot({code.name(x.args[0])}, {out})"       # the BLAS sums faster
    code.names[f"{REDUCTIONS[name]}_reduce"] = getattr(np, REDUCTIONS[name]).reduce
    return f"{REDUCTIONS[name]}_reduce({code.name(x.args[0])}, {axis}, None, {out}, {keep})"


def where(code: Code, x: Value, out: str) -> str | None:
    if code.dtype_of(x.args[0]).kind != "b":
        return None
    c, a, b = code.name(x.args[0]), *(code.name(a, x.dtype) for a in x.args[1:])
    return f"copyto({out}, {b}); copyto({out}, {a}, where={c})"


def concatenate(code: Code, x: Value, out: str) -> str:
    code.names["concatenate"] = np.concatenate
    return f"concatenate(({', '.join(code.name(a) for a in x.args)},), {x.options.get('axis', 0)}, {out})"


def astype(code: Code, x: Value, out: str) -> str:
    return f"copyto({out}, {code.name(x.args[0])}, 'unsafe')"


WRITTEN: dict[str, Callable[[Code, Value, str], str | None]] = {
    "matmul": matmul, "where": where, "concatenate": concatenate, "astype": astype, **dict.fromkeys(REDUCTIONS, reduction)}


def is_elementwise(x: Value) -> bool:
    return isinstance(x.op.forward, np.ufunc) and x.op.name != "matmul"                            # type: ignore[union-attr]


def is_view(x: Value) -> bool:
    """Whether NumPy makes a view of it: a slice, but not a list of indices."""
    if x.op.name != "getitem":                                                                     # type: ignore[union-attr]
        return True
    index = x.options["index"]
    return all(i is None or i is Ellipsis or isinstance(i, (int, np.integer, slice)) for i in (
        index if isinstance(index, tuple) else (index,)))


def view_of(x: Value, source: np.ndarray) -> np.ndarray:
    """The view that an operation makes of an array; also where it is of one entry, which NumPy would copy into a number."""
    if x.op.name == "getitem" and x.shape == ():                                                   # type: ignore[union-attr]
        index = x.options["index"]
        index = index if isinstance(index, tuple) else (index,)
        return source[index if any(i is Ellipsis for i in index) else (*index, ...)]
    return x.op.forward(source, **x.options)                                                       # type: ignore[union-attr]


def last_uses(program: Program) -> list[int]:
    """For every value the number of the last one that reads it, also through a view; outputs are read at the end."""
    values = program.values
    last = [-1] * len(values)
    for v in program.outputs.values():
        if isinstance(v, V):
            last[v] = len(values)
    for i in range(len(values) - 1, -1, -1):
        x = values[i]
        if x.op is None:
            continue
        until = max(i, last[i]) if x.op.name in VIEWS else i
        for a in x.args:
            if isinstance(a, V):
                last[a] = max(last[a], until)
    return last

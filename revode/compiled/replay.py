"""Replay: a program as straight-line NumPy calls into buffers that are planned beforehand.

    multiply(v9, v10, b0);  add(v0, b0, p0);  p1.dot(w2, b1);  add(b1, w5, b1);  tanh(b1, b1);  ...

Buffers are shared by liveness; views (reshape, transpose, slices) are made once; what depends on the parameters alone is
computed once a solve, what depends on the grid alone for many steps at a time. The gradient of a weight used in small
products is one product for many steps: the rows of both factors are collected, and multiplied when there are enough.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..engine import tree
from ..engines.protocol import Rows
from ..stepping import Problem
from ..watch import MANY, begins, flat
from .fields import DERIVATIVE, LOOK_UP
from .program import Program, Role, V, Value, evaluate, kinds
from .steps import Steps

ROWS = 64             # rows that are collected for one product of a weight gradient
CHUNK = 128           # steps for which values of the grid are computed at a time
KEPT = 1024           # steps for which they are kept for the next solve
VIEWS = {"reshape", "transpose", "broadcast_to", "flip", "getitem"}
REDUCTIONS = {"sum": "add", "max": "maximum", "min": "minimum"}
PERSISTENT = {"part", "cotangent", "carry", "aparam", "known", "landed", "missed"}


class Code:
    """One program, planned and printed as a Python function; `source` is what runs."""

    def __init__(self, program: Program, store: dict[Role, np.ndarray], rows: int, merge: bool = False) -> None:
        self.program, self.store, self.merge = program, store, merge
        values = program.values
        self.kinds = kinds(program)
        self.names: dict[str, Any] = {"copyto": np.copyto, "add": np.add}         # what the function sees
        self.lines: list[str] = []
        self.flushes: list[str] = []
        self.uses = last_uses(program)
        self.array: dict[int, Any] = {}                            # value -> its array, where it stays the same
        self.free: dict[Any, list] = {}
        self.per_step = [V(i) for i, x in enumerate(values) if self.kinds[i] == "step" and self.leaves_grid(i)]
        self.per_solve = [V(i) for i, x in enumerate(values) if self.kinds[i] == "param" and self.leaves_grid(i)]
        self.drives = [V(i) for i, x in enumerate(values) if x.role is not None and x.role[0] in ("drive", "state")]
        self.count = max(1, ROWS // max(1, rows)) if merge and any(role[0] == "aparam" for role in program.outputs) else 1
        self.collected: dict[int, np.ndarray] = {}                 # value -> its rows of many steps
        self.sums: dict[int, np.ndarray] = {}                      # additions to a parameter's sum -> the sum, in place
        self.products = self.find_products() if self.count > 1 else {}
        self.plan()
        self.function = self.build()

    def leaves_grid(self, i: int) -> bool:
        """Whether a value of the grid, or of the parameters, is needed by the state, or is an output."""
        kind = self.kinds[i]
        return any(self.kinds[j] != kind for j, x in enumerate(self.program.values)
                   if any(isinstance(a, V) and a == i for a in x.args)) or any(
            isinstance(v, V) and v == i for v in self.program.outputs.values())

    def find_products(self) -> dict[int, list]:
        """Additions to a parameter's sum of nothing but x^T g and sums of rows: the factors, to be multiplied for many steps."""
        values, found = self.program.values, {}
        users = [0] * len(values)
        for x in values:
            for a in x.args:
                if isinstance(a, V):
                    users[a] += 1

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
                self.sums[int(v)] = self.store.setdefault(role, np.zeros(values[v].shape, values[v].dtype))
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
        program, values = self.program, self.program.values
        placed = self.outputs_in_place()
        needed = {int(a) for pairs in self.products.values() for pair in pairs for a in pair if a is not None}
        used: set[int] = set(needed) | {int(v) for v in program.outputs.values() if isinstance(v, V)}
        for i in range(len(values) - 1, -1, -1):               # what is still needed, now that these products are not
            if i in used and i not in self.products:
                used.update(int(a) for a in values[i].args if isinstance(a, V))
            elif i in self.products:
                used.update(int(a) for a in values[i].args if isinstance(a, V) and int(a) in self.sums)
        for a in needed:
            self.collected[a] = np.zeros((self.count, *values[a].shape), values[a].dtype)
        for i, x in enumerate(values):
            if self.kinds[i] in ("step", "param"):
                if x.op is None or V(i) in self.per_step or V(i) in self.per_solve:
                    self.array[i] = None                    # bound when it runs
                continue
            if x.op is None:
                if x.role[0] in PERSISTENT:                 # type: ignore[index]
                    self.array[i] = self.store.setdefault(x.role, np.zeros(x.shape, x.dtype))      # type: ignore[arg-type]
                    self.names[f"v{i}"] = self.array[i]
                if i in self.collected:
                    self.line(f"copyto(C{i}[r], v{i})")
                continue
            if i in self.products:
                self.array[i] = self.names[f"v{i}"] = self.sums[i]
                continue
            if i not in used:
                continue
            self.emit(V(i), x, placed.get(i))
            self.release(i)
        for i, pairs in self.products.items():
            self.names[f"A{i}"] = self.sums[i]
            self.flushes += [self.product_line(i, left, right) for left, right in pairs]
        self.copies(placed)

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
                found[int(v)] = self.store.setdefault(role, np.zeros(values[v].shape, values[v].dtype))
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

    def buffer(self, x: Value) -> np.ndarray:
        key = int(np.prod(x.shape)), x.dtype
        pool = self.free.setdefault(key, [])
        return (pool.pop() if pool else np.empty(key[0], x.dtype)).reshape(x.shape)

    def release(self, i: int) -> None:
        """Give back the buffers of values whose last use this was."""
        for j, owner in list(self.owned.items()):
            if self.uses[j] <= i:
                self.free[owner.size, owner.dtype].append(owner.reshape(-1))
                del self.owned[j]

    @property
    def owned(self) -> dict[int, np.ndarray]:
        return self.__dict__.setdefault("_owned", {})

    # lines

    def line(self, text: str) -> None:
        self.lines.append(text)

    def name(self, a: Any, dtype: Any = None) -> str:
        """The name of an argument; a constant becomes an array without axes, which NumPy takes fastest."""
        if isinstance(a, V):
            return f"v{int(a)}"
        if isinstance(a, (bool, int, float)) or np.ndim(a) == 0:
            a = np.asarray(a, dtype if dtype is not None and dtype.kind == "f" else None)
        name = f"c{len(self.names)}"
        self.names[name] = a
        return name

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
        op, out = x.op, f"v{int(i)}"
        assert op is not None
        dtypes = [self.program.values[a].dtype for a in x.args if isinstance(a, V)]
        dtype = x.dtype if x.dtype.kind == "f" else next((d for d in dtypes if d.kind == "f"), None)
        if isinstance(op.forward, np.ufunc) and op.name != "matmul":
            self.names[op.name] = op.forward
            last = f"out={out}" if op.name in ("maximum", "minimum") else out
            return f"{op.name}({', '.join(self.name(a, dtype) for a in x.args)}, {last})"
        if op.name == "matmul":
            a, b = (self.program.values[a].shape if isinstance(a, V) else np.shape(a) for a in x.args)
            if len(a) == 2 == len(b):
                return f"{self.name(x.args[0])}.dot({self.name(x.args[1])}, {out})"
            self.names["matmul"] = np.matmul
            return f"matmul({self.name(x.args[0])}, {self.name(x.args[1])}, {out})"
        if op.name in REDUCTIONS:
            ufunc = REDUCTIONS[op.name]
            self.names[f"{ufunc}_reduce"] = getattr(np, ufunc).reduce
            axis, keep = x.options.get("axis"), x.options.get("keepdims", False)
            shape = self.program.values[x.args[0]].shape if isinstance(x.args[0], V) else ()
            if self.merge and op.name == "sum" and len(shape) == 2 and axis in (0, (0,)) and not keep:
                return f"{self.name(np.ones(shape[0], x.dtype))}.dot({self.name(x.args[0])}, {out})"       # the BLAS sums faster
            return f"{ufunc}_reduce({self.name(x.args[0])}, {axis}, None, {out}, {keep})"
        if op.name == "where" and self.dtype_of(x.args[0]).kind == "b":
            c, a, b = self.name(x.args[0]), *(self.name(a, dtype) for a in x.args[1:])
            return f"copyto({out}, {b}); copyto({out}, {a}, where={c})"
        if op.name == "concatenate":
            self.names["concatenate"] = np.concatenate
            return f"concatenate(({', '.join(self.name(a) for a in x.args)},), {x.options.get('axis', 0)}, {out})"
        if op.name == "astype" or (op.name in VIEWS and is_view(x)):
            if op.name == "astype":
                return f"copyto({out}, {self.name(x.args[0])}, 'unsafe')"
        self.names[f"f{int(i)}"], self.names[f"o{int(i)}"] = op.forward, x.options
        return f"copyto({out}, f{int(i)}({', '.join(map(self.as_given, x.args))}, **o{int(i)}))"

    def dtype_of(self, a: Any) -> np.dtype:
        return self.program.values[a].dtype if isinstance(a, V) else np.asarray(a).dtype

    def copies(self, placed: dict[int, np.ndarray]) -> None:
        """Write the outputs that lie elsewhere to where the next step looks for them: all at once, as it were."""
        pending = []
        for k, (role, v) in enumerate(self.program.outputs.items()):
            if role[0] not in PERSISTENT:
                continue
            target = self.store.get(role)
            if target is None:
                x = self.program.values[v] if isinstance(v, V) else v
                target = self.store[role] = np.zeros(x.shape, x.dtype)
            if isinstance(v, V) and (placed.get(int(v)) is target or int(v) in self.products or self.array.get(int(v)) is target):
                continue
            self.names[f"out{k}"] = target
            if isinstance(v, V):
                pending.append((f"out{k}", target, self.array.get(int(v)), f"v{int(v)}"))
            else:
                self.names[f"const{k}"] = v
                pending.append((f"out{k}", target, None, f"const{k}"))
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
        body = [*loop, *self.lines] or ["pass"]
        bound = [f"v{int(i)}" for i in self.per_solve] + [f"T{int(i)}" for i in (*self.per_step, *self.drives)]
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


class Grid:
    """The values of a program that depend on the grid alone, computed for CHUNK steps at a time."""

    def __init__(self, program: Program, found: list[str]) -> None:
        self.program, self.kinds = program, found
        self.order = [i for i, kind in enumerate(found) if kind == "step"]
        names = [program.values[i].op.name for i in self.order if program.values[i].op is not None]      # type: ignore[union-attr]
        self.controlled, self.looked_up = DERIVATIVE in names, LOOK_UP.name in names
        self.kept: dict[tuple, dict] = {}             # what was computed last, for at most KEPT steps
        self.rows = 0                                 # of all of them
        self.last: tuple = (None, {})                 # the one that was asked for last: to compare is quicker than to look up

    def tables(self, problem: Problem, first: int, last: int) -> dict[int, Any]:
        """By value: an array with one row for every step first .. last - 1."""
        ts = np.asarray(problem.ts[first:last + 1], np.float64)
        hs = np.asarray(problem.hs[max(first - 1, 0):last])
        control: Any = getattr(problem.system, "control", None) if self.controlled else None
        key = first, ts.tobytes(), hs.tobytes(), float(problem.h_before) if first == 0 else None, control
        if key == self.last[0]:                       # the same grid again, as in training
            return self.last[1]
        if key in self.kept:
            self.kept[key] = self.kept.pop(key)
            self.last = key, self.kept[key]
            return self.kept[key]
        h = hs if first == 0 else hs[1:]
        before = np.concatenate([[problem.h_before], hs[:-1]]).astype(hs.dtype) if first == 0 else hs[:-1]
        given = {"t0": ts[:-1], "t1": ts[1:], "h": h, "h_before": before}
        at: dict[int, Any] = {}
        for i in self.order:
            x = self.program.values[i]
            if x.op is None:
                at[i] = given[x.role[1]]                                                           # type: ignore[index]
            elif isinstance(x.op.forward, np.ufunc) and x.op.name != "matmul":
                at[i] = x.op.forward(*(aligned(at[a], len(x.shape)) if isinstance(a, V) else a for a in x.args))
            elif x.op.name == "astype":
                at[i] = at[x.args[0]].astype(x.dtype)
            elif x.op is LOOK_UP:
                at[i] = problem.seen.table(x.options, *(at[a] for a in x.args))
            elif x.op.name == DERIVATIVE:
                at[i] = control.derivative(at[x.args[0]])
            else:
                at[i] = np.stack([x.op.forward(*(at[a][k] if isinstance(a, V) else a for a in x.args), **x.options)
                                  for k in range(last - first)])
        if not self.looked_up:
            while self.kept and self.rows + last - first > KEPT:           # what has not been used for the longest time
                self.rows -= self.kept.pop(next(iter(self.kept)))[-1]
            self.kept[key] = {**at, -1: last - first}
            self.rows += last - first
            self.last = key, self.kept[key]
        return at


class Replay:
    """The programs of one direction at work: the state lies in `store`, by role, and moves step by step."""
    name, looks_often = "replay", False
    pays = 500                 # so many steps take some fifty times as long as comparing one with the tape

    def __init__(self, steps: Steps, parts: dict, merge: bool) -> None:
        self.steps, self.merge = steps, merge
        self.store: dict[Role, np.ndarray] = {}
        rows = int(np.prod(next(iter(parts.values())).shape[:-1]))
        self.codes = {name: Code(program, self.store, rows, merge and name == "step") for name, program in steps.programs.items()}
        self.grids = {name: Grid(code.program, code.kinds) for name, code in self.codes.items()}

    def load(self, problem: Problem, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        """Begin a sweep from these parts (going back: and their cotangents)."""
        self.problem, self.stats = problem, problem.stats
        problem.stats.backend = self.name
        leaves = given(problem, params)
        self.bound = {name: prelude(code, leaves, self.merge) for name, code in self.codes.items()}
        self.collected, self.begins, self.landed = 0, True, False
        sums = [self.store[role] for role in in_order(self.store, "aparam", problem)]
        self.sums = sums if 0 < sum(x.size for x in sums) <= MANY else []
        self.held: dict[str, tuple[int, list]] = {}
        for x in self.store.values():
            x[...] = 0
        self.flowed = [flat(self.sums)] if self.sums else []
        self.put("part", parts)
        self.put("cotangent", cotangents or {})

    def put(self, kind: str, arrays: dict) -> None:
        for name, x in arrays.items():
            if (kind, name) in self.store:
                self.store[kind, name][...] = x

    def read(self, kind: str) -> Any:
        """Copies of the parts, or of the cotangents, or of the sums for the parameters (by their number); or rows of what these were
        at the last looks.

        After landing on a known state the parts are those that were reconstructed.
        """
        if kind == "flowed":
            rows = [*self.flowed, flat(self.sums)] if self.sums else []
            self.flowed = rows[-1:]
            return (np.stack(rows), begins(self.sums)) if rows else None
        kind = "landed" if self.landed and kind == "part" else kind
        return {role[1]: self.store[role].copy() for role in in_order(self.store, kind, self.problem)}

    def ahead(self, first: int, last: int, ys: Sequence[Any] | None = None, looks: Sequence[int] = ()) -> dict:
        problem, seen = self.problem, self.room("part", looks)
        at = {n: k for k, n in enumerate(looks)}
        if self.begins:
            self.run("begin", range(first, first + 1))
            self.begins = False
        save = problem.save if ys is not None else ()
        saved = {save[k]: k for k in range(bisect_right(save, first), bisect_right(save, last))}
        for stop in sorted({*saved, *at}):
            self.run("step", range(first, stop))
            first = stop
            if stop in saved:
                for y, name in zip(ys or (), problem.method.outputs, strict=True):
                    y[saved[stop]] = self.store["part", name]
            if stop in at:
                self.note(seen, "part", at[stop])
        self.run("step", range(first, last))
        return seen

    def room(self, kind: str, looks: Sequence[int]) -> dict:
        """Arrays for what is seen at `looks`."""
        return {role[1]: np.empty((len(looks), *self.store[role].shape), self.store[role].dtype)
                for role in in_order(self.store, kind, self.problem)} if looks else {}

    def note(self, seen: dict, kind: str, k: int) -> None:
        for name, x in seen.items():
            x[k] = self.store[kind, name]

    def back(self, last: int, first: int, a_ys: tuple, known: dict | None = None, flushes: bool = False,
             looks: Sequence[int] = ()) -> tuple[dict, dict]:
        """Undo steps last - 1 .. first; the cotangents of the saved states at first .. last - 1 enter on the way.

        Returns the parts and cotangents at `looks`, last first, in arrays with an axis of grid points first.
        """
        problem, parts, cotangents = self.problem, self.room("part", looks), self.room("cotangent", looks)
        at = {n: k for k, n in enumerate(looks)}
        if self.begins:
            self.run("begin", range(last - 1, last))
            self.begins = False
        if known is None or "land" not in self.codes:
            known = None
        saved = {problem.save[k]: k for k in range(bisect_left(problem.save, first), bisect_left(problem.save, last))}
        for stop in sorted({*saved, *at}, reverse=True):
            last = self.undo(last, stop, first, known)
            if stop in saved:
                for a, name in zip(a_ys, problem.method.outputs, strict=True):
                    self.store["cotangent", name] += a[saved[stop]]
            if stop in at:
                self.note(parts, "part", at[stop])
                self.note(cotangents, "cotangent", at[stop])
                if self.sums:
                    self.flowed.append(flat(self.sums))        # without the rows that have not been multiplied yet
        self.undo(last, first, first, known)
        if flushes:
            self.flush()
            self.run("end", range(first, first + 1))
        return parts, cotangents

    def pull(self, last: int, first: int, a_ys: tuple, states: Rows) -> None:
        problem = self.problem
        self.held.clear()
        self.states = first, states
        for stop in problem.save[bisect_left(problem.save, first):bisect_left(problem.save, last)][::-1]:
            self.run("step", range(last - 1, stop - 1, -1))
            for a, name in zip(a_ys, problem.method.outputs, strict=True):
                self.store["cotangent", name] += a[problem.rows[stop]]
            last = stop
        self.run("step", range(last - 1, first - 1, -1))
        self.flush()

    def undo(self, last: int, stop: int, first: int, known: dict | None) -> int:
        """Undo steps last - 1 .. stop; the one that comes to `first` lands on what is known there."""
        lands = known is not None and stop == first < last
        self.run("step", range(last - 1, stop - 1 + lands, -1))
        if lands:
            self.put("known", known)                                                               # type: ignore[arg-type]
            self.run("land", range(first, first + 1))
            self.landed = True
        return stop

    def replace(self, parts: dict) -> None:
        self.put("part", parts)

    def restart(self, parts: dict) -> None:
        """Go on from these parts. Where the last step landed on them, the field values at hand are theirs already."""
        self.put("part", parts)
        self.begins, self.landed = "land" not in self.codes, False

    def run(self, name: str, ns: range) -> None:
        """Run a program for these steps, one after another."""
        if name not in self.codes or not ns:
            return
        code, step = self.codes[name], ns.step
        counts = self.steps.counts.get(name)
        if counts is not None:
            self.stats.nfe += counts.nfe * len(ns)
            self.stats.nvjp += counts.nvjp * len(ns)
        while ns:
            first = ns[0] // CHUNK * CHUNK
            k = ns[0] - first                                     # the place in its chunk
            left = min(len(ns), CHUNK - k if step > 0 else k + 1)
            ns = ns[left:]
            arguments = [*self.bound[name], *self.tables(name, first)]
            while left:
                some = min(left, code.count - self.collected) if code.collected else left
                code.function(range(k, k + step * some, step), self.collected, *arguments)
                if code.collected:
                    self.collected += some
                    if self.collected == code.count:
                        self.flush()
                k, left = k + step * some, left - some

    def tables(self, name: str, first: int) -> list:
        """For each value that depends on the grid: its arrays for the steps of this chunk."""
        at = self.held.get(name)
        if at is None or at[0] != first:
            code, problem = self.codes[name], self.problem
            found = self.grids[name].tables(problem, first, min(first + CHUNK, problem.N)) if code.per_step else {}
            drives = [self.driven(code.program.values[i].role, first) for i in code.drives]
            at = self.held[name] = first, [*(list_of(found[i]) for i in code.per_step), *drives]
        return at[1]

    def driven(self, role: Any, first: int) -> Any:
        """What a step finds besides: an increment, or a known state, by its position in this chunk."""
        kind, name = role
        if kind == "drive":
            return Drive(self.problem, name, first)
        begin, states = self.states
        x = states[name]
        return [np.asarray(x[n - begin]) if 0 <= n - begin < len(x) else None for n in range(first, first + CHUNK)]

    def flush(self) -> None:
        """Multiply the rows that have been collected."""
        if self.collected:
            self.codes["step"].flush(self.collected)
            self.collected = 0


def given(problem: Problem, params: Any) -> list:
    """What the inputs of programs are numbered by: the leaves of params, and what the field brings along."""
    return [*tree.flatten(params)[0], *problem.seen.extras]


def in_order(roles: Iterable[Role], kind: str, problem: Problem) -> list[Role]:
    """The roles of a kind: parameters by their number, parts in the order of the method."""
    names = [*problem.method.parts, "largest", "weighed"]
    return sorted((role for role in roles if role[0] == kind), key=lambda role: role[1] if kind == "aparam" else names.index(role[1]))


def prelude(code: Code, leaves: list, contiguous: bool = False) -> list:
    """The values that depend on the parameters alone; contiguous: transposed matrices are copied, which products like."""
    at = evaluate(code.program, lambda role: np.asarray(leaves[role[1]]), [i for i, kind in enumerate(code.kinds) if kind == "param"])
    return [at[i].copy() if contiguous and not at[i].flags.c_contiguous else at[i] for i in code.per_solve]


def aligned(table: np.ndarray, ndim: int) -> np.ndarray:
    """A table of arrays, with axes of length one where its arrays lack them, so that steps meet steps."""
    return table.reshape(len(table), *(1,) * (ndim + 1 - table.ndim), *table.shape[1:])


def list_of(table: np.ndarray) -> list:
    """The rows of a table, each an array (without axes where it is one number)."""
    if table.ndim == 1 and len(table) and np.all(table == table[0]):
        return [np.asarray(table[0])] * len(table)
    return [table[k, ...] for k in range(len(table))]


class Drive:
    """The increments of noise or a control, by position."""

    def __init__(self, problem: Problem, name: str, first: int) -> None:
        self.problem, self.name, self.first = problem, name, first

    def __getitem__(self, k: int) -> Any:
        n = self.first + k
        problem = self.problem
        return problem.driver.given(n, problem.ts[n], problem.ts[n + 1], problem.hs[n], problem)[self.name]

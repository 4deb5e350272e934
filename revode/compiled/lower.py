"""From a program to loops over a tile of trajectories, where that is possible: everything row-wise.

A value of the program is stored as F features for each of T lanes (trajectories), x[k T + r], or, where it is the same for
all trajectories, as F numbers alone. Each operation becomes one of a few kinds of loops:

    Map       out[k] = expression of a[map(k)], b[map(k)], ...     elementwise operations, slices, transposes, broadcasting
    Linear    out[p, j] = sum_c x[p, c] w[c, j]                     a product with a matrix that all trajectories share
    Contract  out[k] = sum_c a[ta(k, c)] b[tb(k, c)]                any other product of features
    Reduce    out[k] = sum, max or min over c of a[ta(k, c)]        along features
    Outer     out[i, j] = sum_r x[i, r] g[j, r]                     over the lanes: the gradient of a matrix
    Rows      out[k] = sum_r x[k, r]                                over the lanes: the gradient of a bias

Sums run in the order of c (of r), one rounding each, so the bits are those of the loop as it is written, everywhere. What
mixes trajectories, and what has no such form, raises NotFusable, which names the operation.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..engine.tensor import RULES, NotTraceable, Op
from .program import ADD, MULTIPLY, SUBTRACT, Program, Role, V, Value, simplify

STRUCTURAL = {"reshape", "transpose", "broadcast_to", "flip", "getitem"}
LANES, SHARED, TILE = "lanes", "shared", "tile"       # one value for each trajectory; one for all; a sum over those of a tile
DIVIDE, SQRT = RULES[np.divide], RULES[np.sqrt]


class NotFusable(NotTraceable):
    """An operation that has no form as a loop over trajectories."""


@dataclass(eq=False)
class Slot:
    """A stored value: `kind`, F features, and where it comes from (a role of the program, for inputs and outputs)."""
    kind: str
    F: int
    role: Role | None = None
    name: str = ""


class Read(NamedTuple):
    """An argument of a loop: a slot, seen through a map of features (None: as it is), or a number."""
    slot: Slot | None
    map: np.ndarray | None = None
    number: Any = None


@dataclass(eq=False)
class Loop:
    """One loop. kind: map, linear, contract, reduce, outer, rows."""
    kind: str
    out: Slot
    reads: list[Read]
    text: str = ""                          # map: the expression in C, with {0}, {1}, ...
    op: Op | None = None                    # map: the operation; reduce: sum, max or min
    shape: tuple[int, ...] = ()             # linear: (p, n, m);  outer: (n, m)
    tables: tuple[np.ndarray, ...] = ()     # contract, reduce: (F, C) indices of features
    source: str = ""                        # what the user would recognise
    apart: bool = False                     # map: a loop of its own, over values that are stored


@dataclass
class Lowered:
    """The loops of one program, with its inputs and outputs by role."""
    loops: list[Loop]
    inputs: dict[Role, Slot]
    outputs: dict[Role, Read]
    steps: list[V] = field(default_factory=list)       # values of the grid that loops read, in the order of their columns
    params: list[V] = field(default_factory=list)      # values of the parameters that loops read
    program: Program | None = None


@dataclass
class Known:
    """What is known of a value of the program: its slot, the map of its features, and which of its axes are rows."""
    kind: str
    rows: tuple[int, ...]                   # its axes that run over trajectories, in order
    features: tuple[int, ...]               # the lengths of the others
    slot: Slot | None
    map: np.ndarray | None = None           # None: feature k is at k
    number: Any = None

    @property
    def F(self) -> int:
        return int(np.prod(self.features))

    def read(self) -> Read:
        return Read(self.slot, self.map, self.number)


def prepared(program: Program) -> Program:
    """Powers written as products, and the sums for the parameters as one chain of additions."""
    values: list[Value] = []
    new: list[Any] = []

    def emit(x: Value) -> V:
        values.append(x)
        return V(len(values) - 1)

    for x in program.values:
        args = tuple(new[a] if isinstance(a, V) else a for a in x.args)
        if x.op is not None and x.op.name == "power" and not isinstance(args[1], V) and np.ndim(args[1]) == 0:
            new.append(power(x, args[0], float(args[1]), emit))
            continue
        if x.op is not None and x.op.name == "einsum" and len(args) > 2:
            new.append(pairwise(x, args, [values[a].shape if isinstance(a, V) else np.shape(a) for a in args], emit))
            continue
        new.append(emit(x._replace(args=args)))
    made = Program(values, {role: new[v] if isinstance(v, V) else v for role, v in program.outputs.items()})
    return simplify(chained(made))


def power(x: Value, a: Any, n: float, emit: Any) -> Any:
    """a**n for a number n: products where n is a small whole number."""
    plain = x._replace(op=MULTIPLY, options={})
    if n in (0.5, -0.5):
        root = emit(x._replace(op=SQRT, args=(a,), options={}))
        return root if n > 0 else emit(x._replace(op=DIVIDE, args=(1.0, root), options={}))
    if n != int(n) or not 1 <= abs(n) <= 16:
        return emit(x._replace(args=(a, n)))
    whole, result, square = int(abs(n)), None, a
    while whole:
        if whole & 1:
            result = square if result is None else emit(plain._replace(args=(result, square)))
        whole >>= 1
        if whole:
            square = emit(plain._replace(args=(square, square)))
    return result if n > 0 else emit(x._replace(op=DIVIDE, args=(1.0, result), options={}))


def pairwise(x: Value, args: Sequence[Any], shapes: Sequence[tuple[int, ...]], emit: Any) -> Any:
    """An einsum of many factors as products of two, from the left."""
    inputs, output = x.options["inputs"], x.options["output"]
    sizes = {c: n for s, shape in zip(inputs, shapes, strict=True) for c, n in zip(s, shape, strict=True)}
    so_far, letters = args[0], inputs[0]
    for k in range(1, len(args)):
        needed = set(output).union(*inputs[k + 1:])
        out = output if k == len(args) - 1 else "".join(c for c in dict.fromkeys(letters + inputs[k]) if c in needed)
        so_far = emit(x._replace(args=(so_far, args[k]), options={"inputs": (letters, inputs[k]), "output": out},
                                 shape=tuple(sizes[c] for c in out)))
        letters = out
    return so_far


def chained(program: Program) -> Program:
    """sum + (p + q) as (sum + p) + q in the outputs for the parameters: one product is added at a time."""
    values = list(program.values)
    outputs = dict(program.outputs)
    for role, v in program.outputs.items():
        if role[0] != "aparam" or not isinstance(v, V) or program.values[v].op is not ADD:
            continue
        terms: list[Any] = []                                # (value, the operation that joins it)
        total = program.inputs.get(role)
        pending: list[Any] = [(v, ADD)]
        found = total is None
        while pending:
            a, op = pending.pop()
            x = program.values[a] if isinstance(a, V) else None
            if a == total and isinstance(a, V) and op is ADD and not found:
                found = True
            elif op is ADD and x is not None and x.op in (ADD, SUBTRACT) and all(
                    isinstance(b, V) and program.values[b].shape == x.shape for b in x.args):
                pending += [(x.args[1], x.op), (x.args[0], ADD)]
            else:
                terms.append((a, op))
        if not found:                                        # the running sum is inside of one of the terms
            continue
        before: Any = total
        for term, op in terms:
            if before is None:
                before = term
                continue
            values.append(program.values[v]._replace(op=op, args=(before, term)))
            before = V(len(values) - 1)
        outputs[role] = before
    return Program(values, outputs)


def lower(program: Program, batch: tuple[int, ...], found: Sequence[str]) -> Lowered:
    """The loops of a prepared program; batch: the leading axes of the state; found: what each value depends on (kinds)."""
    return Lowering(program, batch, found).result


class Lowering:
    """One walk along a program."""

    def __init__(self, program: Program, batch: tuple[int, ...], found: Sequence[str]) -> None:
        self.program, self.values = program, program.values
        self.batch = batch if int(np.prod(batch)) > 1 else ()       # one trajectory: every axis is a feature
        self.found = self.here(found)
        self.result = Lowered([], {}, {}, program=program)
        self.known: list[Known | None] = []
        for i, x in enumerate(self.values):
            self.known.append(self.look(V(i), x))
        for role, v in program.outputs.items():
            same = not isinstance(v, V) and np.size(v) and np.all(v == np.ravel(v)[0])         # the zeros that pending sums start from
            known = self.of(np.ravel(v)[0] if same else v)
            if known.kind == SHARED and known.slot is not None and self.over_batch(self.shape_of(v)) and role[0] in (
                    "part", "cotangent", "carry"):
                known = self.everywhere(self.without(known, self.shape_of(v), range(len(self.batch))))
            self.result.outputs[role] = known.read()

    def look(self, i: V, x: Value) -> Known | None:
        if self.found[i] in ("step", "param"):
            return self.outer(i, x) if self.leaves(i) else None
        if x.op is None:
            return self.input(x)
        name = x.op.name
        if 0 in x.shape:
            leaf = next((y.role[1] for y in self.values if y.role is not None and y.role[0] == "param" and 0 in y.shape), None)
            raise NotFusable(f"np.{name} of shape {x.shape}, which has no entries" + ("" if leaf is None else (
                f", as leaf {leaf} of params: leave it out of the field's sums, or use backend='replay'")))
        try:
            if name in STRUCTURAL:
                return self.structural(x)
            if name == "concatenate":
                return self.concatenate(x)
            if name == "scatter_add":
                return self.scatter(x)
            if name in ("matmul", "dot"):
                return self.matmul(x)
            if name == "einsum":
                return self.einsum(x)
            if name in ("sum", "max", "min"):
                return self.reduce(x)
            if name == "cumsum":
                return self.cumsum(x)
            if name == "astype" and {x.dtype.kind, self.dtype_of(x.args[0]).kind} == {"f"}:
                raise NotFusable(f"from {self.dtype_of(x.args[0])} to {x.dtype}; loops compute in one precision throughout")
            if x.op.c is not None:
                return self.elementwise(x)
        except NotFusable as error:
            raise NotFusable(f"np.{name} of shape {x.shape}: {error}") from None
        raise NotFusable(f"np.{name} of shape {x.shape} has no form as a loop over trajectories")

    def over_batch(self, shape: tuple[int, ...]) -> bool:
        return bool(self.batch) and shape[:len(self.batch)] == self.batch

    def here(self, found: Sequence[str]) -> list[str]:
        """`found`, where what is stretched over the batch counts as the state: each trajectory computes its own row of it."""
        kinds = list(found)
        for i, x in enumerate(self.values):
            own = any(isinstance(a, V) and kinds[a] == "state" for a in x.args)
            if kinds[i] != "state" and x.op is not None and (own or (self.over_batch(x.shape) and (
                    x.op.name == "broadcast_to" or any(self.over_batch(np.shape(a)) for a in x.args if not isinstance(a, V))))):
                kinds[i] = "state"
        return kinds

    def leaves(self, i: V) -> bool:
        """Whether the state, or an output, reads this value of the grid or of the parameters."""
        return any(isinstance(a, V) and a == i for j, x in enumerate(self.values) if self.found[j] == "state" for a in x.args) or any(
            isinstance(v, V) and v == i for v in self.program.outputs.values())

    def outer(self, i: V, x: Value) -> Known:
        (self.result.steps if self.found[i] == "step" else self.result.params).append(i)
        slot = Slot(SHARED, int(np.prod(x.shape)), (self.found[i] + "s", int(i)))
        return Known(SHARED, (), x.shape, slot)

    def input(self, x: Value) -> Known:
        assert x.role is not None
        kind = x.role[0]
        n = len(self.batch)
        if kind == "aparam":
            slot = Slot(TILE if n else LANES, int(np.prod(x.shape)), x.role)
            known = Known(slot.kind, (), x.shape, slot)
        elif n and (x.shape[:n] != self.batch or (x.role == ("drive", "dX") and len(x.shape) <= n)):      # channels are no batch
            if kind == "carry" or x.role == ("drive", "dX"):
                slot = Slot(SHARED, int(np.prod(x.shape)), x.role)
                known = Known(SHARED, (), x.shape, slot)
            else:
                raise NotFusable(f"{' '.join(map(str, x.role))} of shape {x.shape} has no axes for the batch {self.batch}")
        else:
            slot = Slot(LANES, int(np.prod(x.shape[n:])), x.role)
            known = Known(LANES, tuple(range(n)), x.shape[n:], slot)
        self.result.inputs[x.role] = slot
        return known

    def of(self, a: Any) -> Known:
        """What is known of an argument, which may be a constant."""
        if isinstance(a, V):
            known = self.known[a]
            assert known is not None
            return known
        if np.ndim(a) == 0:
            return Known(SHARED, (), (), None, None, float(a))
        a = np.asarray(a, np.float64)
        one = a[(0,) * len(self.batch)] if self.over_batch(a.shape) else a
        if one is not a and np.array_equal(a, np.broadcast_to(one, a.shape), equal_nan=True):
            return self.everywhere(Known(SHARED, (), one.shape, Slot(SHARED, one.size, ("constant", one.tobytes(), one.size))))
        return Known(SHARED, (), a.shape, Slot(SHARED, a.size, ("constant", a.tobytes(), a.size)))

    def without(self, known: Known, shape: tuple[int, ...], axes: Sequence[int]) -> Known:
        """A shared value without these axes, along which it does not change: those of the batch."""
        if known.slot is None:
            return known
        index = (np.arange(known.F) if known.map is None else known.map).reshape(shape)
        moved = np.moveaxis(index, tuple(axes), range(len(axes)))
        one = moved[(0,) * len(axes)]
        content = moved
        if known.slot.role is not None and known.slot.role[0] == "constant":
            content = np.frombuffer(known.slot.role[1])[moved]
        if not np.array_equal(content, np.broadcast_to(content[(0,) * len(axes)], content.shape), equal_nan=True):
            raise NotFusable("an array that is not the state, with a value of its own for every trajectory; put it into y0")
        return Known(known.kind, (), one.shape, known.slot, one.reshape(-1))

    def loop(self, kind: str, to: str, F: int, reads: list[Read], **more: Any) -> Slot:
        out = Slot(to, F)
        self.result.loops.append(Loop(kind, out, reads, **more))
        return out

    def everywhere(self, known: Known) -> Known:
        """A shared value, given to each trajectory."""
        slot = self.loop("map", LANES, known.F, [known.read()], text="{0}")
        return Known(LANES, tuple(range(len(self.batch))), known.features, slot)

    def plain(self, known: Known) -> Slot:
        """The slot of a value, with its features in their own order."""
        if known.slot is not None and known.map is None:
            return known.slot
        return self.loop("map", known.kind, known.F, [known.read()], text="{0}")

    # elementwise

    def elementwise(self, x: Value) -> Known:
        known = [self.of(a) for a in x.args]
        shapes = [self.shape_of(a) for a in x.args]
        kind = self.kind_of(known, x)
        rows: tuple[int, ...] = ()
        for k, shape in zip(known, shapes, strict=True):
            at = tuple(r + len(x.shape) - len(shape) for r in k.rows)
            if at and rows and at != rows:
                raise NotFusable("trajectories along different axes of its arguments")
            rows = at or rows
        features = tuple(n for a, n in enumerate(x.shape) if a not in rows)
        reads = []
        for k, shape in zip(known, shapes, strict=True):
            aligned = (1,) * (len(x.shape) - len(shape)) + shape
            stretched = [a for a in rows if aligned[a] != 1]
            if not k.rows and stretched:
                k = self.without(k, aligned, stretched)
            reads.append(self.broadcast(k, tuple(n for a, n in enumerate(aligned) if a not in rows), features))
        op = x.op
        assert op is not None and op.c is not None
        slot = self.loop("map", kind, int(np.prod(features)), reads, text=op.c, op=op, source=op.name)
        return Known(kind, rows, features, slot)

    def kind_of(self, known: list[Known], x: Value) -> str:
        kinds = {k.kind for k in known}
        if kinds >= {LANES, TILE}:
            raise NotFusable("a sum over the trajectories that goes back into each of them")
        return LANES if LANES in kinds else TILE if TILE in kinds else SHARED

    def dtype_of(self, a: Any) -> np.dtype:
        return self.values[a].dtype if isinstance(a, V) else np.asarray(a).dtype

    def shape_of(self, a: Any) -> tuple[int, ...]:
        return self.values[a].shape if isinstance(a, V) else np.shape(a)

    def broadcast(self, known: Known, own: tuple[int, ...], features: tuple[int, ...]) -> Read:
        """Read a value of these features as if it had those."""
        if known.slot is None:
            return known.read()
        F = int(np.prod(features))
        index = np.arange(known.F) if known.map is None else known.map
        index = np.broadcast_to(index.reshape(own), features).reshape(-1)
        return Read(known.slot, None if known.slot.F == F and np.array_equal(index, np.arange(F)) else index)

    # structure: the same operation on the numbers of the features, and of the rows, tells where everything goes

    def structural(self, x: Value) -> Known:
        known = self.of(x.args[0])
        feature, row = self.numbers(known, self.shape_of(x.args[0]))
        op = x.op
        assert op is not None
        made = self.placed(known, op.forward(feature, **x.options), op.forward(row, **x.options))
        if op.name == "broadcast_to" and made.kind == SHARED and self.over_batch(x.shape):
            return self.everywhere(self.without(made, x.shape, range(len(self.batch))))
        return made

    def numbers(self, known: Known, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """For every entry of a value its feature and its trajectory."""
        index = np.arange(known.F) if known.map is None else known.map
        feature = index.reshape(tuple(1 if a in known.rows else n for a, n in enumerate(shape)))
        count = np.arange(int(np.prod(self.batch))) if known.rows else np.zeros(1, int)
        row = count.reshape(tuple(n if a in known.rows else 1 for a, n in enumerate(shape)))
        return np.broadcast_to(feature, shape), np.broadcast_to(row, shape)

    def placed(self, known: Known, feature: np.ndarray, row: np.ndarray) -> Known:
        """The value whose entries are these features of these trajectories."""
        rows: tuple[int, ...] = ()
        if known.rows:
            rows = tuple(a for a in range(row.ndim) if row.shape[a] > 1 and np.any(np.diff(row, axis=a)))
            order = tuple(n for a, n in enumerate(row.shape) if a in rows)
            wanted = np.arange(int(np.prod(self.batch)))
            flat = np.moveaxis(row, rows, range(len(rows))).reshape(*order, -1)
            if int(np.prod(order)) != wanted.size or not np.array_equal(flat.reshape(wanted.size, -1), np.broadcast_to(
                    wanted[:, None], (wanted.size, flat.shape[-1]))):
                raise NotFusable("it mixes trajectories, or leaves some of them out")
        moved = np.moveaxis(feature, rows, range(len(rows))).reshape(-1, *(
            n for a, n in enumerate(feature.shape) if a not in rows))
        if rows and np.any(moved != moved[:1]):
            raise NotFusable("it does not do the same to every trajectory")
        index = moved[0].reshape(-1) if rows else feature.reshape(-1)
        features = tuple(n for a, n in enumerate(feature.shape) if a not in rows)
        assert known.slot is not None
        same = known.slot.F == index.size and np.array_equal(index, np.arange(index.size))
        return Known(known.kind, rows, features, known.slot, None if same else index)

    def concatenate(self, x: Value) -> Known:
        known = [self.of(a) for a in x.args]
        axis = x.options.get("axis", 0) % len(x.shape)
        kind = self.kind_of(known, x)
        rows = next((k.rows for k in known if k.rows), ())
        if axis in rows or any(k.kind == LANES and k.rows != rows for k in known):
            raise NotFusable("it joins trajectories")
        known = [k if k.rows or not rows else self.without(k, self.shape_of(a), rows) for k, a in zip(known, x.args, strict=True)]
        features = tuple(n for a, n in enumerate(x.shape) if a not in rows)
        F = int(np.prod(features))
        before = 0
        number = np.arange(F).reshape(features)
        at = axis - sum(r < axis for r in rows)
        pieces: list[Any] = [None] * len(known)
        for j, a in enumerate(x.args):
            n = self.shape_of(a)[axis]
            pieces[j] = np.take(number, range(before, before + n), axis=at).reshape(-1)
            before += n
        # out[k] reads part j where k is one of its features: index -1 elsewhere
        reads = []
        for k, piece in zip(known, pieces, strict=True):
            index = np.full(F, -1)
            index[piece] = np.arange(piece.size) if k.map is None else k.map
            reads.append(Read(k.slot, index, k.number))
        slot = self.loop("gather", kind, F, reads, source="concatenate")
        return Known(kind, rows, features, slot)

    def scatter(self, x: Value) -> Known:
        """The vjp of an index: zeros, with entries added where they came from."""
        known = self.of(x.args[0])
        shape = x.options["shape"]
        rows_out = len(known.rows) and tuple(range(len(self.batch)))
        whole = Known(known.kind, rows_out or (), tuple(shape[len(rows_out or ()):]), Slot(known.kind, 0))
        feature, row = self.numbers(whole, shape)
        index = x.options["index"]
        target = self.placed(Known(known.kind, whole.rows, whole.features, Slot(known.kind, -1)), feature[index], row[index])
        to = target.map if target.map is not None else np.arange(target.F)
        if target.rows != known.rows:
            raise NotFusable("trajectories along different axes")
        F = whole.F
        sources: list[list[int]] = [[] for _ in range(F)]
        for k, f in enumerate(to):
            sources[f].append(k if known.map is None else int(known.map[k]))
        width = max(map(len, sources))
        table = np.full((F, max(1, width)), -1)
        for f, found in enumerate(sources):
            table[f, :len(found)] = found
        if width <= 1:
            slot = self.loop("gather", known.kind, F, [Read(known.slot, table[:, 0], known.number)], source="scatter_add")
        else:
            slot = self.loop("reduce", known.kind, F, [Read(known.slot)], op=RULES[np.sum], tables=(table,), source="scatter_add")
        return Known(known.kind, whole.rows, whole.features, slot)

    # sums

    def reduce(self, x: Value) -> Known:
        op, a = x.op, x.args[0]
        assert op is not None
        known, shape = self.of(a), self.shape_of(a)
        axis, keep = x.options.get("axis"), x.options.get("keepdims", False)
        axes = tuple(range(len(shape))) if axis is None else tuple(i % len(shape) for i in (
            axis if isinstance(axis, (tuple, list)) else (axis,)))
        over_rows = [r for r in known.rows if r in axes]
        if over_rows and (len(over_rows) < len(known.rows) or op.name != "sum"):
            if x.shape == () and op.name == "max":
                return self.largest(known)
            raise NotFusable("over some axes of the batch")
        feature_axes = [i for i in range(len(shape)) if i not in known.rows]
        index = (np.arange(known.F) if known.map is None else known.map).reshape(known.features)
        summed = [feature_axes.index(i) for i in axes if i not in known.rows]
        rest = [k for k in range(len(feature_axes)) if k not in summed]
        table = np.transpose(index, rest + summed).reshape(int(np.prod([known.features[k] for k in rest])), -1)
        out = known
        remaining = tuple(1 if i in axes else n for i, n in enumerate(shape) if i not in axes or keep)
        rows = tuple(r - (0 if keep else sum(i < r for i in axes)) for r in known.rows) if not over_rows else ()
        features = tuple(n if i not in axes else 1 for i, n in enumerate(shape) if i not in known.rows and (i not in axes or keep))
        if summed:
            if known.slot is None:
                raise NotFusable("the sum of a number")
            if table.shape[1] == 1:                                 # nothing to add
                slot = known.slot
                same = slot.F == len(table) and np.array_equal(table[:, 0], np.arange(len(table)))
                out = Known(known.kind, rows, features, slot, None if same else table[:, 0])
        if summed and table.shape[1] > 1:
            slot = self.loop("reduce", known.kind, len(table), [Read(known.slot)], op=op, tables=(table,), source=op.name)
            out = Known(known.kind, rows, features, slot)
        if over_rows:
            slot = self.loop("rows", TILE, out.F, [Read(self.plain(Known(LANES, (), out.features, out.slot, out.map)))],
                             source="sum")
            return Known(TILE, (), remaining, slot)
        return Known(out.kind, rows, features, out.slot, out.map)

    def largest(self, known: Known) -> Known:
        """The largest entry of all: of the features first, then of the lanes."""
        table = (np.arange(known.F) if known.map is None else known.map).reshape(1, -1)
        slot = self.loop("reduce", LANES, 1, [Read(known.slot)], op=RULES[np.max], tables=(table,), source="max")
        slot = self.loop("rows", TILE, 1, [Read(slot)], op=RULES[np.max], source="max")
        return Known(TILE, (), (), slot)

    def cumsum(self, x: Value) -> Known:
        known, axis = self.of(x.args[0]), x.options["axis"] % len(x.shape)
        if axis in known.rows:
            raise NotFusable("along the batch")
        at = axis - sum(r < axis for r in known.rows)
        index = (np.arange(known.F) if known.map is None else known.map).reshape(known.features)
        n = known.features[at]
        if n > 64:
            raise NotFusable("over more than 64 features")
        moved = np.moveaxis(index, at, -1)
        table = np.where(np.arange(n)[None, :] <= np.arange(n)[:, None], moved[..., None, :], -1)     # (..., n, n)
        table = np.moveaxis(table, -2, at).reshape(known.F, n)
        slot = self.loop("reduce", known.kind, known.F, [Read(known.slot)], op=RULES[np.sum], tables=(table,), source="cumsum")
        return Known(known.kind, known.rows, known.features, slot)

    # products

    def matmul(self, x: Value) -> Known:
        """As an einsum: a letter for each axis."""
        shapes = [self.shape_of(a) for a in x.args]
        a, b = (len(s) for s in shapes)
        batch = "ABCDEFGH"[:max(a, b, 2) - 2]
        left = (batch[len(batch) - (a - 2):] if a > 2 else "") + ("ic" if a > 1 else "c")
        right = (batch[len(batch) - (b - 2):] if b > 2 else "") + ("cj" if b > 1 else "c")
        out = batch + ("i" if a > 1 else "") + ("j" if b > 1 else "")
        for s, t in ((shapes[0], left), (shapes[1], right)):
            if any(n == 1 and letter in batch and x.shape[out.index(letter)] != 1 for n, letter in zip(s, t, strict=True)):
                raise NotFusable("a batch of matrices that is stretched")
        return self.product(x, [left, right], out)

    def einsum(self, x: Value) -> Known:
        if len(x.args) == 1:
            return self.single(x, x.options["inputs"][0], x.options["output"])
        if len(x.args) > 2:
            raise NotFusable("a product of more than two arrays; multiply two at a time")
        return self.product(x, list(x.options["inputs"]), x.options["output"])

    def single(self, x: Value, letters: str, out: str) -> Known:
        known = self.of(x.args[0])
        feature, row = self.numbers(known, self.shape_of(x.args[0]))
        summed = [c for c in letters if c not in out]
        order = [letters.index(c) for c in out + "".join(summed)]
        if any(letters.index(c) in known.rows for c in summed):
            raise NotFusable("a sum over the trajectories")
        moved = Known(known.kind, known.rows, known.features, known.slot, known.map)
        placed = self.placed(moved, np.transpose(feature, order), np.transpose(row, order))
        n = len(placed.features) - len(summed)
        index = (np.arange(placed.F) if placed.map is None else placed.map).reshape(int(np.prod(placed.features[:n])), -1)
        slot = self.loop("reduce", known.kind, len(index), [Read(known.slot)], op=RULES[np.sum], tables=(index,), source="einsum")
        return Known(known.kind, placed.rows, placed.features[:n], slot)

    def product(self, x: Value, letters: list[str], out: str) -> Known:
        """out = sum over the letters that are not in it of a b; rows may be a batch, or be summed over by both."""
        known = [self.of(a) for a in x.args]
        sizes: dict[str, int] = {}
        for a, s in zip(x.args, letters, strict=True):
            sizes |= dict(zip(s, self.shape_of(a), strict=True))
        row_letters = ["".join(s[r] for r in k.rows) for k, s in zip(known, letters, strict=True)]
        a_rows, b_rows = row_letters
        kind = self.kind_of(known, x)
        if known[0].kind == known[1].kind == TILE:
            raise NotFusable("a product of two sums over the trajectories")
        if a_rows and b_rows and a_rows != b_rows:
            raise NotFusable("trajectories along different axes of its arguments")
        rows = a_rows or b_rows
        for n, (k, s) in enumerate(zip(known, letters, strict=True)):
            stretched = [i for i, c in enumerate(s) if c in rows]
            if stretched and not k.rows:
                if rows[0] not in out and (k.slot is None or k.slot.role is None or k.slot.role[0] != "constant"):
                    raise NotFusable("a sum over the trajectories with something that is not theirs")
                known[n] = self.without(k, self.shape_of(x.args[n]), stretched)
                if rows[0] in out:
                    letters[n] = "".join(c for c in s if c not in rows)
                else:                                       # each trajectory's term of a sum over them
                    known[n] = replace(self.everywhere(known[n]), rows=tuple(stretched))
        over_rows = bool(rows) and rows[0] not in out
        if rows and any((c in out) == over_rows for c in rows):
            raise NotFusable("a sum over some axes of the batch")
        if over_rows and not (known[0].rows and known[1].rows):
            raise NotFusable("a sum over the trajectories with something that is not theirs")
        free = [c for c in out if c not in rows]
        summed = [c for c in dict.fromkeys("".join(letters)) if c not in out and c not in rows]
        features = tuple(sizes[c] for c in free)
        axes_out = tuple(out.index(c) for c in rows) if rows and not over_rows else ()
        tables = []
        grid = np.indices([sizes[c] for c in free + summed]) if free + summed else np.zeros((0,), int)
        place = {c: grid[n] for n, c in enumerate(free + summed)}
        for k, s in zip(known, letters, strict=True):
            own = [c for c in s if c not in rows]
            index = np.zeros([sizes[c] for c in free + summed], int)
            for c in own:
                index = index * sizes[c] + place[c]
            if k.map is not None:
                index = k.map[index]
            tables.append(index.reshape(int(np.prod(features)), -1))
        F = int(np.prod(features))
        if any(k.slot is None for k in known):
            raise NotFusable("a product with a number")
        if over_rows:
            if summed or len(free) != 2 or any(k.map is not None for k in known):
                return self.slow_outer(known, tables, features, summed, out, rows)
            if [c for c in letters[0] if c not in rows] != free[:1]:
                known = known[::-1]
            shape = (sizes[free[0]], sizes[free[1]])
            if shape != (known[0].F, known[1].F):
                return self.slow_outer(known, tables, features, summed, out, rows)
            slot = self.loop("outer", TILE, F, [Read(known[0].slot), Read(known[1].slot)], shape=shape, source="matmul")
            return Known(TILE, (), features, slot)
        a, b = known
        if not self.batch and tables[0].shape[1] == 1 and a.F * b.F == F and not any(
                of_grid(k) or k.map is not None for k in known) and np.array_equal(
                tables[0][:, 0], np.arange(F) // b.F) and np.array_equal(tables[1][:, 0], np.arange(F) % b.F):
            slot = self.loop("outer", LANES, F, [Read(a.slot), Read(b.slot)], shape=(a.F, b.F), source="matmul")
            return Known(LANES, (), features, slot)
        linear = self.linear(known, tables, F)
        if linear is not None:
            return Known(kind, axes_out, features, linear)
        slot = self.loop("contract", kind, F, [Read(k.slot) for k in known], tables=tuple(tables), source="matmul")
        return Known(kind, axes_out, features, slot)

    def slow_outer(self, known: list[Known], tables: list[np.ndarray], features: tuple[int, ...], summed: list[str], out: str,
                   rows: str) -> Known:
        """A sum over trajectories and features of products: first each trajectory's own, then over the lanes."""
        slot = self.loop("contract", LANES, int(np.prod(features)), [Read(k.slot) for k in known], tables=tuple(tables),
                         source="matmul")
        slot = self.loop("rows", TILE, slot.F, [Read(slot)], source="sum")
        return Known(TILE, (), features, slot)

    def linear(self, known: list[Known], tables: list[np.ndarray], F: int) -> Slot | None:
        """x[p, c] w[c, j] with a shared w, if that is what the tables say."""
        x, w = known
        if x.kind != LANES or w.kind != SHARED or x.slot is None or w.slot is None or of_grid(w):
            return None
        tx, tw = tables
        n = tx.shape[1]
        if w.slot.F % n:
            return None
        m = w.slot.F // n
        if F % m:
            return None
        p = F // m
        k = np.arange(F)
        if not np.array_equal(tw, (np.arange(n)[None, :] * m + (k % m)[:, None])) or not np.array_equal(
                tx, (k // m)[:, None] * n + np.arange(n)[None, :]):
            return None
        return self.loop("linear", LANES, F, [Read(x.slot), Read(w.slot)], shape=(p, n, m), source="matmul")


def of_grid(known: Known) -> bool:
    """Whether a value lies among those of the grid, which are doubles whatever the dtype: read one at a time."""
    return known.slot is not None and known.slot.role is not None and known.slot.role[0] == "steps"

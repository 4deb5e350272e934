"""From a program to loops over a tile of trajectories, where that is possible: everything row-wise.

A value of the program is stored as F features for each of T lanes (trajectories), x[k T + r], or, where it is the same for
all trajectories, as F numbers alone. Each operation becomes one of a few kinds of loops:

    Map       out[k] = expression of a[map(k)], b[map(k)], ...     elementwise operations, slices, transposes, broadcasting
    Gather    out[k] = a[map(k)], or 0 where map(k) < 0             joins, and the vjp of an index
    Linear    out[p, j] = sum_c x[p, c] w[c, j]                     a product with a matrix that all trajectories share
    Contract  out[k] = sum_c a[ta(k, c)] b[tb(k, c)]                any other product of features
    Reduce    out[k] = sum, max or min over c of a[ta(k, c)]        along features
    Outer     out[i, j] = sum_r x[i, r] g[j, r]                     over the lanes: the gradient of a matrix
    Rows      out[k] = sum_r x[k, r]                                over the lanes: the gradient of a bias

Sums run in the order of c (of r), one rounding each, so the bits are those of the loop as it is written, everywhere. What
mixes trajectories, and what has no such form, raises NotFusable, which names the operation.

An array of the parameters or of the grid with axes of the batch (a network for each member of an ensemble, y (S, B, d) and W
(S, d, h); a control for each trajectory) is taken apart: each tile finds its own. A tile then belongs to one member.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.tensor import RULES
from . import sums
from .loops import (
    LANES,
    MEMBER,
    SHARED,
    TILE,
    Known,
    Loop,
    Lowered,
    NotFusable,
    Own,
    Read,
    Slot,
    as_map,
    of_kind,
)
from .program import ADD, SUBTRACT, Program, Role, V, Value, kinds


def lower(program: Program, batch: tuple[int, ...], found: Sequence[str], sums: Mapping[Role, str] | None = None,
          members: int = 0) -> Lowered:
    """The loops of a prepared program.

    batch : the leading axes of the state; found : what each value depends on (kinds); sums, members : as of Lowered, where
    another program of the same solve has them.
    """
    return Lowering(program, batch, found, sums or {}, members).result


def lower_all(programs: Mapping[str, Program], batch: tuple[int, ...], kinds: Callable = kinds) -> dict[str, Lowered]:
    """The loops of the prepared programs of one direction, which agree on what each tile has of its own."""
    sums: dict[Role, str] = {}
    members, again = 0, True
    while again:
        lowered = {name: lower(program, batch, kinds(program), sums, members) for name, program in programs.items()}
        before = dict(sums), members
        for x in lowered.values():
            if any(sums.get(role, kind) != kind for role, kind in x.sums.items()) or (members and members != (x.members or members)):
                raise NotFusable("a parameter that is one for each member in one place, and for each trajectory in another")
            sums |= x.sums
            members = members or x.members
        again = before != (sums, members)
    return lowered


class Lowering:
    """One walk along a program."""

    def __init__(self, program: Program, batch: tuple[int, ...], found: Sequence[str], sums: Mapping[Role, str], members: int) -> None:
        self.program, self.values = program, program.values
        self.batch = batch if int(np.prod(batch)) > 1 else ()       # one trajectory: every axis is a feature
        self.found = self.here(found)
        self.result = Lowered([], {}, {}, program=program, sums=dict(sums), members=members, batch=self.batch)
        self.open: dict[Slot, V] = {}                # sums for parameters of which nothing is known yet
        self.taken: dict[Any, Known] = {}            # what has been taken apart
        self.known: list[Known | None] = []
        for i, x in enumerate(self.values):
            self.known.append(None)
            self.known[i] = self.look(V(i), x)
        for role, v in program.outputs.items():
            self.result.outputs[role] = self.output(role, v).read()
        read = {read.slot for loop in self.result.loops for read in loop.reads} | {
            read.slot for read in self.result.outputs.values()}
        for i, k in enumerate(self.known):
            if k is not None and k.slot in read and self.found[i] in ("step", "param"):
                (self.result.steps if self.found[i] == "step" else self.result.params).append(V(i))

    def look(self, i: V, x: Value) -> Known | None:
        if self.found[i] in ("step", "param"):
            slot = Slot(SHARED, int(np.prod(x.shape)), (self.found[i] + "s", int(i)))
            return Known(SHARED, (), x.shape, slot) if self.leaves(i) else None
        if x.op is None:
            return self.input(i, x)
        name = x.op.name
        if 0 in x.shape:
            leaf = next((y.role[1] for y in self.values if y.role is not None and y.role[0] == "param" and 0 in y.shape), None)
            raise NotFusable(f"np.{name} of shape {x.shape}, which has no entries" + ("" if leaf is None else (
                f", as leaf {leaf} of params: leave it out of the field's sums, or use backend='replay'")))
        form = FORMS.get(name) or (elementwise if x.op.c is not None else None)
        if form is None:
            raise NotFusable(f"np.{name} of shape {x.shape} has no form as a loop over trajectories")
        try:
            return form(self, x)
        except NotFusable as error:
            raise NotFusable(f"np.{name} of shape {x.shape}: {error}") from None

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

    def input(self, i: V, x: Value) -> Known:
        assert x.role is not None
        kind, n, F = x.role[0], len(self.batch), int(np.prod(x.shape))
        known = Known(LANES, tuple(range(n)), x.shape[n:], Slot(LANES, int(np.prod(x.shape[n:])), x.role))
        if kind == "aparam":
            known = Known(TILE if n else LANES, (), x.shape, Slot(TILE if n else LANES, F, x.role))
            if n:
                self.open[known.slot] = i                                                          # type: ignore[index]
                self.result.inputs[x.role] = known.slot                                            # type: ignore[assignment]
                return self.decided(i, known, x.role, self.result.sums.get(x.role))
        elif n and (x.shape[:n] != self.batch or (x.role == ("drive", "dX") and len(x.shape) <= n)):      # channels are no batch
            if kind != "carry" and x.role != ("drive", "dX"):
                raise NotFusable(f"{' '.join(map(str, x.role))} of shape {x.shape} has no axes for the batch {self.batch}")
            known = Known(SHARED, (), x.shape, Slot(SHARED, F, x.role))
        self.result.inputs[x.role] = known.slot                                                    # type: ignore[assignment]
        return known

    def output(self, role: Role, v: Any) -> Known:
        same = not isinstance(v, V) and np.size(v) and np.all(v == np.ravel(v)[0])         # the zeros that pending sums start from
        known = self.of(np.ravel(v)[0] if same else v)
        if known.kind == SHARED and known.slot is not None and role[0] in ("part", "cotangent", "carry"):
            shape = self.shape_of(v)
            if self.over_batch(shape):
                return self.lanes(self.without(v, known, shape, range(len(self.batch)), self.batch))
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
            return self.lanes(Known(SHARED, (), one.shape, Slot(SHARED, one.size, ("constant", one.tobytes(), one.size))))
        return Known(SHARED, (), a.shape, Slot(SHARED, a.size, ("constant", a.tobytes(), a.size)))

    def dtype_of(self, a: Any) -> np.dtype:
        return self.values[a].dtype if isinstance(a, V) else np.asarray(a).dtype

    def shape_of(self, a: Any) -> tuple[int, ...]:
        return self.values[a].shape if isinstance(a, V) else np.shape(a)

    # loops

    def loop(self, kind: str, to: str, F: int, reads: list[Read], **more: Any) -> Slot:
        out = Slot(TILE if to == MEMBER else to, F)
        self.result.loops.append(Loop(kind, out, reads, **more))
        return out

    def lanes(self, known: Known) -> Known:
        """A value without axes of the batch, given to each trajectory."""
        if known.kind != LANES:
            slot = self.loop("map", LANES, known.F, [known.read()], text="{0}")
            known = Known(LANES, (), known.features, slot)
        return replace(known, rows=tuple(range(len(self.batch))))

    def plain(self, known: Known) -> Slot:
        """The slot of a value, with its features in their own order."""
        if known.slot is not None and known.map is None:
            return known.slot
        return self.loop("map", known.kind, known.F, [known.read()], text="{0}")

    def kind_of(self, known: Sequence[Known]) -> str:
        kinds = {k.kind for k in known}
        if LANES in kinds and kinds & {TILE, MEMBER}:
            raise NotFusable("a sum over the trajectories that goes back into each of them")
        if kinds >= {TILE, MEMBER}:
            raise NotFusable("a sum over all trajectories that goes back into the members of an ensemble")
        return next((kind for kind in (LANES, TILE, MEMBER) if kind in kinds), SHARED)

    # values with axes of the batch that are not the state

    def without(self, a: Any, known: Known, shape: tuple[int, ...], axes: Sequence[int | None], lengths: Sequence[int]) -> Known:
        """A shared value without the axes of the batch: it is the same along them, or each tile has its own.

        a, known, shape : the value, and its shape as it is read; axes : where the axes of the batch are in it, None for one
        that it has not; lengths : theirs.
        """
        if known.slot is None:
            return known
        there = [axis for axis in axes if axis is not None]
        moved = np.moveaxis(known.index.reshape(shape), there, range(len(there)))
        content = np.frombuffer(known.slot.role[1])[moved] if of_kind(known, "constant") else moved          # type: ignore[index]
        one = moved[(0,) * len(there)]
        if np.array_equal(content, np.broadcast_to(content[(0,) * len(there)], content.shape), equal_nan=True):
            return Known(known.kind, (), one.shape, known.slot, one.reshape(-1))
        gap = tuple(slice(None) if axis is not None else None for axis in axes)
        index = np.broadcast_to(moved[gap], (*lengths, *one.shape))
        if of_kind(known, "params", "steps"):
            return self.taken_apart(known, index, len(lengths))
        if isinstance(a, V) and known.slot.role is None and self.values[a].op is not None and FORMS.get(
                self.values[a].op.name) is None:                                                   # type: ignore[union-attr]
            return self.again(a, shape, axes, lengths)
        if of_kind(known, "carry"):
            raise NotFusable("a value of parameters and the time that one step leaves for the next, of which every trajectory has "
                             "its own; use backend='replay', or solve for the members of the ensemble one by one")
        raise NotFusable("an array that is not the state, with a value of its own for every trajectory; put it into y0")

    def taken_apart(self, known: Known, index: np.ndarray, rows: int) -> Known:
        """Of a value of the parameters or of the grid, what each tile reads: entry index[row, ..., feature, ...]."""
        features, depth, whole = index.shape[rows:], rows, int(np.prod(index.shape[:rows])) == int(np.prod(self.batch))
        while depth and np.all(index == index.take([0], depth - 1)):
            index, depth = index.take([0], depth - 1), depth - 1
        kind = LANES if depth == rows and whole else SHARED
        if kind == SHARED:
            self.of_members(depth)
        assert known.slot is not None and known.slot.role is not None
        where, v = known.slot.role
        index = index.reshape(-1, int(np.prod(features)))
        key = kind, v, index.tobytes()
        if key not in self.taken:
            self.result.own.append(Own(kind, V(v), index, where == "steps"))
            slot = Slot(kind, index.shape[1], (f"own {where}", len(self.result.own) - 1))
            self.taken[key] = Known(kind, (), features, slot)
        return replace(self.taken[key], features=features)

    def again(self, a: V, shape: tuple[int, ...], axes: Sequence[int | None], lengths: Sequence[int]) -> Known:
        """An elementwise operation on such values: done anew, by each tile for its own."""
        x = self.values[a]
        key = a, tuple(axes), tuple(lengths)
        if key not in self.taken:
            more = len(shape) - len(x.shape)         # axes of length one that have come in front
            features = tuple(n for axis, n in enumerate(shape) if axis not in axes)
            reads, found = [], []
            for b in x.args:
                own = self.shape_of(b)
                aligned = (1,) * (more + len(x.shape) - len(own)) + own
                found.append(self.without(b, self.of(b), aligned, axes, lengths))
                reads.append(broadcast(found[-1], tuple(n for axis, n in enumerate(aligned) if axis not in axes), features))
            kind = self.kind_of(found)
            assert x.op is not None and x.op.c is not None
            slot = self.loop("map", kind, int(np.prod(features)), reads, text=x.op.c, op=x.op, source=x.op.name)
            self.taken[key] = Known(kind, (), features, slot)
        return self.taken[key]

    def of_members(self, depth: int) -> None:
        """The first axes of the batch number the members of an ensemble."""
        if self.result.members not in (0, depth):
            raise NotFusable(f"a value for each of {self.batch[:depth]} members, and another one for each of "
                             f"{self.batch[:self.result.members]}")
        self.result.members = depth

    def decided(self, i: V, known: Known, role: Role, kind: str | None, term: Known | None = None) -> Known:
        """The running sum for a parameter, once it is known to be one for each trajectory, or for each member."""
        if kind is None:
            return known
        depth = len(self.batch) if kind == LANES else self.result.members
        if term is not None and term.rows != tuple(range(depth)):
            raise NotFusable("a parameter whose axes for the trajectories are not its first ones")
        assert known.slot is not None
        features = self.values[i].shape[depth:]
        known.slot.kind, known.slot.F = (LANES if kind == LANES else TILE), int(np.prod(features))
        self.open.pop(known.slot)
        self.result.sums[role] = kind
        return Known(kind, tuple(range(depth)), features, known.slot)

    def decide(self, x: Value, known: list[Known]) -> None:
        """The arguments of an operation: a term shows what the sum that it is added to is for."""
        for j, a in enumerate(x.args):
            i, term = self.open.get(known[j].slot), known[-1 - j]                                  # type: ignore[arg-type]
            if i is None:
                continue
            if len(known) == 2 and x.op in (ADD, SUBTRACT) and term.rows:
                known[j] = self.known[a] = self.decided(i, known[j], self.values[i].role, term.kind, term)   # type: ignore[arg-type]
            self.open.pop(known[j].slot, None)                                                     # type: ignore[arg-type]

    # structure: the same operation on the numbers of the features, and of the rows, tells where everything goes

    def numbers(self, known: Known, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """For every entry of a value its feature and its trajectory."""
        feature = known.index.reshape(tuple(1 if a in known.rows else n for a, n in enumerate(shape)))
        count = np.arange(self.count(known)) if known.rows else np.zeros(1, int)
        row = count.reshape(tuple(n if a in known.rows else 1 for a, n in enumerate(shape)))
        return np.broadcast_to(feature, shape), np.broadcast_to(row, shape)

    def count(self, known: Known) -> int:
        """How many rows there are."""
        return int(np.prod(self.batch[:self.result.members] if known.kind == MEMBER else self.batch))

    def placed(self, known: Known, feature: np.ndarray, row: np.ndarray) -> Known:
        """The value whose entries are these features of these trajectories."""
        rows: tuple[int, ...] = ()
        row = once(row, range(row.ndim))
        if known.rows:
            rows = tuple(a for a in range(row.ndim) if row.shape[a] > 1 and np.any(np.diff(row, axis=a)))
            order = tuple(n for a, n in enumerate(row.shape) if a in rows)
            wanted = np.arange(self.count(known))
            flat = np.moveaxis(row, rows, range(len(rows))).reshape(*order, -1)
            if int(np.prod(order)) != wanted.size or not np.array_equal(flat.reshape(wanted.size, -1), np.broadcast_to(
                    wanted[:, None], (wanted.size, flat.shape[-1]))):
                raise NotFusable("it mixes trajectories, or leaves some of them out")
        feature = once(feature, rows)
        moved = np.moveaxis(feature, rows, range(len(rows))).reshape(-1, *(
            n for a, n in enumerate(feature.shape) if a not in rows))
        if rows and np.any(moved != moved[:1]):
            raise NotFusable("it does not do the same to every trajectory")
        index = moved[0].reshape(-1) if rows else feature.reshape(-1)
        features = tuple(n for a, n in enumerate(feature.shape) if a not in rows)
        assert known.slot is not None
        return Known(known.kind, rows, features, known.slot, as_map(known.slot, index))


def once(x: np.ndarray, axes: Collection[int]) -> np.ndarray:
    """The first entries along those of these axes along which an array has been stretched: all others are like them."""
    return x[tuple(slice(0, 1) if a in axes and step == 0 else slice(None) for a, step in enumerate(x.strides))]


# Forms: an operation as a loop

def elementwise(w: Lowering, x: Value) -> Known:
    known = [w.of(a) for a in x.args]
    w.decide(x, known)
    shapes = [w.shape_of(a) for a in x.args]
    kind = w.kind_of(known)
    rows: tuple[int, ...] = ()
    for k, shape in zip(known, shapes, strict=True):
        at = tuple(r + len(x.shape) - len(shape) for r in k.rows)
        if at and rows and at != rows:
            raise NotFusable("trajectories along different axes of its arguments")
        rows = at or rows
    features = tuple(n for a, n in enumerate(x.shape) if a not in rows)
    reads = []
    for a, k, shape in zip(x.args, known, shapes, strict=True):
        aligned = (1,) * (len(x.shape) - len(shape)) + shape
        if not k.rows and any(aligned[r] != 1 for r in rows):
            k = w.without(a, k, aligned, rows, [x.shape[r] for r in rows])
        reads.append(broadcast(k, tuple(n for a, n in enumerate(aligned) if a not in rows), features))
    op = x.op
    assert op is not None and op.c is not None
    slot = w.loop("map", kind, int(np.prod(features)), reads, text=op.c, op=op, source=op.name)
    return Known(kind, rows, features, slot)


def broadcast(known: Known, own: tuple[int, ...], features: tuple[int, ...]) -> Read:
    """Read a value of these features as if it had those."""
    if known.slot is None or (known.map is None and own == features):
        return known.read()
    return Read(known.slot, as_map(known.slot, np.broadcast_to(known.index.reshape(own), features).reshape(-1)))


def astype(w: Lowering, x: Value) -> Known:
    if {x.dtype.kind, w.dtype_of(x.args[0]).kind} == {"f"}:
        raise NotFusable(f"from {w.dtype_of(x.args[0])} to {x.dtype}; loops compute in one precision throughout")
    return elementwise(w, x)


def structural(w: Lowering, x: Value) -> Known:
    known = w.of(x.args[0])
    feature, row = w.numbers(known, w.shape_of(x.args[0]))
    op = x.op
    assert op is not None
    made = w.placed(known, op.forward(feature, **x.options), op.forward(row, **x.options))
    if op.name == "broadcast_to" and made.kind == SHARED and w.over_batch(x.shape):
        return w.lanes(w.without(None, made, x.shape, range(len(w.batch)), w.batch))
    return made


def concatenate(w: Lowering, x: Value) -> Known:
    known = [w.of(a) for a in x.args]
    axis = x.options.get("axis", 0) % len(x.shape)
    kind = w.kind_of(known)
    rows = next((k.rows for k in known if k.rows), ())
    if axis in rows or any(k.rows and k.rows != rows for k in known):
        raise NotFusable("it joins trajectories")
    known = [k if k.rows or not rows else w.without(a, k, w.shape_of(a), rows, [x.shape[r] for r in rows])
             for k, a in zip(known, x.args, strict=True)]
    features = tuple(n for a, n in enumerate(x.shape) if a not in rows)
    F = int(np.prod(features))
    before = 0
    number = np.arange(F).reshape(features)
    at = axis - sum(r < axis for r in rows)
    # out[k] reads part j where k is one of its features: index -1 elsewhere
    reads = []
    for k, a in zip(known, x.args, strict=True):
        n = w.shape_of(a)[axis]
        index = np.full(F, -1)
        index[np.take(number, range(before, before + n), axis=at).reshape(-1)] = k.index
        reads.append(Read(k.slot, index, k.number))
        before += n
    return Known(kind, rows, features, w.loop("gather", kind, F, reads, source="concatenate"))


def scattered(w: Lowering, known: Known, shape: tuple[int, ...], index: Any, depth: int) -> tuple[Known, Known]:
    """What an index was taken of, with its trajectories along those axes that the index takes to where they are; and its entries."""
    for first in range(len(shape) - depth + 1) if depth else (0,):
        if shape[first:first + depth] != w.batch[:depth]:
            continue
        whole = Known(known.kind, tuple(range(first, first + depth)), (*shape[:first], *shape[first + depth:]), Slot(known.kind, 0))
        feature, row = w.numbers(whole, shape)
        try:
            target = w.placed(replace(whole, slot=Slot(known.kind, -1)), feature[index], row[index])
        except NotFusable:
            continue
        if target.rows == known.rows:
            return whole, target
    raise NotFusable("trajectories along different axes")


def scatter(w: Lowering, x: Value) -> Known:
    """The vjp of an index: zeros, with entries added where they came from."""
    known, shape, index = w.of(x.args[0]), x.options["shape"], x.options["index"]
    depth = (w.result.members if known.kind == MEMBER else len(w.batch)) if known.rows else 0
    whole, target = scattered(w, known, shape, index, depth)
    sources: list[list[int]] = [[] for _ in range(whole.F)]
    for k, f in zip(known.index, target.index, strict=True):
        sources[f].append(int(k))
    width = max(1, *map(len, sources))
    table = np.full((whole.F, width), -1)
    for f, found in enumerate(sources):
        table[f, :len(found)] = found
    slot = w.loop("gather", known.kind, whole.F, [Read(known.slot, table[:, 0], known.number)], source="scatter_add") \
        if width == 1 else w.loop("reduce", known.kind, whole.F, [Read(known.slot)], op=RULES[np.sum], tables=(table,),
                                  source="scatter_add")
    return Known(known.kind, whole.rows, whole.features, slot)


FORMS: dict[str, Callable[[Lowering, Value], Known]] = {
    **dict.fromkeys(("reshape", "transpose", "broadcast_to", "flip", "getitem"), structural),
    "concatenate": concatenate, "scatter_add": scatter, "astype": astype,
    **sums.FORMS}

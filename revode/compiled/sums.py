"""Sums and products as loops: along features, and over the trajectories.

A product is an einsum of two factors. out = sum over the letters that are not in it of a b; the letters of trajectories are
in both factors or in one, in out or summed over. PRODUCTS are its forms; the first that fits is taken.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.tensor import RULES
from .loops import LANES, MEMBER, SHARED, TILE, Known, NotFusable, Read, as_map, of_kind
from .program import Value

if TYPE_CHECKING:
    from .lower import Lowering

LONGEST = 64                 # features that a running sum may go over


def reduce(w: Lowering, x: Value) -> Known:
    """Sum, max or min along axes."""
    op, a = x.op, x.args[0]
    assert op is not None
    known, shape = w.of(a), w.shape_of(a)
    axes, keep = axes_of(x.options.get("axis"), len(shape)), x.options.get("keepdims", False)
    over_rows = [r for r in known.rows if r in axes]
    if over_rows and op.name == "max" and x.shape == ():
        return largest(w, known)
    to = over(w, known, over_rows, op.name == "sum") if over_rows else known.kind
    made = along_features(w, known, op, [i for i in range(len(shape)) if i not in known.rows], axes)
    rows, features = remaining(known, shape, axes, keep)
    if over_rows and known.kind == LANES:
        return Known(to, rows, features, w.loop("rows", to, made.F, [Read(w.plain(made))], source="sum"))
    return Known(to, rows, features, made.slot, made.map)            # sums for the members are added up with those of the tiles


def remaining(known: Known, shape: tuple[int, ...], axes: tuple[int, ...], keep: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The rows and the features of a value that has been reduced along these axes."""
    kept = [r for r in known.rows if r not in axes]
    features = tuple(1 if i in axes else n for i, n in enumerate(shape) if i not in kept and (i not in axes or keep))
    return tuple(r - (0 if keep else sum(i < r for i in axes)) for r in kept), features


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(i % ndim for i in (axis if isinstance(axis, (tuple, list)) else (axis,)))


def over(w: Lowering, known: Known, over_rows: list[int], adds: bool) -> str:
    """What a sum over these rows is: one of the tile, or one of each member."""
    kept = len(known.rows) - len(over_rows)
    if adds and not kept:
        return TILE
    if adds and known.kind == LANES and len(known.rows) == len(w.batch) and over_rows == list(known.rows[kept:]):
        w.of_members(kept)
        return MEMBER
    raise NotFusable("a sum over some axes of the batch")


def along_features(w: Lowering, known: Known, op: Any, feature_axes: list[int], axes: tuple[int, ...]) -> Known:
    """The sum, max or min along those of the axes that are features; the features that remain."""
    summed = [k for k, i in enumerate(feature_axes) if i in axes]
    if not summed:
        return replace(known, rows=())
    if known.slot is None:
        raise NotFusable("the sum of a number")
    rest = [k for k in range(len(feature_axes)) if k not in summed]
    features = tuple(known.features[k] for k in rest)
    table = np.transpose(known.index.reshape(known.features), rest + summed).reshape(int(np.prod(features)), -1)
    if table.shape[1] == 1:                          # nothing to add
        return Known(known.kind, (), features, known.slot, as_map(known.slot, table[:, 0]))
    slot = w.loop("reduce", known.kind, len(table), [Read(known.slot)], op=op, tables=(table,), source=op.name)
    return Known(known.kind, (), features, slot)


def largest(w: Lowering, known: Known) -> Known:
    """The largest entry of all: of the features first, then of the lanes."""
    slot = w.loop("reduce", LANES, 1, [Read(known.slot)], op=RULES[np.max], tables=(known.index.reshape(1, -1),), source="max")
    return Known(TILE, (), (), w.loop("rows", TILE, 1, [Read(slot)], op=RULES[np.max], source="max"))


def cumsum(w: Lowering, x: Value) -> Known:
    known, axis = w.of(x.args[0]), x.options["axis"] % len(x.shape)
    if axis in known.rows:
        raise NotFusable("along the batch")
    at = axis - sum(r < axis for r in known.rows)
    n = known.features[at]
    if n > LONGEST:
        raise NotFusable(f"over more than {LONGEST} features")
    moved = np.moveaxis(known.index.reshape(known.features), at, -1)
    table = np.where(np.arange(n)[None, :] <= np.arange(n)[:, None], moved[..., None, :], -1)     # (..., n, n)
    table = np.moveaxis(table, -2, at).reshape(known.F, n)
    slot = w.loop("reduce", known.kind, known.F, [Read(known.slot)], op=RULES[np.sum], tables=(table,), source="cumsum")
    return Known(known.kind, known.rows, known.features, slot)


# products

def matmul(w: Lowering, x: Value) -> Known:
    """As an einsum: a letter for each axis."""
    shapes = [w.shape_of(a) for a in x.args]
    a, b = (len(s) for s in shapes)
    batch = "ABCDEFGH"[:max(a, b, 2) - 2]
    left = (batch[len(batch) - (a - 2):] if a > 2 else "") + ("ic" if a > 1 else "c")
    right = (batch[len(batch) - (b - 2):] if b > 2 else "") + ("cj" if b > 1 else "c")
    out = batch + ("i" if a > 1 else "") + ("j" if b > 1 else "")
    for s, t in ((shapes[0], left), (shapes[1], right)):
        if any(n == 1 and letter in batch and x.shape[out.index(letter)] != 1 for n, letter in zip(s, t, strict=True)):
            raise NotFusable("a batch of matrices that is stretched")
    return product(w, x, [left, right], out)


def einsum(w: Lowering, x: Value) -> Known:
    inputs, output = x.options["inputs"], x.options["output"]
    if len(x.args) > 2:
        raise NotFusable("a product of more than two arrays; multiply two at a time")
    return single(w, x, inputs[0], output) if len(x.args) == 1 else product(w, x, list(inputs), output)


def single(w: Lowering, x: Value, letters: str, out: str) -> Known:
    """An einsum of one array: a transpose, and sums."""
    known = w.of(x.args[0])
    feature, row = w.numbers(known, w.shape_of(x.args[0]))
    once = "".join(dict.fromkeys(letters))                        # a letter that stands twice: the diagonal
    summed = [c for c in once if c not in out]
    if any(letters.index(c) in known.rows for c in summed):
        raise NotFusable("a sum over the trajectories")
    feature, row = (np.einsum(f"{letters}->{once}", numbers) for numbers in (feature, row))
    order = [once.index(c) for c in out + "".join(summed)]
    placed = w.placed(known, np.transpose(feature, order), np.transpose(row, order))
    n = len(placed.features) - len(summed)
    index = placed.index.reshape(int(np.prod(placed.features[:n])), -1)
    slot = w.loop("reduce", known.kind, len(index), [Read(known.slot)], op=RULES[np.sum], tables=(index,), source="einsum")
    return Known(known.kind, placed.rows, placed.features[:n], slot)


@dataclass
class Product:
    """Two factors, and which of their features meet: out[k] = sum over c of a[tables[0][k, c]] b[tables[1][k, c]]."""
    known: list[Known]
    letters: list[str]               # of the axes of each factor that are features
    free: list[str]                  # the letters of the features of the result
    summed: list[str]
    sizes: dict[str, int]
    kind: str                        # of the result
    over_rows: bool                  # whether it is summed over trajectories

    @cached_property
    def tables(self) -> list[np.ndarray]:
        """For each factor (F, C): where its feature is in term c of out[k]."""
        letters, tables = self.free + self.summed, []
        grid = np.indices([self.sizes[c] for c in letters]) if letters else np.zeros((0,), int)
        place = {c: grid[n] for n, c in enumerate(letters)}
        for k, s in zip(self.known, self.letters, strict=True):
            index = np.zeros([self.sizes[c] for c in letters], int)
            for c in s:
                index = index * self.sizes[c] + place[c]
            index = index if k.map is None else k.map[index]
            tables.append(index.reshape(self.F, -1))
        return tables

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(self.sizes[c] for c in self.free)

    @property
    def F(self) -> int:
        return int(np.prod(self.features))

    @property
    def reads(self) -> list[Read]:
        return [Read(k.slot) for k in self.known]


def product(w: Lowering, x: Value, letters: list[str], out: str) -> Known:
    """The product of two arrays."""
    known = [w.of(a) for a in x.args]
    sizes = {c: n for a, s in zip(x.args, letters, strict=True) for c, n in zip(s, w.shape_of(a), strict=True)}
    rows = rows_of(known, letters)
    gone = [c for c in rows if c not in out]
    kind = kind_of(w, known, letters, rows, gone)
    for n in (0, 1):
        known[n], letters[n] = aligned(w, x.args[n], known[n], letters[n], rows, bool(gone), sizes)
    if any(k.slot is None for k in known):
        raise NotFusable("a product with a number")
    own = ["".join(c for c in s if c not in rows) for s in letters]
    free = [c for c in out if c not in rows]
    summed = [c for c in dict.fromkeys("".join(own)) if c not in out]
    p = Product(known, own, free, summed, sizes, kind, bool(gone))
    slot = next(slot for form in PRODUCTS if (slot := form(w, p)) is not None)
    return Known(kind, tuple(out.index(c) for c in rows if c in out), p.features, slot)


def kind_of(w: Lowering, known: list[Known], letters: list[str], rows: str, gone: list[str]) -> str:
    """What a product is, where the letters `gone` of its rows are summed over."""
    kind = w.kind_of(known)
    if known[0].kind == known[1].kind and kind in (TILE, MEMBER):
        raise NotFusable("a product of two sums over the trajectories")
    if not gone:
        return kind
    if kind != LANES:
        raise NotFusable("a sum over some axes of the batch")
    n = 0 if known[0].rows else 1
    return over(w, known[n], [letters[n].index(c) for c in gone], True)


def rows_of(known: list[Known], letters: list[str]) -> str:
    """The letters of the axes that run over trajectories."""
    a, b = ("".join(s[r] for r in k.rows) for k, s in zip(known, letters, strict=True))
    if a and b and a != b:
        raise NotFusable("trajectories along different axes of its arguments")
    return a or b


def aligned(w: Lowering, a: Any, known: Known, letters: str, rows: str, over_rows: bool,
            sizes: dict[str, int]) -> tuple[Known, str]:
    """A factor without rows of its own, beside one that has some."""
    if not known.rows and any(c in rows for c in letters):
        if over_rows and not of_kind(known, "constant", "params", "steps"):
            raise NotFusable("a sum over the trajectories with something that is not theirs")
        axes = [letters.index(c) if c in letters else None for c in rows]
        known = w.without(a, known, w.shape_of(a), axes, [sizes[c] for c in rows])
        if over_rows:                                # each trajectory's term of a sum over them
            slot = w.loop("map", LANES, known.F, [known.read()], text="{0}")
            return Known(LANES, tuple(range(len(w.batch))), known.features, slot), letters
        return known, "".join(c for c in letters if c not in rows)
    if over_rows and not known.rows:
        raise NotFusable("a sum over the trajectories with something that is not theirs")
    return known, letters


def outer(w: Lowering, p: Product) -> Any:
    """sum over the lanes of x[i] g[j]."""
    if not p.over_rows or p.summed or len(p.free) != 2 or any(k.map is not None for k in p.known):
        return None
    a, b = p.known if [*p.letters[0]] == p.free[:1] else p.known[::-1]
    if p.features != (a.F, b.F):
        return None
    return w.loop("outer", p.kind, p.F, [Read(a.slot), Read(b.slot)], shape=p.features, source="matmul")


def outer_of_one(w: Lowering, p: Product) -> Any:
    """x[i] g[j] of a single trajectory."""
    a, b = p.known
    k = np.arange(p.F)
    if p.over_rows or w.batch or p.tables[0].shape[1] != 1 or a.F * b.F != p.F or any(
            of_kind(x, "steps") or x.map is not None for x in p.known) or not (
            np.array_equal(p.tables[0][:, 0], k // b.F) and np.array_equal(p.tables[1][:, 0], k % b.F)):
        return None
    return w.loop("outer", LANES, p.F, [Read(a.slot), Read(b.slot)], shape=(a.F, b.F), source="matmul")


def linear(w: Lowering, p: Product) -> Any:
    """x[p, c] w[c, j] with a shared w, if that is what the letters say, or (of wide matrices they are long) the tables."""
    a, b = p.known
    if p.over_rows or a.kind != LANES or b.kind != SHARED or of_kind(b, "steps", "own steps"):
        return None
    n, whole = int(np.prod([p.sizes[c] for c in p.summed])), b.slot.F                              # type: ignore[union-attr]
    m = whole // n
    if whole % n or p.F % m:
        return None
    left, right = p.letters
    said = a.map is b.map is None and [*left[-1:]] == p.summed == [*right[:-1]] and p.free == [*left[:-1], *right[-1:]]
    k, c = np.arange(p.F)[:, None], np.arange(n)[None, :]
    if not said and not (np.array_equal(p.tables[1], c * m + k % m) and np.array_equal(p.tables[0], k // m * n + c)):
        return None
    return w.loop("linear", LANES, p.F, p.reads, shape=(p.F // m, n, m), source="matmul")


def contract(w: Lowering, p: Product) -> Any:
    """Any product of features; over the lanes: each trajectory's own first."""
    kind = LANES if p.over_rows else p.kind
    slot = w.loop("contract", kind, p.F, p.reads, tables=tuple(p.tables), source="matmul")
    return w.loop("rows", p.kind, p.F, [Read(slot)], source="sum") if p.over_rows else slot


PRODUCTS: tuple[Callable[[Lowering, Product], Any], ...] = (outer, outer_of_one, linear, contract)
FORMS: dict[str, Callable[[Lowering, Value], Known]] = {
    "matmul": matmul, "dot": matmul, "einsum": einsum, "sum": reduce, "max": reduce, "min": reduce, "cumsum": cumsum}

"""The same results with fewer operations: rewrites, in a table.

    simplify(program)       exact, to the last bit: dead code, common subexpressions, and the rules of REWRITES
    prepared(program)       for loops: powers as products, products of many factors by two, sums for a parameter as a chain

A rule is called with the program that is being written, an operation, and its arguments there. It gives the value that takes
the operation's place, or None where it does not apply; the first that applies is taken:

    x                for     -(-x),  reshape and the like that change nothing
    b - a            for     -(a - b)
    x (-s)           for     -(x s),  (-x) s              s one number, the same for all trajectories
    a - b            for     a + (-b),  (-b) + a;         a + b  for  a - (-b)
    -(x y)           for     (-x) y
    x (a b)          for     (x a) b                      a or b a power of two, or in fast arithmetic any number of a step

The last rule rounds once less or more with numbers that are no powers of two: each such product is off by at most one unit in
the last place from what it was.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.tensor import RULES, Op
from .program import ADD, MULTIPLY, NEGATIVE, SUBTRACT, Program, V, Value, ancestors, frozen, trace

DIVIDE, SQRT, ENTRY = RULES[np.divide], RULES[np.sqrt], RULES[np.ndarray.__getitem__]


def simplify(program: Program, merge: bool = False) -> Program:
    """Rewritten by the rules, until nothing changes any more. merge: fast arithmetic."""
    for _ in range(4):
        before = len(program.values)
        program = without_dead(Rewriting(merge).run(program))
        if len(program.values) == before:
            break
    return program


class Rewriting:
    """A program while it is written anew. values: what there is so far; equal ones are there once."""

    def __init__(self, merge: bool = False) -> None:
        self.merge = merge
        self.values: list[Value] = []
        self.seen: dict[Any, V] = {}
        self.small: list[bool] = []              # by value: is it one number, the same for all trajectories?

    def run(self, program: Program) -> Program:
        new: list[Any] = []                      # old number -> new value
        for x in program.values:
            if x.op is None:
                self.values.append(x)
                self.small.append(x.role is not None and x.role[0] == "step" and x.shape == ())
                new.append(V(len(self.values) - 1))
            else:
                new.append(self.build(x, x.op, tuple(new[a] if isinstance(a, V) else a for a in x.args)))
        return replace(program, values=self.values, outputs={
            role: new[v] if isinstance(v, V) else v for role, v in program.outputs.items()})

    def build(self, x: Value, op: Op, args: tuple) -> Any:
        """x's result, as an operation on these arguments, after the rules that apply to it."""
        x = x if x.op is op else x._replace(op=op)
        for rule in REWRITES.get(op.name, ()):
            found = rule(self, x, args)
            if found is not None:
                return found
        return self.emit(op, args, x.options, x.shape, x.dtype)

    def emit(self, op: Op, args: tuple, options: dict, shape: tuple, dtype: Any) -> V:
        if op in (ADD, MULTIPLY) and isinstance(args[1], V) and (not isinstance(args[0], V) or args[0] > args[1]):
            args = args[::-1]                                # a + b = b + a: one order for both
        key = (op.name, id(op.forward), tuple(a if isinstance(a, V) else ("constant", frozen(a)) for a in args),
               frozen(options))
        if key not in self.seen:
            self.values.append(Value(op, args, options, shape, dtype))
            self.small.append(shape == () and all(self.small[a] for a in args if isinstance(a, V)))
            self.seen[key] = V(len(self.values) - 1)
        return self.seen[key]

    # what rules ask

    def made_by(self, name: str, a: Any) -> Value | None:
        """The operation of this name that a is the result of."""
        x = self.values[a] if isinstance(a, V) else None
        return x if x is not None and x.op is not None and x.op.name == name else None

    def is_number(self, a: Any) -> bool:
        """Whether a is one number that may be negated and multiplied: no bool."""
        if isinstance(a, V):
            return self.small[a] and self.values[a].dtype.kind == "f"
        return np.ndim(a) == 0 and np.asarray(a).dtype.kind != "b"

    def negated(self, s: Any) -> Any:
        if not isinstance(s, V):
            return -s
        inner = self.made_by("negative", s)
        return inner.args[0] if inner is not None else self.emit(NEGATIVE, (s,), {}, (), self.values[s].dtype)

    def times(self, a: Any, b: Any, dtype: Any) -> Any:
        if not isinstance(a, V) and not isinstance(b, V):
            return dtype.type(a) * dtype.type(b)
        return self.emit(MULTIPLY, (a, b), {}, (), dtype)


# The rules

def unchanged(w: Rewriting, x: Value, args: tuple) -> Any:
    same = isinstance(args[0], V) and w.values[args[0]].shape == x.shape and w.values[args[0]].dtype == x.dtype
    return args[0] if same else None


def minus_minus(w: Rewriting, x: Value, args: tuple) -> Any:
    inner = w.made_by("negative", args[0])
    return inner.args[0] if inner is not None else None


def minus_difference(w: Rewriting, x: Value, args: tuple) -> Any:
    inner = w.made_by("subtract", args[0])
    return w.build(x, SUBTRACT, inner.args[::-1]) if inner is not None else None


def minus_product(w: Rewriting, x: Value, args: tuple) -> Any:
    inner = w.made_by("multiply", args[0])
    for i in (0, 1) if inner is not None and x.shape else ():
        if w.is_number(inner.args[i]):                                                             # type: ignore[union-attr]
            return w.build(x, MULTIPLY, exchanged(inner.args, i, w.negated(inner.args[i])))        # type: ignore[union-attr]
    return None


def plus_minus(w: Rewriting, x: Value, args: tuple) -> Any:
    """a + (-b), a - (-b)."""
    inner = negative_like(w, x, args[1])
    return None if inner is None else w.build(x, ADD if x.op is SUBTRACT else SUBTRACT, (args[0], inner))


def minus_plus(w: Rewriting, x: Value, args: tuple) -> Any:
    """(-b) + a."""
    inner = negative_like(w, x, args[0])
    return None if inner is None else w.build(x, SUBTRACT, (args[1], inner))


def product(w: Rewriting, x: Value, args: tuple) -> Any:
    for i in (0, 1) if x.shape else ():
        for rule in (sign_of_factor, factors_of_factor):
            found = rule(w, x, args, i)
            if found is not None:
                return found
    return None


def sign_of_factor(w: Rewriting, x: Value, args: tuple, i: int) -> Any:
    """(-x) s as x (-s), (-x) y as -(x y)."""
    inner = w.made_by("negative", args[i])
    if inner is None or w.small[args[i]]:
        return None
    positive = exchanged(args, i, inner.args[0])
    if w.is_number(args[1 - i]):
        return w.build(x, MULTIPLY, exchanged(positive, 1 - i, w.negated(args[1 - i])))
    return w.build(x, NEGATIVE, (w.build(x, MULTIPLY, positive),))


def factors_of_factor(w: Rewriting, x: Value, args: tuple, i: int) -> Any:
    """(x a) b as x (a b)."""
    inner, outer = w.made_by("multiply", args[i]), args[1 - i]
    if inner is None or inner.shape != x.shape or not w.is_number(outer) or w.small[args[i]]:
        return None
    for s, rest in (inner.args, inner.args[::-1]):
        if w.is_number(s) and (w.merge or power_of_two(s) or power_of_two(outer)):
            return w.build(x, MULTIPLY, (rest, w.times(s, outer, x.dtype)))
    return None


def exchanged(args: tuple, i: int, a: Any) -> tuple:
    """Arguments with a in the place of number i."""
    return (*args[:i], a, *args[i + 1:])


def negative_like(w: Rewriting, x: Value, a: Any) -> Any:
    """b, where a is -b of x's dtype."""
    inner = w.made_by("negative", a)
    if inner is None or (isinstance(inner.args[0], V) and w.values[inner.args[0]].dtype != x.dtype):
        return None
    return inner.args[0]


def power_of_two(s: Any) -> bool:
    return not isinstance(s, V) and bool(np.frexp(abs(float(s)))[0] == 0.5)


REWRITES: dict[str, tuple[Callable, ...]] = {
    "reshape": (unchanged,), "broadcast_to": (unchanged,), "astype": (unchanged,),
    "negative": (minus_minus, minus_difference, minus_product),
    "add": (plus_minus, minus_plus),
    "subtract": (plus_minus,),
    "multiply": (product,),
}


def without_dead(program: Program) -> Program:
    """Only what the outputs need; inputs that nobody reads are dropped as well."""
    number = {i: V(k) for k, i in enumerate(ancestors(program, (v for v in program.outputs.values() if isinstance(v, V))))}

    def renumbered(a: Any) -> Any:
        return number[a] if isinstance(a, V) else a

    values = [x._replace(args=tuple(map(renumbered, x.args))) for x in (program.values[i] for i in number)]
    return replace(program, values=values, outputs={role: renumbered(v) for role, v in program.outputs.items()})


# For loops

def prepared(program: Program) -> Program:
    """Powers written as products, products of many factors by two, and the sums for the parameters as one chain."""
    values: list[Value] = []
    new: list[Any] = []

    def emit(x: Value) -> V:
        values.append(x)
        return V(len(values) - 1)

    for x in program.values:
        new.append(placed(x, tuple(new[a] if isinstance(a, V) else a for a in x.args), emit, values))
    made = Program(values, {role: new[v] if isinstance(v, V) else v for role, v in program.outputs.items()})
    return simplify(chained(made))


def placed(x: Value, args: tuple, emit: Callable, values: list[Value]) -> Any:
    """The value on these arguments, in the form that loops have."""
    rewrite = None if x.op is None else written_out if hasattr(x.op.forward, "composed") else FOR_LOOPS.get(x.op.name)
    found = None if rewrite is None else rewrite(x, args, emit, values)
    return emit(x._replace(args=args)) if found is None else found


def written_out(x: Value, args: tuple, emit: Callable, values: list[Value]) -> Any:
    """A function of NumPy's that the engine knows as a composition (engine/functions.py), as its parts."""
    assert x.op is not None
    shapes = {("of", k): values[a] for k, a in enumerate(args) if isinstance(a, V)}
    try:
        with np.errstate(all="ignore"):              # the values do not matter: a branch on them would be refused
            examples = {role: np.linspace(0.1, 0.9, int(np.prod(v.shape)), dtype=v.dtype).reshape(v.shape)
                        for role, v in shapes.items()}
            made = trace(lambda given: {("y",): x.op.forward.composed(                               # type: ignore[union-attr,dict-item]
                *(given.get(("of", k), a) for k, a in enumerate(args)), **x.options)}, examples)
    except Exception:
        return None
    y, at = made.outputs[("y",)], list[Any]()
    if not isinstance(y, V) or (made.values[y].shape, made.values[y].dtype) != (x.shape, x.dtype):
        return None
    for v in made.values:
        at.append(args[v.role[1]] if v.role is not None else placed(
            v, tuple(at[a] if isinstance(a, V) else a for a in v.args), emit, values))
    return at[y]


def contracted(x: Value, args: tuple, emit: Callable, values: list[Value]) -> Any:
    """vecdot, matvec and vecmat as products of Einstein's."""
    assert x.op is not None
    *cores, out = {"vecdot": ("k", "k", ""), "matvec": ("ik", "k", "i"), "vecmat": ("k", "kj", "j")}[x.op.name]
    depth, sizes = len(x.shape) - len(out), dict[str, int]()
    shapes = [values[a].shape if isinstance(a, V) else np.shape(a) for a in args]
    inputs = tuple("ABCDEFGH"[depth - len(shape) + len(core):depth] + core for shape, core in zip(shapes, cores, strict=True))
    if any(sizes.setdefault(c, n) != n for word, shape in zip(inputs, shapes, strict=True) for c, n in zip(word, shape, strict=True)):
        return None                                  # a batch that is stretched
    return emit(x._replace(op=RULES[np.einsum], args=args, options={"inputs": inputs, "output": "ABCDEFGH"[:depth] + out}))


def prod(x: Value, args: tuple, emit: Callable, values: list[Value]) -> Any:
    """np.prod over up to 64 entries: one factor after another."""
    shape = values[args[0]].shape
    axes = tuple(range(len(shape))) if x.options["axis"] is None else x.options["axis"]
    if not 1 <= np.prod([shape[i] for i in axes]) <= 64:
        return None
    result: Any = None
    for at in np.ndindex(*(shape[i] for i in axes)):
        index = tuple(at[axes.index(i)] if i in axes else slice(None) for i in range(len(shape)))
        entry = x._replace(op=ENTRY, args=args, options={"index": index}, shape=tuple(n for i, n in enumerate(shape) if i not in axes))
        factor = emit(entry)
        result = factor if result is None else emit(entry._replace(op=MULTIPLY, args=(result, factor), options={}))
    return emit(x._replace(op=RULES[np.reshape], args=(result,), options={"shape": x.shape})) if x.options["keepdims"] else result


def cumprod(x: Value, args: tuple, emit: Callable, values: list[Value]) -> Any:
    """np.cumprod over up to 64 entries."""
    axis = x.options["axis"]
    if not 1 <= x.shape[axis] <= 64:
        return None
    found: list[Any] = []
    for k in range(x.shape[axis]):
        entry = x._replace(op=ENTRY, args=args, options={"index": (slice(None),) * axis + (slice(k, k + 1),)},
                           shape=tuple(1 if i == axis else n for i, n in enumerate(x.shape)))
        factor = emit(entry)
        found.append(emit(entry._replace(op=MULTIPLY, args=(found[-1], factor), options={})) if found else factor)
    return emit(x._replace(op=RULES[np.concatenate], args=tuple(found), options={"axis": axis}))


def power(x: Value, args: tuple, emit: Callable, values: list[Value]) -> Any:
    """a**n for a number n: products where n is a small whole number, a root where it is a half."""
    a, n = args
    if isinstance(n, V) or np.ndim(n) != 0:
        return None
    n = float(n)
    plain = x._replace(op=MULTIPLY, options={})
    if n in (0.5, -0.5):
        result = emit(x._replace(op=SQRT, args=(a,), options={}))
    elif n != int(n) or not 1 <= abs(n) <= 16:
        return emit(x._replace(args=(a, n)))
    else:
        whole, result, square = int(abs(n)), None, a
        while whole:
            if whole & 1:
                result = square if result is None else emit(plain._replace(args=(result, square)))
            whole >>= 1
            if whole:
                square = emit(plain._replace(args=(square, square)))
    return result if n > 0 else emit(x._replace(op=DIVIDE, args=(1.0, result), options={}))


def pairwise(x: Value, args: tuple, emit: Callable, values: list[Value]) -> Any:
    """An einsum of many factors as products of two, from the left."""
    if len(args) < 3:
        return None
    inputs, output = x.options["inputs"], x.options["output"]
    shapes = [values[a].shape if isinstance(a, V) else np.shape(a) for a in args]
    sizes = {c: n for s, shape in zip(inputs, shapes, strict=True) for c, n in zip(s, shape, strict=True)}
    so_far, letters = args[0], inputs[0]
    for k in range(1, len(args)):
        needed = set(output).union(*inputs[k + 1:])
        out = output if k == len(args) - 1 else "".join(c for c in dict.fromkeys(letters + inputs[k]) if c in needed)
        so_far = emit(x._replace(args=(so_far, args[k]), options={"inputs": (letters, inputs[k]), "output": out},
                                 shape=tuple(sizes[c] for c in out)))
        letters = out
    return so_far


FOR_LOOPS: dict[str, Callable] = {"power": power, "einsum": pairwise, "prod": prod, "cumprod": cumprod,
                                  "vecdot": contracted, "matvec": contracted, "vecmat": contracted}


def chained(program: Program) -> Program:
    """sum + (p + q) as (sum + p) + q in the outputs for the parameters: one product is added at a time."""
    values, outputs = list(program.values), dict(program.outputs)
    for role, v in program.outputs.items():
        if role[0] != "aparam" or not isinstance(v, V) or program.values[v].op is not ADD:
            continue
        total = program.inputs.get(role)
        terms = terms_of(program, v, total)
        if terms is None:
            continue
        (before, _), *rest = terms if total is None else [(total, ADD), *terms]
        for term, op in rest:
            values.append(program.values[v]._replace(op=op, args=(before, term)))
            before = V(len(values) - 1)
        outputs[role] = before
    return Program(values, outputs)


def terms_of(program: Program, v: V, total: V | None) -> Sequence[tuple[Any, Op]] | None:
    """What v is the sum of, besides the running sum, and whether it is added or taken away; None if that is inside of a term."""
    terms: list[tuple[Any, Op]] = []
    pending: list[tuple[Any, Op]] = [(v, ADD)]
    found = total is None
    while pending:
        a, op = pending.pop()
        x = program.values[a] if isinstance(a, V) else None
        if isinstance(a, V) and a == total and op is ADD and not found:
            found = True
        elif op is ADD and x is not None and x.op in (ADD, SUBTRACT) and all(
                isinstance(b, V) and program.values[b].shape == x.shape for b in x.args):
            pending += [(x.args[1], x.op), (x.args[0], ADD)]
        else:
            terms.append((a, op))
    return terms if found else None

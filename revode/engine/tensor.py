"""The tape: a list of the operations that were carried out, and `Tensor`, a value that remembers its place on it.

    forward   y = op(a, b)                 appends (op, places of a and b, values of a and b, y) to the tape
    backward  for each entry, last first:  cotangent[a] += vjp_a(cotangent[y]),  cotangent[b] += vjp_b(cotangent[y])

The order of creation is an order of evaluation, so the backward sweep is a loop, never a recursion. A tape that is
opened inside another (a gradient of a gradient) has a higher level; its values may be tensors of the outer tape, and
then everything done with them, the backward sweep included, is recorded out there. That is all there is to higher
derivatives. What each operation computes and how it is pulled back stands in primitives.py, and only there.
"""
from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from itertools import count
from math import prod
from typing import Any, NamedTuple

import numpy as np

from . import tree
from .arraylike import Arraylike
from .kept import FLOATS, STILL, Keeping
from .refusals import NotTraceable, Refusing, name_of, not_differentiated, of_options, of_ufunc, traced


class Op(NamedTuple):
    """One row of the table: `vjps[i](g, y, *inputs, **options)` is the cotangent of input i, for y = forward(*inputs).

    c: the operation on one element as it prints in C ({0}, {1}: the inputs); None where it is no operation on elements.
    tangent: tangent(vs, *inputs), the change of y, for operations that tangents.py does not know by name.
    """
    name: str
    forward: Callable
    vjps: tuple[Callable, ...] | Each
    c: str | None = None
    tangent: Callable | None = None


ndarray, new = np.ndarray, object.__new__
POSITIONS = frozenset({int, slice, type(None), type(Ellipsis)})       # indices that cannot change
RULES: dict[Callable, Op] = {}        # NumPy function -> Op, filled by primitives.py
NAMED: dict[str, Op] = {}             # the same of ufuncs, by name
FUNCTIONS: dict[Callable, Callable] = {}   # NumPy function -> the same in terms of primitives, filled by functions.py
CONSTANT: dict[Callable, Op] = {}     # NumPy functions whose result carries no gradient (comparisons, floor, ...)
METHODS: dict[tuple, Callable] = {}   # (ufunc, "reduce" or "accumulate") -> the same in terms of primitives
STATIC: set[Callable] = set()         # NumPy functions that look at shapes and dtypes alone


class Tape(Keeping):
    """A list of entries; a slot is an index into it.

    None for an input;  (name, slot, value, y) and (name, slot, slot, value, value, y) of ufuncs, which is most of them, and where
    the time goes: of names, numbers and arrays, which Python's collector passes by;  (op, slots, values, options, y) for all others
    (`entry` makes this of any). A slot is -1 for a plain value.
    """
    __slots__ = ("level", "nodes")
    levels = count()             # of two tapes, the inner one was created later (next() is one step for all threads)

    def __init__(self) -> None:
        super().__init__()
        self.nodes: Any = []
        self.level = next(Tape.levels)

    def input(self, value: Any) -> Tensor:
        self.nodes.append(None)
        return Tensor(value, self, len(self.nodes) - 1)

    def close(self) -> None:
        """No more recording: a tensor that outlives its gradient says so when it is used."""
        self.nodes = _Closed(self.nodes)
        if self.held is not None:
            self.check()

    def pull(self, seeds: list[tuple[int, Any]], inputs: Sequence[int]) -> list[Any]:
        """From (slot, cotangent) seeds to the cotangents of the input slots; None where nothing flowed."""
        if self.held is not None:
            self.check()
        nodes = self.nodes
        cotangents: list[Any] = [None] * len(nodes)
        for slot, g in seeds:
            cotangents[slot] = g if cotangents[slot] is None else cotangents[slot] + g
        for i, node in zip(range(len(nodes) - 1, -1, -1), reversed(nodes), strict=True):
            if node is None or ((g := cotangents[i]) is None and (
                    node[0] is not MANY or (g := _pull_many(cotangents, i, node[4], **node[3])) is None)):
                continue
            cotangents[i] = None
            kind = len(node)
            if kind == 6:                                # written out, for this is where the time goes
                name, slot, other, x, z, y = node
                vjp_x, vjp_z = NAMED[name].vjps
                if slot >= 0:
                    a, before = vjp_x(g, y, x, z), cotangents[slot]
                    shape = x.shape if type(x) is not float else ()
                    if a.shape != shape:
                        a = sum_to(a, shape)
                    cotangents[slot] = a if before is None else before + a
                if other >= 0:
                    a, before = vjp_z(g, y, x, z), cotangents[other]
                    shape = z.shape if type(z) is not float else ()
                    if a.shape != shape:
                        a = sum_to(a, shape)
                    cotangents[other] = a if before is None else before + a
                continue
            if kind == 4:
                name, slot, x, y = node
                vjp, = NAMED[name].vjps
                _add(cotangents, slot, vjp(g, y, x), x)
                continue
            _pull_any(cotangents, g, *node)
        return [cotangents[slot] for slot in inputs]


def _add(cotangents: list, slot: int, a: Any, x: Any) -> None:
    """Add a cotangent to those that have come in for the value x."""
    shape = x.shape if type(x) is not float else ()
    a, before = a if a.shape == shape else sum_to(a, shape), cotangents[slot]
    cotangents[slot] = a if before is None else before + a


def _pull_any(cotangents: list, g: Any, op: Op, slots: list[int], values: list, options: dict, y: Any) -> None:
    """Pull g back through an entry of the long form; of MANY it has been pulled back already."""
    found = g if op is MANY else [
        vjp(g, y, *values, **options) if slot >= 0 else None for slot, vjp in zip(slots, op.vjps)]  # noqa: B905 (Each never ends)
    for slot, x, a in zip(slots, values, found, strict=True):
        if slot >= 0 and a is not None:
            _add(cotangents, slot, a, x)


def entry(node: tuple) -> tuple:
    """An entry of a tape in its long form: (op, slots, values, options, y)."""
    if len(node) == 5:
        return node
    half = len(node) // 2
    return NAMED[node[0]], [*node[1:half]], [*node[half:-1]], {}, node[-1]


class _Closed(list):
    def append(self, entry: Any) -> None:
        raise RuntimeError("this tensor belongs to a gradient that has been completed, so nothing can be recorded on "
                           "it any more; return it from the function (has_aux=True), or read the number with x.value; a field "
                           "that closes over a tensor gets it through params instead")


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """Undo broadcasting: sum x over the axes along which `shape` was stretched."""
    if type(x) is ndarray and x.size == prod(shape):         # stretched from one to one
        return x.reshape(shape)
    if x.ndim > len(shape):
        x = np.sum(x, axis=tuple(range(x.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return np.sum(x, axis=stretched, keepdims=True) if stretched else x


def apply(op: Op, *inputs: Any, **options: Any) -> Any:
    """Carry out one operation; record it on the innermost tape among its inputs, if there is any."""
    if len(inputs) == 1 and type(x := inputs[0]) is Tensor and type(x._value) is ndarray and "index" not in options:
        x.tape.nodes.append((op, [x.slot], [x._value], options, y := op.forward(x._value, **options)))
        return Tensor(y, x.tape, len(x.tape.nodes) - 1)
    return _record(op, lifted(tuple(map(joined, inputs))), options)


def _record(op: Op, inputs: tuple, options: dict) -> Any:
    tape = innermost(inputs)
    if tape is None:
        return op.forward(*inputs, **options)
    slots = [x.slot if type(x) is Tensor and x.tape is tape else -1 for x in inputs]
    values = [x._value if slot >= 0 else x for x, slot in zip(inputs, slots, strict=True)]
    kept = [x if slot >= 0 or type(x) is Tensor else tape.keep(x) for x, slot in zip(values, slots, strict=True)]
    y = _record(op, tuple(values), options)       # recorded again further out, if a value is a tensor of an outer tape
    if type(index := options.get("index")) not in POSITIONS:
        options["index"] = tape.keep_index(index)
    tape.nodes.append((op, slots, kept, options, y))
    return Tensor(y, tape, len(tape.nodes) - 1)


def apply1(op: Op, x: Tensor) -> Any:
    """apply() of a ufunc for one input, without the detours: this is where the time goes."""
    value = x._value
    y = op.forward(value) if type(value) is not Tensor else apply(op, value)
    nodes = x.tape.nodes
    nodes.append((op.name, x.slot, value, y))
    return Tensor(y, x.tape, len(nodes) - 1)


def apply2(op: Op, a: Any, b: Any) -> Any:
    """apply() of a ufunc for two inputs on one tape, or a tensor and what cannot change: a number, a step."""
    if type(a) is Tensor:
        tape, value_a, slot_a = a.tape, a._value, a.slot
        if type(b) is Tensor:
            if b.tape is not tape:
                return apply(op, a, b)
            value_b, slot_b = b._value, b.slot
        elif type(b) in STILL or (type(b) is ndarray and b.shape == () and not b.flags.writeable):
            value_b, slot_b = b, -1
        else:
            return apply_plain(op, a, b)
    elif type(a) in STILL or (type(a) is ndarray and a.shape == () and not a.flags.writeable):
        tape, value_a, slot_a, value_b, slot_b = b.tape, a, -1, b._value, b.slot
    else:
        return apply_plain(op, a, b)
    if (slot_a < 0 or slot_b < 0) and (tape.tracing or type(value_a) is Tensor or type(value_b) is Tensor):
        return apply(op, value_a if slot_a < 0 else a, value_b if slot_b < 0 else b)
    y = op.forward(value_a, value_b)              # of tensors of an outer tape: recorded out there, too
    nodes = tape.nodes
    nodes.append((op.name, slot_a, slot_b, value_a, value_b, y))
    return Tensor(y, tape, len(nodes) - 1)


def apply_plain(op: Op, a: Any, b: Any) -> Any:
    """apply() for a tensor and a plain value that the tape has to keep; computed from the value itself, so with its bits."""
    if hasattr(type(a), "meet") or hasattr(type(b), "meet"):             # a spectrum (spectrum.py)
        return (a if hasattr(type(a), "meet") else b).meet(op.forward, a, b)
    a, b = (joined(np.asarray(x) if type(x) in (list, tuple) else x) for x in (a, b))
    x = a if type(a) is Tensor else b
    if x.tape.tracing or type(x._value) is Tensor or type(a) is type(b):
        return apply(op, a, b)
    tape = x.tape
    (value_a, kept_a, slot_a), (value_b, kept_b, slot_b) = (
        (x._value, x._value, x.slot) if type(x) is Tensor else (x, tape.keep(x), -1) for x in (a, b))
    y = op.forward(value_a, value_b)
    tape.nodes.append((op.name, slot_a, slot_b, kept_a, kept_b, y))
    return Tensor(y, tape, len(tape.nodes) - 1)


class Each:
    """The rules of an operation with any number of inputs: it yields rule(0, ...), rule(1, ...), and so on."""
    def __init__(self, rule: Callable) -> None:
        self.rule = rule

    def __iter__(self) -> Iterator[Callable]:
        return (partial(self.rule, i) for i in count())


# One entry for an operation with several outputs, which take the slots that follow it, and one pullback of all inputs; see
# record_many.
MANY = Op("many", lambda: None, ())


# A power of scalars: ** of theirs, not that of arrays.
POWER_OF_SCALARS = Op("power", operator.pow, tuple(
    partial(lambda i, *args: list(RULES[np.power].vjps)[i](*args), i) for i in (0, 1)), "rv_power({0}, {1})")


def record_many(inputs: list, run: Callable, push: Callable | None = None) -> list:
    """Record `outputs, pull = run(values)` as one entry; pull maps output cotangents (None: zero) to input ones, and push the changes
    of the inputs to those of the outputs (tangents.py)."""
    tape = innermost(inputs)
    if tape is not None and tape.tracing:
        outputs, pull = run(inputs)         # a program has no entries but those of the table
        tape.linear(outputs, pull)                                                                 # type: ignore[attr-defined]
        return outputs
    slots = [x.slot if type(x) is Tensor and x.tape is tape else -1 for x in inputs]
    values = [x if slot < 0 else x._value for x, slot in zip(inputs, slots, strict=True)]
    if tape is None:
        return run(values)[0]
    outputs, pull = run([x if slot < 0 else read_only(x) for x, slot in zip(values, slots, strict=True)])
    if Tensor in map(type, values):             # of an outer tape
        root = next((root for x in inputs if type(root := traced(x)) is Tensor), None)
        pull = pull if root is None else root.tape.linear(outputs, pull)
    tape.nodes.append((MANY, slots, values, {"pull": pull, "push": push}, outputs))
    return [tape.input(tape.keep_input(y)) if is_float(y) else y for y in outputs]


def read_only(x: Any) -> Any:
    """A view that cannot be written to, of what a tape holds."""
    if type(x) is not Tensor and isinstance(x, ndarray) and x.flags.writeable:
        x = x.view()
        x.setflags(write=False)
    return x


def _pull_many(cotangents: list, i: int, outputs: list, pull: Callable, push: Any = None) -> list | None:
    slots = iter(range(i + 1, len(cotangents)))
    incoming = [cotangents[next(slots)] if is_float(y) else None for y in outputs]
    return None if all(g is None for g in incoming) else pull(incoming)


def lifted(inputs: tuple) -> tuple:
    """The inputs of an operation; what a field brings along becomes part of the program that is being traced beneath."""
    for x in inputs:
        if type(x) is Tensor and type(root := traced(x)) is Tensor:
            return root.tape.lift(inputs)
    return inputs


def innermost(leaves: Any) -> Tape | None:
    """The tape with the highest level among the tensors of a list; None without any."""
    tapes = {x.tape for x in leaves if type(x) is Tensor}
    return max(tapes, key=lambda tape: tape.level, default=None) if len(tapes) != 1 else tapes.pop()


def is_float(x: Any) -> bool:
    """Whether gradients flow through x: a Python float, or a float32 / float64 scalar, array or tensor."""
    return x.dtype in FLOATS if type(x) is ndarray else type(x) in (float, Tensor) or getattr(x, "dtype", None) in FLOATS


def completed(tape: Tape) -> bool:
    """Whether the function that this tape recorded has returned."""
    return isinstance(tape.nodes, _Closed)


def number(x: Any) -> float:
    """One number on the host: the only place where the engine waits for a device."""
    return float(x.get() if hasattr(x, "get") else x)


def zeros_of(y: Any) -> Any:
    """np.zeros_like(y), in a third of its time where y is an array as most are."""
    return np.zeros(y.shape, y.dtype) if type(y) is ndarray and y.flags.c_contiguous else np.zeros_like(y)


def to_host(x: Any) -> Any:
    """The numbers of an array as a NumPy array; waits for a device."""
    return x.get() if hasattr(x, "get") else np.asarray(x)


def beside(y: Any) -> Callable:
    """A function that brings a host array to where y is: y's own library copies it. Does nothing for NumPy's arrays.

    CuPy's asarray goes through pinned memory in the order of the current stream, so that nobody waits.
    """
    y = value_of(y)
    if isinstance(y, (np.ndarray, np.generic, float, int)):
        return lambda x: x
    return sys.modules[type(y).__module__.split(".")[0]].asarray


def value_of(x: Any) -> Any:
    """The plain array behind a tensor of any level; everything else as it is."""
    while type(x) is Tensor:
        x = x._value
    return x


def constant(function: Callable, *args: Any, **options: Any) -> Any:
    """A function without gradient: of the plain values, or recorded where they are those of a traced program."""
    args = tree.map(traced, args)
    if innermost(tree.flatten(args)[0]) is None:
        return function(*args, **tree.map(value_of, options))
    return apply(CONSTANT.get(function) or Op(function.__name__, function, ()), *args, **options)


def _whole(x: Tensor, dtype: np.dtype) -> Any:
    """Whole numbers or bools of a value of the program that is traced, as NumPy makes them: cut off towards zero."""
    if dtype.kind == "b":
        return constant(np.not_equal, x, 0)
    if dtype.kind not in "iu":
        raise NotTraceable(f"a value as {dtype}")
    return apply(RULES[np.ndarray.astype], constant(np.trunc, x) if x.dtype.kind == "f" else x, dtype=dtype)


def _operators(ufunc: np.ufunc) -> tuple[Callable, Callable]:
    """The operator of a ufunc, and the one with exchanged operands."""
    name, dots = ufunc.__name__, ufunc is np.matmul         # of two matrices in one piece dot has the same bits, for half the call

    def operator(self: Tensor, other: Any) -> Any:
        tape = self.tape
        if type(other) is Tensor and other.tape is tape:         # apply2(), without the detours
            x, z = self._value, other._value
            y = x.dot(z) if dots and type(x) is type(z) is ndarray and x.ndim == z.ndim == 2 and x.flags.forc and z.flags.forc else (
                ufunc(x, z))
            nodes, made = tape.nodes, new(Tensor)
            made._value, made.tape, made.slot = y, tape, len(nodes)
            nodes.append((name, self.slot, other.slot, x, z, y))
            return made
        return apply2(RULES[ufunc], self, other)

    return operator, lambda self, other: apply2(RULES[ufunc], other, self)


def _comparison(ufunc: np.ufunc) -> Callable:
    """It carries no gradient."""
    return lambda self, other: constant(ufunc, self, other)


class Tensor(Refusing, Arraylike):
    """A value on a tape. Use it like the NumPy array in it: `np.tanh(y @ W + b)` just works, and `.value` is that array.

    Tensors are made by vjp, grad and value_and_grad. They are immutable, so `x += y` makes a new one, and `x[i] = y` raises.
    Comparisons look at the values, so `if x > 0` takes the branch that the numbers take, as in plain NumPy.

    Parameters
    ----------
    value : (...) float array.
    tape, slot : where it was written down.

    Raises TypeError for what would drop the gradient in silence: float(x), np.asarray(x), a function of NumPy that has no rule.

    Cost: one entry of the tape, which keeps what the rule of the operation needs.

    Example
    -------
    >>> from revode import grad
    >>> float(grad(lambda x: np.sum(x[:1] * 2))(np.ones(3))[0])
    2.0
    """
    __slots__ = ("_value", "slot", "tape")

    def __init__(self, value: Any, tape: Tape, slot: int) -> None:
        self._value, self.tape, self.slot = value, tape, slot

    @property
    def value(self) -> Any:
        """The plain array (of a gradient inside another: the tensor of the outer one)."""
        if self.tape.tracing:
            raise NotTraceable("x.value, which a program does not see")
        return self._value

    @property                                                                                  # type: ignore[misc]
    def __class__(self) -> Any:
        """isinstance says of the tensor of a NumPy array that it is one: a field that asks has one branch, forward and back.

        Not of that of a number: the libraries of devices ask what a number is before they compute with it.
        """
        return ndarray if type(value_of(self)) is ndarray else Tensor

    __add__, __radd__ = _operators(np.add)
    __sub__, __rsub__ = _operators(np.subtract)
    __mul__, __rmul__ = _operators(np.multiply)
    __truediv__, __rtruediv__ = _operators(np.divide)
    __matmul__, __rmatmul__ = _operators(np.matmul)
    __mod__, __rmod__ = _operators(np.remainder)
    __rpow__ = _operators(np.power)[1]
    __floordiv__ = _comparison(np.floor_divide)
    __lt__, __le__, __gt__, __ge__, __eq__, __ne__ = map(_comparison, (                            # type: ignore[assignment]
        np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal))

    def __neg__(self) -> Any: return apply1(RULES[np.negative], self)
    def __pos__(self) -> Any: return self
    def __abs__(self) -> Any: return apply1(RULES[np.absolute], self)
    def __rfloordiv__(self, other: Any) -> Any: return constant(np.floor_divide, other, self)
    def __divmod__(self, other: Any) -> Any: return self // other, self % other
    def __rdivmod__(self, other: Any) -> Any: return other // self, other % self
    def __invert__(self) -> Any: return constant(np.logical_not if self.dtype.kind == "b" else np.invert, self)
    def __round__(self, ndigits: int = 0) -> Any: return constant(np.round, self, ndigits)

    def __pow__(self, other: Any) -> Any:
        scalar = isinstance(value_of(self), (float, np.generic)) and np.ndim(value_of(other)) == 0
        if scalar:                             # Python's and NumPy's scalars have a power of their own, in other bits
            return apply(POWER_OF_SCALARS, self, other)
        return apply1(RULES[np.square], self) if type(other) is int and other == 2 else apply2(
            RULES[np.power], self, other)

    def __bool__(self) -> bool:
        if type(traced(self)) is Tensor:
            raise NotTraceable("a branch on a value (if, while, and, or, max, min), which a program cannot follow; use np.where")
        return bool(value_of(self))

    def __hash__(self) -> int:
        root = traced(self)
        if type(root) is Tensor and root.tape.evaluating:                  # type: ignore[attr-defined]
            raise NotTraceable("a value as the key of a dict or the member of a set")
        return object.__hash__(self)

    # a tensor is immutable, so it is its own copy; in a file it would have lost its tape
    def __copy__(self) -> Tensor: return self
    def __deepcopy__(self, memo: dict) -> Tensor: return self

    # shape
    @property
    def shape(self) -> tuple[int, ...]: return self._value.shape if type(self._value) is ndarray else np.shape(value_of(self))
    @property
    def dtype(self) -> Any: return getattr(value_of(self), "dtype", np.dtype(float))
    def __getitem__(self, index: Any) -> Any:
        if any(type(i) is Tensor for i in (index if type(index) is tuple else (index,))):
            raise TypeError("a tensor cannot be an index: positions carry no gradient; index with integers, slices "
                            "or a plain array")
        return apply(RULES[np.ndarray.__getitem__], self, index=index)

    def astype(self, dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        if dtype in FLOATS:
            return apply(RULES[np.ndarray.astype], self, dtype=dtype)
        root = traced(self)
        if type(root) is Tensor:
            return _whole(root, dtype)
        if dtype.kind not in "biuSU":                      # whole numbers, bools and text carry no gradient
            raise TypeError(f"x.astype({dtype}) would drop the gradient of a tensor: it flows in float64 and float32; stay with "
                            "these, or convert x.value if no gradient is wanted")
        return value_of(self).astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        op = RULES.get(ufunc)
        if method == "__call__" and not options:
            if op is not None:
                return apply1(op, *inputs) if len(inputs) == 1 else apply2(op, *inputs)
            if ufunc in CONSTANT:
                return constant(ufunc, *inputs)
            if ufunc in FUNCTIONS:
                return FUNCTIONS[ufunc](*inputs)
        if method == "outer" and op is not None and not options:
            a, b = inputs
            return ufunc(np.reshape(a, np.shape(a) + (1,) * np.ndim(b)), b)
        mine = METHODS.get((ufunc, method))
        if mine is None or not set(options) <= set(signature(mine).parameters) - {"out"}:
            raise of_ufunc(ufunc, method, options, mine is not None)
        return mine(*inputs, **options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        mine = FUNCTIONS.get(function)
        if mine is not None:
            unknown = set(kwargs) - set(signature(mine).parameters) if kwargs else None
            if unknown:
                raise of_options(function, unknown)
            return mine(*args, **kwargs)
        if function in CONSTANT:
            return constant(function, *args, **kwargs)
        if function in RULES:
            return apply(RULES[function], *args, **kwargs)
        if function in STATIC:
            return function(*tree.map(value_of, args), **tree.map(value_of, kwargs))
        raise not_differentiated(name_of(function))

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name, None)
        offered = function in FUNCTIONS or function in RULES or function in CONSTANT
        raise AttributeError(f"a tensor has no attribute {name!r}; " + (f"np.{name} does the same, and " if offered else "")
                             + "x.value is the plain array")


def joined(x: Any) -> Any:
    """np.array([...]) of tensors and numbers, which NumPy makes an array of objects, as one tensor; anything else as it is.

    Wherever such an array meets a tensor, is returned, or enters a solve, it is joined.
    """
    if type(x) is not ndarray or x.dtype.kind != "O" or not any(type(e) is Tensor for e in x.flat):
        return x
    return np.reshape(np.concatenate([np.reshape(e if type(e) is Tensor else np.asarray(e), (1,)) for e in x.flat]), x.shape)


def joined_in(x: Any) -> Any:
    """A tree with its arrays of tensors joined; itself where it has none."""
    return tree.map(joined, x) if type(x) is not Tensor and any(
        type(y) is ndarray and y.dtype.kind == "O" for y in tree.flatten(x)[0]) else x


tree.PLAIN.add(Tensor)

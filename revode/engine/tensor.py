"""The tape: a list of the operations that were carried out, and `Tensor`, a value that remembers its place on it.

    forward   y = op(a, b)                 appends (op, places of a and b, values of a and b, y) to the tape
    backward  for each entry, last first:  cotangent[a] += vjp_a(cotangent[y]),  cotangent[b] += vjp_b(cotangent[y])

The order of creation is an order of evaluation, so the backward sweep is a loop, never a recursion. A tape that is
opened inside another (a gradient of a gradient) has a higher level; its values may be tensors of the outer tape, and
then everything done with them, the backward sweep included, is recorded out there. That is all there is to higher
derivatives. What each operation computes and how it is pulled back stands in primitives.py, and only there.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from . import tree


class Op(NamedTuple):
    """One row of the table: `vjps[i](g, y, *inputs, **options)` is the cotangent of input i, for y = forward(*inputs).

    c: the operation on one element as it prints in C ({0}, {1}: the inputs); None where it is no operation on elements.
    """
    name: str
    forward: Callable
    vjps: tuple[Callable, ...] | Each
    c: str | None = None


RULES: dict[Callable, Op] = {}        # NumPy function -> Op, filled by primitives.py
FUNCTIONS: dict[Callable, Callable] = {}   # NumPy function -> the same in terms of primitives, filled by functions.py
CONSTANT: dict[Callable, Op] = {}     # NumPy functions whose result carries no gradient (comparisons, floor, ...)
STATIC: set[Callable] = set()         # NumPy functions that look at shapes and dtypes alone


class Tape:
    """A list of entries; a slot is an index into it.

    None for an input;  (op, slot, value, y) and (op, slot, slot, value, value, y) for one and two inputs, which is most
    of them, and where the time goes;  (op, slots, values, options, y) for all others. A slot is -1 for a plain value.
    """
    __slots__ = ("level", "nodes")
    depth = 0
    tracing = False              # whether it is a program that is being traced (compiled/program.py)

    def __init__(self) -> None:
        self.nodes: Any = []
        Tape.depth += 1          # a creation counter: of two tapes, the inner one was created later
        self.level = Tape.depth

    def input(self, value: Any) -> Tensor:
        self.nodes.append(None)
        return Tensor(value, self, len(self.nodes) - 1)

    def close(self) -> None:
        """No more recording: a tensor that outlives its gradient says so when it is used."""
        self.nodes = _Closed(self.nodes)

    def pull(self, seeds: list[tuple[int, Any]], inputs: list[int]) -> list[Any]:
        """From (slot, cotangent) seeds to the cotangents of the input slots; None where nothing flowed."""
        nodes = self.nodes
        cotangents: list[Any] = [None] * len(nodes)
        for slot, g in seeds:
            cotangents[slot] = g if cotangents[slot] is None else cotangents[slot] + g
        for i in range(len(nodes) - 1, -1, -1):
            node = nodes[i]
            if node is None:
                continue
            kind = len(node)
            if kind == 5:
                op, slots, values, options, y = node
                g = cotangents[i] if op is not MANY else _pull_many(cotangents, i, y, **options)
                if g is None:
                    continue
                cotangents[i] = None
                for slot, x, vjp in zip(slots, values, op.vjps):  # noqa: B905 (Each never ends)
                    if slot >= 0:
                        a = vjp(g, y, *values, **options)
                        if a is not None:
                            _add(cotangents, slot, a, getattr(x, "shape", ()))
                continue
            g = cotangents[i]
            if g is None:
                continue
            cotangents[i] = None
            if kind == 4:
                op, slot, x, y = node
                _add(cotangents, slot, op.vjps[0](g, y, x), x.shape if type(x) is not float else ())
                continue
            op, slot, other, x, z, y = node
            vjp_x, vjp_z = op.vjps
            if slot >= 0:
                _add(cotangents, slot, vjp_x(g, y, x, z), x.shape if type(x) is not float else ())
            if other >= 0:
                _add(cotangents, other, vjp_z(g, y, x, z), z.shape if type(z) is not float else ())
        return [cotangents[slot] for slot in inputs]


def _add(cotangents: list, slot: int, a: Any, shape: tuple[int, ...]) -> None:
    """Add a cotangent to those that have come in for a slot."""
    if a.shape != shape:
        a = sum_to(a, shape)
    before = cotangents[slot]
    cotangents[slot] = a if before is None else before + a


class _Closed(list):
    def append(self, entry: Any) -> None:
        raise RuntimeError("this tensor belongs to a gradient that has been completed, so nothing can be recorded on "
                           "it any more; return it from the function (has_aux=True), or read the number with x.value")


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """Undo broadcasting: sum x over the axes along which `shape` was stretched."""
    extra = x.ndim - len(shape)
    if extra:
        x = np.sum(x, axis=tuple(range(extra)))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return np.sum(x, axis=stretched, keepdims=True) if stretched else x


def apply(op: Op, *inputs: Any, **options: Any) -> Any:
    """Carry out one operation; record it on the innermost tape among its inputs, if there is any."""
    return _record(op, lifted(inputs), options)


def _record(op: Op, inputs: tuple, options: dict) -> Any:
    tape = innermost(inputs)
    if tape is None:
        return op.forward(*inputs, **options)
    on_tape = [type(x) is Tensor and x.tape is tape for x in inputs]
    values = [x._value if on else x for x, on in zip(inputs, on_tape, strict=True)]
    slots = [x.slot if on else -1 for x, on in zip(inputs, on_tape, strict=True)]
    y = _record(op, tuple(values), options)       # recorded again further out, if a value is a tensor of an outer tape
    nodes = tape.nodes
    nodes.append((op, slots, values, options, y))
    return Tensor(y, tape, len(nodes) - 1)


def apply1(op: Op, x: Tensor) -> Any:
    """apply() for one input and no options, without the detours: this is where the time goes."""
    value = x._value
    y = op.forward(value) if type(value) is not Tensor else apply(op, value)
    nodes = x.tape.nodes
    nodes.append((op, x.slot, value, y))
    return Tensor(y, x.tape, len(nodes) - 1)


def apply2(op: Op, a: Any, b: Any) -> Any:
    """apply() for two inputs on one tape, or one of them plain; one at least is a tensor."""
    if type(a) is Tensor:
        tape, value_a, slot_a = a.tape, a._value, a.slot
        if type(b) is Tensor:
            if b.tape is not tape:
                return apply(op, a, b)
            value_b, slot_b = b._value, b.slot
        else:
            value_b, slot_b = np.asarray(b) if type(b) in (list, tuple) else b, -1
    else:
        tape, value_a, slot_a, value_b, slot_b = b.tape, a, -1, b._value, b.slot
        if type(a) in (list, tuple):
            value_a = np.asarray(a)
    nested = type(value_a) is Tensor or type(value_b) is Tensor
    if (nested or tape.tracing) and (slot_a < 0 or slot_b < 0):
        return apply(op, value_a if slot_a < 0 else a, value_b if slot_b < 0 else b)
    y = _record(op, (value_a, value_b), {}) if nested else op.forward(value_a, value_b)
    nodes = tape.nodes
    nodes.append((op, slot_a, slot_b, value_a, value_b, y))
    return Tensor(y, tape, len(nodes) - 1)


class Each:
    """The rules of an operation with any number of inputs: it yields rule(0, ...), rule(1, ...), and so on."""
    def __init__(self, rule: Callable) -> None:
        self.rule = rule

    def __iter__(self) -> Iterator[Callable]:
        return (partial(self.rule, i) for i in count())


# One entry for an operation with several outputs, which take the slots that follow it; see record_many.
MANY = Op("many", lambda: None, Each(lambda i, g, y, *inputs, **options: g[i]))


def record_many(inputs: list, run: Callable) -> list:
    """Record `outputs, pull = run(values)` as one entry; pull maps output cotangents (None: zero) to input ones."""
    tape = innermost(inputs)
    if tape is not None and tape.tracing:
        outputs, pull = run(inputs)         # a program has no entries but those of the table
        tape.linear(outputs, pull)                                                                 # type: ignore[attr-defined]
        return outputs
    on_tape = [type(x) is Tensor and x.tape is tape for x in inputs]
    values = [x._value if on else x for x, on in zip(inputs, on_tape, strict=True)]
    outputs, pull = run(values)
    if tape is None:
        return outputs
    root = next((r for x in inputs if type(x) is Tensor and (r := _root(x)).tape.tracing), None)
    if root is not None:
        pull = root.tape.linear(outputs, pull)                                                     # type: ignore[attr-defined]
    slots = [x.slot if on else -1 for x, on in zip(inputs, on_tape, strict=True)]
    tape.nodes.append((MANY, slots, values, {"pull": pull}, outputs))
    return [tape.input(y) if is_float(y) else y for y in outputs]


def _pull_many(cotangents: list, i: int, outputs: list, pull: Callable) -> list | None:
    slots = iter(range(i + 1, len(cotangents)))
    incoming = [cotangents[next(slots)] if is_float(y) else None for y in outputs]
    return None if all(g is None for g in incoming) else pull(incoming)


def lifted(inputs: tuple) -> tuple:
    """The inputs of an operation; what a field brings along becomes part of the program that is being traced beneath."""
    for x in inputs:
        if type(x) is Tensor:
            root = _root(x)
            if root.tape.tracing:
                return root.tape.lift(inputs)             # type: ignore[attr-defined]
    return inputs


def _root(x: Tensor) -> Tensor:
    """The tensor of the outermost tape behind one."""
    while type(x._value) is Tensor:
        x = x._value
    return x


def innermost(leaves: Any) -> Tape | None:
    """The tape with the highest level among the tensors of a list; None without any."""
    tapes = [x.tape for x in leaves if type(x) is Tensor]
    return max(tapes, key=lambda tape: tape.level) if tapes else None


def is_float(x: Any) -> bool:
    """Whether gradients flow through x: a Python float, or a float32 / float64 scalar, array or tensor."""
    return type(x) in (float, Tensor) or getattr(x, "dtype", None) in (np.float64, np.float32)


def completed(tape: Tape) -> bool:
    """Whether the function that this tape recorded has returned."""
    return isinstance(tape.nodes, _Closed)


def number(x: Any) -> float:
    """One number on the host: the only place where the engine waits for a device."""
    return float(x.get() if hasattr(x, "get") else x)


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
    args = tree.map(_traced, args)
    if innermost(tree.flatten(args)[0]) is None:
        return function(*args, **tree.map(value_of, options))
    return apply(CONSTANT.get(function) or Op(function.__name__, function, ()), *args, **options)


def _traced(x: Any) -> Any:
    """The plain array behind a tensor, or the tensor of a traced program behind it."""
    while type(x) is Tensor and not x.tape.tracing:
        x = x._value
    return x


class NotTraceable(TypeError):
    """This cannot become part of a program: what happens depends on the values."""


def _whole(x: Tensor, dtype: np.dtype) -> Any:
    """Whole numbers or bools of a value of the program that is traced, as NumPy makes them: cut off towards zero."""
    if dtype.kind == "b":
        return constant(np.not_equal, x, 0)
    if dtype.kind not in "iu":
        raise NotTraceable(f"a value as {dtype}")
    return apply(RULES[np.ndarray.astype], constant(np.trunc, x) if x.dtype.kind == "f" else x, dtype=dtype)


def _plain(x: Tensor, what: str) -> Any:
    """The whole number (or bool) behind a value of the program that is traced: its constants from here on depend on it."""
    root = _traced(x)
    if type(root) is not Tensor or root.dtype.kind not in "biu":
        raise TypeError(f"{what} would drop its gradient in silence; keep it an array, or read the plain value with x.value if no "
                        "gradient is wanted")
    return root.tape.ask(root)                                                                     # type: ignore[attr-defined]


def _seen(x: Tensor) -> Any:
    if type(_traced(x)) is Tensor:
        raise NotTraceable("the text of a value (str, repr, format)")
    return x._value


def _dropped(what: str, instead: str, whole: Callable | None = None) -> Callable:
    def refuse(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        root = _traced(self)
        if type(root) is Tensor:
            if whole is not None and root.dtype.kind in "biu":
                return whole(root.tape.ask(root))                                                  # type: ignore[attr-defined]
        raise (NotTraceable if type(root) is Tensor else TypeError)(
            f"{what} on a tensor would drop its gradient in silence; {instead}, or read the plain value with x.value if no "
            "gradient is wanted")
    return refuse


class Tensor:
    """A value on a tape. Use it like the NumPy array in it: `np.tanh(y @ W + b)` just works, and `.value` is that array.

    Tensors are immutable, so `x += y` makes a new one, and `x[i] = y` raises. Comparisons look at the values, so
    `if x > 0` takes the branch that the numbers take, as in plain NumPy.
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

    # arithmetic: apply() knows the rest
    def __add__(self, other: Any) -> Any: return apply2(RULES[np.add], self, other)
    def __radd__(self, other: Any) -> Any: return apply2(RULES[np.add], other, self)
    def __sub__(self, other: Any) -> Any: return apply2(RULES[np.subtract], self, other)
    def __rsub__(self, other: Any) -> Any: return apply2(RULES[np.subtract], other, self)
    def __mul__(self, other: Any) -> Any: return apply2(RULES[np.multiply], self, other)
    def __rmul__(self, other: Any) -> Any: return apply2(RULES[np.multiply], other, self)
    def __truediv__(self, other: Any) -> Any: return apply2(RULES[np.divide], self, other)
    def __rtruediv__(self, other: Any) -> Any: return apply2(RULES[np.divide], other, self)
    def __matmul__(self, other: Any) -> Any: return apply2(RULES[np.matmul], self, other)
    def __rmatmul__(self, other: Any) -> Any: return apply2(RULES[np.matmul], other, self)
    def __neg__(self) -> Any: return apply1(RULES[np.negative], self)
    def __pos__(self) -> Any: return self
    def __abs__(self) -> Any: return apply1(RULES[np.absolute], self)
    def __mod__(self, other: Any) -> Any: return apply2(RULES[np.remainder], self, other)
    def __rmod__(self, other: Any) -> Any: return apply2(RULES[np.remainder], other, self)
    def __floordiv__(self, other: Any) -> Any: return constant(np.floor_divide, self, other)
    def __rfloordiv__(self, other: Any) -> Any: return constant(np.floor_divide, other, self)
    def __rpow__(self, other: Any) -> Any: return apply2(RULES[np.power], other, self)

    def __pow__(self, other: Any) -> Any:
        return apply1(RULES[np.square], self) if type(other) is int and other == 2 else apply2(
            RULES[np.power], self, other)

    # comparisons carry no gradient
    def __lt__(self, other: Any) -> Any: return constant(np.less, self, other)
    def __le__(self, other: Any) -> Any: return constant(np.less_equal, self, other)
    def __gt__(self, other: Any) -> Any: return constant(np.greater, self, other)
    def __ge__(self, other: Any) -> Any: return constant(np.greater_equal, self, other)
    def __eq__(self, other: Any) -> Any: return constant(np.equal, self, other)
    def __ne__(self, other: Any) -> Any: return constant(np.not_equal, self, other)
    def __bool__(self) -> bool:
        if type(_traced(self)) is Tensor:
            raise NotTraceable("a branch on a value (if, while, and, or, max, min), which a program cannot follow; use np.where")
        return bool(value_of(self))

    def __hash__(self) -> int:
        root = _root(self).tape
        if root.tracing and root.evaluating:                  # type: ignore[attr-defined]
            raise NotTraceable("a value as the key of a dict or the member of a set")
        return object.__hash__(self)

    # shape
    @property
    def shape(self) -> tuple[int, ...]: return np.shape(value_of(self))
    @property
    def ndim(self) -> int: return len(self.shape)
    @property
    def size(self) -> int: return int(np.prod(self.shape))
    @property
    def dtype(self) -> Any: return getattr(value_of(self), "dtype", np.dtype(float))
    @property
    def T(self) -> Any: return np.transpose(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Any: return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if any(type(i) is Tensor for i in (index if type(index) is tuple else (index,))):
            raise TypeError("a tensor cannot be an index: positions carry no gradient; index with integers, slices "
                            "or a plain array")
        return apply(RULES[np.ndarray.__getitem__], self, index=index)

    # NumPy's methods, through NumPy's functions
    def sum(self, axis: Any = None, **kw: Any) -> Any: return np.sum(self, axis=axis, **kw)
    def mean(self, axis: Any = None, **kw: Any) -> Any: return np.mean(self, axis=axis, **kw)
    def var(self, axis: Any = None, **kw: Any) -> Any: return np.var(self, axis=axis, **kw)
    def std(self, axis: Any = None, **kw: Any) -> Any: return np.std(self, axis=axis, **kw)
    def max(self, axis: Any = None, **kw: Any) -> Any: return np.max(self, axis=axis, **kw)
    def min(self, axis: Any = None, **kw: Any) -> Any: return np.min(self, axis=axis, **kw)
    def cumsum(self, axis: Any = None) -> Any: return np.cumsum(self, axis=axis)
    def clip(self, low: Any = None, high: Any = None) -> Any: return np.clip(self, low, high)
    def dot(self, other: Any) -> Any: return np.dot(self, other)
    def squeeze(self, axis: Any = None) -> Any: return np.squeeze(self, axis=axis)
    def swapaxes(self, a: int, b: int) -> Any: return np.swapaxes(self, a, b)
    def ravel(self) -> Any: return np.reshape(self, (-1,))
    def flatten(self) -> Any: return np.reshape(self, (-1,))
    def copy(self) -> Any: return self

    def reshape(self, *shape: Any) -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Any:
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def astype(self, dtype: Any) -> Any:
        if np.dtype(dtype) not in (np.float64, np.float32):
            traced = _traced(self)                         # integers and bools carry no gradient
            return _whole(traced, np.dtype(dtype)) if type(traced) is Tensor else value_of(self).astype(dtype)
        return apply(RULES[np.ndarray.astype], self, dtype=np.dtype(dtype))

    # what would lose the gradient
    __float__ = _dropped("float(x), or writing x into an entry of a plain array,",
                         "keep it an array, and build arrays with np.stack or np.concatenate")
    __int__ = _dropped("int(x)", "keep it an array: NumPy functions take tensors", int)
    __array__ = _dropped("turning into a plain array (np.asarray, np.array([...]) or writing into one)",
                         "join tensors with np.stack or np.concatenate", np.asarray)
    item = _dropped("x.item()", "keep it an array: NumPy functions take tensors")
    tolist = _dropped("x.tolist()", "keep it an array: NumPy functions take tensors")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("x[i] = ... writes into a tensor in place, and the value that the gradient needs would be "
                        "gone; build the new array with np.where, np.concatenate or np.stack")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and not options:
            op = RULES.get(ufunc)
            if op is not None:
                return apply1(op, *inputs) if len(inputs) == 1 else apply2(op, *inputs)
            if ufunc in CONSTANT:
                return constant(ufunc, *inputs)
            if ufunc in FUNCTIONS:
                return FUNCTIONS[ufunc](*inputs)
        if "out" in options:
            raise TypeError(f"np.{ufunc.__name__} would write a tensor into an existing array (out= or an in-place "
                            "operator such as +=); assign the result to a new name instead")
        if method != "__call__":
            raise TypeError(f"np.{ufunc.__name__}.{method} is not differentiated here; {_offer()}")
        if options:
            raise TypeError(f"np.{ufunc.__name__} with {', '.join(options)}= is not differentiated here; leave it out, "
                            "or use np.where and x.astype")
        raise TypeError(f"np.{ufunc.__name__} is not differentiated here; {_offer()}")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in FUNCTIONS:
            mine = FUNCTIONS[function]
            unknown = set(kwargs) - set(signature(mine).parameters) if kwargs else ()
            if unknown:
                raise TypeError(f"np.{function.__name__} with {', '.join(sorted(unknown))}= is not differentiated here; leave it "
                                "out" + (", and assign the result to a new name" if "out" in unknown else ""))
            return mine(*args, **kwargs)
        if function in CONSTANT:
            return constant(function, *args, **kwargs)
        if function in RULES:
            return apply(RULES[function], *args, **kwargs)
        if function in STATIC:
            return function(*tree.map(value_of, args), **tree.map(value_of, kwargs))
        raise TypeError(f"np.{function.__name__} is not differentiated here; {_offer()}")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a tensor has no attribute {name!r}; NumPy functions such as np.{name} may do, or "
                             "x.value is the plain array")

    def __index__(self) -> int:
        return _plain(self, "a tensor as an index, or as a number of times,").__index__()

    def __format__(self, spec: str) -> str:
        return format(_seen(self), spec)

    def __repr__(self) -> str:
        return f"Tensor({_seen(self)!r})"


def _offer() -> str:
    return ("write it with the operations in revode/engine/primitives.py (elementwise functions, matmul, einsum, sums, "
            "indexing, where, concatenate, reshape), give it a rule with rv.custom_vjp, or apply it to x.value if no "
            "gradient is wanted")

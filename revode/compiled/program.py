"""A program: the tape of a function, kept as a flat list of operations with static shapes, to be run again without Python
in the way.

    trace(fn, examples)     run fn once on tensors of a tape of their own; the tape IS the program
    simplify(program)       dead code, common subexpressions, signs, factors of one number

A function that branches on a value cannot be traced, and says so (NotTraceable). What is computed from the parameters
alone is done once, what is computed from the grid alone once for every step: see `kinds`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from ..engine.tensor import MANY, RULES, NotTraceable, Op, Tape, Tensor, apply, is_float, value_of

Role = tuple            # what an input or output is: ("part", "y"), ("cotangent", "y"), ("param", 3), ("step", "h"), ...


class V(int):
    """A reference to a value of a program, by number; every other argument of an operation is a constant."""
    __slots__ = ()

    def __repr__(self) -> str:
        return f"v{int(self)}"


class Value(NamedTuple):
    """One line of a program. op is None for an input, whose name is `role`."""
    op: Op | None
    args: tuple
    options: dict
    shape: tuple[int, ...]
    dtype: np.dtype
    role: Role | None = None


@dataclass
class Program:
    """values[i] is computed from earlier values; outputs maps a role to a value (or to a constant array)."""
    values: list[Value]
    outputs: dict[Role, Any]
    notes: dict = field(default_factory=dict)

    @property
    def inputs(self) -> dict[Role, V]:
        return {x.role: V(i) for i, x in enumerate(self.values) if x.role is not None}

    def __str__(self) -> str:
        lines = []
        for i, x in enumerate(self.values):
            what = " ".join(map(str, x.role or ())) if x.op is None else f"{x.op.name}({', '.join(map(brief, x.args))})" + (
                f" {x.options}" if x.options else "")
            lines.append(f"v{i:<4} {x.dtype!s:8}{x.shape!s:14} {what}")
        return "\n".join([*lines, *(f"{' '.join(map(str, role))} = {brief(v)}" for role, v in self.outputs.items())])


def brief(x: Any) -> str:
    return repr(x) if isinstance(x, V) else f"{np.asarray(x).tolist()}" if np.size(x) < 4 else f"<{np.shape(x)}>"


class Trace(Tape):
    """The tape of a program: below all tapes that are opened while it runs, so that their sweeps are recorded on it.

    brought: what takes in the arrays and numbers that a field brings along (fields.py); None outside of fields.
    """
    tracing = True

    def __init__(self) -> None:
        super().__init__()
        self.brought: Any = None

    @property
    def evaluating(self) -> bool:
        return self.brought is not None

    def lift(self, inputs: tuple) -> tuple:
        return inputs if self.brought is None else self.brought.lift(inputs)

    def ask(self, x: Tensor) -> Any:
        """The plain whole number behind x, on which what the field brings along from here on may depend."""
        if self.brought is None:
            raise NotTraceable("a whole number made of a value, outside of the field")
        return self.brought.ask(x)

    def linear(self, outputs: list, pull: Callable) -> Callable:
        """The pullback of a custom_vjp in a field, as operations."""
        return pull if self.brought is None else self.brought.linear(outputs, pull)


class Pull:
    """The pullback of a custom_vjp, which is linear, as the operations that it carries out on the cotangents."""

    def __init__(self, outputs: list, nodes: list, inputs: list, results: list) -> None:
        self.outputs, self.nodes, self.inputs, self.results = outputs, nodes, inputs, results

    @classmethod
    def of(cls, pull: Callable, outputs: list, lift: Callable) -> Pull:
        """Recorded once, at cotangents of zero, which lift makes part of the program; what else it uses stands on the nodes."""
        tape: Any = Tape()
        given = [tape.input(lift(np.zeros_like(value_of(y)))) if is_float(y) else None for y in outputs]
        results = [(g.slot, None) if type(g) is Tensor and g.tape is tape else (-1, g) for g in pull(given)]
        return cls(outputs, [node and whole(node) for node in tape.nodes], [g.slot if g is not None else -1 for g in given], results)

    def replaced(self, put: Callable) -> Pull:
        """With put(x) in the place of every array x that it uses."""
        nodes: list = []
        for node in self.nodes:
            if node is None:
                nodes.append(None)
                continue
            if node[0] is MANY:
                raise NotTraceable("a custom_vjp inside the pull of another")
            op, slots, values, options, y = node
            nodes.append((op, slots, [x if i >= 0 else put(x) for i, x in zip(slots, values, strict=True)], options, y))
        return Pull([put(y) for y in self.outputs], nodes, self.inputs,
                    [(i, g if i >= 0 or g is None else put(g)) for i, g in self.results])

    def __call__(self, incoming: list) -> list:
        at: dict[int, Any] = {i: np.zeros_like(value_of(y)) if g is None else g
                              for i, g, y in zip(self.inputs, incoming, self.outputs, strict=True) if i >= 0}
        for slot, node in enumerate(self.nodes):
            if node is not None:
                op, slots, values, options, _ = node
                at[slot] = apply(op, *(at[i] if i >= 0 else x for i, x in zip(slots, values, strict=True)), **options)
        return [at[i] if i >= 0 else g for i, g in self.results]


def whole(node: tuple) -> tuple:
    """A node of a tape in its long form."""
    if len(node) == 4:
        op, i, x, y = node
        return op, [i], [x], {}, y
    if len(node) == 6:
        op, i, j, x, z, y = node
        return op, [i, j], [x, z], {}, y
    return node


def trace(fn: Callable, examples: dict[Role, Any]) -> Program:
    """The program of fn, which takes a dict of tensors, by role, and returns a dict of results, by role."""
    tape: Any = Trace()
    tensors = {role: tape.input(np.asarray(x)) for role, x in examples.items()}
    results = fn(tensors)
    roles = list(examples)
    values: list[Value] = []
    options: dict
    for slot, node in enumerate(tape.nodes):
        if node is None:
            x = examples[roles[slot]]
            values.append(Value(None, (), {}, np.shape(x), np.asarray(x).dtype, roles[slot]))
            continue
        if len(node) == 4:
            op, i, x, y = node
            slots, inputs, options = [i], [x], {}
        elif len(node) == 6:
            op, i, j, x, z, y = node
            slots, inputs, options = [i, j], [x, z], {}
        else:
            op, slots, inputs, options, y = node
        if isinstance(y, tuple):
            raise NotTraceable(f"np.{op.name}, whose result depends on the values in its shape")
        args = tuple(V(i) if i >= 0 else x for i, x in zip(slots, inputs, strict=True))
        values.append(Value(op, args, options, np.shape(y), np.asarray(y).dtype))
    outputs: dict[Role, Any] = {}
    for role, y in results.items():
        on_tape = type(y) is Tensor and y.tape is tape
        outputs[role] = V(y.slot) if on_tape else np.asarray(y)
    tape.close()
    return Program(values, outputs)


def frozen(x: Any) -> Any:
    """A hashable stand-in for a constant argument or option, the same for equal ones."""
    if isinstance(x, np.ndarray):
        content = x.tobytes()
        return "array", x.shape, x.dtype.str, content if len(content) < 1024 else sha256(content).digest()
    if isinstance(x, (tuple, list)):
        return type(x).__name__, *map(frozen, x)
    if isinstance(x, dict):
        return "dict", *((k, frozen(v)) for k, v in sorted(x.items()))
    if isinstance(x, slice):
        return "slice", x.start, x.stop, x.step
    if isinstance(x, float):
        return type(x).__name__, x.hex()               # tells 0.0 from -0.0
    return type(x).__name__, x


ADD, SUBTRACT, MULTIPLY, NEGATIVE = (RULES[f] for f in (np.add, np.subtract, np.multiply, np.negative))
UNCHANGED = {"reshape", "broadcast_to", "astype"}      # operations that do nothing where shape and dtype stay


def simplify(program: Program, merge: bool = False) -> Program:
    """The same results with fewer operations.

    Exact, to the last bit: dead code, common subexpressions, a + (-b) = a - b, signs moved into factors, factors that are
    powers of two. With merge also (x a) b = x (a b) for numbers a, b of a step, which rounds once less or more: each
    such product is off by at most one unit in the last place from what it was.
    """
    for _ in range(4):
        before = len(program.values)
        program = rewrite(program, merge)
        program = without_dead(program)
        if len(program.values) == before:
            break
    return program


def rewrite(program: Program, merge: bool) -> Program:
    out: list[Value] = []
    seen: dict[Any, V] = {}
    new: list[Any] = []                         # old number -> new number
    small: list[bool] = []                                  # by new number: is it one number, the same for all trajectories?

    def emit(op: Op, args: tuple, options: dict, shape: tuple, dtype: Any) -> V:
        if op in (ADD, MULTIPLY) and isinstance(args[1], V) and (not isinstance(args[0], V) or args[0] > args[1]):
            args = args[::-1]                                # a + b = b + a: one order for both
        key = (op.name, id(op.forward), tuple(a if isinstance(a, V) else ("constant", frozen(a)) for a in args), frozen(options))
        if key not in seen:
            out.append(Value(op, args, options, shape, dtype))
            small.append(shape == () and all(small[a] for a in args if isinstance(a, V)))
            seen[key] = V(len(out) - 1)
        return seen[key]

    def node(a: Any, name: str) -> Value | None:
        return out[a] if isinstance(a, V) and out[a].op is not None and out[a].op.name == name else None   # type: ignore[union-attr]

    def number(a: Any) -> bool:
        """Whether a is one number that may be negated and multiplied: no bool."""
        return (small[a] and out[a].dtype.kind == "f") if isinstance(a, V) else np.ndim(a) == 0 and np.asarray(a).dtype.kind != "b"

    def build(x: Value, op: Op, args: tuple) -> Any:
        """x's operation on new arguments, after the rules that apply to it."""
        shape, dtype = x.shape, x.dtype
        if op.name in UNCHANGED and isinstance(args[0], V) and out[args[0]].shape == shape and out[args[0]].dtype == dtype:
            return args[0]
        if op is NEGATIVE:
            inner = node(args[0], "negative")
            if inner is not None:
                return inner.args[0]
            difference = node(args[0], "subtract")
            if difference is not None:
                return build(x, SUBTRACT, difference.args[::-1])
            product = node(args[0], "multiply")
            if product is not None and shape:
                for i in (0, 1):
                    if number(product.args[i]):
                        factor = product.args[i]
                        factor = negated(factor)
                        return build(x, MULTIPLY, (factor, product.args[1]) if i == 0 else (product.args[0], factor))
        if op in (ADD, SUBTRACT):
            a, b = args
            minus = node(b, "negative")
            if minus is not None and same_kind(minus.args[0], x):
                return build(x, SUBTRACT if op is ADD else ADD, (a, minus.args[0]))
            minus = node(a, "negative")
            if op is ADD and minus is not None and same_kind(minus.args[0], x):
                return build(x, SUBTRACT, (b, minus.args[0]))
        if op is MULTIPLY and shape:
            for i in (0, 1):
                minus = node(args[i], "negative")
                if minus is not None and not small[args[i]]:
                    other = args[1 - i]
                    if number(other):                            # (-x) s = x (-s)
                        pair = (minus.args[0], negated(other))
                        return build(x, MULTIPLY, pair if i == 0 else pair[::-1])
                    product = build(x, MULTIPLY, (minus.args[0], other) if i == 0 else (other, minus.args[0]))
                    return build(x, NEGATIVE, (product,))
                inner = node(args[i], "multiply")
                outer = args[1 - i]
                if inner is not None and inner.shape == shape and number(outer) and not small[args[i]]:
                    for j in (0, 1):
                        s, rest = inner.args[j], inner.args[1 - j]
                        if number(s) and (merge or power_of_two(s) or power_of_two(outer)):
                            return build(x, MULTIPLY, (rest, times(s, outer, dtype)))
        return emit(op, args, x.options, shape, dtype)

    def same_kind(a: Any, x: Value) -> bool:
        return not isinstance(a, V) or out[a].dtype == x.dtype

    def negated(s: Any) -> Any:
        if not isinstance(s, V):
            return -s
        inner = node(s, "negative")
        return inner.args[0] if inner is not None else emit(NEGATIVE, (s,), {}, (), out[s].dtype)

    def times(a: Any, b: Any, dtype: Any) -> Any:
        if not isinstance(a, V) and not isinstance(b, V):
            return dtype.type(a) * dtype.type(b)
        return emit(MULTIPLY, (a, b), {}, (), dtype)

    for x in program.values:
        if x.op is None:
            out.append(x)
            small.append(x.role is not None and x.role[0] == "step" and x.shape == ())
            new.append(V(len(out) - 1))
            continue
        new.append(build(x, x.op, tuple(new[a] if isinstance(a, V) else a for a in x.args)))
    return Program(out, {role: new[v] if isinstance(v, V) else v for role, v in program.outputs.items()}, program.notes)


def power_of_two(s: Any) -> bool:
    return not isinstance(s, V) and bool(np.frexp(abs(float(s)))[0] == 0.5)


def without_dead(program: Program) -> Program:
    """Only what the outputs need; inputs that nobody reads are dropped as well."""
    needed = set()
    for v in program.outputs.values():
        if isinstance(v, V):
            needed.add(int(v))
    for i in range(len(program.values) - 1, -1, -1):
        if i in needed:
            needed.update(int(a) for a in program.values[i].args if isinstance(a, V))
    number = {i: V(k) for k, i in enumerate(sorted(needed))}
    values = [program.values[i]._replace(args=tuple(number[a] if isinstance(a, V) else a for a in program.values[i].args))
              for i in sorted(needed)]
    return replace(program, values=values, outputs={
        role: number[v] if isinstance(v, V) else v for role, v in program.outputs.items()})


def kinds(program: Program, of_params: Sequence[str] = ("param",), of_steps: Sequence[str] = ("step",)) -> list[str]:
    """For every value what it depends on: 'param' (parameters alone), 'step' (the grid alone), or 'state' (anything else)."""
    found: list[str] = []
    for x in program.values:
        if x.role is not None:
            found.append("param" if x.role[0] in of_params else "step" if x.role[0] in of_steps else "state")
            continue
        deps = {found[a] for a in x.args if isinstance(a, V)}
        found.append(deps.pop() if len(deps) == 1 else "state" if deps else "param")
    return found


def interpret(program: Program, inputs: dict[Role, Any]) -> dict[Role, Any]:
    """Run a program operation by operation, as the tape would: the definition of what it means."""
    at: list[Any] = []
    for x in program.values:
        if x.op is None:
            at.append(inputs[x.role])                                                            # type: ignore[index]
        else:
            at.append(x.op.forward(*(at[a] if isinstance(a, V) else a for a in x.args), **x.options))
    return {role: at[v] if isinstance(v, V) else v for role, v in program.outputs.items()}

"""A program: the tape of a function, kept as a flat list of operations with static shapes, to be run again without Python
in the way.

    trace(fn, examples)         run fn once on tensors of a tape of their own; the tape IS the program
    evaluate(program, inputs)   what it means, operation by operation;  rules.simplify: the same with fewer operations

A function that branches on a value cannot be traced, and says so (NotTraceable). What is computed from the parameters
alone is done once, what is computed from the grid alone once for every step: see `kinds`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..engine.tensor import MANY, RULES, NotTraceable, Op, Tape, Tensor, apply, entry, is_float, value_of

Role = tuple            # what an input or output is: ("part", "y"), ("cotangent", "y"), ("param", 3), ("step", "h"), ...


ARITHMETIC = ("add", "subtract", "multiply", "divide", "negative", "astype")


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
        return cls(outputs, [node and entry(node) for node in tape.nodes], [g.slot if g is not None else -1 for g in given], results)

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
        op, slots, inputs, options, y = entry(node)
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
        if len(content) >= 1024:
            from hashlib import sha256  # which a small solve does without
            content = sha256(content).digest()
        return "array", x.shape, x.dtype.str, content
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


def of_times(program: Program) -> list[str]:
    """kinds(), where a value of the grid is one number made of times and sizes by arithmetic, and all else is the state's."""
    found = kinds(program)
    for i, x in enumerate(program.values):
        if found[i] == "step" and x.op is not None and (x.shape or x.op.name not in ARITHMETIC or any(
                found[a] != "step" if isinstance(a, V) else np.ndim(a) for a in x.args)):
            found[i] = "state"
    return found


def ancestors(program: Program, ends: Iterable[V]) -> list[int]:
    """Which values these are computed from, and they themselves, in order."""
    needed = {int(v) for v in ends}
    for i in range(len(program.values) - 1, -1, -1):
        if i in needed:
            needed.update(int(a) for a in program.values[i].args if isinstance(a, V))
    return sorted(needed)


def evaluate(program: Program, inputs: Callable[[Role], Any], which: Iterable[int]) -> dict[int, Any]:
    """Values by their number, operation by operation, as the tape would: what a program means.

    which : the values that are wanted, in order, among them what they are computed from; inputs(role) gives those.
    """
    at: dict[int, Any] = {}
    for i in which:
        x = program.values[i]
        at[i] = inputs(x.role) if x.op is None else x.op.forward(                                 # type: ignore[arg-type]
            *(at[a] if isinstance(a, V) else a for a in x.args), **x.options)
    return at


def interpret(program: Program, inputs: dict[Role, Any]) -> dict[Role, Any]:
    """The outputs of a program."""
    at = evaluate(program, inputs.__getitem__, range(len(program.values)))
    return {role: at[v] if isinstance(v, V) else v for role, v in program.outputs.items()}

"""A field as its trace shows it: the operations are the name of its programs, what it brings along are their inputs.

    seen = see(system, t, y, params)      one evaluation on tensors of a trace
    seen.key                              the operations, with the shapes and dtypes of everything, without any content
    seen.arrays, seen.numbers             the plain arrays and numbers that met a tensor, in the order in which they did

A program of a step evaluates the field several times. Each time it meets arrays and numbers in the same order, and finds those of
the solve at hand there (`Following`), so that a new minibatch, a new weight or a new constant re-uses the program.

Whole numbers made of a time (the place in a table of recorded values, say) are handed to the field as they are. What it brings
along after that depends on them: such arrays are looked up, for each step and stage, by evaluating the field once for each set of
whole numbers that the grid meets.
"""
from __future__ import annotations

from collections.abc import Callable
from copy import copy
from math import prod
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import RULES, NotTraceable, Op, Tensor, apply, entry, is_float, number, to_host, value_of
from ..stepping import Problem, Stats
from .program import Pull, Role, Trace, frozen

LOOK_UP = Op("look up", lambda *args, **options: _refuse(), ())         # what the field brings along at whole numbers of a time
DERIVATIVE = "derivative"                       # the operation that a smooth control makes of a time (driving.py)


def _refuse() -> Any:
    raise NotTraceable("a table of the field that is looked up outside of its solve")


def is_number(x: Any) -> bool:
    """Whether x is one number, and no bool."""
    return type(x) is not Tensor and (type(x) in (int, float) or isinstance(x, (np.floating, np.integer))
                                      or (isinstance(x, np.ndarray) and x.ndim == 0 and x.dtype.kind in "fiu"))


def is_array(x: Any) -> bool:
    return type(x) is not Tensor and hasattr(x, "dtype") and hasattr(x, "ndim") and x.ndim > 0 and x.dtype.kind in "fiub"


class Brought:
    """What one evaluation of a field brings along: common to those who take it in for the first time and again."""

    def __init__(self, batch: tuple[int, ...]) -> None:
        self.batch = batch if prod(batch) > 1 else ()

    def lift(self, inputs: tuple) -> tuple:
        tensors = [x for x in inputs if type(x) is Tensor]
        return tuple(x if type(x) is Tensor else self.number(x, tensors) if is_number(x) else self.whole(x) if is_array(x) else x
                     for x in inputs)

    def whole(self, x: Any) -> Any:
        """An array; one row of it where the rows are the same for all trajectories.

        Ones and zeros along the trajectories, as rules of the engine make them, stay as they are: sums over them have a form.
        """
        n = len(self.batch)
        if n and self.batch[0] in x.shape[1:] and isinstance(x, np.ndarray) and x.flat[0] in (0, 1) and (x == x.flat[0]).all():
            return x
        if n and x.ndim >= n and x.shape[:n] == self.batch and bool(number((x == x[(slice(0, 1),) * n]).all())):
            return apply(RULES[np.broadcast_to], self.array(x[(0,) * n]), shape=x.shape)
        return self.array(x)

    def array(self, x: Any) -> Any:
        raise NotImplementedError

    def number(self, x: Any, tensors: list) -> Any:
        raise NotImplementedError

    def linear(self, outputs: list, pull: Callable) -> Callable:
        """The pullback of a custom_vjp, which may bring along arrays and numbers of its own."""
        return Pull.of(pull, outputs, self.array)

    def result(self, x: Any) -> Any:
        """What the field returned; an array without a tensor in it was brought along as well."""
        return self.whole(x) if is_array(x) else self.number(x, []) if is_number(x) else x


def dtype_of(x: Any, tensors: list) -> np.dtype:
    """The dtype that a number takes beside tensors: theirs, for Python's numbers."""
    if type(x) in (int, float):
        return np.result_type(*(t.dtype for t in tensors), x)
    return x.dtype


class Seen(Brought):
    """One evaluation of the field on a trace of its own.

    pulls: also of the pullbacks of a custom_vjp in it, which programs need, and which a look at the field leaves alone.
    """

    def __init__(self, system: Any, t: Any, y: Any, params: Any, pulls: bool = False) -> None:
        super().__init__(y.shape[:-1])
        self.at: tuple = (system, y, params)
        self.pulls, self.unseen = pulls, False
        self.arrays: list[Any] = []
        self.numbers: list[np.ndarray] = []
        self.kinds: list[str] = []                  # of the numbers, in words
        self.asked: list[Any] = []                  # the whole numbers that the field was handed
        self.asked_before: tuple[int, int] | None = None        # arrays and numbers before the first of them
        self.pinned: dict[int, Any] = {}            # arrays of which those are made: these are part of the name
        self.places: list[int] = []                 # of the arrays on the tape
        self.family: Any = None                     # the programs (plans.py)
        self.lifted: tuple[int, ...] = ()           # which numbers are inputs of them
        self.found: dict[bytes, Seen] = {}          # by the whole numbers: what the field brings along there
        self.tape: Any = Trace()
        leaves, structure = tree.flatten(params)
        self.leaves = tuple([(getattr(x, "shape", ()), getattr(x, "dtype", float)) if is_float(x) else None for x in leaves])
        # A program knows numbers as arrays without axes, whose powers are not those of scalars.
        leaves = [self.tape.input(np.asarray(x) if isinstance(x, (float, np.generic)) else x) if known else x
                  for x, known in zip(leaves, self.leaves, strict=True)]
        time, state = self.tape.input(t), self.tape.input(y)
        self.given, self.time = len(self.tape.nodes), time.slot
        self.tape.brought = self
        try:
            outputs = [self.result(x) for x in system.coefficients(time, state, tree.unflatten(structure, leaves))]
        finally:
            self.tape.brought = None
        self.key = self.named(outputs)
        self.values = [value_of(x) for x in outputs]
        self.tape = None

    def array(self, x: Any) -> Any:
        x = x.copy(order="K")                       # the field may fill its arrays anew
        self.arrays.append(x)
        tensor = self.tape.input(x)
        self.places.append(tensor.slot)
        return tensor

    def number(self, x: Any, tensors: list) -> Any:
        self.numbers.append(np.asarray(x, dtype_of(x, tensors)))
        self.kinds.append(f"{type(x).__name__} {self.numbers[-1].dtype.str}")
        return x

    def linear(self, outputs: list, pull: Callable) -> Callable:
        self.unseen = not self.pulls
        return super().linear(outputs, pull) if self.pulls else pull

    def ask(self, x: Tensor) -> Any:
        if not self.of_time(x.slot):
            raise NotTraceable("a whole number, made of the state or the parameters, as an index or in Python")
        if self.asked_before is None:
            self.asked_before = len(self.arrays), len(self.numbers)
        self.asked.append(value_of(x))
        return value_of(x)

    def of_time(self, slot: int) -> bool:
        """Whether a value depends on the time, and at most on what the field brings along besides."""
        node = self.tape.nodes[slot]
        if node is None and slot >= self.given:
            k = self.places.index(slot)
            self.pinned[k] = frozen(self.arrays[k])
        if node is None:
            return slot == self.time or slot >= self.given
        return all(self.of_time(i) for i in entry(node)[1] if i >= 0)

    def named(self, outputs: list) -> Any:
        """Everything that programs are made of, in a form that can be compared."""
        lines: list[Any] = [None if node is None else node[:3] if len(node) == 6 and node[1] >= 0 <= node[2] else
                            node[:2] if len(node) == 4 else line(node) for node in self.tape.nodes]
        lines += [x.slot if type(x) is Tensor else content(x) for x in outputs]
        asked = None if self.asked_before is None else (
            self.asked_before, self.fixed, tuple(sorted(self.pinned.items())), tuple((np.shape(x), x.dtype) for x in self.asked))
        arrays = tuple([(x.shape, x.dtype) for x in self.arrays])
        return self.leaves, self.given, self.time, tuple(lines), arrays, tuple(self.kinds), asked

    def again(self, t: Any) -> Seen:
        """The field at another time: the same operations on what it brings along there."""
        system, y, params = copy(self.at[0]), *self.at[1:]
        system.stats = Stats()
        other = Seen(system, np.asarray(t), y, params, self.pulls)
        if other.key != self.key:
            raise NotTraceable("a field whose operations depend on whole numbers made of the time")
        return other

    def looked_up(self, t: Any, asked: list) -> tuple[list[Seen], np.ndarray]:
        """The field at each set of whole numbers, and which of these each step has: t and `asked` have a row for each step."""
        rows = np.concatenate([np.reshape(x, (len(t), -1)) for x in asked], 1)
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        for k in first:
            if rows[k].tobytes() not in self.found:
                self.found[rows[k].tobytes()] = self.again(t[k])
        return [self.found[rows[k].tobytes()] for k in first], which.reshape(-1)

    def table(self, options: dict, t: Any, *asked: Any) -> np.ndarray:
        """What the field brings along at these times: a row for each step."""
        found, which = self.looked_up(t, list(asked))
        return np.stack([getattr(seen, options["kind"])[options["number"]] for seen in found])[which]

    @property
    def extras(self) -> list:
        """What programs get besides the parameters."""
        return [*self.arrays, *(self.numbers[m] for m in self.lifted)]

    @property
    def fixed(self) -> tuple:
        """The numbers that do not depend on the time, in bits; None for the others."""
        n = len(self.numbers) if self.asked_before is None else self.asked_before[1]
        return tuple([x.tobytes() if m < n else None for m, x in enumerate(self.numbers)])


def seen_in(problem: Problem, parts: dict, params: Any) -> Seen:
    """The trace of the field (and of the diffusion) of a solve. Raises what stood in its way."""
    if isinstance(problem.seen, Exception):
        raise problem.seen
    if problem.seen is None or problem.seen.at[0] is not problem.system or problem.seen.unseen:
        system = copy(problem.system)
        system.stats = Stats()
        problem.stats.checks += 1
        y, t = parts[next(iter(parts))], problem.ts[0]
        problem.seen = Seen(system, np.asarray(t) if isinstance(y, np.ndarray) else t, y, params, pulls=True)
        problem.seen.at = (problem.system, y, params)
    return problem.seen


def line(node: tuple) -> tuple:
    """An operation, in a form that can be compared."""
    op, slots, inputs, options, y = entry(node)
    if isinstance(y, tuple):
        raise NotTraceable(f"np.{op.name}, whose result depends on the values in its shape")
    return (DERIVATIVE, *slots, y.shape, y.dtype) if op.name == DERIVATIVE else (
        op, *[i if i >= 0 else content(x) for i, x in zip(slots, inputs, strict=True)], frozen(options) if options else ())


def content(x: Any) -> Any:
    return "number" if is_number(x) else ("constant", frozen(x))


class Following(Brought):
    """The same field in the trace of a step: what it brings along are inputs, or looked up.

    first : the number of parameters; what is brought along follows them.
    """

    def __init__(self, seen: Seen, first: int) -> None:
        super().__init__(seen.batch)
        self.seen, self.lifted = seen, seen.lifted
        self.examples: dict[Role, Any] = {("param", first + k): to_host(x) for k, x in enumerate(seen.extras)}
        self.first, self.asking = first, False
        self.evaluations: dict[Role, Any] = {}       # times, and the whole numbers made of them

    def begin(self, tape: Trace, tensors: dict) -> None:
        """A trace begins, with these inputs."""
        self.tape, self.tensors, self.evaluations = tape, tensors, {}

    def evaluate(self, coefficients: Callable, t: Any, y: Any, params: Any) -> tuple:
        self.k, self.m, self.time = 0, 0, t
        self.asked: list[Tensor] = []
        self.tape.brought = self
        try:
            outputs = tuple(self.result(x) for x in coefficients(t, y, params))
        finally:
            self.tape.brought = None
        if (self.k, self.m) != (len(self.seen.arrays), len(self.seen.numbers)):
            raise NotTraceable("a field that brings other arrays and numbers along from one evaluation to the next")
        if self.asked:
            place = len(self.evaluations)
            self.evaluations |= {("asked", place, j): x for j, x in enumerate((t, *self.asked))}
        return outputs

    def array(self, x: Any) -> Any:
        k, self.k = self.k, self.k + 1
        known = self.seen.arrays[k] if k < len(self.seen.arrays) else np.empty(0)
        if known.shape != x.shape or known.dtype != x.dtype:
            raise NotTraceable("a field that brings other arrays along from one evaluation to the next")
        if self.asked:
            return self.look_up("arrays", k, x)
        if not np.array_equal(to_host(x), to_host(known), equal_nan=x.dtype.kind == "f"):
            raise NotTraceable("a field whose arrays change from one evaluation to the next")
        return x if k in self.seen.pinned else self.tensors["param", self.first + k]

    def number(self, x: Any, tensors: list) -> Any:
        m, self.m = self.m, self.m + 1
        known = self.seen.numbers[m] if m < len(self.seen.numbers) else np.empty(0)
        found = np.asarray(x, dtype_of(x, tensors))
        if known.shape or known.dtype != found.dtype:
            raise NotTraceable("a field that brings other numbers along from one evaluation to the next")
        if self.asked:
            return self.look_up("numbers", m, found)
        if known.tobytes() != found.tobytes():
            raise NotTraceable("a field whose numbers change from one evaluation to the next")
        return self.tensors["param", self.first + len(self.seen.arrays) + self.lifted.index(m)] if m in self.lifted else x

    def ask(self, x: Tensor) -> Any:
        self.asked.append(x)
        return value_of(x)

    def look_up(self, kind: str, k: int, x: Any) -> Tensor:
        inputs = [self.time, *self.asked]
        options = {"kind": kind, "number": k}
        self.tape.nodes.append((LOOK_UP, [x.slot for x in inputs], [x._value for x in inputs], options, np.asarray(x)))
        return Tensor(np.asarray(x), self.tape, len(self.tape.nodes) - 1)

"""The programs of one step of a solve: forward, and back (reconstruct and pull back, as ONE program).

    forward    begin: carried <- parts;     step: parts, carried <- parts, carried
    search     the same, and of a controller's attempt the sums of squares of its errors (adaptive.py)
    back       begin: carried <- parts;     step: parts, cotangents, carried <- the same;     end: the carried cotangents

Carried is what a step leaves for the next one: the field's value at a part of the state that both read (reversible Heun,
Verlet), going back with what its pullback needs and the cotangents that have come in for it. Nothing here knows any
method: the methods run as they are, on tensors of a trace.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..adaptive import estimated, squares
from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import MANY, Each, NotTraceable, Op, Tape, Tensor, apply, entry, is_float, to_host, value_of
from ..methods.increment import Evaluator, Recorded, Recorder, System
from ..methods.shears import Shear, Step, near_pullback, pullback, undone
from ..stepping import CLOCK, Problem, Stats, one_step
from .fields import Following, seen_in
from .program import Program, Role, V, Value, ancestors, frozen, kinds, trace
from .rules import simplify, without_dead


@dataclass
class StepPrograms:
    """The programs of one direction; `carried` are roles of inputs and outputs of step."""
    begin: Program
    step: Program
    carried: list[Role]
    end: Program | None = None
    land: Program | None = None          # a step that lands on a stored state (methods that are nearly reversible)
    counts: dict[str, Stats] = field(default_factory=dict)
    begins: bool = False                 # whether the first step finds a field value, be it one of the parameters alone
    asked: list[Program] = field(default_factory=list)       # the whole numbers made of times, where the field uses such

    @property
    def programs(self) -> dict[str, Program]:
        """By name, without those that neither do anything nor stand for an evaluation."""
        all_of_them = {"begin": self.begin, "step": self.step, "land": self.land, "end": self.end}
        return {name: program for name, program in all_of_them.items()
                if program is not None and (program.outputs or (name == "begin" and self.begins))}


def following(system: System, brought: Any) -> System:
    """A copy of the system with counters of its own, which evaluates the field for programs."""
    own: Any = copy(system)
    own.stats = Stats()
    if own.derivative is not None:
        own.derivative = own.control.derivative                   # on the host, where programs are made
    evaluate = own.coefficients
    own.coefficients = lambda t, y, params: brought.evaluate(evaluate, t, y, params)
    return own


class Symbols:
    """What the traced functions of one problem need: its system with counters of its own, and its roles."""

    def __init__(self, problem: Problem, parts: dict, params: Any, brought: Any = None) -> None:
        self.problem, self.method = problem, problem.method
        self.leaves, self.structure = tree.flatten(params)
        self.brought = brought or Following(seen_in(problem, parts, params), len(self.leaves))
        self.system = following(problem.system, self.brought)
        self.asked: list[Program] = []
        self.floats = [i for i, x in enumerate(self.leaves) if is_float(x)]
        dtype = value_of(next(iter(parts.values()))).dtype
        n = 0
        h = np.asarray(problem.hs[n], dtype)
        self.examples: dict[Role, Any] = {("part", name): to_host(x) for name, x in parts.items()}
        self.examples |= {("param", i): to_host(self.leaves[i]) for i in self.floats}
        self.examples |= self.brought.examples
        self.examples |= {("step", "t0"): np.asarray(float(problem.ts[n])), ("step", "t1"): np.asarray(float(problem.ts[n + 1])),
                          ("step", "h"): h, ("step", "h_before"): h}
        if problem.driver is not None:
            given = problem.driver.given(n, problem.ts[n], problem.ts[n + 1], h, problem)
            self.examples |= {("drive", name): to_host(x) for name, x in given.items()}

    def trace(self, fn: Callable, examples: dict[Role, Any]) -> Program:
        """The program of fn, in which every field value finds what the field brings along."""
        def run(T: dict) -> dict:
            self.brought.begin(next(iter(T.values())).tape, T)
            results = fn(T)
            return {**results, **self.brought.evaluations}

        whole = trace(run, examples)
        asked = {role: v for role, v in whole.outputs.items() if role[0] == "asked"}
        if asked:
            alone = simplify(Program(whole.values, asked))
            found = kinds(alone)
            if any(not isinstance(v, V) or found[v] != "step" for v in alone.outputs.values()):
                raise NotTraceable("whole numbers, made of more than the time, as an index or in Python")
            self.asked.append(alone)
        return Program(whole.values, {role: v for role, v in whole.outputs.items() if role not in asked}, whole.notes)

    def outline(self, fn: Callable, examples: dict[Role, Any]) -> Program:
        """trace(), where the field is one operation: what a method does with its values, which is all that is asked."""
        kept, opaque = (self.system, self.brought), Opaque(self.brought.seen.values)
        if not all(hasattr(x, "shape") for x in opaque.values):                                # an adjoint's, beside its pullback
            return self.trace(fn, examples)
        self.system, self.brought = following(self.problem.system, opaque), opaque
        self.system.stats = opaque.stats = kept[0].stats
        try:
            return self.trace(fn, examples)
        finally:
            self.system, self.brought = kept

    def counted(self) -> Stats:
        """Begin to count evaluations."""
        self.system.stats = Stats()
        return self.system.stats

    def params(self, T: dict) -> Any:
        leaves = list(self.leaves)
        for i in self.floats:
            leaves[i] = T["param", i]
        return tree.unflatten(self.structure, leaves)

    def parts(self, T: dict) -> dict:
        return {name: T["part", name] for name in self.method.parts}

    def step(self, T: dict, clock: dict | None = None) -> Step:
        h, driver = T["step", "h"], self.problem.driver
        if driver is None:
            return Step(*(clock[name] if clock else T["step", name] for name in CLOCK))
        return Step(T["step", "t0"], T["step", "t1"], driver.join(h, {r[1]: x for r, x in T.items() if r[0] == "drive"}), None)

    def recorder(self, T: dict) -> Recorder:
        return Recorder(self.system, self.params(T), [T["aparam", i] for i in self.floats])

    def of_back(self) -> dict[Role, Any]:
        """The examples of the reverse sweep: the cotangents and the running sums for the parameters besides."""
        more: dict[Role, Any] = {("cotangent", role[1]): np.zeros_like(x) for role, x in self.examples.items() if role[0] == "part"}
        if not self.method.exactly_reversible:
            zero = np.zeros_like(more["cotangent", "y"])
            more |= {("missed", "largest"): zero, ("missed", "weighed"): zero}
        return {**self.examples, **more, **{("aparam", i): np.zeros_like(self.examples["param", i]) for i in self.floats}}


    def pulled(self, T: dict, parts: dict) -> tuple[dict, dict]:
        """A step that stands by itself, taken from these parts: the parts after it; and the cotangents before it, the sums for the
        parameters, and where they are asked for the cotangents of its clock."""
        def one(parts: dict, p: Any, *clock: dict) -> dict:
            return one_step(self.method, self.step(T, *clock), parts, Evaluator(self.system, p))

        clock = ({name: T["step", name] for name in CLOCK},) if self.problem.timed else ()
        before = self.system.stats.nfe
        after, pull = vjp(one, parts, self.params(T), *clock)
        self.system.stats.nvjp += self.system.stats.nfe - before
        cotangent, a_params, *a_clock = pull({name: T["cotangent", name] for name in self.method.parts})
        found = tree.flatten(a_params)[0]
        sums = {i: T["aparam", i] + found[i] if type(found[i]) is Tensor else T["aparam", i] for i in self.floats}
        return after, {**{("cotangent", name): a for name, a in cotangent.items()}, **{("aparam", i): a for i, a in sums.items()},
                       **{("atime", name): a for of in a_clock for name, a in of.items() if type(a) is Tensor}}


PULLED = Op("pulled", lambda g, x: np.zeros_like(x), ())
FIELD = Op("field", lambda *inputs, output, shape, dtype: np.ones(shape, dtype),
           Each(lambda i, g, y, *inputs, **options: apply(PULLED, g, inputs[i])))


class Opaque:
    """Stands for the field where only the method is looked at: its values are one operation."""
    examples: ClassVar[dict] = {}
    evaluations: ClassVar[dict] = {}

    def __init__(self, values: list) -> None:
        self.values, self.stats = values, Stats()

    def begin(self, tape: Any, tensors: dict) -> None:
        """Nothing is brought along."""

    def evaluate(self, coefficients: Callable, t: Any, y: Any, params: Any) -> tuple:
        self.stats.nfe += 1
        inputs = [x for x in (t, y, *tree.flatten(params)[0]) if type(x) is Tensor]
        return tuple(apply(FIELD, *inputs, output=j, shape=x.shape, dtype=x.dtype) for j, x in enumerate(self.values))


def traced_method(problem: Problem, parts: dict, params: Any) -> Any:
    """A method as its step shows it, for methods that are not the library's own: its operations, in a form that can be compared."""
    S = Symbols(problem, parts, params, Opaque(problem.seen.values))
    method = S.method
    shape: list[tuple] = []

    def step(T: dict) -> dict:
        at = S.step(T)
        if method.exactly_reversible:
            shape.extend((x.target, x.reads, x.scale, x.about) if type(x) is Shear else tuple(x) for x in method.word(at))
        return {("part", name): x for name, x in one_step(method, at, S.parts(T), Evaluator(S.system, S.params(T))).items()}

    made = S.trace(step, S.examples)
    lines = tuple((x.role, x.op, tuple(int(a) if isinstance(a, V) else ("constant", frozen(a)) for a in x.args), frozen(x.options),
                   x.shape, x.dtype) for x in made.values)
    outputs = tuple((role, int(v) if isinstance(v, V) else ("constant", frozen(v))) for role, v in made.outputs.items())
    return (method.parts, method.outputs, method.correct, tuple(shape), lines, outputs)


def forward_steps(problem: Problem, parts: dict, params: Any, merge: bool = False, searches: bool = False) -> StepPrograms:
    """The programs of a step forward; parts: an example of the state."""
    S = Symbols(problem, parts, params)
    carried: dict[Role, Any] = {}           # role -> example
    memo: dict = {}
    most: dict = {}                         # how large numbers have been, where exact mode asks
    again = searches and not S.method.exactly_reversible       # a flow leaves the field value at its start, for the next attempt
    tolerances = [("param", len(S.leaves) + len(S.brought.examples) + j) for j in range(2)]
    if searches:
        S.examples |= dict(zip(tolerances, problem.tolerances, strict=True))

    def step(T: dict) -> dict:
        asked = None if problem.flushed is None else {role[1]: x for role, x in T.items() if role[0] == "most"}
        F = Evaluator(S.system, S.params(T), asked)
        at = S.step(T)
        for _, name, j in carried:
            values = F.memo.setdefault(name, {}).setdefault(at.t0, [])
            values.insert(j, T["carry", name, j])
        before, found = S.parts(T), {}
        if searches:
            after, errors = estimated(S.method, at, before, F)
            y, y1 = before[S.method.outputs[0]], after[S.method.outputs[0]]
            found = {("error", j): squares(e, y, y1, *(T[role] for role in tolerances)) for j, e in enumerate(errors)}
        else:
            after = one_step(S.method, at, before, F)
        memo.clear()
        most.update({("most", name): x for name, x in (asked or {}).items()})
        t = at.t0 if again else at.t1
        memo.update({name: values[t] for name, values in F.memo.items() if t in values})
        return {**{("part", name): x for name, x in after.items()}, **found, **most, **{
            ("carry", name, j): f for name, values in memo.items() for j, f in enumerate(values) if not again}}

    def begin(T: dict) -> dict:
        F = Evaluator(S.system, S.params(T))
        found: dict[Role, Any] = {}
        for name in {name: None for _, name, _ in carried}:
            y, = F.read((name,), S.parts(T))
            found |= {("carry", name, j): f for j, f in enumerate(F.at(T["step", "t0"], y))}
        return found

    S.outline(step, S.examples)
    carried = {("carry", name, j): np.asarray(value_of(f)) for name, values in memo.items() for j, f in enumerate(values)}
    zeros = {role: np.zeros_like(S.examples["part", role[1].lstrip("+")]) for role in most}
    counts = {"step": S.counted()}
    traced = S.trace(step, {**S.examples, **carried, **zeros})
    counts["begin"] = S.counted()
    first = S.trace(begin, S.examples)
    return finished(StepPrograms(first, traced, list(carried), counts=counts, asked=S.asked), merge)


def search_steps(problem: Problem, parts: dict, params: Any, merge: bool = False) -> StepPrograms:
    """The programs of an attempt; problem: with a grid of one step."""
    steps = forward_steps(problem, parts, params, merge, searches=True)
    if steps.asked:
        raise NotTraceable("whole numbers made of the time, where steps are adaptive")
    return steps


def backward_steps(problem: Problem, parts: dict, params: Any, merge: bool = False) -> StepPrograms:
    """The programs of a step back; parts: an example of the state."""
    if problem.timed:
        return undone_steps(problem, parts, params, merge)
    with suppress(NotTraceable):                      # some cotangents may be none, as of a field that does not depend on the state
        return steps_back(problem, parts, params, merge, Symbols.outline)
    return steps_back(problem, parts, params, merge, Symbols.trace)


def steps_back(problem: Problem, parts: dict, params: Any, merge: bool, look: Callable) -> StepPrograms:
    """The same; look: how to find out what a step leaves for the next one. Raises NotTraceable where an outline does not tell."""
    S = Symbols(problem, parts, params)
    examples = S.of_back()
    near = not S.method.exactly_reversible
    carry: Carry | None = None
    left: dict = {}

    def step(T: dict) -> dict:
        R = S.recorder(T)
        at = S.step(T)
        if carry is not None:
            R.memo = carry.memo(T, at.t1)
        cotangent: dict = {name: T["cotangent", name] for name in S.method.parts}
        more: dict[Role, Any] = {}
        if near:
            known = {"y": T["known", "y"]} if ("known", "y") in T else None
            parts, cotangent, defect = near_pullback(S.method, at, S.parts(T), cotangent, R, known)
            more = missed(T, defect) if known is None else {}
        else:
            parts, cotangent = pullback(S.method.word(at), S.parts(T), cotangent, R)
            R.expire((at.t0,), cotangent)
        left.clear()
        left.update({name: values[at.t0] for name, values in R.memo.items() if at.t0 in values})
        taken = Carry(left, T, {"y": T["known", "y"]} if ("known", "y") in T else parts, at.t0)
        if carry is not None:
            carry.same_as(taken)
        left["taken"] = taken
        if ("known", "y") in T:                   # what is known is the state from here on, also for what is pending
            more = {("landed", "y"): parts["y"]}
            parts = {"y": T["known", "y"]}
        return {**{("part", name): x for name, x in parts.items()}, **{("cotangent", name): x for name, x in cotangent.items()},
                **{("aparam", i): a for i, a in zip(S.floats, R.aparams, strict=True)}, **taken.outputs, **more}

    def begin(T: dict) -> dict:
        R = S.recorder(T)
        t1 = T["step", "t1"]
        values = {}
        for name, pending in pattern.items():
            y, = R.read((name,), S.parts(T))
            R.at(t1, y)
            values[name] = R.memo[name][t1]
            values[name].pending = [np.zeros_like(value_of(y)) if there else None
                                    for y, there in zip(values[name].outputs, pending, strict=True)]
        left["taken"] = Carry(values, T, S.parts(T), t1)
        return left["taken"].outputs

    def end(T: dict) -> dict:
        R = S.recorder(T)
        assert carry is not None
        R.memo = carry.memo(T, T["step", "t0"])
        cotangent: dict = {name: T["cotangent", name] for name in S.method.parts}
        R.flush_all(cotangent)
        return {**{("cotangent", name): x for name, x in cotangent.items()},
                **{("aparam", i): a for i, a in zip(S.floats, R.aparams, strict=True)}}

    alone = S.counted()
    look(S, step, examples)
    pattern = {name: [g is not None for g in value.pending] for name, value in left.items() if name != "taken"}
    first, last, land, counts = Program([], {}), None, None, {}
    if pattern:
        S.counted()
        first = S.trace(begin, examples)
        carry = left["taken"]
        if look is Symbols.outline and not carry.moves:
            raise NotTraceable("a field that is not pulled back")
        with_carry = {**examples, **carry.examples}
        counts["step"] = S.counted()
        traced = S.trace(step, with_carry)
        # The first step back needs what a step needs that finds nothing pending; begin makes up the difference. (It evaluates
        # the field also where only its cotangent is carried, which is zero then: that evaluation and pullback do nothing.)
        counts["begin"] = Stats(nfe=alone.nfe - counts["step"].nfe, nvjp=alone.nvjp - counts["step"].nvjp)
        counts["end"] = S.counted()
        last = S.trace(end, with_carry)
    else:
        counts["step"] = S.counted()
        traced, with_carry = S.trace(step, examples), examples
    if near:
        counts["land"] = S.counted()
        land = S.trace(step, {**with_carry, ("known", "y"): examples["part", "y"]})
    return finished(StepPrograms(first, traced, list(carry.examples) if carry else [], last, land, counts, asked=S.asked), merge)


def missed(T: dict, defect: Any) -> dict:
    """What a step back did not undo, and the cotangent that was there."""
    off = abs(defect)
    return {("missed", "largest"): np.maximum(T["missed", "largest"], off),
            ("missed", "weighed"): T["missed", "weighed"] + abs(T["cotangent", "y"]) * off}


def undone_steps(problem: Problem, parts: dict, params: Any, merge: bool = False) -> StepPrograms:
    """The programs of a step back where the times are asked for: undone, and then pulled back by itself."""
    S = Symbols(problem, parts, params)
    examples, near, names = S.of_back(), not S.method.exactly_reversible, S.method.parts

    def step(T: dict) -> dict:
        before = undone(S.method, S.step(T), S.parts(T), Evaluator(S.system, S.params(T)))
        known = {"y": T["known", "y"]} if ("known", "y") in T else None
        after, found = S.pulled(T, known or before)
        if known is not None:
            return {**found, ("part", "y"): known["y"], ("landed", "y"): before["y"]}
        off = missed(T, T["part", "y"] - after["y"]) if near else {}
        return {**found, **{("part", name): before[name] for name in names}, **off}

    counts, land = {"step": S.counted()}, None
    traced = S.trace(step, examples)
    if near:
        counts["land"] = S.counted()
        land = S.trace(step, {**examples, ("known", "y"): examples["part", "y"]})
    return finished(StepPrograms(Program([], {}), traced, [], land=land, counts=counts, asked=S.asked), merge)


def pull_steps(problem: Problem, parts: dict, params: Any, merge: bool = False) -> StepPrograms:
    """The program of the pullback of a step at the parts before it, which are known; each step stands by itself."""
    S = Symbols(problem, parts, params)
    counts = S.counted()
    examples = {role: x for role, x in S.of_back().items() if role[0] != "missed"}
    examples = {("state", role[1]) if role[0] == "part" else role: x for role, x in examples.items()}

    traced = S.trace(lambda T: S.pulled(T, {name: T["state", name] for name in S.method.parts})[1], examples)
    return finished(StepPrograms(Program([], {}), traced, [], counts={"step": counts}, asked=S.asked), merge)


DIRECTIONS = {"forward": forward_steps, "search": search_steps, "backward": backward_steps, "pull": pull_steps}


class Carry:
    """The field values that a step back leaves for the next one, taken apart into arrays and put together again.

    values: part -> Recorded, on a trace whose inputs are T. A position of a recording (an output, a pending cotangent, a
    value on its tape) is a part of the state, a parameter, the time, a constant, or one of the carried arrays.
    """

    def __init__(self, values: dict[str, Recorded], T: dict, parts: dict, t: Any) -> None:
        self.values = values
        tapes = next(iter(T.values())).tape
        known: dict[int, Role] = {x.slot: role for role, x in T.items() if role[0] == "param"}
        known[t.slot] = ("time",)
        known |= {x.slot: ("part", name) for name, x in parts.items() if type(x) is Tensor}
        self.roles: list[Any] = []
        self.outputs: dict[Role, Any] = {}
        self.examples: dict[Role, Any] = {}
        for name, value in values.items():
            for k, x in enumerate(positions(value)):
                if type(x) is not Tensor or x.tape is not tapes:
                    if not isinstance(x, np.ndarray) or ("pending" not in (place := where(value, k))):
                        self.roles.append("constant")
                        continue
                    role: Role = ("carry", name, place)                    # begin: pending cotangents are zeros
                    self.outputs[role], self.examples[role] = x, x
                    self.roles.append(role)
                    continue
                role = known.setdefault(x.slot, ("carry", name, where(value, k)))
                if role[0] == "carry":
                    self.outputs[role], self.examples[role] = x, np.asarray(x._value)
                self.roles.append(role)

    @property
    def moves(self) -> bool:
        """Whether all that the field returned depends on the state or on parameters."""
        return all(type(y) is Tensor and y.tape is value.tape for value in self.values.values() for y in value.outputs)

    def same_as(self, other: Carry) -> None:
        if self.roles != other.roles:
            raise NotTraceable("field values that a step leaves in another form than it finds them")

    def memo(self, T: dict, t: Any) -> dict:
        """The memo of a recorder whose trace has the inputs T, at time t."""
        roles = iter(self.roles)

        def put(x: Any) -> Any:
            role = next(roles)
            return x if role == "constant" else t if role == ("time",) else T[role]

        return {name: {t: replaced(value, put)} for name, value in self.values.items()}


def positions(value: Recorded) -> list:
    found: list = []

    def see(x: Any) -> Any:
        found.append(x)
        return x

    replaced(value, see)
    return found


def where(value: Recorded, k: int) -> str:
    n = len(value.outputs)
    return f"output {k}" if k < n else f"pending {k - n}" if k < 2 * n else f"tape {k - 2 * n}"


def replaced(value: Recorded, put: Any) -> Recorded:
    """A copy of a recorded field value with put(x) in the place of every array x, in a fixed order."""
    tape: Any = Tape()
    outputs = [(y.slot, put(y._value)) if type(y) is Tensor and y.tape is value.tape else (-1, put(y)) for y in value.outputs]
    pending = [put(g) for g in value.pending]
    nodes: list = []
    for node in value.tape.nodes:
        if node is None:
            nodes.append(None)
            continue
        op, slots, values, options, y = entry(node)
        values = [put(x) for x in values]
        if op is MANY:
            nodes.append((op, slots, values, {"pull": options["pull"].replaced(put)}, [put(x) for x in y]))
        else:
            nodes.append((op, slots, values, options, put(y)))
    tape.nodes = nodes
    return Recorded(tape, value.inputs, [Tensor(y, tape, slot) if slot >= 0 else y for slot, y in outputs], pending)


def finished(steps: StepPrograms, merge: bool) -> StepPrograms:
    """Simplified, without carried arrays that nobody reads."""
    recompute(steps)
    users = [steps.step, *(p for p in (steps.end, steps.land) if p is not None)]
    carried = list(steps.carried)
    while True:
        users = [simplify(without(p, carried), merge) for p in users]
        read = {role for p in users for role in p.inputs}
        if all(role in read for role in carried):
            break
        carried = [role for role in carried if role in read]
    steps.carried = carried
    steps.step = users[0]
    rest = iter(users[1:])
    steps.end = next(rest) if steps.end is not None else None
    steps.land = next(rest) if steps.land is not None else None
    steps.begin = simplify(without(steps.begin, carried), merge)
    return steps


def recompute(steps: StepPrograms) -> None:
    """Values of the parameters alone are not carried but computed where they are read: that is, once a solve."""
    source, found = steps.step, kinds(steps.step)
    fixed = {role: v for role in steps.carried if isinstance(v := source.outputs.get(role), V) and found[v] == "param"}
    read = without_dead(without(source, [])).inputs
    steps.begins = any(role in read for role in fixed)
    for name in ("step", "land", "end"):
        program = getattr(steps, name)
        if program is not None and any(role in fixed for role in program.inputs):
            setattr(steps, name, behind(source, fixed, program))
    steps.carried = [role for role in steps.carried if role not in fixed]


def behind(source: Program, fixed: dict[Role, V], program: Program) -> Program:
    """The program, with what the fixed values of `source` are computed from before its own, and reading these there."""
    needed = ancestors(source, fixed.values())
    first = {i: V(k) for k, i in enumerate(needed)}
    values = [on(source.values[i], first) for i in needed]
    inputs = {x.role: V(k) for k, x in enumerate(values) if x.role is not None}
    inputs |= {role: first[int(v)] for role, v in fixed.items()}
    at: dict[int, V] = {}
    for i, x in enumerate(program.values):
        if x.role is None or x.role not in inputs:
            values.append(on(x, at))
            at[i] = V(len(values) - 1)
        else:
            at[i] = inputs[x.role]
    return Program(values, {role: at[v] if isinstance(v, V) else v for role, v in program.outputs.items()})


def on(x: Value, at: Mapping[int, V]) -> Value:
    """The value, of arguments that have come to other places."""
    return x._replace(args=tuple(at[a] if isinstance(a, V) else a for a in x.args))


def without(program: Program, carried: list[Role]) -> Program:
    """The program without the outputs that are carried to nobody."""
    return Program(program.values, {role: v for role, v in program.outputs.items() if role[0] != "carry" or role in carried},
                   program.notes)

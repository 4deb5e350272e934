"""Programs that are kept for the next solve, by what they are made from; and the check that they still are the field.

    programs        visible, and emptied by programs.clear()

The name of a program is the trace of its field (fields.py), the method, and the shapes, dtypes and options that its text depends
on. A number of the field is part of the name as long as it stays the same; where a second trace has the same operations and another
number, that number becomes an input, and the programs are made once more, for the last time.

One step of a solve is compared with the tape, from the state that the sweep begins with, at a place of the grid that moves from
solve to solve: in every solve where that costs little beside it, and else in as many as keep it to some percent.
Each thread has runners of its own, whose memory nobody else sees.
"""
from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from copy import copy
from dataclasses import fields, is_dataclass
from functools import cached_property
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..adaptive import OnTape, as_step, weight
from ..beside import parted
from ..engine import tree
from ..engine.tensor import Tape, is_float, value_of
from ..methods.increment import Evaluator, System
from ..stepping import Problem, Stats, one_step
from ..watch import size
from .fields import Seen, seen_in
from .program import interpret, kinds
from .replay import CHUNK, Grid, given
from .steps import traced_method

KEPT = 64                  # kinds of solves whose programs are kept
GOLDEN = 0.6180339887498949
ALWAYS = 8                 # so many solves with a program are compared in any case
SEARCHED = 50              # steps that are counted where nobody knows yet how many there will be
SIDES = 1.0, -0.7          # of zero, where states are looked at that lie elsewhere
BACK = 4                   # a step back on the tape costs so many forward


class Disagreement(AssertionError):
    """A program is not the field: raised in tests, where programs.strict is set."""


class Made:
    """The programs of one direction, and a runner of them for each thread."""

    def __init__(self, steps: Any) -> None:
        self.steps = steps
        self.here = threading.local()              # .runner: its memory belongs to one thread
        self.solves = 0                            # of which the first and then some are compared with the tape

    def check_tables(self, problem: Problem) -> None:
        """Evaluate the field where it looks up tables on this grid. Raises NotTraceable."""
        for program in self.steps.asked:
            grid = Grid(program, kinds(program))
            for first in range(0, problem.N, CHUNK):
                at = grid.tables(problem, first, min(first + CHUNK, problem.N))
                values = {role[1:]: at[v] for role, v in program.outputs.items()}
                for place in {place for place, _ in values}:
                    rows = [x for (where, j), x in sorted(values.items(), key=lambda item: item[0][1]) if where == place]
                    problem.seen.looked_up(rows[0], rows[1:])


class Family:
    """The programs of one kind of solve: all of them, whatever the numbers that are inputs."""

    def __init__(self, key: Any, numbers: tuple, lifted: tuple[int, ...] = (), steps: int = 0) -> None:
        self.key, self.numbers, self.lifted, self.steps = key, numbers, lifted, steps
        self.made: dict[str, Made | None] = {}     # by direction; None: cannot be made
        self.works: dict[str, Any] = {}            # the directions that are being compiled (promote.py)
        self.promotion: Any = None                 # of "auto": when native code takes over (promote.py)

    def native(self, name: str) -> dict[str, Made | None]:
        """What runs natively, by direction: with the backend of this name, or since it was promoted."""
        return self.made if name == "native" else {} if self.promotion is None or self.promotion.off else self.promotion.made

    def for_numbers(self, numbers: tuple) -> Family:
        """This family, or another one, in which the numbers that have changed are inputs."""
        if numbers == self.numbers:
            return self
        changed = {m for m, (a, b) in enumerate(zip(self.numbers, numbers, strict=True)) if a != b and m not in self.lifted}
        return self if not changed else Family(self.key, numbers, tuple(sorted({*self.lifted, *changed})), self.steps)


class Programs:
    """Families of programs by their key, the least recently used forgotten first."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept, self.families, self.strict = kept, OrderedDict[Any, Family](), False
        self.lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.unlock)

    def unlock(self) -> None:
        self.lock = threading.Lock()               # a fork may have been made while another thread held it

    def get(self, key: Any) -> Family | None:
        with self.lock:
            family = self.families.get(key)
            if family is not None:
                self.families.move_to_end(key)
            return family

    def put(self, key: Any, family: Family) -> Family:
        with self.lock:
            self.families[key] = family
            self.families.move_to_end(key)
            while len(self.families) > self.kept:
                self.families.popitem(last=False)
        return family

    def forget(self, key: Any) -> None:
        with self.lock:
            self.families.pop(key, None)

    def clear(self) -> None:
        with self.lock:
            self.families.clear()

    def __len__(self) -> int:
        return len(self.families)

    def find(self, key: Any, numbers: tuple) -> Family:
        """The family of a solve, a new one if need be."""
        before = self.get(key)
        family = Family(key, numbers) if before is None else before.for_numbers(numbers)
        return family if family is before else self.put(key, family)


programs = Programs()
places = count()           # of the fields that are looked at on the tape


# what a program is made from

class Key(tuple):
    """A tuple whose hash is computed once: that of a trace takes as long as many look-ups."""

    @cached_property
    def hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self.hash


def key_of(backend: tuple, problem: Problem, parts: dict, params: Any) -> Key:
    """Everything that the programs of a solve are made from, but for the numbers of the field. Raises NotTraceable."""
    seen, system, driver = problem.seen, problem.system, problem.driver
    driven = None
    if driver is not None:
        path = ((), 0) if driver.control is None else np.shape(driver.control.values)
        driven = type(driver), inside(problem), driver.shape, path[:-2], path[-1]
    tolerances = tuple(x.shape for x in problem.tolerances)
    return Key((backend, tolerances, declared(problem, parts, params), system.signature, seen.key, problem.timed,
                tuple((name, x.shape, x.dtype) for name, x in parts.items()), driven))


def key_again(backend: tuple, problem: Problem, parts: dict, params: Any) -> Key:
    """key_of(), which is that of the last solve of this kind where the trace is the same."""
    seen, method, kind = problem.seen, problem.method, type(problem.system)
    shapes = [(name, x.shape, x.dtype) for name, x in parts.items()]
    before = problem.kin.get(backend)
    plain = kind is System and problem.driver is None and problem.adaptive is None and not problem.timed
    if plain and before is not None and before[0] is method and before[1] == shapes and before[2] == seen.key:
        return before[3]
    key = key_of(backend, problem, parts, params)
    if plain:
        problem.kin[backend] = method, shapes, seen.key, key, problem.copies
    return key


def family_of(backend: tuple, problem: Problem, parts: dict, params: Any) -> Family:
    """The programs of this kind of solve. Raises NotTraceable."""
    seen = seen_in(problem, parts, params)
    if seen.family is None:
        seen.family = programs.find(key_again(backend, problem, parts, params), seen.fixed)
        seen.lifted = seen.family.lifted
    return seen.family


def inside(problem: Problem) -> bool:
    """Whether generated code makes the noise itself: that of Brownian, and of no other path."""
    from ..paths import Brownian
    return problem.driver is not None and type(problem.driver.path) is Brownian


def declared(problem: Problem, parts: dict, params: Any) -> Any:
    """The method: its own numbers, for those of the library; the step that it makes, traced, for all others."""
    return problem.method if own(problem.method) else traced_method(problem, parts, params)


def own(x: Any) -> bool:
    """Whether a method, and what it is made of, is the library's."""
    if isinstance(x, (list, dict, np.ndarray)) or callable(x):
        return False
    if not is_dataclass(x):
        return True
    return type(x).__module__.startswith(("revode.methods.", "revode.exact")) and all(
        own(getattr(x, field.name)) for field in fields(x))


# looking at the field

def glance(problem: Problem, y: Any, params: Any) -> bool:
    """Look at a field as `check_field` does: whether all is as it should be, to the last bit. If not it says why, as ever."""
    system, stats, t = problem.system, problem.stats, problem.ts[0]
    try:
        f = system.coefficients(t, y, params)[0]
        seen: Any = Seen(system, np.asarray(t), y, params)
    except Exception:
        return False
    again = seen.values[0]
    problem.seen, stats.nfe, stats.checks = seen, 0, 2
    return bool(type(f) is np.ndarray is type(again) and f is not again and f.base is None is again.base and f.dtype == again.dtype
                and math.isfinite(np.vdot(f, f)) and f.tobytes() == again.tobytes())


def look_again(problem: Problem, system: Any, t: Any, y: Any, params: Any, f: Any) -> Any:
    """The field's value at (t, y) once more, of a trace where that can be had: f itself where only rounding differs.

    Raises TypeError for a field that treats tensors otherwise than arrays; in exact mode, if one bit differs.
    """
    checks = system.stats.nfe + 1
    alike = same if problem.method.inner is problem.method else in_bits
    if not hasattr(f, "dtype"):                    # the caller has something to say about that
        system.stats.nfe = checks
        return f
    raw = raw_of(system)
    try:
        seen: Any = Seen(raw, np.asarray(t) if isinstance(y, np.ndarray) else t, y, params)
        again = seen.values[0]
        if raw is system:
            problem.seen = seen
    except Exception as error:                  # the tape will say it in the user's own terms, if it cannot do it either
        problem.seen = error
        again = on_tape(raw, t, y, params)
    try:
        if again is not None and not alike(f, again):
            other = raw.coefficients(t, y, params)[0]
            if alike(f, other):
                raise unlike(t, *parted(system.field, system.time(t), y if system.unpack is None else system.unpack(y), params))
            return other                           # another value each time
        if again is None:
            return raw.coefficients(t, y, params)[0]
        return f if not isinstance(f, np.ndarray) else again if np.may_share_memory(f, again) else f.copy()
    finally:
        system.stats.nfe = checks


def raw_of(system: Any) -> Any:
    """What evaluates to what the field returned: a smooth control is joined to that (driving.py)."""
    if not system.smooth:
        return system
    return SimpleNamespace(coefficients=super(type(system), system).coefficients)


def on_tape(system: Any, t: Any, y: Any, params: Any) -> Any:
    """The field's value where y and the parameters are tensors; None where it has none for them."""
    tape = Tape()
    try:
        found = system.coefficients(t, tape.input(y), tree.map(lambda x: tape.input(x) if is_float(x) else x, params))[0]
    except Exception:
        return None
    return value_of(found)


def unlike(t: Any, operation: str = "", line: str = "") -> TypeError:
    at = f" from {operation}{line}" if operation else line
    return TypeError(f"solve: the field has one value for an array y and another one for a tensor (at t={t:.6g}{at and ','}{at}), so "
                     "that its gradient would be that of another field; " + (
        "with exact=True they may not differ in one bit. A power of a number is rounded otherwise than that of an array: write "
        "products, k * k * k, or give numbers as arrays of shape (1,)" if operation else
        "write it for whatever behaves like an array, without isinstance(y, np.ndarray) or type(y): y.shape, np.shape(y) and NumPy's "
        "functions do"))


def in_bits(f: Any, g: Any) -> bool:
    """Whether two values of a field are the same, to the last bit: what exact mode needs, whose way back is on tensors."""
    return bool(same(f, g) and ((f == g) | ((f != f) & (g != g))).all())


def same(f: Any, g: Any) -> bool:
    """Whether two values of a field are the same, up to rounding."""
    f, g = np.asarray(f) if not hasattr(f, "dtype") else f, np.asarray(g) if not hasattr(g, "dtype") else g
    if f.shape != g.shape or f.dtype != g.dtype:
        return False
    if bool((f == g).all()):
        return True
    with np.errstate(all="ignore"):
        eps, off = float(np.finfo(f.dtype).eps) if f.dtype.kind == "f" else 0.0, abs(f - g)
        allowed = eps ** 0.5 * abs(f) + 1e3 * eps * abs(f).max()
        return bool(((off <= allowed) | ((f != f) & (g != g)) | (f == g)).all())


def look_elsewhere(problem: Problem, params: Any, ys: tuple, parts: dict) -> None:
    """Compare arrays with tensors at the end of a march, and at a saved state that moves from solve to solve. Raises TypeError."""
    name, save = problem.method.outputs[0], problem.save
    looks = [(problem.ts[-1], parts[name])]
    if len(save) > 1:
        k = 1 + int(next(places) * GOLDEN % 1 * (len(save) - 1))
        looks.append((problem.ts[save[k]], ys[0][k]))
    system, plain = copy(problem.system), tree.map(value_of, params)
    system.stats = Stats()
    raw = raw_of(system)
    for t, y in looks:
        y = value_of(y)
        try:
            with np.errstate(all="ignore"):
                f = raw.coefficients(t, y, plain)[0]
                g = on_tape(raw, t, y, plain)
                differ = g is not None and hasattr(f, "dtype") and not same(f, g) and same(f, raw.coefficients(t, y, plain)[0])
        except Exception:                          # not defined there
            differ = False
        if differ:
            raise unlike(t)
    problem.stats.checks += system.stats.nfe


# looking at a step

def agree(runner: Any, direction: str, problem: Problem, parts: dict, params: Any, n: int) -> bool:
    """Raise NotTraceable if step n of the runner, from these parts, is not that of the tape; False where that is not defined."""
    leaves = tree.flatten(params)[0]
    floats = [i for i, x in enumerate(leaves) if is_float(x)]
    own: Any = copy(problem)
    own.__dict__.pop("rows", None)
    own.save, own.stats, own.system, own.backend = (), Stats(), copy(problem.system), None
    own.system.stats = own.stats
    with np.errstate(all="ignore"):
        ahead = direction in ("forward", "search")
        seeds = {} if ahead else {name: np.asarray(0.5 + irregular(x.shape), x.dtype) for name, x in parts.items()}
        try:
            wanted = one_eagerly(own, direction, n, parts, seeds, params, floats)
        except Exception:                         # nothing to compare with
            return False
        problem.stats.checks += own.stats.nfe
        runner.load(own, params, parts, seeds)
        take(runner, direction, own, parts, n)
        for kind, arrays in wanted.items():
            found = runner.read(kind)
            # A gradient may be the rounding that is left of terms which cancel: those are as large as state, parameters and seeds.
            terms = [] if kind == "part" else [*parts.values(), *seeds.values(), *(np.asarray(leaves[i]) for i in floats)]
            terms = [beside_tolerance(problem, parts)] if kind == "norm" else terms
            largest = max((size(x) for x in (*arrays.values(), *terms) if x.size), default=0.0)
            if not np.isfinite(largest):
                return False
            for name, x in arrays.items():
                eps = float(np.finfo(x.dtype).eps)
                step = abs(x - parts[name]) if kind == "part" else abs(x)
                allowed = (1e-6 if eps < 1e-10 else 1e-3) * step + 1e4 * eps * largest
                if not np.all(abs(found[name] - x) <= allowed):
                    if program_is_right(runner.steps, direction, problem, parts, seeds, params, n, wanted):
                        raise Disagreement(f"step {n} of what was generated is not that of its program ({kind} {name}), which is the "
                                           "field; this is a fault of revode's, so please report it")
                    raise Disagreement(f"step {n} of the program is not that of the field ({kind} {name}), which uses values that a "
                                       "program does not see (random numbers, or what changes from call to call)")
    return True


def take(runner: Any, direction: str, problem: Problem, parts: dict, n: int) -> None:
    """Step n by a runner."""
    if direction == "forward":
        runner.ahead(n, n + 1)
    elif direction == "search":
        runner.attempt(problem.ts[n], problem.ts[n + 1], problem.h(n), problem.h(n))
    elif direction == "backward":
        runner.back(n + 1, n, (), None, True)
    else:
        runner.pull(n + 1, n, (), {name: x[None] for name, x in parts.items()})


def beside_tolerance(problem: Problem, parts: dict) -> Any:
    """The solution in units of its tolerances: in the error of a step terms as large as that cancel."""
    y = abs(parts[problem.method.outputs[0]])
    return y / weight(y, *problem.tolerances)


def program_is_right(steps: Any, direction: str, problem: Problem, parts: dict, seeds: dict, params: Any, n: int,
                     wanted: dict) -> bool:
    """Whether the programs, operation by operation, give the parts that the tape gave: then what was generated is at fault."""
    h, edge = problem.h(n), direction in ("forward", "search")
    at: dict = {(kind, name): x for name, x in parts.items() for kind in ("part", "state")}
    at |= {("cotangent", name): x for name, x in seeds.items()}
    at |= {("param", i): x for i, x in enumerate(given(problem, params))}
    at |= {("aparam", i): np.zeros_like(x) for i, x in enumerate(tree.flatten(params)[0]) if is_float(x)}
    at |= {("step", "t0"): problem.ts[n], ("step", "t1"): problem.ts[n + 1], ("step", "h"): h, ("defect",): np.zeros_like(h),
           ("step", "h_before"): problem.h(n - 1) if n else problem.h_before}
    if problem.driver is not None:
        given_here = problem.driver.given(n, problem.ts[n], problem.ts[n + 1], h, problem)
        at |= {("drive", name): x for name, x in given_here.items()}
    try:
        for name in ("begin", "step") if edge else ("begin", "step", "end"):
            if name in steps.programs:
                at |= interpret(steps.programs[name], at)
        kind = "cotangent" if direction == "pull" else "part"
        return all(same(x, at[kind, name]) for name, x in wanted[kind].items())
    except Exception:                              # a table that is looked up, say
        return False


def one_eagerly(problem: Problem, direction: str, n: int, parts: dict, cotangents: dict, params: Any, floats: list[int]) -> dict:
    """What step n of the grid makes on the tape, by kind and name."""
    if direction == "forward":
        return {"part": one_step(problem.method, problem.step(n), parts, Evaluator(problem.system, params))}
    if direction == "search":
        trial = OnTape(problem, parts, Evaluator(problem.system, params))
        norms = trial.attempt(problem.ts[n], problem.ts[n + 1], problem.h(n), problem.h(n))
        return {"part": trial.after, "norm": dict(enumerate(map(parts[problem.method.outputs[0]].dtype.type, norms)))}
    from ..engines import Eager
    tape = Eager()
    tape.load(problem, params, parts, cotangents)
    if direction == "pull":
        tape.pull(n + 1, n, (), {name: [x] for name, x in parts.items()})
    else:
        tape.back(n + 1, n, (), None, True)
    return {**({"part": tape.read("part")} if direction == "backward" else {}), "cotangent": tape.read("cotangent"),
            "aparam": dict(zip(floats, tape.R.aparams, strict=True)), **({"atime": tape.read("atime")} if problem.timed else {})}


def moved(x: Any, sign: Any) -> Any:
    """Numbers near those of x, or of the other sign, and not zero where those of x are."""
    if not np.size(x):
        return x
    made = sign * x * (1 - 0.1 * irregular(np.shape(x))) + 0.01 * (size(np.asarray(x)) or 1.0)
    return np.asarray(made, x.dtype) if hasattr(x, "dtype") else float(made)


def irregular(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1), no two of them alike."""
    return np.reshape(np.arange(int(np.prod(shape))) * GOLDEN % 1, shape)


def due(made: Made, runner: Any, direction: str, problem: Problem) -> bool:
    """Whether a step of the next solve is to be compared with the tape."""
    steps = SEARCHED if direction == "search" else max(problem.N, 1)
    every = -(-runner.pays * (1 if direction in ("forward", "search") else BACK) // steps)
    return made.solves < ALWAYS or made.solves % every == 0


def compared(made: Made, runner: Any, direction: str, problem: Problem, parts: dict, params: Any) -> None:
    """One step of this solve against the tape, at a place that moves from solve to solve."""
    k, N = made.solves, problem.N
    look = due(made, runner, direction, problem)
    made.solves += 1
    if N and look:
        agree(runner, direction, problem, parts, params, int(k * GOLDEN % 1 * N))


def on_trial(problem: Problem) -> Problem:
    """The problem on a grid of one step, such as a controller might attempt; of another length each time."""
    own, adaptive = copy(problem), problem.adaptive
    own.__dict__.pop("rows", None)
    span = abs(adaptive.t1 - problem.ts[0])
    h = min(adaptive.h or span, 0.01 * span) * (1 - 0.5 * (next(places) * GOLDEN % 1))
    t1 = problem.ts[0] + np.float64(adaptive.direction * h)
    own.ts, own.hs = [problem.ts[0], t1], [as_step(adaptive.dtype.type(t1 - problem.ts[0]), problem)]
    return own


def agree_elsewhere(runner: Any, direction: str, problem: Problem, parts: dict, params: Any) -> None:
    """A new program at its first solve: also at other states and parameters, for the branches that the trace did not see.

    Trajectories lie on both sides by turns, in one step; in a step for each side where that is not defined, or there is one alone.
    """
    leaves, structure = tree.flatten(params)
    others = tree.unflatten(structure, [moved(x, 1.0) if is_float(x) else x for x in leaves])
    both = np.resize(SIDES, next(iter(parts.values())).shape[:-1])[..., None]
    for sign in (both, *SIDES) if both.size > 1 else SIDES:
        there = {name: moved(x, sign) for name, x in parts.items()}
        if problem.flushed is not None:
            there = problem.method.with_buffers({name: problem.method.round(there[name]) for name in problem.method.inner.parts})
        if agree(runner, direction, problem, there, others, problem.N - 1) and sign is both:
            return

"""Kinds closures, windows, threads, minibatch and buffers: solves that look like the one before, and are another.

What a field reaches by closure, class, default, module or partial changes between solves of one shape; the same field is solved on
window after window; two threads solve at once; controls are made anew; fields write into buffers. Each answer is compared with the
loop of its own values.
"""
from __future__ import annotations

import contextvars
import dataclasses
import functools
import types
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple

import numpy as np

import revode as rv

from . import literal
from .found import Finding, judged, tried
from .literal import Drive

SAID = (ArithmeticError, TypeError, ValueError)         # a refusal is as good as an answer here
BACKENDS = ("auto", "replay", "eager")
BOUNDS = (1e-9, 1e-6)


class Task(NamedTuple):
    """One solve: the field for revode, the same for the loop, and its data."""
    field: Callable          # f(t, y, params)
    loop: Callable           # the same in complex numbers
    y0: np.ndarray
    ts: np.ndarray
    params: Any
    control: Any = None      # of a CDE, with `increments` (of a path by straight pieces)
    increments: Any = None


def loss_of(ys: Any) -> Any:
    return np.sum(ys[-1] * ys[-1]) + np.sum(np.sin(ys[-1]))


def answered(task: Task, method: Any, how: dict) -> Any:
    options = {"control": task.control} if task.control is not None else {}
    return rv.value_and_grad(lambda theta: loss_of(rv.solve(task.field, theta[0], task.ts, theta[1], method=method, save=[-1],
                                                            gradient=rv.Reversible(), **options, **how).ys))((task.y0, task.params))


def known(task: Task, method: literal.Literal, seed: int) -> list:
    def loss(theta: Any) -> Any:
        y0, p = theta

        def of(t: Any, y: Any) -> Any:
            return task.loop(t, y, p)
        steps = [Drive(None, of, h, dX, True) for h, dX in zip(np.diff(task.ts), task.increments, strict=True)] \
            if task.increments is not None else [Drive(of, None, h) for h in np.diff(task.ts)]
        return loss_of([state[0] for state in method.path(steps, task.ts, y0)])
    return literal.slopes(loss, (task.y0, task.params), np.random.default_rng(seed), 2)


def compared(where: str, task: Task, method: literal.Literal, how: dict, seed: int, answer: Callable | None = None) -> Finding:
    got = tried(answer or (lambda: answered(task, method.method, how)))
    return judged(f"{where}, {method.method!r}, {how}", got, lambda a: literal.distances(*a, known(task, method, seed)), BOUNDS, SAID)


def some_method(rng: np.random.Generator) -> literal.Literal:
    """One whose reverse sweep is exact."""
    return [literal.Literal(rv.Coupled("midpoint", lam=0.999), ("y", "z"), literal.twice, literal.coupled("midpoint", 0.999)),
            literal.Literal(rv.Coupled("rk4", lam=1.0), ("y", "z"), literal.twice, literal.coupled("rk4", 1.0)),
            literal.Literal(rv.ReversibleHeun(), ("y", "z"), literal.twice, literal.heun)][rng.integers(3)]


def long_grid(rng: np.random.Generator) -> np.ndarray:
    """Long enough for "auto" to make a program of it."""
    return np.linspace(0.0, float(rng.uniform(0.5, 1.5)), int(rng.choice([201, 251])))


# ------------------------------------------------------------------------------------------------------------------ closures
# name -> what makes a field of (t, y, params) that reaches `k` in its own way

def by_closure(k: Any) -> Callable:
    return lambda t, y, p: -k * p * y + np.sin(k * t)


def by_default(k: Any) -> Callable:
    return lambda t, y, p, k=k: -k * p * y + np.sin(k * t)


def by_keyword(k: Any) -> Callable:
    def field(t: Any, y: Any, p: Any, *, k: Any = k) -> Any: return -k * p * y + np.sin(k * t)
    return field


def by_partial(k: Any) -> Callable:
    return functools.partial(lambda k, t, y, p: -k * p * y + np.sin(k * t), k)


def by_dataclass(k: Any) -> Callable:
    @dataclasses.dataclass
    class Field:
        k: Any

        def __call__(self, t: Any, y: Any, p: Any) -> Any: return -self.k * p * y + np.sin(self.k * t)
    return Field(k)


def by_redefinition(k: Any) -> Callable:
    """A class of the same text and the same fields: a cell of a notebook, run again."""
    @dataclasses.dataclass
    class Field:
        unit: float = 1.0

        def __call__(self, t: Any, y: Any, p: Any) -> Any: return self.unit * (-k * p * y + np.sin(k * t))
    return Field()


def by_class(k: Any) -> Callable:
    class Holder:
        rate = k
    return lambda t, y, p: -Holder.rate * p * y + np.sin(Holder.rate * t)


def by_property(k: Any) -> Callable:
    class Holder:
        @property
        def rate(self) -> Any: return k
    holder = Holder()
    return lambda t, y, p: -holder.rate * p * y + np.sin(holder.rate * t)


def by_slots(k: Any) -> Callable:
    class Holder:
        __slots__ = ("rate",)
    holder = Holder()
    holder.rate = k
    return lambda t, y, p: -holder.rate * p * y + np.sin(holder.rate * t)


def by_module(k: Any) -> Callable:
    module = types.ModuleType("settings")
    module.rate = k
    return lambda t, y, p: -module.rate * p * y + np.sin(module.rate * t)


def by_global(k: Any) -> Callable:
    space = {"np": np, "k": k}
    exec("def field(t, y, p): return -k * p * y + np.sin(k * t)", space)
    return space["field"]


def by_named_tuple(k: Any) -> Callable:
    of = namedtuple("of", "a rate") if abs(np.sum(k)) > 1 else namedtuple("of", "rate a")
    pair = of(**{"a": 0 * k, "rate": k})
    return lambda t, y, p: -pair.rate * p * y + np.sin(pair.rate * t)


def by_list(k: Any) -> Callable:
    table = [1.0, {"rate": (k,)}]
    return lambda t, y, p: -table[1]["rate"][0] * p * y + np.sin(table[1]["rate"][0] * t)


def by_objects(k: Any) -> Callable:
    table = np.array([None, None], dtype=object)
    table[1] = k
    return lambda t, y, p: -table[1] * p * y + np.sin(table[1] * t)


def by_function(k: Any) -> Callable:
    def rate() -> Any: return k
    return lambda t, y, p: -rate() * p * y + np.sin(rate() * t)


def by_method(k: Any) -> Callable:
    class Holder:
        def __init__(self) -> None: self.rate = k

        def field(self, t: Any, y: Any, p: Any) -> Any: return -self.rate * p * y + np.sin(self.rate * t)
    return Holder().field


def by_iterator(k: Any) -> Callable:
    """A field that counts on nothing but what it was told at its birth, through a generator's frame."""
    def forever() -> Iterator:
        while True: yield k
    source = forever()
    return lambda t, y, p: -next(source) * p * y + np.sin(k * t)


def by_hidden_attribute(k: Any) -> Callable:
    """An attribute of a dataclass that is none of its fields."""
    @dataclasses.dataclass
    class Field:
        unit: float = 1.0

        def __post_init__(self) -> None: self.rate = k

        def __call__(self, t: Any, y: Any, p: Any) -> Any: return self.unit * (-self.rate * p * y + np.sin(self.rate * t))
    return Field()


def by_class_in_default(k: Any) -> Callable:
    class Holder:
        rate = k
    return lambda t, y, p, Holder=Holder: -Holder.rate * p * y + np.sin(Holder.rate * t)


def by_module_in_partial(k: Any) -> Callable:
    module = types.ModuleType("settings")
    module.rate = k
    return functools.partial(lambda m, t, y, p: -m.rate * p * y + np.sin(m.rate * t), module)


def by_class_of_class(k: Any) -> Callable:
    class Inner:
        rate = k

    class Outer:
        inner = Inner
    return lambda t, y, p: -Outer.inner.rate * p * y + np.sin(Outer.inner.rate * t)


def by_cached_function(k: Any) -> Callable:
    rate = functools.lru_cache(lambda: k)
    return lambda t, y, p: -rate() * p * y + np.sin(rate() * t)


def by_context(k: Any) -> Callable:
    setting = contextvars.ContextVar("setting", default=k)
    return lambda t, y, p: -setting.get() * p * y + np.sin(setting.get() * t)


WAYS = (by_hidden_attribute, by_class_in_default, by_module_in_partial, by_class_of_class, by_cached_function, by_context,
        by_closure, by_default, by_keyword, by_partial, by_dataclass, by_redefinition, by_class, by_property, by_slots,
        by_module, by_global, by_named_tuple, by_list, by_objects, by_function, by_method, by_iterator)


def closures(seed: int, rng: np.random.Generator) -> Iterator[Finding]:
    """One way, three values, one after another; the first comes back at the end."""
    way, method, ts, backend = WAYS[seed % len(WAYS)], some_method(rng), long_grid(rng), BACKENDS[rng.integers(2)]
    d = int(rng.integers(1, 4))
    y0, p = rng.normal(size=d), np.asarray(rng.uniform(0.5, 1.5))
    one: Callable = (lambda: float(rng.uniform(-1.5, 1.5)), lambda: rng.uniform(-1.5, 1.5, d),
                     lambda: int(rng.integers(-3, 4)))[rng.integers(3)]
    values = [one() for _ in range(3)]
    for i in (0, 1, 2, 0):
        loop = by_closure(values[i])
        yield compared(f"{way.__name__} {values[i]}", Task(way(values[i]), loop, y0, ts, p), method, {"backend": backend}, seed)
    held, array = {"k": values[0]}, np.array(values[0], float)

    def looked_up(t: Any, y: Any, p: Any) -> Any: return by_closure(held["k"])(t, y, p)

    def filled(t: Any, y: Any, p: Any) -> Any: return -array * p * y + np.sin(array * t)
    for value in values:           # one and the same field, whose setting is changed between solves
        held["k"], array[...] = value, value
        for field in (looked_up, filled):
            task = Task(field, by_closure(value), y0, ts, p)
            yield compared(f"{field.__name__}, changed in place to {value}", task, method, {"backend": backend}, seed)


# ------------------------------------------------------------------------------------------------------------------- windows
# fields of time that are not smooth: a sample held, a switch, a kick. EDGE lies between the times of every stage.

EDGE = 0.4 + np.sqrt(2) * 1e-4
SAMPLES = np.tile([0.0, 1.0, 2.0, 1.0, 0.0], 4)          # equal at both ends of a window of five
TIMED: dict[str, Callable] = {
    "floor, astype": lambda t, y, p: -p * y + SAMPLES[np.floor(t / EDGE).astype(int)],
    "int": lambda t, y, p: -p * y + SAMPLES[int(t / EDGE)],
    "searchsorted": lambda t, y, p: -p * y + SAMPLES[np.searchsorted(EDGE * np.arange(1, 20), t)],
    "where": lambda t, y, p: -p * y + np.where(t > 2 * EDGE, 1.0, 0.2),
    "branch": lambda t, y, p: -p * y + (1.0 if t > 2 * EDGE else 0.2),
    "bool as number": lambda t, y, p: -p * y + (t > 2 * EDGE) * 1.0,
    "between": lambda t, y, p: -p * y * np.logical_and(t > EDGE, t < 3 * EDGE),
    "dictionary": lambda t, y, p: -p * y + {0: 1.0, 1: -0.5}.get(int(t / EDGE), 0.2),
    "list": lambda t, y, p: -p * y + list(SAMPLES)[int(t / EDGE)],
    "interp": lambda t, y, p: -p * y + np.interp(t, EDGE * np.arange(20), SAMPLES),
    "smooth": lambda t, y, p: -p * y + np.sin(5 * t),
}


def windows(seed: int, rng: np.random.Generator) -> Iterator[Finding]:
    """Multiple shooting: one field on three windows of one shape, at the edges of which the field may change."""
    name = list(TIMED)[seed % len(TIMED)]
    method, backend, d = some_method(rng), BACKENDS[rng.integers(2)], int(rng.integers(1, 4))
    N, p = int(rng.choice([40, 210])), np.asarray(rng.uniform(0.5, 1.5))
    length = float(rng.choice([0.61, 2.0]))
    for k in range(3):
        ts = np.linspace(length * k, length * (k + 1), N + 1)
        yield compared(f"{name}, window {k} of {N} steps", Task(TIMED[name], TIMED[name], rng.normal(size=d), ts, p), method,
                       {"backend": backend}, seed)


# ------------------------------------------------------------------------------------------------------------------- threads

def threads(seed: int, rng: np.random.Generator) -> Iterator[Finding]:
    """Two threads at once, of the same shapes and other values, three solves each."""
    method, ts, d = some_method(rng), long_grid(rng), int(rng.integers(1, 4))
    way, how = WAYS[seed % len(WAYS)], {"backend": BACKENDS[rng.integers(3)]}
    tasks = [Task(way(k), by_closure(k), rng.normal(size=d), ts, np.asarray(rng.uniform(0.5, 1.5))) for k in rng.uniform(-1.5, 1.5, 2)]
    together = Barrier(2)

    def work(task: Task) -> list:
        found = []
        for _ in range(3):
            together.wait(60)
            found.append(keeping(lambda: answered(task, method.method, how)))
        return found

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(work, tasks))
    for which, (task, found) in enumerate(zip(tasks, answers, strict=True)):
        for again, answer in enumerate(found):
            where = f"{way.__name__}, thread {which}, solve {again}"
            yield compared(where, task, method, how, seed, lambda answer=answer: given(answer))


def keeping(call: Callable) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def given(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


# ----------------------------------------------------------------------------------------------------------------- minibatch

def minibatch(seed: int, rng: np.random.Generator) -> Iterator[Finding]:
    """A new control, or new data in the field's closure, for each of four batches."""
    d, batch, N = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.choice([20, 210]))
    ts, method, how = np.linspace(0, 1, N + 1), some_method(rng), {"backend": BACKENDS[rng.integers(3)]}
    W, smooth, closed = {"W": 0.5 * rng.normal(size=(d, 2 * d))}, bool(rng.random() < 0.4), bool(rng.random() < 0.3)

    def steered(t: Any, y: Any, p: dict) -> Any:
        return np.reshape(np.tanh(y @ p["W"]), (*y.shape, 2))
    for k in range(4):
        values, y0 = np.cumsum(rng.normal(size=(N + 1, batch, 2)), axis=0) / np.sqrt(N), rng.normal(size=(batch, d))
        control = (rv.HermiteCubic if smooth else rv.LinearPath)(ts, np.moveaxis(values, 0, -2))
        task = Task(steered, steered, y0, ts, W, control, np.diff(values, axis=0))
        if smooth:
            def along(t: Any, y: Any, p: dict, slope: Callable) -> Any:
                return np.sum(steered(t, y, p) * slope(t)[..., None, :], axis=-1)
            task = task._replace(loop=functools.partial(along, slope=hermite(ts, values)), increments=None)
        if closed:
            data = values[-1] @ rng.normal(size=(2, d))
            task = Task(*2 * [lambda t, y, p, data=data: np.tanh(y @ p["W"][:, :d]) + data * np.sin(t)], y0, ts, W)
        yield compared(f"batch {k}, {'closed over' if closed else type(control).__name__}", task, method, how, seed)


def hermite(ts: np.ndarray, values: np.ndarray) -> Callable:
    """X'(t) of the cubic through the values with backward differences for slopes."""
    from scipy.interpolate import CubicHermiteSpline

    slopes = np.diff(values, axis=0) / np.diff(ts).reshape(-1, *[1] * (values.ndim - 1))
    return CubicHermiteSpline(ts, values, np.concatenate([slopes[:1], slopes]), axis=0).derivative()


# ------------------------------------------------------------------------------------------------------------------- buffers

def scratch(which: int, d: int) -> tuple[Callable, Callable]:
    """(a field that writes into arrays of its own, the same without them)."""
    buffer, wide, c = np.zeros(d), np.zeros((3, d)), np.arange(1.0, d + 1)
    order, mask = np.arange(d), np.zeros(d, bool)

    def out(t: Any, y: Any, p: Any) -> Any:
        np.multiply(c, t, out=buffer)
        return -p * y * buffer + 0.3

    def filled(t: Any, y: Any, p: Any) -> Any:
        buffer[:] = np.cos(c * t)
        return -p * y * buffer

    def summed(t: Any, y: Any, p: Any) -> Any:
        buffer[:] = 0
        f = 0 * y
        for _ in range(3):
            buffer[...] += c * t
            f = f + np.sin(y * buffer) * p
        return f

    def row(t: Any, y: Any, p: Any) -> Any:
        wide[1] = c * t
        f = y * wide[1] * p
        wide[1] = 0
        return f

    def turned(t: Any, y: Any, p: Any) -> Any:
        order[:] = np.arange(d)[::-1]
        f = p * y[order]
        order[:] = np.arange(d)
        return f + 0.5 * y[order]

    def masked(t: Any, y: Any, p: Any) -> Any:
        mask[:] = c * t > 0.7
        f = np.where(mask, p * y, np.sin(y))
        mask[:] = ~mask
        return f

    def local(t: Any, y: Any, p: Any) -> Any:
        s = c * 1.0
        f = y * s * p
        s *= 2
        return np.sin(f * s)

    plain = (lambda t, y, p: -p * y * c * t + 0.3, lambda t, y, p: -p * y * np.cos(c * t),
             lambda t, y, p: sum(np.sin(y * c * t * k) * p for k in (1, 2, 3)), lambda t, y, p: y * c * t * p,
             lambda t, y, p: p * y[::-1] + 0.5 * y, lambda t, y, p: np.where(c * t > 0.7, p * y, np.sin(y)),
             lambda t, y, p: np.sin(2 * c * c * y * p))
    def large(t: Any, y: Any, p: Any) -> Any:
        """Too large a buffer to be copied for every use of it."""
        huge[:, :] = np.cos(c * t)
        f = -p * y * huge[0]
        huge[:, :] = 1.0
        return f

    huge = np.zeros((10_000, d))
    fields = (out, filled, summed, row, turned, masked, local, large)
    return fields[which], (*plain, plain[1])[which]


def buffers(seed: int, rng: np.random.Generator) -> Iterator[Finding]:
    """Scratch arrays in a field, in each mode; then y0 and params that are overwritten before the pullback."""
    d, method = int(rng.integers(1, 4)), some_method(rng)
    ts = np.linspace(0.1, 1.0, int(rng.choice([21, 206])))
    which = seed % 8
    field, plain = scratch(which, d)
    y0, p = rng.normal(size=d), np.asarray(rng.uniform(0.5, 1.5))
    task = Task(field, plain, y0, ts, p)
    for backend in BACKENDS:
        yield compared(f"scratch {which}", task, method, {"backend": backend}, seed)
    for mode in (rv.Reversible(), rv.Direct(), rv.Checkpointed(3)):
        yield compared(f"overwritten, {mode!r}", task._replace(field=plain), method, {}, seed, lambda mode=mode: overwritten(
            task._replace(field=plain, y0=y0.copy(), params=p.copy()), method.method, mode))


def overwritten(task: Task, method: Any, mode: Any) -> Any:
    """(loss, gradients), where y0 and params are used for other things between the solve and its pullback."""
    value, pull = rv.vjp(lambda y0, p: loss_of(rv.solve(task.field, y0, task.ts, p, method=method, save=[-1], gradient=mode).ys),
                         task.y0, task.params)
    task.y0[...], task.params[...] = 7.0, -3.0
    return value, pull(1.0)

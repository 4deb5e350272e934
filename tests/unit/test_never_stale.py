"""Whatever a program was made from, and whatever it finds when it is used again: A, then B, is B.

Each row gives two solves, A and B, that differ in one thing. B on a warm cache (after A, and after B itself) is compared with B on a
cold one and with B on the tape, which keeps no programs: values, the gradient of y0, and that of the parameters. Replay without
merging rounds as the tape does, so everything is equal in bits. The rows of DATA differ in data alone: nothing is traced for them.
"""
from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys
import threading
import types
from collections import namedtuple

import numpy as np
import pytest

import revode as rv
from revode import stepping
from revode.compiled import backend, plans
from revode.compiled.backend import Backend
from revode.methods.increment import Recorder
from tests.compiler import HERE, forget

EXACT = Backend("replay", auto=False, merge=False)
Y0 = np.array([[1.0, 0.5, -0.3], [0.2, -0.4, 0.8], [0.7, 0.1, 0.9], [-0.6, 0.4, 0.2]])
P = np.array([0.09, 0.04, 0.07])                 # slow: the two copies of every method stay together
TS = np.linspace(0.0, 1.0, 21)


@pytest.fixture(autouse=True)
def cold(monkeypatch):
    forget(monkeypatch, strict=True)
    monkeypatch.setattr(backend, "_told", set())


def solved(how, field=None, y0=Y0, p=P, ts=TS, save=(-1,), state=None, **options):
    """Value, both gradients, and the stats of a solve."""
    def loss(y0, p):
        start = {"state0": state._replace(parts=y0)} if state is not None else {}
        sol = rv.solve(field or decay, None if start else y0, ts, p, backend=how, save=list(save), **start, **options)
        leaves = rv.tree.flatten(sol.ys)[0]
        return sum(np.sum(x * x * np.reshape(0.3 + np.arange(x.size) * 0.618 % 1, x.shape).astype(x.dtype)) for x in leaves), sol

    (value, sol), (a, ap) = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(state.parts if state is not None else y0, p)
    return [np.asarray(value), *(np.asarray(x) for x in rv.tree.flatten((a, ap))[0] if x is not None)], sol.stats


def decay(t, y, p):
    return -p * y + 0.1 * np.sin(t)


def closure(c):
    return lambda t, y, p: -p * y * c


def dataclass_call(sign):
    @dataclasses.dataclass
    class Field:
        k: float

        def __call__(self, t, y, p):
            return sign * self.k * p * y
    return Field(2.0)


class Holder:
    """An object that is no dataclass."""

    def __init__(self, c):
        self.c = c

    def __call__(self, t, y, p):
        return -self.c * p * y


def scaled(c, t, y, p):
    return -c * p * y


def counted(n):
    return {"field": lambda t, y, p: -p["a"] * y * p["n"], "p": {"a": P, "n": n}}


def pulled(c):
    sine = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (g * c,)))
    return lambda t, y, p: -p * sine(y)


def class_of(c):
    return type("Settings", (), {"rate": c})


def module_of(c):
    found = types.ModuleType("settings_of_a_test")
    found.rate = c
    return found


def through(holder):
    return lambda t, y, p: -holder.rate * p * y


def default(holder):
    def f(t, y, p, holder=holder):
        return -holder.rate * p * y
    return f


def notebook(text):
    """A cell that is run again: the same name, file and place."""
    names = {"np": np}
    exec(compile(f"def field(t, y, p):\n    return {text}", "<cell>", "exec"), names)
    return names["field"]


def objects(a, b):
    held = np.empty(2, object)
    held[:] = [np.array(a), b]
    return lambda t, y, p: -p * y * held[0] * held[1]


def by_name(first):
    kind = namedtuple("kind", "a b" if first else "b a")
    c = kind(2.0, 0.5)
    return lambda t, y, p: -p * y * c.a - c.b


def noisy(g, **more):
    return {"diffusion": g, "noise": rv.Brownian(3), "method": rv.ReversibleHeun(), **more}


def controlled(kind, k, batch=()):
    knots = np.array([0.0, 0.25, 0.5, 1.0])
    values = 0.03 * np.random.default_rng(k).normal(size=(*batch, 4, 2))
    return {"control": kind(knots, values), "ts": np.unique(np.concatenate([TS, knots])), "method": rv.ReversibleHeun(),
            "field": lambda t, y, p: np.stack([np.tanh(p * y), np.cos(y + t)], -1)}


def user_method(a):
    return rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: a * F(t0, z, h)),
                                        rv.Shear("z", ("y",), lambda F, y: F(t1, y, h) + (1 - a) * h * y)])


@dataclasses.dataclass
class Leap:
    """A user's method that is a dataclass, and no method of the library."""
    a: float
    parts = ("y", "z")
    outputs = ("y",)
    noise = False

    def start(self, F, step, y):
        return {"y": y, "z": y}

    def word(self, step):
        return [rv.Shear("y", ("z",), lambda F, z: self.a * F(step.t0, z, step.dx)),
                rv.Shear("z", ("y",), lambda F, y: F(step.t1, y, step.dx))]


def resumed(h):
    """LeapfrogMidpoint goes on from a state whose last step was h."""
    state = rv.solve(decay, Y0, np.array([-h, 0.0]), P, method=rv.LeapfrogMidpoint()).state
    return {"state": state, "method": rv.LeapfrogMidpoint()}


C1, C2 = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.2, 1.4])
TABLE = 0.1 * np.array([0.0, 1.0, 2.0, 1.0, 0.5])


def held(U):
    return lambda t, y, p: -p * y + U[np.floor(t / 0.3).astype(int)]


DATA = {        # name: (A, B), two calls of `solved`
    "arrays of a closure": ({"field": closure(C1)}, {"field": closure(C2)}),
    "ones, then others": ({"field": closure(np.ones(3))}, {"field": closure(C2)}),
    "an array of one number": ({"field": closure(np.array([0.5]))}, {"field": closure(np.array([0.7]))}),
    "matrices of a closure": ({"field": lambda t, y, p: np.tanh(y @ np.diag(C1)) * p},
                              {"field": lambda t, y, p: np.tanh(y @ np.diag(C2)) * p}),
    "arrays that are the value": ({"field": lambda t, y, p: np.stack([C1, C2, C1, 0 * C1]) / 9},
                                  {"field": lambda t, y, p: np.stack([C2, C1, C2, C2]) / 9}),
    "an object": ({"field": Holder(C1)}, {"field": Holder(C2)}),
    "a class through a closure": ({"field": through(class_of(C1))}, {"field": through(class_of(C2))}),
    "a module through a closure": ({"field": through(module_of(C1))}, {"field": through(module_of(C2))}),
    "a class by default": ({"field": default(class_of(C1))}, {"field": default(class_of(C2))}),
    "a partial": ({"field": functools.partial(scaled, C1)}, {"field": functools.partial(scaled, C2)}),
    "arrays of objects": ({"field": objects([1.0, 2.0, 3.0], C1)}, {"field": objects([3.0, 2.0, 1.0], C2)}),
    "whole numbers in params": (counted(np.array([1, 2, 3])), counted(np.array([3, 1, 1]))),
    "a diffusion": (noisy(lambda t, y, p: 0.1 * C1 * y), noisy(lambda t, y, p: 0.1 * C2 * y)),
    "another seed": (noisy(lambda t, y, p: 0.1 * C1 * y), noisy(lambda t, y, p: 0.1 * C1 * y, noise=rv.Brownian(4))),
    "a linear control": (controlled(rv.LinearPath, 1), controlled(rv.LinearPath, 2)),
    "a smooth control": (controlled(rv.HermiteCubic, 1), controlled(rv.HermiteCubic, 2)),
    "a smooth control for each row": (controlled(rv.HermiteCubic, 1, (4,)), controlled(rv.HermiteCubic, 2, (4,))),
    "h before a resumed leapfrog": (resumed(0.05), resumed(0.11)),
    "an array in the pull of a custom_vjp": ({"field": pulled(C1)}, {"field": pulled(C2)}),
    "the grid": ({"ts": TS}, {"ts": 0.7 * TS ** 1.3}),
    "what is saved": ({"save": (-1,)}, {"save": (0, 3, 7, 20)}),
    "y0": ({}, {"y0": 2 * Y0}), "params": ({}, {"p": 2 * P}),
    "a table": ({"field": held(TABLE)}, {"field": held(2 * TABLE + 0.01)}),
    "windows of a longer solve": ({"ts": TS}, {"ts": TS + 1.0}),
    "a table in a later window": ({"field": held(TABLE), "ts": 0.3 * TS}, {"field": held(TABLE), "ts": 0.3 * TS + 0.9}),
    "a method of the user's, made anew": ({"method": user_method(0.4)}, {"method": user_method(0.4), "p": 3 * P}),
    "a dataclass as a method": ({"method": Leap(0.4)}, {"method": Leap(0.4), "p": 3 * P}),
    "a dict in another order": ({"p": {"a": P, "b": P ** 2}, "field": lambda t, y, p: -p["a"] * y},
                                {"p": {"b": P, "a": P ** 2}, "field": lambda t, y, p: -p["b"] * y}),
}
OTHERS = {
    "a number of a closure": ({"field": closure(0.5)}, {"field": closure(0.8)}),
    "a number in the pull of a custom_vjp": ({"field": pulled(0.5)}, {"field": pulled(0.8)}),
    "an int of a closure": ({"field": closure(2)}, {"field": closure(3)}),
    "a dataclass whose call is defined anew": ({"field": dataclass_call(-1.0)}, {"field": dataclass_call(0.5)}),
    "a named tuple in another order": ({"field": by_name(True)}, {"field": by_name(False)}),
    "a cell that is run again": ({"field": notebook("-p * y")}, {"field": notebook("-p * y * y")}),
    "an int of params": (counted(1), counted(3)),
    "a power of params": ({"field": lambda t, y, p: -p["a"] * y ** p["n"], "p": {"a": P, "n": 2}},
                          {"field": lambda t, y, p: -p["a"] * y ** p["n"], "p": {"a": P, "n": 3}}),
    "a switch of params": ({"field": lambda t, y, p: -p["a"] * y if p["on"] else p["a"] * np.sin(y), "p": {"a": P, "on": True}},
                           {"field": lambda t, y, p: -p["a"] * y if p["on"] else p["a"] * np.sin(y), "p": {"a": P, "on": False}}),
    "a word of params": ({"field": lambda t, y, p: getattr(np, p["f"])(y) * p["a"], "p": {"a": P, "f": "sin"}},
                         {"field": lambda t, y, p: getattr(np, p["f"])(y) * p["a"], "p": {"a": P, "f": "cos"}}),
    "indices": ({"field": lambda t, y, p: y[:, np.array([0, 0, 2])] * p}, {"field": lambda t, y, p: y[:, np.array([1, 0, 2])] * p}),
    "a mask": ({"field": lambda t, y, p: np.where(np.array([True, False, True]), y, -y) * p},
               {"field": lambda t, y, p: np.where(np.array([True, True, False]), y, -y) * p}),
    "the dtype": ({}, {"y0": Y0.astype(np.float32), "p": P.astype(np.float32), "field": lambda t, y, p: -p * y}),
    "the shape": ({}, {"y0": np.concatenate([Y0, Y0])}),
    "whether there is a batch": ({}, {"y0": Y0[0]}),
    "the layout of a tree": ({"y0": {"a": Y0[0], "b": Y0[1, :2]}, "field": lambda t, y, p: {"a": -y["a"] * p, "b": 0.1 * y["b"]}},
                             {"y0": {"b": Y0[0, :2], "a": Y0[1]}, "field": lambda t, y, p: {"b": 0.1 * y["b"], "a": -y["a"] * p}}),
    "the method's number": ({"method": rv.Coupled("midpoint", 0.9)}, {"method": rv.Coupled("midpoint", 0.8)}),
    "the method's base": ({"method": rv.Coupled("midpoint", 0.9)}, {"method": rv.Coupled("heun2", 0.9)}),
    "a number of a user's method": ({"method": user_method(0.4)}, {"method": user_method(0.6)}),
    "a number of a dataclass": ({"method": Leap(0.4)}, {"method": Leap(0.6)}),
    "the kind of noise": (noisy(lambda t, y, p: 0.1 * y), noisy(lambda t, y, p: 0.1 * y[..., None] * C1[:2])),
    "the path of noise": (noisy(lambda t, y, p: 0.1 * y), noisy(lambda t, y, p: 0.1 * y, noise=rv.BrownianTree(3, 0.0, 1.0))),
    "Ito": (noisy(lambda t, y, p: 0.1 * y), noisy(lambda t, y, p: 0.1 * y, interpretation="ito")),
    "the kind of control": (controlled(rv.LinearPath, 1), controlled(rv.HermiteCubic, 1)),
    "a control for each row": (controlled(rv.LinearPath, 1), controlled(rv.LinearPath, 1, (4,))),
    "the knots of a table": ({"field": lambda t, y, p: -p * y + TABLE[np.searchsorted(np.array([0.1, 0.5, 0.6]), t)]},
                             {"field": lambda t, y, p: -p * y + TABLE[np.searchsorted(np.array([0.2, 0.3, 0.9]), t)]}),
}


def check(how, A, B, exact):
    """B on a warm cache, twice, is B on a cold one and on the tape. Returns the stats of B just after A."""
    wanted, _ = solved("eager", **B)
    cold, told = solved(how, **B)
    assert told.backend == (how if isinstance(how, str) else how.name)
    plans.programs.clear()
    solved(how, **A)
    warm, stats = solved(how, **B)
    again, more = solved(how, **B)
    solved(how, **A)
    last, _ = solved(how, **B)
    for found in (cold, warm, again, last):
        for x, y in zip(found, wanted, strict=True):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            if exact:
                np.testing.assert_array_equal(x, y)
            else:           # 20 steps of some hundred roundings, forth and back, growing by e: 20 * 2 * 400 e eps = 1e-11
                np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11)
    assert (more.traces, more.compilations) == (0, 0)
    return stats


METHODS = {"coupled": rv.Coupled("midpoint", 0.9), "heun": rv.ReversibleHeun()}


@pytest.mark.sample(24)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_data(name, method):
    """Nothing but data has changed: nothing is traced, nothing built."""
    A, B = ({"method": METHODS[method], **options} for options in DATA[name])
    stats = check(EXACT, A, B, True)
    assert (stats.traces, stats.compilations) == (0, 0)


@pytest.mark.sample(24)
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("method", METHODS)
def test_others(name, method):
    A, B = ({"method": METHODS[method], **options} for options in OTHERS[name])
    check(EXACT, A, B, True)


NATIVE = ["arrays of a closure", "ones, then others", "a smooth control", "a linear control", "h before a resumed leapfrog", "a table",
          "a number of a closure", "an int of params", "the method's number", "Ito"]


@pytest.mark.skipif(not HERE, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("name", NATIVE)
def test_native(name):
    A, B = ({"method": METHODS["heun"], **options} for options in (DATA | OTHERS)[name])
    stats = check("native", A, B, False)
    assert name not in DATA or (stats.traces, stats.compilations) == (0, 0)


@pytest.mark.parametrize("how", [{"threads": 1}, {"arithmetic": "strict"}, {"backend": "replay"}], ids=str)
@pytest.mark.skipif(not HERE, reason="no C++ compiler on this machine")
def test_options_of_native(how):
    """Threads change nothing that is made; arithmetic and backend do, and each finds its own."""
    options = {"field": decay, "method": METHODS["heun"]}
    wanted, _ = solved("eager", **options)
    solved("native", **options)
    found, stats = solved(how.get("backend", "native"), **options, **{k: v for k, v in how.items() if k != "backend"})
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11)
    assert stats.traces == (0 if "threads" in how else 2)


def test_an_annealed_number_becomes_an_input():
    """The second value makes the programs once more, all others find them."""
    traces = []
    for c in (0.5, 0.6, 0.7, 0.8, 0.5):
        wanted, _ = solved("eager", closure(c), method=rv.ReversibleHeun())
        found, stats = solved(EXACT, closure(c), method=rv.ReversibleHeun())
        traces.append(stats.traces)
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(x, y)
    assert traces == [2, 2, 0, 0, 0]


def test_numbers_in_gradients_inside_the_field():
    """Numbers that rules of the engine make of the field's numbers follow them."""
    def field(c):
        return lambda t, y, p: rv.grad(lambda y: np.sum(np.sin(c * y) ** 3.0))(y) * p

    for c in (0.5, 0.6, 0.9):
        for method in METHODS.values():
            wanted, _ = solved("eager", field(c), method=method)
            found, _ = solved(EXACT, field(c), method=method)
            for x, y in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(x, y)


# Threads and forks ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [EXACT, pytest.param("native", marks=pytest.mark.skipif(not HERE, reason="no C++ compiler"))], ids=str)
def test_two_threads_at_once(how):
    """The same field, other data: a runner's memory belongs to one thread."""
    options = {"method": rv.ReversibleHeun(), "ts": np.linspace(0.0, 1.0, 201)}
    wanted = {k: solved("eager", closure(C1 * k), p=P / k, **options)[0] for k in (1, 2, 3)}
    solved(how, closure(C1), **options)
    wrong, together = [], threading.Barrier(3)

    def work(k):
        together.wait()
        for _ in range(15):
            found, stats = solved(how, closure(C1 * k), p=P / k, **options)
            if stats.traces or any(not np.allclose(x, y, rtol=1e-10, atol=1e-10) for x, y in zip(found, wanted[k], strict=True)):
                wrong.append(k)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(k,)) for k in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")          # newer Pythons warn of forks beside threads
def test_a_forked_child():
    """It goes on with the programs of its parent, also where the fork found the lock taken."""
    options = {"method": rv.ReversibleHeun()}
    wanted, _ = solved(EXACT, closure(C1), **options)
    with plans.programs.lock:
        child = os.fork()
        if not child:
            try:
                found, stats = solved(EXACT, closure(C1), **options)
                same = all(np.array_equal(x, y) for x, y in zip(found, wanted, strict=True))
                os._exit(0 if same and stats.traces == 0 else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_programs_can_be_seen_and_forgotten():
    kept = plans.programs
    assert len(kept) == 0
    solved(EXACT, method=rv.ReversibleHeun())
    assert len(kept) == 1
    key, = kept.families
    assert set(kept.get(key).made) == {"forward", "backward"}
    kept.forget(key)
    assert len(kept) == 0 and kept.get(key) is None
    assert solved(EXACT, method=rv.ReversibleHeun())[1].traces == 2
    kept.clear()
    assert len(kept) == 0


# The check of a step --------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")              # of a solution that is not one
def test_a_program_that_is_not_the_field_is_found(monkeypatch, caplog):
    """A step that is wrong at one place of the grid: found when the check comes there; the tape goes on, with one message."""
    from revode.compiled.replay import Replay
    ahead, broken = Replay.ahead, []

    def wrong(self, first, last, ys=None, looks=()):
        seen = ahead(self, first, last, ys, looks)
        if first <= 17 < last and broken:
            self.store["part", "y"][0, 0] += 1e-4
        return seen

    monkeypatch.setattr(Replay, "ahead", wrong)
    options = {"method": rv.ReversibleHeun(), "save": (0, -1)}
    wanted, _ = solved("eager", **options)
    solved(EXACT, **options)
    broken.append(True)
    with pytest.raises(plans.Disagreement, match="step 17 of what was generated"):
        for _ in range(4):                         # the places 0, .618, .236, .854 of 20 steps
            solved(EXACT, **options)
    plans.programs.strict = False
    with caplog.at_level(logging.WARNING, "revode"):
        stats = [solved(EXACT, **options)[1] for _ in range(30)]
    assert "eager" in {s.backend for s in stats} or len(caplog.records) == 1
    assert all(len(caplog.records) <= 1 for _ in stats)
    broken.clear()
    for x, y in zip(solved(EXACT, **options)[0], wanted, strict=True):
        np.testing.assert_array_equal(x, y)


def test_memory_of_the_sweep_does_not_grow(monkeypatch):
    """Field values at times that nobody will ask for are pulled back and dropped: at most two of a part at any time."""
    most = []
    expire = Recorder.expire

    def seen(self, times, cotangent):
        expire(self, times, cotangent)
        most.append(max((len(values) for values in self.memo.values()), default=0))

    monkeypatch.setattr(Recorder, "expire", seen)
    frozen = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h))], parts=("y", "z"))
    solved("eager", method=frozen, ts=np.linspace(0.0, 1.0, 101))
    assert len(most) == 100 and max(most) <= 2


def test_the_count_of_pullbacks_where_a_part_never_changes():
    """One field value a step, one pullback a step, on the tape and in programs."""
    frozen = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h))], parts=("y", "z"))
    for how in ("eager", EXACT):
        _, stats = solved(how, method=frozen, ts=np.linspace(0.0, 1.0, 101))
        assert (stats.nfe, stats.nvjp) == (200, 100), how


@pytest.mark.skipif(not HERE, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("how", ["native", "replay"])
def test_a_sweep_that_lands_says_how_far_off_it_was(how):
    """The round trip of a nearly reversible method with resync is that of what was reconstructed, not of what was landed on."""
    options = {"method": rv.EES25(), "gradient": rv.Reversible(resync=5), "ts": np.linspace(0.0, 4.0, 21)}
    _, told = solved("eager", **options)
    _, stats = solved(how, **options)
    assert told.roundtrip.absolute > 1e-10
    # The defect of five steps, which both engines measure: they differ by rounding, 1e-13 of states of size 1.
    np.testing.assert_allclose(stats.roundtrip.absolute, told.roundtrip.absolute, rtol=1e-3)


# What a trace cannot see ----------------------------------------------------------------------------------------------
def isinstance_field(t, y, p):
    return -p * y if isinstance(y, np.ndarray) else -2 * p * y


def isinstance_on_the_way(t, y, p):
    """Where the difference shows in the middle of the path only."""
    s = np.stack([y[1], -p * y[0]])
    return np.where(y[0] > 0.9, 0.5 * s, s) if isinstance(y, np.ndarray) else s


def type_of_state(t, y, p):
    return -p * y if type(y) is np.ndarray else -2 * p * y


def type_later(t, y, p):
    return -p * y if t < 0.3 or type(y) is np.ndarray else -2 * p * y


def type_of_params(t, y, p):
    return -np.abs(p) * y * (1.0 if type(p) is np.ndarray else 1.5)


@pytest.mark.sample(4, cover=False)
@pytest.mark.parametrize("how", ["eager", "auto", "replay", "native"])
@pytest.mark.parametrize("gradient", [None, rv.Direct(), rv.Checkpointed(9)], ids=repr)
@pytest.mark.parametrize("f, plain", [(isinstance_field, lambda t, y, p: -p * y), (isinstance_on_the_way, lambda t, y, p: np.where(
    y[0] > 0.9, 0.5 * np.stack([y[1], -p * y[0]]), np.stack([y[1], -p * y[0]])))], ids=["everywhere", "on the way"])
def test_a_tensor_is_an_instance_of_what_its_value_is(f, plain, how, gradient):
    """So the field has the branch of an array, forward and back: the numbers are those of that branch, bit for bit but on native."""
    def run(field):
        y0, ts = np.array([0.0, 1.0]), np.linspace(0.0, 6.0, 301)
        options = {"gradient": gradient, "backend": how if HERE else "replay"}
        return rv.value_and_grad(lambda p: np.sum(rv.solve(field, y0, ts, p, **options).y1 ** 2))(np.array(1.2))

    np.testing.assert_allclose(run(f), run(plain), rtol=1e-12)          # 300 steps, each rounded to 1e-16


@pytest.mark.parametrize("how", ["eager", "auto", "replay", "native"])
@pytest.mark.parametrize("gradient", [None, rv.Direct()], ids=["reversible", "direct"])
@pytest.mark.parametrize("f", [type_of_state, type_of_params], ids=lambda f: f.__name__)
def test_a_field_that_tells_arrays_from_tensors_is_refused(f, how, gradient):
    with pytest.raises(TypeError, match="isinstance"):
        solved(how, f, method=rv.ReversibleHeun(), gradient=gradient)


@pytest.mark.filterwarnings("ignore")              # of the way back, which is another field's
@pytest.mark.parametrize("how", ["eager", "replay"])
def test_also_where_it_does_so_later(how):
    """At the place of the grid that moves from solve to solve: within eight solves, most of the interval has been looked at."""
    with pytest.raises(TypeError, match="isinstance"):
        for _ in range(8):
            solved(how, type_later, method=rv.ReversibleHeun(), ts=np.linspace(0.0, 1.0, 301))


def test_rounding_of_another_order_is_no_reason():
    """np.mean on tensors may round as a sum and a quotient does."""
    found, _ = solved("replay", lambda t, y, p: -p * (y - np.mean(y, -1, keepdims=True)), method=rv.ReversibleHeun())
    assert np.isfinite(found[0])


@pytest.mark.parametrize("backend", ["auto", "eager", "replay"])
@pytest.mark.parametrize("gradient", [None, rv.Direct(), rv.Checkpointed(9)], ids=repr)
def test_a_field_that_tells_them_apart_at_a_later_state_is_refused(backend, gradient):
    """The first entry passes .8 at t = .56: at the start there is no difference to be seen, at the end there is."""
    def field(t, y, p):
        return -p * (np.clip(y, 0.8, 2.0) if type(y) is np.ndarray else y)

    def loss(p):
        return rv.solve(field, np.array([1.0, 1.2]), np.linspace(0.0, 1.0, 251), p, backend=backend, gradient=gradient).y1[0]

    # in tests a program that is not the field is an error; elsewhere the tape takes over, and refuses
    with pytest.raises((TypeError, AssertionError), match=r"another one for a tensor|not that of the field"):
        rv.grad(loss)(0.4)


def test_a_grid_that_was_kept_is_told_by_its_bits():
    """Times that have passed their checks are kept for the next solve: what differs, in a time or in the steps' dtype, is another."""
    ts, found = np.linspace(0.0, 1.0, 33), []
    for change in (lambda: None, lambda: ts.__imul__(2.0), lambda: ts.__setitem__(7, ts[7] + 0.01)):
        change()
        found.append([solved(how, ts=ts)[0] for how in ("eager", EXACT)])
        known = stepping.passed(ts)
        assert known is not ts and known.tobytes() == ts.tobytes() and not known.flags.writeable
        for a, b in zip(*found[-1], strict=True):
            np.testing.assert_array_equal(a, b)
    assert len({first[0].tobytes() for first, _ in found}) == 3
    ts[3] = ts[5]
    for _ in range(2):
        with pytest.raises(ValueError, match="strictly increasing"):
            solved("eager", ts=ts)
    assert rv.solve(lambda t, y, p: -p * y, Y0.astype(np.float32), TS, P.astype(np.float32), save=[0]).ys.dtype == np.float32
    assert stepping.known_of(stepping.passed(TS))[np.dtype(np.float32)].dtype == np.float32

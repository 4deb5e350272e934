"""Memory in bytes (tracemalloc, so NumPy's buffers and Python's objects both count) while a gradient is taken.

The network is tiny, so that everything that grows with N shows. A copy of the grid is 8 bytes a step; the library may
hold a few (ts as given is the caller's): COPIES below, counted by reading prepare() and Problem.
"""
from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.watch import ROOM
from tests.compiler import HERE, needs_compiler
from tests.method_cases import make_params, plain_field

Y0 = np.array([[0.4, -0.2, 1.0]] * 8)
PARAMS = make_params()
# ts as a float64 array (np.asarray copies no array), the steps h, and while they are made: np.diff, its cast, and two
# comparisons of a byte each. Held or passing, that is at most 4 copies of 8 bytes a step.
COPIES = 4


@pytest.fixture(autouse=True)
def tape(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the tape whatever N is: "auto" would take programs for long solves, whose buffers are measured in test_replay.py."""
    monkeypatch.setattr("revode.compiled.backend.PAYS", 1 << 62)


def gradient_of(N: int, gradient: Any, method: Any, T: float = 1.0) -> Any:
    ts = np.linspace(0.0, T, N + 1)

    def loss(params: dict) -> Any:
        # on the tape: a program and its buffers are kept for the next solve, see test_replay.py
        return np.sum(rv.solve(plain_field, Y0, ts, params, method=method, gradient=gradient, save=[-1], backend="eager").ys)

    return lambda: rv.grad(loss)(PARAMS)


def peak_bytes(run: Any) -> int:
    """The most that is allocated at one time during run(), beyond what was there before."""
    gc.collect()
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


METHODS = {"coupled": rv.Coupled("midpoint"), "alf": rv.AsynchronousLeapfrog(), "heun": rv.ReversibleHeun(),
           "leapfrog": rv.LeapfrogMidpoint(), "composed": rv.Composition(rv.ReversibleHeun())}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", METHODS)
def test_reversible_is_flat(name: str) -> None:
    """From N = 100 to 500 (to 2000 for one method, which takes seconds) it grows by less than 5 %, the grid's copies
    aside."""
    gradient_of(20, rv.Reversible(), METHODS[name])()       # what is cached on first use is not counted
    sizes = {N: peak_bytes(gradient_of(N, rv.Reversible(), METHODS[name]))
             for N in (100, 2000 if name == "heun" else 500)}
    for N, size in sizes.items():
        assert size - 8 * COPIES * (N - 100) <= 1.05 * sizes[100], sizes


@needs_compiler
def test_native_is_flat() -> None:
    """From N = 100 to 10000 by less than 5 % beyond two copies of the grid: values of the grid are made for 2048 steps at a time, and
    the last ones go before the next are made. On a grid that is known, as in training, by a field that does not depend on t."""
    sizes = {}
    for N in (100, 10000):
        ts = np.linspace(0.0, 1.0, N + 1)
        run = rv.grad(lambda p, ts=ts: np.sum(rv.solve(lambda t, y, p: np.tanh(y @ p), Y0[:1], ts, p, method=METHODS["coupled"],
                                                       gradient=rv.Reversible(), save=[-1], backend="native").ys))
        run(-np.eye(3))
        sizes[N] = peak_bytes(lambda run=run: run(-np.eye(3)))
    assert sizes[10000] - 16 * 9900 <= 1.05 * sizes[100], sizes


@pytest.mark.long
def test_reversible_is_flat_to_ten_thousand_steps() -> None:
    """The promise of DESIGN section 6, on the cheapest field there is: y' = p y with one entry."""
    def run(N: int) -> Any:
        ts = np.linspace(0.0, 1.0, N + 1)
        return lambda: rv.grad(lambda p: np.sum(rv.solve(lambda t, y, p: p * y, np.ones((1, 1000)), ts, p,
                                                         method=rv.LeapfrogMidpoint(), save=[-1]).ys))(np.array(0.3))
    run(10)()
    few, many = peak_bytes(run(100)), peak_bytes(run(10000))
    assert many - 8 * COPIES * 9900 <= 1.05 * few, (few, many)


@pytest.mark.long
def test_direct_grows_with_the_steps_and_reversible_is_below_it() -> None:
    """A step of the tape holds at least the two states and the two hidden layers of one evaluation; and it is linear:
    the second 200 steps cost what the first 200 did, within the 5 % that lists over-allocate. What the monitor looks at together
    is no matter of N: watch.ROOM bytes of states and cotangents, as many again stacked, and what it makes of them."""
    method = rv.ReversibleHeun()
    a, b, c = (peak_bytes(gradient_of(N, rv.Direct(), method)) for N in (100, 300, 500))
    assert (b - a) / 200 >= 4 * Y0.nbytes
    assert abs((c - b) / (b - a) - 1) < 0.05, (a, b, c)
    assert peak_bytes(gradient_of(500, rv.Reversible(), method)) < c / 20 + 3 * ROOM


@pytest.mark.long
def test_checkpointed_grows_with_its_checkpoints() -> None:
    """On states of 64 KB, n states more are n * 64 KB more (a state of plain Runge-Kutta is one array), and N does not
    count."""
    y0 = np.linspace(0.0, 1.0, 8192)

    def run(N: int, n: int) -> Any:
        ts = np.linspace(0.0, 1.0, N + 1)
        return lambda: rv.grad(lambda p: np.sum(rv.solve(lambda t, y, p: p * y, y0, ts, p,
                                                         method=rv.RungeKutta("euler"),
                                                         gradient=rv.Checkpointed(n), save=[-1]).ys))(np.array(0.3))
    run(8, 2)()
    size = {(N, n): peak_bytes(run(N, n)) for N, n in ((120, 2), (120, 12), (120, 32), (240, 12))}
    for more, fewer in ((12, 2), (32, 12)):
        states = (size[120, more] - size[120, fewer]) / y0.nbytes
        assert abs(states - (more - fewer)) <= 1.5, size      # a state and a half for the smaller things
    assert abs(size[240, 12] - size[120, 12]) <= 0.5 * y0.nbytes, size


@pytest.mark.long
def test_resync_grows_with_its_states() -> None:
    y0 = np.linspace(0.0, 1.0, 8192)

    def run(resync: int) -> Any:
        ts = np.linspace(0.0, 1.0, 121)
        return lambda: rv.grad(lambda p: np.sum(rv.solve(lambda t, y, p: p * y, y0, ts, p, method=rv.Coupled("euler"),
                                                         gradient=rv.Reversible(resync=resync),
                                                         save=[-1]).ys))(np.array(0.3))
    run(60)()
    few, many = peak_bytes(run(10)), peak_bytes(run(5))
    # 24 states of two parts instead of 12; in either, eight of them are judged at a time
    assert abs((many - few) / (2 * y0.nbytes) - 12) <= 1, (few, many)


def test_a_plain_solve_is_flat_and_saving_costs_what_is_saved() -> None:
    def run(N: int, save: Any) -> Any:
        ts = np.linspace(0.0, 1.0, N + 1)
        return lambda: rv.solve(plain_field, Y0, ts, PARAMS, method=rv.ReversibleHeun(), save=save)
    run(10, [-1])()
    few, many, all_of_them = (peak_bytes(run(N, save)) for N, save in ((100, [-1]), (2000, [-1]), (2000, None)))
    assert many - 8 * COPIES * 1900 <= 1.05 * few, (few, many)
    # saved states: in a list while marching and once more when they are stacked; Python's share of a saved state is an
    # array object (112 B), its tuple (48 B), their places in lists (2 * 9 B), its index (32 + 9 B) twice, the shares
    # of allocators
    assert all_of_them <= many + 2001 * (2 * Y0.nbytes + 500), (many, all_of_them)


@pytest.mark.sample(2)
@pytest.mark.parametrize("gradient", [rv.Reversible(), rv.Reversible(resync=5), rv.Direct(), rv.Checkpointed(3),
                                      rv.Backsolve()], ids=str)
def test_nothing_is_left_behind(gradient: Any) -> None:
    """Without the garbage collector, the 3rd to the 7th gradient leave nothing: no reference cycle holds a tape or a
    state. A state is 80 kB, so that half of one stands out from the free lists of Python, which fill for a while (some
    10 kB)."""
    y0, ts = np.linspace(0.0, 1.0, 10240), np.linspace(0.0, 1.0, 11)
    field = lambda t, y, p: p * np.sin(y)
    run = lambda: rv.grad(lambda p: np.sum(rv.solve(field, y0, ts, p, gradient=gradient, backend="eager").ys))(np.array(0.3))
    gc.collect()
    gc.disable()
    try:
        run()
        tracemalloc.start()
        run()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            run()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert left < y0.nbytes / 2, left


@pytest.mark.parametrize("backend", ["eager", "replay", *["native"] * HERE])
def test_no_solve_holds_itself(backend: str) -> None:
    """Without reference cycles what a solve has held is free as soon as it has ended: the collector finds nothing."""
    ts, method = np.linspace(0.0, 1.0, 61), rv.ReversibleHeun()
    run = lambda: rv.grad(lambda p: np.sum(rv.solve(lambda t, y, p: p * np.sin(y), np.ones((5, 2)), ts, p, method=method, save=[-1],
                                                    gradient=rv.Reversible(), backend=backend).ys))(np.array(0.3))
    for _ in range(3):
        run()
    gc.collect()
    gc.disable()
    try:
        run()
        assert gc.collect() == 0
    finally:
        gc.enable()

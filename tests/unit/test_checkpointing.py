"""Checkpointed(n): the least number of untaped steps, at most n states held, the right gradient; for any n, also above
N."""
from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.oracles.gradients import minimal_advances
from tests.method_cases import distance

PARAMS = np.array([0.7, -0.4])
Y0 = np.array([0.3, 0.9])


def field(t: Any, y: Any, p: Any) -> Any:
    return np.sin(y) * p + t


def loss(N: int, mode: Any, method: Any, seen: list, save: Any = (-1,), backend: str = "eager") -> Any:
    def f(y0: Any, p: Any) -> Any:
        sol = rv.solve(field, y0, np.linspace(0.0, 0.1, N + 1), p, method=method, gradient=mode, save=list(save),
                       backend=backend)
        seen.append(sol.stats)
        return np.sum(sol.ys ** 2)
    return f


TABLE = [(N, n) for n in (1, 2, 3, 4, 8, 16) for N in (1, 2, 3, 4, 5, 7, 10, 15, 21, 35, 56)] + [
    (100, 2), (100, 5), (126, 4), (127, 4), (128, 16), (200, 10), (300, 44)]
# (126, 4): the last N of a class, C(9, 4); (127, 4): the first of the next


@pytest.mark.parametrize("n", sorted({n for _, n in TABLE}))
def test_advances_are_the_minimum_and_states_at_most_n(n: int) -> None:
    """Counted by the field itself: Euler makes one evaluation a step, so evaluations = advances + N taped steps."""
    for N in [N for N, m in TABLE if m == n]:
        calls: Counter = Counter()

        def counted(t: Any, y: Any, p: Any, calls: Counter = calls) -> Any:
            calls["all"] += 1
            return field(t, y, p)

        stats: list = []

        def f(p: Any, N: int = N, counted: Any = counted, stats: list = stats) -> Any:
            sol = rv.solve(counted, Y0, np.linspace(0.0, 1.0, N + 1), p, method=rv.RungeKutta("euler"),
                           gradient=rv.Checkpointed(n), save=[-1], backend="eager")
            stats.append(sol.stats)
            return np.sum(sol.ys)

        rv.grad(f)(PARAMS)
        s, = stats
        least = minimal_advances(N, n)
        assert s.advances == least, (N, n, s.advances, least)
        assert calls["all"] - s.checks == least + N == s.nfe, (N, n, calls, s)
        assert s.nvjp == N
        assert s.peak_states <= n + 1, (N, n, s.peak_states)


class Held:
    """Counts the distinct states that are alive at once, by weak references to the arrays that the method makes."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        import weakref
        self.now += 1
        self.peak = max(self.peak, self.now)
        weakref.finalize(x, self.gone)
        return x

    def gone(self) -> None:
        self.now -= 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_states_that_are_really_alive(n: int) -> None:
    """peak_states is not only claimed: the arrays made by a method of one part, tracked by weak references. Beyond the
    n checkpoints there are the current state, the next one while it is made, and what the tape of one step holds: 4 in
    all."""
    N = 60

    class Tracked(rv.RungeKutta):
        def flow(self, *args: Any, **kwargs: Any) -> Any:
            after = super().flow(*args, **kwargs)
            held(after if type(after) is np.ndarray else after.value)
            return after

    held = Held()
    rv.grad(loss(N, rv.Checkpointed(n), Tracked("euler"), []), 1)(Y0, PARAMS)
    assert n <= held.peak <= n + 4, held.peak
    held = Held()
    rv.grad(loss(N, rv.Direct(), Tracked("euler"), []), 1)(Y0, PARAMS)
    assert held.peak == N                                                  # and the counter counts


@pytest.mark.parametrize("method", [rv.RungeKutta("midpoint"), rv.ReversibleHeun(), rv.LeapfrogMidpoint()], ids=str)
def test_gradient_is_direct_for_every_n(method: Any) -> None:
    """The same arithmetic in the same order but for the sums over steps: N <= 9 additions, 20 operations each."""
    for N in (1, 2, 3, 6, 9):
        save = sorted({0, N // 2, N})
        desired = rv.grad(loss(N, rv.Direct(), method, [], save), (0, 1))(Y0, PARAMS)
        for n in (1, 2, 3, 4, N, N + 1, 3 * N):
            actual = rv.grad(loss(N, rv.Checkpointed(n), method, [], save), (0, 1))(Y0, PARAMS)
            assert distance(actual, desired) <= 200 * 2.0**-52, (N, n)


def test_more_checkpoints_than_the_recursion_limit() -> None:
    """1500 checkpoints on 1500 steps: nothing recurses, and every step is advanced once less one."""
    stats: list = []
    gradient = rv.grad(loss(1500, rv.Checkpointed(1500), rv.RungeKutta("euler"), stats), 1)(Y0, PARAMS)
    assert stats[0].advances == 1499 and np.isfinite(gradient).all()


@pytest.mark.parametrize("n", [0, -1, 2.0, None, "4"])
def test_wrong_n(n: Any) -> None:
    with pytest.raises(ValueError, match=r"Checkpointed: n=.*the number of states to keep, 1 or more"):
        rv.Checkpointed(n)


@pytest.mark.parametrize("backend", ["eager", "replay"])
def test_memory_of_the_states_that_are_kept(backend: str) -> None:
    """A state of 10^5 numbers: eight more places cost eight states, whoever runs the steps; what a call of an engine sees of them is
    copied once, so that a stretch may be there twice for a moment."""
    y0 = np.linspace(0.1, 1.0, 100_000)
    run = rv.grad(lambda y0, n: np.sum(rv.solve(lambda t, y, p: np.cos(y), y0, np.linspace(0, 1, 31), method=rv.RungeKutta("euler"),
                                                gradient=rv.Checkpointed(n), save=[-1], backend=backend).y1))

    def peak(n: int) -> float:
        run(y0, n)                                         # programs and their buffers are there already
        tracemalloc.start()
        run(y0, n)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found / y0.nbytes
    few, many = peak(4), peak(12)
    assert 6 <= many - few <= (10 if backend == "eager" else 18), (few, many)


def test_programs_take_one_advance_more() -> None:
    """They pull whole stretches back, the last step as well, which has been taken ahead before."""
    for N, n in ((10, 3), (35, 4), (57, 5), (100, 2)):
        stats: list = []
        gradient = rv.grad(loss(N, rv.Checkpointed(n), rv.RungeKutta("euler"), stats, backend="replay"), 1)(Y0, PARAMS)
        assert stats[0].advances == minimal_advances(N, n) + 1 and stats[0].peak_states <= n + 1 and stats[0].backend == "replay"
        wanted = rv.grad(loss(N, rv.Direct(), rv.RungeKutta("euler"), []), 1)(Y0, PARAMS)
        assert distance(gradient, wanted) <= 20 * N * 2.0**-53          # a few roundings a step

"""The stretches between checkpoints in compiled code: the bits and the counts of the way state by state, on every plan."""
from __future__ import annotations

import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.oracles.gradients import minimal_advances
from revode.compiled import native, stretches
from revode.compiled.plans import programs
from revode.compiled.stretches import plans
from revode.gradients.checkpointed import schedule

NOT_COUNTED = ("checks", "traces", "compilations")            # what the first solves of a kind do besides


@pytest.mark.parametrize("chunk", [7, 64, 1024])
def test_plans(chunk: int) -> None:
    """A sweep played with the numbers of the states in the place of the states: each step goes back once, at its own state."""
    for N, n in [*product((1, 2, 3, 5, 10, 57), (1, 2, 3, 7, 44, 300)), (200, 7), (200, 300), (1000, 44), (1036, 44)]:
        kept = sorted({*schedule(N, n), N - 1})
        rows = np.full(min(n, N) + 2, -1)                     # as many as the walk has room for
        rows[:len(kept)] = kept
        at, right, advanced, pulled = 0, N, 0, 0
        for plan in plans(N, n, kept, chunk):
            block = plan.moves[0, 1] // chunk
            begins = []
            for back, first, last, row, to, look in plan.moves.tolist():
                assert first // chunk == (last - 1) // chunk == block and first < last
                if back:
                    assert last == right and (rows[row:row + last - first] == np.arange(first, last)).all(), (N, n)
                    right, pulled = first, pulled + last - first
                    continue
                if row >= 0:
                    at = rows[row]
                    begins.append(first)
                assert at == first
                seen = [*range(first + 1, last + 1)] if look < 0 else [m for m in plan.looks[look:plan.looks.size - 1] if m > first]
                for m in range(first + 1, last + 1):
                    if seen and seen[0] == m:
                        rows[to], to = seen.pop(0), to + 1
                at, advanced = last, advanced + last - first
            assert begins == plan.begins and plan.steps[0] <= advanced
        assert right == 0 and pulled == N
        assert len(plan.moves) == 1 or chunk < N or n < N     # where all states are kept they go back in one go
        assert N + advanced == minimal_advances(N, n) + 1     # the first sweep takes the last step, too (see test_checkpointing)


def of_time(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["w"]) * np.sin(3 * t) - p["b"] * y


def alone(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["w"]) - p["b"] * y


class Run:
    """A gradient with checkpoints, again and again; `walked` tells which of its sweeps were walked."""

    def __init__(self, monkeypatch: Any) -> None:
        programs.clear()                                      # the runners of other tests have walked
        self.walked: list[bool] = []
        walk = stretches.walk

        def heard(ahead: Any, back: Any, kept: dict, n: int, a_ys: tuple) -> bool:
            self.walked.append(walk(ahead, back, kept, n, a_ys))
            assert not self.walked[-1] or [*kept] == [0]       # the others are let go
            return self.walked[-1]

        monkeypatch.setattr(stretches, "walk", heard)
        monkeypatch.setattr(stretches, "LATER", 1)

    def __call__(self, N: int, n: int, batch: tuple = (), dtype: str = "float64", field: Any = alone, **how: Any) -> tuple:
        rng, stats = np.random.default_rng(0), []
        y0, w = rng.standard_normal((*batch, 3)).astype(dtype), rng.standard_normal((3, 3)).astype(dtype)
        p = {"w": w, "b": np.array(0.3, dtype)}
        two = len(how["method"].outputs) == 2

        def loss(y0: Any, p: Any) -> Any:
            sol = rv.solve(field, (y0, 0.5 * y0) if two else y0, np.linspace(0, 2, N + 1) ** 1.2, p,
                           **{"gradient": rv.Checkpointed(n), "backend": "native", "threads": 1, "save": [N], **how})
            stats.append(sol.stats)
            return np.sum(sol.ys[0] * sol.ys[1]) if two else np.sum(sol.ys ** 2)

        value, (a_y0, a_p) = rv.value_and_grad(loss, argnums=(0, 1))(y0, p)
        counted = {name: x for name, x in asdict(stats[0]).items() if name not in NOT_COUNTED}
        return float(value), a_y0.tobytes(), a_p["w"].tobytes(), a_p["b"].tobytes(), counted


@pytest.fixture
def run(monkeypatch: Any) -> Run:
    return Run(monkeypatch)


CASES: dict[str, dict] = {
    "N 1000, n 44": {"N": 1000, "n": 44, "method": rv.Coupled("midpoint")},
    "saved states, of time": {"N": 300, "n": 5, "batch": (3,), "field": of_time, "method": rv.ReversibleHeun(),
                              "save": [0, 7, 100, 299, 300]},
    "strict": {"N": 100, "n": 4, "batch": (2,), "field": of_time, "method": rv.RungeKutta("rk4"), "arithmetic": "strict"},
    "tiles, threads": {"N": 57, "n": 5, "batch": (37,), "dtype": "float32", "method": rv.AsynchronousLeapfrog(), "threads": 2,
                       "save": [3]},
    "blocks": {"N": 2500, "n": 6, "field": of_time, "method": rv.LeapfrogMidpoint(), "save": [0, 1023, 1024, 1025, 2500]},
    "blocks of what begins": {"N": 1500, "n": 6, "field": of_time, "method": rv.ReversibleHeun()},
    "more places than steps": {"N": 30, "n": 200, "method": rv.EES25(), "save": [*range(31)]},
    "two outputs": {"N": 60, "n": 3, "batch": (20,), "method": rv.VelocityVerlet(), "save": [0, 31, 60]},
    "one place": {"N": 12, "n": 1, "method": rv.RungeKutta("midpoint")},
    "one step": {"N": 1, "n": 1, "method": rv.RungeKutta("midpoint")},
}


@pytest.mark.parametrize("name", CASES)
def test_bits_and_counts(run: Run, name: str) -> None:
    """The first sweep goes state by state, the others are walked."""
    slow, *quick = [run(**CASES[name]) for _ in range(3)]
    assert run.walked == [False, True, True]
    assert quick == [slow, slow]


def test_strict_is_the_tape(run: Run) -> None:
    how = {"N": 100, "n": 4, "batch": (2,), "method": rv.Coupled("midpoint"), "arithmetic": "strict"}
    *_, walked = [run(**how) for _ in range(2)]
    replayed = run(**how | {"backend": "replay"})
    assert run.walked == [False, True, False] and walked[:4] == replayed[:4]


@pytest.mark.parametrize("n", [3, 20])
def test_grids_that_were_found(run: Run, n: int) -> None:
    """States that were chosen while nobody knew how many steps there would be."""
    how: dict = {"field": of_time, "method": rv.RungeKutta("dopri5"), "controller": rv.PID(1e-9, 1e-9), "save": None}
    slow, *quick = [run(1, n, **how) for _ in range(3)]
    assert run.walked == [False, True, True] and quick == [slow, slow] and slow[4]["steps"] > 30


def test_solves_of_many_lengths_in_turn(run: Run, monkeypatch: Any) -> None:
    """One runner, other plans and other rooms."""
    how: dict = {"method": rv.ReversibleHeun(), "field": of_time}
    kinds = [{"N": N, "n": n, **how} for N, n in ((100, 5), (300, 5), (300, 12), (100, 5))]
    walked = [run(**kind) for kind in kinds * 2][4:]
    assert run.walked == [False] + [True] * 7
    monkeypatch.setattr(stretches, "LATER", sys.maxsize)
    assert walked == [run(**kind) for kind in kinds]
    assert run.walked[8:] == [False] * 4


def test_pulled_back_twice(run: Run) -> None:
    """The second time from y0, all alone."""
    p = {"w": np.eye(3), "b": np.array(0.3)}
    for _ in range(2):
        _, pull = rv.vjp(lambda y0, p: rv.solve(alone, y0, np.linspace(0, 1, 101), p, method=rv.RungeKutta("midpoint"), save=[-1],
                                                gradient=rv.Checkpointed(5), backend="native").y1, np.ones(3), p)
        first, second = (pull(np.arange(3.0)) for _ in range(2))
        assert first[0].tobytes() == second[0].tobytes() and first[1]["w"].tobytes() == second[1]["w"].tobytes()
    assert run.walked == [False, True, True, True]


def test_what_goes_state_by_state(run: Run) -> None:
    """Noise; states of which there is no room for all; programs of other hosts."""
    how = {"N": 50, "n": 4, "method": rv.RungeKutta("midpoint")}
    noise = {"diffusion": lambda t, y, p: 0.1 * y, "noise": rv.Brownian(seed=1)}
    for odd in (noise, {"batch": (9000,)}):
        assert len({str(run(**how | odd)) for _ in range(3)}) == 1
    assert run.walked == [False] * 6


def test_what_is_no_number_is_said_as_before(run: Run) -> None:
    """A tank runs empty: 0 * inf in the pullback of the root."""
    def tank(t: Any, y: Any, p: Any) -> Any:
        return -p["b"] * np.sqrt(np.maximum(y, 0.0)) * (1 + 20 * t)

    found = []
    for _ in range(3):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            run(400, 6, field=tank, method=rv.RungeKutta("midpoint"))
        found.append([(x.category, str(x.message)) for x in heard if issubclass(x.category, rv.RevodeWarning)])
    assert run.walked == [False, True, True]
    assert found[0] and found[0] == found[1] == found[2]


def test_no_compiler_for_the_walk(run: Run, monkeypatch: Any) -> None:
    """Each stretch by itself, then."""
    def refused(*of: Any) -> Any:
        raise native.CompileError("no")

    monkeypatch.setattr(stretches, "library", refused)
    how = {"N": 77, "n": 4, "batch": (4, 5), "method": rv.RungeKutta("euler")}
    assert len({str(run(**how)) for _ in range(3)}) == 1 and run.walked == [False] * 3


@pytest.fixture
def gradient(run: Run) -> Iterator[Callable]:
    how: dict = {"n": 44, "method": rv.Coupled("midpoint"), "field": alone}

    def warm(N: int, times: int) -> Callable:
        for _ in range(times):
            run(N, **how)
        return lambda: run(N, **how)

    yield warm


def test_calls_of_python_do_not_grow_with_the_stretches(gradient: Callable) -> None:
    """38 stretches, or 2: state by state each is some 150 calls."""
    def calls(N: int) -> int:
        again, found = gradient(N, 10), [0]                     # the first eight are compared with the tape

        def hear(frame: Any, event: str, arg: Any) -> None:
            found[0] += event in ("call", "c_call")

        sys.setprofile(hear)
        again()
        sys.setprofile(None)
        return found[0]

    assert calls(1000) - calls(100) < 2 * 150


def test_memory_is_that_of_the_places(gradient: Callable) -> None:
    """From 1000 steps to 10000 less than a twentieth, beyond the two copies of the grid that a solve makes; compared with the tape."""
    def peak(N: int) -> int:
        again = gradient(N, 1)
        tracemalloc.start()
        again()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(1000), peak(10000)
    assert many - few - 2 * 8 * 9000 < 0.05 * few, (few, many)

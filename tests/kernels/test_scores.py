"""Queued solves of large states, which are measured where they are (scores.py): counts, bits, numbers, and what is said."""
from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any

import numpy as np
import pytest
from test_ahead import CASES, Y0, P, both, decay, net, pulled, values

import revode
import revode_cuda as rv
from reference.benchmarks.gpu_static import ANALYTIC
from revode.watch import ahead as watch_ahead
from revode.watch import back as watch_back
from revode.watch import quiet
from revode_cuda import host
from revode_cuda.scores import Scores
from tests.pretended_cupy import DONE, pretended

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)
solving = importlib.import_module("revode_cuda.solve")
LORENZ = ANALYTIC["lorenz"]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("method", "dtype"), [(rv.Coupled("midpoint"), np.float64), (rv.ReversibleHeun(), np.float32)], ids=str)
def test_a_warm_training_step_is_a_dozen_operations(method: Any, dtype: Any) -> None:
    """Of 70 kB, from the second gradient on: eleven kernels and copies but for the loss's, and one wait; the bits of native."""
    rng, ts, counts = np.random.default_rng(0), np.linspace(0.0, 0.5, 11), []
    y0, a = rng.normal(size=(2, 2 * 2950 if dtype == np.float32 else 2950, 3)).astype(dtype)
    params = {name: (rng.normal(size=shape) / 2).astype(dtype) for name, shape in (("W", (3, 8)), ("b", 8), ("V", (8, 3)), ("c", 3))}
    assert y0.nbytes > solving.CROSSING

    def gradient(solve: Any, a: Any, *at: Any, **how: Any) -> tuple:
        ys, pull = rv.vjp(lambda y0, p: solve(net, y0, ts, p, method=method, save=[-1], arithmetic="strict", **how).ys, *at)
        return ys, pull(a)

    with pretended() as cupy:
        there, a_there = rv.to_device((y0, params)), cupy.asarray(a[None])
        for _ in range(3):
            del DONE[:]
            found = gradient(rv.solve, a_there, *there, backend="fused", plan={"graph": False})
            counts.append((len(DONE) - DONE.count("wait"), DONE.count("wait"), DONE.count("run"), DONE.count("scores")))
        found = rv.to_host(found)
    print(f"operations, waits, solves and scores: {counts}")
    assert counts[-1][0] <= 15 and counts[-1][1:] == (1, 2, 1)
    for x, y in zip(rv.tree.flatten(found)[0], rv.tree.flatten(gradient(revode.solve, a[None], y0, params, backend="native"))[0],
                    strict=True):
        np.testing.assert_array_equal(x, y)


QUEUED = ("heun", "coupled", "default", "ees", "number", "composition", "noise", "tree")


@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize("save", [[-1], [0, 7, 20], [3, 9]], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", QUEUED)
def test_the_numbers_of_the_watch_and_the_bits_of_native(large: Any, monkeypatch: pytest.MonkeyPatch, case: str, dtype: Any,
                                                         save: list[int]) -> None:
    """What is measured there is what Ahead and Back measure of the native solve, or larger where a size is that of one trajectory:
    of y0 for W_0, and nothing else here. Both round, and what S sums up is rounding itself where it is below eps."""
    rounding = 400 * float(np.finfo(dtype).eps)          # some twenty operations on sums of that many terms, and those of the steps
    measured: list[dict] = []
    bounds = Scores.bounds

    def noted(self: Any, problem: Any, numbers: np.ndarray, flowed: Any) -> Any:
        found = bounds(self, problem, numbers, flowed)
        measured.append({**found._asdict(), "G": numbers.reshape(self.shape)[2].max()})
        return found

    monkeypatch.setattr(Scores, "bounds", noted)
    _, names, _, batch = CASES[case]
    y0, a, params = values(names, 1, dtype, batch)
    a = np.stack([(k + 1) * a for k in range(len(save))])
    there = rv.to_device((y0, a, params))
    for _ in range(3):
        del DONE[:], measured[:]
        ys, grads, stats = pulled(rv.solve, case, *there, save, "fused")
    assert len(DONE) - DONE.count("wait") <= 15 and DONE.count("wait") == 1 and len(measured) == 1
    watched: dict[str, Any] = {"G": 0.0}
    numbers, judge = watch_back.Back.numbers, watch_ahead.Ahead.judge
    monkeypatch.setattr(quiet.Quiet, "quickly", lambda self, *missed: None)

    def in_full(self: Any, weighed: Any) -> dict:
        self.fade()                                      # before which at_start may tell a bound
        watched.update(numbers(self, weighed), W_0=self.at_start(0.0), trips=self.trips)
        return {name: watched[name] for name in ("S_p", "S_y", "S_d", "W_y", "W_p", "E") if name in watched}

    def judged(self: Any, *shown: Any) -> None:
        judge(self, *shown)
        watched["G"] = max(watched["G"], self.G)

    monkeypatch.setattr(watch_back.Back, "numbers", in_full)
    monkeypatch.setattr(watch_ahead.Ahead, "judge", judged)
    desired = pulled(revode.solve, case, y0, a, params, save, "native")
    for x, y in zip(rv.tree.flatten(rv.to_host((ys, grads)))[0], rv.tree.flatten(desired[:2])[0], strict=True):
        np.testing.assert_array_equal(x, y)
    for name in ("steps", "nfe", "nfe_forward", "nvjp", "peak_states", "defect", "roundtrip", "fallback", "exact"):
        assert getattr(stats, name) == getattr(desired[2], name), name
    found, = measured
    print(found, watched)
    assert found["trips"] == watched["trips"]
    # under noise s is at least its root mean square over the batch, and the gap smaller than here
    assert watched["G"] - rounding <= found["G"] and (case in ("noise", "tree") or found["G"] <= watched["G"] + rounding)
    for name, x in zip(("S_p", "S_y", "S_d"), found["S"], strict=True):
        assert abs(x - watched.get(name, 0.0)) <= 0.01 * x + rounding
    for name, x in (("W_p", found["W_p"]), ("E", found["E"] or 0.0)):
        assert watched.get(name, 0.0) * (1 - rounding) <= x <= 1.5 * watched.get(name, 0.0) + rounding
    at_start = found["W_0"] * found["C_0"]
    assert watched["W_y"] * (1 - rounding) <= found["W_y"] <= 1.5 * watched["W_y"] + rounding
    assert watched["W_0"] * (1 - rounding) - rounding * rounding <= at_start <= 10 * watched["W_0"] + rounding


@pytest.mark.sample(4)
@pytest.mark.parametrize("gradient", [rv.Reversible(), rv.Automatic(), rv.Reversible(tol=1e-12)], ids=repr)
@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("midpoint"), rv.EES25()], ids=repr)
def test_what_the_watch_has_to_say_it_says(large: Any, method: Any, gradient: Any) -> None:
    """The same words as on the host, whether it trusts the gradient or not: then the solve is done once more."""
    def run(solve: Any, y0: Any, p: Any) -> Any:
        return rv.value_and_grad(lambda y0, p: np.sum(solve(decay, y0, np.linspace(0.0, 1.0, 81), p, method=method,
                                                            gradient=gradient).y1 ** 2), argnums=(0, 1))(y0, p)

    said, _ = both(run, Y0, P)
    assert said or gradient == rv.Automatic() or type(method) is not rv.ReversibleHeun


def test_a_gradient_that_is_trusted_is_not_looked_at_again(large: Any) -> None:
    """Of a method that comes back nearly. What it is off by is a share of what an entry has been, not of eps^1/4 of the largest."""
    y0, params = np.random.default_rng(0).normal(size=(30, 3)), {name: np.asarray(x) for name, x in LORENZ[2].items()}
    there, ts = rv.to_device((y0, params)), np.linspace(0.0, 0.04, 21)
    for _ in range(2):
        sols: list = []
        del DONE[:]
        rv.value_and_grad(lambda p, sols=sols: np.sum(sols.append(rv.solve(LORENZ[0], there[0], ts, p, backend="fused"))
                                                      or sols[0].y1))(there[1])
    assert DONE.count("scores") == 1 and DONE.count("run") == 2 and sols[0].stats.roundtrip.absolute > 1e-9


def test_where_all_is_looked_at_nothing_is_queued(large: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After two solves that had to be done once more, and that is said once; a good one in between clears the record."""
    caplog.set_level(logging.INFO, "revode")
    y0, p = rv.to_device((Y0, P))
    sols: list = []

    def step(scale: float) -> int:
        def loss(y0: Any, p: Any) -> Any:
            sols.append(rv.solve(decay, y0, np.linspace(0.0, 1.0, 81), p, method=rv.ReversibleHeun(), backend="fused",
                                 plan={"graph": False}))
            return np.sum(sols[-1].y1)
        del DONE[:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rv.RevodeWarning)
            rv.value_and_grad(loss, argnums=(0, 1))(y0, scale * p)
        return DONE.count("scores")

    assert [step(x) for x in (0.01, 0.01, 1.0, 0.01, 1.0, 1.0, 0.01, 0.01)] == [0, 1, 1, 1, 1, 1, 0, 0]
    assert [x.message for x in caplog.records if "not queued" in x.message] == [
        "solve: fused solves like this one are not queued as a whole, because the watch had to look at the states of the last ones, "
        "whose gradients it does not trust (see what it says of them)"]
    assert sols[2].stats.backend == "fused" and sols[2].stats.roundtrip is not None          # of the solve that was done once more


def test_without_a_gradient_and_an_error(large: Any) -> None:
    """A plain solve is judged, too: it waits once. One that overflows says so where it does."""
    y0, p = rv.to_device((Y0, 0.01 * P))
    ts = np.linspace(0.0, 1.0, 41)
    for _ in range(2):
        del DONE[:]
        sol = rv.solve(decay, y0, ts, p, method=rv.ReversibleHeun(), backend="fused")
    assert DONE.count("wait") == 1 and DONE.count("scores") == 1
    desired = revode.solve(decay, Y0, ts, 0.01 * P, method=rv.ReversibleHeun(), backend="native")
    assert (sol.stats.nfe, sol.stats.peak_states) == (desired.stats.nfe, desired.stats.peak_states)
    np.testing.assert_allclose(rv.to_host(sol.y1), desired.y1, rtol=1e-13)                  # fast arithmetic, 40 steps
    explosion: Any = lambda t, y, p: p * y * y
    for k in range(3):
        run = lambda: rv.solve(explosion, y0, ts, (1.0 if k < 2 else 1e4) * p, method=rv.Coupled("midpoint"), backend="fused").y1
        if k < 2:
            run()
        else:
            with pytest.raises(FloatingPointError, match="no longer finite at step"):
                run()

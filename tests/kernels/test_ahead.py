"""Solves that are queued on a device before the host has seen a number of them (ahead.py): bits, counts, and what is said."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode
import revode_cuda as rv
from revode_cuda import ahead, compile, course, host
from tests.pretended_cupy import DONE, pretended

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)
TS = np.linspace(0.0, 0.5, 21)
RATES = np.array([1.0, 0.5, 2.0])
NUMBER = [0.25]


def net(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"]) @ p["V"] + p["c"]


def hoisted(t: Any, y: Any, p: Any) -> Any:
    """Products of the parameters alone, which are computed once for a solve."""
    return np.tanh(y @ (0.5 * p["W"] * np.sin(p["b"]))) @ p["W"].T * p["k"] ** 2 - RATES.astype(y.dtype) * y


def numbered(t: Any, y: Any, p: Any) -> Any:
    return -NUMBER[0] * y * p["c"] + np.cos(t)


def pendulum(t: Any, q: Any, p: Any) -> Any:
    return -p["c"] * np.sin(q)


def gusts(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * np.cos(y) * p["c"]


def values(names: str, seed: int, dtype: Any = np.float64, batch: Any = (37,)) -> tuple:
    """y0, cotangent and params."""
    rng = np.random.default_rng(seed)
    shapes = {"W": (3, 8), "b": (8,), "V": (8, 3), "c": (3,), "k": ()}
    return (*(rng.normal(size=(*batch, 3)).astype(dtype) for _ in range(2)),
            {name: np.asarray(rng.normal(size=shapes[name]) / 2, dtype) for name in names})


CASES: dict[str, tuple] = {            # field, names of params, options of solve, rows of the batch
    "heun": (net, "WbVc", {"method": rv.ReversibleHeun()}, (37,)),
    "coupled": (net, "WbVc", {"method": rv.Coupled("midpoint"), "gradient": rv.Reversible()}, (37,)),
    "default": (net, "WbVc", {}, (5,)),
    "ees": (net, "WbVc", {"method": rv.EES25()}, (2, 9)),
    "alone": (net, "WbVc", {"method": rv.ReversibleHeun()}, ()),
    "hoisted": (hoisted, "Wbk", {"method": rv.ReversibleHeun()}, (37,)),
    "number": (numbered, "c", {"method": rv.Coupled("heun2")}, (4,)),
    "composition": (net, "WbVc", {"method": rv.Composition(rv.ReversibleHeun(), 4)}, (3,)),
    "pair": (pendulum, "c", {"method": rv.VelocityVerlet()}, (6,)),
    "noise": (numbered, "c", {"method": rv.ReversibleHeun(), "diffusion": gusts, "noise": rv.Brownian(3)}, (11,)),
    "tree": (numbered, "c", {"method": rv.ReversibleHeun(), "diffusion": gusts, "noise": rv.BrownianTree(3, 0.0, 0.5)}, (11,)),
}


def pulled(solve: Callable, case: str, y0: Any, a: Any, params: Any, save: list[int], backend: str, **more: Any) -> tuple:
    """Saved states, gradients, stats."""
    field, _, options, _ = CASES[case]
    sols: list = []

    def run(y0: Any, params: Any) -> Any:
        pair = (y0, 0.5 * y0) if case == "pair" else y0
        sols.append(solve(field, pair, TS, params, save=save, backend=backend, arithmetic="strict", **{**options, **more}))
        return sols[0].ys[0] if case == "pair" else sols[0].ys

    ys, pull = rv.vjp(run, y0, params)
    return ys, pull(a), sols[0].stats


@pytest.mark.sample(4, cover=False)
@pytest.mark.parametrize("save", [[-1], [0, 7, 20], [3, 9]], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_other_numbers_every_time_and_the_bits_of_native(case: str, dtype: Any, save: list[int]) -> None:
    """Nothing of the last solve but its shapes goes into the next: y0, params, cotangents, numbers and seeds are new each time."""
    _, names, _, batch = CASES[case]
    with pretended():
        for seed in range(6):
            y0, a, params = values(names, seed, dtype, batch)
            a = np.stack([(k + 1) * a for k in range(len(save))])
            more = {} if case != "noise" else {"noise": rv.Brownian(seed)}
            NUMBER[0] = 0.25 + seed // 2
            there = rv.to_device((y0, a, params))
            del DONE[:]
            ys, grads, stats = pulled(rv.solve, case, *there, save, "fused", **more)
            counts = len(DONE) - DONE.count("wait"), DONE.count("wait")
            found = rv.to_host((ys, grads))
            desired = pulled(revode.solve, case, y0, a, params, save, "native", **more)
            for x, y in zip(rv.tree.flatten(found)[0], rv.tree.flatten(desired[:2])[0], strict=True):
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)
            for name in ("steps", "nfe", "nfe_forward", "nvjp", "peak_states", "defect", "roundtrip", "fallback", "exact"):
                assert getattr(stats, name) == getattr(desired[2], name), name
            assert stats.backend == "fused"
        print(f"{case}: {counts} operations and waits; {[hint.why for hint in ahead.hints().values()]}")
        assert counts[1] == 1
        assert counts[0] <= (15 if case not in ("hoisted", "pair", "tree") else 30)


def decay(t: Any, y: Any, p: Any) -> Any:
    return -p * y


def both(run: Callable, y0: Any, p: Any, times: int = 3) -> tuple[Any, Any]:
    """What run(solve, backend, ...) gives, and what it warns of, the last time on a device, and on the host."""
    found: list = []
    for backend, solve, at in (("fused", rv.solve, rv.to_device((y0, p))), ("native", revode.solve, (y0, p))):
        for _ in range(times if backend == "fused" else 1):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                del DONE[:]
                values = run(lambda *args, solve=solve, backend=backend, **how: solve(
                    *args, backend=backend, arithmetic="strict", **how), *at)
            waits = DONE.count("wait")
        found.append((rv.tree.flatten(rv.to_host(values))[0], [(x.category, str(x.message), x.filename) for x in said], waits))
    for x, y in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(x, y)
    assert found[0][1] == found[1][1]                    # the same words, and the same line of the user's
    return found[0][1], found[0][2]


Y0, P = np.linspace(1.0, 2.0, 12).reshape(4, 3), np.array([40.0, 1.0, 2.0])


def test_a_gradient_that_is_not_trusted_is_computed_again_and_that_is_said() -> None:
    """Stiff decay, run back: NearReversible loses it, so Automatic goes to checkpoints; on the host, from what it was told."""
    stats: list = []

    def run(solve: Callable, y0: Any, p: Any) -> Any:
        def loss(y0: Any, p: Any) -> Any:
            sol = solve(decay, y0, np.linspace(0.0, 1.0, 41), p)
            stats.append(sol.stats)
            return np.sum(sol.y1)
        return rv.value_and_grad(loss, argnums=(0, 1))(y0, p)

    with pretended():
        both(run, Y0, P)
    assert {x.fallback for x in stats} == {"Checkpointed(n=6)"} and stats[2].nfe_forward == stats[-1].nfe_forward


@pytest.mark.parametrize("gradient", [rv.Reversible(), rv.Automatic(), rv.Reversible(tol=1e-12)], ids=repr)
def test_what_the_watch_has_to_say_it_says_behind(gradient: Any) -> None:
    def run(solve: Callable, y0: Any, p: Any) -> Any:
        return rv.value_and_grad(lambda y0, p: np.sum(solve(decay, y0, np.linspace(0.0, 1.0, 81), p, method=rv.ReversibleHeun(),
                                                            gradient=gradient).y1 ** 2), argnums=(0, 1))(y0, p)

    with pretended():
        said, waits = both(run, Y0, P)
    assert said and issubclass(said[0][0], rv.RevodeWarning)
    assert waits == 1 or isinstance(gradient, rv.Automatic)           # which computes it again


def test_an_error_comes_behind() -> None:
    """Not finite: raised where the gradient is taken; strict=True raises what would be a warning."""
    explosion: Callable = lambda t, y, p: p * y * y
    with pretended():
        y0, p = rv.to_device((Y0, P))
        for k in range(3):
            run = lambda y0, p, k=k: np.sum(rv.solve(explosion, y0, np.linspace(0.0, 1.0, 41), p * (0.001 if k < 2 else 1.0),
                                                     method=rv.Coupled("midpoint"), backend="fused").y1)
            if k < 2:
                rv.grad(run)(y0, p)
            else:
                value, pull = rv.vjp(run, y0, p)
                for _ in range(2):
                    with pytest.raises(FloatingPointError, match="no longer finite at step"):
                        pull(np.ones_like(value))
        strict = lambda y0, p: np.sum(rv.solve(decay, y0, np.linspace(0.0, 1.0, 81), p, method=rv.ReversibleHeun(), backend="fused",
                                               gradient=rv.Reversible(strict=True)).y1)
        rv.grad(strict)(y0, 0.01 * p)
        rv.grad(strict)(y0, 0.01 * p)
        with pytest.raises(rv.ParasiteError):
            rv.grad(strict)(y0, p)


def test_without_a_gradient_the_solve_itself_waits() -> None:
    def run(solve: Callable, y0: Any, p: Any) -> Any:
        sol = solve(decay, y0, np.linspace(0.0, 1.0, 41), 0.1 * p, method=rv.ReversibleHeun(), save=[0, 40])
        return sol.ys, sol.y1, sol.state.parts, sol.ts

    with pretended():
        assert both(run, Y0, P)[1] == 1


def test_two_solves_in_one_loss_and_two_pulls() -> None:
    """Each solve has memory of its own until it has been pulled; a second pull goes from the host."""
    ts = np.linspace(0.0, 1.0, 21)

    def run(solve: Callable, y0: Any, p: Any) -> Any:
        def two(y0: Any, p: Any) -> Any:
            first = solve(decay, y0, ts, 0.1 * p, method=rv.ReversibleHeun(), save=[-1]).y1
            return solve(decay, first * first, ts, 0.2 * p, method=rv.ReversibleHeun(), save=[-1]).y1
        y1, pull = rv.vjp(two, y0, p)
        once = pull(np.ones_like(y1))
        return y1, once, pull(2.0 * y1)

    with pretended():
        both(run, Y0, P)


def test_what_is_not_queued_goes_the_other_way_and_is_right() -> None:
    ts, K = np.linspace(0.0, 1.0, 21), np.linspace(0.1, 0.2, 3)
    hows: dict[str, dict] = {"leapfrog": {"method": rv.AsynchronousLeapfrog()}, "direct": {"gradient": rv.Direct()},
                             "resync": {"method": rv.ReversibleHeun(), "gradient": rv.Reversible(resync=5)}}
    for how in hows.values():
        def run(solve: Callable, y0: Any, p: Any, how: dict = how) -> Any:
            return rv.value_and_grad(lambda y0, p: np.sum(solve(decay, y0, ts, p, **how).y1), argnums=(0, 1))(y0, p)

        with pretended():
            both(run, Y0, K)


def test_forward_mode() -> None:
    ts, K = np.linspace(0.0, 1.0, 21), np.linspace(0.1, 0.2, 3)
    with pretended():
        y0, p = rv.to_device((Y0, K))
        one = lambda p: rv.solve(decay, y0, ts, p, save=[-1]).y1
        for _ in range(3):
            rv.grad(lambda p: np.sum(one(p)))(p)
            moved = rv.to_host(rv.jvp(one)(p, np.ones_like(p)))
    desired = rv.jvp(lambda p: revode.solve(decay, Y0, ts, p, save=[-1]).y1)(K, np.ones(3))
    np.testing.assert_allclose(moved, desired, rtol=1e-12)            # rounding of 20 steps of four evaluations


def test_a_field_that_branches_on_values_is_never_queued() -> None:
    """The trace of such a field is that of one branch: it goes op by op, where each branch is itself."""
    def branching(t: Any, y: Any, p: Any) -> Any:
        return -p * y if np.sum(p) > 0 else p * y * 2.0

    ts, K = np.linspace(0.0, 1.0, 21), np.linspace(0.1, 0.2, 3)
    with pretended():
        for sign in (1.0, 1.0, 1.0, -1.0, 1.0):
            y0, p = rv.to_device((Y0, sign * K))
            found = rv.to_host(rv.value_and_grad(lambda p, y0=y0: np.sum(rv.solve(branching, y0, ts, p).y1))(p))
            desired = rv.value_and_grad(lambda p: np.sum(revode.solve(branching, Y0, ts, p, backend="eager").y1))(sign * K)
            for x, y in zip(found, desired, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-12)          # rounding of 20 steps of four evaluations


def test_a_sum_of_more_tiles_than_its_kernel_takes_is_not_queued() -> None:
    """A thread for each trajectory makes as many tiles: a million of them would be lost in silence."""
    assert f"#define LEVELS {course.LEVELS}\n" in compile.kernel_source("collect")
    one = np.zeros(1, np.int64)
    course.Moves(0, 1).put(one, one, 2**20 - 1)
    with pytest.raises(course.NotAhead, match="a sum of 1048576 tiles"):
        course.Moves(0, 1).put(one, one, 2**20)

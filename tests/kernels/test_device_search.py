"""Adaptive steps that a device finds (revode_cuda/search.py): the grid, states and gradients of native code, bit for bit."""
from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode
import revode_cuda as rv
from revode_cuda import compile, host, search
from revode_cuda.fused import Fusing, rehearse
from revode_cuda.host import ptx
from tests.nvrtc import needs_nvrtc
from tests.pretended_cupy import DONE, pretended

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)
solving = importlib.import_module("revode_cuda.solve")
P = np.array([1.0, 0.5, 0.2])


def field(t: Any, y: Any, p: Any) -> Any:
    return np.sin(3.0 * y) * p - y + np.cos(5.0 * t)


def wave(t: Any, y: Any, p: Any) -> Any:
    """The copies of Heun stay together."""
    return np.concatenate([y[:, 1:2], -9.0 * y[:, :1], np.cos(3.0 * t) * p[0] + 0.0 * y[:, 2:]], axis=1)


def explosion(t: Any, y: Any, p: Any) -> Any:
    return p * y * y * y


def stiff(t: Any, y: Any, p: Any) -> Any:
    """Of which the copies of Coupled with lam near 1 do not keep together."""
    return -100.0 * (y - np.cos(t)) * p


def steady(t: Any, y: Any, p: Any) -> Any:
    """Whose estimated error is next to nothing, also where y is Inf."""
    return float(np.finfo(y.dtype).max) / 18.0 + 0.0 * p * np.tanh(y)


def decaying(t: Any, y: Any, p: Any) -> Any:
    return -2.0 * y * p


def edge(t: Any, y: Any, p: Any) -> Any:
    """Not a number below -4.2, to which it goes."""
    return np.sqrt(y + 4.2) * p - 20.0 * t


def state(n: int, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3)).astype(dtype)


def outcome(y0: Any, backend: Any, f: Callable = field, ts: Any = (0.0, 1.0), controller: Any = None, params: Any = None,
            **how: Any) -> tuple:
    """Times, states, gradients and counts; or what was raised."""
    p = P.astype(y0.dtype) if params is None else params
    sols: list = []

    def run(y0: Any, p: Any) -> Any:
        sols.append(revode.solve(f, y0, ts, p, controller=controller or rv.PID(1e-5, 1e-6), backend=backend, arithmetic="strict",
                                 **how))
        return sols[-1].ys

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", rv.RevodeWarning)
        try:
            ys, pull = rv.vjp(run, y0, p)
            found = pull(np.cos(ys))
        except FloatingPointError as error:
            return (str(error), *(str(x.message) for x in said))
    stats = sols[-1].stats
    return sols[-1].ts, ys, found, (stats.steps, stats.rejected, stats.nfe, stats.nvjp), stats.backend


def same(found: tuple, desired: tuple) -> None:
    assert len(found) == len(desired) and found[3:4] == desired[3:4]
    if type(found[0]) is str:
        assert found == desired
        return
    for x, y in zip(rv.tree.flatten(found[:3])[0], rv.tree.flatten(desired[:3])[0], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# what is solved, and the tries that it takes at least, so that more than one list of AHEAD is read where that is the point
CASES: dict[str, dict[str, Any]] = {
    "default": {}, "heun": {"method": rv.ReversibleHeun()}, "coupled": {"method": rv.Coupled("bosh3")}, "ees": {"method": rv.EES25()},
    "back in time": {"ts": (1.0, -1.0)}, "pid": {"controller": rv.PID(1e-6, 1e-6, p=0.2, i=0.3, d=0.1), "method": rv.ReversibleHeun()},
    "many stops": {"save_at": np.linspace(0.0, 1.0, 90)[1:]}, "by component": {"controller": rv.PID([1e-5, 1e-4, 1e-3], 1e-6)},
    "rejected at first": {"dt0": 1.0, "method": rv.ReversibleHeun()}, "short steps": {"controller": rv.PID(max_step=0.01)},
    "interpolated": {"interpolate": True}, "too many": {"controller": rv.PID(1e-9, 1e-9, max_steps=40), "method": rv.Coupled("bosh3")},
    "too small": {"f": explosion, "ts": (0.0, 5.0)}, "not finite": {"f": edge, "dt0": 1.0},
    "copies that part": {"f": stiff, "ts": (0.0, 5.0), "controller": rv.PID(1e-1, 1e-1, max_steps=80), "method": rv.ReversibleHeun()},
    "overflow": {"f": steady, "ts": (0.0, 50.0)}, "least": {"controller": rv.PID(1e-9, 1e-9, min_step=0.05)}}


@pytest.mark.sample(8)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "dtype", "order"), [(1, np.float64, "ascending"), (1, np.float32, "random"), (40, np.float64, "random"),
                                                   (40, np.float32, "descending"), (133, np.float64, "random")])
def test_the_bits_of_native(case: str, n: int, dtype: Any, order: str) -> None:
    """One trajectory; three tiles, one of which is not full; nine. Threads in any order. What cannot go on says the same."""
    found = outcome(state(n, dtype), rehearse(order=order, shuffle=n), **CASES[case])
    same(found, outcome(state(n, dtype), "native", **CASES[case]))
    assert type(found[0]) is str or found[-1] == "fused"


def test_what_has_been_found_is_looked_at_before_a_solve_ends_badly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies part, and then there are too many steps, in one list: the warning comes first."""
    monkeypatch.setattr(search, "AHEAD", 64)
    found = []
    for backend in (rehearse(), "native"):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", rv.RevodeWarning)
            with pytest.raises(FloatingPointError, match="took max_steps") as error:
                revode.solve(decaying, 1.0 + state(5) ** 2, (0.0, 20.0), P, method=rv.ReversibleHeun(), backend=backend,
                             arithmetic="strict", controller=rv.PID(1e-2, 1e-2, max_steps=50))
        found.append((str(error.value), *(str(x.message) for x in said)))
    assert found[0] == found[1] and len(found[0]) == 2


@pytest.mark.parametrize("method", [None, rv.ReversibleHeun()], ids=repr)
def test_no_race(method: Any) -> None:
    """Nor does a thread touch what is not there."""
    y0 = state(40)
    same(outcome(y0, rehearse(races=True, threads=64), method=method), outcome(y0, "native", method=method))


@pytest.mark.parametrize(("kernel", "barrier"), [("attempt", 0), ("attempt", 1), ("attempt", 2), ("control", 0), ("control", 1)])
def test_every_barrier_is_needed(kernel: str, barrier: int) -> None:
    """Without it there is a race. 133 tiles: more than the controller sums up between two barriers. There are no more of them."""
    entry = f'extern "C" KERNEL void {kernel}('

    def without(text: str) -> str:
        before, found, behind = text.partition(entry)
        if found:
            assert host.barriers(behind) == {"attempt": 3, "control": 2}[kernel]
        return before + found + host.without_barrier(behind, barrier) if found else text

    with pytest.raises(host.KernelError, match=f"^{kernel}: .* a race"):
        revode.solve(field, state(133), (0.0, 0.1), P, controller=rv.PID(1e-3, 1e-3), backend=rehearse(T=1, threads=64, races=True,
                                                                                                 edit=without, order="random"))


def test_the_host_has_the_last_word() -> None:
    """A device whose power is one percent off guesses nearly every step wrong, and so does one that accepts what is rejected."""
    y0, how = state(5), {"method": rv.ReversibleHeun(), "ts": (0.0, 0.05)}
    desired = outcome(y0, "native", **how)
    for old, new in (("value * rv_power(", "value * 0.99 * rv_power("), ("accepted = norm <= 1", "accepted = true")):
        seen: list = []

        def worse(text: str, old: str = old, new: str = new, seen: list = seen) -> str:
            seen.append(old in text)
            return text.replace(old, new)

        same(outcome(y0, rehearse(edit=worse), **how), desired)
        assert any(seen)


@pytest.mark.parametrize("controller", [rv.PID(1e-5, 1e-5), rv.PID(1e-6, 1e-6, p=0.2, i=0.3, d=0.1),
                                        rv.PID(1e-4, 1e-4, max_step=0.02)], ids=str)
@pytest.mark.parametrize("method", [None, rv.ReversibleHeun()], ids=repr)
def test_most_guesses_are_right(controller: Any, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power in double rounds another way than the C library's once in some steps, and that is seen in t1 where h is nearly t."""
    lists: list = []
    ahead = search.SearchFused.run_ahead
    monkeypatch.setattr(search.SearchFused, "run_ahead", lambda self, *at: lists.append(0) or ahead(self, *at))
    sol = revode.solve(wave, state(5), (0.0, 1.0), P, method=method, controller=controller, backend=rehearse())
    attempts = sol.stats.steps + sol.stats.rejected
    print(f"{attempts} attempts in {len(lists)} lists")
    assert len(lists) <= 1.3 * attempts / search.AHEAD + 3


def test_a_kernel_that_is_wrong_is_seen() -> None:
    """Nothing of this passes by itself: a sum that is not that of all tiles, a step that is written where it began."""
    y0 = state(200)
    desired = outcome(y0, "native", method=rv.ReversibleHeun())
    for old, new in (("error + part[1][i] :", "part[1][i] :"),
                     ("TILE_RETURN(M + whole)", "TILE_RETURN(M)")):
        found = outcome(y0, rehearse(edit=lambda text, old=old, new=new: text.replace(old, new)), method=rv.ReversibleHeun())
        assert type(found[0]) is str or found[0].tobytes() != desired[0].tobytes() or found[1].tobytes() != desired[1].tobytes()


@needs_nvrtc
@pytest.mark.parametrize(("method", "dtype"), [(None, np.float64), (rv.ReversibleHeun(), np.float32)], ids=str)
def test_what_the_compiler_made_has_these_bits(method: Any, dtype: Any) -> None:
    """PTX, on the CPU. It holds nothing that is not strict: `compile` asks."""
    y0 = state(40, dtype)
    backend = Fusing("fused", False, True, True, None, ptx.device(order="random", shuffle=1))
    found = outcome(y0, backend, method=method, controller=rv.PID(1e-3, 1e-3))
    same(found, outcome(y0, "native", method=method, controller=rv.PID(1e-3, 1e-3)))
    assert found[-1] == "fused"


@needs_nvrtc
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_controller_needs_neither_stack_nor_spills(dtype: Any) -> None:
    took = compile.compile(search.controller(np.dtype(dtype)), "double", "sm_90", "strict").resources["control"]
    print(took)
    assert (took.stack, took.spills) == (0, 0) and took.registers <= 128


# ------------------------------------------------------------------ on arrays of the device

def gradient(solve: Callable, y0: Any, p: Any, a: Any, f: Callable = field, ts: Any = (0.0, 1.0), **how: Any) -> tuple:
    sols: list = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.RevodeWarning)
        ys, pull = rv.vjp(lambda y0, p: sols.append(solve(f, y0, ts, p, arithmetic="strict", **how)) or sols[0].ys, y0, p)
        return ys, pull(a), sols[0], rv.tree.map(lambda x: x.value, sols[0].state.parts)


@pytest.mark.parametrize(("method", "n"), [(None, 50), (rv.ReversibleHeun(), 50),
                                           pytest.param(rv.Coupled("bosh3"), 3000, marks=pytest.mark.long)], ids=repr)
@pytest.mark.parametrize("backend", ["fused", "auto"])
def test_device_arrays(large: Any, monkeypatch: pytest.MonkeyPatch, method: Any, n: int, backend: str) -> None:
    """States and gradients are there, and are native's."""
    monkeypatch.setattr("revode.compiled.backend.PAYS", 0)
    y0, how = state(n), {"method": method, "controller": rv.PID(1e-4, 1e-5), "save_at": [0.25, 1.0]}
    a = np.cos(np.arange(6.0 * n).reshape(2, n, 3))
    there = rv.to_device((y0, P, a))
    for _ in range(2):
        del DONE[:]
        ys, grads, sol, parts = gradient(rv.solve, *there, backend=backend, **how)
    assert "attempt" in DONE and "run" in DONE and type(ys) is type(there[0])
    desired = gradient(revode.solve, y0, P, a, backend="native", **how)
    assert sol.ts.tobytes() == desired[2].ts.tobytes() and sol.stats.rejected == desired[2].stats.rejected
    for x, y in zip(rv.tree.flatten(rv.to_host((ys, grads, parts)))[0], rv.tree.flatten((*desired[:2], desired[3]))[0], strict=True):
        np.testing.assert_array_equal(x, y)


QUEUED: dict[str, dict[str, Any]] = {
    "heun": {"method": rv.ReversibleHeun()}, "coupled": {"method": rv.Coupled("bosh3"), "gradient": rv.Reversible()},
    "ees": {"method": rv.EES25()}, "all steps": {"method": rv.ReversibleHeun(), "save_at": None},
    "by component": {"method": rv.ReversibleHeun(), "controller": rv.PID([1e-3, 1e-4, 1e-5], [1e-4, 1e-5, 1e-6]), "dt0": 0.01},
    "default": {"controller": rv.PID(1e-8, 1e-8), "gradient": rv.Reversible()}}


@pytest.mark.sample(3)
@pytest.mark.parametrize("case", QUEUED)
@pytest.mark.parametrize(("n", "dtype"), [(50, np.float64), (133, np.float32), pytest.param(4000, np.float64, marks=pytest.mark.long)])
def test_a_gradient_waits_as_often_as_the_search_and_twice(large: Any, case: str, n: int, dtype: Any) -> None:
    """From the second solve of a kind on: y0 and params come to the host, the log for each AHEAD attempts, and the report. Grid,
    states and gradients are native's, each time of other numbers. Besides the attempts there are three operations a list, and
    some forty."""
    how = {"controller": rv.PID(1e-4, 1e-4), "save_at": [0.3, 0.6], **QUEUED[case]}
    if dtype == np.float32 and case == "default":
        how["controller"] = rv.PID(1e-5, 1e-5)
    for seed in range(3):
        y0, p = (1 + seed / 8) * state(n, dtype), P.astype(dtype)
        rows = len(revode.solve(wave, y0, (0.0, 0.6), p, backend="native", arithmetic="strict", **how).ts)
        a = np.cos(np.arange(3.0 * rows * n)).reshape(rows, n, 3).astype(dtype)
        desired = gradient(revode.solve, y0, p, a, wave, (0.0, 0.6), backend="native", **how)
        there = rv.to_device((y0, p, a))
        del DONE[:]
        ys, grads, sol, parts = gradient(rv.solve, *there, wave, (0.0, 0.6), backend="fused", plan={"graph": False}, **how)
        lists, waits, done = DONE.count("attempt") // search.AHEAD, DONE.count("wait"), list(DONE)
        print(case, sol.stats.steps, "steps:", len(done) - waits, "operations", waits, "waits", lists, "lists")
        assert sol.ts.tobytes() == desired[2].ts.tobytes() and sol.stats.rejected == desired[2].stats.rejected
        for x, y in zip(rv.tree.flatten(rv.to_host((ys, grads, parts)))[0], rv.tree.flatten((*desired[:2], desired[3]))[0],
                        strict=True):
            np.testing.assert_array_equal(x, y)
    assert waits == lists + 2 and len(done) - waits - 2 * search.AHEAD * lists <= 45 + 3 * lists
    assert (done.count("run"), done.count("scores")) == (2, 1)


@pytest.mark.parametrize("differentiated", [True, False])
def test_copies_that_part_are_noticed_of_a_queued_solve(large: Any, differentiated: bool) -> None:
    """The device's numbers leave a doubt, so the solve is done once more, and the watch says what it says of native's. Its scale is
    that of the tolerance, in which copies that part by less than 30 of it are together: a looser controller hears nothing."""
    for scale, many in ((1.0, 1), (1e3, 0)):
        how = {"method": rv.ReversibleHeun(), "controller": rv.PID(1e-2 * scale, 1e-2 * scale, max_step=0.05)}
        y0, found = 1.0 + state(5) ** 2, []
        for backend, solve, at, times in (("fused", rv.solve, rv.to_device((y0, P)), 3), ("native", revode.solve, (y0, P), 1)):
            for _ in range(times):
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    run: Callable = lambda y0, p, solve=solve, backend=backend, how=how: solve(
                        decaying, y0, (0.0, 4.0), p, backend=backend, arithmetic="strict", save=[-1], **how).ys
                    if differentiated:
                        values = rv.vjp(run, *at)[1](at[0][None])
                    else:
                        values = run(*at)
            found.append((rv.tree.flatten(rv.to_host(values))[0], [str(x.message) for x in said]))
        assert found[0][1] == found[1][1] and len(found[0][1]) >= many, found[0][1]
        for x, y in zip(found[0][0], found[1][0], strict=True):
            np.testing.assert_array_equal(x, y)


def test_what_cannot_go_on_says_so_when_it_is_queued(large: Any) -> None:
    """As native code does, whatever the solves before it were."""
    y0, small = 1.0 + state(5) ** 2, rv.to_device((0.1 * state(5), P))
    how = {"method": rv.ReversibleHeun(), "controller": rv.PID(1e-4, 1e-4, max_steps=60)}
    for _ in range(2):
        rv.solve(explosion, *small[:1], (0.0, 1.0), small[1], backend="fused", **how)
    with pytest.raises(FloatingPointError) as error:
        rv.solve(explosion, rv.to_device(y0), (0.0, 1.0), small[1], backend="fused", arithmetic="fast", **how)
    with pytest.raises(FloatingPointError) as desired:
        revode.solve(explosion, y0, (0.0, 1.0), P, backend="native", **how)
    assert str(error.value)[:60] == str(desired.value)[:60]


@pytest.mark.parametrize("n", [50, pytest.param(2800, marks=pytest.mark.long)])
def test_waits_do_not_follow_the_steps(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1 kB, as if it were much, and of 67 kB. Op by op, an accepted step took 70 operations and five waits. Now an attempt is two
    launches, and AHEAD of them are read at one wait, and looked at in a few more: what a solve of more steps takes besides."""
    monkeypatch.setattr(solving, "CROSSING", min(solving.CROSSING, 20 * n))
    counts = []
    with pretended():
        y0, p = rv.to_device((state(n), P))
        for end in (0.2, 0.6):
            for _ in range(2):
                del DONE[:]
                sol = rv.solve(wave, y0, (0.0, end), p, method=rv.ReversibleHeun(), controller=rv.PID(1e-4, 1e-4), backend="fused",
                               save_at=[end])
            attempts, waits = sol.stats.steps + sol.stats.rejected, DONE.count("wait")
            lists = DONE.count("attempt") // search.AHEAD
            others = len(DONE) - waits - 2 * DONE.count("attempt")
            print(f"{attempts} attempts in {lists} lists: {waits} waits, {others} operations besides")
            assert DONE.count("attempt") == DONE.count("control") == lists * search.AHEAD
            assert lists <= -(-attempts // search.AHEAD) + 1                     # a guess is wrong now and then
            counts.append((lists, waits, others))
    (few, waits, others), (many, more_waits, more) = counts
    assert waits <= 25 and many >= few + 2
    assert more_waits - waits <= 5 * (many - few) and more - others <= 60 * (many - few)


@pytest.mark.parametrize(("case", "why"), [
    ({"diffusion": lambda t, y, p: 0.1 * p * y, "noise": rv.BrownianTree(3, 0.0, 1.0), "method": rv.ReversibleHeun()},
     "because the host makes noise and controls for each attempt"),
    ({"plan": {"state": "global"}}, "because a tile does not fit into the shared memory of a block, which an attempt")])
def test_what_is_not_searched_for_goes_op_by_op_and_says_so_once(large: Any, caplog: pytest.LogCaptureFixture, case: dict, why: str,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revode.compiled.backend._told", set())
    caplog.set_level("INFO", "revode")
    y0, p = rv.to_device((state(5), P))
    for _ in range(2):
        del DONE[:]
        sol = rv.solve(field, y0, (0.0, 1.0), p, backend="fused", **{"controller": rv.PID(1e-3, 1e-3), **case})
        assert "attempt" not in DONE
    assert len([x for x in caplog.messages if why in x]) == 1, caplog.messages
    plain = {name: x for name, x in case.items() if name != "plan"}
    desired = revode.solve(field, state(5), (0.0, 1.0), P, backend="eager", **{"controller": rv.PID(1e-3, 1e-3), **plain})
    assert sol.ts.tobytes() == desired.ts.tobytes()


def test_a_thread_per_trajectory_searches_in_tiles() -> None:
    """Its sums of errors would be as many as trajectories, one behind the other. The steps go as they were asked for."""
    y0 = state(40)
    backend = Fusing("fused", False, True, True, None, rehearse().device, tuple({"regime": "thread per trajectory", "T": 1, "state":
                     "registers", "params": "global", "padded": False}.items()))
    found, desired = outcome(y0, backend), outcome(y0, "native")
    assert found[0].tobytes() == desired[0].tobytes() and found[1].tobytes() == desired[1].tobytes()

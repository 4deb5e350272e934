"""The search for an adaptive grid by programs: the tape's attempts, its controller, its counts.

What "auto" replays has the bits of the tape: states and grids are compared with ==. Where sums are rounded otherwise, an error norm
moves by about eps times the number of terms over the tolerance, and a step by that over the order: 1e-6 is far above it here, where
no norm is so near 1 that the next step is accepted by one engine and rejected by another.
"""
from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.compiled import backend, plans, promote

NATIVE = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(not NATIVE, reason="no C++ compiler")
ENGINES = ["replay", pytest.param("native", marks=needs_compiler)]
RNG = np.random.default_rng(3)
W = {np.dtype(kind): {"W": RNG.standard_normal((3, 3)).astype(kind), "b": RNG.standard_normal(3).astype(kind)} for kind in "df"}
METHODS = {"tsit5": rv.RungeKutta("tsit5"), "bosh3": rv.NearReversible("bosh3"), "coupled": rv.Coupled("bosh3", lam=0.99),
           "heun": rv.ReversibleHeun(), "ees": rv.EES25()}
WAYS: dict[str, dict] = {"plain": {}, "saved": {"save_at": [0.5, 1.0, 2.9]}, "too long": {"dt0": 2.5},
                         "end": {"save": [-1]}, "back": {"ts": (3.0, 0.0)}}
PATH = rv.LinearPath(np.linspace(0.0, 3.0, 7), RNG.standard_normal((7, 2)))
SMOOTH = rv.HermiteCubic(np.linspace(0.0, 3.0, 7), RNG.standard_normal((7, 2)))


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"] * np.cos(t)) - 0.1 * y


def van_der_pol(t: Any, y: Any, p: Any) -> Any:
    x, v = y[..., 0], y[..., 1]
    return np.stack([v, p * (1 - x * x) * v - x], -1)


def start(shape: tuple[int, ...], kind: str = "d") -> Any:
    return np.cos(np.arange(np.prod(shape)).reshape(shape)).astype(kind)


def solved(engine: str, method: str, y0: Any, ts: Any = (0.0, 3.0), f: Any = field, params: Any = None,
           controller: Any = None, **options: Any) -> Any:
    params = W[y0.dtype] if params is None else params
    return rv.solve(f, y0, ts, params, method=METHODS[method], backend=engine,
                    controller=controller or rv.PID(1e-4, 1e-5, p=0.2, i=0.3, d=0.1), **options)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs from the first solve on; one that is not the field raises."""
    monkeypatch.setattr(backend, "PAYS", 0)
    monkeypatch.setattr(plans.programs, "strict", True)


def counts(sol: Any) -> tuple[int, int, int]:
    return sol.stats.steps, sol.stats.rejected, sol.stats.nfe


def assert_same_bits(found: Any, wanted: Any) -> None:
    assert (found.stats.backend, wanted.stats.backend) == ("replay", "eager")
    assert counts(found) == counts(wanted)
    for name in ("ts", "ys", "y1"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    for name, part in wanted.state.parts.items():
        np.testing.assert_array_equal(found.state.parts[name], part)


@pytest.mark.parametrize("kind", "df")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("at_once")
def test_the_tapes_bits(method: str, kind: str) -> None:
    """Of one trajectory and of many, with and without rejections, saved times and times that run backwards."""
    for way, shape in zip(WAYS.values(), [(3,), (4, 3), (2, 5, 3), (4, 3), (3,)], strict=True):
        found, wanted = (solved(engine, method, start(shape, kind), **way) for engine in ("auto", "eager"))
        assert_same_bits(found, wanted)
        assert wanted.stats.rejected > 0 or "dt0" not in way


DRIVEN: dict[str, dict] = {
    "noise": {"controller": rv.PID(1e-2, 1e-2), "diffusion": lambda t, y, p: 0.2 * np.cos(y), "noise": rv.BrownianTree(5, 0.0, 3.0)},
    "line": {"f": lambda t, y, p: np.stack([field(t, y, p), np.sin(y)], -1), "control": PATH},
    "smooth": {"f": lambda t, y, p: np.stack([field(t, y, p), np.sin(y)], -1), "control": SMOOTH},
    "tolerances": {"controller": rv.PID(rtol=[1e-3, 1e-5, 1e-4], atol=np.full((4, 3), 1e-5))},
    "tame": {"controller": rv.PID(1e-4, 1e-6, safety=0.8, shrink=0.5, grow=2.0, max_step=0.2)},
}


@pytest.mark.parametrize("driven", DRIVEN)
@pytest.mark.usefixtures("at_once")
def test_the_tapes_bits_where_more_than_time_drives(driven: str) -> None:
    found, wanted = (solved(engine, "heun", start((4, 3)), **DRIVEN[driven]) for engine in ("auto", "eager"))
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_the_same_grid_where_sums_are_rounded_otherwise(method: str, engine: str) -> None:
    cases: list = [(van_der_pol, np.array([1.2, 0.4]), np.array(0.5), {"dt0": 1.4}), (field, start((4, 3)), None, {})]
    for f, y0, params, way in cases if engine == "replay" else cases[:1]:
        found, wanted = (solved(name, method, y0, f=f, params=params, **way) for name in (engine, "eager"))
        assert found.stats.backend == engine
        assert counts(found) == counts(wanted)
        np.testing.assert_allclose(found.ts, wanted.ts, rtol=1e-6)
        np.testing.assert_allclose(found.y1, wanted.y1, rtol=1e-6)


def test_a_program_is_traced_once_whatever_the_tolerance() -> None:
    plans.programs.clear()
    traces = [solved("replay", "coupled", start((4, 3)), controller=rv.PID(10.0**-k, 1e-6)).stats.traces for k in (3, 4, 5)]
    assert traces == [1, 0, 0]


@pytest.mark.parametrize("engine", ["eager", *ENGINES])
def test_a_search_that_ends_badly_says_so(engine: str) -> None:
    with pytest.raises(FloatingPointError, match=r"took max_steps=5 steps at t = 0\.\d+ .*, 5 steps accepted"):
        solved(engine, "tsit5", start((4, 3)), controller=rv.PID(1e-9, 1e-9, max_steps=5), dt0=1e-3)
    with pytest.raises(FloatingPointError, match=r"would need a step of .* at t = 1\.0\d+ .* rejected"):
        solved(engine, "bosh3", np.ones(1), f=lambda t, y, p: y * y, params=1.0)          # y = 1 / (1 - t)


@needs_compiler
@pytest.mark.parametrize(("method", "kind", "shape"), [
    ("tsit5", "d", (3,)), ("bosh3", "f", (19, 3)), ("coupled", "d", (19, 3)), ("heun", "f", (3,)), ("heun", "d", (19, 3))])
def test_strict_is_its_mirror(method: str, kind: str, shape: tuple[int, ...]) -> None:
    """The controller in C and the one in Python, around attempts in C and in NumPy: the same bits. (19 rows are more than a tile.)"""
    dense = {"save_at": np.sort(np.random.default_rng(1).uniform(0.0, 3.0, 60))}         # steps of all lengths are cut short
    for way, tuned in ((WAYS["too long"], {"d": 0.4}), (dense, {"p": -0.6, "i": 1.0}), (WAYS["back"], {"d": 0.4})):
        more = {"arithmetic": "strict", "controller": rv.PID(1e-2, 1e-3, **{"p": 0.2, "i": 0.3, **tuned}), **way}
        found, wanted = (solved(engine, method, start(shape, kind), **more) for engine in ("native", "replay"))
        assert (found.stats.backend, wanted.stats.backend) == ("native", "replay")
        assert counts(found) == counts(wanted)
        np.testing.assert_array_equal(found.ts, wanted.ts)
        np.testing.assert_array_equal(found.ys, wanted.ys)


def general(t: Any, y: Any, p: Any) -> Any:
    return np.stack([0.1 * np.sin(y), 0.2 * y @ p["W"]], -1)


OWN = RNG.standard_normal((19, 7, 2))                        # a series for each trajectory
FED = {**{name: DRIVEN[name] for name in ("noise", "line", "smooth")},
       "general noise": {"controller": rv.PID(1e-2, 1e-2), "diffusion": general, "noise": rv.BrownianTree(6, 0.0, 3.0)},
       "a line each": {**DRIVEN["line"], "control": rv.LinearPath(np.linspace(0.0, 3.0, 7), OWN)},
       "a curve each": {**DRIVEN["smooth"], "control": rv.HermiteCubic(np.linspace(0.0, 3.0, 7), OWN)}}


@needs_compiler
@pytest.mark.sample(2, cover=False)
@pytest.mark.parametrize(("driven", "kind"), [("noise", "d"), ("noise", "f"), ("general noise", "d"), ("line", "d"), ("smooth", "d"),
                                              ("a line each", "d"), ("a curve each", "d")])
def test_noise_and_controls_are_handed_to_native_attempts(driven: str, kind: str) -> None:
    """Strict: native is its mirror, with rejections, corners and saved times. Fast: the tape's counts, and its times to 1e-6; in
    float32 an error norm has 7 digits, and so have the steps; and a path is rough: a rounding of t moves it by a finest cell, whose
    square root is large, so that attempts may end otherwise. The gradient is that of the tape on the grid that was found."""
    f = FED[driven].get("f", field)
    more = {"f": f, "dt0": 1.0, "save_at": [0.7, 2.0], "controller": rv.PID(1e-2, 1e-3), **FED[driven]}
    y0, rtol = start((19, 3), kind), 1e-3 if kind == "f" or "noise" in driven else 1e-6
    found, wanted = (solved(engine, "heun", y0, arithmetic="strict", **more) for engine in ("native", "replay"))
    assert (found.stats.backend, wanted.stats.backend) == ("native", "replay")
    assert counts(found) == counts(wanted)
    assert wanted.stats.rejected > 0
    np.testing.assert_array_equal(found.ts, wanted.ts)
    np.testing.assert_array_equal(found.ys, wanted.ys)
    found, wanted = (solved(engine, "heun", y0, **{**more, "save_at": None}) for engine in ("native", "eager"))
    assert found.stats.backend == "native"
    if driven != "general noise":            # which does not commute: another grid is another limit (Gaines & Lyons 1997)
        assert counts(found) == counts(wanted)
        np.testing.assert_allclose(found.ts, wanted.ts, rtol=rtol)
        np.testing.assert_allclose(found.ys, wanted.ys, rtol=100 * rtol, atol=100 * rtol)
    if kind == "d":
        drives = {name: x for name, x in FED[driven].items() if name in ("diffusion", "noise", "control")}

        def loss(y0: Any, p: Any, **how: Any) -> Any:
            sol = rv.solve(f, y0, params=p, method=METHODS["heun"], **{**drives, **how})
            grids.append(sol.ts)
            return np.sum(np.sin(sol.y1))

        grids: list = []
        searched = {"ts": (0.0, 3.0), "backend": "native", "controller": more["controller"]}
        a = rv.grad(lambda y0, p: loss(y0, p, **searched), argnums=(0, 1))(y0, W[y0.dtype])
        b = rv.grad(lambda y0, p: loss(y0, p, ts=grids[0], backend="eager", gradient=rv.Direct()), argnums=(0, 1))(y0, W[y0.dtype])
        for x, y in zip(rv.tree.flatten(a)[0], rv.tree.flatten(b)[0], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11)


def apart(t: Any, y: Any, p: Any) -> Any:
    """A sum over the trajectories, which goes back into each of them: no loop over trajectories."""
    return field(t, y, p) - 0.1 * np.mean(y, axis=0)


@needs_compiler
def test_what_has_no_loop_is_replayed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    plans.programs.clear()
    backend._told.clear()
    with caplog.at_level(logging.INFO, logger="revode"):
        found = [solved("native", "heun", start((4, 3)), f=apart) for _ in range(2)]
    assert [sol.stats.backend for sol in found] == ["replay"] * 2
    assert sum("are replayed" in record.getMessage() for record in caplog.records) == 1


@needs_compiler
def test_members_tolerances_and_many_steps() -> None:
    """A network for each member of an ensemble; a tolerance for each entry; and more steps than one call takes."""
    params = {"W": RNG.standard_normal((2, 3, 3)), "b": np.zeros(3)}
    for y0, p, more in ((start((2, 5, 3)), params, {}), (start((4, 3)), None, DRIVEN["tolerances"]),
                        (start((4, 3)), None, {"controller": rv.PID(1e-4, 1e-6, max_step=0.005)})):
        found, wanted = (solved(engine, "bosh3", y0, params=p, **more) for engine in ("native", "eager"))
        assert found.stats.backend == "native"
        assert counts(found) == counts(wanted)
        np.testing.assert_allclose(found.ts, wanted.ts, rtol=1e-6)
        np.testing.assert_allclose(found.ys, wanted.ys, rtol=1e-6)
    assert found.stats.steps >= 600


@needs_compiler
def test_ctrl_c_ends_a_long_search(interruptible: None) -> None:
    solved("native", "bosh3", start((3,)), dt0=0.1)                                    # compiled
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        solved("native", "bosh3", start((3,)), save=[-1], controller=rv.PID(1e-4, 1e-5, max_step=1e-7, max_steps=10**9))
    assert time.perf_counter() - begun < 2.0
    timer.join()


@needs_compiler
def test_auto_goes_native_also_where_steps_are_searched_for(monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    """The search and the way back together, with what drives a step too."""
    monkeypatch.setattr(promote, "COMPILER", 1e-9)
    monkeypatch.setattr(promote, "OPERATION", 0.0)
    plans.programs.clear()

    def backends(**more: Any) -> tuple[str, str]:
        found: dict[str, str] = {}

        def end(y0: Any) -> Any:
            sol = solved("auto", "heun", y0, gradient=rv.Reversible(tol=1e9), **more)
            found["ahead"] = sol.stats.backend
            return np.sum(sol.y1), sol
        (_, sol), _ = rv.value_and_grad(end, has_aux=True)(start((4, 3)))
        return found["ahead"], sol.stats.backend

    assert [backends() for _ in range(3)][-1] == ("native", "native")
    assert [backends(**DRIVEN["smooth"]) for _ in range(3)][-1] == ("native", "native")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ts", [(1.0, 1.0), [1.0]])
def test_a_solve_without_steps(engine: str, ts: Any) -> None:
    """With and without a controller, and its gradient: that of the identity."""
    more = {"controller": rv.PID()} if len(ts) == 2 else {}
    for mode in (rv.Reversible(), rv.Direct(), rv.Checkpointed(2)):
        slope = rv.grad(lambda y0, mode=mode: np.sum(rv.solve(field, y0, ts, W[y0.dtype], method=METHODS["heun"], gradient=mode,
                                                              backend=engine, **more).y1))(start((4, 3)))
        np.testing.assert_array_equal(slope, np.ones((4, 3)))

"""The search for an adaptive grid by programs: the tape's attempts, its controller, its counts.

What "auto" replays has the bits of the tape: states and grids are compared with ==. Where sums are rounded otherwise, an error norm
moves by about eps times the number of terms over the tolerance, and a step by that over the order: 1e-6 is far above it here, where
no norm is so near 1 that the next step is accepted by one engine and rejected by another.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.compiled import backend, plans

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


@pytest.mark.parametrize("engine", ["replay"])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_grid_where_sums_are_rounded_otherwise(method: str, engine: str) -> None:
    for f, y0, params, way in ((van_der_pol, np.array([1.2, 0.4]), np.array(0.5), {"dt0": 1.4}), (field, start((4, 3)), None, {})):
        found, wanted = (solved(name, method, y0, f=f, params=params, **way) for name in (engine, "eager"))
        assert found.stats.backend == engine
        assert counts(found) == counts(wanted)
        np.testing.assert_allclose(found.ts, wanted.ts, rtol=1e-6)
        np.testing.assert_allclose(found.y1, wanted.y1, rtol=1e-6)


def test_a_program_is_traced_once_whatever_the_tolerance() -> None:
    plans.programs.clear()
    traces = [solved("replay", "coupled", start((4, 3)), controller=rv.PID(10.0**-k, 1e-6)).stats.traces for k in (3, 4, 5)]
    assert traces == [1, 0, 0]


@pytest.mark.parametrize("engine", ["eager", "replay"])
def test_a_search_that_ends_badly_says_so(engine: str) -> None:
    with pytest.raises(FloatingPointError, match=r"took max_steps=5 steps at t = 0\.\d+ .*, 5 steps accepted"):
        solved(engine, "tsit5", start((4, 3)), controller=rv.PID(1e-9, 1e-9, max_steps=5), dt0=1e-3)
    with pytest.raises(FloatingPointError, match=r"would need a step of .* at t = 1\.0\d+ .* rejected"):
        solved(engine, "bosh3", np.ones(1), f=lambda t, y, p: y * y, params=1.0)          # y = 1 / (1 - t)

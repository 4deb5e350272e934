"""Steps that are too large for an explicit method are told, and nothing else: by every engine, with and without a gradient.

The limits are those of the methods, found in tests/unit/test_stability.py from their words: here they are on either side.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import revode as rv
from revode import stiffness
from revode.analysis.stability import amplification

ENGINES = ("eager", "replay", "native")


class Case(NamedTuple):
    field: Callable
    y0: Any
    ts: np.ndarray
    p: Any
    method: Any = None
    noise: Callable | None = None


def decay(t: Any, y: Any, p: Any) -> Any:
    return -p * y


def relaxed(t: Any, y: Any, p: Any) -> Any:
    return -p * (y - np.cos(t))


def logistic(t: Any, y: Any, p: Any) -> Any:
    return p * y * (1 - y)


def oscillator(t: Any, y: Any, p: Any) -> Any:
    return np.stack([y[..., 1], -p[0] ** 2 * y[..., 0]], -1)


def heat(t: Any, y: Any, p: Any) -> Any:
    return p * 256 * (np.roll(y, 1, -1) - 2 * y + np.roll(y, -1, -1))


def lorenz(t: Any, y: Any, p: Any) -> Any:
    return np.stack([p[0] * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]])


def pulses(t: Any, y: Any, p: Any) -> Any:
    return p * np.sign(np.sin(7 * t)) - 2 * y


W = np.random.default_rng(0).normal(size=(4, 4))


def net(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ W) @ W.T / 4 - p * y


def stiff_net(t: Any, y: Any, p: Any) -> Any:
    return -p * np.tanh(3 * y @ (W @ W.T))


def array(*x: float) -> np.ndarray:
    return np.array(x, float)


TEN, TWENTY = np.linspace(0, 10, 101), np.linspace(0, 20, 2001)              # h = .1, .01
SINES = np.sin(np.arange(16.0) ** 2)
# RK4: -2.785 on the real axis, 2.828 on the imaginary one. Some are beyond by a hair, and grow by a tenth a step.
BEYOND = {
    "decay": Case(decay, array(1.0), TEN[:31], array(40.0)),
    "decay, by a hair": Case(decay, array(1.0), TEN, array(28.5)),
    "onto a slow solution": Case(relaxed, array(1.0), TEN, array(29.0)),
    "in float32": Case(decay, np.ones(1, np.float32), TEN[:31], np.float32(40.0)),
    "backwards in time": Case(lambda t, y, p: p * y, array(1.0), TEN[30::-1], array(40.0)),
    "oscillation": Case(oscillator, array(1.0, 0.0), TEN, array(29.0)),
    "heat": Case(heat, SINES, np.linspace(0, 0.25, 81), array(1.0)),
    "heat, from a smooth start": Case(heat, np.sin(np.pi * np.arange(16) / 8), np.linspace(0, 1, 321), array(1.0)),
    "a network that decays": Case(net, SINES[:12].reshape(3, 4), TEN, array(35.0)),
    "a network that saturates": Case(stiff_net, SINES[:12].reshape(3, 4), TEN[:51], array(6.0)),
    "a steady state that is none": Case(logistic, array(0.1), TEN, array(30.0)),
    "a small entry": Case(decay, array(100.0, 1e-6), TEN[:31], array(0.1, 40.0)),
    "Euler": Case(decay, array(1.0), TEN, array(25.0), rv.RungeKutta("euler")),
    "midpoint": Case(decay, array(1.0), TEN, array(25.0), rv.RungeKutta("midpoint")),
    "EES25": Case(decay, array(1.0), TEN, array(35.0), rv.EES25()),
    "noise": Case(decay, np.ones((8, 2)), TEN[:41], array(45.0), None, lambda t, y, p: 0.5 + 0 * y),
}
WITHIN = {
    "decay": Case(decay, array(1.0), TEN, array(20.0)),
    "growth": Case(lambda t, y, p: p * y, array(1.0), TEN[:31], array(20.0)),                     # h rate = 2: truly grows
    "growth, backwards in time": Case(decay, array(1.0), TEN[50::-1], array(3.0)),
    "logistic growth": Case(logistic, array(0.01), TEN, array(3.0)),
    "oscillation": Case(oscillator, array(1.0, 0.0), TEN, array(20.0)),                           # coarse, and damped by RK4
    "in units of unlike size": Case(oscillator, array(1.0, 0.0), TEN[:11] / 5, array(100.0)),     # |h J| = 200, |h lambda| = 2
    "Lorenz": Case(lorenz, array(1.0, 1.0, 1.0), TWENTY, array(10.0)),
    "forces that jump": Case(pulses, array(0.0), TEN, array(10.0)),
    "heat": Case(heat, SINES, np.linspace(0, 0.25, 101), array(1.0)),
    "a network": Case(net, SINES[:12].reshape(3, 4), TEN, array(0.5)),
    "a relay": Case(lambda t, y, p: -p * np.tanh(10 * y), array(1.0), TEN[:31], array(1.0)),
    "Euler": Case(decay, array(1.0), TEN, array(15.0), rv.RungeKutta("euler")),
    "noise": Case(decay, np.ones((8, 2)), TEN[:41], array(5.0), None, lambda t, y, p: 0.5 + 0 * y),
    "noise that multiplies": Case(decay, np.ones((64, 2)), TEN[:41], array(0.5), None, lambda t, y, p: 1.5 * y),
}
COMPILED = {"decay", "oscillation", "a steady state that is none", "Lorenz"}          # natively too: compiling each takes a second


def said(case: Case, engine: str, gradient: Any = "none") -> list:
    noise = {} if case.noise is None else {"diffusion": case.noise, "noise": rv.Brownian(1)}

    def loss(p: Any) -> Any:
        return np.sum(rv.solve(case.field, case.y0, case.ts, p, method=case.method, backend=engine, save=[-1], **noise,
                               **({} if gradient == "none" else {"gradient": gradient})).y1)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        loss(case.p) if gradient == "none" else rv.grad(loss)(case.p)
    return [w.message for w in found if w.category is rv.StabilityWarning]


@pytest.mark.parametrize("name", BEYOND)
def test_steps_beyond_the_limit_are_told_by_every_engine_in_the_same_words(name: str) -> None:
    found = [said(BEYOND[name], engine) for engine in ENGINES[:3 if name in COMPILED else 2]]
    assert all(len(messages) == 1 for messages in found)
    first = found[0][0]
    for (message,) in found:
        assert str(message) == str(first) and not any(c.isdigit() for c in str(message).split("for ")[0])
        assert message.details["step"] == first.details["step"]
        assert "controller=PID" in str(message)


@pytest.mark.parametrize("name", WITHIN)
def test_what_is_within_it_is_not(name: str) -> None:
    for engine in ENGINES[:3 if name in COMPILED else 2]:
        messages = said(WITHIN[name], engine)
        assert not messages, messages[0].details


@pytest.mark.parametrize("name", ["decay", "a steady state that is none", "heat"])
@pytest.mark.parametrize("gradient", [None, rv.Direct(), rv.Reversible()], ids=repr)
def test_a_gradient_tells_it_too(name: str, gradient: Any) -> None:
    case = BEYOND[name]
    case = case if case.method or not isinstance(gradient, rv.Reversible) else case._replace(method=rv.NearReversible("rk4"))
    for engine in ENGINES[:2]:
        assert len(said(case, engine, gradient)) == 1
        assert not said(WITHIN["heat"], engine, gradient)


def test_strict_raises() -> None:
    case = BEYOND["decay"]
    with pytest.raises(rv.StabilityError, match="too large for NearReversible"):
        rv.grad(lambda p: np.sum(rv.solve(case.field, case.y0, case.ts, p, gradient=rv.Reversible(strict=True)).y1))(case.p)


def test_a_controller_is_the_remedy() -> None:
    """exp(-120) is 0, and what is accepted is below atol."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(rv.solve(decay, array(1.0), (0.0, 3.0), array(40.0), controller=rv.PID(1e-6, 1e-8)).y1[0]) < 1e-7


def test_the_eigenvalues_are_those_of_the_field() -> None:
    """In the plane of v and w, whatever the units of the entries: of a rotation with entries of size 1 and 100, and of a mixture of
    two decays, by np.linalg.eigvals. Differences lose half of the digits, and each product with J as many again."""
    for J in (np.array([[0.0, 1.0], [-1e4, -3.0]]), np.array([[-2.0, 0.3], [0.1, -30.0]])):
        v = np.array([[0.3, 0.7]])
        w, h = v @ J.T, 0.1
        found = stiffness.roots(v, h * w, h * h * w @ J.T)[0]
        wanted = h * np.linalg.eigvals(J)
        assert np.allclose(np.sort_complex(found), np.sort_complex(wanted), rtol=1e-9)


@pytest.mark.parametrize("method", [rv.RungeKutta("rk4"), rv.EES25(), rv.NearReversible("tsit5"), rv.EES(stages=5)], ids=repr)
def test_the_multiplier_is_the_stability_function(method: Any) -> None:
    z = np.array([-2.9 + 0.3j, 1j, 0.5 + 0j])
    assert np.allclose(stiffness.multiplier(method, z), amplification(method, z)[:, 0, 0], rtol=1e-13)

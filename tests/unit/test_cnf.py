"""Continuous normalising flows: d log p/dt = -trace df/dx along x' = f, a vjp inside the field, in every gradient mode.

Source: Chen, Rubanova, Bettencourt & Duvenaud 2018, theorem 1; Hutchinson's estimator: Grathwohl et al. 2019 (FFJORD).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import revode as rv
from tests.method_cases import distance

rng = np.random.default_rng(4)
P = {"W": rng.normal(size=(2, 5)) / 2, "b": rng.normal(size=5), "V": rng.normal(size=(5, 2)) / 2}
X0 = rng.normal(size=(3, 2))
PROBES = np.sign(rng.normal(size=(3, 2)))  # fixed, so the field is a function
TS = np.linspace(0, 0.5, 9)


def velocity(t: Any, x: Any, p: Any) -> Any:
    return np.tanh(x @ p["W"] + p["b"] * (1 + t)) @ p["V"]


def exact(t: Any, state: Any, p: Any) -> tuple:
    """(x', -trace): one vjp for each of the two dimensions."""
    x, _ = state
    dx, pull = rv.vjp(lambda x: velocity(t, x, p), x)
    trace = sum(pull(0 * x + e)[0] @ e for e in np.eye(2))
    return dx, -trace


def hutchinson(t: Any, state: Any, p: Any) -> tuple:
    x, _ = state
    dx, pull = rv.vjp(lambda x: velocity(t, x, p), x)
    return dx, -np.sum(pull(PROBES + 0 * x)[0] * PROBES, axis=-1)


def by_hand(t: Any, state: Any, p: Any) -> tuple:
    """The same without a vjp: trace (V^T diag(1 - tanh^2) W^T) = sum_k (1 - tanh_k^2) (W V^T)_kk."""
    x, _ = state
    u = np.tanh(x @ p["W"] + p["b"] * (1 + t))
    return u @ p["V"], -((1 - u * u) @ np.sum(np.transpose(p["W"]) * p["V"], axis=-1))


def loss(field: Any, method: Any, mode: Any) -> Any:
    """Negative log likelihood of x(0) under the base density at the end (2 pi dropped)."""

    def value(x0: Any, p: Any) -> Any:
        x, change = rv.solve(field, (x0, np.zeros(3)), TS, p, method=method, gradient=mode, save=[-1]).y1
        return np.mean(0.5 * np.sum(x * x, axis=-1) + change)

    return value


METHODS = {
    "coupled": rv.Coupled("midpoint", 0.99),
    "reversible-heun": rv.ReversibleHeun(),
    "alf": rv.AsynchronousLeapfrog(),
    "leapfrog": rv.LeapfrogMidpoint(),
    "ees": rv.EES(6),
}


@pytest.mark.parametrize("field", [exact, hutchinson], ids=["exact", "hutchinson"])
@pytest.mark.parametrize("name", METHODS)
def test_every_gradient_mode_agrees(name: str, field: Any) -> None:
    """The loss is differentiated through vjps inside the field. 8 steps and a gradient of size 1: 1e-13 is 450 ulp."""
    method = METHODS[name]
    value, direct = rv.value_and_grad(loss(field, method, rv.Direct()), argnums=(0, 1))(X0, P)
    assert all(abs(g).max() > 1e-3 for g in rv.tree.flatten(direct)[0])
    for mode in (rv.Reversible(), rv.Reversible(resync=3), rv.Checkpointed(2)):
        again, found = rv.value_and_grad(loss(field, method, mode), argnums=(0, 1))(X0, P)
        assert again == value
        assert distance(found[0], direct[0]) <= 1e-13 and distance(found[1], direct[1]) <= 1e-13, mode
    back = rv.grad(loss(field, method, rv.Backsolve()), argnums=(0, 1))(X0, P)
    assert 1e-13 < distance(back, direct) < 0.01
    if field is exact:
        by_hand_value, by_hand_grads = rv.value_and_grad(loss(by_hand, method, rv.Direct()), argnums=(0, 1))(X0, P)
        assert abs(by_hand_value - value) <= 1e-14
        assert distance(direct[0], by_hand_grads[0]) <= 1e-13 and distance(direct[1], by_hand_grads[1]) <= 1e-13


def test_gradient_against_central_differences() -> None:
    """The differences themselves are good to eps^(2/3) (check_vjp's own bound)."""
    rv.check_vjp(loss(exact, rv.ReversibleHeun(), rv.Reversible()), X0, P, order=1)


def test_change_of_variables_on_a_linear_field() -> None:
    """x' = A x: x(T) = expm(TA) x0 and the log density changes by -T trace A, whatever x; RK4 with h = 1/16: 1e-6 for
    x, and the
    trace is constant, so that its integral is exact to round-off. The Hutchinson estimate is z^T A z per probe."""
    from scipy.linalg import expm

    A = np.array([[0.3, -0.5], [0.4, -0.1]])

    def field(t: Any, state: Any, A: Any) -> tuple:
        dx, pull = rv.vjp(lambda x: x @ A.T, state[0])
        return dx, -sum(pull(0 * dx + e)[0] @ e for e in np.eye(2))

    def estimate(t: Any, state: Any, A: Any) -> tuple:
        dx, pull = rv.vjp(lambda x: x @ A.T, state[0])
        return dx, -np.sum(pull(PROBES)[0] * PROBES, axis=-1)

    for rule, rate in ((field, np.full(3, np.trace(A))), (estimate, np.sum((PROBES @ A.T) * PROBES, axis=-1))):
        x, change = rv.solve(rule, (X0, np.zeros(3)), TS, A, method=rv.Coupled("rk4", 0.99)).y1
        assert_allclose(x, X0 @ expm(0.5 * A).T, atol=1e-6)
        assert_allclose(change, -0.5 * rate, rtol=0, atol=1e-14)
    # dL/dA of the trace's integral alone is -T I for every sample
    a = rv.grad(lambda A: np.sum(rv.solve(field, (X0, np.zeros(3)), TS, A, method=rv.ReversibleHeun()).y1[1]))(A)
    assert_allclose(a, -0.5 * 3 * np.eye(2), atol=1e-13)


def test_the_density_integrates_to_one() -> None:
    """p_T(x(T)) = p_0(x(0)) exp(change), so that its integral over x(T) is one: a flow backwards from a grid over the
    plane.

    The trapezoidal rule on a smooth function that has died out at the edges (|x| = 8 under a flow of at most 1) is
    exact but for
    the solver's 1e-4.
    """
    axis = np.linspace(-8, 8, 65)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    back, change = rv.solve(
        lambda t, s, p: exact(t, s, p), (x, np.zeros(len(x))), TS[::-1], P, method=rv.Coupled("rk4", 0.99)
    ).y1
    # backwards, `change` is the integral of -trace from T to 0, that is +integral of the trace: log p_T = log p_0 - it
    density = np.exp(-0.5 * np.sum(back**2, -1) - change) / (2 * np.pi)
    assert abs(density.sum() * 0.25**2 - 1) < 1e-4

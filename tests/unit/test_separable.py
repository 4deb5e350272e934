"""SemiImplicitEuler for a pair q' = f(t, v), v' = a(t, q): against a literal loop in complex step, and as a symplectic map."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.oracles import gradients as G

EPS = 2.0**-53
rng = np.random.default_rng(0)
TS = np.cumsum(np.r_[0.0, 0.05 + 0.05 * rng.random(9)])
Q0, V0, C = rng.standard_normal((3, 3, 2))
PARAMS = {"W": rng.standard_normal((2, 2)), "m": np.array([1.3, 0.7])}


def pull(t: Any, q: Any, p: Any) -> Any:
    return -np.tanh(q @ p["W"]) + np.sin(t)


def relativistic(t: Any, v: Any, p: Any) -> Any:
    """The velocity that belongs to a momentum v, of masses m."""
    return v / np.sqrt(p["m"] ** 2 + v * v) * (1.0 + 0.1 * t)


def literal(at: Any) -> Any:
    q, v, ts, p = at["q"], at["v"], at["ts"], at["p"]
    for n in range(len(ts) - 1):
        h = ts[n + 1] - ts[n]
        v = v + h * pull(ts[n], q, p)
        q = q + h * relativistic(ts[n + 1], v, p)
    return np.sum(C * q * q) + np.sum(v**3)


@pytest.mark.parametrize("mode", [None, rv.Direct(), rv.Checkpointed(3)])
@pytest.mark.parametrize("backend", ["eager", "replay"])
def test_gradients_against_complex_step(mode, backend):
    truth = G.complex_step_gradient(literal, {"q": Q0, "v": V0, "p": PARAMS, "ts": TS})

    def loss(q: Any, v: Any, p: Any, ts: Any) -> Any:
        method = rv.SemiImplicitEuler(velocity=relativistic)
        sol = rv.solve(pull, (q, v), ts, p, method=method, gradient=mode, backend=backend)
        return np.sum(C * sol.y1[0] ** 2) + np.sum(sol.y1[1] ** 3), sol

    (_, sol), found = rv.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(Q0, V0, PARAMS, TS)
    assert sol.stats.backend == backend
    for x, y in zip(rv.tree.flatten(found)[0], rv.tree.flatten([truth[name] for name in ("q", "v", "p", "ts")])[0], strict=True):
        # 9 steps of some 40 operations; the largest gradient is about 30
        np.testing.assert_allclose(x, y, rtol=0, atol=9 * 40 * 30 * EPS)


def test_it_keeps_areas_and_comes_back():
    """The determinant of the map of (q, v) is 1; undone step by step, the start is back; with f = v it is the method as it was."""
    method = rv.SemiImplicitEuler(velocity=lambda t, v, p: np.sinh(v))
    ts, force = np.linspace(0.0, 3.0, 31), lambda t, q, p: -np.sin(q)
    flow = lambda x: np.concatenate(rv.solve(force, (x[:1], x[1:]), ts, method=method).y1)
    assert abs(np.linalg.det(rv.jacobian(flow)(np.array([0.9, 0.2]))) - 1.0) < 1e-12
    sol = rv.solve(force, (np.ones(1), np.zeros(1)), ts, method=method, interpolate=True)
    *_, back = rv.steps_back(force, sol.state, ts, ay1=(np.ones(1), np.ones(1)))
    np.testing.assert_allclose([back.state.parts["q"][0], back.state.parts["v"][0]], [1.0, 0.0], rtol=0, atol=1e3 * EPS)
    middle = sol.at(0.05)[0]                               # Hermite by the method's own velocity: far better than its first order
    assert abs(middle - 0.5 * (sol.ys[0][0] + sol.ys[0][1]) - 0.1 / 8 * (np.sinh(sol.ys[1][0]) - np.sinh(sol.ys[1][1]))) < 4 * EPS
    same = rv.SemiImplicitEuler(velocity=lambda t, v, p: v)
    for x, y in zip(*(rv.solve(force, (Q0, V0), ts, method=m).y1 for m in (same, rv.SemiImplicitEuler())), strict=True):
        np.testing.assert_array_equal(x, y)


def test_trees_weights_that_change_and_what_is_refused():
    """A velocity sees the user's tree; what it closes over is never stale; Backsolve says that it cannot."""
    tree = lambda t, v, p: {"a": 2.0 * v["a"], "b": v["b"]}
    q, v = {"a": np.ones(2), "b": np.ones(1)}, {"a": np.ones(2), "b": np.zeros(1)}
    still = lambda t, q, p: rv.tree.map(lambda x: 0 * x, q)
    sol = rv.solve(still, (q, v), np.linspace(0.0, 1.0, 5), method=rv.SemiImplicitEuler(tree))
    np.testing.assert_allclose(sol.y1[0]["a"], 3.0, rtol=1e-15)
    weight = np.array([1.0, 1.0])
    method = rv.SemiImplicitEuler(velocity=lambda t, v, p: weight * v)
    ends = []
    for value in (1.0, 2.0):
        weight[:] = value
        ends.append(rv.solve(lambda t, q, p: 0.0 * q, (np.zeros(2), np.ones(2)), np.linspace(0.0, 1.0, 5), method=method,
                             backend="replay").y1[0][0])
    assert ends == [1.0, 2.0]
    for mode, message in ((rv.Backsolve(), "velocity of its own"),):
        with pytest.raises(TypeError, match=message):
            rv.grad(lambda q, mode=mode: np.sum(rv.solve(pull, (q, V0), TS, PARAMS, method=method, gradient=mode).y1[0]))(Q0)
    with pytest.raises(TypeError, match="velocity=3"):
        rv.SemiImplicitEuler(velocity=3)
    with pytest.raises(ValueError, match=r"returned shape \(2,\)"):
        rv.solve(pull, (Q0, V0), TS, PARAMS, method=rv.SemiImplicitEuler(velocity=lambda t, v, p: v[0]))
    assert repr(rv.SemiImplicitEuler(velocity=relativistic)) == "SemiImplicitEuler(velocity=relativistic)"

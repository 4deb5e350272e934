"""The default gradient mode: the gradient of Direct, with the memory of the reverse sweep where that can be trusted."""
from __future__ import annotations

import logging

import numpy as np
import pytest

import revode as rv

DECAY = (lambda t, y, p: -p["k"] * y, np.array([1.0, 2.0]), np.linspace(0.0, 10.0, 101), {"k": np.array([0.7, 0.1])})
VAN_DER_POL = (lambda t, y, p: np.stack([y[1], p["mu"] * (1 - y[0] ** 2) * y[1] - y[0]]), np.array([2.0, 0.0]),
               np.linspace(0.0, 20.0, 801), {"mu": np.array(2.0)})
# a row of a heat equation: the fastest mode contracts by exp(-4 k n^2 T)
HEAT = (lambda t, y, p: p["k"] * 81 * (np.roll(y, 1, -1) - 2 * y + np.roll(y, -1, -1)), np.sin(np.arange(9.0) ** 2),
        np.linspace(0.0, 0.5, 101), {"k": np.array(0.4)})
PENDULUM = (lambda t, y, p: np.stack([y[1], -p["g"] * np.sin(y[0])]), np.array([1.0, 0.3]), np.linspace(0.0, 5.0, 501),
            {"g": np.array(2.0)})


def gradients(problem, **options):
    """(loss, solution), (dL/dparams, dL/dy0)"""
    field, y0, ts, params = problem

    def loss(params, y0):
        sol = rv.solve(field, y0, ts, params, **options)
        return np.sum(sol.y1 ** 2) + np.sum(sol.y1), sol

    return rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, y0)


def assert_near(found, wanted, rtol, atol=0.0):
    for a, b in zip(rv.tree.flatten(found)[0], rv.tree.flatten(wanted)[0], strict=True):
        assert np.linalg.norm(a - b) <= rtol * np.linalg.norm(b) + atol


@pytest.mark.sample(2)
@pytest.mark.parametrize("method", [rv.NearReversible("rk4"), rv.EES(stages=4), rv.Coupled("rk4", lam=0.99)], ids=repr)
def test_where_the_sweep_holds_there_is_no_fallback(method):
    (_, sol), found = gradients(PENDULUM, method=method, save=[-1])
    _, wanted = gradients(PENDULUM, method=method, save=[-1], gradient=rv.Direct())
    assert sol.stats.fallback is None and sol.stats.peak_states == 2
    assert_near(found, wanted, 1e-5)                    # what Automatic allows itself in float64


@pytest.mark.sample(2, cover=False)
@pytest.mark.parametrize("backend", ["eager", "replay"])
@pytest.mark.parametrize("problem", [VAN_DER_POL, HEAT], ids=["van der Pol", "heat"])
def test_where_it_fails_the_gradient_is_computed_again(problem, backend, caplog):
    """Checkpointed is exact, so that only the order of additions differs from Direct."""
    with caplog.at_level(logging.INFO, logger="revode"):
        (_, sol), found = gradients(problem, method=rv.NearReversible("rk4"), save=[-1], backend=backend)
    _, wanted = gradients(problem, method=rv.NearReversible("rk4"), save=[-1], gradient=rv.Direct())
    n = int(np.sqrt(len(problem[2]) - 1))
    assert sol.stats.fallback == f"Checkpointed(n={n})" and sol.stats.peak_states <= n + 1
    assert [r.message for r in caplog.records if "computed again" in r.message] and len(caplog.records) == 1
    # 800 additions of rounding 1e-16, and condition numbers of some 100. A program rounds each product of a step in its own way, so
    # of a gradient in which large terms cancel (the heat equation's dL/dk) what is left is as near as those terms are, not as it is.
    terms = 0.0 if backend == "eager" else 100 * 2.0**-53 * np.linalg.norm(wanted[1])
    assert_near(found, wanted, 1e-11, terms)


def test_in_float32_the_tolerance_is_that_of_float32():
    field, y0, ts, _ = VAN_DER_POL
    single = field, y0.astype(np.float32), ts, {"mu": np.float32(2.0)}
    (_, sol), found = gradients(single, method=rv.NearReversible("rk4"), save=[-1])
    _, wanted = gradients(single, method=rv.NearReversible("rk4"), save=[-1], gradient=rv.Direct())
    assert sol.stats.fallback == "Checkpointed(n=28)"
    assert_near(found, wanted, 1e-3)


def test_tol_decides():
    """Decay over 10 units, from which RK4 comes back with a few digits lost."""
    off = {}
    for tol in (1e-14, 1.0):
        (_, sol), found = gradients(DECAY, method=rv.NearReversible("rk4"), save=[-1], gradient=rv.Automatic(tol=tol))
        off[sol.stats.fallback] = found
    assert set(off) == {None, "Checkpointed(n=10)"}
    assert_near(off[None], off["Checkpointed(n=10)"], 1e-3)
    for tol in (0.0, -1.0, "small"):
        with pytest.raises(ValueError, match="Automatic: tol="):
            rv.Automatic(tol=tol)


def test_an_adaptive_solve_falls_back_on_its_accepted_grid():
    field, y0, _, params = VAN_DER_POL
    options = {"method": rv.RungeKutta("dopri5"), "controller": rv.PID(1e-6, 1e-8), "save": [-1]}
    near = {**options, "method": rv.NearReversible("dopri5")}
    (_, sol), found = gradients((field, y0, (0.0, 20.0), params), **near)
    _, wanted = gradients((field, y0, (0.0, 20.0), params), **options, gradient=rv.Direct())
    assert sol.stats.fallback
    assert_near(found, wanted, 1e-11)                   # the same grid and the same steps: RungeKutta is NearReversible forward


def test_a_derivative_of_a_derivative_is_taken_on_the_tape():
    """y1 = exp(-p), so d2/dp2 = exp(-p), up to the error of RK4 with h = .01, some h^4."""
    def y1(p):
        return rv.solve(lambda t, y, p: -p * y, np.ones(1), np.linspace(0.0, 1.0, 101), p, method=rv.NearReversible("rk4")).y1[0]

    assert abs(rv.grad(rv.grad(y1))(0.7) - np.exp(-0.7)) < 1e-8


def test_what_cannot_be_run_backwards_is_refused():
    with pytest.raises(TypeError, match=r"it has no Automatic\(\) gradient"):
        gradients(DECAY, method=rv.RungeKutta("rk4"), gradient=rv.Automatic())
    (_, sol), _ = gradients(DECAY, method=rv.RungeKutta("rk4"))        # the default is Direct there
    assert sol.stats.peak_states == 101


# by leaf

def tanh_rate(t, y, p):
    return -3.0 * p["rate"] * np.tanh(5.0 - t) * y


CANCELLING = (tanh_rate, np.ones(1), np.linspace(0.0, 10.0, 401), {"rate": np.array(1.0)})
# of what flows to `rate` a ten-millionth is left, and all of what flows to `b`
UNLIKE = (lambda t, y, p: np.stack([tanh_rate(t, y[0], p), -p["net"]["b"] * y[1]]), np.ones(2), np.linspace(0.0, 10.0, 401),
          {"net": {"b": np.array(0.1)}, "rate": np.array(1.0)})
GROWN = (lambda t, y, p: y - p["c"] * y ** 3, np.array([1e-3]), np.linspace(0.0, 15.0, 201), {"c": np.array(1.0)})


def by_leaf(found, wanted):
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(rv.tree.flatten(found)[0], rv.tree.flatten(wanted)[0],
                                                                         strict=True))


@pytest.mark.sample(2)
@pytest.mark.parametrize("backend", ["eager", "replay", "native"])
@pytest.mark.parametrize("problem", [CANCELLING, UNLIKE, GROWN], ids=["a leaf that cancels", "beside others", "a y0 that was small"])
def test_the_tolerance_holds_for_each_leaf(problem, backend):
    """Within 1e-5 of each leaf, or once more: the sweep alone is 1e-3 off, at worst in the leaf of which the least is left. (What
    Checkpointed and Direct round differently there is 1e-16 times sqrt(400) of what cancels, of which 1e-8 is left: 4e-7.)"""
    (_, sol), found = gradients(problem, save=[-1], backend=backend)
    _, wanted = gradients(problem, save=[-1], gradient=rv.Direct())
    _, swept = gradients(problem, save=[-1], gradient=rv.Automatic(tol=1e300), backend=backend)
    assert by_leaf(swept, wanted) > 1e-5 and sol.stats.fallback
    assert by_leaf(found, wanted) < 1e-5


def test_the_whole_gradient_does_not_hide_a_leaf():
    """Of all parameters together the sweep is right to 1e-6, so that only the leaf can have been the reason."""
    _, swept = gradients(UNLIKE, save=[-1], gradient=rv.Automatic(tol=1e300))
    _, wanted = gradients(UNLIKE, save=[-1], gradient=rv.Direct())
    a, b = (np.concatenate([x.ravel() for x in rv.tree.flatten(g[0])[0]]) for g in (swept, wanted))
    assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b) and by_leaf(swept, wanted) > 1e-3


def test_a_named_mode_speaks_of_a_leaf():
    with pytest.warns(rv.ReconstructionWarning, match="dL/dparams") as said:
        gradients(UNLIKE, method=rv.NearReversible("rk4"), save=[-1], gradient=rv.Reversible())
    details = said[0].message.details
    assert details["leaf"] > 3e-3 > details["W_p"]


@pytest.mark.parametrize("backend", ["eager", "replay"])
def test_what_rounding_leaves_of_a_leaf_is_no_reason(backend):
    """y' = p cos t over a whole turn: dL/dp is 0, and what Direct finds is rounding, too."""
    turn = (lambda t, y, p: p["k"] * np.cos(t) * np.ones_like(y), np.array([1.0, 2.0]), np.linspace(0.0, 2 * np.pi, 401),
            {"k": np.array(0.3)})
    (_, sol), found = gradients(turn, save=[-1], backend=backend)
    _, wanted = gradients(turn, save=[-1], gradient=rv.Direct())
    assert sol.stats.fallback is None
    # what flows is |2 y + 1| |cos t| dt, 4 times 8; each of 400 contributions is rounded by 1e-16 of its size
    assert abs(found[0]["k"]) < 32 * 20 * 2e-16 and abs(wanted[0]["k"]) < 32 * 20 * 2e-16


def test_leaves_of_y0_are_judged_apart():
    """dL/du0 = 0 but for what u and w exchange; the loss is in w, whose gradient is of size 1."""
    ts, params = np.linspace(0.0, 10.0, 401), {"c": np.array(1.0)}

    def field(t, y, p):
        return {"u": y["u"] - p["c"] * y["u"] ** 3, "w": -0.1 * y["w"] + 1e-6 * y["u"]}

    def loss(params, y0, gradient=None):
        sol = rv.solve(field, y0, ts, params, save=[-1], gradient=gradient)
        return np.sum(sol.y1["w"] ** 2)

    y0 = {"u": np.array([1e-3]), "w": np.array([1.0])}
    found, wanted = (rv.grad(lambda p, y0, g=g: loss(p, y0, g), (0, 1))(params, y0) for g in (None, rv.Direct()))
    assert by_leaf(found[1], wanted[1]) < 1e-5

"""optim: each optimiser against a scalar loop written out from its paper; L-BFGS against SciPy used directly."""
import math
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

import revode as rv
from revode import optim, tree

EPS = 2.0 ** -52
STEPS = 40


def example(dtype=np.float64):
    """A tree with everything that may stand in it, and a function of the step that gives its gradients."""
    rng = np.random.default_rng(0)
    params = {"layers": [{"W": rng.standard_normal((2, 3)).astype(dtype)}, {"b": rng.standard_normal(3).astype(dtype)}],
              "none": None, "count": 3, "name": "x", "index": np.arange(2)}

    def grads(n):
        rng = np.random.default_rng(100 + n)
        return {"layers": [{"W": rng.standard_normal((2, 3)).astype(dtype)},
                           {"b": 1e-3 * rng.standard_normal(3).astype(dtype)}],
                "none": None, "count": None, "name": None, "index": None}

    return params, grads


def run(optimiser, params, grads, steps=STEPS):
    state = optimiser.init(params)
    for n in range(steps):
        params, state = optimiser.update(params, grads(n), state)
    return params, state


def scalars(x):
    return [float(v) for leaf in tree.flatten(x)[0] if getattr(getattr(leaf, "dtype", None), "kind", "") == "f"
            for v in np.ravel(leaf)]


def loop_sgd(p, g, lr, momentum):
    velocity = 0.0
    for gradient in g:
        velocity = momentum * velocity + gradient
        p = p - lr * velocity
    return p


def loop_adamw(theta, g, *, alpha, eta, wd, beta1=0.9, beta2=0.999, eps=1e-8):
    """Loshchilov & Hutter 2019, algorithm 2, lines 6 to 12, for one number; with wd = 0 Kingma & Ba's algorithm 1."""
    m = v = 0.0
    for t, gradient in enumerate(g, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient ** 2
        m_hat = m / (1 - math.pow(beta1, t))
        v_hat = v / (1 - math.pow(beta2, t))
        theta = theta - eta * (alpha * m_hat / (math.sqrt(v_hat) + eps) + wd * theta)
    return theta


CASES = {
    "sgd": (lambda lr: optim.sgd(lr), lambda p, g, lr: loop_sgd(p, g, lr, 0.0)),
    "momentum": (lambda lr: optim.sgd(lr, momentum=0.9), lambda p, g, lr: loop_sgd(p, g, lr, 0.9)),
    "adam": (lambda lr: optim.adam(lr), lambda p, g, lr: loop_adamw(p, g, alpha=lr, eta=1.0, wd=0.0)),
    "adam, other constants": (lambda lr: optim.adam(lr, 0.8, 0.95, 1e-3),
                              lambda p, g, lr: loop_adamw(p, g, alpha=lr, eta=1.0, wd=0, beta1=0.8, beta2=0.95,
                                                         eps=1e-3)),
    # Ours in the symbols of the paper: alpha = 1, eta = lr.
    "adamw": (lambda lr: optim.adamw(lr, 0.1), lambda p, g, lr: loop_adamw(p, g, alpha=1.0, eta=lr, wd=0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_against_a_scalar_loop(name):
    make, loop = CASES[name]
    params, grads = example()
    found, _ = run(make(0.05), params, grads)
    history = [scalars(grads(n)) for n in range(STEPS)]
    truth = [loop(p, [g[i] for g in history], 0.05) for i, p in enumerate(scalars(params))]
    # 40 steps, each with a handful of roundings of numbers of order 1 (with momentum up to 10): 40 * 10 * 10 * eps.
    assert_allclose(scalars(found), truth, rtol=0, atol=4000 * EPS)
    assert max(abs(a - b) for a, b in zip(scalars(found), scalars(params), strict=True)) > 1e-3      # it moved


@pytest.mark.parametrize("name", CASES)
def test_what_has_no_gradient_passes_through(name):
    params, grads = example()
    found, state = run(CASES[name][0](0.05), params, grads)
    assert tree.flatten(found)[1] == tree.flatten(params)[1]
    assert (found["none"], found["count"], found["name"]) == (None, 3, "x")
    assert found["index"] is params["index"]
    assert state["m"]["none"] is state["m"]["count"] is state["m"]["index"] is None


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name):
    params, grads = example(np.float32)
    for rate in (0.05, np.float64(0.05), np.logspace(-2.0, -1.0, 3)[1]):
        found, state = run(CASES[name][0](rate), params, grads, 3)
        for leaf in (found["layers"][0]["W"], state["m"]["layers"][1]["b"]):
            assert leaf.dtype == np.float32


def test_numbers_of_numpy_keep_float32_too():
    params = {"a": np.ones(2, np.float32)}
    for optimiser in (optim.sgd(np.float64(0.1), np.float64(0.9)), optim.adamw(0.1, *np.array([0.1, 0.9, 0.999, 1e-8]))):
        found, state = optimiser.update(params, params, optimiser.init(params))
        assert found["a"].dtype == state["m"]["a"].dtype == np.float32


def test_a_gradient_of_another_shape_is_refused():
    for optimiser in (optim.sgd(0.1), optim.adam(0.1)):
        params = {"a": np.ones(2)}
        with pytest.raises(ValueError, match=r"a gradient of shape \(2, 2\) was given for a parameter of shape \(2,\)"):
            optimiser.update(params, {"a": np.ones((2, 2))}, optimiser.init(params))


@pytest.mark.parametrize("mine, other", [(optim.sgd, optim.adam), (optim.adam, optim.sgd)])
def test_state_of_another_optimiser_is_refused(mine, other):
    """Of Adam's state sgd would find a momentum, and take its mean of gradients for a sum."""
    params = {"a": np.ones(2)}
    for state in (other(0.1).init(params), None):
        with pytest.raises(TypeError, match=rf"{mine.__name__}: this state is .* which is none of {mine.__name__}; begin with"):
            mine(0.1).update(params, params, state)


@pytest.mark.parametrize("name", CASES)
def test_update_is_pure_and_state_can_be_saved(name, tmp_path):
    """Stop after 7 steps, save, load, go on: the same bits as without the stop; nothing given is written to."""
    optimiser = CASES[name][0](0.05)
    params, grads = example()
    for leaf in (params["layers"][0]["W"], params["layers"][1]["b"]):
        leaf.setflags(write=False)
    whole, _ = run(optimiser, params, grads, 12)
    half, state = run(optimiser, params, grads, 7)
    rv.save(tmp_path / "state.npz", {"params": half, "state": state})
    loaded = rv.load(tmp_path / "state.npz")
    p, s = loaded["params"], loaded["state"]
    for n in range(7, 12):
        p, s = optimiser.update(p, grads(n), s)
    assert scalars(p) == scalars(whole)
    assert int(s["step"]) == 12


def test_learning_rate_as_a_function_of_the_step():
    def rate(n):
        return 0.1 / (n + 1)

    params, grads = example()
    found, _ = run(optim.sgd(rate), params, grads, 3)
    W = params["layers"][0]["W"]
    g = [grads(n)["layers"][0]["W"] for n in range(3)]
    expected = W - 0.1 * g[0] - 0.05 * g[1] - 0.1 / 3 * g[2]
    assert_allclose(found["layers"][0]["W"], expected, rtol=0, atol=10 * EPS)
    seen = []
    run(optim.adamw(lambda n: seen.append(n) or 0.1, 0.0), params, grads, 3)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("make, message", [
    (lambda: optim.sgd(-1.0), "sgd: lr=-1.0; a positive number"),
    (lambda: optim.sgd(0.1, momentum=1.0), r"momentum=1.0; a number in \[0, 1\)"),
    (lambda: optim.adam(0.0), "lr=0.0"),
    (lambda: optim.adam(0.1, b1=1.0), "b1=1.0"),
    (lambda: optim.adam(0.1, b2=-0.1), "b2=-0.1"),
    (lambda: optim.adam(0.1, eps=0.0), "eps=0.0"),
    (lambda: optim.adamw(0.1, weight_decay=-1.0), "weight_decay=-1.0"),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_trees_that_do_not_match():
    optimiser = optim.sgd(0.1)
    state = optimiser.init({"a": np.ones(2)})
    with pytest.raises(ValueError, match="differ in structure"):
        optimiser.update({"a": np.ones(2)}, {"b": np.ones(2)}, state)


# What a training loop needs ----------------------------------------------------------------------------------------
def test_schedules_against_their_formulas():
    """Each is a formula of a few operations: two units in the last place of the largest rate."""
    falling = optim.cosine(0.3, 40, final=0.01)
    for n in range(60):
        # Loshchilov & Hutter 2017, equation 5, with eta_max = .3, eta_min = .01, T_i = 40
        truth = 0.01 + 0.5 * (0.3 - 0.01) * (1 + math.cos(math.pi * min(n, 40) / 40))
        assert abs(falling(n) - truth) <= 2 * EPS * 0.3
    assert falling(0) == 0.3 and falling(40) == falling(10 ** 6) == 0.01
    rising = optim.warmup(falling, 5)
    assert_allclose([rising(n) for n in range(5)], [0.06, 0.12, 0.18, 0.24, 0.3], rtol=2 * EPS)
    assert [rising(n) for n in range(5, 50)] == [falling(n) for n in range(45)]
    assert optim.warmup(0.5, 0)(0) == 0.5
    params, grads = example()
    found, _ = run(optim.sgd(optim.warmup(0.2, 2)), params, grads, 3)
    g = [grads(n)["layers"][0]["W"] for n in range(3)]
    assert_allclose(found["layers"][0]["W"], params["layers"][0]["W"] - 0.1 * g[0] - 0.2 * g[1] - 0.2 * g[2], rtol=0, atol=10 * EPS)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_clipping_by_the_global_norm(dtype):
    _, grads = example(dtype)
    g = grads(0)
    flat = np.array(scalars(g))
    norm = math.sqrt(math.fsum(flat ** 2))
    assert abs(float(optim.global_norm(g)) - norm) <= 8 * EPS * norm                                   # 9 squares, summed
    clipped = optim.clip_by_global_norm(g, 0.5)
    # One factor, one product: two roundings in the dtype, and those of the norm.
    assert_allclose(scalars(clipped), flat * (0.5 / norm), rtol=4 * np.finfo(dtype).eps)
    assert clipped["layers"][0]["W"].dtype == dtype and clipped["index"] is None
    same = optim.clip_by_global_norm(g, 2 * norm)
    assert scalars(same) == scalars(g)
    assert scalars(optim.clip_by_global_norm(tree.map(lambda x: None if x is None else 0 * x, g), 1.0)) == [0.0] * len(flat)
    g["layers"][0]["W"][0, 0] = np.nan
    assert np.isnan(scalars(optim.clip_by_global_norm(g, 1.0))).all()          # it does not hide in a clipped gradient
    assert float(optim.global_norm({"n": None})) == 0.0 and optim.clip_by_global_norm([3.0, None], 1.0)[0] == 1.0


@pytest.mark.parametrize("mask", [lambda x: np.ndim(x) > 1, {"layers": [{"W": True}, {"b": False}], "none": False, "count": False,
                                                           "name": False, "index": False}], ids=["function", "tree"])
def test_weight_decay_with_a_mask(mask):
    params, grads = example()
    found, _ = run(optim.adamw(0.05, 0.1, mask=mask), params, grads)
    every, _ = run(optim.adamw(0.05, 0.1), params, grads)
    none, _ = run(optim.adam(0.05), params, grads)
    assert_array_equal(found["layers"][0]["W"], every["layers"][0]["W"])
    assert_array_equal(found["layers"][1]["b"], none["layers"][1]["b"])
    assert not np.array_equal(every["layers"][1]["b"], none["layers"][1]["b"])


def test_minibatches_take_every_row_once_an_epoch_and_keep_rows_together():
    data = {"x": np.arange(20.0).reshape(10, 2), "label": np.arange(10), "scale": 2.0, "name": "set"}
    batches = list(optim.minibatches(np.random.default_rng(3), data, 3, epochs=4))
    assert len(batches) == 12
    orders = []
    for epoch in range(4):
        rows = [int(i) for b in batches[3 * epoch:3 * epoch + 3] for i in b["label"]]
        assert len(set(rows)) == 9
        orders.append(tuple(rows))
    assert len(set(orders)) == 4
    for b in batches:
        assert_array_equal(b["x"], data["x"][b["label"]])
        assert b["scale"] == 2.0 and b["name"] == "set" and b["x"].shape == (3, 2)
    again = list(optim.minibatches(np.random.default_rng(3), data, 3, epochs=4))
    assert all(np.array_equal(a["label"], b["label"]) for a, b in zip(again, batches, strict=True))
    endless = optim.minibatches(np.random.default_rng(3), data, 10)
    assert sorted(next(endless)["label"]) == sorted(next(endless)["label"]) == list(range(10))


@pytest.mark.parametrize("call, kind, message", [
    (lambda: optim.cosine(0.0, 10), ValueError, "cosine: lr=0.0, steps=10"),
    (lambda: optim.cosine(0.1, 0), ValueError, "a positive number of steps"),
    (lambda: optim.warmup(-0.1, 10), ValueError, "warmup: lr=-0.1"),
    (lambda: optim.warmup(0.1, -1), ValueError, "warmup: steps=-1"),
    (lambda: optim.clip_by_global_norm([1.0], 0.0), ValueError, "most=0.0; a positive number"),
    (lambda: optim.clip_by_global_norm([1.0], math.inf), ValueError, "most=inf"),
    (lambda: optim.minibatches(7, [np.ones(3)], 2), TypeError, "rng is a int; pass a generator"),
    (lambda: optim.minibatches(np.random.default_rng(0), [np.ones(3), np.ones(2)], 2), ValueError, "the same number of rows"),
    (lambda: optim.minibatches(np.random.default_rng(0), [np.ones(3)], 4), ValueError, "size is 4"),
    (lambda: optim.minibatches(np.random.default_rng(0), [1.0], 1), ValueError, "the same number of rows"),
    (lambda: optim.adamw(0.1, 0.1, mask=[True]).init({"a": np.ones(2)}), ValueError, "differ in structure"),
])
def test_refusals_of_the_helpers(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


# L-BFGS ------------------------------------------------------------------------------------------------------------
def rosenbrock(params):
    x, y = params["x"], params["y"]
    return np.sum((1 - x) ** 2 + 100 * (y - x * x) ** 2)


def test_lbfgs_takes_the_steps_of_scipy_on_the_flat_vector():
    start = {"x": np.array([-1.2, 0.5]), "y": np.array([[1.0, 2.0]]), "n": 4, "nothing": None}

    def loss(params):
        return rosenbrock({"x": params["x"], "y": np.reshape(params["y"], (2,))})

    found, result = optim.lbfgs(rv.value_and_grad(loss), start, iterations=200, gtol=1e-10, ftol=0)

    def flat(z):
        x, y = z[:2], z[2:]
        gap = y - x * x
        return np.sum((1 - x) ** 2 + 100 * gap ** 2), np.concatenate([-2 * (1 - x) - 400 * x * gap, 200 * gap])

    direct = minimize(flat, np.array([-1.2, 0.5, 1.0, 2.0]), jac=True, method="L-BFGS-B",
                      options={"maxiter": 200, "gtol": 1e-10, "ftol": 0})
    # At the minimum the gradient is below 1e-10 and the smallest eigenvalue of the Hessian there is 0.4: an error of
    # 2.5e-10. The two gradients differ in rounding, so the paths do, but not the end.
    assert_allclose(found["x"], 1.0, rtol=0, atol=1e-9)
    assert found["y"].shape == (1, 2) and (found["n"], found["nothing"]) == (4, None)
    assert_allclose(found["y"], 1.0, rtol=0, atol=2e-9)
    assert abs(result.nit - direct.nit) <= 0.25 * direct.nit and result.success
    assert_array_equal(start["x"], [-1.2, 0.5])


def test_lbfgs_honours_iterations_and_dtype():
    start = {"x": np.float32([-1.2, 0.5]), "y": np.float32([1.0, 2.0])}
    found, result = optim.lbfgs(rv.value_and_grad(rosenbrock), start, iterations=3)
    assert result.nit == 3 and found["x"].dtype == np.float32
    assert rosenbrock(found) < rosenbrock(start)


def test_lbfgs_errors(monkeypatch):
    with pytest.raises(TypeError, match="holds no float array to optimise"):
        optim.lbfgs(rv.value_and_grad(rosenbrock), {"n": 3})
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        optim.lbfgs(rv.value_and_grad(rosenbrock), {"x": np.ones(1), "y": np.ones(1)})

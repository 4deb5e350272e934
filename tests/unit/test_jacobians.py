"""jacobian, hessian and hvp against HIPS autograd, the complex step, and closed forms."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from engine_table import complex_gradient, complex_hessian_product
from numpy.testing import assert_allclose, assert_array_equal

import revode as rv

R = np.random.default_rng(3)
EPS = 2.0**-52


def vector_valued(np, x, w):
    """(3, 2), (2, 4) -> (3, 4), with products, a reduction and an index."""
    return np.tanh(x @ w) * np.sum(x**2, axis=1)[:, None] + np.exp(w[0])


def scalar_valued(np, x, w):
    return np.sum(np.sin(vector_valued(np, x, w)))


X, W = R.uniform(-0.7, 0.7, size=(3, 2)), R.uniform(-0.7, 0.7, size=(2, 4))
# Sums of some 20 terms, of size 1 to 10: round-off of both sides. A wrong index or sign is off by more than 1e-2.
ROUNDING = {"rtol": 0, "atol": 1e-11}


@pytest.mark.parametrize("argnum", [0, 1, -1])
def test_jacobian_against_autograd(argnum):
    found = rv.jacobian(lambda x, w: vector_valued(np, x, w), argnum)(X, W)
    truth = autograd.jacobian(lambda x, w: vector_valued(anp, x, w), argnum % 2)(X, W)
    assert found.shape == (3, 4, *(X, W)[argnum].shape)
    assert_allclose(found, truth, **ROUNDING)


@pytest.mark.parametrize("argnum", [0, 1])
def test_hessian_and_products_against_autograd_and_complex_step(argnum):
    f, g = (lambda x, w: scalar_valued(np, x, w)), (lambda x, w: scalar_valued(anp, x, w))
    at = (X, W)[argnum]
    truth = autograd.hessian(g, argnum)(X, W)
    found = rv.hessian(f, argnum)(X, W)
    assert found.shape == at.shape * 2
    assert_allclose(found, truth, **ROUNDING)
    v = R.normal(size=at.shape)
    product = rv.hvp(f, argnum)(X, W, v)
    assert product.shape == at.shape
    assert_allclose(product, autograd.hessian_vector_product(g, argnum)(X, W, v), **ROUNDING)
    along = [np.zeros_like(X), np.zeros_like(W)]
    along[argnum] = v
    # A central difference of complex-step gradients: truncation h^2 / 6 = 2e-11 of third derivatives
    # up to 1e4.
    assert_allclose(product, complex_hessian_product(f, [X, W], along)[argnum], rtol=0, atol=1e-6)


def test_both_arguments_at_once_with_their_mixed_blocks():
    def f(x, w):
        return scalar_valued(np, x, w)

    H = rv.hessian(f, (0, 1))(X, W)
    mixed = autograd.jacobian(autograd.grad(lambda x, w: scalar_valued(anp, x, w), 0), 1)(X, W)
    assert_allclose(H[0][1], mixed, **ROUNDING)
    assert_allclose(H[1][0], np.transpose(mixed, (2, 3, 0, 1)), **ROUNDING)
    v, u = R.normal(size=X.shape), R.normal(size=W.shape)
    for found, row in zip(rv.hvp(f, (0, 1))(X, W, (v, u)), H, strict=True):
        assert_allclose(found, np.tensordot(row[0], v, 2) + np.tensordot(row[1], u, 2), **ROUNDING)


def test_trees_of_arguments_and_of_values():
    p = {"a": R.normal(size=2), "n": 3, "rest": [0.5, np.array([1.0, 2.0, 3.0])]}

    def f(p):
        return {
            "first": p["a"] * p["rest"][0] ** p["n"],
            "total": (np.sum(p["rest"][1] ** 2), "text"),
        }

    J = rv.jacobian(f)(p)
    assert_allclose(J["first"]["a"], 0.125 * np.eye(2), rtol=2 * EPS)
    assert_allclose(J["first"]["rest"][0], p["a"] * 3 * 0.25, rtol=4 * EPS)
    assert_array_equal(J["first"]["rest"][1], np.zeros((2, 3)))
    assert_allclose(J["total"][0]["rest"][1], [2.0, 4.0, 6.0], rtol=2 * EPS)
    assert J["total"][1] is None and J["first"]["n"] is None

    def loss(p):
        return np.sum(p["a"] ** 2) * p["rest"][0] ** p["n"] + np.sum(np.log(p["rest"][1]))

    H = rv.hessian(loss)(p)
    assert_allclose(H["a"]["a"], 2 * 0.125 * np.eye(2), rtol=4 * EPS)
    assert_allclose(H["rest"][0]["a"], 2 * p["a"] * 3 * 0.25, rtol=4 * EPS)
    assert_allclose(H["rest"][1]["rest"][1], -np.diag(1 / p["rest"][1] ** 2), rtol=4 * EPS)
    assert H["n"] is None and H["a"]["n"] is None
    v = {"a": np.array([1.0, -2.0]), "n": 0, "rest": [0.3, np.array([1.0, 0.0, -1.0])]}
    product = rv.hvp(loss)(p, v)
    assert_allclose(product["a"], H["a"]["a"] @ v["a"] + H["a"]["rest"][0] * 0.3, rtol=8 * EPS)
    assert_allclose(
        product["rest"][0], H["rest"][0]["a"] @ v["a"] + H["rest"][0]["rest"][0] * 0.3, rtol=8 * EPS
    )
    assert_allclose(product["rest"][1], -v["rest"][1] / p["rest"][1] ** 2, rtol=4 * EPS)
    assert product["n"] is None


def test_numbers_shapes_and_dtypes():
    assert (
        float(rv.jacobian(lambda x: x**3)(2.0)) == 12.0
        and float(rv.hessian(lambda x: x**3)(2.0)) == 12.0
    )
    single = rv.jacobian(lambda x: np.outer(x, x))(np.ones(2, np.float32))
    assert single.shape == (2, 2, 2) and single.dtype == np.float32
    assert (
        rv.hvp(lambda x: np.sum(x**3))(np.ones(2, np.float32), np.ones(2, np.float32)).dtype
        == np.float32
    )
    assert rv.jacobian(lambda x: x[:0])(np.ones(3)).shape == (0, 3)
    assert_array_equal(
        rv.hessian(lambda x: 3.0 * x[0])(np.ones(2)), np.zeros((2, 2))
    )  # the gradient is a constant
    assert_array_equal(
        rv.hvp(lambda x, scale=1.0: np.sum(x**2) * scale)(
            np.ones(2), np.array([1.0, 2.0]), scale=3.0
        ),
        [6.0, 12.0],
    )


def test_a_jacobian_has_derivatives_in_turn():
    third = rv.jacobian(rv.hessian(lambda x: x[0] ** 3 * x[1]))(np.array([2.0, 5.0]))
    assert (
        third[0, 0, 0] == 30.0
        and third[0, 0, 1] == third[1, 0, 0] == 12.0
        and third[1, 1, 1] == 0.0
    )
    trace = rv.grad(lambda x: np.trace(rv.jacobian(lambda y: y**3)(x)))(
        np.array([2.0, 3.0])
    )  # sum 3 x^2
    assert_array_equal(trace, [12.0, 18.0])


def field(t, y, p):
    return np.tanh(y @ p["W"]) - 0.1 * t * y


P, Y0, TS = {"W": R.normal(size=(3, 3))}, R.normal(size=3), np.linspace(0.0, 1.0, 11)


def end_by_hand(y0, W):
    """The same steps of RK4 in a loop, for complex numbers as well."""
    y = y0
    for t, h in zip(TS[:-1], np.diff(TS), strict=True):
        f = lambda t, y: np.tanh(y @ W) - 0.1 * t * y
        k1 = f(t, y)
        k2 = f(t + h / 2, y + h / 2 * k1)
        k3 = f(t + h / 2, y + h / 2 * k2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(t + h, y + h * k3))
    return y


@pytest.mark.parametrize(
    "gradient", [rv.Direct(), rv.Checkpointed(3), None], ids=["direct", "checkpointed", "automatic"]
)
def test_the_jacobian_of_a_solves_end(gradient):
    method = rv.RungeKutta("rk4") if gradient is not None else rv.NearReversible("rk4")

    def end(y0, p):
        return rv.solve(field, y0, TS, p, method=method, gradient=gradient, save=[-1]).y1

    J, by_params = rv.jacobian(end, (0, 1))(Y0, P)
    for i in range(3):
        truth = complex_gradient(lambda y0, W, i=i: end_by_hand(y0, W)[i], [Y0, P["W"]])
        # Direct and Checkpointed: round-off of 40 evaluations; the default reconstructs, to the defect of RK4 undone, h^6 or so.
        tolerance = 1e-13 if gradient is not None else 1e-7
        assert_allclose(J[i], truth[0], rtol=0, atol=tolerance)
        assert_allclose(by_params["W"][i], truth[1], rtol=0, atol=tolerance)


@pytest.mark.parametrize("gradient", [rv.Direct(), rv.Automatic()], ids=["direct", "automatic"])
def test_second_derivatives_through_a_solve(gradient):
    """By reverse over reverse, against complex-step gradients of the loop, for y0 and for params."""
    method = rv.RungeKutta("rk4") if isinstance(gradient, rv.Direct) else rv.NearReversible("rk4")

    def loss(y0, p):
        return np.sum(rv.solve(field, y0, TS, p, method=method, gradient=gradient).y1 ** 2)

    v, u = R.normal(size=3), {"W": R.normal(size=(3, 3))}
    by_y0, by_params = rv.hvp(loss, (0, 1))(Y0, P, (v, u))
    truth = complex_hessian_product(
        lambda y0, W: np.sum(end_by_hand(y0, W) ** 2), [Y0, P["W"]], [v, u["W"]]
    )
    # The central difference: h^2 / 6 of third derivatives (up to 1e2 here) and 1e-16 / h.
    assert_allclose(by_y0, truth[0], rtol=0, atol=1e-7)
    assert_allclose(by_params["W"], truth[1], rtol=0, atol=1e-7)
    assert_allclose(
        rv.hessian(loss)(Y0, P) @ v
        + np.tensordot(rv.jacobian(rv.grad(loss), 1)(Y0, P)["W"], u["W"], 2),
        by_y0,
        rtol=0,
        atol=1e-11,
    )


def test_what_has_no_second_derivative_says_so():
    with pytest.raises(TypeError, match=r"first derivatives only; use gradient=Direct\(\)"):
        rv.hvp(
            lambda y0: np.sum(
                rv.solve(field, y0, TS, P, method=rv.Coupled("rk4"), gradient=rv.Reversible()).y1
            )
        )(Y0, Y0)


@pytest.mark.parametrize(
    "call, kind, sentence",
    [
        (lambda: rv.hvp(np.sum)(X), TypeError, "call it with those of the function and then v"),
        (
            lambda: rv.hvp(lambda x: np.sum(x**2))(X, X[0]),
            ValueError,
            r"give a tree like \['float64\[3, 2\]'\]",
        ),
        (
            lambda: rv.hvp(lambda p: p["a"] ** 2)({"a": 1.0}, {"b": 1.0}),
            ValueError,
            r"hvp: v, the last argument, does not fit .*'b'",
        ),
        (
            lambda: rv.hvp(lambda p: p["a"] ** 2)({"a": 1.0}, {"a": None}),
            ValueError,
            "hvp: v, the last argument",
        ),
        (
            lambda: rv.jacobian(lambda x: 3)(X),
            TypeError,
            "jacobian: the function returned int, in which nothing is a float",
        ),
        (lambda: rv.jacobian(np.sum, "x"), TypeError, "jacobian: argnums='x'"),
        (lambda: rv.hessian(np.sum, 1.5), TypeError, "hessian: argnums=1.5"),
        (lambda: rv.hvp(np.sum, None), TypeError, "hvp: argnums=None"),
        (lambda: rv.jacobian(np.sum, 1)(X), ValueError, r"jacobian: argnums=1 with 1 positional"),
        (
            lambda: rv.jacobian(np.sum)(np.arange(3)),
            TypeError,
            "jacobian: argument 0 is .*holds no float array",
        ),
        (lambda: rv.hessian(lambda x: x)(X), TypeError, "a gradient is of one number"),
        (lambda: rv.jacobian(np.cos)(1j), TypeError, "complex values have no gradient"),
    ],
)
def test_refusals(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call()

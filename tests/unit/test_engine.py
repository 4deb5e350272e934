"""The engine as a whole: another implementation, kinks, trees, derivatives inside derivatives, custom operations, memory.

The single operations are in test_numpy_functions.py, the refusals in test_errors_engine.py.
"""
import gc
import tracemalloc
import weakref
from itertools import product
from typing import NamedTuple

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import revode as rv
from revode.engine.tensor import NAMED, RULES, Tape, entry


def test_check_vjp_finds_a_wrong_sign_in_the_first_and_in_the_second_derivative():
    wrong = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (-g * np.cos(x),)))
    with pytest.raises(AssertionError, match="central differences give"):
        rv.check_vjp(wrong, np.array([0.3, 0.4]))
    # Right gradient, wrong gradient of the gradient: cos here is an operation whose own rule has the sign flipped.
    cos = rv.custom_vjp(lambda x: (np.cos(x), lambda g: (g * np.sin(x),)))
    subtle = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (g * cos(x),)))
    rv.check_vjp(subtle, np.array([0.3, 0.4]), order=1)
    # One order further: sin' = cos2 is right, cos2' = -sin2 is right, sin2' = -cos is wrong.
    sin2 = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (-g * np.cos(x),)))
    cos2 = rv.custom_vjp(lambda x: (np.cos(x), lambda g: (-g * sin2(x),)))
    deep = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (g * cos2(x),)))
    rv.check_vjp(deep, np.array([0.3, 0.4]), order=2)
    with pytest.raises(AssertionError, match="central differences give"):
        rv.check_vjp(deep, np.array([0.3, 0.4]), order=3)
    with pytest.raises(AssertionError, match="central differences give"):
        rv.check_vjp(subtle, np.array([0.3, 0.4]))


# ------------------------------------------------------------------ against another implementation

def test_a_network_has_the_gradient_and_hessian_of_hips_autograd():
    rng = np.random.default_rng(0)
    x, w1, w2 = rng.standard_normal((5, 3)), rng.standard_normal((3, 4)), rng.standard_normal((4, 2))

    def network(np, w1):
        hidden = np.tanh(x @ w1) * np.exp(-np.sum(w1 ** 2, axis=0))
        out = np.concatenate([hidden @ w2, np.maximum(hidden[:, :1], 0.1)], axis=1)
        return np.mean(np.log(1 + out ** 2) / (1.5 + np.sin(out[:, ::-1])))
    # Both are round-off of about 100 operations: 1e-14 relative to entries of order 1.
    truth = autograd.grad(lambda w: network(anp, w))(w1)
    np.testing.assert_allclose(rv.grad(lambda w: network(np, w))(w1), truth, rtol=0, atol=1e-13)
    u = rng.standard_normal(w1.shape)
    product = rv.grad(lambda w: np.sum(u * rv.grad(lambda v: network(np, v))(w)))(w1)
    truth = autograd.hessian_vector_product(lambda w: network(anp, w))(w1, u)
    np.testing.assert_allclose(product, truth, rtol=0, atol=1e-12)


def test_third_derivative():
    third = rv.grad(rv.grad(rv.grad(lambda x: np.sin(x) * np.exp(2 * x))))(0.3)
    # (sin(x) e^{2x})''' = Im((2 + i)^3 e^{(2 + i) x})
    np.testing.assert_allclose(third, ((2 + 1j) ** 3 * np.exp((2 + 1j) * 0.3)).imag, rtol=1e-14)


# ------------------------------------------------------------------ conventions at kinks

@pytest.mark.parametrize("fn, args, expected", [
    (np.abs, (0.0,), (0.0,)),
    (np.maximum, (1.0, 1.0), (0.5, 0.5)),
    (np.minimum, (1.0, 1.0), (0.5, 0.5)),
    (np.fmax, (1.0, 1.0), (0.5, 0.5)),
    (np.fmin, (1.0, 1.0), (0.5, 0.5)),
    (lambda x: np.max(x), ([2.0, 1.0, 2.0],), ([0.5, 0.0, 0.5],)),
    (lambda x: np.min(x), ([2.0, 1.0, 1.0, 1.0],), ([0.0, 1 / 3, 1 / 3, 1 / 3],)),
    (lambda x: np.sum(np.max(x, axis=1)), ([[1.0, 1.0], [3.0, 2.0]],), ([[0.5, 0.5], [1.0, 0.0]],)),
    (lambda x: x ** 0, (0.0,), (0.0,)),
    (lambda x, n: x ** n, (0.0, 0.0), (0.0, 0.0)),
    (lambda x, n: np.sum(x ** n), ([0.0, 0.0, 0.0], [0.0, 1.0, 2.0]), ([0.0, 1.0, 0.0], [0.0, 0.0, 0.0])),
    (np.sign, (0.3,), (0.0,)),
    (np.floor, (0.3,), (0.0,)),
    (lambda x: np.clip(x, 0.0, 1.0), (1.0,), (1.0,)),      # the bounds themselves are inside
    (lambda x: np.clip(x, 0.0, 1.0), (0.0,), (1.0,)),
    (lambda x: np.where(x > 0, x, -x), (0.0,), (-1.0,)),   # the branch that was taken
])
def test_the_conventions_at_kinks(fn, args, expected):
    args = [np.asarray(a, dtype=float) for a in args]
    found = rv.vjp(fn, *args)[1](1.0)
    for g, truth in zip(found, expected, strict=True):
        np.testing.assert_array_equal(g, truth)


def test_logaddexp_does_not_overflow():
    a, b = rv.vjp(np.logaddexp, 1000.0, 1000.0)[1](1.0)
    # y = 1000.69 is rounded to half an ulp, 6e-14, and exp(a - y) passes that on.
    np.testing.assert_allclose([a, b], 0.5, rtol=1e-13)


def test_second_derivative_of_a_square_at_zero():
    for square in (np.square, lambda x: x ** 2, lambda x: x ** 2.0, lambda x: np.power(x, np.array(2.0)), lambda x: x * x):
        assert rv.grad(rv.grad(square))(0.0) == 2.0
    cube = rv.grad(lambda x: np.sum(rv.grad(lambda x: np.sum(x ** np.array([0.0, 1.0, 2.0, 3.0])))(x)))
    np.testing.assert_array_equal(cube(np.zeros(4)), [0.0, 0.0, 2.0, 0.0])


# ------------------------------------------------------------------ values that are not arrays, and trees

@pytest.mark.parametrize("fn, truth", [
    (lambda a: np.sum(a) * a, 4.0), (lambda a: np.mean(a) * a, 4.0), (lambda a: np.max(a) * a, 4.0),
    (lambda a: np.sum(np.stack([a, 3 * a])), 4.0), (lambda a: np.sum(np.broadcast_to(a, (3,))), 3.0),
    (lambda a: np.sum(np.reshape(a, (1,)) * np.ones(2)), 2.0), (lambda a: np.sum(a * np.ones((2, 3))), 6.0),
    (lambda a: a ** 3 + 2 / a - a, 12 - 0.5 - 1), (lambda a: 1 - (-a), 1.0), (lambda a: +a, 1.0),
], ids=range(10))
def test_a_python_float_is_an_array_without_axes(fn, truth):
    g = rv.grad(fn)(2.0)
    assert np.shape(g) == () and g.dtype == np.float64
    np.testing.assert_allclose(g, truth, rtol=1e-15)


def test_a_python_float_takes_the_dtype_of_the_array_it_meets():
    value, pull = rv.vjp(lambda c, x: c * x + 1.0, 2.0, np.ones(2, np.float32))
    assert value.dtype == np.float32
    assert pull(np.ones(2, np.float32))[1].dtype == np.float32


class Pair(NamedTuple):
    first: object
    second: object


def test_trees_of_every_kind_go_in_and_come_out():
    params = {"w": np.array([1.0, 2.0]), "list": [3.0, (np.array([4.0]), None)], "pair": Pair(np.array(5.0), 6),
              "flag": True, "name": "tanh", "empty": [], "int": np.arange(2)}

    def loss(p):
        return (np.sum(p["w"] ** 2) * p["pair"].second + p["list"][0] * p["list"][1][0][0] * p["pair"].first
                + (1.0 if p["flag"] and p["name"] == "tanh" else 0.0))
    value, g = rv.value_and_grad(loss)(params)
    assert value == 5.0 * 6 + 3 * 4 * 5 + 1
    assert type(g["list"]) is list and type(g["list"][1]) is tuple and type(g["pair"]) is Pair
    assert list(g) == list(params)
    np.testing.assert_array_equal(g["w"], [12.0, 24.0])
    np.testing.assert_array_equal(g["list"][1][0], [15.0])
    assert (g["list"][0], g["pair"].first) == (20.0, 12.0)
    assert [g["list"][1][1], g["pair"].second, g["flag"], g["name"], g["int"]] == [None] * 5 and g["empty"] == []


def test_what_the_function_does_not_use_gets_zeros_of_its_shape_and_dtype():
    g = rv.grad(lambda p: np.sum(p["a"]))({"a": np.ones(2), "b": np.ones((2, 3), np.float32)})["b"]
    assert g.shape == (2, 3) and g.dtype == np.float32 and not g.any()


def test_argnums_choose_the_arguments_and_keywords_pass():
    def fn(x, n, y, *, power=1):
        return np.sum(x * n + y ** power)
    args = np.array([1.0, 2.0]), 3, np.array([4.0, 5.0])
    np.testing.assert_array_equal(rv.grad(fn)(*args), [3.0, 3.0])
    np.testing.assert_array_equal(rv.grad(fn, argnums=2)(*args, power=2), [8.0, 10.0])
    np.testing.assert_array_equal(rv.grad(fn, argnums=-1)(*args, power=2), [8.0, 10.0])
    both = rv.grad(fn, argnums=(2, 0))(*args)
    assert type(both) is tuple
    np.testing.assert_array_equal(both[0], [1.0, 1.0])
    np.testing.assert_array_equal(both[1], [3.0, 3.0])


def test_a_function_that_does_not_use_its_argument_has_gradient_zero():
    for constant in (1.0, np.float64(1.0), np.array(1.0)):
        value, g = rv.value_and_grad(lambda x: constant)(np.ones(2))
        assert value == 1.0 and g.tolist() == [0.0, 0.0]


def test_a_cotangent_takes_the_dtype_of_its_value():
    seen = []
    look = rv.custom_vjp(lambda x: (x * 1, lambda g: (seen.append(g.dtype) or g,)))
    rv.vjp(look, np.ones(2, np.float32))[1](np.ones(2))
    assert seen == [np.float32]


def test_vjp_of_a_tree_and_what_pull_takes():
    value, pull = rv.vjp(lambda x: {"a": x ** 2, "b": [x * 3.0, "text"], "x": x}, np.array([1.0, 2.0]))
    assert value["b"][1] == "text"
    seed = {"a": np.array([1.0, 0.0]), "b": [np.array([0.0, 1.0]), None], "x": None}
    np.testing.assert_array_equal(pull(seed)[0], [2.0, 3.0])
    np.testing.assert_array_equal(pull(None)[0], [0.0, 0.0])
    np.testing.assert_array_equal(pull(seed)[0], [2.0, 3.0])      # a pull can be repeated
    _, pull = rv.vjp(lambda x: (x, x), np.array([1.0]))       # one tensor, returned twice
    np.testing.assert_array_equal(pull((np.array([2.0]), np.array([3.0])))[0], [5.0])


def test_results_can_be_written_to_without_changing_each_other():
    g = rv.grad(np.sum)(np.ones(3))
    g *= 2.0
    np.testing.assert_array_equal(g, [2.0, 2.0, 2.0])
    seed = np.ones(3)
    a, b = rv.vjp(lambda x, y: x + y, np.ones(3), np.ones(3))[1](seed)
    a *= 5.0
    np.testing.assert_array_equal(b, np.ones(3))
    np.testing.assert_array_equal(seed, np.ones(3))
    for fn in (lambda x: np.reshape(x, (3, 1)), lambda x: x[::-1], lambda x: x):
        value, pull = rv.vjp(fn, np.ones(3))
        seed = np.ones(np.shape(value))
        assert not np.shares_memory(pull(seed)[0], seed)


def test_has_aux_gives_plain_values_back():
    def fn(x):
        return np.sum(x ** 2), {"square": x ** 2, "note": "hello", "plain": np.ones(2), "x": [x]}
    (value, aux), g = rv.value_and_grad(fn, has_aux=True)(np.array([1.0, 3.0]))
    assert value == 10.0 and aux["note"] == "hello"
    assert [type(aux[k]) for k in ("square", "plain")] == [np.ndarray] * 2 and type(aux["x"][0]) is np.ndarray
    np.testing.assert_array_equal(aux["square"], [1.0, 9.0])
    np.testing.assert_array_equal(g, [2.0, 6.0])


def test_branching_on_a_value_takes_the_branch_and_its_derivative():
    fn = lambda x: x ** 2 if x > 1 else -x
    assert (rv.grad(fn)(3.0), rv.grad(fn)(0.5)) == (6.0, -1.0)
    x = rv.vjp(lambda x: [x == 1.0, x != 1.0, x < 1.0, x <= 1.0, x > 1.0, x >= 1.0], np.array([0.0, 1.0]))[0]
    np.testing.assert_array_equal(x, [[0, 1], [1, 0], [1, 0], [1, 1], [0, 0], [0, 1]])


def test_the_attributes_of_a_tensor_are_those_of_its_array():
    seen = {}

    def fn(x):
        seen.update(shape=x.shape, ndim=x.ndim, size=x.size, dtype=x.dtype, len=len(x), text=repr(x), value=x.value)
        return np.sum(x)
    x = np.ones((2, 3), np.float32)
    rv.grad(fn)(x)
    assert (seen["shape"], seen["ndim"], seen["size"], seen["dtype"], seen["len"]) == ((2, 3), 2, 6, np.float32, 2)
    assert seen["text"].startswith("Tensor(") and np.array_equal(seen["value"], x)


def test_integer_casts_and_comparisons_carry_no_gradient():
    np.testing.assert_array_equal(rv.grad(lambda x: np.sum(x * x.astype(int)))(np.array([1.5, 2.5])), [1.0, 2.0])
    np.testing.assert_array_equal(rv.grad(lambda x: np.sum((x > 2) * x))(np.array([1.5, 2.5])), [0.0, 1.0])


def test_astype_goes_back_to_the_dtype_it_came_from():
    g = rv.grad(lambda x: np.sum(x.astype(np.float64) ** 2))(np.array([1.0, 2.0], np.float32))
    assert g.dtype == np.float32
    np.testing.assert_array_equal(g, [2.0, 4.0])


# ------------------------------------------------------------------ derivatives inside derivatives

def test_an_inner_derivative_does_not_confuse_its_variable_with_the_outer_one():
    assert rv.grad(lambda x: x * rv.grad(lambda y: x + y)(1.0))(2.0) == 1.0
    assert rv.grad(lambda x: x * rv.grad(lambda y: x * y)(1.0))(3.0) == 6.0
    # d/dx (d/dy x^2 y^3 at y = x) = d/dx 3 x^4
    assert rv.grad(lambda x: rv.grad(lambda y: x ** 2 * y ** 3)(x))(2.0) == 12 * 8.0
    # three levels: d/dx d/dy d/dz x^2 y^3 z^4 at 2, 1, 1
    assert rv.grad(lambda x: rv.grad(lambda y: rv.grad(lambda z: x ** 2 * y ** 3 * z ** 4)(1.0))(1.0))(2.0) == 48.0


def test_the_gradient_of_a_function_with_a_gradient_step_inside():
    a = np.array([[2.0, 0.5], [0.5, 1.0]])

    def after_one_step(x):
        value, g = rv.value_and_grad(lambda y: 0.5 * y @ a @ y)(x)
        moved = x - 0.1 * g
        return 0.5 * moved @ a @ moved + value
    x = np.array([1.0, -2.0])
    step = np.eye(2) - 0.1 * a
    np.testing.assert_allclose(rv.grad(after_one_step)(x), step @ a @ step @ x + a @ x, rtol=1e-14)


def test_aux_of_an_inner_derivative_keeps_the_gradient_to_the_outer_variable():
    def by_argument(a):
        (_, aux), _ = rv.value_and_grad(lambda b, c: (b * c, b ** 2 * c), has_aux=True)(3.0, a)
        return aux

    def by_closure(a):
        (_, aux), _ = rv.value_and_grad(lambda b: (b * a, b ** 2 * a), has_aux=True)(3.0)
        return aux
    assert rv.grad(by_argument)(2.0) == 9.0
    assert rv.grad(by_closure)(2.0) == 9.0


def test_an_inner_pull_may_be_called_on_outer_tensors():
    def fn(x):
        _, pull = rv.vjp(np.sin, 0.5)       # a tape without x
        return pull(x ** 2)[0]
    np.testing.assert_allclose(rv.grad(fn)(3.0), 6.0 * np.cos(0.5), rtol=1e-15)


# ------------------------------------------------------------------ custom operations

def test_custom_vjp_with_trees_on_both_sides():
    def rotate(p, angle):
        c, s = np.cos(angle), np.sin(angle)
        x, y = p["x"], p["y"]

        def pull(g):
            return {"x": c * g[0] - s * g[1]["v"], "y": s * g[0] + c * g[1]["v"]}, None
        return (c * x + s * y, {"v": -s * x + c * y}), pull
    operation = rv.custom_vjp(rotate)
    p = {"x": np.array([1.0, 2.0]), "y": np.array([3.0, 4.0])}
    out = operation(p, 0.3)                                        # plain arrays give the value alone
    assert type(out[0]) is np.ndarray

    def loss(p):
        u, v = operation(p, 0.3)
        return np.sum(u ** 2) + np.sum(3 * v["v"])

    def plain(p):
        return np.sum((np.cos(0.3) * p["x"] + np.sin(0.3) * p["y"]) ** 2) + 3 * np.sum(
            -np.sin(0.3) * p["x"] + np.cos(0.3) * p["y"])
    for name, g in rv.grad(loss)(p).items():
        np.testing.assert_allclose(g, rv.grad(plain)(p)[name], rtol=1e-14)
    assert rv.grad(lambda a: np.sum(operation(p, a)[0]))(0.3) == 0.0          # pull gave None for the angle


def test_custom_vjp_sees_zeros_for_outputs_that_were_not_used_and_passes_what_is_no_float():
    seen = []

    def fn(x):
        def pull(g):
            seen.append(g)
            return (2 * g[0] + g[1],)
        return (2 * x, x, 7, "text"), pull
    assert rv.grad(lambda x: rv.custom_vjp(fn)(x)[0])(3.0) == 2.0
    assert seen == [(1.0, 0.0, None, None)]
    out = rv.vjp(lambda x: rv.custom_vjp(fn)(x)[2:], 3.0)[0]
    assert out == (7, "text")
    assert rv.grad(lambda x: x * rv.custom_vjp(fn)(x)[2])(3.0) == 7.0         # nothing flowed: pull is not called
    assert len(seen) == 1


def test_custom_vjp_drops_the_cotangent_of_a_constant():
    product = rv.custom_vjp(lambda a, b: (a * b, lambda g: (g * b, g * a)))
    for fn in (lambda x, y: product(x, 5.0) + 0 * y, lambda x, y: product(5.0, x) + 0 * y):
        assert rv.grad(fn, argnums=(0, 1))(2.0, 3.0) == (5.0, 0.0)


def test_custom_vjp_written_with_numpy_functions_has_second_derivatives():
    sin = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (g * np.cos(x),)))
    np.testing.assert_allclose(rv.grad(rv.grad(sin))(0.7), -np.sin(0.7), rtol=1e-15)


# ------------------------------------------------------------------ size and memory

@pytest.mark.long
def test_a_tape_of_a_million_operations():
    def fn(x):
        y = x
        for _ in range(500_000):
            y = y * 1.000001 + 1e-9
        return y
    g = rv.grad(fn)(1.0)
    # 500,000 rounded products: a random walk of half-ulps, 1e-16 sqrt(5e5) = 1e-13; the bound is linear.
    np.testing.assert_allclose(g, 1.000001 ** 500_000, rtol=5e5 * 1.2e-16)


def some_solve(gradient):
    y0, W = np.ones((4, 3)), 0.3 * np.ones((3, 3))
    field = lambda t, y, p: np.tanh(y @ p)
    return lambda: rv.grad(lambda p: np.sum(rv.solve(field, y0, np.linspace(0, 1, 9), p, gradient=gradient).ys))(W)


clip = rv.custom_vjp(lambda x: (x, lambda g: (np.clip(g, -1, 1),)))
WORK = {
    "grad": lambda: rv.grad(lambda x: np.sum(np.tanh(x) ** 2))(np.ones(3)),
    "second": lambda: rv.grad(rv.grad(lambda x: np.tanh(x) ** 2))(1.0),
    "custom_vjp": lambda: rv.grad(lambda x: np.sum(clip(x)))(np.ones(3)),
    "has_aux": lambda: rv.value_and_grad(lambda x: (x * x, x), has_aux=True)(1.0),
    "Direct": some_solve(rv.Direct()), "Reversible": some_solve(rv.Reversible()),
    "Checkpointed": some_solve(rv.Checkpointed(3)), "Backsolve": some_solve(rv.Backsolve()),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", WORK)
def test_nothing_is_left_for_the_garbage_collector(name):
    WORK[name]()              # imports, caches
    gc.collect()
    gc.disable()
    try:
        WORK[name]()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_garbage_collector_has_no_entries_of_ufuncs_to_look_at():
    """Of names, numbers and arrays: or each of its full rounds would go through the whole of a long tape."""
    tape = Tape()
    x = tape.input(np.ones((2, 2)))
    for y in (x + x, 2.0 * x, x @ np.ones((2, 2)), np.tanh(x), -x, np.arctan2(x, x), x - np.array(0.5)):
        x = y
    gc.collect()
    entries = tape.nodes[1:]
    assert len(entries) == 7 and not any(map(gc.is_tracked, entries))
    assert [entry(node)[0] for node in entries] == [RULES[f] for f in (
        np.add, np.multiply, np.matmul, np.tanh, np.negative, np.arctan2, np.subtract)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_on_a_tape_have_the_bits_of_plain_ones(dtype):
    """However the matrices lie: of those that have gaps, or run backwards, the BLAS and NumPy's own loop add in different orders."""
    draw = np.random.default_rng(0).standard_normal
    lying = [lambda x: x, np.asfortranarray, lambda x: np.repeat(x, 2, 1)[:, ::2], lambda x: np.repeat(x, 2, 0)[::2],
             lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: np.broadcast_to(x[:1], x.shape)]
    for n, k, m in ((1, 10, 10), (33, 33, 8), (256, 4, 33), (3, 256, 1)):
        for a, b in product([f(draw((n, k)).astype(dtype)) for f in lying], [f(draw((k, m)).astype(dtype)) for f in lying]):
            tape = Tape()
            assert np.array_equal((tape.input(a) @ tape.input(b)).value, a @ b)


def test_every_ufunc_of_the_table_is_found_by_its_name():
    assert {f.__name__: op for f, op in RULES.items() if isinstance(f, np.ufunc)} == NAMED


def test_the_tape_is_freed_with_its_pull():
    gc.disable()
    try:
        kept = []

        def fn(x):
            big = np.tanh(x * np.ones((100, 100)))
            kept.append(weakref.ref(big.value))
            return np.sum(big)
        _, pull = rv.vjp(fn, 1.0)
        assert kept[0]() is not None
        del pull
        assert kept[0]() is None
    finally:
        gc.enable()


def test_the_backward_sweep_lets_cotangents_go():
    """A chain of n arrays holds n values for the tape, but only a few cotangents at a time."""
    n, size = 200, 8 * 10_000

    def fn(x):
        for _ in range(n):
            x = x * 1.01
        return np.sum(x)
    _, pull = rv.vjp(fn, np.ones(10_000))
    tracemalloc.start()
    try:
        pull(1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A handful of arrays and a list of n entries; held cotangents would make it n arrays.
    assert peak < 8 * size


def test_the_power_of_a_spectrum_has_its_gradient_where_the_spectrum_is_zero() -> None:
    """sum_k w_k |F x|_k^2 = x^T A x with A = Re(F^H diag(w) F), so the gradient is 2 A x; of a constant all but F_0 is exactly 0."""
    x, w = np.ones(4), np.array([1.0, 2.0, 3.0, 4.0])
    F = np.exp(-2j * np.pi * np.outer(np.arange(4), np.arange(4)) / 4)
    A = np.real(F.conj().T @ np.diag(w) @ F)
    found = rv.grad(lambda x: np.sum(w * np.abs(np.fft.fft(x)) ** 2))(x)
    assert np.allclose(found, 2 * A @ x, rtol=1e-14)
    assert np.array_equal(rv.grad(lambda x: np.sum(np.abs(np.fft.fft(x))[1:]))(x), np.zeros(4))       # |z|' = 0 at 0, as |x|'


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shapes", [((1, 3), (3,)), ((1, 1, 3), (1, 3)), ((2, 3), (3,)), ((0, 3), (3,)), ((1, 0), (0,)), ((1,), ()),
                                    ((1, 1), (1,)), ((4, 1), (1, 1)), ((3, 1), (1, 5))], ids=str)
def test_what_broadcasting_stretched_is_summed_also_where_it_was_stretched_to_one(shapes, dtype):
    """The cotangent of an input is the sum over all places that it went to, here one by one; and each is an array of its own, although
    those of a sum over axes of length one are the same numbers."""
    rng = np.random.default_rng(3)
    a, b = (np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes)
    g = rng.standard_normal(np.broadcast_shapes(*shapes)).astype(dtype)
    _, pull = rv.vjp(lambda a, b: a * 2 + b, a, b)
    found = pull(g)
    for x, factor, got in ((a, 2.0, found[0]), (b, 1.0, found[1])):
        truth, place = np.zeros(x.shape), np.broadcast_to(np.arange(x.size).reshape(x.shape), g.shape)
        for at in np.ndindex(*g.shape):
            truth.ravel()[place[at]] += factor * float(g[at])
        assert got.shape == x.shape and got.dtype == dtype
        np.testing.assert_allclose(got, truth, rtol=4 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)    # at most four terms of 3
    before = found[1].copy()
    found[0][...] = 7.0
    g[...] = 9.0
    assert np.array_equal(found[1], before)


def test_the_operators_of_tensors_on_tapes_within_tapes_are_those_of_one_tape():
    """The gradient in y at y = x, and its derivative in x, in closed form: operands of one tape, of two, and plain ones."""
    x = np.array([0.7, -1.3])

    def outer(x):
        inner = rv.grad(lambda y: np.sum(y * (x + y) / (2.0 - x) - x @ y + y ** 2 * x))
        return np.sum(inner(x))         # (x + 2 y) / (2 - x) - 2 x + 2 y x (of two entries) at y = x:  3 x / (2 - x) - 2 x + 2 x^2

    np.testing.assert_allclose(rv.grad(outer)(x), 6 / (2 - x) ** 2 - 2 + 4 * x, rtol=1e-14)        # some ten roundings of 1e-16

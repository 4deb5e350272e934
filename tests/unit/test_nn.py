"""nn: values and two derivatives against mpmath, layers and losses against loops, complex step and HIPS autograd."""
import sys

import autograd
import autograd.numpy as anp
import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

import revode as rv
from revode import nn

EPS = 2.0 ** -52


def mp_sigmoid(x):
    return 1 / (1 + mp.exp(-x))


# name -> the definition in mpmath. The points leave out 0, where relu has its kink.
ACTIVATIONS = {
    "sigmoid": mp_sigmoid,
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "relu": lambda x: x if x > 0 else mp.mpf(0),
    "silu": lambda x: x * mp_sigmoid(x),
    "lipswish": lambda x: mp.mpf("0.909") * x * mp_sigmoid(x),
    "gelu": lambda x: x * mp.ncdf(x),
    "gelu_tanh": lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x ** 3))),
    "erf": mp.erf,
}
POINTS = np.array([-30.0, -6.5, -2.0, -0.3, -1e-6, 1e-9, 0.7, 1.0, 3.0, 9.0, 40.0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_its_derivatives(name):
    fn, exact = getattr(nn, name), ACTIVATIONS[name]
    slope = rv.grad(lambda x: np.sum(fn(x)))
    curvature = rv.grad(lambda x: np.sum(slope(x)))
    with mp.workdps(40):
        truth = [np.array([float(mp.diff(exact, mp.mpf(float(x)), k)) for x in POINTS]) for k in range(3)]
    for k, found in enumerate((fn(POINTS), slope(POINTS), curvature(POINTS))):
        # Arguments up to 40 enter exponentials, so the relative error of each factor is up to 40 eps; polynomials of x
        # (gelu's second derivative) multiply it. gelu forms 1 + erf(...), which leaves an absolute error of a few eps
        # times its factor, at most 40 * (1 + 40^2 * phi(40)) ~ 40. mp.diff at 40 digits is good to 1e-15.
        assert_allclose(found, truth[k], rtol=400 * EPS, atol=100 * EPS, err_msg=f"derivative {k}")


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "silu", "lipswish"])
def test_small_values_keep_their_digits(name):
    """Far on the negative side the values are about exp(x), and are right relatively, not just absolutely."""
    x = np.array([-700.0, -100.0, -37.0])
    with mp.workdps(40):
        truth = [float(ACTIVATIONS[name](mp.mpf(float(v)))) for v in x]
    # exp(-700 (1 + eps)) has a relative error of 700 eps.
    assert_allclose(getattr(nn, name)(x), truth, rtol=1000 * EPS)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_keeps_dtype_and_does_not_overflow(name, dtype):
    fn = getattr(nn, name)
    x = np.array([-1e4, -1.0, 0.0, 1.0, 1e4], dtype)        # warnings are errors, so an overflow would raise
    value, grad = rv.value_and_grad(lambda x: np.sum(fn(x)))(x)
    assert fn(x).dtype == dtype and grad.dtype == dtype
    assert np.isfinite(value) and np.isfinite(grad).all()
    limits = {"sigmoid": (0, 1), "erf": (-1, 1), "lipswish": (0, 0.909e4)}.get(name, (0, 1e4))
    assert_allclose(fn(x)[[0, -1]], limits, rtol=10 * np.finfo(dtype).eps, atol=1e-30)


def test_relu_at_its_kink_and_at_nan():
    x = np.array([-1.0, -0.0, 0.0, 2.0])
    assert_array_equal(rv.grad(lambda x: np.sum(nn.relu(x)))(x), [0, 0, 0, 1])
    assert np.isnan(nn.relu(np.array([np.nan, 1.0]))).tolist() == [True, False]


def test_lipswish_is_lipschitz_with_constant_one():
    x = np.linspace(-10, 10, 20001)
    slopes = rv.grad(lambda x: np.sum(nn.lipswish(x)))(x)
    assert 0.999 < slopes.max() <= 1.0                      # the constant 0.909 is chosen for this


def test_the_two_forms_of_gelu_differ_by_less_than_said():
    x = np.linspace(-8, 8, 16001)
    gap = abs(nn.gelu(x) - nn.gelu_tanh(x)).max()
    assert 4e-4 < gap < 5e-4                                # above 0: two forms, not the same one twice


def test_erf_without_scipy_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r"SciPy.*pip install scipy.*gelu_tanh"):
        nn.gelu(np.ones(2))


def test_stop_gradient():
    value, grad = rv.value_and_grad(lambda x: np.sum(x * nn.stop_gradient(x)))(np.array([2.0, 3.0]))
    assert value == 13.0
    assert_array_equal(grad, [2.0, 3.0])                    # not [4, 6]


# softmax, log_softmax, layer_norm ----------------------------------------------------------------------------------
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_softmax_against_scipy(axis, shift):
    x = np.random.default_rng(0).standard_normal((3, 4, 5)) * 3 + shift
    # The inputs are the same doubles; subtracting the maximum is exact up to one rounding (Sterbenz or not), 16 eps of
    # the largest difference, and a sum of up to 5 terms follows.
    assert_allclose(nn.softmax(x, axis), special.softmax(x, axis), rtol=50 * EPS)
    assert_allclose(nn.log_softmax(x, axis), special.log_softmax(x, axis), rtol=50 * EPS, atol=50 * EPS)
    assert_allclose(np.sum(nn.softmax(x, axis), axis=axis), 1.0, rtol=10 * EPS)


@pytest.mark.parametrize("fn", [nn.softmax, nn.log_softmax])
def test_softmax_gradients_against_autograd(fn):
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))

    def plain(x):                                            # without a shift, so without the stopped gradient
        e = anp.exp(x)
        p = e / anp.sum(e, axis=-1, keepdims=True)
        return anp.sum(w * (p if fn is nn.softmax else anp.log(p)))

    ours, theirs = rv.grad(lambda x: np.sum(w * fn(x))), autograd.grad(plain)
    # A few sums of 5 terms of order 1, with factors up to exp(2 * 3): 100 eps.
    assert_allclose(ours(x), theirs(x), rtol=0, atol=100 * EPS)
    v = rng.standard_normal((4, 5))
    second = rv.grad(lambda x: np.sum(v * ours(x)))(x)       # the shift must not disturb higher derivatives
    assert_allclose(second, autograd.grad(lambda x: anp.sum(v * theirs(x)))(x), rtol=0, atol=400 * EPS)


def literal_layer_norm(x, scale, shift, eps):
    out = np.empty_like(x)
    for i, row in enumerate(x):
        mean = sum(row) / len(row)
        variance = sum((v - mean) ** 2 for v in row) / len(row)
        out[i] = [(v - mean) / (variance + eps) ** 0.5 * a + b for v, a, b in zip(row, scale, shift, strict=True)]
    return out


def test_layer_norm_against_a_loop_and_complex_step():
    rng = np.random.default_rng(2)
    x, scale, shift = rng.standard_normal((3, 6)), rng.standard_normal(6), rng.standard_normal(6)
    w = rng.standard_normal((3, 6))
    assert_allclose(nn.layer_norm(x, scale, shift), literal_layer_norm(x, scale, shift, 1e-5), rtol=0, atol=50 * EPS)

    def loss(x, scale, shift):
        return np.sum(w * nn.layer_norm(x, scale, shift))

    grads = rv.grad(loss, argnums=(0, 1, 2))(x, scale, shift)
    for which, at in enumerate((x, scale, shift)):
        truth = np.empty_like(at)
        for index in np.ndindex(at.shape):
            args = [a.astype(complex) for a in (x, scale, shift)]
            args[which][index] += 1e-30j                     # so small that the truncation error is below rounding
            truth[index] = np.sum(w * literal_layer_norm(*args, 1e-5)).imag / 1e-30
        assert_allclose(grads[which], truth, rtol=0, atol=200 * EPS)


def test_layer_norm_in_two_passes_survives_a_large_mean():
    """A one-pass variance, mean(x^2) - mean(x)^2, is off by 1e16 eps ~ 2 here; the other sees x - mean exactly."""
    x = 1e8 + np.array([[-1.0, 0.0, 1.0, 2.0, -2.0]])
    assert_allclose(nn.layer_norm(x, eps=0.0), (x - 1e8) / np.sqrt(2.0), rtol=0, atol=1e-15)
    assert_allclose(nn.layer_norm(np.full((2, 3), 7.0)), 0.0, atol=0)     # eps keeps a constant row from dividing by 0
    assert nn.layer_norm(np.ones((2, 3), np.float32)).dtype == np.float32


# mlp and initialisers ----------------------------------------------------------------------------------------------
def literal_mlp(params, row):
    for k, layer in enumerate(params):
        row = [sum(v * w for v, w in zip(row, layer["W"][:, j], strict=True)) + layer["b"][j]
               for j in range(len(layer["b"]))]
        row = row if k == len(params) - 1 else [np.tanh(v) for v in row]
    return row


@pytest.mark.parametrize("sizes", [(3, 10, 2), (2, 5, 4, 3), (4, 2)])
def test_mlp_against_a_loop_and_complex_step(sizes):
    rng = np.random.default_rng(3)
    params = nn.mlp_init(rng, sizes)
    params = [{"W": layer["W"], "b": rng.standard_normal(layer["b"].shape)} for layer in params]
    x = rng.standard_normal((2, sizes[0]))
    w = rng.standard_normal((2, sizes[-1]))
    # Sums of at most 11 terms of order 1 through at most 3 layers: 100 eps.
    assert_allclose(nn.mlp(params, x), [literal_mlp(params, row) for row in x], rtol=0, atol=100 * EPS)
    gp, gx = rv.grad(lambda p, x: np.sum(w * nn.mlp(p, x)), argnums=(0, 1))(params, x)

    def stepped(leaf, index):
        args = [[{k: v.astype(complex) for k, v in layer.items()} for layer in params], x.astype(complex)]
        (args[1] if leaf is None else args[0][leaf[0]][leaf[1]])[index] += 1e-30j
        return sum(w[i] @ np.array(literal_mlp(args[0], row)) for i, row in enumerate(args[1])).imag / 1e-30

    for leaf, found in [(None, gx), *(((k, name), gp[k][name]) for k in range(len(params)) for name in ("W", "b"))]:
        truth = np.array([stepped(leaf, index) for index in np.ndindex(found.shape)]).reshape(found.shape)
        assert_allclose(found, truth, rtol=0, atol=200 * EPS, err_msg=str(leaf))


def test_mlp_activation_and_batch_axes():
    params = nn.mlp_init(np.random.default_rng(0), (3, 4, 2))
    x = np.random.default_rng(1).standard_normal((5, 6, 3))
    assert nn.mlp(params, x).shape == (5, 6, 2)
    hidden = np.maximum(x @ params[0]["W"], 0)               # the biases are zero at the start
    assert_allclose(nn.mlp(params, x, activation=nn.relu), hidden @ params[1]["W"], rtol=0, atol=20 * EPS)


def test_initialisers():
    n, m = 300, 200
    W = nn.glorot(np.random.default_rng(0), n, m)
    bound = np.sqrt(6 / (n + m))
    # The largest of 60000 uniform numbers misses the bound by more than 1e-3 of it with probability exp(-60).
    assert W.shape == (n, m) and (1 - 1e-3) * bound < abs(W).max() <= bound and W.min() < 0
    W = nn.uniform(np.random.default_rng(0), n, m)
    assert W.shape == (n, m) and (1 - 1e-3) / np.sqrt(n) < abs(W).max() <= 1 / np.sqrt(n) and W.min() < 0
    biases = nn.mlp_init(np.random.default_rng(0), (4, 20_000), random_biases=True)[0]["b"]
    assert (1 - 2e-3) / 2 < abs(biases).max() <= 1 / 2 and biases.min() < 0     # misses with probability exp(-40)
    W = nn.lecun(np.random.default_rng(0), n, m)
    # The sample variance of k normal numbers has the relative deviation sqrt(2/k) = 0.006; five of those.
    assert_allclose(W.var(), 1 / n, rtol=5 * np.sqrt(2 / (n * m)))


def test_mlp_init_is_reproducible_and_typed():
    a, b = (nn.mlp_init(np.random.default_rng(7), (3, 10, 2)) for _ in range(2))
    c = nn.mlp_init(np.random.default_rng(7), (3, 10, 2), dtype=np.float32)
    other = nn.mlp_init(np.random.default_rng(8), (3, 10, 2))
    for k in range(2):
        assert_array_equal(a[k]["W"], b[k]["W"])
        assert (a[k]["W"] != other[k]["W"]).any()
        assert c[k]["W"].dtype == c[k]["b"].dtype == np.float32
        assert_array_equal(c[k]["W"], a[k]["W"].astype(np.float32))
        assert_array_equal(a[k]["b"], 0)
    assert [layer["W"].shape for layer in a] == [(3, 10), (10, 2)]


@pytest.mark.parametrize("rng, sizes, error, message", [
    (np.random.default_rng(0), (3,), ValueError, r"sizes=\(3,\).*\(3, 10, 2\)"),
    (np.random.default_rng(0), (3, 0, 2), ValueError, r"sizes=\(3, 0, 2\)"),
    (0, (3, 2), TypeError, r"rng is a int; pass a generator, np.random.default_rng"),
])
def test_mlp_init_errors(rng, sizes, error, message):
    with pytest.raises(error, match=message):
        nn.mlp_init(rng, sizes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_with_time(dtype):
    y = np.arange(6, dtype=dtype).reshape(3, 2)
    found = nn.with_time(dtype(0.5), y)
    assert found.dtype == dtype
    assert_array_equal(found, [[0.5, 0, 1], [0.5, 2, 3], [0.5, 4, 5]])
    gt, gy = rv.grad(lambda t, y: np.sum(np.square(nn.with_time(t, y))), argnums=(0, 1))(np.asarray(dtype(0.5)), y)
    assert_array_equal(gy, 2 * y)
    assert gt == 3.0                                         # three rows, 2 * 0.5 each


# losses ------------------------------------------------------------------------------------------------------------
def test_mse():
    a, b = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    value, (ga, gb) = rv.value_and_grad(nn.mse, argnums=(0, 1))(a, b)
    assert value == (4 + 9 + 16) / 4
    assert_array_equal(ga, (a - b) / 2)
    assert_array_equal(gb, (b - a) / 2)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) and the target \(2,\)"):
        nn.mse(a, b[0])


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_cross_entropy(shape):
    rng = np.random.default_rng(4)
    logits, labels = 4 * rng.standard_normal((*shape, 5)), rng.integers(0, 5, shape)
    value, grad = rv.value_and_grad(nn.cross_entropy)(logits, labels)
    logp = special.log_softmax(logits, axis=-1)
    count = labels.size
    # sums of up to 6 numbers below 20
    assert_allclose(value, -sum(logp[i][labels[i]] for i in np.ndindex(shape)) / count, rtol=50 * EPS)
    onehot = np.eye(5)[labels]
    assert_allclose(grad, (special.softmax(logits, axis=-1) - onehot) / count, rtol=0, atol=20 * EPS)
    assert_allclose(nn.cross_entropy(logits + 1e3, labels), value, rtol=0, atol=1e3 * 10 * EPS)


@pytest.mark.parametrize("labels, error, message", [
    ([0, 5], ValueError, "labels from 0 to 5 for 5 classes; labels run from 0 to 4"),
    ([-1, 0], ValueError, "labels from -1"),
    ([0.0, 1.0], TypeError, "labels of float64"),
    ([0, 1, 2], ValueError, r"labels of shape \(3,\) for logits of shape \(2, 5\)"),
])
def test_cross_entropy_errors(labels, error, message):
    with pytest.raises(error, match=message):
        nn.cross_entropy(np.zeros((2, 5)), labels)


def test_scatter_add_is_what_add_at_does_with_both_gradients():
    rng = np.random.default_rng(3)
    x, values, index = rng.standard_normal((4, 2)), rng.standard_normal((3, 2)), np.array([1, 3, 1])
    expected = x.copy()
    np.add.at(expected, index, values)
    value, pull = rv.vjp(lambda x, v: rv.nn.scatter_add(x, index, v), x, values)
    np.testing.assert_allclose(value, expected, rtol=1e-15, atol=1e-15)       # two sums of three numbers, in two orders
    g = rng.standard_normal(x.shape)
    ax, av = pull(g)
    np.testing.assert_array_equal(ax, g)
    np.testing.assert_array_equal(av, g[index])           # each added value reaches the place where it went
    rv.check_vjp(lambda x, v: rv.nn.scatter_add(x, ([0, 2], 1), v) ** 2, x, values[:2, 0])

"""Small networks as pure functions of (params, x): no modules, no hidden state, no global seed.

    mlp        x -> act(x W0 + b0) -> ... -> x Wk + bk            params: [{"W": (in, out), "b": (out,)}, ...]

Features are the last axis; every leading axis is a batch. All of it is NumPy calls that the engine differentiates;
what NumPy lacks is built from them, or (erf) declared here as an operation of its own.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .engine.primitives import SCATTER
from .engine.tensor import Op, apply
from .layers import attention, bare_block, block, block_init, cross_entropy, embedding, linear

__all__ = [
    "attention", "bare_block", "block", "block_init", "cross_entropy", "embedding", "erf", "gelu", "gelu_tanh", "glorot", "layer_norm",
    "lecun", "linear", "lipswish", "log_softmax", "mlp", "mlp_init", "mse", "relu", "scatter_add", "sigmoid", "silu", "softmax",
    "softplus", "stop_gradient", "uniform", "with_time",
]


# Operations of their own ---------------------------------------------------------------------------------------------
def _erf(x: Any) -> Any:
    """The error function of an array, from SciPy (or CuPy's copy of it)."""
    try:
        if type(x).__module__.split(".")[0] == "cupy":
            from cupyx.scipy.special import erf
        else:
            from scipy.special import erf
    except ImportError as error:
        raise ImportError("nn.erf (and nn.gelu, which needs it) takes the error function from SciPy; install it with "
                          "`pip install scipy`, or use nn.gelu_tanh") from error
    return erf(x)


ERF = Op("erf", _erf, (lambda g, y, a: g * np.exp(-np.square(a)) * (2 / math.sqrt(math.pi)),), "rv_erf({0})")
STOP = Op("stop_gradient", lambda x: x, (lambda g, y, a: None,), "{0}")


def erf(x: Any) -> Any:
    """The error function, elementwise.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x, between -1 and 1. Raises ImportError without SciPy.

    Cost: one pass over x; its derivative is another.
    Source: Abramowitz & Stegun 1964, 7.1.1; the values are SciPy's.

    Example
    -------
    >>> float(np.round(erf(np.array(1.0)), 6))
    0.842701
    """
    return apply(ERF, x)


def stop_gradient(x: Any) -> Any:
    """x itself, through which no gradient flows. (`rv.stop_gradient` does the same for a tree; this one is an operation of programs.)

    Parameters
    ----------
    x : (...) array or tensor.

    Returns an array like x. Raises TypeError for what is no array.

    Cost: none.

    Example
    -------
    >>> from revode import grad
    >>> float(grad(lambda x: x * stop_gradient(x))(3.0))
    3.0
    """
    return apply(STOP, x)


def scatter_add(x: Any, index: Any, values: Any) -> Any:
    """x with values added at x[index], as np.add.at does; a place that is named twice is added to twice.

    Parameters
    ----------
    x : (...) float array or tensor.
    index : whole numbers, slices or plain arrays of them, as in x[index].
    values : of the shape of x[index].

    Returns an array like x, which is not changed.
    Raises IndexError for a place that is not there, ValueError for values of another shape.

    Cost: one pass over x and one over values.

    Example
    -------
    >>> scatter_add(np.zeros(3), [0, 2, 2], np.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 0.0, 5.0]
    """
    return x + apply(SCATTER, values, index=index, shape=np.shape(x))


# Activations ---------------------------------------------------------------------------------------------------------
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), as exp(-log(1 + exp(-x))): no overflow, and small values keep their digits.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x, between 0 and 1. Raises what NumPy raises.

    Cost: three passes over x.

    Example
    -------
    >>> sigmoid(np.array([0.0, -800.0])).tolist()
    [0.5, 0.0]
    """
    return np.exp(-np.logaddexp(0.0, -x))


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) without overflow: a smooth way to make a number positive.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x, positive. Raises what NumPy raises.

    Cost: one pass over x.
    Source: Dugas and others 2001.

    Example
    -------
    >>> softplus(np.array([0.0, 800.0])).round(6).tolist()
    [0.693147, 800.0]
    """
    return np.logaddexp(x, 0.0)


def relu(x: Any) -> Any:
    """max(x, 0); derivative 0 at 0, and NaN stays NaN.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x. Raises what NumPy raises.

    Cost: two passes over x. A field that is made of it is not smooth: methods of high order fall to order 2 or less at the kinks.
    Source: Nair & Hinton 2010.

    Example
    -------
    >>> relu(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return np.where(x <= 0, 0.0, x)


def silu(x: Any) -> Any:
    """x sigmoid(x), also called swish.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x. Raises what NumPy raises.

    Cost: four passes over x.
    Source: Hendrycks & Gimpel 2016; Ramachandran, Zoph & Le 2017 (swish).

    Example
    -------
    >>> silu(np.array([0.0, 50.0])).tolist()
    [0.0, 50.0]
    """
    return x * sigmoid(x)


def lipswish(x: Any) -> Any:
    """0.909 x sigmoid(x): its slope is at most 1.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x. Raises what NumPy raises.

    Cost: five passes over x.
    Source: Chen, Behrmann, Duvenaud & Jacobsen 2019, section 3.

    Example
    -------
    >>> lipswish(np.array([0.0, 100.0])).round(3).tolist()
    [0.0, 90.9]
    """
    return 0.909 * silu(x)


def gelu(x: Any) -> Any:
    """x Phi(x) with the normal distribution function, through erf.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x. Raises ImportError without SciPy; gelu_tanh does without.

    Cost: about five passes over x.
    Source: Hendrycks & Gimpel 2016.

    Example
    -------
    >>> float(np.round(gelu(np.array(1.0)), 6))
    0.841345
    """
    return 0.5 * x * (1.0 + erf(x * (1 / math.sqrt(2.0))))


def gelu_tanh(x: Any) -> Any:
    """The tanh form of gelu, within 5e-4 of it: the one of GPT-2.

    Parameters
    ----------
    x : (...) float array or tensor.

    Returns an array like x. Raises what NumPy raises.

    Cost: about eight passes over x.
    Source: Hendrycks & Gimpel 2016, section 2.

    Example
    -------
    >>> float(np.round(gelu_tanh(np.array(1.0)), 4))
    0.8412
    """
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def log_softmax(x: Any, axis: int = -1) -> Any:
    """x - log(sum(exp(x))) along an axis; shifted by the maximum, so it does not overflow.

    Parameters
    ----------
    x : (...) float array or tensor, logits in nats.
    axis : along which the exponentials of the result add up to 1.

    Returns an array like x, at most 0. Raises what NumPy raises for an axis that x has not.

    Cost: about five passes over x.
    Source: Goodfellow, Bengio & Courville 2016, section 4.1 (the shift).

    Example
    -------
    >>> log_softmax(np.array([1000.0, 1000.0])).round(6).tolist()
    [-0.693147, -0.693147]
    """
    # The shift cancels in exact arithmetic, so its gradient is zero and need not be computed.
    shifted = x - stop_gradient(np.max(x, axis=axis, keepdims=True))
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along an axis; shifted by the maximum, so it does not overflow.

    Parameters
    ----------
    x : (...) float array or tensor, logits in nats.
    axis : along which the result adds up to 1.

    Returns an array like x, of probabilities. Raises what NumPy raises for an axis that x has not.

    Cost: about four passes over x.
    Source: Bridle 1990.

    Example
    -------
    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    e = np.exp(x - stop_gradient(np.max(x, axis=axis, keepdims=True)))
    return e / np.sum(e, axis=axis, keepdims=True)


def layer_norm(x: Any, scale: Any = None, shift: Any = None, axis: int = -1, eps: float = 1e-5) -> Any:
    """(x - mean) / sqrt(variance + eps), then * scale + shift if given. Two passes: the variance is of x - mean.

    Parameters
    ----------
    x : (...) float array or tensor.
    scale, shift : arrays that broadcast against x, such as (d,); None for 1 and 0.
    axis : along which mean and variance are taken.
    eps : added to the variance, in the unit of x squared.

    Returns an array like x. Raises what NumPy raises for shapes that do not fit.

    Cost: about eight passes over x.
    Source: Ba, Kiros & Hinton 2016.

    Example
    -------
    >>> layer_norm(np.array([1.0, 3.0]), eps=0.0).tolist()
    [-1.0, 1.0]
    """
    centred = x - np.mean(x, axis=axis, keepdims=True)
    y = centred / np.sqrt(np.mean(np.square(centred), axis=axis, keepdims=True) + eps)
    y = y if scale is None else y * scale
    return y if shift is None else y + shift


# Initialisers: init(rng, fan_in, fan_out, dtype) -> (fan_in, fan_out) -------------------------------------------------
def glorot(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: Any = np.float64) -> np.ndarray:
    """A matrix that is uniform on +-sqrt(6 / (fan_in + fan_out)).

    Parameters
    ----------
    rng : np.random.default_rng(seed).
    fan_in, fan_out : features before and after.
    dtype : of the result; the numbers are drawn in float64.

    Returns a (fan_in, fan_out) array. Raises what the generator raises.

    Cost: fan_in fan_out random numbers.
    Source: Glorot & Bengio 2010, equation 16.

    Example
    -------
    >>> bool(abs(glorot(np.random.default_rng(0), 3, 3)).max() < 1.0)
    True
    """
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype)


def lecun(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: Any = np.float64) -> np.ndarray:
    """A matrix of normal numbers with variance 1 / fan_in.

    Parameters
    ----------
    rng : np.random.default_rng(seed).
    fan_in, fan_out : features before and after.
    dtype : of the result; the numbers are drawn in float64.

    Returns a (fan_in, fan_out) array. Raises what the generator raises.

    Cost: fan_in fan_out random numbers.
    Source: LeCun, Bottou, Orr & Müller 1998, section 4.6.

    Example
    -------
    >>> lecun(np.random.default_rng(0), 3, 2, np.float32).dtype.name
    'float32'
    """
    return (rng.standard_normal((fan_in, fan_out)) / math.sqrt(fan_in)).astype(dtype)


def uniform(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: Any = np.float64) -> np.ndarray:
    """A matrix that is uniform on +-1 / sqrt(fan_in): what PyTorch and Equinox give a linear layer.

    Parameters
    ----------
    rng : np.random.default_rng(seed).
    fan_in, fan_out : features before and after.
    dtype : of the result; the numbers are drawn in float64.

    Returns a (fan_in, fan_out) array. Raises what the generator raises.

    Cost: fan_in fan_out random numbers.
    Source: LeCun, Bottou, Orr & Müller 1998, section 4.6 (the scale).

    Example
    -------
    >>> bool(abs(uniform(np.random.default_rng(0), 4, 2)).max() <= 0.5)
    True
    """
    return (rng.uniform(-1.0, 1.0, (fan_in, fan_out)) / math.sqrt(fan_in)).astype(dtype)


def mlp_init(rng: np.random.Generator, sizes: Sequence[int], init: Callable = glorot, random_biases: bool = False,
             dtype: Any = np.float64) -> list:
    """Parameters of a multilayer perceptron.

    Parameters
    ----------
    rng : np.random.default_rng(seed). The numbers are drawn in float64, so float32 gets the same ones, rounded.
    sizes : features of the input, of each hidden layer, and of the output: (3, 10, 2).
    init : glorot, lecun, uniform, or a function (rng, fan_in, fan_out, dtype) -> matrix.
    random_biases : biases uniform on +-1 / sqrt(fan_in) instead of zero.
    dtype : of all arrays.

    Returns a list of {"W": (in, out), "b": (out,)}, one for each layer.
    Raises ValueError for fewer than two sizes, or a size below 1; TypeError for an rng that is no generator.

    Cost: one random number for each weight.

    Example
    -------
    >>> [layer["W"].shape for layer in mlp_init(np.random.default_rng(0), (3, 10, 2))]
    [(3, 10), (10, 2)]
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"mlp_init: rng is a {type(rng).__name__}; pass a generator, np.random.default_rng(seed)")
    sizes = tuple(sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"mlp_init: sizes={sizes}; give the features of the input, of the hidden layers and of the "
                         "output, such as (3, 10, 2)")
    def bias(n: int, m: int) -> np.ndarray:
        return (rng.uniform(-1.0, 1.0, m) / math.sqrt(n) if random_biases else np.zeros(m)).astype(dtype)

    return [{"W": init(rng, n, m, dtype), "b": bias(n, m)} for n, m in pairwise(sizes)]


def mlp(params: Sequence, x: Any, activation: Callable = np.tanh) -> Any:
    """Apply a multilayer perceptron; the last layer has no activation.

    Parameters
    ----------
    params : a list of {"W": (in, out), "b": (out,)}, as mlp_init makes it.
    x : (..., in) float array or tensor.
    activation : a function of arrays, between the layers.

    Returns (..., out). Raises what NumPy raises for shapes that do not fit.

    Cost: one product with a matrix for each layer, 2 in out multiplications and additions for each row of x.
    Source: Rumelhart, Hinton & Williams 1986.

    Example
    -------
    >>> params = mlp_init(np.random.default_rng(0), (3, 10, 2))
    >>> mlp(params, np.ones((5, 3))).shape
    (5, 2)
    """
    *hidden, last = params
    for layer in hidden:
        x = activation(x @ layer["W"] + layer["b"])
    return x @ last["W"] + last["b"]


def with_time(t: Any, y: Any) -> Any:
    """(t, y) as one input, for a network that is to know the time.

    Parameters
    ----------
    t : the time, without axes.
    y : (..., d) array or tensor.

    Returns (..., 1 + d), t before the features of y, in y's dtype. Raises what NumPy raises for a y without axes.

    Cost: one copy of y.

    Example
    -------
    >>> with_time(0.5, np.ones((2, 3)))[0].tolist()
    [0.5, 1.0, 1.0, 1.0]
    """
    return np.concatenate([t * np.ones_like(y, shape=(*y.shape[:-1], 1)), y], axis=-1)


# Losses ---------------------------------------------------------------------------------------------------------------
def mse(prediction: Any, target: Any) -> Any:
    """The mean of (prediction - target)^2 over all entries.

    Parameters
    ----------
    prediction, target : (...) float arrays of one shape.

    Returns one number, in the unit of the target squared.
    Raises ValueError where the shapes differ: broadcasting would compare everything with everything.

    Cost: three passes.

    Example
    -------
    >>> float(mse(np.array([1.0, 3.0]), np.array([1.0, 1.0])))
    2.0
    """
    if np.shape(prediction) != np.shape(target):
        raise ValueError(f"mse: the prediction has shape {np.shape(prediction)} and the target {np.shape(target)}; "
                         "they are equal, or broadcasting would compare everything with everything")
    return np.mean(np.square(prediction - target))

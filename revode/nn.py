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
    """The error function, elementwise. Needs SciPy."""
    return apply(ERF, x)


def stop_gradient(x: Any) -> Any:
    """x itself, through which no gradient flows."""
    return apply(STOP, x)


def scatter_add(x: Any, index: Any, values: Any) -> Any:
    """x with values added at x[index], as np.add.at does; a place that is named twice is added to twice.

    index: whole numbers, slices or plain arrays of them, as in x[index]; values of the shape of x[index].

    Example
    -------
    >>> scatter_add(np.zeros(3), [0, 2, 2], np.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 0.0, 5.0]
    """
    return x + apply(SCATTER, values, index=index, shape=np.shape(x))


# Activations ---------------------------------------------------------------------------------------------------------
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), as exp(-log(1 + exp(-x))): no overflow, and small values keep their digits."""
    return np.exp(-np.logaddexp(0.0, -x))


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) without overflow."""
    return np.logaddexp(x, 0.0)


def relu(x: Any) -> Any:
    """max(x, 0); derivative 0 at 0, and NaN stays NaN."""
    return np.where(x <= 0, 0.0, x)


def silu(x: Any) -> Any:
    """x sigmoid(x), also called swish."""
    return x * sigmoid(x)


def lipswish(x: Any) -> Any:
    """0.909 x sigmoid(x): its slope is at most 1 (Chen, Behrmann, Duvenaud & Jacobsen 2019, section 3)."""
    return 0.909 * silu(x)


def gelu(x: Any) -> Any:
    """x Phi(x) with the normal distribution function, through erf (Hendrycks & Gimpel 2016). Needs SciPy."""
    return 0.5 * x * (1.0 + erf(x * (1 / math.sqrt(2.0))))


def gelu_tanh(x: Any) -> Any:
    """The tanh form of gelu, within 5e-4 of it (Hendrycks & Gimpel 2016, section 2): the one of GPT-2."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def log_softmax(x: Any, axis: int = -1) -> Any:
    """x - log(sum(exp(x))) along an axis; shifted by the maximum, so it does not overflow."""
    # The shift cancels in exact arithmetic, so its gradient is zero and need not be computed.
    shifted = x - stop_gradient(np.max(x, axis=axis, keepdims=True))
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along an axis; shifted by the maximum, so it does not overflow."""
    e = np.exp(x - stop_gradient(np.max(x, axis=axis, keepdims=True)))
    return e / np.sum(e, axis=axis, keepdims=True)


def layer_norm(x: Any, scale: Any = None, shift: Any = None, axis: int = -1, eps: float = 1e-5) -> Any:
    """(x - mean) / sqrt(variance + eps), then * scale + shift if given. Two passes: the variance is of x - mean."""
    centred = x - np.mean(x, axis=axis, keepdims=True)
    y = centred / np.sqrt(np.mean(np.square(centred), axis=axis, keepdims=True) + eps)
    y = y if scale is None else y * scale
    return y if shift is None else y + shift


# Initialisers: init(rng, fan_in, fan_out, dtype) -> (fan_in, fan_out) -------------------------------------------------
def glorot(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: Any = np.float64) -> np.ndarray:
    """Uniform on +-sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, equation 16)."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype)


def lecun(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: Any = np.float64) -> np.ndarray:
    """Normal with variance 1 / fan_in (LeCun, Bottou, Orr & Müller 1998, section 4.6)."""
    return (rng.standard_normal((fan_in, fan_out)) / math.sqrt(fan_in)).astype(dtype)


def uniform(rng: np.random.Generator, fan_in: int, fan_out: int, dtype: Any = np.float64) -> np.ndarray:
    """Uniform on +-1 / sqrt(fan_in): what PyTorch and Equinox give a linear layer."""
    return (rng.uniform(-1.0, 1.0, (fan_in, fan_out)) / math.sqrt(fan_in)).astype(dtype)


def mlp_init(rng: np.random.Generator, sizes: Sequence[int], init: Callable = glorot, random_biases: bool = False,
             dtype: Any = np.float64) -> list:
    """Parameters of a multilayer perceptron: a list of {"W": (in, out), "b": (out,)}.

    Parameters
    ----------
    rng : np.random.default_rng(seed). The numbers are drawn in float64, so float32 gets the same ones, rounded.
    sizes : features of the input, of each hidden layer, and of the output: (3, 10, 2).
    init : glorot, lecun, uniform, or a function (rng, fan_in, fan_out, dtype) -> matrix.
    random_biases : biases uniform on +-1 / sqrt(fan_in) instead of zero.

    Raises ValueError for fewer than two sizes, or a size below 1.
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
    """Apply a multilayer perceptron to x (..., in); the last layer has no activation. Returns (..., out).

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
    """(t, y) as one input: t before the features of y (..., d), giving (..., 1 + d)."""
    return np.concatenate([t * np.ones_like(y, shape=(*y.shape[:-1], 1)), y], axis=-1)


# Losses ---------------------------------------------------------------------------------------------------------------
def mse(prediction: Any, target: Any) -> Any:
    """The mean of (prediction - target)^2 over all entries. ValueError where the shapes differ."""
    if np.shape(prediction) != np.shape(target):
        raise ValueError(f"mse: the prediction has shape {np.shape(prediction)} and the target {np.shape(target)}; "
                         "they are equal, or broadcasting would compare everything with everything")
    return np.mean(np.square(prediction - target))

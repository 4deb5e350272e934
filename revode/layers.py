"""Layers of a decoder-only transformer, as pure functions of (params, x); their costly parts are
single rows of the engine.

    attention   softmax(q k^T / sqrt(e) + mask) v              q, k, v (..., T, e)
    normalise   (x - mean) r,   r = (variance + eps)^(-1/2)    over the last axis, in two passes
    gelu_tanh   x (1 + tanh(C (x + .044715 x^3))) / 2          C = sqrt(2 / pi)

A row (Op) has a forward pass that works in place in one array of its own, and a pullback that is a
row too, so that derivatives of any order exist. Nothing is kept but input and output: what a
pullback needs besides (r, tanh) costs less to compute again (1 % of the products beside it) than to
hold. `rv.nn` has softmax, layer_norm and gelu written in NumPy's own calls, which print in C; these
rows run on the tape and in replay. Leading axes are a batch, features last.
Sources: Vaswani et al. 2017; Ba, Kiros & Hinton 2016; Hendrycks & Gimpel 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .engine.derivatives import custom_vjp
from .engine.tangents import tangent
from .engine.tensor import Op, apply, beside, number, value_of

# softmax, and the weights of attention ------------------------------------------------------------
ROWS = 1 << 14  # entries that a pullback works on at a time, so that what it needs on the way stays in the cache


def _blocks(x: Any) -> list[slice]:
    """Slices of the first axis of x (n, d), some ROWS entries each."""
    step = max(1, ROWS // max(1, x.shape[-1]))
    return [slice(i, i + step) for i in range(0, len(x), step)]


@cache
def _later(T: int, S: int, dtype: Any) -> Any:
    """(T, S): -inf where a place would look at a later one, else 0."""
    mask = np.where(np.triu(np.ones((T, S), bool), S - T + 1), -np.inf, 0.0).astype(dtype)
    mask.flags.writeable = False
    return mask


def _softmax_of(y: Any) -> Any:
    """softmax of y along the last axis, in place."""
    y -= np.max(y, axis=-1, keepdims=True)
    np.exp(y, out=y)
    y /= np.sum(y, axis=-1, keepdims=True)
    return y


def _softmax_pull(g: Any, y: Any) -> Any:
    """y (g - <g, y>), which is the (symmetric) Jacobian of softmax at y, times g."""
    a = g * y
    flat, rows = a.reshape(-1, a.shape[-1]), y.reshape(-1, a.shape[-1])
    for i in _blocks(flat):
        flat[i] -= rows[i] * np.sum(flat[i], axis=-1, keepdims=True)
    return a


def _inner(a: Any, b: Any) -> Any:
    return np.sum(a * b, axis=-1, keepdims=True)


SOFTMAX_PULL: Op = Op(
    "softmax_pull",
    _softmax_pull,
    (lambda h, a, g, y: apply(SOFTMAX_PULL, h, y), lambda h, a, g, y: h * (g - _inner(g, y)) - g * _inner(h, y)),
)
SOFTMAX: Op = Op("softmax", lambda x: _softmax_of(x.copy()), (lambda g, y, x: apply(SOFTMAX_PULL, g, y),))


def _weights(q: Any, k: Any, scale: float, causal: bool) -> Any:
    y = np.matmul(q, np.swapaxes(k, -1, -2))
    y *= scale
    if causal:
        y += beside(y)(_later(*y.shape[-2:], y.dtype))
    return _softmax_of(y)


WEIGHTS = Op(
    "attention_weights",
    _weights,
    (
        lambda g, w, q, k, scale, causal: (apply(SOFTMAX_PULL, g, w) @ k) * scale,
        lambda g, w, q, k, scale, causal: (np.swapaxes(apply(SOFTMAX_PULL, g, w), -1, -2) @ q) * scale,
    ),
)


@custom_vjp
def _attention(q: Any, k: Any, v: Any, scale: float, causal: bool) -> tuple[Any, Callable]:
    w = apply(WEIGHTS, q, k, scale=scale, causal=causal)

    def pull(g: Any) -> tuple:
        s = apply(SOFTMAX_PULL, g @ np.swapaxes(v, -1, -2), w)
        return ((s @ k) * scale, (np.swapaxes(s, -1, -2) @ q) * scale, np.swapaxes(w, -1, -2) @ g, None, None)

    return w @ v, pull


def softmax(x: Any) -> Any:
    """exp(x) / sum(exp(x)) along the last axis, shifted by the maximum, so that it does not
    overflow.
    """
    return apply(SOFTMAX, x)


# layer norm ---------------------------------------------------------------------------------------
def _centred(x: Any) -> Any:
    return x - np.mean(x, axis=-1, keepdims=True)


def _rate(x: Any, eps: float) -> Any:
    """r = (variance + eps)^(-1/2), (..., 1)."""
    c = _centred(x)
    r = np.einsum("...i,...i->...", c, c)[..., None]
    r /= x.shape[-1]
    r += eps
    return 1.0 / np.sqrt(r)


def _normalise(x: Any, eps: float) -> Any:
    y = _centred(x)
    r = np.einsum("...i,...i->...", y, y)[..., None]
    r /= x.shape[-1]
    r += eps
    y /= np.sqrt(r)
    return y


def _normalise_pull(g: Any, y: Any, r: Any) -> Any:
    """r (g - mean(g) - y mean(g y)): the (symmetric) Jacobian times g."""
    a = y * (np.einsum("...i,...i->...", g, y)[..., None] / -g.shape[-1])
    a += g
    a -= np.mean(g, axis=-1, keepdims=True)
    a *= r
    return a


def _mean(x: Any) -> Any:
    return np.mean(x, axis=-1, keepdims=True)


NORMALISE_PULL: Op = Op(
    "normalise_pull",
    _normalise_pull,
    (
        lambda h, a, g, y, r: apply(NORMALISE_PULL, h, y, r),
        lambda h, a, g, y, r: -r * (h * _mean(g * y) + g * _mean(h * y)),
        lambda h, a, g, y, r: _inner(h, g - _mean(g) - y * _mean(g * y)),
    ),
)
RATE = Op("rate", _rate, (lambda g, r, x, eps: -g * r * r * r * (x - _mean(x)) / x.shape[-1],))
NORMALISE = Op("normalise", _normalise, (lambda g, y, x, eps: apply(NORMALISE_PULL, g, y, apply(RATE, x, eps=eps)),))


@custom_vjp
def _layer_norm(x: Any, scale: Any, shift: Any, eps: float) -> tuple[Any, Callable]:
    y = apply(NORMALISE, x, eps=eps)

    def pull(g: Any) -> tuple:
        a_x = apply(NORMALISE_PULL, g * scale, y, apply(RATE, x, eps=eps))
        return a_x, np.sum(_rows(g * y), axis=0), np.sum(_rows(g), axis=0), None

    return y * scale + shift, pull


def layer_norm(x: Any, scale: Any = None, shift: Any = None, eps: float = 1e-5) -> Any:
    """(x - mean) / sqrt(variance + eps) over the last axis, then * scale + shift, (d,), if
    given.
    """
    if scale is not None and shift is not None and np.ndim(scale) == np.ndim(shift) == 1:
        return _layer_norm(x, scale, shift, eps)
    y = apply(NORMALISE, x, eps=eps)
    y = y if scale is None else y * scale
    return y if shift is None else y + shift


# gelu ---------------------------------------------------------------------------------------------
C = math.sqrt(2 / math.pi)
A = C * 0.044715


def _tanh(x: Any) -> Any:
    """tanh(C x + A x^3)."""
    t = x * x
    t *= A
    t += C
    t *= x
    np.tanh(t, out=t)
    return t


def _gelu(x: Any) -> Any:
    t = _tanh(x)
    t += 1.0
    t *= x
    t *= 0.5
    return t


def _gelu_pull(g: Any, x: Any) -> Any:
    """g ((1 + t) / 2 + x (1 - t^2) u' / 2),    t = tanh(u),  u' = C + 3 A x^2."""
    out = np.empty_like(x)
    rows, gs, outs = (a.reshape(-1, a.shape[-1]) if a.ndim else a.reshape(1, 1) for a in (x, g, out))
    for i in _blocks(rows):
        x, a = rows[i], outs[i]
        q = x * x
        t = q * A
        t += C
        t *= x
        np.tanh(t, out=t)
        q *= 3 * A
        q += C
        q *= x
        np.multiply(t, t, out=a)
        np.subtract(1.0, a, out=a)
        a *= q
        a += t
        a += 1.0
        a *= gs[i]
        a *= 0.5
    return out


def _gelu_bend(x: Any) -> Any:
    """(1 - t^2) (u' - x t u'^2 + x u'' / 2): the derivative of the slope, in NumPy's calls."""
    t, slope = np.tanh(x * (C + A * x * x)), C + 3 * A * x * x
    return (1.0 - t * t) * (slope - x * t * slope * slope + 3 * A * x * x)


GELU_PULL: Op = Op("gelu_tanh_pull", _gelu_pull, (lambda h, a, g, x: apply(GELU_PULL, h, x), lambda h, a, g, x: h * g * _gelu_bend(x)))
GELU = Op("gelu_tanh", _gelu, (lambda g, y, x: apply(GELU_PULL, g, x),))


def gelu_tanh(x: Any) -> Any:
    """x (1 + tanh(sqrt(2 / pi) (x + .044715 x^3))) / 2, the gelu of GPT-2."""
    return apply(GELU, x)


# cross entropy ------------------------------------------------------------------------------------
def _hot(x: Any, labels: Any) -> Any:
    """(..., classes): whether it is the label."""
    return np.reshape(labels, (*labels.shape, 1)) == beside(x)(np.arange(x.shape[-1]))


def _cross_entropy(x: Any, labels: Any) -> Any:
    top = np.max(x, axis=-1, keepdims=True)
    of_all = np.log(np.sum(np.exp(x - top), axis=-1)) + top[..., 0]
    return np.mean(of_all - np.sum(np.where(_hot(x, labels), x, 0.0), axis=-1))


def _cross_entropy_pull(g: Any, y: Any, x: Any, labels: Any) -> Any:
    """(softmax - one at the label) g / rows."""
    hot = _hot(value_of(x), labels).astype(x.dtype)
    return (apply(SOFTMAX, x) - hot) * (g / labels.size)


CROSS_ENTROPY = Op("cross_entropy", _cross_entropy, (_cross_entropy_pull, lambda g, y, x, labels: None))


def cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean of -log softmax(logits)[label].

    Parameters
    ----------
    logits : (..., classes) float array or tensor.
    labels : (...) integers in 0 .. classes - 1.

    Returns one number, in nats.
    Raises TypeError for labels that are not integers, ValueError for shapes or labels that do not fit.

    Cost: two passes over the logits, forward and back.
    Source: Goodfellow, Bengio & Courville 2016, section 5.5.

    Example
    -------
    >>> float(np.round(cross_entropy(np.zeros((2, 4)), np.array([0, 3])), 6))
    1.386294
    """
    classes = logits.shape[-1]
    if getattr(getattr(labels, "dtype", None), "kind", "") not in ("i", "u"):
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"cross_entropy: labels of {labels.dtype}; a label is the integer number of a class")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"cross_entropy: labels of shape {labels.shape} for logits of shape {logits.shape}; there is one label for "
                         f"each row of logits, so shape {logits.shape[:-1]}")
    low, high = (number(labels.min()), number(labels.max())) if labels.size else (0, 0)
    if not 0 <= low <= high < classes:
        raise ValueError(
            f"cross_entropy: labels from {low:.0f} to {high:.0f} for {classes} classes; labels run from 0 to {classes - 1}"
        )
    labels = beside(logits)(labels) if isinstance(labels, np.ndarray) else labels
    return apply(CROSS_ENTROPY, logits, labels)


# embedding ----------------------------------------------------------------------------------------
def _gathered(g: Any, tokens: Any, rows: int) -> Any:
    """The sum of g (..., d) over the places of each token, (rows, d)."""
    flat, g = tokens.reshape(-1), g.reshape(-1, g.shape[-1])
    out = np.zeros_like(g, shape=(rows, g.shape[-1]))
    if not isinstance(out, np.ndarray):
        out.scatter_add(flat, g)
        return out
    order = np.argsort(flat, kind="stable")
    found, starts = np.unique(flat[order], return_index=True)
    out[found] = np.add.reduceat(g[order], starts) if len(found) else 0.0
    return out


GATHER: Op = Op("gather", _gathered, (lambda h, a, g, tokens, rows: apply(EMBED, h, tokens), lambda h, a, g, tokens, rows: None))
EMBED: Op = Op(
    "embed",
    lambda table, tokens: table[tokens],
    (lambda g, y, table, tokens: apply(GATHER, g, tokens, rows=table.shape[0]), lambda g, y, table, tokens: None),
)


def embedding(table: Any, tokens: Any) -> Any:
    """Row tokens[...] of a table at each place. A row that is named twice gets both cotangents.

    Parameters
    ----------
    table : (rows, d) float array or tensor.
    tokens : (...) integers in 0 .. rows - 1.

    Returns (..., d). Raises TypeError for tokens that are not integers, IndexError for rows that are not there.

    Cost: one copy of the rows; back, one sum into the table.

    Example
    -------
    >>> embedding(np.eye(3), [2, 0]).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    tokens = tokens if hasattr(tokens, "dtype") else np.asarray(tokens)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"embedding: tokens of {tokens.dtype}; a token is the integer number of a row")
    low, high = (number(tokens.min()), number(tokens.max())) if tokens.size else (0, 0)
    if not 0 <= low <= high < table.shape[0]:
        raise IndexError(f"embedding: tokens from {low:.0f} to {high:.0f} for a table of {table.shape[0]} rows")
    return apply(EMBED, table, tokens)


# attention, and a block ---------------------------------------------------------------------------
def attention(q: Any, k: Any, v: Any, causal: bool = True) -> Any:
    """softmax(q k^T / sqrt(e)) v: what each place takes from the places that it looks at.

    Parameters
    ----------
    q : (..., T, e) float array or tensor.
    k : (..., S, e).
    v : (..., S, e').
    causal : whether no place sees a later one (needs T <= S).

    Returns (..., T, e'). Raises ValueError where the shapes do not go together.

    Cost: two products with matrices; the weights, (..., T, S), are held on a tape.
    Source: Vaswani et al. 2017, equation 1.

    Example
    -------
    >>> attention(np.zeros((2, 1)), np.zeros((2, 1)), np.array([[2.0], [4.0]])).tolist()
    [[2.0], [3.0]]
    """
    shapes = [np.shape(value_of(part)) for part in (q, k, v)]
    if min(map(len, shapes)) < 2 or shapes[0][-1] != shapes[1][-1] or shapes[1][-2] != shapes[2][-2]:
        raise ValueError(f"attention: q, k, v have the shapes {shapes}; they are (..., T, e), (..., S, e) and (..., S, e')")
    if causal and shapes[0][-2] > shapes[1][-2]:
        raise ValueError(f"attention: causal with {shapes[0][-2]} queries for {shapes[1][-2]} keys; the first ones would see nothing")
    return _attention(q, k, v, np.asarray(1 / math.sqrt(shapes[0][-1]), q.dtype), bool(causal))


def _linear(x: Any, W: Any, *b: Any) -> Any:
    y = x.reshape(-1, x.shape[-1]) @ W
    if b:
        y += b[0]
    return y.reshape(*x.shape[:-1], W.shape[-1])


LINEAR: Op = Op(
    "linear",
    _linear,
    (
        lambda g, y, x, W, *b: apply(LINEAR, g, np.transpose(W)),
        lambda g, y, x, W, *b: np.transpose(_rows(x)) @ _rows(g),
        lambda g, y, x, W, b: np.sum(_rows(g), axis=0),
    ),
)


def _rows(x: Any) -> Any:
    return np.reshape(x, (-1, x.shape[-1]))


def linear(x: Any, W: Any, b: Any = None) -> Any:
    """x W + b, as one product of two matrices, forward and back.

    Parameters
    ----------
    x : (..., in) float array or tensor.
    W : (in, out).
    b : (out,); None for zero.

    Returns (..., out). Raises what NumPy raises for shapes that do not fit.

    Cost: 2 in out multiplications and additions for each row of x; twice that back.

    Example
    -------
    >>> linear(np.ones((1, 2)), np.eye(2), np.array([0.0, 1.0])).tolist()
    [[1.0, 2.0]]
    """
    return apply(LINEAR, x, W) if b is None else apply(LINEAR, x, W, b)


def block_init(rng: np.random.Generator, d: int, hidden: int | None = None, dtype: Any = np.float32) -> dict:
    """Parameters of `block` and `bare_block`: weights N(0, 1 / fan in), biases 0, scales 1.

    Parameters
    ----------
    rng : np.random.default_rng(seed).
    d : features.
    hidden : of the layer between, by default 4 d.
    dtype : of all arrays.

    Returns a dict of arrays. Raises what the generator raises.

    Cost: 4 d^2 + 2 d hidden random numbers.

    Example
    -------
    >>> block_init(np.random.default_rng(0), 8)["W1"].shape
    (8, 32)
    """
    hidden = 4 * d if hidden is None else hidden

    def matrix(n: int, m: int) -> np.ndarray:
        return (rng.standard_normal((n, m)) / math.sqrt(n)).astype(dtype)

    zeros, ones = np.zeros(d, dtype), np.ones(d, dtype)
    return {
        **{name: matrix(d, d) for name in ("q", "k", "v", "o")},
        "W1": matrix(d, hidden),
        "b1": np.zeros(hidden, dtype),
        "W2": matrix(hidden, d),
        "b2": zeros.copy(),
        "scale1": ones,
        "shift1": zeros,
        "scale2": ones.copy(),
        "shift2": zeros.copy(),
    }


def self_attention(params: dict, x: Any, heads: int) -> Any:
    """Causal attention of x (B, T, d) to itself, in `heads` parts of its features."""
    B, T, d = x.shape
    if d % heads:
        raise ValueError(f"self_attention: {d} features in {heads} heads; the number of heads divides that of features")

    def split(W: Any) -> Any:  # (B, heads, T, d / heads)
        return np.transpose(np.reshape(linear(x, W), (B, T, heads, d // heads)), (0, 2, 1, 3))

    taken = attention(*(split(params[name]) for name in ("q", "k", "v")))
    return linear(np.reshape(np.transpose(taken, (0, 2, 1, 3)), (B, T, d)), params["o"])


def between(params: dict, x: Any) -> Any:
    """The two-layer network at each place."""
    return linear(gelu_tanh(linear(x, params["W1"], params["b1"])), params["W2"], params["b2"])


def block(params: dict, x: Any, heads: int) -> Any:
    """One transformer layer with residuals and normalised outputs.

        u = LN(x + SA(x));      out = LN(u + MLP(u))

    Parameters
    ----------
    params : as block_init makes them.
    x : (B, T, d) float array or tensor.
    heads : a divisor of d.

    Returns (B, T, d). Raises ValueError for a number of heads that does not divide d.

    Cost: 2 (4 d^2 + 2 d hidden + 2 T d) multiplications and additions a token.
    Source: Vaswani et al. 2017, section 3.1 (post-norm).

    Example
    -------
    >>> block(block_init(np.random.default_rng(0), 8), np.ones((1, 3, 8), np.float32), heads=2).shape
    (1, 3, 8)
    """
    u = layer_norm(x + self_attention(params, x, heads), params["scale1"], params["shift1"])
    return layer_norm(u + between(params, u), params["scale2"], params["shift2"])


def bare_block(params: dict, x: Any, heads: int) -> Any:
    """`block` without residuals, LN(MLP(LN(SA(x)))): the cell of the published RevDEQ language model.

    Parameters
    ----------
    params : as block_init makes them.
    x : (B, T, d) float array or tensor.
    heads : a divisor of d.

    Returns (B, T, d). Raises ValueError for a number of heads that does not divide d.

    Cost: as block.
    Source: McCallum, Arora & Foster 2025 (arXiv 2509.12917), section 5.

    Example
    -------
    >>> bare_block(block_init(np.random.default_rng(0), 8), np.ones((1, 3, 8), np.float32), heads=2).shape
    (1, 3, 8)
    """
    u = layer_norm(self_attention(params, x, heads), params["scale1"], params["shift1"])
    return layer_norm(between(params, u), params["scale2"], params["shift2"])


# forward mode: how each row changes (engine/tangents.py) ----------------------------------------------------------------
@tangent("softmax")
def _softmax_moves(vs: Any, y: Any, x: Any) -> Any:
    return y * (vs[0] - np.sum(y * vs[0], axis=-1, keepdims=True))


@tangent("attention_weights")
def _weights_move(vs: Any, w: Any, q: Any, k: Any, scale: float, causal: bool) -> Any:
    scores = scale * (vs[0] @ np.swapaxes(k, -1, -2) + q @ np.swapaxes(vs[1], -1, -2))
    return _softmax_moves([scores], w, None)


@tangent("rate")
def _rate_moves(vs: Any, r: Any, x: Any, eps: float) -> Any:
    return -(r**3) * _mean(_centred(x) * vs[0])


@tangent("normalise")
def _normalise_moves(vs: Any, y: Any, x: Any, eps: float) -> Any:
    c, r = _centred(x), _rate(x, eps)
    return r * _centred(vs[0]) + c * _rate_moves(vs, r, x, eps)


@tangent("gelu_tanh")
def _gelu_moves(vs: Any, y: Any, x: Any) -> Any:
    t = np.tanh(C * x * (1 + 0.044715 * x * x))
    return vs[0] * 0.5 * (1 + t + x * (1 - t * t) * C * (1 + 3 * 0.044715 * x * x))


@tangent("cross_entropy")
def _cross_entropy_moves(vs: Any, y: Any, x: Any, labels: Any) -> Any:
    of_all = np.sum(_softmax_of(x.copy()) * vs[0], axis=-1)
    return np.mean(of_all - np.sum(np.where(_hot(x, labels), vs[0], 0.0), axis=-1))


@tangent("embed")
def _embed_moves(vs: Any, y: Any, table: Any, tokens: Any) -> Any:
    return vs[0][tokens]


@tangent("linear")
def _linear_moves(vs: Any, y: Any, x: Any, W: Any, *b: Any) -> Any:
    return vs[0] @ W + x @ vs[1] + (vs[2] if b else 0.0)

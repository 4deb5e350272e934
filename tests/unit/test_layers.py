"""Layers against literal loops, HIPS autograd and complex steps; derivatives of second order
against differences.
"""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad as hips_grad

import revode as rv
from reference.oracles.gradients import complex_step_gradient
from revode import layers, nn

EPS = 2.0**-52


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def apart(a: Any, b: Any) -> float:
    leaves = [rv.tree.flatten(t)[0] for t in (a, b)]
    return max(
        float(abs(x - y).max() / max(1.0, abs(y).max())) for x, y in zip(*leaves, strict=True)
    )


# literal loops, for real and complex numbers ------------------------------------------------------
def literal_softmax(row: Any) -> list:
    e = [np.exp(v) for v in row]
    return [v / sum(e) for v in e]


def literal_attention(q: Any, k: Any, v: Any, causal: bool) -> Any:
    """One head: q (T, e), k (S, e), v (S, e')."""
    T, S = len(q), len(k)
    out = []
    for t in range(T):
        seen = range(S - T + t + 1) if causal else range(S)
        w = literal_softmax([sum(q[t] * k[s]) / math.sqrt(len(q[t])) for s in seen])
        out.append(sum(w[s] * v[s] for s in seen))
    return np.array(out)


def literal_layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        mean = sum(row) / len(row)
        variance = sum((v - mean) ** 2 for v in row) / len(row)
        rows.append([(v - mean) / np.sqrt(variance + 1e-5) for v in row])
    return np.array(rows).reshape(x.shape) * scale + shift


def literal_gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def literal_cross_entropy(x: Any, labels: Any) -> Any:
    rows = x.reshape(-1, x.shape[-1])
    return -sum(
        np.log(literal_softmax(row)[i]) for row, i in zip(rows, labels.ravel(), strict=True)
    ) / len(rows)


LABELS = np.array([[1, 0, 3], [2, 2, 1]])
TOKENS = np.array([[1, 1, 0], [4, 1, 3]])
ROWS: dict[str, tuple] = {  # ours, literal, arguments
    "softmax": (
        layers.softmax,
        lambda x: np.array([literal_softmax(r) for r in x]),
        (drawn(3, 4),),
    ),
    "attention": (
        lambda q, k, v: layers.attention(q, k, v),
        lambda *a: literal_attention(*a, True),
        (drawn(4, 3), drawn(4, 3, seed=1), drawn(4, 2)),
    ),
    "attention-cross": (
        lambda q, k, v: layers.attention(q, k, v, causal=False),
        lambda *a: literal_attention(*a, False),
        (drawn(2, 3), drawn(5, 3), drawn(5, 2)),
    ),
    "attention-later": (
        layers.attention,
        lambda *a: literal_attention(*a, True),
        (drawn(2, 3), drawn(5, 3), drawn(5, 2)),
    ),
    "layer_norm": (
        layers.layer_norm,
        literal_layer_norm,
        (drawn(2, 3, 5), drawn(5), drawn(5, seed=1)),
    ),
    "gelu_tanh": (layers.gelu_tanh, literal_gelu, (3 * drawn(7, 2),)),
    "cross_entropy": (
        lambda x: layers.cross_entropy(x, LABELS),
        lambda x: literal_cross_entropy(x, LABELS),
        (drawn(2, 3, 4),),
    ),
    "embedding": (
        lambda table: layers.embedding(table, TOKENS),
        lambda table: np.array([[table[i] for i in r] for r in TOKENS]),
        (drawn(5, 3),),
    ),
    "linear": (
        layers.linear,
        lambda x, W, b: np.array(
            [[sum(x[i, j] * W[:, m]) + b[m] for m in range(2)] for i in range(3) for j in range(4)]
        ).reshape(3, 4, 2),
        (drawn(3, 4, 5), drawn(5, 2), drawn(2)),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_values_and_gradients_are_those_of_the_literal_loop(name: str) -> None:
    """A few sums of up to 12 terms: 100 roundings are more than enough, and a wrong term is off by
    1e-2.
    """
    ours, literal, args = ROWS[name]
    assert apart(ours(*args), literal(*args)) < 100 * EPS
    weights = drawn(*np.shape(ours(*args)), seed=9)
    found = rv.grad(lambda *a: np.sum(weights * ours(*a)), tuple(range(len(args))))(*args)
    truth = complex_step_gradient(lambda a: np.sum(weights * literal(*a)), args)
    assert apart(found, truth) < 200 * EPS


@pytest.mark.parametrize("name", ROWS)
def test_second_derivatives(name: str) -> None:
    ours, _, args = ROWS[name]
    rv.check_vjp(lambda *a: np.sum(np.sin(ours(*a))), *args, order=2)


def test_pullbacks_work_in_blocks_of_rows() -> None:
    """More entries than one block takes, and rows that do not divide it."""
    x, g = drawn(700, 33), drawn(700, 33, seed=1)
    assert x.size > layers.ROWS
    found = rv.vjp(layers.gelu_tanh, x)[1](g)[0]
    one = np.array([rv.vjp(layers.gelu_tanh, row)[1](a)[0] for row, a in zip(x, g, strict=True)])
    assert np.array_equal(found, one)
    y, pull = rv.vjp(layers.softmax, x)
    assert apart(pull(g)[0], y * (g - (g * y).sum(-1, keepdims=True))) < 50 * EPS


def test_the_rows_are_the_functions_of_nn() -> None:
    """The same functions in NumPy's calls, which print in C: values and gradients agree to
    rounding.
    """
    x = drawn(6, 8)
    for row, composed in (
        (layers.softmax, nn.softmax),
        (layers.gelu_tanh, nn.gelu_tanh),
        (layers.layer_norm, nn.layer_norm),
    ):
        (a, pull), (b, other) = rv.vjp(row, x), rv.vjp(composed, x)
        assert apart(a, b) < 20 * EPS
        assert apart(pull(x[::-1].copy()), other(x[::-1].copy())) < 100 * EPS


def test_a_block_against_autograd() -> None:
    """HIPS autograd through the same equations in its own NumPy: every parameter, and x."""
    d, H, T, B = 8, 2, 5, 3
    p = rv.tree.map(lambda a: a.astype(float), layers.block_init(np.random.default_rng(0), d))
    p = {
        name: a + 0.1 * drawn(*a.shape) for name, a in p.items()
    }  # no zeros and ones that hide a factor
    x, w = drawn(B, T, d), drawn(B, T, d, seed=1)
    mask = np.where(np.tril(np.ones((T, T))), 0.0, -1e30)

    def norm(x: Any, scale: Any, shift: Any) -> Any:
        c = x - anp.mean(x, -1, keepdims=True)
        return c / anp.sqrt(anp.mean(c * c, -1, keepdims=True) + 1e-5) * scale + shift

    def attention(p: Any, x: Any) -> Any:
        heads = []
        for h in range(H):
            at = slice(h * d // H, (h + 1) * d // H)
            q, k, v = (anp.matmul(x, p[name][:, at]) for name in "qkv")
            s = anp.matmul(q, anp.swapaxes(k, 1, 2)) / math.sqrt(d // H) + mask
            e = anp.exp(s)
            heads.append(anp.matmul(e / anp.sum(e, -1, keepdims=True), v))
        return anp.matmul(anp.concatenate(heads, -1), p["o"])

    def between(p: Any, u: Any) -> Any:
        h = anp.matmul(u, p["W1"]) + p["b1"]
        h = 0.5 * h * (1 + anp.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return anp.matmul(h, p["W2"]) + p["b2"]

    def residual(p: Any, x: Any) -> Any:
        u = norm(x + attention(p, x), p["scale1"], p["shift1"])
        return norm(u + between(p, u), p["scale2"], p["shift2"])

    def bare(p: Any, x: Any) -> Any:
        return norm(
            between(p, norm(attention(p, x), p["scale1"], p["shift1"])), p["scale2"], p["shift2"]
        )

    for ours, theirs in ((layers.block, residual), (layers.bare_block, bare)):
        found = rv.grad(lambda p, x: np.sum(w * ours(p, x, H)), (0, 1))(p, x)
        truth = (
            hips_grad(lambda p: anp.sum(w * theirs(p, x)))(p),
            hips_grad(lambda x: anp.sum(w * theirs(p, x)))(x),
        )
        assert apart(found, truth) < 1000 * EPS  # sums of up to 200 terms, some five deep


def test_no_place_sees_a_later_one() -> None:
    p, x = layers.block_init(np.random.default_rng(0), 8, dtype=np.float64), drawn(1, 6, 8)
    moved = x.copy()
    moved[0, 4] += 1.0
    a, b = layers.block(p, x, 2), layers.block(p, moved, 2)
    assert np.array_equal(a[0, :4], b[0, :4]) and not np.array_equal(a[0, 4], b[0, 4])


def test_large_scores_do_not_overflow_and_float32_stays() -> None:
    assert np.array_equal(layers.softmax(np.array([1e4, 0.0, -1e4])), [1.0, 0.0, 0.0])
    assert layers.cross_entropy(np.array([[1e4, 0.0]]), np.array([1])) == 1e4
    p = layers.block_init(np.random.default_rng(0), 8)
    x = drawn(2, 3, 8).astype(np.float32)
    value, grads = rv.value_and_grad(lambda p: np.sum(layers.block(p, x, 2)))(p)
    assert {a.dtype for a in [value, *rv.tree.flatten(grads)[0]]} == {np.dtype(np.float32)}


def test_initialisation_keeps_the_size() -> None:
    """Each of 64 rows is a sum of 256 terms of variance 1 / 256: the standard deviation is 1 within
    3 %.
    """
    p = layers.block_init(np.random.default_rng(0), 256, hidden=64)
    assert p["W1"].shape == (256, 64) and p["W2"].shape == (64, 256) and p["b1"].shape == (64,)
    assert np.std(drawn(64, 256) @ p["q"]) == pytest.approx(1.0, rel=0.03)


BAD = {
    "heads": (
        lambda: layers.block(layers.block_init(np.random.default_rng(0), 6), drawn(1, 2, 6), 4),
        ValueError,
        "6 features in 4 heads",
    ),
    "attention": (
        lambda: layers.attention(drawn(3, 2), drawn(3, 4), drawn(3, 2)),
        ValueError,
        r"\(\.\.\., T, e\)",
    ),
    "causal": (
        lambda: layers.attention(drawn(3, 2), drawn(2, 2), drawn(2, 2)),
        ValueError,
        "3 queries for 2 keys",
    ),
    "tokens": (
        lambda: layers.embedding(drawn(3, 2), np.array([0.5])),
        TypeError,
        "tokens of float64",
    ),
    "rows": (
        lambda: layers.embedding(drawn(3, 2), np.array([3])),
        IndexError,
        "from 3 to 3 for a table of 3 rows",
    ),
    "negative": (
        lambda: layers.embedding(drawn(3, 2), np.array([-1])),
        IndexError,
        "from -1 to -1",
    ),
    "labels": (
        lambda: layers.cross_entropy(drawn(2, 3), np.array([0, 3])),
        ValueError,
        "labels from 0 to 3 for 3 classes",
    ),
    "label type": (
        lambda: layers.cross_entropy(drawn(2, 3), np.array([0.0, 1.0])),
        TypeError,
        "labels of float64",
    ),
    "label shape": (
        lambda: layers.cross_entropy(drawn(2, 3), np.array([0])),
        ValueError,
        r"labels of shape \(1,\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name: str) -> None:
    call, kind, words = BAD[name]
    with pytest.raises(kind, match=words):
        call()


def test_replay_runs_the_cell() -> None:
    """The programs of RevDEQ on a transformer cell, forward and back, against the tape."""
    p = layers.block_init(np.random.default_rng(0), 8, dtype=np.float64)
    x, z0 = drawn(2, 4, 8), np.zeros((2, 4, 8))

    def loss(p: Any, x: Any, backend: str) -> Any:
        found = rv.fixed_point(
            lambda z, p, x: layers.block(p, z + x, 2),
            z0,
            p,
            x,
            tol=None,
            max_steps=3,
            gradient=rv.Reversible(),
            backend=backend,
        )
        return np.sum(found.z**2 * drawn(2, 4, 8, seed=2)), found

    (a, found), replayed = rv.value_and_grad(loss, (0, 1), has_aux=True)(p, x, "replay")
    (b, _), eager = rv.value_and_grad(loss, (0, 1), has_aux=True)(p, x, "eager")
    assert found.stats.backend == "replay"
    assert (
        abs(a - b) < 1e-12 and apart(replayed, eager) < 1e-11
    )  # the way back multiplies rounding by some 10 an iteration

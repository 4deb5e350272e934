"""Random vector fields: short programs of rows of one table, run by NumPy and, for the complex step, by `Complex`.

    f = .8 tanh(last value) + .1 scale * (y reversed) - .05 y            bounded, so that no solve runs away
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Rows = tuple[tuple, ...]       # ((name of a row, index of an operand, ...), ...); value 0 is y, value k is what row k - 1 made


class Real:
    """NumPy, and the functions whose complex form below is another one."""
    maximum, minimum, absolute, clip, where = np.maximum, np.minimum, np.absolute, np.clip, np.where
    logaddexp, arctan2, hypot, cbrt, exp2, var = np.logaddexp, np.arctan2, np.hypot, np.cbrt, np.exp2, np.var

    @staticmethod
    def largest(x: Any) -> Any: return np.max(x, axis=-1, keepdims=True)

    @staticmethod
    def length(x: Any) -> Any: return np.linalg.norm(x, axis=-1, keepdims=True)


def chosen(a: Any, b: Any, first: Callable) -> Any:
    """a where first(Re a, Re b), else b, and their mean where both are equal (the convention for a tie)."""
    a, b = np.broadcast_arrays(a, b)
    return np.where(a.real == b.real, (a + b) / 2, np.where(first(a.real, b.real), a, b))


class Complex:
    """The same functions continued to complex numbers whose imaginary part is infinitesimal: real parts decide."""
    exp2, where = staticmethod(lambda x: 2 ** x), staticmethod(np.where)
    maximum = staticmethod(lambda a, b: chosen(a, b, np.greater))
    minimum = staticmethod(lambda a, b: chosen(a, b, np.less))
    absolute = staticmethod(lambda a: np.where(a.real >= 0, a, -a))
    clip = staticmethod(lambda a, low, high: np.where(a.real < low, low, np.where(a.real > high, high, a)))
    logaddexp = staticmethod(lambda a, b: np.log(np.exp(a) + np.exp(b)))
    arctan2 = staticmethod(lambda a, b: np.arctan(a / b))            # for b > 0
    hypot = staticmethod(lambda a, b: np.sqrt(a * a + b * b))
    cbrt = staticmethod(lambda a: a ** (1 / 3))
    length = staticmethod(lambda a: np.sqrt(np.sum(a * a, axis=-1, keepdims=True)))

    @staticmethod
    def var(a: Any, axis: int, keepdims: bool) -> Any:
        return np.mean((a - np.mean(a, axis=axis, keepdims=True)) ** 2, axis=axis, keepdims=keepdims)

    @staticmethod
    def largest(a: Any) -> Any:
        at = a.real == np.max(a.real, axis=-1, keepdims=True)
        return np.sum(a * at, axis=-1, keepdims=True) / np.sum(at, axis=-1, keepdims=True)


def contracted(x: Any, W: Any) -> Any:
    return np.einsum(("i", "bi", "abi")[x.ndim - 1] + ",ij->" + ("j", "bj", "abj")[x.ndim - 1], x, W)


def deep(x: Any, p: dict) -> Any:
    A, B, (a, b) = p["net"]["deep"]
    return np.tanh(x @ A + a) @ B + b


# name -> (operands, function(m, t, p, x, ...)); m is Real or Complex
TABLE: dict[str, tuple[int, Callable]] = {
    "tanh": (1, lambda m, t, p, x: np.tanh(x)), "sin": (1, lambda m, t, p, x: np.sin(x)), "cos": (1, lambda m, t, p, x: np.cos(x)),
    "gauss": (1, lambda m, t, p, x: np.exp(-np.square(x))), "lorentz": (1, lambda m, t, p, x: 1 / (1 + x * x)),
    "root": (1, lambda m, t, p, x: np.sqrt(1 + x * x)), "log1p": (1, lambda m, t, p, x: np.log1p(x * x)),
    "softplus": (1, lambda m, t, p, x: m.logaddexp(x, 0 * x)), "arctan": (1, lambda m, t, p, x: np.arctan(x)),
    "abs": (1, lambda m, t, p, x: m.absolute(x)), "clip": (1, lambda m, t, p, x: m.clip(x, -0.7, 0.9)),
    "relu": (1, lambda m, t, p, x: m.maximum(x, 0.1 * x)), "cube": (1, lambda m, t, p, x: np.tanh(x) ** 3),
    "power": (1, lambda m, t, p, x: (1 + x * x) ** 0.35), "cbrt": (1, lambda m, t, p, x: m.cbrt(1 + x * x)),
    "cumsum": (1, lambda m, t, p, x: 0.3 * np.cumsum(x, axis=-1)), "flip": (1, lambda m, t, p, x: x[..., ::-1]),
    "roll": (1, lambda m, t, p, x: np.roll(x, 1, axis=-1)), "centre": (1, lambda m, t, p, x: x - np.mean(x, axis=-1, keepdims=True)),
    "largest": (1, lambda m, t, p, x: x - m.largest(x)), "norm": (1, lambda m, t, p, x: x / (1 + m.length(x + 0.01))),
    "branch": (1, lambda m, t, p, x: np.where(x > 0.1 if m is Real else x.real > 0.1, np.sin(x), 0.3 * x)),
    "sigmoid": (1, lambda m, t, p, x: 1 / (1 + np.exp(-x))), "expm1": (1, lambda m, t, p, x: np.expm1(np.tanh(x))),
    "softmax": (1, lambda m, t, p, x: np.exp(np.tanh(x)) / np.sum(np.exp(np.tanh(x)), axis=-1, keepdims=True)),
    "stack": (1, lambda m, t, p, x: 0.4 * np.stack([x[..., i] * (i + 1.0) for i in range(x.shape[-1])], axis=-1)),
    "cat": (1, lambda m, t, p, x: np.concatenate([x[..., 1:], np.sin(x[..., :1])], axis=-1)),
    "gather": (1, lambda m, t, p, x: x[..., np.arange(x.shape[-1])[::-1]]),
    "repeat": (1, lambda m, t, p, x: x[..., np.zeros(x.shape[-1], int)]), "double": (1, lambda m, t, p, x: x + x),
    "log": (1, lambda m, t, p, x: np.log(2 + np.tanh(x))), "reciprocal": (1, lambda m, t, p, x: np.reciprocal(2 + np.tanh(x))),
    "var": (1, lambda m, t, p, x: x * m.var(x, axis=-1, keepdims=True)), "exp2": (1, lambda m, t, p, x: m.exp2(np.tanh(x))),
    "outer": (1, lambda m, t, p, x: 0.3 * np.sum(x[..., :, None] * np.tanh(x)[..., None, :], axis=-1)),
    "transpose": (1, lambda m, t, p, x: np.swapaxes(np.tanh(np.swapaxes(x, 0, -1)), 0, -1)),
    "reshape": (1, lambda m, t, p, x: np.reshape(np.reshape(np.swapaxes(x, 0, -1), (-1,)), x.shape)),
    "entries": (1, lambda m, t, p, x: np.stack([np.tanh(x[..., i]) ** 2 - 0.3 * x[..., i - 1] for i in range(x.shape[-1])], axis=-1)),
    "first": (1, lambda m, t, p, x: x * (1.5 + np.tanh(x[..., :1])) ** p["float"] / (1 + x[..., 0].sum() ** 2)),
    "add": (2, lambda m, t, p, x, z: x + z), "sub": (2, lambda m, t, p, x, z: x - z), "mul": (2, lambda m, t, p, x, z: np.tanh(x) * z),
    "div": (2, lambda m, t, p, x, z: x / (1 + z * z)), "max": (2, lambda m, t, p, x, z: m.maximum(x, z)),
    "min": (2, lambda m, t, p, x, z: m.minimum(x, z)), "logaddexp": (2, lambda m, t, p, x, z: m.logaddexp(np.tanh(x), np.tanh(z))),
    "arctan2": (2, lambda m, t, p, x, z: m.arctan2(x, 1 + z * z)), "hypot": (2, lambda m, t, p, x, z: m.hypot(x, 1 + z * z)),
    "raised": (2, lambda m, t, p, x, z: (1.5 + np.tanh(x)) ** np.tanh(z)),
    "choose": (2, lambda m, t, p, x, z: np.where(x > z if m is Real else x.real > z.real, 0.5 * x, z)),
    "dense": (1, lambda m, t, p, x: x @ p["net"]["W"]), "layer": (1, lambda m, t, p, x: np.tanh(x @ p["net"]["W"] + p["net"]["b"])),
    "dense T": (1, lambda m, t, p, x: np.matmul(x, p["net"]["W"].T)), "einsum": (1, lambda m, t, p, x: contracted(x, p["net"]["W"])),
    "bias": (1, lambda m, t, p, x: x + p["net"]["b"]), "scale": (1, lambda m, t, p, x: x * p["scale"]),
    "number": (1, lambda m, t, p, x: x * p["s"]), "sin number": (1, lambda m, t, p, x: np.sin(p["s0"] * x)),
    "float": (1, lambda m, t, p, x: p["float"] * x), "whole": (1, lambda m, t, p, x: 0.2 * x * p["k"]),
    "time": (1, lambda m, t, p, x: x * np.sin(1.3 * t) + np.cos(p["s0"] * t)), "plus t": (1, lambda m, t, p, x: x + t),
    "with t": (1, lambda m, t, p, x: np.concatenate([x, np.zeros_like(x[..., :1]) + t], axis=-1) @ p["Wt"]),
    "deep": (1, lambda m, t, p, x: deep(x, p)),
}


def random_rows(rng: np.random.Generator) -> Rows:
    rows: list[tuple] = []
    for k in range(int(rng.integers(1, 8))):
        name = str(rng.choice(list(TABLE)))
        rows.append((name, *(int(i) for i in rng.integers(0, k + 1, TABLE[name][0]))))
    return tuple(rows)


def random_params(rng: np.random.Generator, d: int, dtype: Any) -> dict:
    """A tree with every kind of leaf."""
    def normal(*shape: int) -> Any:
        return (rng.normal(size=shape) / np.sqrt(shape[0] if shape else 1)).astype(dtype)
    net = {"W": normal(d, d), "b": normal(d), "deep": [normal(d, 3), normal(3, d), (normal(3), normal(d))]}
    return {"net": net, "scale": normal(d),
            "s": dtype(rng.normal()), "s0": np.asarray(rng.normal(), dtype), "Wt": normal(d + 1, d), "name": "x", "k": 3, "flag": True,
            "none": None, "float": float(rng.normal()), "unused": normal(2)}


def value(rows: Rows, m: Any, t: Any, y: Any, p: dict) -> Any:
    values = [y]
    for name, *operands in rows:
        values.append(TABLE[name][1](m, t, p, *(values[i] for i in operands)))
    return values[-1]


def field(rows: Rows, m: Any) -> Callable:
    return lambda t, y, p: 0.8 * np.tanh(value(rows, m, t, y, p)) + 0.1 * p["scale"] * y[..., ::-1] - 0.05 * y

"""THE table: what each operation computes, and how a cotangent is pulled back through it.

    y = forward(a, b, ...)          vjp of input a:  (g, y, a, b, ...) -> g * dy/da,   g the cotangent of y

A rule is written with the operations of this table, so rules are differentiable in turn, to any order. It may return
the shape that broadcasting gives: the tape sums a cotangent down to the shape of its input. At kinks the usual
conventions hold: |x|' = 0 at 0, ties in maximum, minimum, max and min share the cotangent equally, x**0 has derivative
0, and the derivative of a**b in b is taken as 0 where a = 0. Norms
(np.linalg.norm, np.hypot, np.sqrt) have no derivative at 0 and give NaN.

np.where(x > 0, np.sqrt(x), 0.) has that NaN too: the branch that is not taken is evaluated, and 0 times infinity is NaN. Choose
twice, so that the root never sees what it cannot take:

    safe = np.where(x > 0, x, 1.)
    y = np.where(x > 0, np.sqrt(safe), 0.)
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .tensor import CONSTANT, NAMED, RULES, STATIC, Each, Op, apply


def swap(x: Any) -> Any:
    """Transpose the last two axes."""
    return x.T if x.ndim == 2 else np.swapaxes(x, -1, -2)


# Matrix products of any batch shape. A vector is a row on the left, a column on the right, and has no batch axes. Of two matrices
# dot has the same bits for half the call.
def _matmul_left(g: Any, y: Any, a: Any, b: Any) -> Any:
    if a.ndim > 1 and b.ndim > 1:
        return g.dot(b.T) if type(g) is type(b) is np.ndarray and g.ndim == b.ndim == 2 else np.matmul(g, swap(b))
    if b.ndim == 1:
        return np.expand_dims(g, -1) * b if a.ndim > 1 else g * b
    return np.matmul(b, np.expand_dims(g, -1))[..., 0] if b.ndim > 2 else np.matmul(b, g)


def _matmul_right(g: Any, y: Any, a: Any, b: Any) -> Any:
    if a.ndim > 1 and b.ndim > 1:
        if b.ndim == 2 and a.ndim > 2:
            return np.matmul(np.reshape(a, (-1, a.shape[-1])).T, np.reshape(g, (-1, g.shape[-1])))
        return a.T.dot(g) if type(g) is type(a) is np.ndarray and g.ndim == a.ndim == 2 else np.matmul(swap(a), g)
    if a.ndim == 1:
        return g * a if b.ndim == 1 else a[:, None] * (g if b.ndim == 2 else g[..., None, :])
    return np.matmul(swap(a), np.expand_dims(g, -1))[..., 0]


def _unreduce(x: Any, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Any:
    """Give a reduced array its summed axes back, as axes of length one."""
    if axis is None or keepdims:
        return np.reshape(x, (1,) * len(shape)) if not keepdims else x
    return np.expand_dims(x, axis)


def _sum(g: Any, y: Any, a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    if isinstance(g, np.generic):
        return np.ndarray(np.shape(a), g.dtype, g, 0, (0,) * np.ndim(a))         # as np.broadcast_to makes it, in a tenth of its time
    return np.broadcast_to(_unreduce(g, np.shape(a), axis, keepdims), np.shape(a))


def _extreme(g: Any, y: Any, a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    shape = np.shape(a)
    chosen = (a == _unreduce(y, shape, axis, keepdims)) * np.ones_like(y, shape=(1,))[0]     # CuPy knows no shape=() here
    return _unreduce(g, shape, axis, keepdims) * chosen / np.sum(chosen, axis=axis, keepdims=True)


def _each_without(a: Any) -> Any:
    """(..., i, j): a[..., j] with 1 in the place of entry i."""
    n = a.shape[-1]
    return np.where(np.eye(n, dtype=bool), 1.0, np.expand_dims(a, -2))


def _prod(g: Any, y: Any, a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Each entry's factor is the product of all others, zeros or not: of those before it and of those after it."""
    shape = np.shape(a)
    axes = tuple(range(len(shape))) if axis is None else axis
    order = (*(i for i in range(len(shape)) if i not in axes), *axes)
    flat = np.reshape(np.transpose(a, order), (*(shape[i] for i in order[:len(shape) - len(axes)]), -1))
    if flat.shape[-1] == 1:
        return np.reshape(g, shape)
    one = np.ones_like(flat[..., :1])
    before = np.cumprod(np.concatenate([one, flat[..., :-1]], -1), axis=-1)
    after = np.flip(np.cumprod(np.concatenate([one, np.flip(flat, -1)[..., :-1]], -1), axis=-1), -1)
    others = np.transpose(np.reshape(before * after, tuple(shape[i] for i in order)), tuple(int(i) for i in np.argsort(order)))
    return _unreduce(g, shape, axis, keepdims) * others


def _cumprod(g: Any, y: Any, a: Any, axis: int) -> Any:
    """sum_j>=i g_j prod_k<=j, k!=i a_k: right where entries are 0 too, at n^2 products."""
    a, g = np.moveaxis(a, axis, -1), np.moveaxis(g, axis, -1)
    products = np.triu(np.cumprod(_each_without(a), axis=-1))
    return np.moveaxis(np.sum(products * np.expand_dims(g, -2), axis=-1), -1, axis)


def _concatenate(i: int, g: Any, y: Any, *parts: Any, axis: int = 0) -> Any:
    before = sum(np.shape(part)[axis] for part in parts[:i])
    return g[(slice(None),) * (axis % y.ndim) + (slice(before, before + np.shape(parts[i])[axis]),)]


def _einsum(i: int, g: Any, y: Any, *operands: Any, inputs: tuple[str, ...], output: str, optimize: Any = False) -> Any:
    """The cotangent of operand i: the same product with g in its place; an index found nowhere else is summed over.

    A letter that the operand has twice stands for its diagonal, to which the cotangent goes back.
    """
    others = [(s, x) for j, (s, x) in enumerate(zip(inputs, operands, strict=True)) if j != i]
    known = set(output).union(*(s for s, _ in others))
    sizes = dict(zip(inputs[i], np.shape(operands[i]), strict=True))
    ones = [(c, np.ones_like(g, shape=(n,))) for c, n in sizes.items() if c not in known]
    factors = [(output, g), *others, *ones]
    found = np.einsum(",".join(s for s, _ in factors) + "->" + "".join(sizes), *(x for _, x in factors))
    if len(sizes) == len(inputs[i]):
        return found
    at = dict(zip(sizes, np.ix_(*map(np.arange, sizes.values())), strict=True))
    return apply(SCATTER, found, index=tuple(at[c] for c in inputs[i]), shape=np.shape(operands[i]))


def _scatter(x: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of this shape, with x added at index; an entry that is named twice is added twice."""
    # CuPy takes shape=() for "not given".
    out: Any = np.zeros_like(x, shape=shape) if shape else np.reshape(np.zeros_like(x, shape=(1,)), ())
    parts = index if type(index) is tuple else (index,)
    if all(i is None or i is Ellipsis or isinstance(i, (int, np.integer, slice)) for i in parts):
        out[index] = x
    elif type(out) is np.ndarray:
        np.add.at(out, index, x)
    else:
        out.scatter_add(index, x)     # CuPy's own name for it
    return out


SCATTER = Op("scatter_add", _scatter, (lambda g, y, x, index, shape: g[index],))

# One row an operation: NumPy's function, how it prints in C, and the rule of each input. g is the cotangent of y.
for row in (
    (np.add,         "{0} + {1}",             lambda g, y, a, b: g, lambda g, y, a, b: g),
    (np.subtract,    "{0} - {1}",             lambda g, y, a, b: g, lambda g, y, a, b: -g),
    (np.multiply,    "{0} * {1}",             lambda g, y, a, b: g * b, lambda g, y, a, b: g * a),
    (np.divide,      "{0} / {1}",             lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b),
    (np.power,       "rv_power({0}, {1})",
                     lambda g, y, a, b: g * b * np.power(a, np.where(b == 0, 1., b - 1.) if np.ndim(b) else b - (b != 0)),
                     lambda g, y, a, b: g * y * (np.log(np.where(a == 0, 1., a)) if hasattr(a, "dtype") else float(np.log(a or 1.)))),
    (np.maximum,     "{0} >= {1} || {0} != {0} ? {0} : {1}", lambda g, y, a, b: np.where(a == b, 0.5 * g, g * (a > b)),
                     lambda g, y, a, b: np.where(a == b, 0.5 * g, g * (b > a))),
    (np.minimum,     "{0} <= {1} || {0} != {0} ? {0} : {1}", lambda g, y, a, b: np.where(a == b, 0.5 * g, g * (a < b)),
                     lambda g, y, a, b: np.where(a == b, 0.5 * g, g * (b < a))),
    (np.logaddexp,   "rv_logaddexp({0}, {1})", lambda g, y, a, b: g * np.exp(a - y), lambda g, y, a, b: g * np.exp(b - y)),
    (np.arctan2,     "rv_arctan2({0}, {1})",  lambda g, y, a, b: g * b / (a * a + b * b),
                     lambda g, y, a, b: -g * a / (a * a + b * b)),
    (np.remainder,   "rv_remainder({0}, {1})", lambda g, y, a, b: g, lambda g, y, a, b: -g * np.floor_divide(a, b)),
    (np.fmod,        None,                    lambda g, y, a, b: g, lambda g, y, a, b: -g * np.trunc(a / b)),
    (np.fmax,        "{0} >= {1} || {1} != {1} ? {0} : {1}", lambda g, y, a, b: np.where(a == b, 0.5 * g, g * ((a > b) + np.isnan(b))),
                     lambda g, y, a, b: np.where(a == b, 0.5 * g, g * ((b > a) + np.isnan(a)))),
    (np.fmin,        "{0} <= {1} || {1} != {1} ? {0} : {1}", lambda g, y, a, b: np.where(a == b, 0.5 * g, g * ((a < b) + np.isnan(b))),
                     lambda g, y, a, b: np.where(a == b, 0.5 * g, g * ((b < a) + np.isnan(a)))),
    (np.copysign,    None,                    lambda g, y, a, b: g * np.sign(a) * np.sign(y), lambda g, y, a, b: g * 0.0),
    (np.logaddexp2,  None,                    lambda g, y, a, b: g * np.exp2(a - y), lambda g, y, a, b: g * np.exp2(b - y)),
    (np.hypot,       "rv_hypot({0}, {1})",    lambda g, y, a, b: g * a / y, lambda g, y, a, b: g * b / y),
    (np.matmul,      None,                    _matmul_left,                        _matmul_right),
    (np.negative,    "-{0}",                  lambda g, y, a: -g),
    (np.absolute,    "rv_abs({0})",           lambda g, y, a: g * np.sign(a)),
    (np.fabs,        "rv_abs({0})",           lambda g, y, a: g * np.sign(a)),
    (np.degrees,     None,                    lambda g, y, a: g * (180 / np.pi)),
    (np.rad2deg,     None,                    lambda g, y, a: g * (180 / np.pi)),
    (np.radians,     None,                    lambda g, y, a: g * (np.pi / 180)),
    (np.deg2rad,     None,                    lambda g, y, a: g * (np.pi / 180)),
    (np.square,      "{0} * {0}",             lambda g, y, a: g * (2.0 * a)),
    (np.sqrt,        "rv_sqrt({0})",          lambda g, y, a: g * 0.5 / y),
    (np.cbrt,        "rv_cbrt({0})",          lambda g, y, a: g / (3.0 * y * y)),
    (np.reciprocal,  "1 / {0}",               lambda g, y, a: -g * y * y),
    (np.exp,         "rv_exp({0})",           lambda g, y, a: g * y),
    (np.exp2,        "rv_exp2({0})",          lambda g, y, a: g * y * float(np.log(2.0))),
    (np.expm1,       "rv_expm1({0})",         lambda g, y, a: g * (y + 1.0)),
    (np.log,         "rv_log({0})",           lambda g, y, a: g / a),
    (np.log2,        "rv_log2({0})",          lambda g, y, a: g / (a * float(np.log(2.0)))),
    (np.log10,       "rv_log10({0})",         lambda g, y, a: g / (a * float(np.log(10.0)))),
    (np.log1p,       "rv_log1p({0})",         lambda g, y, a: g / (a + 1.0)),
    (np.sin,         "rv_sin({0})",           lambda g, y, a: g * np.cos(a)),
    (np.cos,         "rv_cos({0})",           lambda g, y, a: -g * np.sin(a)),
    (np.tan,         "rv_tan({0})",           lambda g, y, a: g * (1.0 + y * y)),
    (np.arcsin,      "rv_arcsin({0})",        lambda g, y, a: g / np.sqrt(1.0 - a * a)),
    (np.arccos,      "rv_arccos({0})",        lambda g, y, a: -g / np.sqrt(1.0 - a * a)),
    (np.arctan,      "rv_arctan({0})",        lambda g, y, a: g / (1.0 + a * a)),
    (np.sinh,        "rv_sinh({0})",          lambda g, y, a: g * np.cosh(a)),
    (np.cosh,        "rv_cosh({0})",          lambda g, y, a: g * np.sinh(a)),
    (np.tanh,        "rv_tanh({0})",          lambda g, y, a: g * (1.0 - y * y)),
    (np.arcsinh,     "rv_arcsinh({0})",       lambda g, y, a: g / np.sqrt(a * a + 1.0)),
    (np.arccosh,     "rv_arccosh({0})",       lambda g, y, a: g / np.sqrt(a * a - 1.0)),
    (np.arctanh,     "rv_arctanh({0})",       lambda g, y, a: g / (1.0 - a * a)),
):
    RULES[row[0]] = NAMED[row[0].__name__] = Op(row[0].__name__, row[0], row[2:], row[1])

# Operations with options (keywords) or a variable number of inputs.
RULES[np.sum] = Op("sum", np.sum, (_sum,))
RULES[np.max] = Op("max", np.max, (_extreme,))
RULES[np.min] = Op("min", np.min, (_extreme,))
RULES[np.prod] = Op("prod", np.prod, (_prod,))
RULES[np.cumprod] = Op("cumprod", np.cumprod, (_cumprod,))
RULES[np.cumsum] = Op("cumsum", np.cumsum, (
    lambda g, y, a, axis: np.flip(np.cumsum(np.flip(g, axis), axis=axis), axis),))
RULES[np.where] = Op("where", np.where, (
    lambda g, y, c, a, b: None, lambda g, y, c, a, b: np.where(c, g, 0.), lambda g, y, c, a, b: np.where(c, 0., g)),
    "{0} != 0 ? {1} : {2}")
RULES[np.concatenate] = Op("concatenate", lambda *parts, axis=0: np.concatenate(parts, axis=axis), Each(_concatenate))
RULES[np.einsum] = Op("einsum", lambda *operands, inputs, output, optimize=False: np.einsum(
    ",".join(inputs) + "->" + output, *operands, optimize=optimize), Each(_einsum))
RULES[np.reshape] = Op("reshape", lambda a, shape: np.reshape(a, shape), (
    lambda g, y, a, shape: np.reshape(g, np.shape(a)),))
RULES[np.transpose] = Op("transpose", lambda a, axes: np.transpose(a, axes), (
    lambda g, y, a, axes: np.transpose(g, None if axes is None else tuple(int(i) for i in np.argsort(axes))),))
RULES[np.broadcast_to] = Op("broadcast_to", lambda a, shape: np.broadcast_to(a, shape), (lambda g, y, a, shape: g,))
RULES[np.flip] = Op("flip", lambda a, axis: np.flip(a, axis), (lambda g, y, a, axis: np.flip(g, axis),))
RULES[np.ndarray.__getitem__] = Op("getitem", lambda a, index: a[index], (
    lambda g, y, a, index: apply(SCATTER, g, index=index, shape=np.shape(a)),))
RULES[np.ndarray.astype] = Op("astype", lambda a, dtype: a.astype(dtype) if hasattr(a, "dtype") else dtype.type(a), (
    lambda g, y, a, dtype: g.astype(getattr(a, "dtype", np.float64)),), "{0}")

# In C, true is 1 and false is 0, as in NumPy's arithmetic.
IN_C: dict[Any, str] = {np.greater: "{0} > {1}", np.greater_equal: "{0} >= {1}", np.less: "{0} < {1}", np.less_equal: "{0} <= {1}",
        np.equal: "{0} == {1}", np.not_equal: "{0} != {1}", np.isnan: "{0} != {0}", np.isfinite: "{0} - {0} == 0",
        np.isinf: "{0} - {0} != 0 && {0} == {0}", np.logical_and: "{0} != 0 && {1} != 0", np.logical_or: "{0} != 0 || {1} != 0",
        np.logical_not: "{0} == 0", np.sign: "{0} > 0 ? 1 : {0} < 0 ? -1 : {0}", np.floor: "rv_floor({0})",
        np.ceil: "-rv_floor(-{0})", np.floor_divide: "rv_floor_divide({0}, {1})"}

# Functions without a gradient; those of shapes and dtypes alone never look at the values.
for function in (
    np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal, np.isfinite, np.isnan, np.isinf,
    np.sign, np.signbit, np.floor, np.ceil, np.rint, np.trunc, np.logical_and, np.logical_or, np.logical_not, np.floor_divide,
    np.argmax, np.argmin, np.argsort, np.round, np.array_equal, np.allclose, np.isclose, np.any, np.all, np.count_nonzero,
    np.nonzero, np.searchsorted, np.isposinf, np.isneginf, np.fix, np.nanargmax, np.nanargmin, np.argpartition, np.flatnonzero,
    np.argwhere, np.logical_xor, np.invert, np.isreal, np.iscomplex, np.digitize, np.lexsort, np.heaviside, np.linalg.matrix_rank,
):
    CONSTANT[function] = Op(function.__name__, function, (), IN_C.get(function))
STATIC.update({np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.result_type, np.can_cast,
               np.iscomplexobj, np.isrealobj})

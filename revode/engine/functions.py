"""NumPy's other functions on tensors, in terms of the operations of the table: reductions, choosing, elementwise ones.

Each has NumPy's signature as far as it is differentiated here; another keyword is a TypeError, as for any function. Values are
NumPy's to the bit: the function does what NumPy's does, operation by operation, or (`numpys`) NumPy's own computes the value
and the composition here gives the derivative alone. Axes are normalised by NumPy, so that what it refuses is refused.
"""
from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import primitives, tree
from .kept import FLOATS
from .tensor import CONSTANT, FUNCTIONS, METHODS, RULES, STATIC, Each, Op, Tape, Tensor, apply, constant, is_float, traced, value_of


class Call(NamedTuple):
    """How a function was called: the arguments taken apart, and at which places the arrays stood."""
    structure: Any
    leaves: list
    places: list

    def of(self, function: Callable, arrays: Any) -> Any:
        """The call of another function on other arrays."""
        full = list(self.leaves)
        for i, x in zip(self.places, arrays, strict=True):
            full[i] = x
        positional, named = tree.unflatten(self.structure, full)
        return function(*positional, **named)


def numpys(function: Callable, listed: bool = True) -> Callable:
    """Decorates a composition: NumPy's function computes the value, the composition, evaluated again, its derivative.

    A program that is written out in loops takes the composition (compiled/rules.py).
    """
    def decorate(composed: Callable) -> Callable:
        allowed = signature(composed)

        def forward(*arrays: Any, call: Call) -> Any:
            return call.of(function, arrays)

        def rule(i: int, g: Any, y: Any, *arrays: Any, call: Call) -> Any:
            tape = Tape()
            x = tape.input(arrays[i])
            result = call.of(composed, [*arrays[:i], x, *arrays[i + 1:]])
            return tape.pull([(result.slot, g)], [x.slot])[0] if type(result) is Tensor and result.tape is tape else None

        def tangent(vs: list, *arrays: Any, call: Call) -> Any:
            from .tangents import push
            tape = Tape()
            moved = [tape.input(x) if is_float(x) else x for x in arrays]
            result = call.of(composed, moved)
            found = push(tape, {x.slot: v for x, v in zip(moved, vs, strict=True) if type(x) is Tensor and x.tape is tape})
            return found.get(result.slot, 0.0) if type(result) is Tensor and result.tape is tape else 0.0

        forward.composed = lambda *arrays, call: call.of(composed, arrays)                            # type: ignore[attr-defined]
        op = Op(f"np.{function.__name__}", forward, Each(rule), None, tangent)

        def call(*args: Any, **kwargs: Any) -> Any:
            allowed.bind(*args, **kwargs)
            leaves, structure = tree.flatten((args, kwargs))
            places = [i for i, x in enumerate(leaves)
                      if hasattr(x, "__array_function__") and not issubclass(type(x), (type, np.generic))]
            plain = [None if i in places else x for i, x in enumerate(leaves)]
            y = apply(op, *(leaves[i] for i in places), call=Call(structure, plain, places))
            dtype = np.dtype(getattr(y, "dtype", float))
            if dtype in FLOATS:
                return y
            if dtype.kind in "biu":                      # whole numbers carry no gradient
                return traced(y)
            raise TypeError(f"np.{function.__name__} would give {dtype}, in which no gradient flows; stay with float64 or float32")

        call.__signature__ = allowed                                                                  # type: ignore[attr-defined]
        if listed:
            FUNCTIONS[function] = call
        return call
    return decorate


def array(x: Any) -> Any:
    """A tensor or an array as it is; lists and numbers as NumPy takes them."""
    return x if hasattr(x, "dtype") else np.asarray(x)


# Reductions ------------------------------------------------------------------------------------------------------------
def axes_of(a: Any, axis: Any) -> tuple[int, ...] | None:
    """An axis or several as non-negative numbers, or None; what a reduction of NumPy refuses is refused."""
    if axis is None:
        return None
    if isinstance(axis, list):
        raise TypeError("'list' object cannot be interpreted as an integer")
    if np.ndim(a) == 0 and axis in (0, -1) and type(axis) is int:          # NumPy lets this pass
        return ()
    return normalize_axis_tuple(axis, np.ndim(a), allow_duplicate=False)


def reduction(function: Callable, neutral: float, join: Callable) -> Callable:
    """The reduction by this function; with dtype=, initial= or where=, which change the bits, as NumPy's own does it."""
    op = RULES[function]

    def reduce(a: Any, axis: Any = None, *, dtype: Any = None, keepdims: bool = False, initial: Any = None,
               where: Any = None) -> Any:
        options = {k: x for k, x in (("dtype", dtype), ("initial", initial), ("where", where)) if x is not None}
        if options:
            return with_options(a, axis, keepdims=keepdims, **options)
        return apply(op, a, axis=axes_of(a, axis), keepdims=bool(keepdims))

    def composed(a: Any, axis: Any = None, *, dtype: Any = None, keepdims: bool = False, initial: Any = None,
                 where: Any = None) -> Any:
        a = a if where is None else np.where(where, a, neutral)
        y = reduce(a if dtype is None else a.astype(dtype), axis, keepdims=keepdims)
        return y if initial is None else join(y, initial)

    with_options = numpys(function)(composed)
    return reduce


sum, prod = reduction(np.sum, 0.0, np.add), reduction(np.prod, 1.0, np.multiply)
max, min = reduction(np.max, -np.inf, np.maximum), reduction(np.min, np.inf, np.minimum)


def count(a: Any, axis: Any) -> int:
    """How many entries are reduced to one."""
    axes = range(np.ndim(a)) if axis is None else normalize_axis_tuple(axis, np.ndim(a))
    return int(np.prod([np.shape(a)[i] for i in axes]))


@numpys(np.mean)
def mean_in(a: Any, axis: Any = None, *, dtype: Any, keepdims: bool = False) -> Any:
    return mean(a.astype(dtype), axis, keepdims=keepdims)


def mean(a: Any, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> Any:
    if dtype is not None and np.dtype(dtype) != a.dtype:
        return mean_in(a, axis, dtype=dtype, keepdims=keepdims)
    n = count(a, axis)
    return sum(a, axis, keepdims=keepdims) / n


def var(a: Any, axis: Any = None, *, ddof: float = 0, correction: float | None = None, keepdims: bool = False) -> Any:
    if correction is not None and ddof:
        raise ValueError("ddof and correction can't be provided simultaneously.")
    n = count(a, axis)
    squares = np.square(a - mean(a, axis, keepdims=True))
    left = n - (ddof if correction is None else correction)
    return sum(squares, axis, keepdims=keepdims) / (left if left > 0 else 0)


def std(a: Any, axis: Any = None, *, ddof: float = 0, correction: float | None = None, keepdims: bool = False) -> Any:
    return np.sqrt(var(a, axis, ddof=ddof, correction=correction, keepdims=keepdims))


def accumulation(function: Callable) -> Callable:
    def accumulate(a: Any, axis: int | None = None) -> Any:
        if axis is None or np.ndim(a) == 0:
            axis = None if axis is None else normalize_axis_index(axis, 1)
            return apply(RULES[function], np.reshape(a, (-1,)), axis=0)
        return apply(RULES[function], a, axis=normalize_axis_index(axis, np.ndim(a)))
    return accumulate


cumsum, cumprod = accumulation(np.cumsum), accumulation(np.cumprod)


def cumulative(function: Callable, accumulate: Callable, first: float) -> Callable:
    """np.cumulative_sum and np.cumulative_prod: the same for arrays of any axes, after a first entry if that is wanted."""
    @numpys(function)
    def call(x: Any, /, *, axis: int | None = None, include_initial: bool = False) -> Any:
        axis = normalize_axis_index(0 if axis is None else axis, x.ndim)
        edge = np.full(tuple(1 if i == axis else n for i, n in enumerate(x.shape)), first, x.dtype)
        y = accumulate(x, axis)
        return np.concatenate([edge, y], axis) if include_initial else y
    return call


cumulative(np.cumulative_sum, cumsum, 0.0)
cumulative(np.cumulative_prod, cumprod, 1.0)


def ptp(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return max(a, axis, keepdims=keepdims) - min(a, axis, keepdims=keepdims)


def without_nan(reduce: Callable, fill: float) -> Callable:
    def ignoring(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        return reduce(np.where(np.isnan(a), fill, a), axis, keepdims=keepdims)
    return ignoring


for function, reduce, fill in ((np.nanmax, max, -np.inf), (np.nanmin, min, np.inf)):
    numpys(function)(without_nan(reduce, fill))


@numpys(np.nanmean)
def nanmean(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    known = np.logical_not(np.isnan(a))
    return sum(np.where(known, a, 0.0), axis, keepdims=keepdims) / sum(known * np.ones_like(a), axis, keepdims=keepdims)


@numpys(np.nanvar)
def nanvar(a: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    known = np.logical_not(np.isnan(a))
    squares = np.where(known, np.square(np.where(known, a, 0.0) - nanmean(a, axis, keepdims=True)), 0.0)
    return sum(squares, axis, keepdims=keepdims) / (sum(known * np.ones_like(a), axis, keepdims=keepdims) - ddof)


@numpys(np.nanstd)
def nanstd(a: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.sqrt(nanvar(a, axis, ddof=ddof, keepdims=keepdims))


@numpys(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    if weights is None:
        return mean(a, axis, keepdims=keepdims)
    a, weights = array(a), array(weights)
    if a.shape != weights.shape:
        axes = normalize_axis_tuple(axis, a.ndim)
        weights = np.transpose(weights, tuple(int(i) for i in np.argsort(axes)))
        weights = np.reshape(weights, tuple(n if i in axes else 1 for i, n in enumerate(a.shape)))
        return sum(a * weights, axis, keepdims=keepdims) / sum(weights, axis, keepdims=keepdims)
    return sum(a * weights, axis, keepdims=keepdims) / sum(weights, axis, keepdims=keepdims)


@numpys(np.median)
def median(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return quantile(a, 0.5, axis, keepdims=keepdims)


def last_axis(a: Any, axis: Any) -> Any:
    """a with these axes as one, the last (None: all of them)."""
    axes = tuple(range(a.ndim)) if axis is None else normalize_axis_tuple(axis, a.ndim)
    rest = tuple(i for i in range(a.ndim) if i not in axes)
    return np.reshape(np.transpose(a, rest + axes), (*(a.shape[i] for i in rest), -1))


@numpys(np.quantile)
def quantile(a: Any, q: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    flat = np.sort(last_axis(a, axis), axis=-1)
    n = flat.shape[-1]
    at = np.asarray(q, float) * (n - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, n - 1)
    weight = (at - low).astype(flat.dtype)
    value = flat[..., low] + weight * (flat[..., high] - flat[..., low])
    value = np.moveaxis(value, tuple(range(flat.ndim - 1, value.ndim)), tuple(range(np.ndim(q)))) if np.ndim(q) else value
    if not keepdims:
        return value
    axes = range(a.ndim) if axis is None else normalize_axis_tuple(axis, a.ndim)
    return np.reshape(value, np.shape(q) + tuple(1 if i in axes else m for i, m in enumerate(a.shape)))


@numpys(np.percentile)
def percentile(a: Any, q: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return quantile(a, np.asarray(q) / 100, axis, keepdims=keepdims)


@numpys(np.nanquantile)
def nanquantile(a: Any, q: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    if np.ndim(q):
        return np.stack([nanquantile(a, each, axis, keepdims=keepdims) for each in q])
    flat = np.sort(last_axis(a, axis), axis=-1)                                   # NaN last
    at = float(q) * np.maximum(np.sum(np.logical_not(np.isnan(value_of(flat))), axis=-1, keepdims=True) - 1, 0)
    low = np.floor(at).astype(int)
    value, above = (np.take_along_axis(flat, i, -1)[..., 0] for i in (low, np.ceil(at).astype(int)))
    value = value + (at - low)[..., 0].astype(flat.dtype) * (above - value)
    axes = range(a.ndim) if axis is None else normalize_axis_tuple(axis, a.ndim)
    return np.reshape(value, tuple(1 if i in axes else m for i, m in enumerate(a.shape))) if keepdims else value


@numpys(np.nanpercentile)
def nanpercentile(a: Any, q: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return nanquantile(a, np.asarray(q) / 100, axis, keepdims=keepdims)


@numpys(np.nanmedian)
def nanmedian(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return nanquantile(a, 0.5, axis, keepdims=keepdims)


@numpys(np.cov)
def cov(m: Any, y: Any = None, rowvar: bool = True, *, ddof: int = 1) -> Any:
    m = np.atleast_2d(m) if rowvar else np.atleast_2d(m).T if np.ndim(m) > 1 else np.atleast_2d(m)
    if y is not None:
        y = np.atleast_2d(y) if rowvar or np.ndim(y) < 2 else y.T
        m = np.concatenate([m, y], 0)
    m = m - mean(m, 1, keepdims=True)
    return np.squeeze(np.matmul(m, m.T) / (m.shape[1] - ddof))


@numpys(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Any:
    c = cov(x, y, rowvar)
    if c.ndim == 0:
        return c / c
    d = np.sqrt(np.diagonal(c))
    return c / d[:, None] / d


def conditions(logical: Callable, a: Any, b: Any) -> Any:
    """a & b and the like, of bools."""
    if any(np.dtype(getattr(x, "dtype", type(x))).kind != "b" for x in (a, b)):
        raise TypeError("&, | and ^ join conditions, which are bools; of numbers they have no derivative")
    return constant(logical, a, b)


# Choosing --------------------------------------------------------------------------------------------------------------
def where(condition: Any, *choices: Any) -> Any:
    if not choices:
        return np.nonzero(condition)
    a, b = choices
    return apply(RULES[np.where], condition, a, b)


def _between(g: Any, y: Any, a: Any, low: Any, high: Any) -> Any:
    return g * np.logical_and(a >= low, a <= high)


LEAST = Op("at_least", lambda a, low: np.maximum(a, low), (
    lambda g, y, a, low: g * (a >= low), lambda g, y, a, low: g * (a < low)), "{0} >= {1} || {0} != {0} ? {0} : {1}")
MOST = Op("at_most", lambda a, high: np.minimum(a, high), (
    lambda g, y, a, high: g * (a <= high), lambda g, y, a, high: g * (a > high)), "{0} <= {1} || {0} != {0} ? {0} : {1}")
CLIP = Op("clip", np.clip, (
    _between,
    lambda g, y, a, low, high: g * np.logical_and(a < low, low <= high),
    lambda g, y, a, low, high: g * (np.maximum(a, low) > high)),
    "{0} != {0} ? {0} : ({0} > {1} ? {0} : {1}) < {2} ? ({0} > {1} ? {0} : {1}) : {2}")


def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = a_min if min is None else min, a_max if max is None else max
    if (a_min is not None and min is not None) or (a_max is not None and max is not None):
        raise ValueError("np.clip: the bounds were given twice, as a_min, a_max and as min, max")
    if low is None or high is None:
        return np.positive(a) if low is high else apply(LEAST, a, low) if high is None else apply(MOST, a, high)
    return apply(CLIP, a, low, high)


@numpys(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    return result


@numpys(np.choose)
def choose(a: Any, choices: Any) -> Any:
    which = array(a)
    return np.select([which == k for k in range(len(choices))], list(choices))


@numpys(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Any) -> Any:
    conditions = [np.asarray(c) for c in condlist]
    if len(funclist) == len(conditions) + 1:
        conditions.append(np.logical_not(np.any(np.stack(conditions), axis=0)))
    total = 0.0 * x
    for condition, piece in zip(conditions, funclist, strict=True):            # each function sees its own entries alone
        inside = piece(x[condition]) if callable(piece) else piece + 0.0 * x[condition]
        total = total + apply(primitives.SCATTER, inside, index=condition, shape=np.shape(x))
    return total


@numpys(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    return np.where(np.isfinite(x), x, 0.0)               # what replaces the others is a constant


@numpys(np.sort)
def sort(a: Any, axis: int | None = -1, *, kind: Any = None) -> Any:
    a, axis = (np.reshape(a, (-1,)), 0) if axis is None else (a, axis)
    return np.take_along_axis(a, constant(np.argsort, a, axis=axis, kind=kind), axis)


# Elementwise -----------------------------------------------------------------------------------------------------------
def _sinc_slope(a: Any) -> Any:
    """d sin(y) / y / da, y = pi a: (y cos y - sin y) / y^2, and near 0, where that cancels, its series."""
    y = np.pi * a
    near = abs(y) < 0.1
    far, square = np.where(near, 1.0, y), np.square(np.where(near, y, 0.0))
    series = np.where(near, y, 0.0) * (-1 / 3 + square * (1 / 30 + square * (-1 / 840 + square / 45360)))
    return np.pi * np.where(near, series, (np.cos(far) - np.sin(far) / far) / far)


def exponent(a: Any) -> Any:
    return np.frexp(a)[1]


LDEXP = Op("ldexp", np.ldexp, (lambda g, y, a, i: np.ldexp(g, i), lambda g, y, a, i: None))
MANTISSA = Op("mantissa", lambda a: np.frexp(a)[0], (lambda g, y, a: np.ldexp(g, -constant(exponent, a)),))
FRACTION = Op("fraction", lambda a: np.modf(a)[0], (lambda g, y, a: g,))
FLOAT_POWER = Op("float_power", np.float_power, RULES[np.power].vjps)
SINC = Op("sinc", np.sinc, (lambda g, y, a: g * _sinc_slope(a),))


def full_like(a: Any, fill_value: Any, *, shape: Any = None) -> Any:
    shape = np.shape(a) if shape is None else shape
    return np.broadcast_to(array(fill_value), shape).astype(a.dtype)


@numpys(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Any:
    x, xp, fp = (array(v) for v in (x, xp, fp))
    x, xp, fp = (v.astype(np.float64) for v in (x, xp, fp))
    n = len(xp)
    j = np.clip(np.searchsorted(xp, x, side="right") - 1, 0, n - 2 if n > 1 else 0)
    j = np.reshape(j, (-1,))

    def at(knots: Any, j: Any) -> Any:
        return np.reshape(np.take_along_axis(knots, j, 0), np.shape(x))

    left_x, left_f = at(xp, j), at(fp, j)
    value = left_f if n == 1 else left_f + (at(fp, j + 1) - left_f) / (at(xp, j + 1) - left_x) * (x - left_x)
    value = np.where(x < xp[0], fp[0] if left is None else left, value)
    return np.where(x > xp[-1], fp[-1] if right is None else right, value)


@numpys(np.linspace)
def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, *, axis: int = 0) -> Any:
    start, stop = array(start), array(stop)
    n = num - 1 if endpoint else num
    s = np.reshape(np.arange(num) / (n or 1), (-1,) + (1,) * np.ndim(start - stop)).astype(np.result_type(start, stop))
    y = start * (1 - s) + stop * s
    return np.moveaxis(y, 0, axis) if axis else y


def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    if n == 0:
        return a
    if n < 0:
        raise ValueError("order must be non-negative but got " + repr(n))
    if np.ndim(a) == 0:
        raise ValueError("diff requires input that is at least one dimensional")
    axis = normalize_axis_index(axis, np.ndim(a))
    parts = [array(x) for x in (prepend, a, append) if x is not None]
    edge = tuple(1 if i == axis else m for i, m in enumerate(np.shape(a)))
    parts = [np.broadcast_to(x, edge) if np.ndim(x) == 0 else x for x in parts]
    a = np.concatenate(parts, axis) if len(parts) > 1 else a
    lead = (slice(None),) * axis
    for _ in range(n):
        a = a[(*lead, slice(1, None))] - a[(*lead, slice(None, -1))]
    return a


@numpys(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    y, d = array(y), dx
    axis = normalize_axis_index(axis, np.ndim(y))
    if x is not None:
        x = array(x)
        d = diff(x) if np.ndim(x) == 1 else diff(x, axis=axis)
        d = np.reshape(d, tuple(-1 if i == axis else 1 for i in range(np.ndim(y)))) if np.ndim(x) == 1 else d
    lead = (slice(None),) * axis
    return sum(d * (y[(*lead, slice(1, None))] + y[(*lead, slice(None, -1))]) / 2.0, axis)


@numpys(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: float = 2 * np.pi) -> Any:
    return p + 0.0                                          # whole periods are added


def parabola(x: Any, y: Any, z: Any, a: Any, b: Any, at: int) -> Any:
    """The slope, at the first, second or third, of the parabola through three points, a and b apart."""
    left, right = (y - x) / a, (z - y) / b
    return left + (right - left) / (a + b) * (-a, a, a + 2 * b)[at]


def numpys_gradient(f: Any, h: Any, axis: int, edge_order: Any) -> Any:
    return np.gradient(f, h, axis=axis, edge_order=edge_order)


@numpys(numpys_gradient, listed=False)
def gradient_along(f: Any, h: Any, axis: int, edge_order: int) -> Any:
    """Along one axis; h: the spacing, or the coordinates."""
    f = np.moveaxis(f, axis, 0)
    d = diff(h) if np.ndim(h) else h * np.ones(len(f) - 1, f.dtype)
    d = np.reshape(d, (-1,) + (1,) * (f.ndim - 1))
    ends = [(f[1:2] - f[:1]) / d[:1], (f[-1:] - f[-2:-1]) / d[-1:]] if edge_order == 1 else [
        parabola(f[:1], f[1:2], f[2:3], d[:1], d[1:2], 0), parabola(f[-3:-2], f[-2:-1], f[-1:], d[-2:-1], d[-1:], 2)]
    inside = parabola(f[:-2], f[1:-1], f[2:], d[:-1], d[1:], 1)
    return np.moveaxis(np.concatenate([ends[0], inside, ends[1]]), 0, axis)


def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    f, spacing = array(f), [h if np.ndim(h) == 0 else array(h) for h in varargs or (1.0,)]
    axes = range(f.ndim) if axis is None else normalize_axis_tuple(axis, f.ndim)
    spacing = spacing * len(axes) if len(spacing) == 1 and np.ndim(spacing[0]) == 0 else spacing
    if len(spacing) != len(axes):
        raise TypeError("invalid number of arguments")
    found = tuple(gradient_along(f, h, i, edge_order) for h, i in zip(spacing, axes, strict=True))
    return found[0] if len(found) == 1 else found


@numpys(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    y = 0 * x
    for coefficient in p:
        y = y * x + coefficient
    return y


@numpys(np.vander)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    powers = range(len(x) if N is None else N)
    return np.stack([x ** k for k in (powers if increasing else reversed(powers))], 1)


@numpys(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    parts = [x for x in (to_begin, diff(np.ravel(ary)), to_end) if x is not None]
    return np.concatenate([np.ravel(array(x)) for x in parts])


@numpys(np.partition)
def partition(a: Any, kth: Any, axis: int = -1) -> Any:
    return np.take_along_axis(a, constant(np.argpartition, a, kth, axis=axis), axis)


@numpys(np.bincount)
def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    places = np.asarray(x)
    n = len(np.bincount(places, minlength=minlength))
    return apply(primitives.SCATTER, weights.astype(np.float64), index=places, shape=(n,))


@numpys(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    a, v = (v, a) if len(v) > len(a) else (a, v)
    n, m = len(a), len(v)
    rows = np.concatenate([np.zeros_like(v, shape=(m - 1,)), a, np.zeros_like(v, shape=(m - 1,))]) if m > 1 else a
    full = np.matmul(rows[np.arange(n + m - 1)[:, None] + np.arange(m)], v[::-1])
    return full if mode == "full" else full[(m - 1) // 2:(m - 1) // 2 + n] if mode == "same" else full[m - 1:n]


@numpys(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    if len(v) > len(a):
        return convolve(v, a[::-1], mode)[::-1]
    return convolve(a, v[::-1], mode)


def with_axes(a: Any) -> Any:
    if np.ndim(a) == 0:
        raise TypeError("cannot accumulate on a scalar")
    return a


def over_first(reduce: Callable) -> Callable:
    """ufunc.reduce, whose axis is 0 if none is given."""
    return lambda array, axis=0, keepdims=False: reduce(array, axis, keepdims=keepdims)


def accumulated(accumulate: Callable) -> Callable:
    return lambda array, axis=0: accumulate(with_axes(array), axis)


LOGADDEXP = Op("logaddexp.reduce", lambda a, axis: np.logaddexp.reduce(a, axis), (
    lambda g, y, a, axis: np.expand_dims(g, axis) * np.exp(a - np.expand_dims(y, axis)),))

METHODS.update({
    (np.logaddexp, "reduce"): lambda array, axis=0: apply(LOGADDEXP, array, axis=normalize_axis_index(axis, np.ndim(array))),
    (np.add, "reduce"): over_first(sum), (np.multiply, "reduce"): over_first(prod), (np.maximum, "reduce"): over_first(max),
    (np.minimum, "reduce"): over_first(min), (np.add, "accumulate"): accumulated(cumsum),
    (np.multiply, "accumulate"): accumulated(cumprod),
})
FUNCTIONS.update({
    np.sum: sum, np.max: max, np.min: min, np.amax: max, np.amin: min, np.prod: prod, np.mean: mean, np.var: var, np.std: std,
    np.cumsum: cumsum, np.cumprod: cumprod, np.ptp: ptp, np.nansum: without_nan(sum, 0.0), np.nanprod: without_nan(prod, 1.0),
    np.where: where, np.clip: clip, np.diff: diff, np.full_like: full_like,
    np.copy: lambda a: a, np.positive: lambda a: a, np.float_power: lambda a, b: apply(FLOAT_POWER, a, b),
    np.sinc: lambda x: apply(SINC, x), np.conjugate: lambda x: x, np.real: lambda val: val, np.real_if_close: lambda a: a,
    np.imag: lambda val: np.zeros_like(value_of(val)), np.ldexp: lambda x1, x2: apply(LDEXP, x1, x2),
    np.modf: lambda x: (apply(FRACTION, x), constant(np.trunc, x)),
    np.divmod: lambda a, b: (constant(np.floor_divide, a, b), np.remainder(a, b)),
    np.nancumsum: lambda a, axis=None: cumsum(np.where(np.isnan(a), 0.0, a), axis),
    np.nancumprod: lambda a, axis=None: cumprod(np.where(np.isnan(a), 1.0, a), axis),
    np.gradient: gradient, np.frexp: lambda x: (apply(MANTISSA, x), constant(exponent, x)),
    np.astype: lambda x, dtype, /: x.astype(dtype),
})
CONSTANT.update({f: Op(f.__name__, f, ()) for f in (np.around, np.array_equiv, np.isin, np.angle)})      # type: ignore[attr-defined]
STATIC.update({np.tril_indices_from, np.triu_indices_from, np.diag_indices_from, np.common_type, np.einsum_path})
for name, logical in (("and", np.logical_and), ("or", np.logical_or), ("xor", np.logical_xor)):       # conditions in a program
    for side in ("__", "__r"):
        setattr(Tensor, f"{side}{name}__", lambda self, other, logical=logical: conditions(logical, self, other))

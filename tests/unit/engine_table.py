"""One or more cases for every row of the engine's table and for every NumPy function it offers, with an oracle.

A case is a plain NumPy function of float arrays. Its derivatives come from the complex step,

    df/dx_i = Im f(x + i eps e_i) / eps,    eps = 1e-30: nothing is subtracted, so the result is right to round-off,

on `formula`, an analytic formula for the same function; by default the function itself, which NumPy evaluates on complex
arrays. (NumPy orders complex numbers by their real parts first, so maximum, max, where and clip pass away from ties.)
Second derivatives are central differences of complex-step gradients. None of this touches the engine.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    name: str
    key: Any                 # the entry of RULES or FUNCTIONS that the case is for
    fn: Callable             # of the arguments, with NumPy's own names
    args: tuple              # float64 arrays
    formula: Callable        # the same function, analytic


CASES: list[Case] = []


def case(key: Any, fn: Callable, *args: Any, formula: Callable | None = None, note: str = "") -> None:
    linalg = "linalg." if "linalg" in str(getattr(key, "__module__", "")) else ""
    name = linalg + getattr(key, "__name__", str(key)) + (f"-{note}" if note else "")
    CASES.append(Case(name, key, fn, tuple(np.asarray(a, dtype=float) for a in args), formula or fn))


def draw(*shape: int, low: float = -1.5, high: float = 1.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).uniform(low, high, shape)


x23, y23, row3, col2 = draw(2, 3), draw(2, 3, seed=1), draw(3, seed=2), draw(2, 1, seed=3)
x234, vec = draw(2, 3, 4), draw(4)
pos23, pos3 = draw(2, 3, low=0.3, high=2.0), draw(3, low=0.3, high=2.0)
unit23, big23 = draw(2, 3, low=-0.9, high=0.9), draw(2, 3, low=1.1, high=3.0)
away3 = np.array([-1.2, 0.7, 2.1])                        # clear of the kinks at 0 and of y23's entries
signs = np.where(draw(2, 3, seed=9) > 0, 1.0, -1.0)

# ------------------------------------------------------------------ two inputs: every pair of shapes that broadcasts
for key in (np.add, np.subtract, np.multiply):
    for a, b, note in ((x23, y23, "same"), (x23, row3, "row"), (col2, row3, "outer"), (0.7, x23, "scalar"),
                       (x23, draw(1, 1, seed=5), "ones"), (-0.3, 0.8, "0d"), (draw(4, 1, 3), x23[:1], "lead")):
        case(key, key, a, b, note=note)
for key in (np.divide, np.arctan2, np.hypot):
    formula = {np.divide: None,
               np.arctan2: lambda a, b: np.arctan(a / b) + np.where(b.real < 0, np.pi * np.sign(a.real), 0.0),
               np.hypot: lambda a, b: np.sqrt(a * a + b * b)}[key]
    for a, b, note in ((x23, pos3, "row"), (col2, pos23, "column"), (0.4, 0.8, "0d"), (x23, -pos23, "negative")):
        case(key, key, a, b, formula=formula, note=note)
case(np.power, np.power, pos23, row3, note="both")
case(np.power, np.power, 1.3, row3, note="0d-base")
case(np.power, np.power, pos23, -0.7, note="0d-exponent")
for exponent in (-2, 0, 1, 2, 3, 0.5, 1.0, 2.0):
    case(np.power, lambda a, n=exponent: a ** n, pos23, note=f"a**{exponent!r}")
case(np.power, lambda a: a ** 3, x23, note="a**3-of-negative")
case(np.power, lambda a: a ** np.array([1.0, 2.0, 3.0], a.dtype), x23, note="a**array")
case(np.power, lambda a, b: a ** b, pos23, y23, note="a**b")
case(np.power, lambda b: 2.0 ** b, x23, note="2**b")
case(np.float_power, lambda a: np.float_power(a, 2.5), pos23)
quotient = np.floor(x23 / pos3)                       # a constant, away from its steps
case(np.remainder, np.remainder, x23, pos3, formula=lambda a, b: a - quotient * b)
case(np.remainder, lambda a, b: a % b + 2.0 % b, x23, pos3, note="%",
     formula=lambda a, b: a - quotient * b + 2.0 - np.floor(2.0 / pos3) * b)
case(np.remainder, lambda a: a % 0.4 + (a // 0.4) ** 2 + 2.5 // a, x23, note="//",
     formula=lambda a: a - np.floor(x23 / 0.4) * 0.4 + np.floor(x23 / 0.4) ** 2 + np.floor(2.5 / x23))
case(np.maximum, np.maximum, x23, y23)
case(np.maximum, np.maximum, x23, 0.0, note="0")
case(np.minimum, np.minimum, x23, y23)
case(np.minimum, np.minimum, row3, x23, note="row")
case(np.logaddexp, np.logaddexp, x23, row3, formula=lambda a, b: np.log(np.exp(a) + np.exp(b)))

# ------------------------------------------------------------------ one input
for key, x in ((np.negative, x23), (np.positive, x23), (np.square, x23), (np.sqrt, pos23), (np.reciprocal, signs * pos23),
               (np.exp, x23), (np.exp2, x23), (np.expm1, x23), (np.log, pos23), (np.log2, pos23), (np.log10, pos23),
               (np.log1p, unit23), (np.sin, x23), (np.cos, x23), (np.tan, unit23), (np.arcsin, unit23),
               (np.arccos, unit23), (np.arctan, x23), (np.sinh, x23), (np.cosh, x23), (np.tanh, x23), (np.arcsinh, x23),
               (np.arccosh, big23), (np.arctanh, unit23)):
    case(key, key, x)
    case(key, key, x[0, 0], note="0d")
case(np.absolute, np.absolute, signs * pos23, formula=lambda a: np.where(a.real > 0, a, -a))
case(np.absolute, abs, signs * pos23, formula=lambda a: np.where(a.real > 0, a, -a), note="abs()")
case(np.cbrt, np.cbrt, signs * pos23, formula=lambda a: np.where(a.real > 0, 1, -1) * (a * np.sign(a.real)) ** (1 / 3))

# ------------------------------------------------------------------ matmul: 1, 2, 3 and 4 axes on either side
shapes = {1: (4,), 2: (3, 4), 3: (2, 3, 4), 4: (5, 2, 3, 4)}
for m, left in shapes.items():
    for n in shapes:
        right = (*shapes[n][:-2], 4, 2) if n > 1 else (4,)
        case(np.matmul, lambda a, b: a @ b, draw(*left), draw(*right, seed=1), note=f"{m}d-{n}d")
case(np.matmul, np.matmul, draw(2, 1, 3, 4), draw(5, 4, 2), note="stretched")
case(np.matmul, np.matmul, draw(1, 3, 4), draw(2, 4, 2), note="stretched-one")
case(np.dot, np.dot, x23, row3, note="2d-1d")
case(np.dot, np.dot, row3, draw(3, seed=8), note="1d-1d")
case(np.dot, np.dot, 0.7, x23, note="0d")
case(np.dot, lambda a, b: a.dot(b), x234, draw(4, 2), note="3d-2d")
case(np.inner, np.inner, x23, draw(4, 3), note="2d")
case(np.inner, np.inner, row3, draw(3, seed=4), note="1d")
case(np.outer, np.outer, row3, vec)
case(np.outer, np.outer, x23, vec, note="flattens")
case(np.tensordot, lambda a, b: np.tensordot(a, b, 1), x234, draw(4, 2), note="1")
case(np.tensordot, np.tensordot, x234, draw(3, 4, 2), note="2")
case(np.tensordot, lambda a, b: np.tensordot(a, b, ([0, -1], [1, 0])), x234, draw(4, 2), note="axes")
case(np.tensordot, lambda a, b: np.tensordot(a, b, (1, 0)), x234, draw(3, 2), note="one-axis")
case(np.einsum, lambda a, b: np.einsum("bij,jk->bik", a, b), x234, draw(4, 2), note="matmul")
case(np.einsum, lambda a, b: np.einsum("ij,jk", a, b), x23, draw(3, 2), note="implicit")
case(np.einsum, lambda a: np.einsum("ijk->ki", a), x234, note="sum-and-transpose")
case(np.einsum, lambda a, b, c: np.einsum("ij, kj, k -> i", a, b, c), x23, draw(4, 3), vec, note="three")
case(np.einsum, lambda a, b: np.einsum("ij,ij->", a, b), x23, y23, note="full")
case(np.einsum, lambda a, b: np.einsum("i,jk->j", a, b), row3, x23, note="index-summed-alone")

# ------------------------------------------------------------------ reductions
axes = ((None, "all"), (0, "0"), (-1, "last"), (1, "1"), ((0, 2), "02"), ((-1, 0), "negative-pair"), ((), "none"))
for axis, note in axes:
    for keep in (False, True):
        case(np.sum, lambda a, axis=axis, keep=keep: np.sum(a, axis=axis, keepdims=keep), x234, note=f"{note}-{keep}")
for axis, note in axes[:-1]:
    for keep in (False, True):
        kw = {"axis": axis, "keepdims": keep}
        tag = f"{note}-{keep}"
        case(np.mean, lambda a, kw=kw: np.mean(a, **kw), x234, note=tag)
        case(np.max, lambda a, kw=kw: np.max(a, **kw), x234, note=tag)
        case(np.min, lambda a, kw=kw: np.min(a, **kw), x234, note=tag)

        def variance(a: Any, ddof: int = 0, kw: dict = kw) -> Any:       # np.var takes absolute values of complex numbers
            d = a - np.mean(a, axis=kw["axis"], keepdims=True)
            total = np.sum(d * d, **kw)
            return total / (a.size / total.size - ddof)
        case(np.var, lambda a, kw=kw: np.var(a, **kw), x234, formula=variance, note=tag)
        case(np.std, lambda a, kw=kw: np.std(a, ddof=1, **kw), x234, formula=lambda a, v=variance: np.sqrt(v(a, 1)), note=tag)
        if axis is None or type(axis) is int:
            case(np.linalg.norm, lambda a, kw=kw: np.linalg.norm(a, **kw), x234,
                 formula=lambda a, kw=kw: np.sqrt(np.sum(a * a, **kw)), note=tag)
case(np.var, lambda a: np.var(a, ddof=1), x23, formula=lambda a: np.sum((a - np.mean(a)) ** 2) / 5, note="ddof")
case(np.linalg.norm, lambda a: np.linalg.norm(a, 2), row3, formula=lambda a: np.sqrt(np.sum(a * a)), note="ord-2")
case(np.amax, lambda a: np.amax(a, axis=0), x23)
case(np.amin, lambda a: np.amin(a, axis=0), x23)
for axis, note in ((None, "all"), (0, "0"), (-1, "last"), (1, "1")):
    case(np.cumsum, lambda a, axis=axis: np.cumsum(a, axis=axis), x234, note=note)
case(np.trace, np.trace, x23)
case(np.diagonal, np.diagonal, draw(3, 2))
for name in ("sum", "mean", "var", "std", "max", "min"):
    case(getattr(np, name), lambda a, name=name: getattr(a, name)(axis=0), x23, note="method",
         formula={"var": lambda a: np.mean((a - np.mean(a, 0)) ** 2, 0),
                  "std": lambda a: np.sqrt(np.mean((a - np.mean(a, 0)) ** 2, 0))}.get(name))
case(np.cumsum, lambda a: a.cumsum(), x23, note="method")

# ------------------------------------------------------------------ choosing
case(np.where, lambda a, b: np.where(y23 > 0, a, b), x23, row3)
case(np.where, lambda a: np.where(a > 0, a * a, -3.0 * a), x23, note="of-itself")
case(np.where, lambda a, b: np.where(True, a, b), x23, 0.5, note="one-condition")
case(np.clip, lambda a: np.clip(a, -0.5, 0.5), x23, note="both")
case(np.clip, lambda a: np.clip(a, None, 0.2), x23, note="max")
case(np.clip, lambda a: a.clip(-0.2), x23, note="method")
case(np.clip, lambda a, b: np.clip(a, b, 2.0), x23, 0.1, note="tensor-bound")

# ------------------------------------------------------------------ joining and taking apart
for axis in (0, 1, -1, -2):
    case(np.concatenate, lambda a, b, axis=axis: np.concatenate([a, b, 2 * a], axis=axis), x23, y23, note=str(axis))
case(np.concatenate, lambda a, b: np.concatenate((a, b, np.ones(2, a.dtype))), row3, vec, note="lengths-and-a-constant")
case(np.concatenate, lambda a, b: np.concatenate([a, b], axis=None), x23, vec, note="flattens")
for axis in (0, 1, -1):
    case(np.stack, lambda a, b, axis=axis: np.stack([a, b, np.ones((2, 3), a.dtype)], axis=axis), x23, y23, note=str(axis))
case(np.stack, lambda a, b: np.stack([a, b, a * b]), 0.3, 0.9, note="0d")
case(np.vstack, lambda a, b: np.vstack([a, b]), row3, x23)
case(np.hstack, lambda a, b: np.hstack([a, b]), row3, vec, note="1d")
case(np.hstack, lambda a, b: np.hstack([a, b]), x23, draw(2, 2), note="2d")
case(np.split, lambda a: np.split(a, 2)[1] * np.split(a, 2)[0], x234, note="equal")
case(np.split, lambda a: np.split(a, [1, 3], axis=-1)[1], x234, note="places")
case(np.split, lambda a: np.split(a, 3, axis=1)[2], x234, note="axis")

# ------------------------------------------------------------------ shapes
case(np.reshape, lambda a: np.reshape(a, (3, -1)), x234)
case(np.reshape, lambda a: a.reshape(4, 6), x234, note="method")
case(np.reshape, lambda a: a.reshape((4, 6)), x234, note="method-tuple")
case(np.reshape, lambda a: np.reshape(a, -1), x234, note="flat")
case(np.ravel, np.ravel, x23)
case(np.ravel, lambda a: a.ravel() * a.flatten(), x23, note="method")
case(np.transpose, np.transpose, x234, note="reversed")
case(np.transpose, lambda a: np.transpose(a, (2, 0, 1)), x234, note="axes")
case(np.transpose, lambda a: np.transpose(a, (-1, 0, 1)), x234, note="negative")
case(np.transpose, lambda a: a.transpose(1, 2, 0), x234, note="method")
case(np.transpose, lambda a: a.transpose((1, 2, 0)) * a.transpose((1, 2, 0)), x234, note="method-tuple")
case(np.transpose, lambda a: a.T @ a, x23, note="T")
case(np.transpose, lambda a: a.transpose(), x234, note="method-reverses")
case(np.swapaxes, lambda a: np.swapaxes(a, 0, -1), x234)
case(np.swapaxes, lambda a: a.swapaxes(-2, -1), x234, note="method")
case(np.moveaxis, lambda a: np.moveaxis(a, 0, -1), x234)
case(np.moveaxis, lambda a: np.moveaxis(a, (0, 1), (-1, 0)), x234, note="two")
case(np.moveaxis, lambda a: np.moveaxis(a, (2, 0), (0, 1)), x234, note="order")
case(np.expand_dims, lambda a: np.expand_dims(a, 1), x23)
case(np.expand_dims, lambda a: np.expand_dims(a, (0, -1)), x23, note="two")
case(np.squeeze, np.squeeze, draw(1, 3, 1))
case(np.squeeze, lambda a: np.squeeze(a, -1), draw(1, 3, 1), note="axis")
case(np.squeeze, lambda a: a.squeeze(0), draw(1, 3, 1), note="method")
case(np.broadcast_to, lambda a: np.broadcast_to(a, (4, 2, 3)), x23, note="lead")
case(np.broadcast_to, lambda a: np.broadcast_to(a, (2, 3)), col2, note="stretch")
case(np.broadcast_to, lambda a: np.broadcast_to(a, 3), 0.7, note="0d")
case(np.flip, np.flip, x23, note="all")
case(np.flip, lambda a: np.flip(a, (0, -1)), x234, note="two")
case(np.flip, lambda a: np.flip(a, 1), x234, note="one")
case(np.roll, lambda a: np.roll(a, 1, axis=-1), x23)
case(np.roll, lambda a: np.roll(a, -4, axis=1), x234, note="negative")
case(np.take, lambda a: np.take(a, [2, 0, 2], axis=1), x23)
case(np.take, lambda a: np.take(a, [[5, 0], [1, 5]]), x23, note="flat")
case(np.take, lambda a: np.take(a, [0, 0, 1], axis=-2), x234, note="negative")
case(np.repeat, lambda a: np.repeat(a, 3, axis=0), x23)
case(np.repeat, lambda a: np.repeat(a, 2), x23, note="flat")
case(np.repeat, lambda a: np.repeat(a, 3, axis=-1), x23, note="negative")
case(np.tile, lambda a: np.tile(a, 2), x23, note="fewer-numbers-than-axes")
case(np.outer, np.outer, 0.7, x23, note="number")
case(np.copy, np.copy, x23)
case(np.copy, lambda a: a.copy() * a, x23, note="method")
case(np.full_like, lambda a: np.full_like(a, a[0, 0]) * a, x23, note="tensor-fill",
     formula=lambda a: np.full_like(a, a[0, 0]) * a)

mask_23 = np.array([[True, False, True], [True, True, False]])
# ------------------------------------------------------------------ products and accumulated products, zeros among the factors
some_zeros = np.array([[0.5, 0.0, 2.0], [0.0, -1.0, 0.0]])
for axis, note in ((None, "all"), (0, "0"), (-1, "last"), ((0, 1), "both")):
    case(np.prod, lambda a, axis=axis: np.prod(a, axis=axis), x23, note=note)
    case(np.prod, lambda a, axis=axis: np.prod(a, axis=axis, keepdims=True), some_zeros, note=f"{note}-zeros")
for axis, note in ((None, "all"), (0, "0"), (-1, "last")):
    case(np.cumprod, lambda a, axis=axis: np.cumprod(a, axis=axis), x23, note=note)
    case(np.cumprod, lambda a, axis=axis: np.cumprod(a, axis=axis), some_zeros, note=f"{note}-zeros")
case(np.prod, lambda a: a.prod(1) + a.cumprod(0)[0, 0], x23, note="method")
case(np.sum, lambda a: np.sum(a, axis=0, where=mask_23, initial=2.0), x23, note="where")
case(np.prod, lambda a: np.prod(a, axis=1, where=mask_23, initial=2.0), x23, note="where")
case(np.max, lambda a: np.max(a, axis=0, initial=0.3), x23, note="initial")
case(np.sum, lambda a: np.sum(a, axis=1, dtype=a.dtype), x23, note="dtype")
case(np.sum, lambda a: np.add.reduce(a) + np.multiply.reduce(a) + np.maximum.reduce(a) + np.minimum.reduce(a), x23,
    note="ufunc.reduce")
case(np.cumsum, lambda a: np.add.accumulate(a) + np.multiply.accumulate(a, axis=0), x23, note="ufunc.accumulate")
case(np.subtract, lambda a, b: np.subtract.outer(a, b), row3, vec, note="ufunc.outer")
case(np.ptp, lambda a: np.ptp(a, axis=1), x23)
case(np.nansum, lambda a: np.nansum(a, axis=0), x23)
case(np.nanprod, lambda a: np.nanprod(a, axis=0), x23)
case(np.nancumsum, lambda a: np.nancumsum(a, axis=0), x23)
case(np.nanmax, lambda a: np.nanmax(a, axis=0), x23, formula=lambda a: np.max(a, axis=0))
case(np.nanmin, lambda a: np.nanmin(a, axis=0), x23, formula=lambda a: np.min(a, axis=0))
case(np.nanmean, lambda a: np.nanmean(a, axis=0), x23)
case(np.nanvar, lambda a: np.nanvar(a, axis=1), x23, formula=lambda a: np.mean((a - np.mean(a, 1)[:, None]) ** 2, 1))
case(np.nanstd, lambda a: np.nanstd(a, axis=1), x23, formula=lambda a: np.sqrt(np.mean((a - np.mean(a, 1)[:, None]) ** 2, 1)))
case(np.average, lambda a, b: np.average(a, weights=b), x23, pos23)
case(np.average, lambda a, b: np.average(a, axis=-1, weights=b), x23, pos3, note="axis", formula=lambda a, b: a @ b / np.sum(b))
case(np.average, lambda a: np.average(a, axis=0), x23, note="plain")
case(np.median, np.median, x23, formula=lambda a: np.mean(np.sort(np.ravel(a))[2:4]))
case(np.median, lambda a: np.median(a, axis=1), x23, note="odd", formula=lambda a: np.sort(a, 1)[:, 1])
case(np.quantile, lambda a: np.quantile(a, 0.3, axis=1), x23,
    formula=lambda a: 0.4 * np.sort(a, 1)[:, 0] + 0.6 * np.sort(a, 1)[:, 1])
case(np.quantile, lambda a: np.quantile(a, [0.25, 0.75], axis=0, keepdims=True), x23, note="two",
     formula=lambda a: np.stack([0.75 * np.sort(a, 0)[:1] + 0.25 * np.sort(a, 0)[1:],
     0.25 * np.sort(a, 0)[:1] + 0.75 * np.sort(a, 0)[1:]]))
case(np.percentile, lambda a: np.percentile(a, 30, axis=1), x23,
    formula=lambda a: 0.4 * np.sort(a, 1)[:, 0] + 0.6 * np.sort(a, 1)[:, 1])
case(np.var, lambda a: np.var(a, correction=1), x23, formula=lambda a: np.sum((a - np.mean(a)) ** 2) / 5, note="correction")


def covariance(a: Any) -> Any:
    d = a - np.mean(a, axis=1, keepdims=True)
    return d @ d.T / (a.shape[1] - 1)


case(np.cov, np.cov, x23, formula=covariance)
case(np.cov, lambda a: np.cov(a, rowvar=False), x23, note="columns", formula=lambda a: covariance(a.T))
case(np.corrcoef, np.corrcoef, x23,
    formula=lambda a: covariance(a) / np.sqrt(np.outer(np.diag(covariance(a)), np.diag(covariance(a)))))
case(np.corrcoef, lambda a: np.corrcoef(a[0]) * a[1], x23, note="one", formula=lambda a: a[1])

some_nan = np.array([[True, False, False], [False, False, False]])


def holed(a: Any) -> Any:
    return np.where(some_nan, np.nan, a)


def sorted_row(a: Any, weights: Any) -> Any:
    """A combination of the smallest, the second, ... entry of the rows."""
    return np.sort(a, 1) @ np.array(weights)


case(np.nanquantile, lambda a: np.nanquantile(a, 0.3, axis=1), x23, formula=lambda a: sorted_row(a, [0.4, 0.6, 0.0]))
case(np.nanquantile, lambda a: np.nanquantile(holed(a), 0.3, axis=1, keepdims=True), x23, note="nan",
     formula=lambda a: np.stack([0.7 * np.sort(a[0, 1:])[:1] + 0.3 * np.sort(a[0, 1:])[1:], sorted_row(a[1:], [0.4, 0.6, 0.0])]))
case(np.nanquantile, lambda a: np.nanquantile(a, [0.5, 1.0], axis=1), x23, note="two", formula=lambda a: np.sort(a, 1)[:, 1:].T)
case(np.nanvar, lambda a: np.nanvar(holed(a), axis=1, ddof=1), x23, note="nan",
     formula=lambda a: np.stack([covariance(a[:1, 1:])[0, 0], covariance(a[1:])[0, 0]]))
case(np.nanmax, lambda a: np.nanmax(holed(a), axis=1), x23, note="nan", formula=lambda a: np.stack([np.max(a[0, 1:]), np.max(a[1])]))
case(np.nanmin, lambda a: np.nanmin(holed(a), axis=1), x23, note="nan", formula=lambda a: np.stack([np.min(a[0, 1:]), np.min(a[1])]))
case(np.quantile, lambda a: np.quantile(a, 1.0, axis=1), x23, note="greatest", formula=lambda a: np.sort(a, 1)[:, 2])
case(np.nanpercentile, lambda a: np.nanpercentile(a, 30, axis=1), x23, formula=lambda a: sorted_row(a, [0.4, 0.6, 0.0]))
case(np.nanmedian, lambda a: np.nanmedian(a, axis=1), x23, formula=lambda a: sorted_row(a, [0.0, 1.0, 0.0]))
case(np.nancumprod, lambda a: np.nancumprod(a, axis=0), x23, formula=lambda a: np.cumprod(a, axis=0))
case(np.cumulative_sum, lambda a: np.cumulative_sum(a, axis=1, include_initial=True), x23,
     formula=lambda a: np.concatenate([0 * a[:, :1], np.cumsum(a, 1)], 1))
case(np.cumulative_prod, np.cumulative_prod, row3, formula=np.cumprod)

# ------------------------------------------------------------------ more elementwise ones
case(np.frexp, lambda a: np.frexp(a)[0] * np.frexp(a)[1], x23, formula=lambda a: a * np.frexp(x23)[1] / 2.0 ** np.frexp(x23)[1])
case(np.unwrap, lambda a: np.unwrap(9 * a), x23, formula=lambda a: 9 * a + (np.unwrap(9 * x23) - 9 * x23))
case(np.unwrap, lambda a: np.unwrap(9 * a, axis=0, period=3.0), x23, note="period",
     formula=lambda a: 9 * a + (np.unwrap(9 * x23, axis=0, period=3.0) - 9 * x23))
case(np.astype, lambda a: np.astype(a, a.dtype) * a, x23, note="function", formula=lambda a: a * a)
case(np.fmod, np.fmod, x23, pos3, formula=lambda a, b: a - np.trunc(x23 / pos3) * b)
case(np.fmax, np.fmax, x23, y23)
case(np.fmin, np.fmin, x23, y23)
case(np.copysign, np.copysign, signs * pos23, y23, formula=lambda a, b: a * signs * np.sign(y23))
case(np.logaddexp2, np.logaddexp2, x23, row3,
     formula=lambda a, b: np.log(np.exp(a * np.log(2)) + np.exp(b * np.log(2))) / np.log(2))
case(np.fabs, np.fabs, signs * pos23, formula=lambda a: signs * a)
for key in (np.degrees, np.rad2deg):
    case(key, key, x23, formula=lambda a: a * (180 / np.pi))
for key in (np.radians, np.deg2rad):
    case(key, key, x23, formula=lambda a: a * (np.pi / 180))
case(np.sinc, np.sinc, x23)
case(np.sinc, np.sinc, np.array([0.0, 1e-9, -0.01, 0.031, 0.033]), note="near-0",          # 1 - y^2/6 + ..., y = pi a: to y^12
     formula=lambda a: sum((-1) ** k * (np.pi * a) ** (2 * k) / float(np.prod(np.arange(1.0, 2 * k + 2))) for k in range(7)))
case(np.nan_to_num, np.nan_to_num, x23)
case(np.positive, lambda a: np.positive(a) * a, x23, note="squared")
case(np.conjugate, lambda a: np.conj(a) * a.conj() * a.real * np.real(a), x23, formula=lambda a: a ** 4)
case(np.real, lambda a: np.real(a) * a, x23, formula=lambda a: a * a)
case(np.real_if_close, lambda a: np.real_if_close(a) * a, x23, formula=lambda a: a * a)
case(np.imag, lambda a: np.imag(a) + a.imag + a * a, x23, formula=lambda a: a * a)
case(np.divmod, lambda a: np.divmod(a, 0.4)[1] + divmod(a, 0.4)[0] * a, x23,
     formula=lambda a: a - np.floor(x23 / 0.4) * 0.4 + np.floor(x23 / 0.4) * a)
case(np.select, lambda a, b: np.select([y23 > 0.5, y23 > 0], [a * a, b * a], 0.0), x23, row3)
case(np.sort, lambda a: np.sort(a, axis=0), x23)
case(np.sort, lambda a: np.sort(a, axis=None), x23, note="all")
case(np.partition, lambda a: np.sort(np.partition(a, 1, axis=1)[:, :2], 1), x23)
case(np.ldexp, lambda a: np.ldexp(a, [1, 2, -1]), x23, formula=lambda a: a * np.array([2.0, 4.0, 0.5]))
case(np.choose, lambda a, b: np.choose([0, 1, 0], [a * a, b]), row3, away3, formula=lambda a,
    b: np.stack([a[0] ** 2, b[1], a[2] ** 2]))
case(np.maximum, lambda a: np.maximum.accumulate(a, 1), x23, note="accumulate", formula=lambda a: np.stack(
    [a[:, 0], np.max(a[:, :2], 1), np.max(a, 1)], 1))
case(np.minimum, lambda a: np.minimum.accumulate(a) * a.view(), x23, note="accumulate",
     formula=lambda a: np.stack([a[0], np.min(a, 0)]) * a)
case(np.mean, lambda a: np.mean(a, dtype=a.dtype), x23, note="dtype", formula=np.mean)
case(np.piecewise, lambda a: np.piecewise(a, [y23 > 0.3, y23 < -0.5, abs(y23) < 0.2], [lambda x: x * x, np.exp, np.sin, 2.0]), x23,
     formula=lambda a: np.select([y23 > 0.3, y23 < -0.5, abs(y23) < 0.2], [a * a, np.exp(a), np.sin(a)], 2.0 + 0 * a))
case(np.modf, lambda a: np.modf(a)[0] * a + np.modf(a)[1], x23, formula=lambda a: (a - np.trunc(x23)) * a + np.trunc(x23))
case(np.logaddexp, lambda a: np.logaddexp.reduce(a, 1), x23, note="reduce", formula=lambda a: np.log(np.sum(np.exp(a), 1)))
case(np.interp, lambda a, b: np.interp(a, [-2.0, 0.0, 2.0], b), x23, row3,
     formula=lambda a, b: np.where(x23 < 0, b[0] + (b[1] - b[0]) * (a + 2) / 2, b[1] + (b[2] - b[1]) * a / 2))
case(np.interp, lambda a: np.interp(0.3, a, [1.0, 3.0, -1.0]), away3, note="knots",
     formula=lambda a: 1.0 + 2.0 * (0.3 - a[0]) / (a[1] - a[0]))
case(np.interp, lambda a, b: np.interp(a, [-0.8, -0.4, 0.0], b), x23, np.array([0.5, 1.5, 1.0]), note="ends",
     formula=lambda a, b: np.select([x23 < -0.8, x23 < -0.4, x23 < 0], [b[0] + 0 * a, b[0] + (b[1] - b[0]) * (a + 0.8) / 0.4,
                                                                        b[1] + (b[2] - b[1]) * (a + 0.4) / 0.4], b[2] + 0 * a))
case(np.linspace, lambda a, b: np.linspace(a, b, 5), 0.3, 0.9)
case(np.linspace, lambda a, b: np.linspace(a, b, 4, endpoint=False, axis=-1), row3, 0.9, note="open")
case(np.trapezoid, lambda y, x: np.trapezoid(y, x), x23, away3)
case(np.trapezoid, lambda y: np.trapezoid(y, dx=0.3, axis=0), x23, note="dx")
case(np.gradient, lambda a: np.gradient(a, 0.3, axis=1), x234)
case(np.gradient, lambda a: np.gradient(a), vec, note="1d")
case(np.gradient, lambda a: np.gradient(a)[0] * np.gradient(a, 0.5, 0.25)[1], x23, note="two-axes")
case(np.gradient, np.gradient, vec, np.array([0.0, 0.3, 0.5, 1.2]), note="coordinates")
case(np.gradient, lambda a, c: np.gradient(a, c, axis=2, edge_order=2), x234, np.array([0.0, 0.3, 0.5, 1.2]), note="edge-2")
case(np.gradient, lambda a: np.gradient(a, 0.3, axis=0), x23, note="two-points")
case(np.convolve, np.convolve, vec, row3, note="full")
for mode in ("same", "valid"):
    case(np.convolve, lambda a, b, m=mode: np.convolve(a, b, m), row3, vec, note=mode)
case(np.correlate, lambda a, b: np.correlate(a, b, "full"), vec, row3, formula=lambda a, b: np.convolve(a, b[::-1], "full"))
case(np.correlate, lambda a, b: np.correlate(a, b), vec, row3, note="valid", formula=lambda a, b: np.convolve(a, b[::-1], "valid"))
case(np.polyval, np.polyval, row3, x23)
case(np.vander, np.vander, vec)
case(np.ediff1d, lambda a: np.ediff1d(a, to_end=1.0), x23)
case(np.bincount, lambda a: np.bincount([0, 2, 2, 0], a), vec, formula=lambda a: np.stack([a[0] + a[3], 0 * a[0], a[1] + a[2]]))
for n, options in ((1, {}), (2, {}), (1, {"axis": 0}), (1, {"prepend": 0.5}), (1, {"append": np.ones((2, 2))})):
    case(np.diff, lambda a, n=n, o=options: np.diff(a, n, **o), x23, note=f"{n}-{sorted(options)}")
case(np.clip, lambda a: np.clip(a, min=-0.2, max=0.4) + a.clip(min=0.1) + a.clip(max=0.1), x23, note="min-max")

# ------------------------------------------------------------------ entries that move
for key, fn in {
    np.diag: lambda a: np.diag(a, 1), np.tril: lambda a: np.tril(a, -1), np.triu: lambda a: np.triu(a, 1),
    np.diagflat: lambda a: np.diagflat(a),
    np.tile: lambda a: np.tile(a, (2, 1, 2)), np.rot90: lambda a: np.rot90(a, 3), np.fliplr: np.fliplr, np.flipud: np.flipud,
    np.atleast_1d: np.atleast_1d, np.atleast_2d: np.atleast_2d, np.atleast_3d: np.atleast_3d,
    np.permute_dims: lambda a: np.permute_dims(a, (1, 0)),
    np.matrix_transpose: np.matrix_transpose, np.rollaxis: lambda a: np.rollaxis(a, 1), np.delete: lambda a: np.delete(a, 1, 1),
    np.array_split: lambda a: np.array_split(a, 2, axis=1)[0], np.hsplit: lambda a: np.hsplit(a, 3)[1],
    np.vsplit: lambda a: np.vsplit(a, 2)[1],
    np.unstack: lambda a: np.unstack(a)[1] * np.unstack(a, axis=0)[0], np.column_stack: lambda a: np.column_stack([a, a[:, 0]]),
    np.dstack: lambda a: np.dstack([a, 2 * a]), np.append: lambda a: np.append(a, 3.0),
    np.block: lambda a: np.block([[a, a], [2 * a, a]]),
    np.compress: lambda a: np.compress([True, False, True], a, axis=1), np.extract: lambda a: np.extract(mask_23, a),
    np.broadcast_arrays: lambda a: np.broadcast_arrays(a[:1], np.ones((2, 3)))[0],
    np.meshgrid: lambda a: np.meshgrid(a[0], a[1])[1],
    np.take_along_axis: lambda a: np.take_along_axis(a, np.array([[0, 0], [2, 1]]), 1),
    np.lib.stride_tricks.sliding_window_view: lambda a: np.lib.stride_tricks.sliding_window_view(a, 2, 1),
}.items():
    case(key, fn, x23)
case(np.dsplit, lambda a: np.dsplit(a, [1, 3])[1], x234)
case(np.diag, lambda a: np.diag(a, -1), row3, note="of-a-vector")
case(np.append, lambda a, b: np.append(a, b, axis=0), x23, y23, note="axis")
case(np.hstack, lambda a, b: np.hstack([a, 1.0, b, -a]), 0.3, row3, note="numbers")
case(np.vstack, lambda a, b: np.vstack([a, b]), 0.3, 0.7, note="numbers")
case(np.roll, lambda a: np.roll(a, 4), x23, note="no-axis")
case(np.roll, lambda a: np.roll(a, (1, 2), axis=(0, 1)), x23, note="two-axes")
case(np.repeat, lambda a: np.repeat(a, [1, 0, 2], axis=1), x23, note="counts")
case(np.take, lambda a: np.take(a, [7, -1], axis=1, mode="wrap"), x23, note="wrap")
case(np.diagonal, lambda a: np.diagonal(a, 1, 1, 2), x234, note="axes")
case(np.trace, lambda a: np.trace(a, 1, 2, 1), x234, note="axes")
case(np.reshape, lambda a: np.reshape(a, (3, 2), order="F") + a.reshape(3, 2, order="F"), x23, note="F")
case(np.ravel, lambda a: a.ravel("F") * a.flatten("F"), x23, note="F")
for mode in ("constant", "edge", "wrap", "reflect", "symmetric"):
    case(np.pad, lambda a, m=mode: np.pad(a, ((1, 0), (2, 1)), mode=m), x23, note=mode)
case(np.insert, lambda a, b: np.insert(a, 1, b, axis=0), x23, row3)
case(np.insert, lambda a: np.insert(a, [1, 3], 0.5), x23, note="flat")
case(np.insert, lambda a, b: np.insert(a, [0, 2], b, axis=1), x23, y23[:, :2], note="two-columns")
case(np.apply_along_axis, lambda a: np.apply_along_axis(np.sum, 0, a), x23)
case(np.apply_along_axis, lambda a: np.apply_along_axis(lambda r: np.outer(r, r), 1, a), x234, note="matrices")
case(np.resize, lambda a: np.resize(a, (4, 4)), x23)
case(np.pad, lambda a: np.pad(a, 1, constant_values=2.5), x23, note="value")
case(np.trace, lambda a: a.trace() + a.diagonal()[1] + a.take([0, 4])[1] + a.repeat(2)[3] + a.mT[0, 1], x23, note="methods",
     formula=lambda a: a[0, 0] + 3 * a[1, 1] + a[0, 1] + a[1, 0])
case(np.sum, lambda a: sum(x * x for x in a.flat), x23, note="flat")

# ------------------------------------------------------------------ products and linear algebra
square = draw(3, 3) + 3 * np.eye(3)
symmetric = square + square.T + np.diag([0.0, 2.0, 5.0])
tall, stacked = draw(4, 3) + 2 * np.eye(4, 3), draw(2, 3, 3) + 3 * np.eye(3)
LA = np.linalg
case(np.dot, np.dot, draw(2, 4), draw(3, 4, 2), note="2d-3d")
case(np.inner, np.inner, x234, draw(2, 4), note="3d")
case(np.inner, np.inner, 0.7, x23, note="number")
case(np.tensordot, lambda a, b: np.tensordot(a, b, 0), row3, 0.7, note="0")
case(np.tensordot, lambda a: np.tensordot(a, 2.0, 0), row3, note="number")
for text, args in {"...ij,jk->...ik": (x234, draw(4, 2)), "ii": (square,), "ii->i": (square,), "iij->j": (draw(2, 2, 3),),
    "ij,ii->j": (square, stacked[0]),
                   "...i,...i": (x234, draw(3, 4)), "ba": (x23,), "i...->...": (x234,),}.items():
    case(np.einsum, lambda *a, text=text: np.einsum(text, *a), *args, note=text)
case(np.einsum, lambda a, b: np.einsum("ij,jk->ik", a, b, optimize=True), x23, square, note="optimize")
case(np.einsum, lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [2, 0]), x23, square, note="lists")
case(np.einsum, lambda a: np.einsum("i,->i", a, 2.0), row3, note="number")
case(np.vdot, np.vdot, x23, y23, formula=lambda a, b: np.sum(a * b))
case(np.kron, np.kron, x23, y23)
case(np.kron, np.kron, row3, x23, note="1d-2d")
case(np.cross, np.cross, row3, draw(3, seed=4))
case(np.cross, lambda a, b: np.cross(a, b, axisa=0), draw(3, 2), draw(2, 3), note="axes")
for key in (np.vecdot, LA.vecdot):
    case(key, key, x23, row3, formula=lambda a, b: np.sum(a * b, -1))
case(np.matvec, np.matvec, x234, vec)
case(np.vecmat, np.vecmat, row3, x234, formula=lambda a, b: np.einsum("i,bij->bj", a, b))
case(LA.solve, LA.solve, square, draw(3, 2))
case(LA.solve, LA.solve, square, row3, note="vector")
case(LA.solve, LA.solve, stacked, draw(2, 3, 1), note="stacked")
case(LA.inv, LA.inv, stacked)
case(LA.det, LA.det, stacked)
case(LA.slogdet, lambda a: LA.slogdet(a)[1] * LA.slogdet(a).sign, stacked, formula=lambda a: np.log(LA.det(a)))
case(LA.pinv, LA.pinv, tall, formula=lambda a: LA.solve(a.T @ a, a.T))
case(LA.pinv, LA.pinv, tall.T, note="wide", formula=lambda a: a.T @ LA.inv(a @ a.T))
case(LA.matrix_power, lambda a: LA.matrix_power(a, 5) + LA.matrix_power(a, -2) + LA.matrix_power(a, 0), square)
case(LA.multi_dot, lambda a, b, c: LA.multi_dot([a, b, c]), x23, square, row3)
case(LA.cond, LA.cond, symmetric, formula=lambda a: np.sqrt(spectrum(a.T @ a)[-1] / spectrum(a.T @ a)[0]))
case(LA.cond, lambda a: LA.cond(a, "fro"), square, note="fro", formula=lambda a: np.sqrt(np.sum(a * a) * np.sum(LA.inv(a) ** 2)))


def lower_of(a: Any) -> Any:
    """The symmetric matrix whose lower triangle this is."""
    return np.tril(a) + np.tril(a, -1).T


def spectrum(a: Any) -> Any:
    """The eigenvalues of a matrix that is symmetric but for the complex step, in order: analytic in its entries."""
    w = LA.eigvals(a)
    return w[np.argsort(w.real)]


def projectors(a: Any) -> list:
    """v v^T of each eigenvector, as polynomials of the matrix (Sylvester)."""
    w, eye = spectrum(a), np.eye(len(a))
    factors = lambda i: [(a - w[j] * eye) / (w[i] - w[j]) for j in range(len(w)) if j != i]
    return [LA.multi_dot([eye, *factors(i), eye]) for i in range(len(w))]


def literal_cholesky(a: Any) -> Any:
    L = np.zeros_like(a)
    for i in range(len(a)):
        for j in range(i + 1):
            left = a[i, j] - np.sum(L[i, :j] * L[j, :j])
            L[i, j] = np.sqrt(left) if i == j else left / L[j, j]
    return L


def literal_qr(a: Any) -> Any:
    """Q + R stacked, by Gram and Schmidt, with the signs that NumPy's reflections give."""
    Q, signs = np.zeros_like(a), np.sign(np.diag(LA.qr(a.real)[1]))
    for j in range(a.shape[1]):
        v = a[:, j] - Q[:, :j] @ (Q[:, :j].T @ a[:, j])
        Q[:, j] = signs[j] * v / np.sqrt(np.sum(v * v))
    return np.concatenate([Q, np.triu(Q.T @ a)])


case(LA.cholesky, LA.cholesky, symmetric + 4 * np.eye(3), formula=literal_cholesky)
case(LA.cholesky, lambda a: LA.cholesky(a, upper=True), symmetric + 4 * np.eye(3), note="upper",
    formula=lambda a: literal_cholesky(a.T).T)
case(LA.eigvalsh, LA.eigvalsh, symmetric, formula=lambda a: spectrum(lower_of(a)))
case(LA.eigvalsh, lambda a: LA.eigvalsh(a, "U"), symmetric, note="U", formula=lambda a: spectrum(lower_of(a.T)))
case(LA.eigh, lambda a: LA.eigh(a).eigenvalues ** 2, symmetric, formula=lambda a: spectrum(lower_of(a)) ** 2)
case(LA.eigh, lambda a: (LA.eigh(a)[1] * np.array([1.0, -2.0, 0.5], a.dtype)) @ LA.eigh(a)[1].T, symmetric, note="vectors",
     formula=lambda a: sum(c * P for c, P in zip((1.0, -2.0, 0.5), projectors(lower_of(a)), strict=True)))
case(LA.svdvals, LA.svdvals, tall, formula=lambda a: np.sqrt(spectrum(a.T @ a))[::-1])
case(LA.svd, lambda a: LA.svd(a, compute_uv=False), tall.T, note="wide", formula=lambda a: np.sqrt(spectrum(a @ a.T))[::-1])


def turned(a: Any) -> Any:
    U, s, Vt = LA.svd(a, full_matrices=False)
    return (U * np.array([1.0, -2.0, 0.5], a.dtype) * s) @ Vt


case(LA.svd, turned, tall, note="vectors",           # U diag(c s) V^T = A sum_i c_i v_i v_i^T, the largest first
     formula=lambda a: a @ sum(c * P for c, P in zip((0.5, -2.0, 1.0), projectors(a.T @ a), strict=True)))
case(LA.svd, lambda a: turned(a.T).T, tall.T, note="vectors-wide",
     formula=lambda a: (a.T @ sum(c * P for c, P in zip((0.5, -2.0, 1.0), projectors(a @ a.T), strict=True))).T)
case(LA.qr, lambda a: np.concatenate(LA.qr(a)), tall, formula=literal_qr)
case(LA.qr, lambda a: LA.qr(a, "r"), square, note="r", formula=lambda a: literal_qr(a)[3:])
for ord_, formula in {1: lambda a: np.max(np.sum(a, 0)), np.inf: lambda a: np.max(np.sum(a, 1)),
    -1: lambda a: np.min(np.sum(a, 0)), "fro": lambda a: np.sqrt(np.sum(a * a)),
                      2: lambda a: np.sqrt(spectrum(a @ a.T)[-1]), "nuc": lambda a: np.sum(np.sqrt(spectrum(a @ a.T))),
                      -2: lambda a: np.sqrt(spectrum(a @ a.T)[0])}.items():
    case(LA.norm, lambda a, o=ord_: LA.norm(a, o), pos23, formula=formula, note=f"matrix-{ord_}")
    if ord_ != -2:
        case(LA.matrix_norm, lambda a, o=ord_: LA.matrix_norm(a, ord=o), pos23, formula=formula, note=str(ord_))
for ord_, formula in {1: lambda a: np.sum(a, 1), 3: lambda a: np.sum(a ** 3, 1) ** (1 / 3), np.inf: lambda a: np.max(a, 1),
    -np.inf: lambda a: np.min(a, 1),
                      -1: lambda a: 1 / np.sum(1 / a, 1), 2: lambda a: np.sqrt(np.sum(a * a, 1))}.items():
    case(LA.norm, lambda a, o=ord_: LA.norm(a, o, axis=1), pos23, formula=formula, note=f"vector-{ord_}")
    case(LA.vector_norm, lambda a, o=ord_: LA.vector_norm(a, ord=o, axis=1), pos23, formula=formula, note=str(ord_))
case(LA.norm, lambda a: LA.norm(a, axis=(0, 2)), x234, formula=lambda a: np.sqrt(np.sum(a * a, (0, 2))), note="pair")
case(LA.norm, lambda a: LA.norm(a.T), x23, formula=lambda a: np.sqrt(np.sum(a * a)), note="transposed")
for key, fn in {LA.matmul: lambda a: LA.matmul(a, a.T), LA.outer: lambda a: LA.outer(a[0], a[1]),
    LA.trace: lambda a: LA.trace(a, offset=1),
                LA.diagonal: LA.diagonal, LA.matrix_transpose: LA.matrix_transpose, LA.cross: lambda a: LA.cross(a[0], a[1]),
                LA.tensordot: lambda a: LA.tensordot(a, a, axes=((0,), (0,)))}.items():
    case(key, fn, x23)


def normal_equations(a: Any, b: Any) -> Any:
    return LA.solve(a.T @ a, a.T @ b)


def left_over(a: Any, b: Any) -> Any:
    r = b - a @ normal_equations(a, b)
    return np.sum(r * r, 0)


case(LA.lstsq, lambda a, b: LA.lstsq(a, b)[0], tall, draw(4, 2), formula=normal_equations)
case(LA.lstsq, lambda a, b: LA.lstsq(a, b)[0], tall, vec, note="vector", formula=normal_equations)
case(LA.lstsq, lambda a, b: LA.lstsq(a, b)[0], tall.T, row3, note="wide", formula=lambda a, b: a.T @ LA.solve(a @ a.T, b))
case(LA.lstsq, lambda a, b: LA.lstsq(a, b)[1] + LA.lstsq(a, b)[2], tall, draw(4, 2), note="residuals",
     formula=lambda a, b: left_over(a, b) + 3)
case(LA.lstsq, lambda a, b: LA.lstsq(a, b)[1], tall, vec, note="residual", formula=lambda a, b: left_over(a, b)[None])
case(LA.lstsq, lambda a, b: LA.lstsq(a, b)[3], tall, vec, note="s", formula=lambda a, b: np.sqrt(spectrum(a.T @ a))[::-1])
cube = draw(2, 2, 4) + 2 * np.eye(4).reshape(2, 2, 4)
case(LA.tensorsolve, LA.tensorsolve, cube, draw(2, 2))
case(LA.tensorsolve, lambda a, b: LA.tensorsolve(a, b, axes=(0,)), np.moveaxis(cube, 2, 0), draw(2, 2), note="axes",
     formula=lambda a, b: LA.tensorsolve(np.moveaxis(a, 0, 2), b))
case(LA.tensorinv, LA.tensorinv, cube)


# ------------------------------------------------------------------ Fourier transforms, against sums over the definition


def dft(a: Any, n: int | None = None, axis: int = -1, sign: int = -1) -> tuple:
    """The real and the imaginary part of sum_j a_j exp(sign 2 pi i j k / n), as two real sums: analytic in a."""
    a = np.moveaxis(a, axis, -1)
    n = n or a.shape[-1]
    a = np.concatenate([a, np.zeros((*a.shape[:-1], n))], -1)[..., :n]
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    return np.moveaxis(a @ np.cos(angle), -1, axis), np.moveaxis(a @ (sign * np.sin(angle)), -1, axis)


FT = np.fft
five, waves = draw(5), np.array([1.0, 0.5, -2.0])
for note, n in (("", None), ("padded", 8), ("cropped", 3)):
    case(FT.fft, lambda a, n=n: FT.fft(a, n).real + 2 * FT.fft(a, n).imag, five, note=note, formula=lambda a,
        n=n: dft(a, n)[0] + 2 * dft(a, n)[1])
    case(FT.rfft, lambda a, n=n: FT.rfft(a, n).imag - FT.rfft(a, n).real, five, note=note,
         formula=lambda a, n=n: (dft(a, n)[1] - dft(a, n)[0])[:(n or 5) // 2 + 1])
    case(FT.ifft, lambda a, n=n: FT.ifft(a, n).real, five, note=note, formula=lambda a, n=n: dft(a, n)[0] / (n or 5))
for norm, factor in (("ortho", 1 / np.sqrt(5)), ("forward", 1 / 5)):
    case(FT.fft, lambda a, norm=norm: FT.fft(a, norm=norm).imag, five, note=norm, formula=lambda a, f=factor: dft(a)[1] * f)
    case(FT.rfft, lambda a, norm=norm: FT.rfft(a, norm=norm).real, five, note=norm, formula=lambda a, f=factor: dft(a)[0][:3] * f)
    case(FT.irfft, lambda a, norm=norm: FT.irfft(FT.rfft(a, norm=norm), 5, norm=norm), five, note=norm, formula=lambda a: a + 0)
case(FT.fft, lambda a: np.abs(FT.fft(a)) ** 2, five, note="power", formula=lambda a: dft(a)[0] ** 2 + dft(a)[1] ** 2)
case(FT.fft, lambda a: FT.fft(a, axis=0).real, x23, note="axis", formula=lambda a: dft(a, axis=0)[0])


def filtered(a: Any, weights: np.ndarray) -> Any:
    """Each frequency times a real weight: a circular convolution, as a sum over its definition."""
    n = a.shape[-1]
    whole = np.concatenate([weights, weights[1:(n + 1) // 2][::-1]])
    kernel = np.cos(2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n) @ whole / n
    return a @ kernel[(np.arange(n)[None, :] - np.arange(n)[:, None]) % n]


case(FT.irfft, lambda a: FT.irfft(FT.rfft(a) * waves, 5), five, note="filter", formula=lambda a: filtered(a, waves))
case(FT.irfft, lambda a: FT.irfft(-FT.rfft(a) * np.array([0.0, 1.0, 4.0]) / 2.0, 4), vec, note="even",
     formula=lambda a: filtered(a, np.array([0.0, -0.5, -2.0])))
case(FT.irfft, lambda a, w: FT.irfft(FT.rfft(a) * w, 5), five, waves, note="weights",
     formula=lambda a, w: sum(w[k] * filtered(a, np.eye(3)[k]) for k in range(3)))
case(FT.irfft, lambda a: FT.irfft(np.conj(FT.rfft(a)) * FT.rfft(a), 5), five, note="correlation",
     formula=lambda a: np.stack([np.sum(a * np.roll(a, -k)) for k in range(5)]))
case(FT.ifft, lambda a, b: FT.ifft(FT.fft(a) * FT.fft(b)).real, five, draw(5, seed=1), note="convolution",
     formula=lambda a, b: np.stack([np.sum(a * np.roll(b[::-1], k + 1)) for k in range(5)]))
case(FT.ifft, lambda a: FT.ifft(FT.fft(a) * 1j).imag + (1 - FT.fft(a) - 2j + FT.fft(a)).real, five, note="complex-numbers",
     formula=lambda a: a + 1)
case(FT.ifft, lambda a: (FT.fft(a) / (FT.fft(a) + 9.0)).real + (1.0 / (FT.fft(a) + 9.0)).imag + FT.fft(a)[1].real, five,
    note="division",
     formula=lambda a: ((dft(a)[0] * (dft(a)[0] + 9) + dft(a)[1] ** 2 - dft(a)[1]) / ((dft(a)[0] + 9) ** 2 + dft(a)[1] ** 2)
                        + dft(a)[0][1]))


def dft2(a: Any) -> tuple:
    (re, im), (re_im, im_im) = (dft(x, axis=0) for x in dft(a))
    return re - im_im, im + re_im


for key in (FT.fft2, FT.fftn):
    case(key, lambda a, key=key: key(a).real - key(a).imag, x23, formula=lambda a: dft2(a)[0] - dft2(a)[1])
for key in (FT.rfft2, FT.rfftn):
    case(key, lambda a, key=key: key(a).real - key(a).imag, x23, formula=lambda a: (dft2(a)[0] - dft2(a)[1])[:, :2])
for key in (FT.ifft2, FT.ifftn):
    case(key, lambda a, key=key: key(a).real, x23, formula=lambda a: dft2(a)[0] / 6)
for key, forward in ((FT.irfft2, FT.rfft2), (FT.irfftn, FT.rfftn)):
    case(key, lambda a, key=key, forward=forward: key(forward(a), s=(2, 3), axes=(0, 1)), x23, formula=lambda a: a + 0)
case(FT.fftshift, lambda a: FT.fftshift(a) + FT.fftshift(FT.fft2(a)).real * 0, x23, formula=lambda a: np.roll(a, (1, 1), (0, 1)))
case(FT.ifftshift, lambda a: FT.ifftshift(a, 1), x23, formula=lambda a: np.roll(a, -1, 1))

# ------------------------------------------------------------------ indexing: plain, and with repeats
mask = np.array([[True, False, True], [False, False, True]])
places = np.array([1, 0, 1, 1])
item = np.ndarray.__getitem__
for note, fn in {
    "int": lambda a: a[1], "negative-int": lambda a: a[-1], "ints": lambda a: a[1, 2], "slice": lambda a: a[:, 1:],
    "step": lambda a: a[::-1, ::2], "None": lambda a: a[None, :, None], "Ellipsis": lambda a: a[..., 0],
    "Ellipsis-None": lambda a: a[..., None, 1], "mask": lambda a: a[mask], "mask-row": lambda a: a[mask[:, 0]],
    "mask-of-values": lambda a: a[a > 0], "repeats": lambda a: a[places], "list": lambda a: a[[0, 0, 1]],
    "repeats-2": lambda a: a[:, places], "pairs": lambda a: a[places, [0, 2, 0, 2]],
    "grid": lambda a: a[places[:, None], [[0, 1, 2]]], "int-and-array": lambda a: a[1, places],
    "numpy-int": lambda a: a[np.int64(1)], "overlap": lambda a: a[0] * a[1] + a[0], "rows": lambda a: sum(row for row in a),
}.items():
    case(item, fn, x23, note=note)
case(np.ndarray.astype, lambda a: a.astype(np.float64) * a, x23, formula=lambda a: a * a)


# ------------------------------------------------------------------ the oracle

def complex_gradient(loss: Callable, args: Any, eps: float = 1e-30) -> list:
    """dloss/dargs by the complex step: one evaluation for each entry."""
    args = [np.asarray(a, dtype=complex) for a in args]
    gradient = []
    for k, a in enumerate(args):
        g = np.zeros(a.shape)
        for index in np.ndindex(a.shape):
            moved = a.copy()
            moved[index] += 1j * eps
            g[index] = complex(loss(*args[:k], moved, *args[k + 1:])).imag / eps
        gradient.append(g)
    return gradient


def complex_hessian_product(loss: Callable, args: Any, directions: Any, h: float = 1e-5) -> list:
    """(d/ds) gradient(args + s directions) at s = 0, by a central difference of complex-step gradients."""
    ahead = complex_gradient(loss, [a + h * d for a, d in zip(args, directions, strict=True)])
    behind = complex_gradient(loss, [a - h * d for a, d in zip(args, directions, strict=True)])
    return [(p - m) / (2 * h) for p, m in zip(ahead, behind, strict=True)]

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
    name = getattr(key, "__name__", str(key)) + (f"-{note}" if note else "")
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
case(np.transpose, np.transpose, x234)
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
case(np.copy, np.copy, x23)
case(np.copy, lambda a: a.copy() * a, x23, note="method")
case(np.full_like, lambda a: np.full_like(a, a[0, 0]) * a, x23, note="tensor-fill",
     formula=lambda a: np.full_like(a, a[0, 0]) * a)

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

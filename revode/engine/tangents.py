"""The tangent column: forward mode, a second set of rules, written beside those of the table and never derived from them.

    y = op(a, b)        dy = D_a op(a, b) da + D_b op(a, b) db

A wrong pullback rule, transposed, would be a wrong tangent rule, and the two would agree. So each is written from the definition of
its operation, and checked by itself against the complex step (tests/unit/test_jvp.py). Operations that are linear in what they are
given, or in each of their inputs, need no rule: they are their own.

A function is run once on a tape, and then the entries are gone through, first to last.
"""
from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import tree
from .derivatives import checked
from .tensor import MANY, Op, Tape, Tensor, entry, is_float, number, value_of

# Linear in all inputs together: the same operation on the tangents.
TOGETHER = frozenset({
    "add", "subtract", "negative", "degrees", "rad2deg", "radians", "deg2rad", "sum", "cumsum", "concatenate", "reshape", "transpose",
    "broadcast_to", "flip", "getitem", "astype", "scatter_add", "fft", "ifft", "rfft", "irfft"})
# Linear in the first, whose second says where or how much.
FIRST = frozenset({"spread_along_axis", "take_along_axis", "ldexp"})
# Linear in each of them: the product rule.
EACH = frozenset({"multiply", "matmul", "einsum", "dot", "dot_over", "dot_number", "vecdot", "matvec", "vecmat"})


def sech2(a: Any) -> Any:
    e = np.exp(-2 * np.abs(a))
    return 4 * e / ((1 + e) * (1 + e))


def power(a: Any, b: Any) -> tuple[Any, Any]:
    base = np.where(a == 0, 1.0, a) if hasattr(a, "dtype") else a or 1.0
    return (np.where(b == 0, 0.0, b * np.power(a, b - (b != 0))),
            np.where(a == 0, 0.0, (np.log(base) if hasattr(a, "dtype") else float(np.log(base))) * np.power(base, b)))


def sinc(a: Any) -> Any:
    """(cos x - sin x / x) / a with x = pi a, and its series near 0."""
    near = np.abs(a) < 0.03
    x, far = np.pi * np.where(near, a, 0.0), np.where(near, 1.0, a)
    series = np.pi * x * (-1 / 3 + x * x * (1 / 30 - x * x * (1 / 840 - x * x / 45360)))
    return np.where(near, series, (np.cos(np.pi * far) - np.sin(np.pi * far) / (np.pi * far)) / far)


def one(*inputs: Any) -> Any:
    """1 in the dtype of the inputs: beside a mask, which has none, a number would make float64 of it."""
    return next(np.ones_like(x, shape=(1,))[0] for x in inputs if hasattr(x, "dtype"))


def larger(a: Any, b: Any) -> tuple[Any, Any]:
    """How much of the larger of the two each one is; equal ones share."""
    first = np.where(a == b, 0.5, one(a, b) * (a > b))
    return first, 1.0 - first


def by_number(pick: Callable) -> Callable:
    """fmax, fmin: a number wins over NaN."""
    def slopes(a: Any, b: Any) -> tuple[Any, Any]:
        first = np.where(np.isnan(b), 1.0, np.where(np.isnan(a), 0.0, pick(a, b)[0]))
        return first, 1.0 - first
    return slopes


# Elementwise: the derivative in each input, from the inputs alone.
SLOPES: dict[str, Callable] = {
    "divide": lambda a, b: (1 / b, -a / (b * b)),
    "power": power, "float_power": power,
    "maximum": larger, "minimum": lambda a, b: larger(-a, -b),
    "fmax": by_number(larger), "fmin": by_number(lambda a, b: larger(-a, -b)),
    "logaddexp": lambda a, b: (1 / (1 + np.exp(b - a)), 1 / (1 + np.exp(a - b))),
    "logaddexp2": lambda a, b: (1 / (1 + np.exp2(b - a)), 1 / (1 + np.exp2(a - b))),
    "arctan2": lambda a, b: (b / (a * a + b * b), -a / (a * a + b * b)),
    "remainder": lambda a, b: (1.0, -np.floor(a / b)),
    "fmod": lambda a, b: (1.0, -np.trunc(a / b)),
    "copysign": lambda a, b: (np.copysign(1.0, a) * np.copysign(1.0, b) * (a != 0), 0.0),
    "hypot": lambda a, b: (a / np.hypot(a, b), b / np.hypot(a, b)),
    # of a spectrum: the size of a complex number is taken as constant where it is zero
    "modulus": lambda re, im: tuple(np.where(np.hypot(re, im) == 0, 0.0, x / np.hypot(re, im)) for x in (re, im)),
    "absolute": lambda a: (np.sign(a),), "fabs": lambda a: (np.sign(a),),
    "square": lambda a: (2 * a,), "sqrt": lambda a: (0.5 / np.sqrt(a),),
    "cbrt": lambda a: (1 / (3 * np.cbrt(a) ** 2),), "reciprocal": lambda a: (-1 / (a * a),),
    "exp": lambda a: (np.exp(a),), "exp2": lambda a: (math.log(2) * np.exp2(a),), "expm1": lambda a: (np.exp(a),),
    "log": lambda a: (1 / a,), "log2": lambda a: (1 / (a * math.log(2)),), "log10": lambda a: (1 / (a * math.log(10)),),
    "log1p": lambda a: (1 / (1 + a),),
    "sin": lambda a: (np.cos(a),), "cos": lambda a: (-np.sin(a),), "tan": lambda a: (1 / np.cos(a) ** 2,),
    "arcsin": lambda a: (1 / np.sqrt((1 - a) * (1 + a)),), "arccos": lambda a: (-1 / np.sqrt((1 - a) * (1 + a)),),
    "arctan": lambda a: (1 / (1 + a * a),),
    "sinh": lambda a: (np.cosh(a),), "cosh": lambda a: (np.sinh(a),), "tanh": lambda a: (sech2(a),),
    "arcsinh": lambda a: (1 / np.hypot(a, 1.0),), "arccosh": lambda a: (1 / np.sqrt((a - 1) * (a + 1)),),
    "arctanh": lambda a: (1 / ((1 - a) * (1 + a)),),
    "sinc": lambda a: (sinc(a),), "fraction": lambda a: (1.0,),
    "mantissa": lambda a: (np.ldexp(1.0, -np.frexp(a)[1]),),
    "erf": lambda a: (2 / math.sqrt(math.pi) * np.exp(-a * a),),
    "at_least": lambda a, low: (a >= low, np.logical_not(a >= low)),
    "at_most": lambda a, high: (a <= high, np.logical_not(a <= high)),
    "clip": lambda a, low, high: ((a >= low) & (a <= high), (a < low) & (low <= high), np.maximum(a, low) > high),
}

# All others: the tangent from the tangents of the inputs (zeros where there are none), the value and the inputs.
TANGENTS: dict[str, Callable] = {}


def tangent(*names: str) -> Callable:
    def keep(rule: Callable) -> Callable:
        TANGENTS.update(dict.fromkeys(names, rule))
        return rule
    return keep


@tangent("where")
def _where(vs: Sequence, y: Any, c: Any, a: Any, b: Any) -> Any:
    return np.where(c, vs[1], vs[2])


@tangent("max", "min")
def _extreme(vs: Sequence, y: Any, a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    whole = y if keepdims else np.reshape(y, (1,) * np.ndim(a)) if axis is None else np.expand_dims(y, axis)
    reached = one(a) * (a == whole)
    return np.sum(vs[0] * reached, axis=axis, keepdims=keepdims) / np.sum(reached, axis=axis, keepdims=keepdims)


@tangent("prod")
def _prod(vs: Sequence, y: Any, a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """(p, dp) <- (p a, dp a + p da), factor by factor."""
    axes = tuple(range(np.ndim(a))) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    a, v = (np.moveaxis(x, axes, range(len(axes))) for x in (np.asarray(a), vs[0]))
    a, v = (np.reshape(x, (-1, *x.shape[len(axes):])) for x in (a, v))
    p, dp = 1.0, 0.0
    for factor, change in zip(a, v, strict=True):
        p, dp = p * factor, dp * factor + p * change
    return np.reshape(dp, np.shape(y))


@tangent("cumprod")
def _cumprod(vs: Sequence, y: Any, a: Any, axis: int) -> Any:
    p, dp, found = 1.0, 0.0, []
    for factor, change in zip(np.moveaxis(np.asarray(a), axis, 0), np.moveaxis(vs[0], axis, 0), strict=True):
        p, dp = p * factor, dp * factor + p * change
        found.append(dp)
    return np.moveaxis(np.stack(found), 0, axis)


@tangent("logaddexp.reduce")
def _logsumexp(vs: Sequence, y: Any, a: Any, axis: int) -> Any:
    return np.sum(vs[0] * np.exp(a - np.expand_dims(y, axis)), axis=axis)


@tangent("maximum.accumulate", "minimum.accumulate")
def _running(vs: Sequence, y: Any, a: Any, axis: int) -> Any:
    found: list = []
    for new, value, change in zip(np.moveaxis(y, axis, 0), np.moveaxis(a, axis, 0), np.moveaxis(vs[0], axis, 0), strict=True):
        found.append(change if not found else np.where(value == new, change, found[-1]))
    return np.moveaxis(np.stack(found), 0, axis)


def T(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


def trace(x: Any) -> Any:
    return np.trace(x, axis1=-2, axis2=-1)


@tangent("solve")
def _solve(vs: Sequence, y: Any, a: Any, b: Any) -> Any:
    """A Y = B, so A dY = dB - dA Y."""
    moved = np.matmul(vs[0], y[..., None])[..., 0] if np.ndim(b) == 1 else np.matmul(vs[0], y)
    return np.linalg.solve(a, vs[1] - moved)


@tangent("inv")
def _inv(vs: Sequence, y: Any, a: Any) -> Any:
    return -y @ vs[0] @ y


@tangent("det")
def _det(vs: Sequence, y: Any, a: Any) -> Any:
    return y * trace(np.linalg.solve(a, vs[0]))


@tangent("logabsdet")
def _logdet(vs: Sequence, y: Any, a: Any) -> Any:
    return trace(np.linalg.solve(a, vs[0]))


@tangent("sign_of_det", "stop_gradient")
def _none(vs: Sequence, y: Any, *inputs: Any) -> Any:
    """Constant; or a gradient that is not meant to flow, which is left out on both sides."""
    return np.zeros_like(y)


@tangent("pinv")
def _pinv(vs: Sequence, P: Any, a: Any) -> Any:
    """Golub & Pereyra 1973."""
    v, m, n = vs[0], np.shape(a)[-2], np.shape(a)[-1]
    return -P @ v @ P + P @ T(P) @ T(v) @ (np.eye(m) - a @ P) + (np.eye(n) - P @ a) @ T(v) @ T(P) @ P


@tangent("lstsq")
def _lstsq(vs: Sequence, y: Any, a: Any, b: Any, rcond: Any) -> Any:
    """X = P B with the pseudo-inverse P."""
    P = np.linalg.pinv(a, rcond=float(np.finfo(a.dtype).eps) * max(a.shape) if rcond is None else rcond)
    return _pinv([vs[0]], P, a) @ b + P @ vs[1]


@tangent("residuals")
def _residuals(vs: Sequence, y: Any, a: Any, b: Any, rcond: Any) -> Any:
    """Sums of squares of B - A X, which X makes as small as it can: so dX has no part in it."""
    X = np.linalg.lstsq(a, b, rcond)[0]
    return np.reshape(2 * np.sum((b - a @ X) * (vs[1] - vs[0] @ X), axis=0), np.shape(y))


def symmetric(v: Any, upper: bool) -> Any:
    """The change of a symmetric matrix of which one triangle is read."""
    half = np.triu(v) if upper else np.tril(v)
    return half + T(half) - np.eye(v.shape[-1]) * v


@tangent("cholesky")
def _cholesky(vs: Sequence, y: Any, a: Any, upper: bool = False) -> Any:
    """A = L L^T, so L^-1 dA L^-T = X + X^T with X = L^-1 dL lower triangular."""
    L = T(y) if upper else y
    X = np.linalg.solve(L, T(np.linalg.solve(L, symmetric(vs[0], upper))))
    dL = L @ (np.tril(X) - 0.5 * np.eye(X.shape[-1]) * X)
    return T(dL) if upper else dL


@tangent("eigenvalues", "eigvalsh")
def _eigenvalues(vs: Sequence, y: Any, a: Any, UPLO: Any = "L") -> Any:
    V = np.linalg.eigh(a, UPLO)[1]
    return np.einsum("...ji,...jk,...ki->...i", V, symmetric(vs[0], UPLO == "U"), V)


@tangent("eigenvectors")
def _eigenvectors(vs: Sequence, V: Any, a: Any, UPLO: Any = "L") -> Any:
    """First order perturbation theory: v_j changes by v_i (v_i . dA v_j) / (w_j - w_i)."""
    w = np.linalg.eigh(a, UPLO)[0]
    eye = np.eye(w.shape[-1])
    return V @ ((T(V) @ symmetric(vs[0], UPLO == "U") @ V) * (1 - eye) / (w[..., None, :] - w[..., :, None] + eye))


@tangent("svd_U", "svd_s", "svd_Vt", "svdvals")
def _svd(vs: Sequence, y: Any, a: Any, part: int = 1) -> Any:
    """a^T a = V s^2 V^T and a a^T = U s^2 U^T, perturbed; what leaves the span of the columns is divided by s alone."""
    U, s, Vt = np.linalg.svd(a, full_matrices=False)
    dP, eye = T(U) @ vs[0] @ T(Vt), np.eye(s.shape[-1])
    if part == 1:
        return np.einsum("...ii->...i", dP)
    F, S = (1 - eye) / (s[..., None, :] ** 2 - s[..., :, None] ** 2 + eye), s[..., None, :]
    if part == 0:
        return U @ (F * (dP * S + T(dP * S))) + (vs[0] @ T(Vt) - U @ dP) / S
    left = T(S) * dP
    return T(T(Vt) @ (F * (left + T(left))) + (T(vs[0]) @ U - T(Vt) @ T(dP)) / S)


TANGENTS["lstsq_s"] = lambda vs, y, a, b, rcond: _svd(vs, y, a)
TANGENTS["svd_U"] = lambda vs, y, a: _svd(vs, y, a, 0)
TANGENTS["svd_Vt"] = lambda vs, y, a: _svd(vs, y, a, 2)


@tangent("qr_Q", "qr_R", "qr_r")
def _qr(vs: Sequence, y: Any, a: Any, part: int = 1) -> Any:
    """dA R^-1 = dQ + Q dR R^-1, where Q^T dQ is skew and dR R^-1 upper triangular."""
    Q, R = np.linalg.qr(a)
    moved = T(np.linalg.solve(T(R), T(vs[0])))
    X = T(Q) @ moved
    skew = np.tril(X, -1) - T(np.tril(X, -1))
    return Q @ skew + moved - Q @ X if part == 0 else (X - skew) @ R


TANGENTS["qr_Q"] = lambda vs, y, a: _qr(vs, y, a, 0)


def of_entry(op: Op, vs: list, y: Any, inputs: Sequence, options: dict) -> Any:
    """The tangent of one operation; vs has None where nothing moves."""
    name = op.name
    if name in EACH:
        terms = [op.forward(*inputs[:i], v, *inputs[i + 1:], **options) for i, v in enumerate(vs) if v is not None]
        total = sum(terms[1:], terms[0])
    elif name in FIRST:
        total = op.forward(vs[0], *inputs[1:], **options)
    elif name in SLOPES:
        with np.errstate(all="ignore"):
            slopes = SLOPES[name](*inputs)
            total = sum((v * slope for v, slope in zip(vs, slopes, strict=True) if v is not None), 0.0)
    else:
        full = [np.zeros_like(x, dtype=getattr(y, "dtype", None)) if v is None else v for v, x in zip(vs, inputs, strict=True)]
        if name in TOGETHER:
            total = op.forward(*full, **options)
        elif op.tangent is not None:
            total = op.tangent(full, *inputs, **options)
        elif name in TANGENTS:
            total = TANGENTS[name](full, y, *inputs, **options)
        elif not op.vjps:
            return None                          # a constant
        else:
            raise NotImplementedError(f"jvp: {name} has no tangent rule")
    return fitted(total, y)


def fitted(v: Any, y: Any) -> Any:
    """A tangent in the shape and dtype of its value."""
    shape, dtype = np.shape(y), getattr(y, "dtype", np.float64)
    v = np.asarray(v, dtype) if not hasattr(v, "dtype") else v if v.dtype == dtype else v.astype(dtype)
    return v if v.shape == shape else np.broadcast_to(v, shape)


def push(tape: Tape, tangents: dict[int, Any]) -> dict[int, Any]:
    """From the tangents of a tape's inputs, by slot, to those of all its entries; missing where nothing moves."""
    found = dict(tangents)
    for i, node in enumerate(tape.nodes):
        if node is None:
            continue
        op, slots, inputs, options, y = entry(node)
        vs = [found.get(slot) if slot >= 0 else None for slot in slots]
        if all(v is None for v in vs):
            continue
        if op is MANY:
            places = iter(range(i + 1, len(tape.nodes)))
            for x, v in zip(y, options["push"](vs), strict=True):
                if is_float(x):
                    place = next(places)
                    if v is not None:
                        found[place] = fitted(v, x)
            continue
        v = of_entry(op, vs, y, inputs, options)
        if v is not None:
            found[i] = v
    return found


def linearised(fn: Callable, args: tuple) -> tuple[Any, Callable]:
    """(value of fn(*args), the function from a tangent tree of each argument to that of the value); None is for what does not move."""
    leaves, structure = tree.flatten(args)
    tape = Tape()
    inputs = [tape.input(checked(x)) if is_float(x) else x for x in leaves]
    try:
        outputs, out_structure = tree.flatten(fn(*tree.unflatten(structure, inputs)))
    finally:
        tape.release()
        tape.close()

    def on_tape(y: Any) -> bool:
        return type(y) is Tensor and y.tape is tape

    def along(tangents: tuple) -> Any:
        vs = tree.align(structure, tangents)
        found = push(tape, {x.slot: fitted(v, x._value) for x, v in zip(inputs, vs, strict=True) if v is not None and on_tape(x)})
        return tree.unflatten(out_structure, [
            found.get(y.slot, np.zeros_like(y._value)) if on_tape(y) else np.zeros_like(y) if is_float(y) else None for y in outputs])

    return tree.unflatten(out_structure, [y._value if on_tape(y) else y for y in outputs]), along


def jvp_of(fn: Callable, args: tuple, tangents: tuple) -> tuple[Any, Any]:
    """(value, tangent of the value) of fn(*args), for a tangent tree of each argument."""
    value, along = linearised(fn, args)
    return value, along(tangents)


def tangent_of_primal(fn: Callable, args: tuple, tangents: tuple) -> Any:
    """How the value of a custom operation changes: by the rules of what it is made of, or by central differences, in float64."""
    leaves, structure = tree.flatten(args)
    directions = {i: v for i, v in enumerate(tree.flatten(tangents)[0]) if v is not None}

    def value(*moved: Any) -> Any:                    # of what moves alone: options and numbers stay what they are
        at = dict(zip(directions, moved, strict=True))
        return fn(*tree.unflatten(structure, [at.get(i, x) for i, x in enumerate(leaves)]))[0]

    at, along = tuple(leaves[i] for i in directions), tuple(directions.values())
    try:
        return jvp_of(value, at, along)[1]
    except Exception as error:
        logging.getLogger("revode").info("jvp: the tangent of %s is taken by central differences, because its value cannot be "
                                         "followed: %s", getattr(fn, "__qualname__", fn), error)
    wide = [x.astype(np.float64) if hasattr(x, "astype") else x for x in at]
    size, speed = (max(number(np.max(np.abs(x))) for x in xs) for xs in (at, along))
    h = float(np.finfo(float).eps) ** (1 / 3) * (size or 1.0) / (speed or 1.0)
    before, after = (tree.flatten(value(*(x + sign * h * v for x, v in zip(wide, along, strict=True))))[0] for sign in (-1, 1))
    here, outer = tree.flatten(value(*at))
    return tree.unflatten(outer, [((b - a) / (2 * h)).astype(getattr(y, "dtype", float)) if is_float(y) else None
                                  for a, b, y in zip(before, after, here, strict=True)])


def jvp(fn: Callable) -> Callable:
    """The function (x, v) -> directional derivative of fn at x along v: forward mode.

    Parameters
    ----------
    fn : a function of one tree x, of NumPy functions; it returns a tree. v is a tree like x, of the same shapes; None for a
        leaf that does not move.

    Returns a function that returns a tree like fn(x).
    Raises ValueError where v is no tree like x, NotImplementedError for an operation without a tangent rule.

    Cost: about two evaluations of fn, and its tape (of a solve none: the tangent runs along the steps in constant memory, on the
    backend of the solve where that has a program for it).
    Source: Wengert 1964; Griewank & Walther, Evaluating Derivatives, 2008, chapter 3.

    Example
    -------
    >>> jvp(lambda x: np.sum(x ** 3))(np.array([1.0, 2.0]), np.array([1.0, 0.0])).item()
    3.0
    """
    def directional(x: Any, v: Any) -> Any:
        tree.check_leaves((x,), "jvp: x")
        leaves, structure = tree.flatten(x)
        try:
            vs = tree.align(structure, v)
        except ValueError as error:
            raise ValueError(f"jvp: {error}; give a direction like x, {tree.describe(x)}") from None
        for a, b in zip(leaves, vs, strict=True):
            if b is not None and is_float(a) and np.dtype(getattr(b, "dtype", type(b))).kind not in "fiub":
                raise TypeError(f"jvp: a direction is {tree.describe(b)}; it is made of real numbers, like x")
            if b is not None and is_float(a) and np.shape(value_of(a)) != np.shape(value_of(b)):
                raise ValueError(f"jvp: a direction of shape {np.shape(b)} was given for a leaf of shape {np.shape(a)}; the two are "
                                 "equal")
        return jvp_of(fn, (x,), (tree.unflatten(structure, vs),))[1]

    return directional

"""Products of arrays and linear algebra on tensors: one row an operation, as in primitives.py, then what is made from them.

A factorisation of several parts is one operation for each part, so that a rule may use the others as operations. The rules
hold where the functions are differentiable: distinct eigenvalues (eigh), distinct singular values that are not 0 (svd),
full column rank (qr), constant rank (pinv). cholesky and eigh read one triangle of their argument, and the cotangent lies in it.
Sources: Giles 2008, Collected matrix derivative results for forward and reverse mode; Walter & Lehmann 2010 (qr); Murray 2016
(cholesky); Golub & Pereyra 1973 (pinv).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .arrays import diagonal, moved, transpose
from .functions import array, axes_of, numpys
from .functions import sum as sum_of
from .primitives import _matmul_left, _matmul_right, swap
from .tensor import FUNCTIONS, RULES, Each, Op, apply, value_of

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


# Products --------------------------------------------------------------------------------------------------------------
def _dot(i: int, g: Any, y: Any, a: Any, b: Any) -> Any:
    """y[.., ..., m] = sum_k a[.., k] b[..., k, m] for b of more than two axes."""
    left, right = LETTERS[:a.ndim - 1] + "Y", LETTERS[a.ndim:a.ndim + b.ndim - 2] + "YZ"
    out = left[:-1] + right[:-2] + "Z"
    return np.einsum(f"{out},{right}->{left}", g, b) if i == 0 else np.einsum(f"{out},{left}->{right}", g, a)


DOT = Op("dot", np.dot, (_matmul_left, _matmul_right))          # for b of one or two axes it is matmul, in other bits
DOT_OVER = Op("dot_over", np.dot, Each(_dot))
DOT_NUMBER = Op("dot_number", np.dot, RULES[np.multiply].vjps)
VDOT = Op("vecdot", np.vecdot, (lambda g, y, a, b: np.expand_dims(g, -1) * b, lambda g, y, a, b: np.expand_dims(g, -1) * a))
MATVEC = Op("matvec", np.matvec, (lambda g, y, a, b: np.expand_dims(g, -1) * np.expand_dims(b, -2),
                                  lambda g, y, a, b: np.matvec(swap(a), g)))
VECMAT = Op("vecmat", np.vecmat, (lambda g, y, a, b: np.matvec(b, g),
                                  lambda g, y, a, b: np.expand_dims(a, -1) * np.expand_dims(g, -2)))
RULES[np.dot] = DOT


def dot(a: Any, b: Any) -> Any:
    a, b = array(a), array(b)
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return apply(DOT_NUMBER, a, b)
    return apply(DOT_OVER if np.ndim(b) > 2 else DOT, a, b)


@numpys(np.inner)
def inner(a: Any, b: Any) -> Any:
    a, b = array(a), array(b)
    return dot(a, swap(b) if b.ndim > 1 and a.ndim else b)


@numpys(np.vdot)
def vdot(a: Any, b: Any) -> Any:
    return dot(np.ravel(array(a)), np.ravel(array(b)))


def outer(a: Any, b: Any) -> Any:
    return np.reshape(array(a), (-1, 1)) * np.reshape(array(b), (1, -1))


@numpys(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = array(a), array(b)
    left, right = (range(a.ndim - axes, a.ndim), range(axes)) if isinstance(axes, int) else (
        [int(i) for i in np.ravel(x)] for x in axes)
    names, others = list(LETTERS[:a.ndim]), list(LETTERS[a.ndim:a.ndim + b.ndim])
    for i, j in zip(left, right, strict=True):
        others[j] = names[i]
    summed = {names[i] for i in left}
    free = [c for c in names + others if c not in summed]
    return np.einsum(f"{''.join(names)},{''.join(others)}->{''.join(free)}", a, b)


@numpys(np.kron)
def kron(a: Any, b: Any) -> Any:
    a, b = array(a), array(b)
    n = max(a.ndim, b.ndim)
    a, b = (np.reshape(x, (1,) * (n - x.ndim) + x.shape) for x in (a, b))
    product = np.reshape(a, [m for k in a.shape for m in (k, 1)]) * np.reshape(b, [m for k in b.shape for m in (1, k)])
    return np.reshape(product, tuple(k * m for k, m in zip(a.shape, b.shape, strict=True)))


@numpys(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    a, b = np.moveaxis(array(a), axisa, -1), np.moveaxis(array(b), axisb, -1)
    if a.shape[-1] == b.shape[-1] == 2:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    a, b = (x if x.shape[-1] == 3 else np.concatenate([x, 0 * x[..., :1]], -1) for x in (a, b))
    product = a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]]
    return np.moveaxis(product, -1, axisc)


# Einstein sums: '...', implicit output and lists become explicit letters -------------------------------------------------
def einsum(*args: Any, optimize: Any = False) -> Any:
    if type(args[0]) is not str:
        args = (from_lists(args), *args[0:len(args) // 2 * 2:2])
    subscripts, *operands = args
    operands = [array(x) for x in operands]
    inputs, output = explicit(subscripts, [x.ndim for x in operands])
    options = {"optimize": optimize} if optimize is not False else {}
    return apply(RULES[np.einsum], *operands, inputs=inputs, output=output, **options)


def from_lists(args: Any) -> str:
    """einsum(x, [0, 1], y, [1, 2], [0, 2]) as a string."""
    lists = [*args[1::2], *(args[-1:] if len(args) % 2 else ())]
    words = ["".join("..." if i is Ellipsis else LETTERS[i] for i in x) for x in lists]
    n = len(args) // 2
    return ",".join(words[:n]) + ("->" + words[n] if len(args) % 2 else "")


def explicit(subscripts: str, ndims: list[int]) -> tuple[tuple[str, ...], str]:
    """The letters of each operand and of the output; NumPy's ValueError where they do not fit."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    words = left.split(",")
    if len(words) != len(ndims):
        raise ValueError(f"einsum: {len(words)} subscripts for {len(ndims)} operands")
    spare = [c for c in LETTERS if c not in subscripts]
    stretched = [n - len(w.replace("...", "")) if "..." in w else 0 for w, n in zip(words, ndims, strict=True)]
    most = max(stretched)
    dots = "".join(spare[:most])
    inputs = tuple(w.replace("...", dots[most - k:]) for w, k in zip(words, stretched, strict=True))
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        output = ("..." if "..." in left else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if any(len(w) != n for w, n in zip(inputs, ndims, strict=True)) or ("..." not in output and most):
        raise ValueError(f"einsum: the subscripts {subscripts!r} do not fit operands of {ndims} axes")
    return inputs, output.replace("...", dots)


# Solving ---------------------------------------------------------------------------------------------------------------
def _outer_of(x: Any, y: Any, vector: bool) -> Any:
    """x y^T for columns, or for vectors."""
    return np.expand_dims(x, -1) * np.expand_dims(y, -2) if vector else np.matmul(x, swap(y))


SOLVE = Op("solve", np.linalg.solve, (
    lambda g, y, a, b: -_outer_of(np.linalg.solve(swap(a), g), y, b.ndim == 1), lambda g, y, a, b: np.linalg.solve(swap(a), g)))
INV = Op("inv", np.linalg.inv, (lambda g, y, a: -np.matmul(np.matmul(swap(y), g), swap(y)),))
DET = Op("det", np.linalg.det, (lambda g, y, a: (g * y)[..., None, None] * swap(np.linalg.inv(a)),))
LOGDET = Op("logabsdet", lambda a: np.linalg.slogdet(a)[1], (lambda g, y, a: g[..., None, None] * swap(np.linalg.inv(a)),))
SIGN = Op("sign_of_det", lambda a: np.linalg.slogdet(a)[0], (lambda g, y, a: None,))


def _pinv(g: Any, y: Any, a: Any, **options: Any) -> Any:
    m, n = a.shape[-2:]
    gt, yt = swap(g), swap(y)
    left, right = np.eye(m, dtype=a.dtype) - np.matmul(a, y), np.eye(n, dtype=a.dtype) - np.matmul(y, a)
    return (-np.matmul(np.matmul(yt, g), yt) + np.matmul(np.matmul(left, gt), np.matmul(y, yt))
            + np.matmul(np.matmul(yt, y), np.matmul(gt, right)))


PINV = Op("pinv", np.linalg.pinv, (_pinv,))


def _least(a: Any, b: Any, rcond: Any) -> Any:
    """The pseudo-inverse that np.linalg.lstsq multiplies with: its cut-off of the small singular values is another one."""
    return apply(PINV, a, rcond=float(np.finfo(a.dtype).eps) * max(a.shape) if rcond is None else rcond)


def _columns(x: Any) -> Any:
    return np.expand_dims(x, -1) if x.ndim == 1 else x


def _left_over(a: Any, b: Any, rcond: Any) -> Any:
    return b - np.matmul(a, apply(LEAST_SQUARES, a, b, rcond=rcond))


LEAST_SQUARES = Op("lstsq", lambda a, b, rcond: np.linalg.lstsq(a, b, rcond)[0], (
    lambda g, y, a, b, rcond: _pinv(np.matmul(_columns(g), swap(_columns(b))), _least(a, b, rcond), a),
    lambda g, y, a, b, rcond: np.matmul(swap(_least(a, b, rcond)), g)))
# The squares of what is left over, whose derivative in the solution is 0.
RESIDUALS = Op("residuals", lambda a, b, rcond: np.linalg.lstsq(a, b, rcond)[1], (
    lambda g, y, a, b, rcond: -2 * np.matmul(_columns(_left_over(a, b, rcond)) * g, swap(_columns(
        apply(LEAST_SQUARES, a, b, rcond=rcond)))),
    lambda g, y, a, b, rcond: 2 * (_left_over(a, b, rcond) * g)))
LEAST_SINGULAR = Op("lstsq_s", lambda a, b, rcond: np.linalg.lstsq(a, b, rcond)[3], (
    lambda g, y, a, b, rcond: _svd(1, g, a), lambda *args, **options: None))


def lstsq(a: Any, b: Any, rcond: float | None = None) -> tuple:
    a, b = array(a), array(b)
    _, residuals, rank, _ = np.linalg.lstsq(value_of(a), value_of(b), rcond)
    return (apply(LEAST_SQUARES, a, b, rcond=rcond), apply(RESIDUALS, a, b, rcond=rcond) if residuals.size else residuals, rank,
            apply(LEAST_SINGULAR, a, b, rcond=rcond))


@numpys(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    a, b = array(a), array(b)
    if axes is not None:
        last = tuple(i % a.ndim for i in axes)
        a = np.transpose(a, tuple(i for i in range(a.ndim) if i not in last) + last)
    x = np.linalg.solve(np.reshape(a, (b.size, b.size)), np.reshape(b, (-1,)))
    return np.reshape(x, a.shape[b.ndim:])


@numpys(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    n = int(np.prod(a.shape[ind:]))
    return np.reshape(np.linalg.inv(np.reshape(a, (n, n))), a.shape[ind:] + a.shape[:ind])


# Factorisations ----------------------------------------------------------------------------------------------------------
def lower(x: Any, diagonal: float) -> Any:
    """The lower triangle, with this factor on the diagonal."""
    n = x.shape[-1]
    return x * (np.tri(n, k=-1) + diagonal * np.eye(n)).astype(x.dtype)


def one_triangle(g: Any, upper: bool = False) -> Any:
    """The cotangent of a symmetric matrix of which one triangle is read."""
    both = lower(g + swap(g), 0.5)
    return swap(both) if upper else both


def _cholesky(g: Any, y: Any, a: Any, upper: bool = False) -> Any:
    L, g = (swap(y), swap(g)) if upper else (y, g)
    inside = lower(np.matmul(swap(L), g), 0.5)
    half = np.linalg.solve(swap(L), swap(np.linalg.solve(swap(L), swap(inside))))
    return one_triangle(half, upper)


CHOLESKY = Op("cholesky", np.linalg.cholesky, (_cholesky,))


def _eigenvalues(g: Any, y: Any, a: Any, UPLO: str = "L") -> Any:
    V = apply(EIGENVECTORS, a, UPLO=UPLO)
    return one_triangle(np.matmul(V * g[..., None, :], swap(V)), UPLO == "U")


def _eigenvectors(g: Any, y: Any, a: Any, UPLO: str = "L") -> Any:
    w = apply(EIGENVALUES, a, UPLO=UPLO)
    gaps = w[..., None, :] - w[..., :, None] + np.eye(w.shape[-1], dtype=w.dtype)
    inside = np.matmul(swap(y), g) * (1 - np.eye(w.shape[-1], dtype=w.dtype)) / gaps
    return one_triangle(np.matmul(np.matmul(y, inside), swap(y)), UPLO == "U")


EIGENVALUES = Op("eigenvalues", lambda a, UPLO="L": np.linalg.eigh(a, UPLO)[0], (_eigenvalues,))
EIGENVECTORS = Op("eigenvectors", lambda a, UPLO="L": np.linalg.eigh(a, UPLO)[1], (_eigenvectors,))
EIGVALSH = Op("eigvalsh", np.linalg.eigvalsh, (_eigenvalues,))


def _svd(part: int, g: Any, a: Any) -> Any:
    """a = U diag(s) V^T with min(m, n) columns each: the cotangent of one of the three parts, as one of a."""
    U, s, Vt = (apply(part, a) for part in SVD)
    n = s.shape[-1]
    eye = np.eye(n, dtype=a.dtype)
    if part == 1:
        return np.matmul(U * g[..., None, :], Vt)
    F = (1 - eye) / (np.square(s)[..., None, :] - np.square(s)[..., :, None] + eye)
    if part == 0:
        S = F * np.matmul(swap(U), g)
        inside = np.matmul(U, (S + swap(S)) * s[..., None, :])
        outside = (g - np.matmul(U, np.matmul(swap(U), g))) / s[..., None, :]
        return np.matmul(inside + outside, Vt)
    V, g = swap(Vt), swap(g)
    S = F * np.matmul(Vt, g)
    inside = np.matmul(s[..., :, None] * (S + swap(S)), Vt)
    outside = swap((g - np.matmul(V, np.matmul(Vt, g))) / s[..., None, :])
    return np.matmul(U, inside + outside)


SVD = (Op("svd_U", lambda a: np.linalg.svd(a, full_matrices=False)[0], (lambda g, y, a: _svd(0, g, a),)),
       Op("svd_s", lambda a: np.linalg.svd(a, full_matrices=False)[1], (lambda g, y, a: _svd(1, g, a),)),
       Op("svd_Vt", lambda a: np.linalg.svd(a, full_matrices=False)[2], (lambda g, y, a: _svd(2, g, a),)))
SINGULAR = Op("svdvals", lambda a: np.linalg.svd(a, compute_uv=False), (lambda g, y, a: _svd(1, g, a),))


def _qr(i: int, g: Any, a: Any) -> Any:
    """a = Q R with full column rank: (g_Q + Q sym(M)) R^-T, M = R g_R^T - g_Q^T Q, sym from the lower triangle."""
    if a.shape[-2] < a.shape[-1]:
        raise TypeError("np.linalg.qr of a matrix with more columns than rows is not differentiated here; "
                        "factor its first columns, and multiply the others by Q.T")
    Q, R = (apply(part, a) for part in QR)
    M = -np.matmul(swap(g), Q) if i == 0 else np.matmul(R, swap(g))
    half = lower(M, 0.5)
    total = np.matmul(Q, half + swap(half))
    return swap(np.linalg.solve(R, swap(total + g if i == 0 else total)))


QR = (Op("qr_Q", lambda a: np.linalg.qr(a)[0], (lambda g, y, a: _qr(0, g, a),)),
      Op("qr_R", lambda a: np.linalg.qr(a)[1], (lambda g, y, a: _qr(1, g, a),)))


def like_numpys(function: Callable, *parts: Any) -> Any:
    """The named tuple that NumPy's function returns, of these parts."""
    return type(function(np.eye(1)))(*parts)


def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    if not compute_uv:
        return apply(SINGULAR, a)
    if full_matrices and a.shape[-1] != a.shape[-2]:
        raise TypeError("np.linalg.svd of a tensor with full_matrices=True: the added columns have no derivative; "
                        "give full_matrices=False")
    return like_numpys(np.linalg.svd, *(apply(part, a) for part in SVD))


def qr(a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "r"):
        raise TypeError(f"np.linalg.qr of a tensor with mode={mode!r} is not differentiated here; 'reduced' and 'r' are")
    return like_numpys(np.linalg.qr, *(apply(part, a) for part in QR)) if mode == "reduced" else apply(R_ALONE, a)


R_ALONE = Op("qr_r", lambda a: np.linalg.qr(a, "r"), (lambda g, y, a: _qr(1, g, a),))


# Norms, traces, powers ---------------------------------------------------------------------------------------------------
def in_memory_order(x: Any) -> Any:
    """All entries in a row as they lie in memory, as x.ravel(order='K')."""
    strides = getattr(value_of(x), "strides", None)
    if strides is None or x.ndim < 2:
        return np.reshape(x, (-1,))
    order = tuple(int(i) for i in np.argsort([-abs(s) for s in strides], kind="stable"))
    return np.reshape(x if order == tuple(range(x.ndim)) else transpose(x, order), (-1,))


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if axis is None and (ord is None or (ord == 2 and np.ndim(x) == 1)):
        flat = in_memory_order(x)
        y = np.sqrt(dot(flat, flat))
        return np.reshape(y, (1,) * np.ndim(x)) if keepdims else y
    if ord in (None, 2) and isinstance(axis, (int, np.integer)):
        return np.sqrt(sum_of(x * x, normalize_axis_index(int(axis), np.ndim(x)), keepdims=keepdims))
    return any_norm(x, ord, axis, keepdims)


@numpys(np.linalg.norm)
def any_norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    kept: Any = {"keepdims": keepdims}
    if ord in (None, "fro", "f") or (ord == 2 and len(axes) == 1):
        return np.sqrt(np.sum(np.square(x), axis=axes, **kept))
    if len(axes) == 1:
        if ord == 0:
            return np.sum(0 * x, axis=axes, **kept)
        if abs(ord) == np.inf:
            return (np.max if ord > 0 else np.min)(abs(x), axis=axes, **kept)
        total = np.sum(abs(x) if ord == 1 else abs(x) ** ord, axis=axes, **kept)
        return total if ord == 1 else total ** (1 / ord)
    rows, columns = axes
    if ord in (2, -2, "nuc"):
        s = apply(SINGULAR, np.moveaxis(x, axes, (-2, -1)))
        value = np.sum(s, axis=-1) if ord == "nuc" else s[..., 0] if ord == 2 else s[..., -1]
        return np.expand_dims(value, tuple(i % x.ndim for i in axes)) if keepdims else value
    summed, chosen = (rows, columns) if abs(ord) == 1 else (columns, rows)
    value = (np.max if ord > 0 else np.min)(np.sum(abs(x), axis=summed, keepdims=True), axis=chosen, keepdims=True)
    return value if keepdims else np.squeeze(value, axes)


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    return plain_vector_norm(x, axis=axis, keepdims=keepdims, ord=ord)


@numpys(np.linalg.vector_norm)
def plain_vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    axes: Any = tuple(range(x.ndim)) if axis is None else axes_of(x, axis)
    flat = np.moveaxis(x, axes, range(len(axes)))
    value = any_norm(np.reshape(flat, (-1, *flat.shape[len(axes):])), ord, 0)
    return np.expand_dims(value, axes) if keepdims else value


@numpys(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    return any_norm(x, ord, (-2, -1), keepdims)


@numpys(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    if p in (None, 2, -2):
        s = apply(SINGULAR, x)
        return s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    return any_norm(x, p, (-2, -1)) * any_norm(np.linalg.inv(x), p, (-2, -1))


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    if np.ndim(a) == 2 and not offset and (axis1, axis2) == (0, 1):
        return sum_of(diagonal(a))
    return any_trace(a, offset, axis1, axis2)


@numpys(np.trace)
def any_trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return sum_of(moved(np.diagonal)(a, offset, axis1, axis2), -1)


@numpys(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    a = np.linalg.inv(a) if n < 0 else a
    power = None
    for bit in reversed(f"{abs(n):b}" if n else ""):
        power = (a if power is None else np.matmul(power, a)) if bit == "1" else power
        a = np.matmul(a, a)
    return power if power is not None else a * 0 + np.eye(a.shape[-1], dtype=a.dtype)


@numpys(np.linalg.multi_dot)
def multi_dot(arrays: Any) -> Any:
    first, *others = arrays
    for x in others:
        first = dot(first, x)
    return first


FUNCTIONS.update({
    np.dot: dot, np.outer: outer, np.einsum: einsum, np.linalg.norm: norm, np.trace: trace,
    np.vecdot: lambda a, b: apply(VDOT, a, b), np.matvec: lambda a, b: apply(MATVEC, a, b),
    np.vecmat: lambda a, b: apply(VECMAT, a, b),
    np.linalg.solve: lambda a, b: apply(SOLVE, array(a), array(b)), np.linalg.inv: lambda a: apply(INV, a),
    np.linalg.det: lambda a: apply(DET, a),
    np.linalg.slogdet: lambda a: like_numpys(np.linalg.slogdet, apply(SIGN, a), apply(LOGDET, a)),
    np.linalg.pinv: lambda a, rcond=None: apply(PINV, a, **({} if rcond is None else {"rcond": rcond})),
    np.linalg.cholesky: lambda a, upper=False: apply(CHOLESKY, a, upper=upper),
    np.linalg.eigh: lambda a, UPLO="L": like_numpys(np.linalg.eigh, *(
        apply(part, a, UPLO=UPLO) for part in (EIGENVALUES, EIGENVECTORS))),
    np.linalg.eigvalsh: lambda a, UPLO="L": apply(EIGVALSH, a, UPLO=UPLO),
    np.linalg.lstsq: lstsq, np.linalg.svd: svd, np.linalg.svdvals: lambda x: apply(SINGULAR, x), np.linalg.qr: qr,
    np.linalg.matmul: lambda x1, x2: np.matmul(x1, x2), np.linalg.outer: outer,
    np.linalg.trace: lambda x, offset=0: np.trace(x, offset, -2, -1),
    np.linalg.diagonal: lambda x, offset=0: moved(np.linalg.diagonal)(x, offset=offset),
    np.linalg.matrix_transpose: lambda x: swap(x), np.linalg.vecdot: lambda x1, x2, axis=-1: np.vecdot(
        np.moveaxis(array(x1), axis, -1), np.moveaxis(array(x2), axis, -1)),
    np.linalg.tensordot: lambda x1, x2, axes=2: np.tensordot(x1, x2, axes=axes),
    np.linalg.cross: lambda x1, x2, axis=-1: np.cross(x1, x2, axis=axis),
})

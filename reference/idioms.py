"""How people write NumPy: some six hundred expressions, as text, and the values to evaluate them at.

    x y (5,)  p (5,) positive  u (5,) in (-.9, .9)  s a number  A (3, 4)  B (4, 3)  S (3, 3) regular  C (3, 3) positive
    definite  T (2, 3, 4);  masks and places are plain: m (5,) bools, i [0, 2, 2];  L and F are np.linalg and np.fft

`SUPPORTED` by the kind of thing; `REFUSED`, with a reason; `UNSEEN`, what Python's own questions answer differently of a
tensor. tests/unit/test_idioms.py tries all of them, reference/functions.py makes the table of docs/numpy.md from them.
"""
from __future__ import annotations

import functools
import math
import operator
import re
from typing import Any

import numpy as np

SUPPORTED = {
    "operators": """
        x + y   x - y   x * y   x / p   x + 1   1 + x   2.0 * x   x * 2   1 - x   x - 1   1 / p   p / 2   -x   +x
        abs(x)   x ** 2   x ** 3   x ** 2.0   p ** 2.5   p ** -1   p ** 0.5   p ** x   2 ** x   2.0 ** x
        p ** np.arange(5)   x ** np.array(2)   x % 2.0   x // 2.0 + x   divmod(x, 2.0)[1]   x @ y   A @ B
        A @ np.ones(4)   np.ones(3) @ A   T @ B   x * m   x * np.arange(5)   x * [1.0, 2.0, 3.0, 4.0, 5.0]
        [1.0, 2.0, 3.0, 4.0, 5.0] + x   x * (x > 0)   s * x   x * s   s * s   A + A[0]   A * A[:, :1]
        A[:, :1] * A[:1]   np.float64(2.0) * x   x * True   round(s) + s   sum(x)   max(x)   min(x)
        sum(x[k] * k for k in range(5))   np.stack([a ** 2 for a in x])   swapped(x[:2])   rest(x)
        assigned_plus(x, y)   assigned_times(x, y)   assigned_over(x, p)   assigned_power(x)   x * (x == x)
        x * ((x > 0) & (x < 1))   x * ~(x > 0)   x * ((x > 0) | (x < -1))   x if x.sum() > -100 else -x   halved(x)
        sorted_joined(x)   np.stack(list(x))   np.stack(list(reversed(x)))   sum(a * b for a, b in zip(x, y))
        sum(k * a for k, a in enumerate(x))   functools.reduce(operator.mul, x)   operator.matmul(S, S)   nested(x, 5)
        math.pi * x   x * (x[0] in [1, 2])   x * len(f'{x.sum():.3f}')   x * (len(repr(x)) > 0)
        x * hasattr(x, 'shape')   x * bool(np.all(np.isfinite(x)))   x ** 2 if isinstance(x, np.ndarray) else 0 * x
        np.polynomial.polynomial.polyval(x, [1.0, 2.0])
    """,
    "indexing": """
        x[0]   x[-1]   x[1:3]   x[::2]   x[::-1]   x[[0, 2, 2]]   x[i]   x[np.array([1, 1])]   x[m]   x[x > 0]
        x[None]   x[:, None]   x[...]   x[..., 0]   x[()]   x[np.int64(1)]   x[np.argmax(x)]   x[np.argsort(x)]
        x[True]   x[np.newaxis, :]   x[range(3)]   x[slice(None, 3)]   x[[]]   x[0:0]   A[0]   A[:, 1]   A[0, 1]
        A[0][1]   A[[0, 1], [2, 3]]   A[[0, 0], :]   A[np.ix_([0, 2], [1, 3])]   A[:, [1, 1]]   A[A > 0]   A[..., -1]
        A[1:, None, :2]   A[np.triu_indices(3)]   A[:, np.array([True, False, True, False])]   A[[[0, 1], [2, 0]]]
        np.stack(list(A.flat))   A[0, [1, 1]]   T[:, [0, 1]]   T[0, :, [0, 1]]   T[[0, 1], ..., [0, 1]]
        T[:, 0, ::-2]   x[x.argmax()]   A[-1, -1]   A[1:2, 1:2]   A[::-1, ::-1]   x[np.nonzero(x)]
        A[np.nonzero(A > 0)]   A[np.where(A > 0)]   x[np.flatnonzero(m)]   S[np.diag_indices(3)]   A[A.sum(1) > -9]
        A[np.arange(3), np.argmax(A, axis=1)]   S[np.tril_indices_from(S)]
    """,
    "methods": """
        A.sum()   A.sum(0)   A.sum(axis=-1, keepdims=True)   A.mean()   A.mean(1)   A.std()   A.std(0, ddof=1)
        A.var()   A.var(ddof=1)   A.max()   A.max(axis=1, keepdims=True)   A.min(0)   A.prod()   A.prod(1)
        A.cumsum(1)   A.cumprod(1)   A.T   A.mT   A.transpose()   A.transpose(1, 0)   A.transpose((1, 0))
        A.reshape(4, 3)   A.reshape((2, -1))   A.reshape(-1)   A.reshape(-1, order='F')   A.ravel()   A.ravel('F')
        A.flatten()   A.flatten('F')   A.copy()   A.astype(A.dtype)   A.astype(float)   A.astype('f8')
        A.astype(int) + A   A.dot(B)   A.clip(-0.5, 0.5)   A.clip(min=0)   A[None].squeeze()   A.swapaxes(0, 1)
        A.repeat(2, 0)   A.take([0, 1], 1)   A.trace()   A.diagonal()   A.round() + A   A.conj()   A.real   A.imag + A
        A * A.argmax()   A * A.argmin(0)   A * A.argsort()   A * A.any()   A * A.all()   A[A.nonzero()]
        A.max(initial=0)   A.sum(where=A > 0)   A.sum(dtype=float)   A.mean(dtype=float)   A[0, 0].item() * A
        A.tolist()[1][2] * A   A.view()   A * A.size * A.ndim * len(A)   A * A.shape[0]   A.compress([1, 0, 1], 0)
        A * np.ones(4, A.dtype)   copy.copy(A)   copy.deepcopy(A)   A * np.shape(A)[0]   x * x.nbytes
    """,
    "elementwise": """
        np.exp(x)   np.expm1(x)   np.exp2(x)   np.log(p)   np.log2(p)   np.log10(p)   np.log1p(p)   np.sqrt(p)
        np.cbrt(p)   np.square(x)   np.reciprocal(p)   np.sin(x)   np.cos(x)   np.tan(u)   np.arcsin(u)   np.arccos(u)
        np.arctan(x)   np.sinh(x)   np.cosh(x)   np.tanh(x)   np.arcsinh(x)   np.arccosh(1 + p)   np.arctanh(u)
        np.negative(x)   np.positive(x)   np.absolute(x)   np.abs(x)   np.fabs(x)   np.sign(x) * x   np.floor(x) + x
        np.ceil(x) + x   np.rint(x) + x   np.trunc(x) + x   np.round(x) + x   np.around(x, 1) + x   np.fix(x) + x
        np.degrees(x)   np.radians(x)   np.deg2rad(x)   np.rad2deg(x)   np.sinc(x)   np.conj(x)   np.conjugate(x)
        np.real(x)   np.imag(x) + x   np.isnan(x) + x   np.isfinite(x) * x   np.signbit(x) + x   np.nan_to_num(x)
        np.add(x, y)   np.subtract(x, y)   np.multiply(x, y)   np.divide(x, p)   np.true_divide(x, p)   np.power(p, y)
        np.pow(p, y)   np.maximum(x, y)   np.minimum(x, y)   np.fmax(x, y)   np.fmin(x, y)   np.maximum(x, 0)
        np.maximum(0.0, x)   np.arctan2(x, p)   np.hypot(x, p)   np.logaddexp(x, y)   np.logaddexp2(x, y)
        np.remainder(x, p)   np.mod(x, p)   np.fmod(x, p)   np.floor_divide(x, p) + x   np.copysign(p, x)
        np.float_power(p, y)   np.heaviside(x, 0.5) * x   np.ldexp(x, 2)   np.modf(x)[0]   np.frexp(p)[0]
        np.divmod(x, 2.0)[1]   np.where(x > 0, x, y)   np.where(x > 0, x, 0)   np.where(x > 0, 1.0, x)
        np.where(m, x, y)   x[np.where(x > 0)[0]]   np.clip(x, -0.5, 0.5)   np.clip(x, None, 0.5)
        np.clip(x, y - 1, y + 0.1)   np.clip(x, min=-0.5, max=0.5)   np.clip(x, a_min=-0.5, a_max=0.5)
        np.select([x > 0, x < -0.5], [x, x ** 2], 0.0)   np.choose([0, 1, 0, 1, 0], [x, x ** 2])
        np.piecewise(x, [x < 0, x >= 0], [lambda z: -z, lambda z: z ** 2])   np.add.reduce(x)   np.multiply.reduce(x)
        np.maximum.reduce(x)   np.minimum.reduce(A, axis=1)   np.add.outer(x, y)   np.multiply.outer(x, y)
        np.subtract.outer(x, y)   np.add.accumulate(x)   np.multiply.accumulate(x)   np.maximum.accumulate(A)
        np.minimum.accumulate(x)   np.logaddexp.reduce(A)   x * np.logical_and(x > 0, x < 1)
        x * np.logical_or(x > 0, x < -1)   x * np.logical_not(x > 0)   x * np.logical_xor(x > 0, y > 0)
        x * np.isclose(x, x)   x * np.greater(x, y)   x * np.less_equal(x, y)   x * np.equal(x, x)
        x * np.not_equal(x, y)   np.angle(x) + x   np.real_if_close(x)   np.unwrap(4 * x)
        np.interp(x, np.linspace(-3, 3, 7), np.arange(7.0))   np.interp(0.3, np.arange(5.0), x)
        np.interp(x, np.linspace(-3, 3, 5), y)   np.polyval(x, 0.3)   np.polyval([1.0, 2.0, 3.0], x)   np.gradient(x)
        np.gradient(A)[1]   np.gradient(x, 0.5)   np.gradient(x, np.array([0.0, 0.2, 0.5, 0.9, 2.0]))
        np.gradient(A, axis=0)   np.diff(x)   np.diff(x, 2)   np.diff(A, axis=0)   np.diff(x, prepend=0.0)
        np.ediff1d(x)   np.convolve(x, y)   np.convolve(x, y[:3], 'same')   np.convolve(x, y[:3], 'valid')
        np.correlate(x, y, 'full')   np.trapezoid(x)   np.trapezoid(x, dx=0.1)   np.trapezoid(A, axis=0)
        np.exp(-x ** 2 / 2) / np.sqrt(2 * np.pi)   1 / (1 + np.exp(-x))   np.log1p(np.exp(x))   x * np.exp(s)
        np.isinf(x) + x   np.nextafter(0.0, 1.0) + x   np.astype(x, float)
    """,
    "reductions": """
        np.sum(x)   np.sum(A, 0)   np.sum(A, axis=(0, 1))   np.sum(A, -1, keepdims=True)   np.sum(A, where=A > 0)
        np.sum(A, initial=1.0)   np.sum(A, dtype=A.dtype)   np.sum([x[0], x[1] * 2])   np.prod(x)   np.prod(A, 0)
        np.prod(A, axis=(0, 1))   np.mean(x)   np.mean(A, 0)   np.mean(A, (0, 1))   np.mean(A, axis=1, keepdims=True)
        np.average(A)   np.average(A, weights=np.arange(12.0).reshape(3, 4))
        np.average(A, axis=0, weights=[1.0, 2.0, 3.0])   np.average(x, weights=p)   np.var(A)   np.var(A, 1, ddof=1)
        np.var(A, correction=1)   np.std(A)   np.std(A, 0)   np.max(A)   np.max(A, 1)   np.max(A, (0, 1))
        np.amax(A, 0)   np.amin(A, 0)   np.min(A, 1)   np.nanmax(A)   np.nanmin(A, 0)   np.nansum(A)   np.nanmean(A)
        np.nanstd(A)   np.nanvar(A, 0)   np.nanprod(A, 1)   np.nanmedian(A)   np.nanquantile(A, 0.3)
        np.nanpercentile(A, 30, axis=1)   np.nancumsum(A)   np.nancumprod(A, 0)   np.median(A)   np.median(A, axis=1)
        np.percentile(A, 30)   np.quantile(A, 0.3)   np.quantile(A, [0.25, 0.75], axis=1)   np.ptp(A)   np.ptp(A, 0)
        np.cumsum(x)   np.cumsum(A, 0)   np.cumprod(x)   np.cumprod(A, 1)   np.cumulative_sum(x)
        np.cumulative_prod(x, include_initial=True)   np.sort(x)   np.sort(A, 1)   np.sort(A, axis=None)
        np.partition(A, 2)   np.take_along_axis(A, np.argsort(A, 1), 1)   np.cov(A)   np.cov(A, rowvar=False)
        np.corrcoef(A)   np.bincount([0, 1, 1, 2], weights=A[0])   A * np.count_nonzero(A)   A * np.any(A) * np.all(A)
        A * np.argmax(A)   A * np.argmin(A, 1)[:, None]   np.apply_along_axis(np.sum, 0, A)
        np.apply_along_axis(lambda r: r / r.sum(), 1, p[None])   np.exp(x) / np.sum(np.exp(x))   x - np.max(x)
        np.log(np.sum(np.exp(x - np.max(x)))) + np.max(x)   np.max([x[0], x[1]])   np.sqrt(np.mean(x ** 2))
        np.sum(A ** 2, axis=1) ** 0.5   np.mean((A - A.mean(0)) ** 2, 0)
    """,
    "shapes": """
        np.reshape(A, (4, 3))   np.reshape(A, (4, 3), order='F')   np.reshape(A, -1)   np.reshape(A, shape=(4, 3))
        np.ravel(A)   np.ravel(A, order='F')   np.transpose(A)   np.transpose(T, (2, 0, 1))
        np.permute_dims(A, (1, 0))   np.matrix_transpose(T)   np.swapaxes(A, 0, 1)   np.swapaxes(A, 0, -1)
        np.moveaxis(A, 0, -1)   np.moveaxis(T, [0, 1], [-1, -2])   np.rollaxis(A, 1)   np.expand_dims(A, 1)
        np.expand_dims(A, (0, -1))   np.squeeze(A[None])   np.squeeze(A[None], axis=0)   np.broadcast_to(A, (2, 3, 4))
        np.broadcast_to(s, (2, 2))   np.broadcast_arrays(A, A[0])[1]   np.atleast_1d(s)   np.atleast_2d(x)
        np.atleast_3d(A)   np.concatenate([A, A], 1)   np.concatenate((A, A), axis=None)
        np.concatenate([A, np.ones((1, 4))])   np.concat([A, A])   np.append(A, A)   np.append(x, [1.0, 2.0])
        np.append(A, A, axis=1)   np.stack([A, A], -1)   np.stack([x[0], x[1]])   np.stack([x[0], 1.0])
        np.stack(tuple(a for a in A))   np.array([x[0], x[1]])   np.array([x[1], -np.sin(x[0])])
        np.array([[x[0], 0.0], [1.0, x[1]]])   np.asarray([x[0], x[1]])   np.array(s * 2)   np.full(3, s)
        np.vstack([A, A])   np.vstack([x, y])   np.vstack([x[0], x[1]])   np.hstack([A, A])   np.hstack([x, y])
        np.hstack([x[0], x[1]])   np.hstack([x[0], y])   np.hstack([x[0], 1.0])   np.hstack([x, 1.0])
        np.dstack([A, A])   np.column_stack([x, y])   np.column_stack([A, A[:, 0]])   np.block([[A, A], [A, A]])
        np.block([x, y])   np.r_[x[0], x[1]]   np.split(A, 2, axis=1)   np.split(A, [1, 3], axis=1)
        np.array_split(A, 3, axis=1)   np.hsplit(A, 2)   np.vsplit(A, 3)   np.dsplit(T, 2)   np.unstack(A)
        np.tile(A, (2, 1))   np.tile(x, 3)   np.repeat(A, 2, 0)   np.repeat(A, [1, 2, 0], axis=0)   np.repeat(A, 2)
        np.roll(A, 1, axis=1)   np.roll(A, 1)   np.roll(A, (1, 1), axis=(0, 1))   np.roll(x, -2)   np.flip(A)
        np.flip(A, 1)   np.flipud(A)   np.fliplr(A)   np.rot90(A)   np.rot90(A, 2)   np.take(A, [0, 2], axis=1)
        np.take(A, [0, 5])   np.take(A, [7], axis=1, mode='wrap')
        np.take_along_axis(A, np.array([[0], [1], [2]]), 1)   np.compress([True, False, True], A, axis=0)
        np.extract(A > 0, A)   np.delete(A, 1, axis=0)   np.delete(x, [0, 3])   np.insert(A, 1, 0.0, axis=0)
        np.insert(x, 2, s)   np.resize(x, (2, 4))   np.pad(A, 1)   np.pad(x, (1, 2))   np.pad(A, 1, mode='edge')
        np.pad(A, 1, mode='wrap')   np.pad(x, 2, mode='reflect')   np.pad(x, 2, mode='symmetric')
        np.pad(x, 1, constant_values=3.0)   np.tril(A)   np.triu(A, 1)   np.tril(S, -1)   np.diag(A)   np.diag(x)
        np.diag(x, k=1)   np.diag(np.diag(S))   np.diagonal(A)   np.diagonal(T, 0, 1, 2)   np.diagflat(x)
        np.trace(A)   np.trace(A, 1)   np.trace(A, offset=-1)   np.trace(T)   np.meshgrid(x, y)[1]
        np.meshgrid(x, y, indexing='ij')[0]   np.full_like(A, 3.0) + A   np.full_like(A, s)   np.zeros_like(A) + A
        np.ones_like(A) * A   np.empty_like(A) * 0 + A   np.linspace(s, 2.0, 5)   np.linspace(x[0], x[1], 5)
        np.vander(x)   np.vander(x, 3, increasing=True)   A * np.iterable(A)
        np.lib.stride_tricks.sliding_window_view(x, 2)   A * np.size(A) * np.ndim(A)
        A * np.ones(4, np.result_type(A))   A * len(np.broadcast_shapes(A.shape, (4,)))   A * np.array_equal(A, A)
        A[np.nonzero(A)]   x * np.searchsorted(np.arange(3.0), x)   np.copy(A)   x * np.digitize(x, [0.0, 1.0])
        np.eye(5) * x   np.ones((2, 5)) * x   np.arange(5.0) * x   np.tri(5) @ x   x * np.isin(x, [1.0])
        np.outer(np.ones(3), x)   x[:, None] - x[None, :]   (A - A.mean(axis=0)) / A.std(axis=0)
    """,
    "linear algebra": """
        np.dot(x, y)   np.dot(A, np.ones(4))   np.dot(A, B)   np.dot(s, x)   np.dot(np.ones(3), A)
        np.dot(T, np.ones(4))   np.dot(T, B)   np.dot(A[:2], np.moveaxis(T, 2, 1))   np.inner(x, y)   np.inner(A, A)
        np.inner(s, x)   np.inner(s, A)   np.inner(T, A)   np.outer(x, y)   np.outer(A, x)   np.vdot(x, y)
        np.vdot(A, A)   np.vecdot(A, A)   np.matvec(A, np.ones(4))   np.vecmat(np.ones(3), A)   np.matmul(A, B)
        np.tensordot(A, B, 1)   np.tensordot(T, A, axes=([1, 2], [0, 1]))   np.tensordot(A, B, axes=(1, 0))
        np.tensordot(x, y, 0)   np.tensordot(x, s, 0)   np.einsum('ij,jk->ik', A, B)   np.einsum('ij,jk', A, B)
        np.einsum('ii', S)   np.einsum('ii->i', S)   np.einsum('i,i->', x, y)   np.einsum('i,i', x, y)
        np.einsum('i,j->ij', x, y)   np.einsum('...ij,jk->...ik', T, B)   np.einsum('ijk->kji', T)
        np.einsum('i->', x)   np.einsum('ij->j', A)   np.einsum('ij,ij->i', A, A)   np.einsum('ij,jk,kl->il', A, B, S)
        np.einsum('ij,jk->ik', A, B, optimize=True)   np.einsum(A, [0, 1], B, [1, 2], [0, 2])
        np.einsum('bij,bij->b', T, T)   np.kron(A, S)   np.kron(x, y)   np.cross(x[:3], y[:3])   np.cross(S, S[::-1])
        L.multi_dot([A, B, A])   L.matrix_power(S, 3)   L.matrix_power(S, -2)   L.inv(S)   L.pinv(A)
        L.solve(S, B[:3])   L.solve(S, x[:3])   L.solve(np.stack([S, C]), T[:, :, :1])   L.lstsq(B, x[:4])[0]
        L.lstsq(B, A[0] * 1)[1]   L.det(S)   L.slogdet(S)[1]   L.slogdet(C).logabsdet   L.cholesky(C)
        L.cholesky(S @ S.T + np.eye(3))   L.qr(S)[1]   L.qr(B)[0]   L.qr(S, 'r')   L.svd(S)[1]
        L.svd(B, full_matrices=False)[1]   L.svd(B, compute_uv=False)   L.svdvals(B)   L.eigh(C)[0]   L.eigvalsh(C)
        L.eigvalsh(S + S.T)   projector(C)   L.norm(x)   L.norm(A)   L.norm(A, 'fro')   L.norm(x, 1)
        L.norm(x, np.inf)   L.norm(x, 2)   L.norm(x, 3)   L.norm(A, axis=-1)   L.norm(A, axis=1, keepdims=True)
        L.norm(A, ord=2, axis=1)   L.norm(A, 2)   L.norm(A, 'nuc')   L.norm(A, 1)   L.norm(A, axis=(0, 1))
        L.norm(T, 2, (1, 2))   L.norm(T)   L.vector_norm(x)   L.matrix_norm(A)   L.trace(S)   L.diagonal(S)
        L.cond(S)   L.cond(S, 'fro')   L.outer(x, y)   L.cross(x[:3], y[:3])   L.matmul(A, B)
        L.tensordot(A, B, axes=1)   L.vecdot(A, A)   L.matrix_transpose(A)   np.diagonal(T, axis1=1, axis2=2)
        L.tensorinv(S.reshape(3, 1, 3))   x / L.norm(x)   x @ np.diag(p) @ y   np.trace(L.inv(C) @ S)
        L.solve(C, S) @ x[:3]   np.sum(A * (A @ B @ A))   A.T @ A
    """,
    "Fourier": """
        F.fft(x).real   F.fft(x).imag   np.real(F.fft(x))   np.imag(F.fft(x))   np.abs(F.rfft(p)) ** 2
        F.ifft(F.fft(x)).real   F.irfft(F.rfft(x), 5)   F.irfft(F.rfft(x) * np.array([1.0, 0.5, 0.0]), 5)
        F.irfft(-1j * np.arange(3) * F.rfft(x), 5)   F.ifft(F.fft(x) * F.fft(y)).real   F.fft(A, axis=0).real
        F.fft2(A).real   F.fftn(T).imag   F.rfft2(A).real   F.irfft2(F.rfft2(A))   F.fftshift(x)   F.ifftshift(A)
        F.fft(x, norm='ortho').real   F.fft(x, 8).imag   F.rfft(x, 3).real   F.fftfreq(5) * x   np.conj(F.fft(x)).imag
        (F.fft(x) * np.conj(F.fft(x))).real   F.ifft2(F.fft2(A)).real   F.rfftn(A).real   (F.fft(x) / 2).real
    """,
}

REFUSED = {
    "written in place, and the gradient needs what was there": """
        into_plain(x)   plain_plus(x)   slices_plus(x)   into_tensor(x)   filled(x)   sorted_in_place(x)
        diagonal_filled(S)   copied_over(A)   placed(x)   np.exp(x, out=np.zeros(5))   np.sum(x, out=np.zeros(()))
    """,
    "a plain number or array, which carries no gradient": """
        float(x[0])   int(x[0])   math.sin(s)   math.sqrt(s)   np.asarray(x)   np.array(x)   np.asanyarray(x)
        np.ascontiguousarray(x)   np.array([x, y])   np.sum([x, y])   np.r_[x, y]   np.c_[x, y]
        np.vectorize(lambda z: z ** 2)(x)   np.arange(x[0] + 5)   np.random.RandomState(0).normal(x)
        np.polynomial.Polynomial([1.0, 2.0])(x)   np.ma.masked_array(x, mask=m).sum()   x.flags   scipy.linalg.expm(S)
        scipy.special.logsumexp(x)   pickled(x)
    """,
    "other libraries' functions, for which rv.nn has one": """
        scipy.special.expit(x)   scipy.special.erf(x)
    """,
    "other dtypes": """
        1j * x   x + 1j * x   np.exp(1j * x).real   np.sum(x * 1j)   x.astype(complex)   x.astype(np.float16)
        x * np.ones(5, np.float16)   x * np.longdouble(2)   x + np.array([1.0, 2.0, 3.0, 4.0, 5.0], object)
        np.asmatrix(np.eye(5)) @ x
    """,
    "no derivative, or none here": """
        np.spacing(x)   np.nextafter(x, 1.0)   np.i0(x)   np.unique(x)   np.histogram(x)[0] * x[0]   L.eig(S + S.T)[0]
        L.eigvals(S)   L.svd(A)[2]   L.qr(A)[1]   np.poly(x)   np.roots(x)   np.exp(x, where=m)
        np.add(x, y, dtype=np.float64)   np.pad(x, 1, mode='mean')   np.quantile(x, 0.3, method='lower')
        np.square(F.fft(x))   np.exp(F.fft(x))   np.log(F.fft(x))
    """,
}

UNSEEN = """
    x * (type(x) is np.ndarray)   s * isinstance(s, float)   s * np.isscalar(s)   s * (not hasattr(s, '__len__'))
    s * isinstance(s, numbers.Number)
"""


def expressions(text: str) -> list[str]:
    """The expressions of a group; three spaces, or a new line, between two of them."""
    return [e for e in re.split(r"\s{3,}|\n", text.strip()) if e]


def values(dtype: Any = np.float64) -> dict[str, Any]:
    """The arguments, by name."""
    rng = np.random.default_rng(2)
    S = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    found = {"x": rng.normal(size=5), "y": rng.normal(size=5), "p": rng.uniform(0.5, 2.0, 5), "u": rng.uniform(-0.9, 0.9, 5),
             "A": rng.normal(size=(3, 4)), "B": rng.normal(size=(4, 3)), "S": S, "C": S @ S.T + np.diag([0.0, 2.0, 5.0]),
             "T": rng.normal(size=(2, 3, 4))}
    return {**{name: x.astype(dtype) for name, x in found.items()}, "s": 0.7}


def arguments(expression: str) -> list[str]:
    """The names of the arguments that an expression reads."""
    names = compile(expression, "<idiom>", "eval")
    found: set[str] = set()
    pending = [names]
    while pending:
        code = pending.pop()
        found |= set(code.co_names) | set(code.co_freevars)
        pending += [c for c in code.co_consts if hasattr(c, "co_names")]
    return [name for name in ("x", "y", "p", "u", "A", "B", "S", "C", "T", "s") if name in found]


def function(expression: str) -> Any:
    """The expression as a function of its arguments."""
    return eval(f"lambda {', '.join(arguments(expression))}: {expression}", dict(AROUND))


# What takes more than an expression.
def swapped(z: Any) -> Any:
    q, v = z
    return np.stack([v, -np.sin(q)])


def rest(z: Any) -> Any:
    first, *others = z
    return first * others[0]


def assigned_plus(a: Any, b: Any) -> Any:
    a = a * 1
    a += b
    a -= 2 * b
    return a


def assigned_times(a: Any, b: Any) -> Any:
    a = a * 1
    a *= b
    return a


def assigned_over(a: Any, b: Any) -> Any:
    a = a * 1
    a /= b
    return a


def assigned_power(a: Any) -> Any:
    a = a * 1
    a **= 2
    return a


def halved(z: Any) -> Any:
    while np.linalg.norm(z) > 0.5:
        z = 0.7 * z
    return z


def sorted_joined(z: Any) -> Any:
    return np.stack(sorted(z))


def nested(z: Any, n: int) -> Any:
    return np.sin(z) if n == 0 else nested(1.1 * np.sin(z), n - 1)


def projector(z: Any) -> Any:
    """Of a symmetric matrix, onto the eigenvector of its smallest eigenvalue: it knows no sign."""
    v = np.linalg.eigh(z)[1][:, 0]
    return np.outer(v, v)


def into_plain(z: Any) -> Any:
    made = np.zeros(5)
    made[0] = z[0]
    return made


def plain_plus(z: Any) -> Any:
    made = np.zeros(5)
    made += z
    return made


def slices_plus(z: Any) -> Any:
    made = np.zeros(5)
    made[2:4] += z[2:4]
    return made


def into_tensor(z: Any) -> Any:
    z = z * 1
    z[0] = 3.0
    return z


def filled(z: Any) -> Any:
    z = z * 1
    z.fill(2.0)
    return z


def sorted_in_place(z: Any) -> Any:
    z = z * 1
    z.sort()
    return z


def diagonal_filled(z: Any) -> Any:
    z = z * 1
    np.fill_diagonal(z, 0.0)
    return z


def copied_over(z: Any) -> Any:
    made = np.zeros((3, 4))
    np.copyto(made, z)
    return made


def placed(z: Any) -> Any:
    z = z * 1
    np.put(z, [0], 2.0)
    return z


def pickled(z: Any) -> Any:
    import pickle
    return pickle.loads(pickle.dumps(z))


def around() -> dict[str, Any]:
    """The names that expressions use besides their arguments."""
    import copy
    import numbers

    import scipy.linalg
    import scipy.special
    helpers = {f.__name__: f for f in (
        swapped, rest, assigned_plus, assigned_times, assigned_over, assigned_power, halved, sorted_joined, nested, projector,
        into_plain, plain_plus, slices_plus, into_tensor, filled, sorted_in_place, diagonal_filled, copied_over, placed, pickled)}
    return {"np": np, "L": np.linalg, "F": np.fft, "math": math, "functools": functools, "operator": operator, "copy": copy,
            "numbers": numbers, "scipy": scipy, "m": np.array([True, False, True, True, False]), "i": [0, 2, 2], **helpers}


AROUND = around()

"""Fourier transforms of tensors. Complex values arise here alone, as a pair of real tensors, and leave as real ones.

    np.fft.irfft(np.fft.rfft(x) * k)        np.abs(np.fft.fft(x)) ** 2        np.fft.fft2(x).real

A transform T is linear, so its rule is its adjoint: of F_n (unnormalised) it is n times the inverse, which swaps the norms
"backward" and "forward"; padding to n and cropping are adjoint to each other. Values are those of NumPy's transforms to the
bit; products of two complex values are four real products, within one unit in the last place of the larger of them.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .tensor import FUNCTIONS, Op, Tensor, apply, name_of

ADJOINT = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A complex value as two real ones, real and imag; what may be done with it is linear, or ends in real numbers."""
    real: Any
    imag: Any

    shape = property(lambda self: self.real.shape)
    ndim = property(lambda self: self.real.ndim)

    def __neg__(self) -> Spectrum: return Spectrum(-self.real, -self.imag)
    def __pos__(self) -> Spectrum: return self
    def __add__(self, other: Any) -> Spectrum: return Spectrum(self.real + other.real, self.imag + other.imag)
    def __sub__(self, other: Any) -> Spectrum: return Spectrum(self.real - other.real, self.imag - other.imag)
    def __rsub__(self, other: Any) -> Spectrum: return Spectrum(other.real - self.real, other.imag - self.imag)
    def __abs__(self) -> Any: return apply(MODULUS, self.real, self.imag)
    def __len__(self) -> int: return len(self.real)
    def __getitem__(self, index: Any) -> Spectrum: return Spectrum(self.real[index], self.imag[index])
    def conj(self) -> Spectrum: return Spectrum(self.real, -self.imag)
    conjugate = conj
    __radd__ = __add__

    def __mul__(self, other: Any) -> Spectrum:
        if is_real(other):
            return Spectrum(self.real * other, self.imag * other)
        a, b = other.real, other.imag
        return Spectrum(self.real * a - self.imag * b, self.real * b + self.imag * a)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Spectrum:
        if is_real(other):                        # NumPy divides complex values by real ones like this
            return self * (1.0 / other)
        return self * other.conj() * (1.0 / (other.real * other.real + other.imag * other.imag))

    def __rtruediv__(self, other: Any) -> Spectrum:
        return self.conj() * other * (1.0 / (self.real * self.real + self.imag * self.imag))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return self.meet(ufunc, *inputs) if method == "__call__" and not options else self.refuse(ufunc)

    @staticmethod
    def meet(ufunc: Any, *inputs: Any) -> Any:
        """A ufunc of which an input is a spectrum; the others are tensors, arrays or numbers."""
        if ufunc not in UFUNCS:
            Spectrum.refuse(ufunc)
        if type(inputs[0]) is not Spectrum:
            return {np.subtract: Spectrum.__rsub__, np.divide: Spectrum.__rtruediv__}.get(ufunc, UFUNCS[ufunc])(*inputs[::-1])
        return UFUNCS[ufunc](*inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in ON_SPECTRA:
            return ON_SPECTRA[function](*args, **kwargs)
        return self.refuse(function)

    @staticmethod
    def refuse(function: Any) -> Any:
        raise TypeError(f"{name_of(function)} of a Fourier transform has no gradient here; a spectrum is added, multiplied, sliced, "
                        "and leaves by an inverse transform, .real, .imag or np.abs")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a Fourier transform of a tensor cannot become a plain array; take .real, .imag or np.abs of it")


def _unit(x: Any, y: Any) -> Any:
    """x / y, and 0 where y is: the slope of |z| at 0, by the convention for |x|, so that |z|^2 has its own there."""
    return x / np.where(y == 0.0, 1.0, y)


MODULUS = Op("modulus", np.hypot, (lambda g, y, re, im: g * _unit(re, y), lambda g, y, re, im: g * _unit(im, y)))
UFUNCS: dict[Any, Callable] = {
    np.add: Spectrum.__add__, np.subtract: Spectrum.__sub__, np.multiply: Spectrum.__mul__, np.divide: Spectrum.__truediv__,
    np.negative: Spectrum.__neg__, np.positive: Spectrum.__pos__, np.absolute: Spectrum.__abs__, np.conjugate: Spectrum.conj}


def is_real(x: Any) -> bool:
    return type(x) is Tensor or (type(x) is not Spectrum and not np.iscomplexobj(x))


def parts(x: Any) -> tuple[Any, Any]:
    """Real and imaginary part of what goes into a transform; None for no imaginary part."""
    return (x.real, None if is_real(x) else x.imag)


def stacked(z: Any) -> Any:
    """A complex array as a real one with the parts along a new first axis."""
    return np.stack([z.real, z.imag])


def together(re: Any, im: Any) -> Any:
    return re if im is None else re + 1j * im


def resized(x: Any, m: int, axis: int) -> Any:
    """Cropped, or padded with zeros, to m entries along an axis."""
    n = x.shape[axis]
    if n >= m:
        return x[(slice(None),) * axis + (slice(0, m),)]
    zeros = np.zeros_like(x[(slice(None),) * axis + (slice(0, 1),)])
    return np.concatenate([x, np.repeat(zeros, m - n, axis)], axis)


def _transform(name: str) -> Callable:
    """np.fft.fft or ifft on tensors, arrays and spectra; op takes the two parts and gives them stacked."""
    function, other = getattr(np.fft, name), {"fft": "ifft", "ifft": "fft"}[name]

    def back(i: int, g: Any, re: Any, n: int, axis: int, norm: Any) -> Any:
        found = TRANSFORMS[other](Spectrum(g[0], g[1]), n, axis, ADJOINT[norm])
        return resized(found.imag if i else found.real, re.shape[axis], axis)

    ops = (Op(name, lambda re, n, axis, norm: stacked(function(re, n, axis, norm)), (
               lambda g, y, re, **options: back(0, g, re, **options),)),
           Op(name, lambda re, im, n, axis, norm: stacked(function(together(re, im), n, axis, norm)), (
               lambda g, y, re, im, **options: back(0, g, re, **options), lambda g, y, re, im, **options: back(1, g, re, **options))))

    def transform(a: Any, n: Any = None, axis: int = -1, norm: Any = None) -> Spectrum:
        axis = normalize_axis_index(axis, a.ndim)
        re, im = parts(a)
        given = (re,) if im is None else (re, im)
        y = apply(ops[len(given) - 1], *given, n=a.shape[axis] if n is None else n, axis=axis, norm=norm)
        return Spectrum(y[0], y[1])

    return transform


TRANSFORMS = {name: _transform(name) for name in ("fft", "ifft")}
fft, ifft = TRANSFORMS["fft"], TRANSFORMS["ifft"]
RFFT = Op("rfft", lambda a, n, axis, norm: stacked(np.fft.rfft(a, n, axis, norm)), (
    lambda g, y, a, n, axis, norm: resized(
        ifft(Spectrum(resized(g[0], n, axis), resized(g[1], n, axis)), n, axis, ADJOINT[norm]).real, a.shape[axis], axis),))


def _irfft_back(i: int, g: Any, re: Any, n: int, axis: int, norm: Any) -> Any:
    """w rfft(g): every frequency but 0 and n/2 stands for two."""
    found = rfft(g, n, axis, ADJOINT[norm])
    weights = np.full(n // 2 + 1, 2.0)
    weights[0], weights[-1] = 1.0, 1.0 if n % 2 == 0 else weights[-1]
    weights = np.reshape(weights, (-1,) + (1,) * (g.ndim - axis - 1)).astype(re.dtype)
    return resized((found.imag if i else found.real) * weights, re.shape[axis], axis)


IRFFT = Op("irfft", lambda re, im, n, axis, norm: np.fft.irfft(together(re, im), n, axis, norm), (
    lambda g, y, re, im, **options: _irfft_back(0, g, re, **options),
    lambda g, y, re, im, **options: _irfft_back(1, g, re, **options)))


def rfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None) -> Spectrum:
    axis = normalize_axis_index(axis, a.ndim)
    y = apply(RFFT, a, n=a.shape[axis] if n is None else n, axis=axis, norm=norm)
    return Spectrum(y[0], y[1])


def irfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None) -> Any:
    axis = normalize_axis_index(axis, a.ndim)
    re, im = parts(a)
    return apply(IRFFT, re, np.zeros_like(re) if im is None else im, n=2 * (a.shape[axis] - 1) if n is None else n, axis=axis,
                 norm=norm)


def over_axes(each: Callable, default: Any, first: Callable | None = None, last: Callable | None = None) -> Callable:
    """A transform along several axes, one after another in NumPy's order: the last axis first, but for irfft."""
    def transform(a: Any, s: Any = None, axes: Any = default, norm: Any = None) -> Any:
        axes = list(range(-(a.ndim if s is None else len(s)), 0)) if axes is None else list(axes)
        pairs = list(zip(axes, [None] * len(axes) if s is None else s, strict=True))
        if first is None and last is None:
            order = [(each, *pair) for pair in reversed(pairs)]
        elif last is None:
            order = [(first, *pairs[-1]), *((each, *pair) for pair in reversed(pairs[:-1]))]
        else:
            order = [*((each, *pair) for pair in pairs[:-1]), (last, *pairs[-1])]
        for function, axis, n in order:
            a = function(a, n, axis, norm)                                                                  # type: ignore[misc]
        return a
    return transform


def shifted(sign: int) -> Callable:
    def shift(x: Any, axes: Any = None) -> Any:
        if type(x) is Spectrum:
            return Spectrum(shift(x.real, axes), shift(x.imag, axes))
        axes = range(x.ndim) if axes is None else (axes,) if isinstance(axes, int) else axes
        for axis in axes:
            half = x.shape[axis] // 2
            x = np.roll(x, half if sign > 0 else -half, axis)
        return x
    return shift


TABLE: dict[Callable, Callable] = {
    np.fft.fft: fft, np.fft.ifft: ifft, np.fft.rfft: rfft, np.fft.irfft: irfft,
    np.fft.fftshift: shifted(1), np.fft.ifftshift: shifted(-1),
    np.fft.fftn: over_axes(fft, None), np.fft.ifftn: over_axes(ifft, None), np.fft.fft2: over_axes(fft, (-2, -1)),
    np.fft.ifft2: over_axes(ifft, (-2, -1)), np.fft.rfftn: over_axes(fft, None, first=rfft),
    np.fft.rfft2: over_axes(fft, (-2, -1), first=rfft), np.fft.irfftn: over_axes(ifft, None, last=irfft),
    np.fft.irfft2: over_axes(ifft, (-2, -1), last=irfft)}
FUNCTIONS.update(TABLE)
ON_SPECTRA: dict[Callable, Callable] = {
    **TABLE, np.real: lambda val: val.real, np.imag: lambda val: val.imag, np.shape: lambda a: a.shape, np.ndim: lambda a: a.ndim}

"""A stand-in for a CuPy array in tests without a GPU: it has CuPy's protocols and CuPy's refusals, stricter where in doubt.

What CuPy does too (14.2):
    ufuncs and functions reach it through __array_ufunc__ and __array_function__, and only those that CuPy has
    results without axes stay arrays on the device, also those of sum, max and a[0]
    mixing with an ndarray is a TypeError, one without axes included; Python and NumPy scalars may mix
    np.asarray(x) is a TypeError; x.get() copies to the host; indices may be host arrays
    ufunc.at, ufunc.reduce and the like are not there, nor is np.spacing; x.scatter_add(index, value) is
    shape=() of the *_like functions counts as not given, so that they return an array shaped like the first one
    nothing is read-only: a view made by broadcast_to can be written to

Stricter: float(x), int(x), x.item() and iteration, which wait for the device in silence, are TypeErrors here, so that every
such wait goes through x.get(). bool(x) is let through: a check that decides something has to wait. New arrays come from
`put` in a test, and otherwise from the *_like functions alone.

DONE notes what a GPU would have to do: an entry for each kernel and each copy, and "wait" where the host waits for it. Views are free.
"""
from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

SCALARS = (bool, int, float, np.generic)


class Done(list[str]):
    """What has been done. While a stream is captured there is nothing that may be done but to launch a kernel, which is recorded."""
    captured: list | None = None

    def append(self, what: str) -> None:
        self.extend((what,))

    def extend(self, what: Iterable[str]) -> None:
        if self.captured is not None:
            raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing ({what})")
        super().extend(what)


DONE = Done()
FREE = {np.empty_like, np.shape, np.ndim, np.size, np.may_share_memory, np.iscomplexobj}           # and what gives a view
LIKE = {np.zeros_like, np.ones_like, np.full_like, np.empty_like}

FUNCTIONS = {                      # NumPy functions that CuPy has under the same name, as far as they are needed here
    np.sum, np.max, np.min, np.mean, np.cumsum, np.where, np.concatenate, np.stack, np.einsum, np.reshape, np.transpose,
    np.broadcast_to, np.flip, np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze, np.ravel, np.zeros_like, np.ones_like,
    np.full_like, np.empty_like, np.any, np.all, np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.clip,
    np.copy, np.take, np.count_nonzero, np.dot, np.prod, np.cumprod, np.tensordot, np.inner, np.vdot, np.kron,
    np.linalg.solve, np.linalg.inv, np.linalg.det, np.linalg.pinv, np.linalg.cholesky, np.linalg.eigvalsh, np.linalg.matrix_power,
    np.nan_to_num, np.may_share_memory, np.iscomplexobj,
}
MISSING = {np.spacing, np.vecdot, np.matvec, np.vecmat} if hasattr(np, "vecmat") else {np.spacing}


class Pointer(NamedTuple):
    buffer: Any
    offset: int

    def __add__(self, more: Any) -> Any: return Pointer(self.buffer, self.offset + more)


class FakeArray:
    """An ndarray on a pretended device."""
    __slots__ = ("_base", "_host")

    def __init__(self, host: Any, dtype: Any = None, memptr: Any = None) -> None:
        """From an ndarray, or, as in CuPy, a shape and a dtype of what lies somewhere."""
        self._host = host if memptr is None else np.ndarray(host, dtype, memptr.buffer, memptr.offset)
        self._base = self._host.base if memptr is None else None

    # ---------------------------------------------------------------- protocols
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or ufunc in MISSING or getattr(np, ufunc.__name__, None) is not ufunc:
            return NotImplemented
        out = options.pop("out", ())
        if any(not isinstance(x, (FakeArray, np.ndarray, *SCALARS)) for x in (*inputs, *out)):
            return NotImplemented
        DONE.append(ufunc.__name__)
        result = ufunc(*map(unwrap, inputs), out=tuple(map(unwrap, out)) or None, **options)
        return out[0] if out else wrap(result)

    def __array_function__(self, function: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        if any(t not in (FakeArray, np.ndarray) for t in types) or function not in FUNCTIONS:
            return NotImplemented
        if function is np.where and not isinstance(args[0], FakeArray):
            raise AttributeError("CuPy's where takes its condition as a device array")
        if function in (np.concatenate, np.stack) and not all(isinstance(x, FakeArray) for x in args[0]):
            raise TypeError("only device arrays can be joined")
        if function is np.broadcast_to:
            host = unwrap(args[0])
            return FakeArray(np.lib.stride_tricks.as_strided(host, *strided(np.broadcast_to(host, *args[1:], **kwargs))))
        if function in LIKE and kwargs.get("shape") == ():
            kwargs = {key: value for key, value in kwargs.items() if key != "shape"}
        found = function(*unwrap_tree(args), **unwrap_tree(kwargs))
        if function not in FREE and not (args and isinstance(args[0], FakeArray) and is_view(found, args[0]._host)):
            DONE.append(function.__name__)
        return wrap(found)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use x.get()")

    def _waits(self, *args: Any) -> Any:
        raise TypeError("this would wait for the device in silence; use x.get()")
    __float__ = __int__ = __index__ = __complex__ = __iter__ = item = tolist = _waits

    def __bool__(self) -> bool:
        DONE.extend(("copy", "wait"))
        return bool(self._host)

    def get(self, blocking: bool = True, out: Any = None) -> np.ndarray:
        DONE.extend(("copy", "wait") if blocking else ("copy",))
        if out is None:
            return self._host.copy()
        if out.shape != self.shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError("get: out is another kind of array")
        out[...] = self._host
        return out

    def set(self, host: np.ndarray) -> None:
        if type(host) is not np.ndarray or host.shape != self.shape or host.dtype != self.dtype or not host.flags.c_contiguous:
            raise ValueError("set: another kind of array")
        DONE.append("copy")
        self._host[...] = host

    # ---------------------------------------------------------------- operators
    def __add__(self, other: Any) -> Any: return np.add(self, other)
    def __radd__(self, other: Any) -> Any: return np.add(other, self)
    def __sub__(self, other: Any) -> Any: return np.subtract(self, other)
    def __rsub__(self, other: Any) -> Any: return np.subtract(other, self)
    def __mul__(self, other: Any) -> Any: return np.multiply(self, other)
    def __rmul__(self, other: Any) -> Any: return np.multiply(other, self)
    def __truediv__(self, other: Any) -> Any: return np.divide(self, other)
    def __rtruediv__(self, other: Any) -> Any: return np.divide(other, self)
    def __matmul__(self, other: Any) -> Any: return np.matmul(self, other)
    def __pow__(self, other: Any) -> Any: return np.power(self, other)
    def __rpow__(self, other: Any) -> Any: return np.power(other, self)
    def __mod__(self, other: Any) -> Any: return np.remainder(self, other)
    def __rmod__(self, other: Any) -> Any: return np.remainder(other, self)
    def __floordiv__(self, other: Any) -> Any: return np.floor_divide(self, other)
    def __rfloordiv__(self, other: Any) -> Any: return np.floor_divide(other, self)
    def __neg__(self) -> Any: return np.negative(self)
    def __abs__(self) -> Any: return np.absolute(self)
    def __lt__(self, other: Any) -> Any: return np.less(self, other)
    def __le__(self, other: Any) -> Any: return np.less_equal(self, other)
    def __gt__(self, other: Any) -> Any: return np.greater(self, other)
    def __ge__(self, other: Any) -> Any: return np.greater_equal(self, other)
    def __eq__(self, other: Any) -> Any: return np.equal(self, other)
    def __ne__(self, other: Any) -> Any: return np.not_equal(self, other)
    __hash__ = None

    def __iadd__(self, other: Any) -> Any: return np.add(self, other, out=(self,))
    def __isub__(self, other: Any) -> Any: return np.subtract(self, other, out=(self,))
    def __imul__(self, other: Any) -> Any: return np.multiply(self, other, out=(self,))

    # ---------------------------------------------------------------- indexing: indices may be host arrays
    def __getitem__(self, index: Any) -> Any:
        return self._made("take", self._host[host_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        DONE.append("copy")
        self._host[host_index(index)] = unwrap(value)

    def scatter_add(self, index: Any, value: Any) -> None:
        DONE.append("scatter_add")
        np.add.at(self._host, host_index(index), unwrap(value))

    # ---------------------------------------------------------------- attributes and methods
    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    dtype = property(lambda self: self._host.dtype)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    __cuda_array_interface__ = property(lambda self: {"version": 3, "data": (id(self._host), False), "shape": self.shape,
                                                      "typestr": self.dtype.str})
    T = property(lambda self: wrap(self._host.T))
    base = property(lambda self: None if self._base is None else FakeArray(self._base))
    data = property(lambda self: Pointer(self._host.data, 0))
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._host.flags.c_contiguous))

    def _made(self, what: str, found: Any) -> Any:
        if not is_view(found, self._host):
            DONE.append(what)
        return wrap(found)

    def __len__(self) -> int: return len(self._host)
    def all(self, axis: Any = None) -> Any: return self._made("all", self._host.all(axis))
    def any(self, axis: Any = None) -> Any: return self._made("any", self._host.any(axis))
    def max(self, axis: Any = None) -> Any: return self._made("max", self._host.max(axis))
    def min(self, axis: Any = None) -> Any: return self._made("min", self._host.min(axis))
    def sum(self, axis: Any = None) -> Any: return self._made("sum", self._host.sum(axis))
    def take(self, index: Any, axis: Any = None) -> Any: return self._made("take", self._host.take(unwrap(index), axis))
    def __reduce__(self) -> Any: return put, (self.get(),)
    def copy(self) -> Any: return self._made("copy", self._host.copy())
    def view(self) -> Any: return self._made("view", self._host.view())
    def astype(self, dtype: Any, copy: bool = True) -> Any: return self._made("astype", self._host.astype(dtype, copy=copy))
    def reshape(self, *shape: Any) -> Any: return self._made("copy", self._host.reshape(*shape))
    def __repr__(self) -> str: return f"FakeArray({self._host!r})"


def put(x: Any) -> FakeArray:
    """Copy to the device: what cupy.asarray does."""
    DONE.append("copy")
    return FakeArray(np.array(x))


asarray = put          # under CuPy's name, as revode looks it up in the module that an array comes from


def is_view(found: Any, of: np.ndarray) -> bool:
    """Whether nothing was computed or copied."""
    return not isinstance(found, (np.ndarray, np.generic)) or (isinstance(found, np.ndarray) and np.may_share_memory(found, of))


def strided(x: np.ndarray) -> tuple:
    return x.shape, x.strides


def unwrap(x: Any) -> Any:
    if isinstance(x, FakeArray):
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: a host array and a device array do not mix")
    return x


def unwrap_tree(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(unwrap_tree(item) for item in x)
    return {k: unwrap_tree(v) for k, v in x.items()} if isinstance(x, dict) else unwrap(x)


def wrap(x: Any) -> Any:
    """Arrays and NumPy scalars that were computed are on the device; shapes, dtypes and the like are not."""
    return FakeArray(np.asarray(x)) if isinstance(x, (np.ndarray, np.generic)) else x


def host_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(host_index, index))
    return index._host if isinstance(index, FakeArray) else index

"""The attributes and methods of an array for a tensor, in terms of NumPy's functions and of indexing: what NumPy says, and no more."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Arraylike:
    """What follows from shape, dtype, x[i] and the functions of NumPy."""
    __slots__ = ()

    @property
    def ndim(self: Any) -> int: return len(self.shape)
    @property
    def size(self: Any) -> int: return int(np.prod(self.shape))
    @property
    def T(self: Any) -> Any: return np.transpose(self)

    @property
    def mT(self: Any) -> Any: return np.matrix_transpose(self)
    @property
    def real(self: Any) -> Any: return self
    @property
    def imag(self: Any) -> Any: return np.imag(self)
    @property
    def nbytes(self: Any) -> int: return self.size * self.itemsize
    @property
    def itemsize(self: Any) -> int: return int(self.dtype.itemsize)
    @property
    def flat(self: Any) -> Any: return iter(np.reshape(self, (-1,)))

    def __len__(self: Any) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self: Any) -> Any: return (self[i] for i in range(len(self)))

    def compress(self: Any, condition: Any, axis: Any = None) -> Any: return np.compress(condition, self, axis)
    def flatten(self: Any, order: Any = "C") -> Any: return np.ravel(self, order)    # type: ignore[call-overload]
    def copy(self: Any, order: str = "C") -> Any: return self
    def view(self: Any) -> Any: return self
    def conj(self: Any) -> Any: return self
    def conjugate(self: Any) -> Any: return self

    def reshape(self: Any, *shape: Any, order: Any = "C") -> Any:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order=order)

    def transpose(self: Any, *axes: Any) -> Any:
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def item(self: Any) -> Any:
        """The one entry as a number, on the tape; ValueError where there are more."""
        if self.dtype != np.float64:
            raise TypeError(f"x.item() of {self.dtype} would go on in float64, as a Python float; x[0] keeps its dtype")
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self[(0,) * self.ndim]

    def tolist(self: Any) -> Any:
        """The entries in nested lists, as numbers on the tape."""
        return [x.tolist() for x in self] if self.shape else self.item()


def _method(name: str) -> Callable:
    """NumPy's method of this name, through the function of the same name."""
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(np, name)(self, *args, **kwargs)
    return method


for _name in ("clip", "dot", "ravel", "sum", "prod", "mean", "var", "std", "max", "min", "cumsum", "cumprod", "squeeze", "swapaxes",
              "repeat", "take", "trace", "diagonal", "round", "argmax", "argmin", "argsort", "argpartition", "any", "all", "nonzero",
              "searchsorted"):
    setattr(Arraylike, _name, _method(_name))

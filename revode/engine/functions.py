"""NumPy's other functions on tensors, in terms of the operations of the table.

Each has NumPy's signature as far as it is differentiated here; another keyword is a TypeError, as for any function.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .tensor import FUNCTIONS, RULES, apply


def _axis(a: Any, axis: Any) -> Any:
    """An axis or several as non-negative numbers, or None."""
    if axis is None:
        return None
    axes = tuple(i % np.ndim(a) for i in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    return axes


def sum(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return apply(RULES[np.sum], a, axis=_axis(a, axis), keepdims=keepdims)


def max(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return apply(RULES[np.max], a, axis=_axis(a, axis), keepdims=keepdims)


def min(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return apply(RULES[np.min], a, axis=_axis(a, axis), keepdims=keepdims)


def mean(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = sum(a, axis, keepdims)
    return total * (_size(total) / _size(a))


def _size(a: Any) -> int:
    return int(np.prod(np.shape(a)))


def var(a: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    squares = np.square(a - mean(a, axis, keepdims=True))
    total = sum(squares, axis, keepdims)
    return total / (_size(a) / _size(total) - ddof)


def std(a: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    return np.sqrt(var(a, axis, ddof, keepdims))


def cumsum(a: Any, axis: int | None = None) -> Any:
    return apply(RULES[np.cumsum], np.reshape(a, (-1,)) if axis is None else a, axis=axis or 0)


def where(condition: Any, a: Any, b: Any) -> Any:
    return apply(RULES[np.where], condition, a, b)


def clip(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    a = a if a_min is None else np.where(a < a_min, a_min, a)
    return a if a_max is None else np.where(a > a_max, a_max, a)


def concatenate(arrays: Any, axis: int | None = 0) -> Any:
    parts = [np.reshape(x, (-1,)) for x in arrays] if axis is None else list(arrays)
    return apply(RULES[np.concatenate], *parts, axis=axis or 0)


def stack(arrays: Any, axis: int = 0) -> Any:
    arrays = list(arrays)
    axis = axis % (np.ndim(arrays[0]) + 1)
    return concatenate([np.expand_dims(x, axis) for x in arrays], axis)


def split(a: Any, indices_or_sections: Any, axis: int = 0) -> list:
    n = a.shape[axis]
    if isinstance(indices_or_sections, int):
        if n % indices_or_sections:
            raise ValueError(f"np.split: an axis of length {n} does not divide into {indices_or_sections} equal parts")
        cuts = list(range(0, n, n // indices_or_sections))[1:]
    else:
        cuts = list(indices_or_sections)
    lead = (slice(None),) * (axis % a.ndim)
    return [a[(*lead, slice(i, j))] for i, j in zip([None, *cuts], [*cuts, None], strict=True)]


def reshape(a: Any, /, shape: Any) -> Any:
    return apply(RULES[np.reshape], a, shape=shape)


def ravel(a: Any) -> Any:
    return reshape(a, (-1,))


def transpose(a: Any, axes: Any = None) -> Any:
    return apply(RULES[np.transpose], a, axes=None if axes is None else _axis(a, axes))


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(np.ndim(a)))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return transpose(a, axes)


def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    source, destination = _axis(a, source), _axis(a, destination)
    axes = [i for i in range(np.ndim(a)) if i not in source]
    for to, i in sorted(zip(destination, source, strict=True)):
        axes.insert(to, i)
    return transpose(a, axes)


def expand_dims(a: Any, axis: Any) -> Any:
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    n = np.ndim(a) + len(axes)
    new = {i % n for i in axes}
    rest = iter(np.shape(a))
    return reshape(a, tuple(1 if i in new else next(rest) for i in range(n)))


def squeeze(a: Any, axis: Any = None) -> Any:
    shape = np.shape(a)
    axes = _axis(a, axis) if axis is not None else [i for i, n in enumerate(shape) if n == 1]
    if any(shape[i] != 1 for i in axes):
        raise ValueError(f"np.squeeze: an axis among {axis} of shape {shape} is longer than one")
    return reshape(a, tuple(n for i, n in enumerate(shape) if i not in axes))


def broadcast_to(array: Any, shape: Any) -> Any:
    return apply(RULES[np.broadcast_to], array, shape=tuple(shape) if np.iterable(shape) else (shape,))


def flip(m: Any, axis: Any = None) -> Any:
    return apply(RULES[np.flip], m, axis=_axis(m, axis))


def roll(a: Any, shift: int, axis: int) -> Any:
    return np.take(a, (np.arange(a.shape[axis]) - shift) % a.shape[axis], axis=axis)


def take(a: Any, indices: Any, axis: int | None = None) -> Any:
    a, axis = (np.reshape(a, (-1,)), 0) if axis is None else (a, axis % np.ndim(a))
    return a[(slice(None),) * axis + (indices,)]


def repeat(a: Any, repeats: int, axis: int | None = None) -> Any:
    a, axis = (np.reshape(a, (-1,)), 0) if axis is None else (a, axis)
    return take(a, np.arange(a.shape[axis] * repeats) // repeats, axis)


def dot(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    if np.ndim(b) > 2:
        raise TypeError("np.dot of a tensor with an array of more than two axes is not differentiated here; use np.matmul "
                        "or np.einsum")
    return np.matmul(a, b)


def outer(a: Any, b: Any) -> Any:
    return np.reshape(a, (-1, 1)) * np.reshape(b, (1, -1))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    letters = "abcdefghijklmnopqrstuvwxyz"
    left, right = (range(np.ndim(a) - axes, np.ndim(a)), range(axes)) if isinstance(axes, int) else axes
    left, right = _axis(a, tuple(left) if np.iterable(left) else left), _axis(b, tuple(right) if np.iterable(
        right) else right)
    names = list(letters[:np.ndim(a)])
    others = list(letters[np.ndim(a):np.ndim(a) + np.ndim(b)])
    for i, j in zip(left, right, strict=True):
        others[j] = names[i]
    free = [c for i, c in enumerate(names) if i not in left] + [c for j, c in enumerate(others) if j not in right]
    return einsum("".join(names) + "," + "".join(others) + "->" + "".join(free), a, b)


def einsum(subscripts: str, *operands: Any) -> Any:
    if type(subscripts) is not str or "." in subscripts:
        raise TypeError("np.einsum on tensors takes explicit letters, as in 'bij,jk->bik'; write the batch axes as "
                        "letters instead of '...'")
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = tuple(left.split(","))
    if not arrow:
        letters = left.replace(",", "")
        output = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if any(len(set(s)) < len(s) for s in inputs):
        raise TypeError(f"np.einsum({subscripts!r}): a letter twice in one operand (a diagonal) is not differentiated "
                        "here; take the diagonal by indexing first")
    return apply(RULES[np.einsum], *operands, inputs=inputs, output=output)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in (None, 2) or (ord == 2 and axis is None and np.ndim(x) > 1):
        raise TypeError(f"np.linalg.norm with ord={ord!r} is not differentiated here; only the Euclidean norm is")
    return np.sqrt(sum(np.square(x), axis, keepdims))


FUNCTIONS.update({
    np.sum: sum, np.max: max, np.min: min, np.amax: max, np.amin: min, np.mean: mean, np.var: var, np.std: std,
    np.cumsum: cumsum, np.where: where, np.clip: clip, np.concatenate: concatenate, np.stack: stack,
    np.vstack: lambda tup: concatenate([x if np.ndim(x) > 1 else np.reshape(x, (1, -1)) for x in tup], 0),
    np.hstack: lambda tup: concatenate(tup, 1 if np.ndim(tup[0]) > 1 else 0),
    np.split: split, np.reshape: reshape, np.ravel: ravel, np.transpose: transpose, np.swapaxes: swapaxes,
    np.moveaxis: moveaxis, np.expand_dims: expand_dims, np.squeeze: squeeze, np.broadcast_to: broadcast_to,
    np.flip: flip, np.roll: roll, np.take: take, np.repeat: repeat, np.dot: dot, np.inner: lambda a, b: dot(
        a, np.transpose(b)), np.outer: outer, np.tensordot: tensordot, np.einsum: einsum, np.linalg.norm: norm,
    np.full_like: lambda a, fill_value: np.ones_like(a) * fill_value, np.copy: lambda a: a, np.positive: lambda a: a,
    np.float_power: lambda a, b: np.power(a, b),
    np.trace: lambda a: sum(a[np.arange(min_side(a)), np.arange(min_side(a))]),
    np.diagonal: lambda a: a[np.arange(min_side(a)), np.arange(min_side(a))],
})


def min_side(a: Any) -> int:
    """The length of the main diagonal of a matrix."""
    rows, columns = a.shape
    return rows if rows < columns else columns

"""Functions of NumPy that move entries: shapes, joining, taking apart, repeating, padding.

What such a function does to an array it does to the numbers 0, 1, 2, ... in its shape: NumPy moves those, and the tensor is
indexed with the result (`moved`). Nothing is rounded, and what NumPy refuses is refused in its words.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import tree
from .functions import array
from .tensor import FUNCTIONS, METHODS, RULES, Op, apply, constant, value_of


def moved(function: Callable, first: int = 0) -> Callable:
    """The function on a tensor, through the places of its entries. first=1: where it puts zeros, these stand for place 0."""
    @wraps(function)
    def call(a: Any, *args: Any, **kwargs: Any) -> Any:
        places = function(np.arange(first, np.size(a) + first).reshape(np.shape(a)), *args, **kwargs)
        flat = np.reshape(a, (-1,))
        source = np.concatenate([np.zeros_like(flat, shape=(1,)), flat]) if first else flat
        return tree.map(lambda index: source[index], places)
    return call


def reshaped(function: Callable) -> Callable:
    """The function on a tensor, where it changes the shape alone: NumPy tells the shape."""
    def call(a: Any, *args: Any, **kwargs: Any) -> Any:
        return reshape(a, function(dummy(a), *args, **kwargs).shape)
    return wraps(function)(call)


def dummy(a: Any) -> np.ndarray:
    """An array of this shape without any memory, to ask NumPy what it thinks of it."""
    return np.broadcast_to(np.zeros((), bool), np.shape(a))


def several(one: Callable) -> Callable:
    """A function of one array as a function of many, as the atleast family is."""
    def call(*arys: Any) -> Any:
        found = tuple(one(array(a)) for a in arys)
        return found[0] if len(found) == 1 else found
    return call


# Shapes ----------------------------------------------------------------------------------------------------------------
def reshape(a: Any, /, shape: Any, order: str = "C") -> Any:
    shape = tuple(int(n) for n in shape) if np.iterable(shape) else shape
    if order == "F":
        return np.transpose(reshape(np.transpose(a), shape[::-1] if type(shape) is tuple else shape))
    if order != "C":
        raise TypeError(f"np.reshape of a tensor with order={order!r} depends on its place in memory; use 'C' or 'F'")
    return apply(RULES[np.reshape], a, shape=shape)


def ravel(a: Any, order: str = "C") -> Any:
    return reshape(a, (-1,), order)


def transpose(a: Any, axes: Any = None) -> Any:
    if axes is not None:
        np.transpose(dummy(a), axes)
        axes = tuple(normalize_axis_index(i, np.ndim(a)) for i in axes)
    return apply(RULES[np.transpose], a, axes=axes)


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(np.ndim(a)))
    i, j = normalize_axis_index(axis1, np.ndim(a)), normalize_axis_index(axis2, np.ndim(a))
    axes[i], axes[j] = j, i
    return transpose(a, axes)


def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    np.moveaxis(dummy(a), source, destination)
    source, destination = normalize_axis_tuple(source, np.ndim(a)), normalize_axis_tuple(destination, np.ndim(a))
    axes = [i for i in range(np.ndim(a)) if i not in source]
    for to, i in sorted(zip(destination, source, strict=True)):
        axes.insert(to, i)
    return transpose(a, axes)


def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    n = np.ndim(a)
    np.rollaxis(dummy(a), axis, start)
    axis, start = normalize_axis_index(axis, n), start + n if start < 0 else start
    return moveaxis(a, axis, start - (axis < start))


def matrix_transpose(x: Any, /) -> Any:
    np.matrix_transpose(dummy(x))
    return swapaxes(x, -1, -2)


def broadcast_to(array: Any, shape: Any) -> Any:
    return apply(RULES[np.broadcast_to], array, shape=tuple(int(n) for n in shape) if np.iterable(shape) else (shape,))


def broadcast_arrays(*args: Any) -> tuple:
    args = tuple(map(array, args))
    shape = np.broadcast_shapes(*map(np.shape, args))
    return tuple(x if np.shape(x) == shape else np.broadcast_to(x, shape) for x in args)


def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple:
    order: Any = indexing
    shapes = [x.shape for x in np.meshgrid(*map(dummy, xi), sparse=True, indexing=order)]
    grids = tuple(np.reshape(array(x), shape) for x, shape in zip(xi, shapes, strict=True))
    return grids if sparse else broadcast_arrays(*grids)


def flip(m: Any, axis: Any = None) -> Any:
    return apply(RULES[np.flip], m, axis=None if axis is None else normalize_axis_tuple(axis, np.ndim(m)))


# Places along one axis ---------------------------------------------------------------------------------------------------
def along(a: Any, axis: int, places: Any) -> Any:
    return a[(slice(None),) * axis + (places,)]


def flat_or(a: Any, axis: Any) -> tuple[Any, int]:
    """An array and the axis to work along: all its entries in a row for axis=None."""
    return (np.reshape(a, (-1,)), 0) if axis is None else (a, normalize_axis_index(axis, np.ndim(a)))


def on_one_axis(function: Callable) -> Callable:
    """function(a, what, axis) that picks entries along an axis: NumPy picks their numbers."""
    def call(a: Any, what: Any, axis: Any = None, **kwargs: Any) -> Any:
        a = array(a)
        if a.ndim == 0 and function is not np.delete:              # NumPy takes it as one entry
            a = np.reshape(a, (1,))
        a, axis = flat_or(a, axis)
        return along(a, axis, function(np.arange(a.shape[axis]), what, 0, **kwargs))
    return call


def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    if axis is None:
        return np.reshape(roll(np.reshape(a, (-1,)), shift, 0), np.shape(a))
    np.roll(dummy(a), shift, axis)
    for s, i in np.broadcast(shift, normalize_axis_tuple(axis, np.ndim(a), allow_duplicate=True)):
        a = along(a, int(i), np.roll(np.arange(a.shape[i]), s))
    return a


take, repeat, delete = on_one_axis(np.take), on_one_axis(np.repeat), on_one_axis(np.delete)

def take_with(a: Any, indices: Any, axis: Any = None, *, mode: str = "raise") -> Any:
    return take(a, indices, axis, mode=mode)


def _spread(x: Any, indices: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Zeros of this shape with x added at these places along an axis."""
    index: list = [np.arange(n).reshape((-1,) + (1,) * (len(shape) - i - 1)) for i, n in enumerate(shape)]
    index[axis] = indices
    out = np.zeros_like(x, shape=shape)
    np.add.at(out, tuple(index), x)
    return out


# The places are an input, not an option: they may be computed, and a program computes them anew.
PICK: Op
SPREAD = Op("spread_along_axis", _spread, (
    lambda g, y, x, i, shape, axis: apply(PICK, g, i, axis=axis), lambda *args, **options: None))
PICK = Op("take_along_axis", lambda a, i, axis: np.take_along_axis(a, i, axis), (
    lambda g, y, a, i, axis: apply(SPREAD, g, i, shape=np.shape(a), axis=axis), lambda *args, **options: None))


def running(ufunc: np.ufunc) -> Callable:
    """maximum.accumulate and minimum.accumulate: each result is one entry, the last of equal ones, which gets its cotangent."""
    def back(g: Any, y: Any, a: Any, axis: int) -> Any:
        numbers = np.arange(a.shape[axis]).reshape((-1,) + (1,) * (a.ndim - axis - 1))
        places = constant(np.maximum.accumulate, np.where(a == y, numbers, 0), axis=axis)
        return apply(SPREAD, g, places, shape=a.shape, axis=axis)

    op = Op(f"{ufunc.__name__}.accumulate", lambda a, axis: ufunc.accumulate(a, axis), (back,))
    return lambda array, axis=0: apply(op, array, axis=normalize_axis_index(axis, np.ndim(array)))


METHODS.update({(ufunc, "accumulate"): running(ufunc) for ufunc in (np.maximum, np.minimum)})


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    a, axis = flat_or(arr, axis)
    return apply(PICK, a, indices, axis=axis)


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    if np.ndim(a) == 2 and not offset and (axis1, axis2) == (0, 1):
        side = np.arange(min(a.shape))
        return a[side, side]
    return moved(np.diagonal)(a, offset, axis1, axis2)


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """NumPy inserts the numbers of the values, which are negative, among those of the entries."""
    a, values = array(arr), array(values)
    places = np.insert(np.arange(1, a.size + 1).reshape(a.shape), obj, -np.arange(1, values.size + 1).reshape(values.shape), axis)
    source = np.concatenate([np.reshape(a, (-1,)), np.reshape(values, (-1,)).astype(a.dtype)])
    return source[np.where(places > 0, places - 1, a.size - 1 - places)]


def apply_along_axis(func1d: Callable, axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """The results of func1d of every row along an axis, in the place of that axis."""
    axis = normalize_axis_index(axis, np.ndim(arr))
    rows = np.moveaxis(arr, axis, -1)
    found = [array(func1d(rows[index], *args, **kwargs)) for index in np.ndindex(rows.shape[:-1])]
    whole = np.reshape(np.stack(found), rows.shape[:-1] + found[0].shape)
    last = range(rows.ndim - 1, whole.ndim)
    return np.moveaxis(whole, tuple(last), tuple(range(axis, axis + len(last)))) if len(last) else whole


def triangle(function: Callable) -> Callable:
    def call(m: Any, k: int = 0) -> Any:
        return np.where(function(np.ones(m.shape[-2:], bool), k), m, 0.0)
    return call


# Joining ---------------------------------------------------------------------------------------------------------------
def concatenate(arrays: Any, axis: int | None = 0) -> Any:
    parts = [np.reshape(x, (-1,)) for x in map(array, arrays)] if axis is None else [array(x) for x in arrays]
    return apply(RULES[np.concatenate], *parts, axis=axis or 0)


def stack(arrays: Any, axis: int = 0) -> Any:
    arrays = [array(x) for x in arrays]
    if len({np.shape(x) for x in arrays}) > 1:
        raise ValueError("all input arrays must have the same shape")
    axis = normalize_axis_index(axis, np.ndim(arrays[0]) + 1)
    return concatenate([np.expand_dims(x, axis) for x in arrays], axis)


def joined(at_least: Callable, axis: int) -> Callable:
    return lambda tup: concatenate([at_least(x) for x in tup], axis)


def column_stack(tup: Any) -> Any:
    parts = [array(x) for x in tup]
    return concatenate([x if np.ndim(x) > 1 else np.reshape(x, (-1, 1)) for x in parts], 1)


def hstack(tup: Any) -> Any:
    parts = [np.atleast_1d(x) for x in tup]
    return concatenate(parts, 0 if np.ndim(parts[0]) == 1 else 1)


def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    return concatenate([arr, values], axis)


def block(arrays: Any) -> Any:
    def depth(x: Any) -> int:
        return 1 + depth(x[0]) if type(x) is list else 0

    def inside(x: Any) -> int:
        return max(map(inside, x)) if type(x) is list else np.ndim(x)

    levels = depth(arrays)
    ndim = max(levels, inside(arrays))

    def join(x: Any, level: int) -> Any:
        if level == levels:
            return np.reshape(array(x), (1,) * (ndim - np.ndim(x)) + np.shape(x))
        return concatenate([join(child, level + 1) for child in x], level - levels)

    return join(arrays, 0)


# Taking apart ----------------------------------------------------------------------------------------------------------
def parts(function: Callable) -> Callable:
    def call(ary: Any, indices_or_sections: Any, axis: int = 0) -> list:
        axis = normalize_axis_index(axis, np.ndim(ary))
        found, places = [], np.arange(ary.shape[axis])
        for piece in function(places, indices_or_sections):
            start = int(piece[0]) if len(piece) else 0
            found.append(along(ary, axis, slice(start, start + len(piece))))
        return found
    return call


split, array_split = parts(np.split), parts(np.array_split)


def hsplit(ary: Any, indices_or_sections: Any) -> list:
    np.hsplit(dummy(ary), indices_or_sections)
    return split(ary, indices_or_sections, min(1, np.ndim(ary) - 1))


def vsplit(ary: Any, indices_or_sections: Any) -> list:
    np.vsplit(dummy(ary), indices_or_sections)
    return split(ary, indices_or_sections, 0)


def dsplit(ary: Any, indices_or_sections: Any) -> list:
    np.dsplit(dummy(ary), indices_or_sections)
    return split(ary, indices_or_sections, 2)


def unstack(x: Any, /, *, axis: int = 0) -> tuple:
    axis = normalize_axis_index(axis, np.ndim(x))
    return tuple(along(x, axis, i) for i in range(x.shape[axis]))


def sliding_window_view(x: Any, window_shape: Any, axis: Any = None) -> Any:
    return moved(np.lib.stride_tricks.sliding_window_view)(x, window_shape, axis)


# Padding ---------------------------------------------------------------------------------------------------------------
def pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0, reflect_type: str = "even") -> Any:
    if mode in ("edge", "wrap") or (mode in ("reflect", "symmetric") and reflect_type == "even"):
        return moved(np.pad)(array, pad_width, mode=mode)
    if mode != "constant":
        raise TypeError(f"np.pad with mode={mode!r} is not differentiated here; 'constant', 'edge', 'wrap', 'reflect' and 'symmetric' "
                        "are")
    if type(constant_values) is int and constant_values == 0:
        return moved(np.pad, 1)(array, pad_width)
    inside = np.pad(np.ones(np.shape(array), bool), pad_width)
    around = np.pad(np.zeros_like(value_of(array)), pad_width, constant_values=constant_values)
    return np.where(inside, moved(np.pad, 1)(array, pad_width), around)


def extract(condition: Any, arr: Any) -> Any:
    return np.ravel(arr)[np.nonzero(np.ravel(condition))[0]]


def compress(condition: Any, a: Any, axis: Any = None) -> Any:
    a, axis = flat_or(a, axis)
    return along(a, axis, np.compress(condition, np.arange(a.shape[axis])))


atleast_1d, atleast_2d, atleast_3d = (several(reshaped(f)) for f in (np.atleast_1d, np.atleast_2d, np.atleast_3d))

FUNCTIONS.update({
    np.reshape: reshape, np.ravel: ravel, np.transpose: transpose, np.permute_dims: transpose, np.swapaxes: swapaxes,
    np.moveaxis: moveaxis, np.rollaxis: rollaxis, np.matrix_transpose: matrix_transpose,
    np.expand_dims: reshaped(np.expand_dims), np.squeeze: reshaped(np.squeeze), np.broadcast_to: broadcast_to,
    np.broadcast_arrays: broadcast_arrays, np.meshgrid: meshgrid, np.flip: flip, np.flipud: lambda m: flip(m, 0),
    np.fliplr: lambda m: flip(m, 1), np.rot90: moved(np.rot90), np.roll: roll, np.take: take_with, np.repeat: repeat,
    np.delete: delete, np.tile: lambda A, reps: moved(np.tile)(A, reps), np.take_along_axis: take_along_axis,
    np.diagonal: diagonal, np.diag: moved(np.diag, 1), np.diagflat: moved(np.diagflat, 1), np.tril: triangle(np.tril),
    np.triu: triangle(np.triu), np.concatenate: concatenate, np.stack: stack, np.vstack: joined(atleast_2d, 0),
    np.dstack: joined(atleast_3d, 2), np.hstack: hstack, np.column_stack: column_stack, np.append: append, np.block: block,
    np.split: split, np.array_split: array_split, np.hsplit: hsplit, np.vsplit: vsplit, np.dsplit: dsplit,
    np.unstack: unstack, np.insert: insert, np.apply_along_axis: apply_along_axis, np.resize: moved(np.resize),
    np.pad: pad, np.extract: extract, np.compress: compress,
    np.lib.stride_tricks.sliding_window_view: sliding_window_view,
    np.atleast_1d: atleast_1d, np.atleast_2d: atleast_2d, np.atleast_3d: atleast_3d,
})

"""Trees: nested dicts, lists, tuples, named tuples and dataclasses whose leaves are arrays or anything else.

A tree is taken apart into its leaves and its structure, and put together again. Dict order is insertion order. Subclasses of
dict, list and tuple are containers where their class builds them anew from their items alone (OrderedDict, defaultdict); a
dataclass is put together from its fields, without calling __init__. A class with `whole_in_trees = True` is a leaf.
"""
from __future__ import annotations

import builtins
import functools
import sys
import types
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from itertools import chain
from typing import Any

import numpy as np

PLAIN = {np.ndarray, np.float64, np.float32, float, int, bool, str, type(None)}      # leaves that are told quickly; tensors too
LEAF = None   # the structure of a leaf; a container's structure is (container type, keys, children, default_factory)


def flatten(tree: Any) -> tuple[list, Any]:
    """The leaves of a tree, and its structure.

    Parameters
    ----------
    tree : nested dicts, lists, tuples, named tuples and dataclasses; anything else is a leaf.

    Returns (leaves, structure); `unflatten(structure, leaves)` is its inverse. Dicts keep their own order.
    Raises nothing.

    Cost: one visit of each node.

    Example
    -------
    >>> flatten({"b": 1.0, "a": [2.0, 3.0]})[0]
    [1.0, 2.0, 3.0]
    """
    leaves: list = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list) -> Any:
    kind = type(tree)
    if kind in PLAIN:
        leaves.append(tree)
        return LEAF
    if kind is dict:
        return dict, tuple(tree), _each(tree.values(), leaves), None
    if kind is list or kind is tuple:
        return kind, None, _each(tree, leaves), None
    found = _unusual(tree, kind)
    if found is not None:
        keys, children = found
        return kind, keys, _each(children, leaves), getattr(tree, "default_factory", None)
    leaves.append(tree)
    return LEAF


def _each(children: Any, leaves: list) -> list:
    """The structures of children; plain leaves without a call of their own, for this is where the time of small trees goes."""
    if PLAIN.issuperset(builtins.map(type, children)):
        leaves.extend(children)
        return [LEAF] * len(children)
    found: list = []
    for child in children:
        if type(child) in PLAIN:
            leaves.append(child)
            found.append(LEAF)
        else:
            found.append(_flatten(child, leaves))
    return found


def _unusual(tree: Any, kind: type) -> tuple[Any, list] | None:
    """The keys (None without) and the children of a named tuple, a dataclass, or another class of container; None for a leaf.

    What holds more than its items, as attributes, could not be put together again, and is a leaf.
    """
    if hasattr(kind, "__dataclass_fields__"):
        names = tuple(f.name for f in fields(kind))
        if getattr(kind, "whole_in_trees", False) or not set(getattr(tree, "__dict__", ())) <= set(names):
            return None
        return names, [getattr(tree, name) for name in names]
    if not isinstance(tree, (dict, list, tuple)):
        return None
    keys, children = (tuple(tree), list(tree.values())) if isinstance(tree, dict) else (None, list(tree))
    attributes = getattr(tree, "__dict__", None)
    if attributes and attributes is not tree:
        return None
    try:
        again = _build(kind, keys, children, getattr(tree, "default_factory", None))
        fits = isinstance(again, (dict, list, tuple)) and type(again) is kind and len(again) == len(children)
    except Exception:               # a class that takes its items in another way
        fits = False
    return (keys, children) if fits else None


def _build(kind: Any, keys: Any, items: list, factory: Any = None) -> Any:
    """The container of this type with these items."""
    if kind is dict:
        return dict(zip(keys, items, strict=True))
    if kind is list or kind is tuple:
        return items if kind is list else tuple(items)
    if hasattr(kind, "__dataclass_fields__"):
        made = object.__new__(kind)
        for key, item in zip(keys, items, strict=True):
            object.__setattr__(made, key, item)
        return made
    if hasattr(kind, "_make"):
        return kind._make(items)
    if keys is None:
        return kind(items)
    made = kind(factory) if issubclass(kind, defaultdict) else kind()
    for key, item in zip(keys, items, strict=True):
        made[key] = item
    return made


def unflatten(structure: Any, leaves: Any) -> Any:
    """Build the tree of this structure.

    Parameters
    ----------
    structure : as `flatten` gives it.
    leaves : in the order in which `flatten` gave them.

    Returns the tree. Raises StopIteration for too few leaves.

    Cost: one visit of each node.

    Example
    -------
    >>> leaves, structure = flatten({"a": [2.0, 3.0]})
    >>> unflatten(structure, [x + 1 for x in leaves])
    {'a': [3.0, 4.0]}
    """
    return _unflatten(structure, iter(leaves))


def _unflatten(structure: Any, leaves: Any) -> Any:
    if structure is LEAF:
        return next(leaves)
    kind, keys, children, factory = structure
    items = [next(leaves) if child is LEAF else _unflatten(child, leaves) for child in children]
    return tuple(items) if kind is tuple else _build(kind, keys, items, factory)


def map(fn: Callable, tree: Any, *others: Any) -> Any:
    """Apply fn to the leaves of trees of one structure.

    Parameters
    ----------
    fn : a function of one leaf of each tree.
    tree, others : trees with the same nesting and keys.

    Returns a tree of the results. Raises ValueError where the structures differ.

    Cost: one visit of each node, and one call of fn a leaf.

    Example
    -------
    >>> map(lambda a, b: a + b, {"x": 1.0}, {"x": 2.0})
    {'x': 3.0}
    """
    leaves, structure = flatten(tree)
    columns = [leaves]
    for other in others:
        more, theirs = flatten(other)
        if theirs != structure:
            raise ValueError(f"tree.map: the trees differ in structure: {describe(tree)} and {describe(other)}; "
                             "give trees with the same nesting and keys")
        columns.append(more)
    return unflatten(structure, [fn(*row) for row in zip(*columns, strict=True)])


def align(structure: Any, tree: Any) -> list:
    """The leaves of a tree in the order of a structure: dicts are matched by key, and None stands for a whole branch of None.

    Raises ValueError where the tree is not of that structure.
    """
    leaves, found = flatten(tree)
    return leaves if found == structure else _aligned(structure, tree)


def _aligned(structure: Any, tree: Any) -> list:
    if structure is LEAF:
        if isinstance(tree, (dict, list, tuple)):
            raise ValueError(f"a {type(tree).__name__} stands where a single array is expected")
        return [tree]
    kind, keys, children, _ = structure
    if tree is None:
        return [None for child in children for _ in _aligned(child, None)]
    fits = isinstance(tree, dict) if issubclass(kind, dict) else type(tree) is kind
    record = hasattr(kind, "__dataclass_fields__")
    if not fits or (not record and len(tree) != len(children)) or (keys is not None and not record and set(keys) != set(tree)):
        raise ValueError(f"{describe(tree)} stands where a {kind.__name__} " + (
            f"with the keys {list(keys)}" if keys is not None else f"of {len(children)} items") + " is expected")
    items = tree if keys is None else [getattr(tree, key) if record else tree[key] for key in keys]
    return list(chain.from_iterable(builtins.map(_aligned, children, items)))


def paths(tree: Any, prefix: str = "") -> list[str]:
    """Name every leaf, for messages.

    Parameters
    ----------
    tree : any tree.
    prefix : what stands before each name.

    Returns names in the order of `flatten`: ['W1'], [0]['b'] or .rate. Raises nothing.

    Cost: one visit of each node.

    Example
    -------
    >>> paths({"W": [1.0, 2.0]})
    ["['W'][0]", "['W'][1]"]
    """
    kind = type(tree)
    found = (tuple(tree), list(tree.values())) if kind is dict else (None, tree) if kind in (list, tuple) else _unusual(tree, kind)
    if found is None:
        return [prefix]
    keys, children = found
    attribute = hasattr(kind, "__dataclass_fields__")
    names = range(len(children)) if keys is None else keys
    return [p for name, child in zip(names, children, strict=True)
            for p in paths(child, f"{prefix}.{name}" if attribute else f"{prefix}[{name!r}]")]


def describe(tree: Any) -> str:
    """The tree with shapes for arrays, in one line, for messages."""
    def plain(structure: Any) -> Any:
        if structure is LEAF:
            x = next(leaves)
            return f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") and hasattr(x, "dtype") else type(x).__name__
        kind, keys, children, _ = structure
        items = [plain(child) for child in children]
        return dict(zip(keys, items, strict=True)) if keys is not None else _build(kind, None, items)

    found, structure = flatten(tree)
    leaves = iter(found)
    return str(plain(structure))


STATIC = (str, bytes, int, float, complex, np.generic, np.dtype, type(None), type(Ellipsis), slice, range)
FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, np.ufunc, functools.partial)


def check_leaves(tree: Any, what: str) -> None:
    """TypeError for a leaf that gradients could get lost in: neither array, number, string, None nor function.

    what: how the message calls the tree, as in "solve: params".
    """
    for i, x in enumerate(flatten(tree)[0]):
        if type(x) in PLAIN and (type(x) is not np.ndarray or x.dtype.kind in "fiub"):
            continue
        reason = refused(x)
        if reason:
            raise TypeError(f"{what}{paths(tree)[i]} is {reason}")


def refused(x: Any) -> str:
    """Why x can be no leaf where gradients are taken, and what to do; empty if it can."""
    name = type(x).__name__
    if isinstance(x, STATIC) or isinstance(x, FUNCTIONS):
        return ""
    if isinstance(x, np.ndarray):
        if isinstance(x, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())):
            return f"a {name}, whose mask the gradient would not know; fill it and multiply by the mask as a plain array"
        if isinstance(x, getattr(sys.modules.get("numpy.matrixlib"), "matrix", ())):
            return f"a np.{name}, which multiplies in its own way; pass np.asarray of it, and write @ for products"
        if x.dtype.kind in "OV":
            return f"an array of {x.dtype}, through which no gradient flows; pass a tree of float arrays instead"
        return ""
    if hasattr(type(x), "__array_function__"):               # a tensor, or an array of a device
        return ""
    if callable(x) and not any(hasattr(leaf, "dtype") or type(leaf) is float for leaf in flatten(list(
            getattr(x, "__dict__", {}).values()))[0]):
        return ""
    return (f"a {type(x).__module__.removeprefix('builtins')}{'.' * (type(x).__module__ != 'builtins')}{name}, into which no "
            "gradient goes; a tree is made of dicts, lists, tuples, named tuples and dataclasses (with no attributes but their "
            "fields) that hold arrays, numbers, strings, None or functions")


def ravel(leaves: Any) -> tuple[Any, Callable]:
    """Arrays laid end to end as one vector, and the way back.

    Parameters
    ----------
    leaves : a list of (...) arrays.

    Returns (vector, unravel): (n,), and the function that takes such a vector apart again. Raises ValueError without any leaf.

    Cost: one copy of all; unravel makes views.

    Example
    -------
    >>> vector, unravel = ravel([np.ones((2, 2)), np.zeros(1)])
    >>> vector.shape, [x.shape for x in unravel(vector)]
    ((5,), [(2, 2), (1,)])
    """
    shapes = [np.shape(x) for x in leaves]
    sizes = [int(np.prod(shape)) for shape in shapes]
    ends = np.cumsum(sizes).tolist()

    def unravel(vector: Any) -> list:
        return [np.reshape(vector[end - size:end], shape)
                for size, end, shape in zip(sizes, ends, shapes, strict=True)]

    return np.concatenate([np.reshape(x, (-1,)) for x in leaves]), unravel

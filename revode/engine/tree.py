"""Trees: nested dicts, lists, tuples and named tuples whose leaves are arrays or anything else.

A tree is taken apart into its leaves and its structure, and put together again. Dict order is insertion order.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

LEAF = None   # the structure of a leaf; a container's structure is (container type, keys, children)


def flatten(tree: Any) -> tuple[list, Any]:
    """Return (leaves, structure); `unflatten(structure, leaves)` is its inverse."""
    leaves: list = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list) -> Any:
    kind = type(tree)
    if kind is dict:
        return dict, tuple(tree), [_flatten(child, leaves) for child in tree.values()]
    if kind is list or kind is tuple or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        return kind, None, [_flatten(child, leaves) for child in tree]
    leaves.append(tree)
    return LEAF


def unflatten(structure: Any, leaves: Any) -> Any:
    """Build the tree of this structure from its leaves, in the order `flatten` gave them."""
    return _unflatten(structure, iter(leaves))


def _unflatten(structure: Any, leaves: Any) -> Any:
    if structure is LEAF:
        return next(leaves)
    kind, keys, children = structure
    if kind is dict:
        return {key: _unflatten(child, leaves) for key, child in zip(keys, children, strict=True)}
    items = [_unflatten(child, leaves) for child in children]
    return items if kind is list else tuple(items) if kind is tuple else kind(*items)


def map(fn: Callable, tree: Any, *others: Any) -> Any:
    """Apply fn to the leaves of trees of one structure; ValueError where the structures differ."""
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
    if structure is LEAF:
        if isinstance(tree, (dict, list, tuple)):
            raise ValueError(f"a {type(tree).__name__} stands where a single array is expected")
        return [tree]
    kind, keys, children = structure
    if tree is None:
        return [None for child in children for _ in align(child, None)]
    if type(tree) is not kind or len(tree) != len(children) or (keys is not None and set(keys) != set(tree)):
        raise ValueError(f"{describe(tree)} stands where a {kind.__name__} " + (
            f"with the keys {list(keys)}" if keys is not None else f"of {len(children)} items") + " is expected")
    items = tree if keys is None else [tree[key] for key in keys]
    return [leaf for child, item in zip(children, items, strict=True) for leaf in align(child, item)]


def paths(tree: Any, prefix: str = "") -> list[str]:
    """Name every leaf, in the order of `flatten`: ['W1'] or [0]['b'], for messages."""
    kind = type(tree)
    if kind is dict:
        return [p for key, child in tree.items() for p in paths(child, f"{prefix}[{key!r}]")]
    if isinstance(tree, (list, tuple)) and (kind in (list, tuple) or hasattr(tree, "_fields")):
        return [p for i, child in enumerate(tree) for p in paths(child, f"{prefix}[{i}]")]
    return [prefix]


def describe(tree: Any) -> str:
    """The tree with shapes for arrays, in one line, for messages."""
    return str(map(lambda x: f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else type(x).__name__, tree))


def ravel(leaves: Any) -> tuple[Any, Callable]:
    """Arrays laid end to end as one vector, and the function that takes such a vector apart again."""
    shapes = [np.shape(x) for x in leaves]
    sizes = [int(np.prod(shape)) for shape in shapes]
    ends = np.cumsum(sizes).tolist()

    def unravel(vector: Any) -> list:
        return [np.reshape(vector[end - size:end], shape)
                for size, end, shape in zip(sizes, ends, shapes, strict=True)]

    return np.concatenate([np.reshape(x, (-1,)) for x in leaves]), unravel

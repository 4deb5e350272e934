"""Trees in files: save and load, one .npz each, without pickle."""
from __future__ import annotations

import json
from typing import Any

import numpy as np

from .engine.tree import LEAF, flatten, paths, unflatten


def save(path: str, tree: Any) -> None:
    """Write a tree of arrays, numbers, strings, bools and None to one .npz file, without pickle.

    Parameters: path (.npz is appended if missing), tree with string keys in its dicts. Named tuples are refused.

    Example
    -------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(os.path.join(folder, "params"), {"W": np.eye(2), "layers": [1, None]})
    ...     load(os.path.join(folder, "params"))["layers"]
    [1, None]
    """
    leaves, structure = flatten(tree)
    arrays: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for i, (leaf, where) in enumerate(zip(leaves, paths(tree), strict=True)):
        if leaf is None or type(leaf) in (bool, int, float, str):
            plain[str(i)] = leaf
        elif (type(leaf) is np.ndarray or isinstance(leaf, (np.generic, np.memmap))) and leaf.dtype != object:   # masks would be lost
            arrays[f"leaf{i}"] = np.asarray(leaf)
        else:
            raise TypeError(f"save: the leaf {where or 'given'} is a {type(leaf).__name__}; an archive holds NumPy "
                            "arrays, numbers, strings, bools and None. Move device arrays with to_host first.")
    head = json.dumps({"structure": _to_json(structure), "plain": plain})
    with open(path if str(path).endswith(".npz") else f"{path}.npz", "wb") as file:
        np.savez(file, head=np.asarray(head), **arrays)


def load(path: str) -> Any:
    """Read back what `save` wrote: the same nesting, bits, shapes and dtypes.

    Example
    -------
    >>> load("/no/such/file")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file.npz'
    """
    with np.load(path if str(path).endswith(".npz") else f"{path}.npz", allow_pickle=False) as archive:
        if "head" not in archive:
            raise ValueError(f"load: {path} was not written by revode's save (it has no entry 'head')")
        head = json.loads(str(archive["head"]))
        names = [name for name in archive.files if name != "head"]
        found: dict[int, Any] = {int(name[4:]): archive[name] for name in names}
    found.update({int(i): leaf for i, leaf in head["plain"].items()})
    return unflatten(_from_json(head["structure"]), [found[i] for i in range(len(found))])


def _to_json(structure: Any) -> Any:
    if structure is LEAF:
        return None
    kind, keys, children, _ = structure
    if kind not in (dict, list, tuple) or any(type(key) is not str for key in keys or ()):
        raise TypeError(f"save: cannot keep a {kind.__name__} with keys {keys}; use dicts with string keys, lists "
                        "and tuples")
    return [kind.__name__, keys, [_to_json(child) for child in children]]


def _from_json(data: Any) -> Any:
    if data is None:
        return LEAF
    kind, keys, children = data
    kinds = {"dict": dict, "list": list, "tuple": tuple}
    return kinds[kind], tuple(keys) if keys is not None else None, [_from_json(child) for child in children], None

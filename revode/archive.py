"""Trees in files: save and load, one .npz each, without pickle, written whole or not at all.

The arrays lie in the archive one by one; how they hang together stands beside them as JSON. A solution, with its state, its
costs and its method, is kept too: a record of one of this library's classes is its class's name and its fields.
"""
from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
from fractions import Fraction
from typing import Any

import numpy as np

from .engine import tree as trees

PLAIN = (type(None), bool, int, float, str)


def save(path: Any, tree: Any) -> None:
    """Write a tree of arrays, numbers, strings, bools and None to one .npz file, without pickle.

    Parameters
    ----------
    path : .npz is appended if missing. The file is written beside its place and moved there when it is whole, so that a run
        that dies leaves the file that was there before.
    tree : dicts with string keys, lists and tuples; an optimiser's state; a Solution or its state (a method of your own,
        made by `shears`, is not kept: give method= again to go on). Other named tuples and dataclasses are refused.

    Returns nothing.
    Raises TypeError for what it cannot keep, before anything is written. Not inside a gradient: tensors are refused.

    Cost: the file, as large as the arrays; nothing is compressed.

    Example
    -------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(os.path.join(folder, "params"), {"W": np.eye(2), "layers": [1, None]})
    ...     load(os.path.join(folder, "params"))["layers"]
    [1, None]
    """
    arrays: list[np.ndarray] = []
    head = json.dumps({"tree": packed(tree, "", arrays)})
    path = os.path.realpath(named(path))
    part = f"{path}.{os.urandom(8).hex()}.part"
    try:
        with open(part, "xb") as file:
            np.savez(file, head=np.asarray(head), **{f"leaf{i}": x for i, x in enumerate(arrays)})  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def load(path: Any) -> Any:
    """Read back what `save` wrote: the same nesting, bits, shapes and dtypes; a Solution is one again.

    Parameters
    ----------
    path : of the file; .npz is appended if missing.

    Returns the tree. Raises FileNotFoundError, and ValueError for another file. Nothing in the file is executed.

    Cost: the file, read once.

    Example
    -------
    >>> load("/no/such/file")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file.npz'
    """
    with np.load(named(path), allow_pickle=False) as archive:
        if "head" not in archive:
            raise ValueError(f"load: {path} was not written by revode's save (it has no entry 'head')")
        return opened(json.loads(str(archive["head"]))["tree"], archive)


def named(path: Any) -> str:
    return os.fspath(path) if str(path).endswith(".npz") else f"{os.fspath(path)}.npz"


def packed(x: Any, where: str, arrays: list[np.ndarray]) -> Any:
    """What JSON can hold: a plain value as it is, anything else as [what it is, what is in it]. Arrays are put aside."""
    def inside(child: Any, of: str) -> Any:
        return packed(child, where + of, arrays)

    kind = type(x)
    if kind in PLAIN:
        return x
    if kind in (list, tuple):
        return [kind.__name__, [inside(child, f"[{i}]") for i, child in enumerate(x)]]
    if kind is dict and all(type(key) is str for key in x):
        return ["dict", {key: inside(child, f"[{key!r}]") for key, child in x.items()}]
    if (kind is np.ndarray or issubclass(kind, (np.generic, np.memmap))) and x.dtype != object:        # masks would be lost
        arrays.append(np.asarray(x))
        return ["number" if issubclass(kind, np.generic) else "array", len(arrays) - 1]
    if kind is Fraction:                                                          # in tableaux
        return ["fraction", str(x)]
    if kind.__module__.startswith("revode.") and kind.__name__ == "UserMethod":
        return None
    if kind.__module__ == "revode.problem" and kind.__name__ == "Packing":
        return ["layout", [inside(trees.unflatten(x.structure, [np.array(shape, int) for shape in x.shapes]), ".y"), x.split]]
    names = fields(kind)
    if names is None:
        raise TypeError(refusal(x, where))
    return [f"{kind.__module__}.{kind.__name__}", {name: inside(getattr(x, name), f".{name}") for name in names}]


def refusal(x: Any, where: str) -> str:
    kind = type(x).__name__
    if isinstance(x, (dict, list, tuple)) or dataclasses.is_dataclass(x):
        keys: Any = f" with keys {tuple(x)}" if isinstance(x, dict) else ""
        return f"save: cannot keep a {kind}{keys}; use dicts with string keys, lists and tuples"
    return (f"save: the leaf {where or 'given'} is a {kind}; an archive holds NumPy arrays, numbers, strings, "
            "bools and None. Move device arrays with to_host first.")


def fields(kind: type) -> tuple[str, ...] | None:
    """The fields of a record of this library: a named tuple or a dataclass; None for anything else."""
    if not kind.__module__.startswith("revode."):
        return None
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else getattr(kind, "_fields", None)


def opened(data: Any, archive: Any) -> Any:
    """The inverse of `packed`."""
    if type(data) is not list:
        return data
    kind, content = data
    if kind in ("array", "number"):
        return archive[f"leaf{content}"] if kind == "array" else archive[f"leaf{content}"][()]
    if kind == "fraction":
        return Fraction(content)
    if type(content) is list:
        children = [opened(x, archive) for x in content]
        if kind == "layout":
            y = trees.map(lambda shape: np.broadcast_to(0.0, tuple(shape)), children[0])
            return importlib.import_module("revode.problem").Packing((y, y) if children[1] else y, children[1])
        return tuple(children) if kind == "tuple" else children
    items = {key: opened(x, archive) for key, x in content.items()}
    return items if kind == "dict" else record(kind, items)


def record(kind: str, items: dict) -> Any:
    """A named tuple or a dataclass of this library from its fields; __init__ is not called."""
    module, _, name = kind.rpartition(".")
    there = re.fullmatch(r"revode(\.[a-z]\w*)+", module) and importlib.util.find_spec(module)            # of this library alone
    found: Any = getattr(importlib.import_module(module), name, None) if there else None
    if not isinstance(found, type) or fields(found) != tuple(items):
        raise ValueError(f"load: the file holds a {kind} of {', '.join(items)}, which this version of revode does not know; read "
                         "it with the version that wrote it")
    if issubclass(found, tuple):
        return found._make(items.values())                                                            # type: ignore[attr-defined]
    made = object.__new__(found)
    for field, x in items.items():
        object.__setattr__(made, field, x)
    return made

"""Arrays and numbers, wherever they come from: kinds that lose something, times, parameters."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import is_float, value_of


def read_only(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.flags.writeable:
        x = x.view()
        x.setflags(write=False)
    return x


def check_kind(x: Any, what: str) -> None:
    """Refuse the subclasses of arrays that mean something else by their operations: the mask, or the matrix, would be lost."""
    if type(x) is np.ndarray or not isinstance(x, np.ndarray):
        return
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{what} a masked array, whose mask would be ignored; pass x.filled(...) or x.compressed(), or "
                        "give the mask to the loss")
    if isinstance(x, np.matrix):
        raise TypeError(f"{what} an np.matrix, whose * is another product; pass np.asarray(x)")


def check_leaf(x: Any, what: str) -> None:
    """Refuse what a gradient would get lost in, or what is no number."""
    check_kind(x, what)
    dtype = getattr(x, "dtype", None)
    if dtype is not None and (dtype.kind in "cOVmM" or (dtype.kind == "f" and dtype not in (np.float32, np.float64))):
        raise TypeError(f"{what} an array of {dtype}, which carries no gradient here; give float64 or float32 (integers, bools and "
                        "strings pass through as they are)")
    if dtype is None and not (x is None or callable(x) or isinstance(x, (int, float, str, bytes))):
        raise TypeError(f"{what} a {type(x).__name__}, which no gradient would reach; params is a tree of dicts, lists, "
                        "tuples and named tuples, with arrays and numbers as leaves")


def check_finite(x: Any, what: str) -> None:
    if not bool(np.all(np.isfinite(x))):
        raise ValueError(f"solve: {what} has entries that are not finite (NaN or Inf)")


def check_home(x: Any, what: str, other: Any, whose: str) -> None:
    """Whether an array lies where another one does."""
    home, here = (type(z).__module__.split(".")[0] for z in (x, other))
    if home != here:
        raise TypeError(f"solve: {what} is a {home} array but {whose} is a {here} array; move all of them to one device "
                        "(revode_cuda.to_device, to_host)")


def numbers_of(x: Any, what: str) -> np.ndarray:
    """(n,) float64 times, of anything that is a list of real numbers."""
    check_kind(x, f"solve: {what} is")
    try:
        found = np.asarray(x)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype.kind not in "iuf" and found.size:
        seconds = ", as in (ts - ts[0]) / np.timedelta64(1, 's')" if found.dtype.kind == "M" else ""
        raise TypeError(f"solve: {what} is {tree.describe(x)}; it is a vector of times, which are plain real numbers{seconds}")
    found = found.astype(np.float64)
    check_finite(found, what)
    return found


def check_params(params: Any, y: Any) -> Any:
    """Params with Python floats in y's dtype; refuses what is not finite, or lives on another device than y."""
    leaves, structure = tree.flatten(params)
    checked = []
    for i, x in enumerate(leaves):
        plain = value_of(x)
        if type(plain) is np.ndarray is type(y) and plain.dtype == y.dtype and np.isfinite(plain).all():   # as ever
            checked.append(x)
            continue
        name = tree.paths(params)[i]
        check_leaf(plain, f"solve: params{name} is")
        if type(plain) is float:
            # A Python float, or a tensor of one, in y's dtype (np.ones_like of CuPy cannot make an array without axes).
            x = x * (y.dtype.type(1) if isinstance(y, (np.ndarray, np.generic)) else np.ones_like(y, shape=(1,))[0])
            plain = value_of(x)
        elif isinstance(plain, np.floating) and not isinstance(y, (np.ndarray, np.generic)):
            x = x * np.ones_like(y, shape=(1,))[0]        # NumPy's scalars have to be where their gradient will be
            plain = value_of(x)
        if hasattr(plain, "dtype") and not isinstance(plain, np.generic):
            check_home(plain, f"params{name}", y, "y0")
        if is_float(plain):
            check_finite(plain, f"params{name}")
        checked.append(x)
    return tree.unflatten(structure, checked)

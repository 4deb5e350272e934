"""Arrays on the GPU: how trees of them get there and back, and what is said where something is missing.

    host  --to_device-->  GPU     queued on CuPy's current stream; the host goes on at once
    GPU   --to_host---->  host    queued for every leaf, and one wait for all of them at the end

Memory comes from CuPy's current allocator (by default its pool) and work goes to its current stream: nothing here sets
either, so `with cupy.cuda.Stream():` and `cupy.cuda.set_allocator` do what they do elsewhere. CuPy is imported by the first
function that needs it.
"""
from __future__ import annotations

from typing import Any

import numpy as np

import revode
from revode import Tensor, tree


def require_cupy(asked: str) -> Any:
    """The module cupy, once it is certain that it has a GPU to work on.

    Parameters: asked, the name of the function that needs it, for the message.
    Raises ImportError where CuPy is not installed, RuntimeError where it finds no driver or no GPU.
    """
    try:
        import cupy
    except ImportError as error:
        raise ImportError(f'{asked}: CuPy is not installed ({error}); install it with pip install "revode[cuda]", or keep NumPy '
                          "arrays, which run on the host under the same names") from None
    if not cupy.is_available():
        raise RuntimeError(f"{asked}: CuPy {cupy.__version__} is installed but {what_is_missing(cupy)}; on a machine without a GPU "
                           "keep NumPy arrays, which run on the host under the same names")
    return cupy


def what_is_missing(cupy: Any) -> str:
    """Why CuPy cannot work here, as the end of a sentence."""
    runtime = cupy.cuda.runtime
    try:
        if runtime.driverGetVersion() == 0:
            return "there is no NVIDIA driver (nvidia-smi would show one)"
        if runtime.getDeviceCount() == 0:
            return "there is no GPU that this process may use (CUDA_VISIBLE_DEVICES may hide it)"
    except Exception as error:
        return f"the driver cannot be used ({error}); CuPy for CUDA 13 needs a driver of that generation, so update it, or install " \
               "the CuPy built for the driver you have"
    return "it does not report a GPU as available"


def home(x: Any) -> str | None:
    """Where an array lives: 'host', 'cuda:0', ...; None for what is no array, NumPy's scalars included."""
    if isinstance(x, Tensor):
        return home(x.value)
    if isinstance(x, np.ndarray):
        return "host"
    if isinstance(x, np.generic) or not (hasattr(x, "__cuda_array_interface__") or on_device(x)):
        return None
    return f"cuda:{getattr(getattr(x, 'device', None), 'id', 0)}"


def on_device(x: Any) -> bool:
    """Whether x is an array of CuPy's (or of what stands for it): it has NumPy's protocols, and get() copies it to the host."""
    return hasattr(type(x), "__array_function__") and callable(getattr(type(x), "get", None))


def check_one_home(function: str, **arguments: Any) -> str | None:
    """Where all arrays of these trees live; None without any. TypeError names the first leaf that lives elsewhere."""
    first: tuple[str, str] | None = None
    for argument, given in arguments.items():
        for x, path in zip(tree.flatten(given)[0], tree.paths(given), strict=True):
            place = home(x)
            if place is None:
                continue
            first = first or (place, argument + path)
            if place != first[0]:
                raise TypeError(f"{function}: {argument}{path} is on {place} but {first[1]} is on {first[0]}; move all of them to "
                                "one device with to_device (or back with to_host)")
    return first[0] if first else None


def to_device(x: Any) -> Any:
    """The tree x with its NumPy arrays copied to CuPy's current device.

    Parameters
    ----------
    x : an array, or a nested dict, list or tuple of arrays. None, numbers (NumPy's scalars included), bools and strings pass
        through, and so does what is on that device already. Dtypes, shapes and bits are kept.

    Returns a tree like x.

    Raises
    ------
    ImportError without CuPy, RuntimeError without a driver or a GPU; TypeError for a tensor (inside a gradient the way to the
    device is not differentiated: move the arrays before) and for an array of strings or objects, both by the name of the leaf.

    Cost: one copy a leaf, in the order of the current stream; the host does not wait.

    Example
    -------
    >>> to_device({"steps": 3, "name": None})
    {'steps': 3, 'name': None}
    """
    leaves, structure = tree.flatten(x)
    moving = [i for i, leaf in enumerate(leaves) if home(leaf) is not None]
    if not moving:
        return x
    cupy = require_cupy("to_device")
    for i, path in zip(range(len(leaves)), tree.paths(x), strict=True):
        if i not in moving:
            continue
        if isinstance(leaves[i], Tensor):
            raise TypeError(f"to_device: the leaf {path or 'given'} is a tensor, and moving it would drop its gradient; move the "
                            "arrays to the device before the gradient is taken")
        if leaves[i].dtype.kind not in "biufc":
            raise TypeError(f"to_device: the leaf {path or 'given'} is an array of {leaves[i].dtype}; a GPU holds numbers and bools")
        leaves[i] = cupy.asarray(leaves[i])
    return tree.unflatten(structure, leaves)


def to_host(x: Any) -> Any:
    """The tree x with its device arrays copied to NumPy arrays; everything else as it is. The whole of a Solution may be given.

    Parameters
    ----------
    x : a tree of arrays of the device or the host.

    Returns a tree like x. Raises TypeError for a tensor, by the name of the leaf: read its .value, or move the result of the gradient.
    Cost: one copy a leaf and one wait at the end, for the current stream alone.

    Example
    -------
    >>> to_host({"y": np.ones(2), "n": 3})["n"]
    3
    """
    leaves, structure = tree.flatten(x)
    waiting = False
    for i, path in zip(range(len(leaves)), tree.paths(x), strict=True):
        if isinstance(leaves[i], Tensor):
            raise TypeError(f"to_host: the leaf {path or 'given'} is a tensor, and moving it would drop its gradient; read its "
                            ".value, or move what the gradient returns")
        if on_device(leaves[i]):
            leaves[i], waiting = leaves[i].get(blocking=False), True
    if waiting:
        import cupy
        cupy.cuda.get_current_stream().synchronize()
    return tree.unflatten(structure, leaves)


def save(path: str, x: Any) -> None:
    """revode.save of a tree that may hold device arrays: they are written as the NumPy arrays that `load` gives back.

    Parameters
    ----------
    path : of the file; .npz is appended if missing.
    x : a tree of arrays of the device or the host, numbers, strings, bools and None.

    Returns nothing. Raises TypeError as revode.save, and for a tensor, by the name of the leaf.

    Cost: one copy to the host a leaf, and the file.

    Example
    -------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(os.path.join(folder, "run"), {"W": np.eye(2)})
    ...     revode.load(os.path.join(folder, "run"))["W"].shape
    (2, 2)
    """
    revode.save(path, to_host(x))

"""Calling compiled code: arguments as C takes them, and tiles over threads.

    run_tiles(library.forward, tiles, None, arguments(y0, y1, 1000))

Tiles are independent, so results do not depend on the number of threads. ctypes lets go of the interpreter while a tile runs.
"""
from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numpy as np

DTYPES = dict.fromkeys(map(np.dtype, ("float32", "float64", "int32", "int64", "uint64")))


def arguments(*values: Any) -> tuple:
    """Values as C takes them: arrays as pointers, whole numbers as long long, others as double, None as NULL.

    The pointers hold on to their arrays. Raises ValueError for an array that is not C-contiguous, TypeError for other types.
    """
    return tuple(map(_argument, values))


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype not in DTYPES:
            raise TypeError(f"native: an array of dtype {value.dtype} cannot be passed to compiled code; it takes "
                            f"{', '.join(map(str, DTYPES))}.")
        if not value.flags.c_contiguous:
            raise ValueError(f"native: an array of shape {value.shape} and strides {value.strides} is not C-contiguous; pass "
                             "np.ascontiguousarray of it.")
        pointer = ctypes.c_void_p(value.ctypes.data)
        pointer.array = value                        # type: ignore[attr-defined]
        return pointer
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, (int, np.integer, np.bool_)):
        return ctypes.c_longlong(int(value))
    if isinstance(value, (float, np.floating)):
        return ctypes.c_double(float(value))
    raise TypeError(f"native: {value!r} cannot be passed to compiled code; it takes arrays, numbers and None.")


def address(x: np.ndarray) -> int:
    """Where an array lies, which has to stay there while the number is in use. (x.ctypes takes as long as ten of these.)"""
    try:
        return ctypes.addressof(_nothing(x))
    except TypeError:                                # it cannot be written to, or has gaps
        return x.ctypes.data


_nothing: Callable = (ctypes.c_char * 0).from_buffer


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tiles(function: Callable, tiles: int, threads: int | None, arguments: tuple) -> None:
    """function(tile, *arguments) for every tile, over threads (default: one a core); thread i takes tiles i, i + threads, ...

    The first exception is raised here. After it, or after Ctrl-C, no further tile is begun, and those that run are waited
    for: they write into the caller's arrays. (Python sees Ctrl-C when the tile of the main thread ends.)
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads}: at least one, or None for one a core.")
    threads = 1 if tiles <= 1 else min(tiles, threads or cores())
    if threads == 1:
        for tile in range(tiles):
            function(tile, *arguments)
        return
    stop = threading.Event()

    def share(first: int) -> None:
        try:
            for tile in range(first, tiles, threads):
                if stop.is_set():
                    return
                function(tile, *arguments)
        except BaseException:
            stop.set()
            raise

    others = [_pool(threads).submit(share, i) for i in range(1, threads)]
    try:
        share(0)
        _wait(others)
    except BaseException:
        stop.set()
        _wait(others)                                # a second Ctrl-C ends this
        raise
    for other in others:
        other.result()


def _wait(others: Sequence[Future]) -> None:
    while wait(others, timeout=0.2).not_done:        # without a timeout Windows would not see Ctrl-C
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="revode-tile")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)          # a fork has the pool and none of its threads

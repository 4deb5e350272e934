"""Every hand-written kernel beside its mirror: plain NumPy, one operation after the other, sums in the kernel's order.

A case takes `put` (onto the machine that runs the kernel), a dtype and what is told to the launch, and returns pairs
(actual, desired) that have to agree in every bit. tests/kernels runs them on the host shim, tests/gpu on a GPU.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import revode as rv
from revode.compiled.tiles import tree_sum
from revode_cuda import kernels

Pairs = list[tuple[Any, Any]]
H, LAM = 0.1, 0.999


def arrays(put: Callable, dtype: Any, count: int, shape: Any = (7, 43), seed: int = 0) -> list[Any]:
    """Twice each: where the kernel runs, and for the mirror."""
    rng = np.random.default_rng(seed)
    made = [rng.normal(size=shape).astype(dtype) for _ in range(count)]
    return [(put(x.copy()), x) for x in made]


def host_array(x: Any) -> np.ndarray:
    return x.get() if hasattr(x, "get") else np.asarray(x)


def same_bits(actual: Any, desired: Any) -> bool:
    actual, desired = host_array(actual), np.asarray(desired)
    return actual.dtype == desired.dtype and actual.shape == desired.shape and actual.tobytes() == desired.tobytes()


def assert_same_bits(pairs: Pairs) -> None:
    for i, (actual, desired) in enumerate(pairs):
        if not same_bits(actual, desired):
            np.testing.assert_array_equal(host_array(actual), desired, err_msg=f"pair {i}")
            raise AssertionError(f"pair {i}: equal numbers, other bits (a dtype, or the sign of a zero or of a NaN)")


# scale, c, whether it moves towards a part
SHEARS = [(LAM, H, True), (1.0, -H, False), (-1.0, 2.0, False), (-0.6, 1.6, False), (0.5, H, True)]


def shear_forward(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for scale, c, moves in SHEARS:
        (x, X), (a, A), (k, K) = arrays(put, dtype, 3)
        kernels.shear_forward(x, k, scale, c, a if moves else None, **how)
        pairs += [(x, scale * X + ((1.0 - scale) * A + c * K) if moves else scale * X + c * K), (k, K), (a, A)]
    return pairs


def shear_inverse(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for scale, c, moves in SHEARS:
        (x, X), (a, A), (k, K) = arrays(put, dtype, 3)
        kernels.shear_inverse(x, k, scale, c, a if moves else None, **how)
        pairs += [(x, (X - ((1.0 - scale) * A + c * K)) / scale if moves else (X - c * K) / scale), (k, K), (a, A)]
    return pairs


def shear_pullback(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for scale, c, moves in SHEARS:
        (x, X), (a, A), (k, K), (ax, AX), (aa, AA) = arrays(put, dtype, 5)
        ak = kernels.shear_pullback(x, k, ax, scale, c, *((a, aa) if moves else ()), **how)
        pairs += [(x, (X - ((1.0 - scale) * A + c * K)) / scale if moves else (X - c * K) / scale), (ak, c * AX),
                  (ax, scale * AX), (aa, AA + (1.0 - scale) * AX if moves else AA), (a, A), (k, K)]
    return pairs


def tree(x: Any, fold: Callable, tile: int = 4096, lanes: int = 128) -> Any:
    """The order of reductions.cu."""
    while True:
        partial = []
        for start in range(0, max(1, len(x)), tile):
            part = x[start:start + tile]
            strand = np.zeros(lanes, x.dtype)
            for i in range(0, len(part), lanes):
                row = part[i:i + lanes]
                strand[:len(row)] = fold(strand[:len(row)], row)
            while len(strand) > 1:
                half = len(strand) // 2
                strand = fold(strand[:half], strand[half:])
            partial.append(strand[0])
        x = np.array(partial)
        if len(x) == 1:
            return x


SIZES = (0, 1, 127, 300, 4096, 9001)


def total(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for n in SIZES:
        (x, X), = arrays(put, dtype, 1, n, seed=n)
        pairs.append((kernels.total(x, **how), tree(X, lambda a, b: a + b)))
    return pairs


def max_abs(put: Callable, dtype: Any, **how: Any) -> Pairs:
    """The largest last, first and in the middle; a NaN among others."""
    pairs = []
    for n, at, value in ((1, 0, -0.0), (300, 299, -9.0), (300, 0, 9.0), (9001, 4500, -9.0), (9001, 8999, np.nan), (0, None, 0.0)):
        (_, X), = arrays(np.asarray, dtype, 1, n, seed=n)
        if at is not None:
            X[at] = value
        pairs.append((kernels.max_abs(put(X), **how), np.abs(np.array([value], dtype))))
    return pairs


def sum_rows(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for rows in (1, 16, 300):
        (x, X), = arrays(put, dtype, 1, (rows, 21), seed=rows)
        while len(X) > 1:
            tiles = []
            for start in range(0, len(X), 16):
                row = X[start]
                for other in X[start + 1:start + 16]:
                    row = row + other
                tiles.append(row)
            X = np.stack(tiles)
        pairs.append((kernels.sum_rows(x, **how), X[0]))
    return pairs


def collect(put: Callable, dtype: Any, **how: Any) -> Pairs:
    """Gathered, zeros, and sums of 1 .. 40 and of 1000 tiles: neighbours first, as the host adds them."""
    (x, X), = arrays(put, dtype, 1, (1000, 6))
    count = np.array([0, 1, *range(1, 41), 1000], np.int32)
    start = (np.arange(count.size) % 6).astype(np.int32)
    out = put(np.empty(count.size, dtype))
    kernels.collect(tuple(map(put, (start, count, np.full(count.size, 6, np.int32)))), x, out, **how)
    return [(out, np.array([tree_sum(X[:n, k]) if n else 0.0 for n, k in zip(count, start, strict=True)], dtype)), (x, X)]


def adamw(put: Callable, dtype: Any, **how: Any) -> Pairs:
    """Three steps of the library's optimiser."""
    optimiser = rv.optim.adamw(1e-2, 0.1)
    (p, P), *gradients = arrays(put, dtype, 4)
    m, v = put(np.zeros_like(P)), put(np.zeros_like(P))
    state = optimiser.init(P)
    pairs: Pairs = []
    for n, (g, G) in enumerate(gradients, 1):
        kernels.adamw(p, g, m, v, n, 1e-2, 0.1, **how)
        P, state = optimiser.update(P, G, state)
        pairs += [(host_array(p).copy(), P), (host_array(m).copy(), state["m"]), (host_array(v).copy(), state["v"])]
    return pairs


CASES: dict[str, Callable] = {case.__name__: case for case in (
    shear_forward, shear_inverse, shear_pullback, total, max_abs, sum_rows, collect, adamw)}
SUBJECT = {"total": "reductions", "max_abs": "reductions", "sum_rows": "reductions"}     # those with tiles
DTYPES = (np.float64, np.float32)
BLOCKS = (1, 32, 96, 128)

"""The hand-written kernels on a real GPU: the bits of NumPy, and of themselves in a second run."""
from __future__ import annotations

import numpy as np
import pytest

from revode_cuda.host.mirrors import CASES, DTYPES, assert_same_bits, host_array, same_bits

BLOCKS = (1, 32, 96, 128, 256)


def put(x):
    import cupy
    return cupy.asarray(x)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", CASES)
def test_strict_bits(name, dtype, block):
    assert_same_bits(CASES[name](put, dtype, block=block))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", CASES)
def test_fast_mode_repeats_itself_and_is_close(name, dtype):
    """A number is a sum of a few products whose sizes add up to less than 100, so contraction moves it by less than 70 * 100
    units of 1. What has no products keeps its bits."""
    first, second = (CASES[name](put, dtype, mode="fast") for _ in range(2))
    for (a, desired), (b, _) in zip(first, second, strict=True):
        assert same_bits(a, host_array(b))
        if name in ("total", "max_abs", "sum_rows"):
            assert same_bits(a, desired)
        else:
            np.testing.assert_allclose(host_array(a), desired, rtol=0, atol=70 * 100 * np.finfo(dtype).eps)


def test_a_large_sum_repeats_itself_and_is_right():
    """2^22 + 5 numbers. Each goes through at most 32 + 7 additions in each of the two stages, so the error is below
    (32 + 7) eps times the sum of sizes; as much again for NumPy's."""
    from revode_cuda import kernels
    x = np.random.default_rng(0).normal(size=2 ** 22 + 5)
    device = put(x)
    results = [host_array(kernels.total(device, block=block)) for block in (64, 256, 256)]
    assert same_bits(results[0], results[1]) and same_bits(results[1], results[2])
    assert abs(results[0][0] - x.sum()) <= 2 * (32 + 7) * np.finfo(float).eps * np.abs(x).sum()

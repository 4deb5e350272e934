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
        if name == "collect":
            assert same_bits(a, desired)
        elif name == "scores":                                       # sums over windows and features, quotients of these
            np.testing.assert_allclose(host_array(a), desired, rtol=70 * 100 * np.finfo(dtype).eps)
        else:
            np.testing.assert_allclose(host_array(a), desired, rtol=0, atol=70 * 100 * np.finfo(dtype).eps)


"""Strict native code == its NumPy mirror, bit for bit, over sizes, tiles, methods, noise and precisions."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import revode as rv
from tests.compiler import needs_compiler
from tests.strict_cases import METHODS, NOISY, compare, layers, network, start

pytestmark = [needs_compiler, pytest.mark.optimised]


def drift(t: Any, y: Any, p: Any) -> Any:
    return layers(t, y, p["net"])


def diagonal(t: Any, y: Any, p: Any) -> Any:
    return p["s"] * np.cos(y + t)


def general(t: Any, y: Any, p: Any) -> Any:
    return 0.2 * np.reshape(np.tanh(y @ p["V"]), (*y.shape, 2))


@settings(max_examples=settings.default.max_examples // 6, phases=(Phase.explicit, Phase.generate))      # each compiles: no shrinking
@example(d=3, width=17, depth=2, T=8, batch=(19,), dtype=np.float64, method=rv.Coupled("midpoint"), noise=None, seed=0)
@example(d=2, width=9, depth=1, T=32, batch=(40,), dtype=np.float32, method=rv.ReversibleHeun(), noise="general", seed=1)
@given(d=st.integers(1, 5), width=st.integers(1, 20), depth=st.integers(0, 2), T=st.sampled_from((1, 2, 4, 8, 16, 32)),
       batch=st.sampled_from(((), (1,), (2,), (5,), (17,), (2, 3))), dtype=st.sampled_from((np.float64, np.float32)),
       method=st.sampled_from(METHODS), noise=st.sampled_from((None, "diagonal", "general")), seed=st.integers(0, 99))
def test_native_is_its_mirror(d, width, depth, T, batch, dtype, method, noise, seed):
    """y1, all saved states, the gradients of y0 and of every parameter, the round trip, the counts; one thread or two."""
    if noise and (not getattr(method, "noise", False) or hasattr(method, "method")):
        method = NOISY[seed % len(NOISY)]
    rng = np.random.default_rng(seed)
    params: dict[str, Any] = {"net": network(d, width, depth, dtype, rng)}
    more: dict[str, Any] = {}
    if noise:
        params |= {"s": (0.2 * rng.standard_normal(d)).astype(dtype)} if noise == "diagonal" else {
            "V": (0.2 * rng.standard_normal((d, d * 2))).astype(dtype)}
        more = {"diffusion": diagonal if noise == "diagonal" else general, "noise": rv.Brownian(seed, offset=seed)}
    compare(drift, start(method, batch, d, dtype, rng), params, method, T=T, **more)

"""The works: y' = W3 tanh(W2 tanh(W1 y + b1) + b2) + b3, loss |y(T)|^2 / (2 batch), gradient to y0 and all weights.

    w1   tiny, the scale of the white dwarf     d = 2,  2-10-10-2,     batch 1,   1000 steps of 1/256
    w2   medium                                 d = 16, 16-64-64-16,   batch 256, 200 steps of 1/128
    w3   large: all time is in matrix products  d = 64, 64-512-512-64, batch 512, 50 steps of 1/64
    w4   dy = f dt + g o dW, diagonal noise     d = 4, f and g: 4-32-4, batch 256, 200 steps of 1/64

Steps are powers of two, so that the grid is the same in every library, to the last bit, in float64 and in float32.
"""
from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..adapters import Problem

LAM = 0.999          # of Coupled, as in the published runs
SEED = 7             # of the noise of w4

# What is asked for -> the scheme without reversibility on the same number of steps, for libraries that lack the other.
PLAIN = {"coupled-midpoint": "midpoint", "reversible-heun": "heun"}


class Work(NamedTuple):
    """One benchmark problem."""
    name: str
    title: str
    sizes: tuple[int, ...]       # features: of y, of the hidden layers, of y
    batch: int
    N: int
    h: float
    sde: bool = False


WORKS = {work.name: work for work in (
    Work("w1", "tiny", (2, 10, 10, 2), 1, 1000, 1 / 256),
    Work("w2", "medium", (16, 64, 64, 16), 256, 200, 1 / 128),
    Work("w3", "large", (64, 512, 512, 64), 512, 50, 1 / 64),
    Work("w4", "SDE with diagonal noise", (4, 32, 4), 256, 200, 1 / 64, sde=True),
)}


def field(xp: Any, t: Any, y: Any, params: Any) -> Any:
    """The network, in the array namespace xp; y (batch, d). It does not depend on t."""
    W1, b1, W2, b2, W3, b3 = params
    return xp.tanh(xp.tanh(y @ W1 + b1) @ W2 + b2) @ W3 + b3


def drift(xp: Any, t: Any, y: Any, params: Any) -> Any:
    """f of w4: the first network."""
    W1, b1, W2, b2 = params[:4]
    return xp.tanh(y @ W1 + b1) @ W2 + b2


def diffusion(xp: Any, t: Any, y: Any, params: Any) -> Any:
    """g of w4, shaped like y: the second network."""
    W1, b1, W2, b2 = params[4:]
    return xp.tanh(y @ W1 + b1) @ W2 + b2


def loss(xp: Any, y1: Any) -> Any:
    """Half the squared norm of the last state, averaged over the batch."""
    return xp.sum(y1 * y1) * (0.5 / y1.shape[0])


def problem(work: Work, dtype: str, seed: int = 0) -> Problem:
    """The arrays of a work: weights normal with variance 1 / inputs, biases and y0 normal with variances .01 and 1."""
    rng = np.random.default_rng(seed)
    params = []
    for n, m in [*pairwise(work.sizes)] * (2 if work.sde else 1):
        params += [rng.standard_normal((n, m)) / np.sqrt(n), 0.1 * rng.standard_normal(m)]
    y0 = rng.standard_normal((work.batch, work.sizes[0]))
    return Problem(drift if work.sde else field, loss, y0.astype(dtype), work.h * np.arange(work.N + 1),
                   tuple(p.astype(dtype) for p in params))


def increments(work: Work, dtype: str) -> np.ndarray:
    """dW of w4 for every step, (N, batch, d), for contenders to agree on; while timed, each makes its own noise."""
    import revode as rv
    noise = rv.Brownian(seed=SEED)
    return np.stack([noise.increments(n, (work.batch, work.sizes[0]), work.h, np.dtype(dtype)) for n in range(work.N)])

"""What goes into a case: one vector field for all, with noise or a control where the case has it. Every number is dyadic.

    f(t, y) = tanh(y W1 + t b1) W2 + b2 - k y                                        the drift, or the acceleration of q
    g(t, y) = tanh(y V + t c) / 2                    diagonal (d,); general (d, m); a control's (d, m) alone
    g(t)    = tanh(t c) / 2                          additive (d, m)

They depend on time, so that a wrong stage time shows, and on arrays of different shapes.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

D, WIDTH, M = 3, 4, 2                  # of y, of the hidden layer, of general noise
STEPS = {"varying": np.array([8, 12, 9, 16, 7, 11]) / 128, "uniform": np.full(6, 1 / 16),
"backwards": -np.array([9, 6, 12, 8, 10, 7]) / 128,
         "coarse": np.array([40, 28, 48, 36, 32]) / 128}           # for methods whose faults would not show otherwise


def dyadic(rng: Any, *shape: int, size: float = 1.0) -> np.ndarray:
    return np.round(rng.standard_normal(shape) * size * 64) / 64


def given(kind: str, grid: str, steps: int, seed: int = 7) -> dict:
    """ts, y0, params, weights and, for noise and controls, dWs: the increments of every step."""
    rng = np.random.default_rng(seed)
    if kind == "fixed-point":
        ts = np.arange(steps + 1.0)
        size = 0.25                                  # a contraction
    else:
        ts = 0.25 + np.concatenate([[0.0], np.cumsum(STEPS[grid][:steps])])
        size = 1.0
    params = {"W1": dyadic(rng, D, WIDTH, size=size), "b1": dyadic(rng, WIDTH),
    "W2": dyadic(rng, WIDTH, D, size=2 * size if size < 1 else 1),
              "b2": dyadic(rng, D), "k": np.array(0.25)}
    y0, shape = dyadic(rng, D), (D,)
    if kind == "split":
        y0 = np.stack([y0, dyadic(rng, D)])
        shape = (2, D)
    weights = dyadic(rng, len(ts), *shape)
    if kind == "fixed-point":
        weights[:-1] = 0
    problem = {"ts": ts, "y0": y0, "params": params, "weights": weights}
    if kind in NOISE:
        channels = {"diagonal": (D,), "general": (D, M), "additive": (D, M), "controlled": (D, M)}[kind]
        if kind != "additive":
            params["V"] = dyadic(rng, D, int(np.prod(channels)))
        params["c"] = dyadic(rng, int(np.prod(channels)))
        if kind == "controlled":
            for name in ("W1", "b1", "W2", "b2", "k"):
                del params[name]
        problem["dWs"] = dyadic(rng, len(ts) - 1, channels[-1], size=0.25)
    return problem


NOISE = ("diagonal", "general", "additive", "controlled")


def drift(t: Any, y: Any, p: dict) -> Any:
    return np.tanh(y @ p["W1"] + p["b1"] * t) @ p["W2"] + p["b2"] - p["k"] * y


def diffusion(kind: str) -> Callable:
    """g(t, y, p): (d,) for diagonal noise, (d, m) for the others."""
    def g(t: Any, y: Any, p: dict) -> Any:
        inside = p["c"] * t if kind == "additive" else y @ p["V"] + p["c"] * t
        value = np.tanh(inside) * 0.5
        return value if kind == "diagonal" else value.reshape(D, M)

    return g

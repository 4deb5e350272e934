"""Nine families of random problems. Rates are of order one: how hard a solve is, its grid decides.

A family draws (field, y0, params, longest, diffusion). `longest` bounds the time, so that growth stays finite. All arrays are
float64; a case rounds them to its dtype.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Rng = np.random.Generator


class Drawn(NamedTuple):
    field: Callable          # f(t, y, params) -> (..., d)
    y0: np.ndarray           # (..., d)
    params: dict             # arrays
    longest: float = 15.0
    diffusion: Callable | None = None
    members: int = 0         # y0, and params if they have this many rows, hold so many problems of their own
    together: bool = False   # the members are components of one array, not of a batch


def rates(rng: Rng, *shape: int) -> np.ndarray:
    """Between .1 and 3, all scales alike."""
    return np.exp(rng.uniform(np.log(0.1), np.log(3.0), shape))


def contraction(rng: Rng) -> Drawn:
    d = int(rng.integers(1, 4))
    which = rng.integers(0, 4)
    y0 = rng.uniform(0.5, 2.0, d)
    if which == 0:
        return Drawn(lambda t, y, p: -p["k"] * y, y0, {"k": rates(rng, d)})
    if which == 1:
        return Drawn(lambda t, y, p: -p["k"] * y ** 3, y0, {"k": rates(rng, d)}, 20.0)
    if which == 2:      # towards a moving target
        return Drawn(lambda t, y, p: p["k"] * (np.sin(p["w"] * t) - y), y0, {"k": rates(rng, d), "w": rates(rng, d)})
    return Drawn(lambda t, y, p: -(y @ p["A"] @ p["A"].T) - p["k"] * y, y0, {"A": 0.7 * rng.normal(size=(d, d)), "k": rates(rng, d)})


def growth(rng: Rng) -> Drawn:
    d = int(rng.integers(1, 4))
    which = rng.integers(0, 3)
    if which == 0:
        return Drawn(lambda t, y, p: p["k"] * y, rng.uniform(0.1, 1.0, d), {"k": rates(rng, d)}, 8.0)
    if which == 1:      # logistic: growth, then contraction
        return Drawn(lambda t, y, p: p["k"] * y * (1 - y / p["c"]), rng.uniform(0.02, 0.3, d),
                     {"k": rates(rng, d), "c": rng.uniform(0.5, 2.0, d)}, 20.0)
    return Drawn(lambda t, y, p: p["k"] * y + p["b"] * np.cos(t), rng.uniform(-1.0, 1.0, d),
                 {"k": 0.7 * rates(rng, d), "b": rng.normal(size=d)}, 8.0)


def sign(rng: Rng) -> Drawn:
    """Rates that change sign: what contracts on one stretch expands on the next."""
    d = int(rng.integers(1, 4))
    y0, params = rng.uniform(0.5, 1.5, d), {"k": 2 * rates(rng, d), "w": rates(rng, d), "phase": rng.uniform(0, 6, d)}
    if rng.random() < 0.5:
        return Drawn(lambda t, y, p: p["k"] * np.cos(p["w"] * t + p["phase"]) * y, y0, params)
    return Drawn(lambda t, y, p: p["k"] * np.sin(p["w"] * t + p["phase"]) * y - 0.1 * y ** 3, y0, params)


def weights(rng: Rng, d: int, width: int) -> dict:
    return {"W1": rng.normal(size=(d, width)) * rng.uniform(0.5, 1.5) / np.sqrt(d), "b1": rng.normal(size=width),
            "W2": rng.normal(size=(width, d)) * rng.uniform(0.5, 1.5) / np.sqrt(width), "b2": 0.3 * rng.normal(size=d)}


def net(t: Any, y: Any, p: dict) -> Any:
    return np.tanh(y @ p["W1"] + p["b1"] * np.cos(t)) @ p["W2"] + p["b2"]


def starts(rng: Rng, d: int) -> dict:
    """y0 of one problem, or of a batch."""
    members = int(rng.integers(2, 5)) if rng.random() < 0.3 else 0
    return {"y0": rng.normal(size=(members, d) if members else d), "members": members}


def networks(rng: Rng) -> Drawn:
    d = int(rng.integers(2, 5))
    return Drawn(net, params=weights(rng, d, int(rng.integers(3, 9))), **starts(rng, d))


def networks_with_decay(rng: Rng) -> Drawn:
    d = int(rng.integers(2, 5))
    return Drawn(lambda t, y, p: net(t, y, p) - p["c"] * y, params={**weights(rng, d, int(rng.integers(3, 9))), "c": rates(rng, d)},
                 **starts(rng, d))


def kinetics(rng: Rng) -> Drawn:
    which = rng.integers(0, 4)
    if which == 0:      # A -> B -> C
        return Drawn(lambda t, y, p: np.stack([-p["k"][0] * y[0], p["k"][0] * y[0] - p["k"][1] * y[1], p["k"][1] * y[1]]),
                     np.array([1.0, 0.1, 0.1]), {"k": rates(rng, 2)})
    if which == 1:      # A + B <-> C
        def binding(t: Any, y: Any, p: dict) -> Any:
            rate = p["k"][0] * y[0] * y[1] - p["k"][1] * y[2]
            return np.stack([-rate, -rate, rate])
        return Drawn(binding, rng.uniform(0.2, 1.5, 3), {"k": rates(rng, 2)})
    if which == 2:      # Michaelis and Menten
        return Drawn(lambda t, y, p: np.stack([-p["v"] * y[0] / (p["m"] + y[0]), p["v"] * y[0] / (p["m"] + y[0]) - p["k"] * y[1]]),
                     rng.uniform(0.5, 2.0, 2), {"v": rates(rng)[()], "m": rates(rng)[()], "k": rates(rng)[()]})

    def epidemic(t: Any, y: Any, p: dict) -> Any:
        new, well = p["b"] * y[0] * y[1], p["g"] * y[1]
        return np.stack([-new, new - well, well])
    return Drawn(epidemic, np.array([0.97, 0.03, 0.01]), {"b": 2 * rates(rng)[()], "g": 0.5 * rates(rng)[()]}, 20.0)


def oscillation(rng: Rng) -> Drawn:
    which = rng.integers(0, 4)
    w = 2 * rates(rng)[()]
    y0 = rng.normal(size=2) + np.array([1.0, 0.0])
    if which == 0:
        return Drawn(lambda t, y, p: np.stack([y[1], -p["w"] ** 2 * y[0]]), y0, {"w": w})
    if which == 1:
        return Drawn(lambda t, y, p: np.stack([y[1], -p["w"] ** 2 * np.sin(y[0]) - p["c"] * y[1]]), y0,
                     {"w": w, "c": 0.3 * rates(rng)[()]})
    if which == 2:
        return Drawn(lambda t, y, p: np.stack([y[1], p["m"] * (1 - y[0] ** 2) * y[1] - y[0]]), y0, {"m": rates(rng)[()]})
    return Drawn(lambda t, y, p: np.stack([y[0] * (p["a"] - p["b"] * y[1]), y[1] * (p["c"] * y[0] - p["d"])]),
                 rng.uniform(0.5, 1.5, 2), {name: 0.5 + 0.5 * rates(rng)[()] for name in "abcd"})


def diagonal_noise(rng: Rng) -> Drawn:
    d = int(rng.integers(1, 4))
    which = rng.integers(0, 3)
    y0, s = rng.uniform(0.5, 1.5, d), 0.4 * rates(rng, d)
    if which == 0:      # geometric Brownian motion, growing or decaying
        return Drawn(lambda t, y, p: p["k"] * y, y0, {"k": rates(rng, d) * rng.choice([-1.0, 0.7], d), "s": s}, 6.0,
                     lambda t, y, p: p["s"] * y)
    if which == 1:      # Ornstein and Uhlenbeck
        return Drawn(lambda t, y, p: p["k"] * (p["m"] - y), y0, {"k": rates(rng, d), "m": rng.normal(size=d), "s": s}, 8.0,
                     lambda t, y, p: p["s"] + 0 * y)
    return Drawn(lambda t, y, p: net(t, y, p) - p["c"] * y, y0, {**weights(rng, d, 4), "c": rates(rng, d), "s": s}, 6.0,
                 lambda t, y, p: p["s"] * np.sin(y))


def unlike(rng: Rng) -> Drawn:
    """Components or members of a batch of unlike size, each with its own rate."""
    members, d = int(rng.integers(2, 4)), int(rng.integers(1, 3))
    shape = (members, d)
    size = 10.0 ** rng.uniform(-2, 2, (members, 1) if rng.random() < 0.5 else shape)
    k = rates(rng, *shape) * rng.choice([-1.0, -1.0, 0.0, 0.3], shape)
    params = {"k": k, "b": size * np.ones(shape), "w": rates(rng, *shape)}
    y0 = size * rng.uniform(0.5, 1.5, shape)
    if rng.random() < 0.5:      # components of one problem
        y0, params, members = y0.reshape(-1), {name: x.reshape(-1) for name, x in params.items()}, y0.size
    if rng.random() < 0.5:
        return Drawn(lambda t, y, p: p["k"] * y, y0, {"k": params["k"]}, members=members, together=y0.ndim == 1)
    return Drawn(lambda t, y, p: p["k"] * y + p["b"] * np.sin(p["w"] * t), y0, params, members=members, together=y0.ndim == 1)


FAMILIES = {"contraction": contraction, "growth": growth, "sign": sign, "networks": networks, "decay nets": networks_with_decay,
            "kinetics": kinetics, "oscillation": oscillation, "diagonal SDE": diagonal_noise, "unlike sizes": unlike}

"""Solves whose generated text holds each kind of loop, small enough for the threads of the host: what the tests run everywhere.

    run("heun", "native")                              # loss, saved states and gradients, by the host's own code
    run("heun", ptx.device(), dtype=np.float32)        # by a device of fused.Fusing

In strict arithmetic all of them are equal in every bit.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from revode.compiled import plans
from revode.compiled.backend import Backend
from revode.compiled.tiles import Tiles

from .. import fused

TS = np.linspace(0.0, 0.5, 6) ** 1.25


def net(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(np.tanh(y @ p["W1"] + p["b1"] * t) @ p["W2"] + p["b2"]) @ p["W3"]


def shallow(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W1"] + p["b1"] * t) @ p["W3"]


def weights(d: int, w: int) -> dict:
    rng = np.random.default_rng(w)
    p = {f"W{i}": rng.normal(size=s) / np.sqrt(s[0]) for i, s in enumerate([(d, w), (w, w), (w, d)], 1)}
    return {**p, "b1": rng.normal(size=w), "b2": rng.normal(size=w)}


def of_each(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape)


def decay(t: Any, y: Any, p: Any) -> Any:
    return np.cos(t) - y


def pendulum(t: Any, q: Any, p: Any) -> Any:
    return -p["k"] * np.sin(q) + p["c"] * np.cos(t)


def mixed(t: Any, y: Any, p: Any) -> Any:
    """Each kind of loop that a network has not: gather, contract, reduce, largest of features, general powers."""
    a = np.concatenate([np.tanh(y[..., 1:] * p["c"][1:]), np.sum(y**2, axis=-1, keepdims=True)], axis=-1)
    outer = np.einsum("bi,bj->bij", y, a) @ p["c"]
    return 0.05 * outer / (1.0 + np.max(y, axis=-1, keepdims=True) ** 2) + p["c"] * t


def waves(t: Any, y: Any, p: Any) -> Any:
    """So many elementary functions that each is called apart, for a stretch of memory."""
    return sum(0.02 * np.sin(k * y + t) * np.exp(-y * y) + np.arctan2(p["c"] * y, 1.0 + k) for k in range(12))


def gusts(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * np.cos(y) * p["c"]


def general(t: Any, y: Any, p: Any) -> Any:
    return np.stack([0.3 * np.cos(y), 0.2 * np.sin(y) * p["c"]], axis=-1)


def driven(t: Any, y: Any, p: Any) -> Any:
    return np.stack([np.tanh(y) * p["c"], np.cos(y)], axis=-1)


def alone(t: Any, y: Any, p: Any) -> Any:
    """With a rate and an input of each trajectory."""
    return np.tanh(y @ p["W1"] + p["x"] @ p["U"]) @ p["W3"] - p["k"] * y


def ensemble(t: Any, y: Any, p: Any) -> Any:
    """With weights of each member."""
    return np.tanh(y @ p["W1"] + p["b1"][:, None]) @ p["W3"]


C = {"c": np.array([1.0, 0.5, 0.7])}
SERIES = 0.3 * np.random.default_rng(0).normal(size=(11, 5, 2))
EACH = 0.3 * np.random.default_rng(1).normal(size=(11, 5, 2))


class Case(NamedTuple):
    """A solve of TS from normal numbers."""
    field: Any
    features: int
    rows: Any                   # trajectories; of members so many each
    params: dict
    method: Any
    options: dict               # more for solve
    dtype: Any                  # where none is asked for
    only: bool = False          # in that one


CASES: dict[str, Case] = {name: Case(*x) for name, x in {        # type: ignore[arg-type]
    "coupled": (shallow, 2, 37, weights(2, 20), rv.Coupled("midpoint"), {}, np.float64),
    "heun": (net, 3, 33, weights(3, 18), rv.ReversibleHeun(), {}, np.float32),
    "wide": (net, 16, 33, weights(16, 64), rv.Coupled("midpoint"), {}, np.float32),
    "alone": (net, 3, 1, weights(3, 18), rv.AsynchronousLeapfrog(), {}, np.float64),
    "ees": (shallow, 2, 5, weights(2, 4), rv.EES25(), {"gradient": rv.Reversible(resync=2)}, np.float64),
    "bare": (decay, 2, 4, {}, rv.Coupled("midpoint"), {}, np.float64),
    "verlet": (pendulum, 1, 40, {"k": np.array([2.0]), "c": np.array([0.3])}, rv.VelocityVerlet(), {}, np.float32),
    "mixed": (mixed, 3, 9, C, rv.ReversibleHeun(), {}, np.float64),
    "waves": (waves, 3, 9, C, rv.ReversibleHeun(), {}, np.float64),
    "diagonal": (mixed, 3, 20, C, rv.ReversibleHeun(), {"diffusion": gusts, "noise": rv.Brownian(3, offset=5)}, np.float32),
    "general": (gusts, 3, 11, C, rv.Coupled("heun2"), {"diffusion": general, "noise": rv.Brownian(2**63 + 3)}, np.float64),
    "exact": (shallow, 2, 37, weights(2, 8), rv.Coupled("midpoint", lam=0.9), {"exact": True}, np.float64, True),
    "control": (driven, 3, 11, C, rv.ReversibleHeun(), {"control": rv.LinearPath(np.linspace(0.0, 0.5, 5), SERIES)}, np.float64, True),
    "own": (alone, 2, 21, {**weights(2, 6), "x": of_each(21, 3), "U": of_each(3, 6), "k": of_each(21, 1)}, rv.Coupled("midpoint"), {},
            np.float64),
    "members": (ensemble, 3, (2, 19), {"W1": of_each(2, 3, 8), "b1": of_each(2, 8), "W3": of_each(2, 8, 3)}, rv.ReversibleHeun(), {},
                np.float32),
    "own control": (driven, 3, 11, C, rv.ReversibleHeun(), {"control": rv.HermiteCubic(np.linspace(0.0, 0.5, 5), EACH)}, np.float64,
                    True),
}.items()}


THREADS = tuple(name for name in CASES if name not in ("coupled", "heun", "wide", "alone"))          # whose steps fit into a thread


@dataclass(frozen=True)
class OneByOne(Backend):
    """The host's own code with one trajectory in a tile, in strict arithmetic: what has the bits of a thread per trajectory."""
    name: str = "native"
    auto: bool = False
    strict: bool = True

    def in_loops(self, steps: Any, problem: Any, parts: dict, direction: str) -> Tiles:
        return Tiles(steps, parts, problem.method.outputs, direction, plans.inside(problem), True, T=1)


def run(name: str, device: Any = "native", save: Any = (0, 2, 5), dtype: Any = None, arithmetic: str = "strict",
        **given: Any) -> tuple:
    """Loss, saved states and gradients of a case. device: a fused.Device, with what is `given` of a plan; or a backend of solve."""
    case = CASES[name]
    dtype = dtype or case.dtype
    rng = np.random.default_rng(1)
    y0: Any = rng.normal(size=(*np.atleast_1d(case.rows), case.features)).astype(dtype)
    y0 = (y0, rng.normal(size=y0.shape).astype(dtype)) if len(case.method.outputs) > 1 else y0
    params = {key: x.astype(dtype) for key, x in case.params.items()}
    how: dict[str, Any] = {"backend": device, "arithmetic": arithmetic}
    if isinstance(device, fused.Device):
        how = {"backend": fused.Fusing("fused", False, True, arithmetic == "strict", None, device, tuple(given.items()))}

    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(case.field, y0, TS, params, method=case.method, save=list(save), **case.options, **how)
        return sum(np.sum(y**2) for y in rv.tree.flatten(sol.ys)[0]), sol.ys

    (value, ys), grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    return value, *map(np.asarray, rv.tree.flatten((rv.tree.map(lambda y: getattr(y, "value", y), ys), grads))[0])

"""The same solve in native strict code and in its NumPy mirror: what tests of the bits share."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.compiled import plans, tiles
from tests.compiler import forget

N = 12
TS = 0.1 + 0.5 * np.linspace(0.0, 1.0, N + 1) ** 1.1
SAVE = (3, 4, 8, N)               # not the first state; one of them where a state is kept as well (resync=4)
METHODS = [rv.Coupled("midpoint", 0.99), rv.Coupled("rk4"), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(),
           rv.AsynchronousLeapfrog(0.9), rv.LeapfrogMidpoint(), rv.Composition(rv.ReversibleHeun()), rv.EES25(), rv.EES27(),
           rv.EES(4, correct=1), rv.NearReversible("rk4"), rv.SemiImplicitEuler(), rv.VelocityVerlet(),
           rv.Composition(rv.VelocityVerlet())]
NOISY = [rv.Coupled("heun2", 0.99), rv.ReversibleHeun(), rv.EES25(), rv.EES27()]
TOLERANCE = {np.float64: 1e-11, np.float32: 3e-3}
# From the tape: N = 12 steps of at most 500 roundings on a path from the state to its gradient (elementary functions a few
# each), passed on with a factor of at most 10: 12 * 500 * 10 eps = 7e-12, and .007 were all of one sign; float32 stays below.


@contextmanager
def tiles_of(T: int | None) -> Iterator[None]:
    """Solves with tiles of T trajectories, and no program of an earlier solve."""
    with pytest.MonkeyPatch.context() as patch:
        forget(patch)
        if T is not None:
            patch.setattr(tiles, "tile_of", lambda rows, dtype: T if rows > 1 else 1)
        yield


def results(field: Callable, y0: Any, params: Any, method: Any, how: str, gradient: Any = None, threads: int | None = 1,
            arithmetic: str = "strict", ts: Any = TS, save: Any = SAVE, **more: Any) -> dict[str, Any]:
    """Everything that a solve and its gradient give, by name. The cotangents of all saved states differ."""
    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(field, y0, ts, params, method=method, save=list(save), backend=how, arithmetic=arithmetic, threads=threads,
                       gradient=gradient or rv.Reversible(resync=4), **more)
        ys = sol.ys if isinstance(sol.ys, tuple) else (sol.ys,)
        return sum(np.sum(y * (1 + y)) for y in ys), sol

    (value, sol), (a_y0, a_params) = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    found = {"value": value, "y1": sol.y1, "ys": sol.ys, "state": sol.state.parts, "y0": a_y0, "params": a_params}
    flat = {f"{name}[{i}]": x for name, tree in found.items() for i, x in enumerate(rv.tree.flatten(tree)[0])}
    return flat | {"roundtrip": sol.stats.roundtrip or (), "defect": sol.stats.defect,
                   "counts": (sol.stats.nfe, sol.stats.nvjp)}


def assert_same_bits(actual: dict[str, Any], desired: dict[str, Any]) -> None:
    assert actual.keys() == desired.keys()
    for name, x in actual.items():
        x, y = np.asarray(x), np.asarray(desired[name])
        assert (x.dtype, x.shape) == (y.dtype, y.shape), name
        np.testing.assert_array_equal(x, y, err_msg=name)
        np.testing.assert_array_equal(np.signbit(x), np.signbit(y), err_msg=f"{name}: the signs of zeros")


def assert_close(actual: dict[str, Any], desired: dict[str, Any], dtype: Any) -> None:
    """Relative to the largest entry of each array."""
    for name, x in actual.items():
        if name.split("[")[0] in ("value", "y1", "ys", "y0", "params"):
            np.testing.assert_allclose(x, desired[name], rtol=0, atol=TOLERANCE[dtype] * max(1e-3, np.abs(desired[name]).max()),
                                       err_msg=name)


def compare(field: Callable, y0: Any, params: Any, method: Any, T: int | None = None, eager: bool = True, **more: Any) -> dict:
    """Native == mirror in every bit, with one thread and two; both close to the tape's gradient through all steps."""
    with tiles_of(T):
        found = results(field, y0, params, method, "native", **more)
        assert_same_bits(results(field, y0, params, method, "replay", **more), found)
        made = [type(made.here.runner.function).__name__ for family in plans.programs.families.values()
                for made in family.made.values()]
        assert sorted(made) == ["Mirror", "Mirror", "_FuncPtr", "_FuncPtr"], "another runner than those that are compared"
        assert_same_bits(results(field, y0, params, method, "native", **more, threads=2), found)
    if eager:
        dtype = rv.tree.flatten(y0)[0][0].dtype.type
        exact = hasattr(method, "word")          # others come back nearly: their own gradient is the one to agree with
        assert_close(found, results(field, y0, params, method, "eager", gradient=rv.Direct() if exact else None, **more), dtype)
    return found


def network(d: int, width: int, depth: int, dtype: Any, rng: Any) -> list:
    """Weights of `depth` hidden layers; entries small enough that |f| and its derivatives stay near 1."""
    sizes = [d, *[width] * depth, d]
    return [((0.7 * rng.standard_normal((a, b)) / np.sqrt(a)).astype(dtype), (0.1 * rng.standard_normal(b)).astype(dtype))
            for a, b in pairwise(sizes)]


def layers(t: Any, y: Any, params: Any) -> Any:
    for W, b in params[:-1]:
        y = np.tanh(y @ W + b)
    W, b = params[-1]
    return y @ W + b + 0.1 * np.sin(t)


def start(method: Any, batch: tuple, d: int, dtype: Any, rng: Any) -> Any:
    y0 = [(0.5 * rng.standard_normal((*batch, d))).astype(dtype) for _ in method.outputs]
    return y0[0] if len(y0) == 1 else tuple(y0)

"""Equilibrium models on device arrays, on the pretended CuPy: what is a launch, and what goes op by op and says so."""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode
import revode_cuda as rv
from revode_cuda import equilibrium, host
from revode_cuda.arrays import on_device
from revode_cuda.plan import CannotBeFused
from tests.pretended_cupy import DONE, pretended

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)


def cell(z: Any, p: Any, x: Any) -> Any:
    return np.tanh(z @ p["W"] + x @ p["U"] + p["b"])


@pytest.mark.parametrize(("rows", "how", "waits"), [
    (33, {"tol": None, "max_steps": 12}, 4), (33, {"tol": None, "max_steps": 12, "gradient": rv.Direct()}, 4),
    (33, {"tol": None, "max_steps": 12, "exact": True}, 4), (33, {"tol": 1e-8}, None),
    (33, {"tol": 1e-8, "gradient": rv.Checkpointed(3)}, None),
    (3000, {"tol": None, "max_steps": 12}, None), (3000, {"tol": 1e-8, "gradient": rv.Direct()}, None),
    (3000, {"tol": None, "max_steps": 12, "exact": True}, None)], ids=repr)
def test_an_equilibrium_model_on_the_device(rows: int, how: dict, waits: int | None) -> None:
    """Each trajectory has an x of its own, with which a weight is multiplied. A small one with a fixed number of iterations: two
    launches and four waits. The gradients are those of the tape on the host: to what Automatic() lets pass, or 1000 roundings."""
    rng = np.random.default_rng(0)
    p = {"W": 0.2 * rng.normal(size=(4, 4)), "U": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    z0, x = np.zeros((rows, 4)), rng.normal(size=(rows, 3))

    def step(found: Callable, *args: Any, **options: Any) -> tuple:
        def loss(z0: Any, p: Any, x: Any) -> Any:
            got = found(cell, z0, p, x, **{**how, **options})
            return np.sum(np.sin(got.z)), got
        (_, got), grads = rv.value_and_grad(loss, (0, 1, 2), has_aux=True)(*args)
        return got, grads

    desired = rv.tree.flatten(step(revode.fixed_point, z0, p, x, backend="eager")[1])[0]
    for backend in ("fused", "auto", "eager"):
        with pretended():
            at = rv.to_device((z0, p, x))
            for _ in range(2):
                del DONE[:]
                got, grads = step(rv.fixed_point, *at, backend=backend)
            assert on_device(got.z.value if hasattr(got.z, "value") else got.z)
            assert backend != "fused" or got.stats.backend == "fused"
            assert waits is None or backend != "fused" or (DONE.count("wait") == waits and DONE.count("run") == 2), DONE
            for a, b in zip(rv.tree.flatten(rv.to_host(grads))[0], desired, strict=True):
                assert abs(a - b).max() <= (1000 * np.finfo(float).eps if "gradient" in how else 1e-5) * abs(b).max()


@pytest.mark.parametrize("how", [{"method": rv.Anderson()}, {"method": rv.Picard()}, {"gradient": rv.Implicit()},
                                 {"gradient": rv.Phantom(2)}], ids=repr)
def test_an_equilibrium_model_without_launches_says_so_once(how: dict, caplog: pytest.LogCaptureFixture) -> None:
    equilibrium._told.clear()
    p = {"W": 0.2 * np.eye(4), "U": np.ones((3, 4)), "b": np.zeros(4)}
    with pretended(), caplog.at_level(logging.INFO, logger="revode"):
        at = rv.to_device((np.zeros((5, 4)), p, np.ones((5, 3))))
        for _ in range(2):
            found = rv.fixed_point(cell, *at, tol=1e-8, **how)
        with pytest.raises(CannotBeFused, match=r"fixed_point: .*use backend='eager', or 'auto'"):
            rv.fixed_point(cell, *at, backend="fused", **how)
        z = rv.to_host(found.z)
    assert abs(z - cell(z, p, np.ones((5, 3)))).max() < 1e-6
    assert sum("runs op by op" in record.getMessage() for record in caplog.records) == 1

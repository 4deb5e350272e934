"""Fused solves on a real GPU: in strict arithmetic the bits of native code, twice the same, and close in fast arithmetic.

Strict: both sides run the same text, so every number is equal, gradients of the parameters too where the tiles have as many
trajectories (they do: the plan keeps to the host's size).

    fast    bound = 10 eps * evaluations * growth * sqrt(trajectories)      (test_backend.py has the first three factors)

Fused products round once less, so a step is off by no more than what rounding makes of it anyway; a sum over n trajectories adds
n such errors of either sign, and the largest entry of a gradient is one of those sums.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import revode
import revode_cuda as rv
from revode import parallel
from revode.ranks import Alone
from revode_cuda.plan import CannotBeFused, plan_of
from tests.method_cases import CASES, GRIDS, REVERSIBLE, distance, field, make_params, make_y0
from tests.thread_ranks import threads

F, TS = field(np), GRIDS["varying"]
NAMES = [name for name in REVERSIBLE if name not in ("verlet-8", "coupled-tsit5", "coupled-bosh3", "coupled-ralston3")]
ROWS = 100            # trajectories: several tiles, and the last one is not full


def pull(solve: Any, y0: Any, params: Any, method: Any, **options: Any) -> list:
    """Loss, saved states and gradients, on the host."""
    def loss(y0: Any, params: Any) -> Any:
        sol = solve(F, y0, TS, params, method=method, save=[0, 3, 8], **options)
        return sum(np.sum(y ** 2) for y in rv.tree.flatten(sol.ys)[0]), sol.ys

    (value, ys), grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    ys = rv.tree.map(lambda y: getattr(y, "value", y), ys)
    return [np.asarray(rv.to_host(x)) for x in rv.tree.flatten((value, ys, grads))[0]]


def assert_same(found: list, desired: list) -> None:
    assert len(found) == len(desired)
    for a, b in zip(found[1:], desired[1:], strict=True):          # the loss itself is a sum that CuPy makes in its own order
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore::revode.ReconstructionWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", NAMES)
def test_strict_bits_of_every_method(name: str, dtype: Any, cupy: Any) -> None:
    y0, params = make_y0(CASES[name], (ROWS, 3), dtype=dtype), make_params(dtype=dtype)
    method = CASES[name].method
    desired = pull(revode.solve, y0, params, method, backend="native", arithmetic="strict")
    there = rv.to_device((y0, params))
    for _ in range(2):                                             # two runs, the same bits
        assert_same(pull(rv.solve, *there, method, backend="fused", arithmetic="strict"), desired)


def diagonal(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * np.cos(y + t) * p["b2"]


def general(t: Any, y: Any, p: Any) -> Any:
    return np.stack([diagonal(t, y, p), 0.2 * np.sin(y)], axis=-1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("diffusion", [diagonal, general])
@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("heun2", lam=0.9), rv.EES25()], ids=repr)
def test_strict_bits_with_noise(method: Any, diffusion: Any, dtype: Any, cupy: Any) -> None:
    y0, params = make_y0(CASES["alf"], (ROWS, 3), dtype=dtype), make_params(dtype=dtype)
    options = {"diffusion": diffusion, "noise": rv.Brownian(7, offset=3), "arithmetic": "strict"}
    desired = pull(revode.solve, y0, params, method, backend="native", **options)
    assert_same(pull(rv.solve, *rv.to_device((y0, params)), method, backend="fused", **options), desired)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("plan", [{"T": 16}, {"T": 8, "threads": 32}, {"threads": 256}, {"params": "global"},
                                  {"state": "global"}, {"state": "global", "params": "global", "threads": 96}], ids=str)
def test_no_plan_changes_the_bits(plan: dict, dtype: Any, cupy: Any) -> None:
    """But for the sums over trajectories, when T is another."""
    rng = np.random.default_rng(0)
    y0 = rng.normal(size=(ROWS, 3)).astype(dtype)
    params = {key: x.astype(dtype) for key, x in make_params(width=40).items()}
    one, other = (pull(rv.solve, *rv.to_device((y0, params)), rv.ReversibleHeun(), backend="fused", arithmetic="strict", plan=p)
                  for p in (None, plan))
    same = slice(1, None) if "T" not in plan else slice(1, 3)      # saved states, dL/dy0
    for a, b in zip(one[same], other[same], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("width", [4, 32, 64, 128])
@pytest.mark.parametrize("name", ["reversible-heun", "coupled-midpoint"])
def test_fast_arithmetic_is_close_and_repeats_itself(name: str, width: int, dtype: Any, cupy: Any) -> None:
    case = CASES[name]
    y0, params = rv.to_device((make_y0(case, (ROWS, 3), dtype=dtype), make_params(width=width, dtype=dtype)))
    first, second, eager = (pull(rv.solve, y0, params, case.method, backend=backend) for backend in ("fused", "fused", "eager"))
    assert_same(first, second)
    growth = getattr(case.method, "reverse_growth", 1.0) ** (len(TS) - 1)
    bound = 10 * float(np.finfo(dtype).eps) * (case.a_step * (len(TS) - 1) + case.once) * growth * np.sqrt(ROWS)
    used = distance(first[1:], eager[1:])
    print(f"width {width}: largest difference {used:.2g} of {bound:.2g} allowed")
    assert used <= bound


def test_host_arrays_are_moved_there_and_back(cupy: Any) -> None:
    y0, params = make_y0(CASES["alf"], (ROWS, 3)), make_params()
    device = pull(rv.solve, *rv.to_device((y0, params)), rv.ReversibleHeun(), backend="fused", arithmetic="strict")
    for backend in ("fused", "cuda"):
        grads = rv.grad(lambda y, b=backend: np.sum(rv.solve(F, y, TS, params, backend=b).y1))(y0)
        assert type(grads) is np.ndarray
        assert_same(pull(rv.solve, y0, params, rv.ReversibleHeun(), backend=backend, arithmetic="strict"), device)


def test_the_plan_is_what_is_launched(cupy: Any) -> None:
    """For this GPU: it fits, and NVRTC's registers for the text leave room for a block."""
    from revode_cuda.compile import arch
    y0, params = make_y0(CASES["alf"], (4096, 3), dtype=np.float32), make_params(width=64, dtype=np.float32)
    plans = plan_of(F, y0, TS, params, method=rv.ReversibleHeun(), arch=arch(), compiled=True)
    print(plans)
    limit = cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
    for plan in plans:
        assert plan is not None and plan.budget <= limit and plan.registers * plan.threads <= 65536 and plan.spills == 0


def test_what_cannot_be_fused_goes_op_by_op_unless_it_was_asked_for(cupy: Any) -> None:
    def mean(t: Any, y: Any, p: Any) -> Any:
        return y - np.mean(y, axis=0)

    y0, ts = cupy.ones((8, 3)), np.linspace(0.0, 1.0, 301)
    with pytest.raises(CannotBeFused, match="this solve cannot be fused"):
        rv.solve(mean, y0, ts, backend="fused")
    a, b = (rv.to_host(rv.solve(mean, y0, ts, backend=backend, save=[-1]).y1) for backend in ("auto", "eager"))
    np.testing.assert_array_equal(a, b)


def test_a_device_array_that_the_field_holds_is_named(cupy: Any) -> None:
    W, inner = cupy.asarray(np.eye(3)), {"b": cupy.asarray(np.ones(3))}

    def through(t: Any, y: Any, p: Any) -> Any:
        return np.tanh(y @ W) + inner["b"]

    y0, ts = cupy.ones((8, 3)), np.linspace(0.0, 1.0, 301)
    with pytest.raises(CannotBeFused, match="the field holds the device array W, inner, and its trace runs on the host; pass"):
        rv.solve(lambda t, y, p: through(t, y, p), y0, ts, backend="fused")
    a, b = (rv.to_host(rv.solve(through, y0, ts, backend=backend, save=[-1]).y1) for backend in ("auto", "eager"))
    np.testing.assert_array_equal(a, b)


def test_a_batch_over_ranks_has_the_bits_of_the_host(cupy: Any) -> None:
    """Tiles of four on one rank and on two: gradients summed in the same tree, of the same partial sums as natively."""
    def gradient(comm: Any, solve: Any, y0: Any, params: Any, **options: Any) -> list:
        def loss(p: Any, rows: Any) -> Any:
            there = rows if isinstance(y0, np.ndarray) else cupy.asarray(rows)
            return np.sum(solve(F, y0[there], TS, p, save=[-1], arithmetic="strict", **options).y1 ** 2, -1)

        value, grads = parallel.value_and_grad(loss, comm, tile=4)(params, 10)
        return [value, *(rv.to_host(g) for g in rv.tree.flatten(grads)[0])]

    y0, params = make_y0(CASES["alf"], (10, 3)), make_params()
    desired = gradient(Alone(), revode.solve, y0, params, backend="native", method=rv.AsynchronousLeapfrog())
    for ranks in (1, 2):
        found = threads(ranks, lambda comm: gradient(
            comm, rv.solve, *rv.to_device((y0, params)), backend="fused", method=rv.AsynchronousLeapfrog()))
        for one in found:
            assert_same(one, desired)


@pytest.mark.real
def test_the_current_stream_is_used(cupy: Any) -> None:
    """Work that was queued on a stream, and a fused solve after it on the same one: on any other it would see the old values."""
    y0, params = rv.to_device((make_y0(CASES["alf"], (ROWS, 3)), make_params()))
    desired = rv.to_host(rv.solve(F, y0 * 2.0, TS, params, backend="fused").y1)
    with cupy.cuda.Stream(non_blocking=True):
        slow = cupy.ones((4096, 4096)) @ cupy.ones((4096, 4096))
        late = y0 * (slow[0, 0] / 2048.0)
        assert np.array_equal(rv.to_host(rv.solve(F, late, TS, params, backend="fused").y1), desired)

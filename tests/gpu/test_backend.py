"""The CuPy backend against NumPy, on a real GPU: every method, every gradient mode, noise, controls, adaptive steps, training.

    bound = 10 eps * evaluations * growth           eps of the dtype; distances are relative to the largest entry (method_cases)

Host and device differ by rounding: elementary functions by a few ulps, sums by their order. The field is 1-Lipschitz, its rows
are 3 and 4 long, and a solve lasts 1/2: an evaluation (two products, a tanh, sums) and its pullback are off by less than 10 eps
of the largest entry, and later steps make at most exp(1/2) of it, which the 10 contains. `growth` is what the reverse sweep
makes of rounding: 1/lam^N for Coupled, 1/(2 eta - 1)^N for damped leapfrog.
"""
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode
import revode_cuda as rv
from revode import nn, optim
from tests.method_cases import CASES, ETA, GRIDS, LAM, distance, field, make_params, make_y0

TS = GRIDS["varying"]
GRADIENTS = {"Direct": rv.Direct(), "Checkpointed": rv.Checkpointed(3), "Reversible": rv.Reversible(),
             "resync": rv.Reversible(resync=3), "Backsolve": rv.Backsolve()}
DTYPES = [np.float64, np.float32]
F = field(np)


def eps(dtype: Any) -> float:
    return float(np.finfo(dtype).eps)


def growth(method: Any) -> float:
    base = getattr(method, "method", method)
    return getattr(base, "reverse_growth", 1.0) ** (len(TS) - 1)


def both_sides(run: Callable, y0: Any, params: Any, bound: float) -> tuple:
    """Loss, solution and both gradients on host and device; they differ by less than the bound. Returns both solutions."""
    def loss(y0: Any, params: Any) -> tuple:
        sol = run(y0, params)
        ys = sol.ys if isinstance(sol.ys, tuple) else (sol.ys,)
        return sum(np.sum(y ** 2) for y in ys), sol

    (value, sol), grads = revode.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    there = rv.to_device((y0, params))
    (found, fast), got = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(*there)
    for leaf in rv.tree.flatten((fast.ys, got))[0]:
        assert leaf is None or rv.arrays.home(leaf) == "cuda:0", type(leaf)
    back_sol, back = rv.to_host((fast.ys, got))
    used = max(abs(float(rv.to_host(found)) - float(value)) / abs(float(value)) / 2, distance(back_sol, sol.ys),
               distance(back[0], grads[0]), distance(back[1], grads[1]))
    print(f"largest difference {used:.2g} of {bound:.2g} allowed: {used / bound:.1%}")
    assert used <= bound
    return sol, fast


@pytest.mark.filterwarnings("ignore::revode.ReconstructionWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", GRADIENTS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_methods(case: Any, mode: str, dtype: Any, cupy: Any) -> None:
    if mode in ("Reversible", "resync") and not case.reversible:
        return                                                     # not reversible
    y0, params = make_y0(case, (2, 3), dtype=dtype), make_params(dtype=dtype)
    evaluations = case.a_step * (len(TS) - 1) + case.once
    bound = 10 * eps(dtype) * evaluations * growth(case.method)
    sol, fast = both_sides(lambda y0, p: rv.solve(F, y0, TS, p, method=case.method, gradient=GRADIENTS[mode], backend="eager"),
                           y0, params, bound)
    assert (fast.stats.nfe, fast.stats.nvjp) == (sol.stats.nfe, sol.stats.nvjp)
    assert ETA < 1 and LAM < 1


def diagonal(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * np.cos(y + t) * p["b2"]


def general(t: Any, y: Any, p: Any) -> Any:
    return np.stack([diagonal(t, y, p), 0.2 * np.sin(y)], axis=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("noise", [rv.Brownian(seed=7), rv.BrownianTree(seed=7, t0=0.0, t1=1.0)], ids=["Brownian", "Tree"])
@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("heun2", lam=0.9), rv.EES25(), rv.RungeKutta("midpoint")],
                         ids=repr)
def test_noise(method: Any, noise: Any, dtype: Any, cupy: Any) -> None:
    """The increments are the same bits on both sides, since the host makes them; they add a product and a sum to an evaluation."""
    case = CASES["reversible-heun"]
    y0, params = make_y0(case, (2, 3), dtype=dtype), make_params(dtype=dtype)
    bound = 2 * 10 * eps(dtype) * 8 * len(TS) * growth(method)
    for diffusion in (diagonal, general):
        both_sides(lambda y0, p, g=diffusion: rv.solve(F, y0, TS, p, method=method, diffusion=g, noise=noise, backend="eager"),
                   y0, params, bound)


@pytest.mark.parametrize("kind", [rv.LinearPath, rv.HermiteCubic])
def test_controls(kind: Any, cupy: Any) -> None:
    case = CASES["reversible-heun"]
    y0, params = make_y0(case, (2, 3)), make_params()
    control = kind(np.linspace(0.3, 0.8, 5), 0.3 * np.random.default_rng(0).standard_normal((2, 5, 2)))
    bound = 2 * 10 * eps(float) * 8 * len(TS)
    both_sides(lambda y0, p: rv.solve(general, y0, np.linspace(0.3, 0.8, 9), p, method=rv.ReversibleHeun(), control=control),
               y0, params, bound)


def test_adaptive_steps(cupy: Any) -> None:
    """Step sizes depend on rounding, and continuously so but for a step that is just rejected: the accuracy asked for is kept."""
    case = CASES["coupled-bosh3"]
    y0, params = make_y0(case, (2, 3)), make_params()
    run = lambda y0, p: rv.solve(F, y0, (0.0, 1.0), p, method=rv.Coupled("bosh3"), controller=rv.PID(1e-6, 1e-8), save=[-1])
    host, device = run(y0, params), run(*rv.to_device((y0, params)))
    assert abs(host.stats.steps - device.stats.steps) <= 1
    assert distance(rv.to_host(device.y1), host.y1) <= 10 * 1e-6      # ten local errors


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_training_steps(name: str, cupy: Any) -> None:
    """Ten steps of an optimiser on a small network: each step adds the rounding of one gradient, lr times."""
    optimiser = {"sgd": optim.sgd(0.1, momentum=0.9), "adam": optim.adam(0.01), "adamw": optim.adamw(0.01, 0.1)}[name]
    rng = np.random.default_rng(0)
    params = {"layers": nn.mlp_init(rng, (3, 8, 3)), "scale": np.ones(3), "shift": np.zeros(3), "steps": 3}
    x, target = rng.standard_normal((2, 16, 3))

    def loss(p: Any, x: Any, target: Any) -> Any:
        y = rv.solve(lambda t, y, p: nn.mlp(p["layers"], y), x, np.linspace(0.0, 1.0, 9), p, save=[-1]).y1
        return nn.mse(nn.layer_norm(y, p["scale"], p["shift"]), target)

    def train(params: Any, x: Any, target: Any) -> Any:
        state = optimiser.init(params)
        for _ in range(10):
            _, grads = rv.value_and_grad(loss)(params, x, target)
            params, state = optimiser.update(params, grads, state)
        return params

    host = train(params, x, target)
    device = rv.to_host(train(*rv.to_device((params, x, target))))
    # Adam divides by the root of v: where a gradient is small its rounding counts in full, hence a thousand times the eps
    # that a gradient of 8 steps of 4 evaluations would have.
    assert device.pop("steps") == host.pop("steps") == 3
    assert distance(device, host) <= 1000 * 10 * eps(float) * 8 * 4


def test_trees_go_there_and_back(cupy: Any) -> None:
    rng = np.random.default_rng(0)
    tree = {"W": rng.standard_normal((300, 200)), "more": [rng.random(5, np.float32), (np.arange(3), np.array(2.0), None)],
            "mask": rng.random(7) > 0.5, "strided": rng.standard_normal((6, 8)).T[::2], "n": 3, "name": "tanh"}
    there = rv.to_device(tree)
    assert isinstance(there["W"], cupy.ndarray) and there["n"] == 3
    for a, b in zip(rv.tree.flatten(rv.to_host(there))[0], rv.tree.flatten(tree)[0], strict=True):
        assert type(a) is type(b) and np.array_equal(a, b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
    assert rv.to_device(there)["W"] is there["W"]                  # what is there stays there


def test_mixed_arrays_are_refused_by_name(cupy: Any) -> None:
    y0, params = make_y0(CASES["alf"], (2, 3)), make_params()
    with pytest.raises(TypeError, match=r"solve: params\['W1'\] is on host but y0 is on cuda:0"):
        rv.solve(F, rv.to_device(y0), TS, params)
    with pytest.raises(TypeError, match=r"params\['W1'\] is a numpy array but y0 is a cupy array"):
        revode.solve(F, rv.to_device(y0), TS, params)


@pytest.mark.real
def test_the_current_stream_is_used(cupy: Any) -> None:
    """Work that was queued on a stream, and a solve after it on the same one: a solve on any other would see the old values."""
    y0, params = rv.to_device((make_y0(CASES["alf"], (2, 3)), make_params()))
    desired = rv.to_host(rv.solve(F, y0 * 2.0, TS, params).y1)
    with cupy.cuda.Stream(non_blocking=True):
        slow = cupy.ones((4096, 4096)) @ cupy.ones((4096, 4096))   # keeps the stream busy for a while
        late = y0 * (slow[0, 0] / 2048.0)                          # 2 y0, once the product is there
        assert np.array_equal(rv.to_host(rv.solve(F, late, TS, params).y1), desired)


@pytest.mark.real
def test_moving_does_not_wait(cupy: Any) -> None:
    """Fifty products of large matrices are on their way when a tree is moved; they are still on their way afterwards."""
    big = cupy.ones((4096, 4096), dtype=np.float32)
    big @ big                                                      # makes cuBLAS ready
    cupy.cuda.get_current_stream().synchronize()
    for _ in range(50):
        big @ big
    done = cupy.cuda.Event()
    done.record()
    there = rv.to_device({"a": np.ones(1000), "b": [np.ones(3)]})
    assert not done.done
    assert rv.to_host(there["a"]).sum() == 1000.0


@pytest.mark.real
def test_memory_is_that_of_the_pool_and_flat_in_the_number_of_steps(cupy: Any) -> None:
    """Reversible with save=[-1]: from 50 to 500 steps the pool grows by no more than a block for the grid's scalars, 5 %."""
    y0, params = rv.to_device((make_y0(CASES["alf"], (4096, 3)), make_params()))
    pool = cupy.cuda.MemoryPool()
    peaks = []
    with cupy.cuda.using_allocator(pool.malloc):
        for N in (50, 500):
            ts = np.linspace(0.0, 1.0, N + 1)
            rv.grad(lambda y, ts=ts: np.sum(rv.solve(F, y, ts, params, save=[-1]).y1))(y0)
            peaks.append(pool.total_bytes())
            pool.free_all_blocks()
    print(f"bytes of the pool for N = 50, 500: {peaks}")
    assert 0 < peaks[1] <= 1.05 * peaks[0]


# ------------------------------------------------------------------ fused

FUSED = {"reversible-heun": rv.ReversibleHeun(), "coupled-midpoint": rv.Coupled("midpoint", lam=0.999)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arithmetic", ["strict", "fast"])
@pytest.mark.parametrize("name", FUSED)
def test_fused_is_op_by_op_up_to_rounding(name: str, arithmetic: str, dtype: Any, cupy: Any) -> None:
    y0, params = rv.to_device((make_y0(CASES["alf"], (64, 3), dtype=dtype), make_params(dtype=dtype)))

    def run(backend: str) -> Any:
        def loss(y0: Any, p: Any) -> Any:
            return np.sum(rv.solve(F, y0, TS, p, method=FUSED[name], save=[-1], backend=backend, arithmetic=arithmetic).y1 ** 2)
        return rv.to_host(rv.value_and_grad(loss, argnums=(0, 1))(y0, params))

    try:
        first = run("fused")
    except NotImplementedError as error:
        pytest.skip(f"fused solves are absent: {error}")
    again, eager = run("fused"), run("eager")
    for a, b in zip(rv.tree.flatten(first)[0], rv.tree.flatten(again)[0], strict=True):
        assert np.array_equal(a, b)                                # two runs, the same bits
    bound = 10 * eps(dtype) * 4 * len(TS) * growth(FUSED[name])
    # A batch of 64 is summed in another order: log2(64) roundings more, and up to 64 in a plain loop.
    assert distance(first[1], eager[1]) <= 64 * bound
    assert abs(float(first[0]) - float(eager[0])) <= 64 * bound * abs(float(eager[0]))

"""The pretended CuPy refuses what a driver would take, and crash."""
import inspect
from typing import Any

import numpy as np
import pytest

import revode
import revode_cuda as rv
from revode_cuda import compile, host, kernels
from tests.pretended_cupy import DONE, FUNCTIONS, pretended

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)
SOURCE = 'extern "C" KERNEL void k(long long n, double* x, int m) { extern __shared__ real s[]; if (TID == 0) x[0] = n + m; }'


def test_kernels_run_and_are_counted() -> None:
    with pretended() as cupy:
        x, table = cupy.asarray(np.arange(5000.0)), [cupy.asarray(np.array([n], np.int32)) for n in (0, 5000, 1)]
        total = cupy.empty(1)
        del DONE[:]
        kernels.collect(table, x, total)
        assert total.get()[0] == 5000 * 4999 / 2
        assert DONE == ["collect", "copy", "wait"]
        x.reshape(50, 100)[3:].T.reshape(-1)
        assert DONE[3:] == ["copy"]                                    # views are free, until one has to be laid out anew


@pytest.mark.parametrize(("args", "shared", "said"), [
    ((3, "x", np.int32(1)), 0, "argument 0 is int, for a parameter of type long long; int64 has its size"),
    ((np.int64(3), "x", np.int64(1)), 0, "argument 2 is int64, for a parameter of type int; int32 has its size"),
    ((np.int64(3), "host", np.int32(1)), 0, r"argument 1 is ndarray, for a parameter of type double\*"),
    ((np.int64(3), "single", np.int32(1)), 0, "argument 1 is float32 array"),
    ((np.int64(3), "x"), 0, "2 arguments for 3 parameters"),
    ((np.int64(3), "x", np.int32(1)), 49 * 1024, "50176 bytes of shared memory, 49152 are allowed")])
def test_arguments_and_shared_memory_are_checked(args: tuple, shared: int, said: str) -> None:
    with pretended() as cupy:
        arrays = {"x": cupy.asarray(np.zeros(1)), "host": np.zeros(1), "single": cupy.asarray(np.zeros(1, np.float32))}
        given = tuple(arrays[x] if isinstance(x, str) else x for x in args)
        function = compile.function(SOURCE, "k")
        with pytest.raises((TypeError, ValueError), match=said):
            function((1, 1, 1), (32, 1, 1), given, shared_mem=shared)
        compile.function(SOURCE, "k", shared=100_000)
        compile.function(SOURCE, "k", shared=60_000)                   # which takes nothing back
        function((1, 1, 1), (32, 1, 1), (np.int64(3), arrays["x"], np.int32(1)), shared_mem=100_000)
        assert arrays["x"].get()[0] == 4.0


def net(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"]) @ p["V"] + p["c"]


@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("midpoint")], ids=repr)
def test_a_warm_training_step_is_a_dozen_operations(method: Any) -> None:
    """Laid end to end, packed, solved, unpacked, both ways, whatever the number of leaves, saved states and steps; one copy to the
    host, and one wait for it. Not counted is what the loss does itself. The first time it goes by the host: four waits."""
    rng = np.random.default_rng(0)
    params = {"W": rng.normal(size=(3, 8)), "b": rng.normal(size=8), "V": rng.normal(size=(8, 3)), "c": rng.normal(size=3)}
    y0, a = rng.normal(size=(2, 37, 3))
    ts, counts = np.linspace(0.0, 0.5, 41), []
    with pretended() as cupy:
        there, a_there = rv.to_device((y0, params)), cupy.asarray(np.stack([a, 0 * a, a]))
        for _ in range(3):
            del DONE[:]
            ys, pull = rv.vjp(lambda y0, p: rv.solve(net, y0, ts, p, method=method, save=[7, 20, 40], backend="fused",
                                                     arithmetic="strict", plan={"graph": False}).ys, *there)
            grads = pull(a_there)
            counts.append((len(DONE) - DONE.count("wait"), DONE.count("wait"), DONE.count("run")))
        found = rv.to_host((ys, grads))
    print(f"operations, waits and launches: {counts}")
    assert counts[-1][0] <= 15 and counts[-1][1:] == (1, 2)
    ys, pull = rv.vjp(lambda y0, p: rv.solve(net, y0, ts, p, method=method, save=[7, 20, 40], backend="native",
                                             arithmetic="strict").ys, y0, params)
    for x, y in zip(rv.tree.flatten(found)[0], rv.tree.flatten((ys, pull(np.stack([a, 0 * a, a]))))[0], strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_step_of_adamw_is_one_kernel_with_the_bits_of_numpy(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    params = {"W": rng.normal(size=(3, 8)).astype(dtype), "more": [rng.normal(size=n).astype(dtype) for n in (8, 1)]}
    grads = [rv.tree.map(lambda x: rng.normal(size=x.shape).astype(dtype), params) for _ in range(3)]
    host = revode.optim.adamw(lambda n: 0.1 / (n + 1), 0.01)
    desired, state = params, host.init(params)
    with pretended():
        ours = rv.optim.adamw(lambda n: 0.1 / (n + 1), 0.01)
        found = rv.to_device(params)
        theirs = ours.init(found)
        for g in grads:
            before, given = found, rv.to_device(g)
            del DONE[:]
            found, theirs = ours.update(found, given, theirs)
            assert DONE == ["concatenate"] * 4 + ["adamw"]
            desired, state = host.update(desired, g, state)
        ends = rv.to_host((found, theirs)), (desired, state)
        for x, y in zip(*(rv.tree.flatten(end)[0] for end in ends), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        assert (rv.to_host(before)["W"] != rv.to_host(found)["W"]).all()               # what was given is as it was
        one = rv.to_device(params["W"])
        ours.update(one, rv.to_device(grads[0]["W"]), ours.init(one))
        np.testing.assert_array_equal(rv.to_host(one), params["W"])
        del DONE[:]
        masked = rv.optim.adamw(0.1, 0.01, mask=lambda x: np.ndim(x) > 1)
        masked.update(found, given, masked.init(found))
        assert "adamw" not in DONE and len(DONE) > 20


def test_the_real_cupy_has_what_is_pretended() -> None:
    """Names, and where it can be asked without a driver, arguments."""
    real = pytest.importorskip("cupy")
    with pretended() as played:
        for name in vars(played):
            assert name.startswith("__") or hasattr(real, name), name
        for part in ("cuda", "cuda.runtime", "cuda.driver", "cuda.function", "random"):
            theirs, ours = real, played
            for word in part.split("."):
                theirs, ours = getattr(theirs, word), getattr(ours, word)
            for name in vars(ours):
                assert name.startswith("__") or hasattr(theirs, name), (part, name)
    for name in ("begin_capture", "end_capture", "synchronize", "record"):
        assert hasattr(real.cuda.Stream, name)
    assert hasattr(real.cuda.Graph, "launch") and hasattr(real.cuda.Event, "synchronize")
    for name in ("get", "set", "reshape", "astype", "take", "copy", "view", "scatter_add"):
        assert hasattr(real.ndarray, name)
    assert "blocking" in real.ndarray.get.__doc__ and "out" in inspect.signature(real.concatenate).parameters
    for function in FUNCTIONS:
        home = real.linalg if function.__module__.startswith("numpy.linalg") else real
        assert hasattr(home, function.__name__), function

"""A warm fused training step, of any size: at most 15 operations of the device, and one wait for it."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_ahead import CASES, pulled, values

import revode
import revode_cuda as rv
from reference.benchmarks import works
from reference.benchmarks.gpu.cases import Case, Setting, asked
from reference.benchmarks.gpu_static import ANALYTIC
from revode_cuda import course, host
from tests.pretended_cupy import DONE, pretended

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)


def step(solve: Callable, y0: Any, a: Any, params: Any, field: Any, ts: Any, **how: Any) -> tuple:
    """The last state, and its gradients with respect to y0 and params: what a solve asks of the device, without a loss."""
    y1, pull = rv.vjp(lambda y0, p: solve(field, y0, ts, p, save=[-1], **how).ys, y0, params)
    return y1, pull(a)


def counted(field: Any, y0: np.ndarray, params: Any, ts: Any, times: int = 3, **how: Any) -> tuple[list[tuple[int, int]], tuple]:
    """Operations and waits of each of these steps, kernel by kernel, and what the last one found."""
    counts = []
    with pretended() as cupy:
        at = rv.to_device((y0, np.cos(y0)[None], params))
        for _ in range(times):
            del DONE[:]
            found = step(rv.solve, *at, field, ts, backend="fused", plan={"graph": False}, **how)
            counts.append((len(DONE) - DONE.count("wait"), DONE.count("wait")))
        assert cupy.is_available()
        return counts, rv.to_host(found)


def agrees(found: Any, desired: Any, dtype: Any) -> None:
    """Fast arithmetic beside the host's: some hundred operations in another order."""
    for x, y in zip(rv.tree.flatten(found)[0], rv.tree.flatten(desired)[0], strict=True):
        assert x.dtype == y.dtype and abs(x - y).max() <= 400 * np.finfo(dtype).eps * abs(y).max()


@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize(("method", "n", "N"), [
    *((method, n, 20) for method in (None, rv.ReversibleHeun(), rv.Coupled("midpoint")) for n in (1, 40, 3000)),
    *((method, 2800, N) for method in (None, rv.ReversibleHeun(), rv.Coupled("midpoint")) for N in (1, 4)),
    *(pytest.param(method, 100_000, 4, marks=pytest.mark.long) for method in (None, rv.ReversibleHeun(), rv.Coupled("midpoint")))],
    ids=repr)
def test_lorenz(method: Any, n: int, N: int) -> None:
    """Steps of a size at which the gradient is trusted, also where a solve has fewer of them than the watch's windows need. (Where it
    is not trusted, the watch looks at the states, and that is said.)"""
    field, d, numbers = ANALYTIC["lorenz"]
    y0, params = np.random.default_rng(0).normal(size=(n, d)), {name: np.asarray(x) for name, x in numbers.items()}
    ts = np.linspace(0.0, 0.001 * N, N + 1)
    counts, found = counted(field, y0, params, ts, method=method)
    print(n, counts)
    assert counts[-1][0] <= 15 and counts[-1][1] == 1
    agrees(found, step(revode.solve, y0, np.cos(y0)[None], params, field, ts, method=method, backend="eager"), y0.dtype)


STIFF = 1234          # a trajectory


def rates(t: Any, y: Any, p: Any) -> Any:
    """y' = -p k y, k' = 0: each trajectory has a rate of its own."""
    return np.concatenate([-p * y[:, 1:] * y[:, :1], 0.0 * y[:, 1:]], axis=1)


@pytest.mark.parametrize(("method", "n", "N"), [(None, 4200, 4), pytest.param(None, 100_000, 4, marks=pytest.mark.long),
                                                (rv.ReversibleHeun(), 4200, 24)], ids=repr)
@pytest.mark.parametrize("bad", [False, True])
def test_one_bad_trajectory_among_many_is_noticed(method: Any, n: int, N: int, bad: bool, caplog: pytest.LogCaptureFixture) -> None:
    """For h k = 1.5 rk4 comes back some percent off, and the copies of Heun part, of which there is a warning: the gradient is taken
    with stored states, as on the host. There is one wait where all trajectories are good."""
    caplog.set_level("INFO", "revode")
    y0 = np.stack([np.linspace(1.0, 2.0, n), np.full(n, 0.01)], axis=1)
    y0[STIFF, 1] = 1.5 if bad else 0.01
    p, ts, a = np.ones(1), np.linspace(0.0, float(N), N + 1), np.cos(y0)[None]
    with pretended(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        at = rv.to_device((y0, a, p))
        for _ in range(2):
            del DONE[:]
            caplog.clear()
            found = step(rv.solve, *at, rates, ts, method=method, backend="fused", plan={"graph": False})
        waits, found = DONE.count("wait"), rv.to_host(found)
    off = [x for x in caplog.messages if "its gradient is off by" in x]
    assert (waits > 1, bool(off), bool(said)) == (bad, bad, bad and method is not None)
    assert all(x.category is rv.ParasiteWarning for x in said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.ParasiteWarning)
        agrees(found, step(revode.solve, y0, a, p, rates, ts, method=method, backend="eager"), y0.dtype)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("work", "method"), [("small", "coupled-midpoint"), ("w2", "coupled-midpoint"), ("w4", "reversible-heun"),
                                              pytest.param("medium", "coupled-midpoint", marks=pytest.mark.long)])
def test_the_works_of_the_benchmark(work: str, method: str) -> None:
    """Their batches, in eight steps."""
    case, chosen = Case(work, method, "float32"), Setting(None)                                       # type: ignore[arg-type]
    problem = works.problem(chosen.size(work), case.dtype)
    field, ts, options = asked(rv, chosen.size(work)._replace(N=8), case)
    counts, found = counted(field, problem.y0, problem.params, ts, **options)
    print(work, counts)
    assert counts[-1][0] <= 15 and counts[-1][1] == 1
    agrees(found, step(revode.solve, problem.y0, np.cos(problem.y0)[None], problem.params, field, ts, backend="eager", **options),
           problem.y0.dtype)


@pytest.mark.sample(2)
@pytest.mark.parametrize("split", [2, 4])
@pytest.mark.parametrize("case", ["heun", "coupled", "default", "noise"])
def test_long_sums_are_made_in_two_parts_with_the_same_bits(case: str, split: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tiles of a few trajectories: four, or two, whole parts, and one that is not."""
    monkeypatch.setattr(course, "SPLIT", split)
    _, names, _, _ = CASES[case]
    y0, a, params = values(names, 5, batch=(131,))
    with pretended():
        for _ in range(3):
            del DONE[:]
            found = pulled(rv.solve, case, *rv.to_device((y0, a[None], params)), [-1], "fused", plan={"graph": False})[:2]
        assert DONE.count("collect") == 5 and DONE.count("wait") == 1
        found = rv.to_host(found)
    for x, y in zip(rv.tree.flatten(found)[0], rv.tree.flatten(pulled(revode.solve, case, y0, a[None], params, [-1], "native")[:2])[0],
                    strict=True):
        np.testing.assert_array_equal(x, y)


FAR, MIXED, OFFSETS = (np.random.default_rng(1).normal(size=shape) for shape in ((3000, 3), (3, 3), (2900, 3)))


def held(t: Any, y: Any, p: Any) -> Any:
    """It holds 72 kB of the host, and a small matrix."""
    near = np.sum(np.exp(-np.sum((y[:, None, :] - FAR) ** 2, -1)), -1, keepdims=True)
    return np.tanh(y @ MIXED) * p - 1e-4 * near


def small(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ MIXED) * p - y


@pytest.mark.parametrize(("field", "n"), [(held, 5), (small, 5), (small, 2900)])
@pytest.mark.parametrize("backend", ["auto", "fused"])
def test_a_field_that_holds_arrays_of_the_host_is_fused(field: Any, n: int, backend: str) -> None:
    """Whatever their size, and that of the state, and from the first solve on, since op by op they do not mix with the device's."""
    y0, p, ts = np.random.default_rng(0).normal(size=(n, 3)), np.array([1.0, 0.5, 0.2]), np.linspace(0.0, 0.05, 6)
    with pretended():
        at = rv.to_device((y0, np.cos(y0)[None], p))
        for _ in range(3):
            del DONE[:]
            found = step(rv.solve, *at, field, ts, method=rv.ReversibleHeun(), backend=backend, plan={"graph": False})
        assert DONE.count("run") == 2 and len(DONE) - DONE.count("wait") <= 15 and DONE.count("wait") == 1
        found = rv.to_host(found)
    agrees(found, step(revode.solve, y0, np.cos(y0)[None], p, field, ts, method=rv.ReversibleHeun(), backend="eager"), y0.dtype)


def test_what_holds_arrays_of_the_host_and_cannot_be_fused_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """With the reason, once, and the remedy; asked for by name it is an error, also after "auto" has found that it cannot be."""
    shifted: Callable = lambda t, y, p: p * np.tanh(y @ OFFSETS[:300].T) @ OFFSETS[:300] - y
    caplog.set_level("INFO", "revode")
    with pretended():
        for n in (5, 2900):
            at = rv.to_device((np.ones((n, 3)), np.ones(1)))
            for _ in range(2):
                with pytest.raises(TypeError, match=r"the field holds the host array OFFSETS, and goes op by op.*pass it in params"):
                    rv.solve(shifted, at[0], np.linspace(0.0, 0.1, 5), at[1])
            with pytest.raises(NotImplementedError, match="a matrix of width 300"):
                rv.solve(shifted, at[0], np.linspace(0.0, 0.1, 5), at[1], backend="fused")
    assert len([x for x in caplog.messages if "goes op by op: a matrix of width 300" in x]) == 1


@pytest.mark.parametrize("method", [rv.RungeKutta("rk4"), rv.AsynchronousLeapfrog()], ids=repr)
@pytest.mark.parametrize("tree", [False, True])
def test_one_trajectory_time_and_again(method: Any, tree: bool) -> None:
    """Not queued: a launch of a kind makes more room for what comes with it, and the memory of the host moves, also where values of a
    single trajectory lie as they are."""
    field: Callable = (lambda t, y, p: {"q": y["v"] * p, "v": -np.sin(y["q"])}) if tree else lambda t, y, p: np.sin(y) * p
    x, ts = np.random.default_rng(0).normal(size=(2, 5)), np.linspace(0.0, 1.0, 21)
    y0, p = {"q": x, "v": x - 1.0} if tree else x[0], np.array([0.5, 1.0, 0.2, 0.1, 0.7])

    def run(solve: Callable, y0: Any, p: Any, **how: Any) -> tuple:
        ys, pull = rv.vjp(lambda y0, p: solve(field, y0, ts, p, method=method, save=[3, 20], **how).ys, y0, p)
        return ys, pull(ys)

    desired = run(revode.solve, y0, p, backend="eager")
    with pretended():
        at = rv.to_device((y0, p))
        for _ in range(3):
            agrees(rv.to_host(run(rv.solve, *at, backend="fused")), desired, x.dtype)
            at = at[0], at[1] + 0.0


def test_second_derivatives_of_small_states_go_op_by_op() -> None:
    """They crossed to the host by half: "params is a cupy array but y0 is a numpy array"."""
    y0, p, ts = np.random.default_rng(0).normal(size=(7, 3)), np.ones(3), np.linspace(0.0, 0.5, 301)

    def hvp(solve: Callable, y0: Any, p: Any, backend: str) -> Any:
        field = lambda t, y, p: -p * np.sin(y)
        return rv.hvp(lambda p: np.sum(solve(field, y0, ts, p, save=[-1], backend=backend).y1 ** 2))(p, p)

    with pretended():
        at = rv.to_device((y0, p))
        for _ in range(2):
            np.testing.assert_allclose(rv.to_host(hvp(rv.solve, *at, "auto")), hvp(revode.solve, y0, p, "eager"), rtol=1e-12)
        with pytest.raises(NotImplementedError, match="a derivative of a derivative records every operation"):
            hvp(rv.solve, *at, "fused")


ADAPTIVE: dict[str, dict] = {
    "ode": {}, "float32": {}, "saved": {"save_at": np.linspace(0.0, 1.0, 5)}, "coupled": {"method": rv.Coupled("bosh3")},
    "noise": {"diffusion": lambda t, y, p: 0.2 * np.cos(y) * p, "noise": rv.BrownianTree(3, 0.0, 1.0)}}


@pytest.mark.parametrize("case", ADAPTIVE)
def test_adaptive_steps_of_small_states_are_found_on_the_host(case: str) -> None:
    """Op by op on the device, 1574 steps were 64236 operations. The grid, the solve and both gradients are the host's."""
    dtype, ts = np.float32 if case == "float32" else np.float64, [0.0, 1.0]
    y0, p = np.random.default_rng(0).normal(size=(7, 3)).astype(dtype), np.array([1.0, 0.5, 0.2], dtype)
    how = {"method": rv.ReversibleHeun(), "controller": rv.PID(1e-4, 1e-4), **ADAPTIVE[case]}
    field: Callable = lambda t, y, p: np.sin(3.0 * y) * p - y
    sols: list = []

    def run(solve: Callable, *at: Any, **more: Any) -> tuple:
        def loss(y0: Any, p: Any) -> Any:
            sols.append(solve(field, y0, ts, p, **how, **more))
            return np.sum(sols[-1].ys ** 2)
        return rv.value_and_grad(loss, argnums=(0, 1))(*at)

    with pretended():
        at = rv.to_device((y0, p))
        for _ in range(3):
            del DONE[:]
            found = run(rv.solve, *at, backend="fused")
        assert len(DONE) - DONE.count("wait") <= 30 and DONE.count("wait") <= 6 and DONE.count("run") == 1
        found = rv.to_host(found)
    desired = run(revode.solve, y0, p, backend="eager")
    assert (sols[-1].stats.steps, sols[-1].stats.rejected) == (sols[-2].stats.steps, sols[-2].stats.rejected)
    for x, y in zip(rv.tree.flatten(found)[0], rv.tree.flatten(desired)[0], strict=True):       # rounding, and what a grid makes of it
        assert abs(x - y).max() <= 1e4 * np.finfo(dtype).eps * abs(y).max()

"""A warm fused training step, of any size: at most 15 operations of the device, and one wait for it."""
from __future__ import annotations

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


@pytest.mark.parametrize(("n", "N"), [(1, 20), (40, 20), (3000, 20), pytest.param(100_000, 4, marks=pytest.mark.long)])
@pytest.mark.parametrize("method", [None, rv.ReversibleHeun(), rv.Coupled("midpoint")], ids=repr)
def test_lorenz(n: int, N: int, method: Any) -> None:
    """Steps of a size at which the gradient is trusted. (Where it is not, the watch looks at the states, and that is said.)"""
    field, d, numbers = ANALYTIC["lorenz"]
    y0, params = np.random.default_rng(0).normal(size=(n, d)), {name: np.asarray(x) for name, x in numbers.items()}
    ts = np.linspace(0.0, 0.001 * N, N + 1)
    counts, found = counted(field, y0, params, ts, method=method)
    print(n, counts)
    assert counts[-1][0] <= 15 and counts[-1][1] == 1
    agrees(found, step(revode.solve, y0, np.cos(y0)[None], params, field, ts, method=method, backend="eager"), y0.dtype)


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

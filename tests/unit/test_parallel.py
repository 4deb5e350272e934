"""A batch over ranks: the same bits on any number of them, and the gradient of the whole batch.

Ranks are threads here. Where mpi4py and mpiexec are there, the same problems run on processes too (test_parallel_mpi.py). What is
right is the tape's gradient of the whole batch, which knows of no tiles: sums in another order differ by rounding, at most some
100 additions of numbers of the size of the largest: 1e-13 of it (float64).
"""
from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode import nn, parallel
from revode.ranks import Alone, Comm, together
from tests import parallel_cases as cases
from tests.compiler import needs_compiler
from tests.thread_ranks import threads

RANKS = (1, 2, 3, 8)


def folded(values: list) -> float:
    """The sum of a list as the tree defines it, by recursion from the top: the left half is the largest power of two below."""
    if len(values) == 1:
        return values[0]
    half = 1 << (len(values) - 1).bit_length() - 1
    return folded(values[:half]) + folded(values[half:])


@pytest.mark.sample(16)
@pytest.mark.parametrize("ranks", (1, 2, 3, 5, 8, 13))
@pytest.mark.parametrize("count", (1, 2, 3, 7, 8, 11, 16, 29))
def test_sums_are_those_of_the_tree(count: int, ranks: int) -> None:
    """Numbers of very different size: nearly every order of additions has a result of its own."""
    x = np.random.default_rng(count).standard_normal(count) * 10.0 ** np.arange(count)
    expected = folded(list(x))

    def on(comm: Comm) -> tuple:
        own: list = []

        def work(rows: np.ndarray, n: int) -> tuple:
            own.append(int(rows[0]))
            return rows[0], [x[rows[0]], None]

        pieces, sums = parallel.shared(comm, count, 1, (), work)
        assert pieces == list(range(count)) and sums[1] is None
        return sums[0], own, comm.sent

    found = threads(ranks, on)
    assert [i for _, own, _ in found for i in own] == list(range(count))
    assert max(len(own) for _, own, _ in found) <= -(-count // ranks) and 0 in found[0][1]
    assert sum(sent for *_, sent in found) == 2 * (ranks - 1)                       # one message up and one down for each but rank 0
    assert max(sent for *_, sent in found) <= (ranks - 1).bit_length() + 1
    assert {float(total) for total, *_ in found} == {float(expected)}


@pytest.mark.parametrize("name", cases.LOSSES)
def test_the_same_bits_on_any_number_of_ranks(name: str) -> None:
    found = {ranks: cases.on_ranks(ranks, name) for ranks in RANKS}
    assert len({bits for all_ranks in found.values() for bits in all_ranks}) == 1, found
    value, grads = parallel.value_and_grad(cases.LOSSES[name], tile=cases.TILE)(cases.PARAMS, cases.B)
    whole = rv.value_and_grad(lambda p: np.mean(cases.LOSSES[name](p, np.arange(cases.B))))(cases.PARAMS)
    # Of a fixed point, which is as good as its tolerance: a tile stops by itself.
    tol = 1e-6 if name == "deq" else 1e-13
    for ours, theirs in zip(rv.tree.flatten((value, grads))[0], rv.tree.flatten(whole)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tol * max(1.0, np.abs(theirs).max()))


@needs_compiler
def test_the_same_bits_natively_and_on_any_number_of_threads() -> None:
    """Strict arithmetic; one program for all tiles, the last one filled up, whatever trajectories of the noise they have."""
    found, traces = set(), []

    def on(comm: Comm, threads: int) -> None:
        def loss(p: dict, rows: np.ndarray) -> np.ndarray:
            sol = cases.noisy(p, rows, backend="native", arithmetic="strict", threads=threads)
            traces.append(sol.stats.traces)
            return np.sum(sol.y1 ** 2, -1)

        found.add(cases.bits(parallel.value_and_grad(loss, comm, tile=cases.TILE)(cases.PARAMS, cases.B)))

    on(Alone(), 1)
    made = sum(traces)
    for ranks in (2, 3):
        threads(ranks, lambda comm: on(comm, 2))
    assert len(found) == 1
    assert 0 < made == traces[0] + traces[3]               # the first of three looks, without a gradient, and the first tile


def test_the_noise_of_a_trajectory_is_its_own() -> None:
    whole = cases.noisy(cases.PARAMS, np.arange(cases.B)).y1
    assert np.array_equal(cases.noisy(cases.PARAMS, np.array([8, 9, 10, 10])).y1[:3], whole[8:11])
    for tree in (rv.Brownian(3, offset=5), rv.BrownianTree(3, 0.0, 1.0, offset=5)):
        assert parallel.noise_of(tree, [4, 5, 5, 5]).offset == 9
    with pytest.raises(ValueError, match="consecutive"):
        parallel.noise_of(rv.Brownian(3), [4, 6])


def test_sums_means_and_rows_of_a_batch() -> None:
    """A loss that is linear in its parameter has its data as gradient: exact for whole numbers."""
    data = np.arange(100.0)
    step = lambda batch, **options: parallel.value_and_grad(lambda p, rows: p * data[rows], tile=8, **options)(2.0, batch)
    assert step(11, reduce="sum") == (110.0, 55.0)
    assert step(11) == (10.0, 5.0)
    assert step(np.array([3, 90, 7]), reduce="sum") == (200.0, 100.0)


def test_what_fills_up_a_tile_is_not_seen() -> None:
    """It is the last row again, and whatever comes of it is left out, not multiplied by 0."""
    seen = []

    def loss(p: float, rows: np.ndarray) -> np.ndarray:
        seen.append(rows.tolist())
        return np.log(p * (1.0 + rows)) + np.where(np.arange(len(rows)) == 3, np.inf, 0.0)       # lane 3 is no row of the batch

    value, grad = parallel.value_and_grad(loss, tile=4)(1.0, 3)
    assert seen[-1] == [0, 1, 2, 2]
    np.testing.assert_allclose((value, grad), (np.log(6.0) / 3, 1.0), rtol=1e-15)


def test_parameters_of_every_kind() -> None:
    """Leaves that are no floats get None; float32 stays float32, rounded once after the sums."""
    params = {"a": np.float32(0.1), "n": 3, "w": np.ones((2, 1), np.float32), "name": "x", "b": 2.0}
    loss = lambda p, rows: p["n"] * p["a"] * p["b"] * np.sum(p["w"]) * np.ones(len(rows), np.float32)
    grads = parallel.value_and_grad(loss, reduce="sum", tile=2)(params, 5)[1]
    assert grads["n"] is None and grads["name"] is None
    assert grads["w"].dtype == np.float32 and grads["w"].shape == (2, 1)
    np.testing.assert_allclose(grads["b"], 5 * 3 * np.float32(0.1) * 2.0, rtol=1e-7)


def drifting(p: float, rows: np.ndarray, y0: np.ndarray, **options) -> np.ndarray:
    return rv.solve(lambda t, y, p: -p * y, y0, cases.TS, p, save=[-1], diffusion=lambda t, y, p: 0.5 + 0 * y,
                    noise=parallel.noise_of(rv.Brownian(5), rows), **options).y1[:, 0]


X = cases.Y0[:, 0]
ACROSS = {
    "mean": lambda p, rows: (p * X[rows] - np.mean(p * X[rows])) ** 2,
    "contrastive": lambda p, rows: -np.log(np.exp(p * X[rows]) / np.sum(np.exp(X[rows]))),
    "weak mean": lambda p, rows: p * X[rows] ** 2 + 1e-9 * np.mean(X[rows]),
    "those before": lambda p, rows: p * np.cumsum(X[rows]),
    "those behind": lambda p, rows: p * np.cumsum(X[rows][::-1])[::-1],
    "the first": lambda p, rows: (p * X[rows] - X[rows][0]) ** 2,
    "a neighbour": lambda p, rows: p * X[rows] * X[rows][np.arange(len(rows)) ^ 1],
    "float32": lambda p, rows: (np.float32(p) * np.float32(X[rows]) - np.mean(np.float32(X[rows]))) ** 2,
    "noise alone": lambda p, rows: (lambda x: (x - np.mean(x)) ** 2)(drifting(p, rows, np.ones((len(rows), 1)))),
    "noise by place": lambda p, rows: rv.solve(lambda t, y, p: -p * y, np.ones((len(rows), 1)), cases.TS, p, save=[-1],
                                               diffusion=lambda t, y, p: 0.5 + 0 * y, noise=rv.Brownian(5)).y1[:, 0] ** 2,
}


@pytest.mark.parametrize("name", ACROSS)
@pytest.mark.parametrize("count", (cases.B, 3))
def test_a_loss_across_trajectories_is_refused(name: str, count: int) -> None:
    with pytest.raises(ValueError, match=r"change by .* with the rows beside them, so it is no sum over trajectories") as found:
        parallel.value_and_grad(ACROSS[name], tile=8)(np.array(1.5), count)
    assert "parallel.solve" in str(found.value) and "tolerance" not in str(found.value)


def test_a_loss_without_an_axis_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("has shape () for 8 rows; it is one number for each, (8,). A loss across")):
        parallel.value_and_grad(lambda p, rows: np.sum(p * X[rows]), tile=8)(np.array(1.5), cases.B)


SUMS = {
    "noise": lambda p, rows: drifting(p, rows, cases.Y0[rows]) ** 2,
    "adaptive": lambda p, rows: rv.solve(lambda t, y, p: -p * y * y * y, cases.Y0[rows], [0.0, 3.0], p, method=rv.Coupled("bosh3"),
                                         controller=rv.PID(1e-4, 1e-6)).y1[:, 0] ** 2,
    "nothing to see": lambda p, rows: p * np.where(rows == 2, np.nan, X[rows]),
    "one row": lambda p, rows: p * X[np.minimum(rows, 0)] - np.sum(rows),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_over_trajectories_is_none_across_them(name: str) -> None:
    """Steps that a tile chose together change losses by less than a tolerance; NaN is the same as NaN."""
    count = 1 if name == "one row" else cases.B
    value, _ = parallel.value_and_grad(SUMS[name], tile=8)(np.array(1.5), count)
    assert np.isnan(value) == (name == "nothing to see")


def test_a_loss_is_looked_at_again() -> None:
    """After 64 calls: this one turns into another meanwhile."""
    calls = []

    def loss(p: float, rows: np.ndarray) -> np.ndarray:
        calls.append(0)
        return p * X[rows] + (np.mean(X[rows]) if len(calls) > 20 else 0.0)

    step = parallel.value_and_grad(loss, tile=8)
    for _ in range(parallel.HASHED):
        step(1.0, 8)
    assert len(calls) == parallel.HASHED + 3
    with pytest.raises(ValueError, match="no sum over trajectories"):
        step(1.0, 8)


@pytest.mark.parametrize("given, words", [
    (dict(batch=0), "batch=0"), (dict(batch=np.ones(3)), "batch=array"), (dict(tile=0), "tile=0"),
    (dict(reduce="max"), "reduce='max'"),
])
def test_bad_input_gets_a_sentence(given: dict, words: str) -> None:
    options = {name: x for name, x in given.items() if name != "batch"}
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        parallel.value_and_grad(lambda p, rows: p * rows, **options)(1.0, given.get("batch", 3))


@pytest.mark.parametrize("y0, options, words", [
    (np.ones(3), {}, "y0 without a batch"), (np.ones((4, 1)), {"controller": rv.PID(1e-3, 1e-6)}, "controller"),
    (np.ones((4, 1)), {"save": []}, "save=.. leaves nothing to gather"), (np.ones((0, 2)), {}, "y0 without a batch"),
    ({"a": np.ones((3, 2))}, {}, "y0 without a batch"),
])
def test_what_cannot_be_shared_out(y0: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parallel.solve(lambda t, y, p: -y, y0, [0.0, 1.0], **options)


@pytest.mark.parametrize("field", [
    lambda t, y, p: np.mean(y, 0) - p * y, lambda t, y, p: p * np.sum(np.sin(y[None] - y[:, None]), 1),
    lambda t, y, p: -p * y / np.linalg.norm(y), lambda t, y, p: p * np.cumsum(y[::-1], 0)[::-1],
], ids=["a mean", "Kuramoto", "a norm", "sums of those behind"])
def test_trajectories_that_move_each_other_are_refused(field: Any) -> None:
    """A tile would be another world, also where it is the whole batch, filled up with its last row."""
    alone = lambda t, y, p: -p * y
    for start in (np.linspace(-1.0, 1.0, 10)[:, None] * np.ones(2), np.ones((3, 2)), np.zeros((1, 2))):
        for given in ({"field": field}, {"field": alone, "diffusion": field, "noise": rv.Brownian(1)}):
            with pytest.raises(ValueError, match="changes with those beside it"):
                parallel.solve(y0=start, ts=cases.TS, params=0.7, **given)


# A loss across trajectories, of what all ranks have gathered

def spread(y0: np.ndarray, params: dict, solve, **options) -> float:
    """Means and deviations over the batch: no sum over trajectories."""
    ys = solve(cases.field, y0, cases.TS, params, diffusion=cases.diffusion, noise=rv.Brownian(7, offset=3), save=[4, -1],
               method=rv.ReversibleHeun(), **options).ys
    return np.sum(np.std(ys, 1) + np.mean(ys, 1) ** 2)


def test_a_loss_across_trajectories_by_solve() -> None:
    of = lambda solve, **options: rv.value_and_grad(lambda y, p: spread(y, p, solve, **options), (0, 1))(cases.Y0, cases.PARAMS)
    found = [threads(ranks, lambda comm: of(parallel.solve, comm=comm, tile=4)) for ranks in RANKS]
    assert len({cases.bits(one) for some in found for one in some}) == 1
    for ours, theirs in zip(rv.tree.flatten(found[0][0])[0], rv.tree.flatten(of(rv.solve))[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13 * max(1.0, np.abs(theirs).max()))
    sol = threads(3, lambda comm: parallel.solve(cases.field, cases.Y0, cases.TS, cases.PARAMS, save=[4, -1], comm=comm))[2]
    whole = rv.solve(cases.field, cases.Y0, cases.TS, cases.PARAMS, save=[4, -1])
    assert np.array_equal(sol.ts, whole.ts)
    np.testing.assert_allclose(sol.y1, whole.y1, rtol=0, atol=1e-13)


def test_a_batch_with_more_axes_has_the_noise_of_the_whole() -> None:
    y0 = np.zeros((5, 3, 2))
    options = dict(diffusion=lambda t, y, p: 1.0 + 0 * y, noise=rv.Brownian(1), method=rv.EES25())
    ours = threads(2, lambda comm: parallel.solve(lambda t, y, p: -y, y0, cases.TS, comm=comm, tile=2, **options))[1]
    assert np.array_equal(ours.ys, rv.solve(lambda t, y, p: -y, y0, cases.TS, **options).ys)


# What goes wrong on one rank

@pytest.mark.parametrize("error, kind", [(ValueError("no"), ValueError),
                                         (rv.ReconstructionError("no"), (RuntimeError, rv.ReconstructionError)),
                                         (FloatingPointError("no"), FloatingPointError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_what_one_rank_raises_all_raise(error: BaseException, kind: type | tuple) -> None:
    def loss(p: float, rows: np.ndarray) -> np.ndarray:
        if rows[-1] >= 5:                        # on ranks 2 and 3: the first of them is heard
            raise error
        return p * rows

    def on(comm: Comm) -> str:
        with pytest.raises(kind) as found:
            parallel.value_and_grad(loss, comm, tile=2)(1.0, 8)
        return str(found.value)

    said = threads(4, on)
    named = "" if kind is KeyboardInterrupt else f"rank 2: {'' if kind is type(error) else 'ReconstructionError: '}no"
    assert said == [named, named, str(error), named]


def test_a_rank_that_fails_elsewhere_is_heard_of_at_the_next_tree() -> None:
    """As it is with a whole program: on rank 1 the optimiser fails, and the others are in the middle of the next gradient."""
    def on(comm: Comm) -> str:
        def work() -> None:
            step = parallel.value_and_grad(lambda p, rows: p * rows, comm, tile=2)
            for n in range(3):
                step(1.0, 8)
                if comm.Get_rank() == 1 and n == 1:
                    raise MemoryError("no room")

        with pytest.raises(MemoryError) as found:
            together(comm, work, max)
        return str(found.value)

    assert threads(3, on) == ["rank 1: no room", "no room", "rank 1: no room"]


def test_a_wish_to_end_is_heeded_by_all_in_the_same_call() -> None:
    def on(comm: Comm) -> int:
        step = parallel.value_and_grad(lambda p, rows: p * rows, comm, tile=2)
        for n in range(5):
            comm.interrupted = comm.Get_rank() == 2 and n == 3
            try:
                step(1.0, 8)
            except KeyboardInterrupt:
                return n

    assert threads(4, on) == [3] * 4


def test_ranks_out_of_step_are_found() -> None:
    """Another batch at once, other parameters at the first call and at each 64th after it."""
    def on(comm: Comm, batch: int, params: float, calls: int) -> None:
        step = parallel.value_and_grad(lambda p, rows: p * rows, comm, tile=2)
        for n in range(calls):
            step(2.0 + params * comm.Get_rank() * (n >= calls - 1), 8 + batch * comm.Get_rank())

    for given, words in (((1, 0.0, 1), "batch of rank 1 and of rank 0"), ((0, 1e-16, 1), ""), ((0, 1e-15, 1), "parameters of rank"),
                         ((0, 1e-15, parallel.HASHED + 1), "parameters of rank 1")):
        if words:
            with pytest.raises(ValueError, match=words):
                threads(3, lambda comm, given=given: on(comm, *given))
        else:
            threads(3, lambda comm, given=given: on(comm, *given))


def test_ranks_that_solve_something_else_are_found() -> None:
    def on(comm: Comm, y0: float, params: float) -> None:
        rank = comm.Get_rank()
        parallel.solve(lambda t, y, p: -p * y, np.full((4, 1), 1.0 + y0 * rank), cases.TS, np.array(2.0 + params * rank), comm=comm)

    threads(2, lambda comm: on(comm, 0.0, 0.0))
    for given, words in (((1e-15, 0.0), "batch of rank 1 and of rank 0"), ((0.0, 1e-15), "parameters of rank 1")):
        with pytest.raises(ValueError, match=words):
            threads(2, lambda comm, given=given: on(comm, *given))


def test_training_stays_in_step() -> None:
    """Five steps of Adam, each rank with an optimiser of its own: the same parameters on one rank and on three."""
    def train(comm: Comm) -> str:
        optimiser, step = rv.optim.adam(0.02), parallel.value_and_grad(cases.LOSSES["ode"], comm, tile=cases.TILE)
        params, state = cases.PARAMS, optimiser.init(cases.PARAMS)
        for _ in range(5):
            _, grads = step(params, cases.B)
            params, state = optimiser.update(params, grads, state)
        return cases.bits(params)

    assert len({*threads(1, train), *threads(3, train)}) == 1


def test_map() -> None:
    tens = threads(3, lambda comm: parallel.map(lambda x: (10 * x, comm.Get_rank()), range(7), comm))
    assert tens[0] == tens[1] == tens[2] == [(10 * i, i % 3) for i in range(7)]
    with pytest.raises(ZeroDivisionError, match="rank 1: "):
        threads(2, lambda comm: parallel.map(lambda x: 1 / (x - 1), range(4), comm))
    assert parallel.map(abs, (-i for i in range(3))) == [0, 1, 2] and parallel.map(abs, []) == []
    nets = parallel.map(lambda seed: nn.mlp_init(np.random.default_rng(seed), (2, 3)), [1, 2])
    assert len(nets) == 2


def test_the_page_of_measurements_calls_a_model_a_model() -> None:
    from reference import scaling
    assert scaling.modelled(1, 8, 2.0, 0.1) == 16.0
    assert scaling.modelled(3, 8, 2.0, 0.1) == 6.2              # three tiles on the busiest rank, two levels of messages
    times = dict.fromkeys(("strong", "weak", "tree", "plain", "whole", "small"), (1.0, 1.0))
    one = {"ranks": 1, "sent": 0, "bytes": 1024, **times}
    page = scaling.page([one, {**one, "ranks": 2, "sent": 2, "strong": (0.5, 0.5)}])
    assert "| 2 | 500 ms | 100% |" in page and page.index("## A model, not a measurement") < page.index("\n| 1024 | ")

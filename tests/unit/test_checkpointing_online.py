"""Checkpointed(n) on adaptive solves, whose number of steps N is not known while states are being kept.

The bounds asserted, with r the least number such that N <= C(n + r, n):
    no step is recomputed more than r times in the reverse sweep (Wang, Moin & Iaccarino 2009: the repetition number that is
    optimal for N steps and n checkpoints), so none is advanced more than r + 1 times, the forward sweep included;
    the sweep recomputes at most r N - C(n + r, n + 1) steps, the minimum of Griewank & Walther 2000 for known N, first
    sweep included. Nothing can do with fewer than that in all, and online costs at most N more.
At most n + 1 states are held, the current one among them.
"""
import tracemalloc
from collections import Counter
from functools import cache
from math import comb

import numpy as np
import pytest

import revode as rv
from reference.oracles import gradients as G
from revode.gradients.checkpointed import Online
from tests.method_cases import distance

EPS = 2.0**-53
P = {"k": np.array([0.3, -0.2])}
Y0 = np.array([0.8, -0.5])


def field(t, y, p):
    return np.cos(p["k"] * t) * y[..., ::-1] * 0.05 + 0.01 * p["k"]


def unit_steps(N):
    """Options for a solve of exactly N steps of size 1 on (0, N): a controller that is content with everything."""
    return {"method": rv.RungeKutta("bosh3"), "controller": rv.PID(1e6, 1e6, max_step=1.0), "dt0": 1.0}


def gradient(mode, N, f=field, save=(-1,)):
    def loss(x):
        sol = rv.solve(f, x[0], (0.0, float(N)), x[1], gradient=mode, save=list(save) if save else None, **unit_steps(N))
        return np.sum(np.sin(sol.ys)) + np.sum(sol.y1**2), sol.stats
    (_, stats), grads = rv.value_and_grad(loss, has_aux=True)((Y0, P))
    assert stats.steps == N and stats.rejected == 0
    return grads, stats


# ----------------------------------------------------------------------------- a dry run, from the words of the papers

fewest = cache(G.minimal_advances)          # by its recursion, not by the formula of the bound

def kept_online(N, n):
    """Where the states are after N steps, each state i < N having been offered in turn (Wang, Moin & Iaccarino 2009).

    The state 0 is a placeholder of level infinity. A kept state is dispensable if a later one has a higher level.
    """
    places = [(0, float("inf"))]
    for i in range(1, N):
        if n == 1:
            continue
        if len(places) < n:
            places.append((i, 0))
            continue
        dispensable = [k for k, (_, level) in enumerate(places) if any(later > level for _, later in places[k + 1:])]
        if dispensable:
            del places[dispensable[-1]]
            places.append((i, 0))
        else:
            _, level = places.pop()
            places.append((i, level + 1))
    return [place for place, _ in places]


def dry_run(N, n):
    """Steps advanced: N forward, then each stretch between kept states reversed with the places that are free by then."""
    kept = kept_online(N, n)
    ends = [*kept[1:], N]
    return N + sum(fewest(end - start, n - k) for k, (start, end) in enumerate(zip(kept, ends, strict=True)))


def repetition(N, n):
    return next(r for r in range(N + 1) if comb(n + r, n) >= N)


TABLE = [(N, n) for n in (1, 2, 3, 4, 5, 8) for N in (1, 2, 3, 4, 5, 6, 7, 10, 11, 15, 16, 20, 21, 35, 36, 56, 57, 70, 101)
         if n > 1 or N <= 21]


def test_the_dry_run_keeps_the_bounds():
    """The bounds hold for the algorithm itself, over a wide table: what the library is then measured by."""
    for n in range(1, 9):
        for N in range(1, 150 if n > 1 else 40):
            r, total = repetition(N, n), dry_run(N, n)
            minimum = r * N - comb(n + r, n + 1)
            assert N > 60 or minimum == fewest(N, n)
            assert minimum <= total <= N + minimum <= (r + 1) * N


@pytest.mark.parametrize("n", range(1, 9))
def test_the_store_follows_the_algorithm(n):
    store = Online(n)
    for i in range(150):
        store.offer(i, {"y": i})
        assert sorted(store) == kept_online(i + 1, n)
        assert all(parts == {"y": k} for k, parts in store.items())
        assert len(store) <= n and 0 in store
        assert n == 1 or i in store                        # the newest is always there: the sweep starts with it


@pytest.mark.sample(40)
@pytest.mark.parametrize("N, n", TABLE)
def test_counts(N, n):
    """Advances, per step and in all, as the field saw them: bosh3 evaluates at the middle of a step once in each run of it."""
    middles = Counter()

    def counted(t, y, p):
        middles[float(t)] += 1
        return field(t, y, p)
    _, stats = gradient(rv.Checkpointed(n), N, counted)
    runs = [middles[k + 0.5] for k in range(N)]
    advances = [k - 1 for k in runs]                            # every step runs once more on a tape
    r = repetition(N, n)
    minimum = r * N - comb(n + r, n + 1)
    assert max(advances) <= r + 1
    assert minimum <= sum(advances) <= N + minimum
    assert stats.advances == sum(advances) == dry_run(N, n)
    assert stats.peak_states <= n + 1
    # Four stages forward with the error estimate, three in every other run; three vjps a step.
    assert stats.nfe == 4 * N + 3 * (sum(advances) - N) + 3 * N
    assert stats.nvjp == 3 * N


@pytest.mark.parametrize("save", [(-1,), None], ids=["end", "all"])
@pytest.mark.parametrize("N, n", [(1, 1), (1, 3), (2, 1), (5, 1), (6, 2), (10, 3), (11, 3), (40, 2), (57, 5), (60, 100)])
def test_gradient_is_that_of_direct(N, n, save):
    grads, _ = gradient(rv.Checkpointed(n), N, save=save)
    direct, _ = gradient(rv.Direct(), N, save=save)
    # The same pullbacks in another order of summation: N steps of 4 stages with about 10 operations.
    assert distance(grads[0], direct[0]) <= 40 * N * EPS
    assert distance(grads[1], direct[1]) <= 40 * N * EPS


@pytest.mark.sample(4)
@pytest.mark.parametrize("method", [rv.RungeKutta("dopri5"), rv.Coupled("bosh3"), rv.ReversibleHeun(), rv.EES25()], ids=repr)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_real_adaptive_solves(method, n):
    """Steps of all sizes, and rejections; for methods with one part and with two, with field values shared across steps."""
    f = lambda t, y, p: np.stack([y[..., 1], p["mu"] * (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]], -1)
    p = {"mu": np.array(0.5)}
    tol = 1e-7 if method == rv.RungeKutta("dopri5") else 1e-3

    def run(mode):
        def loss(x):
            sol = rv.solve(f, x[0], (0.0, 3.0), x[1], method=method, gradient=mode, controller=rv.PID(tol, tol), dt0=1.4,
                           save_at=[1.0, 2.5])
            return np.sum(sol.ys**2) + np.sum(sol.y1), sol.stats
        return rv.value_and_grad(loss, has_aux=True)((Y0, p))
    (_, stats), grads = run(rv.Checkpointed(n))
    _, direct = run(rv.Direct())
    assert stats.rejected > 0 and stats.steps > 8
    assert stats.advances == dry_run(stats.steps, n) and stats.peak_states <= n + 1
    # As above, with up to 8 stages; the gradient is not small against the cotangents it is made of.
    assert distance(grads[0], direct[0]) <= 80 * stats.steps * EPS
    assert distance(grads[1], direct[1]) <= 80 * stats.steps * EPS


def test_pulling_twice():
    """The checkpoints that the first sweep used up are recomputed."""
    _, pull = rv.vjp(lambda y0, p: rv.solve(field, y0, (0.0, 20.0), p, gradient=rv.Checkpointed(3), save=[-1],
                                            **unit_steps(20)).y1, Y0, P)
    first, again, double = pull(np.ones(2)), pull(np.ones(2)), pull(2 * np.ones(2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1]["k"], again[1]["k"])
    assert np.array_equal(2 * first[0], double[0]) and np.array_equal(2 * first[1]["k"], double[1]["k"])


def test_memory_in_bytes():
    """A state of 10^5 numbers: each further checkpoint costs one state, and the number of steps costs none."""
    y0 = np.linspace(0.1, 1.0, 100_000)
    f = lambda t, y, p: np.cos(0.3 * t) * y * 0.05

    def peak(N, n):
        loss = lambda y0: np.sum(rv.solve(f, y0, (0.0, float(N)), gradient=rv.Checkpointed(n), save=[-1], backend="eager",
                                              **unit_steps(N)).y1)
        tracemalloc.start()
        rv.grad(loss)(y0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found / y0.nbytes
    few, many, long = peak(30, 2), peak(30, 8), peak(60, 2)
    assert abs(many - few - 6) < 1.5            # the tape of a step, with its temporaries, is the same: within a state or so
    assert abs(long - few) < 1

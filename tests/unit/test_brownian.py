"""Increments by step and the Brownian tree: the literal oracle in bits, batches in parts, exact additivity, and laws.

Statistical tests have a fixed seed, the first that was tried, and p-values above P_MIN.
"""
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import revode as rv
from reference.oracles import bridge as tree_oracle
from reference.oracles import philox as oracle
from revode.paths import Brownian, BrownianTree

P_MIN = 1e-3


def normal_score(x):
    """Two-sided p-value of a standard normal score."""
    return 2 * special.ndtr(-np.abs(x))


def assert_covariance(samples, expected):
    """samples (n, k) with mean 0: each entry of the second-moment matrix is normal with variance (c_ii c_jj +
    c_ij^2)/n."""
    n = len(samples)
    found = samples.T @ samples / n
    sigma = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected ** 2) / n)
    p = normal_score((found - expected) / sigma)
    assert p.min() > P_MIN, f"smallest p-value {p.min():.2g}\n{found}\n{expected}"
    mean = samples.mean(axis=0) / np.sqrt(np.diag(expected) / n)
    assert normal_score(mean).min() > P_MIN, mean


# ---------------------------------------------------------------------------------------------- increments by step

def test_increments_equal_the_oracle_in_bits():
    noise = Brownian(seed=2 ** 63 + 5, offset=11)
    dW = noise.increments(6, (2, 3, 4), 0.01)
    for i, j, k in np.ndindex(2, 3, 4):
        assert dW[i, j, k] == oracle.increment(2 ** 63 + 5, 11 + 3 * i + j, 6, k, 0.01)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (4, 3), (2, 2, 3), (0, 3), (4, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_shape(shape, dtype):
    dW = Brownian(3).increments(2, shape, 0.5, dtype)
    assert dW.shape == shape and dW.dtype == dtype
    flat = Brownian(3).increments(2, (max(1, int(np.prod(shape[:-1]))), shape[-1] if shape else 1), 0.5, dtype)
    assert np.array_equal(dW.ravel(), flat.ravel()[:dW.size])
    assert np.array_equal(Brownian(3, shape=shape).increments(2, h=0.5, dtype=dtype), dW)


def test_windows_of_one_path_by_their_first_step():
    whole = Brownian(7).increments(np.arange(30), (4, 2))
    np.testing.assert_array_equal(Brownian(7, first=10).increments(np.arange(20), (4, 2)), whole[10:])
    along = Brownian(7, first=10).along(np.ones(20), (4, 2), first=3)
    np.testing.assert_array_equal(along(5), whole[18])
    with pytest.raises(ValueError, match="2\\^32 - 1 - first"):
        Brownian(7, first=2**32 - 1).increments(1, (1,))
    with pytest.raises(ValueError, match="first=-1; an integer"):
        Brownian(7, first=-1)


@pytest.mark.parametrize("how", [{"backend": "eager"}, {"backend": "replay"}, {"backend": "replay", "arithmetic": "strict"}])
def test_a_solve_in_two_windows_is_the_solve_of_the_whole_path(how):
    """And where both windows have the same first step, the noise of the first comes again."""
    ts = np.linspace(0.0, 1.0, 9)

    def solve(y0, ts, first):
        return rv.solve(lambda t, y, p: -y, y0, ts, diffusion=lambda t, y, p: 0.3 * np.cos(y), method=rv.RungeKutta("heun2"),
                        noise=Brownian(7, first=first), **how).y1

    y0 = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
    half = solve(y0, ts[:5], 0)
    np.testing.assert_array_equal(solve(half, ts[4:], 4), solve(y0, ts, 0))
    assert not np.array_equal(solve(half, ts[4:], 0), solve(y0, ts, 0))


def test_a_tree_takes_times_that_rounding_put_outside():
    """0.1 added up ten times is one ulp below 1, and a sum may as well be above; what is further out is refused."""
    tree = BrownianTree(3, 0.0, 1.0)
    above = float(np.nextafter(1.0, 2.0))
    for t in (above, 1.0 + 7 * float(np.spacing(1.0))):
        np.testing.assert_array_equal(tree.value(t, (2,)), tree.value(1.0, (2,)))
        np.testing.assert_array_equal(tree.over([0.5, t], (2,))(0), tree.increments(0.5, 1.0, (2,)))
    np.testing.assert_array_equal(tree.value(-np.spacing(1.0), (2,)), np.zeros(2))
    for t in (1.0 + 20 * float(np.spacing(1.0)), np.nan):
        with pytest.raises(ValueError, match="outside"):
            tree.value(t, (2,))
        with pytest.raises(ValueError, match="outside"):
            tree.over([0.5, t], (2,))


def test_a_batch_in_parts_gets_the_noise_of_the_whole():
    whole = Brownian(5).increments(9, (7, 2, 3), 0.1)
    tree = BrownianTree(5, 0.0, 1.0).increments(0.2, 0.9, (7, 2, 3))
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        part = (stop - start, 2, 3)
        assert np.array_equal(Brownian(5, offset=2 * start).increments(9, part, 0.1), whole[start:stop])
        assert np.array_equal(BrownianTree(5, 0.0, 1.0, offset=2 * start).increments(0.2, 0.9, part), tree[start:stop])
    # fewer channels are the first channels, fewer trajectories the first trajectories
    assert np.array_equal(Brownian(5).increments(9, (7, 2, 2), 0.1), whole[..., :2])


def test_many_steps_at_once_equal_steps_one_by_one():
    hs = np.array([0.1, -0.2, 0.3, 0.0])
    for dtype in (np.float32, np.float64):
        bulk = Brownian(1).increments(np.array([5, 0, 2 ** 32 - 1, 7]), (3, 2), hs, dtype)
        for row, step, h in zip(bulk, (5, 0, 2 ** 32 - 1, 7), hs, strict=True):
            assert np.array_equal(row, Brownian(1).increments(step, (3, 2), h, dtype))


@pytest.mark.parametrize("shape", [(2,), (700, 3), (3000, 2)])
def test_along_a_grid_gives_the_same_bits_in_any_order_and_holds_one_block(shape):
    """700 x 3 numbers: one step in a block; 2: the whole grid; the reverse sweep reads backwards; `first` shifts."""
    hs = np.linspace(0.1, 0.2, 9).astype(np.float32)
    noise = Brownian(4)
    along = noise.along(hs, shape, np.float32, first=100)
    expected = [noise.increments(100 + n, shape, float(h), np.float32) for n, h in enumerate(hs)]
    for n in [*range(9), *reversed(range(9)), 4, 0, 8]:
        assert np.array_equal(along(n), expected[n])
        assert along.block.size <= max(along.numbers, np.prod(shape))
    with pytest.raises(ValueError, match="read-only"):
        along(0)[...] = 0.0
    for n in (-1, 9):
        with pytest.raises(IndexError, match="a grid of 9 steps"):
            along(n)


def test_blocks_of_along_end_where_the_grid_ends():
    along = Brownian(4).along(np.full(5000, 0.25), (3,))
    assert along.length == 8192 // 3
    for n in (0, 2729, 2730, 4999, 0):
        assert np.array_equal(along(n), Brownian(4).increments(n, (3,), 0.25))


def test_float32_noise_is_the_float64_noise_rounded_once():
    for noise, args in ((Brownian(8), (3,)), (BrownianTree(8, 0.0, 2.0), (0.3, 1.1))):
        fine = noise.increments(*args, (50, 4))
        coarse = noise.increments(*args, (50, 4), dtype=np.float32)
        assert coarse.dtype == np.float32 and np.array_equal(coarse, fine.astype(np.float32))
    # The scale enters before the rounding: sqrt(0.1) Z in float64, not the product of two float32 numbers.
    z, dW = Brownian(8).increments(3, (1000,)), Brownian(8).increments(3, (1000,), 0.1, np.float32)
    assert np.array_equal(dW, (np.sqrt(0.1) * z).astype(np.float32))
    assert not np.array_equal(dW, np.float32(np.sqrt(0.1)) * z.astype(np.float32))


def test_a_step_backwards_has_the_variance_of_its_length():
    assert np.array_equal(Brownian(2).increments(3, (4,), -0.3), Brownian(2).increments(3, (4,), 0.3))
    assert not Brownian(2).increments(3, (4,), 0.0).any()


def test_increments_have_the_law_of_brownian_motion():
    """20000 paths of 4 uneven steps in one call: independent, variance |h|."""
    hs = np.array([0.5, 0.01, -2.0, 1.0])
    dW = Brownian(2024).increments(np.arange(4), (20000, 1), hs)[..., 0].T
    assert_covariance(dW, np.diag(np.abs(hs)))


def test_seeds_are_records():
    assert Brownian(np.uint64(7)) == Brownian(seed=7) and hash(Brownian(7, (2, 3))) == hash(Brownian(7, [2, 3]))
    assert not np.array_equal(Brownian(7).increments(0, (5,)), Brownian(7 + 2 ** 32).increments(0, (5,)))
    with pytest.raises(AttributeError):
        Brownian(7).seed = 8


@pytest.mark.parametrize("make, message", [
    (lambda: Brownian(-1), r"seed=-1; an integer from 0 to 2\^64 - 1"),
    (lambda: Brownian(2 ** 64), "seed="), (lambda: Brownian(1.0), "seed=1.0"), (lambda: Brownian(True), "seed=True"),
    (lambda: BrownianTree(None, 0.0, 1.0), "BrownianTree: seed=None"),
    (lambda: Brownian(1, offset=-2), r"offset=-2; an integer from 0 to 2\^32 - 1"),
    (lambda: Brownian(1, shape=5), "shape=5; the shape of dW"), (lambda: Brownian(1, shape=(-1, 2)), "the shape of dW"),
    (lambda: Brownian(1).increments(0), "no shape; give the shape of dW"),
    (lambda: Brownian(1, (3, 2)).increments(0, (3, 4)), r"shape \(3, 4\) is needed, but .* shape=\(3, 2\)"),
    (lambda: Brownian(1).increments(-1, (3,)), "the number of a step"),
    (lambda: Brownian(1).increments(2 ** 32, (3,)), "the number of a step"),
    (lambda: Brownian(1).increments(0.5, (3,)), "the number of a step"),
    (lambda: Brownian(1).increments(0, (3,), np.nan), "h=nan; the length of a step"),
    (lambda: Brownian(1).increments(0, (3,), [0.1]), r"h of shape \(1,\) for steps of shape \(\)"),
    (lambda: Brownian(1).increments([0, 1], (3,), [0.1] * 3), r"h of shape \(3,\) for steps of shape \(2,\)"),
    (lambda: Brownian(1).increments(0, (3,), dtype=np.float16), "dtype=float16; noise comes as float32 or float64"),
    (lambda: Brownian(1, offset=2 ** 32 - 2).increments(0, (3, 1)), r"go past 2\^32 trajectories"),
    (lambda: BrownianTree(1, 1.0, 1.0), r"two finite times with t0 < t1"),
    (lambda: BrownianTree(1, 0.0, np.inf), r"two finite times with t0 < t1"),
    (lambda: BrownianTree(1, 0.0, 1.0, tol=0.0), r"tol=0.0; the width of the finest cells"),
    (lambda: BrownianTree(1, 0.0, 1.0, tol=np.nan), "tol=nan"),
    (lambda: BrownianTree(1, 0.0, 1.0).increments(0.0, 1.1, (2,)), r"t=1.1 is outside \[t0, t1\] = \[0.0, 1.0\]"),
    (lambda: BrownianTree(1, 0.0, 1.0).increments(np.nan, 1.0, (2,)), "t=nan is outside"),
    (lambda: BrownianTree(1, 0.0, 1.0, shape=(2,)).increments(0.0, 1.0, (3,)), "is needed"),
])
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --------------------------------------------------------------------------------------------------------- the tree

def test_tree_equals_the_oracle_in_bits():
    """Random times, the ends, multiples of the finest cell, and times just beside them; node numbers above 2^32."""
    for t0, T, tol in ((0.0, 1.0, None), (-3.0, 2.5, 0.3), (0.0, 8.0, 8.0 * 2.0 ** -40)):
        tree = BrownianTree(99, t0, t0 + T, tol, offset=2)
        cell = 2.0 ** -tree.depth
        xs = [0.0, 1.0, 0.5, 0.25, cell, 3 * cell, 1 - cell, 2.0 ** -50, 1 - 2.0 ** -50,
              *np.random.default_rng(0).uniform(size=8)]
        walk = tree.walk((2, 2))
        for x in xs:
            t = t0 + T * x
            exact_share = (t - t0) / T
            exact = [[tree_oracle.value(99, i, c, T, exact_share, tree.depth) for c in (0, 1)] for i in (2, 3)]
            expected = [[round(w / tree.unit) * tree.unit for w in row] for row in exact]
            assert walk.value(t).tolist() == expected, (t0, x)


def test_depth_and_unit():
    assert BrownianTree(1, 0.0, 1.0).depth == 20 and BrownianTree(1, 0.0, 1.0, tol=1.0).depth == 0
    assert BrownianTree(1, 0.0, 1.0, tol=0.25).depth == 2 and BrownianTree(1, 0.0, 3.0, tol=0.7).depth == 3
    assert BrownianTree(1, 0.0, 1.0, tol=2.0 ** -50).depth == 50
    for T in (1e-6, 0.5, 1.0, 3.0, 1e5):
        unit = BrownianTree(1, 0.0, T).unit
        assert 45 * np.sqrt(T) <= 2.0 ** 53 * unit < 90 * np.sqrt(T) and np.frexp(unit)[0] == 0.5
        assert unit < 2.0 ** -46 * np.sqrt(T)


times = st.one_of(st.floats(0.0, 1.0), st.integers(0, 64).map(lambda k: k / 64), st.floats(0.3, 0.3 + 1e-6))


@given(seed=st.integers(0, 2 ** 64 - 1), depth=st.integers(0, 30), ts=st.lists(times, min_size=3, max_size=8),
       start=st.floats(-100, 100), T=st.floats(1e-3, 1e3))
def test_refinement_is_exact(seed, depth, ts, start, T):
    """Increments over any pieces add up to the increment over the whole, in bits (float64); to rounding in float32.

    float32: each increment is rounded once (relative 2^-24), and each partial sum of the pieces once; the partial sums
    are themselves increments, up to the errors made before, hence the bound with second-order terms in the 1.001."""
    tree = BrownianTree(seed, start, start + T, T * 2.0 ** -depth)
    ts = [min(start + T * t, start + T) for t in ts]
    pieces = [tree.increments(s, t, (2, 3)) for s, t in pairwise(ts)]
    whole = tree.increments(ts[0], ts[-1], (2, 3))
    assert np.array_equal(sum(pieces), whole)
    assert np.array_equal(-whole, tree.increments(ts[-1], ts[0], (2, 3)))
    s, t, u = ts[:3]
    first, second, both = (tree.increments(a, b, (2, 3), np.float32) for a, b in ((s, t), (t, u), (s, u)))
    bound = 1.001 * 2.0 ** -24 * (abs(first) + abs(second) + 2 * abs(both)).astype(np.float64) + 1e-45
    assert (abs((first + second).astype(np.float64) - both) <= bound).all()


@given(ts=st.lists(times, min_size=2, max_size=8), depth=st.integers(0, 30))
def test_values_do_not_depend_on_what_was_read_before(ts, depth):
    tree = BrownianTree(17, 0.0, 1.0, 2.0 ** -depth)
    walk = tree.walk((3,))
    for s, t in [*pairwise(ts), *pairwise(ts[::-1])]:
        assert np.array_equal(walk.increments(s, t), tree.increments(s, t, (3,)))
        assert len(walk.ends) <= tree.depth + 1 and len(walk.known) <= 2


def test_a_smaller_tol_keeps_the_values_of_the_coarser_grid():
    coarse, fine = BrownianTree(3, 0.0, 2.0, 2.0 / 16), BrownianTree(3, 0.0, 2.0, 2.0 / 1024)
    for t in np.arange(0, 33) / 16.0:      # every second one is the middle of a finest cell of the coarse tree
        assert np.array_equal(coarse.value(t, (4,)), fine.value(t, (4,)))
    assert not np.array_equal(coarse.value(0.01, (4,)), fine.value(0.01, (4,)))


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_the_construction_has_the_covariance_that_is_promised(depth):
    """From the weights of the normals, no sampling: min(x, y), but for two times inside one finest cell, which are off
    by at most a quarter of its width. Round-off: sums of at most 8 products below 1."""
    cells = 2 ** depth
    special_times = (0.0, 0.5, 1.0, 1 / cells, 0.3, 0.3 + 1e-9, 0.3 + 0.1 / cells)
    xs = sorted({*np.random.default_rng(1).uniform(size=12).tolist(), *special_times})
    off = 0.0
    for x in xs:
        for y in xs:
            error = abs(tree_oracle.covariance(x, y, depth) - min(x, y))
            if x == y or int(x * cells) != int(y * cells):
                assert error < 1e-15, (x, y)
            else:
                assert error <= 0.25 / cells + 1e-15
                off = max(off, error)
    assert off > 1e-3 / cells            # and the exception is real


def test_tree_samples_have_that_law():
    """20000 paths: covariance min(s, t) of values, independent increments of variance t - s over an irregular grid that
    crosses cells, and normality of one."""
    tree = BrownianTree(11, 1.0, 3.0, 1e-3)
    ts = np.array([1.0, 1.0007, 1.3, 1.31, 2.0, 2.77, 3.0])
    walk = tree.walk((20000, 1))
    W = np.stack([walk.value(t)[:, 0] for t in ts[1:]], axis=1)
    assert_covariance(W, np.minimum.outer(ts[1:] - 1, ts[1:] - 1))
    dW = np.stack([walk.increments(s, t)[:, 0] for s, t in pairwise(ts)], axis=1)
    assert_covariance(dW, np.diag(np.diff(ts)))
    assert stats.kstest(dW[:, 1] / np.sqrt(ts[2] - ts[1]), "norm").pvalue > P_MIN


def test_bridge_has_the_right_conditional_moments():
    """Given W at both ends of [a, b], W(t) is normal about the line between them, with variance (t-a)(b-t)/(b-a), and
    independent of the ends: for the dyadic middle, a general time, and one inside a finest cell. Other channels do not
    matter."""
    tree = BrownianTree(12, 0.0, 4.0, 4.0 / 64)
    for a, t, b in ((0.0, 2.0, 4.0), (0.3, 1.7, 3.1), (1.0, 1.02, 1.0625)):
        Wa, Wt, Wb = (tree.value(s, (20000, 2)) for s in (a, t, b))
        x = (t - a) / (b - a)
        rest = Wt - ((1 - x) * Wa + x * Wb)
        variance = (t - a) * (b - t) / (b - a)
        columns = np.concatenate([rest, Wb - Wa], axis=1)
        assert_covariance(columns, np.diag([variance, variance, b - a, b - a]))
        assert stats.kstest(rest[:, 0] / np.sqrt(variance), "norm").pvalue > P_MIN


def test_trees_and_steps_share_no_counter():
    """The increments by step have 0 in the last counter word, the nodes of a tree its top bit."""
    z = BrownianTree(6, 0.0, 1.0, 1.0).walk((4, 2)).normals([0, 1, 2, 3, 2 ** 40])
    steps = Brownian(6).increments(np.arange(5), (4, 2))
    assert not np.isin(z, steps).any() and np.unique(z).size == z.size
    assert z[4, 3, 1] == oracle.normal(6, 3, 0, 1, 2 ** 31 + 2 ** 8)

"""Controls against SciPy's interpolators and literal loops, with and without gaps, in both dtypes."""
from itertools import pairwise
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline

import revode as rv
from revode.paths import HermiteCubic, LinearPath, Rectilinear

KINDS = [LinearPath, Rectilinear, HermiteCubic]
EPS = {np.float64: 2.0 ** -52, np.float32: 2.0 ** -23}


def series(length=9, batch=(2, 3), channels=2, gaps=0.0, seed=0):
    """Irregular times and values of order 1; a share of the entries is missing, one of each channel never."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.1, 1.0, length)) - 1.0
    values = rng.normal(size=(*batch, length, channels))
    missing = rng.uniform(size=values.shape) < gaps
    kept = rng.integers(0, length, (*batch, 1, channels))
    np.put_along_axis(missing, kept, False, axis=-2)
    values[missing] = np.nan
    return times, values


def columns(values):
    """Each series of each channel: (index, its list of values)."""
    for index in np.ndindex(*values.shape[:-2], values.shape[-1]):
        yield index, values[(*index[:-1], slice(None), index[-1])]


def filled_by_hand(times, column):
    """Gaps on the line between the neighbours, ends with the nearest observation; a loop on Python floats."""
    seen = [i for i, v in enumerate(column) if not isnan(v)]
    out = []
    for i, t in enumerate(times):
        left = max((j for j in seen if j <= i), default=None)
        right = min((j for j in seen if j >= i), default=None)
        if left is None or right is None or left == right:
            out.append(column[right if left is None else left])
        else:
            out.append(column[left] + (column[right] - column[left]) * (t - times[left]) / (times[right] - times[left]))
    return out


def held_by_hand(column):
    """The last observation; before the first, the first."""
    last = next(v for v in column if not isnan(v))
    out = []
    for v in column:
        last = last if isnan(v) else v
        out.append(last)
    return out


def query(times, number=50, seed=3):
    return np.concatenate([np.random.default_rng(seed).uniform(times[0], times[-1], number), times])


# Tolerances: values are of order 1 (|X| < 4), each result a handful of operations: 16 ulp of 4. Slopes are at most
# 8/0.05 and lose an ulp or two in each of a few operations, x (4 - 3 x) <= 4/3 being the largest factor: 16 ulp of 200.
VALUE, SLOPE = 16 * 4, 16 * 200


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("gaps", [0.0, 0.6])
def test_linear_path(dtype, gaps):
    times, values = series(gaps=gaps)
    values = values.astype(dtype)
    path = LinearPath(times, values)
    t = query(times)
    X, dX = path.evaluate(t), path.derivative(t[:50])
    assert X.shape == (len(t), 2, 3, 2) and X.dtype == dX.dtype == dtype
    for index, column in columns(values):
        known = ~np.isnan(column)
        expected = np.interp(t, times[known], column[known].astype(np.float64))          # constant beyond the ends, too
        np.testing.assert_allclose(X[(slice(None), *index)], expected, rtol=0, atol=VALUE * EPS[dtype])
        by_hand = np.array(filled_by_hand(times.tolist(), column.astype(np.float64).tolist()))
        slope = np.diff(by_hand) / np.diff(times)
        at = np.searchsorted(times, t[:50]) - 1
        np.testing.assert_allclose(dX[(slice(None), *index)], slope[at], rtol=0, atol=SLOPE * EPS[dtype])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("gaps", [0.0, 0.6])
def test_hermite_cubic(dtype, gaps):
    times, values = series(gaps=gaps, seed=1)
    values = values.astype(dtype)
    path = HermiteCubic(times, values)
    t = query(times)
    X, dX = path.evaluate(t), path.derivative(t)
    assert X.shape == dX.shape == (len(t), 2, 3, 2) and X.dtype == dX.dtype == dtype
    for index, column in columns(values):
        by_hand = np.array(filled_by_hand(times.tolist(), column.astype(np.float64).tolist()))
        slope = np.diff(by_hand) / np.diff(times)
        spline = CubicHermiteSpline(times, by_hand, np.concatenate([slope[:1], slope]))       # backward differences
        np.testing.assert_allclose(X[(slice(None), *index)], spline(t), rtol=0, atol=VALUE * EPS[dtype])
        np.testing.assert_allclose(dX[(slice(None), *index)], spline(t, 1), rtol=0, atol=SLOPE * EPS[dtype])


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("gaps", [0.0, 0.6])
def test_rectilinear(gaps, time):
    """The polygon (t_0, x_0), (t_1, x_0), (t_1, x_1), (t_2, x_1), ...: listed by hand, run through with np.interp."""
    times, values = series(gaps=gaps, seed=2)
    path = Rectilinear(times, values, time=time)
    assert len(path.times) == 2 * len(times) - 1 and np.array_equal(path.times[::2], times)
    t = query(path.times)
    X = path.evaluate(t)
    for index, column in columns(values):
        held = held_by_hand(column.tolist())
        corners = [held[0]]
        clock = [times[0]]
        for i in range(1, len(times)):
            corners += [held[i - 1], held[i]]
            clock += [times[i], times[i]]
        channel = index[-1] + time
        np.testing.assert_allclose(X[(slice(None), *index[:-1], channel)], np.interp(t, path.times, corners), rtol=0,
                                   atol=VALUE * EPS[np.float64])
        if time:
            np.testing.assert_allclose(X[(slice(None), *index[:-1], 0)], np.interp(t, path.times, clock), rtol=0,
                                       atol=VALUE * EPS[np.float64])


def test_rectilinear_does_not_look_ahead():
    """Changing an observation changes nothing at the data's times before it, and no middle up to it."""
    times, values = series(batch=(), gaps=0.4)
    values[0] = 1.0
    changed = values.copy()
    changed[5] += 1.0
    changed[7] = np.nan
    before, after = (Rectilinear(times, v).values for v in (values, changed))
    assert np.array_equal(before[:10], after[:10]) and not np.array_equal(before[10:], after[10:])


def test_hermite_cubic_looks_one_observation_ahead():
    times, values = series(batch=(), seed=5)
    changed = values.copy()
    changed[5] += 1.0
    before, after = HermiteCubic(times, values), HermiteCubic(times, changed)
    t = query(times, 200)
    early = t <= times[4]
    assert np.array_equal(before.evaluate(t[early]), after.evaluate(t[early]))
    assert np.array_equal(before.derivative(t[early]), after.derivative(t[early]))
    middle = 0.5 * (times[4] + times[5])
    assert not np.array_equal(before.evaluate(middle), after.evaluate(middle))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_knots_are_met_in_bits_and_increments_are_differences(kind, dtype):
    times, values = series(gaps=0.3)
    path = kind(times, values.astype(dtype), time=True)
    assert np.array_equal(np.moveaxis(path.values, -2, 0), path.evaluate(path.times))
    seen = ~np.isnan(values)
    at_data = path.evaluate(times)[..., 1:]
    assert np.array_equal(np.moveaxis(at_data, 0, -2)[seen], values.astype(dtype)[seen])
    assert np.array_equal(path.evaluate(times)[..., 0], np.broadcast_to(times.astype(dtype)[:, None, None], (9, 2, 3)))
    t = query(times, 20)
    for s, u in zip(t, t[::-1], strict=True):
        dX = path.increment(s, u)
        assert dX.shape == (2, 3, 3) and dX.dtype == dtype
        assert np.array_equal(dX, path.evaluate(u) - path.evaluate(s)) and np.array_equal(dX, -path.increment(u, s))
    assert np.array_equal(path.increment(t[:4], t[4:8])[2], path.increment(t[2], t[6]))


@pytest.mark.parametrize("kind", KINDS)
def test_derivative_is_that_of_the_path(kind):
    """Central differences inside the intervals: exact for lines and quadratics, off by h^2 X'''/6 for cubics. The
    middle half of each interval is used; h = 1e-4, X''' = 6 |change| / d^2 < 6 * 160 / 0.01."""
    times, values = series(seed=4)
    path = kind(times, values)
    x = np.random.default_rng(0).uniform(0.25, 0.75, len(path.times) - 1)
    t = path.times[:-1] + x * np.diff(path.times)
    h = 1e-4
    numeric = path.increment(t - h, t + h) / (2 * h)
    np.testing.assert_allclose(path.derivative(t), numeric, rtol=0, atol=h * h * 1e5 / 6 + 64 * EPS[np.float64] / h)


def test_hermite_derivative_is_continuous_and_the_others_jump():
    times, values = series(batch=(), seed=6)
    inner, tiny = times[1:-1], 1e-9
    for kind, smooth in ((HermiteCubic, True), (LinearPath, False), (Rectilinear, False)):
        path = kind(times, values)
        jump = np.abs(path.derivative(inner + tiny) - path.derivative(inner - tiny)).max()
        assert path.smooth is smooth and bool(jump < 1e-4) is smooth          # |X''| < 4 * 160 / 0.1, times 2e-9


def test_a_piecewise_linear_path_has_one_increment_a_step_on_its_knots():
    """Summed along `times` the increments give the way from end to end; the same for a grid that is finer."""
    times, values = series(gaps=0.5)
    for kind in (LinearPath, Rectilinear):
        path = kind(times, values)
        grid = np.sort(np.concatenate([path.times, query(times, 30)]))
        for ts in (path.times, grid, grid[::-1]):
            total = sum(path.increment(s, t) for s, t in pairwise(ts))
            # one rounding of at most 8 for each increment and each partial sum, 47 at most
            np.testing.assert_allclose(total, path.increment(ts[0], ts[-1]), rtol=0, atol=2 * 60 * 8 * EPS[np.float64])


columns_with_gaps = st.lists(st.one_of(st.just(nan), st.floats(-10, 10)), min_size=2, max_size=12)


@given(data=columns_with_gaps.filter(lambda v: not all(map(isnan, v))), seed=st.integers(0, 100))
def test_gaps_are_filled_as_by_hand(data, seed):
    times = np.cumsum(np.random.default_rng(seed).uniform(0.1, 1.0, len(data)))
    values = np.array(data)[:, None]
    expected = np.array(filled_by_hand(times.tolist(), data))
    for kind in (LinearPath, HermiteCubic):       # |X| <= 10, four roundings
        np.testing.assert_allclose(kind(times, values).values[:, 0], expected, rtol=0, atol=8 * 10 * EPS[np.float64])
    assert Rectilinear(times, values).values[::2, 0].tolist() == held_by_hand(data)


def test_scalars_of_each_kind_are_times():
    times, values = series(batch=())
    for kind in KINDS:
        path = kind(times, values)
        t = np.float32(times[0] + 0.77)
        for same in (float(t), np.float64(t), t, np.array(t)):
            assert np.array_equal(path.evaluate(same), path.evaluate(float(t)))
            assert path.derivative(same).shape == (2,)
        assert path.evaluate(np.full((2, 3), t)).shape == (2, 3, 2)
        assert kind([0, 1, 3], np.zeros((3, 2))).evaluate(2).shape == (2,)


def test_times_may_be_off_by_their_rounding_and_no_more():
    """A float32 solve hands the field a float32 time: the last one may be rounded up, beyond the data."""
    times, values = np.array([0.1, 0.5, 2.9]), np.array([[0.0], [1.0], [5.0]])
    assert float(np.float32(2.9)) > 2.9
    for kind in KINDS:
        path = kind(times, values)
        assert path.evaluate(np.float32(2.9)) == 5.0 and path.evaluate(np.nextafter(0.1, 0)) == 0.0
        for t in (2.9 + 1e-6, 0.1 - 1e-6, np.nan, np.array([0.2, 3.0]), float(np.float32(2.9))):
            with pytest.raises(ValueError, match=r"is outside the data's times, 0.1 to 2.9"):
                path.evaluate(t)
        with pytest.raises(ValueError, match="outside the data's times"):
            path.derivative(3.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times, values, message", [
    ([0.0, 1.0], np.zeros((3, 2)),
     r"values of shape \(3, 2\) for 2 times; give \(..., length, channels\) with length 2"),
    ([0.0, 1.0], np.zeros(2), r"values of shape \(2,\) for 2 times"),
    ([0.0], np.zeros((1, 2)), r"times of shape \(1,\); give \(length,\) times, at least two"),
    (np.zeros((2, 2)), np.zeros((2, 2)), r"values of shape \(2, 2\) for 2 times; .* or \(2, 2, 'channels'\)"),
    ([0.0, 1.0, 1.0], np.zeros((3, 2)), r"times\[1\] = 1.0 is followed by 1.0; sort the observations"),
    ([0.0, 2.0, 1.0], np.zeros((3, 2)), r"times\[1\] = 2.0 is followed by 1.0"),
    ([0.0, np.nan, 1.0], np.zeros((3, 2)), r"times\[1\] = nan; give finite times"),
    ([0.0, 1.0], np.zeros((2, 2), int), "values are int64; give float32 or float64"),
    ([0.0, 1.0], np.zeros((2, 2), complex), "values are complex128"),
    ([0.0, 1.0], np.array([[0.0, np.inf], [1.0, 1.0]]), r"an infinite entry at \(0, 1\); mark missing values as NaN"),
    ([0.0, 1.0], np.array([[[0.0, 1.0]] * 2, [[0.0, nan]] * 2]), r"channel 1 of series \(1,\) was never observed"),
])
def test_bad_data_gets_a_sentence(kind, times, values, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: .*{message}"):
        kind(times, values)


def test_rectilinear_needs_room_between_times():
    with pytest.raises(ValueError, match="no room for a knot between"):
        Rectilinear([1.0, np.nextafter(1.0, 2.0)], np.zeros((2, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_keeps_its_own_copy_and_cannot_be_changed(kind):
    times, values = series(batch=())
    path = kind(times, values)
    before = path.evaluate(0.5)
    times[:], values[:] = 0.0, 0.0
    assert np.array_equal(path.evaluate(0.5), before)
    with pytest.raises(ValueError, match="read-only"):
        path.values[...] = 0.0
    with pytest.raises(AttributeError):
        path.times = times
    knots = 17 if kind is Rectilinear else 9
    assert repr(path).startswith(f"{kind.__name__}({knots} knots on [")
    assert repr(path).endswith("2 channels, batch (), float64)")


# ------------------------------------------------------------------------------------------ times of their own for each series

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_series_with_times_of_their_own_are_each_what_they_are_alone(kind, dtype):
    """In bits inside of their own times; outside they stand still at their first and last values."""
    rng = np.random.default_rng(8)
    times = np.stack([np.stack([series(length=7, seed=10 * i + j)[0] for j in range(3)]) for i in range(2)])
    values = series(length=7, gaps=0.4)[1].astype(dtype)
    path = kind(times, values, time=True)
    assert path.values.shape[:2] == path.times.shape[:2] == (2, 3) and path.values.dtype == dtype
    t = rng.uniform(times.min(), times.max(), 40)
    X, dX, single = path.evaluate(t), path.derivative(t), path.evaluate(t[3])
    assert X.shape == dX.shape == (40, 2, 3, 3) and X.dtype == dX.dtype == dtype
    np.testing.assert_array_equal(single, X[3])
    np.testing.assert_array_equal(path.increment(t[:3], t[3:6]), X[3:6] - X[:3])
    for at in np.ndindex(2, 3):
        alone, own = kind(times[at], values[at], time=True), times[at]
        inside = (t >= own[0]) & (t <= own[-1])
        np.testing.assert_array_equal(X[(inside, *at)], alone.evaluate(t[inside]))
        np.testing.assert_array_equal(dX[(inside, *at)], alone.derivative(t[inside]))
        assert not dX[(~inside, *at)].any()
        for x, moment in zip(X[(~inside, *at)], t[~inside], strict=True):
            np.testing.assert_array_equal(x, alone.evaluate(own[0] if moment < own[0] else own[-1]))


@pytest.mark.parametrize("kind, how", [(HermiteCubic, {}), (HermiteCubic, {"backend": "replay"}), (LinearPath, {"backend": "replay"})])
def test_a_controlled_equation_of_such_series_is_that_of_each(kind, how):
    rng = np.random.default_rng(9)
    times = np.cumsum(rng.uniform(0.2, 0.5, (3, 6)), -1)
    times = (times - times[:, :1]) / (times[:, -1:] - times[:, :1])                   # all from 0 to 1
    values, y0, W = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 2)), rng.normal(size=(2, 4))
    field = lambda t, y, p: np.reshape(np.tanh(y @ p), (*y.shape, 2))
    ts = np.unique(times)

    def end(y0, W, control):
        return np.sum(np.cos(rv.solve(field, y0, ts, W, control=control, **how).y1))

    value, (ay, aW) = rv.value_and_grad(end, argnums=(0, 1))(y0, W, kind(times, values))
    alone = [rv.value_and_grad(end, argnums=(0, 1))(y0[i:i + 1], W, kind(times[i], values[i:i + 1])) for i in range(3)]
    # some 15 steps of 4 stages, 20 operations each
    np.testing.assert_allclose(value, sum(v for v, _ in alone), rtol=0, atol=2e3 * EPS[np.float64])
    np.testing.assert_allclose(ay, np.concatenate([g[0] for _, g in alone]), rtol=0, atol=2e4 * EPS[np.float64])
    np.testing.assert_allclose(aW, sum(g[1] for _, g in alone), rtol=0, atol=2e4 * EPS[np.float64])


def test_times_of_their_own_have_to_fit():
    with pytest.raises(ValueError, match=r"or \(2, 5, 'channels'\) where each series has its own times"):
        LinearPath(np.tile(np.arange(5.0), (2, 1)), np.zeros((3, 5, 1)))
    with pytest.raises(ValueError, match=r"times\[2\] = 3.0 is followed by 1.0"):
        LinearPath([[0.0, 1.0, 2.0, 3.0], [0.0, 2.0, 3.0, 1.0]], np.zeros((2, 4, 1)))

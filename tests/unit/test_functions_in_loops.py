"""Functions of NumPy in fields that are written out as loops: prod, cumprod, and what the engine knows as a composition.

The text of the loops is played in NumPy, operation by operation (arithmetic="strict" of replay), so no compiler is needed; the tape is
the oracle, for values and for the gradients of y0 and of a parameter.
"""
import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import revode as rv

EPS = 2.0 ** -52
KNOTS = np.array([0.2, 0.5, 1.1])
SOME = np.array([True, False, True, True, False, True])


def holed(y):
    return np.where(SOME, y, np.nan)


def square(y):
    return np.reshape(y[..., :4], (*y.shape[:-1], 2, 2))


FUNCTIONS = {
    "prod": lambda y: np.prod(y, axis=-1), "prod of pairs": lambda y: np.prod(square(y), axis=(-1, -2), keepdims=True),
    "prod of one": lambda y: np.prod(y[..., :1], axis=-1), "cumprod": lambda y: np.cumprod(y, axis=-1),
    "cumprod of a column": lambda y: np.cumprod(square(y), axis=-2), "cumsum": lambda y: np.cumsum(y, axis=-1),
    "diff": lambda y: np.diff(y, 2, axis=-1), "roll": lambda y: np.roll(y, 2, axis=-1), "tril": lambda y: np.tril(square(y)),
    "triu": lambda y: np.triu(square(y), 1), "cross": lambda y: np.cross(y[..., :3], y[..., 3:]),
    "trapezoid": lambda y: np.trapezoid(y, dx=0.1), "trapezoid along knots": lambda y: np.trapezoid(y[..., :3], KNOTS),
    "average": lambda y: np.average(y, axis=-1, weights=np.arange(1.0, 7)), "gradient": lambda y: np.gradient(y, axis=-1),
    "polyval": lambda y: np.polyval([1.0, 2.0, 3.0], y), "norm 3": lambda y: np.linalg.norm(y, 3, axis=-1),
    "nan_to_num": np.nan_to_num, "inner": lambda y: np.inner(y, np.arange(6.0)), "unwrap": np.unwrap,
    "tensordot": lambda y: np.tensordot(y, np.tri(6), 1), "select": lambda y: np.select([y > 1, y < 0.7], [y * y, y], 0.5),
    "trace by einsum": lambda y: np.einsum("...ii", square(y)), "diagonal by einsum": lambda y: np.einsum("...ii->...i", square(y)),
    "vecdot": lambda y: np.vecdot(y, np.arange(6.0)), "matvec": lambda y: np.matvec(square(y), y[..., :2]),
    "vecmat": lambda y: np.vecmat(y[..., 4:], square(y)),
    "matrix_power": lambda y: np.linalg.matrix_power(square(y), 3), "nanmean": lambda y: np.nanmean(y, axis=-1),
    "cumulative_sum": lambda y: np.cumulative_sum(y, axis=-1, include_initial=True),
    "cumulative_prod": lambda y: np.cumulative_prod(y, axis=-1, include_initial=True),
    "sum where": lambda y: np.sum(y, -1, where=SOME, initial=2.0), "prod where": lambda y: np.prod(y, -1, where=SOME),
    "max where": lambda y: np.max(-y, -1, where=SOME, initial=-9.0), "min where": lambda y: np.min(y, -1, where=SOME, initial=9.0),
    "nanmean of some": lambda y: np.nanmean(holed(y), -1), "nanvar of some": lambda y: np.nanvar(holed(y), -1, ddof=1),
    "nanmax of some": lambda y: np.nanmax(-holed(y), -1), "nanmin of some": lambda y: np.nanmin(holed(y), -1),
    "conditions": lambda y: np.where((y > 0.8) & ~(y > 1.2) | (y < 0.6), y * y, y),
    "array of entries": lambda y: y[..., :2] * (np.array([y[0], y[1] * y[2]]) if y.ndim == 1 else y[..., 1:3]),
    "moved axes": lambda y: np.moveaxis(np.moveaxis(y, -1, 0)[1:] * 2.0, 0, -1),
}


def field(f, t, y, p):
    total = np.sum(np.reshape(f(y), (*y.shape[:-1], -1)), axis=-1, keepdims=True)
    return p * (0.1 * np.sin(total) - y)


def solved(f, y0, **how):
    def loss(y0, p):
        sol = rv.solve(functools.partial(field, f), y0, np.linspace(0.0, 0.2, 6), p, method=rv.ReversibleHeun(),
                       gradient=rv.Reversible(), **how)
        return np.sum(sol.y1 ** 2), sol.stats
    return rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, np.array(0.3))


@pytest.mark.sample(40)
@pytest.mark.parametrize("shape", [(6,), (5, 6), (6, 6)], ids=str)         # one trajectory, some, as many as there are features
@pytest.mark.parametrize("name", FUNCTIONS)
def test_loops_give_what_the_tape_gives(name, shape):
    y0 = np.random.default_rng(3).uniform(0.5, 1.5, shape)
    (value, stats), (by_y0, by_p) = solved(FUNCTIONS[name], y0, backend="replay", arithmetic="strict")
    (expected, _), (truth_y0, truth_p) = solved(FUNCTIONS[name], y0, backend="eager")
    assert stats.backend == "replay"
    # The loops add and multiply in another order: 5 steps, there and back, of sums of some 40 terms.
    assert abs(value - expected) <= 400 * EPS * abs(expected)
    assert_allclose(by_y0, truth_y0, rtol=0, atol=2000 * EPS * np.abs(truth_y0).max())
    assert abs(by_p - truth_p) <= 4000 * EPS * abs(truth_p)


@pytest.mark.parametrize("f", [np.sort, lambda y: np.interp(y, KNOTS, KNOTS ** 2), lambda y: np.prod(np.tile(y, 20), axis=-1)],
                         ids=["sort", "interp", "prod of too many"])
def test_what_has_no_form_as_loops_is_refused_where_it_is_asked_for(f):
    with pytest.raises(TypeError, match="has no form as a loop"):
        solved(f, np.ones(6), backend="replay", arithmetic="strict")


def test_a_composition_is_known_again_by_its_arguments_alone():
    """The same call: nothing is traced. Another quantile: another program, and its own values."""
    y0 = np.array([0.5, 0.9, 1.4])

    def at(q):
        sol = rv.solve(lambda t, y, p: np.quantile(y, q) - p * y, y0, np.linspace(0.0, 1.0, 11), np.array(0.3), backend="replay")
        return sol.stats.traces, sol.y1
    first, low = at(0.3)
    again, same = at(0.3)
    other, high = at(0.9)
    assert (first, again, other) == (1, 0, 1)
    assert low.tobytes() == same.tobytes() and np.all(high > low)

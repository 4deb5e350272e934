"""Every row of the engine's table and every NumPy function it offers, against the complex step (engine_table.py)."""
import numpy as np
import pytest
from engine_table import CASES, complex_gradient, complex_hessian_product

import revode as rv
from revode.engine.tensor import FUNCTIONS, RULES

NAMES = [case.name for case in CASES]
PRODUCTS_OF_SPECTRA = ("ifft-convolution", "ifft-division", "irfft-correlation")


def loss_of(fn, weights):
    """A number whose gradient weighs the entries of fn differently, and whose second derivative is not 0 for a linear fn."""
    def loss(*args):
        y = fn(*args)
        return np.sum(y * (weights + 0.5 * y))
    return loss


def weights_for(case):
    return np.random.default_rng(7).uniform(0.5, 1.5, np.shape(case.fn(*case.args)))


def test_every_entry_of_the_table_and_every_function_has_a_case():
    assert set(RULES) | set(FUNCTIONS) == {case.key for case in CASES}
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_value_is_that_of_numpy(case):
    value, _ = rv.vjp(case.fn, *case.args)
    expected = case.fn(*case.args)
    assert np.shape(value) == np.shape(expected)
    if case.name in PRODUCTS_OF_SPECTRA:       # four real products, where NumPy may fuse two: one unit of the largest term, twice
        np.testing.assert_allclose(value, expected, rtol=0, atol=2 * np.spacing(np.abs(expected).max()))
    else:
        assert np.asarray(value).tobytes() == np.asarray(expected).tobytes()          # more of these in test_numpy_values.py


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_first_and_second_derivatives_are_those_of_the_complex_step(case):
    weights = weights_for(case)
    rng = np.random.default_rng(11)
    directions = [rng.standard_normal(a.shape) for a in case.args]
    loss, formula = loss_of(case.fn, weights), loss_of(case.formula, weights)
    everything = tuple(range(len(case.args)))

    gradient = rv.grad(loss, argnums=everything)
    expected = complex_gradient(formula, case.args)
    for g, truth, a in zip(gradient(*case.args), expected, case.args, strict=True):
        assert g.shape == a.shape and g.dtype == np.float64
        # Both sides are round-off only: sums of at most 200 terms, conditioned by 1/(1 - .9^2) ~ 5 at worst.
        np.testing.assert_allclose(g, truth, rtol=0, atol=1e-12 * max(1.0, np.abs(truth).max()))

    def along(*args):
        return sum(np.sum(g * d) for g, d in zip(gradient(*args), directions, strict=True))
    second = rv.grad(along, argnums=everything)(*case.args)
    for g, truth in zip(second, complex_hessian_product(formula, case.args, directions), strict=True):
        # Central difference at h = 1e-5: truncation h^2/6 = 2e-11 times fourth derivatives (arctanh and arccosh near
        # their ends: about 1e4 of the scale), round-off 1e-16/h = 1e-11.
        np.testing.assert_allclose(g, truth, rtol=0, atol=2e-7 * max(1.0, np.abs(truth).max()))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_engines_own_check_agrees_to_second_order(case):
    rv.check_vjp(case.fn, *case.args)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_float32_stays_float32_where_numpy_stays_there(case):
    args = [a.astype(np.float32) for a in case.args]
    dtype = np.asarray(case.fn(*args)).dtype       # float_power, interp, bincount and meetings with lists of numbers are float64
    value, pull = rv.vjp(case.fn, *args)
    weights = weights_for(case)
    found = pull(weights.astype(dtype))
    _, pull = rv.vjp(case.fn, *case.args)
    assert value.dtype == dtype
    for g, exact in zip(found, pull(weights), strict=True):
        assert g.dtype == np.float32
        # 1e-7 of round-off in arguments and operations, conditioned by 5 twice and summed over 24 terms.
        np.testing.assert_allclose(g, exact, rtol=0, atol=2e-5 * max(1.0, np.abs(exact).max()))

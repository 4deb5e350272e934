"""What people write (reference/idioms.py): values, first and second derivatives, float32; refusals with a sentence.

The derivatives are those of central differences of the plain NumPy expression, which knows nothing of the engine.
"""
import warnings

import numpy as np
import pytest

import revode as rv
from reference import idioms

SUPPORTED = [(group, e) for group, text in idioms.SUPPORTED.items() for e in idioms.expressions(text)]
REFUSED = [(reason, e) for reason, text in idioms.REFUSED.items() for e in idioms.expressions(text)]
VALUES, SINGLE = idioms.values(), idioms.values(np.float32)
# A Python float goes on in float64, which is refused; and the bytes of float32 are fewer.
NOT_IN_FLOAT32 = {"A[0, 0].item() * A", "A.tolist()[1][2] * A", "x * x.nbytes"}


def leaves(value):
    return [np.asarray(x) for x in rv.tree.flatten(value)[0]]


def called(expression, values):
    f, names = idioms.function(expression), idioms.arguments(expression)
    return f, [values[name] for name in names]


def quiet(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f(*args)


def test_no_kink_is_near():
    """Central differences see both sides of a tie: the entries are further apart than their largest step, 2 h = 1e-3."""
    for name, x in VALUES.items():
        x = np.tril(x)[np.tril_indices(3)] if name == "C" else x                       # which is symmetric
        gaps = [np.abs(np.ravel(x)), np.diff(np.sort(np.ravel(x)))]
        assert min(g.min() for g in gaps if g.size) > 1.5e-3, name


def test_there_are_as_many_as_are_promised():
    everything = [e for _, e in SUPPORTED + REFUSED] + idioms.expressions(idioms.UNSEEN)
    assert len(set(everything)) == len(everything) >= 590
    assert len(SUPPORTED) >= 520


@pytest.mark.parametrize("expression", [e for _, e in SUPPORTED])
def test_value_and_two_derivatives(expression):
    f, args = called(expression, VALUES)
    plain = leaves(f(*args))
    value, _ = rv.vjp(f, *args)
    for a, b in zip(leaves(value), plain, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        # Bits are compared in test_numpy_values.py; spectra and the sums of Python round in another order.
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)
    rng = np.random.default_rng(3)
    weights = [rng.uniform(0.5, 1.5, y.shape) for y in plain]
    along = [rng.normal(size=np.shape(a)) for a in args]

    def loss(*args):
        return sum(np.sum(y * w) for y, w in zip(rv.tree.flatten(f(*args))[0], weights, strict=True) if y.dtype.kind in "fO")

    def at(t):
        return float(loss(*(a + t * d for a, d in zip(args, along, strict=True))))

    everything = tuple(range(len(args)))
    found = sum(np.sum(g * d) for g, d in zip(rv.grad(loss, everything)(*args), along, strict=True))
    # Richardson's difference at h = 5e-4: h^4 of fifth derivatives (condition numbers, inverses: 1e5), round-off 1e-16 / h.
    h, scale = 5e-4, max(1.0, abs(float(found)))
    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert abs(found - slope) <= 1e-8 * scale, (found, slope)
    second = sum(np.sum(g * d) for g, d in zip(rv.hvp(loss, everything)(*args, tuple(along)), along, strict=True))
    # The same with h^4 of sixth derivatives, and 1e-16 / h^2 = 4e-10 times the size of the loss.
    bend = (16 * (at(h) + at(-h)) - (at(2 * h) + at(-2 * h)) - 30 * at(0.0)) / (12 * h * h)
    assert abs(second - bend) <= 1e-6 * max(scale, abs(float(second)), abs(at(0.0))), (second, bend)


@pytest.mark.parametrize("expression", [e for _, e in SUPPORTED if e not in NOT_IN_FLOAT32])
def test_float32_gives_the_dtype_of_numpy_and_the_gradient_that_of_the_argument(expression):
    f, args = called(expression, SINGLE)
    value, pull = quiet(rv.vjp, f, *args)
    exact = rv.vjp(*(lambda f, args: (f, *args))(*called(expression, VALUES)))
    for a, b in zip(leaves(value), leaves(quiet(f, *args)), strict=True):
        assert a.dtype == b.dtype
    seeds = rv.tree.map(lambda y: np.ones_like(y) if getattr(y, "dtype", None) in (np.float32, np.float64) else None, value)
    ones = rv.tree.map(lambda y: np.ones_like(y) if getattr(y, "dtype", None) == np.float64 else None, exact[0])
    for g, truth, a in zip(pull(seeds), exact[1](ones), args, strict=True):
        assert np.asarray(g).dtype == getattr(a, "dtype", np.float64)
        # 1e-7 of round-off, in a hundred operations conditioned by up to 100 (inverses, powers).
        np.testing.assert_allclose(g, truth, rtol=0, atol=1e-3 * max(1.0, np.abs(truth).max()))


@pytest.mark.parametrize(("reason", "expression"), REFUSED)
def test_the_rest_is_refused_and_says_what_to_do(reason, expression):
    f, args = called(expression, VALUES)
    with pytest.raises((TypeError, ValueError, AttributeError)) as raised:
        value, pull = quiet(rv.vjp, f, *args)
        pull(rv.tree.map(np.ones_like, value))
    said = " ".join([str(raised.value), *getattr(raised.value, "__notes__", ())])
    assert any(word in said for word in ("; ", "revode:")), said                 # what is wrong; what to do


@pytest.mark.parametrize("expression", idioms.expressions(idioms.UNSEEN))
def test_what_cannot_be_seen_is_listed_and_no_more(expression):
    """Python's own questions about types: the answer of a tensor is False, where that of a number is True."""
    f, args = called(expression, VALUES)
    assert np.any(f(*args) != 0) and not np.any(rv.vjp(f, *args)[0])

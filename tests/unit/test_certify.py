"""The certificate: a measured error of a gradient, against errors that are known."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

import revode as rv
from revode.certify import Certificate, certificate, chi_square, halved
from tests.compiler import needs_compiler

rng = np.random.default_rng(2)
PARAMS = {"W": 0.5 * rng.standard_normal((3, 3)), "b": rng.standard_normal(3), "n": 4}
Y0, TS = rng.standard_normal((2, 3)), np.linspace(0.0, 1.0, 31)


def loss(p: Any, ts: Any = TS, **options: Any) -> Any:
    def field(t: Any, y: Any, p: Any) -> Any:
        return np.tanh(y @ p["W"]) + p["b"] * np.sin(p["n"] * t)
    return np.sum(rv.solve(field, Y0, ts, p, save=[-1], **options).y1 ** 2)


def off_by(size: float) -> Any:
    """The identity, whose pullback is off by this vector."""
    wrong = np.linspace(-1.0, 1.0, 9).reshape(3, 3)
    wrong = size * wrong / np.sqrt(np.sum(wrong ** 2))
    return rv.custom_vjp(lambda x: (1.0 * x, lambda g: (g + wrong,)), jvp=lambda args, moved: moved[0])


@pytest.mark.parametrize("k", [1, 2, 4, 8, 30])
def test_the_quantile_is_scipys(k: int) -> None:
    assert chi_square(k) == pytest.approx(scipy.stats.chi2.ppf(0.05, k), rel=1e-10)


def test_a_right_gradient_is_at_the_floor_of_rounding() -> None:
    for options in ({}, {"gradient": rv.Direct()}, {"method": rv.ReversibleHeun()}, {"backend": "replay"}):
        value, grads, found = rv.certify(lambda p, o=options: loss(p, **o), PARAMS, probes=4)
        assert value == loss(PARAMS, **options)
        assert grads["n"] is None
        assert found.below < 1e-7 * found.size               # the default's own way back
        assert found.size == pytest.approx(math.sqrt(sum(np.sum(grads[k] ** 2) for k in "Wb")))
    assert "what rounding makes" in str(rv.certify(lambda p: loss(p, gradient=rv.Direct()), PARAMS)[2])


def test_a_known_error_is_found_and_covered() -> None:
    """|g - g_true| = 1e-3: of 200 certificates of 4 probes, 95 % are above it, give or take three standard deviations."""
    wrong, covered, estimates = off_by(1e-3), 0, []
    x = np.eye(3)
    for seed in range(200):
        _, _, found = rv.certify(lambda w: np.sum(np.sin(wrong(w))), x, probes=4, seed=seed)
        covered += found.below >= 1e-3
        estimates.append(found.error ** 2)
        assert found.below > found.floor
    assert abs(covered / 200 - 0.95) < 3 * math.sqrt(0.05 * 0.95 / 200)
    # the mean of 800 squares of normal numbers: 1, give or take three times sqrt(2 / 800)
    assert np.mean(estimates) == pytest.approx(1e-6, rel=3 * math.sqrt(2 / 800))


def test_what_it_is_for() -> None:
    """A sign error in a rule inside the field, and a reverse sweep that has lost its way."""
    bad = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (-g * np.cos(x),)))
    _, grads, found = rv.certify(lambda k: np.sum(rv.solve(lambda t, y, k: k * bad(y), Y0, TS, k, gradient=rv.Direct(),
                                                           method=rv.RungeKutta("rk4")).y1), 0.7, probes=4)
    truth = rv.grad(lambda k: np.sum(rv.solve(lambda t, y, k: k * np.sin(y), Y0, TS, k, gradient=rv.Direct(),
                                              method=rv.RungeKutta("rk4")).y1))(0.7)
    assert found.error > 0.1 * abs(grads - truth) > 100 * found.floor
    assert 3 * found.below >= abs(grads - truth)              # of four numbers all to be 36 times too small: one in 1e6
    with pytest.warns(rv.RevodeWarning):
        _, _, lost = rv.certify(lambda k: np.sum(rv.solve(lambda t, y, k: -k * y, np.ones(3), np.linspace(0, 2, 81), k,
                                                          method=rv.AsynchronousLeapfrog(eta=0.7), gradient=rv.Reversible()).ys), 1.0,
                                  probes=8)
    assert lost.below > 1e-3 * lost.size


def test_leaf_by_leaf() -> None:
    wrong = off_by(1e-6)
    _, _, found = rv.certify(lambda p: 1e3 * np.sum(p["b"] ** 2) + np.sum(np.sin(wrong(p["W"]))), PARAMS, probes=8, leaves=True)
    assert found.leaves is not None
    assert set(found.leaves) == {"['W']", "['b']"}
    assert 1e-6 / 3 < found.leaves["['W']"].error < 3e-6
    assert found.leaves["['b']"].below <= found.leaves["['b']"].floor
    assert "['W']: error about" in str(found)


def test_steps_half_as_long() -> None:
    _, grads, found = rv.certify(lambda p, ts: loss(p, ts, method=rv.RungeKutta("euler"), gradient=rv.Direct()), PARAMS, ts=TS,
                                 refine=True)
    fine = rv.grad(lambda p: loss(p, halved(TS), method=rv.RungeKutta("euler"), gradient=rv.Direct()))(PARAMS)
    assert found.refined == pytest.approx(math.sqrt(sum(np.sum((grads[k] - fine[k]) ** 2) for k in "Wb")))
    assert "half as long" in str(found)
    assert halved([1.0, 0.0]).tolist() == [1.0, 0.5, 0.0]


def test_what_is_refused_and_how_it_reads() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        rv.certify(loss, PARAMS, probes=0)
    with pytest.raises(ValueError, match="pass ts="):
        rv.certify(loss, PARAMS, refine=True)
    text = str(certificate([3e-4, -4e-4], 2.0, 1e-15))
    assert text == "error about 3.5e-04 (1.8e-04 of the gradient), below 1.6e-03 with 95 %"
    assert Certificate(0.0, 0.0, 0.0, 0.0, 1).sentence() == "error below 0.0e+00, what rounding makes"


def test_inside_a_training_step() -> None:
    """Reversible(certify=k): each gradient of a solve, for the cotangent that comes in."""
    found = []

    def of(p: Any, mode: Any, method: Any = None, ts: Any = TS, bad: bool = False) -> Any:
        sine = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (-g * np.cos(x),))) if bad else np.sin
        sol = rv.solve(lambda t, y, p: sine(y @ p["W"]) + p["b"], Y0, ts, p, gradient=mode, method=method)
        found.append(sol.stats)
        return np.sum(sol.ys ** 2)

    for k in (1, 3):
        rv.grad(lambda p, k=k: of(p, rv.Reversible(certify=k)))(PARAMS)
        assert found[-1].certificate.probes == k
        assert found[-1].certificate.below < 1e-6 * found[-1].certificate.size
    with pytest.warns(rv.ReconstructionWarning, match="measured along random directions"):
        rv.grad(lambda p: of(p, rv.Reversible(certify=4), bad=True))(PARAMS)
    with pytest.raises(ValueError, match="number of random directions"):
        rv.Reversible(certify=-1)
    exact = rv.grad(lambda p: np.sum(rv.solve(lambda t, y, p: np.tanh(y @ p["W"]), Y0, TS, p, method=rv.Coupled(lam=0.9), exact=True,
                                              gradient=rv.Reversible(certify=2)).y1))(PARAMS)
    assert np.all(np.isfinite(exact["W"]))


@needs_compiler
def test_a_certificate_by_programs() -> None:
    def of(p: Any) -> Any:
        return loss(p, np.linspace(0.0, 1.0, 301), backend="native", method=rv.Coupled("midpoint"), gradient=rv.Reversible())
    _, _, by_tape = rv.certify(of, PARAMS, probes=2)
    _, _, by_program = rv.certify(of, PARAMS, probes=2, compiled=True)
    assert max(by_tape.below, by_program.below) < 1e-10 * by_tape.size

"""The advisor: predictions against measurement, its recommendations carried out, and the failure cases made visible.

A prediction propagates samples of the rounding and a measurement is another sample: for one dominant direction their ratio is
that of two normal numbers, which passes 10 now and then. A batch of nearby trajectories, whose largest error is measured,
makes that rare; a factor of 10 is what is promised.
"""
import math
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

import revode as rv
from revode.advise import Trial, advise, coupling, partings
from revode.analysis import limit


def pendulum(t, y, p):
    return np.stack([y[..., 1], -p["g"] * np.sin(y[..., 0])], -1)


def vanderpol(t, y, p):
    return np.stack([y[..., 1], p["mu"] * (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]], -1)


def lorenz(t, y, p):
    x, v, z = y[..., 0], y[..., 1], y[..., 2]
    return np.stack([p["s"] * (v - x), x * (p["r"] - z) - v, x * v - p["b"] * z], -1)


def decay(t, y, p):
    return -p["a"] * y


PROBLEMS = {       # field, y0, params, h
    "pendulum": (pendulum, [1.0, 0.5], {"g": 1.0}, 0.01),
    "van der Pol": (vanderpol, [2.0, 0.0], {"mu": 1.0}, 0.01),
    "Lorenz": (lorenz, [-5.0, -7.0, 20.0], {"s": 10.0, "r": 28.0, "b": 8 / 3}, 0.001),
    "decay": (decay, [1.0], {"a": 1.0}, 0.01),
    "fast decay": (decay, [1.0], {"a": 5.0}, 0.003),
    "growth": (decay, [1.0], {"a": -0.5}, 0.01),
}


def problem(name, N, batch=None):
    """Arguments of solve; with a batch, so many trajectories that start within a percent of each other."""
    field, y0, params, h = PROBLEMS[name]
    y0 = np.array(y0) if batch is None else np.array(y0) * np.linspace(1, 1.01, batch)[:, None]
    return field, y0, h * np.arange(N + 1), params


def gradients(args, method, gradient):
    """((dL/dy0, dL/dparams), stats) of the squared end point."""
    field, y0, ts, params = args

    def loss(y0, params):
        sol = rv.solve(field, y0, ts, params, method=method, gradient=gradient)
        return np.sum(sol.y1**2), sol

    (_, sol), grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    return grads, sol.stats


def measured(args, method, resync=None):
    """The round trip of a gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.RevodeWarning)       # rows with a large error warn, as they should
        return gradients(args, method, rv.Reversible(resync=resync))[1].roundtrip.absolute


def coupled(lam, base="midpoint"):
    return rv.Coupled(base, lam)


TABLE = [          # each problem and each kind of method
    ("pendulum", 1000, coupled(0.99, "rk4")),
    ("pendulum", 1000, rv.AsynchronousLeapfrog(eta=0.99)),
    ("pendulum", 1000, rv.ReversibleHeun()),
    ("pendulum", 1000, rv.EES25()),
    ("van der Pol", 600, coupled(math.exp(-0.02))),
    ("Lorenz", 1000, coupled(0.98)),
    ("decay", 200, coupled(0.999)),
    ("decay", 1000, rv.NearReversible("rk4")),
    ("growth", 500, coupled(0.999)),
]
MORE = [
    ("pendulum", 1000, coupled(0.999)),
    ("pendulum", 1000, coupled(0.99)),
    ("pendulum", 2500, coupled(0.99)),
    ("pendulum", 1000, rv.AsynchronousLeapfrog()),
    ("van der Pol", 1000, coupled(math.exp(-0.02))),
    ("Lorenz", 1200, coupled(0.985)),
    ("decay", 1000, coupled(0.98)),
    ("fast decay", 1000, coupled(0.98)),
]


@pytest.mark.sample(4, cover=False)
@pytest.mark.parametrize("name, N, method", [*TABLE, *(pytest.param(*row, marks=pytest.mark.long) for row in MORE)],
                         ids=lambda x: str(x))
def test_predictions_within_a_factor_of_ten(name, N, method):
    args = problem(name, N, batch=6)
    advice = advise(*args, method=method)
    assert advice.suits and not advice.diverges
    found = measured(args, method)
    print(f"{name:12s} {N:5d} {method!r:42s} predicted {advice.roundtrip:.2e}  measured {found:.2e}  "
          f"ratio {advice.roundtrip / found:.2f}")
    assert found / 10 < advice.roundtrip < found * 10


def test_round_off_that_merely_adds_up_is_not_underestimated():
    # No growth here, so many directions count and the largest of 20 trajectories hardly scatters. Without the half unit in
    # the last place that each step undone adds, the mean ratio is .3: on the trajectory itself most steps are undone exactly.
    args = problem("pendulum", 300, batch=20)
    methods = coupled(0.999), rv.ReversibleHeun(), rv.AsynchronousLeapfrog()
    ratios = [advise(*args, method=method).roundtrip / measured(args, method) for method in methods]
    assert 0.7 < np.prod(ratios) ** (1 / 3) < 5


# ------------------------------------------------------------------------------------------------ failure cases


@pytest.mark.parametrize("lam", [1.0, 0.999, 0.99])
def test_van_der_pol_diverges_with_a_coupling_near_one(lam):
    with pytest.warns(rv.ParasiteWarning, match="two copies of the solution"), pytest.raises(
            FloatingPointError, match="no longer finite"):
        rv.solve(*problem("van der Pol", 2000), method=coupled(lam))


@pytest.mark.long
def test_van_der_pol_is_told():
    advice = advise(*problem("van der Pol", 2000), method=coupled(0.99))
    # exp(-2 h), which works, is below the threshold, and .99 is not.
    assert not advice.suits and not advice.ok and math.exp(-0.02) < advice.lam_below < 0.99
    assert advice.diverges and "does not suit" in str(advice) and "until they overflow" in str(advice)
    assert advice.recommended.lam < advice.lam_below and advice.resync is not None


@pytest.mark.long
def test_van_der_pol_works_with_lam_exp_minus_2h_and_resync():
    args = problem("van der Pol", 1200)
    method = coupled(math.exp(-0.02))
    grads, stats = gradients(args, method, rv.Reversible(resync=200))
    # METHODS: 1e-12. In 200 steps lam^-200 = 55 / (1 - lam) = 50 units of round-off of |y| < 3, with room for the rates.
    assert stats.roundtrip.absolute < 1e-12
    exact, _ = gradients(args, method, rv.Direct())
    for g, e in ((grads[0], exact[0]), (grads[1]["mu"], exact[1]["mu"])):
        # The error of a state enters a gradient through the second derivative of the flow, of order |y|, T e^(rate T) here.
        assert_allclose(g, e, rtol=1e-9, atol=1e-9 * np.max(abs(exact[0])))
    # Without resync the digits run out: by t = 20 none is left, and the gradient says so.
    with pytest.warns(rv.ReconstructionWarning, match="the reverse sweep"):
        gradients(problem("van der Pol", 2000), method, rv.Reversible())
    advice = advise(*args, method=method)
    assert advice.suits and not advice.ok and advice.roundtrip > 1e-4


@pytest.mark.long
def test_lorenz_needs_a_coupling_below_its_contraction():
    # The Lyapunov exponents .906, 0, -14.57 sum to the divergence -(10 + 1 + 8/3) of the field, so over a stretch of time
    # the strongest contraction is 13.67 + the expansion then; over T = 10 that is 14.57 within about .7.
    args = problem("Lorenz", 10_000)
    trial = Trial(*args, coupled(0.98))
    contraction = trial.contracting.sum() / 10
    assert abs(contraction - 14.57) < 0.7
    threshold = math.exp(-0.001 * contraction)
    assert abs(threshold - 0.98554) < 7e-4 and 0.98 < threshold < 0.99
    assert partings(trial.contracting, -math.log(0.98)) < 10
    assert partings(trial.contracting, -math.log(0.99)) > 1e10
    sol = rv.solve(*args, method=coupled(0.98), save=[-1])
    assert np.max(abs(sol.state.parts["y"] - sol.state.parts["z"])) < 1e-4
    with pytest.warns(rv.ParasiteWarning, match="two copies"), pytest.raises(FloatingPointError):
        rv.solve(*args, method=coupled(0.99), save=[-1])


# ---------------------------------------------------------------------------------------------- recommendations


@pytest.mark.sample(1)
@pytest.mark.parametrize("name, N, method", [
    ("van der Pol", 1200, coupled(0.98)),
    pytest.param("Lorenz", 1500, coupled(0.99), marks=pytest.mark.long),
    pytest.param("pendulum", 1200, coupled(0.98), marks=pytest.mark.long),
    pytest.param("fast decay", 2000, rv.ReversibleHeun(), marks=pytest.mark.long),
    ("pendulum", 1000, rv.AsynchronousLeapfrog(eta=0.98)),
], ids=lambda x: str(x))
def test_what_is_recommended_works(name, N, method):
    args = problem(name, N)
    advice = advise(*args, method=method)
    assert not advice.ok and "better" in str(advice)
    with warnings.catch_warnings():
        warnings.simplefilter("error")              # no warning: the copies stay, and sqrt(eps) is kept
        _, stats = gradients(args, advice.recommended, rv.Reversible(resync=advice.resync))
    assert stats.roundtrip.absolute < 10 * advice.recommended_roundtrip < advice.tol * 10 * advice.scale


@pytest.mark.long
def test_recommendations_hold_on():
    # Asked about what it recommended, the advisor agrees where no resync is needed.
    args = problem("pendulum", 1200)
    first = advise(*args, method=coupled(0.98))
    again = advise(*args, method=first.recommended)
    assert first.resync is None and again.ok and again.recommended == first.recommended


@pytest.mark.long
def test_tol_is_what_decides():
    args = problem("pendulum", 1000)
    assert advise(*args, method=coupled(0.99)).ok
    strict = advise(*args, method=coupled(0.99), tol=1e-13)
    assert strict.suits and not strict.ok and strict.recommended.lam > 0.99
    assert measured(args, strict.recommended, strict.resync) <= 1e-13 * strict.scale


@pytest.mark.parametrize("a", [0.5, 2.0, 8.0])
def test_coupling_of_a_decay_is_below_the_limit_of_the_method(a):
    ts = np.linspace(0.0, 20.0, 2001)
    lam = coupling(decay, np.array([1.0]), ts, {"a": a})
    # 1.1 times the rate, rounded down to three figures of 1 - lam; the midpoint rule's own rate is a (1 - (a h)^2 / 6).
    assert 1.1 * a * (1 - (a * 0.01) ** 2) <= -math.log(lam) / 0.01 < 1.1 * a * 1.01
    assert 0.01 * a < limit(rv.Coupled("midpoint", lam)) < 1.2 * 0.01 * a


def test_lam_auto_is_the_coupling():
    args = problem("decay", 500)
    lam = coupling(*args)
    advice = advise(*args, method=rv.Coupled("midpoint", lam="auto"))
    assert advice.ok and advice.method == coupled(lam)
    auto = rv.solve(*args, method=rv.Coupled("midpoint", lam="auto"))
    assert np.array_equal(auto.y1, rv.solve(*args, method=coupled(lam)).y1)


@pytest.mark.long
def test_coupling_without_contraction_costs_a_digit_at_the_most():
    for N in (100, 20_000):
        lam = coupling(decay, np.array([1.0]), np.linspace(0.0, 1.0, N + 1), {"a": -1.0})
        assert 1.001e-3 > 1 - lam > 0 and lam**-N < 10.24        # 10^1.01: up to 1 % of 1 - lam is rounding to three figures


def test_coupling_on_a_grid_of_uneven_steps_bears_the_largest():
    ts = np.concatenate([np.linspace(0, 5, 1001), np.linspace(5, 10, 101)[1:]])       # h = .005, then .05
    lam = coupling(decay, np.array([1.0]), ts, {"a": 1.0})
    # 100 steps at rate .05 - kappa may part the copies tenfold: kappa >= .05 - log(10)/100 = .027.
    assert 0.026 < -math.log(lam) < 0.05


def test_partings_are_the_worst_stretch():
    rates = np.array([1.0, -5.0, 2.0, -0.5, 2.0, -9.0])
    assert_allclose(math.log(partings(rates, 0.0)), 3.5)
    assert_allclose(math.log(partings(rates, 1.0)), 1.0)          # 2 - 1 alone: -.5 - 1 + 1 more is less
    assert partings(rates, 9.0) == 1.0
    assert partings(np.full(1000, 1.0), 0.0) == math.inf


# ----------------------------------------------------------------------------------------------- what it accepts


def test_rates_of_a_linear_system():
    # Eigenvalues -3 and 1, not orthogonal. The midpoint rule's R(z) is e^z (1 - z^3/6), so rates are off by a^3 h^2 / 6; the
    # first steps turn the perturbation, which costs log(|w|)/T of order 1 / 8.
    A = np.array([[-3.0, 4.0], [0.0, 1.0]])
    ts = np.linspace(0.0, 8.0, 1601)
    advice = advise(lambda t, y, p: y @ p["A"].T, np.array([1.0, 1.0]), ts, {"A": A}, method=coupled(0.98))
    assert_allclose([advice.contraction, advice.expansion], [3.0, 1.0], atol=0.2)
    assert_allclose(advice.lam_below, math.exp(-advice.contraction * 0.005), rtol=1e-12)
    assert advice.steps == 1600 and advice.h == pytest.approx(0.005)


def test_time_may_run_backwards():
    ts = np.linspace(0.0, 5.0, 501)
    forth = advise(decay, np.array([1.0]), ts, {"a": 1.0}, method=coupled(0.98))
    back = advise(decay, np.array([1.0]), -ts, {"a": -1.0}, method=coupled(0.98))
    assert_allclose([back.contraction, back.roundtrip], [forth.contraction, forth.roundtrip], rtol=1e-6)
    assert_allclose(forth.contraction, 1.0, rtol=1e-4)


def test_float32_and_batches():
    y0 = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
    args = (pendulum, y0, np.linspace(0.0, 5.0, 501), {"g": 1.0})
    advice = advise(*args, method=coupled(0.99))
    found = measured(args, coupled(0.99))
    assert found / 10 < advice.roundtrip < 10 * found and found > 1e-7
    assert advice.tol == pytest.approx(np.finfo(np.float32).eps ** 0.5)


def test_trees_and_split_methods():
    ts = np.linspace(0.0, 5.0, 501)
    flat = advise(lambda t, y, p: np.stack([y[1], -y[0]]), np.array([1.0, 0.0]), ts, method=coupled(0.99))
    tree = advise(lambda t, y, p: {"q": y["v"], "v": -y["q"]}, {"q": np.ones(1), "v": np.zeros(1)}, ts, method=coupled(0.99))
    assert_allclose(tree.roundtrip, flat.roundtrip, rtol=1e-9)
    split = advise(lambda t, q, p: -np.sin(q), (np.ones(2), np.zeros(2)), ts, method=rv.VelocityVerlet())
    assert split.ok and split.roundtrip < 1e-13 and math.isnan(split.contraction) and "rates" not in str(split)


def test_the_report_can_be_read():
    text = str(advise(*problem("decay", 1000), method=coupled(0.999)))
    assert "from -1 to -1 on average" in text and "does not suit" in text and "lam < 0.99005" in text
    assert "method=Coupled(base='midpoint', lam=0.989)" in text and "Reversible()" in text
    assert "use it as it is" in str(advise(*problem("pendulum", 500)))
    follows = str(advise(*problem("decay", 1000), method=rv.AsynchronousLeapfrog()))
    assert "follows contraction up to 0" in follows and "does not suit" in follows
    assert "all digits are lost" in str(advise(*problem("van der Pol", 800), method=coupled(0.94)))


def test_the_callers_arrays_are_left_alone():
    field, y0, ts, params = problem("pendulum", 50)
    advise(field, y0, ts, params)
    y0[0] = 2.0                                   # still writeable
    assert y0.tolist() == [2.0, 0.5]


def test_bad_input():
    with pytest.raises(TypeError, match=r"cannot be run backwards; ask about Coupled\('rk4'\)"):
        advise(*problem("decay", 10), method=rv.RungeKutta("rk4"))
    with pytest.raises(FloatingPointError, match=r"trial solve with .* is no longer finite at step"):
        advise(lambda t, y, p: y * y, np.array([1.0]), np.linspace(0.0, 5.0, 101))
    with pytest.raises(ValueError, match="ts"):
        advise(decay, np.array([1.0]), [0.0], {"a": 1.0})
    with pytest.raises(ValueError, match="tol=0"):
        advise(*problem("decay", 10), tol=0)

"""Adaptive steps: the error estimates, the controller against a literal loop, and the gradient on the accepted grid.

`eps` is 2^-53. The accepted grid is data: replayed as a fixed grid it gives the same bits, forward and back, so every
promise about fixed grids holds for it.
"""
import re
import tracemalloc
import warnings
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import revode as rv
from reference.oracles import adaptive as A
from reference.oracles import ees as E
from reference.oracles import loops as L
from reference.oracles import tableaux as T
from revode.methods.increment import Evaluator, System
from revode.methods.shears import Step
from revode.stepping import Stats
from tests.method_cases import distance, make_params, plain_field

EPS = 2.0**-53
with_euler = lambda tableau: tableau._replace(bhat=(Fraction(1), Fraction(0)))     # the embedded method of two stages
PAIRS = {**T.TABLEAUX, "midpoint": with_euler(T.midpoint), "heun2": with_euler(T.heun2)}
EMBEDDED = {"midpoint": 2, "heun2": 2, "bosh3": 3, "dopri5": 5, "tsit5": 5}       # the power of h of each error estimate
METHODS = {
    **{f"rk-{base}": (rv.RungeKutta(base), q) for base, q in EMBEDDED.items()},
    **{f"coupled-{base}": (rv.Coupled(base, lam=0.99), q) for base, q in EMBEDDED.items()},
    "near-bosh3": (rv.NearReversible("bosh3"), 3), "reversible-heun": (rv.ReversibleHeun(), 2), "EES25": (rv.EES25(), 3),
}
SOME = ["rk-bosh3", "rk-dopri5", "coupled-midpoint", "coupled-bosh3", "reversible-heun", "EES25", "near-bosh3"]


def van_der_pol(t, y, p):
    """With a push in time, so that wrong stage times show. y (..., 2)."""
    x, v = y[..., 0], y[..., 1]
    return np.stack([v, p["mu"] * (1 - x * x) * v - x + p["a"] * np.cos(2 * t)], axis=-1)


# mu is small enough for the coupled pair to follow the contraction (rate mu (x^2 - 1) up to 1.5) over the times below.
VDP = {"mu": np.array(0.5), "a": np.array(0.3)}
Y0 = np.array([1.2, 0.4])
LONG_FIRST = {"dt0": 1.4}             # a first step that is far too long, so that there are rejections


def gradient(method, mode, p=VDP, y0=Y0, f=van_der_pol, span=(0.2, 3.0), fixed=None, **options):
    """Of a loss that looks at every returned state: ((dL/dy0, dL/dparams), solution)."""
    def loss(x):
        sol = rv.solve(f, x[0], span if fixed is None else fixed, x[1], method=method, gradient=mode, **options)
        return np.sum(np.sin(sol.ys)) + np.sum(sol.y1 * sol.y1), sol
    (_, sol), grads = rv.value_and_grad(loss, has_aux=True)((y0, p))
    return grads, sol


# -------------------------------------------------------------------------------------------------- error estimates

@pytest.mark.parametrize("name", METHODS)
def test_error_estimates_fall_with_the_stated_power(name):
    method, q = METHODS[name]
    assert method.error_order == q
    p, y = make_params(), np.array([0.4, -1.0, 0.2])
    sizes, hs = [], 2.0 ** -np.arange(3, 7)
    for h in hs:
        F = Evaluator(System(plain_field, Stats()), p)
        step = Step(0.3, 0.3 + h, np.asarray(h), np.asarray(h))
        parts = method.start(F, step, y)
        after, error = method.attempt(step, parts, F)
        assert set(after) == set(parts)
        sizes.append(np.linalg.norm(error))
    slope = np.polyfit(np.log(hs), np.log(sizes), 1)[0]
    assert abs(slope - q) < 0.3, slope              # the next term of the expansion is of relative size q h, h <= 1/8
    assert sizes[-1] > 100 * EPS                    # and none of them is round-off


@pytest.mark.parametrize("name", ["rk-bosh3", "rk-dopri5", "rk-tsit5", "rk-heun2", "coupled-bosh3"])
def test_error_estimates_are_errors(name):
    """The estimate is the error of the embedded method, which the true one confirms: within half of itself at h = 1/32,
    where the next term, and the error of the better method of the pair, are a tenth of it."""
    method, _ = METHODS[name]
    p, y, h = make_params(), np.array([0.4, -1.0, 0.2]), 2.0**-5
    F = Evaluator(System(plain_field, Stats()), p)
    # The second call of Coupled runs from y' back to t0: its own error, seen at t0.
    t0, t1 = (0.3 + h, 0.3) if name.startswith("coupled") else (0.3, 0.3 + h)
    if name.startswith("coupled"):
        step = Step(0.3, 0.3 + h, np.asarray(h), np.asarray(h))
        after, error = method.attempt(step, {"y": y, "z": y}, F)
        y = after["y"]
    else:
        _, error = method.attempt(Step(t0, t1, np.asarray(h), np.asarray(h)), {"y": y}, F)
    tableau = T.numbers(PAIRS[name.split("-")[1]], float)
    embedded = tableau._replace(b=tableau.bhat)
    literal = y + L.Psi(plain_field, t0, t1 - t0, y, p, embedded)
    true = rv.solve(plain_field, y, np.linspace(t0, t1, 9), p, method=rv.RungeKutta("dopri5")).y1 - literal
    assert np.linalg.norm(error - true) < 0.5 * np.linalg.norm(true)


# --------------------------------------------------------------------------------------- against the literal loop, in bits

def swing(t, y, p=None):
    """-0.8 y^2 cos(2 t) + y/5, with + - * / and one cosine; the same bits from a float and from an array of one entry."""
    return -0.8 * y * y * np.cos(2.0 * t) + 0.2 * y


QUARTER = rv.EES25()
LITERAL = {
    "rk-bosh3": (rv.RungeKutta("bosh3"), A.runge_kutta(PAIRS["bosh3"]), 3, 1),
    "rk-heun2": (rv.RungeKutta("heun2"), A.runge_kutta(PAIRS["heun2"]), 2, 1),
    "rk-dopri5": (rv.RungeKutta("dopri5"), A.runge_kutta(PAIRS["dopri5"]), 5, 1),
    "coupled-bosh3": (rv.Coupled("bosh3", lam=0.99), A.coupled(PAIRS["bosh3"], 0.99), 3, 2),
    "coupled-midpoint": (rv.Coupled("midpoint", lam=0.999), A.coupled(PAIRS["midpoint"], 0.999), 2, 2),
    "reversible-heun": (rv.ReversibleHeun(), A.reversible_heun, 2, 2),
    "EES25": (QUARTER, A.low_storage(QUARTER.A, QUARTER.B, QUARTER.c, QUARTER.error_weights), 3, 1),
}
CONTROLLERS = {"I": {}, "PI": {"p": 0.4, "i": 0.3}, "PID": {"p": 0.2, "i": 0.3, "d": 0.1},
               "tame": {"safety": 0.8, "shrink": 0.5, "grow": 2.0, "max_step": 0.3}}


@pytest.mark.sample(30)
@pytest.mark.parametrize("way", ["plain", "dt0", "stops", "backwards"])
@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("name", LITERAL)
def test_the_grid_is_that_of_the_literal_loop(name, controller, way):
    method, step, q, copies = LITERAL[name]
    t0, t1 = (2.5, 0.1) if way == "backwards" else (0.1, 2.5)
    dt0 = 1.5 if way == "dt0" else None
    stops = (0.1, 0.1001, 0.7, 1.9) if way == "stops" else ()
    y0 = 0.9
    options = CONTROLLERS[controller]
    ts, states, rejected = A.pid(step, lambda t, y: float(swing(t, y)), (y0,) * copies, t0, t1, q, 1e-4, 1e-6, h=dt0,
                                 stops=stops, **options)
    sol = rv.solve(swing, np.array([y0]), (t0, t1), method=method, dt0=dt0, save_at=stops or None,
                   controller=rv.PID(1e-4, 1e-6, **options))
    found = [t for t, _ in rv.steps(swing, np.array([y0]), (t0, t1), method=method, dt0=dt0,
                                    controller=rv.PID(1e-4, 1e-6, **options))] if way != "stops" else ts
    assert found == ts
    assert sol.stats.steps == len(ts) - 1 and sol.stats.rejected == rejected
    assert rejected > 0 or way != "dt0" or controller == "tame"
    by_time = dict(zip(ts, states, strict=True))
    want = list(stops) or ts
    assert sol.ts.tolist() == want
    assert sol.ys[:, 0].tolist() == [by_time[t][0] for t in want]
    assert sol.y1[0] == states[-1][0] and sol.state.t == t1
    if "max_step" in options:
        assert abs(np.diff(ts)).max() <= 0.3 * (1 + 1e-4) + 4 * EPS        # the last .01 % before a stop are taken along


def test_the_norm_is_the_root_mean_square_over_all_entries():
    """Two uncoupled copies of one equation have the error norm of one, so the same grid; a copy at rest halves its square."""
    controller, method = rv.PID(1e-4, 1e-6), rv.RungeKutta("bosh3")
    one = rv.solve(swing, np.array([0.9]), (0.1, 2.5), method=method, controller=controller, dt0=0.1)
    two = rv.solve(swing, np.array([[0.9], [0.9]]), (0.1, 2.5), method=method, controller=controller, dt0=0.1)
    assert np.array_equal(one.ts, two.ts)
    looser = rv.PID(1e-4 * 2**0.5, 1e-6 * 2**0.5)
    rest = rv.solve(swing, np.array([0.9, 0.0]), (0.1, 2.5), method=method, controller=controller, dt0=0.1)
    loose = rv.solve(swing, np.array([0.9]), (0.1, 2.5), method=method, controller=looser, dt0=0.1)
    assert rest.stats.steps == loose.stats.steps
    assert np.allclose(rest.ts, loose.ts, rtol=1e-12, atol=0)          # sqrt(2) is rounded; it enters with powers below 1


@pytest.mark.filterwarnings("ignore::revode.ParasiteWarning")      # van der Pol contracts; here two grids are compared
def test_a_batch_shares_its_steps():
    controller, method = rv.PID(1e-5, 1e-7), rv.Coupled("bosh3")
    y0 = np.stack([Y0, -2 * Y0, [0.0, 3.0]])
    sol = rv.solve(van_der_pol, y0, (0.0, 3.0), VDP, method=method, controller=controller)
    assert sol.ts.shape == (sol.stats.steps + 1,) and sol.ys.shape == (sol.stats.steps + 1, 3, 2)
    for k in range(3):                                  # every member is the plain solve on the shared grid
        alone = rv.solve(van_der_pol, y0[k], sol.ts, VDP, method=method)
        assert np.array_equal(alone.ys, sol.ys[:, k])


# ------------------------------------------------------------------------------------------------------ against SciPy

@pytest.mark.parametrize("base, outside", [("bosh3", "RK23"), ("dopri5", "RK45")])
@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
def test_accuracy_of_scipy_at_equal_tolerances(base, outside, rtol):
    f = lambda t, y: van_der_pol(t, y, VDP)
    true = solve_ivp(f, (0, 10), Y0, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    theirs = solve_ivp(f, (0, 10), Y0, method=outside, rtol=rtol, atol=rtol * 1e-2)
    ours = rv.solve(van_der_pol, Y0, (0.0, 10.0), VDP, method=rv.RungeKutta(base), save=[-1],
                    controller=rv.PID(rtol, rtol * 1e-2))
    error, their_error = abs(ours.y1 - true).max(), abs(theirs.y[:, -1] - true).max()
    # The pair, the norm, safety, shrink and grow are the same; the exponent after a rejection and the steps near t1 differ.
    assert error < 3 * their_error + 1e-12
    assert ours.stats.steps < 1.1 * (len(theirs.t) - 1) + 3
    assert error < 300 * rtol                           # SciPy's own errors are up to 100 rtol on this problem


@pytest.mark.sample(3)
@pytest.mark.parametrize("name, power", [("rk-bosh3", 1), ("rk-dopri5", 1), ("rk-midpoint", 1), ("coupled-bosh3", 1),
                                         ("reversible-heun", 1), ("EES25", 2 / 3)])
def test_tolerance_proportionality(name, power):
    """A local estimate C h^q = tol gives a global error of tol^(order/q): order = q for all pairs, which go on with the
    better method; 2/3 for EES25, whose estimate is of the method itself."""
    method, q = METHODS[name]
    assert power == method.order / q
    true = solve_ivp(lambda t, y: van_der_pol(t, y, VDP), (0, 3), Y0, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    tols = 10.0 ** -np.arange(3, 8)
    errors = [abs(rv.solve(van_der_pol, Y0, (0.0, 3.0), VDP, method=method, controller=rv.PID(tol, tol), save=[-1]).y1
                  - true).max() for tol in tols]
    slope = np.polyfit(np.log(tols), np.log(errors), 1)[0]
    assert abs(slope - power) < 0.25, (slope, errors)          # over four decades, with the scatter of step selection
    assert all(error < 50 * tol ** power for error, tol in zip(errors, tols, strict=True))


# ------------------------------------------------------------------------------------------------------- replay, gradients

@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=lambda d: d.__name__)
@pytest.mark.parametrize("span", [(0.2, 3.0), (3.0, 0.2)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", SOME)
def test_replay_in_bits(name, span, dtype):
    """The accepted grid as a fixed grid: the same ys and, mode by mode, the same gradients, whatever was rejected."""
    method = METHODS[name][0]
    tol = 1e-3 if METHODS[name][1] == 2 else 1e-5             # a hundred steps or so
    p, y0 = {k: v.astype(dtype) for k, v in VDP.items()}, Y0.astype(dtype)
    for mode in (rv.Direct(), rv.Reversible(tol=1e9), rv.Reversible(resync=5, tol=1e9), rv.Checkpointed(4), rv.Backsolve()):
        if isinstance(mode, rv.Reversible) and name.startswith("rk"):
            continue
        grads, sol = gradient(method, mode, p, y0, span=span, controller=rv.PID(tol, tol), **LONG_FIRST)
        assert sol.stats.rejected > 0
        assert sol.ts.dtype == np.float64 and sol.ys.dtype == dtype and sol.ts[[0, -1]].tolist() == list(span)
        again, fixed = gradient(method, mode, p, y0, fixed=sol.ts)
        assert np.array_equal(sol.ys, fixed.ys) and np.array_equal(sol.y1, fixed.y1)
        for a, b in zip(rv.tree.flatten(grads)[0], rv.tree.flatten(again)[0], strict=True):
            assert a.dtype == dtype and np.array_equal(a, b), mode


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", SOME)
def test_gradient_modes(name):
    method = METHODS[name][0]
    tol = {"EES25": 1e-7, "near-bosh3": 1e-7}.get(name, 1e-3 if METHODS[name][1] == 2 else 1e-5)
    controller = rv.PID(tol, tol)
    direct, sol = gradient(method, rv.Direct(), controller=controller, **LONG_FIRST)
    N = sol.stats.steps
    assert sol.stats.rejected > 0
    online, _ = gradient(method, rv.Checkpointed(3), controller=controller, **LONG_FIRST)
    # The same pullbacks, one step at a time: other orders of summation only. N steps of up to 14 stages of 20 operations,
    # whose errors grow like the gradient itself.
    assert distance(online[0], direct[0]) < N * 300 * EPS and distance(online[1], direct[1]) < N * 300 * EPS
    if not name.startswith("rk"):
        # Reconstruction: round-off times lam^-N = .99^-N and e^(1.5 * 2.8) for Coupled (N <= 300); the defects of EES25,
        # h^6, are far below its error, h^3; those of bosh3 run backwards, h^4, are its error.
        off = 1e-5 if name == "near-bosh3" else 1e-8
        for mode, allowed in ((rv.Reversible(), off), (rv.Reversible(resync=5), off), (rv.Reversible(resync=1), 1e-11)):
            near, sol = gradient(method, mode, controller=controller, **LONG_FIRST)
            assert sol.stats.steps == N
            assert distance(near[0], direct[0]) < allowed and distance(near[1], direct[1]) < allowed, mode
    # Backsolve is the gradient of the equation, not of the discrete solve: both are off by a few hundred tolerances.
    back, _ = gradient(method, rv.Backsolve(), controller=controller, save=[-1], **LONG_FIRST)
    end, _ = gradient(method, rv.Direct(), controller=controller, save=[-1], **LONG_FIRST)
    assert 1e-12 < distance(back, end) < 5e-3


def test_the_gradient_is_that_of_the_frozen_grid():
    """Differences of the replayed solve on mpmath numbers, and not of the program with its step sizes."""
    sol = rv.solve(swing, np.array([0.9]), (0.1, 2.5), method=rv.RungeKutta("bosh3"), controller=rv.PID(1e-3, 1e-3), dt0=1.5)
    got = rv.grad(lambda y0: rv.solve(swing, y0, (0.1, 2.5), method=rv.RungeKutta("bosh3"), controller=rv.PID(1e-3, 1e-3),
                                      dt0=1.5).y1[0])(np.array([0.9]))[0]
    with mpmath.workdps(60):
        f = lambda t, y: -mpmath.mpf(0.8) * y * y * mpmath.cos(2 * t) + mpmath.mpf(0.2) * y
        b = T.numbers(T.bosh3, mpmath.mpf)

        def end(y):
            for t, t1 in zip(sol.ts[:-1], sol.ts[1:], strict=True):
                K = []
                for row, c in zip(b.A, b.c, strict=True):
                    at = y + sum((a * k for a, k in zip(row, K, strict=False)), mpmath.mpf(0))
                    K.append(f(mpmath.mpf(t) + c * mpmath.mpf(t1 - t), at) * mpmath.mpf(t1 - t))
                y = y + sum(w * k for w, k in zip(b.b, K, strict=True))
            return y
        d = mpmath.mpf(10) ** -20
        exact = (end(mpmath.mpf(0.9) + d) - end(mpmath.mpf(0.9) - d)) / (2 * d)
    assert abs(got - exact) < 200 * EPS * abs(exact)              # a dozen steps of 4 stages and 4 operations


@pytest.mark.parametrize("name", SOME)
def test_rejected_steps_leave_no_trace(name):
    """A first step into a region where the field overflows or is NaN: it is rejected, and the gradient knows nothing of it."""
    def wild(t, y, p):
        return -p["k"] * np.sqrt(y) * (1 + 0 * t)          # NaN once a stage is below zero

    p, y0 = {"k": np.array(1.0)}, np.array([1.0, 0.5])
    method = METHODS[name][0]
    modes = [rv.Direct(), rv.Checkpointed(2)] + ([] if name.startswith("rk") else [rv.Reversible()])
    for mode in modes:
        grads, sol = gradient(method, mode, p, y0, wild, (0.0, 0.5), controller=rv.PID(1e-6, 1e-6), dt0=100.0, save_at=[0.5])
        quiet, _ = gradient(method, mode, p, y0, wild, (0.0, 0.5), controller=rv.PID(1e-6, 1e-6), dt0=1e-3, save_at=[0.5])
        assert sol.stats.rejected > 0
        # y = (sqrt(y0) - k t/2)^2: dL/dy0 of sum(sin y) + sum(y^2)
        root = np.sqrt(y0) - 0.25
        outer = (np.cos(root**2) + 2 * root**2) * 2 * root
        assert abs(grads[0] - outer / (2 * np.sqrt(y0))).max() < 1e-3        # tol^(2/3) for EES25, and ten of them
        assert abs(grads[1]["k"] + (outer * 0.25).sum()) < 1e-3
        assert distance(grads, quiet) < 1e-3


def test_huge_first_steps_do_not_warn():
    """Overflow in an attempt that is rejected is nobody's business; stepping by hand as well."""
    f = lambda t, y, p: y**9 - 1e3 * y
    for dt0 in (None, 10.0):
        rv.solve(f, np.array([1.5]), (0.0, 1e-2), method=rv.RungeKutta("dopri5"), controller=rv.PID(), dt0=dt0)
        list(rv.steps(f, np.array([1.5]), (0.0, 1e-2), method=rv.RungeKutta("dopri5"), controller=rv.PID(), dt0=dt0))


# -------------------------------------------------------------------------------------------------- costs and memory

STAGES = {"rk-bosh3": (4, 1), "rk-dopri5": (7, 1), "EES25": (3, 1), "near-bosh3": (4, 1)}       # with those of the error


@pytest.mark.parametrize("name", STAGES)
def test_evaluations_forward(name):
    """s for each step, s - 1 for each rejected one (its first stage serves the next try), and two for the first guess."""
    s, shared = STAGES[name]
    for dt0, guess in ((1.0, 0), (None, 2)):
        calls = []

        def f(t, y, p, calls=calls):
            calls.append(t)
            return van_der_pol(t, y, p)
        stats = rv.solve(f, Y0, (0.2, 3.0), VDP, method=METHODS[name][0], controller=rv.PID(1e-5, 1e-5), dt0=dt0,
                         backend="eager").stats
        assert stats.nfe == s * (stats.steps + stats.rejected) - shared * stats.rejected + guess
        assert len(calls) == stats.nfe + stats.checks
        assert stats.rejected > 0 or dt0 is None


def test_evaluations_of_reversible_heun():
    """One for a try, since the field at its start is known, also after a rejection; only at the very first state is it not."""
    calls = []

    def bumpy(t, y, p):
        calls.append(float(t))
        return van_der_pol(t, y, p) + 5 * np.exp(-(((t - 1.5) / 0.05) ** 2))
    stats = rv.solve(bumpy, Y0, (0.2, 1.6), VDP, method=rv.ReversibleHeun(), controller=rv.PID(1e-3, 1e-3), dt0=1.4).stats
    at_first = calls.count(0.2) - stats.checks
    assert stats.rejected > at_first > 0
    assert stats.nfe == stats.steps + stats.rejected + at_first


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["EES25", "coupled-bosh3", "reversible-heun", "near-bosh3"])
def test_memory_of_reversible_is_flat(name):
    """State of 10^4 numbers (80 kB): four times as many steps may not cost one state more."""
    method = METHODS[name][0]
    y0 = np.linspace(0.5, 1.0, 10_000)
    peaks, counts = [], []
    for end in (0.5, 2.0):
        def loss(y0, end=end):
            sol = rv.solve(swing, y0, (0.0, end), method=method, gradient=rv.Reversible(tol=1e9), save=[-1], backend="eager",
                           controller=rv.PID(1e-2, 1e-2, max_step=0.02))
            return np.sum(sol.y1), sol.stats.steps
        tracemalloc.start()
        (_, steps), _ = rv.value_and_grad(loss, has_aux=True)(y0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        counts.append(steps)
    assert counts[1] >= 3 * counts[0] >= 75
    assert peaks[1] - peaks[0] < y0.nbytes, np.diff(peaks) / y0.nbytes


# --------------------------------------------------------------------------------------------------- what is returned

@pytest.mark.sample(5)
@pytest.mark.parametrize("name", ["rk-bosh3", "coupled-bosh3", "EES25"])
@pytest.mark.parametrize("times", [[0.2, 3.0], [0.2], [3.0], [1.1], [0.2, 0.5, 0.500001, 2.9999, 3.0]], ids=str)
def test_save_at(name, times):
    method, controller = METHODS[name][0], rv.PID(1e-6, 1e-6)
    sol = rv.solve(van_der_pol, Y0, (0.2, 3.0), VDP, method=method, controller=controller, save_at=times)
    assert sol.ts.tolist() == times and sol.ys.shape == (len(times), 2)
    grid = [(t, s.parts["y"]) for t, s in rv.steps(van_der_pol, Y0, (0.2, 3.0), VDP, method=method, controller=controller)]
    true = solve_ivp(lambda t, y: van_der_pol(t, y, VDP), (0.2, 3.0), Y0, method="DOP853", rtol=1e-12, atol=1e-12,
                     t_eval=sorted({*times, 3.0})).y.T
    assert abs(sol.ys - true[:len(times)]).max() < 1e-3           # a thousand tolerances; EES25 has tol^(2/3) = 1e-4
    assert abs(sol.y1 - true[-1]).max() < 1e-3 and sol.state.t == 3.0
    assert abs(grid[-1][1] - sol.y1).max() < 1e-3
    if times[0] == 0.2:
        assert np.array_equal(sol.ys[0], Y0)
    if times[-1] == 3.0:
        assert np.array_equal(sol.ys[-1], sol.y1)
    # Cotangents enter at the right times: the loss of a single state against Direct on the replayed whole grid.
    whole = [t for t, _ in grid] if times == [0.2, 3.0] else None
    if whole:
        mine, _ = gradient(method, rv.Checkpointed(3), controller=controller, save_at=times)
        replay, _ = gradient(method, rv.Direct(), fixed=np.array(whole), save=[0, len(whole) - 1])
        assert distance(mine, replay) < 1e-11                     # 1e3 steps' worth of round-off
    single, sol = gradient(method, rv.Direct(), controller=controller, save_at=times)
    online, _ = gradient(method, rv.Checkpointed(3), controller=controller, save_at=times)
    assert distance(online, single) < 1e-11


def test_save_at_may_be_a_number_or_an_array():
    options = {"method": rv.RungeKutta("bosh3"), "controller": rv.PID()}
    a, b, c = (rv.solve(van_der_pol, Y0, (0.2, 3.0), VDP, save_at=s, **options) for s in (1.1, [1.1], np.array([1.1])))
    assert a.ts.tolist() == b.ts.tolist() == c.ts.tolist() == [1.1]
    assert np.array_equal(a.ys, b.ys) and np.array_equal(a.ys, c.ys)


def test_the_end_alone():
    sol = rv.solve(van_der_pol, Y0, (0.2, 3.0), VDP, method=rv.Coupled("bosh3"), controller=rv.PID(), save=[-1])
    whole = rv.solve(van_der_pol, Y0, (0.2, 3.0), VDP, method=rv.Coupled("bosh3"), controller=rv.PID())
    assert sol.ts.tolist() == [3.0] and sol.ys.shape == (1, 2)
    assert np.array_equal(sol.ys[0], whole.ys[-1]) and np.array_equal(sol.y1, whole.y1)
    assert len(whole.ts) == whole.stats.steps + 1 > 5


def test_trees_and_continuation():
    """A tree for y0 has the grid of the flat state; a solve continued from its own state at t is the whole solve."""
    cut = lambda y: {"x": y[..., 0], "v": [y[..., 1]]}
    on_tree = lambda t, y, p: cut(van_der_pol(t, np.stack([y["x"], y["v"][0]], -1), p))
    options = {"method": rv.Coupled("bosh3"), "controller": rv.PID(1e-5, 1e-7)}
    flat = rv.solve(van_der_pol, Y0, (0.2, 3.0), VDP, **options)
    tree = rv.solve(on_tree, cut(Y0), (0.2, 3.0), VDP, **options)
    assert np.array_equal(tree.ts, flat.ts) and np.array_equal(tree.ys["v"][0], flat.ys[:, 1])

    middle = float(flat.ts[len(flat.ts) // 2])
    first = rv.solve(van_der_pol, Y0, (0.2, middle), VDP, save_at=[middle], dt0=flat.ts[1] - flat.ts[0], **options)
    k = flat.ts.tolist().index(middle)
    second = rv.solve(van_der_pol, None, (middle, 3.0), VDP, state0=first.state, **options)
    assert second.ts[0] == middle and second.ts[-1] == 3.0
    assert np.array_equal(second.ys[0], first.y1)
    assert abs(second.y1 - flat.y1).max() < 1e-3                     # another grid: a hundred tolerances
    assert second.state.n == first.state.n + second.stats.steps
    assert abs(first.y1 - flat.ys[k]).max() < 1e-3
    fixed = rv.solve(van_der_pol, None, second.ts, VDP, method=rv.Coupled("bosh3"), state0=first.state)
    assert np.array_equal(fixed.ys, second.ys)

    def loss(y0, mode):
        a = rv.solve(van_der_pol, y0, (0.2, middle), VDP, gradient=mode, save=[-1], **options)
        b = rv.solve(van_der_pol, None, (middle, 3.0), VDP, state0=a.state, gradient=mode, save=[-1], **options)
        return np.sum(b.y1**2)
    grads = [rv.grad(lambda y0, mode=mode: loss(y0, mode))(Y0) for mode in (rv.Direct(), rv.Reversible(), rv.Checkpointed(3))]
    assert distance(grads[1], grads[0]) < 1e-9 and distance(grads[2], grads[0]) < 1e-12


def test_steps_yields_the_accepted_grid():
    for name in SOME:
        options = {"method": METHODS[name][0], "controller": rv.PID(1e-5, 1e-5), "dt0": 1.0}
        sol = rv.solve(van_der_pol, Y0, (0.2, 3.0), VDP, **options)
        ts, states = zip(*rv.steps(van_der_pol, Y0, (0.2, 3.0), VDP, **options), strict=True)
        assert list(ts) == sol.ts.tolist()
        assert np.array_equal([s.parts["y"] for s in states], sol.ys)
        assert [s.n for s in states] == list(range(len(ts))) and [s.t for s in states] == list(ts)
        assert [s.h for s in states[1:]] == np.diff(sol.ts).tolist()
        for t, _ in rv.steps(van_der_pol, Y0, (0.2, 3.0), VDP, **options):      # stop whenever you like
            if t > 0.5:
                break


def test_max_step_and_dt0():
    options = {"method": rv.RungeKutta("bosh3")}
    loose = rv.PID(1e-1, 1e-1, max_step=0.05)
    for dt0 in (None, 0.5, 1e-3):
        ts = rv.solve(van_der_pol, Y0, (0.0, 1.0), VDP, controller=loose, dt0=dt0, **options).ts
        assert np.diff(ts).max() <= 0.05 * (1 + 1e-4) + 4 * EPS
    ts = rv.solve(van_der_pol, Y0, (0.0, 1.0), VDP, controller=rv.PID(1e-3, 1e-3), dt0=1e-3, **options).ts
    assert ts[1] == 1e-3
    ts = rv.solve(van_der_pol, Y0, (0.0, -1.0), VDP, controller=rv.PID(1e-3, 1e-3), dt0=1e-3, **options).ts
    assert ts[1] == -1e-3
    # A span shorter than any step is one step, and stops a few ulp apart are both hit.
    assert rv.solve(van_der_pol, Y0, (1.0, 1.0 + 4 * EPS), VDP, controller=rv.PID(), **options).ts.tolist() == [1.0, 1 + 4 * EPS]
    close = [0.5, 0.5 + 4 * EPS]
    assert rv.solve(van_der_pol, Y0, (0.0, 1.0), VDP, controller=rv.PID(), save_at=close, **options).ts.tolist() == close


def test_zero_weights():
    """atol = 0, and an entry that is and stays zero, or begins at zero."""
    sol = rv.solve(lambda t, y, p: -y, np.array([1.0, 0.0]), (0.0, 1.0), method=rv.RungeKutta("bosh3"),
                   controller=rv.PID(1e-6, 0.0))
    assert abs(sol.y1 - [np.exp(-1), 0]).max() < 1e-5 and sol.stats.steps > 3
    rest = rv.solve(lambda t, y, p: 0 * y, np.zeros(2), (0.0, 1.0), method=rv.Coupled("bosh3"), controller=rv.PID())
    assert np.array_equal(rest.y1, np.zeros(2)) and rest.stats.steps < 20


# ------------------------------------------------------------------------------------------------------------ failures

def failing(f, y0, span, method, match, controller=None, **options):
    for run in (lambda: rv.solve(f, y0, span, method=method, controller=controller or rv.PID(), **options),
                lambda: list(rv.steps(f, y0, span, method=method, controller=controller or rv.PID(), **options))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(FloatingPointError, match=match) as caught:
                run()
    return str(caught.value)


@pytest.mark.parametrize("name", ["rk-bosh3", "rk-dopri5", "coupled-bosh3", "reversible-heun", "EES25"])
def test_blow_up_in_finite_time(name):
    """y' = y^2, y = 1/(1 - t): the step size underflows near t = 1, and the message has t, h and the size of y."""
    said = failing(lambda t, y, p: y * y, np.array([1.0]), (0.0, 2.0), METHODS[name][0], "controller would need a step of")
    t, h, y = (float(re.search(pattern, said)[1]) for pattern in (
        r" at t = ([-+.\de]+)", r"\(h = ([-+.\de]+),", r"entry of y ([-+.\de]+),"))
    assert abs(t - 1) < 0.05 and h < 1e-13 and y > 1e6
    assert re.search(r"\d+ steps accepted, \d+ rejected", said) and "rtol" in said


def test_nan_in_the_middle():
    f = lambda t, y, p: -np.sqrt(np.where(t < 0.5, 1.0, -1.0) * np.ones_like(y))
    said = failing(f, np.array([1.0]), (0.0, 2.0), rv.RungeKutta("bosh3"), "controller would need a step of")
    assert " at t = 0.5" in said
    # Around a singularity of the field that the solution crosses: NaN at exactly one point is not met.
    rv.solve(lambda t, y, p: np.cos(t) + 0 * y, np.array([1.0]), (0.0, 2.0), method=rv.RungeKutta("bosh3"), controller=rv.PID())


def test_a_step_that_overflows_with_no_error_is_rejected():
    """|y'| = inf makes the relative error zero: it has to be looked at by itself."""
    failing(lambda t, y, p: np.full_like(y, 1e308), np.array([1e308]), (0.0, 2.0), rv.RungeKutta("bosh3"),
            "would need a step of", dt0=1.0)


def test_too_many_steps():
    said = failing(lambda t, y, p: np.cos(50 * t) + 0 * y, np.array([1.0]), (0.0, 10.0), rv.RungeKutta("bosh3"),
                   "took max_steps=20 steps", rv.PID(1e-8, 1e-8, max_steps=20))
    accepted, rejected = map(int, re.search(r"(\d+) steps accepted, (\d+) rejected", said).groups())
    assert accepted + rejected == 20
    N = rv.solve(lambda t, y, p: -y, np.array([1.0]), (0.0, 1.0), method=rv.RungeKutta("bosh3"), controller=rv.PID()).stats
    rv.solve(lambda t, y, p: -y, np.array([1.0]), (0.0, 1.0), method=rv.RungeKutta("bosh3"),
             controller=rv.PID(max_steps=N.steps + N.rejected))
    failing(lambda t, y, p: -y, np.array([1.0]), (0.0, 1.0), rv.RungeKutta("bosh3"), "took max_steps",
            rv.PID(max_steps=N.steps + N.rejected - 1))


def test_min_step():
    jump = lambda t, y, p: np.where(t < 0.5, 1.0, 1e6) * np.ones_like(y)
    failing(jump, np.array([1.0]), (0.0, 1.0), rv.RungeKutta("bosh3"), "would need a step of", rv.PID(1e-6, 1e-6, min_step=1e-3))
    rv.solve(jump, np.array([1.0]), (0.0, 1.0), method=rv.RungeKutta("bosh3"), controller=rv.PID(1e-6, 1e-6))


OPTIONS = {"method": rv.RungeKutta("bosh3"), "controller": rv.PID()}


@pytest.mark.parametrize("span, options, kind, match", [
    ((0.0, 1.0), {"controller": "pid"}, TypeError, "controller='pid'; pass PID"),
    ((0.0, 1.0), {"controller": rv.PID}, TypeError, "controller=.*; pass PID"),
    ((0.0, 1.0), {"method": rv.RungeKutta("rk4")}, TypeError, "rk4.* has no error estimate.*bosh3"),
    ((0.0, 1.0), {"method": rv.Coupled("euler")}, TypeError, "euler.* has no error estimate"),
    ((0.0, 1.0), {"method": rv.AsynchronousLeapfrog()}, TypeError, "AsynchronousLeapfrog.* has no error estimate"),
    ((0.0, 1.0), {"method": rv.LeapfrogMidpoint()}, TypeError, "has no error estimate"),
    ((0.0, 1.0), {"method": rv.EES25(0.25)}, TypeError, "EES25.*has no error estimate.*EES25"),
    ((0.0, 1.0), {"method": rv.EES27()}, TypeError, "has no error estimate"),
    ((0.0, 1.0), {"method": rv.Composition(rv.ReversibleHeun())}, TypeError, "has no error estimate"),
    ((0.0, 0.5, 1.0), {}, ValueError, "two ends.*but 3 times.*save_at"),
    ((0.0, 1.0), {"dt0": 0.0}, ValueError, "dt0=0.0; the first step is a positive"),
    ((0.0, -1.0), {"dt0": -0.1}, ValueError, "dt0=-0.1.*backwards"),
    ((0.0, 1.0), {"dt0": np.nan}, ValueError, "dt0=nan"),
    ((0.0, 1.0), {"dt0": np.inf}, ValueError, "dt0=inf"),
    ((0.0, 1.0), {"save": [0, -1]}, ValueError, "save=.*not known beforehand.*save_at"),
    ((0.0, 1.0), {"save": slice(None)}, ValueError, "save=slice"),
    ((0.0, 1.0), {"save": [-1], "save_at": [0.5]}, ValueError, "save=.*save_at"),
    ((0.0, 1.0), {"save_at": [0.5, 1.5]}, ValueError, "save_at goes from 0.5 to 1.5.*between t0=0 and t1=1"),
    ((0.0, 1.0), {"save_at": [-0.5, 0.5]}, ValueError, "save_at goes from -0.5"),
    ((0.0, 1.0), {"save_at": [0.5, 0.5]}, ValueError, "save_at.*distinct"),
    ((0.0, 1.0), {"save_at": [0.5, 0.2]}, ValueError, "save_at.*order of integration"),
    ((1.0, 0.0), {"save_at": [0.2, 0.5]}, ValueError, "save_at.*order of integration"),
    ((0.0, 1.0), {"save_at": [np.nan]}, ValueError, "save_at"),
    ((0.0, 1.0), {"controller": None, "dt0": 0.1}, ValueError, "dt0 and save_at belong to adaptive"),
    ((0.0, 1.0), {"controller": None, "save_at": [0.1]}, ValueError, "dt0 and save_at belong to adaptive"),
], ids=lambda x: str(x)[:40])
def test_bad_input(span, options, kind, match):
    with pytest.raises(kind, match=match):
        rv.solve(van_der_pol, Y0, span, VDP, **{**OPTIONS, **options})


@pytest.mark.parametrize("options", [
    {"rtol": -1.0}, {"atol": -1.0}, {"rtol": 0.0, "atol": 0.0}, {"rtol": np.nan}, {"safety": 0.0}, {"safety": 1.1},
    {"shrink": 1.0}, {"shrink": 0.0}, {"grow": 1.0}, {"max_step": 0.0}, {"max_step": -1.0}, {"min_step": -1.0},
    {"min_step": 1.0, "max_step": 0.5}, {"max_steps": 0}, {"p": np.inf}, {"i": np.nan}], ids=str)
def test_bad_controllers(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"PID: .*{name}={options[name]!r}"):
        rv.PID(**options)


def test_the_oracle_of_low_storage_is_used_with_exact_coefficients():
    """The literal loop above takes EES25's floats from the library; they are checked in test_ees.py, and once more here."""
    exact = E.LOW_STORAGE_25[next(x for x in E.LOW_STORAGE_25 if x < 0.2)]
    assert np.allclose(QUARTER.A, [float(a) for a in exact.A], rtol=4 * EPS, atol=0)
    assert np.allclose(QUARTER.B, [float(b) for b in exact.B], rtol=4 * EPS, atol=0)


def test_tolerances_of_a_tree_leaf_by_leaf_are_those_of_its_entries():
    """The steps of a tree are those of the same y in one array, with the tolerances of its entries side by side."""
    field = lambda t, y, p: {"a": -y["a"] * np.cos(t), "b": 3.0 * np.cos(5 * t) - y["b"]}
    flat = lambda t, y, p: np.concatenate([-y[:2] * np.cos(t), 3.0 * np.cos(5 * t) - y[2:]])
    a, b = np.array([1.0, 2.0]), np.array([0.5, 0.1, 3.0])
    for rtol, atol in ((1e-5, {"a": 1e-6, "b": [1e-3, 1e-6, 1e-4]}), ({"a": [1e-7, 1e-3], "b": 0.0}, {"a": 0.0, "b": 1e-4})):
        entry = lambda x: x if isinstance(x, float) else np.concatenate([np.broadcast_to(x["a"], 2), np.broadcast_to(x["b"], 3)])
        tree = rv.solve(field, {"a": a, "b": b}, (0.0, 2.0), controller=rv.PID(rtol, atol))
        array = rv.solve(flat, np.concatenate([a, b]), (0.0, 2.0), controller=rv.PID(entry(rtol), entry(atol)))
        np.testing.assert_array_equal(tree.ts, array.ts)
    pair = rv.solve(lambda t, y, p: (-y[0], -y[1]), (a, b), (0.0, 2.0), controller=rv.PID(1e-4, (1e-6, [1e-3, 1e-6, 1e-4])))
    assert pair.stats.steps > 3
    for atol in ({"a": 1e-6}, {"a": 1e-6, "b": 1e-6, "c": 1.0}, [1e-6, 1e-6], {"a": 1e-6, "b": [1e-6, 1e-6]}):
        with pytest.raises(ValueError, match="PID has atol"):
            rv.solve(field, {"a": a, "b": b}, (0.0, 2.0), controller=rv.PID(1e-3, atol))
    with pytest.raises(ValueError, match="one is > 0"):
        rv.solve(field, {"a": a, "b": b}, (0.0, 2.0), controller=rv.PID({"a": 0.0, "b": 1e-3}, 0.0))

"""Controlled equations dy = f(t, y) dX: lines are ODEs with piecewise slopes, cubics ODEs with the slope X'(t)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicHermiteSpline

import revode as rv
from reference.oracles import gradients as G
from reference.oracles import loops as L
from reference.oracles import sde as S
from revode.paths import HermiteCubic, LinearPath, Rectilinear
from tests.method_cases import distance

EPS = 2.0**-52
TIMES = np.array([0.0, 0.5, 0.75, 1.5, 2.0])
rng = np.random.default_rng(3)
VALUES = np.cumsum(0.3 * rng.normal(size=(2, 5, 3)), axis=1)  # 2 series of 5 observations in 3 channels
Y0 = rng.normal(size=(2, 4)) / 2
P = {"W": rng.normal(size=(4, 12)) / 4, "b": rng.normal(size=12) / 2}
GRID = np.unique(np.concatenate([np.linspace(0, 2, 33), TIMES]))  # contains the knots


def field(t: Any, y: Any, p: Any) -> Any:
    """(2, 4) -> (2, 4, 3)."""
    return np.reshape(np.tanh(y @ p["W"] + p["b"] * np.cos(t)), (*y.shape, 3))


def cde(path: Any, ts: Any = GRID, method: Any = None, y0: Any = Y0, p: Any = P, **more: Any) -> Any:
    return rv.solve(field, y0, ts, p, method=method or rv.Coupled("rk4", 0.99), control=path, **more)


METHODS = {
    "reversible-heun": rv.ReversibleHeun(),
    "coupled": rv.Coupled("midpoint", 0.99),
    "ees27": rv.EES27(),
    "rk4": rv.RungeKutta("rk4"),
}


@pytest.mark.parametrize("name", METHODS)
def test_lines_are_an_ode_with_piecewise_slopes(name: str) -> None:
    """One interval at a time, y' = f(t, y) m_i with the slope written out; the state goes on from interval to
    interval. The
    same method on both sides: round-off (h m_i against X(t1) - X(t0): an ulp of X, which is below 2, a step, 36
    steps)."""
    method, ys, state = METHODS[name], [Y0], None
    for i in range(4):
        slope = (VALUES[:, i + 1] - VALUES[:, i]) / (TIMES[i + 1] - TIMES[i])
        ts = GRID[(GRID >= TIMES[i]) & (GRID <= TIMES[i + 1])]
        # A state of its own per interval: the field value at the end of one interval is not that of the next (the slope
        # jumps), but the parts y and z go on.
        sol = rv.solve(
            lambda t, y, p, slope=slope: np.sum(field(t, y, p) * slope[:, None, :], axis=-1),
            Y0 if state is None else None,
            ts,
            P,
            method=method,
            state0=state,
        )
        ys += list(sol.ys[1:])
        state = sol.state
    assert_allclose(cde(LinearPath(TIMES, VALUES), method=method).ys, np.stack(ys), rtol=0, atol=36 * 4 * EPS)


def test_lines_equal_the_literal_loop_on_the_increments() -> None:
    """A control is noise that is given: general 'noise' with the increments of X, and no drift."""
    path = LinearPath(TIMES, VALUES)
    dXs = np.diff(np.stack([[[np.interp(t, TIMES, x) for x in series.T] for series in VALUES] for t in GRID]), axis=0)
    literal = S.reversible_heun(lambda t, y, p: 0 * y, field, Y0, GRID, dXs, P, general=True)
    assert_allclose(cde(path, method=rv.ReversibleHeun()).ys, np.stack(literal), rtol=0, atol=36 * 4 * EPS)


def test_rectilinear_is_the_line_through_its_knots_and_does_not_look_ahead() -> None:
    path = Rectilinear(TIMES, VALUES, time=False)
    grid = np.unique(np.concatenate([GRID, path.times]))
    ys = cde(path, grid).ys
    assert_allclose(ys, cde(LinearPath(path.times, path.values), grid).ys, rtol=0, atol=4 * EPS)
    later = VALUES.copy()
    later[:, 3:] += 1.0
    other = cde(Rectilinear(TIMES, later), grid).ys
    same = (abs(ys - other) == 0).all(axis=(1, 2))
    assert same[grid <= 0.75 + 0.375].all() and not same[grid > 1.2].any()  # up to the middle of [0.75, 1.5]


@pytest.mark.parametrize("name,steps", [("reversible-heun", 800), ("coupled", 800), ("ees27", 800), ("rk4", 200)])
def test_cubics_against_a_dense_reference(name: str, steps: int) -> None:
    """scipy's spline with the same slopes and DOP853 at 1e-12, interval by interval (X'' jumps at the knots). Order 2:
    h^2 = 6e-6 for 800 steps, times a third derivative of order 1; RK4: (1e-2)^4, times the same."""
    slopes = np.diff(VALUES, axis=1) / np.diff(TIMES)[:, None]
    spline = CubicHermiteSpline(
        TIMES, np.moveaxis(VALUES, 1, 0), np.moveaxis(np.concatenate([slopes[:, :1], slopes], 1), 1, 0)
    )
    y = Y0
    for a, b in pairwise(TIMES):
        y = (
            solve_ivp(
                lambda t, y: np.sum(field(t, y.reshape(2, 4), P) * spline(t, 1)[:, None, :], -1).ravel(),
                (a, b),
                y.ravel(),
                "DOP853",
                rtol=1e-12,
                atol=1e-12,
            )
            .y[:, -1]
            .reshape(2, 4)
        )
    found = cde(HermiteCubic(TIMES, VALUES), np.linspace(0, 2, steps + 1), METHODS[name], save=[-1]).y1
    assert abs(found - y).max() < (1e-7 if name == "rk4" else 2e-5)


def test_gaps_are_nan() -> None:
    """A value on the line between its neighbours may as well be missing: the same path but for rounding."""
    full = VALUES.copy()
    full[0, 1, 0] = full[0, 0, 0] + (full[0, 2, 0] - full[0, 0, 0]) * (0.5 / 0.75)
    gap = full.copy()
    gap[0, 1, 0] = np.nan
    assert_allclose(cde(LinearPath(TIMES, gap)).y1, cde(LinearPath(TIMES, full)).y1, rtol=0, atol=64 * EPS)
    assert abs(cde(LinearPath(TIMES, gap)).y1 - cde(LinearPath(TIMES, VALUES)).y1).max() > 1e-4


def grads(path: Any, method: Any, mode: Any, ts: Any = GRID) -> Any:
    return rv.grad(lambda y0, p: np.sum(cde(path, ts, method, y0, p, gradient=mode).ys ** 2), argnums=(0, 1))(Y0, P)


@pytest.mark.sample(6)
@pytest.mark.parametrize("kind", [LinearPath, Rectilinear, HermiteCubic])
@pytest.mark.parametrize("name", METHODS)
def test_every_gradient_mode(kind: Any, name: str) -> None:
    """Shear methods to round-off: 40 steps, a sum of 40 terms; Coupled at lam = .99 expands by 1.5 on the way back:
    1e-12."""
    path, method = kind(TIMES, VALUES), METHODS[name]
    ts = np.unique(np.concatenate([GRID, path.times]))
    direct = grads(path, method, rv.Direct(), ts)
    assert abs(direct[1]["W"]).max() > 0.1 and abs(direct[0]).max() > 0.1
    modes = [rv.Checkpointed(4)]
    if hasattr(method, "word"):
        modes += [rv.Reversible(), rv.Reversible(resync=7)]
    for mode in modes:
        assert distance(grads(path, method, mode, ts), direct) <= 1e-12
    if name == "ees27":
        assert 0 < distance(grads(path, method, rv.Reversible(), ts), direct) < 1e-8
    assert 1e-12 < distance(grads(path, method, rv.Backsolve(), ts), direct) < 0.05


def test_gradients_equal_autograd_through_the_loop() -> None:
    import autograd.numpy as anp

    dXs = np.stack([LinearPath(TIMES, VALUES).increment(a, b) for a, b in pairwise(GRID)])

    def literal(at: tuple) -> Any:
        g = lambda t, y, p: anp.reshape(anp.tanh(y @ p["W"] + p["b"] * anp.cos(t)), (2, 4, 3))
        ys = S.reversible_heun(lambda t, y, p: 0 * y, g, at[0], GRID, dXs, at[1], general=True)
        return sum((y**2).sum() for y in ys)

    assert (
        distance(
            grads(LinearPath(TIMES, VALUES), rv.ReversibleHeun(), rv.Reversible()),
            G.autograd_gradient(literal, (Y0, P)),
        )
        <= 1e-12
    )


def test_reversed_time_and_leapfrog_on_a_cubic() -> None:
    """A smooth control is an ordinary field, so every method takes it: ALF against its loop, forwards and backwards."""
    path = HermiteCubic(TIMES, VALUES)
    f = lambda t, y, p: np.sum(field(t, y, p) * path.derivative(t)[:, None, :], axis=-1)
    for ts in (np.linspace(0, 2, 33), np.linspace(2, 0, 33)):
        sol = cde(path, ts, rv.AsynchronousLeapfrog())
        assert_allclose(sol.ys, np.stack(L.alf(f, Y0, ts, P)), rtol=0, atol=100 * EPS)
    line = LinearPath(TIMES, VALUES)
    there = cde(line, GRID, rv.Coupled("rk4", 0.99))
    again = cde(line, GRID[::-1], rv.Coupled("rk4", 0.99), there.y1)
    assert abs(again.y1 - Y0).max() < 1e-5  # RK4, h = 1/16: h^4 = 1.5e-5, and the field is not large


def test_float32_and_one_series_for_a_batch() -> None:
    path = LinearPath(TIMES, VALUES[0].astype(np.float32))
    p32 = rv.tree.map(lambda x: x.astype(np.float32), P)
    sol = cde(path, y0=Y0.astype(np.float32), p=p32)
    assert sol.ys.dtype == np.float32
    assert_allclose(sol.ys, cde(LinearPath(TIMES, VALUES[0])).ys, atol=40 * 2.0**-23 * 4)


@pytest.mark.parametrize("kind", [LinearPath, HermiteCubic])
def test_adaptive_steps_stop_at_the_knots(kind: Any) -> None:
    """Over a knot a line is seen as its chord, which is another path, and a cubic has a kink in its slope. dopri5 at
    1e-6 a step,
    twenty steps or so; the reference is RK4 on a grid with the knots, h = 1/400."""
    path, method = kind(TIMES, VALUES), rv.RungeKutta("dopri5")
    reference = cde(path, np.linspace(0, 2, 801), rv.RungeKutta("rk4"), save=[-1]).y1
    for ends, y0 in (((0.0, 2.0), Y0), ((2.0, 0.0), reference)):
        sol = cde(path, ends, method, y0, controller=rv.PID(1e-6, 1e-6))
        assert set(TIMES) <= set(sol.ts)
        assert_allclose(sol.y1, reference if y0 is Y0 else Y0, atol=2e-5)
    some = cde(path, (0.0, 2.0), method, controller=rv.PID(1e-6, 1e-6), save_at=[1.0, 2.0])
    assert some.ts.tolist() == [1.0, 2.0]

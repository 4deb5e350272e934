"""Events: the time of a crossing and its gradient, against closed forms and against differences of what was computed."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import revode as rv

EPS = 2.0**-53
G = np.array(9.81)


def fall(t: Any, y: Any, g: Any) -> Any:
    return np.stack([y[1], -g])


def height(t: Any, y: Any, g: Any) -> Any:
    return y[0]


GRID = np.linspace(0.0, 2.0, 21)
FALLS: dict[str, tuple] = {
    "default": (GRID, {}), "backwards": (GRID, {"method": rv.Coupled("rk4"), "gradient": rv.Reversible()}),
    "checkpoints": (GRID, {"method": rv.ReversibleHeun(), "gradient": rv.Checkpointed(3)}), "replay": (GRID, {"backend": "replay"}),
    "direct": (GRID, {"method": rv.RungeKutta("midpoint"), "gradient": rv.Direct()}),
    "adaptive": ((0.0, 2.0), {"controller": rv.PID()})}


@pytest.mark.parametrize("name", FALLS)
def test_a_falling_ball_in_every_mode(name):
    """t = (v + s) / g, s = sqrt(v^2 + 2 g h), and it arrives with -s. All of these methods follow a parabola exactly."""
    ts, how = FALLS[name]
    h, v, g = 1.0, 0.5, float(G)
    s = np.sqrt(v * v + 2 * g * h)

    def landing(y0: Any, g: Any) -> Any:
        found = rv.event(fall, y0, ts, g, when=height, **how)
        assert found.happened and len(found.sol.ts) >= 3
        return np.stack([found.t, found.y[1], found.y[0]])

    y0 = np.array([h, v])
    found = landing(y0, G)
    np.testing.assert_allclose(found, [(v + s) / g, -s, 0.0], rtol=0, atol=50 * EPS * s)
    ay0, ag = rv.jacobian(lambda y0: landing(y0, G))(y0), rv.jacobian(lambda g: landing(y0, g))(G)
    np.testing.assert_allclose(ay0, [[1 / s, (1 + v / s) / g], [-g / s, -v / s], [0.0, 0.0]], rtol=0, atol=1e3 * EPS * s)
    np.testing.assert_allclose(ag, [h / (g * s) - (v + s) / g**2, -h / s, 0.0], rtol=0, atol=1e3 * EPS * s)


def test_a_bouncing_ball():
    """Three bounces, each begins where the last one ended: t = sqrt(2 h / g) (1 + 2 e + 2 e^2), from rest, with restitution e."""
    def third(h: Any, g: Any, e: Any) -> Any:
        y, total = np.stack([h, 0.0 * h]), 0.0
        for _ in range(3):
            found = rv.event(fall, y, np.linspace(0.0, 2.0, 11), g, when=height, direction=-1)
            y, total = np.stack([0.0 * found.y[0], -e * found.y[1]]), total + found.t
        return total

    h, g, e = 1.3, 9.81, 0.8
    value, found = rv.value_and_grad(third, argnums=(0, 1, 2))(np.array(h), np.array(g), np.array(e))
    t = np.sqrt(2 * h / g)
    whole = t * (1 + 2 * e + 2 * e * e)
    np.testing.assert_allclose([value, *found], [whole, whole / (2 * h), -whole / (2 * g), t * (2 + 4 * e)], rtol=1e3 * EPS)


@pytest.mark.parametrize("ts, how", [(np.linspace(0.0, 10.0, 401), {}), ((0.0, 10.0), {"controller": rv.PID(1e-9, 1e-9)})])
def test_a_leaky_tank(ts, how):
    """Torricelli: h' = -k sqrt(h), sqrt(h) = sqrt(h0) - k t / 2. It is down to a level L, a parameter, at 2 (sqrt h0 - sqrt L) / k.

    On the fixed grid h = .025 and the error of RK4 is below 1e-9; the controller's 1e-9 adds up over some hundred steps.
    """
    tank = lambda t, y, p: -p["k"] * np.sqrt(y)
    p, h0 = {"k": np.array(0.3), "level": np.array(0.2)}, np.array([2.0])

    def time(h0: Any, p: Any) -> Any:
        return rv.event(tank, h0, ts, p, when=lambda t, y, p: y - p["level"], **how).t

    value, (ah, ap) = rv.value_and_grad(time, argnums=(0, 1))(h0, p)
    exact = 2 * (np.sqrt(2.0) - np.sqrt(0.2)) / 0.3
    np.testing.assert_allclose([value, ah[0], ap["k"], ap["level"]], [
        exact, 1 / (0.3 * np.sqrt(2.0)), -exact / 0.3, -1 / (0.3 * np.sqrt(0.2))], rtol=1e-7)


def test_the_gradient_is_that_of_what_was_computed():
    """On a grid so coarse that the event is off by per cent: central differences of the event; a condition on t and params."""
    field = lambda t, y, p: np.stack([y[1], -p["k"] * np.sin(y[0]) + np.cos(t)])
    when = lambda t, y, p: y[0] * y[1] - p["c"] * t
    ts = np.linspace(0.0, 3.0, 7)

    def where(x: Any) -> Any:
        found = rv.event(field, x[:2], ts, {"k": x[2], "c": x[3]}, when=when, method=rv.ReversibleHeun(), gradient=rv.Reversible())
        return found.t + np.sum(found.y * np.array([0.3, -0.7]))

    x = np.array([1.0, 0.8, 2.0, 0.4])
    found = rv.grad(where)(x)
    by_differences = [(where(x + d) - where(x - d)) / 2e-5 for d in 1e-5 * np.eye(4)]
    np.testing.assert_allclose(found, by_differences, rtol=0, atol=1e-8 * abs(found).max())


def test_directions_starts_and_what_never_happens():
    turn = lambda t, y, p: np.stack([y[1], -y[0]])
    y0 = np.array([0.0, 1.0])                                                    # sin t, from zero on: that is no crossing
    ts = np.linspace(0.0, 10.0, 401)
    find = lambda **how: rv.event(turn, y0, ts, when=lambda t, y, p: y[0], **how)
    for direction, t in ((0, np.pi), (-1, np.pi), (1, 2 * np.pi)):
        assert abs(find(direction=direction).t - t) < 1e-7               # RK4, h = .025: h^4 / 120 t
    none = rv.event(turn, y0, ts, when=lambda t, y, p: y[0] - 2.0)
    assert not none.happened and none.t == 10.0 and none.sol.ts[-1] == 10.0
    np.testing.assert_array_equal(none.y, rv.solve(turn, y0, ts).y1)
    back = rv.event(turn, y0, ts[::-1] - 10.0, when=lambda t, y, p: y[0])        # backwards in time
    assert abs(back.t + np.pi) < 1e-7
    single = rv.event(turn, y0.astype(np.float32), np.linspace(0.0, 4.0, 81), when=lambda t, y, p: y[0])
    assert abs(single.t - np.pi) < 1e-5 and single.y.dtype == np.float32


def test_what_happens_at_a_grid_point_or_just_behind_one():
    """To rounding, whether or not there is room for a step: the last one cannot be shorter than a few hundred ulps."""
    line = lambda t, y, p: p * np.ones_like(y)
    ts = np.linspace(0.0, 1.0, 5)
    for at in (0.5, 0.5 + 1e-15, 0.5 - 1e-15, 0.5 + 1e-12):
        value, slope = rv.value_and_grad(lambda p, at=at: rv.event(line, np.array([-at]), ts, p, when=lambda t, y, p: y[0]).t)(1.0)
        assert abs(value - at) < 4 * EPS and abs(slope + at) < 1e-12


def test_times_of_the_grid_have_gradients_too():
    """Begun later, it happens later."""
    landing = lambda ts: rv.event(fall, np.array([1.0, 0.0]), ts, G, when=height).t
    found = rv.grad(lambda t0: landing(t0 + GRID))(0.3)
    assert abs(found - 1.0) < 1e-12


def test_how_large_the_condition_is_does_not_matter():
    """The product of two such numbers is no number any more: the signs are compared."""
    line = lambda t, y, p: np.ones_like(y)
    found = rv.event(line, np.array([-0.3]), np.linspace(0.0, 1.0, 5), when=lambda t, y, p: 1e-170 * y[0])
    assert found.happened and abs(found.t - 0.3) < 4 * EPS


@pytest.mark.parametrize("ts, how", [(np.linspace(0.0, 2.0, 201), {}), ((0.0, 2.0), {"controller": rv.PID(1e-9, 1e-9)})])
def test_what_happens_behind_a_stop(ts, how):
    """y' = -p y, from s on -3 p y: y = 1/2 at t = (log 2 / p + 2 s) / 3. RK4 with h = .01 is off by h^4 / 120 k^4, below 1e-8."""
    s, p = 0.437, 0.7

    def half(s: Any, p: Any) -> Any:
        field = lambda t, y, p: np.where(t < 0.437, -p, -3.0 * p) * y
        return rv.event(field, np.ones(1), ts, p, when=lambda t, y, p: y[0] - 0.5, stops=[s], **how).t

    if how:
        value, by_p = rv.value_and_grad(lambda p: half(s, p))(p)
    else:
        value, (by_s, by_p) = rv.value_and_grad(half, argnums=(0, 1))(s, p)
        assert abs(by_s - 2 / 3) < 1e-7
    assert abs(value - (np.log(2.0) / p + 2 * s) / 3) < 1e-8 and abs(by_p + np.log(2.0) / (3 * p**2)) < 1e-7


def test_what_is_refused():
    line = lambda t, y, p: np.ones_like(y)
    ts = np.linspace(-1.0, 1.0, 6)
    with pytest.raises(ValueError, match="it returns one number"):
        rv.event(line, -np.ones(2), ts, when=lambda t, y, p: y)
    with pytest.raises(ValueError, match="direction=2"):
        rv.event(line, -np.ones(2), ts, when=lambda t, y, p: y[0], direction=2)
    with pytest.raises(TypeError, match="first derivatives only"):
        rv.grad(rv.grad(lambda p: rv.event(lambda t, y, p: p * np.ones_like(y), -np.ones(1), ts, p, when=lambda t, y, p: y[0]).t))(1.0)
    with pytest.raises(ValueError, match="two solutions that have parted"):
        rv.event(lambda t, y, p: np.stack([y[1], -G]), np.array([1.0, 0.5]), GRID, G, when=height, method=rv.LeapfrogMidpoint())
    with pytest.raises(ValueError, match="touches or jumps"):
        rv.event(line, np.array([-1.0]), np.array([0.0, 0.4, 1.6]), when=lambda t, y, p: np.where(y[0] > 0, 1.0, -1.0) + 0 * y[0])
    with pytest.raises(ValueError, match="returned False at t=-1"):                  # which never goes through zero
        rv.event(line, -np.ones(1), ts, when=lambda t, y, p: y[0] > 0)
    with pytest.raises(ValueError, match="returned nan at t=-0"), np.errstate(invalid="ignore"):
        rv.event(line, -np.ones(1), ts, when=lambda t, y, p: np.sqrt(-0.5 - y[0]))
    with pytest.raises(ValueError, match="touches or jumps"):
        rv.event(line, -np.ones(1), ts, when=lambda t, y, p: 1 if t > 0 else -1)
    with pytest.raises(TypeError, match="event: got noise="):
        rv.event(line, -np.ones(1), ts, when=lambda t, y, p: y[0], noise=rv.Brownian(1))
    for moving in ({"ts": lambda x: np.stack([x, 1.0])}, {"ts": lambda x: np.array([-1.0, 1.0]), "stops": lambda x: [x]}):
        with pytest.raises(TypeError, match="with controller= times get no gradient"):
            rv.grad(lambda x, moving=moving: rv.event(line, -np.ones(1), when=lambda t, y, p: y[0], controller=rv.PID(),
                                                      **{name: f(x) for name, f in moving.items()}).t)(-1.0)

"""Strict native code gives the bits of its NumPy mirror (revode/compiled/mirror.py), and the gradient of the tape."""
from __future__ import annotations

import re

import numpy as np
import pytest

import revode as rv
from revode.compiled import generate, mirror, plans, tiles
from revode.compiled.lower import NotFusable
from tests.compiler import needs_compiler
from tests.strict_cases import METHODS, NOISY, TS, assert_same_bits, compare, layers, network, results, start, tiles_of

pytestmark = needs_compiler
DTYPES = (np.float64, np.float32)


@pytest.mark.optimised
@pytest.mark.sample(2, cover=False)
@pytest.mark.parametrize("i", range(len(METHODS)), ids=lambda i: repr(METHODS[i]))
def test_every_method(i):
    """Seven trajectories in tiles of four: the last tile has three. Every other method in float32."""
    dtype, rng, method = DTYPES[i % 2], np.random.default_rng(i), METHODS[i]
    compare(layers, start(method, (7,), 2, dtype, rng), network(2, 3, 1, dtype, rng), method, T=4)


def elementwise(t, y, p):
    """Everything that goes entry by entry; each entry of y has a role, so that slices and a concatenation come in."""
    a, b, c = y[..., 0:1], y[..., 1:2], y[..., 2:]
    squash = np.where(c > p["w"], np.exp(-c * c), np.sqrt(1 + c * c)) + np.logaddexp(0.0, c) - np.maximum(c, 0.1 * c)
    rates = [np.sin(p["w"] * a) * np.cos(t) + b ** 3 / (1 + b * b), np.log1p(a * a) - np.arctan(b) * np.abs(a), squash]
    return np.concatenate(rates, axis=-1) * p["scale"] - 0.3 * np.minimum(y, p["w"] ** 2)


def normalised(t, y, p):
    """A layer norm, and a layer that sees the time as a feature."""
    x = y - np.mean(y, axis=-1, keepdims=True)
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 0.1) * p["gain"] + p["bias"]
    x = np.concatenate([x, 0 * y[..., :1] + t], axis=-1)
    return np.tanh(np.einsum("bi,ij->bj", x, p["W"])) * 0.5


def coupled(t, y, p):
    """Features summed, multiplied with each other, and the largest of them."""
    total = np.sum(y, axis=-1, keepdims=True)
    matrix = np.reshape(y @ p["V"], (*y.shape[:-1], 4, 4))
    moved = np.einsum("bij,bj->bi", matrix, y)
    return -y * p["k"] * total ** 2 * 0.1 + np.tanh(moved)[..., ::-1] - 0.1 * np.max(y, axis=-1, keepdims=True)


FIELDS = {"elementwise": (elementwise, {"w": (1,), "scale": (4,)}),
          "normalised": (normalised, {"gain": (4,), "bias": (4,), "W": (5, 4)}),
          "coupled": (coupled, {"k": (4,), "V": (4, 16)})}


@pytest.mark.optimised
@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", FIELDS)
def test_every_kind_of_loop(name, dtype):
    field, shapes = FIELDS[name]
    rng = np.random.default_rng(3)
    params = {key: (0.2 + 0.3 * rng.standard_normal(shape)).astype(dtype) for key, shape in shapes.items()}
    y0 = (0.2 + 0.4 * rng.standard_normal((3, 4))).astype(dtype)
    compare(field, y0, params, rv.ReversibleHeun(), T=2)


def test_the_kinds_of_loops_are_all_there():
    """The solves above and below go through every kind of loop that a program is made of."""
    seen = set()

    class Watching(mirror.Mirror):
        def __getattribute__(self, name):
            seen.add(name)
            return super().__getattribute__(name)

    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch, tiles_of(2):
        patch.setattr(mirror, "Mirror", Watching)
        for field, shapes in FIELDS.values():
            params = {key: 0.3 + 0.1 * rng.standard_normal(shape) for key, shape in shapes.items()}
            results(field, 0.3 * rng.standard_normal((3, 4)), params, rv.Coupled("midpoint"), "replay")
    assert seen >= {"map", "gather", "linear", "contract", "reduce", "outer", "rows"}


def noisy_params(dtype, rng, d=2, m=3):
    return {"net": network(d, 3, 1, dtype, rng), "s": (0.2 + 0.1 * rng.standard_normal(d)).astype(dtype),
            "V": (0.2 * rng.standard_normal((d, d * m))).astype(dtype)}


def drift(t, y, p):
    return layers(t, y, p["net"])


def diagonal(t, y, p):
    return p["s"] * np.cos(y + t)


def general(t, y, p):
    return 0.2 * np.reshape(np.tanh(y @ p["V"]), (*y.shape, 3))


@pytest.mark.optimised
@pytest.mark.sample(2)
@pytest.mark.parametrize("i", range(len(NOISY)), ids=lambda i: repr(NOISY[i]))
def test_noise(i):
    """Increments made inside the loop, with the seed and offset at the ends of their ranges."""
    dtype, rng = DTYPES[i % 2], np.random.default_rng(i)
    noise = rv.Brownian((1 << 64) - 5, offset=2 ** 32 - 9)
    compare(drift, start(NOISY[i], (5,), 2, dtype, rng), noisy_params(dtype, rng), NOISY[i], T=2,
            diffusion=(diagonal, general)[i // 2], noise=noise)


def test_noise_on_a_lone_trajectory():
    """Its sums for the parameters have terms that are added and terms that are taken away."""
    rng = np.random.default_rng(0)
    compare(drift, 0.5 * rng.standard_normal(2), noisy_params(np.float64, rng), rv.Coupled("midpoint", 0.99), diffusion=diagonal,
            noise=rv.Brownian(0))


@pytest.mark.parametrize("driven", ["tree", "control"])
def test_increments_that_come_as_a_table(driven):
    """Those of a Brownian tree, one for each trajectory; those of a control, the same for all."""
    rng = np.random.default_rng(1)
    params = noisy_params(np.float64, rng)
    y0 = 0.5 * rng.standard_normal((5, 2))
    if driven == "tree":
        compare(drift, y0, params, rv.ReversibleHeun(), T=4, diffusion=diagonal, noise=rv.BrownianTree(3, TS[0], TS[-1]))
    else:
        compare(general, y0, params, rv.ReversibleHeun(), T=4, control=rv.LinearPath(TS[::2], rng.standard_normal((len(TS[::2]), 3))))


def turned(t, y, p):
    """One loop reads y as it is and with its features reversed, and makes the y of the next step."""
    return 0.5 * y[..., ::-1] * p[0][1]


@pytest.mark.parametrize(("base", "field"), [("tsit5", layers), ("euler", turned)])
def test_a_runge_kutta_method_forward(base, field):
    rng, method = np.random.default_rng(2), rv.RungeKutta(base)
    y0, params = start(method, (5,), 3, np.float64, rng), network(3, 3, 1, np.float64, rng)
    with tiles_of(4):
        a, b, tape = (rv.solve(field, y0, TS, params, method=method, backend=how, arithmetic="strict").ys
                      for how in ("native", "replay", "eager"))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, tape, rtol=0, atol=1e-13)        # 12 steps of at most 50 roundings of numbers below 4


def test_many_calls_are_one(monkeypatch):
    """A sweep in calls of five steps at most, which end before, at and after saved and kept states."""
    rng = np.random.default_rng(4)
    y0, params = start(rv.EES25(), (3,), 2, np.float64, rng), network(2, 3, 1, np.float64, rng)
    for method, how in ((rv.EES25(), "native"), (rv.ReversibleHeun(), "replay")):
        with tiles_of(2):
            whole = results(layers, y0, params, method, how)
        init = tiles.Tiles.__init__
        with tiles_of(2), monkeypatch.context() as patch:
            patch.setattr(tiles.Tiles, "__init__", lambda self, *a, **k: (init(self, *a, **k), setattr(self, "chunk", 5))[0])
            assert_same_bits(results(layers, y0, params, method, how), whole)


def test_nothing_enters_below_the_first_saved_state():
    rng = np.random.default_rng(5)
    y0, params = 0.5 * rng.standard_normal(2), network(2, 3, 1, np.float64, rng)
    compare(layers, y0, params, rv.Coupled("heun2"), save=(12,))


def test_backwards_in_time_and_single_precision_times():
    rng = np.random.default_rng(6)
    y0, params = start(rv.ReversibleHeun(), (2, 3), 2, np.float32, rng), network(2, 3, 1, np.float32, rng)
    compare(layers, y0, params, rv.ReversibleHeun(), T=4, ts=TS[::-1].copy())


@pytest.mark.optimised
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_wide_products_run_in_stretches_and_have_the_bits_of_the_sum_in_one(dtype):
    """260 terms are stretches and a rest; 70 trajectories are two tiles of 64, for wide ones are larger: many lanes, a ragged end."""
    rng = np.random.default_rng(11)
    y0, params = start(rv.ReversibleHeun(), (70,), 2, dtype, rng), network(2, 260, 1, dtype, rng)
    compare(layers, y0, params, rv.ReversibleHeun(), ts=TS[:4], save=(1, 3))


# The tests can fail ---------------------------------------------------------------------------------------------------------

BROKEN = {
    "a sum over features in another order": (r"for \(int c = first \? first : 1; c < last; c\+\+\)",
                                             "for (int c = last - 1; c >= (first ? first : 1); c--)"),
    "lanes that are no trajectories": (r"for \(int r = 1; r < R; r\+\+\)", "for (int r = 1; r < T; r++)"),
    "a running sum that is added to": (r"\*\(const vec\*\)\(total[^)]*\) \+ sum", "sum"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_generator_that_is_wrong_is_found(what, monkeypatch):
    pattern, instead = BROKEN[what]
    text, count = re.subn(pattern, instead, generate.TILE_FUNCTIONS)
    assert count
    monkeypatch.setattr(generate, "TILE_FUNCTIONS", text)
    monkeypatch.setattr(plans, "agree", lambda *rest: None)         # which compares with the tape, roughly, and sees it too
    rng = np.random.default_rng(7)
    y0, params = start(rv.Coupled("midpoint"), (7,), 5, np.float64, rng), network(5, 16, 1, np.float64, rng)
    with pytest.raises(AssertionError, match=r"\[0\]|params"):
        compare(layers, y0, params, rv.Coupled("midpoint"), T=4, eager=False)


@pytest.mark.optimised
def test_fused_products_would_show():
    rng = np.random.default_rng(8)
    y0, params = start(rv.Coupled("midpoint"), (3,), 5, np.float64, rng), network(5, 16, 1, np.float64, rng)
    with tiles_of(2):
        fast, strict = (results(layers, y0, params, rv.Coupled("midpoint"), "native", arithmetic=how) for how in ("fast", "strict"))
    if all(np.array_equal(fast[name], strict[name]) for name in fast):
        pytest.skip("this processor fuses nothing")


# The mirror itself ----------------------------------------------------------------------------------------------------------

def test_strict_replay_refuses_what_has_no_loops():
    """Its bits would be others than those asked for."""
    with pytest.raises(NotFusable, match="trajectories"):
        rv.solve(lambda t, y, p: y - np.mean(y, axis=0, keepdims=True), np.ones((3, 2)), TS, method=rv.Coupled("midpoint"),
                 backend="replay", arithmetic="strict")


def test_lanes_beyond_the_last_trajectory_count_in_no_sum():
    """Five trajectories in tiles of 1, 4 and 8 have the same gradients but for the order of the sums over them."""
    rng = np.random.default_rng(9)
    y0, params = start(rv.ReversibleHeun(), (5,), 2, np.float64, rng), network(2, 3, 1, np.float64, rng)
    found = []
    for T in (1, 4, 8):
        with tiles_of(T):
            found.append(results(layers, y0, params, rv.ReversibleHeun(), "replay"))
    for other in found[1:]:
        np.testing.assert_array_equal(other["y0[0]"], found[0]["y0[0]"])
        for name in found[0]:
            if name.startswith("params"):        # 12 steps of 2 sums of 5 terms of one size: at most 12 * 2 * 5 roundings
                np.testing.assert_allclose(other[name], found[0][name], rtol=120 * 2.0 ** -52 * 10)


def test_zero_has_the_sign_that_c_gives_it():
    m = {name: mirror.OWN[name] for name in ("maximum", "minimum")}
    assert np.signbit(m["maximum"](np.array(-0.0), np.array(0.0))) and not np.signbit(m["maximum"](np.array(0.0), np.array(-0.0)))
    assert np.isnan(m["minimum"](np.array(np.nan), np.array(1.0))) and np.isnan(m["maximum"](np.array(1.0), np.array(np.nan)))

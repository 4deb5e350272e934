"""Native code gives what the tape gives, up to round-off; what it cannot do it refuses by name.

Fast arithmetic here; strict bits are in test_native_strict.py, the compiler and its cache in test_native_host.py. A program
takes a third of a second to compile, so each field has many features.
"""
from __future__ import annotations

import logging

import numpy as np
import pytest

import revode as rv
from revode.compiled import native, plans
from revode.compiled.lower import NotFusable
from revode.engine.tensor import NAMED
from tests import sde_cases
from tests.compiler import needs_compiler
from tests.method_cases import CASES as METHOD_CASES
from tests.method_cases import field, make_params, make_y0
from tests.unit.test_replay import KNOTS, METHODS, TS, flow, no_programs, pendulum, results  # noqa: F401 (a fixture)

pytestmark = needs_compiler
net = field(np)
N = len(TS) - 1
SOME = [name for name in METHODS if name not in {          # the others are more of the same
    "coupled-euler", "coupled-heun2", "coupled-ralston3", "coupled-bosh3", "coupled-tsit5", "coupled-dopri5", "verlet-6", "verlet-8",
    "ees-corrected"}]
ROUGH = {"roundtrip", "defect"}           # differences of numbers that agree but for round-off


def assert_close(f, y0, params, factor=1.0, **options):
    """As the tape, up to round-off.

    A step forward rounds some 100 times on the way to a number of the size of the state, its pullback some 200 times (with
    elementary functions of up to 4 ulps), and one step's error grows by at most 3 over the rest of the solve (L T <= 1) and
    by 15 where the way back divides (.8^-12): 12 * 300 * 4 / 2 * 15 eps = 1.1e5 eps is the bound, of the largest entry of
    each array; seen are 2 to 20 eps. Entries that cancel are judged against the largest of all (1e-3 of it).
    """
    eager, told = results("eager", f, y0, params, **options)
    made, stats = results("native", f, y0, params, **options)
    assert (told.backend, stats.backend) == ("eager", "native")
    assert (stats.steps, stats.nfe_forward) == (told.steps, told.nfe_forward)
    assert eager.keys() == made.keys()
    largest = max(abs(x).max() for name, x in eager.items() if name.startswith("gradients"))
    for name, x in eager.items():
        assert (made[name].dtype, made[name].shape) == (x.dtype, x.shape), name
        if name not in ROUGH and x.size:
            eps = np.finfo(x.dtype).eps if x.dtype.kind == "f" else 0.0
            off = abs(made[name] - x).max()
            assert off <= factor * 1.1e5 * eps * max(abs(x).max(), 1e-3 * largest), (name, off / eps)
    return stats


def start(shape, dtype=np.float64, seed=1):
    return (0.5 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


# Methods --------------------------------------------------------------------------------------------------------------
@pytest.mark.optimised
@pytest.mark.sample(4)
@pytest.mark.parametrize("i", range(len(SOME)), ids=SOME)
def test_every_method(i):
    """One trajectory (with and without an axis for it), two axes of batch, more than a tile with a ragged last one."""
    name, method = SOME[i], METHODS[SOME[i]]
    dtype, shape = (np.float64, np.float32)[i % 2], [(17, 3), (3,), (2, 3, 3), (1, 3)][i % 4]
    case = METHOD_CASES.get(name)
    y0 = make_y0(case, shape, dtype=dtype) if case else start(shape, dtype)
    assert_close(net, y0, make_params(dtype=dtype), method=method, save=[0, 3, 4, 9])


@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9), rv.EES25()], ids=repr)
def test_saved_and_kept_states(method):
    """The same library whatever is saved, and wherever the sweep starts anew."""
    for save in (None, [], [-1], [0, 1, 2, N], slice(1, None, 3), [5, 6]):
        for resync in (None, 1, 5):
            assert_close(net, start((5, 3)), make_params(), method=method, save=save, gradient=rv.Reversible(resync=resync))


def test_many_calls(monkeypatch):
    """A solve in pieces of 16 steps, where nothing may be lost between the calls: carried values, saved states, sums."""
    monkeypatch.setattr("revode.compiled.tiles.STEPS", 16)
    ts = np.linspace(0.0, 0.5, 101) ** 1.1
    for method in (rv.ReversibleHeun(), rv.LeapfrogMidpoint()):
        assert_close(net, start((5, 3)), make_params(), method=method, ts=ts, save=[0, 15, 16, 17, 32, 99, 100], factor=9)     # steps


@pytest.mark.sample(3)
@pytest.mark.parametrize("rows", [2, 5, 16, 17, 33, 40])
def test_ragged_tiles_and_threads(rows):
    """The lanes that fill up the last tile count in no sum; threads change no bit."""
    found = []
    for threads in (1, 2, 5):
        assert_close(net, start((rows, 3)), make_params(), method=rv.ReversibleHeun(), threads=threads)
        found.append(results("native", net, start((rows, 3)), make_params(), method=rv.ReversibleHeun(), threads=threads)[0])
    for other in found[1:]:
        for name, x in found[0].items():
            np.testing.assert_array_equal(other[name], x, err_msg=name)


# Fields ---------------------------------------------------------------------------------------------------------------
def functions(t, y, p):
    """Every elementary function, of y, of parameters and of the time."""
    b, one = np.tanh(y), 1 + y * y
    smooth = (np.sin(y) * np.cos(y * t) + np.exp(-y * y) + np.arctan(y) + np.log1p(y * y) + np.tan(0.1 * b) + np.sinh(0.1 * b)
              + np.cosh(0.1 * b) + np.expm1(0.1 * y) + np.arcsinh(y) + np.cbrt(one) + np.log(one) + np.exp2(0.1 * y) + np.log2(one)
              + np.log10(one) + np.hypot(y, 1.0) + np.arctan2(y, 2.0) + np.arcsin(0.3 * b) + np.arccos(0.3 * b)
              + np.arctanh(0.3 * b) + np.arccosh(1 + one) + np.logaddexp(y, p["a"]) + np.sqrt(one) + np.reciprocal(1 + one))
    powers = y ** 2 - y ** 3 + one ** -1.5 + one ** 0.5 + one ** -2 + one ** p["a"] + 2.0 ** (0.1 * y) + y ** 5 + one ** -0.5
    return 0.03 * smooth + 0.01 * powers + np.log1p(np.exp(p["s"])) * np.sin(p["a"]) - 0.1 * np.logaddexp(0.0, p["a"]) * y


def kinks(t, y, p):
    """Steps, bools and choices, with conditions on y, on the time and on constants."""
    steps = np.floor(3 * y) + np.ceil(y) + y % 0.7 + np.remainder(y, p["a"] ** 2 + 1) + y // 0.5 + np.sign(y) + np.abs(y)
    bools = (y > 0) * y * p["a"] - 2 * (y <= 0.2) + np.logical_and(y > 0, t > 0.4) * t + np.logical_not(y >= 1) * 1.0 + (y == 0.1) + (
        y != p["a"]) * 0.5 + np.isnan(y) + np.isfinite(y) * 0.1 + np.logical_or(y > 1, y < -1)
    chosen = np.where(t > 0.5, p["a"] * y, -0.3) + np.where(y > 0.1, 1.0, y) + np.where(True, y, 1)
    chosen = chosen + np.where(np.arange(3) == 1, y, p["s"])
    return 0.05 * steps + 0.1 * bools + 0.1 * chosen + np.maximum(y, p["a"]) - np.minimum(y, 0.1) + 0.1 * np.clip(y, -0.5, 0.5)


def shapes(t, y, p):
    """Slices, joins, indices that repeat, broadcasting, constants over the batch, the time as a feature."""
    joined = np.concatenate([y, t * np.ones_like(y[..., :1]), np.sin(t) * np.ones_like(y[..., :1])], -1) @ p["U"]
    stacked = np.stack([y[..., 1], t * p["a"][0] * np.ones(y.shape[:-1]), y[..., 0] * y[..., 2]], -1)
    picked = y[..., [0, 0, 2]] * p["a"] + np.flip(y, -1) * p["a"][[0, 0, 1]] + np.roll(y, 1, -1) + np.repeat(y, 2, -1)[..., 1:4]
    pieces = np.concatenate([y[..., 1:] * p["s"], np.sum(y, -1, keepdims=True) * p["one"]], -1)
    turned = np.swapaxes(y[..., None] * p["W"], -1, -2)[..., 1] + np.reshape(np.stack([y, y * y], -1), (*y.shape[:-1], 6))[..., ::2]
    constant = np.broadcast_to(p["a"] * np.cos(t), y.shape) + 0.5 * np.ones(y.shape) + CONSTANT
    return 0.2 * (np.tanh(joined) + stacked + picked + pieces + turned + constant + np.split(pieces, [1], -1)[0])


def products(t, y, p):
    """Products of every form: with matrices, made matrices, vectors, each other; sums, and the largest."""
    outer = (y[..., :, None] * y[..., None, :] * p["W"]).sum(-1)
    form = (y[..., None, :] @ p["W"] @ y[..., :, None])[..., 0] * p["a"]
    b = "ab"[:y.ndim - 1]
    summed = np.einsum(f"{b}i,ij,{b}j->{b}i", y, p["W"], np.tanh(y)) + np.einsum(f"{b}i,ji->{b}j", y, p["W"])
    made = y @ (p["a"][:, None] * p["a"][None, :]) + y @ np.reshape(np.concatenate([p["a"], p["a"] * 2, p["W"][0]]), (3, 3))
    wide = np.tanh(y @ p["V"] + p["s"]) @ p["V"].T + (p["W"] @ y[..., None])[..., 0] + y @ p["W"].T * p["one"]
    spread = (y - np.mean(y, -1, keepdims=True)) / np.sqrt(1 + np.var(y, -1, keepdims=True)) * p["a"]
    soft = np.exp(y - np.max(y, -1, keepdims=True))
    extremes = soft / np.sum(soft, -1, keepdims=True) - np.min(y * p["a"], -1, keepdims=True) * y + np.cumsum(y, -1) * p["a"]
    return 0.1 * (outer + form + summed + made + wide + spread + extremes + np.einsum("ij->i", p["W"]) * np.max(p["a"]) + y @ MATRIX)


def joined(w):
    """Joins, slices of them, running sums and indices that repeat, of w features: some entries are read under a condition."""
    def f(t, y, p):
        wide = np.concatenate([y, p * np.ones_like(y)], -1)[..., 1:w + 1] + np.concatenate([y * p, y], -1)[..., 2:w + 2]
        return 0.1 * wide + 0.1 * np.cumsum(y, -1) + 0.1 * y[..., [0, 0, *range(2, w)]] * p + 0.1 * np.where(y > p, y, p * y)

    return f


@pytest.mark.sample(4)
@pytest.mark.parametrize("rows", [2, 3, 8, 16])
@pytest.mark.parametrize("w", [3, 4, 8])
@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9)], ids=str)
def test_what_is_read_under_a_condition(rows, w, method):
    """g++ 12 made wrong code of reads that stand under conditions, in tiles of less than 16: a gradient of other numbers."""
    assert_close(joined(w), start((rows, w)), np.linspace(0.3, 0.5, w), factor=4.5, method=method)


CONSTANT, MATRIX = np.array([0.1, -0.2, 0.3]), 0.2 * np.random.default_rng(9).normal(size=(3, 3))


def weights(dtype=np.float64):
    rng = np.random.default_rng(0)
    made = {"a": rng.normal(size=3), "W": rng.normal(size=(3, 3)) / 3, "s": np.asarray(0.3), "one": rng.normal(size=1),
            "V": rng.normal(size=(3, 5)) / 3, "U": rng.normal(size=(5, 3)) / 3, "unused": rng.normal(size=(2, 2))}
    return {name: x.astype(dtype) for name, x in made.items()}


@pytest.mark.optimised
@pytest.mark.sample(2, cover=False)
@pytest.mark.parametrize(("f", "shape", "method"), [
    (functions, (17, 3), rv.ReversibleHeun()), (kinks, (17, 3), rv.ReversibleHeun()), (kinks, (3,), rv.Coupled("midpoint", 0.9)),
    (shapes, (17, 3), rv.ReversibleHeun()), (shapes, (3,), rv.Coupled("midpoint", 0.9)), (products, (17, 3), rv.ReversibleHeun()),
    (products, (3,), rv.ReversibleHeun())], ids=lambda x: getattr(x, "__name__", None))
def test_fields(f, shape, method):
    """Reversible Heun shares field values (with whatever is on their tapes) between steps; Coupled has stages.

    These fields have L = 3 or so: errors grow by e^(3 / 2) = 4.5 instead of 3, and back as well.
    """
    assert_close(f, start(shape, seed=3), weights(), factor=4.5, method=method)


def test_float32():
    """Numbers of Python do not widen it; times are rounded to it where the field sees them."""
    def f(t, y, p):
        return (-0.3 * y + 2.5 * np.sin(t * y) * p["a"] + 1 / 3 + t ** 2) * 0.1 + np.tanh(y @ p["V"] * np.sin(t)) @ (p["V"].T * 2)

    for shape in ((3,), (35, 3)):
        assert_close(f, start(shape, np.float32), weights(np.float32), factor=2, method=rv.ReversibleHeun())


def test_every_kind_of_parameter_and_state():
    """In one file of fields that are quick to compile: no features, no axes, no y, no parameter, a result that is an input."""
    heun, coupled = rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9)
    for y0 in (np.array(0.7), np.linspace(-1.0, 1.0, 5), np.linspace(-1.0, 1.0, 5)[:, None]):
        assert_close(lambda t, y, p: -p * y * np.sin(t) + 0.1 * t, y0, np.array(0.4), method=heun)
        assert_close(lambda t, y, p: -p[0] * y * np.sin(t) + p[1][0] * t, y0, [0.4, np.array([0.2])], method=coupled)
    for y0 in (start((3,)), start((4, 3))):
        assert_close(lambda t, y, p: np.broadcast_to(p * np.cos(t), y.shape), y0, np.array([0.3, 0.1, -0.2]), method=heun)
        assert_close(lambda t, y, p: 0.5 * np.ones(y.shape), y0, np.ones(3), method=heun)
        assert_close(lambda t, y, p: np.sin(t) * np.ones_like(y), y0, None, method=heun)
        assert_close(lambda t, y, p: -y, y0, None, method=heun)
        assert_close(lambda t, y, p: y, y0, None, method=coupled)
        assert_close(lambda t, y, p: (p["W"] * 2).T[0] * y + np.tanh(y @ (p["W"] * 2)), y0, {"W": MATRIX}, method=heun)
        # as many trajectories as features: a matrix is not mistaken for a value of each
        assert_close(lambda t, y, p: np.tanh(y @ (p["W"] * 2).T), start((3, 3)), {"W": MATRIX}, method=heun)


def test_trees_and_split_states():
    assert_close(pendulum, {"q": np.array([0.3, 1.0]), "v": np.array([0.2, -0.4])}, {"s": np.array([0.7]), "a": 0.2},
                 method=rv.ReversibleHeun())
    assert_close(lambda t, y, p: (np.tanh(y[0] @ p["W"]), -np.sum(y[0] ** 2) * p["s"] + y[1]), (np.ones((4, 2)), np.array(0.3)),
                 {"W": np.full((2, 2), 0.3), "s": 0.2}, method=rv.Coupled("midpoint", 0.9))


# Noise, controls, gradients inside, adaptive grids, resumed solves ----------------------------------------------------
@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize(("kind", "method", "shape", "dtype"), [
    ("diagonal", rv.ReversibleHeun(), (17, 3), np.float64), ("diagonal", rv.Coupled("heun2", 0.9), (3,), np.float32),
    ("general", rv.ReversibleHeun(), (17, 3), np.float64), ("diagonal", rv.EES25(), (3,), np.float64),
    ("additive", rv.ReversibleHeun(), (2, 3, 3), np.float64), ("ito", rv.ReversibleHeun(), (5, 3), np.float32),
    ("tree", rv.ReversibleHeun(), (5, 3), np.float64)], ids=lambda x: x if isinstance(x, str) else None)
def test_noise(kind, method, shape, dtype):
    """The increments of Brownian are made inside the loops, those of a tree are handed in."""
    noise = rv.BrownianTree(3, 0.0, 1.0) if kind == "tree" else rv.Brownian(3)
    options = {"interpretation": "ito"} if kind == "ito" else {}
    assert_close(net, start(shape, dtype), sde_cases.make(dtype), method=method, ts=sde_cases.TS, noise=noise,
                 diffusion=sde_cases.NOISES.get(kind, sde_cases.diagonal)(np), **options)


def test_one_kind_of_noise_after_another():
    """The same field with a path that the loops make, with ones that they are given, and with another's seed and offset."""
    options = {"diffusion": sde_cases.diagonal(np), "method": rv.ReversibleHeun(), "ts": sde_cases.TS}
    given = sde_cases.Given(sde_cases.TS, 0.1 * np.random.default_rng(0).normal(size=(8, 2, 3)))

    class Own:
        """A path by steps that is not Brownian's."""
        def along(self, hs, shape, dtype, first=0):
            return lambda n: np.full(shape, 0.1 * (n - 3), dtype)

    for noise in (rv.Brownian(3), rv.BrownianTree(3, 0.0, 1.0), given, Own(), rv.Brownian(4), rv.BrownianTree(4, 0.0, 1.0),
                  rv.Brownian(3)):
        assert_close(net, sde_cases.Y0, sde_cases.make(), noise=noise, **options)


def test_noise_goes_on_where_it_was():
    noise = {"diffusion": sde_cases.diagonal(np), "noise": rv.Brownian(5), "method": rv.ReversibleHeun()}
    state = rv.solve(net, sde_cases.Y0, TS[:5], sde_cases.make(), **noise).state
    assert_close(net, state.parts, sde_cases.make(), ts=TS[4:], state=state, **noise)


@pytest.mark.sample(2, cover=False)
@pytest.mark.parametrize(("path", "batch", "shape"), [(rv.LinearPath, (4,), (4, 3)), (rv.Rectilinear, (), (4, 3)),
                                                      (rv.HermiteCubic, (), (4, 3)), (rv.HermiteCubic, (), (3,))], ids=range(4))
def test_controls(path, batch, shape):
    control = path(KNOTS, 0.03 * np.random.default_rng(8).normal(size=(*batch, 5, 2)))
    ts = np.unique(np.concatenate([np.linspace(control.times[0], control.times[-1], 13), control.times]))
    V = 0.5 * np.random.default_rng(6).normal(size=(3, 6))
    assert_close(lambda t, y, p: np.reshape(np.tanh(y @ p + t), (*y.shape, 2)), start(shape), V, ts=ts, method=rv.ReversibleHeun(),
                 control=control)


def test_gradients_inside_the_field():
    """Four trajectories and four hidden features: constants and transposed matrices are told from values of each."""
    rng = np.random.default_rng(2)
    params = {"A": rng.normal(size=(2, 4)), "c": rng.normal(size=4), "B": 0.3 * rng.normal(size=(4, 2))}
    assert_close(flow, start((4, 3)), params, method=rv.ReversibleHeun())
    assert_close(lambda t, y, p: -rv.grad(lambda y: np.sum(np.tanh(y @ p["A"]) ** 2))(y), start((4, 2)), {"A": 0.3 * params["A"]},
                 method=rv.ReversibleHeun())


def test_layers_of_revode_nn():
    """Those of an mlp, a layer norm, softmax (which stops a gradient inside) and the time as a feature."""
    params = {"mlp": rv.nn.mlp_init(np.random.default_rng(0), [4, 5, 3]), "gain": np.ones(3), "bias": np.zeros(3)}
    assert_close(lambda t, y, p: 0.3 * rv.nn.layer_norm(rv.nn.mlp(p["mlp"], rv.nn.with_time(t, y)), p["gain"], p["bias"])
                 + rv.nn.softmax(y), start((5, 3)), params, method=rv.ReversibleHeun())


def test_adaptive_grids_are_replayed_backwards():
    assert_close(net, start((5, 3)), make_params(), method=rv.ReversibleHeun(), ts=(0.0, 0.6), controller=rv.PID(1e-5, 1e-5), factor=9)


def test_against_the_complex_step():
    """Not through the engine at all: dL/dp and dL/dy0 of the literal loop in complex numbers.

    20 steps of some 10 roundings each, forward and back, with a growth of at most e: 400 e eps = 1.1e3 eps, of either.
    """
    def f(t, y, p):
        return -p * np.sin(y) + t * y * y

    ts, y0, p, eps = 0.05 * np.arange(21), np.array([[0.4], [-0.7], [0.2]]), np.array(0.6), 1e-30
    literal = METHOD_CASES["reversible-heun"].literal

    def loss(y0, p):
        return np.sum(rv.solve(f, y0, ts, p, method=rv.ReversibleHeun(), backend="native").y1)

    ay0, ap = rv.grad(loss, argnums=(0, 1))(y0, p)
    np.testing.assert_allclose(ap, np.sum(literal(f, y0 + 0j, ts, p + 1j * eps)[-1].imag) / eps, rtol=1.1e3 * 2.2e-16)
    np.testing.assert_allclose(ay0, literal(f, y0 + 1j * eps, ts, p)[-1].imag / eps, rtol=1.1e3 * 2.2e-16)


# What is refused ------------------------------------------------------------------------------------------------------
ROWS = np.random.default_rng(4).normal(size=(5, 3))


@pytest.mark.parametrize(("f", "says"), [
    (lambda t, y, p: y - np.mean(y, 0), "np.subtract.*over the trajectories"),
    (lambda t, y, p: y / np.sqrt(1 + np.sum(y * y, 0)), "np.divide.*over the trajectories"),
    (lambda t, y, p: y + 0.1 * np.argsort(y, axis=-1), "np.argsort"),
    (lambda t, y, p: y + np.flip(y, 0), "np.flip.*trajectories"),
    (lambda t, y, p: y + y[[0, 0, 1, 2, 3]], "np.getitem.*trajectories"),
    (lambda t, y, p: y * np.max(y, 0), "np.max.*batch"),
    (lambda t, y, p: np.cumsum(y, 0), "np.cumsum.*batch"),
    (lambda t, y, p: 0.1 * (p @ p.T) @ y, "np.add.*over the trajectories"),
    (lambda t, y, p: np.concatenate([y[1:], y[:1]], 0), "np.getitem.*trajectories"),
    (lambda t, y, p: np.sin(y.astype(np.float32)).astype(np.float64), "np.astype.*from float64 to float32.*one precision"),
    (lambda t, y, p: y * np.sum(p * np.sin(t), 1, keepdims=True), "np.multiply.*every trajectory"),
], ids=range(11))
def test_what_has_no_form_is_named(f, says):
    """And runs elsewhere with backend="replay"."""
    y0 = start((5, 3))
    with pytest.raises(NotFusable, match=says):
        rv.solve(f, y0, TS, ROWS, method=rv.RungeKutta("midpoint"), backend="native")
    plain, replay = (rv.solve(f, y0, TS, ROWS, method=rv.RungeKutta("midpoint"), backend=how) for how in ("eager", "replay"))
    assert replay.stats.backend == "replay"
    np.testing.assert_allclose(replay.ys, plain.ys, rtol=1e-12, atol=1e-12)


def test_a_compiler_that_refuses_names_the_operation(monkeypatch):
    monkeypatch.setitem(NAMED, "arctan", NAMED["arctan"]._replace(c="no_such_function({0})"))
    with pytest.raises(native.CompileError, match=r"arctan(.|\n)*no_such_function"):
        rv.solve(lambda t, y, p: np.arctan(y @ MATRIX) + np.sin(y), start((5, 3)), TS, None, backend="native")


def test_without_a_compiler(monkeypatch, caplog):
    """What was asked for cannot be had, and the message says what to do."""
    def none():
        raise native.NoCompiler("native: found no C++ compiler: install one, or use backend=\"replay\"")

    monkeypatch.setattr(native, "compiler", none)
    with pytest.raises(native.NoCompiler, match="replay"), caplog.at_level(logging.WARNING, "revode"):
        rv.solve(net, start((5, 3)), TS, make_params(), backend="native")
    assert not any(made is None for family in plans.programs.families.values() for made in family.made.values())


def test_a_batch_of_as_many_as_the_control_has_channels() -> None:
    """A row of three increments is no batch of three: the same gradient as the tape's, to rounding."""
    control = rv.LinearPath(np.linspace(0, 1, 21), np.random.default_rng(0).normal(size=(21, 3)))
    field = lambda t, y, p: np.stack([y * p, -y, np.sin(y)], -1)
    found = [rv.grad(lambda y0, p, b=b: np.sum(rv.solve(field, y0, np.linspace(0, 1, 21), p, control=control, method=rv.EES25(),
                                                        backend=b, save=[-1]).y1 ** 2), (0, 1))(np.ones((3, 2)), np.array(0.3))
             for b in ("eager", "native")]
    for a, b in zip(*found, strict=True):
        assert np.allclose(a, b, rtol=1e-11)          # 20 steps of an expansion by some units, each rounded to 1e-16


def test_a_parameter_without_entries_is_named() -> None:
    field = lambda t, y, p: -p["k"] * y + np.sum(p["none"])
    with pytest.raises(NotFusable, match="leaf 1 of params"):
        rv.grad(lambda p: np.sum(rv.solve(field, np.ones(2), np.linspace(0, 1, 11), p, backend="native").y1))(
            {"k": np.array(0.5), "none": np.zeros(0)})

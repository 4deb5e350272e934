"""Replay: the steps as planned NumPy calls give what the tape gives, in bits; with merged factors within a bound.

Every test solves twice, on the tape and by a program, and compares everything that comes out: saved and final states,
both gradients, the round trip, the counts of evaluations.
"""
from __future__ import annotations

import functools
import gc
import logging
import tracemalloc
import types
from itertools import pairwise

import numpy as np
import pytest

import revode as rv
from revode.compiled import backend, plans
from revode.compiled.backend import Backend
from revode.engine.tensor import RULES, Op
from tests import sde_cases
from tests.compiler import HERE, forget
from tests.method_cases import CASES as METHOD_CASES
from tests.method_cases import field, make_params, make_y0

EXACT = Backend("replay", auto=False, merge=False)
MERGED = Backend("replay", auto=False)
TS = 0.3 + np.array([0, 1, 4, 5, 8, 12, 13, 16, 20, 23, 24, 29, 30]) / 60         # 12 steps of many sizes over 1/2
METHODS = {name: case.method for name, case in METHOD_CASES.items() if case.reversible} | {
    "ees25": rv.EES25(), "ees27": rv.EES27(), "ees-corrected": rv.EES(4, correct=1), "near": rv.NearReversible("rk4")}
net = field(np)


@pytest.fixture(autouse=True)
def no_programs(monkeypatch):
    """Programs of other tests are forgotten, and so is what the backend has told."""
    forget(monkeypatch, strict=True)
    monkeypatch.setattr(backend, "_told", set())


def results(how, f, y0, params, ts=TS, state=None, **options):
    """Everything that a solve and its gradient give, by name; the cotangents of the saved states all differ.

    state: that of an earlier solve, to go on from; y0 is then its parts.
    """
    def loss(y0, params):
        start = {"state0": state._replace(parts=y0)} if state else {}
        sol = rv.solve(f, None if state else y0, ts, params, backend=how, **start, **options)
        leaves = rv.tree.flatten((sol.ys, sol.y1))[0]
        weights = [np.reshape(0.5 + np.arange(x.size) * 0.618 % 1, x.shape).astype(x.dtype) for x in leaves]
        return sum(np.sum(w * x * x) for w, x in zip(weights, leaves, strict=True)), sol

    (value, sol), gradients = rv.value_and_grad(loss, argnums=(0,) if params is None else (0, 1), has_aux=True)(y0, params)
    everything = {"value": value, "ts": sol.ts, "ys": sol.ys, "y1": sol.y1, "state": sol.state.parts, "gradients": gradients}
    found = {f"{name} {i}": np.asarray(x) for name, tree in everything.items() for i, x in enumerate(rv.tree.flatten(tree)[0])
             if x is not None and not isinstance(x, str)}
    return found | {"roundtrip": np.asarray(sol.stats.roundtrip or ()), "defect": np.asarray(sol.stats.defect)}, sol.stats


def assert_same(f, y0, params, how=EXACT, extra=None, **options):
    """The same bits from the tape and from the program; `extra`: evaluations and pullbacks more in a compiled sweep."""
    eager, told = results("eager", f, y0, params, **options)
    made, stats = results(how, f, y0, params, **options)
    assert (told.backend, stats.backend) == ("eager", "replay")
    assert eager.keys() == made.keys()
    for name, x in eager.items():
        assert (made[name].dtype, made[name].shape) == (x.dtype, x.shape), name
        np.testing.assert_array_equal(made[name], x, err_msg=name)
    if extra is not None:
        assert (stats.nfe - told.nfe, stats.nvjp - told.nvjp) == extra
        assert (stats.steps, stats.nfe_forward) == (told.steps, told.nfe_forward)
    return stats


# Methods, shapes, options ---------------------------------------------------------------------------------------------
@pytest.mark.sample(40)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 3), (2, 3, 3)], ids=str)
def test_every_method_and_batch(name, shape):
    """float64 and float32 in turn."""
    dtype = (np.float64, np.float32)[len(shape) % 2]
    case = METHOD_CASES.get(name)
    y0 = make_y0(case, shape, dtype=dtype) if case else np.random.default_rng(1).normal(size=shape).astype(dtype)
    assert_same(net, y0, make_params(dtype=dtype), method=METHODS[name], save=[0, 3, 4, 9])


COUNTED = ("coupled-midpoint", "coupled-rk4", "leapfrog-midpoint", "reversible-heun", "alf", "alf-damped", "verlet", "heun-4",
           "verlet-4")


@pytest.mark.parametrize("name", COUNTED)
def test_counts(name):
    """nfe and nvjp are those of the tape, forward as well as back."""
    case = METHOD_CASES[name]
    stats = assert_same(net, make_y0(case, (2, 3)), make_params(), method=case.method, extra=(0, 0))
    assert stats.nfe_forward == case.a_step * 12 + case.once


@pytest.mark.sample(12)
@pytest.mark.parametrize("save", [None, [], [-1], [0], [0, 1, 2, 12], slice(1, None, 3), [5, 6]], ids=str)
@pytest.mark.parametrize("resync", [None, 1, 5, 100])
def test_saved_and_kept_states(save, resync):
    for method in (rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9), rv.EES25()):
        assert_same(net, make_y0(METHOD_CASES["alf"], (2, 3)), make_params(), method=method, save=save,
                    gradient=rv.Reversible(resync=resync))


def test_backwards_in_time():
    assert_same(net, np.ones((2, 3)), make_params(), method=rv.ReversibleHeun(), ts=TS[::-1].copy())


def test_one_step_and_many():
    """Of the chunks of 512 steps in which values of the grid are computed there are one, two and a part."""
    for N in (1, 2, 512, 1100):
        assert_same(net, np.ones(3), make_params(), method=rv.Coupled("midpoint"), ts=np.linspace(0.0, 1.0, N + 1) ** 1.2, save=[-1])


def test_user_method():
    """Two copies that leap over each other, one of them with a parameter of its own."""
    leap = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h)), rv.Swap("y", "z"),
                                        rv.Shear("z", ("y",), lambda F, y: F(t1, y, h) + 0.1 * np.tanh(y) * F.params["b2"] * h)])
    assert_same(net, np.ones((2, 3)), make_params(), method=leap)


# Trees and parameters -------------------------------------------------------------------------------------------------
def pendulum(t, y, p):
    return {"q": y["v"] * p["s"], "v": -np.sin(y["q"]) + t * p["a"]}


def test_trees():
    params = {"s": np.array([0.7]), "a": np.array([0.1, -0.2]), "unused": np.ones((2, 2)), "name": "x", "k": 3, "none": None, "f": 1.5}
    for method in (rv.ReversibleHeun(), rv.Coupled("rk4", 0.9)):
        assert_same(pendulum, {"q": np.array([0.3, 1.0]), "v": np.array([0.2, -0.4])}, params, method=method)
        assert_same(lambda t, y, p: (np.tanh(y[0] @ p["W"]), -np.sum(y[0] ** 2) * p["s"] + y[1]), (np.ones((4, 2)), np.array(0.3)),
                    {"W": np.full((2, 2), 0.3), "s": 0.2}, method=method)


@pytest.mark.parametrize(("f", "params"), [
    (lambda t, y, p: -p * y, np.array(0.4)),
    (lambda t, y, p: -p * y, 0.4),
    (lambda t, y, p: -y * np.sin(t), None),
    (lambda t, y, p: np.tanh(y @ p[0][0] + p[0][1]) @ p[1][0], [(np.full((3, 4), 0.2), np.ones(4)), (np.full((4, 3), -0.3), None)]),
    (lambda t, y, p: y[..., p["i"]] * p["a"], {"i": np.array([2, 0, 1]), "a": np.array([0.3, -0.2, 0.1])}),
    (lambda t, y, p: -y * p["a"] if p["on"] else y, {"on": True, "a": np.array(0.3)}),
    (lambda t, y, p: -y * p["b"], {"c": np.ones((3, 3)), "b": np.array([0.3]), "a": np.ones(2)}),          # two that nobody uses
    (lambda t, y, p: np.broadcast_to(p["a"] * np.cos(t), y.shape), {"a": np.array([0.3, 0.1, -0.2])}),     # no y in it
    (lambda t, y, p: 0.5 * np.ones(y.shape), {"a": np.ones(3)}),                                           # a constant
    (lambda t, y, p: y, None),                                                                             # an input
], ids=range(10))
def test_parameters_of_every_kind(f, params):
    for method in (rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9)):
        assert_same(f, np.array([[0.4, -0.3, 0.8]] * 2), params, method=method)


def test_states_without_axes_or_features():
    for y0 in (np.array(0.7), np.linspace(-1.0, 1.0, 5)):
        for method in (rv.ReversibleHeun(), rv.Coupled("rk4", 0.9), rv.LeapfrogMidpoint()):
            assert_same(lambda t, y, p: -p * y * np.sin(t) + 0.1 * t, y0, np.array(0.4), method=method)


@rv.custom_vjp
def halved(x):
    """sin(x), whose gradient is half of what it is, by a number and an array of its own."""
    c, half = np.cos(x), np.full(x.shape[-1], 0.5)
    return np.sin(x), lambda g: (1.0 * g * half * c,)


AWKWARD = {
    "where on time": lambda t, y, p: np.where(t > 0.5, p["a"] * y, -0.3) + np.where(y > 0.1, 1.0, y),
    "bools": lambda t, y, p: (y > 0) * y * p["a"] - 2 * (y <= 0.2) + np.logical_and(y > 0, t > 0.4) * t,
    "shared": lambda t, y, p: y * (np.sin(t) * p["a"]) + np.sin(t) * p["a"] * (p["a"] * 2),
    "whole numbers": lambda t, y, p: 2 * y / 3 - p["a"] * y ** 3 / 10 + 1,
    "indices": lambda t, y, p: y[..., [0, 0, 2]] * p["a"] + np.flip(y, -1) * p["a"][[0, 0, 1]] + np.roll(y, 1, -1),
    "joined": lambda t, y, p: np.stack([y[..., 1], t * p["a"][0] * np.ones(y.shape[:-1]), y[..., 0] * y[..., 2]], -1),
    "products": lambda t, y, p: ((y[..., :, None] * y[..., None, :]) * p["W"]).sum(-1) + np.cumsum(y, -1) @ p["W"].T,
    "einsum": lambda t, y, p: np.einsum("bi,ij,bj->bi", y, p["W"], np.tanh(y)),
    "extremes": lambda t, y, p: np.max(y, axis=-1, keepdims=True) * p["a"] - np.min(y * p["a"], axis=-1, keepdims=True) * y,
    "sorted": lambda t, y, p: y * p["a"] + 0.1 * np.argsort(y, axis=-1),
    "norm over the batch": lambda t, y, p: (y - np.sum(y, 0)) * p["a"] / np.sqrt(1 + np.sum(y * y, 0)),
    "time alone": lambda t, y, p: np.sin(t) * np.ones_like(y),
    "place of the largest": lambda t, y, p: y * p["a"] * (np.argmax(y, -1)[..., None] + 1),
    "carried": lambda t, y, p: np.tanh(y * np.sin(t)) * np.exp(p["a"] * 0.3),
    "reshaped transposes": lambda t, y, p: p["a"] * np.reshape(np.reshape(y.T, (-1,))[::-1], y.shape),
    "ravelled flips": lambda t, y, p: -np.reshape(np.flip(y, 0).T.ravel(), y.shape) * p["a"],
    "reshaped slices": lambda t, y, p: np.reshape(np.concatenate([y, y], -1)[:, ::2].T, (4, 3)) * p["a"],
    "reshaped broadcasts": lambda t, y, p: np.reshape(np.broadcast_to(y[:, None], (4, 2, 3)), (8, 3))[::2] * p["a"],
    "custom vjp": lambda t, y, p: -halved(y) * p["a"],
    "a stopped gradient": lambda t, y, p: -y * p["a"] * rv.engine.derivatives.stop_gradient(np.sin(y)),
    "counts": lambda t, y, p: -p["a"] * y * (3 * y).astype(int) + (y > 0.2).astype(float) * 0.1,
    "numbers for an array": lambda t, y, p: np.where(True, y, 0.0) * p["a"] + np.where(np.arange(3), y, 0.5),
}


# NumPy makes float64 of float32 and whole numbers there
WIDENING = {"bools", "counts", "custom vjp", "joined", "sorted", "numbers for an array", "place of the largest"}


@pytest.mark.sample(20)
@pytest.mark.parametrize(("name", "dtype"), [*((name, np.float64) for name in AWKWARD),
                                             *((name, np.float32) for name in AWKWARD if name not in WIDENING)])
def test_awkward_fields(name, dtype):
    params = {"a": np.array([0.4, -0.3, 0.2], dtype), "W": (0.3 * np.random.default_rng(0).normal(size=(3, 3))).astype(dtype)}
    for method in (rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9)):
        assert_same(AWKWARD[name], (0.5 * np.random.default_rng(1).normal(size=(4, 3))).astype(dtype), params, method=method)


def held_inputs(f, y0, p, ts, lam=0.999):
    """A literal loop of Coupled("rk4"), and the derivative of sum(y1^2) by p with a complex step: f(t, y, p) on plain arrays."""
    def rk4(t, y, p, h):
        k1 = f(t, y, p)
        k2 = f(t + h / 2, y + h / 2 * k1, p)
        k3 = f(t + h / 2, y + h / 2 * k2, p)
        k4 = f(t + h, y + h * k3, p)
        return h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def value(p):
        y = z = y0 + 0j
        for t0, t1 in pairwise(ts.tolist()):
            h = t1 - t0
            y = lam * y + (1 - lam) * z + rk4(t0, z, p, h)
            z = z - rk4(t1, y, p, -h)
        return np.sum(y * y)

    return value(p).real, value(p + 1e-30j).imag / 1e-30


LEVELS, ROWS = np.array([0.0, 1.0, 2.0, 1.0, 0.0, 0.0]), np.arange(12.0).reshape(6, 2) / 10
TABLES = {
    "a vector": lambda t, y, p: -p * y + LEVELS[np.floor(t / 0.4).astype(int)],
    "rows": lambda t, y, p: -p * y + ROWS[np.floor(t / 0.4).astype(int)],
    "take": lambda t, y, p: -p * y + np.take(ROWS, np.floor(t / 0.4).astype(int), axis=0),
    "searched": lambda t, y, p: -p * y + LEVELS[np.searchsorted(np.array([0.33, 0.7, 1.41]), t)],
    "between": lambda t, y, p: -p * y + 0.3 * np.logical_and(t > 0.51, t < 1.01).astype(int),
    "a dict": lambda t, y, p: -p * y * {0: 1.0, 1: 2.0}.get(int(np.floor(t * 1.01).astype(int)), 0.5),
    "a loop": lambda t, y, p: -p * y * sum(0.5 for _ in range(1 + int(np.floor(2.01 * t).astype(int)))),
}


@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize("name", TABLES)
def test_tables_that_are_looked_up_at_a_time(name):
    """Inputs held between samples, against a literal loop with a complex step: 400 steps of some 100 roundings, 1e-11."""
    y0, ts, p = np.array([1.0, 0.5]), np.linspace(0.0, 2.0, 401), np.array(0.9)
    value, slope = held_inputs(TABLES[name], y0, 0.9, ts)
    for how in ("auto", EXACT, MERGED):
        def loss(p, how=how):
            sol = rv.solve(TABLES[name], y0, ts, p, method=rv.Coupled("rk4"), backend=how, save=[-1])
            assert sol.stats.backend == "replay"
            return np.sum(sol.y1 ** 2)

        found, gradient = rv.value_and_grad(loss)(p)
        np.testing.assert_allclose([found, gradient], [value, slope], rtol=1e-11)


def test_another_table_is_looked_up(monkeypatch):
    """The same programs, another table; and a window of which the table is another part."""
    made = count_programs(monkeypatch)
    for table, start in ((LEVELS, 0.0), (LEVELS ** 2 + 0.5, 0.0), (LEVELS, 0.7)):
        monkeypatch.setitem(globals(), "LEVELS", table)
        y0, ts = np.array([1.0, 0.5]), start + np.linspace(0.0, 1.0, 201)
        value, slope = held_inputs(TABLES["a vector"], y0, 0.9, ts)
        found, gradient = rv.value_and_grad(lambda p, ts=ts, y0=y0: np.sum(rv.solve(
            TABLES["a vector"], y0, ts, p, method=rv.Coupled("rk4"), backend=EXACT, save=[-1]).y1 ** 2))(np.array(0.9))
        np.testing.assert_allclose([found, gradient], [value, slope], rtol=1e-11)
    assert len(made) == 2


def test_a_row_of_the_table_that_is_no_ufunc(monkeypatch):
    """A function that NumPy dispatches, with a rule of its own, is found on the tape and in programs."""
    monkeypatch.setitem(RULES, np.sinc, Op("sinc", np.sinc, (lambda g, y, a: g * (np.cos(np.pi * a) - y) / a,)))
    assert_same(lambda t, y, p: -np.sinc(y) * p, np.full((2, 3), 0.7), np.array(0.4), method=rv.ReversibleHeun())


def test_rows_in_the_order_of_columns():
    """A y0 in Fortran's order gives the bits that it gives on the tape."""
    y0 = np.asfortranarray(np.random.default_rng(0).normal(size=(4, 3)))
    for method in (rv.ReversibleHeun(), rv.Coupled("midpoint")):
        assert_same(net, y0, make_params(), how="auto", ts=np.linspace(0.0, 1.0, 251), method=method)


# Noise, controls, gradients inside, adaptive grids, resumed solves ----------------------------------------------------
@pytest.mark.sample(8)
@pytest.mark.parametrize("kind", [*sde_cases.NOISES, "ito", "tree"])
@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("heun2", 0.9), rv.EES25()], ids=repr)
def test_noise(kind, method):
    dtype = np.float32 if kind == "ito" else np.float64
    noise = rv.BrownianTree(3, 0.0, 1.0) if kind == "tree" else rv.Brownian(3)
    options = {"interpretation": "ito"} if kind == "ito" else {}
    diffusion = sde_cases.NOISES.get(kind, sde_cases.diagonal)(np)
    for y0 in (sde_cases.Y0, sde_cases.Y0[0]):
        assert_same(net, y0.astype(dtype), sde_cases.make(dtype), method=method, ts=sde_cases.TS, diffusion=diffusion, noise=noise,
                    **options)


KNOTS = np.array([0.0, 0.3, 0.45, 0.8, 1.0])


@pytest.mark.parametrize("path", [rv.LinearPath, rv.Rectilinear, rv.HermiteCubic])
@pytest.mark.parametrize("batch", [(), (4,)], ids=["one series", "a series each"])
def test_controls(path, batch):
    control = path(KNOTS, 0.03 * np.random.default_rng(8).normal(size=(*batch, 5, 2)))
    ts = np.unique(np.concatenate([np.linspace(control.times[0], control.times[-1], 13), control.times]))
    V = 0.5 * np.random.default_rng(6).normal(size=(3, 6))
    for method in (rv.ReversibleHeun(), rv.Coupled("heun2", 0.9)):
        assert_same(lambda t, y, p: np.reshape(np.tanh(y @ p + t), (*y.shape, 2)), 0.3 * np.ones((4, 3)), V, ts=ts, method=method,
                    control=control)


def flow(t, y, p):
    """A continuous normalizing flow: points, and the logarithm of their density, whose rate is a trace (a vjp inside)."""
    x = y[..., :2]
    v, pull = rv.vjp(lambda x: np.tanh(x @ p["A"] + p["c"] * t) @ p["B"], x)
    e = np.array([1.0, -1.0]) * np.ones_like(x)
    return np.concatenate([v, -np.sum(pull(e)[0] * e, -1, keepdims=True)], -1)


def test_gradients_inside_the_field():
    rng = np.random.default_rng(2)
    params = {"A": rng.normal(size=(2, 4)), "c": rng.normal(size=4), "B": 0.3 * rng.normal(size=(4, 2))}
    for method in (rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9)):
        assert_same(flow, rng.normal(size=(4, 3)), params, method=method)
        assert_same(lambda t, y, p: -rv.grad(lambda y: np.sum(np.tanh(y @ p["A"]) ** 2))(y), rng.normal(size=(3, 2)),
                    {"A": 0.3 * params["A"]}, method=method)


@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("bosh3", 0.99)], ids=repr)
def test_adaptive_grids_are_replayed_backwards(method):
    """The forward solve chooses the grid on the tape; the way back is a program."""
    options = {"ts": (0.0, 2.0), "method": method, "controller": rv.PID(1e-4, 1e-4)}
    stats = assert_same(net, np.ones((2, 3)), make_params(), **options)
    assert stats.steps > 5
    assert_same(net, np.ones((2, 3)), make_params(), save_at=[0.5, 1.7], **options)


def test_resumed_solves():
    """From the whole state of another solve, whose cotangents come back; the noise goes on where it was."""
    params, p = make_params(), sde_cases.make()
    for method in (rv.ReversibleHeun(), rv.AsynchronousLeapfrog(), rv.LeapfrogMidpoint(), rv.Coupled("midpoint", 0.9)):
        state = rv.solve(net, np.ones((2, 3)), TS[:5], params, method=method).state
        assert_same(net, state.parts, params, ts=TS[4:], state=state, method=method)
    noise = {"diffusion": sde_cases.diagonal(np), "noise": rv.Brownian(5), "method": rv.ReversibleHeun()}
    state = rv.solve(net, sde_cases.Y0, TS[:5], p, **noise).state
    assert_same(net, state.parts, p, ts=TS[4:], state=state, **noise)


def test_direct_and_checkpointed_solves_are_replayed():
    """Checkpointed has the same bits. Direct keeps states, and adds up each step's gradient before it adds it to those of the others:
    12 steps of 4 stages, and a sum over each."""
    for gradient, rtol in ((rv.Checkpointed(3), 0.0), (rv.Direct(), 60 * 2.0**-53)):
        first, _ = results("eager", net, np.ones(3), make_params(), method=rv.RungeKutta("rk4"), gradient=gradient)
        again, stats = results(EXACT, net, np.ones(3), make_params(), method=rv.RungeKutta("rk4"), gradient=gradient)
        assert stats.backend == "replay"
        for name, x in first.items():
            np.testing.assert_allclose(again[name], x, rtol=0, atol=rtol * abs(x).max(initial=0.0), err_msg=name)


def test_plain_solves_of_any_method():
    for method in (rv.RungeKutta("dopri5"), rv.RungeKutta("euler")):
        one, two = (rv.solve(net, np.ones((2, 3)), TS, make_params(), method=method, backend=how) for how in ("eager", EXACT))
        np.testing.assert_array_equal(one.ys, two.ys)
        assert (one.stats.nfe, two.stats.backend) == (two.stats.nfe, "replay")


@pytest.mark.parametrize("how", [EXACT, "replay", "native"], ids=["exact", "replay", "native"])
def test_a_state_that_overflows(how):
    """The error names the step at which it happened, as the tape does, however far the program had gone."""
    if how == "native" and not HERE:
        pytest.skip("no C++ compiler on this machine")
    messages = []
    for one in ("eager", how):
        with pytest.raises(FloatingPointError) as caught:
            rv.solve(lambda t, y, p: p * y * y, np.array([[2.0, 0.1]] * 3), np.linspace(0.0, 4.0, 401), np.array(1.0), save=[-1],
                     method=rv.RungeKutta("rk4"), backend=one)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "step " in messages[0]


def test_arrays_of_any_layout():
    """Parameters in Fortran's order and stretched ones, a read-only state with strides; matrices are copied, so products
    round in another order: 4.7e4 eps as below."""
    params = make_params() | {"W1": np.asfortranarray(make_params()["W1"]), "b2": np.broadcast_to(np.array(0.3), (3,))}
    y0 = np.random.default_rng(0).normal(size=(6, 8)).T[::2, :3]
    y0.setflags(write=False)
    eager, _ = results("eager", net, y0, params, method=rv.ReversibleHeun())
    made, stats = results(EXACT, net, y0, params, method=rv.ReversibleHeun())
    assert stats.backend == "replay"
    for name, x in eager.items():
        if name not in ("roundtrip", "defect"):
            assert abs(made[name] - x).max() <= 4.7e4 * 2.2e-16 * max(1e-3, abs(x).max()), name


# Merged factors -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.Coupled("midpoint", 0.9), rv.AsynchronousLeapfrog(0.8)], ids=repr)
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["64", "32"])
def test_merging_within_its_bound(method, dtype):
    """Merged factors and gathered products round differently, nothing else.

    A step adds at most 8 terms to a number (here |terms| <= 1: weights with sums <= 1, |y| <= 3), each of at most 4 merged
    factors, and is off by 8 (8 + 4) eps / 2 of the largest entry. Differences of one step grow by at most e^(L T) over the
    solve, back and forth (L = 1 the field's Lipschitz constant, T = 1/2; 1 / .8^12 = 15 for the damped leapfrog's way back),
    and there are 12 steps each way: 2 * 12 * 48 * 15 e eps = 4.7e4 eps. Seen: 10 eps.
    """
    y0, params = np.random.default_rng(0).normal(size=(3, 3)).astype(dtype), make_params(dtype=dtype)
    eager, _ = results("eager", net, y0, params, method=method)
    merged, stats = results(MERGED, net, y0, params, method=method)
    assert stats.backend == "replay"
    for name, x in eager.items():
        if name.split()[0] not in ("roundtrip", "defect"):
            assert abs(merged[name] - x).max() <= 4.7e4 * np.finfo(dtype).eps * max(1e-3, abs(x).max()), name


# Memory ---------------------------------------------------------------------------------------------------------------
@pytest.mark.long
def test_memory_does_not_grow_with_the_steps():
    """Four times the steps: the times and the steps themselves (8 bytes each, some copies), and nothing else."""
    params = make_params()

    def peak(N):
        def loss(y0):
            ts = np.linspace(0.0, 1.0, N + 1)
            return np.sum(rv.solve(net, y0, ts, params, method=rv.ReversibleHeun(), save=[-1], backend="replay").y1)

        rv.grad(loss)(y0)                                              # the program is made
        gc.collect()
        tracemalloc.start()
        rv.grad(loss)(y0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    y0 = np.ones((500, 3))                                             # a state takes 12 kB
    few, many = peak(1000), peak(4000)
    assert many - few <= 3000 * 8 * 20, (few, many)                    # a state for every 25 of the steps more would show


# Falling back ---------------------------------------------------------------------------------------------------------
def branching(t, y, p):
    return -p * y if np.sum(y) > 1.0 else -2 * p * y


def reads_values(t, y, p):
    return -p * np.abs(plain(y)) * y


def reads_parameters(t, y, p):
    return -plain(p) * y


def reads_the_time(t, y, p):
    return -p * y * np.sin(plain(t))


def formats(t, y, p):
    return -p * y * (0.1 * len(f"{t:.1f}"))


def keys(t, y, p):
    return -p * y * {0.0: 2.0}.get(t, 1.0)


def plain(x):
    while type(x) is rv.Tensor:
        x = x.value
    return x


@pytest.mark.sample(4, cover=False)
@pytest.mark.parametrize("f", [branching, reads_values, reads_parameters, reads_the_time, formats, keys], ids=lambda f: f.__name__)
@pytest.mark.parametrize("how", ["replay", "auto"])
def test_a_field_that_cannot_be_traced_runs_on_the_tape(f, how, caplog):
    """With ONE message, whatever is solved afterwards, and the right gradient, forward and back."""
    y0, ts = np.array([[0.9, 1.4, -0.8]] * 2), np.linspace(0.0, 0.5, 251)
    with caplog.at_level(logging.WARNING, "revode"):
        for p in (np.array(0.4), np.array(0.9)):
            for method in (rv.ReversibleHeun(), rv.Coupled("midpoint")):
                expected, _ = results("eager", f, y0, p, ts=ts, method=method)
                found, stats = results(how, f, y0, p, ts=ts, method=method)
                assert stats.backend == "eager"
                for name, x in expected.items():
                    np.testing.assert_array_equal(found[name], x, err_msg=name)
    assert len(caplog.records) == 1
    assert f.__name__ in caplog.text and "eager" in caplog.text


def test_native_is_not_replaced_in_silence():
    with pytest.raises(TypeError, match="branch on a value"):
        rv.solve(branching, np.ones((2, 3)), TS, np.array(0.4), backend="native", method=rv.ReversibleHeun())


def test_the_check_lets_through_what_is_not_defined_elsewhere():
    """A field that is defined for positive y alone is not suspected."""
    assert_same(lambda t, y, p: -p * np.sqrt(y) * np.log(y), np.full((2, 3), 2.0), np.array(0.4), method=rv.ReversibleHeun())


def test_errors_of_the_field_are_the_users_own():
    def broken(t, y, p):
        return y @ np.ones((5, 5))

    with pytest.raises(ValueError, match="matmul"):
        rv.solve(broken, np.ones((2, 3)), TS, None, backend="replay")


def test_auto_waits_until_it_pays(monkeypatch):
    """The first steps of a kind run on the tape; 200 of them, over all solves, and a program is made."""
    made = count_programs(monkeypatch)
    seen = []
    for _ in range(4):
        seen.append(rv.solve(net, np.ones((2, 3)), np.linspace(0.0, 1.0, 81), make_params(), method=rv.ReversibleHeun()).stats.backend)
    assert seen == ["eager", "eager", "replay", "replay"] and len(made) == 1


def test_auto_gives_the_bits_of_the_tape():
    assert_same(net, np.ones((2, 3)), make_params(), how="auto", ts=np.linspace(0.0, 1.0, 401), method=rv.ReversibleHeun())
    assert_same(net, np.ones((2, 3)), make_params(), how="auto", ts=np.linspace(0.0, 1.0, 401), method=rv.Coupled("midpoint"))


# Stale programs -------------------------------------------------------------------------------------------------------
def count_programs(monkeypatch):
    """A list that gets an entry for every program that is made."""
    made = []
    make = Backend.make
    monkeypatch.setattr(Backend, "make", lambda self, *args: made.append(1) or make(self, *args))
    return made


GLOBAL = np.array([1.0, 2.0, 3.0])
settings = types.ModuleType("settings_of_a_user")
settings.rate = GLOBAL


class Settings:
    rate = np.array([1.0, 2.0, 3.0])


class Net:
    def __init__(self, W):
        self.W = W

    def field(self, t, y, p):
        return -self.W * y

    def __call__(self, t, y, p):
        return -self.W * y


def uses_global(t, y, p):
    return -GLOBAL * y


def calls_another(t, y, p):
    return uses_global(t, y, p) * 2


def uses_module(t, y, p):
    return -settings.rate * y


def uses_class(t, y, p):
    return -Settings.rate * y


def with_closure(W):
    return lambda t, y, p: -W * y


def with_default(W):
    def f(t, y, p, W=W):
        return -W * y
    return f


def with_keyword(W):
    def f(t, y, p, *, W=W):
        return -W * y
    return f


def with_partial(W):
    return functools.partial(lambda t, y, p, W: -W * y, W=W)


def with_method_of_an_array(W):
    dot = np.diag(W).dot
    return lambda t, y, p: -y * dot(np.ones(3))


def with_container(W):
    everything = {"layers": [(W, "tanh")]}
    return lambda t, y, p: -everything["layers"][0][0] * y


def with_attribute(W):
    def f(t, y, p):
        return -f.W * y
    f.W = W
    return f


def with_nested(W):
    def inner(y):
        return -W * y
    return lambda t, y, p: (lambda y: inner(y))(y)


MAKERS = [with_closure, with_default, with_keyword, with_partial, with_container, with_attribute, with_nested,
          with_method_of_an_array, lambda W: Net(W).field, lambda W: Net(W)]


def ends(f):
    """y1 by the tape and by a program."""
    return [rv.solve(f, np.ones((2, 3)), TS, None, method=rv.RungeKutta("midpoint"), backend=how).y1 for how in ("eager", EXACT)]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda f: f.__name__)
def test_arrays_that_the_field_holds_are_never_stale(maker):
    """Another array in the same place, and the same array with other numbers in it."""
    W = np.array([0.5, 1.0, 2.0])
    before = None
    for f in (maker(W.copy()), maker(3 * W), maker(W)):
        eager, made = ends(f)
        np.testing.assert_array_equal(made, eager)
        assert before is None or not np.array_equal(before, eager)
        before = eager
    W *= 5.0
    eager, made = ends(f)
    if maker is not with_method_of_an_array:                # np.diag has made a copy
        assert not np.array_equal(before, eager)
    np.testing.assert_array_equal(made, eager)


@pytest.mark.parametrize("f", [uses_global, calls_another, uses_module, uses_class], ids=lambda f: f.__name__)
def test_what_the_field_looks_up_is_never_stale(f, monkeypatch):
    before = ends(f)[0]
    for W in (np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.3, 0.3])):
        monkeypatch.setitem(globals(), "GLOBAL", W)
        monkeypatch.setattr(settings, "rate", W)
        monkeypatch.setattr(Settings, "rate", W)
        eager, made = ends(f)
        np.testing.assert_array_equal(made, eager)
        assert not np.array_equal(before, eager)
        W *= 2
        eager, made = ends(f)
        np.testing.assert_array_equal(made, eager)


def test_the_diffusion_is_never_stale():
    def ends(sigma, how):
        return rv.solve(net, np.ones((2, 3)), TS, make_params(), method=rv.RungeKutta("heun2"), backend=how, noise=rv.Brownian(1),
                        diffusion=lambda t, y, p: sigma * y).y1

    for sigma in (np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.2, 0.1])):
        np.testing.assert_array_equal(ends(sigma, EXACT), ends(sigma, "eager"))


def test_trees_of_equal_size_are_told_apart():
    """The same numbers in one array, under other names."""
    def f(t, y, p):
        return {name: -(1 + sorted(y).index(name)) * x for name, x in y.items()}

    for names in ("ab", "ba", "bc"):
        y0 = {name: np.array([1.0 + k, 2.0]) for k, name in enumerate(names)}
        one, two = (rv.solve(f, y0, TS, None, method=rv.RungeKutta("rk4"), backend=how).y1 for how in ("eager", EXACT))
        for name in names:
            np.testing.assert_array_equal(one[name], two[name])


def test_functions_that_differ_inside_are_told_apart():
    """The same instructions with other names in them; constants that compare equal."""
    pairs = [(lambda t, y, p: np.sin(y), lambda t, y, p: np.cos(y)),
             (lambda t, y, p: rv.grad(lambda x: np.sum(np.sin(x)))(y), lambda t, y, p: rv.grad(lambda x: np.sum(np.cos(x)))(y)),
             (lambda t, y, p: y * 1.0 + np.maximum(0 * y, 0.0) / 1, lambda t, y, p: y * 1.5 + np.maximum(0 * y, 0.0) / 1)]
    for pair in pairs:
        for f in pair:
            eager, made = ends(f)
            np.testing.assert_array_equal(made, eager)
    def outer(first):
        a, b = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
        return (lambda t, y, p: -a * y + 0 * b) if first else (lambda t, y, p: -b * y + 0 * a)
    for first in (True, False):
        eager, made = ends(outer(first))
        np.testing.assert_array_equal(made, eager)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda f: f.__name__)
def test_arrays_that_the_field_holds_are_inputs(maker, monkeypatch):
    """A field that is defined anew, with the same numbers or others: one program."""
    made = count_programs(monkeypatch)
    for W in ([0.5, 1.0, 2.0], [0.5, 1.0, 2.0], [0.5, 1.0, 2.5], [3.0, 3.0, 3.0]):
        ends(maker(np.array(W)))
    assert len(made) == 1


def test_what_a_program_depends_on(monkeypatch):
    """Numbers that a program reads may change; shapes, dtypes, methods and whole-number parameters make another one."""
    made = count_programs(monkeypatch)

    def ran(y0=None, ts=TS, p=0.3, n=2, method=None, **more):
        before, y0, method = len(made), np.ones((2, 3)) if y0 is None else y0, method or rv.ReversibleHeun()
        one, two = (rv.solve(lambda t, y, p: -p["p"] * y ** p["n"], y0, ts, {"p": np.asarray(p, y0.dtype), "n": n}, method=method,
                             backend=how, **more).y1 for how in ("eager", EXACT))
        np.testing.assert_array_equal(one, two)
        return len(made) - before

    assert ran() == 1
    assert [ran(p=0.7), ran(ts=TS[:7] + 1), ran(y0=2 * np.ones((2, 3))), ran(save=[-1])] == [0, 0, 0, 0]
    assert [ran(n=3), ran(y0=np.ones((3, 3))), ran(y0=np.ones((2, 3), np.float32)), ran(method=rv.Coupled("midpoint")),
            ran(method=rv.Coupled("midpoint", 0.7))] == [1] * 5
    noise = {"diffusion": lambda t, y, p: 0.1 * y, "method": rv.ReversibleHeun()}
    assert [ran(noise=rv.Brownian(1), **noise), ran(noise=rv.Brownian(2), **noise)] == [1, 0]


def test_few_programs_are_kept(monkeypatch):
    """The least recently used is forgotten first; what is kept can be seen, and emptied."""
    kept = plans.Programs(3)
    monkeypatch.setattr(plans, "programs", kept)
    made = count_programs(monkeypatch)
    fields = [lambda t, y, p, n=n: -sum(y for _ in range(n + 1)) for n in range(6)]
    for f in (*fields[:3], fields[0], *fields[3:5], fields[0]):
        ends(f)
    assert (len(kept), len(made)) == (3, 5)
    kept.clear()
    ends(fields[0])
    assert (len(kept), len(made)) == (1, 6)

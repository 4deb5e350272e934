"""Forward mode: every operation against the complex step, solves against the complex step and finite runs, custom operations."""
from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from engine_table import CASES, Case

import revode as rv
from revode import nn
from revode.compiled.program import trace
from revode.engine.tangents import EACH, FIRST, SLOPES, TANGENTS, TOGETHER
from revode.engine.tensor import RULES
from tests.compiler import needs_compiler

EPS = 2.0 ** -52


def complex_step(case: Case, v: list) -> Any:
    """The directional derivative of the analytic formula: nothing is subtracted."""
    h = 1e-30
    return np.imag(case.formula(*(x + 1j * h * d for x, d in zip(case.args, v, strict=True)))) / h


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operation_against_the_complex_step(case: Case) -> None:
    rng = np.random.default_rng(3)
    v = [np.asarray(rng.standard_normal(np.shape(x))) for x in case.args]
    found = rv.jvp(lambda x: case.fn(*x))(case.args, tuple(v))
    with np.errstate(all="ignore"):
        truth = complex_step(case, v)
    assert np.shape(found) == np.shape(truth)
    # rounding of some tens of operations, of terms that may be larger than their sum; factorisations divide by gaps
    scale = np.max(np.abs(truth), initial=1.0)
    assert np.max(np.abs(found - truth), initial=0.0) < 2000 * EPS * scale


WIDER = ("linalg.", "percentile", "nanpercentile", "ediff1d")        # no loops, or numbers of float64 in the case itself


@pytest.mark.parametrize("case", [case for case in CASES if not case.name.startswith(WIDER)], ids=lambda case: case.name)
def test_float32_stays_float32_both_ways(case: Case) -> None:
    """No mask makes float64 of a pullback or of a tangent: loops compute in one precision, and refuse to come back from another."""
    args = tuple(x.astype(np.float32) for x in case.args)
    ways: dict[str, Callable] = {"value": case.fn, "pull": lambda *x: rv.vjp(case.fn, *x)[1](np.ones_like(case.fn(*x))),
                                 "tangent": lambda *x: rv.jvp(lambda x: case.fn(*x))(x, x)}
    for name, way in ways.items():
        try:
            made = trace(lambda given, way=way: dict(enumerate(rv.tree.flatten(way(*given.values()))[0])), dict(enumerate(args)))
        except Exception:
            continue                                    # it has no program
        wide = [x.op.name for x in made.values if x.op is not None and x.dtype == np.float64]
        if name == "value" and wide:
            return                                      # which the function asks for
        assert not wide, (name, wide)


def test_every_operation_that_has_a_pullback_has_a_tangent() -> None:
    """Those of the table; a row that is added without one is refused by name when it is met, and red here before."""
    known = TOGETHER | FIRST | EACH | set(SLOPES) | set(TANGENTS)
    assert {op.name for op in RULES.values()} <= known


LAYERS = {
    "softmax": (lambda x: nn.softmax(x), (2, 5)),
    "layer_norm": (lambda x: nn.layer_norm(x, np.arange(1.0, 6.0), np.ones(5)), (2, 5)),
    "layer_norm with weights": (lambda x: nn.layer_norm(x[:2], x[2], x[3]), (4, 5)),
    "gelu": (lambda x: nn.gelu(x), (7,)),
    "gelu_tanh": (lambda x: nn.gelu_tanh(x), (7,)),
    "attention": (lambda x: nn.attention(x[0], x[1], x[2], causal=True), (3, 2, 4, 3)),
    "all see all": (lambda x: nn.attention(x[0], x[1], x[2], causal=False), (3, 2, 4, 3)),
    "cross_entropy": (lambda x: nn.cross_entropy(x, np.array([1, 0, 4])), (3, 5)),
    "embedding": (lambda x: nn.embedding(x, np.array([[0, 2], [2, 1]])), (3, 4)),
    "linear": (lambda x: nn.linear(x[:2], x[2:5], x[5]), (6, 3)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_against_central_differences(layer: str, caplog: pytest.LogCaptureFixture) -> None:
    """The complex step does not get through their code; eps^(2/3) is what is left of central differences, times 100."""
    caplog.set_level("INFO", logger="revode")
    fn, shape = LAYERS[layer]
    rng = np.random.default_rng(1)
    x, v = rng.standard_normal(shape), rng.standard_normal(shape)
    h = EPS ** (1 / 3)
    truth = (fn(x + h * v) - fn(x - h * v)) / (2 * h)
    assert np.max(np.abs(rv.jvp(fn)(x, v) - truth)) < 100 * EPS ** (2 / 3) * np.max(np.abs(truth))
    assert "central differences" not in caplog.text          # by rules of their own
    # and a direction in float32: some hundred roundings
    single = rv.jvp(fn)(x.astype(np.float32), v.astype(np.float32))
    assert np.max(np.abs(single - truth)) < 300 * 2.0 ** -24 * np.max(np.abs(truth))


# ---------------------------------------------------------------------------------------- through solves

rng = np.random.default_rng(11)
PARAMS = {"W": 0.5 * rng.standard_normal((3, 3)), "b": rng.standard_normal(3), "k": 0.7}
Y0 = rng.standard_normal((2, 3))
V = (rng.standard_normal((2, 3)), {"W": rng.standard_normal((3, 3)), "b": rng.standard_normal(3), "k": 0.3})
TS = np.linspace(0.0, 1.0, 41) ** 1.2


def network(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"] * t) - p["k"] * y


def acceleration(t: Any, q: Any, p: Any) -> Any:
    return -p["k"] * np.sin(q @ p["W"]) + p["b"] * t


METHODS = [rv.RungeKutta("rk4"), rv.Coupled("midpoint", lam=0.99), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(eta=0.9),
           rv.LeapfrogMidpoint(), rv.Composition(rv.ReversibleHeun()), rv.EES27(), rv.EES(stages=5), rv.NearReversible("tsit5"),
           rv.VelocityVerlet(), rv.SemiImplicitEuler()]


def held_against_the_gradient(solve: Any, y0: Any, v: Any, params: Any = PARAMS) -> None:
    """<g, v> of full backpropagation, whose rules are others, and jvp along v."""
    def loss(x: Any) -> Any:
        sol = solve(*x)
        return sum(np.sum(np.sin(y)) for y in rv.tree.flatten(sol.ys)[0]) + sum(np.sum(y ** 2) for y in rv.tree.flatten(sol.y1)[0])

    grads = rv.grad(loss)((y0, params))
    expected = sum(float(np.sum(a * b)) for a, b in zip(rv.tree.flatten(grads)[0], rv.tree.flatten(v)[0], strict=True))
    found = rv.jvp(loss)((y0, params), v)
    assert np.shape(found) == ()
    # forty steps of some hundred operations each way
    assert abs(found - expected) < 1e5 * EPS * sum(float(np.sum(np.abs(a * b))) for a, b in zip(
        rv.tree.flatten(grads)[0], rv.tree.flatten(v)[0], strict=True))


@pytest.mark.filterwarnings("ignore::revode.RevodeWarning")
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_tangent_of_a_solve(method: Any) -> None:
    split = len(method.outputs) > 1
    y0, v = ((Y0, 0.5 * Y0), ((V[0], V[0][::-1]), V[1])) if split else (Y0, V)
    field = acceleration if split else network
    held_against_the_gradient(lambda y0, p: rv.solve(field, y0, TS, p, method=method, save=slice(0, None, 7), gradient=rv.Direct()),
                              y0, v)


def test_a_loop_of_complex_numbers() -> None:
    """RK4 by hand on complex numbers, where nothing of the project has a part."""
    def rk4(y: Any, p: Any) -> Any:
        for t, s in pairwise(TS):
            h = s - t
            k1 = network(t, y, p)
            k2 = network(t + h / 2, y + h / 2 * k1, p)
            k3 = network(t + h / 2, y + h / 2 * k2, p)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + network(s, y + h * k3, p))
        return y

    step = 1e-30j
    truth = np.imag(rk4(Y0 + step * V[0], {k: x + step * V[1][k] for k, x in PARAMS.items()})) / 1e-30
    found = rv.jvp(lambda x: rv.solve(network, x[0], TS, x[1], method=rv.RungeKutta("rk4")).y1)((Y0, PARAMS), V)
    assert np.max(np.abs(found - truth)) < 1e4 * EPS * np.max(np.abs(truth))


def test_noise_a_control_adaptive_steps_and_a_state_that_goes_on() -> None:
    noise = {"diffusion": lambda t, y, p: 0.3 * np.cos(y) * p["k"], "method": rv.ReversibleHeun(), "gradient": rv.Direct()}
    held_against_the_gradient(lambda y0, p: rv.solve(network, y0, TS, p, noise=rv.Brownian(5), **noise), Y0, V)
    held_against_the_gradient(lambda y0, p: rv.solve(network, y0, TS, p, noise=rv.BrownianTree(5, 0.0, 1.0), **noise), Y0, V)
    held_against_the_gradient(lambda y0, p: rv.solve(network, y0, TS, p, noise=rv.Brownian(5), interpretation="ito", **noise), Y0, V)
    times = np.linspace(0.0, 1.0, 21)
    control = rv.HermiteCubic(times, np.stack([times, np.sin(3 * times)], -1))
    held_against_the_gradient(lambda y0, p: rv.solve(lambda t, y, p: np.stack([np.tanh(y @ p["W"]), p["k"] * y], -1), y0, times, p,
                                                     control=control,
                                                     method=rv.RungeKutta("rk4"), gradient=rv.Direct()), Y0, V)
    held_against_the_gradient(lambda y0, p: rv.solve(network, y0, (0.0, 1.0), p, controller=rv.PID(1e-5, 1e-7),
                                                     method=rv.Coupled("bosh3", lam=0.9), gradient=rv.Direct()), Y0, V)

    def twice(y0: Any, p: Any) -> Any:
        first = rv.solve(network, y0, TS[:21], p, method=rv.Coupled(lam=0.9), gradient=rv.Direct())
        return rv.solve(network, None, TS[20:], p, state0=first.state, gradient=rv.Direct())
    held_against_the_gradient(twice, Y0, V)


def test_a_tree_and_float32() -> None:
    y0 = {"a": Y0.astype(np.float32), "b": [Y0[:, :1].astype(np.float32)]}
    v = {"a": V[0].astype(np.float32), "b": [V[0][:, :1].astype(np.float32)]}

    def field(t: Any, y: Any, p: Any) -> Any:
        return {"a": np.sin(y["a"]) * p, "b": [y["a"][:, :1] * y["b"][0]]}

    found = rv.jvp(lambda y0: rv.solve(field, y0, TS, 0.5, method=rv.RungeKutta("rk4")).y1)(y0, v)
    assert found["a"].dtype == np.float32
    double = rv.jvp(lambda y0: rv.solve(field, y0, TS, 0.5, method=rv.RungeKutta("rk4")).y1)(
        rv.tree.map(lambda x: x.astype(float), y0), rv.tree.map(lambda x: x.astype(float), v))
    for a, b in zip(rv.tree.flatten(found)[0], rv.tree.flatten(double)[0], strict=True):
        assert np.max(np.abs(a - b)) < 40 * 2.0 ** -23 * np.max(np.abs(b))


@pytest.mark.parametrize("backend", ["eager", "replay"])
def test_memory_does_not_grow_with_the_steps(backend: str) -> None:
    import tracemalloc
    peaks = []
    for N in (50, 400):
        ts = np.linspace(0.0, 1.0, N + 1)
        y0 = np.ones((100, 100))

        def end(k: Any, ts: Any = ts, y0: Any = y0) -> Any:
            return rv.solve(lambda t, y, k: -k * y, y0, ts, k, method=rv.ReversibleHeun(), save=[-1], backend=backend).y1
        rv.jvp(end)(np.array(1.0), np.array(1.0))
        tracemalloc.start()
        rv.jvp(end)(np.array(1.0), np.array(1.0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# ---------------------------------------------------------------------------------------- by programs

def turning(t: Any, y: Any, p: Any) -> Any:
    """(..., d, 2): what general noise and controls of two channels take."""
    return np.stack([np.tanh(y @ p["W"]), p["k"] * np.cos(y + t)], -1)


TIMES = np.linspace(0.0, 1.0, 21)
PATH = np.stack([TIMES, np.sin(3 * TIMES)], -1)
SMALL = {"a": Y0.astype(np.float32)[0], "b": [Y0.astype(np.float32)[1, :2]]}
FEW = rv.tree.map(lambda x: x.astype(np.float32) if isinstance(x, np.ndarray) else x, PARAMS)


def of_tree(t: Any, y: Any, p: Any) -> Any:
    return {"a": np.sin(y["a"]) @ p["W"], "b": [y["a"][:2] * y["b"][0] * p["k"]]}


# name: (y0, params, (y0, params, **backend) -> a tree of what is to be differentiated)
SOLVES: dict[str, tuple] = {
    **{repr(m): (Y0, PARAMS, lambda y0, p, m=m, **o: rv.solve(network, y0, TS, p, method=m, save=[0, 7, 40], **o)[1])
       for m in METHODS[:-2]},
    "split": ((Y0, 0.5 * Y0), PARAMS, lambda y0, p, **o: rv.solve(acceleration, y0, TS, p, method=rv.VelocityVerlet(), **o)[1]),
    "a tree in float32": (SMALL, FEW, lambda y0, p, **o: rv.solve(of_tree, y0, TS, p, method=rv.RungeKutta("heun2"), **o)[4]),
    "diagonal noise": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        network, y0, TS, p, diffusion=lambda t, y, p: 0.3 * np.cos(y) * p["k"], noise=rv.Brownian(5), **o)[1]),
    "Ito": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        network, y0, TS, p, diffusion=lambda t, y, p: 0.3 * np.cos(y) * p["k"], noise=rv.Brownian(5), interpretation="ito",
        method=rv.ReversibleHeun(), **o)[1]),
    "general noise": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        network, y0, TS, p, diffusion=turning, noise=rv.Brownian(5), method=rv.ReversibleHeun(), **o)[1]),
    "a Brownian tree": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        network, y0, TS, p, diffusion=turning, noise=rv.BrownianTree(5, 0.0, 1.0), method=rv.Coupled(lam=0.99), **o)[4]),
    "a linear control": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        turning, y0, TIMES, p, control=rv.LinearPath(TIMES, PATH), method=rv.ReversibleHeun(), **o)[1]),
    "a smooth control": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        turning, y0, TIMES, p, control=rv.HermiteCubic(TIMES, PATH), method=rv.RungeKutta("midpoint"), **o)[1]),
    "an accepted grid": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        network, y0, (0.0, 1.0), p, controller=rv.PID(1e-5, 1e-7), method=rv.Coupled("bosh3", lam=0.9), **o)[1]),
    "an accepted grid with noise": (Y0, PARAMS, lambda y0, p, **o: rv.solve(
        network, y0, (0.0, 1.0), p, controller=rv.PID(1e-3, 1e-3), diffusion=lambda t, y, p: 0.1 * np.cos(y) * p["k"],
        noise=rv.BrownianTree(5, 0.0, 1.0), method=rv.ReversibleHeun(), save_at=[0.5, 1.0], **o)[1]),
    "a state that goes on": (Y0, PARAMS, lambda y0, p, **o: rv.solve(network, None, TS[20:], p, state0=rv.solve(
        network, y0, TS[:21], p, method=rv.AsynchronousLeapfrog(), **o).state, **o)[1]),
    "exact": (Y0, PARAMS, lambda y0, p, **o: rv.solve(network, y0, TS, p, method=rv.Coupled(lam=0.9), exact=True, **o)[4]),
    "a fixed point": (Y0, PARAMS, lambda y0, p, **o: rv.fixed_point(
        lambda z, p, x: 0.3 * np.tanh(z @ p["W"] + x), y0, p, Y0, tol=1e-6, **o).z),
    "so many iterations": (Y0, PARAMS, lambda y0, p, **o: rv.fixed_point(
        lambda z, p, x: 0.3 * np.tanh(z @ p["W"] + x), y0, p, Y0, method=rv.Picard(0.7), tol=None, max_steps=9, gradient=rv.Direct(),
        **o).z),
}


# what is compiled for its own sake: the other methods are words and flows of the same lines
COMPILED = [name for name in SOLVES if name not in map(repr, METHODS) or name in ("ReversibleHeun()", "EES27()")]


@pytest.mark.sample(10, cover=False)
@pytest.mark.parametrize("name, backend", [*((name, "replay") for name in SOLVES), *(
    pytest.param(name, "native", marks=needs_compiler) for name in COMPILED)])
@pytest.mark.filterwarnings("ignore::revode.RevodeWarning")
def test_by_programs_it_is_that_of_the_tape(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import revode.tangent as rooms
    y0, params, solved = SOLVES[name]
    rng = np.random.default_rng(5)
    v = rv.tree.map(lambda x: rng.standard_normal(np.shape(x)).astype(getattr(x, "dtype", float)), (y0, params))
    # One rounding moves a grid that is accepted under noise, and a rough path with it: there native is held against its mirror,
    # which has its bits, and replay against the tape.
    rough = (name, backend) == ("an accepted grid with noise", "native")
    other, how = ("replay", {"arithmetic": "strict"}) if rough else ("eager", {})
    truth = rv.jvp(lambda x: solved(*x, backend=other, **how))((y0, params), v)

    def refuse(*args: Any) -> None:
        raise AssertionError("the tape had to do it")

    monkeypatch.setattr(rooms, "on_tape", refuse)
    found = rv.jvp(lambda x: solved(*x, backend=backend, **how))((y0, params), v)
    for a, b in zip(rv.tree.flatten(found)[0], rv.tree.flatten(truth)[0], strict=True):
        # forty steps of some hundred operations; native contracts products and sums, and its tanh is another one
        assert a.dtype == b.dtype
        assert np.max(np.abs(a - b)) < 1e4 * float(np.finfo(b.dtype).eps) * np.max(np.abs(b))


def test_methods_of_others_need_not_be_linear() -> None:
    """A word that multiplies two parts: its own tangent is not what it makes of (y, dy), so the tape does it."""
    word = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h) * z),
                                        rv.Shear("z", ("y",), lambda F, y: h * y * y)])

    class Squared:
        parts, outputs, exactly_reversible = ("y",), ("y",), False

        def start(self, F: Any, step: Any, y: Any) -> dict:
            return {"y": y}

        def flow(self, F: Any, t0: Any, t1: Any, y: Any, dx: Any, errors: Any = None) -> Any:
            return y + F(t0, y, dx) * y

    for method in (word, Squared()):
        eager, replay = (rv.jvp(lambda x, b=b, m=method: rv.solve(network, x[0], TS, x[1], method=m, backend=b,     # type: ignore[arg-type]
                                                                  gradient=rv.Direct()).y1)((Y0, PARAMS), V)
                         for b in ("eager", "replay"))
        assert np.array_equal(eager, replay)


def test_a_gradient_of_a_tangent_stays_on_the_tape() -> None:
    of = lambda k, b: np.sum(rv.jvp(lambda y0: rv.solve(network, y0, TS, {**PARAMS, "k": k}, method=rv.RungeKutta("rk4"), backend=b,
                                                        gradient=rv.Direct()).y1)(Y0, V[0]))
    assert rv.grad(lambda k: of(k, "replay"))(0.7) == pytest.approx(rv.grad(lambda k: of(k, "eager"))(0.7), rel=1e-12)


# ---------------------------------------------------------------------------------------- custom operations, refusals

def test_custom_operations(caplog: pytest.LogCaptureFixture) -> None:
    wrong = rv.custom_vjp(lambda x: (np.sin(x), lambda g: (-g * np.cos(x),)))
    assert np.allclose(rv.jvp(wrong)(np.array([0.3]), np.array([1.0])), np.cos(0.3), rtol=1e-15)         # of the primal itself
    given = rv.custom_vjp(lambda x, y: (x * y, lambda g: (g * y, g * x)), jvp=lambda args, moved: 7.0 * moved[0])
    assert rv.jvp(lambda x: given(x, 2.0))(np.array(3.0), np.array(1.0)) == 7.0

    def outside(x: Any) -> Any:
        value = np.array([float(v) ** 3 for v in np.asarray(x)], x.dtype)    # a loop of Python's numbers: no tensor gets through
        return value, lambda g: (3 * g * np.asarray(x) ** 2,)

    with caplog.at_level("INFO", logger="revode"):
        found = rv.jvp(rv.custom_vjp(outside))(np.array([0.5, -2.0]), np.array([1.0, 2.0]))
    assert np.allclose(found, [0.75, 24.0], rtol=1e-8)
    assert "central differences" in caplog.text
    # taken in float64, of what moves alone
    single = rv.jvp(rv.custom_vjp(outside))(np.array([0.5, -2.0], np.float32), np.array([1.0, 2.0], np.float32))
    assert single.dtype == np.float32
    assert np.allclose(single, [0.75, 24.0], rtol=1e-6)
    assert rv.jvp(rv.custom_vjp(outside))(np.array([0.5]), np.array([0.0])).tolist() == [0.0]
    assert rv.jvp(lambda x: np.sum(x * rv.stop_gradient(x)))(np.array([2.0]), np.array([1.0])) == 2.0


def test_a_jvp_of_a_gradient_is_a_hessian_times_a_vector() -> None:
    f = lambda x: np.sum(np.sin(x) * np.prod(x))
    x, v = np.array([0.4, -0.7, 1.2]), np.array([1.0, 0.5, -2.0])
    columns = np.stack([rv.grad(lambda x, e=e: np.sum(rv.grad(f)(x) * e))(x) for e in np.eye(3)])
    assert np.allclose(rv.jvp(rv.grad(f))(x, v), columns @ v, rtol=1e-13)


@pytest.mark.parametrize("one", [1, 1.0, True, np.float32(1.0), np.array(1)])
def test_a_direction_may_be_a_number(one: Any) -> None:
    """d (x^3) = 3 x^2, and its gradient 6 x, in powers of two."""
    for x in (0.5, np.float64(0.5), np.array(0.5)):
        assert rv.jvp(lambda p: p["x"] ** 3)({"x": x}, {"x": one}) == 0.75
        assert rv.grad(lambda x: rv.jvp(lambda x: x ** 3)(x, one))(x) == 3.0


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="made of real numbers"):                 # the imaginary part would be lost
        rv.jvp(lambda x: x ** 3)(np.ones(1), np.array([1j]))
    with pytest.raises(ValueError, match="give a direction like x"):
        rv.jvp(lambda p: p["a"])({"a": np.ones(2)}, {"b": np.ones(2)})
    with pytest.raises(ValueError, match="the two are equal"):
        rv.jvp(lambda x: x)(np.ones(2), np.ones(3))
    assert rv.jvp(lambda p: p["a"] + p["b"])({"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "b": None}).tolist() == [1.0, 1.0]
    assert rv.jvp(lambda x: (x, 3, "text"))(np.ones(2), np.ones(2))[1:] == (None, None)


# ---------------------------------------------------------------------------------------- through fixed points

@pytest.mark.parametrize("options", [
    {"gradient": rv.Direct()}, {"tol": None, "max_steps": 12, "gradient": rv.Direct()}, {"gradient": rv.Reversible()}, {},
    {"method": rv.Picard(), "gradient": rv.Direct()}, {"method": rv.Picard()}, {"method": rv.Anderson()},
    {"gradient": rv.Implicit("gmres")}], ids=repr)
def test_the_tangent_of_a_fixed_point(options: dict) -> None:
    rng = np.random.default_rng(4)
    p = {"W": 0.3 * rng.standard_normal((4, 4)), "b": rng.standard_normal(4)}
    x, z0 = rng.standard_normal((3, 4)), np.zeros((3, 4))
    args, v = (p, x), ({"W": rng.standard_normal((4, 4)), "b": rng.standard_normal(4)}, rng.standard_normal((3, 4)))
    options = {"tol": 1e-13, "atol": 0.0, "max_steps": 200, **options}

    def loss(args: Any) -> Any:
        return np.sum(rv.fixed_point(lambda z, p, x: np.tanh(z @ p["W"] + x + p["b"]), z0, *args, **options).z ** 2)

    grads = rv.grad(loss)(args)
    pairs = list(zip(rv.tree.flatten(grads)[0], rv.tree.flatten(v)[0], strict=True))
    found, expected = rv.jvp(loss)(args, v), sum(float(np.sum(a * b)) for a, b in pairs)
    # at the fixed point to 1e-13, whose derivative is off by 1 / (1 - L)^2 of that, L = 0.6 or so
    assert abs(found - expected) < 1e-10 * sum(float(np.sum(np.abs(a * b))) for a, b in pairs)

"""What is watched from the first value of the field to the last, what method=None means, and what times, tolerances,
tableaux and tapes have to be like."""
from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Callable
from fractions import Fraction as Q
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.oracles import trees
from revode import memory
from revode.methods import TABLEAUX

Y, TS = np.array([0.5, 1.0]), np.linspace(0.0, 1.0, 11)
EPS = 2.0**-52


def f(t: Any, y: Any, p: Any) -> Any:
    return -y


# ------------------------------------------------------------------------------------- the field, at every time

LATER: dict[str, tuple[Callable, type, str]] = {
    "one entry": (lambda y: -y[..., :1], ValueError, r"shape \(1,\) for y of shape \(2,\)"),
    "one more axis": (lambda y: y[None], ValueError, r"shape \(1, 2\)"),
    "a sum": (lambda y: np.sum(y), ValueError, r"shape \(\)"),
    "a float": (lambda y: 1.0, TypeError, "returned float .*np.full_like"),
    "an int": (lambda y: 0, TypeError, "returned int"),
    "nothing": (lambda y: None, TypeError, "NoneType.*return missing"),
    "a list": (lambda y: [y[0], y[1]], TypeError, "list.*np.stack"),
    "a tuple": (lambda y: (y[0], y[1]), TypeError, "tuple.*np.stack"),
    "whole numbers": (lambda y: np.ones(2, int), TypeError, "int64 for y of float64"),
    "bools": (lambda y: np.ones(2, bool), TypeError, "bool for y of float64"),
    "complex": (lambda y: 1j * np.ones(2), TypeError, "complex128 for y of float64"),
    "float32": (lambda y: np.ones(2, np.float32), TypeError, "float32 for y of float64"),
}
MODES = {"solve": None, "reversible": rv.Reversible(), "direct": rv.Direct(), "checkpointed": rv.Checkpointed(3),
         "backsolve": rv.Backsolve()}


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("mode", MODES)
def test_a_later_value_that_does_not_fit_is_refused_with_its_time(name: str, mode: str) -> None:
    """The field is as it should be up to t = .62; RK4 on steps of .1 meets .65 first."""
    value, kind, match = LATER[name]
    field = lambda t, y, p: p * y if t < 0.62 else value(y)
    run = lambda p: np.sum(rv.solve(field, Y, TS, p, gradient=MODES[mode], method=rv.NearReversible("rk4")).y1)
    with pytest.raises(kind, match=match) as caught:
        run(np.array(-1.0)) if mode == "solve" else rv.grad(run)(np.array(-1.0))
    assert "at t=0.65" in str(caught.value)


@pytest.mark.parametrize("backend", ["auto", "replay", "eager"])
@pytest.mark.parametrize("method", [rv.Coupled("midpoint"), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(), rv.EES25()], ids=repr)
def test_a_later_value_is_refused_by_every_method_and_backend(method: Any, backend: str) -> None:
    field = lambda t, y, p: -y if t < 0.62 else -y[:1]
    with pytest.raises(ValueError, match=r"shape \(1,\) for y of shape \(2,\) at t=0\.62"):
        rv.solve(field, Y, np.linspace(0.0, 1.0, 301), method=method, backend=backend)


@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0), (-1.0, 0.0)])
def test_adaptive_steps_and_time_backwards_watch_the_field_too(span: tuple) -> None:
    late = lambda t, y, p: -y if abs(t - span[0]) < 0.62 else 1j * y
    with pytest.raises(TypeError, match="complex128 for y of float64 at t="):
        rv.solve(late, Y, span, controller=rv.PID(1e-4, 1e-6))


def test_float64_in_a_float32_solve_is_seen_where_it_comes() -> None:
    for late in (lambda y: y * np.float64(2), lambda y: y.astype(np.float64), lambda y: np.ones(2)):
        with pytest.raises(TypeError, match=r"float64 for y of float32 at t=0\.65"):
            rv.solve(lambda t, y, p, late=late: -y if t < 0.62 else late(y), Y.astype(np.float32), TS)


def test_a_tree_is_watched_too() -> None:
    tree = {"a": Y, "b": [np.ones((2, 2))]}
    for late in (lambda y: {"a": y["a"]}, lambda y: {"a": y["a"][:1], "b": y["b"]}, lambda y: y["a"], lambda y: None):
        with pytest.raises(ValueError, match=r"at t=0\.65 where a tree like y0 is expected"):
            rv.solve(lambda t, y, p, late=late: y if t < 0.62 else late(y), tree, TS)


@pytest.mark.parametrize("late, match", [
    (lambda y: y[:1], r"shape \(1,\)"), (lambda y: np.ones((2, 2)), r"shape \(2, 2\)"), (lambda y: 0.1, "float"),
    (lambda y: y.astype(np.float32), "float32 for y of float64"), (lambda y: None, "NoneType"), (lambda y: 1j * y, "complex128")])
def test_a_diffusion_is_watched_too(late: Callable, match: str) -> None:
    g = lambda t, y, p: y if t < 0.93 else late(y)
    with pytest.raises((TypeError, ValueError), match=f"the diffusion returned {match}.* at t=0.9"):
        rv.solve(f, Y, TS, diffusion=g, noise=rv.Brownian(1))


def test_general_noise_keeps_its_channels() -> None:
    g = lambda t, y, p: np.ones((2, 3 if t < 0.93 else 4))
    with pytest.raises(ValueError, match=r"the diffusion returned shape \(2, 4\).*shape \(2, 3\) at the start"):
        rv.solve(f, Y, TS, diffusion=g, noise=rv.Brownian(1))


def test_the_field_of_a_controlled_equation_is_watched_too() -> None:
    path = rv.LinearPath(TS, np.stack([TS, TS**2], -1))
    field = lambda t, y, p: np.stack([y] * (2 if t < 0.62 else 3), -1)
    for method in (None, rv.ReversibleHeun()):
        with pytest.raises(ValueError, match=r"shape \(2, 3\).*at t=0\.[67].*2 channels.*\(2, 2\)"):
            rv.solve(field, Y, TS, control=path, method=method)


@pytest.mark.parametrize("mode", [None, rv.Reversible(), rv.Direct(), rv.Checkpointed(3)], ids=repr)
@pytest.mark.parametrize("both", [False, True])
def test_a_tensor_from_outside_is_refused_at_the_time_at_which_it_comes(mode: Any, both: bool) -> None:
    def loss(a: Any, p: Any) -> Any:
        return np.sum(rv.solve(lambda t, y, p: -y * p * (a if t > 0.62 else 1.0), Y, TS, p, gradient=mode).y1)

    with pytest.raises(TypeError, match=r"tensor that it was not given.*at t=0\.65.*through params"):
        rv.grad(loss, (0, 1) if both else 0)(np.array(2.0), np.array(1.0))


def test_nested_gradients_are_no_tensors_from_outside() -> None:
    """d2/dp2 of e^(-p) at p = 1 is e^-1; RK4 on 10 steps is good to 1e-6 of that."""
    y1 = lambda p: np.sum(rv.solve(lambda t, y, p: -p * y, np.ones(1), TS, p, gradient=rv.Direct(), method=rv.RungeKutta("rk4")).y1)
    assert abs(rv.grad(rv.grad(y1))(np.array(1.0)) - np.exp(-1)) < 1e-5


# ------------------------------------------------------------------------------------- how it is called

class Reversed:
    def __call__(self, y: Any, t: Any, p: Any) -> Any:
        return -y

    def method(self, x: Any, t: Any, p: Any) -> Any:
        return -x


@pytest.mark.parametrize("field, match", [
    (lambda t, y: -y, r"takes the arguments \(t, y\), but it is called as field\(t, y, params\)"),
    (lambda y: -y, r"arguments \(y\)"), (lambda: 0, r"arguments \(\)"),
    (lambda t, y, a, b: -y, r"arguments \(t, y, a, b\)"), (functools.partial(lambda a, t, y: -y, 1.0), r"arguments \(t, y\)"),
    (lambda y, t, p: -y, "another order; put the time first"), (lambda x, t, args: -x, "another order"),
    (lambda state, time, *rest: -state, "another order"), (lambda t, p, y: -y, "another order"),
    (Reversed(), "another order"), (Reversed().method, "another order")])
def test_a_field_that_is_called_otherwise(field: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        rv.solve(field, Y, TS)
    with pytest.raises(TypeError, match=match.replace("field", "diffusion")):
        rv.solve(f, Y, TS, diffusion=field, noise=rv.Brownian(1))


@pytest.mark.parametrize("field", [
    lambda t, y, p: -y, lambda *given: -given[1], lambda t, y, p, more=1: -more * y, lambda s, x, q=None: -x, lambda t, p, q: -p,
    functools.partial(lambda a, t, y, p: -a * y, 1.0), lambda t, y, *rest: -y, lambda _, y, __: -y])
def test_a_field_that_is_called_so(field: Any) -> None:
    assert np.array_equal(rv.solve(field, Y, TS).y1, rv.solve(f, Y, TS).y1)


HINTS = {"args": "params=", "t_eval": "save_at=", "saveat": "save_at=", "rtol": "controller=PID", "atol": "controller=PID",
         "events": "when=", "dense_output": "interpolate=", "t_span": "ts", "y_init": "y0", "first_step": "dt0=",
         "max_step": "max_step",
         "adjoint": "gradient=", "t0": "ts", "dt": "dt0", "jac": "explicit", "stepsize_controller": "PID",
         "sde_type": "interpretation='ito'", "noise_type": "shape of diffusion", "seed": "Brownian", "n_steps": "ts",
         "dense": "sol.at", "adaptive": "PID", "checkpoints": "Checkpointed", "dtype": "dtype of y0"}


@pytest.mark.parametrize("name", HINTS)
def test_the_keywords_of_other_solvers(name: str) -> None:
    """Also where, for their sake, an argument is missing."""
    for given in ((f, Y, TS), (f, Y), ()):
        with pytest.raises(TypeError, match=f"{name}= is no argument") as caught:
            rv.solve(*given, **{name: 1})
        assert HINTS[name] in str(caught.value)


def test_a_slip_of_the_pen_in_a_keyword() -> None:
    for solver in (rv.solve, rv.steps, rv.steps_back):
        with pytest.raises(TypeError, match=r"did you mean method=\?"):
            solver(f, Y, TS, metod=None)
    with pytest.raises(TypeError, match="it takes field, y0, ts, params, method"):
        rv.solve(f, Y, TS, zzz=1)


def test_a_method_by_the_name_that_others_give_it() -> None:
    for name, base in (("RK45", "dopri5"), ("RK23", "bosh3"), ("Tsit5", "tsit5"), ("rk4", "rk4")):
        with pytest.raises(TypeError, match=rf"method='{name}'.*RungeKutta\('{base}'\)"):
            rv.solve(f, Y, TS, method=name)
    with pytest.raises(TypeError, match=r"method='Radau'; pass a method such as .*ReversibleHeun\(\)$"):
        rv.solve(f, Y, TS, method="Radau")


def test_y0_and_ts_in_another_order() -> None:
    with pytest.raises(TypeError, match=r"y0 is \(0, 1\).*solve\(field, y0, ts, params\)"):
        rv.solve(f, (0, 1), Y)


# ------------------------------------------------------------------------------------- what is no plain array

STRANGE: dict[str, tuple[Any, str]] = {
    "mask": (np.ma.array(Y, mask=[False, True]), "a masked array, whose mask"), "set": ({1.0, 2.0}, "a set"),
    "namespace": (SimpleNamespace(a=1.0), "a SimpleNamespace"), "object": (np.array([1.0, None]), "an array of object"),
    "complex": (1j * Y, "an array of complex128"), "half": (Y.astype(np.float16), "an array of float16"),
    "long": (Y.astype(np.longdouble), f"an array of {np.dtype(np.longdouble)}"), "generator": ((x for x in Y), "a generator"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_params_that_no_gradient_would_reach(name: str) -> None:
    x, match = STRANGE[name]
    for params, where in ((x, "params"), ({"deep": [x]}, r"params\['deep'\]\[0\]")):
        with pytest.raises(TypeError, match=f"solve: {where} is {match}"):
            rv.solve(f, Y, TS, params)


def test_params_that_pass_through() -> None:
    for params in (None, 3, True, "name", b"bytes", np.arange(3), np.ones(2, bool), np.float32(2), np.tanh, {"a": [1.0, (None, Y)]}):
        assert rv.solve(f, Y, TS, params).y1.shape == (2,)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_masks_and_matrices_are_refused_by_name() -> None:
    mask, matrix = np.ma.array(np.linspace(0, 1, 3), mask=[False, True, False]), np.matrix(np.ones((3, 1)))
    for given in ({"y0": mask}, {"ts": mask}, {"save": mask.astype(int)}, {"save_at": mask, "controller": rv.PID(), "ts": (0, 1)}):
        with pytest.raises(TypeError, match=f"solve: {next(iter(given))} is a masked array"):
            rv.solve(**{"field": f, "y0": np.ones(3), "ts": TS, **given})
    for given in ({"y0": matrix}, {"params": matrix}):
        with pytest.raises(TypeError, match=r"np\.matrix, whose \*"):
            rv.solve(**{"field": f, "y0": np.ones(3), "ts": TS, **given})
    for kind in (rv.LinearPath, rv.Rectilinear, rv.HermiteCubic):
        for times, values, what in ((range(3), mask[:, None], "values is a MaskedArray"), (range(3), matrix, "values is a matrix"),
                                    (mask, np.ones((3, 1)), "times is a MaskedArray")):
            with pytest.raises(TypeError, match=what):
                kind(times, values)
    for wrap in (np.ma.array, lambda x: np.matrix(x).reshape(1, -1)):
        with pytest.raises(TypeError, match="the field returned a"):
            rv.solve(lambda t, y, p, wrap=wrap: wrap(y), np.ones((1, 2)), TS)


@pytest.mark.parametrize("ts, match", [
    ("abc", "ts is str"), (["a", "b", "c"], "real numbers"), (None, "NoneType"), ({"a": 1}, "'a': 'int'"), (TS * 1j, "complex128"),
    ([[0], [1, 2], 3], "real numbers"), (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), "timedelta64"),
    ([True, False], "single step")])
def test_times_that_are_none(ts: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        rv.solve(f, Y, ts)


@pytest.mark.parametrize("call, match", [
    (lambda: rv.Reversible(tol="a"), "tol='a'"), (lambda: rv.Reversible(tol=Y), "tol=array"), (lambda: rv.PID("a"), "rtol='a'"),
    (lambda: rv.PID(None), "rtol=None"), (lambda: rv.PID(safety="a"), "safety='a'"), (lambda: rv.PID(max_step="a"), "max_step='a'"),
    (lambda: rv.PID(p="a"), "p='a'"), (lambda: rv.PID(max_steps=None), "max_steps=None"), (lambda: rv.EES25(x="a"), "x='a'"),
    (lambda: rv.BrownianTree(1, "a", 2), "t0='a'"), (lambda: rv.HermiteCubic("a", np.ones((3, 1))), "times are <U1"),
    (lambda: rv.grad(np.sum, argnums="x"), "argnums='x'"), (lambda: rv.grad(np.sum, argnums=1.5), "argnums=1.5"),
    (lambda: rv.value_and_grad(np.sum, argnums=None), "argnums=None"),
    (lambda: rv.solve(f, Y, (0, 1), controller=rv.PID(), dt0="a"), "dt0='a'"),
    (lambda: rv.solve(f, Y, (0, 1), controller=rv.PID(), dt0=Y), "dt0=array"),
    (lambda: rv.solve(f, Y, (0, 1), controller=rv.PID(), save_at="a"), "save_at is str"),
    (lambda: rv.solve(f, Y, TS, save=np.int64(3)), "save=3")])
def test_a_wrong_type_is_told_in_our_words(call: Callable, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        call()


# ------------------------------------------------------------------------------------- times

def forced(t: Any, y: Any, p: Any) -> Any:
    return y * 0 + np.sin(t)


F32 = Y.astype(np.float32)
FAR = [("Unix seconds", F32, 1.7e9 + np.arange(10.0) * 60), ("before the epoch", F32, -1.7e9 + np.arange(10.0) * 60),
       ("Unix seconds backwards", F32, 1.7e9 - np.arange(10.0) * 60), ("days since 1970", F32, 19675 + np.arange(100) / 24),
       ("whole days", F32, 19675 + np.arange(100.0)), ("years", F32, np.linspace(1990, 2020, 1001)),
    ("microseconds", Y, 1.7e9 + np.arange(10) * 1e-6),
       ("tenths of milliseconds", Y, 1.7e9 + np.arange(10) * 1e-4), ("a varying grid", F32, 1e4 + np.cumsum([1, 3, 1e-3, 2]))]


@pytest.mark.parametrize("name, y0, ts", FAR, ids=[row[0] for row in FAR])
def test_times_that_the_dtype_does_not_tell_apart(name: str, y0: Any, ts: Any) -> None:
    with pytest.raises(ValueError, match=r"apart, too coarse for a step of .*ts - ts\[0\]") as caught:
        rv.solve(forced, y0, ts)
    assert ("or use float64" in str(caught.value)) == (y0.dtype == np.float32)
    shifted = lambda t, y, p: y * 0 + np.sin(t + float(ts[0]))
    # with the times counted from the start, sin(t + t0) has the integral cos(t0) - cos(t1); the sum t + t0 is taken in
    # float64 here, so that only the steps count: those that resolve the sine are good to h^5 / 2880 for each of them
    if np.max(np.abs(np.diff(ts))) < 0.1:
        wanted = y0 + np.cos(ts[0]) - np.cos(ts[-1])
        sol = rv.solve(lambda t, y, p: shifted(np.float64(t), y.astype(np.float64), p).astype(y.dtype), y0, ts - ts[0])
        assert abs(sol.y1 - wanted).max() < 1e-4


@pytest.mark.parametrize("y0, ts", [
    (F32, np.linspace(0, 1000, 20001)), (F32, np.linspace(-5, 5, 1001)), (F32, np.linspace(100, 101, 101)),
    (Y, 1.7e9 + np.arange(10) * 0.1),
    (F32, np.array([0, 1e-8, 1e-6, 1e-3, 1])), (Y, 1e6 + np.arange(10) * 1e-3), (F32, np.linspace(10, 0, 101))])
def test_times_that_it_does(y0: Any, ts: Any) -> None:
    """Long grids from 0, short ones not far from it, steps that grow: nobody is bothered."""
    assert np.isfinite(rv.solve(lambda t, y, p: y * 0 + np.cos(t), y0, ts, save=[-1]).y1).all()


def test_a_field_that_does_not_see_t_is_told_less() -> None:
    """Only where a step itself would be lost; the same grid with the time in the field is refused."""
    assert abs(rv.solve(f, F32, 19675 + np.arange(0, 3, 0.25)).y1 - F32 * np.exp(-2.75)).max() < 1e-4      # RK4, h = 1/4
    with pytest.raises(ValueError, match="too coarse"):
        rv.solve(forced, F32, 19675 + np.arange(0, 3, 0.25))
    with pytest.raises(ValueError, match="too coarse"):
        rv.solve(f, F32, 1.7e9 + np.arange(10.0) * 60)


@pytest.mark.parametrize("span", [(1.7e9, 1.7e9 + 86400), (-1.7e9, -1.7e9 + 86400), (1.7e9, 1.7e9 - 86400),
                                  (1.7e9, 1.7e9 + 864000), (19675, 19685)])
def test_adaptive_steps_ask_for_near_times_too(span: tuple) -> None:
    with pytest.raises(ValueError, match="too coarse for an interval"):
        rv.solve(forced, F32, span, controller=rv.PID(1e-3, 1e-6))
    assert rv.solve(lambda t, y, p: y * 0 + np.sin(t / span[0]), Y, span, controller=rv.PID(1e-3, 1e-6)).stats.steps < 50


def test_a_step_too_small_for_float32_is_said_to_be_that() -> None:
    """A step in the field at t = 300, whose place is asked for to 1e-9 of y: float32's times are 3e-5 apart there."""
    kink = lambda t, y, p: np.where(t < 300.1, 1e5, -1e5).astype(y.dtype) * np.ones_like(y)
    with pytest.raises(FloatingPointError, match=r"too small for t in float32.*float64"):
        rv.solve(kink, F32, (250.0, 350.0), controller=rv.PID(1e-7, 1e-7))


@pytest.mark.parametrize("ts", [(0.0, 1.0), [0.0, 1.0], (0, 1), [1.0, -1.0], (np.float64(0), np.float64(2))], ids=str)
def test_two_times_that_are_no_array_are_no_grid(ts: Any) -> None:
    for call in (lambda: rv.solve(f, Y, ts), lambda: list(rv.steps(f, Y, ts)), lambda: rv.advise(f, Y, ts)):
        with pytest.raises(ValueError, match="one single step; pass controller=PID"):
            call()
    one = rv.solve(f, Y, np.array(ts, float), method=rv.RungeKutta("euler"))
    assert np.array_equal(one.y1, Y - (ts[1] - ts[0]) * Y)
    assert rv.solve(f, Y, ts, controller=rv.PID()).stats.steps > 1


# ------------------------------------------------------------------------------------- states

def test_a_state_goes_on_with_the_method_that_made_it() -> None:
    half, whole = TS[:6], TS
    for method in (rv.Coupled("rk4", 0.9), rv.ReversibleHeun(), rv.LeapfrogMidpoint(), rv.EES27(), None):
        head = rv.solve(f, Y, half, method=method)
        tail = rv.solve(f, None, TS[5:], state0=head.state)
        assert np.array_equal(tail.y1, rv.solve(f, Y, whole, method=method).y1)
        back = [item.state.parts["y"] for item in rv.steps_back(f, head.state, half, ay1=Y)]
        assert np.allclose(back[-1], Y, rtol=0, atol=1e-6 if method is None else 1e-10)      # rk4: 5 h^6 / 100 a step


@pytest.mark.parametrize("made, wanted", [
    (rv.ReversibleHeun(), rv.Coupled()), (rv.Coupled(), rv.ReversibleHeun()), (rv.Coupled(lam=0.9), rv.Coupled()),
    (rv.Coupled("rk4"), rv.Coupled("midpoint")), (rv.RungeKutta("rk4"), rv.NearReversible("rk4")), (rv.EES25(), rv.EES27()),
    (rv.AsynchronousLeapfrog(), rv.AsynchronousLeapfrog(0.9))], ids=repr)
def test_a_state_of_another_method_is_refused(made: Any, wanted: Any) -> None:
    state = rv.solve(f, Y, TS, method=made).state
    for call in (lambda: rv.solve(f, None, TS + 1, state0=state, method=wanted),
                 lambda: list(rv.steps(f, None, TS + 1, state0=state, method=wanted)),
                 lambda: list(rv.steps_back(f, state, TS, ay1=Y, method=wanted))):
        with pytest.raises((TypeError, ValueError), match=r"was made by .* but the method is|cannot be run backwards"):
            call()


def test_a_state_beside_y0_and_states_of_another_kind() -> None:
    state = rv.solve(f, Y, TS).state
    for y0 in (Y, F32, {"a": Y}):
        with pytest.raises(ValueError, match="y0 and state0 were both given"):
            rv.solve(f, y0, TS + 1, state0=state)
    pair = rv.solve(f, Y, TS, method=rv.Coupled()).state
    for part in (F32, np.ones(3)):
        with pytest.raises(TypeError, match="the parts of state0 differ"):
            rv.solve(f, None, TS + 1, state0=pair._replace(parts={**pair.parts, "z": part}))
    for ay1 in (F32, np.ones(3)):
        with pytest.raises(TypeError, match=r"state has parts of float64\[2\], but y0 and ay1 are"):
            list(rv.steps_back(f, state, TS, ay1=ay1))
    with pytest.raises(ValueError, match="state at t=1, but ts ends at 2"):
        list(rv.steps_back(f, state, TS + 1, ay1=Y))


# ------------------------------------------------------------------------------------- what method=None means

def test_on_a_fixed_grid_it_is_rk4_and_its_gradient() -> None:
    """Against the four lines of the textbook, and their complex step (exact to rounding): y to 50 eps; the gradient
    to the reversal of RK4, 2 h^6 for each of 20 steps: 1e-8 here."""
    ts, p = np.linspace(0.0, 1.0, 21), np.array(1.3)
    field = lambda t, y, p: -p * y + np.sin(t) * y * y

    def by_hand(y: Any, p: Any) -> Any:
        for t, h in zip(ts, np.diff(ts), strict=False):
            k1 = field(t, y, p)
            k2 = field(t + h / 2, y + h / 2 * k1, p)
            k3 = field(t + h / 2, y + h / 2 * k2, p)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(t + h, y + h * k3, p))
        return y

    y1, (ay, ap) = rv.value_and_grad(lambda y, p: np.sum(rv.solve(field, y, ts, p).y1), (0, 1))(Y, p)
    assert abs(y1 - np.sum(by_hand(Y, p))) < 50 * EPS
    e = 1e-30
    assert abs(ap - np.sum(by_hand(Y + 0j, p + 1j * e)).imag / e) < 1e-8
    assert max(abs(ay[i] - np.sum(by_hand(Y + 1j * e * np.eye(2)[i], p)).imag / e) for i in range(2)) < 1e-8


def test_with_a_controller_it_is_tsit5() -> None:
    """SciPy's LSODA at 1e-12 is the truth; 100 tolerances on a smooth problem over two periods."""
    from scipy.integrate import solve_ivp
    field = lambda t, y, p: np.stack([y[1], -np.sin(y[0])])
    sol = rv.solve(field, Y, (0.0, 10.0), controller=rv.PID(1e-8, 1e-8), save=[-1])
    truth = solve_ivp(lambda t, y: field(t, y, None), (0, 10), Y, method="LSODA", rtol=1e-12, atol=1e-12).y[:, -1]
    assert abs(sol.y1 - truth).max() < 1e-6 and sol.state.method == rv.NearReversible("tsit5")


def test_with_noise_it_is_ees_and_ito_is_corrected() -> None:
    """Geometric Brownian motion along the same path: y0 exp((mu - s^2/2) T + s W) for Ito, y0 exp(mu T + s W) for
    Stratonovich. Strong order 1, constant about s^3: N = 400, s = .3: .03 h^(1/2) h^(1/2) sqrt(T) ~ 1e-4; allowed 1e-3,
    while the two differ by s^2/2 = .045."""
    ts, noise, mu, s = np.linspace(0.0, 1.0, 401), rv.Brownian(3), 0.2, 0.3
    drift, diffusion = (lambda t, y, p: p[0] * y), (lambda t, y, p: p[1] * y)
    W = np.sum(noise.increments(np.arange(400), (2,), np.diff(ts)), 0)
    for interpretation, rate in (("ito", mu - s * s / 2), ("stratonovich", mu)):
        sol = rv.solve(drift, Y, ts, (mu, s), diffusion=diffusion, noise=noise, interpretation=interpretation)
        assert abs(sol.y1 / (Y * np.exp(rate + s * W)) - 1).max() < 1e-3
        assert sol.state.method == rv.EES(stages=4)
        grads = [rv.grad(lambda y, p, mode=mode: np.sum(rv.solve(drift, y, ts, p, diffusion=diffusion, noise=noise, gradient=mode,
                                                                 interpretation=interpretation, save=[-1]).y1), (0, 1))(Y, (mu, s))
                 for mode in (rv.Reversible(), rv.Direct())]
        for a, b in zip((grads[0][0], *grads[0][1]), (grads[1][0], *grads[1][1]), strict=True):
            assert abs(a - b).max() < 1e-9          # reversal order 7: (s dW)^8 a step


def test_ito_that_cannot_be_corrected_is_refused_by_name() -> None:
    general = lambda t, y, p: np.stack([y, y], -1)
    mixed = lambda t, y, p: y[..., ::-1]
    for g, match in ((general, "Ito correction is offered for diagonal noise"), (mixed, "g_i to depend on y_i alone")):
        with pytest.raises(ValueError, match=match):
            rv.solve(f, Y, TS, diffusion=g, noise=rv.Brownian(1), interpretation="ito")
    noise = rv.BrownianTree(1, 0.0, 1.0)
    adaptive = rv.solve(f, Y, (0.0, 1.0), diffusion=lambda t, y, p: 0.1 * y, noise=noise, controller=rv.PID(1e-3, 1e-3),
                        interpretation="ito")
    assert adaptive.state.method == rv.EES(stages=4) and np.isfinite(adaptive.y1).all()


@pytest.mark.parametrize("rough", [False, True])
def test_with_a_control_it_is_rk4_along_the_pieces(rough: bool) -> None:
    """y' = y X' has the solution y0 exp(X): on straight pieces RK4 misses |dX|^5 / 120 of it a step, whatever the path.
    Backwards it misses about |dX|^6 / 100 a step; the largest of the sixteen pieces is .63 long."""
    X = np.cumsum(np.random.default_rng(2).normal(size=(17, 1)) * (0.25 if rough else 0.05), 0)
    ts = np.linspace(0.0, 1.0, 17)
    path = rv.LinearPath(ts, X)
    run = lambda y, p, mode: np.sum(rv.solve(lambda t, y, p: p * y[:, None], y, ts, p, control=path, gradient=mode).y1)
    length = float(abs(np.diff(X[:, 0])).max())
    wanted = np.exp(X[-1, 0] - X[0, 0])
    value, (ay, ap) = rv.value_and_grad(lambda y, p: run(y, p, rv.Reversible(tol=1.0)), (0, 1))(np.ones(1), np.array(1.0))
    assert abs(value / wanted - 1) < 17 * length**5 / 120
    assert abs(ay[0] / wanted - 1) < 17 * length**5 / 60
    assert abs(ap - wanted * (X[-1, 0] - X[0, 0])) < 17 * length**4 * wanted           # the derivative of the error: 5 dX^4 / 120
    adaptive = rv.solve(lambda t, y, p: y[:, None], np.ones(1), (0.0, 1.0), control=path, controller=rv.PID(1e-8, 1e-10))
    assert abs(adaptive.y1[0] / wanted - 1) < 1e-6 and adaptive.state.method == rv.NearReversible("tsit5")


@pytest.mark.parametrize("acceleration", [lambda t, q, p: -q, lambda t, q, p: np.sin(q), lambda t, q, p: q[0],
                                          lambda t, q, p: -q[0] / 2,
                                          lambda t, q, p: -p * q])
@pytest.mark.parametrize("pair", [tuple, list])
def test_position_and_velocity_are_told_of_verlet(acceleration: Callable, pair: type) -> None:
    with pytest.raises(TypeError, match=r"pass method=VelocityVerlet\(\)"):
        rv.solve(acceleration, pair((Y, Y)), TS, np.array(1.0))


def test_a_pair_that_is_a_tree_is_one() -> None:
    """q' = v, v' = -q: the field returns a pair, and no method is in question. RK4, h = .1: 1e-6."""
    q, v = rv.solve(lambda t, y, p: (y[1], -y[0]), (np.ones(1), np.zeros(1)), TS).y1
    assert abs(q - np.cos(1)).max() < 1e-6 and abs(v + np.sin(1)).max() < 1e-6


# ------------------------------------------------------------------------------------- tolerances by component

def test_tolerances_by_component() -> None:
    """Equal ones are one number, bit for bit; a tight one makes its own component exact, while the other is loose."""
    field = lambda t, y, p: np.stack([-y[..., 0], -p * y[..., 1]], -1)
    run = lambda rtol, atol, y=Y: rv.solve(field, y, (0.0, 2.0), np.array(5.0), controller=rv.PID(rtol, atol), save=[-1])
    for rtol, atol in (([1e-4, 1e-4], 1e-6), (1e-4, (1e-6, 1e-6)), (np.full(2, 1e-4), np.full(2, 1e-6)), ([1e-4], np.array(1e-6))):
        assert np.array_equal(run(rtol, atol).ts, run(1e-4, 1e-6).ts) and np.array_equal(run(rtol, atol).y1, run(1e-4, 1e-6).y1)
    exact = Y * np.exp([-2.0, -10.0])
    loose, tight = run(1e-9, [1e-3, 1e-3]), run(1e-9, [1e-9, 1e-3])
    assert abs(tight.y1 - exact)[0] < 1e-7 < abs(loose.y1 - exact).max() and tight.stats.steps < run(1e-9, 1e-9).stats.steps
    batch = run(1e-9, [1e-9, 1e-3], np.stack([Y, Y, Y]))
    assert np.allclose(batch.y1, tight.y1, rtol=1e-12, atol=0)
    single = rv.solve(field, F32, (0.0, 2.0), np.array(5.0, np.float32), controller=rv.PID([1e-4, 1e-4], 1e-5))
    assert single.ys.dtype == np.float32 and abs(single.y1 - exact).max() < 1e-3


def test_gradients_with_tolerances_by_component() -> None:
    """On the accepted grid the gradient is that of Direct: to rounding, a few hundred eps over some 100 steps."""
    field = lambda t, y, p: np.stack([y[1], -p * np.sin(y[0])])
    grads = [rv.grad(lambda y, p, mode=mode: np.sum(rv.solve(
        field, y, (0.0, 5.0), p, controller=rv.PID([1e-5, 1e-6], [1e-6, 1e-5]), save=[-1], gradient=mode,
    method=rv.Coupled("bosh3")).y1),
        (0, 1))(Y, np.array(1.3)) for mode in (rv.Reversible(), rv.Direct())]
    assert max(abs(a - b).max() for a, b in zip(*grads, strict=True)) < 1e-11


def test_tolerances_that_do_not_fit() -> None:
    assert rv.PID([1e-3, 1e-4]) == rv.PID((1e-3, 1e-4)) and hash(rv.PID([1e-3, 1e-4])) == hash(rv.PID(np.array([1e-3, 1e-4])))
    for rtol, atol in (([1e-3, -1], 1e-6), (-1, 1e-6), ([], 1e-6), (np.nan, 1e-6), ([0, 1e-3], [0, 1e-3]), ([1, 1, 1], [1, 1])):
        with pytest.raises(ValueError, match=r"PID: .tol="):
            rv.PID(rtol, atol)
    for y0, rtol in ((Y, [1e-3] * 3), (np.ones((3, 2)), [1e-3] * 3), (Y, [[1e-3, 1e-3]]), ({"a": Y}, [1e-3, 1e-3])):
        with pytest.raises(ValueError, match="PID has rtol"):
            rv.solve(lambda t, y, p: y, y0, (0, 1), controller=rv.PID(rtol))


# ------------------------------------------------------------------------------------- tableaux

OWN = [rv.Tableau("Kutta 3", 3, ((), (Q(1, 2),), (-1, 2)), (Q(1, 6), Q(2, 3), Q(1, 6)), (0, Q(1, 2), 1)),
       rv.Tableau("SSPRK3", 3, ((), (1,), (0.25, 0.25)), (1 / 6, 1 / 6, 2 / 3), (0, 1, 0.5)),
       rv.Tableau("3/8", 4, ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8), (0, 1 / 3, 2 / 3, 1)),
       rv.Tableau("Ralston 2", 2, [[], [2 / 3]], [0.25, 0.75], [0, 2 / 3], [1, 0]),
       rv.Tableau("ten digits", 2, ((), (0.6666666667,)), (0.25, 0.75), (0, 0.6666666667)),
       rv.Tableau("understated", 3, TABLEAUX["rk4"].a, TABLEAUX["rk4"].b, TABLEAUX["rk4"].c)]


@pytest.mark.parametrize("tableau", [*TABLEAUX.values(), *OWN], ids=lambda tab: tab.name)
def test_a_tableau_has_the_order_that_it_states(tableau: Any) -> None:
    """And is refused one order higher, or with any coefficient off by 1e-5, as the oracle finds as well."""
    own = tableau._replace(name=f"own {tableau.name}")
    for make in (rv.RungeKutta, rv.NearReversible, rv.Coupled):
        assert make(own).order == tableau.order
    if tableau.name != "understated":
        with pytest.raises(ValueError, match=r"own .*order"):
            rv.RungeKutta(own._replace(order=tableau.order + 1))
    A = [[*row, *[0] * (len(tableau.b) - len(row))] for row in tableau.a]
    for i in range(len(tableau.b)):
        b = [float(x) + 1e-5 * (j == i) for j, x in enumerate(tableau.b)]
        assert any(abs(miss) > 1e-6 for _, miss in trees.order_conditions(A, b, tableau.c, 1))
        with pytest.raises(ValueError, match="miss a condition of order 1"):
            rv.Coupled(own._replace(b=tuple(b)))
        c = [float(x) + 1e-5 * (j == i) for j, x in enumerate(tableau.c)]
        with pytest.raises(ValueError, match=rf"c\[{i}\] = .*sums to"):
            rv.RungeKutta(own._replace(c=tuple(c)))


def test_conditions_that_are_missed_are_those_of_the_oracle() -> None:
    """Random explicit methods with consistent nodes, of orders 1 and 2 by construction: the first missed order agrees."""
    rng = np.random.default_rng(5)
    for s in (2, 3, 4, 5):
        A = np.tril(rng.normal(size=(s, s)), -1)
        c = A.sum(1)
        b = rng.normal(size=s)
        b[1] += (0.5 - b @ c) / c[1] if s % 2 else 0.0            # odd s: order 2 too
        b[0] += 1 - b.sum()
        missed = [trees.size(tree) for tree, miss in trees.order_conditions(A, b, c, s) if abs(miss) > 1e-8]
        own = rv.Tableau("random", s, tuple(tuple(row[:i]) for i, row in enumerate(A)), tuple(b), tuple(c))
        with pytest.raises(ValueError, match=f"miss a condition of order {min(missed)}"):
            rv.RungeKutta(own)
        assert rv.RungeKutta(own._replace(order=min(missed) - 1)).order == min(missed) - 1


@pytest.mark.parametrize("change, match", [
    ({"order": 0}, "order=0"), ({"order": 2.0}, "order=2.0"), ({"order": 50}, "order=50"), ({"b": ("a", 0, 0, 0)}, "plain numbers"),
    ({"b": (np.nan, 0, 0, 0)}, "not finite"), ({"b_error": (1, 1, 0, 0)}, "whose sum is 1"),
    ({"b_error": (1,)}, "on the same 4 stages"),
    ({"b_error": TABLEAUX["bosh3"].b}, "another method"), ({"c": (0, 0.5, 0.75, 0.9)}, r"c\[3\] = 0.9"), ({"c": (0, 0.5)}, "2 nodes")])
def test_tableaux_that_are_none(change: dict, match: str) -> None:
    for make in (rv.RungeKutta, rv.NearReversible, rv.Coupled):
        with pytest.raises((TypeError, ValueError), match=match):
            make(TABLEAUX["bosh3"]._replace(name="own", **change))


# ------------------------------------------------------------------------------------- what a tape holds

def test_direct_refuses_what_will_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """After four steps, and before the fifth. A step of RK4 here holds some 40 arrays of 8 kB."""
    calls: list = []

    def field(t: Any, y: Any, p: Any) -> Any:
        calls.append(t)
        return -p * y

    def run(N: int) -> Any:
        calls.clear()
        return rv.grad(lambda p: np.sum(rv.solve(field, np.ones(1000), np.linspace(0, 1, N + 1), p, save=[-1], gradient=rv.Direct(),
                                                 method=rv.RungeKutta("rk4"), backend="eager").y1))(np.array(1.0))

    monkeypatch.setattr(memory, "free", lambda: 1e8)
    with pytest.raises(MemoryError, match=r"Direct\(\) would hold 3000 steps, about .*Reversible\(\).*Checkpointed\(55\)"):
        run(3000)
    assert 16 < len(calls) < 2 * 16           # four steps, and the looks of the checks
    assert abs(run(250) / 1000 + np.exp(-1)) < 1e-8       # fits
    monkeypatch.setattr(memory, "free", lambda: float("inf"))
    assert abs(run(300) / 1000 + np.exp(-1)) < 1e-8       # where the system does not tell


@pytest.mark.parametrize("d, method, weights", [(2000, rv.RungeKutta("rk4"), False), (2000, rv.Coupled("midpoint"), False),
                                                (20, rv.ReversibleHeun(), False), (300, rv.RungeKutta("rk4"), True)])
def test_the_prediction_is_what_the_tape_takes(d: int, method: Any, weights: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against tracemalloc. Within a factor of two: small arrays take their heads, and the field's temporaries come and go.
    Weights (.7 MB here) are held once, not at every step."""
    found: list = []
    held = memory.held
    monkeypatch.setattr(memory, "held", lambda nodes, mark: found.append(held(nodes, mark)) or found[-1])
    W, N = np.eye(d), 100
    field = (lambda t, y, p: np.tanh(p * (W @ y)) * y) if weights else (lambda t, y, p: np.tanh(p * y) * y)

    def loss(p: Any) -> Any:
        y1 = rv.solve(field, np.ones(d), np.linspace(0, 1, N + 1), p, save=[-1], gradient=rv.Direct(), method=method,
                      backend="eager").y1
        found.append(tracemalloc.get_traced_memory()[0])
        return np.sum(y1)

    tracemalloc.start()
    try:
        rv.grad(loss)(np.array(-1.0))
    finally:
        tracemalloc.stop()
    predicted, taken = found[0] * N / 2, found[-1]
    assert taken / 2 < predicted < 2 * taken, (predicted, taken)


def test_free_memory_is_looked_up_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.free() > 1e6

    def nowhere(*_: Any) -> Any:
        raise OSError

    monkeypatch.setattr("builtins.open", nowhere)
    monkeypatch.setattr(memory.os, "sysconf", nowhere)
    assert memory.free() == float("inf")

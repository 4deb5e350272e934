"""What bad input gets: one sentence that says what was given, what is expected, and what to do; before the loop if
possible.

Each row: a call, the exception, and three things that its message must contain: given, expected, remedy.
"""
from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode as rv

Y = np.array([0.5, 1.0])
TS = np.linspace(0.0, 1.0, 6)
P = {"a": np.array(2.0), "deep": [np.ones(2)]}


def f(t: Any, y: Any, p: Any) -> Any:
    return -y


def solve(field: Any = f, y0: Any = Y, ts: Any = TS, p: Any = None, **kw: Any) -> Any:
    return rv.solve(field, y0, ts, p, **kw)


COUNT = itertools.count()
BUFFER = np.zeros(2)


def into_buffer(t: Any, y: Any, p: Any) -> Any:
    np.multiply(y, -1.0, out=BUFFER)
    return BUFFER


def with_entry(x: Any) -> Any:
    return np.array([1.0, x])


OTHER = rv.solve(f, Y, TS, method=rv.AsynchronousLeapfrog()).state

# (name, call, exception, what was given, what is expected, what to do)
ROWS: list[tuple[str, Callable, type, str, str, str]] = [
    # the field
    ("field not callable", lambda: solve(field=3), TypeError, "a int", "field(t, y, params)", "vector field"),
    ("wrong shape", lambda: solve(lambda t, y, p: y[:1]), ValueError, "shape (1,) for y of shape (2,)", "shaped like y",
     "batch axis"),
    ("batch axis lost", lambda: solve(lambda t, y, p: np.sum(y, 0), np.ones((5, 3))), ValueError,
     "shape (3,) for y of shape (5, 3) at t=0", "shaped like y", "batch axis"),
    ("broadcast shape", lambda: solve(lambda t, y, p: -y, np.ones((5, 1)), p=None) and solve(
        lambda t, y, p: y + np.ones((1, 2)), np.ones((5, 1))), ValueError, "shape (5, 2) for y of shape (5, 1)",
     "shaped like y", "batch axis"),
    ("returns nothing", lambda: solve(lambda t, y, p: None), TypeError, "NoneType", "array shaped like y",
     "return missing"),
    ("returns a list", lambda: solve(lambda t, y, p: [y[0], y[1]]), TypeError, "list", "array shaped like y",
     "np.stack"),
    ("returns float64 for float32", lambda: solve(lambda t, y, p: y * np.float64(2), Y.astype(np.float32)), TypeError,
     "float64 for y of float32", "y's dtype", "plain Python numbers"),
    ("returns integers", lambda: solve(lambda t, y, p: np.ones(2, int)), TypeError, "int64 for y of float64",
     "y's dtype",
     "params and constants"),
    ("NaN at the start", lambda: solve(lambda t, y, p: y * np.nan), ValueError, "first value, at t=0", "not finite",
     "NaN"),
    ("random", lambda: solve(lambda t, y, p: y + next(COUNT)), ValueError, "two different values for the same input",
     "pure function", "pass them in params"),
    ("its own buffer", lambda: solve(into_buffer), ValueError, "same array", "new array", "return"),
    ("tensor from outside", lambda: rv.grad(lambda a: np.sum(solve(lambda t, y, p: a * y).y1))(1.0), TypeError,
     "tensor that it was not given", "gradient would be lost", "through params"),
    ("tensor from outside, params given too", lambda: rv.grad(lambda a: np.sum(solve(lambda t, y, p: a * p * y,
                                                                                     p=a).y1))(1.0),
     TypeError, "tensor that it was not given", "gradient would be lost", "through params"),
    ("complex", lambda: solve(lambda t, y, p: y * 1j), TypeError, "complex128 for y of float64", "dtype", "give"),
    # y0
    ("y0 integers", lambda: solve(y0=np.array([1, 2])), TypeError, "y0 is an array of int64", "float64 or float32",
     "np.asarray(y0, dtype=float)"),
    ("y0 list with True", lambda: solve(y0=[1.0, True]), TypeError, "y0[0] is a float", "array of float64 or float32",
     "np.asarray"),
    ("y0 dict of floats", lambda: solve(y0={"u": 1.0}), TypeError, "y0['u'] is a float", "array of float64", "np.asarray"),
    ("y0 complex", lambda: solve(y0=Y * 1j), TypeError, "complex128", "a pair of reals", "docs/how-to/complex.md"),
    ("y0 float16", lambda: solve(y0=Y.astype(np.float16)), TypeError, "float16", "float64 or float32", "convert"),
    ("y0 NaN", lambda: solve(y0=np.array([1.0, np.nan])), ValueError, "y0 has entries", "not finite", "NaN or Inf"),
    ("y0 Inf in a tree", lambda: solve(lambda t, y, p: y, {"u": Y, "w": [np.array([np.inf])]}), ValueError,
     "y0['w'][0]",
     "not finite", "NaN or Inf"),
    ("y0 empty", lambda: solve(y0=np.zeros((0, 2))), ValueError, "shape (0, 2)", "nothing to solve", "y0"),
    ("y0 empty tree", lambda: solve(y0={}), ValueError, "y0 is empty", "array of floats", "tree of such arrays"),
    ("y0 None", lambda: solve(y0=None), TypeError, "y0 is a NoneType", "array of float64", "np.asarray"),
    ("y0 of mixed dtypes", lambda: solve(y0={"u": Y, "w": Y.astype(np.float32)}), TypeError, "float32[2]",
     "different dtypes",
     "use one"),
    ("tree field with other leaves", lambda: solve(lambda t, y, p: {"u": y["u"]}, {"u": Y, "w": Y}), ValueError,
     "{'u': 'float64[2]'}", "tree like y0", "shapes [(2,), (2,)]"),
    ("tree field with other shapes", lambda: solve(lambda t, y, p: {"u": y["u"][:1]}, {"u": Y}), ValueError,
     "float64[1]",
     "tree like y0", "[(2,)]"),
    ("split without a pair", lambda: solve(method=rv.VelocityVerlet()), TypeError, "got y0 float64[2]", "y0 = (q, v)",
     "acceleration"),
    ("split with a triple", lambda: solve(y0=(Y, Y, Y), method=rv.SemiImplicitEuler()), TypeError, "float64[2]",
     "y0 = (q, v)", "acceleration"),
    ("split halves that differ", lambda: solve(y0=(Y, np.ones(3)), method=rv.VelocityVerlet()), ValueError, "(3,)",
     "(2,)",
     "q"),
    # ts
    ("no time", lambda: solve(ts=[]), ValueError, "shape (0,)", "a vector of times", "np.linspace(0, 1, 101)"),
    ("a matrix of times", lambda: solve(ts=np.ones((2, 2))), ValueError, "shape (2, 2)", "vector", "np.linspace"),
    ("times that turn", lambda: solve(ts=[0, 1, 0.5]), ValueError, "from 1 to 0.5 at index 1", "strictly increasing",
     "strictly decreasing"),
    ("times that stand still", lambda: solve(ts=[0, 1, 1, 2]), ValueError, "from 1 to 1 at index 1",
     "strictly increasing",
     "decreasing"),
    ("times that stand still at once", lambda: solve(ts=[0, 0, 1]), ValueError, "from 0 to 0 at index 0",
     "strictly increasing", "decreasing"),
    ("NaN time", lambda: solve(ts=[0, np.nan, 1]), ValueError, "ts has entries", "not finite", "NaN"),
    ("tensors as times with a controller", lambda: rv.grad(lambda t1: np.sum(solve(ts=[0.0, t1], controller=rv.PID()).y1))(1.0),
     TypeError, "ts is a tensor", "controller=", "a fixed grid"),
    ("tensors as times with noise", lambda: rv.grad(lambda ts: np.sum(solve(ts=ts, diffusion=f, noise=rv.Brownian(1)).y1))(TS),
     TypeError, "ts is a tensor", "noise=", "pass plain times"),
    ("tensors as times, exactly", lambda: rv.grad(lambda ts: np.sum(solve(ts=ts, exact=True).y1))(TS), TypeError, "ts is a tensor",
     "exact=", "plain times"),
    ("tensors as times, by hand", lambda: rv.grad(lambda ts: list(rv.steps(f, Y, ts, P))[-1][1].parts["y"].sum())(TS), TypeError,
     "ts is a tensor", "plain times", "use solve"),
    ("two times in a list, one a tensor", lambda: rv.grad(lambda t1: np.sum(solve(ts=[0.0, t1]).y1))(1.0), ValueError, "ts=",
     "one single step", "np.linspace"),
    ("steps that vanish in float32", lambda: solve(y0=Y.astype(np.float32), ts=[0.0, 1e-50, 1.0]), ValueError, "1e-50",
     "float32", "ts"),
    # params
    ("params NaN", lambda: solve(p={**P, "a": np.array(np.nan)}), ValueError, "params['a']", "not finite",
     "NaN or Inf"),
    ("params Inf deep", lambda: solve(p={"a": 1.0, "deep": [np.array([np.inf, 1])]}), ValueError, "params['deep'][0]",
     "not finite", "NaN or Inf"),
    ("params NaN float", lambda: solve(p={"a": float("nan")}), ValueError, "params['a']", "not finite", "NaN or Inf"),
    # save
    ("save an int", lambda: solve(save=-1), TypeError, "save=-1", "list of indices", "save=[-1]"),
    ("save outside", lambda: solve(save=[6]), IndexError, "save=[6]", "0 .. 5", "ts has 6 points"),
    ("save not increasing", lambda: solve(save=[3, 1]), ValueError, "save=[3, 1]", "increasing", "each once"),
    ("save twice", lambda: solve(save=[3, 3]), ValueError, "save=[3, 3]", "increasing", "each once"),
    ("save backwards", lambda: solve(save=slice(None, None, -1)), ValueError, "save=slice", "increasing",
     "order of ts"),
    ("save times", lambda: solve(save=[0.5]), TypeError, "save=[0.5]", "indices", "ts"),
    # methods
    ("method by name", lambda: solve(method="rk4"), TypeError, "method='rk4'", "a method such as", "RungeKutta('rk4')"),
    ("method without parentheses", lambda: solve(method=rv.Coupled), TypeError, "Coupled", "a method such as",
     "Coupled('midpoint')"),
    ("unknown base", lambda: rv.Coupled("rk5"), ValueError, "'rk5'", "known are euler, midpoint", "pass a Tableau"),
    ("unknown base of a plain method", lambda: rv.RungeKutta("dopri8"), ValueError, "'dopri8'", "known are", "Tableau"),
    ("base of a wrong type", lambda: rv.RungeKutta(["euler"]), ValueError, "euler", "known are", "Tableau"),
    ("tableau of a wrong shape", lambda: rv.Coupled(rv.Tableau("own", 2, ((), (1, 2)), (0, 1), (0, 1))), ValueError,
     "'own'",
     "explicit method has 2 rows", "row i with at most i entries"),
    ("lam 0", lambda: rv.Coupled(lam=0), ValueError, "lam=0", "(0, 1]", "0.999"),
    ("lam above 1", lambda: rv.Coupled(lam=1.5), ValueError, "lam=1.5", "(0, 1]", "0.999"),
    ("lam NaN", lambda: rv.Coupled(lam=float("nan")), ValueError, "lam=nan", "(0, 1]", "0.999"),
    ("lam a tensor or array", lambda: rv.Coupled(lam=np.ones(2)), ValueError, "lam=", "(0, 1]", "0.999"),
    ("eta 1/2", lambda: rv.AsynchronousLeapfrog(eta=0.5), ValueError, "eta=0.5", "(1/2, 1]", "1 for none"),
    ("eta above 1", lambda: rv.AsynchronousLeapfrog(eta=1.01), ValueError, "eta=1.01", "(1/2, 1]", "1 for none"),
    ("composition of a coupled method", lambda: rv.Composition(rv.Coupled()), ValueError, "Coupled(", "not a symmetric",
     "VelocityVerlet()"),
    ("composition of semi-implicit Euler", lambda: rv.Composition(rv.SemiImplicitEuler()), ValueError,
     "SemiImplicitEuler",
     "not a symmetric", "AsynchronousLeapfrog()"),
    ("composition of damped ALF", lambda: rv.Composition(rv.AsynchronousLeapfrog(0.9)), ValueError, "eta=0.9",
     "not a symmetric", "ReversibleHeun()"),
    ("composition of odd order", lambda: rv.Composition(rv.VelocityVerlet(), 3), ValueError, "order=3", "4, 6 and 8",
     "orders"),
    # gradients
    ("gradient by name", lambda: solve(gradient="reversible"), TypeError, "'reversible'", "Direct(), Checkpointed(n)",
     "parentheses"),
    ("gradient without parentheses", lambda: solve(gradient=rv.Reversible), TypeError, "Reversible", "one of Automatic()",
     "parentheses"),
    ("reversible of a one-way method", lambda: solve(method=rv.RungeKutta("rk4"), gradient=rv.Reversible()), TypeError,
     "RungeKutta(base='rk4')", "Coupled(base)", "Checkpointed(n)"),
    ("steps_back of a one-way method", lambda: list(rv.steps_back(f, solve(method=rv.RungeKutta()).state, TS, ay1=Y,
                                                                  method=rv.RungeKutta())), TypeError, "RungeKutta",
     "Coupled(base)", "Checkpointed(n)"),
    ("resync 0", lambda: rv.Reversible(resync=0), ValueError, "resync=0", "1 or more", "None"),
    ("resync a fraction", lambda: rv.Reversible(resync=2.5), ValueError, "resync=2.5", "number of steps", "None"),
    ("tol 0", lambda: rv.Reversible(tol=0), ValueError, "tol=0", "positive number", "1e-3"),
    # states
    ("state of another method", lambda: rv.solve(f, None, TS, state0=OTHER, method=rv.Coupled()), ValueError,
     "['y', 'v']",
     "['y', 'z']", "continue with the method that made the state"),
    ("not a state", lambda: rv.solve(f, None, TS, state0={"y": Y}), TypeError, "state0 is a dict",
     "state of an earlier solve",
     "state0=sol.state"),
    ("grid that does not start at the state", lambda: rv.solve(f, None, TS, state0=solve().state), ValueError,
     "state at t=1",
     "ts begins at 0", "state0._replace(t=...)"),
]


@pytest.mark.parametrize("name, call, kind, given, expected, remedy", ROWS, ids=[row[0] for row in ROWS])
def test_message(name: str, call: Callable, kind: type, given: str, expected: str, remedy: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    for part in (given, expected, remedy):
        assert part in message, f"{part!r} is not in: {message}"
    assert message.count(". ") <= 2 and len(message) < 400 and "\n" not in message


def test_they_are_raised_before_the_first_step() -> None:
    """Nothing but the first check of the field is evaluated."""
    calls: list = []

    def counted(t: Any, y: Any, p: Any) -> Any:
        calls.append(t)
        return y * np.float64(1) if len(calls) < 2 else 1 / 0

    with pytest.raises(TypeError):
        solve(counted, Y.astype(np.float32))
    assert len(calls) == 1


@pytest.mark.parametrize("method", [rv.Coupled(), rv.RungeKutta("euler"), rv.AsynchronousLeapfrog(),
                                    rv.VelocityVerlet()],
                         ids=str)
@pytest.mark.parametrize("differentiated", [False, True])
def test_overflow_names_the_step_the_time_and_the_size(method: Any, differentiated: bool) -> None:
    """y' = y^2 from 1 blows up at t = 1 (a split method: q'' = 6 q^5 sees it too). The step named is the first after
    which the state is not finite, found by stepping by hand; NumPy's own warnings do not come in the way."""
    ts = np.linspace(0.0, 4.0, 41)
    g = (lambda t, q, p: 6 * q**5) if isinstance(method, rv.VelocityVerlet) else (lambda t, y, p: p * y * y)
    y0 = (Y, Y) if isinstance(method, rv.VelocityVerlet) else Y
    p = np.array(3.0)
    with np.errstate(all="ignore"):
        for t, state in rv.steps(g, y0, ts, p, method=method):  # noqa: B007 (t is read below)
            if not all(np.isfinite(x).all() for x in state.parts.values()):
                break
    assert 2 < state.n < 40
    with pytest.raises(FloatingPointError) as caught:
        if differentiated:
            rv.grad(lambda p: np.sum(np.stack(rv.solve(g, y0, ts, p, method=method).y1)))(p)
        else:
            rv.solve(g, y0, ts, p, method=method)
    message = str(caught.value)
    assert f"step {state.n} of 40 (t = {t:.6g})" in message and "no longer finite" in message
    assert "largest entry was" in message and "smaller steps" in message


def test_a_nan_in_the_middle_is_found_where_it_arises() -> None:
    g = lambda t, y, p: np.where(t > 0.52, np.nan, -1.0) * y
    with pytest.raises(FloatingPointError, match=r"step 6 of 10 \(t = 0.6\)"):
        rv.solve(g, Y, np.linspace(0, 1, 11), method=rv.RungeKutta("midpoint"))


def test_a_write_into_the_state_says_read_only() -> None:
    def writes(t: Any, y: Any, p: Any) -> Any:
        y[0] = 0
        return y

    with pytest.raises(ValueError, match="read-only"):
        solve(writes)


def test_inside_a_gradient_the_messages_are_the_same() -> None:
    with pytest.raises(ValueError, match=r"shape \(1,\) for y of shape \(2,\)"):
        rv.grad(lambda p: np.sum(solve(lambda t, y, p: p * y[:1], p=p).y1))(np.array(1.0))
    with pytest.raises(ValueError, match=r"params has entries that are not finite"):
        rv.grad(lambda p: np.sum(solve(lambda t, y, p: p * y, p=p).y1))(np.array(np.nan))
    with pytest.raises(TypeError, match=r"y0 is an array of int64"):
        rv.grad(lambda p: np.sum(solve(y0=np.array([1, 2]), p=p).y1))(np.array(1.0))

"""The second solve of a kind is looked at as the first was: what it refuses, and what it returns, is what a first one would.

The oracle is the same call where no kind is known (kinds.py emptied), by every check in full.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.checks import kinds
from tests.compiler import HERE

TS = np.linspace(0.0, 1.0, 31)


def decay(t: Any, y: Any, p: Any) -> Any:
    return -p["rate"] * y + 0.1 * np.sin(t)


def asked(**other: Any) -> dict[str, Any]:
    params = {"rate": np.array([0.1, 0.2]), "unused": np.ones(1)}
    return {"field": decay, "y0": np.array([1.0, 0.5]), "ts": TS.copy(), "params": params,
            "method": rv.Coupled("midpoint"), "save": [-1], "backend": "replay", **other}


def swap(x: Any, i: Any, value: Any) -> Any:
    x[i] = value
    return x


def noisy(rng: Any) -> Callable:
    return lambda t, y, p: -p["rate"] * y + rng.normal()


BAD = {       # what is wrong with the second solve
    "NaN in y0": lambda d: {**d, "y0": np.array([np.nan, 1.0])},
    "Inf in params": lambda d: {**d, "params": {**d["params"], "rate": np.array([np.inf, 1.0])}},
    "NaN in what nobody uses": lambda d: {**d, "params": {**d["params"], "unused": np.full(1, np.nan)}},
    "a grid that turns, in place": lambda d: {**d, "ts": swap(d["ts"], 5, -1.0)},
    "a grid with NaN, in place": lambda d: {**d, "ts": swap(d["ts"], 5, np.nan)},
    "indices that fall, in place": lambda d: d["save"].extend([3]) or d,
    "an index outside": lambda d: {**d, "save": [77]},
    "y0 of float32": lambda d: {**d, "y0": np.float32([0.1, 0.2])},
    "a field of two arguments": lambda d: {**d, "field": lambda t, y: -y},
    "a field in another order": lambda d: {**d, "field": lambda y, t, p: -0.1 * t},
    "a field without a value": lambda d: {**d, "field": lambda t, y, p: None},
    "a field of another shape": lambda d: {**d, "field": lambda t, y, p: -p["rate"][0] * y[:1]},
    "a field of another dtype": lambda d: {**d, "field": lambda t, y, p: (-p["rate"] * y).astype(np.float32)},
    "a field that is not finite": lambda d: {**d, "field": lambda t, y, p: p["rate"] * np.log(0 * y)},
    "a field of random numbers": lambda d: {**d, "field": noisy(np.random.default_rng(0))},
    "a field that writes": lambda d: {**d, "field": lambda t, y, p: swap(y, 0, 1.0)},
    "a field for arrays alone": lambda d: {**d, "field": lambda t, y, p: -y if type(y) is np.ndarray else -2.0 * y},
    "no backend": lambda d: {**d, "backend": "fortran"},
    "a masked array": lambda d: {**d, "y0": np.ma.array([1.0, 0.5], mask=[True, False])},
    "no such interpretation": lambda d: {**d, "interpretation": "ito?"},
    "noise without a diffusion": lambda d: {**d, "noise": rv.Brownian(1)},
}


def outcome(given: dict[str, Any]) -> tuple:
    """The value and both gradients of a solve, or what it says."""
    given = dict(given)
    y0, params = given.pop("y0"), given.pop("params")

    def loss(y0: Any, params: Any) -> Any:
        leaves = rv.tree.flatten(rv.solve(y0=y0, params=params, **given).ys)[0]
        return sum(np.sum(x * x * (1 + np.arange(x.size).reshape(x.shape)).astype(x.dtype)) for x in leaves)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", rv.RevodeWarning)
        try:
            value, gradients = rv.value_and_grad(loss, (0, 1))(y0, params)
        except Exception as error:
            return type(error), str(error)
    return tuple(np.asarray(x).tobytes() for x in (value, *rv.tree.flatten(gradients)[0]))


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_kinds", [])


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_the_second_time_is_refused_as_it_is_the_first(name: str) -> None:
    given = asked()
    assert type(outcome(given)[0]) is bytes and type(outcome(given)[0]) is bytes and len(kinds._kinds) == 1
    second = BAD[name](given)
    found = outcome(second)
    kinds._kinds[:] = []
    assert isinstance(found[0], type) and found == outcome(second)


GOOD = {
    "a tree": dict(field=lambda t, y, p: {"a": -p * y["b"], "b": p * y["a"]},
                   y0={"a": np.ones(2), "b": np.zeros(2)}, params=np.array(0.3)),
    "position and velocity": dict(field=lambda t, q, p: -p * q, y0=(np.ones((3, 2)), np.zeros((3, 2))), params=np.array(0.3),
                                  method=rv.VelocityVerlet()),
    "float32": dict(y0=np.float32([1.0, 0.5]), params={"rate": np.float32([0.1, 0.2])}),
    "the default": dict(method=None, gradient=None),
    "everything saved": dict(save=None),
    "the tape": dict(backend="eager"),
    "Direct": dict(gradient=rv.Direct(), method=rv.RungeKutta("rk4")),
    "Checkpointed": dict(gradient=rv.Checkpointed(4)),
    "the start is saved": dict(save=[0, 7, 30]),
    "an empty list": dict(save=[]),
    "a field with a default": dict(field=lambda t, y, p, k=2.0: -k * p["rate"] * y),
    "a number among the parameters": dict(field=lambda t, y, p: -p[0] * p[1] * y, params=(0.5, np.array(0.2))),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_known_kind_gives_the_same_bits(name: str) -> None:
    """Also with other numbers, another field of the same kind, and other shapes between."""
    given = asked(**GOOD[name])
    single = {name: rv.tree.map(lambda x: np.asarray(x, np.float32), given[name]) for name in ("y0", "params")}
    solves = [given, {**given, "y0": rv.tree.map(lambda x: x * x.dtype.type(0.7), given["y0"])}, {**given, "ts": 0.5 * TS},
              {**given, **single}, {**given, "ts": TS[::2].copy(), "save": None}]
    first = [outcome(x) for x in solves]
    assert type(first[0][0]) is bytes, first[0]
    assert [outcome(x) for x in solves[::-1]] == first[::-1]
    for one, wanted in zip(solves, first, strict=True):
        kinds._kinds[:] = []
        assert outcome(one) == wanted


def test_trees_of_other_names_are_another_kind() -> None:
    def field(t: Any, y: Any, p: Any) -> Any:
        first, second = y
        return {first: -p * y[second], second: p * y[first]}

    def names(*of: str) -> set:
        y0 = dict.fromkeys(of, np.ones(2))
        return set(rv.solve(field, y0, TS, np.array(0.3), method=rv.Coupled("midpoint"), backend="eager").y1)

    assert names("a", "b") == {"a", "b"} and names("b", "c") == {"b", "c"} and len(kinds._kinds) == 2


def test_a_kind_holds_no_array_of_the_user() -> None:
    """The grid's bytes are the library's own; y0, params and the field may go."""
    import gc
    import weakref
    given = asked()
    watched = [weakref.ref(x) for x in (given["y0"], given["params"]["rate"], given["ts"])]
    outcome(given)
    assert len(kinds._kinds) == 1
    del given
    gc.collect()
    assert [x() is None for x in watched] == [True] * 3


def test_kinds_are_few() -> None:
    for n in range(3, 3 + 2 * kinds.KEPT):
        outcome(asked(ts=np.linspace(0.0, 1.0, 31), y0=np.linspace(0.5, 1.0, n), params={"rate": np.full(n, 0.1)}))
    assert len(kinds._kinds) == kinds.KEPT


@pytest.mark.skipif(not HERE, reason="no C++ compiler")
def test_a_native_call_that_is_made_again_sees_what_has_changed() -> None:
    """In turns, on one library: other steps before the first, other indices, other values in one array of the user, more steps than
    one call takes. The oracle is replay, which makes no such calls; the two round apart by some N eps of the size of what there is."""
    N = 2100                                                     # more than one call takes (compiled/tiles.py: STEPS)
    ts = np.linspace(0.0, 1.0, N + 1)
    y0, params = np.array([1.0, 0.5]), {"rate": np.array([0.3, 0.7])}
    method = rv.LeapfrogMidpoint()                               # a step of it knows the length of the one before

    def solve(backend: str, how: Any) -> list:
        states = {h: rv.solve(decay, y0, np.array([-h, 0.0]), params, method=method, backend="eager").state for h in (1e-3, 2e-4)}
        save, h = how

        def loss(params: Any, y0: Any) -> Any:
            start = {"y0": y0} if h is None else {"y0": None, "state0": states[h]}
            sol = rv.solve(decay, ts=ts, params=params, method=method, gradient=rv.Reversible(), save=save, backend=backend, **start)
            return np.sum(sol.ys ** 2)

        value, gradients = rv.value_and_grad(loss, (0, 1) if h is None else 0)(params, y0)
        return [value, *(x for x in rv.tree.flatten(gradients)[0])]

    hows = [([-1], None), ([-1], 1e-3), ([-1], 2e-4), ([3, 1000, N], None), ([-1], None), (None, None)]
    for change in (1.0, 0.9):
        y0 *= change
        params["rate"] *= change
        for how in [*hows, *hows[:2]]:
            for one, other in zip(solve("native", how), solve("replay", how), strict=True):
                assert np.allclose(one, other, rtol=100 * N * np.finfo(float).eps, atol=1e-13)
    ts[1:] *= 0.5                                                # the grid, in place
    for one, other in zip(solve("native", hows[1]), solve("replay", hows[1]), strict=True):
        assert np.allclose(one, other, rtol=100 * N * np.finfo(float).eps, atol=1e-13)

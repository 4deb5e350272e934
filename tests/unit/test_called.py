"""A warm solve of native code is called (compiled/called.py). The oracle is the same solve the long way, by the march and the watch,
which an empty list of known kinds brings about: all bits, what is said, and what the statistics count."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.checks import kinds
from revode.compiled import called, promote
from revode.compiled import quiet as compiled_quiet
from revode.watch import quiet
from tests.compiler import HERE

pytestmark = pytest.mark.skipif(not HERE, reason="no C++ compiler")

TS = np.linspace(0.0, 1.0, 61)
WARM = 24                  # solves after which what is quiet is measured in C++ (quiet.LATER), and the first ones have been compared
PARAMS = {"W": np.array([[0.1, 0.8], [-0.9, 0.05]]), "b": np.array([0.3, -0.2])}
METHODS = {"reversible Heun": rv.ReversibleHeun(), "Coupled": rv.Coupled("midpoint", 0.999), "leapfrog": rv.AsynchronousLeapfrog(),
           "nearly reversible": rv.NearReversible("rk4")}


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"]) + 0.1 * np.sin(t)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each sweep back that was called has found all quiet."""
    found: list[bool] = []
    back = called.Called.back

    def noted(self: Any, *args: Any) -> Any:
        result = back(self, *args)
        found.append(result is not None)
        return result

    monkeypatch.setattr(called.Called, "back", noted)
    return found


def gradient(y0: Any, params: Any, field: Callable = field, **how: Any) -> tuple:
    """Value, both gradients as bytes, statistics, and warnings by their kind."""
    how = {"ts": TS, "save": [-1], "gradient": rv.Reversible(), "backend": "native", **how}

    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(field, y0, params=params, **how)
        return np.sum(sol.ys * sol.ys) + np.sum(sol.y1), sol.stats

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (value, stats), gradients = rv.value_and_grad(loss, (0, 1), has_aux=True)(y0, params)
    bits = [np.asarray(x).tobytes() for x in (value, *rv.tree.flatten(gradients)[0])]
    return bits, (stats.nfe, stats.nfe_forward, stats.nvjp, stats.steps, stats.peak_states, stats.backend), stats.roundtrip, [
        str(x.message) for x in said]


def warmed(*args: Any, **how: Any) -> tuple:
    for _ in range(WARM):
        found = gradient(*args, **how)
    return found


def test_called_once_auto_has_gone_native(ways: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """backend="auto" is called as well, with the bits of native code; replay never is."""
    for price in ("COMPILER", "OPERATION"):
        monkeypatch.setattr(promote, price, 0.0)
    y0 = np.array([[0.3, -0.2]])
    found = warmed(y0, PARAMS, backend="auto")
    assert ways[-1:] == [True]
    assert found == warmed(y0, PARAMS)
    calls = len(ways)
    warmed(y0, PARAMS, backend="replay")
    assert len(ways) == calls


@pytest.mark.sample(8)
@pytest.mark.parametrize("save", [[-1], None, [0, 20, 40]], ids=str)
@pytest.mark.parametrize("shape", [(2,), (1, 2), (21, 2)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_called_or_the_long_way(name: str, shape: tuple, save: Any, ways: list[bool]) -> None:
    y0 = np.random.default_rng(0).normal(size=shape)
    how: dict[str, Any] = {"method": METHODS[name], "save": save, "gradient": None if save is None else rv.Reversible()}
    one = warmed(y0, PARAMS, **how)
    assert ways[-1:] == [True]
    calls = len(ways)
    kinds._kinds.clear()
    assert gradient(y0, PARAMS, **how)[:2] == one[:2] and len(ways) == calls
    assert gradient(y0, PARAMS, **how) == one
    assert one[1] == (*gradient(y0, PARAMS, **how, backend="eager")[1][:-1], "native")          # what is counted, the tape counts


@pytest.mark.parametrize("shape", [(2,), (21, 2), (96, 2)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_what_a_called_sweep_is_told_by(name: str, shape: tuple, ways: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured where it lies, by C++, it is what NumPy measures the long way, of arrays. Sums of some hundred terms: 1e3 eps of their
    size; S and the E of an undone step are what rounding leaves of differences, and of one size."""
    found: dict[str, quiet.Measured] = {}

    def noted(key: str, made: quiet.Measured) -> quiet.Measured:
        return found.setdefault(key, made._replace(A=made.A.copy()))

    of_rows = compiled_quiet.Measure.of_rows
    y0 = np.random.default_rng(0).normal(size=shape)
    how: dict[str, Any] = {"method": METHODS[name], "gradient": rv.Reversible()}
    warmed(y0, PARAMS, **how)
    monkeypatch.setattr(compiled_quiet.Measure, "of_rows", lambda *args: noted("called", of_rows(*args)))
    gradient(y0, PARAMS, **how)
    monkeypatch.setattr(compiled_quiet.Measure, "__call__", lambda measure, shown: noted("long", quiet.measured(shown)))
    kinds._kinds.clear()
    gradient(y0, PARAMS, **how)
    one, other = found["called"], found["long"]
    assert ways[-1] and one.together == other.together
    for x, y in zip(one, other, strict=True):
        if x is one.S or x is one.E:
            assert np.allclose(x, y, rtol=3.0, atol=1e-12)
        else:
            assert np.allclose(x, y, rtol=1e3 * np.finfo(float).eps, atol=0)


def test_other_numbers_are_those_of_the_solve_at_hand(ways: list[bool]) -> None:
    """Called with other states and parameters it is what a first solve of them is."""
    how: dict[str, Any] = {"method": rv.ReversibleHeun()}
    warmed(np.ones(2), PARAMS, **how)
    y0, params = np.array([0.5, -1.5]), {"W": 0.5 * PARAMS["W"], "b": PARAMS["b"][::-1].copy()}
    one = gradient(y0, params, **how)
    assert ways[-1]
    kinds._kinds.clear()
    assert gradient(y0, params, **how)[0] == one[0]


def test_what_is_not_quiet_is_said(ways: list[bool]) -> None:
    """A contraction that the copies do not follow: called, seen, and gone the long way, with its warning and its numbers."""
    how: dict[str, Any] = {"method": rv.ReversibleHeun(), "field": lambda t, y, p: -p["rate"] * y, "ts": np.linspace(0.0, 4.0, 61)}
    quiet, stiff = {"rate": np.array([0.1, 0.2])}, {"rate": np.array([9.0, 8.0])}
    warmed(np.ones(2), quiet, **how)
    one = gradient(np.ones(2), stiff, **how)
    assert ways[-2:] == [True, False] and one[3]
    kinds._kinds.clear()
    assert gradient(np.ones(2), stiff, **how) == one


def test_a_solution_that_blows_up(ways: list[bool]) -> None:
    how: dict[str, Any] = {"method": rv.Coupled("midpoint"), "field": lambda t, y, p: p["a"] * y * y, "ts": np.linspace(0.0, 4.0, 61)}
    warmed(np.ones(2), {"a": np.array([0.1, 0.2])}, **how)
    calls, said = len(ways), []
    for _ in range(2):
        with pytest.raises(FloatingPointError) as error, np.errstate(all="ignore"):
            gradient(np.ones(2), {"a": np.array([50.0, 60.0])}, **how)
        said.append(str(error.value))
        kinds._kinds.clear()
    assert said[0] == said[1] and len(ways) == calls


def test_two_solves_and_two_pulls(ways: list[bool]) -> None:
    """Solves of one kind share their runners: each pulls back its own, in any order and again."""
    def solved(y0: Any, params: Any) -> Any:
        return rv.solve(field, y0, TS, params, method=rv.ReversibleHeun(), save=[-1], gradient=rv.Reversible(), backend="native").y1

    y0, other, seed = np.ones(2), np.array([-0.5, 0.7]), np.array([1.0, -2.0])
    for _ in range(WARM):
        alone = [rv.vjp(solved, y, PARAMS)[1](seed) for y in (y0, other)]
    _, first = rv.vjp(solved, y0, PARAMS)
    _, second = rv.vjp(solved, other, PARAMS)
    for pull, wanted in ((first, alone[0]), (second, alone[1]), (first, alone[0])):
        found = pull(seed)
        assert all(np.array_equal(a, b) for a, b in zip(*(rv.tree.flatten(x)[0] for x in (found, wanted)), strict=True))
    assert all(ways[-3:])


def test_a_field_that_has_changed(ways: list[bool]) -> None:
    """A number of the field is an input once it has changed: the solves after that are called again, with the number at hand."""
    scale = [1.0]

    def scaled(t: Any, y: Any, p: Any) -> Any:
        return scale[0] * np.tanh(y @ p["W"] + p["b"])

    warmed(np.ones(2), PARAMS, method=rv.ReversibleHeun(), field=scaled)
    found = []
    for scale[0] in (2.0, 3.0, 2.0):
        found.append(warmed(np.ones(2), PARAMS, method=rv.ReversibleHeun(), field=scaled))
        assert ways[-1]
        wanted = gradient(np.ones(2), PARAMS, method=rv.ReversibleHeun(), field=scaled, backend="eager", gradient=rv.Direct())
        for a, b in zip(found[-1][0], wanted[0], strict=True):          # 60 steps and back, each rounded: some 1e2 eps
            np.testing.assert_allclose(np.frombuffer(a), np.frombuffer(b), rtol=1e-12)
    assert found[0][0] == found[2][0] != found[1][0]


CHANGES: dict[str, Callable] = {
    "operation": lambda y0, p, use: use.__setitem__(0, np.sin) or (y0, p),
    "shape": lambda y0, p, use: (np.tile(y0, (3, 1)), p),
    "dtype": lambda y0, p, use: (y0.astype(np.float32), {name: x.astype(np.float32) for name, x in p.items()}),
    "shape of a parameter": lambda y0, p, use: (y0, {**p, "b": np.array(0.2)}),
    "one parameter more": lambda y0, p, use: (y0, {**p, "c": np.array([0.3, -0.1])}),
    "one parameter less": lambda y0, p, use: (y0, {"W": p["W"]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_warm_solves_is_noticed(change: str, ways: list[bool]) -> None:
    """The next solve is that of the tape, and so are those that are called after it."""
    use = [np.tanh]

    def changing(t: Any, y: Any, p: Any) -> Any:
        return use[0](y @ p["W"] + p.get("b", 0.0)) + p.get("c", 0.0) * y

    how: dict[str, Any] = {"method": rv.ReversibleHeun(), "field": changing}
    y0 = np.array([0.4, -0.9])
    before = warmed(y0, PARAMS, **how)
    assert ways[-1]
    y0, params = CHANGES[change](y0, PARAMS, use)
    first, later = gradient(y0, params, **how), warmed(y0, params, **how)
    assert ways[-1]
    wanted = gradient(y0, params, **{**how, "backend": "eager", "gradient": rv.Direct()})[0]
    # 60 steps and back, each rounded: some 1e2 eps
    dtype, rtol = (y0.dtype, 1e-12 if y0.dtype == np.float64 else 1e-4)
    assert len(first[0]) == len(wanted)
    for a, b, c in zip(first[0], wanted, later[0], strict=True):
        for x in (a, c):
            np.testing.assert_allclose(np.frombuffer(x, dtype), np.frombuffer(b, dtype), rtol=rtol, atol=rtol)
    assert first[0] != before[0]

"""The monitor: what is wrong is said, on every engine alike, and what is said names the cause. Truths are closed forms, or SciPy's."""
from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import revode as rv
from revode.methods.companion import Companion, neutral
from revode.methods.shears import Step
from revode.watch import LOOKS, Ahead, Back, Quiet, grouped, looks, places, runs, within
from revode.watch.gaps import injected, parted, weighted

ENGINES = ("eager", "replay", "native")


def decay(t: Any, y: Any, p: Any) -> Any:
    return -p * y


def cubic(t: Any, y: Any, p: Any) -> Any:
    return -p * y ** 3


def logistic(t: Any, y: Any, p: Any) -> Any:
    return p * y * (1 - y)


def sir(t: Any, y: Any, p: Any) -> Any:
    return np.stack([-p[0] * y[0] * y[1], p[0] * y[0] * y[1] - p[1] * y[1], p[1] * y[1]])


def enzyme(t: Any, y: Any, p: Any) -> Any:
    return -p[0] * y / (p[1] + y)


def swing(t: Any, y: Any, p: Any) -> Any:
    return p * np.cos(t) * y


def pendulum(t: Any, y: Any, p: Any) -> Any:
    return np.stack([y[1], -p * np.sin(y[0])])


def tank(t: Any, y: Any, p: Any) -> Any:
    return -p * np.sqrt(np.maximum(y, 0.0))


def own_copies(t0: Any, t1: Any, h: Any) -> list:
    """Coupled euler, written by a user."""
    return [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h), scale=0.999, about="z"), rv.Shear("z", ("y",), lambda F, y: -F(t1, y, -h))]


class Case(NamedTuple):
    field: Callable
    y0: Any
    ts: np.ndarray
    p: Any
    method: Any


def array(x: Any) -> np.ndarray:
    return np.array(x, float)


TEN = np.linspace(0.0, 10.0, 101)
PARTED = {
    "decay": Case(decay, array([1.0]), TEN, array(0.7), rv.Coupled()),
    "cubic decay": Case(cubic, array([1.0]), np.linspace(0, 20, 101), array(0.5), rv.Coupled()),
    "logistic growth": Case(logistic, array([0.1]), np.linspace(0, 20, 201), array(1.0), rv.Coupled()),
    "an epidemic": Case(sir, array([0.99, 0.01, 0.0]), np.linspace(0, 60, 301), array([0.6, 0.2]), rv.Coupled()),
    "an enzyme": Case(enzyme, array([2.0]), np.linspace(0, 12, 121), array([1.0, 0.4]), rv.Coupled()),
    "a small member of a batch": Case(decay, array([[1.0], [100.0]]), TEN, array([[1.0], [0.0]]), rv.Coupled()),
    "a small entry": Case(decay, array([1.0, 1e6]), TEN, array([1.0, 0.0]), rv.Coupled()),
    "a small member, reversible Heun": Case(decay, array([[1e-3], [1e3]]), TEN, array([[1.0], [0.0]]), rv.ReversibleHeun()),
    "fourth order": Case(decay, array([1.0]), np.linspace(0, 8, 801), array(2.0), rv.Coupled("rk4")),
    "ALF": Case(decay, array([0.5, 15.0, 150.0]), TEN, array([1.0, 0.1, 0.0]), rv.AsynchronousLeapfrog()),
    "leapfrog": Case(decay, array([1.0, 3.0, 30.0]), TEN, array([1.0, 0.1, 0.0]), rv.LeapfrogMidpoint()),
    "a user's copies": Case(decay, array([1.0]), TEN, array(0.7), rv.shears(own_copies, twin=("y", "z"))),
}
NATIVELY = {"decay", "a small entry", "ALF"}          # compiling each takes a second


def said(case: Case, engine: str, save: Any = (-1,), gradient: Any = None) -> tuple:
    """(y1, gradients, warnings) of a solve and the sum of squares of what it saves."""
    def loss(y0: Any, p: Any) -> tuple:
        sol = rv.solve(case.field, y0, case.ts, p, method=case.method, gradient=gradient or rv.Reversible(),
                       save=None if save is None else list(save), backend=engine)
        return np.sum(sol.ys ** 2), sol.y1

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        (_, y1), gradients = rv.value_and_grad(loss, (0, 1), has_aux=True)(case.y0, case.p)
    return np.asarray(y1), gradients, [w.message for w in found]


def truth(case: Case) -> np.ndarray:
    shape = case.y0.shape
    return solve_ivp(lambda t, y: case.field(t, y.reshape(shape), case.p).ravel(), (case.ts[0], case.ts[-1]), case.y0.ravel(),
                     method="DOP853", rtol=1e-11, atol=1e-16).y[:, -1].reshape(shape)


@pytest.mark.parametrize("name", PARTED)
def test_copies_that_part_are_told_by_every_engine(name: str) -> None:
    """Each of these is wrong by more than a tenth in some entry, with a perfect round trip, and says so: in words that do not
    differ, at the same place."""
    case = PARTED[name]
    found = {engine: said(case, engine) for engine in ENGINES[:3 if name in NATIVELY else 2]}
    exact = truth(case)
    for y1, _, messages in found.values():
        assert np.max(abs(y1 - exact) / abs(exact)) > 0.1
        assert type(messages[0]) is rv.ParasiteWarning and not any(c.isdigit() for c in str(messages[0]).split("Likely")[0])
    first = found["eager"][2]
    for _, _, messages in found.values():
        assert [(type(m), str(m), m.details["step"]) for m in messages] == [(type(m), str(m), m.details["step"]) for m in first]


@pytest.mark.parametrize("name", ["decay", "a small entry", "ALF"])
def test_a_plain_solve_tells_it_too(name: str) -> None:
    case = PARTED[name]
    for engine in ENGINES:
        with pytest.warns(rv.ParasiteWarning):
            rv.solve(case.field, case.y0, case.ts, case.p, method=case.method, save=[-1], backend=engine)


SOUND = {
    "pendulum": Case(pendulum, array([1.0, 0.5]), np.linspace(0, 10, 1001), array(9.81), rv.Coupled()),
    "pendulum, reversible Heun": Case(pendulum, array([1.0, 0.5]), np.linspace(0, 10, 1001), array(9.81), rv.ReversibleHeun()),
    "growth, ALF": Case(lambda t, y, p: p * y, array([1.0, 0.2]), np.linspace(0, 5, 201), array(0.7), rv.AsynchronousLeapfrog()),
    "a slow decay, leapfrog": Case(decay, array([1.0, 1e3]), np.linspace(0, 2, 201), array([0.1, 0.2]), rv.LeapfrogMidpoint()),
    "lam that follows": Case(decay, array([1.0, 1e-3]), np.linspace(0, 4, 401), array(0.7), rv.Coupled("midpoint", 0.98)),
    "a member at rest": Case(decay, array([[1.0], [3.0]]), np.linspace(0, 1, 201), array([[0.01], [0.0]]), rv.Coupled()),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("save", [(-1,), None])
@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_is_not_told(name: str, save: Any) -> None:
    case = SOUND[name]
    for engine in ENGINES[:2]:
        y1, _, messages = said(case, engine, save)
        assert not messages, [(str(m), m.details) for m in messages]
        assert np.max(abs(y1 - truth(case)) / abs(truth(case))) < 1e-2          # second order: (h rate)^2 T and less


CROWDED = (rv.Coupled("midpoint"), rv.ReversibleHeun(), rv.AsynchronousLeapfrog())


@pytest.mark.parametrize("method", CROWDED, ids=str)
@pytest.mark.parametrize("shape", [(1000, 16), (1000,)])
def test_a_crowd_is_no_alarm_by_its_number(shape: tuple, method: Any) -> None:
    """Some entry of so many is near zero by chance. 10 steps of a second order are right to (h rate)^2 = 1e-2 of the largest entry;
    the gradient is watched as well."""
    rng = np.random.default_rng(0)
    p = {"V": rng.normal(size=(shape[-1], 32)) / shape[-1] ** 0.5, "W": rng.normal(size=(32, shape[-1])) / 32 ** 0.5}
    case = Case(lambda t, y, p: np.tanh(y @ p["V"]) @ p["W"], rng.normal(size=shape), np.linspace(0, 1, 11), p, method)
    for engine in ENGINES[:2]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rv.solve(case.field, case.y0, case.ts, p, method=method, save=[-1], backend=engine)
        y1, _, messages = said(case, engine)
        assert not messages, [(str(m), m.details) for m in messages]
        assert np.max(abs(y1 - truth(case))) < 1e-2 * np.max(abs(y1))


@pytest.mark.parametrize("method", CROWDED, ids=str)
@pytest.mark.parametrize("lost", [1, 16, 32, 63])
def test_a_crowd_hides_nobody(lost: int, method: Any) -> None:
    """Of 64 some begin a hundredth as large and decay until nothing is left but the distance of their copies; the others rest, or
    grow slowly. A plain solve tells it."""
    rate = np.where(np.arange(64) < lost, 1.0, -0.001)[:, None]
    y0 = np.where(np.arange(64) < lost, 1.0, 100.0)[:, None]
    with pytest.warns(rv.ParasiteWarning):
        y1 = rv.solve(decay, y0, np.linspace(0, 10, 101), rate, method=method, save=[-1], backend="replay").y1
    assert abs(y1[0] / np.exp(-10) - 1) > 1


# what is quiet

FIELDS = {"swing": (swing, 1), "pendulum": (pendulum, 2), "decay": (decay, 1), "cubic": (cubic, 1), "logistic": (logistic, 1),
          "rows": (lambda t, y, p: np.tanh(y @ p) - 0.1 * y, (3, 2))}
METHODS = (rv.Coupled("midpoint"), rv.Coupled("rk4", 0.9), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(0.9), rv.LeapfrogMidpoint(),
           rv.EES25(), rv.NearReversible("rk4"))


@pytest.mark.sample(2)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_where_all_is_quiet_a_full_look_finds_nothing(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 solves that begin near and far from zero, with few and many steps, many of them are lost. A quiet one has bounds of all
    numbers of the full look (up to rounding: a step is N times smaller than y, its change is one more difference), which has nothing
    to say, nor finds an estimate from which the default acts. Most sound ones are quiet."""
    found = []

    def both(self: Quiet, *missed: Any, **more: Any) -> Any:
        verdict = plain(self, *missed, **more)
        quiet, trip = self.full is None, self.problem.stats.roundtrip
        found.append((quiet, verdict, self.back.verdict(*missed, **more), trip, self.problem.stats.roundtrip,
                      self.problem.suspicion, self.problem.N * np.finfo(self.given[3][0].dtype).eps))
        return verdict

    plain = Quiet.verdict
    monkeypatch.setattr(Quiet, "verdict", both)
    rng = np.random.default_rng(5)
    for k in range(60):
        field, shape = FIELDS[list(FIELDS)[k % len(FIELDS)]]
        dtype = (np.float64, np.float32)[k % 7 == 3]
        y0 = np.asarray(rng.uniform(0.1, 1.5, shape), dtype)
        p = np.asarray(rng.normal(size=(2, 2)) if shape == (3, 2) else rng.uniform(0.05, 3.0), dtype)
        case = Case(field, y0, np.linspace(0.0, rng.uniform(0.5, 6.0), int(rng.integers(40, 400))), p, method)
        with np.errstate(all="ignore"), suppress(FloatingPointError):
            said(case, "replay", ((-1,), None)[k % 2], (rv.Reversible(), rv.Automatic())[k % 5 == 4])
    assert len(found) >= 50 and sum(quiet for quiet, *_ in found) >= 8
    for quiet, verdict, full, trip, again, suspicion, rounding in found:
        if quiet:
            assert not full.complaints and suspicion is None
            assert all(full.estimate[name] <= x * (1 + 1e-6) for name, x in verdict.estimate.items())
            assert all(full.numbers[name] <= x * (1 + 1e-6) + 100 * rounding for name, x in verdict.numbers.items())
            assert trip == again
    sound = [quiet for quiet, _, full, *_ in found if not full.complaints and max(full.estimate.values()) < 1e-7]
    assert np.mean(sound) > 0.5


# the reconstruction

LOST = {
    "a rate that changes sign": Case(swing, array([1.0]), np.linspace(0, 20, 61), array(3.0), rv.EES25()),
    "a quicker one, RK4": Case(swing, array([1.0]), np.linspace(0, 12, 41), array(4.0), rv.NearReversible("rk4")),
    "two rates": Case(swing, array([1.0, 2.0]), np.linspace(0, 20, 61), array([3.0, 0.1]), rv.EES25()),
}


@pytest.mark.parametrize("save", [(-1,), None])
@pytest.mark.parametrize("name", LOST)
def test_nearly_reversible_methods_tell_when_they_are_lost(name: str, save: Any) -> None:
    """The gradient over p is off by more than 1e-2, of which the way back to y0 alone shows little: the defects do."""
    case = LOST[name]
    _, exact, _ = said(case, "eager", save, rv.Direct())
    numbers = []
    for engine in ENGINES:
        _, gradients, messages = said(case, engine, save)
        off = max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(gradients, exact, strict=True))
        assert off > 1e-2 and [type(m) for m in messages] == [rv.ReconstructionWarning]
        details = messages[0].details
        assert max(details["W_p"], details["E"]) > off / 30        # the estimate is no bound; it was within 30 of the error
        numbers.append([details[key] for key in ("W_y", "W_p", "E")])
    assert np.allclose(numbers[0], numbers[1], rtol=1e-3) and np.allclose(numbers[0], numbers[2], rtol=1e-3)


def test_a_gradient_over_parameters_alone_is_judged_alone() -> None:
    """A contraction by exp(-20) in each of two entries: y0 cannot be rebuilt, and nobody asks for its gradient; the one over p
    comes from the end, where all is well."""
    ts, y0, method = np.linspace(0, 4, 401), array([1.0, 0.5]), rv.NearReversible("rk4")
    field = lambda t, y, p: -5.0 * (y - p)
    loss = lambda y0, p: np.sum(rv.solve(field, y0, ts, p, method=method, gradient=rv.Reversible(tol=1e-6), save=[-1]).y1 ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        over_p = rv.grad(loss, 1)(y0, array(1.0))
    assert abs(over_p - 2 * 2 * (1 - np.exp(-20.0))) < 1e-7           # y1 = p for either entry, but for exp(-20)


def test_a_dead_entry_does_not_hide_another() -> None:
    """An entry of 1e8 in which the loss takes no interest, beside one whose reconstruction fails."""
    field = lambda t, y, p: np.stack([0.0 * y[0], p * np.cos(t) * y[1]])
    case = Case(field, array([1e8, 1.0]), np.linspace(0, 20, 61), array(3.0), rv.EES25())
    for weight in (0.0, 1e-8):
        loss = lambda y0, p, weight=weight: (lambda y: weight * y[0] + np.sum(y[1] ** 2))(rv.solve(
            case.field, y0, case.ts, p, method=case.method, gradient=rv.Reversible(), save=[-1]).y1)
        with pytest.warns(rv.ReconstructionWarning):
            rv.grad(loss, (0, 1))(case.y0, case.p)


def test_the_cause_is_the_word_where_its_scales_amplify() -> None:
    """A pure rotation by a user's word whose scales have the product .86: the way back divides by it, and nothing contracts."""
    def word(t0: Any, t1: Any, h: Any) -> list:
        return [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h), scale=0.93, about="z"),
                rv.Shear("z", ("y",), lambda F, y: F(t1, y, h), scale=0.93, about="y")]

    method = rv.shears(word)
    rotation = lambda t, y, p: p * np.stack([y[1], -y[0]])
    assert neutral(method.word(Step(0.0, 1.0, np.asarray(1.0), None))) == pytest.approx(0.93 ** 2)
    with pytest.warns(rv.ReconstructionWarning, match="divides by its scales") as found:
        rv.grad(lambda p: np.sum(rv.solve(rotation, array([1.0, 0.0]), np.linspace(0, 5, 401), p, method=method, save=[-1],
                                          gradient=rv.Reversible()).y1))(1.0)
    assert "contracts" not in str(found[0].message) and found[0].message.details["growth"] == pytest.approx(0.93 ** -2)


# adaptive steps

@pytest.mark.parametrize("method", [rv.Coupled("dopri5"), rv.Coupled("bosh3"), rv.Coupled("tsit5", lam=0.5),
                                    rv.Coupled("dopri5", lam=0.9)], ids=str)
@pytest.mark.parametrize("tol", [1e-4, 1e-6])
def test_adaptive_copies_keep_their_tolerance_or_tell(method: Any, tol: float) -> None:
    """y' = -y^3/2 from 1 to T = 20: y1 = 21^-1/2 and dL/dy0 of L = y1 is 21^-3/2. Told, or within 30 tolerances of y, and within
    1000 of the gradient, which is small."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        y1, gradient = rv.value_and_grad(lambda y0: rv.solve(cubic, y0, (0.0, 20.0), 0.5, method=method, save=[-1],
                                                             controller=rv.PID(tol, tol / 100)).y1[0])(array([1.0]))
    if method.lam == 0.999:
        assert any(issubclass(w.category, rv.ParasiteWarning) for w in found)
    if not found:
        assert abs(y1 / 21 ** -0.5 - 1) < 30 * tol and abs(gradient[0] / 21 ** -1.5 - 1) < 1000 * tol


def test_a_sine_backwards_keeps_its_tolerance() -> None:
    """A carried gap must not enter the norm, which no step could then meet; what a step adds must."""
    sol = rv.solve(lambda t, y, p: np.cos(t) + 0.0 * y, array([0.0]), (0.0, -10.0), method=rv.Coupled("dopri5"), save=[-1],
                   controller=rv.PID(1e-7, 1e-9))
    assert abs(sol.y1[0] - np.sin(-10.0)) < 30 * 1e-7 and sol.stats.steps < 400


def test_stiff_is_said_only_of_what_is() -> None:
    """DETEST B3 contracts by one per unit of time, which is nothing to dopri5, and too much for lam = .999."""
    field = lambda t, y, p: np.stack([-y[0], y[0] - y[1] ** 2, y[1] ** 2])
    with pytest.warns(rv.ParasiteWarning), pytest.raises(FloatingPointError, match=r"keep the two copies .* together.*lam") as found:
        rv.solve(field, array([1.0, 0.0, 0.0]), (0.0, 20.0), method=rv.Coupled("dopri5"),
                 controller=rv.PID(1e-6, 1e-8, max_steps=1500))
    assert "stiff" not in str(found.value)
    with pytest.raises(FloatingPointError, match="stiff or singular"):
        rv.solve(lambda t, y, p: y ** 2, array([1.0]), (0.0, 2.0), method=rv.RungeKutta("dopri5"), controller=rv.PID(1e-6, 1e-8))


# what is not finite, and the continuous adjoint

@pytest.mark.parametrize("mode", [rv.Direct(), rv.Checkpointed(5), rv.Reversible()], ids=str)
def test_a_root_at_zero_is_named(mode: Any) -> None:
    """An empty tank: sqrt(0) has an infinite slope, and np.maximum does not keep it out."""
    loss = lambda p: np.sum(rv.solve(tank, array([1.0]), np.linspace(0, 3, 301), p["k"], method=rv.Coupled("rk4", 0.5),
                                     gradient=mode).ys)
    with pytest.warns(rv.NonFiniteWarning, match=r"params is not finite.*root.*np\.where\(x > 0, np\.sqrt\(np\.where") as found:
        gradient = rv.grad(loss)({"k": array(1.0)})
    assert np.isnan(gradient["k"]) and found[0].message.details["step"] == 299 and len(found) == 1


def test_the_remedy_helps() -> None:
    """dL/dp by central differences of the same solve, 1e-5 apart: h^2 of them, over a state that ends at 0."""
    guarded = lambda t, y, p: -p * np.where(y > 0, np.sqrt(np.where(y > 0, y, 1.0)), 0.0)
    loss = lambda p: np.sum(rv.solve(guarded, array([1.0]), np.linspace(0, 1.9, 191), p, method=rv.RungeKutta("rk4")).ys)
    gradient = rv.grad(loss)(array(1.0))
    assert gradient == pytest.approx((loss(1.0 + 1e-5) - loss(1.0 - 1e-5)) / 2e-5, rel=1e-6)


def test_one_zero_row_under_a_norm_is_named() -> None:
    field = lambda t, y, p: -p["w"] * y / (1.0 + np.linalg.norm(y, axis=-1, keepdims=True))
    y0, method = array([[1.0, 2.0], [0.0, 0.0]]), rv.RungeKutta("rk4")
    loss = lambda p: np.sum(rv.solve(field, y0, np.linspace(0, 1, 11), p, method=method).ys ** 2)
    with pytest.warns(rv.NonFiniteWarning, match=r"params\['w'\] is not finite.*a norm"):
        rv.grad(loss)({"w": array(1.0)})


def test_a_loss_that_is_not_finite_is_named() -> None:
    with pytest.warns(rv.NonFiniteWarning, match="the loss"), np.errstate(all="ignore"):
        rv.grad(lambda p: np.sqrt(np.sum(0.0 * rv.solve(decay, array([1.0]), TEN, p, method=rv.RungeKutta("rk4")).ys)))(array(0.1))


def test_strict_raises_what_is_not_finite() -> None:
    with pytest.raises(rv.NonFiniteError, match="step = 299"):
        rv.grad(lambda p: np.sum(rv.solve(tank, array([1.0]), np.linspace(0, 3, 301), p, method=rv.Coupled("rk4", 0.5),
                                          gradient=rv.Reversible(strict=True)).ys))(array(1.0))


@pytest.mark.parametrize("rates", [(1.0, 2.0), (3.0, 0.5)])
def test_backsolve_tells_when_its_y_leaves_the_path(rates: Any) -> None:
    """Backwards a decay explodes: by exp(20) and more."""
    field = lambda t, y, p: np.stack([2 - p[0] * y[0], y[0] - p[1] * y[1], 0.0 * y[2]])
    loss = lambda p, **how: np.sum(rv.solve(field, np.ones(3), (0.0, 20.0), p, method=rv.RungeKutta("dopri5"),
                                            save_at=[0, 0.5, 0.75, 20], controller=rv.PID(1e-8, 1e-8),
                                            gradient=rv.Backsolve(**how)).ys)
    with pytest.warns(rv.AdjointWarning, match="left what had been saved"):
        rv.grad(loss)(array(rates))
    with pytest.raises(rv.AdjointError):
        rv.grad(lambda p: loss(p, strict=True))(array(rates))


def test_backsolve_is_silent_where_it_is_near() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rv.grad(lambda p: np.sum(rv.solve(pendulum, array([1.0, 0.3]), np.linspace(0, 5, 501), p, method=rv.RungeKutta("rk4"),
                                          gradient=rv.Backsolve()).ys))(array(2.0))


# the parts

@pytest.mark.parametrize("N", [0, 1, 2, 5, 17, 48, 100, 1000])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_places_share_no_point_and_stay_inside(N: int, width: int) -> None:
    for stretch in (None, 4, 7):
        at = places(N, width, stretch)
        points = looks(N, width, stretch)
        assert len(at) <= LOOKS and len(set(points)) == len(points) == width * len(at) and set(points) <= set(range(N + 1))
        if stretch is not None:
            assert all(n // stretch == (n + width - 1) // stretch for n in at)
        assert sorted(points) == list(points) and len(at) >= min(LOOKS, (N + 1) // width) * (stretch is None)


def test_runs_are_neighbours_in_the_order_of_time() -> None:
    assert runs((1, 2, 3, 7, 8, 9, 10), 3).T.tolist() == [[0, 1, 2], [3, 4, 5], [4, 5, 6]]
    assert runs((10, 9, 8, 3, 2), 2).T.tolist() == [[1, 0], [2, 1], [4, 3]]


@pytest.mark.parametrize("N", [7, 20, 63, 64, 100, 1000])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_groups_end_where_windows_do(N: int, width: int) -> None:
    """Also of windows that share an end, and among points that are in none; there and back."""
    for others in (set(), {0, N // 2, N // 2 + 1, N}):
        for way in (1, -1):
            ns = sorted({*looks(N, width), *others})[::way]
            for most in (1, 5, 1000):
                groups = grouped(ns, most, within(N, width))
                assert [n for group in groups for n in group] == ns and max(map(len, groups)) < most + width
                assert all(sum(n in group for group in groups) == 1 and {*range(n, n + width)} <= {*group}
                           for n in places(N, width) for group in groups if n in group)
        assert max(map(len, grouped([n for n in ns if n in within(N, width)], 1, within(N, width)))) <= max(1, width - 1)   # no first
    assert grouped([], 1, frozenset()) == [[]]


def test_weighted_sums_have_the_signs_of_their_weights() -> None:
    parts = {"y": array([3.0]), "z": array([5.0]), "v": array([7.0])}
    assert weighted({"z": -1.0, "y": 1.0}, parts) == [-2.0] and weighted({"y": 2.0, "v": -0.5}, parts) == [2.5]


def test_entries_far_below_the_largest_of_their_member_count_as_somewhat_larger() -> None:
    """s is no less than eps^1/2 times the largest entry of the member, whether all are quickly seen to be larger or not."""
    grid = np.linspace(0.0, 1.0, 101)
    for least in (1e-3, 1e-12):
        watch = Ahead(SimpleNamespace(ts=grid, N=100, adaptive=None, driver=None, known={}, method=rv.ReversibleHeun()), None)
        y = array([[[1.0, least], [1e-4, 1e-4]]])
        s = watch.fading((50,), y)[1]
        np.testing.assert_array_equal(s, np.maximum(y, array([[[2.0 ** -26], [2.0 ** -26 * 1e-4]]])) + np.finfo(float).tiny)
        later = watch.fading((51, 52, 54), array([0.0, 2.0, 0.0])[:, None, None])[1]      # exp(-20 t) behind; some five roundings
        np.testing.assert_allclose(later[:, 0, 0], [np.exp(-0.2), 2.0, 2 * np.exp(-0.4)], rtol=1e-14)


def test_what_a_window_of_a_large_state_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reversible Heun: D = y - z, a = a_y + a_z, b = -a_z, k = -1, by the formulas of Back, written out for its four neighbours."""
    seen = []
    see = Back.see
    monkeypatch.setattr(Back, "see", lambda self, *shown: (see(self, *shown), seen.append((self, *shown, self.sums[-1]))))
    y0 = np.random.default_rng(3).standard_normal((64, 8)) * np.linspace(0.5, 2.0, 64)[:, None]
    rv.grad(lambda y0: np.sum(rv.solve(lambda t, y, p: np.sin(y) - y * (1 + t), y0, np.linspace(0, 1, 200), save=[-1],
                                       method=rv.ReversibleHeun(), backend="eager").y1 ** 3))(y0)
    rows = [row for row in seen if len(row[1]) == 4]
    assert len(rows) > 10
    for back, ns, parts, cotangents, (be, moved, ay, changes) in rows:
        y, z, a_y, a_z = (x[::-1] for x in (parts["y"], parts["z"], cotangents["y"], cotangents["z"]))            # by time
        assert ns[0] == ns[3] + 3
        D, a = y - z, a_y + a_z
        g = D[1:] + D[:-1]
        e = g[1] - (g[2] + g[1] + (g[1] + g[0])) / 4
        least = 1e-2 * abs(a[2]) * back.scales["y"]
        for found, wanted in ((be, abs(a_z[2] * e)), (moved, abs(a[2] * (y[2] - y[1]))), (ay, np.maximum(abs(a[2] * y[2]), least))):
            np.testing.assert_array_equal(found[0], wanted.sum(-1))              # the same operations, in the same order
        np.testing.assert_array_equal(changes[0], abs(a[2] - a[0]).sum(-1) / (2 * abs(a[2]).sum(-1) + back.tiny))


def test_a_smooth_gap_is_taken_off() -> None:
    """v = f for a field that is linear in time, seen half a step away from v, is no parasite; what alternates is, all of it."""
    t = 0.1 * np.arange(4)
    for alternating in (0.0, 1e-3):
        D = [3 + 2 * x + alternating * (-1) ** n for n, x in enumerate(t)]
        assert injected(D, -1.0) == pytest.approx(0.0, abs=1e-15)                   # it goes on as it was: nothing was put in
        assert parted(D[:3], -1.0) == pytest.approx(-alternating, abs=1e-15)
    assert injected([1.0, 0.5], 0.9) == pytest.approx(-0.4)


@pytest.mark.filterwarnings("ignore::revode.ParasiteWarning")      # this gap is meant
@pytest.mark.parametrize("method, k", [(rv.Coupled(lam=0.9), 0.9), (rv.ReversibleHeun(), -1.0), (rv.AsynchronousLeapfrog(0.8), -0.6),
                                       (rv.LeapfrogMidpoint(), -1.0), (rv.Composition(rv.ReversibleHeun()), -1.0)], ids=str)
def test_the_gap_is_multiplied_by_k_where_there_is_no_field(method: Any, k: float) -> None:
    """By a solve of y' = 0 from a state whose gap is not zero; the eigenvector that `b` reads along is the same gap."""
    companion = method.companion
    assert isinstance(companion, Companion) and neutral(method.word(Step(0.0, 1.0, 1.0, 1.0))) == pytest.approx(k)
    sol = rv.solve(lambda t, y, p: 0.0 * y, array([2.0]), array([0.0, 1.0]), method=method)
    parts = {name: array([2.0 if name != "v" else 0.0]) + weight * 0.25 for name, weight in
             {name: companion.b.get(name, 0.0) for name in method.parts}.items()}
    before = sum(w * parts[name] for name, w in companion.D.items())
    after = rv.solve(lambda t, y, p: 0.0 * y, None, array([1.0, 2.0]), method=method,
                     state0=sol.state._replace(parts=parts)).state.parts
    gap = sum(w * after[name] for name, w in companion.D.items())
    assert before[0] == pytest.approx(0.25) and gap[0] == pytest.approx(k * 0.25, abs=1e-15)


def test_the_error_weights_of_ees_are_those_of_its_definition() -> None:
    """sum e = 0, e . c = 0, and both terms of third order are those of the local error, e . A c = b . A c - 1/6 (the estimate on
    y' = y) and e . c^2 = b . c^2 - 1/3 (on y' = t^2): by the literal scheme on indicator values of each stage. The last weight is of
    one evaluation more, at t + h and y + K_1."""
    for stages in range(3, 9):
        method = rv.EES(stages)
        A, d, y = np.zeros((stages, stages)), np.zeros(stages), np.zeros(stages)
        for i in range(stages):
            A[i] = y
            d = method.A[i] * d + np.eye(stages)[i]
            y = y + method.B[i] * d
        e, b, A = np.array(method.error_weights), np.append(y, 0.0), np.pad(A, ((0, 1), (0, 1)))
        A[-1, 0] = 1.0
        c = A.sum(1)
        assert abs(e.sum()) < 1e-14 and abs(e @ c) < 1e-14
        assert e @ A @ c == pytest.approx(b @ A @ c - 1 / 6, abs=1e-14)
        assert e @ c ** 2 == pytest.approx(b @ c ** 2 - 1 / 3, abs=1e-14)
    assert rv.EES(2).error_weights is None and rv.EES(2).error_order is None


def test_a_field_that_fails_where_it_is_only_looked_at_is_no_error_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The steps take 4 x 8 evaluations of RK4 and the checks 2 before them; what comes after is a look of the monitor."""
    calls: list[float] = []

    def field(t, y, p):
        calls.append(float(t))
        if len(calls) > 34:
            raise ArithmeticError("outside of the table")
        return np.cos(3 * t) * np.ones_like(y)

    ts = np.linspace(0.0, 4.0, 9)
    with caplog.at_level(logging.INFO, "revode"):
        sol = rv.solve(field, np.ones(2), ts, method=rv.RungeKutta("rk4"))
    assert len(calls) > 34 and sol.stats.nfe == 32
    said = [r.getMessage() for r in caplog.records if "was not looked at everywhere" in r.getMessage()]
    assert len(said) == 1 and said[0].endswith("raised ArithmeticError: outside of the table")


@pytest.mark.parametrize("method", [None, rv.Coupled(), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(), rv.LeapfrogMidpoint()],
                         ids=repr)
@pytest.mark.parametrize("N", [1, 2, 3])
@pytest.mark.parametrize("backend", ["eager", "replay"])
def test_a_sweep_over_few_steps_at_which_nobody_looked_has_its_verdict(backend, N, method):
    """One step has nothing between its ends. The truth is Direct's; so few steps come back to a few roundings."""
    def loss(y0, p, gradient):
        return np.sum(rv.solve(lambda t, y, p: np.sin(p * y) * np.cos(t), y0, np.linspace(0.0, 0.1, N + 1), p, method=method,
                               gradient=gradient, backend=backend, save=[-1]).y1 ** 2)

    at = np.array([0.4, -1.2]), 0.7
    truth, found = (rv.grad(loss, (0, 1))(*at, gradient) for gradient in (rv.Direct(), rv.Reversible()))
    for got, wanted in zip(found, truth, strict=True):          # words: roundings; RK4 comes back to h^6 / 6! = 1.4e-9 a step, times
        np.testing.assert_allclose(got, wanted, rtol=1e-7)      # derivatives of the field, which are of order one


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_a_cotangent_that_comes_in_on_the_way_is_no_parasite(backend):
    """Of any size: behind the last saved state that the loss reads there is none, and what changes beside nothing is without end."""
    loss = lambda p: 1e3 * np.sum(rv.solve(lambda t, y, p: -p * y + np.cos(t), np.ones((4, 3)), np.linspace(0.0, 0.5, 21), p,
                                           method=rv.ReversibleHeun(), save=[3, 9], backend=backend).ys)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rv.grad(loss)(np.ones(3))

"""Gradients with respect to the times of a grid, against complex step through literal loops (reference/oracles)."""
from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.oracles import ees as E
from reference.oracles import gradients as G
from reference.oracles import loops as L
from reference.oracles import tableaux as T
from tests.compiler import HERE

EPS = 2.0**-53
rng = np.random.default_rng(4)
N = 9
TS = 0.1 + np.cumsum(np.r_[0.0, 0.05 + 0.05 * rng.random(N)])
Y0, C = rng.standard_normal((3, 2)), rng.standard_normal((3, 2))
PARAMS = {"W": rng.standard_normal((2, 2)), "b": rng.standard_normal(2)}
SAVE = [2, 5, N]
SIX_STAGES = E.LowStorage(*(tuple(map(float, column)) for column in E.trigonometric(6)))
TAB = {name: T.numbers(tableau, float) for name, tableau in T.TABLEAUX.items()}


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + np.sin(t) * p["b"]) * (1.0 + 0.1 * t)


METHODS: dict[str, tuple] = {
    "rk4": (rv.RungeKutta("rk4"), lambda f, y, ts, p: L.runge_kutta(f, y, ts, p, TAB["rk4"])),
    "tsit5": (rv.RungeKutta("tsit5"), lambda f, y, ts, p: L.runge_kutta(f, y, ts, p, TAB["tsit5"])),
    "coupled": (rv.Coupled("midpoint", lam=0.99), lambda f, y, ts, p: L.coupled(f, y, ts, p, TAB["midpoint"], 0.99)),
    "heun": (rv.ReversibleHeun(), L.reversible_heun),
    "alf": (rv.AsynchronousLeapfrog(), L.alf),
    "leapfrog": (rv.LeapfrogMidpoint(), L.leapfrog_midpoint),
    "verlet": (rv.VelocityVerlet(), lambda f, y, ts, p: [q for q, _ in L.velocity_verlet(f, y, 0.5 * y, ts, p)]),
    "symplectic euler": (rv.SemiImplicitEuler(), lambda f, y, ts, p: [q for q, _ in L.semi_implicit_euler(f, y, 0.5 * y, ts, p)]),
    "ees": (rv.EES(stages=6), lambda f, y, ts, p: L.forward(
        lambda t, t1, h, y: E.low_storage_step(f, p, SIX_STAGES, t, t1, h, y), y, ts)),
}


def loss_of(ys: Any, ts: Any) -> Any:
    """Of the saved states, and of the saved times themselves."""
    return sum(np.sum(y * y * C) * np.cos(t) for y, t in zip(ys, ts, strict=True))


def gradients(name: str, mode: Any, **how: Any) -> tuple[tuple, Any]:
    method = METHODS[name][0]

    def loss(ts: Any, y0: Any, p: Any) -> Any:
        split = len(method.outputs) > 1
        sol = rv.solve(field, (y0, 0.5 * y0) if split else y0, ts, p, method=method, gradient=mode, save=SAVE, **how)
        ys = sol.ys[0] if split else sol.ys
        return loss_of([ys[k] for k in range(3)], [sol.ts[k] for k in range(3)]), sol

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.ParasiteWarning)
        (_, sol), found = rv.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(TS, Y0, PARAMS)
    return found, sol


def wanted(name: str) -> tuple:
    def loss(at: Any) -> Any:
        ys = METHODS[name][1](field, at["y0"], at["ts"], at["p"])
        return loss_of([ys[n] for n in SAVE], [at["ts"][n] for n in SAVE])

    found = G.complex_step_gradient(loss, {"ts": TS, "y0": Y0, "p": PARAMS})
    return found["ts"], found["y0"], found["p"]


def off(found: Any, truth: Any) -> float:
    """The largest difference, relative to the largest gradient: in a sum of so many terms only that is known."""
    pairs = [*zip(rv.tree.flatten(found)[0], rv.tree.flatten(truth)[0], strict=True)]
    return max(float(abs(np.asarray(x) - y).max()) for x, y in pairs) / max(float(abs(y).max()) for _, y in pairs)


# N steps of at most 12 evaluations (Coupled: each a copy of 2), some 20 roundings each; the way back of a word adds what rounding
# has grown to: exp(2 L T) < 20 for L T < 1.5, and 1/(1 - lam) = 100 for Coupled. EES(stages=6) reverses to h^11 < 1e-11.
ALLOWED = N * 12 * 20 * EPS
GROWN = {"coupled": 100.0, "ees": 1e-11 / ALLOWED}


@pytest.mark.parametrize("name", METHODS)
def test_every_mode_on_the_tape_and_on_replay_against_complex_step(name):
    method, truth = METHODS[name][0], wanted(name)
    modes = [rv.Direct(), rv.Checkpointed(3)]
    modes += [rv.SymplecticAdjoint()] if isinstance(method, rv.RungeKutta) else [
        rv.Reversible(), rv.Reversible(resync=4), rv.Automatic()]
    for mode in modes:
        for backend in ("eager", "replay"):
            found, sol = gradients(name, mode, backend=backend)
            assert sol.stats.backend == backend and sol.stats.fallback is None
            grown = 1.0 if isinstance(mode, (rv.Direct, rv.Checkpointed, rv.SymplecticAdjoint)) else 20 * GROWN.get(name, 1.0)
            assert off(found, truth) < ALLOWED * grown, (mode, backend)


@pytest.mark.parametrize(("name", "mode", "how"), [
    ("heun", rv.Reversible(), {"backend": "native"}),
    ("leapfrog", rv.Reversible(), {"backend": "replay", "arithmetic": "strict"})])
def test_compiled_engines_against_complex_step(name, mode, how):
    """(That of the GPU's text is among the pairs of tests/grid.py.)"""
    if how["backend"] == "native" and not HERE:
        pytest.skip("no C++ compiler")
    found, sol = gradients(name, mode, **how)
    assert sol.stats.backend == how["backend"]
    assert off(found, wanted(name)) < 20 * ALLOWED * GROWN.get(name, 1.0)


def test_the_reverse_sweep_of_the_default_falls_back_with_its_times():
    """RK4 run backwards over long steps is too far off: Automatic goes once more, by checkpoints, and that is the gradient."""
    for method in (None, rv.NearReversible("rk4")):
        def loss(ts: Any, method: Any = method) -> Any:
            sol = rv.solve(field, Y0, 4 * ts, PARAMS, method=method, gradient=rv.Automatic(tol=1e-9), save=SAVE)
            return loss_of([sol.ys[k] for k in range(3)], ts[SAVE]), sol

        (_, sol), found = rv.value_and_grad(loss, has_aux=True)(TS)
        truth = G.complex_step_gradient(lambda ts: loss_of(
            [L.runge_kutta(field, Y0, 4 * ts, PARAMS, TAB["rk4"])[n] for n in SAVE], ts[SAVE]), TS)
        assert sol.stats.fallback and off(found, truth) < ALLOWED


def test_ends_of_a_fine_grid_are_what_the_equation_says():
    """dL/dt1 = a . f(t1, y1), dL/dt0 = -dL/dy0 . f(t0, y0), and points between, from which nothing is returned, move nothing:
    up to the error of RK4, of order h^4 = 4e-7 with constants below one here."""
    ts = np.linspace(0.2, 1.0, 33)
    sol = rv.solve(field, Y0, ts, PARAMS)
    a, ay0 = C, rv.grad(lambda y0: np.sum(C * rv.solve(field, y0, ts, PARAMS).y1))(Y0)
    for mode in (rv.Direct(), rv.Backsolve()):
        found = rv.grad(lambda ts, mode=mode: np.sum(C * rv.solve(field, Y0, ts, PARAMS, gradient=mode).y1))(ts)
        assert abs(found[-1] - np.sum(a * field(1.0, sol.y1, PARAMS))) < 1e-6
        assert abs(found[0] + np.sum(ay0 * field(0.2, Y0, PARAMS))) < 1e-4 and abs(found[1:-1]).max() < 1e-6


def test_backsolve_gives_the_gradient_of_the_continuous_solution():
    """Against Direct on a finer and a finer grid of the same ends; the difference falls with the order of rk4 and its adjoint."""
    differences = []
    for steps in (8, 16, 32):
        def loss(t: Any, mode: Any, steps: int = steps) -> Any:
            ts = t[0] + (t[1] - t[0]) * np.linspace(0.0, 1.0, steps + 1)
            sol = rv.solve(field, Y0, ts, PARAMS, gradient=mode, method=rv.RungeKutta("rk4"), save=[steps // 2, steps])
            return np.sum(sol.ys**2 * C)

        found, truth = (rv.grad(loss)(np.array([0.1, 1.3]), mode) for mode in (rv.Backsolve(), rv.Direct()))
        differences.append(off(found, truth))
    orders = np.log2(np.divide(differences[:-1], differences[1:]))
    assert orders.min() > 3.0, (differences, orders)


def test_times_in_lists_of_one_and_in_float32():
    """A list of numbers and tensors; the gradient of one end alone; what float32 rounds."""
    decay = lambda t, y, p: -y
    found = rv.grad(lambda t1: rv.solve(decay, np.ones(1), [0.0, 0.5 * t1, t1]).y1[0])(0.2)
    assert abs(found + np.exp(-0.2)) < 1e-5                                       # (h = .1)^5 / 120 of RK4, twice
    found = rv.grad(lambda ts: rv.solve(decay, np.ones(1, np.float32), ts).y1[0])(np.linspace(0.0, 0.2, 3))
    assert found.dtype == np.float64 and abs(found[2] + np.exp(-0.2)) < 1e-5


def test_second_derivatives_and_forward_mode():
    """d2/dt1^2 of R(t1/8)^8, R(h) = 1 - h + h^2/2 - h^3/6 + h^4/24; and the derivative along a direction, in
    forward mode, which does not come from pullbacks."""
    unit = np.linspace(0.0, 1.0, 9)
    end = lambda t1: rv.solve(lambda t, y, p: -y, np.ones(1), t1 * unit).y1[0]
    R = np.poly1d([1 / 24 / 8**4, -1 / 6 / 8**3, 1 / 2 / 8**2, -1 / 8, 1.0])
    assert abs(rv.grad(lambda t1: rv.grad(end)(t1))(0.8) - np.polyder(R**8, 2)(0.8)) < 1e-13       # some hundred roundings
    wave = lambda t1: rv.solve(lambda t, y, p: np.cos(t) + 0 * y, np.zeros(1), t1 * unit).y1[0]       # sin t, of time alone
    assert abs(rv.grad(lambda t1: rv.grad(wave)(t1))(0.8) + np.sin(0.8)) < 1e-5                    # (h = .1)^4 / 2880, twice derived
    v = rng.standard_normal(N + 1)
    for name in ("leapfrog", "verlet", "rk4"):
        method, split = METHODS[name][0], name == "verlet"

        def loss(ts: Any, method: Any = method, split: bool = split) -> Any:
            sol = rv.solve(field, (Y0, 0.5 * Y0) if split else Y0, ts, PARAMS, method=method, gradient=rv.Checkpointed(3), save=SAVE)
            return np.sum((sol.ys[0] if split else sol.ys) ** 2 * C)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rv.ParasiteWarning)
            along, found = rv.jvp(loss)(TS, v), rv.grad(loss)(TS)
        assert abs(along - found @ v) < ALLOWED * (1.0 + abs(found) @ abs(v))


def test_a_certificate_of_a_gradient_in_the_times_sees_one_that_is_wrong(monkeypatch):
    loss = lambda ts: np.sum(C * rv.solve(field, Y0, ts, PARAMS, method=rv.ReversibleHeun()).y1)
    certificate = rv.certify(loss, TS, probes=4)[2]
    assert certificate.error < 1e-13
    from revode.gradients import cotangents
    right = cotangents.of_grid
    monkeypatch.setattr(cotangents, "of_grid", lambda *args: 1.001 * right(*args))
    assert rv.certify(loss, TS, probes=4)[2].error > 1e-5


def test_no_steps_move_nothing():
    """One time alone: y0, whose gradient is the identity; the time is of no matter."""
    ats, ay0 = rv.grad(lambda ts, y0: np.sum(C * rv.solve(field, y0, ts, PARAMS).y1), argnums=(0, 1))(np.array([0.5]), Y0)
    np.testing.assert_array_equal(ay0, C)
    np.testing.assert_array_equal(ats, [0.0])
    for method in (rv.AsynchronousLeapfrog(), rv.LeapfrogMidpoint()):
        found = rv.grad(lambda ts, method=method: np.sum(C * rv.solve(field, Y0, ts, PARAMS, method=method).y1))(np.array([0.5]))
        np.testing.assert_array_equal(found, [0.0])


@pytest.mark.parametrize("ts, how", [(np.array([0.5]), {}), ([0.5], {"backend": "replay"}), (np.array([0.5, 0.5]), {}),
                                     ((0.5, 0.5), {"controller": rv.PID()}),
                                     ((0.5, 0.5), {"controller": rv.PID(), "save_at": [0.5], "backend": "replay"})])
@pytest.mark.parametrize("mode", [None, rv.Direct(), rv.Checkpointed(2), rv.Backsolve()])
def test_ends_that_are_one_time_give_y0_in_every_mode(ts, how, mode, caplog):
    """The gradient is the identity, nothing flows to the parameters, and there are no steps; nor anything to say."""
    for method in (None, rv.ReversibleHeun(), rv.Coupled("bosh3")):
        def loss(y0: Any, p: Any, method: Any = method) -> Any:
            sol = rv.solve(lambda t, y, p: -p * y, y0, ts, p, method=method, gradient=mode, **how)
            return np.sum(C * sol.y1), sol

        (value, sol), (ay, ap) = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(Y0, 0.7)
        assert value == np.sum(C * Y0) and sol.stats.steps == 0 and ap == 0.0 and sol.ts.tolist() == [0.5]
        np.testing.assert_array_equal(ay, C)
    assert not caplog.records


def test_a_solve_that_goes_on_keeps_the_gradient_or_says_so():
    """Two pieces, the second from the state of the first, are the whole; where a step needs the length of the last one, an error."""
    def pieces(ts: Any, method: Any) -> Any:
        first = rv.solve(field, Y0, ts[:5], PARAMS, method=method)
        return np.sum(C * rv.solve(field, None, ts[4:], PARAMS, state0=first.state, method=method).y1)

    for method in (rv.ReversibleHeun(), rv.AsynchronousLeapfrog(), rv.Coupled("rk4")):
        whole = rv.grad(lambda ts, method=method: np.sum(C * rv.solve(field, Y0, ts, PARAMS, method=method).y1))(TS)
        found = rv.grad(pieces)(TS, method)
        assert abs(found - whole).max() < 20 * 100 * ALLOWED * abs(whole).max()
    with pytest.raises(TypeError, match="whose gradient would be lost; solve on one grid"):
        rv.grad(pieces)(TS, rv.LeapfrogMidpoint())


def test_gradients_in_y0_and_params_are_the_same_with_plain_times():
    """To the bit where each step stands by itself either way."""
    def loss(y0: Any, p: Any, ts: Any = TS) -> Any:
        return np.sum(C * rv.solve(field, y0, ts, p, method=rv.RungeKutta("rk4"), gradient=rv.Checkpointed(3)).ys ** 2)

    plain = rv.grad(loss, argnums=(0, 1))(Y0, PARAMS)
    timed = rv.grad(lambda ts, y0, p: loss(y0, p, ts), argnums=(1, 2))(TS, Y0, PARAMS)
    for x, y in zip(rv.tree.flatten(plain)[0], rv.tree.flatten(timed)[0], strict=True):
        np.testing.assert_array_equal(x, y)


# ------------------------------------------------------------------------------------------------ stops: where the field jumps

JUMP, RATE = 0.437, np.array(2.0)


def jumping(t: Any, y: Any, p: Any) -> Any:
    return np.where(t < JUMP, -1.0, p) * y


def behind_the_jump(t: float, s: float = JUMP) -> float:
    """exp(-s + 2 (t - s)), from 1 at time 0."""
    return float(np.exp(-s + 2.0 * (t - s)))


@pytest.mark.parametrize("method", [None, rv.Coupled("rk4"), rv.ReversibleHeun()])
@pytest.mark.parametrize("how", [{"backend": "eager"}, {"backend": "replay"}, {"backend": "replay", "arithmetic": "strict"}])
def test_a_jump_costs_no_order_and_has_a_gradient_of_its_own(method, how):
    """y' = -y before s, 2 y behind: dy/ds = -3 y; no order is lost, although no grid point is near."""
    order, off = 2 if isinstance(method, rv.ReversibleHeun) else 4, []
    for N in (50, 100):
        def end(s: Any, p: Any, N: int = N) -> Any:
            return rv.solve(jumping, np.ones(1), np.linspace(0.0, 1.0, N + 1), p, method=method, stops=[s], **how).y1[0]

        value, (ds, dp) = rv.value_and_grad(end, argnums=(0, 1))(JUMP, RATE)
        y = behind_the_jump(1.0)
        off.append([abs(value - y), abs(ds + 3.0 * y), abs(dp - (1.0 - JUMP) * y)])
    # the step that a stop cuts in two has another constant at either N, so that the slope is not clean
    assert np.log2(np.divide(off[0], off[1])).min() > order - 0.6, off
    assert np.max(off[1]) < (2e-3 if order == 2 else 1e-7)


def test_grid_points_of_stops_are_not_returned():
    ts = np.linspace(0.0, 1.0, 11)
    sol = rv.solve(jumping, np.ones(1), ts, RATE, stops=[JUMP, 0.5, 0.0, 3.0])
    np.testing.assert_array_equal(sol.ts, ts)
    assert sol.stats.steps == 10 + 2 + 2                    # 0.5 is in the grid: two more points beside it; 0 and 3 are not inside
    assert abs(sol.ys[:, 0] - np.where(ts < JUMP, np.exp(-ts), np.exp(2 * ts - 3 * JUMP))).max() < 4e-5          # 2 y (2 h)^4 / 120
    some = rv.solve(jumping, np.ones(1), ts, RATE, stops=[JUMP], save=slice(0, None, 5))
    np.testing.assert_array_equal(some.ts, ts[::5])
    back = rv.solve(jumping, sol.y1, ts[::-1], RATE, stops=[JUMP])
    np.testing.assert_array_equal(back.ts, ts[::-1])
    assert abs(back.y1[0] - 1.0) < 1e-4


def test_what_lies_between_does_not_go_across_a_stop():
    """Cubics from 0.4 to the stop, and from there to 0.5, are good to (k h)^4 / 384 y, k = 2: 3e-6 beside the 4e-5 of the
    solution, and 9e-3 where the next saved time is 1; one across both is off by some h / 10 |jump|, 1e-2 and .1."""
    at, ts = np.array([0.41, 0.44, 0.47]), np.linspace(0.0, 1.0, 11)
    right = np.array([np.exp(-0.41), behind_the_jump(0.44), behind_the_jump(0.47)])
    for save in (None, slice(4, 6), [4, 10]):
        sol = rv.solve(jumping, np.ones(1), ts, RATE, stops=JUMP, save=save, interpolate=True)
        np.testing.assert_array_equal(sol.ts, ts if save is None else ts[save])
        np.testing.assert_array_equal(sol.ys, rv.solve(jumping, np.ones(1), ts, RATE, stops=JUMP, save=save).ys)
        assert abs(sol.at(at)[:, 0] - right).max() < (9e-3 if save == [4, 10] else 4.3e-5)
    between = lambda s: rv.solve(jumping, np.ones(1), ts, RATE, stops=s, interpolate=True).at(0.44)[0]
    assert abs(rv.grad(between)(JUMP) + 3 * behind_the_jump(0.44)) < 1e-3              # y = exp(2 t - 3 s)


def test_adaptive_steps_stop_and_float32_sees_its_own_side():
    tol = rv.PID(1e-7, 1e-7)
    free = rv.solve(jumping, np.ones(1), (0.0, 1.0), RATE, controller=tol, save_at=[0.9])
    sol = rv.solve(jumping, np.ones(1), (0.0, 1.0), RATE, controller=tol, save_at=[0.9], stops=[JUMP])
    assert sol.ts.tolist() == [0.9] and sol.stats.rejected < 3 < free.stats.rejected
    assert abs(sol.ys[0, 0] - behind_the_jump(0.9)) < 1e-6
    single = rv.solve(jumping, np.ones(1, np.float32), np.linspace(0.0, 1.0, 21), RATE.astype(np.float32), stops=[JUMP])
    assert abs(single.y1[0] - behind_the_jump(1.0)) < 1e-5           # without the stop: 3e-2
    with pytest.raises(TypeError, match="stops is"):
        rv.solve(jumping, np.ones(1), np.linspace(0.0, 1.0, 21), RATE, stops="noon")


# --------------------------------------------------------------------------------------------------- between the saved times

def swing(t: Any, y: Any, p: Any) -> Any:
    return np.stack([y[..., 1], -p * np.sin(y[..., 0]) + np.cos(t)], -1)


def test_what_lies_between_is_of_order_four_and_meets_what_is_saved():
    """Against a solve on a grid that has the points; Hermite's error is h^4 y'''' / 384, that of RK4 less."""
    y0, p, errors = np.array([[1.0, 0.2], [-0.5, 0.3]]), np.array(2.0), []
    t = np.array([0.111, 0.5, 0.777, 1.0])
    truth = rv.solve(swing, y0, np.r_[0.0, t], p, method=rv.RungeKutta("dopri5"), stops=np.linspace(0.0, 1.0, 400)).ys[1:]
    for N in (16, 32):
        for ts in (np.linspace(0.0, 1.0, N + 1), np.linspace(1.0, 0.0, N + 1)):
            start = y0 if ts[0] == 0 else truth[-1]
            sol = rv.solve(swing, start, ts, p, interpolate=True)
            errors.append(abs(sol.at(t) - truth).max())
            assert sol.stats.nfe_forward == 4 * N + N + 1
            assert sol.at(0.111).shape == y0.shape
            np.testing.assert_allclose(sol.at(ts), sol.ys, rtol=0, atol=4 * EPS)
    assert np.log2(np.divide(errors[:2], errors[2:])).min() > 3.5, errors


def test_it_is_differentiable_in_everything():
    """As the same formula written out, in complex step: with respect to t, the grid, y0 and params."""
    t = np.array([0.31, 0.62])
    y0, p, ts = np.array([1.0, 0.2]), {"k": np.array(2.0)}, np.linspace(0.0, 1.0, 9) ** 1.2
    field = lambda t, y, p: swing(t, y, p["k"])

    def loss(t: Any, ts: Any, y0: Any, p: Any) -> Any:
        return np.sum(np.cos(rv.solve(field, y0, ts, p, method=rv.RungeKutta("rk4"), interpolate=True).at(t)) * C[:2])

    def literal(at: Any) -> Any:
        ys, total = L.runge_kutta(field, at["y0"], at["ts"], at["p"], TAB["rk4"]), 0.0
        for row, x in zip(C[:2], at["t"], strict=True):
            k = int(np.searchsorted(at["ts"].real, x.real)) - 1
            h, f = at["ts"][k + 1] - at["ts"][k], [field(at["ts"][n], ys[n], at["p"]) for n in (k, k + 1)]
            s = (x - at["ts"][k]) / h
            z = (ys[k] * (2 * s**3 - 3 * s**2 + 1) + f[0] * h * (s**3 - 2 * s**2 + s) + ys[k + 1] * (3 * s**2 - 2 * s**3)
                 + f[1] * h * (s**3 - s**2))
            total = total + np.sum(np.cos(z) * row)
        return total

    found = rv.grad(loss, argnums=(0, 1, 2, 3))(t, ts, y0, p)
    truth = G.complex_step_gradient(literal, {"t": t, "ts": ts, "y0": y0, "p": p})
    assert off(found, (truth["t"], truth["ts"], truth["y0"], truth["p"])) < ALLOWED


def test_save_at_costs_no_steps_when_it_interpolates():
    tol, y0, p = rv.PID(1e-7, 1e-7), np.array([1.0, 0.2]), np.array(2.0)
    at = np.linspace(0.0, 2.0, 200)
    free = rv.solve(swing, y0, (0.0, 2.0), p, controller=tol)
    sol = rv.solve(swing, y0, (0.0, 2.0), p, controller=tol, save_at=at, interpolate=True)
    tight = rv.solve(swing, y0, (0.0, 2.0), p, controller=rv.PID(1e-11, 1e-11), save_at=at)
    assert sol.stats.steps == free.stats.steps < 60 < tight.stats.steps
    np.testing.assert_array_equal(sol.ts, at)
    assert abs(sol.ys - tight.ys).max() < 1e-4                            # h^4 / 384 y'''', steps of some .1
    np.testing.assert_array_equal(sol.y1, free.y1)
    ends = rv.grad(lambda p: np.sum(rv.solve(swing, y0, (0.0, 2.0), p, controller=tol, save_at=at, interpolate=True).ys))(p)
    h = 1e-4
    by_differences = [np.sum(rv.solve(swing, y0, (0.0, 2.0), p + d, controller=rv.PID(1e-11, 1e-11), save_at=at).ys) for d in (h, -h)]
    assert abs(ends - (by_differences[0] - by_differences[1]) / (2 * h)) < 1e-3 * abs(ends)


def test_split_methods_trees_and_float32_interpolate_too():
    q, v = np.ones((2, 3)), np.zeros((2, 3))
    sol = rv.solve(lambda t, q, p: -q, (q, v), np.linspace(0.0, 1.0, 41), method=rv.VelocityVerlet(), interpolate=True)
    at = sol.at(0.505)
    assert abs(at[0] - np.cos(0.505)).max() < 1e-4 and abs(at[1] + np.sin(0.505)).max() < 1e-4      # h^2 / 24 of Verlet
    tree = rv.solve(lambda t, y, p: {"a": -y["a"], "b": y["b"]}, {"a": np.ones(2, np.float32), "b": np.ones((2, 1), np.float32)},
                    np.linspace(0.0, 1.0, 21), interpolate=True).at([0.51, 0.52])
    assert tree["b"].shape == (2, 2, 1) and tree["b"].dtype == np.float32 and abs(tree["b"][0] - np.exp(0.51)).max() < 1e-5
    np.testing.assert_array_equal(rv.solve(swing, np.ones(2), np.array([0.3]), 1.0, interpolate=True).at(0.3), np.ones(2))


def test_what_cannot_be_asked_between_times_is_said():
    sol = rv.solve(swing, np.ones(2), TS, 1.0)
    with pytest.raises(ValueError, match=r"t has shape \(2, 1\)"):
        rv.solve(swing, np.ones(2), TS, 1.0, interpolate=True).at(np.zeros((2, 1)))
    with pytest.raises(ValueError, match="save= keeps none"):
        rv.solve(swing, np.ones(2), TS, 1.0, interpolate=True, save=[])
    with pytest.raises(ValueError, match="pass interpolate=True"):
        sol.at(0.3)
    with pytest.raises(ValueError, match="t=9 is not between"):
        rv.solve(swing, np.ones(2), TS, 1.0, interpolate=True).at([0.3, 9.0])
    with pytest.raises(TypeError, match="no such slope"):
        rv.solve(swing, np.ones(2), TS, 1.0, interpolate=True, diffusion=lambda t, y, p: 0.1 * y, noise=rv.Brownian(1))

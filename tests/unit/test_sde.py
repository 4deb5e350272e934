"""Stochastic equations: gradients on the same noise, float32, batches, trees, Ito, memory, resuming, adaptive steps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import revode as rv
from reference.oracles import sde as S
from revode.paths import Brownian, BrownianTree
from tests.method_cases import distance
from tests.sde_cases import CASES, KIND, NOISES, SHEARS, TS, Y0, Given, drift, increments, make
from tests.unit.test_memory import peak_bytes

NOISE = Brownian(3)
EPS = 2.0**-52
USED = {"diagonal": "s", "general": "V", "additive": "C"}  # a parameter that only the diffusion has


def gradients(
    kind: str,
    method: Any,
    gradient: Any,
    ts: Any = TS,
    y0: Any = Y0,
    p: Any = None,
    noise: Any = NOISE,
    weights: Any = 1.0,
    **more: Any,
) -> tuple:
    """((dL/dy0, dL/dparams), solution) of the sum of squares of the states."""

    def loss(y0: Any, p: Any) -> Any:
        sol = rv.solve(
            drift(np), y0, ts, p, method=method, diffusion=NOISES[kind](np), noise=noise, gradient=gradient, **more
        )
        return np.sum(weights * sol.ys**2), sol

    (_, sol), grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, make() if p is None else p)
    return grads, sol


# 8 steps: states agree to some ulp forward and back (tests/conformance), and the gradient is a sum of 9 terms of size
# 1 to
# 10 with Lipschitz constants below e: 100 ulp of its largest entry. Measured: 2.
ROUND = 100 * EPS


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("name", SHEARS)
def test_every_mode_gives_the_gradient_on_the_same_noise(name: str, kind: str) -> None:
    method = SHEARS[name].method
    direct, _ = gradients(kind, method, rv.Direct())
    assert abs(direct[1][USED[kind]]).max() > 0.01 and abs(direct[1]["W1"]).max() > 0.01
    for mode in (rv.Reversible(), rv.Reversible(resync=3), rv.Checkpointed(3), rv.Checkpointed(1)):
        found, sol = gradients(kind, method, mode)
        assert distance(found[0], direct[0]) <= ROUND
        for key in direct[1]:
            assert (
                distance(found[1][key], direct[1][key]) <= ROUND if direct[1][key].any() else not found[1][key].any()
            ), key
        if isinstance(mode, rv.Reversible):
            assert sol.stats.roundtrip.absolute <= ROUND
            # The reverse sweep evaluates what the forward sweep did, and pulls each value back once (f and g as one).
            case = SHEARS[name]
            # (a stored state makes the field value there anew, where it is carried over)
            again = 2 if mode.resync and case.once else 0
            n = case.a_step * 8 + case.once
            assert (sol.stats.nfe_forward, sol.stats.nfe) == (n, 2 * n + again) and sol.stats.nvjp == n + again


@pytest.mark.parametrize("name", ["ees25", "ees27", "ees-5", "rk-heun2"])
def test_checkpointed_is_direct_for_every_flow(name: str) -> None:
    for kind in NOISES:
        method = CASES[name].method
        assert (
            distance(gradients(kind, method, rv.Checkpointed(2))[0], gradients(kind, method, rv.Direct())[0]) <= ROUND
        )


@pytest.mark.parametrize(
    "kind,name", [("diagonal", "reversible-heun"), ("general", "coupled-midpoint"), ("additive", "ees25")]
)
def test_backsolve_is_near_and_comes_nearer(kind: str, name: str) -> None:
    """On one path. The continuous adjoint has the method's strong order, 1/2 at worst: 16 times the steps, and the
    error
    falls to 1/4 in the mean; to less than 1/2 for this path. It is never exact."""
    noise, errors = BrownianTree(5, 0.0, 0.5), []
    for N in (8, 128):
        ts = np.linspace(0, 0.5, N + 1)
        weights = np.zeros((N + 1, 1, 1))
        weights[-1] = 1
        direct, back = (
            gradients(kind, CASES[name].method, mode, ts=ts, noise=noise, weights=weights)[0]
            for mode in (rv.Direct(), rv.Backsolve())
        )
        errors.append(distance(back, direct))
    assert 1e-9 < errors[1] < errors[0] / 2 and errors[0] < 0.1, errors


@pytest.mark.parametrize("method,m", [(rv.EES25(), 5), (rv.EES27(), 7), (rv.EES(2), 3), (rv.NearReversible("rk4"), 5)])
def test_near_reversible_gradients_converge_at_the_reversal_order(method: Any, m: int) -> None:
    """METHODS 4 and section 5: one step back is off by O(dW^(m+1)) = O(h^((m+1)/2)), so the sweep by O(h^((m+1)/2 -
    1)) at
    worst. Non-commuting general noise; the slope over a factor of 16 in h, of the mean of 64 trajectories, may be
    0.25 short of it."""
    rng = np.random.default_rng(1)
    y0, noise, errors = rng.normal(size=(64, 3)), BrownianTree(9, 0.0, 1.0), []
    hs = [1 / 8, 1 / 32, 1 / 128]
    for h in hs:
        ts = np.linspace(0, 1, round(1 / h) + 1)
        direct, back = (
            gradients("general", method, mode, ts=ts, y0=y0, noise=noise)[0]
            for mode in (rv.Direct(), rv.Reversible(tol=1.0))
        )
        errors.append(distance(back, direct))
    slope = np.polyfit(np.log(hs), np.log(errors), 1)[0]
    assert slope >= (m + 1) / 2 - 1 - 0.25, (slope, errors)
    assert errors[-1] > 1e-15  # above round-off, so that the slope says something


# ---------------------------------------------------------------------------------------------- dtypes and shapes


@pytest.mark.parametrize("name", ["reversible-heun", "coupled-midpoint", "ees27"])
def test_float32_stays_float32(name: str) -> None:
    """States and gradients; near float64 on the same increments (rounded once): 8 steps, 100 ulp of float32."""
    method, p32 = CASES[name].method, make(np.float32)
    for kind in NOISES:
        grads, sol = gradients(kind, method, rv.Reversible(), y0=Y0.astype(np.float32), p=p32)
        assert sol.ys.dtype == np.float32
        assert {x.dtype for x in rv.tree.flatten(grads)[0]} == {np.dtype(np.float32)}
        wide, sol64 = gradients(
            kind,
            method,
            rv.Direct(),
            p=rv.tree.map(lambda x: x.astype(float), p32),
            y0=Y0.astype(np.float32).astype(float),
        )
        assert_allclose(sol.ys, sol64.ys, rtol=0, atol=100 * 2.0**-23)
        assert distance(grads, wide) <= 100 * 2.0**-23


def elementwise(t: Any, y: Any, p: Any) -> Any:
    return p * np.sin(y) - 0.1 * t


def matrix(t: Any, y: Any, p: Any) -> Any:
    return np.stack([0.3 * np.cos(y), p * y, 0.2 * t + 0 * y], -1)


def vector(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * np.cos(p * y + t)


def one(y0: Any, g: Any, noise: Any, method: Any = None) -> Any:
    return rv.solve(elementwise, y0, TS, 0.4, method=method or rv.ReversibleHeun(), diffusion=g, noise=noise)


@pytest.mark.parametrize("g", [vector, matrix])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (2, 1, 2)])
def test_any_batch_shape_and_any_split_of_it_gives_the_same_bits(g: Any, batch: tuple) -> None:
    y0 = np.random.default_rng(2).normal(size=(*batch, 3))
    whole = one(y0, g, Brownian(1)).ys
    assert whole.shape == (9, *y0.shape)
    flat = whole.reshape(9, -1, 3)
    for i, start in enumerate(y0.reshape(-1, 3)):
        assert_array_equal(one(start, g, Brownian(1, offset=i)).ys, flat[:, i])
        assert_array_equal(
            one(start[None], g, BrownianTree(1, 0.0, 1.0, offset=i)).y1[0],
            one(y0, g, BrownianTree(1, 0.0, 1.0)).y1.reshape(-1, 3)[i],
        )
    if len(flat[0]) > 1:
        assert abs(flat[-1, 0] - flat[-1, 1] - (y0.reshape(-1, 3)[0] - y0.reshape(-1, 3)[1])).max() > 1e-3


def test_a_scalar_state() -> None:
    """y0 of shape (): diagonal noise of shape (), general noise of shape (m,); the same numbers as with shape (1,)."""
    found = rv.solve(elementwise, np.array(0.3), TS, 0.4, method=rv.ReversibleHeun(), diffusion=vector, noise=NOISE)
    assert found.ys.shape == (9,)
    assert_array_equal(found.ys, one(np.array([0.3]), vector, NOISE).ys[:, 0])
    found = rv.solve(elementwise, np.array(0.3), TS, 0.4, method=rv.ReversibleHeun(), diffusion=matrix, noise=NOISE)
    assert_allclose(found.ys, one(np.array([0.3]), matrix, NOISE).ys[:, 0], rtol=8 * EPS)


@pytest.mark.parametrize("mode", [rv.Direct(), rv.Reversible(), rv.Checkpointed(2), rv.Backsolve()])
def test_a_tree_is_its_leaves_in_a_row(mode: Any) -> None:
    """Diagonal noise on {a: (2,), b: (2, 2)}: the channels run through the leaves in their order."""

    def f(t: Any, y: Any, p: Any) -> dict:
        return {"a": p * np.sin(y["a"]), "b": -y["b"] * t}

    def g(t: Any, y: Any, p: Any) -> dict:
        return {"a": 0.2 * y["a"] * p, "b": 0.1 * np.cos(y["b"] + t)}

    def opened(x: Any) -> dict:
        return {"a": x[:2], "b": np.reshape(x[2:], (2, 2))}

    def joined(tree: dict) -> Any:
        return np.concatenate([tree["a"], np.reshape(tree["b"], (4,))])

    def loss_tree(y: Any, p: Any) -> Any:
        y1 = rv.solve(f, y, TS, p, method=rv.ReversibleHeun(), diffusion=g, noise=NOISE, gradient=mode).y1
        return np.sum(np.sin(y1["a"])) + np.sum(y1["b"] ** 2)

    def loss_row(x: Any, p: Any) -> Any:
        x1 = rv.solve(
            lambda t, x, p: joined(f(t, opened(x), p)),
            x,
            TS,
            p,
            method=rv.ReversibleHeun(),
            gradient=mode,
            diffusion=lambda t, x, p: joined(g(t, opened(x), p)),
            noise=NOISE,
        ).y1
        return np.sum(np.sin(x1[:2])) + np.sum(x1[2:] ** 2)

    y0, p = {"a": np.array([0.5, -1.0]), "b": np.array([[0.2, 0.4], [1.0, -0.3]])}, np.array(0.7)
    (value, (a_tree, ap)), (expected, (a_row, ap_row)) = (
        rv.value_and_grad(loss, argnums=(0, 1))(y, p) for loss, y in ((loss_tree, y0), (loss_row, joined(y0)))
    )
    assert value == expected  # the same operations in the same order
    assert distance(joined(a_tree), a_row) <= ROUND and distance(ap, ap_row) <= ROUND
    literal = S.reversible_heun(
        lambda t, x, p: joined(f(t, opened(x), p)),
        lambda t, x, p: joined(g(t, opened(x), p)),
        joined(y0),
        TS,
        increments(NOISE, "diagonal", y0=joined(y0)),
        0.7,
    )[-1]
    assert_allclose(value, np.sum(np.sin(literal[:2])) + np.sum(literal[2:] ** 2), rtol=16 * EPS)


# -------------------------------------------------------------------------------------------------------- Ito


def gbm(method: Any, interpretation: str, N: int, noise: Any) -> Any:
    """dX = .1 X dt + .5 X dW from 1 over [0, 1], 256 paths in 2 channels."""
    return rv.solve(
        lambda t, y, p: 0.1 * y,
        np.ones((256, 2)),
        np.linspace(0, 1, N + 1),
        method=method,
        save=[-1],
        diffusion=lambda t, y, p: 0.5 * y,
        noise=noise,
        interpretation=interpretation,
    ).y1


def test_ito_and_stratonovich_solve_their_own_equation() -> None:
    """GBM has the solutions exp((mu - s^2/2) T + s W) (Ito) and exp(mu T + s W). Root mean square errors over 512
    paths at
    N = 16 and 256: strong order 1/2 (Euler-Maruyama) means a quarter, order 1 (the others, noise that commutes) a
    sixteenth;
    half as much again is allowed, since a ratio of two such estimates scatters by about a tenth."""
    noise = BrownianTree(2, 0.0, 1.0)
    W = noise.value(1.0, (256, 2))
    exact = {"ito": np.exp(0.1 - 0.125 + 0.5 * W), "stratonovich": np.exp(0.1 + 0.5 * W)}
    assert abs(exact["ito"] - exact["stratonovich"]).mean() > 0.1

    def error(method: Any, which: str, N: int) -> float:
        return float(np.sqrt(np.mean((gbm(method, which, N, noise) - exact[which]) ** 2)))

    for method in (rv.RungeKutta("heun2"), rv.Coupled("midpoint"), rv.ReversibleHeun(), rv.EES25()):
        for which in exact:
            coarse, fine = error(method, which, 16), error(method, which, 256)
            assert fine < coarse / 16 * 1.5 and fine < 3e-3, (method, which, coarse, fine)
    coarse, fine = (error(rv.RungeKutta("euler"), "ito", N) for N in (16, 256))
    assert coarse / 4 / 1.5 < fine < coarse / 4 * 1.5


def test_euler_maruyama_equals_its_loop_and_the_correction_equals_the_one_by_hand() -> None:
    f, g, p = drift(np), NOISES["diagonal"](np), make()
    dWs = increments(NOISE, "diagonal")
    sol = rv.solve(f, Y0, TS, p, method=rv.RungeKutta("euler"), diffusion=g, noise=NOISE, interpretation="ito")
    assert_allclose(sol.ys, S.euler_maruyama(f, g, Y0, TS, dWs, p), rtol=0, atol=8 * EPS)
    corrected = S.stratonovich_drift(f, g, lambda t, y, p: -p["s"] * np.sin(y + t))
    for name, case in CASES.items():
        sol = rv.solve(f, Y0, TS, p, method=case.method, diffusion=g, noise=NOISE, interpretation="ito")
        assert_allclose(
            sol.ys, np.stack(case.literal(corrected, g, Y0, TS, dWs, p, False)), rtol=0, atol=16 * EPS, err_msg=name
        )
        assert sol.stats.nfe == case.a_step * 8 + case.once, name


@pytest.mark.parametrize("name", ["reversible-heun", "coupled-bosh3"])
def test_ito_gradients_agree_in_every_mode(name: str) -> None:
    """The correction is a vjp inside the field, so these are second derivatives of g."""
    method = SHEARS[name].method
    direct, _ = gradients("diagonal", method, rv.Direct(), interpretation="ito")
    by_hand = S.stratonovich_drift(drift(np), NOISES["diagonal"](np), lambda t, y, p: -p["s"] * np.sin(y + t))
    expected = rv.grad(
        lambda y0, p: np.sum(
            rv.solve(
                by_hand, y0, TS, p, method=method, diffusion=NOISES["diagonal"](np), noise=NOISE, gradient=rv.Direct()
            ).ys
            ** 2
        ),
        argnums=(0, 1),
    )(Y0, make())
    assert distance(direct[0], expected[0]) <= ROUND and distance(direct[1]["s"], expected[1]["s"]) <= ROUND
    for mode in (rv.Reversible(), rv.Checkpointed(2)):
        found, _ = gradients("diagonal", method, mode, interpretation="ito")
        assert distance(found[0], direct[0]) <= ROUND and distance(found[1], direct[1]) <= ROUND
    back, _ = gradients("diagonal", method, rv.Backsolve(), interpretation="ito")
    assert 1e-9 < distance(back, direct) < 0.05


def test_ito_of_additive_noise_is_stratonovich() -> None:
    a, b = (
        one(Y0, lambda t, y, p: 0.3 + 0 * y, NOISE).ys,
        rv.solve(
            elementwise,
            Y0,
            TS,
            0.4,
            method=rv.ReversibleHeun(),
            diffusion=lambda t, y, p: 0.3 + 0 * y,
            noise=NOISE,
            interpretation="ito",
        ).ys,
    )
    assert_array_equal(a, b)


# ------------------------------------------------------------------------------------- storage, resuming, the grid


@pytest.mark.long
def test_no_increment_is_stored() -> None:
    """Bytes of a gradient with save=[-1], 8 x 3 normals a step: N = 10000 may take what N = 100 does, plus the grid
    and its
    copies (4 * 8 bytes a step, as in test_memory.py), 5 %, and a full block of normals. Stored increments would be 192
    bytes a step, 1.9 MB."""
    y0 = np.full((8, 3), 0.3)

    def run(N: int) -> Any:
        ts = np.linspace(0, 1, N + 1)
        return lambda: rv.grad(
            lambda p: np.sum(
                rv.solve(
                    lambda t, y, p: p * y,
                    y0,
                    ts,
                    p,
                    method=rv.ReversibleHeun(),
                    save=[-1],
                    diffusion=lambda t, y, p: 0.1 * y,
                    noise=NOISE,
                    backend="eager",
                ).ys
            )
        )(np.array(0.1))

    run(20)()
    few, many = peak_bytes(run(100)), peak_bytes(run(10000))
    block = 8 * 8192  # one block of normals, of which 100 steps need a part, and a few copies live while it is made
    assert many - 32 * 9900 <= 1.05 * few + 8 * block, (few, many)


@pytest.mark.parametrize("name", ["reversible-heun", "coupled-midpoint", "ees27", "rk-heun2"])
def test_a_resumed_solve_goes_on_with_the_same_path(name: str) -> None:
    method = CASES[name].method
    for noise in (NOISE, BrownianTree(3, 0.0, 1.0)):
        whole = one(Y0, vector, noise, method)
        first = rv.solve(elementwise, Y0, TS[:4], 0.4, method=method, diffusion=vector, noise=noise)
        rest = rv.solve(
            elementwise, None, TS[3:], 0.4, method=method, diffusion=vector, noise=noise, state0=first.state
        )
        assert_array_equal(np.concatenate([first.ys, rest.ys[1:]]), whole.ys)
        assert rest.state.n == 8


def test_the_gradient_of_a_resumed_solve_is_that_of_the_whole() -> None:
    def whole(y0: Any, p: Any) -> Any:
        return np.sum(
            rv.solve(elementwise, y0, TS, p, method=rv.ReversibleHeun(), diffusion=vector, noise=NOISE).y1 ** 2
        )

    def parts(y0: Any, p: Any) -> Any:
        first = rv.solve(elementwise, y0, TS[:4], p, method=rv.ReversibleHeun(), diffusion=vector, noise=NOISE)
        return np.sum(
            rv.solve(
                elementwise,
                None,
                TS[3:],
                p,
                method=rv.ReversibleHeun(),
                diffusion=vector,
                noise=NOISE,
                state0=first.state,
            ).y1
            ** 2
        )

    p = np.array(0.4)
    assert distance(rv.grad(parts, argnums=(0, 1))(Y0, p), rv.grad(whole, argnums=(0, 1))(Y0, p)) <= ROUND


@pytest.mark.parametrize("kind", NOISES)
def test_reversed_time(kind: str) -> None:
    """A grid that runs backwards: the literal loop with h < 0 and the increments of that grid; and every gradient
    mode."""
    back, f, g, p = TS[::-1], drift(np), NOISES[kind](np), make()
    dWs = increments(NOISE, kind, ts=back)
    for name in ("reversible-heun", "coupled-midpoint", "ees27"):
        case = CASES[name]
        sol = rv.solve(f, Y0, back, p, method=case.method, diffusion=g, noise=NOISE)
        assert_allclose(sol.ys, np.stack(case.literal(f, g, Y0, back, dWs, p, KIND[kind])), rtol=0, atol=8 * EPS)
        if case.shears:
            found, direct = (gradients(kind, case.method, mode, ts=back)[0] for mode in (rv.Reversible(), rv.Direct()))
            assert distance(found, direct) <= ROUND


def test_a_path_can_be_followed_back() -> None:
    """On one BrownianTree, from the end of a solve back to its start: a Stratonovich equation runs backwards on the
    same path,
    so what is missed is twice the error of the method: order 1 for this diagonal noise, 16 times the steps, an eighth
    at least."""
    tree, missed = BrownianTree(8, 0.0, 1.0), []
    for N in (16, 256):
        ts = np.linspace(0, 1, N + 1)
        there = rv.solve(elementwise, Y0, ts, 0.4, method=rv.RungeKutta("heun2"), diffusion=vector, noise=tree)
        again = rv.solve(
            elementwise, there.y1, ts[::-1], 0.4, method=rv.RungeKutta("heun2"), diffusion=vector, noise=tree
        )
        missed.append(abs(again.y1 - Y0).max())
    assert missed[1] < missed[0] / 8 and missed[1] > 1e-12, missed


# ------------------------------------------------------------------------------------------------- adaptive steps

ADAPTIVE = {
    "reversible-heun": rv.ReversibleHeun(),
    "coupled-bosh3": rv.Coupled("bosh3", 0.99),
    "ees25": rv.EES25(),
    "rk-heun2": rv.RungeKutta("heun2"),
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_steps_on_a_tree(name: str) -> None:
    """The accepted grid, replayed as a fixed one, gives the same bits; and the gradients of both agree in every
    mode."""
    method, tree = ADAPTIVE[name], BrownianTree(6, 0.0, 1.0)
    tol = 2e-5 if name in ("coupled-bosh3", "ees25") else 2e-3  # about ten steps each
    pid = rv.PID(rtol=tol, atol=tol)
    for kind in ("diagonal", "general"):
        sol = rv.solve(
            drift(np),
            Y0,
            (0.1, 0.9),
            make(),
            method=method,
            diffusion=NOISES[kind](np),
            noise=tree,
            controller=pid,
            dt0=0.7,
        )
        assert sol.stats.rejected > 0 and len(sol.ts) > 6
        again = rv.solve(drift(np), Y0, sol.ts, make(), method=method, diffusion=NOISES[kind](np), noise=tree)
        assert_array_equal(again.ys, sol.ys)
        direct, _ = gradients(kind, method, rv.Direct(), ts=sol.ts, noise=tree)
        modes = [rv.Direct(), rv.Checkpointed(3)]
        if hasattr(method, "word"):
            modes += [rv.Reversible(), rv.Reversible(resync=4)]
        for mode in modes:
            found, again = gradients(kind, method, mode, ts=(0.1, 0.9), noise=tree, controller=pid, dt0=0.7)
            assert_array_equal(again.ts, sol.ts)
            assert distance(found, direct) <= 10 * ROUND * len(sol.ts) / 8, mode
    if name == "ees25":
        found, _ = gradients("diagonal", method, rv.Reversible(), ts=(0.1, 0.9), noise=tree, controller=pid, dt0=0.7)
        direct, _ = gradients("diagonal", method, rv.Direct(), ts=(0.1, 0.9), noise=tree, controller=pid, dt0=0.7)
        assert 0 < distance(found, direct) < 1e-4


def test_adaptive_steps_are_smaller_for_a_smaller_tolerance_and_follow_the_same_path() -> None:
    tree = BrownianTree(6, 0.0, 1.0)
    ends = {
        rtol: rv.solve(
            elementwise,
            Y0,
            (0.0, 1.0),
            0.4,
            method=rv.RungeKutta("heun2"),
            diffusion=vector,
            noise=tree,
            controller=rv.PID(rtol, rtol),
            save=[-1],
        )
        for rtol in (1e-1, 1e-4)
    }
    fine = rv.solve(
        elementwise,
        Y0,
        np.linspace(0, 1, 2049),
        0.4,
        method=rv.RungeKutta("heun2"),
        diffusion=vector,
        noise=tree,
        save=[-1],
    )
    errors = [abs(sol.y1 - fine.y1).max() for sol in ends.values()]
    assert errors[1] < errors[0] / 4 and ends[1e-4].stats.steps > 4 * ends[1e-1].stats.steps


# ---------------------------------------------------------------------------------------------------- what goes wrong


def contracting(mode: Any, N: int = 100) -> tuple:
    """METHODS section 4: rates from 0 to -20 over [0, 1], in float32, here with additive noise."""
    rates = np.linspace(-20, 0, 8, dtype=np.float32)

    def loss(y0: Any, p: Any) -> Any:
        sol = rv.solve(
            lambda t, y, p: p * y,
            y0,
            np.linspace(0, 1, N + 1),
            p,
            method=rv.EES25(),
            gradient=mode,
            diffusion=lambda t, y, p: p / p,
            noise=NOISE,
        )
        return np.mean(sol.ys), sol

    return rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(np.ones(8, np.float32), rates - np.float32(0.01))


def test_contraction_is_flagged_and_resync_repairs_it() -> None:
    """e^20 times the float32 rounding is more than the state. Every 10 steps a state is stored: e^2 times the
    rounding of 10 steps,
    and the
    defect of EES25: 1e-4 allowed."""
    (_, _), direct = contracting(rv.Direct())
    with pytest.warns(rv.ReconstructionWarning, match="resync"):
        (_, sol), wrong = contracting(rv.Reversible())
    assert sol.stats.roundtrip.absolute > 1 and distance(wrong[1], direct[1]) > 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (_, sol), found = contracting(rv.Reversible(resync=10))
    assert sol.stats.roundtrip.absolute < 1e-4
    assert distance(found[0], direct[0]) < 1e-4 and distance(found[1], direct[1]) < 1e-4
    with pytest.raises(rv.ReconstructionError):
        contracting(rv.Reversible(strict=True))


def test_noise_alone_is_no_alarm() -> None:
    """With noise the two copies differ by O(sqrt(h)); at h = 1/16 that is a fifth of the solution here, and nothing
    is wrong."""
    y0 = np.tile([0.6, -0.3], (100, 1))

    def g(t: Any, y: Any, p: Any) -> Any:
        a, b = y[..., 0], y[..., 1]
        return np.stack([np.stack([0.5 * np.cos(b), 0.6 * a], -1), np.stack([0.7 * b, 0.5 * np.sin(a) + 0.3], -1)], -1)

    def loss(p: Any, mode: Any) -> Any:
        return np.sum(
            rv.solve(
                lambda t, y, p: np.sin(p * y),
                y0,
                np.linspace(0, 1, 17),
                p,
                method=rv.ReversibleHeun(),
                diffusion=g,
                noise=Brownian(4),
                gradient=mode,
            ).y1
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, direct = (rv.grad(lambda p: loss(p, mode))(np.array(0.5)) for mode in (rv.Reversible(), rv.Direct()))
    assert distance(found, direct) <= 1e-12


def test_a_given_path_takes_the_place_of_noise() -> None:
    """Whatever reads like a tree will do, so measured noise can be used."""
    dWs = increments(NOISE, "general")
    a = rv.solve(
        drift(np), Y0, TS, make(), method=rv.ReversibleHeun(), diffusion=NOISES["general"](np), noise=Given(TS, dWs)
    )
    b = rv.solve(drift(np), Y0, TS, make(), method=rv.ReversibleHeun(), diffusion=NOISES["general"](np), noise=NOISE)
    assert_array_equal(a.ys, b.ys)

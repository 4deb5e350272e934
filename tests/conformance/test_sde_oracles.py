"""SDE solves beside literal loops on the same increments: every method, every kind of noise; gradients by HIPS autograd
and complex steps through the loops; mpmath; torchsde's reversible Heun, stored and live."""

from __future__ import annotations

import json
from typing import Any

import autograd.numpy as anp
import mpmath
import numpy as np
import pytest
from mpmath import mpf

import revode as rv
from reference.adapters import torchsde_adapter as torchsde
from reference.oracles import ees as E
from reference.oracles import gradients as G
from reference.oracles import sde as S
from reference.oracles import tableaux as T
from tests.method_cases import distance
from tests.sde_cases import CASES, KIND, NOISES, SHEARS, TS, Y0, Given, drift, increments, make

NOISE = rv.paths.Brownian(3)
EPS = 2.0**-52
# Rounding of one step: a stage's sum has at most 6 terms below 2 and each stage about 15 operations, with 4 stages
# twice: 1 step is off by less than 32 ulp(1), and this field's growth over 1/2 is below e. Measured: 2.3 ulp in 8
# steps.
ULPS = 8


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("name", CASES)
def test_solutions_equal_the_literal_loop(name: str, kind: str) -> None:
    case, p = CASES[name], make()
    f, g = drift(np), NOISES[kind](np)
    sol = rv.solve(f, Y0, TS, p, method=case.method, diffusion=g, noise=NOISE)
    expected = np.stack(case.literal(f, g, Y0, TS, increments(NOISE, kind), p, KIND[kind]))
    off = abs(sol.ys - expected).max() / EPS
    assert off <= ULPS, f"{name}, {kind}: {off:.2f} ulp(1) of {ULPS}"
    assert (sol.stats.nfe, sol.stats.nfe_forward) == (case.a_step * 8 + case.once,) * 2  # f and g count as one


@pytest.mark.parametrize("kind", NOISES)
def test_the_increments_are_seen(kind: str) -> None:
    """The agreement above says something: another path, or the increments in another order, is another solution."""
    f, g, p = drift(np), NOISES[kind](np), make()
    sol = rv.solve(f, Y0, TS, p, method=rv.ReversibleHeun(), diffusion=g, noise=NOISE)
    dWs = increments(NOISE, kind)
    for wrong in (-dWs, dWs[::-1], dWs[:, ::-1], dWs[..., ::-1]):
        assert abs(sol.y1 - S.reversible_heun(f, g, Y0, TS, wrong, p, KIND[kind])[-1]).max() > 1e-3


@pytest.mark.parametrize(
    "name,kind",
    [
        ("reversible-heun", "diagonal"),
        ("reversible-heun", "general"),
        ("coupled-bosh3", "general"),
        ("coupled-midpoint", "additive"),
        ("ees27", "general"),
    ],
)
def test_gradients_equal_autograd_through_the_loop(name: str, kind: str) -> None:
    """Both are exact derivatives of programs that agree to a few ulp: 100 ulp of the largest entry. All saved times
    count."""
    case, p, dWs = CASES[name], make(), increments(NOISE, kind)
    weights = np.random.default_rng(0).normal(size=(9, *Y0.shape))

    def literal(at: tuple) -> Any:
        ys = case.literal(drift(anp), NOISES[kind](anp), at[0], TS, dWs, at[1], KIND[kind])
        return sum((w * y).sum() for w, y in zip(weights, ys, strict=True))

    def ours(y0: Any, p: Any, gradient: Any) -> Any:
        return np.sum(
            weights
            * rv.solve(
                drift(np), y0, TS, p, method=case.method, diffusion=NOISES[kind](np), noise=NOISE, gradient=gradient
            ).ys
        )

    expected = G.autograd_gradient(literal, (Y0, p))
    for mode in (rv.Direct(), *([rv.Reversible()] if case.shears else [])):
        found = rv.grad(lambda *at: ours(*at, mode), argnums=(0, 1))(Y0, p)
        assert distance(found[0], expected[0]) <= 100 * EPS and distance(found[1], expected[1]) <= 100 * EPS


def test_gradient_equals_complex_steps_through_the_loop() -> None:
    """A third derivative, without any tape: diagonal noise of one trajectory, dL/dy0 and dL/ds (the diffusion's
    parameter)."""
    p, y0 = make(), Y0[0]
    dWs = increments(NOISE, "diagonal", y0=y0)

    def literal(at: dict) -> Any:
        return (
            S.reversible_heun(drift(np), NOISES["diagonal"](np), at["y0"], TS, dWs, {**p, "s": at["s"]})[-1] ** 2
        ).sum()

    expected = G.complex_step_gradient(literal, {"y0": y0, "s": p["s"]})
    found = rv.grad(
        lambda at: np.sum(
            rv.solve(
                drift(np),
                at["y0"],
                TS,
                {**p, "s": at["s"]},
                method=rv.ReversibleHeun(),
                diffusion=NOISES["diagonal"](np),
                noise=NOISE,
            ).y1
            ** 2
        )
    )({"y0": y0, "s": p["s"]})
    for name in ("y0", "s"):
        assert distance(found[name], expected[name]) <= 100 * EPS


def test_solutions_equal_mpmath() -> None:
    """40 digits, on the same increments, taken exactly: what is left is the library's own rounding (ULPS as above)."""
    ts, y0 = np.array([0.0, 0.125, 0.1875, 0.25]), np.array([0.5, -0.25])
    dWs = increments(NOISE, "diagonal", ts=ts, y0=y0)
    f, g = lambda t, y, p: 1 / (1 + y * y) - p * t, lambda t, y, p: p * y / (2 + t)
    given = dict(params=0.25, diffusion=g, noise=NOISE)
    with mpmath.workdps(40):
        mp = np.vectorize(mpf, otypes=[object])
        args = f, g, mp(y0), mp(ts), mp(dWs), mpf("0.25")
        scheme27 = E.LowStorage(
            *(
                tuple(
                    x.number(lambda q: mpf(q.numerator) / q.denominator, mpmath.sqrt)
                    if isinstance(x, E.Root2)
                    else mpf(x)
                    for x in part
                )
                for part in E.LOW_STORAGE_27
            )
        )
        exact = {
            rv.ReversibleHeun(): S.reversible_heun(*args),
            rv.EES27(): S.ees(*args, scheme27, E.stage_times(scheme27)),
            rv.Coupled("rk4", 0.9): S.coupled(
                *args, T.numbers(T.TABLEAUX["rk4"], lambda q: mpf(q.numerator) / q.denominator), mpf(0.9)
            ),
        }
        for method, states in exact.items():
            sol = rv.solve(f, y0, ts, method=method, **given)
            assert max(abs(mp(sol.ys) - np.stack(states)).ravel()) <= ULPS * EPS, method


def ours_on(given: dict, kind: str, mode: Any) -> tuple[Any, Any]:
    """ys and (dL/dy0, dL/dparams) of the library on an adapter's problem."""
    noise = Given(given["ts"], given["dWs"])
    f, g = (
        (lambda fn: lambda t, y, p: fn(np, t, y, p))(torchsde.drift),
        lambda t, y, p: torchsde.DIFFUSIONS[kind](np, t, y, p),
    )

    def loss(y0: Any, p: Any) -> Any:
        ys = rv.solve(f, y0, given["ts"], p, method=rv.ReversibleHeun(), diffusion=g, noise=noise, gradient=mode).ys
        return np.sum(given["weights"] * ys), ys

    (_, ys), grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(given["y0"], given["params"])
    return ys, grads


# 16 steps of 1/16. In the forward solve torchsde rounds as we do but for the order of a sum: 8 ulp of the largest
# entry.
# Backwards it reconstructs, and so do we; a state of size 5 that is off by 16 ulp, times a second derivative of about
# 5.
FORWARD, BACKWARD = 16 * EPS, 400 * EPS


def compare(found: dict, given: dict, kind: str) -> None:
    for mode in (rv.Reversible(), rv.Direct()):
        ys, (a_y0, a_params) = ours_on(given, kind, mode)
        assert distance(ys, found["ys"]) <= FORWARD, kind
        assert distance(a_y0, found["y0"]) <= BACKWARD, kind
        for name, a in found["params"].items():
            assert distance(a_params[name], a) <= BACKWARD if a.any() else not a_params[name].any(), (kind, name)


@pytest.mark.parametrize("kind", torchsde.DIFFUSIONS)
def test_reversible_heun_equals_the_stored_vectors_of_torchsde(kind: str) -> None:
    case = json.loads(torchsde.VECTORS.read_text())["cases"][kind]
    given = torchsde.from_hex(case["given"])
    fresh = torchsde.problem(kind)
    assert rv.tree.flatten(rv.tree.map(np.array_equal, given, fresh))[0] == [True] * 8  # the file belongs to the script
    for mode in ("reversible", "full"):
        compare(torchsde.from_hex(case[mode]), given, kind)


@pytest.mark.parametrize("kind", torchsde.DIFFUSIONS)
def test_reversible_heun_equals_torchsde_here(kind: str) -> None:
    """Where it is installed; on another problem than the stored one."""
    pytest.importorskip("torchsde", exc_type=ImportError)
    given = torchsde.problem(kind)
    given["dWs"], given["y0"] = -given["dWs"], given["y0"] * 0.5
    g = torchsde.DIFFUSIONS[kind]
    for mode in ("reversible", "full"):
        compare(torchsde.reversible_heun(torchsde.drift, g, **given, kind=kind, mode=mode), given, kind)


def test_hex_keeps_every_bit() -> None:
    x = {"a": np.array([[0.1, -0.0], [5e-324, 1e308]])}
    assert np.array_equal(torchsde.from_hex(torchsde.to_hex(x))["a"].view(np.int64), x["a"].view(np.int64))


def test_case_table_has_every_kind_of_method() -> None:
    assert len(SHEARS) == 5 and len(CASES) == 12

"""What solve() refuses about noise and controls, in one sentence each, before the first step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.paths import Brownian, BrownianTree, HermiteCubic, LinearPath, Rectilinear

TS = np.linspace(0, 1, 9)
Y = np.full((2, 3), 0.5)
CUBE = np.full((3, 3), 0.5)
NOISE = Brownian(1)
RANDOM = np.random.default_rng(0)


def f(t: Any, y: Any, p: Any) -> Any:
    return -y


def g(t: Any, y: Any, p: Any) -> Any:
    return 0.1 * y


def sde(y0: Any = Y, ts: Any = TS, diffusion: Any = g, noise: Any = NOISE, method: Any = None, **more: Any) -> Any:
    return rv.solve(f, y0, ts, method=method or rv.ReversibleHeun(), diffusion=diffusion, noise=noise, **more)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 2), (2, 1), (2,), (2, 3, 2, 1), (), (1, 3, 2), (2, 1, 2)])
def test_the_diffusion_has_one_of_two_shapes_and_nothing_is_broadcast(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"the diffusion returned .* for y of shape \(2, 3\).*nothing is broadcast"):
        sde(diffusion=lambda t, y, p: np.full(shape, 0.1))


@pytest.mark.parametrize(
    "y0,shape", [(Y, (2, 3)), (Y, (2, 3, 1)), (Y, (2, 3, 5)), (Y[0], (3,)), (Y[0], (3, 3)), (CUBE, (3, 3, 3))]
)
def test_these_shapes_are_taken(y0: Any, shape: tuple) -> None:
    assert sde(y0, diffusion=lambda t, y, p: np.full(shape, 0.1)).y1.shape == y0.shape


@pytest.mark.parametrize(
    "diffusion,error,match",
    [
        (lambda t, y, p: 0.1, ValueError, "the diffusion returned float"),
        (lambda t, y, p: None, ValueError, "the diffusion returned NoneType"),
        (lambda t, y, p: np.ones(y.shape, np.float32), TypeError, "float32 for y of float64"),
        (lambda t, y, p: np.ones(y.shape, int), TypeError, "int64 for y of float64"),
        (lambda t, y, p: y / 0, ValueError, "not finite"),
        (lambda t, y, p: RANDOM.normal(size=y.shape), ValueError, "differs from call to call"),
        (0.1, TypeError, "diffusion"),
    ],
)
def test_a_diffusion_that_is_none(diffusion: Any, error: type, match: str) -> None:
    with np.errstate(divide="ignore"), pytest.raises(error, match=match):
        sde(diffusion=diffusion)


@pytest.mark.parametrize("noise", [None, 7, Brownian, "noise"])
def test_noise_is_a_path(noise: Any) -> None:
    with pytest.raises(TypeError, match=r"noise=.*pass noise=Brownian\(seed\)"):
        sde(noise=noise)


def test_noise_and_diffusion_go_together_and_without_a_control() -> None:
    with pytest.raises(ValueError, match="noise= goes with diffusion="):
        sde(diffusion=None)
    with pytest.raises(ValueError, match="neither with control="):
        rv.solve(
            lambda t, y, p: np.ones((*y.shape, 1)),
            Y,
            TS,
            method=rv.ReversibleHeun(),
            diffusion=g,
            noise=NOISE,
            control=LinearPath(TS, TS[:, None]),
        )


@pytest.mark.parametrize(
    "method,split",
    [
        (rv.AsynchronousLeapfrog(), False),
        (rv.AsynchronousLeapfrog(0.8), False),
        (rv.LeapfrogMidpoint(), False),
        (rv.VelocityVerlet(), True),
        (rv.SemiImplicitEuler(), True),
        (rv.Composition(rv.ReversibleHeun()), False),
        (rv.Composition(rv.AsynchronousLeapfrog()), False),
    ],
)
def test_methods_without_a_form_for_noise_say_so(method: Any, split: bool) -> None:
    with pytest.raises(TypeError, match=r"has no form for noise.*use (ReversibleHeun|the method itself)"):
        sde((Y, Y) if split else Y, method=method)
    with pytest.raises(TypeError, match=r"(piecewise linear control; use HermiteCubic|without split state)"):
        rv.solve(
            lambda t, y, p: np.ones((*y.shape, 1)),
            (Y, Y) if split else Y,
            TS,
            method=method,
            control=LinearPath(TS, TS[:, None]),
        )


def test_adaptive_steps_ask_for_the_tree_and_the_tree_covers_the_solve() -> None:
    with pytest.raises(TypeError, match=r"BrownianTree\(seed, t0, t1\)"):
        sde(ts=(0, 1), controller=rv.PID(), method=rv.RungeKutta("heun2"))
    with pytest.raises(ValueError, match=r"outside \[t0, t1\]"):
        sde(noise=BrownianTree(1, 0.0, 0.5))
    with pytest.raises(
        ValueError, match=r"noise of shape \(2, 3\) is needed, but this noise was made with shape=\(2, 2\)"
    ):
        sde(noise=Brownian(1, shape=(2, 2)))
    with pytest.raises(ValueError, match="lam='auto'"):
        sde(method=rv.Coupled("midpoint", "auto"))


@pytest.mark.parametrize("interpretation", ["Ito", "strat", None, True])
def test_interpretation_is_one_of_two(interpretation: Any) -> None:
    with pytest.raises(ValueError, match="it is 'stratonovich' or 'ito'"):
        sde(interpretation=interpretation)
    with pytest.raises(ValueError, match="it is 'stratonovich' or 'ito'"):
        rv.solve(f, Y, TS, interpretation=interpretation)


def stack(*columns: Any) -> Any:
    return np.stack(columns, -1)


CROSSED = {
    "next": lambda t, y, p: stack(y[..., 1], y[..., 2], y[..., 0]),
    "even on even": lambda t, y, p: stack(y[..., 2], y[..., 1], y[..., 0]),
    "even on odd": lambda t, y, p: stack(y[..., 1], y[..., 1], y[..., 2]),
    "odd on even": lambda t, y, p: stack(y[..., 0], y[..., 0], y[..., 2]),
    "later": lambda t, y, p: t * stack(y[..., 1], y[..., 1], y[..., 2]) + 0.1,
    "mean": lambda t, y, p: 0 * y + np.mean(y, axis=-1, keepdims=True),
}


@pytest.mark.parametrize("name", CROSSED)
def test_ito_refuses_noise_that_mixes_entries(name: str) -> None:
    with pytest.raises(ValueError, match="g_i to depend on y_i alone"):
        sde(diffusion=CROSSED[name], interpretation="ito")
    sde(diffusion=CROSSED[name], method=rv.RungeKutta("heun2"))  # Stratonovich has no such condition


def test_ito_refuses_general_noise_but_takes_it_when_it_is_additive() -> None:
    with pytest.raises(ValueError, match=r"for general noise the methods here are Stratonovich"):
        sde(diffusion=lambda t, y, p: np.stack([y, y], -1), interpretation="ito")
    with pytest.raises(ValueError, match="Stratonovich"):
        sde(diffusion=lambda t, y, p: t * np.stack([0 * y, y], -1) + 1, interpretation="ito")
    sde(diffusion=lambda t, y, p: np.full((*y.shape, 2), 1 + t), interpretation="ito")


ITOS = {
    "even": lambda t, y, p: stack(y[..., 0], 0 * y[..., 1] + 1, 0 * y[..., 2] + 1),
    "odd": lambda t, y, p: stack(0 * y[..., 0] + 1, y[..., 1], 0 * y[..., 2] + 1),
    "later": lambda t, y, p: t * y,
    "all": lambda t, y, p: 0.5 * y * y,
}


@pytest.mark.parametrize("name", ITOS)
def test_the_correction_is_made_wherever_g_depends_on_y(name: str) -> None:
    """Against the loop by hand: f - g g'/2 with g' by a central difference, good to 1e-9 or so."""
    d = ITOS[name]

    def corrected(t: Any, y: Any, p: Any) -> Any:
        e = 1e-6
        return f(t, y, p) - d(t, y, p) * (d(t, y + e, p) - d(t, y - e, p)) / (4 * e)

    y0, method = np.full((1, 3), 0.5), rv.RungeKutta("heun2")
    ito = sde(y0, diffusion=d, interpretation="ito", method=method).y1
    by_hand = rv.solve(corrected, y0, TS, method=method, diffusion=d, noise=NOISE).y1
    assert abs(ito - by_hand).max() < 1e-8
    assert abs(ito - sde(y0, diffusion=d, method=method).y1).max() > 1e-3


@pytest.mark.parametrize("name", ITOS)
@pytest.mark.parametrize("method", [rv.RungeKutta("euler"), rv.Coupled("euler", 0.9), rv.NearReversible("euler")])
def test_eulers_method_is_for_itos_integral_or_additive_noise(name: str, method: Any) -> None:
    with pytest.raises(ValueError, match="does not converge to the stratonovich solution"):
        sde(diffusion=ITOS[name], method=method)
    if not isinstance(method, rv.RungeKutta):
        with pytest.raises(ValueError, match="does not converge to the ito solution"):
            sde(diffusion=ITOS[name], method=method, interpretation="ito")
    sde(diffusion=lambda t, y, p: 0.02 * (1 + t) + 0 * y, method=method)


def test_backsolve_refuses_itos_euler() -> None:
    """The adjoint equation, integrated backwards by Euler-Maruyama, converges to something else (19.9 instead of
    -2.8)."""
    with pytest.raises((TypeError, ValueError), match=r"Backsolve.*[Ss]tratonovich"):
        rv.grad(
            lambda y: np.sum(sde(y, method=rv.RungeKutta("euler"), interpretation="ito", gradient=rv.Backsolve()).y1)
        )(Y)


def test_a_tensor_from_outside_is_refused_in_the_diffusion_too() -> None:
    with pytest.raises(TypeError, match="tensor that it was not given"):
        rv.grad(lambda s: np.sum(sde(diffusion=lambda t, y, p: s * y).y1))(np.array(0.1))


def test_trees_take_diagonal_noise_alone() -> None:
    y0 = {"a": np.ones(2), "b": np.ones(1)}
    with pytest.raises((TypeError, ValueError)):
        rv.solve(
            lambda t, y, p: y,
            y0,
            TS,
            method=rv.ReversibleHeun(),
            noise=NOISE,
            diffusion=lambda t, y, p: {k: np.ones((*x.shape, 2)) for k, x in y.items()},
        )
    with pytest.raises(ValueError, match="tree like y0"):
        rv.solve(
            lambda t, y, p: y, y0, TS, method=rv.ReversibleHeun(), diffusion=lambda t, y, p: {"a": y["a"]}, noise=NOISE
        )


# ---------------------------------------------------------------------------------------------------- controls


def cde(control: Any, y0: Any = Y, ts: Any = TS, method: Any = None, channels: int = 2, **more: Any) -> Any:
    return rv.solve(
        lambda t, y, p: np.stack([y] * channels, -1),
        y0,
        ts,
        method=method or rv.ReversibleHeun(),
        control=control,
        **more,
    )


DATA = np.cumsum(np.full((9, 2), 0.05, np.float64), axis=0)


def test_a_control_is_a_path_and_the_field_has_its_channels() -> None:
    with pytest.raises(TypeError, match="pass LinearPath"):
        cde(DATA)
    with pytest.raises(ValueError, match=r"with a control of 2 channels it returns shape \(2, 3, 2\)"):
        cde(LinearPath(TS, DATA), channels=3)
    with pytest.raises(ValueError, match="outside the data's times"):
        cde(LinearPath(TS, DATA), ts=[0, 1.0, 2.0])
    with pytest.raises(TypeError, match="as one array"):
        cde(LinearPath(TS, DATA), {"a": Y})


@pytest.mark.parametrize("kind", [LinearPath, HermiteCubic])
def test_the_batch_of_a_control_is_the_batch_of_y(kind: Any) -> None:
    batch = np.stack([DATA] * 4)
    for y0 in (np.ones((1, 3)), np.ones(3), np.ones((2, 3))):
        with pytest.raises(ValueError, match=r"control.*\(4,\).*shape"):
            cde(kind(TS, batch), y0)
    assert cde(kind(TS, DATA), np.ones((4, 3))).y1.shape == (4, 3)  # one series for all is fine


@pytest.mark.parametrize("kind", [LinearPath, HermiteCubic])
def test_a_control_does_not_change_the_dtype_of_y(kind: Any) -> None:
    """Either it is refused by name or it is cast; a float32 solve never turns into float64."""
    try:
        sol = cde(kind(TS, DATA), Y.astype(np.float32))
    except TypeError as error:
        assert "float32" in str(error) and "float64" in str(error)
    else:
        assert sol.ys.dtype == np.float32


def test_a_rectilinear_path_needs_its_knots_in_the_grid() -> None:
    """Stepped over, its middles do nothing, and it looks ahead like a LinearPath."""
    path = Rectilinear(TS, DATA, time=True)
    with pytest.raises(ValueError, match=r"(knot|control\.times)"):
        cde(path, channels=3)
    cde(path, ts=path.times, channels=3)

"""The symplectic adjoint: the gradient of Direct to rounding, from steps and stages, with one evaluation on a tape at a time."""
from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import revode as rv
from tests.method_cases import distance

EPS = 2.0**-53
P = {"W": np.array([[0.4, -0.7, 0.3], [0.2, 0.5, -0.6]]), "b": np.array([0.1, -0.2, 0.3]), "n": 3, "s": np.float64(0.7)}
Y0 = np.array([[0.3, -0.8], [1.1, 0.4], [-0.5, 0.9]])
TS = np.linspace(0.0, 1.0, 17) ** 1.2


def field(t, y, p):
    return np.tanh(y @ p["W"] + p["b"] * np.cos(t)) @ p["W"].T * p["s"]


def gradients(gradient, method, backend="eager", f=field, ts=TS, **options):
    def loss(y0, p):
        sol = rv.solve(f, y0, ts, p, method=method, gradient=gradient, backend=backend, save=slice(None, None, 4), **options)
        return np.sum(np.sin(sol.ys)) + np.sum(sol.y1**2), sol.stats
    (_, stats), found = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(Y0, P)
    return found, stats


def weights_at_zero():
    """A method with b_2 = 0, which the paper treats apart."""
    return rv.RungeKutta(rv.Tableau("with a zero", 2, ((), (0.5,), (0.0, 1.0)), (0.5, 0.0, 0.5), (0.0, 0.5, 1.0)))


@pytest.mark.parametrize("backend", ["eager", "replay"])
@pytest.mark.parametrize("method", [*map(rv.RungeKutta, ("euler", "midpoint", "ralston3", "bosh3", "rk4", "dopri5", "tsit5")),
                                    rv.NearReversible("rk4"), weights_at_zero()], ids=repr)
def test_it_is_the_gradient_of_direct(method, backend):
    """16 steps of at most 6 stages with about 10 roundings each, of gradients that are not small against their terms."""
    found, stats = gradients(rv.SymplecticAdjoint(), method, backend)
    wanted, _ = gradients(rv.Direct(), method)
    assert stats.backend == backend and stats.peak_states == 17
    assert distance(found[0], wanted[0]) <= 16 * 60 * EPS
    assert distance([x for x in rv.tree.flatten(found[1])[0] if x is not None],
                    [x for x in rv.tree.flatten(wanted[1])[0] if x is not None]) <= 16 * 60 * EPS


def test_noise_controls_and_adaptive_steps():
    path = rv.HermiteCubic(np.linspace(0, 1, 5), np.cumsum(np.cos(np.arange(10.0)).reshape(5, 2), 0))
    rk4, noise = rv.RungeKutta("rk4"), {"diffusion": lambda t, y, p: p["s"] * np.cos(y), "noise": rv.Brownian(3)}
    driven = {"control": path, "f": lambda t, y, p: np.stack([np.sin(y * p["s"] + p["b"][:2]), np.cos(y @ p["W"][:, :2])], -1)}
    for run in (lambda mode: gradients(mode, rk4, **noise), lambda mode: gradients(mode, rk4, **driven), adaptive):
        found, wanted = (run(mode)[0] for mode in (rv.SymplecticAdjoint(), rv.Direct()))
        for a, b in zip(rv.tree.flatten(found)[0], rv.tree.flatten(wanted)[0], strict=True):
            assert a is None or distance([a], [b]) <= 16 * 60 * EPS


def adaptive(mode):
    """Both modes march alike, so they find the same grid."""
    def loss(y0, p):
        sol = rv.solve(field, y0, (0.0, 1.0), p, method=rv.RungeKutta("bosh3"), gradient=mode, backend="eager",
                       controller=rv.PID(1e-3, 1e-3))
        return np.sum(np.sin(sol.ys)) / len(sol.ts), sol.stats
    (_, stats), found = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(Y0, P)
    return found, stats


def test_evaluations():
    """Forward s each step; back s - 1 stages are made again, and s evaluations are taped and pulled back."""
    for base, s in (("midpoint", 2), ("rk4", 4), ("dopri5", 6)):
        _, stats = gradients(rv.SymplecticAdjoint(), rv.RungeKutta(base))
        assert (stats.nfe_forward, stats.nfe, stats.nvjp) == (16 * s, 16 * (s + 2 * s - 1), 16 * s)


def test_memory_is_that_of_states_and_one_evaluation():
    """rk4 on 10^5 numbers: the tape of a step holds what four evaluations hold, and this one what one does."""
    y0 = np.linspace(0.1, 1.0, 100_000)
    f = lambda t, y, p: np.tanh(np.sin(np.cos(y * 0.3) * 0.5) * y)

    def peak(mode):
        loss = lambda y0: np.sum(rv.solve(f, y0, np.linspace(0, 1, 9), method=rv.RungeKutta("rk4"), gradient=mode, save=[-1],
                                          backend="eager").y1)
        tracemalloc.start()
        rv.grad(loss)(y0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found / y0.nbytes
    peak(rv.SymplecticAdjoint())
    by_stage, by_step = peak(rv.SymplecticAdjoint()), peak(rv.Checkpointed(8))
    assert by_stage <= by_step - 10                       # three evaluations of some five arrays each
    assert peak(rv.Direct()) > 4 * by_stage


def test_methods_without_a_tableau_are_refused():
    for method in (rv.ReversibleHeun(), rv.EES25(), rv.AsynchronousLeapfrog()):
        with pytest.raises(TypeError, match=r"SymplecticAdjoint: .* is no Runge-Kutta method with a tableau; take RungeKutta"):
            gradients(rv.SymplecticAdjoint(), method)
    with pytest.raises(TypeError, match="first derivatives only"):
        rv.grad(lambda p: np.sum(rv.grad(lambda y: np.sum(rv.solve(field, y, TS, p, method=rv.RungeKutta("rk4"),
                                                                   gradient=rv.SymplecticAdjoint()).y1))(Y0)))(P)

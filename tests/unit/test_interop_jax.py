"""Operations of JAX: gradients against finite differences, under jit, grad and vmap; refusals."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import revode as rv

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install 'revode[interop]'")
from jax.test_util import check_grads  # noqa: E402

from revode.interop import jax as interop  # noqa: E402

TS = np.linspace(0.0, 1.0, 9)
METHODS = {"coupled": rv.Coupled("midpoint"), "reversible Heun": rv.ReversibleHeun(), "EES": rv.EES25()}


@pytest.fixture(autouse=True)
def double() -> Any:
    with jax.enable_x64(True):
        yield


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + t * p["b"]) @ p["V"]


def arrays() -> tuple[Any, dict]:
    rng = np.random.default_rng(0)
    shapes = {"W": (3, 2), "b": (2,), "V": (2, 3)}
    return jax.numpy.array(rng.normal(size=(2, 3))), {
        name: jax.numpy.array(0.7 * rng.normal(size=shape)) for name, shape in shapes.items()}


def square(y0: Any, params: Any, **how: Any) -> Any:
    found = interop.solve(field, y0, TS, params, **{"method": rv.Coupled("midpoint"), **how})
    return (found.ys ** 2).sum() + found.y1.sum()


@pytest.mark.parametrize("name", METHODS)
def test_check_grads(name: str) -> None:
    """y0 and params, in and out of jit: JAX's own tolerance in float64, 1e-6."""
    run = lambda y0, p: square(y0, p, method=METHODS[name])
    check_grads(run, arrays(), 1, modes=["rev"])
    check_grads(jax.jit(run), arrays(), 1, modes=["rev"])


def test_check_grads_of_an_equilibrium() -> None:
    y0, params = arrays()

    def run(z0: Any, p: Any, x: Any) -> Any:
        return interop.fixed_point(lambda z, p, x: np.tanh(0.5 * z @ p["W"] @ p["V"] + x), z0, p, x, method=rv.RevDEQ(), tol=None,
                                   max_steps=6)

    check_grads(jax.jit(run), (y0, {name: params[name] for name in "WV"}, y0 + 1.0), 1, modes=["rev"])


def test_the_gradient_is_this_packages_to_the_last_bit() -> None:
    y0, params = arrays()
    found = jax.jit(jax.grad(lambda y0, p: interop.solve(field, y0, TS, p, method=rv.Coupled()).y1.sum(), (0, 1)))(y0, params)
    plain = np.asarray(y0), {name: np.asarray(x) for name, x in params.items()}
    wanted = rv.grad(lambda y0, p: rv.solve(field, y0, TS, p, method=rv.Coupled()).y1.sum(), argnums=(0, 1))(*plain)
    np.testing.assert_array_equal(found[0], wanted[0])
    for name in params:
        np.testing.assert_array_equal(found[1][name], wanted[1][name])


def test_vmap_over_y0_is_one_solve_ahead() -> None:
    """Two nested batches in front of y0 go to the field as they are; params, shared, get the sum of the gradients of all."""
    y0, params = arrays()
    many = jax.numpy.stack([y0, 2 * y0, -y0])
    shapes = []

    def seen(t: Any, y: Any, p: Any) -> Any:
        shapes.append(np.shape(y))
        return field(t, y, p)

    run = lambda y: interop.solve(seen, y, TS, params, method=rv.Coupled(), save=[3, -1]).ys
    found = jax.vmap(jax.vmap(run))(many)
    assert set(shapes) == {(3, 2, 3), (3,)}                     # and two by themselves, to compare
    # the same steps; products of another shape may add in another order: some ulps of numbers of size 3
    np.testing.assert_allclose(found, np.stack([[run(y) for y in rows] for rows in many]), rtol=0, atol=1e-14)
    total = jax.grad(lambda p: jax.vmap(lambda y: square(y, p))(y0).sum())(params)
    wanted = jax.grad(lambda p: square(y0, p))(params)
    each = jax.vmap(jax.grad(square, 1), (0, None))(y0, params)
    for name in params:
        np.testing.assert_allclose(total[name], wanted[name], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(each[name].sum(0), wanted[name], rtol=1e-12, atol=1e-13)


def at_the_front(t: Any, y: Any, p: Any) -> Any:
    return field(t, y, p) + np.mean(y, 0)


def in_two_axes(t: Any, y: Any, p: Any) -> Any:
    return np.einsum("ij,jk->ik", np.tanh(y), p["W"] @ p["V"])


@pytest.mark.parametrize("run", [
    lambda y, p: interop.solve(at_the_front, y, TS, p, method=rv.Coupled()).ys,
    lambda y, p: interop.solve(in_two_axes, y, TS, p, method=rv.Coupled()).ys,
    lambda y, p: interop.solve(field, y, TS, p, method=rv.ReversibleHeun(), diffusion=lambda t, y, p: 0.3 * y,
                               noise=rv.Brownian(3)).ys,
], ids=["a mean over the front", "einsum", "noise"])
def test_vmap_is_what_each_solve_is_by_itself(run: Any) -> None:
    """Where a batch at once would be something else, forward and gradient: the same solves, so the same bits."""
    y0, params = arrays()
    many = jax.numpy.stack([y0, 2 * y0, -y0])
    assert np.array_equal(jax.vmap(lambda y: run(y, params))(many), np.stack([run(y, params) for y in many]))
    wanted = np.stack([jax.grad(lambda y: (run(y, params) ** 2).sum())(y) for y in many])
    found = jax.grad(lambda many: (jax.vmap(lambda y: run(y, params))(many) ** 2).sum())(many)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("scale", [np.linspace(0.1, 1.0, 5), np.linspace(-1.0, 1.0, 5)], ids=["growing", "between two ends"])
def test_vmap_sees_a_largest_entry_of_the_whole_batch(scale: Any) -> None:
    """Which the last has by itself as well, and in a batch between -1 and 1 the first too."""
    run = lambda y: interop.solve(lambda t, y, p: -y / np.max(np.abs(y)), y, TS, method=rv.Coupled()).ys
    many = jax.numpy.array(scale[:, None] * np.array([1.0, 0.5]) + np.array([0.0, 0.01]))
    assert np.array_equal(jax.vmap(run)(many), np.stack([run(y) for y in many]))


def test_an_equilibrium_from_rest() -> None:
    """In JAX's threads numbers below 2.2e-308 are 0, and so is a unit in the last place of a state at rest."""
    f = lambda z, p, x: np.cos(0.5 * z) + x
    found = jax.jit(jax.grad(lambda x: interop.fixed_point(f, jax.numpy.zeros(2), x=x, tol=1e-9).sum()))
    z = rv.fixed_point(f, np.zeros(2), x=np.ones(2), tol=1e-12).z
    np.testing.assert_allclose(found(jax.numpy.ones(2)), 1 / (1 + 0.5 * np.sin(0.5 * z)), rtol=1e-6)


def test_vmap_over_parameters_is_one_solve_for_each() -> None:
    y0, params = arrays()
    many = {name: jax.numpy.stack([x, 0.5 * x]) for name, x in params.items()}
    found = jax.vmap(square, (None, 0))(y0, many)
    np.testing.assert_allclose(found, [square(y0, {name: x[k] for name, x in many.items()}) for k in range(2)], rtol=1e-13)


def test_trees_numbers_and_single_precision() -> None:
    y0, params = arrays()
    pair = {"q": y0[0], "p": y0[1]}
    turned = interop.solve(lambda t, y, k: {"q": k["w"] * y["p"], "p": -y["q"]}, pair, TS, {"w": 1.0, "n": jax.numpy.array(3)},
                           method=rv.Coupled())
    assert turned.ys["q"].shape == (9, 3)
    low = {name: x.astype(np.float32) for name, x in params.items()}
    assert jax.grad(square)(y0.astype(np.float32), low).dtype == np.float32


def test_refusals() -> None:
    y0, params = arrays()
    with pytest.raises(TypeError, match="controller= was given"):
        interop.solve(field, y0, (0.0, 1.0), params, controller=rv.PID())
    with pytest.raises(TypeError, match="ts is traced by JAX"):
        jax.grad(lambda ts: interop.solve(field, y0, ts, params).y1.sum())(jax.numpy.array([0.0, 0.5, 1.0]))
    with pytest.raises(Exception, match="times"):
        interop.solve(field, y0, np.array([0.0, 1.0, 0.5]), params)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda y: square(y, params), (y0,), (y0,))

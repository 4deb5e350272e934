"""Fixed points against literal loops, complex steps and dense linear algebra; what goes wrong, and
what is said then.
"""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.oracles import fixed_points as oracle
from reference.oracles.gradients import complex_step_gradient
from revode import Implicit

EPS = 2.0**-52
D, B = 4, 3


def normalised(seed: int, L: float, d: int = D) -> np.ndarray:
    """(d, d) with spectral norm L, so that z -> tanh(z W + b) is an L-contraction."""
    W = np.random.default_rng(seed).standard_normal((d, d))
    return W * (L / np.linalg.norm(W, 2))


def cell(z: Any, p: Any, x: Any) -> Any:
    return np.tanh(z @ p["W"] + p["b"] + x)


def case(L: float = 0.5, seed: int = 0, dtype: Any = np.float64) -> tuple:
    """(z0, params, x)."""
    rng = np.random.default_rng([seed, 1])
    params = {"W": normalised(seed, L), "b": 0.3 * rng.standard_normal(D)}
    found = rng.standard_normal((B, D)), params, rng.standard_normal((B, D))
    return rv.tree.map(lambda a: a.astype(dtype), found)


def loss(z0: Any, p: Any, x: Any, **options: Any) -> tuple:
    found = rv.fixed_point(cell, z0, p, x, **{"backend": "eager", **options})
    return np.sum(found.z**3 + found.z), found


def gradient(args: tuple, **options: Any) -> tuple:
    """((dL/dz0, dL/dparams, dL/dx), what was found)."""
    (_, found), grads = rv.value_and_grad(loss, (0, 1, 2), has_aux=True)(*args, **options)
    return grads, found


def leaves(tree: Any) -> list:
    return rv.tree.flatten(tree)[0]


def apart(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest entry of b."""
    scale = max(abs(y).max() for y in leaves(b))
    return max(abs(x - y).max() for x, y in zip(leaves(a), leaves(b), strict=True)) / scale


# the iterations -----------------------------------------------------------------------------------
METHODS = {
    "revdeq": (rv.RevDEQ(0.5), lambda f, z, *rule: oracle.revdeq(f, z, 0.5, *rule)),
    "revdeq-1.2": (rv.RevDEQ(1.2), lambda f, z, *rule: oracle.revdeq(f, z, 1.2, *rule)),
    "picard": (rv.Picard(), lambda f, z, *rule: oracle.picard(f, z, 1.0, *rule)),
    "picard-0.7": (rv.Picard(0.7), lambda f, z, *rule: oracle.picard(f, z, 0.7, *rule)),
    "anderson": (
        rv.Anderson(3, ridge=1e-15),
        lambda f, z, *rule: oracle.anderson(f, z, 3, 1.0, *rule),
    ),
    "anderson-0.6": (
        rv.Anderson(2, 0.6, 1e-15),
        lambda f, z, *rule: oracle.anderson(f, z, 2, 0.6, *rule),
    ),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("tol", [1e-3, 1e-6, None])
def test_iterates_and_their_number_are_those_of_the_literal_loop(
    name: str, tol: float | None
) -> None:
    method, literal = METHODS[name]
    z0, p, x = case()
    truth, n = literal(lambda z: cell(z, p, x), z0, tol, 1e-8, 60 if tol else 7)
    found = rv.fixed_point(cell, z0, p, x, method=method, tol=tol, max_steps=60 if tol else 7)
    assert found.steps == n
    # a step amplifies rounding by at most 1 + L < 2; Anderson's normal equations square a condition
    # of some 1e3, and the ridge moves the weights by as much again
    allowed = 1e-9 if "anderson" in name else 100 * EPS
    assert apart(found.z, truth) < allowed
    evaluations = (2 if "revdeq" in name else 1) * n + (tol is not None)
    assert found.stats.nfe == evaluations
    if tol is None:
        assert (
            np.isnan(found.residual)
            and found.stats.converged is None
            and found.stats.residuals == []
        )
    else:
        f = cell(found.z, p, x)
        assert found.residual == pytest.approx(
            np.linalg.norm(found.z - f) / np.linalg.norm(f), rel=1e-6
        )
        assert found.stats.converged and len(found.stats.residuals) == n


def test_both_tolerances_at_zero_mean_exactly_max_steps() -> None:
    """Also where z is a fixed point to the last bit, at which 0 <= 0 would stop."""
    constant = lambda z, p, x: 0 * z + 1.0
    found = rv.fixed_point(constant, np.ones(2), method=rv.Picard(), tol=0, atol=0, max_steps=9)
    assert (found.steps, found.stats.nfe) == (9, 9)
    assert rv.fixed_point(constant, np.ones(2), method=rv.Picard()).steps == 1


def test_a_fixed_point_at_zero_is_reached_by_atol() -> None:
    """|z - f| = |f| = |z| / 2 all the way, so that no tol below 1 is ever met."""
    f = lambda z: 0.5 * z
    z, n = oracle.revdeq(f, np.ones(3), 0.5, 1e-3, 1e-2, 100)
    found = rv.fixed_point(lambda z, p, x: f(z), np.ones(3), tol=1e-3, atol=1e-2)
    assert found.steps == n < 100 and np.array_equal(found.z, z)


def test_the_way_back_is_the_papers_formula() -> None:
    z0, p, x = case()
    f = lambda z: cell(z, p, x)
    sol = rv.solve(
        lambda t, z, p: cell(z, p, x), z0, np.arange(5.0), p, method=rv.RevDEQ(), backend="eager"
    )
    y, z = oracle.revdeq_back(f, sol.state.parts["y"], sol.state.parts["z"], 0.5, 4)
    # (1 + beta L) / (1 - beta) = 2.5 in each of 8 half steps: 2.5^8 = 1526 roundings at most
    assert max(abs(y - z0).max(), abs(z - z0).max()) < 1526 * EPS * 4


@pytest.mark.parametrize(
    ("beta", "L"),
    [(beta, L) for beta in (0.25, 0.5, 0.8, 1.2) for L in (0.2, 0.6, 0.9) if beta < 2 / (1 + L)],
)
def test_convergence_theorem(beta: float, L: float) -> None:
    """|z_n - z*| <= alpha^n |z_0 - z*|, alpha = |1 - beta| + beta L, where beta < 2 / (1 + L), for
    the worst of five maps.
    """
    alpha = abs(1 - beta) + beta * L
    for seed in range(5):
        z0, p, x = case(L, seed)
        star = oracle.newton(lambda z: cell(z, p, x), 0 * z0)
        off = lambda z: np.linalg.norm(z - star)
        for n in (1, 3, 10):
            z = rv.fixed_point(cell, z0, p, x, method=rv.RevDEQ(beta), tol=None, max_steps=n).z
            assert off(z) <= alpha**n * off(z0) * (1 + 1e-9) + 1e-13


def test_contraction_is_measured() -> None:
    """On a linear map the rate of Picard is the largest eigenvalue."""
    A = np.diag([0.8, 0.3])
    found = rv.fixed_point(lambda z, p, x: z @ A + 1.0, np.zeros(2), method=rv.Picard(), tol=1e-10)
    assert found.stats.contraction == pytest.approx(0.8, rel=1e-3)


# gradients ----------------------------------------------------------------------------------------
def unrolled(args: tuple, beta: float, n: int) -> tuple:
    """The gradient of the iterations by complex step through the literal loop."""

    def of(args: Any) -> Any:
        z0, p, x = args
        z, _ = oracle.revdeq(lambda z: cell(z, p, x), z0, beta, None, 0.0, n)
        return np.sum(z**3 + z)

    return complex_step_gradient(of, args)


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.2])
@pytest.mark.parametrize("N", [1, 4, 8])
def test_reversible_is_direct_is_unrolled(beta: float, N: int) -> None:
    """To 1e-12 of the largest entry of the gradient: on a map with L = 0.3 cotangents fall faster
    than the way back grows, ((1 + beta L) / |1 - beta|)^2 an iteration, but for beta = 1.2: (1.36 /
    .2)^16 eps = 5 at worst, and seen 2e-14.
    """
    args = case(0.3)
    truth = unrolled(args, beta, N)
    for mode in (rv.Direct(), rv.Reversible(), rv.Checkpointed(2), rv.Reversible(resync=3), None):
        found, _ = gradient(args, method=rv.RevDEQ(beta), tol=None, max_steps=N, gradient=mode)
        assert apart(found, truth) < 1e-12, mode


@pytest.mark.parametrize("mode", [rv.Reversible(), rv.Direct(), rv.Checkpointed(3), rv.Automatic()])
def test_gradients_with_the_stop_rule(mode: Any) -> None:
    """The number of iterations is a constant of the gradient, as in the literal loop."""
    args = case()
    found, result = gradient(args, tol=1e-2, gradient=mode)
    assert result.steps > 3
    assert apart(found, unrolled(args, 0.5, result.steps)) < 1e-12


def test_reversible_counts_its_evaluations() -> None:
    for tol, N in ((1e-3, None), (None, 5)):
        _, found = gradient(case(), tol=tol, max_steps=N or 100, gradient=rv.Reversible())
        N = N or found.steps
        forward = 2 * N + (tol is not None)
        stats = found.stats
        assert (stats.nfe_forward, stats.nfe, stats.nvjp, stats.peak_states) == (
            forward,
            forward + 2 * N,
            2 * N,
            2,
        )


def test_the_residual_of_a_tape_is_not_part_of_the_gradient() -> None:
    _, found = gradient(case(), tol=1e-3, gradient=rv.Direct())
    assert (found.stats.nfe, found.stats.peak_states) == (2 * found.steps + 1, found.steps + 1)


def dense(args: tuple) -> tuple[Any, Any]:
    """(z*, the gradient of the fixed point): Newton and dense Jacobians."""
    z0, p, x = args
    star = oracle.newton(lambda z: cell(z, p, x), 0 * z0)
    a = 3 * star**2 + 1
    flat = np.concatenate([p["W"].ravel(), p["b"], x.ravel()])
    cut = (D * D, D * D + D)

    def of(z: Any, v: Any) -> Any:
        return np.tanh(
            z @ v[: cut[0]].reshape(D, D) + v[cut[0] : cut[1]] + v[cut[1] :].reshape(B, D)
        )

    g = oracle.implicit_gradient(of, star, flat, a)
    return star, (
        0 * z0,
        {"W": g[: cut[0]].reshape(D, D), "b": g[cut[0] : cut[1]]},
        g[cut[1] :].reshape(B, D),
    )


@pytest.mark.parametrize("method", [rv.RevDEQ(), rv.Picard(), rv.Anderson()])
@pytest.mark.parametrize("solver", ["picard", "anderson", "gmres"])
def test_implicit_is_the_dense_solve(method: Any, solver: str) -> None:
    """Within 1e-9 where the forward residual is 1e-12 (the error is of its order) and that of the
    adjoint is 1e-12.
    """
    args = case()
    _, truth = dense(args)
    found, result = gradient(
        args, method=method, tol=1e-12, atol=0.0, gradient=Implicit(solver, tol=1e-12)
    )
    assert apart(found, truth) < 1e-9
    assert not found[0].any()
    assert result.stats.adjoint_residual < 1e-12
    stats = result.stats
    # at z: one evaluation for the products, one for the parameters; these are pulled back once, at
    # the end
    assert stats.nfe == stats.nfe_forward + 2
    assert stats.nvjp < (60 if solver == "picard" else 30)


def test_each_solver_of_the_adjoint_equation_is_its_own() -> None:
    """With L = 0.95 Picard needs some log(1e-10) / log(rate) products; the others need fewer."""
    args, products = case(0.95), {}
    for solver in ("picard", "anderson", "gmres"):
        _, found = gradient(args, method=rv.Anderson(), tol=1e-10, gradient=Implicit(solver))
        products[solver] = found.stats.nvjp
    assert products["anderson"] < 0.7 * products["picard"] > products["gmres"], products


def test_torchdeq_has_the_same_implicit_gradient() -> None:
    """Both solve to 1e-12; errors are amplified by 1 / (1 - L) = 2 at most, in z and in g."""
    pytest.importorskip("torchdeq")
    from reference.adapters import torch_deq

    z0, p, x = case()
    a = np.ones_like(x)
    z, truth = torch_deq.gradient(p["W"], p["b"], x, a)

    def of(p: Any, x: Any) -> Any:
        options = dict(method=rv.Anderson(), tol=1e-12, atol=0.0)
        return np.sum(rv.fixed_point(cell, 0 * z0, p, x, gradient=Implicit(tol=1e-12), **options).z)

    found = rv.grad(of, (0, 1))(p, x)
    assert apart((found[0]["W"], found[0]["b"], found[1]), tuple(truth)) < 1e-10
    assert apart(rv.fixed_point(cell, 0 * z0, p, x, tol=1e-12, atol=0.0).z, z) < 1e-10


def test_the_default_of_picard_and_anderson_is_implicit() -> None:
    for method in (rv.Picard(), rv.Anderson()):
        found, result = gradient(case(), method=method, tol=1e-10)
        same, _ = gradient(case(), method=method, tol=1e-10, gradient=Implicit())
        assert result.stats.adjoint_residual is not None and apart(found, same) == 0


@pytest.mark.parametrize("mode", [rv.Direct(), rv.Checkpointed(2)])
def test_picard_has_the_gradient_of_its_iterations(mode: Any) -> None:
    args = case()

    def of(args: Any) -> Any:
        z0, p, x = args
        z, _ = oracle.picard(lambda z: cell(z, p, x), z0, 0.7, None, 0.0, 5)
        return np.sum(z**3 + z)

    found, _ = gradient(args, method=rv.Picard(0.7), tol=None, max_steps=5, gradient=mode)
    assert apart(found, complex_step_gradient(of, args)) < 1e-14 * 100


@pytest.mark.parametrize("method", [rv.RevDEQ(), rv.Anderson()])
def test_phantom_is_the_gradient_of_its_damped_steps_alone(method: Any) -> None:
    args = case()
    _, p, x = args
    z = rv.fixed_point(cell, *args, method=method, tol=1e-10).z

    def of(args: Any) -> Any:
        p, x = args
        w, _ = oracle.picard(lambda w: cell(w, p, x), z, 0.5, None, 0.0, 4)
        return np.sum(w**3 + w)

    found, result = gradient(args, method=method, tol=1e-10, gradient=rv.Phantom(4, 0.5))
    assert not found[0].any()
    assert apart(found[1:], complex_step_gradient(of, (p, x))) < 1e-13
    plain = rv.fixed_point(cell, *args, method=method, tol=1e-10, gradient=rv.Phantom(4, 0.5))
    assert np.array_equal(plain.z, result.z) and not np.array_equal(z, plain.z)
    assert (result.stats.nfe - result.stats.nfe_forward, result.stats.nvjp) == (4, 4)


def test_second_derivatives_go_through_direct_and_are_refused_elsewhere() -> None:
    z0, p, x = case()

    def of(b: Any, mode: Any) -> Any:
        z = rv.fixed_point(
            cell, z0, {**p, "b": b}, x, tol=None, max_steps=3, gradient=mode, backend="eager"
        ).z
        return np.sum(z**3)

    bend = lambda mode: rv.grad(lambda b: np.sum(rv.grad(lambda b: of(b, mode))(b) * x[0]))(p["b"])
    truth = bend(rv.Direct())
    h = 1e-5
    slope = lambda b: rv.grad(lambda b: of(b, rv.Reversible()))(b)
    along = (slope(p["b"] + h * x[0]) - slope(p["b"] - h * x[0])) / (2 * h)
    assert abs(truth - along).max() < 1e-8  # h^2 and EPS / h are both 1e-10
    assert np.array_equal(bend(None), truth)  # Automatic takes Direct
    for mode in (rv.Reversible(), rv.Checkpointed(2), Implicit(), rv.Phantom()):
        with pytest.raises(
            TypeError, match=r"fixed_point: a derivative of a derivative .* use gradient=Direct\(\)"
        ):
            bend(mode)


def test_trees_of_state_and_leaves_that_are_no_floats() -> None:
    def f(z: Any, p: Any, x: Any) -> Any:
        assert x["name"] == "even" and x["n"] == 2
        return {"a": np.tanh(p * z["b"] + x["u"]), "b": 0.5 * np.sin(z["a"])}

    z0 = {"a": np.zeros(3), "b": np.zeros(3)}
    x = {"u": np.ones(3), "name": "even", "n": 2}

    def of(p: Any, u: Any, mode: Any) -> Any:
        z = rv.fixed_point(
            f, z0, p, {**x, "u": u}, tol=None, max_steps=6, gradient=mode, backend="eager"
        ).z
        return np.sum(z["a"] * z["b"])

    a = rv.grad(lambda p, u: of(p, u, rv.Reversible()), (0, 1))(0.7, x["u"])
    b = rv.grad(lambda p, u: of(p, u, rv.Direct()), (0, 1))(0.7, x["u"])
    assert apart(a, b) < 1e-13
    found = rv.fixed_point(f, z0, 0.7, x)
    assert set(found.z) == {"a", "b"}


# steps by hand, backends, precision ---------------------------------------------------------------
def test_a_word_of_your_own_is_an_iteration() -> None:
    """RevDEQ with another relaxation in each half, as three lines of a user."""

    def word(t0: Any, t1: Any, dx: Any) -> tuple:
        return (
            rv.Shear("y", ("z",), lambda F, z: 0.5 * F.field(t0, z), scale=0.5),
            rv.Shear("z", ("y",), lambda F, y: 0.75 * F.field(t1, y), scale=0.25),
        )

    method = rv.shears(word, outputs=("z",))
    args = case()

    def of(args: Any) -> Any:
        z0, p, x = args
        y = z = z0
        for _ in range(4):
            y = 0.5 * y + 0.5 * cell(z, p, x)
            z = 0.25 * z + 0.75 * cell(y, p, x)
        return np.sum(z**3 + z)

    found, _ = gradient(args, method=method, tol=None, max_steps=4, gradient=rv.Reversible())
    assert apart(found, complex_step_gradient(of, args)) < 1e-12


def test_an_iteration_is_a_solve() -> None:
    """steps, steps_back and solve know RevDEQ as any word: time is the count of its iterations."""
    z0, p, x = case()
    field = lambda t, z, p: cell(z, p, x)
    ts = np.arange(5.0)
    *_, (t, state) = rv.steps(field, z0, ts, p, method=rv.RevDEQ())
    found = rv.fixed_point(cell, z0, p, x, tol=None, max_steps=4)
    assert t == 4.0 and np.array_equal(state.parts["z"], found.z)
    *_, last = rv.steps_back(field, state, ts, p, ay1=3 * found.z**2 + 1, method=rv.RevDEQ(), y0=z0)
    truth, _ = gradient((z0, p, x), tol=None, max_steps=4, gradient=rv.Direct())
    assert apart((last.ay0, last.aparams), truth[:2]) < 1e-13


@pytest.mark.parametrize("beta", [0.5, 0.8, 1.2])
def test_exact_mode_knows_the_word(beta: float) -> None:
    """60 iterations back to the last bit; 2 log2(1 / |1 - beta|) bits are stored for each element
    and iteration, and no way back without them."""
    z0, p, x = case(0.9)

    def of(p: Any, **options: Any) -> tuple:
        sol = rv.solve(
            lambda t, z, p: cell(z, p, x),
            z0,
            np.arange(61.0),
            p,
            method=rv.RevDEQ(beta),
            save=[-1],
            **options,
        )
        return np.sum(sol.y1**3), sol.stats

    (_, stats), found = rv.value_and_grad(of, has_aux=True)(p, exact=True)
    assert stats.exact and stats.roundtrip.absolute == 0.0
    needed = 2 * math.log2(1 / abs(1 - beta)) * 60 * z0.size
    assert (
        needed <= stats.bits_stored + 64 * z0.size
        and stats.bits_stored < 1.01 * needed + 64 * z0.size
    )
    truth = rv.grad(lambda p: of(p, gradient=rv.Direct())[0])(p)
    assert (
        apart(found, truth) < 1e-9
    )  # the lattice of 2^-40 and finer moves the iterates by as much


@pytest.mark.parametrize("backend", ["replay", "native"])
def test_programs_have_the_numbers_of_the_tape(backend: str) -> None:
    """To a few roundings, each of which the way back multiplies by 6.25 an iteration at most."""
    args = case()
    if backend == "native":
        if shutil.which("g++") is None and shutil.which("clang++") is None:
            pytest.skip("no C++ compiler")
    found, result = gradient(args, tol=None, max_steps=4, gradient=rv.Reversible(), backend=backend)
    truth, _ = gradient(args, tol=None, max_steps=4, gradient=rv.Reversible())
    assert result.stats.backend == backend
    assert apart(found, truth) < 6.25**4 * 10 * EPS


def test_a_program_of_many_solves_is_no_impure_map() -> None:
    """From some solves of one kind on "auto" replays, and f is first called where Phantom goes
    on.
    """
    z0, p, x = case()
    for _ in range(4):
        found = rv.fixed_point(cell, z0, p, x, tol=None, max_steps=60, gradient=rv.Phantom(2))
    assert found.stats.backend == "replay"
    assert np.array_equal(
        found.z,
        rv.fixed_point(
            cell, z0, p, x, tol=None, max_steps=60, gradient=rv.Phantom(2), backend="eager"
        ).z,
    )


def test_a_float32_map_on_a_float64_state_is_rebuilt_to_the_last_bit() -> None:
    """With dyadic beta (1/2 to n = 16, 3/4 to n = 8): the products are exact, and no digit of z is
    pushed out.
    """
    z0, p, x = case(0.9)
    p, x = rv.tree.map(lambda a: a.astype(np.float32), (p, x))
    for beta, N in ((0.5, 16), (0.75, 8)):
        options = dict(method=rv.RevDEQ(beta), tol=None, max_steps=N, compute=np.float32)
        found, result = gradient((0 * z0, p, x), gradient=rv.Reversible(), **options)
        truth, _ = gradient((0 * z0, p, x), gradient=rv.Direct(), **options)
        assert result.z.dtype == np.float64 and found[1]["W"].dtype == np.float32
        assert result.stats.roundtrip.absolute == 0.0
        # the same bits of every cotangent; sums over iterations are taken in another order: N
        # roundings of float32
        assert apart(found, truth) < 4 * N * 2.0**-24


def test_float32_stays_float32() -> None:
    args = case(dtype=np.float32)
    found, result = gradient(args, tol=1e-3)
    assert result.z.dtype == np.float32 and {a.dtype for a in leaves(found)} == {
        np.dtype(np.float32)
    }


def test_f_is_looked_at_once_before_the_first_iteration() -> None:
    calls = []

    def f(z: Any, p: Any, x: Any) -> Any:
        calls.append(z)
        return 0.5 * z + 1.0

    found = rv.fixed_point(f, np.zeros(2), tol=None, max_steps=3, backend="eager")
    assert (len(calls), found.stats.nfe, found.stats.checks) == (7, 6, 1)


def test_memory_of_the_state_does_not_grow() -> None:
    for N in (4, 12):
        _, found = gradient(case(), tol=None, max_steps=N, gradient=rv.Reversible())
        assert found.stats.peak_states == 2


# what goes wrong ----------------------------------------------------------------------------------
def still(z: Any, p: Any, x: Any) -> Any:
    return 0.5 * z


RNG = np.random.default_rng(0)


def drawn(z: Any, p: Any, x: Any) -> Any:
    return z * RNG.standard_normal(z.shape)


Z = np.ones((2, 3))
BAD: dict[str, tuple] = {
    "shape": (
        lambda: rv.fixed_point(lambda z, p, x: z[0], Z),
        ValueError,
        r"f returned shape \(3,\) for z of shape \(2, 3\).*batch axis",
    ),
    "dtype": (
        lambda: rv.fixed_point(lambda z, p, x: z.astype(np.float32), Z),
        TypeError,
        r"f returned float32 for z of float64.*compute=",
    ),
    "nothing": (
        lambda: rv.fixed_point(lambda z, p, x: None, Z),
        TypeError,
        r"f returned NoneType.*is a return missing\?",
    ),
    "tree": (
        lambda: rv.fixed_point(lambda z, p, x: {"a": z["a"]}, {"a": Z, "b": Z}),
        ValueError,
        "a tree like z0",
    ),
    "not pure": (
        lambda: rv.fixed_point(drawn, Z),
        ValueError,
        "two different values for the same z.*dropout mask.*pass them in x",
    ),
    "nan": (
        lambda: rv.fixed_point(lambda z, p, x: z * np.nan, Z),
        ValueError,
        "first value, at z0, has entries that are not finite",
    ),
    "arguments": (
        lambda: rv.fixed_point(lambda z, p: z, Z),
        TypeError,
        r"takes the arguments \(z, p\).*f\(z, params, x\)",
    ),
    "z0": (
        lambda: rv.fixed_point(still, np.ones(2, int)),
        TypeError,
        "fixed_point: z0 is an array of int64",
    ),
    "z0 nan": (
        lambda: rv.fixed_point(still, np.array([np.nan])),
        ValueError,
        "fixed_point: z0 has entries that are not finite",
    ),
    "x nan": (
        lambda: rv.fixed_point(still, Z, None, np.array([np.inf])),
        ValueError,
        "fixed_point: x has entries",
    ),
    "params": (
        lambda: rv.fixed_point(still, Z, {"a": 1j * Z}),
        TypeError,
        r"fixed_point: params\['a'\] is an array of complex128",
    ),
    "beta 0": (lambda: rv.RevDEQ(0), ValueError, r"RevDEQ: beta=0; .*\(0, 2\) other than 1"),
    "beta 1": (lambda: rv.RevDEQ(1), ValueError, "beta=1; "),
    "beta 2": (lambda: rv.RevDEQ(2.0), ValueError, "beta=2.0; "),
    "beta nan": (lambda: rv.RevDEQ(float("nan")), ValueError, "beta=nan; "),
    "beta text": (lambda: rv.RevDEQ("a"), TypeError, "beta='a'; "),
    "damping": (lambda: rv.Picard(0.0), ValueError, "Picard: damping=0.0"),
    "m": (lambda: rv.Anderson(0), ValueError, "Anderson: m=0"),
    "method": (
        lambda: rv.fixed_point(still, Z, method="anderson"),
        TypeError,
        "pass RevDEQ.*parentheses",
    ),
    "coupled": (
        lambda: rv.fixed_point(still, Z, method=rv.Coupled()),
        TypeError,
        "pass RevDEQ.*rv.shears",
    ),
    "ode method": (
        lambda: rv.fixed_point(still, Z, method=rv.RungeKutta("rk4")),
        TypeError,
        "pass RevDEQ",
    ),
    "gradient": (
        lambda: rv.fixed_point(still, Z, gradient=rv.Backsolve()),
        TypeError,
        r"pass one of Automatic\(\).*Phantom\(\)",
    ),
    "anderson reversible": (
        lambda: rv.fixed_point(still, Z, method=rv.Anderson(), gradient=rv.Reversible()),
        TypeError,
        r"mixes earlier iterates.*no Reversible gradient; use Implicit\(\) or Phantom\(\)",
    ),
    "anderson direct": (
        lambda: rv.fixed_point(still, Z, method=rv.Anderson(), gradient=rv.Direct()),
        TypeError,
        "no Direct gradient",
    ),
    "picard reversible": (
        lambda: rv.fixed_point(still, Z, method=rv.Picard(), gradient=rv.Reversible()),
        TypeError,
        "cannot be run backwards",
    ),
    "tol": (
        lambda: rv.fixed_point(still, Z, tol=-1.0),
        ValueError,
        "tol=-1.0.*None for exactly max_steps",
    ),
    "max_steps": (
        lambda: rv.fixed_point(still, Z, max_steps=0),
        ValueError,
        "max_steps=0; the number of iterations",
    ),
    "compute": (
        lambda: rv.fixed_point(still, Z, compute=np.int32),
        TypeError,
        "np.float32, np.float64",
    ),
    "solver": (lambda: Implicit("broyden"), ValueError, "one of 'picard', 'anderson', 'gmres'"),
    "implicit tol": (lambda: Implicit(tol=0.0), ValueError, "Implicit: tol=0.0"),
    "phantom": (lambda: rv.Phantom(0), ValueError, "Phantom: steps=0"),
    "solve": (
        lambda: rv.solve(lambda t, y, p: -y, Z, [0.0, 0.1, 0.2], gradient=Implicit()),
        TypeError,
        "pass one of Automatic",
    ),
    "closure": (
        lambda: rv.grad(
            lambda w: np.sum(rv.fixed_point(lambda z, p, x: np.tanh(w * z), Z, backend="eager").z)
        )(0.5),
        TypeError,
        "a tensor that it was not given.*through params or x",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name: str) -> None:
    call, kind, words = BAD[name]
    with pytest.raises(kind, match=words) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and "step " not in text and "y0" not in text


@pytest.mark.parametrize("method", [rv.RevDEQ(), rv.Picard(), rv.Anderson(1)])
@pytest.mark.parametrize("tol", [1e-3, None])
def test_overflow_is_no_convergence(method: Any, tol: float | None) -> None:
    """inf <= tol * inf holds; the iteration and what to do are named."""
    with pytest.raises(
        FloatingPointError,
        match=r"fixed_point: z is no longer finite at iteration \d+ of 3000, .*diverges; .*beta",
    ):
        rv.fixed_point(
            lambda z, p, x: 3.0 * z * abs(z),
            np.full(2, 2.0),
            method=method,
            tol=tol,
            max_steps=3000,
        )


def test_a_missed_tolerance_is_said_once_and_kept() -> None:
    z0, p, x = case(0.9)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for shift in (0.0, 0.1, 0.2):
            result = rv.fixed_point(cell, z0 + shift, p, x, tol=1e-10, max_steps=5)
    assert [w.category for w in found] == [rv.ConvergenceWarning]
    assert found[0].filename == __file__
    text, details = str(found[0].message), found[0].message.details
    assert (
        "z is not a fixed point, though its gradient is that of the iterations" in text
        and "step" not in text.replace("max_steps", "")
    )
    assert (
        details["max_steps"] == 5 and details["residual"] > 1e-4 and 0 < details["contraction"] < 1
    )
    assert result.stats.converged is False and result.residual > 1e-10
    with pytest.warns(rv.ConvergenceWarning, match="the gradient belongs to a point near z"):
        rv.fixed_point(cell, z0, p, x, method=rv.Anderson(), tol=1e-10, max_steps=3)


def test_an_adjoint_equation_that_is_not_solved_is_said() -> None:
    """df/dz = 1.4 at z* = 0 of z -> 1.4 sin(z): Newton would find it, and the forward pass starts
    there.
    """
    p = np.array(1.4)
    f = lambda z, p, x: p * np.sin(z) + x
    of = lambda x, solver: np.sum(
        rv.fixed_point(
            f,
            np.zeros(2),
            p,
            x,
            method=rv.Picard(),
            tol=None,
            max_steps=1,
            atol=0.0,
            gradient=Implicit(solver),
        ).z
    )
    x = np.zeros(2)
    with pytest.warns(
        rv.ConvergenceWarning,
        match=r"adjoint equation .* by 'picard'.*solver='anderson', solver='gmres'.*RevDEQ",
    ):
        rv.grad(of)(x, "picard")
    assert rv.grad(of)(x, "gmres") == pytest.approx(
        np.full(2, 1 / (1 - 1.4))
    )  # g = 1 / (1 - f'), which needs no contraction


def lost_case(L: float) -> tuple:
    z0, p, x = case(L, dtype=np.float32)
    return z0, p, x


def test_the_way_back_that_is_lost_is_told_apart() -> None:
    """float32: dL/dz0 is lost, dL/dparams only where cotangents live long enough (beta = 1.2 and L
    near 1).
    """
    heard = {}
    for beta, L in ((0.8, 0.3), (1.2, 0.98)):
        args = lost_case(L)
        options = dict(method=rv.RevDEQ(beta), tol=None, max_steps=14)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            got, _ = gradient(args, gradient=rv.Reversible(), **options)
        truth, _ = gradient(args, gradient=rv.Direct(), **options)
        assert [w.category for w in found] == [rv.ReconstructionWarning]
        text = str(found[0].message)
        assert (
            "iteration" in text and "step" not in text and "y0" not in text and "solve" not in text
        )
        heard[L] = (
            text,
            apart(got[0], truth[0]),
            max(apart(got[1], truth[1]), apart(got[2], truth[2])),
        )
    text, of_z0, of_params = heard[0.3]
    assert (
        "so dL/dz0 is wrong; dL/dparams and dL/dx are not" in text
        and of_z0 > 1e-2
        and of_params < 1e-3
    )
    text, _, of_params = heard[0.98]
    assert "dL/dparams and dL/dx, and dL/dz0, are wrong" in text and of_params > 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", [0.5, 0.9, 1.2, 1.5])
def test_no_wrong_gradient_is_silent(beta: float, dtype: Any) -> None:
    """The alarm against the truth, for dL/dparams and dL/dz0 apart: nothing off by more than the
    1e-3 that it is set to goes unsaid. (What is fine and was said: 58 of 1000 of these judgements,
    for maps of all kinds.)
    """
    for L in (0.6, 0.98):
        for N in (4, 8, 16, 24):
            args = case(L, 1, dtype)
            options = dict(method=rv.RevDEQ(beta), tol=None, max_steps=N)
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                got, _ = gradient(args, gradient=rv.Reversible(), **options)
            text = " ".join(str(w.message) for w in found)
            truth, _ = gradient(args, gradient=rv.Direct(), **options)
            off = [
                np.linalg.norm(a - b) / np.linalg.norm(b)
                for a, b in zip(leaves(got), leaves(truth), strict=True)
            ]
            assert off[0] < 1e-3 or "dL/dz0" in text, (L, N, off)
            assert max(off[1:]) < 1e-3 or "dL/dparams and dL/dx" in text.replace(
                "dL/dx are not", ""
            ), (L, N, off)


def test_automatic_falls_back_where_the_way_back_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    args = lost_case(0.98)
    options = dict(method=rv.RevDEQ(1.2), tol=None, max_steps=14)
    with caplog.at_level(logging.INFO, "revode"):
        got, found = gradient(args, **options)
    truth, _ = gradient(args, gradient=rv.Direct(), **options)
    assert found.stats.fallback and "Checkpointed" in found.stats.fallback
    assert apart(got, truth) < 14 * 10 * 2.0**-23


def test_strict_raises() -> None:
    with pytest.raises(
        rv.ReconstructionError, match="did not find its way back through the iterations"
    ):
        gradient(
            lost_case(0.98),
            method=rv.RevDEQ(1.2),
            tol=None,
            max_steps=14,
            gradient=rv.Reversible(strict=True),
        )


def test_a_gradient_that_is_not_finite_is_said_in_words_of_z() -> None:
    f = lambda z, p, x: 0.5 * np.sqrt(abs(z)) * p
    with pytest.warns(rv.NonFiniteWarning, match=r"fixed_point: the gradient with respect to .*"):
        rv.grad(
            lambda p: np.sum(
                rv.fixed_point(f, np.zeros(2), p, tol=None, max_steps=2, gradient=rv.Direct()).z
            )
        )(1.0)

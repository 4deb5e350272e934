"""Gradients of a solve, with respect to y0 AND params: modes against each other, complex step, autograd and mpmath.

Tolerances are relative to the largest entry of the gradient, all leaves together (method_cases.distance).
    EXACT = 4000 eps: a solve of 8 steps with 12 evaluations of some 20 operations, forward and back, is 4000 roundings
    in a row, each of eps/2, with a growth of 2 at most (the field is 1-Lipschitz and the time is 1/2). Compositions of
    order 6 and 8 have 9 and 27 substeps where others have one: times 10, on the two steps that they make here.
    Reversible has the reconstruction besides: 8 steps expand by (1/lam)^8 = 2.3 (lam = .9), by (1/.6)^8 = 60 (eta =
    .8).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import revode as rv
from reference.oracles import gradients as G
from reference.oracles import loops as L
from reference.oracles import problems as P
from reference.oracles import tableaux as T
from tests.method_cases import (
    CASES,
    ETA,
    GRIDS,
    LAM,
    REVERSIBLE,
    SOME,
    Case,
    distance,
    field,
    make_params,
    make_y0,
    plain_field,
)

EXACT = 4000 * 2.0**-52
TABLEAUX = {name: T.numbers(tableau, float) for name, tableau in T.TABLEAUX.items()}
by_name: dict = {"ids": lambda case: case.name}


def steps_for(case: Case) -> np.ndarray:
    """A varying grid; two steps for the compositions of many substeps, which would be slow in the literal loops."""
    return GRIDS["varying"][:3] if case.name in ("verlet-6", "verlet-8") else GRIDS["varying"]


def allowed(case: Case, mode: Any = None, dtype: Any = np.float64) -> float:
    base = 4000 * float(np.finfo(dtype).eps) * (10 if case.order >= 6 else 1)
    return base * (60 if isinstance(mode, rv.Reversible) else 1)


def weighted(xp: Any, ys: Any) -> Any:
    """sum_n w_n (y_n^2 + y_n) with weights that differ, so every saved state counts, and differently."""
    return sum((1 + n % 3) * xp.sum(y * y + y) for n, y in enumerate(ys))


def saved_loss(case: Case, ts: np.ndarray, gradient: Any) -> Callable:
    def loss(tree: dict) -> Any:
        ys = rv.solve(plain_field, tree["y0"], ts, tree["params"], method=case.method, gradient=gradient).ys
        return weighted(np, ys) if not case.split else weighted(np, ys[0]) + 2 * weighted(np, ys[1])
    return loss


def literal_loss(case: Case, ts: np.ndarray, xp: Any) -> Callable:
    def loss(tree: dict) -> Any:
        states = case.literal(field(xp), tree["y0"], ts.tolist(), tree["params"])
        if not case.split:
            return weighted(xp, states)
        return weighted(xp, [q for q, v in states]) + 2 * weighted(xp, [v for q, v in states])
    return loss


def start(case: Case, dtype: Any = np.float64, shape: tuple = (2,)) -> dict:
    return {"y0": make_y0(case, shape, dtype=dtype), "params": make_params(d=shape[-1], width=3, dtype=dtype)}


# ------------------------------------------------------------------------------------------ against the literal loops

@pytest.mark.parametrize("case", CASES.values(), **by_name)
def test_direct_is_the_complex_step_and_autograd_of_the_literal_loop(case: Case) -> None:
    ts, at = steps_for(case), start(case)
    ours = rv.grad(saved_loss(case, ts, rv.Direct()))(at)
    complex_step = G.complex_step_gradient(literal_loss(case, ts, np), at)
    theirs = G.autograd_gradient(literal_loss(case, ts, anp), at)
    for leaf in ("y0", "params"):       # each by itself, so that a large one does not hide a small one
        assert distance(ours[leaf], complex_step[leaf]) <= allowed(case), leaf
        assert distance(ours[leaf], theirs[leaf]) <= allowed(case), leaf


@pytest.mark.parametrize("name", ["coupled-midpoint", "reversible-heun"])
def test_direct_is_the_mpmath_gradient(name: str) -> None:
    """45 digits; differences with d = 1e-14 are good to d^2 = 1e-28 and 1e-45/d = 1e-31, so all of the error is ours.
    Times and lam enter as the doubles that they are, so their products are rounded: within EXACT."""
    case, ts = CASES[name], GRIDS["varying"][:4]
    at = start(case)
    exact = G.mpmath_gradient(literal_loss(case, ts, P.mp_numpy()), at, dps=45, step="1e-14")
    as_floats = G.tree_map(lambda g: g.astype(float), exact)
    for mode in (rv.Direct(), rv.Reversible()):
        assert distance(rv.grad(saved_loss(case, ts, mode))(at), as_floats) <= EXACT


# ------------------------------------------------------------------------------------------- modes against each other

@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", REVERSIBLE.values(), **by_name)
def test_reversible_is_direct(case: Case, dtype: type) -> None:
    for name, shape in (("varying", (2, 3)), ("backwards", (3,))):
        ts, at = GRIDS[name], start(case, dtype, shape)
        desired = rv.grad(saved_loss(case, ts, rv.Direct()))(at)
        for mode in (rv.Reversible(), rv.Reversible(resync=3), rv.Checkpointed(3)):
            actual = rv.grad(saved_loss(case, ts, mode))(at)
            assert {g.dtype for g in G.tree_leaves(actual)} == {np.dtype(dtype)}
            error = distance(actual, desired)
            # Checkpointed repeats the same arithmetic; only the order in which cotangents are summed differs.
            assert error <= min(allowed(case, mode, dtype), 0.05), f"{mode} {name}: {error:.2e}"


@pytest.mark.parametrize("case", [c for c in CASES.values() if not c.reversible], **by_name)
def test_checkpointed_is_direct_for_plain_runge_kutta(case: Case) -> None:
    ts, at = GRIDS["backwards"], start(case, shape=(2, 3))
    desired = rv.grad(saved_loss(case, ts, None))(at)       # the default of an irreversible method is Direct
    assert distance(rv.grad(saved_loss(case, ts, rv.Direct()))(at), desired) == 0
    assert distance(rv.grad(saved_loss(case, ts, rv.Checkpointed(3)))(at), desired) <= EXACT


def test_halves_of_a_split_state_have_their_own_gradients() -> None:
    """L = sum v_N on q' = v, v' = -w q (a literal Verlet in two lines): dL/dq0 and dL/dv0 differ, and w counts."""
    ts = np.linspace(0.0, 1.0, 11)
    q0, v0, w = np.array([0.4, -1.0]), np.array([0.2, 0.7]), np.array([2.0, 3.0])
    solve = lambda qv, w, mode: np.sum(rv.solve(lambda t, q, w: -w * q, qv, ts, w, method=rv.VelocityVerlet(),
                                                gradient=mode, save=[-1]).ys[1])
    literal = lambda tree: np.sum(L.velocity_verlet(lambda t, q, w: -w * q, *tree["qv"], ts.tolist(), tree["w"])[-1][1])
    desired = G.complex_step_gradient(literal, {"qv": (q0, v0), "w": w})
    for mode in (rv.Direct(), rv.Reversible(), rv.Checkpointed(2)):
        (aq, av), aw = rv.grad(solve, (0, 1))((q0, v0), w, mode)
        for mine, theirs in ((aq, desired["qv"][0]), (av, desired["qv"][1]), (aw, desired["w"])):
            assert distance(mine, theirs) <= EXACT
    assert abs(aq - av).min() > 0.1


# ------------------------------------------------------------------------------- every way in which a loss may use a
# solve

def only_last(sol: Any) -> Any:
    return np.sum(np.sin(sol))


LOSSES: dict[str, Callable] = {
    "last, save=[-1]": lambda s: np.sum(np.sin(s(save=[-1]).ys)),
    "y1": lambda s: np.sum(np.sin(s(save=[2]).y1)),
    "y1 with all saved": lambda s: np.sum(np.sin(s().y1)),
    "nothing saved": lambda s: np.sum(np.sin(s(save=[]).y1)),
    "slice": lambda s: np.sum(np.cos(s(save=slice(1, None, 3)).ys)),
    "indices": lambda s: np.sum(np.cos(s(save=[0, 2, 3, 8]).ys) * np.arange(4.0).reshape(4, 1)),
    "negative indices": lambda s: np.sum(np.cos(s(save=[-3, -1]).ys)),
    "first only": lambda s: np.sum(np.cos(s(save=[0]).ys)),
    "one entry of all": lambda s: s().ys[4, 1] ** 2,
    "parts of the state": lambda s: sum(k * np.sum(np.sin(x)) for k, x in enumerate(s(save=[-1]).state.parts.values(),
                                                                                    1)),
    "state and saved": lambda s: np.sum(s(save=[3]).ys) * np.sum(list(s(save=[3]).state.parts.values())[-1]),
    "a solve of a solve": lambda s: np.sum(np.sin(s(y0=s(save=[-1]).y1).ys)),
    "two solves": lambda s: np.sum(s(save=[-1]).ys * s(save=[-1], scale=0.5).ys),
}


@pytest.mark.parametrize("case", [case for case in SOME if not case.split], **by_name)
def test_a_loss_may_use_a_solve_in_any_way(case: Case) -> None:
    """Every loss, every mode, against Direct, which the tests above hold against the literal loops."""
    ts, at = GRIDS["varying"], start(case)

    def gradient(use: Callable, mode: Any) -> Any:
        def loss(tree: dict) -> Any:
            def solve(y0: Any = None, scale: float = 1.0, **kw: Any) -> Any:
                params = {**tree["params"], "b1": tree["params"]["b1"] * scale}
                return rv.solve(plain_field, tree["y0"] if y0 is None else y0, ts, params, method=case.method,
                                gradient=mode, **kw)
            return use(solve) + 0.1 * np.sum(tree["params"]["W1"] ** 2)      # and params in the loss itself
        return rv.grad(loss)(at)

    for name, use in LOSSES.items():
        desired = gradient(use, rv.Direct())
        assert abs(desired["y0"]).max() > 1e-3
        for mode in [rv.Checkpointed(2), *([rv.Reversible(), rv.Reversible(resync=4)] if case.reversible else [])]:
            error = distance(gradient(use, mode), desired)
            assert error <= 2 * allowed(case, mode), f"{name}, {mode}: {error:.2e}"      # up to two solves


def literal_parts(case: Case, xp: Any, ts: list) -> Callable:
    f = field(xp)
    return {
        "coupled-midpoint": lambda y0, p: L.coupled_states(f, y0, ts, p, TABLEAUX["midpoint"], LAM),
        "alf": lambda y0, p: L.alf_states(f, y0, ts, p), "alf-damped": lambda y0, p: L.alf_states(f, y0, ts, p, ETA),
        "reversible-heun": lambda y0, p: L.reversible_heun_states(f, y0, ts, p),
        "heun-4": lambda y0, p: L.yoshida4_reversible_heun_states(f, y0, ts, p),
        "verlet": lambda y0, p: L.velocity_verlet(f, *y0, ts, p),
    }[case.name]


@pytest.mark.parametrize("case", [case for case in SOME if case.name not in ("rk-bosh3", "leapfrog-midpoint")],
                         **by_name)
def test_gradient_through_the_final_state_is_that_of_the_literal_loop(case: Case) -> None:
    """The companion (z, v) of the last state carries a gradient of its own, and dL/dy0 goes through the initial map."""
    ts, at = GRIDS["varying"], start(case)

    def ours(mode: Any) -> Callable:
        def loss(tree: dict) -> Any:
            parts = rv.solve(plain_field, tree["y0"], ts, tree["params"], method=case.method, gradient=mode,
                             save=[-1]).state.parts
            first, second = (parts[name] for name in case.method.parts)
            return np.sum(np.sin(first)) + 3 * np.sum(second * second)
        return loss

    def literal(tree: dict) -> Any:
        first, second = literal_parts(case, anp, ts.tolist())(tree["y0"], tree["params"])[-1]
        return anp.sum(anp.sin(first)) + 3 * anp.sum(second * second)

    desired = G.autograd_gradient(literal, at)
    for mode in (rv.Direct(), rv.Reversible(), rv.Checkpointed(3)):
        actual = rv.grad(ours(mode))(at)
        for leaf in ("y0", "params"):
            assert distance(actual[leaf], desired[leaf]) <= allowed(case, mode), (mode, leaf)


@pytest.mark.parametrize("case", SOME, **by_name)
def test_a_continued_solve_is_one_solve(case: Case) -> None:
    """Stopping at ts[3] and going on from the state gives the same bits, and the gradient flows through the state."""
    ts, at = GRIDS["varying"], start(case)

    def in_two(mode: Any) -> Callable:
        def loss(tree: dict) -> Any:
            head = rv.solve(plain_field, tree["y0"], ts[:4], tree["params"], method=case.method, gradient=mode,
                            save=[-1])
            tail = rv.solve(plain_field, None, ts[3:], tree["params"], method=case.method, gradient=mode,
                            state0=head.state)
            return only_last(tail.y1[0] if case.split else tail.y1)
        return loss

    def in_one(tree: dict) -> Any:
        y1 = rv.solve(plain_field, tree["y0"], ts, tree["params"], method=case.method, gradient=rv.Direct()).y1
        return only_last(y1[0] if case.split else y1)

    value, desired = rv.value_and_grad(in_one)(at)
    for mode in [rv.Direct(), rv.Checkpointed(2),
                 *([rv.Reversible(), rv.Reversible(resync=2)] if case.reversible else [])]:
        again, actual = rv.value_and_grad(in_two(mode))(at)
        assert again == value
        for leaf in ("y0", "params"):
            assert distance(actual[leaf], desired[leaf]) <= 2 * allowed(case, mode), (mode, leaf)


def tree_field(t: Any, y: dict, p: dict) -> dict:
    """angle (2,), speed (1, 2), drift (1,)."""
    return {"angle": y["speed"][0] * p["gain"][0],
            "speed": (-p["gain"][1] * np.sin(y["angle"]) + y["drift"] * p["k"])[None],
            "drift": -y["drift"] * np.cos(t)}


MODES = [rv.Direct(), rv.Reversible(), rv.Checkpointed(2)]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_y0_as_a_tree(mode: Any) -> None:
    """A tree y0 equals the same system written with one vector, value and gradient, leaf by leaf, and it is
    continued."""
    y0 = {"angle": np.array([0.3, 1.0]), "speed": np.array([[0.2, -0.4]]), "drift": np.array([0.5])}
    p = {"gain": [np.array(1.5), np.array(2.0)], "k": np.array(0.7)}
    ts = np.linspace(0.0, 0.8, 9)

    def vector_field(t: Any, y: Any, p: dict) -> Any:
        f = tree_field(t, {"angle": y[:2], "speed": y[2:4][None], "drift": y[4:]}, p)
        return np.concatenate([f["angle"], f["speed"][0], f["drift"]])

    def tree_loss(y0: dict, p: dict) -> Any:
        sol = rv.solve(tree_field, y0, ts, p, gradient=mode, method=rv.Coupled())
        assert sol.ys["speed"].shape == (9, 1, 2) and sol.y1["drift"].shape == (1,)
        return np.sum(sol.ys["angle"] ** 2) + 2 * np.sum(sol.ys["speed"] ** 2) + 3 * np.sum(sol.y1["drift"] ** 2)

    def vector_loss(y0: Any, p: dict) -> Any:
        ys = rv.solve(vector_field, y0, ts, p, gradient=rv.Direct(), method=rv.Coupled()).ys
        return np.sum(ys[:, :2] ** 2) + 2 * np.sum(ys[:, 2:4] ** 2) + 3 * np.sum(ys[-1, 4:] ** 2)

    value, (ay, ap) = rv.value_and_grad(tree_loss, (0, 1))(y0, p)
    flat0 = np.concatenate([np.ravel(x) for x in y0.values()])
    desired, (by, bp) = rv.value_and_grad(vector_loss, (0, 1))(flat0, p)
    assert abs(value - desired) <= EXACT * desired
    assert {name: g.shape for name, g in ay.items()} == {name: x.shape for name, x in y0.items()}
    assert distance(list(ay.values()), [by]) <= EXACT and distance(ap, bp) <= EXACT


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_tree_is_continued_as_a_tree(mode: Any) -> None:
    y0 = {"a": np.array([0.3, 1.0]), "b": np.array([[0.2], [-0.4]])}
    f = lambda t, y, p: {"a": -p * y["b"][:, 0], "b": p * y["a"][:, None]}
    ts = np.linspace(0.0, 1.0, 11)

    def in_two(y0: dict, p: Any) -> Any:
        head = rv.solve(f, y0, ts[:5], p, gradient=mode, method=rv.Coupled())
        return np.sum(rv.solve(f, None, ts[4:], p, gradient=mode, state0=head.state).y1["b"] ** 2)

    def in_one(y0: dict, p: Any) -> Any:
        return np.sum(rv.solve(f, y0, ts, p, gradient=rv.Direct(), method=rv.Coupled()).y1["b"] ** 2)

    p = np.array(1.3)
    (ay, ap), (by, bp) = rv.grad(in_two, (0, 1))(y0, p), rv.grad(in_one, (0, 1))(y0, p)
    assert distance(ay, by) <= EXACT and distance(ap, bp) <= EXACT


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_params_of_every_kind(mode: Any, dtype: type) -> None:
    """Floats are differentiated, a Python float in y's dtype; ints, bools, None and strings pass through and get
    None."""
    p = {"rate": 0.7, "power": 2, "flag": True, "nothing": None, "name": "tanh",
         "list": [np.array([0.1, 0.2], dtype), 3],
         "pair": (dtype(1.5),)}
    seen = []

    def f(t: Any, y: Any, p: dict) -> Any:
        seen.append((p["power"], p["flag"], p["nothing"], p["name"], p["list"][1]))
        return -p["rate"] * y ** p["power"] * p["pair"][0] + (p["list"][0] if p["flag"] else 0)

    ts, y0 = np.linspace(0.0, 0.5, 6), np.array([0.5, 1.0], dtype)
    sol_dtype = []

    def loss(p: dict) -> Any:
        sol = rv.solve(f, y0, ts, p, gradient=mode, method=rv.Coupled())
        sol_dtype.append(sol.y1.dtype)
        return np.sum(sol.ys)

    grads = rv.grad(loss)(p)
    assert set(seen) == {(2, True, None, "tanh", 3)} and sol_dtype == [np.dtype(dtype)]
    assert [grads[name] for name in ("power", "flag", "nothing", "name")] == [None] * 4 and grads["list"][1] is None

    # the same by complex step, in float64, through the literal loop
    def literal(tree: dict) -> Any:
        g = lambda t, y, q: -q["rate"] * y * y * q["pair"] + q["list"]
        return sum(np.sum(y) for y in L.coupled(g, y0.astype(float), ts.tolist(), tree, TABLEAUX["midpoint"], 0.999))

    desired = G.complex_step_gradient(literal, {"rate": np.array(0.7), "list": np.array([0.1, 0.2],
                                                                                        dtype).astype(float),
                                                "pair": np.array(1.5)})
    actual = {"rate": grads["rate"], "list": grads["list"][0], "pair": grads["pair"][0]}
    assert distance(actual, desired) <= 4000 * np.finfo(dtype).eps
    assert grads["list"][0].dtype == dtype


def test_only_y0_or_only_params() -> None:
    """What is not differentiated may be anything plain, and the gradient of the rest is unchanged."""
    case, ts = CASES["coupled-midpoint"], GRIDS["varying"]
    at = start(case)
    loss = lambda y0, params, mode: weighted(np, rv.solve(plain_field, y0, ts, params, method=case.method,
                                                          gradient=mode).ys)
    for mode in MODES:
        both = rv.grad(loss, (0, 1))(at["y0"], at["params"], mode)
        assert distance(rv.grad(loss, 0)(at["y0"], at["params"], mode), both[0]) == 0
        assert distance(rv.grad(loss, 1)(at["y0"], at["params"], mode), both[1]) == 0
    without = rv.grad(lambda y0: np.sum(rv.solve(lambda t, y, p: -y, y0, ts).y1))(at["y0"])
    assert abs(without - np.exp(-0.5)).max() < 0.5 * 0.1**2 / 6      # midpoint: T h^2/6, for y of size 1 and h <= 1/10


def test_a_gradient_may_be_asked_twice_and_leaves_its_inputs_alone() -> None:
    """vjp's pull is a function: called twice it gives the same bits; y0, ts and params are what they were, and
    writeable."""
    case, ts = CASES["reversible-heun"], GRIDS["varying"].copy()
    at = start(case)
    copies = [x.copy() for x in G.tree_leaves(at)]
    for mode in MODES:
        ys, pull = rv.vjp(lambda tree, mode=mode: rv.solve(plain_field, tree["y0"], ts, tree["params"],
                                                           method=case.method,
                                                           gradient=mode).ys, at)
        a, b = pull(np.ones_like(ys)), pull(np.ones_like(ys))
        assert all(np.array_equal(x, y) for x, y in zip(G.tree_leaves(a), G.tree_leaves(b), strict=True))
        assert distance(pull(2 * np.ones_like(ys)), G.tree_map(lambda x: 2 * x, a)) <= EXACT
    assert all(np.array_equal(x, y) for x, y in zip(G.tree_leaves(at), copies, strict=True))
    assert np.array_equal(ts, GRIDS["varying"])
    assert [x.flags.writeable for x in G.tree_leaves(at)] == [True] * 5


def test_modes_mix_in_one_loss() -> None:
    """A reversible, a checkpointed and a direct solve in one tape add up."""
    case, ts = CASES["alf"], GRIDS["uniform"]
    at = start(case)
    one = lambda tree, mode: np.sum(rv.solve(plain_field, tree["y0"], ts, tree["params"], method=case.method,
                                             gradient=mode,
                                             save=[-1]).ys ** 2)
    parts = [rv.grad(one)(at, mode) for mode in MODES]
    total = rv.grad(lambda tree: sum(one(tree, mode) for mode in MODES))(at)
    summed = {"y0": sum(g["y0"] for g in parts),
              "params": {k: sum(g["params"][k] for g in parts) for k in at["params"]}}
    assert distance(total, summed) <= EXACT


# ------------------------------------------------------------------------------------------------- second derivatives

@pytest.mark.parametrize("case", [case for case in SOME if not case.split], **by_name)
def test_second_derivatives_through_direct(case: Case) -> None:
    """A Hessian-vector product, against autograd applied twice to the literal loop."""
    from autograd import grad as agrad
    ts, at = GRIDS["varying"][:5], start(case)
    direction = make_params(seed=9, d=2, width=3)

    def first(p: dict) -> Any:
        inner = rv.grad(lambda p: saved_loss(case, ts, rv.Direct())({"y0": at["y0"], "params": p}))(p)
        return sum(np.sum(inner[k] * direction[k]) for k in p)

    def literal(p: dict) -> Any:
        inner = agrad(lambda p: literal_loss(case, ts, anp)({"y0": at["y0"], "params": p}))(p)
        return sum(anp.sum(inner[k] * direction[k]) for k in p)

    assert distance(rv.grad(first)(at["params"]), agrad(literal)(at["params"])) <= 4 * EXACT      # four sweeps, not one


@pytest.mark.parametrize("mode", [rv.Reversible(), rv.Checkpointed(2), rv.Backsolve()], ids=str)
def test_second_derivatives_elsewhere_name_direct(mode: Any) -> None:
    case, ts = CASES["coupled-midpoint"], GRIDS["varying"]
    at = start(case)
    with pytest.raises(TypeError, match=r"derivative of a derivative.*gradient=Direct\(\)"):
        rv.grad(lambda tree: np.sum(rv.grad(saved_loss(case, ts, mode))(tree)["y0"]))(at)


@pytest.mark.parametrize("mode", [rv.Reversible(), rv.Checkpointed(2)], ids=str)
def test_a_mixed_second_derivative_is_right_or_names_direct(mode: Any) -> None:
    """Over w of the gradient over p of sum(w y_N): only the cotangent is on the outer tape. Linear in w, so it could
    work."""
    ts, y0 = np.linspace(0.0, 1.0, 6), np.array([0.5, 1.0])
    f = lambda t, y, p: np.sin(y) * p

    def mixed(mode: Any) -> Any:
        inner = lambda p, w: np.sum(w * rv.solve(f, y0, ts, p, gradient=mode, save=[-1], method=rv.Coupled()).ys)
        return rv.grad(lambda w: np.sum(rv.grad(inner)(np.ones(2), w) ** 2))(np.array([1.0, 2.0]))

    try:
        actual = mixed(mode)
    except TypeError as error:
        assert "Direct()" in str(error)
    else:
        assert distance(actual, mixed(rv.Direct())) <= EXACT


# ---------------------------------------------------------------------------------------------------------- backsolve

@pytest.mark.parametrize("case", [CASES["rk-rk4"], CASES["coupled-midpoint"], CASES["reversible-heun"],
                                  CASES["verlet"]],
                         **by_name)
def test_backsolve_approaches_direct_with_the_order_of_its_base(case: Case) -> None:
    """The continuous adjoint differs from Direct by O(h^p): halving h divides the difference by 2^p. Next order: 1 + r
    h, a difference of log2(1 + r h) < .5 for r h < .4, with h = 1/16 and less. RK4 solves the adjoint equation with an
    error of its own order; midpoint stands in where a method has no base (Verlet)."""
    order = case.order

    def error(N: int) -> float:
        ts = np.linspace(0.3, 1.3, N + 1)
        at = start(case)
        return distance(rv.grad(saved_loss_some(case, ts, rv.Backsolve()))(at),
                        rv.grad(saved_loss_some(case, ts, rv.Direct()))(at))

    def saved_loss_some(case: Case, ts: np.ndarray, mode: Any) -> Callable:
        def loss(tree: dict) -> Any:      # the same three times for every N
            sol = rv.solve(plain_field, tree["y0"], ts, tree["params"], method=case.method, gradient=mode,
                           save=slice(0, None, (len(ts) - 1) // 2))
            return weighted(np, sol.ys) if not case.split else weighted(np, sol.ys[0]) + 2 * weighted(np, sol.ys[1])
        return loss

    errors = [error(N) for N in (16, 32, 64)]
    slope = np.log2(errors[0] / errors[2]) / 2
    assert order - 0.5 < slope < order + 1.5, errors
    assert 1e-12 < errors[0] < 0.05


def test_backsolve_refuses_what_the_continuous_adjoint_cannot_know() -> None:
    ts, y0 = np.linspace(0.0, 1.0, 6), np.array([0.5, 1.0])
    f = lambda t, y, p: np.sin(y) * p
    with pytest.raises(TypeError, match=r"knows y alone.*Reversible, Checkpointed\(n\) or Direct"):
        rv.grad(lambda p: np.sum(rv.solve(f, y0, ts, p, gradient=rv.Backsolve(), method=rv.Coupled()).state.parts["z"]))(np.ones(2))
    head = rv.solve(f, y0, ts, np.ones(2), method=rv.Coupled())
    with pytest.raises(TypeError, match="state0="):
        rv.grad(lambda p: np.sum(rv.solve(f, None, ts + 1.0, p, gradient=rv.Backsolve(),
                                          state0=head.state).y1))(np.ones(2))


@pytest.mark.parametrize("gradient", [rv.Reversible(), rv.Checkpointed(3), rv.Backsolve()], ids=str)
def test_a_derivative_with_respect_to_weights_outside_the_solve(gradient: Any) -> None:
    """d/dw of dL/dp, L = sum(w ys): the pullback is linear in its cotangent, so it may itself be recorded by an outer tape."""
    ts = np.linspace(0.0, 1.0, 9)

    def first(w: Any, mode: Any) -> Any:
        def loss(p: Any) -> Any:
            return np.sum(w * rv.solve(lambda t, y, p: np.sin(p * y), np.array([0.5, 1.0]), ts, p, gradient=mode,
                                       method=rv.Coupled()).ys)
        return np.sum(rv.grad(loss)(np.array([0.7, -0.4])) ** 2)

    w = np.linspace(0.5, 1.5, 18).reshape(9, 2)
    of_mode, of_direct = (rv.grad(lambda w, mode=mode: first(w, mode))(w) for mode in (gradient, rv.Direct()))
    # Backsolve is the gradient of another discretisation: it differs by O(h^2) = 1/64 of the size; the others by rounding,
    # 8 steps of a few dozen operations each.
    allowed = 1 / 64 if isinstance(gradient, rv.Backsolve) else 1e3 * np.finfo(float).eps
    np.testing.assert_allclose(of_mode, of_direct, rtol=0, atol=allowed * abs(of_direct).max())

"""Every method equals its literal transcription: trajectory, companion, the step undone, shapes and dtypes.

Tolerance. Two programs of one map, summed in different orders, differ after N steps over a time T by at most
    2 u (12 N m M + 2 (20 + 2 s) B w T F) exp(w' T)          u = eps/2, one rounding
    12 M   the sums of a step that carry the state: three shears of at most four roundings of numbers below M = 3
    m, w   substeps of a composition and the length that they walk, per unit of step; 1 and 1 otherwise
    20     roundings of one evaluation: inner products of 3 and of 4, tanh to 2 ulp, three sums; 2 s more for the stage
    B F    the sums of |b_i| <= 7.6 (tsit5) times |f| <= 2; twice, since a coupled step has two increments
    exp()  growth: f is 1-Lipschitz (method_cases). A composition retraces its own path, so w' = 1 + the longest
    excursion,
           2; without one, 1.
Some 300 ulp a step in the worst case; 1 to 3 for all N together are seen (15 for 27 substeps).
"""
from __future__ import annotations

import numpy as np
import pytest

import revode as rv
from reference.oracles import loops as L
from reference.oracles import tableaux as T
from tests.method_cases import CASES, ETA, GRIDS, LAM, REVERSIBLE, Case, composed, make_params, make_y0, plain_field

SHAPES = [(3,), (2, 3), (2, 1, 3)]
TABLEAUX = {name: T.numbers(tableau, float) for name, tableau in T.TABLEAUX.items()}


def tolerance(case: Case, N: int, dtype: type) -> float:
    walk, substeps = 1.0, 1
    for p in range(2, case.order if isinstance(case.method, rv.Composition) else 2, 2):       # triple jumps
        g1 = 1 / (2 - 2 ** (1 / (p + 1)))
        walk, substeps = walk * (2 * g1 + abs(1 - 2 * g1)), substeps * 3
    stages = case.a_step / substeps
    rounding = 12 * N * substeps * 3 + 2 * (20 + 2 * stages) * 7.6 * walk * 0.5 * 2
    return float(np.finfo(dtype).eps) * rounding * np.exp(1 if substeps > 1 else 0.5)


def columns(case: Case, states: list) -> list[np.ndarray]:
    return [np.stack([state[i] for state in states]) for i in (0, 1)] if case.split else [np.stack(states)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trajectory_is_that_of_the_literal_loop(case: Case, dtype: type) -> None:
    params = make_params(dtype=dtype)
    for name, ts in GRIDS.items():
        for shape in SHAPES:
            y0 = make_y0(case, shape, dtype=dtype)
            sol = rv.solve(plain_field, y0, ts, params, method=case.method)
            ours = sol.ys if case.split else (sol.ys,)
            literal = columns(case, case.literal(plain_field, y0, ts.tolist(), params))
            allowed = tolerance(case, len(ts) - 1, dtype)
            for mine, theirs in zip(ours, literal, strict=True):
                assert mine.dtype == theirs.dtype == dtype and mine.shape == theirs.shape == (len(ts), *shape)
                worst = abs(mine - theirs).max()
                assert worst <= allowed < 0.01, f"{name} {shape}: {worst:.2e}, {worst / allowed:.1%} of what is allowed"
                assert abs(theirs[-1] - theirs[0]).max() > 0.02      # it moved
            assert np.array_equal(sol.ts, ts) and all(part.dtype == dtype for part in sol.state.parts.values())


def literal_states(case: Case, ts: list, y0: np.ndarray, params: dict) -> tuple:
    """(all states as pairs, undo(t, t1, h, state)) of the literal method, by the paper's own backward formula."""
    f, p = plain_field, params
    m = case.method
    if isinstance(m, rv.Coupled):
        tab, lam = TABLEAUX[m.base], 1 if case.name == "coupled-1" else LAM
        return L.coupled_states(f, y0, ts, p, tab, lam), lambda *at: L.coupled_back(f, p, tab, lam, *at)
    if isinstance(m, rv.AsynchronousLeapfrog):
        eta = ETA if case.name == "alf-damped" else 1
        return L.alf_states(f, y0, ts, p, eta), lambda *at: L.alf_back(f, p, eta, *at)
    if isinstance(m, rv.ReversibleHeun):
        return L.reversible_heun_states(f, y0, ts, p), lambda *at: L.reversible_heun_back(f, p, *at)
    if isinstance(m, rv.SemiImplicitEuler):
        return L.semi_implicit_euler(f, *y0, ts, p), lambda *at: L.semi_implicit_euler_back(f, p, *at)
    if isinstance(m, rv.VelocityVerlet):
        return L.velocity_verlet(f, *y0, ts, p), lambda *at: L.velocity_verlet_back(f, p, *at)
    base = {"alf": (L.yoshida4_alf_states, lambda *at: L.alf_back(f, p, 1, *at)),
            "heun": (L.yoshida4_reversible_heun_states, lambda *at: L.reversible_heun_back(f, p, *at)),
            "verlet": (lambda f, y0, ts, p: L.yoshida4_verlet(f, *y0, ts, p),
                       lambda *at: L.velocity_verlet_back(f, p, *at))}[case.name.split("-")[0]]
    return base[0](f, y0, ts, p), lambda *at: L.yoshida4_back(base[1], L.G1, *at)


UNDONE = {name: case for name, case in REVERSIBLE.items()
          if name != "leapfrog-midpoint" and not name.endswith(("-6", "-8"))}


@pytest.mark.parametrize("case", UNDONE.values(), ids=UNDONE)
def test_whole_state_and_its_way_back_are_the_literal_ones(case: Case) -> None:
    """steps() gives y and its companion at every time; steps_back() undoes them as the paper's backward formula
    does."""
    params, ts = make_params(), GRIDS["varying"]
    y0 = make_y0(case)
    literal, undo = literal_states(case, ts.tolist(), y0, params)
    names = case.method.parts
    states = [state for _, state in rv.steps(plain_field, y0, ts, params, method=case.method)]
    allowed = tolerance(case, len(ts) - 1, np.float64)
    for mine, theirs in zip(states, literal, strict=True):
        assert max(abs(mine.parts[name] - x).max() for name, x in zip(names, theirs, strict=True)) <= allowed
    # the way back from one and the same state; a contraction by lam or 1 - 2 eta expands once a step on the way back
    expansion = (1 / min(LAM, 2 * ETA - 1)) ** (len(ts) - 1)
    final = states[-1]._replace(parts=dict(zip(names, literal[-1], strict=True)))
    back = L.backward(undo, literal[-1], ts.tolist())
    ay1 = (np.ones(3), np.ones(3)) if case.split else np.ones(3)
    ours = list(rv.steps_back(plain_field, final, ts, params, ay1=ay1, method=case.method))
    assert [item.t for item in ours] == ts[::-1].tolist()
    for item, theirs in zip(ours, reversed(back), strict=True):
        worst = max(abs(item.state.parts[name] - x).max() for name, x in zip(names, theirs, strict=True))
        assert worst <= allowed * expansion < 1e-9, f"{worst:.2e} at t={item.t}"


@pytest.mark.parametrize("name", GRIDS)
def test_leapfrog_midpoint_and_its_way_back(name: str) -> None:
    params, ts, case = make_params(), GRIDS[name], CASES["leapfrog-midpoint"]
    y0 = make_y0(case)
    ys = L.leapfrog_midpoint(plain_field, y0, ts.tolist(), params)
    before = y0 - (ts[1] - ts[0]) * plain_field(ts[0], y0, params)
    allowed = tolerance(case, len(ts) - 1, np.float64)
    states = [state.parts for _, state in rv.steps(plain_field, y0, ts, params, method=case.method)]
    for parts, previous, y in zip(states, [before, *ys[:-1]], ys, strict=True):
        assert max(abs(parts["y"] - y).max(), abs(parts["y_prev"] - previous).max()) <= allowed
    final = rv.solve(plain_field, y0, ts, params, method=case.method).state
    back = L.leapfrog_midpoint_back(plain_field, *(final.parts[x] for x in ("y_prev", "y")), ts.tolist(), params)
    items = list(rv.steps_back(plain_field, final, ts, params, ay1=np.ones(3), method=case.method))
    for item, previous, y in zip(reversed(items), back[:-1], back[1:], strict=True):
        assert max(abs(item.state.parts["y"] - y).max(),
                   abs(item.state.parts["y_prev"] - previous).max()) <= 2 * allowed


@pytest.mark.parametrize("name", ["euler", "ralston3", "dopri5", "tsit5"])
def test_a_tableau_of_ones_own(name: str) -> None:
    """A Tableau handed over, with exact fractions, gives what the name gives, bit for bit; for tsit5, to its printed
    digits."""
    oracle = T.TABLEAUX[name]
    own = rv.Tableau("own", oracle.order, tuple(row[:i] for i, row in enumerate(oracle.A)), oracle.b, oracle.c)
    y0, params, ts = make_y0(CASES["alf"]), make_params(), GRIDS["varying"]
    for method in (rv.RungeKutta, rv.Coupled):
        ours, theirs = (rv.solve(plain_field, y0, ts, params, method=method(base)).y1 for base in (own, name))
        # tsit5's coefficients are decimals of 16 digits up to 12.9, so they differ by 1e-15 of that in 8 steps of size
        # 1/16
        assert abs(ours - theirs).max() <= (13 * 1e-15 * 0.5 if name == "tsit5" else 0)
    assert repr(rv.Coupled(own)) == "Coupled(base='own', lam=0.999)" and rv.Coupled(own).order == oracle.order


def test_composition_is_the_triple_jump() -> None:
    """The oracle's own nesting agrees with its fourth-order special case, so the table does not test itself."""
    f, y0, p, ts = plain_field, make_y0(CASES["alf"]), make_params(), GRIDS["varying"].tolist()
    nested = L.forward(composed(lambda *at: L.alf_step(f, p, 1, *at), 4), (y0, f(ts[0], y0, p)), ts)
    assert all(np.array_equal(a, b) for s, r in zip(nested, L.yoshida4_alf_states(f, y0, ts, p), strict=True)
               for a, b in zip(s, r, strict=True))

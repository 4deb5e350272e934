"""The oracles checked against each other, against closed forms, and against outside code (autograd, SciPy).

Nothing here touches `revode`. `eps` below is 2^-53 = 1.1e-16, the rounding of one float64 operation.
"""

import ast
import heapq
from fractions import Fraction as Fr
from itertools import pairwise
from math import factorial
from pathlib import Path

import autograd.numpy as anp
import mpmath
import numpy as np
import pytest
from mpmath import mpf
from numpy.testing import assert_allclose
from scipy.integrate import RK23, RK45

import reference
from reference.oracles import gradients as G
from reference.oracles import loops as L
from reference.oracles import problems as P
from reference.oracles import tableaux as T
from reference.oracles import trees

EPS = 2.0**-53
TABLEAUX = list(T.TABLEAUX.values())
by_name = {"ids": lambda x: getattr(x, "name", getattr(x, "__name__", str(x)))}


def test_oracles_do_not_import_revode():
    files = sorted(Path(reference.__file__).parent.joinpath("oracles").glob("*.py"))
    assert len(files) >= 6
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(m.split(".")[0].startswith("revode") for m in modules), file.name


# ----------------------------------------------------------------------------------------- trees and tableaux


def symmetry(tree):
    """sigma(tree): the number of automorphisms."""
    product = 1
    for child in set(tree):
        m = tree.count(child)
        product *= factorial(m) * symmetry(child) ** m
    return product


def test_rooted_trees_are_all_there():
    counts = [len(trees.rooted_trees(n)) for n in range(1, 9)]
    assert counts == [1, 1, 2, 4, 9, 20, 48, 115]  # OEIS A000081
    for n in range(1, 9):  # monotone labellings: sum n!/(sigma gamma) = (n-1)!
        assert sum(
            Fr(factorial(n), symmetry(t) * trees.gamma(t)) for t in trees.rooted_trees(n)
        ) == factorial(n - 1)


@pytest.mark.parametrize("s", [1, 2, 3, 4])
def test_order_conditions_know_gauss_methods(s):
    """Gauss collocation with s stages has order exactly 2s: 8 with s = 4. It is implicit, so every a_ij
    counts."""
    with mpmath.workdps(40):
        nodes = np.polynomial.legendre.leggauss(s)[0]
        c = [(1 + mpmath.findroot(lambda x: mpmath.legendre(s, x), mpf(float(x)))) / 2 for x in nodes]
        powers = mpmath.matrix(s, s)
        for k in range(s):
            for j in range(s):
                powers[k, j] = c[j] ** k
        inverse = powers**-1  # sum_j a_ij c_j^k = c_i^{k+1}/(k+1)
        A = [
            [sum(c[i] ** (k + 1) / (k + 1) * inverse[j, k] for k in range(s)) for j in range(s)]
            for i in range(s)
        ]
        b = [sum(inverse[j, k] / (k + 1) for k in range(s)) for j in range(s)]
        worst = max(abs(r) for _, r in trees.order_conditions(A, b, c, 2 * s))
        assert worst < mpf("1e-30")  # 40 digits, a few lost in the Vandermonde inverse
        assert max(abs(r) for r in trees.row_sums(A, c)) < mpf("1e-30")
        if s < 4:
            assert max(abs(r) for _, r in trees.order_conditions(A, b, c, 2 * s + 1)) > mpf("1e-6")


@pytest.mark.parametrize("tableau", TABLEAUX, **by_name)
def test_tableau_has_its_stated_order(tableau):
    A, b, c = tableau.A, tableau.b, tableau.c
    assert all(A[i][j] == 0 for i in range(len(b)) for j in range(i, len(b)))
    # Tsit5's last row is b itself, seven printed decimals: below 7 roundings of 5e-16
    assert max(abs(r) for r in trees.row_sums(A, c)) <= (0 if tableau.exact else 7 * 5e-16)

    def magnitudes(weights):
        absolute = [[abs(a) for a in row] for row in A]
        return {
            t: r + Fr(1, trees.gamma(t))
            for t, r in trees.order_conditions(absolute, [abs(w) for w in weights], c, tableau.order)
        }

    for weights, order in ((b, tableau.order), (tableau.bhat, tableau.order_hat)):
        if weights is None:
            continue
        conditions = trees.order_conditions(A, weights, c, order)
        if tableau.exact:
            assert all(r == 0 for _, r in conditions)
        else:
            # 16 printed digits: relative rounding at most 5e-16 for each of the <= 5 factors of a product,
            # and as much again for the first column, which is c_i minus rounded entries; the products add up
            # to `size`.
            size = magnitudes(weights)
            for tree, r in conditions:
                assert abs(r) <= 2 * 5 * 5e-16 * size[tree], (tree, float(r))
        beyond = [
            r for t, r in trees.order_conditions(A, weights, c, order + 1) if trees.size(t) == order + 1
        ]
        assert max(abs(r) for r in beyond) > 1e-5, "better than stated: the stated order is wrong"


@pytest.mark.parametrize("tableau, theirs", [(T.bosh3, RK23), (T.dopri5, RK45)])
def test_tableau_equals_scipys(tableau, theirs):
    ours = T.numbers(tableau, float)
    s = len(theirs.B)
    # one division of two exact integers each; SciPy stores bhat - b, a difference: two roundings at size 1
    assert_allclose(np.array(ours.A)[:s, : s - 1], np.array(theirs.A)[:, : s - 1], rtol=2 * EPS, atol=0)
    assert_allclose(ours.b[:s], theirs.B, rtol=2 * EPS, atol=0)
    assert_allclose(
        [float(x - y) for x, y in zip(tableau.bhat, tableau.b, strict=True)], theirs.E, rtol=0, atol=4 * EPS
    )
    assert tableau.A[-1] == tableau.b  # first same as last


# ------------------------------------------------------------------------------- exact arithmetic: Fractions

EXACT_TS = [Fr(1, 3), Fr(2, 5), Fr(1, 4), Fr(3, 2)]  # uneven, and once backwards


def riccati_exact(t, y, p):
    return p * y * y * t + t * t


def linear_exact(t, y, p):
    return p * y * t + t * t


@pytest.mark.parametrize("tableau", TABLEAUX, **by_name)
@pytest.mark.parametrize("lam", [Fr(1), Fr(99, 100), Fr(4, 5)])
def test_coupled_on_the_linear_equation_is_the_stability_matrix(tableau, lam):
    """METHODS section 2: M = [[lam, 1-lam+P], [-lam Q, 1 - Q (1-lam+P)]] with P = R(z)-1, Q = R(-z)-1;
    exactly."""
    a, h = Fr(-7, 5), Fr(1, 3)

    def R(z):
        """1 + sum_k z^{k+1} b^T A^k 1."""
        s, total, power, column = len(tableau.b), Fr(1), z, [Fr(1)] * len(tableau.b)
        for _ in range(s):
            total += power * sum(b_i * x for b_i, x in zip(tableau.b, column, strict=True))
            column = [sum(tableau.A[i][j] * column[j] for j in range(s)) for i in range(s)]
            power *= z
        return total

    P_, Q = R(h * a) - 1, R(-h * a) - 1
    M = [[lam, 1 - lam + P_], [-lam * Q, 1 - Q * (1 - lam + P_)]]
    assert M[0][0] * M[1][1] - M[0][1] * M[1][0] == lam
    assert M[0][0] + M[1][1] == 1 + lam - (1 - lam) * Q - P_ * Q
    y, z = Fr(1), Fr(1)
    for n, state in enumerate(
        L.coupled_states(lambda t, y, p: p * y, Fr(1), [h * n for n in range(4)], a, tableau, lam)
    ):
        assert state == (y, z), n
        y, z = M[0][0] * y + M[0][1] * z, M[1][0] * y + M[1][1] * z
    base = L.runge_kutta(lambda t, y, p: p * y, Fr(1), [h * n for n in range(4)], a, tableau)
    assert base == [R(h * a) ** n for n in range(4)]


def shear_words(kind, field, y0, v0, ts, p, eta):
    """The words of shears of METHODS section 1: a second transcription of the same maps."""
    h0 = ts[1] - ts[0]
    y, v = (
        y0,
        {
            "alf": lambda: field(ts[0], y0, p),
            "heun": lambda: y0,
            "leapfrog": lambda: y0 - h0 * field(ts[0], y0, p),
            "verlet": lambda: v0,
        }[kind](),
    )
    h_before, states = h0, [(y, v)]
    for t, t1 in pairwise(ts):
        h = t1 - t
        if kind == "alf":
            y += h / 2 * v
            v = (1 - 2 * eta) * v + 2 * eta * field(t + h / 2, y, p)
            y += h / 2 * v
        elif kind == "heun":
            y += h * field(t, v, p) / 2
            v = -v + 2 * y
            y += h * field(t1, v, p) / 2
        elif kind == "leapfrog":
            y, v = v + (h_before + h) * field(t, y, p), y
        else:
            v += h / 2 * field(t, y, p)
            y += h * v
            v += h / 2 * field(t1, y, p)
        h_before = h
        states.append((y, v))
    return states


@pytest.mark.parametrize(
    "kind, eta", [("alf", Fr(1)), ("alf", Fr(3, 4)), ("heun", 1), ("leapfrog", 1), ("verlet", 1)]
)
def test_loops_equal_the_words_of_shears_exactly(kind, eta):
    f, y0, v0, p, ts = riccati_exact, Fr(2, 3), Fr(1, 5), Fr(-3, 7), EXACT_TS
    ours = {
        "alf": lambda: L.alf_states(f, y0, ts, p, eta),
        "heun": lambda: L.reversible_heun_states(f, y0, ts, p),
        "leapfrog": lambda: [(y,) for y in L.leapfrog_midpoint(f, y0, ts, p)],
        "verlet": lambda: L.velocity_verlet(f, y0, v0, ts, p),
    }[kind]()
    words = shear_words(kind, f, y0, v0, ts, p, eta)
    assert len(ours) == 4 and [s[: len(ours[0])] for s in words] == ours


G1 = Fr(27, 20)  # any number does: the inverse does not need the order
STEPS = {
    "alf": (L.alf_step, L.alf_back, (Fr(1),)),
    "alf-damped": (L.alf_step, L.alf_back, (Fr(4, 5),)),
    "reversible-heun": (L.reversible_heun_step, L.reversible_heun_back, ()),
    "semi-implicit-euler": (L.semi_implicit_euler_step, L.semi_implicit_euler_back, ()),
    "velocity-verlet": (L.velocity_verlet_step, L.velocity_verlet_back, ()),
    **{f"coupled-{t.name}": (L.coupled_step, L.coupled_back, (t, Fr(9, 10))) for t in TABLEAUX},
}


@pytest.mark.parametrize("composed", [False, True], ids=["plain", "yoshida"])
@pytest.mark.parametrize("name", STEPS)
def test_round_trip_is_exact_in_exact_arithmetic(name, composed):
    """Forward, then backward from the last state alone, gives every state back: equal Fractions, no
    tolerance.

    Squares double the digits at every evaluation, so many-stage bases run on a field linear in y."""
    step, back, extra = STEPS[name]
    few = name in ("coupled-euler", "coupled-midpoint", "coupled-heun2") or not name.startswith("coupled")
    f = riccati_exact if few and not composed else linear_exact
    ts = EXACT_TS[:3] if f is riccati_exact or composed else EXACT_TS

    def one(*at):
        return step(f, Fr(-3, 7), *extra, *at)

    def undo(*at):
        return back(f, Fr(-3, 7), *extra, *at)

    start = (Fr(2, 3), Fr(1, 5))
    if composed:
        states = L.yoshida4(one, start, ts, G1)
        again = L.backward(lambda *at: L.yoshida4_back(undo, G1, *at), states[-1], ts)
    else:
        states = L.forward(one, start, ts)
        again = L.backward(undo, states[-1], ts)
    assert again == states
    assert len(set(states)) == len(ts)  # every step moved


def test_round_trip_of_leapfrog_midpoint_is_exact():
    f, y0, p, ts = riccati_exact, Fr(2, 3), Fr(-3, 7), EXACT_TS
    ys = L.leapfrog_midpoint(f, y0, ts, p)
    again = L.leapfrog_midpoint_back(f, ys[-2], ys[-1], ts, p)
    assert again == [y0 - (ts[1] - ts[0]) * f(ts[0], y0, p), *ys]


# --------------------------------------------------------------------------------------- order of convergence


def grid(t_span, N, bend=0.3):
    """N steps, smoothly uneven: steps vary by a factor (1 + bend)/(1 - bend)."""
    x = np.linspace(0.0, 1.0, N + 1)
    x = x + bend * np.sin(2 * np.pi * x) / (2 * np.pi)
    return t_span[0] + (t_span[1] - t_span[0]) * x


def states_first(states):
    return [state[0] for state in states]


ORDERS = {  # name: (solve(f, y0, ts, p), order)
    **{t.name: (lambda f, y0, ts, p, t=t: L.runge_kutta(f, y0, ts, p, t), t.order) for t in TABLEAUX},
    **{
        f"coupled-{t.name}": (lambda f, y0, ts, p, t=t: L.coupled(f, y0, ts, p, t, 0.999), t.order)
        for t in TABLEAUX
    },
    "coupled-midpoint-0.8": (lambda f, y0, ts, p: L.coupled(f, y0, ts, p, T.midpoint, 0.8), 2),
    "coupled-rk4-0.8": (lambda f, y0, ts, p: L.coupled(f, y0, ts, p, T.rk4, 0.8), 4),
    "alf": (L.alf, 2),
    "alf-damped": (lambda f, y0, ts, p: L.alf(f, y0, ts, p, 0.8), 1),
    "reversible-heun": (L.reversible_heun, 2),
    "leapfrog-midpoint": (L.leapfrog_midpoint, 2),
    "yoshida4-alf": (lambda f, y0, ts, p: states_first(L.yoshida4_alf_states(f, y0, ts, p)), 4),
    "yoshida4-reversible-heun": (
        lambda f, y0, ts, p: states_first(L.yoshida4_reversible_heun_states(f, y0, ts, p)),
        4,
    ),
}


def worst_error(solve, problem, ts):
    f, exact = problem.field(np), problem.solution(np)
    ys = solve(f, problem.y0, ts, problem.params)
    return max(np.max(np.abs(y - exact(t, problem.y0, problem.params))) for t, y in zip(ts, ys, strict=True))


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name, backwards):
    """Slope of the worst error on a nonlinear, time-dependent problem and an uneven grid, N = 20 (10) against
    160.

    h falls by 8, so a next-order term that is r of the error at N = 20 moves the slope by log(1+r)/log 8:
    0.35 covers r = 1. Order 5 starts at N = 10 and is only bounded below (its leading term is small here: the
    slope starts near 7); Coupled with an odd base has no clean slope below lam = 1 (METHODS section 2), so it
    is bounded below, more loosely.
    """
    solve, order = ORDERS[name]
    problem = P.swinging_riccati()
    if backwards:  # from the exact end, back to y0
        t0, t1 = problem.t_span
        exact = problem.solution(np)
        end = exact(t1, problem.y0, problem.params)
        f = problem.field(np)

        def error(N):
            ts = grid((t1, t0), N)
            ys = solve(f, end, ts, problem.params)
            return max(
                np.max(np.abs(y - exact(t, problem.y0, problem.params))) for t, y in zip(ts, ys, strict=True)
            )
    else:

        def error(N):
            return worst_error(solve, problem, grid(problem.t_span, N))

    N = 10 if order == 5 else 20
    coarse, fine = error(N), error(160)
    slope = np.log(coarse / fine) / np.log(160 / N)
    assert slope > order - 0.35, f"slope {slope:.2f}, errors {coarse:.1e} {fine:.1e}"
    if order in (2, 4):  # and not better, or this is another method
        assert slope < order + 0.35, f"slope {slope:.2f}, errors {coarse:.1e} {fine:.1e}"


@pytest.mark.parametrize("tableau", [T.euler, T.ralston3, T.bosh3], **by_name)
def test_coupled_odd_base_stays_below_its_base(tableau):
    """No clean slope at lam = 0.8, but z and y each make the base's local error: at most twice the base's
    error."""
    problem = P.swinging_riccati()
    for N in (20, 40, 80, 160):
        ts = grid(problem.t_span, N)
        base = worst_error(lambda f, y0, ts, p: L.runge_kutta(f, y0, ts, p, tableau), problem, ts)
        ours = worst_error(lambda f, y0, ts, p: L.coupled(f, y0, ts, p, tableau, 0.8), problem, ts)
        assert ours < 2 * base, (N, ours, base)


@pytest.mark.parametrize(
    "name, solve, order",
    [
        ("semi-implicit-euler", L.semi_implicit_euler, 1),
        ("velocity-verlet", L.velocity_verlet, 2),
        ("yoshida4-verlet", L.yoshida4_verlet, 4),
    ],
)
@pytest.mark.parametrize("rough", [False, True], ids=["smooth", "alternating"])
def test_order_of_split_methods(name, solve, order, rough):
    """One-step methods keep their order on any grid, also one whose steps alternate 5 : 1. Tolerance as
    above."""
    problem = P.driven_oscillator()
    a, exact = problem.acceleration(np), problem.solution(np)

    def error(N):
        ts = grid(problem.t_span, N)
        if rough:
            ts = np.linspace(*problem.t_span, N + 1)
            ts[1::2] += (ts[2] - ts[0]) / 3
        solution = solve(a, problem.q0, problem.v0, ts, problem.params)
        return max(
            np.max(np.abs(q - exact(t, problem.q0, problem.v0, problem.params)[0]))
            + np.max(np.abs(v - exact(t, problem.q0, problem.v0, problem.params)[1]))
            for t, (q, v) in zip(ts, solution, strict=True)
        )

    slope = np.log2(error(20) / error(160)) / 3
    assert abs(slope - order) < 0.35, slope


@pytest.mark.parametrize(
    "name, order_there",
    [
        ("leapfrog-midpoint", 1),
        ("yoshida4-alf", 2),
        ("yoshida4-reversible-heun", 2),
        ("alf", 2),
        ("reversible-heun", 2),
        ("coupled-rk4", 4),
    ],
)
def test_order_on_an_alternating_grid(name, order_there):
    """Steps alternating 5 : 1. Two-step memory costs leapfrog-midpoint one order and the composed ALF and
    reversible Heun two; ALF, reversible Heun and Coupled keep theirs. N = 80 against 640; tolerance as
    above."""
    problem = P.swinging_riccati()

    def error(N):
        ts = np.linspace(*problem.t_span, N + 1)
        ts[1::2] += (ts[2] - ts[0]) / 3
        return worst_error(ORDERS[name][0], problem, ts)

    coarse, fine = (20, 160) if order_there == 4 else (80, 640)
    slope = np.log2(error(coarse) / error(fine)) / 3
    assert abs(slope - order_there) < 0.35, slope


# -------------------------------------------------------------------------------------------------- gradients


def times(problem):
    """Four uneven steps over 3/10 of the problem's span, the last one backwards."""
    t0, t1 = problem.t_span
    return t0 + (t1 - t0) * np.array([0.0, 0.125, 0.175, 0.3, 0.225])


LAM = 0.9


def both(states):
    """Every number of the whole states, so that y and its companion both reach the loss."""
    return [x for state in states for x in state]


SOLVES = {
    **{
        t.name: lambda f, y0, ts, p, g1, t=t: L.runge_kutta(f, y0, ts, p, t)
        for t in (T.euler, T.ralston3, T.tsit5)
    },
    **{
        f"coupled-{t.name}": lambda f, y0, ts, p, g1, t=t: both(L.coupled_states(f, y0, ts, p, t, LAM))
        for t in (T.euler, T.midpoint, T.bosh3, T.rk4, T.dopri5)
    },
    "alf": lambda f, y0, ts, p, g1: both(L.alf_states(f, y0, ts, p)),
    "alf-damped": lambda f, y0, ts, p, g1: both(L.alf_states(f, y0, ts, p, 0.75)),
    "reversible-heun": lambda f, y0, ts, p, g1: both(L.reversible_heun_states(f, y0, ts, p)),
    "leapfrog-midpoint": lambda f, y0, ts, p, g1: L.leapfrog_midpoint(f, y0, ts, p),
    "yoshida4-alf": lambda f, y0, ts, p, g1: both(L.yoshida4_alf_states(f, y0, ts, p, g1)),
    "yoshida4-reversible-heun": lambda f, y0, ts, p, g1: both(
        L.yoshida4_reversible_heun_states(f, y0, ts, p, g1)
    ),
}
SPLIT_SOLVES = {
    "semi-implicit-euler": lambda a, q0, v0, ts, p, g1: both(L.semi_implicit_euler(a, q0, v0, ts, p)),
    "velocity-verlet": lambda a, q0, v0, ts, p, g1: both(L.velocity_verlet(a, q0, v0, ts, p)),
    "yoshida4-verlet": lambda a, q0, v0, ts, p, g1: both(L.yoshida4_verlet(a, q0, v0, ts, p, g1)),
}


def loss_of(xp, solve, problem, g1=L.G1):
    """sum_n w_n (y_n^2 + y_n), weights that differ: every output counts, and differently."""

    def loss(tree):
        if isinstance(problem, P.SplitProblem):
            outputs = solve(
                problem.acceleration(xp), tree["q0"], tree["v0"], times(problem), tree["params"], g1
            )
        else:
            outputs = solve(problem.field(xp), tree["y0"], times(problem), tree["params"], g1)
        total = 0
        for n, y in enumerate(outputs):
            total = total + (1 + n % 3) * xp.sum(y * y + y)
        return total

    return loss


def start_of(problem):
    if isinstance(problem, P.SplitProblem):
        return {"q0": problem.q0, "v0": problem.v0, "params": problem.params}
    return {"y0": problem.y0, "params": problem.params}


def assert_trees_close(actual, desired, rtol, what):
    """Every leaf within rtol of the largest entry of the whole desired gradient."""
    actual = [np.asarray(g, dtype=object) for g in G.tree_leaves(actual)]
    desired = [np.asarray(g, dtype=object) for g in G.tree_leaves(desired)]
    assert [g.shape for g in actual] == [g.shape for g in desired]
    scale = max(abs(x) for g in desired for x in g.ravel())
    worst = max(
        abs(x - y)
        for g, d in zip(actual, desired, strict=True)
        for x, y in zip(g.ravel(), d.ravel(), strict=True)
    )
    assert scale > 0.01 and worst <= rtol * scale, (
        f"{what}: {float(worst / scale):.2e} against {float(rtol):.2e}"
    )


# Round-off of a float64 gradient relative to its largest entry: 4 steps of at most 14 evaluations, each a
# chain of about 20 operations, forward and backward, is 2240 operations in a row; growth over these short
# spans is below 5. Worst case, all of one sign.
FLOAT_RTOL = 2240 * 5 * EPS


@pytest.mark.parametrize("problem", [make() for make in P.PROBLEMS.values()] + [P.mlp(1, 3, 5)], **by_name)
@pytest.mark.parametrize("name", SOLVES)
def test_complex_step_equals_autograd(name, problem):
    ours = G.complex_step_gradient(loss_of(np, SOLVES[name], problem), start_of(problem))
    theirs = G.autograd_gradient(loss_of(anp, SOLVES[name], problem), start_of(problem))
    assert_trees_close(ours, theirs, FLOAT_RTOL, name)


@pytest.mark.parametrize("problem", [make() for make in P.SPLIT_PROBLEMS.values()], **by_name)
@pytest.mark.parametrize("name", SPLIT_SOLVES)
def test_complex_step_equals_autograd_split(name, problem):
    ours = G.complex_step_gradient(loss_of(np, SPLIT_SOLVES[name], problem), start_of(problem))
    theirs = G.autograd_gradient(loss_of(anp, SPLIT_SOLVES[name], problem), start_of(problem))
    assert_trees_close(ours, theirs, FLOAT_RTOL, name)


def test_mpmath_gradient_equals_complex_step():
    """mpmath differences of the same loops, every method; time nodes and tableaux enter as the same
    numbers."""
    xp = P.mp_numpy()
    problem, split = P.swinging_riccati(), P.henon_heiles()
    cases = [(name, solve, problem) for name, solve in SOLVES.items()]
    cases += [(name, solve, split) for name, solve in SPLIT_SOLVES.items()]
    cases += [
        ("coupled-midpoint", SOLVES["coupled-midpoint"], P.mlp()),
        ("alf", SOLVES["alf"], P.white_dwarf()),
    ]
    for name, solve, which in cases:
        exact = G.mpmath_gradient(loss_of(xp, solve, which), start_of(which), dps=45, step="1e-14")
        assert_trees_close(
            G.complex_step_gradient(loss_of(np, solve, which), start_of(which)), exact, FLOAT_RTOL, name
        )


def test_gradients_of_a_closed_form():
    """All three routes on loss = sum sin(a) b + c^2 in a nested tree; the answer is typed in."""

    def loss(xp):
        return lambda t: xp.sum(xp.sin(t["a"][0]) * t["a"][1]["b"]) + t["c"][0] * t["c"][0]

    a, b = np.array([[0.3, -1.2]]), np.array([2.0, 0.5])
    tree = {"a": [a, {"b": b}], "c": (np.array(1.5),)}
    expected = {"a": [np.cos(a) * b, {"b": np.sin(a)[0]}], "c": (np.array(3.0),)}
    assert_trees_close(G.complex_step_gradient(loss(np), tree), expected, 8 * EPS, "complex step")
    assert_trees_close(G.autograd_gradient(loss(anp), tree), expected, 8 * EPS, "autograd")
    exact = G.mpmath_gradient(loss(P.mp_numpy()), tree)
    assert_trees_close(exact, expected, 8 * EPS, "mpmath")
    with mpmath.workdps(60):  # d^2 sin'''/6 and 10^-60/d, with d = 1e-20
        assert abs(exact["a"][0][0, 0] - 2 * mpmath.cos(mpf(0.3))) < mpf("1e-38")


BY_HAND = [
    (P.mlp(0, 2, 3), P.mlp_vjp, T.midpoint),
    (P.mlp(0, 2, 3), P.mlp_vjp, T.bosh3),
    (P.swinging_riccati(), P.swinging_riccati_vjp, T.rk4),
    (P.swinging_riccati(), P.swinging_riccati_vjp, T.tsit5),
]


def outputs_of_by_hand(problem, ts, y0, params, tableau, lam, xp):
    """loss = sum (3 y_2^2 + y_N^2): y_2 and y_N are outputs, the others are not."""
    ys = L.coupled(problem.field(xp), y0, ts, params, tableau, lam)
    return 3 * xp.sum(ys[2] * ys[2]) + xp.sum(ys[-1] * ys[-1])


def by_hand(problem, make_vjp, ts, y0, params, tableau, lam, xp):
    f = problem.field(xp)
    states = L.coupled_states(f, y0, ts, params, tableau, lam)
    cotangents = [None, None, 6 * states[2][0], None, 2 * states[-1][0]]
    gy, gp, start = G.coupled_gradient_by_hand(
        lambda t, y: f(t, y, params), make_vjp(xp, params), states[-1], ts, tableau, lam, cotangents
    )
    return {"y0": gy, "params": gp}, start


@pytest.mark.parametrize("problem, make_vjp, tableau", BY_HAND, **by_name)
def test_coupled_by_hand_in_floats(problem, make_vjp, tableau):
    ts = times(problem)
    ours, start = by_hand(problem, make_vjp, ts, problem.y0, problem.params, tableau, LAM, np)
    desired = G.complex_step_gradient(
        lambda tree: outputs_of_by_hand(problem, ts, tree["y0"], tree["params"], tableau, LAM, np),
        start_of(problem),
    )
    ours["params"] = {name: ours["params"][name] for name in problem.params}
    # the reconstruction adds lam^-4 = 1.5 to the growth already in FLOAT_RTOL
    assert_trees_close(ours, desired, 1.5 * FLOAT_RTOL, tableau.name)
    assert_trees_close(start, (problem.y0, problem.y0), 1.5 * FLOAT_RTOL, "round trip")


@pytest.mark.parametrize("problem, make_vjp, tableau", BY_HAND, **by_name)
def test_coupled_by_hand_in_fifty_digits(problem, make_vjp, tableau):
    """50 digits against differences with d = 1e-18: truncation d^2 = 1e-36, cancellation 1e-50/d = 1e-32;
    the factor 1e4 covers constants. A wrong term would show at any size above 1e-28."""
    xp = P.mp_numpy()
    with mpmath.workdps(50):
        ts = [mpf(float(t)) for t in times(problem)]
        lam = mpf("0.9")
        y0, params = G.to_mpf(problem.y0), G.tree_map(G.to_mpf, problem.params)
        ours, start = by_hand(problem, make_vjp, ts, y0, params, tableau, lam, xp)
        ours["params"] = {name: ours["params"][name] for name in params}
        desired = G.mpmath_gradient(
            lambda tree: outputs_of_by_hand(problem, ts, tree["y0"], tree["params"], tableau, lam, xp),
            start_of(problem),
            dps=50,
            step="1e-18",
        )
        assert_trees_close(ours, desired, mpf("1e-28"), tableau.name)
        # rounding 10^-50, 4 steps of growth below 5 each, some hundred operations
        assert_trees_close(start, (y0, y0), mpf("1e-45"), "round trip")


def test_mlp_vjp_on_a_batch_equals_autograd():
    problem = P.mlp(3, 4, 6)
    rng = np.random.default_rng(5)
    y, a = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    a_y, a_p = P.mlp_vjp(np, problem.params)(0.0, y, a)
    desired = G.autograd_gradient(
        lambda t: anp.sum(a * problem.field(anp)(0.0, t["y"], t["p"])), {"y": y, "p": problem.params}
    )
    # sums of at most 6 products, twice, and of 6 batch entries: below 50 operations
    assert_trees_close(
        {"y": a_y, "p": {name: a_p[name] for name in problem.params}}, desired, 50 * EPS, "mlp vjp"
    )


FIELD_VALUES = [  # (problem, other params, t, y, f worked out by hand)
    (P.linear_decay(), {}, 0.0, [2.0, 3.0], [-1.4, -0.9]),
    (P.pendulum(), {}, 0.0, [np.pi / 6, 2.0], [2.0, -1.1]),
    (P.lorenz(), {}, 0.0, [1.0, 3.0, 2.0], [20.0, 23.0, -7.0 / 3.0]),
    (P.van_der_pol(), {}, 0.0, [2.0, 3.0], [3.0, -15.5]),
    (P.white_dwarf(), {}, 1.5, [0.251**0.5, 3.0], [3.0, -3.125]),
    (P.swinging_riccati(), {}, np.pi / 6, [2.0, 3.0], [-1.6, -3.6]),
    (P.henon_heiles(), {"mu": 0.5}, 0.0, [2.0, 3.0], [-8.0, -0.5]),
    (P.driven_oscillator(), {}, np.pi / 6, [2.0], [-4.15]),
]


@pytest.mark.parametrize("problem, other, t, y, f", FIELD_VALUES, **by_name)
def test_fields_at_a_point_worked_out_by_hand(problem, other, t, y, f):
    field = problem.acceleration if isinstance(problem, P.SplitProblem) else problem.field
    y, params = np.array([y, y]), {**problem.params, **other}
    # below 10 operations on numbers up to 30; the second row checks that batches pass through
    assert_allclose(field(np)(t, y, params), [f, f], rtol=0, atol=10 * 30 * EPS)


def test_exact_solution_of_linear_decay():
    problem = P.linear_decay()
    # tsit5 with h = 0.05: (k h)^5 < 6e-8 per unit time, and its error constant is below 1e-3
    run = worst_error(
        lambda f, y0, ts, p: L.runge_kutta(f, y0, ts, p, T.tsit5), problem, np.linspace(0, 2, 41)
    )
    assert run < 1e-10


def test_henon_heiles_energy_worked_out_by_hand():
    energy = P.henon_heiles_energy(np.array([2.0, 3.0]), np.array([3.0, 2.0]), {"mu": 0.5})
    assert energy == 6.5 + 6.5 + 0.5 * (12 - 9)  # small halves: exact


def test_henon_heiles_acceleration_is_minus_the_slope_of_the_energy():
    problem = P.henon_heiles()
    slope = G.complex_step_gradient(
        lambda q: P.henon_heiles_energy(q, problem.v0, problem.params), problem.q0
    )
    ours = problem.acceleration(np)(0.0, problem.q0, problem.params)
    assert_allclose(ours, -slope, rtol=10 * EPS)  # 6 operations


# ---------------------------------------------------------------------------------------------- checkpointing


def fewest_advances_by_search(N, n):
    """Shortest path over all schedules: no recursion assumed, any order of storing, dropping and restoring.

    A schedule's state is (steps still to reverse, where we stand, what is stored). Advancing costs 1;
    storing, dropping, restoring and the taped step with its pullback cost 0. y0 starts stored."""
    start = (N, 0, frozenset([0]))
    best, queue, count = {start: 0}, [(0, 0, start)], 0
    while queue:
        cost, _, (left, at, stored) = heapq.heappop(queue)
        if left == 0:
            return cost
        if cost > best[left, at, stored]:
            continue
        moves = [(0, (left, s, stored)) for s in stored]  # restore
        moves += [(0, (left, at, stored - {s})) for s in stored]  # drop
        if at < left - 1:
            moves.append((1, (left, at + 1, stored)))  # advance
        if len(stored) < n:
            moves.append((0, (left, at, stored | {at})))  # store
        if at == left - 1:  # tape, pull back, restore
            moves += [(0, (left - 1, s, stored)) for s in (stored if left > 1 else [0])]
        for extra, state in moves:
            if cost + extra < best.get(state, 10**9):
                best[state] = cost + extra
                count += 1
                heapq.heappush(queue, (cost + extra, count, state))
    raise AssertionError("no schedule")


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_minimal_advances_is_the_minimum_over_all_schedules(n):
    assert [G.minimal_advances(N, n) for N in range(1, 9)] == [
        fewest_advances_by_search(N, n) for N in range(1, 9)
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13])
def test_minimal_advances_equals_the_closed_form(n):
    table = {N: G.minimal_advances(N, n) for N in (*range(1, 41), 64, 100, 150)}
    assert table == {N: G.minimal_advances_closed_form(N, n) for N in table}
    if n == 1:
        assert table[100] == 4950  # 99 + 98 + .. + 0
    if n == 13:
        assert table[14] == 13  # one sweep storing everything: N - 1

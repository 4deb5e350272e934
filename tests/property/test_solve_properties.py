"""Round trip and reversible gradient within the bound of METHODS section 9, over random fields, sizes, steps and
methods.

Largest entries throughout: |x| of a state is the largest entry of all its parts, |a| of a cotangent the sum of its
entries (the dual norm, so that |J^T a| <= L |a| where |J x| <= L |x|). The field is f = tanh(y W1 + b1 t) W2 + b2, and

    L = (largest absolute column sum of W1) (that of W2)          since |tanh'| <= 1: |f(x) - f(y)| <= L |x - y|

Reverse Lipschitz bound of a shear  x <- scale x + add(others):   (1 + L_add)/|scale|, and forward  |scale| + L_add.
L_add of the shears: Psi of a base method: |h| sum |b_i| L_i with L_i = L (1 + |h| sum_j |a_ij| L_j); `about` adds 1 -
lam.

Round-off. When a shear is undone on the same parts, its increment is the same to the bit, because the same code gets
the same bits. What is left is scale x (1 rounding), the sum (1), the difference (1) and the quotient (1), all of
numbers at most M / |scale|, M the largest of |x| before and after, and about (1 more). So each shear loses at most
5/|scale| units u M, where u M = (eps/2) M <= one ulp of M; and what is wrong with the parts afterwards, e, becomes at
most (1 + L_add)/|scale| e. With G the product over the shears of a step, S of them, after N steps (twice, because M is
taken from the forward states, and the reconstruction may be larger by its own error):

    |error| <= 2 * sum_{k < N} G^k * S * 5 G ulp(M)             (METHODS: round-off of one step times (G^N - 1)/(G - 1))

Gradient. a_n = J_n(x_n)^T a_{n+1}. The reconstruction moves x_n by at most E, so J_n by K E with K the Lipschitz
constant of the vjp, and each vjp rounds at most c times; both are passed on by the remaining steps, forward bound Gf
each:

    |a_rev - a_direct| <= N Gf^N (K E + c u) |a_N|,      the same for params, whose vjp has |dF/dp| <= K as well
"""
from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

import revode as rv
from revode.methods.increment import Evaluator, System
from revode.methods.shears import Step, Swap, forward, inverse
from revode.methods.tableaux import tableau
from revode.stepping import Stats
from tests.method_cases import plain_field


class Drawn(NamedTuple):
    method: Any
    y0: Any
    params: dict
    ts: np.ndarray
    dtype: Any
    L: float


BASES = ("euler", "midpoint", "heun2", "ralston3", "bosh3", "rk4", "dopri5", "tsit5")
METHODS = st.one_of(
    st.builds(lambda base, lam: rv.Coupled(base, lam), st.sampled_from(BASES), st.floats(0.8, 1.0)),
    st.builds(lambda eta: rv.AsynchronousLeapfrog(eta), st.one_of(st.just(1.0), st.floats(0.85, 1.0))),
    st.just(rv.ReversibleHeun()), st.just(rv.LeapfrogMidpoint()), st.just(rv.SemiImplicitEuler()),
    st.just(rv.VelocityVerlet()),
    st.sampled_from([rv.Composition(m) for m in (rv.AsynchronousLeapfrog(), rv.ReversibleHeun(), rv.VelocityVerlet())]),
)


@st.composite
def problems(draw: Any, most_steps: int) -> Drawn:
    """A method, a random network, a state of any shape, and a uneven grid forwards or backwards with |h| L <= .4."""
    method, dtype = draw(METHODS), draw(st.sampled_from([np.float64, np.float32]))
    d, width, N = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, most_steps))
    lead = draw(st.sampled_from([(), (2,), (1, 3)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    gain = draw(st.floats(0.1, 3.0))
    params = {"W1": gain * rng.normal(size=(d, width)), "b1": rng.normal(size=width), "W2": rng.normal(size=(width, d)),
              "b2": rng.normal(size=d)}
    params = {name: w.astype(dtype) for name, w in params.items()}
    L = float(abs(params["W1"]).sum(0).max() * abs(params["W2"]).sum(0).max())
    longest = min(0.3, 0.4 / max(L, 1.0))
    h = longest * rng.uniform(0.2, 1.0, N) * draw(st.sampled_from([1.0, -1.0]))
    ts = draw(st.sampled_from([0.0, -0.7, 2.0])) + np.concatenate([[0.0], np.cumsum(h)])
    size = draw(st.sampled_from([1e-3, 1.0, 30.0]))
    y0 = (size * rng.normal(size=(*lead, d))).astype(dtype)
    if len(method.outputs) > 1:
        y0 = (y0, (size * rng.normal(size=(*lead, d))).astype(dtype))
    return Drawn(method, y0, params, ts, dtype, L)


def lipschitz_of_psi(base: Any, h: float, L: float) -> float:
    tab, stages = tableau(base), []
    for row in tab.a:
        stages.append(L * (1 + h * sum(abs(float(a)) * k for a, k in zip(row, stages, strict=False))))
    return h * sum(abs(float(b)) * k for b, k in zip(tab.b, stages, strict=True))


def shear_bounds(method: Any, h: float, L: float) -> list[tuple[float, float]]:
    """(|scale|, L_add) of every shear of a step of size h, read off the table of METHODS section 1."""
    if isinstance(method, rv.Coupled):
        psi = lipschitz_of_psi(method.base, h, L)
        return [(method.lam, 1 - method.lam + psi), (1.0, psi)]
    if isinstance(method, rv.AsynchronousLeapfrog):
        return [(1.0, h / 2), (2 * method.eta - 1, 2 * method.eta * L), (1.0, h / 2)]
    if isinstance(method, rv.ReversibleHeun):
        return [(1.0, h * L / 2), (1.0, 2.0), (1.0, h * L / 2)]
    if isinstance(method, rv.LeapfrogMidpoint):
        return [(1.0, 2 * h * L)]                    # h here is the larger of the two steps
    if isinstance(method, rv.SemiImplicitEuler):
        return [(1.0, h * L), (1.0, h)]
    if isinstance(method, rv.VelocityVerlet):
        return [(1.0, h * L / 2), (1.0, h), (1.0, h * L / 2)]
    g1 = 1 / (2 - 2 ** (1 / 3))
    return [bound for g in (g1, 1 - 2 * g1, g1) for bound in shear_bounds(method.method, abs(g) * h, L)]


def growth(drawn: Drawn) -> tuple[float, float, int]:
    """(G, Gf, S): reverse and forward Lipschitz bounds of one step, and its number of shears."""
    bounds = shear_bounds(drawn.method, float(abs(np.diff(drawn.ts)).max()), drawn.L)
    G = float(np.prod([max(1.0, (1 + add) / scale) for scale, add in bounds]))
    Gf = float(np.prod([max(1.0, scale + add) for scale, add in bounds]))
    return G, Gf, len(bounds)


def states_of(drawn: Drawn) -> tuple[list, list]:
    """All forward states, and the words of the steps."""
    F = Evaluator(System(plain_field, Stats(), scalar=None if drawn.dtype is np.float64 else drawn.dtype), drawn.params)
    h = np.diff(drawn.ts).astype(drawn.dtype)
    steps = [Step(drawn.ts[n], drawn.ts[n + 1], np.asarray(h[n]), np.asarray(h[max(n - 1, 0)])) for n in range(len(h))]
    parts = drawn.method.start(F, steps[0], drawn.y0)
    states, words = [parts], [drawn.method.word(step) for step in steps]
    for word in words:
        states.append(forward(word, states[-1], F))
    return states, words


def largest(parts: dict) -> float:
    return max(float(abs(x).max()) for x in parts.values())


def ulp(M: float, dtype: Any) -> float:
    return float(np.spacing(np.asarray(M, dtype)))


def apart(a: dict, b: dict) -> float:
    return max(float(abs(a[name] - b[name]).max()) for name in a)


def fresh(drawn: Drawn) -> Evaluator:
    return Evaluator(System(plain_field, Stats(), scalar=None if drawn.dtype is np.float64 else drawn.dtype),
                     drawn.params)


@settings(max_examples=5 * settings.default.max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(problems(most_steps=12))
def test_inverse_undoes_steps_within_the_bound(drawn: Drawn) -> None:
    """RULP, at every step of the way back, against sum_{k<n} G^k * 5 S G, in ulps of the largest state."""
    states, words = states_of(drawn)
    G, _, S = growth(drawn)
    M = max(largest(state) for state in states)
    parts, F = states[-1], fresh(drawn)
    for n in reversed(range(len(words))):
        parts = inverse(words[n], parts, F)
        rulp = apart(parts, states[n]) / ulp(M, drawn.dtype)
        allowed = 2 * 5 * S * G * sum(G**k for k in range(len(words) - n))
        assert rulp <= allowed, f"RULP {rulp:.3g}, allowed {allowed:.3g}, at step {n} of {len(words)}, G = {G:.4g}"


@settings(max_examples=5 * settings.default.max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(problems(most_steps=1))
def test_a_step_undoes_the_inverse_within_the_bound(drawn: Drawn) -> None:
    """step(inverse(x)): the same count of roundings with the forward bound: what an undone shear leaves, e, is scaled
    and added to by at most |scale| + L_add, and the two roundings of a division by the scale are multiplied back by
    it."""
    states, words = states_of(drawn)
    _, Gf, S = growth(drawn)
    before = inverse(words[0], states[0], fresh(drawn))
    again = forward(words[0], before, fresh(drawn))
    M = max(largest(before), largest(states[0]), largest(again))
    middle = max((1 / scale for scale, _ in shear_bounds(drawn.method, abs(drawn.ts[1] - drawn.ts[0]), drawn.L)),
                 default=1.0)
    rulp, allowed = apart(again, states[0]) / ulp(M, drawn.dtype), 2 * 5 * S * Gf * middle
    assert rulp <= allowed, f"RULP {rulp:.3g}, allowed {allowed:.3g}, Gf = {Gf:.4g}"


@settings(max_examples=2 * settings.default.max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(problems(most_steps=6))
def test_inverse_is_exact_on_the_way_that_a_swap_takes(drawn: Drawn) -> None:
    """Names only: a word of swaps is undone bit for bit, whatever the parts."""
    parts = states_of(drawn)[0][0]
    names = list(parts)
    word = [Swap(names[0], names[1]), Swap(names[1], names[0]), Swap(names[0], names[1])]
    there = forward(word, parts, fresh(drawn))
    back = inverse(word, there, fresh(drawn))
    assert all(np.array_equal(back[name], parts[name]) for name in names)
    assert np.array_equal(there[names[0]], parts[names[1]])


def vjp_lipschitz(drawn: Drawn, M: float) -> float:
    """K: of the field's vjp in y, and |df/dp|, per unit of cotangent; tanh'' <= .77, |t| <= 6.

    d(J)/dy: (colsum W1)^2 (colsum W2) * .77.   df/dW2 = u <= 1, df/db2 = 1; df/dW1 = y tanh' W2 <= M |W2|, df/db1 <= 6
    |W2|; their derivatives in y: |W1| for W2, |W2| + .77 M |W1| |W2| for W1, 6 * .77 |W1| |W2| for b1. The sum of all
    bounds each.
    """
    A = float(abs(drawn.params["W1"]).sum(0).max())
    B = float(max(abs(drawn.params["W2"]).sum(0).max(), abs(drawn.params["W2"]).max()))
    return A * A * B + 2 + M * B + 6 * B + A + B + M * A * B + 6 * A * B


@settings(max_examples=4 * settings.default.max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(problems(most_steps=8), st.data())
def test_reversible_gradient_is_direct_within_the_bound(drawn: Drawn, data: Any) -> None:
    """GULP for y0 and params, all entries by the bound in the head of this file; c = 60 roundings of a vjp (inner
    products of 6 at most, twice, of tanh and its derivative, and the sums of a step), times the entries of a batch of
    at most 3 that are summed, times the evaluations of a step."""
    N = len(drawn.ts) - 1
    save = data.draw(st.sampled_from([[-1], None]))
    states, _ = states_of(drawn)
    G, Gf, S = growth(drawn)
    M = max(largest(state) for state in states)
    split = len(drawn.method.outputs) > 1
    rng = np.random.default_rng(N)
    shape = (drawn.y0[0] if split else drawn.y0).shape
    weights = rng.normal(size=(N + 1, *shape)).astype(drawn.dtype)

    def gradient(mode: Any) -> Any:
        def loss(y0: Any, p: dict) -> Any:
            sol = rv.solve(plain_field, y0, drawn.ts, p, method=drawn.method, gradient=mode, save=save)
            w = weights[-1:] if save else weights
            return sum(np.sum(w * ys) for ys in (sol.ys if split else (sol.ys,)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rv.ReconstructionWarning)      # here the bound is the judge
            return rv.grad(loss, (0, 1))(drawn.y0, drawn.params)

    eps = float(np.finfo(drawn.dtype).eps)
    E = 2 * 5 * S * G * sum(G**k for k in range(N)) * ulp(M, drawn.dtype)
    assume(E < 0.1 * max(M, 1.0))                     # beyond it the linearised bound says nothing
    evaluations = 12
    a = float(abs(weights[-1:] if save else weights).sum()) * (2 if split else 1)
    h = float(abs(np.diff(drawn.ts)).max())
    K = vjp_lipschitz(drawn, M)
    allowed = (N + 1) * Gf ** (N + 1) * evaluations * (K * h * E + 60 * 3 * eps / 2 * (1 + K * h)) * a
    actual, desired = gradient(rv.Reversible()), gradient(rv.Direct())
    leaves = zip(rv.tree.flatten(actual)[0], rv.tree.flatten(desired)[0], strict=True)
    worst = max(float(abs(np.asarray(x, float) - np.asarray(y, float)).max()) for x, y in leaves)
    top = max(float(abs(y).max()) for y in rv.tree.flatten(desired)[0])
    gulp = worst / ulp(max(top, 1e-30), drawn.dtype)
    note(f"GULP {gulp:.3g}; {worst / allowed:.1e} of the bound; G = {G:.4g}, Gf = {Gf:.4g}, E = {E:.2g}")
    assert worst <= allowed, f"GULP {gulp:.3g}: difference {worst:.3g}, allowed {allowed:.3g}"
    # The bound multiplies worst cases; whatever it says, half of the digits of the largest entry must be left while the
    # reconstruction has three quarters of its own.
    if E < eps**0.75 * M:
        assert worst <= eps**0.5 * max(top, a * eps**0.5), f"GULP {gulp:.3g}"

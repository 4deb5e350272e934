"""Exact mode: every bit of every state comes back, the gradient is that from stored states, and no more bits are kept than
contractions destroy.

Oracle of the values: whole numbers of Python, without a bound, in a loop of their own. Of the gradients: the sweep fed with stored
states (bit for bit), and full backpropagation (to the noise of the lattice).
"""
from __future__ import annotations

import math
from contextlib import nullcontext
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import revode as rv
from revode.checks import prepare
from revode.engine.tensor import RULES
from revode.engines.eager import enter, step_back, zeros
from revode.exact import FULL, Contract, Exact, Flushed, divided
from revode.gradients.cotangents import pull_start, spread
from revode.methods.increment import Recorder
from revode.problem import Asked
from revode.stepping import states
from tests.compiler import needs_compiler

rng = np.random.default_rng(7)


def network(t: Any, y: Any, params: Any) -> Any:
    return np.tanh(y @ params["A"] + params["b"] * t) - params["c"] * y


def acceleration(t: Any, q: Any, params: Any) -> Any:
    return -params["c"] * np.sin(q @ params["A"]) + 0.1 * t


PARAMS = {"A": rng.standard_normal((3, 3)), "b": rng.standard_normal(3), "c": np.array(0.3)}
Y0 = rng.standard_normal((2, 3))


def twisted(t0: Any, t1: Any, dx: Any) -> list:
    """A word of a user: scales of both signs, with and without about, and a swap."""
    return [rv.Shear("y", ("z",), lambda F, z: F(t0, z, dx), scale=0.75, about="z"),
            rv.Swap("y", "z"),
            rv.Shear("z", ("y",), lambda F, y: F(t1, y, dx) * 0.5, scale=-0.5),
            rv.Shear("y", ("z",), lambda F, z: F(t1, z, dx) * 0.25, scale=1.0625),
            rv.Shear("y", ("z",), lambda F, z: 0.1 * z * dx, scale=0.75),
            rv.Shear("z", ("y",), lambda F, y: 0.1 * y * dx, scale=-0.125, about="y")]


WORDS = {
    "coupled midpoint .999": (rv.Coupled("midpoint", lam=0.999), network),
    "coupled rk4 .98": (rv.Coupled("rk4", lam=0.98), network),
    "coupled tsit5 1": (rv.Coupled("tsit5", lam=1.0), network),
    "coupled euler 1/3": (rv.Coupled("euler", lam=1 / 3), network),
    "reversible heun": (rv.ReversibleHeun(), network),
    "alf": (rv.AsynchronousLeapfrog(), network),
    "alf .75": (rv.AsynchronousLeapfrog(eta=0.75), network),
    "alf .51": (rv.AsynchronousLeapfrog(eta=0.51), network),
    "leapfrog": (rv.LeapfrogMidpoint(), network),
    "composition": (rv.Composition(rv.ReversibleHeun()), network),
    "twisted": (rv.shears(twisted), network),
    "ees27": (rv.EES27(), network),
    "ees 4": (rv.EES(stages=4), network),
    "near rk4": (rv.NearReversible("rk4"), network),
    "verlet": (rv.VelocityVerlet(), acceleration),
    "euler": (rv.SemiImplicitEuler(), acceleration),
}


def start_of(method: Any) -> Any:
    return (Y0, 0.5 * Y0[::-1]) if len(method.outputs) > 1 else Y0


def grid(N: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, N + 1) ** 1.1             # steps of unlike size


def both(word: str, N: int = 60, exact: Any = True, **options: Any) -> tuple:
    """(loss, gradients, stats) of a solve."""
    method, field = WORDS[word]
    found: list = []

    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(field, y0, grid(N), params, method=method, save=[N // 3, N], exact=exact, **options)
        found.append(sol.stats)
        return sum(np.sum(np.sin(y)) for y in rv.tree.flatten(sol.ys)[0])

    value, gradients = rv.value_and_grad(loss, argnums=(0, 1))(start_of(method), PARAMS)
    return value, gradients, found[0]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(rv.tree.flatten(a)[0], rv.tree.flatten(b)[0], strict=True))


def fed(asked: Asked, slopes: dict) -> Any:
    """The gradients of a sweep that is fed with stored states, for a loss with these slopes at its outputs at grid points (-1: the
    last); on its way every state, and every buffer, is held against the one that had been there."""
    problem, initial, params, layout = prepare(asked)
    stored, R = [parts for _, parts in states(problem, initial, params)], Recorder(problem.system, params, zeros(params))
    outputs, a = problem.method.outputs, {name: 0 * x for name, x in stored[-1].items()}
    N = problem.N
    seeds = {n % (N + 1): tuple(layout.pack(slope(layout.open(stored[n][name])))[None] for name in outputs)
             for n, slope in slopes.items()}
    problem.flushed.turn()
    a = enter(a, outputs, seeds[N], 0) if N in seeds else a
    for n in range(N - 1, -1, -1):
        back, a = step_back(problem, n, stored[n + 1], a, R)
        assert same(problem.flushed.after(n, back), stored[n]), n
        a = enter(a, outputs, seeds[n], 0) if n in seeds else a
    assert not any(stored[0][name].any() for name in problem.method.buffers)
    assert problem.flushed.left == 0
    R.flush_all(a)
    a_initial, a_params = pull_start(problem, initial, params, a)
    R.collect(a_params)
    return layout.unpack(a_initial if isinstance(a_initial, tuple) else (a_initial,)), spread(params, R.aparams)


@pytest.mark.sample(6)
@pytest.mark.filterwarnings("ignore::revode.ParasiteWarning")          # not whether a method suits the problem
@pytest.mark.parametrize("word", WORDS)
class TestEveryWord:
    def test_every_state_comes_back_bit_for_bit(self, word: str) -> None:
        method, field = WORDS[word]
        ts = grid(200)
        states = [s for _, s in rv.steps(field, start_of(method), ts, PARAMS, method=method, exact=True)]
        ay1 = rv.tree.map(np.ones_like, start_of(method))
        backs = list(rv.steps_back(field, states[-1], ts, PARAMS, ay1=ay1))
        assert len(backs) == len(states) == 201
        for back, state in zip(backs[::-1], states, strict=True):
            assert same(back.state.parts, state.parts), state.n

    def test_the_gradient_is_that_of_a_sweep_fed_with_stored_states(self, word: str) -> None:
        method, field = WORDS[word]
        N = 60
        _, gradients, stats = both(word, N)
        assert stats.exact
        assert stats.roundtrip.absolute == 0.0
        assert same(gradients, fed(Asked(field, start_of(method), grid(N), PARAMS, method, exact=True), {N // 3: np.cos, N: np.cos}))

    def test_near_full_backpropagation_and_nearer_on_a_finer_lattice(self, word: str) -> None:
        """The lattice adds to every step a noise of 2^-(s+1), and a contraction p units more; N = 60 steps pass it on, amplified as
        the problem amplifies. Seen: below 1e-10 at s = 40, and 2^8 times less at s = 48, wherever rounding is not larger."""
        value, gradients, _ = both(word, exact=None, gradient=rv.Direct())
        offs = []
        for bits in (40, 48):
            of_exact, found, _ = both(word, exact=rv.Lattice(bits, digits=12))
            sizes = [np.abs(x).max() or 1.0 for x in rv.tree.flatten(gradients)[0]]
            offs.append(max(np.abs(x - y).max() / s for x, y, s in zip(
                rv.tree.flatten(found)[0], rv.tree.flatten(gradients)[0], sizes, strict=True)))
            assert abs(of_exact - value) < 1e-8 * abs(value)
        noise = 4096 * 60 * 2.0 ** -40                     # the largest p, every step, in units of the lattice
        assert offs[0] < 100 * noise
        assert offs[1] < max(offs[0] / 16, 1e-12)

    def test_the_bits_that_it_keeps(self, word: str) -> None:
        *_, stats = both(word, 600)
        method, _ = WORDS[word]
        contractions = Exact(method, 48).contractions
        elements = Y0.size
        assert stats.bits_bound == pytest.approx(600 * elements * sum(math.log2(x.q / x.p) for x in contractions), abs=1e-9)
        # 3 % above what is destroyed, and what a buffer of numbers below q p begins with
        constant = sum(math.log2(x.p * x.q) + 2 for x in contractions) * elements
        assert max(stats.bits_bound, 0) <= stats.bits_stored + constant
        assert stats.bits_stored <= 1.03 * max(stats.bits_bound, 0) + constant


def test_the_states_are_those_of_whole_numbers() -> None:
    """Coupled Euler in a loop of Python's integers: no float but the field's. (What leaves the buffer takes part no more, so it has to
    leave at the same steps.)"""
    lam, bits, N = Fraction(49, 50), 44, 3000
    ts = np.linspace(0.0, 3.0, N + 1)
    y0 = np.array([0.3, -1.2])

    def field(t: float, y: Any, params: Any) -> Any:
        return np.sin(y) * params - 0.5 * y

    def whole(x: np.ndarray) -> list[int]:
        return [round(Fraction(float(a)) * 2 ** bits) for a in x]          # to even, as in floating point

    sol = rv.solve(field, y0, ts, 1.5, method=rv.Coupled("euler", lam=float(lam)), exact=rv.Lattice(bits))
    flushed = {n: low for n, _, low in sol.state.bits}
    unit, y, z, B = 2.0 ** -bits, whole(y0), whole(y0), [0, 0]
    oracle = [list(y)]
    for n in range(N):
        h = ts[n + 1] - ts[n]
        for i in range(2):
            if n in flushed:
                B[i], low = divmod(B[i], 2 ** 32)
                assert low == flushed[n][i]
            a, r = divmod(y[i] - z[i], lam.denominator)
            B[i], s = divmod(B[i] * lam.denominator + r, lam.numerator)
            y[i] = z[i] + a * lam.numerator + s
        y = [a + b for a, b in zip(y, whole(field(ts[n], np.array(z) * unit, 1.5) * h), strict=True)]
        z = [a + b for a, b in zip(z, whole(-(field(ts[n + 1], np.array(y) * unit, 1.5) * -h)), strict=True)]
        oracle.append(list(y))
    assert len(flushed) == 2                                # .029 bits a step: 40 for the first time after 1400
    assert np.array_equal(sol.ys, np.array(oracle) * unit)
    assert sol.state.parts["bits_y"].tolist() == B


@settings(max_examples=2 * settings.default.max_examples)
@given(st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 4096)), min_size=1, max_size=40), st.integers(0, 2 ** 32 - 1))
def test_contractions_are_bijections_with_the_buffers_of_whole_numbers(ratios: list, seed: int) -> None:
    """Push and pop against Python's integers, for scales of all kinds, as long as the buffer has room."""
    rng = np.random.default_rng(seed)
    D = rng.integers(-2 ** 38, 2 ** 38, 50)
    x, B = {"y": D.astype(float), "b": np.zeros(50)}, [0] * 50
    whole, done = [int(d) for d in D], []
    for p, q in ratios:
        if max(B) * q + q > FULL or max(abs(d) for d in whole) * p // q > 2 ** 52:
            break
        element = Contract("y", None, "b", 1, p, q, 1.0)
        element.forward(x, SimpleNamespace(memo={}, most=None))
        for i, d in enumerate(whole):
            a, r = divmod(d, q)
            B[i], s = divmod(B[i] * q + r, p)
            whole[i] = a * p + s
        assert x["y"].tolist() == whole
        assert x["b"].tolist() == B
        done.append(element)
    for element in reversed(done):
        element.inverse(x, SimpleNamespace(memo={}, most=None))
    assert np.array_equal(x["y"], D)
    assert not x["b"].any()


@example([-2 ** 53 + 7], 31)                                   # a q lies beyond 2^53
@given(st.lists(st.integers(-2 ** 53 + 1, 2 ** 53 - 1), min_size=1), st.integers(1, 4096))
def test_division_of_whole_numbers_in_both_forms(numbers: list, q: int) -> None:
    few, many = np.array(numbers, float), np.resize(np.array(numbers, float), 3000)
    for x in (few, many):
        a, r = divided(x, q)
        expected = [divmod(int(n), q) for n in x]
        assert list(zip(a.tolist(), r.tolist(), strict=True)) == expected


def rotated(t: Any, y: Any, params: Any) -> Any:
    return np.roll(y, 1, axis=-1) * np.cos(t) - y ** 3 * params["c"] / (1 + y * y)


def bent(t: Any, y: Any, params: Any) -> Any:
    return np.where(y > params["b"], np.maximum(y, -1.0) * 0.3, y @ params["A"]) - np.mean(y, axis=-1, keepdims=True)


@st.composite
def words(draw: Any) -> tuple:
    """(a word of random shears over three parts, whether it may grow): scales of both signs, about a part or not, above 1; a Swap."""
    names, wild, chosen = ("y", "z", "w"), draw(st.booleans()), []
    for _ in range(draw(st.integers(1, 5))):
        target = draw(st.sampled_from(names))
        reads = tuple(n for n in names if n != target)
        q = draw(st.integers(1, 4096 if draw(st.booleans()) else 12))
        p = draw(st.integers(max(1, q // 2), q + (q // 8 if wild else 0)))
        about, sign = draw(st.sampled_from([None, *reads])), draw(st.sampled_from([1, -1]))
        if about is not None and sign < 0 and (not wild or any(x[3] and x[2] < 0 for x in chosen)):
            sign = 1                                         # else each step might make the state three times as large, and again
        chosen.append((target, reads, sign * p / q, about, draw(st.floats(-1, 1))))
    swap = draw(st.booleans())

    def step(t0: Any, t1: Any, dx: Any) -> list:
        def shear(target: str, reads: tuple, scale: float, about: str | None, c: float) -> rv.Shear:
            return rv.Shear(target, reads, lambda F, u, v: F(t0, u, dx) * c + F(t1, v, dx * c), scale, about)
        return [shear(*x) for x in chosen] + ([rv.Swap("y", "w")] if swap else [])

    return rv.shears(step, parts=names), wild


NOISE = {"none": {}, "diagonal": {"diffusion": lambda t, y, p: 0.2 * np.cos(y) * p["c"], "noise": rv.Brownian(3)},
         "general": {"diffusion": lambda t, y, p: np.stack([0.1 * np.sin(y), 0.2 * y @ p["A"]], -1), "noise": rv.Brownian(4)},
         "tree": {"diffusion": lambda t, y, p: 0.2 * np.cos(y) * p["c"], "noise": rv.BrownianTree(5, 0.0, 20.0)}}


@settings(max_examples=2 * settings.default.max_examples)
@given(words(), st.data())
def test_random_words_come_back_at_every_step(drawn: tuple, data: st.DataObject) -> None:
    """Random words, fields, grids, dtypes, noise, saved and kept states: every bit of every state, and the gradient from stored states
    in every bit."""
    method, wild = drawn
    field, noise = data.draw(st.sampled_from([network, rotated, bent])), NOISE[data.draw(st.sampled_from(list(NOISE)))]
    dtype: Any = data.draw(st.sampled_from([np.float64, np.float32]))
    N = data.draw(st.integers(1, 6 if wild else 40))
    ts = np.cumsum(np.random.default_rng(data.draw(st.integers(0, 99))).uniform(1e-3, 0.05, N + 1))
    y0, params = Y0.astype(dtype), rv.tree.map(lambda x: x.astype(dtype), PARAMS)
    options: dict = {"method": method, "exact": rv.Lattice(data.draw(st.integers(24, 36)))}
    middle, resync = N // 2, data.draw(st.sampled_from([None, 1, 7]))
    found = []

    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(field, y0, ts, params, save=[middle, N] if middle < N else [N], gradient=rv.Reversible(resync),
                       backend="eager", **options, **noise)
        found.append(sol.stats)
        return np.sum(np.sin(sol.ys))

    gradients = rv.grad(loss, argnums=(0, 1))(y0, params)
    assert found[0].exact
    # with kept states the pending pullbacks come in at each of them: the same numbers, summed in another order
    truth = fed(Asked(field, y0, ts, params, **options, **noise), {middle: np.cos, N: np.cos})
    if resync is None:
        assert same(gradients, truth)
    for a, b in zip(rv.tree.flatten(gradients)[0], rv.tree.flatten(truth)[0], strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e4 * float(np.finfo(dtype).eps) * (1 + np.max(np.abs(b))))


class TestAround:
    """Everything that a solve may be, besides the word."""

    def test_noise(self) -> None:
        ts = np.linspace(0.0, 1.0, 301)
        for method in (rv.Coupled("heun2", lam=0.99), rv.ReversibleHeun()):
            for noise in (rv.Brownian(3), rv.BrownianTree(3, 0.0, 1.0)):
                found = []

                def loss(y0: Any, params: Any, method: Any = method, noise: Any = noise, found: Any = found) -> Any:
                    sol = rv.solve(network, y0, ts, params, method=method, noise=noise,
                                   diffusion=lambda t, y, p: 0.2 * np.cos(y) * p["c"],
                                   exact=True)
                    found.append(sol.stats)
                    return np.sum(sol.y1 ** 2)

                rv.value_and_grad(loss, argnums=(0, 1))(Y0, PARAMS)
                assert found[0].exact

    def test_a_control(self) -> None:
        times = np.linspace(0.0, 1.0, 41)
        control = rv.HermiteCubic(times, np.stack([times, np.sin(3 * times)], -1))
        found = []

        def loss(y0: Any, W: Any) -> Any:
            sol = rv.solve(lambda t, y, W: np.tanh(y @ W).reshape(2, 3, 2), y0, times, W, control=control, method=rv.Coupled(lam=0.9),
                           exact=True)
            found.append(sol.stats)
            return np.sum(sol.y1 ** 2)

        rv.value_and_grad(loss, argnums=(0, 1))(Y0, rng.standard_normal((3, 6)))
        assert found[0].exact

    @pytest.mark.parametrize("method", [rv.Coupled("bosh3", lam=0.95), rv.ReversibleHeun()])
    def test_adaptive_steps_leave_no_bits_of_what_was_rejected(self, method: Any) -> None:
        found = []

        def loss(y0: Any, params: Any) -> Any:
            sol = rv.solve(lambda t, y, p: p["c"] * np.cos(40 * t * t) * y + np.tanh(y @ p["A"]), y0, (0.0, 1.0), params,
                           method=method,
                           controller=rv.PID(1e-6, 1e-8), exact=True)
            found.append(sol.stats)
            return np.sum(sol.y1 ** 2)

        rv.value_and_grad(loss, argnums=(0, 1))(Y0, PARAMS)
        assert found[0].exact
        assert found[0].rejected > 3

    @pytest.mark.sample(1, cover=False)
    @pytest.mark.parametrize("method, noise", [
        (rv.Coupled("bosh3", lam=0.95), "none"), (rv.Coupled("tsit5", lam=1 / 3), "none"), (rv.NearReversible("tsit5"), "none"),
        (rv.NearReversible("bosh3"), "none"), (rv.ReversibleHeun(), "tree")], ids=repr)
    def test_every_state_of_adaptive_steps(self, method: Any, noise: str) -> None:
        how = {"method": method, "controller": rv.PID(1e-4, 1e-6), "exact": rv.Lattice(44, digits=12), **NOISE[noise]}
        steep = lambda t, y, p: p["c"] * np.cos(40 * t * t) * y + np.tanh(y @ p["A"])
        found: list = []

        def loss(y0: Any, params: Any) -> Any:
            found.append(rv.solve(steep, y0, (0.0, 1.0), params, backend="eager", **how))
            return np.sum(np.sin(found[-1].y1))

        gradients = rv.grad(loss, argnums=(0, 1))(Y0, PARAMS)
        assert found[0].stats.exact
        assert found[0].stats.rejected > 1
        assert same(gradients, fed(Asked(steep, Y0, (0.0, 1.0), PARAMS, **how), {-1: np.cos}))

    def test_an_empty_buffer_where_a_solve_goes_on(self) -> None:
        method, ts = rv.Coupled("midpoint", lam=0.98), grid(100)
        first = rv.solve(network, Y0, ts[:51], PARAMS, method=method, exact=rv.Lattice(46))
        second = rv.solve(network, None, ts[50:], PARAMS, state0=first.state)
        assert same(second.state.parts["bits_y"] * 0, np.zeros_like(Y0))
        backs = list(rv.steps_back(network, second.state, ts[50:], PARAMS, ay1=np.ones_like(Y0)))
        assert not backs[-1].state.parts["bits_y"].any()
        assert same(backs[-1].state.parts["y"], first.state.parts["y"])

    def test_a_second_pull_and_a_kept_state_every_seven_steps(self) -> None:
        method = rv.Coupled("midpoint", lam=0.9)
        for resync in (None, 7):
            sol, pull = rv.vjp(lambda y0: rv.solve(network, y0, grid(300), PARAMS, method=method, exact=True,
                                                   gradient=rv.Reversible(resync=resync)).y1, Y0)
            one, two = pull(np.ones_like(sol)), pull(np.ones_like(sol))
            assert same(one, two)

    def test_float32_on_a_state_of_float64(self) -> None:
        """The field in float32, on states that do not lose what it adds: nearer to float64 than a solve in float32 is."""
        ts, method = np.linspace(0.0, 2.0, 2001), rv.Coupled("midpoint", lam=0.99)
        y0, seen = Y0.astype(np.float32), []

        def field(t: Any, y: Any, params: Any) -> Any:
            seen.append((np.asarray(rv.engine.tensor.value_of(y)).dtype, np.asarray(rv.engine.tensor.value_of(t)).dtype))
            return np.tanh(y @ params["A"]) * params["k"] - y

        def loss(y0: Any, params: Any, **options: Any) -> Any:
            sol = rv.solve(field, y0, ts, params, method=method, save=[-1], **options)
            assert sol.ys.dtype == y0.dtype
            return np.sum(sol.y1 ** 2)

        params = {"A": PARAMS["A"].astype(np.float32), "k": 0.5}
        value, (a, g) = rv.value_and_grad(loss, argnums=(0, 1))(y0, params, exact=True)
        assert set(seen) == {(np.dtype(np.float32), np.dtype(np.float32))}
        assert (value.dtype, a.dtype, g["A"].dtype) == (np.float32,) * 3
        double = {"A": PARAMS["A"].astype(np.float32).astype(float), "k": 0.5}
        truth, (b, _) = rv.value_and_grad(loss, argnums=(0, 1))(y0.astype(float), double, gradient=rv.Direct())
        plain = loss(y0, params)
        # values of the field are rounded to 2^-24, at random; sums of 2000 steps of 1e-3 are not
        assert abs(value - truth) < 4 * 2.0 ** -24 * abs(truth)
        assert abs(value - truth) <= abs(plain - truth)
        assert np.abs(a - b).max() < 1e-5 * np.abs(b).max()

    def test_float32_of_a_field_that_widens_it(self) -> None:
        with pytest.raises(TypeError, match="returns float32"):
            rv.solve(lambda t, y, p: y * np.float64(2.0) * np.ones(3), Y0.astype(np.float32), grid(20), method=rv.Coupled(),
                     exact=True)

    def test_the_default_method(self) -> None:
        found = []

        def loss(y0: Any) -> Any:
            found.append(rv.solve(lambda t, y, p: -5 * y, y0, np.linspace(0, 2, 201), exact=True))
            return np.sum(found[-1].y1)

        g = rv.grad(loss)(np.ones(2))
        assert found[0].stats.exact
        assert np.allclose(g, math.exp(-10), rtol=1e-5)       # RK4's own error: (5 h)^4 / 120 a unit of 5 t


class TestRefusals:
    def refuse(self, kind: type, words: str, **options: Any) -> None:
        with pytest.raises(kind, match=words):
            rv.solve(network, options.pop("y0", Y0), grid(20), PARAMS, **options)

    def test_what_is_no_word(self) -> None:
        self.refuse(TypeError, "way to run backwards", method=rv.RungeKutta("rk4"), exact=True)

    def test_a_scale_that_is_no_ratio(self) -> None:
        self.refuse(ValueError, r"nearest is .* = 0\.3678", method=rv.Coupled(lam=math.exp(-1)), exact=True)

    def test_modes_that_do_not_run_backwards(self) -> None:
        for mode in (rv.Direct(), rv.Checkpointed(3), rv.Backsolve(), rv.Automatic()):
            self.refuse(TypeError, "Reversible", method=rv.Coupled(), exact=True, gradient=mode)

    def test_what_is_no_lattice(self) -> None:
        self.refuse(TypeError, "Lattice", method=rv.Coupled(), exact=44)
        with pytest.raises(ValueError, match="0 to 60"):
            rv.Lattice(bits=70)

    def test_a_state_too_small_for_the_lattice(self) -> None:
        """2^-24 has 24 bits beside 2^-48, of which 20 scales by 999/1000 stir 20,000 units, 1.2e-3, at most; rounded to
        nothing, y would be 0 all along."""
        def solve(size: float, exact: Any = True) -> Any:
            return rv.solve(lambda t, y, p: -y, np.array([size, 0.0]), np.linspace(0, 1, 11), method=rv.Coupled("rk4"), exact=exact)

        for size, exact in ((1e-18, True), (2.0**-24 * 0.99, True), (1e-7, rv.Lattice(bits=30))):
            with pytest.raises(ValueError, match=r"finer lattice, Lattice\(bits=60\)"):
                solve(size, exact)
        assert abs(solve(2.0**-24).y1[0] / 2.0**-24 / math.exp(-1) - 1) < 2.0**-8
        assert abs(solve(2.0**-36, rv.Lattice(bits=60)).y1[0] * 2.0**36 / math.exp(-1) - 1) < 2.0**-8
        assert np.all(solve(0.0).ys == 0)

    def test_a_state_that_leaves_the_lattice(self) -> None:
        with pytest.raises(OverflowError, match=r"Lattice\(bits=\d+\)"):
            rv.solve(lambda t, y, p: 8 * y, np.ones(2), np.linspace(0, 1, 101), method=rv.Coupled("rk4"), exact=True)
        sol = rv.solve(lambda t, y, p: 8 * y, np.ones(2), np.linspace(0, 1, 101), method=rv.Coupled("rk4"), exact=rv.Lattice(bits=40))
        assert np.allclose(sol.y1, math.exp(8), rtol=1e-4)

    def test_a_field_that_is_another_one_on_the_way_back(self) -> None:
        calls = [0]

        def field(t: Any, y: Any, params: Any) -> Any:
            calls[0] += 1
            return -y * (1.0 + 1e-14 * (calls[0] > 150))

        with pytest.raises(rv.ReconstructionError, match="did not come back"):
            rv.grad(lambda y0: np.sum(rv.solve(field, y0, grid(50), method=rv.Coupled(), exact=True, backend="eager").y1))(Y0)

    def test_a_field_that_has_other_bits_for_tensors(self) -> None:
        """One bit, which a solve in floating point does not mind, at the first value."""
        for options in ({}, {"exact": True}):
            field = lambda t, y, p: -y * (1.0 + 2.0 ** -52 * (type(y) is np.ndarray))
            line = r"another one for a tensor \(at t=0, in line \d+ of test_exact.py \(field = lambda t, y, p: -y"
            with pytest.raises(TypeError, match=line) if options else nullcontext():
                rv.solve(field, Y0, grid(20), method=rv.Coupled(), **options)                                   # type: ignore[arg-type]

    @pytest.mark.parametrize("y0", [Y0, {"a": Y0, "b": Y0[0]}], ids=["array", "tree"])
    def test_the_operation_that_has_other_bits_is_named(self, y0: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A number to a power is taken by the C library, an array by NumPy's loops, which on some processors (AVX-512) round otherwise
        one time in twenty. Here that of an array without axes always does, on every processor."""
        power, k = RULES[np.power], np.float64(0.7)
        monkeypatch.setitem(RULES, np.power, power._replace(
            forward=lambda a, b: np.power(a, b) if np.ndim(a) or a == 1.0 else np.nextafter(np.power(a, b), 9.0)))

        def field(t: Any, y: Any, params: Any) -> Any:
            slow = np.tanh(params["k"])
            fast = params["k"] ** 3
            return rv.tree.map(lambda x: -x * fast * slow, y)

        named = r"\(at t=0, from \*\* in line \d+ of test_exact.py \(fast = params\[.k.\] \*\* 3\)\).*k \* k \* k"
        with pytest.raises(TypeError, match=named):
            rv.solve(field, y0, grid(20), {"k": k}, method=rv.Coupled(), exact=True)
        for other in (np.array([k]), 1.0):
            rv.solve(field, y0, grid(20), {"k": other}, method=rv.Coupled(), exact=True)

    def test_a_way_back_that_misses_by_more_than_is_kept(self) -> None:
        self.refuse(OverflowError, "keeps 8 bits .*digits=12", method=rv.EES25(), exact=True)
        with pytest.raises(ValueError, match="from 2 to 12"):
            rv.Lattice(digits=13)

    def test_one_step_that_destroys_too_much(self) -> None:
        word = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h), scale=1 / 4096)] * 4
                         + [rv.Shear("z", ("y",), lambda F, y: F(t1, y, h))])
        self.refuse(ValueError, "more bits", method=word, exact=True)


def test_the_schedule_keeps_every_buffer_below_its_room() -> None:
    """B < bound by the recursion; the largest B that has been seen is below it, and below 2^52 with a step to come."""
    method = Exact(rv.Coupled("euler", lam=0.5), 44)
    flushed = Flushed(method)
    dues = flushed.until(500)
    gaps = [b - a for a, b in pairwise(sorted(dues))]
    assert set(gaps) == {32}                               # one bit a step: 32 bits every 32 steps
    worst = 0.0
    for _, state in rv.steps(network, Y0, grid(500), PARAMS, method=rv.Coupled("euler", lam=0.5), exact=True):
        worst = max(worst, float(state.parts["bits_y"].max()))
    assert 2 ** 40 < worst < FULL


# ---------------------------------------------------------------------------------------- on every engine

ENGINES = {"tape": {"backend": "eager"}, "replay": {"backend": "replay"}, "mirror": {"backend": "replay", "arithmetic": "strict"},
           "native": {"backend": "native"}}


@pytest.mark.sample(3)
@pytest.mark.filterwarnings("ignore::revode.ParasiteWarning")
@pytest.mark.parametrize("word", ["coupled midpoint .999", "coupled euler 1/3", "reversible heun", "alf .75", "twisted", "verlet",
                                  "ees27", "near rk4"])
def test_the_same_bits_on_the_engines_of_one_arithmetic(word: str) -> None:
    """tape = replay, and native = its NumPy mirror; between the two, tanh and products of matrices differ."""
    found = {}
    for name, options in ENGINES.items():
        if name == "native" and needs_compiler.args[0]:
            continue
        value, gradients, stats = both(word, 70, **options)
        assert stats.exact
        assert stats.backend == {"tape": "eager", "mirror": "replay"}.get(name, name)
        found[name] = (value, gradients, stats.bits_stored)
        # a sweep that the engine feeds with its own stored states, every one of them; where a value is shared across steps, what
        # has come in for it is pulled back in two pieces then, which rounds otherwise
        _, stored, _ = both(word, 70, gradient=rv.Reversible(resync=1), **options)
        assert word in ("reversible heun", "verlet") or same(stored, gradients)
        for a, b in zip(rv.tree.flatten(stored)[0], rv.tree.flatten(gradients)[0], strict=True):
            assert np.max(np.abs(a - b)) < 1e3 * 2.0 ** -52 * max(1.0, np.max(np.abs(b)))
    assert same(found["tape"], found["replay"])
    if "native" in found:
        assert same(found["native"], found["mirror"])
        # the lattice is the same, the field's last bits are not
        for a, b in zip(*(rv.tree.flatten(found[name][1])[0] for name in ("tape", "native")), strict=True):
            assert np.max(np.abs(a - b)) < 1e-8 * np.max(np.abs(b), initial=1e-3)


def there_and_back(t: Any, y: Any, params: Any) -> Any:
    """y grows to e^4 of what it was, and comes back."""
    return 4 * np.cos(t) * y * params


def kicks(t: Any, y: Any, params: Any) -> Any:
    """To and fro by 10 in steps of .05."""
    return 200 * np.cos(20 * np.pi * t) * params + 0 * y


KICKED = rv.shears(lambda t0, t1, dx: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, dx)),
                                       rv.Shear("z", ("y",), lambda F, y: F(t1, y, dx))])
ROUND = np.linspace(0.0, 2 * np.pi, 401)
BEYOND = {          # method, field, grid, lattice, what is said
    "a state": (rv.Coupled("midpoint", lam=0.99), there_and_back, ROUND, rv.Lattice(48),
                r"an entry of \d+\.?\d* in y left the lattice of 2\^-48 by step \d+, .* below 32; pass exact=rv.Lattice\(bits=4\d\)"),
    "an increment": (KICKED, kicks, np.linspace(0, 1, 21), rv.Lattice(48),
                     r"an increment of 10 in [yz] left the lattice of 2\^-48 .* below 8; pass exact=rv.Lattice\(bits=43\)"),
    "the first": (rv.ReversibleHeun(), there_and_back, grid(20), rv.Lattice(54), r"in y left the lattice of 2\^-54 by step"),
    "what a flow returns": (rv.EES27(), there_and_back, ROUND, rv.Lattice(48, 12), "an entry of .* in y left the"),
    "what is kept of a step": (rv.EES25(), there_and_back, ROUND[::20], rv.Lattice(40), "keeps 8 bits .*digits=12.*bits=32"),
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", BEYOND)
@pytest.mark.filterwarnings("ignore::revode.ParasiteWarning")
def test_what_leaves_the_lattice_is_told_by_every_engine(case: str, engine: str) -> None:
    """In between too: a state that is back at the end, and an increment of a state that stays small; not one that fits."""
    if engine == "native" and needs_compiler.args[0]:
        pytest.skip("no compiler")
    method, field, ts, lattice, said = BEYOND[case]
    for save in ([-1], None):
        with pytest.raises(OverflowError, match=said):
            rv.solve(field, Y0, ts, np.float64(1.0), method=method, save=save, exact=lattice, **ENGINES[engine])
    rv.solve(field, Y0, ts, np.float64(0.01), method=method, save=[-1], exact=rv.Lattice(36, 12), **ENGINES[engine])


@needs_compiler
@pytest.mark.parametrize("engine", ["replay", "native"])
def test_a_flush_between_the_calls_of_an_engine(engine: str) -> None:
    """Half of the numbers go in every step: 32 bits leave every 32 steps, in the midst of looks, saved states and kept ones."""
    method = rv.AsynchronousLeapfrog(eta=0.75)
    for save in ([-1], None, slice(0, None, 16)):
        for resync in (None, 32, 45):
            found = []

            def loss(y0: Any, params: Any, save: Any = save, resync: Any = resync, found: list = found) -> Any:
                sol = rv.solve(network, y0, grid(700), params, method=method, save=save, exact=True, gradient=rv.Reversible(resync),
                               backend=engine)
                found.append(sol)
                return np.sum(sol.ys ** 2)

            gradients = rv.grad(loss, argnums=(0, 1))(Y0, PARAMS)
            assert found[0].stats.exact
            assert found[0].stats.backend == engine
            assert len(found[0].state.bits) == 21            # from step 52 on, where B might reach 2^52
            if save is None and resync is None:
                whole = rv.solve(network, Y0, grid(700), PARAMS, method=method, exact=True, backend=engine).ys
                assert np.array_equal(found[0].ys.value if hasattr(found[0].ys, "value") else found[0].ys, whole)
                first = gradients
        if save is None:
            assert all(np.all(np.isfinite(x)) for x in rv.tree.flatten(first)[0])


@pytest.mark.long
@needs_compiler
def test_noise_and_adaptive_grids_on_the_engines() -> None:
    for options in ENGINES.values():
        found = []

        def loss(y0: Any, params: Any, options: dict = options, found: list = found) -> Any:
            sol = rv.solve(network, y0, grid(300), params, method=rv.Coupled("heun2", lam=0.9), noise=rv.Brownian(3), exact=True,
                           diffusion=lambda t, y, p: 0.2 * np.cos(y) * p["c"], **options)
            found.append(sol.stats)
            return np.sum(sol.y1 ** 2)

        rv.grad(loss, argnums=(0, 1))(Y0, PARAMS)
        assert found[0].exact


ADAPTIVE = {"coupled": (rv.Coupled("bosh3", lam=0.5), 1e-6), "heun": (rv.ReversibleHeun(), 1e-3),
            "near": (rv.NearReversible("tsit5"), 1e-7)}


@pytest.mark.sample(1, cover=False)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_steps_on_the_engines(name: str) -> None:
    """tape = replay and native = its mirror, grids and gradients; on each of them the gradient of a sweep that is fed with its own
    states. Native runs ask for many steps at a time, with flushes between them."""
    method, rtol = ADAPTIVE[name]
    found = {}
    for engine, options in ENGINES.items():
        if engine == "native" and needs_compiler.args[0]:
            continue

        def loss(y0: Any, params: Any, options: dict = options, **more: Any) -> Any:
            sol = rv.solve(network, y0, more.pop("ts", (0.0, 3.0)), params, method=method, **{
                "controller": rv.PID(rtol, rtol / 100), "exact": rv.Lattice(44, 12), **options, **more})
            seen.append((sol.ts, sol.stats, sol.state.bits))
            return np.sum(sol.y1 ** 2)

        seen: list = []
        of = rv.grad(loss, argnums=(0, 1))
        gradients = of(Y0, PARAMS)
        ts, stats, bits = seen[0]
        assert stats.exact
        assert stats.backend == {"tape": "eager", "mirror": "replay"}.get(engine, engine)
        assert (name == "heun") == (stats.bits_bound == 0)
        assert (name == "heun") == (len(bits) < 2), len(bits)
        assert stats.bits_bound <= stats.bits_stored <= 1.03 * stats.bits_bound + 8 * Y0.size
        stored = rv.grad(lambda y0, p: loss(y0, p, gradient=rv.Reversible(1)), argnums=(0, 1))(Y0, PARAMS)
        assert name == "heun" or same(stored, gradients)
        found[engine] = ts, gradients
        truth = rv.grad(lambda y0, p: loss(y0, p, ts=ts, gradient=rv.Direct(), controller=None, exact=None, backend="eager",
                                           arithmetic="fast"), argnums=(0, 1))(Y0, PARAMS)
        for a, b in zip(rv.tree.flatten(gradients)[0], rv.tree.flatten(truth)[0], strict=True):
            # a unit of the lattice in each step, and of a contraction 9 of them, amplified as the copies part: 1 / lam
            assert np.max(np.abs(a - b)) < len(ts) * 1000 * 2.0 ** -44 * max(1.0, np.max(np.abs(b)))
    assert same(found["tape"], found["replay"])
    assert "native" not in found or same(found["native"], found["mirror"])


@needs_compiler
def test_steps_that_were_found_with_the_bits_of_the_tape_go_back_with_them(caplog: pytest.LogCaptureFixture) -> None:
    """Where generated code cannot search, replay does, and goes back too: said once."""
    def together(t: Any, y: Any, params: Any) -> Any:
        return np.tanh(y) * params - np.mean(y, axis=0)                 # a sum over the trajectories, for each of them

    seen: list = []

    def loss(y0: Any, params: Any) -> Any:
        seen.append(rv.solve(together, y0, (0.0, 1.0), params, method=rv.Coupled("bosh3", lam=0.9), controller=rv.PID(1e-4, 1e-6),
                             exact=True, backend="native"))
        return np.sum(seen[-1].y1)

    with caplog.at_level("INFO", logger="revode"):
        rv.grad(loss, argnums=(0, 1))(Y0, np.float64(0.7))
    assert seen[0].stats.exact
    assert seen[0].stats.backend == "replay"
    assert "goes back in the place of native" in caplog.text


# ---------------------------------------------------------------------------------------- fixed points

def mapped(z: Any, params: Any, x: Any) -> Any:
    return np.tanh(0.4 * z @ params["A"] + x)


@pytest.mark.parametrize("options", [{"tol": None, "max_steps": 200}, {"tol": 1e-12, "max_steps": 400}], ids=["200", "tol"])
@pytest.mark.parametrize("beta", [0.5, 0.8, 1.2, 0.75])
def test_iterations_come_back_after_any_number_of_them(beta: float, options: dict, caplog: pytest.LogCaptureFixture) -> None:
    """Where in floating point the way back ends after 16 of them."""
    found: dict[str, tuple] = {}
    for name in ("tape", "replay", "native") if beta == 0.8 else ("tape", "replay"):
        if name == "native" and needs_compiler.args[0]:
            continue
        seen: list = []

        def loss(params: Any, x: Any, z0: Any, name: str = name, seen: list = seen) -> Any:
            seen.append(rv.fixed_point(mapped, z0, params, x, method=rv.RevDEQ(beta), exact=True, **ENGINES[name], **options))
            return np.sum(np.sin(seen[-1].z))

        with caplog.at_level("INFO", logger="revode"):
            gradients = rv.grad(loss, argnums=(0, 1, 2))(PARAMS, Y0, 0.1 * Y0)
        stats, N = seen[0].stats, seen[0].steps
        assert stats.exact
        assert stats.roundtrip.absolute == 0.0
        assert stats.bits_bound == pytest.approx(2 * N * Y0.size * math.log2(1 / abs(1 - beta)), rel=1e-12)
        assert abs(stats.bits_stored - stats.bits_bound) <= 0.03 * stats.bits_bound + 2 * 5 * Y0.size
        found[name] = gradients, stats.backend
    assert same(found["tape"][0], found["replay"][0])
    if "native" in found:
        # the stop rule is the tape's, whose bits the generated code has not: then replay goes back, and says so
        assert found["native"][1] == ("native" if options["tol"] is None else "replay")
        assert ("goes back in the place of native" in caplog.text) == (options["tol"] is not None)
        assert options["tol"] is None or same(found["native"][0], found["tape"][0])
    truth = rv.grad(lambda *args: np.sum(np.sin(rv.fixed_point(mapped, args[2], *args[:2], method=rv.RevDEQ(beta),
                                                               gradient=rv.Direct(), **options).z)), argnums=(0, 1, 2))(
        PARAMS, Y0, 0.1 * Y0)
    for a, b in zip(rv.tree.flatten(found["tape"][0])[0], rv.tree.flatten(truth)[0], strict=True):
        # units of 2^-48, some of them in each iteration of a contraction: 10 at most remain; dL/dz0 dies out
        assert np.max(np.abs(a - b)) < 1e3 * 2.0 ** -48 * max(np.max(np.abs(b)), 1e-3)


def test_what_an_exact_fixed_point_refuses() -> None:
    for kind, words, options in (
            (TypeError, "fixed_point: exact=True .* Picard.* cannot be; use RevDEQ", {"method": rv.Picard()}),
            (TypeError, "Direct.. does not; use gradient=Reversible", {"gradient": rv.Direct()}),
            (TypeError, "z0 of float64.*compute=np.float32", {"z0": Y0.astype(np.float32)}),
            (ValueError, "nearest is 7/10", {"method": rv.RevDEQ(0.3000001)}), (TypeError, "exact=3", {"exact": 3})):
        with pytest.raises(kind, match=words):
            rv.fixed_point(mapped, options.pop("z0", Y0), PARAMS, Y0, **{"exact": True, **options})             # type: ignore[arg-type]
    single = rv.tree.map(lambda x: x.astype(np.float32), (PARAMS, Y0))
    found = rv.vjp(lambda p: rv.fixed_point(mapped, Y0, p, single[1], exact=True, compute=np.float32), single[0])
    assert found[0].stats.exact is False                     # not before a gradient
    found[1](rv.tree.map(lambda x: np.ones_like(x) if isinstance(x, np.ndarray) else None, found[0]))
    assert found[0].stats.exact

"""The answers to the exercises of the book, chapter by chapter. Try before you look."""
import importlib.util
import re
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from run_chapters import DOCS, blocks, chapters, code_of, execute, once

import revode as rv

EPS = 2.0**-52


@cache
def names(number: str) -> dict:
    """What the code of a chapter has defined."""
    path, = (path for path in chapters() if path.name.startswith(number))
    return once(path)[2]


@cache
def beginning(number: str, n: int) -> dict:
    """What the first n blocks of a chapter have defined."""
    path, = (path for path in chapters() if path.name.startswith(number))
    lines, namespace = path.read_text().splitlines(), {"__name__": path.stem}
    for block in blocks(lines)[:n]:
        execute(code_of(lines, block), namespace, path.name, block.raises)
    return namespace


def close(actual, desired, tol):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tol * max(1.0, np.max(np.abs(desired))))


# 00 -- a gradient that stores nothing

def test_00_1_every_step_counts():
    """Each q_n is in the loss, so its cotangent grows by q_n when the sweep arrives at it: `aq = aq + q`, before the step is undone.
    Everything else stays. The complex step confirms all three derivatives.
    """
    accel, k, h, N = names("00")["accel"], 2.0, 0.01, 300

    def loss(q, v, k):
        total = 0.0
        for _ in range(N):
            v = v + h * accel(q, k)
            q = q + h * v
            total = total + 0.5 * q * q
        return total

    def backward(q, v, k):
        aq, av, ak = 0.0, 0.0, 0.0
        for _ in range(N):
            aq = aq + q                                    # the one new line: this q is in the loss
            q = q - h * v
            av = av + h * aq
            v = v - h * accel(q, k)
            aq = aq + h * av * (-k * np.cos(q))
            ak = ak + h * av * (-np.sin(q))
        return aq, av, ak

    q, v = names("00")["forward"](1.0, 0.3, k, h, N)
    steps = [(1e-30j, 0, 0), (0, 1e-30j, 0), (0, 0, 1e-30j)]
    true = [loss(1.0 + a, 0.3 + b, k + c).imag / 1e-30 for a, b, c in steps]
    close(backward(q, v, k), true, 1e-11)                  # N eps times sums of about 100: below 1e-11 of the gradient


def test_00_2_verlet():
    """Forward: half a kick with a(q), a drift, half a kick with the new a(q). Backward the same three lines in reverse order with
    their signs turned, each followed by its cotangent: `aq -= h/2 av k cos(q)` after a kick, `av += h aq` after the drift. The
    library's `VelocityVerlet` gives the same numbers to 1e-10.
    """
    k, h, N = 2.0, 0.01, 500

    def accel(q):
        return -k * np.sin(q)

    q, v = 1.0, 0.3
    for _ in range(N):
        v = v + h / 2 * accel(q)
        q = q + h * v
        v = v + h / 2 * accel(q)
    aq, av, ak = q, 0.0, 0.0
    end = q
    for _ in range(N):
        v = v - h / 2 * accel(q)
        aq, ak = aq - h / 2 * av * k * np.cos(q), ak - h / 2 * av * np.sin(q)
        q = q - h * v
        av = av + h * aq
        v = v - h / 2 * accel(q)
        aq, ak = aq - h / 2 * av * k * np.cos(q), ak - h / 2 * av * np.sin(q)

    def loss(params, start):
        q, _ = rv.solve(lambda t, q, p: -p["k"] * np.sin(q), start, np.linspace(0, N * h, N + 1), params,
                        method=rv.VelocityVerlet()).y1
        return 0.5 * np.sum(q**2)

    start = (np.array([1.0]), np.array([0.3]))
    value, (grads, (a_q0, a_v0)) = rv.value_and_grad(loss, argnums=(0, 1))({"k": k}, start)
    # The library's times are multiples of h up to rounding, so its steps differ from h by about N eps relative.
    close([value, a_q0[0], a_v0[0], grads["k"]], [0.5 * end**2, aq, av, ak], 1e-10)


def test_00_3_friction():
    """About 1e-12 after 1000 steps, and after 8000 nothing is left. A step with friction shrinks areas by c, so the way back may
    grow rounding by c^(-N/2): 2e2 for 1000 steps, 3e17 for 8000. Without the push the pendulum comes to rest at 0, where its
    rounding, which is relative, shrinks with it. So it grows back to no more than it was.
    """
    def error(c, push, N, k=2.0, h=0.01):
        q, v = 1.0, 0.3
        for _ in range(N):
            v = c * v + h * (push - k * np.sin(q))
            q = q + h * v
        for _ in range(N):
            q = q - h * v
            v = (v - h * (push - k * np.sin(q))) / c
        return abs(q - 1.0)

    # A step shrinks areas by c, so each direction by sqrt(c), and the way back may grow rounding by c^(-N/2):
    # 2e2 for 1000 steps, and for 8000 more than the 16 digits that there are.
    assert error(0.99, 1.0, 1000) < 2e2 * 10 * EPS
    assert error(0.99, 1.0, 8000) > 1e-9
    # Without friction nothing grows. Without the push the state itself goes to zero; its rounding, which is relative
    # to it, shrinks with it, and grows back to what it was.
    assert error(1.0, 1.0, 8000) < 1e-12
    assert error(0.99, 0.0, 8000) < 1e-12


# 01 -- the engine

def test_01_1_two_more_rows():
    """For y = a / b the rules are g / b and -g y / b, with the y that is there already; for y = exp(a) it is g y. Against the
    complex step both are right to the last digits.
    """
    book = names("01")
    book["RULES"][np.divide] = (lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b)
    book["RULES"][np.exp] = (lambda g, y, a: g * y,)

    def f(x, y):
        return np.exp(-x * x) / (1 + y * y)

    _, pull = book["vjp"](f, 0.7, -1.2)
    close(pull(1.0), [f(0.7 + 1e-30j, -1.2).imag / 1e-30, f(0.7, -1.2 + 1e-30j).imag / 1e-30], 8 * EPS)


def sum_to(g, shape):
    """Sum over the axes that broadcasting has added or stretched."""
    g = np.asarray(g)
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


def test_01_2_sum_what_was_stretched():
    """What was stretched was used several times, so its cotangents are added up: first over the leading axes that broadcasting
    added, then over every axis of length one, which is kept. `pull` calls it on what each rule returns, with the input's shape.
    """
    book = names("01")
    x, b = np.arange(6.0).reshape(2, 3), np.array([[1.0], [2.0]])
    g = np.cos(x)
    _, pull = book["vjp"](lambda x, b: x * b, x, b)
    ours = [sum_to(a, np.shape(like)) for a, like in zip(pull(g), (x, b), strict=True)]
    _, pull = rv.vjp(lambda x, b: x * b, x, b)
    for a, desired in zip(ours, pull(g), strict=True):
        assert a.shape == desired.shape
        close(a, desired, 8 * EPS)
    assert sum_to(np.ones(3), ()) == 3.0


def test_01_3_a_long_tape():
    """The derivative is 1.00001^100000, right to some 1e-11. A recursion gets to a depth of about 1000, where Python gives up;
    the loop over the tape has no such limit.
    """
    N = 100_000

    def power(x):
        for _ in range(N):
            x = x * 1.00001
        return x

    close(rv.grad(power)(1.0), 1.00001**N, 2 * N * EPS)      # N roundings each way

    def recursion(depth):
        return 1.0 if depth == 0 else 1.00001 * recursion(depth - 1)

    with pytest.raises(RecursionError):                       # Python gives up near depth 1000
        recursion(N)


# 02 -- checking derivatives

def test_02_1_complex_step_through_a_solver():
    """`forward(1.0, 0.3, 2.0 + 1e-30j, ...)` runs as it stands, and the imaginary part of the loss divided by 1e-30 is dL/dk:
    the same as `backward` gives, to 1e-11, the rounding of 1000 steps.
    """
    book = names("00")
    q, _ = book["forward"](1.0, 0.3, 2.0 + 1e-30j, 0.01, 1000)
    close(book["ak"], (q * q / 2).imag / 1e-30, 1e-11)       # 1000 steps of rounding


def test_02_2_find_the_bug():
    """The derivative of log(1 + exp x) is exp x / (1 + exp x): the square in the denominator is wrong. `check_vjp` raises an
    AssertionError for the wrong rule, and finds a difference below 1e-8 for the right one.
    """
    def softplus(rule):
        return rv.custom_vjp(lambda x: (np.log1p(np.exp(x)), lambda g: (g * rule(x),)))

    x = np.linspace(-2.0, 2.0, 7)
    with pytest.raises(AssertionError, match="central differences"):
        rv.check_vjp(softplus(lambda x: np.exp(x) / (1 + np.exp(2 * x))), x, order=1)
    assert rv.check_vjp(softplus(lambda x: np.exp(x) / (1 + np.exp(x))), x, order=1) < 1e-8


def test_02_3_a_blind_test():
    """Along a direction in y0 alone the gradients agree with the bug and without it: a wrong sign in ap never reaches ay. Along a
    direction in p only the right one passes. So nudge everything that is differentiated.
    """
    book = names("02")
    y0, p, loss = book["y0"], book["p"], book["loss"]
    y, z = book["forward"](y0, p)
    rng = np.random.default_rng(1)
    dy, dp = rng.normal(size=y0.shape), rng.normal(size=p.shape)
    along_y = loss(y0 + 1e-30j * dy, p).imag / 1e-30
    along_p = loss(y0, p + 1e-30j * dp).imag / 1e-30
    for bug in (False, True):
        _, ay, ap = book["backward"](y, z, y, p, bug)
        assert abs(np.sum(ay * dy) - along_y) < 1e-10 * abs(along_y)                     # blind
        assert bool(abs(np.sum(ap * dp) - along_p) < 1e-10 * abs(along_p)) is not bug      # sees it


# 03 -- discretise, then optimise

@pytest.mark.long
def test_03_1_order_of_the_gradient():
    """By about 16 each time the steps are halved: the gradient of a method of order 4 is of order 4 as well. It comes to 2^4 from
    above, since the next term of the error has the same sign.
    """
    loss = beginning("03", 1)["loss"]
    errors = [abs(rv.grad(loss)(1.3, N, rv.Direct(), rv.RungeKutta("rk4")) + 2 * np.sin(2.6)) for N in (80, 160, 320)]
    factors = [a / b for a, b in pairwise(errors)]
    assert factors[1] < factors[0] and 16 < factors[1] < 19   # to 2^4 from above: the next term has the same sign


@pytest.mark.long
def test_03_2_four_modes_one_number():
    """Direct, Checkpointed and Reversible agree to 1e-13, as they are one number computed in three ways. Backsolve is off by
    something between 1e-8 and 1e-3: the error of its own discretisation, h^4 at this step.
    """
    loss, method = beginning("03", 1)["loss"], rv.Coupled("rk4")
    direct, checkpointed, reversible, continuous = (
        rv.grad(loss)(1.3, 20, gradient, method)
        for gradient in (rv.Direct(), rv.Checkpointed(5), rv.Reversible(), rv.Backsolve()))
    close([checkpointed, reversible], [direct, direct], 1e-13)          # 20 steps of rounding
    assert 1e-8 < abs(continuous - direct) < 1e-3                       # h^4 is 1e-4


def test_03_3_newton():
    """`w <- w - (q(2; w) + 0.8) / (dq/dw)` from 1.3: after five steps q(2) = -0.8 to 1e-12. Where a maximum or minimum is looked
    for, it is the gradient that is set to zero, and Newton's method divides by the second derivative.
    """
    loss, w = beginning("03", 1)["loss"], 1.3
    slope = rv.grad(loss)
    for _ in range(5):
        w = w - (loss(w, 80) + 0.8) / slope(w, 80)
    assert abs(loss(w, 80) + 0.8) < 1e-12 and 1.2 < w < 1.3
    # For a minimum or maximum of q(2) Newton's method needs the second derivative: q = cos 2w is flat at w = pi/2.
    for _ in range(5):
        w = w - slope(w, 80) / rv.grad(slope)(w, 80)
    assert abs(w - np.pi / 2) < 1e-2 and abs(slope(w, 80)) < 1e-12


# 06 -- asynchronous leapfrog

@pytest.mark.parametrize("eta", [1.0, 0.9, 0.75])
@pytest.mark.parametrize("z", [-0.3, 0.7j, -0.2 + 0.4j])
def test_06_1_the_eigenvalues(z, eta):
    """Their product is the determinant, and each of the three shears has the determinant of its scale: 1, 1 - 2 eta, 1. So it
    is 1 - 2 eta, for every z.
    """
    assert abs(np.prod(names("06")["growth"](z, eta)) - abs(1 - 2 * eta)) < 1e-14


def test_06_2_same_method_other_name():
    """For a linear field v = A z throughout: reflecting z at y and reflecting v = A z at f(y) = A y are one thing. For a field
    that is not linear they differ.
    """
    A = np.random.default_rng(0).normal(size=(3, 3)) / 3
    ends = [rv.solve(lambda t, y, A: y @ A, np.ones(3), np.linspace(0, 2, 41), A, method=method).ys
            for method in (rv.AsynchronousLeapfrog(), rv.ReversibleHeun())]
    # v = f(z) at every step: reflecting z at y and reflecting v = A z at f(y) = A y are one thing when f is linear.
    close(ends[0], ends[1], 1e-13)


def test_06_3_fourth_order():
    """The error falls by 2^4 when the steps are halved, at three evaluations a step (and one for v0: 301 for 100 steps). A damped
    step is not undone by a step of -h, so it is not symmetric, and composing it does not raise its order.
    """
    end, truth = names("06")["end"], names("06")["truth"]
    method = rv.Composition(rv.AsynchronousLeapfrog(), order=4)
    errors = [np.max(np.abs(end(method, N).y1 - truth)) for N in (50, 100, 200)]
    for a, b in pairwise(errors):
        assert 13 < a / b < 20                                # 2^4
    assert end(method, 100).stats.nfe == 301                  # three a step, and v0
    with pytest.raises(ValueError, match="symmetric"):        # a damped step is not its own inverse with -h
        rv.Composition(rv.AsynchronousLeapfrog(0.95), order=4)


# 07 -- reversible Heun

def test_07_1_the_way_back():
    """It is `two_lines` itself, with -h, from the other end. The method is symmetric: its inverse is itself run backwards."""
    book = names("07")
    step, p, h = book["two_lines"], book["p"], 0.05
    y, z = np.array([0.4, 1.0]), np.array([0.5, 0.9])
    there = step(y, z, 0.0, h, p)
    back = step(*there, h, -h, p)                             # the same two lines with -h, from the other end
    close(np.stack(back), np.stack([y, z]), 8 * EPS)


def test_07_2_counting():
    """301. Each step is three substeps, and neighbours share the evaluation at the time where they meet: three a step, and one
    for the start.
    """
    book = names("07")
    sol = book["loss"](book["p"], rv.Composition(rv.ReversibleHeun(), order=4))[1]
    assert sol.stats.nfe == 301                               # three substeps share their ends, too


@pytest.mark.parametrize("z", [-0.1, -1.0, 0.5j, -0.3 + 0.2j])
def test_07_3_the_parasite(z):
    """The three shears have the scales 1, -1 and 1, so the determinant is -1, and the two eigenvalues have the product -1. Where
    one is smaller than 1 the other is larger: a mode that decays has a companion that grows.
    """
    def step(y, w):
        w_new = 2 * y - w + z * w
        return y + (z * w + z * w_new) / 2, w_new

    M = np.array([step(1.0, 0.0), step(0.0, 1.0)]).T
    assert abs(np.linalg.det(M) + 1) < 1e-14
    if np.real(z) < 0:                                        # the product of the sizes is 1, and one is below 1
        assert np.max(np.abs(np.linalg.eigvals(M))) > 1


# 08 -- any method made reversible

def coupled_matrix(z, lam):
    def psi(y, z):
        return z * (y + z / 2 * y)

    def step(y, w):
        y = lam * y + (1 - lam) * w + psi(w, z)
        return y, w - psi(y, -z)

    return np.array([step(1.0, 0.0), step(0.0, 1.0)]).T


def test_08_1_the_determinant():
    """Of the two shears the first scales y by lam, the second scales z by 1: so lam. By bisection the most negative stable h a
    for lam = 0.8 is -(1 - sqrt(2 lam - 1)) = -0.2254.
    """
    for z in (-0.2, -1.0, 0.6j):
        assert abs(np.linalg.det(coupled_matrix(z, 0.8)) - 0.8) < 1e-14
    stable, unstable = 0.0, -1.0
    for _ in range(40):
        z = (stable + unstable) / 2
        inside = np.max(np.abs(np.linalg.eigvals(coupled_matrix(z, 0.8)))) < 1
        stable, unstable = (z, unstable) if inside else (stable, z)
    assert abs(stable + (1 - np.sqrt(2 * 0.8 - 1))) < 1e-6


def test_08_2_a_residual_network():
    """Two shears, each with a network of its own from `F.params`; the field that solve asks for is never used. The gradient of
    the weights and of the input is that of Direct to 1e-11, with two states in memory.
    """
    def half(x, W):
        return np.tanh(x @ W[0]) @ W[1]

    revnet = rv.shears(lambda t0, t1, h: [
        rv.Shear("y", ("z",), lambda F, z: half(z, F.params["f"]) * h),
        rv.Shear("z", ("y",), lambda F, y: half(y, F.params["g"]) * h)])
    rng = np.random.default_rng(0)
    params = {name: [rng.normal(size=(4, 8)) / 2, rng.normal(size=(8, 4)) / 3] for name in "fg"}
    x = rng.normal(size=(5, 4))

    def loss(params, x, gradient):
        # The shears bring their own networks; solve still wants a field, which is never used.
        return np.mean(rv.solve(lambda t, y, p: 0 * y, x, np.arange(11.0), params, method=revnet,
                                gradient=gradient, save=[-1]).y1 ** 2)

    ours, truth = (rv.grad(loss, argnums=(0, 1))(params, x, g) for g in (rv.Reversible(), rv.Direct()))
    for a, b in zip(rv.tree.flatten(ours)[0], rv.tree.flatten(truth)[0], strict=True):
        assert np.max(np.abs(b)) > 0
        close(a, b, 1e-11)                                    # ten layers; each may stretch rounding, by about 3


@pytest.mark.filterwarnings("ignore::revode.ReconstructionWarning")
def test_08_3_chaos():
    """The pair follows contraction up to -ln(lam) / h: 10.05 for lam = 0.99, 20.2 for 0.98. The system contracts at up to 14.57,
    so 0.98 stays on the attractor, and 0.99 leaves it.
    """
    def lorenz(t, y, p):
        a, b, c = y[..., 0], y[..., 1], y[..., 2]
        return np.stack([p["s"] * (b - a), a * (p["r"] - c) - b, a * b - p["b"] * c], axis=-1)

    params, ts = {"s": 10.0, "r": 28.0, "b": 8 / 3}, np.linspace(0.0, 20.0, 20_001)
    follows = {lam: rv.Coupled("euler", lam).contraction_limit(0.001) > 14.57 for lam in (0.99, 0.98)}
    assert follows == {0.99: False, 0.98: True}
    for lam, good in follows.items():
        try:
            # The Lorenz attractor fits into |y| < 60.
            y1 = rv.solve(lorenz, np.array([1.0, 1.0, 25.0]), ts, params, method=rv.Coupled("euler", lam), save=[-1]).y1
            survived = bool(np.max(np.abs(y1)) < 60)
        except FloatingPointError:
            survived = False
        assert survived is good


# 04 -- optimise, then discretise

def decay(t, y, p):
    return -p["a"] * y


def test_04_1_looks_right():
    """Backwards a step multiplies the cotangent by 1 - a h, which is what forward steps do to y: so dL/dy0 is exact. But y itself
    is multiplied by 1 + a h on the way back, after 1 - a h on the way there: (1 - a^2 h^2)^N in all. For a = 5, T = 10 it
    takes some 249 000 steps until (a T)^2 / N is below -ln 0.99.
    """
    a, T, N, euler = 5.0, 10.0, 100, rv.RungeKutta("euler")
    ts, h = np.linspace(0.0, T, N + 1), T / N

    def loss(y0):
        return 0.5 * np.sum(rv.solve(decay, y0, ts, {"a": a}, method=euler, gradient=rv.Backsolve()).y1 ** 2)

    y0 = np.array([1.0])
    y1 = rv.solve(decay, y0, ts, {"a": a}, method=euler).y1
    # Backwards a step multiplies the cotangent by 1 - a h and y by 1 + a h; forwards y by 1 - a h.
    close(rv.grad(loss)(y0) / ((1 - a * h) ** N * y1), [1.0], 4 * N * EPS)
    back = rv.solve(decay, y1, ts[::-1], {"a": a}, method=euler).y1
    close(back / (1 - a * a * h * h) ** N, [1.0], 4 * N * EPS)
    assert back[0] < 1e-12
    fewest = next(N for N in range(10_000, 10**6, 10) if (1 - (a * T / N) ** 2) ** N > 0.99)
    assert 248_000 < fewest < 250_000                     # (a T)^2 / N = -ln 0.99


def test_04_2_three_units_of_time():
    """The error of the way back is about the same: the three and a third units of time multiply it by exp(1.06 * 3.33) = 34, and
    half the step divides it by 2^5 (one order more than the method, as both ways belong to one orbit). The ratio is 1.07.
    """
    field, y0, rk4 = beginning("04", 2)["field"], np.array([2.0, 0.0]), rv.RungeKutta("rk4")

    def off(T, N):
        y1 = rv.solve(field, y0, np.linspace(0, T, N + 1), {"mu": 1.0}, method=rk4).y1
        return np.max(np.abs(rv.solve(field, y1, np.linspace(T, 0, N + 1), {"mu": 1.0}, method=rk4).y1 - y0))

    # exp(1.06 * 3.33) / 2^5 = 1.07
    assert abs(off(11.33, 1133) / off(8.0, 400) - 1.07) < 0.1


def test_04_3_store_it():
    """With stored states no error is fed back and grows: the gradient is off by a few per cent at most, and halving the steps
    divides its error by about four. It is of order 2, as it should be.
    """
    book, T = beginning("04", 2), 20.0
    field, y0, p = book["field"], np.array([2.0, 0.0]), {"mu": 1.0}
    _, (_, truth) = book["slopes"](y0, p, 1000, T, rv.Checkpointed(20), rv.RungeKutta("rk4"))
    errors = []
    for N in (500, 1000):
        ys, h = rv.solve(field, y0, np.linspace(0, T, 2 * N + 1), p, method=rv.RungeKutta("midpoint")).ys, T / N
        a, g = ys[-1], 0.0
        for n in range(N, 0, -1):
            _, da, _ = book["backwards"](ys[2 * n], a, 1.0)
            _, da, dg = book["backwards"](ys[2 * n - 1], a - h / 2 * da, 1.0)
            a, g = a - h * da, g - h * dg
        errors.append(abs(g - truth["mu"]))
    assert 3.5 < errors[0] / errors[1] < 5                # order 2 again: no error grows, as none is fed back
    assert errors[1] < 0.05 * abs(truth["mu"])


# 05 -- checkpointing, counted

def test_05_1_how_far_with_three():
    """17 places: C(17 + 3, 17) = 1140 is the first that reaches 1000. That is half of sqrt(1000), for less than three advances a
    step.
    """
    comb = beginning("05", 1)["comb"]
    assert min(n for n in range(1, 100) if comb(n + 3, n) >= 1000) == 17 < np.sqrt(1000)
    assert beginning("05", 1)["formula"](1000, 17) < 3 * 1000


def test_05_2_the_first_sweep():
    """The distances between the ten states are C(n + 3, n) for n = 10, 9, ..., 1 places that are left: 286, 220, 165, and so on,
    down to 4. Fewer places are left for the stretches towards the end, so these must be shorter to be reversed with as many
    repetitions.
    """
    comb = beginning("05", 1)["comb"]
    places = sorted(rv.gradients.checkpointed.schedule(1000, 10))
    assert len(places) == 10
    # With fewer places left, a shorter stretch can be reversed with as many repetitions: C(n + r - 1, n), r = 4.
    gaps = np.diff([*places, 1000])
    assert gaps.tolist() == [comb(n + 3, n) for n in range(10, 0, -1)]


def test_05_3_online():
    """With 5 places the worst is N = 74, where it takes 1.28 times the minimum; with 20 places N = 229, with 1.43 times. What is
    not known cannot be planned for, but it costs less than half as much again.
    """
    formula, Online = beginning("05", 1)["formula"], rv.gradients.checkpointed.Online

    def advances(N, n):
        store = Online(n)
        for i in range(N):
            store.offer(i, None)
        places = [*sorted(store), N]
        # The forward solve, and then stretch by stretch from the last one, with the places that are free.
        return N + sum(formula(b - a, n - i) for i, (a, b) in enumerate(pairwise(places)))

    def loss(p):
        sol = rv.solve(decay, np.array([1.0]), (0.0, 2.0), p, method=rv.RungeKutta("bosh3"),
                       gradient=rv.Checkpointed(10), controller=rv.PID(rtol=1e-8, atol=1e-8))
        return np.sum(sol.y1), sol

    (_, sol), _ = rv.value_and_grad(loss, has_aux=True)({"a": 2.0})
    assert sol.stats.steps > 100
    assert sol.stats.advances == advances(sol.stats.steps, 10)
    worst = {n: max((advances(N, n) / formula(N, n), N) for N in range(50, 301)) for n in (5, 20)}
    assert worst[5][1] == 74 and 1.27 < worst[5][0] < 1.28
    assert worst[20][1] == 229 and 1.43 < worst[20][0] < 1.44


# 09 -- effectively symmetric

def test_09_1_the_order():
    """One step gives 1 + h + h^2/2 + h^3/8, and exp(h) has h^3/6 in the third place: order 2."""
    A, B = (0, Fraction(-1, 2), -2), (Fraction(1, 2), 1, Fraction(1, 4))
    close(beginning("09", 2)["family"](3)[0], [float(a) for a in A], 8 * EPS)
    close(beginning("09", 2)["family"](3)[1], [float(b) for b in B], 8 * EPS)
    for h in (Fraction(1, 2), Fraction(1, 3), Fraction(-2), Fraction(5)):       # four points decide a cubic polynomial
        y, d = Fraction(1), Fraction(0)
        for a, b in zip(A, B, strict=True):
            d = a * d + h * y
            y = y + b * d
        assert y == 1 + h + h**2 / 2 + h**3 / 8           # exp has 1/6 in the third place


@pytest.mark.parametrize("s", [2, 3, 4, 6])
def test_09_2_a_leapfrog_in_disguise(s):
    """They agree to rounding for 2, 3, 4 and 6 stages: the family is a leapfrog that starts anew in each step, with a mean of its
    last two values at the end, which takes the zigzag out.
    """
    book, h, theta = beginning("09", 2), 0.3, np.pi / (2 * s)

    def f(y):
        return book["soft"](0.0, y, None)

    y = np.array([0.3, 0.1])
    z = [y, y + 2 * h * np.sin(theta) ** 2 * f(y)]
    for i in range(1, s):
        z.append(z[i - 1] + 2 * h * np.sin(theta) * np.sin((2 * i + 1) * theta) * f(z[i]))
    close((z[-2] + z[-1]) / 2, book["step"](book["soft"], y, None, h, book["family"](s)), 16 * s * EPS)


@pytest.mark.parametrize("name, k", [("euler", 1), ("midpoint", 3), ("bosh3", 3), ("rk4", 5), ("dopri5", 5)])
def test_09_3_other_tableaux(name, k):
    """euler 1, midpoint and bosh3 3, rk4 and dopri5 5: for a method of even order p it is p + 1, of odd order p. The slope of the
    defect is k + 1.
    """
    method, soft, y = rv.NearReversible(name), beginning("09", 2)["soft"], np.array([0.3, 0.1])

    def F(t, y, h):
        return h * soft(t, y, None)

    def defect(h):
        return np.max(np.abs(method.flow(F, h, 0.0, method.flow(F, 0.0, h, y, h), -h) - y))

    assert abs(np.log2(defect(1 / 8) / defect(1 / 16)) - (k + 1)) < 0.2         # the next term is of relative size h
    assert method.reversal_order == k


# 10 -- noise without storage

def test_10_1_a_batch_in_parts():
    """Each trajectory has its number, and the noise is made from it. The second part begins at trajectory 2, so it is solved with
    `rv.Brownian(7, offset=2)`, and has the same bits.
    """
    book, y0 = beginning("10", 3), np.array([[1.0, 0.3], [0.2, -0.5], [-1.0, 0.0], [2.0, 1.0]])

    def ends(y0, offset):
        return rv.solve(book["drift"], y0, np.linspace(0.0, 2.0, 51), {"k": 2.0, "s": 0.4}, method=rv.ReversibleHeun(),
                        diffusion=book["gusts"], noise=rv.Brownian(7, offset=offset)).y1

    whole = ends(y0, 0)
    np.testing.assert_array_equal(np.concatenate([ends(y0[:2], 0), ends(y0[2:], 2)]), whole)
    assert np.all(ends(y0[2:], 0)[:, 0] != whole[2:, 0])          # without it, the noise of the first two


def test_10_2_an_area_that_is_known():
    # y_1 = y_1(0) + y_0(0) W + W^2/2 by the chain rule, and the step takes the mean of z at both ends: exact, as z_0 is y_0
    """None but rounding, for any number of steps. By the chain rule y_1 = y_1(0) + y_0(0) W + W^2/2: one noise alone has no area,
    and the step takes the mean of both ends, which is exact for what is linear.
    """
    def known(t, y, p):
        one = 1.0 + 0 * y[..., 0]
        return np.stack([np.stack([one, 0 * one], -1), np.stack([y[..., 0], 0 * one], -1)], -2)

    tree = rv.BrownianTree(seed=11, t0=0.0, t1=1.0, tol=1 / 64)
    W = tree.increments(0.0, 1.0, (50, 2))[:, 0]
    for N in (1, 4, 64):
        y1 = rv.solve(lambda t, y, p: 0 * y, np.tile([1.0, 0.5], (50, 1)), np.linspace(0.0, 1.0, N + 1),
                      method=rv.ReversibleHeun(), diffusion=known, noise=tree).y1
        close(y1, np.stack([1.0 + W, 0.5 + W + W**2 / 2], -1), 8 * N * EPS)       # a few roundings a step


def test_10_3_ito_by_hand():
    """The drift to use is f - g g'/2, with g g' = -0.64 cos(y) sin(y): so f + 0.32 cos(y) sin(y) in Stratonovich's sense. Both
    agree to rounding, and differ from the uncorrected solve by more than a hundredth.
    """
    def f(t, y, p):
        return -np.sin(y)

    def g(t, y, p):
        return 0.8 * np.cos(y)

    def corrected(t, y, p):                                       # f - g g'/2, with g' = -0.8 sin y
        return f(t, y, p) + 0.32 * np.cos(y) * np.sin(y)

    def end(drift, interpretation):
        return rv.solve(drift, np.ones((20, 1)), np.linspace(0.0, 1.0, 33), method=rv.RungeKutta("heun2"), diffusion=g,
                        noise=rv.Brownian(7), interpretation=interpretation).y1

    close(end(f, "ito"), end(corrected, "stratonovich"), 16 * 32 * EPS)            # some ten operations in each of 32 steps
    assert np.max(np.abs(end(f, "stratonovich") - end(f, "ito"))) > 0.01


# 11 -- equilibrium models

def test_11_1_the_theorem_on_linear_maps():
    """One sign or the other, (y, z) shrinks alike, and quicker than promised: y is new when z uses it."""
    for beta in np.arange(0.1, 1.2, 0.1):
        rates = []
        for m in (0.7, -0.7):
            y_moves = np.array([[1 - beta, beta * m], [0, 1]])
            z_moves = np.array([[1, 0], [beta * m, 1 - beta]])
            rates.append(max(abs(np.linalg.eigvals(z_moves @ y_moves))))
        assert rates[0] == pytest.approx(rates[1])
        assert rates[0] < abs(1 - beta) + beta * 0.7
    # of beta = 0.5, from a start without any luck, in the long run
    sizes = [abs(rv.fixed_point(lambda z, p, x: 0.7 * z, np.ones(1), tol=None, max_steps=n).z[0]) for n in (30, 31)]
    assert sizes[1] / sizes[0] == pytest.approx(0.8162, abs=1e-3)


def test_11_2_the_series_of_the_implicit_gradient():
    """One plain step from the fixed point has the gradient (df/dparams)^T a. Each further step puts J^T before what is there and adds
    a once more, so k steps give k terms of the series, to the last digits. It converges where the map contracts.
    """
    n = names("11")
    star, W, x, f = n["star"], n["W"], n["x"], n["f"]

    def loss(p, k):
        found = rv.fixed_point(f, star, p, x, method=rv.Picard(), tol=None, max_steps=1, gradient=rv.Phantom(steps=k, damping=1.0))
        return 0.5 * np.sum(found.z**2)

    d = 1 - star**2
    term = g = star
    for k in (1, 2, 3, 4):
        close(rv.grad(loss)(W, k), np.outer(star, d * g), 1e-12)
        term = (W * d) @ term                              # J^T, once more
        g = g + term


def test_11_3_how_deep_the_way_back_goes():
    """Up to some 24 to 32 iterations; rounding decides which. The bound promises 11: it takes each half step at its worst, which no
    map is for long.
    """
    n = names("11")
    iterate, undo, W, x = n["iterate"], n["undo"], n["W"], n["x"]
    off = lambda N: np.max(np.abs(undo(*iterate(np.zeros(8), W, x, 0.5, N), W, x, 0.5, N)[1]))
    deepest = max(N for N in range(1, 40) if off(N) < 1e-6)
    assert 24 <= deepest <= 32                             # rounding decides which
    bound = lambda N: ((1 + 0.5 * 0.7) / 0.5) ** (2 * N) * 2.0**-52
    promised = max(N for N in range(1, 40) if bound(N) < 1e-6)
    assert promised == 11                                  # each half step at its worst, which no map is for long


# 12 -- close, closer, exact

def test_12_1_the_bits_of_damped_alf():
    """One bit a step, as |1 - 2 eta| = 1/2: a thousand in all, and a few for the way in which they are packed."""
    sol = rv.solve(lambda t, y, p: -y, np.ones(1), np.linspace(0.0, 1.0, 1001), method=rv.AsynchronousLeapfrog(eta=0.75), exact=True)
    assert sol.stats.bits_bound == 1000             # |1 - 2 eta| = 1/2: one bit a step
    assert 1000 <= sol.stats.bits_stored <= 1010


def test_12_2_no_ratio():
    """exp(-0.05) is no ratio of whole numbers of a size that can be divided with remainder, and it is the remainder that is
    stored. The message proposes the nearest ratio that will do.
    """
    with pytest.raises(ValueError, match=r"scale 0\.9512.*the nearest is \d+/\d+"):
        rv.solve(lambda t, y, p: -y, np.ones(1), np.linspace(0.0, 1.0, 11), method=rv.Coupled(lam=np.exp(-0.05)), exact=True)


@pytest.mark.long                                          # all of chapter 12 comes before it
def test_12_3_a_coarse_lattice():
    """The gradient is off by more than a hundred times as much, as the unit of the lattice is 2^16 times larger. The certificate stays
    at zero: every bit comes back. It speaks of the way back, and not of how fine the state is.
    """
    space = names("12")
    (_, stats), coarse = rv.value_and_grad(space["loss"], has_aux=True)(space["p"], exact=rv.Lattice(bits=30))
    assert stats.exact                              # every bit comes back: the certificate does not speak of accuracy
    off = [abs(coarse[k] / space["direct"][k] - 1) for k in coarse]
    fine = [abs(space["exact"][k] / space["direct"][k] - 1) for k in coarse]
    assert max(off) > 100 * max(fine)               # u is 2^16 times larger, and so is the noise


# 13 -- one kernel, three hosts

def test_13_1_any_number():
    """No: with 3 threads at random, or 40 from the last to the first, the bits are the same, as each element belongs to one
    thread. With other tiles the sums over tiles come in another order, so the gradients of the parameters are off by rounding.
    """
    book = beginning("13", 3)
    desired = book["native"]
    for threads, order in ((3, "random"), (40, "descending")):
        assert book["equal"](book["solve"](book["rehearse"](threads=threads, order=order)), desired)
    for T in (4, 8):                                             # twenty trajectories in five tiles, and in three
        value, a_y0, *a_params = book["solve"](book["rehearse"](T=T))
        assert value == desired[0] and np.array_equal(a_y0, desired[1])
        for a, b in zip(a_params, desired[2:], strict=True):     # sums over tiles, in another order: rounding, no more
            close(a, b, 20 * EPS)


def test_13_2_which_barriers_can_go():
    """Not all are needed. The two around the product with the matrix are: it reads what other threads wrote. Between two loops
    over the same elements a thread reads what it wrote itself, with as many threads as this.
    """
    book = beginning("13", 2)
    text = book["texts"][0]
    step = text.index("void step_step(")
    places = [step + m.start() for m in re.finditer("SYNC;", text[step:text.index("\n}\n", step)])]
    raced = []
    for at in places:
        def without(text, at=at):
            return text[:at] + text[at + 5:]

        try:
            rv.solve(book["field"], book["y0"], np.linspace(0, 1, 11), book["p"], method=rv.ReversibleHeun(), save=[-1],
                     backend=book["rehearse"](threads=32, edit=without, races=True))
        except RuntimeError as error:
            assert str(error).endswith("a race")
            raced.append(at)
    # The two around the product are needed. Where one loop follows another over the same elements, a thread reads only what
    # it wrote itself, with as many threads as this.
    assert 1 <= len(raced) < len(places)


def test_13_3_a_sum_that_keeps_its_bits():
    """Each thread adds its own numbers and leaves the sum in an array, and after a barrier thread 0 adds those up. All orders
    give the same bits. With 32 threads they are others: who adds what depends on the number of threads.
    """
    from revode_cuda import host
    source = """extern "C" KERNEL void k(const float* x, float* sum) {
        __shared__ float own[64];
        float mine = 0;
        for (int i = TID; i < 4096; i += NT) mine += x[i];
        own[TID] = mine;
        SYNC
        if (TID == 0) { float whole = 0; for (int i = 0; i < NT; i++) whole += own[i]; sum[0] = whole; }
    }"""
    x = np.random.default_rng(0).normal(size=4096).astype(np.float32)

    def total(threads, order):
        sum = np.zeros(1, np.float32)
        host.launch(source, "k", 1, threads, (x, sum), order=order, real="float", races=True)
        return sum[0]

    with64, with32 = ({total(threads, order) for order in host.ORDERS} for threads in (64, 32))
    assert len(with64) == len(with32) == 1
    assert with64 != with32             # who adds what depends on the number of threads: sums need an owner that does not
    close([*with64, *with32], [x.astype(float).sum()] * 2, 4096 * 2.0**-24)


# 14 -- checking someone else's implementation

def test_14_1_one_step_back():
    """Six complex steps give the 6 by 6 Jacobian of a step. Its transpose times `a_{n+1}`, plus the weight, is `a_n` of the case."""
    """Six complex steps give the 6 x 6 Jacobian of one step in (y, v). Its transpose times a_{n+1}, and w_n added to the part of y,
    is a_n of the case, to a few roundings.
    """
    from revode.conformance import chosen
    case, = chosen("alf-eta0.875")
    problem, eta, n, eps = case.problem, case.problem.method["eta"], 2, 1e-30
    f, t, h = problem.field(), problem.ts[n], problem.ts[n + 1] - problem.ts[n]

    def step(x):
        y, v = x[:3] + h / 2 * x[3:], x[3:]
        v = (1 - 2 * eta) * v + 2 * eta * f(t + h / 2, y, problem.params)
        return np.concatenate([y + h / 2 * v, v])

    x, after = (np.concatenate([states["y"], states["v"]]) for states in case.states[n:n + 2])
    close(step(x), after, 4 * EPS)
    jacobian = np.stack([step(x + 1j * eps * e).imag / eps for e in np.eye(6)], 1)
    a, a_after = (np.concatenate([row["y"], row["v"]]) for row in case.cotangents[n:n + 2])
    # a dozen products and sums of numbers of the size of a
    close(jacobian.T @ a_after + np.concatenate([problem.weights[n], np.zeros(3)]), a, 12 * EPS)


def test_14_2_the_even_grid():
    """On `alf-uniform` alone. On the other two it differs from step 2 on: the first step is right."""
    """On `alf-uniform` alone. On the others the first step is right by accident, and the second differs, which is what the check
    says."""
    from dataclasses import replace

    from revode.conformance import check
    alf = names("14")["alf"]

    def fixed(problem):
        return alf(replace(problem, ts=problem.ts[0] + (problem.ts[1] - problem.ts[0]) * np.arange(len(problem.ts))), start=True)

    found = {v.name: v for v in check(fixed, "alf,alf-uniform,alf-backwards")}
    assert found["alf-uniform"].status == "conforms"
    assert found["alf"].status == found["alf-backwards"].status == "differs"
    assert "at step 2" in found["alf"].where[0]              # the first step is right


def test_14_3_two_at_once():
    """It is unknown. Step 1 differs first, and evaluation 2: the first is right by accident, because `v0 = 0` moves nothing."""
    """It is not named, as no single fault of the list gives these digits: "looks like: unknown". The place is right: the first
    step, and the evaluation there.
    """
    from revode.conformance import check, chosen, faults, reference
    case, = chosen("alf-eta0.875")
    listed = {fault.says: fault for fault in faults.listed(case.problem.method, "ode")}
    early = listed["f is evaluated at t; its time is t + h/2"]
    still = listed["v0 = 0; it is f(t0, y0)"]

    def planted(*chosen):
        def implementation(problem):
            run = reference.Reference(problem, sum((fault.edits for fault in chosen), ()))
            f = problem.field()
            run.names["f"] = lambda t, y: f(t, y, problem.params)
            return {"ys": run.trajectory()[0]}

        return check(implementation, "alf-eta0.875", level="y")[0]

    assert planted(early).looks_like == [early.says] and planted(still).looks_like == [still.says]
    both = planted(early, still)
    assert both.looks_like == [] and "looks like: unknown" in both.lines()[-1]
    assert "step 1" in both.where[0] and "no. 2, at t = 0.3125" in both.where[1]        # without v0, the first is right by accident


# 15 -- train your own

def trained_lotka_volterra(book):
    """Lotka and Volterra's law in the logarithms of thousands of pelts, trained as the chapter trains its network."""
    def field(t, y, p):
        H, L = np.exp(y[..., 0] + book["mean"][0]), np.exp(y[..., 1] + book["mean"][1])
        a, b, c, d = (np.exp(p[name]) for name in "abcd")
        return np.stack([a - b * L, d * H - c], axis=-1)

    def loss(p, first):
        ys = rv.solve(field, book["data"][first], book["ts"], p, save=slice(0, None, book["PER"])).ys
        return np.mean((ys - np.stack([book["data"][first + k] for k in range(book["LONG"] + 1)])) ** 2)

    p, rng = {"a": np.log(0.5), "b": np.log(0.02), "c": np.log(0.8), "d": np.log(0.02)}, np.random.default_rng(1)
    optimiser, step = rv.optim.adam(book["rate"]), rv.value_and_grad(loss)
    state = optimiser.init(p)
    for _ in range(200):
        _, grads = step(p, rng.choice(book["seen"], 6, replace=False))
        p, state = optimiser.update(p, grads, state)
    return loss(p, book["seen"])


@pytest.mark.long
def test_15_1_the_textbooks_model():
    """About 0.1, several times that of the network's 0.02. Four numbers do surprisingly well, and what they cannot say is that the
    fall of the hares is steeper than their rise."""
    book = names("15")
    textbook = trained_lotka_volterra(book)
    assert book["loss"](book["params"], book["seen"]) < 0.03 < 0.05 < textbook < 0.3


def test_15_2_a_first_value_that_is_not_measured():
    """A third or more is gone: what was measured in 1900 is a measurement, with an error of its own, and the curve of twenty
    years is bent by it. The gradient goes to y0 as to any other argument."""
    book = names("15")
    grid = np.linspace(0.0, 20.0, 401)

    def whole(p):
        return np.mean((rv.solve(book["field"], p["y0"], grid, p, save=slice(0, None, 20)).ys - book["data"]) ** 2)

    p, optimiser = {**book["params"], "y0": book["data"][0]}, rv.optim.adam(0.003)
    state, before = optimiser.init(p), whole(p)
    for _ in range(50):
        _, grads = rv.value_and_grad(whole)(p)
        p, state = optimiser.update(p, grads, state)
    assert whole(p) < 0.67 * before


def test_15_3_missing_years():
    """All gradients change a little, as every parameter had a part in 1904; none is NaN if the missing number is replaced before it
    meets the model, with np.where on both sides. Multiplied by a mask of zeros instead, NaN stays NaN."""
    book = names("15")
    with_gap = book["data"].copy()
    with_gap[4] = np.nan

    def loss(p, careful):
        ys = rv.solve(book["field"], book["data"][0], np.linspace(0.0, 5.0, 51), p, save=slice(0, None, 10)).ys
        target = with_gap[:6]
        there = ~np.isnan(target)
        if careful:
            return np.sum(np.where(there, (ys - np.where(there, target, 0.0)) ** 2, 0.0)) / there.sum()
        return np.sum((ys - target) ** 2 * there) / there.sum()

    whole = rv.grad(lambda p: np.mean((rv.solve(book["field"], book["data"][0], np.linspace(0.0, 5.0, 51), p,
                                                save=slice(0, None, 10)).ys - book["data"][:6]) ** 2))(book["params"])
    masked = rv.grad(lambda p: loss(p, True))(book["params"])
    for a, b in zip(rv.tree.flatten(whole)[0], rv.tree.flatten(masked)[0], strict=True):
        assert np.isfinite(b).all() and np.max(np.abs(a - b)) > 1e-6
    assert np.isnan(loss(book["params"], False))


# which-method.md

@cache
def figure(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / "figures" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_cell(shown: str, measured: str) -> bool:
    """Equal, or errors at most a factor of 100 apart: the lesser ones are rounding, and shown as rounded-up powers."""
    if shown == measured:
        return True
    errors = [text for text in (shown, measured) if re.fullmatch(r"\de-\d+", text)]
    return len(errors) == 2 and abs(np.log10(float(shown) / float(measured))) < 2.01


@pytest.mark.sample(3)
@pytest.mark.parametrize("name, label", [
    ("methods", 'Coupled("rk4")'), ("methods", "ReversibleHeun()"), ("methods", "EES(stages=6)"),
    ("methods", 'NearReversible("rk4")'),
    ("modes", 'none named: `Automatic()`, with `NearReversible("rk4")`'), ("modes", "`Backsolve()`"),
    ("modes", "`Reversible(resync=20)`, with the same"),
    ("traits", 'Coupled("midpoint")'), ("traits", "AsynchronousLeapfrog()"), ("traits", "EES27()")])
def test_which_method_is_what_its_script_measures(name, label):
    script = figure("which_method")
    head, rows, make = script.TABLES[name]
    text = script.PAGE.read_text()
    lines = [line for line in text.split(f"<!-- {name}: ")[1].split("<!-- end")[0].splitlines() if line.startswith("|")]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert shown[0] == head and len(shown) == 2 + len(rows)
    row, = (cells for cells in shown[2:] if cells[0].strip("`") == label.strip("`") or cells[0] == label)
    measured = make(label)
    assert len(row) == len(measured) and all(map(same_cell, row, measured)), (row, measured)

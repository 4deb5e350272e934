"""The answers to the exercises of the book, chapter by chapter. Try before you look."""
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from run_chapters import chapters, run

import revode as rv

EPS = 2.0**-52


@cache
def names(number: str) -> dict:
    """What the code of a chapter has defined."""
    path, = (path for path in chapters() if path.name.startswith(number))
    return run(path)[2]


def close(actual, desired, tol):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tol * max(1.0, np.max(np.abs(desired))))


# 00 -- a gradient that stores nothing

def test_00_1_every_step_counts():
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
    book = names("00")
    q, _ = book["forward"](1.0, 0.3, 2.0 + 1e-30j, 0.01, 1000)
    close(book["ak"], (q * q / 2).imag / 1e-30, 1e-11)       # 1000 steps of rounding


def test_02_2_find_the_bug():
    def softplus(rule):
        return rv.custom_vjp(lambda x: (np.log1p(np.exp(x)), lambda g: (g * rule(x),)))

    x = np.linspace(-2.0, 2.0, 7)
    with pytest.raises(AssertionError, match="central differences"):
        rv.check_vjp(softplus(lambda x: np.exp(x) / (1 + np.exp(2 * x))), x, order=1)
    assert rv.check_vjp(softplus(lambda x: np.exp(x) / (1 + np.exp(x))), x, order=1) < 1e-8


def test_02_3_a_blind_test():
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

def test_03_1_order_of_the_gradient():
    loss = names("03")["loss"]
    errors = [abs(rv.grad(loss)(1.3, N, rv.Direct(), rv.RungeKutta("rk4")) + 2 * np.sin(2.6)) for N in (80, 160, 320)]
    factors = [a / b for a, b in pairwise(errors)]
    assert factors[1] < factors[0] and 16 < factors[1] < 19   # to 2^4 from above: the next term has the same sign


def test_03_2_four_modes_one_number():
    loss, method = names("03")["loss"], rv.Coupled("rk4")
    direct, checkpointed, reversible, continuous = (
        rv.grad(loss)(1.3, 20, gradient, method)
        for gradient in (rv.Direct(), rv.Checkpointed(5), rv.Reversible(), rv.Backsolve()))
    close([checkpointed, reversible], [direct, direct], 1e-13)          # 20 steps of rounding
    assert 1e-8 < abs(continuous - direct) < 1e-3                       # h^4 is 1e-4


def test_03_3_newton():
    loss, w = names("03")["loss"], 1.3
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
    assert abs(np.prod(names("06")["growth"](z, eta)) - abs(1 - 2 * eta)) < 1e-14


def test_06_2_same_method_other_name():
    A = np.random.default_rng(0).normal(size=(3, 3)) / 3
    ends = [rv.solve(lambda t, y, A: y @ A, np.ones(3), np.linspace(0, 2, 41), A, method=method).ys
            for method in (rv.AsynchronousLeapfrog(), rv.ReversibleHeun())]
    # v = f(z) at every step: reflecting z at y and reflecting v = A z at f(y) = A y are one thing when f is linear.
    close(ends[0], ends[1], 1e-13)


def test_06_3_fourth_order():
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
    book = names("07")
    step, p, h = book["two_lines"], book["p"], 0.05
    y, z = np.array([0.4, 1.0]), np.array([0.5, 0.9])
    there = step(y, z, 0.0, h, p)
    back = step(*there, h, -h, p)                             # the same two lines with -h, from the other end
    close(np.stack(back), np.stack([y, z]), 8 * EPS)


def test_07_2_counting():
    book = names("07")
    sol = book["loss"](book["p"], rv.Composition(rv.ReversibleHeun(), order=4))[1]
    assert sol.stats.nfe == 301                               # three substeps share their ends, too


@pytest.mark.parametrize("z", [-0.1, -1.0, 0.5j, -0.3 + 0.2j])
def test_07_3_the_parasite(z):
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
    for z in (-0.2, -1.0, 0.6j):
        assert abs(np.linalg.det(coupled_matrix(z, 0.8)) - 0.8) < 1e-14
    stable, unstable = 0.0, -1.0
    for _ in range(40):
        z = (stable + unstable) / 2
        inside = np.max(np.abs(np.linalg.eigvals(coupled_matrix(z, 0.8)))) < 1
        stable, unstable = (z, unstable) if inside else (stable, z)
    assert abs(stable + (1 - np.sqrt(2 * 0.8 - 1))) < 1e-6


def test_08_2_a_residual_network():
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

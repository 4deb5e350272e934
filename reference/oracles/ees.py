"""Explicit and effectively symmetric methods, literally: coefficients in exact numbers, steps as plain loops.

    2N low storage (Williamson 1980)    d_i = A_i d_{i-1} + h f(t + c_i h, y_{i-1}),   y_i = y_{i-1} + B_i d_i
    Butcher form                        k_i = f(t + c_i h, y + h sum_j a_ij k_j),      y' = y + h sum_i b_i k_i

EES(n, m): forward order n, and Phi_{-h}(Phi_h(y)) = y + O(h^{m+1}).

    EES(2,5;x)            Shmelev & Salvi, arXiv 2507.21006: the tableau, and the 2N form of x = 1/10 and x = 1/4
    EES(2,7)              the same; exact in Q(sqrt 2), see `Root2`
    trigonometric(s)      EES(2, 2s-1) with s stages, in whatever precision mpmath is set to

`composed` is the tableau of Phi_{-h} o Phi_h: a step with 2s stages whose increment is to vanish. What 'effectively
symmetric of order m' means is then that its elementary weight is zero on every rooted tree of at most m nodes.
"""
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from .trees import gamma, order_conditions


class Root2(NamedTuple):
    """a + b sqrt(2) with rational a, b: the field Q(sqrt 2), exact."""

    a: Any
    b: Any = Fraction(0)

    def __add__(self, other):
        other = _root2(other)
        return Root2(self.a + other.a, self.b + other.b)

    def __neg__(self):
        return Root2(-self.a, -self.b)

    def __sub__(self, other):
        return self + -_root2(other)

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        other = _root2(other)
        return Root2(self.a * other.a + 2 * self.b * other.b, self.a * other.b + self.b * other.a)

    def __truediv__(self, other):
        other = _root2(other)
        norm = other.a * other.a - 2 * other.b * other.b
        return self * Root2(other.a / norm, -other.b / norm)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rtruediv__(self, other):
        return _root2(other) / self

    def number(self, number: Callable, sqrt: Callable):
        """In floating point: number(Fraction) and sqrt(2) of the caller's precision."""
        return number(self.a) + number(self.b) * sqrt(2)


def _root2(x) -> Root2:
    return x if isinstance(x, Root2) else Root2(Fraction(x))


SQRT2 = Root2(Fraction(0), Fraction(1))


class LowStorage(NamedTuple):
    """A and B of the 2N form, s numbers each; A[0] = 0."""

    A: tuple
    B: tuple


class Butcher(NamedTuple):
    """A (s rows of s entries), b, c: what `loops.Psi` takes."""

    A: tuple
    b: tuple
    c: tuple


# --------------------------------------------------------------------------------------------- coefficients

Q = Fraction
LOW_STORAGE_25 = {
    Q(1, 10): LowStorage((Q(0), Q(-7, 15), Q(-35, 32)), (Q(1, 3), Q(15, 16), Q(2, 5))),
    Q(1, 4): LowStorage((Q(0), Q(-1, 2), Q(-2)), (Q(1, 2), Q(1), Q(1, 4))),
}
LOW_STORAGE_27 = LowStorage(
    (Root2(Q(0)), (4 * SQRT2 - 7) / 3, -(4 + 5 * SQRT2) / 12, 3 * (8 * SQRT2 - 31) / 49),
    ((2 - SQRT2) / 3, (4 + SQRT2) / 8, 3 * (3 - SQRT2) / 7, (9 - 4 * SQRT2) / 14))
B_27 = ((5 - 3 * SQRT2) / 14, (3 + SQRT2) / 14, 3 * (2 * SQRT2 - 1) / 14, (9 - 4 * SQRT2) / 14)


def ees25_butcher(x) -> Butcher:
    """EES(2,5;x) for any number x but 1 and +-1/2; exact on Fractions."""
    half = Q(1, 2) if isinstance(x, Fraction) else x / x / 2
    zero = 0 * x
    a21 = (1 + 2 * x) / (4 * (1 - x))
    a31 = (4 * x - 1) ** 2 / (4 * (x - 1) * (1 - 4 * x * x))
    a32 = (1 - x) / (1 - 4 * x * x)
    return Butcher(((zero, zero, zero), (a21, zero, zero), (a31, a32, zero)), (x, half, half - x), (zero, a21, a31 + a32))


def trigonometric(s: int) -> LowStorage:
    """theta = pi/(2s), A_{i+1} = -sin((2i-1) theta)/sin((2i+1) theta), B_i = 2 sin(theta) sin((2i-1) theta)
    for i < s, B_s = sin(theta)^2."""
    from mpmath import mpf, pi, sin
    theta = pi / (2 * s)
    A = [mpf(0)] + [-sin((2 * i - 1) * theta) / sin((2 * i + 1) * theta) for i in range(1, s)]
    B = [2 * sin(theta) * sin((2 * i - 1) * theta) for i in range(1, s)] + [sin(theta) ** 2]
    return LowStorage(tuple(A), tuple(B))


def butcher(scheme: LowStorage) -> Butcher:
    """The tableau of a 2N scheme: run on symbols, d and y being the weights of k_1 .. k_s in them."""
    A, B = scheme
    s = len(B)
    zero = 0 * B[0]
    d, y, rows = [zero] * s, [zero] * s, []
    for i in range(s):
        rows.append(tuple(y))
        d = [A[i] * w for w in d]
        d[i] = d[i] + 1
        y = [y[j] + B[i] * d[j] for j in range(s)]
    return Butcher(tuple(rows), tuple(y), tuple(sum(row[1:], row[0]) for row in rows))


def composed(tableau) -> Butcher:
    """Phi_{-h} after Phi_h as one step: stages k_1 .. k_s of the first, then those of the second, which starts at
    y + h sum_j b_j k_j and at time t + h and has the step -h."""
    A, b, c = tableau.A, tableau.b, tableau.c
    zero = 0 * b[0]
    s = len(b)
    first = tuple((*row, *(zero,) * (s - len(row)), *(zero,) * s) for row in A)
    second = tuple((*b, *(-a for a in row), *(zero,) * (s - len(row))) for row in A)
    return Butcher((*first, *second), (*b, *(-w for w in b)), (*c, *(1 - x for x in c)))


def weights(tableau, order: int) -> list:
    """[(tree, sum_i b_i Phi_i(tree))] for all trees of 1 .. `order` nodes."""
    return [(tree, rest + Fraction(1, gamma(tree))) if isinstance(rest, (Fraction, Root2)) else (tree, rest + 1 / (
        0 * rest + gamma(tree))) for tree, rest in order_conditions(tableau.A, tableau.b, tableau.c, order)]


# ---------------------------------------------------------------------------------------------------- steps

def stage_times(scheme: LowStorage) -> list:
    """c_i: the scheme run on y' = 1 from 0 with h = 1."""
    A, B = scheme
    times, y, d = [], 0 * B[0], 0 * B[0]
    for a, b in zip(A, B, strict=True):
        times.append(y)
        d = a * d + 1
        y = y + b * d
    return times


def low_storage_step(field, params, scheme, t, t1, h, y):
    """d <- A_i d + h f(t + c_i h, y);   y <- y + B_i d."""
    d = 0 * y
    for a, b, c in zip(scheme.A, scheme.B, stage_times(scheme), strict=True):
        d = a * d + h * field(t + c * h, y, params)
        y = y + b * d
    return y


def leapfrog_step(field, params, s, t, t1, h, y):
    """The trigonometric scheme with s stages as a restarted, smoothed leapfrog:

        z_0 = y,   z_1 = y + 2 h sin(theta)^2 f(z_0),   z_{i+1} = z_{i-1} + 2 h sin(theta) sin((2i+1) theta) f(z_i)
        y' = (z_{s-1} + z_s) / 2

    Every z_i has its own time, which the same recurrence gives with f = 1.
    """
    from mpmath import pi, sin
    theta = pi / (2 * s)
    z, time = [y], [t]
    z.append(y + 2 * h * sin(theta) ** 2 * field(t, y, params))
    time.append(t + 2 * h * sin(theta) ** 2)
    for i in range(1, s):
        weight = 2 * h * sin(theta) * sin((2 * i + 1) * theta)
        z.append(z[i - 1] + weight * field(time[i], z[i], params))
        time.append(time[i - 1] + weight)
    return (z[s - 1] + z[s]) / 2


def step_back(step, t, t1, h, y1, correct=0):
    """y ~ Phi_{-h}(y1), and then `correct` times y <- y + (y1 - Phi_h(y)); `step(t, t1, h, y)` is Phi."""
    y = step(t1, t, -h, y1)
    for _ in range(correct):
        y = y + (y1 - step(t, t1, h, y))
    return y


def reverse_sweep(step, y, ts, params, cotangents, correct=0, known=None, eps=1e-30):
    """What a near-reversible gradient IS: reconstruct, then pull back through the forward step at that point.

    Where the state itself is known (`known`: {n: y_n}; y_0 at least), it takes the place of the reconstructed one: the
    step is pulled back there, and the reconstruction goes on from there.

    step(params, t, t1, h, y) is Phi_h on one array y; params is a dict of arrays; cotangents[n] is dL/dy_n or None.
    Each Jacobian by complex steps (Squire & Trapp 1998), entry by entry: no subtraction, so good to round-off.
    Returns dL/dy_0, {name: dL/dparam} and [y_0 .. y_N] as reconstructed. Meant for a handful of entries.
    """
    import numpy as np
    known = known or {}
    a = cotangents[-1]
    a_params = {name: np.zeros_like(w, dtype=float) for name, w in params.items()}
    path = [y]
    for n in reversed(range(len(ts) - 1)):
        at = (ts[n], ts[n + 1], ts[n + 1] - ts[n])
        y = step_back(lambda *args: step(params, *args), *at, y, correct)
        path.insert(0, y)
        y = known.get(n, y)

        def pulled(x, put, at=at, y=y, a=a):
            grad = np.zeros(x.shape)
            for index in np.ndindex(x.shape):
                moved = x.astype(complex)
                moved[index] += 1j * eps
                grad[index] = (a * put(moved).imag).sum() / eps
            return grad
        for name, w in params.items():
            a_params[name] = a_params[name] + pulled(
                np.asarray(w), lambda w, name=name, at=at, y=y: step({**params, name: w}, *at, y))
        a = pulled(y, lambda y, at=at: step(params, *at, y))
        if cotangents[n] is not None:
            a = a + cotangents[n]
    return a, a_params, path

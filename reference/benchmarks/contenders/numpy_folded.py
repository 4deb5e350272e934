"""What can be written by hand in NumPy when every call counts: one trajectory, linear maps folded into each other.

At this size a call costs more than its arithmetic. So values lie side by side in rows, such that everything linear between
two tanh is one product with a folded matrix: for z + h/2 f(z) = z + h/2 (a2 W3 + b3) the next layer is

    [a2, z, 1] @ [h/2 W3 W1; W1; b1 + h/2 b3 W1]

The ones in the rows carry the biases. The rows of several steps are kept, inputs in A and cotangents in G, and one product
A^T G for all of them has every weight gradient in it. Nine calls an increment, eleven a pullback.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..works import LAM, Work, problem

KEEP = 32            # steps whose rows are kept for one product


class Layout:
    """Names for parts of a row: layout.x is the slice of x; layout.span("x", "a2") the slice from x through a2."""

    def __init__(self, **sizes: int) -> None:
        self.size = 0
        for name, size in sizes.items():
            setattr(self, name, slice(self.size, self.size + size))
            self.size += size

    def span(self, first: str, last: str) -> slice:
        return slice(getattr(self, first).start, getattr(self, last).stop)


def stack(*blocks: Any) -> Any:
    """Matrices and rows on top of each other."""
    return np.concatenate([np.atleast_2d(block) for block in blocks])


class Products:
    """Sums over the steps of A^T G, for one kind of row."""

    def __init__(self, a: Layout, g: Layout, dtype: Any) -> None:
        self.a, self.g = a, g
        self.A, self.G = np.zeros((KEEP + 1, a.size), dtype), np.zeros((KEEP + 1, g.size), dtype)
        self.sum, self.one = np.zeros((2, a.size, g.size), dtype)
        for name in ("one", "one1", "one2"):
            if hasattr(a, name):
                self.A[:, getattr(a, name)] = 1

    def add(self, n: int) -> None:
        """The first n rows."""
        self.sum += np.dot(self.A[:n].T, self.G[:n], out=self.one)

    def of(self, a: str, g: str) -> Any:
        return self.sum[getattr(self.a, a), getattr(self.g, g)]


# Coupled midpoint -----------------------------------------------------------------------------------------------------
class Half:
    """other' = mu other + rho x + h f(m), m = x + s f(x): half a step of Coupled, of either kind."""

    def __init__(self, case: Any, h: float, s: float, mu: float, rho: float) -> None:
        self.case, self.h, self.s, self.mu, self.rho = case, h, s, mu, rho
        self.d, self.h1, self.h2 = case.y0.shape[1], *(len(b) for b in case.params[1:5:2])
        d, h1, h2 = self.d, self.h1, self.h2
        self.a = Layout(x1=h1, one1=1, x2=h2, other=d, x=d, one=1, m2=h2, m1=h1, one2=1)      # hidden at x, at m
        self.g = Layout(other=d, x=d, m1=h1, x1=h1, m2=h2, x2=h2)
        self.products = Products(self.a, self.g, case.y0.dtype)
        self.matrices = [np.zeros(shape, case.y0.dtype) for shape in (
            (d + 1, h1), (h1 + 1, h2), (h2 + 2 * d + 1, h1), (2 * d + 1 + h2, 2 * d), (2 * d + 1 + h2, 2 * d),
            (2 * d, h2), (h2, h1), (h1, h2), (2 * d + 2 * h1, 2 * d))]

    def fold(self) -> None:
        """The matrices for these weights."""
        W1, b1, W2, b2, W3, b3 = self.case.params
        h, s, mu, rho, zero, eye = self.h, self.s, self.mu, self.rho, np.zeros((self.d, self.d)), np.eye(self.d)
        folded = (stack(W1, b1), stack(W2, b2),
                  stack(s * W3 @ W1, 0 * W1, W1, b1 + s * b3 @ W1),
                  np.hstack([stack(zero, eye, 0 * b3, 0 * W3), stack(mu * eye, rho * eye, h * b3, h * W3)]),
                  np.hstack([stack(zero, eye, 0 * b3, 0 * W3), stack(eye, -rho * eye, -h * b3, -h * W3) / mu]),
                  stack(h * W3.T, 0 * W3.T), W2.T, s * W1.T @ W3.T,
                  np.hstack([stack(rho * eye, eye, W1.T, W1.T), stack(mu * eye, zero, 0 * W1.T, 0 * W1.T)]))
        for matrix, value in zip(self.matrices, folded, strict=True):
            matrix[...] = value

    def increment(self, row: Any, to: Any, back: bool) -> Callable:
        """A call that steps from a row to the `other` and `x` of the next, which has them exchanged."""
        a, (first, second, middle, forth, undo, *_) = self.a, self.matrices
        x1, x2, m1, m2 = row[a.x1], row[a.x2], row[a.m1], row[a.m2]
        spans = (("x", "one"), ("x1", "one1"), ("x2", "one"), ("m1", "one2"), ("other", "m2"))
        first_of, second_of, middle_of, fourth_of, last_of = (row[a.span(*span)].dot for span in spans)
        last, tanh = undo if back else forth, np.tanh

        def run() -> None:
            first_of(first, x1)
            tanh(x1, x1)
            second_of(second, x2)
            tanh(x2, x2)
            middle_of(middle, m1)
            tanh(m1, m1)
            fourth_of(second, m2)
            tanh(m2, m2)
            last_of(last, to)

        return run

    def pullback(self, row: Any, grow: Any, to: Any) -> Callable:
        """A call that takes the cotangents of a row to those of the next."""
        a, g, (*_, third, second, first, last) = self.a, self.g, self.matrices
        slope, one = np.empty_like(row), np.ones((), row.dtype)
        dx1, dx2, dm1, dm2 = slope[a.x1], slope[a.x2], slope[a.m1], slope[a.m2]
        x1, x2, m1, m2 = grow[g.x1], grow[g.x2], grow[g.m1], grow[g.m2]
        third_of, m2_of, m1_of, x2_of = grow[g.span("other", "x")].dot, m2.dot, m1.dot, x2.dot
        last_of, multiply, subtract = grow[g.span("other", "x1")].dot, np.multiply, np.subtract

        def run() -> None:
            multiply(row, row, slope)
            subtract(one, slope, slope)
            third_of(third, m2)
            multiply(m2, dm2, m2)
            m2_of(second, m1)
            multiply(m1, dm1, m1)
            m1_of(first, x2)
            multiply(x2, dx2, x2)
            x2_of(second, x1)
            multiply(x1, dx1, x1)
            last_of(last, to)

        return run

    def gradients(self) -> list:
        """Of all weights, from the products: m = x + s (a2 W3 + b3) is taken apart."""
        of, h, s = self.products.of, self.h, self.s
        W1, _, _, _, W3, b3 = self.case.params
        return [of("x", "x1") + of("x", "m1") + s * (W3.T @ of("x2", "m1") + np.outer(b3, of("one", "m1"))),
                (of("one", "x1") + of("one", "m1"))[0],
                of("x1", "x2") + of("m1", "m2"), (of("one", "x2") + of("one", "m2"))[0],
                h * of("m2", "other") + s * of("x2", "m1") @ W1.T, (h * of("one", "other") + s * of("one", "m1") @ W1.T)[0]]


def coupled_midpoint(case: Any) -> Callable:
    """y' = lam y + (1 - lam) z + h f(z + h/2 f(z));  z' = z + h f(y' - h/2 f(y')), there and back."""
    h, N, d = float(case.ts[1] - case.ts[0]), len(case.ts) - 1, case.y0.shape[1]
    of_y, of_z = halves = [Half(case, h, h / 2, LAM, 1 - LAM), Half(case, h, -h / 2, 1.0, 0.0)]
    state, cotangent = of_y.a.span("other", "x"), of_y.g.span("other", "x")
    ry, rz = (half.products.A[0].copy() for half in halves)
    first, second = of_y.increment(ry, rz[state], False), of_z.increment(rz, ry[state], False)
    (Ay, Gy), (Az, Gz) = ((half.products.A, half.products.G) for half in halves)
    back = [run for i in range(KEEP) for run in (
        of_z.increment(Az[i], Ay[i][state], True), of_z.pullback(Az[i], Gz[i], Gy[i][cotangent]),
        of_y.increment(Ay[i], Az[i + 1][state], True), of_y.pullback(Ay[i], Gy[i], Gz[i + 1][cotangent]))]

    def run() -> tuple:
        for half in halves:
            half.fold()
            half.products.sum.fill(0)
        ry[state] = np.concatenate([case.y0[0], case.y0[0]])
        for _ in range(N):
            first()
            second()
        y1, z1 = ry[state][:d], ry[state][d:]
        value = case.loss(np, y1[None])
        Az[0][state], Gz[0][cotangent][:d], Gz[0][cotangent][d:] = np.concatenate([z1, y1]), 0, y1
        for start in range(0, N, KEEP):
            n = min(KEEP, N - start)
            for step in back[:4 * n]:
                step()
            for half in halves:
                half.products.add(n)
            Az[0][state], Gz[0][cotangent] = Az[n][state], Gz[n][cotangent]
        ay0 = Gz[0][cotangent][:d] + Gz[0][cotangent][d:]
        return value, [ay0[None], *[a + b for a, b in zip(of_y.gradients(), of_z.gradients(), strict=True)]]

    return run


# Reversible Heun ------------------------------------------------------------------------------------------------------
def reversible_heun(case: Any) -> Callable:
    """With p = y + h/2 f(z) a step is z' = 2p - z, p' = p + h f(z'); y = p - h/2 f(z) at the end."""
    h, N, d, dtype = float(case.ts[1] - case.ts[0]), len(case.ts) - 1, case.y0.shape[1], case.y0.dtype
    h1, h2 = (len(b) for b in case.params[1:5:2])
    a, g = Layout(p=d, z=d, one=1, a2=h2, a1=h1, one1=1), Layout(p=d, z=d, a1=h1, a2=h2)
    products = Products(a, g, dtype)
    A, G = products.A, products.G
    state, cotangent = a.span("p", "z"), g.span("p", "z")
    jump, here, second, forth, undo, third, second_t, last = (np.zeros(shape, dtype) for shape in (
        (2 * d + 1, h1), (d + 1, h1), (h1 + 1, h2), (2 * d + 1 + h2, 2 * d), (2 * d + 1 + h2, 2 * d), (d, h2), (h2, h1),
        (2 * d + h1, 2 * d)))
    tanh, multiply, subtract, one = np.tanh, np.multiply, np.subtract, np.ones((), dtype)

    def fold() -> None:
        W1, b1, W2, b2, W3, b3 = case.params
        eye = np.eye(d)
        jump[...], here[...], second[...] = stack(2 * W1, -W1, b1), stack(W1, b1), stack(W2, b2)
        forth[...] = np.hstack([stack(eye, 0 * eye, h * b3, h * W3), stack(2 * eye, -eye, 0 * b3, 0 * W3)])
        undo[...] = np.hstack([stack(eye, 0 * eye, -h * b3, -h * W3), stack(2 * eye, -eye, -2 * h * b3, -2 * h * W3)])
        third[...], second_t[...] = h * W3.T, W2.T
        last[...] = np.hstack([stack(eye, 2 * eye, 2 * W1.T), stack(0 * eye, -eye, -W1.T)])

    def step(row: Any, to: Any, back: bool) -> Callable:
        """f at the row's z (back) or at the next (forth), and the next p and z."""
        first, update = (here, undo) if back else (jump, forth)
        first_of, second_of = row[a.span("z" if back else "p", "one")].dot, row[a.span("a1", "one1")].dot
        a1, a2, last_of = row[a.a1], row[a.a2], row[a.span("p", "a2")].dot

        def run() -> None:
            first_of(first, a1)
            tanh(a1, a1)
            second_of(second, a2)
            tanh(a2, a2)
            last_of(update, to)

        return run

    def pullback(row: Any, grow: Any, to: Any) -> Callable:
        slope = np.empty_like(row)
        d1, d2, a1, a2 = slope[a.a1], slope[a.a2], grow[g.a1], grow[g.a2]
        third_of, second_of, last_of = grow[g.p].dot, a2.dot, grow[g.span("p", "a1")].dot

        def run() -> None:
            multiply(row, row, slope)
            subtract(one, slope, slope)
            third_of(third, a2)
            multiply(a2, d2, a2)
            second_of(second_t, a1)
            multiply(a1, d1, a1)
            last_of(last, to)

        return run

    rows = A[:2].copy()
    there = [step(rows[0], rows[1][state], False), step(rows[1], rows[0][state], False)]
    back = [run for i in range(KEEP) for run in (step(A[i], A[i + 1][state], True), pullback(A[i], G[i], G[i + 1][cotangent]))]

    def run() -> tuple:
        fold()
        products.sum.fill(0)
        W1, b1, W2, b2, W3, b3 = case.params
        y0 = case.y0[0]
        rows[0][state] = np.concatenate([y0 + h / 2 * (np.tanh(np.tanh(y0 @ W1 + b1) @ W2 + b2) @ W3 + b3), y0])
        for _ in range(N // 2):
            there[0]()
            there[1]()
        if N % 2:
            there[0]()
        A[0][state] = rows[N % 2][state]
        y1 = A[0][a.p] - h / 2 * (rows[(N + 1) % 2][a.a2] @ W3 + b3)
        value = case.loss(np, y1[None])
        G[0][g.p], G[0][g.z] = y1 / 2, 0                 # y = p - h/2 f has half of the last f
        back[0]()
        back[1]()
        G[1][g.p] += y1 / 2
        done, at = 1, 1                                  # rows 0 .. at - 1 wait for their product
        while done < N:
            n = min(KEEP - at, N - done)
            for call in back[2 * at:2 * (at + n)]:
                call()
            at, done = at + n, done + n
            if at == KEEP:
                next_chunk(at)
                at = 0
        if at:
            next_chunk(at)
        gp = G[0][g.p].copy()
        G[0][g.p] = gp / 2                               # p = y0 + h/2 f(y0) has half of the first
        back[0]()
        back[1]()
        products.add(1)
        of = products.of
        return value, [(gp - G[1][g.z])[None], of("z", "a1"), of("one", "a1")[0], of("a1", "a2"), of("one", "a2")[0],
                       h * of("a2", "p"), h * of("one", "p")[0]]

    def next_chunk(n: int) -> None:
        products.add(n)
        A[0][state], G[0][cotangent] = A[n][state], G[n][cotangent]

    return run


METHODS = {"coupled-midpoint": coupled_midpoint, "reversible-heun": reversible_heun}


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    return METHODS[method](problem(work, dtype))

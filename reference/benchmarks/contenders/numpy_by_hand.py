"""What can be written by hand in NumPy: the forward solve, the reverse solve and the gradient, with no engine under them.

Every array is allocated once and written with out=. Each evaluation keeps the two hidden layers that its pullback needs.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..works import LAM, Work, problem


class Sums:
    """The weights, their transposes, and the running sums of their cotangents."""

    def __init__(self, params: tuple, batch: int) -> None:
        self.W, self.b = params[0::2], params[1::2]
        self.Wt = [np.ascontiguousarray(W.T) for W in self.W]
        self.aW, self.ab = [np.zeros_like(W) for W in self.W], [np.zeros_like(b) for b in self.b]
        self.oneW, self.oneb = [np.empty_like(W) for W in self.W], [np.empty_like(b) for b in self.b]
        self.ones = np.ones(batch, self.W[0].dtype)

    def add(self, i: int, x: Any, a: Any) -> None:
        """Layer i had the input x (batch, in) and gets the cotangent a (batch, out) of its output."""
        self.aW[i] += x.T.dot(a, self.oneW[i])
        self.ab[i] += self.ones.dot(a, self.oneb[i])

    def clear(self) -> None:
        for a in (*self.aW, *self.ab):
            a.fill(0)

    def all(self) -> list:
        return [a.copy() for pair in zip(self.aW, self.ab, strict=True) for a in pair]


class Evaluation:
    """One evaluation of the network: value(y), then pull(a)."""

    def __init__(self, sums: Sums, y: Any) -> None:
        self.sums = sums
        batch = len(y)
        self.y = np.empty_like(y)
        self.a1, self.a2 = (np.empty((batch, len(b)), y.dtype) for b in sums.b[:2])
        self.g1, self.g2 = np.empty_like(self.a1), np.empty_like(self.a2)
        self.f, self.gy = np.empty_like(y), np.empty_like(y)
        self.one = np.ones((), y.dtype)

    def value(self, y: Any) -> Any:
        """f(y); y is read again by pull."""
        (W1, W2, W3), (b1, b2, b3) = self.sums.W, self.sums.b
        self.y, a1, a2, f = y, self.a1, self.a2, self.f
        y.dot(W1, a1)
        np.add(a1, b1, a1)
        np.tanh(a1, a1)
        a1.dot(W2, a2)
        np.add(a2, b2, a2)
        np.tanh(a2, a2)
        a2.dot(W3, f)
        return np.add(f, b3, f)

    def pull(self, g: Any) -> Any:
        """(df/dy)^T g, and (df/dW)^T g into the sums; the hidden layers are used up."""
        sums, a1, a2, g1, g2 = self.sums, self.a1, self.a2, self.g1, self.g2
        _, Wt2, Wt3 = sums.Wt
        sums.add(2, a2, g)
        g.dot(Wt3, g2)
        np.multiply(a2, a2, a2)
        np.subtract(self.one, a2, a2)
        np.multiply(g2, a2, g2)
        sums.add(1, a1, g2)
        g2.dot(Wt2, g1)
        np.multiply(a1, a1, a1)
        np.subtract(self.one, a1, a1)
        np.multiply(g1, a1, g1)
        sums.add(0, self.y, g1)
        return g1.dot(sums.Wt[0], self.gy)


def coupled_midpoint(case: Any) -> Callable:
    """y' = lam y + (1 - lam) z + h f(z + h/2 f(z));  z' = z + h f(y' - h/2 f(y')), there and back."""
    y0, N = case.y0, len(case.ts) - 1
    sums = Sums(case.params, len(y0))
    first, second = Evaluation(sums, y0), Evaluation(sums, y0)
    h, half, lam, rest, inverse = (np.asarray(x, y0.dtype) for x in (
        case.ts[1] - case.ts[0], (case.ts[1] - case.ts[0]) / 2, LAM, 1 - LAM, 1 / LAM))
    minus_half = -half
    y, z, m, w, gy, gz, gm, gk = (np.empty_like(y0) for _ in range(8))

    def increment(x: Any, signed_half: Any) -> Any:
        """w = h f(x +- h/2 f(x))"""
        np.multiply(first.value(x), signed_half, m)
        np.add(m, x, m)
        return np.multiply(second.value(m), h, w)

    def pull(g: Any, signed_half: Any, into: Any) -> None:
        """into += (dw/dx)^T g of the last increment"""
        np.multiply(g, h, gk)
        gx = second.pull(gk)
        np.add(into, gx, into)
        np.multiply(gx, signed_half, gm)
        np.add(into, first.pull(gm), into)

    def run() -> tuple:
        sums.clear()
        y[...] = z[...] = y0
        for _ in range(N):
            np.multiply(y, lam, y)
            increment(z, half)
            np.add(y, w, y)
            np.multiply(z, rest, w)
            np.add(y, w, y)
            np.add(z, increment(y, minus_half), z)
        value = case.loss(np, y)
        np.divide(y, len(y0), gy)
        gz.fill(0)
        for _ in range(N):
            np.subtract(z, increment(y, minus_half), z)
            pull(gz, minus_half, gy)
            np.subtract(y, increment(z, half), y)
            pull(gy, half, gz)
            np.multiply(z, rest, w)
            np.subtract(y, w, y)
            np.multiply(y, inverse, y)
            np.multiply(gy, rest, w)
            np.add(gz, w, gz)
            np.multiply(gy, lam, gy)
        return value, [gy + gz, *sums.all()]

    return run


def reversible_heun(case: Any) -> Callable:
    """z' = 2y - z + h v;  v' = f(z');  y' = y + h/2 (v + v'), there and back."""
    y0, N = case.y0, len(case.ts) - 1
    sums = Sums(case.params, len(y0))
    at = Evaluation(sums, y0)
    h, half, two = (np.asarray(x, y0.dtype) for x in (case.ts[1] - case.ts[0], (case.ts[1] - case.ts[0]) / 2, 2))
    y, z, v, w, gy, gz, gv = (np.empty_like(y0) for _ in range(7))

    def other_z(sign: Callable) -> None:
        """z = 2y - z +- h v: the same line there and back, but for the sign."""
        np.multiply(y, two, w)
        np.subtract(w, z, z)
        np.multiply(v, h, w)
        sign(z, w, z)

    def run() -> tuple:
        sums.clear()
        y[...] = z[...] = y0
        v[...] = at.value(z)
        for _ in range(N):
            other_z(np.add)
            f = at.value(z)
            np.add(v, f, w)
            np.multiply(w, half, w)
            np.add(y, w, y)
            v[...] = f
        value = case.loss(np, y)
        np.divide(y, len(y0), gy)
        gz.fill(0)
        gv.fill(0)
        for _ in range(N):
            np.multiply(gy, half, w)
            np.add(gv, w, gv)
            np.add(gz, at.pull(gv), gz)
            np.multiply(gz, h, gv)                   # v reaches y' with h/2 (w) and z' with h
            np.add(gv, w, gv)
            np.add(gy, gz, gy)
            np.add(gy, gz, gy)
            np.negative(gz, gz)
            other_z(np.subtract)
            f = at.value(z)
            np.add(v, f, w)
            np.multiply(w, half, w)
            np.subtract(y, w, y)
            v[...] = f
        np.add(gz, at.pull(gv), gz)
        return value, [gy + gz, *sums.all()]

    return run


METHODS = {"coupled-midpoint": coupled_midpoint, "reversible-heun": reversible_heun}


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    return METHODS[method](problem(work, dtype))

"""Reverse mode on numbers, in any precision: a tape whose entries are single additions and products.

    x = Scalar(mpf(2));   y = x * x + tanh(x);   pull([y], [1], [x])  ->  [dy/dx]

NumPy arrays of Scalars (dtype object) go through the literal loops as they are: + - * / and @, and np.tanh calls the method
of that name. What a solver's clever backward step has to give is found here without one: the loop is differentiated as it
stands, number by number. Source of the idea: Linnainmaa 1976.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from mpmath import mp, mpf

_numbers = count()


class Scalar:
    """A number, the numbers it was made from with the partial derivatives by them, and its place in the order of making."""
    __slots__ = ("made_from", "place", "value")

    def __init__(self, value: Any, *made_from: tuple[Scalar, Any]) -> None:
        self.value, self.made_from, self.place = value, made_from, next(_numbers)

    def __add__(self, other: Any) -> Scalar:
        if isinstance(other, Scalar):
            return Scalar(self.value + other.value, (self, 1), (other, 1))
        return Scalar(self.value + other, (self, 1))

    def __mul__(self, other: Any) -> Scalar:
        if isinstance(other, Scalar):
            return Scalar(self.value * other.value, (self, other.value), (other, self.value))
        return Scalar(self.value * other, (self, other))

    def __neg__(self) -> Scalar:
        return Scalar(-self.value, (self, -1))

    def __sub__(self, other: Any) -> Scalar:
        return self + -other

    def __rsub__(self, other: Any) -> Scalar:
        return -self + other

    def __truediv__(self, other: Any) -> Scalar:
        return self * (mpf(1) / other)               # the loops divide by plain numbers only

    def tanh(self) -> Scalar:
        value = mp.tanh(self.value)
        return Scalar(value, (self, 1 - value * value))

    __radd__ = __add__
    __rmul__ = __mul__


def lifted(x: Any) -> np.ndarray:
    """An array of fresh Scalars with the values of x: mpf, floats (taken exactly), or Scalars (cut off from their past)."""
    x = np.asarray(x, dtype=object)
    out = np.empty(x.shape, dtype=object)
    for index in np.ndindex(x.shape):
        out[index] = Scalar(mpf(getattr(x[index], "value", x[index])))
    return out


def values(x: Any) -> np.ndarray:
    """The numbers themselves, as an object array of mpf."""
    x = np.asarray(x, dtype=object)
    out = np.empty(x.shape, dtype=object)
    for index in np.ndindex(x.shape):
        out[index] = mpf(getattr(x[index], "value", x[index]))
    return out


def pull(outputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The cotangents of `inputs` (arrays of Scalars), as arrays of mpf, from those of `outputs`."""
    found: dict[int, Any] = {}
    waiting: dict[int, Scalar] = {}

    def send(to: Scalar, a: Any) -> None:
        found[to.place] = found.get(to.place, mpf(0)) + a
        waiting[to.place] = to

    for output, cotangent in zip(outputs, cotangents, strict=True):
        for x, a in zip(np.ravel(output), np.ravel(cotangent), strict=True):
            if isinstance(x, Scalar):
                send(x, a)
    seen = []
    stack = list(waiting.values())
    reached = set(waiting)
    while stack:
        x = stack.pop()
        seen.append(x)
        for parent, _ in x.made_from:
            if parent.place not in reached:
                reached.add(parent.place)
                stack.append(parent)
    for x in sorted(seen, key=lambda x: -x.place):           # what was made last is complete first
        a = found.get(x.place)
        if a is not None:
            for parent, partial in x.made_from:
                send(parent, a * partial)
    out = []
    for given in inputs:
        a = np.empty(given.shape, dtype=object)
        for index in np.ndindex(given.shape):
            a[index] = found.get(given[index].place, mpf(0))
        out.append(a)
    return out

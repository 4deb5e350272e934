"""A Brownian path by Levy's midpoints, one trajectory and channel, by recursion; exact rational times.

    W(t1) = sqrt(T) Z_0;   cell k of level l has the number 2^l + k, its middle  W = W_a/2 + W_b/2 + sqrt(T 2^-l / 4) Z

Below the last level a time at the share x of its cell gets (1 - x) W_a + x W_b + sqrt(T 2^-l x (1 - x)) Z of that cell.
`law` gives the covariance that the construction has, for any times, from the weights of its normals: exact but for
sqrt.
"""
from fractions import Fraction
from math import sqrt

from .philox import normal


def node_normal(seed, trajectory, channel, number) -> float:
    return normal(seed, trajectory, number % 2 ** 32, channel, 2 ** 31 + number // 2 ** 32)


def value(seed, trajectory, channel, T, x, depth) -> float:
    """W at the share x (a Fraction or float in [0, 1]) of [t0, t0 + T], not rounded to a lattice."""
    def within(level, number, left, right, x):
        if x == 0 or x == 1:
            return right if x else left
        z = node_normal(seed, trajectory, channel, number)
        if level == depth:
            x = float(x)
            return ((1 - x) * left + x * right) + sqrt(T * 0.5 ** level * (x * (1 - x))) * z
        middle = (0.5 * left + 0.5 * right) + sqrt(T * 0.5 ** level * 0.25) * z
        if x < Fraction(1, 2):
            return within(level + 1, 2 * number, left, middle, 2 * x)
        return within(level + 1, 2 * number + 1, middle, right, 2 * x - 1)
    return within(0, 1, 0.0, sqrt(T) * node_normal(seed, trajectory, channel, 0), Fraction(x))


def weights(x, depth) -> dict:
    """W(x) on [0, 1] as a sum of independent normals: {number of the node: its weight}."""
    def within(level, number, left, right, x):
        if x == 0 or x == 1:
            return right if x else left
        share, last = (float(x), True) if level == depth else (0.5, False)
        point = {n: (1 - share) * left.get(n, 0.0) + share * right.get(n, 0.0) for n in {*left, *right}}
        point[number] = sqrt(0.5 ** level * share * (1 - share))
        if last:
            return point
        if x < Fraction(1, 2):
            return within(level + 1, 2 * number, left, point, 2 * x)
        return within(level + 1, 2 * number + 1, point, right, 2 * x - 1)
    return within(0, 1, {}, {0: 1.0}, Fraction(x))


def covariance(x, y, depth) -> float:
    """Cov(W(x), W(y)) of the construction on [0, 1]; Brownian motion has min(x, y)."""
    a, b = weights(x, depth), weights(y, depth)
    return sum(a[n] * b[n] for n in a.keys() & b.keys())

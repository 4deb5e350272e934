"""The order of a tableau, checked: for every rooted tree of at most p nodes

    sum_i b_i Phi_i(tree) = 1 / gamma(tree),     Phi_i([t_1 .. t_m]) = prod_k sum_j a_ij Phi_j(t_k),     Phi_i(node) = 1
    gamma([t_1 .. t_m]) = |tree| gamma(t_1) .. gamma(t_m)

A tree is the sorted tuple of its root's subtrees. The nodes are the sums of their rows, c_i = sum_j a_ij, without which
these conditions speak of another time.
Source: Butcher 1963; Hairer, Norsett & Wanner, Solving ODEs I, II.2.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import fsum, isfinite
from typing import Any

Tree = tuple        # of trees

# Coefficients are often printed with ten digits; a slip of a pen changes a condition by more.
TOLERANCE = 1e-8


@cache
def trees(nodes: int) -> tuple[Tree, ...]:
    """All rooted trees of so many nodes: 1, 1, 2, 4, 9, 20, 48 ..."""
    return tuple(sorted(forests(nodes - 1, nodes - 1)))


@cache
def forests(nodes: int, largest: int) -> frozenset[Tree]:
    """Sorted tuples of trees, with so many nodes together and at most `largest` in one."""
    if not nodes:
        return frozenset([()])
    return frozenset(tuple(sorted((tree, *rest))) for n in range(1, min(nodes, largest) + 1) for tree in trees(n)
                     for rest in forests(nodes - n, n))


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree))


def gamma(tree: Tree) -> int:
    product = size(tree)
    for child in tree:
        product *= gamma(child)
    return product


def weights(tree: Tree, a: Any, known: dict) -> list[float]:
    """Phi_i of the tree for every stage i; known: those of the trees met before."""
    if tree not in known:
        values = [1.0] * len(a)
        for child in tree:
            below = weights(child, a, known)
            values = [v * sum(x * w for x, w in zip(row, below, strict=False)) for v, row in zip(values, a, strict=True)]
        known[tree] = values
    return known[tree]


def misses(a: Any, b: Any, order: int) -> Iterator[tuple[int, Tree, float, float]]:
    """(order, tree, what the sum is, what it should be) for the conditions up to this order that are not met, lowest first."""
    known: dict = {}
    for n in range(1, order + 1):
        for tree in trees(n):
            terms = [x * w for x, w in zip(b, weights(tree, a, known), strict=True)]
            found, wanted = sum(terms), 1 / gamma(tree)
            if not abs(found - wanted) <= TOLERANCE * (1 + sum(map(abs, terms))):
                yield n, tree, found, wanted


def check_order(name: str, order: Any, a: Any, b: Any, c: Any, b_error: Any) -> None:
    """ValueError with the first condition that a tableau does not meet."""
    given = f"tableau {name!r}: "
    rows = [*a, b, c, *([] if b_error is None else [b_error])]
    try:
        *a, b, c = ([float(x) for x in row] for row in rows[:len(a) + 2])
        e = None if b_error is None else [float(x) for x in b_error]
    except (TypeError, ValueError):
        raise TypeError(f"{given}a, b, c and b_error hold plain numbers, in rows; got {rows}") from None
    if not all(isfinite(x) for row in (*a, b, c, e or []) for x in row):
        raise ValueError(f"{given}has coefficients that are not finite; give finite numbers")
    if not isinstance(order, int) or not 1 <= order <= len(b):
        raise ValueError(f"{given}order={order!r} with {len(b)} stages; the order is a whole number, 1 or more, and no explicit "
                         "method has more order than stages")
    for i, (row, node) in enumerate(zip(a, c, strict=True)):
        if abs(sum(row) - node) > TOLERANCE * (1 + sum(map(abs, row))):
            raise ValueError(f"{given}c[{i}] = {node:.6g}, but row {i} of a sums to {sum(row):.6g}; a stage is at the time that "
                             "its row makes, so correct one of them")
    for n, tree, found, wanted in misses(a, b, order):
        raise ValueError(f"{given}order {order} is stated, but the weights miss a condition of order {n}: the sum for the tree "
                         f"{tree} is {found:.10g} and should be {wanted:.10g}; correct a coefficient, or state order={n - 1}")
    if e is not None and (len(e) != len(b) or e == b or next(misses(a, e, 1), None)):
        raise ValueError(f"{given}b_error = {tuple(e)}; it holds the weights of another method on the same "
                         f"{len(b)} stages, whose sum is 1")


def error_weights(A: tuple[float, ...], B: tuple[float, ...]) -> tuple[float, ...] | None:
    """The shortest weights e of the stage increments, and of one more at (t + h, y + K_1), that estimate the local error to
    leading order; None with fewer than three stages, which cannot.

        sum e = 0,     e . c = 0,     e . A c = b . A c - 1/6,     e . c^2 = b . c^2 - 1/3

    c: the stage times, A c: what the stages make of f = t; the last two are the terms of third order. Of the stages alone one of them
    is out of reach: A c is a combination of c and c^2 for every s. Solved by Gram and Schmidt.
    """
    if len(A) < 3:
        return None

    def run(values: list[float]) -> tuple[list[float], float]:
        """What the scheme has at its stages, and in the end, of the field that takes these values there."""
        at, y, d = [], 0.0, 0.0
        for a, b, value in zip(A, B, values, strict=True):
            at.append(y)
            d = a * d + value
            y += b * d
        return at, y

    def dot(u: list[float], v: list[float]) -> float:
        return fsum(x * y for x, y in zip(u, v, strict=True))

    c, _ = run([1.0] * len(A))
    (Ac, _), squares = run(c), [x * x for x in c]
    conditions = [([1.0] * (len(A) + 1), 0.0), ([*c, 1.0], 0.0), ([*Ac, 0.0], run(Ac)[1] - 1 / 6),
                  ([*squares, 1.0], run(squares)[1] - 1 / 3)]
    basis: list[tuple[list[float], float]] = []
    for vector, value in conditions:
        for u, wanted in basis:
            share = dot(u, vector) / dot(u, u)
            vector, value = [x - share * y for x, y in zip(vector, u, strict=True)], value - share * wanted
        basis.append((vector, value))
    return tuple(fsum(wanted / dot(u, u) * u[i] for u, wanted in basis) for i in range(len(A) + 1))

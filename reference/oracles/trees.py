"""Rooted trees and Runge-Kutta order conditions (Butcher 1963; Hairer, Norsett & Wanner I, theorem II.2.13).

A method has order p when, for every rooted tree of at most p nodes,

    sum_i b_i Phi_i(tree) = 1 / gamma(tree),     Phi_i([t1 .. tm]) = prod_k sum_j a_ij Phi_j(t_k)
    gamma([t1 .. tm]) = |tree| gamma(t1) .. gamma(tm)

A tree is the sorted tuple of its root's subtrees: () is a single node, ((),) is two nodes, ((), ()) the bushy
three. A leaf contributes sum_j a_ij, which is taken as c_i: the row sums are a condition of their own.
"""
from fractions import Fraction
from functools import cache


@cache
def rooted_trees(order: int) -> tuple:
    """All rooted trees of exactly `order` nodes: 1, 1, 2, 4, 9, 20, 48, 115 of them for 1 .. 8."""
    return tuple(sorted(_forests(order - 1, order - 1)))


@cache
def _forests(nodes: int, largest: int) -> tuple:
    """Multisets of trees with `nodes` nodes in total and none above `largest`, as sorted tuples."""
    if nodes == 0:
        return ((),)
    found = set()
    for size in range(1, min(nodes, largest) + 1):
        for tree in rooted_trees(size):
            for rest in _forests(nodes - size, size):
                found.add(tuple(sorted((tree, *rest))))
    return tuple(sorted(found))


def size(tree: tuple) -> int:
    return 1 + sum(size(child) for child in tree)


def gamma(tree: tuple) -> int:
    product = size(tree)
    for child in tree:
        product *= gamma(child)
    return product


def order_conditions(A, b, c, order: int) -> list:
    """[(tree, sum_i b_i Phi_i(tree) - 1/gamma(tree))] for all trees of 1 .. `order` nodes; exact on
    Fractions.

    Works for explicit and implicit tableaux and for any kind of number. `c` is used for leaves; see
    `row_sums`.
    """
    s = len(b)
    known = {}

    def Phi(tree):
        if tree not in known:
            values = [1] * s
            for child in tree:
                if child == ():
                    values = [v * c[i] for i, v in enumerate(values)]
                else:
                    below = Phi(child)
                    values = [v * sum(A[i][j] * below[j] for j in range(s)) for i, v in enumerate(values)]
            known[tree] = values
        return known[tree]

    conditions = []
    for n in range(1, order + 1):
        for tree in rooted_trees(n):
            weight = sum(b[i] * Phi(tree)[i] for i in range(s))
            conditions.append((tree, weight - Fraction(1, gamma(tree))))
    return conditions


def row_sums(A, c) -> list:
    """sum_j a_ij - c_i for every stage; all zero for a method whose stages know their own time."""
    return [sum(row) - c_i for row, c_i in zip(A, c, strict=True)]

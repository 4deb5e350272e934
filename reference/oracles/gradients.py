"""Gradients of a discrete solve by four routes that share nothing, and the step counts of checkpointing.

A `tree` is a nested dict / list / tuple whose leaves are float arrays (or floats); `loss(tree)` returns one
number. Gradients come back with the nesting of the tree.

    complex_step_gradient      Im loss(x + i eps) / eps: no subtraction, so right to round-off (Squire &
                               Trapp 1998); needs a loss analytic in its entries: no abs, no max
    autograd_gradient          HIPS autograd through the plain loop; write the loss with autograd.numpy
    mpmath_gradient            central differences with `dps` digits; the loss meets object arrays of mpf
    coupled_gradient_by_hand   the recurrence of the Coupled methods, written out
    minimal_advances           revolve's step count by its recursion; ..._closed_form by its formula
"""
from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np


def tree_map(fn: Callable, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: tree_map(fn, branch) for name, branch in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(tree_map(fn, branch) for branch in tree)
    return fn(tree)


def tree_leaves(tree: Any) -> list:
    """The leaves in order: dict entries by insertion, lists by position."""
    found: list = []
    tree_map(found.append, tree)
    return found


def _entry_by_entry(tree: Any, derivative: Callable, dtype: Any) -> Any:
    """derivative(perturb) for every scalar entry, where perturb(d) is the tree with d added to that entry."""
    leaves = [np.array(leaf, dtype=dtype) for leaf in tree_leaves(tree)]

    def with_leaves(values):
        values = iter(values)
        return tree_map(lambda _: next(values), tree)

    gradients = [np.empty(leaf.shape, dtype=object) for leaf in leaves]
    for which, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            def perturb(d, which=which, index=index):
                moved = [x.copy() for x in leaves]
                moved[which][index] = moved[which][index] + d
                return with_leaves(moved)
            gradients[which][index] = derivative(perturb)
    return with_leaves(gradients)


def complex_step_gradient(loss: Callable, tree: Any, eps: float = 1e-30) -> Any:
    """One complex evaluation per scalar entry; float64 arrays come back."""
    gradient = _entry_by_entry(tree, lambda perturb: complex(loss(perturb(1j * eps))).imag / eps, complex)
    return tree_map(lambda g: g.astype(float), gradient)


def autograd_gradient(loss: Callable, tree: Any) -> Any:
    """Reverse mode of HIPS autograd, an outside implementation."""
    from autograd import grad
    return grad(loss)(tree)


def mpmath_gradient(loss: Callable, tree: Any, dps: int = 60, step: str = "1e-20") -> Any:
    """(loss(x + d) - loss(x - d)) / 2d per entry; object arrays of mpf come back.

    Truncation is d^2 loss'''/6, about 1e-40; cancellation is 10^-dps / d, about 1e-40: good to 35 digits or
    so. Precision is that of `dps` only while this runs; constants the loss closes over keep the precision
    they have.
    """
    from mpmath import mp, mpf
    with mp.workdps(dps):
        d = mpf(step)
        exact = tree_map(to_mpf, tree)
        return _entry_by_entry(
            exact, lambda perturb: (loss(perturb(d)) - loss(perturb(-d))) / (2 * d), object)


def to_mpf(x: Any) -> Any:
    """Floats as mpf without rounding: an object array of the same shape."""
    from mpmath import mpf
    x = np.asarray(x)
    out = np.empty(x.shape, dtype=object)
    for index in np.ndindex(x.shape):
        value = x[index]
        out[index] = value if isinstance(value, mpf) else mpf(float(value))
    return out


# ----------------------------------------------------------------------------------- Coupled, by hand

def _add(p, q):
    return q if p is None else {name: p[name] + q[name] for name in p}


def _psi_value_and_vjp(field_at, vjp, t, h, y, tableau, a):
    """Psi_h(t, y), and its pullback of `a`: (value, a_y, a_params).

    k_i = f(T_i, Y_i), Y_i = y + h sum_j a_ij k_j, Psi = h sum_i b_i k_i. Last stage first:
    a_k_i = h b_i a + h sum_{m>i} a_mi a_Y_m,   (a_Y_i, += a_p) = vjp(T_i, Y_i, a_k_i),   a_y = sum_i a_Y_i
    """
    A, b, c = tableau.A, tableau.b, tableau.c
    s = len(b)
    Y, k = [], []
    for i in range(s):
        Y.append(y + sum((h * A[i][j]) * k[j] for j in range(i)))
        k.append(field_at(t + c[i] * h, Y[i]))
    value = sum((h * b[i]) * k[i] for i in range(s))
    a_Y, a_y, a_p = {}, 0 * y, None
    for i in reversed(range(s)):
        a_k = (h * b[i]) * a + sum((h * A[m][i]) * a_Y[m] for m in range(i + 1, s))
        a_Y[i], a_p_i = vjp(t + c[i] * h, Y[i], a_k)
        a_y = a_y + a_Y[i]
        a_p = _add(a_p, a_p_i)
    return value, a_y, a_p


def coupled_gradient_by_hand(field_at: Callable, vjp: Callable, state: tuple, ts: Any, tableau: Any, lam: Any,
                             cotangents: list) -> tuple:
    """The reverse sweep of a Coupled solve, from its last state alone.

    Parameters
        field_at(t, y) -> f, and vjp(t, y, a) -> (a_y, {name: a_param}), both at the same params
        state        (y_N, z_N)
        cotangents   dL/dy_n for n = 0 .. N; None where y_n is not an output (dL/dy_N may not be None)

    Returns (dL/dy_0, {name: dL/dparam}, reconstructed (y_0, z_0)).
    """
    y, z = state
    gy, gz, gp = cotangents[-1], 0 * z, None
    for n in reversed(range(len(ts) - 1)):
        t, t1 = ts[n], ts[n + 1]
        h = t1 - t
        # 1. z' = z - Psi_{-h}(t1, y')
        value, a_y, a_p = _psi_value_and_vjp(field_at, vjp, t1, -h, y, tableau, -gz)
        z = z + value
        gy = gy + a_y
        gp = _add(gp, a_p)
        # 2. y' = lam y + (1 - lam) z + Psi_h(t, z), with the new gy
        value, a_z, a_p = _psi_value_and_vjp(field_at, vjp, t, h, z, tableau, gy)
        y = (y - (1 - lam) * z - value) / lam
        gz = gz + (1 - lam) * gy + a_z
        gp = _add(gp, a_p)
        gy = lam * gy
        # 3. y at t was itself an output
        if cotangents[n] is not None:
            gy = gy + cotangents[n]
    return gy + gz, gp, (y, z)


# --------------------------------------------------- revolve: Griewank & Walther, ACM TOMS 26 (2000) 19

def minimal_advances(N: int, n: int) -> int:
    """Fewest plain forward steps that reverse a chain of N steps with n checkpoints, y0 held in one of them.

    The first sweep is counted; the N steps taken on the tape, each just before its pullback, are not.

        P(1, n) = 0,   P(N, 1) = 0 + 1 + .. + (N-1),   P(N, n) = min_m  m + P(N - m, n - 1) + P(m, n)

    advance m steps, store, reverse the N - m to the right with one checkpoint fewer, then the m to the left.
    Cost O(N^2 n).
    """
    if N < 1 or n < 1:
        raise ValueError(f"minimal_advances: N={N}, n={n}; both are at least 1")
    previous = [0] + [length * (length - 1) // 2 for length in range(1, N + 1)]
    for _ in range(2, n + 1):
        P = [0, 0]
        for length in range(2, N + 1):
            P.append(min(m + previous[length - m] + P[m] for m in range(1, length)))
        previous = P
    return previous[N]


def minimal_advances_closed_form(N: int, n: int) -> int:
    """r N - C(n+r, n+1) with C(n+r-1, n) < N <= C(n+r, n)."""
    r = 0
    while comb(n + r, n) < N:
        r += 1
    return r * N - comb(n + r, n + 1)

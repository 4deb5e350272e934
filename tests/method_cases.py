"""Every method of revode beside its literal transcription in reference/oracles: one table that several tests share.

    f(t, y, p) = tanh(y W1 + b1 t) W2 + b2          tests give it to the methods; for split methods it is the
    acceleration

The field depends on time, so a wrong stage time shows, and on four arrays of different shapes.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from reference.oracles import loops as L
from reference.oracles import tableaux as T

STAGES = {"euler": 1, "midpoint": 2, "heun2": 2, "ralston3": 3, "bosh3": 3, "rk4": 4, "dopri5": 6, "tsit5": 6}
LAM = 0.9          # far from 1, so that a misplaced lam shows
ETA = 0.8


class Case(NamedTuple):
    """method, and literal(field, y0, ts, params) -> [y_0, ..., y_N] ((q, v) pairs for split methods).

    a_step, once: field evaluations of a forward solve, a_step * N + once; the reverse sweep makes as many, and as many
    vjps. order: of convergence, known from the papers and not read from the method.
    """
    name: str
    method: Any
    literal: Callable
    a_step: int
    once: int
    order: int
    split: bool = False

    @property
    def reversible(self) -> bool:
        return not isinstance(self.method, rv.RungeKutta)


def first(states: list) -> list:
    return [state[0] for state in states]


def composed(step: Callable, order: int) -> Callable:
    """step(t, t1, h, state) of order 2, by triple jumps to `order`; the oracle's Yoshida step, nested."""
    for p in range(2, order, 2):
        g1 = 1 / (2 - 2 ** (1 / (p + 1)))
        step = (lambda step, g1: lambda *at: L.yoshida4_step(step, g1, *at))(step, g1)
    return step


def composed_alf(f: Callable, y0: Any, ts: Any, p: Any) -> list:
    return first(L.yoshida4_alf_states(f, y0, ts, p))


def composed_heun(f: Callable, y0: Any, ts: Any, p: Any) -> list:
    return first(L.yoshida4_reversible_heun_states(f, y0, ts, p))


def composed_verlet(order: int) -> Callable:
    return lambda a, qv, ts, p: L.forward(composed(lambda *at: L.velocity_verlet_step(a, p, *at), order), qv, ts)


def table() -> list[Case]:
    exact = {name: T.numbers(tableau, float) for name, tableau in T.TABLEAUX.items()}
    cases = [Case(f"rk-{name}", rv.RungeKutta(name), lambda f, y0, ts, p, tab=tab: L.runge_kutta(f, y0, ts, p, tab),
                  STAGES[name], 0, tab.order) for name, tab in exact.items()]
    cases += [Case(f"coupled-{name}", rv.Coupled(name, lam=LAM),
                   lambda f, y0, ts, p, tab=tab: L.coupled(f, y0, ts, p, tab, LAM), 2 * STAGES[name], 0, tab.order)
              for name, tab in exact.items()]
    cases += [
        Case("coupled-1", rv.Coupled("midpoint", lam=1), lambda f, y0, ts,
             p: L.coupled(f, y0, ts, p, exact["midpoint"], 1),
             4, 0, 2),
        Case("alf", rv.AsynchronousLeapfrog(), L.alf, 1, 1, 2),
        Case("alf-damped", rv.AsynchronousLeapfrog(eta=ETA), lambda f, y0, ts, p: L.alf(f, y0, ts, p, ETA), 1, 1, 1),
        Case("reversible-heun", rv.ReversibleHeun(), L.reversible_heun, 1, 1, 2),
        Case("leapfrog-midpoint", rv.LeapfrogMidpoint(), L.leapfrog_midpoint, 1, 1, 2),
        Case("semi-implicit-euler", rv.SemiImplicitEuler(), lambda a, qv, ts, p: L.semi_implicit_euler(a, *qv, ts, p),
             1, 0, 1, split=True),
        Case("verlet", rv.VelocityVerlet(), lambda a, qv, ts, p: L.velocity_verlet(a, *qv, ts, p), 1, 1, 2, split=True),
    ]
    cases += [Case("alf-4", rv.Composition(rv.AsynchronousLeapfrog()), composed_alf, 3, 1, 4),
              Case("heun-4", rv.Composition(rv.ReversibleHeun()), composed_heun, 3, 1, 4)]
    cases += [Case(f"verlet-{order}", rv.Composition(rv.VelocityVerlet(), order), composed_verlet(order), substeps, 1,
                   order,
                   split=True) for order, substeps in ((4, 3), (6, 9), (8, 27))]
    return cases


CASES = {case.name: case for case in table()}
REVERSIBLE = {name: case for name, case in CASES.items() if case.reversible}
# One of each kind, for tests that are about solve() and not about methods.
SOME = [CASES[name] for name in ("rk-bosh3", "coupled-midpoint", "alf", "alf-damped", "reversible-heun",
                                 "leapfrog-midpoint", "verlet", "heun-4")]


def field(xp: Any) -> Callable:
    return lambda t, y, p: xp.tanh(y @ p["W1"] + p["b1"] * t) @ p["W2"] + p["b2"]


plain_field = field(np)


def make_params(seed: int = 0, d: int = 3, width: int = 4, dtype: Any = np.float64) -> dict:
    """Weights whose absolute sums are at most 1: |f| <= 1 + |b2|, and f is 1-Lipschitz in the largest entry."""
    rng = np.random.default_rng(seed)
    W1, W2 = rng.normal(size=(d, width)), rng.normal(size=(width, d))
    return {"W1": (W1 / abs(W1).sum(0)).astype(dtype), "b1": rng.normal(size=width).astype(dtype),
            "W2": (W2 / abs(W2).sum(0)).astype(dtype), "b2": (0.3 * rng.normal(size=d)).astype(dtype)}


def make_y0(case: Case, shape: tuple = (3,), seed: int = 1, dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(seed)
    y0 = rng.normal(size=shape).astype(dtype)
    return (y0, rng.normal(size=shape).astype(dtype)) if case.split else y0


GRIDS = {"uniform": np.linspace(0.3, 0.8, 9), "varying": 0.3 + np.array([0, 1, 4, 5, 8, 12, 13, 16, 20]) / 40,
         "backwards": 0.8 - np.array([0, 2, 5, 6, 10, 12, 15, 19, 20]) / 40}      # each over a time of 1/2


def flat(gradient: Any) -> np.ndarray:
    """All entries of a tree of arrays as one float64 vector; None leaves are left out."""
    leaves = rv.tree.flatten(gradient)[0]
    return np.concatenate([np.ravel(np.asarray(x, dtype=np.float64)) for x in leaves if x is not None])


def distance(actual: Any, desired: Any) -> float:
    """Largest difference of two trees over the largest entry of the second: norm-wise, per tree."""
    a, b = flat(actual), flat(desired)
    assert a.shape == b.shape, (a.shape, b.shape)
    scale = abs(b).max()
    assert scale > 0
    return float(abs(a - b).max() / scale)

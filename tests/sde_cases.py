"""The SDEs of the tests, and every method beside its literal loop in reference/oracles/sde.py.

f(t, y, p) = tanh(y W1 + b1 t) W2 + b2                  tests/method_cases.py
g diagonal = s cos(y + t);    general = tanh(y V + u t) as a d x m matrix, which does not commute;    additive = C (1
+ t)
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from reference.oracles import ees as E
from reference.oracles import sde as S
from reference.oracles import tableaux as T
from tests.method_cases import field, make_params

M = 2  # channels of general noise
LAM = 0.9


def diagonal(xp: Any) -> Callable:
    return lambda t, y, p: p["s"] * xp.cos(y + t)


def general(xp: Any) -> Callable:
    return lambda t, y, p: 0.3 * xp.reshape(xp.tanh(y @ p["V"] + p["u"] * t), (*y.shape, M))


def additive(xp: Any) -> Callable:
    return lambda t, y, p: p["C"] * (1 + t) + 0 * y[..., None]


NOISES = {"diagonal": diagonal, "general": general, "additive": additive}
KIND = {"diagonal": False, "general": True, "additive": True}  # whether it is a matrix


def drift(xp: Any) -> Callable:
    return field(xp)


def make(dtype: Any = np.float64, d: int = 3) -> dict:
    """Parameters of drift and diffusion; the diffusion's entries stay below 0.6."""
    rng = np.random.default_rng(5)
    more = {
        "s": 0.3 + 0.1 * rng.normal(size=d),
        "V": rng.normal(size=(d, d * M)),
        "u": rng.normal(size=d * M),
        "C": 0.3 * rng.normal(size=(d, M)),
    }
    return {**make_params(dtype=dtype, d=d), **{name: x.astype(dtype) for name, x in more.items()}}


Y0 = np.array([[0.4, -0.2, 1.0], [-0.7, 0.3, 0.1]])
TS = 0.2 + np.array([0, 1, 3, 4, 6, 8, 9, 11, 12]) / 24  # 8 steps of two sizes over 1/2


def increments(noise: Any, kind: str, ts: Any = TS, y0: Any = Y0, dtype: Any = np.float64) -> np.ndarray:
    """(N, ...) what the documentation of Brownian says that the steps of a grid get."""
    shape = (*y0.shape[:-1], M) if KIND[kind] else y0.shape
    hs = np.diff(ts).astype(dtype)
    return np.stack([noise.increments(n, shape, h, dtype) for n, h in enumerate(hs)])


class Given:
    """A path of which the increments over the steps of a grid are given, as an array; noise= takes it like a tree."""

    def __init__(self, ts: Any, dWs: Any) -> None:
        self.ts, self.dWs = list(ts), dWs

    def increments(self, s: float, t: float, shape: tuple, dtype: Any) -> Any:
        n = min(self.ts.index(s), self.ts.index(t))
        dW = self.dWs[n]
        assert dW.shape == shape and abs(self.ts.index(s) - self.ts.index(t)) == 1
        return dW.astype(dtype) if s < t else -dW.astype(dtype)

    def walk(self, shape: tuple, dtype: Any) -> Any:
        """What a solve asks a tree for: increments(s, t) of this shape."""
        return SimpleNamespace(increments=lambda s, t: self.increments(s, t, shape, dtype))


class Case(NamedTuple):
    """A method, its loop (f, g, y0, ts, dWs, p, general) -> [y_n], and its evaluations in N steps: a_step N + once."""

    name: str
    method: Any
    literal: Callable
    a_step: int
    once: int
    shears: bool


def table() -> list[Case]:
    exact = {name: T.numbers(tableau, float) for name, tableau in T.TABLEAUX.items()}
    stages = {"midpoint": 2, "heun2": 2, "bosh3": 3, "rk4": 4}
    cases = [Case("reversible-heun", rv.ReversibleHeun(), S.reversible_heun, 1, 1, True)]
    cases += [
        Case(
            f"coupled-{name}",
            rv.Coupled(name, LAM),
            lambda f, g, y0, ts, dWs, p, general, tab=exact[name]: S.coupled(f, g, y0, ts, dWs, p, tab, LAM, general),
            2 * s,
            0,
            True,
        )
        for name, s in stages.items()
    ]
    cases += [
        Case("rk-heun2", rv.RungeKutta("heun2"), S.heun, 2, 0, False),
        Case("rk-midpoint", rv.RungeKutta("midpoint"), S.midpoint, 2, 0, False),
        Case(
            "rk-rk4",
            rv.RungeKutta("rk4"),
            lambda f, g, y0, ts, dWs, p, general: S.runge_kutta(f, g, y0, ts, dWs, p, exact["rk4"], general),
            4,
            0,
            False,
        ),
    ]
    for name, method, scheme in (
        ("ees25", rv.EES25(), E.LOW_STORAGE_25[E.Q(1, 10)]),
        ("ees25-quarter", rv.EES25(0.25), E.LOW_STORAGE_25[E.Q(1, 4)]),
        ("ees27", rv.EES27(), E.LOW_STORAGE_27),
        ("ees-5", rv.EES(5), None),
    ):
        if scheme is None:
            scheme = E.trigonometric(5)
            floats = E.LowStorage(*(tuple(map(float, part)) for part in scheme))
        else:
            floats = E.LowStorage(
                *(
                    tuple(x.number(float, np.sqrt) if isinstance(x, E.Root2) else float(x) for x in part)
                    for part in scheme
                )
            )
        cases.append(
            Case(
                name,
                method,
                lambda f, g, y0, ts, dWs, p, general, scheme=floats: S.ees(
                    f, g, y0, ts, dWs, p, scheme, E.stage_times(scheme), general
                ),
                len(floats.A),
                0,
                False,
            )
        )
    return cases


CASES = {case.name: case for case in table()}
SHEARS = {name: case for name, case in CASES.items() if case.shears}

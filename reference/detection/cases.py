"""One random solve, made from one number: problem, method, grid, precision, what is saved, what the loss weighs."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .families import FAMILIES, Drawn
from .methods import drawn, group

MOST_STEPS = 160
FINER = {"sde": 8, "cde": 4}      # pieces of an interval in the reference solve, by heun2 and by rk4


@dataclass
class Case:
    """Everything that a solve is made of. `kind`: grid, adaptive, sde or cde. `ends`: save=[-1], else every grid point."""
    seed: int
    family: str
    kind: str
    problem: Drawn
    method: Any                  # None: the default, with the default gradient mode
    exact: bool
    single: bool                 # float32
    ends: bool
    backend: str
    ts: np.ndarray               # the grid; for adaptive steps its two ends
    tol: float                   # of adaptive steps
    weights: tuple               # of the loss
    control: tuple | None = None     # times and values of a CDE's path

    @property
    def dtype(self) -> Any:
        return np.float32 if self.single else np.float64

    @property
    def row(self) -> str:
        return group(self.method)

    def described(self) -> dict:
        return {"seed": self.seed, "family": self.family, "kind": self.kind, "method": repr(self.method), "row": self.row,
                "exact": self.exact, "float32": self.single, "ends": self.ends, "backend": self.backend, "N": len(self.ts) - 1,
                "T": float(self.ts[-1] - self.ts[0]), "tol": self.tol if self.kind == "adaptive" else None}


def controlled(problem: Drawn) -> Drawn:
    """The field of a CDE with two channels: time, and a rough one."""
    f: Callable = problem.field
    return problem._replace(field=lambda t, y, p: np.stack([f(t, y, p), 0.5 * np.sin(y + p["b2"])], axis=-1))


def grid(rng: np.random.Generator, longest: float, single: bool) -> np.ndarray:
    T = longest * float(np.exp(rng.uniform(np.log(0.15), 0)))
    N = int(np.clip(T / np.exp(rng.uniform(np.log(0.01), np.log(0.5))), 8, MOST_STEPS))
    lengths = np.ones(N) if rng.random() < 0.7 else rng.uniform(0.4, 1.0, N)
    ts = np.concatenate([[0.0], np.cumsum(lengths)]) * (T / lengths.sum())
    return ts.astype(np.float32).astype(float) if single else ts


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    family = str(rng.choice(list(FAMILIES)))
    problem = FAMILIES[family](rng)
    kind = "sde" if problem.diffusion else "adaptive" if rng.random() < 0.25 else "grid"
    if family.endswith("nets") or family == "networks":
        kind = "cde" if rng.random() < 0.3 else kind
    of = rng.random()
    exact = of < 0.5
    method = None if of > 0.85 else drawn(rng, kind, exact)
    single = bool(rng.random() < 0.3)
    ts = grid(rng, problem.longest, single)
    control = None
    if kind == "cde":
        problem = controlled(problem)
        rough = np.concatenate([[0.0], np.cumsum(rng.normal(size=len(ts) - 1) * np.sqrt(np.diff(ts)))])
        control = ts, np.stack([ts, 0.7 * rough], axis=-1)
    shape = problem.y0.shape
    size = abs(problem.y0) if family == "unlike sizes" and rng.random() < 0.5 else np.ones(shape)
    weights = rng.normal(size=shape) / size, rng.uniform(0.2, 1.0, shape) / size ** 2
    return Case(seed, family, kind, problem, method, exact, single, bool(rng.random() < 0.5),
                "auto" if method is None else str(rng.choice(["eager", "auto", "replay"])),
                ts[[0, -1]] if kind == "adaptive" else ts, float(10 ** rng.uniform(-6, -2)), weights, control)


class Recorded:
    """Increments that are known: what a user's own path offers."""

    def __init__(self, dW: np.ndarray) -> None:
        self.dW = dW

    def along(self, hs: Any, shape: Any = None, dtype: Any = np.float64, first: int = 0) -> Callable:
        return lambda n: self.dW[n + first].astype(dtype)


def finer(ts: np.ndarray, pieces: int) -> np.ndarray:
    """Every interval of ts in equal pieces."""
    inner = ts[:-1, None] + np.diff(ts)[:, None] * np.arange(pieces) / pieces
    return np.append(inner.reshape(-1), ts[-1])


def bridged(dW: np.ndarray, hs: np.ndarray, pieces: int, seed: int) -> np.ndarray:
    """Increments of the finer grid, given those of the coarse one: dW/m + sqrt(h/m) (xi - mean xi), a Brownian bridge."""
    xi = np.random.default_rng(seed).normal(size=(len(dW), pieces, *dW.shape[1:]))
    step = np.sqrt(hs / pieces).reshape(-1, *[1] * dW.ndim)
    return (dW[:, None] / pieces + step * (xi - xi.mean(1, keepdims=True))).reshape(-1, *dW.shape[1:])

"""The cases: read from their files, with the vector field in the form in which an implementation is given it."""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "cases"
FORMAT = "revode-case-1"
NOISE = ("diagonal", "general", "additive", "controlled")


@dataclass
class Problem:
    """What an implementation gets: everything that goes in, nothing of what is to come out.

    name        of the case
    method      {"name": "Coupled", "base": "midpoint", "lam": 0.875}: the name and the options, as in this package
    kind        "ode"; "split" (q'' = f, y is (q, v)); "diagonal", "general", "additive" (noise); "controlled"; "fixed-point"
    gradient    "exact", or "reconstructed": that of a nearly reversible method's reverse sweep, from y_N alone
    ts          (N + 1,) the grid
    y0          (d,), split (2, d)
    params      {name: array}
    weights     (N + 1, d), split (N + 1, 2, d): the loss is sum_n <weights[n], y_n>
    dWs         (N, d) or (N, m) increments of noise or of the control; None without
    """
    name: str
    method: dict
    kind: str
    gradient: str
    ts: np.ndarray
    y0: np.ndarray
    params: dict
    weights: np.ndarray
    dWs: np.ndarray | None = None
    log: list = field(default_factory=list, repr=False)       # where the field was evaluated: [t, *y]

    def field(self, xp: Any = np) -> Callable:
        """f(t, y, params) in the array namespace xp (numpy, jax.numpy, torch, autograd.numpy); y is (..., d)."""
        if self.kind == "controlled":
            return self.logged(self.noise(xp))

        def f(t: Any, y: Any, p: Any) -> Any:
            return xp.tanh(y @ p["W1"] + p["b1"] * t) @ p["W2"] + p["b2"] - p["k"] * y

        return self.logged(f)

    def diffusion(self, xp: Any = np) -> Callable | None:
        """g(t, y, params): (..., d) for diagonal noise, (..., d, m) for general and additive; None without noise."""
        return self.noise(xp) if self.dWs is not None and self.kind != "controlled" else None

    def noise(self, xp: Any) -> Callable:
        def g(t: Any, y: Any, p: Any) -> Any:
            if self.kind == "diagonal":
                return 0.5 * xp.tanh(y @ p["V"] + p["c"] * t)
            d = self.y0.shape[-1]
            inside = p["c"] * t + 0 * (y @ p["V"] if "V" in p else y[..., :1]) if self.kind == "additive" else y @ p["V"] + p["c"] * t
            return 0.5 * xp.tanh(inside).reshape((*y.shape[:-1], d, -1))

        return g

    def logged(self, f: Callable) -> Callable:
        def and_noted(t: Any, y: Any, p: Any) -> Any:
            time, state = plain(t), plain(y)
            if time is not None and state is not None:
                self.log.append(np.concatenate([np.ravel(time), np.ravel(state)]))
            return f(t, y, p)

        return and_noted

    def asked(self) -> dict:
        """The request that a program reads: JSON values, numbers in the shortest decimals that read back exactly."""
        found = {"format": FORMAT, "name": self.name, "method": self.method, "kind": self.kind, "gradient": self.gradient,
                 "ts": self.ts.tolist(), "y0": self.y0.tolist(), "params": {k: v.tolist() for k, v in self.params.items()},
                 "weights": self.weights.tolist()}
        return found if self.dWs is None else {**found, "dWs": self.dWs.tolist()}


def plain(x: Any) -> np.ndarray | None:
    """The number in a scalar, an array, a tensor of torch, a box of autograd, a tensor of this package; None in a traced one."""
    try:
        for _ in range(9):
            if isinstance(x, (int, float, np.ndarray, np.generic)):
                return None if np.iscomplexobj(x) else np.asarray(x, float)
            x = x.detach() if hasattr(x, "detach") else getattr(x, "_value", x)
            if not hasattr(x, "_value"):
                return np.asarray(x, float)
    except Exception:                                            # each library says in its own way that there is no number
        return None
    return None


@dataclass
class Case:
    """A problem, and what every step of it gives, to the last digit of float64."""
    problem: Problem
    grid: str
    states: list[dict]                  # N + 1 of {part: (d,)}
    cotangents: list[dict]              # dL/d(part) at every grid point, the weights there included
    aparams: list[dict]                 # what the steps from there on have given to dL/dparams
    evaluations: np.ndarray             # (E, 1 + d) rows [t, *y], every point once, in order
    ay0: np.ndarray
    total: dict                         # dL/dparams

    @property
    def ys(self) -> np.ndarray:
        if self.problem.kind == "split":
            return np.stack([[state["q"], state["v"]] for state in self.states])
        return np.stack([state["z" if self.problem.method["name"] == "RevDEQ" else "y"] for state in self.states])


def array(given: dict) -> np.ndarray:
    return np.array([float.fromhex(x) for x in given["data"].split()]).reshape(given["shape"])


def arrays(given: dict) -> dict:
    return {name: array(x) for name, x in given.items()}


def load(path: Path) -> Case:
    """Read a case; ValueError where the file is of another form."""
    given = json.loads(path.read_text())
    if given.get("format") != FORMAT:
        raise ValueError(f"{path.name} has the format {given.get('format')!r}, and this is a reader of {FORMAT!r}")
    problem = Problem(given["name"], given["method"], given["kind"], given["gradient"], array(given["ts"]), array(given["y0"]),
                      arrays(given["params"]), array(given["weights"]), array(given["dWs"]) if "dWs" in given else None)
    steps = given["steps"]
    states, cotangents, aparams = ([arrays(step[name]) for step in steps] for name in ("state", "cotangent", "aparams"))
    return Case(problem, given["grid"], states, cotangents, aparams, array(given["evaluations"]), array(given["ay0"]),
                arrays(given["aparams"]))


def chosen(pattern: str = "*") -> list[Case]:
    """The cases whose names match a pattern such as 'coupled-*', or several with commas between; sorted by name."""
    patterns = pattern.split(",")
    return [load(path) for path in sorted(FOLDER.glob("*.json")) if any(fnmatch(path.stem, p) for p in patterns)]

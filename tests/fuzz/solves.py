"""Kinds ode, sde, cde, adaptive and chain: one random problem and method, in several gradient modes and on several backends.

All of them have to give the loss and the gradient of the literal loop (of adaptive steps: on the accepted grid).
"""
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import revode as rv

from . import fields, literal
from .found import Finding, Tried, judged, tried
from .literal import Drive, Literal

CHANNELS = 2
LAYOUTS: tuple[Callable, ...] = (np.ascontiguousarray, np.asfortranarray, lambda y: np.ascontiguousarray(y[..., ::-1])[..., ::-1],
                                 lambda y: np.repeat(y, 2, axis=-1)[..., ::2])
STRICT = {"backend": "native", "arithmetic": "strict"}


@dataclass
class Random:
    """A problem, drawn."""
    kind: str
    seed: int
    rng: np.random.Generator
    single: bool
    method: Literal
    shape: tuple
    ts: np.ndarray                       # the grid; for adaptive steps its ends
    y0: Any                              # an array, a pair for split methods, or a tree
    params: dict
    field: Callable                      # f(t, y, params), as given to solve
    drift: Callable                      # (params) -> f(t, y), in complex numbers, on one array; None for a CDE
    tree: bool = False
    diffusion: Callable | None = None    # (params) -> g(t, y), in complex numbers; of a CDE its field
    general: bool = False
    increments: Callable | None = None   # (ts) -> (N, ...) of noise or of the control
    options: dict = field(default_factory=dict)      # of solve
    save: Any = None
    reads_state: bool = False

    @property
    def dtype(self) -> Any:
        return np.float32 if self.single else np.float64


def grid(rng: np.random.Generator, single: bool) -> np.ndarray:
    N = int(rng.choice([1, 2, 3, 7, 17, 20, 33, 210], p=[0.1, 0.1, 0.1, 0.2, 0.2, 0.15, 0.1, 0.05]))
    T = float(rng.choice([0.5, 1.0, 2.0])) * (1 if N > 3 else 0.2)
    lengths = np.ones(N) if rng.random() < 0.5 else rng.uniform(0.3, 1.0, N)
    ts = np.concatenate([[0.0], np.cumsum(lengths)]) * (T / lengths.sum()) + float(rng.choice([0.0, 0.0, -0.3, 1.0]))
    ts = ts.astype(np.float32).astype(float) if single else ts
    return ts[::-1].copy() if rng.random() < 0.2 else ts


def drawn(kind: str, seed: int, rng: np.random.Generator) -> Random:
    single = bool(rng.random() < 0.2)
    dtype = np.float32 if single else np.float64
    method = literal.random_literal(rng, {"chain": "ode"}.get(kind, kind))
    tree = kind in ("ode", "chain") and not method.split and rng.random() < 0.15
    d = 3 if tree else int(rng.integers(1, 5))
    shape = (3,) if tree else (*((), (), (1,), (3,), (2, 2), (5,))[rng.integers(6)], d)
    rows, params = fields.random_rows(rng), fields.random_params(rng, d, dtype)
    y0 = LAYOUTS[rng.integers(4)]((0.7 * rng.normal(size=shape)).astype(dtype))
    real, complex_ = fields.field(rows, fields.Real), fields.field(rows, fields.Complex)
    case = Random(kind, seed, rng, single, method, shape, grid(rng, single), y0, params, real,
                  lambda p: lambda t, y: complex_(t, y, p), tree)
    if tree:
        case.y0 = {"a": y0[:1], "b": [np.reshape(y0[1:], (2, 1))]}
        case.field = lambda t, y, p: as_tree(real(t, np.concatenate([y["a"], np.reshape(y["b"][0], (-1,))]), p))
    if method.split:
        case.y0 = y0, (0.5 * rng.normal(size=shape)).astype(dtype)
    {"sde": with_noise, "cde": with_control, "adaptive": with_controller}.get(kind, lambda case, rows: None)(case, rows)
    N = len(case.ts) - 1
    if kind in ("ode", "sde", "cde"):
        case.save = (None, [-1], [0], [0, -1], slice(None, None, 3), [], list(range(0, N + 1, 2)),
                     np.array([N], np.int32))[rng.integers(8)]
    case.reads_state = bool(rng.random() < 0.3)
    return case


def as_tree(y: Any) -> dict:
    return {"a": y[:1], "b": [np.reshape(y[1:], (2, 1))]}


def with_noise(case: Random, rows: fields.Rows) -> None:
    """Diagonal, general or additive noise, or diagonal noise read as Ito's, whose drift the oracle corrects by hand.

    Its path is known by steps, or (and always with adaptive steps) by times.
    """
    rng, form = case.rng, str(case.rng.choice(["diagonal", "diagonal", "general", "additive", "ito"]))
    other = fields.random_rows(rng)

    def diffusion(m: Any) -> Callable:
        return {"diagonal": lambda t, y, p: 0.3 * np.tanh(fields.value(other, m, t, y, p)),
                "additive": lambda t, y, p: 0.3 * p["scale"] + 0 * y,
                "ito": lambda t, y, p: 0.3 * np.sin(y * p["scale"]) + 0.1 * np.cos(y),
                "general": lambda t, y, p: np.stack([0.3 * np.tanh(fields.value(other, m, t, y, p)), 0.2 * np.sin(y)], axis=-1)}[form]

    case.general = form == "general"
    wide = (*case.shape[:-1], CHANNELS) if case.general else case.shape
    if case.kind == "adaptive" or rng.random() < 0.25:
        noise = rv.BrownianTree(case.seed % 1000, *sorted((float(case.ts[0]), float(case.ts[-1]))))
        case.increments = lambda ts: np.array([noise.increments(s, t, wide, case.dtype) for s, t in itertools.pairwise(ts)], float)
    else:
        noise = rv.Brownian(seed=case.seed % 1000)
        case.increments = lambda ts: np.array([noise.increments(n, wide, h=case.dtype(h), dtype=case.dtype)
                                               for n, h in enumerate(np.diff(ts))], float)
    case.options |= {"diffusion": diffusion(fields.Real), "noise": noise}
    f, g = case.drift, diffusion(fields.Complex)
    case.diffusion = lambda p: lambda t, y: g(t, y, p)
    if form == "ito":
        case.options["interpretation"] = "ito"
        def slope(y: Any, p: dict) -> Any:
            return 0.3 * np.cos(y * p["scale"]) * p["scale"] - 0.1 * np.sin(y)
        case.drift = lambda p: lambda t, y: f(p)(t, y) - 0.5 * g(t, y, p) * slope(y, p)


def with_control(case: Random, rows: fields.Rows) -> None:
    """dy = f dX along straight pieces."""
    values = np.cumsum(0.3 * case.rng.normal(size=(len(case.ts), CHANNELS)), axis=0).astype(case.dtype)
    order = np.argsort(case.ts)
    case.options = {"control": rv.LinearPath(case.ts[order], values[order])}
    case.increments, case.general = lambda ts: np.diff(values.astype(float), axis=0), True

    def of(m: Any) -> Callable:
        return lambda t, y, p: np.stack([0.5 * np.tanh(fields.value(rows, m, t, y, p)), 0.3 * np.sin(y * p["scale"])], axis=-1)
    case.field, g = of(fields.Real), of(fields.Complex)
    case.drift, case.diffusion = None, lambda p: lambda t, y: g(t, y, p)


def with_controller(case: Random, rows: fields.Rows) -> None:
    tol = float(case.rng.choice([1e-2, 1e-3, 1e-5]))
    case.ts, case.options = case.ts[[0, -1]], {"controller": rv.PID(rtol=tol, atol=tol)}
    if case.rng.random() < 0.25:
        with_noise(case, rows)


# ------------------------------------------------------------------------------------------------------------------- the loss

def weighed(rows: list, last: Any, parts: list, w: np.ndarray) -> Any:
    """Every saved row, the end, and the parts of the final state, each in a form of its own."""
    total = np.sum(last * last) * w[1]
    for k, y in enumerate(rows):
        total = total + np.sum(np.sin(y * (1 + 0.1 * k))) * w[0]
    for part in parts:
        total = total + np.sum(part * part) * w[2]
    return total


def joined(case: Random, y: Any) -> Any:
    """One array of what solve calls y."""
    if case.method.split:
        return np.concatenate([y[0], y[1]], axis=-1)
    return np.concatenate([y["a"], np.reshape(y["b"][0], (-1,))]) if case.tree else y


def rows_of(case: Random, sol: Any) -> list:
    return [joined(case, rv.tree.map(lambda x, k=k: x[k], sol.ys)) for k in range(len(sol.ts))]


def solved(case: Random, theta: Any, how: dict) -> tuple[list, Any]:
    """(rows, the last solution): in one solve, or, of a chain, in two."""
    y0, params = theta
    how = {"method": case.method.method, **case.options, **how}
    if case.kind != "chain" or len(case.ts) < 3:
        sol = rv.solve(case.field, y0, case.ts, params, save=case.save, **how)
        return rows_of(case, sol), sol
    k = (len(case.ts) - 1) // 2
    first = rv.solve(case.field, y0, case.ts[:k + 1], params, **how)
    sol = rv.solve(case.field, None, case.ts[k:], params, state0=first.state, **how)
    return rows_of(case, first) + rows_of(case, sol), sol


def trial(case: Random, how: dict, w: np.ndarray) -> Tried:
    """((loss, gradients), solution) of revode."""
    kept: list = []

    def loss(theta: Any) -> Any:
        rows, sol = solved(case, theta, how)
        kept.append(sol)
        parts = [sol.state.parts[name] for name in case.method.parts] if case.reads_state else []
        return weighed(rows, joined(case, sol.y1), parts, w)
    return tried(lambda: (rv.value_and_grad(loss)((case.y0, case.params)), kept[-1]))


def by_loop(case: Random, theta: Any, ts: np.ndarray, w: np.ndarray) -> Any:
    """The loss of the literal loop."""
    y0, params = theta
    start = tuple(y0) if case.method.split else joined(case, y0)
    f, g = (of(params) if of else None for of in (case.drift, case.diffusion))
    increments = [None] * (len(ts) - 1) if case.increments is None else case.increments(ts)
    path = case.method.path([Drive(f, g, h, dW, case.general) for h, dW in zip(np.diff(ts), increments, strict=True)], ts, start)
    rows = [np.concatenate(state, axis=-1) if case.method.split else state[0] for state in path]
    last, parts = rows[-1], list(path[-1][:len(case.method.parts)]) if case.reads_state else []
    if case.kind == "chain" and len(ts) > 2:
        k = (len(ts) - 1) // 2
        rows = rows[:k + 1] + rows[k:]
    at = np.arange(len(rows))
    chosen = at if case.save is None else at[case.save] if isinstance(case.save, slice) else at[np.asarray(case.save, int)]
    return weighed([rows[k] for k in chosen], last, parts, w)


# ------------------------------------------------------------------------------------------------------------------- the runs

def runs(case: Random, native: bool) -> Iterator[tuple[str, dict]]:
    """(name, options): every mode on the tape, Reversible on every backend too."""
    yield "Direct", {"gradient": rv.Direct(), "backend": "eager"}
    of = case.rng.random()
    if of < 0.3:
        yield "Checkpointed", {"gradient": rv.Checkpointed(int(case.rng.integers(1, 6))), "backend": "eager"}
    if not case.method.reversible:
        return
    modes = [rv.Reversible()] + ([rv.Reversible(resync=int(case.rng.integers(1, 9)))] if of > 0.7 else [])
    for mode in modes:
        for backend in ("eager", "replay", "auto"):
            yield f"{mode!r} {backend}", {"gradient": mode, "backend": backend}
    if native:
        yield "native", {"gradient": modes[-1], "backend": "native"}
        yield "native strict 1", {"gradient": modes[0], **STRICT, "threads": 1}
        yield "native strict 2", {"gradient": modes[0], **STRICT, "threads": 2}


def bounds(case: Random, name: str) -> tuple[float, float]:
    """Of the loss, and of the gradient.

    A tape repeats the loop's operations in another order: rounding, of 10^4 operations at most. A reverse sweep may lose half of
    the digits before it has to speak, and one that is nearly reversible all but two.
    """
    rounding = 1e-3 if case.single else 1e-9
    if name.startswith(("Direct", "Checkpointed")):
        return rounding, 10 * rounding
    return rounding, 3e-2 if case.method.near else 1e-2 if case.single else 1e-6


def same_bits(a: Any, b: Any) -> bool:
    (value, grads), (other, others) = a[0], b[0]
    pairs = zip(rv.tree.flatten(grads)[0], rv.tree.flatten(others)[0], strict=True)
    return value == other and all(x is None or np.array_equal(x, y) for x, y in pairs)


def run(kind: str, seed: int, rng: np.random.Generator, native: bool = False) -> Iterator[Finding]:
    case = drawn(kind, seed, rng)
    w = case.rng.normal(size=3)
    known: dict[bytes, list] = {}
    answers: dict[str, Any] = {}
    for name, how in runs(case, native):
        got = trial(case, how, w)
        where = f"{name}, {case.method.method!r}"

        def off(answer: Any) -> tuple[float, float]:
            ts = np.asarray(answer[1].ts, float) if kind == "adaptive" else case.ts
            if ts.tobytes() not in known:
                known[ts.tobytes()] = literal.slopes(lambda theta: by_loop(case, theta, ts, w), (case.y0, case.params),
                                                     np.random.default_rng(seed))
            return literal.distances(*answer[0], known[ts.tobytes()])

        yield judged(where, got, off, bounds(case, name))
        if got.error is None:
            answers[name] = got.answer
            yield from shapes(where, case, got.answer[0][1])
    for a, b in (("Reversible() eager", "Reversible() auto"), ("native strict 1", "native strict 2")):
        if a in answers and b in answers and not same_bits(answers[a], answers[b]):
            yield Finding("FAIL", f"{a} and {b}, {case.method.method!r}", "they have to have the same bits")


def shapes(where: str, case: Random, grads: Any) -> Iterator[Finding]:
    """A gradient has the shape and dtype of what it belongs to."""
    found = [g for g in rv.tree.flatten(grads)[0] if g is not None]
    wanted = literal.float_leaves((case.y0, case.params))
    wrong = [(np.shape(g), np.asarray(g).dtype, np.shape(x)) for g, x in zip(found, wanted, strict=True)
             if np.shape(g) != np.shape(x) or (hasattr(x, "dtype") and np.asarray(g).dtype != x.dtype)]
    if wrong:
        yield Finding("FAIL", where, f"(shape, dtype of the gradient, shape wanted): {wrong[0]}")

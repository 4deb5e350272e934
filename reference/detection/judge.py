"""The gradients of one case: by the mode on trial, by Direct, of the problem itself, and what plain midpoint misses.

    off     |g - Direct| / |Direct|               on the same grid by the same method
    miss    |g - truth| / |truth|                 truth: a reference solve that is much finer
    mid     |midpoint - truth| / |truth|          RungeKutta("midpoint") on the same grid
each for dL/dy0 and for dL/dparams by itself, and for each member of a batch by itself where they are separate problems. Components
of unlike size in one array: bad by the norm of all, good only if each is.

    bad     off > 1e-2, or miss > 20 mid + 1e-2, or a gradient that is not finite
    big     bad, and off or that miss > 10 %
    said    a warning of the library, or a refusal (an ArithmeticError, or a ValueError of solve: it says that it cannot)
    missed  bad, and nothing said
    good    off < 1e-4, and (miss < 3 mid or miss < 1e-3)
    false   good, and yet something was said
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import revode as rv

from .cases import FINER, Case, Recorded, bridged, finer

WARNING = getattr(rv, "RevodeWarning", rv.ReconstructionWarning)
MOST_TRIES = 1000        # of adaptive steps: hundreds suffice, and a solve that wants more has gone wrong and is to say so
REFUSALS = (ArithmeticError, ValueError)


def rounded(tree: Any, dtype: Any) -> Any:
    return rv.tree.map(lambda x: np.asarray(x).astype(dtype), tree)


def gradient(case: Case, ts: np.ndarray, dtype: Any, rows: Any = None, **how: Any) -> tuple[list[np.ndarray], Any]:
    """(dL/dy0 and dL/dparams as float64 vectors, the solution) of the case's loss.

        L = mean over the saved rows (but the first point) of sum u y + v y^2 / 2
    rows: which grid points the loss weighs, where the grid is finer than the case's.
    """
    # float32 cases: the same numbers in every precision, so that a reference solve has the same problem
    y0, params = (rounded(rounded(x, case.dtype), dtype) for x in (case.problem.y0, case.problem.params))
    u, v = (w.astype(dtype) for w in case.weights)
    kept: list = []
    options: dict = {} if "save_at" in how else {"save": [-1] if case.ends else rows}
    if case.kind == "sde":
        options["diffusion"] = case.problem.diffusion
    if case.kind == "cde":
        times, values = case.control
        options["control"] = rv.LinearPath(times, rounded(rounded(values, case.dtype), dtype))

    def loss(at: Any) -> Any:
        sol = rv.solve(case.problem.field, at[0], ts, at[1], **options, **how)
        kept.append(sol)
        ys = sol.ys if case.ends or rows is not None or "save_at" in how else sol.ys[1:]
        return np.sum(ys * u + ys * ys * v / 2) / len(ys)

    grads = rv.grad(loss)((y0, params))
    return [v for part in grads for v in problems(case, rv.tree.flatten(part)[0])], kept[-1]


def problems(case: Case, leaves: list) -> list[np.ndarray]:
    """The gradients in these leaves as one vector, or as one for each member where every leaf has a row for each."""
    members = case.problem.members
    rows = members if members and all(len(np.atleast_1d(g)) == members for g in leaves) else 1
    return [np.concatenate(row) for row in zip(*(np.asarray(g, float).reshape(rows, -1) for g in leaves), strict=True)]


def truth(case: Case, ts: np.ndarray) -> list[np.ndarray]:
    """The gradient of the problem: adaptive steps of order 5, or the same noise or control on a finer grid."""
    if case.kind in ("grid", "adaptive"):
        smallest = float(np.min(abs(case.problem.y0[case.problem.y0 != 0])))
        times = ts[-1:] if case.ends else ts[1:]
        return gradient(case, ts[[0, -1]], np.float64, method=rv.RungeKutta("dopri5"), gradient=rv.Direct(),
                        controller=rv.PID(1e-7, 1e-9 * smallest, max_steps=10 * MOST_TRIES), save_at=list(times))[0]
    pieces = FINER[case.kind]
    fine = finer(ts, pieces)
    rows = [len(fine) - 1] if case.ends else list(range(pieces, len(fine), pieces))
    how: dict = {"method": rv.RungeKutta("heun2" if case.kind == "sde" else "rk4"), "gradient": rv.Direct()}
    if case.kind == "sde":
        dW = np.stack([step_noise(case, ts)(n) for n in range(len(ts) - 1)])
        how["noise"] = Recorded(bridged(dW, np.diff(ts), pieces, case.seed))
    return gradient(case, fine, np.float64, rows=rows, **how)[0]


def step_noise(case: Case, ts: np.ndarray) -> Callable:
    return rv.Brownian(seed=case.seed).along(np.diff(ts), case.problem.y0.shape, np.float64, 0)


def apart(a: list, b: list) -> list[float]:
    """|a - b| / |b| of every group; inf where a is not finite."""
    with np.errstate(all="ignore"):
        far = [float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-300)) for x, y in zip(a, b, strict=True)]
    return [d if math.isfinite(d) else math.inf for d in far]


def attempt(make: Callable) -> Any:
    """make(), or the exception with which a solve was refused; a ValueError that the library did not write is a crash."""
    try:
        return make()
    except REFUSALS as refusal:
        if isinstance(refusal, ArithmeticError) or str(refusal).startswith("solve: "):
            return refusal
        raise


def numbers(thing: Any) -> dict:
    """The numbers that an object holds, one level deep: what thresholds can be studied with."""
    flat: dict = {}
    for name, x in (thing if isinstance(thing, dict) else vars(thing)).items():
        inner = x._asdict() if hasattr(x, "_asdict") else x if isinstance(x, dict) else None
        flat |= {name: x} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
    return {name: float(x) for name, x in flat.items() if isinstance(x, (bool, int, float, np.number))}


def measured(case: Case) -> dict:
    """The record of one case."""
    record = {**case.described(), "words": [], "refused": None, "off": None, "miss": None, "mid": None}
    how: dict = {"backend": case.backend}
    if case.method is not None:
        how |= {"method": case.method, "gradient": rv.Reversible()}
    if case.kind == "adaptive":
        how["controller"] = rv.PID(case.tol, case.tol / 100, max_steps=MOST_TRIES)
    if case.kind == "sde":
        how["noise"] = rv.Brownian(seed=case.seed)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        tried = attempt(lambda: gradient(case, case.ts, case.dtype, **how))
    record["words"] = sorted({w.category.__name__ for w in heard if issubclass(w.category, WARNING)})
    record["other"] = sorted({f"{w.category.__name__}: {w.message}"[:200] for w in heard if not issubclass(w.category, WARNING)})
    details = [getattr(w.message, "details", None) for w in heard if issubclass(w.category, WARNING)]
    record["details"] = [numbers(d) for d in details if isinstance(d, dict)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = attempt(lambda: directly(case, how, tried))
        if isinstance(tried, Exception):
            record["refused"] = f"{type(tried).__name__}: {tried}"[:300]
            record["by direct too"] = isinstance(direct, Exception)      # the state overflows: no gradient mode can help
            if isinstance(direct, Exception):
                return record
        else:
            record["stats"] = numbers(tried[1].stats)
        found = direct if isinstance(tried, Exception) else tried
        ts = case.ts if case.kind != "adaptive" else accepted(case, how) if case.ends else np.asarray(found[1].ts, float)
        record["grid"] = len(ts) - 1
        true = attempt(lambda: truth(case, ts))
        noise = {"noise": how["noise"]} if "noise" in how else {}
        mid = attempt(lambda: gradient(case, ts, np.float64, method=rv.RungeKutta("midpoint"), gradient=rv.Direct(), **noise)[0])
    for name, of, against in (("off", found[0], direct if isinstance(direct, Exception) else direct[0]), ("miss", found[0], true),
                              ("mid", mid, true)):
        if not (isinstance(of, Exception) or isinstance(against, Exception)):
            record[name] = apart(of, against)
            if case.problem.together:
                record[f"{name} of all"] = apart(joined(of), joined(against))
    return record


def directly(case: Case, how: dict, tried: Any) -> tuple[list[np.ndarray], Any]:
    """The same by Direct on the tape: on the accepted grid, handed over, where there is one. A search of its own may accept another
    grid, for a rounding in float32; with that the saved points, and so the loss, are others."""
    asked = {**how, "gradient": rv.Direct(), "backend": "eager"}
    if case.kind != "adaptive" or case.method is None or isinstance(tried, Exception):
        return gradient(case, case.ts, case.dtype, **asked)
    ts = accepted(case, how) if case.ends else np.asarray(tried[1].ts, float)
    return gradient(case, ts, case.dtype, **{name: x for name, x in asked.items() if name != "controller"})


def joined(vectors: list[np.ndarray]) -> list[np.ndarray]:
    """dL/dy0 and dL/dparams, each in one: the first half of the members' vectors, and the second."""
    half = len(vectors) // 2
    return [np.concatenate(vectors[:half]), np.concatenate(vectors[half:])]


def accepted(case: Case, how: dict) -> np.ndarray:
    """The grid of an adaptive solve that saved its end alone."""
    dtype = case.dtype
    sol = rv.solve(case.problem.field, rounded(case.problem.y0, dtype), case.ts, rounded(case.problem.params, dtype), **how)
    return np.asarray(sol.ts, float)


def judged(record: dict) -> dict[str, bool]:
    """bad, big, said, missed, good, false of a record."""
    off, miss, mid = (record.get(f"{name} of all", record[name]) for name in ("off", "miss", "mid"))
    said = bool(record["words"]) or record["refused"] is not None
    far = [m for m, at in zip(miss or [], mid or [math.inf, math.inf], strict=False) if m > 20 * at + 1e-2]
    bad = max(off or [0.0]) > 1e-2 or bool(far)
    big = bad and max([*(off or [0.0]), *far]) > 0.1
    off, miss, mid = (record[name] for name in ("off", "miss", "mid"))
    near = miss is None or all(m < 1e-3 or m < 3 * at for m, at in zip(miss, mid or [math.inf, math.inf], strict=True))
    good = off is not None and max(off) < 1e-4 and near and not bad
    return {"bad": bad, "big": big, "said": said, "missed": bad and not said, "missed big": big and not said, "good": good,
            "false": good and said}

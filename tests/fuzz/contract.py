"""Kind contract: problems that contract, and others, against a literal loop on a much finer grid. A solve is right, or it warns.

    right      |g - truth| <= 20 |midpoint - truth| + 1e-2 |truth| in random directions, for dL/dy0 and for dL/dparams
The defaults have to be right without a warning, unless a literal loop of their base misses it too: the steps are too large then, and
that has to be said. A method that was asked for by name may warn.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from reference.detection.families import FAMILIES, Drawn

from . import literal
from .found import Finding, tried
from .literal import Drive

FINER = 10
NAMED = (rv.Coupled("midpoint"), rv.Coupled("rk4", lam=0.99), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(), rv.LeapfrogMidpoint(),
         rv.EES(stages=4), rv.NearReversible("rk4"))


class Setting(NamedTuple):
    problem: Drawn
    ts: np.ndarray
    dtype: Any
    ends: bool

    @property
    def data(self) -> tuple:
        """y0 and params, as the solve has them; the literal loops take the same numbers."""
        return rv.tree.map(lambda x: np.asarray(x).astype(self.dtype), (self.problem.y0, self.problem.params))


def drawn(rng: np.random.Generator) -> Setting:
    names = [name for name in FAMILIES if name != "diagonal SDE"]
    chosen = str(rng.choice(["contraction", "decay nets", "kinetics", *names]))
    problem = FAMILIES[chosen](rng)
    T = problem.longest * float(rng.uniform(0.2, 1.0))
    N = int(np.clip(T / np.exp(rng.uniform(np.log(0.03), np.log(0.3))), 10, 120))
    dtype = np.float32 if rng.random() < 0.25 else np.float64
    ts = np.linspace(0.0, T, N + 1).astype(dtype).astype(float)
    return Setting(problem, ts, dtype, bool(rng.random() < 0.5))


def loss_of(ys: Any, ends: bool) -> Any:
    ys = ys[-1:] if ends else ys
    return np.sum(ys * ys + ys) / len(ys)


def by_loop(case: Setting, base: str, pieces: int, direction: list) -> tuple[float, float]:
    """(loss, slope) of Runge-Kutta steps, so many to an interval."""
    y0, p = literal.moved(rv.tree.map(lambda x: x.astype(float), case.data), direction)
    inner = case.ts[:-1, None] + np.diff(case.ts)[:, None] * np.arange(pieces) / pieces
    ts = np.append(inner.reshape(-1), case.ts[-1])
    drives = [Drive(lambda t, y: case.problem.field(t, y, p), None, h) for h in np.diff(ts)]
    method = literal.Literal(None, ("y",), literal.alone, literal.runge_kutta(base))
    at = complex(loss_of(np.stack([state[0] for state in method.path(drives, ts, y0)[::pieces]]), case.ends))
    return at.real, at.imag / literal.EPS


def directions(case: Setting, rng: np.random.Generator) -> list[list]:
    """Two directions in y0 alone, two in params alone."""
    y0, *params = literal.float_leaves(case.data)
    return [[[rng.normal(size=y0.shape), *(np.zeros(p.shape) for p in params)] for _ in range(2)],
            [[np.zeros(y0.shape), *(rng.normal(size=p.shape) for p in params)] for _ in range(2)]]


def right(case: Setting, grads: Any, rng: np.random.Generator) -> tuple[bool, bool, str]:
    """Whether the gradient is the problem's, whether rk4 on this grid misses it, and by how much in the worst direction."""
    leaves = [np.asarray(g, float) for g in rv.tree.flatten(grads)[0]]
    worst, coarse = (0.0, "every direction within its bound"), False
    for group in directions(case, rng):
        with np.errstate(all="ignore"):
            known = [tuple(by_loop(case, *how, d)[1] for how in (("rk4", FINER), ("midpoint", 1), ("rk4", 1))) for d in group]
        if not np.all(np.isfinite(known)):                         # the grid is too coarse for anything explicit
            continue
        size = max(abs(true) for true, *_ in known)
        for direction, (true, mid, base) in zip(group, known, strict=True):
            found = sum(float(np.sum(g * d)) for g, d in zip(leaves, direction, strict=True))
            bound = 20 * abs(mid - true) + 1e-2 * size
            share, coarse = abs(found - true) / bound if np.isfinite(found) else np.inf, coarse or abs(base - true) > bound
            worst = max(worst, (share, f"{found:.6g} for {true:.6g}; midpoint {mid:.6g}"), key=lambda w: w[0])
    return worst[0] <= 1, coarse, f"{worst[0]:.2g} of the bound, {worst[1]}"


def contract(seed: int, rng: np.random.Generator) -> Iterator[Finding]:
    case = drawn(rng)
    for method in (None, NAMED[rng.integers(len(NAMED))]):
        def loss(theta: tuple, method: Any = method) -> Any:
            sol = rv.solve(case.problem.field, theta[0], case.ts, theta[1], method=method, save=[-1] if case.ends else None)
            return loss_of(sol.ys, case.ends)
        got = tried(lambda loss=loss: rv.grad(loss)(case.data))
        where = f"{method!r}, {len(case.ts) - 1} steps to {case.ts[-1]:.3g}, {case.dtype.__name__}, {'end' if case.ends else 'all'}"
        if got.error is not None:
            said = f"{type(got.error).__name__}: {got.error}"[:300]
            yield Finding("loud" if isinstance(got.error, ArithmeticError) else "FAIL", where, said)
            continue
        good, coarse, detail = right(case, got.answer, np.random.default_rng(seed))
        if method is None:
            what = "warned" if coarse and got.warned else "ok" if good and not got.warned else "FAIL"
            yield Finding(what, where, detail + (", warned" if got.warned else ""))
        else:
            yield Finding("warned" if got.warned else "ok" if good else "silent", where, detail)

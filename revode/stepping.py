"""Grids, and the march along them. A solve is a grid (data), a method and a vector field; nothing else happens here.

    parts_0 = start(y0);     parts_{n+1} = one step of the method over [ts[n], ts[n+1]]
"""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .engine.tensor import value_of
from .methods.increment import Increment, System
from .methods.shears import Parts, Step, forward


class ReconstructionWarning(UserWarning):
    """The two copies of the solution separate, or the reverse sweep did not find the way back: do not trust the gradient."""


class ReconstructionError(ArithmeticError):
    """What ReconstructionWarning says, as an error: Reversible(strict=True)."""


class RoundTrip(NamedTuple):
    """How far the reverse sweep was from the states of the forward solve, at its worst."""
    absolute: float      # largest |reconstructed - forward| over the states compared
    ulps: float          # the same in units of the last place of the largest entry of the state
    step: int            # where: the index into the grid


@dataclass
class Stats:
    """What a solve cost. Complete once the gradient has been computed."""
    steps: int = 0
    rejected: int = 0
    nfe: int = 0                 # evaluations of the field, forward and back
    nvjp: int = 0                # pullbacks through the field
    checks: int = 0              # evaluations that only checked the input
    advances: int = 0            # steps taken without a tape, forward and again (Checkpointed)
    peak_states: int = 0         # states of the solve held at one time, the current one included
    roundtrip: RoundTrip | None = None


class State(NamedTuple):
    """The whole state of a method at one time; `state0=` continues from it."""
    parts: Parts
    t: float
    h: float          # the step that led here; 0 at the start
    n: int            # steps taken so far

    def __repr__(self) -> str:
        return f"State(t={self.t:.6g}, n={self.n}, parts={list(self.parts)})"


@dataclass
class Problem:
    """Everything that is fixed during a solve."""
    method: Any
    system: System
    ts: list                     # N + 1 times
    hs: list                     # N steps, of y's dtype
    save: tuple[int, ...]        # indices into ts
    h_before: Any                # the step before the first, when a solve is resumed
    resumed: bool = False
    n_before: int = 0            # steps taken before this solve
    strict: bool = False
    progress: bool = False
    stats: Stats = field(default_factory=Stats)

    @property
    def N(self) -> int:
        return len(self.hs)

    def step(self, n: int) -> Step:
        before = self.hs[n - 1] if n else self.h_before
        return Step(self.ts[n], self.ts[n + 1], self.hs[n], before)

    def start(self, F: Increment, initial: Any) -> Parts:
        """The parts at ts[0]; the initial map y0 -> parts belongs to the method and is differentiated."""
        return dict(initial) if self.resumed else self.method.start(F, self.step(0), initial)

    def advance(self, n: int, parts: Parts, F: Increment) -> Parts:
        """One step from ts[n]."""
        step = self.step(n)
        if hasattr(self.method, "word"):
            return forward(self.method.word(step), parts, F)
        return self.method.advance(step, parts, F)

    def output(self, parts: Parts) -> tuple:
        return tuple(parts[name] for name in self.method.outputs)


CHECK_EVERY = 16      # steps between looks at the state: a look costs about a tenth of a step of a tiny problem


def march(problem: Problem, initial: Any, params: Any, visit: Callable | None = None,
          advance: Callable | None = None) -> tuple[tuple, Parts]:
    """Solve forward. Returns the saved outputs, stacked time first (one array for each output), and the final parts.

    visit(n, parts) sees every state; advance(n, parts, F) replaces the plain step.
    """
    points = range(problem.N + 1)
    if problem.progress:
        from tqdm import tqdm
        points = tqdm(points, desc="solve", unit="step", leave=False)
    F = Increment(problem.system, params)
    advance = advance or problem.advance
    saves = set(problem.save)
    saved = []
    watch = Watch(problem, params)
    with np.errstate(over="ignore", invalid="ignore"):       # the watch says it better
        parts = problem.start(F, initial)
        for n in points:
            if n in saves:
                saved.append(problem.output(parts))
            if visit is not None:
                visit(n, parts)
            if n % CHECK_EVERY == 0 or n == problem.N:
                watch.look(n, parts)
            if n < problem.N:
                parts = advance(n, parts, F)
                problem.stats.steps += 1
    if not saved:
        return (), parts
    return tuple(np.stack(column) for column in zip(*saved, strict=True)), parts


class Watch:
    """Looks at the state now and then: is it finite, and do the two copies of the solution still agree?"""

    def __init__(self, problem: Problem, params: Any) -> None:
        self.problem, self.params = problem, params
        self.scale = 0.0
        self.warned = False
        self.before: tuple[int, Parts] = (0, {})

    def look(self, n: int, parts: Parts) -> None:
        plain = {name: value_of(part) for name, part in parts.items()}
        norms = {name: size(part) for name, part in plain.items()}
        if not all(np.isfinite(norm) for norm in norms.values()):
            self.overflow(n)
        self.before = n, plain
        method = self.problem.method
        self.scale = max([self.scale, *(norms[name] for name in method.outputs)])
        if method.twin is not None and not self.warned:
            first, second = method.twin
            gap = size(plain[first] - plain[second])
            # The copies differ by the local error of the base, so a tenth of the solution means that they parted.
            if gap > 0.1 * self.scale:
                self.warned = True
                complain(self.problem, f"solve: at step {n} of {self.problem.N} (t = {self.problem.ts[n]:.6g}) the two copies of "
                         f"the solution differ, |{first} - {second}| = {gap:.3g} while |y| was at most {self.scale:.3g}, so "
                         "neither the solution nor its gradient can be trusted.")

    def overflow(self, n: int) -> None:
        """Find the step at which the state stopped being finite, and say so."""
        at, parts = self.before
        F = Increment(self.problem.system, value_of_tree(self.params))
        norm = max((size(part) for part in parts.values()), default=float("nan"))
        while at < n and parts:
            after = self.problem.advance(at, parts, F)
            norms = [size(part) for part in after.values()]
            at += 1
            if not all(np.isfinite(x) for x in norms):
                break
            parts, norm = after, max(norms)
        raise FloatingPointError(
            f"solve: the state is no longer finite at step {at} of {self.problem.N} (t = {self.problem.ts[at]:.6g}); its "
            f"largest entry was {norm:.3g} one step before. Take smaller steps, or look at the field there.")


def value_of_tree(params: Any) -> Any:
    from .engine import tree
    return tree.map(value_of, params)


def size(x: Any) -> float:
    """The largest absolute entry, as a float; NaN if there is one."""
    return float(abs(x).max()) if getattr(x, "size", 1) else 0.0


def complain(problem: Problem, what: str) -> None:
    """Warn (or raise, if strict) with the likely cause and the remedies."""
    method = problem.method
    h = max(abs(float(h)) for h in problem.hs)
    cause = ""
    if hasattr(method, "contraction_limit"):
        cause = (f" Likely cause: the solution contracts faster than {method.contraction_limit(h):.3g} per unit of time, the "
                 f"most that {method!r} follows with h = {h:.3g}.")
    message = (what + cause + " Remedies: for Coupled, lam = exp(-c h) with c above the contraction rate, and smaller steps; "
               "Reversible(resync=K) stores a state every K steps; Checkpointed(n) or Direct() store what they need.")
    if problem.strict:
        raise ReconstructionError(message)
    warnings.warn(message, ReconstructionWarning, stacklevel=2)


def steps_of(problem: Problem, initial: Any, params: Any) -> Iterator[tuple[int, Parts]]:
    """The march as a generator: (n, parts) for every grid point."""
    F = Increment(problem.system, params)
    parts = problem.start(F, initial)
    yield 0, parts
    for n in range(problem.N):
        parts = problem.advance(n, parts, F)
        yield n + 1, parts

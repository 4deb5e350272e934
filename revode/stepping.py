"""A solve as data: a grid, a method and a vector field. Who walks along the grid is said in engines/, and how in march.py.

    parts_0 = start(y0);     parts_{n+1} = one step of the method over [ts[n], ts[n+1]]
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .engine import tree
from .engine.tensor import value_of
from .methods.companion import neutral
from .methods.increment import Evaluator, System
from .methods.shears import Parts, Step, forward
from .watch import RoundTrip

RECENT, SHORT = 4, 1 << 14          # given grids that are kept for the next solve, and their points


class Passed(NamedTuple):
    """A given grid that has passed its checks, as training brings it again and again."""
    content: bytes
    ts: np.ndarray                   # the same memory, which nobody can write to
    known: dict                      # what depends on it alone


_passed: list[Passed] = []


def passed(ts: Any) -> np.ndarray | None:
    """The times of an earlier solve, if these are the same bits: they need no second look."""
    if type(ts) is np.ndarray and ts.dtype == np.float64 and ts.ndim == 1 and len(ts) <= SHORT:
        content = ts.tobytes()
        for found in _passed:
            if found.content == content:
                return found.ts
    return None


def keep(ts: np.ndarray) -> np.ndarray:
    """Remember a grid that has passed its checks; returns its times."""
    if len(ts) > SHORT:
        return ts
    content = ts.tobytes()
    new = Passed(content, np.frombuffer(content), {})
    _passed[:] = [new, *_passed[:RECENT - 1]]
    return new.ts


def known_of(ts: Any) -> dict:
    """What has been computed from a grid alone; of one that is not kept, nothing."""
    for found in _passed:
        if found.ts is ts:
            return found.known
    return {}


def as_table(rows: dict[str, Any]) -> str:
    """A small HTML table of names and values, for notebooks."""
    cells = "".join(f"<tr><th style='text-align:left'>{name}</th><td>{escaped(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def shape_of(y: Any) -> str:
    """The shape of an array or of every leaf of a tree, for a representation."""
    return str(tuple(np.shape(y))) if hasattr(y, "shape") else tree.describe(tree.map(value_of, y))


def brief(value: Any) -> str:
    """A value in a representation: three digits of a number, the ends of a list."""
    if isinstance(value, list):
        return f"[{', '.join(map(brief, value))}]" if len(value) < 4 else f"[{brief(value[0])} ... {brief(value[-1])}]"
    return f"{value:.3g}" if isinstance(value, float) else repr(value)


def escaped(value: Any) -> str:
    return str(value).replace("&", "&amp;").replace("<", "&lt;")


@dataclass(repr=False)
class Stats:
    """What a solve cost. Complete once the gradient has been computed.

    Parameters
    ----------
    steps, rejected : accepted steps, and those that a controller threw away.
    nfe, nfe_forward : evaluations of the field, in all and in the forward solve alone.
    nvjp : pullbacks through the field (Direct: the evaluations on its tape).
    checks : evaluations that only checked the input.
    advances : steps taken without a tape, forward and again (Checkpointed).
    peak_states : states of the solve held at one time, the current one included.
    defect : largest |y1 - Phi_h(y0)| of one undone step, for methods that are nearly reversible.
    roundtrip : a RoundTrip, how far the reverse sweep was from the forward states; None before it.
    fallback : the gradient mode that took over where the reverse sweep could not be trusted (Automatic).
    traces, compilations : programs traced in this solve, and runners built for programs.
    certificate : the measured error of the gradient (Reversible(certify=k)).
    exact : whether every bit of the initial state has come back (exact=True), and the buffers were empty then.
    bits_stored, bits_bound : the bits that an exact solve holds, of all elements together, and those that its contractions destroyed.
    backend : who ran the steps; of the reverse sweep, where that was another.
    """
    whole_in_trees: ClassVar[bool] = True        # one object, so that what the reverse sweep writes is seen in the solution
    steps: int = 0
    rejected: int = 0
    nfe: int = 0                 # evaluations of the field, forward and back
    nfe_forward: int = 0         # of them, in the forward solve
    nvjp: int = 0                # pullbacks through the field (Direct: the evaluations on its tape)
    checks: int = 0              # evaluations that only checked the input
    advances: int = 0            # steps taken without a tape, forward and again (Checkpointed)
    peak_states: int = 0         # states of the solve held at one time, the current one included
    defect: float = 0.0          # largest |y1 - Phi_h(y0)| of one undone step, for methods that are nearly reversible
    roundtrip: RoundTrip | None = None
    fallback: str | None = None  # the gradient mode that took over where the reverse sweep could not be trusted (Automatic)
    traces: int = 0              # programs traced in this solve: none where only data have changed since one like it
    compilations: int = 0        # runners built for programs: one for each thread that uses them
    certificate: Any = None      # the measured error of the gradient, where that was asked for (certify.py)
    exact: bool = False          # every bit of the initial state has come back (exact.py)
    bits_stored: float = 0       # that an exact solve holds, of all elements together
    bits_bound: float = 0.0      # that its contractions destroyed
    backend: str = "eager"       # who ran the steps; of the reverse sweep, where that was another

    def noted(self) -> dict[str, Any]:
        """What is not as it was at the start, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) not in (f.default, [])}

    def __repr__(self) -> str:
        return f"Stats({', '.join(f'{name}={brief(value)}' for name, value in self.noted().items())})"

    def _repr_html_(self) -> str:
        return as_table({name: brief(value) for name, value in self.noted().items()})


class State(NamedTuple):
    """The whole state of a method at one time; solve(..., state0=state) continues from it.

    Parameters
    ----------
    parts : {name: (..., d) array}, by the method's own names: y, z, v, q.
    t : the time, in the unit of ts.
    h : the step that led here; 0 at the start.
    n : steps taken so far.
    layout : how the parts make the user's y.
    method : that made it, and that can go on from it; None where that is not known.
    bits : what has left the buffers of an exact solve, for the way back.
    """
    parts: Parts
    t: float
    h: float          # the step that led here; 0 at the start
    n: int            # steps taken so far
    layout: Any       # how the parts make the user's y (problem.Packing)
    method: Any = None     # that made it, and that can go on from it; None where that is not known
    bits: tuple = ()       # what has left the buffers of an exact solve (exact.py), for the way back

    def __repr__(self) -> str:
        return f"State(t={self.t:.6g}, n={self.n}, parts={list(self.parts)})"


CLOCK = ("t0", "t1", "h", "h_before")        # what a step gets of the grid: its ends, its length, and the length of the one before


@dataclass
class Problem:
    """Everything that a solve works with: fixed at its start, but for an adaptive grid, which grows with each step."""
    method: Any
    system: System
    ts: Any                      # (N + 1,) times, float64
    hs: Any                      # (N,) steps, of y's dtype
    save: tuple[int, ...]        # indices into ts of what is returned; empty until an adaptive solve has made its grid
    h_before: Any                # the step before the first, when a solve is resumed
    resumed: bool = False
    n_before: int = 0            # steps taken before this solve
    strict: bool = False
    resync: int | None = None
    progress: bool = False
    plain: bool = True           # whether steps may be handed out as arrays without axes, NumPy's fastest scalars
    stats: Stats = field(default_factory=Stats)
    adaptive: Any = None         # the controller's state (adaptive.py), or None for a fixed grid
    scales: dict = field(default_factory=dict)        # the largest |entry| of every part, entry by entry, as far as seen
    driver: Any = None           # makes the increments of noise or a control (driving.py); None for an ODE
    backend: Any = None          # makes programs of the steps (compiled/backend.py); None for the eager tape
    widths: tuple[int, ...] = ()                   # the entries of each leaf of y0, along y's last axis, where y0 is a tree
    asked: dict = field(default_factory=dict)      # whether somebody wants the gradient of "y0", of "params", of "ts"
    grid: Any = None             # ts, a tensor in a derivative of a derivative, where its gradient is asked
    copies: bool = False         # whether the initial parts are y0 itself
    kin: dict = field(default_factory=dict)        # of solves of one kind: the name of their programs (compiled/plans.py)
    given: tuple = (None, None, [])                # params and field, and what programs get of them (compiled/replay.py)
    times: Any = None            # the grid as a list of tensors, while a tape goes through all steps
    ways: tuple[str, ...] = ()   # the directions in which a gradient mode will ask for programs (engines/protocol.py)
    swept: bool = False          # whether a reverse sweep will follow, which on a given grid knows better whether the copies part
    suspicion: Any = None        # what the march would say of that
    parted: bool = False         # whether it has been said
    unstable: bool = False       # or that its steps are too large
    marched: Any = None          # what a march has shown, until somebody has reason to look at it (watch/quiet.py)
    later: Any = None            # looks whether they are, where a reverse sweep has reason to ask
    lost: bool = False           # or that the reverse sweep did not find its way back
    flushed: Any = None          # what has left the buffers of an exact solve (exact.py)
    compared: set = field(default_factory=set)     # the programs of which a step has been compared with the tape
    promoted: dict = field(default_factory=dict)   # by direction: whether native code takes over from replay (compiled/promote.py)
    seen: Any = None             # the field as its trace shows it (compiled/fields.py), or why there is none

    @property
    def differentiated(self) -> bool:
        return any(self.asked.values())

    @property
    def timed(self) -> bool:
        """Whether somebody wants the gradient with respect to the times: each step is then pulled back by itself."""
        return bool(self.asked.get("ts"))

    @property
    def tolerances(self) -> tuple:
        """Of a controller, as programs take them."""
        return () if self.adaptive is None else self.adaptive.tolerances

    @property
    def N(self) -> int:
        return len(self.hs)

    @property
    def known(self) -> dict:
        """What has been computed from the grid alone."""
        return known_of(self.ts)

    def clock(self, n: int) -> tuple:
        """(t0, t1, h, h_before) of step n of the grid; of a grid without steps, of one that goes nowhere."""
        if self.times is not None:
            return self.times_of(n)
        if not self.N:
            return self.ts[0], self.ts[0], 0.0, 0.0
        return self.ts[n], self.ts[n + 1], self.h(n), self.h(n - 1) if n else self.h_before

    def times_of(self, n: int) -> tuple:
        """clock(n), of tensors."""
        ts, dtype = self.times, self.hs.dtype

        def length(n: int) -> Any:
            return (ts[n + 1] - ts[n]).astype(dtype)

        if not self.N:
            return ts[0], ts[0], 0.0, 0.0
        return ts[n], ts[n + 1], length(n), length(n - 1) if n else self.h_before if self.n_before else length(0)

    def step(self, n: int, clock: tuple | None = None) -> Step:
        """Step n of the grid, from ts[n] to ts[n + 1]; or by a clock that is given."""
        return self.between(n, *(clock or self.clock(n)))

    def between(self, n: int, t0: Any, t1: Any, h: Any, h_before: Any) -> Step:
        """The step from t0 to t1, with what drives the equation besides time."""
        if self.driver is None:
            return Step(t0, t1, h, h_before)
        return Step(t0, t1, self.driver.join(h, self.driver.given(n, t0, t1, h, self)), None)

    def h(self, n: int) -> Any:
        if not self.plain:
            return float(self.hs[n])
        return self.hs[n] if type(self.hs) is list else self.hs[n, ...]

    def start(self, F: Evaluator, initial: Any, clock: tuple | None = None) -> Parts:
        """The parts at ts[0]; the initial map y0 -> parts belongs to the method and is differentiated."""
        initial = in_rows(initial) if type(initial) is np.ndarray else tree.map(in_rows, initial)
        if self.resumed:
            return dict(initial)
        parts = self.method.start(F, self.step(0, clock), initial)
        self.copies = type(initial) is np.ndarray and all(part is initial for part in parts.values())
        return parts

    def advance(self, n: int, parts: Parts, F: Evaluator) -> Parts:
        """One step from ts[n]; where an adaptive grid ends, the controller finds the next point first."""
        if n == self.N:
            return self.adaptive.advance(self, parts, F)
        return one_step(self.method, self.step(n), parts, F)

    def worded(self, complaint: Any) -> Any:
        """What the monitor has to say, in the words of this problem."""
        return complaint

    def relative(self, off: Any, there: Any, tiny: float) -> Any:
        """How the monitor compares what is off in a state with what is there: entry by entry."""
        return off / (there + tiny)

    def done(self, n: int) -> bool:
        return n == self.N and (self.adaptive is None or self.adaptive.arrived(self))

    def saves(self, n: int) -> bool:
        return n in self.rows if self.adaptive is None else self.adaptive.saves(self, n)

    @cached_property
    def neutral(self) -> float:
        """What a step makes of the gap between two copies where there is no field (methods/companion.py)."""
        return neutral(self.method.word(self.step(0)))

    @cached_property
    def saved(self) -> np.ndarray:
        """The times of these."""
        return np.asarray(self.ts)[list(self.save)]

    @cached_property
    def rows(self) -> dict[int, int]:
        """The row of each saved grid point among what is saved, on a given grid."""
        return {n: k for k, n in enumerate(self.save)}

    def output(self, parts: Parts) -> tuple:
        return tuple(parts[name] for name in self.method.outputs)


def in_rows(x: Any) -> Any:
    """An array with its entries in the order of its axes, as programs keep them, so that products round alike everywhere."""
    return np.ascontiguousarray(x) if type(x) is np.ndarray and not x.flags.c_contiguous else x


def one_step(method: Any, step: Step, parts: Parts, F: Evaluator) -> Parts:
    """The parts after one step: the word of a reversible method, or the flow of any other."""
    if method.exactly_reversible:
        return forward(method.word(step), parts, F)
    y, = F.read(("y",), parts)
    after = {"y": method.flow(F, step.t0, step.t1, y, step.dx)}
    F.memo.clear()
    return after


def states(problem: Problem, initial: Any, params: Any) -> Iterator[tuple[int, Parts]]:
    """(n, parts) for every grid point, step by step."""
    F = Evaluator(problem.system, params, {})
    parts, n = problem.start(F, initial), 0
    while True:
        yield n, parts
        if problem.done(n):
            return
        parts = problem.advance(n, parts if problem.flushed is None else problem.flushed.before(n, parts, F.most), F)
        n += 1

"""The verbs. A method says what a step is, an engine takes steps, a gradient mode is a schedule of what engines offer.

    load                  begin: these parts (going back: and cotangents)
    ahead  first -> last    parts_{n+1} = step n of parts_n
    extend                  the same, of as many steps as come, where a controller has yet to find them (adaptive.py)
    back   last -> first    (parts_n, cotangent_n) from those at n + 1: reconstruct AND pull back         words of shears, or nearly
    pull   last -> first    cotangent_n from that at n + 1, AT states[n]: nothing is reconstructed        every method
    read, restart         what is there; go on from other parts
    walk                  of generated code alone: all stretches of Checkpointed(n) in a few calls (compiled/stretches.py)

    mode                  schedule
    Reversible(resync)    ahead, keeping every resync-th state; back from one that is kept to the next
    Checkpointed(n)       ahead, keeping the planned states; for each stretch: ahead, keeping all, and pull
    Direct()              ahead, keeping all, and pull; on the tape the tape through all steps, which has derivatives of any order
    Backsolve()           ahead on the augmented equation, from the end to the start
"""
from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..exact import Flushing
from ..methods.shears import Parts
from ..stepping import Problem

Rows = Mapping[str, Any]         # many states: for each part an array (or a list) with an axis of grid points first


class Engine(Protocol):
    """One solve at work, on its grid. Programs serve one verb, and the engine that runs them has the others in common alone."""
    name: str                    # what stats.backend says
    looks_often: bool            # whether it comes by every step anyway, so that nothing is won by looking at many at once
    shows: int                   # bytes of states that it may be asked to show in one call: watch.ROOM, or more where a call is dear
    holds: int                   # the same where that is all there is to see: it is then judged together

    def load(self, problem: Problem, params: Any, parts: Parts, cotangents: Parts | None = None) -> None:
        """Begin with these parts, and cotangents; the sums for the parameters are zero."""

    def ahead(self, first: int, last: int, ys: Sequence[Any] | None = None, looks: Sequence[int] = ()) -> Rows:
        """Steps first .. last - 1. The saved states among those that are reached go to ys, for each output an array or a list.

        Returns the parts at `looks`, which rise from first + 1 to last.
        """

    def extend(self, most: int = sys.maxsize) -> Rows:
        """One or more further steps, at most so many, from where the grid ends, which grows by them. Returns the parts after each."""

    def back(self, last: int, first: int, a_ys: tuple, known: Parts | None = None, flushes: bool = False,
             looks: Sequence[int] = ()) -> tuple[Rows, Rows]:
        """Undo steps last - 1 .. first; the cotangents of the saved states at first .. last - 1 enter on the way.

        known: the state at `first`, if it is known; flushes: pull back there the field values whose cotangents are pending.
        Returns the parts and cotangents at `looks`, last first.
        """

    def pull(self, last: int, first: int, a_ys: tuple, states: Rows) -> None:
        """Pull steps last - 1 .. first back at known states, those of first .. last - 1; cotangents enter as in `back`."""

    def restart(self, parts: Parts) -> None:
        """Go on from these parts."""

    def replace(self, parts: Parts) -> None:
        """Give some parts other values, of which nothing that is at hand was computed (the buffers of exact.py)."""

    def read(self, kind: str) -> Any:
        """The "part"s, the "cotangent"s, the sums for the parameters ("aparam", by number), what was "missed" on the way back, how
        large numbers have been ("most", of exact mode ahead), or
        the cotangents of the clock of each step ("atime", (N,) by name, where the problem is timed); or
        "flowed", rows of these sums when it was asked before, at the last looks, and now, and where each leaf begins (None: too many).

        What is read is the caller's: the engine does not write into it any more.
        """


def engine_of(problem: Problem, direction: str, parts: Parts, params: Any) -> Any:
    """The engine that takes the steps of this problem: "forward" (ahead), "backward" (back) or "pull"."""
    made = None if problem.backend is None else problem.backend.engine(direction, problem, parts, params)
    if made is None:
        from .eager import Eager
        made = Eager()
    return made if problem.flushed is None else Flushing(made, problem.flushed)

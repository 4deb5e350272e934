"""Loops over a tile of trajectories, as data: what lower.py makes of a program, and generate.py prints."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..engine.tensor import NotTraceable, Op
from .program import Program, Role, V

# One value for each trajectory; one for all; a sum over the trajectories of a tile; the same, where each member of an ensemble
# has sums of its own.
LANES, SHARED, TILE, MEMBER = "lanes", "shared", "tile", "member"


class NotFusable(NotTraceable):
    """An operation that has no form as a loop over trajectories."""


@dataclass(eq=False)
class Slot:
    """A stored value: `kind`, F features, and where it comes from: a role of the program (inputs and outputs), or

    ("params", v), ("steps", v), ("constant", content, F);  ("own params", i), ("own steps", i): number i of Lowered.own
    """
    kind: str
    F: int
    role: Role | None = None


class Read(NamedTuple):
    """An argument of a loop: a slot, seen through a map of features (None: as it is), or a number."""
    slot: Slot | None
    map: np.ndarray | None = None
    number: Any = None


@dataclass(eq=False)
class Loop:
    """One loop. kind: map, gather, linear, contract, reduce, outer, rows."""
    kind: str
    out: Slot
    reads: list[Read]
    text: str = ""                          # map: the expression in C, with {0}, {1}, ...
    op: Op | None = None                    # map: the operation; reduce: sum, max or min
    shape: tuple[int, ...] = ()             # linear: (p, n, m);  outer: (n, m)
    tables: tuple[np.ndarray, ...] = ()     # contract, reduce: (F, C) indices of features
    source: str = ""                        # what the user would recognise
    apart: bool = False                     # map: a loop of its own, over values that are stored


class Own(NamedTuple):
    """A value of the parameters, or of the grid, of which each trajectory (LANES) or each member (SHARED) reads entries of
    its own: entry at[row, k] is feature k."""
    kind: str
    v: V
    at: np.ndarray
    steps: bool                             # of the grid


@dataclass
class Lowered:
    """The loops of one program, with its inputs and outputs by role."""
    loops: list[Loop]
    inputs: dict[Role, Slot]
    outputs: dict[Role, Read]
    steps: list[V] = field(default_factory=list)       # values of the grid that loops read, in the order of their columns
    params: list[V] = field(default_factory=list)      # values of the parameters that loops read
    own: list[Own] = field(default_factory=list)
    members: int = 0                                   # leading axes of the batch that number the members of an ensemble
    sums: dict[Role, str] = field(default_factory=dict)       # sums for parameters of which there are several: LANES, MEMBER
    program: Program | None = None
    batch: tuple[int, ...] = ()

    @property
    def ensemble(self) -> int:
        """How many members there are; 1 where there is no ensemble."""
        return int(np.prod(self.batch[:self.members]))


@dataclass
class Known:
    """What is known of a value of the program: its slot, the map of its features, and which of its axes are rows."""
    kind: str
    rows: tuple[int, ...]                   # its axes that run over trajectories (MEMBER: over members), in order
    features: tuple[int, ...]               # the lengths of the others
    slot: Slot | None
    map: np.ndarray | None = None           # None: feature k is at k
    number: Any = None

    @property
    def F(self) -> int:
        return int(np.prod(self.features))

    @property
    def index(self) -> np.ndarray:
        """Where feature k is, of all of them."""
        return np.arange(self.F) if self.map is None else self.map

    def read(self) -> Read:
        return Read(self.slot, self.map, self.number)


def of_kind(known: Known, *kinds: str) -> bool:
    """Whether a value is read from where values of this kind come: "steps", "constant", ..."""
    return known.slot is not None and known.slot.role is not None and known.slot.role[0] in kinds


def as_map(slot: Slot, index: np.ndarray) -> np.ndarray | None:
    """A map of features, None where it changes nothing."""
    return None if slot.F == index.size and np.array_equal(index, np.arange(index.size)) else index

"""What a solve is made from, as data: what the user asked for, and how a tree of arrays is laid out as one array."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .adaptive import PID
from .engine import tree
from .engine.tensor import value_of
from .stepping import State


class Asked(NamedTuple):
    """What the user asked for, as it was given: the arguments of `solve`, by their names there."""
    field: Callable | None
    y0: Any
    ts: Any
    params: Any = None
    method: Any = None
    save: Any = None
    state0: State | None = None
    progress: bool = False
    controller: PID | None = None
    dt0: float | None = None
    save_at: Any = None
    diffusion: Callable | None = None
    noise: Any = None
    interpretation: str = "stratonovich"
    control: Any = None
    backend: Any = "eager"
    threads: int | None = None
    arithmetic: str = "fast"
    exact: Any = None
    stops: Any = None
    interpolate: bool = False


class Packing:
    """How a y (an array, or a tree; for split methods a pair of those) becomes one array for each output, and back.

    promoted: y is float32, and its state float64 (exact mode); the field sees float32.
    """

    def __init__(self, y: Any, split: bool, promoted: bool = False) -> None:
        self.split, self.promoted = split, promoted
        leaves, self.structure = tree.flatten(y[0] if split else y)
        self.alone = self.structure is tree.LEAF
        self.plain = self.alone and not promoted          # y and its state are the same array
        self.shapes = [np.shape(value_of(x)) for x in leaves]

    def pack(self, y: Any, t: Any = None) -> Any:
        """One array from the tree of one output; t: the time, if it is a value of the field."""
        if self.promoted:
            y = tree.map(self.promote, y)
        if self.alone:
            return y
        leaves, structure = tree.flatten(y)
        if structure != self.structure or [np.shape(x) for x in leaves] != self.shapes:
            at = "" if t is None else f" at t={float(value_of(t)):.6g}"
            raise ValueError(f"solve: got {tree.describe(y)}{at} where a tree like y0 is expected, with shapes {self.shapes}")
        return tree.ravel(leaves)[0]

    def promote(self, x: Any) -> Any:
        if getattr(x, "dtype", None) != np.float32:
            raise TypeError(f"solve: the field returned {tree.describe(x)} for a y of float32; it returns float32 (a parameter or "
                            "constant of float64 is the likely cause)")
        return x.astype(np.float64)

    def open(self, x: Any, lead: int = 0) -> Any:
        """The tree of one output from its array, which may have `lead` leading axes (time)."""
        if self.promoted:
            x = x.astype(np.float32)
        if self.alone:
            return x
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes]).tolist()
        return tree.unflatten(self.structure, [
            np.reshape(x[..., end - int(np.prod(shape)):end], (*x.shape[:lead], *shape))
            for end, shape in zip(ends, self.shapes, strict=True)])

    def unpack(self, outputs: tuple, lead: int = 0) -> Any:
        """What the user sees of the outputs of a method: y, or (q, v)."""
        if not outputs:
            return ()
        opened = tuple(self.open(x, lead) for x in outputs)
        return opened if self.split else opened[0]

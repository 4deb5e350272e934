"""The control of a CDE, and whether the method can follow it."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..driving import ControlledSystem, ControlPath, SmoothlyControlledSystem
from ..engine.tensor import beside
from ..methods.increment import System


def controlled(system: System, control: Any, method: Any, y: Any, ts: Any,
               fixed: bool) -> tuple[System, ControlPath | None, list[float]]:
    """The system of a controlled equation, its increments (None where the control is smooth: dx is h), and its knots."""
    check_control(system, control, method, y)
    inside = [float(t) for t in np.unique(control.times) if min(ts[0], ts[-1]) < t < max(ts[0], ts[-1])]
    if type(control).__name__ == "Rectilinear" and fixed and not set(inside) <= {float(t) for t in ts}:
        raise ValueError("solve: the grid steps over knots of a Rectilinear control, whose corners it would cut off; put all of "
                         "control.times into ts")
    smooth = getattr(control, "smooth", False)
    found = (SmoothlyControlledSystem if smooth else ControlledSystem)(system.field, system.stats, scalar=system.scalar,
                                                                                refuse=system.refuse)
    place = beside(y)
    found.control, found.derivative = control, getattr(control, "derivative", None)
    if not isinstance(y, (np.ndarray, np.generic)):
        found.derivative = lambda t: place(control.derivative(t))
    return found, None if smooth else ControlPath(control, place), inside


def check_control(system: System, control: Any, method: Any, y: Any) -> None:
    """Whether the control is a path of y's dtype and batch, and the method can follow it."""
    if isinstance(control, type) or not hasattr(control, "increment"):
        raise TypeError(f"solve: control={control!r}; pass LinearPath, Rectilinear or HermiteCubic(times, values)")
    if system.unpack is not None or len(method.outputs) > 1:
        raise TypeError("solve: a controlled equation needs y as one array, and a method without split state")
    if not getattr(control, "smooth", False) and not method.noise:
        raise TypeError(f"solve: {method!r} relies on dy = f dt, so it cannot follow the increments of a piecewise linear "
                        "control; use HermiteCubic, or ReversibleHeun(), Coupled or an EES method")
    batch = control.values.shape[:-2]
    if batch not in ((), y.shape[:-1]):
        raise ValueError(f"solve: the control is a batch {batch} of series for y of shape {y.shape}; its batch is that of y, "
                         f"{y.shape[:-1]}, or one series serves all")
    if control.values.dtype != y.dtype:
        raise TypeError(f"solve: the control has values of {control.values.dtype} but y0 is {y.dtype}; give both one dtype")

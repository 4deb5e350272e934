"""What drives the equation besides time: Brownian noise, or a control. Nothing of it is stored, all is recomputed.

    noise     F(t, y, dx) = f h + g dW           diagonal: g shaped like y;  general: g of shape y.shape + (m,)
    control   F(t, y, dx) = f dX                 piecewise linear paths: dX = X(t1) - X(t0), f of shape y.shape + (channels,)
              F(t, y, dx) = (f X'(t)) h          smooth paths: each stage at its own time

Stratonovich throughout: a step is the method applied to the frozen field with the same increments at every stage.
Sources: Kidger, Foster, Li & Lyons 2021 (noise); Kidger, Morrill, Foster & Lyons 2020 (controls).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .engine import tree
from .engine.derivatives import vjp_of_own as vjp
from .engine.tensor import Tensor, beside, constant, number, value_of
from .methods.increment import System


class Increments:
    """dx of a step with noise: the time h and the Brownian increment dW; it changes sign and scale as one."""
    __slots__ = ("dW", "h")

    def __init__(self, h: Any, dW: Any) -> None:
        self.h, self.dW = h, dW

    def __neg__(self) -> Increments:
        return Increments(-self.h, -self.dW)

    def __mul__(self, scale: Any) -> Increments:
        return Increments(self.h * scale, self.dW * scale)

    def __truediv__(self, scale: Any) -> Increments:
        return Increments(self.h / scale, self.dW / scale)

    __rmul__ = __mul__
    __array_ufunc__ = None           # np.float64(0.5) * dx is left to __rmul__


def matvec(a: Any, x: Any) -> Any:
    """(..., d, m) times (..., m)."""
    return (a @ x[..., None])[..., 0]


class NoisySystem(System):
    """A drift f and a diffusion g; a field value is the pair (f, g), which is shared as one."""

    def __init__(self, drift: System, diffusion: Callable, general: bool, ito: bool) -> None:
        super().__init__(drift.field, drift.stats, drift.pack, drift.unpack, drift.scalar)
        self.diffusion, self.general, self.ito = diffusion, general, ito
        self.euler_maruyama = False          # Euler's method for Ito's integral

    def g(self, t: Any, y: Any, params: Any) -> Any:
        """The diffusion at (t, y), for an array y."""
        t = self.time(t)
        if self.unpack is None:
            return self.diffusion(t, y, params)
        return self.pack(self.diffusion(t, self.unpack(y), params))

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        f, = super().coefficients(t, y, params)
        if not self.ito:
            return f, self.g(t, y, params)
        # Ito to Stratonovich for diagonal noise: f_i - g_i (dg_i/dy_i) / 2, the product with g being one vjp.
        g, pull = vjp(lambda y: self.g(t, y, params), y)
        return f - 0.5 * pull(g)[0], g

    def times(self, coefficients: tuple, dx: Any) -> Any:
        f, g = coefficients
        return f * dx.h + (matvec(g, dx.dW) if self.general else g * dx.dW)


class Noise:
    """The increments of a Brownian path, made again whenever they are needed."""

    def __init__(self, path: Any, shape: tuple[int, ...], dtype: Any, place: Callable) -> None:
        self.path, self.shape, self.dtype, self.place = path, shape, dtype, place       # place: from the host to where y is
        self.by_step = hasattr(path, "along")              # Brownian goes by steps, a BrownianTree by times
        self.reader: Any = None

    def given(self, n: int, t0: Any, t1: Any, h: Any, problem: Any) -> dict[str, Any]:
        """The increment of step n of this solve, which is step n_before + n of the path."""
        if self.by_step:
            self.reader = self.reader or self.path.along(problem.hs, self.shape, self.dtype, problem.n_before)
            return {"dW": self.place(self.reader(n))}
        self.reader = self.reader or self.path.walk(self.shape, self.dtype)
        return {"dW": self.place(self.reader.increments(t0, t1))}

    def join(self, h: Any, given: dict[str, Any]) -> Increments:
        """dx, of what is given for a step."""
        return Increments(h, given["dW"])


class ControlledSystem(System):
    """f(t, y, params) of shape y.shape + (channels,), times the increment of a piecewise linear path."""

    control: Any
    derivative: Any          # that of the control, if it has one

    @property
    def channels(self) -> int:
        return self.control.values.shape[-1]

    def fits(self, f: Any) -> bool:
        return f.shape[-1] == self.channels

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        self.stats.nfe += 1
        t = self.time(t)
        return (self.field(t, y, params),)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        return matvec(coefficients[0], dx)

    def rate(self, coefficients: tuple, t: Any) -> Any:
        return matvec(coefficients[0], self.derivative(t))


class SmoothlyControlledSystem(ControlledSystem):
    """f(t, y, params) X'(t), an ordinary vector field."""

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        f, = super().coefficients(t, y, params)
        return (matvec(f, constant(self.derivative, t)),)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        return coefficients[0] * dx

    def rate(self, coefficients: tuple, t: Any) -> Any:
        return coefficients[0]


class Path:
    """The increments of a piecewise linear control."""

    def __init__(self, control: Any, place: Callable) -> None:
        self.control, self.place = control, place

    def given(self, n: int, t0: Any, t1: Any, h: Any, problem: Any) -> dict[str, Any]:
        return {"dX": self.place(self.control.increment(t0, t1))}

    def join(self, h: Any, given: dict[str, Any]) -> Any:
        return given["dX"]


def noisy(system: System, diffusion: Callable, noise: Any, interpretation: str, method: Any, y: Any, times: tuple,
          params: Any) -> tuple[System, Noise]:
    """The system and the noise of an SDE, after every check that a few evaluations of g can make.

    times: two times of the solve at which g is looked at, the start and a later one.
    """
    if isinstance(noise, type) or not (hasattr(noise, "along") or hasattr(noise, "walk")):
        raise TypeError(f"solve: diffusion= was given with noise={noise!r}; pass noise=Brownian(seed), or "
                        "BrownianTree(seed, t0, t1) for adaptive steps")
    if not callable(diffusion):
        raise TypeError(f"solve: diffusion={diffusion!r}; it is a function g(t, y, params), as the drift is")
    if hasattr(method, "method"):
        raise TypeError(f"solve: {method!r} has no form for noise: one of its substeps goes backwards, and an increment of the "
                        "path cannot be split like that; use the method itself, uncomposed")
    if not getattr(method, "noise", False):
        raise TypeError(f"solve: {method!r} has no form for noise (its step relies on dy = f dt); use ReversibleHeun(), "
                        "Coupled over heun2 or midpoint, an EES method, or RungeKutta('heun2')")
    found = NoisySystem(system, diffusion, False, False)
    plain = tree.map(value_of, params)
    g, again = found.g(times[0], y, plain), found.g(times[0], y, plain)
    if type(g) is Tensor:
        raise TypeError("solve: the diffusion uses a tensor that it was not given (a variable from outside), so its gradient would "
                        "be lost; pass everything that is to be differentiated through params")
    if not hasattr(g, "shape") or (g.shape != y.shape and g.shape[:-1] != y.shape):
        raise ValueError(f"solve: the diffusion returned {getattr(g, 'shape', type(g).__name__)} for y of shape {y.shape}; "
                         f"diagonal noise has its shape, general noise {(*y.shape, 'm')}; nothing is broadcast")
    if g.dtype != y.dtype:
        raise TypeError(f"solve: the diffusion returned {g.dtype} for y of {y.dtype}; give params and constants y's dtype")
    if not bool(np.isfinite(g).all()) or not bool((g == again).all()):
        raise ValueError("solve: the diffusion at the start is not finite, or differs from call to call; it is a pure "
                         "function of (t, y, params)")
    found.general = g.shape != y.shape
    if found.general and system.unpack is not None:
        raise TypeError("solve: general noise needs y as one array, not as a tree; concatenate its leaves")
    looks = [dependence(found, t, y, plain) for t in times]
    system.stats.checks += 2 + len(looks)
    depends = any(look[0] for look in looks)
    euler = getattr(method, "order", 0) == 1
    found.euler_maruyama = euler and depends and type(method).__name__ == "RungeKutta" and interpretation == "ito"
    if euler and depends and not found.euler_maruyama:
        raise ValueError(f"solve: with noise that depends on y, {method!r} does not converge to the {interpretation} solution; "
                         "use a base of order two or more (heun2, midpoint), or RungeKutta('euler') with interpretation='ito'")
    if interpretation == "ito" and depends and not found.euler_maruyama:
        if found.general:
            raise ValueError("solve: the Ito correction is offered for diagonal noise; for general noise the methods here are "
                             "Stratonovich, so subtract (1/2) sum_jk g_jk dg_ik/dy_j from the drift yourself")
        if any(look[1] for look in looks):
            raise ValueError("solve: interpretation='ito' needs g_i to depend on y_i alone (then the correction is one vjp), but "
                             "here one entry of g depends on another of y; subtract (1/2) g_i dg_i/dy_i from the drift yourself")
    # The correction of noise that does not depend on y is zero; it is kept, in case that two looks were not enough.
    found.ito = interpretation == "ito" and not found.general and not (euler and type(method).__name__ == "RungeKutta")
    shape = (*y.shape[:-1], g.shape[-1]) if found.general else y.shape
    return found, Noise(noise, shape, y.dtype, beside(y))


def dependence(system: NoisySystem, t: Any, y: Any, params: Any) -> tuple[bool, bool]:
    """Whether g depends on y, and whether some g_i depends on another entry than y_i: two vjps at an irregular point near y.

    If g_i depends on y_i alone, the pullback of s is s_i dg_i/dy_i, which is s times the pullback of ones.
    """
    place = beside(y)
    steps = place(np.reshape(np.arange(y.size) * 0.6180339887498949 % 1, y.shape).astype(y.dtype))
    g, pull = vjp(lambda y: system.g(t, y, params), y + 0.01 * (1 + abs(y)) * (1 + steps))
    s = place(np.reshape(1 + np.arange(g.size) * 0.7548776662466927 % 1, g.shape).astype(g.dtype))
    of_s, of_ones = pull(s)[0], pull(np.ones_like(g))[0]
    if g.shape != y.shape:
        return bool(np.any(of_s)), True
    # s times the pullback of ones agrees up to rounding; sqrt(eps) is far above that, and far below a real cross term
    allowed = float(np.finfo(g.dtype).eps) ** 0.5 * (1e-30 + number(abs(of_s).max()))
    return bool(np.any(of_s)), bool((abs(of_s - s * of_ones) > allowed).any())


def controlled(system: System, control: Any, method: Any, y: Any, ts: Any,
               fixed: bool) -> tuple[System, Path | None, list[float]]:
    """The system of a controlled equation, its increments (None where the control is smooth: dx is h), and its knots."""
    if isinstance(control, type) or not hasattr(control, "increment"):
        raise TypeError(f"solve: control={control!r}; pass LinearPath, Rectilinear or HermiteCubic(times, values)")
    if system.unpack is not None or len(method.outputs) > 1:
        raise TypeError("solve: a controlled equation needs y as one array, and a method without split state")
    smooth = getattr(control, "smooth", False)
    if not smooth and not getattr(method, "noise", False):
        raise TypeError(f"solve: {method!r} relies on dy = f dt, so it cannot follow the increments of a piecewise linear "
                        "control; use HermiteCubic, or ReversibleHeun(), Coupled or an EES method")
    batch = control.values.shape[:-2]
    if batch not in ((), y.shape[:-1]):
        raise ValueError(f"solve: the control is a batch {batch} of series for y of shape {y.shape}; its batch is that of y, "
                         f"{y.shape[:-1]}, or one series serves all")
    if control.values.dtype != y.dtype:
        raise TypeError(f"solve: the control has values of {control.values.dtype} but y0 is {y.dtype}; give both one dtype")
    inside = [float(t) for t in control.times if min(ts[0], ts[-1]) < t < max(ts[0], ts[-1])]
    if type(control).__name__ == "Rectilinear" and fixed and not set(inside) <= {float(t) for t in ts}:
        raise ValueError("solve: the grid steps over knots of a Rectilinear control, whose corners it would cut off; put all of "
                         "control.times into ts")
    kind = SmoothlyControlledSystem if smooth else ControlledSystem
    found = kind(system.field, system.stats, scalar=system.scalar)
    place = beside(y)
    found.control, found.derivative = control, getattr(control, "derivative", None)
    if not isinstance(y, (np.ndarray, np.generic)):
        found.derivative = lambda t: place(control.derivative(t))
    return found, None if smooth else Path(control, place), inside

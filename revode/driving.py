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
from .engine.derivatives import vjp
from .engine.tensor import value_of
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

    __rmul__ = __mul__


def matvec(a: Any, x: Any) -> Any:
    """(..., d, m) times (..., m)."""
    return (a @ x[..., None])[..., 0]


class NoisySystem(System):
    """A drift f and a diffusion g; a field value is the pair (f, g), which is shared as one."""

    def __init__(self, drift: System, diffusion: Callable, general: bool, ito: bool) -> None:
        super().__init__(drift.field, drift.stats, drift.pack, drift.unpack, drift.scalar)
        self.diffusion, self.general, self.ito = diffusion, general, ito

    def g(self, t: Any, y: Any, params: Any) -> Any:
        """The diffusion at (t, y), for an array y."""
        t = t if self.scalar is None else self.scalar(t)
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

    def __init__(self, path: Any, shape: tuple[int, ...], dtype: Any) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self.by_step = hasattr(path, "along")              # Brownian goes by steps, a BrownianTree by times
        self.along: Any = None

    def dx(self, n: int, t0: Any, t1: Any, h: Any, problem: Any) -> Increments:
        """The increment of step n of this solve, which is step n_before + n of the path."""
        if not self.by_step:
            return Increments(h, self.path.increments(t0, t1, self.shape, self.dtype))
        if self.along is None:
            self.along = self.path.along(problem.hs, self.shape, self.dtype, problem.n_before)
        return Increments(h, self.along(n))


class ControlledSystem(System):
    """f(t, y, params) of shape y.shape + (channels,), times the increment of a piecewise linear path."""

    control: Any

    @property
    def channels(self) -> int:
        return self.control.values.shape[-1]

    def fits(self, f: Any) -> bool:
        return f.shape[-1] == self.channels

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        self.stats.nfe += 1
        t = t if self.scalar is None else self.scalar(t)
        return (self.field(t, y, params),)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        return matvec(coefficients[0], dx)


class SmoothlyControlledSystem(ControlledSystem):
    """f(t, y, params) X'(t), an ordinary vector field."""

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        f, = super().coefficients(t, y, params)
        return (matvec(f, self.control.derivative(t)),)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        return coefficients[0] * dx


class Path:
    """The increments of a piecewise linear control."""

    def __init__(self, control: Any) -> None:
        self.control = control

    def dx(self, n: int, t0: Any, t1: Any, h: Any, problem: Any) -> Any:
        return self.control.increment(t0, t1)


def noisy(system: System, diffusion: Callable, noise: Any, interpretation: str, method: Any, y: Any, t: Any,
          params: Any) -> tuple[System, Noise]:
    """The system and the noise of an SDE, after every check that one or three evaluations of g at the start can make."""
    if noise is None or not hasattr(noise, "increments"):
        raise TypeError(f"solve: diffusion= was given with noise={noise!r}; pass noise=Brownian(seed), or "
                        "BrownianTree(seed, t0, t1) for adaptive steps")
    if not getattr(method, "noise", False):
        raise TypeError(f"solve: {method!r} has no form for noise (its step relies on dy = f dt); use ReversibleHeun(), "
                        "Coupled over heun2 or midpoint, an EES method, or RungeKutta('heun2')")
    if interpretation not in ("stratonovich", "ito"):
        raise ValueError(f"solve: interpretation={interpretation!r}; it is 'stratonovich' or 'ito'")
    found = NoisySystem(system, diffusion, False, False)
    plain = tree.map(value_of, params)
    g, again = found.g(t, y, plain), found.g(t, y, plain)
    system.stats.checks += 2
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
    euler = getattr(method, "order", 0) == 1
    itos_own = euler and type(method).__name__ == "RungeKutta"        # Euler-Maruyama converges to Ito's integral
    nudged = np.copy(y)
    nudged[..., ::2] += 1e-3 * (1 + abs(nudged[..., ::2]))
    moved = found.g(t, nudged, plain)
    system.stats.checks += 1
    additive = bool((moved == g).all())
    if euler and not additive and not (itos_own and interpretation == "ito"):
        raise ValueError(f"solve: with noise that depends on y, {method!r} does not converge to the {interpretation} solution; "
                         "use a base of order two or more (heun2, midpoint), or RungeKutta('euler') with interpretation='ito'")
    if interpretation == "ito" and not itos_own and not additive:
        if found.general:
            raise ValueError("solve: the Ito correction is offered for diagonal noise; for general noise the methods here are "
                             "Stratonovich, so subtract (1/2) sum_jk g_jk dg_ik/dy_j from the drift yourself")
        if y.ndim and y.shape[-1] > 1 and not bool((moved[..., 1::2] == g[..., 1::2]).all()):
            raise ValueError("solve: interpretation='ito' needs g_i to depend on y_i alone (then the correction is one vjp), but "
                             "here one entry of g depends on another of y; subtract (1/2) g_i dg_i/dy_i from the drift yourself")
        found.ito = True
    shape = (*y.shape[:-1], g.shape[-1]) if found.general else y.shape
    return found, Noise(noise, shape, y.dtype)


def controlled(system: System, control: Any, method: Any, y: Any) -> tuple[System, Path | None]:
    """The system of a controlled equation, and its increments (None where the control is smooth: dx is h)."""
    if not hasattr(control, "increment"):
        raise TypeError(f"solve: control={control!r}; pass LinearPath, Rectilinear or HermiteCubic(times, values)")
    if system.unpack is not None or len(method.outputs) > 1:
        raise TypeError("solve: a controlled equation needs y as one array, and a method without split state")
    smooth = getattr(control, "smooth", False)
    if not smooth and not getattr(method, "noise", False):
        raise TypeError(f"solve: {method!r} relies on dy = f dt, so it cannot follow the increments of a piecewise linear "
                        "control; use HermiteCubic, or ReversibleHeun(), Coupled or an EES method")
    kind = SmoothlyControlledSystem if smooth else ControlledSystem
    found = kind(system.field, system.stats, scalar=system.scalar)
    found.control = control
    return found, None if smooth else Path(control)

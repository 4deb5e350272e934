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

from .engine.derivatives import vjp_of_own as vjp
from .engine.tensor import constant
from .methods.increment import Driver, System


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
    noisy = True

    def __init__(self, drift: System, diffusion: Callable, general: bool, ito: bool) -> None:
        super().__init__(drift.field, drift.stats, drift.pack, drift.unpack, drift.scalar, drift.refuse)
        self.diffusion, self.general, self.ito = diffusion, general, ito
        self.tail: tuple[int, ...] = ()      # the axis of general noise

    @property
    def signature(self) -> tuple:
        return type(self), self.general

    def g(self, t: Any, y: Any, params: Any) -> Any:
        """The diffusion at (t, y), for an array y."""
        return self.value(self.diffusion, t, y, params, self.tail, "diffusion")

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


class Noise(Driver):
    """The increments of a Brownian path, made again whenever they are needed."""

    def __init__(self, path: Any, shape: tuple[int, ...], dtype: Any, place: Callable) -> None:
        self.path, self.shape, self.dtype, self.place = path, shape, dtype, place       # place: from the host to where y is
        self.by_step = hasattr(path, "along")              # Brownian goes by steps, a BrownianTree by times
        self.reader: Any = None
        self.grid: Any = None                              # the same for a grid that is known

    def given(self, n: int, t0: Any, t1: Any, h: Any, problem: Any) -> dict[str, Any]:
        """The increment of step n of this solve, which is step n_before + n of the path."""
        if self.by_step:
            self.reader = self.reader or self.path.along(problem.hs, self.shape, self.dtype, problem.n_before)
            return {"dW": self.place(self.reader(n))}
        if hasattr(self.path, "over") and (problem.adaptive is None or problem.adaptive.arrived(problem)):
            self.grid = self.grid or self.path.over(problem.ts, self.shape, self.dtype)
            return {"dW": self.place(self.grid(n))}
        self.reader = self.reader or self.path.walk(self.shape, self.dtype)
        return {"dW": self.place(self.reader.increments(t0, t1))}

    def join(self, h: Any, given: dict[str, Any]) -> Increments:
        """dx, of what is given for a step."""
        return Increments(h, given["dW"])


class ControlledSystem(System):
    """f(t, y, params) of shape y.shape + (channels,), times the increment of a piecewise linear path."""

    @property
    def channels(self) -> int:
        return self.control.values.shape[-1]

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        self.stats.nfe += 1
        return (self.value(self.field, t, y, params, (self.channels,)),)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        return matvec(coefficients[0], dx)

    def rate(self, coefficients: tuple, t: Any) -> Any:
        return matvec(coefficients[0], self.derivative(t))


class SmoothlyControlledSystem(ControlledSystem):
    """f(t, y, params) X'(t), an ordinary vector field."""
    smooth = True

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        f, = super().coefficients(t, y, params)
        return (matvec(f, constant(self.derivative, t)),)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        return coefficients[0] * dx

    def rate(self, coefficients: tuple, t: Any) -> Any:
        return coefficients[0]


class ControlPath(Driver):
    """The increments of a piecewise linear control."""

    def __init__(self, control: Any, place: Callable) -> None:
        self.control, self.place = control, place

    def given(self, n: int, t0: Any, t1: Any, h: Any, problem: Any) -> dict[str, Any]:
        return {"dX": self.place(self.control.increment(t0, t1))}

    def join(self, h: Any, given: dict[str, Any]) -> Any:
        return given["dX"]

"""Every method as a loop over what drives each step, in whatever numbers it is given; gradients by the complex step.

    F(t, y) = f h + g dW        what one step adds with its field frozen at (t, y); of a CDE g dX. Negated: a step back in time.
The steps of Coupled, reversible Heun, EES and Runge-Kutta are those of reference/oracles; nothing here imports revode's engine or
methods, but to name the method that is tested.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from reference.oracles import ees, loops, sde
from reference.oracles.tableaux import TABLEAUX, numbers

EXACT = {name: numbers(tableau, float) for name, tableau in TABLEAUX.items()}
EPS = 1e-25          # of the complex step: no subtraction, so that it may be as small as one likes


class Drive(NamedTuple):
    """One step: the drift f(t, y), the noise or control g(t, y), and what they are multiplied with."""
    f: Callable | None
    g: Callable | None
    h: Any
    dW: Any = None
    general: bool = False

    def F(self, t: Any, y: Any) -> Any:
        total = 0 * y if self.f is None else self.f(t, y) * self.h
        if self.g is None:
            return total
        return total + (np.sum(self.g(t, y) * self.dW[..., None, :], axis=-1) if self.general else self.g(t, y) * self.dW)

    def times(self, a: float) -> Drive:
        return self._replace(h=a * self.h, dW=None if self.dW is None else a * self.dW)


class Literal(NamedTuple):
    """A method of revode, and its loop: start(f, ts, y0) -> state, step(drive, t, t1, state) -> state.

    state: a tuple of parts named `parts`; those beyond the names belong to the loop alone.
    """
    method: Any
    parts: tuple[str, ...]
    start: Callable
    step: Callable
    split: bool = False
    near: bool = False           # its reverse sweep is not exact
    reversible: bool = True

    def path(self, drives: list[Drive], ts: Any, y0: Any) -> list[tuple]:
        state = self.start(drives[0], ts, y0)
        states = [state]
        for n, drive in enumerate(drives):
            state = self.step(drive, ts[n], ts[n + 1], state)
            states.append(state)
        return states


def alone(drive: Drive, ts: Any, y0: Any) -> tuple:
    return (y0,)


def twice(drive: Drive, ts: Any, y0: Any) -> tuple:
    return y0, y0


def of_field(step: Callable, *extra: Any) -> Callable:
    """A step of reference/oracles/loops.py, which takes a field of (t, y, params)."""
    return lambda drive, t, t1, state: step(lambda s, y, p: drive.f(s, y), None, *extra, t, t1, drive.h, state)


def runge_kutta(base: str) -> Callable:
    return lambda drive, t, t1, s: (s[0] + sde.Psi(drive.F, t, t1, s[0], EXACT[base]),)


def coupled(base: str, lam: float) -> Callable:
    def step(drive: Drive, t: Any, t1: Any, state: tuple) -> tuple:
        y, z = state
        y = lam * y + (1 - lam) * z + sde.Psi(drive.F, t, t1, z, EXACT[base])
        return y, z - sde.Psi(drive.times(-1).F, t1, t, y, EXACT[base])
    return step


def heun(drive: Drive, t: Any, t1: Any, state: tuple) -> tuple:
    return sde.reversible_heun_step(drive.F, None, t, t1, state)


def leapfrog_start(drive: Drive, ts: Any, y0: Any) -> tuple:
    return y0, y0 - drive.F(ts[0], y0), drive.h


def leapfrog(drive: Drive, t: Any, t1: Any, state: tuple) -> tuple:
    y, before, h = state
    return before + (h + drive.h) * drive.f(t, y), y, drive.h


def revnet(drive: Drive, t: Any, t1: Any, state: tuple) -> tuple:
    y, z = state
    y = y + drive.F(t, z)
    return y, z + drive.F(t1, y)


REVNET = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h)),
                                      rv.Shear("z", ("y",), lambda F, y: F(t1, y, h))])


def low_storage(scheme: Any) -> Callable:
    A, B = ([float(x) for x in row] for row in scheme)
    times = ees.stage_times(ees.LowStorage(tuple(A), tuple(B)))

    def step(drive: Drive, t: Any, t1: Any, state: tuple) -> tuple:
        y, = state
        d = 0 * y
        for a, b, c in zip(A, B, times, strict=True):
            d = a * d + drive.F(t + c * (t1 - t), y)
            y = y + b * d
        return (y,)
    return step


def composed(step: Callable, order: int) -> Callable:
    """Triple jumps from order 2 to `order`."""
    for p in range(2, order, 2):
        step = jumped(step, 1 / (2 - 2 ** (1 / (p + 1))))
    return step


def jumped(step: Callable, g: float) -> Callable:
    def three(drive: Drive, t: Any, t1: Any, state: tuple) -> tuple:
        at = [t, t + g * (t1 - t), t + (1 - g) * (t1 - t), t1]
        for a, u, u1 in zip((g, 1 - 2 * g, g), at, at[1:], strict=False):
            state = step(drive.times(a), u, u1, state)
        return state
    return three


def alf_start(drive: Drive, ts: Any, y0: Any) -> tuple:
    return y0, drive.f(ts[0], y0)


def both(drive: Drive, ts: Any, y0: Any) -> tuple:
    return y0


def random_ees(rng: np.random.Generator, which: int, estimates: bool) -> Literal:
    correct = int(rng.choice([0, 0, 1]))
    if which == 0 or estimates:
        x = 0.1 if estimates else float(rng.choice([0.1, 0.25, 0.4]))
        return Literal(rv.EES25(x=x, correct=correct), ("y",), alone,
                       lambda drive, t, t1, s: (s[0] + sde.Psi(drive.F, t, t1, s[0], ees.ees25_butcher(x)),), near=True)
    if which == 1:
        scheme = ees.LowStorage(*(tuple(c.number(float, np.sqrt) for c in row) for row in ees.LOW_STORAGE_27))
        return Literal(rv.EES27(correct=correct), ("y",), alone, low_storage(scheme), near=True)
    s = int(rng.integers(3, 8))
    return Literal(rv.EES(stages=s, correct=correct), ("y",), alone, low_storage(ees.trigonometric(s)), near=True)


def random_composition(rng: np.random.Generator) -> Literal:
    verlet = of_field(loops.velocity_verlet_step)
    which, order = int(rng.integers(3)), 4
    if which == 0:
        return Literal(rv.Composition(rv.AsynchronousLeapfrog(), 4), ("y", "v"), alf_start, composed(of_field(loops.alf_step, 1.0), 4))
    if which == 1:
        return Literal(rv.Composition(rv.ReversibleHeun(), 4), ("y", "z"), twice, composed(heun, 4))
    order = int(rng.choice([4, 6]))
    return Literal(rv.Composition(rv.VelocityVerlet(), order), ("q", "v"), both, composed(verlet, order), split=True)


SOLVES = ("coupled", "coupled", "coupled", "heun", "alf", "leapfrog", "split", "composition", "ees", "ees", "near", "plain", "revnet")
DRIVEN = ("coupled", "coupled", "heun", "ees", "ees", "near", "plain", "revnet")           # noise or a control
STEERED = ("coupled", "coupled", "heun", "ees", "near", "plain")                           # an error estimate
BASES = {"ode": ("euler", "midpoint", "heun2", "ralston3", "bosh3", "rk4", "dopri5", "tsit5"), "sde": ("midpoint", "heun2", "rk4"),
         "cde": ("midpoint", "heun2", "rk4"), "adaptive": ("midpoint", "heun2", "bosh3", "dopri5", "tsit5")}


def random_literal(rng: np.random.Generator, kind: str) -> Literal:
    """A method that can do this kind of solve: ode, sde, cde or adaptive."""
    of = str(rng.choice({"ode": SOLVES, "adaptive": STEERED}.get(kind, DRIVEN)))
    base = str(rng.choice(BASES[kind]))
    if of == "coupled":
        lam = float(rng.choice([1.0, 0.999, 0.99, 0.9, 0.7]))
        return Literal(rv.Coupled(base, lam=lam), ("y", "z"), twice, coupled(base, lam))
    if of == "heun":
        return Literal(rv.ReversibleHeun(), ("y", "z"), twice, heun)
    if of == "alf":
        eta = float(rng.choice([1.0, 0.9, 0.7]))
        return Literal(rv.AsynchronousLeapfrog(eta=eta), ("y", "v"), alf_start, of_field(loops.alf_step, eta))
    if of == "leapfrog":
        return Literal(rv.LeapfrogMidpoint(), ("y", "y_prev"), leapfrog_start, leapfrog)
    if of == "split":
        verlet = rng.random() < 0.5
        step = loops.velocity_verlet_step if verlet else loops.semi_implicit_euler_step
        return Literal(rv.VelocityVerlet() if verlet else rv.SemiImplicitEuler(), ("q", "v"), both, of_field(step), split=True)
    if of == "composition":
        return random_composition(rng)
    if of == "revnet":
        return Literal(REVNET, ("y", "z"), twice, revnet)
    if of == "ees":
        return random_ees(rng, int(rng.integers(4)), kind == "adaptive")
    near = of == "near"
    method = rv.NearReversible(base) if near else rv.RungeKutta(base)
    return Literal(method, ("y",), alone, runge_kutta(base), near=near, reversible=near)


# ----------------------------------------------------------------------------------------------------------------- gradients

def differentiable(x: Any) -> bool:
    return isinstance(x, (float, np.floating)) or (isinstance(x, np.ndarray) and x.dtype.kind == "f")


def float_leaves(tree: Any) -> list:
    return [x for x in rv.tree.flatten(tree)[0] if differentiable(x)]


def moved(tree: Any, direction: list) -> Any:
    """The tree with i EPS direction added to its float leaves."""
    leaves, structure = rv.tree.flatten(tree)
    along = iter(direction)
    return rv.tree.unflatten(structure, [np.asarray(x, complex) + 1j * EPS * next(along) if differentiable(x) else x for x in leaves])


class Slope(NamedTuple):
    """A direction, the loss, and its derivative in that direction."""
    direction: list
    loss: float
    slope: float


def slopes(loss: Callable, theta: Any, rng: np.random.Generator, directions: int = 3) -> list[Slope]:
    """Directional derivatives of loss(theta), a literal one in complex numbers."""
    found = []
    for _ in range(directions):
        direction = [rng.normal(size=np.shape(x)) for x in float_leaves(theta)]
        at = complex(loss(moved(theta, direction)))
        found.append(Slope(direction, at.real, at.imag / EPS))
    return found


def distances(value: Any, grads: Any, known: list[Slope]) -> tuple[float, float]:
    """How far a loss and a gradient are from what is known, relative to 1 + |loss| and to the gradient's norm.

    A random direction sees a share of about |d| / sqrt(n) of an error, so that is the unit.
    """
    leaves = [np.asarray(g, float) for g in rv.tree.flatten(grads)[0] if g is not None]
    size = max(np.sqrt(sum(np.sum(g * g) for g in leaves)), 1e-3)
    off_value = off_slope = 0.0
    for direction, loss, slope in known:
        found = sum(float(np.sum(g * d)) for g, d in zip(leaves, direction, strict=True))
        unit = np.sqrt(sum(np.sum(d * d) for d in direction) / sum(d.size for d in direction))
        off_value = worse(off_value, abs(float(value) - loss) / (1 + abs(loss)))
        off_slope = worse(off_slope, abs(found - slope) / (size * unit))
    return off_value, off_slope


def worse(a: float, b: float) -> float:
    """The larger one; what is not finite is largest."""
    return max(a, b) if np.isfinite(b) else np.inf

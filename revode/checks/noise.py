"""The diffusion and the noise of an SDE, and whether the method converges to the integral that was asked for."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..driving import Noise, NoisySystem
from ..engine import tree
from ..engine.derivatives import vjp_of_own as vjp
from ..engine.tensor import beside, number
from ..methods.increment import System
from ..problem import Asked
from .arguments import check_arguments
from .fields import check_pure
from .leaves import read_only


def noisy(system: System, asked: Asked, method: Any, y: Any, times: tuple, params: Any) -> tuple[System, Noise]:
    """The system and the noise of an SDE, after every check that a few evaluations of g can make.

    times: two times of the solve at which g is looked at, the start and a later one.
    """
    found = NoisySystem(system, check_noise(asked, method), False, False)
    g = check_diffusion(found, times[0], y, params)
    looks = [dependence(found, t, y, params) for t in times]
    system.stats.checks += 2 + len(looks)
    depends, ito = any(look[0] for look in looks), asked.interpretation == "ito"
    euler = method.order == 1
    plain = euler and type(method).__name__ == "RungeKutta"
    found.euler_maruyama = plain and depends and ito
    if depends and not found.euler_maruyama:
        check_interpretation(asked.interpretation, method, euler, found.general, any(look[1] for look in looks))
    # The correction of noise that does not depend on y is zero; it is kept, in case that two looks were not enough.
    found.ito = ito and not found.general and not plain
    shape = (*y.shape[:-1], g.shape[-1]) if found.general else y.shape
    return found, Noise(asked.noise, shape, y.dtype, beside(y))


def check_noise(asked: Asked, method: Any) -> Callable:
    """The diffusion, if there is one, a path, and a method that has a form for them."""
    if isinstance(asked.noise, type) or not (hasattr(asked.noise, "along") or hasattr(asked.noise, "walk")):
        raise TypeError(f"solve: diffusion= was given with noise={asked.noise!r}; pass noise=Brownian(seed), or "
                        "BrownianTree(seed, t0, t1) for adaptive steps")
    if not callable(asked.diffusion):
        raise TypeError(f"solve: diffusion={asked.diffusion!r}; it is a function g(t, y, params), as the drift is")
    check_arguments(asked.diffusion, "diffusion")
    if method.composed is not method.inner:
        raise TypeError(f"solve: {method!r} has no form for noise: one of its substeps goes backwards, and an increment of the "
                        "path cannot be split like that; use the method itself, uncomposed")
    if not method.noise:
        raise TypeError(f"solve: {method!r} has no form for noise (its step relies on dy = f dt); use ReversibleHeun(), "
                        "Coupled over heun2 or midpoint, an EES method, or RungeKutta('heun2')")
    return asked.diffusion


def check_diffusion(system: NoisySystem, t: Any, y: Any, params: Any) -> Any:
    """g at the start; the shape that it has there, diagonal or general, is that of all later times."""
    params = tree.map(read_only, params)
    opened = system.unpack is not None
    again = system.diffusion(system.time(t), system.unpack(y) if opened else y, params)
    again = system.pack(again, t) if opened else again
    shape = getattr(again, "shape", y.shape)
    if shape != y.shape:
        if shape[:-1] != y.shape:
            raise ValueError(f"solve: the diffusion returned {shape} for y of shape {y.shape} at t={t:.6g}; diagonal noise has its "
                             f"shape, general noise {(*y.shape, 'm')}; nothing is broadcast")
        system.tail, system.general = shape[-1:], True
    g = system.g(t, y, params)
    check_pure("diffusion", g, again, t)
    return g


def check_interpretation(interpretation: str, method: Any, euler: bool, general: bool, mixes: bool) -> None:
    """Whether the method converges to the integral that was asked for, with noise that depends on y."""
    if euler:
        raise ValueError(f"solve: with noise that depends on y, {method!r} does not converge to the {interpretation} solution; "
                         "use a base of order two or more (heun2, midpoint), or RungeKutta('euler') with interpretation='ito'")
    if interpretation == "ito" and general:
        raise ValueError("solve: the Ito correction is offered for diagonal noise; for general noise the methods here are "
                         "Stratonovich, so subtract (1/2) sum_jk g_jk dg_ik/dy_j from the drift yourself")
    if interpretation == "ito" and mixes:
        raise ValueError("solve: interpretation='ito' needs g_i to depend on y_i alone (then the correction is one vjp), but "
                         "here one entry of g depends on another of y; subtract (1/2) g_i dg_i/dy_i from the drift yourself")


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

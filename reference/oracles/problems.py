"""Small test problems, each vector field written once and usable with every kind of number.

A problem is `Problem(name, field, y0, params, t_span, solution)`:

    field(xp)             -> f(t, y, params), with xp one of numpy, autograd.numpy or `mp_numpy()`
    params                a dict of arrays (shape () for a single number)
    solution(xp)          -> exact y(t, y0, params) through y0 at t_span[0], or None where none is known

Split problems, q' = v and v' = a(t, q, params): `SplitProblem(name, acceleration, q0, v0, params, t_span,
solution)`, with solution(xp)(t, q0, v0, params) -> (q, v).
Features are the last axis of y, so any of them may be batched.
"""
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np


class Problem(NamedTuple):
    name: str
    field: Callable
    y0: Any
    params: dict
    t_span: tuple
    solution: Callable | None = None


class SplitProblem(NamedTuple):
    name: str
    acceleration: Callable
    q0: Any
    v0: Any
    params: dict
    t_span: tuple
    solution: Callable | None = None


def mp_numpy() -> SimpleNamespace:
    """The few functions the fields need, on object arrays of mpf."""
    import mpmath

    def elementwise(fn):
        def apply(x):
            return np.frompyfunc(fn, 1, 1)(x)
        return apply
    functions = {name: elementwise(getattr(mpmath, name)) for name in ("sin", "cos", "exp", "tanh")}
    return SimpleNamespace(**functions, stack=np.stack, sum=np.sum)


def mlp(seed: int = 0, d: int = 2, width: int = 3, dtype: Any = np.float64) -> Problem:
    """f = tanh(y W1 + b1) W2 + b2 with random weights; y (d,), W1 (d, width), W2 (width, d)."""
    rng = np.random.default_rng(seed)
    params = {"W1": rng.normal(size=(d, width)) / np.sqrt(d), "b1": 0.1 * rng.normal(size=width),
              "W2": rng.normal(size=(width, d)) / np.sqrt(width), "b2": 0.1 * rng.normal(size=d)}
    y0 = rng.normal(size=d)

    def field(xp):
        return lambda t, y, p: xp.tanh(y @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]
    return Problem(f"mlp-{d}-{width}-{d}", field, y0.astype(dtype),
                   {name: w.astype(dtype) for name, w in params.items()}, (0.0, 1.0))


def mlp_vjp(xp: Any, params: dict) -> Callable:
    """vjp(t, y, a) -> (a_y, a_params) of the mlp field at `params`, by hand; y may carry batch axes."""
    def vjp(t, y, a):
        u = xp.tanh(y @ params["W1"] + params["b1"])         # (..., width)
        s = (a @ params["W2"].T) * (1 - u * u)               # cotangent before tanh
        a_y = s @ params["W1"].T
        y, u, a, s = (x.reshape(-1, x.shape[-1]) for x in (y, u, a, s))
        return a_y, {"W1": y.T @ s, "b1": s.sum(axis=0), "W2": u.T @ a, "b2": a.sum(axis=0)}
    return vjp


def linear_decay() -> Problem:
    """y' = -k y, exact y0 exp(-k t)."""
    def field(xp):
        return lambda t, y, p: -p["k"] * y

    def solution(xp):
        return lambda t, y0, p: y0 * xp.exp(-p["k"] * t)
    return Problem("linear_decay", field, np.array([1.0, -0.5]),
                   {"k": np.array([0.7, 0.3])}, (0.0, 2.0), solution)


def pendulum() -> Problem:
    """theta'' = -w2 sin theta - damping theta', y = (theta, theta')."""
    def field(xp):
        return lambda t, y, p: xp.stack(
            [y[..., 1], -p["w2"] * xp.sin(y[..., 0]) - p["damping"] * y[..., 1]], axis=-1)
    return Problem("pendulum", field, np.array([1.0, 0.3]),
                   {"w2": np.array(2.0), "damping": np.array(0.05)}, (0.0, 2.0))


def lorenz() -> Problem:
    """Lorenz 1963 at the classical parameters; divergence -(sigma + 1 + beta) = -13.67, chaotic."""
    def field(xp):
        return lambda t, y, p: xp.stack(
            [p["sigma"] * (y[..., 1] - y[..., 0]),
             y[..., 0] * (p["rho"] - y[..., 2]) - y[..., 1],
             y[..., 0] * y[..., 1] - p["beta"] * y[..., 2]], axis=-1)
    return Problem("lorenz", field, np.array([1.0, 2.0, 20.0]),
                   {"sigma": np.array(10.0), "rho": np.array(28.0), "beta": np.array(8.0 / 3.0)}, (0.0, 0.2))


def van_der_pol() -> Problem:
    """x'' = mu (1 - x^2) x' - x, y = (x, x')."""
    def field(xp):
        return lambda t, y, p: xp.stack(
            [y[..., 1], p["mu"] * (1 - y[..., 0] * y[..., 0]) * y[..., 1] - y[..., 0]], axis=-1)
    return Problem("van_der_pol", field, np.array([2.0, 0.0]), {"mu": np.array(1.5)}, (0.0, 2.0))


def white_dwarf() -> Problem:
    """x' = v, v' = -2 v / (t + t_shift) - (x^2 - C)^(3/2) (Chandrasekhar); valid while x^2 > C."""
    def field(xp):
        return lambda t, y, p: xp.stack(
            [y[..., 1],
             -2 * y[..., 1] / (t + p["t_shift"]) - (y[..., 0] * y[..., 0] - p["C"]) ** 1.5], axis=-1)
    return Problem("white_dwarf", field, np.array([1.0, 0.0]),
                   {"C": np.array(0.001), "t_shift": np.array(0.5)}, (0.0, 2.0))


def swinging_riccati() -> Problem:
    """y' = -a y^2 cos(w t): nonlinear, and wrong times show. 1/y(t) = 1/y(t0) + a (sin(w t) - sin(w t0)) /
    w."""
    t0, t1 = 0.3, 1.8

    def field(xp):
        return lambda t, y, p: -p["a"] * y * y * xp.cos(p["w"] * t)

    def solution(xp):
        return lambda t, y0, p: 1 / (1 / y0 + p["a"] * (xp.sin(p["w"] * t) - xp.sin(p["w"] * t0)) / p["w"])
    return Problem("swinging_riccati", field, np.array([1.0, 0.6]),
                   {"a": np.array(0.8), "w": np.array(2.0)}, (t0, t1), solution)


def swinging_riccati_vjp(xp: Any, params: dict) -> Callable:
    """vjp(t, y, a) -> (a_y, a_params) of the field above at `params`, by hand; y (d,)."""
    k, w = params["a"], params["w"]

    def vjp(t, y, a):
        cos, sin = xp.cos(w * t), xp.sin(w * t)
        return -2 * k * y * cos * a, {"a": -cos * (y * y * a).sum(), "w": k * t * sin * (y * y * a).sum()}
    return vjp


def henon_heiles() -> SplitProblem:
    """a = (-q1 - 2 mu q1 q2, -q2 - mu (q1^2 - q2^2)), energy |v|^2/2 + |q|^2/2 + mu (q1^2 q2 - q2^3/3)."""
    def acceleration(xp):
        return lambda t, q, p: xp.stack(
            [-q[..., 0] - 2 * p["mu"] * q[..., 0] * q[..., 1],
             -q[..., 1] - p["mu"] * (q[..., 0] * q[..., 0] - q[..., 1] * q[..., 1])], axis=-1)
    return SplitProblem("henon_heiles", acceleration, np.array([0.1, -0.2]), np.array([0.3, 0.15]),
                        {"mu": np.array(1.0)}, (0.0, 3.0))


def henon_heiles_energy(q: Any, v: Any, params: dict) -> Any:
    q1, q2 = q[..., 0], q[..., 1]
    kinetic = (v[..., 0] * v[..., 0] + v[..., 1] * v[..., 1]) / 2
    return kinetic + (q1 * q1 + q2 * q2) / 2 + params["mu"] * (q1 * q1 * q2 - q2 * q2 * q2 / 3)


def driven_oscillator() -> SplitProblem:
    """a = -w2 q + F cos(s t): time-dependent, exact q = A cos(wt) + B sin(wt) + F cos(s t)/(w2 - s^2), from t
    = 0."""
    def acceleration(xp):
        return lambda t, q, p: -p["w2"] * q + p["F"] * xp.cos(p["s"] * t)

    def solution(xp):
        def at(t, q0, v0, p):
            w = p["w2"] ** 0.5
            forced = p["F"] / (p["w2"] - p["s"] * p["s"])
            q = (q0 - forced) * xp.cos(w * t) + v0 / w * xp.sin(w * t) + forced * xp.cos(p["s"] * t)
            v = (forced - q0) * w * xp.sin(w * t) + v0 * xp.cos(w * t) - forced * p["s"] * xp.sin(p["s"] * t)
            return q, v
        return at
    return SplitProblem("driven_oscillator", acceleration, np.array([0.5]), np.array([-0.3]),
                        {"w2": np.array(2.25), "F": np.array(0.7), "s": np.array(2.0)}, (0.0, 2.0), solution)


PROBLEMS = {make().name: make for make in (mlp, linear_decay, pendulum, lorenz, van_der_pol, white_dwarf,
                                           swinging_riccati)}
SPLIT_PROBLEMS = {make().name: make for make in (henon_heiles, driven_oscillator)}

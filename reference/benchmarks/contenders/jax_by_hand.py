"""What an expert would write in JAX: one scan forward, one scan backward that reconstructs, as a custom_vjp, jitted. And what
everybody would: a scan of a plain method, with JAX's own derivative, which keeps all steps. Both with the unroll that is quickest."""
from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

from ..works import LAM, SEED, Work, diffusion, increments, problem


def plus(a: Any, b: Any) -> Any:
    """The sum of two trees."""
    return jax.tree.map(jnp.add, a, b)


def zeros(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)


def coupled_midpoint(f: Callable, h: float, N: int, unroll: int) -> tuple[Callable, Callable, Callable]:
    """forward(y0, params) -> state;  backward(state, params, gy) -> (ay0, aparams);  y of a state."""
    def psi(x: Any, params: Any, h: float) -> Any:
        return h * f(x + h / 2 * f(x, params), params)

    def forward(y0: Any, params: Any) -> Any:
        def step(state: Any, _: Any) -> tuple:
            y, z = state
            y = LAM * y + (1 - LAM) * z + psi(z, params, h)
            return (y, z - psi(y, params, -h)), None

        return jax.lax.scan(step, (y0, y0), length=N, unroll=unroll)[0]

    def backward(state: Any, params: Any, gy: Any) -> tuple:
        def step(carry: Any, _: Any) -> tuple:
            y, z, gy, gz, gp = carry
            value, pull = jax.vjp(lambda y, p: psi(y, p, -h), y, params)
            z = z + value
            ay, ap = pull(-gz)
            gy, gp = gy + ay, plus(gp, ap)
            value, pull = jax.vjp(lambda z, p: psi(z, p, h), z, params)
            y = (y - (1 - LAM) * z - value) / LAM
            az, ap = pull(gy)
            return (y, z, LAM * gy, gz + (1 - LAM) * gy + az, plus(gp, ap)), None

        _, _, gy, gz, gp = jax.lax.scan(step, (*state, gy, jnp.zeros_like(gy), zeros(params)), length=N, unroll=unroll)[0]
        return gy + gz, gp

    return forward, backward, lambda state: state[0]


def reversible_heun(f: Callable, h: float, N: int, unroll: int) -> tuple[Callable, Callable, Callable]:
    """The same three functions; the state is (y, z, f(z)), so that a step evaluates once each way."""
    def forward(y0: Any, params: Any) -> Any:
        def step(state: Any, _: Any) -> tuple:
            y, z, v = state
            z = 2 * y - z + h * v
            v1 = f(z, params)
            return (y + h / 2 * (v + v1), z, v1), None

        return jax.lax.scan(step, (y0, y0, f(y0, params)), length=N, unroll=unroll)[0]

    def backward(state: Any, params: Any, gy: Any) -> tuple:
        def step(carry: Any, _: Any) -> tuple:
            y, z, v1, gy, gz, gv, gp = carry
            _, pull = jax.vjp(f, z, params)
            az, ap = pull(gv + h / 2 * gy)
            gz, gp = gz + az, plus(gp, ap)
            z = 2 * y - z - h * v1
            v = f(z, params)
            return (y - h / 2 * (v + v1), z, v, gy + 2 * gz, -gz, h / 2 * gy + h * gz, gp), None

        nothing = jnp.zeros_like(gy)
        _, z, _, gy, gz, gv, gp = jax.lax.scan(step, (*state, gy, nothing, nothing, zeros(params)), length=N, unroll=unroll)[0]
        az, ap = jax.vjp(f, z, params)[1](gv)
        return gy + gz + az, plus(gp, ap)

    return forward, backward, lambda state: state[0]


def noisy_heun(f: Callable, h: float, N: int, dW: Callable, unroll: int) -> tuple[Callable, Callable, Callable]:
    """Reversible Heun for f dt + g o dW: f(y, params) is the pair (f, g); dW(n) is made again on the way back."""
    def times(v: Any, n: Any) -> Any:
        return h * v[0] + v[1] * dW(n)

    def forward(y0: Any, params: Any) -> Any:
        def step(state: Any, n: Any) -> tuple:
            y, z, v = state
            z = 2 * y - z + times(v, n)
            v1 = f(z, params)
            return (y + 0.5 * (times(v, n) + times(v1, n)), z, v1), None

        return jax.lax.scan(step, (y0, y0, f(y0, params)), jnp.arange(N), unroll=unroll)[0]

    def backward(state: Any, params: Any, gy: Any) -> tuple:
        def step(carry: Any, n: Any) -> tuple:
            y, z, v1, gy, gz, gv, gp = carry
            w = dW(n)
            _, pull = jax.vjp(f, z, params)
            az, ap = pull((gv[0] + h / 2 * gy, gv[1] + 0.5 * w * gy))
            gz, gp = gz + az, plus(gp, ap)
            z = 2 * y - z - (h * v1[0] + v1[1] * w)
            v = f(z, params)
            y = y - 0.5 * (h * (v[0] + v1[0]) + (v[1] + v1[1]) * w)
            a = gy / 2 + gz
            return (y, z, v, gy + 2 * gz, -gz, (h * a, w * a), gp), None

        nothing = jnp.zeros_like(gy)
        start = (*state, gy, nothing, (nothing, nothing), zeros(params))
        _, z, _, gy, gz, gv, gp = jax.lax.scan(step, start, jnp.arange(N), reverse=True, unroll=unroll)[0]
        az, ap = jax.vjp(f, z, params)[1](gv)
        return gy + gz + az, plus(gp, ap)

    return forward, backward, lambda state: state[0]


METHODS = {"coupled-midpoint": coupled_midpoint, "reversible-heun": reversible_heun}
UNROLLS = (1, 2, 4, 8)
QUICK = 0.2            # seconds of a gradient, above which only one and two steps at a time are tried


def plain(f: Callable, h: float, N: int, unroll: int, method: str) -> Callable:
    """y(T) of a method of order two; JAX makes its gradient."""
    def step(y: Any, params: Any) -> Any:
        k = f(y, params)
        return y + h * f(y + h / 2 * k, params) if method == "midpoint" else y + h / 2 * (k + f(y + h * k, params))

    def solve(y0: Any, params: Any) -> Any:
        return jax.lax.scan(lambda y, _: (step(y, params), None), y0, length=N, unroll=unroll)[0]

    return solve


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    """run; for an SDE also run.agree: the same on the noise that all contenders share."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    case = problem(work, dtype)

    def f(y: Any, params: Any) -> Any:
        return case.field(jnp, None, y, params)

    def of(unroll: int) -> Callable:
        if mode == "scan":
            return compiled(case, plain(f, work.h, work.N, unroll, method))
        if not work.sde:
            return compiled(case, reversible(*METHODS[method](f, work.h, work.N, unroll)))
        return compiled(case, reversible(*noisy_heun(pair, work.h, work.N, fresh, unroll)))

    def pair(y: Any, params: Any) -> tuple:
        return f(y, params), diffusion(jnp, None, y, params)

    key, root = jax.random.key(SEED), work.h ** 0.5

    def fresh(n: Any) -> Any:
        return root * jax.random.normal(jax.random.fold_in(key, n), case.y0.shape, case.y0.dtype)

    def agree() -> tuple:
        shared = jnp.asarray(increments(work, dtype))
        return compiled(case, reversible(*noisy_heun(pair, work.h, work.N, lambda n: shared[n], 1)))()

    run = of(1)
    run.warm = lambda: tuned(of, run)                                                              # type: ignore[attr-defined]
    if work.sde:
        run.agree = agree                                                                          # type: ignore[attr-defined]
    return run


def tuned(of: Callable, first: Callable) -> Callable:
    """The quickest of several unrolls, each by its best of three."""
    def best(run: Callable) -> float:
        run()
        times = []
        for _ in range(3):
            start = perf_counter()
            run()
            times.append(perf_counter() - start)
        return min(times)

    took = {1: (best(first), first)}
    for unroll in UNROLLS[1:] if took[1][0] < QUICK else UNROLLS[1:2]:
        run = of(unroll)
        took[unroll] = best(run), run
    return min(took.values(), key=lambda found: found[0])[1]


def reversible(forward: Callable, backward: Callable, y_of: Callable) -> Callable:
    """The solve, with the sweep above in place of JAX's own derivative."""
    @jax.custom_vjp
    def solve(y0: Any, params: Any) -> Any:
        return y_of(forward(y0, params))

    def solve_forward(y0: Any, params: Any) -> tuple:
        state = forward(y0, params)
        return y_of(state), (state, params)

    solve.defvjp(solve_forward, lambda kept, gy: backward(*kept, gy))
    return solve


def compiled(case: Any, solve: Callable) -> Callable:
    """Loss and gradient as one compiled program."""
    leaves = jnp.asarray(case.y0), tuple(jnp.asarray(p) for p in case.params)
    both = jax.jit(jax.value_and_grad(lambda y0, params: case.loss(jnp, solve(y0, params)), argnums=(0, 1)))
    call = both.lower(*leaves).compile()

    def run() -> tuple:
        value, (a_y0, a_params) = jax.block_until_ready(call(*leaves))
        return value, [a_y0, *a_params]

    run.temporary_bytes = lambda: call.memory_analysis().temp_size_in_bytes
    return run

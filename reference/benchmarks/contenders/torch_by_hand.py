"""What an expert would write in PyTorch: the reversible sweeps by hand, without its tape, so that nothing is stored.

One step forward and one step back are plain functions of tensors; `mode` says how they are driven:

    eager      a Python loop: every operation is one kernel
    compiled   the same loop over torch.compile'd steps
    graphs     CHUNK steps are captured as one CUDA graph, and replayed N / CHUNK times
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ..works import LAM, Work, increments, problem

CHUNK = 20           # steps in one graph; 200 and 1000 are multiples


# The network, and its pullback -------------------------------------------------------------------------------------------
def network(p: Sequence, x: Any) -> tuple[Any, list]:
    """The value of W_k tanh(... tanh(W_1 x + b_1)) + b_k, and the inputs of its layers."""
    kept = [x]
    for W, b in zip(p[:-2:2], p[1:-2:2], strict=True):
        kept.append(torch.tanh(torch.addmm(b, kept[-1], W)))
    return torch.addmm(p[-1], kept[-1], p[-2]), kept


def pull(p: Sequence, kept: list, a: Any) -> tuple[Any, list]:
    """The cotangent of the input, and those of the parameters."""
    grads: list = []
    for i in range(len(kept) - 1, -1, -1):
        grads = [kept[i].T @ a, a.sum(0), *grads]
        a = a @ p[2 * i].T
        if i:
            a = a * (1.0 - kept[i] * kept[i])
    return a, grads


def plus(a: list, b: list) -> list:
    return [x + y for x, y in zip(a, b, strict=True)]


# The methods: a state and what flows back are tuples of tensors ----------------------------------------------------------
class Method(NamedTuple):
    """start(y0) -> state; step(state, dW) -> state; back((*state, *cotangents, *aparams), dW) -> the same before the step."""
    start: Callable
    step: Callable
    seed: Callable           # (state, gy) -> cotangents of the state
    back: Callable
    finish: Callable         # (state, cotangents, aparams) -> (ay0, aparams)


def coupled_midpoint(p: Sequence, h: float) -> Method:
    def psi(x: Any, h: float) -> tuple:
        f, first = network(p, x)
        g, second = network(p, x + 0.5 * h * f)
        return h * g, first, second

    def pull_psi(first: list, second: list, h: float, a: Any) -> tuple:
        b, one = pull(p, second, h * a)
        c, two = pull(p, first, 0.5 * h * b)
        return b + c, plus(one, two)

    def step(state: tuple, dW: Any) -> tuple:
        y, z = state
        y = LAM * y + (1 - LAM) * z + psi(z, h)[0]
        return y, z - psi(y, -h)[0]

    def back(carry: tuple, dW: Any) -> tuple:
        y, z, gy, gz, *gp = carry
        value, first, second = psi(y, -h)
        z = z + value
        ay, ap = pull_psi(first, second, -h, -gz)
        gy, gp = gy + ay, plus(gp, ap)
        value, first, second = psi(z, h)
        y = (y - (1 - LAM) * z - value) / LAM
        az, ap = pull_psi(first, second, h, gy)
        return (y, z, LAM * gy, gz + (1 - LAM) * gy + az, *plus(gp, ap))

    return Method(lambda y0: (y0, y0), step, lambda state, gy: (gy, torch.zeros_like(gy)), back,
                  lambda state, a, gp: (a[0] + a[1], gp))


def reversible_heun(p: Sequence, h: float) -> Method:
    def step(state: tuple, dW: Any) -> tuple:
        y, z, v = state
        z = 2 * y - z + h * v
        v1, _ = network(p, z)
        return y + 0.5 * h * (v + v1), z, v1

    def back(carry: tuple, dW: Any) -> tuple:
        y, z, v1, gy, gz, gv, *gp = carry
        _, kept = network(p, z)
        az, ap = pull(p, kept, gv + 0.5 * h * gy)
        gz, gp = gz + az, plus(gp, ap)
        z = 2 * y - z - h * v1
        v, _ = network(p, z)
        return (y - 0.5 * h * (v + v1), z, v, gy + 2 * gz, -gz, 0.5 * h * gy + h * gz, *gp)

    def finish(state: tuple, a: tuple, gp: list) -> tuple:
        _, kept = network(p, state[1])
        az, ap = pull(p, kept, a[2])
        return a[0] + a[1] + az, plus(gp, ap)

    return Method(lambda y0: (y0, y0, network(p, y0)[0]), step,
                  lambda state, gy: (gy, torch.zeros_like(gy), torch.zeros_like(gy)), back, finish)


def noisy_heun(p: Sequence, h: float) -> Method:
    """Reversible Heun for f dt + g o dW with diagonal noise: two networks, one after the other in p."""
    half = len(p) // 2
    pf, pg = p[:half], p[half:]

    def pull_both(kept: tuple, af: Any, ag: Any) -> tuple:
        x, one = pull(pf, kept[0], af)
        y, two = pull(pg, kept[1], ag)
        return x + y, [*one, *two]

    def step(state: tuple, dW: Any) -> tuple:
        y, z, f, g = state
        z = 2 * y - z + h * f + g * dW
        f1, g1 = network(pf, z)[0], network(pg, z)[0]
        return y + 0.5 * (h * (f + f1) + (g + g1) * dW), z, f1, g1

    def back(carry: tuple, dW: Any) -> tuple:
        y, z, f1, g1, gy, gz, gf, gg, *gp = carry
        kept = network(pf, z)[1], network(pg, z)[1]
        az, ap = pull_both(kept, gf + 0.5 * h * gy, gg + 0.5 * dW * gy)
        gz, gp = gz + az, plus(gp, ap)
        z = 2 * y - z - (h * f1 + g1 * dW)
        f, g = network(pf, z)[0], network(pg, z)[0]
        a = 0.5 * gy + gz
        return (y - 0.5 * (h * (f + f1) + (g + g1) * dW), z, f, g, gy + 2 * gz, -gz, h * a, dW * a, *gp)

    def finish(state: tuple, a: tuple, gp: list) -> tuple:
        az, ap = pull_both((network(pf, state[1])[1], network(pg, state[1])[1]), a[2], a[3])
        return a[0] + a[1] + az, plus(gp, ap)

    return Method(lambda y0: (y0, y0, network(pf, y0)[0], network(pg, y0)[0]), step,
                  lambda state, gy: (gy, *(torch.zeros_like(gy) for _ in range(3))), back, finish)


# Drivers: run one function N times over a tuple of tensors ------------------------------------------------------------------
def loop(fn: Callable, carry: tuple, noise: list) -> tuple:
    for dW in noise:
        carry = fn(carry, dW)
    return carry


class Graph:
    """CHUNK steps captured once; the carried tensors and the increments of a chunk live in fixed places."""

    def __init__(self, fn: Callable, carry: tuple, dW: Any) -> None:
        self.carry = [x.clone() for x in carry]
        self.noise = None if dW is None else torch.zeros((CHUNK, *dW.shape), dtype=dW.dtype, device=dW.device)
        self.fn = fn
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):                # cuBLAS makes its workspace before the capture
            self.chunk()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.chunk()

    def chunk(self) -> None:
        carry = tuple(self.carry)
        for i in range(CHUNK):
            carry = self.fn(carry, None if self.noise is None else self.noise[i])
        for place, x in zip(self.carry, carry, strict=True):
            place.copy_(x)

    def __call__(self, carry: tuple, noise: list | Any) -> tuple:
        for place, x in zip(self.carry, carry, strict=True):
            place.copy_(x)
        for i in range(0, len(noise), CHUNK):
            if self.noise is not None:
                self.noise.copy_(noise[i:i + CHUNK])
            self.graph.replay()
        return tuple(self.carry)


METHODS = {"coupled-midpoint": coupled_midpoint, "reversible-heun": reversible_heun}


def make(work: Work, method: str, dtype: str, mode: str, device: str = "cuda") -> Callable:
    """run() -> (loss, [dL/dy0, *dL/dparams]), waited for. The noise of an SDE is made before and kept, (N, batch, d)."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_grad_enabled(False)
    case = problem(work, dtype)
    y0, *params = (torch.as_tensor(x, device=device) for x in (case.y0, *case.params))
    built = (noisy_heun if work.sde else METHODS[method])(params, work.h)
    noise: Any = torch.as_tensor(increments(work, dtype), device=device) if work.sde else [None] * work.N
    backwards = noise.flip(0) if work.sde else noise
    step, back = built.step, built.back
    run_forward, run_back = (lambda carry, noise: loop(step, carry, noise)), (lambda carry, noise: loop(back, carry, noise))
    if mode == "compiled":
        step, back = (torch.compile(fn, fullgraph=True, dynamic=False) for fn in (built.step, built.back))
    elif mode == "graphs":
        if work.N % CHUNK:
            raise ValueError(f"{work.N} steps are no multiple of {CHUNK}")
        state = built.start(y0)
        first = noise[0] if work.sde else None
        run_forward = Graph(step, state, first)
        run_back = Graph(back, (*state, *built.seed(state, y0), *(torch.zeros_like(p) for p in params)), first)

    def run() -> tuple:
        state = run_forward(built.start(y0), noise)
        y = state[0]
        value = (y * y).sum() * (0.5 / work.batch)
        n = len(state)
        carry = run_back((*state, *built.seed(state, y / work.batch), *(torch.zeros_like(p) for p in params)), backwards)
        ay0, aparams = built.finish(carry[:n], carry[n:2 * n], list(carry[2 * n:]))
        if device == "cuda":
            torch.cuda.synchronize()
        return value, [ay0, *aparams]

    return run

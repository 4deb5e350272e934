"""Losses for ranks: an ODE, an SDE and an equilibrium model. `python -m tests.parallel_cases`, under mpiexec, prints their bits."""
from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

import revode as rv
from revode import nn, parallel
from tests.thread_ranks import threads

B, TILE = 21, 4                              # six tiles, the last of one row
RNG = np.random.default_rng(0)
PARAMS = nn.mlp_init(RNG, (2, 8, 2))
Y0 = RNG.standard_normal((B, 2))
TS = np.linspace(0.0, 1.0, 9)


def field(t: Any, y: Any, p: Any) -> Any:
    return nn.mlp(p, y)


def diffusion(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * nn.softplus(y @ p[0]["W"] @ p[1]["W"])


def noisy(p: Any, rows: Any, **options: Any) -> rv.Solution:
    return rv.solve(field, Y0[rows], TS, p, method=rv.ReversibleHeun(), diffusion=diffusion, save=[-1],
                    noise=parallel.noise_of(rv.Brownian(5), rows), **options)


def ode(p: Any, rows: Any) -> Any:
    return np.sum(rv.solve(field, Y0[rows], TS, p, method=rv.Coupled("midpoint"), save=[-1]).y1 ** 2, -1)


def sde(p: Any, rows: Any) -> Any:
    return np.sum(noisy(p, rows).y1 ** 2, -1)


def deq(p: Any, rows: Any) -> Any:
    """z = tanh(z U + x), U of norm 1/2."""
    def f(z: Any, p: Any, x: Any) -> Any:
        U = p[0]["W"] @ p[1]["W"]
        return np.tanh(0.5 * z @ U / np.sqrt(np.sum(U * U)) + x)

    z = rv.fixed_point(f, np.zeros((len(rows), 2)), p, Y0[rows], method=rv.RevDEQ(), tol=1e-9).z
    return np.sum(z ** 2, -1)


LOSSES = {"ode": ode, "sde": sde, "deq": deq}


def bits(tree: Any) -> str:
    """A hash of the bits of all leaves."""
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in rv.tree.flatten(tree)[0])).hexdigest()[:16]


def on_ranks(ranks: int, name: str) -> list[str]:
    """The bits of loss and gradient on every rank."""
    return threads(ranks, lambda comm: bits(parallel.value_and_grad(LOSSES[name], comm, tile=TILE)(PARAMS, B)))


if __name__ == "__main__":
    world = parallel.world()
    for name, loss in LOSSES.items():
        print(f"{name} {bits(parallel.value_and_grad(loss, tile=TILE)(PARAMS, B))} of {world.Get_size()}\n", end="", flush=True)

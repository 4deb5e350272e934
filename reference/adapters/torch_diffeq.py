"""torchdiffeq on the problem's own grid: the whole solve on PyTorch's tape, or the continuous adjoint.

    run = gradient(problem, "midpoint", "full")        # or "adjoint", which is not exact for the discrete solve
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq

from . import Problem, refuse

SCHEMES = {"midpoint": "midpoint", "heun": "heun2"}
MODES = ("full", "adjoint")


class Field(torch.nn.Module):
    """The vector field as a module, which odeint_adjoint needs in order to find its parameters."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.leaves = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(p)) for p in problem.params])

    def forward(self, t: Any, y: Any) -> Any:
        return self.problem.field(torch, t, y, tuple(self.leaves))


def gradient(problem: Problem, scheme: str, mode: str = "full") -> Callable:
    """Loss and gradient through odeint or odeint_adjoint. Threads: PyTorch's own setting."""
    if scheme not in SCHEMES:
        raise refuse("scheme", scheme, SCHEMES)
    if mode not in MODES:
        raise refuse("mode", mode, MODES)
    field = Field(problem)
    y0 = torch.tensor(problem.y0, requires_grad=True)
    grid = torch.tensor(problem.ts, dtype=y0.dtype)
    ends = grid[[0, -1]]
    # The ends as output times and the grid as an option, so that no state is saved on the way and the adjoint is one solve.
    options = {"grid_constructor": lambda f, y, t: grid if t[0] < t[-1] else grid.flip(0)}
    more = {"adjoint_options": dict(options)} if mode == "adjoint" else {}
    solve = torchdiffeq.odeint_adjoint if mode == "adjoint" else torchdiffeq.odeint
    wanted = [y0, *field.leaves]

    def run() -> tuple:
        y1 = solve(field, y0, ends, method=SCHEMES[scheme], options=dict(options), **more)[-1]
        loss = problem.loss(torch, y1)
        return loss.detach(), torch.autograd.grad(loss, wanted)

    return run

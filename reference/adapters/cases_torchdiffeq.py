"""torchdiffeq on the conformance cases, by its fixed-step methods: `full`, the tape; `adjoint`, its continuous adjoint."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchdiffeq

from revode.conformance import Problem

METHODS = {"euler": "euler", "midpoint": "midpoint", "heun2": "heun2", "rk4": "rk4"}


def solved(problem: Problem, solve: Callable) -> dict:
    method = problem.method
    if problem.kind != "ode" or method["name"] != "RungeKutta" or method["base"] not in METHODS:
        raise NotImplementedError("no such fixed-step method in torchdiffeq")

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaves = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.tensor(w)) for name, w in problem.params.items()})
            self.f = problem.field(torch)

        def forward(self, t: Any, y: Any) -> Any:
            return self.f(t, y, self.leaves)

    field, y0 = Field(), torch.tensor(problem.y0, requires_grad=True)
    ys = solve(field, y0, torch.tensor(problem.ts), method=METHODS[method["base"]])
    loss = (ys * torch.tensor(problem.weights)).sum()
    ay0, *grads = torch.autograd.grad(loss, [y0, *field.leaves.values()])
    return {"ys": ys.detach().numpy(), "ay0": ay0.numpy(), "aparams": dict(zip(field.leaves, map(np.asarray, grads), strict=True))}


def full(problem: Problem) -> dict:
    return solved(problem, torchdiffeq.odeint)


def adjoint(problem: Problem) -> dict:
    return solved(problem, torchdiffeq.odeint_adjoint)

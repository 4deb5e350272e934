"""torchsde's reversible Heun on the conformance cases with a uniform grid: `full`, the tape; `reversible`, its reversible adjoint.

torchsde steps by a constant dt, so the cases on varying grids are not for it; an ordinary equation is noise of size zero.
`backsolve` is sdeint_adjoint with another adjoint method than reversible Heun's own, about which torchsde warns.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchsde

from revode.conformance import Problem

from .torch_sde import Given


def solved(problem: Problem, mode: str) -> dict:
    steps = np.diff(problem.ts)
    h = float(steps[0])
    if problem.method["name"] != "ReversibleHeun" or problem.kind == "controlled" or np.any(steps != h) or h < 0:
        raise NotImplementedError("torchsde has reversible Heun with constant steps")
    g = problem.diffusion(torch)
    dWs = np.zeros((len(steps), 1, problem.y0.size)) if g is None else problem.dWs[:, None]

    class SDE(torch.nn.Module):
        noise_type, sde_type = ("diagonal" if problem.dWs is None else problem.kind), "stratonovich"

        def __init__(self) -> None:
            super().__init__()
            self.leaves = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.tensor(w)) for name, w in problem.params.items()})
            self.drift = problem.field(torch)

        def f(self, t: Any, y: Any) -> Any:
            return self.drift(t, y, self.leaves)

        def g(self, t: Any, y: Any) -> Any:
            return torch.zeros_like(y) if g is None else g(t, y, self.leaves)

    class Increments(Given):
        shape = property(lambda self: dWs[0].shape)

    def path(s: float, t: float) -> Any:
        a, b = round((s - problem.ts[0]) / h), round((t - problem.ts[0]) / h)
        return dWs[a] if a < b else -dWs[b]

    sde, y0, ts = SDE(), torch.tensor(problem.y0[None], requires_grad=True), torch.tensor(problem.ts)
    keywords: dict = {"bm": Increments(path, y0), "method": "reversible_heun", "dt": h}
    if mode == "full":
        ys = torchsde.sdeint(sde, y0, ts, **keywords)
    elif mode == "reversible":
        ys = torchsde.sdeint_adjoint(sde, y0, ts, **keywords, adjoint_method="adjoint_reversible_heun")
    else:
        ys = torchsde.sdeint_adjoint(sde, y0, ts, **keywords, adjoint_method="midpoint")
    loss = (torch.tensor(problem.weights)[:, None] * ys).sum()
    ay0, *grads = torch.autograd.grad(loss, [y0, *sde.leaves.values()], allow_unused=True)
    aparams = {name: torch.zeros_like(w) if a is None else a for (name, w), a in zip(sde.leaves.items(), grads, strict=True)}
    return {"ys": ys.detach().numpy(), "ay0": ay0.numpy(), "aparams": {name: a.numpy() for name, a in aparams.items()}}


def full(problem: Problem) -> dict:
    return solved(problem, "full")


def reversible(problem: Problem) -> dict:
    return solved(problem, "reversible")


def backsolve(problem: Problem) -> dict:
    return solved(problem, "backsolve")

"""torchsde's reversible Heun method, with its adjoint that stores nothing, for Stratonovich SDEs with diagonal noise.

    run = gradient(problem, "reversible-heun", "reversible", diffusion=g, entropy=7)        # or "full": the tape of all steps

diffusion(xp, t, y, params) is shaped like y; None is an ODE (noise of size zero). The path is torchsde's own, drawn from
`entropy`, so a comparison by value needs diffusion=None, or a path handed over with `path`: path(t0, t1) -> (B, d).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchsde

from . import Problem, refuse

MODES = ("full", "reversible")


class SDE(torch.nn.Module):
    noise_type, sde_type = "diagonal", "stratonovich"

    def __init__(self, problem: Problem, diffusion: Callable | None) -> None:
        super().__init__()
        self.problem, self.diffusion = problem, diffusion
        self.leaves = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(p)) for p in problem.params])

    def f(self, t: Any, y: Any) -> Any:
        return self.problem.field(torch, t, y, tuple(self.leaves))

    def g(self, t: Any, y: Any) -> Any:
        return torch.zeros_like(y) if self.diffusion is None else self.diffusion(torch, t, y, tuple(self.leaves))


class Given(torchsde.BaseBrownian):
    """A Brownian path handed over as a function of two times."""

    def __init__(self, path: Callable, y0: Any) -> None:
        super().__init__()
        self.path, self._like = path, y0.detach()

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        return torch.as_tensor(self.path(float(ta), float(tb)), dtype=self._like.dtype)

    def __repr__(self) -> str:
        return "Given(path)"

    dtype = property(lambda self: self._like.dtype)
    device = property(lambda self: self._like.device)
    shape = property(lambda self: self._like.shape)
    levy_area_approximation = "none"


def gradient(problem: Problem, scheme: str = "reversible-heun", mode: str = "reversible", diffusion: Callable | None = None,
             entropy: int = 0, path: Callable | None = None) -> Callable:
    """Loss and gradient of one solve with constant steps; y0 is (batch, d)."""
    if scheme != "reversible-heun":
        raise refuse("scheme", scheme, ["reversible-heun"])
    if mode not in MODES:
        raise refuse("mode", mode, MODES)
    sde = SDE(problem, diffusion)
    y0 = torch.tensor(problem.y0, requires_grad=True)
    ends = torch.tensor(problem.ts[[0, -1]], dtype=y0.dtype)
    h = float(problem.ts[-1] - problem.ts[0]) / (len(problem.ts) - 1)
    wanted = [y0, *sde.leaves]

    def run() -> tuple:
        noise = Given(path, y0) if path is not None else torchsde.BrownianInterval(
            ends[0], ends[1], size=y0.shape, dtype=y0.dtype, entropy=entropy, dt=h)
        if mode == "full":
            ys = torchsde.sdeint(sde, y0, ends, bm=noise, method="reversible_heun", dt=h)
        else:
            ys = torchsde.sdeint_adjoint(sde, y0, ends, bm=noise, method="reversible_heun", dt=h,
                                         adjoint_method="adjoint_reversible_heun")
        loss = problem.loss(torch, ys[-1])
        return loss.detach(), torch.autograd.grad(loss, wanted, allow_unused=True)

    return run

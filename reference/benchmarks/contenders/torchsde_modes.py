"""torchsde's reversible Heun with one thread: PyTorch's tape, or its adjoint that stores nothing. Noise: BrownianInterval."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...adapters import torch_sde
from ..works import SEED, Work, diffusion, increments, problem


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    """run, and run.agree: the same on the noise that all contenders share."""
    torch.set_num_threads(1)
    case = problem(work, dtype)

    def agree() -> tuple:
        dW = increments(work, dtype)

        def path(t0: float, t1: float) -> Any:
            return dW[round(t0 / work.h)]

        return torch_sde.gradient(case, method, mode, diffusion, path=path)()

    run = torch_sde.gradient(case, method, mode, diffusion, entropy=SEED)

    def timed() -> tuple:
        return run()

    timed.agree = agree
    return timed

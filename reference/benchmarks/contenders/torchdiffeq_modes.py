"""torchdiffeq with one thread: odeint on PyTorch's tape, or odeint_adjoint."""
from __future__ import annotations

from collections.abc import Callable

import torch

from ...adapters import torch_diffeq
from ..works import Work, problem


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    torch.set_num_threads(1)
    return torch_diffeq.gradient(problem(work, dtype), method, mode)

"""torchdeq on the map z -> tanh(z W + b + x): its Anderson solver and its implicit gradient.

gradient(W, b, x, a) -> (z, [dL/dW, dL/db, dL/dx])       for L = sum(a z), from z = 0, in float64

It has no reversible mode to compare with.
"""

from __future__ import annotations

import numpy as np
import torch
from torchdeq import get_deq


def gradient(
    W: np.ndarray, b: np.ndarray, x: np.ndarray, a: np.ndarray, tol: float = 1e-12
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The fixed point and the implicit gradient, each solved to this relative tolerance."""
    params = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in (W, b, x)]
    w, c, u = params
    deq = get_deq(
        f_solver="anderson",
        f_max_iter=200,
        f_tol=tol,
        b_solver="anderson",
        b_max_iter=200,
        b_tol=tol,
        f_stop_mode="rel",
        b_stop_mode="rel",
        ift=True,
    )
    found, _ = deq(lambda z: torch.tanh(z @ w + c + u), torch.zeros_like(u))
    z = found[-1]
    (z * torch.tensor(a)).sum().backward()
    return z.detach().numpy(), [p.grad.numpy() for p in params]

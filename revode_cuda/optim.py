"""revode.optim for CuPy arrays: the same names; a step of Adam or AdamW is one kernel (kernels/adamw.cu), and not ten a leaf."""
from __future__ import annotations

from typing import Any

import numpy as np

from revode import Tensor, optim, tree
from revode.optim import Optimiser, clip_by_global_norm, cosine, global_norm, lbfgs, minibatches, sgd, warmup

from .arrays import on_device, require_cupy
from .crossing import part, together

__all__ = ["Optimiser", "adam", "adamw", "clip_by_global_norm", "cosine", "global_norm", "lbfgs", "minibatches", "sgd", "warmup"]


def adam(lr: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimiser:
    """revode.optim.adam, whose step on device arrays is one kernel."""
    return adamw(lr, 0.0, b1, b2, eps)


def adamw(lr: Any, weight_decay: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, mask: Any = None) -> Optimiser:
    """revode.optim.adamw. Where all leaves are device arrays of one dtype, and no mask is given, a step is one kernel over all of
    them, with the same bits; it makes four operations more to lay them end to end. Elsewhere it is revode.optim's.

    Parameters, Returns, Raises : as there.
    """
    there = optim.adamw(lr, weight_decay, b1, b2, eps, mask)

    def update(params: Any, grads: Any, state: dict) -> tuple[Any, dict]:
        leaves = tree.flatten((params, grads, state["m"], state["v"]))[0]
        alike = len({x.dtype for x in leaves if on_device(x)}) == 1 and all(on_device(x) for x in leaves)
        if mask is not None or not alike or any(type(x) is Tensor for x in leaves):
            return there.update(params, grads, state)
        from .kernels import adamw as run
        xp = require_cupy("optim.adamw")
        n, flat = int(state["step"]) + 1, []

        def end_to_end(x: Any) -> Any:
            mine = not any(x is leaf for leaf in leaves)                # the kernel writes to it
            flat.append(x if mine else x.copy())
            return flat[-1]

        parts = [together(x, on_device, end_to_end, part(xp)) for x in (params, grads, state["m"], state["v"])]
        p, g, m, v = (x.reshape(-1) for x in flat)
        run(p, g, m, v, n, lr(n - 1) if callable(lr) else lr, weight_decay, b1, b2, eps)
        return parts[0], {"step": np.asarray(n), "m": parts[2], "v": parts[3]}

    return Optimiser(there.init, update)


"""torchsde's reversible Heun on given Brownian increments: solutions at every grid point, and gradients, in float64.

    found = reversible_heun(f, g, y0, ts, dWs, params, weights, kind)      -> {"ys", "y0", "params": {name: gradient}}

The loss is sum(weights * ys). f(xp, t, y, params) and g(xp, t, y, params) are written for any array namespace xp. kind:
"diagonal" (g like y), "general" or "additive" (g of shape (B, d, m)). y0 is (B, d); ts is uniform, with a step and
times
that are exact in binary, because torchsde adds the step up.

    python -m reference.adapters.torchsde_adapter            writes reference/vectors/torchsde_reversible_heun.json

torchsde divides nothing by itself here: its BrownianInterval is replaced by the given increments.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VECTORS = Path(__file__).parent.parent / "vectors" / "torchsde_reversible_heun.json"


def reversible_heun(
    f: Callable,
    g: Callable,
    y0: Any,
    ts: Any,
    dWs: Any,
    params: dict,
    weights: Any,
    kind: str,
    mode: str = "reversible",
) -> dict:
    """mode: "reversible" (sdeint_adjoint, nothing stored) or "full" (the tape through all steps)."""
    import torch
    import torchsde

    from .torch_sde import Given

    class SDE(torch.nn.Module):
        noise_type, sde_type = kind, "stratonovich"

        def __init__(self) -> None:
            super().__init__()
            self.leaves = torch.nn.ParameterDict(
                {name: torch.nn.Parameter(torch.tensor(p)) for name, p in params.items()}
            )

        def f(self, t: Any, y: Any) -> Any:
            return f(torch, t, y, self.leaves)

        def g(self, t: Any, y: Any) -> Any:
            return g(torch, t, y, self.leaves)

    class Increments(Given):
        shape = property(lambda self: dWs[0].shape)

    h = float(ts[1] - ts[0])

    def path(s: float, t: float) -> Any:
        a, b = round((s - float(ts[0])) / h), round((t - float(ts[0])) / h)
        assert abs(b - a) == 1, (s, t)
        return dWs[a] if a < b else -dWs[b]

    sde, start, grid = SDE(), torch.tensor(y0, requires_grad=True), torch.tensor(ts)
    noise = Increments(path, start)
    if mode == "full":
        ys = torchsde.sdeint(sde, start, grid, bm=noise, method="reversible_heun", dt=h)
    else:
        ys = torchsde.sdeint_adjoint(
            sde, start, grid, bm=noise, method="reversible_heun", dt=h, adjoint_method="adjoint_reversible_heun"
        )
    loss = (torch.tensor(weights) * ys).sum()
    a_y0, *a_params = torch.autograd.grad(loss, [start, *sde.leaves.values()], allow_unused=True)
    return {
        "ys": ys.detach().numpy(),
        "y0": a_y0.numpy(),
        "params": {
            name: np.zeros_like(params[name]) if a is None else a.numpy()
            for name, a in zip(sde.leaves, a_params, strict=True)
        },
    }


# The problem of the stored vectors, in terms of any array namespace.


def drift(xp: Any, t: Any, y: Any, p: Any) -> Any:
    return xp.tanh(y @ p["W"] + p["b"] * t)


def diagonal(xp: Any, t: Any, y: Any, p: Any) -> Any:
    return p["s"] * xp.cos(y + t)


def general(xp: Any, t: Any, y: Any, p: Any) -> Any:
    return xp.reshape(xp.tanh(y @ p["V"] + t), (2, 3, 2))


def additive(xp: Any, t: Any, y: Any, p: Any) -> Any:
    return xp.reshape(p["V"][0] * (1 + t), (1, 3, 2)) + 0 * xp.reshape(y, (2, 3, 1))


DIFFUSIONS = {"diagonal": diagonal, "general": general, "additive": additive}


def problem(kind: str, N: int = 16) -> dict:
    """Inputs of one case, float64; times are multiples of 1/16."""
    rng = np.random.default_rng(11)
    params = {
        "W": rng.normal(size=(3, 3)) / 2,
        "b": rng.normal(size=3),
        "s": rng.normal(size=3) / 2,
        "V": rng.normal(size=(3, 6)) / 3,
    }
    ts = 0.25 + np.arange(N + 1) / 16
    dWs = rng.normal(size=(N, 2, 3 if kind == "diagonal" else 2)) / 4
    return {
        "y0": rng.normal(size=(2, 3)),
        "ts": ts,
        "dWs": dWs,
        "params": params,
        "weights": rng.normal(size=(N + 1, 2, 3)),
    }


def to_hex(x: Any) -> Any:
    """Nested lists of hexadecimal floats: every bit of every number."""
    if isinstance(x, dict):
        return {name: to_hex(y) for name, y in x.items()}
    return float(x).hex() if np.ndim(x) == 0 else [to_hex(y) for y in x]


def from_hex(x: Any) -> Any:
    """Back to float64 arrays."""
    if isinstance(x, dict):
        return {name: from_hex(y) for name, y in x.items()}
    return np.vectorize(float.fromhex, otypes=[float])(np.array(x, dtype=object).astype(str))


def main() -> None:
    import torch
    import torchsde

    cases = {}
    for kind, g in DIFFUSIONS.items():
        given = problem(kind)
        found = {mode: reversible_heun(drift, g, **given, kind=kind, mode=mode) for mode in ("reversible", "full")}
        cases[kind] = {"given": to_hex(given), **{mode: to_hex(value) for mode, value in found.items()}}
    about = {
        "script": "python -m reference.adapters.torchsde_adapter",
        "torch": torch.__version__,
        "torchsde": torchsde.__version__,
        "numpy": np.__version__,
        "numbers": "float.hex() of float64",
    }
    VECTORS.write_text(json.dumps({"about": about, "cases": cases}, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

"""revode inside other people's programs: its solves as operations of PyTorch and of JAX.

    from revode import interop
    interop.torch.solve(field, y0, ts, params, method=...)          y0, params: tensors of PyTorch
    interop.jax.solve(field, y0, ts, params, method=...)            arrays of JAX, under jit and grad

The field stays a NumPy function; forward and backward are this package's. operation.py has what both have in common.
"""
from __future__ import annotations

from importlib import import_module
from typing import Any

LIBRARIES = {"torch": "PyTorch", "jax": "JAX"}


def __getattr__(name: str) -> Any:
    """interop.torch and interop.jax, when they are asked for: each needs its library."""
    if name not in LIBRARIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(f"interop.{name} needs {LIBRARIES[name]}, which is not installed: pip install {name}",
                                  name=name) from None

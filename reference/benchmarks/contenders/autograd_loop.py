"""HIPS autograd through a loop over the same steps."""
from __future__ import annotations

from collections.abc import Callable

from ...adapters import hips_autograd
from ..works import Work, problem


def make(work: Work, method: str, dtype: str, mode: str) -> Callable:
    return hips_autograd.gradient(problem(work, dtype), method, mode)

"""Who computes a case: revode in three ways, and the libraries that it is held against."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .. import works
from ..works import Work
from .cases import Case, gradient, no_gpu, waited


class Absent(Exception):
    """This cannot be run here, and why."""


class Contender(NamedTuple):
    """One column of the tables."""
    key: str
    title: str
    make: Callable                   # make(work, case) -> run;  run() -> (loss, [dL/dy0, *dL/dparams]), waited for
    needs: tuple[str, ...]
    share: float                     # of the time, of which what is not used goes to the next
    takes: Callable = lambda case: True


def needs_gpu(what: str) -> None:
    if no_gpu():
        raise Absent(f"{what} need a GPU")


def revode_on(backend: str, arithmetic: str) -> Callable:
    """On the device; op by op on the host where there is none."""
    def make(work: Work, case: Case) -> Callable:
        import revode_cuda as rv
        if backend == "fused":
            needs_gpu("fused kernels")
        problem = works.problem(work, case.dtype)
        y0, params = problem.y0, problem.params
        if no_gpu() is None:
            y0, params = rv.to_device((y0, params))
        run = gradient(rv, work, case, y0, params, {"backend": backend, "arithmetic": arithmetic})

        def finished() -> tuple:
            try:
                found = run()
            except NotImplementedError as error:
                raise Absent(str(error)) from None
            waited()
            return found

        return finished
    return make


def torch_by(mode: str) -> Callable:
    def make(work: Work, case: Case) -> Callable:
        if mode == "graphs":
            needs_gpu("CUDA graphs")
        import torch

        from ..contenders import torch_by_hand
        there = torch.cuda.is_available()
        if no_gpu() is None and not there:
            raise Absent("torch sees no GPU")
        return torch_by_hand.make(work, case.method, case.dtype, mode, device="cuda" if there else "cpu")
    return make


def jax_by_hand(work: Work, case: Case) -> Callable:
    jax_on_gpu()
    from ..contenders import jax_by_hand
    return jax_by_hand.make(work, case.method, case.dtype, "reversible")


def diffrax_heun(work: Work, case: Case) -> Callable:
    """diffrax's own reversible Heun, with its default adjoint."""
    jax = jax_on_gpu()
    import diffrax

    from ...adapters import jax_diffrax
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    jax_diffrax.SCHEMES["reversible-heun"] = diffrax.ReversibleHeun
    return jax_diffrax.gradient(works.problem(work, case.dtype), "reversible-heun", "checkpointed")


def jax_on_gpu() -> Any:
    import jax
    jax.config.update("jax_default_matmul_precision", "highest")       # float32, not TF32, as everybody else here
    if no_gpu() is None and jax.default_backend() != "gpu":
        raise Absent(f"JAX runs on {jax.default_backend()} here")
    return jax


CONTENDERS = {c.key: c for c in (
    Contender("fused-strict", "revode fused, strict", revode_on("fused", "strict"), ("cupy",), 0.13),
    Contender("fused-fast", "revode fused, fast", revode_on("fused", "fast"), ("cupy",), 0.13),
    Contender("eager", "revode on CuPy, op by op", revode_on("eager", "fast"), ("cupy",), 0.18),
    Contender("torch-graphs", "torch by hand, CUDA graphs", torch_by("graphs"), ("torch",), 0.12),
    Contender("jax", "JAX by hand, jitted", jax_by_hand, ("jax",), 0.14),
    Contender("torch-eager", "torch by hand, eager", torch_by("eager"), ("torch",), 0.10),
    Contender("diffrax", "diffrax ReversibleHeun, jitted", diffrax_heun, ("jax", "diffrax"), 0.10,
              lambda case: case.method == "reversible-heun" and case.work != "w4"),
    Contender("torch-compiled", "torch by hand, compiled", torch_by("compiled"), ("torch",), 0.10,
              lambda case: case.dtype == "float32"),
)}
OURS = ("fused-strict", "fused-fast", "eager")

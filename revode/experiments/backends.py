"""Who runs the solves of an experiment: --backend, --threads and --arithmetic, for every command.

    eager, replay, native    revode.solve: the tape, a program of NumPy calls, a compiled program
    cuda                     revode_cuda.solve: parameters go to the GPU, the saved states come back
    auto                     native, where there is a compiler and the field can be compiled; else
                             what revode.solve chooses

What a row of a table truly ran on is `Stats.backend`, which stands in the row.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import parallel
from ..compiled import native
from ..engine.tensor import NotTraceable
from ..gradients import Reversible
from ..solve import Solution, solve
from .options import whole

BACKENDS = ("auto", "eager", "replay", "native", "cuda")
TILE = 16                            # paths that a rank solves at a time
REFUSALS = (NotTraceable, NotImplementedError, native.CompileError, native.NoCompiler)

logger = logging.getLogger("revode")
_told: set[str] = set()


class UserError(Exception):
    """Something that the user can put right; its text is all that is shown."""


def cannot_read(option: str, path: str, reason: OSError | ValueError) -> str:
    """What to say of a file that was named with this option."""
    if isinstance(reason, FileNotFoundError):
        return f"{option} {path} cannot be read: there is no such file"
    if isinstance(reason, OSError):
        return f"{option} {path} cannot be read: {reason.strerror or reason}"
    return f"{option}: {reason}"


@dataclass(frozen=True)
class Solver:
    """solve(field, y0, ts, params, ...), with the method, the gradient mode and the backend filled in."""
    method: Any = None
    gradient: Any = None
    backend: str = "auto"
    threads: int | None = None
    arithmetic: str = "fast"
    finer: bool = False              # half the steps, to see how much of a loss is their doing
    ranks: Any = None                # that share out the paths of a batch; None for one process

    def __call__(self, field: Callable, y0: Any, ts: Any, params: Any, **options: Any) -> Solution | parallel.Gathered:
        """revode.solve on this backend; options are further arguments of it."""
        if self.finer:
            ts, options = halved(ts, options)
        options = {"method": self.method, "gradient": self.gradient, **options}
        how: dict[str, Any] = {"backend": self.backend, "threads": self.threads, "arithmetic": self.arithmetic}
        if self.ranks is not None:
            return parallel.solve(field, y0, ts, params, comm=self.ranks, tile=TILE,
                                  **{**how, "threads": self.threads or self.ranks.threads}, **options)
        if self.backend != "cuda":
            return solve(field, y0, ts, params, **how, **options)
        if not isinstance(options["gradient"], Reversible | None):
            return solve(field, y0, ts, params, backend="eager", **options)
        return on_gpu(field, y0, ts, params, arithmetic=self.arithmetic, **options)

    def on(self, backend: str) -> Solver:
        return replace(self, backend=backend)

    def __str__(self) -> str:
        if self.ranks is not None:
            return (f"{replace(self, ranks=None, threads=self.threads or self.ranks.threads)} on "
                    f"each of {self.ranks.Get_size()} ranks, {TILE} paths at a time")
        if self.backend == "native":
            threads = self.threads or native.cores()
            return (f"native ({native.compiler().version_text}, {self.arithmetic} arithmetic, at most {threads} "
                    f"thread{'s' if threads > 1 else ''})")
        if self.backend == "auto" and not has_compiler():
            return "auto (no C++ compiler here: g++ or clang++ would be faster)"
        return self.backend + (f" ({self.arithmetic} arithmetic)" if self.backend in ("replay", "cuda") else "")


def halved(ts: Any, options: dict) -> tuple[Any, dict]:
    """Grid and options with every step halved and the same times saved; a controller's tolerances, by ten."""
    if (pid := options.get("controller")) is not None:
        return ts, {**options, "controller": replace(pid, rtol=pid.rtol / 10, atol=pid.atol / 10)}
    ts, save = np.asarray(ts), options.get("save")
    saved = np.arange(len(ts)) if save is None else np.arange(len(ts))[save]
    finer = np.insert(ts, np.arange(1, len(ts)), (ts[1:] + ts[:-1]) / 2)
    return finer, {**options, "save": (2 * saved).tolist()}


def on_gpu(field: Callable, *given: Any, **options: Any) -> Solution:
    """One launch for a solve, and a few for its reverse sweep; loss and optimiser stay on the host.
    Where a solve cannot be fused it runs on the host, with one message for each field."""
    import revode_cuda
    from revode_cuda.solve import CannotBeFused
    try:
        return revode_cuda.solve(field, *given, backend="fused", **options)
    except CannotBeFused as reason:
        name = getattr(field, "__qualname__", repr(field))
        if name not in _told:
            _told.add(name)
            logger.warning("the field %s runs on the host. %s", name, reason)
        del options["arithmetic"]
        return solve(field, *given, **options)


# The options ----------------------------------------------------------------------------------------------------------------------
def add_options(parser: Any, auto: str = "native where there is a compiler, else revode's choice") -> None:
    """--backend, --threads, --arithmetic. auto: what the default is, in words."""
    group = parser.add_argument_group("who runs the steps (docs/backends.md)")
    group.add_argument("--backend", choices=BACKENDS, default="auto", help="eager: the tape; replay: NumPy calls into planned "
                       f"buffers; native: compiled C++; cuda: a GPU; auto (default): {auto}")
    group.add_argument("--threads", type=whole(1), metavar="N", help="of native, over the batch; default: one for each core")
    group.add_argument("--arithmetic", choices=("fast", "strict"), help="fast (default), or strict: the same bits from native, cuda "
                       "and replay on every machine")


def chosen(args: Any, default: str = "native") -> Solver:
    """The solver that was asked for; UserError where this machine has no such backend, or an option
    would do nothing.

    auto: `default` where that is to be had, else what revode.solve chooses.
    """
    backend, threads, arithmetic = args.backend, args.threads, args.arithmetic
    if threads is not None and backend not in ("native", "auto"):
        raise UserError(f"--threads goes with --backend native; {backend} runs on one thread of its own")
    if arithmetic is not None and backend in ("auto", "eager"):
        raise UserError(f"--arithmetic goes with --backend replay, native or cuda; {backend} has the bits of the tape")
    try:
        if backend == "native":
            native.compiler()
        if backend == "cuda":
            from revode_cuda.arrays import require_cupy
            require_cupy("--backend cuda")
    except (RuntimeError, ImportError) as error:
        raise UserError(str(error)) from None
    if backend == "auto" and (default != "native" or has_compiler()):
        backend = default
    return Solver(backend=backend, threads=threads, arithmetic=arithmetic or "fast")


def has_compiler() -> bool:
    try:
        native.compiler()
    except native.NoCompiler:
        return False
    return True

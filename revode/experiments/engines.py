"""Who runs the solves of an experiment: --backend, --threads and --arithmetic, for every command that solves.

    auto, eager, replay, native    revode.solve: the tape, a program of NumPy calls, a compiled program
    cuda                           revode_cuda.solve: y0 and the parameters go to the GPU, the saved states come back

Reversible gradients and plain solves run there; every other gradient mode runs on the eager tape, whatever is chosen.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..gradients import Reversible
from ..solve import Solution, solve

BACKENDS = ("auto", "eager", "replay", "native", "cuda")

logger = logging.getLogger("revode")
_told: set[str] = set()


@dataclass(frozen=True)
class Engine:
    """A backend and its options; the arguments are those of revode.solve, where they are explained."""
    backend: str = "auto"
    threads: int | None = None
    arithmetic: str = "fast"

    def solve(self, field: Callable, y0: Any, ts: Any, params: Any, *, gradient: Any = None, **options: Any) -> Solution:
        """revode.solve on this backend."""
        if self.backend != "cuda":
            return solve(field, y0, ts, params, gradient=gradient, backend=self.backend, threads=self.threads,
                         arithmetic=self.arithmetic, **options)
        if gradient is not None and not isinstance(gradient, Reversible):
            return solve(field, y0, ts, params, gradient=gradient, backend="eager", **options)
        return on_gpu(field, y0, ts, params, gradient=gradient, arithmetic=self.arithmetic, **options)

    def __str__(self) -> str:
        """In words, for the head of a report."""
        if self.backend == "native":
            from ..compiled import native
            threads = self.threads or native.cores()
            return (f"native ({native.compiler().version_text}, {self.arithmetic} arithmetic, at most {threads} "
                    f"thread{'s' if threads > 1 else ''})")
        return f"{self.backend} ({self.arithmetic} arithmetic)" if self.backend in ("replay", "cuda") else self.backend


AUTO, EAGER = Engine(), Engine("eager")


def on_gpu(field: Callable, *given: Any, **options: Any) -> Solution:
    """One launch for a solve, and a few for its reverse sweep; loss and optimiser stay on the host. Where a solve cannot be
    fused it runs on the host, with one message for each field."""
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


def add_options(parser: Any, default: str = "auto", more: str = "") -> None:
    """--backend, --threads, --arithmetic."""
    group = parser.add_argument_group("who runs the steps of Reversible gradients (docs/backends.md)")
    group.add_argument("--backend", choices=BACKENDS, default=default,
                       help=f"eager: the tape; replay: NumPy calls into planned buffers; native: compiled C++; cuda: a GPU; "
                       f"auto: replay where it pays{more}; default {default}")
    group.add_argument("--threads", type=int, metavar="N", help="of native, over the batch; default: one for each core")
    group.add_argument("--arithmetic", choices=("fast", "strict"), help="fast (default), or strict: the same bits from native, "
                       "cuda and replay on every machine")

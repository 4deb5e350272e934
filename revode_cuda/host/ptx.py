"""The kernel that NVRTC really made, run on the CPU: its PTX, translated and given to the threads of the shim.

    launch(source, "sum", 2, 96, args)          # as host.launch and compile.launch
    device(order="random")                      # as fused.shim, for whole solves
    python -m revode_cuda.host.ptx --all        # every kernel, both dtypes, strict and fast

What the shim shows of a source (bits, races, divergent barriers, places outside arrays) this shows of what the compiler made of
it, and the alignment of every access besides. ptxas is all that is left to be seen on a GPU.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from .. import compile, host, nvrtc
from ..fused import Device
from . import mirrors, solves
from .translate import translate

BLOCK = 96             # threads of the hand-written kernels: three warps, and no power of two
NATIVE = cache(solves.run)
ALONE = {f"{name}/thread": name for name in solves.THREADS}          # the same with a thread for each trajectory


@cache
def text(source: str, real: str, mode: str, arch: str) -> str:
    """C++ of the PTX of a source."""
    return translate(compile.compile(source, real, arch, mode).ptx, source, real)


def launch(source: str, name: str, grid: int | tuple, block: int | tuple, args: Sequence[Any], real: str = "double",
           mode: str = "strict", arch: str = "sm_90", **how: Any) -> None:
    """host.launch of the PTX of a source. how: order, shuffle, shared, races.

    Raises what host.launch does, translate.Unsupported, ImportError without NVRTC. Cost: half a second to some seconds to compile,
    the first time on this machine; then some 30 ns a thread and barrier.
    """
    made = text(source, real, mode, arch)
    host.launch(made, name, grid, block, args, real=real, mode="strict", **how)                # which contracts nothing more


def device(arch: str = "sm_90", edit: Callable[[str], str] = str, **how: Any) -> Device:
    """In place of a GPU, for fused.Fusing. how: order, shuffle, races, for `launch`; edit(text) may change the CUDA text before."""
    def function(text: str, shared: int, real: str, mode: str, name: str = "run") -> Callable:
        text = edit(text)
        return lambda grid, block, args: launch(text, name, grid, block, args, real, mode, arch, shared=shared, **how)

    return Device("ptx", np, arch, function, None)


# the command

def mirrored(name: str, dtype: Any, mode: str, **how: Any) -> tuple[float, float]:
    """A hand-written kernel against its mirror: the largest difference, and what is allowed.

    Fast: a number is made of a few products whose sizes add up to less than 100, so contraction moves it by less than 10 * 100
    units of 1.
    """
    pairs = mirrors.CASES[name](np.copy, dtype, block=BLOCK, mode=mode, launch=launch, **how)
    if mode == "strict":
        mirrors.assert_same_bits(pairs)
        return 0.0, 0.0
    found, desired = ([np.asarray(pair[i]) for pair in pairs] for i in (0, 1))
    return difference(found, desired, scaled=False), 10 * 100 * float(np.finfo(dtype).eps)


def solved(name: str, dtype: Any, mode: str, **how: Any) -> tuple[float, float]:
    """A generated kernel, both ways through a solve, against native code: strict bits, or relative to the largest entry.

    Fast: an evaluation and its pullback round less than 10 times what fast and strict round alike (see tests/gpu); 5 steps of at
    most 8 of them, whose errors grow by less than 2 (lam = .9 or more, 5 steps back), and a sum over 40 trajectories.
    """
    regime, host = ("thread per trajectory", solves.OneByOne()) if name in ALONE else ("warp per tile", "native")
    name = ALONE.get(name, name)
    found, desired = solves.run(name, device(**how), dtype=dtype, arithmetic=mode, regime=regime), NATIVE(name, host, dtype=dtype)
    if mode == "strict":
        for a, b in zip(found, desired, strict=True):
            np.testing.assert_array_equal(a, b)
        return 0.0, 0.0
    return difference(found, desired), 10 * 5 * 8 * 2 * 40 * float(np.finfo(dtype).eps)


def difference(found: Sequence, desired: Sequence, scaled: bool = True) -> float:
    """The largest one; scaled: each array's by its own largest entry. Where one is no number, so has to be the other."""
    worst = 0.0
    for a, b in zip(found, desired, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        gap = np.max(np.abs(np.nan_to_num(a.astype(float)) - np.nan_to_num(b.astype(float))), initial=0.0)
        size = max(float(np.max(np.abs(np.nan_to_num(b)), initial=0.0)), 1e-300) if scaled else 1.0
        worst = float(np.maximum(worst, gap / size))                   # and not max, which would lose a NaN
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m revode_cuda.host.ptx", description="Kernels from NVRTC's PTX, run on the CPU.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*mirrors.CASES, *solves.CASES, *ALONE))}")
    parser.add_argument("--all", action="store_true", help="every one of them")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which threads run (0)")
    args = parser.parse_args()
    known = {**dict.fromkeys(mirrors.CASES, mirrored), **dict.fromkeys((*solves.CASES, *ALONE), solved)}
    names = list(known) if args.all else args.names
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        parser.error(f"{', '.join(unknown)}: no such kernel" if unknown else "give names of kernels, or --all")
    missing = nvrtc.missing() or host.missing()
    if missing:
        parser.error(missing)
    wrong = 0
    for name in names:
        for dtype in (np.float64, np.float32)[:1 if (case := solves.CASES.get(ALONE.get(name, name))) and case.only else 2]:
            for mode in ("strict", "fast"):
                begin = time.perf_counter()
                try:
                    worst, allowed = known[name](name, dtype, mode, order="random", shuffle=args.seed, races=mode == "strict")
                    said = "the same bits" if mode == "strict" else f"{worst:.1e} of {allowed:.1e}"
                    ok = worst <= allowed
                except Exception as error:             # whatever it is, the next one may do
                    said, ok = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", False
                wrong += not ok
                seconds = time.perf_counter() - begin
                print(f"{name:15} {dtype.__name__:8} {mode:7} {'ok' if ok else 'WRONG':6} {said:22} {seconds:5.1f} s", flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())

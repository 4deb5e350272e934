"""Kernel source becomes machine code: NVRTC with options that we choose, so that strict means strict.

    binary = compile(source, real="float", arch="sm_90")       # needs no GPU and no driver: cubin, PTX, registers, spills
    launch(source, "shear_forward", 256, 128, (n, x, ...))     # on the GPU of CuPy's current device

strict   --fmad=false and IEEE division and roots: the bits of NumPy, operation by operation; the PTX is searched for
         anything else (`lint`)
fast     products and sums are contracted

CuPy's own compilation is not used: it appends -ftz=true. It only loads what was made here, and it is imported when it is
needed. Binaries are kept in memory and in the user's cache folder by the hash of all that decides them.
"""
from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from revode.compiled.native import cache_folder

from . import nvrtc

KERNELS = Path(__file__).parent / "kernels"
SUBJECTS = ("adamw", "collect", "scores", "shears")
INSTALL = "pip install cupy-cuda13x"
ENTRIES = 400                # files of a kind kept in the cache folder, each some 10 kB
MODES = {"strict": ("--fmad=false",), "fast": ()}
# fma; approximations; subnormals as zero; and mul.f64 without .rn, which the assembler may contract.
NOT_STRICT = re.compile(r"\bfma\.|\.approx|\.ftz|\b(?:add|sub|mul)\.f(?:32|64)")

# The words that our kernels add to CUDA C.
PRELUDE = """\
typedef {real} real;
#define KERNEL __global__
#define FUNCTION __device__ __forceinline__
#define TID ((int)threadIdx.x)
#define NT ((int)blockDim.x)
#define BLOCK ((int)blockIdx.x)
#define SYNC __syncthreads();
#define FOR_EACH(i, n) for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n); \\
                        i += (long long)gridDim.x * blockDim.x)
"""


class CompileError(RuntimeError):
    """NVRTC refused a source, or made something from it that a strict build may not hold."""


class Resources(NamedTuple):
    """What a kernel takes: registers a thread, and in bytes the stack frame, spills (stores + loads) and static shared memory."""
    registers: int
    stack: int
    spills: int
    shared: int


class Binary(NamedTuple):
    """What NVRTC made. resources: by the name of the kernel."""
    cubin: bytes
    ptx: str
    log: str
    resources: dict[str, Resources]


def kernel_source(subject: str) -> str:
    """The text of a hand-written subject, one of SUBJECTS."""
    if subject not in SUBJECTS:
        raise ValueError(f"kernel_source: {subject!r}; one of {', '.join(SUBJECTS)}")
    return (KERNELS / f"{subject}.cu").read_text(encoding="utf-8")


def cuda_prelude(real: str = "double") -> str:
    """The lines that stand before every kernel source, generated or written by hand, on the GPU and in the shim."""
    if real not in ("double", "float"):
        raise ValueError(f"cuda_prelude: real={real!r}; double or float")
    return PRELUDE.replace("{real}", real)


def lint(ptx: str) -> list[str]:
    """The lines of a PTX text that a strict build may not hold: contracted (or free to be), approximate, flushing to zero."""
    return [line.strip() for line in ptx.splitlines() if NOT_STRICT.search(line)]


def compile(source: str, real: str = "double", arch: str = "sm_90", mode: str = "strict", options: Sequence[str] = ()) -> Binary:
    """Machine code for one architecture.

    Parameters
    ----------
    source : CUDA C without includes, entry points `extern "C"`; cuda_prelude(real) is put in front of it.
    real : double or float.
    arch : "sm_75" and up; see `arch()` for that of the GPU at hand.
    mode : strict or fast.
    options : more options for NVRTC.

    Raises CompileError with the compiler's words, or where a strict build holds what is not; ImportError without
    NVRTC. Cost: some 50 ms for a small source, 1 ms from the cache folder, nothing again in this process.
    """
    if mode not in MODES:
        raise ValueError(f"compile: mode={mode!r}; strict or fast")
    flags = (f"--gpu-architecture={arch}", "--ptxas-options=-v", *MODES[mode], *options)
    return _compiled(cuda_prelude(real) + '#line 1 "kernel.cu"\n' + source, flags, mode == "strict")


@cache
def _compiled(text: str, flags: tuple[str, ...], strict: bool) -> Binary:
    library = nvrtc.library()
    key = hashed(text, *flags, str(library.version))
    path = kept(key, ".cuda")
    content = path.read_bytes() if path else _made(library, text, flags)
    if not path:
        keep(key, ".cuda", content)
    lengths, _, rest = content.partition(b"\n")
    a, b = map(int, lengths.split())
    cubin, ptx, log = rest[:a], rest[a:a + b].decode(), rest[a + b:].decode()
    wrong = lint(ptx) if strict else []
    if wrong:
        raise CompileError(f"compile: a strict build holds {len(wrong)} instructions that are not: {'; '.join(wrong[:3])}. "
                           "Does the source call fma, or a function that is approximate by name?")
    return Binary(cubin, ptx, log, _resources(log))


def _made(library: nvrtc.Library, text: str, flags: tuple[str, ...]) -> bytes:
    """The lengths of cubin and PTX, a new line, cubin, PTX and log."""
    try:
        cubin, ptx, log = library.compile(text, flags)
    except nvrtc.NVRTCError as error:
        raise CompileError(f"compile: NVRTC says {error} with {' '.join(flags)}\n{error.log}") from None
    log = "\n".join(line for line in log.splitlines() if "Compile time" not in line)
    return b"%d %d\n" % (len(cubin), len(ptx)) + cubin + ptx.encode() + log.encode()


def _resources(log: str) -> dict[str, Resources]:
    """From what ptxas -v prints: of each entry function its stack and spills, then its registers and shared memory."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        stack, stores, loads = map(int, re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", part)[:3])
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        found[part.split("'", 1)[0]] = Resources(int(registers[1]) if registers else 0, stack, stores + loads,
                                                 int(shared[1]) if shared else 0)
    return found


# The cache folder: <key>-<digest><ending>. The digest, a hash of the content, shows damage; a rename makes a file appear whole
# or not at all. What cannot be kept is made again next time.
def kept(key: str, ending: str) -> Path | None:
    """The file of this key, if it is there and sound."""
    with suppress(OSError):
        for path in cache_folder().glob(f"{key}-*{ending}"):
            if path.name == f"{key}-{hashed(path.read_bytes())}{ending}":
                os.utime(path)                       # the time of the last use decides what stays
                return path
            path.unlink()
    return None


def keep(key: str, ending: str, content: bytes) -> Path | None:
    """The file, once it is in the cache folder; None where it cannot be."""
    with suppress(OSError):
        folder = cache_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="keeping-", delete=False) as file:
            file.write(content)
        path = folder / f"{key}-{hashed(content)}{ending}"
        os.replace(file.name, path)
        for old in sorted(folder.glob(f"*{ending}"), key=lambda path: path.stat().st_mtime)[:-ENTRIES]:
            old.unlink(missing_ok=True)
        return path
    return None


def hashed(*content: str | bytes) -> str:
    return hashlib.sha256(b"\0".join(c.encode() if isinstance(c, str) else c for c in content)).hexdigest()[:32]


# On the GPU -------------------------------------------------------------------------------------------------------------
def arch() -> str:
    """The architecture of CuPy's current device, such as "sm_90". Raises RuntimeError where there is no GPU."""
    try:
        import cupy
    except ImportError as error:
        raise ImportError(f"revode_cuda runs kernels through CuPy; install it with `{INSTALL}`") from error
    if not cupy.is_available():
        raise RuntimeError("revode_cuda: CuPy finds no GPU with a driver here. Kernels can be compiled (compile) and run on the "
                           "CPU (revode_cuda.host), not launched")
    return f"sm_{cupy.cuda.Device().compute_capability}"


def function(source: str, name: str, real: str = "double", mode: str = "strict", shared: int = 0) -> Any:
    """The kernel `name` as a CuPy function, f(grid, block, args, shared_mem=shared), for the current device.

    shared : bytes of dynamic shared memory that the launch will ask for; more than 48 KB must be allowed here.
    """
    found, allowed = _function(compile(source, real, arch(), mode).cubin, name, _device())
    _allow(found, allowed, shared)
    return found


def launch(source: str, name: str, grid: int | tuple, block: int | tuple, args: Sequence[Any], shared: int = 0,
           real: str = "double", mode: str = "strict") -> None:
    """Run a kernel on CuPy arrays, None for a null pointer, and NumPy scalars of the very types of its parameters (of Python's
    numbers, int goes as long long and float as double), on CuPy's current stream. Does not wait for it.

    The call of revode_cuda.host.launch, which runs the same source on NumPy arrays.
    """
    values = tuple(np.int64(0) if x is None else x for x in args)      # not every CuPy passes None as eight zero bytes
    function(source, name, real, mode, shared)(_triple(grid), _triple(block), values, shared_mem=shared)


def _device() -> int:
    import cupy
    return cupy.cuda.Device().id


@cache
def _module(cubin: bytes, device: int) -> Any:
    import cupy
    module = cupy.cuda.function.Module()
    module.load(cubin)
    return module


@cache
def _function(cubin: bytes, name: str, device: int) -> tuple[Any, list[int]]:
    """A function, and the bytes of shared memory that it may ask for: the most that anybody has asked for."""
    return _module(cubin, device).get_function(name), [48 * 1024]


def _allow(function: Any, allowed: list[int], shared: int) -> None:
    if shared > allowed[0]:
        from cupy.cuda import driver
        driver.funcSetAttribute(function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        allowed[0] = shared


def _triple(size: int | tuple) -> tuple[int, ...]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes + (1,) * (3 - len(sizes))

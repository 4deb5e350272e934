"""Kernels on a laptop: the text of a .cu file, compiled by the host's C++ compiler and run with all its threads.

    x, ak = np.linspace(0.0, 1.0, 5000), np.ones(5000)
    host.launch(kernel_source("shears"), "shear_forward", 2, 96, (5000, x, None, ak, 1.0, 0.0, 0.1), order="descending")

shim.hpp is the machine: threads as fibers, barriers, poisoned shared memory, shuffles, and an error for what is touched
outside an array. Python's part is to compile and to hand over the arguments. To step through a kernel with gdb, launch it with
debug=True and break on its name. Linux only.
"""
from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from revode.compiled import native

from ..compile import cuda_prelude, hashed, keep, kept

ORDERS = ("ascending", "descending", "random")
SHIM = Path(__file__).parent / "shim.hpp"
ENTRY = re.compile(r'extern\s+"C"\s+(?:KERNEL|__global__)\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(')
BARRIER = re.compile(r"\b__syncthreads\s*\(\s*\)\s*;|\bSYNC\b(?:\s*;)?")
DYNAMIC = re.compile(r"\bextern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\s*\[\s*\]")
ENDING = ".shim"
OPTIMISE = {"strict": "-O1", "fast": "-O2"}
SCALARS: dict[str, Any] = {
    "double": ctypes.c_double, "float": ctypes.c_float, "int": ctypes.c_int, "unsigned": ctypes.c_uint, "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong, "long long": ctypes.c_longlong, "unsigned long long": ctypes.c_ulonglong,
    "unsigned char": ctypes.c_ubyte, "bool": ctypes.c_bool,
}
_one_at_a_time = threading.Lock()                          # the machine is one: its state is static


class KernelError(RuntimeError):
    """A kernel did what a GPU would not forgive: a divergent barrier, a place outside an array."""


class _Launch(ctypes.Structure):
    _fields_ = [("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3), ("shared", ctypes.c_int64),
                ("order", ctypes.c_int32), ("seed", ctypes.c_uint32)]


def program(source: str, real: str = "double", races: bool = False, file: str = "kernel.cu") -> str:
    """All the C++ that the host compiles: the machine, the prelude, the kernel's own text, and an entry for each kernel."""
    names = ENTRY.findall(source)
    if not names:
        raise ValueError('host: the source has no kernel; an entry point reads extern "C" KERNEL void name(...)')
    entries = "\n".join(f"SHIM_KERNEL({name})" for name in names)
    source = DYNAMIC.sub(r"\1*& \2 = (\1*&)shim::dynamic", source)
    machine = "#define SHIM_RACES\n" * races + SHIM.read_text(encoding="utf-8")
    return f'{machine}\n{cuda_prelude(real)}\n#line 1 "{file}"\n{source}\n{entries}\n'


@cache
def build(source: str, real: str = "double", mode: str = "strict", races: bool = False, debug: bool = False) -> ctypes.CDLL:
    """The loaded library of a source. races: watched for races. debug: with line numbers, for a debugger.

    Raises revode.compiled.native.NoCompiler, CompileError. Cost: a third of a second the first time on this machine.
    """
    if mode not in ("strict", "fast"):
        raise ValueError(f"host: mode={mode!r}; strict or fast")
    why = missing()
    if why:
        raise native.NoCompiler(f"host: {why}")
    found = native.compiler()
    optimise = ("-O0", "-g") if debug else (OPTIMISE[mode],)
    flags = (*optimise, *found.target, native.STRICT if mode == "strict" else native.FAST, "-std=c++17", "-fPIC",
             "-fno-strict-aliasing", "-fsanitize=bounds,thread" if races else "-fsanitize=bounds", "-w")
    if debug:
        folder = Path(tempfile.mkdtemp(prefix="revode-"))          # stays: the debugger shows the source
        (folder / "kernel.cu").write_text(source, encoding="utf-8")
        return ctypes.CDLL(str(_compiled(folder, program(source, real, races, str(folder / "kernel.cu")), flags, found)))
    text = program(source, real, races)
    key = hashed(text, *flags, found.path, found.version_text, found.features)
    path = kept(key, ENDING)
    if path:
        return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory(prefix="revode-") as name:
        path = _compiled(Path(name), text, flags, found)
        return ctypes.CDLL(str(keep(key, ENDING, path.read_bytes()) or path))


def missing() -> str | None:
    """Why kernels cannot run on this machine, or None."""
    if not sys.platform.startswith("linux"):
        return f"the shim is written for Linux (guard pages, sections, fibers), and this is {sys.platform}"
    try:
        native.compiler()
    except native.NoCompiler as error:
        return str(error)
    return None


def _compiled(folder: Path, text: str, flags: tuple[str, ...], found: native.Compiler) -> Path:
    """Compiled and linked apart: linked with the sanitizer's flag, the library would want its runtime."""
    whole, part, library = folder / "program.cpp", folder / "program.o", folder / "program.so"
    whole.write_text(text, encoding="utf-8")
    for command in ((*flags, "-c", str(whole), "-o", str(part)), ("-shared", "-o", str(library), str(part))):
        done = subprocess.run([found.path, *command], capture_output=True, text=True)
        if done.returncode:
            error = re.search(r"^.*error: .*$", done.stderr, re.MULTILINE)
            raise native.CompileError(f"host: {found.version_text} says {error[0] if error else done.stderr[:500]}")
    return library


def launch(source: str, name: str, grid: int | tuple, block: int | tuple, args: Sequence[Any], order: str = "ascending",
           shuffle: int = 0, shared: int = 0, real: str = "double", mode: str = "strict", races: bool = False,
           debug: bool = False) -> None:
    """Run a kernel on NumPy arrays, in place, as revode_cuda.compile.launch does on CuPy arrays.

    Parameters
    ----------
    source, name : CUDA C, and one of its `extern "C"` kernels.
    grid, block : numbers of blocks and of threads in each; a number or up to three.
    args : arrays (contiguous, of the pointer's type), None for a null pointer, and numbers.
    order, shuffle : which thread runs first between two barriers: ascending, descending, or random (drawn anew each time,
        from the seed `shuffle`).
    shared : bytes of dynamic shared memory.
    real, mode : double or float; strict or fast.
    races : look at every access to the arrays and to shared memory. Where two threads touch a place between the same barriers
        and one of them writes, that is a KernelError, whatever the order. Some 5 times slower.
    debug : build for a debugger.

    Raises KernelError with what happened and where; TypeError for arguments that do not fit the kernel's parameters.
    Cost: some 30 ns a thread and barrier.
    """
    if order not in ORDERS:
        raise ValueError(f"host: order={order!r}; {', '.join(ORDERS)}")
    if not 1 <= prod(_triple(block)) <= 1024:
        raise ValueError(f"host: block={block!r}; a block has 1 to 1024 threads")
    library = build(source, real, mode, races, debug)
    if name not in ENTRY.findall(source):
        raise ValueError(f"host: no kernel {name!r} in the source; it has {', '.join(ENTRY.findall(source))}")
    run, types = library[f"shim_run_{name}"], library[f"shim_types_{name}"]
    run.restype = types.restype = ctypes.c_char_p
    with _one_at_a_time:
        kinds = types().decode().split(",")[:-1]
        if len(kinds) != len(args):
            raise TypeError(f"{name}: {len(args)} arguments for {len(kinds)} parameters ({', '.join(kinds)})")
        values = [_argument(f"{name}: argument {i}", kind, arg, args[:i])
                  for i, (kind, arg) in enumerate(zip(kinds, args, strict=True))]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        sizes = (ctypes.c_int64 * len(values))(*(a.nbytes if isinstance(a, np.ndarray) else -1 for a in args))
        how = _Launch((ctypes.c_uint32 * 3)(*_triple(grid)), (ctypes.c_uint32 * 3)(*_triple(block)), shared,
                      ORDERS.index(order), shuffle)
        said = run(ctypes.byref(how), pointers, sizes, len(values))
    if said:
        raise KernelError(f"{name}: {said.decode()}")


def barriers(source: str) -> int:
    """The number of barriers in a source's text."""
    return len(BARRIER.findall(source))


def without_barrier(source: str, number: int) -> str:
    """The source less one barrier, 0 the first: is it missed?"""
    found = list(BARRIER.finditer(source))[number]
    return source[:found.start()] + ";" + source[found.end():]


def _argument(what: str, kind: str, arg: Any, earlier: Sequence[Any]) -> Any:
    """The argument as C holds it."""
    if not kind.endswith("*"):
        if isinstance(arg, np.ndarray) or arg is None:
            raise TypeError(f"{what} is {type(arg).__name__}, for a parameter of type {kind}")
        return SCALARS[kind](arg.item() if isinstance(arg, np.generic) else arg)
    if arg is None:
        return ctypes.c_void_p(None)
    dtype = np.dtype(SCALARS[kind.removeprefix("const ").rstrip("*")])
    if not isinstance(arg, np.ndarray) or arg.dtype != dtype or not arg.flags.c_contiguous:
        given = f"{arg.dtype} array, strides {arg.strides}" if isinstance(arg, np.ndarray) else type(arg).__name__
        raise TypeError(f"{what} is {given}, for a parameter of type {kind}; give a contiguous {dtype} array, or None")
    if not kind.startswith("const ") and not arg.flags.writeable:
        raise TypeError(f"{what} is read-only, for a parameter of type {kind}")
    for other in earlier:                                  # the shim copies, so that memory they share would not be shared
        if isinstance(other, np.ndarray) and np.may_share_memory(arg, other) and (arg.ctypes.data, arg.nbytes) != (
                other.ctypes.data, other.nbytes):
            raise TypeError(f"{what} overlaps another array; pass the same array, or arrays that do not overlap")
    return ctypes.c_void_p(arg.ctypes.data)


def _triple(size: int | tuple) -> tuple[int, ...]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes + (1,) * (3 - len(sizes))

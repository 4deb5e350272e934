"""A CuPy without a GPU: NumPy behind CuPy's refusals (fake_array.py), and a loader that runs kernels on the threads of the host.

    with pretended():               # `import cupy` finds it; revode_cuda works as with a GPU
        ...
        fake_array.DONE             # what a GPU would have done: an entry for each kernel and copy, "wait" where the host waits

What CuPy and a driver would not notice, or only by a crash, is an error here: an argument of another type or size than the
kernel's parameter, more shared memory than the function was allowed, a block too large.

What was compared with CuPy 14.2.0 (its wheel imports without a driver; test_pretended_cupy.py asks it again where it is installed)
and with its sources: every name below; `cupy.cuda.function.Module.load(bytes)`, `get_function`, and a Function's call (grid, block,
args, shared_mem), which takes NumPy scalars by their size, arrays by their pointer, np.uint64(0) as a null pointer, and the current
stream; `get(blocking=, out=)` and `set`; `concatenate(out=)`; `ndarray(shape, dtype, memptr=)`; a capture, which is begun on a
stream of its own (the default stream is refused), in relaxed mode, ends in a Graph, and whose launch goes to the current stream.
cuBLAS is refused in a capture (cupy issue 6290): graphs hold kernels of this package alone. A pool keeps memory by stream: what a
graph refers to is made before the capture, and kept.
"""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from revode_cuda import ahead, compile, fused, host
from revode_cuda.host.translate import kinds

sys.path.append(str(Path(__file__).parent / "unit"))
from fake_array import DONE, FUNCTIONS, FakeArray, put, unwrap_tree, wrap  # noqa: F401

TYPES = {"long long": np.int64, "int": np.int32, "unsigned": np.uint32, "unsigned long long": np.uint64, "double": np.float64,
         "float": np.float32}
WITHOUT_ASKING, MOST = 48 * 1024, 227 * 1024         # bytes of shared memory


class Function:
    """A kernel that was loaded."""

    def __init__(self, source: str, name: str, real: str, mode: str) -> None:
        self.source, self.name, self.real, self.mode = source, name, real, mode
        self.kinds, self.allowed, self.ptr = kinds(source, name, real), WITHOUT_ASKING, id(self)
        LOADED[self.ptr] = self

    def __call__(self, grid: tuple, block: tuple, args: tuple, shared_mem: int = 0) -> None:
        if len(grid) != 3 or len(block) != 3 or not 1 <= prod(block) <= 1024 or not all(1 <= n <= 65535 for n in (grid[1], grid[2])):
            raise ValueError(f"{self.name}: a grid of {grid} blocks of {block} threads")
        if shared_mem > self.allowed:
            raise ValueError(f"{self.name}: CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of shared memory, {self.allowed} are allowed")
        if len(args) != len(self.kinds):
            raise TypeError(f"{self.name}: {len(args)} arguments for {len(self.kinds)} parameters")
        values = [self.passed(i, x) for i, x in enumerate(args)]

        def run() -> None:
            host.launch(self.source, self.name, grid, block, values, real=self.real, mode=self.mode, shared=shared_mem)

        if DONE.captured is not None:
            DONE.captured.append((self.name, run))
            return
        DONE.append(self.name)
        run()

    def passed(self, i: int, x: Any) -> Any:
        """An argument, as the machine of the host takes it."""
        kind, what = self.kinds[i], f"{self.name}: argument {i}"
        if kind.endswith("*"):
            if isinstance(x, FakeArray):
                return x._host
            if type(x) in (np.int64, np.uint64) and x == 0:
                return None
            raise TypeError(f"{what} is {type(x).__name__}, for a parameter of type {kind}")
        if type(x) is not TYPES[kind]:
            raise TypeError(f"{what} is {type(x).__name__}, for a parameter of type {kind}; {TYPES[kind].__name__} has its size")
        return x


LOADED: dict[int, Function] = {}


class Module:
    def load(self, cubin: bytes) -> None:
        self.made = json.loads(cubin)

    def get_function(self, name: str) -> Function:
        return Function(self.made["source"], name, self.made["real"], self.made["mode"])


def allow(function: int, attribute: int, value: int) -> None:
    if value > MOST:
        raise ValueError(f"CUDA_ERROR_INVALID_VALUE: {value} bytes of shared memory, a block may have {MOST}")
    LOADED[function].allowed = value


def compiled(source: str, real: str = "double", arch: str = "sm_90", mode: str = "strict", options: Any = ()) -> compile.Binary:
    """In place of NVRTC: what the loader is to run. (No registers are known; those that tests ask for are few.)"""
    text = json.dumps({"source": source, "real": real, "mode": mode}).encode()
    return compile.Binary(text, "", "", {name: compile.Resources(32, 0, 0, 0) for name in host.ENTRY.findall(source)})


class Graph:
    """The launches of a capture. ran: the names of the kernels of all graphs, in the order in which they ran."""
    ran: list[str] = []

    def __init__(self, recorded: list) -> None:
        self.recorded = recorded

    def launch(self) -> None:
        DONE.append("graph")
        for name, run in self.recorded:
            self.ran.append(name)
            run()


class Stream:
    refuses = False                   # whether there is no capture on this device

    def __init__(self, **options: Any) -> None: pass

    def begin_capture(self) -> None:
        if self.refuses or DONE.captured is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: this stream is not captured")
        DONE.captured = []

    def end_capture(self) -> Graph:
        recorded, DONE.captured = DONE.captured, None
        return Graph(recorded or [])

    def __enter__(self) -> Stream: return self
    def __exit__(self, *error: Any) -> None: pass
    def synchronize(self) -> None: DONE.append("wait")


class Event:
    """A time on the device's clock, which is the host's."""

    def record(self) -> None: self.at = time.perf_counter()
    def synchronize(self) -> None: DONE.append("wait")


def there(name: str) -> Any:
    """A function of NumPy that makes an array on the device."""
    def function(*args: Any, **options: Any) -> Any:
        if name == "empty" and DONE.captured is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: memory is allocated while a stream is capturing")
        if name != "empty" and name != "broadcast_to":
            DONE.append(name)
        return wrap(getattr(np, name)(*unwrap_tree(args), **unwrap_tree(options)))
    return function


def asarray(x: Any, dtype: Any = None) -> FakeArray:
    if isinstance(x, FakeArray):
        return x if dtype in (None, x.dtype) else x.astype(dtype)
    return put(np.asarray(x, dtype))


def ascontiguousarray(x: Any, dtype: Any = None) -> FakeArray:
    x = asarray(x, dtype)
    return x if x.flags.c_contiguous else x.copy()


def module() -> ModuleType:
    cupy: Any = ModuleType("cupy")
    cupy.__version__, cupy.is_available, cupy.ndarray = "pretended", lambda: True, FakeArray
    cupy.asarray, cupy.ascontiguousarray = asarray, ascontiguousarray
    for name in ("zeros", "ones", "empty", "concatenate", "broadcast_to", "array", "arange", "add"):
        setattr(cupy, name, there(name))
    device = SimpleNamespace(id=0, compute_capability="90", attributes={"MaxSharedMemoryPerBlockOptin": MOST})
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.Device, cupy.cuda.Stream, cupy.cuda.get_current_stream = lambda: device, Stream, Stream
    cupy.cuda.Event, cupy.cuda.get_elapsed_time = Event, lambda begin, end: 1e3 * (end.at - begin.at)
    cupy.cuda.runtime = SimpleNamespace(
        driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000, getDeviceCount=lambda: 1, getDeviceProperties=lambda device: {
            "name": b"pretended", "major": 9, "minor": 0, "multiProcessorCount": 132, "totalGlobalMem": 1 << 37})
    cupy.random = SimpleNamespace(default_rng=lambda seed: SimpleNamespace(
        standard_normal=lambda shape: put(np.random.default_rng(seed).standard_normal(shape))))
    cupy.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 1 << 20)
    cupy.cuda.function = SimpleNamespace(Module=Module)
    cupy.cuda.driver = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8, funcSetAttribute=allow)
    return cupy


@contextmanager
def pretended() -> Iterator[Any]:
    cupy = module()
    caches = (fused.gpu, compile._module, compile._function)

    def forget() -> None:
        for cache in caches:
            cache.cache_clear()
        LOADED.clear()
        ahead.hints().clear()

    forget()
    with patch.dict(sys.modules, {"cupy": cupy, "cupy.cuda": cupy.cuda}), patch.object(compile, "compile", compiled), \
            patch.object(FakeArray, "__module__", "cupy"):
        yield cupy
    forget()


def play(playing: Any = pretended()) -> None:      # noqa: B008  (held here: what is let go ends)
    """From now on, in this process."""
    playing.__enter__()

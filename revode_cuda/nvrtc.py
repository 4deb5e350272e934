"""NVIDIA's run-time compiler by its own C interface: a text in, machine code, PTX and a log out. Needs no GPU and no driver.

    cubin, ptx, log = library().compile('extern "C" __global__ void k() {}', ("--gpu-architecture=sm_90",))

Not through CuPy, whose getCUBIN drops the last byte; but where CuPy is installed, it is asked where the library lies.
"""
from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress
from ctypes.util import find_library
from functools import cache
from pathlib import Path

INSTALL = "pip install nvidia-cuda-nvrtc"
NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll")


class NVRTCError(RuntimeError):
    """NVRTC refused a source; log is what it says of it."""

    def __init__(self, error: str, log: str) -> None:
        super().__init__(error)
        self.log = log


class Library:
    """The functions of a loaded library."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self.loaded = loaded
        loaded.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.check(loaded.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = (major.value, minor.value)

    def check(self, code: int, log: str = "") -> None:
        if code:
            raise NVRTCError(self.loaded.nvrtcGetErrorString(code).decode(), log)

    def read(self, program: ctypes.c_void_p, what: str) -> bytes:
        """Log, PTX or CUBIN, whole."""
        size = ctypes.c_size_t()
        self.check(self.loaded[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
        content = ctypes.create_string_buffer(size.value)
        self.check(self.loaded[f"nvrtcGet{what}"](program, content))
        return content.raw

    def compile(self, text: str, flags: Sequence[str]) -> tuple[bytes, str, str]:
        """Cubin, PTX and log. Raises NVRTCError."""
        program = ctypes.c_void_p()
        self.check(self.loaded.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None))
        try:
            options = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
            code = self.loaded.nvrtcCompileProgram(program, len(flags), options)
            log = self.read(program, "ProgramLog").rstrip(b"\0").decode()
            self.check(code, log)
            return self.read(program, "CUBIN"), self.read(program, "PTX").rstrip(b"\0").decode(), log
        finally:
            self.loaded.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def library() -> Library:
    """NVRTC, wherever it is. Raises ImportError with what to install."""
    with suppress(ImportError, OSError, RuntimeError):
        from cupy.cuda import nvrtc
        nvrtc.getVersion()                       # CuPy knows where it lies; what is loaded has a name from now on
    for place in places():
        with suppress(OSError, AttributeError):
            return Library(ctypes.CDLL(place))
    raise ImportError(f"revode_cuda compiles with NVRTC, and finds none; install it with `{INSTALL}`. No GPU is needed to compile.")


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    try:
        library()
    except ImportError as error:
        return str(error)
    return None


def places() -> list[str]:
    """Of the wheels, of the system, and by name."""
    wheels = [str(path) for folder in sys.path for name in ("libnvrtc.so.*", "nvrtc64_*_0.dll")
              for path in sorted(Path(folder or ".").glob(f"nvidia/*/*/{name}"), reverse=True)]
    found = find_library("nvrtc")
    return [*wheels, *NAMES, *([found] if found else [])]

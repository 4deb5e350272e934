"""The native host: generated C++ becomes a loaded library.

    library = build(source, strict=True)                      # compiled once, then from the cache
    run_tiles(library.forward, tiles, None, arguments(y0, y1, 1000))

Libraries are kept in `cache_folder()` under <key>-<digest>: the key is a hash of everything that decides what the compiler
makes (source, flags, compiler, what this processor can do), the digest a hash of the library itself, so that a damaged one
is seen and built again. A library appears there whole or not at all, by a rename; when the folder cannot be used, a
temporary one takes its place for the life of the process. compiler-<key> holds what a compiler said of itself.
"""
from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import IO, NamedTuple

from .calls import arguments, cores, run_tiles

try:
    import fcntl
except ImportError:                  # Windows
    fcntl = None                     # type: ignore[assignment]

__all__ = ["CompileError", "Compiler", "NoCompiler", "arguments", "build", "cache_folder", "compiler", "cores", "run_tiles"]

FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions", "-fno-rtti")
# Passes of g++ that take a sixth of its time and find nothing to do in loops that are written as they are to run, or make a copy of a
# product for each of its sizes.
QUICK = ("-fno-tree-loop-distribution", "-fno-tree-loop-distribute-patterns", "-fno-loop-unroll-and-jam", "-fno-ipa-cp-clone")
STRICT, FAST = "-ffp-contract=off", "-ffp-contract=fast"
CLANG_FAST = "-ffp-contract=on"     # within a statement, and not where a pragma forbids it, as the noise does; g++ takes an attribute
# A library calls nothing but what a compiler makes of a copy (memcpy), which is in the process: without the others it is linked in a
# third of the time. (Elsewhere linkers want to know where everything is.)
SHARED = {"win32": ("-shared",), "linux": ("-shared", "-fPIC", "-nostdlib")}.get(sys.platform, ("-shared", "-fPIC"))
ENDING = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
PROCESSOR = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")        # in /proc/cpuinfo, of those that are common
ENTRIES = 200                        # libraries kept in the cache folder: some 30 kB each
ABANDONED = 3600.0                   # seconds after which a build that left its folder behind is taken to be dead
INSTALL = {"darwin": "run xcode-select --install", "win32": "install MinGW-w64 and put its g++ on the PATH"}.get(
    sys.platform, "install g++ or clang++ with the system's package manager")

FULL = "No space left on device", "Disk quota exceeded"

_loaded: dict[str, ctypes.CDLL] = {}
_refused: dict[str, str] = {}        # sources that the compiler did not take, and what it said: asked once
_building: dict[str, threading.Lock] = {}        # by key: one thread compiles, the others wait
_compilers: set[subprocess.Popen] = set()        # at work
_locks: set[IO] = set()                          # files of libraries that this process builds
_over = False                                    # whether the process ends


class NoCompiler(RuntimeError):
    """There is no C++ compiler on this machine."""


class CompileError(RuntimeError):
    """The compiler refused a generated source; the message names the operation of the field that it came from."""


class Compiler(NamedTuple):
    """A C++ compiler that works."""
    path: str
    version_text: str
    target: tuple[str, ...] = ()     # flags for this processor: -march=native, where the compiler takes it
    features: str = ""               # hash of the macros that it predefines with them: they name what the processor can do


# The compiler ---------------------------------------------------------------------------------------------------------
def compiler() -> Compiler:
    """The first of g++, clang++ and c++ on the PATH that works. Raises NoCompiler."""
    for path in filter(None, map(shutil.which, ("g++", "clang++", "c++"))):
        if found := _probe(path):
            return found
    raise NoCompiler(f"native: found no C++ compiler (looked for g++, clang++ and c++): {INSTALL}, or use backend=\"replay\", "
                     "which needs none.")


@cache
def _probe(path: str) -> Compiler | None:
    """What the compiler says of itself; what it said to an earlier process, while it and the processor are the same.

    A name on the PATH may be an empty promise (on macOS, before the tools are installed).
    """
    with suppress(OSError, ValueError):              # not there, or damaged
        check, *said = _answer(path).read_text().splitlines()
        if check == _hash("\n".join(said)):
            return Compiler(path, said[0], tuple(said[2:]), said[1])
    for target in (("-march=native",), ()):
        with suppress(OSError):
            done = subprocess.run([path, *target, "-dM", "-E", "-x", "c++", "-"], input="", capture_output=True, text=True)
            version = re.search(r'__VERSION__ "(.*)"', done.stdout)
            if done.returncode == 0 and version:
                found = Compiler(path, f"{Path(path).stem} {version[1]}", target, _hash(done.stdout))
                _keep(path, "\n".join((found.version_text, found.features, *target)))
                return found
    return None


def _answer(path: str) -> Path:
    """Where is kept what this very file said on this processor. Raises OSError where the system does not tell what that can do."""
    with open("/proc/cpuinfo") as file:
        can = [line for line in takewhile(str.strip, file) if line.split("\t")[0] in PROCESSOR]
    at, folder = os.stat(path), cache_folder()
    if len(can) < len(PROCESSOR) or not folder.is_absolute():
        raise OSError("nobody knows")
    return folder / f"compiler-{_hash(repr((path, os.path.realpath(path), at.st_mtime_ns, at.st_size, at.st_ino, can)))}"


def _keep(path: str, said: str) -> None:
    """For the next process, whole or not at all."""
    with suppress(OSError):
        place = _answer(path)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = place.with_suffix(f".{os.getpid()}")
        try:
            new.write_text(f"{_hash(said)}\n{said}")
            os.replace(new, place)
        finally:
            new.unlink(missing_ok=True)


def _compile(source: str, flags: Iterable[str], out: Path, found: Compiler) -> None:
    """In a session of its own, so that Ctrl-C in a terminal is no failed compile; whatever ends the wait for it ends it whole."""
    command = [found.path, *flags, "-o", str(out), "-x", "c++", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "LC_ALL": "C"}, start_new_session=True) as child:
        _compilers.add(child)
        if _over:                                    # a thread that has come here while the process ends
            _kill(child)
        try:
            _, said = child.communicate(source)
        except BaseException:
            _kill(child)
            child.wait()
            raise
        finally:
            _compilers.discard(child)
    if child.returncode and (full := next(filter(said.__contains__, FULL), None)):
        raise OSError(f"{found.version_text} says: {full}")
    if child.returncode:
        raise CompileError(_explained(source, said, found))


def _kill(child: subprocess.Popen) -> None:
    """The compiler, and what it has started."""
    with suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL) if hasattr(os, "killpg") else child.kill()


def stop() -> None:
    """End all compilers of this process, for good."""
    global _over
    _over = True
    for child in list(_compilers):
        _kill(child)


def _forked() -> None:
    """A forked child has none of the threads that compile: neither their locks nor their compilers are its own."""
    for lock in _locks:                              # its copy of the file would hold that lock as long as it lives
        lock.close()
    _locks.clear()
    _building.clear()
    _compilers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _explained(source: str, said: str, found: Compiler) -> str:
    """The operation (the last `// op:` above the first error), the line, and the compiler's own words."""
    error = re.search(r"<stdin>:(\d+):(?:\d+:)? (?:fatal )?error: (.*)", said)
    if not error:
        return f"native: {found.version_text} could not compile the generated source: {' '.join(said.split())[:500] or 'no message'}"
    lines = source.splitlines()
    at = min(int(error[1]), len(lines))
    ops = [line.split("// op:", 1)[1].strip() for line in lines[:at] if line.lstrip().startswith("// op:")]
    return (f"native: cannot compile the operation {ops[-1] if ops else '(before the first one)'}: line {at} of the generated "
            f"source is\n    {lines[at - 1].strip()}\nand {found.version_text} says: {error[2]}")


# The cache ------------------------------------------------------------------------------------------------------------
def build(source: str, strict: bool, extra_strict_source: str | None = None) -> ctypes.CDLL:
    """The library of a C++ source, compiled at most once on this machine.

    Parameters
    ----------
    source : no includes; entry points are `extern "C"`
    strict : operations are rounded one by one, as NumPy does; otherwise products and sums may be contracted (FMA)
    extra_strict_source : a second source that is compiled strictly in either case, and linked to the first

    Raises NoCompiler, CompileError. Cost: some .3 s the first time, 20 ms in another process, .1 ms again in this one.
    """
    found = compiler()
    clang = "clang" in found.version_text.lower()
    flags = (*FLAGS, *found.target, *(() if clang else QUICK), STRICT if strict else CLANG_FAST if clang else FAST)
    key = _hash("\0".join((source, extra_strict_source or "", *flags, found.path, found.version_text, found.features)))
    with _building.setdefault(key, threading.Lock()):
        if key in _refused:
            raise CompileError(_refused[key])
        if key not in _loaded:
            _loaded[key] = _from_folders(key, source, flags, extra_strict_source, found)
        return _loaded[key]


def cache_folder() -> Path:
    """Where this system keeps what programs can make again."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local"), "revode")
    if sys.platform == "darwin":
        return Path(home, "Library", "Caches", "revode")
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "revode")


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="revode-", ignore_cleanup_errors=True)


def _from_folders(key: str, source: str, flags: tuple[str, ...], extra: str | None, found: Compiler) -> ctypes.CDLL:
    """From the cache, or built into it; where that cannot be (read-only, full, noexec), the same in a temporary folder."""
    reason: Exception | None = None
    for folder in (cache_folder(), None):
        try:
            folder = folder or Path(_temporary_folder().name)
            if not folder.is_absolute():             # no home folder: expanduser leaves its ~
                continue
            library = _stored(folder, key)
            if library:
                return library
            with _alone(folder, key):
                return _stored(folder, key) or _store(folder, key, source, flags, extra, found)
        except OSError as error:
            reason = error
    raise CompileError(f"native: there is no place where the generated library could be made, kept and loaded: {reason}")


def _stored(folder: Path, key: str) -> ctypes.CDLL | None:
    """The library of this key, if it is there and sound; a damaged one is removed."""
    for path in folder.glob(f"{key}-*{ENDING}"):
        with suppress(OSError):
            if path.stem == f"{key}-{_hash(path.read_bytes())}":
                library = ctypes.CDLL(str(path))
                with suppress(OSError):
                    os.utime(path)                   # the time of the last use decides what _tidy keeps
                return library
        with suppress(OSError):
            path.unlink()
    return None


@contextmanager
def _alone(folder: Path, key: str) -> Iterator[None]:
    """While no other process builds this library: it is built once, and the others find it. (Where there are no such locks each
    builds its own, and one of them stays.)"""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"building-{key}.lock"
    with path.open("w") as lock:
        _locks.add(lock)
        with suppress(OSError):                      # a file system without locks
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            _locks.discard(lock)
            with suppress(OSError):                  # who waits for this very file will find the library
                path.unlink()


def _store(folder: Path, key: str, source: str, flags: tuple[str, ...], extra: str | None, found: Compiler) -> ctypes.CDLL:
    place = Path(tempfile.mkdtemp(prefix="building-", dir=folder))
    made, part = place / f"library{ENDING}", place / "strict.o"
    try:
        if extra is not None:
            _compile(extra, (*flags, STRICT, "-c", *SHARED[1:]), part, found)
        _compile(source, (*flags, *SHARED, *([str(part)] if extra is not None else [])), made, found)
        path = folder / f"{key}-{_hash(made.read_bytes())}{ENDING}"
        os.replace(made, path)
    except CompileError as error:
        _refused[key] = str(error)
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
    _tidy(folder)
    return ctypes.CDLL(str(path))


def _tidy(folder: Path) -> None:
    """Keep the ENTRIES libraries that were used last, and no abandoned builds."""
    with suppress(OSError):                          # another process tidies too
        for path in sorted(folder.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime)[:-ENTRIES]:
            path.unlink(missing_ok=True)
        for path in folder.glob("building-*"):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink() if path.suffix == ".lock" else shutil.rmtree(path, ignore_errors=True)


def _hash(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:32]

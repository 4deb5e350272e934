"""The native host: build, cache, messages, threads. Every test has a cache folder of its own."""
import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from revode.compiled import calls, native
from tests.compiler import needs_compiler

pytestmark = pytest.mark.optimised
posix = pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for a compiler")

SOURCE = """
// op: y = a x + b
extern "C" void axpb(int tile, const double* x, double* y, long long n, double a, double b) {
    for (long long i = 0; i < n; i++) y[tile * n + i] = a * x[tile * n + i] + b;
}
"""

CACHE_FOLDER = native.cache_folder                   # the real one: tests/conftest.py puts another in its place


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache folder, and nothing loaded."""
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(native, "_loaded", {})
    monkeypatch.setattr(native, "_refused", {})
    yield tmp_path / "cache"
    native._probe.cache_clear()
    if native._temporary_folder.cache_info().currsize:
        native._temporary_folder().cleanup()
        native._temporary_folder.cache_clear()


def files(folder):
    """All but what compilers have said of themselves."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("compiler-"))


def axpb(library, n=1000, tiles=1, threads=None):
    x, y = np.random.default_rng(0).standard_normal((2, tiles, n))
    native.run_tiles(library.axpb, tiles, threads, native.arguments(x, y, n, 0.1, 0.3))
    return x, y


# Building ---------------------------------------------------------------------------------------------------------------
@needs_compiler
def test_strict_rounds_like_numpy_and_fast_is_within_one_rounding():
    x, y = axpb(native.build(SOURCE, strict=True))
    assert (y == 0.1 * x + 0.3).all()
    _, fast = axpb(native.build(SOURCE, strict=False))
    # One contraction leaves out the rounding of the product: at most half an ulp of it, and another rounding of the sum.
    assert (abs(fast - y) <= 2.0 ** -53 * (abs(0.1 * x) + 2 * abs(y))).all()
    macros = subprocess.run([native.compiler().path, *native.compiler().target, "-dM", "-E", "-x", "c++", "-"], input="",
                            capture_output=True, text=True).stdout
    assert (fast != y).any() == ("__FP_FAST_FMA " in macros)


@needs_compiler
def test_the_extra_source_is_strict_in_a_fast_library():
    main = """extern "C" double one(double, double, double);
              extern "C" double call(double a, double b, double c) { return one(a, b, c); }"""
    extra = 'extern "C" double one(double a, double b, double c) { return a * b + c; }'
    library = native.build(main, strict=False, extra_strict_source=extra)
    library.call.restype = ctypes.c_double
    a = 1 + 2.0 ** -30
    assert library.call(*map(ctypes.c_double, (a, a, -1 - 2.0 ** -29))) == 0.0      # contracted it would be 2^-60


@needs_compiler
def test_one_source_is_loaded_once_and_another_is_another(folder):
    first = native.build(SOURCE, strict=True)
    assert native.build(SOURCE, strict=True) is first
    assert native.build(SOURCE, strict=False) is not first
    assert native.build(SOURCE + "// and\n", strict=True) is not first
    assert native.build(SOURCE, strict=True, extra_strict_source="// more\n") is not first
    assert len(files(folder)) == 4


@needs_compiler
def test_a_second_process_does_not_compile(folder, monkeypatch):
    native.build(SOURCE, strict=True)
    native._loaded.clear()
    path = folder / files(folder)[0]
    assert len(files(folder)) == 1
    os.utime(path, (1, 1))
    monkeypatch.setattr(native, "_compile", None)
    x, y = axpb(native.build(SOURCE, strict=True))
    assert (y == 0.1 * x + 0.3).all()
    assert path.stat().st_mtime > 1                  # used: it is young again


@needs_compiler
def test_another_compiler_or_processor_is_another_key(folder, monkeypatch):
    native.build(SOURCE, strict=True)
    found = native.compiler()
    for other in (found._replace(version_text="g++ 99"), found._replace(features="another processor"), found._replace(target=())):
        monkeypatch.setattr(native, "compiler", lambda other=other: other)
        native.build(SOURCE, strict=True)
    assert len({name.split("-")[0] for name in files(folder)}) == 4


@needs_compiler
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists() or "flags" not in Path("/proc/cpuinfo").read_text(), reason="no such list here")
def test_a_compiler_is_asked_once_a_machine(folder, monkeypatch, tmp_path):
    """What it said is kept, for this file and this processor alone; damaged or of another one it is asked again."""
    path, asked = native.compiler().path, []                         # which may have been asked before this test
    run, here = native.subprocess.run, Path("/proc/cpuinfo").read_text()
    monkeypatch.setattr(native.subprocess, "run", lambda *args, **options: asked.append(args) or run(*args, **options))

    def again(path=path):
        native._probe.cache_clear()
        asked.clear()
        return native._probe(path), len(asked)

    found, _ = again()
    assert again() == (found, 0)
    (place,) = folder.glob("compiler-*")
    place.write_text(place.read_text().replace("march=native", "march=other"))
    assert again() == (found, 1) and again() == (found, 0)           # damaged: asked, and kept anew
    for text in (here.replace("flags\t\t: ", "flags\t\t: new ", 1), here.replace("model name\t: ", "model name\t: other ", 1)):
        other = tmp_path / "cpuinfo"
        other.write_text(text)
        monkeypatch.setattr(native, "open", lambda name, other=other: other.open(), raising=False)
        assert again()[1] == 1 and again()[1] == 0
    other.write_text("processor\t: 0\n")                             # a system that does not tell what the processor can do
    assert again()[1] == 1 and again()[1] == 1
    monkeypatch.delattr(native, "open")
    script = tmp_path / "g++"
    for version in ("1", "2"):                                       # the same name, another compiler
        script.unlink(missing_ok=True)
        script.write_text(f"#!/bin/sh\necho '#define __VERSION__ \"{version}\"'\n")
        script.chmod(0o755)
        assert again(str(script))[0].version_text == f"g++ {version}"
        assert again(str(script))[1] == 0


@needs_compiler
def test_two_processes_at_once(folder):
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        import numpy as np
        from revode.compiled import native
        native.cache_folder = lambda: Path({str(folder)!r})
        x, y = np.ones(3), np.zeros(3)
        print("ready", flush=True)
        sys.stdin.readline()
        native.run_tiles(native.build({SOURCE!r}, True).axpb, 1, None, native.arguments(x, y, 3, 2.0, 5.0))
        print(*y)
    """)
    both = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (out, err) == ("7.0 7.0 7.0\n", "")
    names = files(folder)                            # one where the compiler makes the same file twice; none half done
    assert 1 <= len(names) <= 2 and all(name.endswith(native.ENDING) for name in names)


@needs_compiler
@pytest.mark.parametrize("damage", ["flipped", "shortened", "not a library"])
def test_a_damaged_library_is_built_again(folder, damage):
    native.build(SOURCE, strict=True)
    native._loaded.clear()
    path = folder / files(folder)[0]
    assert len(files(folder)) == 1
    content, key = path.read_bytes(), path.stem.split("-")[0]
    path.unlink()                                    # it is loaded: its pages must stay
    if damage == "flipped":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "shortened":
        path.write_bytes(content[:len(content) // 2])
    else:                                            # the digest is right, and yet it cannot be loaded
        path = folder / f"{key}-{native._hash(b'nonsense')}{native.ENDING}"
        path.write_bytes(b"nonsense")
    x, y = axpb(native.build(SOURCE, strict=True))
    assert (y == 0.1 * x + 0.3).all()
    path = folder / files(folder)[0]
    assert len(files(folder)) == 1
    assert path.stem == f"{key}-{native._hash(path.read_bytes())}"


@needs_compiler
@pytest.mark.parametrize("name", ["a file/cache", "~/cache"])
def test_where_the_folder_cannot_be_used_a_temporary_one_is(folder, tmp_path, monkeypatch, name):
    """A file in the way, as for one who may not write; and no home folder."""
    (tmp_path / "a file").write_text("")
    path = Path(name) if name.startswith("~") else tmp_path / name
    monkeypatch.setattr(native, "cache_folder", lambda: path)
    monkeypatch.chdir(tmp_path)
    x, y = axpb(native.build(SOURCE, strict=True))
    assert (y == 0.1 * x + 0.3).all()
    assert files(tmp_path) == ["a file"]


@needs_compiler
def test_the_folder_is_kept_small(folder, monkeypatch):
    monkeypatch.setattr(native, "ENTRIES", 3)
    folder.mkdir()
    for age in range(5):
        path = folder / f"old{age}{native.ENDING}"
        path.write_text("")
        os.utime(path, (1000 - age, 1000 - age))
    for name, at in (("building-dead", 1000.0), ("building-now", time.time())):
        (folder / name).mkdir()
        os.utime(folder / name, (at, at))
    native.build(SOURCE, strict=True)
    assert [name for name in files(folder) if name.startswith(("old", "building"))] == [
        "building-now", f"old0{native.ENDING}", f"old1{native.ENDING}"]
    assert len(files(folder)) == 4


@pytest.mark.parametrize(("platform", "variables", "expected"), [
    ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/revode"),
    ("linux", {"XDG_CACHE_HOME": ""}, "/u/.cache/revode"),
    ("darwin", {"XDG_CACHE_HOME": "/x"}, "/u/Library/Caches/revode"),
    ("win32", {"LOCALAPPDATA": "/local"}, "/local/revode"),
    ("win32", {"LOCALAPPDATA": ""}, "/u/AppData/Local/revode"),
])
def test_the_folder_is_where_the_system_wants_it(monkeypatch, platform, variables, expected):
    monkeypatch.undo()                               # the fixture's folder; nothing is written here
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "/u"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert CACHE_FOLDER() == Path(expected)


# Messages ---------------------------------------------------------------------------------------------------------------
def test_no_compiler_says_what_to_do(monkeypatch):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    with pytest.raises(native.NoCompiler, match=r"g\+\+, clang\+\+ and c\+\+.*install.*backend=\"replay\""):
        native.build(SOURCE, strict=True)


@needs_compiler
def test_a_failing_compile_names_the_operation(folder):
    source = ("// op: tanh (3,)\nint a;\n\n    // op: matmul (3,) (3, 2)\n    double b = 1;\n    double c = nobody;\n"
              "// op: add\nint d = e;\n")
    with pytest.raises(native.CompileError) as error:
        native.build(source, strict=True)
    message = str(error.value)
    assert "operation matmul (3,) (3, 2): line 6 of" in message
    assert "\n    double c = nobody;\n" in message
    assert native.compiler().version_text in message and "nobody" in message.split("says:")[1]
    assert len(message.splitlines()) == 3
    assert files(folder) == []
    with pytest.raises(native.CompileError, match="before the first one"):
        native.build("int d = e;", strict=True)


@needs_compiler
def test_a_failing_link_or_load_says_so():
    with pytest.raises(native.CompileError, match="nowhere"):
        native.build('extern "C" int nowhere();\nextern "C" int call() { return nowhere(); }\n', strict=True)
    with pytest.raises(native.CompileError, match="could not compile"):
        native.build('extern "C" int twice() { return 1; }\n', strict=True,
                     extra_strict_source='extern "C" int twice() { return 2; }\n')


def stand_in(tmp_path, monkeypatch, name, script):
    path = tmp_path / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    which = native.shutil.which
    monkeypatch.setattr(native.shutil, "which", lambda asked: str(path) if asked == name else which(asked))
    return str(path)


@posix
@needs_compiler
def test_a_compiler_that_refuses_march_native_works_without(tmp_path, monkeypatch):
    real = native.compiler().path
    path = stand_in(tmp_path, monkeypatch, "g++", f'case "$*" in *-march=*) exit 1;; esac\nexec {real} "$@"\n')
    assert native.compiler().path == path and native.compiler().target == ()
    x, y = axpb(native.build(SOURCE, strict=True))
    assert (y == 0.1 * x + 0.3).all()


@posix
@needs_compiler
def test_a_compiler_that_does_nothing_is_passed_over(tmp_path, monkeypatch):
    """As on macOS before the tools are installed."""
    found = native.compiler()
    real = found.path
    first = stand_in(tmp_path, monkeypatch, "g++", "exit 1\n")
    monkeypatch.setattr(native.shutil, "which", {"g++": first, "c++": real}.get)
    assert native.compiler() == found


@posix
@needs_compiler
def test_on_a_full_disk_a_temporary_folder_is_used(folder, tmp_path, monkeypatch):
    """The compiler's words for it are a failure of the folder, and not of the source; nothing half written stays there."""
    real = native.compiler().path
    stand_in(tmp_path, monkeypatch, "g++", f"""case "$*" in *{folder}*)
    echo '/usr/bin/ld: final link failed: No space left on device' >&2; exit 1;; esac\nexec {real} "$@"\n""")
    x, y = axpb(native.build(SOURCE, strict=True))
    assert (y == 0.1 * x + 0.3).all()
    assert files(folder) == []

    def full(path, text):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    before = sorted(folder.iterdir())
    monkeypatch.setattr(native.Path, "write_text", full)
    native._keep(real, "said")
    assert sorted(folder.iterdir()) == before


@posix
def test_the_compiler_is_out_of_reach_of_the_terminal(tmp_path, monkeypatch):
    """Ctrl-C goes to the group in the foreground; a compile that it reached would look like one that failed."""
    real, seen = native.compiler().path, tmp_path / "groups"
    stand_in(tmp_path, monkeypatch, "g++", f"""{sys.executable} -c 'import os; print(os.getpgrp())' >> {seen}\nexec {real} "$@"\n""")
    seen.unlink(missing_ok=True)
    native.build(SOURCE, strict=True)
    assert os.getpgrp() != int(seen.read_text().split()[-1])


@posix
def test_ctrl_c_ends_a_compile_and_what_it_has_started(tmp_path, monkeypatch, interruptible):
    """The next build is one as if nothing had been; the process behind the compiler's own front is gone as well."""
    seen, real = tmp_path / "child", native.compiler()
    path = stand_in(tmp_path, monkeypatch, "g++", f"sleep 60 & echo $! > {seen}\nwait\n")
    monkeypatch.setattr(native, "compiler", lambda: real._replace(path=path))
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        native.build(SOURCE, strict=True)
    for _ in range(100):                             # until the system has done it
        try:
            os.kill(int(seen.read_text()), 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the compiler lives on")
    monkeypatch.setattr(native, "compiler", lambda: real)
    x, y = axpb(native.build(SOURCE, strict=True))
    assert (y == 0.1 * x + 0.3).all()


@needs_compiler
def test_a_source_that_was_refused_is_not_compiled_again(monkeypatch):
    asked, run = [], native._compile
    monkeypatch.setattr(native, "_compile", lambda *rest: asked.append(rest) or run(*rest))
    said = []
    for _ in range(3):
        with pytest.raises(native.CompileError, match="refused_once") as error:
            native.build("// op: none\nint a = refused_once;\n", strict=True)
        said.append(str(error.value))
    assert len(asked) == 1 and len(set(said)) == 1


# Arguments --------------------------------------------------------------------------------------------------------------
@needs_compiler
@pytest.mark.parametrize("dtype", calls.DTYPES, ids=str)
def test_arguments_arrive(dtype):
    ctype = {"float32": "float", "float64": "double", "int32": "int", "int64": "long long", "uint64": "unsigned long long"}[dtype.name]
    library = native.build(f"""extern "C" void take({ctype}* a, void* nothing, long long n, double x, long long flag, double y) {{
        a[0] = a[1] + ({ctype})n + ({ctype})x + ({ctype})flag + ({ctype})y + (nothing ? 100 : 0); }}""", strict=True)
    a = np.array([0, 7], dtype)
    library.take(*native.arguments(a, None, 2 ** 20, 3.0, True, np.float32(5)))
    assert a[0] == 7 + 2 ** 20 + 3 + 1 + 5
    library.take(*native.arguments(a, a, np.int64(-1), np.float64(1), np.bool_(False), 0.0))
    assert a[0] == 107


def test_arguments_that_c_would_misread_are_refused():
    a = np.zeros((4, 6))
    for good in (a, a[2:], a[1:2, 2:3], np.zeros(()), np.zeros((0, 3))):
        assert native.arguments(good)[0].array is good
    for bad in (a.T, a[:, :3], a[::2]):
        with pytest.raises(ValueError, match="not C-contiguous"):
            native.arguments(bad)
    for bad, name in ((np.zeros(2, np.float16), "float16"), (np.zeros(2, bool), "bool"), (np.zeros(2, ">f8"), ">f8"),
                      ([1.0], r"\[1.0\]"), ("text", "text")):
        with pytest.raises(TypeError, match=name):
            native.arguments(bad)


def test_arguments_hold_their_arrays():
    a = np.zeros(3)
    kept, seen = native.arguments(a), weakref.ref(a)
    del a
    gc.collect()
    assert seen() is not None
    del kept
    gc.collect()
    assert seen() is None


# Threads ----------------------------------------------------------------------------------------------------------------
@needs_compiler
@pytest.mark.parametrize("tiles", [1, 2, 7])
def test_threads_do_not_change_results(tiles):
    library = native.build(SOURCE, strict=True)
    for threads in (1, 2, 3, 10, None):
        x, y = axpb(library, tiles=tiles, threads=threads)
        assert (y == 0.1 * x + 0.3).all()


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_every_tile_is_run_once(threads):
    seen = []
    native.run_tiles(lambda tile, *rest: seen.append((tile, *rest)), 11, threads, (1, "a"))
    assert sorted(seen) == [(tile, 1, "a") for tile in range(11)]
    native.run_tiles(seen.append, 0, threads, ())
    assert len(seen) == 11
    for bad in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            native.run_tiles(seen.append, 2, bad, ())


@needs_compiler
def test_two_tiles_run_at_the_same_time():
    """Each waits, in C, for the other; one after the other would give up after two seconds or so."""
    library = native.build("""extern "C" void meet(int tile, volatile long long* here, long long* met, long long limit) {
        here[tile] = 1;
        while (!here[1 - tile] && limit-- > 0) {}
        met[tile] = here[1 - tile];
    }""", strict=True)
    here, met = np.zeros((2, 2), np.int64)
    native.run_tiles(library.meet, 2, 2, native.arguments(here, met, 2 * 10 ** 9))
    assert met.tolist() == [1, 1]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_exception_reaches_the_caller_and_stops_the_rest(threads, where):
    seen = []

    def fail(tile):
        if tile == where:
            raise ZeroDivisionError(f"tile {tile}")
        time.sleep(0.001)
        seen.append(tile)

    with pytest.raises(ZeroDivisionError, match=f"tile {where}"):
        native.run_tiles(fail, 3000, threads, ())
    assert len(seen) < 1000                          # two shares of 1000 if the others went on
    native.run_tiles(seen.append, 2, threads, ())    # the pool is there for the next


@posix
@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c(threads, interruptible):
    started, ended = [], []

    def slow(tile):
        started.append(tile)
        time.sleep(0.01)
        ended.append(tile)

    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        native.run_tiles(slow, 1000, threads, ())
    count = len(started)
    assert count < 500
    if threads > 1:
        assert len(ended) >= count - 1               # only the tile of this thread may have been cut short, and only as Python
    time.sleep(0.05)
    assert len(started) == count


@posix
def test_ctrl_c_while_only_others_work(interruptible):
    """The main thread has done its share and waits."""
    ended = []

    def slow(tile):
        if tile % 2:
            time.sleep(0.02)
            ended.append(tile)

    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        native.run_tiles(slow, 1000, 2, ())
    count = len(ended)
    assert 0 < count < 250
    time.sleep(0.05)
    assert len(ended) == count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_makes_threads_of_its_own():
    code = textwrap.dedent("""
        import os
        from revode.compiled.native import run_tiles
        run_tiles(lambda tile: None, 4, 2, ())
        child = os.fork()
        run_tiles(lambda tile: None, 4, 2, ())
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=30)

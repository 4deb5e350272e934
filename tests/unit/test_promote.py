"""backend="auto": native code takes over at a solve that is known beforehand, and nothing else depends on the compiler."""
from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import revode as rv
from revode.compiled import backend, native, plans, promote, tiles
from tests.compiler import forget, needs_compiler

HERE = Path(__file__).parents[2]
P = np.array([0.3, 0.7])
Y0 = np.array([1.0, 0.5])
TS = np.linspace(0.0, 1.0, 257)
AT = 4                                            # the solve from which on the script below runs natively


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")


@pytest.fixture(autouse=True)
def cold(monkeypatch):
    """No programs, nothing said, and a price of a little more than three gradients."""
    forget(monkeypatch)
    monkeypatch.setattr(backend, "_told", set())
    monkeypatch.setattr(promote, "OPERATION", 0.0)
    gain = script(1)[2]
    monkeypatch.setattr(promote, "COMPILER", (AT - 1 + 0.01) * gain)
    plans.programs.clear()


def damped(t, y, p):
    return -p * y + 0.1 * np.sin(y)


def script(solves, ts=TS, how="auto", **options):
    """Who ran each of so many gradients, the gradients, and what one would save by the model."""
    ran, found = [], []
    for _ in range(solves):
        def loss(y0, p):
            sol = rv.solve(damped, y0, ts, p, method=rv.ReversibleHeun(), gradient=rv.Reversible(), save=[-1], backend=how, **options)
            return np.sum(sol.y1 ** 2), sol.stats
        (_, stats), (a, ap) = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(Y0, P)
        ran.append(stats.backend)
        found.append(np.concatenate([a, ap]))
    families = [f for f in plans.programs.families.values() if f.promotion is not None]
    return ran, np.array(found), sum(f.promotion.spent for f in families) / solves


@needs_compiler
@pytest.mark.parametrize("slow", [False, True], ids=["a quick compiler", "a slow one"])
def test_it_takes_over_at_the_same_solve_with_the_same_bits(monkeypatch, caplog, tmp_path, slow):
    """Whether the library is there already, or takes longer than all solves before: the solve that needs it waits."""
    caplog.set_level(logging.INFO, logger="revode")
    compile = native._compile
    monkeypatch.setattr(native, "_compile", lambda *args: (time.sleep(0.3 * slow), compile(*args))[1])
    if slow:
        monkeypatch.setattr(native, "cache_folder", lambda: tmp_path)
        monkeypatch.setattr(native, "_loaded", {})
    ran, found, _ = script(AT + 2)
    assert ran == ["replay"] * (AT - 1) + ["native"] * 3
    said = [r.getMessage() for r in caplog.records if "natively" in r.getMessage()]
    assert len(said) == 1 and "damped" in said[0]
    plans.programs.clear()
    again, same, _ = script(AT + 2)
    assert again == ran
    np.testing.assert_array_equal(same, found)
    # Replay has the bits of the tape, native code those of backend="native"; both are the gradient: 256 steps back whose rounding
    # ReversibleHeun leaves as it is, some 256 eps.
    np.testing.assert_array_equal(found[0], script(1, how="eager")[1][0])
    np.testing.assert_array_equal(found[-1], script(1, how="native")[1][0])
    np.testing.assert_allclose(found[-1], found[0], rtol=256 * 2.2e-16)


@needs_compiler
@needs_compiler
@pytest.mark.parametrize("gradient", [rv.Reversible(), rv.Checkpointed(5), rv.Direct()], ids=repr)
def test_native_compiles_both_directions_side_by_side(monkeypatch, gradient):
    """Each of the two waits until the other one is there; one after the other they would wait in vain."""
    both, build, directions = threading.Barrier(2, timeout=30.0), tiles.build, []

    def meet(source, strict):
        directions.append(both.wait())
        return build(source, strict)

    def gradients(how):
        return rv.grad(lambda y0, p: np.sum(rv.solve(damped, y0, TS, p, method=rv.ReversibleHeun(), gradient=gradient, save=[-1],
                                                     backend=how).y1 ** 2), argnums=(0, 1))(Y0, P)

    monkeypatch.setattr(tiles, "build", meet)
    found = gradients("native")
    assert sorted(directions) == [0, 1]
    for a, b in zip(found, gradients("eager"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)                       # a rounding a step, of 256


def test_steps_count_and_not_solves():
    """A forward solve that alone costs what compiling costs waits for it; a few short ones do not come so far."""
    ran, _, _ = script(1, ts=np.linspace(0.0, 1.0, 256 * 5 * AT + 1))
    assert ran == ["native"]
    plans.programs.clear()
    ran, _, _ = script(2 * AT, ts=np.linspace(0.0, 1.0, 65))
    assert "native" not in ran


def test_large_matrices_are_left_to_the_blas(monkeypatch):
    """A program of 256 x 256 matrices and a batch of 256 would lose; of 16 x 16 and a batch of 4 it gains."""
    gains = []
    for width, batch in ((256, 256), (16, 4)):
        def field(t, y, p):
            return np.tanh(y @ p)
        y0 = np.ones((batch, width)) / width
        rv.solve(field, y0, np.linspace(0.0, 1e-3, 3), np.eye(width) / width, method=rv.ReversibleHeun(), backend="replay")
        made = list(plans.programs.families.values())[-1].made["forward"]
        gains.append(promote.saved(made.steps)[0])
    assert gains[0] < 0 < gains[1]


def test_without_a_compiler_nothing_is_said(monkeypatch, caplog):
    def none():
        raise native.NoCompiler("none here")
    caplog.set_level(logging.INFO, logger="revode")
    monkeypatch.setattr(native, "compiler", none)
    assert script(2 * AT)[0] == ["replay"] * (2 * AT)
    assert not caplog.records


def test_a_failed_compile_is_said_once(monkeypatch, caplog):
    def broken(*args):
        raise native.CompileError("native: it is broken")
    caplog.set_level(logging.INFO, logger="revode")
    monkeypatch.setattr(native, "build", broken)
    monkeypatch.setattr("revode.compiled.tiles.build", broken)
    ran, found, _ = script(2 * AT)
    assert ran == ["replay"] * (2 * AT) and (found == found[0]).all()
    (said,) = caplog.records
    assert said.levelno == logging.WARNING and "it is broken" in said.getMessage() and "damped" in said.getMessage()


@needs_compiler
def test_what_is_compiled_is_compared_with_the_tape(monkeypatch):
    """Native code that is not the field is refused where it takes over."""
    made = promote.agree_elsewhere

    def wrong(runner, *rest):
        raise plans.Disagreement("not the field")
    monkeypatch.setattr(promote, "agree_elsewhere", wrong)
    assert script(AT + 1)[0] == ["replay"] * (AT + 1)
    monkeypatch.setattr(promote, "agree_elsewhere", made)
    plans.programs.clear()
    plans.programs.strict = True
    monkeypatch.setattr(promote, "agree_elsewhere", wrong)
    with pytest.raises(plans.Disagreement):
        script(AT + 1)


@needs_compiler
def test_two_threads_that_take_what_was_compiled_have_a_runner_each(monkeypatch):
    """Each has its own memory: both come to native code before one of them has said that it is the field."""
    both, agree, runners = threading.Barrier(2, timeout=30.0), promote.agree_elsewhere, []

    def meet(runner, direction, *rest):
        runners.append((direction, id(runner)))
        both.wait()
        agree(runner, direction, *rest)

    monkeypatch.setattr(promote, "agree_elsewhere", meet)
    script(AT - 1)
    found = [None, None]
    threads = [threading.Thread(target=lambda k=k: found.__setitem__(k, script(1))) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ran for ran, _, _ in found] == [["native"]] * 2 and len({*runners}) == 4              # two directions
    np.testing.assert_array_equal(found[0][1], found[1][1])


@needs_compiler
@pytest.mark.parametrize("way", ["an adjoint", "a tangent"])
def test_the_equation_that_follows_another_one_goes_native_by_itself(caplog, way):
    """It is a solve of another kind: what was decided for the first one is not its own."""
    caplog.set_level(logging.INFO, logger="revode")

    def solved(p, how="auto"):
        gradient = rv.Backsolve() if way == "an adjoint" else None
        return rv.solve(damped, Y0, TS, p, method=rv.Coupled("midpoint"), gradient=gradient, save=[-1], backend=how).y1

    def slope(how="auto"):
        return rv.grad(lambda p: np.sum(solved(p, how)))(P) if way == "an adjoint" else rv.jvp(lambda p: solved(p, how))(P, P)[1]

    script(1)
    found = [slope() for _ in range(3 * AT)]
    assert not [r for r in caplog.records if "natively" not in r.getMessage()]
    families = [f for f in plans.programs.families.values() if f.promotion is not None and f.promotion.made]
    assert len(families) == 2
    np.testing.assert_allclose(found[-1], slope("eager"), rtol=512 * 2.2e-16)                   # a rounding a step, there and back


def test_exact_solves_and_replay_stay_as_they_are():
    assert script(AT + 1, how="replay")[0] == ["replay"] * (AT + 1)
    assert script(AT + 1, exact=True)[0] == ["replay"] * (AT + 1)


@needs_fork
def test_a_forked_child_begins_anew():
    """It has none of the threads, and takes none of their locks for its own."""
    go = threading.Event()
    work = promote.Work(None, lambda: go.wait(30) and "built")
    lock = native._building.setdefault("some key", threading.Lock())
    with lock:
        child = os.fork()
        if not child:                                # a Python of its own, which must not come back to pytest
            code = 1
            try:
                signal.alarm(20)
                work.build = lambda: "built again"
                code = 0 if work.wait().runners == ["built again"] and not native._building and not native._compilers else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert work.wait().runners == ["built"]


@needs_fork
@pytest.mark.skipif(native.fcntl is None, reason="a system without such locks")
def test_a_forked_child_waits_for_what_its_parent_builds_and_no_longer(tmp_path):
    """Its copy of the parent's file would hold the lock for ever."""
    with native._alone(tmp_path, "some key"):
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(20)
                with native._alone(tmp_path, "some key"):
                    code = 0 if (tmp_path / "built").exists() else 2
            finally:
                os._exit(code)
        time.sleep(0.3)
        (tmp_path / "built").touch()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_is_interrupted_does_not_take_the_compiler_for_done(interruptible):
    """Python takes a thread for ended whose join has been interrupted: it would be compiled a second time."""
    go, built = threading.Event(), []
    work = promote.Work(None, lambda: (built.append("begun"), go.wait(30), "built")[2])
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        work.wait()
    timer.join()
    threading.Timer(0.3, go.set).start()
    assert work.wait() is work and work.runners == ["built"] and built == ["begun"]


@needs_fork
@needs_compiler
def test_two_processes_build_a_library_once(monkeypatch, tmp_path):
    """The second finds what the first has built; the folder holds that library alone."""
    compile, calls = native._compile, tmp_path / "calls"
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(native, "_loaded", {})

    def counted(*args):
        with calls.open("a") as file:
            file.write("x")
        time.sleep(0.2)
        compile(*args)
    monkeypatch.setattr(native, "_compile", counted)
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(60)
                code = 0 if native.build('extern "C" int two() { return 2; }', True).two() == 2 else 2
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert calls.read_text() == "x"
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} - {""} == {native.ENDING}      # "": what the compiler said


@needs_compiler
def test_no_compiler_begins_while_the_process_ends(monkeypatch, tmp_path):
    """A thread may come to it between the end of the others and its own."""
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(native, "_refused", {})
    monkeypatch.setattr(native, "_over", False)
    native.stop()
    with pytest.raises(native.CompileError):
        native.build('extern "C" int three() { return 3; }', True)
    assert not list(tmp_path.iterdir())


SCRIPT = """
import signal, sys, time
import numpy as np
from pathlib import Path
import revode as rv
from revode.compiled import native, promote
native.cache_folder = lambda: Path(sys.argv[1])
promote.COMPILER, promote.OPERATION, promote.BEGIN = 1e6, 0.0, 0.0                    # begins at once, and nobody waits
ts = np.linspace(0.0, 1.0, 257)
loss = lambda p: rv.solve(lambda t, y, p: -p * y, np.ones(2), ts, p, method=rv.ReversibleHeun(), save=[-1]).y1.sum()
try:
    rv.grad(loss)(0.5)
    print("began", flush=True)
    for _ in range(600):                          # another thread may get the signal, which would not wake a long sleep
        time.sleep(0.1)
except KeyboardInterrupt:
    print("interrupted", rv.grad(loss)(0.5), flush=True)
    sys.stdin.readline()
"""


@needs_fork
@needs_compiler
def test_ctrl_c_leaves_the_compiler_alone_and_the_end_ends_it(tmp_path):
    """A compiler that takes forever: Ctrl-C in the terminal does not reach it, the end of the process does."""
    real = native.compiler().path
    fake = tmp_path / "bin" / "g++"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\ncase "$*" in *-dM*) exec {real} "$@";; esac\necho $$ >> {tmp_path}/pids\nexec sleep 100\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    env = {**os.environ, "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "cache")], env=env, start_new_session=True, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as child:
        watch = threading.Timer(60, child.kill)
        watch.start()
        assert child.stdout.readline() == "began\n"
        pids = waited(tmp_path / "pids", 2)
        os.killpg(child.pid, signal.SIGINT)
        assert child.stdout.readline().startswith("interrupted"), child.stderr.read()
        assert all(map(alive, pids))
        _, said = child.communicate("\n")
        watch.cancel()
    assert child.returncode == 0 and not said
    assert not any(map(alive, pids))
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith("compiler-")]


def waited(path, lines):
    for _ in range(600):
        if path.exists() and len(path.read_text().split()) == lines:
            return [int(pid) for pid in path.read_text().split()]
        time.sleep(0.05)
    raise AssertionError("the compiler was not started")


def alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()

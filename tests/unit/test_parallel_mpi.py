"""Ranks that are processes: mpi4py and mpiexec, where they are installed (pip install mpi4py mpich)."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import revode as rv
from revode.experiments import EXPERIMENTS
from revode.experiments.backends import Solver
from revode.experiments.ranks import Ranks
from revode.experiments.training import Run, fit
from revode.ranks import Alone
from tests import parallel_cases as cases

pytest.importorskip("mpi4py", reason="mpi4py is not installed")
BESIDE = Path(sys.executable).parent / "mpiexec"                 # of the wheel mpich, in this environment
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec")
ROOT = Path(__file__).parents[2]
# Open MPI asks before it runs as root, or more ranks than there are cores.
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
       "OMPI_MCA_rmaps_base_oversubscribe": "1"}


def mpiexec(ranks: int, *words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(MPIEXEC), "-n", str(ranks), sys.executable, *words], capture_output=True, text=True, timeout=60,
                          cwd=ROOT, env=ENV, **options)


def test_processes_have_the_bits_of_threads() -> None:
    ranks = 3
    done = mpiexec(ranks, "-m", "tests.parallel_cases")
    assert done.returncode == 0, done.stderr
    expected = {name: cases.on_ranks(1, name)[0] for name in cases.LOSSES}
    assert Counter(done.stdout.split("\n")[:-1]) == {f"{name} {found} of {ranks}": ranks for name, found in expected.items()}


TRAIN = ("-m", "revode", "train", "stochastic-volatility", "--paths", "17", "--method", "reversible-heun", "--backend", "replay",
         "--iterations")


def children(pid: int) -> list[int]:
    """The processes below a process that run Python."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += children(child) or [child]
    return found


def ended(ranks: int, path: Path, end, iterations: int = 5000) -> tuple[int, str, float]:
    """A training that something ends once it has written a checkpoint: the status, what was said, and the seconds."""
    words = *TRAIN, str(iterations), "--checkpoint", str(path)
    with subprocess.Popen([str(MPIEXEC), "-n", str(ranks), sys.executable, *words], cwd=ROOT, env=ENV,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        begin = time.monotonic()
        while not path.exists() and job.poll() is None and time.monotonic() - begin < 60:
            time.sleep(0.05)
        begin = time.monotonic()
        try:
            end(job)
            said, _ = job.communicate(timeout=30)
        finally:
            job.kill()
    return job.returncode, said, time.monotonic() - begin


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found by /proc")
def test_a_lost_rank_ends_all_and_what_was_written_goes_on(tmp_path: Path) -> None:
    """Killed on three ranks, gone on with on two: the bits of a training on one that nobody ended."""
    kept, ours = tmp_path / "run.npz", tmp_path / "ours.npz"
    status, said, seconds = ended(3, kept, lambda job: os.kill(children(job.pid)[-1], signal.SIGKILL))
    assert status != 0 and seconds < 10.0, said
    reached = len(rv.load(kept)["rows"]["reversible"]["losses"])
    assert reached % 10 == 0
    again = mpiexec(2, *TRAIN, str(reached + 2), "--checkpoint", str(kept), "--save", str(ours))
    assert again.returncode == 0 and f"goes on after {reached} iterations" in again.stdout, again.stdout + again.stderr
    assert again.stdout.count("wrote") == 1                                        # one rank speaks
    e = EXPERIMENTS["stochastic-volatility"].experiment(paths=17)
    alone = fit(Run("", e, Solver(rv.ReversibleHeun(), rv.Reversible(), "replay", ranks=Ranks(Alone()))), reached + 2)
    assert cases.bits(rv.load(ours)) == cases.bits(alone.best)


@pytest.mark.long
def test_ctrl_c_ends_all_and_keeps_what_there_is(tmp_path: Path) -> None:
    status, said, seconds = ended(2, tmp_path / "run.npz", lambda job: job.send_signal(signal.SIGINT))
    assert status != 0 and seconds < 10.0, said
    assert rv.load(tmp_path / "run.npz")["rows"]
    if "HYDRA" in subprocess.run([str(MPIEXEC), "--version"], capture_output=True, text=True).stdout:
        # MPICH passes Ctrl-C on; Open MPI ends the ranks itself, and the checkpoint is what there is.
        assert status == 130 and "Ended early (interrupted)" in said, said


FAILING = """
from argparse import Namespace
from revode.experiments.ranks import as_one, joined
from tests import parallel_cases as cases
from revode import parallel

def work():
    if joined().Get_rank() == 1:
        raise KeyError("gone")
    for _ in range(1000):
        parallel.value_and_grad(cases.ode, joined(), tile=cases.TILE)(cases.PARAMS, cases.B)
    return 0

as_one(Namespace(checkpoint=None), work)
"""


def test_an_exception_on_one_rank_ends_all_and_says_which() -> None:
    begin = time.monotonic()
    done = mpiexec(2, "-c", FAILING)
    assert done.returncode != 0 and time.monotonic() - begin < 20.0
    assert "RuntimeError: rank 1: KeyError: 'gone'" in done.stderr                 # of rank 0
    assert "line 9, in work" in done.stderr                                        # where it happened on rank 1


@pytest.mark.parametrize(("words", "said"), [
    ("train digits", "digits has no batch of paths to share out over ranks"), ("stability", "this command runs in one process")])
def test_what_runs_in_one_process_says_so_once(words: str, said: str) -> None:
    done = mpiexec(2, "-m", "revode", *words.split())
    assert done.returncode == 2 and done.stderr.count(said) == 1, done.stderr


def test_what_rank_0_alone_finds_out_ends_all_in_one_sentence(tmp_path: Path) -> None:
    done = mpiexec(2, *TRAIN, "2", "--json", str(tmp_path / "none" / "out.json"))
    assert done.returncode == 2 and done.stderr.count("cannot be written") == 1 and "Traceback" not in done.stderr, done.stderr

"""Ranks that are processes: mpi4py and mpiexec, where they are installed (pip install mpi4py mpich)."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import parallel_cases as cases

pytest.importorskip("mpi4py", reason="mpi4py is not installed")
BESIDE = Path(sys.executable).parent / "mpiexec"                 # of the wheel mpich, in this environment
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec")
ROOT = Path(__file__).parents[2]


def mpiexec(ranks: int, *words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(MPIEXEC), "-n", str(ranks), sys.executable, *words], capture_output=True, text=True, timeout=120,
                          cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, **options)


@pytest.mark.parametrize("ranks", (2, 3))
def test_processes_have_the_bits_of_threads(ranks: int) -> None:
    done = mpiexec(ranks, "-m", "tests.parallel_cases")
    assert done.returncode == 0, done.stderr
    expected = {name: cases.on_ranks(1, name)[0] for name in cases.LOSSES}
    assert Counter(done.stdout.split("\n")[:-1]) == {f"{name} {found} of {ranks}": ranks for name, found in expected.items()}

"""Every hand-written kernel, on the host shim, gives the bits of its NumPy mirror: any block, any order of the threads."""
from __future__ import annotations

import re

import numpy as np
import pytest

from revode_cuda import host
from revode_cuda.compile import KERNELS, SUBJECTS, kernel_source
from revode_cuda.host.mirrors import BLOCKS, CASES, DTYPES, assert_same_bits

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)


def put(x: np.ndarray) -> np.ndarray:
    return x.copy()


@pytest.mark.sample(30)
@pytest.mark.parametrize("order", host.ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", CASES)
def test_bits(name, dtype, block, order):
    assert_same_bits(CASES[name](put, dtype, block=block, order=order, shuffle=block))


def test_every_kernel_file_is_a_subject_and_every_kernel_is_run(monkeypatch):
    assert {path.stem for path in KERNELS.glob("*.cu*")} == set(SUBJECTS)
    run = set()
    launch = host.launch
    monkeypatch.setattr(host, "launch", lambda source, name, *args, **how: run.add(name) or launch(source, name, *args, **how))
    for case in CASES.values():
        case(put, np.float64)
    assert run == {name for subject in SUBJECTS for name in host.ENTRY.findall(kernel_source(subject))}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_includes_no_atomics(subject):
    assert not re.search(r"#\s*include|\batomic", kernel_source(subject).replace("No atomics", ""))

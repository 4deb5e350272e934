"""No barrier of a hand-written kernel can go: without it there is a race, and other bits or poison in one of the orders."""
from __future__ import annotations

import numpy as np
import pytest

from revode_cuda import host, kernels
from revode_cuda.compile import SUBJECTS, kernel_source
from revode_cuda.host.mirrors import BLOCKS, CASES, SUBJECT, assert_same_bits

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)

REDUNDANT: dict[tuple[str, int], str] = {}         # (subject, barrier): the reason why it may go; there is none
BARRIERS = [(subject, i) for subject in SUBJECTS for i in range(host.barriers(kernel_source(subject)))]


def wrong(subject: str, source: str, monkeypatch: pytest.MonkeyPatch, **how: bool) -> dict[tuple[int, str], str]:
    """What goes wrong with this source, by block size and order, in one of the subject's cases."""
    monkeypatch.setattr(kernels, "kernel_source", lambda asked: source if asked == subject else kernel_source(asked))
    found = {}
    for name in (name for name, of in SUBJECT.items() if of == subject):
        for block in BLOCKS if not how else BLOCKS[1:]:
            for order in host.ORDERS:
                try:
                    assert_same_bits(CASES[name](np.copy, np.float64, block=block, order=order, shuffle=block, **how))
                except (AssertionError, host.KernelError) as error:
                    found[block, order] = str(error)
    return found


@pytest.mark.parametrize(("subject", "number"), BARRIERS)
def test_a_barrier_that_is_deleted_shows_in_the_bits(subject, number, monkeypatch):
    found = wrong(subject, host.without_barrier(kernel_source(subject), number), monkeypatch)
    assert not any(block == 1 for block, _ in found)               # one thread needs none
    assert bool(found) != ((subject, number) in REDUNDANT)


@pytest.mark.parametrize(("subject", "number"), BARRIERS)
def test_a_barrier_that_is_deleted_is_a_race_in_every_order(subject, number, monkeypatch):
    found = wrong(subject, host.without_barrier(kernel_source(subject), number), monkeypatch, races=True)
    if (subject, number) in REDUNDANT:
        assert not found
    else:
        assert found.keys() == {(block, order) for block in BLOCKS[1:] for order in host.ORDERS}
        assert all("of shared memory" in error and error.endswith("a race") for error in found.values())


@pytest.mark.sample(8)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_no_kernel_has_a_race(name, dtype):
    assert_same_bits(CASES[name](np.copy, dtype, block=96, races=True))


def test_there_are_barriers_and_only_where_the_cases_look():
    assert len(BARRIERS) == 1
    assert {subject for subject, _ in BARRIERS} == {SUBJECT["scores"]}

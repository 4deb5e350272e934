"""No barrier of a hand-written kernel can go: without it other bits come out, poison, or an error, in one of the orders."""
from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import BLOCKS, CASES, SUBJECT, assert_same_bits

from revode_cuda import host, kernels
from revode_cuda.compile import SUBJECTS, kernel_source

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)

REDUNDANT: dict[tuple[str, int], str] = {}         # (subject, barrier): the reason why it may go; there is none
BARRIERS = [(subject, i) for subject in SUBJECTS for i in range(host.barriers(kernel_source(subject)))]


def missed(subject: str, source: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The launches in which something is wrong."""
    monkeypatch.setattr(kernels, "kernel_source", lambda asked: source if asked == subject else kernel_source(asked))
    wrong = []
    for name in (name for name, of in SUBJECT.items() if of == subject):
        for block in BLOCKS:
            for order in host.ORDERS:
                try:
                    assert_same_bits(CASES[name](np.copy, np.float64, block=block, order=order, shuffle=block))
                except (AssertionError, host.KernelError):
                    wrong.append(f"{name}, block {block}, {order}")
    return wrong


@pytest.mark.parametrize(("subject", "number"), BARRIERS)
def test_a_barrier_that_is_deleted_is_missed(subject, number, monkeypatch):
    wrong = missed(subject, host.without_barrier(kernel_source(subject), number), monkeypatch)
    assert not any("block 1," in w for w in wrong)         # one thread needs none
    assert bool(wrong) != ((subject, number) in REDUNDANT)


def test_there_are_barriers_and_only_where_the_cases_look(monkeypatch):
    assert len(BARRIERS) == 4
    assert {subject for subject, _ in BARRIERS} == set(SUBJECT.values())
    assert not missed("matmul", kernel_source("matmul"), monkeypatch)

"""Modes x engines x methods x kinds of equations against Direct on the tape: a sample in which every pair meets (tests/grid.py)."""
from __future__ import annotations

import shutil

import pytest

from tests import grid

NATIVE = shutil.which("g++") or shutil.which("clang++")


@pytest.mark.parametrize("case", grid.sample(), ids="-".join)
def test_a_mode_on_an_engine(case: grid.Case) -> None:
    if case.engine in ("native", "strict", "shim") and not NATIVE:
        pytest.skip("no C++ compiler")
    error, allowed = grid.check(case)
    assert error <= allowed, f"{case}: off by {error:.2g}, allowed {allowed:.2g}"


def test_the_sample_covers_all_pairs() -> None:
    met = set().union(*map(grid.pairs, grid.sample()))
    assert met == set().union(*map(grid.pairs, grid.cases()))
    assert len(grid.sample()) < 0.1 * len(grid.cases())

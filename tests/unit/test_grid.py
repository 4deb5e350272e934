"""Modes x engines x methods x kinds of equations against Direct on the tape: a sample in which every pair meets (tests/grid.py)."""
from __future__ import annotations

import logging
import shutil
from typing import Any

import numpy as np
import pytest

import revode as rv
from tests import grid

NATIVE = shutil.which("g++") or shutil.which("clang++")


@pytest.mark.sample(32, cover=False)
@pytest.mark.parametrize("case", grid.sample(), ids="-".join)
def test_a_mode_on_an_engine(case: grid.Case) -> None:
    if case.engine in ("native", "strict", "shim") and not NATIVE:
        pytest.skip("no C++ compiler")
    error, allowed = grid.check(case)
    assert error <= allowed, f"{case}: off by {error:.2g}, allowed {allowed:.2g}"


def test_what_could_not_be_had_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Asked for replay by name: a derivative of a derivative goes on the tape, and the log says why."""
    def end(p: Any) -> Any:
        return np.sum(rv.solve(lambda t, y, p: -p * y, np.ones(2), np.linspace(0, 1, 5), p, method=rv.RungeKutta("bosh3"),
                               gradient=rv.Direct(), backend="replay").y1)

    with caplog.at_level(logging.INFO, logger="revode"):
        found = [float(rv.grad(rv.grad(end))(0.5)) for _ in range(2)]
    assert found[0] == found[1]
    assert len([r for r in caplog.records if "tape" in r.getMessage()]) == len(caplog.records) == 1


def test_the_sample_covers_all_pairs() -> None:
    met = set().union(*map(grid.pairs, grid.sample()))
    assert met == set().union(*map(grid.pairs, grid.cases()))
    assert len(grid.sample()) < 0.1 * len(grid.cases())

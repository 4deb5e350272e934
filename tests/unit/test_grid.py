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


@pytest.mark.parametrize("case", grid.sample(), ids="-".join)
def test_a_mode_on_an_engine(case: grid.Case) -> None:
    if case.engine in ("native", "strict", "shim") and not NATIVE:
        pytest.skip("no C++ compiler")
    error, allowed = grid.check(case)
    assert error <= allowed, f"{case}: off by {error:.2g}, allowed {allowed:.2g}"


def test_what_could_not_be_had_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Asked for replay by name: an exact adaptive march, and a derivative of a derivative, go on the tape, and the log says why."""
    y0, options = np.ones(2), {"backend": "replay", "method": rv.RungeKutta("bosh3")}

    def decay(t: Any, y: Any, p: Any) -> Any:
        return -p * y

    def end(p: Any) -> Any:
        return np.sum(rv.solve(decay, y0, np.linspace(0, 1, 5), p, gradient=rv.Direct(), **options).y1)

    with caplog.at_level(logging.INFO, logger="revode"):
        for _ in range(2):
            rv.solve(decay, y0, (0.0, 1.0), 0.5, method=rv.Coupled("bosh3"), exact=True, controller=rv.PID(), backend="replay")
        assert [r.getMessage() for r in caplog.records if "its steps are adaptive, and exact" in r.getMessage()] != []
        assert len(caplog.records) == 1
        rv.grad(rv.grad(end))(0.5)
        rv.grad(rv.grad(end))(0.5)
    assert len(caplog.records) <= 2                    # the tape of the inner derivative may be told of, and once


def test_the_sample_covers_all_pairs() -> None:
    met = set().union(*map(grid.pairs, grid.sample()))
    assert met == set().union(*map(grid.pairs, grid.cases()))
    assert len(grid.sample()) < 0.1 * len(grid.cases())

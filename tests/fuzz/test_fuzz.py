"""The fuzzer's first seeds of every kind: less than a minute on a slow core. Longer: python -m tests.fuzz --seconds 300."""
from __future__ import annotations

import numpy as np
import pytest

from tests.fuzz import literal, solves
from tests.fuzz.__main__ import KINDS, findings
from tests.fuzz.found import command

SEEDS = {"ode": 8, "sde": 5, "cde": 4, "adaptive": 5, "chain": 5, "closures": 23, "windows": 11, "threads": 4, "minibatch": 4,
         "buffers": 8, "contract": 10}        # closures, windows, buffers: each way once


@pytest.mark.sample(15, cover=False)
@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in range(SEEDS[kind])])
def test_a_random_solve_is_right_or_says_so(kind: str, seed: int) -> None:
    failed = [f"{f.where}: {f.detail}" for f in findings(kind, seed) if f.failed]
    assert not failed, "\n".join([*failed, command(kind, seed)])


def test_a_wrong_gradient_would_be_found() -> None:
    """The comparison itself: one percent of one parameter's gradient, and a sign, are seen in any direction."""
    case = solves.drawn("ode", 0, np.random.default_rng(0))
    known = literal.slopes(lambda theta: np.sum(theta["a"] ** 3) + theta["b"], {"a": np.arange(1.0, 4.0), "b": 2.0}, case.rng)
    right = {"a": 3 * np.arange(1.0, 4.0) ** 2, "b": np.array(1.0)}
    assert max(literal.distances(38.0, right, known)) < 1e-14
    assert literal.distances(38.0, {**right, "b": np.array(-1.0)}, known)[1] > 1e-3
    assert literal.distances(38.0, {**right, "a": 1.01 * right["a"]}, known)[1] > 1e-4
    assert literal.distances(38.4, right, known)[0] > 1e-2

"""The tools that measure detection: DETEST's equations against what is known of them, the verdicts, the tables."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from reference.detection import detest, limits, page, tables
from reference.detection.cases import bridged, finer, random_case
from reference.detection.families import FAMILIES
from reference.detection.judge import judged, measured

# What stays constant along a solution, by hand from the equations.
CONSTANT = {
    "A5": lambda t, y: math.log(math.hypot(t, y[0])) + math.atan2(y[0], t),
    "B1": lambda t, y: y[0] - math.log(y[0]) + 2 * (y[1] - math.log(y[1])),
    "B2": lambda t, y: y.sum(), "B3": lambda t, y: y.sum(), "B5": lambda t, y: y[2] ** 2 + 0.51 * y[0] ** 2,
    "D1": lambda t, y: (y[2] ** 2 + y[3] ** 2) / 2 - 1 / math.hypot(y[0], y[1]),
}


@pytest.mark.parametrize("problem", detest.PROBLEMS, ids=lambda p: p.name)
def test_detest_has_the_solutions_of_the_literature(problem: detest.Detest) -> None:
    """SciPy's DOP853 at rtol 1e-12: its global error on these problems is below 1e-9, that of its dense output below 1e-8."""
    tight = detest.by_scipy(problem, "DOP853", 1e-12, 1e-14)
    for t in np.linspace(0.0, detest.T1, 21):
        if problem.exact:
            np.testing.assert_allclose(tight.sol(t), problem.exact(float(t)), rtol=1e-7, atol=1e-9)
        if problem.name in CONSTANT:
            constant = CONSTANT[problem.name]
            assert constant(float(t), tight.sol(t)) == pytest.approx(constant(0.0, np.array(problem.y0)), abs=1e-7)
    if problem.name == "E2":       # the limit cycle of van der Pol at mu = 1 has amplitude 2.0086
        assert max(abs(tight.sol(t)[0]) for t in np.linspace(10, 20, 400)) == pytest.approx(2.0086, abs=1e-3)


def record(off: float, miss: float, mid: float, **said: object) -> dict:
    return {"off": [off], "miss": [miss], "mid": [mid], "words": [], "refused": None, **said}


@pytest.mark.parametrize(("what", "verdict"), [
    (record(1e-6, 1e-4, 1e-4), {"good"}), (record(0.05, 1e-4, 1e-4), {"bad", "missed"}),
    (record(0.05, 1e-4, 1e-4, words=["W"]), {"bad", "said"}), (record(0.2, 0.2, 1e-4), {"bad", "big", "missed", "missed big"}),
    (record(1e-12, 0.5, 1e-2), {"bad", "big", "missed", "missed big"}), (record(1e-12, 0.15, 1e-2), set()),
    (record(1e-6, 1e-4, 1e-4, refused="FloatingPointError"), {"good", "said", "false"}), (record(math.inf, 0, 0), {
        "bad", "big", "missed", "missed big"}), (record(1e-3, 1e-3, 1e-3), set()), (record(1e-6, 0.02, 0.01, words=["W"]), {
            "good", "said", "false"})])
def test_verdicts(what: dict, verdict: set) -> None:
    assert {name for name, value in judged(what).items() if value} == verdict


def test_cases_are_made_again_from_their_seed() -> None:
    a, b = (random_case(5) for _ in range(2))
    assert a.described() == b.described() and np.array_equal(a.ts, b.ts) and np.array_equal(a.problem.y0, b.problem.y0)
    seen = [random_case(k) for k in range(200)]
    assert {case.family for case in seen} == set(FAMILIES) and {case.kind for case in seen} == {"grid", "adaptive", "sde", "cde"}
    assert any(case.method is None for case in seen) and any(case.single for case in seen)


def test_the_finer_path_is_the_same_path() -> None:
    rng, ts = np.random.default_rng(0), np.array([0.0, 1.0, 1.5, 3.5])
    dW = rng.normal(size=(3, 40_000)) * np.sqrt(np.diff(ts))[:, None]
    fine = bridged(dW, np.diff(ts), 4, 1)
    np.testing.assert_allclose(finer(ts, 4)[::4], ts)
    np.testing.assert_allclose(fine.reshape(3, 4, -1).sum(1), dW, atol=1e-12)
    # variances of h / 4 from 40 000 numbers: the standard error is sqrt(2 / 40 000) = .7 %
    np.testing.assert_allclose(fine.var(axis=1), np.repeat(np.diff(ts), 4) / 4, rtol=0.04)


def test_a_small_run_gives_tables_and_a_page() -> None:
    records = [measured(random_case(seed)) for seed in (0, 3, 7, 10)]
    assert all(r["off"] is not None and r["miss"] is not None for r in records)
    problem = next(p for p in detest.PROBLEMS if p.name == "A4")
    rows = [detest.result(problem, None, "default", None)]
    for table in (*tables.tables(records), detest.rows(rows)):
        assert max(map(len, tables.text(table).splitlines())) <= 100
    text = page.markdown({"command": "python -m reference.detection", **page.machine()}, records, rows)
    assert "| missed |" in text and "## DETEST" in text and "| A4 |" in text


def test_the_page_about_warnings_has_the_limits_of_the_code() -> None:
    """`python -m reference.detection.limits` prints the table."""
    page = (Path(__file__).parents[2] / "docs" / "warnings.md").read_text()
    assert "\n\n" + "\n".join(limits.rows()) + "\n\n" in page

"""Tests for a GPU. Without one a few of each kind run on a pretended CuPy (tests/pretended_cupy.py), and a line counts the rest.

    python -m pytest tests/gpu                    # on a GPU all of them
    python -m pytest tests/gpu --pretended all    # without one all but those that need a real device; minutes

`real` marks tests that ask what only a device can answer.
"""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from revode_cuda import host
from revode_cuda.arrays import require_cupy
from tests.pretended_cupy import pretended

HERE = Path(__file__).parent
SKIPPED: dict[str, int] = {}         # why -> how many tests


def missing() -> str | None:
    """What is missing for a test on a GPU, or None."""
    try:
        require_cupy("tests/gpu")
    except (ImportError, RuntimeError) as error:
        return str(error).partition("; ")[0]
    return None


MISSING = missing()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pretended", choices=("some", "all"), default="some", help="how much of tests/gpu runs without a GPU")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: needs a real GPU")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents] if MISSING else []
    cases: dict[Any, list[pytest.Item]] = {}
    for item in mine:
        cases.setdefault((item.path, getattr(item, "originalname", item.name)), []).append(item)
    few = config.getoption("--pretended", default="some") == "some"
    for case in cases.values():
        for i, item in enumerate(case):
            why = MISSING if host.missing() or item.get_closest_marker("real") else \
                f"{MISSING}; a few run on a pretended CuPy" if few and i != len(case) // 2 else None
            if why:
                SKIPPED[why] = SKIPPED.get(why, 0) + 1
                item.add_marker(pytest.mark.skip(reason=why))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for why, count in SKIPPED.items():
        terminalreporter.write_line(f"{count} GPU tests SKIPPED: {why}", yellow=True, bold=True)


@pytest.fixture(autouse=True)
def cupy() -> Iterator[Any]:
    if MISSING is None:
        yield require_cupy("tests/gpu")
    else:
        with pretended() as cupy:
            yield cupy

"""Tests that need a GPU. Without one they are collected and skipped, and a line at the end of the run counts them.

    python -m pytest tests/gpu
"""
from pathlib import Path
from typing import Any

import pytest

from revode_cuda.arrays import require_cupy

HERE = Path(__file__).parent
SKIPPED: dict[str, int] = {}         # why -> how many tests


def missing() -> str | None:
    """What is missing for a test on a GPU, or None."""
    try:
        require_cupy("tests/gpu")
    except (ImportError, RuntimeError) as error:
        return str(error).partition("; ")[0]
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    why = missing() if mine else None
    if why is not None:
        SKIPPED[why] = len(mine)
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=why))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for why, count in SKIPPED.items():
        terminalreporter.write_line(f"{count} GPU tests SKIPPED: {why}", yellow=True, bold=True)


@pytest.fixture
def cupy() -> Any:
    return require_cupy("tests/gpu")

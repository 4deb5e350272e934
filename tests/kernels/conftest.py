"""What several files of these tests begin with."""
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from revode.watch import ahead
from tests.pretended_cupy import pretended


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """All states are."""
    monkeypatch.setattr(importlib.import_module("revode_cuda.solve"), "CROSSING", 0)
    monkeypatch.setattr(ahead, "ROOM", 0)
    with pretended() as cupy:
        yield cupy

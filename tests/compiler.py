"""Whether there is a C++ compiler on this machine: asked once, for all tests; and what they compile, forgotten."""
from collections import OrderedDict

import pytest

from revode.compiled import native, plans


def found() -> bool:
    try:
        return bool(native.compiler())
    except native.NoCompiler:
        return False


HERE = found()
needs_compiler = pytest.mark.skipif(not HERE, reason="no C++ compiler on this machine: g++, clang++ or c++ is needed")


def forget(patch: pytest.MonkeyPatch, strict: bool = False) -> None:
    """Programs of other tests are not known until this one has ended. strict: one that is not the field is an error, not a warning."""
    patch.setattr(plans.programs, "families", OrderedDict())
    patch.setattr(plans.programs, "strict", strict)

"""Whether there is a C++ compiler on this machine: asked once, for all tests."""
import pytest

from revode.compiled import native


def found() -> bool:
    try:
        return bool(native.compiler())
    except native.NoCompiler:
        return False


HERE = found()
needs_compiler = pytest.mark.skipif(not HERE, reason="no C++ compiler on this machine: g++, clang++ or c++ is needed")

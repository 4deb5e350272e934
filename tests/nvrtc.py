"""Whether NVRTC is here: asked once, for all tests."""
import pytest

from revode_cuda import nvrtc

try:
    nvrtc.library()
    WITHOUT = ""
except ImportError as error:
    WITHOUT = f"no NVRTC here: {error}"
needs_nvrtc = pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT or "-")

"""Whether NVRTC is here: asked once, for all tests."""
import pytest

from revode_cuda import nvrtc

WITHOUT = "" if (said := nvrtc.missing()) is None else f"no NVRTC here: {said}"
needs_nvrtc = pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT or "-")

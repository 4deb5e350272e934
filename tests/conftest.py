"""What all tests share: hypothesis without a clock and without chance, so that a run can be repeated; a cache of its own."""
import pytest
from hypothesis import settings

from revode.compiled import native

settings.register_profile("revode", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("revode")


@pytest.fixture(scope="session", autouse=True)
def native_cache(tmp_path_factory):
    """Libraries that tests build go to a folder of the session, not to the user's cache."""
    folder = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "cache_folder", lambda: folder)
        patch.setattr("revode_cuda.compile.cache_folder", lambda: folder)
        yield folder

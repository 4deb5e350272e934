"""What all tests share: hypothesis without a clock and without chance, so that a run can be repeated; a cache of its own."""
import gc
import os
import signal

import numpy as np
import pytest
from everyday import mark_long
from hypothesis import settings

from revode.compiled import native
from revode_cuda import host

for profile, examples in (("every day", 12), ("thorough", 100)):
    settings.register_profile(profile, deadline=None, derandomize=True, max_examples=examples)


# Most tests compare numbers with literal loops, on grids of a few steps, on which the two copies of a method part by a few per
# cent, and so does the way back of the continuous adjoint: that they say so is the subject of these.
WATCHED = ("test_watch", "test_roundtrip", "test_adaptive", "test_automatic", "test_stability_sign", "test_detection")


@pytest.hookimpl(tryfirst=True)                              # before what is `long` is left out
def pytest_collection_modifyitems(items):
    mark_long(items)
    for item in items:
        if item.path.stem not in WATCHED:
            item.add_marker(pytest.mark.filterwarnings("ignore::revode.ParasiteWarning", "ignore::revode.AdjointWarning"))


STATES = {}          # of the random generators of the tests' files, as they were before the first test
FLAGS, OPTIMISE = native.FLAGS, host.OPTIMISE            # those of users


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="more random examples; and what tests compile is optimised in all of "
                     "them, as for a user, not only in those that are marked so")


def pytest_configure(config):
    settings.load_profile("thorough" if config.getoption("thorough") else "every day")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A test draws the numbers that it draws alone, whatever has run before it in this process. No optimiser may change what most
    compiled programs compute, so they are compiled without one."""
    quick = not (item.config.getoption("thorough") or item.get_closest_marker("optimised"))
    native.FLAGS = ("-O0", *FLAGS[1:]) if quick else FLAGS
    host.OPTIMISE = dict.fromkeys(OPTIMISE, "-O0") if quick else OPTIMISE
    for x in vars(getattr(item, "module", pytest)).values():
        if isinstance(x, np.random.Generator):
            x.bit_generator.state = STATES.setdefault(id(x), x.bit_generator.state)


@pytest.fixture
def interruptible():
    """SIGINT is heard: who starts the tests may have it ignored, as a shell does for a job in the background; and what it raises
    while garbage is collected (a second, after many tests) would end in a callback of that, where Python ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def native_cache(tmp_path_factory):
    """Libraries that tests build go to a folder of the session, which its workers share, not to the user's cache."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "native"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "cache_folder", lambda: folder)
        patch.setattr(native, "ENTRIES", 10_000)             # all of them: what another worker has built is not built again
        patch.setattr("revode_cuda.compile.cache_folder", lambda: folder)
        patch.setattr("revode.experiments.compare.TURNS", 0.0)     # no five seconds of timing for each table
        yield folder

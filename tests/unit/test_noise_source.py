"""Noise in compiled code: the bits of revode.Brownian, whatever the flags, the tile and the number of threads."""
import re

import numpy as np
import pytest

import revode
from reference import elementary as measured
from reference.oracles import philox as oracle
from revode.compiled import elementary, native, noise
from revode.paths import philox
from tests.compiler import needs_compiler

pytestmark = needs_compiler
DTYPES = (np.float64, np.float32)
WORD = 2 ** 32 - 1
# Numbers are passed in arrays: `a` holds unsigned 64-bit words. In the generator, T is a macro by the time this text comes.
WRAPPERS = """
extern "C" void tile(real* out, long long lanes, long long channels, long long threads, const unsigned long long* a, double width) {
    for (int thread = 0; thread < (int)threads; thread++)
        rv_brownian_tile(out, (int)lanes, (int)channels, thread, (int)threads, a[0], (unsigned)a[1], (unsigned)a[2], width);
}
extern "C" void one(real* out, long long n, const unsigned long long* a, double width) {
    for (long long i = 0; i < n; i++)
        out[i] = rv_brownian(a[0], (unsigned)a[1 + 3 * i], (unsigned)a[2 + 3 * i], (unsigned)a[3 + 3 * i], width);
}
extern "C" void words(unsigned long long* out, const unsigned long long* a) {
    out[0] = rv_philox((unsigned)a[0], (unsigned)a[1], (unsigned)a[2], (unsigned)a[3], (unsigned)a[4], (unsigned)a[5]);
}
RV_NOISE void rv_normals(double* out, const unsigned long long* bits, long long n) {
    for (long long i = 0; i < n; i++) out[i] = rv_normal(bits[i]);
}
RV_NOISE void rv_centres(double* out, const unsigned long long* bits, long long n) {
    for (long long i = 0; i < n; i++) out[i] = rv_centre(bits[i]);
}
extern "C" void centres(double* out, const unsigned long long* bits, long long n) { rv_centres(out, bits, n); }
extern "C" void normals(double* out, const unsigned long long* bits, long long n) { rv_normals(out, bits, n); }
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(native, "cache_folder", lambda: folder)
        source = lambda dtype: elementary.c_source([], dtype) + "#define T 16\n" + noise.SOURCE + WRAPPERS
        yield {(dtype, strict): native.build(source(dtype), strict=strict)
               for dtype in DTYPES for strict in (True, False)}


@pytest.fixture(params=[(dtype, strict) for dtype in DTYPES for strict in (True, False)],
                ids=lambda p: f"{np.dtype(p[0]).name}-{'strict' if p[1] else 'fast'}")
def compiled(request, libraries):
    return request.param[0], libraries[request.param]


def tile(lib, dtype, lanes, channels, seed, first, step, width, threads=1):
    out = np.full((channels, lanes), np.nan, dtype)
    lib.tile(*native.arguments(out, lanes, channels, threads, np.array([seed, first, step], np.uint64), float(width)))
    return out


def same_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    return np.array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


@pytest.mark.sample(1)
def test_1e5_draws_are_those_of_brownian(compiled):
    dtype, lib = compiled
    seed, h = 0x9E3779B97F4A7C15, 0.0123
    for step in (0, 7, WORD):
        expected = revode.Brownian(seed=seed, offset=11).increments(step, (9_000, 4), h, dtype)
        assert same_bits(tile(lib, dtype, 9_000, 4, seed, 11, step, np.sqrt(h)), np.ascontiguousarray(expected.T))


@pytest.mark.sample(16)
@pytest.mark.parametrize("lanes, channels", [(1, 1), (1, 5), (3, 2), (7, 3), (16, 4), (17, 1), (50, 7), (64, 3), (128, 2), (300, 2)])
def test_any_tile_any_number_of_threads(compiled, lanes, channels):
    dtype, lib = compiled
    for seed, first in ((7, 0), (2 ** 64 - 1, WORD - 299)):
        expected = revode.Brownian(seed=seed, offset=first).increments(5, (lanes, channels), 2.0, dtype).T
        for threads in (1, 2, 5, 128):
            assert same_bits(tile(lib, dtype, lanes, channels, seed, first, 5, np.sqrt(2.0), threads), np.ascontiguousarray(expected))


def test_one_number_at_a_time(compiled):
    dtype, lib = compiled
    counters = np.random.default_rng(0).integers(0, 2 ** 32, (2_000, 3), dtype=np.uint64)
    seed, out = 0xABCDEF0123456789, np.empty(2_000, dtype)
    lib.one(*native.arguments(out, 2_000, np.concatenate([[np.uint64(seed)], counters.ravel()]), 0.3))
    trajectory, step, channel = counters.T
    w0, w1, _, _ = philox.philox4x32(trajectory, step, channel, 0, seed & WORD, seed >> 32)
    assert same_bits(out, (philox.normal(philox.uniform(w0, w1)) * 0.3).astype(dtype))


@pytest.mark.parametrize("counter, key, words", [    # Random123's kat_vectors, philox4x32 with 10 rounds
    ((0, 0, 0, 0), (0, 0), (0x6627e8d5, 0xe169c58d)),
    ((WORD,) * 4, (WORD,) * 2, (0x408f276d, 0x41c83b0e)),
    ((0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), (0xa4093822, 0x299f31d0), (0xd16cfe09, 0x94fdcceb))])
def test_random123_known_answers(compiled, counter, key, words):
    out = np.zeros(1, np.uint64)
    compiled[1].words(*native.arguments(out, np.array([*counter, *key], np.uint64)))
    assert int(out[0]) == words[0] << 20 | words[1] >> 12


def tail_bits():
    """52-bit words from both ends on, and around the places where the three quotients meet: |q| = 0.425, and root = 5."""
    ends = np.concatenate([np.arange(300), np.unique(np.exp2(np.linspace(0, 51, 20_000)).astype(np.int64))])
    far = int(np.exp(-25.0) * 2 ** 52)                       # root = 5: about 1.4e-11
    meet = np.concatenate([np.arange(-500, 500) + place for place in (far, int(0.075 * 2 ** 52), 2 ** 51)])
    lower = np.unique(np.concatenate([ends, meet]))
    return np.concatenate([lower, 2 ** 52 - 1 - lower]).astype(np.uint64)


def test_normals_of_the_tails_and_where_the_quotients_meet(compiled):
    bits = tail_bits()
    u = (bits.astype(np.float64) + 0.5) * 2.0 ** -52
    assert np.count_nonzero(u < 1e-11) > 300                 # the far tail, which draws would not reach
    out = np.empty(len(bits))
    compiled[1].normals(*native.arguments(out, bits, len(bits)))
    assert same_bits(out, philox.normal(u))
    for i in range(0, len(bits), 997):                       # and Python's own floats, one at a time
        assert out[i] == oracle.ppnd16(float(u[i]))


def test_the_centre_reaches_to_its_last_numbers(compiled):
    """The quotient of the centre alone, from end to end; beyond, the normal is another."""
    bits = np.concatenate([np.linspace(noise.LOWEST, noise.HIGHEST, 5_000).astype(np.uint64), np.array(
        [noise.LOWEST, noise.LOWEST + 1, noise.HIGHEST - 1, noise.HIGHEST], np.uint64)])
    bits = bits[(bits >= noise.LOWEST) & (bits <= noise.HIGHEST)]
    u = (bits.astype(np.float64) + 0.5) * 2.0 ** -52
    out = np.empty(len(bits))
    compiled[1].centres(*native.arguments(out, bits, len(bits)))
    assert same_bits(out, philox.normal(u)) and np.abs(u - 0.5).max() <= 0.425
    for beyond in (noise.LOWEST - 1, noise.HIGHEST + 1):
        assert abs((beyond + 0.5) / 2 ** 52 - 0.5) > 0.425


def test_constants_come_from_paths_philox():
    """Every coefficient is printed with the digits that give its bits back."""
    printed = {float(text) for text in re.findall(r"\d+\.\d*(?:e[-+]?\d+)?|\d+e[-+]?\d+", noise.SOURCE)}
    for table in (philox.CENTRE, philox.TAIL, philox.FAR_TAIL):
        assert {float(c) for part in table for c in part} <= printed
    assert {*map(float, philox.ATANH), philox.LN2_HIGH, philox.LN2_LOW, philox.SQRT_HALF} <= printed
    assert "#include" not in noise.SOURCE


@pytest.mark.parametrize("options", [("--fmad=false",), ()])
def test_nvrtc_takes_the_text_and_fuses_nothing(options):
    text = elementary.c_source([], np.float64) + noise.SOURCE + """
extern "C" __global__ void fill(real* out, unsigned long long seed, unsigned step, double width) {
    rv_brownian_tile(out, 16, 4, threadIdx.x, blockDim.x, seed, blockIdx.x * 16, step, width);
}"""
    try:
        ptx = measured.ptx(text, *options)
    except ImportError as error:
        pytest.skip(str(error))
    assert not re.search(r"\bfma\.|\.approx|\.ftz", ptx)

"""The host shim itself: it does what CUDA does, and says what CUDA would not."""
from __future__ import annotations

import re

import numpy as np
import pytest

from revode.compiled import native
from revode_cuda import compile, host

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)

pytestmark = pytest.mark.optimised
ENTRY = 'extern "C" KERNEL void k'


def run(body, *args, parameters="double* x", grid=1, block=32, **how):
    host.launch(f"{ENTRY}({parameters}) {{\n{body}\n}}", "k", grid, block, args, **how)
    return args[0]


def test_indices_and_sizes_in_three_dimensions():
    x = run("""int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
               int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
               x[block * blockDim.x * blockDim.y * blockDim.z + thread] = 100 * block + thread;""",
            np.full(24 * 30, np.nan), grid=(2, 3, 4), block=(5, 3, 2))
    np.testing.assert_array_equal(x, np.add.outer(100.0 * np.arange(24), np.arange(30)).ravel())


def test_the_words_of_the_prelude():
    body = """extern __shared__ real s[];
              for (int i = TID; i < 40; i += NT) s[i] = twice(x[BLOCK * 40 + i]);
              SYNC
              for (int i = TID; i < 40; i += NT) x[BLOCK * 40 + i] = s[39 - i];"""
    source = f"FUNCTION real twice(real a) {{ return 2 * a; }}\n{ENTRY}(real* x) {{ {body} }}"
    x = np.arange(80, dtype=np.float32)
    host.launch(source, "k", 2, 32, (x,), shared=160, real="float", order="descending")
    np.testing.assert_array_equal(x, 2 * np.arange(80.0).reshape(2, 40)[:, ::-1].ravel())


@pytest.mark.parametrize("order", host.ORDERS)
def test_a_race_is_seen_in_some_order_and_a_barrier_ends_it(order):
    body = "__shared__ double s[64]; s[TID] = x[TID]; {} x[TID] = s[(TID + 1) % NT];"
    x = np.arange(64.0)
    run(body.format("SYNC"), x, block=64, order=order)
    np.testing.assert_array_equal(x, np.roll(np.arange(64.0), -1))
    x = np.arange(64.0)
    run(body.format(""), x, block=64, order=order)
    assert np.isnan(x).sum() == {"ascending": 63, "descending": 1}.get(order, np.isnan(x).sum()) > 0      # poison


def test_orders_are_what_they_say():
    body = "x[TID] = (*next)++; SYNC x[NT + TID] = (*next)++;"
    seen = {}
    for order, shuffle in (("ascending", 0), ("descending", 0), ("random", 1), ("random", 2), ("random", 1)):
        x = np.empty(64, np.int32)
        run(body, x, np.zeros(1, np.int32), parameters="int* x, int* next", order=order, shuffle=shuffle)
        seen.setdefault((order, shuffle), x)
        np.testing.assert_array_equal(x, seen[order, shuffle])           # the same seed, the same order
        np.testing.assert_array_equal(np.sort(x), np.arange(64))
    np.testing.assert_array_equal(seen["ascending", 0], np.arange(64))
    np.testing.assert_array_equal(seen["descending", 0][:32], np.arange(32)[::-1])
    random = seen["random", 1]
    assert not np.array_equal(random, seen["random", 2]) and not np.array_equal(random[:32], random[32:] - 32)


@pytest.mark.parametrize("memory", ["__shared__ real s[8];", "extern __shared__ real s[];"])
@pytest.mark.parametrize("real", ["double", "float"])
def test_shared_memory_is_poisoned_before_every_block(real, memory):
    x = np.zeros(16, {"double": np.float64, "float": np.float32}[real])
    run(f"{memory} x[BLOCK * 8 + TID] = s[TID]; s[TID] = 1;", x, parameters="real* x", grid=2, block=8, shared=64, real=real)
    assert np.isnan(x).all()


@pytest.mark.sample(6)
@pytest.mark.parametrize(("body", "said"), [
    ("if (TID < 5) SYNC", "thread 0 waits in line 2 and thread 5 has ended"),
    ("if (TID >= 5) { SYNC }", "thread 0 has ended and thread 5 waits in line 2"),
    ("if (TID == 7) return;\nSYNC", "thread 0 waits in line 3 and thread 7 has ended"),
    ("if (TID % 2)\nSYNC\nelse\nSYNC", "thread 0 waits in line 5 and thread 1 waits in line 3"),
    ("for (int i = 0; i < TID; i++) SYNC", "thread 0 has ended and thread 1 waits in line 2"),
    ("if (TID < 4) __syncwarp(); else SYNC", "thread 0 waits for its warp in line 2 and thread 4 waits in line 2"),
])
@pytest.mark.parametrize("order", host.ORDERS)
def test_a_divergent_barrier_is_an_error(body, said, order):
    with pytest.raises(host.KernelError, match=re.escape(f"k: divergent barrier in block (0, 0, 0): {said}")):
        run(body, np.zeros(1), order=order)
    run("SYNC x[TID] = 1;", np.zeros(32), order=order)               # and the machine works on


@pytest.mark.sample(1)
@pytest.mark.parametrize("order", host.ORDERS)
def test_shuffles(order):
    """Lanes of two warps and of a part of one; two shuffles in a row, so that a fast lane may not overwrite a slow one's."""
    n = 80
    lane, base = np.arange(n) % 32, np.arange(n) // 32 * 32
    size = np.minimum(32, n - base)
    x = np.arange(n) + 1000.0
    for call, source in [("__shfl_sync(~0u, v, 3)", np.full(n, 3)), ("__shfl_xor_sync(~0u, v, 8)", lane ^ 8),
                         ("__shfl_down_sync(~0u, v, 5)", lane + 5), ("__shfl_up_sync(~0u, v, 5)", lane - 5)]:
        once = np.where((source >= 0) & (source < size), base + source, np.arange(n))      # beyond the warp: one's own
        got = run(f"double v = x[TID]; v = {call}; v = {call}; x[TID] = v;", x.copy(), block=n, order=order)
        np.testing.assert_array_equal(got, x[once][once], err_msg=call)
    total = run("double v = x[TID]; for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, d); x[TID] = v;",
                np.arange(64.0), block=64, order=order)
    np.testing.assert_array_equal(total, np.repeat([496.0, 1520.0], 32))


def test_a_shuffle_that_a_lane_misses_is_an_error():
    with pytest.raises(host.KernelError, match="thread 0 waits for its warp in line 2 and thread 9 has ended"):
        run("if (TID != 9) x[TID] = __shfl_xor_sync(0xFFFFFFFFu, x[TID], 1);", np.zeros(32))
    got = run("if (TID < 4) x[TID] = __shfl_sync(0xFu, x[TID], 6);", np.zeros(32))       # lane 6 is not in the mask
    assert np.isnan(got[:4]).all()


@pytest.mark.sample(4)
@pytest.mark.parametrize(("body", "said"), [
    ("if (TID == 3) x[24] = 1;", "thread 3 of block (0, 0, 0) touches byte 192 of argument 0, which has 192"),
    ("if (BLOCK == 1) x[1] = y[TID];", "thread 16 of block (1, 0, 0) touches byte 64 of argument 1, which has 64"),
    ("if (TID == 31) x[0] = x[1000];", "thread 31 of block (0, 0, 0) touches byte 8000 of argument 0, which has 192"),
    ("if (TID == 1) x[-2] = 1;", "argument 0 has 192 bytes, and is written 16 bytes in front of them"),
    ("if (TID == 1) x[0] = x[-2000];", "thread 1 of block (0, 0, 0) touches byte -16000 of argument 0, which has 192"),
    ("if (TID == 2) x[0] = z[5];", "thread 2 of block (0, 0, 0) reads or writes through a null pointer"),
    ("__shared__ double s[32]; s[TID + 1] = 0;", "thread 31 of block (0, 0, 0) takes index 32 of an array that ends before, in "
     "line 2"),
    ("double s[3][4] = {};\nif (TID == 9) x[0] = s[2][TID - 10];", "thread 9 of block (0, 0, 0) takes index -1 of an array that ends "
     "before, in line 3"),
    ("extern __shared__ real s[]; if (BLOCK == 1) s[TID] = 0;", "thread 14 of block (1, 0, 0) touches byte 112 of dynamic shared "
     "memory, which has 112"),
    ("extern __shared__ real s[]; if (TID == 1) s[-1] = 0;", "dynamic shared memory has 112 bytes, and is written 8 bytes in front"),
])
def test_a_place_outside_an_array_is_an_error(body, said):
    x = np.zeros(24)
    with pytest.raises(host.KernelError, match="^" + re.escape(f"k: {said}")):
        run(body, x, np.zeros(16, np.float32), None, parameters="double* x, const float* y, const double* z", grid=2, shared=100)
    np.testing.assert_array_equal(x, 0)
    run("if (TID < 24) x[TID] = 1;", x)                               # and the machine works on
    np.testing.assert_array_equal(x, 1)


def test_a_little_in_front_of_an_array_is_poison():
    assert np.isnan(run("if (TID == 0) x[0] = x[-1];", np.zeros(24))[0])


@pytest.mark.sample(8)
@pytest.mark.parametrize("order", host.ORDERS)
@pytest.mark.parametrize(("body", "said"), [
    ("s[TID] = 1; x[TID] = s[(TID + 1) % 64];", r"(reads|writes) byte \d+ of shared memory, which thread \d+ (read|wrote) since the "
     "kernel began: a race"),
    ("s[TID] = x[TID];\nSYNC\nx[TID] = s[63 - TID]; s[TID] = 0;", r"(reads|writes) byte \d+ of shared memory, which thread \d+ "
     r"(read|wrote) since the barrier in line 3: a race"),
    ("if (TID) s[TID] = s[0]; else s[0] = 5;", r"(reads byte 0 of|writes byte 0 of) shared memory, which (thread 0 wrote|other "
     r"threads read|thread \d+ read) since the kernel began: a race"),
    ("x[TID / 2] = 1;", r"writes byte \d+ of argument 0, which thread \d+ wrote since the kernel began: a race"),
    ("d[TID % 32] = 1;", r"writes byte \d+ of shared memory, which thread \d+ wrote since the kernel began: a race"),
    ("if (!TID) x[1] = BLOCK;", r"thread 0 of block \(1, 0, 0\) writes byte 8 of argument 0, which another block wrote: a race"),
    ("if (BLOCK) { if (TID == 1) x[1] = 2; } else x[TID + 2] = x[1];", r"thread 1 of block \(1, 0, 0\) writes byte 8 of "
     "argument 0, which another block read: a race"),
    ("s[TID] = TID; __syncwarp(); x[TID] = s[TID ^ 32];", r"(reads|writes) byte \d+ of shared memory, which thread \d+ (read|wrote)"),
])
def test_a_race_is_an_error_in_every_order(body, said, order):
    body = "__shared__ double s[64]; extern __shared__ double d[]; " + body
    with pytest.raises(host.KernelError, match=said):
        run(body, np.zeros(66), grid=2, block=64, order=order, races=True, shared=256)
    run(body, np.zeros(66), grid=2, block=64, order=order, shared=256)       # not watched, not said


@pytest.mark.sample(6)
@pytest.mark.parametrize("order", host.ORDERS)
@pytest.mark.parametrize("body", [
    "s[TID] = x[TID]; SYNC double a = s[63 - TID]; SYNC s[TID] = a;",
    "s[TID] = s[TID] + x[TID]; s[TID] = 2; x[TID] = s[TID];",               # one's own, as often as one likes
    "s[0] = 1; SYNC x[TID] = s[0]; SYNC if (!TID) s[0] = 2;",
    "s[TID] = x[TID]; __syncwarp(); x[TID] = s[TID ^ 31]; __syncwarp(); s[TID] = 3;",
    "s[TID] = x[TID]; double a = __shfl_xor_sync(~0u, x[TID], 1); x[TID] = a + s[TID ^ 1];",
    "x[TID] = y[0] + y[TID];",
])
def test_what_is_no_race_is_none(body, order):
    body = "__shared__ double s[64]; " + body.replace("s[0] = 1;", "if (!TID) s[0] = 1;")
    run(body, np.zeros(64), np.ones(64), parameters="double* x, const double* y", block=64, order=order, races=True)


def test_arguments_are_checked_against_the_kernel_s_own_parameters():
    parameters = "double* x, const float* y, long long n, double a"
    good = [np.zeros(4), np.ones(4, np.float32), np.int64(3), 0.5]
    run("if (TID < n) x[TID] = a * y[TID];", *good, parameters=parameters)
    np.testing.assert_array_equal(good[0], [0.5, 0.5, 0.5, 0.0])
    for at, bad, said in [(0, np.zeros(4, np.float32), "argument 0 is float32 array"), (0, [0.0], "argument 0 is list"),
                          (0, np.zeros(8)[::2], "argument 0 is float64 array, strides"), (1, np.zeros(4), "argument 1 is float64"),
                          (2, good[0], "argument 2 is ndarray, for a parameter of type long long"), (3, None, "argument 3 is None")]:
        with pytest.raises(TypeError, match=said):
            run("", *good[:at], bad, *good[at + 1:], parameters=parameters)
    with pytest.raises(TypeError, match=r"3 arguments for 4 parameters \(double\*, const float\*, long long, double\)"):
        run("", *good[:3], parameters=parameters)
    frozen = np.zeros(4)
    frozen.flags.writeable = False
    with pytest.raises(TypeError, match="argument 0 is read-only, for a parameter of type double"):
        run("", frozen)
    whole = np.zeros(8)
    with pytest.raises(TypeError, match="argument 1 overlaps"):
        run("", whole[:5], whole[4:], parameters="double* x, const double* y")


def test_one_array_as_two_arguments_and_null_pointers():
    x = np.arange(32.0)
    run("if (!z) x[TID] = 2 * y[TID];", x, x, None, parameters="double* x, const double* y, const double* z")
    np.testing.assert_array_equal(x, 2 * np.arange(32.0))


def test_contraction_is_for_fast_mode_only():
    """a a - b with b = a^2 rounded: 0 in two operations, the rounding error of a^2 in one."""
    a = 1.0 + 2.0 ** -30
    error = 2.0 ** -60
    for body, mode, expected in (("x[0] * x[0] - x[1]", "strict", 0.0), ("x[0] * x[0] - x[1]", "fast", _processor_fuses() * error)):
        x = run(f"x[2] = {body};", np.array([a, a * a, np.nan]), block=1, mode=mode)
        assert x[2] == expected


def _processor_fuses():
    source = f"#ifdef __FP_FAST_FMA\n#define YES 1\n#else\n#define YES 0\n#endif\n{ENTRY}(double* x) {{ x[0] = YES; }}"
    x = np.zeros(1)
    host.launch(source, "k", 1, 1, (x,))
    return bool(x[0])


def test_a_build_for_the_debugger_gives_the_same():
    source = f"{ENTRY}(double* x) {{ SYNC x[TID] = TID; }}"
    x = np.zeros(32)
    host.launch(source, "k", 1, 32, (x,), debug=True)
    np.testing.assert_array_equal(x, np.arange(32))


def test_libraries_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "cache_folder", lambda: tmp_path)
    made = []
    build = host._compiled
    monkeypatch.setattr(host, "_compiled", lambda *args: made.append(args) or build(*args))

    def launched():
        host.build.cache_clear()
        np.testing.assert_array_equal(run("x[TID] = 77 * TID;", np.zeros(32)), 77.0 * np.arange(32))

    launched()
    launched()
    assert len(made) == 1 and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(compile, "cache_folder", lambda: tmp_path / "file" / "below")
    (tmp_path / "file").write_text("a file where a folder should be")
    launched()
    assert len(made) == 2
    host.build.cache_clear()


def test_what_is_wrong_is_said_before_anything_runs():
    with pytest.raises(ValueError, match="the source has no kernel"):
        host.launch("int x;", "k", 1, 1, ())
    with pytest.raises(ValueError, match="no kernel 'j' in the source; it has k"):
        host.launch(f"{ENTRY}(double* x) {{}}", "j", 1, 1, (np.zeros(1),))
    with pytest.raises(ValueError, match="order='backwards'"):
        run("", np.zeros(1), order="backwards")
    for block in (0, (32, 33)):
        with pytest.raises(ValueError, match="1 to 1024 threads"):
            run("", np.zeros(1), block=block)
    with pytest.raises(ValueError, match="real='half'"):
        run("", np.zeros(1), real="half")
    with pytest.raises(native.CompileError, match=r"kernel\.cu:2.*nonsense"):
        run("nonsense;", np.zeros(1))


def test_barriers_are_found_and_taken_out():
    source = "a; __syncthreads(); b; SYNC c; SYNC; d; NOSYNC; __syncthreads ( ) ;"
    assert host.barriers(source) == 4
    assert host.without_barrier(source, 1) == "a; __syncthreads(); b; ; c; SYNC; d; NOSYNC; __syncthreads ( ) ;"
    assert host.barriers(host.without_barrier(source, 2)) == 3

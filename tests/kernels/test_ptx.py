"""What NVRTC made, run on the CPU: its instructions one by one, what goes wrong is seen, and a few kernels have their bits.

All of them: python -m revode_cuda.host.ptx --all. The instructions need no NVRTC, a C++ compiler only.
"""
from __future__ import annotations

import struct

import numpy as np
import pytest

from revode_cuda import compile, host
from revode_cuda.host import instructions, ptx
from revode_cuda.host.translate import translate
from tests.nvrtc import needs_nvrtc

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)
SOURCE = 'extern "C" KERNEL void k(unsigned long long* out)'


def bits(x: float, size: int = 64) -> int:
    return struct.unpack("<Q", struct.pack("<d", x))[0] if size == 64 else struct.unpack("<I", struct.pack("<f", x))[0]


def f(x: float) -> str:
    return f"0f{bits(x, 32):08X}"


def d(x: float) -> str:
    return f"0d{bits(x):016X}"


NAN, M = float("nan"), (1 << 64) - 1
# instruction, register that it leaves its result in, the result: from the manual
TABLE = [
    ("add.s32 %r1, -5, 3", "r1", 2**32 - 2), ("sub.s64 %rd1, 3, 5", "rd1", M - 1), ("mul.lo.s32 %r1, 65536, 65537", "r1", 65536),
    ("mul.hi.s32 %r1, -1, 7", "r1", 2**32 - 1), ("mul.hi.u32 %r1, 4294967295, 4294967295", "r1", 2**32 - 2),
    ("mul.hi.u64 %rd1, -1, -1", "rd1", M - 1), ("mul.wide.s32 %rd1, -2, 3", "rd1", M - 5),
    ("mul.wide.u32 %rd1, -2, 3", "rd1", 3 * (2**32 - 2)), ("mad.lo.s32 %r1, -2, 3, 10", "r1", 4),
    ("mad.wide.u32 %rd1, 4294967295, 2, 5", "rd1", 2**33 + 3), ("div.s32 %r1, -7, 2", "r1", 2**32 - 3),
    ("div.u32 %r1, -7, 2", "r1", (2**32 - 7) // 2), ("rem.s64 %rd1, -7, 2", "rd1", M), ("neg.s32 %r1, 5", "r1", 2**32 - 5),
    ("abs.s32 %r1, -5", "r1", 5), ("min.s64 %rd1, -1, 1", "rd1", M), ("min.u64 %rd1, -1, 1", "rd1", 1),
    ("max.s32 %r1, -1, 1", "r1", 1), ("and.b32 %r1, 12, 10", "r1", 8), ("or.b64 %rd1, 12, 10", "rd1", 14),
    ("xor.b32 %r1, 12, 10", "r1", 6), ("not.b32 %r1, 0", "r1", 2**32 - 1), ("shl.b32 %r1, 1, 31", "r1", 2**31),
    ("shl.b32 %r1, 1, 32", "r1", 0), ("shr.s32 %r1, -8, 1", "r1", 2**32 - 4), ("shr.s32 %r1, -8, 40", "r1", 2**32 - 1),
    ("shr.u32 %r1, -8, 1", "r1", 2**31 - 4), ("shf.l.wrap.b32 %r1, 1, 2, 33", "r1", 4),
    ("shf.r.clamp.b32 %r1, 1, 2, 32", "r1", 2), ("bfi.b64 %rd1, 255, 0, 4, 4", "rd1", 240), ("cvt.s64.s32 %rd1, -1", "rd1", M),
    ("cvt.u64.u32 %rd1, -1", "rd1", 2**32 - 1), ("cvt.u32.u64 %r1, 4294967297", "r1", 1),
    (f"cvt.rzi.s32.f64 %r1, {d(-2.9)}", "r1", 2**32 - 2), (f"cvt.rni.s32.f32 %r1, {f(2.5)}", "r1", 2),
    (f"cvt.rzi.s32.f32 %r1, {f(1e20)}", "r1", 2**31 - 1), (f"cvt.rzi.s32.f64 %r1, {d(-1e20)}", "r1", 2**31),
    (f"cvt.rzi.u32.f64 %r1, {d(-3.0)}", "r1", 0), (f"cvt.rzi.s32.f32 %r1, {f(NAN)}", "r1", 0),
    (f"cvt.rzi.s64.f64 %rd1, {d(NAN)}", "rd1", 2**63), ("cvt.rn.f64.s32 %fd1, -3", "fd1", bits(-3.0)),
    ("cvt.rn.f32.u64 %f1, -1", "f1", bits(2.0**64, 32)), (f"cvt.rmi.f64.f64 %fd1, {d(-2.5)}", "fd1", bits(-3.0)),
    (f"cvt.rpi.f32.f32 %f1, {f(2.25)}", "f1", bits(3.0, 32)),
    (f"cvt.rn.f32.f64 %f1, {d(1 / 3)}", "f1", bits(float(np.float32(1 / 3)), 32)),
    (f"cvt.f64.f32 %fd1, {f(0.5)}", "fd1", bits(0.5)), (f"add.rn.f32 %f1, {f(1.0)}, {f(2.0**-24)}", "f1", bits(1.0, 32)),
    (f"sub.f64 %fd1, {d(1.0)}, {d(3.0)}", "fd1", bits(-2.0)),
    (f"fma.rn.f64 %fd1, {d(1 + 2**-30)}, {d(1 + 2**-30)}, {d(-1 - 2**-29)}", "fd1", bits(2.0**-60)),
    (f"fma.rn.f32 %f1, {f(1 + 2**-12)}, {f(1 + 2**-12)}, {f(-1 - 2**-11)}", "f1", bits(2.0**-24, 32)),
    (f"mul.rn.f32 %f1, {f(1e-30)}, {f(1e-12)}", "f1", bits(float(np.float32(1e-30) * np.float32(1e-12)), 32)),
    (f"div.rn.f32 %f1, {f(1.0)}, {f(3.0)}", "f1", bits(float(np.float32(1) / np.float32(3)), 32)),
    (f"rcp.rn.f64 %fd1, {d(3.0)}", "fd1", bits(1 / 3)), (f"sqrt.rn.f64 %fd1, {d(2.0)}", "fd1", bits(2.0**0.5)),
    (f"neg.f64 %fd1, {d(0.0)}", "fd1", bits(-0.0)), (f"abs.f32 %f1, {f(-0.0)}", "f1", 0),
    (f"copysign.f64 %fd1, {d(-0.0)}, {d(3.0)}", "fd1", bits(-3.0)), (f"min.f64 %fd1, {d(NAN)}, {d(1.0)}", "fd1", bits(1.0)),
    (f"min.f64 %fd1, {d(0.0)}, {d(-0.0)}", "fd1", bits(-0.0)), (f"max.f32 %f1, {f(-0.0)}, {f(0.0)}", "f1", 0),
    (f"mov.b64 %rd1, {d(1.0)}", "rd1", bits(1.0)), ("mov.b64 %fd1, 4607182418800017408", "fd1", bits(1.0)),
    ("mov.b64 %rd1, {%r8, %r9}", "rd1", (9 << 32) + 8), ("mov.b64 {_, %r1}, 38654705672", "r1", 9),
]
COMPARISONS = [("lt.s32", "-1", "1", 1), ("lt.u32", "-1", "1", 0), ("hi.u64", "-1", "1", 1), ("eq.b64", "7", "7", 1),
               ("ne.s32", "7", "7", 0)] + [
    (f"{word}.f64", d(a), d(b), want) for word, a, b, want in (
        ("lt", NAN, 1.0, 0), ("ltu", NAN, 1.0, 1), ("ne", NAN, 1.0, 0), ("neu", NAN, 1.0, 1), ("ne", 2.0, 1.0, 1),
        ("equ", 1.0, NAN, 1),
        ("nan", 1.0, NAN, 1), ("num", 1.0, NAN, 0), ("num", 1.0, 2.0, 1), ("geu", 1.0, 2.0, 0), ("ge", 2.0, 2.0, 1))]


def whole(body: str, before: str = "") -> str:
    return f"""{before}.visible .entry k(
    .param .u64 k_param_0
)
{{
    .reg .pred %p<4>; .reg .b32 %r<10>; .reg .b64 %rd<10>; .reg .f32 %f<10>; .reg .f64 %fd<10>;
    ld.param.u64 %rd9, [k_param_0]; mov.u32 %r8, 8; mov.u32 %r9, 9;
    {body}
    ret;
}}"""


def run(body: str, n: int = 1, before: str = "", block: int = 1, source: str = SOURCE, **how) -> np.ndarray:
    out = np.zeros(n, np.uint64)
    host.launch(translate(whole(body, before), source, "double"), "k", 1, block, (out,), **how)
    return out


def test_every_instruction_gives_what_the_manual_says():
    store = {"r1": "cvt.u64.u32 %rd2, %r1; st.global.u64", "rd1": "mov.u64 %rd2, %rd1; st.global.u64",
             "f1": "mov.b32 %r2, %f1; cvt.u64.u32 %rd2, %r2; st.global.u64", "fd1": "mov.b64 %rd2, %fd1; st.global.u64"}
    lines = [f"{text}; {store[register]} [%rd9+{8 * i}], %rd2;" for i, (text, register, _) in enumerate(TABLE)]
    lines += [f"setp.{word} %p1, {a}, {b}; selp.b64 %rd2, 1, 0, %p1; st.global.u64 [%rd9+{8 * (len(TABLE) + i)}], %rd2;"
              for i, (word, a, b, _) in enumerate(COMPARISONS)]
    found = run("\n".join(lines), len(TABLE) + len(COMPARISONS))
    wrong = [(text, hex(value), hex(want)) for (text, _, want), value in zip(TABLE, found, strict=False) if int(value) != want]
    wrong += [(*row, int(value)) for row, value in zip(COMPARISONS, found[len(TABLE):], strict=True) if int(value) != row[3]]
    assert not wrong
    assert {text.split(".")[0] for text, _, _ in TABLE} | {"setp", "selp", "cvta"} == set(instructions.MEANING)


def test_loops_calls_vectors_and_shared_memory():
    """Each of 40 threads leaves a pair; the last adds them up in a loop, through a function: 0 + .. + 39 times 3."""
    before = """.extern .shared .align 16 .b8 memory[];
    .func (.param .b64 func_retval0) twice(.param .b64 twice_param_0) {
        .reg .b64 %rd<4>; ld.param.u64 %rd1, [twice_param_0]; shl.b64 %rd2, %rd1, 1; st.param.b64 [func_retval0+0], %rd2; ret; }
    """
    found = run("""mov.u32 %r1, %tid.x; mov.u32 %r2, memory; mad.lo.s32 %r3, %r1, 16, %r2; cvt.u64.u32 %rd1, %r1;
    { // callseq 0, 0
    .param .b64 param0; st.param.b64 [param0+0], %rd1; .param .b64 retval0;
    call.uni (retval0), twice, (param0); ld.param.b64 %rd2, [retval0+0]; }
    st.shared.v2.u64 [%r3], {%rd1, %rd2}; bar.sync 0; setp.ne.s32 %p1, %r1, 39; @%p1 bra $L_end; mov.u64 %rd4, 0;
    $L_next: ld.shared.v2.u64 {%rd1, %rd2}, [%r2]; add.s64 %rd4, %rd4, %rd1; add.s64 %rd4, %rd4, %rd2;
    add.s32 %r2, %r2, 16; setp.lt.u32 %p2, %r2, 640; @%p2 bra $L_next; st.global.u64 [%rd9], %rd4;
    $L_end:""", before=before, block=40, shared=640, order="random", races=True)
    assert found[0] == 3 * 39 * 40 // 2


@pytest.mark.parametrize(("body", "said"), [
    ("st.global.v2.u64 [%rd9+8], {%rd1, %rd2};", "touches 16 bytes at byte 8 of argument 0: not aligned"),
    ("st.global.u32 [%rd9+14], %r1;", "touches 4 bytes at byte 14 of argument 0: not aligned"),
    ("ld.global.nc.v2.u64 {%rd1, %rd2}, [%rd9+32];", "touches 16 bytes at byte 32 of argument 0, which has 32"),
    ("ld.global.u64 %rd1, [%rd9+-8];", "touches 8 bytes in front of argument 0"),
    ("ld.u32 %r1, [%rd1];", "an address that lies in nothing"),
    ("st.shared.u64 [%r1+64], %rd1;", "touches 8 bytes at byte 64 of dynamic shared memory, which has 64"),
    ("ld.shared.v2.f64 {%fd1, _}, [%r8];", "touches 16 bytes at byte 8 of dynamic shared memory: not aligned"),
    ("mov.u32 %r1, %tid.x; st.shared.u32 [4], %r1;",
     r"writes byte 4 of shared memory, which thread \d wrote since the kernel began: a race"),
])
def test_what_a_gpu_would_not_forgive_is_an_error(body, said):
    with pytest.raises(host.KernelError, match=said):
        run(body, 4, block=2, shared=64, races="race" in said)


@pytest.mark.parametrize("body", ["ex2.approx.f32 %f1, %f2;", "add.ftz.f32 %f1, %f2, %f2;", "mul.rz.f32 %f1, %f2, %f2;",
                                  "atom.global.add.u32 %r1, [%rd1], 1;", "shfl.sync.idx.b32 %r1, %r2, 0, 31, -1;",
                                  "ld.local.u32 %r1, [%rd1];", "cvt.s32.f32 %r1, %f1;"])
def test_what_is_not_known_is_refused_by_name(body):
    with pytest.raises(instructions.Unsupported, match=body.split(" ")[0].replace(".", r"\.")):
        translate(whole(body), SOURCE, "double")


@needs_nvrtc
@pytest.mark.parametrize(("name", "dtype", "mode"), [("scores", np.float64, "strict"), ("shear_pullback", np.float32, "fast")])
def test_a_hand_written_kernel_has_the_bits_of_its_mirror(name, dtype, mode):
    worst, allowed = ptx.mirrored(name, dtype, mode, order="random", shuffle=1, races=mode == "strict")
    assert worst <= allowed


@pytest.mark.sample(2, cover=False)
@needs_nvrtc
@pytest.mark.parametrize(("name", "dtype", "mode"), [("bare", np.float64, "strict"), ("verlet", np.float32, "fast"),
                                                    ("mixed/thread", np.float32, "strict"), ("verlet/thread", np.float64, "fast")])
def test_a_generated_kernel_has_the_bits_of_native_code(name, dtype, mode):
    worst, allowed = ptx.solved(name, dtype, mode, order="random", shuffle=1, races=mode == "strict")
    print(f"largest difference {worst:.2g} of {allowed:.2g} allowed")
    assert worst <= allowed


@needs_nvrtc
def test_a_compiler_that_makes_another_kernel_would_be_seen(monkeypatch):
    """Additions that are subtractions; no barriers."""
    made, compiled = [], compile.compile

    def worse(old: str, new: str) -> None:
        def changed(*how):
            binary = compiled(*how)
            assert old in binary.ptx
            made.append(binary)
            return binary._replace(ptx=binary.ptx.replace(old, new))
        monkeypatch.setattr(compile, "compile", changed)
        ptx.text.cache_clear()

    worse("add.rn.f64", "sub.rn.f64")
    with pytest.raises(AssertionError):
        ptx.mirrored("scores", np.float64, "strict")
    worse("bar.sync \t0;", "")
    with pytest.raises(host.KernelError, match=r"of shared memory.*: a race"):
        ptx.mirrored("scores", np.float64, "strict", races=True)
    ptx.text.cache_clear()
    assert made


def test_a_difference_is_seen_whatever_it_is():
    zero, one, nan = np.zeros(2, np.float32), np.ones(2), np.array([1.0, np.nan])
    assert ptx.difference([zero, one], [zero, one]) == 0.0 and ptx.difference([one], [2 * one]) == 0.5
    assert ptx.difference([zero + 1], [zero]) > 1e100 and ptx.difference([nan], [nan]) == 0.0
    with pytest.raises(AssertionError):
        ptx.difference([nan], [one])

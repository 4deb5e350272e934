"""The offline gate: NVRTC compiles every kernel for every architecture, strict builds are strict, and nothing has grown.

No GPU and no driver are needed, only `pip install nvidia-cuda-nvrtc`.
"""
from __future__ import annotations

import json
import struct
import sys
from types import SimpleNamespace

import pytest
from record_resources import ARCHES, REALS, TABLE

from reference.benchmarks import gpu_static
from revode_cuda import compile, nvrtc

try:
    VERSION = list(nvrtc.library().version)
except ImportError as error:
    pytest.skip(f"no NVRTC here: {error}", allow_module_level=True)

RECORDED = json.loads(TABLE.read_text(encoding="utf-8"))
BUILDS = [(subject, real, mode) for subject in compile.SUBJECTS for real in REALS for mode in compile.MODES]
SLACK = 16          # registers that another version of NVRTC may take more; seen: the same kernel on two architectures, 10 apart


@pytest.mark.sample(10)
@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(("subject", "real", "mode"), BUILDS)
def test_compiles_and_takes_what_is_recorded(subject, real, mode, arch):
    binary = compile.compile(compile.kernel_source(subject), real, arch, mode)
    sections, = struct.unpack_from("<Q", binary.cubin, 40)
    size, count = struct.unpack_from("<HH", binary.cubin, 58)
    assert binary.cubin[:4] == b"\x7fELF" and sections + size * count <= len(binary.cubin)            # all of it is there
    assert f".target {arch}" in binary.ptx
    assert mode == "fast" or not compile.lint(binary.ptx)
    recorded = {name.split("/")[1]: row[arch] for name, row in RECORDED["kernels"].items()
                if name.split("/")[::2] == [subject, real] and name.endswith(mode)}
    assert binary.resources.keys() == recorded.keys()
    for kernel, took in binary.resources.items():
        registers, *memory = recorded[kernel]
        assert [took.stack, took.spills, took.shared] == memory
        assert took.spills == 0
        assert took.registers == registers if VERSION == RECORDED["nvrtc"] else 0 < took.registers <= registers + SLACK, \
            f"{subject}/{kernel}/{real}/{mode} on {arch}; when that is meant, run tests/kernels/record_resources.py"


def test_fast_builds_contract():
    """Contraction is what tells the modes apart."""
    for subject, fused in (("shears", True), ("adamw", True), ("scores", True), ("collect", False)):
        ptx = compile.compile(compile.kernel_source(subject), "double", "sm_90", "fast").ptx
        assert any("fma.rn.f64" in line for line in compile.lint(ptx)) == fused


def test_lint_knows_what_a_strict_build_may_not_hold():
    bad = ["fma.rn.f32 %f1;", "sqrt.approx.f32 %f2;", "add.ftz.f32 %f3;", "mul.f64 %d5;"]
    good = ["mad.lo.s32 %r1;", "div.rn.f64 %d1;", "sqrt.rn.f32 %f4;", "mul.rn.f64 %d5;", "mul.lo.u64 %l1;"]
    assert compile.lint("\n\t".join([*good, *bad, *good])) == bad


@pytest.mark.parametrize(("body", "what"), [("x[0] = fma(x[0], x[1], x[2]);", "fma.rn.f64"),
                                            ("x[0] = __fdividef(x[0], x[1]);", "div.approx")])
def test_a_strict_build_that_is_not_strict_is_refused(body, what):
    source = f'extern "C" KERNEL void k(real* x) {{ {body} }}'
    with pytest.raises(compile.CompileError, match=f"a strict build holds 1 instructions that are not: {what}"):
        compile.compile(source, "double")
    assert what in compile.compile(source, "double", mode="fast").ptx


def test_what_ptxas_prints_is_understood():
    """Dynamic indices force a stack frame, a cap on registers spills, and 4 kB of shared memory show."""
    source = """extern "C" KERNEL void many(real* x, const int* at) {
        __shared__ real s[512]; real held[64];
        for (int i = 0; i < 64; i++) held[i] = x[64 * TID + i];
        SYNC s[TID] = held[at[TID]]; SYNC
        #pragma unroll
        for (int i = 0; i < 64; i++) x[64 * TID + i] = s[TID ^ i] * held[63 - i] + held[i];
    }
    extern "C" KERNEL void few(real* x) { x[TID] = 0; }"""
    took = compile.compile(source, "double", options=["--maxrregcount=24"]).resources
    assert took["many"].spills > 0 and took["many"].stack >= 512 and took["many"].shared == 4096
    assert took["few"] == (took["few"].registers, 0, 0, 0) and 0 < took["few"].registers <= 24


def test_the_prelude_serves_generated_kernels():
    source = """FUNCTION real twice(real a) { return 2 * a; }
    extern "C" KERNEL void k(real* x, int n) {
        extern __shared__ real s[];
        for (int i = TID; i < n; i += NT) s[i] = twice(x[BLOCK * n + i]);
        SYNC
        for (int i = TID; i < n; i += NT) x[BLOCK * n + i] = s[n - 1 - i];
    }"""
    for real, kind in (("double", "f64"), ("float", "f32")):
        ptx = compile.compile(source, real).ptx
        assert "bar.sync" in ptx and f"add.rn.{kind}" in ptx + ptx.replace("mul", "add") and ".extern .shared" in ptx


def test_errors_say_what_and_what_to_do(monkeypatch):
    with pytest.raises(compile.CompileError, match=r'kernel\.cu\(2\): error: identifier "nonsense" is undefined'):
        compile.compile('extern "C" KERNEL void k(real* x) {\n nonsense; }')
    with pytest.raises(compile.CompileError, match="sm_12"):
        compile.compile('extern "C" KERNEL void k(real* x) {}', arch="sm_12")
    for bad, said in (({"mode": "exact"}, "mode='exact'; strict or fast"), ({"real": "half"}, "real='half'; double or float")):
        with pytest.raises(ValueError, match=said):
            compile.compile("", **bad)
    with pytest.raises(ValueError, match="'sheers'; one of adamw, "):
        compile.kernel_source("sheers")
    monkeypatch.setattr(nvrtc, "places", lambda: ["libnowhere.so"])
    with pytest.raises(ImportError, match=r"pip install nvidia-cuda-nvrtc.*No GPU is needed to compile"):
        nvrtc.library.__wrapped__()


def test_binaries_are_kept_and_damage_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "cache_folder", lambda: tmp_path / "new")
    made = []
    build = compile._made
    monkeypatch.setattr(compile, "_made", lambda *args: made.append(args) or build(*args))

    def compiled(**options):
        compile._compiled.cache_clear()
        return compile.compile('extern "C" KERNEL void k(real* x) { x[TID] = 1; }', **options)

    first = compiled()
    assert compiled() == first and len(made) == 1                       # from the folder
    for other in ({"real": "float"}, {"mode": "fast"}, {"arch": "sm_80"}, {"options": ["--maxrregcount=32"]}):
        assert compiled(**other) != first or other == {"mode": "fast"}
    assert len(made) == 5 and len(list((tmp_path / "new").iterdir())) == 5
    for path in (tmp_path / "new").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert compiled() == first and len(made) == 6
    monkeypatch.setattr(compile, "cache_folder", lambda: tmp_path / "file" / "below")
    (tmp_path / "file").write_text("a file where a folder should be")
    assert compiled() == first and len(made) == 7                       # nowhere to keep it: made again


def test_a_launch_loads_our_own_binary_and_allows_large_shared_memory(monkeypatch):
    """With a stand-in for CuPy, as there is no GPU: what reaches the driver."""
    compile._module.cache_clear()
    compile._function.cache_clear()
    seen = []
    function = type("Function", (), {"ptr": 7, "__call__": lambda self, grid, block, args, shared_mem: seen.append(
        ("launch", grid, block, args, shared_mem))})()
    module = SimpleNamespace(load=lambda cubin: seen.append(("load", cubin)), get_function=lambda name: function)
    driver = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8, funcSetAttribute=lambda *a: seen.append(("set", *a)))
    cuda = SimpleNamespace(Device=lambda: SimpleNamespace(id=0, compute_capability="90"), driver=driver,
                           function=SimpleNamespace(Module=lambda: module))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, is_available=lambda: True))
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    source = 'extern "C" KERNEL void k(real* x) { extern __shared__ real s[]; x[TID] = s[TID]; }'
    sizes = (0, 1024, 100_000, 100_000, 60_000, 120_000)
    for shared in sizes:
        compile.launch(source, "k", 3, (32, 2), ["x", None], shared=shared)
    cubin = compile.compile(source).cubin
    launches = [("launch", (3, 1, 1), (32, 2, 1), ("x", 0), shared) for shared in sizes]
    assert seen == [("load", cubin), *launches[:2], ("set", 7, 8, 100_000), *launches[2:5], ("set", 7, 8, 120_000), launches[5]]
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(is_available=lambda: False))
    with pytest.raises(RuntimeError, match="finds no GPU"):
        compile.arch()
    compile._module.cache_clear()
    compile._function.cache_clear()


def test_fused_kernels_are_short_and_quickly_compiled():
    """The largest of the benchmarks: at most 64 kB of code for a step, no spills, 2.5 s of processor time (seen: 25 kB, .6 s)."""
    for row in gpu_static.rows(gpu_static.Case("w2", "coupled-midpoint", "float64")).values():
        assert 0 < row.step * gpu_static.INSTRUCTION <= 64_000 and row.step < row.instructions
        assert row.spills == 0 and row.seconds <= 2.5 and row.registers * row.plan.threads <= 65536


def test_a_thread_that_has_a_trajectory_computes_and_does_nothing_else():
    """No barrier, nothing spilled; most of the code of a step is products and sums (seen: 77 %; of a warp for a tile 12 %)."""
    rows = gpu_static.rows(gpu_static.Case("kinetics", "coupled-midpoint", "float64"))
    for row in rows.values():
        n, products = row.again
        assert row.plan.regime == "thread per trajectory" and row.spills == row.barriers == 0 and row.registers <= 128
        assert products >= n / 2 and row.seconds <= 1

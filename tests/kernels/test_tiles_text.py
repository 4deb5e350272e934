"""The C++ and CUDA text that does not change from field to field: each file alone, with every warning there is."""
from __future__ import annotations

import platform
import re
import subprocess

import numpy as np
import pytest

from revode.compiled import elementary, generate, native, noise
from revode_cuda import compile
from tests.compiler import needs_compiler
from tests.nvrtc import needs_nvrtc

pytestmark = pytest.mark.optimised
WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-function", "-Werror", "-fsyntax-only")             # it has functions for other fields
WIDTHS = {"native": ("-march=native",), "SSE2": ("-march=x86-64",), "AVX2": ("-march=x86-64-v3",), "AVX-512": ("-march=x86-64-v4",)}
SIZES = [(1, 1, 1), (1, 3, 5), (2, 17, 11), (1, 64, 48), (1, 256, 300)]          # p, n, m


def whole(T: int, dtype: type, noisy: bool = True) -> str:
    """All of it, and a function that calls every template for each of SIZES."""
    sizes = "".join(f"#define {name} {n}\n" for name, n in {"T": T, "MEMORY": 64, "PERSISTENT": 16, "PARAMS": 16}.items())
    calls = "\n  ".join(f"rv_linear<{p}, {n}, {m}>(out, x, w); rv_outer<{n}, {m}>(out, x, w, (const real*)0, R); "
                        f"rv_rows<{n}>(out, x, out, R); rv_rows_max<{m}>(out, x, out, R); "
                        f"rv_outer_rows<{n}, {m}>(out, x, w, w, out, w, R);" for p, n, m in SIZES)
    brownian = "rv_brownian_tile(S, T, 3, TID, NT, 1ull, 2u, 3u, 0.1); SYNC;" if noisy else ""
    return "\n".join([
        elementary.c_source(elementary.NAMES, dtype), sizes, generate.TILE_FUNCTIONS, noise.SOURCE if noisy else "",
        "STRETCH1(rv_tanh) STRETCH2(rv_arctan2)", "TABLE int M0[2] = {0, 1};",
        f"STEP void step(real* RESTRICT S, const real* RESTRICT x, int R) {{\n  real* out = S; const real* w = x;\n  {calls}\n"
        "  EACH(2) S[k * T + r] = rv_tanh(S[M0[k] * T + r]); SYNC;\n  ONCE(2) S[k] = rv_sqrt(S[k]); SYNC;\n"
        f"  rv_tanh_stretch(out, x, 3); rv_arctan2_stretch(out, x, w, 3); {brownian}\n}}",
        'extern "C" KERNEL void run(TILE_ARGUMENT const real* P, real* M, int R) {\n  TILE_MEMORY(M);',
        "  step(S, P, R);\n  TILE_RETURN(M);\n}"])


@needs_compiler
@pytest.mark.parametrize("T", [1, 16])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_host_takes_it_without_a_warning(width, T):
    for dtype in (np.float64, np.float32):
        done = subprocess.run([native.compiler().path, *native.FLAGS, *WIDTHS[width], *WARNINGS, "-x", "c++", "-"],
                              input=whole(T, dtype), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:2000]


@needs_compiler
def test_a_warning_would_be_seen():
    text = generate.TILE_FUNCTIONS.replace("u = V > 1 ? 2 : 1,", "u = V > 1 ? 2 : 1, R = 0,")
    assert text != generate.TILE_FUNCTIONS
    done = subprocess.run([native.compiler().path, *native.FLAGS, *WARNINGS, "-x", "c++", "-"],
                          input=whole(16, np.float64).replace(generate.TILE_FUNCTIONS, text), capture_output=True, text=True)
    assert done.returncode and "unused variable" in done.stderr


PLANS = {"plain": "", "threads": "#define TILE_THREADS 64\n", "global": "#define TILE_GLOBAL\n#define PARAMS_GLOBAL\n"}


@needs_nvrtc
@pytest.mark.sample(1)
@pytest.mark.parametrize("plan", PLANS)
def test_and_nvrtc(plan):
    for real, dtype, mode in (("double", np.float64, "strict"), ("float", np.float32, "fast")):      # what warns does not see the mode
        made = compile.compile(PLANS[plan] + whole(16, dtype), real, "sm_90", mode)
        assert not re.search(r"\bwarning\b", made.log), made.log


def test_nothing_is_included():
    """What is generated stands alone; the files include one another for those who read them."""
    for name in ("tiles.hpp", "tiles.cuh"):
        assert "#include" not in generate.text(name) and "atomic" not in generate.text(name)
    assert '#include "tiles.cuh"' in (generate.Path(generate.__file__).with_name("tiles.hpp")).read_text(encoding="utf-8")


# ------------------------------------------------------------------ sums over the lanes

SUMMED = [(1, 1), (3, 5), (8, 8), (4, 32), (32, 4), (17, 11), (20, 50)]            # n, m: rests of blocks, of panels, of vectors


@pytest.mark.sample(3, cover=False)
@needs_compiler
@pytest.mark.parametrize("level", ["native", "SSE2", "AVX2", "without shuffles"])
@pytest.mark.parametrize("T", [1, 2, 4, 16, 32])
def test_sums_over_the_lanes_have_the_bits_of_plain_loops(T, level, monkeypatch):
    """Every lane, and fewer of them; with and without a sum to add to. The plain loops are NumPy's, one lane after the other."""
    found = native.compiler()
    monkeypatch.setattr(native, "compiler", lambda: found._replace(target=WIDTHS.get(level, ("-march=native",))))
    text = generate.TILE_FUNCTIONS if level in WIDTHS else generate.TILE_FUNCTIONS.replace("#define TURNS", "")      # older compilers
    rng = np.random.default_rng(T)
    for dtype in (np.float64, np.float32):
        sizes = "".join(f"#define {name} {n}\n" for name, n in {"T": T, "MEMORY": 1, "PERSISTENT": 1, "PARAMS": 1}.items())
        calls = "\n".join(f"if (which == {i}) {{ rv_outer<{n}, {m}>(out, x, g, total, R); "
                          f"rv_outer_rows<{n}, {m}>(both, x, g, total, sums, before, R); }}" for i, (n, m) in enumerate(SUMMED))
        entry = ("long long which, real* out, real* both, real* sums, const real* x, const real* g, const real* total, "
                 "const real* before, long long R")
        run = native.build(f'{elementary.c_source([], dtype)}{sizes}{text}\nextern "C" void run({entry}) '
                           f'{{\n{calls}\n}}', strict=True).run
        for which, (n, m) in enumerate(SUMMED):
            for R in sorted({1, T - T // 3, T}):
                x, g = rng.standard_normal((n, T)).astype(dtype), rng.standard_normal((m, T)).astype(dtype)
                total, before = rng.standard_normal((n, m)).astype(dtype), rng.standard_normal(m).astype(dtype)
                outer, rows = x[:, :1] * g[:, 0], g[:, 0]
                for r in range(1, R):
                    outer, rows = outer + x[:, r:r + 1] * g[:, r], rows + g[:, r]
                for adds in (True, False):
                    out, both, sums = (np.full(n + 1, np.nan, dtype) for n in (n * m, n * m, m))          # one more: is it left alone?
                    run(*native.arguments(which, out, both, sums, x, g, total if adds else None, before if adds else None, R))
                    for made, wanted in ((out, total + outer if adds else outer), (both, total + outer if adds else outer),
                                         (sums, before + rows if adds else rows)):
                        np.testing.assert_array_equal(made[:-1], wanted.ravel())
                        assert np.isnan(made[-1])


@needs_compiler
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="assembly of x86-64")
@pytest.mark.parametrize("level", ["native", "SSE2", "AVX2", "AVX-512"])
def test_lanes_and_features_change_places_in_whole_vectors(level):
    """w vectors in, w log2 w shuffles of two instructions at most, w vectors out; no number goes alone."""
    macros = subprocess.run([native.compiler().path, *WIDTHS[level], "-dM", "-E", "-x", "c++", "-"], input="", capture_output=True,
                            text=True, check=True).stdout
    sizes = "".join(f"#define {name} {n}\n" for name, n in {"T": 32, "MEMORY": 1, "PERSISTENT": 1, "PARAMS": 1}.items())
    if not re.search("__GNUC__ (1[2-9]|[2-9][0-9])", macros):
        pytest.skip("a compiler without __builtin_shufflevector")
    for dtype in (np.float64, np.float32):
        wide = (64 if "__AVX512F__" in macros else 32 if "__AVX__" in macros else 16) // np.dtype(dtype).itemsize
        source = (elementary.c_source([], dtype) + sizes + generate.TILE_FUNCTIONS
                  + 'extern "C" void run(real* out, const real* x, int n) { rv_turn(out, 8, x, n); }\n')
        done = subprocess.run([native.compiler().path, *native.FLAGS, *WIDTHS[level], "-S", "-o", "-", "-x", "c++", "-"], input=source,
                              capture_output=True, text=True, check=True)
        lines = re.findall(r"^\t([a-z].*%[xyz]mm.*)$", done.stdout, re.M)
        shuffles = [line for line in lines if re.match(r"v?(unpck|perm|shuf|insert[fi]|movl?[hl][lp]|blend|extract)", line)]
        assert shuffles and len(shuffles) <= wide * np.log2(wide) * 2, (dtype, len(shuffles))
        assert not [line for line in lines if re.match(r"v?(movs[sd]|insertps|pinsr|pextr)\b", line)], dtype

"""The elementary functions: C and NumPy in bits, errors against mpmath, ends and signs against NumPy."""
import re
import warnings

import numpy as np
import pytest
import scipy.special

from reference import elementary as measured
from revode.compiled import elementary, precisions
from revode.compiled.elementary import MAX_ULP, NAMES, evaluate
from tests.compiler import needs_compiler

pytestmark = pytest.mark.optimised
DTYPES = (np.float64, np.float32)
TWO = [name for name in NAMES if measured.arity(name) == 2]


@pytest.fixture(scope="module")
def libraries():
    """The C functions by (dtype, strict)."""
    return {(dtype, strict): measured.library(NAMES, dtype, strict) for dtype in DTYPES for strict in (True, False)}


def edges(name, dtype):
    """Zeros, infinities, NaN, the smallest and largest numbers, kinks of the functions, and the neighbours of all of them."""
    info = np.finfo(dtype)
    kinks = [0.5, 1, 2, 3, 20, 25, 1e5, 1e-5, 0.41421356237309503, 2.414213562373095, np.pi, np.pi / 2, 709.78, 710.4758, 745.13,
             88.72, 89.41, 103.97, 1024, 1074, 128, 149, np.sqrt(0.5), np.log(2) / 2, 60, 2.0 ** 23, 2.0 ** 24, 2.0 ** 51,
             2.0 ** 53, 2.0 ** 64, info.tiny, info.smallest_subnormal, info.max, 1 - info.epsneg, np.sqrt(info.max)]
    with np.errstate(all="ignore"):
        x = np.array([0.0, np.inf, *kinks]).astype(dtype)
        up, down = np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(0))
        x = np.concatenate([x, -x, up, -up, down, -down, [np.nan]])
    x = x.astype(dtype)
    return (x,) if measured.arity(name) == 1 else tuple(np.ascontiguousarray(a.ravel()) for a in np.meshgrid(x, x))


def equal_bits(a, b):
    """Bit for bit; NaN may have any sign and payload."""
    integer = f"u{a.itemsize}"
    return (a.view(integer) == b.view(integer)) | (np.isnan(a) & np.isnan(b))


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_strict_c_has_the_bits_of_numpy(libraries, name, dtype):
    random = measured.points(name, dtype, 50_000, seed=2)
    patterns = np.random.default_rng(3).integers(0, 256, (measured.arity(name), 50_000 * np.dtype(dtype).itemsize), dtype=np.uint8)
    any_bits = patterns.view(dtype)                          # every exponent alike, subnormal numbers and NaN among them
    x = [np.concatenate(parts) for parts in zip(random, any_bits, edges(name, dtype), strict=True)]
    assert len(x[0]) >= 100_000 or name == "sign"
    same = equal_bits(measured.call(libraries[dtype, True], name, *x), evaluate(name, *x))
    assert same.all(), [a[~same][:3] for a in x]


@pytest.mark.sample(20, cover=False)
@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_errors_against_mpmath(libraries, name, dtype):
    """MAX_ULP, strict and fast. `worst` has long double pick the candidates among 1e5, and mpmath judge them; on machines whose
    long double is double the candidates are just less well picked. Some 200 more are taken blindly."""
    x = measured.points(name, dtype, 30_000, seed=4)
    some = np.random.default_rng(5).integers(0, len(x[0]), 200)
    for strict in (True, False):
        y = measured.call(libraries[dtype, strict], name, *x)
        assert measured.worst(name, y, x, judged=10) <= MAX_ULP[name]
        for i in some if strict else ():
            assert measured.ulps(name, y[i], [a[i] for a in x]) <= MAX_ULP[name], [a[i] for a in x]


def numpy_value(name, *x):
    with np.errstate(all="ignore"):
        return scipy.special.erf(*x) if name == "erf" else getattr(np, name)(*x)


def in_range(name, dtype, *x):
    """Where the documented limits hold: angles with digits left, quotients that remainder can take."""
    k = precisions.FORMATS[np.dtype(dtype)]
    with np.errstate(all="ignore"):
        if name in ("sin", "cos", "tan"):
            return ~np.isfinite(x[0]) | (np.abs(x[0]) <= 1e5)
        if name in ("remainder", "floor_divide"):
            a, b = np.abs(x[0]).astype(np.float64), np.abs(x[1]).astype(np.float64)
            return ~np.isfinite(a) | (b == 0) | np.isnan(b) | (a / 2.0 ** (3 * k.stage) <= b)
    return np.ones(x[0].shape, bool)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_edges_are_those_of_numpy(name, dtype):
    x = edges(name, dtype)
    kept = in_range(name, dtype, *x)
    x = [a[kept] for a in x]
    found, expected = evaluate(name, *x), numpy_value(name, *x)
    both = np.stack([found, expected])
    assert np.array_equal(*np.isnan(both)), [a[np.isnan(found) != np.isnan(expected)][:5] for a in x]
    # A result between the largest number and Inf, or between 0 and the smallest, may go either way: one step of nextafter. Our
    # bound, and 4 ulps for NumPy's own error (its float32 functions: up to 4).
    with np.errstate(all="ignore"):
        sizes = np.abs(expected) if name != "logaddexp" else np.maximum(np.abs(expected), np.maximum(*np.abs(x)))
        step = np.spacing(np.minimum(sizes, np.finfo(dtype).max))
        small = np.abs(found - expected) <= (MAX_ULP[name] + 4) * step
    ends = np.isinf(both).any(0)
    top = (np.abs(both) >= np.finfo(dtype).max).all(0) & (np.signbit(found) == np.signbit(expected))
    close = (found == expected) | small & ~ends | top | np.isnan(found)
    assert close.all(), [(*(a[~close][:5] for a in x), found[~close][:5], expected[~close][:5])]
    signs = np.isnan(found) | (np.signbit(found) == np.signbit(expected))
    assert signs.all(), [a[~signs][:5] for a in x]


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_fast_mode_has_the_same_zeros_infinities_and_nans(libraries, name, dtype):
    x = edges(name, dtype)
    kept = in_range(name, dtype, *x)
    x = [a[kept] for a in x]
    found, mirror = measured.call(libraries[dtype, False], name, *x), evaluate(name, *x)
    assert np.array_equal(np.isnan(found), np.isnan(mirror))
    assert np.array_equal(np.isinf(found), np.isinf(mirror)) and np.array_equal(found == 0, mirror == 0)
    assert (np.isnan(found) | (np.signbit(found) == np.signbit(mirror))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["remainder", "floor_divide"])
def test_remainders_are_numpys_bits(name, dtype):
    x = measured.points(name, dtype, 20_000, seed=6)
    if name == "floor_divide":                               # above, NumPy's own result is rounded, and so is ours
        kept = np.abs(x[0] / x[1]) < 2.0 ** (precisions.FORMATS[np.dtype(dtype)].digits - 1)
        x = x[0][kept], x[1][kept]
    assert len(x[0]) > 40_000 and equal_bits(evaluate(name, *x), numpy_value(name, *x)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_values(dtype):
    n = np.arange(-20, 21).astype(dtype)
    assert np.array_equal(evaluate("exp2", n), dtype(2) ** n) and np.array_equal(evaluate("log2", dtype(2) ** n), n)
    assert np.array_equal(evaluate("cbrt", n ** 3), n)
    small = np.arange(1, 12).astype(dtype)                   # 11^6 < 2^24: powers are numbers of either precision
    for k in range(7):
        assert np.array_equal(evaluate("power", -small, np.full_like(small, k)), (-small) ** k)
    assert evaluate("erf", dtype(6.5)) == 1 and evaluate("erf", dtype(-np.inf)) == -1
    assert evaluate("tanh", dtype(30.0)) == 1 and evaluate("exp", dtype(0.0)) == 1 and evaluate("log", dtype(1.0)) == 0
    assert np.isnan(evaluate("sin", dtype(2.0) ** precisions.FORMATS[np.dtype(dtype)].digits))


@pytest.mark.parametrize("name", ["tanh", "sinh", "expm1", "arctan", "arcsin", "arcsinh", "arctanh", "sin", "tan", "log1p", "cbrt"])
def test_small_numbers_keep_all_digits(name):
    """Each is x + O(x^2), but the cube root: subnormal numbers come back as they are."""
    x = np.array([0.0, 5e-324, 1e-310, 2.0 ** -1022, 1e-300])
    x = np.concatenate([x, -x])
    y = evaluate(name, x) if name != "cbrt" else evaluate(name, x * 1e0)
    expected = x if name != "cbrt" else np.cbrt(x)
    assert np.all(np.abs(y - expected) <= np.spacing(np.abs(expected))) and np.array_equal(np.signbit(y), np.signbit(x))
    if name != "cbrt":
        assert np.array_equal(y, x)


def test_evaluate_shapes_dtypes_and_messages():
    x = np.linspace(-1, 1, 12).reshape(3, 4)
    assert evaluate("tanh", x).shape == (3, 4) and evaluate("arctan2", x, x[:1]).shape == (3, 4)
    assert evaluate("tanh", x.astype(np.float32)).dtype == np.float32 and evaluate("tanh", [0, 1]).dtype == np.float64
    assert evaluate("power", x.astype(np.float32), x).dtype == np.float64
    assert np.array_equal(evaluate("tanh", x[:, ::2]), evaluate("tanh", x)[:, ::2]) and evaluate("exp", 0.0).shape == ()
    long = np.linspace(-3, 3, 10_001)                        # more than a block, and not a multiple of it
    assert np.array_equal(evaluate("tanh", -long), -evaluate("tanh", long))
    assert np.array_equal(evaluate("tanh", long[4090:4100]), evaluate("tanh", long)[4090:4100])
    with pytest.raises(ValueError, match="no function 'gamma'; there are exp, "):
        evaluate("gamma", x)
    with pytest.raises(ValueError, match="no function 'gamma'"):
        elementary.c_source(["tanh", "gamma"], np.float64)


@pytest.mark.parametrize("name", NAMES)
def test_no_warnings_escape(name):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for dtype in DTYPES:
            evaluate(name, *edges(name, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_text_is_straight_lines_of_single_operations(dtype):
    text = elementary.c_source(NAMES, dtype)
    assert "#include" not in text
    bodies = re.findall(r"FUNCTION real rv_(\w+)\((?:real x|real x, real y)\) \{\n(.*?)\n\}", text, re.S)
    assert [name for name, _ in bodies] == list(NAMES)
    atom = r"-?(?:[\w.]+(?:e[+-]\d+)?f?)"
    line = re.compile(rf" +const real v\d+ = (-?\w+|{atom} [-+*/] {atom}|RV_\w+\([^()]*\)|\(+.*\)+ \? {atom} : {atom});")
    for _, body in bodies:
        *lines, last = body.splitlines()
        assert re.fullmatch(r" +return v\d+;", last) and all(line.fullmatch(one) for one in lines)


@pytest.mark.parametrize("single", [False, True])
def test_the_coefficients_are_those_of_the_fit(single):
    k = precisions.SINGLE if single else precisions.DOUBLE
    for name, expected in measured.coefficients(single).items():
        assert getattr(k, name) == expected, name


def test_parts_of_constants_add_up():
    """To at least 30 digits more than 2^-(digits) where two parts stand for a constant: mpmath's value, the parts added exactly."""
    import mpmath
    for k in (precisions.DOUBLE, precisions.SINGLE):
        with mpmath.workdps(60):
            values = {"ln2": mpmath.log(2), "log10_2": mpmath.log10(2), "half_pi": mpmath.pi / 2, "cut_pi": mpmath.pi / 2,
                      "cut_ln2": mpmath.log(2), "cut_cp": 2 / (3 * mpmath.log(2))}
            for name, value in values.items():
                *most, last = getattr(k, name)
                rest = value - sum(map(mpmath.mpf, most))
                assert abs(rest - last) <= abs(rest) * mpmath.mpf(2) ** -(k.digits + 1), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_nvrtc_takes_the_text_and_keeps_the_operations_apart(dtype):
    """Strict CUDA: no fused operation, no approximation. Offline, no GPU is needed."""
    text = elementary.c_source(NAMES, dtype)
    for name in NAMES:
        inputs = range(measured.arity(name))
        text += (f'extern "C" __global__ void k_{name}(real* out, {", ".join(f"const real* a{i}" for i in inputs)}) '
                 f'{{ out[threadIdx.x] = rv_{name}({", ".join(f"a{i}[threadIdx.x]" for i in inputs)}); }}\n')
    try:
        ptx = measured.ptx(text, "--fmad=false")
    except ImportError as error:
        pytest.skip(str(error))
    assert not re.search(r"\bfma\.|\.approx|\.ftz", ptx)

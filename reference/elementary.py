"""The elementary functions of compiled code: their coefficients, their errors, their speed.

    python -m reference.elementary            writes docs/measurements/elementary.md (about two minutes)
    python -m reference.elementary --fit      prints the coefficients of revode/compiled/precisions.py

Errors: the C functions, strict and fast, on random points; long double arithmetic (for erf, SciPy) finds the worst points, mpmath
judges them.
"""
from __future__ import annotations

import ctypes
import platform
import sys
import time
from pathlib import Path

import mpmath
import numpy as np
import scipy.special

from revode.compiled import elementary, native, noise

OUT = Path(__file__).parents[1] / "docs" / "measurements" / "elementary.md"
HOT = ("tanh", "exp", "log", "sin", "cos")


# ------------------------------------------------------------------------------------------------------------ coefficients

def interpolated(f, a, b, degree) -> list:
    """The polynomial of this degree that equals f at the Chebyshev nodes of [a, b], lowest power first."""
    n = degree + 1
    xs = [(a + b) / 2 + (b - a) / 2 * mpmath.cos((2 * i + 1) * mpmath.pi / (2 * n)) for i in range(n)]
    return list(mpmath.lu_solve(mpmath.matrix([[x ** j for j in range(n)] for x in xs]), mpmath.matrix([f(x) for x in xs])))


def tanh_quotient(top, bottom) -> tuple:
    """p, q of v (1 + p_1 w + ...) / (1 + q_1 w + ...), w = v^2, that equals tanh v at Chebyshev nodes of |v| <= ln 2 / 4."""
    n, b = top + bottom, (mpmath.log(2) / 4) ** 2
    ws = [b / 2 + b / 2 * mpmath.cos((2 * i + 1) * mpmath.pi / (2 * n)) for i in range(n)]
    f = [mpmath.tanh(mpmath.sqrt(w)) / mpmath.sqrt(w) for w in ws]
    rows = [[w ** j for j in range(top)] + [-y * w ** j for j in range(bottom)] for w, y in zip(ws, f, strict=True)]
    s = list(mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([(y - 1) / w for w, y in zip(ws, f, strict=True)])))
    return s[:top], s[top:]


def of_square(f):
    """z -> f(sqrt z), for the even parts of series."""
    return lambda z: f(mpmath.sqrt(z))


def coefficients(single: bool) -> dict:
    """Every polynomial of precisions.DOUBLE, or of SINGLE, rounded to its precision."""
    with mpmath.workdps(50):
        half, root = mpmath.log(2) / 2, mpmath.sqrt(2)
        s, quarter, eighth = ((root - 1) / (root + 1)) ** 2, (mpmath.pi / 4) ** 2, (root - 1) ** 2
        exp_rest = lambda r: (mpmath.expm1(r) - r) / r ** 2 if abs(r) > 1e-20 else mpmath.mpf(1) / 2
        rows = {
            "exp": (exp_rest, -half, half, 4 if single else 9),
            "log": (of_square(lambda s: (2 * mpmath.atanh(s) / s - 2) / s ** 2), 0, s, 2 if single else 6),
            "power": (of_square(lambda s: (3 * mpmath.atanh(s) / s - 3 - s ** 2) / s ** 4), 0, s, 3 if single else 6),
            "sin": (of_square(lambda r: (mpmath.sin(r) / r - 1) / r ** 2), 0, quarter, 3 if single else 5),
            "cos": (of_square(lambda r: (mpmath.cos(r) - 1 + r ** 2 / 2) / r ** 4), 0, quarter, 3 if single else 5),
            "arctan": (of_square(lambda t: (mpmath.atan(t) / t - 1) / t ** 2), 0, eighth, 4 if single else 10),
            "arcsin": (of_square(lambda x: (mpmath.asin(x) / x - 1) / x ** 2), 0, mpmath.mpf(1) / 4, 5 if single else 12)}
        erf_rest = lambda x: mpmath.erf(x) / x - 1 if x > 1e-20 else 2 / mpmath.sqrt(mpmath.pi) - 1
        erfcx = lambda s: mpmath.erfc(2 * (1 + s) / (1 - s)) * mpmath.exp((2 * (1 + s) / (1 - s)) ** 2)
        far = mpmath.mpf(2 if single else 4) / (6 if single else 8)             # s = (x - 2)/(x + 2) where erf is 1: x = 4, x = 6
        rows |= {"erf": (of_square(erf_rest), 0, 1, 6 if single else 11),
                 "erfc": (erfcx, -mpmath.mpf(1) / 3, far, 6 if single else 14)}
        rounded = lambda cs: tuple(float(np.float32(float(c))) if single else float(c) for c in cs)
        table = {name: rounded(interpolated(*row)) for name, row in rows.items()}
        return table | {"tanh": tuple(map(rounded, tanh_quotient(*((1, 1) if single else (2, 2)))))}


# ------------------------------------------------------------------------------------------------------------ the oracle

EXACT = {
    "erf": mpmath.erf,
    "exp2": lambda x: mpmath.power(2, x), "log2": lambda x: mpmath.log(x) / mpmath.log(2), "arcsinh": mpmath.asinh,
    "arccosh": mpmath.acosh, "arctanh": mpmath.atanh, "arctan": mpmath.atan, "arcsin": mpmath.asin, "arccos": mpmath.acos,
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), "arctan2": mpmath.atan2, "sign": mpmath.sign,
    "logaddexp": lambda a, b: max(a, b) + mpmath.log1p(mpmath.exp(-abs(a - b))),
    "floor_divide": lambda a, b: mpmath.floor(a / b), "remainder": lambda a, b: a - b * mpmath.floor(a / b)}


def oracle(name, *x):
    """The value to 60 digits, the arguments being floats; remainder and floor_divide have more where they need them."""
    with mpmath.workprec(1200 if name in ("remainder", "floor_divide") else 200):
        return EXACT.get(name, getattr(mpmath, name, None))(*(mpmath.mpf(float(a)) for a in x))


def ulps(name, found, x) -> float:
    """|found - exact| in units in the last place of the exact value (logaddexp: of the largest argument, if that is larger)."""
    exact = oracle(name, *x)
    size = max([abs(exact), *(abs(float(a)) for a in x)]) if name == "logaddexp" else abs(exact)
    top = np.finfo(found.dtype).max
    if size > top:                                          # between the largest number and Inf either is right to an ulp
        return 0.0 if np.isinf(found) or abs(found) == top else np.inf
    return float(abs(mpmath.mpf(float(found)) - exact) / mpmath.mpf(float(np.spacing(found.dtype.type(float(size))))))


def points(name, dtype, n, seed=0) -> tuple:
    """Arguments that reach every branch and the ends of the range: about n of each kind."""
    rng = np.random.default_rng(seed)
    single = np.dtype(dtype) == np.float32
    top = 128 if single else 1024
    u = lambda a, b: rng.uniform(a, b, n)
    wide = lambda a, b: np.exp2(rng.uniform(a, b, n)) * rng.choice([-1.0, 1.0], n)
    near = lambda x: [np.float64(x) * (1.0 + wide(-30, -3))]
    angles = [u(-1e5, 1e5), u(-7, 7), wide(-60, 16), np.round(u(-6e4, 6e4)) * (np.pi / 2)]
    logs = [np.abs(wide(-top - 15, top - 1)), u(0.4, 2.5), 1.0 + wide(-40, -1), *near(np.sqrt(0.5))]
    unit = [u(-1, 1), wide(-60, 0), 1.0 - np.abs(wide(-50, -1))]
    one = {
        "exp": [u(-0.7 * top - 30, 0.7 * top), u(-2, 2), wide(-60, 10)], "exp2": [u(-1.1 * top, top), u(-2, 2), wide(-60, 10)],
        "expm1": [u(-40, 0.7 * top), u(-1, 1), wide(-60, 9), u(0.692 * top, 0.694 * top)],
        "tanh": [u(-20, 20), u(-1, 1), wide(-60, 4), u(0.1, 0.6)], "sinh": [u(-0.695 * top, 0.695 * top), u(-2, 2), wide(-60, 9)],
        "cosh": [u(-0.695 * top, 0.695 * top), u(-2, 2)], "sin": angles, "cos": angles, "tan": angles,
        "log": logs, "log2": logs, "log10": logs, "log1p": [u(-1, 2), wide(-60, -1), np.abs(wide(-60, top - 1))],
        "arcsinh": [wide(-60, top - 1), u(-3, 3)], "arccosh": [1.0 + np.abs(wide(-40, 10)), np.abs(wide(0, top - 1)), u(1, 3)],
        "arctanh": [u(-1, 1), wide(-60, -0.01)], "arcsin": unit, "arccos": unit,
        "arctan": [u(-5, 5), wide(-60, 60), *near(np.tan(np.pi / 8)), *near(np.tan(3 * np.pi / 8))], "cbrt": [wide(-top, top - 1)],
        "erf": [u(-1.3, 1.3), u(-7, 7), wide(-60, 3), *near(1.0)], "sign": [u(-1, 1)]}
    if name in one:
        return (np.concatenate(one[name]).astype(dtype),)
    if name == "power":
        a = np.concatenate([np.abs(wide(-20, 20)), 1.0 + wide(-30, -2), np.abs(wide(-3, 3)), wide(-8, 8)]).astype(dtype)
        b = np.concatenate([u(-top / 20, top / 20), wide(2, 38), u(-top / 3, top / 3), np.round(u(-20, 20))]).astype(dtype)
        inside = np.abs(b * np.log2(np.abs(a.astype(np.float64)))) < 1.1 * top
        return a[inside], b[inside]
    if name in ("remainder", "floor_divide"):
        b = np.concatenate([wide(-15, 15), u(-3, 3), np.round(u(1, 20))])
        return (b * np.concatenate([wide(-5, 15 if single else 60), u(-20, 20), np.round(u(-9, 9))])).astype(dtype), b.astype(dtype)
    if name == "logaddexp":
        return np.concatenate([u(-5, 5), u(-90, 90)]).astype(dtype), np.concatenate([u(-5, 5), u(-90, 90)]).astype(dtype)
    sizes = lambda: np.concatenate([wide(-30, 30), u(-3, 3), wide(-top / 2, top / 2 - 1)]).astype(dtype)
    return sizes(), sizes()


# ------------------------------------------------------------------------------------------------------- the C functions

LOOP = """
extern "C" void loop_{name}(long long n, real* out, {declared}) {{
    for (long long i = 0; i < n; i++) out[i] = rv_{name}({used});
}}
"""
AGAIN = """
extern "C" void again{count}_{name}(long long n, real* out, {declared}) {{
    for (long long j = 0; j < n; j++) {{
        for (int i = 0; i < {count}; i++) out[i] = rv_{name}({used});
        __asm__ volatile("" ::: "memory");
    }}
}}
"""


def arity(name) -> int:
    return elementary.FUNCTIONS[name].__code__.co_argcount - 1


def library(names, dtype, strict, counts=()):
    """The C functions with loops around them; for each count, one that repeats a loop of this length, to be timed."""
    text = elementary.c_source(names, dtype)
    for name in names:
        inputs = range(arity(name))
        words = {"name": name, "declared": ", ".join(f"const real* __restrict a{i}" for i in inputs),
                 "used": ", ".join(f"a{i}[i]" for i in inputs)}
        text += LOOP.format(**words) + "".join(AGAIN.format(count=count, **words) for count in counts)
    return native.build(text, strict=strict)


def call(lib, name, *x, loop="loop", n=None):
    out = np.empty_like(x[0])
    getattr(lib, f"{loop}_{name}")(*native.arguments(len(out) if n is None else n, out, *x))
    return out


def ptx(text, *options) -> str:
    """What NVRTC makes of a text, offline. Raises ImportError without it, RuntimeError where it refuses the text."""
    from revode_cuda import nvrtc
    return nvrtc.library().compile(text, ("--gpu-architecture=sm_90", *options))[1]


def worst(name, found, x, judged=30) -> float:
    """The largest error in ulps: long double finds the worst points, mpmath measures them."""
    if name in ("remainder", "floor_divide"):                       # long double is not enough: any points
        picked = np.linspace(0, len(found) - 1, 20 * judged).astype(int)
    else:
        wide = [a.astype(np.longdouble) for a in x]
        with np.errstate(all="ignore"):
            exact = scipy.special.erf(x[0].astype(float)) if name == "erf" else getattr(np, name)(*wide)
            size = np.maximum(np.abs(exact), np.maximum(*np.abs(wide))) if name == "logaddexp" else np.abs(exact)
            error = np.nan_to_num(np.abs(found - exact) / np.spacing(size.astype(found.dtype)), nan=0.0, posinf=0.0)
        picked = np.argsort(error)[-judged:]
    return max(ulps(name, found[i], [a[i] for a in x]) for i in picked)


def nanoseconds(run, numbers) -> float:
    best = np.inf
    for _ in range(7):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best / numbers * 1e9


def noise_speed(dtype) -> list:
    """Nanoseconds a normal: tiles of 16 x 4 and 256 x 4, and one at a time."""
    text = elementary.c_source([], dtype) + noise.SOURCE + """
extern "C" void tiles(long long n, real* out, long long lanes, long long channels) {
    for (long long j = 0; j < n; j++) rv_brownian_tile(out, (int)lanes, (int)channels, 0, 1, 7ull, 0u, (unsigned)j, 1.0);
}
extern "C" void single(long long n, real* out) {
    for (long long j = 0; j < n; j++) *out += rv_brownian(7ull, 0u, (unsigned)j, 0u, 1.0);
}
"""
    lib, out = native.build(text, strict=False), np.zeros(1024, dtype)
    lib.tiles.restype = lib.single.restype = ctypes.c_int
    return [nanoseconds(lambda: lib.tiles(*native.arguments(400_000 // (16 * 4), out, 16, 4)), 400_000),
            nanoseconds(lambda: lib.tiles(*native.arguments(400_000 // (256 * 4), out, 256, 4)), 400_000 // 1024 * 1024),
            nanoseconds(lambda: lib.single(*native.arguments(100_000, out)), 100_000)]


def main() -> None:
    if "--fit" in sys.argv:
        for single in (False, True):
            print("SINGLE" if single else "DOUBLE", *(f"{k} = {v}" for k, v in coefficients(single).items()), sep="\n")
        return
    lines = ["# Elementary functions and noise of compiled code", "", "`python -m reference.elementary` writes this file.", "",
             f"Machine: {processor()}; {native.compiler().version_text}; one core.", "",
             "Errors: the largest seen, in units in the last place, on random points over the whole range (4e6 for "
             f"{', '.join(HOT)}, 1e5 and more for others), judged by mpmath; the bound is MAX_ULP of revode/compiled/elementary.py. "
             "Speed: nanoseconds a number in loops over 16 and over 10 contiguous numbers.", ""]
    for dtype in (np.float64, np.float32):
        lines += [f"## {np.dtype(dtype).name}", "", "| function | bound | strict, ulp | fast, ulp | strict, ns (16) | fast, ns (16) | "
                  "strict, ns (10) | fast, ns (10) |", "|---|---|---|---|---|---|---|---|"]
        libraries = [library(elementary.NAMES, dtype, strict, (16, 10)) for strict in (True, False)]
        for name in elementary.NAMES:
            errors, speed, speed10 = [], [], []
            for lib in libraries:
                x = points(name, dtype, 1_000_000 if name in HOT else 50_000, seed=1)
                errors.append(worst(name, call(lib, name, *x), x))
                few = [np.linspace(0.15, 0.95, 16, dtype=dtype)] * arity(name)
                speed.append(nanoseconds(lambda: call(lib, name, *few, loop="again16", n=20_000), 320_000))
                speed10.append(nanoseconds(lambda: call(lib, name, *few, loop="again10", n=20_000), 200_000))
            lines.append(f"| {name} | {elementary.MAX_ULP[name]} | " + " | ".join(f"{v:.2f}" for v in errors + speed + speed10) + " |")
            print(lines[-1], flush=True)
        lines.append("")
    lines += ["## Brownian increments", "",
              "Nanoseconds a normal; strict and fast are the same code here, for the bits must be the same.", "",
              "| dtype | tiles of 16 x 4 | tiles of 256 x 4 | one at a time |", "|---|---|---|---|"]
    for dtype in (np.float64, np.float32):
        lines.append(f"| {np.dtype(dtype).name} | " + " | ".join(f"{v:.1f}" for v in noise_speed(dtype)) + " |")
    OUT.write_text("\n".join(lines) + "\n")


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read()
        name = next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name"))
        return name + (" (AVX-512)" if " avx512f" in text else "")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

"""Elementary functions with the same bits everywhere: in NumPy, in C, in CUDA.

    evaluate("tanh", x)                        NumPy arrays, float64 or float32
    c_source(["tanh", "exp"], np.float64)      FUNCTION real rv_tanh(real x) { ... }, straight lines without a branch

Each function is written once, below, from operations that IEEE 754 rounds in one way only: + - * /, comparisons and the
vocabulary `m` (vocabulary.py), which computes or prints C.

Where a compiler fuses a product with a sum (fast mode) the bits differ, the bounds in FUNCTIONS hold all the same: what is
computed with exact parts stays exact. NaN gives NaN, of any sign and payload.

Sources: Muller, Elementary Functions (2016), chapters 3, 4 and 11; Cody & Waite 1980 (reduction by a constant in parts); Tang
1990 and Sun's fdlibm (the form f - (h - s (h + R)) of the logarithm, and the quotient s (3 + s^2 + ...) in `power`).
Coefficients: precisions.py.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .vocabulary import HOST, INFINITY, NAN, Arrays, Lines, Symbol, prelude

LOG2E, LN2, LOG10E, PI = 1.4426950408889634, 0.6931471805599453, 0.4342944819032518, 3.141592653589793


# -------------------------------------------------------------------------------------------------------- small tools

def polynomial(c: Sequence, x: Any) -> Any:
    """c[0] + c[1] x + c[2] x^2 + ..., by pairs (Estrin): short chains of operations that wait for each other."""
    if len(c) == 1:
        return c[0]
    return polynomial([c[i] + c[i + 1] * x if i + 1 < len(c) else c[i] for i in range(0, len(c), 2)], x * x if len(c) > 2 else x)


def nearest(m: Any, x: Any) -> Any:
    """The whole number next to x, |x| < 2^(digits - 1): where numbers are that large, they are whole."""
    large = 1.5 * 2.0 ** m.k.digits
    return (x + large) - large


def clamp(m: Any, x: Any, limit: float) -> Any:
    x = m.where(x > limit, limit, x)
    return m.where(x < -limit, -limit, x)


def scale(m: Any, x: Any, n: Any) -> Any:
    """x 2^n with one rounding at most, x near 1; in two factors, for neither 2^1024 nor 2^-1074 is a normal number."""
    half = nearest(m, 0.5 * n)
    return (x * m.power_of_two(half)) * m.power_of_two(n - half)


# --------------------------------------------------------------------------------------------- exponentials: x = n ln 2 + r

def exp_parts(m: Any, x: Any) -> Any:
    """n, q with e^x = 2^n (1 + q)."""
    n = nearest(m, x * LOG2E)
    r = (x - n * m.k.ln2[0]) - n * m.k.ln2[1]
    return n, r + (r * r) * polynomial(m.k.exp, r)


def exp(m: Any, x: Any) -> Any:
    n, q = exp_parts(m, clamp(m, x, 0.8 * m.k.scale))
    return scale(m, 1.0 + q, n)


def exp2(m: Any, x: Any) -> Any:
    x = clamp(m, x, m.k.scale)
    n = nearest(m, x)
    r = (x - n) * LN2
    return scale(m, 1.0 + (r + (r * r) * polynomial(m.k.exp, r)), n)


def large_power(m: Any, n: Any) -> Any:
    """u, c with 2^n = u c: c is 2 for the one power above the largest, and Inf above that."""
    top = float(m.k.bias)
    return m.power_of_two(m.where(n > top, top, n)), m.where(n > top, m.where(n > top + 1.0, INFINITY, 2.0), 1.0)


def expm1(m: Any, x: Any) -> Any:
    """2^n q + (2^n - 1); -1 from e^-60 on down."""
    y = clamp(m, x, 0.8 * m.k.scale)
    n, q = exp_parts(m, m.where(y < -60.0, -60.0, y))
    u, c = large_power(m, n)
    return m.where(x == 0.0, x, (u * q + (u - 1.0)) * c)


def tanh(m: Any, x: Any) -> Any:
    """One division: with 2|x| = n ln 2 + 2v, u = 2^n and tanh v = N/(1 + d), and nothing that cancels,

        tanh |x| = (u e^2v - 1)/(u e^2v + 1) = ((u - 1) + (u (N + d) + (N - d))) / ((u + 1) + (u (N + d) - (N - d)))
    """
    y = m.abs(x)
    y = m.where(y > m.k.tanh_one, m.k.tanh_one, y)
    n = nearest(m, y * (2.0 * LOG2E))
    v = (y - n * (0.5 * m.k.ln2[0])) - n * (0.5 * m.k.ln2[1])
    w = v * v
    N = v + (v * w) * polynomial(m.k.tanh[0], w)
    d = w * polynomial(m.k.tanh[1], w)
    u = m.power_of_two(n)
    more, less = N + d, N - d
    return m.copysign(((u - 1.0) + (u * more + less)) / ((u + 1.0) + (u * more - less)), x)


def sinh(m: Any, x: Any) -> Any:
    """h + h/(2h + 1) with h = expm1(|x|)/2, which overflows no sooner than the result."""
    y = m.abs(x)
    n, q = exp_parts(m, m.where(y > 0.8 * m.k.scale, 0.8 * m.k.scale, y))
    u, c = large_power(m, n - 1.0)
    h = (u * q + (u - 0.5)) * c
    h = m.where(n > m.k.digits + 2.0, h, h + h / (2.0 * h + 1.0))
    return m.copysign(m.where(y < 2.0 ** -(m.k.digits // 2 + 1), y, h), x)


def cosh(m: Any, x: Any) -> Any:
    y = m.abs(x)
    n, q = exp_parts(m, m.where(y > 0.8 * m.k.scale, 0.8 * m.k.scale, y))
    u, c = large_power(m, n - 1.0)
    h = (u * (1.0 + q)) * c
    return h + 0.25 / h


def erf(m: Any, x: Any) -> Any:
    """x + x P(x^2) below 1, and above it 1 - e^-x^2 Q((x - 2)/(x + 2)), which is so near 1 that an ulp of e^-x^2 is a part of one."""
    y = m.abs(x)
    y = m.where(y > m.k.erf_one, m.k.erf_one, y)
    z = y * y
    n, q = exp_parts(m, -z)
    far = 1.0 - (m.power_of_two(n) * (1.0 + q)) * polynomial(m.k.erfc, (y - 2.0) / (y + 2.0))
    return m.copysign(m.where(y < 1.0, y + y * polynomial(m.k.erf, z), far), x)


# --------------------------------------------- logarithms: x = (1 + f) 2^e, s = f/(2 + f) = tanh(log(1 + f)/2)

def log_parts(m: Any, f: Any) -> Any:
    """h, r with log(1 + f) = f - (h - r)."""
    s = f / (2.0 + f)
    z = s * s
    h = (0.5 * f) * f
    return h, s * (h + z * polynomial(m.k.log, z))


def log_ends(m: Any, x: Any, inside: Any, at: Any) -> Any:
    """inside for 0 < x < Inf; -Inf for x = 0, NaN below, x itself for Inf and NaN. `at` is the argument as it was given."""
    return m.where(x > 0.0, m.where(x < INFINITY, inside, x), m.where(x == 0.0, -INFINITY, m.where(x < 0.0, NAN, at)))


def log(m: Any, x: Any) -> Any:
    s, e = m.split(x)
    f = s - 1.0
    h, r = log_parts(m, f)
    return log_ends(m, x, e * m.k.ln2[0] - ((h - (r + e * m.k.ln2[1])) - f), x)


def log2(m: Any, x: Any) -> Any:
    s, e = m.split(x)
    h, r = log_parts(m, s - 1.0)
    return log_ends(m, x, e + ((s - 1.0) - (h - r)) * LOG2E, x)


def log10(m: Any, x: Any) -> Any:
    s, e = m.split(x)
    h, r = log_parts(m, s - 1.0)
    return log_ends(m, x, e * m.k.log10_2[0] + (e * m.k.log10_2[1] + ((s - 1.0) - (h - r)) * LOG10E), x)


def log1p(m: Any, x: Any) -> Any:
    """log u + (what 1 + x lost)/u, with u = 1 + x rounded; x itself is f where u needs no power of two."""
    u = 1.0 + x
    s, e = m.split(u)
    f = m.where(e == 0.0, x, s - 1.0)
    lost = m.where(x > 1.0, 1.0 - (u - x), x - (u - 1.0)) / u
    h, r = log_parts(m, f)
    inside = e * m.k.ln2[0] - ((h - (r + (e * m.k.ln2[1] + m.where(e == 0.0, 0.0, lost)))) - f)
    return m.where(x == 0.0, x, log_ends(m, u, inside, x))


def logaddexp(m: Any, x: Any, y: Any) -> Any:
    top = m.where(x > y, x, y)
    gap = m.where(x == y, 0.0, -m.abs(x - y))
    return top + log1p(m, exp(m, gap))


def arcsinh(m: Any, x: Any) -> Any:
    """log1p(y + y^2/(1 + sqrt(1 + y^2))); for large y, log y + ln 2."""
    y = m.abs(x)
    large = y > 2.0 ** (m.k.digits + 2)
    t = m.where(large, 1.0, y)
    z = t * t
    return m.copysign(log1p(m, m.where(large, y, t + z / (1.0 + m.sqrt(1.0 + z)))) + m.where(large, LN2, 0.0), x)


def arccosh(m: Any, x: Any) -> Any:
    """log1p(t + sqrt(t (t + 2))), t = x - 1; for large x, log x + ln 2."""
    large = x > 2.0 ** (m.k.digits + 2)
    t = m.where(large, 1.0, x - 1.0)
    y = log1p(m, m.where(large, x, t + m.sqrt(t * (t + 2.0)))) + m.where(large, LN2, 0.0)
    return m.where(x < 1.0, NAN, y)


def arctanh(m: Any, x: Any) -> Any:
    y = m.abs(x)
    return m.copysign(m.where(y < 2.0 ** -(m.k.digits // 2 + 2), y, 0.5 * log1p(m, 2.0 * y / (1.0 - y))), x)


# --------------------------------------------------------------------------------------------- circular functions

def circle(m: Any, x: Any) -> Any:
    """sin r, cos r, and the quadrant 0 .. 3, for x = (4 i + quadrant) pi/2 + r.

    Up to about 1e6 (float32: 1e5) r and what it lost are good to a small part of an ulp; beyond, as if x had an error of an ulp;
    NaN where x has no digits left.
    """
    n = nearest(m, x * (2.0 / PI))
    first, *rest = m.k.half_pi
    r, lost = x - n * first, 0.0
    for part in rest:
        before, t = r, n * part
        r = before - t
        lost = lost + ((before - r) - t)
    r = m.where(m.abs(x) < 2.0 ** (m.k.digits - 1), r, NAN)
    z = r * r
    h = 0.5 * z
    w = 1.0 - h
    cosine = w + (((1.0 - w) - h) + ((z * z) * polynomial(m.k.cos, z) - r * lost))
    return m.copysign(r + ((r * z) * polynomial(m.k.sin, z) + lost), r), cosine, n - 4.0 * m.floor(0.25 * n)


def sin(m: Any, x: Any) -> Any:
    s, c, quadrant = circle(m, x)
    y = m.where((quadrant == 1.0) | (quadrant == 3.0), c, s)
    return m.where(quadrant > 1.5, -y, y)


def cos(m: Any, x: Any) -> Any:
    s, c, quadrant = circle(m, x)
    y = m.where((quadrant == 1.0) | (quadrant == 3.0), s, c)
    return m.where((quadrant == 1.0) | (quadrant == 2.0), -y, y)


def tan(m: Any, x: Any) -> Any:
    s, c, quadrant = circle(m, x)
    odd = (quadrant == 1.0) | (quadrant == 3.0)
    return m.where(odd, -c, s) / m.where(odd, s, c)


def arctan_parts(m: Any, numerator: Any, denominator: Any, high: Any, low: Any) -> Any:
    """high + low + arctan(numerator/denominator), a quotient of at most tan(pi/8)."""
    t = numerator / denominator
    z = t * t
    return high + (t + ((t * z) * polynomial(m.k.arctan, z) + low))


TAN_1, TAN_3 = 0.41421356237309503, 2.414213562373095             # tan(pi/8), tan(3 pi/8)


def arctan(m: Any, x: Any) -> Any:
    """arctan y, or pi/4 + arctan((y - 1)/(y + 1)), or pi/2 - arctan(1/y)."""
    y = m.abs(x)
    high, low = m.k.cut_pi
    small, large = y < TAN_1, y > TAN_3
    return m.copysign(arctan_parts(
        m, m.where(large, -1.0, m.where(small, y, y - 1.0)), m.where(large, y, m.where(small, 1.0, y + 1.0)),
        m.where(large, high, m.where(small, 0.0, 0.5 * high)), m.where(large, low, m.where(small, 0.0, 0.5 * low))), x)


def arctan2(m: Any, y: Any, x: Any) -> Any:
    a, b = m.abs(y), m.abs(x)
    high, low = m.k.cut_pi
    steep = a > b
    short, long = m.where(steep, b, a), m.where(steep, a, b)
    q = m.where(short == long, m.where(long == 0.0, 0.0, 1.0), short / long)
    small = q < TAN_1
    r = arctan_parts(m, m.where(small, q, q - 1.0), m.where(small, 1.0, q + 1.0), m.where(small, 0.0, 0.5 * high),
                     m.where(small, 0.0, 0.5 * low))
    r = m.where(steep, high - (r - low), r)
    return m.copysign(m.where(m.copysign(1.0, x) < 0.0, 2.0 * high - (r - 2.0 * low), r), y)


def arcsin_parts(m: Any, y: Any) -> Any:
    """s, s R with arcsin s = s + s R; s is y up to 1/2, above sqrt((1 - y)/2), and arcsin y = pi/2 - 2 arcsin s."""
    small = y <= 0.5
    z = m.where(small, y * y, 0.5 * (1.0 - y))
    s = m.where(small, y, m.sqrt(z))
    return s, (s * z) * polynomial(m.k.arcsin, z), small


def arcsin(m: Any, x: Any) -> Any:
    s, t, small = arcsin_parts(m, m.abs(x))
    high, low = m.k.cut_pi
    return m.copysign(m.where(small, s + t, 0.5 * high - ((2.0 * t - low) - (0.5 * high - 2.0 * s))), x)


def arccos(m: Any, x: Any) -> Any:
    s, t, small = arcsin_parts(m, m.abs(x))
    high, low = m.k.cut_pi
    signed = m.copysign(s, x)
    return m.where(small, high - (signed - (low - m.copysign(t, x))),
                   m.where(x > 0.0, 2.0 * (s + t), 2.0 * (high - (s + (t - low)))))


# ---------------------------------------------------------------------------------------------------- powers and roots

def cbrt(m: Any, x: Any) -> Any:
    """From a cubic within 1.4 % of the root, two of Halley's steps t - t (t^3 - w)/(2 t^3 + w)."""
    y = m.abs(x)
    s, e = m.split(y)
    n = nearest(m, e * (1.0 / 3.0))
    w = s * m.power_of_two(e - 3.0 * n)
    t = polynomial((0.5068079255708303, 0.6576729089262948, -0.19248042619989061, 0.02603992540852949), w)
    for _ in range(2):
        cube = t * t * t
        t = t - t * ((cube - w) / (2.0 * cube + w))
    return m.where((y > 0.0) & (y < INFINITY), m.copysign(t * m.power_of_two(n), x), x)


def power(m: Any, x: Any, y: Any) -> Any:
    """2^(y log2 |x|), the logarithm and the product in two parts each, an upper half and a rest."""
    k, a = m.k, m.abs(x)
    g, e = m.split(a)
    f = g - 1.0                                        # log2 g = cp s (3 + s^2 + 3/5 s^4 + ...), s = f/(2 + f), cp = 2/(3 ln 2)
    g = 2.0 + f
    s = f / g
    s1, g1 = m.upper(s), m.upper(g)
    s2 = ((f - s1 * g1) - s1 * (f - (g1 - 2.0))) / g
    z, q = s * s, s1 * s1
    r = (z * z) * polynomial(k.power, z) + s2 * (s1 + s)
    t1 = m.upper((3.0 + q) + r)
    t2 = r - ((t1 - 3.0) - q)
    u, v = s1 * t1, s2 * t1 + t2 * s
    p1 = m.upper(u + v)
    p2 = v - (p1 - u)
    z1, z2 = k.cut_cp[0] * p1, k.cut_cp[1] * p1 + p2 * (2.0 / 3.0 * LOG2E)
    w1 = m.upper((z1 + z2) + e)
    w2 = z2 - ((w1 - e) - z1)

    b = clamp(m, y, 2.0 ** 64)                         # enough to overflow for any x but 1
    b1 = m.upper(b)
    p1, p2 = b1 * w1, (b - b1) * w1 + b * w2
    total = p1 + p2
    over = m.abs(total) > k.scale
    p1, p2 = m.where(over, m.copysign(k.scale, total), p1), m.where(over, 0.0, p2)
    n = nearest(m, p1 + p2)
    h = p1 - n
    t1 = m.upper(h + p2)
    u, v = t1 * k.cut_ln2[0], (p2 - (t1 - h)) * LN2 + t1 * k.cut_ln2[1]
    r = u + v
    lost = v - (r - u)
    q = r + (r * r) * polynomial(k.exp, r)
    value = scale(m, 1.0 + (q + (lost + lost * q)), n)

    value = m.where(a == 0.0, m.where(y < 0.0, INFINITY, 0.0), m.where(a == INFINITY, m.where(y < 0.0, 0.0, INFINITY), value))
    whole = m.floor(y) == y
    odd = whole & (y - 2.0 * m.floor(0.5 * y) == 1.0)
    value = m.where(odd, m.copysign(value, x), value)
    value = m.where((x < 0.0) & (a < INFINITY) & (m.floor(y) != y), NAN, value)
    return m.where((y == 0.0) | (x == 1.0), 1.0, m.where(x != x, x, m.where(y != y, y, value)))


def hypot(m: Any, x: Any, y: Any) -> Any:
    a, b = m.abs(x), m.abs(y)
    short, long = m.where(a > b, b, a), m.where(a > b, a, b)
    q = m.where(short == long, 1.0, short / long)
    return m.where((a == INFINITY) | (b == INFINITY), INFINITY, long * m.sqrt(1.0 + q * q))


# -------------------------------------------------------------------------------------------------- remainders and signs

def remainder(m: Any, x: Any, y: Any) -> Any:
    """x - floor(x/y) y, exactly where that is a number (else rounded, as np.remainder); NaN for |x/y| above 2^(3 stage)."""
    b = m.abs(y)
    r = m.where(m.abs(x) < INFINITY, x, NAN)
    for stage in (2, 1, 0):                             # whole quotients of so few digits that n b_1 and n b_2 are exact
        unit = b * 2.0 ** (stage * m.k.stage)
        upper = m.upper(unit)
        n = nearest(m, r / unit)
        r = m.where(unit < INFINITY, (r - n * upper) - n * (unit - upper), r)
    r = m.where(m.abs(x) <= b * 2.0 ** (3 * m.k.stage), r, NAN)
    return m.where(r == 0.0, m.copysign(0.0, y), m.where(m.copysign(1.0, r) == m.copysign(1.0, y), r, r + y))


def floor_divide(m: Any, x: Any, y: Any) -> Any:
    """The whole number (x - remainder)/y; NaN where the remainder is; up to an ulp off once it is above 2^(digits - 1)."""
    r = remainder(m, x, y)
    q = x / y - r / y                                   # x - r might overflow
    q = m.where(m.abs(q) < 2.0 ** (m.k.digits - 1), nearest(m, q), q)
    q = m.where(m.abs(y) == INFINITY, m.where(r == x, 0.0, m.where(r == y, -1.0, NAN)), q)
    return m.where(y == 0.0, x / y, m.where(q == 0.0, m.copysign(0.0, x / y), q))


def sign(m: Any, x: Any) -> Any:
    return m.where(x > 0.0, 1.0, m.where(x < 0.0, -1.0, m.where(x == 0.0, 0.0, x)))


# Units in the last place, at most, float64 and float32, strict and fast; sin, cos, tan up to 1e5. Measured ones, a good deal
# lower, are in docs/measurements/elementary.md. logaddexp: of the larger of the result and the arguments.
MAX_ULP = {
    "exp": 1.2, "exp2": 1.2, "expm1": 2.5, "tanh": 3.2, "sinh": 3.0, "cosh": 1.6, "erf": 1.5, "log": 1.0, "log2": 2.0, "log10": 2.2,
    "log1p": 1.0, "logaddexp": 2.0, "arcsinh": 2.0, "arccosh": 3.0, "arctanh": 2.0, "sin": 1.5, "cos": 1.5, "tan": 3.0, "arctan":
    2.0, "arctan2": 2.5, "arcsin": 1.5, "arccos": 1.5, "cbrt": 1.0, "power": 1.2, "hypot": 2.2, "remainder": 0.5, "floor_divide":
    1.5, "sign": 0.0}
NAMES = tuple(MAX_ULP)
FUNCTIONS: dict[str, Callable] = {name: globals()[name] for name in NAMES}


# ------------------------------------------------------------------------------------------------------------- both ways

def evaluate(name: str, *arrays: Any) -> Any:
    """What the C function rv_<name> gives, bit for bit in strict mode.

    arrays : one or two arrays that broadcast together; float32 if all are, otherwise float64.

    Raises ValueError for a name that is not among NAMES. Cost: 20 to 200 NumPy calls on 4096 numbers at a time.

    >>> float(evaluate("tanh", np.array(20.0)))
    1.0
    """
    function = FUNCTIONS[checked(name)]
    dtype = np.dtype(np.float32) if all(getattr(a, "dtype", None) == np.float32 for a in arrays) else np.dtype(np.float64)
    parts = np.broadcast_arrays(*(np.asarray(a, dtype) for a in arrays))
    shape, m, block = parts[0].shape, Arrays(dtype), 4096
    flat = [np.ascontiguousarray(a).reshape(-1) for a in parts]
    out = np.empty(flat[0].shape, dtype)
    with np.errstate(all="ignore"):
        for i in range(0, len(out), block):
            out[i:i + block] = function(m, *(a[i:i + block] for a in flat))
    return out.reshape(shape)


def checked(name: str) -> str:
    if name not in FUNCTIONS:
        raise ValueError(f"elementary: no function {name!r}; there are {', '.join(NAMES)}")
    return name


def c_source(names: Sequence[str], dtype: Any, host: str = HOST) -> str:
    """C++ and CUDA C text, or that of another host: the prelude, and `FUNCTION real rv_<name>(real x)`, or (real x, real y), for each.

    Raises ValueError for a name that is not among NAMES.

    >>> print("\\n".join(c_source(["sign"], np.float32).splitlines()[-6:]))
    FUNCTION real rv_sign(real x) {
        const real v1 = (x == 0.e+00f) ? 0.e+00f : x;
        const real v2 = (x < 0.e+00f) ? -1.e+00f : v1;
        const real v3 = (x > 0.e+00f) ? 1.e+00f : v2;
        return v3;
    }
    """
    text = [prelude(dtype, host)]
    for name in names:
        function, m = FUNCTIONS[checked(name)], Lines(dtype)
        inputs = ("x", "y")[:function.__code__.co_argcount - 1]
        result = function(m, *(Symbol(m, i) for i in inputs))
        lines = [f"    const real {symbol.text} = {expression};" for expression, symbol in m.names.items()]
        head = f"FUNCTION real rv_{name}({', '.join('real ' + i for i in inputs)}) {{"
        text += [head, *lines, f"    return {result.text};", "}", ""]
    return "\n".join(text)

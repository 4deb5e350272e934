"""Random numbers without a state: Philox4x32-10, and normals by the inverse distribution function.

    (w0, w1, w2, w3) = philox(counter, key);   b = (w0 << 20) | (w1 >> 12);   u = (b + 1/2) / 2^52;   Z = PHI^-1(u)

A number is a function of its counter and key, so that any of them can be made again, in any order. Only integer
operations, + - * /, the square root and the exponent bits of a float are used, one rounding each: the same bits on
every IEEE machine and in every language that does not fuse a product with a sum. |Z| is at most 8.21 (52 bits), Z is
symmetric exactly.

Sources: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox); Wichura 1988,
Algorithm AS 241 (PPND16: the three rational functions below).
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85          # golden ratio and sqrt(3) - 1, in 32 bits
ROUNDS = 10
WORD = 0xFFFFFFFF
BLOCK = 8192                           # numbers made at a time: enough to hide NumPy's calls, few enough for the cache


def constants(numbers: Iterable[float], dtype: Any = np.float64) -> tuple[np.ndarray, ...]:
    """Numbers as arrays without axes, which ufuncs take fastest."""
    return tuple(np.array(c, dtype) for c in numbers)


M0, M1, W0, W1, HALF, LOW = constants((*MULTIPLIERS, *WEYL, 32, WORD), np.uint64)


def philox4x32(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Four random words for each counter (c0, c1, c2, c3) under the key (k0, k1).

    c0 .. c3, k0, k1 : integers below 2^32, or arrays of them (uint32 or uint64) that broadcast together.

    Returns four uint32 arrays of the common shape.
    Cost: about 25 ns a counter in blocks of a few thousand (NumPy, one core).
    Source: Salmon et al. 2011; the numbers are those of Random123's philox4x32 with 10 rounds.

    >>> [f"{int(w):08x}" for w in philox4x32(0, 0, 0, 0, 0, 0)]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3, k0, k1 = (np.asarray(word, np.uint64) for word in (c0, c1, c2, c3, k0, k1))
    return tuple(word.astype(np.uint32) for word in rounds(c0, c1, c2, c3, k0, k1))                # type: ignore[return-value]


def rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """philox4x32 from uint64 to uint64, in which two words are worked on at once.

        c0, c2 = high(M1 c2) ^ c1 ^ k0, high(M0 c0) ^ c3 ^ k1;    c1, c3 = low(M1 c2), low(M0 c0)
    """
    even, odd = np.empty((2, 2, *np.broadcast(c0, c1, c2, c3, k0, k1).shape), np.uint64)
    even[0], odd[0], even[1], odd[1] = c0, c1, c2, c3
    products = np.empty_like(even)                  # apart: it goes when the words are there
    (c0, c2), (p1, p0) = ((x[0, ...], x[1, ...]) for x in (even, products))
    turn = np.arange(ROUNDS, dtype=np.uint64)
    keys0, keys1 = ((turn.reshape(-1, *[1] * key.ndim) * weyl + key) & LOW for weyl, key in ((W0, k0), (W1, k1)))
    for i in range(ROUNDS):
        np.multiply(c2, M1, p1)                                      # below 2^64: nothing is lost
        np.multiply(c0, M0, p0)
        np.right_shift(products, HALF, even)
        np.bitwise_xor(even, odd, even)
        np.bitwise_xor(c0, keys0[i, ...], c0)
        np.bitwise_xor(c2, keys1[i, ...], c2)
        np.bitwise_and(products, LOW, odd)
    return c0, odd[0], c2, odd[1]


def uniform(w0: Any, w1: Any) -> Any:
    """(b + 1/2) / 2^52 with the 52 bits b = (w0 << 20) | (w1 >> 12): inside (0, 1), every value exact in float64.

    >>> float(uniform(np.uint32(0), np.uint32(0))) == 2.0 ** -53
    True
    """
    b = (np.asarray(w0, np.uint64) << 20) | (np.asarray(w1, np.uint64) >> 12)
    return (b.astype(np.float64) + 0.5) * 2.0 ** -52


SQRT_HALF = 0.7071067811865476
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")   # e * LN2_HIGH is exact
ATANH = constants(2.0 / (2 * k + 1) for k in range(10, 0, -1))        # the next term is below 2^-60 of the first


def log(x: Any) -> Any:
    """The natural logarithm of positive normal float64 numbers, within 1 ulp (2 near x = 1), from + - * / and exponent
    bits.

        x = m 2^e, sqrt(1/2) <= m < sqrt 2;     log m = 2 atanh(s) = 2 s + 2 s^3/3 + ...,     s = (m - 1)/(m + 1)

    >>> float(log(np.array(0.5)))
    -0.6931471805599453
    """
    m, e = np.frexp(x)
    small = m < SQRT_HALF
    m = np.where(small, 2.0 * m, m)
    e = e - 1.0 * small
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    return e * LN2_HIGH + (2.0 * s + (s * (z * horner(ATANH, z)) + e * LN2_LOW))


# Coefficients of the three quotients, highest power first.
CENTRE = tuple(map(constants, (
    (2.5090809287301226727e+3, 3.3430575583588128105e+4, 6.7265770927008700853e+4, 4.5921953931549871457e+4,
     1.3731693765509461125e+4, 1.9715909503065514427e+3, 1.3314166789178437745e+2, 3.3871328727963666080e+0),
    (5.2264952788528545610e+3, 2.8729085735721942674e+4, 3.9307895800092710610e+4, 2.1213794301586595867e+4,
     5.3941960214247511077e+3, 6.8718700749205790830e+2, 4.2313330701600911252e+1, 1.0))))
TAIL = tuple(map(constants, (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e+0,
     3.64784832476320460504e+0, 5.76949722146069140550e+0, 4.63033784615654529590e+0, 1.42343711074968357734e+0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e+0, 2.05319162663775882187e+0, 1.0))))
FAR_TAIL = tuple(map(constants, (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e+0, 5.46378491116411436990e+0, 6.65790464350110377720e+0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0))))


def horner(coefficients: Sequence[Any], x: Any) -> Any:
    """((a x + b) x + c) x + ... with the highest power's coefficient first; x is an array."""
    total = coefficients[0] * x
    for c in coefficients[1:-1]:
        total += c
        total *= x
    total += coefficients[-1]
    return total


def quotient(coefficients: tuple, r: Any) -> Any:
    return horner(coefficients[0], r) / horner(coefficients[1], r)


def normal(u: Any) -> Any:
    """The standard normal number below which a share u of all lies: PHI^-1(u), float64.

        q = u - 1/2;   |q| <= 0.425:  q P(r)/Q(r),  r = 0.425^2 - q^2
                       else:          +-P(r)/Q(r),  r = sqrt(-log min(u, 1 - u)) - 1.6, or - 5 where it is above 5

    u : float64 numbers strictly between 0 and 1.

    Accurate within 5 ulp, as seen (the published fit is good to 1e-16, the rest is rounding).
    normal(1 - u) == -normal(u) where 1 - u is exact.
    Raises ValueError for u outside (0, 1).
    Cost: about 20 ns a number.
    Source: Wichura 1988, Applied Statistics 37, 477-484, AS 241 (PPND16).

    >>> float(normal(0.5)), round(float(normal(0.975)), 12)
    (0.0, 1.95996398454)
    """
    u = np.asarray(u, np.float64)
    flat = u.reshape(-1)
    if flat.size and not (flat.min() > 0.0 and flat.max() < 1.0):
        raise ValueError(f"normal: u from {flat.min()} to {flat.max()}; it takes numbers strictly between 0 and 1")
    q = flat - 0.5
    r = 0.180625 - q * q
    z = horner(CENTRE[0], r)
    z *= q
    z /= horner(CENTRE[1], r)
    tail, = np.nonzero(np.abs(q) > 0.425)
    if tail.size:
        p, side = flat[tail], q[tail]
        r = np.sqrt(-log(np.minimum(p, 1.0 - p)))
        x = quotient(TAIL, r - 1.6)
        far, = np.nonzero(r > 5.0)
        if far.size:
            x[far] = quotient(FAR_TAIL, r[far] - 5.0)
        z[tail] = np.copysign(x, side)
    return z.reshape(u.shape)


def normals(seed: int, trajectory: Any, step: Any, channels: int, last: Any = 0) -> Any:
    """One normal for each counter (trajectory, step, channel, last); (n, channels) float64, channel from 0 on.

    seed : below 2^64; the key is (its low word, its high word).
    trajectory, step, last : integers below 2^32 or arrays (n,) of them.
    """
    words = [np.atleast_1d(np.asarray(word, np.uint64)) for word in (trajectory, step, last)]
    channel = np.arange(channels, dtype=np.uint64)
    out = np.empty((*np.broadcast_shapes(*(word.shape for word in words)), channels))
    columns = max(1, min(channels, BLOCK))
    rows = BLOCK // columns
    k0, k1 = np.uint64(seed & WORD), np.uint64(seed >> 32)
    for i in range(0, len(out), rows):
        t, s, c3 = (c[i:i + rows, None] if len(c) > 1 else c for c in words)
        for j in range(0, channels, columns):
            block = out[i:i + rows, j:j + columns]
            block[...] = normal(uniform(*rounds(t, s, channel[j:j + columns], c3, k0, k1)[:2]))
    return out

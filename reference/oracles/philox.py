"""Philox4x32-10 and its normals, one number at a time, in Python's own integers and floats.

To be read beside Salmon, Moraes, Dror & Shaw 2011 (section 3.3, table 2) and Wichura 1988 (AS 241, PPND16). Python
neither fuses a product with a sum nor keeps extra digits, so the floats are IEEE's, operation by operation.
"""
from fractions import Fraction
from math import frexp, sqrt

import mpmath

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85


def philox4x32(counter, key) -> tuple:
    """Ten rounds on four words; the key moves on by the Weyl constants after each."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(M0 * x0, 2 ** 32)
        high1, low1 = divmod(M1 * x2, 2 ** 32)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + W0) % 2 ** 32, (k1 + W1) % 2 ** 32
    return x0, x1, x2, x3


def uniform(w0, w1) -> Fraction:
    """(b + 1/2) / 2^52, exactly; b is w0 with the upper 20 bits of w1 below it."""
    return (w0 * 2 ** 20 + w1 // 2 ** 12 + Fraction(1, 2)) / 2 ** 52


# log 2 in two pieces; the first has 32 bits, so that its products with exponents are exact.
LOG2_HIGH = 0xB17217F7 / 2 ** 32
with mpmath.workdps(40):
    LOG2_LOW = float(mpmath.log(2) - mpmath.mpf(LOG2_HIGH))


def log(x) -> float:
    """x = m 2^e with m in [sqrt(1/2), sqrt 2); log m = 2 (s + s^3/3 + ... + s^21/21), s = (m - 1)/(m + 1)."""
    m, e = frexp(x)
    if m < sqrt(0.5):
        m, e = 2 * m, e - 1
    s = (m - 1) / (m + 1)
    z = s * s
    series = 2 / 21
    for odd in range(19, 1, -2):
        series = series * z + 2 / odd
    return e * LOG2_HIGH + (2 * s + (s * (z * series) + e * LOG2_LOW))


def polynomial(coefficients, r) -> float:
    """a[0] + a[1] r + ... by Horner's rule."""
    total = coefficients[-1]
    for a in reversed(coefficients[:-1]):
        total = total * r + a
    return total


A = (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727)
B = (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077, 21213.794301586595867,
     39307.895800092710610, 28729.085735721942674, 5226.4952788528545610)
C = (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, .241780725177450611770, .0227238449892691845833, .774545014278341407640e-3)
D = (1.0, 2.05319162663775882187, 1.67638483018380384940, .689767334985100004550, .148103976427480074590,
     .0151986665636164571966, .547593808499534494600e-3, 1.05075007164441684324e-9)
E = (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, .296560571828504891230,
     .0265321895265761230930, .00124266094738807843860, 2.71155556874348757815e-5, 2.01033439929228813265e-7)
F = (1.0, .599832206555887937690, .136929880922735805310, .0148753612908506148525, .786869131145613259100e-3,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15)


def ppnd16(p) -> float:
    """AS 241: the normal deviate with lower tail area p."""
    p = float(p)
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * polynomial(A, r) / polynomial(B, r)
    r = p if q < 0 else 1 - p
    r = sqrt(-log(r))
    if r <= 5:
        r = r - 1.6
        deviate = polynomial(C, r) / polynomial(D, r)
    else:
        r = r - 5
        deviate = polynomial(E, r) / polynomial(F, r)
    return -deviate if q < 0 else deviate


def normal(seed, trajectory, step, channel, last=0) -> float:
    """The normal of one counter; the key is the seed's low word, then its high word."""
    w0, w1, _, _ = philox4x32((trajectory, step, channel, last), (seed % 2 ** 32, seed // 2 ** 32))
    return ppnd16(uniform(w0, w1))


def increment(seed, trajectory, step, channel, h) -> float:
    """dW of one step of a fixed grid."""
    return sqrt(abs(h)) * normal(seed, trajectory, step, channel)


def inverse_normal(u, digits=30):
    """PHI^-1(u) to many digits: Newton's method on Phi from PPND16's value, u exact (Fraction or float)."""
    with mpmath.workdps(digits + 10):
        u = mpmath.mpf(u.numerator) / u.denominator if isinstance(u, Fraction) else mpmath.mpf(u)
        x = mpmath.mpf(ppnd16(u))
        for _ in range(3):          # the error is squared: 1e-15, 1e-30, 1e-60
            x = x - (mpmath.ncdf(x) - u) / mpmath.npdf(x)
        return x

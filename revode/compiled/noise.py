"""Brownian increments inside compiled code: the bits of revode.Brownian(...).increments, in strict and in fast mode.

    SOURCE      C++ and CUDA C text, to stand behind elementary.c_source (which declares `real` and FUNCTION)

    FUNCTION real rv_brownian(seed, trajectory, step, channel, width)            (real)(width Z), width = sqrt|h|
    FUNCTION void rv_brownian_tile(out, lanes, channels, tid, nt, seed, first_trajectory, step, width)
                                                                                  out[k lanes + r]: channel k, trajectory first + r

The numbers and the order of every operation are those of paths/philox.py, whose constants are printed here; all arithmetic is
float64, rounded once to `real` at the end. The three quotients of the inverse distribution function are one, whose
coefficients and argument each lane chooses, so that there is no branch and a compiler makes vectors of it. A block of numbers on the
host has the quotient of the centre first, and then that of the tails for the seventh that are there.

A fused product would change bits. In CUDA each product is therefore __dmul_rn; clang is told by a pragma, which it heeds under
-ffp-contract=on; g++ compiles these functions with contraction off, and inlines them into no others.

Cost on one core with AVX-512 (docs/measurements/elementary.md): about 3.5 ns a number in tiles of 64 or more, 16 ns alone.
"""
from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from ..paths import philox


def number(c: Any) -> str:
    return repr(float(c))


def horner(name: str, coefficients: Sequence[str], x: str) -> str:
    """Lines that leave philox.horner(coefficients, x) in `name`."""
    first, *middle, last = coefficients
    steps = [f"double {name} = RV_TIMES({first}, {x});"]
    steps += [f"{name} = RV_TIMES({name} + {c}, {x});" for c in middle]
    return "\n    ".join([*steps, f"{name} = {name} + {last};"])


def chosen(part: int) -> list[str]:
    """Coefficients of the numerator (0) or denominator (1) by region; equal ones need no choice."""
    rows = zip(philox.CENTRE[part], philox.TAIL[part], philox.FAR_TAIL[part], strict=True)
    return [number(a) if a == b == c else f"(central ? {number(a)} : far ? {number(c)} : {number(b)})" for a, b, c in rows]


def rounds() -> str:
    lines = []
    for i in range(philox.ROUNDS):
        k0, k1 = (f"{word} + {i * weyl & philox.WORD:#x}u" for word, weyl in zip(("k0", "k1"), philox.WEYL, strict=True))
        lines.append(f"RV_ROUND({k0}, {k1})")
    return "\n    ".join(lines)


BLOCK = 128
LOWEST = ceil((0.5 - 0.425) * 2.0 ** 52 - 0.5)          # exact: the bits of which q = u - 1/2 is -.425 or above
HIGHEST = 2 ** 52 - 1 - LOWEST                          # and .425 or below
SOURCE = f"""\
#ifndef UNROLL
#define UNROLL
#endif
#ifdef __CUDACC__
#define RV_TIMES(a, b) __dmul_rn(a, b)
#define RV_DOUBLE(i) __longlong_as_double((long long)(i))
#define RV_INTEGER(x) ((unsigned long long)__double_as_longlong(x))
#define RV_ROOT(x) __dsqrt_rn(x)
#else
#define RV_DOUBLE(i) __builtin_bit_cast(double, (unsigned long long)(i))
#define RV_INTEGER(x) __builtin_bit_cast(unsigned long long, (double)(x))
#define RV_ROOT(x) __builtin_sqrt(x)
#define RV_TIMES(a, b) ((a) * (b))
#endif
#if defined(__clang__) && !defined(__CUDACC__)
#define RV_APART _Pragma("clang fp contract(off)")
#else
#define RV_APART
#endif
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define RV_UNFUSED __attribute__((optimize("fp-contract=off")))
#define RV_INSIDE static inline __attribute__((always_inline)) RV_UNFUSED
#define RV_NOISE static __attribute__((noinline, unused)) RV_UNFUSED
#else
#define RV_INSIDE FUNCTION
#define RV_NOISE FUNCTION
#endif

/* Words are held in 64 bits on the host, so that vectors keep one width throughout; a GPU has 32-bit registers. */
#ifdef __CUDACC__
#define RV_WORD(x) (unsigned)(x)
typedef unsigned rv_word;
#else
#define RV_WORD(x) (x)
typedef unsigned long long rv_word;
#endif
#define RV_ROUND(key0, key1) {{ \
    const auto p0 = rv_product({philox.MULTIPLIERS[0]:#x}ull, c0), p1 = rv_product({philox.MULTIPLIERS[1]:#x}ull, c2); \
    c0 = RV_WORD(p1 >> 32) ^ c1 ^ (unsigned)(key0); c1 = RV_WORD(p1 & {philox.WORD:#x}ull); \
    c2 = RV_WORD(p0 >> 32) ^ c3 ^ (unsigned)(key1); c3 = RV_WORD(p0 & {philox.WORD:#x}ull); }}

RV_INSIDE unsigned long long rv_product(unsigned long long m, rv_word c) {{ return m * c; }}

/* Philox4x32-10: the 52 bits (w0 << 20) | (w1 >> 12) of counter (a0, a1, a2, a3) and key (k0, k1). */
RV_INSIDE unsigned long long rv_philox(unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned k0, unsigned k1) {{
    rv_word c0 = a0, c1 = a1, c2 = a2, c3 = a3;
    {rounds()}
    return ((unsigned long long)c0 << 20) | (c1 >> 12);
}}

/* Four counters (a0, a0 + 1, a0 + 2, a0 + 3; a1, a2, 0). AVX2 has a product of 32-bit words; g++ would make shifts and sums of it. */
#if defined(__AVX2__) && !defined(__AVX512DQ__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define RV_FOUR
typedef unsigned long long rv_four __attribute__((vector_size(32)));
typedef int rv_eight __attribute__((vector_size(32)));
RV_INSIDE rv_four rv_product(unsigned long long m, rv_four c) {{
    return (rv_four)__builtin_ia32_pmuludq256((rv_eight)(rv_four{{}} + m), (rv_eight)c);
}}

RV_INSIDE void rv_philox_four(unsigned long long* out, unsigned a0, unsigned a1, unsigned a2, unsigned k0, unsigned k1) {{
    rv_four c0 = rv_four{{0, 1, 2, 3}} + a0, c1 = rv_four{{}} + a1, c2 = rv_four{{}} + a2, c3 = {{}};
    {rounds()}
    c0 = (c0 << 20) | (c1 >> 12);
    __builtin_memcpy(out, &c0, sizeof c0);
}}
#endif

/* log x for normal x > 0, paths/philox.py log; the moved bits are those of elementary.py's split. */
RV_INSIDE double rv_philox_log(double x) {{
    RV_APART
    const unsigned long long root = RV_INTEGER({number(philox.SQRT_HALF)}), moved = RV_INTEGER(x) + (RV_INTEGER(1.0) - root);
    const double e = RV_DOUBLE((moved >> 52) | RV_INTEGER(0x1p52)) - (0x1p52 + 1023.0);
    const double m = RV_DOUBLE((moved & 0xfffffffffffffull) + root);
    const double s = (m - 1.0) / (m + 1.0), z = RV_TIMES(s, s);
    {horner("series", [number(c) for c in philox.ATANH], "z")}
    const double small = RV_TIMES(s, RV_TIMES(z, series)) + RV_TIMES(e, {number(philox.LN2_LOW)});
    return RV_TIMES(e, {number(philox.LN2_HIGH)}) + (RV_TIMES(2.0, s) + small);
}}

/* The normal of 52 random bits, paths/philox.py normal(uniform(...)): first the root of the tails' logarithm, then the quotient;
   rv_centre gives it for bits from {LOWEST} to {HIGHEST}, rv_quotient<true> for all others. */
RV_INSIDE double rv_uniform(unsigned long long bits) {{
    RV_APART
    return RV_TIMES((RV_DOUBLE(bits | RV_INTEGER(0x1p52)) - 0x1p52) + 0.5, 0x1p-52);
}}

RV_INSIDE double rv_root(unsigned long long bits) {{
    RV_APART
    const double u = rv_uniform(bits), other = 1.0 - u;
    return RV_ROOT(-rv_philox_log(u < other ? u : other));
}}

template <bool tails> RV_INSIDE double rv_quotient(unsigned long long bits, double root) {{
    RV_APART
    const double q = rv_uniform(bits) - 0.5;
    const bool central = !tails && (q < 0.0 ? -q : q) <= 0.425, far = root > 5.0;
    const double r = central ? 0.180625 - RV_TIMES(q, q) : far ? root - 5.0 : root - 1.6;
    {horner("above", chosen(0), "r")}
    {horner("below", chosen(1), "r")}
    return (central ? RV_TIMES(q, above) : q < 0.0 ? -above : above) / below;
}}

RV_INSIDE double rv_centre(unsigned long long bits) {{
    RV_APART
    const double q = rv_uniform(bits) - 0.5, r = 0.180625 - RV_TIMES(q, q);
    {horner("above", [*map(number, philox.CENTRE[0])], "r")}
    {horner("below", [*map(number, philox.CENTRE[1])], "r")}
    return RV_TIMES(q, above) / below;
}}

RV_INSIDE double rv_normal(unsigned long long bits) {{
    return rv_quotient<false>(bits, rv_root(bits));
}}

RV_INSIDE real rv_increment(unsigned long long seed, unsigned trajectory, unsigned step, unsigned channel, double width) {{
    RV_APART
    const double z = rv_normal(rv_philox(trajectory, step, channel, 0u, (unsigned)seed, (unsigned)(seed >> 32)));
    return (real)RV_TIMES(z, width);
}}

RV_NOISE real rv_brownian(unsigned long long seed, unsigned trajectory, unsigned step, unsigned channel, double width) {{
    return rv_increment(seed, trajectory, step, channel, width);
}}

RV_NOISE void rv_brownian_tile(real* out, int lanes, int channels, int tid, int nt, unsigned long long seed,
                               unsigned first_trajectory, unsigned step, double width) {{
#ifndef __CUDACC__
    if (nt == 1) {{
        /* Some {BLOCK} numbers in sweeps, each short enough for the processor to work on several vectors at once. The tails, a
           seventh of all numbers, are put together for theirs. */
        unsigned long long bits[{BLOCK} + 8], tails[{BLOCK} + 8];
        double normal[{BLOCK} + 8], tail[{BLOCK} + 8];
        int at[{BLOCK} + 8];
        const int wide = lanes < {BLOCK} ? lanes : {BLOCK}, high = lanes < {BLOCK} ? {BLOCK} / lanes : 1;
        const unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
        for (int k = 0; k < channels; k += high)
            for (int r = 0; r < lanes; r += wide) {{
                const int rows = channels - k < high ? channels - k : high, columns = lanes - r < wide ? lanes - r : wide;
                for (int a = 0; a < rows; a++)
#ifdef RV_FOUR
                    for (int b = 0; b < columns; b += 4)
                        rv_philox_four(bits + a * columns + b, first_trajectory + r + b, step, k + a, k0, k1);
#else
                    for (int b = 0; b < columns; b++)
                        bits[a * columns + b] = rv_philox(first_trajectory + r + b, step, k + a, 0u, k0, k1);
#endif
                int n = 0;
                for (int i = 0; i < rows * columns; i++) {{
                    tails[n] = bits[i];
                    at[n] = i;
                    n += bits[i] - {LOWEST}ull > {HIGHEST - LOWEST}ull;
                }}
                for (; n % 8; n++) {{
                    tails[n] = 0;
                    at[n] = {BLOCK};
                }}
                for (int i = 0; i < rows * columns; i++)
                    normal[i] = rv_centre(bits[i]);
                for (int i = 0; i < n; i++)
                    tail[i] = rv_quotient<true>(tails[i], rv_root(tails[i]));
                for (int i = 0; i < n; i++)
                    normal[at[i]] = tail[i];
                for (int i = 0; i < rows * columns; i++)
                    out[k * lanes + r + i] = (real)RV_TIMES(normal[i], width);
            }}
        return;
    }}
#endif
    UNROLL for (int i = tid; i < lanes * channels; i += nt)
        out[i] = rv_increment(seed, first_trajectory + i % lanes, step, i / lanes, width);
}}
"""

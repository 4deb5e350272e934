"""The vocabulary `m` in which elementary functions are written: it computes (Arrays), or it prints C (Lines).

    m.where(c, a, b)   m.abs   m.floor   m.sqrt   m.copysign     as in NumPy; where takes both sides, so there is no branch
    m.power_of_two(n)  2^n for a whole number n of a normal power
    m.split(x)         (m, e): x = m 2^e, sqrt(1/2) <= m < sqrt 2, for x > 0, subnormal numbers too
    m.upper(x)         x without the lower half of its digits, so that products of two such numbers are exact
    m.k                the numbers of its precision (precisions.py)
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .precisions import DOUBLE, FORMATS

INFINITY, NAN, ROOT_HALF = float("inf"), float("nan"), 0.7071067811865476


# ------------------------------------------------------------------------------------------------------- on NumPy arrays

class Arrays:
    """m on arrays of one dtype: what the C text computes, bit for bit."""

    def __init__(self, dtype: Any) -> None:
        self.k, self.real = FORMATS[np.dtype(dtype)], np.dtype(dtype).type
        self.integer = np.uint64 if self.k is DOUBLE else np.uint32

    abs, floor, sqrt = staticmethod(np.abs), staticmethod(np.floor), staticmethod(np.sqrt)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, self.real(a) if isinstance(a, float) else a, self.real(b) if isinstance(b, float) else b)

    def copysign(self, a: Any, b: Any) -> Any:
        return np.copysign(self.real(a) if isinstance(a, float) else a, b)

    def power_of_two(self, n: Any) -> Any:
        """n + bias stands in the last bits of n + (1.5 2^digits + bias); from there it moves to where the exponent is."""
        k = self.k
        return ((n + (1.5 * 2.0 ** k.digits + k.bias)).view(self.integer) << self.integer(k.digits)).view(self.real)

    def split(self, x: Any) -> Any:
        """The bits of x, moved by those of 1 less those of sqrt(1/2), have e as their exponent; put on 2^digits it is a float."""
        k, as_bits = self.k, lambda c: int(self.real(c).view(self.integer))
        root, large = self.integer(as_bits(ROOT_HALF)), 2.0 ** k.digits
        small = x < k.minimum
        bits = self.where(small, x * (4.0 * large), x).view(self.integer) + self.integer(as_bits(1.0) - int(root))
        e = ((bits >> self.integer(k.digits)) | self.integer(as_bits(large))).view(self.real) - (large + k.bias)
        s = ((bits & self.integer(2 ** k.digits - 1)) + root).view(self.real)
        return s, e - self.where(small, k.digits + 2.0, 0.0)

    def upper(self, x: Any) -> Any:
        low = self.integer(2 ** ((self.k.digits + 2) // 2) - 1)
        return (x.view(self.integer) & ~low).view(self.real)


# ------------------------------------------------------------------------------------------------------------------ as C

class Symbol:
    """A value in C: a name that is assigned once."""
    __hash__ = None         # type: ignore[assignment]

    def __init__(self, lines: Lines, text: str) -> None:
        self.lines, self.text = lines, text

    def __neg__(self) -> Any: return self.lines.put(f"-{self.text}")
    def __add__(self, other: Any) -> Any: return self.lines.binary(self, "+", other)
    def __radd__(self, other: Any) -> Any: return self.lines.binary(other, "+", self)
    def __sub__(self, other: Any) -> Any: return self.lines.binary(self, "-", other)
    def __rsub__(self, other: Any) -> Any: return self.lines.binary(other, "-", self)
    def __mul__(self, other: Any) -> Any: return self.lines.binary(self, "*", other)
    def __rmul__(self, other: Any) -> Any: return self.lines.binary(other, "*", self)
    def __truediv__(self, other: Any) -> Any: return self.lines.binary(self, "/", other)
    def __rtruediv__(self, other: Any) -> Any: return self.lines.binary(other, "/", self)
    def __lt__(self, other: Any) -> Any: return self.lines.compare(self, "<", other)
    def __le__(self, other: Any) -> Any: return self.lines.compare(self, "<=", other)
    def __gt__(self, other: Any) -> Any: return self.lines.compare(self, ">", other)
    def __ge__(self, other: Any) -> Any: return self.lines.compare(self, ">=", other)
    def __eq__(self, other: Any) -> Any: return self.lines.compare(self, "==", other)
    def __ne__(self, other: Any) -> Any: return self.lines.compare(self, "!=", other)


class Condition(str):
    """The text of a comparison; & and | do not branch, unlike C's && and ||."""
    def __and__(self, other: str) -> Condition: return Condition(f"({self} & {other})")
    def __or__(self, other: str) -> Condition: return Condition(f"({self} | {other})")


class Lines:
    """m that prints: every operation is one line `const real v7 = v3 * v5;`, an equal line is not printed twice."""

    def __init__(self, dtype: Any) -> None:
        self.k, self.real, self.names = FORMATS[np.dtype(dtype)], np.dtype(dtype).type, dict[str, Symbol]()

    def put(self, text: str) -> Symbol:
        return self.names.setdefault(text, Symbol(self, f"v{len(self.names) + 1}"))

    def text(self, a: Any) -> str:
        """A name, or a constant with the digits that give the same bits back."""
        if isinstance(a, Symbol):
            return a.text
        a = self.real(a)
        if not np.isfinite(a):
            return "RV_NAN" if a != a else "RV_INFINITY" if a > 0 else "-RV_INFINITY"
        return f"{np.format_float_scientific(a)}{self.k.suffix}"

    def binary(self, a: Any, sign: str, b: Any) -> Symbol: return self.put(f"{self.text(a)} {sign} {self.text(b)}")
    def compare(self, a: Any, sign: str, b: Any) -> Condition: return Condition(f"({self.text(a)} {sign} {self.text(b)})")
    def call(self, name: str, *a: Any) -> Symbol: return self.put(f"{name}({', '.join(map(self.text, a))})")
    def where(self, c: str, a: Any, b: Any) -> Symbol: return self.put(f"{c} ? {self.text(a)} : {self.text(b)}")
    def abs(self, x: Any) -> Symbol: return self.call("RV_ABS", x)
    def floor(self, x: Any) -> Symbol: return self.call("RV_FLOOR", x)
    def sqrt(self, x: Any) -> Symbol: return self.call("RV_SQRT", x)
    def copysign(self, a: Any, b: Any) -> Symbol: return self.call("RV_COPYSIGN", a, b)
    def power_of_two(self, n: Any) -> Symbol: return self.call("RV_POWER_OF_TWO", n)
    def upper(self, x: Any) -> Symbol: return self.call("RV_UPPER", x)

    def split(self, x: Any) -> tuple[Symbol, Symbol]:
        small = x < self.k.minimum
        y = self.where(small, x * (4.0 * 2.0 ** self.k.digits), x)
        return self.call("RV_SPLIT_M", y), self.call("RV_SPLIT_E", y) - self.where(small, self.k.digits + 2.0, 0.0)


HOST = """\
#ifndef FUNCTION
#ifdef __CUDACC__
#define FUNCTION __device__ __forceinline__
#else
#define FUNCTION static inline __attribute__((always_inline))
#endif
#endif
typedef {real} real;
typedef {integer} rv_integer;
#ifdef __CUDACC__
#define RV_BITS(x) ((rv_integer){to_bits}(x))
#define RV_REAL(i) {to_real}(i)
#define RV_SQRT(x) {cuda_sqrt}(x)
#define RV_ABS(x) fabs{suffix}(x)
#define RV_FLOOR(x) floor{suffix}(x)
#define RV_COPYSIGN(x, y) copysign{suffix}(x, y)
#else
#define RV_BITS(x) __builtin_bit_cast(rv_integer, (real)(x))
#define RV_REAL(i) __builtin_bit_cast(real, (rv_integer)(i))
#define RV_SQRT(x) __builtin_sqrt{suffix}(x)
#define RV_ABS(x) __builtin_fabs{suffix}(x)
#define RV_FLOOR(x) __builtin_floor{suffix}(x)
#define RV_COPYSIGN(x, y) __builtin_copysign{suffix}(x, y)
#endif
"""
WORDS = """\
#define RV_INFINITY RV_REAL({infinity}u)
#define RV_NAN RV_REAL({nan}u)
#define RV_POWER_OF_TWO(n) RV_REAL(RV_BITS((n) + {shift}{suffix}) << {digits})
#define RV_UPPER(x) RV_REAL(RV_BITS(x) & ~(rv_integer){low}u)
#define RV_SPLIT_M(x) RV_REAL(((RV_BITS(x) + {moved}u) & {mask}u) + {root}u)
#define RV_SPLIT_E(x) (RV_REAL(((RV_BITS(x) + {moved}u) >> {digits}) | {large}u) - {unbias}{suffix})
"""


def prelude(dtype: Any, host: str = HOST) -> str:
    """real, FUNCTION, and the vocabulary as macros; nothing is included. host: what the language has (here C++ and CUDA C)."""
    m = Arrays(dtype)
    k, bits = m.k, lambda c: int(m.real(c).view(m.integer))
    to_bits, to_real, root = (("__double_as_longlong", "__longlong_as_double", "__dsqrt_rn") if k is DOUBLE else
                              ("__float_as_uint", "__uint_as_float", "__fsqrt_rn"))
    return (host + WORDS).format(
        real=k.real, integer=k.integer, suffix=k.suffix, digits=k.digits, infinity=bits(INFINITY), nan=bits(NAN), to_bits=to_bits,
        to_real=to_real, cuda_sqrt=root, shift=1.5 * 2.0 ** k.digits + k.bias, low=2 ** ((k.digits + 2) // 2) - 1,
        moved=bits(1.0) - bits(ROOT_HALF), mask=2 ** k.digits - 1, root=bits(ROOT_HALF), large=bits(2.0 ** k.digits),
        unbias=2.0 ** k.digits + k.bias)

"""What each instruction of PTX computes, as an expression in C++. One line an instruction; what is not here is refused by name.

Values are read and written by the instruction's type, whatever the register was declared as: `Words` does that. Only what
rounds once to nearest is known: .approx, .ftz, .full and the other roundings are not.
Source: NVIDIA, Parallel Thread Execution ISA, chapter 9.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

C_TYPES = {"pred": "bool", "f32": "float", "f64": "double",
           **{f"{letter}{n}": f"{'' if letter == 's' else 'u'}int{n}_t" for letter in "sub" for n in (8, 16, 32, 64)}}
REFUSED = {"approx", "ftz", "full", "sat", "rz", "rm", "rp", "cc"}
COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
TO_INTEGRAL = {"rmi": "floor", "rpi": "ceil", "rni": "nearbyint", "rzi": "trunc"}
WIDER = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}


class Unsupported(NotImplementedError):
    """An instruction of which this module does not know what it computes."""


class Words(NamedTuple):
    """An instruction taken apart: mul.wide.s32 has the words mul, wide and s32."""
    words: list[str]
    read: Callable[[int, str], str]           # read(i, type): operand i, 0 the destination, as C++

    @property
    def type(self) -> str:
        return self.words[-1]

    def has(self, *words: str) -> bool:
        return any(word in self.words for word in words)

    def reads(self, n: int, type: str) -> list[str]:
        return [self.read(i, type) for i in range(1, n + 1)]


def is_float(type: str) -> bool:
    return type[0] == "f"


def unsigned(type: str) -> str:
    """Integers wrap around, which those of C++ do where they have no sign."""
    return type if is_float(type) or type == "pred" else "u" + type[1:]


# Each takes Words, and returns the type and the expression of what is written to operand 0.
Meaning = Callable[[Words], tuple[str, str]]


def same(text: str, n: int, wraps: bool = True) -> Meaning:
    """Operands and result of the instruction's own type."""
    def meaning(x: Words) -> tuple[str, str]:
        type = unsigned(x.type) if wraps else x.type
        return x.type, text.format(*x.reads(n, type))
    return meaning


def product(x: Words) -> tuple[str, str]:
    if x.has("wide"):
        (a, b), wide = x.reads(2, x.type), C_TYPES[WIDER[x.type]]
        return WIDER[x.type], f"({wide}){a} * ({wide}){b}"
    if x.has("hi"):
        (a, b), wide = x.reads(2, x.type), f"{'' if x.type[0] == 's' else 'unsigned '}__int128"
        return x.type, f"(({wide}){a} * {b}) >> {x.type[1:]}"
    return same("{0} * {1}", 2)(x)


def multiply_add(x: Words) -> tuple[str, str]:
    type, value = product(x)
    return type, f"({C_TYPES[unsigned(type)]})({value}) + {x.read(3, unsigned(type))}"


def converted(x: Words) -> tuple[str, str]:
    to, given = x.words[-2:]
    value, rounding = x.read(1, given), next((TO_INTEGRAL[word] for word in x.words if word in TO_INTEGRAL), None)
    if rounding:
        value = f"{rounding}({value})"
    if is_float(given) and not is_float(to):
        if rounding is None:
            raise Unsupported(".".join(x.words))
        return to, f"to_integer<{C_TYPES[to]}>({value})"
    return to, f"({C_TYPES[to]})({value})"


def compared(x: Words) -> tuple[str, str]:
    word = x.words[1]
    a, b = x.reads(2, x.type)
    if word in ("nan", "num"):
        text = f"{'!' if word == 'num' else ''}({a} != {a} || {b} != {b})"
    elif is_float(x.type) and word.endswith("u"):            # or one of them is no number
        text = f"({a} {COMPARED[word[:2]]} {b} || {a} != {a} || {b} != {b})"
    elif is_float(x.type) and word == "ne":
        text = f"({a} < {b} || {a} > {b})"
    else:
        text = f"({a} {COMPARED[word]} {b})"
    more = {"and": "&&", "or": "||", "xor": "!="}.get(x.words[2], "")
    return "pred", f"{text} {more} {x.read(3, 'pred')}" if more else text


def chosen(x: Words) -> tuple[str, str]:
    return x.type, f"{x.read(3, 'pred')} ? {x.read(1, x.type)} : {x.read(2, x.type)}"


def shifted(symbol: str) -> Meaning:
    def meaning(x: Words) -> tuple[str, str]:
        type, by = x.type if symbol == ">>" else unsigned(x.type), x.read(2, "u32")
        beyond = f"({x.read(1, type)} < 0 ? -1 : 0)" if type[0] == "s" else "0"
        return type, f"{by} >= {x.type[1:]} ? {beyond} : {x.read(1, type)} {symbol} {by}"
    return meaning


def funnel(x: Words) -> tuple[str, str]:
    low, high, by = x.reads(3, "u32")
    both = f"((uint64_t){high} << 32 | {low})"
    by = f"({by} & 31)" if x.has("wrap") else f"({by} > 32 ? 32 : {by})"
    return "b32", f"{both} << {by} >> 32" if x.has("l") else f"{both} >> {by}"


def bits(symbol: str) -> Meaning:
    return same(f"{{0}} {symbol} {{1}}", 2)


MEANING: dict[str, Meaning] = {
    "add": same("{0} + {1}", 2), "sub": same("{0} - {1}", 2), "mul": product, "mad": multiply_add,
    "div": same("{0} / {1}", 2, wraps=False), "rem": same("{0} % {1}", 2, wraps=False),
    "fma": same("fused({0}, {1}, {2})", 3), "sqrt": same("sqrt({0})", 1), "rcp": same("1 / {0}", 1),
    "neg": same("-{0}", 1), "abs": same("absolute({0})", 1, wraps=False), "copysign": same("copysign({1}, {0})", 2),
    "min": same("least({0}, {1})", 2, wraps=False), "max": same("most({0}, {1})", 2, wraps=False),
    "and": bits("&"), "or": bits("|"), "xor": bits("^"),
    "not": lambda x: (x.type, f"{'!' if x.type == 'pred' else '~'}{x.read(1, x.type)}"),
    "shl": shifted("<<"), "shr": shifted(">>"), "shf": funnel,
    "mov": same("{0}", 1), "cvta": same("{0}", 1), "cvt": converted, "setp": compared, "selp": chosen,
    "bfi": lambda x: (x.type, f"insert({x.read(1, x.type)}, {x.read(2, x.type)}, {x.read(3, 'u32')}, {x.read(4, 'u32')})"),
}


def meaning(x: Words) -> tuple[str, str]:
    """The type and the C++ expression of what an instruction writes."""
    name = ".".join(x.words)
    if x.words[0] not in MEANING or REFUSED.intersection(x.words) or x.type not in C_TYPES:
        raise Unsupported(name)
    if x.words[0] == "cvta" and x.has("shared"):
        return x.type, f"{'offset_of' if x.has('to') else 'address_of'}({x.read(1, x.type)})"
    return MEANING[x.words[0]](x)

"""PTX becomes C++ for the threads of the host: the kernel that NVRTC really made, one statement for each instruction.

    text = translate(binary.ptx, source, real="double")        # for host.launch, with the source's kernels

Registers become variables, labels labels, functions functions; a barrier is the shim's. Every access to memory is looked up
before it is made (ptx.hpp). What an instruction computes stands in instructions.py.
"""
from __future__ import annotations

import re
from pathlib import Path

from .instructions import C_TYPES, Unsupported, Words, meaning

HELP = Path(__file__).with_name("ptx.hpp")
FUNCTION = re.compile(r"\.(entry|func)\s+(?:\(\s*\.param\s+\.(\w+)\s+([\w$]+)\s*\)\s*)?([\w$]+)\s*\(([^)]*)\)([^{;]*)(?:\{|;)")
SPECIAL = {f"%{name}.{axis}": f"{word}.{axis}" for name, word in (("tid", "threadIdx"), ("ntid", "blockDim"), ("ctaid", "blockIdx"),
                                                                  ("nctaid", "gridDim")) for axis in "xyz"}
DATA = re.compile(r"\.(global|const|shared)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(\[\d*\])?(?:\s*=\s*\{([^}]*)\})?\s*;")
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+%?([\w$]+)(?:<(\d+)>)?$")
SPACES = {"shared": "shared", "global": "generic"}


def translate(ptx: str, source: str, real: str) -> str:
    """C++ with the kernels of PTX.

    Parameters
    ----------
    ptx, source : what NVRTC made, and of what: its kernels' parameters have their types from there.
    real : double or float.

    Raises Unsupported with the instruction that is not known.
    """
    ptx = re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.DOTALL)
    symbols: dict[str, str] = {}
    tables, room = [], 0
    for space, align, type, name, brackets, values in DATA.findall(ptx):
        n = brackets[1:-1] if brackets else "1"              # [] is dynamic memory, and nothing a single number
        size = int(n or 0) * int(type[1:]) // 8
        if space == "shared":
            room = -(-room // int(align or 1)) * int(align or 1)
            symbols[name] = f"(STATIC + {room})" if n else "0"
            room += size
        else:
            tables.append(f"alignas(16) static const {C_TYPES[type]} {safe(name)}[{n}] = {{{values}}};")
            symbols[name] = f"(uint64_t){safe(name)}"
    listed = "".join(f"{{{safe(name)}, sizeof {safe(name)}}}, " for name, at in symbols.items() if at.startswith("(uint64_t)"))
    found = [m for m in FUNCTION.finditer(ptx) if ptx[m.end() - 1] == "{"]
    functions = [Function(m, body(ptx, m.end()), symbols, source, real) for m in found]
    return "\n".join([*tables, f"alignas(16) static char statics[{max(16, room)}] __attribute__((section(\"shared_memory\")));",
                      HELP.read_text(encoding="utf-8"),
                      f"const ptx::Table ptx::tables[] = {{{listed}{{0, 0}}}};",
                      *(f"{function.head};" for function in functions if not function.entry),
                      *(function.text() for function in functions)])


def body(text: str, start: int) -> str:
    """What stands between the brace before start and its partner."""
    depth, at = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return text[start:at - 1]


def safe(name: str) -> str:
    return name.lstrip("%").replace("$", "L_")


def kinds(source: str, name: str, real: str) -> list[str]:
    """The types of the parameters of a kernel, from its source."""
    found = re.search(rf"void\s+(?:__launch_bounds__\([^)]*\)\s+)?{name}\s*\(([^)]*)\)", source)
    if not found:
        raise ValueError(f"translate: no kernel {name!r} in the source")
    text = found[1].replace("TILE_ARGUMENT", "").replace("INDEX", "long long").replace("RESTRICT", "")
    return [re.sub(r"\breal\b", real, re.sub(r"\s*\w+$", "", part.strip())) for part in text.split(",")]


class Function:
    """One function of a module: its registers, and its statements one by one."""

    def __init__(self, found: re.Match, body: str, symbols: dict[str, str], source: str, real: str) -> None:
        self.entry, self.body, self.symbols = found[1] == "entry", body, symbols
        self.registers: dict[str, str] = {}
        given = [part.split() for part in found[5].split(",") if part.strip()]
        if any(len(part) != 3 for part in given):
            raise Unsupported(f"a parameter {' '.join(next(part for part in given if len(part) != 3))}")
        self.parameters = {safe(name): type.lstrip(".") for _, type, name in given}
        self.lines: list[str] = []
        name, result = safe(found[4]), found[2]
        self.returned = safe(found[3]) if result else ""
        if self.entry:
            types = kinds(source, name, real)
            self.head = f'extern "C" KERNEL void {name}({", ".join(f"{type} given_{i}" for i, type in enumerate(types))})'
            for i, (x, type) in enumerate(self.parameters.items()):
                self.lines.append(f"{C_TYPES[type]} {x} = as<{C_TYPES[type]}>(given_{i});")
        else:
            arguments = ", ".join(f"{C_TYPES[type]} {x}" for x, type in self.parameters.items())
            self.head = f"static __noinline__ {C_TYPES[result] if result else 'void'} {name}({arguments})"
            if result:
                self.lines.append(f"{C_TYPES[result]} {self.returned};")
                self.parameters[self.returned] = result

    def text(self) -> str:
        for part in re.sub(r"\s+", " ", self.body).split(";"):
            self.statement(part.strip())
        return "\n".join([f"{self.head} {{", *self.lines, "}"])

    def statement(self, text: str) -> None:
        """A label, a block that begins or ends, a declaration, or an instruction."""
        while found := re.match(r"([{}]|[\w$]+:) ?", text):
            self.lines.append(found[1] if found[1] in "{}" else f"{safe(found[1])} ;")
            text = text[found.end():]
        if text.startswith(".reg"):
            self.declare(text)
        elif text.startswith(".param"):                      # of a call, inside its block
            type, name = text.split()[1:]
            self.parameters[name] = type.lstrip(".")
            self.lines.append(f"{C_TYPES[type.lstrip('.')]} {name};")
        elif text and not text.startswith((".pragma", ".shared", ".loc")):
            condition = re.match(r"@(!?)%(\w+) ", text)
            if condition:
                text = text[condition.end():]
            done = self.instruction(text)
            self.lines.append(f"if ({condition[1]}{condition[2]}) {{ {done} }}" if condition else done)

    def declare(self, text: str) -> None:
        found = REGISTERS.match(text)
        if not found:
            raise Unsupported(text)
        type, name, count = found.groups()
        names = [f"{name}{i}" for i in range(int(count))] if count else [name]
        self.registers |= dict.fromkeys(names, type)
        for i in range(0, len(names), 20):
            self.lines.append(f"{C_TYPES[type]} {', '.join(f'{x} = 0' if count else x for x in names[i:i + 20])};")

    def instruction(self, text: str) -> str:
        name, _, rest = text.partition(" ")
        words, operands = name.split("."), [part.strip() for part in re.split(r",(?![^{(]*[})])", rest)]
        if words[0] in ("ret", "exit"):
            return f"return {self.returned};"
        if words[0] == "bra":
            return f"goto {safe(operands[0])};"
        if words[0] in ("bar", "barrier") and operands == ["0"]:
            return "__syncthreads();"
        if words[0] == "call":
            return self.call(operands)
        if words[0] in ("ld", "st", "ldu"):
            return self.moved(words, operands)
        if words[0] == "mov" and "{" in rest:
            return self.packed(words, operands)
        if words[0] == "setp" and "|" in operands[0]:
            raise Unsupported(text)
        type, value = meaning(Words(words, lambda i, type: self.read(operands[i], type)))
        return self.write(operands[0], type, value)

    def call(self, operands: list[str]) -> str:
        names = [[safe(x.strip()) for x in operand.strip("() ").split(",")] for operand in operands]
        result = names.pop(0) if operands[0].startswith("(") else None
        function, arguments = names[0][0], names[1] if len(names) > 1 else []
        return f"{f'{result[0]} = ' if result else ''}{function}({', '.join(arguments)});"

    def packed(self, words: list[str], operands: list[str]) -> str:
        """Two registers as one, or one as two."""
        type, half = words[-1], f"b{int(words[-1][1:]) // 2}"
        to, given = operands
        if "{" in given:
            low, high = given.strip("{} ").split(",")
            return self.write(to, type, f"({C_TYPES[type]}){self.read(high, half)} << {half[1:]} | {self.read(low, half)}")
        value = self.read(given, type)
        parts = zip(to.strip("{} ").split(","), (value, f"{value} >> {half[1:]}"), strict=True)
        return " ".join(self.write(x.strip(), half, part) for x, part in parts if x.strip() != "_")

    def moved(self, words: list[str], operands: list[str]) -> str:
        """A load or a store, of one number or of several that are neighbours."""
        loads, type = words[0] != "st", words[-1]
        place, values = (operands[1], operands[0]) if loads else (operands[0], operands[1])
        each = [x.strip() for x in values.strip("{} ").split(",")]
        if "param" in words:
            name = safe(re.split(r"[+\]]", place.strip("[ "))[0])
            if loads:
                return self.write(each[0], type, f"as<{C_TYPES[type]}>({name})")
            return f"{name} = as<{C_TYPES[self.parameters[name]]}>({self.read(each[0], type)});"
        space = next((SPACES[word] for word in words if word in SPACES), "generic")
        if {"local", "const", "volatile", "relaxed", "acquire", "release"} & set(words):
            raise Unsupported(".".join(words))
        base, _, offset = place.strip("[] ").partition("+")
        pointer = f"{space}<{C_TYPES[type]}>({self.read(base, 'b32' if self.is_short(base) else 'b64')} + {offset or 0}, {len(each)})"
        if loads:
            done = [self.write(x, type, f"at[{i}]") for i, x in enumerate(each) if x != "_"]
        else:
            done = [f"at[{i}] = {self.read(x, type)};" for i, x in enumerate(each)]
        return f"{{ {C_TYPES[type]}* const at = {pointer}; {' '.join(done)} }}"

    def is_short(self, operand: str) -> bool:
        return self.registers.get(operand.strip().lstrip("%"), "b64").endswith("32")

    def read(self, operand: str, type: str) -> str:
        """An operand, as C++ of this type."""
        operand, c = operand.strip(), C_TYPES[type]
        if operand.startswith("!"):
            return f"!{operand[2:]}"
        if operand in SPECIAL:
            return f"({c}){SPECIAL[operand]}"
        name = operand.lstrip("%")
        if name in self.registers:
            declared = self.registers[name]
            if C_TYPES[declared] == c:
                return name
            return f"({c}){name}" if declared[0] == "b" and type[0] in "sub" else f"as<{c}>({name})"
        if operand[:2] in ("0f", "0d"):
            bits = f"0x{operand[2:]}u" if operand[1] == "f" else f"0x{operand[2:]}ull"
            return f"as<{c}>(({'uint32_t' if operand[1] == 'f' else 'uint64_t'}){bits})"
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", operand):
            number = int(operand.rstrip("U"), 0) % (1 << 64)
            return f"({c}){number}ull" if type[0] in "subp" else f"as<{c}>(({C_TYPES['u' + type[1:]]}){number}ull)"
        symbol, _, offset = operand.partition("+")
        if symbol in self.symbols:
            return f"({c})({self.symbols[symbol]} + {offset or 0})"
        raise Unsupported(f"the operand {operand}")

    def write(self, operand: str, type: str, value: str) -> str:
        """A value of this type goes into a register."""
        name = operand.strip().lstrip("%")
        declared = self.registers[name]
        if (declared[0] == "f") == (type[0] == "f") or declared == "pred":
            return f"{name} = {value};" if C_TYPES[declared] == C_TYPES[type] else f"{name} = ({C_TYPES[type]})({value});"
        return f"{name} = as<{C_TYPES[declared]}>(({C_TYPES[type]})({value}));"

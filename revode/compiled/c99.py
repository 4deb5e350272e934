"""The programs of a solve as C99 that a person may read: the text of generate.py in another dialect.

    listing = Listing(tiles, "forward", book)      the functions forward_begin, forward_step, ... of one direction
    Book                                           what all directions of a file share: tables, elementary functions, sums

Nothing is generated here: loops, their order and the places of values are those of the native host, and so are the bits,
where the compiler contracts no product with a sum. What differs is how things are called: parameters and the grid by name,
no lanes where there is one trajectory, no templates, no vectors.
"""
from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from textwrap import wrap
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import elementary
from .generate import Body, Source, meaning, number
from .loops import LANES, Loop, Slot
from .lower import lower
from .program import Program, V, Value, kinds

WIDTH = 100
HOST = """\
typedef {integer} rv_integer;
/* The bits of a number as an integer, and back. */
typedef union {{ real x; rv_integer i; }} rv_both;
static inline rv_integer rv_bits(real x) {{ rv_both u; u.x = x; return u.i; }}
static inline real rv_real(rv_integer i) {{ rv_both u; u.i = i; return u.x; }}
#define RV_BITS(x) rv_bits(x)
#define RV_REAL(i) rv_real(i)
"""
ABOUT = "/* Elementary functions whose bits are the same on every machine. */\n"
# What generate.py calls by name, where the sizes are arguments instead of parameters of a template.
SUMS = {
    "rv_linear": """\
/* out[q, j] = sum over c of x[q, c] w[c, j], for each lane */
static void rv_linear(int p, int n, int m, real *out, const real *x, const real *w)
{
  for (int q = 0; q < p; q++) for (int j = 0; j < m; j++) for (int r = 0; r < T; r++) {
    real sum = x[q * n * T + r] * w[j];
    for (int c = 1; c < n; c++) sum = sum + x[(q * n + c) * T + r] * w[c * m + j];
    out[(q * m + j) * T + r] = sum;
  }
}
""",
    "rv_outer": """\
/* out[i, j] = total[i, j] + sum over the lanes r < R of x[i, r] g[j, r] */
static void rv_outer(int n, int m, real *out, const real *x, const real *g, const real *total,
                     int R)
{
  for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) {
    real sum = x[i * T] * g[j * T];
    for (int r = 1; r < R; r++) sum = sum + x[i * T + r] * g[j * T + r];
    out[i * m + j] = total ? total[i * m + j] + sum : sum;
  }
}
""",
    "rv_rows": """\
/* out[k] = total[k] + sum over the lanes r < R of x[k, r] */
static void rv_rows(int n, real *out, const real *x, const real *total, int R)
{
  for (int k = 0; k < n; k++) {
    real sum = x[k * T];
    for (int r = 1; r < R; r++) sum = sum + x[k * T + r];
    out[k] = total ? total[k] + sum : sum;
  }
}
""",
    "rv_rows_max": """\
/* out[k] = the largest x[k, r] of the lanes r < R */
static void rv_rows_max(int n, real *out, const real *x, const real *total, int R)
{
  (void)total;
  for (int k = 0; k < n; k++) {
    real most = x[k * T];
    for (int r = 1; r < R; r++) { const real y = x[k * T + r]; most = y > most || y != y ? y : most; }
    out[k] = most;
  }
}
"""}


class Book:
    """What all directions of a file share.

    leaves : for every leaf of the parameters where it lies in `params`, None for those that have no place there; given : their
    values, behind them what the field brings along; fixed : whether the parameters are constants of the file; lanes : T.
    """

    def __init__(self, leaves: list[int | None], given: list, dtype: Any, fixed: bool, lanes: int) -> None:
        self.leaves, self.given, self.dtype, self.fixed, self.lanes = leaves, given, np.dtype(dtype), fixed, lanes
        self.tables: dict[Any, str] = {}
        self.lines: list[str] = []
        self.functions: set[str] = set()
        self.derived: dict[Any, tuple[Program, V]] = {}       # of the parameters alone, by what they mean: computed before the steps
        self.places, self.room = dict[Any, int](), 0

    def table(self, values: np.ndarray, type: str = "real") -> str:
        """The name of a table with these values."""
        key = type, values.tobytes(), values.shape
        if key not in self.tables:
            name = self.tables[key] = f"{ {'int': 'index', 'real': 'table', 'double': 'grid'}[type] }{len(self.tables)}"
            entries = [str(x) if type == "int" else entry(x) for x in values.reshape(-1).tolist()]
            shape = "".join(f"[{n}]" for n in values.shape)
            self.lines += [f"static const {type} {name}{shape} = {{", *wrapped(entries, values.shape), "};"]
        return self.tables[key]

    def parameter(self, program: Program, v: V) -> tuple[str, int] | np.ndarray:
        """The array, and the place in it, of a value that comes of the parameters alone; or the value, where it is a constant."""
        x = program.values[v]
        if x.role is not None and self.leaf(x.role) is not None:
            return "params", self.leaf(x.role)                                                     # type: ignore[return-value]
        if self.fixed or not self.asks(program, v):
            return np.asarray(self.value(program, v), self.dtype).reshape(-1)
        key = meaning(program, v)
        if key not in self.derived:
            self.derived[key], self.places[key] = (program, v), self.room
            self.room += int(np.prod(x.shape))
        return "derived", self.places[key]

    def leaf(self, role: tuple) -> int | None:
        return self.leaves[role[1]] if role[1] < len(self.leaves) else None

    def value(self, program: Program, v: V) -> Any:
        x = program.values[v]
        if x.role is not None:
            return self.given[x.role[1]]
        assert x.op is not None
        return x.op.forward(*(self.value(program, a) if isinstance(a, V) else a for a in x.args), **x.options)

    def asks(self, program: Program, v: V) -> bool:
        """Whether a value depends on an argument."""
        x = program.values[v]
        return self.leaf(x.role) is not None if x.role is not None else any(
            self.asks(program, a) for a in x.args if isinstance(a, V))

    def shape(self, key: Any) -> tuple[int, ...]:
        program, v = self.derived[key]
        return program.values[v].shape

    def preparing(self) -> Program:
        """The program of what comes of the parameters alone."""
        values: list[Value] = []
        outputs: dict = {}
        inputs: dict = {}
        for j, (program, v) in enumerate(self.derived.values()):
            at: dict[int, V] = {}

            def take(v: V, program: Program = program, at: dict[int, V] = at) -> V:
                x = program.values[v]
                if v not in at and x.role in inputs:
                    at[v] = inputs[x.role]
                if v not in at:
                    values.append(x._replace(args=tuple(take(a) if isinstance(a, V) else a for a in x.args)))
                    at[v] = V(len(values) - 1)
                    if x.role is not None:
                        inputs[x.role] = at[v]
                return at[v]

            outputs["derived", j] = take(v)
        return Program(values, outputs)

    def text(self, bodies: list[str]) -> str:
        """Tables, the functions that are called, and the bodies."""
        own = "\n".join(bodies)
        functions = elementary.c_source(sorted(self.functions & set(elementary.NAMES)), self.dtype, HOST)
        functions = ABOUT + in_words(functions) if self.functions & set(elementary.NAMES) else ""
        lanes = f"enum {{ T = {self.lanes} }};   /* trajectories side by side: feature k of lane r is x[k * T + r] */\n"
        sums = [text if self.lanes > 1 else alone(text) for name, text in SUMS.items() if f"{name}(" in own]
        lanes = lanes if self.lanes > 1 else ""
        return "\n".join(filter(None, [functions, lanes, "\n".join([*self.lines, ""]) if self.lines else "", *sums, own]))


def alone(text: str) -> str:
    """The text of a sum for one trajectory, whose lane is the only one."""
    for lanes in (" for (int r = 0; r < T; r++)", " * T + r", " * T", ", for each lane"):
        text = text.replace(lanes, "")
    return re.sub(r"\[\(([^()]*)\)\]", r"[\1]", text)


def in_words(text: str) -> str:
    """The prelude with those of its macros alone that somebody uses, in plain C."""
    text = re.sub(r"(?<![\w.])\d+\.\d*e[+-]\d+(?![\w.])", lambda found: repr(float(found[0])), text)
    lines = re.sub(r"^    ", "  ", re.sub(r"\bFUNCTION\b", "static inline", text), flags=re.MULTILINE).splitlines()
    macros = {found[1]: line for line in lines if (found := re.match(r"#define (RV_\w+)", line))}
    used: set[str] = set()
    while True:
        body = [line for line in lines if line not in macros.values() or any(macros[name] == line for name in used)]
        more = {name for name in macros for line in body
                if re.search(rf"\b{name}\b", line) and not line.startswith(f"#define {name}")}
        if more <= used:
            return "\n".join(body) + "\n"
        used |= more


def entry(x: float) -> str:
    """A number in a table, which has a type."""
    return number(x).removeprefix("(real)").strip("()") if np.isfinite(x) else number(x)


def wrapped(entries: list[str], shape: tuple[int, ...] = ()) -> list[str]:
    """Entries of a table in lines; of a table of rows each row in braces."""
    if len(shape) == 2:
        entries = [f"{{{', '.join(entries[i:i + shape[1]])}}}" for i in range(0, len(entries), shape[1])]
    lines, line = [], " "
    for x in entries:
        if len(line) + len(x) + 2 > WIDTH:
            lines.append(line)
            line = " "
        line += f" {x},"
    return [*lines, line]


MEANT = {
    "forward": {"step_begin": "Before the first step: what it finds besides y0.",
                "step_step": "Step n, from time_at(n) to time_at(n + 1)."},
    "backward": {"step_begin": "Before the first step back: what it finds besides state and derivatives.",
                 "step_step": "Step n undone: state and derivatives at time_at(n), from those at time_at(n + 1).",
                 "step_land": "The same for the step that ends at the known state.",
                 "step_end": "After the last step back: what is still to come in."},
    "prepare": {"step_step": "What comes of the parameters alone."}}
NAMES = {"part": "{}", "drive": "{} of the step", "cotangent": "dL/d{}", "aparam": "dL/dparams of leaf {}",
         "carry": "f and its tape at {}", "known": "known {}"}


class Listing(Source):
    """The functions of one direction. tiles: the runner of the native host, of which nothing has been built."""

    def __init__(self, tiles: Any, direction: str, book: Book, problem: Any = None) -> None:
        self.book, self.problem, self.grids, self.bodies = book, problem, tiles.grids, dict[str, Function]()
        self.about = {name: f"/* {text} */\n" for name, text in MEANT[direction].items()}
        super().__init__(tiles.lowered, tiles.T, tiles.dtype, direction, tiles.outputs, False)

    def map_of_memory(self) -> list[str]:
        """What lies where in the memory of this direction, in lines."""
        found: dict[str, int] = {}
        for role, (offset, _, _) in self.places.items():
            if role[0] in NAMES:
                found.setdefault(NAMES[role[0]].format(*role[1:]), offset)
        text = "; ".join(f"{what} from {offset} on" for what, offset in found.items())
        return wrap(f"{text}; behind {self.persistent} what a step uses for itself.", WIDTH - 6)

    def body(self, name: str) -> Function:
        self.bodies[name] = Function(self, name, self.lowered[name], self.persistent)
        return self.bodies[name]

    def lay_out(self) -> int:
        """As for the native host; of what is computed beforehand the outputs alone, in their order."""
        if self.direction == "prepare":
            inputs, outputs = self.lowered["step"].inputs, self.lowered["step"].outputs
            self.places |= {role: (self.book.places[key], int(np.prod(self.book.shape(key))), LANES)
                            for key, role in zip(self.book.derived, outputs, strict=True)}
            self.places |= {role: (0, slot.F, slot.kind) for role, slot in inputs.items()}         # read where they are
            self.sums, self.seen = None, 0
            return self.book.room
        return super().lay_out()

    def room(self, F: int, kind: str) -> int:
        return F * (self.T if kind == LANES else 1)

    def table(self, index: np.ndarray) -> str:
        return self.book.table(index.astype(np.int32).reshape(-1), "int")

    def constants(self, values: np.ndarray) -> str:
        return self.book.table(values)

    def whole(self, bodies: list[str]) -> str:
        self.book.functions |= self.functions
        return "\n".join(bodies)

    def call(self, name: str, grid: str = "S", row: str = "n") -> str:
        """The statement that calls a program's function; grid: its memory, row: the number of the step."""
        given = {"S": grid, "n": row, "R": "R" if self.T > 1 else "1", "params": "trained" if self.book.fixed else "params"}
        return f"{self.direction}_{name}({', '.join(given.get(x, x) for x in self.bodies[name].takes[f'step_{name}'])});"


TAKES = {"S": "real *S", "params": "const real *params", "derived": "const real *derived", "n": "int n", "R": "int R"}


class Function(Body):
    """The C functions of one program."""
    source: Listing
    pairs = False

    def columns(self) -> list[tuple[V, int, int]]:
        return []                                    # nothing is read from a row of the grid: see of_grid

    def address(self, slot: Slot, feature: str) -> str:
        where, *what = slot.role or ("",)
        if where == "steps":
            return self.of_grid(self.lowered.program, what[0], feature)                            # type: ignore[arg-type]
        found = self.given(slot)
        if isinstance(found, np.ndarray):
            return number(float(found[0])) if found.size == 1 else f"{self.source.constants(found)}[{feature}]"
        if found is not None:
            return f"{found[0]}[{joined(found[1], feature)}]"
        lanes = slot.kind == LANES and self.T > 1
        return f"S[{joined(self.offsets[slot], f'{within(feature)} * T + r' if lanes else feature)}]"

    def given(self, slot: Slot) -> tuple[str, int] | np.ndarray | None:
        """Of what is given for all steps: constants, or an array and the place in it; None for what lies in S."""
        where, *what = slot.role or ("",)
        program: Any = self.lowered.program
        if where == "constant":
            return np.frombuffer(what[0])
        if where == "params":
            return self.source.book.parameter(program, V(what[0]))
        return self.source.book.parameter(program, program.inputs[slot.role]) if where == "param" else None

    def pointer(self, slot: Slot) -> str:
        found = self.given(slot)
        if isinstance(found, np.ndarray):
            return self.source.constants(found)
        text = re.sub(r"( \+ )?0 \* T \+ r\]$", "]", self.address(slot, "0"))
        return text.replace("[]", "").replace("[0]", "").replace("[", " + ", 1).removesuffix("]")

    def of_grid(self, program: Program, v: V, feature: str) -> str:
        """A value of the grid: by its name, or from a table with a row for each step."""
        x, real = program.values[v], self.source.dtype
        if plain(program, v):
            return grid_name(program, v) if x.dtype == real else f"(real){grid_name(program, v)}"
        problem = self.source.problem
        rows = np.asarray(self.source.grids[self.name].tables(problem, 0, problem.N)[int(v)], np.float64).reshape(problem.N, -1)
        return f"(real){self.source.book.table(rows, 'double')}[n][{feature}]"

    def stretch(self, loop: Loop) -> str:
        """What the native host calls over a stretch of memory, as a loop like any other."""
        each = "EACH" if loop.out.kind == LANES else "ONCE"
        body = "\n    ".join(self.elements([replace(loop, apart=False)]))
        return f"{each}({loop.out.F}) {{\n    {body}\n  }}"

    def functions(self, starts: list[int]) -> str:
        name = f"step_{self.name}"
        parts = {f"{name}_{i}": self.lines[a:b] for i, (a, b) in enumerate(pairwise([*starts, None]))}
        if len(starts) < 2:
            parts = {name: self.lines}
        done = {part: self.translated(lines) for part, lines in parts.items()}
        self.takes = {part: [x for x in TAKES if re.search(rf"\b{x}\b", text)] for part, text in done.items()}
        if name not in done:
            self.takes[name] = [x for x in TAKES if any(x in taken for taken in self.takes.values())]
            done[name] = "\n".join(f"  {part}({', '.join(self.takes[part])});" for part in parts)
        return "\n".join(self.printed(part, text) for part, text in done.items())

    def printed(self, name: str, body: str) -> str:
        given = ", ".join(TAKES[x] for x in self.takes[name])
        text = f"static void {name}({given or 'void'})\n{{\n{body}\n}}\n"
        return self.source.about.get(name, "") + re.sub(r"\bstep_(?=begin|step|land|end)", f"{self.source.direction}_", text)

    def translated(self, lines: list[str]) -> str:
        """Lines of generate.py in C99: its macros written out, arguments in the place of parameters of templates."""
        text = "\n".join(lines)
        for pattern, put in DIALECT:
            text = re.sub(pattern, put, text)
        text = re.sub(r"c = 0;\n\s*real (\w+) = (.*);\n(\s*)for \(c = 1;", with_first_term, text).replace("    int c;\n", "")
        text = re.sub(WHOLE, r"\1 \4", text)
        text = re.sub(r"for \(int k = 0; k < 1; k\+\+\) \{\n(.*?)\n  \}", once, text, flags=re.DOTALL)
        if self.T == 1:
            text = text.replace(" for (int r = 0; r < T; r++)", "").replace("k * T + r", "k").replace("(k) * T + r", "k")
        used = [v for v in self.lowered.steps if plain(self.lowered.program, v)                     # type: ignore[arg-type]
                and re.search(rf"\b{grid_name(self.lowered.program, v)}\b", text)]                # type: ignore[arg-type]
        return "\n".join([*grid_lines(self.lowered.program, used), text])     # type: ignore[arg-type]


def with_first_term(found: re.Match) -> str:
    return f"real {found[1]} = {at_zero(found[2], 'c')};\n{found[3]}for (int c = 1;"


def once(found: re.Match) -> str:
    return f"{{\n{at_zero(found[1], 'k')}\n  }}"


def at_zero(text: str, index: str) -> str:
    """The text where an index is 0."""
    text = re.sub(rf"\b{index} [*/%] \d+", "0", text)
    text = re.sub(rf"\[(.*?)\b{index}\b", lambda found: f"[{found[1]}0", text)
    return re.sub(r"(?<![\w.])0 \+ | \+ 0(?![\w.])", "", text)


DIALECT = (
    (r"\n  SYNC;", ""), (r"  SYNC;\n", ""), (r"\s*\bSYNC;", ""),
    (r"// op: (.*)", r"/* \1 */"), (r"\bUNROLL ", ""), (r"c = 0;\n\s*(real .*\n\s*for \()c = 0;", r"\1int c = 0;"),
    (r"EACH\((\d+)\)", r"for (int k = 0; k < \1; k++) for (int r = 0; r < T; r++)"),
    (r"ONCE\((\d+)\)", r"for (int k = 0; k < \1; k++)"),
    (r"(rv_\w+)<([\d, ]+)>\(", r"\1(\2, "),
    (r"\(const real\*\)0", "0"),
    (r" \* 1\b(?!\.)", ""), (r"\((\w+)\) \*", r"\1 *"), (r"(?<![\w.])0 \+ ", ""),
    (r"\[(.*?) \+ 0\]", r"[\1]"), (r"\bk >= 0 && ", ""),
)


# of a choice among parts the last one, where these are all that there is
WHOLE = r"(for \(int k = 0; k < (\d+);[^}]*?k < (\d+) \? \w+ :) k >= \3 && k < \2 \? (\w+) : (?:\(real\))?0\.0"


# Values of the grid: times, steps, and what a line or two make of them -------------------------------------------------

PLAIN = ("add", "subtract", "multiply", "divide", "negative", "astype")


def plain(program: Program, v: V) -> bool:
    """Whether a value of the grid is a number made of times and steps by operations that round in one way only."""
    x = program.values[v]
    if x.shape:
        return False
    if x.role is not None:
        return x.role[1] != "h_before"
    return x.op is not None and x.op.name in PLAIN and all(
        plain(program, a) if isinstance(a, V) else np.ndim(a) == 0 for a in x.args)


def grid_name(program: Program, v: V) -> str:
    x = program.values[v]
    return x.role[1] if x.role is not None else f"s{int(v)}"


def grid_lines(program: Program, used: list[V]) -> list[str]:
    """The definitions of these values."""
    lines: dict[str, str] = {}

    def define(v: V) -> str:
        x, name = program.values[v], grid_name(program, v)
        type, cast = ("float", "(float)") if x.dtype == np.float32 else ("double", "")
        if name in lines:
            return name
        if x.role is not None:
            h = "time_at(n + 1) - time_at(n)"
            text = {"t0": "time_at(n)", "t1": "time_at(n + 1)", "h": f"{cast}({h})" if cast else h}[x.role[1]]
        else:
            args = [define(a) if isinstance(a, V) else repr(float(a)) for a in x.args]
            args = [f"{cast}{a}" for a in args]
            text = args[0] if x.op.name == "astype" else x.op.c.format(*args)                       # type: ignore[union-attr]
        lines[name] = f"  const {type} {name} = {text};"
        return name

    for v in used:
        define(v)
    return list(lines.values())


def plain_c(text: str, real: str) -> str:
    """The text with this type for real, and with the functions of <math.h>."""
    text = re.sub(r"\b(?:rv|RV)_(abs|sqrt|floor|ABS|SQRT|FLOOR|COPYSIGN)\(", lambda found: in_c(found[1].lower(), real) + "(", text)
    text = text.replace("rv_nan()", f"({real})NAN").replace("rv_infinity()", f"({real})INFINITY")
    text = re.sub(r"(\w+(?:\[[^][]*\])?) = \1 \+ ", r"\1 += ", text)
    return re.sub(r"\breal\b", real, text.replace("(real)", "") if real == "double" else text)


def in_c(name: str, real: str) -> str:
    return {"abs": "fabs"}.get(name, name) + ("f" if real == "float" else "")


def joined(offset: int, feature: str) -> str:
    """offset + feature, as one would write it."""
    if not offset:
        return feature
    return str(offset + int(feature)) if feature.isdecimal() else f"{offset} + {feature}"


def within(feature: str) -> str:
    return feature if re.fullmatch(r"\w+", feature) else f"({feature})"


def preparing(book: Book) -> Listing | None:
    """The function that computes what comes of the parameters alone; None where there is nothing of the kind."""
    if not book.derived:
        return None
    program = book.preparing()
    lowered = lower(program, (), kinds(program, of_params=()))
    return Listing(SimpleNamespace(lowered={"step": lowered}, T=1, dtype=book.dtype, outputs=(), grids={}), "prepare", book)

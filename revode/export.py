"""A solve, and its gradient, as a file in C99 that stands by itself.

    export_c(field, y0, ts, params, method=..., gradient=True, path="star.c")

The programs are those of backend="native" (compiled/), printed in another dialect (compiled/c99.py); around them stand the
loops along the grid, which are below, and a header that says what each argument is.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from . import __version__
from .checks import prepare
from .compiled.c99 import WIDTH, Book, Listing, entry, joined, plain_c, preparing, wrapped
from .compiled.loops import LANES
from .compiled.program import Program, V
from .compiled.replay import given
from .compiled.rules import simplify
from .compiled.steps import DIRECTIONS, StepPrograms, Symbols, behind
from .compiled.tiles import Tiles
from .engine import tree
from .engine.derivatives import vjp_of_own as vjp
from .engine.tensor import Tensor, is_float
from .methods.increment import Evaluator
from .problem import Asked
from .stepping import Problem


def export_c(field: Callable, y0: Any, ts: Any, params: Any = None, *, method: Any = None, path: str | os.PathLike,
             gradient: bool = True, constants: bool = False, save: Any = None, name: str | None = None,
             diffusion: Callable | None = None, noise: Any = None, interpretation: str = "stratonovich",
             control: Any = None) -> tuple[Path, Path]:
    """Write the solve of y' = field(t, y, params) as C99 without dependencies: PATH, and beside it a header.

    Parameters
    ----------
    field, y0, ts, params, method, save : as for solve. The shapes of y0 and params, the grid and what is saved are fixed in the
        file; the values of y0, and of params unless they are constants, are arguments of its functions.
    path : where the file goes, such as "star.c"; the header goes to "star.h".
    gradient : also write NAME_gradient, the reverse sweep in constant memory.
    constants : write the float leaves of params into the file, as its trained parameters.
    name : what the functions' names begin with; by default that of the file.
    diffusion, noise, interpretation, control : as for solve. The increments of each step, dW or dX (N, ...), are an argument of the
        functions: those of this noise, of a new series, or of your own making. (Smooth controls are written into the file.)

    The file has NAME_solve(y0, params, ys, work) and NAME_gradient(y0, params, a_ys, ys, a_y0, a_params, work), which the header
    explains. Compiled without contraction (cc -std=c99 -O2 -ffp-contract=off) they give the bits of solve with
    backend="native", arithmetic="strict" and gradient=Reversible(), but for what NumPy evaluates there: parameters that only appear
    as functions of themselves (exp(k); as constants these too), and the field with which AsynchronousLeapfrog and LeapfrogMidpoint
    start. Those differ by rounding.

    Returns the paths of the two files.

    Raises TypeError or ValueError for what solve would refuse; ValueError for a path without .c, a name that C does not take;
    TypeError for a method that cannot be run backwards, unless gradient=False; NotTraceable for a field that has no program. No
    compiler is needed.

    Cost: a trace; no step is taken. The file has some 100 lines and those of the programs.

    Example
    -------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     files = export_c(lambda t, y, p: -p["k"] * y, np.ones(2), [0.0, 0.5, 1.0], {"k": 1.0}, path=f"{folder}/decay.c")
    ...     [file.name for file in files]
    ['decay.c', 'decay.h']
    """
    path = Path(path)
    name = checked_name(path, name)
    if any(type(x) is Tensor for x in tree.flatten((y0, params))[0]):
        raise TypeError("export_c: y0 or params are tensors inside a gradient; export outside of it")
    problem, initial, params, _ = prepare(Asked(
        field, y0, ts, params, method, save, backend="native", arithmetic="strict", diffusion=diffusion, noise=noise,
        interpretation=interpretation, control=control))
    if not problem.save:
        raise ValueError(f"export_c: save={save!r} keeps nothing that the functions could return; save=[-1] is the end alone")
    file = File(name, path.stem, problem, contiguous(initial), params, gradient, constants)
    path.with_suffix(".h").write_text(file.header(), encoding="utf-8")
    path.write_text(file.source(), encoding="utf-8")
    return path, path.with_suffix(".h")


def checked_name(path: Path, name: str | None) -> str:
    if path.suffix != ".c":
        raise ValueError(f"export_c: path={str(path)!r}; the name of a C file, such as 'star.c', beside which 'star.h' is written")
    name = path.stem.replace("-", "_") if name is None else name
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f"export_c: {name!r} is no name of a function in C; pass name=, letters, digits and _, a letter first")
    return name


def laid_out(params: Any) -> tuple[list, list[int | None], int]:
    """The float leaves with their names; for every leaf where it lies in one row of them, None for the others; its length."""
    leaves = tree.flatten(params)[0]
    named = [(where, x) for where, x in zip(tree.paths(params), leaves, strict=True) if is_float(x)]
    ends = iter(np.cumsum([0, *(np.size(x) for _, x in named)]).tolist())
    places = [next(ends) if is_float(x) else None for x in leaves]
    return named, places, next(ends)


EQUATION = {None: "y' = f(t, y)", "dW": "dy = f(t, y) dt + g(t, y) dW", "dX": "dy = f(t, y) dX"}
CPLUSPLUS = '#ifdef __cplusplus\nextern "C" {\n#endif'
GRADIENT = "; and the gradient of a loss of these, in constant memory: the reverse sweep rebuilds the states."
RULES = ("C99 and <math.h>; arrays are dense, the last axis fastest, and none that is written overlaps another. Nothing is "
         "allocated, and nothing is kept between calls: threads may call at once, each with a work of its own. Compiled so that "
         "every operation rounds by itself (-std=c99 or -ffp-contract=off, and no -ffast-math), the results have the same "
         "bits on every machine. Nothing is checked: a state that overflows goes on as inf or nan.")


def contiguous(initial: Any) -> Any:
    return tree.map(np.ascontiguousarray, initial)


def runner(direction: str, problem: Problem, parts: dict, params: Any, begins: dict) -> Tiles:
    """The loops of one direction, as the native host would have them; without what only the monitor looks at.

    begins : for each part the number of the output that it begins as; None where it has to be computed.
    """
    steps = DIRECTIONS[direction](problem, parts, params, True)
    if any(x is None for x in begins.values()):
        evaluated_start(direction, steps, Symbols(problem, parts, params))
    for name in ("begin", "step", "land", "end"):
        program = getattr(steps, name)
        if program is not None:
            wanted = {role: v for role, v in program.outputs.items() if role[0] not in ("missed", "landed")}
            setattr(steps, name, simplify(Program(program.values, wanted), True))
    found = Tiles(steps, parts, problem.method.outputs, direction, False, strict=True, make=lambda source: None)
    if found.members > 1 or found.source.own_size or any(found.source.widths(part)[1] for part in found.lowered):
        raise ValueError("export_c: parameters, or arrays of the field, with a row for every trajectory are not exported; "
                         "export the solve of one trajectory")
    return found


def evaluated_start(direction: str, steps: StepPrograms, S: Symbols) -> None:
    """Where a method starts with more than copies of y0: parts of its own begin in the program `begin`; going back `end` pulls the
    cotangents of all parts to y0, and to the parameters."""
    method, outputs = S.method, S.method.outputs

    def start(T: dict, params: Any, *ys: Any) -> dict:
        return method.start(Evaluator(S.system, params), S.step(T), ys if len(ys) > 1 else ys[0])

    def begin(T: dict) -> dict:
        parts = start(T, S.params(T), *(T["part", y] for y in outputs))
        return {("part", name): x for name, x in parts.items() if name not in outputs}

    def end(T: dict) -> dict:
        _, pull = vjp(partial(start, T), S.params(T), *(T["part", y] for y in outputs))
        a_params, *a_ys = pull({name: T["cotangent", name] for name in method.parts})
        sums = tree.flatten(a_params)[0]
        return {**{("cotangent", name): a for name, a in zip(outputs, a_ys, strict=True)},
                **{("aparam", i): T["aparam", i] + sums[i] if type(sums[i]) is Tensor else T["aparam", i] for i in S.floats}}

    if direction == "backward":
        last, steps.end = steps.end, S.trace(end, S.of_back())
        if last is not None:                                 # what is pending comes in first
            steps.end = behind(last, {role: v for role, v in last.outputs.items() if isinstance(v, V)}, steps.end)
    elif steps.begin.outputs:
        raise ValueError(f"export_c: {method!r} both starts with a value of the field and carries one from step to step; export "
                         "another method, such as Coupled(base), ReversibleHeun() or EES25()")
    else:
        steps.begin = S.trace(begin, S.examples)


def put_rows(line: str) -> str:
    """The line with the start of a row written out: AT(row, length)."""
    def start(found: re.Match) -> str:
        row, length = found[1], int(found[2])
        if row.isdecimal():
            return f"{int(row) * length} + " if int(row) else ""
        return f"{row if row.isidentifier() else f'({row})'} * {length} + "

    return re.sub(r"AT\(([^,]+), (\d+)\)", start, line)


def broken(line: str) -> list[str]:
    """The line, or where it is long two: what a loop does stands below it."""
    head = re.match(r" *(?:for \([^)]*\) )+", line)
    if head is None or len(line) <= WIDTH - 4:
        return [line]
    return [head[0].rstrip(), " " * (len(line) - len(line.lstrip()) + 2) + line[head.end():]]


class File:
    """The two texts of one export."""

    def __init__(self, name: str, stem: str, problem: Problem, initial: Any, params: Any, gradient: bool, fixed: bool) -> None:
        self.name, self.stem, self.problem, self.gradient, method = name, stem, problem, gradient, problem.method
        if problem.N < 1:
            raise ValueError("export_c: ts has no step; pass two times or more")
        if gradient and not method.reversible:
            raise TypeError(f"export_c: {method!r} cannot be run backwards; pass gradient=False, or a method such as Coupled(base)")
        parts = problem.start(Evaluator(problem.system, params), initial)
        given_as = {id(y): j for j, y in enumerate(initial if isinstance(initial, tuple) else (initial,))}
        begins = {part: given_as.get(id(x)) for part, x in parts.items()}
        self.begins, self.starts = {part: j for part, j in begins.items() if j is not None}, None in begins.values()
        first = next(iter(parts.values()))
        self.real, self.rows = "double" if first.dtype == np.float64 else "float", int(np.prod(first.shape[:-1]))
        self.shape, self.D = first.shape, first.size // max(1, self.rows)
        self.leaves, places, self.size = laid_out(params)
        self.places = {i: at for i, at in enumerate(places) if at is not None}
        runners = {way: runner(way, problem, parts, params, begins) for way in ("forward", "backward")[:1 + gradient]}
        self.T, self.tiles = runners["forward"].T, runners["forward"].tiles
        self.book = Book(places, given(problem, params), first.dtype, fixed, self.T)
        self.ways = {way: Listing(x, way, self.book, problem) for way, x in runners.items()}
        self.prepares = preparing(self.book)
        self.drive = next((role[1] for role in self.ways["forward"].places if role[0] == "drive"), None)
        self.asks = self.size > 0 and not fixed

    # the loops along the grid

    def each(self) -> str:
        return f"for (int k = 0; k < {self.D}; k++)" + (" for (int r = 0; r < T; r++)" if self.T > 1 else "")

    def of(self, way: str, kind: str, part: str) -> str:
        """Entry k (of lane r) of a value that lies in the memory of a direction."""
        offset = self.ways[way].places[kind, part][0]
        return f"{'S' if way == 'forward' else 'B'}[{joined(offset, 'k * T + r' if self.T > 1 else 'k')}]"

    def users(self, array: str, row: str = "", lane: str = "r") -> str:
        """Entry k (of lane r) of an array of the user's."""
        if self.T == 1:
            return f"{array}[{f'AT({row}, {self.D})' if row else ''}k]"
        return f"{array}[{f'AT({row}, {self.rows * self.D})' if row else ''}(row + {lane}) * {self.D} + k]"

    def call(self, way: str, name: str, n: str = "n") -> list[str]:
        listing = self.ways[way]
        return [listing.call(name, "S" if way == "forward" else "B", n)] if name in listing.lowered else []

    @property
    def all_saved(self) -> bool:
        return self.problem.save == tuple(range(self.problem.N + 1))

    def saved(self, n: str, take: list[str], step: str) -> list[str]:
        """Statements that are carried out at the saved grid points; in them `at` is the row."""
        if self.all_saved:
            return [put_rows(line.replace("AT(at,", f"AT({n},")) for line in take]
        there = f"at >= 0 && at < {len(self.problem.save)} && save[at] == {n}"
        return [f"if ({there}) {{", *(f"  {put_rows(x)}" for x in take), f"  at{step};", "}"]

    def forward(self) -> list[str]:
        """From y0 to the end, in S."""
        outputs = self.problem.method.outputs
        lines = [f"{self.each()} {self.of('forward', 'part', part)} = {self.users(self.argument(j), lane=self.last())};"
                 for part, j in self.begins.items()]
        guard = "if (r < R) " if self.T > 1 else ""
        take = [f"{self.each()} {guard}{self.users(self.argument(j, 's'), 'at')} = {self.of('forward', 'part', part)};"
                for j, part in enumerate(outputs)]
        begin = ["/* from y0 to the end */"] if self.all_saved else ["/* from y0 to the end */", "int at = 0;"]
        starts = self.call("forward", "begin", "0")
        return [*begin, *lines, *self.saved("0", take, "++"), *(self.driven("forward", "0") if starts else []), *starts,
                f"for (int n = 0; n < {self.problem.N}; n++) {{",
                *(f"  {x}" for x in self.driven("forward", "n")),
                *(f"  {x}" for x in [*self.call("forward", "step"), *self.saved("n + 1", take, "++")]), "}"]

    def last(self) -> str:
        return "(r < R ? r : R - 1)"

    def driven(self, way: str, n: str) -> list[str]:
        """The increments of step n, where the functions find them."""
        if self.drive is None or ("drive", self.drive) not in self.ways[way].places:
            return []
        (offset, F, kind), memory, lanes = self.ways[way].places["drive", self.drive], "S" if way == "forward" else "B", self.T > 1
        if kind != LANES or not lanes:
            return [put_rows(f"for (int k = 0; k < {F}; k++) {memory}[{joined(offset, 'k')}] = {self.drive}[AT({n}, {F})k];")]
        return [put_rows(f"for (int k = 0; k < {F}; k++) for (int r = 0; r < T; r++) {memory}[{joined(offset, 'k * T + r')}] = "
                         f"{self.drive}[AT({n}, {self.rows * F})(row + {self.last()}) * {F} + k];")]

    def argument(self, j: int, end: str = "0", before: str = "") -> str:
        """The name of an argument: of output j the start y0, the saved states ys."""
        return f"{before}{self.problem.method.outputs[j]}{end}"

    def backward(self) -> list[str]:
        """From the end to y0 and the sums for the parameters, in B."""
        method, N, back = self.problem.method, self.problem.N, self.ways["backward"]
        lines = ["/* back: B begins where S has ended */", f"for (int i = 0; i < {back.persistent}; i++) B[i] = 0;"]
        lines += [f"{self.each()} {self.of('backward', 'part', part)} = {self.of('forward', 'part', part)};" for part in method.parts]
        lines += [f"{self.each()} {self.of('backward', 'known', part)} = {self.users(self.argument(j), lane=self.last())};"
                  for part, j in self.begins.items() if ("known", part) in back.places]
        take = []
        for j, part in enumerate(method.outputs):
            into = self.of("backward", "cotangent", part)
            take.append(f"{self.each()} {into} = {into} + {self.users(self.argument(j, 's', 'a_'), 'at', self.last())};")
        begin = [] if self.all_saved else ["at--;"]
        step, land = self.call("backward", "step"), self.call("backward", "land")
        steps = [f"if (n) {step[0]}", f"else {land[0]}"] if land else step
        y0 = [f"{self.each()} {self.of('backward', 'part', part)} = {self.users(self.argument(j), lane=self.last())};"
              for part, j in self.begins.items() if self.starts]
        starts = self.call("backward", "begin", str(N - 1))
        lines = [*begin, *lines, *self.saved(str(N), take, "--"), *(self.driven("backward", str(N - 1)) if starts else []), *starts,
                 f"for (int n = {N - 1}; n >= 0; n--) {{",
                 *(f"  {x}" for x in [*self.driven("backward", "n"), *steps, *self.saved("n", take, "--")]), "}",
                 *y0, *self.call("backward", "end", "0")]
        guard = "if (r < R) " if self.T > 1 else ""
        lines.append("/* what has arrived */")
        for j in range(len(method.outputs)):
            parts = [method.outputs[j]] if self.starts else [part for part, i in self.begins.items() if i == j]
            flows = " + ".join(self.of("backward", "cotangent", part) for part in parts)
            lines.append(f"{self.each()} {guard}{self.users(self.argument(j, '0', 'a_'))} = {flows};")
        return [*lines, *self.sums()]

    def sums(self) -> list[str]:
        """The gradient of the parameters; over tiles neighbours first, then neighbours of those."""
        into, lines = ("a_params" if self.tiles == 1 else "x"), []
        for i, at in self.places.items():
            offset, F, _ = self.ways["backward"].places["aparam", i]
            lines.append(f"for (int k = 0; k < {F}; k++) {into}[{joined(at, 'k')}] = B[{joined(offset, 'k')}];")
        if self.tiles == 1 or not self.size:
            return lines
        every = f"for (int k = 0; k < {self.size}; k++)"
        return [f"real *x = sums + {self.tiles.bit_length() * self.size};", *lines, "int level = 0;",
                f"for (int m = tile; m & 1; m >>= 1, level++) {every} x[k] = sums[level * {self.size} + k] + x[k];",
                f"{every} sums[level * {self.size} + k] = x[k];"]

    def over_tiles(self) -> list[str]:
        if self.tiles == 1 or not self.size:
            return []
        return ["int first = 1;", f"for (int level = 0; level < {self.tiles.bit_length()}; level++) {{",
                f"  if (({self.tiles} >> level & 1) == 0) continue;",
                f"  for (int k = 0; k < {self.size}; k++) "
                f"a_params[k] = first ? sums[level * {self.size} + k] : sums[level * {self.size} + k] + a_params[k];",
                "  first = 0;", "}"]

    def room(self) -> dict[str, int]:
        """The parts of `work`, and how many numbers each takes."""
        found = {"S": self.ways["forward"].size}
        if self.gradient:
            found["B"] = self.ways["backward"].size
        if self.prepares is not None:
            found["derived"] = self.prepares.size
        if self.gradient and self.tiles > 1:
            found["sums"] = (self.tiles.bit_length() + 1) * self.size
        return found

    def function(self, kind: str) -> list[str]:
        """NAME_solve or NAME_gradient."""
        ways = [*self.forward(), *(self.backward() if kind == "gradient" else [])]
        if self.T > 1:
            ways = [f"for (int tile = 0; tile < {self.tiles}; tile++) {{", "  const int row = tile * T;",
                    f"  const int R = {self.rows} - row < T ? {self.rows} - row : T;", *(f"  {x}" for x in ways), "}"]
        lines, offset = [], 0
        for part, size in self.room().items():
            if kind == "gradient" or part not in ("B", "sums"):
                lines.append(f"real *{part} = work{f' + {offset}' if offset else ''};")
            offset += size
        if self.prepares is not None:
            lines.append(self.prepares.call("step", "derived"))
        ways += self.over_tiles() if kind == "gradient" else []
        return [self.prototype(kind, "restrict "), "{", *(line for x in [*lines, *ways] for line in broken(f"  {x}")), "}"]

    # texts

    def arguments(self, kind: str) -> dict[str, str]:
        """The arguments of a function, and what each is."""
        outputs = range(len(self.problem.method.outputs))
        shape, many = f"{self.shape}", f"({len(self.problem.save)}, {', '.join(map(str, self.shape))})"
        found = {f"const real *{self.argument(j)}": f"{shape}: the state at the start" for j in outputs}
        ys = [self.argument(j, "s") for j in outputs]
        if self.asks:
            found["const real *params"] = f"({self.size},): the parameters, in the order above"
        if self.drive:
            given = self.problem.driver.given(0, *self.problem.ts[:2], self.problem.hs[0], self.problem)[self.drive]
            found[f"const real *{self.drive}"] = f"{(self.problem.N, *given.shape)}: the increments, over each step"
        if kind == "gradient":
            found |= {f"const real *a_{y}": f"{many}: dL/d{y}, of your loss L" for y in ys}
        found |= {f"real *{y}": f"{many}: the saved states, written" for y in ys}
        if kind == "gradient":
            found |= {f"real *{self.argument(j, '0', 'a_')}": f"{shape}: dL/d{self.argument(j)}, written" for j in outputs}
            if self.size:
                found["real *a_params"] = f"({self.size},): dL/dparams, written"
        return found | {"real *work": f"room for {self.name.upper()}_WORK numbers, in any state; it holds nothing between calls"}

    def prototype(self, kind: str, restrict: str = "") -> str:
        given = [self.plain(x).replace("*", f"*{restrict}").replace(" ", "~") for x in self.arguments(kind)]
        text = f"void {self.name}_{kind}(" + ", ".join(given) + ")"
        return "\n    ".join(wrap(text, WIDTH - 4, break_long_words=False)).replace("~", " ")

    def header(self) -> str:
        problem, guard, kinds = self.problem, f"{self.name.upper()}_H", ("solve", "gradient")[:1 + self.gradient]
        ts, upper = problem.ts, self.name.upper()
        about = [f"{self.name}: the solution of {EQUATION[self.drive]} by {problem.method!r}, in {problem.N} steps "
                 f"from t = {float(ts[0]):.6g} to {float(ts[-1]):.6g}, of which {len(problem.save)} grid points are saved"
                 + (GRADIENT if self.gradient else "."),
                 f"Written by revode {__version__} from the field {field_name(problem.system.field)!r}. {RULES}"]
        if self.size:
            about.append(f"params: {self.size} numbers" + (", constants of this file:" if not self.asks else ":"))
        rows = [f"  {self.places_of(k):12} {where} {np.shape(x)}" for k, (where, x) in enumerate(self.leaves)]
        lines = [f"/* {self.stem}.h", "", *(x for text in about for x in [*wrap(text, WIDTH - 4), ""]), *rows, "*/"]
        texts = ["\n".join(x if n == 0 or x == "*/" else f"   {x}".rstrip() for n, x in enumerate(lines)),
                 f"#ifndef {guard}\n#define {guard}", CPLUSPLUS,
                 f"enum {{ {upper}_WORK = {sum(self.room().values())} }};"]
        for kind in kinds:
            what = {"solve": "The solution at the saved grid points.",
                    "gradient": "The same, and the gradient of a loss, from its derivatives at the saved states."}[kind]
            rows = [f"   {x.split('*')[-1]:10} {meant}" for x, meant in self.arguments(kind).items()]
            texts.append("\n".join([f"/* {what}", *rows, "*/", self.prototype(kind) + ";"]))
        return self.plain("\n\n".join([*texts, "#ifdef __cplusplus\n}\n#endif", "#endif"]) + "\n")

    def places_of(self, k: int) -> str:
        at = list(self.places.values())[k]
        return f"{at}..{at + np.size(self.leaves[k][1]) - 1}"

    def times(self) -> list[str]:
        """time_at(n): as np.linspace makes it, where these are the bits of the grid; else a table."""
        ts, N = np.asarray(self.problem.ts, np.float64), self.problem.N
        t0, t1 = float(ts[0]), float(ts[-1])
        if not any("time_at(" in x and "/*" not in x for way in self.ways.values() for x in way.text.splitlines()):
            return []
        if np.array_equal(ts, np.linspace(t0, t1, N + 1)):
            step = (t1 - t0) / N
            body = [f"  return n == {N} ? {t1!r} : n * {step!r} + {t0!r};"] if t0 else [f"  return n == {N} ? {t1!r} : n * {step!r};"]
            return ["/* the grid */", "static double time_at(int n)", "{", *body, "}", ""]
        return ["/* the grid */", f"static const double times[{N + 1}] = {{", *wrapped([repr(float(t)) for t in ts]), "};",
                "static double time_at(int n) { return times[n]; }", ""]

    def constants(self) -> list[str]:
        """The parameters as a table, leaf by leaf."""
        if self.asks or not self.size:
            return []
        lines = [f"static const real trained[{self.size}] = {{"]
        for where, x in self.leaves:
            lines += [f"  /* {where} {np.shape(x)} */", *wrapped([entry(float(v)) for v in np.ravel(x)])]
        return [*lines, "};", ""]

    def source(self) -> str:
        table = [f"static const int save[{len(self.problem.save)}] = {{", *wrapped([str(n) for n in self.problem.save]), "};", ""]
        own = [*([self.prepares.text] if self.prepares is not None else []), *(self.listed(way) for way in self.ways.values())]
        functions = "\n\n".join("\n".join(self.function(kind)) for kind in ("solve", "gradient")[:1 + self.gradient])
        text = "\n".join([f"/* {self.stem}.c: see {self.stem}.h */", f'#include "{self.stem}.h"', "", "#include <math.h>", "",
                          "#ifdef __clang__", "#pragma STDC FP_CONTRACT OFF", "#endif", "", *self.constants(), *self.times(),
                          *([] if self.all_saved else table), self.book.text(own), functions, ""])
        return self.plain(text)

    def listed(self, way: Listing) -> str:
        return "\n   ".join([f"/* {way.direction.capitalize()}. In S:", *way.map_of_memory()]) + " */\n" + way.text

    def plain(self, text: str) -> str:
        return plain_c(text, self.real)


def field_name(field: Any) -> str:
    return getattr(field, "__qualname__", None) or type(field).__qualname__

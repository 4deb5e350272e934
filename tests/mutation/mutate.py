"""Change one sign, factor or comparison of the package at a time, on a copy, and demand that the tests notice.

    python -m tests.mutation.mutate                  a seeded sample
    python -m tests.mutation.mutate --all            everything (hours on one core); survivors are printed as they come
    python -m tests.mutation.mutate --all --part 1/8 every eighth, for as many processes
    python -m tests.mutation.mutate --file methods/coupled.py [--list]

Each changed copy is imported in a forked child (so NumPy and the oracles are loaded once) and meets the battery of quick.py;
what that does not notice meets the unit, property and conformance tests. A changed copy that hangs counts as noticed.
Changes that make no difference are listed in equivalent.py, each with its reason. Needs os.fork.
"""
from __future__ import annotations

import argparse
import ast
import compileall
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")      # threads do not survive a fork
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[2]
FILES = ["engine/primitives.py", "engine/functions.py", "engine/tensor.py", "engine/derivatives.py", "engine/checking.py",
         "engine/arraylike.py", "methods/*.py", "gradients/*.py", "engines/*.py", *(f"compiled/{name}.py" for name in (
             "program", "steps", "rules", "sums", "replay", "lines", "loops", "lower", "place", "generate", "tiles"))]
ENGINE_TESTS = ["tests/unit/test_engine.py", "tests/unit/test_numpy_functions.py", "tests/unit/test_errors_engine.py",
                "tests/unit/test_tree.py", "tests/unit/test_numpy_values.py", "tests/unit/test_jvp.py",
                "tests/unit/test_functions_in_loops.py", "tests/property/test_engine_properties.py"]
SUITES = {"engine": ENGINE_TESTS,
          "methods": ["tests/conformance/test_methods.py", "tests/unit/test_shears.py", "tests/unit/test_gradients.py",
                      "tests/unit/test_ees.py", "tests/unit/test_errors_solve.py"],
          "gradients": ["tests/unit/test_checkpointing.py", "tests/unit/test_checkpointing_online.py",
                        "tests/unit/test_gradients.py", "tests/unit/test_solve.py", "tests/unit/test_ees.py",
                        "tests/unit/test_errors_solve.py", "tests/unit/test_roundtrip.py", "tests/unit/test_watch.py"]}
SUITES |= {"engines": SUITES["gradients"],
           "compiled": ["tests/unit/test_program.py", "tests/unit/test_replay.py", "tests/unit/test_functions_in_loops.py",
                        "tests/unit/test_called.py", "tests/unit/test_native.py"]}
LIMIT = {"battery": 90, "suite": 180}                   # seconds; a compiler may be at work in them

OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.Mod: ast.Mult,
             ast.FloorDiv: ast.Mult}
COMPARISONS = {ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
               ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}

TIMES = {"t0": "t1", "t1": "t0"}


class Mutant(NamedTuple):
    """file and number say where; change says what, and which of several equal ones on that line; index counts in the file."""
    file: str
    number: int
    line: str
    change: str
    index: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.line, self.change


def places(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute something: no docstrings, annotations, decorators, messages and reprs."""
    if isinstance(tree, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    if isinstance(tree, ast.keyword) and tree.arg == "strict":       # zip's own check that nothing is left over
        return
    if isinstance(tree, ast.FunctionDef) and tree.name in ("__repr__", "__post_init__", "complain"):
        return
    yield tree
    skipped = {"annotation", "returns", "decorator_list"}
    for name, value in ast.iter_fields(tree):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in skipped:
                yield from places(child)


def swaps(node: ast.AST) -> Iterator[tuple[str, str, object]]:
    """(field of the node, what changes, the new value of that field) for every change of this node."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        new = OPERATORS[type(node.op)]
        yield "op", f"{type(node.op).__name__} -> {new.__name__}", new()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        new = COMPARISONS[type(node.ops[0])]
        yield "ops", f"{type(node.ops[0]).__name__} -> {new.__name__}", [new(), *node.ops[1:]]
    elif isinstance(node, ast.BoolOp):
        new = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield "op", f"{type(node.op).__name__} -> {new.__name__}", new()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield "op", f"{type(node.op).__name__} dropped", ast.UAdd() if isinstance(node.op, ast.USub) else "drop"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        new = node.value + 1 if type(node.value) is int else node.value / 2 or 1.0
        yield "value", f"{node.value!r} -> {new!r}", new
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "value", f"{node.value} -> {not node.value}", not node.value
    elif isinstance(node, ast.Name) and node.id in TIMES and isinstance(node.ctx, ast.Load):
        yield "id", f"{node.id} -> {TIMES[node.id]}", TIMES[node.id]
    elif isinstance(node, ast.Call):
        for k in node.keywords:
            if k.arg in ("scale", "about"):
                yield "keywords", f"{k.arg}= dropped", [other for other in node.keywords if other is not k]


def changes(tree: ast.AST) -> Iterator[tuple[ast.AST, str, str, object]]:
    # reshape takes any negative length as the one that remains
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "reshape"]
    lengths = [n for call in calls for x in call.args for n in (x.elts if isinstance(x, ast.Tuple) else [x])]
    remaining = {id(n.operand) for n in lengths if isinstance(n, ast.UnaryOp)}
    for node in places(tree):
        if id(node) in remaining:
            continue
        for field, what, new in swaps(node):
            yield node, field, what, new


def mutants_of(path: Path, base: Path) -> list[Mutant]:
    """Every change of one file, in the order of the text."""
    text = path.read_text()
    lines = text.splitlines()
    name = str(path.relative_to(base))
    found: list[Mutant] = []
    seen: dict[tuple, int] = {}
    for index, (node, _, what, _) in enumerate(changes(ast.parse(text))):
        line = lines[node.lineno - 1].strip()
        seen[line, what] = count = seen.get((line, what), 0) + 1
        found.append(Mutant(name, node.lineno, line, what if count == 1 else f"{what} (#{count})", index))
    return found


def changed(text: str, mutant: Mutant) -> str:
    """The text of the file with this one change (and without its comments)."""
    tree = ast.parse(text)
    node, field, _, new = next(islice(changes(tree), mutant.index, None))
    if new == "drop":                              # `not x` becomes `not not x`
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    else:
        setattr(node, field, new)
    return ast.unparse(ast.fix_missing_locations(tree))


def all_mutants(base: Path, patterns: list[str] | None = None) -> list[Mutant]:
    paths = sorted({path for pattern in patterns or FILES for path in base.glob(pattern)})
    return [m for path in paths for m in mutants_of(path, base)]


def forget() -> None:
    """Drop what was imported of the package and of the tests that use it, so that both come again from the changed copy."""
    tests = str(ROOT / "tests")
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        if name.split(".")[0] in ("revode", "revode_cuda") or (path.startswith(tests) and not name.startswith("tests.mutation")):
            del sys.modules[name]


def child(folder: str, stage: str, room: str, oracle: dict, log: str) -> None:
    """In the forked process: meet the tests with the changed package, and leave by the exit status."""
    signal.alarm(LIMIT[stage])
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = sys.stderr = open(1, "w", closefd=False)          # whatever captures them in this process
    status = 1
    try:
        forget()
        sys.path.insert(0, folder)
        import revode
        assert revode.__file__.startswith(folder), revode.__file__
        if stage == "battery":
            from tests.mutation.quick import battery
            battery(oracle, room)
            status = 0
        else:
            import pytest
            from _pytest.config import parse_warning_filter
            parse_warning_filter.cache_clear()             # it remembers the classes of the package that was forgotten
            quiet = "-x", "-q", "-p", "no:cacheprovider", "--no-header"
            status = int(pytest.main([*quiet, "-m", "", "-k", "not million", *SUITES[room]]))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        os._exit(status)


def noticed(folder: str, stage: str, room: str, oracle: dict) -> str:
    """'' if the tests pass, else the last line that they printed."""
    log = f"{folder}/log"
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)        # of forking beside threads: the child needs none of them
        process = os.fork()
    if process == 0:
        child(folder, stage, room, oracle, log)
    _, status = os.waitpid(process, 0)
    if status == 0:
        return ""
    with open(log, errors="replace") as file:
        text = [line.strip() for line in file if line.strip()]
    return text[-1] if text else f"stopped by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "failed"


def run(mutants: list[Mutant], oracle: dict, suite: bool = True, progress: bool = False) -> list[tuple[Mutant, str]]:
    """[(mutant, what noticed it; '' for a survivor)]. Each runs on the same copy of the package, which is put right again."""
    sys.dont_write_bytecode = True
    results = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "revode"
        shutil.copytree(ROOT / "revode", base, ignore=shutil.ignore_patterns("__pycache__"))
        # A child compiles the file that was changed; of the others it finds the bytecode, told by a hash of the source.
        compileall.compile_dir(base, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        unchanged: dict[tuple[str, str], str] = {}

        def meet(stage: str, mutant: Mutant) -> str:
            room = mutant.file.split("/")[0]
            same = stage, "methods" if stage == "battery" and room in ("gradients", "engines") else room       # one battery for three
            if same not in unchanged:
                unchanged[same] = noticed(folder, stage, room, oracle)
            if unchanged[same]:
                raise RuntimeError(f"the {stage} of {room} fails on the unchanged package: {unchanged[same]}")
            path = base / mutant.file
            original = path.read_text()
            path.write_text(changed(original, mutant))
            by = noticed(folder, stage, room, oracle)
            path.write_text(original)
            return by

        for i, mutant in enumerate(mutants):
            by = meet("battery", mutant) or (meet("suite", mutant) if suite else "")
            results.append((mutant, by))
            if progress and not by:
                print(f"\r  revode/{mutant.file}:{mutant.number}  {mutant.change:24} {mutant.line}", flush=True)
            if progress:
                left = sum(not by for _, by in results)
                print(f"\r{i + 1}/{len(mutants)}  survivors {left}  {time.perf_counter() - start:.0f} s ", end="", flush=True)
    if progress:
        print()
    return results


def part(text: str) -> tuple[int, int]:
    """(2, 8) of "2/8"; argparse says what is wrong with anything else."""
    k, n = map(int, text.split("/"))
    if not 1 <= k <= n:
        raise ValueError(text)
    return k, n


def main() -> int:
    from tests.mutation.equivalent import EQUIVALENT
    from tests.mutation.quick import prepare
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="every change (default: a sample of 20)")
    parser.add_argument("--part", type=part, default=(1, 1), metavar="K/N", help="the K-th of N parts")
    parser.add_argument("--file", action="append", help="only this file, as in methods/coupled.py")
    parser.add_argument("--list", action="store_true", help="print the changes and stop")
    parser.add_argument("--battery-only", action="store_true", help="do not show survivors of the battery to the test suite")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    mutants = all_mutants(ROOT / "revode", chosen.file)
    known = {m.key for m in mutants}
    stale = [] if chosen.file else [key for key in EQUIVALENT if key not in known]
    mutants = [m for m in mutants if m.key not in EQUIVALENT]
    if not chosen.all and not chosen.file:
        mutants = random.Random(chosen.seed).sample(mutants, 20)
    mutants = mutants[chosen.part[0] - 1::chosen.part[1]]
    if chosen.list:
        for m in mutants:
            print(f"{m.file}:{m.number}  {m.change:24} {m.line}")
        return 0
    results = run(mutants, prepare(), suite=not chosen.battery_only, progress=True)
    survivors = [m for m, by in results if not by]
    print(f"{len(results)} changes, {len(results) - len(survivors)} noticed, {len(survivors)} survived; "
          f"{len(EQUIVALENT)} listed as equivalent, {len(stale)} of them stale")
    for key in stale:
        print("  stale:", *key)
    return len(survivors)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main() and 1)

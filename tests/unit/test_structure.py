"""The rooms of the house: who imports whom, how long they are, what import revode costs, what the public names
promise."""
from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import revode as rv

ROOT = Path(rv.__file__).parent
HOUSE = ROOT.parent
# From the ground up; a room may import rooms below it and itself. Files of one name stand for rooms.
ORDER = """
engine jacobians archive conditions beside methods stiffness
watch
stepping
memory times exact engines march paths adaptive driving tangent certify
gradients finite
compiled
ranks
problem checks advise
solve export events
layers nn optim parallel analysis equilibrium plotting
interop
conformance
experiments
__init__ __main__
""".split()
# Lines of code without docstrings, comments and blank lines; about 15 % above what they were when this was written.
# Raise a number only with the reason in the commit. The core together: what can be read in an afternoon.
# compiled: a program, its replay, C from it, elementary functions, the native host; one file each. stepping: it leaps with a
# compiled backend. analysis: it prints programs.
# optim: schedules, clipping, masks and minibatches, a few lines each.
# archive: a Solution with its state and method, and files that are whole or not there.
# engine: the tape, the table, and (in files of their own, to look things up in) the functions of NumPy that people reach for:
# least squares, insert, gradients along axes, quantiles beside NaN, what is applied along an axis came last.
BUDGET = {
    "engine": 2600,
    "beside": 125,                   # which operation has other bits on the tape, and in which line
    "jacobians": 65,
    "archive": 100,
    "conditions": 95,                # the weights of an error estimate solve some of them
    "methods": 900,                  # protocol, words of iterations
    "gradients": 580,                # a file each; the symplectic adjoint, and the gradient in the times, are the newest
    "stepping": 210,                 # grids that are kept from solve to solve; what a march has shown, kept for its sweep
    "exact": 340,                    # how large numbers have been, and what is said where they are too large
    "tangent": 95,                   # on the tape, and by programs, of every equation; along the grid too
    "certify": 120,
    "engines": 186,                  # how much of what it shows is held
    "march": 155,                    # what is kept, one window of neighbours at a time, who hears of steps that it chose
    "stiffness": 60,
    "events": 110,
    "watch": 972,                    # by leaf of params and y0, cotangents that die at rest, steps beyond stability: 200; what is
                                     # enough to tell that all is quiet, for a gradient that takes less than a millisecond: 140;
                                     # bounds that others have measured, on a device: 15; y0 by leaf and what fades, of many
                                     # entries: 7; gaps in a crowd: 20
    "times": 90,                     # tensors among them, stops, what lies between, on any device
    "finite": 89,
    "memory": 55,
    "compiled": 6066,                # the search for an adaptive grid; C99 in words of its own; auto; quiet sweeps, calls made again;
                                     # values side by side and loops unrolled, for a thread of a GPU; both directions compiled at once;
                                     # a warm solve called, without a march and a watch between its two sweeps: 120; told in lanes: 8;
                                     # noise: words by AVX2's own product, tails together: 43;
                                     # the stretches between checkpoints planned, and walked in C: 131;
                                     # what a called sweep leaves behind is measured where it lies: 40; its arguments as one array: 7;
                                     # what a step reads by its number, a step ahead: 14; loops that are alike, once: 29;
                                     # Ctrl-C, forks and threads while it compiles, and a full disk: 19;
                                     # a first gradient traces, looks up, links, compiles and compares less: 29
    "export": 325,                   # noise and controls, methods that start with an evaluation
    "interop": 287,                  # a batch under vmap, once it has been seen that it may be one; times; options without a gradient
    "problem": 70,
    "checks": 850,                   # a file for each kind of thing that is given, with its imports; kinds that have passed
    "solve": 190,                    # what a Solution says of itself; a solve as one node of the tape
    "adaptive": 260,                 # the search for a grid, apart from who attempts a step
    "driving": 100,
    "paths": 467,                    # series with times of their own, windows of a path; rounds of Philox in place: 7
    "advise": 320,
    "analysis": 155,
    "nn": 110,
    "layers": 380,                  # attention, layer norm, gelu, cross entropy, each with a pullback that is a row
    "equilibrium": 760,             # fixed points: their own checks and words, three methods, two gradients
    "optim": 130,                    # whose state it is
    "ranks": 130,                    # messages, of device arrays too, and one answer of all ranks, or one error
    "parallel": 193,                 # the tree of sums, gradients, gathered solves and whether their field bears it (13), map
    "plotting": 120,                 # one style for slides; grids of methods and steps; a description in every file
    "conformance": 1250,             # two thirds of it tables: every method as text, and its faults
    # seventeen commands, one file each with its data and its training loop, on any backend; seeds, checkpoints, ranks of mpiexec
    "experiments": 2900,
}
# DESIGN section 2 names these four, and 2,000 lines. What is looked up and not read through is not counted: the functions of NumPy,
# what an array says of itself, what a tensor refuses and says, arrays that change behind a tape, trees of any container, the
# checker, tables of coefficients. Above 2,000 are gradients in times (100), Automatic (40), a solve as one node, leaf by leaf (30),
# and what a sweep with checkpoints does as a list of moves, which compiled code walks as well (12).
CORE, CORE_BUDGET = ("engine", "methods", "gradients", "solve"), 2242
LOOKED_UP = {"engine": ("functions", "arrays", "linalg", "spectrum", "tangents", "arraylike", "refusals", "kept", "checking", "tree"),
             "methods": ("tableaux",)}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(what is imported: 'numpy' or 'revode.engine.tree', whether at the top level of the module)."""
    package = ("revode", *path.relative_to(ROOT).parts[:-1])
    tree = parsed(path)
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[:len(package) - node.level + 1], *([node.module] if node.module else [])]) \
                if node.level else str(node.module)
            # `from . import tree` names modules (or what __init__ offers), `from .tree import map` names a module
            found += [(f"{base}.{alias.name}" if not node.module else base, id(node) in top) for alias in node.names]
    return found


def upward_imports(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        room = room_of(path)
        assert room in ORDER, f"{path.name}: a new room {room!r}; give it its place in ORDER"
        for name, _ in imports(path):
            if name.split(".")[0] == "revode" and name != "revode.__version__":       # a number, and no room
                other = name.split(".")[1] if "." in name else "__init__"
                other = other if other in ORDER else "__init__"        # a public name, as in `from revode import solve`
                if ORDER.index(other) > ORDER.index(room):
                    found.append(f"{path.relative_to(root)} imports {name}, which is above it")
    return found


def test_no_room_calls_upwards() -> None:
    assert upward_imports(ROOT) == []


def test_upward_imports_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "engine"
    room.mkdir()
    text = "import numpy\nfrom ..solve import solve\nfrom .. import methods\nfrom . import tree\n"
    (room / "bad.py").write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    names = [name for name, _ in imports(room / "bad.py")]
    assert names == ["numpy", "revode.solve", "revode.methods", "revode.engine.tree"]
    assert upward_imports(tmp_path) == ["engine/bad.py imports revode.solve, which is above it",
                                        "engine/bad.py imports revode.methods, which is above it"]


def circle(edges: dict[str, set[str]]) -> list[str] | None:
    """Modules that import each other in a ring, as they are loaded; None without one."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def loaded_by(root: Path) -> dict[str, set[str]]:
    """The modules that each module imports at its top level."""
    edges: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        name = ".".join(("revode", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        edges[name] = {other for other, top in imports(path) if top and other.split(".")[0] == "revode"}
    return edges


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert circle(loaded_by(ROOT)) is None


def private_imports(root: Path) -> list[str]:
    """`from room import _name` of another room's name, or of another package's."""
    found = []
    for path in sorted(root.rglob("*.py")):
        of_a_room = len(path.relative_to(root).parts) > 1
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and not (of_a_room and node.level == 1):
                found += [f"{path.relative_to(root).as_posix()}: {alias.name}" for alias in node.names
                          if alias.name.startswith("_") and not alias.name.endswith("__")]
    return found


def test_no_private_name_crosses_a_wall() -> None:
    assert private_imports(ROOT) + private_imports(HOUSE / "revode_cuda") == []


def test_circles_and_private_names_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "revode" / "engine"
    room.mkdir(parents=True)
    (room / "one.py").write_text("from .two import f\nfrom ..solve import _hidden\nfrom .two import _ours\n")
    (room / "two.py").write_text("from .one import g\n\ndef f():\n    from .one import g\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "revode")
    edges = loaded_by(tmp_path / "revode")
    assert edges["revode.engine.one"] == {"revode.engine.two", "revode.solve"}
    assert set(circle(edges) or ()) == {"revode.engine.one", "revode.engine.two"}
    assert private_imports(tmp_path / "revode") == ["engine/one.py: _hidden"]


def test_the_engine_imports_nothing_of_the_project_and_methods_no_array_library() -> None:
    for path in files():
        names = {name for name, _ in imports(path)}
        if room_of(path) == "engine":
            assert all(name.startswith("revode.engine") for name in names if name.startswith("revode")), path.name
            assert {n.split(".")[0] for n in names} <= {"revode", "numpy", *sys.stdlib_module_names}, path.name
        if room_of(path) == "methods":
            assert {n.split(".")[0] for n in names} <= {"revode", *sys.stdlib_module_names}, path.name


FOR = {"interop/torch.py": {"torch"}, "interop/jax.py": {"jax"}}        # modules that are for users of another library


def test_only_numpy_at_the_top_of_a_module() -> None:
    """Everything else (matplotlib, SciPy, CuPy, tqdm) is imported inside the function that uses it."""
    for path in files():
        outside = {name.split(".")[0] for name, top in imports(path) if top}
        outside -= {"revode", "numpy", *sys.stdlib_module_names} | FOR.get(path.relative_to(ROOT).as_posix(), set())
        assert not outside, f"{path.name} imports {outside} at the top"


@cache
def lines_of_code(path: Path) -> int:
    """Lines that hold code: neither blank, nor comment, nor docstring."""
    text = path.read_text()
    code = {n for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.strip().startswith("#")}
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            quoted = node.body[0]
            code -= set(range(quoted.lineno, quoted.end_lineno + 1))
    return len(code)


def test_lines_of_code_counts_code(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text('"""A module.\n\nTwo lines.\n"""\n\n# a comment\nx = 1   # counted\n\ndef f():\n'
                    '    """Doc."""\n    return x\n')
    assert lines_of_code(file) == 3


@cache
def sizes() -> dict[str, int]:
    found: dict[str, int] = {}
    for path in files():
        found[room_of(path)] = found.get(room_of(path), 0) + lines_of_code(path)
    return found


@pytest.mark.parametrize("room", BUDGET)
def test_a_room_keeps_to_its_budget(room: str) -> None:
    used = sizes().get(room, 0)
    allowed = BUDGET[room]
    assert used <= allowed, f"{room}: {used} lines of {allowed}; make it shorter, or raise the number with a reason"


def test_the_core_can_be_read_in_an_afternoon() -> None:
    used = {room: sizes().get(room, 0) for room in CORE}
    for room, names in LOOKED_UP.items():
        used[room] -= sum(lines_of_code(ROOT / room / f"{name}.py") for name in names)
    assert sum(used.values()) <= CORE_BUDGET, used


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def modules_after(code: str) -> set[str]:
    """What is loaded besides what NumPy loads itself."""
    whole = f"import sys, numpy; before = set(sys.modules); {code}; print(set(sys.modules) - before)"
    return set(ast.literal_eval(run_python(whole)))


def test_import_needs_numpy_alone() -> None:
    """Also where every public name has been asked for."""
    loaded = {name.split(".")[0] for name in modules_after("import revode; [getattr(revode, name) for name in revode.__all__]")}
    assert "revode" in loaded
    assert loaded - {"revode", "numpy"} <= set(sys.stdlib_module_names), loaded
    assert not {"scipy", "matplotlib", "cupy", "tqdm", "autograd"} & loaded


def test_import_loads_next_to_nothing() -> None:
    """Nothing of the package before it is asked for (python -m reference.benchmarks.imports measures the time)."""
    assert modules_after("import revode") <= {"revode", "__future__"}


# What a script that solves on the tape and takes a gradient does without.
NOT_NEEDED = {"ctypes", "concurrent.futures", "hashlib", "subprocess", "multiprocessing", "unittest", "argparse", "json",
              "revode.compiled.native", "revode.compiled.generate", "revode.compiled.elementary", "revode.nn", "revode.optim",
              "revode.analysis", "revode.experiments", "revode.plotting", "revode.advise"}


def test_a_first_solve_loads_what_it_uses() -> None:
    code = ("import revode; ts = numpy.linspace(0.0, 0.1, 3); "
            "revode.grad(lambda y: revode.solve(lambda t, y, p: -y, y, ts).y1.sum())(numpy.ones(2))")
    loaded = modules_after(code)
    assert not NOT_NEEDED & loaded, NOT_NEEDED & loaded


def test_public_names_are_said_once_for_types_and_once_for_python() -> None:
    import_lines = next(node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If))
    typed: dict[str, str] = {}
    for node in import_lines.body:
        assert isinstance(node, ast.ImportFrom)
        typed |= {alias.name: node.module or alias.name for alias in node.names}
    modules = {name for name, place in typed.items() if place == name and name not in rv.HOME}
    assert {name: place for name, place in typed.items() if name not in modules} == rv.HOME
    assert set(typed) == set(rv.__all__)


def test_a_name_of_a_function_and_of_its_module_is_the_function() -> None:
    code = ("import revode.solve, revode.advise, revode.checks; import revode as rv; "
            "print(type(rv.solve).__name__, type(rv.advise).__name__)")
    assert run_python(code) == "function function"


MOST = 20


def complex_functions(root: Path) -> dict[str, int]:
    """The cyclomatic complexity of functions above MOST, by file and name."""
    visit = pytest.importorskip("radon.complexity").cc_visit
    found = {}
    for path in sorted(root.rglob("*.py")):
        for block in visit(path.read_text(encoding="utf-8")):
            if block.complexity > MOST and block.letter != "C":          # a class is as complex as its methods
                found[f"{path.relative_to(root.parent).as_posix()} {getattr(block, 'fullname', block.name)}"] = block.complexity
    return found


def test_functions_are_simple() -> None:
    found = complex_functions(ROOT) | complex_functions(HOUSE / "revode_cuda")
    assert not found, f"more than {MOST} ways through a function; take it apart, or write it as a table: {found}"


def test_complex_functions_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "bad.py").write_text("def f(x):\n" + "".join(f"    if x == {n}:\n        return {n}\n" for n in range(20)))
    assert complex_functions(tmp_path / "room") == {"room/bad.py f": 21}


PUBLIC = [  # DESIGN section 4, and what its text names
    "solve", "steps", "steps_back", "Solution", "State", "Stats", "RoundTrip", "ReconstructionWarning",
    "ReconstructionError",
    "Coupled", "AsynchronousLeapfrog", "ReversibleHeun", "LeapfrogMidpoint", "SemiImplicitEuler", "VelocityVerlet",
    "Composition", "RungeKutta", "Tableau", "Shear", "Swap", "shears",
    "Direct", "Checkpointed", "Reversible", "Backsolve",
    "value_and_grad", "grad", "vjp", "check_vjp", "custom_vjp", "jacobian", "hessian", "hvp", "save", "load", "Tensor",
]


def test_public_names_exist() -> None:
    assert [name for name in PUBLIC if not hasattr(rv, name)] == []
    assert re.fullmatch(r"\d+\.\d+\.\d+", rv.__version__)


def test_every_public_name_says_what_it_is() -> None:
    """A docstring of its own (dataclasses and named tuples get one made up otherwise), with parameters named."""
    for name in PUBLIC:
        thing = getattr(rv, name)
        doc = thing.__doc__ or ""
        assert len(doc) > 15 and not doc.startswith(f"{name}("), name
    for name in ("solve", "steps_back", "vjp", "value_and_grad", "custom_vjp", "check_vjp", "shears"):
        thing = getattr(rv, name)
        missing = [p for p in inspect.signature(thing).parameters if p not in thing.__doc__]
        assert not missing, f"{name}: {missing} are not explained"


MODULES = sorted({".".join(("revode", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
                  for path in files() if path.name != "__main__.py"})


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    for library in FOR.get("/".join(module.split(".")[1:]) + ".py", ()):
        pytest.importorskip(library, reason=f"{library} is not installed, for which {module} is")
    found = importlib.import_module(module)
    result = doctest.testmod(found, verbose=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", ["solve", "steps", "steps_back", "grad", "value_and_grad", "vjp", "custom_vjp",
                                  "jacobian", "hessian", "hvp", "check_vjp", "save", "load", "shears"])
def test_public_functions_have_an_example(name: str) -> None:
    """STYLE 4: an Example that is executed."""
    assert ">>>" in (getattr(rv, name).__doc__ or ""), name


# Written in two halves, so that this file does not contain what it forbids.
MACHINE = [r"/" + r"work/", r"/" + r"home/", r"/" + r"tmp/", r"/" + r"root\b", r"/" + r"Users/", r"local" + r"host",
           r"\b\d+\.\d+\.\d+\.\d+:\d+", r"arti" + r"factory", r"index" + r"-url"]


def test_names_of_test_files_are_given_once() -> None:
    """Folders of tests are no packages: pytest takes two files of one name for one module."""
    names = [path.name for path in (ROOT.parent / "tests").rglob("test_*.py")]
    assert len(names) > 50 and sorted(names) == sorted(set(names))


def test_no_machine_is_named() -> None:
    """No path or host of the machine that a file was written on, in anything that is shipped or read."""
    environments = {p.parent for p in HOUSE.glob("*/pyvenv.cfg")}            # somebody's own, in the clone
    texts = [p for p in HOUSE.rglob("*") if environments.isdisjoint(p.parents)
             and p.suffix in (".py", ".md", ".toml", ".cff", ".txt", ".yml", ".yaml", ".sh")
             and not any(part.startswith(".") or part.endswith(".egg-info") or part in ("build", "node_modules")
                         for part in p.relative_to(HOUSE).parts)]
    assert len(texts) > 20
    found = [f"{p.relative_to(HOUSE)}:{n}: {line.strip()[:80]}" for p in texts
             for n, line in enumerate(p.read_text(errors="replace").splitlines(), 1)
             if any(re.search(pattern, line) for pattern in MACHINE)]
    assert not found, "\n".join(found)

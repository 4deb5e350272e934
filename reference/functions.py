"""Which functions of NumPy run where: each is tried in the field of a solve, on every engine, and the table is written.

    python -m reference.functions                    print the table
    python -m reference.functions --write            put it into docs/numpy.md
    python -m reference.functions --only exp solve   try these alone

A function is tried by the shortest expression of reference/idioms.py that calls it, which becomes part of a field of one
trajectory: the state holds its arguments. `tape`: value and gradient of a solve. `replay`, `native`: the engine that was
asked for ran, to the same gradient. `CUDA`: the text of the kernels, forward and backward, can be made (no GPU is needed).
"""
from __future__ import annotations

import argparse
import ast
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import revode as rv

from . import idioms

PAGE = Path(__file__).resolve().parents[1] / "docs" / "numpy.md"
BEGIN, END = "<!-- functions: begin -->", "<!-- functions: end -->"
ENGINES = ("tape", "replay", "native", "CUDA")
MODULES = {"np": "", "L": "linalg.", "F": "fft."}
METHOD = rv.ReversibleHeun()
TS = np.linspace(0.0, 0.01, 4)


def called(expression: str) -> list[str]:
    """The functions of NumPy that an expression calls: exp, linalg.solve, add.reduce."""
    found = []
    for node in ast.walk(ast.parse(expression, mode="eval")):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        module, _, rest = name.partition(".")
        if module in MODULES and re.fullmatch(r"[\w.]+", rest) and not rest.startswith(("lib", "random", "polynomial")):
            found.append(MODULES[module] + rest)
    return found


# They see no tensor.
PLAIN = {"arange", "ones", "zeros", "eye", "tri", "ix_", "triu_indices", "diag_indices", "broadcast_shapes", "iterable",
         "fft.fftfreq", "result_type", "int64", "float64", "asarray", "array"}


def functions() -> dict[str, tuple[str, str]]:
    """Function -> (its group, the shortest expression that calls it)."""
    found: dict[str, tuple[str, str]] = {}
    for group, text in idioms.SUPPORTED.items():
        for expression in idioms.expressions(text):
            for name in called(expression):
                if name not in PLAIN and (name not in found or len(expression) < len(found[name][1])):
                    found[name] = found[name][0] if name in found else group, expression
    return found


def problem(expression: str) -> tuple[Any, Any]:
    """A field that evaluates the expression, and a state that holds its arguments."""
    f, names, values = idioms.function(expression), idioms.arguments(expression), idioms.values()
    leaves = [np.asarray(values[name]) for name in names]
    y0, unravel = rv.tree.ravel(leaves)

    def field(t: Any, y: Any, p: Any) -> Any:
        found = rv.tree.flatten(f(*unravel(y)))[0]
        total = sum((np.sum(x) for x in found if np.dtype(x.dtype).kind in "fO"), 0.0)
        return p * (np.sin(total) - y)

    return field, y0


def gradient(field: Any, y0: Any, **how: Any) -> tuple:
    """(who ran, value, gradients)."""
    def loss(y0: Any, p: Any) -> Any:
        sol = rv.solve(field, y0, TS, p, method=METHOD, gradient=rv.Reversible(), **how)
        return np.sum(sol.y1 ** 2), sol.stats
    (value, stats), (by_y0, by_p) = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, np.array(0.1))
    return stats.backend, value, by_y0, by_p


def agree(one: tuple, other: tuple) -> bool:
    # Fast arithmetic in another order, through 3 steps: some hundred roundings, conditioned by up to 1e4 (inverses).
    return all(np.allclose(a, b, rtol=0, atol=1e-10 * max(1.0, float(np.abs(a).max())))
               for a, b in zip(one[1:], other[1:], strict=True))


def cuda(field: Any, y0: Any) -> bool:
    """Whether the text of the kernels for both directions can be made."""
    from revode_cuda import fused, plan
    device = fused.Device("none", np, "sm_90", lambda *text: None, None)
    try:
        fused.planned(field, y0, TS, np.array(0.1), device, "fast", {"regime": "block per tile"}, False, {"method": METHOD})
    except (plan.CannotBeFused, TypeError):
        return False
    return True


def tried(expression: str, native: bool = True) -> dict[str, bool]:
    """Which engines run it. native=False: the loops are played in NumPy, so that no compiler is needed."""
    field, y0 = problem(expression)
    found: dict[str, bool] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = gradient(field, y0, backend="eager")
        found["tape"] = truth[0] == "eager"
        for name, how in {"replay": {"backend": "replay"}, "native": {"backend": "native"} if native else {
                "backend": "replay", "arithmetic": "strict"}}.items():
            try:
                result = gradient(field, y0, **how)
                if not agree(truth, result):
                    raise AssertionError(f"{expression}: {name} gives {result[1:]}, and the tape {truth[1:]}")
                found[name] = result[0] == how["backend"]
            except (TypeError, rv.RevodeWarning):
                found[name] = False
        found["CUDA"] = cuda(field, y0)
    return found


def table(rows: dict[str, dict[str, bool]]) -> str:
    """Functions by group and by the engines that run them."""
    groups = {name: group for name, (group, _) in functions().items()}
    kinds: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name, runs in rows.items():
        kind = tuple(engine for engine in ENGINES if runs[engine])
        kinds.setdefault(kind, {}).setdefault(groups[name], []).append(f"`{name}`")
    lines = ["| tape | replay | native | CUDA | functions |", "|---|---|---|---|---|"]
    for kind in sorted(kinds, key=lambda kind: -len(kind)):
        marks = " | ".join("yes" if engine in kind else "no" for engine in ENGINES)
        for group, names in kinds[kind].items():
            lines.append(f"| {marks} | {group}: {' '.join(sorted(names))} |")
    return "\n".join(lines)


def read(text: str) -> dict[str, dict[str, bool]]:
    """The rows of a table again."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] in ("yes", "no"):
            for name in re.findall(r"`([\w.]+)`", cells[4]):
                rows[name] = {engine: mark == "yes" for engine, mark in zip(ENGINES, cells, strict=False)}
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/numpy.md")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these functions alone")
    args = parser.parse_args(argv)
    compiler = bool(shutil.which("g++") or shutil.which("clang++"))
    rows = {}
    for name, (_, expression) in functions().items():
        if args.only is None or name in args.only:
            rows[name] = tried(expression, compiler)
            print(f"{name:28} {expression:60.60} {' '.join(e for e in ENGINES if rows[name][e])}", file=sys.stderr, flush=True)
    text = table(rows)
    if not args.write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

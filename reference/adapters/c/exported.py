"""A conformance case, exported: the worked example of a solver that has left Python.

    python -m reference.adapters.c.exported coupled-midpoint-uniform FOLDER
    cc -std=c99 -O2 -I FOLDER -o solver FOLDER/model.c reference/adapters/c/exported.c -lm
    revode check --exec ./solver --cases coupled-midpoint-uniform
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from revode import export_c
from revode.conformance.cases import Problem, chosen
from revode.engine import tree

from ..cases_revode import method_of

HERE = Path(__file__).parent


def export(problem: Problem, folder: Path) -> list[str]:
    """Write model.c, model.h and case.h; returns what the compiler is called with, but for its name and the output."""
    if problem.kind != "ode":
        raise ValueError(f"{problem.name} is of the kind {problem.kind}; ordinary equations are exported")
    source, _ = export_c(problem.field(), problem.y0, problem.ts, problem.params, method=method_of(problem), path=folder / "model.c")
    names = tree.unflatten(tree.flatten(problem.params)[1], list(range(len(problem.params))))
    leaves = sorted(problem.params, key=names.__getitem__)
    rows = {name: np.atleast_2d(problem.params[name]).shape for name in leaves}
    (folder / "case.h").write_text("\n".join([
        f'#define NAME "{problem.name}"', f"#define STEPS {len(problem.ts) - 1}", f"#define D {len(problem.y0)}",
        f"#define PARAMS {sum(np.size(x) for x in problem.params.values())}",
        "#define LEAVES " + " ".join(f'LEAF("{name}", {n}, {m})' for name, (n, m) in rows.items()), ""]))
    return ["-std=c99", "-O2", "-I", str(folder), str(source), str(HERE / "exported.c"), "-lm"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", help="its name; revode check --list has them")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    print("cc -o solver", *export(chosen(args.case)[0].problem, args.folder))

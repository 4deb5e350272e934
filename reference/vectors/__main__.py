"""python -m reference.vectors [--check] [PATTERN]: write the conformance cases, or make them again and compare.

The form of a file is in docs/conformance.md: JSON, a number being the float64 next to 50 digits, written by float.hex().
"""
from __future__ import annotations

import argparse
import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from .oracle import run
from .table import CASES, Spec

FOLDER = Path(__file__).parents[2] / "revode" / "conformance" / "cases"
FORMAT = "revode-case-1"


def array(x: Any) -> dict:
    x = np.asarray(x)
    return {"shape": list(x.shape), "data": " ".join(float(v).hex() for v in x.ravel())}


def arrays(tree: dict) -> dict:
    return {name: array(x) for name, x in tree.items()}


def text_of(name: str, spec: Spec) -> str:
    """The file of one case."""
    found = run(*spec)
    case = {"format": FORMAT, "name": name, "method": spec.method, "kind": spec.kind, "grid": spec.grid, "gradient": spec.gradient,
            "ts": array(found["ts"]), "y0": array(found["y0"]), "params": arrays(found["params"]), "weights": array(found["weights"])}
    if "dWs" in found:
        case["dWs"] = array(found["dWs"])
    case["evaluations"] = array(found["evaluations"])
    if "reconstructed" in found:
        case["reconstructed"] = array(np.stack(found["reconstructed"]))
    case["steps"] = [{"state": arrays(state), "cotangent": arrays(a), "aparams": arrays(a_params)}
                     for state, (a, a_params) in zip(found["states"], found["rows"], strict=True)]
    case |= {"ay0": array(found["ay0"]), "aparams": arrays(found["aparams"])}
    return json.dumps(case, separators=(",", ":")) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reference.vectors", description="Make the conformance cases in 50 digits.")
    parser.add_argument("pattern", nargs="?", default="*", help="names, such as 'coupled-*'")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what is made")
    options = parser.parse_args(argv)
    chosen = {name: spec for name, spec in CASES.items() if fnmatch(name, options.pattern)}
    there = {path.stem for path in FOLDER.glob("*.json") if fnmatch(path.stem, options.pattern)}
    stale = [f"{name}: no such case" for name in sorted(there - set(chosen))]
    for name, spec in chosen.items():
        path, text = FOLDER / f"{name}.json", text_of(name, spec)
        if not options.check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(f"{name}: the file is not what the oracle makes")
    print("\n".join([*stale, f"{len(chosen)} cases {'compared' if options.check else 'written'}"]))
    return int(bool(stale) or not chosen)


if __name__ == "__main__":
    sys.exit(main())

"""gpu.json as it comes; at the end gpu.md, and an archive of that and the logs."""
from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from .cases import Case
from .libraries import CONTENDERS, OURS

BAD = ("wrong", "failed", "timeout")


def verdict(results: dict) -> int:
    """1 where one of revode's own results is wrong, or its process did not come to it."""
    ours = [row for step in results["steps"].values() for row in step.get("rows", [])]
    ours += [row for key in OURS for row in results["cases"].get(key, {}).values()]
    return int(any(row["status"] in BAD for row in ours))


def save(results: dict, folder: Path) -> None:
    """gpu.json as far as it goes, whole or not at all."""
    there = folder / "gpu.json.part"
    there.write_text(json.dumps(results, indent=1, allow_nan=True) + "\n")
    there.replace(folder / "gpu.json")


def archive(results: dict, scratch: Path, folder: Path) -> None:
    """One file for the rest: the report, and the logs."""
    (scratch / "gpu.md").write_text(report(results))
    with tarfile.open(folder / "gpu.tar.gz", "w:gz") as file:
        for path in sorted([*scratch.glob("*.md"), *scratch.glob("*.log")]):
            file.add(path, path.name)


def report(results: dict) -> str:
    about, steps = results["about"], results["steps"]
    told = {**about, **results["versions"]}
    lines = ["# GPU benchmark", "", f"`{results['command']}`", "", f"{about['device']}, {about['date']}. " + ", ".join(
        f"{k} {told[k]}" for k in ("driver", "runtime", "cupy", "numpy", "torch", "jax", "diffrax", "python") if k in told) + ".", ""]
    lines += [f"- {problem}" for problem in results["problems"]] + ([""] if results["problems"] else [])
    lines += ["Loss and gradient with respect to y0 and all weights, the same method and precision for everybody (float32 without "
              "TF32). Times are medians, the wait for the device included, compilation not."]
    for name, title, cells in OWN:
        if name in steps:
            lines += ["", f"## {title}", "", *cells(steps[name]["rows"])]
    if "contenders" in steps:
        lines += contended(results)
    return "\n".join(lines) + "\n"


# the tables of our own steps: of each row what it says, in place of the numbers where there are none

def bits(rows: list[dict]) -> list[str]:
    columns = next(([*row["bits"]] for row in rows if "bits" in row), ["what"])
    return table(["case", *columns], [[row["case"], *(row.get("bits") or {c: said(row) for c in columns}).values()] for row in rows])


def layouts(rows: list[dict]) -> list[str]:
    cells = []
    for row in rows:
        for one in row.get("rows", [{"plan": "", "detail": said(row)}]):
            numbers = [f"{one[name]:.3g}" if name in one else one["detail"] for name in ("forward", "both")]
            plan = ", ".join(f"{k}={v}" for k, v in one["plan"].items()) if one["plan"] else "as planned"
            cells.append([row["case"], plan, *numbers])
    return table(["case", "plan", "us a step forward", "us a step forward and back"], cells)


def host(rows: list[dict]) -> list[str]:
    return table(["case", "ms"], [[row["case"], f"{1e3 * row['seconds']:.3g}" if "seconds" in row else said(row)] for row in rows])


def plain(rows: list[dict]) -> list[str]:
    return [f"- {said(row)}" for row in rows]


def said(row: dict) -> str:
    return f"{row['status']}: {row.get('detail', '')}"


OWN: tuple[tuple[str, str, Callable], ...] = (
    ("bits", "Strict bits", bits), ("sanitizer", "compute-sanitizer", plain),
    ("layouts", "Microseconds a step, by CUDA events", layouts), ("host", "A training step of ten steps", host),
    ("ncu", "ncu", plain), ("tests", "tests/gpu", plain))


# the tables of the contenders

def contended(results: dict) -> list[str]:
    found, peak = results["cases"], results["peak"]
    titles = [c for c in CONTENDERS.values() if c.key in found]
    reached = " (" + ", ".join(f"{k} {v / 1e12:.2g} TFLOP/s" for k, v in peak.items()) + ")" if peak else ""
    lines = []
    for title, cell in (("Two runs, equal in every bit", lambda r: {True: "equal", False: "differ"}.get(r.get("repeats"), "")),
                        ("Largest error of a gradient, relative, against NumPy in float64",
                         lambda r: f"{r['error']:.1e}" if "error" in r else ""),
                        ("Milliseconds (first call with compilation, in seconds)",
                         lambda r: f"{1e3 * r['seconds']:.3g} ({r['first']:.1f})" if "seconds" in r else ""),
                        ("Share of the measured peak" + reached, lambda r: share(r, peak)),
                        ("Device memory, MB", lambda r: f"{r['bytes'] / 1e6:.0f}" if r.get("bytes") else "")):
        rows = [[str(case), *(cell(r) or r.get("status", "").replace("ok", "") for r in
                              (found[c.key].get(str(case), {}) for c in titles))] for case in (Case(*c) for c in results["chosen"])]
        lines += ["", f"## {title}", "", *table(["case", *(c.title for c in titles)], rows)]
    missing: dict[str, list[str]] = {}
    for key, cases in found.items():
        for case, r in cases.items():
            if r["status"] != "ok":
                missing.setdefault(f"{CONTENDERS[key].title}: {said(r)}", []).append(case)
    untimed = [f"- {why} ({', '.join(cases)})" for why, cases in missing.items()]
    return [*lines, "", "## What was not timed", "", *(untimed or ["Nothing."])]


def share(r: dict, peaks: dict) -> str:
    if "seconds" not in r or not peaks:
        return ""
    rate = r["flops"] / r["seconds"]
    return f"{rate / peaks[r['dtype']]:.1%} ({rate / 1e12:.2g} TFLOP/s)"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(x.replace("|", "/") for x in row) + " |" for row in (head, ["---"] * len(head), *rows)]

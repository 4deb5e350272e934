"""python -m reference.detection [--solves 1000] [--seed 0] [--out FILE.json] [--page FILE.md] [--only SEED]

About a second for each solve. --only makes one case again and prints its record. --page writes the tables, and those of
detest.py, as a page of the documentation (default of both: docs/measurements/detection.*).
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from . import detest, page, tables
from .cases import random_case
from .judge import judged, measured

OUT = Path(__file__).parents[2] / "docs" / "measurements" / "detection.json"


def progress(done: int, of: int, start: float) -> None:
    if not sys.stderr.isatty() and done % max(1, of // 20):
        return                              # a line now and then for a file
    spent = time.monotonic() - start
    print(f"\r{done} of {of} solves, {spent:.0f} s, {spent / done * (of - done):.0f} s to go ", end="", file=sys.stderr, flush=True)


def saved(about: dict, records: list[dict], problems: list[dict]) -> str:
    """JSON with a line for each record, and numbers of four digits."""
    def short(x: Any) -> Any:
        if isinstance(x, float):
            return float(f"{x:.4g}")
        if isinstance(x, dict):
            return {name: short(v) for name, v in x.items()}
        return [short(v) for v in x] if isinstance(x, list) else x

    def lines(rows: list[dict]) -> str:
        return ",\n".join(json.dumps(short(row), default=str) for row in rows)
    return f'{{"about": {json.dumps(about)},\n"records": [\n{lines(records)}],\n"detest": [\n{lines(problems)}]}}\n'


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--solves", type=int, default=1000, help="how many random solves")
    ap.add_argument("--seed", type=int, default=0, help="case k is made from 1 000 000 seed + k")
    ap.add_argument("--out", type=Path, default=OUT, help="JSON: the tables and the record of every solve")
    ap.add_argument("--page", type=Path, help="Markdown page; default beside the JSON")
    ap.add_argument("--only", type=int, help="one case, by its own seed")
    asked = ap.parse_args()
    if asked.only is not None:
        record = measured(random_case(asked.only))
        print(json.dumps({**record, "verdict": judged(record)}, indent=1, default=str))
        return
    start, records = time.monotonic(), []
    for k in range(asked.solves):
        seed = 1_000_000 * asked.seed + k
        try:
            records.append(measured(random_case(seed)))
        except Exception as crash:
            crash.add_note(f"in the case that `python -m reference.detection --only {seed}` makes again")
            raise
        progress(k + 1, asked.solves, start)
    print(file=sys.stderr)
    for rows in tables.tables(records):
        print(tables.text(rows) + "\n")
    problems = detest.results()
    print(tables.text(detest.rows(problems)) + "\n")
    for what, value, bar, held in tables.bars(records):
        print(f"{what:45} {value:8.4g} (bar {bar:g}) {'kept' if held else 'NOT KEPT'}")
    command = f"python -m reference.detection --solves {asked.solves} --seed {asked.seed}"
    about = {"command": command, **page.machine()}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(saved(about, records, problems))
    (asked.page or asked.out.with_suffix(".md")).write_text(page.markdown(about, records, problems))


if __name__ == "__main__":
    main()

"""Counts by family and by method, at most 100 columns wide."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .judge import judged
from .methods import DEFAULT

COLUMNS = ("solves", "bad", "missed", "off > 10 %", "missed of them", "good", "false alarms", "refused")
BARS = {"missed": 0.03, "missed big": 0.005, "false": 0.08}         # shares of bad, of big, of good; of methods chosen by name


def counted(records: Sequence[dict]) -> dict[str, int]:
    verdicts = [judged(record) for record in records]
    count = {name: sum(v[name] for v in verdicts) for name in ("bad", "big", "missed", "missed big", "good", "false", "said")}
    return {"solves": len(records), **count, "refused": sum(record["refused"] is not None for record in records)}


def share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.1f}%)" if whole else "0"


def cells(count: dict[str, int]) -> list[str]:
    return [str(count["solves"]), share(count["bad"], count["solves"]), share(count["missed"], count["bad"]), str(count["big"]),
            share(count["missed big"], count["big"]), str(count["good"]), share(count["false"], count["good"]), str(count["refused"])]


def lines(records: Sequence[dict], key: Any, title: str) -> list[list[str]]:
    """Rows of one table: a header, one row for each value of key(record), and the sum."""
    values = sorted({key(record) for record in records})
    rows = [[value, *cells(counted([r for r in records if key(r) == value]))] for value in values]
    return [[title, *COLUMNS], *rows, ["all", *cells(counted(records))]]


def kind(record: dict) -> str:
    return f"{record['kind']}, {'float32' if record['float32'] else 'float64'}, {'[-1]' if record['ends'] else 'all'}"


def tables(records: Sequence[dict]) -> list[list[list[str]]]:
    named, default = ([r for r in records if (r["row"] == DEFAULT) is of] for of in (False, True))
    made = [lines(named, lambda r: r["family"], "family"), lines(named, lambda r: r["row"], "method"), lines(named, kind, "solve")]
    return [*made, lines(default, lambda r: r["family"], "defaults")] if default else made


def text(rows: list[list[str]]) -> str:
    """Aligned columns; the heads of the columns take two lines."""
    short = {"missed of them": "missed", "false alarms": "false", "off > 10 %": ">10 %"}
    rows = [[short.get(cell, cell) for cell in rows[0]], *rows[1:]]
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, wide, strict=True)))
                     for row in rows)


def markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    marked: Iterable = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in marked)


def bars(records: Sequence[dict]) -> list[tuple[str, float, float, bool]]:
    """(what, measured, bar, kept) for the methods that were chosen by name, and for the defaults."""
    named, default = (counted([r for r in records if (r["row"] == DEFAULT) is of]) for of in (False, True))
    rows = [("bad solves without a word, of the bad", named["missed"] / max(1, named["bad"]), BARS["missed"]),
            ("the same of those off by more than 10 %", named["missed big"] / max(1, named["big"]), BARS["missed big"]),
            ("false alarms, of the good", named["false"] / max(1, named["good"]), BARS["false"])]
    checked = [(what, value, bar, value <= bar) for what, value, bar in rows]
    hard = named["bad"] / max(1, named["solves"])
    checked.append(("truly bad, of all (at least)", hard, 0.15, hard >= 0.15))
    wrong = sum(judged(r)["bad"] or bool(r["words"]) or (r["refused"] is not None and not r.get("by direct too")) for r in records
                if r["row"] == DEFAULT)
    checked.append((f"defaults, of {default['solves']}: bad, warned or refused", float(wrong), 0.0, wrong == 0))
    return checked

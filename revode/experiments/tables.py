"""Tables for the terminal: aligned columns, rounded figures, units."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .training import Published, Row


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of equal length: the first column to the left, the others to the right; a header may have several lines."""
    heads = [header.split("\n") for header in headers]
    depth = max(len(head) for head in heads)
    lines = [[head[i] if i < len(head) else "" for head in heads] for i in range(depth)]
    widths = [max(len(line[j]) for line in [*lines, *rows]) for j in range(len(headers))]
    rule = ["-" * width for width in widths]
    return "\n".join("  ".join(cell.ljust(width) if j == 0 else cell.rjust(width)
                               for j, (cell, width) in enumerate(zip(line, widths, strict=True)))
                     for line in [*lines, rule, *rows])


def seconds(x: float) -> str:
    """0.0123 -> '12.3 ms'; 75 -> '75.0 s'; 200 -> '3.33 min'."""
    for size, unit in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if x >= (2 * size if size > 1 else size):
            return f"{three_digits(x / size)} {unit}"
    return f"{three_digits(x * 1e6)} us"


def size(x: float) -> str:
    """Bytes: 1536 -> '1.50 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if x < 1024 or unit == "GiB":
            return f"{x:.0f} B" if unit == "B" else f"{three_digits(x)} {unit}"
        x /= 1024
    raise AssertionError


def three_digits(x: float) -> str:
    """Three significant digits without an exponent: 1.23, 12.3, 123, 1234."""
    return f"{x:.{0 if x >= 99.95 else 1 if x >= 9.995 else 2}f}"


def small(x: Any) -> str:
    """An error: 1.2e-15; '-' where there is none."""
    return "-" if x is None else f"{x:.1e}" if x else "0"


def costs(rows: Sequence[Row], iterations: int) -> str:
    """The table of the gradient modes. Totals are for `iterations`; '~' marks those that are extrapolated."""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("gradient\nmode", lambda row: row.gradient),
        ("\nbackend", lambda row: row.backend),
        ("\nloss", lambda row: f"{row.loss:.4e}"),
        ("timed\niterations", lambda row: f"{row.iterations:,}"),
        ("time per\niteration", lambda row: seconds(row.seconds_per_iteration)),
        ("over\nreversible", lambda row: "-" if row.relative is None else f"{row.relative:.2f}"),
        (f"time for\n{iterations:,} its", lambda row: ("~" if row.extrapolated else "") + seconds(row.seconds_total)),
        ("steps,\nrejected", lambda row: f"{row.steps:,}, {row.rejected}"),
        ("peak\nmemory", lambda row: size(row.peak_bytes)),
        ("states\nheld", lambda row: f"{row.states:,}"),
        ("field\nevaluations", lambda row: f"{row.nfe:,}"),
        ("\nvjps", lambda row: f"{row.nvjp:,}"),
        ("gradient error\nagainst direct", lambda row: small(row.gradient_error)),
        ("round trip\nabsolute", lambda row: small(row.roundtrip and row.roundtrip.absolute)),
        ("round trip\nulps", lambda row: small(row.roundtrip and row.roundtrip.ulps)),
    ]
    if all(row.rejected is None for row in rows):
        del columns[7]
    if all(row.relative is None for row in rows):
        del columns[5]
    return table([head for head, _ in columns], [[cell(row) for _, cell in columns] for row in rows])


def findings(found: dict[str, dict[str, float]]) -> str:
    """What an experiment has learnt, beside the truth where it is known."""
    columns = list(next(iter(found.values())))
    return table(("", *columns), [(what, *(f"{numbers[c]:.4g}" for c in columns)) for what, numbers in found.items()])


def published(figures: Published) -> str:
    """The published figures, under a line that says that they are not ours."""
    return f"Published, other hardware ({figures.source}):\n" + table(figures.columns, figures.rows)

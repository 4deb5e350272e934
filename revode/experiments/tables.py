"""Tables for the terminal, at most WIDTH columns: aligned, with units, rounded to what is known."""
from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

WIDTH = 100


class Published(NamedTuple):
    """Figures of a paper, to stand beside ours."""
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return fill(f"Published, other hardware ({self.source}):") + "\n" + table(self.columns, self.rows)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of equal length: the first column to the left, the others to the right; a header may
    have several lines. What is wider than WIDTH goes on in a second table with the same first
    column."""
    heads = [header.split("\n") for header in headers]
    depth = max(len(head) for head in heads)
    lines = [[head[i] if i < len(head) else "" for head in heads] for i in range(depth)]
    widths = [max(len(line[j]) for line in [*lines, *rows]) for j in range(len(headers))]
    lines += [["-" * width for width in widths], *map(list, rows)]
    return "\n\n".join("\n".join("  ".join(line[j].rjust(widths[j]) if j else line[j].ljust(widths[j]) for j in some)
                                 for line in lines) for some in abreast(widths))


def abreast(widths: Sequence[int]) -> list[list[int]]:
    """The columns that stand beside one another within WIDTH, each time after the first column."""
    found = [[0]]
    for j in range(1, len(widths)):
        if len(found[-1]) > 1 and sum(widths[k] + 2 for k in found[-1]) + widths[j] > WIDTH:
            found.append([0])
        found[-1].append(j)
    return found


Column = tuple[str, Callable[[Any], str]]          # a heading, and what it says of a row


def columns(rows: Sequence[Any], wanted: Sequence[Column]) -> str:
    """The table of these columns; one that has nothing to say of any row is left out."""
    cells = [(head, [say(row) for row in rows]) for head, say in wanted]
    kept = [(head, column) for i, (head, column) in enumerate(cells) if i == 0 or set(column) != {"-"}]
    return table([head for head, _ in kept], list(zip(*(column for _, column in kept), strict=True)))


def fill(text: str, indent: str = "  ") -> str:
    """A sentence or more, in lines of at most WIDTH; indent: of all but the first."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def seconds(x: float | None) -> str:
    """0.0123 -> '12 ms'; 75 -> '75 s'; 200 -> '3.3 minutes': two digits, as clocks on a busy machine repeat no more."""
    if not x:
        return "-" if x is None else "0 s"
    for size, unit in ((3600.0, "hours"), (60.0, "minutes"), (1.0, "s"), (1e-3, "ms")):
        if x >= (2 * size if size > 1 else size):
            return f"{two_digits(x / size)} {unit}"
    return f"{two_digits(x * 1e6)} us"


def size(x: float) -> str:
    """Bytes: 1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if x < 1024 or unit == "GiB":
            return f"{x:.0f} B" if unit == "B" else f"{two_digits(x)} {unit}"
        x /= 1024
    raise AssertionError


def two_digits(x: float) -> str:
    """At least two significant digits, without an exponent: 1.2, 12, 123."""
    return f"{x:.{0 if x >= 9.95 else 1 if x >= 0.995 else 2}f}"


def small(x: Any, digits: int = 1) -> str:
    """An error or a loss: 1.2e-15; '-' where there is none, or where it has no end."""
    return "-" if x is None or x == float("inf") else f"{x:.{digits}e}" if x else "0"


def certified(of: Any) -> float | None:
    """What the error of a gradient is below, with 95 %, as a part of the gradient."""
    return of and max(of.below, of.floor) / (of.size or 1.0)

"""The bars: what a measurement has to show. Times are taken over those of a peer in the same table.

    judged(measured) -> {what is compared: (the bar, what was measured, "met" or "**missed**" or why it cannot be told)}
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from .contenders import CONTENDERS
from .works import PLAIN, WORKS

NAMES = {"coupled-midpoint": "Coupled midpoint", "reversible-heun": "reversible Heun", "midpoint": "midpoint", "heun": "Heun"}
MET, MISSED = "met", "**missed**"
GRIDS = 2              # arrays of N numbers that a solve makes at its peak
MIDPOINT, HEUN = PLAIN


class Bar(NamedTuple):
    """ours / peer <= limit, in one table; faster: the limit as it is said, of so many times as fast."""
    work: str
    method: str
    ours: str
    peer: str
    limit: float
    dtype: str = "float64"
    faster: bool = False
    even: bool = False           # at equal error: with as many steps as each of the two methods needs for it


BARS = (
    Bar("w1", MIDPOINT, "revode-replay", "numpy", 1.3),
    Bar("w1", MIDPOINT, "revode-replay", "autograd", 25, faster=True),
    Bar("w1", MIDPOINT, "revode-replay", "torchdiffeq", 4, faster=True),
    Bar("w1", MIDPOINT, "revode-native", "jax", 0.35),
    Bar("w1", MIDPOINT, "revode-native", "c", 1.5),
    Bar("w1", MIDPOINT, "revode-auto", "revode-native", 1.5),
    Bar("w1", MIDPOINT, "revode-direct-plain-native", "jax-scan", 1.0),
    Bar("w1", MIDPOINT, "revode-checkpointed-native", "revode-native", 2.0),
    Bar("w1", MIDPOINT, "revode-reversible", "autograd", 6, faster=True),
    Bar("w1", MIDPOINT, "revode-direct", "autograd", 12, faster=True),
    Bar("w1", HEUN, "revode-replay", "numpy", 1.1),
    Bar("w1", HEUN, "revode-native", "jax", 0.5),
    Bar("w1", HEUN, "revode-native", "jax", 1.0, "float32"),
    Bar("w1", HEUN, "revode-native", "c", 2.5),
    Bar("w1", HEUN, "revode-auto", "revode-native", 1.5),
    Bar("w2", MIDPOINT, "revode-replay", "numpy", 1.0),
    Bar("w2", HEUN, "revode-replay", "numpy", 1.0),
    Bar("w2", MIDPOINT, "revode-native", "jax", 0.8),
    Bar("w2", HEUN, "revode-native", "jax", 0.8),
    Bar("w3", HEUN, "revode-replay", "torchdiffeq", 1.0, even=True),
    Bar("w3", HEUN, "revode-native", "jax", 1.0),
    Bar("w4", HEUN, "revode-replay", "torchsde", 0.5),
    Bar("w4", HEUN, "revode-replay", "diffrax-heun", 0.3),
    Bar("w4", HEUN, "revode-native", "jax", 0.5),
)
FIRST = (("revode-replay", False, 0.3), ("revode-native", False, 1.0), ("revode-native", True, 0.3))      # seconds, a fresh process
COMPILE = 1.0          # seconds: trace, compile and load, W1 to W4
SHORT = 0.6            # native / replay on six steps of W2
SLOPE = 0.05           # by which the exponent of time against steps may differ from 1
ELSEWHERE = (("compiling a field of 200 operations <= 6 s", "tests/unit/test_native_speed.py"),
             ("on a GPU", "python -m reference.benchmarks.gpu"),
             ("white dwarf, 1000 iterations", "revode train white-dwarf --backend native --iterations 1000 --threads 1"))


def typical(row: dict) -> float:
    return median(row["seconds"])


def judged(measured: dict) -> dict[str, tuple[str, str, str]]:
    """Every bar."""
    found = dict([*of_times(measured), *short(measured), *first(measured), *compiled(measured), *slopes(measured), *memory(measured)])
    return found | {name: (f"`{command}`", "", "measured elsewhere") for name, command in ELSEWHERE} if found else {}


def verdict(passed: bool) -> str:
    return MET if passed else MISSED


def said(x: float) -> str:
    return f"{x:.3g}"


def title(key: str) -> str:
    return CONTENDERS[key].title


def of_times(measured: dict) -> Iterator[tuple[str, tuple[str, str, str]]]:
    tables = {(t["work"]["name"], t["method"], t["dtype"]): t for t in measured["times"]}
    errors = {e["work"]: e for e in measured["errors"]}
    for bar in BARS:
        table = tables.get((bar.work, bar.method, bar.dtype))
        if table is None:
            continue
        rows = {row["key"]: row for row in table["rows"]}
        name = (f"{bar.work.upper()}, {NAMES[bar.method]}, {bar.dtype}: {title(bar.ours)} / {title(bar.peer)}"
                + (", at equal error" if bar.even else ""))
        limit = f"at least {bar.limit:g}x as fast" if bar.faster else f"<= {bar.limit:g}"
        missing = [key for key in (bar.ours, bar.peer) if key not in rows]
        if missing:
            yield name, (limit, "", f"not measured: no {title(missing[0])}")
            continue
        x = typical(rows[bar.ours]) / typical(rows[bar.peer])
        if bar.even:                                 # of order two, both
            of = errors.get(bar.work, {})
            x *= (of.get(rows[bar.ours]["scheme"], 1.0) / of.get(rows[bar.peer]["scheme"], 1.0)) ** 0.5
        whole = table["work"]["N"] == WORKS[bar.work].N and table["work"]["batch"] == WORKS[bar.work].batch
        faster = typical(rows[bar.peer]) / typical(rows[bar.ours])
        passed = faster >= bar.limit if bar.faster else x <= bar.limit
        yield name, (limit, f"{faster:.2f}x" if bar.faster else said(x), verdict(passed) if whole else "not judged: another size")


def short(measured: dict) -> Iterator[tuple[str, tuple[str, str, str]]]:
    if measured.get("short"):
        x = measured["short"]["native"] / measured["short"]["replay"]
        yield "W2 with 6 steps, Coupled midpoint: native / replay", (f"<= {SHORT}", said(x), verdict(x <= SHORT))


def first(measured: dict) -> Iterator[tuple[str, tuple[str, str, str]]]:
    rows = {(row["key"], bool(row.get("cached"))): row for row in measured["first"]}
    for key, cached, limit in FIRST:
        if (key, cached) in rows:
            x = median(rows[key, cached]["seconds"])
            yield (f"first gradient of W1 in a fresh process: {title(key)}{', cached' if cached else ''}",
                   (f"<= {limit:g} s", f"{x:.2f} s", verdict(x <= limit)))


def compiled(measured: dict) -> Iterator[tuple[str, tuple[str, str, str]]]:
    for table in measured["times"]:
        for row in table["rows"]:
            if row["key"] == "revode-native" and table["dtype"] == "float64" and "first" in row:
                x = row["first"] - min(row["seconds"])
                yield (f"{table['work']['name'].upper()}, {NAMES[table['method']]}: trace and compile",
                       (f"<= {COMPILE:g} s", f"{x:.2f} s", verdict(x <= COMPILE)))


def slopes(measured: dict) -> Iterator[tuple[str, tuple[str, str, str]]]:
    for row in measured["growth"]:
        if row["axis"] == "steps" and row["key"] == "revode-reversible":         # native code has a fixed part as large as 1000 steps
            x = row["exponent"]
            yield (f"time against steps, {row['sizes'][0]} to {row['sizes'][1]}: {title(row['key'])}",
                   (f"1.00 +- {SLOPE}", f"{x:.3f}", verdict(abs(x - 1) <= SLOPE)))


def memory(measured: dict) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Beyond the grid: solve keeps the steps (8N bytes) beside the times that the user gave."""
    for row in measured["memory"]:
        sizes = {int(N): size for N, size in row["bytes"].items()}
        few, some, many = min(sizes), sorted(sizes)[1], max(sizes)
        mode = row["key"].removeprefix("revode-")
        name = f"memory, {title(row['key'])}, {NAMES[row['method']]}"
        if mode in ("reversible", "replay", "native") or mode.startswith("checkpointed"):
            start = some if mode.startswith("checkpointed") else few         # 44 states need more than 44 steps to be all taken
            beyond = (sizes[many] - sizes[start] - 8 * GRIDS * (many - start)) / sizes[start]
            yield (f"{name}: from N = {start} to {many} beyond {GRIDS} copies of the grid",
                   ("less than 5 %", f"{beyond:+.1%}", verdict(beyond < 0.05)))
        elif mode.startswith("direct"):
            early, late = ((sizes[n] - sizes[m]) / (n - m) for m, n in ((few, some), (some, many)))
            # rows of a grid of less than 1024 steps are there from the gradient before, those of a longer one are not
            yield (f"{name}: a step adds as much from N = {some} to {many} as from {few} to {some}, "
                   f"within 10 % and {GRIDS} copies of the grid",
                   (f"{early:.0f} bytes", f"{late:.0f} bytes", verdict(-0.1 * early < late - early < 0.1 * early + 8 * GRIDS)))


__all__: Sequence[Any] = ["BARS", "NAMES", "judged", "typical"]

"""The report of a benchmark: Markdown, and a plot of the same figures. `measured` is what run.py writes as JSON."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from revode import plotting

from .contenders import CONTENDERS
from .works import WORKS

BASIS = "revode-reversible"          # what ratios are taken against
NAMES = {"coupled-midpoint": "Coupled midpoint", "reversible-heun": "reversible Heun", "midpoint": "midpoint", "heun": "Heun"}
HOW = {"tracemalloc": "allocations of Python and NumPy (tracemalloc)",
       "rss": "growth of the process (ru_maxrss), after a run of 10 steps",
       "xla": "temporaries of the compiled program (XLA's memory analysis)"}
SHARE = 0.97                         # of the processor: below it, something else was running on the core


def markdown(measured: dict) -> str:
    """The whole page."""
    this = measured["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted({**measured["versions"], "numpy": this["numpy"]}.items()))
    parts = ["# Benchmarks: loss and gradient, side by side", paragraph(
        f"{this['cpu']}, {this['cores']} cores, {this['system']}, Python {this['python']}; {versions}. {measured['date']}. "
        f"Load average {measured['load_before']} before and {measured.get('load_after')} after (a run that has the machine for "
        "itself makes about 1.0 of its own)."), f"```\n{measured['command']}\n```", paragraph(
        f"Milliseconds for one loss and its gradient with respect to y0 and all weights: the median of up to "
        f"{measured['repeats']} repetitions, in parentheses the least and the greatest. One core, one BLAS thread, each "
        "contender in a process of its own, repetitions interleaved, equal numbers of steps. \"x\" is the median over that of "
        "revode Reversible on its eager tape: above 1, revode Reversible is faster. \"Gradient\" is the relative difference, in "
        "float64, from revode Direct on the same scheme; losses of one scheme agreed to 1e-8 (float64) before anything was "
        "timed. A library that lacks the reversible method takes as many steps of the scheme it is built on.")]
    disturbed = [row for table in measured["times"] for row in table["rows"] if row["share"] < SHARE]
    if disturbed:
        parts.append(paragraph(
            f"**Disturbed measurement**: {len(disturbed)} of {sum(len(t['rows']) for t in measured['times'])} medians were taken "
            f"while other work had a part of the core (least share {min(row['share'] for row in disturbed):.0%}); they are "
            "marked with *. Read the ratios, and those with care."))
    if measured["absent"]:
        parts.append("Absent: " + "; ".join(f"{CONTENDERS[key].title} ({reason})" for key, reason in measured["absent"].items()) + ".")
    for name in dict.fromkeys(table["work"]["name"] for table in measured["times"]):
        parts += section(name, measured)
    parts += first(measured["first"]) + memory(measured["memory"]) + bars(measured)
    return "\n\n".join(parts) + "\n"


def paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    lines = [headers, ["---"] + ["---:"] * (len(headers) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def milliseconds(row: dict) -> str:
    times = [1e3 * s for s in row["seconds"]]
    return f"{digits(median(times))} ({digits(min(times))}-{digits(max(times))}){'*' if row['share'] < SHARE else ''}"


def digits(x: float) -> str:
    """Three significant digits."""
    return f"{x:.{0 if x >= 99.95 else 1 if x >= 9.995 else 2}f}"


def ratio(x: float) -> str:
    return digits(x) if x >= 0.1 else f"{x:.1g}"


# Times ----------------------------------------------------------------------------------------------------------------
def section(name: str, measured: dict) -> list[str]:
    """One work: a table for each method, who is faster than we are, and the errors of the schemes."""
    tables = [t for t in measured["times"] if t["work"]["name"] == name]
    work = tables[0]["work"]
    parts = [f"## {name.upper()}, {work['title']}: d = {work['sizes'][0]}, {'-'.join(map(str, work['sizes']))} tanh"
             f"{', twice (drift and diffusion)' if work['sde'] else ''}, batch "
             f"{work['batch']}, {work['N']} steps"]
    for method in dict.fromkeys(t["method"] for t in tables):
        parts.append(f"### {NAMES[method]}")
        by_dtype = {t["dtype"]: {row["key"]: row for row in t["rows"]} for t in tables if t["method"] == method}
        rows = []
        for key in next(iter(by_dtype.values())):
            cells = []
            for found in by_dtype.values():
                basis = found.get(BASIS)
                cells += [milliseconds(found[key]), ratio(typical(found[key]) / typical(basis)) if basis else "-"]
            exact = by_dtype.get("float64", next(iter(by_dtype.values())))[key]
            note = "" if CONTENDERS[key].exact else ", inexact"
            title = f"**{CONTENDERS[key].title}**" if CONTENDERS[key].ours else CONTENDERS[key].title
            rows.append([f"{title} ({NAMES[exact['scheme']]}{note})", *cells, f"{exact['gradient_difference']:.0e}"])
        headers = ["contender (scheme)"]
        for dtype in by_dtype:
            headers += [dtype, "x"]
        parts += [table([*headers, "gradient"], rows), losses(by_dtype)]
    found = next((e for e in measured["errors"] if e["work"] == name), None)
    if found is not None:
        parts.append(paragraph("At equal error: " + "; ".join(
            f"{NAMES[scheme]} {found[scheme]:.1e}" + ("" if scheme == "midpoint" else
            f" (x{(found[scheme] / found['midpoint']) ** 0.5:.2f} steps)")
            for scheme in NAMES if scheme in found) + ". These are relative errors of y(T) at these numbers of steps, and in "
            "parentheses how many times as many steps give the error of the midpoint method, all being of order two."))
    return parts


def typical(row: dict) -> float:
    return median(row["seconds"])


def losses(by_dtype: dict[str, dict[str, dict]]) -> str:
    """Who is faster than revode Reversible, and than revode Direct, in words."""
    sentences = []
    for ours in ("revode-reversible", "revode-direct"):
        tables = [found for found in by_dtype.values() if ours in found]
        factors = {key: [typical(found[ours]) / typical(found[key]) for found in tables]
                   for key in (tables[0] if tables else ()) if not CONTENDERS[key].ours}
        faster = sorted(((x, key) for key, x in factors.items() if max(x) > 1), reverse=True)
        names = [f"{CONTENDERS[key].title} ({' / '.join(digits(y) for y in x)})" for x, key in faster]
        if tables:
            sentences.append(f"{CONTENDERS[ours].title} loses to " + (
                f"(they are so many times as fast, {' / '.join(by_dtype)}): {'; '.join(names)}." if names else "nobody here."))
    return paragraph(" ".join(sentences))


# First gradient and memory -----------------------------------------------------------------------------------------------
def first(rows: Sequence[dict]) -> list[str]:
    if not rows:
        return []
    return ["## First gradient of W1 in a fresh process", paragraph(
        f"Seconds from starting the interpreter to the first loss and gradient ({NAMES[rows[0]['method']]} or its base, float64): "
        "imports, compiling and one run. Median of 3."),
        table(["contender", "s"], [[CONTENDERS[row["key"]].title, f"{median(row['seconds']):.2f} "
                                    f"({min(row['seconds']):.2f}-{max(row['seconds']):.2f})"] for row in rows])]


def memory(rows: Sequence[dict]) -> list[str]:
    if not rows:
        return []
    steps = list(rows[0]["bytes"])
    parts = ["## Memory of one gradient of W1, float64", paragraph(
        "kB above what is there before, at the peak, by number of steps, each in a fresh process. How it was taken: "
        + "; ".join(f"{key}: {HOW[key]}" for key in dict.fromkeys(row["how"] for row in rows)) + ". These three do not measure the "
        "same thing: compare growth, not size.")]
    for method in dict.fromkeys(row["method"] for row in rows):
        parts.append(table([NAMES[method], *[f"N = {N}" for N in steps], "by"], [
            [CONTENDERS[row["key"]].title, *[digits(row["bytes"][N] / 1e3) for N in steps], row["how"]]
            for row in rows if row["method"] == method]))
    return parts


# Bars -----------------------------------------------------------------------------------------------------------------
def bars(measured: dict) -> list[str]:
    """The bars that the eager tape has to pass."""
    rows = time_bars(measured["times"]) + memory_bars(measured["memory"])
    if not rows:
        return []
    return ["## Bars of the eager tape", table(["bar", "measured", "result"], rows)]


def time_bars(tables: Sequence[dict]) -> list[list[str]]:
    rows = []
    for found in tables:
        if (found["work"]["name"], found["method"], found["dtype"]) != ("w1", "coupled-midpoint", "float64"):
            continue
        by_key = {row["key"]: row for row in found["rows"]}
        for ours, least in (("revode-reversible", 6), ("revode-direct", 12)):
            if ours in by_key and "autograd" in by_key:
                factor = typical(by_key["autograd"]) / typical(by_key[ours])
                full = found["work"]["N"] == WORKS["w1"].N
                rows.append([f"W1, Coupled midpoint, float64: {CONTENDERS[ours].title} at least {least}x faster than autograd's loop",
                             f"{factor:.2f}x", verdict(factor >= least) if full else "not judged: another number of steps"])
    return rows


def memory_bars(rows: Sequence[dict]) -> list[list[str]]:
    """Beyond the grid: solve keeps the steps (8N bytes) beside the times that the user gave."""
    lines = []
    for row in rows:
        sizes = {int(N): size for N, size in row["bytes"].items()}
        few, some, many = min(sizes), sorted(sizes)[1], max(sizes)
        where = f"{CONTENDERS[row['key']].title}, {NAMES[row['method']]}"
        if row["key"] in ("revode-reversible", "revode-checkpointed"):
            start = few if row["key"] == "revode-reversible" else some       # 44 states need more than 44 steps to be all taken
            copies = (sizes[many] - sizes[start]) / (8 * (many - start))
            beyond = (sizes[many] - sizes[start] - 8 * GRIDS * (many - start)) / sizes[start]
            lines.append([f"{where}: from N = {start} to {many} less than 5 % beyond {GRIDS} copies of the grid",
                          f"{beyond:+.1%} ({copies:.2f} times 8 bytes a step in all)", verdict(beyond < 0.05)])
        elif row["key"] == "revode-direct":
            growth = sizes[many] / sizes[some] / (many / some)
            lines.append([f"{where}: memory proportional to N within 10 % from N = {some} to {many}",
                          f"{sizes[many] / sizes[some]:.2f}x for {many / some:g}x the steps", verdict(abs(growth - 1) < 0.1)])
    return lines


GRIDS = 2      # arrays of N numbers that a solve makes at its peak


def verdict(passed: bool) -> str:
    return "pass" if passed else "**miss**"


# The plot ----------------------------------------------------------------------------------------------------------------
def plot(measured: dict, path: Path) -> None:
    """The picture of the figures, as a file."""
    with plotting.style():
        plotting.save(picture(measured), str(path), "Milliseconds for a loss and its gradient: a row for each contender, a panel "
                      "for each work and method.")


def picture(measured: dict) -> Any:
    """One panel for each work and method: milliseconds of every contender, float64 filled and float32 open."""
    from matplotlib.figure import Figure
    works = list(dict.fromkeys(t["work"]["name"] for t in measured["times"]))
    methods = list(dict.fromkeys(t["method"] for t in measured["times"]))
    keys = list(dict.fromkeys(row["key"] for t in measured["times"] for row in t["rows"]))[::-1]
    figure = Figure(figsize=(4.8 + 3.4 * len(works), 1.0 + 0.3 * len(keys) * len(methods) + 0.8 * len(methods)), dpi=100,
                    layout="constrained")
    axes = figure.subplots(len(methods), len(works), squeeze=False, sharey=True)
    for i, method in enumerate(methods):
        for j, name in enumerate(works):
            ax = axes[i][j]
            for found in measured["times"]:
                if (found["work"]["name"], found["method"]) != (name, method):
                    continue
                double = found["dtype"] == "float64"
                for row in found["rows"]:
                    times = [1e3 * s for s in row["seconds"]]
                    colour = plotting.COLOURS[CONTENDERS[row["key"]].ours]
                    at = keys.index(row["key"]) + (0.12 if double else -0.12)
                    ax.plot([min(times), max(times)], [at, at], color=colour, lw=1)
                    ax.plot(median(times), at, "o", color=colour, ms=5, mfc=colour if double else "white")
            if not ax.lines:
                ax.set_axis_off()
                ax.text(0.5, 0.5, f"{name.upper()}, {NAMES[method]}:\nnot measured", ha="center", va="center", color=plotting.GREY,
                        transform=ax.transAxes)
                continue
            ax.set(xscale="log", title=f"{name.upper()}, {NAMES[method]}")
            plotting.plain_ticks(ax.xaxis)
            if i == len(methods) - 1:
                ax.set_xlabel("ms for loss and gradient")
            ax.set_yticks(range(len(keys)), [CONTENDERS[key].title for key in keys])
            ax.grid(color="#dddddd", lw=0.6)
            ax.set_axisbelow(True)
    figure.suptitle("Loss and gradient on one core: float64 filled, float32 open; revode orange. Lines: least to greatest.")
    return figure

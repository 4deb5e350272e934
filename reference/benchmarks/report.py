"""The report of a benchmark: Markdown, and a plot of the same figures. `measured` is what run.py writes as JSON."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from revode import plotting

from .bars import NAMES, judged, typical
from .contenders import CONTENDERS

BASES = ("revode-native", "revode-replay", "revode-reversible", "revode-direct")         # what ratios are taken against: the first
HOW = {"tracemalloc": "allocations of Python and NumPy (tracemalloc)",
       "rss": "growth of the process (ru_maxrss), after a run of 10 steps",
       "xla": "temporaries of the compiled program (XLA's memory analysis)"}
SHARE = 0.97                         # of the processor: below it, something else was running on the core


def markdown(measured: dict, beside: Sequence[dict] = ()) -> str:
    """The whole page; beside: what other machines have measured."""
    this = measured["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted({**measured["versions"], "numpy": this["numpy"]}.items()))
    parts = [f"# Benchmarks on {this.get('simd', 'unknown vectors')}: loss and gradient, side by side", paragraph(
        f"{described(this)}, {this['cores']} cores, {this['system']}, Python {this['python']}; {versions}. {measured['date']}. "
        f"Load average {measured['load_before']} before and {measured.get('load_after')} after (a run that has the machine for "
        f"itself makes about 1.0 of its own).{took(measured)}"), f"```\n{measured['command']}\n```", paragraph(
        f"Milliseconds for one loss and its gradient with respect to y0 and all weights: the median of up to "
        f"{measured['repeats']} repetitions, in parentheses the least and the greatest. One core, one BLAS thread, each "
        "contender in a process of its own, repetitions interleaved, equal numbers of steps. \"x\" is the median over that of "
        "native revode (of replay, where there is no compiler): above 1, revode is faster. \"First\" is the first gradient in a "
        "process, in seconds, with all that is traced and compiled for it, without imports, and without a cache. \"Gradient\" is the "
        "relative difference, in float64, from the first row of the same scheme; losses of one scheme agreed to 1e-8 (float64) "
        "before anything was timed. A library that lacks the reversible method takes as many steps of the scheme it is built on. "
        "JAX's scans are unrolled by what is quickest of 1, 2, 4 and 8. \"auto\" is what a user gets who asks for nothing, after 25 "
        f"gradients (or 15 seconds of them); the other compiled rows are timed after {measured.get('warm', '8')}: each of the first 8 "
        "is compared with the tape in one step. What needs seconds for a gradient takes part in W1 in float64 alone; W3 is run by "
        "the fastest of each kind.")]
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
    parts += first(measured["first"]) + memory(measured["memory"]) + growth(measured["growth"]) + bars([measured, *beside])
    return "\n\n".join(parts) + "\n"


def took(measured: dict) -> str:
    return f" It took {measured['minutes']:.0f} minutes." if "minutes" in measured else ""


def described(machine: dict) -> str:
    return f"{machine['cpu']} ({machine.get('simd', 'unknown vectors')})"


def paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    lines = [headers, ["---"] + ["---:"] * (len(headers) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def milliseconds(row: dict) -> str:
    times = [1e3 * s for s in row["seconds"]]
    return f"{digits(median(times))} ({digits(min(times))}-{digits(max(times))}){'*' if row['share'] < SHARE else ''}"


def spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"


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
        for key in max(by_dtype.values(), key=len):
            cells = []
            for found in by_dtype.values():
                basis = next((found[base] for base in BASES if base in found), None)
                own = found.get(key)
                cells += ["", ""] if own is None else [milliseconds(own), ratio(typical(own) / typical(basis)) if basis else "-"]
            exact = by_dtype.get("float64", next(iter(by_dtype.values())))[key]
            cells.append(digits(exact["first"]))
            note = "" if CONTENDERS[key].exact else ", inexact"
            title = f"**{CONTENDERS[key].title}**" if CONTENDERS[key].ours else CONTENDERS[key].title
            rows.append([f"{title} ({NAMES[exact['scheme']]}{note})", *cells, f"{exact['gradient_difference']:.0e}"])
        headers = ["contender (scheme)"]
        for dtype in by_dtype:
            headers += [dtype, "x"]
        parts += [table([*headers, "first", "gradient"], rows), losses(by_dtype)]
    found = next((e for e in measured["errors"] if e["work"] == name), None)
    if found is not None:
        parts.append(paragraph("At equal error: " + "; ".join(
            f"{NAMES[scheme]} {found[scheme]:.1e}" + ("" if scheme == "midpoint" else
            f" (x{(found[scheme] / found['midpoint']) ** 0.5:.2f} steps)")
            for scheme in NAMES if scheme in found) + ". These are relative errors of y(T) at these numbers of steps, and in "
            "parentheses how many times as many steps give the error of the midpoint method, all being of order two."))
    return parts


def losses(by_dtype: dict[str, dict[str, dict]]) -> str:
    """Who is faster than revode's two quickest, in words."""
    sentences = []
    there = [key for key in BASES if any(key in found for found in by_dtype.values())]
    for ours in there[:2]:
        tables = [found for found in by_dtype.values() if ours in found]
        factors = {key: [typical(found[ours]) / typical(found[key]) for found in tables if key in found]
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
        "imports (of bytecode that is there), compiling and one run, on all cores. Median of 3."),
        table(["contender", "s"], [[CONTENDERS[row["key"]].title + ", cached" * row.get("cached", False), spread(row["seconds"])]
                                   for row in rows])]


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


# Growth and bars ---------------------------------------------------------------------------------------------------------
def growth(rows: Sequence[dict]) -> list[str]:
    if not rows:
        return []
    axes = {row["axis"]: row for row in rows}
    by_key = {key: {row["axis"]: row for row in rows if row["key"] == key} for key in dict.fromkeys(row["key"] for row in rows)}
    text = "; ".join(f"{axis} from {row['sizes'][0]} to {row['sizes'][1]} ({row['work'].upper()})" for axis, row in axes.items())
    return ["## Growth", paragraph(f"By which power of the size the time of a gradient grows (reversible Heun or its base, float64; "
                                   f"the best of three): {text}."),
            table(["contender", *axes], [[CONTENDERS[key].title, *[f"{found[axis]['exponent']:.2f}" if axis in found else "-"
                                                                   for axis in axes]] for key, found in by_key.items()])]


def bars(machines: Sequence[dict]) -> list[str]:
    """Every bar, and what each machine says to it."""
    found = [judged(machine) for machine in machines]
    if not found[0]:
        return []
    names = [described(machine["machine"]) for machine in machines]
    headers = ["time, or what else is said", "bar", *(names if len(names) > 1 else ["measured"])]
    met = sum(verdict == "met" for _, _, verdict in found[0].values())
    missed = sum(verdict == "**missed**" for _, _, verdict in found[0].values())
    rows = [[name, limit, *[" ".join(other[name][1:]) if name in other else "-" for other in found]]
            for name, (limit, _, _) in found[0].items()]
    return ["## Bars", paragraph(f"{met} met, {missed} missed, {len(rows) - met - missed} not judged here. A ratio is that of two "
                                 "times: smaller is better."), table(headers, rows)]


# The plot ----------------------------------------------------------------------------------------------------------------
def plot(measured: dict, path: Path) -> None:
    """The picture of the figures, as a file."""
    with plotting.style():
        plotting.save(picture(measured), str(path), "Milliseconds for a loss and its gradient: a row for each contender, a panel "
                      "for each work and method.")


def picture(measured: dict) -> Any:
    """One panel for each work and method: its contenders, the quickest on top; float64 filled and float32 open."""
    from matplotlib.figure import Figure
    panels: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
    for found in measured["times"]:
        panel = panels.setdefault((found["work"]["name"], found["method"]), {})
        for row in found["rows"]:
            panel.setdefault(row["key"], {})[found["dtype"]] = [1e3 * s for s in row["seconds"]]
    pairs = [list(panels.items())[k:k + 2] for k in range(0, len(panels), 2)]
    heights = [1.1 + 0.3 * max(len(panel) for _, panel in pair) for pair in pairs]
    figure = Figure(figsize=(18, 0.8 + sum(heights)), dpi=100, layout="constrained")
    axes = figure.subplots(len(pairs), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for pair, line in zip(pairs, axes, strict=True):
        for ax in line[len(pair):]:
            ax.set_axis_off()
        for ((name, method), panel), ax in zip(pair, line, strict=False):
            keys = sorted(panel, key=lambda key: -median(next(iter(panel[key].values()))))
            for at, key in enumerate(keys):
                colour = plotting.COLOURS[CONTENDERS[key].ours]
                for dtype, times in panel[key].items():
                    double = dtype == "float64"
                    y = at + (0.15 if double else -0.15)
                    ax.plot([min(times), max(times)], [y, y], color=colour, lw=1)
                    ax.plot(median(times), y, "o", color=colour, ms=5, mfc=colour if double else "white")
            ax.set(xscale="log", ylim=(-0.7, len(keys) - 0.3), title=f"{name.upper()}, {NAMES[method]}: ms for loss and gradient")
            plotting.plain_ticks(ax.xaxis)
            ax.set_yticks(range(len(keys)), [CONTENDERS[key].title for key in keys])
            ax.grid(color="#dddddd", lw=0.6)
            ax.set_axisbelow(True)
    figure.suptitle(f"Loss and gradient on one core, {described(measured['machine'])}: float64 filled, float32 open; revode orange. "
                    "Lines: least to greatest.")
    return figure

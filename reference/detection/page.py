"""docs/measurements/detection.md, from what was measured."""
from __future__ import annotations

import datetime
import platform
import textwrap
from collections.abc import Sequence

import numpy as np

import revode as rv

from . import detest, judge
from .tables import bars, tables
from .tables import markdown as table


def machine() -> dict:
    return {"machine": f"{cpu()}, {platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}",
            "version": rv.__version__, "date": f"{datetime.date.today():%Y-%m-%d}"}


def cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def markdown(about: dict, records: Sequence[dict], problems: Sequence[dict]) -> str:
    """The whole page."""
    kept = [["what", "measured", "bar", ""], *([what, f"{value:.2%}" if "defaults" not in what else f"{value:.0f}",
            f"{bar:.1%}" if "defaults" not in what else f"{bar:.0f}", "kept" if held else "NOT KEPT"]
            for what, value, bar, held in bars(records))]
    meaning = (judge.__doc__ or "").split("\n", 1)[1].strip("\n")
    solves = paragraph(
        f"{about['machine']}; revode {about['version']}, {about['date']}. {len(records)} random solves of nine families: constant, "
        "jittered and adaptive grids, SDEs and CDEs, float32 and float64, save=[-1] and save=None, the tape or replay behind them. "
        "Every solve can be made again: `python -m reference.detection --only SEED`. `--out` writes all records as JSON.")
    hull = paragraph(
        f"Non-stiff problems of Hull, Enright, Fellen & Sedgwick (1972), PID({detest.RTOL:.0e}, {detest.ATOL:.0e}), against SciPy's "
        f"RK45 at the same tolerances. Bars for the defaults: error at most {detest.WORSE:.0f} times RK45's or {detest.FLOOR:.0f} "
        f"(atol + rtol max|y|), at most {detest.DEARER} times its evaluations, the gradient within {detest.NEAR:.0e} of Direct on the "
        "same grid (for a loss over all accepted steps, and over the last alone), no warning. Coupled has to be as accurate, or to "
        "say that it is not. nfe: evaluations of the forward solve. "
        + ", ".join(f"{p.name} {p.about}" for p in detest.PROBLEMS) + ".")
    parts = ["# Is a bad gradient ever returned without a word?", f"    {about['command']}", solves,
             "What is measured, and what the words of the tables mean:", f"```\n{meaning}\n```", table(kept),
             "## Methods chosen by name", *(table(rows) for rows in tables(records)[:3]),
             "## The defaults", *(table(rows) for rows in tables(records)[3:]), "## DETEST", hull, table(detest.rows(list(problems)))]
    return "\n\n".join(parts) + "\n"


def paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)

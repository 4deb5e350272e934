"""What every command has in common: checks before any work, progress, and a report that is not
lost.

    plan.work(report)    fills rows, notes, losses as they are found      (any exception may end it)
    plan.tables, plan.picture, JSON    of what there is, whatever ended it

A Plan says what a command does; carry_out does it. A row is a dict of plain numbers, bytes and
seconds.
"""
from __future__ import annotations

import json
import logging
import math
import os
import platform
import signal
import sys
import tempfile
import threading
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __version__, plotting
from ..archive import save
from ..watch import RevodeWarning
from .backends import UserError
from .tables import Published, fill

SCHEMA = 2
INTERRUPTED = "interrupted"
FILES = ("json", "save", "plot")      # options that name a file to publish
ENDINGS = ("png", "pdf", "svg")


@dataclass
class Report:
    """What a command has found so far."""
    rows: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    warned: dict[str, list] = field(default_factory=dict)  # class -> [how often, the first message]
    more: dict[str, Any] = field(default_factory=dict)         # further entries of the JSON file
    runs: list[Any] = field(default_factory=list)              # of training: the best parameters of the first are saved
    stopped: str | None = None                                 # why the work ended early


class Plan(NamedTuple):
    """What a command does, in four functions of its report."""
    head: Sequence[str]                                   # what it is about to do, in lines
    work: Callable[[Report], None]
    tables: Callable[[Report], Sequence[str]]
    picture: Callable[[Report], tuple[Any, str]]          # the figure, and what it shows in words
    settings: dict[str, Any] = {}
    published: Published | None = None


def carry_out(args: Namespace, plan: Plan) -> int:
    """Check, do the work, and publish what was found, all of it or what there is. The exit status."""
    check_lists(args)
    check_files(args)
    report, this, failure = Report(), machine(), None
    load = "" if this["load"] is None else f", load average {this['load']:.1f}"
    lines = [*plan.head, f"{this['cpus']} CPUs{load}, {this['system']}, Python {this['python']}, NumPy {this['numpy']}"]
    print("\n".join(fill(line if i == 0 else f"  {line}", "    ") for i, line in enumerate(lines)), flush=True)
    with counting(report.warned), spoken_log(report.notes), ended_by_signals() as told:
        try:
            plan.work(report)
        # told below, or raised again when nothing is lost
        except BaseException as reason:
            failure = told[0] if told else reason
            report.stopped = said_of(failure)
    if failure is not None and not report.rows:
        raise failure
    # what is solved again for a picture has been counted
    with counting({}):
        publish(args, plan, report, this)
    if failure is None:
        return 0
    if isinstance(failure, (KeyboardInterrupt, FloatingPointError)):
        return status_of(failure)
    raise failure


def check_lists(args: Namespace) -> None:
    """UserError for a row that was asked for twice."""
    for name, given in vars(args).items():
        if isinstance(given, list) and len(set(given)) < len(given):
            raise UserError(f"--{name.replace('_', '-')} {' '.join(map(str, given))}: each once")


def check_files(args: Namespace) -> None:
    """UserError for a file that could not be written, before anything has run."""
    kept = vars(args).get("checkpoint")
    paths = [*files_of(args), *([kept] if kept else [])]
    for i, path in enumerate(paths):
        folder = Path(path).resolve().parent
        if not folder.is_dir():
            raise UserError(f"{path} cannot be written, because there is no folder {folder}; create it first, or choose another place")
        if Path(path).resolve() in [Path(other).resolve() for other in paths[:i]]:
            raise UserError(f"{path} is named twice; give each file a name of its own")
        if not writable(Path(path), folder):
            raise UserError(f"{path} cannot be written: it is a folder, or writing there is not allowed; choose another place")
    if args.plot is None:
        return
    if Path(args.plot).suffix[1:].lower() not in ENDINGS:
        raise UserError(f"--plot {args.plot}: the ending says what is drawn: .{', .'.join(ENDINGS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("--plot needs matplotlib, which is not installed; it comes with pip install 'revode[plot]'") from None


def writable(path: Path, folder: Path) -> bool:
    """Whether a file can be made there: tried, because what os.access says is not so for every user and file system."""
    try:
        if path.exists():
            path.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def files_of(args: Namespace) -> list[str]:
    """What was asked to be written. Not every command has parameters to save."""
    return [path for name in FILES if (path := vars(args).get(name)) is not None]


def machine() -> dict:
    """What the figures are measured on; load: processes at work before ours, averaged over a minute."""
    return {"cpus": os.cpu_count(), "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(), "numpy": np.__version__}


# Progress, and what would interrupt it --------------------------------------------------------------------------------------------
@contextmanager
def progress_bar(total: float, unit: str, name: str | None) -> Iterator[Callable]:
    """A function of (how much more was done, what to say of it) that draws itself with tqdm; it does nothing without a name or
    without tqdm."""
    bar = None
    if name is not None:
        try:
            from tqdm import tqdm
            # In a log file every redraw is a new line, so they are kept few.
            bar = tqdm(total=total, desc=name, unit=unit, unit_scale=unit == "s", mininterval=0.2 if sys.stderr.isatty() else 10.0)
        except ImportError:
            print("No progress bar, because tqdm is not installed; it comes with pip install 'revode[plot]'.", file=sys.stderr)

    def tell(more: float, words: str = "") -> None:
        if bar is not None:
            bar.set_postfix_str(words, refresh=False)
            bar.update(min(more, total - bar.n))             # the last step may go beyond a time that was given

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


class Ended(KeyboardInterrupt):
    """A signal that asks to end: what Ctrl-C does, under another number."""

    def __init__(self, number: int) -> None:
        super().__init__("terminated")
        self.number = number


def said_of(reason: BaseException) -> str:
    """Why the work ended, in words."""
    return str(reason) or (INTERRUPTED if isinstance(reason, KeyboardInterrupt) else repr(reason))


def status_of(reason: BaseException) -> int:
    """The exit status: as of a shell, 128 and the number of the signal, for what a signal ended; 2
    for what the user can put right; 1 for what broke down."""
    if isinstance(reason, KeyboardInterrupt):
        return 128 + getattr(reason, "number", signal.SIGINT)
    return 2 if isinstance(reason, UserError) else 1


@contextmanager
def ended_by_signals() -> Iterator[list[Ended]]:
    """SIGTERM and SIGHUP (a batch system, a terminal that closes) end like Ctrl-C; yields those that
    came. What whoever started us has set to be ignored stays so."""
    told: list[Ended] = []

    def end(number: int, frame: Any) -> None:
        told.append(Ended(number))
        raise told[-1]

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield told
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


def shown(jobs: Sequence, name: str) -> Iterator[Any]:
    """The jobs, with a progress bar."""
    with progress_bar(len(jobs), "it", name) as tell:
        for job in jobs:
            yield job
            tell(1)


@contextmanager
def counting(warned: dict[str, list]) -> Iterator[dict[str, list]]:
    """Count RevodeWarnings by class instead of printing them, and add them to `warned`; others pass."""
    mine: dict[str, list] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("always", RevodeWarning)
        usual = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, RevodeWarning):
                mine.setdefault(category.__name__, [0, str(message)])[0] += 1
            else:
                usual(message, category, *rest, **options)

        warnings.showwarning = show
        try:
            yield mine
        finally:
            for name, (count, first) in mine.items():
                warned.setdefault(name, [0, first])[0] += count


@contextmanager
def spoken_log(notes: list[str]) -> Iterator[None]:
    """Messages of the library's log (what runs where, and why) become notes, each once."""
    def emit(record: logging.LogRecord) -> bool:
        if (text := record.getMessage()) not in notes:
            notes.append(text[0].upper() + text[1:])
        return False

    log = logging.getLogger("revode")
    log.addFilter(emit)
    try:
        yield
    finally:
        log.removeFilter(emit)


# Publishing -----------------------------------------------------------------------------------------------------------------------
def publish(args: Namespace, plan: Plan, report: Report, this: dict) -> None:
    """Print tables and notes; write the files that were asked for, each whatever became of the others."""
    print()
    print("\n\n".join(plan.tables(report)))
    if report.stopped is not None:
        report.notes.insert(0, f"Ended early ({report.stopped}); what was found until then is shown.")
    report.notes += [f"{count:,} solve{'s' * (count > 1)} gave a{'n' * (name[0] in 'AEIO')} {name}: {first}"
                     for name, (count, first) in report.warned.items()]
    for note in report.notes:
        print(fill(note))
    if plan.published is not None:
        print(f"\n{plan.published}")
    failed = []
    for path in files_of(args):
        try:
            if path == args.json:
                write_json(path, args, plan, report, this)
            elif path == args.plot:
                with plotting.style():
                    figure, words = plan.picture(report)
                    plotting.save(figure, path, words)
            else:
                save(path, report.runs[0].best)
            print(f"wrote {path}")
        except OSError as error:
            failed.append(f"{path} could not be written: {error.strerror or error}")
    if failed:
        raise UserError("; ".join(failed))


def write_json(path: str, args: Namespace, plan: Plan, report: Report, this: dict) -> None:
    """Everything that was measured; null where there is none."""
    options = {name: value for name, value in vars(args).items()
               if name not in ("run", "plot", "json", "save") and not callable(value)}
    whole = {"schema": SCHEMA, "revode": __version__, "command": args.command, "settings": {**options, **plan.settings},
             "machine": this, "rows": report.rows, "losses": report.losses, "notes": report.notes, "warnings": report.warned,
             "stopped": report.stopped, **report.more, "published": plan.published and plan.published._asdict()}
    Path(path).write_text(json.dumps(plain(whole), indent=1, allow_nan=False) + "\n")


def plain(x: Any) -> Any:
    """The same for JSON: None for numbers that it has no name for, text for what is no data."""
    if isinstance(x, dict):
        return {str(key): plain(value) for key, value in x.items()}
    if hasattr(x, "_asdict"):
        return plain(x._asdict())
    if isinstance(x, (list, tuple)):
        return [plain(value) for value in x]
    if isinstance(x, (np.ndarray, np.generic)):
        return plain(x.tolist())
    if isinstance(x, float):
        return float(x) if math.isfinite(x) else None
    return x if x is None or isinstance(x, (str, int, bool)) else repr(x)

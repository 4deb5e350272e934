"""`revode check`: run somebody's implementation on the conformance cases and report."""
from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from .cases import chosen
from .judging import LEVELS, Verdict, judge
from .outside import CannotRun, function, program

EXAMPLES = """examples:
  revode check --impl mysolver:check_me                     a Python function, on every case
  revode check --impl mysolver:check_me --cases 'coupled-*' --level y
  revode check --exec ./solver --cases alf,alf-eta0.875     a program that reads JSON and prints JSON
  revode check --exec 'julia check_me.jl' --json
  revode check --list                                       the names of the cases

exit status: 0 all that was run conforms, 1 something differs, 2 something could not be run, or nothing was.
docs/conformance.md and chapter 14 of the book say what a function or a program is given, and what it returns.
"""


def add_parser(commands: Any) -> None:
    sub = commands.add_parser("check", help="Check an implementation of a reversible method, step by step.",
                              description="Check anybody's implementation against cases computed in 50 digits.",
                              epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    who = sub.add_mutually_exclusive_group(required=True)
    who.add_argument("--impl", metavar="MODULE:FUNCTION", help="a Python function")
    who.add_argument("--exec", metavar="PROGRAM", dest="program", help="a program, with its arguments")
    who.add_argument("--list", action="store_true", help="list the cases")
    sub.add_argument("--cases", default="*", metavar="GLOB", help="names of cases, such as 'coupled-*'; several with commas between")
    sub.add_argument("--level", choices=LEVELS, default="gradients", help="what is compared; default: gradients, and all before it")
    sub.add_argument("--json", action="store_true", help="print a list of JSON objects, one a case")


def main(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    cases = chosen(args.cases)
    if not cases:
        print(f"revode check: no case is named {args.cases!r}; revode check --list names them", file=sys.stderr)
        return 2
    if args.list:
        print("\n".join(case.problem.name for case in cases))
        return 0
    try:
        implementation = function(args.impl) if args.impl else program(args.program)
    except CannotRun as error:
        print(f"revode check: {error}", file=sys.stderr)
        return 2
    verdicts = []
    for case in cases:
        verdicts.append(judge(case, implementation, args.level))
        if not args.json and verdicts[-1].status != "not offered":
            print("\n".join(verdicts[-1].lines()), flush=True)
    print(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) if args.json else summary(verdicts))
    return status(verdicts)


def summary(verdicts: list[Verdict]) -> str:
    counts = Counter(verdict.status for verdict in verdicts)
    plural = {"conforms": "conform", "differs": "differ", "could not run": "could not run", "not offered": "not offered"}
    return ", ".join(f"{counts[name]} {plural[name] if counts[name] != 1 else name}" for name in plural if counts[name])


def status(verdicts: list[Verdict]) -> int:
    """0, 1 or 2 as the help says."""
    found = {verdict.status for verdict in verdicts}
    return 1 if "differs" in found else 2 if "could not run" in found or "conforms" not in found else 0

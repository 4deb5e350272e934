"""The command line; `python -m revode` is the same as `revode`. The arguments are in
experiments/cli.py."""
from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .conformance import command as check
from .experiments import export
from .experiments.backends import UserError
from .experiments.cli import parser
from .experiments.ranks import as_one, joined
from .experiments.runner import carry_out, said_of, status_of

WITHOUT_PLAN = {"check": check, "export": export}        # commands that are no work with a report


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. argv: the words after `revode`; None for those of
    the process."""
    try:
        joined()
    except UserError as reason:
        print(f"revode: {reason}", file=sys.stderr)
        return 2
    args = parser().parse_args(argv)
    try:
        if args.command in WITHOUT_PLAN:
            return as_one(args, lambda: WITHOUT_PLAN[args.command].main(args))
        return as_one(args, lambda: carry_out(args, args.plan(args)))
    except (UserError, FloatingPointError, KeyboardInterrupt) as reason:
        ahead = "" if isinstance(reason, UserError) else "\n"          # of a progress bar
        print(f"{ahead}revode {args.command}: {said_of(reason)}", file=sys.stderr)
        return status_of(reason)
    except BrokenPipeError:                                # who reads has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


if __name__ == "__main__":
    sys.exit(main())

"""The command line; `python -m revode` is the same as `revode`. The arguments are in
experiments/cli.py."""
from __future__ import annotations

import sys
from collections.abc import Sequence

from .conformance import command as check
from .experiments import export
from .experiments.backends import UserError
from .experiments.cli import parser
from .experiments.runner import carry_out

WITHOUT_PLAN = {"check": check, "export": export}        # commands that are no work with a report


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. argv: the words after `revode`; None for those of
    the
    process."""
    args = parser().parse_args(argv)
    said, status = "interrupted", 130
    try:
        if args.command in WITHOUT_PLAN:
            return WITHOUT_PLAN[args.command].main(args)
        return carry_out(args, args.plan(args))
    except UserError as error:
        said, status = str(error), 2
    except FloatingPointError as error:
        said, status = str(error), 1
    except KeyboardInterrupt:
        pass
    print(f"\nrevode {args.command}: {said}" if status != 2 else f"revode {args.command}: {said}",
          file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

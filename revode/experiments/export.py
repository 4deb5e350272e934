"""revode export: write a trained model as a file in C99 that stands by itself (rv.export_c).

examples:
  revode train white-dwarf --save star.npz
  revode export white-dwarf --params star.npz --output star.c
  revode export white-dwarf --params star.npz --output star.c --arguments --no-gradient

The file has the parameters as constants, or with --arguments as an argument; beside it lies a
header that says what each argument of its functions is. The options of the experiment (steps,
dtype, ...) are to be those of the training.
"""
from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..archive import load
from ..engine import tree
from ..export import export_c
from . import EXPERIMENTS
from .backends import UserError
from .options import defaults

plan = None          # there is no report; main does it all
DRIVEN = "diffusion", "noise", "interpretation", "control"


class Asked(Exception):
    """What the loss of an experiment asked of solve."""


def add_options(sub: Any) -> None:
    sub.add_argument("--params", metavar="IN.npz", required=True, help="what `revode train --save` wrote")
    sub.add_argument("--output", metavar="OUT.c", required=True, help="the file to write")
    sub.add_argument("--arguments", action="store_true", help="parameters as an argument of the functions")
    sub.add_argument("--no-gradient", action="store_true", help="the forward solve alone")


def main(args: Namespace) -> int:
    """Run the command; returns the exit status."""
    module = EXPERIMENTS[args.experiment]
    try:
        params = load(args.params)
        made = module.experiment(**{name: getattr(args, name) for name in defaults(module)})
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    e = made[0] if isinstance(made, list) else made
    wanted = e.start(0)
    if shapes(params) != shapes(wanted):
        raise UserError(f"{args.params} holds {tree.describe(params)}, and {args.experiment} with "
                        f"these options has {tree.describe(wanted)}")
    field, y0, ts, params, more = asked(e, params)
    if e.adaptive or "controller" in more:
        raise UserError(f"{args.experiment} has adaptive steps; what is exported has a given grid")
    try:
        export_c(field, y0, ts, params, method=e.method, path=args.output, save=more.get("save"),
                 gradient=not args.no_gradient, constants=not args.arguments,
                 **{name: more[name] for name in DRIVEN if name in more})
    except (ValueError, TypeError, OSError) as error:
        raise UserError(str(error)) from None
    print(f"wrote {args.output} and {Path(args.output).with_suffix('.h')}")
    return 0


def shapes(params: Any) -> tuple:
    leaves, structure = tree.flatten(params)
    return structure, [np.shape(x) for x in leaves]


def asked(e: Any, params: Any) -> tuple:
    """The arguments that the loss of an experiment calls solve with: field, y0, ts, params, more."""
    def solve(field: Any, y0: Any, ts: Any, params: Any = None, **more: Any) -> NoReturn:
        raise Asked(field, y0, ts, params, more)

    try:
        e.loss(params, solve)
    except Asked as found:
        return found.args
    raise AssertionError(f"{e.title}: a loss that does not solve")

"""The commands: each a module with what it is for and its examples (__doc__), add_options(parser), and plan(args), what it does.

`train`, `compare` and `export` are of an experiment, whose options are the arguments of its experiment(...).
"""
from __future__ import annotations

import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from .. import __version__
from ..conformance import command as check
from . import EXPERIMENTS, compare, complexity, convergence, digits, export, gbm, language, options, stability, train

STUDIES = {"train": {"language": language, "digits": digits}, "compare": {"language": language, "digits": digits, "gbm": gbm},
           "export": {}}


def parser() -> ArgumentParser:
    """Every command; args.plan(args) is its Plan."""
    top = ArgumentParser(prog="revode", description="Reversible backpropagation through differential equations, on NumPy.",
                         epilog="`revode COMMAND --help` shows examples, `revode COMMAND EXPERIMENT --help` the options.")
    top.add_argument("--version", action="version", version=f"revode {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, module in (("train", train), ("compare", compare), ("export", export)):
        experiments = commands.add_parser(command, **explained(module)).add_subparsers(
            dest="experiment", metavar="EXPERIMENT", required=True)
        for name, problem in EXPERIMENTS.items():
            sub = experiments.add_parser(name, **explained(problem))
            options.of_experiment(sub, problem)
            module.add_options(sub)
            sub.set_defaults(plan=module.plan)
        for name, study in STUDIES[command].items():
            add_study(experiments, name, study)
    for name, study in (("complexity", complexity), ("convergence", convergence), ("stability", stability)):
        add_study(commands, name, study)
    check.add_parser(commands)
    return top


def add_study(subparsers: Any, name: str, module: Any) -> None:
    """A command with rows of its own."""
    sub = subparsers.add_parser(name, **explained(module))
    module.add_options(sub)
    options.files(sub)
    sub.set_defaults(plan=module.plan)


def explained(module: Any) -> dict:
    """What argparse is told of a module: its docstring without the name of the command, and of that the first sentence; examples and
    what follows come last."""
    text = re.sub(r"^revode .*?: ", "", module.__doc__)
    description, head, examples = (text[:1].upper() + text[1:]).partition("examples:\n")
    return {"help": " ".join(description.partition("\n\n")[0].split()), "description": description, "epilog": head + examples,
            "formatter_class": RawDescriptionHelpFormatter}

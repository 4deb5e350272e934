"""How words of the command line are read, and the options that many commands have."""
from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from inspect import signature
from typing import Any

from . import names


def reads(what: str, read: Callable[[str], Any], holds: Callable[[Any], bool]) -> Callable[[str], Any]:
    """A converter of one word, with argparse's way of saying that it is not what is expected."""
    def convert(text: str) -> Any:
        try:
            value = read(text)
            fits = holds(value)
        except ValueError:
            fits = False
        if not fits:
            raise ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return convert


def whole(least: int) -> Callable[[str], int]:
    return reads(f"a whole number of at least {least}", lambda text: int(text) if text.isdigit() else -1, lambda n: n >= least)


share = reads("a share from 0 to below 1", float, lambda p: 0.0 <= p < 1.0)
minutes = reads("a number of minutes", float, lambda m: 0.0 < m < math.inf)
coupling = reads("a coupling; give a number in (0, 1], such as 0.999", float, lambda lam: 0.0 < lam <= 1.0)


def named(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter by names.method or names.gradient, which say themselves what the names are."""
    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return convert


ARGUMENTS: dict[str, dict] = {       # of experiments
    "steps": {"type": whole(1), "metavar": "N",
              "help": "grid intervals (pendulum: between data; default 200 of a recording, 50 simulated)"},
    "dtype": {"choices": ("float64", "float32"), "help": "of the solve"},
    "data": {"metavar": "PATH", "help": "your copy of the recording; by default the system is simulated"},
    "paths": {"type": whole(2), "metavar": "B", "help": "of the model in each loss"},
    "data_paths": {"type": whole(2), "metavar": "B", "help": "of the data"},
    "diffusion": {"choices": ("time", "state"), "help": "what g reads: t, or t and X"},
    "points": {"type": whole(2), "metavar": "B", "help": "of the data"},
    "series": {"type": whole(2), "metavar": "B", "help": "to train on; twice as many are held out"},
    "dropped": {"type": share, "nargs": "+", "metavar": "P", "help": "shares of observations that are missing"},
    "control": {"choices": ("linear", "hermite"), "nargs": "+", "help": "paths through the observations"},
    "method": {"type": named(names.method), "metavar": "M", "help": "how to step; by default the published one"},
    "seed": {"type": whole(0), "metavar": "S", "help": "of the initial parameters, and of simulated noise and data"},
}


def defaults(module: Any) -> dict[str, Any]:
    """The options that an experiment has: the arguments of its experiment(...)."""
    return {name: given.default for name, given in signature(module.experiment).parameters.items()}


def of_experiment(parser: Any, module: Any) -> None:
    for option, default in {**defaults(module), "seed": 0}.items():
        how = dict(ARGUMENTS[option])
        said = " ".join(map(str, default)) if isinstance(default, tuple) else default
        how["help"] += "" if default is None else f"; default {said}"
        parser.add_argument(f"--{option.replace('_', '-')}", default=default, **how)


def files(parser: Any) -> None:
    parser.add_argument("--plot", metavar="OUT.png", help="draw what was found (needs matplotlib)")
    parser.add_argument("--json", metavar="OUT.json", help="write every figure")


def certify(parser: Any) -> None:
    parser.add_argument("--certify", type=whole(1), nargs="?", const=4, default=0, metavar="K",
                        help="measure the error of the gradient along K random directions (4), by forward mode on the tape")

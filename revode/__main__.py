"""The command line: train, compare, complexity, convergence, stability, check; `python -m revode` is the same as `revode`."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from . import __version__
from .compiled.native import CompileError
from .engine.tensor import NotTraceable

EXAMPLES_TRAIN = """examples:
  revode train white-dwarf                                     1000 iterations, the published experiment
  revode train white-dwarf --gradient checkpointed:8           the same gradient from 8 stored states
  revode train white-dwarf --backend native                    by compiled code, in seconds
  revode train white-dwarf --method reversible-heun --iterations 100
  revode train white-dwarf --plot fit.png --json figures.json --save params.npz
  revode train pendulum --data recorded.txt --iterations 10000   your copy of the recording, as published
  revode train spiral --plot spiral.png                        rebuilt and continued beyond the data
  revode train ou --plot ou.png                                SDEs (ou, stochastic-volatility), a flow, a controlled
                                                               equation (cde): options of their own, revode train ou --help

gradient modes: reversible, reversible:100 (store a state every 100 steps), automatic, direct, checkpointed:8, backsolve
methods:        coupled:midpoint:0.999 (base and lam), reversible-heun, alf:1.0 (eta), leapfrog-midpoint, ees25:0.1 (x),
                ees27, ees:6 (stages), near-reversible:rk4, runge-kutta:rk4 (not reversible)
bases:          euler, midpoint, heun2, ralston3, bosh3, rk4, dopri5, tsit5
"""

EXAMPLES_COMPARE = """examples:
  revode compare white-dwarf                                   train with reversible, measure every gradient mode
  revode compare white-dwarf --plot compare.png --json figures.json
  revode compare white-dwarf --iterations 1000 --full          train with every mode; takes hours
  revode compare gbm --plot gbm.png                            which method survives which step of a stiff SDE

Without --full, the modes other than reversible take a few iterations each, and their total times are extrapolated.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. argv: the words after `revode`; None for those of the process."""
    from .conformance import command
    from .experiments import complexity, convergence, fits, stability
    args = fits.parse(argv) or parser().parse_args(argv)
    from .experiments.commands import UserError, run_compare, run_train
    commands = {"train": run_train, "compare": run_compare, "complexity": complexity.main,
                "convergence": convergence.main, "stability": stability.main, "check": command.main}
    try:
        return getattr(args, "run", commands[args.command])(args)
    except UserError as error:
        print(f"revode {args.command}: {error}", file=sys.stderr)
        return 2
    except (NotTraceable, NotImplementedError, CompileError) as error:       # of native, of cuda, of the compiler
        print(f"\nrevode {args.command}: --backend {args.backend} cannot run this: {str(error).rstrip('.')}. "
              "--backend replay and --backend eager can.", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ("matplotlib", "tqdm"):
            raise
        print(f"revode {args.command}: {error.name} is not installed; it comes with pip install 'revode[plot]'",
              file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"\nrevode {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nrevode {args.command}: interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The arguments. Experiments are listed from revode/experiments, methods and gradient modes by name."""
    from .conformance import command
    from .experiments import EXPERIMENTS, complexity, convergence, engines, fits, stability
    from .experiments.commands import COMPARE_ITERATIONS
    top = argparse.ArgumentParser(
        prog="revode", description="Reversible backpropagation through differential equations, on NumPy.",
        epilog="`revode COMMAND --help` shows the options of a command, with examples.")
    top.add_argument("--version", action="version", version=f"revode {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, what, examples in (
            ("train", "train a model with one gradient mode", EXAMPLES_TRAIN),
            ("compare", "train with reversible gradients, and measure the other modes beside it", EXAMPLES_COMPARE)):
        most = f"at most {COMPARE_ITERATIONS}; " if name == "compare" else ""
        sub = commands.add_parser(name, help=what, description=what, epilog=examples,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.add_argument("experiment", choices=sorted([*EXPERIMENTS, *fits.names_of(name)]), help="which experiment")
        sub.add_argument("--method", type=named("method"), metavar="M", help="how to step; default: the published one")
        sub.add_argument("--iterations", type=positive, metavar="N",
                         help=f"default: enough for a minute or so, {most}the output says how many were published")
        sub.add_argument("--steps", type=positive, metavar="N",
                         help="grid intervals (pendulum: intervals between data); default: the published number")
        sub.add_argument("--data", metavar="PATH", help="recorded data for oscillator or pendulum; default: simulate")
        sub.add_argument("--seed", type=natural, default=0, help="of the initial parameters; default 0")
        sub.add_argument("--dtype", choices=("float64", "float32"), default="float64")
        sub.add_argument("--plot", metavar="OUT.png", help="draw the fit and the loss (needs matplotlib)")
        sub.add_argument("--json", metavar="OUT.json", help="write every figure")
        sub.add_argument("--save", metavar="OUT.npz", help="write the best parameters; rv.load reads them")
        engines.add_options(sub, more=", and in compare a row each for replay and native" if name == "compare" else "")
        if name == "train":
            sub.add_argument("--gradient", type=named("gradient"), metavar="G", help="default: reversible")
        else:
            sub.add_argument("--full", action="store_true", help="train with every gradient mode")
    for module in (complexity, convergence, stability, command):
        module.add_parser(commands)
    return top


def named(kind: str) -> Callable:
    """A converter from a name to (name, method or gradient mode), with argparse's way of saying no."""
    def convert(text: str) -> object:
        from .experiments import names
        try:
            return getattr(names, kind)(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def positive(text: str) -> int:
    return integer(text, 1)


def natural(text: str) -> int:
    return integer(text, 0)


def integer(text: str, least: int) -> int:
    try:
        n = int(text)
    except ValueError:
        n = least - 1
    if n < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return n


if __name__ == "__main__":
    sys.exit(main())

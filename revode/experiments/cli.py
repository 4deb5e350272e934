"""The arguments of every command: revode train | compare EXPERIMENT, complexity, convergence,
stability.

An experiment's OPTIONS name the options that it has, and their defaults; ARGUMENTS says how each is
read. A command becomes a Plan, which the runner carries out.
"""
from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import __version__
from ..checks import checked_gradient
from ..conformance import command as check
from ..gradients import Automatic, Reversible
from . import (
    EXPERIMENTS,
    backends,
    complexity,
    convergence,
    digits,
    export,
    gbm,
    language,
    names,
    stability,
)
from .backends import UserError, cannot_read, whole
from .checkpoints import EVERY, Checkpoint
from .plans import SLOW_ITERATIONS, compare_plan, train_plan
from .ranks import joined
from .runner import Plan
from .training import Run

EXAMPLES = {"train": """examples:
  revode train white-dwarf                                the published experiment, in seconds where
                                                          there is a C++ compiler
  revode train white-dwarf --seeds 0 1 2                  mean and spread of the loss
  revode train white-dwarf --gradient checkpointed:8      the same gradient from 8 stored states
  revode train white-dwarf --method reversible-heun --iterations 100 --backend replay
  revode train white-dwarf --certify                      the gradient's error, measured
  revode train white-dwarf --plot fit.png --json figures.json --save params.npz
  revode train pendulum --data recorded.txt               your copy of the recording, as published
  revode train spiral --plot spiral.png                   rebuilt and continued beyond the data
  revode train ou --plot ou.png                           a neural SDE by five methods
  mpiexec -n 4 revode train ou --checkpoint run.npz       the same on four processes; go on if it
                                                          was ended, on any number
  revode train language --models revdeq --json run.json   a transformer, its depth a fixed point
  revode train digits                                     an image classifier of the same kind

gradient modes: reversible, reversible:100 (store a state every 100 steps), automatic, direct,
                checkpointed:8, backsolve
methods:        coupled:midpoint:0.999 (base and lam), reversible-heun, alf:1.0 (eta),
                leapfrog-midpoint, ees25:0.1 (x), ees27, ees:6 (stages), near-reversible:rk4,
                runge-kutta:rk4 (not reversible)
bases:          euler, midpoint, heun2, ralston3, bosh3, rk4, dopri5, tsit5
""", "compare": """examples:
  revode compare white-dwarf                           train with reversible, measure every mode
  revode compare white-dwarf --plot compare.png --json figures.json
  revode compare white-dwarf --backend eager --full    train with every mode on the tape; hours
  revode compare gbm --plot gbm.png                    which method survives which step of a SDE
  revode compare language --minutes 15 --seeds 0 1 2   equilibrium models beside explicit ones
  revode compare digits --seeds 0 1 2                  the same on images

Without --full, the modes other than reversible take some iterations each, in turns, from the
parameters that reversible found; their total times are extrapolated.
"""}
WHAT = {"train": "Train a model with one gradient mode.",
        "compare": "Train with reversible gradients, and measure the other modes beside it."}


def share(text: str) -> float:
    """A share of observations."""
    try:
        p = float(text)
    except ValueError:
        p = -1.0
    if not 0.0 <= p < 1.0:
        raise ArgumentTypeError(f"{text!r} is not a share from 0 to below 1")
    return p


def named(kind: str) -> Callable:
    """A converter from a name to a method or a gradient mode, with argparse's way of saying no."""
    def convert(text: str) -> object:
        try:
            return getattr(names, kind)(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return convert


ARGUMENTS: dict[str, dict] = {
    "steps": {"type": whole(1), "metavar": "N",
              "help": "grid intervals (pendulum: between data; default 200 of a recording, "
              "50 simulated)"},
    "dtype": {"choices": ("float64", "float32"), "help": "of the solve"},
    "data": {"metavar": "PATH",
             "help": "your copy of the recording; by default the system is simulated"},
    "paths": {"type": whole(2), "metavar": "B", "help": "of the model in each loss"},
    "data_paths": {"type": whole(2), "metavar": "B", "help": "of the data"},
    "diffusion": {"choices": ("time", "state"), "help": "what g reads: t, or t and X"},
    "points": {"type": whole(2), "metavar": "B", "help": "of the data"},
    "series": {"type": whole(2), "metavar": "B", "help": "to train on; twice as many are held out"},
    "dropped": {"type": share, "nargs": "+", "metavar": "P",
                "help": "shares of observations that are missing"},
    "control": {"choices": ("linear", "hermite"), "nargs": "+",
                "help": "paths through the observations"},
    "method": {"type": named("method"), "metavar": "M",
               "help": "how to step; by default the published one"},
    "seed": {"type": whole(0), "metavar": "S",
             "help": "of the initial parameters, and of simulated noise and data"},
}


def parser() -> ArgumentParser:
    """Every command; args.plan(args) is its Plan."""
    top = ArgumentParser(prog="revode",
                         description="Reversible backpropagation through differential equations, "
                                     "on NumPy.",
                         epilog="`revode COMMAND --help` shows examples, `revode COMMAND "
                                "EXPERIMENT --help` the options.")
    top.add_argument("--version", action="version", version=f"revode {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, what in WHAT.items():
        sub = commands.add_parser(command, help=what, description=what, epilog=EXAMPLES[command],
                                  formatter_class=RawDescriptionHelpFormatter)
        experiments = sub.add_subparsers(dest="experiment", metavar="EXPERIMENT", required=True)
        for name, module in EXPERIMENTS.items():
            add_experiment(experiments, command, name, module)
        add_study(experiments, "language", language)
        add_study(experiments, "digits", digits)
        if command == "compare":
            add_study(experiments, "gbm", gbm)
    for name, module in (("complexity", complexity), ("convergence", convergence),
                         ("stability", stability)):
        add_study(commands, name, module)
    add_export(commands)
    check.add_parser(commands)
    return top


def add_files(sub: Any) -> None:
    sub.add_argument("--plot", metavar="OUT.png", help="draw what was found (needs matplotlib)")
    sub.add_argument("--json", metavar="OUT.json", help="write every figure")


def explained(module: Any) -> dict:
    """What argparse is told of a module: its docstring without the name of the command, and of that
    the first sentence."""
    text = re.sub(r"^revode .*?: ", "", module.__doc__)
    text = text[:1].upper() + text[1:]
    return {"help": " ".join(text.partition("\n\n")[0].split()), "description": text,
            "formatter_class": RawDescriptionHelpFormatter}


def add_study(subparsers: Any, name: str, module: Any) -> None:
    """A command with rows of its own: module.add_options(parser), module.plan(args)."""
    sub = subparsers.add_parser(name, **explained(module))
    module.add_options(sub)
    add_files(sub)
    sub.set_defaults(plan=module.plan)


def add_problem(subparsers: Any, name: str, module: Any) -> Any:
    """The parser of an experiment, with its OPTIONS."""
    sub = subparsers.add_parser(name, **explained(module))
    for option, default in {**module.OPTIONS, "seed": 0}.items():
        how = dict(ARGUMENTS[option])
        how["help"] += "" if default is None else f"; default {default}"
        sub.add_argument(f"--{option.replace('_', '-')}", default=default, **how)
    return sub


def add_export(commands: Any) -> None:
    sub = commands.add_parser("export", **explained(export))
    experiments = sub.add_subparsers(dest="experiment", metavar="EXPERIMENT", required=True)
    for name, module in EXPERIMENTS.items():
        export.add_options(add_problem(experiments, name, module))


def add_experiment(subparsers: Any, command: str, name: str, module: Any) -> None:
    sub = add_problem(subparsers, name, module)
    sub.add_argument("--seeds", type=whole(0), nargs="+", metavar="S",
                     help="train once for each; mean and spread")
    sub.add_argument("--iterations", type=whole(1), metavar="N",
                     help="default: enough for a minute or so")
    add_files(sub)
    sub.add_argument("--save", metavar="OUT.npz",
                     help="write the best parameters of the first row; rv.load reads them")
    backends.add_certify(sub)
    backends.add_options(sub)
    if command == "train":
        sub.add_argument("--gradient", type=named("gradient"), metavar="G",
                         help="default: reversible")
        sub.add_argument("--checkpoint", metavar="RUN.npz",
                         help=f"write the training every {EVERY} iterations; go on from there if "
                              "the file is there")
        sub.set_defaults(plan=plan_train)
    else:
        sub.add_argument("--full", action="store_true", help="train with every gradient mode")
        sub.set_defaults(plan=plan_compare)


# From arguments to plans --------------------------------------------------------------------------
def jobs_of(args: Namespace, gradient: Any) -> list[Run]:
    """The rows: experiments times seeds. UserError for what is known to fail before anything has
    run."""
    module, solver, jobs = EXPERIMENTS[args.experiment], backends.chosen(args), []
    options = {name: getattr(args, name) for name in module.OPTIONS
               if name not in ("method", "seed")}
    for seed in args.seeds or [args.seed]:
        try:
            made = module.experiment(**options,
                                     **({"seed": seed} if "seed" in module.OPTIONS else {}))
        except (ValueError, OSError) as error:
            if options.get("data") is None:
                raise
            raise UserError(cannot_read("--data", args.data, error)) from None
        for e in made if isinstance(made, list) else [made]:
            method = vars(args).get("method") or e.method
            if e.adaptive and method.error_order is None:
                raise UserError(f"{args.experiment} takes adaptive steps, and {method!r} has no "
                                "error estimate to choose them by; take another, such as "
                                "coupled:bosh3:0.999 or reversible-heun")
            mode = checked_mode(gradient, method)
            name = e.name if isinstance(made, list) else names.spell(mode)
            jobs.append(Run(f"{name}, seed {seed}" if args.seeds else name, e, replace(solver, method=method, gradient=mode), seed,
                            args.certify, args.iterations or e.iterations))
    return jobs


def checked_mode(gradient: Any, method: Any) -> Any:
    """The gradient mode; Reversible where none is named and the method can be run backwards: what
    is measured is the sweep itself, not what the library falls back to."""
    try:
        mode = checked_gradient(gradient, method)
    except TypeError as error:
        raise UserError(str(error).removeprefix("solve: ")) from None
    return Reversible() if gradient is None and isinstance(mode, Automatic) else mode


def plan_train(args: Namespace) -> Plan:
    jobs = shared_out(args, jobs_of(args, args.gradient))
    kept = None
    if args.checkpoint is not None:
        options = EXPERIMENTS[args.experiment].OPTIONS
        kept = Checkpoint(args.checkpoint, {"experiment": args.experiment,
                                            "gradient": names.spell(jobs[0].solve.gradient)}
                          | {name: str(getattr(args, name)) for name in dict.fromkeys([*options, "seed", "seeds"])})
    return train_plan(args, jobs, kept)


def shared_out(args: Namespace, jobs: list[Run]) -> list[Run]:
    """The rows on all ranks of mpiexec, if there are any; UserError for what does not go there."""
    if (ranks := joined()) is None:
        return jobs
    if not jobs[0].experiment.shared:
        raise UserError(f"{args.experiment} has no batch of paths to share out over ranks; start "
                        "it without mpiexec")
    for given, option in ((args.backend == "cuda", "--backend cuda"), (args.certify, "--certify")):
        if given:
            raise UserError(f"{option} does not go with mpiexec; start it without")
    return [replace(job, solve=replace(job.solve, ranks=ranks)) for job in jobs]


def plan_compare(args: Namespace) -> Plan:
    jobs = jobs_of(args, Reversible())
    if args.seeds:
        raise UserError("--seeds goes with `revode train`; compare measures one training")
    job = replace(jobs[0], name="reversible")
    if args.iterations is None and job.solve.backend != "native":
        job = replace(job, iterations=min(job.iterations, SLOW_ITERATIONS))
    return compare_plan(args, job)

"""python -m tests.fuzz [--seed 0] [--seconds 60] [--kind ode,sde,...] [--native 0] [--only SEED]

Goes through the kinds in turn, seed by seed, until the time is up. A failure prints the command that makes it again; the exit status
is 1 if there was one. Findings: ok; warned (wrong, and said so); loud (refused); silent (a method by name that is wrong and says
nothing, which reference/detection counts); FAIL.
"""
from __future__ import annotations

import argparse
import functools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from . import contract, programs, solves
from .found import Finding, command

SOLVES = ("ode", "sde", "cde", "adaptive", "chain")
KINDS: dict[str, Callable] = {kind: functools.partial(solves.run, kind) for kind in SOLVES} | {
    f.__name__: f for f in (programs.closures, programs.windows, programs.threads, programs.minibatch, programs.buffers,
                            contract.contract)}


def findings(kind: str, seed: int, native: bool = False) -> Iterator[Finding]:
    """Everything that one case says. A case is made from its kind and its seed, and from nothing else."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return KINDS[kind](seed, rng, native) if kind in SOLVES else KINDS[kind](seed, rng)


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seed", type=int, default=0, help="the first seed")
    ap.add_argument("--seconds", type=float, default=60.0)
    ap.add_argument("--kind", default=",".join(KINDS), help=f"comma separated, of {', '.join(KINDS)}")
    ap.add_argument("--native", type=int, default=0, help="compile at most so many cases (seconds each)")
    ap.add_argument("--only", type=int, help="this seed alone, every finding printed")
    asked = ap.parse_args()
    kinds = asked.kind.split(",")
    if unknown := set(kinds) - set(KINDS):
        ap.error(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    logging.getLogger("revode").setLevel(logging.ERROR)             # a fallback is no finding
    count: Counter = Counter()
    start, seed, native = time.monotonic(), asked.seed if asked.only is None else asked.only, asked.native
    while True:
        for kind in kinds:
            compiled = native > 0 and kind in ("ode", "sde", "chain")
            native -= compiled
            for finding in findings(kind, seed, compiled):
                count[kind, finding.what] += 1
                if finding.failed or asked.only is not None:
                    print(f"{finding.what}  {finding.where}\n      {finding.detail}\n      {command(kind, seed)}"
                          f"{' --native 1' if compiled else ''}", flush=True)
        seed += 1
        if asked.only is not None or time.monotonic() - start > asked.seconds:
            break
    for kind in kinds:
        print(f"{kind:10}", ", ".join(f"{n} {what}" for (of, what), n in sorted(count.items()) if of == kind))
    print(f"seeds {asked.only if asked.only is not None else asked.seed} to {seed - 1}, {time.monotonic() - start:.0f} s")
    return int(any(what == "FAIL" for _, what in count))


if __name__ == "__main__":
    sys.exit(main())

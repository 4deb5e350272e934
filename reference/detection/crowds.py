"""Large batches: does an alarm come by the number of members alone, and does the rule against that (watch/gaps.py) hide one?

    python -m reference.detection.crowds [--solves 400] [--seed 0] [--out docs/measurements/crowds.md]

Solves of 20 to 400 members with one field: decays, growth, rates that change sign and networks, of states that are near each other,
on both sides of zero, or of unlike size. Each is solved with and without the rule. The truth is RK4 with many more steps; `lost` is
an error above a tenth of the usual size (or of half the members' own), and three times that of the method that it is built on with
as many steps; `right` is one below 2 %; `between` is the rest. Networks of 16 features as they are trained come by themselves.
"""
from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import revode as rv

from . import families
from .__main__ import progress
from .page import machine, paragraph
from .tables import markdown, text

OUT = Path(__file__).parents[2] / "docs" / "measurements" / "crowds.md"
METHODS = {"reversible Heun": (rv.ReversibleHeun(), "heun2"), "asynchronous leapfrog": (rv.AsynchronousLeapfrog(), "midpoint"),
           "Coupled midpoint": (rv.Coupled("midpoint", 0.99), "midpoint"), "Coupled RK4": (rv.Coupled("rk4", 0.999), "rk4")}
DRAWN: Sequence[Callable] = (families.contraction, families.growth, families.sign, families.networks)
FINER = 8              # times as many steps, and 200 more, for the truth


class Crowd(NamedTuple):
    field: Callable
    y0: np.ndarray       # (members, d)
    params: Any
    T: float
    N: int
    method: str
    kind: str            # "mixed", or "networks as trained"


def network(rng: np.random.Generator) -> dict:
    return {"W1": rng.normal(size=(16, 32)) / 4, "b1": np.zeros(32), "W2": rng.normal(size=(32, 16)) / 32 ** 0.5, "b2": np.zeros(16)}


def crowds(seed: int, solves: int) -> Iterator[Crowd]:
    rng = np.random.default_rng(seed)
    for k in range(solves):
        method = list(METHODS)[rng.integers(len(METHODS))]
        if k % 4 == 3:
            y0 = rng.normal(size=(int(rng.choice([64, 256, 1024])), 16))
            yield Crowd(families.net, y0, network(rng), 1.0, int(rng.choice([5, 10, 20, 50])), method, "networks as trained")
            continue
        drawn = DRAWN[rng.integers(len(DRAWN))](rng)
        members, y0 = int(rng.choice([20, 64, 400])), np.reshape(drawn.y0, (-1, np.shape(drawn.y0)[-1]))[0]
        y0 = y0 * (np.exp(0.5 * rng.normal(size=(members, *y0.shape))), rng.normal(size=(members, *y0.shape)),
                   10.0 ** rng.uniform(-3, 1, (members, 1)))[rng.integers(3)]
        yield Crowd(drawn.field, y0, drawn.params, drawn.longest * rng.uniform(0.1, 1), int(5 * 80 ** rng.uniform()), method, "mixed")


def end(crowd: Crowd, method: Any, N: int) -> np.ndarray | None:
    ts = np.linspace(0.0, crowd.T, N + 1)
    try:
        return rv.solve(crowd.field, crowd.y0, ts, crowd.params, method=method, backend="eager", save=[-1]).y1
    except FloatingPointError:
        return None


def said(crowd: Crowd) -> tuple[bool, np.ndarray | None]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        y1 = end(crowd, METHODS[crowd.method][0], crowd.N)
    return any(issubclass(x.category, rv.ParasiteWarning) for x in found), y1


def judged(crowd: Crowd) -> tuple[str, bool, bool] | None:
    """What it is, and whether it was said with the rule and without; None where something was not finite."""
    with np.errstate(all="ignore"):
        now, y1 = said(crowd)
        with mock.patch("revode.watch.ahead.among", lambda gap, s: gap / s):
            before, _ = said(crowd)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            truth = end(crowd, rv.RungeKutta("rk4"), FINER * crowd.N + 200)
            plain = end(crowd, rv.RungeKutta(METHODS[crowd.method][1]), crowd.N)
    if truth is None or plain is None or y1 is None:
        return None
    usual, own = np.sqrt(np.mean(truth ** 2)), abs(truth) + np.finfo(float).tiny
    off, of_plain = ((abs(x - truth).max() / usual, np.median(abs(x - truth) / own)) for x in (y1, plain))
    lost = max(off) > 0.1 and any(x > 3 * y for x, y in zip(off, of_plain, strict=True))
    return "lost" if lost else "right" if max(off) < 0.02 else "between", now, before


def rows(records: Sequence[tuple[str, str, bool, bool]]) -> list[list[str]]:
    found = [["crowds", "which are", "solves", "told without the rule", "told with it"]]
    for kind, label in sorted({record[:2] for record in records}):
        some = [record[2:] for record in records if record[:2] == (kind, label)]
        now, before = (sum(told) for told in zip(*some, strict=True))
        found.append([kind, label, str(len(some)), str(before), str(now)])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reference.detection.crowds", description="alarms of large batches")
    parser.add_argument("--solves", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    records, start = [], time.monotonic()
    for k, crowd in enumerate(crowds(args.seed, args.solves)):
        if (verdict := judged(crowd)) is not None:
            records.append((crowd.kind, *verdict))
        progress(k + 1, args.solves, start)
    table, about = rows(records), machine()
    hidden = sum(before and not now for _, label, now, before in records if label == "lost")
    print(text(table))
    command = f"python -m reference.detection.crowds --solves {args.solves} --seed {args.seed}"
    args.out.write_text("\n\n".join([
        "# Many at a time", f"    {command}", paragraph(f"{about['machine']}; revode {about['version']}, {about['date']}."),
        paragraph(" ".join((__doc__ or "").split("\n\n")[2].split())), markdown(table),
        paragraph(f"{args.solves - len(records)} solves more were not finite. Of those that are lost the rule hides "
                  f"{hidden or 'none'}.")]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""python -m reference.recordings PENDULUM.txt OSCILLATOR.txt [--measured A.json B.json]: the two published fits, of the recordings.

Trains the double pendulum and the coupled oscillator on the recorded series (your copies of them), three seeds each, and writes
docs/measurements/recordings.md: the losses beside the published ones, and those of the same parameters with steps half as long.
--measured takes the JSON files of the two commands that the page names, if they have been run.
The oscillator is trained with other networks too, by the same loop, to see what its loss depends on.
"""
from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from revode import nn
from revode.__main__ import main as command
from revode.experiments import oscillator, pendulum
from revode.experiments.backends import Solver
from revode.experiments.training import Run, fit

OUT = Path(__file__).parents[1] / "docs" / "measurements" / "recordings.md"
OPTIONS = ["--backend", "native", "--threads", "1", "--iterations", "10000", "--seeds", "0", "1", "2"]
PUBLISHED = {"pendulum": pendulum.PUBLISHED, "oscillator": oscillator.PUBLISHED}
HEAD = ["experiment", "seed", "iterations", "loss before", "after", "half the steps", "gradient error", "an iteration"]

# Other networks for the oscillator: their widths, and what stands between them.
OTHERS = {"4-10-4, softplus": ((4, 10, 4), partial(np.logaddexp, 0.0)), "4-10-10-4, tanh": ((4, 10, 10, 4), np.tanh)}


def other(data: str, sizes: tuple[int, ...], activation: Any, seed: int) -> list[float]:
    """The loss of the oscillator after its training with this network, and that with half the steps."""
    e = oscillator.experiment(data=data)

    def network(t: Any, y: Any, params: Any) -> Any:
        return nn.mlp(params, y, activation)

    def loss(params: Any, solve: Any) -> tuple:
        return e.loss(params, lambda field, *rest: solve(network, *rest))

    def start(seed: Any) -> Any:
        return nn.mlp_init(np.random.default_rng(seed), sizes, nn.uniform, random_biases=True)

    solver = Solver(backend="native", threads=1, method=e.method)
    run = fit(Run(f"{sizes}", replace(e, loss=loss, start=start), solver, seed, iterations=e.iterations))
    return [run.losses[-1], float(loss(run.params, replace(solver, finer=True))[0])]


def measured(name: str, data: str) -> dict:
    path = Path(tempfile.mkdtemp(), f"{name}.json")
    command(["train", name, "--data", data, *OPTIONS, "--json", str(path)])
    return json.loads(path.read_text())


def lines(name: str, found: dict) -> list[list[str]]:
    return [[name, str(x["seed"]), f"{x['iterations']:,}", f"{x['loss_before']:.2g}", f"{x['loss']:.2e}", f"{x['loss_finer']:.2e}",
             f"{x['gradient_error']:.1e}", f"{1e3 * x['seconds_per_iteration']:.1f} ms"] for x in found["rows"] if "seed" in x]


def summary(name: str, found: dict) -> str:
    losses = [x["loss"] for x in found["rows"] if "seed" in x and x["stopped"] is None]
    said = ", ".join(f"{n:,} {kind}" for kind, (n, _) in found["warnings"].items()) or "none"
    return (f"- **{name}**: {np.mean(losses):.1e} +- {np.std(losses, ddof=1):.0e} over {len(losses)} seeds; published "
            f"{PUBLISHED[name].rows[0][1]}. Warnings of all solves: {said}.")


def sentence(name: str, losses: list) -> str:
    return f"- {name}: " + "; ".join(f"{loss:.2e} (half the steps: {finer:.2e})" for loss, finer in losses)


def page(both: dict[str, dict], others: dict[str, list]) -> str:
    rows = [HEAD, ["---"] * len(HEAD), *(row for name, found in both.items() for row in lines(name, found))]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"""# The recorded systems

    python -m reference.recordings PENDULUM.txt OSCILLATOR.txt

Neural differential equations of the double pendulum and of two masses on springs, fitted to the recordings of Schmidt & Lipson
2009 as McCallum & Foster 2024 did. The recordings are not part of this project: `--data` takes your copy. "Half the steps" is the
loss of the same parameters with steps half as long: a fit that only its own steps make good would show there. "Gradient error" is
that of the last gradient against `Direct()`, an iteration the median by wall clock. Each was trained by

    revode train NAME --data FILE {" ".join(OPTIONS)}

{table}

{chr(10).join(summary(name, found) for name, found in both.items())}

The published loss of the oscillator lies between what this network reaches, 4-10-4 with tanh, and what a second hidden layer
of the same width does. Trained by the same loop, seeds 0, 1, 2:

{chr(10).join(sentence(*it) for it in others.items())}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs=2, help="the recordings of the pendulum and of the oscillator")
    parser.add_argument("--measured", nargs=2, help="JSON files of the two trainings")
    parser.add_argument("--others", type=Path, help="JSON file of the other networks: read if it is there, else written")
    args = parser.parse_args()
    made = [json.loads(Path(path).read_text()) for path in args.measured or []]
    both = {name: made[i] if made else measured(name, data) for i, (name, data) in enumerate(zip(PUBLISHED, args.data, strict=True))}
    if args.others is not None and args.others.exists():
        others = json.loads(args.others.read_text())
    else:
        others = {name: [other(args.data[1], *network, seed) for seed in range(3)] for name, network in OTHERS.items()}
        if args.others is not None:
            args.others.write_text(json.dumps(others))
    OUT.write_text(page(both, others))


if __name__ == "__main__":
    main()

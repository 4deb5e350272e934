"""python -m reference.recordings PENDULUM.txt OSCILLATOR.txt [--measured A.json B.json]: the two published fits, of the recordings.

Trains the double pendulum and the coupled oscillator on the recorded series (your copies of them), three seeds each, and writes
docs/measurements/recordings.md: the losses beside the published ones, and those of the same parameters with steps half as long.
--measured takes the JSON files of the two commands that the page names, if they have been run.
"""
from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from revode.__main__ import main as command
from revode.experiments import oscillator, pendulum

OUT = Path(__file__).parents[1] / "docs" / "measurements" / "recordings.md"
OPTIONS = ["--backend", "native", "--threads", "1", "--iterations", "10000", "--seeds", "0", "1", "2"]
PUBLISHED = {"pendulum": pendulum.PUBLISHED, "oscillator": oscillator.PUBLISHED}
HEAD = ["experiment", "seed", "iterations", "loss before", "after", "half the steps", "gradient error", "an iteration"]


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


def page(both: dict[str, dict]) -> str:
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
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs=2, help="the recordings of the pendulum and of the oscillator")
    parser.add_argument("--measured", nargs=2, help="JSON files of the two trainings")
    args = parser.parse_args()
    made = [json.loads(Path(path).read_text()) for path in args.measured or []]
    both = {name: made[i] if made else measured(name, data) for i, (name, data) in enumerate(zip(PUBLISHED, args.data, strict=True))}
    OUT.write_text(page(both))


if __name__ == "__main__":
    main()

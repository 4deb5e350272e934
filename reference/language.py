"""python -m reference.language [--train] [--measured OUT.json ...]: the comparison of language models, trained for real.

Each model of `revode compare language` is trained for so many minutes of processor time. What was found is kept in
docs/measurements/language.json, a row for each text, model and seed; the page and the picture beside it are made of all rows.

    --train             train what is missing there (by default each model with seed 0, 15 minutes each, of the default text),
                        and write the page after each: an interrupted run goes on where it was
    --measured FILES    take up what `revode compare language --minutes M --json FILE` wrote
Without either, the page is only written anew.
"""
from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from docs.figures import style
from revode.__main__ import main as command
from revode.experiments import language
from revode.plotting import COLOURS, legend

FOLDER = Path(__file__).parents[1] / "docs" / "measurements"
KEPT = ("model", "seed", "parameters", "evaluations", "steps", "seconds", "states", "bits", "along", "residual", "roundtrip",
        "bytes_per_second", "sample")
TITLES = {"genesis": "Genesis", "kjv": "The whole King James Bible"}       # kjv.txt is made as genesis.txt is: Debian's bible-kjv-text
POINTS = 150                    # of a loss curve: means of as many stretches of a training
MODELS = [name for name in language.models() if name != "unrolled"]          # unrolled is revdeq to rounding, by a test


def rows_of(found: dict) -> list[dict]:
    """The rows of a command's JSON, with what they were trained with, and the loss curve in POINTS means."""
    settings = found["settings"]
    shared = {"text": text_name(settings["text"]), "minutes": settings["minutes"], "cell": settings["cell"], "lines": found["lines"],
              "sizes": [settings[key] for key in ("width", "context", "batch")],
              "warnings": {kind: n for kind, (n, _) in found["warnings"].items()}}
    return [{**shared, **{key: row[key] for key in KEPT},
             "curve": [float(f"{np.mean(part):.4f}") for part in np.array_split(found["losses"][row["name"]], POINTS) if len(part)]}
            for row in found["rows"]]


def text_name(path: str | None) -> str:
    return "genesis" if path is None else Path(path).stem


def name_of(row: dict) -> tuple:
    return row["text"], row["cell"], row["minutes"], row["model"], row["seed"]


def train(model: str, seed: int, minutes: float, text: str | None) -> dict:
    path = Path(tempfile.mkdtemp(), "found.json")
    command(["compare", "language", "--models", model, "--seeds", str(seed), "--minutes", f"{minutes:g}", "--json", str(path),
             *(["--text", text] if text else [])])
    return json.loads(path.read_text())


def mean(found: Sequence[float | None], digits: int) -> str:
    values = np.array([x for x in found if x is not None], float)
    if not len(values) or np.isnan(values).any():
        return "-"
    return f"{values.mean():,.{digits}f}" + (f" ± {values.std(ddof=1):,.{digits}f}" if len(values) > 1 else "")


def table(rows: Sequence[dict]) -> str:
    head = ("model", "parameters", "evaluations of a layer", "seeds", "steps", "bytes/s", "bits per byte", "least on the way",
            "residual", "round trip", "warnings")
    lines = [head, ["---"] * len(head)]
    groups = [[row for row in rows if row["model"] == model] for model in MODELS]
    for mine in sorted((g for g in groups if g), key=lambda g: np.mean([row["bits"] for row in g])):
        first = mine[0]
        trips = [row["roundtrip"] for row in mine if row["roundtrip"] is not None]
        over = lambda key, digits, mine=mine: mean([row[key] for row in mine], digits)
        lines.append([first["model"], f"{first['parameters']:,}", str(first["evaluations"]), str(len(mine)), over("steps", 0),
                      over("bytes_per_second", 0), over("bits", 3), mean([min(row["along"]) for row in mine], 3), over("residual", 2),
                      f"{max(trips):.0e}" if trips and max(trips) else "0" if trips else "-",
                      ", ".join(f"{sum(row['warnings'].get(kind, 0) for row in mine):,} {kind}"
                                for kind in sorted({kind for row in mine for kind in row["warnings"]})) or "none"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def budget(rows: Sequence[dict]) -> tuple[str, float, str]:
    return rows[0]["text"], rows[0]["minutes"], rows[0]["cell"]


def section(rows: Sequence[dict], picture: str) -> str:
    text, minutes, cell = budget(rows)
    d, T, B = rows[0]["sizes"]
    trained = {model: " ".join(map(str, sorted(row["seed"] for row in rows if row["model"] == model))) for model in MODELS}
    option = "" if text == "genesis" else f" --text {text}.txt"
    commands = [f"    revode compare language{option} --minutes {minutes:g} --seeds {seeds} "
                f"--models {' '.join(model for model in MODELS if trained[model] == seeds)}"
                for seeds in sorted(set(trained.values()) - {""}, reverse=True)]
    beside = ", ".join(f"{name} {bits:.3f}" for name, bits in rows[0]["lines"].items())
    best = min(rows, key=lambda row: row["bits"])
    samples = [best, *[row for row in rows if row["model"] == "revdeq" and row is not best][:1]]
    written = [f"Written by `{row['model']}` (seed {row['seed']}): *{' '.join(row['sample'].split())}*\n" for row in samples]
    return f"""## {TITLES.get(text, text)}, {minutes:g} minutes of processor time each

{chr(10).join(commands)}

Width {d} (deeper models are narrower), contexts of {T}, {B} a step, the cell `{cell}`. Bits per byte of the held-out text, best first:

{table(rows)}

On the same split: {beside}.

![Training loss of each model against its processor time]({picture})

{chr(10).join(written)}"""


def draw(rows: Sequence[dict], path: Path) -> None:
    """Training loss against processor time, mean of the seeds, a curve for each model; the held-out loss at its end."""
    figure, ax = style.subplots(1, 9.5, 5.6)
    lines, shown = rows[0]["lines"], []
    for model, colour in zip(MODELS, COLOURS, strict=False):
        mine = [row for row in rows if row["model"] == model]
        if not mine:
            continue
        # after the first fifteenth, where every curve falls from the same height
        curve, first = np.mean([row["curve"] for row in mine], axis=0), POINTS // 15
        times = (np.arange(len(curve)) + 0.5) / len(curve) * np.mean([row["seconds"] for row in mine]) / 60
        above = " (above)" if min(curve[first:]) > lines["2-gram"] else ""
        ax.plot(times[first:], curve[first:], color=colour, lw=1.6,
                label=f"{model}: {np.mean([row['bits'] for row in mine]):.3f}{above}")
        looks = np.mean([row["along"][:language.LOOKS] for row in mine], axis=0)
        ax.plot(np.arange(1, len(looks) + 1) / len(looks) * times[-1], looks, "o--", color=colour, ms=5, lw=1)
        shown += [*curve[first:], *looks]
    for name in ("3-gram", "5-gram", "bz2"):
        if min(shown) < lines[name] < max(shown):
            ax.axhline(lines[name], color="#bbbbbb", lw=1, zorder=0)
            ax.text(0.05, lines[name], name, va="bottom", fontsize=10, color="#777777")
    ax.set(xlabel="processor time, minutes", ylabel="bits per byte", title="training (line), held out (dots; the number: at the end)",
           xlim=(0, None), ylim=(None, lines["2-gram"]))              # what ends above knows less than pairs of bytes
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=1)
    style.save(figure, str(path))


HEAD = """# Language models, trained

    python -m reference.language --train

Each model of the command was given the same processor time on one core, about the same number of parameters, the same text and
optimiser (Adam, rate 3e-3 with a warm-up and half a cosine over its own budget). "Evaluations" are those of a layer for each byte,
forward. "Residual" is |z - f(z)| / |f(z)| on held-out text: 0 at an equilibrium, and meaningless for a stack of layers.
"Warnings" were counted over a whole training. The models, and what an equal number of steps gives, are in
[equilibrium models](equilibrium.md) and [chapter 11](../11-equilibrium-models.md). A difference that is smaller than the spread of
seeds is none; where a model has one seed, its spread is not known. "Least on the way" is the least of ten looks at the held-out
text: where it is less than at the end, the model has begun to learn its text by heart, and should have stopped there. Other work ran
beside the trainings, more beside some than beside others: how many steps fit into the same time tells by how much.

The published numbers (RevDEQ 110 M parameters: 23.4, 169 M: 20.7; Transformer-XL 139 M: 35.8, 165 M: 24.3; DEQ 32.4 to 24.2; McCallum,
Arora & Foster 2025) are perplexities of word pieces of WikiText-103 on GPUs: another text, another unit, other hardware.

"""


def write(rows: Sequence[dict]) -> None:
    groups = sorted({budget([row]) for row in rows}, key=lambda b: (b[0] != "genesis", b))
    parts = []
    for n, which in enumerate(groups):
        mine = [row for row in rows if budget([row]) == which]
        picture = FOLDER / f"language-{n}.png"
        draw(mine, picture)
        parts.append(section(mine, picture.name))
    (FOLDER / "language.md").write_text(HEAD + "\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--measured", nargs="+", default=[])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--text", default=None)
    args = parser.parse_args()
    kept = FOLDER / "language.json"
    rows = {name_of(row): row for row in (json.loads(kept.read_text()) if kept.exists() else [])}

    def take(found: dict) -> None:
        rows.update({name_of(row): row for row in rows_of(found)})
        kept.write_text("[\n" + ",\n".join(json.dumps(rows[name]) for name in sorted(rows)) + "\n]\n")

    for path in args.measured:
        take(json.loads(Path(path).read_text()))
    for seed in args.seeds if args.train else ():
        for model in args.models:
            if (text_name(args.text), "residual", args.minutes, model, seed) not in rows:
                take(train(model, seed, args.minutes, args.text))
                write(list(rows.values()))
    write(list(rows.values()))


if __name__ == "__main__":
    main()

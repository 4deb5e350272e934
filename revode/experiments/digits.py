"""revode compare digits: which digit is it? A classifier whose hidden state is a fixed point.

    x = image U + c;     z = tanh(z W + b + x) by iteration, or two layers;     logits = z V + d

1797 images of 8 x 8 pixels, 0 to 16; a fixed third is held out. `unrolled` is the iteration of
`revdeq` with its whole tape; `implicit` and `phantom` take the gradient of the fixed point instead
of that of the iterations.
Data: the test set of "Optical Recognition of Handwritten Digits", E.
Alpaydin & C. Kaynak 1998, UCI Machine Learning Repository (CC BY 4.0), as scikit-learn ships it
(digits.csv.gz, 57 kB). --data takes another file of that form.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np

from .. import nn, optim
from ..engine import value_and_grad
from ..equilibrium import Anderson, Implicit, Phantom, RevDEQ, fixed_point
from ..gradients import Direct, Reversible
from . import equilibria
from .backends import UserError, cannot_read, whole
from .equilibria import Model, Run, rate, share_of
from .runner import Plan, Report

DIGITS = Path(__file__).with_name("digits.csv.gz")
BETA, ITERATIONS, BATCH, RATE = 0.5, 6, 64, 3e-3


class Images(NamedTuple):
    """Pixels (n, 64) from 0 to 1, and labels (n,)."""

    pixels: np.ndarray
    labels: np.ndarray


def data(path: Path | str = DIGITS) -> tuple[Images, Images]:
    """(to train on, held out): every third image is held out. ValueError for a file of another
    form.
    """
    table = np.loadtxt(path, delimiter=",")
    if table.ndim != 2 or table.shape[1] != 65:
        raise ValueError(f"{path} holds a table {table.shape}; each row has 64 pixels and a label")
    every, third = (
        Images(table[:, :64] / 16.0, table[:, 64].astype(int)),
        np.arange(len(table)) % 3 == 2,
    )
    return Images(*(part[~third] for part in every)), Images(*(part[third] for part in every))


def cell(z: Any, params: Any, x: Any) -> Any:
    return np.tanh(z @ params["W"] + params["b"] + x)


def explicit(params: Any, x: Any) -> tuple[Any, Any]:
    """Two layers: the cell from zero, and a layer of the same size after it."""
    return np.tanh(np.tanh(x + params["b"]) @ params["W"] + params["b2"]), None


def deep(method: Any, gradient: Any, **stop: Any) -> Callable:
    def hidden(params: Any, x: Any) -> tuple[Any, Any]:
        found = fixed_point(
            cell, np.zeros(x.shape), params, x, method=method, gradient=gradient, **stop
        )
        return found.z, found

    return hidden


def models() -> dict[str, Model]:
    steps = {"tol": None, "max_steps": ITERATIONS}
    n, solved = 2 * ITERATIONS, {"tol": 1e-4, "max_steps": 60}
    made = [
        Model("explicit", explicit, 2, 2),
        Model("revdeq", deep(RevDEQ(BETA), Reversible(), **steps), 1, n),
        Model("unrolled", deep(RevDEQ(BETA), Direct(), **steps), 1, n),
        Model("implicit", deep(Anderson(), Implicit("gmres", tol=1e-6), **solved), 1, n),
        Model("phantom", deep(RevDEQ(BETA), Phantom(5, 0.5), **steps), 1, n + 5),
    ]
    return {model.name: model for model in made}


def parameters(rng: np.random.Generator, d: int) -> dict:
    drawn = lambda n, m, gain=1.0: gain * rng.standard_normal((n, m)) / n**0.5
    return {
        "U": drawn(64, d),
        "c": np.zeros(d),
        "W": drawn(d, d, 0.5),
        "b": np.zeros(d),
        "b2": np.zeros(d),
        "V": drawn(d, 10),
        "d": np.zeros(10),
    }


def logits(params: Any, model: Model, pixels: np.ndarray) -> tuple[Any, Any]:
    z, found = model.hidden(params, pixels @ params["U"] + params["c"])
    return z @ params["V"] + params["d"], found


def loss(params: Any, model: Model, images: Images) -> tuple[Any, Any]:
    guesses, found = logits(params, model, images.pixels)
    return nn.cross_entropy(guesses, images.labels), found


def train(
    model: Model,
    images: Images,
    seed: int = 0,
    d: int = 48,
    iterations: int | None = 1000,
    minutes: float | None = None,
) -> Iterator[Run]:
    """The training loop; yields the run after each step."""
    rng, run = np.random.default_rng(seed), Run(model, seed)
    params = parameters(rng, d)
    optimiser = optim.adam(lambda n: rate(share, RATE))
    state = optimiser.init(params)
    for batch in optim.minibatches(rng, images, BATCH):
        if (share := share_of(run, iterations, minutes)) >= 1:
            return
        start = process_time()
        (value, run.found), grads = value_and_grad(loss, has_aux=True)(params, model, batch)
        params, state = optimiser.update(params, grads, state)
        run.params = params
        run.seconds += process_time() - start
        run.losses.append(float(value))
        yield run


def accuracy(run: Run, images: Images) -> tuple[float, float]:
    """The share of right guesses in per cent, and the relative residual |z - f(z)| / |f(z)| of the
    hidden states.
    """
    guesses, found = logits(run.params, run.model, images.pixels)
    right = 100.0 * float(np.mean(np.argmax(guesses, -1) == images.labels))
    if found is None:
        return right, float("nan")
    after = cell(found.z, run.params, images.pixels @ run.params["U"] + run.params["c"])
    return right, float(np.linalg.norm(after - found.z) / np.linalg.norm(after))


# the command --------------------------------------------------------------------------------------
def add_options(parser: Any) -> None:
    equilibria.add_options(parser, list(models()), iterations=1000)
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="rows of 64 pixels and a label; default the file that comes along",
    )
    parser.add_argument(
        "--width", type=whole(1), default=48, metavar="N", help="hidden features; default 48"
    )


def plan(args: Namespace) -> Plan:
    """The plan of revode train digits and revode compare digits."""
    try:
        seen, held = data(args.data or DIGITS)
    except (OSError, ValueError) as error:
        raise UserError(cannot_read("--data", args.data, error)) from None

    def score(run: Run) -> dict:
        right, residual = accuracy(run, held)
        return {
            "right": right,
            "residual": residual,
            "norm": float(np.linalg.norm(run.params["W"], 2)),
        }

    def after(report: Report) -> None:
        report.notes += [
            "residual: |z - f(z)| / |f(z)| of the images held out, which is 0 at an equilibrium.",
            "|W|: the largest singular value; above 1 the cell may be no contraction.",
        ]

    return equilibria.plan(
        args,
        [
            f"digits: {len(seen.labels)} images of 8 x 8 pixels to learn from, {len(held.labels)} "
            f"held out",
            f"hidden width {args.width}; {BATCH} a step; Adam, rate {RATE} with a warm-up and "
            f"half a cosine",
        ],
        models(),
        ["revdeq"] if args.command == "train" else list(models()),
        lambda model, seed, **budget: train(model, seen, seed, args.width, **budget),
        score,
        [
            ("right,\nheld out", lambda row: f"{row['right']:.2f} %"),
            ("|W|", lambda row: f"{row['norm']:.2f}"),
        ],
        {"right": "right, held out, %"},
        "loss, nats",
        after,
        lambda params, model: loss(params, model, Images(seen.pixels[:BATCH], seen.labels[:BATCH]))[0],
    )

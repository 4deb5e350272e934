"""revode compare digits: which digit is it? A classifier whose hidden state is a fixed point.

    x = image U + c;     z = tanh(z W + b + x) by iteration, or two layers;     logits = z V + d

1797 images of 8 x 8 pixels, 0 to 16; a fixed third is held out. `unrolled` is the iteration of `revdeq` with its whole tape;
`implicit` and `phantom` take the gradient of the fixed point instead of that of the iterations.
Data: the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin & C. Kaynak 1998, UCI Machine Learning Repository
(CC BY 4.0), as scikit-learn ships it (digits.csv.gz, 57 kB). --data takes another file of that form.
"""
from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import nn, optim
from ..engine import value_and_grad
from ..equilibrium import Anderson, Implicit, Phantom, RevDEQ, fixed_point
from ..gradients import Direct, Reversible
from . import equilibria
from .backends import UserError, cannot_read
from .equilibria import Model, rate
from .options import whole
from .runner import Plan
from .training import Experiment, Run

DIGITS = Path(__file__).with_name("digits.csv.gz")
BETA, ITERATIONS, BATCH, RATE = 0.5, 6, 64, 3e-3


class Images(NamedTuple):
    """Pixels (n, 64) from 0 to 1, and labels (n,)."""
    pixels: np.ndarray
    labels: np.ndarray


def data(path: Path | str = DIGITS) -> tuple[Images, Images]:
    """(to train on, held out): every third image is held out. ValueError for a file of another form."""
    table = np.loadtxt(path, delimiter=",")
    if table.ndim != 2 or table.shape[1] != 65:
        raise ValueError(f"{path} holds a table {table.shape}; each row has 64 pixels and a label")
    third = np.arange(len(table)) % 3 == 2
    seen, held = (Images(part[:, :64] / 16.0, part[:, 64].astype(int)) for part in (table[~third], table[third]))
    return seen, held


def cell(z: Any, params: Any, x: Any) -> Any:
    return np.tanh(z @ params["W"] + params["b"] + x)


def explicit(params: Any, x: Any) -> tuple[Any, Any]:
    """Two layers: the cell from zero, and a layer of the same size after it."""
    return np.tanh(np.tanh(x + params["b"]) @ params["W"] + params["b2"]), None


def deep(method: Any, gradient: Any, **stop: Any) -> Callable:
    def hidden(params: Any, x: Any) -> tuple[Any, Any]:
        found = fixed_point(cell, np.zeros(x.shape), params, x, method=method, gradient=gradient, **stop)
        return found.z, found

    return hidden


STEPS: dict[str, Any] = {"tol": None, "max_steps": ITERATIONS}
MODELS = (
    Model("explicit", explicit, 2, 2),
    Model("revdeq", deep(RevDEQ(BETA), Reversible(), **STEPS), 1, 2 * ITERATIONS),
    Model("unrolled", deep(RevDEQ(BETA), Direct(), **STEPS), 1, 2 * ITERATIONS),
    Model("implicit", deep(Anderson(), Implicit("gmres", tol=1e-6), tol=1e-4, max_steps=60), 1, 2 * ITERATIONS),
    Model("phantom", deep(RevDEQ(BETA), Phantom(5, 0.5), **STEPS), 1, 2 * ITERATIONS + 5))


def parameters(seed: Any, d: int) -> dict:
    rng = np.random.default_rng(seed)
    drawn = lambda n, m, gain=1.0: gain * rng.standard_normal((n, m)) / n ** 0.5
    return {"U": drawn(64, d), "c": np.zeros(d), "W": drawn(d, d, 0.5), "b": np.zeros(d), "b2": np.zeros(d), "V": drawn(d, 10),
            "d": np.zeros(10)}


def logits(params: Any, model: Model, pixels: np.ndarray) -> tuple[Any, Any]:
    z, found = model.hidden(params, pixels @ params["U"] + params["c"])
    return z @ params["V"] + params["d"], found


def loss(params: Any, model: Model, images: Images) -> tuple[Any, Any]:
    guesses, found = logits(params, model, images.pixels)
    return nn.cross_entropy(guesses, images.labels), found


def train(run: Run, seen: Images) -> None:
    """The training loop."""
    optimiser = optim.adam(lambda n: rate(run.share, RATE))
    batches = run.onward(optim.minibatches(run.rng, seen, BATCH))
    for params, state in run.steps(optimiser.init):
        (value, found), grads = value_and_grad(loss, has_aux=True)(params, run.solve, next(batches))
        params, state = optimiser.update(params, grads, state)
        run.record(value, found, params, state)


def accuracy(run: Run, images: Images) -> tuple[float, float]:
    """The share of right guesses in per cent, and the relative residual |z - f(z)| / |f(z)| of the hidden states."""
    guesses, found = logits(run.params, run.solve, images.pixels)
    right = 100.0 * float(np.mean(np.argmax(guesses, -1) == images.labels))
    if found is None:
        return right, float("nan")
    after = cell(found.z, run.params, images.pixels @ run.params["U"] + run.params["c"])
    return right, float(np.linalg.norm(after - found.z) / np.linalg.norm(after))


def runs(seen: Images, held: Images, d: int = 48) -> dict[str, Run]:
    """A training of each model, with d hidden features."""
    first = Images(*(part[:BATCH] for part in seen))
    e = Experiment(
        name="digits", title=f"digits: {len(seen.labels)} images of 8 x 8 pixels to learn from, {len(held.labels)} held out",
        words=(f"hidden width {d}; {BATCH} a step; Adam, rate {RATE} with a warm-up and half a cosine",),
        loss=lambda params, model: loss(params, model, first), train=partial(train, seen=seen), start=partial(parameters, d=d),
        iterations=1000, notes=("residual: |z - f(z)| / |f(z)| of the images held out, which is 0 at an equilibrium.",
                                "|W|: the largest singular value; above 1 the cell may be no contraction."))
    return {model.name: model.run(e) for model in MODELS}


# the command ----------------------------------------------------------------------------------------------------------------------
def add_options(parser: Any) -> None:
    equilibria.add_options(parser, [model.name for model in MODELS], iterations=1000)
    parser.add_argument("--data", metavar="FILE", help="rows of 64 pixels and a label; default the file that comes along")
    parser.add_argument("--width", type=whole(1), default=48, metavar="N", help="hidden features; default 48")


def plan(args: Namespace) -> Plan:
    """The plan of revode train digits and revode compare digits."""
    try:
        seen, held = data(args.data or DIGITS)
    except (OSError, ValueError) as error:
        raise UserError(cannot_read("--data", args.data, error)) from None

    def score(run: Run) -> dict:
        right, residual = accuracy(run, held)
        return {"right": right, "residual": residual, "norm": float(np.linalg.norm(run.params["W"], 2))}

    shown = (("right,\nheld out", lambda row: f"{row['right']:.2f} %"), ("|W|", lambda row: f"{row['norm']:.2f}"))
    return equilibria.plan(args, runs(seen, held, args.width), score, shown, ("right", "right (held out, %)"), "loss, nats")

"""revode compare language: which byte comes next? Transformers beside equilibrium models.

    x = embed[tokens] + place;    z = f(z, x) by iteration, or layers;    logits = z head

The text is split in two, and bits per byte are those of the part that was never trained on. All
models have about the same number of parameters; `loop` is the cell in a plain loop, `unrolled` the
same iteration as `revdeq` with its whole tape, so that the two differ by rounding alone. Lines to
measure against: n-grams, zlib, bz2 of the same text.

By default the text is Genesis in the King James Version (1611, out of copyright; genesis.txt,
197 kB, 60 different bytes; taken from Debian's package bible-kjv-text, verse numbers left out).
--text FILE takes any other.
Source of the model: McCallum, Arora & Foster 2025 (arXiv 2509.12917), section 5.
"""

from __future__ import annotations

import bz2
import math
import zlib
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import layers, optim
from ..engine import value_and_grad
from ..equilibrium import Implicit, Phantom, Picard, RevDEQ, fixed_point
from ..gradients import Direct, Reversible
from . import equilibria
from .backends import UserError, cannot_read
from .equilibria import Model, rate
from .options import whole
from .runner import Plan, Report
from .tables import Published
from .training import LOOKS, Experiment, Run

GENESIS = Path(__file__).with_name("genesis.txt")
HELD_OUT = 0.1  # of the text, its end
HEADS, ITERATIONS, BETA = 4, 4, 0.5       # the published iteration: 4, which are 8 evaluations of the cell
RATE, CLIP = 3e-3, 1.0                    # the learning rate at its highest, the largest norm of a gradient
PUBLISHED = Published(
    "McCallum, Arora & Foster 2025, WikiText-103; perplexity of word pieces, not to be compared with bits here",
    ("model", "parameters", "perplexity"),
    (("RevDEQ", "110 M", "23.4"), ("RevDEQ", "169 M", "20.7"), ("Transformer-XL", "139 M", "35.8"),
     ("Transformer-XL", "165 M", "24.3"), ("DEQ", "98 M to 172 M", "32.4, 29.0, 24.2")))
CELLS = {"residual": layers.block, "published": layers.bare_block}


# the text -------------------------------------------------------------------------------------------------------------------------
class Text:
    """A text as numbers 0 .. V - 1, one for each of its different bytes, in two parts."""

    def __init__(self, path: Path | str = GENESIS) -> None:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        if len(data) < 10_000:
            raise ValueError(f"{path} holds {len(data)} bytes; a text to learn from has 10 000 or more")
        self.bytes, tokens = np.unique(data, return_inverse=True)
        cut = round(len(data) * (1 - HELD_OUT))
        self.train, self.held_out = tokens[:cut], tokens[cut:]

    @property
    def V(self) -> int:
        return len(self.bytes)

    def batch(self, rng: np.random.Generator, B: int, T: int) -> np.ndarray:
        """(B, T + 1) windows of the first part, anywhere."""
        return self.train[rng.integers(0, len(self.train) - T, B)[:, None] + np.arange(T + 1)]

    def batches(self, rng: np.random.Generator, B: int, T: int) -> Iterator[np.ndarray]:
        while True:
            yield self.batch(rng, B, T)

    def windows(self, T: int) -> np.ndarray:
        """(n, T + 1): the second part in windows that share one byte each."""
        n = (len(self.held_out) - 1) // T
        return self.held_out[np.arange(n)[:, None] * T + np.arange(T + 1)]

    def written(self, tokens: Sequence[int]) -> str:
        return bytes(self.bytes[np.asarray(tokens)].tolist()).decode("latin-1")


def lines_beside(text: Text) -> dict[str, float]:
    """Bits per byte of the second part, knowing the first: n-grams that fall back to shorter ones, and two programs.

    p_k(c | context) = (count(context c) + 2 p_{k-1}(c)) / (count(context) + 2)
    """
    first, second = (part.astype(np.uint8).tobytes() for part in (text.train, text.held_out))
    found, p = {}, np.full(len(second), 1.0 / text.V)
    whole, at = first + second, range(len(first), len(first + second))
    for k in range(5):
        pairs, contexts = (Counter(first[i:i + length] for i in range(len(first) - k)) for length in (k + 1, k))
        p = np.array([(pairs[whole[i - k:i + 1]] + 2 * q) / (contexts[whole[i - k:i]] + 2) for i, q in zip(at, p, strict=True)])
        found[f"{k + 1}-gram"] = float(-np.log2(p).mean())
    shown, hidden = (text.bytes[part].tobytes() for part in (text.train, text.held_out))
    for name, compress in (("zlib", lambda s: zlib.compress(s, 9)), ("bz2", bz2.compress)):
        found[name] = 8.0 * (len(compress(shown + hidden)) - len(compress(shown))) / len(second)
    return found


# the models -----------------------------------------------------------------------------------------------------------------------
def explicit(cells: Sequence, x: Any) -> tuple[Any, Any]:
    """One layer after the other, each with weights of its own."""
    for cell in cells:
        x = layers.block(cell, x, HEADS)
    return x, None


def implicit_depth(method: Any, gradient: Any, cell: Callable = layers.block, steps: int = ITERATIONS) -> Callable:
    """z = cell(z + x), from zero, by so many iterations; the state in float64, the cell in float32, so that with beta = 1/2 every
    iteration is rebuilt to the last bit."""
    def f(z: Any, params: Any, x: Any) -> Any:
        return cell(params, z + x, HEADS)

    def hidden(cells: Sequence, x: Any) -> tuple[Any, Any]:
        found = fixed_point(f, np.zeros(x.shape), cells[0], x, method=method, gradient=gradient, tol=None, max_steps=steps,
                            compute=x.dtype, backend="eager")
        return found.z.astype(x.dtype), found

    return hidden


def models(cell: str = "residual") -> dict[str, Model]:
    n = 2 * ITERATIONS
    deep = lambda name, method, gradient, steps=ITERATIONS: Model(name, implicit_depth(method, gradient, CELLS[cell], steps), 1, n)
    found = [*(Model(f"explicit-{k}", explicit, k, k) for k in (1, 2, 4)),
             deep("revdeq", RevDEQ(BETA), Reversible()),
             deep("unrolled", RevDEQ(BETA), Direct()),
             deep("loop", Picard(), Direct(), n),
             deep("implicit", RevDEQ(BETA), Implicit("anderson", tol=1e-2, max_steps=n)),
             deep("phantom", RevDEQ(BETA), Phantom(2, 0.5))]
    return {model.name: model for model in found}


def parameters(seed: Any, V: int, T: int, d: int, count: int) -> dict:
    """float32: embeddings N(0, .5^2), places N(0, .1^2), cells N(0, 1 / fan in), head N(0, .02^2)."""
    rng = np.random.default_rng(seed)
    drawn = lambda shape, size: (size * rng.standard_normal(shape)).astype(np.float32)
    return {"embed": drawn((V, d), 0.5), "place": drawn((T, d), 0.1), "head": drawn((d, V), 0.02),
            "cells": [layers.block_init(rng, d) for _ in range(count)]}


def width(count: int, V: int, T: int, d: int) -> int:
    """The width at which so many layers have about as many parameters as one of width d."""
    total = lambda d, count: 12 * count * d * d + (2 * V + T + 9 * count) * d
    return min(range(HEADS, d + 1, HEADS), key=lambda w: abs(total(w, count) - total(d, 1)))


def logits(model: Model, params: Any, tokens: np.ndarray) -> tuple[Any, Any]:
    x = layers.embedding(params["embed"], tokens) + params["place"][:tokens.shape[1]]
    z, found = model.hidden(params["cells"], x)
    return layers.linear(z, params["head"]), found


def loss(params: Any, model: Model, tokens: np.ndarray) -> tuple[Any, Any]:
    """Bits per byte of tokens[:, 1:], each from those before it."""
    guesses, found = logits(model, params, tokens[:, :-1])
    return layers.cross_entropy(guesses, tokens[:, 1:]) * (1 / math.log(2)), found


def train(run: Run, text: Text, B: int, T: int) -> None:
    """The training loop."""
    optimiser = optim.adam(lambda n: rate(run.share, RATE), b1=0.9, b2=0.98)
    batches = run.onward(text.batches(run.rng, B, T))
    for params, state in run.steps(optimiser.init):
        (bits, found), grads = value_and_grad(loss, has_aux=True)(params, run.solve, next(batches))
        params, state = optimiser.update(params, optim.clip_by_global_norm(grads, CLIP), state)
        run.record(bits, found, params, state)


def held_out(run: Run, text: Text, T: int, most: int = 1 << 16, cell: Callable = layers.block) -> tuple[float, float]:
    """Bits per byte of the second part (its first `most` bytes), and the relative residual |z - f(z)| / |f(z)| there."""
    params, windows, bits = run.params, text.windows(T)[:max(1, most // T)], 0.0
    for i in range(0, len(windows), 64):
        value, found = loss(params, run.solve, windows[i:i + 64])
        bits += float(value) * len(windows[i:i + 64]) / len(windows)
    if found is None:
        return bits, math.nan
    x = layers.embedding(params["embed"], windows[i:i + 64, :-1]) + params["place"]
    z = found.z.astype(x.dtype)
    after = cell(params["cells"][0], z + x, HEADS)
    return bits, float(np.linalg.norm(after - z) / np.linalg.norm(after))


def sample(run: Run, text: Text, length: int = 200, seed: int = 0, temperature: float = 0.7) -> str:
    """What the model writes, a byte at a time, after a line break."""
    rng, T = np.random.default_rng(seed), len(run.params["place"])
    tokens = [int(np.searchsorted(text.bytes, 10)) % text.V]
    for _ in range(length):
        last = logits(run.solve, run.params, np.asarray(tokens[-T:])[None])[0][0, -1] / temperature
        p = np.exp(last.astype(np.float64) - last.max())
        tokens.append(int(rng.choice(text.V, p=p / p.sum())))
    return text.written(tokens[1:])


def runs(text: Text, d: int = 64, T: int = 64, B: int = 16, cell: str = "residual", title: str = "") -> dict[str, Run]:
    """A training of each model, all of about as many parameters as one layer of width d; contexts of T bytes, B a step."""
    first = text.batch(np.random.default_rng(0), B, T)
    words = (f"{len(text.train):,} bytes to learn from, {len(text.held_out):,} held out, {text.V} different ones",
             f"one layer of width {d} with {HEADS} heads; contexts of {T}, {B} a step; Adam (.9, .98), rate {RATE} with a warm-up and "
             f"half a cosine, gradients clipped to {CLIP:g}; cell: {cell}")
    return {name: model.run(Experiment(
        name=name, title=title, words=words, loss=lambda params, model: loss(params, model, first),
        train=partial(train, text=text, B=B, T=T), iterations=600, published=PUBLISHED, look=lambda run: held_out(run, text, T)[0],
        start=partial(parameters, V=text.V, T=T, d=width(model.layers, text.V, T, d), count=model.layers)))
        for name, model in models(cell).items()}


# the command ----------------------------------------------------------------------------------------------------------------------
def add_options(parser: Any) -> None:
    equilibria.add_options(parser, list(models()), iterations=600)
    parser.add_argument("--text", metavar="FILE", help="any text; default Genesis (King James Version)")
    parser.add_argument("--cell", choices=sorted(CELLS), default="residual", help="default residual")
    for name, default, what in (("width", 64, "features of one layer; deeper models are narrower"), ("context", 64, "bytes seen"),
                                ("batch", 16, "windows a step")):
        parser.add_argument(f"--{name}", type=whole(HEADS), default=default, metavar="N", help=f"{what}; default {default}")


SHOWN = (("bits per\nbyte", lambda row: f"{row['bits']:.3f}"), ("least on\nthe way", lambda row: f"{min(row['along']):.3f}"),
         ("bytes/s", lambda row: f"{row['bytes_per_second']:,.0f}"))


def plan(args: Namespace) -> Plan:
    """The plan of revode train language and revode compare language."""
    try:
        text = Text(args.text or GENESIS)
    except (OSError, ValueError) as error:
        raise UserError(cannot_read("--text", args.text, error)) from None
    if args.width % HEADS:
        raise UserError(f"--width {args.width}: a multiple of {HEADS}, the heads of attention")
    T = args.context

    def score(run: Run) -> dict:
        bits, residual = held_out(run, text, T, cell=CELLS[args.cell])
        run.along.append(bits)
        return {"bits": bits, "along": run.along, "residual": residual, "bytes_per_second": args.batch * T * run.done / run.spent,
                "sample": sample(run, text)}

    def after(report: Report) -> None:
        beside = report.more["lines"] = lines_beside(text)
        report.notes += [
            "Bits per byte of the text held out. Beside them: " + ", ".join(f"{name} {x:.3f}" for name, x in beside.items()) + ".",
            f"least on the way: the least of {LOOKS} looks at the held-out text; where it is less than at the end, the model "
            "has learnt its text by heart.",
            "calls of a layer, or of the cell: forward, for each byte; residual: |z - f(z)| / |f(z)|, which is 0 at an equilibrium.",
            f"A sample of {report.rows[-1]['name']}: {report.rows[-1]['sample']!r}"]

    title = f"language: the next byte of {'Genesis (King James Version)' if args.text is None else args.text}"
    return equilibria.plan(args, runs(text, args.width, T, args.batch, args.cell, title), score, SHOWN, ("bits", "bits per byte"),
                           "bits per byte", after)

"""revode compare language: which byte comes next? Transformers, and one whose depth is a fixed point.

    x = embed[tokens] + place;    z = f(z, x) by iteration, or layers;    logits = z head       loss: cross entropy, bits

The text is split in two, and bits per byte are those of the part that was never trained on. All models have about the
same number of parameters; `loop` is the cell in a plain loop, `unrolled` the same iteration as `revdeq` with its whole
tape, so that the two differ by rounding alone. Lines to measure against: n-grams, zlib, bz2 of the same text.
By default the text is Genesis in the King James Version (1611, out of copyright; genesis.txt, 197 kB, 60 different
bytes; taken from Debian's package bible-kjv-text, verse numbers left out). --text FILE takes any other.
Source of the model: McCallum, Arora & Foster 2025 (arXiv 2509.12917), section 5.
"""
from __future__ import annotations

import bz2
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np

from .. import layers, optim
from ..engine import tree, value_and_grad
from ..equilibrium import fixed_point
from ..gradients import Direct, Implicit, Phantom, Reversible
from ..methods import Picard, RevDEQ

GENESIS = Path(__file__).with_name("genesis.txt")
HELD_OUT = 0.1                              # of the text, its end
HEADS, ITERATIONS, BETA = 4, 4, 0.5         # the published iteration: 4, which are 8 evaluations of the cell
RATE, WARM, CLIP = 3e-3, 0.05, 1.0          # learning rate, share of the training in which it rises, largest norm
CELLS = {"residual": layers.block, "published": layers.bare_block}


# the text ------------------------------------------------------------------------------------------------------------
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
    whole = first + second
    for k in range(5):
        pairs = Counter(first[i:i + k + 1] for i in range(len(first) - k))
        contexts = Counter(first[i:i + k] for i in range(len(first) - k))
        at = range(len(first), len(whole))
        p = np.array([(pairs[whole[i - k:i + 1]] + 2 * q) / (contexts[whole[i - k:i]] + 2) for i, q in zip(at, p, strict=True)])
        found[f"{k + 1}-gram"] = float(-np.log2(p).mean())
    original = [text.bytes[part].tobytes() for part in (text.train, text.held_out)]
    for name, compress in (("zlib", lambda s: zlib.compress(s, 9)), ("bz2", bz2.compress)):
        more = len(compress(original[0] + original[1])) - len(compress(original[0]))
        found[name] = 8.0 * more / len(second)
    return found


# the models ----------------------------------------------------------------------------------------------------------
class Model(NamedTuple):
    """hidden(cells, x) -> z and what fixed_point found; layers of the explicit ones, evaluations of a cell for each byte."""
    name: str
    hidden: Callable
    layers: int = 1
    evaluations: int = 1


def explicit(cells: Sequence, x: Any) -> tuple[Any, Any]:
    """One layer after the other, each with weights of its own."""
    for cell in cells:
        x = layers.block(cell, x, HEADS)
    return x, None


def implicit_depth(method: Any, gradient: Any, cell: Callable = layers.block, steps: int = ITERATIONS) -> Callable:
    """z = cell(z + x), from zero, by so many iterations; the state in float64, the cell in float32, so that with
    beta = 1/2 every iteration is rebuilt to the last bit."""
    def f(z: Any, params: Any, x: Any) -> Any:
        return cell(params, z + x, HEADS)

    def hidden(cells: Sequence, x: Any) -> tuple[Any, Any]:
        z0 = np.zeros(x.shape)
        found = fixed_point(f, z0, cells[0], x, method=method, gradient=gradient, tol=None, max_steps=steps,
                            compute=x.dtype, backend="eager")
        return found.z.astype(x.dtype), found

    return hidden


def models(cell: str = "residual") -> dict[str, Model]:
    f, n = CELLS[cell], 2 * ITERATIONS
    deep = lambda name, method, gradient, steps=ITERATIONS: Model(name, implicit_depth(method, gradient, f, steps), 1, n)
    solver = Implicit("anderson", tol=1e-2, max_steps=n)
    found = [Model(f"explicit-{k}", explicit, k, k) for k in (1, 2, 4)] + [
        deep("revdeq", RevDEQ(BETA), Reversible()), deep("unrolled", RevDEQ(BETA), Direct()),
        deep("loop", Picard(), Direct(), n), deep("implicit", RevDEQ(BETA), solver),
        deep("phantom", RevDEQ(BETA), Phantom(2, 0.5))]
    return {model.name: model for model in found}


def parameters(rng: np.random.Generator, V: int, T: int, d: int, count: int) -> dict:
    """float32: embeddings N(0, .5^2), places N(0, .1^2), cells N(0, 1 / fan in), head N(0, .02^2)."""
    drawn = lambda shape, size: (size * rng.standard_normal(shape)).astype(np.float32)
    return {"embed": drawn((V, d), 0.5), "place": drawn((T, d), 0.1), "head": drawn((d, V), 0.02),
            "cells": [layers.block_init(rng, d) for _ in range(count)]}


def size(params: Any) -> int:
    return sum(x.size for x in tree.flatten(params)[0])


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


# training ------------------------------------------------------------------------------------------------------------
@dataclass
class Run:
    """One model, trained."""
    model: Model
    seed: int
    params: Any = None
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0                # of processor time
    warned: int = 0

    @property
    def steps(self) -> int:
        return len(self.losses)


def share_of(run: Run, iterations: int | None, minutes: float | None) -> float:
    """How much of the training is done: of its iterations, or of its processor time."""
    return run.steps / iterations if iterations else run.seconds / (60.0 * (minutes or 1.0))


def rate(share: float) -> float:
    """Up along a line, then down along half a cosine."""
    return RATE * (share / WARM if share < WARM else 0.5 * (1 + math.cos(math.pi * (share - WARM) / (1 - WARM))))


def clipped(grads: Any) -> Any:
    """The gradient, shortened to CLIP where it is longer."""
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in tree.flatten(grads)[0]))
    return tree.map(lambda g: g * min(1.0, CLIP / max(norm, 1e-30)), grads)


def train(model: Model, text: Text, seed: int = 0, d: int = 64, T: int = 64, B: int = 16, iterations: int | None = 400,
          minutes: float | None = None) -> Iterator[Run]:
    """The training loop; yields the run after each step."""
    rng, run = np.random.default_rng(seed), Run(model, seed)
    params = parameters(rng, text.V, T, width(model.layers, text.V, T, d), model.layers)
    optimiser = optim.adam(lambda n: rate(share), b1=0.9, b2=0.98)
    state = optimiser.init(params)
    while (share := share_of(run, iterations, minutes)) < 1:
        start, tokens = process_time(), text.batch(rng, B, T)
        (bits, _), grads = value_and_grad(loss, has_aux=True)(params, model, tokens)
        params, state = optimiser.update(params, clipped(grads), state)
        run.params = params
        run.seconds += process_time() - start
        run.losses.append(float(bits))
        yield run


def held_out(run: Run, text: Text, T: int, most: int = 1 << 16) -> tuple[float, float]:
    """Bits per byte of the second part (its first `most` bytes), and the relative residual |z - f(z)| / |f(z)| there."""
    windows, bits, residual = text.windows(T)[:max(1, most // T)], [], math.nan
    for i in range(0, len(windows), 64):
        value, found = loss(run.params, run.model, windows[i:i + 64])
        bits.append(float(value) * len(windows[i:i + 64]))
    if found is not None:
        cell, x = run.params["cells"][0], layers.embedding(run.params["embed"], windows[i:i + 64, :-1]) + run.params["place"]
        z = found.z.astype(x.dtype)
        after = layers.block(cell, z + x, HEADS)
        residual = float(np.linalg.norm(after - z) / np.linalg.norm(after))
    return sum(bits) / len(windows), residual


def sample(run: Run, text: Text, length: int = 200, seed: int = 0, temperature: float = 0.7) -> str:
    """What the model writes, a byte at a time, after a line break."""
    rng, T = np.random.default_rng(seed), len(run.params["place"])
    tokens = [int(np.searchsorted(text.bytes, 10)) % text.V]
    for _ in range(length):
        seen = np.asarray(tokens[-T:])[None]
        last = logits(run.model, run.params, seen)[0][0, -1] / temperature
        p = np.exp(last.astype(np.float64) - last.max())
        tokens.append(int(rng.choice(text.V, p=p / p.sum())))
    return text.written(tokens[1:])

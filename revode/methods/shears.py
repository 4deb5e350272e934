"""Words of shears: the one idea behind every exactly reversible method.

A method's state is a few named parts (y and z, say). A shear updates ONE part from the OTHERS:

    x[target] <- scale * x[target] + add(F, *x[reads])                          scale != 0
    x[target] <- about + scale * (x[target] - about) + add(F, *x[reads])        with `about`, one of the reads

One step of a method is a word: a list of shears. Everything else is derived here, once, for every method:

    forward    run the shears in order
    inverse    last first, x[target] <- (x[target] - add) / scale
    pullback   last first, evaluate `add` ONCE on a tape: its value reconstructs the target, its vjp moves the cotangent
                   a[reads], a[params] += vjp(add)(a[target]);      a[target] <- scale * a[target]

`add` gets F, the increment of the vector field (increment.py), and the parts that it reads; it cannot read the target.
Source: McCallum & Foster 2024 (arXiv 2410.11648) for the coupled form; the splitting into shears is classical.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..engine.tensor import Tensor
from .increment import Evaluator, Recorder

Parts = dict[str, Any]


class Shear(NamedTuple):
    """One part of the state is updated from the others, so that it can be undone.

        x[target] <- scale * x[target] + add(F, *x[reads])
        x[target] <- about + scale * (x[target] - about) + add(F, *x[reads])        with `about`, one of the reads

    Parameters
    ----------
    target : the part that changes.
    reads : the parts that it is changed from; never the target.
    add : add(F, *parts) -> what is added, shaped like the target; made with + - * / and F(t, part, dx).
    scale : a number other than 0.
    about : the part that the target is scaled about; None for 0.

    Cost: the evaluations of the field that `add` asks for.
    Source: McCallum & Foster 2024, arXiv 2410.11648, for the coupled form.

    Example
    -------
    >>> Shear("y", ("z",), lambda F, z: F(0.0, z, 0.1))
    Shear('y' from ('z',), scale=1.0)
    """
    target: str
    reads: tuple[str, ...]
    add: Callable            # add(F, *parts) -> the increment of the target, with + - * / and F(t, part, dx)
    scale: float = 1.0
    about: str | None = None

    def __repr__(self) -> str:
        about = f", about={self.about!r}" if self.about else ""
        return f"Shear({self.target!r} from {self.reads}, scale={self.scale!r}{about})"


class Swap(NamedTuple):
    """Two parts of the state exchange their names.

    Parameters
    ----------
    first, second : names of parts.

    Cost: none.
    Source: the two-step methods, where the older value becomes the newer one.

    Example
    -------
    >>> Swap("y_prev", "y")
    Swap(first='y_prev', second='y')
    """
    first: str
    second: str

    @property
    def scale(self) -> float:
        """Of their difference."""
        return -1.0

    def forward(self, parts: Parts, F: Evaluator) -> None:
        exchange(self.first, self.second, parts, F.memo)

    def inverse(self, parts: Parts, F: Evaluator) -> None:
        exchange(self.first, self.second, parts, F.memo)

    def pullback(self, parts: Parts, cotangent: Parts, R: Recorder) -> None:
        exchange(self.first, self.second, parts, cotangent, R.memo)


def exchange(a: str, b: str, *dicts: dict) -> None:
    """Exchange two entries, either of which may be missing (in a memo); the order of the keys stays."""
    for d in dicts:
        if a in d and b in d:
            d[a], d[b] = d[b], d[a]
        elif a in d:
            d[b] = d.pop(a)
        elif b in d:
            d[a] = d.pop(b)


class Step(NamedTuple):
    """One interval of the grid: from t0 to t1 with the increment dx (h = t1 - t0, with noise also dW)."""
    t0: Any
    t1: Any
    dx: Any
    dx_before: Any     # that of the interval before; of this one at the start


Word = Sequence[Any]     # of shears, and of what else has a scale, forward(parts, F), inverse(parts, F) and pullback(...)


def added(shear: Shear, F: Evaluator, reads: Sequence[Any]) -> Any:
    """All that is added to scale * x[target]."""
    total = shear.add(F, *reads)
    if shear.about is None:
        return total
    return (1.0 - shear.scale) * reads[shear.reads.index(shear.about)] + total


def scaled(x: Any, scale: float) -> Any:
    return x if scale == 1.0 else -x if scale == -1.0 else scale * x


def unscaled(x: Any, scale: float) -> Any:
    return x if scale == 1.0 else -x if scale == -1.0 else x / scale


def forward(word: Word, parts: Parts, F: Evaluator) -> Parts:
    """The parts after one step."""
    parts = dict(parts)
    for shear in word:
        if type(shear) is not Shear:
            shear.forward(parts, F)
            continue
        reads = F.read(shear.reads, parts)
        total = added(shear, F, reads)
        parts[shear.target] = scaled(parts[shear.target], shear.scale) + total
        F.memo.pop(shear.target, None)
    return parts


def inverse(word: Word, parts: Parts, F: Evaluator) -> Parts:
    """The parts before the step, from those after it."""
    parts = dict(parts)
    for shear in reversed(word):
        if type(shear) is not Shear:
            shear.inverse(parts, F)
            continue
        F.memo.pop(shear.target, None)
        reads = F.read(shear.reads, parts)
        total = added(shear, F, reads)
        parts[shear.target] = unscaled(parts[shear.target] - total, shear.scale)
    return parts


def pullback(word: Word, parts: Parts, cotangent: Parts, R: Recorder) -> tuple[Parts, Parts]:
    """Undo one step: the parts before it and their cotangents; what flows to the parameters is added up in R.

    A field value that several shears share is evaluated once, when it is first met; its cotangents are collected in R
    and pulled back when the part that it belongs to changes, so those of the last shears are still pending in R.
    """
    parts, cotangent = dict(parts), dict(cotangent)
    for shear in reversed(word):
        if type(shear) is not Shear:
            shear.pullback(parts, cotangent, R)
            continue
        R.flush(shear.target, cotangent)
        reads = R.read(shear.reads, parts)
        total = added(shear, R, reads)
        on_tape = type(total) is Tensor and total.tape is R.tape
        value = total._value if on_tape else total
        parts[shear.target] = unscaled(parts[shear.target] - value, shear.scale)
        a = cotangent[shear.target]
        if on_tape:
            for name, g in zip(shear.reads, R.pull(total, a, reads), strict=True):
                if g is not None:
                    cotangent[name] = cotangent[name] + g
        cotangent[shear.target] = scaled(a, shear.scale)
    return parts, cotangent


def undone(method: Any, step: Step, parts: Parts, F: Evaluator) -> Parts:
    """The parts before a step: the inverse of its word, or y ~ Phi_{-h}(y1) of a method that is nearly reversible."""
    if method.exactly_reversible:
        return inverse(method.word(step), parts, F)
    y1, = F.read(("y",), parts)
    before = method.flow(F, step.t1, step.t0, y1, -step.dx)
    for _ in range(method.correct):
        before = before + (y1 - method.flow(Evaluator(F.system, F.params), step.t0, step.t1, before, step.dx))
    return {"y": before}


def near_pullback(method: Any, step: Step, parts: Parts, cotangent: Parts, R: Recorder,
                  known: Parts | None = None) -> tuple[Parts, Parts, Any]:
    """Undo one step of a method that is nearly reversible: y ~ Phi_{-h}(y1), then pull back Phi_h at y (or at what is known).

    The field at y1 is known already: it is the first stage of the step that was undone before. Returns y1 - Phi_h(y) too.
    """
    y1 = parts["y"]
    F = Evaluator(R.system, R.plain)
    F.memo = {"y": {t: value.values for t, value in R.memo.get("y", {}).items()}}
    parts = undone(method, step, parts, F)
    cotangent = dict(cotangent)
    R.flush("y", cotangent)
    y, = R.read(("y",), known or parts)
    after = method.flow(R, step.t0, step.t1, y, step.dx)
    g, = R.pull(after, cotangent["y"], [y])
    return parts, {"y": g}, y1 - after._value

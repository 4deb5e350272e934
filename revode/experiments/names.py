"""Methods and gradient modes by name, as the command line spells them: coupled:midpoint:0.999,
checkpointed:8."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..gradients import Automatic, Backsolve, Checkpointed, Direct, Reversible
from ..methods import EES, EES25, EES27, AsynchronousLeapfrog, Coupled, LeapfrogMidpoint, NearReversible, ReversibleHeun, RungeKutta

# name -> (how to build it, a conversion for each further field, an example)
Table = dict[str, tuple[Callable, tuple[Callable, ...], str]]

METHODS: Table = {
    "coupled": (Coupled, (str, float), "coupled:midpoint:0.999"),
    "reversible-heun": (ReversibleHeun, (), "reversible-heun"),
    "alf": (AsynchronousLeapfrog, (float,), "alf:1.0"),
    "leapfrog-midpoint": (LeapfrogMidpoint, (), "leapfrog-midpoint"),
    "ees25": (EES25, (float,), "ees25:0.1"),
    "ees27": (EES27, (), "ees27"),
    "ees": (EES, (int,), "ees:6"),
    "near-reversible": (NearReversible, (str,), "near-reversible:rk4"),
    "runge-kutta": (RungeKutta, (str,), "runge-kutta:rk4"),
}
GRADIENTS: Table = {
    "reversible": (Reversible, (int,), "reversible"),
    "automatic": (Automatic, (), "automatic"),
    "direct": (Direct, (), "direct"),
    "checkpointed": (Checkpointed, (int,), "checkpointed:8"),
    "backsolve": (Backsolve, (), "backsolve"),
}


def method(text: str) -> Any:
    """The method of this name. ValueError, with the names that there are, for another."""
    return build("method", METHODS, text)


def gradient(text: str) -> Any:
    """The gradient mode of this name: reversible (or reversible:K, to resync every K steps), direct, ..."""
    return build("gradient mode", GRADIENTS, text)


def spell(mode: Any) -> str:
    """The name of a gradient mode, which `gradient` reads back."""
    field = mode.n if isinstance(mode, Checkpointed) else mode.resync if isinstance(mode, Reversible) else None
    name = next(name for name, (make, _, _) in GRADIENTS.items() if make is type(mode))
    return name if field is None else f"{name}:{field}"


def build(what: str, table: Table, text: str) -> Any:
    name, *fields = text.strip().lower().split(":")
    if name not in table:
        known = ", ".join(example for _, _, example in table.values())
        raise ValueError(f"there is no {what} {name!r}; the names are, with their options: {known}")
    make, conversions, example = table[name]
    if len(fields) > len(conversions) or (make is Checkpointed and not fields):
        raise ValueError(f"{text!r} does not have the form of {example!r}")
    values = []
    for field, convert in zip(fields, conversions, strict=False):
        try:
            values.append(convert(field))
        except ValueError:
            raise ValueError(f"{text!r}: {field!r} is not a number of the right kind; write it like {example!r}") from None
    return make(*values)

"""The methods that are drawn, by the kind of solve."""
from __future__ import annotations

from typing import Any

import numpy as np

import revode as rv

DEFAULT = "default"


def coupled(rng: np.random.Generator, bases: tuple[str, ...]) -> Any:
    return rv.Coupled(str(rng.choice(bases)), lam=float(rng.choice([0.999, 0.999, 0.99, 0.9])))


def drawn(rng: np.random.Generator, kind: str, exact: bool) -> Any:
    """An exact or a nearly reversible method for a solve of this kind: grid, adaptive, sde or cde."""
    if kind == "adaptive":
        if exact:
            return rv.ReversibleHeun() if rng.random() < 0.3 else coupled(rng, ("dopri5", "heun2"))
        return [rv.EES25(), rv.NearReversible("tsit5"), rv.NearReversible("dopri5")][rng.integers(3)]
    if exact:
        leap = [rv.AsynchronousLeapfrog(eta=float(rng.choice([1.0, 1.0, 0.95]))), rv.LeapfrogMidpoint()] if kind == "grid" else []
        choice = [coupled(rng, ("midpoint", "heun2", "rk4") if kind != "grid" else ("midpoint", "heun2", "bosh3", "rk4", "dopri5")),
                  rv.ReversibleHeun(), *leap]
        return choice[rng.integers(len(choice) + 1) % len(choice)]              # Coupled twice as often
    bases = ("rk4", "midpoint") if kind != "grid" else ("rk4", "tsit5", "midpoint")
    return [rv.EES25(), rv.EES27(), rv.EES(stages=int(rng.integers(4, 7))), rv.NearReversible(str(rng.choice(bases)))][rng.integers(4)]


def group(method: Any) -> str:
    """The row of the table that a method belongs to."""
    if method is None:
        return DEFAULT
    name = repr(method).partition("(")[0]
    detail = {"Coupled": "base", "AsynchronousLeapfrog": "eta", "NearReversible": "base"}.get(name)
    return f"{name.replace('AsynchronousLeapfrog', 'ALF eta =')} {getattr(method, detail)}" if detail else name

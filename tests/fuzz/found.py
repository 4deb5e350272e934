"""What a case says: findings, and the command that makes the case again."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import revode as rv

WARNING = getattr(rv, "RevodeWarning", rv.ReconstructionWarning)
REFUSED = (ArithmeticError,)                              # what a solve may say in place of an answer
NOT_COMPILED = {"NotTraceable", "NoCompiler", "CompileError"}      # what it may say where a backend was asked for by name


class Finding(NamedTuple):
    what: str            # ok, warned, loud (refused), FAIL
    where: str           # which of the solves of the case
    detail: str

    @property
    def failed(self) -> bool:
        return self.what == "FAIL"


class Tried(NamedTuple):
    """What a call gave: its answer or its error, and whether the library warned."""
    answer: Any
    error: Exception | None
    warned: bool


def tried(call: Callable) -> Tried:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            answer, error = call(), None
        except Exception as caught:
            answer, error = None, caught
    return Tried(answer, error, any(issubclass(w.category, WARNING) for w in heard))


def judged(where: str, got: Tried, off: Callable, bounds: tuple[float, float], refusals: tuple = REFUSED) -> Finding:
    """off(answer) -> (of the value, of the gradient), which are to be below the bounds, or something has to be said."""
    if got.error is not None:
        said = f"{type(got.error).__name__}: {str(got.error)[:300]}"
        named = NOT_COMPILED & {c.__name__ for c in type(got.error).__mro__}
        return Finding("loud" if named or isinstance(got.error, refusals) else "FAIL", where, said)
    found = off(got.answer)
    detail = f"value off {found[0]:.1e} (bound {bounds[0]:.0e}), gradient off {found[1]:.1e} (bound {bounds[1]:.0e})"
    if all(x <= bound for x, bound in zip(found, bounds, strict=True)):
        return Finding("ok", where, detail)
    return Finding("warned" if got.warned else "FAIL", where, detail)


def command(kind: str, seed: int) -> str:
    return f"python -m tests.fuzz --kind {kind} --only {seed}"

"""The implementation under test: a Python function, or a program that speaks JSON.

    function(problem) -> {"ys": ..., "states": ..., "ay0": ..., "aparams": ..., "cotangents": ...}

problem is a cases.Problem. "ys" is needed; "states" and "cotangents", lists of {part: array} for every grid point, and the
gradient make the check closer. NotImplementedError says that a method is not offered. A program is started once for each
case: it reads the problem from its standard input as one JSON object, and prints the same dictionary as JSON (with
"evaluations", a list of [t, *y], if it likes; {"unsupported": "why"} for a method that it has not).
"""
from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import Case, Problem

SECONDS = 120                # that a program may take for a case


class CannotRun(Exception):
    """There is no implementation to check, or it failed; the text says why."""


class NotOffered(Exception):
    """The implementation does not have the method of this case."""


@dataclass
class Answer:
    """What came back, as float64 arrays; None for what was not given."""
    ys: np.ndarray
    states: list[dict] | None = None
    ay0: np.ndarray | None = None
    aparams: dict | None = None
    cotangents: list[dict] | None = None
    evaluations: list | None = None
    single: bool = False                  # every number of ys is a float32


def function(name: str) -> Callable:
    """The function that 'module:function' names; the module may lie in the current folder."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise CannotRun(f"--impl {name!r}: give module:function, such as mysolver:check_me")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
    except Exception as error:                      # whatever somebody's module raises as it is imported
        raise CannotRun(f"--impl {name}: importing {module} failed with {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise CannotRun(f"--impl {name}: {module} has no {attribute!r}")
        found = getattr(found, part)
    return found             # type: ignore[return-value]


def program(command: str) -> Callable:
    """A function that has a program answer."""
    words = shlex.split(command)
    if not words:
        raise CannotRun("--exec '': give a program, with its arguments, such as 'julia check_me.jl'")

    def ask(problem: Problem) -> dict:
        try:
            done = subprocess.run(words, input=json.dumps(problem.asked()), capture_output=True, text=True, timeout=SECONDS)
        except OSError as error:
            raise CannotRun(f"--exec {words[0]}: {error.strerror}; give its path") from error
        except subprocess.TimeoutExpired:
            raise CannotRun(f"--exec {words[0]}: no answer to {problem.name} within {SECONDS} s") from None
        if done.returncode:
            raise CannotRun(f"{words[0]} ended with status {done.returncode}: {last_line(done.stderr)}")
        try:
            given = json.loads(done.stdout)
        except ValueError as error:
            raise CannotRun(f"{words[0]} printed no JSON object: {error}") from None
        if isinstance(given, dict) and "unsupported" in given:
            raise NotOffered(str(given["unsupported"]))
        return given

    return ask


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["(it said nothing)"])[-1]


def answer(implementation: Callable, case: Case, problem: Problem | None = None) -> Answer:
    """Ask, and check the form of what comes back. Raises CannotRun or NotOffered."""
    problem = problem or case.problem
    problem.log.clear()
    try:
        given = implementation(problem)
    except (CannotRun, NotOffered):
        raise
    except NotImplementedError as error:
        raise NotOffered(str(error) or "not offered") from None
    except Exception as error:                      # somebody's code: any error is one to report, not one to stop at
        raise CannotRun(f"{type(error).__name__}: {error}") from error
    if not isinstance(given, dict) or "ys" not in given:
        raise CannotRun(f"the answer is {type(given).__name__}; it is a dictionary with 'ys', and the gradient 'ay0' and 'aparams'")
    N, y0 = len(problem.ts) - 1, problem.y0
    ys, single = shaped(given["ys"], "ys", (N + 1, *y0.shape))
    parts = {part: x.shape for part, x in case.states[0].items()}
    found = Answer(ys, single=single, evaluations=given.get("evaluations") or problem.log or None)
    for name in ("states", "cotangents"):
        if given.get(name) is not None:
            setattr(found, name, rows(given[name], name, N + 1, parts))
    if given.get("ay0") is not None:
        found.ay0 = shaped(given["ay0"], "ay0", y0.shape)[0]
    if given.get("aparams") is not None:
        found.aparams = named(given["aparams"], "aparams", {name: np.shape(w) for name, w in problem.params.items()})
    return found


def shaped(x: Any, name: str, shape: tuple) -> tuple[np.ndarray, bool]:
    """x as float64 of this shape (axes of length 1 aside), and whether its numbers are float32."""
    try:
        if np.iscomplexobj(x):
            raise TypeError("it is complex, and its imaginary part would be dropped; give x.real where that is meant")
        x = np.asarray(x, dtype=float)
    except (TypeError, ValueError) as error:
        raise CannotRun(f"{name} is not an array of numbers: {error}") from None
    if [n for n in x.shape if n > 1] != [n for n in shape if n > 1]:
        raise CannotRun(f"{name} has shape {x.shape}; it is to have shape {shape}")
    x = x.reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return x, bool(np.array_equal(x, x.astype(np.float32)))


def named(given: Any, name: str, shapes: dict) -> dict:
    if not isinstance(given, dict) or set(given) != set(shapes):
        held = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise CannotRun(f"{name} holds {held}; it is a dictionary of {sorted(shapes)}")
    return {key: shaped(given[key], f"{name}[{key!r}]", shape)[0] for key, shape in shapes.items()}


def rows(given: Any, name: str, length: int, shapes: dict) -> list[dict]:
    if not isinstance(given, (list, tuple)) or len(given) != length:
        raise CannotRun(f"{name} is to be a list of {length} dictionaries, one for each grid point, with the parts {sorted(shapes)}")
    return [named(row, f"{name}[{n}]", shapes) for n, row in enumerate(given)]

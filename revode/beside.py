"""Which operation has other bits on a tape than off it: a function carried out on arrays and on tensors, side by side.

    parted(f, t, y, params)  ->  ("**", " in line 12 of model.py (return -y * params ** 3)")

A number is no array without axes: NumPy takes the power of the one by the C library, and that of the other by its loops.
"""
from __future__ import annotations

import linecache
import operator
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .engine import tree
from .engine.tensor import Tape, Tensor, is_float, name_of, value_of

OWN = (__file__, str(Path(__file__).parent / "engine"), str(Path(np.__file__).parent))           # no line of these is the user's
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@"}


class Parted(Exception):
    """Two results of one operation are not the same: (operation, line)."""


class Beside:
    """An array, or a number, and a tensor that stands for it on a tape: what is done to the one is done to the other."""
    __slots__ = ("plain", "tensor")

    def __init__(self, plain: Any, tensor: Any) -> None:
        self.plain, self.tensor = plain, tensor

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.plain, name)
        return partial(both, f".{name}()", operator.methodcaller, name, self) if callable(found) else pair(
            f".{name}", found, getattr(self.tensor, name))

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **options: Any) -> Any:
        return both(name_of(ufunc) + ("" if method == "__call__" else f".{method}"), None, getattr(ufunc, method), *args, **options)

    def __array_function__(self, function: Callable, types: Any, args: Any, options: Any) -> Any:
        return both(name_of(function), None, function, *args, **options)

    def __getitem__(self, index: Any) -> Any:
        return both("x[i]", None, operator.getitem, self, index)

    def __neg__(self) -> Any:
        return both("-", None, operator.neg, self)

    def __abs__(self) -> Any:
        return both("abs", None, abs, self)

    def __len__(self) -> int:
        return len(self.plain)

    def __bool__(self) -> bool:
        return bool(self.plain)


def binary(name: str, symbol: str) -> None:
    """Give Beside an operator, from either side."""
    function = getattr(operator, name)
    setattr(Beside, f"__{name}__", lambda self, other: both(symbol, None, function, self, other))
    setattr(Beside, f"__r{name}__", lambda self, other: both(symbol, None, function, other, self))


def compared(name: str) -> None:
    """Give Beside a comparison, which is one of arrays."""
    function = getattr(operator, name)
    setattr(Beside, f"__{name}__", lambda self, other: function(self.plain, side(other, "plain")))


for _name, _symbol in OPERATORS.items():
    binary(_name, _symbol)
for _name in ("lt", "le", "gt", "ge"):
    compared(_name)


def both(name: str, make: Callable | None, function: Any, *args: Any, **options: Any) -> Any:
    """A function of what is beside one another, on either side. make: of methods, which come by name: make(name, *args)(array)."""
    def on(which: str) -> Any:
        given = [side(x, which) for x in args]
        more = {key: side(x, which) for key, x in options.items()}
        return function(*given, **more) if make is None else make(function, *given[1:], **more)(given[0])

    return pair(name, on("plain"), on("tensor"))


def side(x: Any, which: str) -> Any:
    """The arrays, or the tensors, of an argument."""
    if type(x) is Beside:
        return getattr(x, which)
    return type(x)(side(entry, which) for entry in x) if type(x) in (tuple, list) else x


def pair(name: str, plain: Any, tensor: Any) -> Any:
    """Two results beside one another. Raises Parted where they are not the same, to the last bit."""
    if type(tensor) is tuple or type(tensor) is list:
        return [pair(name, a, b) for a, b in zip(plain, tensor, strict=True)]
    if not np.array_equal(plain, value_of(tensor), equal_nan=type(tensor) is Tensor):
        raise Parted(name, where())
    return Beside(plain, tensor) if type(tensor) is Tensor else plain


def where() -> str:
    """The user's line that is at work."""
    frame: Any = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(OWN):
        frame = frame.f_back
    return "" if frame is None else line_of(frame.f_code.co_filename, frame.f_lineno)


def line_of(name: str, line: int) -> str:
    text = linecache.getline(name, line).strip()
    return f" in line {line} of {Path(name).name}" + (f" ({text})" if text else "")


def followed(function: Callable, args: tuple) -> list[tuple]:
    """The lines of the user that function(*args) goes through: (file, line, the floats that are there before it)."""
    found: list[tuple] = []

    def look(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename.startswith(OWN):
            return None
        if event != "call":
            there = {name: np.array(value_of(x)) for name, x in frame.f_locals.items() if is_float(x)}
            found.append((frame.f_code.co_filename, frame.f_lineno, there))
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        function(*args)
    finally:
        sys.settrace(before)
    return found


def line_apart(function: Callable, arrays: tuple, tensors: tuple) -> str:
    """The line from which on function(*arrays) and function(*tensors) are not the same."""
    one, other = (followed(function, args) for args in (arrays, tensors))
    at = one[0]
    for a, b in zip(one, other, strict=False):
        if a[:2] != b[:2] or a[2].keys() != b[2].keys() or not all(np.array_equal(x, b[2][name], True) for name, x in a[2].items()):
            break
        at = a
    return line_of(*at[:2])


def parted(function: Callable, *args: Any) -> tuple[str, str]:
    """Where function(*args) has other bits if the floats among the arguments are tensors: the first operation ("" where it is none by
    itself), and the line. Both are "" where that cannot be told."""
    tape = Tape()
    given = tree.map(lambda x: Beside(x, tape.input(np.asarray(x))) if is_float(x) else x, args)
    with np.errstate(all="ignore"):
        try:
            function(*given)
        except Parted as found:
            return found.args
        except Exception:                  # what cannot be done beside one another
            pass
        try:
            return "", line_apart(function, args, tree.map(lambda x: tape.input(np.asarray(x)) if is_float(x) else x, args))
        except Exception:
            return "", ""

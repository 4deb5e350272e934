"""What a tensor refuses, because the gradient would be lost in silence, and what it says; nothing here computes.

A value of a program that is being traced (compiled/program.py) is refused in other words, or, where it is a whole number, asked for:
the constants of the program depend on it from there on.
"""
from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np


class NotTraceable(TypeError):
    """This cannot become part of a program: what happens depends on the values."""


def traced(x: Any) -> Any:
    """The tensor of a program that is being traced behind a tensor; the plain array behind it if there is none."""
    while issubclass(type(x), Refusing) and not x.tape.tracing:
        x = x._value
    return x


class Refusing:
    """The methods of a tensor that drop gradients."""
    __slots__ = ()
    shape: Any
    dtype: Any
    tape: Any
    _value: Any

    def _asked(self) -> Any:
        """The whole number (or bool) behind a value of a program that is being traced; None of any other."""
        root = traced(self)
        return root.tape.ask(root) if type(root) is type(self) and root.dtype.kind in "biu" else None

    def _drop(self, what: str, instead: str) -> Any:
        raise (NotTraceable if type(traced(self)) is type(self) else TypeError)(
            f"{what} on a tensor would drop its gradient in silence; {instead}, or read the plain value with x.value if no "
            "gradient is wanted")

    def _seen(self) -> Any:
        if type(traced(self)) is type(self):
            raise NotTraceable("the text of a value (str, repr, format)")
        return self._value

    def __float__(self) -> float:
        return self._drop("float(x), or writing x into an entry of a plain array,",
                          "keep it an array, and build arrays with np.stack or np.concatenate")

    def __int__(self) -> int:
        number = self._asked()
        return int(number) if number is not None else self._drop("int(x)", "keep it an array: NumPy functions take tensors")

    def __index__(self) -> int:
        number = self._asked()
        if number is None:
            raise TypeError("a tensor as an index, or as a number of times, would drop its gradient in silence; keep it an array, or "
                            "read the plain value with x.value if no gradient is wanted")
        return number.__index__()

    @property
    def __array__(self) -> Any:
        """np.array([...]) makes an array of objects of tensors without axes (see `joined`); others are refused."""
        if self.shape or (type(traced(self)) is type(self) and self.dtype.kind != "f"):
            return partial(_to_array, self)
        raise AttributeError("__array__")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("x[i] = ... writes into a tensor in place, and the value that the gradient needs would be "
                        "gone; build the new array with np.where, np.concatenate or np.stack")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a tensor cannot be pickled: its tape stays behind; return it from the function (has_aux=True), or "
                        "pickle x.value")

    def __format__(self, spec: str) -> str:
        return format(self._seen(), spec)

    def __repr__(self) -> str:
        return f"Tensor({self._seen()!r})"


def _to_array(x: Any, *args: Any, **kwargs: Any) -> Any:
    number = x._asked()
    return np.asarray(number) if number is not None else x._drop(
        "turning into a plain array (np.asarray, np.array([...]) or writing into one)",
        "join tensors with np.stack or np.concatenate; x is an array already")


def name_of(function: Any) -> str:
    """A function as people write it: np.linalg.solve, scipy.special.expit."""
    name, module = function.__name__, getattr(function, "__module__", None)
    if module is None:                                     # ufuncs of other libraries do not say where they live
        special = sys.modules.get("scipy.special")
        module = "scipy.special" if getattr(special, name, None) is function else "numpy"
    return f"{module.replace('numpy', 'np', 1)}.{name}"


INSTEAD = {"scipy.special.expit": "rv.nn.sigmoid", "scipy.special.erf": "rv.nn.erf", "scipy.special.log_expit": "-rv.nn.softplus(-x)",
           "scipy.special.xlogy": "x * np.log(y)", "np.unique": "x[np.unique(x.value, return_index=True)[1]]",
           "np.linalg.eig": "np.linalg.eigh of a symmetric matrix", "np.linalg.eigvals": "np.linalg.eigvalsh of a symmetric matrix",
           "np.add.at": "rv.nn.scatter_add", "np.copyto": "np.where", "np.put": "np.where", "np.fill_diagonal": "np.where",
           "np.place": "np.where", "np.putmask": "np.where", "np.put_along_axis": "np.where"}


def not_differentiated(name: str, how: str = "") -> TypeError:
    """A function without a rule, and what to do about it."""
    instead = f"{INSTEAD[name]} does the same; or " if name in INSTEAD else ""
    return TypeError(f"{name} {how}is not differentiated here; {instead}write it with functions that are (elementwise ones, matmul, "
                     "einsum, sums, indexing, where, concatenate, reshape: see revode/engine), give it a rule with rv.custom_vjp, or "
                     "apply it to x.value if no gradient is wanted")


def of_ufunc(ufunc: Any, method: str, options: dict, known: bool) -> TypeError:
    """Why a ufunc, one of its methods, or one of its options cannot be had."""
    name = name_of(ufunc)
    if "out" in options:
        return TypeError(f"{name} would write a tensor into an existing array (out= or an in-place "
                         "operator such as +=); assign the result to a new name instead")
    if method != "__call__":
        return not_differentiated(f"{name}.{method}", "with these options " if known else "")
    if options:
        return TypeError(f"{name} with {', '.join(options)}= is not differentiated here; leave it out, "
                         "or use np.where and x.astype")
    return not_differentiated(name)


def of_options(function: Any, unknown: set) -> TypeError:
    """Options of a function of NumPy's that its counterpart here has not."""
    return TypeError(f"{name_of(function)} with {', '.join(sorted(unknown))}= is not differentiated here; leave it out"
                     + (", and assign the result to a new name" if "out" in unknown else ""))


# What NumPy says itself, and what to add to it.
NOTES = {
    "read-only": "revode: an array that a field is given, or that a gradient still needs, is read-only meanwhile; make a new array "
                 "(y = 2 * y, not y *= 2), or write into a copy (y = y.copy()).",
    "setting an array element with a sequence": "revode: writing a tensor into an entry of a plain array would drop its gradient; "
                 "build the array from its parts, as in np.stack([y[1], -y[0]]), np.concatenate or np.where.",
    "argument 0 of type Tensor": "revode: np.array([...]) of tensors is an array of objects until it meets a tensor or is returned; "
                 "np.stack([...]) makes a tensor at once, which every function takes.",
}


def explain(error: Exception) -> None:
    """A note on an error of NumPy's that says what to do, where its sentence alone does not."""
    for words, note in NOTES.items():
        if isinstance(error, (ValueError, TypeError)) and words in str(error) and note not in getattr(error, "__notes__", ()):
            error.add_note(note)

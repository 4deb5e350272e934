"""Derivatives of plain NumPy functions: one primitive, `vjp`, and short clients.

    value, pull = vjp(fn, *args)         pull(cotangent of value) = the cotangents of args

Everything may be a tree (nested dict, list, tuple). Float leaves are differentiated; integers, bools, None and strings
pass through and get None. Cost: one run of fn for the value, one backward sweep for each pull; the tape holds every
intermediate value.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import arrays, functions, linalg, primitives, spectrum, tree  # noqa: F401 (they fill the tables)
from .kept import FLOATS
from .refusals import explain
from .tensor import Tape, Tensor, completed, is_float, joined, joined_in, record_many, value_of


def vjp(fn: Callable, *args: Any) -> tuple[Any, Callable]:
    """Evaluate a function, and return how cotangents are pulled back through it.

    Parameters
    ----------
    fn : a function of trees of arrays that returns a tree.
    args : its arguments; every float array in them is differentiated.

    Returns (value, pull), where pull(cotangent) gives a tuple, one cotangent for each argument. The cotangent is a tree like
    value (None for zero); each result is a tree like its argument.
    Raises TypeError for complex or unusual float arrays among the arguments.

    Cost: one evaluation on a tape, which is held until value and pull are gone; a pull costs about as much as an evaluation or two.
    Source: Linnainmaa 1970; Griewank & Walther, Evaluating Derivatives, 2008, chapter 3.

    Example
    -------
    >>> value, pull = vjp(lambda x, y: x * y, 3.0, 4.0)
    >>> float(value), [float(a) for a in pull(1.0)]
    (12.0, [4.0, 3.0])
    """
    tree.check_leaves(args, "vjp: args")
    return vjp_of_own(fn, *args, own=False)


def vjp_of_own(fn: Callable, *args: Any, own: bool = True) -> tuple[Any, Callable]:
    """vjp for a caller that writes neither to the arguments nor to the value before it pulls: nothing of them is copied."""
    leaves, structure = tree.flatten(args)
    tape, floats = Tape(), list(map(is_float, leaves))
    inputs = [tape.input(x if own else tape.keep_input(x)) if float else checked(x) for x, float in zip(leaves, floats, strict=True)]
    slots = range(len(tape.nodes))
    try:
        outputs, out_structure = tree.flatten(joined_in(fn(*tree.unflatten(structure, inputs))))
        tape.close()
    except Exception as error:
        tape.release()                # the traceback would keep it, and what it keeps, for as long as somebody looks at it
        explain(error)
        raise
    values = [(y._value if own else tape.keep_output(y._value)) if type(y) is Tensor and y.tape is tape else y for y in outputs]

    def pull(cotangent: Any) -> tuple:
        try:
            return pulled(cotangent)
        except Exception as error:
            explain(error)
            raise

    def pulled(cotangent: Any) -> tuple:
        try:
            seeds = tree.align(out_structure, cotangent)
        except ValueError as error:
            raise ValueError(f"pull: {error}; give a tree like the value, {tree.describe(tree.unflatten(out_structure, values))}"
                             ) from None
        pairs = [(y.slot, seed_like(g, y._value)) for y, g in zip(outputs, seeds, strict=True)
                 if type(y) is Tensor and y.tape is tape and g is not None]
        found = iter(tape.pull(pairs, slots))
        seen = {id(g) for _, g in pairs} | {id(g) for g in seeds}
        return tree.unflatten(structure, [like(next(found), x, seen) if float else None
                                          for x, float in zip(leaves, floats, strict=True)])

    return tree.unflatten(out_structure, values), pull


def checked(x: Any) -> Any:
    """x itself, or a TypeError if it is an array that could be meant to carry a gradient and cannot."""
    kind = getattr(getattr(x, "dtype", None), "kind", "")
    if kind == "c" or type(x) is complex:
        raise TypeError("complex values have no gradient here; pass real and imaginary parts as two float arrays")
    if kind in ("f", "O") and not is_float(x):
        raise TypeError(f"an array of {x.dtype} was given; gradients are taken in float64 or float32, so convert it "
                        "with x.astype(np.float64)")
    return x


def seed_like(g: Any, y: Any) -> Any:
    """A cotangent for the value y: an array of its shape."""
    g = g if hasattr(g, "shape") else np.full_like(value_of(y), g) if np.shape(value_of(y)) == np.shape(g) else np.asarray(g)
    if g.shape != np.shape(value_of(y)):
        raise ValueError(f"pull: a cotangent of shape {g.shape} was given for a value of shape "
                         f"{np.shape(value_of(y))}; the two shapes are equal")
    dtype = getattr(y, "dtype", g.dtype)
    return g if g.dtype == dtype else checked(g).astype(dtype)


def like(g: Any, x: Any, seen: set) -> Any:
    """The cotangent of an input: its dtype, an array of its own; zeros where nothing flowed."""
    if g is None:
        return np.zeros_like(x)
    if type(g) is np.ndarray is type(x) and g.dtype is x.dtype and g.base is None and g.flags.writeable and id(g) not in seen:
        seen.add(id(g))                                # as ever, and quickly told
        return g
    dtype = getattr(x, "dtype", np.float64)            # a Python float has 64 bits
    if g.dtype != dtype:
        return g.astype(dtype)
    if id(g) in seen or (hasattr(g, "base") and (g.base is not None or not getattr(g.flags, "writeable", True))):
        return g if type(g) is Tensor else g.copy()
    seen.add(id(g))
    return g


def value_and_grad(fn: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., tuple[Any, Any]]:
    """The function (*args) -> (value, gradient) for a scalar fn(*args).

    Parameters
    ----------
    fn : returns one number; with has_aux, (number, anything), whose tensors come back as plain arrays.
    argnums : which argument(s) to differentiate; an int gives one tree, a tuple a tuple of trees.
    has_aux : whether fn returns something beside the number, such as a Solution.

    Returns a function that returns the value (with has_aux: (value, aux)) and the gradient, nested like the argument; None for
    leaves that are not floats.
    Raises TypeError where fn returns no scalar, or where an argument has nothing to differentiate.

    Cost: one evaluation on a tape, and one pull.
    Source: Linnainmaa 1970.

    Example
    -------
    >>> value, grads = value_and_grad(lambda p: np.sum(p["a"] ** 2))({"a": np.array([1.0, 2.0])})
    >>> float(value), grads["a"].tolist()
    (5.0, [2.0, 4.0])
    """
    check_argnums("value_and_grad", argnums)

    def with_gradient(*args: Any, **kwargs: Any) -> tuple:
        call_chosen, chosen = of_chosen("value_and_grad", fn, argnums, args, kwargs)
        aux: list = []

        def call(*chosen: Any) -> Any:
            out = call_chosen(*chosen)
            if has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise TypeError("value_and_grad: with has_aux=True the function returns (number, aux)")
                out, extra = out
                aux.append(tree.map(joined, extra))
            out = joined(out)
            if (type(out) not in (float, Tensor) and not is_float(out)) or shape_of(out):
                raise TypeError(f"value_and_grad: the function returned {tree.describe(out)}; a gradient is of one "
                                "number, so reduce with np.sum or np.mean (or use vjp for several outputs)")
            return out

        value, pull = vjp_of_own(call, *chosen, own=False)
        grads = pull(np.ones_like(value))
        grads = grads if isinstance(argnums, (tuple, list)) else grads[0]
        return ((value, tree.map(_lower, aux[0])) if has_aux else value), grads

    return with_gradient


def check_argnums(name: str, argnums: Any) -> None:
    if not all(isinstance(i, (int, np.integer)) for i in (argnums if isinstance(argnums, (tuple, list)) else (argnums,))):
        raise TypeError(f"{name}: argnums={argnums!r}; give the position of an argument, a whole number, or a tuple of them")


def of_chosen(name: str, fn: Callable, argnums: Any, args: tuple, kwargs: dict) -> tuple[Callable, list]:
    """fn as a function of the arguments that argnums names, and these; TypeError or ValueError where they carry no gradient."""
    numbers: Any = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    if len({i % max(len(args), 1) for i in numbers}) < len(numbers) or not {*numbers} <= {*range(-len(args), len(args))}:
        raise ValueError(f"{name}: argnums={argnums} with {len(args)} positional argument(s); name each argument to "
                         "differentiate once, counting from 0")
    chosen = [args[i] for i in numbers]
    leaves = tree.flatten(chosen)[0]
    if not leaves or not {x.dtype if type(x) is np.ndarray else None for x in leaves} <= FLOATS:
        for i, x in zip(numbers, chosen, strict=True):
            tree.check_leaves(x, f"{name}: argument {i}")
        for x in leaves:
            checked(x)
        if not any(map(is_float, leaves)):
            raise TypeError(f"{name}: argument {argnums} is {tree.describe(chosen)}, which holds no float array; "
                            "integers have no gradient, so convert with x.astype(np.float64)")

    def call(*chosen: Any) -> Any:
        full = list(args)
        for i, x in zip(numbers, chosen, strict=True):
            full[i] = x
        return fn(*full, **kwargs)

    return call, chosen


def _lower(x: Any) -> Any:
    """The value of a tensor of a completed tape: plain, or a tensor of a surrounding one."""
    while type(x) is Tensor and completed(x.tape):
        x = x._value
    return x


def grad(fn: Callable, argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The function (*args) -> gradient of a scalar fn(*args).

    Parameters
    ----------
    fn, argnums : as for `value_and_grad`.

    Returns a function that returns the gradient, nested like the argument. Raises as `value_and_grad`.

    Cost: as `value_and_grad`.
    Source: Linnainmaa 1970.

    Example
    -------
    >>> float(grad(grad(lambda x: x ** 3))(2.0))
    12.0
    """
    both = value_and_grad(fn, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def custom_vjp(fn: Callable, jvp: Callable | None = None) -> Callable:
    """An operation with a gradient of your own.

    Parameters
    ----------
    fn : fn(*args) returns (value, pull), as `vjp` does: pull(cotangent) takes a tree like value and returns a tuple, one
        cotangent tree for each argument (None for zero).
    jvp : jvp(args, tangents) returns the change of the value in forward mode (None in tangents for what does not move); by default
        that of fn itself, or central differences, which one log line says.

    Returns a function of the same arguments that returns the value alone, and carries the gradient where tensors come in.
    Raises, when it is pulled, TypeError or ValueError for cotangents that do not fit their arguments.

    Cost: that of fn; one node of the tape, whatever happens inside.

    Example
    -------
    >>> clipped = custom_vjp(lambda x: (x, lambda g: (np.clip(g, -1, 1),)))    # identity with a clipped gradient
    >>> float(grad(lambda x: 5 * clipped(x))(2.0))
    1.0
    """
    def operation(*args: Any) -> Any:
        leaves, structure = tree.flatten(joined_in(args))
        kept: list = []
        at: list = []

        def run(values: list) -> tuple[list, Callable]:
            plain = tree.unflatten(structure, values)
            at.append(plain)
            value, pull = fn(*plain)
            outputs, out_structure = tree.flatten(value)
            for y in outputs:
                checked(y)
            kept.append(out_structure)

            def pull_flat(incoming: list) -> list:
                full = [np.zeros_like(y) if g is None and is_float(y) else g
                        for g, y in zip(incoming, outputs, strict=True)]
                results = pull(tree.unflatten(out_structure, full))
                if not isinstance(results, tuple) or len(results) != len(plain):
                    raise TypeError(f"custom_vjp: pull returned {type(results).__name__} for {len(plain)} argument(s); it "
                                    "returns a tuple with one cotangent for each argument")
                return [g for result, arg in zip(results, plain, strict=True) for g in _match(result, arg)]

            return outputs, pull_flat

        def push_flat(vs: list) -> list:
            from .tangents import tangent_of_primal
            moved = tree.unflatten(structure, vs)
            return tree.align(kept[0], (jvp or partial(tangent_of_primal, fn))(at[0], moved))

        outputs = record_many(leaves, run, push_flat)
        return tree.unflatten(kept[0], outputs)

    return operation


_constant = custom_vjp(lambda x: (x, lambda g: (None,)), jvp=lambda args, tangents: None)


def stop_gradient(x: Any) -> Any:
    """The value of a tree, as a constant: no gradient flows through it.

    Parameters
    ----------
    x : a tree of arrays or tensors.

    Returns a tree like x. Raises TypeError for leaves that no tree may have.

    Cost: none; one node of the tape.

    Example
    -------
    >>> float(grad(lambda x: x * stop_gradient(x))(3.0))
    3.0
    """
    return _constant(x)


def shape_of(x: Any) -> tuple[int, ...]:
    return x.shape if type(x) is np.ndarray else np.shape(value_of(x))


def _match(result: Any, arg: Any) -> list:
    """The cotangent leaves for one argument of a custom operation, checked against its shapes."""
    leaves, structure = tree.flatten(arg)
    try:
        found = tree.align(structure, result)
    except ValueError as error:
        raise TypeError(f"custom_vjp: pull returned {tree.describe(result)} for an argument {tree.describe(arg)} ({error}); "
                        "return a tree like the argument") from None
    for g, x, told in zip(found, leaves, (getattr(value_of(g), "dtype", np.dtype(type(g))).kind == "c" for g in found), strict=True):
        if g is not None and is_float(x) and (shape_of(g) != shape_of(x) or told):
            raise ValueError(f"custom_vjp: pull returned a cotangent of shape {np.shape(value_of(g))} for an argument "
                             f"of shape {np.shape(value_of(x))}{', and of complex numbers' * told}")
    return found

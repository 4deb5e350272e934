"""Matrices of derivatives, and products with them: clients of vjp, one pull for each row.

    jacobian(f)(x)[i, j] = df_i / dx_j     hessian(f)(x)[i, j] = d2f / dx_i dx_j     hvp(f)(x, v) = hessian(f)(x) v

A product with the second derivative costs about three gradients, whatever the size of x, and never makes the matrix
(Pearlmutter 1994; here reverse over reverse: the pullback of the gradient, which is symmetric).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .engine import grad, tree, vjp
from .engine.derivatives import check_argnums, of_chosen, shape_of
from .engine.tensor import is_float, value_of


def jacobian(fn: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """The function (*args) -> matrix of first derivatives of fn, which returns an array, a number or a tree.

    Parameters
    ----------
    fn : a function of arrays of any shapes; arguments and values may be trees, as for `rv.grad`.
    argnums : which argument(s) to differentiate; an int gives one result for each array of the value, a tuple a
        tuple of them.

    Returns, for a value of shape (*out) and an argument of shape (*in), an array of shape (*out, *in). For trees:
    the value's tree, with a tree like the argument in the place of each array; None for what is no float.
    Raises TypeError where value or argument hold no float array.

    Cost: one evaluation, and one pull for each number in the value. Differentiable in turn.
    Source: Griewank & Walther, Evaluating Derivatives, 2008, chapter 3.

    Example
    -------
    >>> jacobian(lambda x: np.stack([x[0] * x[1], x[1] ** 2, x[0]]))(np.array([3.0, 4.0])).tolist()
    [[4.0, 3.0], [0.0, 8.0], [1.0, 0.0]]
    """
    check_argnums("jacobian", argnums)
    several = isinstance(argnums, (tuple, list))

    def matrix(*args: Any, **kwargs: Any) -> Any:
        call, chosen = of_chosen("jacobian", fn, argnums, args, kwargs)
        value, pull = vjp(call, *chosen)
        outputs, structure = tree.flatten(value)
        if not any(is_float(y) for y in outputs):
            raise TypeError(f"jacobian: the function returned {tree.describe(value)}, in which nothing is a float "
                            "array; whole numbers, bools and None have no derivative")

        def rows(i: int) -> Any:
            """The derivatives of output i, one entry after another."""
            shape, found = shape_of(outputs[i]), []
            for k in range(int(np.prod(shape))):
                seed = np.zeros_like(value_of(outputs[i]), shape=(np.size(value_of(outputs[i])),))
                seed[k] = 1
                seeds = [np.reshape(seed, shape) if j == i else None for j in range(len(outputs))]
                pulled = pull(tree.unflatten(structure, seeds))
                found.append(pulled if several else pulled[0])
            like = tuple(chosen) if several else chosen[0]

            def joined(x: Any, *g: Any) -> Any:
                if not is_float(x):
                    return None
                whole = np.stack(g) if g else np.zeros_like(value_of(x), shape=(0, *shape_of(x)))
                return np.reshape(whole, shape + shape_of(x))

            return tree.map(joined, like, *found)

        return tree.unflatten(structure, [rows(i) if is_float(y) else None for i, y in enumerate(outputs)])

    return matrix


def hessian(fn: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """The function (*args) -> matrix of second derivatives of a scalar fn(*args): the Jacobian of its gradient.

    Parameters
    ----------
    fn : returns one number; arguments may be trees, as for `rv.grad`.
    argnums : which argument(s) to differentiate; a tuple gives a tuple of tuples.

    Returns, for an argument of shape (*in), an array of shape (*in, *in); for a tree of arguments a tree of trees, result[a][b]
    of shape (*a.shape, *b.shape). Raises as `rv.grad`.

    Cost: one gradient, and a pull of it (about two gradients) for each number in the argument. A solve in fn takes
    gradient=Direct() or the default: the other modes have first derivatives only, and say so.
    Source: Griewank & Walther, Evaluating Derivatives, 2008, chapter 5.

    Example
    -------
    >>> hessian(lambda x: x[0] ** 2 * x[1])(np.array([3.0, 4.0])).tolist()
    [[8.0, 6.0], [6.0, 0.0]]
    """
    check_argnums("hessian", argnums)
    return jacobian(grad(fn, argnums), argnums)


def hvp(fn: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """The function (*args, v) -> second derivative of a scalar fn(*args) times v, without the matrix.

    Parameters
    ----------
    fn : returns one number; arguments may be trees, as for `rv.grad`.
    argnums : which argument(s) to differentiate; v is a tree like it (a tuple of such trees for a tuple).

    Returns a tree like v, with None for leaves that are not floats. Raises ValueError where v has another shape.

    Cost: a gradient and a pull of it, about three gradients together; the tape holds both.
    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian; here in reverse over reverse.

    Example
    -------
    >>> hvp(lambda x: x[0] ** 2 * x[1])(np.array([3.0, 4.0]), np.array([1.0, 0.0])).tolist()
    [8.0, 6.0]
    """
    check_argnums("hvp", argnums)
    several = isinstance(argnums, (tuple, list))

    def product(*args: Any, **kwargs: Any) -> Any:
        if len(args) < 2:
            raise TypeError(f"hvp: {len(args)} positional argument(s) were given; call it with those of the function "
                            "and then v, the vector to multiply by, a tree like the argument that is differentiated")
        *args_of_fn, v = args
        call, chosen = of_chosen("hvp", fn, argnums, tuple(args_of_fn), kwargs)
        vectors = list(v) if several and isinstance(v, (tuple, list)) else [v]
        leaves, structure = tree.flatten(chosen)
        try:
            seeds = tree.align(structure, vectors)
            if any(is_float(x) and (g is None or shape_of(g) != shape_of(x))
                   for g, x in zip(seeds, leaves, strict=True)):
                raise ValueError(f"it is {tree.describe(vectors)}")
        except ValueError as error:
            raise ValueError(f"hvp: v, the last argument, does not fit ({error}); give a tree like "
                             f"{tree.describe(chosen)}") from None
        seeds = [g if is_float(x) else None for g, x in zip(seeds, leaves, strict=True)]
        _, pull = vjp(grad(call, tuple(range(len(chosen)))), *chosen)
        found = pull(tuple(tree.unflatten(structure, seeds)))
        return found if several else found[0]

    return product

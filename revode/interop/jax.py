"""Solves and fixed points as operations of JAX: a custom_vjp around pure_callback, whose forward and backward are this package's.

The work is done by NumPy on the host, also under jit. Under vmap over y0 alone a solve is done for the whole batch at once, if two
of them, each solved by itself, are the same up to rounding (with noise they are not); over anything else, and going back, one by one:
give a batch to solve as an axis of y0, rather than to vmap. A gradient solves forward
once more, because a callback of JAX can leave nothing behind for another one.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ..checks import check_save
from ..engine import tree
from ..solve import solve as solve_arrays
from .operation import Operation, Solved, equilibrium

LOOKED_AT = 0.381966, 1 - 1e-9            # where in a batch, in shares of it: neither at its middle nor at both ends


def is_array(x: Any) -> bool:
    return isinstance(x, jax.Array)


def run(call: Operation, shapes: Sequence[jax.ShapeDtypeStruct], behind: Sequence[int] | None = None) -> list:
    """The outputs of an operation, of these shapes and dtypes, as arrays of JAX.

    behind : if the first array may have a batch in front, where this batch stands in each of the outputs; None: it may not.
    """
    ranks = [x.ndim for x in call.arrays]
    wanted = [bool(np.issubdtype(x.dtype, np.floating)) for x in call.arrays]
    gradients = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x, want in zip(call.arrays, wanted, strict=True) if want]

    def ahead(*arrays: Any) -> tuple:
        plain = [np.asarray(x) for x in arrays]
        lead = leading(plain, ranks)
        if lead and behind is not None and leading(plain[1:], ranks[1:]) in ((), (1,) * len(lead)):
            found = at_once(call.value, plain, len(lead), behind)
            if found is not None:
                return found
        return one_by_one(call.value, plain, ranks, shapes)

    def back(*arrays: Any) -> tuple:
        return one_by_one(pulled, [np.asarray(x) for x in arrays], [*ranks, *(len(x.shape) for x in shapes)], gradients)

    def pulled(plain: list) -> list:
        _, pull = call.with_pull(plain[:len(ranks)], wanted)
        return [a for a in pull(plain[len(ranks):]) if a is not None]

    def called(host: Callable, found: Sequence, *arrays: Any) -> tuple:
        return jax.pure_callback(host, tuple(found), *arrays, vmap_method="expand_dims")

    @jax.custom_vjp
    def operation(*arrays: Any) -> tuple:
        return called(ahead, shapes, *arrays)

    def pull(arrays: tuple, cotangents: tuple) -> tuple:
        found = iter(called(back, gradients, *arrays, *cotangents))
        return tuple(next(found) if want else None for want in wanted)

    operation.defvjp(lambda *arrays: (operation(*arrays), arrays), pull)
    return list(operation(*call.arrays))


def leading(plain: Sequence[np.ndarray], ranks: Sequence[int]) -> tuple[int, ...]:
    """The axes that vmap has put in front, of all arrays together."""
    return np.broadcast_shapes(*(x.shape[:x.ndim - rank] for x, rank in zip(plain, ranks, strict=True)))


def at_once(function: Callable, plain: list, lead: int, behind: Sequence[int]) -> tuple | None:
    """The results for a batch in front of the first array, `lead` axes; None where two of them are others by themselves.

    So it is with noise, which counts the rows of a batch, and where the field takes y apart by axes from the front. The last alone
    would not do: in a batch that grows, a norm or a largest entry over all of it may be its own.
    """
    shared = [x[(0,) * lead] for x in plain[1:]]
    try:
        found = [np.moveaxis(y, range(at), range(lead, lead + at))
                 for y, at in zip(function([plain[0], *shared]), behind, strict=True)]
    except Exception:                                # what is wrong with each of them is said when they are done one by one
        return None
    batch = plain[0].shape[:lead]
    for place in {int(share * math.prod(batch)) for share in LOOKED_AT}:
        at = np.unravel_index(place, batch)
        for y, alone in zip(found, function([plain[0][at], *shared]), strict=True):
            allowed = 100 * np.finfo(y.dtype).eps ** 0.5 * np.max(np.abs(alone), initial=0.0)
            if not np.all(np.abs(y[at] - alone) <= allowed):
                return None
    return tuple(found)


def one_by_one(function: Callable, plain: list, ranks: list[int], shapes: Sequence) -> tuple:
    """The results of a function of arrays without the axes that vmap has put in front, for each place along these."""
    lead = leading(plain, ranks)
    given = [np.broadcast_to(x, (*lead, *x.shape[len(lead):])) for x in plain]
    found = [np.empty((*lead, *y.shape), y.dtype) for y in shapes]
    for at in np.ndindex(lead):
        for room, y in zip(found, function([x[at] for x in given]), strict=True):
            room[at] = y
    return tuple(found)


def like(x: Any, *lead: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*lead, *np.shape(x)), x.dtype)


def solve(field: Callable, y0: Any, ts: Any, params: Any = None, **options: Any) -> Solved:
    """revode.solve for arrays of JAX, differentiable by it, under jit too.

    Parameters
    ----------
    field : field(t, y, params) -> dy/dt, a plain NumPy function: it sees arrays of NumPy, and is not traced by JAX.
    y0 : (..., d) array, float32 or float64, or a tree of arrays.
    ts : (N + 1,) times, known when JAX traces; they get no gradient.
    params : tree of arrays, with numbers and whatever else the field reads.
    options : as for revode.solve, but for adaptive steps, whose number JAX cannot know.

    Returns Solved(ts, ys, y1, None), with ys and y1 arrays that carry gradients to y0 and params, in reverse mode, once.
    Raises what revode.solve raises: out of a callback as a JaxRuntimeError that has its message. TypeError by JAX for forward mode.

    Cost: that of revode.solve, on the host; a gradient solves forward once more. vmap over y0 alone is one solve ahead, and one for
    each of two of them; vmap over anything else, with noise, and the way back under vmap, are one solve for each.

    Example
    -------
    >>> loss = lambda y0: solve(lambda t, y, p: -y, y0, np.linspace(0.0, 1.0, 101)).y1.sum()
    >>> [f"{a:.4f}" for a in jax.jit(jax.grad(loss))(np.ones(2, np.float32)).tolist()]
    ['0.3679', '0.3679']
    """
    if options.get("controller") is not None:
        raise TypeError("interop.jax.solve: controller= was given, and JAX has to know how many steps there are; give the grid as ts")
    if isinstance(ts, jax.core.Tracer):
        raise TypeError("interop.jax.solve: ts is traced by JAX, which has to know the grid beforehand; give times of NumPy, which "
                        "get no gradient")
    ts = np.asarray(ts)
    save = check_save(options.get("save"), len(ts) - 1)

    def function(y0: Any, params: Any) -> tuple:
        sol = solve_arrays(field, y0, ts, params, **options)
        return sol.ys, sol.y1

    call = Operation("interop.jax.solve", function, {"y0": y0, "params": params}, is_array)
    ys, structure = tree.flatten((tree.map(lambda x: like(x, len(save)), y0), tree.map(like, y0)))
    found = run(call, ys, (1, 0) if is_array(y0) else None)
    saved, y1 = tree.unflatten(structure, found)
    return Solved(ts[list(save)], saved, y1, None)


def fixed_point(f: Callable, z0: Any, params: Any = None, x: Any = None, **options: Any) -> Any:
    """revode.fixed_point for arrays of JAX: an equilibrium layer.

    Parameters
    ----------
    f : f(z, params, x), shaped like z; a plain NumPy function.
    z0, params, x : trees of arrays, as for revode.fixed_point.
    options : method, tol, atol, max_steps, gradient, compute, backend: as there.

    Returns z, a tree of arrays like z0 that carries gradients to z0, params and x, in reverse mode, once.
    Raises what revode.fixed_point raises: out of a callback as a JaxRuntimeError that has its message.

    Cost: that of revode.fixed_point; a gradient iterates forward once more, and vmap is one iteration for each.

    Example
    -------
    >>> z = fixed_point(lambda z, p, x: np.cos(0.5 * z) + x, np.zeros(1, np.float32), x=jax.numpy.array([0.1]), tol=1e-5)
    >>> print(f"{float(z[0]):.4f}")
    0.9819
    """
    z, structure = tree.flatten(tree.map(like, z0))
    call = Operation("interop.jax.fixed_point", equilibrium(f, options), {"z0": z0, "params": params, "x": x}, is_array)
    return tree.unflatten(structure, run(call, z))

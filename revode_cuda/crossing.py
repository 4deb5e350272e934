"""A fused solve of device arrays, seen from the tape: down to the host in one copy, through revode.solve, and up again.

    y0, params  --down-->  host  --solve, fused-->  ys, state  --up-->  device          each way back its cotangents go the other way

What a solve does beside its launches is small, and quicker on the host than as hundreds of small kernels: a solve and its
gradient are some dozen operations of the device, and four waits for it.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from revode import Solution, State, Tensor, custom_vjp, tree
from revode.engine.tensor import value_of

from .arrays import on_device


def fetch(x: Any) -> Any:
    """The tree x with its device arrays on the host: one copy, and one wait, for all of one dtype."""
    return together(x, on_device, lambda flat: flat.get(), lambda flat, at, like: flat[at:at + like.size].reshape(like.shape))


def send(xp: Any) -> Callable:
    """The tree x with its host arrays on the device: one copy for all of one dtype."""
    return lambda x: together(x, lambda leaf: isinstance(leaf, np.ndarray), xp.asarray, part(xp))


def part(xp: Any) -> Callable:
    """A stretch of a device array: an array of its own, and no view."""
    return lambda flat, at, like: xp.ndarray(like.shape, flat.dtype, memptr=flat.data + at * flat.dtype.itemsize)


def together(x: Any, chosen: Callable, move: Callable, part: Callable) -> Any:
    """The tree x with the chosen leaves moved, joined by dtype; part(flat, at, like) is one of them."""
    leaves, structure = tree.flatten(x)
    kinds: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if chosen(leaf):
            kinds.setdefault(leaf.dtype, []).append(i)
    for which in kinds.values():
        if len(which) == 1:
            leaves[which[0]] = move(leaves[which[0]])
            continue
        flat, at = move(np.concatenate([leaves[i].reshape(-1) for i in which])), 0
        for i in which:
            at, leaves[i] = at + leaves[i].size, part(flat, at, leaves[i])
    return tree.unflatten(structure, leaves)


def moved(there: Callable, back: Callable) -> Callable:
    """The move of a tree as an operation of the tape."""
    return custom_vjp(lambda x: (there(x), lambda a: (back(a),)), jvp=lambda args, tangents: there(tangents[0]))


def ways(xp: Any, given: Any) -> tuple[Any, Callable]:
    """The tree `given` on the host, and the way up for what comes of it."""
    down = moved(fetch, send(xp)) if any(type(x) is Tensor for x in tree.flatten(given)[0]) else fetch
    return down(given), moved(send(xp), fetch)


def across(solve: Callable, xp: Any, y0: Any, params: Any, state0: State | None) -> Solution:
    """solve(y0, params, state0) on host arrays, between device arrays."""
    (y0, params, parts), up = ways(xp, (y0, params, None if state0 is None else state0.parts))
    sol = solve(y0, params, None if state0 is None else state0._replace(parts=parts))
    ys, state = up(sol.ys), sol.state._replace(parts=up(sol.state.parts))
    ends = len(sol.ts) and float(value_of(sol.ts)[-1]) == state.t
    y1 = tree.map(lambda y: y[-1], ys) if ends else up(sol.y1)
    return sol._replace(ys=ys, state=state, y1=y1)

"""A batch over the ranks of an MPI job, with the same bits whatever their number.

    rows of the batch -> tiles of `tile` rows -> ranks, each a stretch of tiles
    sum over all tiles = a binary tree over the tiles' numbers: neighbours first, then neighbours of those

Which numbers meet in which sum follows from the batch and `tile` alone; ranks only own parts of the tree. A rank adds up what
it owns, and sends the tops of its subtrees up a binary tree of ranks (ranks.py); the result comes down the same way: 2 (P - 1)
messages a step. With strict arithmetic (of "native", or the tape) loss and gradient have the same bits on any number of ranks and
threads; so "auto" does not go native here, where each rank makes another number of solves. Optimisers stay in step because all
ranks make the same updates of the same bits; a hash of the parameters is compared now and then.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np

from .engine import tree
from .engine.derivatives import custom_vjp, vjp
from .engine.derivatives import value_and_grad as of_one
from .engine.tensor import Tensor, innermost, is_float, number, to_host, value_of
from .march import chose
from .ranks import Comm, together, world
from .solve import solve as solve_here
from .stepping import Stats

__all__ = ["Gathered", "map", "noise_of", "solve", "value_and_grad", "world"]

TILE = 128           # a solve of its own costs some 3 ms of Python, beside a millisecond a row on W2: 1 to 2 %
HASHED = 64          # calls between two looks at the parameters, and at the loss
DECIDED = 0.01       # of the largest loss: more than a tolerance lets the steps of a tile, chosen together, change one of them
ROUNDING = 100       # roots of eps, of the largest loss: a product of matrices may add up in another order in another row


def added(sums: dict, more: dict, tiles: int) -> dict:
    """Two parts of the tree in one: {(level, i): [sums over tiles i 2^level, ... (i + 1) 2^level - 1]}, each as high as it gets.

    (Which of two neighbours comes first no bit of their sum can tell.)
    """
    sums = dict(sums)
    for (level, i), x in more.items():
        while level < (tiles - 1).bit_length():
            if (level, i ^ 1) in sums:
                x = [a if b is None else a + b for a, b in zip(sums.pop((level, i ^ 1)), x, strict=True)]
            elif i % 2 or i + 1 << level < tiles:            # its neighbour is elsewhere; the last of an odd number has none
                break
            level, i = level + 1, i // 2
        sums[level, i] = x
    return sums


def shared(comm: Comm, count: int, tile: int, stamp: tuple, work: Callable) -> tuple[list, list]:
    """The one loop over tiles, each by one rank: work(rows, n) -> (piece, summands), of whose rows (tile,) the first n count.

    Where the batch ends within a tile, rows has its last row again. Returns the pieces in the order of tiles and the sums of the
    summands, on every rank. Raises ValueError where ranks differ in their stamp: (batch, parameters), hashed.
    """
    tiles = -(-count // tile)
    first, end = (-(-r * tiles // comm.Get_size()) for r in (comm.Get_rank(), comm.Get_rank() + 1))      # of some ranks the same

    def mine() -> tuple:
        pieces: list = []
        sums: dict = {}
        for begin in range(first * tile, end * tile, tile):
            n = min(tile, count - begin)
            piece, summands = work(begin + np.minimum(np.arange(tile), n - 1), n)
            pieces.append(piece)
            sums = added(sums, {(0, begin // tile): summands}, tiles)
        return (comm.Get_rank(), *stamp), pieces, sums

    def join(a: tuple, b: tuple) -> tuple:
        for what, ours, theirs in zip(("batch", "parameters"), a[0][1:], b[0][1:], strict=False):
            if ours != theirs:
                raise ValueError(f"parallel: the {what} of rank {b[0][0]} and of rank {a[0][0]} differ; give all ranks the same "
                                 "batch, start them with the same parameters, and update these in the same way on each")
        return a[0], a[1] + b[1], added(a[2], b[2], tiles)

    _, pieces, sums = together(comm, mine, join)
    return pieces, next(iter(sums.values()))


def wide(leaves: Sequence) -> list:
    """In float64, each where it is: float32 is rounded once, after the sums. None stays."""
    return [None if x is None else x.astype(np.float64) if hasattr(x, "astype") else np.float64(x) for x in leaves]


def like(params: Any, leaves: list) -> Any:
    """A tree like params of sums for its leaves; None for what is no float."""
    given, structure = tree.flatten(params)
    return tree.unflatten(structure, [
        found.astype(getattr(value_of(x), "dtype", np.float64)).reshape(np.shape(x)) if is_float(x) else None
        for found, x in zip(leaves, given, strict=True)])


def digest(arrays: Any) -> bytes:
    """A hash of the bits of the arrays and floats of a tree."""
    found = hashlib.blake2b(digest_size=16)
    for x in tree.flatten(arrays)[0]:
        if is_float(x) or hasattr(x, "dtype"):
            found.update(np.ascontiguousarray(to_host(value_of(x))).tobytes())
    return found.digest()


# What it is for -------------------------------------------------------------------------------------------------------
def value_and_grad(loss: Callable, comm: Comm | None = None, *, reduce: Literal["mean", "sum"] = "mean",
                   tile: int = TILE) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The function (params, batch) -> (loss over the batch, its gradient), the batch shared out over ranks.

    Parameters
    ----------
    loss : loss(params, rows) -> (tile,) losses, one a trajectory; rows (tile,) are their numbers. What else is needed (data,
        starts) it looks up by them. Noise: `noise_of(noise, rows)`.
    comm : a communicator; by default that of mpiexec, or none.
    reduce : "mean" or "sum" over all trajectories.
    tile : trajectories in one call. Part of the problem, as the loss is: another tile gives other roundings. A batch of B has
        work for B / tile ranks; the others wait.

    Returns a function of params, a tree, and batch: how many rows, or (B,) their numbers. It returns the loss, float64, and the
    gradient, a tree like params (None for leaves that are not floats), the same bits on every rank. The last tile is filled up
    with its last row, whose further losses are left out.
    Raises ValueError for a loss that is not one of each trajectory, or is across trajectories, and what any rank raises, with its
    number; TypeError, ValueError for another batch or tile.

    Cost: loss and gradient of the tiles of a rank, and one tree of messages of the gradient's size. At the first of every 64 calls
    three more evaluations of one tile, which show whether a trajectory's loss depends on others.

    Example
    -------
    >>> y0 = np.linspace(0.0, 1.0, 100)
    >>> value, grads = value_and_grad(lambda p, rows: (p["a"] * y0[rows]) ** 2)({"a": np.array(2.0)}, 100)
    >>> bool(np.isclose(grads["a"], np.mean(4.0 * y0 ** 2)))
    True
    """
    comm = world() if comm is None else comm
    check_tile("value_and_grad", tile)
    if reduce not in ("mean", "sum"):
        raise ValueError(f"parallel.value_and_grad: reduce={reduce!r}; \"mean\" or \"sum\"")
    calls = count()

    def with_gradient(params: Any, batch: Any) -> tuple[Any, Any]:
        numbers, looks = checked_batch(batch), next(calls) % HASHED == 0

        def work(at: np.ndarray, n: int) -> tuple:
            nonlocal looks
            rows = numbers[at]
            if looks:
                looks = check_apart(loss, params, rows, n)
            value, grads = of_one(lambda p: np.sum(each(loss(p, rows), tile)[:n]))(params)
            return None, wide([value, *tree.flatten(grads)[0]])

        stamp = digest((numbers, np.array(tile))), digest(params) if looks else b""
        _, sums = shared(comm, len(numbers), tile, stamp, work)
        value, *grads = [x if x is None else x / (len(numbers) if reduce == "mean" else 1) for x in sums]
        return np.float64(number(value)), like(params, grads)

    return with_gradient


ACROSS = ("A loss across trajectories (MMD, contrastive, of a mean over the batch) needs all of them at once: solve with "
          "parallel.solve, which gathers them, and take the gradient with rv.value_and_grad")


def each(losses: Any, tile: int) -> Any:
    """The losses, if they are one for each row."""
    if np.shape(losses) != (tile,):
        raise ValueError(f"parallel.value_and_grad: the loss has shape {np.shape(losses)} for {tile} rows; it is one number for each, "
                         f"({tile},). {ACROSS}")
    return losses


def check_apart(loss: Callable, params: Any, rows: np.ndarray, n: int) -> bool:
    """ValueError where the loss of one of the first n rows of a tile changes with the rows beside it; else False.

    The second half is changed (into what stands where a batch ends): the first has to keep its bits. The first row is left out:
    the others, each one place further in front, have to keep their losses up to rounding. Where a solve chose its own steps, for
    all rows together, both are allowed what these may change.
    """
    at, half = np.arange(len(rows)), (n + 1) // 2
    searches: list[int] = []
    token = chose.set(searches.append)
    try:
        here, cut, shifted = (to_host(each(loss(params, rows[places]), len(rows))) for places in (
            at, np.minimum(at, half - 1), np.minimum(at + 1, n - 1)))
    finally:
        chose.reset(token)
    scale = np.max(np.abs(here[:n]), initial=0.0, where=np.isfinite(here[:n]))
    rounding = ROUNDING * np.finfo(np.result_type(here, np.float32)).eps ** 0.5
    for found, seen, allowed in ((here[:half], cut[:half], 0.0), (here[1:n], shifted[:n - 1], rounding)):
        off = np.where((found == seen) | (np.isnan(found) & np.isnan(seen)), 0.0, np.abs(found - seen))
        if not np.all(off <= (DECIDED if searches else allowed) * scale):
            raise ValueError(f"parallel.value_and_grad: the losses of rows {rows[0]} to {rows[n - 1]} change by {np.max(off):.2g} "
                             "with the rows beside them, so it is no sum over trajectories"
                             f"{' (or a tolerance is very loose)' if searches else ''}. {ACROSS}")
    return False


def check_alone(field: Callable, y: Any, t: Any, params: Any) -> None:
    """ValueError where the field of the first rows of y changes with the rows behind them."""
    half = len(y) // 2
    try:
        with np.errstate(all="ignore"):
            here, there = (field(y.dtype.type(t), np.concatenate([y[:half], y[half:] + shift]), params)[:half]
                           for shift in (0, 0.25 * (np.max(np.abs(y)) or 1)))
            apart = bool(number(np.all((here == there) | ((here != here) & (there != there)))))
    except Exception:                                        # the solve says it better
        return
    if not apart:
        raise ValueError("parallel.solve: the field, or the diffusion, of one trajectory changes with those beside it (a mean over "
                         "the batch, particles that attract each other), and what is beside it would be another tile of them; use "
                         "revode.solve, which has them all")


def check_tile(name: str, tile: Any) -> None:
    if isinstance(tile, bool) or not isinstance(tile, (int, np.integer)) or tile < 1:
        raise ValueError(f"parallel.{name}: tile={tile!r}; how many trajectories are worked on at a time, at least 1")


def checked_batch(batch: Any) -> np.ndarray:
    """The numbers of the rows."""
    numbers = np.asarray(batch)
    if numbers.dtype.kind in "iu" and numbers.ndim == 0 and numbers > 0:
        return np.arange(int(numbers))
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not numbers.size:
        raise TypeError(f"parallel.value_and_grad: batch={batch!r}; how many trajectories, or an array of their numbers, (B,), at "
                        "least one")
    return numbers


def noise_of(noise: Any, rows: Any) -> Any:
    """The noise of some trajectories, by their numbers, so that a path does not depend on who solves it.

    Parameters
    ----------
    noise : Brownian or BrownianTree.
    rows : (n,) consecutive numbers; the last may come again.

    Returns the noise with its offset moved to the first row. Raises ValueError for other numbers.

    Cost: none.

    Example
    -------
    >>> from revode import Brownian
    >>> noise_of(Brownian(seed=7), np.array([4, 5, 6, 6])).offset
    4
    """
    rows = np.asarray(rows)
    if not np.array_equal(rows, np.minimum(rows[0] + np.arange(len(rows)), rows[-1])):
        raise ValueError(f"parallel.noise_of: rows {rows}; noise is counted from the first row on, so the rows of a tile are "
                         "consecutive numbers. Give the batch as a stretch of numbers, and let those look up shuffled data")
    return replace(noise, offset=noise.offset + int(rows[0]))


class Gathered(NamedTuple):
    """What parallel.solve returns, on every rank.

    Parameters
    ----------
    ts : (saved,) the saved times.
    ys : (saved, B, ..., d) the solution there.
    y1 : (B, ..., d) the solution at the last of them.
    stats : of the first tile of this rank.
    """
    ts: np.ndarray
    ys: Any
    y1: Any
    stats: Stats


def solve(field: Callable, y0: Any, ts: Any, params: Any = None, *, comm: Comm | None = None, tile: int = TILE, noise: Any = None,
          save: Any = None, **options: Any) -> Gathered:
    """revode.solve with its batch shared out over ranks, and the trajectories of all of them on every rank.

    For losses across trajectories: of what comes back each rank takes the same loss with rv.value_and_grad, and the gradient is
    that of the whole batch, to params and y0, with the same bits on any number of ranks.

    Parameters
    ----------
    field, ts, params, noise, save, options : as for revode.solve; nothing in them has an axis of the batch. Fixed steps.
    y0 : (B, ..., d); the first axis is shared out.
    comm, tile : as for value_and_grad.

    Returns Gathered(ts, ys, y1, stats). Raises as revode.solve, on all ranks; ValueError for adaptive steps, a control or state0, for
    a field in which trajectories depend on each other, and where ranks have different y0 or params.

    Cost: the solves of this rank's tiles; two evaluations of the field; one tree of messages of the size of ys, and one
    of that of the gradient.

    Example
    -------
    >>> solve(lambda t, y, p: -y, np.ones((100, 1)), [0.0, 0.1, 0.2]).ys.shape
    (3, 100, 1)
    """
    comm = world() if comm is None else comm
    check_tile("solve", tile)
    refused = [name for name in ("controller", "control", "state0") if options.get(name) is not None]
    if refused or not hasattr(y0, "ndim") or y0.ndim < 2 or not y0.size:
        raise ValueError(f"parallel.solve: {refused[0] if refused else 'y0 without a batch'}; a batch (B, ..., d) on fixed steps is "
                         "shared out, nothing else")
    at = np.arange(len(ts))[slice(None) if save is None else save]
    if not np.size(at):
        raise ValueError(f"parallel.solve: save={save!r} leaves nothing to gather; save=[-1] is the end alone")
    first, held = value_of(y0)[np.minimum(np.arange(max(tile, 2)), len(y0) - 1)], tree.map(value_of, params)
    for f in (field, options.get("diffusion")):
        if f is not None:
            check_alone(f, first, np.ravel(ts)[0], held)
    inner, asked, plain = int(np.prod(y0.shape[1:-1])), type(y0) is Tensor, innermost(tree.flatten((y0, params))[0]) is None
    stats: list[Stats] = []

    def of_tile(rows: np.ndarray, n: int, y: Any, params: Any) -> Any:
        mine = noise if noise is None else replace(noise, offset=noise.offset + int(rows[0]) * inner)
        sol = solve_here(field, y, ts, params, noise=mine, save=save, **options)
        stats.append(sol.stats)
        return sol.ys[:, :n]

    def operation(y0: Any, params: Any) -> tuple:
        pulls: list[Callable] = []                           # of the tiles of this rank, in their order

        def ahead(rows: np.ndarray, n: int) -> tuple:
            given = y0[rows], params
            if plain:
                return of_tile(rows, n, *given), []
            ys, pull = vjp(partial(of_tile, rows, n), *given)
            pulls.append(pull)
            return ys, []

        def pull(ays: Any) -> tuple:
            left = iter(pulls)

            def back(rows: np.ndarray, n: int) -> tuple:
                a, aparams = next(left)(ays[:, rows[0]:rows[0] + n])
                return a[:n].copy() if asked else None, wide(tree.flatten(aparams)[0])

            ay0, sums = shared(comm, len(y0), tile, (), back)
            return np.concatenate(ay0) if asked else None, like(params, sums)

        stamp = digest((y0, np.array(tile))), digest(params)
        return np.concatenate(shared(comm, len(y0), tile, stamp, ahead)[0], 1), pull

    ys = custom_vjp(operation)(y0, params)
    return Gathered(np.asarray(ts)[at], ys, ys[-1], stats[0] if stats else Stats())


def map(fn: Callable, items: Sequence, comm: Comm | None = None) -> list:
    """[fn(item) for item in items], shared out over ranks: ensembles over seeds, parameters, anything.

    Parameters
    ----------
    fn : a function of one item; what it returns can be pickled, where there are several processes.
    items : the same on every rank; rank r of P takes items r, r + P, ...
    comm : as for value_and_grad.

    Returns the list, in the order of the items, on every rank. Raises what any rank raises, with its number.

    Cost: fn, and one tree of messages of the size of the results.

    Example
    -------
    >>> map(lambda seed: seed ** 2, range(5))
    [0, 1, 4, 9, 16]
    """
    comm, items = world() if comm is None else comm, list(items)
    found = together(comm, lambda: {i: fn(items[i]) for i in range(comm.Get_rank(), len(items), comm.Get_size())},
                     lambda a, b: a | b)
    return [found[i] for i in range(len(items))]

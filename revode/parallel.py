"""A batch over the ranks of an MPI job, with the same bits whatever their number.

    rows of the batch -> tiles of `tile` rows -> ranks, each a stretch of tiles
    sum over all tiles = a binary tree over the tiles' numbers: neighbours first, then neighbours of those

Which numbers meet in which sum follows from the batch and `tile` alone; ranks only own parts of the tree. A rank adds up what
it owns, and sends the tops of its subtrees up a binary tree of ranks; the result comes down the same way: 2 (P - 1) messages a
step. With strict arithmetic (of "native", or the tape) loss and gradient have the same bits on any number of ranks and threads; so
"auto" does not go native here, where each rank makes another number of solves.

A communicator has Get_rank(), Get_size(), send(x, dest) and recv(source), as those of mpi4py have; `threads` runs ranks as
threads of this process. What a rank raises in its part, all ranks raise, with its number. Optimisers stay in step because all
ranks make the same updates of the same bits; a hash of the parameters is compared now and then.
"""
from __future__ import annotations

import builtins
import hashlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from .compiled.backend import steady
from .engine import tree
from .engine.derivatives import custom_vjp, vjp
from .engine.derivatives import value_and_grad as of_one
from .engine.tensor import Tensor, beside, innermost, is_float, to_host, value_of
from .solve import solve as solve_here
from .stepping import Stats

__all__ = ["Gathered", "map", "noise_of", "solve", "threads", "value_and_grad", "world"]

LAUNCHED = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK"       # what mpiexec tells its processes
HASHED = 64                                                      # calls between two looks at the parameters
HEARD = "revode_heard_of_by_all_ranks"
COUPLED = 0.01       # of the largest loss: more than a tolerance lets the steps of a tile, chosen together, change one of them


class Comm(Protocol):
    """What is asked of a communicator."""
    def Get_rank(self) -> int: ...
    def Get_size(self) -> int: ...
    def send(self, obj: Any, dest: int) -> None: ...
    def recv(self, *, source: int) -> Any: ...


class Failed(NamedTuple):
    """What a rank sends up in place of its part."""
    rank: int
    kind: str            # the name of the exception
    text: str

    def error(self) -> BaseException:
        """Of the same class, if it is one of Python's own."""
        kind = getattr(builtins, self.kind, None) if self.kind != "KeyError" else None         # which shows its text in quotes
        if kind is KeyboardInterrupt:
            return KeyboardInterrupt()
        try:
            return kind(f"rank {self.rank}: {self.text}")                                                # type: ignore[misc]
        except TypeError:
            return RuntimeError(f"rank {self.rank}: {self.kind}: {self.text}")


class Alone:
    """The communicator of one process that was not started by mpiexec."""
    Get_rank, Get_size = staticmethod(lambda: 0), staticmethod(lambda: 1)

    def send(self, obj: Any, dest: int) -> None:
        raise ValueError(f"parallel: there is no rank {dest}")

    def recv(self, *, source: int) -> Any:
        raise ValueError(f"parallel: there is no rank {source}")


def world() -> Comm:
    """The communicator of all ranks that mpiexec started; a process that was started without it is alone, and needs no mpi4py.

    Returns mpi4py's MPI.COMM_WORLD, or one like it of size 1. Raises ImportError where mpiexec has been at work and mpi4py is
    not installed.

    Cost: the import of mpi4py.

    Example
    -------
    >>> world().Get_rank()
    0
    """
    if not any(name in os.environ for name in LAUNCHED):
        return Alone()
    try:
        from mpi4py import MPI
    except ImportError:
        raise ImportError("parallel: mpiexec started this process, and mpi4py, which lets it speak to the others, is not "
                          "installed: pip install 'revode[parallel]'") from None
    return MPI.COMM_WORLD


# Up the tree of ranks, and down again ---------------------------------------------------------------------------------
def together(comm: Comm, work: Callable[[], Any], join: Callable[[Any, Any], Any]) -> Any:
    """join over what work() gave on every rank, in the order of the ranks, on every rank.

    What one rank raises, all raise: the first of them by number; itself as it is, the others with its number. A rank that fails
    elsewhere can report here too: the others hear of it at their next tree. `comm.interrupted` says that somebody wants to end.
    """
    rank, size, own = comm.Get_rank(), comm.Get_size(), None
    try:
        with steady():
            mine = work()
        if getattr(comm, "interrupted", False):
            raise KeyboardInterrupt
    except BaseException as error:
        if size == 1 or hasattr(error, HEARD):               # of an inner call: all ranks are on their way out
            raise
        mine, own = Failed(rank, type(error).__name__, str(error)), error

    def join_sound(a: Any, b: Any) -> Any:
        try:
            return next((x for x in (a, b) if isinstance(x, Failed)), None) or join(a, b)
        except Exception as error:
            return Failed(rank, type(error).__name__, str(error))

    found = exchanged(comm, mine, join_sound)
    if not isinstance(found, Failed):
        return found
    if found.kind == "KeyboardInterrupt":
        getattr(comm, "interrupted", False)                  # who asked at the same time has been heard too
    raised = own if own is not None and found.rank == rank else found.error()
    setattr(raised, HEARD, True)
    raise raised


def exchanged(comm: Comm, mine: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Rank r hears from r + 1, r + 2, r + 4, ... as long as its number has a 0 there, and reports to the one below."""
    rank, size, below = comm.Get_rank(), comm.Get_size(), []
    step = 1
    while step < size and not rank & step:
        if rank + step < size:
            mine = join(mine, comm.recv(source=rank + step))
            below.append(rank + step)
        step *= 2
    if rank:
        comm.send(mine, rank - step)
        mine = comm.recv(source=rank - step)
    for other in reversed(below):
        comm.send(mine, other)
    return mine


class Tiles:
    """The tiles of a batch, the stretch of them that a rank owns, and sums over all of them."""

    def __init__(self, count: int, tile: int, comm: Comm) -> None:
        self.count, self.tile, self.all = count, tile, -(-count // tile)
        begin, end = (-(-r * self.all // comm.Get_size()) for r in (comm.Get_rank(), comm.Get_rank() + 1))
        self.own = range(begin, end)                         # rank 0 has one, others may have none

    def rows(self, number: int) -> tuple[np.ndarray, int]:
        """The rows of a tile, the last one again where the batch ends within it, and how many of them count."""
        n = min(self.tile, self.count - number * self.tile)
        return number * self.tile + np.minimum(np.arange(self.tile), n - 1), n

    def merge(self, sums: dict) -> dict:
        """Sums of neighbours in one: {(level, i): the sum of tiles i 2^level, ... (i + 1) 2^level - 1}, as far as they go."""
        sums = dict(sums)
        for level in range((self.all - 1).bit_length()):
            for i in sorted(i for at, i in sums if at == level and i % 2 == 0):
                if (level, i + 1) in sums:
                    sums[level + 1, i // 2] = sums.pop((level, i)) + sums.pop((level, i + 1))
                elif i + 1 << level >= self.all:             # the last of an odd number goes up as it is
                    sums[level + 1, i // 2] = sums.pop((level, i))
        return sums

    def sum(self, of_tile: Callable[[int], np.ndarray]) -> dict:
        """of_tile(number) over the tiles of this rank, as sums of the tree; no more than their tops are held."""
        sums: dict = {}
        for number in self.own:
            sums = self.merge({**sums, (0, number): of_tile(number)})
        return sums


@cache
def say_host() -> None:
    logging.getLogger("revode").info("parallel: device arrays are summed over ranks on the host")


def packed(leaves: Sequence) -> np.ndarray:
    """The float leaves as one vector, in float64: float32 is rounded once, after the sums."""
    if any(hasattr(x, "get") for x in leaves):
        say_host()
    return np.concatenate([np.ravel(to_host(x)).astype(np.float64) for x in leaves] or [np.empty(0)])


def unpacked(vector: np.ndarray, params: Any) -> Any:
    """A tree like params from a vector; None for what is no float."""
    leaves, structure = tree.flatten(params)
    found, at = [], 0
    for x in leaves:
        if is_float(x):
            n = int(np.size(value_of(x)))
            part = vector[at:at + n].reshape(np.shape(value_of(x))).astype(getattr(x, "dtype", np.float64))
            found.append(beside(x)(part))
            at += n
        else:
            found.append(None)
    return tree.unflatten(structure, found)


def digest(arrays: Any) -> bytes:
    """A hash of the bits of the arrays and floats of a tree."""
    found = hashlib.blake2b(digest_size=16)
    for x in tree.flatten(arrays)[0]:
        if is_float(x) or hasattr(x, "dtype"):
            found.update(np.ascontiguousarray(to_host(x)).tobytes())
    return found.digest()


def same(a: tuple, b: tuple) -> None:
    """ValueError unless two ranks are in step; each has (rank, (hash of the batch, tile), hash of the parameters)."""
    for what, mine, theirs in (("batch", a[1], b[1]), ("parameters", a[2], b[2])):
        if mine != theirs:
            raise ValueError(f"parallel: the {what} of rank {b[0]} and of rank {a[0]} differ; give all ranks the same batch, start "
                             "them with the same parameters, and update these in the same way on each")


# What it is for -------------------------------------------------------------------------------------------------------
def value_and_grad(loss: Callable, comm: Comm | None = None, *, reduce: Literal["mean", "sum"] = "mean",
                   tile: int = 64) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The function (params, batch) -> (loss over the batch, its gradient), the batch shared out over ranks.

    Parameters
    ----------
    loss : loss(params, rows) -> (tile,) losses, one a trajectory; rows (tile,) are their numbers. What else is needed (data,
        starts) it looks up by them. Noise: `noise_of(noise, rows)`.
    comm : a communicator; by default that of mpiexec, or none.
    reduce : "mean" or "sum" over all trajectories.
    tile : trajectories in one call. Part of the problem, as the loss is: another tile gives other roundings. Ranks without a
        tile wait.

    Returns a function of params, a tree, and batch: how many rows, or (B,) their numbers. It returns the loss, float64, and the
    gradient, a tree like params (None for leaves that are not floats), the same bits on every rank. The last tile is filled up
    with its last row, whose further losses are left out.
    Raises ValueError for a loss that is not one of each trajectory, or is across trajectories, and what any rank raises, with its
    number; TypeError, ValueError for another batch or tile.

    Cost: loss and gradient of the tiles of a rank, and one tree of messages of the gradient's size. CuPy arrays go through the
    host. At the first call one more evaluation, which sees whether a trajectory's loss depends on others.

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
    calls = 0

    def with_gradient(params: Any, batch: Any) -> tuple[Any, Any]:
        nonlocal calls
        numbers = checked_batch(batch)
        tiles, calls = Tiles(len(numbers), tile, comm), calls + 1

        def of_tile(number: int) -> np.ndarray:
            rows, n = tiles.rows(number)
            rows = numbers[rows]
            if calls == 1 and number == tiles.own[0]:
                check_apart(loss, params, rows)
            value, grads = of_one(lambda p: np.sum(each(loss(p, rows), tile)[:n]))(params)
            return packed([value, *(g for g in tree.flatten(grads)[0] if g is not None)])

        def work() -> tuple:
            stamp = comm.Get_rank(), (digest(numbers), tile), digest(params) if calls % HASHED == 1 else b""
            return stamp, tiles.sum(of_tile)

        def join(a: tuple, b: tuple) -> Any:
            same(a[0], b[0])
            return a[0], tiles.merge(a[1] | b[1])

        (_, sums) = together(comm, work, join)
        (total,) = sums.values()
        total = total / len(numbers) if reduce == "mean" else total
        return total[0], unpacked(total[1:], params)

    return with_gradient


def each(losses: Any, tile: int) -> Any:
    """The losses, if they are one for each row."""
    if np.shape(losses) != (tile,):
        raise ValueError(f"parallel.value_and_grad: the loss has shape {np.shape(losses)} for {tile} rows; it is one number for each, "
                         f"({tile},). {ACROSS}")
    return losses


ACROSS = ("A loss across trajectories (MMD, contrastive, of a mean over the batch) needs all of them at once: solve with "
          "parallel.solve, which gathers them, and take the gradient with rv.value_and_grad")


def check_apart(loss: Callable, params: Any, rows: np.ndarray) -> None:
    """ValueError where the losses of the first half of a tile change with what is in the other half."""
    half = len(rows) // 2
    others = rows[np.minimum(np.arange(len(rows)), max(half - 1, 0))]       # as where a batch ends
    if not half or (rows == others).all():
        return
    found, other = (to_host(each(loss(params, at), len(rows)))[:half] for at in (rows, others))
    off = np.max(np.abs(found - other), initial=0.0)
    if off > COUPLED * np.max(np.abs(found), initial=0.0):
        raise ValueError(f"parallel.value_and_grad: the losses of rows {rows[0]} to {rows[half - 1]} change by {off:.2g} with the "
                         f"rows beside them, so it is no sum over trajectories (or a tolerance is very loose). {ACROSS}")


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
    ts: np.ndarray       # (saved,) the saved times
    ys: Any              # (saved, B, ..., d)
    y1: Any              # (B, ..., d) the last of them
    stats: Stats         # of the first tile of this rank


def solve(field: Callable, y0: Any, ts: Any, params: Any = None, *, comm: Comm | None = None, tile: int = 64, noise: Any = None,
          save: Any = None, **options: Any) -> Gathered:
    """revode.solve with its batch shared out over ranks, and the trajectories of all of them on every rank.

    For losses across trajectories: of what comes back each rank takes the same loss with rv.value_and_grad, and the gradient is
    that of the whole batch, to params and y0, with the same bits on any number of ranks.

    Parameters
    ----------
    field, ts, params, noise, save, options : as for revode.solve; nothing in them has an axis of the batch. Fixed steps.
    y0 : (B, ..., d); the first axis is shared out.
    comm, tile : as for value_and_grad.

    Returns Gathered(ts, ys, y1, stats). Raises as revode.solve, on all ranks; ValueError for adaptive steps, a control or state0.

    Cost: the solves of this rank's tiles; one tree of messages of the size of ys, and one of that of the gradient.

    Example
    -------
    >>> solve(lambda t, y, p: -y, np.ones((100, 1)), [0.0, 0.1, 0.2]).ys.shape
    (3, 100, 1)
    """
    comm = world() if comm is None else comm
    check_tile("solve", tile)
    refused = [name for name in ("controller", "control", "state0") if options.get(name) is not None]
    if refused or not hasattr(y0, "ndim") or y0.ndim < 2:
        raise ValueError(f"parallel.solve: {refused[0] if refused else 'y0 without a batch'}; a batch (B, ..., d) on fixed steps is "
                         "shared out, nothing else")
    tiles, inner, asked = Tiles(y0.shape[0], tile, comm), int(np.prod(y0.shape[1:-1])), type(y0) is Tensor
    plain = innermost(tree.flatten((y0, params))[0]) is None
    stats: list[Stats] = []

    def of_tile(number: int, y: Any, params: Any) -> Any:
        rows, n = tiles.rows(number)
        mine = noise if noise is None else replace(noise, offset=noise.offset + int(rows[0]) * inner)
        sol = solve_here(field, y, ts, params, noise=mine, save=save, **options)
        stats.append(sol.stats)
        return sol.ys[:, :n]

    def operation(y0: Any, params: Any) -> tuple:
        pulls: dict[int, Callable] = {}

        def ahead(number: int) -> Any:
            given = y0[tiles.rows(number)[0]], params
            if plain:
                return of_tile(number, *given)
            ys, pulls[number] = vjp(partial(of_tile, number), *given)
            return ys

        ys = np.concatenate(together(comm, lambda: [ahead(number) for number in tiles.own], lambda a, b: a + b), 1)

        def pull(ays: Any) -> tuple:
            ay0: list = []

            def back(number: int) -> np.ndarray:
                rows, n = tiles.rows(number)
                a, aparams = pulls[number](ays[:, rows[0]:rows[0] + n])
                ay0.append(a[:n] + 0 if asked else None)
                return packed([g for g in tree.flatten(aparams)[0] if g is not None])

            sums, parts = together(comm, lambda: (tiles.sum(back), ay0), lambda a, b: (tiles.merge(a[0] | b[0]), a[1] + b[1]))
            (total,) = sums.values()
            return np.concatenate(parts) if asked else None, unpacked(total, params)

        return ys, pull

    ys = custom_vjp(operation)(y0, params)
    at = np.arange(len(ts))[slice(None) if save is None else save]
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
    comm = world() if comm is None else comm
    found = together(comm, lambda: {i: fn(items[i]) for i in range(comm.Get_rank(), len(items), comm.Get_size())},
                     lambda a, b: a | b)
    return [found[i] for i in range(len(items))]


# Ranks in one process -------------------------------------------------------------------------------------------------
class Thread:
    """The communicator of a rank that is a thread."""

    def __init__(self, rank: int, boxes: list[list[queue.Queue]], lost: threading.Event) -> None:
        self.rank, self.boxes, self.lost, self.sent = rank, boxes, lost, 0

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self.boxes)

    def send(self, obj: Any, dest: int) -> None:
        self.sent += 1
        self.boxes[dest][self.rank].put(obj)

    def recv(self, *, source: int) -> Any:
        while True:
            try:
                return self.boxes[self.rank][source].get(timeout=0.2)
            except queue.Empty:
                if self.lost.is_set():
                    raise RuntimeError("another rank ended with an error") from None


def threads(ranks: int, fn: Callable[[Comm], Any]) -> list:
    """fn(comm) on some ranks that are threads of this process: to try out and to test what mpiexec will run.

    Parameters
    ----------
    ranks : how many.
    fn : a function of its communicator.

    Returns the list of what it returned, by rank. Raises what the first of them raised; the others end too.

    Cost: as fn on each. Python's own work is done by one thread at a time; compiled code runs beside it.

    Example
    -------
    >>> threads(3, lambda comm: map(lambda x: x + 1, [1, 2, 3, 4], comm))[2]
    [2, 3, 4, 5]
    """
    boxes: list[list[queue.Queue]] = [[queue.Queue() for _ in range(ranks)] for _ in range(ranks)]
    lost, found, errors = threading.Event(), [None] * ranks, []

    def run(rank: int) -> None:
        try:
            found[rank] = fn(Thread(rank, boxes, lost))
        except BaseException as error:
            errors.append(error)
            lost.set()

    workers = [threading.Thread(target=run, args=(rank,), name=f"revode-rank-{rank}") for rank in range(ranks)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return found

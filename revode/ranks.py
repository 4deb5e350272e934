"""The ranks of an MPI job: who they are, what one says to another, and one answer for all of them.

    together(comm, work, join)      join over what work() gave on every rank, on every rank: up a binary tree of ranks, and down

A communicator has Get_rank(), Get_size(), send(x, dest) and recv(source), as those of mpi4py have. What a rank raises in its part,
all ranks raise, with its number. Device arrays travel by the communicator's Send and Recv where its MPI is GPU-aware, and else
through the host.
"""
from __future__ import annotations

import builtins
import ctypes
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np

from .compiled.backend import steady
from .engine import tree

LAUNCHED = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK"       # what mpiexec tells its processes
HEARD = "revode_heard_of_by_all_ranks"
ERRORS = {name: x for name, x in vars(builtins).items() if isinstance(x, type) and issubclass(x, BaseException)}
ERRORS.pop("KeyError")                                           # which shows its text in quotes


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
        """Of the same class, if it is one of Python's own that takes a sentence."""
        if self.kind == "KeyboardInterrupt":
            return KeyboardInterrupt()
        try:
            return ERRORS[self.kind](f"rank {self.rank}: {self.text}")
        except (KeyError, TypeError):
            return RuntimeError(f"rank {self.rank}: {self.kind}: {self.text}")


class Alone:
    """The communicator of one process that was not started by mpiexec: nobody to send to."""
    Get_rank, Get_size = staticmethod(lambda: 0), staticmethod(lambda: 1)
    send = recv = staticmethod(lambda *args, **options: None)


def world(gpu_aware: bool | None = None) -> Comm:
    """The communicator of all ranks that mpiexec started; a process that was started without it is alone, and needs no mpi4py.

    Parameters
    ----------
    gpu_aware : whether this MPI takes arrays on a GPU; None: as it says of itself (MPI 4.1's mpi_memory_alloc_kinds, or
        MPIX_Query_cuda_support). Any communicator may say so, by an attribute of that name.

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
    return MPI.COMM_WORLD if gpu_aware is None else type("World", (MPI.Intracomm,), {"gpu_aware": gpu_aware})(MPI.COMM_WORLD)


# Messages -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Follows:
    """A place in a message, whose array comes after it, from device to device."""
    shape: tuple[int, ...]
    dtype: np.dtype
    whole_in_trees = True


def on_device(x: Any) -> bool:
    """Whether this is an array of CuPy."""
    return hasattr(x, "__cuda_array_interface__") and hasattr(x, "get")


@cache
def mpi_is_aware() -> bool:
    """Whether the MPI behind mpi4py takes device arrays, as it says of itself."""
    from mpi4py import MPI
    asked = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return "cuda" in (MPI.COMM_WORLD.Get_info().get("mpi_memory_alloc_kinds") or "") or (asked is not None and asked() == 1)


SAYING = Lock()                  # ranks may be threads, and a cache lets two of them in


@cache
def say_host() -> None:
    logging.getLogger("revode").info("parallel: device arrays go from rank to rank through the host; of this communicator it is not "
                                     "known that its MPI is GPU-aware (parallel.world(gpu_aware=True) says so)")


def aware(comm: Any) -> bool:
    """Whether Send and Recv of this communicator take device arrays."""
    told = getattr(comm, "gpu_aware", None)
    return type(comm).__module__.startswith("mpi4py") and mpi_is_aware() if told is None else told


def send(comm: Any, message: Any, dest: int) -> None:
    leaves, structure = tree.flatten(message)
    arrays = [x for x in leaves if on_device(x)]
    if not arrays or not aware(comm):
        if arrays:
            with SAYING:
                say_host()
        comm.send(message, dest)                             # pickled, which CuPy does through the host
        return
    comm.send(tree.unflatten(structure, [Follows(x.shape, x.dtype) if on_device(x) else x for x in leaves]), dest)
    import cupy
    arrays = [x if x.flags.c_contiguous else x.copy() for x in arrays]
    cupy.cuda.get_current_stream().synchronize()             # of streams MPI knows nothing
    for x in arrays:
        comm.Send(x, dest)


def recv(comm: Any, source: int) -> Any:
    message = comm.recv(source=source)
    leaves, structure = tree.flatten(message)
    if not any(type(x) is Follows for x in leaves):
        return message
    import cupy
    for i, x in enumerate(leaves):
        if type(x) is Follows:
            leaves[i] = cupy.empty(x.shape, x.dtype)
            comm.Recv(leaves[i], source)
    return tree.unflatten(structure, leaves)


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
            mine = join(mine, recv(comm, rank + step))
            below.append(rank + step)
        step *= 2
    if rank:
        send(comm, mine, rank - step)
        mine = recv(comm, rank - step)
    for other in reversed(below):
        send(comm, mine, other)
    return mine

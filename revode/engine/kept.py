"""What a tape keeps of plain arrays: it must be what it was when the operation was carried out, however late the pullback.

    up to 64 kB     a copy                    so a scratch buffer may be filled again
    larger          the array, read-only      and its bases, until the last tape that keeps them is gone; then as before

Other views, and buffers of other libraries, cannot be made read-only, so a sample of a larger array is compared when it is
needed. A program that is being traced keeps arrays by identity; it compares them with a copy when the trace ends. Arrays of
a device (CuPy) have no such flag: they are kept as they are, and must not be written to before the gradient is taken.
"""
from __future__ import annotations

import threading
from typing import Any

import numpy as np

from . import tree
from .refusals import NotTraceable

COPIED = 65536                # bytes up to which an array is copied
SHARED = 1024                 # bytes from which copies of the same array with the same content are one
SAMPLE = 1024                 # entries of a larger array that are compared
FLOATS = frozenset({np.dtype(np.float64), np.dtype(np.float32)})
STILL = frozenset({float, int, bool, np.float64, np.float32, np.bool_, *(np.dtype(c).type for c in "bhilqBHILQ")})   # immutable
USUAL = frozenset({*FLOATS, np.dtype(bool), np.dtype(np.int64), np.dtype(np.int32)})

_frozen: dict[int, list] = {}       # id -> [how many keep it, the array, whether it was writeable]
_lock = threading.RLock()           # a tape may die, and thaw, while this thread freezes


def chain(x: np.ndarray) -> list[np.ndarray]:
    """The array and the arrays whose memory it looks at; none over memory of another library, without a buffer (DLPack).

    NumPy would not make such an array writeable again.
    """
    found = [x]
    while isinstance(found[-1].base, np.ndarray):
        found.append(found[-1].base)
    if found[-1].base is not None:
        try:
            memoryview(found[-1].base)
        except TypeError:
            return []
    return found


def freeze(x: np.ndarray) -> None:
    """Make an array and its bases read-only, once more."""
    with _lock:
        for a in chain(x):
            entry = _frozen.setdefault(id(a), [0, a, a.flags.writeable])
            entry[0] += 1
            a.flags.writeable = False


def thaw(x: np.ndarray) -> None:
    """Undo one freeze; what nobody keeps any more, nor any of its bases, is as it was."""
    with _lock:
        for a in chain(x):
            _frozen[id(a)][0] -= 1
        # NumPy lets a view be writeable only over a base that is, so a view may have to wait for another's tape.
        for key, (count, a, writeable) in sorted(_frozen.items(), key=lambda item: len(chain(item[1][1]))):
            if not count and not any(id(b) in _frozen for b in chain(a)[1:]):
                if writeable:
                    a.flags.writeable = True
                del _frozen[key]


class Held:
    """The arrays that one tape keeps for later; when it goes, they are let go."""

    def __init__(self) -> None:
        self.frozen: dict[int, tuple[np.ndarray, bytes]] = {}          # id -> (array, a sample of it)
        self.copies: dict[int, tuple[np.ndarray, np.ndarray]] = {}     # id -> (array, the copy)

    def keep(self, x: np.ndarray, by_identity: bool = False, copying: bool = True) -> np.ndarray:
        """What stands for x on the tape. by_identity: x itself, compared later; copying=False: x itself, made read-only."""
        if x.nbytes > COPIED or not copying:
            if id(x) not in self.frozen:
                freeze(x)
                self.frozen[id(x)] = x, sample(x)
            return x
        _, before = self.copies.get(id(x), (None, None))
        if before is None or (not by_identity and x.tobytes() != before.tobytes()):
            self.copies[id(x)] = x, copied(x)
        return x if by_identity else self.copies[id(x)][1]

    def changed(self, by_identity: bool = False) -> np.ndarray | None:
        """An array that is not what it was."""
        for x, before in self.frozen.values():
            if sample(x) != before:
                return x
        for x, copy in self.copies.values() if by_identity else ():
            if x.tobytes() != copy.tobytes():
                return x
        return None

    def release(self) -> None:
        while self.frozen:
            thaw(self.frozen.popitem()[1][0])

    def __del__(self) -> None:
        self.release()


class Keeping:
    """The half of a tape that looks after plain arrays; most tapes never meet one that has to be held."""
    __slots__ = ("held",)
    tracing = False              # whether it is a program that is being traced (compiled/program.py)

    def __init__(self) -> None:
        self.held: Held | None = None

    def hold(self, x: np.ndarray, by_identity: bool = False, copying: bool = True) -> np.ndarray:
        self.held = self.held or Held()
        return self.held.keep(x, by_identity, copying)

    def keep(self, x: Any) -> Any:
        """What the tape remembers of a plain value that meets a tensor; TypeError where it has no business there."""
        if type(x) in STILL:
            return x
        if type(x) in (list, tuple):
            x = np.asarray(x)
        if type(x) is not np.ndarray or x.dtype not in USUAL:
            reason = unfit(x)
            if reason:
                raise TypeError(f"a tensor meets {reason}")
            if not isinstance(x, np.ndarray):
                return x
        if not x.flags.writeable and constant(x):
            return x
        return copied(x) if x.nbytes <= SHARED and not self.tracing else self.hold(x, self.tracing)

    def keep_input(self, x: Any) -> Any:
        """An array that is differentiated, as it is now; its layout too, so that the value has the bits of a plain call."""
        if type(x) is not np.ndarray or (not (flags := x.flags).writeable and constant(x)):
            return x
        return copied(x) if flags.forc and x.nbytes <= SHARED else self.hold(x, copying=flags.forc)

    def keep_output(self, y: Any) -> Any:
        """A value for the caller, who may write to it before the cotangent is pulled back."""
        if type(y) is not np.ndarray:
            return y
        return y.copy(order="K") if y.nbytes <= COPIED else self.hold(y)

    def keep_index(self, index: Any) -> Any:
        """An index as it is now, its lists and arrays included."""
        if type(index) is tuple:
            return tuple(self.keep_index(i) for i in index)
        if type(index) is list:
            return np.array(index) if index else np.zeros(0, np.intp)
        return self.keep(index) if type(index) is np.ndarray else index

    def release(self) -> None:
        """Let go of the arrays that it keeps."""
        if self.held is not None:
            self.held.release()

    def check(self) -> None:
        """RuntimeError where an array that the tape keeps was changed behind its back."""
        x = self.held.changed(self.tracing) if self.held is not None else None
        if x is not None and self.tracing:
            raise NotTraceable(f"an array of shape {x.shape} that is written to while the function runs")
        if x is not None:
            raise RuntimeError(f"an array of shape {x.shape} was changed in place after it met a tensor, through another view or "
                               "buffer of its memory, so the gradient would be wrong; give the operation a copy (x.copy()), or "
                               "write to it after the gradient has been taken")


def copied(x: np.ndarray) -> np.ndarray:
    """A copy with the layout of x, read-only."""
    y = x.copy("K")
    y.setflags(write=False)
    return y


def sample(x: np.ndarray) -> bytes:
    return x.flat[::max(1, x.size // SAMPLE)].tobytes()


def constant(x: np.ndarray) -> bool:
    """Whether nobody can write to this array, not through its bases either."""
    return not x.flags.writeable and (x.base is None or (isinstance(x.base, np.ndarray) and constant(x.base)))


def unfit(x: Any) -> str:
    """Why a plain value cannot meet a tensor; empty if it can. What follows is a sentence's second half."""
    dtype: Any = getattr(x, "dtype", None)
    if isinstance(x, (np.ndarray, np.generic)) or (dtype is not None and hasattr(type(x), "__array_function__")):
        if dtype.kind in "biu" or dtype in FLOATS:
            return tree.refused(x)
        if dtype.kind == "c":
            return f"an array of {dtype}; complex values have no gradient here, so keep real and imaginary parts as two float arrays"
        return f"an array of {dtype}; gradients flow in float64 and float32, so convert it with x.astype(np.float64)"
    if type(x) is complex:
        return "a complex number; complex values have no gradient here, so keep real and imaginary parts as two float arrays"
    if isinstance(x, (bool, int, float)):
        return ""
    reason = tree.refused(x).partition(",")[0] or f"a {type(x).__name__}"
    return f"{reason}, which is no number and no array; pass np.asarray of it, of floats"

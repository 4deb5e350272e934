"""How a solve is laid out on the GPU, decided and budgeted before anything is launched.

    tile      T trajectories, which one block works on from the first step to the last
    state     what a tile stores (T times the features that are live, and the sums for the parameters)
    params    the weights and their transposes, the same for all tiles

A field without wide matrices, whose step one thread can hold in its registers, has a thread for each trajectory: T = 1, nothing is
shared, and nobody waits. Otherwise both lie in the shared memory of the block where they fit. What a multiprocessor offers a block
decides: first the tile is made smaller, then the weights stay in global memory (its cache holds them), then the state. Wide matrices
are left to cuBLAS, op by op.

    >>> print(plan_of(lambda t, y, p: -p * y, np.ones((1000, 3)), np.linspace(0, 1, 11), np.ones(3), arch="sm_90").forward)
    forward on sm_90: thread per trajectory, 1000 trajectories, 32 blocks of 32 threads
        values of a thread: 24 bytes in registers; params: 24 bytes in global memory
        because the field has no matrix wider than 16, and a step fits into a thread
        a step of a warp: 0 wavefronts, 108 cycles of products and sums, 0 barriers; 32 blocks a multiprocessor
        estimated, never measured: 0.0545 us a step

Results do not depend on a plan, but for the gradients of the parameters, whose sums run over the lanes of a tile, and then over
the tiles in a tree: their last bits depend on T. With arithmetic="strict" T is that of the native host where it fits, and a thread
has a trajectory of its own where nothing is summed over trajectories, or where that is asked for.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from revode.compiled.generate import ALIGN, Source
from revode.compiled.lower import Lowered
from revode.compiled.order import OVER_LANES
from revode.compiled.tiles import operations, tile_of

from .estimate import Counts

# Bytes of shared memory that a block may ask for (CUDA C Programming Guide, technical specifications by compute capability).
SHARED_MEMORY = {"sm_75": 64, "sm_80": 163, "sm_86": 99, "sm_87": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_103": 227,
                 "sm_110": 227, "sm_120": 99, "sm_121": 99}         # in KB
WITHOUT_ASKING = 48           # KB, anywhere
NARROW = 16                   # up to this width a warp is enough for a tile, or a thread for a trajectory
# Of a thread that has a trajectory: bytes of its values, and of params, which the compiler keeps in registers too, out of 255 of
# 4 bytes (nothing spilled where both are smaller, tests/kernels); operations of a step, which take as long as a block's barriers.
VALUES, WEIGHTS, OPERATIONS = 512, 768, 1000
MANY = 1 << 14                # trajectories for which there are warps enough to share blocks
WIDE = 128                    # beyond it the matrices are left to cuBLAS
PAD, SHORT = 16, 64           # bytes behind the lanes of each feature, where that is asked for; bytes of lanes that go without
MULTIPROCESSORS = 128         # so many tiles, if there are trajectories enough: about what a large GPU has
FEWEST = 2                    # trajectories in a tile that are not given up for that
SEARCHES = ("search", "flow")  # whose tiles sum up an error, which one block sums over the tiles
REGIMES = ("thread per trajectory", "warp per tile", "block per tile", "op by op")


class CannotBeFused(NotImplementedError):
    """This solve has to go op by op; the message says why."""


class Plan(NamedTuple):
    """The layout of one direction of a solve. regime "op by op": nothing is fused, and the rest says why."""
    direction: str               # forward or backward
    regime: str                  # one of REGIMES
    T: int                       # trajectories in a tile
    threads: int                 # of a block, which works on one tile; on as many, where each thread has one
    tiles: int
    state: str                   # "registers", "shared" or "global": where the values of a tile are while it runs
    params: str                  # "shared" or "global": where the weights are
    bytes: tuple[int, int]       # of the state of a tile, and of the params
    budget: int                  # bytes of shared memory that a block may ask for
    arch: str
    reason: str
    padded: bool = False         # numbers behind the lanes of each feature, so that features lie in other banks
    registers: int | None = None       # of a thread; None before the text has been compiled
    spills: int | None = None          # bytes that do not fit into registers
    counts: Counts | None = None       # what a step takes, where that was asked for (estimate.py)
    graph: bool = True                 # whether solves that differ in nothing but data are captured as a CUDA graph
    prefetch: bool = True              # whether what a step reads by its number is loaded, to registers, during the one before

    @property
    def shared(self) -> int:
        """Bytes of shared memory that a block asks for."""
        return sum(size for size, where in zip(self.bytes, (self.state, self.params), strict=True) if where == "shared")

    @property
    def blocks(self) -> int:
        """Blocks of a launch."""
        return -(-self.tiles // self.threads) if self.state == "registers" else self.tiles

    @property
    def defines(self) -> str:
        """What the generated text is told of the plan."""
        lines = [f"#define TILE_THREADS {self.threads}"]
        lines += [f"#define {name}_{where.upper()}" for name, where in (("TILE", self.state), ("PARAMS", self.params))
                  if where != "shared"]
        lines += [] if self.prefetch else ["#define AHEAD 0"]
        return "\n".join([*lines, ""])

    def __str__(self) -> str:
        if self.regime == "op by op":
            return f"{self.direction} on {self.arch}: op by op\n    because {self.reason}"
        made = "" if self.registers is None else f", {self.registers} registers" + (
            f" and {self.spills} bytes of spills" if self.spills else "")
        because = f"\n    because {self.reason}" + ("" if self.counts is None else f"\n    {self.counts}")
        if self.state == "registers":
            return (f"{self.direction} on {self.arch}: {self.regime}, {self.tiles} trajectories, {self.blocks} blocks of "
                    f"{self.threads} threads{made}\n    values of a thread: {self.bytes[0]} bytes in registers; params: "
                    f"{self.bytes[1]} bytes in global memory{because}")
        where = [f"{name} {size}" + (" in global memory" if place == "global" else "") for name, size, place in zip(
            ("state", "params"), self.bytes, (self.state, self.params), strict=True)]
        return (f"{self.direction} on {self.arch}: {self.regime}, {self.tiles} tiles of {self.T} trajectories, {self.threads} "
                f"threads{', padded' if self.padded else ''}{made}\n    shared memory: {self.shared} bytes of {self.budget} "
                f"({', '.join(where)}){because}")


class Plans(NamedTuple):
    """Of both directions; None for one that a solve does not have."""
    forward: Plan | None
    backward: Plan | None

    def __str__(self) -> str:
        return "\n".join(str(plan) for plan in self if plan is not None)


CHOICES = ("regime", "T", "threads", "state", "params", "padded", "graph", "prefetch")
ALONE = {"regime": REGIMES[0], "T": 1, "state": "registers", "params": "global", "padded": False}


def by_name(given: Any) -> dict[str, Any]:
    """A plan, or a part of one, as a dict."""
    if not (given is None or isinstance(given, (Plan, Mapping))):
        raise TypeError(f"plan: {given!r}; a Plan, or a dict with some of {', '.join(CHOICES)}")
    found = {name: getattr(given, name) for name in CHOICES} if isinstance(given, Plan) else dict(given or {})
    return {name: int(value) if isinstance(value, np.integer) else value for name, value in found.items()}


def chosen(given: Any) -> dict[str, Any]:
    """What of a plan the user has decided: a Plan, or a mapping with some of CHOICES."""
    wanted = by_name(given)
    for name, value in wanted.items():
        if name not in CHOICES:
            raise ValueError(f"plan: {name!r} cannot be chosen; {', '.join(CHOICES)} can")
        if name in ("T", "threads") and (type(value) is not int or not 1 <= value <= 1024):
            raise ValueError(f"plan: {name}={value!r}; a whole number from 1 to 1024")
        places = ("registers", "shared", "global") if name == "state" else ("shared", "global")
        if name in ("state", "params") and value not in places:
            raise ValueError(f"plan: {name}={value!r}; {' or '.join(map(repr, places))}")
        if name in ("padded", "graph", "prefetch") and not isinstance(value, bool):
            raise ValueError(f"plan: {name}={value!r}; True or False")
        if name == "regime" and value not in REGIMES:
            raise ValueError(f"plan: regime={value!r}; one of {', '.join(map(repr, REGIMES))}")
    if "registers" in wanted.values() or REGIMES[0] in wanted.values():
        for name, value in ALONE.items():
            if wanted.get(name, value) != value:
                raise ValueError(f"plan: {name}={wanted[name]!r}; a {REGIMES[0]} has {name}={value!r}")
        return {**wanted, **ALONE}
    return wanted


def budget(arch: str) -> int:
    """Bytes of shared memory that a block may ask for on this architecture; what every GPU has, if it is not known here."""
    return 1024 * SHARED_MEMORY.get(arch.rstrip("af"), WITHOUT_ASKING)


def capacity(arch: str) -> int:
    """Bytes of shared memory of a multiprocessor: some kB more than a block may ask for, but for the oldest."""
    kind = arch.rstrip("af")
    return 1024 * (SHARED_MEMORY.get(kind, WITHOUT_ASKING) + (kind != "sm_75" and kind in SHARED_MEMORY))


def width(lowered: Mapping[str, Lowered]) -> int:
    """The widest side of the matrices that the trajectories share; 0 without any."""
    return max((side for x in lowered.values() for loop in x.loops if loop.kind in ("linear", "outer") for side in loop.shape[-2:]),
               default=0)


def make(lowered: Mapping[str, Lowered], source: Callable[..., Source], rows: int, dtype: Any, direction: str, arch: str,
         strict: bool, given: Any = None) -> tuple[Plan, Source]:
    """The plan of one direction, and the text that it is for.

    Parameters
    ----------
    lowered : its programs as loops.
    source : source(T, align, pad), the text for tiles of T trajectories, as of `Source`.
    rows : trajectories.
    given : what the user has decided, as for `chosen`.

    Raises ValueError for a choice that does not fit into the budget. Never launches, needs no GPU.
    """
    said = chosen(given)
    wanted = {name: x for name, x in said.items() if name not in ("graph", "prefetch")}           # which are no matter of layout
    wide, itemsize, most = width(lowered), np.dtype(dtype).itemsize, budget(arch)

    def tiles_of(T: int) -> Source:
        return source(T, ALIGN, PAD // itemsize if wanted.get("padded") and T * itemsize >= SHORT else 0)

    one = alone(source, rows, itemsize, direction, arch, wanted, rows > 1 and wide <= NARROW and not (strict and sums(lowered)))
    if one is not None:
        return one[0]._replace(prefetch=said.get("prefetch", True)), one[1]
    first = wanted.get("T") or tile(rows, dtype, strict)
    if rows == 1:
        first = 1                         # features alone are dealt out to the threads
    T = first
    while True:
        text = tiles_of(T)
        plan = fitted(text, rows, itemsize, direction, arch, most, wide, wanted)
        if plan.shared <= most or "T" in wanted or T == 1:
            break
        T = T // 2
    shrunk = f", and {first} trajectories do not fit" if T < first else ""
    if "state" not in wanted and (plan.shared > most or T < min(first, FEWEST)):
        # Too little of it fits for the threads to be worth their while.
        T = first
        text = tiles_of(T)
        plan = fitted(text, rows, itemsize, direction, arch, most, wide, {**wanted, "state": "global"})
        shrunk = f", and the state of {first} trajectories takes {plan.bytes[0]} bytes, more than a block may have"
    plan = plan._replace(reason=plan.reason + shrunk, prefetch=said.get("prefetch", True))
    if plan.regime != "op by op" and plan.shared > most:
        raise ValueError(f"plan: the {direction} sweep with {', '.join(f'{k}={v!r}' for k, v in wanted.items())} asks for "
                         f"{plan.shared} bytes of shared memory, and a block on {arch} may have {most}; take a smaller T, or "
                         "state='global' or params='global'")
    return plan, text


def sums(lowered: Mapping[str, Lowered]) -> bool:
    """Whether anything is summed over trajectories."""
    return any(loop.kind in OVER_LANES and loop.op is None for x in lowered.values() for loop in x.loops)


def alone(source: Callable[..., Source], rows: int, itemsize: int, direction: str, arch: str, wanted: dict,
          may_be: bool) -> tuple[Plan, Source] | None:
    """The plan and text of a thread for each trajectory, where it is asked for; and where it may be, and a step fits into one."""
    if not (wanted.get("regime") == REGIMES[0] if wanted else may_be and direction not in SEARCHES):
        return None
    text = source(1, 1)
    sizes, longest = (text.size * itemsize, text.param_size * itemsize), max(map(operations, text.lowered.values()))
    if not wanted and (sizes[0] > VALUES or sizes[1] > WEIGHTS or longest > OPERATIONS):
        return None
    reason = "it was asked for" if wanted else f"the field has no matrix wider than {NARROW}, and a step fits into a thread"
    threads = wanted.get("threads", 32 if rows < MANY else 128)
    return Plan(direction, REGIMES[0], 1, threads, rows, "registers", "global", sizes, budget(arch), arch, reason), text


def tile(rows: int, dtype: Any, strict: bool) -> int:
    """Trajectories in a tile before the budget is looked at."""
    T = tile_of(rows, dtype)
    while not strict and T > FEWEST and rows // T < MULTIPROCESSORS:
        T //= 2
    return T


def fitted(text: Source, rows: int, itemsize: int, direction: str, arch: str, most: int, wide: int, wanted: dict) -> Plan:
    """The plan for a tile of this size, which may ask for too much."""
    T = text.T
    regime, reason, threads = "block per tile", f"the widest matrix has {wide} rows or columns", 32
    if wide > WIDE:
        regime, reason = "op by op", f"a matrix of width {wide} (more than {WIDE}) is better left to cuBLAS"
    elif wide <= NARROW:
        reason = f"the field has no matrix wider than {NARROW}"
        threads = max(32, T)
        regime = "warp per tile"
    else:
        outputs = [loop.out.F * T // 8 if loop.kind == "linear" else loop.out.F // 16
                   for x in text.lowered.values() for loop in x.loops if loop.kind in ("linear", "outer")]
        while threads < min(256, max(outputs)):                  # eight outputs of a product, or sixteen sums, for each thread
            threads *= 2
    sizes = (text.size * itemsize, text.param_size * itemsize)
    state = wanted.get("state", "shared")
    room = most - (sizes[0] if state == "shared" else 0)
    params = wanted.get("params") or ("shared" if sizes[1] <= room else "global")
    if "threads" in wanted:
        threads = wanted["threads"]
    if wanted.get("regime", regime) != regime:
        regime, reason = wanted["regime"], "it was asked for"
    tiles = text.members * -(-rows // (text.members * T))
    return Plan(direction, regime, T, threads, tiles, state, params, sizes, most, arch, reason, wanted.get("padded", False))


def plan_of(field: Callable, y0: Any, ts: Any, params: Any = None, *, arch: str, arithmetic: str = "fast", plan: Any = None,
            compiled: bool = False, **options: Any) -> Plans:
    """The plans of a solve and of its reverse sweep, for any GPU, without one; and what a step of each takes, counted from its text.

    Parameters
    ----------
    field, y0, ts, params, options : as for solve; arrays may be on the host.
    arch : the architecture of the GPU, such as "sm_90".
    arithmetic, plan : as for solve.
    compiled : compile the text with NVRTC, for the registers.

    Raises CannotBeFused, where the field cannot be fused at all; ValueError for a plan that does not fit.
    """
    from .fused import Device, planned
    if not re.fullmatch(r"sm_\d{2,3}[af]?", str(arch)):
        raise ValueError(f"plan_of: arch={arch!r}; one such as 'sm_90'")
    if arithmetic not in ("fast", "strict"):
        raise ValueError(f"plan_of: arithmetic={arithmetic!r}; 'fast' or 'strict'")
    nowhere = Device("none", np, arch, lambda text, shared, real, mode: None, None)
    return planned(field, y0, ts, params, nowhere, arithmetic, plan, compiled, options)

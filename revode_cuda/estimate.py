"""What a plan costs, counted from the text before any GPU has run it: wavefronts, products, and a time that is an estimate.

    wavefronts   cycles of the shared memory of a multiprocessor: 32 banks of 4 bytes; an access of 16 bytes goes by quarter warps,
                 one of 8 by half warps, and equal words in one go are one (CUDA C Programming Guide, shared memory)
    cycles       in which its four schedulers can issue the products and sums of a warp: one each in float32, every other in float64

A step of a tile takes the larger of the two, and no less than LATENCY for each of its barriers. Where each thread has a trajectory,
all is counted for a warp, and its step takes no less than DEPENDENT for each of its operations. Sums over elements are counted
without conflicts, as they lie beside one another.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from revode.compiled.tiles import ELEMENTARY, operations

BANKS, WARP = 32, 32
DEPENDENT = 2              # cycles from one instruction of a thread to the next: each takes 4, every other waits for it, about
LATENCY = 100              # cycles of a barrier and of what waits behind it, about
RESERVED = 1024            # bytes of shared memory that the system takes of each block
REGISTERS, RESIDENT, BLOCKS = 65536, 2048, 32          # of a multiprocessor: registers, threads, blocks
# Multiprocessors of the largest of a kind, their clock in GHz, and products of float64 a scheduler and cycle (data sheets).
MACHINES = {"sm_80": (108, 1.41, 0.5), "sm_90": (132, 1.98, 0.5), "sm_100": (148, 1.96, 0.5), "sm_86": (84, 1.7, 1 / 64),
            "sm_89": (128, 2.5, 1 / 64), "sm_120": (170, 2.4, 1 / 64)}


class Counts(NamedTuple):
    """Of one step: of a tile; and microseconds, of all tiles on a machine that is known."""
    wavefronts: int
    cycles: int                      # in which products and sums can be issued
    barriers: int
    blocks: int                      # that a multiprocessor has room for
    microseconds: float | None       # estimated; None where the machine is not known

    def __str__(self) -> str:
        time = "" if self.microseconds is None else f"\n    estimated, never measured: {self.microseconds:.3g} us a step"
        return (f"a step of a {'tile' if self.barriers else 'warp'}: {self.wavefronts} wavefronts, {self.cycles} cycles of products "
                f"and sums, {self.barriers} barriers; {self.blocks} block{'s' * (self.blocks > 1)} a multiprocessor{time}")


def waves(at: Sequence[int], size: int) -> int:
    """The wavefronts of an access of a warp: the bytes where each thread begins, and how many it takes (4, 8 or 16)."""
    each, total = {4: 32, 8: 16, 16: 8}[size], 0
    for k in range(0, len(at), each):
        words = {a // 4 + i for a in at[k:k + each] for i in range(size // 4)}
        banks = np.bincount(np.asarray([w % BANKS for w in words]), minlength=BANKS)
        total += int(banks.max())
    return total


def block(n: int, most: int) -> int:
    """RV_BLOCK of tiles.cuh."""
    return 4 if n % 4 == 0 and most >= 4 else 2 if n % 2 == 0 and most >= 2 else 1


def warps(n: int) -> list[range]:
    return [range(first, min(first + WARP, n)) for first in range(0, n, WARP)]


def packed(first: Any, n: int, s: int, threads: range) -> int:
    """The wavefronts of n neighbouring numbers for each thread, from first(i) on, in accesses of up to 16 bytes."""
    size = min(16, n * s)
    return sum(waves([(first(i) + k) * s for i in threads], size) for k in range(0, n, size // s))


def linear(shape: tuple[int, ...], T: int, threads: int, s: int, stride: int = 0) -> tuple[int, int]:
    """Wavefronts, and products of warps, of rv_linear. stride: from one feature to the next; 0: T."""
    stride = stride or T
    p, n, m = shape
    most = p * m * T // threads
    br = block(T, most)
    bj = block(m, most // br)
    across, total = T // br, 0
    for warp in warps(p * m // bj * across):
        x = packed(lambda i: i // across * bj // m * n * stride + i % across * br, br, s, warp)
        w = packed(lambda i: i // across * bj % m, bj, s, warp)
        out = sum(packed(lambda i, j=j: (i // across * bj + j) * stride + i % across * br, br, s, warp) for j in range(bj))
        total += n * (x + w) + out
    return total, len(warps(p * m // bj * across)) * n * br * bj


def outer(shape: tuple[int, ...], T: int, threads: int, s: int, stride: int = 0) -> tuple[int, int]:
    """The same of rv_outer."""
    stride = stride or T
    n, m = shape
    most = n * m // threads
    bj = block(m, most)
    bi = block(n, most // bj)
    I, J, V, total = n // bi, m // bj, 4 if T % 4 == 0 else 2 if T % 2 == 0 else 1, 0
    for warp in warps(I * J):
        for r in range(0, T, V):
            total += sum(packed(lambda i, k=k, r=r: (i // J + k * I) * stride + r, V, s, warp) for k in range(bi))
            total += sum(packed(lambda i, k=k, r=r: (i % J + k * J) * stride + r, V, s, warp) for k in range(bj))
        total += 2 * bi * bj * (s // 4)
    return total, len(warps(I * J)) * T * bi * bj


def rows(n: int, T: int, s: int, stride: int = 0) -> tuple[int, int]:
    """The same of rv_rows."""
    stride = stride or T
    V = 4 if T % 4 == 0 else 2 if T % 2 == 0 else 1
    return sum(packed(lambda i, r=r: i * stride + r, V, s, warp) for warp in warps(n) for r in range(0, T, V)), len(warps(n)) * T


def counted(lowered: Any, text: str, T: int, threads: int, s: int, stride: int = 0) -> tuple[int, int, int]:
    """Wavefronts, products and sums of warps, and barriers of a step."""
    found, products = 0, 0
    for loop in lowered.loops:
        if loop.kind in ("linear", "outer", "rows") and loop.op is None:
            w, f = rows(loop.out.F, T, s, stride) if loop.kind == "rows" else {"linear": linear, "outer": outer}[loop.kind](
                loop.shape, T, threads, s, stride)
        else:
            n = len(warps(loop.out.F * (T if loop.out.kind == "lanes" else 1)))
            terms = loop.tables[0].shape[1] if loop.tables else 1
            w, f = n * (1 + terms * len(loop.reads)) * (s // 4), n * terms * (ELEMENTARY if loop.text.startswith("rv_") else 1)
        found, products = found + w, products + f
    step = text[text.index("step_step("):text.index('extern "C"')]
    return found, products, step.count("SYNC;")


def estimated(plan: Any, lowered: Any, source: Any, s: int, capacity: int) -> Counts:
    """What the plan of one direction costs. source: its text; capacity: bytes of shared memory of a multiprocessor."""
    alone = plan.state == "registers"                               # then the same of a warp, on one of four schedulers
    wavefronts, products, barriers = (0, operations(lowered), 0) if alone else counted(
        lowered, source.text, plan.T, plan.threads, s, source.stride)
    limits = [capacity // (plan.shared + RESERVED), RESIDENT // plan.threads, BLOCKS]
    if plan.registers:
        limits.append(REGISTERS // (plan.registers * plan.threads))
    blocks, machine = max(1, min(limits)), MACHINES.get(plan.arch.rstrip("af"))
    rate = (1 if alone else 4) * (1.0 if s == 4 or machine is None else machine[2])
    cycles = round(products / rate)
    if machine is None:
        return Counts(wavefronts, cycles, barriers, blocks, None)
    if alone:
        warps = -(-plan.tiles // (WARP * 4 * machine[0]))           # of the busiest scheduler
        return Counts(0, cycles, 0, blocks, max(warps * cycles, DEPENDENT * products) / machine[1] * 1e-3)
    together = -(-plan.tiles // machine[0])                         # tiles of the busiest multiprocessor
    at_once = min(blocks, together)
    turn = max(at_once * wavefronts, at_once * cycles, barriers * LATENCY)
    return Counts(wavefronts, cycles, barriers, blocks, -(-together // at_once) * turn / machine[1] * 1e-3)

"""Where values lie: liveness, and one allocator.

    places = place(groups, lowered, where, room, base)       of the values of one program, in the memory of a tile

A new value takes the first of these places that it can have:

    where its input lies      an output whose input nobody reads any more
    a register                what only its own loop reads
    the running sum's         a sum over the lanes, added to one that ends there
    free memory               the shortest stretch that is long enough, of those given back, or new
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .lower import TILE, Loop, Lowered, Read, Slot
from .order import ELEMENTWISE, before_total
from .program import Role

Stretch = tuple[int, int]                # (where it starts, its length)


class Memory:
    """Stretches of a memory from `base` on, by best fit. `top`: how much of it has been used at any time."""

    def __init__(self, base: int = 0) -> None:
        self.top = base
        self.free: list[Stretch] = []

    def take(self, length: int) -> Stretch:
        fit = min((x for x in self.free if x[1] >= length), key=lambda x: x[1], default=None)
        if fit is not None:
            self.free.remove(fit)
            return fit
        self.top += length
        return self.top - length, length

    def give(self, stretch: Stretch) -> None:
        self.free.append(stretch)


@dataclass
class Places:
    """Where the values of a program lie. copies: outputs that have to be brought to where the next step looks for them."""
    offsets: dict[Slot, int] = field(default_factory=dict)
    local: set[Slot] = field(default_factory=set)                # in registers alone
    copies: list[tuple[Role, Read]] = field(default_factory=list)
    top: int = 0


@dataclass
class Life:
    """Of every value the group that makes it and the last one that reads it; `strangely`: the groups that read it otherwise
    than element by element."""
    made: dict[Slot, int] = field(default_factory=dict)
    last: dict[Slot, int] = field(default_factory=dict)
    strangely: dict[Slot, set[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, groups: list[list[Loop]]) -> Life:
        life = cls()
        for n, loop in ((n, loop) for n, group in enumerate(groups) for loop in group):
            life.made[loop.out] = n
            for slot, index, _ in loop.reads:
                if slot is not None:
                    life.last[slot] = n
                    if index is not None or loop.kind != "map" or loop.apart:
                        life.strangely.setdefault(slot, set()).add(n)
        return life

    def ends_at(self, slot: Slot | None, n: int) -> bool:
        return slot is not None and self.last.get(slot) == n


def place(groups: list[list[Loop]], lowered: Lowered, where: dict[Role, tuple[int, int, str]],
          room: Callable[[int, str], int], base: int) -> Places:
    """Places for the values of a program.

    groups : its loops in their order; where : the places of its inputs and outputs, role -> (offset, features, kind);
    room(F, kind) : how much a value takes; base : where free memory begins.
    """
    life = Life.of(groups)
    places = Places({slot: where[role][0] for role, slot in lowered.inputs.items()})
    targets = in_place(groups, lowered, life, places.copies)
    outputs = {read.slot for read in lowered.outputs.values()}
    memory, held = Memory(base), dict[Slot, Stretch]()
    ends: dict[int, list[Slot]] = {}             # what is read for the last time in a group
    for n, group in enumerate(groups):
        for loop in group:
            slot, total = loop.out, running_sum(loop)
            if slot in targets:
                places.offsets[slot] = where[targets[slot]][0]
            elif life.ends_at(slot, n) and loop.kind in ELEMENTWISE and slot not in outputs:
                places.local.add(slot)
            elif total in places.offsets and life.ends_at(total, n) and slot.kind == TILE:
                places.offsets[slot] = places.offsets[total]                                      # type: ignore[index]
                if total in held:
                    held[slot] = held.pop(total)
            else:
                held[slot] = memory.take(room(slot.F, slot.kind))
                places.offsets[slot] = held[slot][0]
            ends.setdefault(max(n, life.last.get(slot, -1)), []).append(slot)
        for slot in ends.pop(n, ()):
            if slot in held:
                memory.give(held.pop(slot))
    places.top = memory.top
    return places


def in_place(groups: list[list[Loop]], lowered: Lowered, life: Life, copies: list) -> dict[Slot, Role]:
    """Values that are made where an output belongs; `copies` gets the outputs of which that cannot be said."""
    inputs, end = lowered.inputs, len(groups)
    others = set(inputs.values())
    for role, read in lowered.outputs.items():                       # one part becomes another
        if read.slot in others and read.slot is not inputs.get(role):
            life.last[read.slot] = end                                                            # type: ignore[index]
    targets: dict[Slot, Role] = {}
    for role, read in lowered.outputs.items():
        slot, before = read.slot, inputs.get(role)
        if slot is not None and read.map is None:
            if slot in life.made and slot not in targets and over(life, groups, slot, before):
                targets[slot] = role
                continue
            if slot is before:                                       # it stays as it is
                continue
        copies.append((role, read))
        if slot is not None:
            life.last[slot] = end
    return targets


def over(life: Life, groups: list[list[Loop]], slot: Slot, before: Slot | None) -> bool:
    """Whether a value may be made where another one lies: nobody reads that later, nor another element of it meanwhile."""
    n, until = life.made[slot], life.last.get(before, -1) if before is not None else -1
    adds = any(loop.out is slot and running_sum(loop) is before for loop in groups[n])
    return until < n or (until == n and (adds or n not in life.strangely.get(before, ())))         # type: ignore[arg-type]


def running_sum(loop: Loop) -> Slot | None:
    """The sum that a sum over the lanes is added to."""
    return loop.reads[-1].slot if len(loop.reads) > before_total(loop) else None

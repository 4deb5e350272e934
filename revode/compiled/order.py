"""In which order loops run, and which of them share one loop over elements.

    phases(loops)       groups that respect who reads what, elementwise operations over the same elements together
    late(groups, ...)   after that: each operation no earlier than it has to be
    running(lowered)    before that: sums over the lanes that are added to a running sum right away, as one loop
    set_apart(lowered)  elementary functions as loops of their own, where there are many of them

An elementary function is dozens of operations, and the time of a compiler grows faster than the length of a loop with
such functions: some 20 ms for one, seconds for fifty. So there are few of them in one loop, and where a direction has many,
each is a call of a function over a stretch of memory, which is compiled once.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import replace

from . import elementary
from .lower import LANES, Loop, Lowered, Read, Slot
from .program import ADD

INLINE = 8                  # elementary functions in one loop at most
CALLS = 32                  # of a direction, above which each is called apart
TOGETHER = 64               # operations in one loop at most: what one loop leaves for the next stays in the cache
SHORT = 8                   # terms of a sum that shares a loop with other operations
AHEAD = 512                 # operations among which those for one loop are looked for
LASTING = ("params", "steps", "constant", "own params", "own steps")          # what lies apart, for all of a step
ELEMENTWISE = ("map", "gather", "contract", "reduce")
OVER_LANES = {"outer": 2, "rows": 1}         # sums over the lanes: what they read before a running sum


def before_total(loop: Loop) -> int:
    """How many values a loop reads before the running sum that it adds to, if it does."""
    return OVER_LANES.get(loop.kind, len(loop.reads))


def running(lowered: Lowered) -> Lowered:
    """Sums over the lanes that are added to a running sum right away, as one loop."""
    uses = Counter(read.slot for loop in lowered.loops for read in loop.reads)
    uses.update(read.slot for read in lowered.outputs.values())
    made = {loop.out: loop for loop in lowered.loops}
    joined: dict[Slot, None] = {}                # sums that have gone into another loop

    def fresh(read: Read) -> Loop | None:
        """The sum over the lanes that is read, if it has not been joined to a running sum yet."""
        loop = made.get(read.slot) if read.slot is not None and read.map is None else None
        plain = loop is not None and loop.op is None and len(loop.reads) == OVER_LANES.get(loop.kind)
        return loop if plain and uses[read.slot] == 1 else None

    for loop in lowered.loops:
        if loop.kind == "map" and loop.op is ADD:
            total, term = loop.reads[::-1] if fresh(loop.reads[0]) else loop.reads
            inner = fresh(term)
            if inner is not None and total.slot is not None and total.map is None:
                made[loop.out] = Loop(inner.kind, loop.out, [*inner.reads, total], shape=inner.shape,
                                      source=inner.source)
                joined[inner.out] = None
    return replace(lowered, loops=[made[loop.out] for loop in lowered.loops if loop.out not in joined])


def is_call(loop: Loop) -> bool:
    """Whether a loop is an elementary function."""
    return (loop.kind == "map" and loop.text.startswith("rv_") and loop.op is not None
            and loop.op.name in elementary.NAMES)


def calls(lowered: Lowered) -> int:
    return sum(map(is_call, lowered.loops))


def set_apart(lowered: Lowered) -> Lowered:
    """Elementary functions as loops of their own, from one value in the memory of the tile to another."""
    stored = set(lowered.inputs.values())
    loops: list[Loop] = []

    def from_memory(read: Read, out: Slot) -> Read:
        """The same value as a whole that lies in memory."""
        slot = read.slot
        whole = slot is not None and read.map is None and slot in stored
        if whole and (slot.kind == LANES) == (out.kind == LANES):                # type: ignore[union-attr]
            return Read(slot)
        copy = Slot(out.kind, out.F)
        loops.append(Loop("map", copy, [read], text="{0}"))
        return Read(copy)

    for loop in lowered.loops:
        if is_call(loop):
            loop = replace(loop, reads=[from_memory(read, loop.out) for read in loop.reads], apart=True)
        stored.add(loop.out)
        loops.append(loop)
    return replace(lowered, loops=loops)


def sociable(loop: Loop) -> bool:
    """Whether an operation may share a loop over elements: not called apart, and of sums the short ones."""
    return (loop.kind in ELEMENTWISE and not loop.apart
            and all(table.shape[1] <= SHORT for table in loop.tables))


def joins(loop: Loop, group: list[Loop]) -> bool:
    """Whether an operation may stand in one loop over elements with these."""
    first = group[0]
    same = loop.out.F == first.out.F and (loop.out.kind == LANES) == (first.out.kind == LANES)
    return (same and sociable(loop) and sociable(first) and len(group) < TOGETHER
            and (not is_call(loop) or sum(map(is_call, group)) < INLINE))


def phases(loops: list[Loop]) -> list[list[Loop]]:
    """The loops in an order that respects who reads what, those that share a loop in one group."""
    made, done = {loop.out for loop in loops}, set[Slot]()
    many = any(loop.apart for loop in loops)
    groups: list[list[Loop]] = []

    def ready(loop: Loop, own: Container[Slot] = ()) -> bool:
        """Whether all that a loop reads is there, or is made by the loop that it joins, at the same element."""
        return all(slot not in made or slot in done
                   or (slot in own and index is None and loop.kind == "map") for slot, index, _ in loop.reads)

    def group_of(first: Loop, others: list[Loop]) -> list[Loop]:
        """Loops stand in an order in which they could be done: one pass is enough."""
        group, own = [first], {first.out}
        for loop in others:
            if loop is not first and joins(loop, group) and ready(loop, own):
                group.append(loop)
                own.add(loop.out)
        return group

    near, begin = loops[:AHEAD], AHEAD
    while near:
        found = [loop for loop in near if ready(loop)]
        alone = [[loop] for loop in found if many and not sociable(loop)]    # first: what they read can be forgotten
        new = alone or [group_of(found[0], near)]
        groups += new
        done |= {loop.out for group in new for loop in group}
        near = [loop for loop in near if loop.out not in done]
        end = begin + AHEAD - len(near)
        near, begin = near + loops[begin:end], end
    return groups


class Late:
    """late(): the groups in the making, the number of the group of every value, and who reads it."""

    def __init__(self, groups: list[list[Loop]], outputs: Container[Slot]) -> None:
        self.groups, self.outputs = [list(group) for group in groups], outputs
        self.made = {loop.out: loop for group in groups for loop in group}
        self.at = {loop.out: n for n, group in enumerate(groups) for loop in group}
        self.readers: dict[Slot, list[Loop]] = {}
        for loop in self.made.values():
            for slot in dict.fromkeys(read.slot for read in loop.reads if read.slot is not None):
                self.readers.setdefault(slot, []).append(loop)

    def goal(self, loop: Loop) -> int | None:
        """The one later group that reads a value, each element for itself."""
        readers = self.readers.get(loop.out, ())
        found = {self.at[reader.out] for reader in readers}
        plain = all(reader.kind == "map" and (read.map is None or read.slot is not loop.out)
                    for reader in readers for read in reader.reads)
        return found.pop() if len(found) == 1 and plain else None

    def there(self, slot: Slot, n: int) -> bool:
        """Whether a value is in memory until group n anyway."""
        lasts = slot.role is not None and slot.role[0] in LASTING
        return lasts or any(self.at[reader.out] >= n for reader in self.readers[slot])

    def party(self, loop: Loop | None, n: int) -> list[Loop]:
        """The operations that go to group n with this one, in their order; none where that cannot be."""
        if loop is None or loop.kind != "map" or is_call(loop) or loop.out in self.outputs or not joins(loop, self.groups[n]):
            return []
        found: list[Loop] = []
        for slot in dict.fromkeys(read.slot for read in loop.reads if read.slot is not None):
            if not self.there(slot, n):
                more = self.party(self.made.get(slot), n) if self.readers[slot] == [loop] else []
                if not more:
                    return []
                found += more
        return [*found, loop]

    def move(self, loop: Loop) -> None:
        n = self.goal(loop)
        gone = [] if n is None or n == self.at[loop.out] else self.party(loop, n)
        if n is not None and len(self.groups[n]) + len(gone) <= TOGETHER:
            for x in gone:
                self.groups[self.at[x.out]].remove(x)
                self.at[x.out] = n
            self.groups[n][:0] = gone


def late(groups: list[list[Loop]], outputs: Container[Slot]) -> list[list[Loop]]:
    """The same groups, where an operation that one later group alone reads has gone there: its value then needs no memory. What it
    reads has to be there until then anyway, or to come along."""
    moving = Late(groups, outputs)
    for loop in reversed(list(moving.made.values())):
        moving.move(loop)
    return [group for group in moving.groups if group]

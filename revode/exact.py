"""Exact mode: reversal without a wrong bit, for every method that is run backwards.

The state lives on a lattice, the multiples of u = 2^-s, in ordinary float64 arrays. Every increment is rounded to it, so that

    x <- +-x + R(add)        R(a) = (a + C) - C,   C = 1.5 * 2^(52 - s)

is a sum of whole numbers of u, which no rounding touches: its inverse gives every bit back. A contraction loses information, and
nothing can avoid storing that; but no more is needed. With a ratio of whole numbers as its scale, on D = (x - about) / u,

    x <- about +- p/q (x - about)        push    B <- B q + D mod q;     D <- (D div q) p + B mod p;     B <- B div p
                                         pop     B <- B p + D mod p;     D <- (D div p) q + B mod q;     B <- B div q

is a bijection of the pair (D, B). B is the buffer of this target, an array of whole numbers in float64 beside the other parts of
the state; its size is bounded by p, q and the count of steps alone, so when 32 bits of it move to a stack (`Flushed`) is known
beforehand. It grows by log2(q / p) bits a step and element: what a contraction destroys.

A method that is undone only nearly (EES, NearReversible) is no word; its step is recorded as a whole: by how many units Phi_{-h}
misses the state is a whole number below 128, if steps are not too large, and goes to the buffer of y as eight bits (`Undone`).

So exact mode is a method made from another one: `Exact` rewrites the word. Shears, sweeps and programs know nothing of it.
Sources: Levesque & Verlet 1993 (the lattice); Maclaurin, Duvenaud & Adams 2015, algorithm 2 (the buffer).
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from types import MethodType
from typing import Any, NamedTuple

import numpy as np

from .engine import tree
from .engine.tensor import number, to_host, value_of
from .methods.increment import Evaluator, Recorder
from .methods.shears import Parts, Shear, Step, Word, added
from .watch import ReconstructionError

BITS = 48                  # the finest lattice that is chosen by itself: where the state stays below 32
HEADROOM = 128.0           # times the largest entry of the initial state, at least, has to fit onto the lattice
FEWEST = 24                # bits that the largest entry of the initial state has on the lattice, at least: scales stir 12 of them
DENOMINATOR = 4096         # the largest q: 12 bits of the 52 that a buffer has
WORD = 32                  # bits that leave the buffer at a time
LOOKED = 64                # accepted steps of an adaptive solve that are asked for at a time, at most
FEW = 2000                 # entries of an array, below which calls cost more than numbers
FULL = 2 ** 52             # B stays below this, so that every sum and product here is exact


@dataclass(frozen=True)
class Lattice:
    """The multiples of 2^-bits on which an exact solve lives; |state| < 2^(53 - bits).

    Parameters
    ----------
    bits : whole number from 0 to 60; None chooses it from y0: 48, or less where y0 is larger than 1/4.
    digits : whole number from 2 to 12: the bits that are kept in each step, for each number, of methods that are undone only nearly
        (EES, NearReversible), whose way back may then miss by up to half of 2^digits units of the lattice.

    Raises ValueError for another number of bits; in a solve OverflowError where the state leaves it.

    Cost: each sum of a step is rounded to the lattice; what a scale below 1 shifts out is stored, a bit or so a step.
    Source: Levesque & Verlet 1993 (the lattice); Maclaurin, Duvenaud & Adams 2015, algorithm 2 (what is stored).

    Example
    -------
    >>> Lattice(bits=40).bits
    40
    """
    bits: int | None = None
    digits: int = 8

    def __post_init__(self) -> None:
        if not (isinstance(self.digits, int) and 2 <= self.digits <= 12):
            raise ValueError(f"Lattice: digits={self.digits!r}; a whole number from 2 to 12")
        if self.bits is not None and not (isinstance(self.bits, int) and 0 <= self.bits <= 60):
            raise ValueError(f"Lattice: bits={self.bits!r}; a whole number from 0 to 60, or None to have it chosen from y0")


def divided(x: Any, q: int) -> tuple[Any, Any]:
    """x div q and x mod q of whole numbers below 2^53, exactly; the remainder lies in [0, q)."""
    if type(x) is np.ndarray and x.size < FEW:
        return np.divmod(x, float(q))           # the same numbers, in one call
    a = np.floor(x * (1.0 / q))
    r = x - a * (q - 1.0) - a                   # a q itself may lie beyond 2^53
    over = np.where(r < 0, -1.0, np.where(r >= q, 1.0, 0.0))
    return a + over, r - over * q


def rounded(x: Any, unit: float) -> Any:
    """The nearest point of the lattice, to even, of an increment: |x| < 2^51 unit."""
    C = 1.5 * 2.0 ** 52 * unit
    return (x + C) - C


def rounded_state(x: Any, unit: float) -> Any:
    """The same up to the edge of the lattice, |x| < 2^53 unit; of the outer half of it, one of the nearest two points."""
    C = np.where(x < 0, -1.0, 1.0) * (2.0 ** 52 * unit)
    return (x + C) - C


def note(F: Evaluator, name: str, x: Any) -> None:
    """Remember how large the numbers x are, entry by entry, where somebody will ask: states by the name of their part, increments by
    +name. NaN, of which others speak, is no number here."""
    if F.most is not None:
        F.most[name] = np.fmax(F.most[name], abs(x)) if name in F.most else abs(x)


class Contract(NamedTuple):
    """x[target] <- about +- p/q (x[target] - about), where about is a part, or 0; the bits that this destroys go to a buffer."""
    target: str
    about: str | None
    buffer: str
    sign: int
    p: int
    q: int
    unit: float

    @property
    def scale(self) -> float:
        return self.sign * self.p / self.q

    def forward(self, parts: Parts, F: Evaluator) -> None:
        F.memo.pop(self.target, None)
        if self.about is not None:
            note(F, self.target, parts[self.target] - parts[self.about])
        self.turn(parts, self.q, self.p, 1.0 / self.unit, self.sign * self.unit)
        if self.sign < 0 or self.p > self.q:                     # else it lies between the two
            note(F, self.target, parts[self.target])

    def inverse(self, parts: Parts, F: Evaluator) -> None:
        F.memo.pop(self.target, None)
        self.turn(parts, self.p, self.q, self.sign / self.unit, self.unit)

    def turn(self, parts: Parts, out: int, into: int, enters: float, leaves: float) -> None:
        """Divide by `out`, push the remainder, pop another one, multiply by `into`."""
        x, B = parts[self.target], parts[self.buffer]
        a, r = divided((x if self.about is None else x - parts[self.about]) * enters, out)
        B, s = divided(B * out + r, into)
        D = (a * into + s) * leaves
        parts[self.target], parts[self.buffer] = D if self.about is None else parts[self.about] + D, B

    def pullback(self, parts: Parts, cotangent: Parts, R: Recorder) -> None:
        R.flush(self.target, cotangent)
        self.inverse(parts, R)
        a = cotangent[self.target]
        if self.about is not None:
            cotangent[self.about] = cotangent[self.about] + (1.0 - self.scale) * a
        cotangent[self.target] = self.scale * a


class Largest(NamedTuple):
    """Looks how large a part is, and changes nothing."""
    target: str

    @property
    def scale(self) -> float:
        return 1.0

    def forward(self, parts: Parts, F: Evaluator) -> None:
        note(F, self.target, parts[self.target])

    def inverse(self, parts: Parts, F: Evaluator) -> None:
        pass

    def pullback(self, parts: Parts, cotangent: Parts, R: Recorder) -> None:
        pass


class Undone(NamedTuple):
    """y <- Phi_h(y), for a method that is undone only nearly: by how many units Phi_{-h} misses y goes to a buffer, log2(q) bits a
    step and element."""
    method: Any
    step: Step
    unit: float
    q: int
    target: str = "y"
    buffer: str = "bits_y"
    p: int = 1

    @property
    def scale(self) -> float:
        return 1.0

    def back(self, parts: Parts, system: Any, params: Any) -> Any:
        """R(Phi_{-h}(y)), off any tape."""
        F = Evaluator(system, params)
        y, = F.read(("y",), parts)
        t0, t1, dx, _ = self.step
        return rounded_state(self.method.flow(F, t1, t0, y, -dx), self.unit)

    def forward(self, parts: Parts, F: Evaluator, *errors: list) -> Any:
        """A step; to `errors` goes an estimate of its error. Returns by how many units the way back misses y."""
        y, = F.read(("y",), parts)
        t0, t1, dx, _ = self.step
        parts["y"] = rounded_state(self.method.flow(F, t0, t1, y, dx, *errors), self.unit)
        F.memo.clear()
        r = (y - self.back(parts, F.system, F.params)) * (1.0 / self.unit)
        note(F, "y", parts["y"])
        note(F, self.buffer, r)
        parts[self.buffer] = parts[self.buffer] * self.q + (r + self.q // 2)
        return r

    def inverse(self, parts: Parts, F: Evaluator) -> None:
        self.undo(parts, F.system, F.params)

    def undo(self, parts: Parts, system: Any, params: Any) -> None:
        parts[self.buffer], r = divided(parts[self.buffer], self.q)
        parts["y"] = self.back(parts, system, params) + (r - self.q // 2) * self.unit

    def pullback(self, parts: Parts, cotangent: Parts, R: Recorder) -> None:
        R.flush("y", cotangent)
        self.undo(parts, R.system, R.plain)
        y, = R.read(("y",), parts)
        t0, t1, dx, _ = self.step
        after = self.method.flow(R, t0, t1, y, dx)
        cotangent["y"], = R.pull(after, cotangent["y"], [y])


@dataclass(frozen=True)
class Exact:
    """A method whose word is rewritten for the lattice of 2^-bits; its parts are those of the method, and the buffers."""
    inner: Any
    bits: int
    digits: int = 8
    exactly_reversible = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"{self.inner!r}, exact"

    @cached_property
    def unit(self) -> float:
        return 2.0 ** -self.bits

    @cached_property
    def contractions(self) -> list:
        """What one step pushes onto buffers."""
        return [x for x in self.word(Step(0.0, 1.0, 1.0, 1.0)) if type(x) in (Contract, Undone)]

    @cached_property
    def buffers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(x.buffer for x in self.contractions))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        return (*self.inner.parts, *self.buffers)

    def start(self, F: Evaluator, step: Step, y: Any) -> Parts:
        parts = self.inner.start(F, step, tree.map(self.round, y))
        return self.with_buffers({name: self.round(x) for name, x in parts.items()})

    @cached_property
    def limits(self) -> dict[str, float]:
        """How large numbers may become, by the names of `note`: the next one is too large."""
        return {**{name: 2.0 ** 53 * self.unit for name in self.inner.parts}, **{"+" + name: 2.0 ** 51 * self.unit
                for name in self.inner.parts}, **{x.buffer: x.q // 2 for x in self.contractions if type(x) is Undone}}

    def with_buffers(self, parts: Parts) -> Parts:
        """Parts of the method with empty buffers."""
        return {**parts, **{x.buffer: np.zeros_like(value_of(parts[x.target])) for x in self.contractions}}

    def word(self, step: Step, *more: Any) -> Word:
        if not self.inner.exactly_reversible:
            return Undone(self.inner, step, self.unit, 2 ** self.digits),
        return [y for x in self.inner.word(step, *more) for y in (self.rewritten(x) if type(x) is Shear else (x,))]

    @property
    def attempt(self) -> Callable:
        """The method's own attempt at an adaptive step, over this word."""
        return MethodType(type(self.inner).attempt, self) if self.inner.exactly_reversible else self.recorded

    def recorded(self, step: Step, parts: Parts, F: Evaluator) -> tuple[Parts, Any]:
        """An attempt of a method that is undone only nearly; one whose way back misses by more than is kept will not do."""
        after, errors = dict(parts), list[Any]()
        missed = Undone(self.inner, step, self.unit, 2 ** self.digits).forward(after, F, errors)
        return after, errors[0] + np.where(abs(missed) < 2 ** (self.digits - 1), 0.0, math.inf)

    def round(self, x: Any) -> Any:
        return rounded_state(x, self.unit)

    def added(self, F: Evaluator, target: str, x: Any) -> Any:
        """What is added to a part, on the lattice."""
        note(F, "+" + target, x)
        return rounded(x, self.unit)

    def rewritten(self, shear: Shear) -> tuple:
        target, reads, add = shear.target, shear.reads, shear.add
        if abs(shear.scale) == 1.0:
            return (Shear(target, reads, lambda F, *reads: self.added(F, target, added(shear, F, reads)), shear.scale),
                    Largest(target))
        sign, p, q = ratio(shear.scale, self.inner)
        return (Contract(target, shear.about, "bits_" + target, sign, p, q, self.unit),
                Shear(target, reads, lambda F, *reads: self.added(F, target, add(F, *reads))), Largest(target))


def ratio(scale: float, method: Any) -> tuple[int, int, int]:
    """The sign, p and q of a scale. Raises ValueError for what is no ratio of small whole numbers."""
    near = Fraction(abs(scale)).limit_denominator(DENOMINATOR)
    if not near or abs(float(near) - abs(scale)) > 4e-16:               # as 1 - 2 eta is rounded
        raise ValueError(f"solve: exact=True takes a scale that is a ratio p/q with q <= {DENOMINATOR}, but {method!r} has the scale "
                         f"{scale!r}; the nearest is {near} = {float(near):.9g}")
    return (1 if scale > 0 else -1), near.numerator, near.denominator


@dataclass
class Flushed:
    """What has left the buffers of one solve, on a schedule that no value of the state enters."""
    method: Exact
    stack: list[tuple[int, str, np.ndarray]] = field(default_factory=list)      # grid point, buffer, 32 bits of every element
    left: int = 0                        # of the stack, on the way back
    dues: dict[int, list[str]] = field(default_factory=dict)                    # the buffers to be flushed, by grid point
    steps: int = 0                       # as far as they are known

    def __post_init__(self) -> None:
        self.bound = dict.fromkeys(self.method.buffers, 1)           # B < bound, before that step

    def until(self, N: int) -> dict[int, list[str]]:
        """The grid points below N at which 32 bits of a buffer have to leave, lest it be too full for the next step."""
        contractions, bound = self.method.contractions, self.bound
        for n in range(self.steps, N if contractions else 0):
            full = [name for name in bound if most(contractions, name, bound[name]) > FULL]
            for name in full:
                bound[name] = ((bound[name] - 1) >> WORD) + 1
                if most(contractions, name, bound[name]) > FULL:
                    raise ValueError(f"solve: one step of {self.method.inner!r} destroys more bits than exact=True can hold; take "
                                     "scales closer to 1")
            if full:
                self.dues[n] = full
            for x in contractions:
                bound[x.buffer] = -(-bound[x.buffer] * x.q // x.p)
        self.steps = max(self.steps, N)
        return self.dues

    def before(self, n: int, parts: Parts, most: Parts) -> Parts:
        """The parts that step n begins with; most: how large numbers have been up to there."""
        self.check(n, parts, most)
        for name in self.until(n + 1).get(n, ()):
            B = parts[name]
            high = np.floor(B * 2.0 ** -WORD)
            self.stack.append((n, name, (B - high * 2.0 ** WORD).astype(np.uint32)))
            parts = {**parts, name: high}
        return parts

    def turn(self) -> None:
        """From here on it goes back."""
        self.left = len(self.stack)

    def between(self, first: int, last: int) -> list[int]:
        """The grid points from `first` on and before `last` at which something leaves, or comes back."""
        return [n for n in self.until(last) if first <= n < last]

    def after(self, n: int, parts: Parts) -> Parts:
        """The parts at grid point n, once step n has been undone."""
        while self.left and self.stack[self.left - 1][0] == n:
            self.left -= 1
            _, name, low = self.stack[self.left]
            parts = {**parts, name: parts[name] * 2.0 ** WORD + low}
        return parts

    def check(self, n: int, parts: Parts, most: Parts) -> None:
        """Raise OverflowError where a number has left the lattice by step n."""
        for name, x in (*((name, parts[name]) for name in self.method.inner.parts), *most.items()):
            largest, limit = float(np.max(abs(to_host(value_of(x))), initial=0.0)), self.method.limits[name]
            if largest >= limit:
                raise OverflowError(self.left_the_lattice(name, largest, limit, n))

    def left_the_lattice(self, name: str, largest: float, limit: float, n: int) -> str:
        bits, inner = self.method.bits, self.method.inner
        if name in self.method.buffers:
            digits, more = self.method.digits, "exact=rv.Lattice(digits=12), " if self.method.digits < 12 else ""
            return (f"solve: exact=True keeps {digits} bits of what {inner!r} does not find on its way back, and by step {n} it "
                    f"missed y by {largest:.3g} units of the lattice; pass {more}a coarser lattice, as in rv.Lattice("
                    f"bits={max(bits - 8, 0)}), smaller steps, or a method made of shears, such as Coupled(base)")
        less = bits - math.ceil(math.log2(largest / limit)) - 4 if largest < math.inf else -1
        what, of = ("an increment", "increments") if name[0] == "+" else ("an entry", "numbers")
        return (f"solve: {what} of {largest:.3g} in {name.lstrip('+')} left the lattice of 2^-{bits} by step {n}, which holds {of} "
                f"below {limit:.3g}; " + (f"pass exact=rv.Lattice(bits={less}) or fewer" if less >= 0 else
                                    "the solution grows too far for exact=True"))

    def account(self, N: int, parts: Parts, stats: Any) -> None:
        """The bits that N steps hold, of all elements together, and those that they destroyed."""
        sizes = {name: parts[name].size for name in self.method.buffers}
        here = self if self.steps == N else Flushed(self.method)          # an adaptive solve has looked further
        here.until(N)
        stats.bits_stored = sum(WORD * low.size for _, _, low in self.stack) + sum(
            sizes[name] * (bound - 1).bit_length() for name, bound in here.bound.items())
        stats.bits_bound = N * sum(sizes[x.buffer] * math.log2(x.q / x.p) for x in self.method.contractions)

    def certify(self, parts: Parts, start: Parts) -> None:
        """Raise ReconstructionError unless every bit of the start has come back, and no other one is left."""
        wrong = {name: int(number((parts[name] != start[name]).sum())) for name in start}
        if any(wrong.values()) or self.left:
            raise ReconstructionError(
                f"Reversible: exact=True, but {sum(wrong.values())} numbers of the initial state did not come back, so the gradient "
                "is not exact. The field has other bits on the way back than ahead (a value that depends on what is not in t, y and "
                "params, or on the memory layout of y).")


class Flushing:
    """An engine whose buffers are flushed, and filled again, between its steps: every verb but `pull`."""

    def __init__(self, engine: Any, flushed: Flushed) -> None:
        self.engine, self.flushed = engine, flushed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def load(self, problem: Any, params: Any, parts: Parts, cotangents: Parts | None = None) -> None:
        if cotangents is None:
            self.flushed.check(problem.N, parts, {})
        self.engine.load(problem, params, parts, cotangents)

    def exchange(self, parts: Parts) -> None:
        """Give the engine other values of its buffers."""
        self.engine.replace({name: parts[name] for name in self.flushed.method.buffers})

    def flush(self, n: int) -> None:
        """What leaves before step n."""
        self.exchange(self.flushed.before(n, self.engine.read("part"), self.engine.read("most")))

    def ahead(self, first: int, last: int, ys: Sequence[Any] | None = None, looks: Sequence[int] = ()) -> dict:
        seen: dict[str, list] = {}
        for stop in [*self.flushed.between(first, last), last]:
            found = self.engine.ahead(first, stop, ys, [n for n in looks if first < n <= stop]) if stop > first else {}
            for name, x in found.items():
                seen.setdefault(name, []).extend(x[k] for k in range(len(x)))
            if stop < last:
                self.flush(stop)
            first = stop
        self.flushed.check(last, self.engine.read("part"), self.engine.read("most"))
        return seen

    def extend(self, most: int = LOOKED) -> dict:
        """As many steps as come before the next flush, or fewer."""
        n, flushed = self.engine.problem.N, self.flushed
        if flushed.between(n, n + 1):
            self.flush(n)
        due = flushed.between(n + 1, n + most)
        seen = self.engine.extend(due[0] - n if due else most)
        flushed.check(self.engine.problem.N, self.engine.read("part"), self.engine.read("most"))
        return seen

    def back(self, last: int, first: int, a_ys: tuple, known: Parts | None = None, flushes: bool = False,
             looks: Sequence[int] = ()) -> tuple[dict, dict]:
        seen: list[tuple[dict, dict]] = []
        stops = self.flushed.between(first, last)[::-1]
        for stop in stops if stops[-1:] == [first] else [*stops, first]:
            ends = stop == first
            found = self.engine.back(last, stop, a_ys, known if ends else None, flushes and ends,
                                     [n for n in looks if stop <= n < last])
            if found[0]:
                seen.append(found)
            self.exchange(self.flushed.after(stop, self.engine.read("part")))
            last = stop
        if len(seen) < 2:
            return seen[0] if seen else ({}, {})
        return tuple({name: np.concatenate([rows[k][name] for rows in seen]) for name in seen[0][k]} for k in (0, 1))  # type: ignore


def most(contractions: list[Contract], name: str, bound: int) -> int:
    """The largest number that one step may make in a buffer with B < bound."""
    largest = bound
    for x in contractions:
        if x.buffer == name:
            largest = max(largest, bound * x.q)
            bound = -(-bound * x.q // x.p)
    return largest


def bits_for(initial: Any, bits: int | None) -> int:
    """The lattice for an initial state: as fine as BITS, with room for HEADROOM times its largest entry, where none was chosen.

    Raises ValueError where little or nothing of the state would be left on it.
    """
    largest = max(number(abs(value_of(x)).max()) for x in tree.flatten(initial)[0])
    if bits is None:
        bits = BITS if largest == 0 else max(0, min(BITS, math.floor(53 - math.log2(largest * HEADROOM))))
    if 0 < largest < 2.0 ** (FEWEST - bits):
        raise ValueError(f"solve: exact=True: the largest entry of y0, {largest:.1e}, has less than {FEWEST} bits on a lattice of "
                         f"2^-{bits}. Give the state in a unit in which it is near 1, or take a finer lattice, Lattice(bits=60)")
    return bits

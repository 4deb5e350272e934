"""F(t, y, dx): the increment of the vector field, which is all that a method sees of a problem.

    ODE    F(t, y, h) = f(t, y, params) * h

A field value f(t, y) of a part of the state belongs to one version of that part. While that version lives, all shears
share the value: a method that evaluates the field at the end of one step and at the start of the next (reversible
Heun, Verlet) pays once, forward and back, and no method says so.

`Evaluator` works on whatever it is given (arrays, or tensors of a surrounding tape). `Recorder` evaluates for the
reverse sweep: each field value gets a tape of its own, its cotangents are collected, and it is pulled back once.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..engine import tree
from ..engine.refusals import explain
from ..engine.tensor import Tape, Tensor, is_float, joined, value_of


class System:
    """A vector field: how it is evaluated, how a value of it makes an increment, and the counters to advance.

    pack and unpack turn the user's tree into the one array that methods see, and back; scalar gives times y's dtype; refuse
    raises what is to be said of a value that is not shaped like y (None: nobody looks).
    """
    control: Any = None                  # what drives the equation besides time, and its derivative (driving.py)
    derivative: Any = None
    smooth: bool = False                 # ... which f is multiplied with at each stage's own time
    noisy: bool = False                  # a step's dx holds the increment of a Brownian path
    euler_maruyama: bool = False         # Euler's method for Ito's integral

    def __init__(self, field: Any, stats: Any, pack: Any = None, unpack: Any = None, scalar: Any = None,
                 refuse: Callable | None = None) -> None:
        self.field, self.stats, self.pack, self.unpack, self.scalar, self.refuse = field, stats, pack, unpack, scalar, refuse

    @property
    def signature(self) -> tuple:
        """What decides, besides the field, which program a step is."""
        return (type(self),)

    def coefficients(self, t: Any, y: Any, params: Any) -> tuple:
        """What the field returns at (t, y), as a tuple: (f,)."""
        self.stats.nfe += 1
        return (self.value(self.field, t, y, params),)

    def value(self, of: Any, t: Any, y: Any, params: Any, tail: tuple[int, ...] = (), what: str = "field") -> Any:
        """of(t, y, params) as one array, of y's dtype and of shape (*y.shape, *tail)."""
        t = t if self.scalar is None else self.time(t)
        kind = type(y)
        if kind is not Tensor and hasattr(y, "setflags"):
            y.setflags(write=False)          # the field reads; a write into y raises
        try:
            f = of(t, y, params) if self.unpack is None else self.pack(of(t, self.unpack(y), params), t)
        except ValueError as error:
            explain(error)
            raise
        if type(f) is kind and not tail:     # as ever, and quickly told
            a, b = (f, y) if kind is not Tensor or f.tape is not y.tape else (f._value, y._value)
            if type(a) is type(b) is not Tensor and a.dtype is b.dtype and a.shape == b.shape:
                return f
        f = joined(f)                        # np.array([...]) of tensors
        if self.refuse is not None and not fits(f, y, tail):
            self.refuse(f, t, y, params, tail, what)
        return f

    def time(self, t: Any) -> Any:
        """A time as the field sees it, in y's dtype."""
        if self.scalar is None:
            return t
        return t.astype(self.scalar) if type(t) is Tensor else self.scalar(t)

    def times(self, coefficients: tuple, dx: Any) -> Any:
        """The increment that this value makes with dx."""
        return coefficients[0] * dx

    def rate(self, coefficients: tuple, t: Any) -> Any:
        """dy/dt (with noise: of the drift), for the guess of a first step."""
        return coefficients[0]


class Driver:
    """What gives each step its increments: given(n, t0, t1, h, problem) makes them, join(h, given) makes dx of them."""
    path: Any = None                     # of noise
    shape: Any = None                    # of an increment of the path
    control: Any = None


def fits(f: Any, y: Any, tail: tuple[int, ...] = ()) -> bool:
    """Whether f is an array of y's dtype and of shape (*y.shape, *tail), and no tensor where y is none. Asked at every value."""
    a, b = value_of(f), value_of(y)
    try:
        return a.shape == (b.shape + tail if tail else b.shape) and a.dtype == b.dtype and (
            type(f) is not Tensor or (type(y) is Tensor and nested(f) <= nested(y)))
    except AttributeError:
        return False


def nested(x: Any) -> int:
    """How many tapes x is on, one within another."""
    return 0 if type(x) is not Tensor else 1 if x.tape.tracing else 1 + nested(x._value)


class Evaluator:
    """F(t, y, dx), sharing each field value for as long as the part of the state that it belongs to lives."""

    def __init__(self, system: System, params: Any, most: dict | None = None) -> None:
        self.system = system
        self._params = params
        self.memo: dict[str, dict] = {}      # part -> {t: field value}
        self.most = most                     # how large numbers have been, entry by entry, where exact mode asks
        self._reading: list = []

    @property
    def params(self) -> Any:
        return self._params

    def __call__(self, t: Any, y: Any, dx: Any) -> Any:
        return self.system.times(self.at(t, y), dx)

    def field(self, t: Any, y: Any) -> Any:
        """The value f(t, y) itself (not an increment)."""
        return self.at(t, y)[0]

    def other(self, of: Callable, t: Any, y: Any) -> Any:
        """The value of another function of (t, y, params) than the field, which a method has of its own."""
        return self.system.value(of, t, y, self.params, what=getattr(of, "__name__", "function"))

    def at(self, t: Any, y: Any) -> tuple:
        for name, part in self._reading:
            if y is part:
                values = self.memo.setdefault(name, {})
                if t not in values:
                    values[t] = self.evaluate(t, name, y)
                    self.limit(values)
                return self.shared(values[t])
        return self.apart(t, y)

    def limit(self, values: dict) -> None:
        """A part that never changes is read at ever new times; two values are all that a step can share with the next."""
        while len(values) > 2:
            del values[next(iter(values))]

    def apart(self, t: Any, y: Any) -> tuple:
        """The field value at an intermediate y, which nothing shares."""
        return self.system.coefficients(t, y, self.params)

    def evaluate(self, t: Any, name: str, y: Any) -> Any:
        """The field value at a part of the state."""
        return self.system.coefficients(t, y, self.params)

    def shared(self, value: Any) -> tuple:
        return value

    def read(self, names: tuple[str, ...], parts: dict) -> list:
        """The parts that a shear reads; a field value at one of them is shared."""
        reads = [parts[name] for name in names]
        self._reading = list(zip(names, reads, strict=True))
        return reads


class Recorded:
    """A field value on a tape of its own, with the cotangents that have come in for it."""
    __slots__ = ("inputs", "outputs", "pending", "tape")

    def __init__(self, tape: Tape, inputs: list[int], outputs: list, pending: list) -> None:
        self.tape, self.inputs, self.outputs, self.pending = tape, inputs, outputs, pending

    @property
    def values(self) -> tuple:
        """The outputs, off the tape."""
        return tuple(y._value if type(y) is Tensor and y.tape is self.tape else y for y in self.outputs)


class Recorder(Evaluator):
    """F for the reverse sweep: records, collects cotangents, and sums the gradient of the parameters."""

    def __init__(self, system: System, params: Any, zeros: list) -> None:
        super().__init__(system, None)
        self.tape = Tape()                   # of the shear at hand
        self.slots: list[int] = []           # of the parameters on it, once they are needed
        self.shares: list = []               # (slot on it, the recorded field value, which output)
        self.unshared = 0                    # field values on it that nothing shares
        self.plain = params                  # the parameters as they are, off any tape
        self.leaves, self.structure = tree.flatten(params)
        self.floats = [i for i, x in enumerate(self.leaves) if is_float(x)]
        self.aparams = zeros                 # one running sum for each float leaf, in place
        self.parts: dict = {}

    def wrap(self, tape: Tape) -> tuple[Any, list[int]]:
        """The parameters as inputs of a tape, and their slots."""
        leaves = list(self.leaves)
        slots = []
        for i in self.floats:
            leaves[i] = wrapped = tape.input(leaves[i])
            slots.append(wrapped.slot)
        return tree.unflatten(self.structure, leaves), slots

    @property
    def params(self) -> Any:
        if self._params is None:
            self._params, self.slots = self.wrap(self.tape)
        return self._params

    def read(self, names: tuple[str, ...], parts: dict) -> list:
        """Begin a shear: a new tape, with its reads as inputs."""
        self.tape, self.parts, self._params = Tape(), parts, None
        self.slots, self.shares, self.unshared = [], [], 0
        reads = [self.tape.input(parts[name]) for name in names]
        self._reading = list(zip(names, reads, strict=True))
        return reads

    def apart(self, t: Any, y: Any) -> tuple:
        self.unshared += 1
        return super().apart(t, y)

    def evaluate(self, t: Any, name: str, y: Any) -> Recorded:
        tape = Tape()
        part = tape.input(self.parts[name])
        params, slots = self.wrap(tape)
        outputs = list(self.system.coefficients(t, part, params))
        return Recorded(tape, [part.slot, *slots], outputs, [None] * len(outputs))

    def shared(self, value: Recorded) -> tuple:
        leaves = []
        for j, y in enumerate(value.outputs):
            leaf = self.tape.input(y._value if type(y) is Tensor and y.tape is value.tape else y)      # else it depends on t alone
            self.shares.append((leaf.slot, value, j))
            leaves.append(leaf)
        return tuple(leaves)

    def pull(self, total: Tensor, a: Any, reads: list) -> list:
        """Pull a back through the shear that was recorded last; returns the cotangents of its reads."""
        slots = [x.slot for x in reads] + self.slots + [slot for slot, _, _ in self.shares]
        found = self.tape.pull([(total.slot, a)], slots)
        self.system.stats.nvjp += self.unshared
        n = len(reads)
        self.collect(found[n:n + len(self.slots)])
        for (_, value, j), g in zip(self.shares, found[n + len(self.slots):], strict=True):
            if g is not None:
                value.pending[j] = g if value.pending[j] is None else value.pending[j] + g
        return found[:n]

    def collect(self, cotangents: list) -> None:
        accumulate(self.aparams, cotangents)

    def limit(self, values: dict) -> None:
        """Nothing is dropped before it is pulled back; see expire."""

    def expire(self, times: Any, cotangent: dict) -> None:
        """Pull back the field values at other times than these, which no shear will ask for any more."""
        times = dict.fromkeys(times)
        for name, values in self.memo.items():
            if any(t not in times for t in values):
                self.pull_values(name, [values.pop(t) for t in list(values) if t not in times], cotangent)

    def flush(self, name: str, cotangent: dict) -> None:
        """The version of this part ends: pull back the field values that belong to it."""
        self.pull_values(name, list(self.memo.pop(name, {}).values()), cotangent)

    def pull_values(self, name: str, recorded: list, cotangent: dict) -> None:
        for value in recorded:
            seeds = [(y.slot, g) for y, g in zip(value.outputs, value.pending, strict=True)
                     if g is not None and type(y) is Tensor and y.tape is value.tape]
            if seeds:
                self.system.stats.nvjp += 1
                g, *rest = value.tape.pull(seeds, value.inputs)
                if g is not None:
                    cotangent[name] = cotangent[name] + g
                self.collect(rest)

    def flush_all(self, cotangent: dict) -> None:
        for name in list(self.memo):
            self.flush(name, cotangent)


def accumulate(sums: list, cotangents: list) -> None:
    """Add cotangents (None: zero) to running sums, in place where these are plain arrays."""
    for i, g in enumerate(cotangents):
        if type(g) is Tensor or type(sums[i]) is Tensor:       # the pullback is itself being differentiated
            sums[i] = sums[i] + g if g is not None else sums[i]
        elif g is not None:
            sums[i] += g

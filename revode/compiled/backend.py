"""Backends: who runs the steps. The eager tape is the absence of one.

    "replay"    NumPy calls into planned buffers        "native"    C, compiled by the machine's own compiler

Programs are kept for the next solve, by everything that they were made from: the code of the field and what it closes
over (arrays by content, so that stale weights cannot happen), the method, shapes, dtypes and options.
"""
from __future__ import annotations

import logging
import types
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any

import numpy as np

from ..engine import tree
from ..engine.tensor import NotTraceable, Tensor, is_float
from ..methods.increment import Increment
from ..stepping import Problem, Stats, one_step
from ..watch import size
from .program import frozen  # what makes and runs programs is imported where it is used: import revode stays quick

KEPT = 64                  # programs that are kept
PAYS = 200                 # steps (over all solves of one kind) from which "auto" makes a program

logger = logging.getLogger("revode")
_cache: OrderedDict[Any, Any] = OrderedDict()
_steps_seen: dict[Any, int] = {}
_told: set = set()


@dataclass(frozen=True)
class Backend:
    """name: 'replay' or 'native'; auto: fall back to the tape where a program does not pay, or cannot be made."""
    name: str = "replay"
    auto: bool = True
    merge: bool = True
    strict: bool = False
    threads: int | None = None

    def forward(self, problem: Problem, parts: dict, params: Any) -> Any:
        from .steps import forward_steps
        return self.runner("forward", forward_steps, problem, parts, params)

    def backward(self, problem: Problem, parts: dict, params: Any) -> Any:
        from .steps import backward_steps
        return self.runner("backward", backward_steps, problem, parts, params)

    def runner(self, direction: str, steps: Callable, problem: Problem, parts: dict, params: Any) -> Any:
        """A runner for the steps of this problem; None where the tape has to do it."""
        leaves = tree.flatten((parts, params))[0]
        if problem.adaptive is not None and direction == "forward":
            return None
        if any(type(x) is Tensor for x in leaves) or not all(
                isinstance(x, (np.ndarray, np.generic, float)) for x in leaves if is_float(x)):
            return None
        if problem.key is ...:
            problem.key = self.key(problem, parts, params)
        key = None if problem.key is None else (direction, get_ident(), problem.key)       # a runner serves one thread
        if key is not None and key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        if self.auto and not self.pays(key, problem):
            return None
        try:
            made = self.make(steps(problem, parts, params, self.merge), problem, parts, direction)
            agree(made, direction, problem, parts, params)
        except Exception as error:                    # whatever it is: the tape will say it in the user's own terms
            if not self.auto and (self.name == "native" or self.strict):
                raise
            self.tell(problem, error)
            made = None
        if key is not None:
            _cache[key] = made
            while len(_cache) > KEPT:
                _cache.popitem(last=False)
        return made

    def make(self, steps: Any, problem: Problem, parts: dict, direction: str) -> Any:
        if self.name == "native" or (self.strict and not self.auto):        # strict: the same bits from NumPy
            from .mirror import Mirror
            from .tiles import Tiles
            return Tiles(steps, parts, problem.method.outputs, direction, inside(problem),
                         self.strict, self.threads, make=None if self.name == "native" else Mirror)
        from .replay import Replay
        return Replay(steps, parts, self.merge)

    def pays(self, key: Any, problem: Problem) -> bool:
        """Whether enough steps of this kind have been asked for; without a key each solve stands for itself."""
        seen = _steps_seen.get(key, 0) + problem.N if key is not None else problem.N
        if key is not None:
            if len(_steps_seen) > 4096:
                _steps_seen.clear()
            _steps_seen[key] = seen
        return seen >= PAYS if key is not None else problem.N >= PAYS

    def tell(self, problem: Problem, error: Exception) -> None:
        """One message for each field."""
        name = getattr(problem.system.field, "__qualname__", repr(problem.system.field))
        if name not in _told:
            _told.add(name)
            logger.warning("the field %s runs on the eager tape, because it cannot be traced into a program: %s", name, error)

    def key(self, problem: Problem, parts: dict, params: Any) -> Any:
        """Everything that a program is made from; None where that cannot be told."""
        leaves, structure = tree.flatten(params)
        system = problem.system
        shapes = tuple((name, x.shape, x.dtype.str) for name, x in parts.items())
        try:
            what = tuple(("float", np.shape(x), np.asarray(x).dtype.str) if is_float(x) else ("other", frozen(x)) for x in leaves)
            fields = tuple(fingerprint(f, ()) for f in (system.field, getattr(system, "diffusion", None)))
            method = fingerprint(problem.method, ())
            extra = (type(system).__name__, getattr(system, "general", None), getattr(system, "ito", None),
                     repr(getattr(system, "scalar", None)), layout_of(system), id(getattr(system, "control", None)))
            key = (self, method, fields, shapes, repr(structure), what, extra, type(problem.driver).__name__, inside(problem))
            hash(key)
        except (Unknown, TypeError):
            return None
        return key


def agree(runner: Any, direction: str, problem: Problem, parts: dict, params: Any) -> None:
    """Raise NotTraceable if a step of the runner is not that of the tape, elsewhere than where it was traced.

    A field that reads x.value, or turns x into integers, hands the trace a number where it should hand a formula. The last
    step of the grid shows it, at other values of the state and the parameters: somewhat smaller ones, for which the field is
    most likely to be defined, and ones of the other sign, for branches that the trace did not see.
    """
    leaves, structure = tree.flatten(params)
    floats = [i for i, x in enumerate(leaves) if is_float(x)]
    others = tree.unflatten(structure, [moved(x, 1.0) if i in floats else x for i, x in enumerate(leaves)])
    seeds = {name: np.asarray(0.5 + irregular(x.shape), x.dtype) for name, x in parts.items()}
    own = replace(problem, save=(), stats=Stats(), system=copy(problem.system), backend=None)
    own.system.stats = own.stats
    with np.errstate(all="ignore"):
        for sign in (1.0, -0.7):
            at = {name: moved(x, sign) for name, x in parts.items()}
            try:
                wanted = one_eagerly(own, direction, at, seeds, others, floats)
            except Exception:                         # not defined there: nothing to compare with
                continue
            if direction == "forward":
                runner.start(own, others, at)
                runner.forward(own.N - 1, own.N, tuple(np.empty((0, *x.shape), x.dtype) for x in own.output(at)))
            else:
                runner.start(own, others, at, seeds)
                runner.back(own.N, own.N - 1, (), None, True)
            for kind, arrays in wanted.items():
                if not all(np.all(np.isfinite(x)) for x in arrays.values()):
                    break
                found, largest = runner.get(kind), max((size(x) for x in arrays.values()), default=0.0)
                for name, x in arrays.items():
                    eps = float(np.finfo(x.dtype).eps)
                    allowed = (1e-6 if eps < 1e-10 else 1e-3) * size(x - (at[name] if kind == "part" else 0.0)) + 1e3 * eps * largest
                    if not np.all(abs(found[name] - x) <= allowed):
                        raise NotTraceable("a step of the program is not that of the field, which uses values that a program does "
                                           "not see (x.value, whole numbers or bools made of floats, random numbers)")


def one_eagerly(problem: Problem, direction: str, parts: dict, cotangents: dict, params: Any, floats: list[int]) -> dict:
    """What the last step of the grid makes on the tape, by kind and name."""
    if direction == "forward":
        return {"part": one_step(problem.method, problem.step(problem.N - 1), parts, Increment(problem.system, params))}
    from ..gradients.reversible import Sweep
    tape = Sweep(problem)
    tape.start(problem, params, parts, cotangents)
    tape.back(problem.N, problem.N - 1, (), None, True)
    return {"part": tape.get("part"), "cotangent": tape.get("cotangent"),
            "aparam": dict(zip(floats, tape.R.aparams, strict=True))}


def moved(x: Any, sign: float) -> Any:
    """Numbers near those of x, or of the other sign, and not zero where those of x are."""
    if not np.size(x):
        return x
    made = sign * x * (1 - 0.1 * irregular(np.shape(x))) + 0.01 * (size(np.asarray(x)) or 1.0)
    return np.asarray(made, x.dtype) if hasattr(x, "dtype") else float(made)


def irregular(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1), no two of them alike."""
    return np.reshape(np.arange(int(np.prod(shape))) * 0.6180339887498949 % 1, shape)


class Unknown(Exception):
    """Something whose content cannot be told."""


def inside(problem: Problem) -> bool:
    """Whether generated code makes the noise itself: that of Brownian, and of no other path."""
    from ..paths import Brownian
    return type(getattr(problem.driver, "path", None)) is Brownian


def layout_of(system: Any) -> Any:
    """How the field's tree is laid out."""
    layout = getattr(system.unpack, "__self__", None)
    return None if layout is None else (repr(layout.structure), tuple(layout.shapes), layout.split)


def fingerprint(x: Any, seen: tuple) -> Any:
    """A hashable stand-in for a function or another object: equal where the program made from it would be equal."""
    if id(x) in seen:
        return "again", seen.index(id(x))
    seen = (*seen, id(x))
    if x is None or isinstance(x, (bool, int, float, str, bytes, np.generic, np.dtype, type)):
        return frozen(x)
    if isinstance(x, np.ndarray):
        return frozen(x)
    if isinstance(x, types.BuiltinFunctionType) and not isinstance(x.__self__, (types.ModuleType, type, types.NoneType)):
        return "method", x.__name__, fingerprint(x.__self__, seen)                           # W.dot, whose W may change
    if isinstance(x, (types.ModuleType, types.BuiltinFunctionType, np.ufunc)):
        return "name", id(x)
    if isinstance(x, (tuple, list)):
        return type(x).__name__, *(fingerprint(v, seen) for v in x)
    if isinstance(x, dict):
        return "dict", *((k, fingerprint(v, seen)) for k, v in x.items())
    if isinstance(x, types.MethodType):
        return "method", fingerprint(x.__func__, seen), fingerprint(x.__self__, seen)
    if isinstance(x, types.FunctionType):
        if x.__module__ and x.__module__.split(".")[0] in ("numpy", "revode") and x.__closure__ is None:
            return "function", x.__module__, x.__qualname__, id(x.__code__)
        code = x.__code__
        cells = tuple(fingerprint(cell.cell_contents, seen) for cell in x.__closure__ or ())
        names = sorted(names_in(code))
        used = tuple((name, looked_up(x.__globals__[name], names, seen)) for name in names if name in x.__globals__)
        return ("function", described(code), cells, fingerprint(x.__defaults__, seen), fingerprint(x.__kwdefaults__, seen),
                fingerprint(x.__dict__, seen), used)
    if hasattr(x, "__dataclass_fields__"):
        fields = tuple(fingerprint(getattr(x, name), seen) for name in x.__dataclass_fields__)
        methods = () if type(x).__module__.startswith("revode.") else tuple(
            fingerprint(f, seen) for name, f in vars(type(x)).items() if isinstance(f, types.FunctionType) and name[:2] != "__")
        return type(x).__module__, type(x).__qualname__, fields, methods
    if hasattr(x, "func") and hasattr(x, "keywords"):                                    # functools.partial
        return "partial", fingerprint(x.func, seen), fingerprint(x.args, seen), fingerprint(x.keywords, seen)
    from fractions import Fraction
    if isinstance(x, Fraction):
        return "fraction", x.numerator, x.denominator
    raise Unknown(type(x).__name__)


def looked_up(x: Any, names: list[str], seen: tuple) -> Any:
    """The fingerprint of a global; of a module or a class (settings, say) all of its attributes that the code may name."""
    module = x.__name__ if isinstance(x, types.ModuleType) else x.__module__ if isinstance(x, type) else "numpy"
    if module.split(".")[0] in ("numpy", "math", "revode", "builtins") or id(x) in seen:
        return fingerprint(x, seen)
    seen = (*seen, id(x))
    return "holder", module, x.__name__, *((name, looked_up(getattr(x, name), names, seen)) for name in names if hasattr(x, name))


def described(code: types.CodeType) -> tuple:
    """Everything that tells the code of one function from that of another, the functions inside it as well."""
    inside = tuple(described(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, code.co_freevars, code.co_cellvars, inside


def names_in(code: types.CodeType) -> set[str]:
    """The names that a function and the functions inside it may look up."""
    found = set(code.co_names)
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            found |= names_in(c)
    return found

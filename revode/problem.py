"""From what the user wrote to a Problem that can be marched: every check that can be made before the first step.

Each message says what was given, what is expected, and what to do.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import driving
from .adaptive import PID, Adaptive
from .compiled import Backend
from .engine import tree
from .engine.tensor import Tensor, innermost, is_float, value_of
from .gradients import Direct, Reversible
from .methods import Coupled
from .methods.custom import UserMethod
from .methods.increment import System
from .stepping import Problem, State, Stats


def prepare(field: Callable, y0: Any, ts: Any, params: Any, method: Any, save: Any, state0: State | None,
            progress: bool, controller: PID | None = None, dt0: float | None = None,
            save_at: Any = None, diffusion: Callable | None = None, noise: Any = None, interpretation: str = "stratonovich",
            control: Any = None, backend: str = "eager", threads: int | None = None,
            arithmetic: str = "fast") -> tuple[Problem, Any, Any, Layout]:
    """Check everything that can be checked before the first step, and lay it out for the march."""
    chosen = check_backend(backend, threads, arithmetic)
    method = Coupled() if method is None else method
    if isinstance(method, (str, type)) or not hasattr(method, "start"):
        raise TypeError(f"solve: method={method!r}; pass a method such as Coupled('midpoint'), RungeKutta('rk4') or "
                        "ReversibleHeun()")
    if field is None and isinstance(method, UserMethod):
        field = no_field
    if not callable(field):
        raise TypeError(f"solve: the first argument is a {type(field).__name__}; it is the vector field, a function "
                        "field(t, y, params)")
    split = len(method.outputs) > 1
    layout: Layout | None = None
    if state0 is not None:
        if not isinstance(state0, State):
            raise TypeError(f"solve: state0 is a {type(state0).__name__}; pass the state of an earlier solve, as in state0=sol.state")
        if set(state0.parts) != set(method.parts):
            raise ValueError(f"solve: state0 has the parts {list(state0.parts)}, but {method!r} has {list(method.parts)}; "
                             "continue with the method that made the state")
        if y0 is None:
            layout = state0.layout
            y0 = layout.unpack(tuple(state0.parts[name] for name in method.outputs))
    if split and not (isinstance(y0, (tuple, list)) and len(y0) == 2):
        raise TypeError(f"solve: {method!r} takes y0 = (q, v) and a field that returns the acceleration; got y0 "
                        f"{tree.describe(y0)}")
    layout = layout or Layout(y0, split)
    shapes = [[np.shape(value_of(x)) for x in tree.flatten(part)[0]] for part in y0] if split else []
    if split and shapes[0] != shapes[1]:
        raise ValueError(f"solve: y0 = (q, v) has q of shape {shapes[0]} and v of shape {shapes[1]}; position and velocity have "
                         "the same shape")
    check_state(y0)
    y0 = tree.map(lambda x: x if type(x) is Tensor or not hasattr(x, "view") else x.view(), y0)   # not frozen for the user
    initial: Any = tuple(layout.pack(x) for x in y0) if split else layout.pack(y0)
    if state0 is not None:
        initial = dict(state0.parts)
    first = value_of(tree.flatten(initial)[0][0])
    dtype = first.dtype
    ts = check_times(ts)
    if state0 is not None and ts[0] != state0.t:
        raise ValueError(f"solve: state0 is a state at t={state0.t:.6g}, but ts begins at {ts[0]:.6g}; begin the grid there, or "
                         "move the state with state0._replace(t=...) where the field does not depend on time")
    params = check_params(params, first)
    stats = Stats()
    system = System(field, stats, None if layout.alone else layout.pack, None if layout.alone else layout.open,
                    None if dtype == np.float64 else dtype.type)
    plain = isinstance(first, (np.ndarray, np.generic))
    n_before, before = (state0.n, state0.h) if state0 is not None and state0.n else (0, None)
    if controller is None:
        if dt0 is not None or save_at is not None:
            raise ValueError("solve: dt0 and save_at belong to adaptive solves; pass controller=PID(rtol, atol) as well, or use "
                             "save= with a fixed grid")
        hs: Any = np.diff(ts).astype(dtype)
        if not hs.all():
            n = int(np.argmin(hs != 0))
            raise ValueError(f"solve: the step from ts[{n}] to ts[{n + 1}], {ts[n + 1] - ts[n]:.3g}, is zero in {dtype}; take larger "
                             "steps, or float64")
        problem = Problem(method, system, ts, hs, check_save(save, len(hs)), None, progress=progress, stats=stats, plain=plain)
    else:
        adaptive = check_adaptive(method, ts, controller, dt0, save, save_at)
        problem = Problem(method, system, [ts[0]], [], (), None, progress=progress, stats=stats, plain=plain,
                          adaptive=adaptive)
        if before is None:
            before = dt0 or 0.0
    h_before = hs[0] if before is None else before
    problem.h_before = np.asarray(h_before, dtype) if plain else float(h_before)
    problem.resumed, problem.n_before = state0 is not None, n_before
    y = initial[method.outputs[0]] if state0 is not None else initial[0] if split else initial
    y = read_only(value_of(y))
    if control is not None:
        problem.system, problem.driver, knots = driving.controlled(system, control, method, y, ts, controller is None)
        system = problem.system
        if problem.adaptive is not None:
            problem.adaptive.stop_at(knots)
    problem.backend = chosen if plain or getattr(chosen, "device", None) is not None else None
    if field is not no_field:
        check_field(problem, system, y, tree.map(value_of, params), control is not None)
        asked = innermost(tree.flatten((initial, params))[0]) is not None
        if asked and (problem.backend is None or problem.backend.auto):      # another backend compares a step with the tape
            look_elsewhere(problem, params, y)
    if interpretation not in ("stratonovich", "ito"):
        raise ValueError(f"solve: interpretation={interpretation!r}; it is 'stratonovich' or 'ito'")
    if diffusion is not None or noise is not None:
        if control is not None or diffusion is None:
            raise ValueError("solve: noise= goes with diffusion=, and neither with control=")
        looks = (ts[0], ts[-1] if controller is not None else ts[len(ts) // 2])
        problem.system, problem.driver = driving.noisy(system, diffusion, noise, interpretation, method, y, looks, params)
        if controller is not None and problem.driver.by_step:
            raise TypeError("solve: adaptive steps ask for noise at times that are not known beforehand; pass "
                            "noise=BrownianTree(seed, t0, t1)")
    return problem, initial, params, layout


def check_backend(backend: str, threads: int | None, arithmetic: str) -> Backend | None:
    if isinstance(backend, Backend):                 # that of another device (revode_cuda)
        return backend
    if backend not in ("auto", "eager", "replay", "native"):
        raise ValueError(f"solve: backend={backend!r}; it is 'auto', 'eager', 'replay' or 'native'")
    if arithmetic not in ("fast", "strict"):
        raise ValueError(f"solve: arithmetic={arithmetic!r}; it is 'fast' or 'strict'")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"solve: threads={threads!r}; a whole number, 1 or more, or None for one per core")
    if backend == "eager":
        return None
    # What is chosen by itself gives the bits of the tape, so that nothing depends on when it was chosen.
    auto = backend == "auto"
    return Backend("replay" if auto else backend, auto, not auto, arithmetic == "strict", threads)


class Layout:
    """How a y (an array, or a tree; for split methods a pair of those) becomes one array for each output, and back."""

    def __init__(self, y: Any, split: bool) -> None:
        self.split = split
        leaves, self.structure = tree.flatten(y[0] if split else y)
        self.alone = self.structure is tree.LEAF
        self.shapes = [np.shape(value_of(x)) for x in leaves]

    def pack(self, y: Any) -> Any:
        """One array from the tree of one output."""
        if self.alone:
            return y
        leaves, structure = tree.flatten(y)
        if structure != self.structure or [np.shape(x) for x in leaves] != self.shapes:
            raise ValueError(f"solve: got {tree.describe(y)} where a tree like y0 is expected, with shapes {self.shapes}")
        return tree.ravel(leaves)[0]

    def open(self, x: Any, lead: int = 0) -> Any:
        """The tree of one output from its array, which may have `lead` leading axes (time)."""
        if self.alone:
            return x
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes]).tolist()
        return tree.unflatten(self.structure, [
            np.reshape(x[..., end - int(np.prod(shape)):end], (*x.shape[:lead], *shape))
            for end, shape in zip(ends, self.shapes, strict=True)])

    def unpack(self, outputs: tuple, lead: int = 0) -> Any:
        """What the user sees of the outputs of a method: y, or (q, v)."""
        if not outputs:
            return ()
        opened = tuple(self.open(x, lead) for x in outputs)
        return opened if self.split else opened[0]


def checked_gradient(gradient: Any, method: Any) -> Any:
    """The gradient mode, or the default for this method; TypeError where the two do not go together."""
    reversible = getattr(method, "reversible", hasattr(method, "word"))
    if gradient is None:
        return Reversible() if reversible else Direct()
    if isinstance(gradient, type) or not hasattr(gradient, "solve"):
        raise TypeError(f"solve: gradient={gradient!r}; pass one of Direct(), Checkpointed(n), Reversible(), Backsolve(), "
                        "with the parentheses")
    if isinstance(gradient, Reversible) and not reversible:
        raise TypeError(f"solve: {method!r} cannot be run backwards, so it has no Reversible() gradient; use "
                        "Coupled(base), which is reversible, NearReversible(base), which nearly is, or Checkpointed(n)")
    return gradient


def no_field(t: Any, y: Any, params: Any) -> Any:
    """Stands for field=None: a method made of shears may use F.params alone."""
    raise TypeError("solve: a shear called F, but field=None was given; pass the vector field")


def check_state(y0: Any) -> None:
    leaves, names = tree.flatten(y0)[0], tree.paths(y0)
    if not leaves:
        raise ValueError("solve: y0 is empty; it is an array of floats, or a tree of such arrays")
    for x, name in zip(leaves, names, strict=True):
        x = value_of(x)
        dtype = getattr(x, "dtype", None)
        if dtype not in (np.float32, np.float64) or not hasattr(x, "shape"):
            kind = f"an array of {dtype}" if dtype is not None else f"a {type(x).__name__}"
            raise TypeError(f"solve: y0{name} is {kind}; the state is an array of float64 or float32, so convert it, as in "
                            "np.asarray(y0, dtype=float)")
        if x.size == 0:
            raise ValueError(f"solve: y0{name} has shape {x.shape}, so there is nothing to solve")
        if not bool(np.isfinite(x).all()):
            raise ValueError(f"solve: y0{name} has entries that are not finite (NaN or Inf)")
    if len({value_of(x).dtype for x in leaves}) > 1:
        raise TypeError(f"solve: the arrays of y0 have different dtypes, {tree.describe(y0)}; use one")
    homes = [type(value_of(x)).__module__.split(".")[0] for x in leaves]
    for home, name in zip(homes, names, strict=True):
        if home != homes[0]:
            raise TypeError(f"solve: y0{name} is a {home} array but y0{names[0]} is a {homes[0]} array; move all of them to one "
                            "device (revode_cuda.to_device, to_host)")


def check_times(ts: Any) -> np.ndarray:
    if any(type(t) is Tensor for t in (ts if isinstance(ts, (list, tuple)) else [ts])):
        raise TypeError("solve: ts is a tensor, but times get no gradient here; pass plain numbers, or scale time inside the "
                        "field with a parameter")
    ts = np.asarray(ts, dtype=np.float64)
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"solve: ts has shape {ts.shape}; the grid is a vector of at least two times, such as "
                         "np.linspace(0, 1, 101)")
    if not np.isfinite(ts).all():
        raise ValueError("solve: ts has entries that are not finite (NaN or Inf)")
    h = np.diff(ts)
    if not (h > 0).all() and not (h < 0).all():
        n = int(np.argmax((h > 0) != (h[0] > 0))) if h[0] else 0
        raise ValueError(f"solve: ts goes from {ts[n]:.6g} to {ts[n + 1]:.6g} at index {n}; a grid is strictly increasing, or "
                         "strictly decreasing to run backwards in time")
    return ts


def check_params(params: Any, y: Any) -> Any:
    """Params with Python floats in y's dtype; refuses what is not finite, or lives on another device than y."""
    leaves, structure = tree.flatten(params)
    checked = []
    for x, name in zip(leaves, tree.paths(params), strict=True):
        plain = value_of(x)
        if type(plain) is float:
            # A Python float, or a tensor of one, in y's dtype (np.ones_like of CuPy cannot make an array without axes).
            x = x * (y.dtype.type(1) if isinstance(y, (np.ndarray, np.generic)) else np.ones_like(y, shape=(1,))[0])
            plain = value_of(x)
        elif isinstance(plain, np.floating) and not isinstance(y, (np.ndarray, np.generic)):
            x = x * np.ones_like(y, shape=(1,))[0]        # NumPy's scalars have to be where their gradient will be
            plain = value_of(x)
        home, here = type(plain).__module__.split(".")[0], type(y).__module__.split(".")[0]
        if hasattr(plain, "dtype") and not isinstance(plain, np.generic) and home != here:
            raise TypeError(f"solve: params{name} is a {home} array but y0 is a {here} array; move all of them to one "
                            "device (revode_cuda.to_device, to_host)")
        if is_float(plain) and not bool(np.all(np.isfinite(plain))):
            raise ValueError(f"solve: params{name} has entries that are not finite (NaN or Inf)")
        checked.append(x)
    return tree.unflatten(structure, checked)


def check_save(save: Any, N: int) -> tuple[int, ...]:
    if isinstance(save, int):
        raise TypeError(f"solve: save={save}; give a list of indices into ts, as in save=[{save}], a slice, or None for all")
    index: Any = slice(None) if save is None else save
    if not isinstance(index, slice):
        index = np.asarray(save).ravel()
        if (index.dtype == bool and len(index) != N + 1) or (index.dtype.kind not in "bi" and index.size):
            raise TypeError(f"solve: save={save!r}; give indices into ts (whole numbers), a slice, or a mask as long as ts, {N + 1}; "
                            "times to return go into the grid itself")
        index = index if index.size else index.astype(int)
    try:
        found = np.arange(N + 1)[index]
    except IndexError:
        raise IndexError(f"solve: save={save!r} names a grid point outside 0 .. {N} (ts has {N + 1} points)") from None
    if (np.diff(found) <= 0).any():
        raise ValueError(f"solve: save={save!r} is not increasing; list the grid points in the order of ts, each once")
    return tuple(found.tolist())


def check_adaptive(method: Any, ts: np.ndarray, controller: PID, dt0: Any, save: Any, save_at: Any) -> Adaptive:
    if not isinstance(controller, PID):
        raise TypeError(f"solve: controller={controller!r}; pass PID(rtol, atol)")
    if getattr(method, "error_order", None) is None:
        raise TypeError(f"solve: {method!r} has no error estimate to control steps with; use Coupled or RungeKutta over "
                        "midpoint, heun2, bosh3, dopri5 or tsit5, ReversibleHeun(), or EES25(x=0.1), or give a fixed grid")
    if len(ts) != 2:
        raise ValueError(f"solve: with a controller, ts holds the two ends (t0, t1), but {len(ts)} times were given; times to "
                         "return go to save_at")
    if dt0 is not None and not 0 < dt0 < np.inf:
        raise ValueError(f"solve: dt0={dt0!r}; the first step is a positive number, also when time runs backwards")
    last_only = save is not None and np.ndim(save) == 1 and list(save) == [-1]
    if (save is not None and not last_only) or (save is not None and save_at is not None):
        raise ValueError(f"solve: save={save!r} with a controller; the number of steps is not known beforehand, so pass times "
                         "as save_at=[...], or save=[-1] for the end alone")
    direction = 1.0 if ts[1] > ts[0] else -1.0
    if save_at is not None:
        save_at = np.asarray(save_at, dtype=np.float64).ravel()
        inside = (save_at - ts[0]) * direction >= 0, (ts[1] - save_at) * direction >= 0
        if not (np.all(inside) and (np.diff(save_at) * direction > 0).all()):
            raise ValueError(f"solve: save_at goes from {save_at.min():.6g} to {save_at.max():.6g}; the times are distinct, in "
                             f"the order of integration, and between t0={ts[0]:.6g} and t1={ts[1]:.6g}")
    return Adaptive(controller, float(ts[1]), direction, dt0, None if save_at is None else tuple(save_at.tolist()), last_only)


def check_field(problem: Problem, system: Any, y: Any, params: Any, controlled: bool) -> None:
    """Evaluate the field twice at the start: right shape and dtype, finite, and the same both times."""
    from .compiled.plans import look_again

    stats = problem.stats
    params = tree.map(read_only, params)
    t = problem.ts[0]
    evaluate = System.coefficients if not controlled else driving.ControlledSystem.coefficients
    f = evaluate(system, t, y, params)[0]
    again = look_again(problem, system, t, y, params, f)
    stats.checks, stats.nfe = stats.checks + 2, stats.nfe - 2
    at = f"at t={t:.6g}"
    if type(f) is Tensor:
        raise TypeError("solve: the field uses a tensor that it was not given (a variable from outside), so its gradient would "
                        "be lost; pass everything that is to be differentiated through params")
    if f is None or not hasattr(f, "shape"):
        raise TypeError(f"solve: the field returned {type(f).__name__} {at}; it returns an array shaped like y, {y.shape}. "
                        "Is a return missing, or did it return a list (use np.stack)?")
    if controlled:
        if f.shape[:-1] != y.shape or not system.fits(f):
            raise ValueError(f"solve: the field returned shape {f.shape} for y of shape {y.shape} {at}; with a control of "
                             f"{system.channels} channels it returns shape {(*y.shape, system.channels)}")
    elif f.shape != y.shape:
        raise ValueError(f"solve: the field returned shape {f.shape} for y of shape {y.shape} {at}; a vector field returns an "
                         "array shaped like y. Did you forget the batch axis?")
    if f.dtype != y.dtype:
        raise TypeError(f"solve: the field returned {f.dtype} for y of {y.dtype} {at}; give params and constants y's dtype (or "
                        "plain Python numbers, which take it)")
    if not bool(np.isfinite(f).all()):
        raise ValueError(f"solve: the field's first value, {at}, has entries that are not finite (NaN or Inf)")
    if isinstance(f, np.ndarray) and np.may_share_memory(f, again) and f.flags.writeable:
        raise ValueError(f"solve: the field returned the same array twice {at}, so that a later value would overwrite an earlier "
                         "one; return a new array each time")
    if not bool((f == again).all()):
        raise ValueError(f"solve: the field gave two different values for the same input {at}; a vector field is a pure "
                         "function, so draw random numbers outside it and pass them in params")


def look_elsewhere(problem: Problem, params: Any, y: Any) -> None:
    """What the tape is to follow: the field at another time of the grid, of arrays and of tensors."""
    from .compiled.plans import look_elsewhere
    look_elsewhere(problem, params, y)


def read_only(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        x = x.view()
        x.flags.writeable = False
    return x

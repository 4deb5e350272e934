"""solve(): a vector field, a method, a grid, and a gradient mode. One operation of the engine, like any other."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from .adaptive import PID
from .checks import check_plain, check_reached, check_save_at, check_single, check_smooth, checked_gradient, hinted, method_of, prepare
from .engine import tree
from .engine.tensor import Tensor, is_float, joined_in, record_many, value_of, zeros_of
from .engines.eager import step_back, zeros
from .exact import Lattice
from .finite import guarded
from .gradients import Automatic, Backsolve, Checkpointed, Direct, Reversible, SymplecticAdjoint
from .gradients.cotangents import pull_start, spread
from .march import march
from .methods import Coupled, LeapfrogMidpoint
from .methods.increment import Recorder
from .problem import Asked, Packing
from .stepping import Problem, State, Stats, as_table, shape_of, states
from .tangent import tangent
from .times import Dense, as_times, dense, on_grid

if TYPE_CHECKING:
    from .compiled.backend import Backend

Mode = Automatic | Backsolve | Checkpointed | Direct | Reversible | SymplecticAdjoint


class Method(Protocol):
    """What every method has; the rest is in methods/."""
    @property
    def parts(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...


class Solution(NamedTuple):
    """What solve returns; inside a gradient its ys, y1 and state are tensors.

    Parameters
    ----------
    ts : (saved,) the saved times.
    ys : (saved, *y.shape) the solution there, time first; a tree like y0.
    state : the method's whole state at the end; solve(..., state0=sol.state) continues from it.
    dense : with interpolate=True what `at` goes by: the states and slopes of the grid.
    stats : what it cost; complete once the gradient has been computed.
    y1 : (*y.shape) the solution at the end; a tree like y0.

    Its repr is short, and a notebook shows it as a table; print(sol.ys) has the numbers.

    Example
    -------
    >>> solve(lambda t, y, params: -y, np.array([1.0]), [0.0, 0.5, 1.0])
    Solution(3 times from 0 to 1, y1 (1,), NearReversible(base='rk4', correct=0): 2 steps, 8 evaluations, eager)
    """
    ts: np.ndarray      # (saved,) the saved times
    ys: Any             # (saved, *y.shape) the solution there, time first; a tree like y0
    state: State        # the method's whole state at the end; state0= continues from it
    stats: Stats        # what it cost; complete once the gradient has been computed
    y1: Any             # (*y.shape) the solution at the end
    dense: Dense | None = None      # states and slopes, to go between them

    def at(self, t: Any) -> Any:
        """The solution at a time, or at times (k,), between those of a solve with interpolate=True, by cubic Hermite from y and f.

        Returns (*y.shape), or (k, *y.shape), a tree like y0; on tensors it carries gradients, to t as well. Raises ValueError outside
        of the saved times, and without interpolate=True. Cost: no evaluation. Source: Hairer, Norsett & Wanner, II.6.
        """
        if self.dense is None:
            raise ValueError("Solution.at: there are no slopes to go by; pass interpolate=True to solve")
        t = as_times(t)
        return self.state.layout.unpack(self.dense.at(t), np.ndim(value_of(t)))

    def shown(self) -> dict[str, str]:
        """What it says of itself, by name: times, shapes, the method, what it cost."""
        stats = self.stats
        many = f"{len(self.ts)} times" + (f" from {self.ts[0]:.6g} to {self.ts[-1]:.6g}" if len(self.ts) else "")
        again = f", {stats.nfe - stats.nfe_forward} more and {stats.nvjp} pullbacks on the way back" if stats.nvjp else ""
        return {"times": many, "y1": shape_of(self.y1), "method": repr(self.state.method), "cost": f"{stats.steps} steps, "
                f"{stats.nfe_forward} evaluations{again}", "backend": stats.backend}

    def __repr__(self) -> str:
        shown = self.shown()
        return f"Solution({shown['times']}, y1 {shown['y1']}, {shown['method']}: {shown['cost']}, {shown['backend']})"

    def _repr_html_(self) -> str:
        return as_table(self.shown())


@hinted
def solve(field: Callable, y0: Any, ts: Any, params: Any = None, *, method: Method | None = None, gradient: Mode | None = None,
          save: Any = None, state0: State | None = None, progress: bool = False, controller: PID | None = None,
          dt0: float | None = None, save_at: Any = None, diffusion: Callable | None = None, noise: Any = None,
          interpretation: Literal["stratonovich", "ito"] = "stratonovich", control: Any = None,
          backend: Literal["auto", "eager", "replay", "native"] | Backend = "auto", threads: int | None = None,
          arithmetic: Literal["fast", "strict"] = "fast", exact: bool | Lattice | None = None, stops: Any = None,
          interpolate: bool = False) -> Solution:
    """Solve y' = field(t, y, params), y(ts[0]) = y0, with one step of `method` for each interval of the grid ts.

    Parameters
    ----------
    field : field(t, y, params) -> dy/dt, shaped like y; a plain NumPy function of its arguments. For split methods
        (VelocityVerlet, SemiImplicitEuler) the acceleration a(t, q, params), shaped like q.
    y0 : (..., d) float64 or float32 array, batch axes first, or a tree of such arrays; for split methods (q, v).
    ts : (N + 1,) times, strictly increasing or strictly decreasing; with a controller (t0, t1), the ends. A tensor, or numbers and
        tensors in a list, where the gradient with respect to times is wanted: of an ODE on a fixed grid.
    params : tree of arrays that the field uses. Float leaves are differentiated; a Python float takes y's dtype;
        integers, bools, None and strings pass through.
    method : by default NearReversible("rk4"), RK4 run backwards; with a controller NearReversible("tsit5"); with noise
        EES(stages=4); from state0 the method that made it.
    gradient : Automatic(tol), Reversible(), Direct(), Checkpointed(n) or Backsolve(). Default: Automatic() for a method that can
        be run backwards (the reverse sweep, and Checkpointed where it cannot be trusted), else Direct().
    save : which grid points to return: None for all, a slice, or increasing indices. In long runs, save=[-1].
    state0 : `Solution.state` of an earlier solve to continue from, by the method that made it; y0 is then None.
    progress : show a progress bar (needs tqdm).
    controller : PID(rtol, atol) for adaptive steps. Solution.ts is then the accepted grid (or save_at). The whole batch
        shares its steps, and no gradient flows through their sizes. With general noise that does not commute, steps chosen
        along the path can converge to another limit (Gaines & Lyons 1997); diagonal and additive noise is safe.
    dt0 : first step to try (> 0); estimated by default.
    diffusion : g(t, y, params) of an SDE dy = f dt + g o dW, with `noise`: shaped like y for diagonal noise, or of shape
        y.shape + (m,) for general noise; nothing is broadcast.
    noise : Brownian(seed), or BrownianTree(seed, t0, t1), which adaptive steps need. No increment is stored. Batch axes are
        trajectories; for a tree y0 all entries are channels of one trajectory. A path of your own offers along(hs, shape,
        dtype, first), a function from a step's number to its increment, or walk(shape, dtype).increments(s, t).
    interpretation : "stratonovich", or "ito" (diagonal noise: the drift is corrected by one vjp; or RungeKutta("euler")).
    control : LinearPath, Rectilinear or HermiteCubic: dy = f(t, y, params) dX, f of shape y.shape + (channels,).
    save_at : times to return in an adaptive solve; they become grid points. Default: every accepted step.
    stops : times at which the field jumps, in the unit of ts: the grid gets a point on either side of each, from which nothing is
        returned (save for adaptive steps that are all returned), so that a step sees the field of its own side. Those outside of the
        solve are of no matter. A tensor gets dL/dstops = a . (f before - f behind). Cost: up to three more steps for each.
    interpolate : whether Solution.at(t) is wanted, which goes between the saved points by cubic Hermite: one more evaluation of the
        field for each of them. In an adaptive solve all accepted steps are kept then, and save_at costs no steps: what is
        returned there lies between those, and is as good as h^4.
    backend : who runs the steps, forward and of every gradient mode: "eager", the tape; "replay", a program of NumPy calls;
        "native", that program compiled by this machine's C++ compiler; "auto", the tape; replay from 200 steps of one kind
        on, with the same bits (so Direct() stays on the tape); and native from a solve on that follows from the solves before it,
        never from a clock, where there is a compiler and compiling has paid. Where a program does not apply (a field that
        branches on values, derivatives of derivatives) the tape runs; stats.backend says who did, and a log line why.
        docs/backends.md helps to choose.
    threads : of "native", over the batch; default one for each core. It changes no bit.
    exact : True, or a Lattice(bits): reversal without a wrong bit, for methods that are words of shears (exact.py). The state lives
        on multiples of 2^-bits, and what a contraction destroys is kept as bits, log2(1/scale) a step and element; the gradient
        is that from stored states, bit for bit. Reversible() only; arithmetic is strict. stats.exact says that all bits came back.
    arithmetic : of "native": "fast" (products and sums may be contracted), or "strict" (each operation rounded by itself, in a
        fixed order): the same bits on every machine, and from "replay", which then plays the compiled code.

    Returns
    -------
    Solution with ts, ys, y1, state, stats. On tensors (inside value_and_grad, grad, vjp) ys, y1 and state carry gradients
    to y0 (or state0), params and ts. The gradient is that of the discrete solve on this grid.

    Raises
    ------
    TypeError, ValueError for bad input, before any step; FloatingPointError where the state stops being finite;
    ReconstructionError (or ReconstructionWarning) where the reverse sweep does not find its way back; NoCompiler, CompileError
    or NotTraceable where "native" was asked for and cannot be had.

    Cost: evaluations of the field as the method states; states held as the gradient mode states. A program is made once for
    each kind of solve: some 10 ms for "replay", .5 s and more for "native", and 20 ms from its cache folder after that.

    Example
    -------
    >>> decay = lambda t, y, params: -params["rate"] * y
    >>> sol = solve(decay, np.array([1.0]), np.linspace(0.0, 1.0, 101), {"rate": 1.0})
    >>> print(f"{sol.y1[0]:.6f}")
    0.367879
    """
    given, ts, stops = ts, as_times(ts), as_times(stops)
    if controller is None and type(ts) is Tensor:
        check_single(given)
    if isinstance(method, Coupled) and isinstance(method.lam, str):
        driven = any(x is not None for x in (controller, diffusion, control, state0))
        method = with_lam(method, field, y0, value_of(ts), params, driven)
    problem, initial, params, layout = prepare(Asked(
        field, y0, ts, params, method, save, state0, progress, controller, dt0, save_at, diffusion, noise, interpretation, control,
        backend, threads, arithmetic, exact, stops, interpolate))
    if interpolate:
        check_smooth(problem)
    gradient = checked_gradient(gradient, problem.method)
    problem.strict = getattr(gradient, "strict", False)
    times = (on_grid(ts, stops, problem.ts, np.asarray(problem.system.time(0.0)).dtype),) if problem.timed else ()
    leaves, structure = tree.flatten((initial, params, times))
    if Tensor not in map(type, leaves):
        ys, parts = march(problem, initial, params)
        problem.stats.peak_states = 1
    else:
        ys, parts = recorded(problem, gradient, leaves, structure)
    save = problem.save
    y1 = problem.output(parts) if save[-1:] != (problem.N,) or type(ys[0]) is Tensor else tuple(y[-1] for y in ys)
    saved = times[0][list(save)] if times else problem.saved.copy()
    between = dense(problem, params, saved, ys) if interpolate else None
    if between is not None:
        saved, ys = returned(between, problem, value_of(ts), save_at)
    state = state_after(problem, layout, parts)
    if times and problem.N and isinstance(problem.method, LeapfrogMidpoint):        # its next step needs the length of the last
        state = state._replace(h=times[0][-1] - times[0][-2])                       # one: a tensor, which check_resumed sees
    return Solution(saved, layout.unpack(ys, 1), state, problem.stats, layout.unpack(y1), between)


def returned(between: Dense, problem: Problem, ts: Any, save_at: Any) -> tuple[Any, tuple]:
    """The times and states, of those that `at` goes by, that were asked for; the sides of stops are kept for it alone."""
    if save_at is not None:
        return (saved := np.asarray(check_save_at(save_at, ts, 1.0 if ts[1] > ts[0] else -1.0))), between.at(saved)
    mine = slice(None) if problem.adaptive is not None else np.flatnonzero(np.isin(value_of(between.ts), ts))
    return between.ts[mine], tuple(y[mine] for y in between.ys)


def recorded(problem: Problem, gradient: Mode, leaves: list, structure: Any) -> tuple[tuple, dict]:
    """A solve from the leaves of (initial, params, times) as one operation of the engine: (ys, parts), in tensors."""
    made: list = []

    def run(values: list) -> tuple[list, Callable]:
        initial, params, times = tree.unflatten(structure, values)
        again = Tensor in map(type, values)
        problem.grid = times[0] if times else None
        if again and not isinstance(gradient, (Automatic, Direct)):
            raise TypeError(f"solve: a derivative of a derivative was asked through {gradient!r}, which gives first "
                            "derivatives only; use gradient=Direct(), which gives every order (or, in check_vjp, order=1)")
        initial = initial.view() if type(initial) is np.ndarray else tree.map(                             # yours stays writeable
            lambda x: x.view() if issubclass(type(x), np.ndarray) else x, initial)
        mode = gradient.higher(problem) if again and isinstance(gradient, Automatic) else gradient
        (ys, parts), pull = mode.solve(problem, initial, params)
        if problem.stats.backend == "eager" or problem.backend.auto:         # another one compares a step with the tape
            from .compiled.plans import look_elsewhere
            look_elsewhere(problem, params, ys, parts)
        (ys, parts), pull = guarded(problem, initial, params, ((ys, parts), pull))
        made[:] = (initial, params, *times), ys, parts
        outputs = [*ys, *parts.values()]

        def pulled(incoming: list) -> list:
            full = [zeros_of(y) if g is None and is_float(y) else g for g, y in zip(incoming, outputs, strict=True)]
            a_ys, a_parts = tuple(full[:len(ys)]), dict(zip(parts, full[len(ys):], strict=True))
            if problem.save[-1:] == (problem.N,):                  # y1 is the last of ys
                for name, a, given in zip(problem.method.outputs, a_ys, incoming, strict=False):
                    if given is None and type(a_parts[name]) is np.ndarray:
                        a[-1], a_parts[name] = a_parts[name], zeros_of(a_parts[name])
            a_initial, a_params, *a_times = pull((a_ys, a_parts))
            return tree.align(structure, (a_initial, a_params, tuple(a_times)))

        return outputs, pulled

    def push(vs: list) -> list:
        args, ys, parts = made
        moved_initial, moved_params, moved_times = tree.unflatten(structure, vs)
        return tree.align(tree.flatten((ys, parts))[1], tangent(problem, args, (moved_initial, moved_params, *moved_times)))

    found = record_many(leaves, run, push)
    _, ys, parts = made
    return tuple(found[:len(ys)]), dict(zip(parts, found[len(ys):], strict=True))


@hinted
def steps(field: Callable, y0: Any, ts: Any, params: Any = None, *, method: Method | None = None,
          state0: State | None = None, controller: PID | None = None, dt0: float | None = None,
          exact: bool | Lattice | None = None, stops: Any = None) -> Iterator[tuple[float, State]]:
    """Step by hand: yields (t, state) for every grid point, the first included; stop whenever you like.

    Parameters
    ----------
    field, y0, ts, params, method, state0, controller, dt0, exact, stops : as for `solve`; both sides of a stop are grid points here.

    Yields (t, State): state.parts["y"] is the solution for most methods; solve(..., state0=state) goes on from any of them.
    Raises what `solve` raises for bad input, when the first item is asked for.

    Cost: one step of the method for each item; one state is held.

    Example
    -------
    >>> for t, state in steps(lambda t, y, params: -y, np.array([1.0]), [0.0, 0.1, 0.2]):
    ...     print(f"{t:.1f} {state.parts['y'][0]:.4f}")
    0.0 1.0000
    0.1 0.9048
    0.2 0.8187
    """
    problem, initial, params, layout = prepare(Asked(field, y0, ts, params, method, state0=state0, controller=controller, dt0=dt0,
                                                     exact=exact, stops=stops))
    check_plain(problem)
    for n, parts in states(problem, initial, params):
        yield float(problem.ts[n]), state_after(problem, layout, parts, n)


class Back(NamedTuple):
    """One item of the reverse sweep."""
    t: float
    state: State        # reconstructed
    cotangent: dict     # dL/d(part) for every part of the state at t
    aparams: Any        # what has flowed to the parameters so far; complete in the last item
    ay0: Any = None     # dL/dy0, in the last item


@hinted
def steps_back(field: Callable, state: State, ts: Any, params: Any = None, *, ay1: Any, method: Method | None = None,
               y0: Any = None) -> Iterator[Back]:
    """The reverse sweep by hand, from the final state of a solve: what another implementation can be compared with.

    Parameters
    ----------
    field, ts, params, method : as given to `solve`.
    state : `Solution.state` at ts[-1].
    ay1 : dL/dy at ts[-1], a tree like y.
    y0 : the initial value, if the dL/dy0 of the last item is wanted; it is pulled back through the initial map there.

    Yields Back(t, state, cotangent, aparams, ay0) for every grid point, the last one of the grid first: the reconstructed State,
    dL/d(part) for every part of it, what has flowed to the parameters so far, and in the last item dL/dy0.
    Raises TypeError for a method that cannot be run backwards, ValueError for a state of another time or method.

    Cost: more pullbacks than the sweep inside `solve`, because every cotangent is completed at every step.

    Example
    -------
    >>> decay, ts, y0 = lambda t, y, params: -params * y, [0.0, 0.1, 0.2], np.array([1.0])
    >>> sol = solve(decay, y0, ts, np.array(1.0))
    >>> for back in steps_back(decay, sol.state, ts, np.array(1.0), ay1=np.ones(1), y0=y0):
    ...     print(f"{back.t:.1f} {back.state.parts['y'][0]:.4f} {back.aparams:.4f}")
    0.2 0.8187 0.0000
    0.1 0.9048 -0.0819
    0.0 1.0000 -0.1637
    """
    like_y = y0 if y0 is not None else ay1
    problem, initial, params, layout = prepare(Asked(field, like_y, ts, params, method_of(state, method)))
    check_plain(problem)
    if problem.flushed is not None:
        problem.flushed.stack = list(state.bits)
        problem.flushed.turn()
    outputs = problem.method.outputs
    whole = ay1 if len(outputs) > 1 else (ay1,)
    checked_gradient(Reversible(), problem.method)
    check_reached(state, problem, initial)
    R = Recorder(problem.system, params, zeros(params))
    parts = dict(state.parts)
    cotangent = {name: 0 * part for name, part in parts.items()}
    for name, a in zip(outputs, whole, strict=True):
        cotangent[name] = cotangent[name] + layout.pack(a)
    for n in range(problem.N, -1, -1):
        if n < problem.N:
            parts, cotangent = step_back(problem, n, parts, cotangent, R)
            parts = parts if problem.flushed is None else problem.flushed.after(n, parts)
            R.flush_all(cotangent)
        ay0 = None
        if n == 0 and y0 is not None:
            a_initial, a_params = pull_start(problem, initial, params, cotangent)
            R.collect(a_params)
            ay0 = layout.unpack(a_initial if isinstance(a_initial, tuple) else (a_initial,))
        aparams = spread(params, [1 * a for a in R.aparams])
        yield Back(float(problem.ts[n]), state_after(problem, layout, parts, n), cotangent, aparams, ay0)


def with_lam(method: Any, field: Callable, y0: Any, ts: Any, params: Any, driven: bool) -> Any:
    """The method with its lam: Coupled(lam="auto") asks the advisor."""
    if driven:
        raise ValueError("solve: lam='auto' is found on a fixed grid of an ordinary differential equation from y0; with a controller, "
                         "noise, a control or state0, choose lam yourself (rv.advise on a similar grid helps)")
    from .advise import coupling  # for this alone, so that a first solve is quick
    y0, params = tree.map(value_of, joined_in((y0, params)))
    return replace(method, lam=coupling(field, y0, ts, params, method.base))


def state_after(problem: Problem, layout: Packing, parts: dict, n: int | None = None) -> State:
    """The state at grid point n (default: the last)."""
    n = problem.N if n is None else n
    h = problem.hs[n - 1] if n else problem.h_before
    bits = () if problem.flushed is None else tuple(problem.flushed.stack)
    return State(parts, float(problem.ts[n]), float(h), problem.n_before + n, layout, problem.method, bits)

"""Every step of one case in 50 digits, from the literal loops of reference/oracles.

Noise enters a step as another vector field: f + g dW/h on a step of length h is f h + g dW, and with -h it is the negative,
so that the loops for ordinary equations serve as they are. Cotangents come from the loop of one step, differentiated as it
stands (scalar.py); no formula for a backward step is used anywhere.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mpmath import mp, mpf

from ..oracles import ees, loops
from ..oracles.scalar import lifted, pull, values
from ..oracles.tableaux import TABLEAUX, numbers
from .problems import NOISE, diffusion, drift, given

DIGITS = 50


class Way(NamedTuple):
    """A method: its parts, which of them are the solution, the state at ts[0], and one step from a state to the next."""
    parts: tuple[str, ...]
    outputs: tuple[str, ...]
    start: Callable                   # start(f, p, ts, y0) -> state, a tuple of arrays
    step: Callable                    # step(f, p, ts, n, state) -> state


def exactly(x: float) -> Any:
    """An option that is a float is that float: .99 is 0.98999999999999999112."""
    return mpf(x)


def single(step: Callable) -> Way:
    """A method whose state is y: step(f, p, t, t1, h, y)."""
    return Way(("y",), ("y",), lambda f, p, ts, y0: (y0,), lambda f, p, ts, n, state: (step(f, p, *at(ts, n), state[0]),))


def pair(step: Callable, parts: tuple, start: Callable, outputs: tuple = ("y",)) -> Way:
    """A method with two parts: step(f, p, t, t1, h, (first, second))."""
    return Way(parts, outputs, start, lambda f, p, ts, n, state: step(f, p, *at(ts, n), state))


def at(ts: Any, n: int) -> tuple:
    return ts[n], ts[n + 1], ts[n + 1] - ts[n]


def leapfrog_step(f: Callable, p: dict, ts: Any, n: int, state: tuple) -> tuple:
    """y_{n+1} = y_{n-1} + (h_{n-1} + h_n) f(t_n, y_n), h_{-1} = h_0."""
    before, y = state
    h = ts[n + 1] - ts[n]
    h_before = ts[n] - ts[n - 1] if n else h
    return y, before + (h_before + h) * f(ts[n], y, p)


def revdeq_step(f: Callable, p: dict, beta: Any, state: tuple) -> tuple:
    y, z = state
    y = (1 - beta) * y + beta * f(mpf(1), z, p)
    return y, (1 - beta) * z + beta * f(mpf(1), y, p)


def composed(one_step: Callable, order: int) -> Callable:
    """one_step(f, p, t, t1, h, state) of order 2 by triple jumps; g1 = 1 / (2 - 2^(1/(p+1))) raises order p by two."""
    for p in range(2, order, 2):
        g1 = 1 / (2 - mpf(2) ** (mpf(1) / (p + 1)))
        one_step = (lambda inner, g1: lambda f, params, t, t1, h, state: loops.yoshida4_step(
            lambda *at: inner(f, params, *at), g1, t, t1, h, state))(one_step, g1)
    return one_step


def runge_kutta(base: str) -> Callable:
    tableau = numbers(TABLEAUX[base], mpf)
    last = max(i for i, b in enumerate(tableau.b) if b)              # the last stage of a pair may serve the error alone
    tableau = tableau._replace(A=tableau.A[:last + 1], b=tableau.b[:last + 1], c=tableau.c[:last + 1])
    return lambda f, p, t, t1, h, y: y + loops.Psi(f, t, h, y, p, tableau)


def effectively_symmetric(method: dict) -> Callable:
    """EES by its Butcher tableau for EES25, so that the low storage form is not what is checked by itself."""
    if method["name"] == "EES25":
        tableau = ees.ees25_butcher(exactly(method["x"]))
        return lambda f, p, t, t1, h, y: y + loops.Psi(f, t, h, y, p, tableau)
    if method["name"] == "EES27":
        scheme = ees.LowStorage(*(tuple(x.number(lambda q: mpf(q.numerator) / q.denominator, mp.sqrt) for x in row)
                                  for row in ees.LOW_STORAGE_27))
        return lambda f, p, *at: ees.low_storage_step(f, p, scheme, *at)
    return lambda f, p, *at: ees.leapfrog_step(f, p, method["stages"], *at)


def two(f: Callable, p: dict, ts: Any, y0: Any) -> tuple:
    return y0, y0


def way(method: dict) -> Way:
    """The literal form of a method."""
    name = method["name"]
    split = lambda f, p, ts, y0: (y0[0], y0[1])
    alf = lambda eta: lambda f, p, *at: loops.alf_step(f, p, eta, *at)
    velocity = lambda f, p, ts, y0: (y0, f(ts[0], y0, p))
    ways = {
        "RungeKutta": lambda: single(runge_kutta(method["base"])), "NearReversible": lambda: single(runge_kutta(method["base"])),
        "EES25": lambda: single(effectively_symmetric(method)), "EES27": lambda: single(effectively_symmetric(method)),
        "EES": lambda: single(effectively_symmetric(method)),
        "Coupled": lambda: pair(lambda f, p, *at: loops.coupled_step(
            f, p, numbers(TABLEAUX[method["base"]], mpf), exactly(method["lam"]), *at), ("y", "z"), two),
        "AsynchronousLeapfrog": lambda: pair(alf(exactly(method["eta"])), ("y", "v"), velocity),
        "ReversibleHeun": lambda: pair(loops.reversible_heun_step, ("y", "z"), two),
        "LeapfrogMidpoint": lambda: Way(("y_prev", "y"), ("y",), lambda f, p, ts, y0: (
            y0 - (ts[1] - ts[0]) * f(ts[0], y0, p), y0), leapfrog_step),
        "SemiImplicitEuler": lambda: pair(loops.semi_implicit_euler_step, ("q", "v"), split, ("q", "v")),
        "VelocityVerlet": lambda: pair(loops.velocity_verlet_step, ("q", "v"), split, ("q", "v")),
        "RevDEQ": lambda: Way(("y", "z"), ("z",), two,
                              lambda f, p, ts, n, state: revdeq_step(f, p, exactly(method["beta"]), state)),
        "Picard": lambda: single(lambda f, p, t, t1, h, z: z + exactly(method["damping"]) * (f(mpf(1), z, p) - z)),
    }
    if name == "Composition":
        base = {"AsynchronousLeapfrog": alf(1), "ReversibleHeun": loops.reversible_heun_step,
                "VelocityVerlet": loops.velocity_verlet_step}[method["method"]]
        inner = way({"name": method["method"], "eta": 1.0})
        return pair(composed(base, method["order"]), inner.parts, inner.start, inner.outputs)
    return ways[name]()


class Fields:
    """The vector field of each step, and where it was evaluated: every point once, in order."""

    def __init__(self, kind: str, dWs: Any) -> None:
        self.kind, self.dWs, self.points = kind, dWs, {}                  # an ordered set

    def of_step(self, n: int, h: Any) -> Callable:
        def f(t: Any, y: Any, p: dict) -> Any:
            point = [float(x) for x in (t, *values(y))]
            self.points.setdefault(tuple(point), None)
            total = 0 * y if self.kind == "controlled" else drift(t, y, p)
            if self.kind in NOISE:
                g = diffusion(self.kind)(t, y, p)
                rate = self.dWs[n] / h
                total = total + (g * rate if self.kind == "diagonal" else (g * rate).sum(-1))
            return total

        return f


def run(method: dict, kind: str, grid: str, steps: int, gradient: str) -> dict:
    """One case: what goes in, and every step of what comes out, as arrays of mpf; the file's form is made of it elsewhere."""
    with mp.workdps(DIGITS):
        return solved(way(method), given(kind, grid, steps), method, kind, gradient)


def solved(way: Way, problem: dict, method: dict, kind: str, gradient: str) -> dict:
    ts = [mpf(float(t)) for t in problem["ts"]]
    N = len(ts) - 1
    exact = {name: lifted(w) for name, w in problem["params"].items()}
    y0 = values(problem["y0"])
    fields = Fields(kind, values(problem["dWs"]) if "dWs" in problem else None)
    f = [fields.of_step(n, ts[n + 1] - ts[n]) for n in range(N)]
    states = [numbers_of(way.start(f[0], exact, ts, y0))]
    for n in range(N):
        states.append(numbers_of(way.step(f[n], exact, ts, n, states[-1])))
    points = list(fields.points)
    weights = values(problem["weights"])
    at_states = states
    if gradient == "reconstructed":
        weights[:-1] = 0 * weights[:-1]
        problem = {**problem, "weights": weights.astype(float)}
        at_states = reconstructed(way, f, exact, ts, states, method.get("correct", 0))
    rows, a, a_params = swept(way, f, exact, ts, at_states, weights)
    ay0, from_start = pulled_start(way, f[0], exact, ts, y0, a)
    found = {**problem, "states": [dict(zip(way.parts, state, strict=True)) for state in states], "rows": rows, "evaluations": points,
             "ay0": ay0, "aparams": added(a_params, from_start)}
    if gradient == "reconstructed":
        found["reconstructed"] = [state[0] for state in at_states]
    return found


def numbers_of(state: tuple) -> tuple:
    return tuple(values(x) for x in state)


def reconstructed(way: Way, f: list, p: dict, ts: Any, states: list, correct: int) -> list:
    """y_n ~ Phi_{-h}(y_{n+1}), and `correct` times y_n += y_{n+1} - Phi_h(y_n); y_0 is known."""
    y, path = states[-1], [states[-1]]
    for n in reversed(range(1, len(ts) - 1)):
        back = lambda t0, t1, y, n=n: way.step(f[n], p, [t0, t1], 0, y)
        after, (y,) = y, back(ts[n + 1], ts[n], y)
        for _ in range(correct):
            y = y + (after[0] - back(ts[n], ts[n + 1], (y,))[0])
        y = numbers_of((y,))
        path.insert(0, y)
    return [states[0], *path]


def swept(way: Way, f: list, p: dict, ts: Any, states: list, weights: Any) -> tuple:
    """[(cotangents of the parts, of the parameters) at every grid point], and both at the first."""
    def enter(a: tuple, n: int) -> tuple:
        shares = weights[n] if len(way.outputs) > 1 else [weights[n]]
        of = dict(zip(way.outputs, shares, strict=True))
        return tuple(x + of[part] if part in of else x for part, x in zip(way.parts, a, strict=True))

    N = len(ts) - 1
    a = enter(tuple(0 * x for x in states[N]), N)
    a_params = {name: 0 * values(w) for name, w in p.items()}
    rows = [(a, a_params)]
    for n in reversed(range(N)):
        state, params = [lifted(x) for x in states[n]], {name: lifted(w) for name, w in p.items()}
        after = way.step(f[n], params, ts, n, tuple(state))
        pulled = pull(after, a, [*state, *params.values()])
        a = enter(tuple(pulled[:len(state)]), n)
        a_params = added(a_params, dict(zip(p, pulled[len(state):], strict=True)))
        rows.insert(0, (a, a_params))
    return [(dict(zip(way.parts, a, strict=True)), a_params) for a, a_params in rows], a, a_params


def pulled_start(way: Way, f: Callable, p: dict, ts: Any, y0: Any, a: tuple) -> tuple:
    """dL/dy0 and what the initial map adds to dL/dparams."""
    y0, params = lifted(y0), {name: lifted(w) for name, w in p.items()}
    ay0, *rest = pull(way.start(f, params, ts, y0), a, [y0, *params.values()])
    return ay0, dict(zip(p, rest, strict=True))


def added(p: dict, q: dict) -> dict:
    return {name: p[name] + q[name] for name in p}

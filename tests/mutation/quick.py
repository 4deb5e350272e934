"""A battery that notices a changed sign or factor in about a second: values and gradients against oracles without revode.

`prepare()` computes the oracles (NumPy alone: the complex step through the literal loops of reference/oracles, and through
the engine's table of cases). `battery(oracle)` imports revode, wherever that comes from, and raises AssertionError at the
first difference. mutate.py runs it on changed copies; `python -m tests.mutation.quick` runs it on the package itself.
"""
from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from math import pi, sin, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from reference.oracles import loops as L
from reference.oracles import tableaux as T
from reference.oracles.gradients import complex_step_gradient, minimal_advances
from reference.oracles.gradients import minimal_advances_closed_form as least

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from engine_table import CASES, complex_gradient, complex_hessian_product

from tests.compiler import HERE

EXACT = {name: T.numbers(tableau, float) for name, tableau in T.TABLEAUX.items()}
STAGES = {"euler": 1, "midpoint": 2, "heun2": 2, "ralston3": 3, "bosh3": 3, "rk4": 4, "dopri5": 6, "tsit5": 6}
N = 8
TS = 0.3 + np.array([0, 1, 3, 4, 6, 9, 10, 12, 15]) / 20          # uneven, so that misplaced step sizes show
SAVED = [0, 3, 4, 8]
RNG = np.random.default_rng(3)
PARAMS = {"W": RNG.normal(size=(2, 2)), "b": RNG.normal(size=2), "c": np.array(0.8)}
Y0 = RNG.normal(size=(2, 2))
WEIGHTS = RNG.uniform(0.5, 1.5, (len(SAVED), 2, 2, 2))
PARAMS["b"][1] = WEIGHTS[1, :, 0, 0] = 0.0                        # 0 / x is 0 * x unless x is 0


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"] * t) * p["c"] + 0.3 * y[..., ::-1]


def loss_of(columns: list, last: Any) -> Any:
    """A number from the saved outputs (one column for each output) and the last value."""
    return sum(np.sum(w * y * (1 + 0.1 * y)) for column, ws in zip(columns, np.moveaxis(WEIGHTS, 1, 0), strict=False)
               for w, y in zip(ws, column, strict=True)) + np.sum(last ** 3) * 0.1


def low_storage(A: Any, B: Any) -> Callable:
    """d <- A_i d + h f(y), y <- y + B_i d; stage times are those the scheme gives to f = 1."""
    def step(t: Any, t1: Any, h: Any, state: Any, f: Callable, p: Any) -> Any:
        y, d, c, e = state, 0.0, 0.0, 0.0
        for a, b in zip(A, B, strict=True):
            d, e = a * d + h * f(t + c * h, y, p), a * e + 1
            y, c = y + b * d, c + b * e
        return y
    return step


def smoothed_leapfrog(s: int) -> Callable:
    """EES(2, 2s-1) in the form of METHODS section 4; times as the same scheme gives them to f = 1."""
    theta = pi / (2 * s)

    def step(t: Any, t1: Any, h: Any, state: Any, f: Callable, p: Any) -> Any:
        z, c = [state], [0.0]
        for i in range(s):
            w = 2 * sin(theta) ** 2 if i == 0 else 2 * sin(theta) * sin((2 * i + 1) * theta)
            z.append(z[max(i - 1, 0)] + w * h * f(t + c[i] * h, z[i], p))
            c.append(c[max(i - 1, 0)] + w)
        return (z[s - 1] + z[s]) / 2
    return step


def ees25(x: float) -> Any:
    """The tableau of EES(2,5;x), METHODS section 4."""
    a21, a31, a32 = (1 + 2 * x) / (4 * (1 - x)), (4 * x - 1) ** 2 / (4 * (x - 1) * (1 - 4 * x * x)), (1 - x) / (1 - 4 * x * x)
    return T.Tableau("ees25", ((0, 0, 0), (a21, 0, 0), (a31, a32, 0)), (x, 0.5, 0.5 - x), (0, a21, a31 + a32), 2, None, None)


def methods() -> dict:
    """name -> (how to make it from rv, literal(f, y0, ts, p) -> outputs, split, evaluations a step, and once)."""
    table: dict[str, tuple] = {}
    for name, tab in EXACT.items():
        s = STAGES[name]
        table[f"rk-{name}"] = (lambda rv, name=name: rv.RungeKutta(name),
                               lambda f, y, ts, p, tab=tab: L.runge_kutta(f, y, ts, p, tab), False, s, 0)
        table[f"coupled-{name}"] = (lambda rv, name=name: rv.Coupled(name, lam=0.9),
                                    lambda f, y, ts, p, tab=tab: L.coupled(f, y, ts, p, tab, 0.9), False, 2 * s, 0)
    table |= {
        "coupled-1": (lambda rv: rv.Coupled("heun2", lam=1), lambda f, y, ts, p: L.coupled(f, y, ts, p, EXACT["heun2"], 1),
                      False, 4, 0),
        "alf": (lambda rv: rv.AsynchronousLeapfrog(), L.alf, False, 1, 1),
        "alf-damped": (lambda rv: rv.AsynchronousLeapfrog(eta=0.8), lambda f, y, ts, p: L.alf(f, y, ts, p, 0.8), False, 1, 1),
        "heun": (lambda rv: rv.ReversibleHeun(), L.reversible_heun, False, 1, 1),
        "leapfrog-midpoint": (lambda rv: rv.LeapfrogMidpoint(), L.leapfrog_midpoint, False, 1, 1),
        "euler-split": (lambda rv: rv.SemiImplicitEuler(), lambda a, qv, ts, p: L.semi_implicit_euler(a, *qv, ts, p), True, 1, 0),
        "verlet": (lambda rv: rv.VelocityVerlet(), lambda a, qv, ts, p: L.velocity_verlet(a, *qv, ts, p), True, 1, 1),
        "heun-4": (lambda rv: rv.Composition(rv.ReversibleHeun()),
                   lambda f, y, ts, p: [s[0] for s in L.yoshida4_reversible_heun_states(f, y, ts, p)], False, 3, 1),
        "verlet-4": (lambda rv: rv.Composition(rv.VelocityVerlet()), lambda a, qv, ts, p: L.yoshida4_verlet(a, *qv, ts, p),
                     True, 3, 1),
        "alf-4": (lambda rv: rv.Composition(rv.AsynchronousLeapfrog()),
                  lambda f, y, ts, p: [s[0] for s in L.yoshida4_alf_states(f, y, ts, p)], False, 3, 1),
        "verlet-6": (lambda rv: rv.Composition(rv.VelocityVerlet(), 6), verlet_6, True, 9, 1),
    }
    return table


def verlet_6(a: Callable, qv: Any, ts: Any, p: Any) -> list:
    g = 1 / (2 - 2 ** (1 / 5))
    fourth = lambda *at: L.yoshida4_step(lambda *at: L.velocity_verlet_step(a, p, *at), L.G1, *at)
    return L.forward(lambda *at: L.yoshida4_step(fourth, g, *at), qv, ts)


def near_methods() -> dict:
    """Nearly reversible methods: name -> (how to make it from rv, literal one step, twice the error of its reversible gradient
    on this problem and grid as it was when it was first right)."""
    r = sqrt(2)
    ees27 = low_storage((0, (4 * r - 7) / 3, -(4 + 5 * r) / 12, 3 * (8 * r - 31) / 49),
                        ((2 - r) / 3, (4 + r) / 8, 3 * (3 - r) / 7, (9 - 4 * r) / 14))
    rk = lambda tab: lambda t, t1, h, y, f, p: y + L.Psi(f, t, h, y, p, tab)
    return {
        "EES25": (lambda rv: rv.EES25(), rk(ees25(0.1)), 8e-6), "EES25-x": (lambda rv: rv.EES25(x=0.25), rk(ees25(0.25)), 5e-6),
        "EES25-correct": (lambda rv: rv.EES25(correct=2), rk(ees25(0.1)), 2e-7), "EES27": (lambda rv: rv.EES27(), ees27, 2e-8),
        "EES-5": (lambda rv: rv.EES(stages=5), smoothed_leapfrog(5), 1e-10),
        "near-rk4": (lambda rv: rv.NearReversible("rk4"), rk(EXACT["rk4"]), 1e-5),
    }


def prepare() -> dict:
    """All oracles; nothing of revode is imported."""
    table = []
    for case in CASES:
        weights = np.random.default_rng(7).uniform(0.5, 1.5, np.shape(case.fn(*case.args)))
        directions = [np.random.default_rng(11).standard_normal(a.shape) for a in case.args]
        formula = lambda *args, fn=case.formula, w=weights: np.sum(fn(*args) * (w + 0.5 * fn(*args)))
        table.append((case, weights, directions, complex_gradient(formula, case.args),
                      complex_hessian_product(formula, case.args, directions)))
    solves = {}
    for name, (_, literal, split, *_) in methods().items():
        y0 = (Y0, 0.5 * Y0[::-1]) if split else Y0
        solves[name] = y0, *solve_oracle(literal, y0, split)
    for name, (_, step, _) in near_methods().items():
        literal = lambda f, y, ts, p, step=step: L.forward(lambda *at: step(*at, f, p), y, ts)
        solves[name] = Y0, *solve_oracle(literal, Y0, False)
    return {"table": table, "solves": solves, "cache": tempfile.mkdtemp(prefix="mutants-")}


def solve_oracle(literal: Callable, y0: Any, split: bool) -> tuple:
    def columns(y0: Any, params: Any) -> list:
        states = literal(field, y0, TS.tolist(), params)
        return [[state[i] for state in states] for i in (0, 1)] if split else [states]

    def loss(both: Any) -> Any:
        found = columns(*both)
        return loss_of([[c[n] for n in SAVED] for c in found], found[0][-1])
    return [np.array(c) for c in columns(y0, PARAMS)], complex_step_gradient(loss, (y0, PARAMS))


# ------------------------------------------------------------------ the checks

def close(found: Any, truth: Any, tolerance: float, what: str) -> None:
    found, truth = np.asarray(found), np.asarray(truth)
    assert found.shape == truth.shape, f"{what}: shape {found.shape}, not {truth.shape}"
    error = np.abs(found - truth).max(initial=0.0)
    assert error <= tolerance * max(1.0, np.abs(truth).max(initial=0.0)), f"{what}: off by {error:.2g}"


def check_table(rv: Any, table: list) -> None:
    """Tolerances as in tests/unit/test_numpy_functions.py."""
    for case, weights, directions, gradient, product in table:
        numbers = tuple(range(len(case.args)))
        loss = lambda *args, fn=case.fn, w=weights: np.sum(fn(*args) * (w + 0.5 * fn(*args)))
        close(rv.vjp(case.fn, *case.args)[0], case.fn(*case.args), 1e-14, case.name)
        first = rv.grad(loss, argnums=numbers)
        for g, truth in zip(first(*case.args), gradient, strict=True):
            close(g, truth, 1e-12, case.name)
        along = lambda *args, first=first, ds=directions: sum(np.sum(g * d) for g, d in zip(first(*args), ds, strict=True))
        for g, truth in zip(rv.grad(along, argnums=numbers)(*case.args), product, strict=True):
            close(g, truth, 2e-7, f"second derivative of {case.name}")


def check_tangents(rv: Any) -> None:
    """The tangent of a custom operation is that of the primal, or the one given; no central differences where it can be followed."""
    x, v = Y0, Y0[::-1]
    value = lambda x, scale: (np.sin(x) * x * scale, lambda g: (g, None))          # the pullback is wrong, and no matter here
    truth = np.imag(np.sin(x + 1e-30j * v) * (x + 1e-30j * v) * 1.5) / 1e-30
    for jvp, tangent in ((None, truth), (lambda args, tangents: 2.0 * tangents[0], 2.0 * v)):
        close(rv.jvp(lambda x, jvp=jvp: rv.custom_vjp(value, jvp=jvp)(x, 1.5))(x, v), tangent, 1e-14, "custom tangent")


def run_solve(rv: Any, method: Any, gradient: Any, y0: Any, split: bool) -> tuple:
    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(field, y0, TS, params, method=method, gradient=gradient, save=SAVED, backend="eager")
        return loss_of(list(sol.ys) if split else [sol.ys], sol.y1[0] if split else sol.y1), sol
    (_, sol), gradients = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, PARAMS)
    return sol, rv.tree.flatten(gradients)[0]


def check_methods(rv: Any, solves: dict) -> None:
    for name, (make, _, split, a_step, once) in methods().items():
        method = make(rv)
        y0, columns, truth = solves[name]
        truth = rv.tree.flatten(truth)[0]
        modes = [rv.Direct(), rv.Checkpointed(2), *(() if a_step > 8 else (rv.Checkpointed(1),))]
        modes += [rv.SymplecticAdjoint()] if name.startswith("rk-") else [rv.Reversible(), rv.Reversible(resync=3)]
        for mode in modes:
            what = f"{name} {mode}"
            sol, gradients = run_solve(rv, method, mode, y0, split)
            for found, exact in zip(sol.ys if split else [sol.ys], columns, strict=True):
                close(found, exact[SAVED], 1e-13, what)          # some hundred roundings of numbers of order 1
            for g, exact in zip(gradients, truth, strict=True):
                close(g, exact, 1e-12, what)                     # the same, conditioned by less than 10
            evaluations = a_step * N + once
            if mode == rv.Reversible():
                assert (sol.stats.nfe, sol.stats.nvjp) == (2 * evaluations, evaluations), f"{what}: {sol.stats}"
                assert sol.stats.roundtrip.absolute < 1e-13, what
            held = {"Direct": N + 1, "SymplecticAdjoint": N + 1, "Checkpointed": getattr(mode, "n", 0) + 1,
                    "Reversible": 2 if getattr(mode, "resync", None) is None else 4}[type(mode).__name__]
            assert sol.stats.peak_states == held, f"{what}: {sol.stats}"
            if isinstance(mode, rv.Checkpointed):
                assert sol.stats.advances == minimal_advances(N, mode.n), f"{what}: {sol.stats}"
                assert once or sol.stats.nvjp == evaluations, f"{what}: {sol.stats}"     # once: shared from step to step
        plain = rv.solve(field, y0, TS, PARAMS, method=method)
        for found, exact in zip(plain.ys if split else [plain.ys], columns, strict=True):
            close(found, exact, 1e-13, name)
        assert plain.stats.nfe == a_step * N + once and plain.stats.steps == N


def check_near(rv: Any, solves: dict) -> None:
    for name, (make, step, error) in near_methods().items():
        y0, columns, truth = solves[name]
        truth = rv.tree.flatten(truth)[0]
        for mode, tolerance in ((rv.Direct(), 1e-12), (rv.Reversible(), error)):
            sol, gradients = run_solve(rv, make(rv), mode, y0, False)
            close(sol.ys, columns[0][SAVED], 1e-13, name)
            for g, exact in zip(gradients, truth, strict=True):
                close(g, exact, tolerance, f"{name} {mode}")
        assert 0 < sol.stats.defect < error, f"{name}: {sol.stats}"
        missed = 0.0                                               # by the steps back from the forward states, the first one apart
        for t0, t1, y1 in zip(TS[1:], TS[2:], columns[0][2:], strict=False):
            y0 = step(t1, t0, t0 - t1, y1, field, PARAMS)
            missed = max(missed, np.abs(y1 - step(t0, t1, t1 - t0, y0, field, PARAMS)).max())
        assert make(rv).correct or abs(sol.stats.defect / missed - 1) < 0.01, f"{name}: {sol.stats.defect}, not {missed}"


def check_words(rv: Any) -> None:
    """A user's word with `about`, a swap and a scale: forward against the formula, inverse and gradient against Direct."""
    word = lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h), scale=0.5, about="z"),
                              rv.Shear("z", ("y",), lambda F, y: F(t1, y, -h) * 0.5 + F.params["b"] * h, scale=-0.5),
                              rv.Swap("y", "z")]
    method = rv.shears(word)
    y, z = Y0, Y0
    for t0, t1 in pairwise(TS):
        h = t1 - t0
        y = 0.5 * y + 0.5 * z + h * field(t0, z, PARAMS)
        z = -0.5 * z - 0.5 * h * field(t1, y, PARAMS) + PARAMS["b"] * h
        y, z = z, y
    sol, gradients = run_solve(rv, method, rv.Reversible(), Y0, False)
    close(sol.y1, y, 1e-12, "word")
    for g, exact in zip(gradients, run_solve(rv, method, rv.Direct(), Y0, False)[1], strict=True):
        close(g, exact, 1e-11, "word")
    from revode.methods.increment import Evaluator, System
    from revode.methods.shears import Step, forward, inverse
    from revode.stepping import Stats
    step = Step(0.3, 0.4, np.asarray(0.1), np.asarray(0.1))
    parts = {"y": Y0, "z": Y0[::-1]}
    for made in (method, rv.Coupled(lam=0.8), rv.ReversibleHeun(), rv.AsynchronousLeapfrog(0.7)):
        parts = dict(zip(made.parts, (Y0, Y0[::-1]), strict=True))
        F = Evaluator(System(field, Stats()), PARAMS)
        after = forward(made.word(step), parts, F)
        assert np.abs(after[made.parts[0]] - parts[made.parts[0]]).max() > 1e-3
        for name, part in inverse(made.word(step), after, F).items():
            close(part, parts[name], 1e-13, f"inverse of {made}")


def check_backsolve(rv: Any) -> None:
    for make, error in ((lambda: rv.RungeKutta("rk4"), 1e-4), (lambda: rv.ReversibleHeun(), 3e-2), (lambda: rv.Coupled(), 3e-2),
                        (lambda: rv.VelocityVerlet(), 3e-2)):
        split = len(make().outputs) == 2
        y0 = (Y0, 0.5 * Y0[::-1]) if split else Y0
        exact = run_solve(rv, make(), rv.Direct(), y0, split)[1]
        sol, found = run_solve(rv, make(), rv.Backsolve(), y0, split)
        for g, truth in zip(found, exact, strict=True):
            close(g, truth, error, f"Backsolve {make()}")
        base = STAGES[getattr(make(), "base", "midpoint")]
        assert (sol.stats.nvjp, sol.stats.peak_states) == (base * N, 1), sol.stats


def check_checkpoints() -> None:
    """The least number of steps; and what is kept while their number is unknown, as many as allowed and well spread."""
    from revode.gradients.checkpointed import Online
    from revode.gradients.checkpointed import minimal_advances as ours
    for n in (1, 2, 3, 5):
        for steps in (1, 2, 3, 6, 10, 11, 21, 40):
            assert ours(steps, n) == least(steps, n), (steps, n)
        store = Online(n)
        for i in range(40):
            store.offer(i, {})
            places = sorted(store)
            assert len(places) == min(i + 1, n) and places[0] == 0, (n, i, places)
            # All untaped steps, the first sweep included: what an optimal plan needs that does not know the last step, N more.
            total = i + 1 + sum(least(b - a, n - j) for j, (a, b) in enumerate(pairwise([*places, i + 1])))
            assert total <= least(i + 1, n) + i + 1, (n, i, places)


def check_adaptive(rv: Any) -> None:
    """On the grid that a controller accepted, the gradient is that of the literal loop along it."""
    every = methods()
    for name in ("coupled-bosh3", "rk-dopri5", "heun"):
        make, literal = every[name][:2]
        for mode in (rv.Direct(), rv.Checkpointed(3), *(() if name.startswith("rk-") else (rv.Reversible(resync=4),))):
            def loss(y0: Any, params: Any, make: Any = make, mode: Any = mode) -> Any:
                sol = rv.solve(field, y0, (0.2, 1.3), params, method=make(rv), gradient=mode,
                               controller=rv.PID(rtol=1e-4, atol=1e-6))
                return np.sum(sol.ys[1:] ** 2), sol
            (_, sol), gradients = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(Y0, PARAMS)
            assert 2 < sol.stats.steps < 200, sol.stats
            along = lambda both, literal=literal, ts=list(sol.ts): sum(
                np.sum(y ** 2) for y in literal(field, both[0], ts, both[1])[1:])
            truth = complex_step_gradient(along, (Y0, PARAMS))
            for g, exact in zip(rv.tree.flatten(gradients)[0], rv.tree.flatten(truth)[0], strict=True):
                close(g, exact, 1e-11, f"adaptive {name} {mode}")


def check_reports(rv: Any) -> None:
    """A contracting problem is reported forwards and on the way back; the declared properties are those of the papers."""
    decay = lambda t, y, p: -5.0 * y
    ts = np.linspace(0.0, 10.0, 101)
    run = lambda gradient: rv.grad(lambda y: np.sum(rv.solve(decay, y, ts, gradient=gradient, save=[-1],
                                                             method=rv.Coupled()).y1))(np.ones(1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(rv.Reversible())
    text = " ".join(str(w.message) for w in caught)
    assert "two copies" in text and "reverse sweep" in text, text
    for method, order in ((rv.Coupled("rk4"), 4), (rv.AsynchronousLeapfrog(), 2), (rv.ReversibleHeun(), 2),
                          (rv.LeapfrogMidpoint(), 2), (rv.SemiImplicitEuler(), 1), (rv.VelocityVerlet(), 2),
                          (rv.RungeKutta("bosh3"), 3), (rv.Composition(rv.VelocityVerlet(), 6), 6), (rv.EES25(), 2)):
        assert method.order == order, method
    assert rv.Coupled().lam == 0.999 and rv.AsynchronousLeapfrog().eta == 1.0 and rv.EES25().A == rv.EES25(x=0.1).A
    from revode.methods.tableaux import TABLEAUX
    for name, tab in TABLEAUX.items():
        exact = EXACT[name]
        assert tab.order == exact.order, name
        close(np.array(tab.b, float), exact.b, 1e-15, name)
        if tab.b_error is not None:       # where the oracle has no companion, it is Euler's method
            euler = (1.0, *(0.0 for _ in exact.b[1:]))
            close(np.array(tab.b_error, float), exact.bhat or euler, 1e-15, name)
        close(np.array(tab.c, float), exact.c, 1e-15, name)
        for row, other in zip(tab.a, exact.A, strict=True):
            close(np.array(row, float), other[:len(row)], 1e-14, name)


def error_weights(s: int) -> Any:
    """Of the stages of EES(2, 2s-1) and of one evaluation more, at (t + h, y + K_1): the shortest that see both trees of order 3."""
    theta = pi / (2 * s)
    w = [2 * sin(theta) ** 2, *(2 * sin(theta) * sin((2 * i + 1) * theta) for i in range(1, s))]

    def run(values: Any) -> tuple:
        z = [0.0]
        for i in range(s):
            z.append(z[max(i - 1, 0)] + w[i] * values[i])
        return np.array(z[:s]), (z[s - 1] + z[s]) / 2
    c = run(np.ones(s))[0]
    Ac = run(c)[0]
    rows = [np.ones(s + 1), [*c, 1], [*Ac, 0], [*c ** 2, 1]]
    return np.linalg.lstsq(np.array(rows), [0, 0, run(Ac)[1] - 1 / 6, run(c ** 2)[1] - 1 / 3], rcond=None)[0]


def check_monitors(rv: Any) -> None:
    """What the methods say about themselves: limits, growth, the gap that is watched, the error that a controller sees."""
    from revode.methods.companion import neutral
    from revode.methods.increment import Evaluator, System
    from revode.methods.shears import Step
    from revode.stepping import Stats
    from revode.watch.gaps import injected, parted, weighted
    h, z = 0.1, 0.7 * Y0
    step, F = Step(0.3, 0.4, np.asarray(h), np.asarray(h)), Evaluator(System(field, Stats()), PARAMS)
    coupled, damped = rv.Coupled("heun2", lam=0.8), rv.AsynchronousLeapfrog(eta=0.9)
    close([coupled.contraction_limit(h), damped.contraction_limit(h)], [-np.log(0.8) / h] * 2, 1e-14, "contraction_limit")
    close([coupled.reverse_growth, damped.reverse_growth], [1.25, 1.25], 1e-14, "reverse_growth")
    assert rv.AsynchronousLeapfrog().contraction_limit(h) == rv.ReversibleHeun().contraction_limit(h) == 0.0
    assert rv.LeapfrogMidpoint().contraction_limit(h) == 0.0 and (damped.order, rv.NearReversible("rk4").reversal_order) == (1, 5)
    assert (rv.EES(stages=5).reversal_order, rv.EES27().reversal_order, rv.EES25().reversal_order) == (9, 7, 5)
    assert rv.EES25().error_weights == (1 / 5, -1 / 3, 2 / 15) and rv.EES25(x=0.25).error_weights is None
    user = rv.shears(lambda t0, t1, h: [], twin=("y", "z"))
    y = Y0
    for method, parts, gap, a, b in ((coupled, {"y": y, "z": z}, y - z, y + z, y),
                                     (rv.ReversibleHeun(), {"y": y, "z": z}, y - z, y + z, -z),
                                     (damped, {"y": y, "v": z}, z, y, z), (user, {"y": y, "z": z}, y - z, y + z, (y - z) / 2),
                                     (rv.LeapfrogMidpoint(), {"y_prev": z, "y": y}, y - z, y + z, (y - z) / 2)):
        for weights, wanted in zip(method.companion[1:4], (gap, a, b), strict=True):
            close(weighted(weights, parts), wanted, 1e-14, f"companion of {method}")
    D = [np.array([1.0, 2.0]) * x for x in (1.0, 0.3, -0.2, 0.7)]
    close(neutral(damped.word(step)), -0.8, 1e-14, "neutral")
    close(injected(D[:2], 0.9), D[1] - 0.9 * D[0], 1e-14, "injected")
    g = [D[n + 1] + D[n] for n in range(3)]
    close(injected(D, -1.0), (2 * g[1] - g[0] - g[2]) / 4, 1e-14, "injected, smooth part off")
    close(parted(D[:3], -1.0), D[1] - (g[0] + g[1]) / 4, 1e-14, "parted")
    close(rv.EES(stages=4).error_weights, error_weights(4), 1e-14, "error weights")
    from revode.methods.tableaux import TABLEAUX
    assert rv.RungeKutta(TABLEAUX["rk4"]).order == 4 and rv.Coupled(TABLEAUX["bosh3"]).order == 3
    (_, trip), _ = rv.value_and_grad(lambda y: (lambda sol: (np.sum(sol.y1), sol.stats))(rv.solve(
        field, y, TS, PARAMS, method=rv.EES25(), save=[-1])), has_aux=True)(Y0)
    assert trip.roundtrip.step == 0 and trip.roundtrip.absolute > 0          # one state is compared: the first
    close(trip.roundtrip.ulps * np.spacing(np.abs(Y0).max()) / trip.roundtrip.absolute, 1.0, 1e-12, "ulps")
    assert (rv.EES25().error_order, rv.ReversibleHeun().error_order, rv.Coupled("bosh3").error_order) == (3, 2, 3)
    assert (rv.EES25().correct, rv.EES27().correct, rv.EES(stages=4).correct, rv.NearReversible().correct) == (0, 0, 0, 0)
    after, error = rv.ReversibleHeun().attempt(step, {"y": Y0, "z": z}, F)
    close(error, h / 2 * (field(0.4, after["z"], PARAMS) - field(0.3, z, PARAMS)), 1e-14, "error of ReversibleHeun")
    F.memo.clear()
    after, error = coupled.attempt(step, {"y": Y0, "z": z}, F)
    k = field(0.4, after["y"], PARAMS)              # Heun less Euler, from t1 with -h
    close(error, -h / 2 * (field(0.3, after["y"] - h * k, PARAMS) - k), 1e-14, "error of Coupled")
    for method, weights, c in ((rv.EES25(), (1 / 5, -1 / 3, 2 / 15), (0, 1 / 3, 5 / 6)),
                               (rv.RungeKutta("bosh3"), np.subtract(EXACT["bosh3"].b, EXACT["bosh3"].bhat), EXACT["bosh3"].c)):
        errors: list = []
        constant = Evaluator(System(lambda t, y, p: 0 * y + t ** 2, Stats()), None)
        method.flow(constant, 0.3, 0.4, Y0, h, errors)
        close(errors[0], np.full((2, 2), sum(w * h * (0.3 + c * h) ** 2 for w, c in zip(weights, c, strict=True))), 1e-15,
              f"error of {method}")


def check_programs(rv: Any, cache: str) -> None:
    """Programs of the steps, and what is generated from them, against the tape: gradients (tests/grid.py), what is counted, bits."""
    from revode.compiled import native
    native.cache_folder = lambda: Path(cache)                       # what a change did not touch is not compiled again
    native.FLAGS = ("-O0", *native.FLAGS[1:])                       # a wrong sign shows without an optimiser
    grid = import_module("tests.grid")                             # of this copy: `tests` itself remembers the one before
    here = ["replay", *(["native", "strict"] if HERE else [])]
    for kind, method, mode in PROGRAMS:
        for engine in here if (kind, method, mode) in BUILT else here[:1]:
            case = grid.Case(kind, method, mode, engine)
            error, allowed = grid.check(case)
            assert error <= allowed, f"{case}: off by {error:.2g}, allowed {allowed:.2g}"
    how: dict = {"method": rv.Coupled("heun2"), "gradient": rv.Reversible(resync=3), "save": SAVED, "arithmetic": "strict"}
    for y0 in (np.resize(Y0, (37, 2)), Y0[0]):                     # tiles that are not full; one trajectory
        found = {}
        for engine in ("eager", "replay", *here[1:2]):
            def loss(y: Any, p: Any, engine: str = engine) -> Any:
                sol = rv.solve(mixed, y, TS, p, backend=engine, **how)
                return np.sum(sol.ys ** 2), sol
            (_, sol), gradients = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, PARAMS)
            found[engine] = sol.ys, *rv.tree.flatten(gradients)[0]
            assert sol.stats.backend == engine, f"{sol.stats.backend} instead of {engine}"
            counts = sol.stats.nfe, sol.stats.nvjp, sol.stats.steps
            assert counts == (2 * 4 * N, 4 * N, N), f"{engine}: {counts}"
        for engine, values in found.items():
            for x, truth in zip(values, found["eager"], strict=True):
                close(x, truth, 1e-12, f"mixed on {engine}")        # some hundred roundings, as on the tape
        for x, truth in zip(found.get("native", ()), found["replay"], strict=False):
            assert np.array_equal(x, truth), "the bits of strict arithmetic"


# Kinds of equations, methods and gradient modes; those in BUILT are compiled too. Each touches another part of the compiler.
PROGRAMS = [("ode", "coupled", "resync"), ("ode", "rk bosh3", "checkpointed"), ("sde", "heun", "reversible"), ("cde", "own", "direct"),
            ("linear", "heun", "resync"), ("adaptive", "coupled", "reversible"), ("times", "rk4", "symplectic"),
            ("ode", "verlet", "reversible"), ("tree", "ees", "backsolve")]
BUILT = PROGRAMS[:1] + PROGRAMS[2:3]


def mixed(t: Any, y: Any, p: Any) -> Any:
    """A field of many operations: products, sums along axes, pieces, powers, comparisons, tables."""
    z = np.tanh(y @ p["W"] + p["b"] * np.cos(t))
    u = np.where(z > 0.2, z * z, 0.5 * z) - np.mean(z, axis=-1, keepdims=True) / (1 + np.max(np.abs(y), axis=-1, keepdims=True))
    w = np.concatenate([z[..., 1:], np.exp(-y[..., :1] ** 2)], axis=-1)
    w = w + np.einsum("...i,ij->...j", u, p["W"]) * np.sum(p["b"] ** 3) + np.std(w, axis=-1, keepdims=True)
    return p["c"] * (u + np.cumsum(w, axis=-1) * 0.1) - np.sqrt(1 + y * y) * np.prod(np.sin(y + 2), axis=-1, keepdims=True)


def battery(oracle: dict, room: str = "") -> None:
    """Raise AssertionError, or whatever a broken package raises, at the first difference.

    room: what was changed, "engine", "methods", "gradients" or "compiled", to run what concerns it alone; "" runs everything.
    """
    import revode as rv
    warnings.simplefilter("error")
    for told in (rv.ParasiteWarning, rv.AdjointWarning):           # on grids of eight steps; check_reports listens to all
        warnings.simplefilter("ignore", told)
    if room in ("", "compiled"):
        check_programs(rv, oracle["cache"])
    if room == "compiled":
        return
    if room in ("", "engine"):
        check_table(rv, oracle["table"])
        check_tangents(rv)
        check_words(rv)
    if room != "engine":
        check_methods(rv, oracle["solves"])
        check_words(rv)
        check_near(rv, oracle["solves"])
        check_backsolve(rv)
        check_checkpoints()
        check_adaptive(rv)
        check_reports(rv)
        check_monitors(rv)


if __name__ == "__main__":
    import time
    start = time.perf_counter()
    found = prepare()
    middle = time.perf_counter()
    battery(found)
    print(f"oracles {middle - start:.2f} s, battery {time.perf_counter() - middle:.2f} s")

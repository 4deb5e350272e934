"""Words of shears: inverse and pullback of any word, of the user's own words, and the words that are refused."""
from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.oracles import gradients as G
from revode.methods.increment import Evaluator, System
from revode.methods.shears import Step, forward, inverse
from revode.stepping import Stats
from tests.method_cases import REVERSIBLE, Case, distance, make_params, make_y0, plain_field

EPS = 2.0**-52
TS = np.linspace(0.0, 0.6, 7)


@pytest.mark.parametrize("case", REVERSIBLE.values(), ids=REVERSIBLE)
def test_inverse_undoes_forward_and_forward_undoes_inverse(case: Case) -> None:
    """One step of every method, both ways round. A step is at most 81 shears (order 8) of four roundings; each undoing
    divides by a scale of .6 at least, once a step: 4 * 81 / .6 = 540 roundings of numbers below 4."""
    params = make_params()
    F = Evaluator(System(plain_field, Stats()), params)
    step = Step(0.3, 0.35, 0.05, 0.07)
    parts = case.method.start(F, step, make_y0(case, (2, 3)))
    parts = {name: x + 0.01 * k for k, (name, x) in enumerate(parts.items())}       # the copies need not agree
    word = case.method.word(step)

    def new() -> Evaluator:
        return Evaluator(System(plain_field, Stats()), params)

    after = forward(word, parts, new())
    for there, back in ((after, inverse(word, after, new())), (None, None)):
        if there is None:
            there = inverse(word, parts, new())
            back = forward(word, there, new())
        assert max(abs(back[name] - parts[name]).max() for name in parts) <= 540 * 4 * EPS / 2
        assert max(abs(there[name] - parts[name]).max() for name in parts) > 0.004      # it moved


# ---------------------------------------------------------------------------------------------------- words of the user

def revnet() -> Any:
    """y1 = x1 + f(x2), y2 = x2 + g(y1): Gomez, Ren, Urtasun & Grosse 2017; the layers' halves have weights of their
    own."""
    half = lambda F, x, name: np.tanh(x @ F.params[name])
    return rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: half(F, z, "f") * h),
                                        rv.Shear("z", ("y",), lambda F, y: half(F, y, "g") * h)])


def revnet_loop(y0: Any, p: dict, tanh: Callable) -> tuple:
    y = z = y0
    for t, t1 in pairwise(TS.tolist()):
        y = y + tanh(z @ p["f"]) * (t1 - t)
        z = z + tanh(y @ p["g"]) * (t1 - t)
    return y, z


def edict() -> Any:
    """Two coupled copies, a field step each, then mixed: y <- p y + (1-p) z, z <- p z + (1-p) y (Wallace et al.
    2023)."""
    mix = 0.93
    return rv.shears(lambda t0, t1, h: [
        rv.Shear("y", ("z",), lambda F, z: F(t0, z, h)), rv.Shear("z", ("y",), lambda F, y: F(t1, y, h)),
        rv.Shear("y", ("z",), lambda F, z: (1 - mix) * z, scale=mix), rv.Shear("z", ("y",), lambda F, y: 0.0 * y, mix,
                                                                               "y")],
        twin=("y", "z"), order=1)


def edict_loop(y0: Any, p: dict, tanh: Callable) -> tuple:
    y = z = y0
    f = lambda t, y: tanh(y @ p["f"] + t) @ p["g"]
    for t, t1 in pairwise(TS.tolist()):
        y = y + (t1 - t) * f(t, z)
        z = z + (t1 - t) * f(t1, y)
        y = 0.93 * y + 0.07 * z
        z = 0.93 * z + 0.07 * y
    return y, z


def leapfrog_by_swap(order: tuple[str, str]) -> Any:
    """y_{n+1} = y_{n-1} + 2 h f(y_n), from an arbitrary y_{-1} = sin y0, with the two names of the swap either way
    round."""
    return rv.shears(lambda t0, t1, h: [rv.Shear("z", ("y",), lambda F, y: F(t0, y, 2 * h)), rv.Swap(*order)],
                     initial=lambda F, t0, y0: {"y": y0, "z": np.sin(y0)})


def leapfrog_loop(y0: Any, p: dict, tanh: Callable, sin: Callable) -> tuple:
    y, z = y0, sin(y0)
    for t, t1 in pairwise(TS.tolist()):
        y, z = z + 2 * (t1 - t) * (tanh(y @ p["f"] + t) @ p["g"]), y
    return y, z


def three_parts() -> Any:
    """A third part, a swap that moves keys around, a scale of -2, and an initial map with parameters."""
    return rv.shears(lambda t0, t1, h: [
        rv.Shear("a", ("b", "c"), lambda F, b, c: F(t0, b, h) * np.cos(c), scale=-2.0), rv.Swap("a", "b"),
        rv.Shear("c", ("a",), lambda F, a: 0.3 * np.sin(a), scale=0.5),
        rv.Shear("b", ("c", "a"), lambda F, c, a: c * a * h)],
        parts=("a", "b", "c"), outputs=("b",),
        initial=lambda F, t0, y0: {"a": y0, "b": 2 * y0 * y0, "c": y0 @ F.params["f"] @ F.params["g"]})


def three_loop(y0: Any, p: dict, tanh: Callable, sin: Callable, cos: Callable) -> tuple:
    a, b, c = y0, 2 * y0 * y0, y0 @ p["f"] @ p["g"]
    for t, t1 in pairwise(TS.tolist()):
        h = t1 - t
        a = -2 * a + h * (tanh(b @ p["f"] + t) @ p["g"]) * cos(c)
        a, b = b, a
        c = c / 2 + 0.3 * sin(a)
        b = b + c * a * h
    return a, b, c


def weights() -> dict:
    rng = np.random.default_rng(4)
    return {"f": rng.normal(size=(2, 2)) / 2, "g": rng.normal(size=(2, 2)) / 2}


OWN = {   # method, the literal loop, the parts in the order in which the loop returns them
    "revnet": (revnet, lambda y0, p: revnet_loop(y0, p, np.tanh), "yz"),
    "edict": (edict, lambda y0, p: edict_loop(y0, p, np.tanh), "yz"),
    "swap": (lambda: leapfrog_by_swap(("y", "z")), lambda y0, p: leapfrog_loop(y0, p, np.tanh, np.sin), "yz"),
    "swap, other way": (lambda: leapfrog_by_swap(("z", "y")), lambda y0, p: leapfrog_loop(y0, p, np.tanh, np.sin),
                        "yz"),
    "three parts": (three_parts, lambda y0, p: three_loop(y0, p, np.tanh, np.sin, np.cos), "abc"),
}


@pytest.mark.parametrize("mode", [rv.Direct(), rv.Reversible(), rv.Reversible(resync=2), rv.Checkpointed(2)], ids=str)
@pytest.mark.parametrize("name", OWN)
def test_own_word_has_the_value_and_the_gradient_of_its_loop(name: str, mode: Any) -> None:
    """Every part in the loss, with weights that differ, so that crossed cotangents show. 6 steps of some 60 operations,
    there and back, with a growth of at most (2 + 1)^6 = 729 (three parts scale by 2): 720 * 729 roundings of eps/2."""
    make, loop, names = OWN[name]
    y0, p = np.array([[0.5, -0.3], [0.8, 0.1]]), weights()
    f = lambda t, y, p: np.tanh(y @ p["f"] + t) @ p["g"]

    def ours(at: dict) -> Any:
        parts = rv.solve(f, at["y0"], TS, at["p"], method=make(), gradient=mode, save=[-1]).state.parts
        return sum((k + 1) * np.sum(parts[x] * parts[x]) for k, x in enumerate(names))

    def literal(at: dict) -> Any:
        return sum((k + 1) * np.sum(x * x) for k, x in enumerate(loop(at["y0"], at["p"])))

    at = {"y0": y0, "p": p}
    tolerance = 720 * 729 * EPS / 2
    value, gradient = rv.value_and_grad(ours)(at)
    assert abs(value - literal(at)) <= tolerance * abs(value)
    desired = G.complex_step_gradient(literal, at)
    for leaf in at:
        assert distance(gradient[leaf], desired[leaf]) <= tolerance, leaf


def test_own_split_method() -> None:
    """Two outputs: y0 = (q, v). Position Verlet, drift - kick - drift, in three lines, against a loop."""
    method = rv.shears(lambda t0, t1, h: [
        rv.Shear("q", ("v",), lambda F, v: v * (0.5 * h)), rv.Shear("v", ("q",), lambda F, q: F((t0 + t1) / 2, q, h)),
        rv.Shear("q", ("v",), lambda F, v: v * (0.5 * h))], parts=("q", "v"), outputs=("q", "v"))
    a = lambda t, q, p: -p * q + t
    q, v, p = np.array([0.3]), np.array([0.9]), np.array([2.0])

    def literal(at: dict) -> Any:
        q, v = at["q"], at["v"]
        for t, t1 in pairwise(TS.tolist()):
            q = q + (t1 - t) / 2 * v
            v = v + (t1 - t) * a((t + t1) / 2, q, at["p"])
            q = q + (t1 - t) / 2 * v
        return np.sum(q * q + 3 * v)

    def ours(at: dict) -> Any:
        q, v = rv.solve(a, (at["q"], at["v"]), TS, at["p"], method=method).y1
        return np.sum(q * q + 3 * v)

    at = {"q": q, "v": v, "p": p}
    value, gradient = rv.value_and_grad(ours)(at)
    assert abs(value - literal(at)) <= 200 * EPS * abs(value)          # 6 steps of some 12 roundings, there and back
    assert distance(gradient, G.complex_step_gradient(literal, at)) <= 200 * EPS


def test_the_start_may_be_evaluated_and_is_pulled_back() -> None:
    """ALF written by the user: v0 = f(t0, y0) carries gradient, and equals the library's ALF bit for bit."""
    own = rv.shears(lambda t0, t1, h: [
        rv.Shear("y", ("v",), lambda F, v: v * (0.5 * h)),
        rv.Shear("v", ("y",), lambda F, y: F.field(t0 + 0.5 * (t1 - t0), y) * 2.0, scale=-1.0),
        rv.Shear("y", ("v",), lambda F, v: v * (0.5 * h))], parts=("y", "v"),
        initial=lambda F, t0, y0: {"y": y0, "v": F.field(t0, y0)})
    params, y0 = make_params(), np.array([0.4, -0.2, 1.0])
    results = [rv.value_and_grad(lambda p, y0, m=m: np.sum(rv.solve(plain_field, y0, TS, p, method=m).ys ** 2), (0, 1))(
        params, y0) for m in (own, rv.AsynchronousLeapfrog())]
    assert results[0][0] == results[1][0] and distance(results[0][1], results[1][1]) == 0


def test_a_part_that_never_changes_costs_no_memory_in_steps() -> None:
    """A field value belongs to one version of a part; if that version is read at a new time every step, the values of
    times gone by must not pile up: the number that is kept after N steps does not grow with N."""
    word = lambda t0, t1, h: [rv.Shear("y", ("x",), lambda F, x: F(t0, x, h))]
    kept = []
    for N in (10, 100):
        method = rv.shears(word, parts=("y", "x"))
        step = lambda n, N=N: Step(n / N, (n + 1) / N, 1.0 / N, 1.0 / N)
        F = Evaluator(System(lambda t, y, p: np.sin(t) * y, Stats()), None)
        parts = method.start(F, step(0), np.ones(2))
        for n in range(N):
            parts = forward(method.word(step(n)), parts, F)
        kept.append(sum(len(values) for values in F.memo.values()))
    assert kept[1] <= kept[0], kept


REFUSED: list[tuple[str, Callable, str]] = [
    ("reads its target", lambda: [rv.Shear("y", ("y", "z"), lambda F, y, z: z)],
     "cannot be inverted, because it reads its own target"),
    ("scale 0", lambda: [rv.Shear("y", ("z",), lambda F, z: z, scale=0.0)], "number other than 0"),
    ("about what it does not read", lambda: [rv.Shear("y", ("z",), lambda F, z: z, 0.5, about="w")], "names \\['w'\\]"),
    ("about itself", lambda: [rv.Shear("y", ("z",), lambda F, z: z, 0.5, about="y")], "cannot be inverted"),
    ("unknown target", lambda: [rv.Shear("x", ("z",), lambda F, z: z)],
     "names \\['x'\\]; the parts of this method are"),
    ("unknown read", lambda: [rv.Shear("y", ("x",), lambda F, x: x)], "names \\['x'\\]"),
    ("swap of an unknown part", lambda: [rv.Swap("y", "x")], "x"),
    ("scale not finite", lambda: [rv.Shear("y", ("z",), lambda F, z: z, scale=float("nan"))], "scale"),
]


@pytest.mark.parametrize("what, word, message", REFUSED, ids=[row[0] for row in REFUSED])
def test_wrong_words_are_refused(what: str, word: Callable, message: str) -> None:
    method = rv.shears(lambda t0, t1, h: word())
    with pytest.raises(ValueError, match="shears: .*" + message):
        rv.solve(lambda t, y, p: y, np.ones(2), TS, method=method)


@pytest.mark.parametrize("parts, outputs", [(("y", "y"), ("y",)), (("y", "z"), ("x",))])
def test_wrong_parts_are_refused(parts: tuple, outputs: tuple) -> None:
    with pytest.raises(ValueError, match=r"shears: parts=.*distinct names.*outputs are among them"):
        rv.shears(lambda t0, t1, h: [], parts=parts, outputs=outputs)


def test_a_start_with_other_parts_is_refused() -> None:
    method = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h))],
                       initial=lambda F, t0, y0: {"y": y0})
    with pytest.raises(ValueError, match=r"shears: initial returned \['y'\].*exactly the parts \['y', 'z'\]"):
        rv.solve(lambda t, y, p: y, np.ones(2), TS, method=method)

"""Parameters with axes of the batch, and a control for each trajectory: each tile of native code finds its own.

Everything is compared in bits with the mirror, and with the tape's gradient through all steps (tests/strict_cases.py); an
ensemble besides with the solves of its members, one by one, which know nothing of one another.
"""
from __future__ import annotations

import numpy as np
import pytest

import revode as rv
from revode.compiled.lower import NotFusable
from tests.compiler import needs_compiler
from tests.strict_cases import TS, assert_same_bits, compare, results, tiles_of

pytestmark = needs_compiler
S, B = 3, 5                                          # members, and trajectories of each: two ragged tiles of four
RNG = np.random.default_rng(0)
NETS = {"W": RNG.normal(size=(S, 2, 8)) / 2, "b": RNG.normal(size=(S, 8)), "V": RNG.normal(size=(S, 8, 2)) / 3}
MORE = {**NETS, "c": RNG.normal(size=2), "k": RNG.normal(size=(S, 1, 1)) / 2}
Y = 0.5 * RNG.normal(size=(S, B, 2))
ROWS = RNG.normal(size=(5, 3))


def nets(t, y, p):
    return np.tanh(y @ p["W"] + p["b"][:, None]) @ p["V"]


def with_einsum(t, y, p):
    return np.einsum("sbh,shd->sbd", np.tanh(np.einsum("sbd,sdh->sbh", y, p["W"]) + p["b"][:, None] * t), p["V"])


def mixed(t, y, p):
    """Numbers of a member, and what all of them share; products of a member's values with the time."""
    return nets(t, y, p) * p["k"] + np.tanh(p["c"]) * np.cos(y) + np.sum(y * p["k"] ** 2 * t, -1, keepdims=True)


def alone(t, y, p):
    """A network for each trajectory."""
    return (np.tanh(y[:, None, :] @ p["W"] + p["b"][:, None]) @ p["V"])[:, 0]


def square(t, y, p):
    """As many members as features: which is which, only the use says."""
    return np.tanh(y @ p["W"]) @ p["M"] + p["b"][:, None]


SQUARE = {"W": RNG.normal(size=(2, 2, 2)) / 2, "M": RNG.normal(size=(2, 2)) / 2, "b": RNG.normal(size=(2, 2)) / 2}
CASES = {
    "heun": (nets, Y, NETS, rv.ReversibleHeun()),
    "coupled": (nets, Y, NETS, rv.Coupled("midpoint", 0.9)),
    "ees": (with_einsum, Y, NETS, rv.EES25()),
    "mixed": (mixed, Y, MORE, rv.AsynchronousLeapfrog(0.9)),
    "float32": (mixed, *rv.tree.map(lambda x: x.astype(np.float32), (Y, MORE)), rv.LeapfrogMidpoint()),
    "square": (square, 0.5 * RNG.normal(size=(2, B, 2)), SQUARE, rv.ReversibleHeun()),
    "one each": (alone, Y[:, 0], NETS, rv.ReversibleHeun()),
    "numbers": (lambda t, y, p: -p * np.sin(y + t), ROWS / 2, RNG.normal(size=(5, 3)), rv.Coupled("midpoint", 0.9)),
    "a number each": (lambda t, y, p: -p[:, None] * np.sin(y * t), ROWS / 2, RNG.normal(size=5), rv.ReversibleHeun()),
    "data": (lambda t, y, p: p * np.concatenate([y, ROWS], -1)[..., 1:4] * ROWS, ROWS / 2, np.array(0.3), rv.ReversibleHeun()),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", CASES)
def test_has_the_bits_of_the_mirror_and_the_gradients_of_the_tape(name):
    f, y0, p, method = CASES[name]
    compare(f, y0, p, method, T=4)


def test_members_are_solved_as_if_they_were_alone():
    """Sums of a member run over its trajectories alone, in the same order: the same bits, with one tile or several."""
    def one(t, y, p):
        made = np.tanh(y @ p["W"] + p["b"]) @ p["V"] * p["k"] + np.tanh(p["c"]) * np.cos(y)
        return made + np.sum(y * p["k"] ** 2 * t, -1, keepdims=True)

    for T in (2, 8):
        with tiles_of(T):
            whole = results(mixed, Y, {**MORE, "c": np.zeros(2)}, rv.Coupled("midpoint", 0.9), "native")
        for s in range(S):
            p = {name: x[s] for name, x in NETS.items()} | {"c": np.zeros(2), "k": MORE["k"][s]}
            with tiles_of(T):
                member = results(one, Y[s], p, rv.Coupled("midpoint", 0.9), "native")
            names = sorted({**MORE, "c": 0})
            for i, name in enumerate(names):
                if name != "c":                      # which all members share: its gradient is the sum of theirs
                    np.testing.assert_array_equal(whole[f"params[{i}]"][s], member[f"params[{i}]"], err_msg=name)
            np.testing.assert_array_equal(whole["y0[0]"][s], member["y0[0]"])
            np.testing.assert_array_equal(whole["ys[0]"][:, s], member["ys[0]"])


def test_noise_of_an_ensemble():
    """Trajectories keep their numbers, whatever member they belong to."""
    compare(nets, Y, {**NETS, "s": 0.3 * RNG.normal(size=(S, 1, 2))}, rv.ReversibleHeun(), T=4,
            diffusion=lambda t, y, p: p["s"] * np.cos(y), noise=rv.Brownian(3, offset=2))


@pytest.mark.parametrize("path", [rv.HermiteCubic, rv.LinearPath, rv.Rectilinear])
def test_a_control_for_each_trajectory(path):
    """A smooth one is a column of the grid for each of them."""
    control = path(np.linspace(0.0, 1.0, 9), 0.3 * RNG.normal(size=(5, 9, 2)))
    knots = np.unique(np.concatenate([np.linspace(control.times[0], control.times[-1], 13), control.times]))
    compare(lambda t, y, p: np.reshape(np.tanh(y @ p + t), (*y.shape, 2)), ROWS / 2, 0.5 * RNG.normal(size=(3, 6)),
            rv.ReversibleHeun(), T=4, control=control, ts=knots)


def test_many_calls_and_threads(monkeypatch):
    """Where a call ends in the middle, each tile still finds its own rows of the grid."""
    control = rv.HermiteCubic(np.linspace(0.0, 1.0, 9), 0.3 * RNG.normal(size=(5, 9, 2)))
    field = lambda t, y, p: np.reshape(np.tanh(y @ p + t), (*y.shape, 2))
    args = field, ROWS / 2, 0.5 * RNG.normal(size=(3, 6)), rv.ReversibleHeun()
    more = {"control": control, "ts": np.linspace(0.0, 1.0, 13)}
    found = []
    for steps in (4096, 5):
        with tiles_of(2), monkeypatch.context() as patch:
            patch.setattr("revode.compiled.tiles.STEPS", steps)
            found += [results(*args, "native", threads=threads, **more) for threads in (1, 2)]
    for other in found[1:]:
        assert_same_bits(other, found[0])


def test_what_an_ensemble_cannot_do_is_said():
    with pytest.raises(NotFusable, match=r"one step leaves for the next.*use backend='replay'"):
        rv.grad(lambda p: np.sum(rv.solve(lambda t, y, p: y * np.sin(p * t), Y, TS, p, method=rv.ReversibleHeun(),
                                          backend="native").y1))(MORE["k"])
    with pytest.raises(NotFusable, match="a sum over"):                # the mean of a member's trajectories
        rv.solve(lambda t, y, p: y - np.mean(y, 1, keepdims=True) * p["k"], Y, TS, MORE, method=rv.RungeKutta("midpoint"),
                 backend="native")

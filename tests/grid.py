"""Every gradient mode, on every engine, with every method, on every kind of equation, against Direct on the tape.

    python -m tests.grid [--only native] [--seed 1]          all of it; tests/unit/test_grid.py takes a sample that covers all pairs

A case is right if both gradients (dL/dy0 and dL/dparams) are those of Direct on the tape, on the grid that the case had, to a bound
made of what can differ (`allowed`). Backsolve's gradient is another one: it is compared with Backsolve on the tape.
"""
from __future__ import annotations

import argparse
import itertools
import random
import sys
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from revode_cuda.fused import rehearse
from tests.method_cases import distance

N = 24
EPS = 2.0**-53
TS = np.linspace(0.0, 1.0, N + 1) ** 1.1
rng = np.random.default_rng(5)
Y0 = rng.standard_normal((3, 2))
PARAMS = {"W": 0.6 * rng.standard_normal((2, 5)), "b": 0.3 * rng.standard_normal(5), "V": 0.6 * rng.standard_normal((5, 2)),
          "s": np.array(0.3), "n": 4}
PATH = np.linspace(-0.5, 1.5, 17), 0.3 * rng.standard_normal((17, 2)).cumsum(0)          # composed methods step aside a little


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"] * np.cos(t)) @ p["V"]


def diffusion(t: Any, y: Any, p: Any) -> Any:
    return p["s"] * np.cos(y) + 0.1


def controlled(t: Any, y: Any, p: Any) -> Any:
    f = field(t, y, p)
    return np.stack([f, p["s"] * np.sin(y)], -1)


def force(t: Any, q: Any, p: Any) -> Any:
    return field(t, q, p) - q


NOISE = {"diffusion": diffusion, "noise": rv.Brownian(seed=3)}
KINDS: dict[str, dict] = {
    "ode": {}, "sde": NOISE, "tree": {**NOISE, "noise": rv.BrownianTree(3, 0.0, 1.0)},
    "cde": {"field": controlled, "control": rv.HermiteCubic(*PATH)}, "linear": {"field": controlled, "control": rv.LinearPath(*PATH)},
    "times": {},                                           # an ode, and the gradient with respect to its grid besides
    "adaptive": {"controller": rv.PID(1e-4, 1e-5), "ts": (0.0, 1.0)},
}


def leaping() -> Any:
    """A method of the user's: two copies that leap over each other, and exchange their names."""
    return rv.shears(lambda t0, t1, dx: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, dx)), rv.Swap("y", "z")])


class Of(NamedTuple):
    """A method, and by what a rounding has grown at the end of its reverse sweep, at most; noise, adaptive: whether it takes part."""
    method: Any
    growth: float
    noise: bool = True
    adaptive: bool = False


# Growth: the product of the shears' Lipschitz bounds over the sweep is exp(2 L T) or so, L T < 2; Coupled adds 1 / (1 - lam) to it.
METHODS = {
    "rk midpoint": Of(rv.RungeKutta("midpoint"), 1.0, adaptive=True), "rk bosh3": Of(rv.RungeKutta("bosh3"), 1.0, adaptive=True),
    "rk4": Of(rv.RungeKutta("rk4"), 1.0), "coupled": Of(rv.Coupled("bosh3"), 1e3, adaptive=True),
    "heun": Of(rv.ReversibleHeun(), 55.0, adaptive=True), "alf": Of(rv.AsynchronousLeapfrog(), 55.0, noise=False),
    "leapfrog": Of(rv.LeapfrogMidpoint(), 55.0, noise=False), "verlet": Of(rv.VelocityVerlet(), 55.0, noise=False),
    "composed": Of(rv.Composition(rv.ReversibleHeun()), 55.0, noise=False), "own": Of(leaping(), 55.0),
    "ees": Of(rv.EES(stages=6), 55.0),                     # reversal order 11: h^11 < 1e-15, where the equation is that smooth
}
EXACT = {"direct": rv.Direct(), "checkpointed": rv.Checkpointed(4), "all kept": rv.Checkpointed(99)}
MODES = {**EXACT, "reversible": rv.Reversible(), "resync": rv.Reversible(resync=5), "automatic": rv.Automatic(),
         "symplectic": rv.SymplecticAdjoint(), "backsolve": rv.Backsolve(tol=1e9)}
ENGINES: dict[str, dict] = {
    "eager": {"backend": "eager"}, "replay": {"backend": "replay"}, "mirror": {"backend": "replay", "arithmetic": "strict"},
    "native": {"backend": "native"}, "strict": {"backend": "native", "arithmetic": "strict"}, "shim": {},
}
RECONSTRUCTING = ("reversible", "resync", "automatic")
NAMES = {"mirror": "replay", "strict": "native", "shim": "fused"}          # what stats.backend says


class Case(NamedTuple):
    kind: str
    method: str
    mode: str
    engine: str


def possible(case: Case) -> bool:
    """Whether the library offers it: all else is refused, which other tests see to."""
    of = METHODS[case.method]
    runge_kutta = isinstance(of.method, rv.RungeKutta)
    reversible = not runge_kutta or isinstance(of.method, rv.NearReversible)
    return ((of.noise or case.kind in ("ode", "times", "cde")) and (of.adaptive or case.kind != "adaptive")
            and (reversible or case.mode not in RECONSTRUCTING) and not (case.method == "ees" and case.kind == "cde" and
                                                                         case.mode in RECONSTRUCTING)
            and (runge_kutta or case.mode != "symplectic")
            and not (case.method == "verlet" and case.kind not in ("ode", "times"))
            and not (case.kind == "adaptive" and case.engine == "eager" and case.mode == "direct"))          # the oracle itself


def cases() -> list[Case]:
    return [case for at in itertools.product(KINDS, METHODS, MODES, ENGINES) if possible(case := Case(*at))]


def pairs(case: Case) -> set:
    return set(itertools.combinations(enumerate(case), 2))


def sample(seed: int = 0) -> list[Case]:
    """Few cases in which every two of (kind, method, mode, engine) that can meet do: greedily, the best of some drawn at random."""
    draw, left = random.Random(seed), cases()
    open_pairs, found = set().union(*map(pairs, left)), []
    while open_pairs:
        best = max(draw.sample(left, min(200, len(left))), key=lambda case: len(pairs(case) & open_pairs))
        if pairs(best) & open_pairs:
            found.append(best)
            open_pairs -= pairs(best)
    return found


def gradients(kind: str, method: str, mode: Any, how: dict, ts: Any = None) -> tuple[Any, Any]:
    """(dL/dy0, dL/dparams), of the kind "times" dL/dts too, and the solution; ts: a grid to take in place of the kind's own."""
    options = dict(KINDS[kind])
    if ts is not None:
        options.pop("controller", None)
    f = force if method == "verlet" else options.pop("field", field)
    grid = options.pop("ts", TS) if ts is None else ts
    options.pop("ts", None)
    y0 = (Y0, 0.5 * Y0[::-1]) if method == "verlet" else Y0

    def loss(y0: Any, p: Any, grid: Any = grid) -> Any:
        sol = rv.solve(f, y0, grid, p, method=METHODS[method].method, gradient=mode, save=None if ts is None and kind == "adaptive"
                       else np.arange(0, len(grid), 3) if kind != "adaptive" else None, **how, **options)
        leaves = rv.tree.flatten((sol.ys, sol.y1))[0]
        return sum(np.sum(np.cos(np.arange(x.size)).reshape(x.shape) * x * x) for x in leaves), sol

    args = (y0, PARAMS, grid) if kind == "times" else (y0, PARAMS)
    (_, sol), found = rv.value_and_grad(loss, argnums=tuple(range(len(args))), has_aux=True)(*args)
    return found, sol


@cache
def oracle(kind: str, method: str, mode: str, grid: bytes) -> Any:
    """The gradient on the tape, on a given grid."""
    ts = np.frombuffer(grid) if kind == "adaptive" else None
    return gradients(kind, method, MODES[mode], {"backend": "eager"}, ts)[0]


def allowed(case: Case, steps: int) -> float:
    """Each of the steps' six stages is some 20 roundings, and adds to a sum; what is reconstructed has grown besides."""
    growth = METHODS[case.method].growth if case.mode in RECONSTRUCTING else 1.0
    return steps * 120 * EPS * growth


def check(case: Case) -> tuple[float, float]:
    """The largest error of either gradient, relative to it, and what is allowed; AssertionError where something else is wrong."""
    how = {"backend": rehearse()} if case.engine == "shim" else ENGINES[case.engine]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                    # two copies may part here: the gradient is that of the steps all the same
        found, sol = gradients(case.kind, case.method, MODES[case.mode], how)
        wanted = oracle(case.kind, case.method, "backsolve" if case.mode == "backsolve" else "direct",
                        np.asarray(sol.ts).tobytes() if case.kind == "adaptive" else b"")
    name = NAMES.get(case.engine, case.engine)
    assert sol.stats.backend == name, f"{case}: {sol.stats.backend} ran it, not {name}"
    assert sol.stats.fallback is None, f"{case}: {sol.stats.fallback} took over"
    kept = {"direct": sol.stats.steps + 1, "all kept": sol.stats.steps + 1, "symplectic": sol.stats.steps + 1, "checkpointed": 5}
    assert sol.stats.peak_states <= kept.get(case.mode, sol.stats.steps // 5 + 3), f"{case}: {sol.stats.peak_states} states"
    return max(distance(x, y) for x, y in zip(floats(found), floats(wanted), strict=True)), allowed(case, sol.stats.steps)


def floats(found: Any) -> list:
    return [[x for x in rv.tree.flatten(part)[0] if x is not None] for part in found]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="of the kinds, methods, modes and engines, those with this name")
    args = parser.parse_args(argv)
    worst: dict[tuple[str, str], float] = {}
    wrong = 0
    todo = [case for case in cases() if args.only is None or args.only in case]
    for case in todo:
        try:
            error, bound = check(case)
        except Exception as caught:
            error, bound = float("inf"), 0.0
            print(f"{case}: {type(caught).__name__}: {caught}")
        if not error <= bound:
            wrong += 1
            print(f"{case}: off by {error:.2g}, allowed {bound:.2g}")
        key = case.mode, case.engine
        worst[key] = max(worst.get(key, 0.0), error / bound if bound else error)
    print(f"{len(todo)} cases, {wrong} wrong. Largest error as a share of what is allowed:")
    print(f"{'':14}" + "".join(f"{engine:>9}" for engine in ENGINES))
    for mode in MODES:
        print(f"{mode:14}" + "".join(f"{worst[mode, engine]:9.3f}" if (mode, engine) in worst else f"{'':9}" for engine in ENGINES))
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main()))

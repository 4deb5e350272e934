"""Which cases there are: {name: case}, a case being the method with its options, the kind of problem, the grid, the steps.

    gradient "exact"            dL/dy0 and dL/dparams of the discrete solve, L = sum_n <weights_n, y_n>
    gradient "reconstructed"    of nearly reversible methods: what their reverse sweep gives. The states are reconstructed from
                                the last, y_n ~ Phi_{-h}(y_{n+1}), but y_0, which is known; only y_N has a weight
"""
from __future__ import annotations

from typing import Any, NamedTuple

BASES = ("euler", "midpoint", "heun2", "ralston3", "bosh3", "rk4", "dopri5", "tsit5")
LONG = ("dopri5",
"tsit5")             # six stages: fewer steps, so that the file stays small, and larger ones, so that faults show


class Spec(NamedTuple):
    method: dict
    kind: str = "ode"
    grid: str = "varying"
    steps: int = 6
    gradient: str = "exact"


def coupled(base: str, lam: float) -> dict:
    return {"name": "Coupled", "base": base, "lam": lam}


COUPLED = coupled("midpoint", 0.875)
ALF = {"name": "AsynchronousLeapfrog", "eta": 1.0}
DAMPED = {"name": "AsynchronousLeapfrog", "eta": 0.875}
HEUN = {"name": "ReversibleHeun"}
LEAPFROG = {"name": "LeapfrogMidpoint"}
EULER = {"name": "SemiImplicitEuler"}
VERLET = {"name": "VelocityVerlet"}
EES = {"ees25-x0.1": {"name": "EES25", "x": 0.1}, "ees25-x0.25": {"name": "EES25",
"x": 0.25}, "ees27": {"name": "EES27"},
       **{f"ees-stages{s}": {"name": "EES", "stages": s} for s in (2, 3, 4, 5, 6)}}


def sized(method: dict, coarse: bool, steps: int, gradient: str = "exact") -> Spec:
    return Spec(method, grid="coarse", steps=steps, gradient=gradient) if coarse else Spec(method, gradient=gradient)


def composed(method: dict, order: int) -> dict:
    return {"name": "Composition", "method": method["name"], "order": order}


def odes() -> dict[str, Spec]:
    """Ordinary equations on a varying grid."""
    found = {f"rk-{base}": sized({"name": "RungeKutta", "base": base}, base in LONG, 4) for base in BASES}
    found |= {f"coupled-{base}-lam0.875": sized(coupled(base, 0.875), base in LONG, 3) for base in BASES}
    found |= {f"coupled-midpoint-lam{lam:g}": Spec(coupled("midpoint", lam)) for lam in (0.5, 0.99, 0.999, 1.0)}
    found |= {"coupled-rk4-lam0.999": Spec(coupled("rk4", 0.999)), "alf": Spec(ALF), "alf-eta0.875": Spec(DAMPED),
              "reversible-heun": Spec(HEUN), "leapfrog-midpoint": Spec(LEAPFROG),
              "semi-implicit-euler": Spec(EULER, "split"), "verlet": Spec(VERLET, "split"),
              "alf-order4": Spec(composed(ALF, 4)), "reversible-heun-order4": Spec(composed(HEUN, 4))}
    found |= {f"verlet-order{order}": Spec(composed(VERLET, order), "split", grid, steps)
              for order, grid, steps in ((4, "varying", 6), (6, "coarse", 4), (8, "coarse", 2))}
    found |= {name: sized(method, method.get("stages", 0) > 3, 5) for name, method in EES.items()}
    return found


def on_other_grids() -> dict[str, Spec]:
    chosen = {"rk-rk4": {"name": "RungeKutta",
    "base": "rk4"}, "coupled-midpoint": COUPLED, "alf": ALF, "alf-eta0.875": DAMPED,
              "reversible-heun": HEUN, "leapfrog-midpoint": LEAPFROG, "ees25-x0.1": EES["ees25-x0.1"]}
    found = {f"{name}-{grid}": Spec(method, grid=grid) for grid in ("uniform",
    "backwards") for name, method in chosen.items()}
    found |= {f"{name}-uniform": Spec(method, "split", "uniform") for name, method in (
        ("semi-implicit-euler", EULER), ("verlet", VERLET), ("verlet-order4", composed(VERLET, 4)))}
    found |= {f"{name}-uniform": Spec(method, grid="uniform") for name, method in (          # of EES27 a fault would not show there
        ("alf-order4", composed(ALF, 4)), ("reversible-heun-order4", composed(HEUN, 4)),
        ("coupled-rk4-lam0.875", coupled("rk4", 0.875)), ("ees-stages3", EES["ees-stages3"]))}
    return found


def reconstructed() -> dict[str, Spec]:
    """Nearly reversible methods run backwards."""
    found = {f"near-{base}": sized({"name": "NearReversible",
    "base": base}, base in LONG, 4, "reconstructed") for base in BASES}
    found |= {f"{name}-back": sized(method, method.get("stages", 0) > 3 or name == "ees27", 5, "reconstructed")
              for name, method in EES.items()}
    corrected = {"near-rk4-correct1": {"name": "NearReversible", "base": "rk4", "correct": 1},
                 "near-midpoint-correct2": {"name": "NearReversible", "base": "midpoint", "correct": 2},
                 "ees25-x0.1-correct1-back": {**EES["ees25-x0.1"], "correct": 1},
                 "ees-stages3-correct1-back": {**EES["ees-stages3"], "correct": 1}}
    found |= {name: Spec(method, gradient="reconstructed") for name, method in corrected.items()}
    found["ees27-correct1-back"] = Spec({**EES["ees27"], "correct": 1}, grid="coarse", steps=5, gradient="reconstructed")
    others = {"near-rk4": {"name": "NearReversible", "base": "rk4"}, "ees25-x0.1-back": EES["ees25-x0.1"]}
    return found | {f"{name}-{grid}": Spec(method, grid=grid, gradient="reconstructed")
                    for grid in ("uniform", "backwards") for name, method in others.items()}


def driven() -> dict[str, Spec]:
    """Stratonovich noise with recorded increments, and a control."""
    found = {}
    for kind in ("diagonal", "general", "additive", "controlled"):
        methods = {"reversible-heun": HEUN, "coupled-midpoint": COUPLED, "ees25-x0.1": EES["ees25-x0.1"],
                   "ees-stages4": EES["ees-stages4"], "rk-heun2": {"name": "RungeKutta", "base": "heun2"}}
        found |= {f"{kind}-{name}": Spec(method, kind) for name, method in methods.items()}
    found |= {"diagonal-ees27": Spec(EES["ees27"], "diagonal"), "general-rk-rk4": Spec({"name": "RungeKutta",
    "base": "rk4"}, "general"),
              "general-coupled-heun2": Spec(coupled("heun2", 0.5), "general"),
              "diagonal-reversible-heun-uniform": Spec(HEUN, "diagonal", "uniform"),
              "general-reversible-heun-uniform": Spec(HEUN, "general", "uniform"),
              "additive-reversible-heun-uniform": Spec(HEUN, "additive", "uniform"),
              "diagonal-ees-stages4-back": Spec(EES["ees-stages4"], "diagonal", "coarse", 4, "reconstructed"),
              "diagonal-coupled-midpoint-uniform": Spec(COUPLED, "diagonal", "uniform"),
              "controlled-reversible-heun-uniform": Spec(HEUN, "controlled", "uniform"),
              "additive-rk-euler": Spec({"name": "RungeKutta", "base": "euler"}, "additive"),              # Euler and Maruyama
              "diagonal-near-rk4": Spec({"name": "NearReversible",
              "base": "rk4"}, "diagonal", gradient="reconstructed")}
    return found


def fixed_points() -> dict[str, Spec]:
    """Time counts the iterations, and the map is f(1, z)."""
    chosen = {f"revdeq-beta{beta:g}": {"name": "RevDEQ", "beta": beta} for beta in (0.5, 0.75, 1.25)}
    chosen |= {f"picard-damping{damping:g}": {"name": "Picard", "damping": damping} for damping in (0.75, 1.0)}
    return {name: Spec(method, "fixed-point", "iterations", 6) for name, method in chosen.items()}


CASES: dict[str, Any] = odes() | on_other_grids() | reconstructed() | driven() | fixed_points()

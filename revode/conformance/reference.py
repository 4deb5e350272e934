"""Run the texts: the trajectory and the gradient of a case in float64, as they stand or with a fault in them."""
from __future__ import annotations

import math
import textwrap
from fractions import Fraction as Q
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from .cases import NOISE, Case, Problem
from .texts import texts


class Dx(NamedTuple):
    """What one step multiplies f and g by."""
    h: Any
    dW: Any

    def __neg__(self) -> Dx:
        return Dx(-self.h, -self.dW)

    def times(self, g: float) -> Dx:
        return Dx(g * self.h, g * self.dW)


class Tree(dict):
    """dL/dparams: arrays by name, added and scaled together."""

    def __add__(self, other: dict) -> Tree:
        return Tree({name: self.get(name, 0.0) + other.get(name, 0.0) for name in {**self, **other}})

    def __rmul__(self, factor: float) -> Tree:
        return Tree({name: factor * x for name, x in self.items()})

    def __neg__(self) -> Tree:
        return -1.0 * self


def fractions(text: str) -> list:
    return [Q(word) for word in text.split()]


# base: (rows of A below the diagonal, b); the stages that serve an error estimate alone are left out
TABLEAUX = {
    "euler": ([], "1"), "midpoint": (["1/2"], "0 1"), "heun2": (["1"], "1/2 1/2"), "ralston3": (["1/2", "0 3/4"], "2/9 1/3 4/9"),
    "bosh3": (["1/2", "0 3/4"], "2/9 1/3 4/9"), "rk4": (["1/2", "0 1/2", "0 0 1"], "1/6 1/3 1/3 1/6"),
    "dopri5": (["1/5", "3/40 9/40", "44/45 -56/15 32/9", "19372/6561 -25360/2187 64448/6561 -212/729",
                "9017/3168 -355/33 46732/5247 49/176 -5103/18656"], "35/384 0 500/1113 125/192 -2187/6784 11/84"),
    "tsit5": (["0.161", "-0.008480655492356989 0.335480655492357", "2.8971530571054935 -6.359448489975075 4.362295432869581",
               "5.325864828439257 -11.74888356406283 7.495539342889836 -0.09249506636175525",
               "5.86145544294642 -12.92096931784711 8.159367898576159 -0.071584973281401 -0.02826905039406838"],
              "0.09646076681806523 0.01 0.4798896504144996 1.379008574103742 -3.290069515436081 2.324710524099774"),
    # taken for one of them
    "the 3/8 rule": (["1/3", "-1/3 1", "1 -1 1"], "1/8 3/8 3/8 1/8"), "Ralston's of order 2": (["2/3"], "1/4 3/4"),
    "Heun's of order 3": (["1/3", "0 2/3"], "1/4 0 3/4"), "Kutta's of order 3": (["1/2", "-1 2"], "1/6 2/3 1/6"),
    "SSPRK3": (["1", "1/4 1/4"], "1/6 1/6 2/3"),
}


def tableau(base: str) -> tuple[list, list, list]:
    """A, b, c as floats."""
    rows, b = [[], *map(fractions, TABLEAUX[base][0])], fractions(TABLEAUX[base][1])
    return [[float(a) for a in row] for row in rows], [float(x) for x in b], [float(sum(row)) for row in rows]


def low_storage(method: dict) -> tuple[list, list, list]:
    """A, B, and the stage times, which the scheme itself gives on f = 1."""
    if method["name"] == "EES25":
        x = method["x"]
        a21, a32 = (1 + 2 * x) / (4 * (1 - x)), (1 - x) / (1 - 4 * x * x)
        A, B = [0.0, (x - a21) / 0.5, (0.5 - a32) / (0.5 - x)], [a21, a32, 0.5 - x]
    elif method["name"] == "EES27":
        r = math.sqrt(2.0)
        A = [0.0, (4 * r - 7) / 3, -(4 + 5 * r) / 12, 3 * (8 * r - 31) / 49]
        B = [(2 - r) / 3, (4 + r) / 8, 3 * (3 - r) / 7, (9 - 4 * r) / 14]
    else:
        s = method["stages"]
        sine = lambda k: math.sin(k * math.pi / (2 * s))
        A = [0.0, *(-sine(2 * i - 1) / sine(2 * i + 1) for i in range(1, s))]
        B = [*(2 * sine(1) * sine(2 * i - 1) for i in range(1, s)), sine(1) ** 2]
    c, y, d = [], 0.0, 0.0
    for a, b in zip(A, B, strict=True):
        c.append(y)
        d = a * d + 1.0
        y += b * d
    return A, B, c


def fractions_of_a_step(method: dict) -> list[float]:
    """The substeps of a Composition: three for order 4, nine for 6; one for every other method."""
    found = [1.0]
    for p in range(2, method.get("order", 2), 2):
        g = 1 / (2 - 2 ** (1 / (p + 1)))
        found = [outer * inner for outer in (g, 1 - 2 * g, g) for inner in found]
    return found


@cache
def compiled(text: str, name: str) -> CodeType:
    return compile(text, f"<the text {name}>", "exec")


class Reference:
    """The texts of one case in a namespace of their own. edits: (text's name, old, new) changes; options: of the method."""

    def __init__(self, problem: Problem, edits: tuple = (), options: dict | None = None) -> None:
        self.problem = problem
        self.method = method = {**problem.method, **(options or {})}
        self.parts, self.texts = texts(method, problem.kind)
        for name, old, new in edits:
            self.texts[name] = self.texts[name].replace(old, new)
        self.code = {name: compiled(text, name) for name, text in self.texts.items() if "return" not in text}
        N = len(problem.ts) - 1
        self.names: dict[str, Any] = {
            "tanh": np.tanh, "outer": np.outer, "stack": np.stack, "sqrt": np.sqrt, "Tree": Tree, "Dx": Dx, "memo": {}, "N": N,
            "ts": problem.ts, "dWs": problem.dWs if problem.dWs is not None else np.zeros(N), "y0": problem.y0,
            "W": problem.weights, "p": problem.params, "G0": Tree({k: 0 * v for k, v in problem.params.items()}),
            "correct": 0, "eta": 1.0, **{k: v for k, v in method.items() if k not in ("name", "base", "method")}}
        if "base" in method:
            self.names |= dict(zip("Abc", tableau(method["base"]), strict=True))
        elif self.texts.get("phi"):
            self.names |= dict(zip("ABc", low_storage(method), strict=True))
        self.define()

    def define(self) -> None:
        """The texts with a `return` become functions."""
        arguments = {"drift": "t, y", "drift_vjp": "t, y, a", "noise": "t, y", "increment": "t, y, dx", "psi": "t, dx, y",
                     "psi_vjp": "t, dx, y, a", "phi": "t, dx, y", "phi_vjp": "t, dx, y, a"}
        called = {"drift": "f", "drift_vjp": "f_vjp", "noise": "g", "increment": "F"}
        for name, given in arguments.items():
            if self.texts.get(name):
                body = textwrap.indent(self.texts[name].strip(), "    ")
                exec(compiled(f"def {called.get(name, name)}({given}):\n{body}\n", name), self.names)
        self.names["F_vjp"] = self.increment_vjp
        self.names.setdefault("sum", sum)

    def increment_vjp(self, t: Any, y: Any, dx: Dx, a: Any) -> tuple[Any, Tree]:
        """The pullback of F(t, y, dx)."""
        p, kind = self.problem.params, self.problem.kind
        ay, ap = self.names["f_vjp"](t, y, dx.h * a) if kind != "controlled" else (0 * a, Tree())
        if kind not in NOISE:
            return ay, ap
        inside = p["c"] * t if kind == "additive" else y @ p["V"] + p["c"] * t
        ag = a * dx.dW if kind == "diagonal" else np.outer(a, dx.dW).ravel()
        s = ag * (1 - np.tanh(inside) ** 2) / 2
        ap = ap + Tree(c=s * t)
        return (ay, ap) if kind == "additive" else (ay + p["V"] @ s, ap + Tree(V=np.outer(y, s)))

    def run(self, name: str) -> None:
        exec(self.code[name], self.names)

    def at(self, n: int) -> None:
        self.names["n"] = n
        self.run("grid")

    def state(self) -> dict:
        return {part: self.names[part] for part in self.parts}

    def substeps(self) -> list[tuple]:
        """The ends and the increments of the steps that step n is made of."""
        names, found = self.names, []
        t, dx = names["t"], names["dx"]
        for g in (gammas := fractions_of_a_step(self.method)):
            found.append((t, t + g * dx.h, dx.times(g)))
            t = t + g * dx.h
        return found if len(gammas) > 1 else [(names["t"], names["t1"], dx)]

    def step(self) -> list[tuple[tuple, dict, dict]]:
        """Take a step; what it was made of: (times and increments, state before, state after)."""
        taken = []
        for times in self.substeps():
            self.names |= dict(zip(("t", "t1", "dx"), times, strict=True), h=times[2].h)
            before = self.state()
            self.run("step")
            taken.append((times, before, self.state()))
        return taken

    def trajectory(self) -> tuple[np.ndarray, list[dict]]:
        """ys, and the states, at every grid point."""
        ys, states = [], []
        for n in range(self.names["N"] + 1):
            if n == 0:
                self.at(0)
                self.run("start")
            else:
                self.at(n - 1)
                self.step()
            self.names["n"] = n
            self.run("output")
            ys.append(self.names["ys"])
            states.append(self.state())
        return np.stack(ys), states

    def gradient(self, states: list[dict]) -> tuple[Any, Tree, list[dict]]:
        """dL/dy0, dL/dparams, and the cotangents of the parts at every grid point, pulled back at these states."""
        names, N = self.names, self.names["N"]
        names["G"] = names["G0"]
        names |= {f"a{part}": np.zeros_like(x) for part, x in states[N].items()}
        after, trace = states[N], list[dict]()
        for n in range(N, -1, -1):
            if n < N:
                self.at(n)
                after = self.undo(states[n], after)
            names["n"] = n
            self.run("weights")
            self.run("enter")
            trace.insert(0, {part: names[f"a{part}"] for part in self.parts})
        self.at(0)
        self.run("finish")
        self.run("result")
        return names["ay0"], names["aparams"], trace

    def undo(self, before: dict, after: dict) -> dict:
        """Pull back step n; the state that the step before it is pulled back at."""
        names = self.names
        if self.problem.gradient == "reconstructed":
            names["y1"] = after["y"]
            self.run("reconstruct")
            before = {"y": names["y"]}
        names |= before
        for times, state, end in reversed(self.step()):
            names |= dict(zip(("t", "t1", "dx"), times, strict=True), h=times[2].h)
            names |= state | {f"{part}1": x for part, x in end.items()}
            self.run("back")
        return before


def solved(case: Case, edits: tuple = (), options: dict | None = None) -> tuple[np.ndarray, list[dict]]:
    return Reference(case.problem, edits, options).trajectory()


def pulled(case: Case, edits: tuple = (), options: dict | None = None) -> tuple[Any, Tree, list[dict]]:
    """The gradient at the right states: a fault of the gradient alone."""
    return Reference(case.problem, edits, options).gradient(case.states)

"""Attempts of adaptive steps as programs: who a controller asks (adaptive.py).

    Search      lines of NumPy, one attempt at a time; the controller is that of the tape
"""
from __future__ import annotations

from typing import Any

import numpy as np

from ..adaptive import norm_of
from ..watch import size
from .fields import DERIVATIVE
from .replay import Replay
from .steps import StepPrograms


class Search(Replay):
    """Attempts in lines of NumPy. What an attempt changes is kept aside, and put back where it is rejected."""

    looks_often = True

    def __init__(self, steps: StepPrograms, parts: dict, merge: bool) -> None:
        # What a control makes of the time is that of the solve at hand; all else is a line of the programs.
        controlled = any(x.op is not None and x.op.name == DERIVATIVE for program in steps.programs.values() for x in program.values)
        self.of_steps = ("step",) if controlled else ()
        super().__init__(steps, parts, merge)

    def load(self, problem: Any, params: Any, parts: dict, cotangents: dict | None = None) -> None:
        super().load(problem, params, parts, cotangents)
        self.params, self.dtype = params, problem.adaptive.dtype
        changed = [self.store[role] for role in self.codes["step"].program.outputs if role[0] in ("part", "carry", "most")]
        self.aside = [(x, np.empty_like(x)) for x in changed]
        self.parts = [(name, self.store["part", name]) for name in problem.method.parts]
        self.errors = [self.store[role] for role in sorted(self.store) if role[0] == "error"]
        self.stays, self.norms = True, (0.0, 0.0)

    def extend(self, most: int = 1) -> dict:
        """One accepted step."""
        problem = self.problem
        if not problem.adaptive.h:
            problem.adaptive.begin(problem, self.read("part"), self.params)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):      # what overflows is rejected
            problem.adaptive.search(problem, self)
        self.stays = True
        self.begins = not problem.method.exactly_reversible                      # a flow evaluates the field anew
        return {name: [x.copy()] for name, x in self.parts}

    def attempt(self, t0: Any, t1: Any, h: Any, h_before: Any) -> tuple[float, float]:
        if self.begins:
            self.once("begin", t0, t1, h, h_before)
            self.begins = False
        if self.stays:
            for x, before in self.aside:
                before[...] = x
            self.stays = False
        self.once("step", t0, t1, h, h_before)
        y1 = self.store["part", self.problem.method.outputs[0]]
        norms = [norm_of(total, y1) for total in self.errors]
        self.norms = norms[0], norms[1] if len(norms) > 1 else 0.0
        return self.norms

    def reject(self) -> None:
        for x, before in self.aside:
            x[...] = before
        self.begins = self.problem.N == 0 and self.problem.method.exactly_reversible       # as on the tape, which knows no value yet

    def largest(self) -> float:
        return max(size(self.store["part", name]) for name in self.problem.method.outputs)

    def read(self, kind: str) -> Any:
        return dict(enumerate(self.norms)) if kind == "norm" else super().read(kind)

    def once(self, name: str, t0: Any, t1: Any, h: Any, h_before: Any) -> None:
        """Run a program for one step that the grid does not have yet."""
        if name not in self.codes:
            return
        code, counts, problem = self.codes[name], self.steps.counts[name], self.problem
        self.stats.nfe += counts.nfe
        given = {"t0": t0, "t1": t1, "h": h, "h_before": h_before}
        for of, x in given.items():
            if ("step", of) in self.store:
                self.store["step", of][...] = x
        found = self.grids[name].at({of: np.asarray([x]) for of, x in given.items()}, problem, problem.system.control) \
            if code.per_step else {}
        drives = problem.driver.given(problem.N, t0, t1, h, problem) if code.drives else {}
        driven = [drives[role[1]] for i in code.drives if (role := code.program.values[i].role) is not None]
        code.function(range(1), 0, *self.bound[name], *([found[i][0, ...]] for i in code.per_step), *([x] for x in driven))

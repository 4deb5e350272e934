"""methods/protocol.py: nobody asks a method whether it has an attribute, and methods of any origin have all of them."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.methods.protocol import Method, as_method

ASKED = [name for name in vars(Method) if not name.startswith("_")]
PROBE = re.compile(r"(?:has|get)attr\([\w.\[\]]*method\b[^)]*\)")
AT_THE_DOOR = {'hasattr(method, "start")', 'hasattr(method, "word")', 'getattr(method, "beta", 0.5)', 'getattr(args, "method", None)'}


def test_no_method_is_probed() -> None:
    """At the door, where it may be no method at all, it is asked what it is."""
    found = {f"{path.name}: {probe}" for path in Path(rv.__file__).parent.rglob("*.py")
             for probe in PROBE.findall(path.read_text()) if probe not in AT_THE_DOOR}
    assert not found


@dataclass(frozen=True)
class Own:
    """A user's method of no library class: only what has to be there."""
    a: float = 1.0
    parts = ("y", "z")
    outputs = ("y",)

    def start(self, F: Any, step: Any, y: Any) -> dict:
        return {"y": y, "z": y}

    def word(self, step: Any) -> list:
        return [rv.Shear("y", ("z",), lambda F, z: self.a * F(step.t0, z, step.dx)),
                rv.Shear("z", ("y",), lambda F, y: F(step.t1, y, step.dx))]


class Flow:
    parts, outputs, order = ("y",), ("y",), 1

    def start(self, F: Any, step: Any, y: Any) -> dict:
        return {"y": y}

    def flow(self, F: Any, t0: Any, t1: Any, y: Any, dx: Any) -> Any:
        return y + F(t0, y, dx)


@pytest.mark.parametrize("method", [rv.Coupled(), rv.EES27(), rv.RungeKutta(), rv.shears(lambda t0, t1, h: []), Own(), Flow()],
                         ids=lambda method: type(method).__name__)
def test_a_method_has_every_attribute(method: Any) -> None:
    made = as_method(method)
    assert [name for name in ASKED if not hasattr(made, name)] == []
    assert made.exactly_reversible == hasattr(method, "word")
    assert made.inner is made and made.composed is made
    assert (made is method) == isinstance(method, Method)
    if isinstance(method, Own):                            # what it says of itself stays, and equality with it
        assert made.a == method.a and made == as_method(Own()) and made != as_method(Own(2.0)) and "Own(a=1.0)" in repr(made)


def test_foreign_methods_get_all_modes() -> None:
    y0, ts, p = np.array([1.0, -0.5]), np.linspace(0.0, 1.0, 11), np.array([0.3, -0.7])
    for method, modes in ((Own(0.5), (rv.Reversible(), rv.Checkpointed(3))), (Flow(), (rv.Checkpointed(3),))):
        slope = lambda mode, method=method: rv.grad(lambda p: np.sum(rv.solve(
            lambda t, y, p: np.sin(y) * p, y0, ts, p, method=method, gradient=mode).y1))(p)
        for mode in modes:
            np.testing.assert_allclose(slope(mode), slope(rv.Direct()), rtol=1e-13)          # 10 steps
    with pytest.raises(TypeError, match="cannot be run backwards"):
        rv.grad(lambda p: np.sum(rv.solve(lambda t, y, p: y * p, y0, ts, p, method=Flow(), gradient=rv.Reversible()).y1))(p)

"""What other libraries' operations have in common: needs neither."""
from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.interop.operation import Operation


@pytest.mark.parametrize(("name", "library"), [("torch", "PyTorch"), ("jax", "JAX")])
def test_a_library_that_is_missing_is_named(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from revode import interop
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"revode.interop.{name}", raising=False)
    monkeypatch.delitem(vars(interop), name, raising=False)
    with pytest.raises(ModuleNotFoundError, match=f"interop.{name} needs {library}, which is not installed: pip install {name}"):
        getattr(interop, name)
    with pytest.raises(AttributeError):
        _ = interop.tensorflow


class Box:
    """An array of another library."""

    def __init__(self, x: Any) -> None:
        self.x = x


def test_an_operation_is_a_function_of_the_others_arrays() -> None:
    """Its pullback gives what was wanted, in their order; numbers and NumPy's arrays go on as they are."""
    def function(y: Any, p: Any) -> Any:
        return {"sum": y["a"] * p[0] + p[1] * p[2], "a": y["a"]}

    given = {"y": {"a": Box(np.array([1.0, 2.0]))}, "p": (Box(np.array(3.0)), 2.0, np.array([5.0, 7.0]))}
    call = Operation("interop.torch.solve", function, given, lambda x: isinstance(x, Box))
    plain = [box.x for box in call.arrays]
    assert call.names == ["y['a']", "p[0]"]
    values, pull = call.with_pull(plain, [False, True])
    np.testing.assert_array_equal(values[0], [13.0, 20.0])
    nothing, a = pull([np.array([1.0, 10.0]), None])
    assert nothing is None and a == 21.0
    assert rv.tree.unflatten(call.made, call.value(plain)).keys() == {"sum", "a"}

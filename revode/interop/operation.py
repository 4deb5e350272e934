"""What a solve, or a fixed point, is for another library: a function of a list of its arrays, with a pullback.

    call = Operation("interop.torch.solve", function, {"y0": y0, "params": params}, is_array)
    call.arrays                     the leaves that belong to the other library, in a fixed order; call.names: what they are called
    call.value(plain)               the outputs of function, as a list, for NumPy (or CuPy) arrays in their place
    call.with_pull(plain, wanted)   the same, and the pullback from cotangents (None: zero) to those arrays that are wanted
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine import tree
from ..engine.derivatives import vjp
from ..equilibrium import fixed_point
from ..stepping import Stats


class Solved(NamedTuple):
    """What a solve gives to another library.

    Parameters
    ----------
    ts : (saved,) the saved times, on the host.
    ys : (saved, *y.shape) the solution there, a tree like y0, of that library's arrays.
    y1 : (*y.shape) the solution at the end.
    stats : what it cost; complete once the gradient has been computed. None under jit.
    """
    ts: Any
    ys: Any
    y1: Any
    stats: Stats | None


class Operation:
    """A function of trees whose leaves belong to another library.

    name : of the public function, for messages; trees : its differentiable arguments, by name; is_array : whether a leaf is an
    array of the other library. All other leaves (numbers, strings, None, NumPy arrays) go on as they are.
    """

    def __init__(self, name: str, function: Callable, trees: dict[str, Any], is_array: Callable) -> None:
        self.name, self.function = name, function
        self.leaves, self.structure = tree.flatten(tuple(trees.values()))
        paths = [path for argument, x in trees.items() for path in tree.paths(x, argument)]
        self.places = [i for i, x in enumerate(self.leaves) if is_array(x)]
        self.names = [paths[i] for i in self.places]
        self.arrays = [self.leaves[i] for i in self.places]
        for path, x in zip(paths, self.leaves, strict=True):
            if hasattr(x, "__dlpack__") and not is_array(x) and not isinstance(x, np.ndarray):
                whose, library, first = type(x).__module__.partition(".")[0], name.split(".")[1], (self.names or ["no argument"])[0]
                raise TypeError(f"{name}: {path} is an array of {whose}, and {first} is one of {library}; hand it over first, by "
                                f"from_dlpack of {library}")
        self.made: Any = None                        # the structure of what the function returned last

    def trees(self, plain: Sequence[Any]) -> tuple:
        """The arguments, with these arrays in the places of the other library's."""
        leaves = list(self.leaves)
        for i, x in zip(self.places, plain, strict=True):
            leaves[i] = x
        return tree.unflatten(self.structure, leaves)

    def value(self, plain: Sequence[Any]) -> list:
        found, self.made = tree.flatten(self.function(*self.trees(plain)))
        return found

    def with_pull(self, plain: Sequence[Any], wanted: Sequence[bool]) -> tuple[list, Callable]:
        """The outputs, and pull(cotangents) -> one gradient for each array that is wanted, None for the others."""
        chosen = [k for k, want in enumerate(wanted) if want]

        def of(*active: Any) -> list:
            given = list(plain)
            for k, x in zip(chosen, active, strict=True):
                given[k] = x
            return self.value(given)

        values, pull = vjp(of, *(plain[k] for k in chosen))

        def pulled(cotangents: list) -> list:
            found = iter(pull(cotangents))
            return [next(found) if want else None for want in wanted]

        return values, pulled


def equilibrium(f: Callable, options: dict) -> Callable:
    """(z0, params, x) -> the fixed point; beside it the stats."""
    def run(z0: Any, params: Any, x: Any) -> Any:
        found = fixed_point(f, z0, params, x, **options)
        run.stats = found.stats                      # type: ignore[attr-defined]
        return found.z

    return run

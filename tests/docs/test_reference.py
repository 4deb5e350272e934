"""The reference: every public name has an entry, and its docstring says what STYLE asks for."""
from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import revode
import revode.analysis
import revode_cuda

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENTRIES = [name for page in sorted((DOCS / "api").glob("*.md")) for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)]
# What mathematics or an algorithm stands behind; the rest is bookkeeping, which has no source.
SOURCED = ("RungeKutta", "NearReversible", "EES", "EES25", "EES27", "Coupled", "ReversibleHeun", "AsynchronousLeapfrog",
           "LeapfrogMidpoint", "VelocityVerlet", "SemiImplicitEuler", "Composition", "Tableau", "Shear", "Swap", "shears",
           "Automatic", "Reversible", "Checkpointed", "Direct", "Backsolve", "Brownian", "BrownianTree", "LinearPath", "Rectilinear",
           "HermiteCubic", "PID", "advise", "vjp", "grad", "value_and_grad", "jacobian", "hessian", "hvp", "optim.sgd", "optim.adam",
           "optim.adamw", "optim.lbfgs", "nn.mlp", "nn.gelu", "nn.layer_norm", "nn.glorot", "analysis.amplification", "fixed_point",
           "RevDEQ", "Picard", "Anderson", "Implicit", "Phantom", "Lattice", "certify", "jvp")
# Records that are returned, warnings and errors: they are not called, so they have no cost and no example.
RECORDS = ("Solution", "Event", "FixedPoint", "Certificate", "State", "Stats", "RoundTrip", "Advice",
           "analysis.Printed", "optim.Optimiser", "parallel.Gathered", "Tensor")


def thing(name: str) -> Any:
    found: Any = revode
    if name.startswith("interop."):
        pytest.importorskip(name.split(".")[1], reason=f"{name.split('.')[1]} is not installed")
        importlib.import_module(f"revode.{name.rpartition('.')[0]}")
    for part in name.split("."):
        found = revode_cuda if part == "revode_cuda" else getattr(found, part)
    return found


def public() -> set[str]:
    """Every public name, modules opened."""
    names = {name for name in revode.__all__ if not isinstance(getattr(revode, name), ModuleType)}
    names |= {f"nn.{name}" for name in revode.nn.__all__}
    names |= {f"optim.{name}" for name, value in vars(revode.optim).items() if not name.startswith("_") and callable(value)
              and getattr(value, "__module__", "") == "revode.optim"}
    names |= {f"parallel.{name}" for name in revode.parallel.__all__}
    names |= {f"analysis.{name}" for name in revode.analysis.__all__}
    names |= {f"tree.{name}" for name in ("flatten", "unflatten", "map", "paths", "ravel")}
    names |= {f"interop.{name}" for name in ("torch.solve", "torch.layer", "torch.fixed_point", "jax.solve", "jax.fixed_point")}
    return names | {f"revode_cuda.{name}" for name in ("solve", "save", "to_device", "to_host")}


def test_every_public_name_has_one_entry() -> None:
    assert sorted(ENTRIES) == sorted(set(ENTRIES))
    missing, unknown = public() - set(ENTRIES), set(ENTRIES) - public()
    assert not missing and not unknown, f"add `::: NAME` to a page of docs/api: {sorted(missing)}; take out: {sorted(unknown)}"


def parameters(x: Any) -> list[str]:
    """The names that a caller gives."""
    if dataclasses.is_dataclass(x):
        return [f.name for f in dataclasses.fields(x)]
    if inspect.isclass(x) and hasattr(x, "_fields"):
        return list(x._fields)
    if inspect.isclass(x) and x.__init__ in (object.__init__, Exception.__init__, ArithmeticError.__init__):
        return []
    return [p for p in inspect.signature(x).parameters if p not in ("self",)]


def lacking(name: str, x: Any) -> list[str]:
    """What the docstring of a public name does not say."""
    doc = inspect.cleandoc(vars(x).get("__doc__") or "") if inspect.isclass(x) else inspect.getdoc(x) or ""
    gone = [] if doc and not re.match(rf"{name.split('.')[-1]}\([a-z_]+(:|=|, [a-z_]+:)", doc) else ["a docstring of its own"]
    section = re.search(r"^Parameters\n-{3,}\n(.*?)(?=\n\n(?!    )|\Z)", doc, re.M | re.S)
    heads = " ".join(re.findall(r"^(\S.*?) : ", section[1] if section else "", re.M))
    told = section[1] if section else ""
    said = (set(re.findall(r"\w+", told)) if ":" in told else set()) | set(re.findall(r"\w+", heads))
    inherits = inspect.isclass(x) and issubclass(x, Warning) and x is not revode.RevodeWarning
    if not inherits:
        gone += [f"the parameter {p}" for p in parameters(x) if p not in said]
    if name in RECORDS or (inspect.isclass(x) and issubclass(x, (Warning, ArithmeticError))):
        return gone
    if not inspect.isclass(x) and not re.search(r"^(Returns|Yields)\b|\. Returns ", doc, re.M):
        gone.append("Returns")
    if not re.search(r"\bRaises\b", doc) and parameters(x) and name not in ("Tableau", "Shear", "Swap"):
        gone.append("Raises")
    if not re.search(r"\bCost\b", doc) and name not in ("Tableau",):
        gone.append("Cost")
    if not re.search(r"^>>> ", doc, re.M):
        gone.append("an Example")
    if name in SOURCED and not re.search(r"^Source: ", doc, re.M):
        gone.append("Source")
    return gone


@pytest.mark.parametrize("name", ENTRIES)
def test_a_docstring_says_it_all(name: str) -> None:
    assert lacking(name, thing(name)) == []


def test_what_is_lacking_is_seen() -> None:
    def bare(x: int, y: int) -> int:
        """One line.

        Parameters
        ----------
        x : a number.
        """
        return x + y

    assert lacking("bare", bare) == ["the parameter y", "Returns", "Raises", "Cost", "an Example"]


def test_lists_name_what_is_there() -> None:
    assert set(SOURCED) <= set(ENTRIES) and set(RECORDS) <= set(ENTRIES)

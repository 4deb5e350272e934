"""A sample of the mutation check: changed signs and factors are noticed. All of them: python -m tests.mutation.mutate --all."""
import hashlib
import os

import pytest

from tests.compiler import HERE  # what is generated is noticed where it is compiled
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutate import ROOT, all_mutants, changed, mutants_of, run
from tests.mutation.quick import prepare

EACH = {"shears and methods": (["methods/*.py"], 3), "vjp rules": (["engine/primitives.py"], 3),
        "the tape": (["engine/tensor.py", "engine/derivatives.py", "engine/functions.py"], 2),
        "gradient modes": (["gradients/*.py"], 2), "engines": (["engines/*.py"], 1),
        "programs": ([f"compiled/{name}.py" for name in ("replay", *(["generate"] if HERE else []))], 1)}


def by_hash(mutant):
    """An order without chance that one changed line of the package does not upset for the others."""
    return hashlib.sha256(repr(mutant.key).encode()).hexdigest()


def test_the_changes_of_a_small_file_are_the_expected_ones(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text('"""Text with 1 + 1."""\n'
                    "def f(t0: int = 3, *, flag=True) -> 'x + y':\n"
                    "    if not t0 < -2 and flag:\n"
                    "        raise ValueError(f'{t0 + 1}')\n"
                    "    return g(t0 * 0.5, scale=2) + t0 * 1.0\n")
    found = {(m.number, m.change): changed(path.read_text(), m) for m in mutants_of(path, tmp_path)}
    assert set(found) == {
        (2, "3 -> 4"), (2, "True -> False"), (3, "And -> Or"), (3, "Not dropped"), (3, "Lt -> GtE"), (3, "t0 -> t1"),
        (3, "USub dropped"), (3, "2 -> 3"), (5, "Add -> Sub"), (5, "Mult -> Div"), (5, "Mult -> Div (#2)"), (5, "t0 -> t1"),
        (5, "t0 -> t1 (#2)"), (5, "0.5 -> 0.25"), (5, "1.0 -> 0.5"), (5, "2 -> 3"), (5, "scale= dropped")}
    assert "return g(t0 * 0.5, scale=2) - t0 * 1.0" in found[5, "Add -> Sub"]
    assert "if not not t0 < -2 and flag" in found[3, "Not dropped"]
    assert "return g(t0 * 0.5) + t0 * 1.0" in found[5, "scale= dropped"]
    assert len(set(found.values())) == len(found)


def test_no_entry_of_the_list_of_equivalent_changes_is_out_of_date():
    known = {m.key for m in all_mutants(ROOT / "revode")}
    stale = [key for key in EQUIVALENT if key not in known]
    assert not stale, f"the line or the change is gone; delete these from tests/mutation/equivalent.py: {stale}"
    assert all(EQUIVALENT.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutation check forks")
def test_a_sample_of_changes_is_noticed():
    sample = []
    for patterns, count in EACH.values():
        mutants = [m for m in all_mutants(ROOT / "revode", patterns) if m.key not in EQUIVALENT]
        sample += sorted(mutants, key=by_hash)[:count]
    survivors = [f"revode/{m.file}:{m.number} {m.change}: {m.line}" for m, by in run(sample, prepare()) if not by]
    assert not survivors, "these changes turn no test red; add a test, or an entry in equivalent.py: " + "; ".join(survivors)

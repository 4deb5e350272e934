"""The table of docs/numpy.md says of every function of the idioms which engines run it; a sample of it is tried again."""
import numpy as np
import pytest
from numpy.testing import assert_allclose

from reference import functions

PAGE = functions.PAGE.read_text(encoding="utf-8")
ROWS = functions.read(PAGE.partition(functions.BEGIN)[2].partition(functions.END)[0])
KNOWN = functions.functions()
SAMPLE = ("exp", "einsum", "prod", "cross", "tril", "roll", "linalg.solve", "linalg.norm", "sort", "fft.irfft",
          "take_along_axis", "array_split")


def test_every_function_has_its_row_and_no_other():
    assert set(ROWS) == set(KNOWN)
    assert all(row["tape"] for row in ROWS.values())
    assert sum(row["native"] for row in ROWS.values()) > 150


@pytest.mark.parametrize("name", SAMPLE)
def test_a_row_is_what_a_trial_gives(name):
    """Loops are played in NumPy here, so that no compiler is needed: what has such a form is what native runs."""
    assert functions.tried(KNOWN[name][1], native=False) == ROWS[name]


def test_the_table_is_written_as_it_is_read():
    assert functions.read(functions.table(ROWS)) == ROWS


def test_the_field_of_a_trial_is_the_expression_and_its_gradient_is_seen():
    field, y0 = functions.problem("np.dot(x, y)")
    x, y = np.split(y0, 2)
    assert_allclose(field(0.0, y0, 2.0), 2.0 * (np.sin(x @ y) - y0), rtol=1e-15)
    with pytest.raises(AssertionError, match="native gives"):
        wrong = iter([("eager", 1.0, y0, np.array(1.0)), ("replay", 1.0, y0, np.array(1.0)), ("native", 1.0, 2 * y0, np.array(1.0))])
        before, functions.gradient = functions.gradient, lambda *args, **how: next(wrong)
        try:
            functions.tried("np.exp(x)")
        finally:
            functions.gradient = before

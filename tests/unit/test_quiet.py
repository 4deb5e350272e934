"""What a sweep is measured by, in C++ and by NumPy: one beside the other, on arrays of random numbers."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from revode.compiled import quiet
from revode.watch.quiet import Shown, combinations, gaps, measured
from tests.compiler import HERE

PAIR = ((("y", 1.0), ("z", -1.0)), (("y", 1.0), ("z", 1.0)), (("z", -1.0),))
ALONE = ((), (("y", 1.0),), ())


def shown(rng: Any, dtype: Any, shape: tuple, parts: tuple, weights: tuple, k: float, width: int, ahead: int, **other: Any) -> Shown:
    """Numbers of size one where a window has `width` neighbours, and on the way ahead `ahead`."""
    looks, windows, p = 16 * width, 16, len(parts)
    draw = lambda *of: rng.normal(size=of).astype(dtype)
    at, ahead_at = (np.arange(windows * n).reshape(windows, n).T for n in (width, ahead))
    flowed = draw(looks + 2, 150)                                # more than C++ adds up side by side
    info = np.finfo(dtype)
    given = Shown(draw(2 * p, looks, *shape), at, combinations(parts, weights, "y", k, width, 2 if k < 0 else 1),
                  draw(p, windows * ahead, *shape), ahead_at, gaps(parts, weights, "y", k, ahead), np.ones(16),
                  np.exp(np.arange(16.0)), draw(3 * p, 1, *shape), None,
                  (flowed, np.array([0, 4, 70])), parts.index("y"), 1e3, 2 if k < 0 else 1, 100, float(info.eps), float(info.tiny),
                  (1, shape[-1] - 1) if shape[-1:] > (1,) else ())
    return given._replace(**other)


CASES = {
    "reversible Heun": ((2,), ("y", "z"), PAIR, -1.0, 4, 3),
    "Coupled": ((1, 3), ("y", "z"), PAIR, 0.999, 2, 1),
    "a batch": ((5, 3), ("y", "z"), PAIR, 0.9, 2, 1),
    "more of them than there are lanes": ((21, 3), ("y", "z"), PAIR, -1.0, 4, 3),
    "side by side": ((16, 1), ("y", "z"), PAIR, 0.9, 2, 1),
    "a number": ((), ("z", "y"), PAIR, 0.9, 2, 1),
    "nearly reversible": ((2, 2), ("y",), ALONE, 0.0, 1, 3),
}


@pytest.mark.skipif(not HERE, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_one_pass_measures_what_numpy_does(name: str, dtype: Any) -> None:
    """Sums of some hundred terms in double, or in dtype: 1e3 eps of their size, and no term is far larger than the sum."""
    measure = quiet.Measure(np.dtype(dtype), later=1)
    rng = np.random.default_rng(3)
    shape = CASES[name][0]
    for change in ({}, {"allowed": 0.01},
                   {"allowed": 0.01, "h": np.full(16, 1e-9)},
                   {"weighed": np.abs(rng.normal(size=shape)).astype(dtype)},
                   {"flowed": None}):
        given = shown(rng, dtype, *CASES[name], **change)
        found, wanted = measure(given), measured(given)
        assert measure.function is not None and found.together == wanted.together
        tolerance = 1e3 * float(np.finfo(dtype).eps)
        for one, other in ((found.S, wanted.S), (found[2:-1], wanted[2:-1]), (found.A, wanted.A)):
            assert np.allclose(one, other, rtol=tolerance, atol=0)
        assert found.A.shape == wanted.A.shape == shape


@pytest.mark.skipif(not HERE, reason="no C++ compiler")
@pytest.mark.parametrize(("rise", "counts", "together"), [(1.0, 1.0, True), (1e9, 1.0, False), (1e9, 0.0, True)])
def test_where_a_solution_crosses_zero_it_is_what_it_was(rise: float, counts: float, together: bool) -> None:
    """A gap beside a y of 1e-6 that has been 1 keeps together, but for what has faded, where it counts."""
    given = shown(np.random.default_rng(5), np.float64, *CASES["side by side"])
    given.ahead[0], given.ahead[1] = 1.0, 1.0 - 1e-3
    given.ahead[0, -1], given.ahead[1, -1] = 1e-6, -1e-3
    given = given._replace(allowed=0.1, rise=np.array([1.0] * 15 + [rise]), h=np.array([1.0] * 15 + [counts]))
    for found in (quiet.Measure(np.dtype(float), later=1)(given), measured(given)):
        assert found.together == together


@pytest.mark.skipif(not HERE, reason="no C++ compiler")
@pytest.mark.parametrize("where", ["X", "ahead", "Z", "weighed"])
def test_what_is_not_finite_is_not_quiet(where: str) -> None:
    """NaN in any array comes out as a number that no limit admits. (A gradient with NaN is told by finite.py.)"""
    given = shown(np.random.default_rng(4), np.float64, *CASES["reversible Heun"], weighed=np.ones(2))
    x = getattr(given, where)
    x[...] = np.nan
    for found in (quiet.Measure(np.dtype(float), later=1)(given), measured(given)):
        assert not found.together or not all(x <= 1e300 for x in (*found.S, found.W_p, found.E))

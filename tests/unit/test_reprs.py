"""What is shown at a prompt and in a notebook: short, whatever the size of the arrays, with numbers of three digits at most."""
import re

import numpy as np
import pytest

import revode as rv

MANY = np.linspace(0.1, 0.9, 500)


def solved():
    def loss(p):
        sol = rv.solve(lambda t, y, p: -p * y, MANY, np.linspace(0, 1, 101), p, backend="eager")
        return np.sum(sol.y1), sol

    return rv.value_and_grad(loss, has_aux=True)(0.5)[0][1]


def found():
    return rv.fixed_point(lambda z, p, x: 0.5 * np.tanh(z) + x, MANY, None, MANY)


SHOWN = {
    "Solution": solved, "Stats": lambda: solved().stats, "RoundTrip": lambda: solved().stats.roundtrip,
    "State": lambda: solved().state, "FixedPoint": found, "its Stats": lambda: found().stats,
    "Advice": lambda: rv.advise(lambda t, y, p: -y, MANY[:3], np.linspace(0, 1, 11)),
    "Advice against": lambda: rv.advise(lambda t, y, p: -y, MANY[:3], np.linspace(0, 40, 401), method=rv.ReversibleHeun()),
    **{repr(method).split("(")[0]: lambda method=method: method for method in (
        rv.Coupled(), rv.RungeKutta("rk4"), rv.NearReversible("tsit5"), rv.EES25(), rv.EES27(), rv.EES(6), rv.ReversibleHeun(),
        rv.AsynchronousLeapfrog(0.9), rv.LeapfrogMidpoint(), rv.SemiImplicitEuler(), rv.VelocityVerlet(),
        rv.Composition(rv.VelocityVerlet(), 4), rv.RevDEQ(), rv.Anderson(), rv.Reversible(resync=3), rv.PID(1e-3, 1e-6))},
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_short(name):
    thing = SHOWN[name]()
    text = repr(thing)
    assert len(text) < 350 and "\n" not in text and "array" not in text
    assert not re.search(r"\d\.\d{7}", text), text                     # seven decimals say nothing
    assert text.startswith((name.split()[-1], name.split()[0]))
    if hasattr(thing, "_repr_html_"):
        html = thing._repr_html_()
        assert len(html) < 2500 and html.count("<table") + html.count("<pre") == 1 and not re.search(r"\d\.\d{7}", html)


def test_what_can_be_long_has_a_table_in_notebooks():
    assert all(hasattr(SHOWN[name](), "_repr_html_") for name in ("Solution", "Stats", "FixedPoint", "Advice"))
    assert "better method=" in repr(SHOWN["Advice against"]()) and "use it as it is" in repr(SHOWN["Advice"]())

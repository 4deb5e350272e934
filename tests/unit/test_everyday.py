"""A sample of the cases of a test: the tests of every day are those that were asked for, and show every value."""
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from everyday import sample


def case(name, **params):
    return SimpleNamespace(name=name, callspec=SimpleNamespace(params=params))


def test_of_one_table_as_many_as_are_asked_for():
    cases = [case(f"test[{i}]", a=i, b=str(i)) for i in range(40)]
    kept = sample(cases, 7)
    assert len(kept) == 7 == len({item.name for item in kept})
    grown = sample([*cases, case("test[new]", a=40, b="40")], 7)
    assert sum(item in kept for item in grown) >= 6
    assert len(sample(cases, 99)) == 40 and sample(cases[:1], 3) == cases[:1]


def test_of_several_tables_every_value():
    cases = [case(f"test[{a}-{b}]", a=a, b=b) for a, b in product(range(9), range(4))]
    kept = sample(cases, 3)
    assert {item.callspec.params["a"] for item in kept} == set(range(9))
    assert {item.callspec.params["b"] for item in kept} == set(range(4))
    assert 9 <= len(kept) <= 12                                                  # and few more than that
    assert len(sample(cases, 20)) == 20


def test_a_marked_test_leaves_out_what_is_long(pytestconfig, request):
    """These very tests are collected by the rule: nothing that runs here is marked long, unless it was asked for."""
    asked = pytestconfig.getoption("markexpr")
    assert asked != "not long" or not any(item.get_closest_marker("long") for item in request.session.items)


DRAWN = np.random.default_rng(0)


@pytest.mark.parametrize("again", range(2))
def test_a_test_draws_what_it_draws_alone(again):
    assert DRAWN.integers(1 << 60) == np.random.default_rng(0).integers(1 << 60)

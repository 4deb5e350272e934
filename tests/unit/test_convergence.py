"""The order of the coupled methods, the `convergence` command, and round-off in scaled ulps."""
import json
import math
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose

import revode as rv
from revode.__main__ import main
from revode.analysis import accumulated, gulp, local_orders, modal_growth, observed_order, reverse_growth, rulp, scaled_ulps
from revode.experiments import convergence as command


@cache
def row(base):
    return command.row(base, lam=0.999)


@pytest.mark.parametrize("base", command.BASES)
def test_bases_have_their_order(base):
    # The next term of the error is h/2 times smaller or so: over h = .5 .. .008 it bends the slope by less than .15.
    assert abs(row(base)["plain"]["observed"] - row(base)["order"]) < 0.17


@pytest.mark.parametrize("base", ["midpoint", "rk4"])
def test_coupling_keeps_an_even_order(base):
    fine = local_orders(row(base)["h"], row(base)["coupled"]["errors"])[-3:]
    # Halving h three times from .06: the slope is off by O(h^2).
    assert_allclose(fine, row(base)["order"], atol=0.03)


@pytest.mark.parametrize("base", ["euler", "ralston3", "dopri5"])
def test_coupling_is_no_worse_than_a_base_of_odd_order(base):
    # The leading error of an odd order changes sign between Psi_h and -Psi_{-h}, and cancels more or less as lam^N fades:
    # slopes are erratic, so the error is bounded by that of the base instead.
    errors = np.array([row(base)[kind]["errors"] for kind in ("plain", "coupled")])
    clear = errors[0] > command.FLOOR
    assert clear.sum() >= 5 and np.all(errors[1, clear] < 0.5 * errors[0, clear])


def test_observed_order():
    h = 0.5 ** np.arange(6)
    assert_allclose(observed_order(h, 7 * h**3), 3, rtol=1e-13)
    assert_allclose(local_orders(h, 7 * h**3), 3, rtol=1e-13)
    # Where round-off is the error, it is left out.
    assert_allclose(observed_order(h, np.maximum(h**3, 1e-3), floor=1e-3), 3, rtol=1e-13)
    assert math.isnan(observed_order(h, 0 * h))
    with pytest.raises(ValueError, match="steps positive"):
        observed_order([0.1, 0.2], [1.0])
    with pytest.raises(ValueError, match="steps positive"):
        observed_order([0.1, -0.2], [1.0, 2.0])


def test_command_writes_its_table_and_figure(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["convergence", "--plot", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert "3.96 / 3.99" in out and max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 100
    assert (tmp_path / "a.png").stat().st_size > 10_000
    report = json.loads((tmp_path / "a.json").read_text())
    assert [r["base"] for r in report["rows"]] == list(command.BASES) and report["settings"]["lam"] == 0.999


def test_a_path_that_cannot_be_written_is_a_sentence_before_any_work(tmp_path, capsys):
    assert main(["convergence", "--json", str(tmp_path / "nowhere" / "a.json")]) == 2
    captured = capsys.readouterr()
    assert "cannot be written, because there is no folder" in captured.err and not captured.out


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scaled_ulps(dtype):
    eps = np.finfo(dtype).eps
    a = np.array([1.0, 1 + eps, 1e-9, -3.0], dtype)
    # In units of the last place of 3 (2 eps), which is the largest entry; an entry near zero does not count more.
    assert scaled_ulps(a, np.array([1.0, 1.0, 0.0, -3.0], dtype)).tolist() == [0, 0.5, float(dtype(1e-9)) / (2 * eps), 0]
    # With its own scale, the unit of 1 is eps; the larger of both sides counts.
    assert scaled_ulps(a[:2], np.ones(2, dtype), scale=0.5).tolist() == [0, 1]
    assert scaled_ulps(np.array([8.0], dtype), np.array([1.0], dtype)).tolist() == [7 / (8 * eps)]
    bad = scaled_ulps(np.array([np.nan, np.inf, np.inf], dtype), np.array([1.0, 1.0, np.inf], dtype), scale=1.0)
    assert bad.tolist() == [np.inf, np.inf, 0]
    with pytest.raises(TypeError, match="one shape and dtype"):
        scaled_ulps(a, a[:2])


def test_rulp_and_gulp_take_the_worst():
    eps = np.finfo(float).eps
    states = np.array([[1.0, 0.0], [4.0, 1.0]])
    back = states + np.array([[0.0, 3 * eps], [4 * eps, 0.0]])
    assert rulp(back, states) == 3                    # 3 units of 1 in the first state, one unit of 4 in the second
    direct = {"W": np.array([2.0]), "b": np.array([1.0]), "n": None}
    assert gulp({"W": np.array([2 + 2 * eps]), "b": np.array([1 + 5 * eps]), "n": None}, direct) == 5
    assert gulp(direct, direct) == 0


def test_growth_factors():
    assert accumulated(1.0, 7) == 7 and accumulated(2.0, 5) == pytest.approx(31) and accumulated(3.0, 10**6) == math.inf
    # Coupled, lam = .5, a linear field with |h a| = .1 (Euler): shears y (scale lam, L = 1 - lam + .1), z (scale 1, L = .1).
    assert reverse_growth((0.5, 1.0), (0.6, 0.1)) == pytest.approx(3.2 * 1.1)
    assert reverse_growth((-1.0,), (0.0,)) == 1.0
    assert_allclose(modal_growth(np.array([1.0, 0.5j, -1.2]), 0.9), [1 / 0.9, 2.0, 1.2 / 0.9])


def test_the_bound_holds_for_a_reverse_sweep():
    lam, h, N = 0.9, 0.01, 200
    field = lambda t, y, params: np.sin(3 * y)
    method = rv.Coupled("euler", lam)
    ts = np.linspace(0, N * h, N + 1)
    sol = rv.solve(field, np.array([0.3, -1.0]), ts, method=method)
    back = [item.state.parts["y"] for item in rv.steps_back(field, sol.state, ts, ay1=np.zeros(2), method=method)]
    found = rulp(back[::-1], sol.ys)
    L = 3 * h                                          # of h f
    G = reverse_growth((lam, 1.0), (1 - lam + L, L))
    # Rounding: forward and back about six operations on numbers of the size of the state a step, half an ulp each.
    assert 1 < found < 2 * 3 * accumulated(G, N)
    # And it is not empty: the growth is that of lam^-N (1e9) within the rates of the field, e^(+-3 T).
    assert found > 1e-3 * lam**-N * math.exp(-3 * N * h)

"""The experiments with noise, a flow and controls, in small: data against their laws, gradients of every mode against
Direct, reports that hold what the tables say, and the same figures for the same seed."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.__main__ import main
from revode.experiments import cde, flow, gbm, measuring, ou, tables, training, volatility
from revode.experiments.backends import Solver
from revode.experiments.mmd import mmd2
from revode.experiments.training import Run

SMALL = {
    ("train", "ou"): ["--iterations", "1", "--paths", "4", "--data-paths", "8"],
    ("compare", "gbm"): ["--batch", "2", "--steps", "4", "24"],
    ("train", "stochastic-volatility"): ["--iterations", "1", "--paths", "6"],
    ("train", "flow"): ["--iterations", "1", "--points", "8", "--steps", "2"],
    ("train", "cde"): ["--iterations", "1", "--series", "4", "--dropped", "0.5"],
}


@pytest.mark.parametrize("words", [pytest.param(words, marks=[pytest.mark.long] * (words != ("train", "flow")), id=" ".join(words))
                                   for words in SMALL])
def test_a_command_prints_its_table_and_writes_its_files(words: tuple, tmp_path: Path, capsys: Any) -> None:
    png, first, second = tmp_path / "x.png", tmp_path / "a.json", tmp_path / "b.json"
    command = [*words, *SMALL[words], "--backend", "eager"]
    assert main([*command, "--plot", str(png), "--json", str(first)]) == 0
    said = capsys.readouterr().out
    assert main([*command, "--json", str(second)]) == 0
    assert png.read_bytes()[:4] == b"\x89PNG" and png.stat().st_size > 5000
    reports = [json.loads(path.read_text()) for path in (first, second)]
    assert [reports[0]["command"], reports[0]["settings"]["experiment"]] == list(words)
    assert reports[0]["rows"] and reports[0]["settings"]["seed"] == 0
    assert max(len(line) for line in said.splitlines() if str(tmp_path) not in line) <= tables.WIDTH

    def without_times(x: Any) -> Any:
        if isinstance(x, dict):
            # Allocations are counted to the byte, caches of Python included.
            return {key: without_times(value) for key, value in x.items() if not key.startswith(("seconds", "peak_bytes", "machine"))}
        return [without_times(value) for value in x] if isinstance(x, list) else x

    assert without_times(reports[0]) == without_times(reports[1])        # same seed, same figures
    for row in reports[0]["rows"]:
        assert row.get("name", row["method"]) in said


@pytest.mark.long
def test_several_seeds_are_drawn_once_for_each_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows, of which the picture has the five of the first seed: there are eight colours."""
    drawn, once = [], ou.picture
    monkeypatch.setattr(ou, "picture", lambda *given: drawn.append(given[-2:]) or once(*given))
    path = tmp_path / "x.png"
    assert main(["train", "ou", *SMALL["train", "ou"], "--backend", "eager", "--seeds", "3", "1", "--plot", str(path)]) == 0
    assert drawn == [(n, f"{name}, seed 3") for n, name in enumerate(ou.METHODS)] and path.exists()


def test_bad_options_are_refused(capsys: Any) -> None:
    for words in (["compare", "gbm", "--steps", "0"], ["train", "cde", "--dropped", "1"], ["train", "ou", "--seed", "-1"],
                  ["train", "flow", "--method", "nonsense"], ["train", "ou", "--method", "ees27"]):
        with pytest.raises(SystemExit):
            main(words)
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err


# Data ------------------------------------------------------------------------------------------------------------------
def test_ou_paths_have_the_exact_law() -> None:
    """m' = mu t - theta m, v' = sigma^2 - 2 theta v, by Euler with 1e5 steps (error 1e-4), against 20000 paths."""
    n, h = 20_000, ou.T / 100_000
    m = v = 0.0
    for i in range(100_000):
        m, v = m + h * (ou.MU * i * h - ou.THETA * m), v + h * (ou.SIGMA ** 2 - 2 * ou.THETA * v)
    end = ou.sample(np.random.default_rng(3), n)[-1]
    # Five standard errors: sd / sqrt n of the mean, v sqrt(2 / n) of the variance.
    assert abs(end.mean() - m) < 5 * np.sqrt(v / n) + 1e-3
    assert abs(end.var() - v) < 5 * v * np.sqrt(2 / n) + 1e-3


def test_volatility_series_have_their_variance() -> None:
    """E X(t)^2 / t = E exp(2 V) = exp(2 m + 2 s^2) with s^2 = xi^2 / (2 kappa), V being in its own law at all times."""
    paths = volatility.series(np.random.default_rng(4), 20_000, inner=16)
    s2 = volatility.XI ** 2 / (2 * volatility.KAPPA)
    expected = np.exp(2 * volatility.MEAN + 2 * s2)
    # Five standard errors, measured, and the bias of Euler-Maruyama with h = 1/256: kappa h / 2 = 0.8 % of s2, so 0.5 %.
    for i in (1, volatility.SEEN):
        squares = paths[i] ** 2 * volatility.SEEN / i
        assert abs(squares.mean() - expected) < 5 * squares.std() / np.sqrt(20_000) + 0.01 * expected
    traits = volatility.traits(volatility.series(np.random.default_rng(5), 2000))
    # neither is so for Brownian motion
    assert traits["kurtosis, of increments"] > 4 and traits["persistence, of volatility"] > 0.1
    brownian = volatility.traits(np.cumsum(np.random.default_rng(6).standard_normal((17, 2000)), 0) / 4)
    assert abs(brownian["kurtosis, of increments"] - 3) < 0.3 and abs(brownian["persistence, of volatility"]) < 0.05


def test_spirals_turn_the_way_their_labels_say() -> None:
    times, values, labels = cde.spirals(np.random.default_rng(1), 40, 0.0)
    x, y = np.moveaxis(values, -1, 0)
    area = np.sum(x[:, :-1] * np.diff(y) - y[:, :-1] * np.diff(x), -1)         # positive: anticlockwise
    assert np.mean((area < 0) == labels) > 0.9                             # noise decides a few
    _, gaps, _ = cde.spirals(np.random.default_rng(1), 40, 0.6)
    assert abs(np.isnan(gaps).mean() - 0.57) < 0.05                        # one time of 20 is kept
    assert np.all(np.diff(times) > 0)


# Tools -----------------------------------------------------------------------------------------------------------------
def test_mmd_against_loops_and_what_it_tells_apart() -> None:
    rng = np.random.default_rng(2)
    x, y, widths = rng.standard_normal((7, 3)), rng.standard_normal((5, 3)), (0.7, 2.0)

    def mean_kernel(a: Any, b: Any) -> float:
        values = [np.exp(-np.sum((p - q) ** 2) / (2 * w * w)) for p in a for q in b for w in widths]
        return sum(values) / len(values)

    expected = mean_kernel(x, x) - 2 * mean_kernel(x, y) + mean_kernel(y, y)
    # About 50 terms of order 1, each rounded a few times.
    assert abs(mmd2(x, y, widths) - expected) < 100 * np.finfo(float).eps
    assert abs(mmd2(x, x, widths)) < 100 * np.finfo(float).eps
    a, b = rng.standard_normal((2, 200, 3))
    assert mmd2(a, b + 1.0, widths) > 5 * mmd2(a, b, widths)


# Gradients -------------------------------------------------------------------------------------------------------------
def small_problems() -> dict:
    """name -> (loss, params, method)."""
    coupled = rv.Coupled("midpoint", 0.9)
    gbm_params, _ = gbm.problem(0, 2)
    methods = {e.name: e for e in ou.experiment(4, 6, "time")}
    state = {e.name: e for e in ou.experiment(4, 6, "state")}
    made = {"ou": state["Coupled midpoint"], "ou, reversible Heun": methods["reversible Heun"],
            "volatility": volatility.experiment(6), "flow": flow.experiment(6, 3),
            **{e.name: e for e in cde.experiment(6, (0.3,))}}
    found = {name: (e.loss, e.start(0), e.method if name.startswith("ou") else coupled) for name, e in made.items()}
    return found | {"gbm": (gbm.at_end(24, 0), gbm_params, rv.Coupled("midpoint", np.exp(-25 / 24)))}


@pytest.mark.parametrize("name", small_problems())
def test_reversible_gradients_are_direct_ones(name: str) -> None:
    """y0 is among the parameters of volatility, cde and gbm. A word of shears is undone to rounding: 1e-16 a step, times
    0.9^-n <= 24 for n <= 30 steps (38 for the controls), times a conditioning of 1e3 allowed; gbm expands by
    (exp(25/24))^24 = 7e10 backwards where only what is far below the largest entry has shrunk, so 1e-5 there."""
    loss, params, method = small_problems()[name]
    check = measuring.against_direct(loss, params, Solver(method, rv.Reversible(), "eager"))
    assert check["gradient_error"] < (1e-5 if name == "gbm" else 1e-11), name
    assert check["roundtrip"] is not None
    checkpointed = measuring.against_direct(loss, params, Solver(method, rv.Checkpointed(3), "eager"))
    assert checkpointed["gradient_error"] < 1e-14


def test_the_flow_has_the_exact_trace_and_a_density() -> None:
    params = flow.nn.mlp_init(np.random.default_rng(1), (3, 5, 2))
    x, t, h = np.random.default_rng(2).standard_normal((4, 2)), 0.3, 1e-5
    f = lambda x: flow.velocity(t, x, params)
    trace = sum((f(x + h * e) - f(x - h * e))[:, i] / (2 * h) for i, e in enumerate(np.eye(2)))
    # Central differences: h^2 f'''/6 about 1e-9, and rounding 1e-16/h = 1e-11.
    assert np.max(abs(flow.field(t, {"x": x, "l": np.zeros(4)}, params)["l"] + trace)) < 1e-8
    side = np.linspace(-8.0, 8.0, 121)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    logs, sol = flow.log_density(grid, params, np.linspace(0, 1, 11), Solver(rv.Coupled("midpoint", 0.99)))
    mass = np.exp(logs).sum() * (side[1] - side[0]) ** 2
    # The trace gives the log determinant of the flow, not of the discrete map: off by O(h^2), a few 1e-3 for h = 0.1.
    assert abs(mass - 1.0) < 5e-3
    without = np.exp(logs + sol.y1["l"]).sum() * (side[1] - side[0]) ** 2
    assert abs(without - 1.0) > 0.5                                        # the trace matters here


def test_who_survives_stiff_noise() -> None:
    (params, reference), tape = gbm.problem(0, 2), Solver(backend="eager")
    rows = {(name, n): gbm.cell(name, n, params, reference, 0, 0.1, tape) for name in gbm.METHODS for n in (6, 8, 24)}
    alive = {n: {name for name, m in rows if m == n and rows[name, n]["survives"]} for n in (6, 8, 24)}
    # |h a| = 20/6 = 3.33 is below the limit of EES(2,7), 3.92, alone with the longer members of the family; 2.5 is below
    # those of EES(2,5) and RK4 (3.09, 2.79) and above Heun's 2. Reversible Heun follows no contraction.
    assert alive[6] == {"EES(2,7)", "EES(2,11)"}
    assert alive[8] == alive[6] | {"EES(2,5)", "RK4 run backwards"}
    assert alive[24] == set(gbm.METHODS) - {"reversible Heun", "Coupled, lam = .999"}
    ees = rows["EES(2,5)", 24]
    assert ees["flagged"] and ees["gradient_error"] > 1 > 1e-2 > ees["gradient_error_resync"]
    assert rows["RK4 run backwards", 24]["gradient_error"] > 1 and rows["Heun, not reversible", 24]["gradient_error"] is None
    assert ees == gbm.cell("EES(2,5)", 24, params, reference, 0, 0.1, tape)      # nothing is left over


def test_half_the_steps_see_the_same_noise() -> None:
    """Strong order 1 for additive noise: the values at the ten observation times move by O(h), a tenth or so of the noise,
    and not by the size of another path."""
    e = next(e for e in ou.experiment(16, 8) if e.name == "EES(2,7)")
    (coarse, _), (fine, _) = ((e.loss(e.start(0), Solver(e.method, finer=finer))[1].ys, 0) for finer in (False, True))
    assert coarse.shape == fine.shape == (11, 16, 1)
    assert 0 < np.abs(coarse - fine).max() < 0.2 < 0.6 < np.std(coarse[-1])


def test_fits_learn() -> None:
    e = next(e for e in ou.experiment(16, 32) if e.name == "EES(2,7)")
    run = training.fit(Run("row", e, Solver(e.method, rv.Reversible(), "eager")), 8)
    assert run.least < 0.5 * run.losses[0]
    assert measuring.relative_error(run.best, e.start(0)) > 0
    e = flow.experiment(32, 4)
    run = training.fit(Run("row", e, Solver(e.method, rv.Reversible(), "eager")), 8)
    assert run.least < run.losses[0] - 0.3

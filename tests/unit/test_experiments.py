"""The main job through its command line, on tiny grids: figures, files, messages, Ctrl-C; and its pieces."""
import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp

import revode as rv
from revode import optim, plotting
from revode.__main__ import main
from revode.experiments import (
    EXPERIMENTS,
    cli,
    compare,
    data,
    measuring,
    names,
    reporting,
    runner,
    tables,
    train,
    training,
    white_dwarf,
)
from revode.experiments.backends import Solver
from revode.experiments.checkpoints import Checkpoint
from revode.experiments.training import Run
from revode.gradients.checkpointed import minimal_advances

N = 20
TINY = ["--steps", str(N), "--iterations", "3", "--backend", "eager"]
ROW = {"name": str, "seed": int, "method": str, "steps": int, "gradient": str, "loss": float, "loss_before": float,
       "loss_finer": float, "iterations": int, "seconds_per_iteration": float, "seconds_total": float,
       "extrapolated": bool, "peak_bytes": int, "states": int, "nfe": int, "nvjp": int, "backend": str,
       "warned": dict}


def run(capsys, *words):
    """Exit status, standard output and standard error of a command."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:               # argparse
        status = stop.code
    out = capsys.readouterr()
    return status, out.out, out.err


def tables_of(text):
    """The lines of the tables in a printed text, each from two lines above its rule to the next empty line or note."""
    lines, found = text.splitlines(), []
    for rule in (i for i, line in enumerate(lines) if re.fullmatch(r"-+(  -+)+", line)):
        end = next((i for i in range(rule + 1, len(lines)) if len(lines[i]) != len(lines[rule])), len(lines))
        found.append(lines[rule - 2:end])
    return found


def job(e, gradient=None, **options):
    """A row of this experiment on the tape."""
    return Run("row", e, Solver(e.method, gradient or rv.Reversible(), "eager"), **options)


# The problem -------------------------------------------------------------------------------------------------------
def trajectory(ts):
    return data.trajectory(white_dwarf.star, np.array([1.0, 0.0]), ts, white_dwarf.FINE)


def test_target_against_scipy():
    ts = np.linspace(0.0, 5.0, 1001)
    target = trajectory(ts)
    truth = solve_ivp(white_dwarf.star, (0, 5), [1.0, 0.0], "DOP853", t_eval=ts, rtol=1e-13, atol=1e-14)
    # Both are approximate: dopri5 with h = .005 has h^5 = 3e-12 times a constant below one for this slow solution, and
    # DOP853 keeps its local error below 1e-13 in each of some 100 steps.
    assert_allclose(target, truth.y.T, rtol=0, atol=3e-12)
    assert 0.04 < target[-1, 0] < 0.05                   # x^2 > C all the way: the power stays real
    params = white_dwarf.experiment().start(0)
    loss, sol = job(white_dwarf.experiment()).experiment.loss(params, Solver(white_dwarf.experiment().method))
    assert sol.stats.steps == 1000 and float(loss) == pytest.approx(np.mean((sol.ys - target) ** 2))


def test_true_field_at_a_point():
    """x = .5, v = -1, t = 1.5:  -2 v / 2 - (.25 - .001)^1.5."""
    assert_allclose(white_dwarf.star(1.5, np.array([0.5, -1.0])), [-1.0, 1.0 - 0.249 ** 1.5], rtol=1e-15)


def test_coarse_grids_have_the_same_target():
    fine, coarse = trajectory(np.linspace(0, 5, 1001)), trajectory(np.linspace(0, 5, N + 1))
    # The same fine steps lie between, up to rounding of their ends: 1000 steps, a few eps each.
    assert_allclose(coarse, fine[::1000 // N], rtol=0, atol=1e-12)


def test_network_takes_time_first_and_batches():
    params = white_dwarf.experiment(N).start(3)
    y = np.array([[0.3, -0.2], [0.1, 0.9]])
    W1, W2 = (layer["W"] for layer in params)
    b1, b2 = (layer["b"] for layer in params)
    expected = [np.tanh(np.array([0.7, *row]) @ W1 + b1) @ W2 + b2 for row in y]
    assert_allclose(white_dwarf.network(0.7, y, params), expected, rtol=0, atol=1e-15)
    assert (W1.shape, W2.shape) == ((3, 10), (10, 2))


# Training ----------------------------------------------------------------------------------------------------------
def with_optimiser(e, optimiser):
    """The experiment with another loop."""
    def train(run):
        for params, state in run.steps(optimiser.init):
            (value, sol), grads = rv.value_and_grad(run.loss, has_aux=True)(params, run.solve)
            run.record(value, sol, *optimiser.update(params, grads, state))

    return dataclasses.replace(e, train=train)


def test_training_keeps_the_best_parameters_and_not_the_last():
    e = white_dwarf.experiment(N)
    wild = with_optimiser(dataclasses.replace(e, method=rv.RungeKutta("midpoint")), optim.sgd(0.02, momentum=0.9))
    result = training.fit(job(wild, rv.Direct()), 10)
    best = int(np.argmin(result.losses))
    assert 0 < best < 9                                  # the case that this test is about
    assert result.least == result.losses[best]
    # The tape takes the mean as sum * (1/n), NumPy as sum / n: one rounding apart.
    assert_allclose(float(wild.loss(result.best, Solver(wild.method))[0]), result.least, rtol=4e-16)


def test_the_loop_of_an_experiment_is_adamw():
    """Three updates against a loop of our own with the optimiser that the experiment names."""
    e, optimiser, losses = white_dwarf.experiment(N), optim.adamw(1e-2, weight_decay=1e-5), []
    params = e.start(0)
    state = optimiser.init(params)
    for _ in range(3):
        (value, _), grads = rv.value_and_grad(e.loss, has_aux=True)(params, job(e).solve)
        losses.append(float(value))
        params, state = optimiser.update(params, grads, state)
    assert training.fit(job(e), 3).losses == losses


def test_training_lowers_the_loss():
    result = training.fit(job(white_dwarf.experiment(N), seed=1), 40)
    assert result.losses[0] > 0.1 and result.least < 0.25 * result.losses[0]
    assert len(result.losses) == len(result.seconds) == 40 and result.stopped is None


def test_gradient_modes_train_alike():
    """The same gradient up to rounding gives the same losses: all modes but Backsolve are the discrete gradient."""
    e = white_dwarf.experiment(N)
    losses = {name: training.fit(job(e, names.gradient(name), seed=2), 4).losses
              for name in ("direct", "reversible", "reversible:7", "checkpointed:3", "backsolve")}
    for name in ("reversible", "reversible:7", "checkpointed:3"):
        # Adam divides by the gradient's size, so an error of about N * 4 * eps = 2e-14 in a gradient moves the
        # parameters by lr times that; three updates, and a slope of the loss of about 10.
        assert_allclose(losses[name], losses["direct"], rtol=1e-13)
    assert abs(losses["backsolve"][3] / losses["direct"][3] - 1) > 1e-9
    assert_allclose(losses["backsolve"], losses["direct"], rtol=0.05)


def test_half_the_steps_is_a_solve_of_its_own():
    """A coarse midpoint solve is off by O(h^2), so that half the steps bring its loss nearer to that of a fine one; the
    same times are compared, whatever is saved."""
    e = white_dwarf.experiment(10)
    params = training.fit(job(e), 20).best
    coarse, fine = (Solver(rv.RungeKutta("midpoint"), finer=finer) for finer in (False, True))
    truth = [solve_ivp(lambda t, y: white_dwarf.network(t, y, params), (0, 5), [1.0, 0.0], "DOP853", rtol=1e-12, atol=1e-12,
                       t_eval=np.linspace(0, 5, 11)).y.T][0]
    errors = [np.abs(e.loss(params, solve)[1].ys - truth).max() for solve in (coarse, fine)]
    assert 3.0 < errors[0] / errors[1] < 5.0             # 4, and the next order of h = .5
    ts = np.linspace(0, 1, 5)
    field = lambda t, y, p: -y
    for save in (None, [-1], [0, 2, -1], slice(None, None, 2), slice(1, 4)):
        plain, half = (solve(field, np.ones(1), ts, None, save=save) for solve in (coarse, fine))
        assert_array_equal(plain.ts, half.ts)
        assert half.stats.steps == 8 and plain.stats.steps == 4
    pid = rv.PID(1e-4, 1e-6)
    loose, tight = (Solver(rv.RungeKutta("bosh3"), finer=finer)(field, np.ones(1), ts[[0, -1]], None, controller=pid, save_at=ts)
                    for finer in (False, True))
    assert_array_equal(loose.ts, tight.ts)
    assert tight.stats.steps > loose.stats.steps


def interrupting(e, calls, reason):
    """The experiment with a loss that raises at the given call, once."""
    seen = []

    def loss(params, solve):
        seen.append(1)
        if len(seen) == calls:
            raise reason
        return e.loss(params, solve)

    return dataclasses.replace(e, loss=loss)


@pytest.mark.parametrize("reason, said", [(KeyboardInterrupt(), "interrupted"), (FloatingPointError("boom"), "boom")])
def test_a_stop_keeps_what_was_reached(reason, said):
    e = white_dwarf.experiment(N)
    whole = training.fit(job(e, rv.Direct()), 3)
    result = training.fit(job(interrupting(e, 3, reason), rv.Direct()), 9)
    assert result.stopped == said and result.losses == whole.losses[:2] and len(result.seconds) == 2
    with pytest.raises(type(reason)):
        training.fit(job(interrupting(e, 1, reason), rv.Direct()), 9)


def test_a_stop_within_a_record_keeps_whole_iterations(tmp_path):
    """Ctrl-C between the loss of the fourth iteration and its time; gone on with, six have the bits of six."""
    e, path = white_dwarf.experiment(N), str(tmp_path / "run.npz")
    ticks = iter(range(100))

    def clock():                                         # asked at the beginning of an iteration and at its end
        if (tick := next(ticks)) == 7:
            raise KeyboardInterrupt
        return float(tick)

    whole = training.fit(job(e, rv.Direct()), 6)
    first = training.fit(dataclasses.replace(job(e, rv.Direct()), clock=clock), 6, kept=Checkpoint(path, {}))
    assert first.stopped == "interrupted" and first.losses == whole.losses[:3] and first.seconds == [1.0] * 3
    again = training.fit(job(e, rv.Direct()), 6, kept=Checkpoint(path, {}))
    assert again.losses == whole.losses and again.done == 6
    for name in ("params", "best", "state"):
        for ours, theirs in zip(*(rv.tree.flatten(getattr(run, name))[0] for run in (again, whole)), strict=True):
            assert_array_equal(ours, theirs)


def test_a_loop_that_records_nothing_is_told():
    def train(run):
        for _ in run.steps(optim.sgd(0.1).init):
            pass

    with pytest.raises(RuntimeError, match=r"row: an iteration of train\(run\) ends with run.record"):
        training.fit(job(dataclasses.replace(white_dwarf.experiment(N), train=train)), 3)


@pytest.mark.parametrize("spoil, message", [
    (lambda loss: np.log(loss * 0.0), "the loss is -inf"),
    (lambda loss: np.sqrt(loss * 0.0), "the gradient has entries that are not finite"),      # 0, with an infinite slope
])
def test_what_is_not_finite_ends_training(spoil, message):
    e = white_dwarf.experiment(N)

    def loss(params, solve):
        value, sol = e.loss(params, solve)
        return spoil(value), sol

    warned = {}
    with pytest.raises(FloatingPointError, match=message):
        training.fit(job(with_optimiser(dataclasses.replace(e, loss=loss), optim.sgd(0.1)), rv.Direct()), 2, warned=warned)
    assert warned["NonFiniteWarning"][0] == 1            # counted, not leaked


def test_peak_memory_sees_what_was_freed():
    def allocate():
        x = np.ones(1_000_000)
        del x
        return np.ones(1000)

    # 8 MB, and a few hundred bytes of Python objects.
    assert not tracemalloc.is_tracing()
    peak, result = measuring.peak_memory(allocate)
    assert 8e6 <= peak < 8.1e6 and result.shape == (1000,) and not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        x = np.ones(2_000_000)                           # was there before
        assert 8e6 <= measuring.peak_memory(allocate)[0] < 8.1e6
        assert tracemalloc.is_tracing() and x.size
    finally:
        tracemalloc.stop()


def test_relative_error_is_over_the_whole_tree():
    truth = {"a": np.array([3.0, 0.0]), "b": [np.array([4.0]), None]}
    grads = {"a": np.array([3.0, 0.3]), "b": [np.array([4.4]), None]}
    assert measuring.relative_error(grads, truth) == pytest.approx(0.5 / 5.0)
    assert measuring.relative_error(truth, truth) == 0.0


# The commands ------------------------------------------------------------------------------------------------------
def replaced(monkeypatch, e):
    """The command line with another white dwarf."""
    experiment = functools.wraps(white_dwarf.experiment)(lambda **options: e)
    monkeypatch.setitem(EXPERIMENTS, "white-dwarf", SimpleNamespace(__doc__="a test", experiment=experiment))


@pytest.mark.parametrize("gradient, states, nfe, nvjp", [
    # Coupled midpoint has 2 stages, so 4 evaluations a step; METHODS sections 2 and 6.
    ("direct", N + 1, 4 * N, 4 * N),
    ("reversible", 2, 8 * N, 4 * N),
    ("checkpointed:3", 4, 4 * (minimal_advances(N, 3) + N), 4 * N),
])
def test_train_writes_its_figures(capsys, tmp_path, gradient, states, nfe, nvjp):
    path, kept = tmp_path / "out.json", tmp_path / "params.npz"
    status, out, _ = run(capsys, "train", "white-dwarf", *TINY, "--gradient", gradient, "--json", path, "--save", kept)
    assert status == 0 and f"wrote {path}" in out and f"wrote {kept}" in out
    report, e = json.loads(path.read_text()), white_dwarf.experiment(N)
    assert set(report) == {"schema", "revode", "command", "settings", "machine", "rows", "losses", "notes", "warnings",
                           "stopped", "published"}
    assert report["schema"] == 2 and report["command"] == "train"
    settings = report["settings"]
    assert {key: settings[key] for key in ("experiment", "method", "steps", "iterations", "seed", "dtype", "backend")} == {
        "experiment": "white-dwarf", "method": repr(rv.Coupled("midpoint", lam=0.999)), "steps": N, "iterations": 3,
        "seed": 0, "dtype": "float64", "backend": "eager"}
    assert settings["words"] == list(e.words) and settings["published_iterations"] == 1000
    row, = report["rows"]
    assert set(row) == {*ROW, "rejected", "gradient_error", "certificate", "roundtrip", "relative", "compile_seconds", "stopped"}
    for key, kind in ROW.items():
        assert type(row[key]) is kind, key
    assert (row["gradient"], row["states"], row["nfe"], row["nvjp"]) == (gradient, states, nfe, nvjp)
    assert row["iterations"] == 3 and not row["extrapolated"]
    losses = report["losses"][gradient]
    assert row["loss"] == min(losses) and row["loss_before"] == losses[0] and report["stopped"] is None
    # Half the steps move the loss, by O(h^2) of a coarse grid and no more.
    assert row["loss_finer"] != row["loss"] and row["loss_finer"] == pytest.approx(row["loss"], rel=0.2)
    # A gradient of 20 steps with growth below 2 in all: METHODS section 9 gives some 4 * N * 10 * eps.
    assert row["gradient_error"] < 2e-13
    assert (row["roundtrip"] is not None) == (gradient == "reversible")
    # The tape takes the mean as sum * (1/n), NumPy as sum / n: one rounding apart.
    assert_allclose(float(e.loss(rv.load(kept), Solver(e.method))[0]), row["loss"], rtol=4e-16)
    assert all(len(line) <= tables.WIDTH for line in out.splitlines() if str(tmp_path) not in line)


def test_seeds_are_trained_one_by_one(capsys, tmp_path):
    path = tmp_path / "out.json"
    status, out, _ = run(capsys, "train", "white-dwarf", *TINY, "--seeds", 0, 4, 5, "--json", path, "--certify")
    rows = json.loads(path.read_text())["rows"]
    assert status == 0 and [row["name"] for row in rows] == ["reversible, seed 0", "reversible, seed 4", "reversible, seed 5"]
    losses = [row["loss"] for row in rows]
    alone = training.fit(job(white_dwarf.experiment(N), seed=4), 3)
    assert losses[1] == alone.least and len(set(losses)) == 3
    assert f"loss {np.mean(losses):.1e} +- {np.std(losses, ddof=1):.1e} (mean and standard deviation over 3 seeds)" in out
    assert "reversible, seed 4, gradient: error below" in out and [row["certificate"]["probes"] for row in rows] == [4, 4, 4]


@pytest.mark.long
def test_compare_measures_every_mode(capsys, tmp_path):
    path = tmp_path / "out.json"
    status, out, err = run(capsys, "compare", "white-dwarf", "--steps", "50", "--iterations", "6", "--json", path,
                           "--backend", "eager", "--certify", 2)
    assert status == 0
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    counts = (44, 32, 16, 8, 4, 2)
    assert list(rows) == ["reversible", "direct", *(f"checkpointed:{n}" for n in counts), "backsolve"]
    assert [rows[f"checkpointed:{n}"]["nfe"] for n in counts] == [4 * (minimal_advances(50, n) + 50) for n in counts]
    assert [rows[f"checkpointed:{n}"]["states"] for n in counts] == [n + 1 for n in counts]
    for name, row in rows.items():
        # The same forward solve at the same parameters: the same bits.
        assert row["loss"] == rows["reversible"]["loss"] and row["backend"] == "eager"
        assert row["extrapolated"] == (name != "reversible")
        assert row["seconds_total"] == pytest.approx(rows["reversible"]["seconds_total"] * row["relative"])
        assert row["relative"] == pytest.approx(
            row["seconds_per_iteration"] / rows["reversible"]["seconds_per_iteration"])
        assert row["relative"] == 1.0 if name == "reversible" else row["relative"] > 0
        assert row["peak_bytes"] > 50 * 2 * 8                # at least the saved states
        assert f"measuring {name}" in err or name == "reversible"
        sure = row["certificate"]["below"] / row["certificate"]["size"]
        if name == "backsolve":
            assert 1e-9 < row["gradient_error"] < 0.1        # the continuous adjoint: right to O(h^2) only
            # The bound is sqrt(x / .103) of the error, x chi-square of 2 degrees: between these in 998 of 1000 seeds.
            assert row["gradient_error"] / 7 < sure < 20 * row["gradient_error"]
        else:
            assert row["gradient_error"] < 5e-13             # as above, with 50 steps
            assert sure < 5e-12
    assert rows["direct"]["peak_bytes"] > 3 * rows["reversible"]["peak_bytes"]
    assert rows["reversible"]["roundtrip"]["absolute"] < 50 * 4 * 2e-16 and rows["reversible"]["iterations"] == 6
    found, cost, published = tables_of(out)
    assert len(found) == len(cost) == 3 + len(rows) and len(published) == 3 + 7
    assert sum("~" in line for line in found) == len(rows) - 1 and "~ extrapolated" in out
    assert "Published, other hardware" in out and re.search(r"checkpointing +0.9e-4 +280.0 minutes +2\n", out)
    assert "published: 1,000" in out


def test_modes_are_timed_in_turns_with_reversible(monkeypatch):
    e = white_dwarf.experiment(5)
    jobs = [job(e), job(e, rv.Direct())]
    asked, once = [], training.fit
    monkeypatch.setattr(training, "fit", lambda job, *rest: asked.append(job.solve.gradient) or once(job, *rest))
    monkeypatch.setattr(compare, "TURNS", 0.0)
    first = once(jobs[0], 4)
    found = compare.in_turns(jobs, first.best, [once(job, 1, first.best) for job in jobs])
    assert asked == [rv.Reversible(), rv.Direct()] * (compare.ROUNDS[0] - 1)
    for trained in found:
        # from the same parameters every time, and one rounding of the mean apart from the best loss
        assert len(set(trained.losses)) == 1 and len(trained.seconds) == len(trained.losses) == compare.ROUNDS[0]
        assert_allclose(trained.losses[0], first.least, rtol=4e-16)


def test_rows_are_compared_with_reversible_on_their_own_backend():
    rows = [{"gradient": gradient, "backend": backend, "seconds_per_iteration": seconds} for gradient, backend, seconds in (
        ("reversible", "native", 1.0), ("direct", "native", 3.0), ("backsolve", "eager", 40.0), ("reversible", "eager", 20.0),
        ("direct", "replay", 7.0))]
    notes = []
    compare.compare_like_with_like(rows, notes)
    assert [row["relative"] for row in rows] == [1.0, 3.0, 2.0, 1.0, None] and len(notes) == 1
    compare.compare_like_with_like(rows[:2], notes)
    assert len(notes) == 1                                   # nothing to say where all ran on one


def test_compare_in_full_trains_every_mode(capsys, tmp_path):
    path, picture = tmp_path / "out.json", tmp_path / "out.png"
    status, out, _ = run(capsys, "compare", "white-dwarf", "--steps", "5", "--iterations", "2", "--full",
                         "--backend", "eager", "--json", path, "--plot", picture)
    report = json.loads(path.read_text())
    assert status == 0 and "~" not in out
    assert list(report["losses"]) == ["reversible", "direct", "checkpointed:4", "checkpointed:2", "backsolve"]
    assert all(len(losses) == 2 for losses in report["losses"].values())
    for name in ("reversible", "checkpointed:4", "checkpointed:2"):              # as in test_gradient_modes_train_alike
        assert_allclose(report["losses"][name], report["losses"]["direct"], rtol=1e-13)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_compare_leaves_out_what_would_take_too_long(capsys, monkeypatch):
    monkeypatch.setattr(compare, "SKIP_AFTER", 0.0)
    status, out, _ = run(capsys, "compare", "white-dwarf", *TINY)
    assert status == 0 and "checkpointed:2 was left out" in out and "--full runs it" in " ".join(out.split())
    assert [line.split()[0] for line in tables_of(out)[0][3:]] == ["reversible"]


def test_a_mode_that_breaks_down_is_left_out_and_the_others_are_measured(capsys, monkeypatch):
    once = training.fit

    def fit(job, *rest, **options):
        if job.name == "backsolve":
            raise FloatingPointError("the loss is nan")
        return once(job, *rest, **options)

    monkeypatch.setattr(training, "fit", fit)
    status, out, _ = run(capsys, "compare", "white-dwarf", *TINY)
    names_found = [line.split()[0] for line in tables_of(out)[0][3:]]
    assert status == 0 and "backsolve was left out: the loss is nan." in out
    assert "backsolve" not in names_found and "checkpointed:2" in names_found


def test_what_a_checkpointed_row_takes_tells_of_the_next(monkeypatch):
    """A plain solve on the tape takes long, the rows by a quicker backend do not: all of them are measured. And the other
    way round, where each takes ten times what was expected."""
    e = white_dwarf.experiment(100)
    run = training.fit(job(e), 1)
    jobs = compare.rows_beside(run, "eager")[1:-1]
    clock = iter(np.arange(1000.0))
    monkeypatch.setattr(compare.time, "perf_counter", lambda: next(clock))          # a plain solve takes 1 s
    taken = {"quick": 0.01, "slow": 70.0}
    for speed, names_kept in (("quick", [job.name for job in jobs]), ("slow", ["checkpointed:44"])):
        monkeypatch.setattr(training, "fit", lambda job, *rest, speed=speed: SimpleNamespace(seconds=[taken[speed]]))
        kept, begun = compare.affordable(run, jobs, False, [])
        assert [job.name for job in kept] == names_kept and len(begun) == len(kept)


def test_estimates_grow_with_the_recomputed_steps():
    guess = [compare.estimated_seconds(rv.Checkpointed(n), 1000, 0.01) for n in (44, 8, 2)]
    # 5 times .01 s for the taped steps, and .01 s for every 1000 of r N - C(n + r, n + 1) advances.
    assert_allclose(guess, [0.05 + 0.01 * a / 1000 for a in (1954, 4285, 28820)], rtol=1e-12)
    assert compare.estimated_seconds(rv.Direct(), 1000, 0.01) == pytest.approx(0.05)


# What was done is never lost --------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", ["train", "compare"])
def test_ctrl_c_publishes_what_was_reached(capsys, monkeypatch, tmp_path, command):
    replaced(monkeypatch, interrupting(white_dwarf.experiment(N), 3, KeyboardInterrupt()))
    json_file, picture = tmp_path / "a.json", tmp_path / "a.png"
    status, out, _ = run(capsys, command, "white-dwarf", "--iterations", "50", "--backend", "eager", "--json", json_file,
                         "--plot", picture)
    assert status == 130 and "Ended early (interrupted)" in out
    found, cost, *_ = tables_of(out)
    assert found[3].startswith("reversible") and "~" in found[3] and cost[3].startswith("reversible")
    report = json.loads(json_file.read_text())
    assert report["stopped"] == "interrupted" and report["rows"][0]["iterations"] == 2
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.sample(1)
@pytest.mark.parametrize("reason, status", [(KeyboardInterrupt(), 130), (FloatingPointError("boom"), 1)])
def test_a_stop_while_measuring_publishes_the_rows_so_far(capsys, monkeypatch, tmp_path, reason, status):
    path, measured = tmp_path / "a.json", measuring.measured

    def measure(job, *rest):
        if job.name == "checkpointed:16":
            raise reason
        return measured(job, *rest)

    monkeypatch.setattr(measuring, "measured", measure)
    assert run(capsys, "compare", "white-dwarf", *TINY, "--json", path)[0] == status
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == ["reversible", "direct", "checkpointed:16"]
    assert [("nfe" in row) for row in rows] == [True, True, False]          # timed, but not measured


def test_a_mistake_of_ours_loses_nothing_either(capsys, monkeypatch, tmp_path):
    path = tmp_path / "a.json"

    def fail(*args):
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(compare, "in_turns", fail)
    with pytest.raises(ZeroDivisionError):
        run(capsys, "compare", "white-dwarf", *TINY, "--json", path)
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["reversible"]
    assert tables_of(capsys.readouterr().out)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals as on POSIX")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_what_asks_to_end_is_like_ctrl_c(capsys, monkeypatch, tmp_path, number):
    """As batch systems and closed terminals do; whoever started the tests may have Ctrl-C ignored, and this as well."""
    e, number = white_dwarf.experiment(N), getattr(signal, number)
    seen, before = [], signal.signal(number, signal.SIG_DFL)

    def loss(params, solve):
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), number)
        return e.loss(params, solve)

    replaced(monkeypatch, with_optimiser(dataclasses.replace(e, loss=loss), optim.adam(1e-2)))
    try:
        status, out, _ = run(capsys, "train", "white-dwarf", "--iterations", "50", "--backend", "eager",
                             "--json", tmp_path / "a.json")
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with runner.ended_by_signals() as told:
            os.kill(os.getpid(), number)                     # what is ignored stays so
        assert not told
    finally:
        signal.signal(number, before)
    report = json.loads((tmp_path / "a.json").read_text())
    assert status == 128 + number and "Ended early (terminated)" in out
    assert report["stopped"] == "terminated" and report["rows"][0]["iterations"] == 2


def test_ctrl_c_before_the_first_loss(capsys, monkeypatch):
    replaced(monkeypatch, interrupting(white_dwarf.experiment(N), 1, KeyboardInterrupt()))
    status, _, err = run(capsys, "train", "white-dwarf", "--backend", "eager")
    assert status == 130 and err.endswith("revode train: interrupted\n")


def test_one_of_several_files_that_cannot_be_written_does_not_cost_the_others(capsys, monkeypatch, tmp_path):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "write_json", full)
    picture = tmp_path / "x.png"
    status, out, err = run(capsys, "train", "white-dwarf", *TINY, "--plot", picture, "--json", tmp_path / "x.json")
    assert status == 2 and "x.json could not be written: No space left" in err
    assert tables_of(out) and picture.exists()


def test_warnings_are_counted_and_explained(capsys, tmp_path):
    """lam = .5 doubles the error of the reconstruction every step: 80 steps lose all digits of a float64."""
    path = tmp_path / "a.json"
    status, out, err = run(capsys, "train", "white-dwarf", "--steps", "80", "--iterations", "3", "--backend", "eager",
                           "--method", "coupled:midpoint:0.5", "--json", path)
    report = json.loads(path.read_text())
    assert status == 0 and "Warning" not in err
    # three iterations and one that measures, each with one warning; Direct has no reverse sweep
    assert "4 solves gave a ReconstructionWarning: " in " ".join(out.split()) and "Remedies" in out
    assert report["rows"][0]["warned"] == {"ReconstructionWarning": 3} and report["warnings"]["ReconstructionWarning"][0] == 4


@pytest.mark.parametrize("method", ["reversible-heun", "alf", "alf:0.9", "leapfrog-midpoint", "coupled:bosh3:0.99",
                                    "ees:4"])
def test_other_methods(capsys, method):
    status, out, _ = run(capsys, "train", "white-dwarf", *TINY, "--method", method)
    assert status == 0
    error = float(tables_of(out)[1][3].split()[6])
    # Exactly reversible: rounding. EES(4 stages) reconstructs to O(h^7): h = .25.
    assert error < (1e-3 if method.startswith("ees") else 1e-12)


def test_float32(capsys, tmp_path):
    path = tmp_path / "params.npz"
    status, out, _ = run(capsys, "train", "white-dwarf", *TINY, "--dtype", "float32", "--save", path)
    assert status == 0 and "float32" in out
    assert {leaf.dtype for leaf in rv.tree.flatten(rv.load(path))[0]} == {np.dtype(np.float32)}
    # 2e-13 in float64 above, scaled by the ratio of the two eps, 5e8.
    assert float(tables_of(out)[1][3].split()[6]) < 1e-4


@pytest.mark.parametrize("words, message", [
    (["train", "dwarf"], "invalid choice: 'dwarf'"),
    (["train", "white-dwarf", "--method", "rk45"], "there is no method 'rk45'; the names are.*coupled:midpoint:0.999"),
    (["train", "white-dwarf", "--method", "coupled:nope"], "unknown Runge-Kutta method 'nope'; known are euler"),
    (["train", "white-dwarf", "--method", "coupled:midpoint:2"], r"lam=2.0; the coupling is a number in \(0, 1\]"),
    (["train", "white-dwarf", "--method", "alf:x"], "'x' is not a number of the right kind; write it like 'alf:1.0'"),
    (["train", "white-dwarf", "--gradient", "checkpointed"], "does not have the form of 'checkpointed:8'"),
    (["train", "white-dwarf", "--gradient", "checkpointed:0"], "n=0"),
    (["train", "white-dwarf", "--gradient", "direct:3"], "does not have the form of 'direct'"),
    (["train", "white-dwarf", "--gradient", "adjoint"], "there is no gradient mode 'adjoint'"),
    (["train", "white-dwarf", "--iterations", "0"], "'0' is not a whole number of at least 1"),
    (["train", "white-dwarf", "--steps", "1.5"], "'1.5' is not a whole number of at least 1"),
    (["train", "white-dwarf", "--seed", "-1"], "'-1' is not a whole number of at least 0"),
    (["train", "white-dwarf", "--plot", "/no/such/folder/x.png"], "no folder /no/such/folder; create it"),
    (["train", "white-dwarf", "--method", "runge-kutta:rk4", "--gradient", "reversible"], "cannot be run backwards"),
    (["compare", "white-dwarf", "--method", "runge-kutta:rk4"], "cannot be run backwards"),
    ([], "the following arguments are required: COMMAND"),
])
def test_errors_are_one_sentence(capsys, words, message):
    status, out, err = run(capsys, *words)
    assert status == 2 and not out
    assert re.search(message, err.splitlines()[-1]), err
    assert "Traceback" not in err


def test_a_file_that_cannot_be_written_is_said_before_any_work(capsys, tmp_path):
    for words, said in ((("--plot", tmp_path / "x.abc"), "the ending says what is drawn: .png, .pdf, .svg"),
                        (("--json", tmp_path), "it is a folder"), (("--save", tmp_path / "no" / "x.npz"), "there is no folder")):
        status, out, err = run(capsys, "train", "white-dwarf", *TINY, *words)
        assert status == 2 and not out and said in err and err.count("\n") == 1


def test_what_is_named_twice_or_cannot_be_read_is_said_before_any_work(capsys, tmp_path):
    for words, said in (
            (("white-dwarf", "--json", tmp_path / "a.png", "--plot", tmp_path / "a.png"), "a.png is named twice"),
            (("white-dwarf", "--json", "/proc/a.json"), "/proc/a.json cannot be written"),
            (("white-dwarf", "--seeds", 1, 2, 1), "--seeds 1 2 1: each once"),
            (("language", "--models", "revdeq", "revdeq"), "--models revdeq revdeq: each once"),
            (("pendulum", "--data", "no.txt"), "--data no.txt cannot be read: there is no such file"),
            (("language", "--text", "no.txt"), "--text no.txt cannot be read: there is no such file")):
        status, out, err = run(capsys, "train", *words)
        assert status == 2 and not out and said in err and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())                       # what was tried there is gone


def test_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = run(capsys, "train", "white-dwarf", *TINY, "--plot", tmp_path / "x.png")
    assert status == 2 and not out                            # before the training, not after it
    assert err == ("revode train: --plot needs matplotlib, which is not installed; it comes with pip install "
                   "'revode[plot]'\n")


def test_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    status, out, err = run(capsys, "train", "white-dwarf", *TINY)
    assert status == 0 and tables_of(out)
    assert err == "No progress bar, because tqdm is not installed; it comes with pip install 'revode[plot]'.\n"


def test_progress_bar_shows_the_loss(capsys):
    _, out, err = run(capsys, "train", "white-dwarf", *TINY)
    shown = tables_of(out)[0][3].split()[3]
    best = re.findall(r"best (\S+?)\]", err)[-1]
    assert "3/3" in err and abs(float(best) - float(shown)) <= 0.0051 * float(best)      # three digits of four


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["compare", "--help"], ["train", "ou", "--help"]])
def test_help(capsys, words):
    status, out, _ = run(capsys, *words)
    assert status == 0 and (words[0] == "--help" or "ou" in words or "examples:\n  revode " in out)
    # Every experiment and command says in a whole sentence what it is.
    said = re.split(r"\n    (?=[a-z])", out.partition("positional arguments:")[2].partition("\n\n")[0])[1:]
    assert all(re.fullmatch(r"\S+\s+[A-Z].*[.?]", " ".join(text.split())) for text in said), said


def test_examples_of_the_help_are_accepted():
    found = re.findall(r"^  revode (.*?)(?:   .*)?$", train.__doc__ + compare.__doc__, re.M)
    assert len(found) >= 12
    for line in found:
        assert cli.parser().parse_args(line.split()).plan


def test_python_m_revode_and_a_plot_without_a_display(tmp_path):
    path = tmp_path / "fit.png"
    done = subprocess.run([sys.executable, "-W", "error", "-m", "revode", "train", "white-dwarf", *TINY,
                           "--plot", str(path)], capture_output=True, text=True, timeout=120,
                          env={"PATH": "", "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert path.read_bytes()[:4] == b"\x89PNG"


# Names and tables --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, built", [
    ("coupled", rv.Coupled()), ("coupled:rk4", rv.Coupled("rk4")), ("Coupled:euler:0.9", rv.Coupled("euler", 0.9)),
    ("reversible-heun", rv.ReversibleHeun()), ("alf", rv.AsynchronousLeapfrog()),
    ("alf:0.8", rv.AsynchronousLeapfrog(0.8)),
    ("leapfrog-midpoint", rv.LeapfrogMidpoint()), ("runge-kutta:bosh3", rv.RungeKutta("bosh3")),
    ("ees25:0.25", rv.EES25(0.25)), ("ees27", rv.EES27()), ("ees:5", rv.EES(5)),
    ("near-reversible:rk4", rv.NearReversible("rk4")),
])
def test_methods_by_name(text, built):
    assert names.method(text) == built


def test_examples_among_the_names_build():
    for _, _, example in names.METHODS.values():
        names.method(example)


@pytest.mark.parametrize("mode, text", [
    (rv.Reversible(), "reversible"), (rv.Reversible(resync=100), "reversible:100"), (rv.Direct(), "direct"),
    (rv.Checkpointed(8), "checkpointed:8"), (rv.Backsolve(), "backsolve"), (rv.Automatic(), "automatic")])
def test_gradient_modes_by_name_and_back(mode, text):
    assert names.spell(mode) == text and names.gradient(text) == mode


def test_table_is_aligned():
    text = tables.table(("name", "time\nin s", "n"), [("a", "1.25", "3"), ("longer", "100", "12,345")])
    assert text.splitlines() == [
        "name    time       n",
        "        in s        ",
        "------  ----  ------",
        "a       1.25       3",
        "longer   100  12,345",
    ]


def test_a_wide_table_goes_on_below():
    heads = ["name", *(f"column {j}" for j in range(20))]
    rows = [[f"row {i}", *(f"{i}.{j}" for j in range(20))] for i in range(2)]
    parts = [part.splitlines() for part in tables.table(heads, rows).split("\n\n")]
    assert len(parts) == 3 and all(len(line) <= tables.WIDTH for part in parts for line in part)
    assert [part[2].split()[:2] for part in parts] == [["row", "0"]] * 3
    assert [word for part in parts for word in part[3].split()[2:]] == rows[1][1:]
    assert tables.table(["x" * 90, "y" * 90], [["a", "b"]]).count("\n\n") == 0          # two have nowhere to go


def test_the_tables_of_compare_are_as_wide_as_a_terminal():
    """With a certificate, warnings and programs that were compiled: neither of the two tables goes on below."""
    names_found = ["reversible", "direct", "checkpointed:44", "checkpointed:2", "backsolve", "reversible, replay", "reversible, eager"]
    rows = [{"name": name, "backend": "native", "loss_before": 1.21, "loss": 3.2e-4, "loss_finer": 3.2e-4, "extrapolated": True,
             "seconds_per_iteration": 0.25, "seconds_total": 280.0, "relative": 16.4, "rejected": None, "steps": 1000,
             "peak_bytes": 521 * 2 ** 10, "states": 1001, "nfe": 119_284, "nvjp": 4000, "gradient_error": 2.7e-16,
             "certificate": SimpleNamespace(below=1e-13, floor=0.0, size=1.0), "warned": {"ReconstructionWarning": 1000},
             "roundtrip": SimpleNamespace(absolute=2.2e-16, ulps=4.0), "compile_seconds": 2.6} for name in names_found]
    found, cost = reporting.all_tables(rows, 1000)
    assert "piling" in cost and "2.6 s" in cost and "piling" not in found
    for text in (found.partition("\n~")[0], cost):
        lines = text.splitlines()
        assert len(lines) == 3 + len(rows) and max(map(len, lines)) <= tables.WIDTH


def test_columns_leave_out_what_no_row_has():
    rows = [{"a": "-", "b": 1.0}, {"a": "-", "b": 2.0}]
    text = tables.columns(rows, (("name", lambda row: "-"), ("a", lambda row: row["a"]), ("b", lambda row: f"{row['b']:g}")))
    assert text.splitlines()[0].split() == ["name", "b"]
    assert tables.small(float("inf")) == tables.small(None) == "-" and tables.small(0.0) == "0"


@pytest.mark.parametrize("value, text", [
    (2.34e-6, "2.3 us"), (0.0123, "12 ms"), (0.999, "999 ms"), (1.0, "1.0 s"), (75.0, "75 s"), (119.4, "119 s"),
    (120.0, "2.0 minutes"), (200.0, "3.3 minutes"), (3600.0, "60 minutes"), (16800.0, "4.7 hours"), (None, "-"), (0.0, "0 s")])
def test_seconds(value, text):
    assert tables.seconds(value) == text


@pytest.mark.parametrize("value, text", [
    (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (506_880, "495 KiB"), (17_301_504, "16 MiB"),
    (3 * 2 ** 30, "3.0 GiB"), (5 * 2 ** 40, "5120 GiB")])
def test_sizes(value, text):
    assert tables.size(value) == text


# The figure --------------------------------------------------------------------------------------------------------
def test_figure_shows_the_data():
    ts = np.linspace(0, 1, 5)
    target = np.stack([ts, 1 - ts], -1)
    with plotting.style():
        _, axes = plotting.canvas(2)
        plotting.components(ts, target, ("x", "v"), lambda params, solve: target + 0.1, "t")(axes, None, None, None, 0, "")
        drawn = {line.get_label(): line.get_ydata() for line in axes[0].lines}
        for i, label in enumerate(("x", "v")):
            assert_array_equal(drawn[f"{label}, data"], target[:, i])
            assert_array_equal(drawn[f"{label}, fit"], target[:, i] + 0.1)
        plotting.loss_curves(axes[1], {"reversible": [9.0, 1.0, 2.0]})
    assert axes[1].get_yscale() == "log" and axes[1].lines[0].get_label() == "reversible: 1"
    assert axes[0].get_xlabel() == "t" and axes[1].get_xlabel() == "iteration"


def drawn_texts(figure):
    """What is written in a figure and where, in pixels: ticks, titles, labels, legends."""
    from matplotlib.axis import Tick
    from matplotlib.text import Text
    figure.draw_without_rendering()
    hidden = []                                  # ticks outside of the limits have texts that are not drawn
    for tick in figure.findobj(Tick):
        low, high = sorted(tick.axes.get_xlim() if "XTick" in type(tick).__name__ else tick.axes.get_ylim())
        hidden += [] if low <= tick.get_loc() <= high else tick.findobj(Text)
    return [(text.get_text(), text.get_window_extent()) for text in figure.findobj(Text)
            if text.get_text().strip() and text.get_visible() and text not in hidden]


def test_nothing_written_in_the_figure_of_compare_overlaps():
    rows = [{"name": name, "backend": backend, "seconds_per_iteration": seconds, "peak_bytes": size}
            for name, backend, seconds, size in (
                ("reversible", "native", 0.002, 2 ** 18), ("direct", "native", 0.0021, 2 ** 24),
                ("checkpointed:44", "native", 0.0022, 2 ** 18), ("checkpointed:32", "native", 0.0022, 2 ** 18),
                ("backsolve", "eager", 0.4, 2 ** 17), ("reversible, replay", "replay", 0.06, 2 ** 19))]
    ts = np.linspace(0, 1, 5)
    with plotting.style():
        figure, axes = plotting.canvas(4, width=6.0)
        plotting.components(ts, np.stack([ts] * 4, -1), ("o1", "o2", "w1", "w2"), lambda *at: np.stack([ts] * 4, -1), "t, s")(
            axes, None, None, None, 0, "")
        plotting.loss_curves(axes[1], {row["name"]: [1.0, 0.1] for row in rows})
        plotting.costs(axes[2:], rows)
        boxes = drawn_texts(figure)
    from matplotlib.text import Text
    points = {(float(x), float(y)) for line in axes[2].lines for x, y in zip(*line.get_data(), strict=True)}
    assert points == {(row["seconds_per_iteration"] * 1e3, float(i)) for i, row in enumerate(rows)}
    assert len(boxes) > 40
    for i, (name, a) in enumerate(boxes):
        for other, b in boxes[:i]:
            assert a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1 or a.x1 < b.x0 or b.x1 < a.x0, (name, other)
    # On a slide of 13.3 inches nothing is smaller than 10 points.
    smallest = min(text.get_fontsize() for text in figure.findobj(Text))
    assert smallest * 13.3 / max(figure.get_size_inches()[0], 13.3) > 10


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_figure_says_what_it_shows(tmp_path, ending):
    with plotting.style():
        figure, _ = plotting.canvas(1)
        plotting.save(figure, str(tmp_path / f"a.{ending}"), "A line that rises.")
    assert b"A line that rises." in (tmp_path / f"a.{ending}").read_bytes()

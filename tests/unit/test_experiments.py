"""The main job through its command line, on tiny grids: figures, files, messages, Ctrl-C; and its pieces."""
import dataclasses
import json
import re
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp

import revode as rv
from revode import optim
from revode.__main__ import main
from revode.experiments import EXPERIMENTS, commands, names, tables, training, white_dwarf
from revode.gradients.checkpointed import minimal_advances

N = 20
TINY = ["--steps", str(N), "--iterations", "3"]
HISTORY = {"best_loss", "losses", "seconds", "stopped"}
ROW = {"steps": int, "gradient": str, "loss": float, "iterations": int, "seconds_per_iteration": float, "seconds_total": float,
       "extrapolated": bool, "peak_bytes": int, "states": int, "nfe": int, "nvjp": int, "backend": str}


def run(capsys, *words):
    """Exit status, standard output and standard error of a command."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:               # argparse
        status = stop.code
    out = capsys.readouterr()
    return status, out.out, out.err


def table_of(text):
    """The lines of the first table in a printed text, which begins two lines above its rule."""
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if re.fullmatch(r"-+(  -+)+", line))
    end = next(i for i in range(rule, len(lines)) if i == len(lines) - 1 or not re.match(r"\S+ {2,}\S", lines[i + 1]))
    return lines[rule - 2:end + 1]


# The problem -------------------------------------------------------------------------------------------------------
def test_target_against_scipy():
    e = white_dwarf.experiment()
    truth = solve_ivp(white_dwarf.star, (0, 5), [1.0, 0.0], "DOP853", t_eval=e.ts, rtol=1e-13, atol=1e-14)
    # Both are approximate: dopri5 with h = .005 has h^5 = 3e-12 times a constant below one for this slow solution, and
    # DOP853 keeps its local error below 1e-13 in each of some 100 steps.
    assert_allclose(e.target, truth.y.T, rtol=0, atol=3e-12)
    assert e.target.shape == (1001, 2) and e.steps == 1000 and e.ts[1] == pytest.approx(0.005)
    assert 0.04 < e.target[-1, 0] < 0.05                 # x^2 > C all the way: the power stays real


def test_true_field_at_a_point():
    """x = .5, v = -1, t = 1.5:  -2 v / 2 - (.25 - .001)^1.5."""
    assert_allclose(white_dwarf.star(1.5, np.array([0.5, -1.0])), [-1.0, 1.0 - 0.249 ** 1.5], rtol=1e-15)


def test_coarse_grids_have_the_same_target():
    fine, coarse = white_dwarf.experiment(1000).target, white_dwarf.experiment(N).target
    # The same fine steps lie between, up to rounding of their ends: 1000 steps, a few eps each.
    assert_allclose(coarse, fine[::1000 // N], rtol=0, atol=1e-12)


def test_network_takes_time_first_and_batches():
    e = white_dwarf.experiment(N)
    params = e.params(3)
    y = np.array([[0.3, -0.2], [0.1, 0.9]])
    W1, W2 = (layer["W"] for layer in params)
    b1, b2 = (layer["b"] for layer in params)
    expected = [np.tanh(np.array([0.7, *row]) @ W1 + b1) @ W2 + b2 for row in y]
    assert_allclose(e.field(0.7, y, params), expected, rtol=0, atol=1e-15)
    assert (W1.shape, W2.shape) == ((3, 10), (10, 2))


# Training ----------------------------------------------------------------------------------------------------------
def test_training_keeps_the_best_parameters_and_not_the_last():
    e = white_dwarf.experiment(N)
    wild = dataclasses.replace(e, optimiser=optim.sgd(0.02, momentum=0.9), method=rv.RungeKutta("midpoint"))
    result = training.train(wild, rv.Direct(), iterations=10, seed=0)
    best = int(np.argmin(result.losses))
    assert 0 < best < 9                                  # the case that this test is about
    assert result.loss == result.losses[best]
    # The tape takes the mean as sum * (1/n), NumPy as sum / n: one rounding apart.
    assert_allclose(float(wild.objective(wild.method, None)(result.params)[0]), result.loss, rtol=4e-16)


def test_training_lowers_the_loss():
    result = training.train(white_dwarf.experiment(N), rv.Reversible(), iterations=40, seed=1)
    assert result.losses[0] > 0.1 and result.loss < 0.25 * result.losses[0]
    assert len(result.losses) == len(result.seconds) == result.iterations == 40 and result.stopped is None


def test_gradient_modes_train_alike():
    """The same gradient up to rounding gives the same losses: all modes but Backsolve are the discrete gradient."""
    e = white_dwarf.experiment(N)
    losses = {name: training.train(e, names.gradient(name), iterations=4, seed=2).losses
              for name in ("direct", "reversible", "reversible:7", "checkpointed:3", "backsolve")}
    for name in ("reversible", "reversible:7", "checkpointed:3"):
        # Adam divides by the gradient's size, so an error of about N * 4 * eps = 2e-14 in a gradient moves the
        # parameters by lr times that; three updates, and a slope of the loss of about 10.
        assert_allclose(losses[name], losses["direct"], rtol=1e-13)
    assert abs(losses["backsolve"][3] / losses["direct"][3] - 1) > 1e-9
    assert_allclose(losses["backsolve"], losses["direct"], rtol=0.05)


def interrupting(e, calls, reason):
    """The experiment with a loss that raises at the given call, once."""
    seen = []

    def loss(ys, target):
        seen.append(1)
        if len(seen) == calls:
            raise reason
        return e.loss(ys, target)

    return dataclasses.replace(e, loss=loss)


@pytest.mark.parametrize("reason, said", [(KeyboardInterrupt(), "interrupted"), (FloatingPointError("boom"), "boom")])
def test_a_stop_keeps_what_was_reached(reason, said):
    e = white_dwarf.experiment(N)
    whole = training.train(e, rv.Direct(), iterations=3)
    result = training.train(interrupting(e, 3, reason), rv.Direct(), iterations=9)
    assert result.stopped == said and result.losses == whole.losses[:2] and len(result.seconds) == 2
    with pytest.raises(type(reason)):
        training.train(interrupting(e, 1, reason), rv.Direct(), iterations=9)


@pytest.mark.parametrize("spoil, message", [
    (lambda loss: np.log(loss * 0.0), "the loss is -inf"),
    (lambda loss: np.sqrt(loss * 0.0), "the gradient has entries that are not finite"),      # 0, with an infinite slope
])
def test_what_is_not_finite_ends_training(spoil, message):
    e = white_dwarf.experiment(N)
    spoiled = dataclasses.replace(e, loss=lambda ys, target: spoil(e.loss(ys, target)))
    with pytest.raises(FloatingPointError, match=message), pytest.warns(rv.NonFiniteWarning):
        training.train(spoiled, rv.Direct(), iterations=2)


def test_peak_memory_sees_what_was_freed():
    def allocate():
        x = np.ones(1_000_000)
        del x
        return np.ones(1000)

    # 8 MB, and a few hundred bytes of Python objects.
    assert not tracemalloc.is_tracing()
    peak, result = training.peak_memory(allocate)
    assert 8e6 <= peak < 8.1e6 and result.shape == (1000,) and not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        x = np.ones(2_000_000)                           # was there before
        assert 8e6 <= training.peak_memory(allocate)[0] < 8.1e6
        assert tracemalloc.is_tracing() and x.size
    finally:
        tracemalloc.stop()


def test_relative_error_is_over_the_whole_tree():
    truth = {"a": np.array([3.0, 0.0]), "b": [np.array([4.0]), None]}
    grads = {"a": np.array([3.0, 0.3]), "b": [np.array([4.4]), None]}
    assert training.relative_error(grads, truth) == pytest.approx(0.5 / 5.0)
    assert training.relative_error(truth, truth) == 0.0


# The commands ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gradient, states, nfe, nvjp", [
    # Coupled midpoint has 2 stages, so 4 evaluations a step; METHODS sections 2 and 6.
    ("direct", N + 1, 4 * N, 4 * N),
    ("reversible", 2, 8 * N, 4 * N),
    ("checkpointed:3", 4, 4 * (minimal_advances(N, 3) + N), 4 * N),
])
def test_train_writes_its_figures(capsys, tmp_path, gradient, states, nfe, nvjp):
    path, kept = tmp_path / "out.json", tmp_path / "params.npz"
    status, out, _ = run(capsys, "train", "white-dwarf", *TINY, "--gradient", gradient, "--json", path, "--save", kept,
                         "--backend", "eager")
    assert status == 0 and f"wrote {path}" in out and f"wrote {kept}" in out
    report = json.loads(path.read_text())
    assert set(report) == {"schema", "revode", "command", "experiment", "settings", "machine", "rows", "runs", "notes",
                           "published", "findings"}
    assert report["schema"] == 1 and report["command"] == "train" and report["experiment"] == "white-dwarf"
    assert report["settings"] == {"method": repr(rv.Coupled("midpoint", lam=0.999)), "steps": N, "iterations": 3,
                                  "seed": 0, "dtype": "float64", "recipe": white_dwarf.experiment(N).recipe,
                                  "published_iterations": 1000, "data": white_dwarf.experiment(N).data,
                                  "backend": "eager", "threads": None, "arithmetic": "fast"}
    row, = report["rows"]
    assert set(row) == {*ROW, "rejected", "gradient_error", "roundtrip", "relative"}
    for key, kind in ROW.items():
        assert type(row[key]) is kind, key
    assert (row["gradient"], row["states"], row["nfe"], row["nvjp"]) == (gradient, states, nfe, nvjp)
    assert row["iterations"] == 3 and not row["extrapolated"]
    history = report["runs"][gradient]
    assert set(history) == HISTORY and row["loss"] == min(history["losses"]) == history["best_loss"]
    assert row["seconds_total"] == pytest.approx(sum(history["seconds"])) and history["stopped"] is None
    # A gradient of 20 steps with growth below 2 in all: METHODS section 9 gives some 4 * N * 10 * eps.
    assert row["gradient_error"] < 2e-13
    assert (row["roundtrip"] is not None) == (gradient == "reversible")
    params = rv.load(kept)
    e = white_dwarf.experiment(N)
    # The tape takes the mean as sum * (1/n), NumPy as sum / n: one rounding apart.
    assert_allclose(float(e.objective(e.method, rv.Direct())(params)[0]), row["loss"], rtol=4e-16)


def test_compare_measures_every_mode(capsys, tmp_path):
    path = tmp_path / "out.json"
    status, out, err = run(capsys, "compare", "white-dwarf", "--steps", "50", "--iterations", "6", "--json", path,
                           "--backend", "eager")
    assert status == 0
    rows = {row["gradient"]: row for row in json.loads(path.read_text())["rows"]}
    counts = (44, 32, 16, 8, 4, 2)
    assert list(rows) == ["reversible", "direct", *(f"checkpointed:{n}" for n in counts), "backsolve"]
    assert [rows[f"checkpointed:{n}"]["nfe"] for n in counts] == [4 * (minimal_advances(50, n) + 50) for n in counts]
    assert [rows[f"checkpointed:{n}"]["states"] for n in counts] == [n + 1 for n in counts]
    for name, row in rows.items():
        # The same forward solve at the same parameters: the same bits.
        assert row["loss"] == rows["reversible"]["loss"]
        assert row["extrapolated"] == (name != "reversible")
        assert row["seconds_total"] == pytest.approx(rows["reversible"]["seconds_total"] * row["relative"])
        assert row["relative"] == pytest.approx(
            row["seconds_per_iteration"] / rows["reversible"]["seconds_per_iteration"])
        assert row["relative"] == 1.0 if name == "reversible" else row["relative"] > 0
        assert row["peak_bytes"] > 50 * 2 * 8                # at least the saved states
        assert f"measured {name}" in err or name == "reversible"
        if name == "backsolve":
            assert 1e-9 < row["gradient_error"] < 0.1        # the continuous adjoint: right to O(h^2) only
        else:
            assert row["gradient_error"] < 5e-13             # as above, with 50 steps
    assert rows["direct"]["peak_bytes"] > 3 * rows["reversible"]["peak_bytes"]
    assert rows["reversible"]["roundtrip"]["absolute"] < 50 * 4 * 2e-16 and rows["reversible"]["iterations"] == 6
    lines = table_of(out)
    assert len({len(line) for line in lines}) == 1 and len(lines) == 3 + len(rows)
    assert sum("~" in line for line in lines) == len(rows) - 1 and "~ extrapolated" in out
    assert "Published, other hardware" in out and re.search(r"checkpointing +0.9e-4 +280.0 min +2\n", out)
    assert "published: 1,000" in out


def test_modes_are_timed_in_turns_with_reversible(monkeypatch):
    e = white_dwarf.experiment(5)
    modes = {"reversible": rv.Reversible(), "direct": rv.Direct()}
    asked = []
    once = training.train
    monkeypatch.setattr(training, "train", lambda e, gradient, **rest: (
        asked.append(gradient) or once(e, gradient, **rest)))
    first = once(e, rv.Reversible(), iterations=4)
    found = training.in_turns(e, modes, first.params, e.method, {})
    assert asked == [rv.Reversible(), rv.Direct()] * training.ROUNDS
    for trained in found.values():
        # from the same parameters every time, and one rounding of the mean apart from the best loss
        assert len(set(trained.losses)) == 1 and len(trained.seconds) == len(trained.losses) == training.ROUNDS
        assert_allclose(trained.losses[0], first.loss, rtol=4e-16)
    slow = {"reversible": found["reversible"]._replace(seconds=[1.0, 1.0, 9.0]),
            "direct": found["direct"]._replace(seconds=[0.1, 2.5, 7.0])}
    monkeypatch.setattr(training, "in_turns", lambda *args: slow)
    rows = [row for row, _ in training.compare(e, modes, first, method=e.method, iterations=4, full=False, seed=0,
                                               truth=None, engines={})]
    assert [(row.gradient, row.relative) for row in rows] == [("reversible", 1.0), ("direct", 2.5)]
    assert [row.seconds_per_iteration for row in rows] == [1.0, 2.5]
    assert rows[0].seconds_total == sum(first.seconds) and not rows[0].extrapolated
    assert rows[1].seconds_total == 2.5 * sum(first.seconds) and rows[1].extrapolated
    assert rows[1].gradient_error is None                # there was no truth to compare it with


def test_compare_in_full_trains_every_mode(capsys, tmp_path):
    path, picture = tmp_path / "out.json", tmp_path / "out.png"
    status, out, _ = run(capsys, "compare", "white-dwarf", "--steps", "5", "--iterations", "2", "--full",
                         "--backend", "eager", "--json", path, "--plot", picture)
    report = json.loads(path.read_text())
    assert status == 0 and "~" not in out
    assert list(report["runs"]) == ["reversible", "direct", "checkpointed:4", "checkpointed:2", "backsolve"]
    assert all(len(r["losses"]) == 2 for r in report["runs"].values())
    first = report["runs"]["direct"]["losses"]
    for name in ("reversible", "checkpointed:4", "checkpointed:2"):
        assert_allclose(report["runs"][name]["losses"], first, rtol=1e-13)      # as in test_gradient_modes_train_alike
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_compare_leaves_out_what_would_take_too_long(capsys, monkeypatch):
    monkeypatch.setattr(commands, "SKIP_AFTER", 0.0)
    status, out, _ = run(capsys, "compare", "white-dwarf", *TINY, "--backend", "eager")
    assert status == 0 and "checkpointed:2 was left out" in out and "--full runs it" in out
    assert [line.split()[0] for line in table_of(out)[3:]] == ["reversible"]


def test_estimates_grow_with_the_recomputed_steps():
    guess = [training.estimated_seconds(rv.Checkpointed(n), 1000, 0.01, 0.1) for n in (44, 8, 2)]
    # 1.5 * .1 s for the taped steps, and .01 s for every 1000 of r N - C(n + r, n + 1) advances.
    assert_allclose(guess, [0.15 + 0.01 * a / 1000 for a in (1954, 4285, 28820)], rtol=1e-12)
    assert training.estimated_seconds(rv.Direct(), 1000, 0.01, 0.1) == pytest.approx(0.15)


@pytest.mark.parametrize("command", ["train", "compare"])
def test_ctrl_c_prints_the_table_of_what_was_reached(capsys, monkeypatch, command):
    e = interrupting(white_dwarf.experiment(N), 3, KeyboardInterrupt())
    monkeypatch.setitem(EXPERIMENTS, "white-dwarf", SimpleNamespace(STEPS=N, experiment=lambda **options: e))
    status, out, _ = run(capsys, command, "white-dwarf", "--iterations", "50", "--backend", "eager")
    assert status == 130 and "Training ended after 2 iterations (interrupted)" in out
    row = table_of(out)[3].split()
    assert "~ extrapolated from fewer than 50 iterations." in out
    assert row[:2] == ["reversible", "eager"] and row[3] == "2" and row[6 + (command == "compare")].startswith("~")


def test_ctrl_c_while_measuring_prints_the_rows_so_far(capsys, monkeypatch):
    # 3 losses in training, the plain solve, Direct's gradient, reversible's row; the next is the first in turns.
    e = interrupting(white_dwarf.experiment(N), 3 + 1 + 1 + 1 + 1, KeyboardInterrupt())
    monkeypatch.setitem(EXPERIMENTS, "white-dwarf", SimpleNamespace(STEPS=N, experiment=lambda **options: e))
    status, out, _ = run(capsys, "compare", "white-dwarf", "--iterations", "3", "--backend", "eager")
    assert status == 0 and "Gradient modes that are missing were not measured: interrupted." in out
    assert [line.split()[0] for line in table_of(out)[3:]] == ["reversible"]


def test_ctrl_c_before_the_first_loss(capsys, monkeypatch):
    e = interrupting(white_dwarf.experiment(N), 1, KeyboardInterrupt())
    monkeypatch.setitem(EXPERIMENTS, "white-dwarf", SimpleNamespace(STEPS=N, experiment=lambda **options: e))
    status, _, err = run(capsys, "train", "white-dwarf")
    assert status == 130 and err.endswith("revode train: interrupted\n")


def test_reconstruction_warnings_are_said_once_and_counted(capsys):
    """lam = .5 doubles the error of the reconstruction every step: 60 steps lose all digits of a float64."""
    status, out, err = run(capsys, "train", "white-dwarf", "--steps", "80", "--iterations", "3",
                           "--method", "coupled:midpoint:0.5")
    assert status == 0 and err.count("Warning: ") == 1 and "Remedies" in err
    # three iterations and one that measures, each with one warning; Direct has no reverse sweep
    assert "4 solves gave a ReconstructionWarning" in " ".join(out.split())


@pytest.mark.parametrize("method", ["reversible-heun", "alf", "alf:0.9", "leapfrog-midpoint", "coupled:bosh3:0.99",
                                    "ees:4"])
def test_other_methods(capsys, method):
    status, out, _ = run(capsys, "train", "white-dwarf", *TINY, "--method", method)
    assert status == 0
    error = float(table_of(out)[3].split()[-3])
    # Exactly reversible: rounding. EES(4 stages) reconstructs to O(h^7): h = .25.
    assert error < (1e-3 if method.startswith("ees") else 1e-12)


def test_float32(capsys, tmp_path):
    path = tmp_path / "params.npz"
    status, out, _ = run(capsys, "train", "white-dwarf", *TINY, "--dtype", "float32", "--save", path)
    assert status == 0 and "float32" in out
    assert {leaf.dtype for leaf in rv.tree.flatten(rv.load(path))[0]} == {np.dtype(np.float32)}
    # 2e-13 in float64 above, scaled by the ratio of the two eps, 5e8.
    assert float(table_of(out)[3].split()[-3]) < 1e-4


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


def test_a_plot_format_that_is_not_known(capsys, tmp_path):
    status, out, err = run(capsys, "train", "white-dwarf", *TINY, "--plot", tmp_path / "x.abc")
    assert status == 2 and "x.abc could not be written" in err
    assert table_of(out)                                      # the figures are not lost


def test_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = run(capsys, "train", "white-dwarf", *TINY, "--plot", tmp_path / "x.png")
    assert status == 2 and not out                            # before the training, not after it
    assert err == ("revode train: --plot needs matplotlib, which is not installed; it comes with pip install "
                   "'revode[plot]'\n")


def test_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    status, out, err = run(capsys, "train", "white-dwarf", *TINY)
    assert status == 0 and table_of(out)
    assert err == "No progress bar, because tqdm is not installed; it comes with pip install 'revode[plot]'.\n"


def test_progress_bar_shows_the_loss(capsys):
    _, out, err = run(capsys, "train", "white-dwarf", *TINY)
    shown = table_of(out)[3].split()[2]
    assert "3/3" in err and f"best {float(shown):.3e}" in err


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["compare", "--help"]])
def test_help(capsys, words):
    status, out, _ = run(capsys, *words)
    assert status == 0 and (words == ["--help"] or "examples:\n  revode " in out)


def test_examples_of_the_help_are_accepted(capsys):
    from revode.__main__ import EXAMPLES_COMPARE, EXAMPLES_TRAIN, parser
    from revode.experiments import fits
    found = re.findall(r"^  revode (.*?)(?:   .*)?$", EXAMPLES_TRAIN + EXAMPLES_COMPARE, re.M)
    assert len(found) == 12
    for line in found:
        assert fits.parse(line.split()) or parser().parse_args(line.split())


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


@pytest.mark.parametrize("value, text", [
    (2.34e-6, "2.34 us"), (0.0123, "12.3 ms"), (0.999, "999 ms"), (1.0, "1.00 s"), (75.0, "75.0 s"), (119.4, "119 s"),
    (200.0, "3.33 min"), (3600.0, "60.0 min"), (16800.0, "4.67 h")])
def test_seconds(value, text):
    assert tables.seconds(value) == text


@pytest.mark.parametrize("value, text", [
    (0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (506_880, "495 KiB"), (17_301_504, "16.5 MiB"),
    (3 * 2 ** 30, "3.00 GiB"), (5 * 2 ** 40, "5120 GiB")])
def test_sizes(value, text):
    assert tables.size(value) == text


# The figure --------------------------------------------------------------------------------------------------------
def rows_at(*points):
    return [training.Row(gradient=name, loss=1.0, iterations=1, seconds_per_iteration=seconds, seconds_total=seconds,
                         extrapolated=False, steps=1, rejected=None, peak_bytes=size, states=1, nfe=1, nvjp=1,
                         gradient_error=0.0, roundtrip=None)
            for name, size, seconds in points]


def test_figure_shows_the_data():
    from revode import plotting
    e = white_dwarf.experiment(N)
    fitted = e.target + 0.1
    rows = rows_at(("reversible", 2 ** 20, 0.5), ("direct", 2 ** 24, 1.0))
    figure = plotting.training(e, fitted, {"reversible": [3.0, 1.0, 2.0]}, rows)
    fit, loss, scatter = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in fit.lines}
    for i, label in enumerate(("x", "v")):
        assert_array_equal(drawn[f"{label}, data"], e.target[:, i])
        assert_array_equal(drawn[f"{label}, fit"], fitted[:, i])
    assert loss.get_yscale() == "log" and loss.lines[0].get_label() == "reversible: best 1.00e+00"
    assert (scatter.get_xscale(), scatter.get_yscale()) == ("log", "log")
    points = {(float(x), float(y)) for line in scatter.lines for x, y in zip(*line.get_data(), strict=True)}
    assert points == {(1, 0.5), (16, 1.0)}
    rows[0].relative, rows[1].relative = 1.0, 2.0
    scatter = plotting.training(e, fitted, {"reversible": [3.0]}, rows).axes[2]
    assert {float(line.get_ydata()[0]) for line in scatter.lines} == {1.0, 2.0} and "reversible: 1" in scatter.get_ylabel()
    assert len(plotting.training(e, fitted, {"direct": [1.0]}).axes) == 2


def test_names_in_the_scatter_do_not_overlap():
    from matplotlib.text import Text

    from revode import plotting
    e = white_dwarf.experiment(5)
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.05, 0.5):
        points = [(f"checkpointed:{n}", 5e5 * (1 + 0.02 * rng.random()), 0.3 * (1 + spread * rng.random()))
                  for n in range(10, 18)]
        figure = plotting.training(e, e.target, {"a": [1.0]}, rows_at(*points, ("direct", 2e7, 0.33)))
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in figure.axes[2].texts]      # the words without their line
        assert len(boxes) == len(points) + 1
        for i, a in enumerate(boxes):
            assert all(a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1 or a.x1 < b.x0 or b.x1 < a.x0 for b in boxes[:i]), spread

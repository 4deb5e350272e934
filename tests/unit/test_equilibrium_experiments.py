"""revode train | compare language and digits: the data, the lines beside, models that have to
agree, the commands.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.__main__ import main
from revode.experiments import digits, equilibria, language, measuring, tables
from revode.experiments.training import Run, fit

SMALL = dict(d=8, T=16, B=4)


@pytest.fixture(scope="module")
def text() -> language.Text:
    return language.Text()


def after(text: language.Text, name: str, steps: int) -> Run:
    """A small model after so many steps."""
    return fit(language.runs(text, **SMALL)[name], steps)


def leaves(tree: Any) -> list:
    return rv.tree.flatten(tree)[0]


def test_the_text_is_what_its_licence_says(text: language.Text) -> None:
    written = text.written(text.train)
    assert written.startswith(
        "In the beginning God created the heaven and the earth.\nAnd the earth was without form"
    )
    assert (len(text.train) + len(text.held_out), text.V) == (196_818, 60)
    assert language.GENESIS.read_text().isascii()
    assert "out of copyright" in language.__doc__


def test_windows_share_one_byte_and_miss_none_but_the_last(text: language.Text) -> None:
    windows = text.windows(50)
    assert np.array_equal(windows[1:, 0], windows[:-1, -1])
    assert np.array_equal(windows[:, :-1].ravel(), text.held_out[: windows.shape[0] * 50])
    rng = np.random.default_rng(0)
    batch = text.batch(rng, 500, 20)
    inside = text.written(text.train)
    assert batch.shape == (500, 21) and all(text.written(row) in inside for row in batch[:20])


def test_n_grams_against_counting_by_hand(tmp_path: Path) -> None:
    """A text of one sentence, over and over: p of each order by its formula, a character at a
    time.
    """
    path = tmp_path / "text.txt"
    path.write_text("abracadabra. " * 1000)
    small = language.Text(path)
    first, second = small.written(small.train), small.written(small.held_out)
    found = language.lines_beside(small)
    bits = 0.0
    whole = first + second
    for i in range(len(first), len(whole)):
        p = (first.count(whole[i]) + 2 / small.V) / (len(first) + 2)  # no context
        pairs = sum(first[j : j + 2] == whole[i - 1 : i + 1] for j in range(len(first) - 1))
        contexts = sum(first[j] == whole[i - 1] for j in range(len(first) - 1))
        bits -= math.log2((pairs + 2 * p) / (contexts + 2))
        if i == len(first) + 25:
            break
    n = 26
    assert found["2-gram"] == pytest.approx(
        bits / n, rel=1e-2
    )  # the sentence repeats, so 26 characters stand for all
    assert found["1-gram"] > found["2-gram"] > found["3-gram"]


def test_models_have_about_the_same_number_of_parameters(text: language.Text) -> None:
    sizes = {}
    for name, model in language.models().items():
        d = language.width(model.layers, text.V, 64, 64)
        sizes[name] = equilibria.size(
            language.parameters(np.random.default_rng(0), text.V, 64, d, model.layers)
        )
    assert max(sizes.values()) < 1.2 * min(sizes.values()), sizes
    assert sizes["revdeq"] == sizes["explicit-1"] == sizes["loop"]


def test_reversible_and_the_whole_tape_train_alike(text: language.Text) -> None:
    """Every iteration is rebuilt to the last bit, so gradients differ by the order of sums in
    float32 alone.
    """
    a, b = (after(text, name, 6) for name in ("revdeq", "unrolled"))
    assert a.stats.roundtrip.absolute == 0.0
    # Adam divides by the size of the gradient, which where that is near zero makes 1 of a rounding:
    # 6 steps of 3e-3 at most
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-5)
    assert (a.stats.peak_states, b.stats.peak_states) == (2, language.ITERATIONS + 1)


def test_one_call_of_the_cell_is_one_layer(text: language.Text) -> None:
    """The loop of one evaluation, from zero, is the explicit model."""
    params = language.parameters(np.random.default_rng(0), text.V, 16, 8, 1)
    tokens = text.windows(16)[:3]
    once = equilibria.Model("once", language.implicit_depth(rv.Picard(), rv.Direct(), steps=1))
    a, b = (
        language.loss(params, model, tokens)[0] for model in (once, language.models()["explicit-1"])
    )
    assert float(a) == pytest.approx(float(b), rel=1e-6)


@pytest.mark.sample(1, cover=False)
@pytest.mark.parametrize("name", list(language.models()))
@pytest.mark.filterwarnings("ignore::revode.ConvergenceWarning")
def test_every_language_model_learns(name: str, text: language.Text) -> None:
    run, before = after(text, name, 40), after(text, name, 1)
    bits, residual = language.held_out(run, text, 16, most=2000)
    assert bits < language.held_out(before, text, 16, most=2000)[0] < 7
    assert math.isnan(residual) == name.startswith("explicit")
    written = language.sample(run, text, 30)
    assert len(written) == 30 and set(written) <= set(text.written(range(text.V)))


def test_the_rate_rises_and_falls() -> None:
    found = [equilibria.rate(share, 2.0) for share in (0.0, 0.025, 0.05, 0.525, 1.0)]
    assert found == pytest.approx([0.0, 1.0, 2.0, 1.0, 0.0])


def test_a_training_ends_by_its_time(text: language.Text) -> None:
    run = fit(replace(language.runs(text, **SMALL)["explicit-1"], minutes=0.005))
    assert sum(run.seconds) >= 0.3 > sum(run.seconds[:-1]) and run.done > 3


def test_a_bar_of_minutes_ends_at_its_end(capsys: pytest.CaptureFixture) -> None:
    """The last step goes beyond the time that was given; tqdm would warn of a bar that is longer than it can be."""
    assert main(["train", "digits", "--minutes", "0.002", "--width", "4"]) == 0
    said = capsys.readouterr().err
    assert "0.12/0.12" in said and "s/s" in said and "arning" not in said


# digits -------------------------------------------------------------------------------------------
def test_the_digits() -> None:
    seen, held = digits.data()
    assert (seen.pixels.shape, held.pixels.shape) == ((1198, 64), (599, 64))
    assert (
        seen.pixels.min() == 0.0 and seen.pixels.max() == 1.0 and set(seen.labels) == set(range(10))
    )
    assert "CC BY 4.0" in digits.__doc__


@pytest.mark.parametrize("name", [model.name for model in digits.MODELS])
@pytest.mark.filterwarnings("ignore::revode.ConvergenceWarning")
def test_every_classifier_learns(name: str) -> None:
    seen, held = digits.data()
    run = fit(digits.runs(seen, held, 16)[name], 60)
    right, residual = digits.accuracy(run, held)
    assert right > 50.0  # one in ten by chance
    assert name == "explicit" or residual < 1.0


def test_classifiers_that_are_the_same_iteration() -> None:
    a, b = (fit(digits.runs(*digits.data())[name], 20) for name in ("revdeq", "unrolled"))
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-9)  # float64, and 2e-14 a gradient


# commands -----------------------------------------------------------------------------------------
def test_compare_digits(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    assert (
        main(
            [
                "compare",
                "digits",
                "--iterations",
                "5",
                "--seeds",
                "0",
                "1",
                "--width",
                "8",
                "--json",
                str(out),
                "--plot",
                str(plot),
                "--models",
                "revdeq",
                "explicit",
                "--certify",
                "2",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert (
        "revdeq, seed 1" in printed
        and "+-" in printed
        and max(map(len, printed.splitlines())) <= 100
    )
    found = json.loads(out.read_text())
    assert [row["model"] for row in found["rows"]] == [
        "revdeq",
        "explicit",
    ] * 2 and plot.stat().st_size > 1000
    assert found["rows"][0]["steps"] == 5 and found["rows"][0]["residual"] > 0
    assert all(0 <= row["certificate"]["below"] < 1e-10 for row in found["rows"])
    assert "explicit, seed 1, gradient of a batch: error below" in printed


def test_train_language(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert (
        main(
            [
                "train",
                "language",
                "--iterations",
                "2",
                "--width",
                "8",
                "--context",
                "16",
                "--batch",
                "4",
                "--json",
                str(out),
                "--certify",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    # float32: what rounding makes, of the tangents of attention, layer norm and embedding as of their pullbacks
    certificate = json.loads(out.read_text())["rows"][0]["certificate"]
    assert certificate["below"] < 4 * certificate["floor"] and "gradient of a batch" in printed
    assert (
        "Genesis (King James Version)" in printed and "zlib" in printed and "perplexity" in printed
    )
    assert json.loads(out.read_text())["lines"]["bz2"] == pytest.approx(1.691, abs=1e-3)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["language", "--text", "no such file"], "--text no such file cannot be read: there"),
        (["language", "--width", "10"], "a multiple of 4"),
        (["digits", "--data", "no such file"], "--data no such file cannot be read: there"),
    ],
)
def test_bad_files_are_told_before_any_work(
    args: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", *args]) == 2
    assert re.search(words, capsys.readouterr().err)


def test_ctrl_c_keeps_what_was_trained(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, seen = digits.loss, []

    def loss(*given: Any) -> Any:
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return once(*given)

    monkeypatch.setattr(digits, "loss", loss)
    out = tmp_path / "out.json"
    assert main(["train", "digits", "--iterations", "50", "--width", "4", "--json", str(out)]) == 130
    found = json.loads(out.read_text())
    assert found["stopped"] == "interrupted" and found["rows"][0]["steps"] == 3
    assert "Ended early (interrupted)" in capsys.readouterr().out


def test_a_model_without_a_tangent_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def certify(*given: Any) -> Any:
        raise FloatingPointError("the change of the fixed point did not settle")

    notes: list[str] = []
    monkeypatch.setattr(measuring, "certify", certify)
    run = replace(digits.runs(*digits.data())["implicit"], probes=3)
    assert measuring.certificate(run, None, notes) is None
    assert notes == ["implicit has no certificate: the change of the fixed point did not settle."]


@pytest.mark.parametrize("words", [("digits", "--width", "4"), pytest.param(
    ("language", "--width", "8", "--context", "16", "--batch", "4"), marks=pytest.mark.long)], ids=["digits", "language"])
def test_a_training_goes_on_where_it_was_ended(words: tuple, capsys: pytest.CaptureFixture, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended in the second model, between two writes, then killed before a look at the text was written: the minibatches, the rate,
    the losses and the looks are those of a training in one go."""
    out, kept, once, calls = tmp_path / "out.json", tmp_path / "run.npz", Run.record, []
    command = ["compare", *words, "--iterations", "12", "--models", "explicit" + "-1" * (words[0] == "language"), "revdeq",
               "--json", str(out)]

    def record(run: Run, *given: Any) -> None:
        once(run, *given)
        calls.append(1)
        if len(calls) == 12 + 7:
            raise KeyboardInterrupt

    assert main(command) == 0
    whole = json.loads(out.read_text())
    monkeypatch.setattr(Run, "record", record)
    assert main([*command, "--checkpoint", str(kept)]) == 130
    monkeypatch.setattr(Run, "record", once)
    capsys.readouterr()
    assert main([*command, "--checkpoint", str(kept)]) == 0
    again, said = json.loads(out.read_text()), capsys.readouterr()
    assert "explicit" in said.out and "revdeq goes on after 7 iterations" in said.out
    assert again["losses"] == whole["losses"] and all(len(losses) == 12 for losses in again["losses"].values())
    for ours, theirs in zip(again["rows"], whole["rows"], strict=True):
        assert {name: ours[name] for name in ("along", "bits", "right", "residual", "sample", "states") if name in ours} == {
            name: theirs[name] for name in ("along", "bits", "right", "residual", "sample", "states") if name in theirs}
    assert main([*command, "--checkpoint", str(kept), "--width", "16"]) == 2
    assert f"of another training (width {words[2]})" in capsys.readouterr().err


def test_the_tables_of_language_are_as_wide_as_a_terminal() -> None:
    """With seeds, a certificate and a training of hours: two tables, each named, and neither goes on below."""
    rows = [{"name": f"explicit-1, seed {seed}", "parameters": 57_024, "steps": 123_456, "seconds": 55_000.0, "bits": 2.123,
             "along": [2.1] * 10, "bytes_per_second": 123_456.0, "residual": 0.12, "evaluations": 8, "states": 120, "roundtrip": 1e-16,
             "certificate": SimpleNamespace(below=1e-13, floor=0.0, size=1.0)} for seed in (10, 11)]
    learnt, cost = equilibria.all_tables(rows, language.SHOWN)
    for text, name in ((learnt, "what was"), (cost, "what it")):
        lines = text.splitlines()
        assert lines[0].startswith(name) and len(lines) == 3 + len(rows) and max(map(len, lines)) <= tables.WIDTH
    assert "bytes/s" in learnt and "certi-" in cost

"""The experiments on every backend: the same losses, what the tables say about who ran, what is refused; the GPU in rehearsal."""
from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
from revode.experiments.engines import Engine

import revode as rv
from revode.__main__ import main
from revode.compiled import native
from revode.experiments import complexity, engines, fits, oscillator, ou, training, white_dwarf
from revode.methods import EES27, Coupled, ReversibleHeun

try:
    native.compiler()
    COMPILER = True
except native.NoCompiler:
    COMPILER = False


def losses_of_ode(module: Any, backend: str) -> training.Trained:
    return training.train(module.experiment(60).on(Engine(backend)), rv.Reversible(), iterations=6)


def losses_of_ou(method: Any, per_unit: int, backend: str) -> training.Trained:
    data = ou.sample(np.random.default_rng(0), 32)
    modes = ou.problem(method, per_unit, 6, data, 0, Engine(backend))
    return fits.fit(modes, ou.initial(0, "time"), rv.optim.adam(0.02), 6, None)


RUNS = {"white-dwarf": lambda backend: losses_of_ode(white_dwarf, backend),
        "oscillator": lambda backend: losses_of_ode(oscillator, backend),
        "ou, reversible Heun": lambda backend: losses_of_ou(ReversibleHeun(), 12, backend),
        "ou, EES(2,7)": lambda backend: losses_of_ou(EES27(), 3, backend),
        "ou, Coupled": lambda backend: losses_of_ou(Coupled("midpoint"), 3, backend)}


# The program of EES(2,7) takes the compiler some 5 s, so it is replayed here; tests of the native host have such methods too.
@pytest.mark.parametrize(("name", "backend"), [
    (name, backend) for name in RUNS for backend in ["replay"] + ["native"] * (name != "ou, EES(2,7)")])
def test_the_losses_are_those_of_the_tape(name: str, backend: str) -> None:
    """Compiled sums are taken in another order, and native elementary functions are an ulp off NumPy's. So the loss and the
    gradient of one solve of N <= 120 steps differ by at most N * 10 eps = 3e-13 of the size of the whole gradient. Adam divides
    each entry by its own size: an entry 1e-2 of the largest has 3e-11 of error, and so has its step of 2e-2. Five such steps,
    with a logarithmic slope of the loss of some 10: 5 * 2e-2 * 3e-11 * 10 = 3e-11, so 1e-10. The first loss has seen none.
    (Seen: 4e-16 throughout, because such roundings mostly cancel.)"""
    if backend == "native" and not COMPILER:
        pytest.skip("no C++ compiler on this machine")
    found, tape = RUNS[name](backend), RUNS[name]("eager")
    assert (found.backend, tape.backend) == (backend, "eager")
    assert len(tape.losses) == 6 and tape.losses[5] != tape.losses[0]
    np.testing.assert_allclose(found.losses[0], tape.losses[0], rtol=1e-12)
    np.testing.assert_allclose(found.losses, tape.losses, rtol=1e-10)


def rows_of(path: Any) -> dict[str, dict]:
    return {row["gradient"]: row for row in json.loads(path.read_text())["rows"]}


def test_compare_times_reversible_on_the_tape_and_compiled(capsys: Any, tmp_path: Any) -> None:
    path = tmp_path / "out.json"
    assert main(["compare", "white-dwarf", "--steps", "40", "--iterations", "4", "--json", str(path)]) == 0
    rows, out = rows_of(path), capsys.readouterr().out
    compiled = ["replay", "native"] if COMPILER else ["replay"]
    assert list(rows)[:len(compiled) + 2] == ["reversible", *(f"reversible, {name}" for name in compiled), "direct"]
    for name, row in rows.items():
        assert row["backend"] == (name.split(", ")[1] if ", " in name else "eager"), name
        if ", " in name:
            # the same parameters, the same counts, and the same gradient up to the order of sums over 40 steps
            assert (row["steps"], row["states"], row["loss"]) == (40, 2, pytest.approx(rows["reversible"]["loss"], rel=1e-12))
            assert row["gradient_error"] < 5e-13 and row["extrapolated"]
    assert "backend: eager (the tape) for every mode" in out and ("There is no row for native" in out) == (not COMPILER)


def test_compare_without_a_compiler(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["compare", "white-dwarf", "--steps", "5", "--iterations", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "reversible, replay" in out and "reversible, native" not in out
    assert "There is no row for native code. native: found no C++ compiler" in out


@pytest.mark.parametrize("words, said", [
    ("train white-dwarf --backend native", 'native: found no C++ compiler (looked for g++, clang++ and c++): '),
    ("train ou --threads 2", "--threads goes with --backend native"),
    ("train white-dwarf --backend native --threads 0", "--threads 0: at least 1"),
    ("compare gbm --arithmetic strict", "--arithmetic goes with --backend replay, native or cuda"),
    ("complexity --backend native", "native: found no C++ compiler"),
])
def test_what_is_refused(capsys: Any, monkeypatch: pytest.MonkeyPatch, words: str, said: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out


def test_a_gpu_that_is_missing_is_said(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from revode_cuda import arrays

    def missing(asked: str) -> None:
        raise ImportError(f"{asked}: CuPy is not installed")

    monkeypatch.setattr(arrays, "require_cupy", missing)
    assert main(["train", "white-dwarf", "--backend", "cuda"]) == 2
    assert capsys.readouterr().err == "revode train: --backend cuda: CuPy is not installed\n"


def test_a_field_that_cannot_be_compiled_is_said(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise rv.engine.tensor.NotTraceable("np.sort has no form as a loop")

    monkeypatch.setattr(engines, "solve", refuse)
    monkeypatch.setattr(native, "compiler", lambda: native.Compiler("g++", "g++ 1"))
    assert main(["train", "white-dwarf", "--backend", "native", "--steps", "5"]) == 2
    said = capsys.readouterr().err
    assert "--backend native cannot run this: np.sort has no form as a loop. --backend replay" in said


def test_complexity_compares_on_one_engine() -> None:
    """Reversible and Checkpointed on the tape, however many solves of one kind there were; another engine is one more curve."""
    assert {curve.engine for curve in complexity.curves()} == {engines.EAGER}
    more = complexity.curves(Engine("replay"))
    assert [curve.name for curve in more[:-1]] == [curve.name for curve in complexity.curves()]
    assert (more[-1].name, more[-1].engine) == ("reversible, replay", Engine("replay"))


def test_complexity_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 steps, at which "auto" leaves the tape."""
    ran = []

    def solve(*args: Any, **options: Any) -> Any:
        sol = rv.solve(*args, **options)
        ran.append(sol.stats)
        return sol

    monkeypatch.setattr(engines, "solve", solve)
    for curve in complexity.curves(Engine("replay")):
        if curve.name in ("reversible", "checkpointed:44", "reversible, replay"):
            rv.value_and_grad(complexity.objective(curve, 500))(complexity.parameters(0))
    assert [stats.backend for stats in ran] == ["eager", "eager", "replay"]


def test_a_gpu_in_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of revode_cuda.host play the GPU: what --backend cuda runs is the generated kernel, and the losses are those of
    the tape, for the reasons above."""
    from revode_cuda import fused
    if not COMPILER:
        pytest.skip("no C++ compiler on this machine")
    monkeypatch.setattr(fused, "gpu", fused.shim)
    e = white_dwarf.experiment(8)
    found, tape = (training.train(e.on(Engine(backend)), rv.Reversible(), iterations=3) for backend in ("cuda", "eager"))
    assert (found.backend, tape.backend) == ("fused", "eager")
    np.testing.assert_allclose(found.losses, tape.losses, rtol=1e-10)
    assert isinstance(rv.tree.flatten(found.params)[0][0], np.ndarray)
    for gradient in (rv.Direct(), rv.Checkpointed(2)):                             # other modes: the tape, on the host
        assert training.train(e.on(Engine("cuda")), gradient, iterations=1).backend == "eager"


def test_what_cannot_be_fused_is_said_and_runs_on_the_host(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    import revode_cuda
    from revode_cuda.solve import CannotBeFused
    asked = []

    def refuse(*args: Any, backend: str, **options: Any) -> None:
        asked.append(backend)
        raise CannotBeFused("solve: too wide")

    monkeypatch.setattr(revode_cuda, "solve", refuse)
    monkeypatch.setattr(engines, "_told", set())
    found, tape = (training.train(white_dwarf.experiment(8).on(Engine(backend)), rv.Reversible(), iterations=3)
                   for backend in ("cuda", "eager"))
    assert asked == ["fused"] * 3 and caplog.text.count("the field network runs on the host. solve: too wide") == 1
    assert found.losses == tape.losses

"""The experiments on every backend: the same losses, what the tables say about who ran, what is refused; the GPU in rehearsal."""
from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.__main__ import main
from revode.compiled import native
from revode.experiments import EXPERIMENTS, backends, cli, complexity, oscillator, ou, train, training, white_dwarf
from revode.experiments.backends import Solver
from revode.experiments.ranks import Ranks
from revode.experiments.training import Run
from revode.methods import EES27
from revode.ranks import Alone
from tests.compiler import HERE
from tests.thread_ranks import threads


def trained(e: Any, backend: str, iterations: int = 6) -> Run:
    return training.fit(Run("row", e, Solver(e.method, rv.Reversible(), backend)), iterations)


def of_ou(name: str) -> Any:
    return next(e for e in ou.experiment(paths=6, data_paths=32) if e.name == name)


RUNS = {"white-dwarf": lambda: white_dwarf.experiment(60), "oscillator": lambda: oscillator.experiment(60),
        **{f"ou, {name}": lambda name=name: of_ou(name) for name in ("reversible Heun", "EES(2,7)", "Coupled midpoint")}}


# The program of EES(2,7) takes the compiler some 5 s, so it is replayed here; tests of the native host have such methods too.
@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize(("name", "backend"), [
    (name, backend) for name in RUNS for backend in ["replay"] + ["native"] * (name != "ou, EES(2,7)")])
def test_the_losses_are_those_of_the_tape(name: str, backend: str) -> None:
    """Compiled sums are taken in another order, and native elementary functions are an ulp off NumPy's. So the loss and the
    gradient of one solve of N <= 120 steps differ by at most N * 10 eps = 3e-13 of the size of the whole gradient. Adam divides
    each entry by its own size: an entry 1e-2 of the largest has 3e-11 of error, and so has its step of 2e-2. Five such steps,
    with a logarithmic slope of the loss of some 10: 5 * 2e-2 * 3e-11 * 10 = 3e-11, so 1e-10. The first loss has seen none.
    (Seen: 4e-16 throughout, because such roundings mostly cancel.)"""
    if backend == "native" and not HERE:
        pytest.skip("no C++ compiler on this machine")
    found, tape = trained(RUNS[name](), backend), trained(RUNS[name](), "eager")
    assert (found.stats.backend, tape.stats.backend) == (backend, "eager")
    assert len(tape.losses) == 6 and tape.losses[5] != tape.losses[0]
    np.testing.assert_allclose(found.losses[0], tape.losses[0], rtol=1e-12)
    np.testing.assert_allclose(found.losses, tape.losses, rtol=1e-10)


def rows_of(path: Any) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def test_compare_takes_native_and_times_reversible_on_the_others_too(capsys: Any, tmp_path: Any) -> None:
    if not HERE:
        pytest.skip("no C++ compiler on this machine")
    path = tmp_path / "out.json"
    assert main(["compare", "white-dwarf", "--steps", "12", "--iterations", "4", "--json", str(path)]) == 0
    rows, captured = rows_of(path), capsys.readouterr()
    assert list(rows)[:2] == ["reversible", "direct"] and list(rows)[-3:] == ["backsolve", "reversible, replay", "reversible, eager"]
    assert rows["reversible"]["backend"] == "native" and "backend: native (" in captured.out
    # Said where something was compiled: another test of this process may have done so before.
    assert ("reversible: ready for native after" in captured.err) == (rows["reversible"]["compile_seconds"] is not None)
    for name in ("replay", "eager"):
        row = rows[f"reversible, {name}"]
        # the same parameters, the same counts, and the same gradient up to the order of sums over 12 steps
        assert (row["backend"], row["relative"]) == (name, 1.0)
        assert (row["steps"], row["states"], row["loss"]) == (12, 2, pytest.approx(rows["reversible"]["loss"], rel=1e-12))
        assert row["gradient_error"] < 5e-13 and row["extrapolated"]
    # The time of a row is over that of Reversible on the backend that truly ran it.
    basis = {row["backend"]: row["seconds_per_iteration"] for name, row in rows.items() if name.startswith("reversible")}
    for row in rows.values():
        assert row["relative"] == pytest.approx(row["seconds_per_iteration"] / basis[row["backend"]])


def test_compare_without_a_compiler(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    path = tmp_path / "out.json"
    assert main(["compare", "white-dwarf", "--steps", "5", "--iterations", "1", "--json", str(path)]) == 0
    assert "backend: auto (no C++ compiler here: g++ or clang++ would be faster)" in capsys.readouterr().out
    assert not any(row["backend"] == "native" for row in rows_of(path).values())


@pytest.mark.parametrize("words, said", [
    ("train white-dwarf --backend native", 'native: found no C++ compiler (looked for g++, clang++ and c++): '),
    ("train ou --backend eager --threads 2", "--threads goes with --backend native"),
    ("train ou --arithmetic strict", "--arithmetic goes with --backend replay, native or cuda"),
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


def refusing(monkeypatch: pytest.MonkeyPatch, method: Any) -> list:
    """Native refuses solves by this method; the list of what was asked for."""
    asked: list = []

    def solve(*args: Any, **options: Any) -> Any:
        asked.append((options["method"], options["backend"], options["gradient"]))
        if options["backend"] == "native":
            if options["method"] == method:
                raise rv.engine.tensor.NotTraceable("np.sort has no form as a loop")
            options["backend"] = "replay"                      # quicker than a compiler, for a test
        return rv.solve(*args, **options)

    monkeypatch.setattr(backends, "solve", solve)
    monkeypatch.setattr(native, "compiler", lambda: native.Compiler("g++", "g++ 1"))
    return asked


OU = ["train", "ou", "--iterations", "1", "--paths", "4", "--data-paths", "8"]


def test_a_row_that_a_backend_cannot_run_is_said_before_any_row_is_trained(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third of five: each row before it has taken one gradient, and no update."""
    asked = refusing(monkeypatch, EES27())
    assert main([*OU, "--backend", "native"]) == 2
    captured = capsys.readouterr()
    assert ("--backend native cannot run EES(2,7): np.sort has no form as a loop. --backend replay and --backend eager can."
            in captured.err)
    assert "loss" not in captured.out and len(asked) == 3


def test_what_was_left_to_us_falls_back_with_a_note(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    asked = refusing(monkeypatch, EES27())
    path = tmp_path / "out.json"
    assert main([*OU, "--json", str(path)]) == 0
    assert "EES(2,7) is not for native: np.sort has no form as a loop" in " ".join(capsys.readouterr().out.split())
    assert list(rows_of(path)) == list(ou.METHODS)
    assert {backend for method, backend, gradient in asked if gradient == rv.Reversible()} == {"native", "auto"}


def test_complexity_passes_its_backend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 steps, at which "auto" leaves the tape."""
    assert {curve.solve.backend for curve in complexity.curves()} == {"eager"}
    ran = []

    def solve(*args: Any, **options: Any) -> Any:
        sol = rv.solve(*args, **options)
        ran.append(sol.stats)
        return sol

    monkeypatch.setattr(backends, "solve", solve)
    for backend in ("eager", "replay"):
        for curve in complexity.curves(Solver(backend=backend)):
            if curve.name in ("reversible", "checkpointed:44"):
                curve.gradient(500, complexity.parameters(0))
    assert [stats.backend for stats in ran][:3] == ["eager", "eager", "replay"]


def test_a_gpu_in_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of revode_cuda.host play the GPU: what --backend cuda runs is the generated kernel, and the losses are those of
    the tape, for the reasons above."""
    from revode_cuda import fused
    if not HERE:
        pytest.skip("no C++ compiler on this machine")
    monkeypatch.setattr(fused, "gpu", fused.shim)
    e = white_dwarf.experiment(8)
    found, tape = (trained(e, backend, 3) for backend in ("cuda", "eager"))
    assert (found.stats.backend, tape.stats.backend) == ("fused", "eager")
    np.testing.assert_allclose(found.losses, tape.losses, rtol=1e-10)
    assert isinstance(rv.tree.flatten(found.best)[0][0], np.ndarray)
    for gradient in (rv.Direct(), rv.Checkpointed(2)):                             # other modes: the tape, on the host
        job = Run("row", e, Solver(e.method, gradient, "cuda"))
        assert training.fit(job, 1).stats.backend == "eager"


def test_what_cannot_be_fused_is_said_and_runs_on_the_host(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    import revode_cuda
    from revode_cuda.solve import CannotBeFused
    asked = []

    def refuse(*args: Any, backend: str, **options: Any) -> None:
        asked.append(backend)
        raise CannotBeFused("solve: too wide")

    monkeypatch.setattr(revode_cuda, "solve", refuse)
    monkeypatch.setattr(backends, "_told", set())
    found, tape = (trained(white_dwarf.experiment(8), backend, 3) for backend in ("cuda", "eager"))
    assert asked == ["fused"] * 3 and caplog.text.count("the field network runs on the host. solve: too wide") == 1
    assert found.losses == tape.losses


# Ranks and checkpoints ------------------------------------------------------------------------------------------------
def test_paths_are_shared_out_over_ranks():
    """An experiment whose loss compares all paths with one another: the same bits on any number of ranks, and those of one process
    up to rounding (33 paths, 32 steps of 6 stages, growth of some 10: 1e-11 of the largest entry)."""
    e = EXPERIMENTS["stochastic-volatility"].experiment(paths=33)
    whole = Run("", e, Solver(e.method, rv.Reversible())).gradient(e.start(0))

    def on(comm):
        (loss, sol), grads = Run("", e, Solver(e.method, rv.Reversible(), ranks=Ranks(comm))).gradient(e.start(0))
        assert sol.stats.steps == 32
        return [float(loss), *(g.tobytes() for g in rv.tree.flatten(grads)[0])], grads

    found = [one for ranks in (1, 3) for one in threads(ranks, on)]
    assert all(bits == found[0][0] for bits, _ in found)
    assert found[0][0][0] == pytest.approx(float(whole[0][0]), rel=1e-12)
    for ours, theirs in zip(rv.tree.flatten(found[0][1])[0], rv.tree.flatten(whole[1])[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * np.abs(theirs).max())


@pytest.mark.parametrize("words, said", [
    (("white-dwarf",), "white-dwarf has no batch of paths to share out over ranks"),
    (("digits",), "digits has no batch of paths"),
    (("ou", "--certify"), "--certify does not go with mpiexec"),
    (("ou", "--backend", "cuda"), "--backend cuda does not go with mpiexec"),
], ids=["white-dwarf", "digits", "certify", "cuda"])
def test_what_does_not_go_on_ranks_is_refused(monkeypatch, words, said):
    monkeypatch.setattr(train, "joined", lambda: Ranks(Alone()))
    monkeypatch.setattr(backends, "chosen", lambda args: Solver(backend=args.backend))            # whatever this machine has
    args = cli.parser().parse_args(["train", *words])
    with pytest.raises(backends.UserError, match=said):
        args.plan(args)


def test_a_training_goes_on_where_it_was_ended(capsys, tmp_path):
    """Nine iterations in two commands, the first of which ends between two writes: the bits of nine in one."""
    kept, path = tmp_path / "run.npz", tmp_path / "out.json"

    def train(iterations, *more):
        status = main(["train", "white-dwarf", "--steps", "10", "--backend", "eager", "--iterations", str(iterations),
                       "--json", str(path), *more])
        return status, json.loads(path.read_text())["losses"], capsys.readouterr()

    _, whole, _ = train(13)
    assert train(12, "--checkpoint", str(kept))[1]["reversible"] == whole["reversible"][:12]
    _, again, said = train(13, "--checkpoint", str(kept))
    assert again == whole and "reversible goes on after 12 iterations" in said.out
    before = kept.read_bytes()
    _, again, said = train(5, "--checkpoint", str(kept))                         # nothing is left to do, and what is there is shown
    assert again == whole and kept.read_bytes() == before
    for more, words in ((("--seed", "1"), "of another training (seed 0)"), (("--gradient", "direct"), "(gradient reversible)")):
        assert main(["train", "white-dwarf", "--steps", "10", "--checkpoint", str(kept), *more]) == 2
        assert words in capsys.readouterr().err
    kept.write_bytes(b"no archive")
    assert main(["train", "white-dwarf", "--steps", "10", "--checkpoint", str(kept)]) == 2
    assert "cannot be gone on from" in capsys.readouterr().err

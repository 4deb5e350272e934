"""reference/benchmarks/gpu: without a GPU it says so; rehearsed on the host, and on a pretended CuPy, it takes all its steps."""
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.benchmarks import works
from reference.benchmarks.gpu import cases, desired, judged, prepare, processes, report, worker
from reference.benchmarks.gpu.cases import Case, Setting
from reference.benchmarks.gpu.plan import STEPS
from revode_cuda import host, nvrtc
from revode_cuda.arrays import require_cupy

ROOT = cases.ROOT


def script(*options: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "reference.benchmarks.gpu", *options], capture_output=True, text=True, timeout=240,
                          cwd=ROOT, env={**os.environ, **environment})


def test_without_a_gpu_it_says_so_and_ends_with_2(tmp_path: Path) -> None:
    try:
        require_cupy("this test")
    except (ImportError, RuntimeError):
        done = script("--out", str(tmp_path / "out"))
        assert done.returncode == 2
        assert done.stderr.startswith("no GPU, so nothing was measured: the GPU benchmark: CuPy")
        assert not (tmp_path / "out").exists()
    else:
        pytest.skip("there is a GPU here")


@pytest.mark.parametrize(("options", "said"), [
    (("--cases", "small"), "small: a case is work:method:dtype"),
    (("--cases", "small:heun:float32"), "'heun' is none of coupled-midpoint"),
    (("--cases", "w9:reversible-heun:float32"), "'w9' is none of small, "), (("--arch", "hopper"), "hopper: one such as sm_90"),
    (("--minutes", "-1"), "-1: a number above 0"), (("--use", "nowhere"), "--use nowhere: there is no such folder"),
    (("--rehearse", "--out", "/dev/null/out"), "/dev/null/out cannot be made: "),
    (("--prepare", "/dev/null/ready"), "cannot be made: ")])
def test_what_is_wrong_is_said_in_a_sentence(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = script("--out", str(tmp_path), *options)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("module", "options"), [("revode_cuda.host.ptx", ("bare",)), ("reference.benchmarks.gpu_static", ()),
                                                 ("reference.benchmarks.gpu", ("--prepare", "OUT"))])
def test_without_nvrtc_a_command_says_what_to_install(module: str, options: tuple[str, ...], tmp_path: Path) -> None:
    text = (f"import runpy, sys; from revode_cuda import nvrtc; nvrtc.places = lambda: []; "
            f"sys.argv = {['', *(str(tmp_path) if x == 'OUT' else x for x in options)]}; "
            f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 2 and "pip install nvidia-cuda-nvrtc" in done.stderr and "Traceback" not in done.stderr
    assert "WRONG" not in done.stdout


def test_a_work_that_is_not_there_is_named() -> None:
    done = subprocess.run([sys.executable, "-m", "reference.benchmarks.gpu_static", "--only", "w9"], capture_output=True, text=True,
                          timeout=240, cwd=ROOT)
    assert done.returncode == 2 and "invalid choice: 'w9'" in done.stderr


def test_a_rehearsal_checks_and_times_and_writes(tmp_path: Path) -> None:
    asked = "w1:coupled-midpoint:float64,w4:reversible-heun:float32"
    done = script("--out", str(tmp_path), "--rehearse", "--only", "eager", "fused-fast", "--cases", asked)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["about"]["device"] == "none: a rehearsal on the host, and no measurement"
    rows = found["cases"]["eager"]
    assert [row["status"] for row in rows.values()] == ["ok", "ok"]
    for row in rows.values():
        # A rehearsal's "device" is the host, so float64 is NumPy twice; float32 is off by rounding: 40 steps, 4 evaluations.
        assert row["repeats"] and row["error"] <= (0.0 if row["dtype"] == "float64" else 40 * 4 * 2.0 ** -23)
        assert row["seconds"] > 0 and len(row["times"]) >= 1 and row["flops"] > 0
    assert {row["status"] for row in found["cases"]["fused-fast"].values()} == {"absent"}
    assert {row["status"] for name in STEPS for row in found["steps"][name]["rows"]} == {"absent"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.tar.gz"]
    text = report_in(tmp_path)
    assert str(tmp_path) not in text + (tmp_path / "gpu.json").read_text()
    assert "revode fused, fast: absent: fused kernels need a GPU" in text


def report_in(folder: Path) -> str:
    with tarfile.open(folder / "gpu.tar.gz") as file:
        return file.extractfile("gpu.md").read().decode()              # type: ignore[union-attr]


HEADINGS = ("Strict bits", "compute-sanitizer", "Microseconds a step", "A training step of ten steps", "ncu", "tests/gpu",
            "Two runs, equal in every bit", "Largest error", "Milliseconds", "Share of the measured peak", "Device memory",
            "What was not timed")


@pytest.mark.long
@pytest.mark.skipif(bool(host.missing()), reason="kernels cannot run on this machine")
def test_what_is_prepared_here_is_used_there(tmp_path: Path) -> None:
    """All steps on the pretended CuPy, in processes as on a GPU; NVIDIA's tools are played by a script that runs what it is given."""
    try:
        nvrtc.library()
    except ImportError:
        pytest.skip("there is no NVRTC here")
    asked, ready, out, tools = "w4:reversible-heun:float32", tmp_path / "ready", tmp_path / "out", tmp_path / "tools"
    done = script("--prepare", str(ready), "--rehearse", "--cases", asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ready: --use ready"
    assert json.loads((ready / "ready.json").read_text())["kernels"] == len(list((ready / "revode").glob("*.cuda"))) > 10
    tools.mkdir()
    for name in ("compute-sanitizer", "ncu"):
        (tools / name).write_text(f'#!/bin/sh\nwhile [ "$1" != "{sys.executable}" ]; do shift; done\nexec "$@"\n')
        (tools / name).chmod(0o755)
    there = {"PYTHONPATH": f"{ROOT / 'tests' / 'pretended'}:{ROOT}", "PATH": f"{tools}:{os.environ['PATH']}"}
    done = script("--use", str(ready), "--out", str(out), "--rehearse", "--cases", asked, "--only", "fused-strict", "eager", "diffrax",
                  **there)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((out / "gpu.json").read_text())
    print(done.stdout)
    assert [*found["steps"]] == [*STEPS] and found["versions"] == {"cupy": "pretended"} and not found["problems"]
    for name, step in found["steps"].items():
        assert [row["status"] for row in step["rows"]] == ["ok"] * (name != "contenders"), (name, step)
    assert set(found["steps"]["bits"]["rows"][0]["bits"].values()) >= {"equal"}
    assert [row["plan"] for row in found["steps"]["layouts"]["rows"][0]["rows"] if "both" in row] == [{}, {"threads": 32}]
    assert {key: [row["status"] for row in rows.values()] for key, rows in found["cases"].items()} == {
        "fused-strict": ["ok"], "eager": ["ok"]} and found["peak"].keys() == {"float32", "float64"}
    text = report_in(out)
    for heading in HEADINGS:
        assert f"## {heading}" in text
    # a step that is taken again adds to what is there
    assert script("--use", str(ready), "--out", str(out), "--rehearse", "--cases", asked, "--steps", "ncu", **there).returncode == 0
    again = json.loads((out / "gpu.json").read_text())
    assert {**again["steps"], "ncu": None} == {**found["steps"], "ncu": None} and again["cases"] == found["cases"]


# A worker that does one case well, dies in the second, hangs in the third, and does the fourth well.
WORKER = """
import json, sys, time
for text in sys.argv[1].split(","):
    print(json.dumps({"begin": text}), flush=True)
    if text.startswith("b"): sys.exit(7)
    if text.startswith("c"): time.sleep(60)
    if text.startswith("e"):
        print(json.dumps({"case": text, "status": "failed", "detail": "CUDA_ERROR", "dead": True}), flush=True)
        time.sleep(60)
    print(json.dumps({"case": text, "status": "ok"}), flush=True)
print(json.dumps({"versions": {"x": "1"}}), flush=True)
"""


def test_a_crash_or_a_hang_costs_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "command",
                        lambda key, cases, setting, part=0: [sys.executable, "-c", WORKER, ",".join(map(str, cases))])
    asked, setting = [Case(name, "m", "t") for name in "abcedf"], Setting(tmp_path, True)
    begin = time.monotonic()
    found = list(processes.run_cases("x", asked, setting, seconds=30.0, limit=1.0))
    assert [(row["case"][0], row["status"]) for row in found if "case" in row] == [
        ("a", "ok"), ("b", "failed"), ("c", "timeout"), ("e", "failed"), ("d", "ok"), ("f", "ok")]
    assert "status 7; see x.log" in found[1]["detail"] and found[-1] == {"versions": {"x": "1"}}
    assert time.monotonic() - begin < 20
    # Where no time is left, what is not begun is listed as such.
    assert [row["status"] for row in processes.run_cases("x", asked, setting, seconds=1.0, limit=1.0)] == ["not run"] * 6


def test_a_crash_of_ours_is_a_failure() -> None:
    """Whatever the others do; what is absent, or found no time, is no failure."""
    def ended(status: str, key: str = "fused-fast") -> int:
        return report.verdict({"steps": {}, "cases": {key: {"case": {"status": status}}}})

    assert [ended(status) for status in ("ok", "absent", "not run", "wrong", "failed", "timeout")] == [0, 0, 0, 1, 1, 1]
    assert ended("failed", "jax") == 0 and report.verdict({"steps": {"bits": {"rows": [{"status": "failed"}]}}, "cases": {}}) == 1


def test_an_error_of_cuda_ends_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class CUDADriverError(RuntimeError):
        pass

    def fails(*given: Any) -> dict:
        raise CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")

    monkeypatch.setitem(worker.WORKERS, "bits", fails)
    asked, said = [Case(name, "reversible-heun", "float64") for name in ("w1", "w2")], []
    assert worker.answered("bits", asked, Setting(tmp_path, True), 0, lambda **answer: said.append(answer)) == 1
    assert [(x.get("status"), x.get("dead")) for x in said] == [(None, None), ("failed", True)]


def test_kernels_of_all_cases_are_known_without_a_gpu() -> None:
    """Timed and compared, both directions, strict and fast: what a worker asks the loader for is among them."""
    for case, plans in ((Case("w4", "reversible-heun", "float64"), 0), (Case("w4", "reversible-heun", "float32"), 7)):
        found = prepare.texts([case], "sm_90")
        assert 2 * 2 + 2 + (plans > 0) <= len(found) <= 2 * (2 + plans) + 2            # and two that are written by hand
        assert {mode for *_, mode in found} == {"strict", "fast"} and len({real for _, real, *_ in found}) == 1


def test_wrong_values_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, setting = Case("w1", "reversible-heun", "float64"), Setting(tmp_path, True)
    desired.host_part(case, setting, 0, tmp_path / "part.npz")
    loss, grads = desired.joined([tmp_path / "part.npz"])
    path = tmp_path / "desired-w1-reversible-heun.npz"
    assert judged.measured("eager", case, setting)["status"] == "unchecked"
    desired.write(path, loss, grads)
    assert judged.measured("eager", case, setting)["status"] == "ok"
    grads[3] = grads[3] * (1 + 1e-7)                                # ten times what float64 may be off
    desired.write(path, loss, grads)
    row = judged.measured("eager", case, setting)
    assert row["status"] == "wrong" and "seconds" not in row


def test_parts_of_a_batch_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over parts of 5, 5 and 2 rows, weighted: equal up to the order of a sum of 12."""
    monkeypatch.setattr(desired, "PART", 5)
    case, setting = Case("w2", "coupled-midpoint", "float64"), Setting(tmp_path, True)
    paths = [tmp_path / f"{part}.npz" for part in range(3)]
    for part, path in enumerate(paths):
        desired.host_part(case, setting, part, path)
    monkeypatch.setattr(desired, "PART", 12)
    desired.host_part(case, setting, 0, tmp_path / "whole.npz")
    assert judged.largest_error(desired.joined(paths), desired.joined([tmp_path / "whole.npz"])) < 12 * 40 * 16 * 2.0 ** -52


@pytest.mark.parametrize("method", cases.UNITS)
def test_units_are_the_evaluations_and_twice_the_pullbacks(method: str) -> None:
    """As the solve counts them: from N to 2 N steps, so that what a start costs drops out."""
    counts = []
    for N in (4, 8):
        work = works.WORKS["w1"]._replace(N=N)
        problem = works.problem(work, "float64")
        chosen = rv.Coupled("midpoint") if method == "coupled-midpoint" else rv.ReversibleHeun()

        def loss(params: Any, problem: Any = problem, chosen: Any = chosen) -> tuple:
            sol = rv.solve(lambda t, y, p: problem.field(np, t, y, p), problem.y0, problem.ts, params, method=chosen,
                           backend="eager")
            return works.loss(np, sol.y1), sol.stats

        (_, stats), _ = rv.value_and_grad(loss, has_aux=True)(problem.params)
        counts.append(stats.nfe + 2 * stats.nvjp)
    assert counts[1] - counts[0] == 4 * cases.UNITS[method]


def test_bits_are_compared_entry_by_entry() -> None:
    a = (np.array(1.0), [np.array([1.0, 2.0]), np.array([0.0])])
    b = (np.array(1.0), [np.array([1.0, np.nextafter(2.0, 3.0)]), np.array([-0.0])])
    assert judged.compared(a, a) == "equal" and judged.compared("absent: why", a) == "absent: why"
    verdict = judged.compared(a, b)
    assert verdict.startswith("differ: dL/dy0 (largest difference 4.4e-16 in 1 of 2); dL/dp0") and "loss" not in verdict


@pytest.mark.parametrize(("name", "method"), [("w1", "coupled-midpoint"), ("w2", "reversible-heun"), ("w4", "reversible-heun")])
def test_torch_by_hand_computes_the_same(name: str, method: str) -> None:
    """Its sweeps are written out; sums in another order over 40 steps of 16 products, and 100 eps each."""
    pytest.importorskip("torch")
    from reference.benchmarks.contenders import torch_by_hand
    work, case = Setting(Path(), True).size(name), Case(name, method, "float64")
    problem = works.problem(work, "float64")
    expected = cases.gradient(rv, work, case, problem.y0, problem.params, {})()
    found = judged.as_numpy(torch_by_hand.make(work, method, "float64", "eager", device="cpu")())
    assert judged.largest_error(found, (float(expected[0]), expected[1])) < 40 * 16 * 100 * 2.0 ** -52

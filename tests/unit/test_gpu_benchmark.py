"""reference/benchmarks/gpu.py where there is no GPU: it says so; rehearsed on the host it does its five steps on tiny sizes."""
import json
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revode as rv
from reference.benchmarks import gpu, works
from revode_cuda.arrays import require_cupy

SCRIPT = Path(gpu.__file__)


def script(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=120)


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


def test_a_rehearsal_checks_and_times_and_writes(tmp_path: Path) -> None:
    cases = "w1:coupled-midpoint:float64,w4:reversible-heun:float32"
    done = script("--out", str(tmp_path), "--rehearse", "--only", "eager", "fused-fast", "--cases", cases)
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.tar.gz"]
    with tarfile.open(tmp_path / "gpu.tar.gz") as file:
        assert "gpu.md" in file.getnames()
        text = file.extractfile("gpu.md").read().decode()              # type: ignore[union-attr]
    assert str(tmp_path) not in text + (tmp_path / "gpu.json").read_text()
    for heading in ("1. Strict bits", "2. Two runs", "3. Largest error", "4. Milliseconds", "5. Share of the measured peak",
                    "What was not timed"):
        assert f"## {heading}" in text
    assert "revode fused, fast: absent: fused kernels need a GPU" in text


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
    monkeypatch.setattr(gpu, "command", lambda key, cases, args, part=0: [sys.executable, "-c", WORKER, ",".join(map(str, cases))])
    cases = [gpu.Case(name, "m", "t") for name in "abcedf"]
    args = Namespace(out=str(tmp_path), rehearse=True, cache=None)
    begin = time.monotonic()
    found = list(gpu.run_cases("x", cases, args, seconds=30.0, limit=1.0))
    assert [(row["case"][0], row["status"]) for row in found if "case" in row] == [
        ("a", "ok"), ("b", "failed"), ("c", "timeout"), ("e", "failed"), ("d", "ok"), ("f", "ok")]
    assert "status 7; see x.log" in found[1]["detail"] and found[-1] == {"versions": {"x": "1"}}
    assert time.monotonic() - begin < 20
    # Where no time is left, what is not begun is listed as such.
    assert [row["status"] for row in gpu.run_cases("x", cases, args, seconds=1.0, limit=1.0)] == ["not run"] * 6


def test_a_crash_of_ours_is_a_failure() -> None:
    """Whatever the others do; what is absent, or found no time, is no failure."""
    def ended(status: str, key: str = "fused-fast") -> int:
        return gpu.verdict({"bits": [], "cases": {key: {"case": {"status": status}}}})

    assert [ended(status) for status in ("ok", "absent", "not run", "wrong", "failed", "timeout")] == [0, 0, 0, 1, 1, 1]
    assert ended("failed", "jax") == 0 and gpu.verdict({"bits": [{"status": "failed"}], "cases": {}}) == 1


def test_an_error_of_cuda_ends_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class CUDADriverError(RuntimeError):
        pass

    def fails(*given: Any) -> dict:
        raise CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")

    monkeypatch.setattr(gpu, "strict_bits", fails)
    args = Namespace(worker="bits", cases="w1:reversible-heun:float64,w2:reversible-heun:float64", out=str(tmp_path), rehearse=True)
    said: list[dict] = []
    assert gpu.answered(args, lambda **answer: said.append(answer)) == 1
    assert [(x.get("status"), x.get("dead")) for x in said] == [(None, None), ("failed", True)]


def test_kernels_of_all_cases_are_known_without_a_gpu() -> None:
    """Timed and compared, both directions, strict and fast: what a worker asks the loader for is among them."""
    cases = [gpu.Case("w4", "reversible-heun", "float32")]
    found = gpu.texts(cases, "sm_90")
    assert len(found) == 2 * 2 and {mode for *_, mode in found} == {"strict", "fast"} and {real for _, real, *_ in found} == {"float"}

def test_wrong_values_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = gpu.Case("w1", "reversible-heun", "float64")
    work = gpu.size("w1", rehearse=True)
    gpu.host_part(case, work, 0, tmp_path / "part.npz")
    loss, grads = gpu.joined([tmp_path / "part.npz"])
    desired = tmp_path / "desired-w1-reversible-heun.npz"
    assert gpu.measured("eager", case, work, tmp_path, True)["status"] == "unchecked"
    np.savez(desired, loss=loss, **{f"g{i}": g for i, g in enumerate(grads)})
    assert gpu.measured("eager", case, work, tmp_path, True)["status"] == "ok"
    grads[3] = grads[3] * (1 + 1e-7)                                # ten times what float64 may be off
    np.savez(desired, loss=loss, **{f"g{i}": g for i, g in enumerate(grads)})
    row = gpu.measured("eager", case, work, tmp_path, True)
    assert row["status"] == "wrong" and "seconds" not in row


def test_parts_of_a_batch_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over parts of 5, 5 and 2 rows, weighted: equal up to the order of a sum of 12."""
    monkeypatch.setattr(gpu, "PART", 5)
    case = gpu.Case("w2", "coupled-midpoint", "float64")
    work = gpu.size("w2", rehearse=True)
    paths = [tmp_path / f"{part}.npz" for part in range(3)]
    for part, path in enumerate(paths):
        gpu.host_part(case, work, part, path)
    monkeypatch.setattr(gpu, "PART", 12)
    gpu.host_part(case, work, 0, tmp_path / "whole.npz")
    assert gpu.largest_error(gpu.joined(paths), gpu.joined([tmp_path / "whole.npz"])) < 12 * 40 * 16 * 2.0 ** -52


@pytest.mark.parametrize("method", gpu.UNITS)
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
    assert counts[1] - counts[0] == 4 * gpu.UNITS[method]


def test_bits_are_compared_entry_by_entry() -> None:
    a = (np.array(1.0), [np.array([1.0, 2.0]), np.array([0.0])])
    b = (np.array(1.0), [np.array([1.0, np.nextafter(2.0, 3.0)]), np.array([-0.0])])
    assert gpu.compared(a, a) == "equal" and gpu.compared("absent: why", a) == "absent: why"
    verdict = gpu.compared(a, b)
    assert verdict.startswith("differ: dL/dy0 (largest difference 4.4e-16 in 1 of 2); dL/dp0") and "loss" not in verdict


@pytest.mark.parametrize(("name", "method"), [("w1", "coupled-midpoint"), ("w2", "reversible-heun"), ("w4", "reversible-heun")])
def test_torch_by_hand_computes_the_same(name: str, method: str) -> None:
    """Its sweeps are written out; sums in another order over 40 steps of 16 products, and 100 eps each."""
    pytest.importorskip("torch")
    from reference.benchmarks.contenders import torch_by_hand
    work = gpu.size(name, rehearse=True)
    case = gpu.Case(name, method, "float64")
    problem = works.problem(work, "float64")
    desired = gpu.revode_gradient(rv, work, case, problem.y0, problem.params, {})()
    found = gpu.as_numpy(torch_by_hand.make(work, method, "float64", "eager", device="cpu")())
    assert gpu.largest_error(found, (float(desired[0]), desired[1])) < 40 * 16 * 100 * 2.0 ** -52

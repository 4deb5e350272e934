"""What a GPU would run, counted without one: code, registers, barriers, seconds to compile, operations of a training step.

    python -m reference.benchmarks.gpu_static            # docs/measurements/gpu-static.md; needs NVRTC and a C++ compiler
"""
from __future__ import annotations

import argparse
import re
import struct
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import revode as rv
from reference.benchmarks import works
from reference.benchmarks.gpu.cases import GPU_WORKS, Case, asked
from revode_cuda import fused, host, nvrtc
from revode_cuda.compile import _resources, cuda_prelude
from revode_cuda.plan import CannotBeFused

PAGE = Path(__file__).resolve().parents[2] / "docs" / "measurements" / "gpu-static.md"
ARCH = "sm_90"
CASES = [Case(work, "reversible-heun" if work == "w4" else "coupled-midpoint", dtype)
         for work in ("w1", "small", "w2", "medium", "w4") for dtype in ("float32", "float64")]
BEYOND = 68_000           # bytes of y0: larger ones take the same operations, but longer where the machine is pretended
STEP = r"\n[^\n]*\bstep_step\(S[^\n]*"          # its call
INSTRUCTION = 16          # bytes, on every architecture since Volta
PRODUCTS = {"FMUL": 0x20, "FADD": 0x21, "FFMA": 0x23, "DMUL": 0x28, "DADD": 0x29, "DFMA": 0x2B}
NOP = 0x118
# Fields without wide matrices, in both layouts that they may have.
BATCH, STEPS = 4096, 1000
LAYOUTS = ("warp per tile", "thread per trajectory")
HEAD = """# GPU kernels, counted

`python -m reference.benchmarks.gpu_static`, NVRTC {version}, {arch}, fast arithmetic. No GPU has run these: every number is
read from the machine code, or counted on the pretended CuPy of the tests.

Code is that of a whole kernel, in instructions of 16 bytes, and what it loses where the step is taken out. Barriers are
those of one step. Compiling is processor time, without a cache, on a machine that others were using.
Operations are the kernels and copies that a warm solve
and its gradient ask of the device, without those of the loss; waits are how often the host waits for it. They were
counted in 40 steps (medium in 4), with the batch of the work, but y0 of 68 kB at most, kernel by kernel: as a CUDA graph,
which is made in the third solve of a kind, they are some four fewer. States above 64 kB (medium) are measured on the device,
by a kernel more, and the watch judges by its numbers. Wavefronts are
those of shared memory in a step of a tile; the microseconds of a step are an estimate from these counts
(`revode_cuda/estimate.py`). Neither has been measured.

Before (12 operations and four waits), y0, params, the solve, the cotangent and the gradient were each waited for; of medium
the watch looked at the states on the device, by many small operations (318, and 55 waits).

"""


APART = f"""## Fields without wide matrices

{BATCH} trajectories, Coupled midpoint, by a warp for each tile, with its values in shared memory, and by a thread for each
trajectory, with all of them in registers. The code of a step is straight in a thread, so that each of its instructions
runs once; that of a warp has loops. Instructions of a step are those that the code has more of where the step is taken
twice and nothing is read ahead, and the share of products and sums (FMA among them) is theirs. The plan takes the threads
for these fields.
"""


PADDED = """## Lanes with 16 bytes behind them

With `plan={"padded": True}` the features of a tile begin in different banks. The tiles of the other works have too few
lanes for it to matter. It is off, until a GPU has measured it.
"""


AHEAD = """## Rows read a step ahead

What a step reads by its number (its values of the grid, the root of its length, increments) is loaded to registers while the step
before it is at work; `plan={"prefetch": False}` reads it where the step begins.
"""


class Row(NamedTuple):
    """Of one kernel."""
    instructions: int
    step: int                 # those of the step alone
    registers: int
    spills: int
    barriers: int
    seconds: float
    again: tuple[int, int]    # what the step taken twice has more: instructions, and those that are products and sums
    plan: Any


AT_ONCE = "#define AHEAD 0\n"      # what a step reads is read where it begins: of two steps, one would do without


def lorenz(t: Any, y: Any, p: Any) -> Any:
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    return np.stack([p["s"] * (b - a), a * (p["r"] - c) - b, a * b - p["b"] * c], -1)


def pendulum(t: Any, y: Any, p: Any) -> Any:
    return np.stack([y[..., 1], -p["k"] * np.sin(y[..., 0]) - p["c"] * y[..., 1]], -1)


def kinetics(t: Any, y: Any, p: Any) -> Any:
    """Robertson's reactions."""
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    slow, fast, back = p["k"][0] * a, p["k"][1] * b * b, p["k"][2] * b * c
    return np.stack([back - slow, slow - fast - back, fast], -1)


ANALYTIC: dict[str, tuple] = {"lorenz": (lorenz, 3, {"s": 10.0, "r": 28.0, "b": 8 / 3}),
                              "pendulum": (pendulum, 2, {"k": 1.0, "c": 0.1}),
                              "kinetics": (kinetics, 3, {"k": [0.04, 3e7, 1e4]})}


def code_of(cubin: bytes) -> bytes:
    """All sections of code of an ELF file."""
    at, = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, at + i * size) for i in range(count)]
    text = sections[names][4]
    return b"".join(cubin[at:at + length] for name, _, _, _, at, length in sections if cubin[text + name:].startswith(b".text"))


def instructions(code: bytes) -> np.ndarray:
    """How many there are, without what fills up; and those that are products, sums, or both.

    The low nine bits of an instruction say what it does, three more what its operands are.
    """
    words = np.frombuffer(code, "<u8")[::2] & 0x1FF
    return np.array([np.sum(words != NOP), np.isin(words, list(PRODUCTS.values())).sum()])


def rows(case: Case, plan: Any = None) -> dict[str, Row]:
    """What NVRTC makes of both directions."""
    if case.work in ANALYTIC:
        field, d, p = ANALYTIC[case.work]
        return made(field, np.full((BATCH, d), 1e-3, case.dtype), np.linspace(0.0, 1.0, STEPS + 1),
                    {name: np.asarray(x, case.dtype) for name, x in p.items()}, {"method": rv.Coupled("midpoint")}, plan)
    work = GPU_WORKS[case.work]
    problem, (field, ts, options) = works.problem(work, case.dtype), asked(rv, work, case)
    return made(field, problem.y0, ts, problem.params, options, plan)


def made(field: Any, y0: Any, ts: Any, params: Any, options: dict, plan: Any) -> dict[str, Row]:
    texts: list[tuple] = []
    device = fused.Device("none", np, ARCH, lambda *how: texts.append(how), None)
    plans = fused.planned(field, y0, ts, params, device, "fast", plan, False, options)
    found = {}
    for (text, _, real, _), plan in zip(texts, plans, strict=True):
        begin = time.process_time()
        cubin, log = compiled(text, real)
        seconds, took = time.process_time() - begin, _resources(log)["run"]
        rest, _ = compiled(re.sub(STEP, "\n", text), real)
        step = text[text.index("step_step("):text.index('extern "C"')]
        code, without, once, twice = map(code_of, (cubin, rest, *(
            compiled(AT_ONCE + re.sub(STEP, steps, text), real)[0] for steps in (r"\g<0>", r"\g<0>\g<0>"))))
        barriers = 0 if plan.state == "registers" else len(re.findall(r"\bSYNC;", step))
        found[plan.direction] = Row(*(n // INSTRUCTION for n in (len(code), len(code) - len(without))), took.registers, took.spills,
                                    barriers, seconds, tuple((instructions(twice) - instructions(once)).tolist()), plan)
    return found


def compiled(text: str, real: str) -> tuple[bytes, str]:
    """The machine code, and what the assembler says of it."""
    cubin, _, log = nvrtc.library().compile(cuda_prelude(real) + text, (f"--gpu-architecture={ARCH}", "--ptxas-options=-v"))
    return cubin, log


def operations(case: Case) -> tuple[int, int]:
    """Operations and waits of a warm solve and its gradient."""
    from tests.pretended_cupy import DONE, pretended
    work = GPU_WORKS[case.work]
    rows = BEYOND // (work.sizes[0] * np.dtype(case.dtype).itemsize)
    work = work._replace(N=4 if work.batch > rows else 40, batch=min(work.batch, rows))
    problem = works.problem(work, case.dtype)
    import revode_cuda
    with pretended() as cupy, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y0, params = revode_cuda.to_device((problem.y0, problem.params))
        a = cupy.asarray(problem.y0[None] / work.batch)
        field, ts, options = asked(revode_cuda, work, case)
        for _ in range(3):
            del DONE[:]
            _, pull = revode_cuda.vjp(lambda y0, p: revode_cuda.solve(field, y0, ts, p, save=[-1], backend="fused", **options).ys,
                                      y0, params)
            pull(a)
    return len(DONE) - DONE.count("wait"), DONE.count("wait")


def layouts(names: Any) -> list[str]:
    """Fields without wide matrices, by a warp for a tile and by a thread for a trajectory."""
    head = ["field", "dtype", "direction", "layout", "T", "instructions of a step", "products and sums", "registers", "spills",
            "barriers", "compile, s", "wavefronts", "us a step, estimated"]
    lines = [head, ["---"] * len(head)]
    for name in names:
        for dtype in ("float32", "float64"):
            both = {layout: rows(Case(name, "coupled-midpoint", dtype), {"regime": layout}) for layout in LAYOUTS}
            for direction in ("forward", "backward"):
                for layout, found in both.items():
                    row = found[direction]
                    lines.append([name, dtype, direction, layout, str(row.plan.T), str(row.again[0]),
                                  f"{row.again[1] / row.again[0]:.0%}",
                                  str(row.registers), str(row.spills), str(row.barriers), f"{row.seconds:.2f}",
                                  str(row.plan.counts.wavefronts), f"{row.plan.counts.microseconds:.2f}"])
                    print(" ".join(lines[-1]), flush=True)
    return ["| " + " | ".join(line) + " |" for line in lines]


def padded() -> list[str]:
    """The work with long lanes, as it is, and padded."""
    head = ["work", "dtype", "direction", "T", "padded", "bytes of shared memory", "registers", "spills", "wavefronts", "cycles",
            "us a step, estimated"]
    lines = [head, ["---"] * len(head)]
    for dtype in ("float32", "float64"):
        both = {pads: rows(Case("medium", "coupled-midpoint", dtype), {"padded": pads}) for pads in (False, True)}
        for direction in ("forward", "backward"):
            for pads, found in both.items():
                plan, row = found[direction].plan, found[direction]
                lines.append(["medium", dtype, direction, str(plan.T), "yes" if pads else "no", str(plan.shared), str(row.registers),
                              str(row.spills), *(f"{x:.4g}" if isinstance(x, float) else str(x) for x in (
                                  plan.counts.wavefronts, plan.counts.cycles, plan.counts.microseconds))])
                print(" ".join(lines[-1]), flush=True)
    return ["| " + " | ".join(line) + " |" for line in lines]


def ahead() -> list[str]:
    """All works, with what a step reads by its number read where it begins, and a step ahead."""
    head = ["work", "dtype", "direction", "registers", "a step ahead", "spills", "a step ahead", "instructions", "a step ahead"]
    lines = [head, ["---"] * len(head)]
    for case in [*CASES, *(Case(name, "coupled-midpoint", dtype) for name in ANALYTIC for dtype in ("float32", "float64"))]:
        here, then = (rows(case, {"prefetch": it}) for it in (False, True))
        for direction, row in here.items():
            pairs = zip(row[2:4] + row[:1], then[direction][2:4] + then[direction][:1], strict=True)
            lines.append([case.work, case.dtype, direction, *(str(x) for pair in pairs for x in pair)])
            print(" ".join(lines[-1]), flush=True)
    return ["| " + " | ".join(line) + " |" for line in lines]


def table(cases: list[Case]) -> list[str]:
    head = ["work", "dtype", "direction", "T", "threads", "instructions", "code, kB", "of a step", "registers", "spills", "barriers",
            "compile, s", "wavefronts", "us a step, estimated", "operations", "waits"]
    lines = [head, ["---"] * len(head)]
    for case in cases:
        try:
            found = rows(case)
        except CannotBeFused as error:
            lines.append([case.work, case.dtype, str(error)])
            continue
        for direction, row in found.items():
            counted = map(str, operations(case)) if direction == "backward" else ("", "")
            lines.append([f"{case.work}, {case.method}", case.dtype, direction, str(row.plan.T), str(row.plan.threads),
                          str(row.instructions), *(f"{n * INSTRUCTION / 1000:.0f}" for n in (row.instructions, row.step)),
                          str(row.registers), str(row.spills), str(row.barriers), f"{row.seconds:.1f}",
                          str(row.plan.counts.wavefronts), f"{row.plan.counts.microseconds:.2f}", *counted])
            print(" ".join(lines[-1]), flush=True)
    return ["| " + " | ".join(line) + " |" for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reference.benchmarks.gpu_static", description="Count what a GPU would run.")
    names = [*ANALYTIC, *dict.fromkeys(case.work for case in CASES)]
    parser.add_argument("--only", nargs="+", metavar="WORK", choices=names,
                        help=f"print the rows of these works, and write nothing: {', '.join(names)}")
    args = parser.parse_args()
    missing = nvrtc.missing() or host.missing()
    if missing:
        parser.error(missing)
    apart = layouts([name for name in ANALYTIC if not args.only or name in args.only])
    lines = table([case for case in CASES if not args.only or case.work in args.only])
    if not args.only:
        page = [*lines, "", APART, *apart, "", PADDED, *padded(), "", AHEAD, *ahead()]
        version = ".".join(map(str, nvrtc.library().version))
        PAGE.write_text(HEAD.format(version=version, arch=ARCH) + "\n".join(page) + "\n", encoding="utf-8")
        print(f"written: {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

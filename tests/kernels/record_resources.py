"""Write resources.json: the registers, stack, spills and static shared memory of every hand-written kernel.

    python tests/kernels/record_resources.py

Run it when a kernel changes, and look at the difference before it is committed.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from revode_cuda import compile, nvrtc

TABLE = Path(__file__).with_name("resources.json")
ARCHES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
REALS = ("double", "float")


def measured() -> dict[str, Any]:
    """{"nvrtc": [13, 5], "kernels": {"subject/kernel/real/mode": {arch: [registers, stack, spills, shared]}}}"""
    table: dict[str, dict[str, list[int]]] = {}
    for subject in compile.SUBJECTS:
        for real in REALS:
            for mode in compile.MODES:
                for arch in ARCHES:
                    binary = compile.compile(compile.kernel_source(subject), real, arch, mode)
                    for kernel, took in binary.resources.items():
                        table.setdefault(f"{subject}/{kernel}/{real}/{mode}", {})[arch] = list(took)
    return {"nvrtc": list(nvrtc.library().version), "kernels": dict(sorted(table.items()))}


if __name__ == "__main__":
    found = measured()
    rows = ",\n".join(f"  {json.dumps(kernel)}: {json.dumps(row)}" for kernel, row in found["kernels"].items())
    TABLE.write_text(f'{{"nvrtc": {json.dumps(found["nvrtc"])}, "kernels": {{\n{rows}\n}}}}\n', encoding="utf-8")
    print(f"{TABLE.name}: {len(found['kernels'])} rows, NVRTC {'.'.join(map(str, found['nvrtc']))}")

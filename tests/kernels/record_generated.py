"""Write generated.json: the registers and stack of some generated programs, by architecture.

    python tests/kernels/record_generated.py

Run it when the generator changes, and look at the difference before it is committed.
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import revode as rv
from revode_cuda import compile, fused, nvrtc

TABLE = Path(__file__).with_name("generated.json")
ARCHES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
TS = np.linspace(0.0, 1.0, 5)


def decay(t: Any, y: Any, p: Any) -> Any:
    return -p["k"] * np.tanh(y)


def net(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W1"] + p["b1"]) @ p["W2"] + p["k"] * np.sin(t)


def spread(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * np.cos(y) * p["k"]


NOISE = {"diffusion": spread, "noise": rv.Brownian(7)}
# field, width, method, dtype, arithmetic, options, architectures
PROGRAMS: dict[str, tuple] = {
    "analytic/heun/float/strict": (decay, 0, rv.ReversibleHeun(), np.float32, "strict", {}, ARCHES),
    "analytic/heun/double/fast": (decay, 0, rv.ReversibleHeun(), np.float64, "fast", {}, ("sm_90",)),
    "analytic/heun+noise/double/strict": (decay, 0, rv.ReversibleHeun(), np.float64, "strict", NOISE, ("sm_75", "sm_90")),
    "analytic/ees/float/strict": (decay, 0, rv.EES25(), np.float32, "strict", {}, ("sm_90",)),
    "net32/heun/float/strict": (net, 32, rv.ReversibleHeun(), np.float32, "strict", {}, ("sm_75", "sm_80", "sm_90", "sm_120")),
    "net64/heun/double/strict": (net, 64, rv.ReversibleHeun(), np.float64, "strict", {}, ("sm_90",)),
    "net64/coupled/float/fast": (net, 64, rv.Coupled("midpoint"), np.float32, "fast", {}, ("sm_90",)),
    "net128/alf/float/fast": (net, 128, rv.AsynchronousLeapfrog(), np.float32, "fast", {}, ("sm_90",)),
}


def binaries(name: str, arch: str) -> dict[str, Any]:
    """What NVRTC makes of both directions."""
    f, w, method, dtype, arithmetic, options, _ = PROGRAMS[name]
    d = 4
    params = {"k": np.ones(d, dtype)}
    if w:
        params |= {"W1": np.ones((d, w), dtype), "b1": np.ones(w, dtype), "W2": np.ones((w, d), dtype)}
    made: dict[str, Any] = {}
    device = fused.Device("none", np, arch, lambda text, shared, real, mode: made.setdefault(
        ("forward", "backward")[len(made)], compile.compile(text, real, arch, mode)), None)
    fused.planned(f, np.ones((2048, d), dtype) / 2, TS, params, device, arithmetic, None, False, {"method": method, **options})
    return made


def measured() -> dict[str, Any]:
    """{"nvrtc": [13, 5], "programs": {name: {arch: {direction: [registers, stack]}}}}"""
    return {"nvrtc": list(nvrtc.library().version), "programs": {name: {arch: {
        direction: list(binary.resources["run"])[:2] for direction, binary in binaries(name, arch).items()}
        for arch in PROGRAMS[name][-1]} for name in PROGRAMS}}


if __name__ == "__main__":
    found = measured()
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in found["programs"].items())
    TABLE.write_text(f'{{"nvrtc": {json.dumps(found["nvrtc"])}, "programs": {{\n{rows}\n}}}}\n', encoding="utf-8")
    print(f"{TABLE.name}: {len(found['programs'])} programs, NVRTC {'.'.join(map(str, found['nvrtc']))}")

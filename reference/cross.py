"""Generated code on other processors: has it the bits of its NumPy mirror?

    python -m reference.cross            needs g++, aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)

Strict code of a few solves (networks in tiles of several sizes, every elementary function, Philox noise; both directions) and of
the elementary functions alone is compiled for each target below, run there (ARM64 by qemu's emulation), and compared with what
NumPy computes here, bit for bit. A target that this processor cannot run is compiled, and the table says so. The command fails
where bits differ, a source is not compiled, or a compiler or an emulator is absent.
"""
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

import revode as rv
from revode.compiled import elementary, generate, mirror, native

from . import elementary as measured


class Target(NamedTuple):
    """A processor: who compiles for it, with which flags, and who runs what comes out."""
    name: str
    compiler: str
    flags: tuple[str, ...]
    runner: tuple[str, ...] = ()


TARGETS = (Target("ARM64, NEON", "aarch64-linux-gnu-g++", ("-march=armv8-a", "-static"), ("qemu-aarch64",)),
           Target("x86-64, SSE2", "g++", ("-march=x86-64",)), Target("x86-64-v3, AVX2", "g++", ("-march=x86-64-v3",)),
           Target("x86-64-v4, AVX-512", "g++", ("-march=x86-64-v4",)))
FLAGS = (*native.FLAGS, native.STRICT)
CANNOT = -4                 # the signal of an instruction that a processor does not have

READ = """#include <stdio.h>
#include <stdlib.h>
union Value { long long whole; double number; char* array; };
static long long bytes[100];
static Value v[100];
static void get(void* to, long long n, FILE* file) { if (fread(to, 1, n, file) != (size_t)n) exit(1); }
static int read_all(const char* name) {
  FILE* file = fopen(name, "rb");
  int count = 0;
  for (; fread(bytes + count, 1, 8, file) == 8; count++)      // of an array; -1: a number of eight bytes; -2: no array
    if (bytes[count] == -1) get(v + count, 8, file);
    else if (bytes[count] >= 0) {
      v[count].array = (char*)aligned_alloc(64, bytes[count] / 64 * 64 + 64);
      get(v[count].array, bytes[count], file);
    }
  fclose(file);
  return count;
}
static void write_all(const char* name, int count) {
  FILE* file = fopen(name, "wb");
  for (int i = 0; i < count; i++) if (bytes[i] > 0) fwrite(v[i].array, 1, bytes[i], file);
  fclose(file);
}
"""
MAIN = """
int main(int, char** names) {{
  const int count = read_all(names[1]);
  {calls}
  write_all(names[2], count);
}}
"""
results: Counter = Counter()             # (target, what came of it)


def compiled(target: Target, text: str, calls: str, folder: Path) -> Path:
    path = folder / f"program{len(list(folder.iterdir()))}"
    subprocess.run([target.compiler, *FLAGS, *target.flags, "-o", str(path), "-x", "c++", "-"], input=READ + text + MAIN.format(
        calls=calls), text=True, check=True)
    return path


def execute(target: Target, program: Path, values: list) -> list[np.ndarray] | None:
    """The arrays among the values, after the program has run; None where this processor cannot."""
    given, made = program.with_suffix(".in"), program.with_suffix(".out")
    with given.open("wb") as file:
        for x in values:
            is_array = isinstance(x, np.ndarray)
            np.int64(x.nbytes if is_array else -2 if x is None else -1).tofile(file)
            if is_array:
                x.tofile(file)
            elif x is not None:
                (np.float64(x) if isinstance(x, float) else np.array(x).astype(np.uint64)).tofile(file)
    code = subprocess.run([*target.runner, str(program), str(given), str(made)]).returncode
    if code == CANNOT:
        return None
    if code:
        raise SystemExit(f"cross: {target.name}: the program ended with {code}")
    content, found = made.read_bytes(), []
    for x in values:
        if isinstance(x, np.ndarray):
            found.append(np.frombuffer(content[:x.nbytes], x.dtype).reshape(x.shape))
            content = content[x.nbytes:]
    return found


def compare(target: Target, what: str, found: list[np.ndarray] | None, wanted: list[np.ndarray]) -> None:
    if found is None:
        results[target.name, "compiled, cannot be run here"] += 1
        return
    same = all(np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a) & (a == 0), np.signbit(b) & (b == 0))
               for a, b in zip(found, wanted, strict=True))
    results[target.name, "same bits" if same else f"OTHER BITS: {what}"] += 1


class Crossed(mirror.Mirror):
    """The mirror, and beside every call of it the same call on every target."""
    folder: Path
    what = ""

    def __init__(self, source: generate.Source) -> None:
        super().__init__(source)
        cast = lambda i, type: f"({type})v[{i}].array" if "*" in type else f"({type})v[{i}].whole"
        values = ", ".join(cast(i, type) for i, (type, _) in enumerate(self.arguments))
        calls = f"for (int tile = 0; tile < v[{len(self.arguments)}].whole; tile++) run(tile, {values});"
        self.programs = [(target, compiled(target, source.text, calls, self.folder)) for target in TARGETS]

    def __call__(self, tile: int, *arguments: Any) -> None:
        if tile == 0:
            values = [mirror.as_python(a) for a in arguments]
            before = [x.copy() if isinstance(x, np.ndarray) else x for x in values]
            super().__call__(tile, *arguments)
            tiles = len(self.M)
            for target, program in self.programs:
                found = execute(target, program, [*before, tiles])
                wanted = [x for x in values if isinstance(x, np.ndarray)]
                compare(target, self.what, found and self.kept(found), self.kept(wanted))

    def kept(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Of the memory of the tiles only what one step leaves for the next: other places have no names in the mirror."""
        found = []
        for x in arrays:
            if x.size == self.M.size and x.dtype == self.dtype:
                lanes = {kind: self.T if kind == "lanes" else 1 for _, _, kind in self.source.places.values()}
                x = x.reshape(self.M.shape)
                found += [x[:, offset:offset + F * lanes[kind]] for offset, F, kind in self.source.places.values()]
            else:
                found.append(x)
        return found


def network(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(np.tanh(y @ p["W1"] + p["b1"] * t) @ p["W2"]) @ p["W3"]


def gusts(t: Any, y: Any, p: Any) -> Any:
    return 0.3 * np.cos(y) * p["b1"][:3]


def every_function(t: Any, y: Any, p: Any) -> Any:
    """More calls than are printed into the loops, so they are called apart; with one trajectory as with many."""
    a, one = 0.3 * np.tanh(y), 1 + y * y
    return 0.02 * (np.sin(y) * np.cos(3 * y) + np.exp(-one) + np.arctan(y) + np.log1p(one) + np.tan(a) + np.sinh(a) + np.cosh(a)
                   + np.expm1(a) + np.arcsinh(y) + np.cbrt(y) + np.log(one) + np.exp2(a) + np.log2(one) + np.log10(one)
                   + np.hypot(y, 1.0) + np.arctan2(y, 2.0) + np.arcsin(a) + np.arccos(a) + np.arctanh(a) + np.arccosh(1 + one)
                   + np.logaddexp(y, p["b1"][0]) + one ** p["b1"][1] + y % 0.7 + y // 0.5 + np.sign(y) + rv.nn.erf(y))


def few_functions(t: Any, y: Any, p: Any) -> Any:
    return 0.1 * np.sin(y) * np.exp(-y * y) - y * p["b1"][:3]


def solves() -> None:
    rng = np.random.default_rng(0)
    shapes = {"W1": (3, 20), "b1": (20,), "W2": (20, 13), "W3": (13, 3)}
    for dtype in (np.float64, np.float32):
        params = {name: (0.4 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}
        for name, field, rows, method, more in (
                ("network", network, 37, rv.Coupled("midpoint"), {}), ("a small batch", network, 3, rv.ReversibleHeun(), {}),
                ("one trajectory", network, 1, rv.Coupled("midpoint"), {}), ("few functions", few_functions, 5, rv.Coupled("rk4"), {}),
                ("every function", every_function, 9, rv.ReversibleHeun(), {}), ("alone", every_function, 1, rv.ReversibleHeun(), {}),
                ("noise", network, 21, rv.ReversibleHeun(), {"diffusion": gusts, "noise": rv.Brownian(2 ** 63 + 5, offset=7)})):
            y0 = (0.5 * rng.standard_normal((rows, 3))).astype(dtype)
            Crossed.what = f"{name}, {np.dtype(dtype).name}"
            rv.grad(lambda y0, p: np.sum(rv.solve(field, y0, np.linspace(0.0, 0.5, 9), p, method=method, save=[3, 8],
                                                  backend="replay", arithmetic="strict", **more).ys ** 2), argnums=(0, 1))(y0, params)


def functions(folder: Path) -> None:
    for dtype in (np.float64, np.float32):
        text, calls, values, blank = elementary.c_source(elementary.NAMES, dtype), list[str](), list[np.ndarray](), list[np.ndarray]()
        for name in elementary.NAMES:
            x = measured.points(name, dtype, 20_000)
            i, inputs = len(values), range(len(x))
            text += measured.LOOP.format(name=name, declared=", ".join(f"const real* __restrict a{k}" for k in inputs),
                                         used=", ".join(f"a{k}[i]" for k in inputs))
            places = ", ".join(f"(real*)v[{i + k}].array" for k in range(len(x) + 1))
            calls.append(f"loop_{name}({len(x[0])}, {places});")
            values += [elementary.evaluate(name, *x), *x]
            blank += [np.zeros_like(x[0]), *x]
        for target in TARGETS:
            program = compiled(target, text, "\n  ".join(calls), folder)
            compare(target, f"elementary functions, {np.dtype(dtype).name}", execute(target, program, blank), values)


def main() -> int:
    absent = sorted({name for target in TARGETS for name in (target.compiler, *target.runner) if not shutil.which(name)})
    if absent:
        print(f"cross: {', '.join(absent)} not found; on Debian: apt-get install g++ g++-aarch64-linux-gnu qemu-user")
        return 1
    with tempfile.TemporaryDirectory() as name, patch.object(mirror, "Mirror", Crossed):
        Crossed.folder = Path(name)
        functions(Path(name))
        solves()
    for (target, what), count in sorted(results.items()):
        print(f"{target:20} {count:4} x {what}")
    return int(any("OTHER" in what for _, what in results))


if __name__ == "__main__":
    sys.exit(main())

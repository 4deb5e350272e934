"""Exported C: compiled as C99 without a warning, called from C and by ctypes, with the bits of the native backend."""
from __future__ import annotations

import ctypes
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.engine import tree
from revode.export import export_c
from tests.compiler import HERE

CC = shutil.which("gcc") or shutil.which("cc")
STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wmissing-prototypes", "-Werror", "-pedantic", "-ffp-contract=off")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler: exported files are not compiled")


def compiled(path: Path, *more: str) -> ctypes.CDLL:
    out = path.with_suffix(".so")
    subprocess.run([str(CC), *STRICT, *more, "-shared", "-fPIC", "-o", str(out), str(path), "-lm"], check=True)
    return ctypes.CDLL(str(out))


def flat(params: Any, dtype: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(np.ravel(x) for x in tree.flatten(params)[0] if x is not None)]).astype(dtype)


def pointers(*arrays: np.ndarray) -> list:
    return [ctypes.c_void_p(x.ctypes.data) for x in arrays]


def exported(folder: Path, field: Any, y0: Any, ts: Any, params: Any, weights: Any, constants: bool = False, **how: Any) -> list:
    """ys, dL/dy0 and dL/dparams of the compiled file, for L = sum of weights * ys."""
    path, y0s = folder / "model.c", outcome(y0)
    export_c(field, y0, ts, params, path=path, constants=constants, **how)
    library = compiled(path)
    work = np.full(int(path.with_suffix(".h").read_text().split("MODEL_WORK = ")[1].split()[0]), np.nan, y0s[0].dtype)
    p = flat(params, work.dtype)
    ys, again, ay0 = ([np.empty_like(x) for x in like] for like in (weights, weights, y0s))
    ap = np.empty_like(p)
    given = [*([] if constants or not p.size else [p]), *increments(ts, y0s[0], how)]
    library.model_solve(*pointers(*y0s, *given, *ys, work))
    work[...] = np.nan
    library.model_gradient(*pointers(*y0s, *given, *weights, *again, *ay0, *([ap] if p.size else []), work))
    for x, y in zip(ys, again, strict=True):
        np.testing.assert_array_equal(x, y)
    return [tuple(ys), tuple(ay0), ap]


def increments(ts: Any, y0: np.ndarray, how: dict) -> list:
    """The argument dW or dX, where there is one: in the shape and dtype of what a solve draws."""
    if "noise" in how:
        shape = (*y0.shape[:-1], 2) if how["diffusion"] is both else y0.shape
        return [np.stack([how["noise"].increments(n, shape, h, y0.dtype) for n, h in enumerate(np.diff(ts).astype(y0.dtype))])]
    if not getattr(how.get("control"), "smooth", True):
        return [np.stack([how["control"].increment(a, b) for a, b in pairwise(ts)])]
    return []


def strict(field: Any, y0: Any, ts: Any, params: Any, weights: Any, backend: str = "replay", **how: Any) -> list:
    """The same by the library; "replay", which needs no compiler, has in strict arithmetic the bits of "native"."""
    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(field, y0, ts, params, backend=backend, arithmetic="strict", gradient=rv.Reversible(), **how)
        return sum(np.sum(w * y) for w, y in zip(weights, outcome(sol.ys), strict=True)), sol

    (_, sol), (ay0, ap) = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    assert sol.stats.backend == backend
    dtype = outcome(y0)[0].dtype
    return [rv.solve(field, y0, ts, params, backend=backend, arithmetic="strict", **how).ys, ay0, flat(ap, dtype)]


def mlp(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + t * p["b"]) @ p["V"] - p["k"] * y


def of_mlp(dtype: Any = np.float64) -> dict:
    rng = np.random.default_rng(0)
    return {"W": rng.normal(size=(3, 5)).astype(dtype), "b": rng.normal(size=5).astype(dtype),
            "V": (rng.normal(size=(5, 3)) / 3).astype(dtype), "k": np.asarray(0.25, dtype)}


def pendulum(t: Any, q: Any, p: Any) -> Any:
    """A field whose parameters come in through functions of themselves, and the time through a sine."""
    return -(p["W"] @ p["W"].T @ np.ones(2) * 0.1 + p["k"] * p["k"]) * q + np.sin(t)


def wavy(t: Any, y: Any, p: Any) -> Any:
    u = np.sin(y @ p["W"]) + np.exp(-abs(y @ p["W"])) - np.sqrt(1.0 + t * t) * np.floor(t)
    return np.tanh(u @ p["V"]) * np.cos(y) - np.maximum(y, p["k"]) / np.sqrt(1.0 + y * y)


def along(t: Any, y: Any, p: Any) -> Any:
    """A field of a control with two channels."""
    return np.tanh(y @ p["W"])[..., None] * np.ones(2) + y[..., None] * p["k"]


def spread(t: Any, y: Any, p: Any) -> Any:
    return 0.2 * np.cos(y) * p["k"]


def both(t: Any, y: Any, p: Any) -> Any:
    return np.stack([0.1 * np.cos(y), 0.2 * y], -1)


EVEN, UNEVEN = np.linspace(0.0, 1.0, 21), np.array([0.5, 0.6, 0.8, 0.9, 1.25, 1.5, 1.625])
RNG = np.random.default_rng(1)
Y5, Y37 = RNG.normal(size=(5, 3)), RNG.normal(size=(37, 3))
SCALES = {"a": RNG.normal(size=3), "b": RNG.normal(size=3), "W": RNG.normal(size=(3, 3))}
SQUARE = {"W": RNG.normal(size=(3, 3)), "k": np.asarray(0.3)}
WALK, WALKS = (0.2 * RNG.normal(size=(*batch, 21, 2)).cumsum(-2) for batch in ((), (5,)))
TURN = {"W": RNG.normal(size=(2, 4)), "k": np.asarray(0.5)}
CASES = {
    "coupled, one trajectory": (mlp, Y5[0], EVEN, of_mlp(), {"method": rv.Coupled("midpoint")}),
    "coupled, constants": (mlp, Y5[0], EVEN, of_mlp(), {"method": rv.Coupled("midpoint"), "constants": True}),
    "reversible Heun, float32, eight lanes": (mlp, Y5.astype(np.float32), EVEN, of_mlp(np.float32), {"method": rv.ReversibleHeun()}),
    "EES, three tiles": (mlp, Y37, EVEN, of_mlp(), {"method": rv.EES25()}),
    "coupled rk4, backwards on uneven times, some saved": (
        mlp, Y5, UNEVEN[::-1].copy(), of_mlp(), {"method": rv.Coupled("rk4"), "save": [1, 2, 5]}),
    "Verlet, functions of parameters": (
        pendulum, (RNG.normal(size=2), RNG.normal(size=2)), EVEN, TURN, {"method": rv.VelocityVerlet()}),
    "functions of parameters, of each direction its own": (
        lambda t, y, p: np.tanh(y @ (p["W"] * 0.5)) * (p["a"] * p["a"]) - y * (p["b"] + p["a"]), Y5, EVEN, SCALES,
        {"method": rv.Coupled("midpoint", lam=0.9)}),
    "many elementary functions, in functions of several parts": (
        wavy, Y5[0], EVEN[:3], of_mlp(), {"method": rv.Coupled("dopri5")}),
    "control": (along, Y5[0], EVEN, SQUARE, {"method": rv.Coupled("midpoint"), "control": rv.LinearPath(EVEN, WALK)}),
    "one control for eight lanes, constants": (
        along, Y5, EVEN, SQUARE, {"method": rv.ReversibleHeun(), "control": rv.LinearPath(EVEN, WALK), "constants": True}),
    "a control for each": (along, Y5, EVEN, SQUARE, {"method": rv.ReversibleHeun(), "control": rv.LinearPath(EVEN, WALKS)}),
    "smooth control": (along, Y5[0], EVEN, SQUARE, {"method": rv.Coupled("midpoint"), "control": rv.HermiteCubic(EVEN, WALK)}),
    "noise": (mlp, Y5[0], EVEN, of_mlp(), {"method": rv.EES25(), "diffusion": spread, "noise": rv.Brownian(5)}),
    "noise, three tiles": (mlp, Y37, UNEVEN, of_mlp(), {"method": rv.ReversibleHeun(), "diffusion": spread, "noise": rv.Brownian(5)}),
    "Ito, float32": (mlp, Y5.astype(np.float32), EVEN, of_mlp(np.float32), {
        "method": rv.ReversibleHeun(), "diffusion": spread, "noise": rv.Brownian(5), "interpretation": "ito", "save": [4, -1]}),
    "general noise": (mlp, Y5, EVEN, of_mlp(), {"method": rv.Coupled("midpoint"), "diffusion": both, "noise": rv.Brownian(6)}),
    "sums of fewer terms in front": (
        lambda t, y, p: np.cumsum(y * p["a"], -1) - np.cumprod(np.cos(y), -1) * p["b"], Y5[0], EVEN, SCALES,
        {"method": rv.ReversibleHeun()}),
    "no parameters": (lambda t, y, p: -y, np.array([1.0, 2.0]), EVEN, None, {"method": rv.NearReversible("rk4"), "save": [-1]}),
}


def outcome(x: Any) -> list:
    return list(x) if isinstance(x, tuple) else [x]


@pytest.mark.sample(5)
@needs_cc
@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_strict_arithmetic(name: str, tmp_path: Path) -> None:
    field, y0, ts, params, how = CASES[name]
    plain = {key: value for key, value in how.items() if key != "constants"}
    rows = len(ts) if "save" not in how else len(how["save"])
    weights = tuple(np.random.default_rng(2).normal(size=(rows, *y.shape)).astype(y.dtype) for y in outcome(y0))
    found = exported(tmp_path, field, y0, ts, params, weights, **how)
    for x, y in zip(found, strict(field, y0, ts, params, weights, **plain), strict=True):
        for a, b in zip(outcome(x), outcome(y), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


STARTED = {
    "asynchronous leapfrog": (mlp, Y5[0], EVEN, of_mlp(), {"method": rv.AsynchronousLeapfrog()}),
    "damped, uneven, constants": (mlp, Y5[0], UNEVEN, of_mlp(), {"method": rv.AsynchronousLeapfrog(0.9), "constants": True}),
    "three tiles": (mlp, Y37, EVEN, of_mlp(), {"method": rv.AsynchronousLeapfrog(), "save": [0, 3, -1]}),
    "midpoint rule, backwards": (mlp, Y5[0], UNEVEN[::-1].copy(), of_mlp(), {"method": rv.LeapfrogMidpoint()}),
    "midpoint rule, float32": (mlp, Y5.astype(np.float32), EVEN, of_mlp(np.float32), {"method": rv.LeapfrogMidpoint()}),
    "no parameters": (lambda t, y, p: -y * y, Y5[0], UNEVEN, None, {"method": rv.AsynchronousLeapfrog()}),
}


@needs_cc
@pytest.mark.parametrize("name", STARTED)
def test_methods_that_start_with_an_evaluation(name: str, tmp_path: Path) -> None:
    """That one is the BLAS's there, whose order of additions is its own: some ulps, which 20 steps do not make 64 of."""
    field, y0, ts, params, how = STARTED[name]
    rows = len(ts) if "save" not in how else len(how["save"])
    weights = (np.random.default_rng(2).normal(size=(rows, *y0.shape)).astype(y0.dtype),)
    found = exported(tmp_path, field, y0, ts, params, weights, **how)
    wanted = strict(field, y0, ts, params, weights, **{key: value for key, value in how.items() if key != "constants"})
    for x, y in zip(found, wanted, strict=True):
        x, y = np.asarray(outcome(x)[0]), np.asarray(outcome(y)[0])
        assert x.dtype == y.dtype == y0.dtype
        np.testing.assert_allclose(x, y, rtol=0, atol=64 * np.finfo(y.dtype).eps * np.max(np.abs(y), initial=1.0))


@needs_cc
@pytest.mark.parametrize(("stem", "name"), [("a-b.c", "a_b"), ("star.c", "other")])
def test_a_file_includes_its_header_whatever_it_is_called(stem: str, name: str, tmp_path: Path) -> None:
    source, header = export_c(mlp, Y5[0], EVEN, of_mlp(), method=rv.EES25(), path=tmp_path / stem, name={"other": name}.get(name))
    assert header.name == stem.replace(".c", ".h") and f"void {name}_solve(" in header.read_text()
    compiled(source)


def test_functions_of_parameters_are_computed_once(tmp_path: Path) -> None:
    """The two transposed matrices that the way back reads, whichever of its programs and stages asks for them."""
    source, _ = export_c(mlp, Y37, EVEN, of_mlp(), method=rv.EES25(), path=tmp_path / "model.c")
    body = source.read_text().split("static void prepare_step(")[1].split("\n}")[0]
    assert body.count("= params[") == 2


MAIN = r"""
#include <stdio.h>
#include "star.h"
int main(void)
{
  static double params[PARAMS], a_params[PARAMS], ys[ROWS * 2], a_ys[ROWS * 2], work[STAR_WORK];
  double y0[2] = { 1.0, 0.0 }, a_y0[2];
  for (int i = 0; i < PARAMS; i++) if (scanf("%lf", &params[i]) != 1) return 1;
  for (int n = 0; n < 2 * ROWS; n++) a_ys[n] = 1.0 / (n + 1);
  star_gradient(y0, params, a_ys, ys, a_y0, a_params, work);
  printf("%.17g %.17g", a_y0[0], a_y0[1]);
  for (int i = 0; i < PARAMS; i++) printf(" %.17g", a_params[i]);
  return 0;
}
"""


DRIVEN = r"""
#include <stdlib.h>
#include "model.h"
static double *numbers(int n)
{
  double *x = malloc(sizeof(double) * (size_t)n);
  for (int i = 0; i < n; i++) x[i] = 0.1 + i % 3;
  return x;
}
int main(void)
{
  double *y0 = numbers(111), *params = numbers(36), *dW = numbers(20 * 111), *a_ys = numbers(21 * 111), *ys = numbers(21 * 111);
  double *a_y0 = numbers(111), *a_params = numbers(36), *work = numbers(MODEL_WORK);
  model_solve(y0, params, dW, ys, work);
  model_gradient(y0, params, dW, a_ys, ys, a_y0, a_params, work);
  free(y0), free(params), free(dW), free(a_ys), free(ys), free(a_y0), free(a_params), free(work);
  return 0;
}
"""


@pytest.mark.long
@needs_cc
def test_nothing_outside_the_arrays_is_touched(tmp_path: Path) -> None:
    """Three tiles, the last of them in part, under the sanitizers of addresses and of undefined behaviour."""
    export_c(mlp, Y37, EVEN, of_mlp(), method=rv.EES25(), diffusion=spread, noise=rv.Brownian(5), path=tmp_path / "model.c")
    (tmp_path / "main.c").write_text(DRIVEN)
    build = subprocess.run([str(CC), *STRICT, *SANITIZED, "-o", "main", "main.c", "model.c", "-lm"], cwd=tmp_path, capture_output=True,
                           text=True)
    if "cannot find" in build.stderr:
        pytest.skip("the sanitizers of this compiler are not installed")
    assert build.returncode == 0, build.stderr
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_cc
def test_a_c_program_trains_the_white_dwarf(tmp_path: Path) -> None:
    """The file as a C programmer meets it: a main that includes the header; against the native backend, to the last bit."""
    from revode.experiments import white_dwarf
    e = white_dwarf.experiment(steps=50)
    params, ts, y0 = e.start(0), np.linspace(0.0, 5.0, 51), np.array([1.0, 0.0])
    export_c(white_dwarf.network, y0, ts, params, method=e.method, path=tmp_path / "star.c")
    sizes = [f"-DPARAMS={flat(params, float).size}", f"-DROWS={len(ts)}"]
    (tmp_path / "main.c").write_text(MAIN)
    subprocess.run([str(CC), *STRICT, *sizes, "-o", "star", "main.c", "star.c", "-lm"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "star"], input=" ".join(map(repr, flat(params, float).tolist())), capture_output=True, text=True,
                          check=True)
    weights = 1.0 / np.arange(1.0, 103.0).reshape(51, 2)
    _, ay0, ap = strict(white_dwarf.network, y0, ts, params, (weights,), "native" if HERE else "replay", method=e.method)
    np.testing.assert_array_equal(np.array(done.stdout.split(), float), [*ay0, *ap])
    for name in ("star.c", "star.h"):
        lines = (tmp_path / name).read_text().splitlines()
        assert max(map(len, lines)) <= 100, name
        assert len(lines) < 600, name


class Carrying(rv.ReversibleHeun):
    def start(self, F: Any, step: Any, y: Any) -> dict:
        return {"y": y, "z": y + 0.0 * F.field(step.t0, y)}


@pytest.mark.parametrize(("how", "error", "says"), [
    ({"path": "star"}, ValueError, "the name of a C file"),
    ({"path": "2.c"}, ValueError, "no name of a function"),
    ({"path": "a.c", "method": Carrying()}, ValueError, "both starts with a value of the field and carries one"),
    ({"path": "a.c", "method": rv.RungeKutta("rk4")}, TypeError, "gradient=False"),
    ({"path": "a.c", "ts": [0.0]}, ValueError, "no step"),
    ({"path": "a.c", "save": []}, ValueError, "keeps nothing that the functions could return"),
])
def test_refusals(how: dict, error: type, says: str, tmp_path: Path) -> None:
    given = {"ts": EVEN, **how, "path": tmp_path / how["path"]}
    with pytest.raises(error, match=says):
        export_c(mlp, Y5[0], given.pop("ts"), of_mlp(), **given)
    assert not list(tmp_path.iterdir())


def test_a_row_of_parameters_for_every_trajectory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a row for every trajectory"):
        export_c(lambda t, y, p: -p * y, Y5, EVEN, np.ones((5, 1)), path=tmp_path / "a.c", method=rv.Coupled())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from revode.__main__ import main
    from revode.experiments import white_dwarf
    rv.save(tmp_path / "p.npz", white_dwarf.experiment(20).start(0))
    words = ["export", "white-dwarf", "--steps", "20", "--params", str(tmp_path / "p.npz"), "--output", str(tmp_path / "star.c")]
    assert main(words) == 0
    assert "static const double trained[62]" in (tmp_path / "star.c").read_text()
    assert main([*words, "--arguments", "--no-gradient"]) == 0
    assert "star_gradient" not in (tmp_path / "star.h").read_text()
    assert main(["export", "oscillator", *words[4:]]) == 2
    assert main(["export", "ou", *words[4:]]) == 2
    assert "with these options has" in capsys.readouterr().err

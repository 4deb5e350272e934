"""Generated kernels without a GPU: their text on the threads of the shim, bitwise what native code and NumPy's mirror compute.

The runner is that of the GPU (revode_cuda.fused) with NumPy for CuPy and the shim for the driver, so that plans, memory, tables and
arguments are what a GPU gets. Shared memory is poisoned before every block; every access is watched for races where said.
"""
from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from record_generated import PROGRAMS, TABLE, binaries

import revode as rv
from revode.compiled import elementary, generate
from revode_cuda import compile, fused, host
from revode_cuda import plan as planning
from revode_cuda.host.solves import CASES, THREADS, TS, OneByOne, gusts, net, pendulum, run, shallow, weights
from revode_cuda.plan import CannotBeFused, plan_of
from tests.nvrtc import needs_nvrtc

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from fake_array import FakeArray, put, unwrap_tree, wrap

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)

RNG = np.random.default_rng(0)
NATIVE: dict[str, tuple] = {}
THREAD = planning.REGIMES[0]
SMALL = [name for name in CASES if name != "wide"]


def same(found: tuple, name: str) -> None:
    if name not in NATIVE:
        NATIVE[name] = run(name)
    assert len(found) == len(NATIVE[name])
    for a, b in zip(found, NATIVE[name], strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.all(np.isfinite(b))


@pytest.mark.parametrize(("name", "dtype"), [("heun", np.float32), ("diagonal", np.float64), ("waves", np.float64)])
def test_padded_lanes_change_no_bit(name, dtype):
    """16 bytes behind 32 floats, or 16 doubles: no race, and nobody reads what lies there."""
    texts: list[str] = []
    found = run(name, fused.shim(races=True, edit=lambda text: texts.append(text) or text), dtype=dtype, regime="warp per tile",
                padded=True)
    assert all(f"#define STRIDE {36 if dtype is np.float32 else 18}\n" in text for text in texts) and len(texts) == 2
    for a, b in zip(found, run(name, dtype=dtype), strict=True):
        np.testing.assert_array_equal(a, b)


ROWS = """#define T 4
#define MEMORY 16
#define PERSISTENT 16
#define PARAMS 0
{tiles}
extern "C" KERNEL void run(double* G, real* D, double* out, real* S) {{
  rv_row<2> grid(G, true);
  rv_drive<12, 1> drive(D, true);
  for (int n = 0; n < 3; n++) {{
    const int then = n < 2 ? n + 1 : n;
    const double* row = grid.of(G + 2 * n, G + 2 * then);
    drive.put(S, D + 12 * n, D + 12 * then);
    SYNC;
    for (int i = TID; i < 12; i += NT) D[12 * then + i] = -1;
    SYNC;
    if (TID == 0) for (int k = 0; k < 2; k++) {{ out[2 * n + k] = row[k]; G[2 * then + k] = -1; }}
    for (int i = TID; i < 12; i += NT) out[6 + 12 * n + i] = S[i];
    SYNC;
  }}
}}
"""


@pytest.mark.parametrize(("ahead", "threads"), [(8, 4), (8, 1), (2, 4), (0, 4)])
def test_rows_are_read_a_step_ahead(ahead, threads):
    """Each row is written over once the step before it has begun: who reads it then is too late. A thread keeps so many numbers."""
    text = f"#define TILE_THREADS {threads}\n#define AHEAD {ahead}\n" + ROWS.format(tiles=generate.TILE_FUNCTIONS)
    G, D, out, S = np.arange(1.0, 7.0), np.arange(1.0, 37.0), np.zeros(42), np.zeros(16)
    host.launch(elementary.c_source([], np.float64) + "\n" + text, "run", 1, threads, (G, D, out, S), "random", 1, real="double")
    np.testing.assert_array_equal(out[:6], np.arange(1.0, 7.0) if ahead else [1, 2, -1, -1, -1, -1])
    in_time = (np.arange(12) < ahead * threads) | (np.arange(3) == 0)[:, None]
    np.testing.assert_array_equal(out[6:], np.where(in_time, np.arange(1.0, 37.0).reshape(3, 12), -1).ravel())


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("threads", [2, 32])
def test_without_prefetching_the_bits_are_the_same(name, threads):
    same(run(name, fused.shim(order="random", shuffle=3), prefetch=False, threads=threads), name)
    same(run(name, fused.shim(order="random", shuffle=3), threads=threads), name)


@pytest.mark.optimised
@pytest.mark.sample(2)
@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_solve_has_the_bits_of_native_code_and_no_race(name):
    same(run(name, fused.shim(races=True), regime="warp per tile"), name)


@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in THREADS for dtype in (np.float64, np.float32)
                                             if not CASES[name].only or dtype is CASES[name].dtype])
def test_a_thread_for_each_trajectory_has_the_bits_of_native_code(name, dtype):
    """Those of tiles of one trajectory, whose sums for the parameters meet in the tree alone; states do not depend on tiles."""
    texts: list[str] = []
    found = run(name, fused.shim(races=True, edit=lambda text: texts.append(text) or text), dtype=dtype, regime=THREAD)
    assert all(text.startswith("#define TILE_THREADS 32\n#define TILE_REGISTERS\n") for text in texts) and len(texts) > 1
    for a, b in zip(found, run(name, OneByOne(), dtype=dtype), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(found[:2], run(name, dtype=dtype), strict=False):
        np.testing.assert_array_equal(a, b)


def test_a_thread_for_each_trajectory_goes_through_stored_states_too():
    """Pulls, as of Direct and Checkpointed; fewer trajectories than threads, more than a block, and those of no block's length."""
    for rows, gradient in ((3, rv.Direct()), (70, rv.Checkpointed(2))):
        y0, p = RNG.normal(size=(rows, 3)), {"c": np.array([1.0, 0.5, 0.7])}

        def slopes(backend: Any, y0: Any = y0, p: Any = p, gradient: Any = gradient) -> list:
            def loss(y0: Any, p: Any) -> Any:
                return np.sum(rv.solve(gusts, y0, TS, p, method=rv.RungeKutta("rk4"), gradient=gradient, save=[2, -1], backend=backend
                                       ).ys ** 2)
            return rv.tree.flatten(rv.grad(loss, argnums=(0, 1))(y0, p))[0]

        modes: list[str] = []
        device = fused.shim(edit=lambda text: modes.append(text) or text)
        found = slopes(fused.Fusing("fused", False, True, True, None, device, (("regime", THREAD),)))
        assert any("const real* K" in text and "TILE_REGISTERS" in text for text in modes)
        for a, b in zip(found, slopes(OneByOne()), strict=True):
            np.testing.assert_array_equal(a, b)


def test_exact_mode_flushes_its_buffers_between_launches():
    """One bit a step: 32 bits leave after 52 steps; round trip without a wrong bit, and the bits of native code."""
    y0, ts, found = RNG.normal(size=(5, 2)), np.linspace(0.0, 1.0, 61), []
    params = weights(2, 4)
    for how in ({"backend": fused.Fusing("fused", False, True, True, None, fused.shim(), ())}, {"backend": "native"}):
        def loss(y0, params, how=how):
            sol = rv.solve(shallow, y0, ts, params, method=rv.AsynchronousLeapfrog(eta=0.75), exact=True, save=[20, 60], **how)
            found.append(sol)
            return np.sum(sol.ys ** 2)
        found.append(rv.grad(loss, argnums=(0, 1))(y0, params))
    assert found[0].stats.exact and found[0].stats.backend == "fused" and len(found[0].state.bits) == 1
    for a, b in zip(rv.tree.flatten(found[1])[0], rv.tree.flatten(found[3])[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_exact_mode_tells_what_has_left_its_lattice():
    """A state that is back at the end, and an increment of 10 of a state that stays below 32: as native code says it."""
    kicked = rv.shears(lambda t0, t1, dx: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, dx)),
                                           rv.Shear("z", ("y",), lambda F, y: F(t1, y, dx))])
    round_trip = np.linspace(0, 2 * np.pi, 201)
    cases = ((rv.Coupled("midpoint", lam=0.99), lambda t, y, p: 4 * np.cos(t) * y, round_trip, "an entry .* step 200"),
             (kicked, lambda t, y, p: 200 * np.cos(20 * np.pi * t) + 0 * y, np.linspace(0, 1, 21), "an increment of 10 in"))
    for method, field, ts, said in cases:
        for backend in (fused.Fusing("fused", False, True, True, None, fused.shim(), ()), "native"):
            with pytest.raises(OverflowError, match=said):
                rv.solve(field, np.ones((5, 2)), ts, method=method, exact=rv.Lattice(48), save=[-1], backend=backend)


@pytest.mark.sample(1)
@pytest.mark.parametrize("order", host.ORDERS)
def test_any_number_of_threads_in_any_order(order):
    threads = {"ascending": 1, "descending": 128, "random": 32}[order]
    same(run("coupled", fused.shim(order=order, shuffle=3), threads=threads), "coupled")


@pytest.mark.sample(1)
@pytest.mark.parametrize("given", [{"state": "global"}, {"params": "global"}, {"state": "global", "params": "global"}], ids=str)
def test_memory_may_be_anywhere(given):
    same(run("heun", fused.shim(order="descending"), threads=96, **given), "heun")


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", SMALL)
def test_and_those_of_the_mirror(name):
    same(run(name, "replay"), name)


def test_blocks_of_outputs_are_as_wide_as_the_threads_allow():
    """With few threads a product has blocks of 4 x 4: other code, the same bits. Sums over lanes too: T is kept."""
    for threads in (8, 16):
        same(run("heun", fused.shim(order="random"), threads=threads), "heun")


# ------------------------------------------------------------------ arrays of another device

def pretended() -> fused.Device:
    """The shim behind arrays with CuPy's refusals: a number of the host that slips into them is an error."""
    def there(function: Any) -> Any:
        return lambda *args, **more: wrap(function(*unwrap_tree(args), **more))

    def asarray(x: Any, dtype: Any = None) -> Any:
        if isinstance(x, FakeArray):
            return x if dtype in (None, x.dtype) else x.astype(dtype)
        return FakeArray(np.array(x, dtype))

    def function(text: str, shared: int, real: str, mode: str) -> Any:
        launch = fused.shim().function(text, shared, real, mode)
        return lambda grid, block, args: launch(grid, block, tuple(getattr(x, "_host", x) for x in args))

    xp = SimpleNamespace(asarray=asarray, **{name: there(getattr(np, name)) for name in (
        "zeros", "empty", "concatenate", "broadcast_to", "ascontiguousarray", "array")})
    return fused.Device("pretended", xp, "sm_90", function, None)


@pytest.mark.parametrize("home", ["host", "device"])
@pytest.mark.parametrize("name", ["heun", "control"])
def test_arrays_stay_where_they_are(name, home):
    f, d, rows, params, method, options, dtype, _ = CASES[name]
    y0 = np.random.default_rng(1).normal(size=(rows, d)).astype(dtype)
    params = {key: x.astype(dtype) for key, x in params.items()}
    if home == "device":
        y0, params = rv.tree.map(put, (y0, params))
    backend: Any = fused.Fusing("fused", False, True, True, None, pretended(), ())

    def loss(y0: Any, params: Any) -> Any:
        sol = rv.solve(f, y0, TS, params, method=method, save=[0, 2, 5], **options, backend=backend)
        return sum(np.sum(y**2) for y in rv.tree.flatten(sol.ys)[0]), sol.ys

    (value, ys), grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(y0, params)
    found = rv.tree.flatten((ys.value if hasattr(ys, "value") else ys, grads))[0]
    assert {type(x) for x in found} == {np.ndarray if home == "host" else FakeArray}
    same((value.get() if home == "device" else value, *(x.get() if home == "device" else x for x in found)), name)


def test_what_reaches_the_driver(monkeypatch):
    """With a stand-in for CuPy, as there is no GPU: the binary is loaded once a device, shared memory and triples are passed on."""
    seen: list[tuple] = []
    current = SimpleNamespace(id=0, compute_capability="90")
    kernel = lambda grid, block, args, shared_mem: seen.append(("launch", current.id, grid, block, args, shared_mem))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(is_available=lambda: True, cuda=SimpleNamespace(Device=lambda: current)))
    monkeypatch.setattr(compile, "function", lambda *how: seen.append(("load", current.id, *how)) or kernel)
    fused.gpu.cache_clear()
    device = fused.gpu()
    fused.gpu.cache_clear()
    assert (device.arch, device.null) == ("sm_90", 0)
    function = device.function("text", 70_000, "float", "fast")
    for current.id in (0, 0, 1):
        function(12, 64, ("args",))
    load, launch = ("text", "run", "float", "fast", 70_000), ((12, 1, 1), (64, 1, 1), ("args",), 70_000)
    assert seen == [("load", 0, *load), ("launch", 0, *launch), ("launch", 0, *launch), ("load", 1, *load), ("launch", 1, *launch)]


# ------------------------------------------------------------------ barriers

def barriers(text: str) -> list[tuple[int, str, str]]:
    """Of every barrier of a function: its place, the kinds of loops before it, and what comes after it."""
    found, where, kind, at = [], "", "", 0
    for line in text.splitlines(keepends=True):
        inside = re.match(r"(?:STEP void|extern \"C\" KERNEL void) (\w+)", line)
        where = inside[1] if inside else where
        if where:
            call = re.search(r"rv_(linear|outer|rows|brownian_tile)\b|// op: ([\w, ]+)|\b(saved)[-+]{2}", line)
            if call:
                says = {"matmul": "contract", "sum": "reduce", "concatenate": "gather", "copy": "copy"}
                kind = call[1] or call[3] or " ".join(dict.fromkeys(says.get(op, "map") for op in call[2].split(", ")))
            for m in re.finditer(r"\bSYNC;", line):
                after = next(rest for rest in text[at + m.end():].splitlines() if rest.strip() and "// op" not in rest)
                found.append((at + m.start(), kind, after.strip()))
        at += len(line)
    return found


# The generator looks at whole buffers, and at any number of threads. So it keeps barriers that this number of threads could do
# without, because each thread reads and overwrites only what it made itself. Which, and why:
REDUNDANT = {
    "brownian_tile": "the first loop of the step reads a number in the thread that has drawn it",
    "saved": "a saved value is read by the thread that wrote it",
    "rows ONCE": "the next loop goes over the same few sums, one for each thread",
    "copy": "what is carried is copied element by element, and the next loop reads it so",
}


@pytest.mark.sample(3, cover=False)
@pytest.mark.parametrize(("name", "kind", "after"), [
    ("mixed", "map", ""), ("mixed", "reduce", ""), ("mixed", "gather", ""), ("mixed", "contract", ""), ("mixed", "linear", ""),
    ("heun", "rows", "rv_linear"), ("diagonal", "brownian_tile", ""), ("diagonal", "saved", ""), ("coupled", "rows", "ONCE")])
def test_a_barrier_that_is_deleted_is_a_race(name, kind, after):
    """One barrier behind each kind of loop. Where its deletion is no race, the bits are the same, and the reason is known."""
    seen: list[str] = []

    def edit(text: str) -> str:
        for at, before, then in barriers(text):
            if kind in before.split() and not seen and after in then:
                seen.append(text)
                return text[:at] + text[at + len("SYNC;"):]
        return text

    redundant = REDUNDANT.keys() & {kind, f"{kind} {after}"}
    try:
        found = run(name, fused.shim(races=True, edit=edit), threads=64)
    except host.KernelError as error:
        assert re.search("of shared memory.*: a race$", str(error))
        assert not redundant
    else:
        assert redundant
        same(found, name)
    assert seen


def test_the_barrier_behind_the_copy_to_shared_memory():
    def edit(text: str) -> str:
        assert text.count("TILE_PARAMS SYNC") == 1
        return text.replace("TILE_PARAMS SYNC", "TILE_PARAMS")

    with pytest.raises(host.KernelError, match=r"of shared memory, which thread .* since the kernel began: a race"):
        run("coupled", fused.shim(races=True, edit=edit), threads=64)


def test_there_are_no_barriers_between_loops_that_do_not_meet():
    """The sums for several parameters stand in a row, and need one barrier."""
    texts = []
    run("coupled", fused.shim(edit=lambda text: texts.append(text) or text))
    step = texts[1].split("void step_step(")[1].split("\n}\n")[0]
    loops = len(re.findall("// op:", step))
    assert re.search(r"rv_outer[^\n]*\n  // op: matmul\n  rv_outer", step)
    assert step.count("SYNC;") <= 0.75 * loops


# ------------------------------------------------------------------ NVRTC

RECORDED = json.loads(Path(TABLE).read_text(encoding="utf-8"))
SLACK = 16          # registers more than recorded that are let through: the programs change a little with the generator


@pytest.mark.sample(6, cover=False)
@needs_nvrtc
@pytest.mark.parametrize(("name", "arch"), [(name, arch) for name in PROGRAMS for arch in PROGRAMS[name][-1]])
def test_compiles_for_every_architecture(name, arch):
    """Strict programs pass the lint inside compile; nothing spills; registers are those of the table."""
    for direction, binary in binaries(name, arch).items():
        took = binary.resources["run"]
        recorded = RECORDED["programs"][name][arch][direction]
        assert took.spills == took.stack == recorded[1] == 0
        unknown = re.findall(r"\b(?:ld|st)(?:\.v\d)?\.[fub]\d", binary.ptx)        # the compiler has not seen of which memory
        assert len(unknown) <= 1                                                     # a total, which is null elsewhere
        assert f".target {arch}" in binary.ptx and ("strict" not in name or not compile.lint(binary.ptx))
        assert took.registers <= recorded[0] + SLACK, "when that is meant, run tests/kernels/record_generated.py"


# ------------------------------------------------------------------ plans

def plans(w: int, rows: int = 99, arch: str = "sm_90", dtype: Any = np.float32, arithmetic: str = "strict", **more: Any) -> Any:
    p = {key: x.astype(dtype) for key, x in weights(2, w).items()}
    return plan_of(net, np.ones((rows, 2), dtype), TS, p, arch=arch, arithmetic=arithmetic, method=rv.Coupled(), **more)


def test_plans_go_with_the_width():
    small, middle = plans(10, 4096, arithmetic="fast"), plans(64, 4096, arithmetic="fast")
    assert small.forward.regime == "warp per tile" and small.forward.threads == small.forward.T == 32
    assert middle.backward.regime == "block per tile" and middle.backward.threads == 256
    assert (middle.backward.state, middle.backward.params) == ("shared", "shared")
    with pytest.raises(CannotBeFused, match=r"a matrix of width 256 \(more than 128\) is better left to cuBLAS; use"):
        plans(256)
    assert plans(256, plan={"regime": "block per tile", "T": 4}).forward.regime == "block per tile"
    wish = plans(10, 4096, arithmetic="fast", plan={"graph": False})             # which is no matter of layout
    assert wish == small


@pytest.mark.sample(7)
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_89", "sm_90", "sm_100", "sm_120", "sm_999"])
@pytest.mark.parametrize("w", [10, 32, 64, 128])
def test_plans_keep_to_the_budget(w, arch):
    for dtype in (np.float32, np.float64):
        for plan in plans(w, 99, arch, dtype, arithmetic="strict"):
            assert plan is not None and plan.shared <= plan.budget == planning.budget(arch)
            assert plan.tiles * plan.T >= 99 > (plan.tiles - 1) * plan.T


def test_a_field_without_wide_matrices_has_a_thread_for_each_trajectory():
    """In strict arithmetic only where no sums over trajectories depend on it, or where it is asked for."""
    p = {"k": np.ones(1), "c": np.ones(1)}
    how = {"arch": "sm_75", "method": rv.ReversibleHeun()}
    fast, strict, asked, blocks = (plan_of(pendulum, np.ones((70, 1)), TS, p, **how, **more) for more in (
        {}, {"arithmetic": "strict"}, {"arithmetic": "strict", "plan": {"regime": THREAD, "threads": 64}}, {"plan": {"T": 4}}))
    for plan in (*fast, strict.forward, *asked):
        assert (plan.regime, plan.T, plan.tiles, plan.state, plan.params, plan.shared) == (THREAD, 1, 70, "registers", "global", 0)
        assert plan.counts.barriers == plan.counts.wavefronts == 0
    assert (fast.forward.blocks, asked.forward.blocks, asked.forward.threads) == (3, 2, 64)
    assert strict.backward.regime == blocks.forward.regime == "warp per tile" and blocks.forward.blocks == blocks.forward.tiles == 18
    assert str(fast.forward).splitlines()[:3] == [
        "forward on sm_75: thread per trajectory, 70 trajectories, 3 blocks of 32 threads",
        "    values of a thread: 48 bytes in registers; params: 16 bytes in global memory",
        "    because the field has no matrix wider than 16, and a step fits into a thread"]
    assert plan_of(pendulum, np.ones((1, 1)), TS, p, **how).forward.regime == "warp per tile"          # it has features alone
    with pytest.raises(ValueError, match=r"plan: T=4; a thread per trajectory has T=1$"):
        plans(10, plan={"regime": THREAD, "T": 4})


def test_what_does_not_fit_gives_way_in_order():
    """Trajectories first, as long as there are some; then the weights; then the state."""
    big, turing = plans(128), plans(128, arch="sm_75")
    assert big.backward.T < 32 and "do not fit" in big.backward.reason and big.backward.params == "global"
    assert big.forward.T == 32 and (big.forward.state, big.forward.params) == ("shared", "shared")
    assert turing.backward.state == "global" and "more than a block may have" in turing.backward.reason
    assert planning.budget("sm_90a") == 227 * 1024 and planning.budget("sm_999") == 48 * 1024


def test_strict_tiles_are_those_of_the_host_and_fast_ones_fill_the_gpu():
    assert plans(32, 256).forward.T == 32
    fast = plans(32, 256, arithmetic="fast").forward
    assert fast.T == 2 and fast.tiles == 128               # FEWEST, in as many blocks as that makes
    assert plans(32, 1).forward.T == plans(32, 1, plan={"T": 8}).backward.T == 1


def test_a_plan_can_be_changed_and_is_checked():
    plan = plans(32, plan={"T": 8, "threads": 64, "params": "global"}).backward
    assert (plan.T, plan.threads, plan.params, plan.tiles) == (8, 64, "global", 13)
    again = plans(32, plan=plan).backward
    assert again == plan
    with pytest.raises(ValueError, match=r"the backward sweep with T=32, state='shared' asks for \d+ bytes of shared memory"):
        plans(128, plan={"T": 32, "state": "shared"})
    assert plans(128, plan={"T": 32}).backward.state == "global"
    assert plans(128, plan={"T": np.int64(4)}) == plans(128, plan={"T": 4})
    for how, said in (({"plan": "fast"}, "plan: 'fast'; a Plan, or a dict"), ({"arch": "hopper"}, "arch='hopper'; one such as"),
                      ({"arch": None}, "arch=None; one"), ({"arithmetic": "quick"}, "arithmetic='quick'; 'fast' or")):
        with pytest.raises((TypeError, ValueError), match=said):
            plan_of(net, np.ones((8, 2)), TS, weights(2, 4), **{"arch": "sm_90", **how})
    for bad, said in (({"tiles": 3}, "'tiles' cannot be chosen"), ({"T": 0}, "T=0; a whole number"), ({"T": True}, "T=True; a whole"),
                      ({"padded": 1}, "padded=1; True or False"), ({"prefetch": 0}, "prefetch=0; True or False"),
                      ({"state": "here"}, "state='here'; 'registers' or 'shared' or 'global'"),
                      ({"regime": "fast"}, "regime='fast'; one of")):
        with pytest.raises(ValueError, match=said):
            plans(10, plan=bad)


def test_a_plan_reads_well():
    text = str(plans(32))
    assert text.splitlines() == [
        "forward on sm_90: block per tile, 4 tiles of 32 trajectories, 128 threads",
        "    shared memory: 14336 bytes of 232448 (state 9472, params 4864)",
        "    because the widest matrix has 32 rows or columns", *text.splitlines()[3:]]
    assert text.splitlines()[3].startswith("    a step of a tile: ")
    assert text.splitlines()[4].startswith("    estimated, never measured: ")
    assert text.splitlines()[5].startswith("backward on sm_90: block per tile, 4 tiles of 32")


# ------------------------------------------------------------------ what cannot be fused

def test_what_stands_in_the_way_is_said():
    def mean(t, y, p):
        return y - np.mean(y, axis=0)

    p = weights(2, 4)

    def solve(f: Any = net, auto: bool = False, gradient: Any = None, y0: Any = np.ones((3, 2))) -> Any:      # noqa: B008
        backend: Any = fused.Fusing("fused", auto, True, True, None, fused.shim(), ())
        return rv.value_and_grad(lambda y: np.sum(rv.solve(f, y, TS, p, backend=backend, gradient=gradient).y1))(y0)

    with pytest.raises(CannotBeFused, match=r"solve: this solve cannot be fused: .*sum"):
        solve(f=mean)
    with pytest.raises(CannotBeFused, match="a derivative of a derivative records every operation on a tape; take first derivatives"):
        rv.grad(lambda y: np.sum(solve(gradient=rv.Direct(), y0=y)[1] ** 2))(np.ones((3, 2)))
    (value, fused_slope), (again, slope) = (solve(gradient=rv.Direct(), auto=auto) for auto in (False, True))
    np.testing.assert_allclose(fused_slope, slope, rtol=1e-12)         # rounding of some 20 steps
    assert value == pytest.approx(again, rel=1e-12)


def test_adaptive_solves_are_fused():
    rng = np.random.default_rng(0)
    y0, p = rng.normal(size=(9, 2)), weights(2, 6)

    def slopes(backend: Any) -> list:
        def loss(y0: Any, p: Any) -> Any:
            return np.sum(rv.solve(net, y0, (0.0, 1.0), p, controller=rv.PID(1e-4, 1e-4), backend=backend,
                                   gradient=rv.Reversible(), arithmetic="strict").ys ** 2)
        return rv.tree.flatten(rv.grad(loss, argnums=(0, 1))(y0, p))[0]

    launches: list = []
    device = fused.shim(edit=lambda text: launches.append(1) or text)
    for a, b in zip(slopes(fused.Fusing("fused", False, True, True, None, device, ())), slopes("native"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert launches == [1] * 3                              # an attempt, the controller, and the way back

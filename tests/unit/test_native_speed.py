"""What makes native code fast, quick to compile and easy to stop; by what is in its text and assembly, never by a clock alone.

Vectors as wide as the processor's and kept in its registers, elementary functions apart where there are many, calls that end soon.
"""
from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import revode as rv
from revode.compiled import elementary, generate, mirror, native, order, tiles
from revode.engine.primitives import CONSTANT, RULES
from revode.nn import ERF
from tests.compiler import needs_compiler
from tests.strict_cases import assert_same_bits, compare, layers, network, results, start, tiles_of

pytestmark = needs_compiler
x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="assembly and flags of x86-64")
HERE = ("-march=native",)
LEVELS = {"here": HERE, "AVX-512": ("-march=x86-64-v4",), "AVX2": ("-march=x86-64-v3",),
          "AVX2 of AMD": ("-march=x86-64-v3", "-mtune=znver3"), "AVX": ("-march=x86-64", "-mavx"), "SSE2": ("-march=x86-64",)}

# Vectors ----------------------------------------------------------------------------------------------------------------
# Outer products in pairs of vectors, at any width of these: a vector that is left over is read along with each of its products.
CALLS = {"linear": "rv_linear<1, 64, 48>(out, x, w)", "outer": "rv_outer<64, 64>(out, x, w, out, n)"}
LANE = r"v?(insert|extract|pinsr|pextr|movh|movlp|movhlp|movlhp|perm|blend)"          # what puts vectors together, or takes them apart
STACK = r"%[xyz]mm.*\(%r[sb]p|\(%r[sb]p.*%[xyz]mm"


def inner_loops(what, dtype, T, target, strict, text=None):
    """The stretches of assembly without a label inside in which vectors are multiplied, as lists of instructions."""
    sizes = "".join(f"#define {name} {n}\n" for name, n in {"T": T, "MEMORY": 1, "PERSISTENT": 1, "PARAMS": 1}.items())
    source = (elementary.c_source([], dtype) + sizes + (text or generate.TILE_FUNCTIONS)
              + f'extern "C" void run(real* out, const real* x, const real* w, int n) {{ {CALLS[what]}; }}\n')
    done = subprocess.run([native.compiler().path, *native.FLAGS, *target, native.STRICT if strict else native.FAST, "-S", "-o", "-",
                           "-x", "c++", "-"], input=source, capture_output=True, text=True, check=True)
    blocks = [re.findall(r"^\t([a-z].*)$", block, re.M) for block in re.split(r"\n\.L\w+:", done.stdout)]
    return [block for block in blocks if any(re.match(r"v?(mul|fmadd\d+)p", line) for line in block)]


def register(target):
    macros = subprocess.run([native.compiler().path, *target, "-dM", "-E", "-x", "c++", "-"], input="", capture_output=True,
                            text=True, check=True).stdout
    return "%zmm" if "__AVX512F__" in macros else "%ymm" if "__AVX__" in macros else "%xmm"


@pytest.mark.optimised
@pytest.mark.sample(4)
@x86
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("what", CALLS)
def test_products_stay_in_whole_registers(what, level, strict):
    """Eight products or more in a row, each of a whole register; none is put together lane by lane or lies on the stack. There are
    fewer reads than products: a processor does two of each at a time."""
    target = LEVELS[level]
    for dtype, T in ((np.float64, 16), (np.float32, 32)):
        found = inner_loops(what, dtype, T, target, strict)
        assert found
        for block in found:
            products = [line for line in block if re.match(r"v?(mul|fmadd\d+)p", line)]
            assert len(products) >= 8 and all(register(target) in line for line in products)
            assert not [line for line in block if re.match(LANE, line)]
            if "clang" in native.compiler().version_text:                                  # it may read what is turned where it lies
                continue
            assert not [line for line in block if re.search(STACK, line)]
            if any(re.match(r"v?(add|fmadd\d+)p", line) for line in block):                # not the first of many terms
                assert len([line for line in block if re.match(r"[^(]*\(.*\).*%[xyz]mm", line)]) < len(products)


@pytest.mark.optimised
@x86
def test_and_that_would_be_seen():
    """Vectors of 64 bytes on a processor that has 32: the products go through the stack."""
    if "clang" in native.compiler().version_text:
        pytest.skip("clang may read from the stack in any case")
    wide = generate.TILE_FUNCTIONS.replace("#define VECTOR 32", "#define VECTOR 64").replace("#define SUMS 8", "#define SUMS 16")
    wide = re.sub(r"(#define HELD\(x\)).*", r"\1", wide)
    found = inner_loops("linear", np.float64, 16, LEVELS["AVX2"], True, wide)
    assert any(re.search(STACK, line) for block in found for line in block)


@pytest.mark.optimised
@pytest.mark.sample(2, cover=False)
@x86
@pytest.mark.parametrize("level", ["AVX2", "SSE2"])
@pytest.mark.parametrize("rows", [1, 3, 21])
def test_narrower_vectors_have_the_same_bits(level, rows, monkeypatch):
    """One trajectory, less than a vector of them, a ragged last tile; 17 and 11 features leave rests of blocks."""
    found = native.compiler()
    monkeypatch.setattr(native, "compiler", lambda: found._replace(target=LEVELS[level]))
    for dtype in (np.float64, np.float32):
        rng = np.random.default_rng(rows)
        params = network(11, 17, 2, dtype, rng)
        compare(layers, start(rv.ReversibleHeun(), (rows,), 11, dtype, rng), params, rv.ReversibleHeun(), eager=False)


# One function for what is alike ------------------------------------------------------------------------------------------
@pytest.mark.optimised
@pytest.mark.parametrize("of", ["linear", "outer"])
def test_products_of_all_sizes_are_compiled_once(of, monkeypatch):
    """Of sizes that leave no rest of a block: a function for each costs the compiler .1 s."""
    calls = {"linear": "rv_linear<1, {}, {}>(out, x, w);", "outer": "rv_outer<{}, {}>(out, x, w, out, n);"}[of]
    sizes = "".join(f"#define {name} {n}\n" for name, n in {"T": 16, "MEMORY": 1, "PERSISTENT": 1, "PARAMS": 1}.items())
    source = (elementary.c_source([], np.float64) + sizes + generate.TILE_FUNCTIONS + 'extern "C" void run(real* out, const real* x, '
              f"const real* w, int n) {{ {' '.join(calls.format(*size) for size in ((64, 32), (16, 64), (512, 512), (32, 16)))} }}\n")
    found = native.compiler()
    quick = () if "clang" in found.version_text else native.QUICK
    done = subprocess.run([found.path, *native.FLAGS, *quick, *found.target, "-S", "-o", "-", "-x", "c++", "-"], input=source,
                          capture_output=True, text=True, check=True)
    assert len(re.findall(r"^_?_Z\w*rv_(?:linear_sized|outer_panel)[\w.]*:", done.stdout, re.M)) == 1


def test_loops_that_differ_in_where_values_lie_are_compiled_once():
    """A step of Coupled midpoint evaluates its field several times; of one trajectory calls would cost more than they save."""
    rng = np.random.default_rng(2)
    method, params = rv.Coupled("midpoint"), network(3, 7, 2, np.float64, rng)
    for source in sources(layers, start(method, (5,), 3, np.float64, rng), params, method):
        assert len(re.findall("= rv_tanh", source.text)) >= 4 and len(re.findall("= rv_tanh", source.host)) == 1
        says = "// op: add, tanh\n"                                            # beside the function too, for what a compiler says
        assert source.host.count(says) == source.text.count(says) + 1
    for source in sources(layers, start(method, (), 3, np.float64, rng), params, method):
        assert source.host == source.text


# Many operations --------------------------------------------------------------------------------------------------------
def many(t, y, p):
    """64 elementary functions; of arguments that lie in memory, are numbers, parameters, other features, functions of the time."""
    total = 0.1 * y
    for k in range(10):
        total = total + 0.01 * (np.sin(p["a"] * y + 0.1 * k) + np.tanh(y[..., ::-1] * (k + 1)) + np.exp(-y * y) + np.arctan2(y, p["a"])
                                + np.hypot(0.1 * k + t, y) + np.cos(p["a"][k % 3]))
    return total + 0.1 * np.power(1 + y * y, p["a"]) + 0.01 * np.logaddexp(y, 0.0) + 0.1 * np.arctan(np.sum(y, -1, keepdims=True))


@pytest.mark.sample(1)
@pytest.mark.parametrize("rows", [None, 1, 5])
def test_many_elementary_functions_have_the_bits_of_the_mirror(rows):
    rng = np.random.default_rng(0)
    for dtype in (np.float64, np.float32):
        y0 = (0.5 * rng.standard_normal((3,) if rows is None else (rows, 3))).astype(dtype)
        compare(many, y0, {"a": np.array([0.3, 0.5, 0.7], dtype)}, rv.ReversibleHeun(), T=4 if rows == 5 else None)


def sources(field, y0, params, method):
    """The texts of both directions."""
    found = []

    class Watching(mirror.Mirror):
        def __init__(self, source):
            super().__init__(source)
            found.append(source)

    with pytest.MonkeyPatch.context() as patch, tiles_of(None):
        patch.setattr(mirror, "Mirror", Watching)
        results(field, y0, params, method, "replay")
    return found


@pytest.mark.long
def test_a_loop_has_a_few_elementary_functions_and_a_function_a_bounded_number_of_loops():
    """The time of a compiler grows faster than the length of a loop with such functions, and than that of a function."""
    def sines(count):
        return lambda t, y, p: sum(np.sin((0.3 + 0.01 * k) * p["a"] * y + 0.1 * k) for k in range(count)) / count

    y0, params = np.full((5, 3), 0.3), {"a": np.array([0.3, 0.5, 0.7])}
    forward, _ = sources(sines(10), y0, params, rv.ReversibleHeun())
    loops = forward.text.split("EACH(")[1:]
    assert max(len(re.findall(r"= rv_sin\(", loop)) for loop in loops) == order.INLINE
    for source in sources(sines(60), y0, params, rv.Coupled("midpoint")):
        assert not re.findall(r"= rv_(?:sin|cos)\(", source.text)              # each is compiled once, and called
        assert source.text.count("STRETCH1(rv_sin)") == 1
        bodies = re.findall(r"STEP void step_\w+\(.*?\n\}", source.text, re.S)
        assert len(bodies) > 3 and max(body.count("// op:") for body in bodies) <= generate.PART + 1


def test_what_one_later_loop_alone_reads_is_computed_there(monkeypatch):
    """The derivative of tanh, 1 - a a, next to the product with it, and not in memory until then: less memory, the same bits."""
    rng = np.random.default_rng(2)
    y0, params = start(rv.Coupled("midpoint"), (5,), 3, np.float64, rng), network(3, 7, 2, np.float64, rng)
    backward = sources(layers, y0, params, rv.Coupled("midpoint"))[1]
    assert "// op: add, tanh\n" in backward.text and "tanh, multiply" not in backward.text
    monkeypatch.setattr(generate, "late", lambda groups, outputs: groups)
    early = sources(layers, y0, params, rv.Coupled("midpoint"))[1]
    assert "tanh, multiply" in early.text and backward.size < early.size
    monkeypatch.undo()
    compare(layers, y0, params, rv.Coupled("midpoint"), T=2)


@pytest.mark.long
def test_a_step_in_several_functions_has_the_bits_of_one(monkeypatch):
    rng = np.random.default_rng(1)
    y0, params = start(rv.Coupled("midpoint"), (5,), 3, np.float64, rng), {"a": np.array([0.3, 0.5, 0.7])}
    monkeypatch.setattr(generate, "PART", 3)
    monkeypatch.setattr(order, "TOGETHER", 4)
    monkeypatch.setattr(order, "AHEAD", 9)
    compare(many, y0, params, rv.Coupled("midpoint"), T=4)


# Every operation that has a form in C -----------------------------------------------------------------------------------
ROWS = {op.name: (function, op) for function, op in (*RULES.items(), *CONSTANT.items(), (None, ERF)) if op.c is not None}


def alone(name, function):
    """A field of this operation and what brings its arguments to where it is defined; t and p have a part in it."""
    if name == "erf":
        return lambda t, y, p: 0.3 * rv.nn.erf(p * y + t)
    if name == "astype":
        return lambda t, y, p: p * y * (y > t).astype(y.dtype)
    if name == "negative":                             # elsewhere it becomes the sign of a factor
        return lambda t, y, p: np.exp(-y) * p
    if name == "where":
        return lambda t, y, p: 0.3 * np.where(y > p, y * p, y * y - t)
    inside = (np.tanh if name in ("arcsin", "arccos", "arctanh") else lambda x: 1.5 + x * x if name in (
        "arccosh", "reciprocal", "sqrt", "cbrt", "log", "log2", "log10", "power", "divide", "remainder", "floor_divide") else x)
    if isinstance(function, np.ufunc) and function.nin == 2:
        return lambda t, y, p: 0.2 * function(inside(p * y), inside(p + 0.3 * y + t)) * 1.0 + 0.1 * y
    return lambda t, y, p: 0.2 * function(inside(p * y + t)) * 1.0 + 0.1 * y


def side_by_side(names):
    """A field of several of them, each with two features of its own: a compiler starts once for all."""
    fields = [alone(name, ROWS[name][0]) for name in names]
    return lambda t, y, p: np.concatenate([f(t, y[..., 2 * i:2 * i + 2], p) for i, f in enumerate(fields)], -1)


@pytest.mark.sample(2, cover=False)
@pytest.mark.parametrize("names", [tuple(ROWS)[i:i + 7] for i in range(0, len(ROWS), 7)], ids="-".join)
def test_every_row_with_a_form_in_c_gets_there(names):
    """Native and mirror in bits, the tape and replay up to rounding; the text calls it, forward and back."""
    rng = np.random.default_rng(0)
    y0, p = np.tile(0.4 * rng.standard_normal((3, 2)), len(names)), np.array([0.6, 0.8])
    field = side_by_side(names)
    found = compare(field, y0, p, rv.ReversibleHeun(), T=2)
    with tiles_of(2):
        replayed = results(field, y0, p, rv.ReversibleHeun(), "replay", arithmetic="fast")
    for key in ("y1[0]", "y0[0]", "params[0]"):            # as from the tape (strict_cases.TOLERANCE): 12 steps, 6000 roundings
        largest = np.maximum(1e-3, np.abs(found[key]).max(axis=0))
        assert np.all(np.abs(replayed[key] - found[key]) <= 1e-11 * largest), (key, replayed[key] - found[key])
    for source in sources(field, y0, p, rv.ReversibleHeun()):
        assert set(names) <= {loop.op.name for x in source.lowered.values() for loop in x.loops if loop.op is not None}


# Stopping ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sizes", [(2, 10, 1), (16, 64, 40), (64, 128, 40)], ids=str)
def test_a_call_is_short(sizes):
    """No tile is at work for longer than WORK operations, or for one step."""
    d, width, rows = sizes
    rng = np.random.default_rng(0)
    y0, params = 0.1 * rng.standard_normal((rows, d)), network(d, width, 2, np.float64, rng)
    made = []
    init = tiles.Tiles.__init__
    with tiles_of(None), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles.Tiles, "__init__", lambda self, *a, **k: (init(self, *a, **k), made.append(self))[0])
        rv.grad(lambda p: np.sum(rv.solve(layers, y0, np.linspace(0, 0.1, 3), p, method=rv.Coupled("midpoint"), save=[-1],
                                          backend="replay", arithmetic="strict").y1))(params)
    assert len(made) == 2
    for runner in made:
        products = sum(loop.out.F * loop.shape[1] for loop in runner.source.lowered["step"].loops if loop.kind == "linear") * runner.T
        assert runner.work() >= 2 * products
        assert runner.chunk == 1 or runner.chunk * runner.work() <= tiles.WORK


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_reaches_a_solve(threads):
    """A solve of some minutes ends soon after the signal. By itself within .3 s: a call is .2 s long at most. Of 120 signals on a
    machine with eight busy processes a core (python -m reference.interrupts) the slowest took .34 s; here that four times."""
    code = textwrap.dedent(f"""
        import signal, time
        import numpy as np
        import revode as rv
        from tests.strict_cases import layers, network
        signal.signal(signal.SIGINT, signal.default_int_handler)       # who starts the tests may have it ignored
        rng = np.random.default_rng(0)
        y0, params = 0.1 * rng.standard_normal((64, 16)), network(16, 64, 2, np.float64, rng)
        def solve(N):
            rv.solve(layers, y0, np.linspace(0.0, 1.0, N + 1), params, method=rv.Coupled("midpoint"), save=[-1], backend="native",
                     threads={threads})
        solve(10)
        try:
            print("ready", flush=True)
            solve(2_000_000)
            print("done")
        except KeyboardInterrupt:
            print(time.monotonic())
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(1.0)                              # into the solve
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=120)
    assert said.strip() != "done" and float(said) - sent < 1.4


def test_interrupted_solves_leave_nothing_behind():
    """After a KeyboardInterrupt in the middle of a sweep the next solve has the bits of the first."""
    rng = np.random.default_rng(0)
    y0, params = start(rv.ReversibleHeun(), (5,), 3, np.float64, rng), network(3, 4, 1, np.float64, rng)
    with tiles_of(2):
        wanted = results(layers, y0, params, rv.ReversibleHeun(), "native")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            def interrupted(*rest):
                raise KeyboardInterrupt

            patch.setattr(tiles, "run_tiles", interrupted)
            results(layers, y0, params, rv.ReversibleHeun(), "native")
        assert_same_bits(results(layers, y0, params, rv.ReversibleHeun(), "native"), wanted)

"""Programs: what is traced is what runs, and simplifying changes no bit.

The oracle is the tape itself: a program that was traced at one point is evaluated at another one, where rv.vjp on plain
arrays says what is right. Everything is compared in bits unless a bound is derived.
"""
import numpy as np
import pytest

import revode as rv
from revode.compiled import lines
from revode.compiled.lines import LINE, Code
from revode.compiled.program import ADD, V, interpret, kinds, trace
from revode.compiled.replay import prelude
from revode.compiled.rules import simplify
from revode.engine.tensor import RULES, NotTraceable
from tests.unit import engine_table

CASES = [case for case in engine_table.CASES if not case.name.endswith("mask-of-values")]          # refused: see below


def value_and_pull(fn, args):
    """fn(*args), and its vjp with a cotangent of no particular form: by role."""
    value, pull = rv.vjp(fn, *args)
    outputs = rv.tree.flatten(value)[0]
    seeds = [np.reshape(0.3 + np.arange(np.size(y)) * 0.618 % 1, np.shape(y)) for y in outputs]
    found = pull(rv.tree.unflatten(rv.tree.flatten(value)[1], seeds))
    return {**{("known", i): y for i, y in enumerate(outputs)}, **{("cotangent", i): g for i, g in enumerate(found)}}


def ops(program):
    return [x.op.name for x in program.values if x.op is not None]


def at(program, **arrays):
    """The outputs of a program of `traced`."""
    return interpret(program, {("step" if name == "h" else "part", name): np.asarray(x) for name, x in arrays.items()})


def traced(fn, **arrays):
    """The program of fn(*arrays), whose results are named by their position; h is a number of the grid."""
    roles = {("step" if name == "h" else "part", name): np.asarray(x, float) for name, x in arrays.items()}

    def results(T):
        found = fn(*T.values())
        return {("out", i): y for i, y in enumerate(found if isinstance(found, tuple) else (found,))}

    return trace(results, roles)


# Every operation ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operation_and_its_vjp(case):
    """Traced at one point, run at another: by definition (interpret), simplified, and as the calls of a replay."""
    elsewhere = [np.asarray(0.98 * x) for x in case.args]                # inside the domain of every case
    roles = {("part", i): x for i, x in enumerate(case.args)}
    program = trace(lambda T: value_and_pull(case.fn, list(T.values())), roles)
    expected = value_and_pull(case.fn, elsewhere)
    short = simplify(program)
    assert len(short.values) <= len(program.values)
    for one in (program, short):
        found = interpret(one, {("part", i): x for i, x in enumerate(elsewhere)})
        for role, y in expected.items():
            np.testing.assert_array_equal(found[role], y, err_msg=str(role))
    store = {}
    code = Code(short, store, rows=1)
    for role, x in store.items():
        x[...] = elsewhere[role[1]] if role[0] == "part" else np.nan
    code.function([0], 0, *([x.op.forward(*x.args, **x.options) for x in (short.values[i] for i in code.per_solve)]))
    for role, y in expected.items():
        np.testing.assert_array_equal(store[role], y, err_msg=f"replay: {role}\n{code.source}")


def test_arrays_begin_at_cache_lines():
    """Of numbers of any size, those of the store and those in between."""
    for dtype in (np.float32, np.float64):
        program = trace(lambda T: {("part", "x"): np.where(np.exp(T["part", "x"]) > 1.0, 2.0, T["part", "x"])},
                        {("part", "x"): np.ones((5, 3), dtype)})
        code = Code(program, {}, rows=5)
        found = [x for name, x in code.names.items() if name[0] == "v" or name == "out0"]
        assert {x.dtype for x in found} == {np.dtype(dtype), np.dtype(bool)} and all(x.ctypes.data % LINE == 0 for x in found)


@pytest.mark.parametrize(("fn", "stretched"), [
    (lambda x, b: (x + b, b * 2), True),
    (lambda x, b: (x / b - b * x,), True),
    (lambda x, b: (np.arctan2(x, b),), False),              # of other functions the bits may depend on how arrays lie
    (lambda x, b: (np.where(x > 0, b, x + b),), False),     # who else reads it wants its own shape
    (lambda x, b: (x + b, b), False),
    (lambda x, b: (x[0] + b,), False),
    (lambda x, b: (x[:2] + b, x + b), False)])
def test_what_is_added_to_rows_is_stretched_once(fn, stretched, monkeypatch):
    """Where all sums and products stretch it to one shape, and that is small: by the prelude of a solve."""
    x, b = np.arange(15.0).reshape(5, 3) - 6.5, np.array([0.5, -1.0, 2.0])
    program = trace(lambda T: {("part", f"z{i}"): z for i, z in enumerate(fn(T["part", "x"], T["param", 0]))},
                    {("part", "x"): x, ("param", 0): b})
    for small in (x.nbytes, x.nbytes - 1):
        monkeypatch.setattr(lines, "SMALL", small)
        code = Code(program, {}, rows=5)
        assert list(code.wide.values()) == [x.shape] * (stretched and small == x.nbytes)
        code.store["part", "x"][...] = x
        bound = prelude(code, [b])
        assert [y.shape for y in bound if y.ndim == 2] == list(code.wide.values())
        code.function([0], 0, *bound)
        for i, z in enumerate(fn(x, b)):
            np.testing.assert_array_equal(code.store["part", f"z{i}"], z)


def test_an_array_that_is_written_where_it_is_read_is_one_array():
    """Another view makes NumPy look for an overlap, for half the time of a small call; a row without its axis costs that and more."""
    x, b = np.arange(3.0).reshape(1, 3), np.array([0.5, -1.0, 2.0])
    program = trace(lambda T: {("part", "z"): np.tanh((np.exp(T["part", "x"]) * 2 + T["param", 0]).T) - 1.0},
                    {("part", "x"): x, ("param", 0): b})
    code = Code(program, {}, rows=1)
    assert [y.shape for y in prelude(code, [b])] == [x.shape]
    written = [code.names[line.split(", ")[-1].rstrip(")")] for line in code.lines]
    assert len({id(y) for y in written[:3]}) == 1 < len({id(y) for y in written})


@pytest.mark.parametrize(("fn", "dots"), [
    (lambda x, W: x @ W, 1), (lambda x, W: W @ x, 1), (lambda x, W: W.T @ x, 1), (lambda x, W: np.reshape(x @ x, (1,)), 1),
    (lambda x, W: x[::-1] @ W, 0), (lambda x, W: x[:32].reshape(4, 8)[:, :4] @ x[:4], 0)])         # NumPy adds these in another order
@pytest.mark.parametrize("merge", [False, True])
def test_products_with_vectors_are_dots_where_these_have_the_same_bits(fn, dots, merge, monkeypatch):
    """Where both factors are known to lie in one piece, which merging sees to of parameters, and nothing else does."""
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal(33), rng.standard_normal((33, 33))
    program = trace(lambda T: {("part", "z"): fn(T["part", "x"], T["param", 0])}, {("part", "x"): x, ("param", 0): W})
    code = Code(program, {}, rows=1, merge=merge)
    assert code.source.count(".dot(") == dots * (merge or not code.per_solve)
    monkeypatch.setattr(Code, "in_one_piece", lambda code, a: False)
    other = Code(program, {}, rows=1, merge=merge)
    assert ".dot(" not in other.source
    for given in (W, np.repeat(W, 2, axis=1)[:, ::2]):
        for made in (code, other):
            made.store["part", "x"][...] = x
            made.function([0], 0, *prelude(made, [given], merge))
        np.testing.assert_array_equal(code.store["part", "z"], other.store["part", "z"])


def test_the_cases_reach_every_rule():
    """A rule that no case reaches would be traced by nobody here."""
    reached = {name for case in CASES for name in ops(trace(lambda T, case=case: value_and_pull(case.fn, list(T.values())), {
        ("part", i): x for i, x in enumerate(case.args)}))}
    assert {op.name for op in RULES.values()} <= reached


# What cannot be traced ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fn", [
    lambda a: a if a[0] > 0 else -a, lambda a: a if np.any(a > 0) else -a, lambda a: a * max(a[0], a[1]),
    lambda a: a * (a[0] > 0 and a[1] > 0), lambda a: a * bool(a[0] > 0), lambda a: sorted(a)[0],
    lambda a: a * len(np.nonzero(a > 0)[0])],
    ids=["if", "if any", "max", "and", "bool", "sorted", "nonzero"])
def test_a_branch_on_values_is_refused(fn):
    with pytest.raises(NotTraceable):
        traced(fn, a=np.array([0.5, -1.0, 2.0]))


def test_picking_by_values_is_refused():
    """How many entries there are depends on the values."""
    with pytest.raises(TypeError, match="index"):
        traced(lambda a: a[a > 0], a=np.array([0.5, -1.0, 2.0]))


@pytest.mark.parametrize("fn, a", [(float, 0.5), (int, 0.5), (np.asarray, np.ones(2)), (lambda a: np.array([a, a]), np.ones(2)),
                                   (lambda a: np.array([a, a], float), 0.5)], ids=["float", "int", "asarray", "array", "as float"])
def test_turning_into_plain_numbers_is_refused(fn, a):
    with pytest.raises((TypeError, ValueError), match=r"drop its gradient|array element with a sequence"):
        traced(fn, a=a)


def test_shapes_and_loops_over_them_are_free():
    def fn(a):
        total = 0.0
        for i in range(len(a)):
            if a.shape[0] > i + 1 and a.ndim == 1:
                total = total + a[i] * a[i + 1]
        return total

    program = traced(fn, a=[1.0, 2.0, 3.0])
    assert at(program, a=[2.0, 5.0, 7.0])["out", 0] == 45.0


# Nothing is baked in --------------------------------------------------------------------------------------------------
def test_comparisons_and_where_are_recorded():
    """The other branch, at another point; also of functions without a gradient (sign, floor, argmax, ...)."""
    def fn(a, b):
        return (np.where(a > b, a, -b), np.clip(a, -0.5, 0.5), (a <= b) * a, np.sign(a) + np.floor(3 * b), np.argmax(a) * b,
                np.maximum(a, b) * np.isfinite(b), a[np.arange(3)] * ~(a == b) if False else a % b)

    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2, 3))
    second[1] = abs(second[1])
    program = simplify(traced(fn, a=first[0], b=first[1]))
    assert {"greater", "clip", "less_equal", "where", "sign", "floor", "argmax"} <= set(ops(program))
    found = at(program, a=second[0], b=second[1])
    assert not np.array_equal(found["out", 0], fn(*first)[0])
    for i, y in enumerate(fn(*second)):
        np.testing.assert_array_equal(found["out", i], y)


def test_a_vjp_inside_is_recorded():
    """A gradient inside the function (as in a continuous normalizing flow) is a part of the program, its branch as well."""
    def fn(a):
        return rv.grad(lambda a: np.sum(np.where(a > 0, a ** 3, np.tanh(a))))(a)

    x = np.array([-0.7, 0.4, -0.1])
    found = at(simplify(traced(fn, a=-x)), a=x)["out", 0]
    np.testing.assert_array_equal(found, fn(x))
    np.testing.assert_allclose(found, np.where(x > 0, 3 * x ** 2, 1 - np.tanh(x) ** 2), rtol=4e-16 * 10)        # ten roundings


def test_results_that_are_inputs_or_constants():
    program = simplify(traced(lambda a, b: (b, a, np.ones(2), a), a=[1.0, 2.0], b=[3.0, 4.0]))
    assert ops(program) == [] and program.outputs["out", 1] == program.outputs["out", 3]
    found = at(program, a=[5.0, 6.0], b=[7.0, 8.0])
    assert [found["out", i].tolist() for i in range(4)] == [[7.0, 8.0], [5.0, 6.0], [1.0, 1.0], [5.0, 6.0]]


# Simplifying ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("fn", "left"), [
    (lambda a, b, h: (a * b, np.tanh(a + b)) and a - b, ["subtract"]),                   # dead code
    (lambda a, b, h: a * b + b * a, ["multiply", "add"]),                                # common subexpressions, commuted too
    (lambda a, b, h: np.tanh(a) * np.tanh(a), ["tanh", "multiply"]),
    (lambda a, b, h: a - (-b), ["add"]),
    (lambda a, b, h: a + (-b), ["subtract"]),
    (lambda a, b, h: (-a) + b, ["subtract"]),
    (lambda a, b, h: -np.negative(a) + b, ["add"]),
    (lambda a, b, h: -(a - b), ["subtract"]),
    (lambda a, b, h: a - (-a) * b, ["multiply", "add"]),
    (lambda a, b, h: b + (-a) * 0.3, ["multiply", "add"]),
    (lambda a, b, h: 0.5 * ((0.3 * a) * 4.0), ["multiply"]),                             # powers of two
    (lambda a, b, h: 0.3 * ((0.3 * a) * 0.7), ["multiply", "multiply", "multiply"]),     # others round
    (lambda a, b, h: np.reshape(np.broadcast_to(a, (3,)), (3,)) + 0 * b, ["multiply", "add"]),
])
def test_rules(fn, left):
    x = {"a": np.array([0.3, -1.1, 0.7]), "b": np.array([0.9, 0.2, -0.4]), "h": 0.1}
    program = traced(fn, **x)
    short = simplify(program)
    assert ops(short) == left, str(short)
    y = {name: np.asarray(1.7 * v) for name, v in x.items()}
    np.testing.assert_array_equal(at(short, **{k: y[k] for _, k in short.inputs})["out", 0], fn(*y.values()))


def random_function(seed):
    """A function of a, b, h out of the operations that simplify() rewrites, with much in common and many signs."""
    def fn(a, b, h):
        rng = np.random.default_rng(seed)
        pool = [a, b, a * h, -b, 0.3 * a]
        for _ in range(25):
            x, y = (pool[rng.integers(len(pool))] for _ in range(2))
            s = (h, -h, 2.0, 0.5, -1.0, 0.3, h * 0.5, -4.0)[rng.integers(8)]
            pool.append((lambda: x + y, lambda: x - y, lambda: -x, lambda: x * s, lambda: s * x, lambda: x * np.tanh(y),
                         lambda: (-x) * np.cos(y))[rng.integers(7)]())
        return tuple(pool[-6:])

    return fn


@pytest.mark.parametrize("seed", range(20))
def test_simplifying_changes_no_bit(seed):
    fn, rng = random_function(seed), np.random.default_rng(100 + seed)
    point = lambda: {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=3), "h": rng.uniform(0.1, 1)}
    program = traced(fn, **point())
    short = simplify(program)
    assert len(short.values) < len(program.values)
    x = point()
    for i, y in enumerate(fn(*x.values())):
        np.testing.assert_array_equal(at(short, **x)["out", i], y)


def test_merged_factors_within_their_bound():
    """sum of (((x a) b) c) with numbers a, b, c of a step: a product of three, each of the 4 products of a term rounded once

    on the path that it takes. Either way a term is off by at most 4 u |term| (u = eps / 2) and the sum of n terms adds
    n u sum |terms|, so that both ways lie within 2 (4 + n) u sum |terms| of each other.
    """
    factors = np.random.default_rng(3).uniform(0.2, 1.7, (6, 2))
    def fn(a, b, h):
        return sum((((a if k % 2 else b) * h) * s) * r for k, (s, r) in enumerate(factors))

    rng = np.random.default_rng(4)
    x = {"a": rng.normal(size=50), "b": rng.normal(size=50), "h": 0.037}
    program = traced(fn, **x)
    exact, merged = simplify(program), simplify(program, merge=True)
    big = [i for i, v in enumerate(merged.values) if v.op is not None and v.op.name == "multiply" and v.shape]
    assert len(big) == 6 < ops(exact).count("multiply") == 14
    size = sum(abs(x["a" if k % 2 else "b"] * x["h"] * s * r) for k, (s, r) in enumerate(factors))
    off = abs(at(merged, **x)["out", 0] - at(exact, **x)["out", 0])
    assert 0 < off.max() and (off <= (4 + 6) * np.finfo(float).eps * size).all()


def test_constants_are_told_apart():
    """0.0 and -0.0, 1 and True, arrays of equal content in one place; options too."""
    def fn(a):
        return (np.maximum(a, 0.0), np.maximum(a, -0.0), a * np.array([1.0, 2.0]), a * np.array([1.0, 2.0]), a * np.array([1.0, 3.0]),
                np.sum(a), np.sum(a, keepdims=True))

    program = simplify(traced(fn, a=[0.0, 1.0]))
    assert program.outputs["out", 2] == program.outputs["out", 3]
    assert len({int(v) for v in program.outputs.values()}) == 6
    found = at(program, a=[-0.0, 5.0])
    for i, y in enumerate(fn(np.array([-0.0, 5.0]))):
        np.testing.assert_array_equal(found["out", i], y)
        np.testing.assert_array_equal(np.signbit(found["out", i]), np.signbit(y))


def test_sums_are_kept_in_their_order():
    """a + b = b + a, but (a + b) + c is not a + (b + c)."""
    x = {"a": np.array([1.0]), "b": np.array([1e-16]), "h": 1e-16}
    program = simplify(traced(lambda a, b, h: ((a + b) + h, a + (b + h)), **x))
    found = at(program, **x)
    assert found["out", 0] == 1.0 < found["out", 1]


# What it says of itself -----------------------------------------------------------------------------------------------
def test_kinds():
    roles = {("part", "y"): np.ones(3), ("param", 0): np.ones(3), ("step", "h"): np.asarray(0.1), ("drive", "dW"): np.ones(3)}
    program = trace(lambda T: {("out", 0): np.exp(T["param", 0]) * T["part", "y"] * (T["step", "h"] * 0.5) + T["drive", "dW"],
                               ("out", 1): T["param", 0] * T["step", "h"]}, roles)
    by_name = dict(zip((x.op.name if x.op else x.role for x in program.values), kinds(program), strict=False))
    assert by_name["exp"] == by_name["param", 0] == "param"
    assert by_name["step", "h"] == "step"
    assert by_name["part", "y"] == by_name["drive", "dW"] == by_name["add"] == "state"
    assert kinds(program)[program.outputs["out", 1]] == "state"             # of both: neither once a solve nor from the grid


def test_printing():
    program = simplify(traced(lambda a, h: (np.sum(a * h, axis=0), np.ones(5)), a=[[1.0, 2.0]], h=0.5))
    assert str(program).splitlines() == [
        "v0    float64 (1, 2)         part a",
        "v1    float64 ()             step h",
        "v2    float64 (1, 2)         multiply(v0, v1)",
        "v3    float64 (2,)           sum(v2) {'axis': (0,), 'keepdims': False}",
        "out 0 = v3",
        "out 1 = <(5,)>"]
    assert repr(V(3)) == "v3" and ADD.name == "add"

"""Trees: taken apart and put together, mapped, named for messages, saved and loaded, laid end to end."""
import collections
import dataclasses
import decimal
import fractions
import functools
import json
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import revode as rv
from revode import tree


class Point(NamedTuple):
    x: object
    y: object


EXAMPLES = [
    3.0, None, "text", np.arange(3.0), [], (), {}, [1, [2, (3, {"a": 4})]], {"b": 1, "a": [2]}, Point(1, [2, 3]),
    (Point(None, "s"), {"k": ()}), {1: "a", (2, 3): "b"},
]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_flatten_and_unflatten_are_inverses(example):
    leaves, structure = tree.flatten(example)
    again = tree.unflatten(structure, leaves)
    assert type(again) is type(example) and str(again) == str(example)
    assert len(leaves) == len(tree.paths(example))


def test_leaves_come_in_the_order_that_is_written():
    assert tree.flatten({"b": 1, "a": [2, (3, Point(4, 5))], "c": 6})[0] == [1, 2, 3, 4, 5, 6]
    assert tree.paths({"b": 1, "a": [2, (3, Point(4, 5))]}) == ["['b']", "['a'][0]", "['a'][1][0]", "['a'][1][1][0]",
                                                               "['a'][1][1][1]"]
    assert tree.paths(1.0) == [""]


def test_structures_tell_containers_keys_and_order_apart():
    structures = [tree.flatten(x)[1] for x in ([1, 2], (1, 2), {"a": 1, "b": 2}, {"b": 1, "a": 2}, Point(1, 2), 1, [1], [[1], 2])]
    for i, a in enumerate(structures):
        assert [a == b for b in structures] == [i == j for j in range(len(structures))]


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: object
    b: object = 2.0


@dataclasses.dataclass
class Record:
    a: object
    more: object = None

    def __post_init__(self):
        if isinstance(self.a, (list, rv.Tensor)):
            raise ValueError("made anew by __init__, which may check or convert what it is given")


class Attributes(dict):
    """The pattern of many scripts: keys are attributes too."""
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__dict__ = self


class Many(list):
    pass


class Pair(tuple):
    __slots__ = ()


class Named(Point):
    def __new__(cls, x, y):
        return super().__new__(cls, float(x), float(y))


X = np.array([0.5, -1.5])
CONTAINERS = {
    "OrderedDict": collections.OrderedDict(a=X, b=2), "defaultdict": collections.defaultdict(list, a=X),
    "attributes": Attributes(a=X), "list": Many([X, 1]), "tuple": Pair((X,)), "named": Named(1.0, 2.0),
    "frozen": Frozen(X), "record": Record(X, {"b": X}), "Counter": collections.Counter(a=1.5),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_subclasses_and_dataclasses_are_containers_and_keep_their_type(name):
    given = CONTAINERS[name]
    leaves, structure = tree.flatten(given)
    assert all(not isinstance(x, (dict, list, tuple)) for x in leaves) and len(leaves) == len(tree.paths(given)) > 0
    again = tree.unflatten(structure, leaves)
    assert type(again) is type(given) and repr(again) == repr(given)
    assert [id(x) for x in tree.align(structure, given)] == [id(x) for x in leaves]
    tree.check_leaves(given, "params")

    def loss(params):
        return sum((k + 1) * np.sum(np.square(x)) for k, x in enumerate(tree.flatten(params)[0]) if type(x) is rv.Tensor)
    g = rv.grad(loss)(given)
    assert type(g) is type(given)
    floats = [x for x in leaves if type(x) is float or hasattr(x, "dtype")]
    for k, (a, x) in enumerate(zip([a for a in tree.flatten(g)[0] if a is not None], floats, strict=True)):
        np.testing.assert_array_equal(a, 2 * (k + 1) * x)             # exact: k + 1 is 1 or 2


def test_attributes_that_are_keys_reach_the_gradient():
    g = rv.grad(lambda p: np.sum(p.a ** 2) * p["b"])(Attributes(a=X, b=3.0))
    np.testing.assert_array_equal(g.a, 6 * X)
    assert g["b"] == np.sum(X ** 2)


def test_the_factory_of_a_defaultdict_is_kept():
    given = collections.defaultdict(list, a=1)
    assert tree.map(lambda x: x, given)["new"] == []


class Holds(dict):
    """Something besides its items, which could not be put together again."""
    def __init__(self, *args):
        super().__init__(*args)
        self.scale = np.ones(2)


class Needs(dict):
    def __init__(self, required, *args):
        super().__init__(*args)


class Settings:
    def __init__(self):
        self.W = np.ones(2)


class Layer(Settings):
    def __call__(self, x):
        return self.W * x


def cached(record):
    record.norm = 1.0           # an attribute that is no field
    return record


BAD = {
    "namespace": (types.SimpleNamespace(a=1.0), "types.SimpleNamespace"), "set": ({1.0}, "a set"), "object": (Settings(), "Settings"),
    "callable-with-arrays": (Layer(), "Layer"), "deque": (collections.deque([1.0]), "collections.deque"),
    "iterator": (iter([1.0]), "list_iterator"), "generator": ((x for x in [1.0]), "generator"),
    "view": ({"a": 1.0}.values(), "dict_values"),
    "dict-that-holds-more": (Holds({"a": 1.0}), "Holds"), "dict-that-needs": (Needs(1, {"a": 1.0}), "Needs"),
    "record-with-more": (cached(Record(X)), "Record"), "fraction": (fractions.Fraction(1, 3), "fractions.Fraction"),
    "decimal": (decimal.Decimal("0.1"), "decimal.Decimal"),
    "masked": (np.ma.array([1.0, 2.0], mask=[0, 1]), "MaskedArray, whose mask"),
    "matrix": (np.eye(2).view(sys.modules["numpy.matrixlib"].matrix), "np.matrix"),
    "objects": (np.array([1.0, None]), "an array of object"), "structured": (np.zeros(2, [("a", float)]), r"an array of \[\('a'"),
}


@pytest.mark.parametrize("name", BAD)
def test_other_leaves_are_refused_by_name_and_place(name):
    bad, sentence = BAD[name]
    with pytest.raises(TypeError, match=rf"params\['p'\]\[1\] is .*{sentence}"):
        tree.check_leaves({"p": [X, bad]}, "params")
    with pytest.raises(TypeError, match=rf"value_and_grad: argument 0\['p'\]\[1\] is .*{sentence}"):
        rv.grad(lambda p: np.sum(p["p"][0]))({"p": [X, bad]})
    with pytest.raises(TypeError, match=rf"args\[0\]\[0\] is .*{sentence}"):
        rv.vjp(lambda p: np.sum(p[1]), [bad, X])


def test_static_leaves_pass():
    tree.check_leaves([np.sin, len, lambda x: x, functools.partial(len), X.sum, None, "s", b"", 1, True, 2.0, np.float32(2), X,
                       np.arange(3), np.dtype(float), slice(1), range(3), float, Ellipsis, "text"], "params")
    g = rv.grad(lambda p: np.sum(p["act"](p["W"])))({"act": np.square, "W": X, "name": "mlp", "none": None})
    assert g["act"] is g["name"] is g["none"] is None
    np.testing.assert_array_equal(g["W"], 2 * X)


def test_a_class_may_stay_whole():
    @dataclasses.dataclass
    class Count:
        whole_in_trees: typing.ClassVar[bool] = True
        n: int = 0
    given = Count()
    assert tree.flatten([given])[0] == [given] and tree.map(lambda x: x, [given])[0] is given


def test_map_over_several_trees():
    a, b = {"x": 1, "y": [2, 3]}, {"x": 10, "y": [20, 30]}
    assert tree.map(lambda p, q: p + q, a, b) == {"x": 11, "y": [22, 33]}
    with pytest.raises(ValueError, match=r"differ in structure.*give trees with the same nesting and keys"):
        tree.map(lambda p, q: p, a, {"x": 1, "y": (2, 3)})


def test_describe_names_shapes_and_dtypes_in_one_line():
    text = tree.describe({"W": np.ones((2, 3), np.float32), "n": 3, "s": [None, np.float64(1.0)]})
    assert text == "{'W': 'float32[2, 3]', 'n': 'int', 's': ['NoneType', 'float64[]']}"


SAVED = {
    "weights": [np.random.default_rng(0).standard_normal((3, 2)), np.arange(4, dtype=np.int32)],
    "single": np.float32(0.1), "zero-d": np.array(0.3), "empty": np.zeros((0, 3)), "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "plain": (1, 2.5, 1e-300, True, None, "text with 'quotes' and \u00e9", float("inf")), "nothing": {"list": [], "tuple": ()},
    "special": np.array([np.nan, -0.0, np.inf, 5e-324]),
}


@pytest.mark.parametrize("name", ["model.npz", "model", "model.v2"])
def test_load_gives_back_what_save_was_given_to_the_bit(tmp_path, name):
    path = str(tmp_path / name)
    rv.save(path, SAVED)
    back = rv.load(path)
    leaves, structure = tree.flatten(SAVED)
    found, given = tree.flatten(back)
    assert given == structure
    for a, b in zip(leaves, found, strict=True):
        if hasattr(a, "dtype"):
            assert (b.dtype, b.shape, b.tobytes()) == (a.dtype, a.shape, np.asarray(a).tobytes())
        else:
            assert type(b) is type(a) and b == a
    assert sorted(p.name for p in tmp_path.iterdir()) == [name if name.endswith(".npz") else f"{name}.npz"]


def test_a_path_object_is_a_path(tmp_path):
    rv.save(tmp_path / "one", {"a": np.ones(2)})
    np.testing.assert_array_equal(rv.load(tmp_path / "one")["a"], [1.0, 1.0])


def test_more_than_ten_arrays_keep_their_order(tmp_path):
    rv.save(tmp_path / "many", [np.array(i) for i in range(12)])
    assert [int(x) for x in rv.load(tmp_path / "many")] == list(range(12))


def test_a_single_leaf_is_a_tree(tmp_path):
    rv.save(tmp_path / "leaf", np.arange(3))
    np.testing.assert_array_equal(rv.load(tmp_path / "leaf"), [0, 1, 2])


@pytest.mark.parametrize("bad, sentence", [
    ({"a": [1, object()]}, r"the leaf \['a'\]\[1\] is a object; an archive holds NumPy arrays"),
    (np.array([None]), r"the leaf given is a ndarray"),
    (np.ma.array([1.0], mask=[True]), r"the leaf given is a MaskedArray"),
    (collections.OrderedDict(a=1), r"cannot keep a OrderedDict"),
    ({1: np.ones(2)}, r"cannot keep a dict with keys \(1,\); use dicts with string keys"),
    (Point(1, 2), r"cannot keep a Point"),
])
def test_save_refuses_what_it_cannot_keep_and_leaves_no_file(tmp_path, bad, sentence):
    with pytest.raises(TypeError, match=sentence):
        rv.save(tmp_path / "bad", bad)
    assert not list(tmp_path.iterdir())


def test_save_refuses_a_tensor(tmp_path):
    with pytest.raises(TypeError, match="is a Tensor"):
        rv.grad(lambda x: rv.save(tmp_path / "bad", {"x": x}))(1.0)


def test_load_refuses_another_archive_and_never_unpickles(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="was not written by revode's save"):
        rv.load(tmp_path / "other.npz")
    head = json.dumps({"tree": ["array", 0]})
    np.savez(tmp_path / "pickled.npz", head=np.asarray(head), leaf0=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        rv.load(tmp_path / "pickled.npz")


class Killed(Exception):
    pass


@pytest.mark.parametrize("where", ["numpy.savez", "os.fsync", "os.replace"])
def test_a_save_that_dies_leaves_the_file_that_was_there(tmp_path, monkeypatch, where):
    rv.save(tmp_path / "run", {"step": 1})

    def dies(*args, **kwargs):
        if where == "numpy.savez":
            args[0].write(b"half")
        raise Killed
    monkeypatch.setattr(where, dies)
    with pytest.raises(Killed):
        rv.save(tmp_path / "run", {"step": 2})
    monkeypatch.undo()
    assert rv.load(tmp_path / "run") == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_a_save_through_a_link_writes_the_file_behind_it(tmp_path):
    rv.save(tmp_path / "real", 1)
    (tmp_path / "link.npz").symlink_to(tmp_path / "real.npz")
    rv.save(tmp_path / "link", 2)
    assert rv.load(tmp_path / "real") == 2 and (tmp_path / "link.npz").is_symlink()


def swing(t, y, p):
    return -p["k"] * np.sin(y["angle"]) if isinstance(y, dict) else -p["k"] * y


METHODS = [None, rv.Coupled("midpoint", lam=0.99), rv.Coupled(rv.methods.TABLEAUX["heun2"]), rv.ReversibleHeun(),
           rv.AsynchronousLeapfrog(), rv.EES(stages=5), rv.RungeKutta("rk4"), rv.NearReversible("tsit5"),
           rv.Composition(rv.VelocityVerlet(), order=4), rv.VelocityVerlet()]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_solution_comes_back_and_goes_on_in_another_process(tmp_path, method):
    """What the loaded state goes on to has the bits of what the original goes on to."""
    y0 = np.array([1.0, 2.0])
    y0 = (y0, 0.5 * y0) if "Verlet" in repr(method) else y0
    field, ts = (lambda t, y, p: -p["k"] * y), np.linspace(0.0, 0.5, 6)
    sol = rv.solve(field, y0, ts, {"k": 0.3}, method=method)
    rv.save(tmp_path / "sol", {"run": [sol]})
    code = ("import sys, numpy as np, revode as rv; run = rv.load(sys.argv[1])['run'][0]; "
            "more = rv.solve(lambda t, y, p: -p['k'] * y, None, np.linspace(.5, 1., 6), {'k': .3}, state0=run.state); "
            "rv.save(sys.argv[2], [run, more])")
    subprocess.run([sys.executable, "-c", code, tmp_path / "sol", tmp_path / "more"], check=True, cwd=Path(rv.__file__).parents[1])
    back, more = rv.load(tmp_path / "more")
    assert type(back) is rv.Solution and type(back.state) is rv.State and type(back.stats) is rv.Stats
    assert (back.stats, back.state.method, back.state[1:4]) == (sol.stats, sol.state.method, sol.state[1:4])
    expected = rv.solve(field, None, np.linspace(0.5, 1.0, 6), {"k": 0.3}, state0=sol.state)
    for name in ("ts", "ys", "y1"):
        for a, b, c, d in zip(*(tree.flatten(getattr(x, name))[0] for x in (sol, back, expected, more)), strict=True):
            assert a.tobytes() == b.tobytes() and c.tobytes() == d.tobytes()


def test_a_solution_of_a_tree_and_its_round_trip_are_kept(tmp_path):
    y0 = {"x": np.ones(2), "rest": [np.array(0.5)]}

    def field(t, y, p):
        return {"x": -p * y["x"], "rest": [y["x"][0] * y["rest"][0]]}

    def loss(p):
        sol = rv.solve(field, y0, np.linspace(0.0, 1.0, 11), p)
        return np.sum(sol.y1["x"]), sol
    (_, sol), _ = rv.value_and_grad(loss, has_aux=True)(np.array(0.3))
    assert sol.stats.roundtrip is not None
    rv.save(tmp_path / "sol", sol)
    back = rv.load(tmp_path / "sol")
    assert back.stats == sol.stats and type(back.stats.roundtrip) is rv.RoundTrip
    assert back.ys["rest"][0].shape == (11,) and back.state.layout.shapes == sol.state.layout.shapes
    more = rv.solve(field, None, np.linspace(1.0, 2.0, 11), 0.3, state0=back.state)
    assert more.y1["x"].shape == (2,)


def test_a_method_of_ones_own_is_not_kept(tmp_path):
    own = rv.shears(lambda t0, t1, h: [rv.Shear("y", ("z",), lambda F, z: F(t0, z, h)),
                                       rv.Shear("z", ("y",), lambda F, y: F(t1, y, h))])
    sol = rv.solve(lambda t, y, p: -y, np.ones(1), np.linspace(0.0, 0.1, 11), method=own)
    rv.save(tmp_path / "own", sol)
    back = rv.load(tmp_path / "own")
    assert back.state.method is None
    grid = np.linspace(0.1, 0.2, 3)
    again, truth = (rv.solve(lambda t, y, p: -y, None, grid, method=own, state0=s.state) for s in (back, sol))
    assert again.y1 == truth.y1


@pytest.mark.parametrize("head", [["revode.solve.Solution", {"ts": 1}], ["revode.solve.prepare", {}], ["os.system", {"x": 1}],
                                  ["revode.nowhere.State", {}]])
def test_load_makes_records_of_this_library_alone(tmp_path, head):
    np.savez(tmp_path / "other.npz", head=np.asarray(json.dumps({"tree": head})))
    with pytest.raises(ValueError, match=r"load: the file holds a .* which this version of revode does not know"):
        rv.load(tmp_path / "other")


def test_ravel_lays_end_to_end_and_back_and_is_differentiable():
    parts = [np.arange(6.0).reshape(2, 3), np.array(7.0), np.array([8.0, 9.0])]
    vector, unravel = tree.ravel(parts)
    np.testing.assert_array_equal(vector, [0, 1, 2, 3, 4, 5, 7, 8, 9])
    for a, b in zip(parts, unravel(vector), strict=True):
        assert a.shape == b.shape and (a == b).all()
    g = rv.grad(lambda p: np.sum(tree.ravel(p)[0] * np.arange(9.0)))(parts)
    np.testing.assert_array_equal(g[0], [[0, 1, 2], [3, 4, 5]])
    assert float(g[1]) == 6.0
    g = rv.grad(lambda v: np.sum(unravel(v)[0] * parts[0]) + unravel(v)[1])(vector)
    np.testing.assert_array_equal(g, [0, 1, 2, 3, 4, 5, 1, 0, 0])

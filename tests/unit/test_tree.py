"""Trees: taken apart and put together, mapped, named for messages, saved and loaded, laid end to end."""
import json
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


def test_subclasses_of_containers_that_are_not_named_tuples_are_leaves():
    class Special(dict):
        pass
    leaf = Special(a=1)
    assert tree.flatten([leaf])[0] == [leaf]


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
    head = json.dumps({"structure": None, "plain": {}})
    np.savez(tmp_path / "pickled.npz", head=np.asarray(head), leaf0=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        rv.load(tmp_path / "pickled.npz")


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

"""Random programs, shapes, indices and trees: what must hold for all of them."""
import tempfile

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import revode as rv
from revode import tree

SEEDS = st.integers(0, 2**32 - 1)
# Operations that keep values of order 1 in order 1 and are analytic, so that the complex step is an oracle.
UNARY = (np.sin, np.tanh, np.arctan, lambda a: a * a * 0.5, lambda a: np.exp(-a * a), lambda a: 1 / (2 + np.cos(a)),
         lambda a: np.sqrt(1.5 + np.sin(a)), lambda a: np.log(2 + np.tanh(a)), lambda a: a.T.T, lambda a: -a,
         lambda a: np.cumsum(a, axis=-1) / a.shape[-1], lambda a: a - np.mean(a, axis=0, keepdims=True),
         lambda a: a[::-1], lambda a: np.roll(a, 1, axis=-1), lambda a: np.swapaxes(np.swapaxes(a, 0, -1), 0, -1),
         lambda a: np.concatenate([a[1:], a[:1]], axis=0))
BINARY = (np.add, np.subtract, np.multiply, lambda a, b: a / (2 + b * b), lambda a, b: a * np.sum(b * b) / b.size,
          lambda a, b: np.where(np.arange(a.shape[-1]) % 2 == 0, a, b))
programs = st.lists(st.tuples(st.integers(0, len(UNARY) - 1), st.integers(0, len(BINARY) - 1), st.integers(0, 9),
                              st.integers(0, 9)), min_size=1, max_size=8)


def run_program(program, values):
    """Each line applies a unary operation to one earlier value and joins it with another; the last line counts."""
    values = list(values)
    for unary, binary, i, j in program:
        values.append(BINARY[binary](UNARY[unary](values[i % len(values)]), values[j % len(values)]))
    return np.sum(np.sin(values[-1]))


@settings(max_examples=4 * settings.default.max_examples)
@given(programs, SEEDS)
def test_random_programs_have_the_gradient_of_the_complex_step(program, seed):
    rng = np.random.default_rng(seed)
    args = [rng.uniform(-1, 1, (2, 3)) for _ in range(2)]
    gradients = rv.grad(lambda *xs: run_program(program, xs), argnums=(0, 1))(*args)
    for k, g in enumerate(gradients):
        direction = rng.standard_normal((2, 3))
        moved = [a + 1e-30j * direction * (i == k) for i, a in enumerate(args)]
        exact = run_program(program, moved).imag / 1e-30
        # Eight lines of slope at most about 3 on 6 entries: a thousand roundings weighed by 3^8 at the very worst.
        size = 1.0 + np.abs(g).max() * 6
        assert abs(np.sum(g * direction) - exact) <= 1e-11 * size


@settings(max_examples=4 * settings.default.max_examples)
@given(programs, SEEDS)
def test_random_programs_have_symmetric_second_derivatives(program, seed):
    """<u, H v> = <v, H u>, which no single wrong rule of a rule survives."""
    rng = np.random.default_rng(seed)
    x, u, v = (rng.uniform(-1, 1, (2, 3)) for _ in range(3))
    gradient = rv.grad(lambda x: run_program(program, [x, 0.5 * x]))
    product = lambda d: rv.grad(lambda x: np.sum(gradient(x) * d))(x)
    a, b = np.sum(u * product(v)), np.sum(v * product(u))
    scale = 1.0 + np.abs(product(np.ones((2, 3)))).max() * 36
    assert abs(a - b) <= 1e-10 * scale       # round-off, as above, one order up


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3), SEEDS)
def test_broadcasting_is_undone_for_any_pair_of_shapes(shapes, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.uniform(0.5, 2.0, shape) for shape in shapes.input_shapes)
    g = rng.standard_normal(shapes.result_shape)
    value, pull = rv.vjp(lambda a, b: a * b, a, b)
    ga, gb = pull(g)
    # The sum over a stretched axis, written out: every entry of the result knows which entries of a and b it came from.
    for found, x, other in ((ga, a, b), (gb, b, a)):
        index = np.broadcast_to(np.arange(x.size).reshape(x.shape), shapes.result_shape).ravel()
        expected = np.bincount(index, np.broadcast_to(g * other, shapes.result_shape).ravel(), minlength=x.size)
        assert found.shape == x.shape
        np.testing.assert_allclose(found.ravel(), expected, rtol=0, atol=81 * 4.5e-16 * (1 + np.abs(g).sum()))
    assert np.shape(value) == shapes.result_shape


@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4).flatmap(lambda shape: st.tuples(
    st.just(shape), hnp.basic_indices(shape, allow_newaxis=True) | hnp.integer_array_indices(shape))), SEEDS)
def test_indexing_scatters_back_to_where_it_came_from(shape_and_index, seed):
    shape, index = shape_and_index
    x = np.arange(float(np.prod(shape))).reshape(shape)
    value, pull = rv.vjp(lambda x: x[index] * 1.0, x)
    np.testing.assert_array_equal(value, x[index])
    g = np.random.default_rng(seed).integers(-5, 5, np.shape(value)).astype(float)
    # The value names the entry it came from, so that counting gives the cotangent exactly (small integers).
    expected = np.bincount(np.ravel(value).astype(int), np.ravel(g), minlength=x.size).reshape(shape)
    np.testing.assert_array_equal(pull(g)[0], expected)


@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3), st.data())
def test_reductions_over_any_axes(shape, data):
    axes = data.draw(hnp.valid_tuple_axes(len(shape)))
    keep = data.draw(st.booleans())
    x = np.random.default_rng(0).standard_normal(shape)
    kept = np.sum(x, axis=axes).size
    for fn, weight in ((np.sum, np.ones(shape)), (np.mean, np.full(shape, kept / x.size)),
                       (np.max, x == np.max(x, axis=axes, keepdims=True))):
        value, pull = rv.vjp(lambda x: fn(x, axis=axes, keepdims=keep), x)
        np.testing.assert_allclose(value, fn(x, axis=axes, keepdims=keep), rtol=1e-14, atol=1e-15)
        g = np.random.default_rng(1).standard_normal(np.shape(value))
        spread = g if keep else np.expand_dims(g, axes)
        np.testing.assert_allclose(pull(g)[0], spread * weight, rtol=1e-15, atol=0)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True),
       st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True), st.data())
def test_einsum_of_any_two_operands(left, right, data):
    letters = sorted(set(left) | set(right))
    output = data.draw(st.lists(st.sampled_from(letters), unique=True, max_size=len(letters)))
    sizes = dict(zip("abcd", (2, 3, 1, 4), strict=True))
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal([sizes[c] for c in word]) for word in (left, right))
    rv.check_vjp(lambda a, b: np.einsum(f"{''.join(left)},{''.join(right)}->{''.join(output)}", a, b), a, b)


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_matmul_of_any_two_shapes(m, n, data):
    batch = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    left = (*batch[0], m, 3) if data.draw(st.booleans()) else (3,)
    right = (*batch[1], 3, n) if data.draw(st.booleans()) else (3,)
    rng = np.random.default_rng(0)
    rv.check_vjp(np.matmul, rng.standard_normal(left), rng.standard_normal(right))


arrays = hnp.arrays(st.sampled_from([np.float64, np.float32, np.int64, np.bool_]),
                    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5) | arrays
trees = st.recursive(leaves, lambda t: st.lists(t, max_size=3) | st.lists(t, max_size=3).map(tuple)
                     | st.dictionaries(st.text(max_size=3), t, max_size=3), max_leaves=12)


@given(trees)
def test_any_tree_comes_back_from_its_leaves_and_from_a_file(example):
    found, structure = tree.flatten(example)
    assert len(tree.paths(example)) == len(found)
    assert tree.flatten(tree.unflatten(structure, found))[1] == structure
    with tempfile.TemporaryDirectory() as folder:
        rv.save(f"{folder}/tree", example)
        again, given_back = tree.flatten(rv.load(f"{folder}/tree"))
    assert given_back == structure
    for a, b in zip(found, again, strict=True):
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        else:
            assert type(a) is type(b) and a == b


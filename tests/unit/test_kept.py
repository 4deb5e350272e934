"""Plain arrays that meet tensors, and what happens when they are written to before the gradient is taken.

The right value comes from the same function with a fresh copy at each use, or from the complex step."""
import copy
import functools
import gc
import threading
import weakref

import numpy as np
import pytest
from engine_table import complex_gradient

import revode as rv
from revode.engine import kept

X = np.array([0.5, -1.5, 2.0])


def scaled_afterwards(x, c):
    y = x * c
    c *= 2
    return np.sum(y * c)


def index_reused(x, index):
    y = x[index] ** 2
    index[:] = 0
    return np.sum(y * np.arange(1.0, 4.0))


def list_reused(x, index):
    y = x[index] ** 2
    index[:] = [0, 0, 0]
    return np.sum(y * np.arange(1.0, 4.0))


def pairs_reused(x, index):
    y = np.reshape(x, (1, 3))[0, index] ** 2
    index[:] = 0
    return np.sum(y * np.arange(1.0, 4.0))


def mask_reused(x, mask):
    y = np.where(mask, x * x, x)
    mask[:] = ~mask
    return np.sum(y)


def mask_index_reused(x, mask):
    y = x[mask] ** 3
    mask[:] = True
    return np.sum(y)


def taken(x, index):
    y = np.take(x, index) ** 2
    index[:] = 0
    return np.sum(y * np.arange(1.0, 4.0))


def buffer_in_a_loop(x, buffer):
    total = 0.0
    for k in range(3):
        np.multiply(k + 1.0, [1.0, 2.0, 3.0], out=buffer)
        total = total + np.sum(x * x * buffer)
    return total


def time_moves(x, t):
    total = 0.0
    for _ in range(4):
        total = total + np.sum(np.sin(t * x))
        t += 0.25
    return total


def joined(x, c):
    y = np.concatenate([x, c]) ** 2
    c[:] = 0.0
    return np.sum(y[:3] * np.arange(3.0)) + np.sum(x * c)


def product(x, W):
    y = W @ x
    W *= 0.0
    return np.sum(y * y)


def summed(x, c):
    y = np.einsum("i,i->i", x, c)
    c[:] = 7.0
    return np.sum(y * y)


def bounded(x, c):
    y = np.maximum(x, c)
    c[:] = 9.0
    return np.sum(y * y)


def view_of_a_buffer(x, c):
    row = c[1]
    y = x * row
    c[:] = 0.0
    return np.sum(y * y)


def kept_copies(x, c):
    """More than a kilobyte: the copy is shared as long as the content is the same."""
    total = 0.0
    for k in range(3):
        c[:] = k + 1.0
        total = total + np.sum(x[0] * c) + np.sum(x[1] * x[1] * c)
    return total


PROGRAMS = {
    "scaled": (scaled_afterwards, lambda: np.ones(3)), "index": (index_reused, lambda: np.array([2, 0, 2])),
    "list": (list_reused, lambda: [2, 0, 2]),
    "pairs": (pairs_reused, lambda: np.array([2, 0, 2])), "mask": (mask_reused, lambda: np.array([True, False, True])),
    "mask-index": (mask_index_reused, lambda: np.array([True, False, True])), "take": (taken, lambda: np.array([2, 0, 2])),
    "buffer": (buffer_in_a_loop, lambda: np.empty(3)), "time": (time_moves, lambda: np.array(0.0)),
    "time-1d": (time_moves, lambda: np.zeros(1)),
    "joined": (joined, lambda: np.ones(3)), "product": (product, lambda: np.arange(6.0).reshape(2, 3)),
    "einsum": (summed, lambda: np.ones(3)),
    "bounded": (bounded, lambda: np.zeros(3)), "view": (view_of_a_buffer, lambda: np.arange(6.0).reshape(2, 3)),
    "kilobytes": (kept_copies, lambda: np.ones(500)),
    "kilobytes-F": (product, lambda: np.asfortranarray(np.arange(900.0).reshape(300, 3) / 900)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_small_array_may_be_written_to_afterwards(name):
    fn, buffer = PROGRAMS[name]
    oracle = fn
    if name == "bounded":          # maximum of complex numbers looks at real parts first: the branch is the same
        oracle = lambda x, c: np.sum(np.where(x.real > 0, x, 0) ** 2)
    truth, = complex_gradient(lambda x: oracle(x, buffer()), [X])
    g = rv.grad(lambda x: fn(x, buffer()))(X)
    # Round-off of at most 1500 terms of size below 1e3.
    np.testing.assert_allclose(g, truth, rtol=1e-13, atol=1e-13 * np.abs(truth).max())
    second = rv.grad(lambda x: np.sum(rv.grad(lambda x: fn(x, buffer()))(x) * np.arange(1.0, 4.0)))(X)
    h = 1e-5
    ahead, behind = (complex_gradient(lambda x: oracle(x, buffer()), [X + s * h * np.arange(1.0, 4.0)])[0] for s in (1, -1))
    # A central difference of exact gradients: truncation h^2 = 1e-10 of third derivatives, round-off 1e-16 / h = 1e-11 of the size.
    np.testing.assert_allclose(second, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-7 * np.abs(truth).max())


@pytest.mark.parametrize("mutate", ["input", "value", "both"])
def test_arguments_and_values_may_be_written_to_between_vjp_and_pull(mutate):
    x, y = X.copy(), np.array([1.0, 2.0, 3.0])
    value, pull = rv.vjp(lambda p: {"a": np.exp(p["x"]) * p["y"], "b": p["x"] * p["y"]}, {"x": x, "y": y})
    if mutate != "value":
        x[:], y[:] = 5.0, -1.0
    if mutate != "input":
        value["a"][:] = value["b"][:] = 7.0
    found, = pull({"a": np.ones(3), "b": 2 * np.ones(3)})
    # exp and two products: a few half units in the last place
    np.testing.assert_allclose(found["x"], np.exp(X) * [1.0, 2.0, 3.0] + 2 * np.array([1.0, 2.0, 3.0]), rtol=1e-15)
    np.testing.assert_allclose(found["y"], np.exp(X) + 2 * X, rtol=1e-15)


def test_the_output_of_an_operation_of_your_own_may_be_a_buffer():
    buffer = np.empty(3)

    def fill(x):
        np.multiply(x, 2.0, out=buffer)
        return buffer, lambda g: (2 * g,)
    double = rv.custom_vjp(fill)
    g = rv.grad(lambda x: np.sum(double(x) ** 2) + np.sum(double(3 * x) ** 2))(X)      # 8 x + 72 x
    np.testing.assert_allclose(g, 80 * X, rtol=1e-15)


def test_an_operation_of_your_own_cannot_write_into_what_the_tape_holds():
    def spoil(x):
        x *= 2
        return x, lambda g: (g,)
    with pytest.raises(ValueError, match="read-only") as caught:
        rv.grad(lambda x: np.sum(rv.custom_vjp(spoil)(np.exp(x))))(X)
    assert any("make a new array" in note for note in caught.value.__notes__)


BIG = 10000          # floats: 80 kB


def test_a_large_array_is_read_only_while_a_tape_keeps_it_and_as_before_afterwards():
    base = np.ones((2, BIG))
    c, already = base[0], np.ones(BIG)
    already.flags.writeable = False
    seen = []

    def loss(x):
        y = x * c + x * already
        seen.append((c.flags.writeable, base.flags.writeable))
        return np.sum(y)
    rv.grad(loss)(1.5)
    assert seen == [(False, False)]
    assert c.flags.writeable and base.flags.writeable and not already.flags.writeable and not kept._frozen

    def writes(x):
        y = x * c
        base[0] *= 2
        return np.sum(y)
    with pytest.raises(ValueError, match="read-only") as caught:
        rv.grad(writes)(1.5)
    assert any("y = y.copy()" in note for note in caught.value.__notes__)
    assert c.flags.writeable and base.flags.writeable and not kept._frozen        # although the traceback is still held


def test_a_write_through_another_view_or_a_foreign_buffer_is_found():
    for make in (lambda: np.ones(BIG), lambda: np.frombuffer(bytearray(np.ones(BIG).tobytes()))):
        c = make()
        other = c.view() if c.base is None else np.frombuffer(c.base)

        def loss(x, c=c, other=other):
            y = x * c
            other[:] = 3.0
            return np.sum(y * y)
        with pytest.raises(RuntimeError, match=r"an array of shape \(10000,\) was changed in place.*give the operation a copy"):
            rv.grad(loss)(1.5)
        assert c.flags.writeable
        c = make()
        other = c.view() if c.base is None else np.frombuffer(c.base)
        _, pull = rv.vjp(lambda x, c=c: np.sum(x * c), 1.5)
        other[:] = 3.0
        with pytest.raises(RuntimeError, match="was changed in place"):
            pull(1.0)


def test_two_tapes_count_and_the_order_of_their_ends_does_not_matter():
    base = np.ones((2, BIG))
    one, two = base[0], base[1]
    pulls = [rv.vjp(lambda x, c=c: np.sum(x * c), 1.5)[1] for c in (one, two, one)]
    for gone in (2, 1, 0):
        assert not base.flags.writeable and not one.flags.writeable
        pulls[gone] = None
    assert base.flags.writeable and one.flags.writeable and two.flags.writeable and not kept._frozen


def test_arguments_that_are_large_are_frozen_until_the_pull_is_gone():
    x = np.ones(BIG)
    value, pull = rv.vjp(lambda x: x * x, x)
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 2.0
    np.testing.assert_array_equal(pull(np.ones(BIG))[0], 2 * x)
    del pull
    x[0] = value[0] = 2.0


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[1:], lambda a: a.reshape(2, -1)[0]], ids=["whole", "slice", "row"])
def test_memory_of_another_library_is_compared_and_let_go(view):
    """NumPy would not make such an array writeable again, so it never becomes read-only; that it changed is found all the same."""
    a = np.from_dlpack(np.ones(2 * BIG))
    assert not isinstance(a.base, np.ndarray)
    c = view(a)
    _, pull = rv.vjp(lambda x, c=c: np.sum(x * c), 1.5)
    assert pull(1.0)[0] == c.size and a.flags.writeable and not kept._frozen
    a[:] = 2.0
    with pytest.raises(RuntimeError, match="was changed in place"):
        pull(1.0)
    rv.grad(lambda x: np.sum(x * x))(a)
    gone = weakref.ref(a)
    del a, c, pull
    assert gone() is None


def test_a_large_index_counts_too():
    index = np.arange(BIG)[::-1].copy()

    def loss(x):
        y = np.broadcast_to(x, (BIG,))[index]
        index[0] = 1
        return np.sum(y)
    with pytest.raises(ValueError, match="read-only"):
        rv.grad(loss)(1.5)
    assert index.flags.writeable


def test_threads_share_the_count():
    c, errors, start = np.ones(BIG), [], threading.Barrier(4)

    def work(k):
        try:
            start.wait()
            for _ in range(50):
                assert rv.grad(lambda x: np.sum(x * c) * k)(1.5) == BIG * k
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and c.flags.writeable and not kept._frozen


def test_gradients_in_threads_at_once_are_those_of_one_thread():
    def nested(x):
        return np.sum(rv.grad(lambda y: np.sum(np.sin(y) * y ** 2))(x) ** 2)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((8, 5))
    truth = [rv.grad(nested)(x) for x in points]
    found: list = [None] * 8

    def work(k):
        for _ in range(30):
            found[k] = rv.grad(nested)(points[k])
            if not np.array_equal(found[k], truth[k]):
                return
    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, truth, strict=True):
        np.testing.assert_array_equal(a, b)


def test_levels_are_never_given_twice():
    tapes: list = []

    def work():
        tapes.extend(rv.engine.tensor.Tape() for _ in range(5000))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tape.level for tape in tapes}) == 20000


def test_nothing_outlives_its_tape():
    c = np.ones(500)
    held = weakref.ref(c)
    rv.grad(functools.partial(lambda c, x: np.sum(x * c), c))(1.5)
    del c
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("copied",
    [copy.copy, copy.deepcopy, lambda x: copy.deepcopy({"a": [x]})["a"][0], lambda x: copy.copy([x])[0]])
def test_a_copy_of_a_tensor_is_the_tensor(copied):
    np.testing.assert_array_equal(rv.grad(lambda x: np.sum(x * copied(x)))(X), 2 * X)

    def field(t, y, p):
        return -copied(p) * copied(y)
    def loss(solve_y0, p, gradient):
        return np.sum(rv.solve(field, solve_y0, np.linspace(0, 1, 41), p, method=rv.Coupled("rk4"), gradient=gradient).y1)
    for gradient in (rv.Direct(), rv.Reversible()):
        ay, ap = rv.grad(lambda y, p: loss(y, p, gradient), argnums=(0, 1))(np.ones(2), np.array(0.7))
        # y = exp(-p): rk4 at h = 1/40 is right to h^4 / 120 = 3e-9; two entries
        np.testing.assert_allclose(ay, np.exp(-0.7) * np.ones(2), rtol=1e-8)
        np.testing.assert_allclose(ap, -2 * np.exp(-0.7), rtol=1e-7)


def test_scratch_buffers_in_fields_give_the_same_gradient_in_every_mode():
    buffer = np.empty(2)

    def field(t, y, p):
        np.multiply(t, [1.0, 2.0], out=buffer)
        return -p["a"] * y * buffer + p["b"]

    def fresh(t, y, p):
        return -p["a"] * y * (t * np.array([1.0, 2.0])) + p["b"]

    def gradient_of(field, gradient):
        def loss(y, p):
            return np.sum(rv.solve(field, y, np.linspace(0, 1, 41), p, method=rv.Coupled("rk4"), gradient=gradient).y1 ** 2)
        return rv.grad(loss, argnums=(0, 1))(np.array([1.0, 0.5]), {"a": 1.3, "b": 0.2})
    for gradient in (rv.Direct(), rv.Reversible(), rv.Checkpointed(5)):
        (ay, ap), (by, bp) = gradient_of(field, gradient), gradient_of(fresh, gradient)
        np.testing.assert_allclose(ay, by, rtol=1e-13)              # the same operations; a reverse sweep differs by rounding
        np.testing.assert_allclose([ap["a"], ap["b"]], [bp["a"], bp["b"]], rtol=1e-13)


def test_a_program_is_not_traced_through_an_array_that_changes_meanwhile():
    from revode.compiled.program import trace
    from revode.engine.tensor import NotTraceable
    c = np.ones(3)

    def fn(T):
        y = T["y",] * c
        c[:] = 2.0
        return {("z",): y * c}
    with pytest.raises(NotTraceable, match=r"an array of shape \(3,\) that is written to while the function runs"):
        trace(fn, {("y",): X})

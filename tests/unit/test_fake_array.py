"""The engine, the methods and solve on arrays that are not ndarrays: the stand-in for CuPy of fake_array.py.

Everything runs the same NumPy operations in the same order on the arrays inside, so results are equal to the last bit.
"""
import numpy as np
import pytest
from engine_table import CASES
from fake_array import FakeArray, put

import revode as rv
from revode import tree


def to_fake(x):
    return tree.map(lambda leaf: put(leaf) if isinstance(leaf, np.ndarray) else leaf, x)


def assert_same(fake, real):
    """Equal to the last bit, and on the device where the other is an array or a NumPy scalar."""
    found, structure = tree.flatten(fake)
    expected, other = tree.flatten(real)
    assert structure == other
    for a, b in zip(found, expected, strict=True):
        if isinstance(b, (np.ndarray, np.generic)):
            assert type(a) is FakeArray, type(a)
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_array_equal(a.get(), b)
        else:
            assert a is b or a == b


# ------------------------------------------------------------------ the stand-in itself

def test_the_stand_in_refuses_what_cupy_refuses():
    x = put([1.0, 2.0])
    for mixed in (lambda: x + np.ones(2), lambda: np.ones(2) * x, lambda: x * np.array(2.0), lambda: np.array(2.0) - x,
                  lambda: np.concatenate([x, np.ones(2)]), lambda: np.asarray(x), lambda: np.array([x, x]),
                  lambda: np.add(np.ones(2), x, out=np.ones(2)), lambda: np.where(x > 1, x, np.ones(2))):
        with pytest.raises(TypeError):
            mixed()
    for waiting in (float, int, complex, list, lambda a: a.item(), lambda a: [0, 1][a]):
        with pytest.raises(TypeError, match="wait for the device"):
            waiting(x[0])
    for missing in (lambda: np.add.reduce(x), lambda: np.add.at(x, [0], 1.0), lambda: np.sort(x), lambda: np.linalg.norm(x)):
        with pytest.raises(TypeError):
            missing()


def test_the_stand_in_does_what_cupy_does():
    x = put([1.0, 2.0])
    for scalar in (2, 2.0, np.float64(2.0), np.float32(2.0)):
        assert type(x * scalar) is FakeArray and type(scalar * x) is FakeArray
        assert (scalar - x).get().tolist() == [1.0, 0.0]
    assert type(np.sum(x)) is FakeArray and np.sum(x).shape == () and type(x[0]) is FakeArray
    assert type(x.max()) is FakeArray and bool(np.isfinite(x).all()) is True
    x[0] = 5.0
    x.scatter_add(np.array([1, 1]), put([1.0, 2.0]))
    assert x.get().tolist() == [5.0, 5.0]
    assert (put(np.float32([1.0])) * 2.0).dtype == np.float32
    assert np.zeros_like(x, shape=(3,)).get().tolist() == [0.0, 0.0, 0.0]


# ------------------------------------------------------------------ the engine

# These close over host arrays or numbers, which do not mix, or choose with a Python bool, which CuPy's where does not take.
HOST = {"maximum-accumulate", "minimum-accumulate",
        "append", "concatenate-lengths-and-a-constant", "cumsum-ufunc.accumulate", "diff-1-['append']", "diff-1-['prepend']",
        "einsum-number", "hstack-numbers", "insert-flat", "linalg.norm-matrix--1", "linalg.norm-matrix--2", "linalg.norm-matrix-1",
        "linalg.norm-matrix-2", "linalg.norm-matrix-fro", "linalg.norm-matrix-inf", "linalg.norm-matrix-nuc",
        "linalg.norm-pair", "linalg.norm-vector--1", "linalg.norm-vector--inf", "linalg.norm-vector-1", "linalg.norm-vector-3",
        "linalg.norm-vector-inf", "logaddexp-reduce", "pad-value", "power-a**array", "prod-method", "prod-where", "stack--1",
        "stack-0", "stack-1", "sum-where", "tensordot-number", "trace-axes", "where", "where-one-condition"}
# And these are not in the stand-in, or meet host arrays in their rules: they are refused on a device, loudly.
LA, FT = np.linalg, np.fft
HOST_ALONE = {np.ldexp, np.choose, FT.fft, FT.fft2, FT.fftn, FT.fftshift, FT.ifft, FT.ifft2, FT.ifftn, FT.irfft, FT.irfft2,
    FT.irfftn, FT.rfft,
              FT.rfft2, FT.rfftn, LA.cholesky, LA.cond, LA.cross, LA.eigh, LA.eigvalsh, LA.matrix_norm, LA.matrix_power,
              LA.multi_dot, LA.pinv, LA.qr, LA.slogdet, LA.svd, LA.svdvals, LA.trace, LA.vecdot, LA.vector_norm, np.average,
              np.bincount, np.convolve, np.corrcoef, np.correlate, np.cov, np.cross, np.cumprod, np.ediff1d, np.gradient,
              np.interp, np.linspace, np.matvec, np.median, np.modf, np.nanmax, np.nanmean, np.nanmin, np.nanstd, np.nanvar,
              np.partition, np.percentile, np.piecewise, np.polyval, np.quantile, np.select, np.sinc, np.sort,
              np.take_along_axis, np.trapezoid, np.tril, np.triu, np.vander, np.vecdot, np.vecmat, np.nanquantile, np.nanpercentile,
              np.nanmedian, np.nancumprod, np.cumulative_sum, np.cumulative_prod, np.frexp, np.unwrap, LA.lstsq, LA.tensorsolve,
              LA.tensorinv}
ON_DEVICE = [case for case in CASES if case.name not in HOST and case.key not in HOST_ALONE]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", ON_DEVICE, ids=[case.name for case in ON_DEVICE])
def test_every_operation_and_its_pullback(case, dtype):
    args = [a.astype(dtype) for a in case.args]
    value, pull = rv.vjp(case.fn, *args)
    seed = np.asarray(np.random.default_rng(0).standard_normal(np.shape(value)), np.asarray(value).dtype)
    fake_value, fake_pull = rv.vjp(case.fn, *to_fake(args))
    assert_same(fake_value, value)
    assert_same(fake_pull(put(seed)), pull(seed))


@pytest.mark.parametrize("case", [case for case in CASES if case.key in HOST_ALONE], ids=lambda case: case.name)
def test_what_is_not_on_a_device_is_refused_there(case):
    with pytest.raises((TypeError, AttributeError)):
        value, pull = rv.vjp(case.fn, *to_fake(case.args))
        pull(put(np.ones(np.shape(value))))


def test_gradients_of_every_order_and_a_plain_cotangent():
    x = np.array([0.3, -0.7])
    for fn in (lambda x: np.sum(np.tanh(x) ** 3), lambda x: np.sum(rv.grad(lambda y: np.sum(np.sin(y) * y))(x) ** 2)):
        assert_same(rv.value_and_grad(fn)(put(x)), rv.value_and_grad(fn)(x))
    for fn in (np.sum, lambda x: x[0]):
        assert_same(rv.vjp(fn, put(x))[1](2.0), rv.vjp(fn, x)[1](2.0))
    g = rv.grad(lambda p: np.sum(p["a"]))({"a": put(x), "unused": put(x), "n": 3})
    assert_same(g, {"a": np.ones(2), "unused": np.zeros(2), "n": None})


# ------------------------------------------------------------------ solve

def field(t, y, p):
    return np.tanh(y @ p["W"] + p["b"] * t) * p["rate"]


METHODS = {
    "Coupled": rv.Coupled("midpoint", lam=0.99), "Coupled-rk4": rv.Coupled("rk4"), "ReversibleHeun": rv.ReversibleHeun(),
    "ALF": rv.AsynchronousLeapfrog(), "ALF-damped": rv.AsynchronousLeapfrog(eta=0.9), "LeapfrogMidpoint": rv.LeapfrogMidpoint(),
    "SemiImplicitEuler": rv.SemiImplicitEuler(), "Verlet": rv.VelocityVerlet(), "RungeKutta": rv.RungeKutta("bosh3"),
    "Composition": rv.Composition(rv.ReversibleHeun()),
}
GRADIENTS = {"Direct": rv.Direct(), "Checkpointed": rv.Checkpointed(3), "Reversible": rv.Reversible(),
             "resync": rv.Reversible(resync=4), "Backsolve": rv.Backsolve()}


@pytest.mark.sample(40)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mode", GRADIENTS)
@pytest.mark.parametrize("name", METHODS)
def test_solve_and_its_gradient(name, mode, dtype):
    if name == "RungeKutta" and mode in ("Reversible", "resync"):
        return                                            # not reversible
    rng = np.random.default_rng(0)
    split = len(METHODS[name].outputs) == 2
    params = {"W": rng.standard_normal((3, 3)).astype(dtype), "b": rng.standard_normal(3).astype(dtype), "rate": 0.7, "n": 3}
    y0 = rng.standard_normal((2, 3)).astype(dtype)
    y0 = (y0, 0.5 * y0) if split else y0

    def loss(y0, params):
        sol = rv.solve(field, y0, np.linspace(0.0, 0.5, 11), params, method=METHODS[name], gradient=GRADIENTS[mode],
                       save=[0, 3, 10])
        ys = sol.ys if split else (sol.ys,)
        return sum(np.sum(y ** 2) for y in ys) + np.sum(sol.y1[0] if split else sol.y1), sol
    run = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, sol), (ay0, aparams) = run(y0, params)
    (fake_value, fake_sol), (fake_ay0, fake_aparams) = run(to_fake(y0), to_fake(params))
    assert value.dtype == dtype and abs(ay0[0] if split else ay0).max() > 0
    assert_same(fake_value, value)
    assert_same((fake_sol.ys, fake_sol.y1, fake_sol.state.parts), (sol.ys, sol.y1, sol.state.parts))
    assert_same(fake_ay0, ay0)
    assert_same(fake_aparams["W"], aparams["W"])
    assert_same(fake_aparams["b"], aparams["b"])
    # A Python float in params: its gradient is a number on whichever side it was made.
    rate = fake_aparams["rate"]
    assert float(rate.get() if type(rate) is FakeArray else rate) == aparams["rate"] and aparams["n"] is None
    # (where Direct and Backsolve ask for a program, that looks at the field once: there is none for devices here)
    assert {**vars(fake_sol.stats), "checks": 0} == {**vars(sol.stats), "checks": 0}


def test_a_tree_as_state_resuming_and_stepping_by_hand():
    y0 = {"a": np.array([1.0, 2.0]), "b": np.array([[0.5]])}
    rate = np.array(0.3)
    pair = lambda t, y, p: {"a": -p * y["a"] * y["b"][0], "b": y["b"] * p}
    ts = np.linspace(0.0, 1.0, 6)

    run = lambda y0, rate: rv.solve(pair, y0, ts, rate)
    assert_same((run(to_fake(y0), put(rate)).ys, run(to_fake(y0), put(rate)).y1), (run(y0, rate).ys, run(y0, rate).y1))
    flat = np.array([1.0, 2.0])
    decay = lambda t, y, p: -p * y
    for (t, state), (u, other) in zip(rv.steps(decay, put(flat), ts, put(rate)), rv.steps(decay, flat, ts, rate), strict=True):
        assert t == u
        assert_same(state.parts, other.parts)
    sol, fake = (rv.solve(decay, y, ts, p) for y, p in ((flat, rate), (put(flat), put(rate))))
    more, fake_more = (rv.solve(decay, None, ts + 1.0, p, state0=s.state) for s, p in ((sol, rate), (fake, put(rate))))
    assert_same(fake_more.ys, more.ys)
    back = rv.steps_back(decay, sol.state, ts, rate, ay1=flat, y0=flat)
    fake_back = rv.steps_back(decay, fake.state, ts, put(rate), ay1=put(flat), y0=put(flat))
    for a, b in zip(fake_back, back, strict=True):
        assert_same((a.state.parts, a.cotangent, a.aparams, a.ay0), (b.state.parts, b.cotangent, b.aparams, b.ay0))


def test_arrays_of_two_devices_are_refused_with_the_name_of_the_leaf():
    decay = lambda t, y, p: -p["rate"] * y
    sentence = r"params\['rate'\] is a numpy array but y0 is a .* array; move all of them to one device"
    with pytest.raises(TypeError, match=sentence):
        rv.solve(decay, put([1.0]), np.linspace(0.0, 1.0, 3), {"rate": np.ones(1)})


def test_save_says_how_to_move_a_device_array(tmp_path):
    with pytest.raises(TypeError, match=r"FakeArray.*Move device arrays with to_host first"):
        rv.save(tmp_path / "x", {"a": put([1.0])})

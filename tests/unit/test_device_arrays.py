"""All of revode on arrays that are not NumPy's: what test_fake_array.py does not run already, on the stand-in of fake_array.py.

The stand-in does the same NumPy operations on the arrays inside, so results are equal to the last bit; what it refuses (host
arrays mixed in, silent waits, NumPy functions that CuPy lacks) is the test. What is computed on the host by nature (times,
noise, paths through data) has to arrive on the device.
"""
import pickle
import sys
from collections.abc import Callable, Iterator
from threading import get_ident
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_array import FakeArray, put
from test_fake_array import assert_same, to_fake

import revode as rv
from revode import nn, optim, parallel, ranks, tree
from revode.analysis import gulp, rulp, scaled_ulps
from revode.engine.tensor import value_of
from revode.ranks import say_host
from revode.watch import LOOKS
from tests.pretended_cupy import pretended
from tests.thread_ranks import Thread, threads

rng = np.random.default_rng(3)
BATCH, D, M, CHANNELS = 2, 3, 2, 2
HOST = {"W": rng.standard_normal((D, D)), "b": rng.standard_normal(D), "s": 0.2 + 0.1 * rng.random(D),
        "V": 0.2 * rng.standard_normal((D, D * M)), "C": 0.3 * rng.standard_normal((D, D * CHANNELS))}
Y0 = 0.5 * rng.standard_normal((BATCH, D))
TS = np.linspace(0.0, 0.5, 9)


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + p["b"] * t)


def typed(dtype: Any) -> tuple:
    return Y0.astype(dtype), {name: x.astype(dtype) for name, x in HOST.items()}


def both_sides(run: Callable, dtype: Any = np.float64, **more: Any) -> None:
    """run(y0, params) -> a Solution; the loss, the solution and both gradients are the same on host and device, in bits."""
    def loss(y0: Any, params: Any) -> tuple:
        sol = run(y0, params)
        return np.sum(sol.ys ** 2) + np.sum(sol.y1), sol

    y0, params = typed(dtype)
    results = []
    for side in (lambda x: x, to_fake):
        value, grads = rv.value_and_grad(loss, argnums=(0, 1), has_aux=True)(side(y0), side(params))
        results.append((value, grads))
    (host, host_grads), (fake, fake_grads) = results
    assert_same(fake[0], host[0])
    assert_same((fake[1].ys, fake[1].y1, fake[1].state.parts), (host[1].ys, host[1].y1, host[1].state.parts))
    assert_same(fake_grads, host_grads)
    assert vars(fake[1].stats) == vars(host[1].stats) and (fake[1].ts == host[1].ts).all()
    assert type(fake[1].ts) is np.ndarray
    assert abs(host_grads[0]).max() > 0 and host[1].ys.dtype == dtype
    plain = run(to_fake(y0), to_fake(params))                      # without a gradient nothing is different
    assert_same((plain.ys, plain.y1), (host[1].ys, host[1].y1))


def solve(*args: Any, **options: Any) -> Any:
    """rv.solve, op by op on the host as it is on the device: compiled programs may add in another order."""
    on_host = not any(type(value_of(x)) is FakeArray for x in tree.flatten((args, options.get("state0")))[0])
    return rv.solve(*args, **options, **({"backend": "eager"} if on_host else {}))


GRADIENTS = {"Direct": rv.Direct(), "Checkpointed": rv.Checkpointed(3), "Reversible": rv.Reversible(),
             "resync": rv.Reversible(resync=3), "Backsolve": rv.Backsolve()}

# ------------------------------------------------------------------ the methods that test_fake_array.py leaves out


def own(step: Any, F: Any) -> tuple:
    """A method of a user's: two shears."""
    t0, t1, h, _ = step
    return (rv.Shear("y", ("z",), lambda F, z: F(t0, z, h)), rv.Shear("z", ("y",), lambda F, y: F(t1, y, h)))


METHODS = {
    **{f"Coupled-{base}": rv.Coupled(base) for base in ("euler", "heun2", "ralston3", "bosh3", "dopri5", "tsit5")},
    "Coupled-1": rv.Coupled("midpoint", lam=1), "EES25": rv.EES25(), "EES25-corrected": rv.EES25(correct=1),
    "EES27": rv.EES27(), "EES": rv.EES(stages=5), "NearReversible": rv.NearReversible("rk4"),
    "NearReversible-corrected": rv.NearReversible("heun2", correct=2), "Composition-ALF": rv.Composition(rv.AsynchronousLeapfrog()),
}


@pytest.mark.sample(30)
@pytest.mark.filterwarnings("ignore::revode.ReconstructionWarning")
@pytest.mark.parametrize("mode", GRADIENTS)
@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str, mode: str) -> None:
    both_sides(lambda y0, p: solve(field, y0, TS, p, method=METHODS[name], gradient=GRADIENTS[mode], save=[0, 3, 8]))


@pytest.mark.parametrize("name", ["Coupled-dopri5", "EES27", "NearReversible"])
def test_methods_in_float32(name: str) -> None:
    both_sides(lambda y0, p: solve(field, y0, TS, p, method=METHODS[name], save=[0, 3, 8]), np.float32)


# ------------------------------------------------------------------ noise

def diagonal(t: Any, y: Any, p: Any) -> Any:
    return p["s"] * np.cos(y + t)


def general(t: Any, y: Any, p: Any) -> Any:
    return np.reshape(np.tanh(y @ p["V"]), (*y.shape, M))


def additive(t: Any, y: Any, p: Any) -> Any:
    return p["s"] * (1.0 + t) + 0.0 * y


PATHS = {"Brownian": rv.Brownian(seed=7), "BrownianTree": rv.BrownianTree(seed=7, t0=0.0, t1=1.0, tol=2.0 ** -8)}
NOISY = {"ReversibleHeun": rv.ReversibleHeun(), "Coupled": rv.Coupled("heun2"), "EES25": rv.EES25(),
         "RungeKutta": rv.RungeKutta("heun2")}


@pytest.mark.sample(16)
@pytest.mark.filterwarnings("ignore::revode.ReconstructionWarning")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mode", GRADIENTS)
@pytest.mark.parametrize("name", NOISY)
def test_noise(name: str, mode: str, path: str) -> None:
    if name == "RungeKutta" and mode in ("Reversible", "resync"):
        return                                                     # not reversible
    for diffusion in (diagonal, general):
        both_sides(lambda y0, p, g=diffusion: solve(field, y0, TS, p, method=NOISY[name], gradient=GRADIENTS[mode],
                                                       diffusion=g, noise=PATHS[path], save=[0, 3, 8]))


@pytest.mark.parametrize("path", PATHS)
def test_noise_in_float32_and_by_ito(path: str) -> None:
    for method, options in ((rv.ReversibleHeun(), {}), (rv.ReversibleHeun(), {"interpretation": "ito"}),
                            (rv.RungeKutta("euler"), {"interpretation": "ito"})):
        both_sides(lambda y0, p, m=method, o=options: solve(field, y0, TS, p, method=m, diffusion=diagonal, noise=PATHS[path],
                                                               **o), np.float32)
    both_sides(lambda y0, p: solve(field, y0, TS, p, method=rv.Coupled("euler"), diffusion=additive, noise=PATHS[path]))


def test_a_noisy_solve_is_resumed() -> None:
    def run(y0: Any, p: Any) -> Any:
        given = {"method": rv.ReversibleHeun(), "diffusion": diagonal, "noise": PATHS["Brownian"]}
        first = solve(field, y0, TS[:5], p, **given)
        return solve(field, None, TS[4:], p, state0=first.state, **given)
    both_sides(run)


def test_every_increment_arrives_once_a_step() -> None:
    """One copy to the device for each step of the solve, and for each step undone; besides them the two looks at g."""
    copies = []
    module = sys.modules["fake_array"]
    original = module.asarray
    try:
        module.asarray = lambda x: copies.append(np.shape(x)) or original(x)
        y0, params = to_fake(typed(np.float64))
        rv.grad(lambda y: np.sum(solve(field, y, TS, params, method=rv.ReversibleHeun(), diffusion=diagonal,
                                          noise=PATHS["Brownian"], save=[-1]).y1))(y0)
    finally:
        module.asarray = original
    # 2 looks of 2 arrays; 8 steps there and 8 back; the step before a look of the watch at the end, and that of the start: 2 or 3
    increments = [shape for shape in copies if shape == (BATCH, D)]          # the monitor brings indices, and times
    assert 4 + 16 <= len(increments) <= 4 + 16 + 4 and len(copies) - len(increments) <= 10


# ------------------------------------------------------------------ controls

SERIES = rng.standard_normal((BATCH, 5, CHANNELS))
KNOTS = np.linspace(0.0, 0.5, 5)


def matrix(t: Any, y: Any, p: Any) -> Any:
    return np.reshape(np.tanh(y @ p["C"] + t), (*y.shape, CHANNELS))


@pytest.mark.filterwarnings("ignore::revode.ReconstructionWarning")
@pytest.mark.parametrize("mode", GRADIENTS)
@pytest.mark.parametrize("kind", [rv.LinearPath, rv.Rectilinear, rv.HermiteCubic])
def test_controls(kind: Any, mode: str) -> None:
    for dtype in (np.float64, np.float32):
        control = kind(KNOTS, SERIES.astype(dtype))
        both_sides(lambda y0, p, c=control: solve(matrix, y0, TS, p, method=rv.ReversibleHeun(), gradient=GRADIENTS[mode],
                                                     control=c), dtype)
    one = kind(KNOTS, SERIES[0])                                   # one series serves the whole batch
    both_sides(lambda y0, p: solve(matrix, y0, TS, p, method=rv.Coupled("heun2"), gradient=GRADIENTS[mode], control=one))


# ------------------------------------------------------------------ adaptive steps

ADAPTIVE = {"Coupled": rv.Coupled("bosh3"), "ReversibleHeun": rv.ReversibleHeun(), "EES25": rv.EES25(),
            "RungeKutta": rv.RungeKutta("dopri5")}
LOOSE = rv.PID(rtol=1e-3, atol=1e-4)


@pytest.mark.sample(6)
@pytest.mark.filterwarnings("ignore::revode.ReconstructionWarning")
@pytest.mark.parametrize("mode", ["Direct", "Checkpointed", "Reversible"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_steps(name: str, mode: str) -> None:
    if name == "RungeKutta" and mode == "Reversible":
        return                                                     # not reversible
    for options in ({}, {"save_at": [0.1, 0.4], "dt0": 0.05}):
        for dtype in (np.float64, np.float32):
            both_sides(lambda y0, p, o=options: solve(field, y0, (0.0, 0.5), p, method=ADAPTIVE[name], gradient=GRADIENTS[mode],
                                                         controller=LOOSE, **o), dtype)


def test_adaptive_steps_with_noise_and_with_controls() -> None:
    both_sides(lambda y0, p: solve(field, y0, (0.0, 0.5), p, method=rv.ReversibleHeun(), controller=rv.PID(0.1, 0.1),
                                      diffusion=diagonal, noise=PATHS["BrownianTree"]))
    for control in (rv.LinearPath(KNOTS, SERIES), rv.HermiteCubic(KNOTS, SERIES)):
        both_sides(lambda y0, p, c=control: solve(matrix, y0, (0.0, 0.5), p, method=rv.Coupled("bosh3"), controller=LOOSE,
                                                     control=c))


# ------------------------------------------------------------------ parameters that are numbers, and mixed ones

@pytest.mark.parametrize("gradient", [rv.Direct(), rv.Reversible(), rv.Checkpointed(2)])
def test_numbers_among_the_parameters(gradient: Any) -> None:
    """A Python float and a NumPy scalar act and get their gradients as numbers, whatever the shape of y."""
    def loss(p: Any, y0: Any) -> Any:
        return np.sum(solve(lambda t, y, p: -p["rate"] * y + p["shift"], y0, TS, p, gradient=gradient).ys)
    params = {"rate": 0.7, "shift": np.float64(0.1), "n": 3}
    host, fake = (rv.grad(loss)(params, side(Y0)) for side in (lambda x: x, to_fake))
    for name in ("rate", "shift"):
        assert np.shape(fake[name]) == () and abs(float(fake[name].get()) - float(host[name])) <= 1e-12 * abs(float(host[name]))
    assert fake["n"] is None


@pytest.mark.parametrize(("y0", "params", "sentence"), [
    ({"a": put([1.0]), "b": np.ones(1)}, None, r"solve: y0\['b'\] is a numpy array but y0\['a'\] is a fake_array array; move"),
    (put([1.0]), {"rate": np.array(2.0)}, r"solve: params\['rate'\] is a numpy array but y0 is a fake_array array; move all"),
])
def test_arrays_of_two_devices(y0: Any, params: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        solve(lambda t, y, p: y, y0, TS, params)


# ------------------------------------------------------------------ waiting

def waits(run: Callable) -> int:
    """How often run waits for the device: copies to the host, and Python's truth of an array."""
    count = [0]
    get, truth = FakeArray.get, FakeArray.__bool__

    def counted(original: Callable) -> Callable:
        def call(self: FakeArray, *args: Any) -> Any:
            count[0] += 1
            return original(self, *args)
        return call

    FakeArray.get, FakeArray.__bool__ = counted(get), counted(truth)
    try:
        run()
    finally:
        FakeArray.get, FakeArray.__bool__ = get, truth
    return count[0]


@pytest.mark.parametrize("method", [rv.Coupled("midpoint"), rv.ReversibleHeun()])
def test_no_step_waits_for_the_device(method: Any) -> None:
    """The watch looks every 16 steps (both parts, and their gap); nothing else of a solve or of its reverse sweep grows with N."""
    y0, params = to_fake(typed(np.float64))

    def run(N: int) -> Callable:
        ts = np.linspace(0.0, 1.0, N + 1)
        return lambda: rv.grad(lambda y: np.sum(solve(field, y, ts, params, method=method, save=[-1]).y1))(y0)

    few, many = waits(run(128)), waits(run(384))
    assert many == few, (few, many)
    # going forward a look waits for each part, and for what is judged of them; windows of three neighbours at most
    assert few <= 3 * LOOKS * 3 + 60


# ------------------------------------------------------------------ optimisers

OPTIMISERS = {"sgd": optim.sgd(0.1), "momentum": optim.sgd(lambda n: 0.1 / (n + 1), momentum=0.9), "adam": optim.adam(0.1),
              "adamw": optim.adamw(lambda n: 0.1, weight_decay=0.01)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers(name: str, dtype: Any) -> None:
    _, params = typed(dtype)
    init, update = OPTIMISERS[name]
    gradient = rv.grad(lambda p: np.sum(np.tanh(p["W"] @ p["b"]) ** 2))
    results = []
    for side in (lambda x: x, to_fake):
        p = {**side({"W": params["W"], "b": params["b"]}), "n": 3, "name": None}
        state = init(p)
        for _ in range(3):
            p, state = update(p, gradient(p), state)
        results.append((p, state))
    (host, host_state), (fake, fake_state) = results
    assert_same(fake, host)
    assert int(fake_state["step"]) == 3
    assert_same({k: v for k, v in fake_state.items() if k != "step"}, {k: v for k, v in host_state.items() if k != "step"})
    _, resumed = update(fake, gradient(fake), {**fake_state, "step": put(fake_state["step"])})       # after to_device(state)
    assert int(resumed["step"]) == 4


def test_lbfgs_minimises_on_the_host_what_is_computed_on_the_device() -> None:
    pytest.importorskip("scipy")
    target = rng.standard_normal((2, 3))
    loss = lambda p, target: np.sum((p["W"] - target) ** 2) + (p["c"] - 2.0) ** 2
    results = []
    for side in (lambda x: x, to_fake):
        start, aim = side({"W": np.zeros((2, 3), np.float32), "n": 3}), side(target.astype(np.float32))
        found, result = optim.lbfgs(rv.value_and_grad(lambda p, aim=aim: loss(p, aim)), {**start, "c": side(np.zeros(()))})
        results.append((found, result.nfev))
    (host, n), (fake, m) = results
    assert n == m and fake["n"] == 3
    assert_same({"W": fake["W"], "c": fake["c"]}, {"W": host["W"], "c": host["c"]})
    assert abs(host["W"] - target).max() < 1e-3


# ------------------------------------------------------------------ networks

X = rng.standard_normal((4, 5))
LABELS = np.array([0, 4, 2, 2])
NETWORK = nn.mlp_init(rng, (5, 6, 5), random_biases=True)
SCALE, SHIFT = rng.standard_normal((2, 5))
FUNCTIONS: dict[str, Callable] = {
    **{f.__name__: f for f in (nn.sigmoid, nn.softplus, nn.relu, nn.silu, nn.lipswish, nn.gelu_tanh, nn.softmax, nn.log_softmax,
                               nn.layer_norm, nn.stop_gradient)},
    "softmax-0": lambda x: nn.softmax(x, axis=0), "layer_norm-0": lambda x: nn.layer_norm(x, axis=0),
    "with_time": lambda x: nn.with_time(np.float64(0.5), x),
    "attention": lambda x: nn.softmax(x @ x.T / np.sqrt(5.0)) @ x,
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_nn(name: str, dtype: Any) -> None:
    x = X.astype(dtype)
    weights = rng.standard_normal(FUNCTIONS[name](x).shape).astype(dtype)
    value, grads = rv.value_and_grad(lambda x, w: np.sum(FUNCTIONS[name](x) * w), argnums=(0, 1))(x, weights)
    assert_same(rv.value_and_grad(lambda x, w: np.sum(FUNCTIONS[name](x) * w), argnums=(0, 1))(put(x), put(weights)), (value, grads))


def test_networks_and_losses() -> None:
    model = lambda p, x: nn.layer_norm(nn.mlp(p["layers"], x, nn.silu), p["scale"], p["shift"])
    params = {"layers": NETWORK, "scale": SCALE, "shift": SHIFT}
    losses = {"mse": lambda p, x, target: nn.mse(model(p, x), target),
              "cross_entropy": lambda p, x, labels: nn.cross_entropy(model(p, x), labels)}
    for name, target in (("mse", rng.standard_normal((4, 5))), ("cross_entropy", LABELS)):
        desired = rv.value_and_grad(losses[name], argnums=(0, 1))(params, X, target)
        assert_same(rv.value_and_grad(losses[name], argnums=(0, 1))(to_fake(params), put(X), put(target)), desired)
    # Labels from the host serve as indices, as in CuPy.
    assert_same(rv.value_and_grad(losses["cross_entropy"])(to_fake(params), put(X), LABELS),
                rv.value_and_grad(losses["cross_entropy"])(params, X, LABELS))
    with pytest.raises(ValueError, match="labels from 0 to 4 for 3 classes"):
        nn.cross_entropy(put(X[:, :3]), put(LABELS))


def test_erf_is_taken_from_the_library_of_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeArray, "__module__", "cupy")
    seen = []
    cupyx, scipy, special = (ModuleType(name) for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.special"))
    special.erf = lambda x: seen.append(x) or np.tanh(x)           # what it computes does not matter here
    for module in (cupyx, scipy, special):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    x = np.array([0.3, -0.5])
    assert_same(nn.gelu(put(x)), 0.5 * x * (1.0 + np.tanh(x * (1 / np.sqrt(2.0)))))
    assert len(seen) == 1


# ------------------------------------------------------------------ checks, advice, round-off

def test_check_vjp_on_the_device() -> None:
    fn = lambda p: np.sum(np.tanh(p["W"] @ p["b"]) ** 2) * p["c"]
    params = {"W": HOST["W"], "b": HOST["b"], "c": 0.5, "n": 3}
    assert rv.check_vjp(fn, to_fake(params)) == rv.check_vjp(fn, params) < 1e-6
    # The bound: the error that central differences have at their best step, 20 eps^(2/3).
    wrong = rv.custom_vjp(lambda x: (x * x, lambda g: (g * x,)))
    with pytest.raises(AssertionError, match="relative difference"):
        rv.check_vjp(lambda x: np.sum(wrong(x)), put([1.0, 2.0]), order=1)
    single = put(np.float32([0.3, -0.7]))
    assert rv.check_vjp(lambda x: np.sum(np.tanh(x)), single, order=1) < 20 * float(np.finfo(np.float32).eps) ** (2 / 3)


@pytest.mark.parametrize("method", [rv.Coupled("midpoint", lam=0.999), rv.ReversibleHeun(), rv.EES25(), rv.VelocityVerlet()])
def test_advice_is_the_same(method: Any) -> None:
    y0, params = typed(np.float64)
    ts = np.linspace(0.0, 4.0, 101)
    y0 = (y0, y0) if len(method.outputs) == 2 else y0
    damped = lambda t, y, p: -2.0 * y + 0.1 * field(t, y, p)
    host, fake = (rv.advise(damped, side(y0), ts, side(params), method=method) for side in (lambda x: x, to_fake))
    assert str(fake) == str(host)


def test_lam_from_the_advisor() -> None:
    both_sides(lambda y0, p: solve(field, tree.map(lambda x: x, y0), TS, p, method=rv.Coupled("midpoint", lam="auto")))


def test_round_off_tools_read_device_arrays() -> None:
    a = rng.standard_normal((3, 4))
    b = a + 3 * np.spacing(a)
    assert (scaled_ulps(put(a), put(b)) == scaled_ulps(a, b)).all()
    assert scaled_ulps(put(a), put(b), scale=abs(put(b)).max()).max() == scaled_ulps(a, b).max()
    assert rulp([put(a)], [put(b)]) == rulp([a], [b]) > 0
    assert gulp({"a": put(a)}, {"a": put(b)}) == gulp({"a": a}, {"a": b}) > 0


# ------------------------------------------------------------------ what a caller may do with the results

def test_gradients_are_arrays_of_their_own() -> None:
    """NumPy's broadcast views are read-only and so are copied; CuPy's are not, and a write would hit every entry at once."""
    x = put(np.zeros(3))
    g = rv.grad(lambda x: np.sum(x))(x)
    g[0] = 5.0
    assert g.get().tolist() == [5.0, 1.0, 1.0]
    a, b = rv.grad(lambda a, b: np.sum(a + b), argnums=(0, 1))(x, put(np.ones(3)))
    a[1] = 7.0
    assert b.get().tolist() == [1.0, 1.0, 1.0]


def test_scatter_into_an_array_without_axes() -> None:
    x = put(np.array(2.0))
    g = rv.grad(lambda x: np.sum(x[None] * put([3.0])))(x)
    assert g.shape == () and float(g.get()) == 3.0


def device_leaves(x: Any) -> Iterator[Any]:
    return (leaf for leaf in tree.flatten(x)[0] if hasattr(leaf, "shape"))


def test_stepping_by_hand_and_the_reverse_sweep() -> None:
    y0, params = typed(np.float64)
    ends = []
    for side in (lambda x: x, to_fake):
        *_, (_, state) = rv.steps(field, side(y0), TS, side(params), method=rv.EES27())
        sweep = list(rv.steps_back(field, state, TS, side(params), ay1=side(np.ones_like(y0)), y0=side(y0), method=rv.EES27()))
        ends.append((state.parts, sweep[-1].cotangent, sweep[-1].aparams, sweep[-1].ay0))
    assert_same(ends[1], ends[0])
    assert all(type(leaf) is FakeArray for leaf in device_leaves(ends[1]))


def test_a_batch_over_ranks(caplog: Any) -> None:
    """Sums are made on the device, and go from rank to rank through the host, which is said: the bits of host arrays."""
    def loss(y0: Any) -> Callable:
        return lambda p, rows: np.sum(solve(field, y0[rows], TS, p, save=[-1]).y1 ** 2, -1)

    y0, params = typed(np.float64)
    y0 = np.concatenate([y0, 0.5 * y0, 2.0 * y0])
    on = lambda y0, params: threads(2, lambda comm: parallel.value_and_grad(loss(y0), comm, tile=2)(params, len(y0)))
    say_host.cache_clear()                    # it is said once for each process
    with caplog.at_level("INFO", logger="revode"):
        fake = on(to_fake(y0), to_fake(params))[1]
    assert sum("device arrays go from rank to rank through the host" in x for x in caplog.messages) == 1
    host = on(y0, params)[1]
    assert fake[0] == host[0]
    assert_same(fake[1], host[1])


class Pickled(Thread):
    """A communicator as mpi4py's: what is sent is pickled, which takes device arrays through the host."""

    def send(self, obj: Any, dest: int) -> None:
        super().send(pickle.dumps(obj), dest)

    def recv(self, *, source: int) -> Any:
        return pickle.loads(super().recv(source=source))


class Aware(Pickled):
    """One whose MPI is GPU-aware: the bytes of device arrays, without a word of where they go, once they are computed."""
    gpu_aware, straight = True, 0
    waited: set = set()              # threads that have waited for their stream

    def Send(self, x: FakeArray, dest: int) -> None:
        assert isinstance(x, FakeArray) and x.flags.c_contiguous and get_ident() in self.waited
        self.straight += 1
        super(Pickled, self).send(x._host.tobytes(), dest)

    def Recv(self, x: FakeArray, source: int) -> None:
        sent = super(Pickled, self).recv(source=source)
        assert len(sent) == x.nbytes
        x._host[...] = np.frombuffer(sent, x.dtype).reshape(x.shape)


@pytest.mark.parametrize("ranks", (2, 3, 5))
@pytest.mark.parametrize("kind", (Pickled, Aware))
def test_device_arrays_go_straight_where_the_mpi_is_gpu_aware(kind: type, ranks: int, caplog: Any) -> None:
    """Gradients, gathered solves and what `map` gives: the same bits on each rank; no copy to the host on the way, or it is said."""
    y0, params = typed(np.float64)
    y0, say = np.concatenate([y0, 0.5 * y0, 2.0 * y0]), "device arrays go from rank to rank through the host"

    def on(comm: Any, y0: Any, params: Any) -> tuple:
        spread = lambda y0, p: np.sum(np.mean(parallel.solve(field, y0, TS, p, save=[2, -1], comm=comm, tile=2).ys, 1) ** 2)
        loss = lambda p, rows: np.sum(solve(field, y0[rows], TS, p, save=[-1]).y1 ** 2, -1)
        found = (*parallel.value_and_grad(loss, comm, tile=2)(params, len(y0)), rv.value_and_grad(spread, (0, 1))(y0, params),
                 parallel.map(lambda k: {"a": y0[k:k + 2].T, "k": k}, range(3), comm))
        if comm.Get_rank() == 0:                              # others may have no tile
            assert (comm.Get_size() > 1 and type(comm) is Aware) == (getattr(comm, "straight", 0) > 0)
        return found

    expected = threads(1, lambda comm: on(comm, y0, params))[0]
    say_host.cache_clear()
    with pretended() as cupy, caplog.at_level("INFO", logger="revode"):
        cupy.cuda.get_current_stream = lambda: SimpleNamespace(synchronize=lambda: Aware.waited.add(get_ident()))
        found = threads(ranks, lambda comm: on(comm, to_fake(y0), to_fake(params)), kind)
        assert sum(say in x for x in caplog.messages) == (kind is Pickled)
        for one in found:
            assert one[0] == expected[0]
            assert_same(one[1:], expected[1:])


def test_what_mpi_says_of_itself_and_what_is_said_of_it(monkeypatch: Any) -> None:
    assert not ranks.aware(Pickled(0, [[]], None)) and ranks.aware(Aware(0, [[]], None))
    monkeypatch.setattr(ranks, "mpi_is_aware", lambda: True)
    assert not ranks.aware(Pickled(0, [[]], None)) and ranks.aware(type("Intracomm", (), {"__module__": "mpi4py.MPI"})())
    assert not ranks.aware(type("Intracomm", (), {"__module__": "mpi4py.MPI", "gpu_aware": False})())


@pytest.mark.parametrize("gradient", [rv.Direct(), rv.Checkpointed(3), rv.Reversible(), rv.Backsolve(tol=9.0)], ids=repr)
def test_times_stay_on_the_host_and_so_does_their_gradient(gradient):
    """And what lies between the saved times is on the device."""
    def loss(ts, y0, params):
        sol = rv.solve(field, y0, ts, params, method=rv.ReversibleHeun(), gradient=gradient, backend="eager")
        return np.sum(sol.y1 ** 2)

    y0, params = typed(np.float64)
    host, fake = rv.grad(loss)(TS, y0, params), rv.grad(loss)(TS, to_fake(y0), to_fake(params))
    assert type(fake) is np.ndarray
    np.testing.assert_array_equal(fake, host)
    between = [rv.solve(field, side(y0), TS, side(params), interpolate=True, backend="eager").at([0.1, 0.33])
               for side in (to_fake, lambda x: x)]
    assert_same(*between)

"""revode_cuda without a GPU: its names, what it imports and when, what it says where something is missing, and moving trees.

The GPU is played by fake_array.py: a module `cupy` of a few lines that notes every copy and every wait.
"""
import ast
import builtins
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_array
import numpy as np
import pytest
from fake_array import FakeArray, put

import revode
import revode_cuda as rv
from revode_cuda import arrays

# ------------------------------------------------------------------ names and imports

def test_the_same_public_names() -> None:
    assert set(rv.__all__) - set(revode.__all__) == {"to_device", "to_host", "__version__"}
    assert set(revode.__all__) <= set(rv.__all__)
    own = {"solve", "fixed_point", "save", "optim"}         # these look where the arrays are; all else is revode's own
    for name in revode.__all__:
        assert (getattr(rv, name) is getattr(revode, name)) == (name not in own), name
    assert rv.__version__ == revode.__version__
    assert set(rv.optim.__all__) == {name for name, x in vars(revode.optim).items()
                                     if name[0] != "_" and getattr(x, "__module__", "") == "revode.optim"}


def test_names_are_imported_one_by_one() -> None:
    for node in ast.walk(ast.parse(Path(rv.__file__).read_text())):
        assert not (isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names))


@pytest.mark.parametrize("name", ["solve", "save"])
def test_the_own_functions_take_what_those_of_revode_take(name: str) -> None:
    theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in (revode, rv))
    for parameter in theirs.values():
        if parameter.name != "tree":                           # save calls it x, because of the module of that name
            assert parameter.name in ours and ours[parameter.name].default == parameter.default, parameter
    assert ours.keys() - theirs.keys() == ({"plan"} if name == "solve" else {"x"})


def test_import_touches_neither_cupy_nor_a_driver() -> None:
    code = ("import sys; import revode_cuda, revode_cuda.arrays, revode_cuda.solve; "
            "print([m for m in sys.modules if m.split('.')[0] in ('cupy', 'cupyx', 'cupy_backends', 'scipy')])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ what is missing

MOVES: dict[str, Callable] = {"tree": lambda: rv.to_device({"W": np.ones(2)}), "array": lambda: rv.to_device(np.ones(2))}


@pytest.mark.parametrize("move", MOVES)
def test_without_cupy_it_says_how_to_install_it(move: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.split(".")[0] == "cupy":
            raise ModuleNotFoundError("No module named 'cupy'", name="cupy")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'to_device: CuPy is not installed .*pip install "revode\[cuda\]", or keep NumPy arrays'):
        MOVES[move]()


def fail(error: Exception) -> Callable:
    def call() -> Any:
        raise error
    return call


@pytest.mark.parametrize(("driver", "count", "sentence"), [
    (lambda: 0, fail(RuntimeError("cudaErrorInsufficientDriver")), "there is no NVIDIA driver"),
    (lambda: 13000, lambda: 0, "there is no GPU that this process may use"),
    (lambda: 12000, fail(RuntimeError("cudaErrorInsufficientDriver")), r"the driver cannot be used \(cudaErrorInsufficientDriver\)"),
    (lambda: 13000, lambda: 1, "it does not report a GPU as available"),
])
def test_without_a_driver_or_a_gpu_it_says_so(driver: Callable, count: Callable, sentence: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    cupy: Any = ModuleType("cupy")
    cupy.__version__, cupy.is_available = "14.2.0", lambda: False
    cupy.cuda = SimpleNamespace(runtime=SimpleNamespace(driverGetVersion=driver, getDeviceCount=count))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(RuntimeError, match=f"to_device: CuPy 14.2.0 is installed but {sentence}.*keep NumPy arrays"):
        rv.to_device(np.ones(2))


def test_with_the_real_cupy_and_no_driver() -> None:
    cupy = pytest.importorskip("cupy")
    if cupy.is_available():
        pytest.skip("there is a GPU here: tests/gpu is for it")
    with pytest.raises(RuntimeError, match=r"to_device: CuPy [\d.]+ is installed but there is no"):
        rv.to_device(np.ones(2))


# ------------------------------------------------------------------ there and back

@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A pretended GPU; the list of what was asked of it."""
    log: list[str] = []
    cupy: Any = ModuleType("cupy")

    def asarray(x: Any) -> Any:
        log.append("to")
        return x if type(x) is FakeArray else put(x)

    def get(self: FakeArray, blocking: bool = True) -> np.ndarray:
        log.append("wait and back" if blocking else "back")
        return self._host.copy()

    cupy.is_available, cupy.asarray = lambda: True, asarray
    cupy.cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(synchronize=lambda: log.append("wait")))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(fake_array.FakeArray, "get", get)
    yield log


TREE = {"W": np.arange(6.0).reshape(2, 3), "layers": [np.ones(2, np.float32), (np.array(3), None)], "n": 3, "name": "tanh",
        "on": True, "rate": 0.5, "scalar": np.float32(2.0), "index": np.array([True, False])}


def test_trees_go_there_and_back(device: list[str]) -> None:
    there = rv.to_device(TREE)
    assert device == ["to"] * 4                                       # and nobody waited
    assert [type(x).__name__ for x in revode.tree.flatten(there)[0]] == [
        "FakeArray", "FakeArray", "FakeArray", "NoneType", "int", "str", "bool", "float", "float32", "FakeArray"]
    device.clear()
    back = rv.to_host(there)
    assert device == ["back"] * 4 + ["wait"]                          # one wait for all leaves
    for a, b in zip(revode.tree.flatten(back)[0], revode.tree.flatten(TREE)[0], strict=True):
        assert type(a) is type(b)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all()
        else:
            assert a == b
    assert revode.tree.flatten(back)[1] == revode.tree.flatten(TREE)[1]


def test_nothing_to_move_needs_no_gpu() -> None:
    rest = {"n": 3, "name": None, "deep": [True, ("a", 0.5)]}
    assert rv.to_device(rest) is rest
    assert rv.to_host(rest) == rest
    x = np.ones(2)
    assert rv.to_host([x])[0] is x


def test_what_cannot_be_moved_is_named(device: list[str]) -> None:
    with pytest.raises(TypeError, match=r"to_device: the leaf \['a'\]\[1\] is an array of <U1; a GPU holds numbers and bools"):
        rv.to_device({"a": [np.ones(2), np.array(["x"])]})
    for move, what in ((rv.to_device, "move the arrays to the device before"), (rv.to_host, "read its .value")):
        with pytest.raises(TypeError, match=rf"{move.__name__}: the leaf \['b'\] is a tensor.*{what}"):
            rv.grad(lambda x, move=move: np.sum(move({"a": 1, "b": x})["b"]))(np.ones(2))


def test_save_writes_device_arrays(device: list[str], tmp_path: Path) -> None:
    rv.save(str(tmp_path / "params"), {"W": put(np.eye(2)), "n": 3})
    found = rv.load(str(tmp_path / "params"))
    assert type(found["W"]) is np.ndarray and (found["W"] == np.eye(2)).all() and found["n"] == 3


# ------------------------------------------------------------------ solve

def decay(t: Any, y: Any, params: Any) -> Any:
    return -params["rate"] * y


TS = np.linspace(0.0, 1.0, 5)


def test_homes() -> None:
    assert arrays.home(np.ones(2)) == "host" and arrays.home(put([1.0])) == "cuda:0"
    assert [arrays.home(x) for x in (1.0, np.float64(1.0), None, "a", [1.0])] == [None] * 5
    second = type("OnSecond", (FakeArray,), {"device": SimpleNamespace(id=1)})(np.ones(1))
    assert arrays.home(second) == "cuda:1"
    with pytest.raises(TypeError, match=r"solve: params\['a'\]\[0\] is on cuda:1 but y0 is on cuda:0; move all of them to one dev"):
        arrays.check_one_home("solve", y0=put([1.0]), params={"a": [second]})
    assert arrays.check_one_home("solve", y0=None, params={"n": 3}) is None


@pytest.mark.parametrize(("y0", "params", "sentence"), [
    (put([1.0]), {"rate": np.ones(1)}, r"solve: params\['rate'\] is on host but y0 is on cuda:0; move all of them to one device"),
    (put([1.0]), {"rate": np.array(1.0)}, r"solve: params\['rate'\] is on host but y0 is on cuda:0"),
    (np.ones(1), {"rate": put([1.0])}, r"solve: params\['rate'\] is on cuda:0 but y0 is on host"),
    ({"a": np.ones(1), "b": put([1.0])}, None, r"solve: y0\['b'\] is on cuda:0 but y0\['a'\] is on host"),
])
def test_mixed_devices_are_refused_by_the_name_of_the_leaf(y0: Any, params: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        rv.solve(decay, y0, TS, params)


def test_a_state_of_another_device_is_refused() -> None:
    state = revode.solve(decay, np.ones(1), TS, {"rate": 1.0}).state
    with pytest.raises(TypeError, match=r"solve: state0\['y'\] is on host but params\['rate'\] is on cuda:0"):
        rv.solve(decay, None, TS + 1.0, {"rate": put([1.0])}, state0=state)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_op_by_op_is_what_revode_does(backend: str) -> None:
    """Equal bits: the same function runs. On device arrays of the stand-in it does what eager NumPy does."""
    desired = revode.solve(decay, np.ones(2), TS, {"rate": np.ones(2)}, save=[0, -1], backend=backend)
    host = rv.solve(decay, np.ones(2), TS, {"rate": np.ones(2)}, save=[0, -1], backend=backend)
    assert (host.ys == desired.ys).all() and type(host.ys) is np.ndarray
    fake = rv.solve(decay, put(np.ones(2)), TS, {"rate": put(np.ones(2))}, save=[0, -1], backend=backend)
    eager = revode.solve(decay, np.ones(2), TS, {"rate": np.ones(2)}, save=[0, -1], backend="eager")
    assert type(fake.ys) is FakeArray and (fake.ys.get() == eager.ys).all() and type(fake.ts) is np.ndarray


def test_gradients_pass_through() -> None:
    def loss(params: Any, solve: Callable, y0: Any) -> Any:
        return np.sum(solve(decay, y0, TS, params, backend="eager").y1)
    desired = revode.grad(loss)({"rate": np.ones(2)}, revode.solve, np.ones(2))["rate"]
    assert (rv.grad(loss)({"rate": put(np.ones(2))}, rv.solve, put(np.ones(2)))["rate"].get() == desired).all()


def test_bad_options_of_its_own() -> None:
    with pytest.raises(ValueError, match="backend='gpu'; one of 'auto', 'eager', 'fused', 'cuda', 'replay', 'native'"):
        rv.solve(decay, np.ones(1), TS, {"rate": 1.0}, backend="gpu")
    with pytest.raises(ValueError, match="arithmetic='exact'; 'fast' or 'strict'"):
        rv.solve(decay, np.ones(1), TS, {"rate": 1.0}, arithmetic="exact")
    with pytest.raises(ValueError, match="plan: 'tile' cannot be chosen; regime, T, threads, state, params, padded, graph, prefetch"):
        rv.solve(decay, np.ones(1), TS, {"rate": 1.0}, plan={"tile": 3})
    with pytest.raises(TypeError, match="backend='native' runs on the host, but y0 is on cuda:0; use 'fused' or 'eager', or move"):
        rv.solve(decay, put(np.ones(1)), TS, {"rate": 1.0}, backend="native")


def test_an_error_of_the_field_is_not_taken_for_a_reason_to_go_op_by_op() -> None:
    calls = []

    def broken(t: Any, y: Any, params: Any) -> Any:
        calls.append(t)
        raise NotImplementedError("a field that is not finished")

    with pytest.raises(NotImplementedError, match="not finished"):
        rv.solve(broken, put([1.0]), TS)
    assert len(calls) == 1

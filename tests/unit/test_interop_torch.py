"""Operations of PyTorch: gradients against finite differences and against this package's, tensors of every kind, refusals."""
from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revode as rv
from revode.engine import kept

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'revode[interop]'")
from revode.interop import torch as interop  # noqa: E402

TS = np.linspace(0.0, 1.0, 9)
METHODS = {"coupled": rv.Coupled("midpoint"), "reversible Heun": rv.ReversibleHeun(), "EES": rv.EES25()}


def field(t: Any, y: Any, p: Any) -> Any:
    return np.tanh(y @ p["W"] + t * p["b"]) @ p["V"]


def arrays(dtype: Any = np.float64) -> tuple[np.ndarray, dict]:
    rng = np.random.default_rng(0)
    shapes = {"W": (3, 2), "b": (2,), "V": (2, 3)}
    return rng.normal(size=(2, 3)).astype(dtype), {
        name: (0.7 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def tensors(dtype: Any = np.float64) -> tuple[Any, dict]:
    y0, params = arrays(dtype)
    return torch.tensor(y0, requires_grad=True), {name: torch.tensor(x, requires_grad=True) for name, x in params.items()}


@pytest.mark.parametrize("name", METHODS)
def test_gradcheck(name: str) -> None:
    """y0 and params; central differences of step 1e-6 are within 1e-5 + 1e-3 |a| of a gradient whose third derivatives are O(1)."""
    y0, params = tensors()

    def run(y0: Any, *leaves: Any) -> Any:
        found = interop.solve(field, y0, TS, dict(zip(params, leaves, strict=True)), method=METHODS[name])
        return found.ys, found.y1

    assert torch.autograd.gradcheck(run, (y0, *params.values()))


def test_gradcheck_in_times() -> None:
    """Where they require it; the same bound."""
    y0, params = tensors()
    ts = torch.tensor(TS, requires_grad=True)
    run = lambda ts, y0: interop.solve(field, y0, ts, params, method=rv.Coupled("midpoint")).ys
    assert torch.autograd.gradcheck(run, (ts, y0))
    found = interop.solve(field, y0, ts, params)
    assert type(found.ts) is np.ndarray and found.ts.tolist() == TS.tolist()
    with pytest.raises(TypeError, match="with controller= times get no gradient"):
        interop.solve(field, y0, ts, params, method=rv.Coupled("bosh3"), controller=rv.PID(1e-3, 1e-6))


def test_gradcheck_of_an_equilibrium() -> None:
    z0, params = tensors()
    x = torch.tensor(arrays()[0] + 1.0, requires_grad=True)

    def run(z0: Any, W: Any, V: Any, x: Any) -> Any:
        return interop.fixed_point(lambda z, p, x: np.tanh(0.5 * z @ p["W"] @ p["V"] + x), z0, {"W": W, "V": V}, x, method=rv.RevDEQ(),
                                   tol=None, max_steps=6)

    assert torch.autograd.gradcheck(run, (z0, params["W"], params["V"], x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_is_this_packages_to_the_last_bit(dtype: Any) -> None:
    (y0, params), (a, p) = tensors(dtype), arrays(dtype)
    how: dict = {"method": rv.Coupled("midpoint"), "gradient": rv.Reversible()}
    found = interop.solve(field, y0, TS, params, **how)
    found.ys.square().sum().backward()
    _, (ay0, ap) = rv.value_and_grad(lambda y0, p: (rv.solve(field, y0, TS, p, **how).ys ** 2).sum(), argnums=(0, 1))(a, p)
    np.testing.assert_array_equal(y0.grad.numpy(), ay0)
    assert y0.grad.dtype == y0.dtype
    for name in p:
        np.testing.assert_array_equal(params[name].grad.numpy(), ap[name])
    assert found.stats.nvjp > 0 and found.ts[-1] == 1.0


def test_nothing_is_copied_on_the_way_in() -> None:
    x = torch.ones(4, 3).T
    assert np.shares_memory(interop.to_plain(x), x.numpy())


@pytest.mark.parametrize("backend", ["eager", "replay"])
def test_large_tensors_are_let_go(backend: str) -> None:
    """Of more than 64 kB, which a tape would keep read-only were they NumPy's: nothing of a layer outlives its gradient."""
    W = torch.eye(100, dtype=torch.float64, requires_grad=True)
    y1 = interop.solve(lambda t, y, p: np.tanh(y @ p), torch.ones(1, 100, dtype=torch.float64), TS, W, method=rv.Coupled(),
                       backend=backend).y1
    grad, = torch.autograd.grad(y1.sum(), W)
    assert float(grad.abs().sum()) > 0.0
    assert not kept._frozen and interop.to_plain(W).flags.writeable


def test_only_what_is_asked_for_is_differentiated() -> None:
    y0, params = tensors()
    params = {**params, "b": params["b"].detach(), "n": torch.tensor(3), "name": "net", "k": 2.0}
    interop.solve(field, y0.detach(), TS, params, method=rv.Coupled()).y1.sum().backward()
    assert y0.grad is None and params["W"].grad is not None
    with torch.no_grad():
        assert interop.solve(field, y0, torch.as_tensor(TS), params).stats.nvjp == 0


def test_what_is_written_to_meanwhile() -> None:
    """To an input: PyTorch says so. To the saved states: they are the user's, and the gradient stays what it was."""
    y0, params = tensors()
    wanted, = torch.autograd.grad(interop.solve(field, y0, TS, params, method=rv.Coupled()).y1.sum(), y0)
    found = interop.solve(field, y0, TS, params, method=rv.Coupled())
    loss = found.y1.sum()
    with torch.no_grad():
        found.ys.fill_(7.0)
    torch.testing.assert_close(torch.autograd.grad(loss, y0, retain_graph=True)[0], wanted, rtol=0, atol=0)
    with torch.no_grad():
        params["W"].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_layer_trains() -> None:
    """And its parameters are those that it was given, by name."""
    y0, params = arrays(np.float32)
    layer = interop.layer(field, TS, params, method=rv.ReversibleHeun())
    assert list(layer.state_dict()) == ["W", "b", "V"] and "ReversibleHeun" in repr(layer)
    optimiser, inputs, losses = torch.optim.Adam(layer.parameters(), 0.1), torch.tensor(y0), []
    for _ in range(12):
        optimiser.zero_grad()
        loss = (layer(inputs) + inputs).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("params", [{"w-1": 1.0, "w_1": 2.0}, {"type": 1.0}], ids=["twice", "a module's own"])
def test_no_parameter_takes_the_place_of_another(params: Any) -> None:
    with pytest.raises(ValueError, match="rename one of them"):
        interop.layer(field, TS, params)


def test_an_option_that_wants_a_gradient_is_refused() -> None:
    y0, params = tensors()
    stops = torch.tensor([0.3], dtype=torch.float64)
    interop.solve(field, y0, TS, params, stops=stops)
    with pytest.raises(TypeError, match=r"interop\.torch\.solve: stops requires a gradient"):
        interop.solve(field, y0, TS, params, stops=stops.requires_grad_())


def test_containers_of_parameters() -> None:
    y0, params = tensors()
    held = torch.nn.ParameterDict({name: torch.nn.Parameter(x.detach()) for name, x in params.items()})
    interop.solve(field, y0, TS, held, method=rv.Coupled()).y1.sum().backward()
    assert all(x.grad is not None for x in held.values())
    leaf = torch.nn.Parameter(y0.detach())
    listed = interop.layer(lambda t, y, p: y * p[0][0] + p[1], TS, [torch.nn.ParameterList([leaf]), y0.detach()])
    assert [name for name, _ in listed.named_parameters()] == ["0__0", "1"]
    listed(y0).sum().backward()


@pytest.mark.parametrize("name", ["grad", "vmap"])
def test_transforms_of_functions_are_refused_in_one_sentence(name: str) -> None:
    y0, params = arrays()
    params = {name: torch.tensor(x) for name, x in params.items()}
    loss = lambda y0: interop.solve(field, y0, TS, params, method=rv.Coupled()).y1.sum()
    with pytest.raises(RuntimeError, match=r"interop\.torch\.solve: it is no part of torch\.func \(grad, vmap, jvp\); take gradients"):
        getattr(torch.func, name)(loss)(torch.tensor(y0))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")         # of dynamo's own
def test_compiled_code_breaks_its_graph_here() -> None:
    y0, params = tensors()

    def model(y0: Any) -> Any:
        return interop.solve(field, torch.tanh(y0), TS, params, method=rv.Coupled()).y1.square().sum()

    torch.testing.assert_close(torch.compile(model, backend="eager")(y0), model(y0), rtol=1e-14, atol=0)
    torch.compiler.reset()
    with pytest.raises(Exception, match=r"(?i)torch\.compiler\.disable|skip"):
        torch.compile(model, backend="eager", fullgraph=True)(y0)


@pytest.mark.parametrize(("change", "says"), [
    (lambda y0, p: (y0, {**p, "W": p["W"].to("meta")}), r"params\['W'\] is on meta"),
    (lambda y0, p: (y0, {**p, "W": p["W"].to(torch.bfloat16)}), r"params\['W'\] has dtype torch.bfloat16"),
    (lambda y0, p: (y0.to(torch.float32), p), "float32"),
])
def test_refusals_name_the_tensor(change: Callable, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        interop.solve(field, *(lambda y0, p: (y0, TS, p))(*change(*tensors())))


def test_two_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU: its tensors are stood in for by those without memory."""
    y0, params = tensors()
    call = interop.Operation("interop.torch.solve", field, {"y0": y0, "params": params}, interop.is_tensor)
    call.arrays[1] = type("OnGPU", (), {"device": torch.device("cuda:0"), "dtype": torch.float64})()
    with pytest.raises(TypeError, match=r"params\['W'\] is on cuda:0, and y0 is on cpu; move one of them"):
        interop.checked(call, ("cpu", "cuda"))


def test_an_array_of_another_library_is_named() -> None:
    """CuPy's beside tensors on the CPU, say."""
    other = type("ndarray", (), {"__module__": "cupy.core", "__dlpack__": None})()
    y0, params = tensors()
    with pytest.raises(TypeError, match=r"interop.torch.solve: params\['W'\] is an array of cupy, and y0 is one of torch"):
        interop.solve(field, y0, TS, {**params, "W": other})
    with pytest.raises(TypeError, match=r"interop.torch.fixed_point: z0 is on meta; it takes tensors on cpu"):
        interop.fixed_point(lambda z, p, x: z, y0.to("meta"))


def test_there_is_no_second_derivative() -> None:
    y0, params = tensors()
    a, = torch.autograd.grad(interop.solve(field, y0, TS, params, method=rv.Coupled()).y1.sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError, match="a derivative of the derivative"):
        a.sum().backward()


def test_the_program_of_the_page_learns(capsys: pytest.CaptureFixture) -> None:
    """Four steps, one epoch: far from a tenth, which is chance."""
    program = runpy.run_path(str(Path(rv.__file__).parents[1] / "docs" / "examples" / "torch" / "digits.py"))
    program["main"](1, steps=4)
    assert float(capsys.readouterr().out.split()[-2]) > 40.0

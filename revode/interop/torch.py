"""Solves and fixed points as operations of PyTorch: an autograd.Function whose forward and backward are this package's.

Tensors go in and out by DLPack: on the CPU nothing is copied on the way in; tensors on a GPU are seen by CuPy, and the work is
queued in PyTorch's current stream. Inside torch.compile an operation is an explicit graph break: it runs, and is not traced.
"""
from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import numpy as np
import torch

from ..engine import tree
from ..engine.tensor import value_of
from ..solve import solve as solve_arrays
from .operation import Operation, Solved, equilibrium

DTYPES = (torch.float32, torch.float64)


class Once(torch.autograd.Function):
    """The first `count` tensors, as values that depend on all of them in a way that is not known."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: torch.Tensor) -> tuple:
        return tuple(x.detach() for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        raise RuntimeError("interop.torch: a derivative of the derivative was asked for; these operations give first derivatives. "
                           "revode.hessian and revode.hvp give second ones")


class Run(torch.autograd.Function):
    """One operation."""

    @staticmethod
    def forward(ctx: Any, call: Operation, *tensors: torch.Tensor) -> tuple:
        plain, wanted = [to_plain(x) for x in tensors], ctx.needs_input_grad[1:]
        with stream_of(tensors):
            outputs, ctx.pull = call.with_pull(plain, wanted) if any(wanted) else (call.value(plain), None)
        ctx.save_for_backward(*tensors)              # PyTorch says where one of them has been written to in the meantime
        ctx.set_materialize_grads(False)
        return tuple(to_tensor(y) for y in outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        tensors = ctx.saved_tensors
        with stream_of(tensors):
            found = ctx.pull([None if g is None else to_plain(g) for g in cotangents])
        made = [to_tensor(a) for a in found if a is not None]
        if torch.is_grad_enabled():                  # create_graph=True
            made = Once.apply(len(made), *made, *tensors, *(g for g in cotangents if g is not None))
        left = iter(made)
        return None, *(None if a is None else next(left) for a in found)


def to_plain(x: torch.Tensor) -> Any:
    """The same memory as an array of NumPy, or of CuPy."""
    x = x.detach()
    if x.device.type == "cpu":
        return np.from_dlpack(x)
    import cupy
    return cupy.from_dlpack(x)


def to_tensor(x: Any) -> torch.Tensor:
    """The same memory as a tensor; a copy where somebody else still needs what is there."""
    if isinstance(x, (np.ndarray, np.generic)):
        x = np.asarray(x)
        return torch.from_dlpack(x if x.flags.writeable and x.flags.owndata else x.copy())
    return torch.from_dlpack(x if x.flags.owndata else x.copy())


def stream_of(tensors: Any) -> AbstractContextManager:
    """CuPy at work in PyTorch's current stream, where tensors are on a GPU."""
    device = next((x.device for x in tensors if x.device.type == "cuda"), None)
    if device is None:
        return nullcontext()
    import cupy
    stack = ExitStack()
    stack.enter_context(cupy.cuda.Device(device.index))
    stack.enter_context(cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream, device.index))
    return stack


def opened(x: Any) -> Any:
    """A tree in which PyTorch's containers of parameters are dicts and lists."""
    if isinstance(x, (torch.nn.ParameterDict, dict)):
        return {key: opened(value) for key, value in x.items()}
    if isinstance(x, (torch.nn.ParameterList, list)):
        return [opened(value) for value in x]
    return x


def checked(call: Operation, homes: tuple[str, ...]) -> Operation:
    """All tensors on one device, of these kinds, and of a dtype that a solve takes. The message names the tensor."""
    first: tuple = ()
    for name, x in zip(call.names, call.arrays, strict=True):
        if x.device.type not in homes:
            raise TypeError(f"{call.name}: {name} is on {x.device}; it takes tensors on {' or '.join(homes)}")
        first = first or (name, x.device)
        if x.device != first[1]:
            raise TypeError(f"{call.name}: {name} is on {x.device}, and {first[0]} is on {first[1]}; move one of them, "
                            f"such as with {name}.to({str(first[1])!r})")
        if (x.is_floating_point() and x.dtype not in DTYPES) or x.is_complex():
            raise TypeError(f"{call.name}: {name} has dtype {x.dtype}; float32 or float64 is solved")
    return call


def check_options(name: str, options: dict) -> None:
    """TypeError for an option that requires a gradient, which nobody would give it."""
    for option, x in options.items():
        if any(is_tensor(leaf) and leaf.requires_grad for leaf in tree.flatten(x)[0]):
            raise TypeError(f"{name}: {option} requires a gradient, and the arguments before it alone get one; pass it detached, "
                            f"{option}.detach(), or take this gradient with revode.solve itself")


def run(call: Operation, homes: tuple[str, ...] = ("cpu", "cuda")) -> Any:
    """The outputs of an operation, in the form in which its function returns them."""
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(f"{call.name}: it is no part of torch.func (grad, vmap, jvp); take gradients with torch.autograd, and give "
                           "a batch as an axis of the state")
    found = Run.apply(checked(call, homes), *call.arrays)
    return tree.unflatten(call.made, list(found))


def is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


@torch.compiler.disable
def solve(field: Callable, y0: Any, ts: Any, params: Any = None, **options: Any) -> Solved:
    """revode.solve for tensors of PyTorch, differentiable by it.

    Parameters
    ----------
    field : field(t, y, params) -> dy/dt, a plain NumPy function: it sees arrays, not tensors.
    y0 : (..., d) tensor, float32 or float64, on the CPU or a GPU; or a tree of tensors.
    ts : (N + 1,) times; a tensor of them gets a gradient where it requires one, as revode.solve gives it (a fixed grid, on the CPU).
    params : tree of tensors (an nn.ParameterDict too), with numbers and whatever else the field reads.
    options : as for revode.solve: method, gradient, save, backend, controller, noise and the rest. On a GPU they are those of
        revode_cuda.solve.

    Returns Solved(ts, ys, y1, stats), with ys and y1 tensors that carry gradients to y0, params and ts.
    Raises TypeError where tensors live on two devices, with the name of the tensor, or have another dtype; otherwise what
    revode.solve raises. RuntimeError for a derivative of the derivative, and by PyTorch where y0 or a parameter was written to before
    backward.

    Cost: that of revode.solve; nothing is copied on the way in, and the saved states once on the way out.

    Example
    -------
    >>> y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> solve(lambda t, y, p: -y, y0, np.linspace(0.0, 1.0, 101)).y1.sum().backward()
    >>> [round(float(a), 4) for a in y0.grad]
    [0.3679, 0.3679]
    """
    check_options("interop.torch.solve", options)
    ts = ts.detach().cpu().numpy() if is_tensor(ts) and not ts.requires_grad else ts
    stats: list = []

    def function(y0: Any, params: Any, moved: Any = ts) -> tuple:
        sol = solver(field, y0, moved, params, **options)
        stats.append((value_of(sol.ts), sol.stats))
        return sol.ys, sol.y1

    trees = {"y0": y0, "params": opened(params), **({"ts": ts} if is_tensor(ts) else {})}
    call = Operation("interop.torch.solve", function, trees, is_tensor)
    solver = solve_arrays if not any(x.device.type == "cuda" for x in call.arrays) else on_gpu()
    ys, y1 = run(call)
    return Solved(stats[-1][0], ys, y1, stats[-1][1])


def on_gpu() -> Callable:
    from revode_cuda import solve
    return solve


@torch.compiler.disable
def fixed_point(f: Callable, z0: Any, params: Any = None, x: Any = None, **options: Any) -> Any:
    """revode.fixed_point for tensors of PyTorch on the CPU: an equilibrium layer.

    Parameters
    ----------
    f : f(z, params, x), shaped like z; a plain NumPy function.
    z0, params, x : trees of tensors, as for revode.fixed_point.
    options : method, tol, atol, max_steps, gradient, compute, backend: as there.

    Returns z, a tree of tensors like z0 that carries gradients to z0, params and x.
    Raises what solve raises, and what revode.fixed_point raises.

    Cost: that of revode.fixed_point.

    Example
    -------
    >>> x = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    >>> z = fixed_point(lambda z, p, x: np.cos(0.5 * z) + x, torch.zeros(1, dtype=torch.float64), x=x, tol=1e-12)
    >>> round(z.item(), 6)
    0.981888
    """
    check_options("interop.torch.fixed_point", options)
    trees = {"z0": z0, "params": opened(params), "x": opened(x)}
    return run(Operation("interop.torch.fixed_point", equilibrium(f, options), trees, is_tensor), ("cpu",))


class Layer(torch.nn.Module):
    """y(ts[0]) -> y(ts[-1]) as a module, whose parameters are the leaves of params. See `layer`."""

    def __init__(self, field: Callable, ts: Any, params: Any, options: dict) -> None:
        super().__init__()
        self.field, self.ts, self.options = field, ts, options
        leaves, self.structure = tree.flatten(opened(params))
        self.names = ["".join(c if c.isalnum() else "_" for c in path).strip("_") or "params" for path in tree.paths(opened(params))]
        for name, x in zip(self.names, leaves, strict=True):
            if hasattr(self, name):                  # PyTorch would put the second parameter in the place of the first
                raise ValueError(f"interop.torch.layer: two names in params would be {name!r} in the module, or every module has "
                                 "such an attribute; rename one of them")
            value = x if is_tensor(x) else torch.as_tensor(np.array(x))
            if value.is_floating_point():
                self.register_parameter(name, value if isinstance(value, torch.nn.Parameter) else torch.nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, y0: Any) -> Any:
        params = tree.unflatten(self.structure, [getattr(self, name) for name in self.names])
        return solve(self.field, y0, self.ts, params, save=[-1], **self.options).y1

    def extra_repr(self) -> str:
        return f"{getattr(self.field, '__name__', self.field)}, {len(self.ts) - 1} steps, {self.options.get('method')}"


def layer(field: Callable, ts: Any, params: Any, **options: Any) -> Layer:
    """A neural differential equation as a torch.nn.Module: y0 -> y1.

    Parameters
    ----------
    field, ts, options : as for solve; save is the end alone.
    params : tree of arrays or tensors, such as rv.nn.mlp_init makes; the float leaves become parameters of the module, named by
        their place in the tree (0_W, 0_b, 1_W).

    Returns a module for optimisers, state_dict and .to(); its forward takes y0 (..., d) and returns y1 of the same shape.
    Raises what solve raises, when it is called.

    Cost: that of solve, with two states of memory for a reversible method, whatever the number of steps.

    Example
    -------
    >>> decay = layer(lambda t, y, p: -p["rate"] * y, np.linspace(0.0, 1.0, 11), {"rate": np.float64(1.0)})
    >>> [name for name, _ in decay.named_parameters()], round(decay(torch.ones(1, dtype=torch.float64)).item(), 4)
    (['rate'], 0.3679)
    """
    return Layer(field, ts, params, options)

"""The cases by which HIPS autograd tests its own rules, over shapes, axes, keepdims and broadcasting, as numbers: value, gradient and
a product with the second derivative of each are autograd's.

A case is a function of the module np, which is autograd's NumPy or NumPy, and arrays. tests/unit/engine_table.py has the oracle by
complex step for the same functions; here the shapes are many. Left out is where autograd has no rule or a wrong one: where and outer
that broadcast, negative axes of transpose, rollaxis and repeat, flip, tile with fewer numbers than axes, gradient along two axes,
full_like, rfft of odd length.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import revode as rv

CASES: dict[str, tuple[Callable, tuple]] = {}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Entries in (-2, 2) at least .04 apart in their order, so that neither side meets a tie: random places on a grid."""
    rng = np.random.default_rng((seed, *shape))
    n = int(np.prod(shape))
    return rng.permutation(np.linspace(-2.0, 2.0, n + 2)[1:-1] + rng.uniform(-0.01, 0.01, n) / max(1, n)).reshape(
        shape
    )


def case(name: str, f: Callable, *args: np.ndarray) -> None:
    assert name not in CASES, name
    CASES[name] = f, args


def shapes(name: str, f: Callable, *lists: Any) -> None:
    """f on every combination of shapes."""
    for chosen in itertools.product(*lists):
        case(f"{name} {chosen}", f, *(draw(*shape, seed=i) for i, shape in enumerate(chosen)))


VECTOR, MATRIX, TENSOR = (4,), (3, 4), (2, 3, 4)

# reductions: no axis, each axis, negative ones, pairs; kept or not
for name in ("sum", "mean", "prod", "var", "std", "max", "min"):
    for shape, axis, keep in itertools.product(
        [(), (1,), VECTOR, MATRIX, TENSOR], [None, 0, 1, -1, (0, 1), (-2, 0)], [False, True]
    ):
        if (
            np.all(np.abs([i + 0.5 for i in np.atleast_1d(axis if axis is not None else 0)]) <= max(0.5, len(shape)))
            and (shape or axis is None)
            and not (name in ("var", "std") and np.prod(shape) < 2)
            and not (name == "prod" and type(axis) is tuple)
            and not (type(axis) is tuple and len(set(i % len(shape) for i in axis)) < 2)
        ):
            case(
                f"{name} {shape} {axis} {keep}",
                lambda np, a, n=name, axis=axis, keep=keep: getattr(np, n)(a, axis=axis, keepdims=keep),
                draw(*shape),
            )
    if name in ("var", "std"):
        case(f"{name} ddof", lambda np, a, n=name: getattr(np, n)(a, axis=1, ddof=1), draw(*MATRIX))
for axis in (None, 0, 1, -1):
    case(f"cumsum {axis}", lambda np, a, axis=axis: np.cumsum(a, axis=axis), draw(*MATRIX))
    case(f"argsort {axis}", lambda np, a, axis=axis: np.sort(a.flatten() if axis is None else a[:, 0]), draw(*MATRIX))

# one argument, elementwise
SMALL = {"arcsin", "arccos", "arctanh", "tan"}
POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "arccosh"}
for name in (
    "abs",
    "fabs",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "square",
    "negative",
    "reciprocal",
    "sin",
    "cos",
    "tan",
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "arcsinh",
    "arccosh",
    "arctanh",
    "sinc",
    "deg2rad",
    "rad2deg",
    "degrees",
    "radians",
    "real",
    "nan_to_num",
):
    for shape in ((), VECTOR, MATRIX):
        x = draw(*shape, seed=5)
        x = 0.45 * x if name in SMALL else 1.2 + np.abs(x) if name in POSITIVE else x + 0.003
        case(f"{name} {shape}", lambda np, a, n=name: getattr(np, n)(a), x)

# two arguments: every pair of shapes that broadcasts
PAIRS = [
    ((), ()),
    ((), VECTOR),
    (VECTOR, ()),
    (VECTOR, VECTOR),
    (MATRIX, VECTOR),
    (VECTOR, MATRIX),
    ((3, 1), VECTOR),
    ((1, 4), (3, 1)),
    (TENSOR, (3, 1)),
    ((1,), MATRIX),
    ((2, 1, 4), (3, 1)),
]
for name in (
    "add",
    "subtract",
    "multiply",
    "divide",
    "true_divide",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "logaddexp",
    "logaddexp2",
    "arctan2",
    "power",
    "mod",
    "remainder",
    "hypot",
):
    if not hasattr(anp, name):
        continue
    for left, right in PAIRS:
        a, b = draw(*left), draw(*right, seed=1) + 0.017
        a, b = (
            (np.abs(a) + 0.3, b)
            if name == "power"
            else (a, np.abs(b) + 2.7)
            if name in ("mod", "remainder")
            else (a, b)
        )
        if name not in ("hypot",):
            case(f"{name} {left} {right}", lambda np, a, b, n=name: getattr(np, n)(a, b), a, b)
for text, f in {
    "+": lambda np, a, b: a + b,
    "-": lambda np, a, b: a - b,
    "*": lambda np, a, b: a * b,
    "/": lambda np, a, b: a / b,
}.items():
    shapes(f"operator {text}", f, [(), VECTOR], [(), VECTOR, MATRIX])
case("** of numbers", lambda np, a: a**3 + (a * a + 1) ** 0.5 + 2.0**a, draw(*MATRIX))
for low, high in ((-0.5, 0.5), (None, 0.3), (-0.3, None)):
    case(
        f"clip {low} {high}",
        lambda np, a, lo=low, hi=high: (
            np.clip(a, lo, hi) if None not in (lo, hi) else (np.minimum(a, hi) if lo is None else np.maximum(a, lo))
        ),
        draw(*MATRIX),
    )
shapes("where", lambda np, a, b: np.where(np.arange(4) % 2 == 0, a, b), [VECTOR], [VECTOR])

# products
shapes("dot", lambda np, a, b: np.dot(a, b), [(4,), (3, 4), (2, 3, 4)], [(4,), (4, 2), (5, 4, 2)])
shapes("dot of numbers", lambda np, a, b: np.dot(a, b), [()], [(), VECTOR, MATRIX])
shapes("matmul", lambda np, a, b: np.matmul(a, b), [(4,), (3, 4), (2, 3, 4), (5, 1, 3, 4)], [(4,), (4, 2), (2, 4, 2)])
shapes("@", lambda np, a, b: a @ b, [(4,), (2, 3, 4)], [(4,), (1, 4, 3)])
shapes("inner", lambda np, a, b: np.inner(a, b), [(4,), (3, 4)], [(4,), (5, 4), (2, 3, 4)])
shapes("outer", lambda np, a, b: np.outer(a, b), [VECTOR, (1,)], [VECTOR, (3,)])
shapes("kron", lambda np, a, b: np.kron(a, b), [(2, 3)], [(4, 2), (1, 1)])
for axes in (1, 2, ([2], [1]), ([1, 2], [0, 1]), ([0, 2], [2, 1])):
    right = {1: (4, 5), 2: (3, 4, 5)}.get(axes if type(axes) is int else 0, (3, 4, 2))
    case(
        f"tensordot {axes}", lambda np, a, b, axes=axes: np.tensordot(a, b, axes), draw(2, 3, 4), draw(*right, seed=1)
    )
for text, *args in (
    ("ij,jk->ik", (3, 4), (4, 2)),
    ("i,i", (4,), (4,)),
    ("ij->", (3, 4)),
    ("ij->ji", (3, 4)),
    ("ijk,k->ij", (2, 3, 4), (4,)),
    ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 3)),
    ("...ij,jk", (2, 3, 4), (4, 3)),
    ("i,j,k->ijk", (2,), (3,), (4,)),
    ("ij,ij,ij->j", (3, 4), (3, 4), (3, 4)),
    ("i,ij,j", (3,), (3, 4), (4,)),
    ("ij,kj->ik", (3, 4), (5, 4)),
    ("a,a,ab->b", (2,), (2,), (2, 3)),
    ("ij,jk,kl->il", (3, 4), (4, 2), (2, 5)),
    ("ki,kj->ij", (3, 4), (3, 2)),
):
    case(
        f"einsum {text}",
        lambda np, *a, text=text: np.einsum(text, *a),
        *(draw(*s, seed=i) for i, s in enumerate(args)),
    )
for axis in (0, 1, -1):
    three = tuple(3 if i == axis % 2 else 2 for i in range(2))
    case(f"cross {axis}", lambda np, a, b, axis=axis: np.cross(a, b, axis=axis), draw(*three), draw(*three, seed=1))

# shapes
for order in ("C", "F"):
    for shape in ((4, 3), (2, 6), (-1,), (2, 2, 3)):
        case(f"reshape {shape} {order}", lambda np, a, s=shape, o=order: np.reshape(a, s, order=o), draw(*MATRIX))
    case(f"ravel {order}", lambda np, a, o=order: np.ravel(a, order=o), draw(*TENSOR))
    case(f"method {order}", lambda np, a, o=order: a.reshape((4, 3), order=o), draw(*MATRIX))
for axes in (None, (1, 2, 0), (2, 0, 1)):
    case(f"transpose {axes}", lambda np, a, axes=axes: np.transpose(a, axes), draw(*TENSOR))
for i, j in itertools.product((0, 1, -1), (0, 2, -2)):
    case(f"swapaxes {i} {j}", lambda np, a, i=i, j=j: np.swapaxes(a, i, j), draw(*TENSOR))
    case(f"moveaxis {i} {j}", lambda np, a, i=i, j=j: np.moveaxis(a, i, j), draw(*TENSOR))
    if min(i, j) >= 0:
        case(f"rollaxis {i} {j}", lambda np, a, i=i, j=j: np.rollaxis(a, i, j), draw(*TENSOR))
for axis in (0, 1, -1):
    case(f"expand_dims {axis}", lambda np, a, axis=axis: np.expand_dims(a, axis), draw(*MATRIX))
    case(f"squeeze {axis}", lambda np, a, axis=axis: np.squeeze(np.expand_dims(a, axis)), draw(*MATRIX))
    case(
        f"concatenate {axis}",
        lambda np, a, b, axis=axis: np.concatenate([a, b, a], axis),
        draw(*MATRIX),
        draw(*MATRIX, seed=1),
    )
    case(f"repeat {axis}", lambda np, a, axis=axis: np.repeat(a, 3, axis % 2), draw(*MATRIX))
    case(f"flip {axis}", lambda np, a, n=("flipud", "fliplr")[axis]: getattr(np, n)(a), draw(*MATRIX))
    case(f"roll {axis}", lambda np, a, axis=axis: np.roll(a, 2, axis), draw(*MATRIX))
    case(f"diff {axis}", lambda np, a, axis=axis: np.diff(a, axis=axis), draw(*MATRIX))
    case(f"stack {axis}", lambda np, a, b, axis=axis: np.stack([a, b], axis), draw(*MATRIX), draw(*MATRIX, seed=1))
    case(f"array_split {axis}", lambda np, a, axis=axis: np.array_split(a, 3, axis)[1], draw(*TENSOR))
    case(f"split {axis}", lambda np, a, axis=axis: np.split(a, [1], axis)[1], draw(*TENSOR))
for reps in ((3, 1), (1, 2), (2, 1, 3)):
    case(f"tile {reps}", lambda np, a, r=reps: np.tile(a, r), draw(*MATRIX))
for name in ("vstack", "hstack", "column_stack"):
    case(f"{name} vectors", lambda np, a, b, n=name: getattr(np, n)([a, b]), draw(4), draw(4, seed=1))
    case(f"{name} matrices", lambda np, a, b, n=name: getattr(np, n)([a, b]), draw(3, 4), draw(3, 4, seed=1))
for name, where in (("hsplit", 2), ("vsplit", 3), ("dsplit", 2)):
    case(name, lambda np, a, n=name, w=where: getattr(np, n)(a, w)[1], draw(3, 4, 2))
for k in (0, 1, -1):
    for name in ("diag", "tril", "triu"):
        case(f"{name} {k}", lambda np, a, n=name, k=k: getattr(np, n)(a, k), draw(4, 4))
    case(f"diag of a vector {k}", lambda np, a, k=k: np.diag(a, k), draw(4))
    case(f"trace {k}", lambda np, a, k=k: np.trace(a, offset=k), draw(4, 4))
for n in (1, 2, 3):
    case(f"rot90 {n}", lambda np, a, n=n: np.rot90(a, n), draw(*MATRIX))
    case(f"diff n {n}", lambda np, a, n=n: np.diff(a, n), draw(*MATRIX))
    case(f"atleast {n}", lambda np, a, n=n: getattr(np, f"atleast_{n}d")(a), draw(*VECTOR))
for width in (1, (1, 2), ((1, 0), (2, 3))):
    case(f"pad {width}", lambda np, a, w=width: np.pad(a, w, "constant"), draw(*MATRIX))
case("select", lambda np, a: np.select([a > 1.0, a < -1.0], [a**2, -a], default=0.5), draw(*MATRIX))
case("append", lambda np, a, b: np.append(a, b, axis=0), draw(*MATRIX), draw(1, 4, seed=1))
case("partition", lambda np, a: np.partition(a, 2)[2], draw(*VECTOR))
case("sort", lambda np, a: np.sort(a), draw(9))
case("gradient", lambda np, a: np.gradient(a), draw(9))
case("array of numbers", lambda np, a: np.array([a[0], a[1] ** 2, 3.0]), draw(4))
case("full", lambda np, a: np.full((2, 3), a), draw())
case("linspace", lambda np, a, b: np.linspace(a, b, 5), draw(), draw(seed=1))
for text, index in {
    "row": 1,
    "negative": -2,
    "slice": (slice(None), slice(1, 3)),
    "backwards": (slice(None, None, -1),),
    "list": [0, 0, 2],
    "pairs": ([0, 1, 1], [3, 0, 0]),
    "mask": np.array([True, False, True]),
    "dots": (..., None, 0),
}.items():
    case(f"index {text}", lambda np, a, i=index: a[i], draw(*MATRIX))


# linear algebra; autograd wants symmetric arguments made from plain ones
def regular(*shape: int, seed: int = 0) -> np.ndarray:
    return draw(*shape, seed=seed) + 4 * np.eye(shape[-1])


def positive(np: Any, a: Any) -> Any:
    return np.matmul(a, np.swapaxes(a, -1, -2)) + 0.5 * np.eye(a.shape[-1])


for shape in ((3, 3), (2, 3, 3)):
    case(f"inv {shape}", lambda np, a: np.linalg.inv(a), regular(*shape))
    case(f"det {shape}", lambda np, a: np.linalg.det(a), regular(*shape))
    case(f"slogdet {shape}", lambda np, a: np.linalg.slogdet(a)[1], regular(*shape))
    case(f"cholesky {shape}", lambda np, a: np.linalg.cholesky(positive(np, a)), regular(*shape))
    case(f"eigh values {shape}", lambda np, a: np.linalg.eigh(positive(np, a))[0], draw(*shape))
    case(f"eigh vectors {shape}", lambda np, a: np.linalg.eigh(positive(np, a))[1] ** 2, draw(*shape))
    case(
        f"solve {shape} matrix", lambda np, a, b: np.linalg.solve(a, b), regular(*shape), draw(*shape[:-1], 2, seed=1)
    )
case("solve vector", lambda np, a, b: np.linalg.solve(a, b), regular(3, 3), draw(3, seed=1))
for ord_ in (None, "fro", 2, "nuc"):
    case(
        f"norm of a matrix {ord_}",
        lambda np, a, o=ord_: np.linalg.norm(a, o, axis=(0, 1)) if o == "nuc" else np.linalg.norm(a, "fro"),
        draw(*MATRIX),
    )
for ord_, axis in itertools.product((None, 2, 3, 1.5), (0, 1, -1)):
    case(f"norm {ord_} {axis}", lambda np, a, o=ord_, axis=axis: np.linalg.norm(a, o, axis), draw(*MATRIX))
for shape in ((3, 3), (4, 3), (3, 4), (2, 4, 3)):
    case(f"svd {shape}", lambda np, a: np.linalg.svd(a, full_matrices=False, compute_uv=False), draw(*shape))
    case(f"svd parts {shape}", lambda np, a: np.linalg.svd(a, full_matrices=False)[0] ** 2, draw(*shape))
case("pinv", lambda np, a: np.linalg.pinv(a), regular(3, 3))

# Fourier transforms
for n, axis in itertools.product((None, 3, 8), (0, 1, -1)):
    for name in ("fft", "ifft", "rfft")[: 2 + (n != 3)]:
        case(
            f"{name} {n} {axis}",
            lambda np, a, f=name, n=n, axis=axis: np.abs(getattr(np.fft, f)(a, n, axis)) ** 2,
            draw(4, 6),
        )
for name in ("fft2", "ifft2", "fftn", "ifftn", "rfft2", "rfftn"):
    case(name, lambda np, a, f=name: np.real(getattr(np.fft, f)(a)), draw(4, 6))
case("irfft", lambda np, a: np.fft.irfft(np.fft.rfft(a) * np.array([1.0, 0.5, 0.2, 0.1])), draw(6))
case("fftshift", lambda np, a: np.fft.fftshift(a) + 2 * np.fft.ifftshift(a), draw(4, 6))

FIRST_ALONE = {name for name in CASES if name.startswith(("svd parts", "pinv"))}  # autograd has no second derivative


@pytest.mark.parametrize("name", CASES)
def test_value_gradient_and_second_derivative(name):
    f, args = CASES[name]
    value = f(np, *args)
    rng = np.random.default_rng(4)
    weights, along = rng.uniform(0.5, 1.5, np.shape(value)), [rng.normal(size=np.shape(a)) for a in args]

    def loss(module):
        return lambda *args: module.sum(f(module, *args) * weights + 0.3 * f(module, *args) ** 2)

    everything = tuple(range(len(args)))
    mine = rv.grad(loss(np), everything)(*args)
    truth = autograd.grad(loss(anp), everything)(*args)
    # Round-off of both: sums of at most 100 terms, factorisations of matrices with condition numbers up to 1e3.
    for g, t, a in zip(mine, truth, args, strict=True):
        assert g.shape == np.shape(a)
        assert_allclose(g, t, rtol=0, atol=1e-10 * max(1.0, np.abs(t).max(initial=0.0)))
    if name in FIRST_ALONE:
        return
    for k, a in enumerate(args):
        mine = rv.hvp(loss(np), k)(*args, along[k])
        truth = autograd.hessian_vector_product(loss(anp), k)(*args, along[k])
        assert_allclose(
            mine,
            truth,
            rtol=0,
            atol=1e-9 * max(1.0, np.abs(truth).max(initial=0.0)),
            err_msg=f"argument {k} {np.shape(a)}",
        )

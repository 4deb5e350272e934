"""What the engine refuses, and that the sentence says what to do instead."""
import math

import numpy as np
import pytest

import revode as rv

X = np.array([1.0, 2.0, 3.0])


def add_in_place(x):
    total = np.zeros(3)
    total += x
    return np.sum(total)


def write_entry(x):
    out = np.zeros(3)
    out[0] = x[1]
    return np.sum(out)


def write_all(x):
    out = np.zeros(3)
    out[:] = x
    return np.sum(out)


def write_into_tensor(x):
    x[0] = 1.0
    return np.sum(x)


DROPS = "would drop its gradient in silence"
OFFER = "write it with the operations in .*custom_vjp.*x.value if no gradient is wanted"
REFUSALS = {
    "float": (lambda x: float(x[0]), TypeError, rf"float.*{DROPS}; keep it an array.*x.value"),
    "math": (lambda x: math.sin(x[0]), TypeError, rf"{DROPS}; keep it an array"),
    "int": (lambda x: x[int(x[0])], TypeError, rf"int.*{DROPS}; keep it an array"),
    "item": (lambda x: x.item(), TypeError, rf"item.*{DROPS}; keep it an array"),
    "tolist": (lambda x: x.tolist()[0], TypeError, rf"tolist.*{DROPS}"),
    "asarray": (lambda x: np.sum(np.asarray(x)), TypeError, rf"plain array.*{DROPS}; join tensors with np.stack"),
    "np.array": (lambda x: np.sum(np.array([x[0], x[1]])), TypeError, rf"plain array.*{DROPS}; join tensors with np.stack"),
    "np.full": (lambda x: np.sum(np.full(3, x[0])), TypeError, DROPS),
    "writes-into-tensor": (write_into_tensor, TypeError, r"writes into a tensor in place.*build the new array with np.where"),
    "writes-all": (write_all, TypeError, rf"{DROPS}; join tensors with np.stack"),
    "adds-in-place": (add_in_place, TypeError, r"np.add would write a tensor into an existing array.*\+=.*new name"),
    "out": (lambda x: np.exp(x, out=np.zeros(3)), TypeError, r"np.exp would write .*out=.*assign the result to a new name"),
    "out-of-sum": (lambda x: np.sum(x, out=np.zeros(())), TypeError, r"np.sum with out=.*assign the result to a new name"),
    "where=": (lambda x: np.sum(np.divide(x, 2, where=X > 1)), TypeError, r"np.divide with where=.*use np.where"),
    "dtype=": (lambda x: np.sum(x, dtype=np.float32), TypeError, r"np.sum with dtype=.*leave it out"),
    "initial=": (lambda x: np.max(x, initial=0.0), TypeError, r"np.max with initial=.*leave it out"),
    "reduce": (lambda x: np.add.reduce(x), TypeError, rf"np.add.reduce is not differentiated here; {OFFER}"),
    "accumulate": (lambda x: np.multiply.accumulate(x)[0], TypeError, rf"np.multiply.accumulate is not .*; {OFFER}"),
    "outer": (lambda x: np.sum(np.subtract.outer(x, x)), TypeError, rf"np.subtract.outer is not .*; {OFFER}"),
    "at": (lambda x: np.add.at(np.zeros(3), [0, 1, 2], x), TypeError, rf"np.add.at is not differentiated here; {OFFER}"),
    "function": (lambda x: np.sum(np.sort(x)), TypeError, rf"np.sort is not differentiated here; {OFFER}"),
    "ufunc": (lambda x: np.sum(np.heaviside(x, 0.5)), TypeError, rf"np.heaviside is not differentiated here; {OFFER}"),
    "linalg": (lambda x: np.linalg.det(x * np.eye(3)), TypeError, rf"np.det is not differentiated here; {OFFER}"),
    "two-outputs": (lambda x: np.modf(x)[0][0], TypeError, rf"np.modf is not differentiated here; {OFFER}"),
    "attribute": (lambda x: x.real, AttributeError, r"a tensor has no attribute 'real'; .*np.real.*x.value"),
    "tensor-index": (lambda x: x[x], TypeError, r"a tensor cannot be an index: .*index with integers, slices or a plain array"),
    "tensor-in-index": (lambda x: (x * np.eye(3))[0, x[0]], TypeError, "a tensor cannot be an index"),
    "len": (lambda x: len(x[0]), TypeError, "a tensor without axes"),
    "iterate-0d": (lambda x: next(iter(x[0])), TypeError, "a tensor without axes"),
    "dot-3d": (lambda x: np.sum(np.dot(X, x * np.ones((2, 3, 3)))), TypeError,
               r"np.dot .*more than two axes.*use np.matmul or np.einsum"),
    "einsum-dots": (lambda x: np.einsum("...i->...", x), TypeError, r"explicit letters.*write the batch axes as letters"),
    "einsum-lists": (lambda x: np.einsum(x, [0], []), TypeError, r"explicit letters, as in 'bij,jk->bik'"),
    "einsum-diagonal": (lambda x: np.einsum("ii->", x * np.eye(3)), TypeError, r"a diagonal.*take the diagonal by indexing"),
    "norm-1": (lambda x: np.linalg.norm(x, 1), TypeError, "ord=1 is not differentiated here; only the Euclidean norm"),
    "norm-matrix-2": (lambda x: np.linalg.norm(x * np.eye(3), 2), TypeError, "ord=2 is not differentiated here"),
    "split": (lambda x: np.sum(np.split(x, 2)[0]), ValueError, "an axis of length 3 does not divide into 2 equal parts"),
    "squeeze": (lambda x: np.sum(np.squeeze(x, 0)), ValueError, "longer than one"),
    "array-output": (lambda x: x * 2, TypeError, r"returned float64\[3\]; a gradient is of one number.*np.sum or np.mean"),
    "no-output": (lambda x: None, TypeError, "returned NoneType; a gradient is of one number"),
    "int-output": (lambda x: 3, TypeError, "returned int; a gradient is of one number"),
    "tree-output": (lambda x: (np.sum(x), 1), TypeError, "a gradient is of one number"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_would_lose_the_gradient_is_refused_with_what_to_do(name):
    fn, error, sentence = REFUSALS[name]
    with pytest.raises(error, match=sentence):
        rv.grad(fn)(X)


def test_writing_one_entry_of_a_plain_array_shows_what_to_do():
    """NumPy raises its own ValueError here and hangs ours below it, where the traceback shows it."""
    with pytest.raises(ValueError) as caught:
        rv.grad(write_entry)(X)
    assert "writing x into an entry of a plain array" in str(caught.value.__cause__)
    assert "build arrays with np.stack or np.concatenate" in str(caught.value.__cause__)


@pytest.mark.parametrize("argument, sentence", [
    (3, r"\['int'\], which holds no float array; integers have no gradient, so convert with x.astype"),
    (np.arange(3), r"int64\[3\].*which holds no float array"),
    (None, "NoneType.*which holds no float array"),
    ({"a": [], "b": "text"}, "which holds no float array"),
    (np.ones(2, complex), "complex values have no gradient here; pass real and imaginary parts as two float arrays"),
    (1j, "complex values have no gradient here"),
    (np.ones(2, np.float16), r"an array of float16 was given; .*float64 or float32.*astype"),
    (np.ones(2, np.longdouble), r"float64 or float32, so convert it with x.astype"),
])
def test_arguments_that_have_no_gradient_are_refused_with_a_reason(argument, sentence):
    with pytest.raises(TypeError, match=sentence):
        rv.value_and_grad(lambda x: 1.0)(argument)


def test_check_vjp_says_how_far_off_and_how_much_is_allowed():
    wrong = rv.custom_vjp(lambda x: (2 * x, lambda g: (3 * g,)))
    with pytest.raises(AssertionError, match=r"check_vjp: the pulled-back .* give .*; relative difference .*, allowed"):
        rv.check_vjp(wrong, 1.0)


def test_vjp_refuses_complex_beside_floats():
    with pytest.raises(TypeError, match="complex values have no gradient"):
        rv.vjp(lambda x, z: x, 1.0, np.ones(2, complex))


@pytest.mark.parametrize("argnums", [2, -3, (0, 0), (0, -2), (0, 5)])
def test_argnums_name_each_argument_once(argnums):
    with pytest.raises(ValueError, match=r"with 2 positional argument\(s\); name each argument.*once"):
        rv.grad(lambda x, y: x * y, argnums=argnums)(1.0, 2.0)


def test_has_aux_wants_a_pair():
    with pytest.raises(TypeError, match=r"has_aux=True the function returns \(number, aux\)"):
        rv.value_and_grad(lambda x: x, has_aux=True)(1.0)


def test_a_tensor_of_a_completed_gradient_cannot_be_used():
    kept = []
    rv.grad(lambda x: kept.append(x) or x * x)(2.0)
    with pytest.raises(RuntimeError, match=r"has been completed.*return it from the function \(has_aux=True\).*x.value"):
        kept[0] * 2
    with pytest.raises(RuntimeError, match="has been completed"):
        rv.grad(lambda y: y * kept[0])(1.0)
    assert kept[0].value == 2.0


@pytest.mark.parametrize("cotangent, error, sentence", [
    (np.ones(3), ValueError, r"a cotangent of shape \(3,\) was given for a value of shape \(2,\)"),
    (1.0, ValueError, r"shape \(\) was given for a value of shape \(2,\)"),
    ([np.ones(2), np.ones(2)], ValueError, "give a tree like the value"),
])
def test_pull_wants_a_cotangent_like_the_value(cotangent, error, sentence):
    _, pull = rv.vjp(lambda x: x * x, np.ones(2))
    with pytest.raises(error, match=sentence):
        pull(cotangent)


@pytest.mark.parametrize("result, error, sentence", [
    (2.0, TypeError, r"pull returned float for 1 argument\(s\); it returns a tuple"),
    ((1.0, 2.0), TypeError, r"pull returned tuple for 1 argument\(s\)"),
    ((np.ones(3),), ValueError, r"cotangent of shape \(3,\) for an argument of shape \(\)"),
    (([1.0],), TypeError, "return a tree like the argument"),
])
def test_custom_vjp_checks_what_its_pull_returns(result, error, sentence):
    operation = rv.custom_vjp(lambda x: (x, lambda g: result))
    with pytest.raises(error, match=sentence):
        rv.grad(operation)(2.0)


def test_printing_inside_the_function_is_fine():
    seen = []
    rv.grad(lambda x: seen.append(f"{x:.3f} {x!r}") or x)(2.0)
    assert seen == ["2.000 Tensor(2.0)"]

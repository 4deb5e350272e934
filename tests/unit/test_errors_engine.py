"""What the engine refuses, and that the sentence says what to do instead."""
import fractions
import math
import pickle

import numpy as np
import pytest
import scipy.special

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
OFFER = "write it with functions that are .*custom_vjp.*x.value if no gradient is wanted"
REFUSALS = {
    "float": (lambda x: float(x[0]), TypeError, rf"float.*{DROPS}; keep it an array.*x.value"),
    "math": (lambda x: math.sin(x[0]), TypeError, rf"{DROPS}; keep it an array"),
    "int": (lambda x: x[int(x[0])], TypeError, rf"int.*{DROPS}; keep it an array"),
    "item": (lambda x: x.item(), ValueError, "can only convert an array of size 1"),
    "item of float32": (lambda x: x.astype(np.float32)[:1].item(), TypeError, r"item\(\) of float32 would go on in float64"),
    "asarray": (lambda x: np.sum(np.asarray(x)), TypeError, rf"plain array.*{DROPS}; join tensors with np.stack"),
    "np.array": (lambda x: np.sum(np.array([x, x])), TypeError, rf"plain array.*{DROPS}; join tensors with np.stack"),
    "np.array of dtype": (lambda x: np.sum(np.array([x[0], x[1]], dtype=float)), ValueError, "array element with a sequence"),
    "float of an entry": (lambda x: float(np.array([x[0], x[1]])[0]), TypeError, rf"float.*{DROPS}"),
    "writes-into-tensor": (write_into_tensor, TypeError, r"writes into a tensor in place.*build the new array with np.where"),
    "writes-all": (write_all, TypeError, rf"{DROPS}; join tensors with np.stack"),
    "adds-in-place": (add_in_place, TypeError, r"np.add would write a tensor into an existing array.*\+=.*new name"),
    "out": (lambda x: np.exp(x, out=np.zeros(3)), TypeError, r"np.exp would write .*out=.*assign the result to a new name"),
    "out-of-sum": (lambda x: np.sum(x, out=np.zeros(())), TypeError, r"np.sum with out=.*assign the result to a new name"),
    "where=": (lambda x: np.sum(np.divide(x, 2, where=X > 1)), TypeError, r"np.divide with where=.*use np.where"),
    "dtype=": (lambda x: np.var(x, dtype=np.float32), TypeError, "np.var with dtype= is not differentiated here; leave it out"),
    "half mean": (lambda x: np.mean(x, dtype=np.float16), TypeError, "np.mean would give float16, in which no gradient flows"),
    "half": (lambda x: np.sum(x, dtype=np.float16), TypeError, r"np.sum would give float16, in which no gradient flows"),
    "reduce": (lambda x: np.subtract.reduce(x), TypeError, rf"np.subtract.reduce is not differentiated here; {OFFER}"),
    "accumulate": (lambda x: np.hypot.accumulate(x)[0], TypeError, rf"np.hypot.accumulate is not .*; {OFFER}"),
    "reduce-options": (lambda x: np.add.reduce(x, where=X > 1), TypeError,
    r"np.add.reduce with these options is not differentiated"),
    "at": (lambda x: np.add.at(np.zeros(3), [0, 1, 2], x), TypeError,
    rf"np.add.at is not differentiated here; rv.nn.scatter_add .*{OFFER}"),
    "function": (lambda x: np.sum(np.poly(x)), TypeError, rf"np.poly is not differentiated here; {OFFER}"),
    "ufunc": (lambda x: np.sum(np.spacing(x)), TypeError, rf"np.spacing is not differentiated here; {OFFER}"),
    "linalg": (lambda x: np.linalg.eigvals(x * np.eye(3))[0], TypeError,
               r"np.linalg.eigvals is not differentiated here; np.linalg.eigvalsh of a symmetric matrix does"),
    "unique": (lambda x: np.unique(x)[0], TypeError, r"np.unique is not .* here; x\[np.unique\(x.value, return_index=True"),
    "eig": (lambda x: np.linalg.eig(x * np.eye(3))[0][0], TypeError, "np.linalg.eig is not differentiated here; np.linalg.eigh"),
    "fft-exp": (lambda x: np.sum(np.exp(np.fft.fft(x)).real), TypeError,
                "np.exp of a Fourier transform has no gradient here; a spectrum is added, multiplied, sliced, and leaves by"),
    "fft-sum": (lambda x: np.sum(np.fft.fft(x)), TypeError, "np.sum of a Fourier transform has no gradient here"),
    "fft-plain": (lambda x: np.sum(np.asarray(np.fft.rfft(x))), TypeError,
    "cannot become a plain array; take .real, .imag or np.abs"),
    "fft-loss": (lambda x: np.fft.fft(x)[0], TypeError, "a gradient is of one number"),
    "hfft": (lambda x: np.fft.hfft(x)[0], TypeError, "np.fft.hfft is not differentiated here"),
    "scipy": (lambda x: np.sum(scipy.special.expit(x)), TypeError,
    "scipy.special.expit is not differentiated here; rv.nn.sigmoid does"),
    "two-outputs": (lambda x: np.histogram(x)[0][0], TypeError, rf"np.histogram is not differentiated here; {OFFER}"),
    "conditions": (lambda x: np.sum(x & 1), TypeError, "&, | and . join conditions, which are bools"),
    "attribute": (lambda x: x.sort(), AttributeError, r"a tensor has no attribute 'sort'; np.sort does the same, and x.value"),
    "attribute-refused": (lambda x: x.unique(), AttributeError, r"a tensor has no attribute 'unique'; x.value is the plain array"),
    "tensor-index": (lambda x: x[x], TypeError, r"a tensor cannot be an index: .*index with integers, slices or a plain array"),
    "tensor-in-index": (lambda x: (x * np.eye(3))[0, x[0]], TypeError, "a tensor cannot be an index"),
    "len": (lambda x: len(x[0]), TypeError, "a tensor without axes"),
    "iterate-0d": (lambda x: next(iter(x[0])), TypeError, "a tensor without axes"),
    "einsum-letters": (lambda x: np.einsum("ij->", x), ValueError,
    r"einsum: the subscripts 'ij->' do not fit operands of \[1\] axes"),
    "einsum-operands": (lambda x: np.einsum("i,i->", x), ValueError, "einsum: 2 subscripts for 1 operands"),
    "clip-twice": (lambda x: np.sum(np.clip(x, 0.0, 1.0, min=0.5)), ValueError, "bounds were given twice"),
    "pad-mode": (lambda x: np.sum(np.pad(x, 1, mode="mean")), TypeError,
    "mode='mean' is not differentiated here; 'constant', 'edge'"),
    "reshape-order": (lambda x: np.sum(np.reshape(x, (3, 1), order="A")), TypeError,
    "depends on its place in memory; use 'C' or 'F'"),
    "svd-full": (lambda x: np.linalg.svd(x * np.ones((2, 3)))[1][0], TypeError, "full_matrices=True.*give full_matrices=False"),
    "qr-mode": (lambda x: np.linalg.qr(x * np.eye(3), "raw")[0][0], TypeError, "mode='raw' is not differentiated here"),
    "qr-wide": (lambda x: np.sum(np.linalg.qr(x * np.ones((2, 3)) + np.eye(2, 3))[1]), TypeError, "more columns than rows"),
    "complex-number": (lambda x: np.abs(1j * x)[0], TypeError, "a tensor meets a complex number; complex values have no gradient"),
    "complex-array": (lambda x: np.sum(x * np.ones(3, complex)), TypeError, "a tensor meets an array of complex128"),
    "complex-loss": (lambda x: np.sum(x + 0j), TypeError, "a tensor meets a complex number"),
    "astype-half": (lambda x: np.sum(x.astype(np.float16)), TypeError, r"x.astype\(float16\) would drop the gradient"),
    "astype-long": (lambda x: np.sum(x.astype(np.longdouble)), TypeError, "would drop the gradient of a tensor"),
    "astype-swapped": (lambda x: np.sum(x.astype(">f8")), TypeError, r"x.astype\(>f8\) would drop"),
    "astype-object": (lambda x: np.sum(x.astype(object)), TypeError, r"x.astype\(object\) would drop"),
    "astype-complex": (lambda x: np.sum(x.astype(complex).real), TypeError, r"x.astype\(complex128\) would drop"),
    "half-array": (lambda x: np.sum(x * np.ones(3, np.float16)), TypeError, "a tensor meets an array of float16; .*x.astype"),
    "long-number": (lambda x: np.sum(x * np.longdouble(2)), TypeError,
    "a tensor meets an array of .*; gradients flow in float64 and float32"),
    "swapped-array": (lambda x: np.sum(np.where(X > 1, x, np.ones(3, ">f8"))), TypeError, "a tensor meets an array of >f8"),
    "objects": (lambda x: np.sum(x + np.array([1.0, 2.0, 3.0], object)), TypeError, "a tensor meets an array of object"),
    "fraction": (lambda x: np.sum(x * fractions.Fraction(1, 3)), TypeError,
    "a tensor meets a fractions.Fraction, which is no number"),
    "none": (lambda x: np.sum(np.where(X > 1, x, None)), TypeError, "a tensor meets a NoneType, which is no number and no array"),
    "text": (lambda x: x + "a", TypeError, "a tensor meets a str, which is no number and no array"),
    "masked": (lambda x: np.sum(x * np.ma.array(X, mask=[0, 1, 0])), TypeError, "a tensor meets a MaskedArray, whose mask"),
    "masked-left": (lambda x: np.sum(np.ma.array(X, mask=[0, 1, 0]) * x), TypeError, DROPS),
    "pickle": (lambda x: pickle.dumps(x), TypeError, r"a tensor cannot be pickled: its tape stays behind; .*has_aux=True.*x.value"),
    "pickle-inside": (lambda x: pickle.dumps({"a": [x]}), TypeError, "a tensor cannot be pickled"),
    "custom-half": (lambda x: rv.custom_vjp(lambda a: (a.astype(np.float16), lambda g: (g,)))(x)[0], TypeError,
    "an array of float16 was given"),
    "custom-complex": (lambda x: rv.custom_vjp(lambda a: (a * 1j, lambda g: (g,)))(x)[0], TypeError,
    "complex values have no gradient"),
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
    assert any("np.stack([y[1], -y[0]])" in note for note in caught.value.__notes__)


def test_writing_in_the_reverse_sweep_of_a_solve_shows_it_too():
    def field(t, y, p):
        out = np.zeros(2)
        out[0] = y[1]
        return out * p
    for gradient in (rv.Direct(), rv.Reversible(), rv.Checkpointed(3)):
        with pytest.raises(ValueError, match="array element") as caught:
            rv.grad(lambda p: np.sum(rv.solve(field, np.ones(2), np.linspace(0, 1, 5), p, method=rv.Coupled("rk4"),
                gradient=gradient,
                                              backend="eager").y1))(0.5)
        assert any("np.stack([y[1], -y[0]])" in note for note in caught.value.__notes__)


def test_a_field_that_writes_into_y_is_told_why_it_cannot():
    def field(t, y, p):
        y *= 2
        return y * p
    solve = lambda p: rv.solve(field, np.ones(2), np.linspace(0, 1, 5), p, method=rv.Coupled("rk4"))
    for run in (solve, lambda p: rv.grad(lambda p: np.sum(solve(p).y1))(p)):
        with pytest.raises(ValueError, match="read-only") as caught:
            run(0.5)
        assert any("y = 2 * y, not y *= 2" in note for note in caught.value.__notes__)


def test_a_tensor_that_a_field_uses_late_is_told_the_way_through_params():
    def loss(k):
        field = lambda t, y, p: -y * (p if t < 0.5 else k)
        return np.sum(rv.solve(field, np.ones(2), np.linspace(0, 1, 9), 0.5 * k, method=rv.Coupled("rk4"), backend="eager").y1)
    with pytest.raises((RuntimeError, TypeError), match="params"):
        rv.grad(loss)(0.7)


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


@pytest.mark.parametrize("argnums", ["x", 1.0, None, ("x",), [0.5]])
def test_argnums_are_whole_numbers(argnums):
    with pytest.raises(TypeError, match=r"argnums.*whole number.*or a tuple of them"):
        rv.grad(lambda x, y: x * y, argnums=argnums)


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
    (np.ones(2) * 1j, TypeError, "complex values have no gradient here"),
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
    ((1j,), ValueError, "and of complex numbers"),
])
def test_custom_vjp_checks_what_its_pull_returns(result, error, sentence):
    operation = rv.custom_vjp(lambda x: (x, lambda g: result))
    with pytest.raises(error, match=sentence):
        rv.grad(operation)(2.0)


def test_printing_inside_the_function_is_fine():
    seen = []
    rv.grad(lambda x: seen.append(f"{x:.3f} {x!r}") or x)(2.0)
    assert seen == ["2.000 Tensor(2.0)"]

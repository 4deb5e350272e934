"""The programs of docs/examples do what they say, and their gradients are those of HIPS autograd, or of the complex step.

Each states its loss in NumPy alone. Its text is run again with autograd's NumPy in the place of NumPy; where a solve is inside, the
oracle writes the steps out in a loop.
"""
import importlib.util
import io
from contextlib import redirect_stdout
from pathlib import Path

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import revode as rv

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def program(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_autograd(name):
    """The names of a program that is written in autograd's NumPy."""
    text = (FOLDER / f"{name}.py").read_text()
    assert text.count("import numpy as np\n") == 1
    found = {"__name__": name}
    exec(compile(text.replace("import numpy as np\n", "import autograd.numpy as np\n"), name, "exec"), found)
    return found


def agree(found, truth, rounding=1e-10):
    """Trees; relative to the largest entry: some hundred operations on either side, in another order."""
    for a, b in zip(rv.tree.flatten(found)[0], rv.tree.flatten(truth)[0], strict=True):
        assert_allclose(a, b, rtol=0, atol=rounding * max(1e-3, np.abs(b).max()))


@pytest.mark.parametrize("name", NAMES)
def test_a_program_is_short_and_listed(name):
    text = (FOLDER / f"{name}.py").read_text()
    code = [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]
    assert 25 <= len(code) <= 60 and max(map(len, text.splitlines())) <= 130
    assert f"](examples/{name}.py)" in (FOLDER.parent / "programs.md").read_text()


ARGUMENTS = {
    "gaussian_mixture": lambda m: (m.problem()[0], m.problem()[1]), "gaussian_process": lambda m: m.problem(),
    "gaussian_process_latent": lambda m: m.problem()[:2],
    "lstm": lambda m: (m.problem(n=8)[0], m.problem(n=8)[1]["x"], m.problem(n=8)[1]["y"]),
    "rosenbrock_newton": lambda m: (np.linspace(-1.2, 1.0, 10),),
    "fluid_control": lambda m: (0.3 * np.sin(m.X + 2 * m.Y), *m.problem()[1:]),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_gradient_is_autograds(name):
    module = program(name)
    args = ARGUMENTS[name](module)
    theirs = on_autograd(name)["loss"]
    value, grads = rv.value_and_grad(module.loss)(*args)
    assert_allclose(value, theirs(*args), rtol=1e-12)
    agree(grads, autograd.grad(theirs)(*args))


def test_the_second_derivatives_of_the_valley_are_autograds():
    module, x = program("rosenbrock_newton"), np.linspace(-1.2, 1.0, 10)
    theirs = on_autograd("rosenbrock_newton")["loss"]
    H = autograd.hessian(theirs)(x)
    agree(rv.hessian(module.loss)(x), H)
    agree(rv.hvp(module.loss)(x, np.cos(x)), H @ np.cos(x))


def rk4(field, y, ts, params, seen):
    """The states at the indices `seen`, by the classical method of Runge and Kutta in a loop."""
    found = []
    for n, (t, h) in enumerate(zip(ts[:-1], np.diff(ts), strict=True)):
        k1 = field(t, y, params)
        k2 = field(t + h / 2, y + h / 2 * k1, params)
        k3 = field(t + h / 2, y + h / 2 * k2, params)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(t + h, y + h * k3, params))
        if n + 1 in seen:
            found.append(y)
    return found


@pytest.mark.sample(1)
@pytest.mark.parametrize("gradient", [None, rv.Direct(), rv.Checkpointed(10)], ids=["automatic", "direct", "checkpointed"])
def test_the_pendulums_gradient_is_autograds_through_the_loop(gradient):
    module = program("pendulum_mass_matrix")
    params, data = module.problem()
    field = on_autograd("pendulum_mass_matrix")["field"]

    def loop(params):
        ys = anp.stack(rk4(field, module.Y0, module.TS, params, set(module.SEEN.tolist())))
        return anp.mean((ys[:, :2] - data) ** 2)

    def loss(params):
        method = None if gradient is None else rv.RungeKutta("rk4")
        ys = rv.solve(module.field, module.Y0, module.TS, params, method=method, gradient=gradient, save=module.SEEN).ys
        return np.mean((ys[:, :2] - data) ** 2)
    value, grads = rv.value_and_grad(loss)(params)
    assert_allclose(value, loop(params), rtol=1e-11)
    # Run backwards, RK4 leaves its defect, h^6 a step: 1e-12 times what the swinging makes of it in 200 steps.
    agree(grads, autograd.grad(loop)(params), 1e-9 if gradient is not None else 1e-6)


@pytest.mark.parametrize("gradient", [None, rv.Direct()], ids=["automatic", "direct"])
def test_the_heat_equations_gradient_is_that_of_a_matrix_in_its_place(gradient):
    """The second derivative as a matrix, from its definition by cosines; complex step through the loop."""
    module = program("heat_spectral")
    params, data = module.problem()
    k = np.concatenate([module.K, -module.K[1:-1][::-1]])
    matrix = -np.real(np.exp(1j * np.outer(module.GRID, k)) @ np.diag(k ** 2) @ np.exp(-1j * np.outer(k, module.GRID))) / module.N

    def field(t, u, p):
        return np.exp(p[0]) * matrix @ u + p[1] * np.exp(4 * (np.cos(module.GRID - p[2]) - 1))

    def loop(p):
        ys = np.stack(rk4(field, module.U0.astype(complex), module.TS, p, set(module.SEEN)))
        return np.mean((ys[:, ::4] - data) ** 2)

    def loss(params):
        how = {} if gradient is None else {"method": rv.RungeKutta("rk4"), "gradient": gradient}
        ys = rv.solve(module.field, module.U0, module.TS, params, save=module.SEEN, **how).ys
        return np.mean((ys[:, module.PROBES] - data) ** 2)
    start = np.array([params[name] for name in ("log_kappa", "height", "place")], complex)
    grads = rv.grad(loss)(params)
    for i, name in enumerate(("log_kappa", "height", "place")):
        truth = loop(start + 1e-30j * np.eye(3)[i]).imag / 1e-30
        # Automatic: to 1e-5 of itself, as it promises; diffusion is what running backwards bears worst.
        assert_allclose(grads[name], truth, rtol=1e-5 if gradient is None else 1e-10)


GOOD = {
    "gaussian_mixture": lambda r: np.abs(r["means"] - r["centres"]).max() < 0.3 and np.abs(
        r["weights"] - [0.2, 1 / 3, 14 / 30]).max() < 0.05,
    "gaussian_process": lambda r: 0.05 < r["noise"] < 0.2 and r["worst"] < 3,
    "gaussian_process_latent": lambda r: r["after"] > 0.99 and r["after"] > r["before"],
    "rosenbrock_newton": lambda r: all(np.abs(x - 1).max() < 1e-9 for x in r.values()),
    "lstm": lambda r: r["error"] < 0.1 * r["guess"],
    "fluid_control": lambda r: r["after"] < 0.01 * r["before"],
    "heat_spectral": lambda r: all(abs(found - truth) < 0.05 for found, truth in r.values()),
    "pendulum_mass_matrix": lambda r: all(abs(found - truth) < 0.05 for found, truth in r.values()),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NAMES)
def test_a_program_finds_what_it_looks_for(name):
    said = io.StringIO()
    with redirect_stdout(said):
        result = program(name).main()
    assert GOOD[name](result), (result, said.getvalue())
    assert len(said.getvalue().splitlines()) in (1, 2)

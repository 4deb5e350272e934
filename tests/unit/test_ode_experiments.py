"""The ODE experiments with data: files in the recorded format, simulators against SciPy, training, figures, messages."""
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp

import revode as rv
from revode.__main__ import main
from revode.experiments import EXPERIMENTS, data, oscillator, pendulum, sir, spiral, tables, training
from revode.experiments.backends import Solver
from revode.experiments.training import Run

NEW = ("oscillator", "pendulum", "sir", "spiral")
MODULES = {"oscillator": oscillator, "pendulum": pendulum}
SHARED = Path(rv.__file__).parents[2] / "shared" / "data"          # the recordings, beside some checkouts
RECORDINGS = [(name, path) for name, path in (("oscillator", SHARED / "real_double_linear_h_1.txt"),
                                              ("pendulum", SHARED / "real_double_pend_h_1.txt")) if path.exists()]


def run(capsys, *words):
    """Exit status, standard output and standard error of a command."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:               # argparse
        status = stop.code
    out = capsys.readouterr()
    return status, out.out, out.err


def job(e, gradient=None, seed=0):
    """A row of this experiment on the tape."""
    return Run("row", e, Solver(e.method, gradient or rv.Reversible(), "eager"), seed)


def target_of(e):
    """The data that an experiment is fitted to, from the picture of it."""
    from matplotlib.figure import Figure
    ax = Figure().subplots()
    e.draw([ax], e.start(0), e.start(0), Solver(e.method), 0, "")
    return np.stack([line.get_ydata() for line in ax.lines if line.get_label().endswith(", data")], -1)


# Files ---------------------------------------------------------------------------------------------------------------
def write(path, names, t, values, extra=0, trials=1):
    """A file in the recorded format: a heading, then trial, t, the components, and columns that nobody reads."""
    lines = ["% " + " ".join(names)]
    lines += [" ".join(f"{x:.16e}" for x in (trial, when, *row, *[7.0] * extra))
              for trial in range(trials) for when, row in zip(t, values + 100 * trial, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", MODULES)
def test_a_recorded_file_is_what_is_learnt(capsys, tmp_path, name):
    """Straight lines, because linear interpolation keeps them; the clock of the file starts at 0.7."""
    module = MODULES[name]
    t = np.linspace(0.0, module.END + 0.1, 23)
    slope, start = np.array([1.0, -2.0, 3.0, 0.5]), np.array([5.0, 6.0, -7.0, 8.0])
    path = write(tmp_path / "recorded.txt", module.NAMES, t + 0.7, start + slope * t[:, None], extra=4, trials=2)
    e = module.experiment(10, data=str(path))
    # Numbers below 100 with 17 digits, two differences of times and one interpolation: 1e-13 before scaling.
    assert_allclose(target_of(e) * module.SCALE, start + slope * np.linspace(0, module.END, 11)[:, None], atol=1e-13)
    status, out, _ = run(capsys, "train", name, "--steps", 6, "--iterations", 2, "--data", path, "--backend", "eager",
                         "--json", tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    words = f"data: recorded, {path}, divided by {module.SCALE:g}"
    assert status == 0 and words in report["settings"]["words"] and words in " ".join(out.split())
    assert "Published, other hardware" in out and "published: 10,000" in out


@pytest.mark.parametrize("text, message", [
    ("% o1 o2 w1 w2\n0 0 1 2 3 4\n0 9 1 2 3 4\n", r"begins with '% o1 o2 w1 w2'; expected .* '% x1 x2 v1 v2'"),
    ("0 0 1 2 3 4\n", "begins with '0 0 1 2 3 4'; expected"),
    ("", "is empty; expected"),
    ("% x1 x2 v1 v2\n", "has no rows of numbers; expected"),
    ("% x1 x2 v1 v2\n0 0 1 2 3 4\n0 1 2 3\n", "line 3, is '0 1 2 3'; expected .* trial, t, x1, x2, v1, v2"),
    ("% x1 x2 v1 v2\n0 0 1 2 3 four\n", "line 2, is '0 0 1 2 3 four'; expected"),
    ("% x1 x2 v1 v2\n0 0 1 2 3 nan\n", "line 2, is '0 0 1 2 3 nan'; expected"),
    ("% x1 x2 v1 v2\n0 0 1 2 3 4\n0 0 1 2 3 4\n", "do not increase; expected"),
    ("% x1 x2 v1 v2\n0 0 1 2 3 4\n0 2.9 1 2 3 4\n1 3.1 1 2 3 4\n", "ends 2.9 after its start, but the experiment needs 3"),
    (b"\xff\xfe\x00\x81", "is not a text file; expected"),
    (None, "there is no such file"),
])
def test_a_wrong_file_is_refused_in_one_sentence(capsys, tmp_path, text, message):
    path = tmp_path / "file.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    status, out, err = run(capsys, "train", "oscillator", "--data", path)
    assert status == 2 and not out and err.count("\n") == 1 and "file.txt" in err
    assert re.search(message, err), err


def test_data_for_an_experiment_without(capsys):
    status, out, err = run(capsys, "train", "sir", "--data", "x.txt")
    assert status == 2 and not out and "unrecognized arguments: --data x.txt" in err


@pytest.mark.parametrize("case", [*RECORDINGS, None], ids=lambda case: "end" if case is None else case[0])
def test_the_recordings_themselves(case):
    """Read where they are at hand; a checkout without them has only the last case, which says so."""
    if case is None:
        assert len(RECORDINGS) in (0, 2)
        return
    name, path = case
    e = MODULES[name].experiment(data=str(path))
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("%")]
    first = [float(x) / MODULES[name].SCALE for x in rows[0][2:6]]
    target, ts = target_of(e), np.linspace(0.0, MODULES[name].END, MODULES[name].STEPS + 1)
    assert_array_equal(target[0], first)
    assert target.shape == (len(ts), 4) and np.isfinite(target).all()
    # Velocities were recorded beside positions: their integral is the change of position, to a few per cent of its range.
    moved = np.cumsum((target[1:, 2:] + target[:-1, 2:]) / 2 * np.diff(ts)[:, None], axis=0)
    assert np.abs(moved - (target[1:, :2] - target[0, :2])).max() < 0.1 * np.ptp(target[:, :2])


# Simulators ----------------------------------------------------------------------------------------------------------
def pendulum_energy(y):
    """Kinetic and potential energy of two point masses, from their Cartesian velocities and heights."""
    o1, o2, w1, w2 = np.moveaxis(y, -1, 0)
    v1 = pendulum.L1 * w1 * np.array([np.cos(o1), np.sin(o1)])
    v2 = v1 + pendulum.L2 * w2 * np.array([np.cos(o2), np.sin(o2)])
    h1 = -pendulum.L1 * np.cos(o1)
    h2 = h1 - pendulum.L2 * np.cos(o2)
    kinetic = pendulum.M1 * np.sum(v1 ** 2, axis=0) / 2 + pendulum.M2 * np.sum(v2 ** 2, axis=0) / 2
    return kinetic + pendulum.G * (pendulum.M1 * h1 + pendulum.M2 * h2)


def lagrange(y):
    """The double pendulum from its Lagrangian: mass matrix and forces, solved by NumPy."""
    o1, o2, w1, w2 = y
    m1, m2, l1, l2, g = pendulum.M1, pendulum.M2, pendulum.L1, pendulum.L2, pendulum.G
    mass = np.array([[(m1 + m2) * l1 ** 2, m2 * l1 * l2 * np.cos(o1 - o2)],
                     [m2 * l1 * l2 * np.cos(o1 - o2), m2 * l2 ** 2]])
    force = [-m2 * l1 * l2 * w2 ** 2 * np.sin(o1 - o2) - (m1 + m2) * g * l1 * np.sin(o1),
             m2 * l1 * l2 * w1 ** 2 * np.sin(o1 - o2) - m2 * g * l2 * np.sin(o2)]
    return np.array([w1, w2, *np.linalg.solve(mass, force)])


def test_the_pendulum_is_lagranges():
    ys = np.random.default_rng(0).normal(0, 3, (50, 4))
    # Entries of some 1e3; the mass matrix has a condition number below 40.
    assert_allclose(pendulum.double_pendulum(0.0, ys), [lagrange(y) for y in ys], rtol=0, atol=1e-10)


def test_the_pendulum_keeps_its_energy_and_follows_scipy():
    ts = np.linspace(0.0, 2.0, 201)
    ys = data.trajectory(pendulum.double_pendulum, np.array(pendulum.START), ts)
    energy = pendulum_energy(ys)
    # dopri5 with h = .002, rates of some 30 a second: local error (30 h)^6 / 6! ~ 6e-11 of the state, over 1000 steps.
    assert np.ptp(pendulum_energy(ys * [1, 1, 0, 0])) > 0.05          # potential energy is exchanged all the time
    assert np.abs(energy - energy[0]).max() < 6e-8 * np.abs(energy[0])
    truth = solve_ivp(lambda t, y: lagrange(y), (0, 2), pendulum.START, "DOP853", t_eval=ts, rtol=1e-12, atol=1e-12)
    # Chaos: errors grow by some e^(3 t) until t = 2.
    assert_allclose(ys, truth.y.T, rtol=0, atol=6e-8 * 400 * np.abs(truth.y).max())
    assert_allclose(ys, truth.y.T, rtol=0, atol=1e-4)


def test_the_springs_keep_their_energy_without_damping_and_lose_it_with():
    def energy(y):
        x1, x2, v1, v2 = np.moveaxis(y, -1, 0)
        o = oscillator
        return (o.M1 * v1 ** 2 + o.M2 * v2 ** 2 + o.K * ((x1 - o.A) ** 2 + (x2 + o.A) ** 2)
                + o.Q * (x2 - x1 + 2 * o.A) ** 2) / 2

    ts, y0 = np.linspace(0.0, 3.0, 91), np.array(oscillator.START)
    free = energy(data.trajectory(lambda t, y, p: oscillator.springs(t, y, p, damping=0.0), y0, ts))
    # dopri5, h = .002, angular frequency 11.5: (.023)^6 / 6! = 2e-13 a step, 1500 steps, twice for a square.
    assert_allclose(free, free[0], rtol=6e-10)
    ys = data.trajectory(oscillator.springs, y0, ts)
    damped = energy(ys)
    # dE/dt = -c (v1^2 + v2^2), by Simpson's rule on 30 points a second of a motion with 2 * 11.5 / 6.28 = 3.7 periods
    # a second: error (2 * 11.5 / 30)^4 / 180 = 2e-3.
    power = -oscillator.C * np.sum(ys[:, 2:] ** 2, axis=-1)
    simpson = (power[:-2:2] + 4 * power[1:-1:2] + power[2::2]).sum() / 3 / 30
    assert damped[-1] < damped[0] and damped[-1] - damped[0] == pytest.approx(simpson, rel=2e-3)
    truth = solve_ivp(lambda t, y: oscillator.springs(t, y), (0, 3), y0, "DOP853", t_eval=ts, rtol=1e-12, atol=1e-10)
    assert_allclose(ys, truth.y.T, rtol=0, atol=6e-10 * 400)                     # states of some 400


@pytest.mark.parametrize("name", MODULES)
def test_the_noise_is_what_is_stated(name):
    module = MODULES[name]
    system = oscillator.springs if name == "oscillator" else pendulum.double_pendulum
    ts = np.linspace(0.0, module.END, 301)
    exact = data.trajectory(system, np.array(module.START), ts)
    noisy = data.simulated(system, module.START, ts, np.array(module.NOISE))
    # The standard deviation of 301 samples is known to 1 / sqrt(602) = 4 %; four of that.
    assert_allclose(np.std(noisy - exact, axis=0), module.NOISE, rtol=0.16)
    assert_array_equal(noisy, data.simulated(system, module.START, ts, np.array(module.NOISE)))
    assert (noisy != data.simulated(system, module.START, ts, np.array(module.NOISE), seed=1)).all()
    words = " ".join(module.experiment(20).words)
    assert all(f"{n} {sd:g}" in words for n, sd in zip(module.NAMES, module.NOISE, strict=True)) and "data seed 0" in words


def test_spiral_grid_is_the_union_of_irregular_times():
    """A solver of ours that answers with the truth: what is left of the loss is the noise."""
    e, seen = spiral.experiment(60), []

    def truth(field, y0, ts, params, moved=None):
        seen.append(np.asarray(ts))
        ys = solve_ivp(lambda t, y: spiral.rotation(t, y.reshape(5, 2)).ravel(), (0, spiral.END), np.ravel(y0), "DOP853",
                       t_eval=ts, rtol=1e-12, atol=1e-12).y.T.reshape(-1, 5, 2)
        if moved is not None:
            ys[moved] += 1.0
        return SimpleNamespace(ys=ys)

    # The mean square of 120 numbers is known to sqrt(2 / 120) = 13 %.
    at_truth = float(e.loss(None, truth)[0])
    assert at_truth == pytest.approx(spiral.NOISE ** 2, rel=0.5)
    # One time moved: the loss sees it in one spiral of the five.
    moved = float(e.loss(None, lambda *given: truth(*given, moved=7))[0])
    assert moved - at_truth == pytest.approx(2 / 120, abs=4 * 0.03 * 2 / 120)
    ts, h = seen[0], np.diff(seen[0])
    assert len(h) == 60 and ts[0] == 0 and ts[-1] == spiral.END and h.min() > 0 and h.max() > 5 * np.median(h) / 2


# Training ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NEW)
def test_reversible_trains_as_direct(name):
    e = EXPERIMENTS[name].experiment(12)
    losses = {mode: training.fit(job(e, gradient, 1), 3).losses
              for mode, gradient in (("reversible", rv.Reversible()), ("direct", rv.Direct()))}
    # As in test_experiments: gradients differ by some N * 4 * eps, here with 1 / lam^N < 500 for the spiral, and Adam
    # divides by the size of the gradient.
    assert_allclose(losses["reversible"], losses["direct"], rtol=1e-10)
    assert losses["direct"][2] < losses["direct"][0]


@pytest.mark.parametrize("name", NEW)
def test_gradient_against_differences(name):
    """Both seeds of error: the loss (fancy indexing) and the solve. Adaptive grids move too little to matter here."""
    e = EXPERIMENTS[name].experiment(12)
    params = e.start(0)
    loss = lambda params: e.loss(params, Solver(e.method, rv.Reversible(), "eager"))
    (_, _), grads = rv.value_and_grad(loss, has_aux=True)(params)
    direction = rv.tree.map(lambda g: np.random.default_rng(5).standard_normal(np.shape(g)), params)
    h = 1e-5
    up, down = (float(loss(rv.tree.map(lambda p, d: p + s * h * d, params, direction))[0]) for s in (1, -1))
    slope = sum(np.sum(g * d) for g, d in zip(rv.tree.flatten(grads)[0], rv.tree.flatten(direction)[0], strict=True))
    # Differences: h^2 times a third derivative, which is within 1e3 of the slope; rounding eps / h = 2e-11.
    # The pendulum's steps follow the parameters: what that moves is below its tolerance, 1e-6, over h... for one sign.
    assert (up - down) / (2 * h) == pytest.approx(slope, rel=1e-6 if name != "pendulum" else 1e-3)


@pytest.mark.long
def test_sir_recovers_its_constants():
    e = sir.experiment(28)           # of half a day: RK4 is then off by 4e-4, sqrt(28) of which is a tenth of the noise
    result = training.fit(job(e), 60)
    found = e.findings(result.best, e.start(0), Solver(e.method))
    assert list(found) == ["b, 1/day", "k, 1/day"]
    found = {name[0]: numbers for name, numbers in found.items()}

    def infected(b, k):
        return solve_ivp(lambda t, y: sir.epidemic(t, y, {"b": b, "k": k}), (0, sir.END), sir.START, "DOP853", rtol=1e-11,
                         atol=1e-12, t_eval=np.linspace(0, sir.END, 29)[1:]).y[1]

    J = np.stack([(infected(1.66 + 1e-4, 0.44) - infected(1.66 - 1e-4, 0.44)) / 2e-4,
                  (infected(1.66, 0.44 + 1e-4) - infected(1.66, 0.44 - 1e-4)) / 2e-4], axis=-1)
    bound = np.sqrt(np.diag(np.linalg.inv(J.T @ J))) * sir.NOISE         # Cramer and Rao, for the stated noise
    for (name, numbers), sd in zip(found.items(), bound, strict=True):
        assert numbers["truth"] == sir.TRUTH[name] and numbers["found"] == float(result.best[name])
        assert abs(numbers["found"] - numbers["truth"]) < 4 * sd, name
        # The estimate scales with the residuals' size, which 28 counts give to 1 / sqrt(2 * 26) = 14 %: four of that.
        assert numbers["standard error"] == pytest.approx(sd, rel=0.55), name
    # From its start the run came a long way.
    assert abs(float(e.start(0)["b"]) - 1.66) > 10 * bound[0]


@pytest.mark.long
def test_spiral_is_rebuilt_and_continued():
    e = spiral.experiment()
    before = e.findings(e.start(1), None, Solver(e.method))
    result = training.fit(job(e, seed=1), 120)
    found = e.findings(result.best, None, Solver(e.method))
    assert list(found) == ["seen, t < 3", "beyond, t < 6"]
    # No theory here: an untrained network is off by about the radius, this one by a tenth of that, also beyond the data.
    assert before["seen, t < 3"]["rms error"] > 0.5
    assert all(numbers["rms error"] < 0.15 for numbers in found.values()), found


# The commands --------------------------------------------------------------------------------------------------------
@pytest.mark.sample(2)
@pytest.mark.parametrize("name", NEW)
def test_train_prints_and_writes(capsys, tmp_path, name):
    path, picture = tmp_path / "out.json", tmp_path / "out.png"
    status, out, _ = run(capsys, "train", name, "--steps", 12, "--iterations", 2, "--json", path, "--plot", picture,
                         "--backend", "eager")
    assert status == 0 and out.startswith(f"{name}: ")
    report, e = json.loads(path.read_text()), EXPERIMENTS[name].experiment(12)
    assert report["settings"]["words"] == list(e.words) and e.words[0] in out
    assert report["settings"]["published_iterations"] == e.published_iterations
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= tables.WIDTH
    row, = report["rows"]
    assert row["gradient"] == "reversible" and row["gradient_error"] < 1e-11 and row["states"] == 2
    # Half the steps, or a tenth of the tolerance: another loss, by the error of the solve.
    assert row["loss_finer"] != row["loss"] and row["loss_finer"] == pytest.approx(row["loss"], rel=0.2)
    if name == "pendulum":
        assert row["steps"] >= 12 and row["rejected"] >= 0 and "rejected" in out
        assert f"{row['steps']:,}, {row['rejected']}" in out and "13 saved times" in out
    else:
        assert row["steps"] == 12 and row["rejected"] is None and "rejected" not in out
    if name in MODULES:
        assert "findings" not in row and report["published"]["rows"] and "Published, other hardware" in out
    else:
        assert report["published"] is None and "ublished" not in out
        assert list(row["findings"]) == {"sir": ["b, 1/day", "k, 1/day"], "spiral": ["seen, t < 3", "beyond, t < 6"]}[name]
        for what, numbers in row["findings"].items():
            assert all(f"{x:.4g}" in out for x in numbers.values()) and what in out
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.long
@pytest.mark.parametrize("name", NEW)
def test_compare_measures_every_mode(capsys, tmp_path, name):
    path, picture = tmp_path / "out.json", tmp_path / "out.png"
    steps = 14 if name == "sir" else 7           # an epidemic in steps of two days is none
    status, _, _ = run(capsys, "compare", name, "--steps", steps, "--iterations", 2, "--json", path, "--plot", picture,
                       "--backend", "replay")
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    steps = rows["reversible"]["steps"]
    counts = [n for n in (44, 32, 16, 8, 4, 2) if n < steps]
    assert status == 0 and list(rows) == ["reversible", "direct", *(f"checkpointed:{n}" for n in counts), "backsolve"]
    assert rows["reversible"]["backend"] == "replay"
    for mode, row in rows.items():
        assert row["steps"] == steps and (row["gradient_error"] < 1e-11 or mode == "backsolve"), mode
        # The same forward solve at the same parameters; replay merges sums, a rounding or so for each of some 50 steps.
        assert row["loss"] == pytest.approx(rows["reversible"]["loss"], rel=1e-13)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_adaptive_steps_want_an_error_estimate(capsys):
    status, out, err = run(capsys, "train", "pendulum", "--method", "leapfrog-midpoint")
    assert status == 2 and not out and "has no error estimate" in err and "coupled:bosh3:0.999" in err


def test_loose_methods_reject_and_go_on(capsys, tmp_path):
    """Another method through the same controller: the counts are those of its own grid."""
    path = tmp_path / "out.json"
    status, _, _ = run(capsys, "train", "pendulum", "--steps", 4, "--iterations", 2, "--method", "coupled:dopri5",
                       "--json", path, "--backend", "eager")
    row, = json.loads(path.read_text())["rows"]
    assert status == 0 and row["steps"] > 4 and row["gradient_error"] < 1e-11


@pytest.mark.long
def test_float32(capsys):
    for name in NEW:
        status, out, _ = run(capsys, "train", name, "--steps", 14, "--iterations", 1, "--dtype", "float32", "--backend", "eager")
        assert status == 0 and "float32" in out


def test_own_drawings_show_the_data():
    from matplotlib.figure import Figure
    for name, shown in (("sir", 28), ("spiral", 60)):
        e = EXPERIMENTS[name].experiment(shown)
        ax = Figure().subplots()
        e.draw([ax], e.start(0), e.start(0), Solver(e.method), 0, "")
        points = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "o")
        assert points == shown

"""`revode check`: the cases are what the oracle makes, the reference agrees with them, and planted faults are found and named."""
from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import strangers

from reference.vectors.__main__ import FOLDER
from reference.vectors.__main__ import main as make
from reference.vectors.table import CASES
from revode import conformance
from revode.__main__ import main
from revode.conformance import chosen, faults, judging, reference, texts
from revode.conformance.cases import plain

ROOT = Path(__file__).parents[2]
ALL = {case.problem.name: case for case in chosen()}


# ------------------------------------------------------------------------------------------------------------ the cases
@pytest.mark.parametrize("pattern", ["*-uniform", pytest.param("*", marks=pytest.mark.long)])
def test_every_case_is_what_the_oracle_makes(pattern: str, capsys: pytest.CaptureFixture) -> None:
    """In 50 digits, rounded once: the same text, to the last bit."""
    assert make([pattern, "--check"]) == 0
    assert capsys.readouterr().out == f"{len([name for name in CASES if fnmatch(name, pattern)])} cases compared\n"


def test_the_table_and_the_files_are_the_same_cases() -> None:
    assert set(ALL) == set(CASES)
    sizes = [path.stat().st_size for path in FOLDER.glob("*.json")]
    assert max(sizes) < 20_000


def test_a_changed_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("reference.vectors.__main__.FOLDER", tmp_path)
    assert make(["alf"]) == 0 and make(["alf", "--check"]) == 0
    path = tmp_path / "alf.json"
    text = path.read_text()
    last = text.rindex("p-")
    path.write_text(text[:last - 1] + ("1" if text[last - 1] == "0" else "0") + text[last:])          # the last bit of one number
    assert make(["alf", "--check"]) == 1
    assert "alf: the file is not what the oracle makes" in capsys.readouterr().out


def test_every_method_and_option_of_the_package_has_a_case() -> None:
    methods = {case.problem.method["name"] for case in ALL.values()}
    assert methods == {"RungeKutta", "Coupled", "AsynchronousLeapfrog", "ReversibleHeun", "LeapfrogMidpoint",
    "SemiImplicitEuler",
                       "VelocityVerlet", "Composition", "EES25", "EES27", "EES", "NearReversible", "RevDEQ",
                       "Picard"}
    for name in ("Coupled", "RungeKutta", "NearReversible"):
        bases = {case.problem.method["base"] for case in ALL.values() if case.problem.method["name"] == name}
        assert bases == {"euler", "midpoint", "heun2", "ralston3", "bosh3", "rk4", "dopri5", "tsit5"}
    assert {case.problem.kind for case in ALL.values()} == {"ode", "split", "diagonal", "general", "additive",
    "controlled", "fixed-point"}
    assert {"varying", "uniform", "backwards"} < {case.grid for case in ALL.values()}


def test_the_cotangents_of_a_case_end_in_its_gradient() -> None:
    """By the chain rule and the initial map alone: y = z = y0 for Coupled, so dL/dy0 is the sum of both cotangents."""
    case = ALL["coupled-midpoint-lam0.875"]
    a = case.cotangents[0]
    assert np.max(np.abs(a["y"] + a["z"] - case.ay0)) <= 2 * np.spacing(np.max(np.abs(case.ay0)))
    assert all(np.array_equal(case.aparams[0][name], w) for name, w in case.total.items())


# -------------------------------------------------------------------------------------------------------- the reference
# float64 against 50 digits: a few hundred roundings of 1e-16 a step, and one condition number of the gradient; seen: 2.3e-14.
REFERENCE_TOLERANCE = 1e-13


def test_the_reference_agrees_with_every_case() -> None:
    worst = 0.0
    for case in ALL.values():
        ys, states = reference.Reference(case.problem).trajectory()
        ay0, aparams, trace = reference.Reference(case.problem).gradient(case.states)
        pairs = [(ys, case.ys), (ay0, case.ay0), *((aparams[name], w) for name, w in case.total.items())]
        pairs += [(mine[part], x) for mine, theirs in zip(states, case.states, strict=True) for part, x in theirs.items()]
        worst = max(worst, *(judging.distance(a, b) for a, b in pairs))
        largest = max(np.max(np.abs(x)) for row in case.cotangents for x in row.values())
        worst = max(worst, *(np.max(np.abs(mine[part] - x)) / largest for mine, theirs in zip(trace, case.cotangents, strict=True)
                             for part, x in theirs.items()))
    assert worst <= REFERENCE_TOLERANCE, worst


def effects() -> dict:
    """{(the family of methods, a fault's sentence): its effect in every case, of the trajectory or of the gradient}."""
    found: dict = {}
    one_of_each = {(p.method["name"], p.method.get("correct"), p.method.get("damping"), p.kind, p.gradient, case.grid): case
                   for case in ALL.values() if (p := case.problem).kind not in ("general", "additive")}
    for case in one_of_each.values():
        problem = case.problem
        for fault in faults.listed(problem.method, problem.kind):
            with np.errstate(all="ignore"):
                ys, states = reference.Reference(problem, fault.edits, fault.options).trajectory()
            parts = [judging.distance(s[x], r[x]) for s, r in zip(states, case.states, strict=True) for x in r]
            found.setdefault((texts.family(problem.method), fault.says), []).append(max(judging.distance(ys, case.ys), *parts))
        for says, (ay0, aparams) in judging.wrong_gradients(case):
            found.setdefault((texts.family(problem.method), says), []).append(
                max(judging.distance(ay0, case.ay0), *(judging.distance(aparams[k], w) for k, w in case.total.items())))
    return found


@pytest.mark.long
def test_every_fault_shows_and_none_hides_near_the_tolerance() -> None:
    """An effect is absent (the fault is none for this base or grid) or 20 times the tolerance, and each shows somewhere."""
    table = effects()
    assert len(table) > 250
    shows: dict = {}
    for (method, says), sizes in table.items():
        shows[says] = max(shows.get(says, 0.0), *sizes)
        near = [e for e in sizes if REFERENCE_TOLERANCE < e < 20 * judging.GRADIENT_TOLERANCE]
        assert not near, (method, says, near)
    assert not [says for says, e in shows.items() if e < 1e-7]


def test_a_fault_s_text_is_in_the_reference() -> None:
    """Every row changes a text that some method has; a row that nothing matches would be dead."""
    for table, back in ((faults.FORWARD, False), (faults.BACK, True)):
        for name, rows in table.items():
            ways = [(case.problem.method, case.problem.kind) for case in ALL.values() if texts.family(case.problem.method) == name]
            said = {fault.says for way in ways for fault in faults.listed(*way, back=back)}
            assert {row[3] for row in rows} <= said, {row[3] for row in rows} - said


def test_the_checker_needs_numpy_alone() -> None:
    room = Path(conformance.__file__).parent
    for path in room.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= {"numpy", *sys.stdlib_module_names}, path
            elif isinstance(node, ast.ImportFrom):
                inside = node.level == 1 and (room / f"{node.module}.py").exists()
                assert inside or (node.level == 0 and str(node.module).split(".")[0] in sys.stdlib_module_names), (path, node.module)


# ------------------------------------------------------------------------------------------------------------ strangers
STRANGERS = {"coupled": "coupled-midpoint*", "alf": "alf,alf-*", "heun": "reversible-heun*,diagonal-reversible*",
"verlet": "verlet*",
             "ees": "ees25-x0.1*"}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_strangers_wrote_conforms(name: str) -> None:
    found = [v for v in conformance.check(getattr(strangers, name), STRANGERS[name]) if v.status != "not offered"]
    assert found and {v.status for v in found} == {"conforms"}, [v.lines() for v in found]


SOURCE = Path(strangers.__file__).read_text()


def planted(name: str, *changes: tuple[str, str]):
    """A stranger's function with some of its source changed."""
    text = SOURCE
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in strangers.py"
        text = text.replace(old, new)
    namespace: dict = {"__name__": "planted"}
    exec(compile(text, "planted.py", "exec"), namespace)
    return namespace[name]


# (stranger, a case that it is run on, what stands in its source, what is put there instead, what the report is to say)
LISTED = [
    ("coupled", "coupled-midpoint-lam0.875", "increment(end, -length, first)", "increment(begin, -length, first)",
     "Psi_{-h} starts at t; it starts at t + h"),
    ("coupled", "coupled-midpoint-lam0.875", "second = second - increment", "second = second + increment",
     "z' = z + Psi_{-h}; the sign is minus"),
    ("coupled", "coupled-midpoint-lam0.875", "second + lam * (first - second)", "first + lam * (second - first)",
     "lam multiplies z and 1 - lam multiplies y; it is the other way round"),
    ("coupled", "coupled-midpoint-lam0.875", "blend + increment(begin, length, second)",
     "blend + increment(begin, length, first)",
     "the first base step starts from y; it starts from z"),
    ("coupled", "coupled-midpoint-lam0.875", 'problem.method["lam"], len', "0.999, len",
     "lam is 0.999, a default; another one is asked for"),
    ("coupled", "coupled-midpoint-lam0.875", "return length * f(time + 0.5 * length,", "return length * f(time,",
     "every stage is evaluated at the start of its step; its time is t + c h"),
    ("coupled", "coupled-midpoint-lam0.875",
     "return length * f(time + 0.5 * length, u + 0.5 * length * f(time, u, p), p)",
     "return 0.5 * length * (f(time, u, p) + f(time + length, u + length * f(time, u, p), p))",
     "the base is heun2; another one is asked for"),
    ("coupled", "coupled-midpoint-lam0.875", '"ys": np.stack(path)[:, :d]', '"ys": np.stack(path)[:, d:]',
     "z is returned; the solution is y"),
    ("coupled", "coupled-midpoint-lam0.875", "total = total - P.T @ lower", "total = total + P.T @ lower",
     "the minus of Psi_{-h} is put on dL/dy but not on dL/dparams"),
    ("coupled", "coupled-midpoint-lam0.875", '"ay0": adjoint[:d] + adjoint[d:]', '"ay0": adjoint[:d]',
     "dL/dy0 lacks the part that comes through z0 = y0"),
    ("coupled", "coupled-midpoint-lam0.875", "(1 - lam) * upper + D.T", "D.T", "dL/dz lacks (1 - lam) dL/dy"),
    ("coupled", "coupled-midpoint-lam0.875", "upper = lam * upper + ", "upper = upper + ",
     "dL/dy is not multiplied by lam"),
    ("alf", "alf-eta0.875", "self.speed = self.field(problem.ts[0], self.where, self.p)",
     "self.speed = 0 * self.where", "v0 = 0; it is f(t0, y0)"),
    ("alf", "alf-eta0.875", 'self.relax = 2 * problem.method["eta"]', "self.relax = 2.0",
     "eta is 1; another one is asked for"),
    ("alf", "alf-eta0.875", "(self.field(t + dt / 2, self.where, self.p) - self.speed)",
     "(self.field(t, self.where, self.p) - self.speed)",
     "f is evaluated at t; its time is t + h/2"),
    ("alf", "alf-eta0.875", "aw, ap = particle.pull(problem.ts[0], av, aw, ap)", "pass",
     "the cotangent of v0 = f(t0, y0) is dropped, for y0 and params"),
    ("alf", "alf-eta0.875", "aw, ap = particle.pull(problem.ts[0], av, aw, ap)\n",
     "aw, _ = particle.pull(problem.ts[0], av, aw, ap)\n",
     "the cotangent of v0 = f(t0, y0) reaches y0 but not params"),
    ("alf", "alf-eta0.875", "self.relax * av, aw, ap)", "av, aw, ap)", "the cotangent of f lacks the factor 2 eta"),
    ("alf", "alf-eta0.875", "av = av - self.relax * av", "pass", "the cotangent of v is not multiplied by 1 - 2 eta"),
    ("alf", "alf-eta0.875", "aw = aw + problem.weights[n]", "pass",
     "the cotangent of the last output alone enters; every output has one"),
    ("alf", "alf-eta0.875", '"k": -np.dot', '"k": np.dot', "dL/dk has the opposite sign"),
    ("heun", "reversible-heun", "C, D = f(problem.ts[n], Y", "C, D = f(problem.ts[n - 1], Y",
     "the second field value is taken at t and kept for the next step; its time is t + h"),
    ("heun", "reversible-heun", "Y = 2 * X - Y + A * dt", "Y = X + A * dt",
     "z' = y + h f, Euler's predictor; it is 2 y - z + h f"),
    ("heun", "reversible-heun", "dt = problem.ts[n] - problem.ts[n - 1]\n        dW",
     "dt = problem.ts[1] - problem.ts[0]\n        dW",
     "ts[1] - ts[0] is used for every step; h = ts[n+1] - ts[n]"),
    ("heun", "diagonal-reversible-heun", "problem.dWs[n - 1]", "problem.dWs[0]",
     "the increments of the first step are used in every step"),
    ("heun", "diagonal-reversible-heun", "problem.dWs[n - 1]", "problem.dWs[n - 1] * dt ** 0.5",
     "the increments were multiplied by sqrt(h); they are increments already"),
    ("verlet", "verlet", "speed = speed + 0.5 * (old + new) * dt", "speed = speed + old * dt",
     "both kicks use the field at the start; the second is at t + h and q'"),
]
# No entry of the dictionary: the report has to say so, and where the first difference is.
UNLISTED = [
    ("coupled", "coupled-midpoint-lam0.875", "blend = second + lam * (first - second)",
     "blend = second + lam ** (1 + n % 2) * (first - second)"),
    ("coupled", "coupled-midpoint-lam0.875", "path.append(np.concatenate([first, second]))",
     "path.append(np.concatenate([first, second if n else path[-1][d:]]))"),
    ("coupled", "coupled-midpoint-lam0.875",
     "problem.ts[n], problem.ts[n + 1] - problem.ts[n]\n        end = begin + length\n        first",
     "problem.ts[n], round(problem.ts[n + 1] - problem.ts[n], 3)\n        end = begin + length\n        first"),
    ("coupled", "coupled-midpoint-lam0.875", "total = total + P.T @ upper",
     "total = total + (1 + (n == 0)) * (P.T @ upper)"),
    ("coupled", "coupled-midpoint-lam0.875", "upper, lower = adjoint[:d], adjoint[d:]",
     "upper, lower = np.clip(adjoint[:d], -1, 1), adjoint[d:]"),
    ("alf", "alf-eta0.875", "self.speed = self.speed + self.relax * (",
     "self.speed = self.speed + (self.relax if n < 4 else 1.5) * ("),
    ("alf", "alf-eta0.875", 'np.einsum("i,j->ij", hidden, a)', 'np.einsum("i,j->ij", hidden[::-1], a)'),
    ("alf", "alf-eta0.875", "seen.append(particle.where)\n",
     "seen.append(particle.where if n < steps - 1 else seen[-1])\n"),
    ("heun", "reversible-heun", "X = X + 0.5 * (A + C) * dt", "X = X + (2 * A + C) / 3 * dt"),
    ("heun", "reversible-heun", "A, B = C, D\n", "A, B = anp.clip(C, -0.5, 0.5), D\n"),
    ("heun", "diagonal-reversible-heun", "problem.dWs[n - 1]", "problem.dWs[n - 1][::-1]"),
    ("verlet", "verlet", "0.5 * old * dt ** 2", "0.25 * old * dt ** 2"),
    ("verlet", "verlet", "old = new\n", "old = 0.5 * (old + new)\n"),
    ("ees", "ees25-x0.1", "(-5 * k1 + 45 * k2) / 48", "(-5 * k1 + 45 * k2) / 47"),
    ("ees", "ees25-x0.1", "k1 / 10 + k2 / 2 + 2 * k3 / 5", "k1 / 2 + k2 / 10 + 2 * k3 / 5"),
    ("ees", "ees25-x0.1", "t + 5 * dt / 6", "t + 0.83 * dt"),
    ("ees", "ees25-x0.1", "t + dt / 3, y", "t, y"),                    # one of two stage times
]
TWO = [
    ("coupled", "coupled-midpoint-lam0.875", ("increment(end, -length, first)", "increment(begin, -length, first)"),
     ("second = second - increment", "second = second + increment"),
      "no. 3, at t = 0.25; the reference's is at t = 0.3125"),
    ("coupled", "coupled-midpoint-lam0.875", ("second + lam * (first - second)", "first + lam * (second - first)"),
     ("increment(end, -length, first)", "increment(begin, -length, first)"),
      "no. 3, at t = 0.25; the reference's is at t = 0.3125"),
    ("alf", "alf-eta0.875", ("self.speed = self.field(problem.ts[0], self.where, self.p)",
     "self.speed = 0 * self.where"),
     ("(self.field(t + dt / 2, self.where, self.p) - self.speed)",
      "(self.field(t, self.where, self.p) - self.speed)"),
     "no. 2, at t = 0.3125; the reference's is at t = 0.28125"),
    ("heun", "reversible-heun", ("C, D = f(problem.ts[n], Y", "C, D = f(problem.ts[n - 1], Y"),
     ("0.5 * (A + C) * dt", "(A + C) * dt"),
     "no. 2, at t = 0.25; the reference's is at t = 0.3125"),
    ("coupled", "coupled-midpoint-lam0.875", ("total = total - P.T @ lower", "total = total + P.T @ lower"),
     ("upper = lam * upper + ", "upper = upper + "), ""),
]


@pytest.mark.parametrize("name, case, old, new, says", LISTED, ids=[f"{row[0]}-{i}" for i, row in enumerate(LISTED)])
def test_a_listed_fault_is_named(name: str, case: str, old: str, new: str, says: str) -> None:
    verdict = judging.judge(ALL[case], planted(name, (old, new)))
    assert verdict.status == "differs" and verdict.looks_like == [says], verdict.lines()
    assert 3 <= len(verdict.lines()) <= 4


@pytest.mark.parametrize("name, case, old, new", UNLISTED, ids=[f"{row[0]}-{i}" for i, row in enumerate(UNLISTED)])
def test_a_fault_that_no_entry_explains_is_unknown(name: str, case: str, old: str, new: str) -> None:
    verdict = judging.judge(ALL[case], planted(name, (old, new)))
    assert verdict.status == "differs" and verdict.looks_like == [], verdict.lines()
    assert "looks like: unknown" in verdict.lines()[-1]
    assert "differs first" in verdict.where[0] or "the gradient does not" in verdict.where[0]


@pytest.mark.parametrize("name, case, one, other, where", TWO, ids=[f"{row[0]}-{i}" for i, row in enumerate(TWO)])
def test_two_faults_at_once_are_unknown(name: str, case: str, one: tuple, other: tuple, where: str) -> None:
    verdict = judging.judge(ALL[case], planted(name, one, other))
    assert verdict.status == "differs" and verdict.looks_like == [], verdict.lines()
    assert where in "".join(verdict.where)


def test_there_are_enough_of_them() -> None:
    assert len(LISTED) + len(UNLISTED) + len(TWO) >= 30 and len(UNLISTED) >= 10


def test_a_conforming_case_is_not_explained_away() -> None:
    """No false 'differs', and no entry of the dictionary equals the reference on all of a method's cases."""
    verdict = judging.judge(ALL["coupled-midpoint-lam0.875"], strangers.coupled, "states")
    assert verdict.status == "conforms" and set(verdict.measures) == {"y", "part y", "part z"}


# ---------------------------------------------------------------------------------------------- what is not quite a solver
def answering(**changes):
    """The reference's own answer to a case, with parts of it changed."""
    def implementation(problem):
        run = reference.Reference(problem)
        ys, states = run.trajectory()
        ay0, aparams, trace = run.gradient(states)
        return {"ys": ys, "states": states, "ay0": ay0, "aparams": aparams, "cotangents": trace,
                **{name: change({"ys": ys, "states": states, "ay0": ay0, "aparams": aparams, "cotangents": trace}[name])
                   for name, change in changes.items()}}

    return implementation


def judged(level: str = "gradients", **changes) -> judging.Verdict:
    return judging.judge(ALL["coupled-midpoint-lam0.875"], answering(**changes), level)


def test_answers_that_cannot_be_compared_say_why() -> None:
    for changes, says in (({"ys": lambda x: x[1:]}, "ys has shape (6, 3); it is to have shape (7, 3)"),
                          ({"ys": lambda x: "fine"}, "ys is not an array of numbers"),
                          ({"ys": lambda x: x + 0.1j}, "ys is not an array of numbers: it is complex"),
                          ({"ay0": lambda x: None}, "no gradient was returned"),
                          ({"aparams": lambda x: {"W1": x["W1"]}},
                           "aparams holds ['W1']; it is a dictionary of ['W1', 'W2', 'b1', 'b2', 'k']"),
                          ({"states": lambda x: x[0]}, "states is to be a list of 7 dictionaries")):
        verdict = judged(**changes)
        assert verdict.status == "could not run" and says in verdict.where[0], verdict
    assert "no 'states' were returned" in judged("states", states=lambda x: None).where[0]
    assert judged("y", ay0=lambda x: None).status == "conforms"
    assert "it is a dictionary with 'ys'" in judging.judge(ALL["alf"], lambda problem: 3).where[0]
    assert "ZeroDivisionError" in judging.judge(ALL["alf"], lambda problem: 1 / 0).where[0]


def test_a_number_that_is_none_differs() -> None:
    def nan(ys):
        ys = ys.copy()
        ys[4, 1] = np.nan
        return ys

    verdict = judged(ys=nan)
    assert verdict.status == "differs" and "y[1] differs first at step 4 of 6" in verdict.where[0] and not verdict.looks_like
    verdict = judged(ay0=lambda a: a * np.inf)
    assert verdict.status == "differs" and "dL/dy0" in verdict.where[0] and not verdict.looks_like


def test_float32_numbers_are_seen_as_such() -> None:
    assert "float32 numbers" in judged(ys=lambda ys: ys.astype(np.float32)).lines()[-1]


def test_wrong_states_and_cotangents_are_found_behind_right_outputs() -> None:
    """ys and the gradient agree, but z, or a cotangent on the way, does not."""
    def moved(rows, part, n):
        return [{**row, part: row[part] + (1e-6 if m == n else 0.0)} for m, row in enumerate(rows)]

    verdict = judged(states=lambda rows: moved(rows, "z", 3))
    assert verdict.status == "differs" and re.search(r"part z\[\d\] differs first at step 3", verdict.where[0]), verdict.lines()
    verdict = judged(cotangents=lambda rows: moved(rows, "z", 2))
    assert re.search(r"cotangent of z\[\d\] differs first at step 2", verdict.where[0]), verdict.lines()


def continuous(problem):
    """Optimise, then discretise: the adjoint equation by the midpoint rule backwards, beside a state solved back anew."""
    run = reference.Reference(problem)
    ys, _ = run.trajectory()
    f, vjp = run.names["f"], run.names["f_vjp"]
    rates = lambda t, y, a: (f(t, y), *vjp(t, y, -a))
    a, G = problem.weights[-1], run.names["G0"]
    for n in range(len(ys) - 2, -1, -1):
        t, h, y = problem.ts[n + 1], problem.ts[n] - problem.ts[n + 1], ys[n + 1]
        dy, da, _ = rates(t, y, a)
        _, da, dG = rates(t + h / 2, y + h / 2 * dy, a + h / 2 * da)
        a, G = a + h * da + problem.weights[n], G + h * dG
    return {"ys": ys, "ay0": a, "aparams": dict(G)}


def test_a_continuous_adjoint_is_known_by_its_order() -> None:
    verdict = judging.judge(ALL["rk-midpoint"], continuous)
    assert verdict.status == "differs" and len(verdict.looks_like) == 1, verdict.lines()
    assert verdict.looks_like[0].startswith("a continuous adjoint (optimise, then discretise): its error falls as h^2.")
    euler = judging.judge(ALL["rk-euler"], continuous)            # of order one any neighbouring point would do as well
    assert euler.looks_like == [] and "falls as h^" in euler.hint


def test_points_are_read_from_what_libraries_hand_over() -> None:
    boxes: list = []
    strangers.grad(lambda x: (boxes.append(plain(x)), x * x)[1])(3.0)
    assert boxes == [3.0] and plain(np.float32(0.5)) == 0.5 and plain(1j) is None and plain(object()) is None


# ---------------------------------------------------------------------------------------------------------- the command
def run_command(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    status = main(["check", *words])
    return status, *capsys.readouterr()


def test_the_command_s_status_and_report(capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(strangers.__file__).parent))
    status, out, _ = run_command(capsys, "--impl", "strangers:alf", "--cases", "alf,alf-eta0.875,verlet")
    assert status == 0 and out.splitlines()[-1] == "2 conform, 1 not offered"
    (tmp_path / "wrong.py").write_text(SOURCE.replace("(1 - lam) * upper + D.T", "D.T"))
    monkeypatch.syspath_prepend(str(tmp_path))
    status, out, _ = run_command(capsys, "--impl", "wrong:coupled", "--cases", "coupled-midpoint-lam0.875")
    assert status == 1 and "looks like: dL/dz lacks (1 - lam) dL/dy" in out
    status, out, _ = run_command(capsys, "--impl", "wrong:coupled", "--cases", "coupled-midpoint-lam0.875", "--level", "y")
    assert status == 0
    status, out, _ = run_command(capsys, "--impl", "wrong:coupled", "--cases", "coupled-midpoint-lam0.875", "--json")
    found, = json.loads(out)
    assert status == 1 and found["status"] == "differs" and found["looks_like"] == ["dL/dz lacks (1 - lam) dL/dy"]
    status, out, _ = run_command(capsys, "--impl", "strangers:alf", "--cases", "verlet")
    assert status == 2 and out == "1 not offered\n"


@pytest.mark.parametrize("words, says", [
    (["--impl", "strangers"], "give module:function"), (["--impl", "no_such_module:f"], "importing no_such_module failed with"),
    (["--impl", "math:nothing"], "math has no 'nothing'"), (["--impl", "math:sin", "--cases", "nobody"], "no case is named 'nobody'"),
    (["--exec", ""], "give a program")])
def test_what_cannot_be_run_is_status_two(capsys: pytest.CaptureFixture, words: list, says: str) -> None:
    status, _, err = run_command(capsys, *words)
    assert status == 2 and says in err


def test_the_cases_are_listed(capsys: pytest.CaptureFixture) -> None:
    status, out, _ = run_command(capsys, "--list", "--cases", "alf*,revdeq*")
    assert status == 0 and "alf" in out.split() and "revdeq-beta0.5" in out.split()


PROGRAM = """import json, sys
asked = json.load(sys.stdin)
if asked["method"]["name"] != "RungeKutta": print('{"unsupported": "no"}'); sys.exit()
if asked["method"]["base"] == "rk4": sys.exit("no fourth order")
if asked["method"]["base"] == "heun2": print("hello"); sys.exit()
print(json.dumps({"ys": [asked["y0"]] * len(asked["ts"]), "evaluations": [[0.25, *asked["y0"]]]}))
"""


def test_a_program_speaks_json(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = f"{shlex.quote(sys.executable)} {tmp_path / 'program.py'}"
    status, out, _ = run_command(capsys, "--exec", words, "--cases", "rk-euler,rk-rk4,rk-heun2,alf", "--level", "y")
    assert status == 1 and "y[2] differs first at step 1 of 6" in out
    assert "ended with status 1: no fourth order" in out and "printed no JSON object" in out
    assert out.splitlines()[-1] == "1 differs, 2 could not run, 1 not offered"
    status, out, _ = run_command(capsys, "--exec", str(tmp_path / "absent"), "--cases", "alf")
    assert status == 2 and "No such file" in out


def test_the_c_example_conforms(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = ROOT / "reference" / "adapters" / "c" / "coupled.c"
    subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-o", tmp_path / "coupled", source, "-lm"], check=True)
    status, out, _ = run_command(capsys, "--exec", str(tmp_path / "coupled"), "--cases", "coupled-midpoint*,verlet")
    assert status == 0 and out.splitlines()[-1] == "7 conform, 1 not offered", out


@pytest.mark.parametrize("name", ["coupled-midpoint-uniform", "ees25-x0.1-back"])
def test_an_exported_solver_conforms(name: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """rv.export_c, and a main that speaks JSON."""
    from reference.adapters.c.exported import export
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    words = export(conformance.cases.chosen(name)[0].problem, tmp_path)
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", tmp_path / "solver", *words], check=True)
    status, out, _ = run_command(capsys, "--exec", str(tmp_path / "solver"), "--cases", f"{name},verlet")
    assert status == 0 and out.splitlines()[-1] == "1 conforms, 1 not offered", out


# ------------------------------------------------------------------------------------------------- ours, and the peers'
OURS = {"swept": "coupled-*,alf*,reversible-heun*,leapfrog-midpoint*,*verlet,*-back,near-*,diagonal-*,revdeq*",
        "replay": "coupled-rk4-lam0.999,verlet-order8,alf-order4,reversible-heun,near-rk4-correct1,general-coupled-midpoint",
        "by_hand": "coupled-bosh3*,alf-eta0.875*,reversible-heun*,leapfrog-midpoint*,verlet-order4,semi*"}


@pytest.mark.parametrize("how", OURS)
@pytest.mark.filterwarnings("ignore::revode.RevodeWarning")          # the steps are large, so that faults show
def test_this_package_conforms(how: str) -> None:
    from reference.adapters import cases_revode
    found = [v for v in conformance.check(getattr(cases_revode, how), OURS[how]) if v.status != "not offered"]
    assert len(found) >= 6 and [v.lines() for v in found if v.status != "conforms"] == []


PEERS = [("diffrax", "cases_diffrax:checkpointed", "reversible-heun,leapfrog-midpoint,semi-implicit-euler", 0, "3 conform"),
         ("torchsde", "cases_torchsde:full", "*-uniform", 0, "4 conform"),
         ("torchsde", "cases_torchsde:reversible", "*-uniform", 0, "4 conform"),
         ("torchsde", "cases_torchsde:backsolve", "*heun-uniform", 1, "a continuous adjoint"),
         ("torchdiffeq", "cases_torchdiffeq:full", "rk-midpoint,rk-heun2,rk-euler", 0, "3 conform"),
         ("torchdiffeq", "cases_torchdiffeq:full", "rk-rk4", 1, "looks like: the base is the 3/8 rule"),
         ("torchdiffeq", "cases_torchdiffeq:adjoint", "rk-midpoint", 1, "a continuous adjoint"),
         ("autograd", "cases_autograd:loop", "coupled-*,alf,reversible-heun,ees25-x0.1,verlet", 0, "conform")]


@pytest.mark.parametrize("library, implementation, cases, status, says", PEERS, ids=[row[1] + "-" + str(row[3]) for row in PEERS])
def test_a_peer_is_what_the_page_says(library: str, implementation: str, cases: str, status: int, says: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed; pip install torch torchdiffeq torchsde jax diffrax")
    command = [sys.executable, "-m", "revode", "check", "--impl", f"reference.adapters.{implementation}", "--cases", cases]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status and says in done.stdout, done.stdout + done.stderr


PAGE = (ROOT / "docs" / "conformance.md").read_text()
REPRODUCED = re.findall(r"```py\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("code, shown", REPRODUCED, ids=[f"{i}" for i in range(len(REPRODUCED))])
def test_what_a_peer_fails_is_reproduced_by_the_page(code: str, shown: str) -> None:
    for library in re.findall(r"(torch\w*|diffrax)", code.splitlines()[0]):
        pytest.importorskip(library, reason=f"{library} is not installed; pip install torch torchdiffeq torchsde jax diffrax")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout == shown, done.stdout + done.stderr
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 12


def test_the_page_says_how_many_faults_the_tests_plant() -> None:
    assert f"The tests plant {len(LISTED)} faults of the list, {len(UNLISTED)} that are in no list, and {len(TWO)} pairs" in PAGE

"""`revode check`: the cases are what the oracle makes, the reference agrees with them, and planted faults are found and named."""
from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import strangers

from reference.vectors.__main__ import FOLDER, text_of
from reference.vectors.__main__ import main as make
from reference.vectors.table import CASES
from revode import conformance
from revode.conformance import chosen, faults, judging, reference, texts

ROOT = Path(__file__).parents[2]
ALL = {case.problem.name: case for case in chosen()}
SAMPLE = ["coupled-midpoint-lam0.875", "alf-eta0.875", "reversible-heun-backwards", "verlet-order4",
"ees25-x0.1-correct1-back",
          "general-coupled-heun2", "revdeq-beta1.25"]


# ------------------------------------------------------------------------------------------------------------ the cases
@pytest.mark.parametrize("name", SAMPLE)
def test_a_case_is_what_the_oracle_makes(name: str) -> None:
    """In 50 digits, rounded once: the same text, to the last bit. All of them: python -m reference.vectors --check."""
    assert (FOLDER / f"{name}.json").read_text() == text_of(name, CASES[name])


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
                       "VelocityVerlet", "Composition", "EES25", "EES27", "EES", "NearReversible", "RevDEQ"}
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
    for case in ALL.values():
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


def test_every_fault_shows_and_none_hides_near_the_tolerance() -> None:
    """An effect is absent (the fault is none for this base or grid) or 20 times the tolerance, and each shows somewhere."""
    table = effects()
    assert len(table) > 300
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
    ("ees", "ees25-x0.1", "t + dt / 3, y",
     "t, y", None),             # one of two stage times: in no dictionary, see below
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
def test_a_listed_fault_is_named(name: str, case: str, old: str, new: str, says: str | None) -> None:
    verdict = judging.judge(ALL[case], planted(name, (old, new)))
    assert verdict.status == "differs" and verdict.looks_like == ([says] if says else []), verdict.lines()
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

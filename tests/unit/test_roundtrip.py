"""The truth about the round trip: it is measured, what is bad is said (where, how much, why, what to do), what is fine
is not."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import revode as rv
from tests.method_cases import distance

EPS = 2.0**-52
TS_DECAY = np.linspace(0.0, 10.0, 101)


def decay(t: Any, y: Any, p: Any) -> Any:
    return -p * y


def pendulum(t: Any, y: Any, p: Any) -> Any:
    return np.stack([y[..., 1], -p * np.sin(y[..., 0])], -1)


def van_der_pol(t: Any, y: Any, p: Any) -> Any:
    return np.stack([y[..., 1], p * (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]], -1)


def gradient_and_stats(field: Callable, y0: Any, ts: Any, p: Any, method: Any, mode: Any, save: Any = (-1,)) -> tuple:
    def loss(y0: Any, p: Any) -> tuple:
        sol = rv.solve(field, y0, ts, p, method=method, gradient=mode, save=None if save is None else list(save))
        return np.sum(sol.ys ** 2), sol.stats

    (_, stats), gradient = rv.value_and_grad(loss, (0, 1), has_aux=True)(np.asarray(y0),
                                                                         np.asarray(p, np.asarray(y0).dtype))
    return gradient, stats


def warned(field: Callable, y0: Any, ts: Any, p: Any, method: Any, mode: Any = None, save: Any = (-1,)) -> tuple:
    """(gradient, stats, messages about the copies that part or the way back); any other warning fails."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        gradient, stats = gradient_and_stats(field, y0, ts, p, method, mode or rv.Reversible(), save)
    assert {w.category for w in found} <= {rv.ReconstructionWarning, rv.ParasiteWarning}, [str(w.message) for w in found]
    return gradient, stats, [w.message for w in found]


# --------------------------------------------------------------------------------------------------- contraction is
# flagged

CONTRACTING = rv.Coupled("midpoint", lam=0.999)       # y' = -5y with h = .1: |h a| = .5, far beyond -ln(lam) = .001


def test_the_forward_solve_says_that_the_copies_part() -> None:
    """In a plain solve, before any gradient: the gap passes .03 of the solution. One warning, with text that never changes."""
    with pytest.warns(rv.ParasiteWarning) as found:
        for rate in (5.0, 4.0):
            rv.solve(decay, np.array([1.0, 0.5]), TS_DECAY, rate, method=CONTRACTING)
    assert len(found) == 2 and str(found[0].message) == str(found[1].message)
    message, details = str(found[0].message), found[0].message.details
    assert details != found[1].message.details
    assert 0 < details["step"] < 100 and details["t"] == TS_DECAY[details["step"]] and details["G"] > details["allowed"] == 0.03
    assert message.startswith("solve: the two copies of the solution, y and z, part") and not any(c.isdigit() for c in
                                                                                              message.replace("lam=0.999", ""))
    assert "contracts faster than Coupled(base='midpoint', lam=0.999) follows" in message
    assert "Remedies:" in message and "smaller steps" in message and "lam = exp(-c h)" in message and "method=None" in message
    assert found[0].filename == __file__                                  # the caller's line, not one of the library's


def test_pythons_default_filter_shows_it_once_a_place() -> None:
    """A training loop prints it once: same text, category and line, whatever the numbers are."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for rate in np.linspace(4.0, 5.0, 5):
            rv.solve(decay, np.array([1.0, 0.5]), TS_DECAY, rate, method=CONTRACTING)
    assert len(found) == 1


def test_the_reverse_sweep_says_where_and_how_much() -> None:
    gradient, stats, messages = warned(decay, np.array([1.0, 0.5]), TS_DECAY, 5.0, CONTRACTING, save=None)
    forward, backward = messages
    assert type(forward) is rv.ParasiteWarning and type(backward) is rv.ReconstructionWarning
    details = backward.details
    assert 0 <= details["step"] < 100 and details["t"] == TS_DECAY[details["step"]] and details["allowed"] == 1e-3
    assert details["error"] == stats.roundtrip.absolute and details["W_p"] > 1e-3
    assert "did not find its way back, so dL/dy0 and dL/dparams are wrong" in str(backward)
    assert "contracts faster" in str(backward) and "lam=0.999" in str(backward)
    for remedy in ("smaller steps", "lam = exp(-c h)", "Reversible(resync=K)", "Checkpointed(n)", "Direct()"):
        assert remedy in str(backward).split("Remedies:")[1]
    assert stats.roundtrip.absolute > 1 and stats.roundtrip.ulps > 1e12
    # and it is true: against Direct
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rv.RevodeWarning)
        desired, _ = gradient_and_stats(decay, np.array([1.0, 0.5]), TS_DECAY, 5.0, CONTRACTING, rv.Direct(), None)
    assert distance(gradient[1], desired[1]) > 1e-3


FINE_DECAY = np.linspace(0.0, 10.0, 1001)             # h = .01: fine enough for the copies to keep together


def test_strict_raises_forward_and_backward() -> None:
    with pytest.raises(rv.ParasiteError, match=r"two copies.*Remedies.*G = "):
        gradient_and_stats(decay, np.ones(2), TS_DECAY, 5.0, CONTRACTING, rv.Reversible(strict=True))
    # the gap falls like lam / R = .85 exp(.05) a step, faster than y, so only the sweep is at fault: rounding of y1 = exp(-50),
    # 4e-38, grows by R / lam, 1000 times: to 1e10
    method = rv.Coupled("midpoint", lam=0.85)
    with pytest.raises(rv.ReconstructionError, match=r"did not find its way back.*divides by its scales.*Remedies.*step = 0"):
        gradient_and_stats(decay, np.ones(2), FINE_DECAY, 5.0, method, rv.Reversible(strict=True))
    with pytest.warns(rv.ReconstructionWarning, match="reverse sweep"):
        gradient_and_stats(decay, np.ones(2), FINE_DECAY, 5.0, method, rv.Reversible())


def test_a_sweep_that_overflows_gives_our_warning_and_no_other() -> None:
    """3000 halvings more than float64 has room for: the reconstruction is infinite, and nothing of NumPy's is shown."""
    ts = np.linspace(0.0, 120.0, 12001)[:3001]
    method = rv.Coupled("midpoint", lam=0.5)
    _, stats, messages = warned(lambda t, y, p: -p * y**3, np.ones(2), ts, 5.0, method)
    assert stats.roundtrip.absolute == np.inf and [type(m) for m in messages] == [rv.ReconstructionWarning]
    assert messages[0].details["W_p"] == np.inf
    with pytest.raises(rv.ReconstructionError, match="reverse sweep"):
        gradient_and_stats(lambda t, y, p: -p * y**3, np.ones(2), ts, 5.0, method, rv.Reversible(strict=True))


@pytest.mark.parametrize("method", [rv.ReversibleHeun(), rv.AsynchronousLeapfrog(), rv.AsynchronousLeapfrog(0.9),
                                    rv.LeapfrogMidpoint()], ids=str)
def test_other_methods_on_a_contraction_are_flagged(method: Any) -> None:
    """Their limit is 0 without damping (-ln(2 eta - 1)/h = 2.2 with eta = .9), so y' = -8 y over T = 6 must be
    flagged: the parasitic solution grows like exp(8 t) or exp(5.8 t), from round-off to 1e20 or 1e15 of it."""
    _, stats, messages = warned(decay, np.array([1.0, 0.5]), np.linspace(0, 6, 61), 8.0, method)
    # there, and on the way back
    assert [type(m) for m in messages] == [rv.ParasiteWarning, rv.ReconstructionWarning]
    assert "so neither the solution nor its gradient" in str(messages[0]) and stats.roundtrip.ulps > 1e8
    cause = "follows little contraction" if method == rv.AsynchronousLeapfrog(0.9) else "follows no contraction"
    assert cause in str(messages[0])


def test_a_small_part_of_a_large_state_is_not_overlooked() -> None:
    """y = (1e9, u, q): u' = -5 (u - sin t) is not reconstructed, which ruins dL/dp through q' = p u^2; measured
    against the 1e9 the error would look small. The gradient is 2 % off, so it has to be said. A large member of a
    batch: the same."""
    def field(t: Any, y: Any, p: Any) -> Any:
        return np.stack([0 * y[..., 0], -p[1] * (y[..., 1] - np.sin(t)), p[0] * y[..., 1] ** 2], -1)

    def batch(t: Any, y: Any, p: Any) -> Any:
        u = y[1:]
        return np.concatenate([0 * y[:1], np.stack([-p[1] * (u[..., 0] - np.sin(t)), p[0] * u[..., 0] ** 2], -1)])

    ts, p = np.linspace(0, 7.2, 721), np.array([1.0, 5.0])
    for f, y0 in ((field, np.array([1e9, 1.0, 0.0])), (batch, np.array([[1e9, 1e9], [1.0, 0.0]]))):
        _, _, messages = warned(f, y0, ts, p, rv.Coupled("midpoint", lam=0.95))
        assert messages, "no warning"


# ------------------------------------------------------------------------------------------------------------------
# remedies

@pytest.mark.long
def test_resync_repairs_van_der_pol() -> None:
    """METHODS section 2: mu = 1, h = .01, lam = exp(-2h), a state every 200 steps: the reconstruction is 1e-12, so
    1e-10 passes and 1e-14 would be too good; without resync it is lost over 2000 steps; with lam = .999 alone as
    well."""
    ts, y0 = np.linspace(0.0, 20.0, 2001), np.array([2.0, 0.0])
    method = rv.Coupled("midpoint", lam=float(np.exp(-2 * 0.01)))
    gradient, stats, messages = warned(van_der_pol, y0, ts, 1.0, method, rv.Reversible(resync=200))
    assert not messages and 1e-15 < stats.roundtrip.absolute < 1e-10
    desired, _ = gradient_and_stats(van_der_pol, y0, ts, 1.0, method, rv.Direct())
    for actual, exact in zip(gradient, desired, strict=True):
        # the error of the states, times the 200 steps over which a vjp of Lipschitz constant below 5 collects it
        assert distance(actual, exact) < 200 * 5 * 1e-12
    assert stats.peak_states == 12                                          # 0, 200, .., 2000 and the current one
    _, lost, messages = warned(van_der_pol, y0, ts, 1.0, method)
    assert messages and lost.roundtrip.absolute > 1


def test_resync_repairs_the_contraction_with_lam_below_it() -> None:
    """y' = -5y, h = .01: lam = exp(-.12) follows. Forty steps expand by exp(4.8) = 120: 120 * eps * 40 roundings."""
    method = rv.Coupled("midpoint", lam=float(np.exp(-0.12)))
    gradient, stats, messages = warned(decay, np.array([1.0, 0.5]), FINE_DECAY, 5.0, method, rv.Reversible(resync=40),
                                       None)
    desired, _ = gradient_and_stats(decay, np.array([1.0, 0.5]), FINE_DECAY, 5.0, method, rv.Direct(), None)
    assert not messages and stats.roundtrip.absolute < 4800 * EPS
    for actual, exact in zip(gradient, desired, strict=True):
        assert distance(actual, exact) < 1e-10


def test_tol_moves_the_line() -> None:
    y0, ts = np.array([1.0, 0.3]), np.linspace(0, 10, 1001)
    _, stats, messages = warned(pendulum, y0, ts, 2.0, rv.Coupled(lam=0.99))
    assert not messages and 1e-13 < stats.roundtrip.absolute < 1e-8
    _, _, messages = warned(pendulum, y0, ts, 2.0, rv.Coupled(lam=0.99), rv.Reversible(tol=1e-14))
    assert len(messages) == 1 and messages[0].details["allowed"] == 1e-14
    _, _, messages = warned(decay, np.ones(2), FINE_DECAY, 5.0, rv.Coupled(lam=0.88), rv.Reversible(tol=1e300))
    assert not messages


# -------------------------------------------------------------------------------------------------------------------
# figures

@pytest.mark.parametrize("lam, N, figure", [(0.999, 1000, 1e-14), (0.999, 10000, 1e-9), (0.99, 1000, 2e-11),
                                            (0.99, 3000, 7e-2)])
def test_pendulum_figures_of_the_method_sheet(lam: float, N: int, figure: float) -> None:
    """METHODS section 2: midpoint, h = .01, float64, reconstruction of y0 from the end: c eps lam^-N/(1-lam), where c
    depends on the pendulum (.004 to .25 on six of them). This one, from an angle of 2 at rest, gives the sheet's
    figures; within a factor of 5, because round-off is not random enough to be the same elsewhere. By inverse steps,
    so that N = 10000 takes no derivatives."""
    from revode.methods.increment import Evaluator, System
    from revode.methods.shears import Step, forward, inverse
    from revode.stepping import Stats
    method, ts = rv.Coupled("midpoint", lam=lam), 0.01 * np.arange(N + 1)
    y0 = np.array([2.0, 0.0])
    F = Evaluator(System(pendulum, Stats()), 1.0)
    words = [method.word(Step(t, t1, t1 - t, t1 - t)) for t, t1 in zip(ts[:-1].tolist(), ts[1:].tolist(), strict=True)]
    parts = {"y": y0, "z": y0}
    for word in words:
        parts = forward(word, parts, F)
    for word in reversed(words):
        parts = inverse(word, parts, F)
    error = max(abs(part - y0).max() for part in parts.values())
    assert figure / 5 < error < figure * 5, error


def test_the_round_trip_that_is_reported_is_the_one_that_happened() -> None:
    """roundtrip against the states of steps() and steps_back() themselves: absolute error, its step, and ulps of the
    largest entry."""
    ts, y0, p, method = np.linspace(0, 10, 1001), np.array([1.0, 0.3]), np.array(2.0), rv.Coupled(lam=0.99)
    save = [0, 250, 500, 750, 1000]
    _, stats = gradient_and_stats(pendulum, y0, ts, p, method, rv.Reversible(), save)
    forward = [state for _, state in rv.steps(pendulum, y0, ts, p, method=method)]
    back = {item.state.n: item.state for item in rv.steps_back(pendulum, forward[-1], ts, p, ay1=y0, method=method)}
    errors = {n: max(abs(back[n].parts[x] - forward[n].parts[x]).max() for x in (("y", "z") if n == 0 else ("y",)))
              for n in save}
    worst = max(errors, key=lambda n: errors[n])
    assert stats.roundtrip.absolute == errors[worst] and stats.roundtrip.step == worst
    ulps = max(e / np.spacing(abs(forward[n].parts["y"]).max()) for n, e in errors.items())
    # entry by entry it may be larger than by the largest entry
    assert 0.5 * ulps <= stats.roundtrip.ulps <= 20 * ulps


def test_no_round_trip_without_a_sweep() -> None:
    for mode in (rv.Direct(), rv.Checkpointed(3)):
        _, stats = gradient_and_stats(pendulum, np.array([1.0, 0.3]), np.linspace(0, 1, 11), 2.0, rv.Coupled(), mode)
        assert stats.roundtrip is None


# ----------------------------------------------------------------------------------------------------------- no false
# alarms

FINE: dict[str, tuple] = {
    "pendulum": (pendulum, [1.0, 0.3], np.linspace(0, 10, 501), 2.0),
    "through zero": (pendulum, [1.0, 0.0], np.linspace(0, np.pi / 2, 101), 1.0),
    "ends at zero": (lambda t, y, p: p * np.cos(t) * np.ones_like(y), [0.0], np.linspace(0, np.pi, 101), 1.0),
    "starts at zero": (lambda t, y, p: p * np.sin(t) * np.ones_like(y) - y, [0.0, 0.0], np.linspace(0, 2, 201), 1.0),
    "all zero": (lambda t, y, p: p * y, [0.0, 0.0], np.linspace(0, 1, 11), 1.0),
    "one entry always zero": (lambda t, y, p: p * np.stack([np.cos(t) * y[1], 0 * y[1]]), [0.0, 1.0],
                              np.linspace(0, 3, 301), 1.),
    "slow decay": (decay, [1.0, 2.0], np.linspace(0, 2, 201), 0.05),
    "decay, but short": (decay, [1.0, 2.0], np.linspace(0, 1, 201), 3.0),
    "growth": (lambda t, y, p: p * y, [1e-3, 2.0], np.linspace(0, 5, 251), 2.0),
    "large numbers": (lambda t, y, p: p * 1e12 * np.cos(y / 1e12), [1e12], np.linspace(0, 3, 301), 1.0),
    "small numbers": (lambda t, y, p: p * 1e-30 * np.cos(y * 1e30), [1e-30], np.linspace(0, 1, 101), 1.0),
    "large beside small": (lambda t, y, p: p * np.stack([y[1] * 1e6, -y[0] * 1e-6]), [1e6, 0.0],
                           np.linspace(0, 10, 501), 1.0),
    "backwards": (pendulum, [1.0, 0.3], np.linspace(10, 0, 501), 2.0),
    "constant": (lambda t, y, p: 0 * y * p, [1.0, -3.0], np.linspace(0, 1, 11), 1.0),
}
FLAT = {"coupled": rv.Coupled("midpoint"), "alf": rv.AsynchronousLeapfrog(),
        "heun": rv.ReversibleHeun(), "leapfrog": rv.LeapfrogMidpoint()}


@pytest.mark.sample(2, cover=False)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", FLAT.values(), ids=FLAT)
def test_no_false_alarm(method: Any, dtype: type) -> None:
    """The gradient is right to a hundredth of sqrt(eps), far below the line that a warning draws, and there is no warning. In
    float32 half of the digits are three, so the longer problems have few to lose: the line itself, 3.5e-4, times 10."""
    for name, (field, y0, ts, p) in FINE.items():
        ts = ts if dtype is np.float64 or len(ts) < 300 else ts[:len(ts) // 5]
        y0 = np.array(y0, dtype)
        if name == "decay, but short" and dtype is np.float32:
            continue        # exp(3) of 24 bits leaves 19, and the pair's expansion more: near the line
        if name == "growth" and dtype is np.float32:
            ts = ts[:126]   # the parasite of the way back grows by exp(10) over the whole of it: .1 to 1e-4 off
        if method is FLAT["leapfrog"] and name in ("decay, but short", "large numbers"):
            continue        # contractions, by exp(3) each: y is 5 % off
        for save in ((-1,), None):
            actual, stats, messages = warned(field, y0, ts, p, method, save=save)
            assert not messages, (name, save, messages)
            desired, _ = gradient_and_stats(field, y0, ts, p, method, rv.Direct(), save)
            if name != "all zero":
                line = 1e-2 * EPS**0.5 if dtype is np.float64 else 3.5e-3
                assert distance(actual, desired) < line, (name, save)
            assert np.isfinite(stats.roundtrip.ulps) and np.isfinite(stats.roundtrip.absolute)

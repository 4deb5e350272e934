"""The watch over a reverse sweep: does it come back to where the march was, and what would a difference do to the gradient?"""
from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..engine.tensor import beside, number
from ..methods.shears import Parts
from .alarms import Verdict
from .causes import CAUTION, CLOSE, FADE, NEARLY, OF_LEAF, OFF, TOL, Pairs, lost, parted_copies
from .gaps import injected, weighted
from .places import ROOM, windows
from .sizes import by_chance, column, finite, highest, largest_of_each, largest_seen, members, precision, size, sums_of, taken


class RoundTrip(NamedTuple):
    """How far the reverse sweep was from the states of the forward solve, at its worst; `sol.stats.roundtrip`.

    Parameters
    ----------
    absolute : largest |reconstructed - forward| over the states compared, in the unit of y.
    ulps : the same in units of the last place of the largest entry of the state.
    step : where: the index into the grid.
    """
    absolute: float      # largest |reconstructed - forward| over the states compared
    ulps: float          # the same in units of the last place of the largest entry of the state
    step: int            # where: the index into the grid

    def __repr__(self) -> str:
        return f"RoundTrip(absolute={self.absolute:.2g}, ulps={self.ulps:.4g}, step={self.step})"


class Back:
    """Watches a reverse sweep. It is shown states and cotangents at `looks`, and what had been there beside what came back.

        A   = max over saved and seen n of |a_n y_n|                                             what there is, entry by entry
        W_p = max over compared n of |a_n (yhat_n - y_n)| / A                                    for dL/dparams
        W_y = max over compared n of |yhat_n - y_n| / (largest |y|)                              for dL/dy0
        E   = sum over n of |a_{n+1} r_n| / A,      r_n = y_{n+1} - Phi_h(yhat_n)                nearly reversible methods
        S_p = sum |b e| / sum |a_{n+1} (y_{n+1} - y_n)|,      S_y = sum over n of sum |b e| / sum |a y|          the parasite
        S_d = sum over n of sum |b e| / sum |a (y_{n+1} - y_n)| * |a_{n+1} - a_n| / |a|             the same where y comes to rest

    An error that is small beside what flowed to a parameter on the way may be large beside what is left of it, so for each leaf of
    the parameters, and of y0,

        C   = |sum over n of |what flowed between two looks|| / |dL/dp|,       the error of dL/dp is at most about C max(W_p, E)
        W_0 = |yhat_0 - y_0| / s,     C_0 = s' / |a_0|        s, s' the sizes of y and of a near the start, as they fade from it
    """

    def __init__(self, problem: Any, tol: float | None, compared: set[int], ys: tuple, a_ys: tuple, a_parts: Parts) -> None:
        self.problem, self.tol = problem, TOL if tol is None else tol
        self.pairs, self.compared = Pairs(problem), compared
        outputs = problem.method.outputs
        self.width = neighbours(self.pairs)
        self.at = {n: k for k, n in enumerate(problem.save)}
        self.ys = dict(zip(outputs, ys, strict=True))
        self.trips: list[tuple[int, float, float]] = []
        self.eps, self.tiny = precision(ys[0].dtype)
        self.A = {name: largest_seen(a * y) for name, a, y in zip(outputs, a_ys, ys, strict=True)}
        self.scales = {name: np.maximum(problem.scales[name], largest_seen(y)) for name, y in self.ys.items()}
        self.at_least = {name: np.maximum(x, self.eps ** 0.25 * size(x) + self.tiny) for name, x in self.scales.items()}
        self.W_p: dict[str, Any] = {}
        self.W_y = 0.0
        self.broken = False                          # whether a cotangent is not finite though the state is
        self.sums: list[tuple] = []                  # |b e|, |a dy| and |a y|, by window and member
        self.flows: Any = None                       # what has flowed to the parameters, entry by entry, and as much as that in size
        self.recent: list[tuple] = []                # states and cotangents that have been seen
        self.near: dict[str, tuple] = {}             # of y and of a, by output: the size that these have near the start
        self.start: tuple[Parts, Parts, Parts] | None = None        # what came back at the start, what had been there, and a
        # a loss that looks at the companion itself has a cotangent there which is no parasite
        self.aside = any(bool(a.any()) for name, a in a_parts.items() if name not in outputs)

    def see(self, ns: list[int], parts: Parts, cotangents: Parts) -> None:
        """States and cotangents on the way back, in arrays with an axis of grid points first."""
        chosen = [i for i, n in enumerate(ns) if n in self.compared]
        if chosen:
            saved = [self.at[ns[i]] for i in chosen]
            self.compare([ns[i] for i in chosen], {name: parts[name][chosen] for name in self.ys},
                         {name: y[saved] for name, y in self.ys.items()}, {name: a[chosen] for name, a in cotangents.items()})
        data, width = self.pairs.data, self.width
        at, _, points = windows(tuple(ns), width)
        if not at.size:
            return
        at = beside(parts[next(iter(self.ys))])(at)
        middle = at[width // 2]
        a = taken(middle, cotangents)
        for name in self.ys:
            y, a_y = parts[name].take(middle, 0), a[name] if data is None else weighted(data.a, a)
            ay = abs(a_y * y)
            self.A[name] = np.maximum(self.A[name], ay.max(axis=0))
            self.recent.append((name, points, y, a_y))
        if len(self.recent) * ay.nbytes > ROOM:
            self.fade()
        if data is not None:
            D = self.pairs.gap(parts).take(at, 0)
            e = injected([D[j] for j in range(width)], self.pairs.k)
            moved = a_y * (y - parts[name].take(at[width // 2 - 1], 0))
            size = abs(a_y)
            ay = np.maximum(ay, 1e-2 * size * self.scales[name])                   # a state at zero has no size of its own
            apart = 2 if self.pairs.smooth else 1                                  # what swings from step to step is no change
            before = weighted(data.a, taken(at[width // 2 - apart], cotangents))
            changes = members(a_y - before) / (apart * members(size) + self.tiny)                          # of what is small
            self.sums.append((members(weighted(data.b, a) * e), members(moved), members(ay), changes))

    def compare(self, ns: list[int], parts: Parts, truth: Parts, cotangents: Parts) -> None:
        """What came back at these steps beside what had been there."""
        sizes = []
        for name, x in truth.items():
            off, a = abs(parts[name] - x), abs(cotangents[name])
            x = abs(x)
            sizes.append((largest_of_each(off), largest_of_each(x)))
            self.W_p[name] = np.maximum(self.W_p.get(name, 0.0), (a * off).max(axis=0))
            if name in self.ys:
                self.A[name] = np.maximum(self.A[name], (a * x).max(axis=0))
                self.W_y = max(self.W_y, finite(number((off / self.at_least[name]).max())))
        if ns[-1] == 0:
            self.start = tuple({name: x[-1] for name, x in kind.items()} for kind in (parts, truth, cotangents))  # type: ignore[assignment]
        absolute, size_of_x = sizes[0] if len(sizes) == 1 else (
            [max(x) for x in zip(*column, strict=True)] for column in zip(*sizes, strict=True))
        self.trips += [(n, finite(x), y) for n, x, y in zip(ns, absolute, size_of_x, strict=True)]
        if not self.broken and not all(math.isfinite(size(a)) for a in cotangents.values()):
            self.broken = all(finite(x) < math.inf for x in absolute)

    def flow(self, flowed: tuple | None) -> None:
        """What has flowed to the parameters so far, as rows: at the stop before, at looks, and now; and where in a row each leaf
        begins. None where that is too much to look at."""
        self.flows = flowing(self.flows, flowed)

    def fade(self) -> None:
        """The sizes near the start, from what has been seen."""
        ts = self.problem.ts
        span = abs(float(ts[-1] - ts[0])) or 1.0
        for name, ns, y, a in self.recent:
            less = column(np.exp([-FADE * abs(float(ts[n] - ts[0])) / span for n in ns]), y)
            before = self.near.get(name, (0.0, 0.0))
            self.near[name] = tuple(np.maximum(s, highest(x * less)) for s, x in zip(before, (y, a), strict=True))
        self.recent = []

    def at_start(self, E: float) -> float:
        """max(W_0, E) C_0 for the leaf of y0 of whose cotangent the least is left; or a larger number, if that is small enough."""
        if self.start is None or not self.problem.asked["y0"]:
            return 0.0
        data, (found, truth, a) = self.pairs.data, self.start
        a = a if data is None else {name: weighted(data.a, a) for name in self.ys}
        if len(self.recent) == 1 and not self.near:          # quickly told
            (name, _, _, seen), = self.recent
            y, least = truth[name], min([mean_square(x) for x in leaves_of(a[name], self.problem.widths)]) ** 0.5
            W_0 = size(abs(found[name] - y) / (abs(y) + self.eps ** 0.5 * size(y) + self.tiny))
            if least > 0 and (bound := max(W_0, E) * (1.0 + size(seen) / least)) < 0.01 * CLOSE[seen.dtype.itemsize]:
                return bound
        self.fade()
        worst = 0.0
        for name in self.ys:
            y, (of_y, of_a) = abs(truth[name]), self.near.get(name, (0.0, 0.0))
            of_y, of_a = np.maximum(y, of_y), np.maximum(abs(a[name]), of_a)
            W_0 = finite(size(abs(found[name] - truth[name]) / (of_y + self.eps ** 0.5 * size(of_y) + self.tiny)))
            C_0 = 1.0
            for x, near in zip(*(leaves_of(z, self.problem.widths) for z in (a[name], of_a)), strict=True):
                left, near = (mean_square(z) ** 0.5 for z in (x, near))
                C_0 = max(C_0, near / left if left > 0 else 1.0)
            worst = max(worst, max(W_0, E) * C_0)
        return worst

    def numbers(self, weighed: Any) -> dict[str, float]:
        """Everything that was measured."""
        tiny, first = self.tiny, self.problem.method.outputs[0]
        W_p = [size(self.problem.relative(x, self.A.get(name, self.A[first]), tiny)) for name, x in self.W_p.items()]
        found = {"W_y": self.W_y, "W_p": max(map(finite, W_p), default=0.0)}
        if weighed is not None:
            found["E"] = finite(size(weighed / (self.A[first] + tiny)))
        if self.sums and not self.aside:
            whole = [np.concatenate(column) for column in zip(*self.sums, strict=True)] if len(self.sums) > 1 else self.sums[0]
            be, moved, ay, changes = whole
            found |= of_pairs(be, moved, ay, changes, self.eps, tiny, self.problem.N)
        return found

    def verdict(self, largest: Any = None, weighed: Any = None) -> Verdict:
        """The judgement. Of methods that are nearly reversible also, entry by entry, max |r_n| and sum |a_{n+1} r_n|."""
        problem = self.problem
        if largest is not None:
            problem.stats.defect = size(largest)
        problem.stats.roundtrip = trip = roundtrip(self.trips, self.eps, self.tiny)
        found = self.numbers(weighed)
        of_params = max(found["W_p"], found.get("E", 0.0))
        # what rounding makes of the contributions of as many steps no mode does better
        over, close = max(0.0, of_params - self.eps * problem.N ** 0.5), CLOSE[next(iter(self.ys.values())).dtype.itemsize]
        of_leaf = over and over * cancelled(self.flows, OFF * close / over)
        estimate = {"y0": max(found["W_y"], of_params, CAUTION * self.at_start(of_params)), "params": max(of_params, of_leaf)}
        later, problem.later = problem.later, None           # (it holds the problem)
        if later is not None and max(estimate.values()) > OFF * close:
            later()
        telling = self.tol if problem.method.exactly_reversible else NEARLY * self.tol
        off = {"y0": of_params > self.tol or found["W_y"] > telling,
               "params": of_params > self.tol or of_leaf > OF_LEAF * self.tol}
        wrong = [name for name in off if off[name] and problem.asked[name]]
        found["leaf"] = of_leaf
        if self.broken:                              # then it is not the reconstruction
            return Verdict(estimate, [], found)
        details = {**found, "allowed": self.tol, "error": trip.absolute, "step": trip.step, "t": float(problem.ts[trip.step])}
        complaints = []
        if problem.suspicion and not problem.parted and (wrong or "S_p" not in found):
            complaints.append(problem.suspicion)                       # the sweep cannot tell
        if wrong:
            complaints.append(lost(problem, wrong, details))
        elif self.parts(found) and not problem.parted:
            complaints.append(parted_copies(problem, self.pairs, details))
        return Verdict(estimate, complaints, found)

    def parts(self, found: dict[str, float]) -> bool:
        """Whether the two copies part: by what the steps put between them, or by a gap that nothing explains any more."""
        if self.pairs.data is None:
            return False
        limits, seen = self.pairs.limits, self.problem.suspicion
        chance = by_chance(self.sums[0][0].shape[1:]) if self.sums and self.problem.system.noisy else 1.0
        return (any(found.get(name, 0.0) > chance * getattr(limits, name) for name in ("S_p", "S_y", "S_d"))
                or (seen is not None and seen.details["G"] > limits.G * seen.details["allowed"]))


def leaves_of(x: Any, widths: tuple[int, ...]) -> list:
    """(members, entries) of each leaf of y; widths: their entries along the last axis, where y is a tree."""
    x = x.reshape(-1, sum(widths) or (x.shape[-1] if x.ndim else 1))
    return [x[:, end - width:end] for end, width in zip(np.cumsum(widths).tolist(), widths, strict=True)] or [x]


def mean_square(x: Any) -> float:
    return number((x * x).sum()) / x.size


def neighbours(pairs: Pairs) -> int:
    """The neighbouring grid points of one look."""
    return 1 if pairs.data is None else 4 if pairs.smooth else 2


def flowing(before: Any, flowed: tuple | None) -> Any:
    """What is left of what has flowed to the parameters, how much that was in size, and where each leaf begins."""
    if flowed is None:
        return before
    rows, begins = flowed
    steps = rows[1:] - rows[:-1]
    amount = np.abs(steps, out=steps).sum(axis=0) if type(steps) is np.ndarray else abs(steps).sum(axis=0)
    return rows[-1], amount if before is None else before[1] + amount, begins


def cancelled(flows: Any, most: float) -> float:
    """C of the leaf of the parameters of which the least is left; 1 where it is below `most`."""
    if flows is None:
        return 1.0
    left, amount, begins = flows
    left, amount = sums_of(left * left, begins), sums_of(amount * amount, begins)
    if (amount <= most * most * left).all():
        return 1.0
    return max((a / b for a, b in zip(amount.tolist(), left.tolist(), strict=True) if b > 0), default=1.0) ** 0.5


def of_pairs(be: Any, moved: Any, ay: Any, changes: Any, eps: float, tiny: float, N: int) -> dict[str, float]:
    """The S, from what was seen by window and member."""
    moved = moved + 1024 * eps * ay              # what rounding does to a state at rest is no parasite
    changes = np.minimum(changes, 1 / eps)       # where a cotangent has come in and there was none it is without end
    return {"S_p": finite(size(be.sum(axis=0) / (moved.sum(axis=0) + tiny))),
            "S_y": finite(size((be / (ay + tiny)).sum(axis=0))) * N / len(be),
            "S_d": finite(size((be * changes / (moved + tiny)).sum(axis=0))) * N / len(be)}


def roundtrip(trips: list[tuple[int, float, float]], eps: float, tiny: float) -> RoundTrip:
    """The worst of these: (grid point, largest difference, largest entry of the state)."""
    if not trips:
        return RoundTrip(0.0, 0.0, 0)
    # Not by eps times the power: where there are no denormals (in JAX's threads) that is 0 for a state at rest.
    ulps = [off / eps / 2.0 ** math.floor(math.log2(max(largest, tiny))) for _, off, largest in trips]
    n, off, _ = max(trips, key=lambda trip: trip[1])
    return RoundTrip(off, max(ulps), n)

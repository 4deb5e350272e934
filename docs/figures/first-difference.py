"""Where an implementation leaves the paper: the clock of its evaluations, its states forward, its cotangents back.

    python docs/figures/first-difference.py

The asynchronous leapfrog of chapter 14, which this runs, right and with the chapter's two mistakes, on the case alf-eta0.875,
whose every step is known to 50 digits. A difference is relative to the largest entry of the state, or cotangent, of that step.
"""
import sys
from pathlib import Path

import numpy as np
import style

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))
VERSIONS = (("f at t, not at t + h/2", "C3", "s", {"start": True, "c": 0.0}),
            ("cotangent of v0 dropped", "C0", "^", {}), ("conforms", "C2", "o", {"start": True}))


def differences(found: list, known: list) -> np.ndarray:
    """The relative difference at each step; of the same bits 2e-17, so that a logarithm shows it."""
    return np.array([max(np.max(np.abs(a - b)) / np.max(np.abs(b)), 2e-17) for a, b in zip(found, known, strict=True)])


def clock(axes, case, alf) -> None:
    """When the field is evaluated: in the case, and by a version that asks too early."""
    case.problem.log.clear()
    alf(case.problem, **VERSIONS[0][3])
    edges, asked = case.problem.ts, [row[0] for row in case.problem.log][:len(case.evaluations)]
    rows = (("case", case.evaluations[:, 0], "C2", "o"), ("f at t", asked, "C3", "s"))
    for row, (_, times, colour, marker) in enumerate(rows):
        axes.plot(times, [row] * len(times), marker, color=colour, ms=8, clip_on=False)
        for t in np.unique(times):
            numbers = ", ".join(str(n) for n, each in enumerate(times, 1) if each == t)
            axes.text(t, (-0.13, 1.13)[row], numbers, color=colour, fontsize=11, ha="center", va=("top", "bottom")[row])
    axes.vlines(edges, -0.5, 1.5, color="0.85", lw=1, zorder=0)
    first = next(n for n, (a, b) in enumerate(zip(asked, case.evaluations[:, 0], strict=True)) if a != b)
    axes.annotate("", (asked[first], 0.93), (case.evaluations[first, 0], 0.07), arrowprops={"arrowstyle": "->", "color": "0.3"})
    axes.text(case.evaluations[first, 0] + 0.03, 0.5, f"no. {first + 1} differs first", va="center", fontsize=11.5)
    axes.set(title="evaluations of f", xlabel="t (grey: the grid)", ylim=(-0.5, 1.5))
    axes.set_yticks([0, 1], [name for name, *_ in rows])


def main() -> None:
    from revode.conformance.judging import GRADIENT_TOLERANCE, Y_TOLERANCE
    from tests.docs.run_chapters import DOCS, run

    path, = DOCS.glob("14-*.md")
    book = run(path)[2]
    case, alf = book["case"], book["alf"]
    figure, (left, forward, back) = style.subplots(3, 13.5, 4.4)
    clock(left, case, alf)
    n = np.arange(len(case.states))
    known = [*(a["y"] for a in reversed(case.cotangents)), case.ay0]
    for name, colour, marker, how in VERSIONS:
        found = alf(case.problem, **how)
        forward.semilogy(n, differences(found["ys"], case.ys), f"{marker}-", color=colour, label=name)
        off = differences([*(a["y"] for a in reversed(found["cotangents"])), found["ay0"]], known)
        back.semilogy(off, f"{marker}-", color=colour)
    for axes, tolerance in ((forward, Y_TOLERANCE), (back, GRADIENT_TOLERANCE)):
        axes.axhline(tolerance, color="0.6", lw=1, ls=":")
        axes.text(0.3, 1.5 * tolerance, "the checker's threshold", transform=axes.get_yaxis_transform(), color="0.4", fontsize=11)
        axes.set(xlabel="n", ylim=(1e-17, 1))
    forward.set(title="states, forward", ylabel="relative difference of $y_n$", xticks=n)
    back.set(title="cotangents, back", xlabel="n, and what is returned for $y_0$", ylabel="relative difference of $dL/dy_n$")
    back.set_xticks(range(len(known)), [*map(str, n[::-1]), "$y_0$"])
    figure.legend(*forward.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

"""A checkpoint schedule as a diagram: 10 steps, 3 places. Each row is a stretch of work, from top to bottom.

    python docs/figures/schedule.py
"""
import style

from revode.gradients.checkpointed import minimal_advances, split

N, PLACES = 10, 3


def work(start: int, steps: int, places: int, held: tuple[int, ...]) -> list[tuple[str, int, int, tuple[int, ...]]]:
    """(what, from, to, states held meanwhile) for the reversal of these steps."""
    if steps == 1:
        return [("back", start, start + 1, held)]
    m = split(steps, places) if places > 1 else steps - 1
    kept = (*held, start + m) if places > 1 else held
    return [("advance", start, start + m, held), *work(start + m, steps - m, max(places - 1, 1), kept), *work(start, m, places, held)]


def main() -> None:
    rows = work(0, N, PLACES, (0,))
    advances = sum(end - start for what, start, end, _ in rows if what == "advance")
    if advances != minimal_advances(N, PLACES):
        raise AssertionError(advances)
    figure, axes = style.subplots(1, 10.0, 5.6)
    for row, (what, start, end, held) in enumerate(rows):
        colour = "C0" if what == "advance" else "C3"
        first, last = (start, end) if what == "advance" else (end, start)
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (last, row), (first, row), arrowprops=arrow)
        axes.plot(held, [row] * len(held), "s", color="0.25", ms=6)
    axes.plot([], [], "-", color="C0", label=f"advance, no tape: {advances} steps")
    axes.plot([], [], "-", color="C3", label=f"step on a tape, and back: {N} steps")
    axes.plot([], [], "s", color="0.25", label=f"states held: at most {PLACES}")
    axes.set(xlabel="grid point", ylabel="work, from top to bottom", ylim=(len(rows) - 0.3, -0.7), xlim=(-0.3, N + 0.3))
    axes.set_xticks(range(N + 1))
    axes.set_yticks([])
    axes.grid(axis="x", alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

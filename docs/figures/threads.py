"""Threads and barriers: who computes which element, and where everybody waits.

    python docs/figures/threads.py

A product with a matrix (each thread reads what all have written) between two loops over elements. Above with four
threads of unlike speed, below with one: the same elements, in the same order within each, so the same bits.
"""
import style

ELEMENTS = 8
PHASES = (("write y", 1.0, "C0"), ("multiply by W: reads every y", 1.6, "C2"), ("tanh", 0.8, "C1"))
SPEED = (1.0, 1.25, 0.9, 1.1)


def draw(axes, threads: int, scale: float, title: str) -> None:
    begin = 0.0
    for phase, (_, each, colour) in enumerate(PHASES):
        ends = []
        for thread in range(threads):
            t, mine = begin, range(thread, ELEMENTS, threads)
            for element in mine:
                width = each * scale * SPEED[thread]
                axes.barh(thread, width, left=t, height=0.72, color=colour, alpha=0.75, edgecolor="white")
                axes.text(t + width / 2, thread, str(element), ha="center", va="center", fontsize=11)
                t += width
            ends.append(t)
        for thread, end in enumerate(ends):
            if max(ends) - end > 0.02:
                axes.barh(thread, max(ends) - end, left=end, height=0.72, color="0.9", hatch="///", edgecolor="0.75")
        begin = max(ends)
        if phase < 2:
            axes.axvline(begin + 0.04, color="k", lw=2.5)
            begin += 0.08
    axes.set(title=title, ylim=(threads - 0.5, -0.5), xlim=(0, begin + 0.1), xticks=[])
    axes.set_yticks(range(threads), [f"TID {n}" for n in range(threads)])


def main() -> None:
    figure, _ = style.subplots(1, 9.0, 4.3)
    figure.clear()
    many, one = figure.subplots(2, 1, height_ratios=(4, 1.2))
    draw(many, 4, 1.0, "NT = 4: thread i has elements i, i + 4; grey: it waits at the barrier")
    draw(one, 1, 0.28, "NT = 1: a plain loop, the barriers are empty")
    one.set_xlabel("time (no unit)")
    from matplotlib.patches import Patch
    handles = [Patch(color=colour, alpha=0.75, label=name) for name, _, colour in PHASES]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

"""Hare and lynx through the equation that chapter 15 learns; runs the chapter.

    python docs/figures/hare-lynx.py
"""
import sys
from pathlib import Path

import numpy as np
import style

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))


def main() -> None:
    from tests.docs.run_chapters import DOCS, run

    path, = DOCS.glob("15-*.md")
    book = run(path)[2]
    print({k: float(book["loss"](book["params"], book[k])) for k in ("seen", "unseen")}, book["off"])
    years, pelts, mean = book["years"], book["pelts"], book["mean"]
    figure, panels = style.subplots(2, 9.5, 3.6)
    for axes, column, name, colour in zip(panels, (0, 1), ("hare", "lynx"), ("C0", "C3"), strict=True):
        axes.plot(years, pelts[:, column], "o", ms=5, color=colour, label="Hudson's Bay Company")
        axes.plot(1900 + book["whole"].ts, np.exp(book["whole"].ys[:, column] + mean[column]), color="0.3", lw=1.6, label="from 1900")
        axes.plot(1915 + book["forecast"].ts, np.exp(book["forecast"].ys[:, column] + mean[column]), "--", color="k", lw=2,
                  label="forecast from 1915")
        axes.set(title=name, xlabel="year", ylim=(0, 100))
        axes.set_xticks(range(1900, 1921, 5))
        axes.axvline(1915, color="0.8", lw=1, zorder=0)
    panels[0].set_ylabel("thousands of pelts")
    panels[1].legend(loc="upper right", frameon=True, framealpha=1, edgecolor="none")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

"""A tape, drawn: x y + sin x, written down from left to right and pulled back from right to left.

    python docs/figures/tape.py
"""
import style
from numpy import cos, sin

X, Y = 2.0, 3.0
NODES = {"x": (0.0, 1.0), "y": (0.0, -1.0), "a": (3.0, -0.55), "b": (3.0, 1.0), "L": (6.2, 0.2)}
TEXT = {"x": f"x = {X:g}", "y": f"y = {Y:g}", "a": f"a = x y\n= {X * Y:g}",
        "b": f"b = sin x\n= {sin(X):.3f}", "L": f"L = a + b\n= {X * Y + sin(X):.3f}"}
COTANGENT = {"x": f"{Y + cos(X):.3f}", "y": f"{X:g}", "a": "1", "b": "1", "L": "1"}
EDGES = [("x", "a", "y", 0.5, 0.1), ("y", "a", "x", 0.25, -0.22), ("x", "b", "cos x", 0.0, 0.17),
         ("a", "L", "1", 0.0, 0.2), ("b", "L", "1", 0.0, 0.2)]


def main() -> None:
    figure, axes = style.subplots(1, 9.0, 3.7)
    for start, end, slope, dx, dy in EDGES:
        (x0, y0), (x1, y1) = NODES[start], NODES[end]
        arrow = {"arrowstyle": "-|>", "lw": 1.6, "shrinkA": 36, "shrinkB": 40}
        axes.annotate("", (x1, y1 + 0.05), (x0, y0 + 0.05), arrowprops={**arrow, "color": "C0"})
        axes.annotate("", (x0, y0 - 0.05), (x1, y1 - 0.05), arrowprops={**arrow, "color": "C3", "linestyle": "--"})
        axes.text((x0 + x1) / 2 + dx, (y0 + y1) / 2 + dy, f"times {slope}", color="C3", fontsize=11, ha="center", va="center",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    for slot, (name, (x, y)) in enumerate(NODES.items()):
        axes.text(x, y, TEXT[name], ha="center", va="center", fontsize=13,
                  bbox={"boxstyle": "round,pad=0.45", "facecolor": "#e8eef8", "edgecolor": "C0"})
        axes.text(x, y + 0.64, f"slot {slot}", ha="center", color="0.45", fontsize=11)
        axes.text(x, y + 0.41, f"cotangent {COTANGENT[name]}", ha="center", color="C3", fontsize=11)
    axes.text(3.1, -1.7, "solid: written down, slot by slot       dashed: pulled back, last slot first", ha="center", color="0.3")
    axes.set(xlim=(-1.2, 7.2), ylim=(-1.8, 1.9))
    axes.axis("off")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

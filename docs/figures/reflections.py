"""y and z of reversible Heun: on an oscillation side by side, on a contraction apart.   python docs/figures/reflections.py"""
import numpy as np
import style


def both(f, y0: np.ndarray, h: float, N: int) -> tuple[np.ndarray, np.ndarray]:
    """y and z at t = 0, h, ..., N h, each (N + 1, d)."""
    y, z = y0, y0
    ys, zs = [y], [z]
    for _ in range(N):
        y = y + h / 2 * f(z)
        z = 2 * y - z
        y = y + h / 2 * f(z)
        ys.append(y), zs.append(z)
    return np.array(ys), np.array(zs)


def main() -> None:
    figure, (left, right) = style.subplots(2, 10.0, 3.8)
    h = 0.1
    for ax, f, y0, truth, title in (
            (left, lambda y: np.array([y[1], -y[0]]), np.array([1.0, 0.0]), np.cos, "q'' = -q: z stays at y"),
            (right, lambda y: -y, np.array([1.0]), lambda t: np.exp(-t), "y' = -y: each reflection is a little wider")):
        ys, zs = both(f, y0, h, 100)
        t, fine = h * np.arange(101), np.linspace(0.0, 10.0, 400)
        ax.plot(fine, truth(fine), "k:", label="solution", zorder=3)
        ax.plot(t, ys[:, 0], "C0-", lw=1.3, label="y")
        ax.plot(t, zs[:, 0], "C3o", ms=3, label="z")
        ax.set(xlabel="t", ylabel="first component" if len(y0) > 1 else "y, z", title=title)
    right.set(xlim=(0.0, 6.5), ylim=(-1.5, 1.5))
    right.legend()
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

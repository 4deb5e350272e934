"""The V of finite differences: the error of a derivative against the step.

    python docs/figures/differences.py
"""
import numpy as np
import style


def f(x):
    return np.tanh(x) * np.sin(3 * x)


def main() -> None:
    x = np.linspace(0.1, 1.9, 400)
    true = np.sin(3 * x) / np.cosh(x) ** 2 + 3 * np.tanh(x) * np.cos(3 * x)
    steps = np.logspace(-16, -0.5, 94)

    def median(rule) -> list[float]:
        return [max(float(np.median(np.abs(rule(s) - true))), 1e-17) for s in steps]

    figure, axes = style.subplots(1, 7.5, 4.0)
    axes.loglog(steps, median(lambda s: (f(x + s) - f(x)) / s), color="C1", label="one-sided: best near $\\epsilon^{1/2}$")
    axes.loglog(steps, median(lambda s: (f(x + s) - f(x - s)) / (2 * s)), color="C0", label="central: best near $\\epsilon^{1/3}$")
    axes.loglog(steps, median(lambda s: f(x + 1j * s).imag / s), color="C2", label="complex step: no best, the smaller the better")
    axes.text(1.2e-15, 4e-7, "rounding / step", rotation=-27, color="0.3", fontsize=11)
    axes.text(2.5e-4, 1.5e-6, "step$^2$", rotation=49, color="0.3", fontsize=11)
    axes.set(xlabel="step", ylabel="error of the derivative", ylim=(1e-17, 1e5))
    axes.legend(loc="upper center")
    style.save(figure, __file__)


if __name__ == "__main__":
    main()

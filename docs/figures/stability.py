"""Stability regions of y' = a y: where no solution of a step grows.

    python docs/figures/stability.py
"""
import numpy as np
import style

import revode as rv
from revode.analysis import spectral_radius

METHODS = (
    ("NearReversible rk4 (the default)", rv.NearReversible("rk4"), "k"),
    ("EES, 4 stages", rv.EES(stages=4), "C0"),
    ("Coupled rk4, $\\lambda$ = 0.8", rv.Coupled("rk4", 0.8), "C3"),
    ("Coupled rk4, $\\lambda$ = 0.5", rv.Coupled("rk4", 0.5), "C1"),
)


def main() -> None:
    figure, (region, axis) = style.subplots(2, 8.6, 4.0)
    x, y = np.meshgrid(np.linspace(-4.5, 1.0, 300), np.linspace(-3.5, 3.5, 300))
    for label, method, colour in METHODS:
        region.contour(x, y, spectral_radius(method, x + 1j * y), [1.0], colors=colour, linewidths=1.8)
        region.plot([], [], color=colour, label=label)
    region.axhline(0, color="0.8", lw=0.8, zorder=0)
    region.axvline(0, color="0.8", lw=0.8, zorder=0)
    region.set(xlabel="Re h a  (decay to the left)", ylabel="Im h a  (oscillation)", ylim=(-3.5, 3.5), aspect="equal")
    w = np.linspace(0.0, 1.5, 400)
    for label, method, colour in (("ReversibleHeun", rv.ReversibleHeun(), "C2"),
                                  ("AsynchronousLeapfrog, $\\eta$ = 0.9", rv.AsynchronousLeapfrog(0.9), "C4"),
                                  ("EES, 4 stages", rv.EES(stages=4), "C0")):
        axis.plot(w, spectral_radius(method, 1j * w), color=colour, label=label)
    axis.axhline(1, color="0.8", lw=0.8, zorder=0)
    axis.set(xlabel="h w, on y' = i w y", ylabel="growth a step", ylim=(0.8, 2.6))
    axis.legend(loc="upper left")
    handles, labels = region.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    style.save(figure, __file__)


if __name__ == "__main__":
    main()
